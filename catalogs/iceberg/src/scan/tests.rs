#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::*;
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field, Fields, Int32Type, Schema as ArrowSchema};
use datafusion::common::ScalarValue;
use datafusion::datasource::MemTable;
use datafusion::physical_plan::ExecutionPlanProperties;
use datafusion::prelude::SessionContext;
use iceberg::spec::{
    DataFile, FormatVersion, ListType, Literal, MapType, NestedField, PrimitiveType as P, Schema, Struct, StructType,
    Transform, Type, UnboundPartitionSpec,
};
use iceberg::transform::create_transform_function;
use rand_like::Seeded;
use tidewater_catalogs::{Error, ErrorKind};

use super::fixture::{Fixture, identity, partition, rows, spec};
use super::provider;

mod equality;
mod evolution;
mod values;

/// A small generator, so that a failing seed can be named.
mod rand_like {
    pub struct Seeded(pub u64);
    impl Seeded {
        pub fn below(&mut self, n: u64) -> u64 {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 33) % n
        }
    }
}

fn optional(id: i32, name: &str, primitive: P) -> Arc<NestedField> {
    Arc::new(NestedField::optional(id, name, Type::Primitive(primitive)))
}

fn schema(fields: Vec<Arc<NestedField>>) -> Schema {
    Schema::builder().with_fields(fields).build().unwrap()
}

fn no_spec() -> UnboundPartitionSpec {
    spec(&[])
}

fn ids(range: std::ops::Range<i64>) -> ArrayRef {
    Arc::new(Int64Array::from_iter_values(range))
}

fn texts(values: impl IntoIterator<Item = Option<&'static str>>) -> ArrayRef {
    Arc::new(values.into_iter().collect::<StringArray>())
}

fn id_schema() -> Schema {
    schema(vec![optional(1, "id", P::Long)])
}

/// Files of 100 ids each, one commit per file.
async fn id_table(files: i64) -> (Fixture, Vec<DataFile>) {
    let mut table = Fixture::new(id_schema(), no_spec());
    let mut written = Vec::new();
    for i in 0..files {
        let batch = table.batch(vec![ids(i * 100..i * 100 + 100)]);
        let file = table.data_file(batch, Struct::empty()).await;
        written.push(file.clone());
        table.commit(vec![file]).await;
    }
    (table, written)
}

fn kind(result: datafusion::common::Result<Vec<String>>) -> ErrorKind {
    Error::from(result.unwrap_err()).kind()
}

#[tokio::test]
async fn rows_come_back_and_bounds_leave_files_out() {
    let (table, _) = id_table(5).await;
    let all = table.query("select id from t order by id").await;
    assert_eq!(all, (0..500).map(|i| i.to_string()).collect::<Vec<_>>());
    for (filter, files, count) in [
        ("id = 250", "1/5", 1),
        ("id >= 399 and id < 401", "2/5", 2),
        ("id in (1, 499)", "2/5", 2),
        ("id < 0", "0/5", 0),
        ("id is null", "0/5", 0),
        ("id % 100 = 7", "5/5", 5),
    ] {
        assert_eq!(table.files(&format!("select * from t where {filter}")).await, files, "{filter}");
        assert_eq!(table.query(&format!("select id from t where {filter}")).await.len(), count, "{filter}");
    }
}

#[tokio::test]
async fn a_table_without_snapshots_is_empty() {
    let table = Fixture::new(id_schema(), no_spec());
    assert!(table.query("select * from t").await.is_empty());
    assert_eq!(table.query("select count(*) from t where id > 3").await, ["0"]);
    assert_eq!(table.query("select count(*), min(id) from t").await, ["0|null"]);
}

#[tokio::test]
async fn explain_names_table_snapshot_and_files() {
    let (table, _) = id_table(3).await;
    let text = table.query("explain select * from t where id = 5").await.join("\n");
    assert!(text.contains("file_type=iceberg, table=lake.public.t, snapshot=1002, files=1/3"), "{text}");
}

fn literal(value: ScalarValue) -> Option<Literal> {
    match value {
        ScalarValue::Int32(v) | ScalarValue::Date32(v) => v.map(Literal::int),
        ScalarValue::Int64(v) => v.map(Literal::long),
        ScalarValue::Utf8(v) => v.map(Literal::string),
        ScalarValue::TimestampMicrosecond(v, _) => v.map(Literal::timestamp),
        ScalarValue::Decimal128(v, _, _) => v.map(Literal::decimal),
        ScalarValue::Boolean(v) => v.map(Literal::bool),
        other => panic!("{other:?}"),
    }
}

/// One file per value, without bounds, in one manifest per value: only the partition can prune.
async fn one_file_per_value(primitive: P, transform: Transform, values: ArrayRef) -> Fixture {
    let schema = schema(vec![optional(1, "v", primitive)]);
    let mut table = Fixture::new(schema, spec(&[(1, "p".to_owned(), transform)]));
    let parts = create_transform_function(&transform).unwrap().transform(values.clone()).unwrap();
    for row in 0..values.len() {
        let batch = table.batch(vec![values.slice(row, 1)]);
        let part = partition([literal(ScalarValue::try_from_array(&parts, row).unwrap())]);
        let file = table.foreign_file(batch, part).await;
        table.commit(vec![file]).await;
    }
    table
}

