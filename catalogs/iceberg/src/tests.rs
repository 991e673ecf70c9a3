#![allow(clippy::unwrap_used, clippy::expect_used)]
//! What the tests of this crate share, and the catalog's own.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int64Array, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use arrow::record_batch::RecordBatch;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use datafusion::prelude::{SessionConfig, SessionContext};
use futures::StreamExt;
use tidewater_catalogs::{
    BlobStore, ErrorKind, LakeCatalog, LakeTable, NewTable, PartitionField, PlanRunner, Runner, TableName, Transform,
};

use crate::{IcebergLake, SqlLakeOptions};

pub(crate) struct TestLake {
    pub(crate) directory: tempfile::TempDir,
    pub(crate) lake: IcebergLake,
}

impl TestLake {
    pub(crate) async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let lake = open(&directory).await;
        Self { directory, lake }
    }

    pub(crate) async fn table(&self, name: &str, partition_by: Vec<PartitionField>) -> Arc<dyn LakeTable> {
        self.lake.create_table(new_table(name, partition_by)).await.unwrap()
    }

    pub(crate) async fn count(&self, name: &str) -> i64 {
        let table = self.lake.load_table(&TableName::public(name)).await.unwrap();
        let batches = query(table.as_ref(), "SELECT count(*) FROM t").await;
        let counts: &Int64Array = batches[0].column(0).as_any().downcast_ref().unwrap();
        counts.value(0)
    }
}

pub(crate) async fn open(directory: &tempfile::TempDir) -> IcebergLake {
    let warehouse = directory.path().join("ware house");
    let options = SqlLakeOptions::local(directory.path().join("catalog.db"), warehouse.to_str().unwrap());
    IcebergLake::open_home(options).await.unwrap()
}

pub(crate) fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, false),
        Field::new("name", DataType::Utf8, true),
        Field::new("at", DataType::Timestamp(TimeUnit::Microsecond, Some("+00:00".into())), true),
    ]))
}

pub(crate) fn new_table(name: &str, partition_by: Vec<PartitionField>) -> NewTable {
    NewTable {
        name: TableName::public(name),
        schema: schema(),
        partition_by,
        sort_by: Vec::new(),
        properties: BTreeMap::new(),
        defaults: Default::default(),
        location: None,
        comment: None,
    }
}

pub(crate) const HOUR_US: i64 = 3_600_000_000;

/// Rows `from..to`; every seventh has nulls, and `at` moves on by an hour with each row.
pub(crate) fn rows(from: i64, to: i64) -> RecordBatch {
    let ids: Vec<i64> = (from..to).collect();
    let names: Vec<Option<String>> = ids.iter().map(|i| (i % 7 != 0).then(|| format!("name {i}"))).collect();
    let at: Vec<Option<i64>> = ids.iter().map(|i| (i % 7 != 0).then_some(i * HOUR_US)).collect();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from(ids)),
        Arc::new(StringArray::from(names)),
        Arc::new(TimestampMicrosecondArray::from(at).with_timezone("+00:00")),
    ];
    RecordBatch::try_new(schema(), columns).unwrap()
}

/// Runs plans where it stands.
#[derive(Debug)]
struct Here(Arc<TaskContext>);

impl PlanRunner for Here {
    fn task(&self) -> Arc<TaskContext> {
        Arc::clone(&self.0)
    }
    fn run(&self, plan: Arc<dyn ExecutionPlan>) -> SendableRecordBatchStream {
        let schema = plan.schema();
        let (sender, mut receiver) = tokio::sync::mpsc::channel(2);
        let mut rows = execute_stream(plan, self.task()).unwrap();
        tokio::spawn(async move {
            while let Some(batch) = rows.next().await {
                if sender.send(batch).await.is_err() {
                    break;
                }
            }
        });
        let rows = futures::stream::poll_fn(move |cx| receiver.poll_recv(cx));
        Box::pin(RecordBatchStreamAdapter::new(schema, rows))
    }
}

pub(crate) fn runner() -> Runner {
    Arc::new(Here(SessionContext::new().task_ctx()))
}

