#![allow(clippy::unwrap_used, clippy::expect_used)]

mod foreign;
mod references;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use iceberg::spec::{
    MAIN_BRANCH, Operation, SnapshotReference, SnapshotRetention, TableMetadata, TableMetadataBuilder,
};
use tidewater_catalogs::{
    Anchor, AnchorState, CommitReply, CommitRequest, CommitTable, ErrorKind, LakeCatalog, StagedFiles, TableHead,
    TableName,
};
use uuid::Uuid;

use super::stage::{Staged, metadata_file};
use super::{Base, MetadataJson, anchor};
use crate::lake::Swap;
use crate::tests::{TestLake, append, files_below, new_table, open, rows};

const FLOW: &str = "5b1c0e7e-0000-4000-8000-000000000001";

async fn handle(lake: &TestLake) -> Arc<dyn CommitTable> {
    lake.lake.commit_table(&TableName::public("t")).await.unwrap()
}

fn request(expected: Option<&Anchor>, files: StagedFiles) -> CommitRequest {
    let seq = expected.map_or(0, |a| a.seq + 1);
    CommitRequest {
        flow: FLOW.to_string(),
        expected: expected.cloned(),
        seq,
        epoch: 1,
        commit_uuid: Uuid::now_v7(),
        checkpoint: format!("ckpt/{seq}.json"),
        checkpoint_sha256: "abc".to_string(),
        files,
        summary: BTreeMap::from([("tidewater.offsets".to_string(), "xyz".to_string())]),
    }
}

fn valid(head: &TableHead) -> Anchor {
    match &head.anchor {
        AnchorState::Valid(anchor) => anchor.clone(),
        other => panic!("{other:?}"),
    }
}

fn committed(reply: CommitReply) -> TableHead {
    match reply {
        CommitReply::Committed(head) => head,
        other => panic!("{other:?}"),
    }
}

fn refused(reply: CommitReply) -> tidewater_catalogs::Error {
    match reply {
        CommitReply::Refused(e) => e,
        other => panic!("{other:?}"),
    }
}

fn broken(state: AnchorState) -> String {
    match state {
        AnchorState::Broken(why) => why,
        other => panic!("{other:?}"),
    }
}

async fn staged(table: &dyn CommitTable, from: i64, to: i64) -> StagedFiles {
    let mut writer = table.writer(Uuid::now_v7()).unwrap();
    writer.write(rows(from, to)).await.unwrap();
    writer.finish().await.unwrap()
}

/// The first commit, without rows.
async fn begin(table: &dyn CommitTable) -> TableHead {
    let head = table.load_head(FLOW).await.unwrap();
    assert_eq!(head.anchor, AnchorState::Absent);
    committed(table.try_commit(&head, &request(None, StagedFiles::default())).await)
}

async fn next(table: &dyn CommitTable, head: &TableHead, from: i64, to: i64) -> TableHead {
    let files = if from == to { StagedFiles::default() } else { staged(table, from, to).await };
    committed(table.try_commit(head, &request(Some(&valid(head)), files)).await)
}

/// Replaces the table's metadata, as another engine would.
async fn meddle(lake: &TestLake, change: impl FnOnce(TableMetadataBuilder) -> TableMetadataBuilder) {
    let state = lake.lake.table_state(&TableName::public("t")).await.unwrap();
    let builder = state.metadata.as_ref().clone().into_builder(Some(state.metadata_location.clone()));
    let metadata = change(builder).build().unwrap().metadata;
    let json = MetadataJson::of(&metadata).unwrap();
    let (location, file) = metadata_file(Some(&state.metadata_location), &metadata, &json).unwrap();
    let staged = Staged {
        files: vec![(location.clone(), file)],
        metadata,
        location,
        manifests: Arc::new(Vec::new()),
        json: None,
        expired: Vec::new(),
        updates: Vec::new(),
        requirements: Vec::new(),
    };
    let base = Base { state, manifests: None, json: None };
    assert!(matches!(lake.lake.shared().swap(&base, staged).await, Swap::Done(_)));
}