/// Every comparison with every value gives the rows that a plain table gives; equality leaves files out.
async fn check_transform(primitive: P, transform: Transform, values: ArrayRef, prunes_ranges: bool) {
    let table = one_file_per_value(primitive, transform, values.clone()).await;
    let context = table.context(2);
    let batch = RecordBatch::try_new(table.arrow(), vec![values.clone()]).unwrap();
    context.register_table("m", Arc::new(MemTable::try_new(batch.schema(), vec![vec![batch]]).unwrap())).unwrap();
    let (mut range_pruned, mut equal_pruned) = (false, true);
    for row in (0..values.len()).filter(|row| values.is_valid(*row)) {
        let text =
            rows(&context, &format!("select cast(v as varchar) from (select v from m limit 1 offset {row})")).await;
        let text = text.unwrap().remove(0);
        for op in ["=", "<", "<=", ">", ">=", "<>"] {
            let filter = format!("v {op} arrow_cast('{text}', '{}')", values.data_type());
            let mut got = rows(&context, &format!("select v from t where {filter}")).await.unwrap();
            let mut want = rows(&context, &format!("select v from m where {filter}")).await.unwrap();
            got.sort();
            want.sort();
            assert_eq!(got, want, "{transform}: {filter}");
            let files = table.files(&format!("select v from t where {filter}")).await;
            let all = format!("{0}/{0}", values.len());
            range_pruned |= op == "<" && files != all;
            equal_pruned &= op != "=" || files != all;
        }
    }
    assert!(equal_pruned, "{transform} leaves no file out for an equality");
    let nulls = values.null_count();
    // Nulls are left out by any transform.
    assert_eq!(range_pruned, prunes_ranges || nulls > 0, "{transform}");
    assert_eq!(table.query("select count(*) from t where v is null").await, [nulls.to_string()]);
    if nulls > 0 {
        assert_eq!(table.files("select v from t where v is null").await, format!("{nulls}/{}", values.len()));
        let without = format!("{}/{}", values.len() - nulls, values.len());
        assert_eq!(table.files("select v from t where v is not null").await, without);
    }
}

#[tokio::test]
async fn identity_prunes() {
    let values = texts([Some("eu"), Some("us"), None, Some("ap"), Some("")]);
    check_transform(P::String, Transform::Identity, values, true).await;
    let values: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), Some(-5), None, Some(i64::MAX)]));
    check_transform(P::Long, Transform::Identity, values, true).await;
}

#[tokio::test]
async fn buckets_prune() {
    let values: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), Some(2), Some(3), Some(4), None, Some(-9)]));
    check_transform(P::Long, Transform::Bucket(16), values, false).await;
    let values: ArrayRef = Arc::new(Int32Array::from(vec![Some(1), Some(2), Some(3), Some(4)]));
    check_transform(P::Int, Transform::Bucket(16), values, false).await;
    check_transform(P::String, Transform::Bucket(7), texts([Some("a"), Some("b"), Some("c"), Some("")]), false).await;
}

#[tokio::test]
async fn truncations_prune() {
    let values: ArrayRef =
        Arc::new(Int64Array::from(vec![Some(-11), Some(-10), Some(-1), Some(0), Some(9), Some(10), None]));
    check_transform(P::Long, Transform::Truncate(10), values, true).await;
    let values = texts([Some("alpha"), Some("alphabet"), Some("al"), Some("beta"), Some("zürich"), None, Some("")]);
    check_transform(P::String, Transform::Truncate(3), values, true).await;
    let values: ArrayRef =
        Arc::new(Decimal128Array::from(vec![-150, -1, 0, 99, 100, 12_345]).with_precision_and_scale(9, 2).unwrap());
    check_transform(P::Decimal { precision: 9, scale: 2 }, Transform::Truncate(50), values, true).await;
}

#[tokio::test]
async fn times_prune() {
    let second = 1_000_000i64;
    let day = 86_400 * second;
    let instants = [0, 1, -1, day - 1, day, -day, 400 * day, 20_000 * day + 7, 20_000 * day + 3_700 * second];
    let stamps: TimestampMicrosecondArray = instants.into_iter().map(Some).chain([None]).collect();
    for transform in [Transform::Year, Transform::Month, Transform::Day, Transform::Hour] {
        check_transform(P::Timestamp, transform, Arc::new(stamps.clone()), true).await;
        let zoned: ArrayRef = Arc::new(stamps.clone().with_timezone("+00:00"));
        check_transform(P::Timestamptz, transform, zoned, true).await;
    }
    let dates: ArrayRef =
        Arc::new(Date32Array::from(vec![Some(0), Some(-1), Some(31), Some(-400), Some(20_000), None]));
    for transform in [Transform::Year, Transform::Month, Transform::Day] {
        check_transform(P::Date, transform, dates.clone(), true).await;
    }
}

#[tokio::test]
async fn manifests_are_left_out_by_their_partitions() {
    let values: ArrayRef = Arc::new(Int64Array::from_iter_values(0..10));
    for transform in [Transform::Identity, Transform::Bucket(64), Transform::Truncate(2)] {
        let table = one_file_per_value(P::Long, transform, values.clone()).await;
        let (_, text) = table.plan("select v from t where v = 4").await;
        assert!(text.contains("files=1/10") || text.contains("files=2/10"), "{transform}: {text}");
        assert!(!text.contains("manifests=10/10"), "{transform}: {text}");
    }
}

