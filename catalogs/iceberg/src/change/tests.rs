#![allow(clippy::unwrap_used, clippy::expect_used)]
pub(crate) mod version_3;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::array::{Array, AsArray};
use arrow::datatypes::Int64Type;
use arrow::record_batch::RecordBatch;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::prelude::SessionContext;
use iceberg::spec::Operation;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tidewater_catalogs::{
    Alteration, ChangeKind, Changed, Compacted, ErrorKind, LakeCatalog, LakeTable, NamedPartition, NewTable,
    PartitionField, PartitionRef, Repeated, Result, StagingWriter, TableChange, TableCompaction, TableName, Transform,
    VacuumRetention, Vacuumed,
};

use crate::commit::{Change, Listed, Removal, stage};
use crate::lake::Swap;
use crate::writer::{FileWriter, from_staged};
use uuid::Uuid;

use crate::tests::{TestLake, append, new_table, query, rows, runner};

/// The columns of a row that stays as it is, but for its name.
pub(crate) const RENAMED: &str = "SELECT _tidewater_place, true, id, 'new', at FROM t";

async fn table(lake: &TestLake, properties: &[(&str, &str)], partition_by: Vec<PartitionField>) -> Arc<dyn LakeTable> {
    let properties = properties.iter().map(|(k, v)| ((*k).to_string(), (*v).to_string())).collect();
    lake.lake.create_table(NewTable { properties, ..new_table("t", partition_by) }).await.unwrap()
}

async fn newest(lake: &TestLake) -> Arc<dyn LakeTable> {
    lake.lake.load_table(&TableName::public("t")).await.unwrap()
}

/// The answer of a query over the rows with their places.
pub(crate) async fn answer(change: &dyn TableChange, sql: &str) -> SendableRecordBatchStream {
    let context = SessionContext::new();
    context.register_table("t", change.provider().unwrap()).unwrap();
    let frame = context.sql(sql).await.unwrap();
    let schema = Arc::new(frame.schema().as_arrow().clone());
    let batches: Vec<RecordBatch> = frame.collect().await.unwrap();
    let schema = batches.first().map_or(schema, RecordBatch::schema);
    Box::pin(RecordBatchStreamAdapter::new(schema, futures::stream::iter(batches.into_iter().map(Ok))))
}

async fn run(lake: &TestLake, kind: ChangeKind, sql: &str) -> Result<Changed> {
    let change = newest(lake).await.change(kind)?;
    let rows = answer(change.as_ref(), sql).await;
    change.apply(rows, Repeated::Refused, None, &runner()).await
}

async fn delete(lake: &TestLake, condition: &str) -> Changed {
    run(lake, ChangeKind::Delete, &format!("SELECT _tidewater_place FROM t WHERE {condition}")).await.unwrap()
}

async fn summary(lake: &TestLake) -> (String, BTreeMap<String, String>) {
    let snapshot = newest(lake).await.info().current_snapshot.clone().unwrap();
    (snapshot.operation, snapshot.summary)
}

/// Names by id.
async fn contents(lake: &TestLake) -> BTreeMap<i64, Option<String>> {
    let mut all = BTreeMap::new();
    for batch in query(newest(lake).await.as_ref(), "SELECT id, name FROM t").await {
        let (ids, names) = (batch.column(0).as_primitive::<Int64Type>(), batch.column(1).as_string::<i32>());
        for row in 0..batch.num_rows() {
            let name = names.is_valid(row).then(|| names.value(row).to_string());
            assert_eq!(all.insert(ids.value(row), name), None, "row {} is there twice", ids.value(row));
        }
    }
    all
}

#[tokio::test]
async fn deleted_positions_of_a_file_are_kept_in_one() {
    let lake = TestLake::new().await;
    let t = table(&lake, &[], vec![]).await;
    append(t.as_ref(), vec![rows(0, 100)]).await.unwrap();
    for i in 0..3 {
        let changed = delete(&lake, &format!("id >= {} AND id < {}", i * 5, i * 5 + 5)).await;
        assert_eq!(changed, Changed { taken: 5, added: 0 });
    }
    assert_eq!(lake.count("t").await, 85);
    let (operation, summary) = summary(&lake).await;
    assert_eq!(operation, "delete");
    assert_eq!(summary["total-delete-files"], "1");
    assert_eq!(summary["total-position-deletes"], "15");
    assert_eq!(summary["removed-delete-files"], "1");
    assert_eq!(summary["total-data-files"], "1");
}

