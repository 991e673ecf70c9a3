#![allow(clippy::unwrap_used, clippy::expect_used)]
use std::sync::Arc;

use datafusion::common::stats::Precision;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::prelude::SessionContext;
use datasketches::theta::CompactThetaSketch;
use tidewater_catalogs::{ErrorKind, LakeCatalog, LakeTable, TableName, VacuumRetention};

use crate::tests::{TestLake, append, rows, runner};

async fn newest(lake: &TestLake) -> Arc<dyn LakeTable> {
    lake.lake.load_table(&TableName::public("t")).await.unwrap()
}

async fn plan(lake: &TestLake) -> Arc<dyn ExecutionPlan> {
    let context = SessionContext::new();
    context.register_table("t", newest(lake).await.provider().unwrap()).unwrap();
    context.sql("SELECT id, name, at FROM t").await.unwrap().create_physical_plan().await.unwrap()
}

#[tokio::test]
async fn counts_are_kept_with_the_snapshot_and_told_to_the_planner() {
    let lake = TestLake::new().await;
    let table = lake.table("t", vec![]).await;
    assert!(table.analyze(None, &runner()).await.unwrap().is_empty());
    append(table.as_ref(), vec![rows(0, 700)]).await.unwrap();
    let counted = newest(&lake).await.analyze(None, &runner()).await.unwrap();
    assert_eq!(counted, [("id".to_owned(), 700), ("name".to_owned(), 600), ("at".to_owned(), 600)]);

    // The rows that come next were not counted, and the file of the snapshot before is still the newest.
    append(newest(&lake).await.as_ref(), vec![rows(700, 710)]).await.unwrap();
    let statistics = plan(&lake).await.partition_statistics(None).unwrap();
    let distinct: Vec<_> = statistics.column_statistics.iter().map(|c| c.distinct_count).collect();
    assert_eq!(distinct, [700, 600, 600].map(Precision::Inexact));

    let state = lake.lake.table_state(&TableName::public("t")).await.unwrap();
    let told: Vec<_> = state.metadata.statistics_iter().cloned().collect();
    assert_eq!(told.len(), 1);
    let file = state.storage.read(&told[0].statistics_path).await.unwrap();
    assert_eq!(file.len() as i64, told[0].file_size_in_bytes);
    let footer = file.len() - told[0].file_footer_size_in_bytes as usize;
    assert_eq!(
        (&file[..4], &file[footer..footer + 4], &file[file.len() - 4..]),
        (&b"PFA1"[..], &b"PFA1"[..], &b"PFA1"[..])
    );
    let json: serde_json::Value = serde_json::from_slice(&file[footer + 4..file.len() - 12]).unwrap();
    for (blob, expected) in json["blobs"].as_array().unwrap().iter().zip([700.0, 600.0, 600.0]) {
        assert_eq!(blob["type"], "apache-datasketches-theta-v1");
        assert_eq!(blob["snapshot-id"].as_i64(), Some(told[0].snapshot_id));
        let (offset, length) = (blob["offset"].as_u64().unwrap() as usize, blob["length"].as_u64().unwrap() as usize);
        let sketch = CompactThetaSketch::deserialize(&file[offset..offset + length]).unwrap();
        assert_eq!(sketch.estimate(), expected);
    }
}

#[tokio::test]
async fn counts_go_with_their_snapshot() {
    let lake = TestLake::new().await;
    let table = lake.table("t", vec![]).await;
    append(table.as_ref(), vec![rows(0, 10)]).await.unwrap();
    newest(&lake).await.analyze(Some(&["id".to_owned()]), &runner()).await.unwrap();
    append(newest(&lake).await.as_ref(), vec![rows(10, 20)]).await.unwrap();
    newest(&lake).await.analyze(None, &runner()).await.unwrap();
    let state = lake.lake.table_state(&TableName::public("t")).await.unwrap();
    let paths: Vec<String> = state.metadata.statistics_iter().map(|s| s.statistics_path.clone()).collect();
    assert_eq!(paths.len(), 2);

    let keep_one = VacuumRetention { age_ms: Some(0), snapshots: Some(1) };
    newest(&lake).await.vacuum(keep_one, false).await.unwrap();
    let state = lake.lake.table_state(&TableName::public("t")).await.unwrap();
    let left: Vec<String> = state.metadata.statistics_iter().map(|s| s.statistics_path.clone()).collect();
    assert_eq!(left.len(), 1);
    for path in paths {
        assert_eq!(state.storage.read(&path).await.is_ok(), left.contains(&path), "{path}");
    }
}

#[tokio::test]
async fn columns_that_cannot_be_counted_are_refused() {
    let lake = TestLake::new().await;
    let table = lake.table("t", vec![]).await;
    let refused = table.analyze(Some(&["nothing".to_owned()]), &runner()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::NotFound);
}