#[tokio::test]
async fn anchors_move_with_the_rows() {
    let lake = TestLake::new().await;
    lake.table("t", vec![]).await;
    let table = handle(&lake).await;
    let first = begin(table.as_ref()).await;
    let anchor = valid(&first);
    assert_eq!((anchor.seq, anchor.epoch, anchor.snapshot_id), (0, 1, first.main_snapshot_id.unwrap()));
    assert_eq!(lake.count("t").await, 0);

    let second = next(table.as_ref(), &first, 0, 100).await;
    let third = next(table.as_ref(), &second, 100, 150).await;
    assert_eq!(lake.count("t").await, 150);

    // A new process sees what was committed.
    let other = open(&lake.directory).await.commit_table(&TableName::public("t")).await.unwrap();
    let seen = other.load_head(FLOW).await.unwrap();
    assert_eq!(valid(&seen), valid(&third));
    assert_eq!(seen.main_snapshot_id, third.main_snapshot_id);
    assert_eq!(other.load_head("another").await.unwrap().anchor, AnchorState::Absent);

    let info = lake.lake.load_table(&TableName::public("t")).await.unwrap().info().clone();
    let snapshot = info.current_snapshot.unwrap();
    let anchor = valid(&third);
    for (key, value) in [
        ("tidewater.flow", FLOW.to_string()),
        ("tidewater.seq", "2".to_string()),
        ("tidewater.epoch", "1".to_string()),
        ("tidewater.commit-uuid", anchor.commit_uuid.to_string()),
        ("tidewater.prev-snapshot-id", valid(&second).snapshot_id.to_string()),
        ("tidewater.ckpt", "ckpt/2.json".to_string()),
        ("tidewater.offsets", "xyz".to_string()),
        ("added-records", "50".to_string()),
        ("total-records", "150".to_string()),
        ("total-data-files", "2".to_string()),
    ] {
        assert_eq!(snapshot.summary.get(key), Some(&value), "{key}");
    }
}

#[tokio::test]
async fn of_two_committers_one_wins_each_number() {
    let lake = TestLake::new().await;
    lake.table("t", vec![]).await;
    let a = handle(&lake).await;
    let b = open(&lake.directory).await.commit_table(&TableName::public("t")).await.unwrap();
    let mut head = begin(a.as_ref()).await;
    let mut expected_rows = 0;
    for round in 0..10 {
        let head_b = b.load_head(FLOW).await.unwrap();
        let files_a = staged(a.as_ref(), 0, 10).await;
        let files_b = staged(b.as_ref(), 0, 20).await;
        let (ask_a, ask_b) = (request(Some(&valid(&head)), files_a), request(Some(&valid(&head_b)), files_b));
        let (reply_a, reply_b) = tokio::join!(a.try_commit(&head, &ask_a), b.try_commit(&head_b, &ask_b));
        let won = match (reply_a, reply_b) {
            (CommitReply::Committed(head), CommitReply::Refused(e)) => {
                assert_eq!(e.kind(), ErrorKind::Conflict);
                expected_rows += 10;
                (head, ask_a)
            }
            (CommitReply::Refused(e), CommitReply::Committed(head)) => {
                assert_eq!(e.kind(), ErrorKind::Conflict);
                expected_rows += 20;
                (head, ask_b)
            }
            other => panic!("round {round}: {other:?}"),
        };
        // What the loser finds when it looks.
        let found = a.load_head(FLOW).await.unwrap();
        assert_eq!(valid(&found), valid(&won.0));
        assert_eq!(valid(&found).commit_uuid, won.1.commit_uuid);
        head = found;
    }
    assert_eq!(lake.count("t").await, expected_rows);
}