#[tokio::test]
async fn several_specs_in_one_table() {
    let fields = vec![optional(1, "id", P::Long), optional(2, "region", P::String)];
    let mut table = Fixture::new(schema(fields), spec(&[identity(2, "region")]));
    let write = |table: &Fixture, from: i64, region: &'static str| {
        table.batch(vec![ids(from..from + 10), texts(std::iter::repeat_n(Some(region), 10))])
    };
    for (from, region) in [(0, "eu"), (10, "us")] {
        let file = table.foreign_file(write(&table, from, region), partition([Some(Literal::string(region))])).await;
        table.commit(vec![file]).await;
    }
    table.change(|b| b.add_default_partition_spec(spec(&[(1, "b".to_owned(), Transform::Truncate(10))])).unwrap());
    for (from, region) in [(20, "eu"), (30, "us")] {
        let file = table.foreign_file(write(&table, from, region), partition([Some(Literal::long(from))])).await;
        table.commit(vec![file]).await;
    }
    table.change(|b| b.add_default_partition_spec(no_spec()).unwrap());
    let file = table.foreign_file(write(&table, 40, "ap"), Struct::empty()).await;
    table.commit(vec![file]).await;

    assert_eq!(table.files("select * from t where region = 'eu'").await, "4/5");
    assert_eq!(table.files("select * from t where id = 25").await, "4/5");
    assert_eq!(table.files("select * from t where id = 25 and region = 'eu'").await, "3/5");
    assert_eq!(table.query("select count(*) from t where region = 'eu'").await, ["20"]);
    assert_eq!(table.query("select id, region from t where id = 35").await, ["35|us"]);
    assert_eq!(table.query("select count(*) from t").await, ["50"]);
}

#[tokio::test]
async fn columns_are_found_by_id_whatever_their_names() {
    let mut table = Fixture::new(
        schema(vec![optional(1, "a", P::Int), optional(2, "b", P::String), optional(3, "f", P::Float)]),
        no_spec(),
    );
    let batch = table.batch(vec![
        Arc::new(Int32Array::from(vec![1, 2])),
        texts([Some("x"), Some("y")]),
        Arc::new(Float32Array::from(vec![0.5, 1.5])),
    ]);
    let file = table.data_file(batch, Struct::empty()).await;
    let first = table.commit(vec![file]).await;
    // `a` and `b` change names; `a` and `f` grow; a new `a` and one with a default come in front.
    let with_default = NestedField::optional(5, "d", Type::Primitive(P::Long)).with_initial_default(Literal::long(7));
    table.evolve(
        Schema::builder()
            .with_schema_id(1)
            .with_fields(vec![
                optional(4, "a", P::String),
                optional(3, "f", P::Double),
                Arc::new(with_default),
                optional(1, "b", P::Long),
                optional(2, "c", P::String),
            ])
            .build()
            .unwrap(),
    );
    let batch = table.batch(vec![
        texts([Some("new")]),
        Arc::new(Float64Array::from(vec![2.5])),
        Arc::new(Int64Array::from(vec![None])),
        ids(3..4),
        texts([Some("z")]),
    ]);
    let file = table.data_file(batch, Struct::empty()).await;
    table.commit(vec![file]).await;

    let all = table.query("select a, f, d, b, c from t order by b").await;
    assert_eq!(all, ["null|0.5|7|1|x", "null|1.5|7|2|y", "new|2.5|null|3|z"]);
    // Under the old names the statistics of the first file would lead astray.
    for (filter, files, expected) in [
        ("b = 2", "1/2", vec!["2"]),
        ("c = 'x'", "1/2", vec!["1"]),
        ("a = 'new'", "2/2", vec!["3"]),
        ("a is null", "1/2", vec!["1", "2"]),
        ("d = 7", "1/2", vec!["1", "2"]),
        ("f > 1.0", "2/2", vec!["2", "3"]),
    ] {
        let sql = format!("select b from t where {filter} order by b");
        assert_eq!(table.query(&sql).await, expected, "{filter}");
        let kept = table.files(&format!("select b from t where {filter}")).await;
        assert!(kept == files || kept == "2/2", "{filter}: {kept}");
    }
    let past = table.context_at(2, Some(first));
    assert_eq!(rows(&past, "select * from t order by a").await.unwrap(), ["1|x|0.5", "2|y|1.5"]);
    assert_eq!(provider(table.state(), Some(1)).unwrap_err().kind(), ErrorKind::NotFound);
}

fn nested(fields: Vec<Arc<NestedField>>) -> Type {
    Type::Struct(StructType::new(fields))
}

