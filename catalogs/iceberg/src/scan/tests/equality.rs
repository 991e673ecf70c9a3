//! Equality deletes: by the specification's "Equality Delete Files" and "Scan Planning", and as the Java library
//! compares values.

use datafusion::execution::memory_pool::GreedyMemoryPool;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::prelude::SessionConfig;

use super::*;

fn longs(values: impl IntoIterator<Item = Option<i64>>) -> ArrayRef {
    Arc::new(values.into_iter().collect::<Int64Array>())
}

fn two_columns() -> Schema {
    schema(vec![optional(1, "id", P::Long), optional(2, "name", P::String)])
}

/// Deletes the ids, everywhere.
async fn delete_ids(table: &mut Fixture, values: impl IntoIterator<Item = i64>) -> DataFile {
    let values = longs(values.into_iter().map(Some));
    table.delete_where("id", values, Struct::empty()).await
}

#[tokio::test]
async fn older_rows_with_equal_keys_are_gone() {
    let (mut table, _) = id_table(3).await;
    let delete = delete_ids(&mut table, [5, 150, 299, 1000]).await;
    let batch = table.batch(vec![ids(150..152)]);
    let again = table.data_file(batch, Struct::empty()).await;
    table.commit(vec![again, delete]).await;
    // Rows of the delete's own snapshot stay, and so do later ones.
    let batch = table.batch(vec![ids(5..6)]);
    let later = table.data_file(batch, Struct::empty()).await;
    table.commit(vec![later]).await;

    let mut expected: Vec<i64> = (0..300).filter(|id| ![5, 150, 299].contains(id)).chain([150, 151, 5]).collect();
    expected.sort_unstable();
    assert_eq!(
        table.query("select id from t order by id").await,
        expected.iter().map(i64::to_string).collect::<Vec<_>>()
    );
    for (sql, want) in [
        ("select count(*) from t", "300"),
        ("select count(id), min(id), max(id) from t", "300|0|298"),
        ("select count(*) from t where id = 5", "1"),
        ("select count(*) from t where id = 150", "1"),
        ("select count(*) from t where id = 299", "0"),
        ("select count(*) from t where id >= 299", "0"),
    ] {
        assert_eq!(table.query(sql).await, [want], "{sql}");
    }
    let (_, text) = table.plan("select id from t").await;
    assert!(text.contains("files_with_deletes=3, equality_delete_files=1"), "{text}");
}

#[tokio::test]
async fn a_limit_counts_rows_that_are_there() {
    let (mut table, _) = id_table(2).await;
    let delete = delete_ids(&mut table, 0..150).await;
    table.commit(vec![delete]).await;
    for (sql, rows) in [
        ("select id from t limit 50", 50),
        ("select id from t limit 10", 10),
        ("select id from t where id >= 0 limit 40", 40),
        ("select id from t order by id limit 30", 30),
        ("select id from t order by id desc limit 60", 50),
    ] {
        for partitions in [1, 3] {
            let context = table.context(partitions);
            for pushdown in [false, true] {
                let set = format!("set datafusion.execution.parquet.pushdown_filters = {pushdown}");
                context.sql(&set).await.unwrap().collect().await.unwrap();
                let got: Vec<i64> =
                    super::rows(&context, sql).await.unwrap().iter().map(|r| r.parse().unwrap()).collect();
                assert_eq!(got.len(), rows, "{sql}");
                assert!(got.iter().all(|id| *id >= 150), "{sql}: {got:?}");
            }
        }
    }
}

/// A projection runs in the scan. It must not see rows that are not there: this one fails on a deleted row.
#[tokio::test]
async fn expressions_do_not_see_deleted_rows() {
    let (mut table, _) = id_table(1).await;
    let delete = delete_ids(&mut table, [0]).await;
    table.commit(vec![delete]).await;
    assert_eq!(table.query("select max(100 / id), count(*) from t").await, ["100|99"]);
    assert_eq!(table.query("select 100 / id as q from t where id < 3 order by q").await, ["50", "100"]);
}

