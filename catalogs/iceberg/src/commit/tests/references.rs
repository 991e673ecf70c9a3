//! Branches and tags.

use std::sync::atomic::Ordering::SeqCst;

use tidewater_catalogs::{Existing, LakeTable, Moved, ReferenceChange, ReferenceKind, Retention, TableVersion};

use super::*;
use crate::commit::references;

const DAY_MS: i64 = 86_400_000;

fn create(kind: ReferenceKind, name: &str, snapshot: Option<i64>, retention: Retention) -> ReferenceChange {
    ReferenceChange::Create { kind, name: name.to_string(), snapshot, retention, existing: Existing::Refused }
}

async fn loaded(lake: &TestLake) -> Arc<dyn LakeTable> {
    lake.lake.load_table(&TableName::public("t")).await.unwrap()
}

async fn refs(lake: &TestLake) -> HashMap<String, SnapshotReference> {
    let state = lake.lake.table_state(&TableName::public("t")).await.unwrap();
    references(&Base { state, manifests: None, json: None }).unwrap()
}

/// Ids of snapshots, oldest first.
async fn line(lake: &TestLake) -> Vec<i64> {
    let state = lake.lake.table_state(&TableName::public("t")).await.unwrap();
    let mut line: Vec<_> = state.metadata.snapshots().map(|s| (s.sequence_number(), s.snapshot_id())).collect();
    line.sort_unstable();
    line.into_iter().map(|(_, id)| id).collect()
}

/// `days` from now.
async fn expire(lake: &TestLake, days: i64) {
    let state = lake.lake.table_state(&TableName::public("t")).await.unwrap();
    let later = chrono::Utc::now().timestamp_millis() + days * DAY_MS;
    super::super::expire::expire(lake.lake.shared(), state, super::super::Expiry::default(), later).await.unwrap();
}

#[tokio::test]
async fn references_keep_snapshots_as_long_as_they_say() {
    let lake = TestLake::new().await;
    let mut new = new_table("t", vec![]);
    new.properties.insert("history.expire.max-snapshot-age-ms".to_string(), "0".to_string());
    let table = lake.lake.create_table(new).await.unwrap();
    for i in 0..6 {
        append(table.as_ref(), vec![rows(i, i + 1)]).await.unwrap();
    }
    let ids = line(&lake).await;
    let flows = handle(&lake).await;
    begin(flows.as_ref()).await;
    let table = loaded(&lake).await;
    let short = Retention { max_age_ms: Some(2 * DAY_MS), ..Retention::default() };
    let two = Retention { min_snapshots_to_keep: Some(2), ..Retention::default() };
    for change in [
        create(ReferenceKind::Tag, "short", Some(ids[0]), short),
        create(ReferenceKind::Branch, "two", Some(ids[3]), two),
        create(ReferenceKind::Tag, "long", Some(ids[1]), Retention::default()),
    ] {
        assert!(table.change_reference(&change).await.unwrap().changed);
    }

    expire(&lake, 1).await;
    let main = line(&lake).await.pop().unwrap();
    assert_eq!(line(&lake).await, [ids[0], ids[1], ids[2], ids[3], main]);
    assert_eq!(refs(&lake).await.len(), 5);
    // What a tag named goes after the tag.
    expire(&lake, 3).await;
    assert_eq!(line(&lake).await, [ids[1], ids[2], ids[3], main]);
    assert!(!refs(&lake).await.contains_key("short"));

    // The table's own word holds for those that say nothing, and neither for main nor for flows.
    meddle(&lake, |b| {
        let age = HashMap::from([("history.expire.max-ref-age-ms".to_string(), DAY_MS.to_string())]);
        b.set_properties(age).unwrap()
    })
    .await;
    expire(&lake, 3).await;
    let left = refs(&lake).await;
    let mut left: Vec<&str> = left.keys().map(String::as_str).collect();
    left.sort_unstable();
    assert_eq!(left, ["main", &anchor::tag(FLOW)]);
    assert_eq!(line(&lake).await, [main]);
    assert_eq!(lake.count("t").await, 6);
    valid(&flows.load_head(FLOW).await.unwrap());
    check_reachable(&lake).await;
}