#[tokio::test]
async fn nested_fields_are_found_by_id() {
    let inner = nested(vec![optional(3, "x", P::Int), optional(4, "y", P::String)]);
    let list = Type::List(ListType::new(Arc::new(NestedField::list_element(6, inner.clone(), false))));
    let map = Type::Map(MapType::new(
        Arc::new(NestedField::map_key_element(8, Type::Primitive(P::String))),
        Arc::new(NestedField::map_value_element(9, Type::Primitive(P::Int), false)),
    ));
    let inner2 = nested(vec![optional(13, "x", P::Int), optional(14, "y", P::String)]);
    let fields = vec![
        Arc::new(NestedField::optional(1, "s", inner2)),
        Arc::new(NestedField::optional(5, "l", list)),
        Arc::new(NestedField::optional(7, "m", map)),
        optional(10, "id", P::Long),
    ];
    let mut table = Fixture::new(schema(fields), no_spec());
    let field_types: Vec<DataType> = table.arrow().fields().iter().map(|f| f.data_type().clone()).collect();
    let DataType::Struct(s_fields) = &field_types[0] else { panic!() };
    let pair = |fields: &Fields, nulls: Option<Vec<bool>>| -> ArrayRef {
        let columns: Vec<ArrayRef> = vec![Arc::new(Int32Array::from(vec![1, 2])), texts([Some("p"), None])];
        Arc::new(StructArray::new(fields.clone(), columns, nulls.map(Into::into)))
    };
    let DataType::List(element) = &field_types[1] else { panic!() };
    let DataType::Struct(element_fields) = element.data_type() else { panic!() };
    let l = ListArray::new(element.clone(), OffsetBuffer::from_lengths([2, 0]), pair(element_fields, None), None);
    let DataType::Map(entry, _) = &field_types[2] else { panic!() };
    let DataType::Struct(entry_fields) = entry.data_type() else { panic!() };
    let entries: Vec<ArrayRef> = vec![texts([Some("k")]), Arc::new(Int32Array::from(vec![5]))];
    let entries = StructArray::new(entry_fields.clone(), entries, None);
    let offsets = OffsetBuffer::from_lengths([1, 0]);
    let m = MapArray::new(entry.clone(), offsets, entries, Some(vec![true, false].into()), false);
    let batch = table.batch(vec![pair(s_fields, Some(vec![true, false])), Arc::new(l), Arc::new(m), ids(0..2)]);
    let file = table.data_file(batch, Struct::empty()).await;
    table.commit(vec![file]).await;
    assert_eq!(
        table.query("select s, l, m from t where id = 0").await,
        ["{x: 1, y: p}|[{x: 1, y: p}, {x: 2, y: null}]|{k: 5}"]
    );

    // In each struct: the order is turned, one field renamed and grown, one dropped, one added under its name.
    let current = table.metadata.current_schema().clone();
    let id = |name: &str| current.field_id_by_name(name).unwrap();
    let s = nested(vec![optional(100, "y", P::Long), optional(id("s.x"), "z", P::Long)]);
    let element = nested(vec![optional(id("l.element.y"), "x", P::String), optional(101, "w", P::Boolean)]);
    let l = Type::List(ListType::new(Arc::new(NestedField::list_element(id("l.element"), element, false))));
    let m = Type::Map(MapType::new(
        Arc::new(NestedField::map_key_element(id("m.key"), Type::Primitive(P::String))),
        Arc::new(NestedField::map_value_element(id("m.value"), Type::Primitive(P::Long), false)),
    ));
    table.evolve(
        Schema::builder()
            .with_schema_id(1)
            .with_fields(vec![
                optional(id("id"), "id", P::Long),
                Arc::new(NestedField::optional(id("s"), "s", s)),
                Arc::new(NestedField::optional(id("l"), "l", l)),
                Arc::new(NestedField::optional(id("m"), "mm", m)),
            ])
            .build()
            .unwrap(),
    );
    assert_eq!(
        table.query("select s, l, mm from t order by id").await,
        ["{y: null, z: 1}|[{x: p, w: null}, {x: null, w: null}]|{k: 5}", "null|[]|null"]
    );
    assert_eq!(table.query("select s['z'], s['y'] from t where s['z'] = 1").await, ["1|null"]);
}

#[tokio::test]
async fn a_missing_partition_column_has_its_partition_value() {
    let fields = vec![optional(1, "id", P::Long), optional(2, "region", P::String)];
    let mut table = Fixture::new(schema(fields), spec(&[identity(2, "region")]));
    for (from, region) in [(0, Some("eu")), (10, Some("us")), (20, None)] {
        let batch = table.batch(vec![ids(from..from + 10), texts(std::iter::repeat_n(None, 10))]);
        let without = batch.project(&[0]).unwrap();
        let file = table.foreign_file(without, partition([region.map(Literal::string)])).await;
        table.commit(vec![file]).await;
    }
    assert_eq!(
        table.query("select region, count(*) from t group by region order by 1").await,
        ["eu|10", "us|10", "null|10"]
    );
    assert_eq!(table.query("select min(id), max(region) from t where region = 'us'").await, ["10|us"]);
    assert_eq!(table.query("select count(*) from t where region is null").await, ["10"]);
    assert_eq!(table.query("select id from t where id = 15 and region <> 'eu'").await, ["15"]);
}

/// A schema without any field ids.
fn bare(batch: RecordBatch) -> RecordBatch {
    let strip = |f: &Arc<Field>| f.as_ref().clone().with_metadata(HashMap::new());
    let fields: Vec<Field> = batch.schema().fields().iter().map(strip).collect();
    RecordBatch::try_new(Arc::new(ArrowSchema::new(fields)), batch.columns().to_vec()).unwrap()
}

#[tokio::test]
async fn files_without_ids_need_a_name_mapping() {
    let mut table = Fixture::new(schema(vec![optional(1, "id", P::Long), optional(2, "name", P::String)]), no_spec());
    let batch = bare(table.batch(vec![ids(0..2), texts([Some("a"), Some("b")])]));
    let file = table.foreign_file(batch, Struct::empty()).await;
    table.commit(vec![file]).await;
    assert_eq!(kind(rows(&table.context(2), "select * from t").await), ErrorKind::Unsupported);

    // The mapping says that the table's `name` was once called `id`, and the other way round.
    let mapping = r#"[{"field-id": 2, "names": ["id2", "name"]}, {"field-id": 1, "names": ["id"]}]"#;
    let property = HashMap::from([("schema.name-mapping.default".to_owned(), mapping.to_owned())]);
    table.change(|b| b.set_properties(property).unwrap());
    assert_eq!(table.query("select id, name from t order by id").await, ["0|a", "1|b"]);
    let mapping = r#"[{"field-id": 1, "names": ["id"]}]"#;
    let property = HashMap::from([("schema.name-mapping.default".to_owned(), mapping.to_owned())]);
    table.change(|b| b.set_properties(property).unwrap());
    assert_eq!(table.query("select id, name from t order by id").await, ["0|null", "1|null"]);
}