#[tokio::test]
async fn null_equals_null_and_all_columns_count() {
    let mut table = Fixture::new(two_columns(), no_spec());
    let batch = table.batch(vec![
        longs([Some(1), Some(1), None, None, Some(2)]),
        texts([Some("a"), None, Some("a"), None, Some("")]),
    ]);
    let file = table.data_file(batch, Struct::empty()).await;
    table.commit(vec![file]).await;
    let show = "select id, name from t order by id, name";
    // Order of the ids and of the columns in the file do not matter.
    let pair = table.select(&["name", "id"]);
    let columns = vec![texts([Some("a"), None, None]), longs([None, Some(1), Some(2)])];
    let delete = table.equality_deletes(pair, &[2, 1], columns, Struct::empty()).await;
    table.commit(vec![delete]).await;
    assert_eq!(table.query(show).await, ["1|a", "2|", "null|null"]);
    // By one column only, of a file that has both.
    let pair = table.select(&["id", "name"]);
    let columns = vec![longs([None]), texts([Some("whatever")])];
    let delete = table.equality_deletes(pair, &[1], columns, Struct::empty()).await;
    table.commit(vec![delete]).await;
    assert_eq!(table.query(show).await, ["1|a", "2|"]);
    let delete = table.delete_where("name", texts([Some("")]), Struct::empty()).await;
    table.commit(vec![delete]).await;
    assert_eq!(table.query(show).await, ["1|a"]);
    assert_eq!(table.query("select count(*) from t").await, ["1"]);
    assert_eq!(table.query("select id from t").await, ["1"]);
}

#[tokio::test]
async fn several_kinds_of_deletes_meet_in_one_file() {
    let mut table = Fixture::with_version(two_columns(), no_spec(), FormatVersion::V3);
    table.row_group_rows = 4;
    let names = (0..20).map(|i| Some(["a", "b", "c", "d"][i % 4]));
    let batch = table.batch(vec![ids(0..20), texts(names)]);
    let file = table.data_file(batch, Struct::empty()).await;
    let path = file.file_path().to_owned();
    table.commit(vec![file]).await;
    let by_name = table.delete_where("name", texts([Some("c"), None]), Struct::empty()).await;
    table.commit(vec![by_name]).await;
    let by_id = delete_ids(&mut table, [0, 2, 5]).await;
    let pair = table.select(&["id", "name"]);
    let columns = vec![longs([Some(8), Some(9)]), texts([Some("a"), Some("a")])];
    let by_both = table.equality_deletes(pair, &[1, 2], columns, Struct::empty()).await;
    table.commit(vec![by_id, by_both]).await;
    let blob = crate::scan::vector::tests::blob(&[(0, crate::scan::vector::tests::array(&[1, 12, 13, 14, 15, 19]))]);
    let vector = table.deletion_vector(&blob, 6, &path).await;
    table.commit(vec![vector]).await;
    for partitions in [1, 4] {
        let got = rows(&table.context(partitions), "select id from t order by id").await.unwrap();
        assert_eq!(got, ["3", "4", "7", "9", "11", "16", "17"]);
    }
    assert_eq!(table.query("select count(*) from t where name = 'c'").await, ["0"]);
}

/// As the Java library has it: all NaN are one value, and the zeros are two.
#[tokio::test]
async fn floating_point_keys_are_compared_by_bits() {
    let mut table = Fixture::new(schema(vec![optional(1, "id", P::Long), optional(2, "f", P::Double)]), no_spec());
    let negative_nan = f64::from_bits(0xFFF8_0000_0000_0001);
    let floats = [f64::NAN, negative_nan, 0.0, -0.0, 1.5, f64::INFINITY];
    let batch = table.batch(vec![ids(0..6), Arc::new(Float64Array::from_iter_values(floats))]);
    let file = table.data_file(batch, Struct::empty()).await;
    table.commit(vec![file]).await;
    let delete = table.delete_where("f", Arc::new(Float64Array::from(vec![f64::NAN, 0.0])), Struct::empty()).await;
    table.commit(vec![delete]).await;
    assert_eq!(table.query("select id from t order by id").await, ["3", "4", "5"]);
    let delete = table.delete_where("f", Arc::new(Float64Array::from(vec![-0.0])), Struct::empty()).await;
    table.commit(vec![delete]).await;
    assert_eq!(table.query("select id from t order by id").await, ["4", "5"]);
}

