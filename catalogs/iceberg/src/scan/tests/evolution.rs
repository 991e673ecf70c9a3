//! Files that were written under other schemas and partition specs than the table has now.

use arrow::array::{LargeListArray, LargeStringArray};
use arrow::json::ReaderBuilder;

use super::*;
use crate::commit::header::Header;

/// Rows from JSON, in the columns that the table has now.
fn json(table: &Fixture, lines: &str) -> RecordBatch {
    let mut reader = ReaderBuilder::new(table.arrow()).build(lines.as_bytes()).unwrap();
    reader.next().unwrap().unwrap()
}

async fn add(table: &mut Fixture, lines: &str) {
    let batch = json(table, lines);
    let file = table.data_file(batch, Struct::empty()).await;
    table.commit(vec![file]).await;
}

fn field(id: i32, name: &str, field_type: Type) -> Arc<NestedField> {
    Arc::new(NestedField::optional(id, name, field_type))
}

fn list(id: i32, element: Type) -> Type {
    Type::List(ListType::new(Arc::new(NestedField::list_element(id, element, false))))
}

fn map(key_id: i32, value_id: i32, value: Type) -> Type {
    Type::Map(MapType::new(
        Arc::new(NestedField::map_key_element(key_id, Type::Primitive(P::String))),
        Arc::new(NestedField::map_value_element(value_id, value, false)),
    ))
}

fn with_default(id: i32, name: &str, primitive: P, default: Literal) -> Arc<NestedField> {
    Arc::new(NestedField::optional(id, name, Type::Primitive(primitive)).with_initial_default(default))
}

/// Ids that the table gave, by path.
struct Ids(Arc<Schema>);

impl Ids {
    fn of(table: &Fixture) -> Self {
        Self(table.metadata.current_schema().clone())
    }

    fn get(&self, path: &str) -> i32 {
        self.0.field_id_by_name(path).unwrap_or_else(|| panic!("{path}"))
    }
}

fn evolved(id: i32, fields: Vec<Arc<NestedField>>) -> Schema {
    Schema::builder().with_schema_id(id).with_fields(fields).build().unwrap()
}