#[tokio::test]
async fn damaged_and_missing_files_keep_their_kind() {
    let (table, files) = id_table(2).await;
    let path = |file: &DataFile| file.file_path().trim_start_matches("file://").to_owned();
    std::fs::remove_file(path(&files[0])).unwrap();
    assert_eq!(kind(rows(&table.context(1), "select id from t where id < 100").await), ErrorKind::Unavailable);
    let size = std::fs::metadata(path(&files[1])).unwrap().len() as usize;
    std::fs::write(path(&files[1]), vec![7; size]).unwrap();
    assert_eq!(kind(rows(&table.context(1), "select id from t where id >= 100").await), ErrorKind::DataCorrupt);
}

#[tokio::test]
async fn types_that_do_not_fit_are_refused() {
    let mut table = Fixture::new(schema(vec![optional(1, "id", P::Long), optional(2, "v", P::Int)]), no_spec());
    let arrow = table.arrow();
    let fields = vec![arrow.field(0).clone(), arrow.field(1).clone().with_data_type(DataType::Int64)];
    let wide =
        RecordBatch::try_new(Arc::new(ArrowSchema::new(fields)), vec![ids(0..1), ids(1 << 40..(1 << 40) + 1)]).unwrap();
    let file = table.foreign_file(wide, Struct::empty()).await;
    table.commit(vec![file]).await;
    assert_eq!(kind(rows(&table.context(2), "select v from t").await), ErrorKind::Unsupported);
    assert_eq!(table.query("select id from t").await, ["0"]);
}

#[tokio::test]
async fn a_required_column_must_be_there() {
    let mut table = Fixture::new(id_schema(), no_spec());
    let batch = table.batch(vec![ids(0..1)]);
    let file = table.foreign_file(batch, Struct::empty()).await;
    table.commit(vec![file]).await;
    let required = NestedField::required(2, "r", Type::Primitive(P::Long)).with_initial_default(Literal::long(3));
    let schema = Schema::builder().with_schema_id(1).with_fields(vec![optional(1, "id", P::Long), Arc::new(required)]);
    table.evolve(schema.build().unwrap());
    assert_eq!(table.query("select id, r from t").await, ["0|3"]);
}

#[tokio::test]
async fn position_deletes_hide_rows() {
    let (mut table, files) = id_table(3).await;
    let (first, second) = (files[0].file_path().to_owned(), files[1].file_path().to_owned());
    let shared = table.position_deletes(&[(&first, 0), (&first, 99), (&second, 50)], Struct::empty(), None).await;
    table.commit(vec![shared]).await;
    let named =
        table.position_deletes(&[(&first, 1), (&first, 99), (&first, 5_000)], Struct::empty(), Some(&first)).await;
    table.commit(vec![named]).await;
    let expected: Vec<i64> = (0..300).filter(|i| ![0, 1, 99, 150].contains(i)).collect();
    let got = table.query("select id from t order by id").await;
    assert_eq!(got, expected.iter().map(i64::to_string).collect::<Vec<_>>());
    assert_eq!(table.query("select count(*), min(id), max(id) from t where id < 100").await, ["97|2|98"]);
    assert_eq!(table.query("select count(*), min(id) from t").await, ["296|2"]);
    // A delete file that names no data file may concern any of its partition.
    assert!(table.plan("select id from t").await.1.contains("files_with_deletes=3"));
    for id in [0, 1, 99, 150] {
        assert!(table.query(&format!("select id from t where id = {id}")).await.is_empty());
    }
}

/// Rows written after a delete are not touched by it, even at the same path and position.
#[tokio::test]
async fn older_deletes_do_not_apply() {
    let mut table = Fixture::new(id_schema(), no_spec());
    let batch = table.batch(vec![ids(0..10)]);
    let file = table.data_file(batch, Struct::empty()).await;
    let path = file.file_path().to_owned();
    let delete = table.position_deletes(&[(&path, 3)], Struct::empty(), None).await;
    table.commit(vec![delete]).await;
    table.commit(vec![file]).await;
    assert_eq!(table.query("select count(*) from t").await, ["10"]);
    let delete = table.position_deletes(&[(&path, 4)], Struct::empty(), None).await;
    table.commit(vec![delete]).await;
    assert_eq!(table.query("select count(*) from t").await, ["9"]);
}

/// A delete in the same snapshot as its data applies.
#[tokio::test]
async fn deletes_apply_to_data_of_their_own_snapshot_and_partition() {
    let fields = vec![optional(1, "id", P::Long)];
    let mut table = Fixture::new(schema(fields), spec(&[(1, "p".to_owned(), Transform::Truncate(100))]));
    let mut files = Vec::new();
    for from in [0i64, 100] {
        let batch = table.batch(vec![ids(from..from + 100)]);
        files.push(table.data_file(batch, partition([Some(Literal::long(from))])).await);
    }
    let (a, b) = (files[0].file_path().to_owned(), files[1].file_path().to_owned());
    files.push(table.position_deletes(&[(&a, 1), (&b, 1)], partition([Some(Literal::long(0))]), None).await);
    table.commit(files).await;
    // The entry for the other partition's file does not count: the spec binds deletes to their partition.
    assert_eq!(table.query("select count(*) from t").await, ["199"]);
    assert!(table.query("select id from t where id = 1").await.is_empty());
}