#[tokio::test]
async fn every_type_can_be_a_key() {
    let columns: Vec<(P, ArrayRef)> = vec![
        (P::Boolean, Arc::new(BooleanArray::from(vec![true, false]))),
        (P::Int, Arc::new(Int32Array::from(vec![i32::MIN, 7]))),
        (P::Float, Arc::new(Float32Array::from(vec![0.5, 2.5]))),
        (
            P::Decimal { precision: 20, scale: 3 },
            Arc::new(Decimal128Array::from(vec![-1, 12_345_678_901]).with_precision_and_scale(20, 3).unwrap()),
        ),
        (P::Date, Arc::new(Date32Array::from(vec![-1, 20_000]))),
        (P::Time, Arc::new(Time64MicrosecondArray::from(vec![0, 86_399_999_999]))),
        (P::Timestamp, Arc::new(TimestampMicrosecondArray::from(vec![-1, 1]))),
        (P::Timestamptz, Arc::new(TimestampMicrosecondArray::from(vec![-1, 1]).with_timezone("+00:00"))),
        (P::String, texts([Some(""), Some("zürich")])),
        (P::Uuid, Arc::new(FixedSizeBinaryArray::try_from_iter([[9u8; 16], [200u8; 16]].iter()).unwrap())),
        (P::Fixed(3), Arc::new(FixedSizeBinaryArray::try_from_iter([[1u8, 2, 3], [255, 0, 0]].iter()).unwrap())),
        (P::Binary, Arc::new(LargeBinaryArray::from_vec(vec![b"", b"\xff\x00"]))),
    ];
    for (primitive, values) in columns {
        let mut table =
            Fixture::new(schema(vec![optional(1, "id", P::Long), optional(2, "k", primitive.clone())]), no_spec());
        let key = table.arrow().field(1).data_type().clone();
        let values = arrow::compute::cast(&values, &key).unwrap();
        let null = arrow::array::new_null_array(&key, 1);
        let all = arrow::compute::concat(&[values.as_ref(), null.as_ref()]).unwrap();
        let batch = table.batch(vec![ids(0..3), all]);
        let file = table.data_file(batch, Struct::empty()).await;
        table.commit(vec![file]).await;
        let delete = table.delete_where("k", values.slice(1, 1), Struct::empty()).await;
        table.commit(vec![delete]).await;
        assert_eq!(table.query("select id from t order by id").await, ["0", "2"], "{primitive}");
        let delete = table.delete_where("k", null, Struct::empty()).await;
        table.commit(vec![delete]).await;
        assert_eq!(table.query("select id from t order by id").await, ["0"], "{primitive}");
    }
}

/// Deletes of a partition stay within it; those of a spec without partitions reach everything.
#[tokio::test]
async fn deletes_reach_their_partition_or_all() {
    let fields = vec![optional(1, "id", P::Long), optional(2, "region", P::String)];
    let mut table = Fixture::new(schema(fields), spec(&[identity(2, "region")]));
    for region in ["eu", "us"] {
        let batch = table.batch(vec![ids(0..4), texts(std::iter::repeat_n(Some(region), 4))]);
        let file = table.data_file(batch, partition([Some(Literal::string(region))])).await;
        table.commit(vec![file]).await;
    }
    let delete = table.delete_where("id", longs([Some(1)]), partition([Some(Literal::string("eu"))])).await;
    table.commit(vec![delete]).await;
    let show = "select id, region from t order by id, region";
    assert_eq!(table.query(show).await, ["0|eu", "0|us", "1|us", "2|eu", "2|us", "3|eu", "3|us"]);
    // Another spec with the same value: another partition.
    table.change(|b| b.add_default_partition_spec(spec(&[(2, "r".to_owned(), Transform::Truncate(2))])).unwrap());
    let delete = table.delete_where("id", longs([Some(0)]), partition([Some(Literal::string("eu"))])).await;
    table.commit(vec![delete]).await;
    assert_eq!(table.query("select count(*) from t").await, ["7"]);
    table.change(|b| b.add_default_partition_spec(no_spec()).unwrap());
    let delete = table.delete_where("id", longs([Some(2), Some(1)]), Struct::empty()).await;
    table.commit(vec![delete]).await;
    assert_eq!(table.query(show).await, ["0|eu", "0|us", "3|eu", "3|us"]);
    // A spec whose fields are all void has no partitions either.
    table.change(|b| b.add_default_partition_spec(spec(&[(2, "gone".to_owned(), Transform::Void)])).unwrap());
    let delete = table.delete_where("id", longs([Some(3)]), partition([None])).await;
    table.commit(vec![delete]).await;
    assert_eq!(table.query(show).await, ["0|eu", "0|us"]);
}

/// The source column grew between data and deletes: the partition is the same one.
#[tokio::test]
async fn a_partition_is_the_same_after_its_column_grew() {
    for by_position in [true, false] {
        let fields = |k: P| vec![optional(1, "id", P::Long), optional(2, "k", k)];
        let mut table = Fixture::new(schema(fields(P::Int)), spec(&[identity(2, "k")]));
        let batch = table.batch(vec![ids(0..3), Arc::new(Int32Array::from(vec![7, 7, 7]))]);
        let file = table.data_file(batch, partition([Some(Literal::int(7))])).await;
        let path = file.file_path().to_owned();
        table.commit(vec![file]).await;
        table.evolve(Schema::builder().with_schema_id(1).with_fields(fields(P::Long)).build().unwrap());
        let part = partition([Some(Literal::long(7))]);
        let delete = match by_position {
            true => table.position_deletes(&[(&path, 1)], part, None).await,
            false => table.delete_where("id", longs([Some(1)]), part).await,
        };
        table.commit(vec![delete]).await;
        assert_eq!(table.query("select id, k from t order by id").await, ["0|7", "2|7"], "{by_position}");
    }
}