#[tokio::test]
async fn a_commit_sent_twice_is_applied_once() {
    let lake = TestLake::new().await;
    lake.table("t", vec![]).await;
    let table = handle(&lake).await;
    let head = begin(table.as_ref()).await;
    let ask = request(Some(&valid(&head)), staged(table.as_ref(), 0, 10).await);
    committed(table.try_commit(&head, &ask).await);
    assert_eq!(refused(table.try_commit(&head, &ask).await).kind(), ErrorKind::Conflict);
    // On the new state too: the anchor is no longer the expected one.
    let newer = table.load_head(FLOW).await.unwrap();
    assert_eq!(refused(table.try_commit(&newer, &ask).await).kind(), ErrorKind::Conflict);
    assert_eq!(lake.count("t").await, 10);
}

#[tokio::test]
async fn a_rebase_keeps_uuid_and_files() {
    let lake = TestLake::new().await;
    let sql = lake.table("t", vec![]).await;
    let table = handle(&lake).await;
    let head = begin(table.as_ref()).await;
    let ask = request(Some(&valid(&head)), staged(table.as_ref(), 0, 10).await);
    append(sql.as_ref(), vec![rows(10, 15)]).await.unwrap();
    assert_eq!(refused(table.try_commit(&head, &ask).await).kind(), ErrorKind::Conflict);
    let newer = table.load_head(FLOW).await.unwrap();
    assert_eq!(valid(&newer), valid(&head));
    assert_ne!(newer.main_snapshot_id, head.main_snapshot_id);
    committed(table.try_commit(&newer, &ask).await);
    assert_eq!(lake.count("t").await, 15);
}

#[tokio::test]
async fn an_anchor_that_is_not_expected_is_refused_unasked() {
    let lake = TestLake::new().await;
    lake.table("t", vec![]).await;
    let table = handle(&lake).await;
    let absent = table.load_head(FLOW).await.unwrap();
    let invented = Anchor {
        snapshot_id: 1,
        seq: 0,
        epoch: 1,
        commit_uuid: Uuid::nil(),
        checkpoint: String::new(),
        checkpoint_sha256: String::new(),
    };
    let ask = request(Some(&invented), StagedFiles::default());
    assert_eq!(refused(table.try_commit(&absent, &ask).await).kind(), ErrorKind::Conflict);
    let head = begin(table.as_ref()).await;
    assert_eq!(
        refused(table.try_commit(&head, &request(None, StagedFiles::default())).await).kind(),
        ErrorKind::Conflict
    );
    let mut stale = valid(&head);
    stale.epoch += 1;
    assert_eq!(
        refused(table.try_commit(&head, &request(Some(&stale), StagedFiles::default())).await).kind(),
        ErrorKind::Conflict
    );
    let foreign = TableHead { base: Arc::new(7), ..head.clone() };
    assert_eq!(
        refused(table.try_commit(&foreign, &request(Some(&valid(&head)), StagedFiles::default())).await).kind(),
        ErrorKind::Internal
    );
}

#[tokio::test]
async fn a_lost_answer_is_unknown_and_settled_by_looking() {
    let lake = TestLake::new().await;
    lake.table("t", vec![]).await;
    let table = handle(&lake).await;
    let head = begin(table.as_ref()).await;
    let ask = request(Some(&valid(&head)), staged(table.as_ref(), 0, 10).await);
    lake.lake.shared().close_database().await;
    match table.try_commit(&head, &ask).await {
        CommitReply::Unknown(e) => assert_eq!(e.kind(), ErrorKind::CommitUnknown),
        other => panic!("{other:?}"),
    }
    assert!(table.load_head(FLOW).await.is_err());
    let again = open(&lake.directory).await.commit_table(&TableName::public("t")).await.unwrap();
    let found = again.load_head(FLOW).await.unwrap();
    assert_eq!(valid(&found), valid(&head));
    committed(again.try_commit(&found, &ask).await);
}

