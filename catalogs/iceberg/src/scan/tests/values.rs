//! Values that need care on their way from a file to a query.

use super::*;

#[tokio::test]
async fn uuids_are_texts() {
    let fields = vec![optional(1, "id", P::Long), optional(2, "u", P::Uuid)];
    let specs = [(2, "u_bucket".to_owned(), Transform::Bucket(8))];
    let mut table = Fixture::new(schema(fields), spec(&specs));
    let values = [u128::MAX - 5, 0x0011_2233_4455_6677_8899_aabb_ccdd_eeff, 7];
    for (id, value) in values.into_iter().enumerate() {
        let bytes = value.to_be_bytes();
        let array: ArrayRef = Arc::new(FixedSizeBinaryArray::try_from_iter([bytes].iter()).unwrap());
        let bucket = create_transform_function(&Transform::Bucket(8)).unwrap().transform(array.clone()).unwrap();
        let bucket = literal(ScalarValue::try_from_array(&bucket, 0).unwrap());
        let part = partition([bucket]);
        let batch = table.batch(vec![ids(id as i64..id as i64 + 1), array]);
        let file = table.data_file(batch, part).await;
        table.commit(vec![file]).await;
    }
    let text = "00112233-4455-6677-8899-aabbccddeeff";
    assert_eq!(
        table.query("select id, u from t order by id").await,
        [
            "0|ffffffff-ffff-ffff-ffff-fffffffffffa".to_owned(),
            format!("1|{text}"),
            "2|00000000-0000-0000-0000-000000000007".to_owned()
        ]
    );
    for (filter, want) in [
        (format!("u = '{text}'"), vec!["1"]),
        ("u > '8'".to_owned(), vec!["0"]),
        ("u < '8'".to_owned(), vec!["1", "2"]),
        (format!("u in ('{text}', 'none')"), vec!["1"]),
        ("u like '%7'".to_owned(), vec!["2"]),
    ] {
        assert_eq!(table.query(&format!("select id from t where {filter} order by id")).await, want, "{filter}");
    }
    assert_eq!(table.query("select min(u) from t").await, ["00000000-0000-0000-0000-000000000007"]);
    let past = table.context_at(1, table.metadata.current_snapshot_id());
    assert_eq!(rows(&past, &format!("select id from t where u = '{text}'")).await.unwrap(), ["1"]);
}

/// Statistics over all of `bigint` made DataFusion's estimate of a filter an assertion failure.
#[tokio::test]
async fn the_whole_range_of_bigint() {
    let mut table = Fixture::new(id_schema(), no_spec());
    let batch = table.batch(vec![Arc::new(Int64Array::from(vec![i64::MIN, 0, 7, i64::MAX]))]);
    let file = table.data_file(batch, Struct::empty()).await;
    table.commit(vec![file]).await;
    assert_eq!(table.query("select id from t where id > 5 order by id").await, ["7", &i64::MAX.to_string()]);
    assert_eq!(table.query("select id from t where id < 0").await, [i64::MIN.to_string()]);
    assert_eq!(table.query("select min(id), max(id) from t").await, [format!("{}|{}", i64::MIN, i64::MAX)]);
    for id in [i64::MIN, 3] {
        let batch = table.batch(vec![ids(id..id + 1)]);
        let file = table.data_file(batch, Struct::empty()).await;
        table.commit(vec![file]).await;
    }
    assert_eq!(table.query("select count(*) from t where id >= 3 and id <= 7").await, ["2"]);
}