/// DataFusion 53.1 turns row groups that match a filter as a whole into full scans when there is a limit, and so
/// forgets the selection that leaves deleted rows out. It only does so where the filter is evaluated in the Parquet
/// reader; the scan never lets it, whatever the session says.
#[tokio::test]
async fn deleted_rows_stay_away_under_filter_and_limit() {
    let mut table = Fixture::new(id_schema(), no_spec());
    table.row_group_rows = 50;
    let batch = table.batch(vec![ids(0..500)]);
    let file = table.data_file(batch, Struct::empty()).await;
    let path = file.file_path().to_owned();
    table.commit(vec![file]).await;
    let deleted: Vec<(&str, i64)> = (0..500).filter(|i| i % 10 == 0).map(|i| (path.as_str(), i)).collect();
    let delete = table.position_deletes(&deleted, Struct::empty(), None).await;
    table.commit(vec![delete]).await;
    for pushdown in [false, true] {
        for partitions in [1, 3] {
            let context = table.context(partitions);
            let set = format!("set datafusion.execution.parquet.pushdown_filters = {pushdown}");
            context.sql(&set).await.unwrap().collect().await.unwrap();
            for sql in [
                "select id from t where id >= 0 limit 50",
                "select id from t where id >= 100 and id < 400 limit 60",
                "select id from t limit 50",
                "select id from t where id >= 0 order by id limit 50",
                "select id from t order by id desc limit 50",
            ] {
                let got = rows(&context, sql).await.unwrap();
                let ids: Vec<i64> = got.iter().map(|r| r.parse().unwrap()).collect();
                assert!(ids.iter().all(|i| i % 10 != 0), "{sql}: {ids:?}");
                assert_eq!(ids.len(), if sql.ends_with("60") { 60 } else { 50 }, "{sql}");
            }
            assert_eq!(rows(&context, "select count(*) from t where id >= 0").await.unwrap(), ["450"]);
        }
    }
}

#[tokio::test]
async fn whole_row_groups_may_be_deleted() {
    let mut table = Fixture::new(id_schema(), no_spec());
    table.row_group_rows = 50;
    let batch = table.batch(vec![ids(0..200)]);
    let file = table.data_file(batch, Struct::empty()).await;
    let path = file.file_path().to_owned();
    table.commit(vec![file]).await;
    let deleted: Vec<(&str, i64)> = (50..101).map(|i| (path.as_str(), i)).collect();
    let delete = table.position_deletes(&deleted, Struct::empty(), None).await;
    table.commit(vec![delete]).await;
    assert_eq!(
        table.query("select count(*), sum(id) from t").await,
        [format!("149|{}", 199 * 100 - (50..101).sum::<i64>())]
    );
    assert_eq!(table.query("select id from t where id between 95 and 102 order by id").await, ["101", "102"]);
}

#[tokio::test]
async fn deletion_vectors_replace_position_deletes() {
    let mut table = Fixture::with_version(id_schema(), no_spec(), FormatVersion::V3);
    let batch = table.batch(vec![ids(0..10)]);
    let file = table.data_file(batch, Struct::empty()).await;
    let path = file.file_path().to_owned();
    let blob = super::vector::tests::blob(&[(0, super::vector::tests::array(&[2, 5]))]);
    let vector = table.deletion_vector(&blob, 2, &path).await;
    table.commit(vec![file, vector]).await;
    assert_eq!(table.query("select id from t order by id").await, ["0", "1", "3", "4", "6", "7", "8", "9"]);
}

#[tokio::test]
async fn counts_and_extremes_come_from_metadata() {
    let (mut table, files) = id_table(3).await;
    for (sql, expected) in
        [("select count(*) from t", "300"), ("select min(id), max(id), count(id) from t", "0|299|300")]
    {
        assert_eq!(table.query(sql).await, [expected]);
        let (_, text) = table.plan(sql).await;
        assert!(!text.contains("file_groups"), "{text}");
    }
    // Filters and deletes make the metadata a bound only.
    assert_eq!(table.query("select count(*), max(id) from t where id <> 299").await, ["299|298"]);
    let path = files[2].file_path().to_owned();
    let delete = table.position_deletes(&[(&path, 99)], Struct::empty(), None).await;
    table.commit(vec![delete]).await;
    assert_eq!(table.query("select count(*), max(id), count(id) from t").await, ["299|298|299"]);
}

#[tokio::test]
async fn cut_texts_are_no_extremes() {
    let mut table = Fixture::new(schema(vec![optional(1, "s", P::String)]), no_spec());
    let long: String = "x".repeat(500);
    let batch = table.batch(vec![Arc::new(StringArray::from(vec![Some(long.as_str()), Some("y"), None]))]);
    let file = table.data_file(batch, Struct::empty()).await;
    table.commit(vec![file]).await;
    assert_eq!(table.query("select min(s), max(s), count(s) from t").await, [format!("{long}|y|2")]);
    assert_eq!(table.query("select count(*) from t where s > 'xxx' and s < 'y'").await, ["1"]);
}

/// Statistics leave NaN out, SQL puts it above all numbers.
#[tokio::test]
async fn nan_survives_pruning() {
    let mut table = Fixture::new(schema(vec![optional(1, "f", P::Double)]), no_spec());
    for values in [vec![1.0, f64::NAN], vec![2.0, 3.0], vec![-0.0, 0.0], vec![f64::NAN, f64::NAN]] {
        let batch = table.batch(vec![Arc::new(Float64Array::from(values))]);
        let file = table.data_file(batch, Struct::empty()).await;
        table.commit(vec![file]).await;
    }
    assert_eq!(table.query("select count(*) from t where f > 100").await, ["3"]);
    assert_eq!(table.query("select count(*) from t where f = 'NaN'::double").await, ["3"]);
    assert_eq!(table.query("select count(*) from t where f < 1").await, ["2"]);
    assert_eq!(table.query("select max(f) from t where f < 100").await, ["3.0"]);
    assert_eq!(table.files("select f from t where f < -5").await, "2/4");
    let context = table.context(1);
    let plain = rows(&context, "select cast(f as varchar) as text from t order by t.f desc limit 4").await.unwrap();
    assert_eq!(plain, ["NaN", "NaN", "NaN", "3.0"]);
}