/// With so little memory that sorts go to disk.
pub(crate) fn small_runner() -> Runner {
    let memory = RuntimeEnvBuilder::new().with_memory_limit(4 << 20, 1.0).build_arc().unwrap();
    let config = SessionConfig::new().with_sort_spill_reservation_bytes(1 << 20);
    Arc::new(Here(SessionContext::new_with_config_rt(config, memory).task_ctx()))
}

pub(crate) async fn append(table: &dyn LakeTable, batches: Vec<RecordBatch>) -> tidewater_catalogs::Result<u64> {
    let stream = futures::stream::iter(batches.into_iter().map(Ok));
    table.append(Box::pin(RecordBatchStreamAdapter::new(schema(), stream)), &runner()).await
}

pub(crate) async fn query(table: &dyn LakeTable, sql: &str) -> Vec<RecordBatch> {
    let context = SessionContext::new();
    context.register_table("t", table.provider().unwrap()).unwrap();
    context.sql(sql).await.unwrap().collect().await.unwrap()
}

#[tokio::test]
async fn tables_come_back_after_a_restart() {
    let lake = TestLake::new().await;
    let table = lake.table("clicks", vec![]).await;
    assert_eq!(append(table.as_ref(), vec![rows(0, 10), rows(10, 100)]).await.unwrap(), 100);
    assert_eq!(append(table.as_ref(), vec![]).await.unwrap(), 0);
    let TestLake { directory, lake } = lake;
    drop(lake);

    let lake = TestLake { lake: open(&directory).await, directory };
    assert_eq!(lake.count("clicks").await, 100);
    let table = lake.lake.load_table(&TableName::public("clicks")).await.unwrap();
    assert_eq!(table.info().schema.as_ref(), schema().as_ref());
    let snapshot = table.info().current_snapshot.as_ref().unwrap();
    assert_eq!(snapshot.operation, "append");
    assert_eq!(snapshot.summary["total-records"], "100");
    assert_eq!(snapshot.summary["total-data-files"], "1");
    assert_eq!(append(table.as_ref(), vec![rows(100, 150)]).await.unwrap(), 50);
    assert_eq!(lake.count("clicks").await, 150);
}

#[tokio::test]
async fn names_are_found_and_refused() {
    let lake = TestLake::new().await;
    let catalog = &lake.lake;
    assert_eq!(catalog.list_schemas("lake").await.unwrap(), ["public"]);
    assert_eq!(catalog.list_schemas("system").await.unwrap(), ["dlq"]);
    catalog.create_schema("lake", "sales").await.unwrap();
    let kind = |r: tidewater_catalogs::Result<()>| r.unwrap_err().kind();
    assert_eq!(kind(catalog.create_schema("lake", "sales").await), ErrorKind::AlreadyExists);
    assert_eq!(kind(catalog.create_schema("lake", "a.b").await), ErrorKind::InvalidInput);
    assert_eq!(kind(catalog.drop_schema("lake", "nope").await), ErrorKind::NotFound);

    let mut table = new_table("t", vec![]);
    table.name = TableName::new("lake", "sales", "t/../x");
    catalog.create_table(table.clone()).await.unwrap();
    assert_eq!(catalog.create_table(table).await.unwrap_err().kind(), ErrorKind::AlreadyExists);
    assert_eq!(kind(catalog.drop_schema("lake", "sales").await), ErrorKind::InvalidInput);
    let mut lost = new_table("t", vec![]);
    lost.name = TableName::new("lake", "nope", "t");
    assert_eq!(catalog.create_table(lost).await.unwrap_err().kind(), ErrorKind::NotFound);

    let mut letters = new_table("t", vec![]);
    letters.name = TableName::dead_letters(&TableName::new("lake", "sales", "orders"));
    catalog.create_table(letters.clone()).await.unwrap();
    assert_eq!(catalog.list_tables("system", "dlq").await.unwrap(), [letters.name]);

    let name = TableName::new("lake", "sales", "t/../x");
    catalog.drop_table(&name, None, false).await.unwrap();
    assert_eq!(kind(catalog.drop_table(&name, None, false).await), ErrorKind::NotFound);
    catalog.drop_schema("lake", "sales").await.unwrap();
    assert_eq!(catalog.list_schemas("lake").await.unwrap(), ["public"]);
}

