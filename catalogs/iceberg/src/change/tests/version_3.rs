//! Format version 3: deletion vectors and row lineage.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, AsArray};
use arrow::datatypes::Int64Type;
use iceberg::spec::{DataContentType, DataFile, DataFileFormat, FormatVersion};
use tidewater_catalogs::{Alteration, ChangeKind, ErrorKind, LakeCatalog, TableName, VacuumRetention};

use super::{RENAMED, TestLake, append, compacted, contents, delete, new_table, newest, rows, run, summary, table};
use crate::lineage::{self, Settled};
use crate::scan::{self, Places};
use crate::state::TableState;

/// Row id and the sequence number of the last change, by the id of the row in the table.
pub(crate) type Lineage = BTreeMap<i64, (i64, i64)>;

const V3: (&str, &str) = ("format-version", "3");

pub(super) async fn upgrade(lake: &TestLake) {
    let version = BTreeMap::from([("format-version".to_owned(), "3".to_owned())]);
    newest(lake).await.alter(&[Alteration::SetProperties(version)]).await.unwrap();
}

async fn state(lake: &TestLake) -> Arc<TableState> {
    lake.lake.table_state(&TableName::public("t")).await.unwrap()
}

/// Living files with the ids of their first rows.
async fn files(state: &TableState) -> Vec<(DataFile, Option<i64>)> {
    let mut all = Vec::new();
    for manifest in crate::commit::current_manifests(state).await.unwrap() {
        let read = crate::commit::load_manifest(state, &manifest).await.unwrap();
        let ids = crate::commit::first_row_ids(&manifest, read.entries());
        let alive = read.entries().iter().zip(ids).filter(|(entry, _)| entry.is_alive());
        all.extend(alive.map(|(entry, id)| (entry.data_file().clone(), id)));
    }
    all
}

/// Of rows that have ids.
async fn lineage_of(state: &Arc<TableState>) -> Lineage {
    let mut all = Lineage::new();
    let data = files(state).await.into_iter().filter(|(file, _)| file.content_type() == DataContentType::Data);
    let only: HashMap<String, Arc<[u64]>> =
        data.map(|(file, _)| (file.file_path().to_owned(), Arc::from([]))).collect();
    if only.is_empty() {
        return all;
    }
    let places = Arc::<Places>::default();
    let provider = scan::remains(Arc::clone(state), only, Some(Arc::clone(&places))).unwrap();
    let context = datafusion::prelude::SessionContext::new();
    for batch in context.read_table(provider).unwrap().collect().await.unwrap() {
        let batch = lineage::inherited(&batch, &places, Settled::ALL).unwrap();
        let column = |n: usize| batch.column(n).as_primitive::<Int64Type>();
        let (ids, row_ids, updated) = (column(0), column(batch.num_columns() - 2), column(batch.num_columns() - 1));
        for row in (0..batch.num_rows()).filter(|row| row_ids.is_valid(*row)) {
            assert_eq!(all.insert(ids.value(row), (row_ids.value(row), updated.value(row))), None);
        }
    }
    all
}

/// Rows are who they were, and those that were not changed say so; no two are the same, and what comes next is none of
/// them. Nothing of tables of another version.
pub(crate) async fn check(lake: &TestLake, before: &Lineage, changed: Range<i64>, at: &str) -> Lineage {
    let state = state(lake).await;
    if state.metadata.format_version() < FormatVersion::V3 {
        return Lineage::new();
    }
    let now = lineage_of(&state).await;
    let next = i64::try_from(state.metadata.next_row_id()).unwrap();
    let distinct: BTreeSet<i64> = now.values().map(|(row_id, _)| *row_id).collect();
    assert_eq!(distinct.len(), now.len(), "{at}");
    assert!(distinct.last().is_none_or(|last| *last < next), "{at}");
    for (id, lineage) in before {
        let same = |found: &(i64, i64)| found.0 == lineage.0 && (found.1 == lineage.1) != changed.contains(id);
        assert!(now.get(id).is_none_or(same), "{at}: row {id} was {lineage:?}, is {:?}", now[id]);
    }
    // One vector for each file, and no file of positions that is newer than the version.
    let mut with_vector = BTreeSet::new();
    for (file, first) in files(&state).await {
        match file.content_type() {
            DataContentType::Data => assert!(first.is_some() || now.is_empty(), "{at}"),
            _ => {
                assert_eq!(first, None, "{at}");
                if file.file_format() == DataFileFormat::Puffin {
                    assert!(with_vector.insert(file.referenced_data_file().unwrap()), "{at}");
                }
            }
        }
    }
    now
}