#[tokio::test]
async fn files_are_read_in_parallel() {
    let (table, _) = id_table(6).await;
    for partitions in [1, 2, 4] {
        let context = table.context(partitions);
        let plan = context.sql("select id from t").await.unwrap().create_physical_plan().await.unwrap();
        assert_eq!(plan.output_partitioning().partition_count(), partitions);
        let got = rows(&context, "select count(*), sum(id) from t where id >= 0").await.unwrap();
        assert_eq!(got, [format!("600|{}", 599 * 300)]);
    }
}

/// One file, several partitions: each row group is read once, deletes included.
#[tokio::test]
async fn one_large_file_is_cut_at_row_groups() {
    let mut table = Fixture::new(id_schema(), no_spec());
    table.row_group_rows = 500;
    let batch = table.batch(vec![ids(0..5000)]);
    let file = table.data_file(batch, Struct::empty()).await;
    let path = file.file_path().to_owned();
    table.commit(vec![file]).await;
    let context = table.context(4);
    let plan = context.sql("select id from t").await.unwrap().create_physical_plan().await.unwrap();
    assert_eq!(plan.output_partitioning().partition_count(), 4);
    assert_eq!(
        rows(&context, "select count(id + 0), sum(id) from t").await.unwrap(),
        [format!("5000|{}", 4999 * 2500)]
    );
    let deleted: Vec<(&str, i64)> = (0..5000).step_by(7).map(|i| (path.as_str(), i)).collect();
    let delete = table.position_deletes(&deleted, Struct::empty(), None).await;
    table.commit(vec![delete]).await;
    let kept: Vec<i64> = (0..5000).filter(|i| i % 7 != 0).collect();
    let expected = format!("{}|{}", kept.len(), kept.iter().sum::<i64>());
    assert_eq!(rows(&table.context(4), "select count(id + 0), sum(id) from t").await.unwrap(), [expected]);
}

#[tokio::test]
async fn a_limit_reads_no_more_files_than_it_needs() {
    let (table, _) = id_table(5).await;
    assert_eq!(table.query("select id from t limit 150").await.len(), 150);
    assert_eq!(table.files("select id from t limit 150").await, "2/2");
    assert_eq!(table.query("select id from t where id % 2 = 0 limit 150").await.len(), 150);
}

#[tokio::test]
async fn metadata_is_read_once() {
    let (mut table, files) = id_table(2).await;
    let path = files[0].file_path().to_owned();
    let delete = table.position_deletes(&[(&path, 0)], Struct::empty(), None).await;
    let delete_path = delete.file_path().trim_start_matches("file://").to_owned();
    table.commit(vec![delete]).await;
    assert_eq!(table.query("select count(id + 0) from t").await, ["199"]);
    std::fs::remove_dir_all(table.directory.path().join("t/metadata")).unwrap();
    std::fs::remove_file(delete_path).unwrap();
    assert_eq!(table.query("select count(id + 0) from t").await, ["199"]);
    table.cache = Arc::new(super::MetadataCache::new(64 << 20));
    assert!(rows(&table.context(2), "select count(id + 0) from t").await.is_err());
}

#[tokio::test]
async fn tables_of_version_one_are_read_after_their_upgrade() {
    let mut table = Fixture::with_version(id_schema(), no_spec(), FormatVersion::V1);
    let batch = table.batch(vec![ids(0..10)]);
    let file = table.data_file(batch, Struct::empty()).await;
    table.commit(vec![file]).await;
    assert_eq!(table.query("select sum(id) from t").await, ["45"]);
    table.change(|b| b.upgrade_format_version(FormatVersion::V2).unwrap());
    table.cache = Arc::new(super::MetadataCache::new(64 << 20));
    assert_eq!(table.query("select sum(id) from t").await, ["45"]);
}

/// Random predicates over a table with several specs, schema changes, deletes and small row groups give the rows that
/// the same predicates give over the rows in memory.
#[tokio::test]
async fn pruning_never_loses_a_row() {
    for seed in 0..6 {
        let mut random = Seeded(seed);
        let (table, plain) = random_table(&mut random).await;
        let context: SessionContext = table.context(1 + (seed % 3) as usize);
        context.register_table("m", Arc::new(MemTable::try_new(plain.schema(), vec![vec![plain]]).unwrap())).unwrap();
        for _ in 0..40 {
            let filter = random_filter(&mut random, 2);
            let sql =
                |table: &str| format!("select id, k, day, name from {table} where {filter} order by id, k, day, name");
            let got = rows(&context, &sql("t")).await.unwrap();
            let want = rows(&context, &sql("m")).await.unwrap();
            assert_eq!(got, want, "seed {seed}: {filter}");
        }
    }
}

const NAMES: [&str; 6] = ["", "a", "ab", "abc", "b", "ü"];