#[tokio::test]
async fn purge_removes_the_files_of_the_table_alone() {
    let lake = TestLake::new().await;
    let kept = lake.table("kept", vec![]).await;
    let gone = lake.table("gone", vec![]).await;
    let elsewhere = lake.directory.path().join("elsewhere");
    std::fs::create_dir_all(&elsewhere).unwrap();
    std::fs::write(elsewhere.join("not ours.txt"), "x").unwrap();
    let mut outside = new_table("outside", vec![]);
    outside.location = Some(elsewhere.to_str().unwrap().to_string());
    let outside = lake.lake.create_table(outside).await.unwrap();
    for table in [&kept, &gone, &outside] {
        append(table.as_ref(), vec![rows(0, 10)]).await.unwrap();
    }
    lake.lake.blobs().put_new("f/1", bytes::Bytes::from_static(b"x")).await.unwrap();

    let folder = gone.info().location.strip_prefix("file://").unwrap().to_string();
    assert!(std::path::Path::new(&folder).exists());
    lake.lake.drop_table(&TableName::public("gone"), None, true).await.unwrap();
    assert!(!std::path::Path::new(&folder).exists());
    lake.lake.drop_table(&TableName::public("outside"), None, true).await.unwrap();
    assert_eq!(files_below(&elsewhere), ["not ours.txt"]);
    assert_eq!(lake.count("kept").await, 10);
    assert_eq!(lake.lake.blobs().get("f/1").await.unwrap().len(), 1);
}

pub(crate) fn files_below(path: &std::path::Path) -> Vec<String> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(path).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(files_below(&path));
        } else {
            all.push(path.file_name().unwrap().to_string_lossy().into_owned());
        }
    }
    all.sort();
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn inserts_at_the_same_time_all_arrive_once() {
    let lake = TestLake::new().await;
    lake.table("t", vec![]).await;
    let other = open(&lake.directory).await;
    let mut tasks = Vec::new();
    for writer in 0..6 {
        let catalog = if writer % 2 == 0 { lake.lake.clone() } else { other.clone() };
        tasks.push(tokio::spawn(async move {
            let table = catalog.load_table(&TableName::public("t")).await.unwrap();
            append(table.as_ref(), vec![rows(writer * 100, writer * 100 + 100)]).await
        }));
    }
    for task in tasks {
        assert_eq!(task.await.unwrap().unwrap(), 100);
    }
    let table = lake.lake.load_table(&TableName::public("t")).await.unwrap();
    let batches = query(table.as_ref(), "SELECT count(*), count(DISTINCT id) FROM t").await;
    for column in batches[0].columns() {
        let counts: &Int64Array = column.as_any().downcast_ref().unwrap();
        assert_eq!(counts.value(0), 600);
    }
    assert_eq!(table.info().current_snapshot.as_ref().unwrap().summary["total-records"], "600");
}

