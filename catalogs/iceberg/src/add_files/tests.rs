#![allow(clippy::unwrap_used, clippy::expect_used)]
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Date32Array, Float64Array, Int32Array, Int64Array, StringArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use arrow::record_batch::RecordBatch;
use iceberg::spec::DEFAULT_SCHEMA_NAME_MAPPING;
use parquet::arrow::ArrowWriter;
use tidewater_catalogs::{
    Alteration, ErrorKind, LakeCatalog, LakeTable, NewTable, PartitionField, TableName, Transform,
};

use crate::tests::{TestLake, append, new_table, query, rows};

fn write(path: PathBuf, columns: Vec<(&str, ArrayRef)>) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let mut writer = ArrowWriter::try_new(std::fs::File::create(path).unwrap(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

fn of(array: impl Array + 'static) -> ArrayRef {
    Arc::new(array)
}

fn numbers(values: impl IntoIterator<Item = i64>) -> ArrayRef {
    Arc::new(Int64Array::from_iter_values(values))
}

fn texts(values: &[&str]) -> ArrayRef {
    Arc::new(StringArray::from(values.to_vec()))
}

/// `n BIGINT NOT NULL, region TEXT, day DATE`.
async fn table(lake: &TestLake, name: &str, by: &[(&str, Transform)]) -> Arc<dyn LakeTable> {
    let schema = Schema::new(vec![
        Field::new("n", DataType::Int64, false),
        Field::new("region", DataType::Utf8, true),
        Field::new("day", DataType::Date32, true),
    ]);
    let by = by.iter().map(|(column, transform)| PartitionField { column: (*column).into(), transform: *transform });
    let table = NewTable { schema: Arc::new(schema), partition_by: by.collect(), ..new_table(name, vec![]) };
    lake.lake.create_table(table).await.unwrap()
}

async fn add(table: &dyn LakeTable, path: &Path) -> Result<(u64, u64), (ErrorKind, String)> {
    match table.add_files(path.to_str().unwrap()).await {
        Ok(added) => Ok((added.files, added.partitions)),
        Err(e) => Err((e.kind(), format!("{e} {}", e.detail().unwrap_or_default()))),
    }
}

async fn sum(lake: &TestLake, name: &str, filter: &str) -> i64 {
    let table = lake.lake.load_table(&TableName::public(name)).await.unwrap();
    let found = query(table.as_ref(), &format!("SELECT coalesce(sum(n), 0) FROM t WHERE {filter}")).await;
    found[0].column(0).as_primitive::<Int64Type>().value(0)
}

#[tokio::test]
async fn files_without_ids_are_found_by_names() {
    let lake = TestLake::new().await;
    let t = table(&lake, "t", &[]).await;
    let folder = lake.directory.path().join("their files");
    // Another order, a narrower type, and no day.
    write(folder.join("a.parquet"), vec![("region", texts(&["x", "y"])), ("n", of(Int32Array::from(vec![1, 2])))]);
    write(folder.join("b/c.parquet"), vec![("n", numbers([10, 20])), ("region", texts(&["y", "z"]))]);
    write(folder.join("none.parquet"), vec![("n", numbers([])), ("region", texts(&[]))]);
    std::fs::write(folder.join("_SUCCESS"), "").unwrap();
    assert_eq!(add(t.as_ref(), &folder).await, Ok((2, 1)));
    assert_eq!(sum(&lake, "t", "true").await, 33);
    assert_eq!(sum(&lake, "t", "region = 'y' AND day IS NULL").await, 12);
    assert_eq!(sum(&lake, "t", "n > 5").await, 30);
    let now = lake.lake.load_table(&TableName::public("t")).await.unwrap();
    assert!(now.info().properties[DEFAULT_SCHEMA_NAME_MAPPING].contains("region"));
    assert_eq!(now.info().current_snapshot.as_ref().unwrap().summary["added-records"], "4");

    // None of them twice, whatever they are called.
    let (kind, _) = add(now.as_ref(), &folder).await.unwrap_err();
    assert_eq!(kind, ErrorKind::AlreadyExists);
    let file = format!("file:{}", folder.join("a.parquet").display());
    assert_eq!(add(now.as_ref(), Path::new(&file)).await.unwrap_err().0, ErrorKind::AlreadyExists);
    write(folder.join("d.parquet"), vec![("n", numbers([100]))]);
    assert_eq!(add(now.as_ref(), &folder.join("d.parquet")).await, Ok((1, 1)));
    assert_eq!(sum(&lake, "t", "true").await, 133);
    assert_eq!(add(now.as_ref(), &folder.join("e.parquet")).await.unwrap_err().0, ErrorKind::NotFound);

    // A column under a name that another had is not that one.
    let rename = Alteration::RenameColumn { path: vec!["region".into()], to: "place".into() };
    now.alter(&[rename]).await.unwrap();
    let now = lake.lake.load_table(&TableName::public("t")).await.unwrap();
    write(folder.join("f/f.parquet"), vec![("n", numbers([1])), ("region", texts(&["x"]))]);
    assert_eq!(add(now.as_ref(), &folder.join("f")).await.unwrap_err().0, ErrorKind::InvalidInput);
}

#[tokio::test]
async fn what_does_not_fit_is_refused_and_nothing_is_changed() {
    let lake = TestLake::new().await;
    let t = table(&lake, "t", &[]).await;
    let folder = lake.directory.path().join("f");
    let nulls: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), None]));
    let cases: [(&str, Vec<(&str, ArrayRef)>, ErrorKind); 5] = [
        ("unknown", vec![("n", numbers([1])), ("extra", numbers([1]))], ErrorKind::InvalidInput),
        ("missing", vec![("region", texts(&["x"]))], ErrorKind::InvalidInput),
        ("nulls", vec![("n", nulls)], ErrorKind::InvalidInput),
        ("type", vec![("n", texts(&["1"]))], ErrorKind::Unsupported),
        ("float", vec![("n", of(Float64Array::from(vec![1.0])))], ErrorKind::Unsupported),
    ];
    for (name, columns, expected) in cases {
        write(folder.join(name).join("good.parquet"), vec![("n", numbers([1]))]);
        write(folder.join(name).join("wrong.parquet"), columns);
        let (kind, text) = add(t.as_ref(), &folder.join(name)).await.unwrap_err();
        assert_eq!(kind, expected, "{name}: {text}");
        assert!(text.contains("wrong.parquet"), "{text}");
    }
    std::fs::create_dir_all(folder.join("text")).unwrap();
    std::fs::write(folder.join("text/a.csv"), "n\n1\n").unwrap();
    assert_eq!(add(t.as_ref(), &folder.join("text")).await.unwrap_err().0, ErrorKind::DataCorrupt);
    write(folder.join("lost/env=prod/a.parquet"), vec![("n", numbers([1]))]);
    assert!(add(t.as_ref(), &folder.join("lost")).await.unwrap_err().1.contains("env"));
    write(folder.join("lost2/region=eu/a.parquet"), vec![("n", numbers([1]))]);
    assert!(add(t.as_ref(), &folder.join("lost2")).await.unwrap_err().1.contains("region"));
    assert_eq!(add(t.as_ref(), Path::new("s3://elsewhere/x")).await.unwrap_err().0, ErrorKind::Unsupported);
    let now = lake.lake.load_table(&TableName::public("t")).await.unwrap();
    assert_eq!(now.info().metadata_location, t.info().metadata_location);
}