/// A struct in a struct, in a list, in a map, and in a list in a map.
#[tokio::test]
async fn structs_change_wherever_they_are() {
    let point = |first: i32| {
        nested(vec![
            optional(first, "x", P::Int),
            optional(first + 1, "y", P::Float),
            optional(first + 2, "gone", P::String),
        ])
    };
    let fields = vec![
        optional(1, "id", P::Long),
        field(2, "s", nested(vec![field(10, "in", point(11))])),
        field(3, "l", list(20, point(21))),
        field(4, "m", map(30, 31, point(32))),
        field(5, "ml", map(40, 41, list(42, point(43)))),
    ];
    let mut table = Fixture::with_version(schema(fields), no_spec(), FormatVersion::V3);
    let old = r#"{"x":1,"y":0.5,"gone":"a"}"#;
    let other = r#"{"x":2,"y":null,"gone":"b"}"#;
    let row = |id: i64, p: &str, q: &str| {
        format!(
            r#"{{"id":{id},"s":{{"in":{p}}},"l":[{p},null,{q}],"m":{{"k":{p},"n":null}},"ml":{{"k":[{q}],"e":[]}}}}"#
        )
    };
    let lines = [
        row(0, old, other),
        r#"{"id":1,"s":null,"l":null,"m":null,"ml":null}"#.to_owned(),
        r#"{"id":2,"s":{"in":null},"l":[],"m":{},"ml":{"k":null}}"#.to_owned(),
    ];
    add(&mut table, &lines.join("\n")).await;
    // In each: reordered, renamed, widened, dropped and added again under the old name, added with a default.
    let ids = Ids::of(&table);
    let point = |path: &str, next: i32| {
        nested(vec![
            with_default(next, "d", P::Long, Literal::long(9)),
            optional(ids.get(&format!("{path}.y")), "yy", P::Double),
            optional(next + 1, "gone", P::Boolean),
            optional(ids.get(&format!("{path}.x")), "x", P::Long),
        ])
    };
    let id = |path: &str| ids.get(path);
    table.evolve(evolved(
        1,
        vec![
            field(
                id("ml"),
                "ml",
                map(id("ml.key"), id("ml.value"), list(id("ml.value.element"), point("ml.value.element", 100))),
            ),
            field(id("m"), "mm", map(id("m.key"), id("m.value"), point("m.value", 110))),
            field(id("l"), "l", list(id("l.element"), point("l.element", 120))),
            field(id("s"), "s", nested(vec![field(id("s.in"), "inner", point("s.in", 130))])),
            optional(id("id"), "id", P::Long),
        ],
    ));
    let new = r#"{"d":5,"yy":1.5,"gone":true,"x":5000000000}"#;
    let lines = format!(r#"{{"id":3,"s":{{"inner":{new}}},"l":[{new}],"mm":{{"k":{new}}},"ml":{{"k":[{new}]}}}}"#);
    add(&mut table, &lines).await;

    let p = "{d: 9, yy: 0.5, gone: null, x: 1}";
    let q = "{d: 9, yy: null, gone: null, x: 2}";
    let n = "{d: 5, yy: 1.5, gone: true, x: 5000000000}";
    let show = "select id, s, l, mm, ml from t order by id";
    let expected = [
        format!("0|{{inner: {p}}}|[{p}, null, {q}]|{{k: {p}, n: null}}|{{k: [{q}], e: []}}"),
        "1|null|null|null|null".to_owned(),
        "2|{inner: null}|[]|{}|{k: null}".to_owned(),
        format!("3|{{inner: {n}}}|[{n}]|{{k: {n}}}|{{k: [{n}]}}"),
    ];
    assert_eq!(table.query(show).await, expected);
    for (filter, want) in [
        ("s['inner']['x'] = 1", vec!["0"]),
        ("s['inner']['d'] = 9", vec!["0"]),
        ("s['inner']['d'] is null", vec!["1", "2"]),
        ("s['inner']['yy'] > 1", vec!["3"]),
        ("s['inner']['gone']", vec!["3"]),
        ("s['inner']['x'] > 4000000000", vec!["3"]),
        ("l[1]['x'] = 1", vec!["0"]),
    ] {
        let got = table.query(&format!("select id from t where {filter} order by id")).await;
        assert_eq!(got, want, "{filter}");
    }
}

#[tokio::test]
async fn a_column_under_an_old_name_is_a_new_column() {
    let mut table = Fixture::new(schema(vec![optional(1, "id", P::Long), optional(2, "v", P::String)]), no_spec());
    add(&mut table, r#"{"id":1,"v":"old"}"#).await;
    table.evolve(evolved(1, vec![optional(1, "id", P::Long)]));
    add(&mut table, r#"{"id":2}"#).await;
    table.evolve(evolved(2, vec![optional(1, "id", P::Long), optional(3, "v", P::String)]));
    add(&mut table, r#"{"id":3,"v":"new"}"#).await;
    assert_eq!(table.query("select id, v from t order by id").await, ["1|null", "2|null", "3|new"]);
    assert_eq!(table.query("select id from t where v = 'old'").await, Vec::<String>::new());
    assert_eq!(table.query("select count(*), count(v) from t where v is null or v = 'new'").await, ["3|1"]);
    assert_eq!(table.query("select min(v), max(v) from t").await, ["new|new"]);
}

/// Of version 3: a struct that is there by default has its fields' defaults; lists and maps may be empty.
#[tokio::test]
async fn defaults_of_nested_columns() {
    let mut table = Fixture::with_version(id_schema(), no_spec(), FormatVersion::V3);
    add(&mut table, r#"{"id":1}"#).await;
    let inner = || nested(vec![with_default(11, "a", P::Int, Literal::int(4)), optional(12, "b", P::String)]);
    let there =
        NestedField::optional(2, "s", inner()).with_initial_default(Literal::Struct(Struct::from_iter([None, None])));
    let none = |name: &str, id: i32, field_type: Type, default: Literal| {
        Arc::new(NestedField::optional(id, name, field_type).with_initial_default(default))
    };
    let empty = || Literal::List(vec![]);
    let no_pairs = Literal::Map(iceberg::spec::Map::new());
    table.evolve(evolved(
        1,
        vec![
            optional(1, "id", P::Long),
            Arc::new(there),
            field(3, "gone", nested(vec![with_default(31, "a", P::Int, Literal::int(4))])),
            none("l", 4, list(41, Type::Primitive(P::Int)), empty()),
            none("some", 5, list(51, Type::Primitive(P::Int)), Literal::List(vec![Some(Literal::int(1)), None])),
            none("m", 6, map(61, 62, Type::Primitive(P::Int)), no_pairs),
        ],
    ));
    add(&mut table, r#"{"id":2,"s":{"a":1,"b":"x"},"gone":{"a":2},"l":[7],"some":[],"m":{"k":1}}"#).await;
    add(&mut table, r#"{"id":3}"#).await;
    assert_eq!(
        table.query("select * from t order by id").await,
        ["1|{a: 4, b: null}|null|[]|[1, null]|{}", "2|{a: 1, b: x}|{a: 2}|[7]|[]|{k: 1}", "3|null|null|null|null|null"]
    );
    assert_eq!(table.query("select id from t where s['a'] = 4").await, ["1"]);
    assert_eq!(table.query("select id from t where gone is null order by id").await, ["1", "3"]);
}

#[tokio::test]
async fn dates_become_timestamps() {
    let mut table = Fixture::with_version(
        schema(vec![optional(1, "id", P::Long), optional(2, "d", P::Date)]),
        no_spec(),
        FormatVersion::V3,
    );
    let batch = table.batch(vec![ids(0..3), Arc::new(Date32Array::from(vec![Some(-1), Some(20_000), None]))]);
    let file = table.data_file(batch, Struct::empty()).await;
    table.commit(vec![file]).await;
    table.evolve(evolved(1, vec![optional(1, "id", P::Long), optional(2, "d", P::Timestamp)]));
    assert_eq!(
        table.query("select id, d from t order by id").await,
        ["0|1969-12-31T00:00:00", "1|2024-10-04T00:00:00", "2|null"]
    );
    assert_eq!(table.query("select id from t where d >= timestamp '2024-10-04 00:00:00'").await, ["1"]);
    assert_eq!(table.query("select min(d) from t").await, ["1969-12-31T00:00:00"]);
}

/// PyArrow and others leave their own types in the file: wide lists and texts, other names of elements.
#[tokio::test]
async fn wide_lists_of_other_writers() {
    let element = nested(vec![optional(4, "x", P::String)]);
    let mut table = Fixture::new(
        schema(vec![
            optional(1, "id", P::Long),
            field(2, "l", list(3, element)),
            field(5, "t", list(6, Type::Primitive(P::String))),
        ]),
        no_spec(),
    );
    let by_id = |name: &str, data_type: DataType, id: i32| {
        let id = HashMap::from([("PARQUET:field_id".to_owned(), id.to_string())]);
        Field::new(name, data_type, true).with_metadata(id)
    };
    let id = |path: &str| Ids::of(&table).get(path);
    let x = Fields::from(vec![by_id("x", DataType::LargeUtf8, id("l.element.x"))]);
    let structs =
        StructArray::new(x.clone(), vec![Arc::new(LargeStringArray::from(vec![Some("a"), None, Some("c")]))], None);
    let item = Arc::new(by_id("item", DataType::Struct(x), id("l.element")));
    let nulls = Some(vec![true, false, true].into());
    let l = LargeListArray::new(item, OffsetBuffer::from_lengths([2, 0, 1]), Arc::new(structs), nulls);
    let text = Arc::new(by_id("item", DataType::LargeUtf8, id("t.element")));
    let texts = Arc::new(LargeStringArray::from(vec!["p", "q"]));
    let t = LargeListArray::new(text, OffsetBuffer::from_lengths([0, 1, 1]), texts, None);
    let fields = vec![
        by_id("id", DataType::Int64, id("id")),
        by_id("l", l.data_type().clone(), id("l")),
        by_id("t", t.data_type().clone(), id("t")),
    ];
    let columns: Vec<ArrayRef> = vec![ids(0..3), Arc::new(l), Arc::new(t)];
    let batch = RecordBatch::try_new(Arc::new(ArrowSchema::new(fields)), columns).unwrap();
    let file = table.foreign_file(batch, Struct::empty()).await;
    table.commit(vec![file]).await;
    assert_eq!(
        table.query("select id, l, t from t order by id").await,
        ["0|[{x: a}, {x: null}]|[]", "1|null|[p]", "2|[{x: c}]|[q]"]
    );
}

/// No field ids anywhere: names are mapped at every level, by what the mapping calls elements, keys and values.
#[tokio::test]
async fn name_mappings_reach_into_nested_columns() {
    let point = |first: i32| nested(vec![optional(first, "x", P::Int), optional(first + 1, "y", P::Int)]);
    let fields =
        vec![field(1, "s", point(10)), field(2, "l", list(20, point(21))), field(3, "m", map(30, 31, point(32)))];
    let mut table = Fixture::new(schema(fields), no_spec());
    let row = json(&table, r#"{"s":{"x":1,"y":2},"l":[{"x":3,"y":4}],"m":{"k":{"x":5,"y":6}}}"#);
    let strip = |field: &Field| -> Field {
        fn bare(data_type: &DataType) -> DataType {
            let plain = |f: &Arc<Field>| Arc::new(Field::new(f.name(), bare(f.data_type()), f.is_nullable()));
            match data_type {
                DataType::Struct(fields) => DataType::Struct(fields.iter().map(plain).collect()),
                DataType::List(f) => DataType::List(plain(f)),
                DataType::Map(f, sorted) => DataType::Map(plain(f), *sorted),
                other => other.clone(),
            }
        }
        Field::new(field.name(), bare(field.data_type()), field.is_nullable())
    };
    let arrow = Arc::new(ArrowSchema::new(row.schema().fields().iter().map(|f| strip(f)).collect::<Vec<_>>()));
    let columns = row.columns().iter().zip(arrow.fields());
    let columns = columns
        .map(|(c, f)| {
            arrow::array::make_array(
                c.to_data()
                    .into_builder()
                    .data_type(f.data_type().clone())
                    .child_data(arrow::compute::cast(c, f.data_type()).unwrap().to_data().child_data().to_vec())
                    .build()
                    .unwrap(),
            )
        })
        .collect();
    let batch = RecordBatch::try_new(arrow, columns).unwrap();
    let file = table.foreign_file(batch, Struct::empty()).await;
    table.commit(vec![file]).await;
    // Everywhere: y was once called x, and x went by another name.
    let ids = Ids::of(&table);
    let pair = |path: &str| {
        let (x, y) = (ids.get(&format!("{path}.x")), ids.get(&format!("{path}.y")));
        format!(r#"[{{"field-id":{y},"names":["x"]}},{{"field-id":{x},"names":["other"]}}]"#)
    };
    let id = |path: &str| ids.get(path);
    let mapping = format!(
        r#"[{{"field-id":{},"names":["s"],"fields":{}}},
            {{"field-id":{},"names":["l"],"fields":[{{"field-id":{},"names":["element"],"fields":{}}}]}},
            {{"field-id":{},"names":["m"],"fields":[{{"field-id":{},"names":["key"]}},{{"field-id":{},"names":["value"],"fields":{}}}]}}]"#,
        id("s"),
        pair("s"),
        id("l"),
        id("l.element"),
        pair("l.element"),
        id("m"),
        id("m.key"),
        id("m.value"),
        pair("m.value"),
    );
    let property = HashMap::from([("schema.name-mapping.default".to_owned(), mapping)]);
    table.change(|b| b.set_properties(property).unwrap());
    assert_eq!(table.query("select s, l, m from t").await, ["{x: null, y: 1}|[{x: null, y: 3}]|{k: {x: null, y: 5}}"]);
}

/// The source column of an old spec is gone; so may it be from the schema in a manifest that was rewritten since.
#[tokio::test]
async fn partition_fields_outlive_their_columns() {
    for rewritten in [false, true] {
        let fields = vec![optional(1, "id", P::Long), optional(2, "region", P::String), optional(3, "at", P::Date)];
        let specs = [identity(2, "region"), (3, "at_month".to_owned(), Transform::Month)];
        let mut table = Fixture::new(schema(fields), spec(&specs));
        for (from, region) in [(0, "eu"), (10, "us")] {
            let texts = texts(std::iter::repeat_n(Some(region), 3));
            let batch = table.batch(vec![ids(from..from + 3), texts, Arc::new(Date32Array::from(vec![31; 3]))]);
            let part = partition([Some(Literal::string(region)), Some(Literal::int(1))]);
            let file = table.data_file(batch, part.clone()).await;
            let path = file.file_path().to_owned();
            table.commit(vec![file]).await;
            let delete = table.position_deletes(&[(&path, 1)], part, None).await;
            table.commit(vec![delete]).await;
        }
        table.change(|b| b.add_default_partition_spec(spec(&[(1, "b".to_owned(), Transform::Bucket(4))])).unwrap());
        // A new column goes by the name of a field of the old spec.
        table.evolve(evolved(
            1,
            vec![optional(1, "id", P::Long), optional(4, "region", P::Long), optional(5, "later", P::Int)],
        ));
        // The crate does not make such a schema; Spark does.
        let json = serde_json::to_string(&table.metadata).unwrap().replace("\"later\"", "\"at_month\"");
        table.metadata = serde_json::from_str(&json).unwrap();
        let current = serde_json::to_vec(table.metadata.current_schema().as_ref()).unwrap();
        if rewritten {
            assert_eq!(each_manifest(&table, |header| header.set("schema", current.clone())), 4);
        }
        let batch = table.batch(vec![ids(20..21), ids(7..8), Arc::new(Int32Array::from(vec![1]))]);
        let file = table.data_file(batch, partition([Some(Literal::int(0))])).await;
        table.commit(vec![file]).await;
        assert_eq!(
            table.query("select id, region, at_month from t order by id").await,
            ["0|null|null", "2|null|null", "10|null|null", "12|null|null", "20|7|1"]
        );
        assert_eq!(table.query("select id from t where region = 7").await, ["20"]);
        assert_eq!(table.query("select count(*) from t where region is null and id < 10").await, ["2"]);
    }
}

/// Avro does not allow a name like `s.x`; the Java library spells it `s_x2Ex` in a manifest's Avro schema, and so must
/// it be found. Under a name that is not there, every partition value would be null. Letters of any script it leaves.
#[tokio::test]
async fn partition_values_are_found_under_their_avro_names() {
    for spelled in ["re_x2Dgion", "ré_x2Dgion"] {
        let fields = vec![optional(1, "id", P::Long), optional(2, "re-gion", P::String)];
        let mut table = Fixture::new(schema(fields), spec(&[identity(2, "re-gion")]));
        for (from, region) in [(0, "eu"), (10, "us")] {
            let batch = table.batch(vec![ids(from..from + 2), texts([Some(region), Some(region)])]);
            let file = table.foreign_file(batch, partition([Some(Literal::string(region))])).await;
            table.commit(vec![file]).await;
        }
        each_manifest(&table, |header| {
            let avro = String::from_utf8(header.get("avro.schema").unwrap().to_vec()).unwrap();
            assert!(avro.contains("\"re-gion\""));
            header.set("avro.schema", avro.replace("\"re-gion\"", &format!("\"{spelled}\"")).into_bytes());
        });
        assert_eq!(table.query("select id from t where \"re-gion\" = 'us' order by id").await, ["10", "11"]);
        assert_eq!(table.files("select id from t where \"re-gion\" = 'us'").await, "1/2");
        assert_eq!(table.query("select count(*) from t where \"re-gion\" is null").await, ["0"]);
    }
}

/// Version 1 keeps a partition field that was dropped as `void`, under the name of its column.
#[tokio::test]
async fn void_fields_keep_the_name_of_a_column() {
    let fields = vec![optional(1, "id", P::Long), optional(2, "region", P::String)];
    let mut table = Fixture::with_version(schema(fields), spec(&[identity(2, "region")]), FormatVersion::V1);
    let batch = table.batch(vec![ids(0..2), texts([Some("eu"), Some("us")])]);
    let file = table.data_file(batch, partition([None])).await;
    table.commit(vec![file]).await;
    each_manifest(&table, |header| {
        let spec = String::from_utf8(header.get("partition-spec").unwrap().to_vec()).unwrap();
        assert!(spec.contains("identity"));
        header.set("partition-spec", spec.replace("identity", "void").into_bytes());
    });
    let json = serde_json::to_string(&table.metadata).unwrap().replace("\"identity\"", "\"void\"");
    table.metadata = serde_json::from_str(&json).unwrap();
    assert_eq!(table.query("select id, region from t order by id").await, ["0|eu", "1|us"]);
    assert_eq!(table.query("select id from t where region = 'us'").await, ["1"]);
}

/// Changes the headers of all manifests, and tells how many they are.
fn each_manifest(table: &Fixture, mut change: impl FnMut(&mut Header)) -> usize {
    let mut count = 0;
    for path in std::fs::read_dir(table.directory.path().join("t/metadata")).unwrap().map(|f| f.unwrap().path()) {
        if path.file_name().unwrap().to_str().unwrap().starts_with("manifest-") {
            let file = std::fs::read(&path).unwrap();
            let mut header = Header::parse(&file).unwrap();
            change(&mut header);
            std::fs::write(&path, header.put_before(&file)).unwrap();
            count += 1;
        }
    }
    count
}