#[tokio::test]
async fn rows_get_ids_and_keep_them() {
    for mode in ["merge-on-read", "copy-on-write"] {
        let lake = TestLake::new().await;
        let t = table(&lake, &[V3, ("write.delete.mode", mode), ("write.update.mode", mode)], vec![]).await;
        append(t.as_ref(), vec![rows(0, 10)]).await.unwrap();
        append(t.as_ref(), vec![rows(10, 30)]).await.unwrap();
        let metadata = Arc::clone(&state(&lake).await.metadata);
        let snapshot = metadata.current_snapshot().unwrap();
        assert_eq!((metadata.next_row_id(), snapshot.row_range()), (30, Some((10, 20))));
        let first = lineage_of(&state(&lake).await).await;
        let expected: Lineage = (0..30).map(|id| (id, (id, if id < 10 { 1 } else { 2 }))).collect();
        assert_eq!(first, expected);

        delete(&lake, "id = 3").await;
        run(&lake, ChangeKind::Update, &format!("{RENAMED} WHERE id = 4")).await.unwrap();
        compacted(&lake, "true").await;
        delete(&lake, "id = 15").await;
        let last = lineage_of(&state(&lake).await).await;
        for (id, lineage) in first.iter().filter(|(id, _)| ![3, 4, 15].contains(*id)) {
            assert_eq!(last[id], *lineage, "{mode}");
        }
        assert_eq!(last.len(), 28);
        // The fourth commit changed it.
        assert_eq!(last[&4], (4, 4), "{mode}");
    }
}

#[tokio::test]
async fn vectors_of_a_commit_lie_in_one_file_and_go_one_by_one() {
    let lake = TestLake::new().await;
    let t = table(&lake, &[V3, ("write.delete.mode", "merge-on-read")], vec![]).await;
    for i in 0..3 {
        append(t.as_ref(), vec![rows(i * 100, i * 100 + 100)]).await.unwrap();
    }
    delete(&lake, "id % 10 = 5").await;
    let vectors = async || {
        let all = files(&*state(&lake).await).await.into_iter().map(|(file, _)| file);
        all.filter(|file| file.content_type() != DataContentType::Data).collect::<Vec<_>>()
    };
    let first = vectors().await;
    assert_eq!(first.len(), 3);
    assert!(first.iter().all(|v| v.file_path() == first[0].file_path() && v.record_count() == 10));
    let (_, counts) = summary(&lake).await;
    assert_eq!((counts["added-dvs"].as_str(), counts["total-delete-files"].as_str()), ("3", "3"));
    assert!(!counts.contains_key("added-position-delete-files"));

    // One is replaced by a larger one; the file stays for the others.
    delete(&lake, "id = 7").await;
    let second = vectors().await;
    assert_eq!(second.iter().map(DataFile::record_count).sum::<u64>(), 31);
    assert_eq!(second.iter().filter(|v| v.file_path() == first[0].file_path()).count(), 2);
    let (_, counts) = summary(&lake).await;
    assert_eq!((counts["removed-dvs"].as_str(), counts["total-position-deletes"].as_str()), ("1", "31"));
    let retention = VacuumRetention { age_ms: Some(0), snapshots: Some(1) };
    let puffins = async || {
        let state = state(&lake).await;
        let listed = state.storage.list(state.metadata.location()).await.unwrap();
        listed.into_iter().filter(|f| f.ends_with(".puffin")).count()
    };
    newest(&lake).await.vacuum(retention, false).await.unwrap();
    assert_eq!((puffins().await, contents(&lake).await.len()), (2, 269));
    compacted(&lake, "true").await;
    newest(&lake).await.vacuum(retention, false).await.unwrap();
    assert_eq!((puffins().await, vectors().await.len(), contents(&lake).await.len()), (0, 0, 269));
}

#[tokio::test]
async fn a_vector_holds_what_position_deletes_held_before_the_upgrade() {
    let lake = TestLake::new().await;
    let t = table(&lake, &[("write.delete.mode", "merge-on-read")], vec![]).await;
    append(t.as_ref(), vec![rows(0, 100)]).await.unwrap();
    delete(&lake, "id < 5").await;
    upgrade(&lake).await;
    assert_eq!((contents(&lake).await.len(), lineage_of(&state(&lake).await).await.len()), (95, 0));
    delete(&lake, "id = 50").await;
    let deletes: Vec<DataFile> = files(&*state(&lake).await).await.into_iter().map(|(file, _)| file).collect();
    let deletes: Vec<&DataFile> = deletes.iter().filter(|f| f.content_type() != DataContentType::Data).collect();
    assert_eq!(deletes.len(), 1);
    assert_eq!((deletes[0].file_format(), deletes[0].record_count()), (DataFileFormat::Puffin, 6));
    assert_eq!((contents(&lake).await.len(), lineage_of(&state(&lake).await).await.len()), (94, 94));
    assert_eq!(state(&lake).await.metadata.next_row_id(), 100);
}

#[tokio::test]
async fn a_table_never_goes_back() {
    let lake = TestLake::new().await;
    let t = table(&lake, &[V3], vec![]).await;
    let set = |version: &str| {
        [Alteration::SetProperties(BTreeMap::from([("format-version".to_owned(), version.to_owned())]))]
    };
    t.alter(&set("3")).await.unwrap();
    assert_eq!(t.alter(&set("2")).await.unwrap_err().kind(), ErrorKind::InvalidInput);
    assert_eq!(t.alter(&set("4")).await.unwrap_err().kind(), ErrorKind::Unsupported);
    assert!(!newest(&lake).await.info().properties.contains_key("format-version"));
    let old = new_table("old", vec![]);
    let properties = BTreeMap::from([("format-version".to_owned(), "1".to_owned())]);
    let refused = lake.lake.create_table(tidewater_catalogs::NewTable { properties, ..old }).await;
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Unsupported);
}