#[tokio::test]
async fn an_applied_commit_whose_answer_is_lost_is_found() {
    let lake = TestLake::new().await;
    let sql = lake.table("t", vec![]).await;
    let table = handle(&lake).await;
    let head = begin(table.as_ref()).await;
    let ask = request(Some(&valid(&head)), staged(table.as_ref(), 0, 10).await);
    let lose = |n| lake.lake.shared().lost_answers.store(n, std::sync::atomic::Ordering::SeqCst);
    lose(1);
    assert!(matches!(table.try_commit(&head, &ask).await, CommitReply::Unknown(_)));
    let found = table.load_head(FLOW).await.unwrap();
    assert_eq!(valid(&found).commit_uuid, ask.commit_uuid);
    assert_eq!(valid(&found).seq, ask.seq);
    assert_eq!(refused(table.try_commit(&found, &ask).await).kind(), ErrorKind::Conflict);

    lose(1);
    assert_eq!(append(sql.as_ref(), vec![rows(10, 15)]).await.unwrap(), 5);
    assert_eq!(lake.count("t").await, 15);
}

/// An INSERT whose answer was lost, and whose look at the table then failed too, ended in an ordinary error: a client
/// that took it at its word and wrote again had its rows twice.
#[tokio::test]
async fn an_append_without_an_answer_is_looked_for_and_else_unknown() {
    use std::sync::atomic::Ordering::SeqCst;
    let lake = TestLake::new().await;
    let table = lake.table("t", vec![]).await;
    let shared = lake.lake.shared();
    // Back after a while: the rows are found, and not added once more.
    shared.blind_after_loss.store(3, SeqCst);
    shared.lost_answers.store(1, SeqCst);
    assert_eq!(append(table.as_ref(), vec![rows(0, 10)]).await.unwrap(), 10);
    assert_eq!(lake.count("t").await, 10);
    // Not back in time: nothing is claimed, and the client learns what to look for.
    shared.blind_after_loss.store(usize::MAX, SeqCst);
    shared.lost_answers.store(1, SeqCst);
    let error = append(table.as_ref(), vec![rows(10, 15)]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::CommitUnknown, "{error}");
    let reopened = open(&lake.directory).await;
    let info = reopened.load_table(&TableName::public("t")).await.unwrap().info().clone();
    let commit = &info.current_snapshot.unwrap().summary[super::anchor::COMMIT_UUID];
    assert!(error.hint().unwrap().contains(commit.as_str()), "{error:?}");
}

#[tokio::test]
async fn files_that_cannot_be_written_are_a_refusal() {
    let lake = TestLake::new().await;
    let info = lake.table("t", vec![]).await.info().clone();
    let table = handle(&lake).await;
    let head = begin(table.as_ref()).await;
    let folder = std::path::PathBuf::from(info.location.strip_prefix("file://").unwrap()).join("metadata");
    let aside = folder.with_extension("aside");
    std::fs::rename(&folder, &aside).unwrap();
    std::fs::write(&folder, "in the way").unwrap();
    let ask = request(Some(&valid(&head)), StagedFiles::default());
    let error = refused(table.try_commit(&head, &ask).await);
    assert_ne!(error.kind(), ErrorKind::Conflict, "{error}");
    std::fs::remove_file(&folder).unwrap();
    std::fs::rename(&aside, &folder).unwrap();
    committed(table.try_commit(&head, &ask).await);
}

#[tokio::test]
async fn a_lost_tag_breaks_the_anchor() {
    let lake = TestLake::new().await;
    lake.table("t", vec![]).await;
    let table = handle(&lake).await;
    let head = begin(table.as_ref()).await;
    meddle(&lake, |b| b.remove_ref(&anchor::tag(FLOW))).await;
    let found = table.load_head(FLOW).await.unwrap();
    assert!(broken(found.anchor.clone()).contains("tag"));
    let ask = request(Some(&valid(&head)), StagedFiles::default());
    assert_eq!(refused(table.try_commit(&found, &ask).await).kind(), ErrorKind::Conflict);
}