#[tokio::test]
async fn keys_follow_their_field_through_the_schema() {
    let mut table = Fixture::new(
        schema(vec![
            optional(1, "id", P::Long),
            optional(2, "a", P::Int),
            optional(3, "f", P::Float),
            optional(4, "d", P::Decimal { precision: 5, scale: 2 }),
            optional(5, "gone", P::String),
        ]),
        no_spec(),
    );
    let decimals = Decimal128Array::from((0..10).collect::<Vec<i128>>()).with_precision_and_scale(5, 2).unwrap();
    let names = (0..10).map(|i| Some(["x", "y"][i % 2]));
    let batch = table.batch(vec![
        ids(0..10),
        Arc::new((10..20).collect::<Int32Array>()),
        Arc::new((0..10).map(|i| i as f32 + 0.5).collect::<Float32Array>()),
        Arc::new(decimals),
        texts(names),
    ]);
    let file = table.data_file(batch, Struct::empty()).await;
    table.commit(vec![file]).await;
    // Written before the change, as narrow as the data …
    let early = table.delete_where("a", Arc::new(Int32Array::from(vec![10])), Struct::empty()).await;
    table.commit(vec![early]).await;
    let gone_pair = table.select(&["id", "gone"]);
    let columns = vec![longs([Some(1), Some(3)]), texts([Some("y"), Some("x")])];
    let gone = table.equality_deletes(gone_pair, &[5, 1], columns, Struct::empty()).await;
    table.commit(vec![gone]).await;
    let before = table.metadata.current_snapshot_id().unwrap();
    // … renamed, grown, dropped, and a new column under the old name.
    table.evolve(
        Schema::builder()
            .with_schema_id(1)
            .with_fields(vec![
                optional(6, "gone", P::String),
                optional(4, "dd", P::Decimal { precision: 12, scale: 2 }),
                optional(3, "f", P::Double),
                optional(2, "b", P::Long),
                optional(7, "a", P::Int),
                optional(1, "id", P::Long),
            ])
            .build()
            .unwrap(),
    );
    let show = "select id from t order by id";
    assert_eq!(table.query(show).await, ["2", "3", "4", "5", "6", "7", "8", "9"]);
    let late = table.delete_where("b", longs([Some(12)]), Struct::empty()).await;
    let floats: ArrayRef = Arc::new(Float64Array::from(vec![3.5, 0.5]));
    let by_float = table.delete_where("f", floats, Struct::empty()).await;
    let wide: ArrayRef = Arc::new(Decimal128Array::from(vec![4]).with_precision_and_scale(12, 2).unwrap());
    let by_decimal = table.delete_where("dd", wide, Struct::empty()).await;
    table.commit(vec![late, by_float, by_decimal]).await;
    assert_eq!(table.query(show).await, ["5", "6", "7", "8", "9"]);
    // The old files have null in columns that came later.
    let new_gone = table.delete_where("gone", texts([Some("x")]), Struct::empty()).await;
    table.commit(vec![new_gone]).await;
    assert_eq!(table.query("select count(*) from t").await, ["5"]);
    let new_gone = table.delete_where("gone", texts([None]), Struct::empty()).await;
    table.commit(vec![new_gone]).await;
    assert_eq!(table.query("select count(*) from t").await, ["0"]);
    // Time travel has the narrow columns, and the deletes of then.
    let past = table.context_at(2, Some(before));
    assert_eq!(rows(&past, "select a from t order by a").await.unwrap()[..2], ["12", "13"]);
}

/// A column that was added with a default: rows of older files have it as key.
#[tokio::test]
async fn missing_keys_have_their_default() {
    let mut table = Fixture::with_version(id_schema(), no_spec(), FormatVersion::V3);
    let batch = table.batch(vec![ids(0..2)]);
    let file = table.data_file(batch, Struct::empty()).await;
    table.commit(vec![file]).await;
    let with_default = NestedField::optional(2, "d", Type::Primitive(P::Long)).with_initial_default(Literal::long(7));
    table.evolve(
        Schema::builder()
            .with_schema_id(1)
            .with_fields(vec![optional(1, "id", P::Long), Arc::new(with_default)])
            .build()
            .unwrap(),
    );
    let batch = table.batch(vec![ids(2..5), longs([Some(7), None, Some(8)])]);
    let file = table.data_file(batch, Struct::empty()).await;
    table.commit(vec![file]).await;
    let nulls = table.delete_where("d", longs([None]), Struct::empty()).await;
    table.commit(vec![nulls]).await;
    assert_eq!(table.query("select id, d from t order by id").await, ["0|7", "1|7", "2|7", "4|8"]);
    let sevens = table.delete_where("d", longs([Some(7)]), Struct::empty()).await;
    table.commit(vec![sevens]).await;
    assert_eq!(table.query("select id, d from t order by id").await, ["4|8"]);
}