#[tokio::test]
async fn a_file_without_rows_leaves_with_its_deletes() {
    let lake = TestLake::new().await;
    let t = table(&lake, &[], vec![]).await;
    append(t.as_ref(), vec![rows(0, 100)]).await.unwrap();
    append(t.as_ref(), vec![rows(100, 200)]).await.unwrap();
    delete(&lake, "id < 10").await;
    assert_eq!(delete(&lake, "id < 100").await.taken, 90);
    assert_eq!(lake.count("t").await, 100);
    let (_, summary) = summary(&lake).await;
    assert_eq!((summary["total-data-files"].as_str(), summary["total-delete-files"].as_str()), ("1", "0"));
    assert_eq!((summary["deleted-data-files"].as_str(), summary["deleted-records"].as_str()), ("1", "100"));
    assert_eq!(delete(&lake, "id < 100").await, Changed::default());
}

#[tokio::test]
async fn the_property_says_how_rows_are_changed() {
    for (mode, data_files, delete_files) in
        [("copy-on-write", "1", "0"), ("merge-on-read", "2", "1"), ("auto", "2", "1")]
    {
        let lake = TestLake::new().await;
        let t = table(&lake, &[("write.update.mode", mode)], vec![]).await;
        append(t.as_ref(), vec![rows(0, 100)]).await.unwrap();
        let changed = run(&lake, ChangeKind::Update, &format!("{RENAMED} WHERE id = 7")).await.unwrap();
        assert_eq!(changed, Changed { taken: 1, added: 0 });
        let (operation, summary) = summary(&lake).await;
        assert_eq!(operation, "overwrite");
        assert_eq!(
            (summary["total-data-files"].as_str(), summary["total-delete-files"].as_str()),
            (data_files, delete_files),
            "{mode}"
        );
        let contents = contents(&lake).await;
        assert_eq!((contents.len(), contents[&7].as_deref()), (100, Some("new")), "{mode}");
    }
}

#[tokio::test]
async fn two_changes_of_one_file_conflict_and_of_two_files_do_not() {
    let lake = TestLake::new().await;
    let t = table(&lake, &[], vec![]).await;
    append(t.as_ref(), vec![rows(0, 100)]).await.unwrap();
    append(t.as_ref(), vec![rows(100, 200)]).await.unwrap();
    let begin = async |condition: &str| {
        let change = newest(&lake).await.change(ChangeKind::Delete).unwrap();
        let rows = answer(change.as_ref(), &format!("SELECT _tidewater_place FROM t WHERE {condition}")).await;
        (change, rows)
    };
    let (first, first_rows) = begin("id = 5").await;
    let (same, same_rows) = begin("id = 6").await;
    let (other, other_rows) = begin("id = 105").await;
    let (whole, whole_rows) = begin("id < 100").await;
    first.apply(first_rows, Repeated::First, None, &runner()).await.unwrap();
    let e = same.apply(same_rows, Repeated::First, None, &runner()).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Conflict, "{e}");
    other.apply(other_rows, Repeated::First, None, &runner()).await.unwrap();
    let e = whole.apply(whole_rows, Repeated::First, None, &runner()).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Conflict, "{e}");
    assert_eq!(lake.count("t").await, 198);

    // A file that was written anew, or that left, is missed.
    for gone in ["id >= 0 AND id < 90", "id < 100"] {
        let (late, late_rows) = begin("id = 99").await;
        delete(&lake, gone).await;
        let e = late.apply(late_rows, Repeated::First, None, &runner()).await.unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Conflict, "{gone}: {e}");
    }
}

#[tokio::test]
async fn rows_that_came_meanwhile_count_where_the_table_is_serializable() {
    for (level, matching, conflicts) in
        [("serializable", true, true), ("serializable", false, false), ("snapshot", true, false)]
    {
        let lake = TestLake::new().await;
        let t = table(&lake, &[("write.delete.isolation-level", level)], vec![]).await;
        append(t.as_ref(), vec![rows(0, 100)]).await.unwrap();
        let change = newest(&lake).await.change(ChangeKind::Delete).unwrap();
        let which = answer(change.as_ref(), "SELECT _tidewater_place FROM t WHERE id >= 90 AND id < 150").await;
        append(t.as_ref(), vec![if matching { rows(100, 120) } else { rows(1000, 1020) }]).await.unwrap();
        let done = change.apply(which, Repeated::First, None, &runner()).await;
        match (conflicts, done) {
            (true, Err(e)) => assert_eq!(e.kind(), ErrorKind::Conflict, "{e}"),
            (false, Ok(changed)) => assert_eq!((changed.taken, lake.count("t").await), (10, 110)),
            (_, other) => panic!("{level} {matching}: {other:?}"),
        }
    }
}