async fn random_table(random: &mut Seeded) -> (Fixture, RecordBatch) {
    let fields = |name: &str, k: P| {
        vec![optional(1, "id", P::Long), optional(2, "k", k), optional(3, "day", P::Date), optional(4, name, P::String)]
    };
    let specs = [
        vec![(2, "kb".to_owned(), Transform::Bucket(4))],
        vec![(3, "m".to_owned(), Transform::Month), (4, "n".to_owned(), Transform::Truncate(1))],
        vec![(2, "ki".to_owned(), Transform::Identity), (1, "it".to_owned(), Transform::Truncate(50))],
        vec![],
    ];
    let mut table = Fixture::new(schema(fields("title", P::Int)), spec(&specs[0]));
    table.row_group_rows = 8;
    let mut plain: Vec<RecordBatch> = Vec::new();
    let mut next_id = 0i64;
    for (round, transforms) in specs.iter().enumerate() {
        if round == 1 {
            table.evolve(Schema::builder().with_schema_id(1).with_fields(fields("name", P::Long)).build().unwrap());
        }
        if round > 0 {
            table.change(|b| b.add_default_partition_spec(spec(transforms)).unwrap());
        }
        for _ in 0..3 {
            // Rows of one file share the source of every partition field, so that the file has one partition.
            let count = 1 + random.below(30) as usize;
            let maybe = |random: &mut Seeded, v: i64| (random.below(8) != 0).then_some(v);
            let k = random.below(6) as i64 - 2;
            let k = maybe(random, k);
            let day = random.below(800) as i64 - 300;
            let day = maybe(random, day).map(|d| d as i32);
            let name = (random.below(8) != 0).then(|| NAMES[random.below(6) as usize]);
            next_id = (next_id / 50 + 1) * 50;
            let vary = |on: bool, random: &mut Seeded| on && random.below(2) == 0;
            let is_source = |id: i32| transforms.iter().any(|(source, ..)| *source == id);
            let mut columns = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
            for row in 0..count {
                columns.0.push(Some(next_id + row as i64));
                columns.1.push(if vary(!is_source(2), random) { Some(random.below(6) as i64 - 2) } else { k });
                columns.2.push(if vary(!is_source(3), random) { Some(random.below(800) as i32 - 300) } else { day });
                columns.3.push(if vary(!is_source(4), random) { Some(NAMES[random.below(6) as usize]) } else { name });
            }
            let wide: Vec<ArrayRef> = vec![
                Arc::new(Int64Array::from(columns.0)),
                Arc::new(Int64Array::from(columns.1)),
                Arc::new(Date32Array::from(columns.2)),
                Arc::new(StringArray::from(columns.3)),
            ];
            let mut narrow = wide.clone();
            if round == 0 {
                narrow[1] = arrow::compute::cast(&wide[1], &DataType::Int32).unwrap();
            }
            let part = partition(transforms.iter().map(|(source, _, transform)| {
                let column = narrow[*source as usize - 1].clone();
                let out = create_transform_function(transform).unwrap().transform(column).unwrap();
                literal(ScalarValue::try_from_array(&out, 0).unwrap())
            }));
            let batch = table.batch(narrow);
            let file = if random.below(3) == 0 {
                table.foreign_file(batch, part.clone()).await
            } else {
                table.data_file(batch, part.clone()).await
            };
            let path = file.file_path().to_owned();
            table.commit(vec![file]).await;
            let deleted: Vec<i64> = if random.below(2) == 0 {
                (0..count as i64).filter(|_| random.below(4) == 0).collect()
            } else {
                vec![]
            };
            if !deleted.is_empty() {
                let entries: Vec<(&str, i64)> = deleted.iter().map(|p| (path.as_str(), *p)).collect();
                let named = random.below(2) == 0;
                let delete = table.position_deletes(&entries, part, named.then_some(path.as_str())).await;
                table.commit(vec![delete]).await;
            }
            let kept = UInt32Array::from_iter_values((0..count as u32).filter(|p| !deleted.contains(&i64::from(*p))));
            let columns = wide.iter().map(|c| arrow::compute::take(c, &kept, None).unwrap()).collect();
            let names = ["id", "k", "day", "name"];
            let fields: Vec<Field> =
                names.iter().zip(&wide).map(|(n, c)| Field::new(*n, c.data_type().clone(), true)).collect();
            plain.push(RecordBatch::try_new(Arc::new(ArrowSchema::new(fields)), columns).unwrap());
        }
    }
    let all = arrow::compute::concat_batches(&plain[0].schema(), &plain).unwrap();
    (table, all)
}

fn random_filter(random: &mut Seeded, depth: u64) -> String {
    if depth > 0 && random.below(3) > 0 {
        let left = random_filter(random, depth - 1);
        let right = random_filter(random, depth - 1);
        return match random.below(3) {
            0 => format!("({left}) and ({right})"),
            1 => format!("({left}) or ({right})"),
            _ => format!("not ({left})"),
        };
    }
    let op = ["=", "<>", "<", "<=", ">", ">="][random.below(6) as usize];
    match random.below(9) {
        0 | 1 => format!("id {op} {}", random.below(700)),
        2 | 3 => format!("k {op} {}", random.below(7) as i64 - 3),
        4 => format!("k in ({}, {})", random.below(6) as i64 - 2, random.below(6)),
        5 => format!("day {op} date '1970-01-01' + interval '{} days'", random.below(900) as i64 - 350),
        6 => format!("name {op} '{}'", NAMES[random.below(6) as usize]),
        7 => format!("name like '{}%'", NAMES[random.below(6) as usize]),
        _ => format!(
            "{} is {}null",
            ["k", "day", "name"][random.below(3) as usize],
            ["", "not "][random.below(2) as usize]
        ),
    }
}

/// The reader must not take a text column's dictionary for something else.
#[tokio::test]
async fn dictionaries_of_other_writers_are_texts() {
    let mut table = Fixture::new(schema(vec![optional(1, "s", P::String)]), no_spec());
    let values: DictionaryArray<Int32Type> = vec!["a", "b", "a"].into_iter().collect();
    let field = table.arrow().field(0).clone().with_data_type(values.data_type().clone());
    let batch = RecordBatch::try_new(Arc::new(ArrowSchema::new(vec![field])), vec![Arc::new(values)]).unwrap();
    let file = table.foreign_file(batch, Struct::empty()).await;
    table.commit(vec![file]).await;
    assert_eq!(table.query("select s, count(*) from t where s <> 'c' group by s order by s").await, ["a|2", "b|1"]);
}