/// Data files of migrated tables leave partition columns out: the key is the partition's value.
#[tokio::test]
async fn missing_partition_columns_are_keys_too() {
    let fields = vec![optional(1, "id", P::Long), optional(2, "region", P::String)];
    let mut table = Fixture::new(schema(fields), spec(&[identity(2, "region")]));
    for (from, region) in [(0, Some("eu")), (10, Some("us")), (20, None)] {
        let batch = table.batch(vec![ids(from..from + 2), texts([None, None])]).project(&[0]).unwrap();
        let file = table.foreign_file(batch, partition([region.map(Literal::string)])).await;
        table.commit(vec![file]).await;
    }
    table.change(|b| b.add_default_partition_spec(no_spec()).unwrap());
    let pair = table.select(&["id", "region"]);
    let columns = vec![longs([Some(0), Some(11), Some(20)]), texts([Some("eu"), Some("eu"), None])];
    let delete = table.equality_deletes(pair, &[1, 2], columns, Struct::empty()).await;
    table.commit(vec![delete]).await;
    assert_eq!(table.query("select id from t order by id").await, ["1", "10", "11", "21"]);
    // The same where the table no longer shows the column.
    table.evolve(Schema::builder().with_schema_id(1).with_fields(vec![optional(1, "id", P::Long)]).build().unwrap());
    assert_eq!(table.query("select id from t order by id").await, ["1", "10", "11", "21"]);
}

#[tokio::test]
async fn keys_inside_structs() {
    let inner = |x: P| nested(vec![optional(3, "x", x), optional(4, "y", P::String)]);
    let outer = |x: P| nested(vec![Arc::new(NestedField::optional(5, "in", inner(x)))]);
    let fields = |x: P| vec![optional(1, "id", P::Long), Arc::new(NestedField::optional(2, "s", outer(x)))];
    // Ids as given: the fixture would number them anew.
    let table_schema = schema(fields(P::Int));
    let mut table = Fixture::new(table_schema, no_spec());
    let current = table.metadata.current_schema().clone();
    let field = |name: &str| current.field_id_by_name(name).unwrap();
    let arrow = table.arrow();
    let DataType::Struct(s) = arrow.field(1).data_type() else { panic!() };
    let DataType::Struct(i) = s[0].data_type() else { panic!() };
    let build = |x: Vec<Option<i32>>, inner_valid: Vec<bool>, outer_valid: Vec<bool>| -> ArrayRef {
        let y = StringArray::from_iter(x.iter().map(|v| v.map(|v| v.to_string())));
        let inner =
            StructArray::new(i.clone(), vec![Arc::new(Int32Array::from(x)), Arc::new(y)], Some(inner_valid.into()));
        Arc::new(StructArray::new(s.clone(), vec![Arc::new(inner)], Some(outer_valid.into())))
    };
    // 0: x = 1; 1: x = 2; 2: x null; 3: inner null over x = 1; 4: outer null over x = 1.
    let values = build(
        vec![Some(1), Some(2), None, Some(1), Some(1)],
        vec![true, true, true, false, true],
        vec![true, true, true, true, false],
    );
    let batch = table.batch(vec![ids(0..5), values]);
    let file = table.data_file(batch, Struct::empty()).await;
    table.commit(vec![file]).await;
    let x = field("s.in.x");
    let delete_schema = table.select(&["s"]);
    let one = build(vec![Some(1)], vec![true], vec![true]);
    let delete = table.equality_deletes(delete_schema, &[x], vec![one], Struct::empty()).await;
    table.commit(vec![delete]).await;
    assert_eq!(table.query("select id from t order by id").await, ["1", "2", "3", "4"]);
    // Renamed and grown, then dropped.
    let inner2 = nested(vec![optional(x, "z", P::Long)]);
    let outer2 = nested(vec![Arc::new(NestedField::optional(field("s.in"), "inn", inner2))]);
    table.evolve(
        Schema::builder()
            .with_schema_id(1)
            .with_fields(vec![
                Arc::new(NestedField::optional(field("s"), "s", outer2)),
                optional(field("id"), "id", P::Long),
            ])
            .build()
            .unwrap(),
    );
    assert_eq!(table.query("select id from t order by id").await, ["1", "2", "3", "4"]);
    table.evolve(
        Schema::builder().with_schema_id(2).with_fields(vec![optional(field("id"), "id", P::Long)]).build().unwrap(),
    );
    assert_eq!(table.query("select id from t order by id").await, ["1", "2", "3", "4"]);
    // Back again, to delete nulls: of the field and of the structs around it.
    table.change(|b| b.set_current_schema(0).unwrap());
    let delete_schema = table.select(&["s"]);
    let none = build(vec![None], vec![true], vec![true]);
    let delete = table.equality_deletes(delete_schema, &[x], vec![none], Struct::empty()).await;
    table.commit(vec![delete]).await;
    assert_eq!(table.query("select id from t order by id").await, ["1"]);
}