#[tokio::test]
async fn partitions_are_proven() {
    let lake = TestLake::new().await;
    let days = |days: &[i32]| -> ArrayRef { Arc::new(Date32Array::from(days.to_vec())) };
    let folder = lake.directory.path().join("f");

    // By folders, for what the file does not have.
    let t = table(&lake, "hive", &[("region", Transform::Identity), ("day", Transform::Identity)]).await;
    write(folder.join("h/region=e%20u/day=2024-01-02/a.parquet"), vec![("n", numbers([1, 2]))]);
    write(folder.join("h/region=us/day=__HIVE_DEFAULT_PARTITION__/a.parquet"), vec![("n", numbers([4]))]);
    write(folder.join("h/region=us/day=2024-01-02/a.parquet"), vec![("n", numbers([8])), ("region", texts(&["us"]))]);
    assert_eq!(add(t.as_ref(), &folder.join("h")).await, Ok((3, 3)));
    assert_eq!(sum(&lake, "hive", "region = 'e u' AND day = DATE '2024-01-02'").await, 3);
    assert_eq!(sum(&lake, "hive", "region = 'us'").await, 12);
    assert_eq!(sum(&lake, "hive", "day IS NULL").await, 4);
    for (n, (path, columns)) in [
        ("region=us/day=2024-1-2/a.parquet", vec![("n", numbers([1]))]),
        ("region=us/day=soon/a.parquet", vec![("n", numbers([1]))]),
        ("region=us/day=2024-01-02/a.parquet", vec![("n", numbers([1])), ("region", texts(&["eu"]))]),
    ]
    .into_iter()
    .enumerate()
    {
        let bad = folder.join(format!("bad{n}"));
        write(bad.join(path), columns);
        add(t.as_ref(), &bad).await.expect_err(path);
    }

    // By what is smallest and largest.
    let by = [("day", Transform::Month), ("n", Transform::Bucket(4)), ("region", Transform::Truncate(2))];
    let t = table(&lake, "proven", &by).await;
    let file = |n: &[i64], region: &[&str], day: &[i32]| {
        vec![("n", numbers(n.to_vec())), ("region", texts(region)), ("day", days(day))]
    };
    write(folder.join("p/a.parquet"), file(&[7, 7], &["euro", "eu"], &[31, 58]));
    assert_eq!(add(t.as_ref(), &folder.join("p")).await, Ok((1, 1)));
    assert_eq!(sum(&lake, "proven", "day = DATE '1970-02-01' AND region = 'euro' AND n = 7").await, 7);
    for (n, columns) in [
        file(&[7, 7], &["euro", "eu"], &[30, 58]),
        file(&[7, 8], &["euro", "eu"], &[31, 58]),
        file(&[7, 7], &["euro", "us"], &[31, 58]),
    ]
    .into_iter()
    .enumerate()
    {
        let bad = folder.join(format!("unproven{n}"));
        write(bad.join("a.parquet"), columns);
        let (kind, text) = add(t.as_ref(), &bad).await.unwrap_err();
        assert!(matches!(kind, ErrorKind::Unsupported | ErrorKind::InvalidInput), "{text}");
    }
    // All null is a partition, some null is not.
    let some: ArrayRef = Arc::new(StringArray::from(vec![Some("eu"), None]));
    write(folder.join("some/a.parquet"), vec![("n", numbers([7, 7])), ("region", some), ("day", days(&[31, 31]))]);
    assert_eq!(add(t.as_ref(), &folder.join("some")).await.unwrap_err().0, ErrorKind::Unsupported);
    write(folder.join("all/a.parquet"), vec![("n", numbers([7])), ("day", days(&[31]))]);
    assert_eq!(add(t.as_ref(), &folder.join("all")).await, Ok((1, 1)));
    assert_eq!(sum(&lake, "proven", "region IS NULL").await, 7);
}