/// All data files of the table as one, as another engine's compaction leaves them.
async fn compact(lake: &TestLake) {
    let state = lake.lake.table_state(&TableName::public("t")).await.unwrap();
    let mut remove = HashMap::new();
    for manifest in crate::commit::current_manifests(&state).await.unwrap() {
        for entry in crate::commit::load_manifest(&state, &manifest).await.unwrap().entries() {
            if entry.is_alive() {
                remove.insert(Listed::of(entry.data_file()), String::new());
            }
        }
    }
    let commit = Uuid::now_v7();
    let mut writer: Box<dyn StagingWriter> = Box::new(FileWriter::new(state.storage.clone(), &state, commit).unwrap());
    for batch in query(newest(lake).await.as_ref(), "SELECT * FROM t").await {
        writer.write(batch).await.unwrap();
    }
    let files = writer.finish().await.unwrap();
    let add = files.files.iter().map(|f| from_staged(&state.metadata, f)).collect::<Result<Vec<_>>>().unwrap();
    let base = lake.lake.shared().base(state).await.unwrap();
    let change =
        Change { operation: Operation::Replace, commit, add, remove: Removal::Files(remove), ..Change::default() };
    let staged = stage(&base, change, lake.lake.shared().now_ms()).await.unwrap();
    assert!(matches!(lake.lake.shared().swap(&base, staged).await, Swap::Done(_)));
}