/// A struct that got a field with a default after the file was written.
#[tokio::test]
async fn keys_missing_from_a_struct_have_their_default() {
    let fields = vec![
        optional(1, "id", P::Long),
        Arc::new(NestedField::optional(2, "s", nested(vec![optional(3, "x", P::Int)]))),
    ];
    let mut table = Fixture::with_version(schema(fields), no_spec(), FormatVersion::V3);
    let arrow = table.arrow();
    let DataType::Struct(s) = arrow.field(1).data_type() else { panic!() };
    let x: ArrayRef = Arc::new(Int32Array::from(vec![1, 2]));
    let values = StructArray::new(s.clone(), vec![x], Some(vec![true, false].into()));
    let batch = table.batch(vec![ids(0..2), Arc::new(values)]);
    let file = table.data_file(batch, Struct::empty()).await;
    table.commit(vec![file]).await;
    let added = NestedField::optional(4, "d", Type::Primitive(P::Long)).with_initial_default(Literal::long(9));
    let s2 = nested(vec![optional(3, "x", P::Int), Arc::new(added)]);
    table.evolve(
        Schema::builder()
            .with_schema_id(1)
            .with_fields(vec![optional(1, "id", P::Long), Arc::new(NestedField::optional(2, "s", s2))])
            .build()
            .unwrap(),
    );
    let delete_schema = |table: &Fixture| table.select(&["s"]);
    let key = |table: &Fixture, d: Option<i64>| -> ArrayRef {
        let arrow = table.arrow();
        let DataType::Struct(s) = arrow.field(1).data_type() else { panic!() };
        let columns: Vec<ArrayRef> = vec![Arc::new(Int32Array::from(vec![0])), longs([d])];
        Arc::new(StructArray::new(s.clone(), columns, None))
    };
    let (with, value) = (delete_schema(&table), key(&table, None));
    let nulls = table.equality_deletes(with, &[4], vec![value], Struct::empty()).await;
    table.commit(vec![nulls]).await;
    assert_eq!(table.query("select id from t").await, ["0"]);
    let (with, value) = (delete_schema(&table), key(&table, Some(9)));
    let nines = table.equality_deletes(with, &[4], vec![value], Struct::empty()).await;
    table.commit(vec![nines]).await;
    assert!(table.query("select id from t").await.is_empty());
}

/// Bounds that are apart leave delete files unread; where nothing is known of a file, they are read.
#[tokio::test]
async fn deletes_of_other_values_are_not_read() {
    let (mut table, _) = id_table(3).await;
    let delete = delete_ids(&mut table, [120, 130]).await;
    let path = delete.file_path().trim_start_matches("file://").to_owned();
    let beyond = delete_ids(&mut table, [1_000]).await;
    let nulls = table.delete_where("id", longs([None]), Struct::empty()).await;
    table.commit(vec![delete, beyond, nulls]).await;
    let (_, text) = table.plan("select id from t").await;
    assert!(text.contains("files_with_deletes=1, equality_delete_files=1"), "{text}");
    assert_eq!(table.query("select count(*) from t where id < 100").await, ["100"]);
    std::fs::remove_file(path).unwrap();
    assert_eq!(table.query("select count(*) from t where id < 100").await, ["100"]);
    let error = rows(&table.context(2), "select count(*) from t where id >= 100").await;
    assert_eq!(kind(error), ErrorKind::Unavailable);

    let mut table = Fixture::new(id_schema(), no_spec());
    let batch = table.batch(vec![ids(0..100)]);
    let file = table.foreign_file(batch, Struct::empty()).await;
    table.commit(vec![file]).await;
    let delete = delete_ids(&mut table, [7]).await;
    table.commit(vec![delete]).await;
    assert_eq!(table.query("select count(*) from t").await, ["99"]);
}