/// The tag of a dropped flow kept its last snapshot, and so its files, for ever.
#[tokio::test]
async fn a_forgotten_flow_leaves_rows_and_no_anchor() {
    let lake = TestLake::new().await;
    lake.table("t", vec![]).await;
    let table = handle(&lake).await;
    table.forget(FLOW).await.unwrap();
    let head = begin(table.as_ref()).await;
    let head = next(table.as_ref(), &head, 0, 5).await;
    lake.lake.shared().lost_answers.store(1, std::sync::atomic::Ordering::SeqCst);
    table.forget(FLOW).await.unwrap();
    let after = table.load_head(FLOW).await.unwrap();
    assert_eq!((after.anchor, after.main_snapshot_id), (AnchorState::Absent, head.main_snapshot_id));
    let info = lake.lake.load_table(&TableName::public("t")).await.unwrap();
    assert!(!info.info().properties.keys().any(|k| k.contains(FLOW)), "{:?}", info.info().properties);
    assert_eq!(info.info().current_snapshot.as_ref().unwrap().summary["total-records"], "5");
    // Whoever still writes for the flow loses, and does not begin anew.
    let late = request(Some(&valid(&head)), staged(table.as_ref(), 5, 6).await);
    refused(table.try_commit(&table.load_head(FLOW).await.unwrap(), &late).await);
}

#[tokio::test]
async fn a_lost_or_foreign_property_breaks_the_anchor() {
    let lake = TestLake::new().await;
    lake.table("t", vec![]).await;
    let table = handle(&lake).await;
    let first = begin(table.as_ref()).await;
    let second = next(table.as_ref(), &first, 0, 5).await;
    let set = |value: String| HashMap::from([(anchor::head_property(FLOW), value)]);
    let look = || async { broken(table.load_head(FLOW).await.unwrap().anchor) };

    meddle(&lake, |b| b.remove_properties(&[anchor::head_property(FLOW)]).unwrap()).await;
    assert!(look().await.contains("property"));
    meddle(&lake, |b| b.set_properties(set("not json".to_string())).unwrap()).await;
    assert!(look().await.contains("cannot be read"));
    meddle(&lake, |b| b.set_properties(set(serde_json::to_string(&valid(&first)).unwrap())).unwrap()).await;
    assert!(look().await.contains("snapshot"));
    let mut other = valid(&second);
    other.epoch = 9;
    meddle(&lake, |b| b.set_properties(set(serde_json::to_string(&other).unwrap())).unwrap()).await;
    assert!(look().await.contains("epoch"));
    meddle(&lake, |b| b.set_properties(set(serde_json::to_string(&valid(&second)).unwrap())).unwrap()).await;
    assert_eq!(valid(&table.load_head(FLOW).await.unwrap()), valid(&second));
}

#[tokio::test]
async fn a_rollback_breaks_the_anchor_and_stays_broken() {
    let lake = TestLake::new().await;
    let sql = lake.table("t", vec![]).await;
    let table = handle(&lake).await;
    let first = begin(table.as_ref()).await;
    next(table.as_ref(), &first, 0, 5).await;
    let back = SnapshotReference::new(valid(&first).snapshot_id, SnapshotRetention::branch(None, None, None));
    meddle(&lake, |b| b.set_ref(MAIN_BRANCH, back).unwrap()).await;
    assert!(broken(table.load_head(FLOW).await.unwrap().anchor).contains("rolled back"));
    append(sql.as_ref(), vec![rows(0, 1)]).await.unwrap();
    assert!(broken(table.load_head(FLOW).await.unwrap().anchor).contains("rolled back"));
}