#[tokio::test]
async fn a_change_of_references_whose_answer_is_lost_is_found() {
    let lake = TestLake::new().await;
    let table = lake.table("t", vec![]).await;
    for i in 0..3 {
        append(table.as_ref(), vec![rows(i, i + 1)]).await.unwrap();
    }
    let ids = line(&lake).await;
    let table = loaded(&lake).await;
    let shared = lake.lake.shared();
    let changes = [
        (create(ReferenceKind::Branch, "b", Some(ids[0]), Retention::default()), (None, Some(ids[0]))),
        (
            ReferenceChange::FastForward { branch: "b".to_string(), to: "main".to_string() },
            (Some(ids[0]), Some(ids[2])),
        ),
        (ReferenceChange::Rollback(TableVersion::Snapshot(ids[1])), (Some(ids[2]), Some(ids[1]))),
        (ReferenceChange::SetCurrent(TableVersion::Reference("b".to_string())), (Some(ids[1]), Some(ids[2]))),
        (
            ReferenceChange::Drop { kind: ReferenceKind::Branch, name: "b".to_string(), if_exists: false },
            (Some(ids[2]), None),
        ),
    ];
    for (change, (before, after)) in changes {
        shared.lost_answers.store(1, SeqCst);
        let moved = table.change_reference(&change).await.unwrap();
        assert_eq!(moved, Moved { before, after, changed: true }, "{change:?}");
        assert_eq!(shared.lost_answers.load(SeqCst), 0);
    }
    assert_eq!(refs(&lake).await.len(), 1);
    assert_eq!(lake.count("t").await, 3);

    shared.lost_answers.store(1, SeqCst);
    shared.blind_after_loss.store(1, SeqCst);
    let change = create(ReferenceKind::Tag, "v", None, Retention::default());
    let e = table.change_reference(&change).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::CommitUnknown, "{e}");
    shared.blind_after_loss.store(0, SeqCst);
    assert!(refs(&lake).await.contains_key("v"));
}

#[tokio::test]
async fn flows_own_their_tags() {
    let lake = TestLake::new().await;
    let table = lake.table("t", vec![]).await;
    begin(handle(&lake).await.as_ref()).await;
    let tag = anchor::tag(FLOW);
    for change in [
        create(ReferenceKind::Tag, &tag, None, Retention::default()),
        ReferenceChange::Drop { kind: ReferenceKind::Tag, name: tag.clone(), if_exists: true },
        ReferenceChange::FastForward { branch: tag.clone(), to: "main".to_string() },
    ] {
        let e = table.change_reference(&change).await.unwrap_err();
        assert_eq!(e.kind(), ErrorKind::PermissionDenied, "{change:?}");
    }
    assert_eq!(loaded(&lake).await.flows(), [FLOW]);
}

/// What a change of references leaves behind is what the next commit begins with.
#[tokio::test]
async fn commits_go_on_after_a_rollback() {
    let lake = TestLake::new().await;
    let table = lake.table("t", vec![]).await;
    for i in 0..3 {
        append(table.as_ref(), vec![rows(i * 10, i * 10 + 10)]).await.unwrap();
    }
    let ids = line(&lake).await;
    table.change_reference(&ReferenceChange::Rollback(TableVersion::Snapshot(ids[0]))).await.unwrap();
    assert_eq!(lake.count("t").await, 10);
    append(table.as_ref(), vec![rows(100, 105)]).await.unwrap();
    assert_eq!(lake.count("t").await, 15);
    let again = open(&lake.directory).await.load_table(&TableName::public("t")).await.unwrap();
    assert_eq!(again.info().current_snapshot.as_ref().unwrap().summary["total-records"], "15");
    let state = lake.lake.table_state(&TableName::public("t")).await.unwrap();
    assert_eq!(state.metadata.current_snapshot().unwrap().parent_snapshot_id(), Some(ids[0]));
    assert_eq!(state.metadata.history().len(), 5);
}