#[tokio::test]
async fn keys_are_read_once() {
    let (mut table, _) = id_table(2).await;
    let delete = delete_ids(&mut table, [7, 107]).await;
    let path = delete.file_path().trim_start_matches("file://").to_owned();
    table.commit(vec![delete]).await;
    assert_eq!(table.query("select count(*) from t").await, ["198"]);
    std::fs::remove_file(path).unwrap();
    assert_eq!(table.query("select count(*) from t").await, ["198"]);
    table.cache = Arc::new(crate::scan::MetadataCache::new(64 << 20));
    assert!(rows(&table.context(2), "select count(*) from t").await.is_err());
}

/// Many keys against many rows: pairs of them would be 40 thousand millions.
#[tokio::test]
async fn many_keys_meet_many_rows() {
    let mut table = Fixture::new(id_schema(), no_spec());
    table.row_group_rows = 20_000;
    let batch = table.batch(vec![ids(0..200_000)]);
    let file = table.data_file(batch, Struct::empty()).await;
    table.commit(vec![file]).await;
    // In many files, each key in two of them.
    for from in 0..20i64 {
        let delete = delete_ids(&mut table, (0..20_000).map(|i| (from % 10) * 20_000 + i).filter(|i| i % 3 != 0)).await;
        table.commit(vec![delete]).await;
    }
    let kept: Vec<i64> = (0..200_000).filter(|i| i % 3 == 0).collect();
    let expected = format!("{}|{}", kept.len(), kept.iter().sum::<i64>());
    for partitions in [1, 4] {
        let got = rows(&table.context(partitions), "select count(*), sum(id) from t").await.unwrap();
        assert_eq!(got, std::slice::from_ref(&expected));
    }
}

#[tokio::test]
async fn keys_count_as_memory_of_the_query() {
    let mut table = Fixture::new(id_schema(), no_spec());
    let batch = table.batch(vec![ids(0..100)]);
    let file = table.data_file(batch, Struct::empty()).await;
    table.commit(vec![file]).await;
    let delete = delete_ids(&mut table, 50..50_000).await;
    table.commit(vec![delete]).await;
    let limited = |bytes: usize| {
        let runtime =
            RuntimeEnvBuilder::new().with_memory_pool(Arc::new(GreedyMemoryPool::new(bytes))).build_arc().unwrap();
        let context = SessionContext::new_with_config_rt(SessionConfig::new().with_target_partitions(2), runtime);
        context.register_table("t", provider(table.state(), None).unwrap()).unwrap();
        context
    };
    let small = limited(1 << 20);
    assert_eq!(kind(rows(&small, "select id from t").await), ErrorKind::ResourcesExhausted);
    let large = limited(16 << 20);
    assert_eq!(rows(&large, "select count(*) from t").await.unwrap(), ["50"]);
    // Keys that are in the cache count as well, and all is given back.
    assert_eq!(kind(rows(&small, "select id from t").await), ErrorKind::ResourcesExhausted);
    assert_eq!(small.runtime_env().memory_pool.reserved(), 0);
    assert_eq!(large.runtime_env().memory_pool.reserved(), 0);
}

#[tokio::test]
async fn damaged_deletes_are_errors() {
    let (mut table, _) = id_table(1).await;
    let schema = table.select(&["id"]);
    let without = table.equality_deletes(schema.clone(), &[], vec![longs([Some(1)])], Struct::empty()).await;
    table.commit(vec![without]).await;
    assert_eq!(kind(rows(&table.context(1), "select * from t").await), ErrorKind::DataCorrupt);
    // A column that no schema ever had, and one that the file lacks.
    for (ids, expected) in [(vec![1, 99], ErrorKind::Unsupported), (vec![1, 2], ErrorKind::DataCorrupt)] {
        let mut table = Fixture::new(two_columns(), no_spec());
        let batch = table.batch(vec![super::ids(0..10), texts(std::iter::repeat_n(None, 10))]);
        let file = table.data_file(batch, Struct::empty()).await;
        table.commit(vec![file]).await;
        let delete = table.equality_deletes(schema.clone(), &ids, vec![longs([Some(1)])], Struct::empty()).await;
        table.commit(vec![delete]).await;
        assert_eq!(kind(rows(&table.context(1), "select * from t").await), expected, "{ids:?}");
    }
}