#[tokio::test]
async fn manifests_merge_and_keep_every_row() {
    let lake = TestLake::new().await;
    let mut new = new_table("t", vec![]);
    new.properties.insert("commit.manifest.min-count-to-merge".to_string(), "5".to_string());
    lake.lake.create_table(new).await.unwrap();
    let table = handle(&lake).await;
    let mut head = begin(table.as_ref()).await;
    let mut most = 0;
    for i in 0..23 {
        head = next(table.as_ref(), &head, i * 10, i * 10 + 10).await;
        let state = lake.lake.table_state(&TableName::public("t")).await.unwrap();
        most = most.max(super::current_manifests(&state).await.unwrap().len());
    }
    assert!(most <= 6, "{most}");
    assert_eq!(lake.count("t").await, 230);
    // Sequence numbers are those of the commits that brought the files.
    let state = lake.lake.table_state(&TableName::public("t")).await.unwrap();
    let mut sequence_numbers = Vec::new();
    let mut total = 0;
    for manifest in super::current_manifests(&state).await.unwrap() {
        let loaded = super::load_manifest(&state, &manifest).await.unwrap();
        let numbers: Vec<i64> = loaded.entries().iter().map(|e| e.sequence_number().unwrap()).collect();
        assert_eq!(numbers.iter().min(), Some(&manifest.min_sequence_number));
        total += manifest.added_rows_count.unwrap() + manifest.existing_rows_count.unwrap();
        sequence_numbers.extend(numbers);
    }
    sequence_numbers.sort_unstable();
    assert_eq!(sequence_numbers, (2..25).collect::<Vec<i64>>());
    assert_eq!(total, 230);
}

#[tokio::test]
async fn the_metadata_log_is_bounded_and_its_files_go() {
    let lake = TestLake::new().await;
    let mut new = new_table("t", vec![]);
    new.properties.insert("write.metadata.previous-versions-max".to_string(), "3".to_string());
    let info = lake.lake.create_table(new).await.unwrap().info().clone();
    let table = handle(&lake).await;
    let mut head = begin(table.as_ref()).await;
    for _ in 0..10 {
        head = next(table.as_ref(), &head, 0, 0).await;
    }
    let folder = std::path::PathBuf::from(info.location.strip_prefix("file://").unwrap()).join("metadata");
    let json = files_below(&folder).into_iter().filter(|f| f.ends_with(".metadata.json")).count();
    assert_eq!(json, 4);
    let versions: Vec<_> = files_below(&folder).into_iter().filter(|f| f.ends_with(".json")).collect();
    assert!(versions.last().unwrap().starts_with("00011-"), "{versions:?}");
}

/// Everything that a state names is there.
async fn check_reachable(lake: &TestLake) -> HashSet<String> {
    let state = lake.lake.table_state(&TableName::public("t")).await.unwrap();
    let mut names = HashSet::new();
    let there = |location: &str| std::path::Path::new(location.strip_prefix("file://").unwrap()).exists();
    for snapshot in state.metadata.snapshots() {
        assert!(there(snapshot.manifest_list()));
        names.insert(snapshot.manifest_list().to_string());
        for path in super::expire::manifest_paths(&state, snapshot).await.unwrap() {
            assert!(there(&path), "{path}");
            names.insert(path);
        }
    }
    for manifest in super::current_manifests(&state).await.unwrap() {
        for entry in super::load_manifest(&state, &manifest).await.unwrap().entries() {
            assert!(there(entry.file_path()));
        }
    }
    names
}

