//! Files in the order of their table, whoever writes them.

use arrow::array::AsArray;
use arrow::datatypes::Int32Type;
use tidewater_catalogs::{Alteration, LakeTable, RowOrder, SortField};

use super::*;
use crate::tests::{runner, small_runner};

fn sort(column: &str, transform: Transform, descending: bool) -> SortField {
    SortField { field: by(column, transform), descending, nulls_first: !descending }
}

/// Mixed up, each of `0..count` once.
fn mixed(count: i64) -> Vec<RecordBatch> {
    let ids: Vec<i64> = (0..count).map(|i| i * 7919 % count).collect();
    let parts = ids.chunks(1000).map(|ids| {
        let rows: Vec<RecordBatch> = ids.iter().map(|id| rows(*id, id + 1)).collect();
        arrow::compute::concat_batches(&schema(), &rows).unwrap()
    });
    parts.collect()
}

async fn files(table: &dyn LakeTable) -> Vec<(String, Option<i32>)> {
    let kind = tidewater_catalogs::MetadataTable::Files;
    let context = datafusion::prelude::SessionContext::new();
    context.register_table("f", table.metadata_table(kind, None).await.unwrap()).unwrap();
    let found = context.sql("SELECT file_path, sort_order_id FROM f ORDER BY 1").await.unwrap();
    let mut all = Vec::new();
    for batch in found.collect().await.unwrap() {
        let (paths, orders) = (batch.column(0).as_string::<i32>(), batch.column(1).as_primitive::<Int32Type>());
        for row in 0..batch.num_rows() {
            all.push((paths.value(row).to_owned(), orders.is_valid(row).then(|| orders.value(row))));
        }
    }
    all
}

async fn newest(lake: &TestLake) -> Arc<dyn LakeTable> {
    lake.lake.load_table(&TableName::public("t")).await.unwrap()
}

async fn ordered(lake: &TestLake, partition_by: Vec<PartitionField>, sort_by: Vec<SortField>) -> Arc<dyn LakeTable> {
    lake.lake.create_table(NewTable { sort_by, ..new_table("t", partition_by) }).await.unwrap()
}

async fn append_with(table: &dyn LakeTable, batches: Vec<RecordBatch>, runner: &tidewater_catalogs::Runner) -> u64 {
    let stream = futures::stream::iter(batches.into_iter().map(Ok));
    let rows = datafusion::physical_plan::stream::RecordBatchStreamAdapter::new(schema(), stream);
    table.append(Box::pin(rows), runner).await.unwrap()
}

#[tokio::test]
async fn appended_rows_are_sorted_by_transform_and_column() {
    let lake = TestLake::new().await;
    let table = ordered(
        &lake,
        vec![],
        vec![sort("id", Transform::Truncate(100), true), sort("name", Transform::Identity, false)],
    )
    .await;
    assert_eq!(append_with(table.as_ref(), mixed(5000), &runner()).await, 5000);
    let files = files(newest(&lake).await.as_ref()).await;
    assert_eq!(files.len(), 1);
    assert_eq!(files[0].1, Some(1));
    let ids = ids_of(&files[0].0);
    let key = |id: &i64| (-(id / 100), if id % 7 == 0 { String::new() } else { format!("name {id}") });
    assert!(ids.is_sorted_by_key(key), "{ids:?}");
    assert_eq!(lake.count("t").await, 5000);
}

#[tokio::test]
async fn a_sort_that_does_not_fit_into_memory_goes_to_disk() {
    let lake = TestLake::new().await;
    let table = ordered(&lake, vec![], vec![sort("id", Transform::Identity, false)]).await;
    assert_eq!(append_with(table.as_ref(), mixed(200_000), &small_runner()).await, 200_000);
    let files = files(newest(&lake).await.as_ref()).await;
    assert_eq!((files.len(), files[0].1), (1, Some(1)));
    assert_eq!(ids_of(&files[0].0), (0..200_000).collect::<Vec<_>>());
}