#[tokio::test]
async fn a_dropped_table_is_registered_again() {
    let lake = TestLake::new().await;
    let name = TableName::public("t");
    let table = lake.table("t", vec![]).await;
    append(table.as_ref(), vec![rows(0, 10)]).await.unwrap();
    let table = lake.lake.load_table(&name).await.unwrap();
    let (at, first) = (table.info().metadata_location.clone(), table.info().uuid);
    let taken = lake.lake.register_table(&name, &at).await.unwrap_err();
    assert_eq!(taken.kind(), ErrorKind::AlreadyExists);
    lake.lake.drop_table(&name, None, false).await.unwrap();
    assert_eq!(lake.lake.register_table(&name, &at).await.unwrap().info().uuid, first);
    assert_eq!(lake.count("t").await, 10);
    append(lake.lake.load_table(&name).await.unwrap().as_ref(), vec![rows(10, 15)]).await.unwrap();
    assert_eq!(lake.count("t").await, 15);
    // Under two names, each would take the other's files for garbage.
    let other = TableName::public("other");
    assert_eq!(lake.lake.register_table(&other, &at).await.unwrap_err().kind(), ErrorKind::AlreadyExists);
    lake.lake.drop_table(&name, None, false).await.unwrap();
    let nowhere = TableName::new("lake", "nowhere", "t");
    assert_eq!(lake.lake.register_table(&nowhere, &at).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(lake.lake.register_table(&other, "/nothing.json").await.unwrap_err().kind(), ErrorKind::NotFound);
    let wrong = lake.directory.path().join("wrong.json");
    std::fs::write(&wrong, "{}").unwrap();
    let e = lake.lake.register_table(&other, wrong.to_str().unwrap()).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::DataCorrupt);
}