#[tokio::test]
async fn expiry_removes_old_snapshots_and_nothing_that_lives() {
    let lake = TestLake::new().await;
    let mut new = new_table("t", vec![]);
    new.properties.insert("history.expire.max-snapshot-age-ms".to_string(), "0".to_string());
    new.properties.insert("history.expire.min-snapshots-to-keep".to_string(), "3".to_string());
    new.properties.insert("commit.manifest.min-count-to-merge".to_string(), "4".to_string());
    let info = lake.lake.create_table(new).await.unwrap().info().clone();
    let table = handle(&lake).await;
    let mut head = begin(table.as_ref()).await;
    for i in 0..12 {
        head = next(table.as_ref(), &head, i * 10, i * 10 + 10).await;
    }
    // A foreign tag pins a snapshot in the middle.
    let state = lake.lake.table_state(&TableName::public("t")).await.unwrap();
    let mut line: Vec<_> = state.metadata.snapshots().map(|s| (s.sequence_number(), s.snapshot_id())).collect();
    line.sort_unstable();
    let pinned = line[4].1;
    let tag = SnapshotReference::new(pinned, SnapshotRetention::Tag { max_ref_age_ms: None });
    meddle(&lake, |b| b.set_ref("audit", tag).unwrap()).await;

    let folder = std::path::PathBuf::from(info.location.strip_prefix("file://").unwrap()).join("metadata");
    let before = files_below(&folder).len();
    super::expire::expire(
        lake.lake.shared(),
        lake.lake.table_state(&TableName::public("t")).await.unwrap(),
        super::Expiry::default(),
        chrono::Utc::now().timestamp_millis() + 60_000,
    )
    .await
    .unwrap();
    let state = lake.lake.table_state(&TableName::public("t")).await.unwrap();
    let left: HashSet<i64> = state.metadata.snapshots().map(|s| s.snapshot_id()).collect();
    let kept: HashSet<i64> = line[10..].iter().map(|(_, id)| *id).chain([pinned]).collect();
    assert_eq!(left, kept);
    let names = check_reachable(&lake).await;
    let files = files_below(&folder);
    assert!(files.len() < before);
    // What is left of lists and manifests is exactly what is named.
    let avro = files.iter().filter(|f| f.ends_with(".avro")).count();
    assert_eq!(avro, names.len());
    assert_eq!(lake.count("t").await, 120);
    // Again, with what is known from the first time.
    for i in 12..30 {
        let head = table.load_head(FLOW).await.unwrap();
        next(table.as_ref(), &head, i * 10, i * 10 + 10).await;
    }
    super::expire::expire(
        lake.lake.shared(),
        lake.lake.table_state(&TableName::public("t")).await.unwrap(),
        super::Expiry::default(),
        chrono::Utc::now().timestamp_millis() + 60_000,
    )
    .await
    .unwrap();
    let names = check_reachable(&lake).await;
    let avro = files_below(&folder).iter().filter(|f| f.ends_with(".avro")).count();
    assert_eq!(avro, names.len());
    assert_eq!(lake.count("t").await, 300);
}

#[tokio::test]
async fn a_paused_flow_outlives_the_expiry_of_what_came_after_it() {
    let lake = TestLake::new().await;
    let mut new = new_table("t", vec![]);
    new.properties.insert("history.expire.max-snapshot-age-ms".to_string(), "0".to_string());
    let sql = lake.lake.create_table(new).await.unwrap();
    let table = handle(&lake).await;
    let first = begin(table.as_ref()).await;
    let paused = next(table.as_ref(), &first, 0, 10).await;
    let expire = || async {
        let state = lake.lake.table_state(&TableName::public("t")).await.unwrap();
        let later = chrono::Utc::now().timestamp_millis() + 60_000;
        super::expire::expire(lake.lake.shared(), state, super::Expiry::default(), later).await.unwrap();
    };
    for round in 0..3 {
        for i in 0..5 {
            append(sql.as_ref(), vec![rows(i, i + 1)]).await.unwrap();
        }
        expire().await;
        let head = table.load_head(FLOW).await.unwrap();
        assert_eq!(valid(&head), valid(&paused), "round {round}");
        let state = lake.lake.table_state(&TableName::public("t")).await.unwrap();
        assert_eq!(state.metadata.snapshots().len(), 2);
    }
    // Rolled back to the tagged snapshot itself main still descends from it; a line that misses it does not.
    let head = table.load_head(FLOW).await.unwrap();
    let resumed = next(table.as_ref(), &head, 10, 20).await;
    assert_eq!(valid(&resumed).seq, 2);
    let state = lake.lake.table_state(&TableName::public("t")).await.unwrap();
    assert!(!state.metadata.properties().contains_key(&anchor::descent_property(FLOW)));
    assert_eq!(lake.count("t").await, 35);
    check_reachable(&lake).await;
}