#[tokio::test]
async fn a_table_made_again_under_its_name_is_another() {
    let lake = TestLake::new().await;
    let first = lake.table("t", vec![]).await;
    let handle = lake.lake.commit_table(&TableName::public("t")).await.unwrap();
    handle.load_head("f").await.unwrap();
    lake.lake.drop_table(&TableName::public("t"), None, true).await.unwrap();
    assert_eq!(handle.load_head("f").await.unwrap_err().kind(), ErrorKind::NotFound);
    let second = lake.table("t", vec![]).await;
    assert_ne!(first.info().location, second.info().location);
    assert_eq!(handle.load_head("f").await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(append(first.as_ref(), vec![rows(0, 1)]).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(lake.count("t").await, 0);
}

#[tokio::test]
async fn what_cannot_be_partitioned_by_is_refused() {
    let lake = TestLake::new().await;
    let field = |column: &str, transform| vec![PartitionField { column: column.to_string(), transform }];
    for (fields, kind) in [
        (field("name", Transform::Day), ErrorKind::InvalidInput),
        (field("id", Transform::Hour), ErrorKind::InvalidInput),
        (field("id", Transform::Bucket(0)), ErrorKind::InvalidInput),
        (field("nope", Transform::Identity), ErrorKind::NotFound),
    ] {
        let error = lake.lake.create_table(new_table("t", fields)).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
    }
    let mut table = new_table("t", vec![]);
    table.properties.insert("write.parquet.compression-codec".to_string(), "brotli9".to_string());
    assert_eq!(lake.lake.create_table(table).await.unwrap_err().kind(), ErrorKind::InvalidInput);
    let mut table = new_table("t", vec![]);
    table.properties.insert("format-version".to_string(), "4".to_string());
    assert_eq!(lake.lake.create_table(table).await.unwrap_err().kind(), ErrorKind::Unsupported);
}

/// A failing CREATE TABLE AS dropped whatever stood under its name: also a table that another session had made there
/// after dropping the half-made one, rows and all.
#[tokio::test]
async fn a_drop_that_expects_a_table_leaves_another_of_its_name_alone() {
    let lake = TestLake::new().await;
    let name = TableName::public("t");
    let first = lake.table("t", vec![]).await;
    lake.lake.drop_table(&name, Some(first.info().uuid), true).await.unwrap();
    let second = lake.table("t", vec![]).await;
    append(second.as_ref(), vec![rows(0, 3)]).await.unwrap();
    let refused = lake.lake.drop_table(&name, Some(first.info().uuid), true).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::NotFound);
    assert_eq!(lake.count("t").await, 3);
    lake.lake.drop_table(&name, Some(second.info().uuid), true).await.unwrap();
}

/// The same story from the other side: nobody sees a table before its rows are in it, and one that fails takes its own
/// files back and nothing else.
#[tokio::test]
async fn a_staged_table_is_seen_with_its_rows_or_not_at_all() {
    let stream = |batch: RecordBatch| {
        let rows = futures::stream::iter([Ok(batch)]);
        Box::pin(RecordBatchStreamAdapter::new(schema(), rows))
    };
    let lake = TestLake::new().await;
    let name = TableName::public("t");
    let folder = |location: &str| std::path::PathBuf::from(location.strip_prefix("file://").unwrap());

    let mut staged = lake.lake.stage_table(new_table("t", vec![])).await.unwrap();
    assert_eq!(staged.fill(stream(rows(0, 3)), &runner()).await.unwrap(), 3);
    assert!(lake.lake.list_tables("lake", "public").await.unwrap().is_empty());
    assert_eq!(lake.lake.load_table(&name).await.unwrap_err().kind(), ErrorKind::NotFound);
    staged.publish().await.unwrap();
    assert_eq!(lake.count("t").await, 3);
    let table = lake.lake.load_table(&name).await.unwrap();
    append(table.as_ref(), vec![rows(3, 5)]).await.unwrap();
    assert_eq!(open(&lake.directory).await.load_table(&name).await.unwrap().info().uuid, table.info().uuid);
    assert_eq!(lake.count("t").await, 5);

    lake.lake.drop_table(&name, None, true).await.unwrap();
    let mut late = lake.lake.stage_table(new_table("t", vec![])).await.unwrap();
    let left = folder(&late.info().location);
    late.fill(stream(rows(0, 3)), &runner()).await.unwrap();
    let faster = lake.table("t", vec![]).await;
    append(faster.as_ref(), vec![rows(0, 7)]).await.unwrap();
    assert_eq!(late.publish().await.unwrap_err().kind(), ErrorKind::AlreadyExists);
    assert!(!left.exists());
    assert_eq!(lake.count("t").await, 7);

    let staged = lake.lake.stage_table(new_table("u", vec![])).await.unwrap();
    let left = folder(&staged.info().location);
    staged.discard().await.unwrap();
    assert!(!left.exists());
    lake.lake.stage_table(new_table("u", vec![])).await.unwrap().publish().await.unwrap();
    assert_eq!(lake.count("u").await, 0);
}