#[tokio::test]
async fn manifests_are_regrouped_under_the_same_rows() {
    let lake = TestLake::new().await;
    let mut made = new_table("t", vec![PartitionField { column: "id".into(), transform: Transform::Truncate(10) }]);
    made.properties = BTreeMap::from([("commit.manifest.target-size-bytes".to_string(), "20000".to_string())]);
    let table = lake.lake.create_table(made).await.unwrap();
    for from in 0..6 {
        append(table.as_ref(), vec![rows(from * 5, from * 5 + 25)]).await.unwrap();
    }
    let shared = lake.lake.shared();
    let state = async || lake.lake.table_state(&TableName::public("t")).await.unwrap();
    let entries = async || {
        let state = state().await;
        let mut all = Vec::new();
        for manifest in crate::commit::current_manifests(&state).await.unwrap() {
            for entry in crate::commit::load_manifest(&state, &manifest).await.unwrap().entries() {
                all.push((entry.file_path().to_string(), entry.sequence_number(), entry.snapshot_id()));
            }
        }
        all.sort();
        all
    };
    let before = entries().await;
    // The first answer is lost, and the commit found.
    shared.lost_answers.store(1, std::sync::atomic::Ordering::SeqCst);
    let done = table.rewrite_manifests().await.unwrap();
    assert_eq!(done.rewritten, 6);
    assert!((1..6).contains(&done.added), "{done:?}");
    assert_eq!(entries().await, before);
    let now = state().await;
    let manifests = crate::commit::current_manifests(&now).await.unwrap();
    assert_eq!(manifests.len() as u64, done.added);
    // Files of a partition are beside each other.
    for manifest in &manifests {
        let loaded = crate::commit::load_manifest(&now, manifest).await.unwrap();
        let partitions: Vec<_> = loaded.entries().iter().map(|e| e.data_file().partition().clone()).collect();
        let mut seen = Vec::new();
        for partition in partitions {
            if seen.last() != Some(&partition) {
                assert!(!seen.contains(&partition));
                seen.push(partition);
            }
        }
    }
    let snapshot = now.metadata.current_snapshot().unwrap();
    assert_eq!(snapshot.summary().operation.as_str(), "replace");
    assert_eq!(snapshot.summary().additional_properties["total-records"], "150");
    assert_eq!(lake.count("t").await, 150);
    append(table.as_ref(), vec![rows(0, 1)]).await.unwrap();
    assert_eq!(lake.count("t").await, 151);
}