#[tokio::test]
async fn young_snapshots_stay() {
    let lake = TestLake::new().await;
    lake.table("t", vec![]).await;
    let table = handle(&lake).await;
    let mut head = begin(table.as_ref()).await;
    for _ in 0..5 {
        head = next(table.as_ref(), &head, 0, 0).await;
    }
    table.maintain().await.unwrap();
    let state = lake.lake.table_state(&TableName::public("t")).await.unwrap();
    assert_eq!(state.metadata.snapshots().len(), 6);
    assert_eq!(valid(&table.load_head(FLOW).await.unwrap()), valid(&head));
}

#[tokio::test]
async fn time_in_a_table_does_not_go_back() {
    let lake = TestLake::new().await;
    lake.table("t", vec![]).await;
    let state = lake.lake.table_state(&TableName::public("t")).await.unwrap();
    let last = state.metadata.last_updated_ms();
    let change = super::Change {
        operation: Operation::Append,
        commit: Uuid::now_v7(),
        add: Vec::new(),
        summary: BTreeMap::new(),
        ..super::Change::default()
    };
    let staged = super::stage(&Base { state, manifests: None, json: None }, change, last - 3_600_000).await.unwrap();
    assert_eq!(staged.metadata.current_snapshot().unwrap().timestamp_ms(), last + 1);
}

/// The JSON is put together from parts that commits hand on to each other.
#[tokio::test]
async fn metadata_files_say_what_the_state_says() {
    for codec in ["none", "gzip"] {
        let lake = TestLake::new().await;
        let mut new = new_table("t", vec![]);
        new.properties.insert("write.metadata.compression-codec".to_owned(), codec.to_owned());
        lake.lake.create_table(new).await.unwrap();
        let check = async |step: usize| {
            let state = lake.lake.table_state(&TableName::public("t")).await.unwrap();
            let file = state.storage.read(&state.metadata_location).await.unwrap();
            assert_eq!(state.metadata_location.ends_with(".gz.metadata.json"), codec == "gzip");
            assert_eq!(file.starts_with(b"{"), codec == "none");
            let read: TableMetadata = serde_json::from_slice(&super::unpacked(file).unwrap()).unwrap();
            assert_eq!(read, *state.metadata, "step {step}");
            // A process that has none of the parts reads the same.
            let other = open(&lake.directory).await.table_state(&TableName::public("t")).await.unwrap();
            assert_eq!(other.metadata, state.metadata, "step {step}");
            read
        };
        let table = handle(&lake).await;
        check(0).await;
        let mut head = begin(table.as_ref()).await;
        for n in 1..30 {
            head = next(table.as_ref(), &head, n, n + (n % 2)).await;
            if n == 10 {
                meddle(&lake, |b| {
                    b.set_properties([("history.expire.max-snapshot-age-ms".into(), "1".into())].into()).unwrap()
                })
                .await;
                head = table.load_head(FLOW).await.unwrap();
            }
            if n == 20 {
                table.maintain().await.unwrap();
                assert!(check(20).await.snapshots().len() < 20);
                head = table.load_head(FLOW).await.unwrap();
            }
            check(n as usize).await;
        }
        table.forget(FLOW).await.unwrap();
        check(31).await;
        begin(table.as_ref()).await;
        check(32).await;
    }
}

#[tokio::test]
async fn how_metadata_is_compressed_is_checked_when_a_table_is_made() {
    let lake = TestLake::new().await;
    for codec in ["zstd", "", "gz"] {
        let mut new = new_table("t", vec![]);
        new.properties.insert("write.metadata.compression-codec".to_owned(), codec.to_owned());
        let error = lake.lake.create_table(new).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{codec}");
    }
    // What another engine sets later stops no flow.
    lake.table("t", vec![]).await;
    let table = handle(&lake).await;
    begin(table.as_ref()).await;
    let set =
        |b: TableMetadataBuilder| b.set_properties([("write.metadata.compression-codec".into(), "zstd".into())].into());
    meddle(&lake, |b| set(b).unwrap()).await;
    let head = table.load_head(FLOW).await.unwrap();
    next(table.as_ref(), &head, 0, 10).await;
    assert_eq!(lake.count("t").await, 10);
}