#[tokio::test]
async fn each_partition_becomes_one_file_however_many_there_are() {
    for (mode, expected) in [(None, 200), (Some("hash"), 200), (Some("range"), 200), (Some("none"), 201)] {
        let lake = TestLake::new().await;
        let properties = mode.map(|mode| ("write.distribution-mode".to_string(), mode.to_string()));
        let new = new_table("t", vec![by("id", Transform::Truncate(10))]);
        let table =
            lake.lake.create_table(NewTable { properties: properties.into_iter().collect(), ..new }).await.unwrap();
        append_with(table.as_ref(), mixed(2000), &runner()).await;
        let files = files(newest(&lake).await.as_ref()).await;
        assert_eq!(files.len().min(expected), expected, "{mode:?}: {} files", files.len());
        assert!(mode == Some("none") || files.len() == expected, "{mode:?}: {} files", files.len());
        let ids: BTreeSet<i64> = files.iter().flat_map(|(path, _)| ids_of(path)).collect();
        assert_eq!(ids, (0..2000).collect());
    }
}

#[tokio::test]
async fn a_flow_sorts_what_it_writes() {
    let lake = TestLake::new().await;
    ordered(&lake, vec![by("id", Transform::Truncate(1000))], vec![sort("id", Transform::Identity, true)]).await;
    let staged = write(handle(&lake, "t").await.as_ref(), mixed(3000)).await.unwrap();
    assert_eq!((staged.files.len(), staged.rows()), (3, 3000));
    let state = lake.lake.table_state(&TableName::public("t")).await.unwrap();
    for file in &staged.files {
        assert_eq!(from_staged(&state.metadata, file).unwrap().1.sort_order_id(), Some(1));
        assert!(ids_of(&file.path).is_sorted_by_key(|id| -id));
    }
}

#[tokio::test]
async fn an_order_that_comes_later_is_brought_to_all_files() {
    let lake = TestLake::new().await;
    let table = lake.table("t", vec![]).await;
    for part in mixed(4000) {
        append_with(table.as_ref(), vec![part], &runner()).await;
    }
    let order = vec![sort("id", Transform::Identity, false)];
    newest(&lake).await.alter(&[Alteration::SetSortOrder(order.clone())]).await.unwrap();
    assert_eq!(newest(&lake).await.info().sort_by, order);
    assert!(files(newest(&lake).await.as_ref()).await.iter().all(|(_, order)| order.is_none()));

    let optimize = async |order: Option<RowOrder>| {
        let compaction = newest(&lake).await.compaction(2, order.as_ref()).unwrap();
        let context = datafusion::prelude::SessionContext::new();
        context.register_table("t", tidewater_catalogs::TargetRows::provider(compaction.as_ref()).unwrap()).unwrap();
        context.sql("SELECT 1 FROM t").await.unwrap().create_physical_plan().await.unwrap();
        compaction.run(false, &runner()).await.unwrap()
    };
    assert_eq!(optimize(None).await.files_removed, 4);
    let found = files(newest(&lake).await.as_ref()).await;
    assert_eq!((found.len(), found[0].1), (1, Some(1)));
    assert_eq!(ids_of(&found[0].0), (0..4000).collect::<Vec<_>>());
    assert_eq!(optimize(None).await.files_removed, 0);

    // In another order they are not said to be in the table's.
    let other = RowOrder::By(vec![sort("name", Transform::Identity, false)]);
    assert_eq!(optimize(Some(other)).await.files_removed, 1);
    let found = files(newest(&lake).await.as_ref()).await;
    assert_eq!((found.len(), found[0].1), (1, None));
    assert_eq!(optimize(Some(RowOrder::Curve(vec!["id".into(), "at".into()]))).await.files_removed, 1);
    assert_eq!(lake.count("t").await, 4000);

    newest(&lake).await.alter(&[Alteration::SetSortOrder(vec![])]).await.unwrap();
    assert!(newest(&lake).await.info().sort_by.is_empty());
    newest(&lake).await.alter(&[Alteration::SetSortOrder(order)]).await.unwrap();
    let state = lake.lake.table_state(&TableName::public("t")).await.unwrap();
    assert_eq!(state.metadata.default_sort_order_id(), 1, "the same order has the same number");
}

#[tokio::test]
async fn orders_that_cannot_be_are_refused() {
    let lake = TestLake::new().await;
    for sort_by in [
        vec![sort("nothing", Transform::Identity, false)],
        vec![sort("id", Transform::Day, false)],
        vec![sort("id", Transform::Bucket(0), false)],
        vec![sort("id", Transform::Identity, false), sort("id", Transform::Identity, true)],
    ] {
        let refused = lake.lake.create_table(NewTable { sort_by, ..new_table("t", vec![]) }).await.unwrap_err();
        assert!(matches!(refused.kind(), ErrorKind::InvalidInput | ErrorKind::NotFound), "{refused}");
    }
}