/// Random data, partitions, schema changes and deletes of all kinds give the rows that are left when each delete is
/// applied to the rows one after the other.
#[tokio::test]
async fn all_that_is_deleted_is_gone_and_nothing_else() {
    for seed in 0..12 {
        let mut random = Seeded(seed + 1_000);
        let (table, expected) = random_history(&mut random).await;
        let context = table.context(1 + (seed % 3) as usize);
        let mut expected: Vec<String> = expected.iter().map(|row| row.text()).collect();
        expected.sort();
        let mut got = rows(&context, "select id, k, name from t").await.unwrap();
        got.sort();
        assert_eq!(got, expected, "seed {seed}");
        assert_eq!(
            rows(&context, "select count(*) from t").await.unwrap(),
            [expected.len().to_string()],
            "seed {seed}"
        );
        for filter in ["id < 40", "k = 1", "k is null", "name = 'a' and k > 0", "name is not null or id > 90"] {
            let got = rows(&context, &format!("select count(*) from t where {filter}")).await.unwrap();
            // The same over columns that no statistics are known of.
            let plain = "select id + 0 as id, k + 0 as k, name || '' as name from t";
            let sql = format!("select count(*) from ({plain}) where {filter}");
            let want = rows(&context, &sql).await.unwrap();
            assert_eq!(got, want, "seed {seed}: {filter}");
        }
    }
}

#[derive(Clone, Debug)]
struct Row {
    id: i64,
    k: Option<i64>,
    name: Option<&'static str>,
    region: i64,
}

impl Row {
    fn text(&self) -> String {
        let k = self.k.map_or_else(|| "null".to_owned(), |k| k.to_string());
        format!("{}|{k}|{}", self.id, self.name.unwrap_or("null"))
    }
}

async fn random_history(random: &mut Seeded) -> (Fixture, Vec<Row>) {
    let fields = |k: P, name: &str| {
        vec![
            optional(1, "id", P::Long),
            optional(2, "k", k),
            optional(3, name, P::String),
            optional(4, "region", P::Long),
        ]
    };
    let mut table = Fixture::new(schema(fields(P::Int, "title")), spec(&[identity(4, "region")]));
    table.row_group_rows = 8;
    let mut left: Vec<Row> = Vec::new();
    let (mut wide, mut partitioned) = (false, true);
    for sequence in 0..24usize {
        if sequence == 8 {
            table.evolve(Schema::builder().with_schema_id(1).with_fields(fields(P::Long, "name")).build().unwrap());
            wide = true;
        }
        if sequence == 16 {
            table.change(|b| b.add_default_partition_spec(no_spec()).unwrap());
            partitioned = false;
        }
        let region = random.below(2) as i64;
        let part = || match partitioned {
            true => partition([Some(Literal::long(region))]),
            false => Struct::empty(),
        };
        let key = |random: &mut Seeded| (random.below(5) != 0).then(|| random.below(4) as i64);
        let name = |random: &mut Seeded| (random.below(5) != 0).then(|| NAMES[random.below(6) as usize]);
        let of_k = |values: Vec<Option<i64>>| -> ArrayRef {
            let longs: ArrayRef = Arc::new(Int64Array::from(values));
            if wide { longs } else { arrow::compute::cast(&longs, &DataType::Int32).unwrap() }
        };
        let name_column = if wide { "name" } else { "title" };
        let mut files = Vec::new();
        let mut added = Vec::new();
        if random.below(3) != 0 {
            let count = 1 + random.below(25) as usize;
            added.extend((0..count).map(|_| Row {
                id: random.below(100) as i64,
                k: key(random),
                name: name(random),
                region,
            }));
            let batch = table.batch(vec![
                longs(added.iter().map(|r| Some(r.id))),
                of_k(added.iter().map(|r| r.k).collect()),
                texts(added.iter().map(|r| r.name)),
                longs(added.iter().map(|_| Some(region))),
            ]);
            let file = match random.below(2) {
                0 => table.data_file(batch, part()).await,
                _ => table.foreign_file(batch, part()).await,
            };
            files.push(file);
        }
        let reaches = |row: &Row| !partitioned || row.region == region;
        match random.below(5) {
            0 => {
                let ids: Vec<i64> = (0..random.below(30)).map(|_| random.below(100) as i64).collect();
                if !ids.is_empty() {
                    files.push(table.delete_where("id", longs(ids.iter().map(|i| Some(*i))), part()).await);
                    left.retain(|row| !(reaches(row) && ids.contains(&row.id)));
                }
            }
            1 => {
                let k = key(random);
                files.push(table.delete_where("k", of_k(vec![k]), part()).await);
                left.retain(|row| !(reaches(row) && row.k == k));
            }
            2 => {
                let pairs: Vec<_> = (0..4).map(|_| (key(random), name(random))).collect();
                let schema = table.select(&[name_column, "k"]);
                let columns = vec![texts(pairs.iter().map(|p| p.1)), of_k(pairs.iter().map(|p| p.0).collect())];
                files.push(table.equality_deletes(schema, &[2, 3], columns, part()).await);
                left.retain(|row| !(reaches(row) && pairs.contains(&(row.k, row.name))));
            }
            _ => {}
        }
        left.extend(added);
        if !files.is_empty() {
            table.commit(files).await;
        }
    }
    (table, left)
}