#[tokio::test]
async fn rows_that_were_written_anew_came_only_if_they_were_appended() {
    for appended in [true, false] {
        let lake = TestLake::new().await;
        let t = table(&lake, &[], vec![]).await;
        append(t.as_ref(), vec![rows(0, 100)]).await.unwrap();
        append(t.as_ref(), vec![rows(100, 200)]).await.unwrap();
        let change = newest(&lake).await.change(ChangeKind::Delete).unwrap();
        let insert = "SELECT nullif(_tidewater_place, _tidewater_place), true, id + 1000, name, at FROM t WHERE id >= 5 AND id % 200 = 5";
        let comes = answer(change.as_ref(), insert).await;
        if appended {
            append(t.as_ref(), vec![rows(200, 210)]).await.unwrap();
        }
        compact(&lake).await;
        let done = change.apply(comes, Repeated::First, None, &runner()).await;
        match (appended, done) {
            (true, Err(e)) => assert_eq!(e.kind(), ErrorKind::Conflict, "{e}"),
            (false, Ok(changed)) => assert_eq!((changed.added, lake.count("t").await), (1, 201)),
            (_, other) => panic!("{appended}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn what_rests_on_the_whole_table_is_begun_anew_with_it() {
    let lake = TestLake::new().await;
    let t = table(&lake, &[], vec![]).await;
    append(t.as_ref(), vec![rows(0, 100)]).await.unwrap();
    for whole in [false, true] {
        let change = newest(&lake).await.change(ChangeKind::Delete).unwrap();
        let which =
            answer(change.as_ref(), &format!("SELECT _tidewater_place FROM t WHERE id = {}", u8::from(whole))).await;
        if whole {
            change.reads_table();
        }
        append(t.as_ref(), vec![rows(1000, 1010)]).await.unwrap();
        let done = change.apply(which, Repeated::First, None, &runner()).await;
        assert_eq!(
            done.map_err(|e| e.kind()),
            if whole { Err(ErrorKind::Conflict) } else { Ok(Changed { taken: 1, added: 0 }) }
        );
    }
}

#[tokio::test]
async fn a_row_that_is_named_twice_is_refused_or_counts_once() {
    let lake = TestLake::new().await;
    let t = table(&lake, &[], vec![]).await;
    append(t.as_ref(), vec![rows(0, 10)]).await.unwrap();
    let twice = "SELECT _tidewater_place FROM t CROSS JOIN (VALUES (1), (2)) WHERE id = 3";
    let e = run(&lake, ChangeKind::Merge, twice).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Ambiguous);
    assert_eq!(lake.count("t").await, 10);
    let change = newest(&lake).await.change(ChangeKind::Update).unwrap();
    let rows = answer(change.as_ref(), twice).await;
    assert_eq!(change.apply(rows, Repeated::First, None, &runner()).await.unwrap().taken, 1);
    assert_eq!(lake.count("t").await, 9);
}

fn partition(field: PartitionField, has: bool) -> Alteration {
    if has {
        Alteration::DropPartition(PartitionRef::Field(field))
    } else {
        Alteration::AddPartition(NamedPartition { field, name: None })
    }
}

async fn chosen(lake: &TestLake, condition: &str) -> Arc<dyn TableCompaction> {
    let compaction = newest(lake).await.compaction(2, None).unwrap();
    let context = SessionContext::new();
    context.register_table("t", compaction.provider().unwrap()).unwrap();
    let frame = context.sql(&format!("SELECT 1 FROM t WHERE {condition}")).await.unwrap();
    frame.create_physical_plan().await.unwrap();
    compaction
}

async fn compacted(lake: &TestLake, condition: &str) -> Compacted {
    chosen(lake, condition).await.run(false, &runner()).await.unwrap()
}

#[tokio::test]
async fn small_files_become_one_and_deleted_rows_stay_out() {
    let lake = TestLake::new().await;
    let t = table(&lake, &[("write.delete.mode", "merge-on-read")], vec![]).await;
    for i in 0..4 {
        append(t.as_ref(), vec![rows(i * 10, i * 10 + 10)]).await.unwrap();
    }
    delete(&lake, "id IN (3, 17)").await;
    let told = chosen(&lake, "true").await.run(true, &runner()).await.unwrap();
    assert_eq!((told.files_removed, told.files_added, told.delete_files_removed), (4, 0, 2));
    let before = contents(&lake).await;
    let began = newest(&lake).await.info().current_snapshot.clone().unwrap().snapshot_id;
    let done = compacted(&lake, "true").await;
    assert_eq!((done.files_removed, done.files_added, done.delete_files_removed), (4, 1, 2));
    assert_eq!(contents(&lake).await, before);
    let (operation, summary) = summary(&lake).await;
    assert_eq!(operation, "replace");
    assert_eq!((summary["total-data-files"].as_str(), summary["total-delete-files"].as_str()), ("1", "0"));
    assert_eq!(summary["total-records"], "38");
    assert_eq!(compacted(&lake, "true").await, Compacted::default());

    // What deletes by key from then on reaches rows of the state that was read.
    let state = lake.lake.table_state(&TableName::public("t")).await.unwrap();
    let read = state.metadata.snapshot_by_id(began).unwrap().sequence_number();
    for manifest in crate::commit::current_manifests(&state).await.unwrap() {
        for entry in crate::commit::load_manifest(&state, &manifest).await.unwrap().entries() {
            if entry.is_alive() {
                assert_eq!(entry.sequence_number(), Some(read));
            }
        }
    }
}

#[tokio::test]
async fn a_compaction_brings_back_no_row_and_lets_others_append() {
    let lake = TestLake::new().await;
    let t = table(&lake, &[("write.delete.mode", "merge-on-read")], vec![]).await;
    for i in 0..3 {
        append(t.as_ref(), vec![rows(i * 10, i * 10 + 10)]).await.unwrap();
    }
    let late = chosen(&lake, "true").await;
    delete(&lake, "id = 5").await;
    assert_eq!(late.run(false, &runner()).await.unwrap(), Compacted { conflicts: 1, ..Compacted::default() });
    assert_eq!(lake.count("t").await, 29);
    let chosen = chosen(&lake, "true").await;
    append(t.as_ref(), vec![rows(100, 110)]).await.unwrap();
    assert_eq!(chosen.run(false, &runner()).await.unwrap().files_removed, 3);
    assert_eq!(lake.count("t").await, 39);
}

#[tokio::test]
async fn a_vacuum_leaves_the_files_that_are_named() {
    let lake = TestLake::new().await;
    let t = table(&lake, &[], vec![]).await;
    for i in 0..4 {
        append(t.as_ref(), vec![rows(i * 10, i * 10 + 10)]).await.unwrap();
    }
    delete(&lake, "id = 5").await;
    compacted(&lake, "true").await;
    // Of a statement that was given up, and of one that goes on.
    let state = lake.lake.table_state(&TableName::public("t")).await.unwrap();
    let files = async |commit: Uuid| {
        let mut writer: Box<dyn StagingWriter> =
            Box::new(FileWriter::new(state.storage.clone(), &state, commit).unwrap());
        for batch in query(newest(&lake).await.as_ref(), "SELECT * FROM t").await {
            writer.write(batch).await.unwrap();
        }
        writer.finish().await.unwrap()
    };
    let going = Uuid::now_v7();
    let entered = lake.lake.shared().in_flight.enter(going);
    files(going).await;
    files(Uuid::now_v7()).await;

    let all = VacuumRetention { age_ms: Some(0), snapshots: None };
    let listed = || state.storage.list(state.metadata.location());
    let before = listed().await.unwrap();
    let default = newest(&lake).await.vacuum(VacuumRetention::default(), false).await.unwrap();
    assert_eq!(default, Vacuumed::default());
    let told = newest(&lake).await.vacuum(all, true).await.unwrap();
    assert_eq!(listed().await.unwrap(), before);
    let done = newest(&lake).await.vacuum(all, false).await.unwrap();
    assert_eq!((told.snapshots, done.snapshots), (5, 5));
    let left = listed().await.unwrap();
    assert_eq!(left.iter().filter(|f| f.contains(&going.to_string())).count(), 1);
    drop(entered);
    newest(&lake).await.vacuum(all, false).await.unwrap();
    let left = listed().await.unwrap();
    assert_eq!(left.iter().filter(|f| f.ends_with(".parquet")).count(), 1);
    // The newest metadata file and those that its log names, a list and its manifests, a data file.
    let now = lake.lake.table_state(&TableName::public("t")).await.unwrap();
    let manifests = crate::commit::current_manifests(&now).await.unwrap().len();
    assert_eq!(left.len(), 1 + now.metadata.metadata_log().len() + 1 + manifests + 1, "{left:?}");
    assert_eq!(lake.count("t").await, 39);
}

/// Histories of appends, deletes, updates, compactions, vacuums and partitions, in every mode, against a map. Every other
/// one is of format version 3, from its beginning or from some step on.
#[tokio::test]
async fn histories_end_as_in_a_map() {
    for seed in 0..24_u64 {
        let mut random = StdRng::seed_from_u64(seed);
        let mode = ["copy-on-write", "merge-on-read", "auto"][usize::try_from(seed % 3).unwrap()];
        let partitions = match seed % 2 {
            0 => vec![],
            _ => vec![PartitionField { column: "id".to_string(), transform: Transform::Bucket(3) }],
        };
        let (version, upgrade) = match seed {
            0..12 => ("2", None),
            12..18 => ("3", None),
            _ => ("2", Some(random.random_range(0..15))),
        };
        let lake = TestLake::new().await;
        let properties = [
            ("format-version", version),
            ("write.delete.mode", mode),
            ("write.update.mode", mode),
            ("write.parquet.row-group-limit", "16"),
            ("commit.manifest.min-count-to-merge", "3"),
        ];
        let t = table(&lake, &properties, partitions).await;
        let (mut model, mut next) = (BTreeMap::<i64, Option<String>>::new(), 0_i64);
        let mut lineage = BTreeMap::new();
        for step in 0..25 {
            let (low, width) = (random.random_range(0..next.max(1)), random.random_range(1..60));
            let high = low + width;
            let mut changed = 0..0;
            if upgrade == Some(step) {
                version_3::upgrade(&lake).await;
            }
            match random.random_range(0..7) {
                3 => drop(compacted(&lake, &format!("id >= {low} AND id < {}", low + 200)).await),
                4 => {
                    let retention = VacuumRetention { age_ms: Some(0), snapshots: Some(random.random_range(1..4)) };
                    newest(&lake).await.vacuum(retention, false).await.unwrap();
                }
                5 => {
                    let field = PartitionField { column: "id".to_string(), transform: Transform::Bucket(5) };
                    let has = newest(&lake).await.info().partition_by.contains(&field);
                    newest(&lake).await.alter(&[partition(field, has)]).await.unwrap();
                }
                0 => {
                    append(t.as_ref(), vec![rows(next, next + 40)]).await.unwrap();
                    model.extend((next..next + 40).map(|i| (i, (i % 7 != 0).then(|| format!("name {i}")))));
                    next += 40;
                }
                1 => {
                    let odd = format!("id >= {low} AND id < {high} AND id % 3 <> 1");
                    let before = model.len();
                    model.retain(|id, _| !(low..high).contains(id) || id % 3 == 1);
                    let taken = usize::try_from(delete(&lake, &odd).await.taken).unwrap();
                    assert_eq!(taken, before - model.len(), "seed {seed}, step {step}");
                }
                _ => {
                    let sql = format!("{RENAMED} WHERE id >= {low} AND id < {high}");
                    run(&lake, ChangeKind::Update, &sql).await.unwrap();
                    for (_, name) in model.range_mut(low..high) {
                        *name = Some("new".to_string());
                    }
                    changed = low..high;
                }
            }
            assert_eq!(contents(&lake).await, model, "seed {seed}, step {step}");
            lineage = version_3::check(&lake, &lineage, changed, &format!("seed {seed}, step {step}")).await;
            let pruned =
                query(newest(&lake).await.as_ref(), &format!("SELECT id FROM t WHERE id >= {low} AND id < {high}"))
                    .await;
            assert_eq!(pruned.iter().map(RecordBatch::num_rows).sum::<usize>(), model.range(low..high).count());
        }
    }
}
