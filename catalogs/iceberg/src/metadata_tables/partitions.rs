use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use futures::stream;
use iceberg::spec::{DataContentType, DataFile, SnapshotRef};
use tidewater_catalogs::Result;

use super::columns::{INT, LONG, TEXT, counts, ints, longs, schema as columns, texts, time, times};
use super::files::{Partitions, manifests};
use super::{Batches, Told};
use crate::state::TableState;

pub(super) fn schema() -> SchemaRef {
    columns(vec![
        ("partition", TEXT),
        ("spec_id", INT),
        ("record_count", LONG),
        ("file_count", LONG),
        ("total_data_file_size_in_bytes", LONG),
        ("position_delete_record_count", LONG),
        ("position_delete_file_count", LONG),
        ("equality_delete_record_count", LONG),
        ("equality_delete_file_count", LONG),
        ("last_updated_at", time()),
        ("last_updated_snapshot_id", LONG),
    ])
}

pub(super) fn rows(told: &Told) -> Batches {
    let Some(snapshot) = told.snapshot.clone() else { return Box::pin(stream::empty()) };
    let state = Arc::clone(&told.state);
    Box::pin(stream::once(async move { batch(&state, &snapshot).await }))
}

#[derive(Debug, Default)]
struct Files {
    rows: u64,
    count: u64,
    bytes: u64,
}

impl Files {
    fn add(&mut self, file: &DataFile) {
        self.rows += file.record_count();
        self.count += 1;
        self.bytes += file.file_size_in_bytes();
    }
}

#[derive(Debug, Default)]
struct Sum {
    data: Files,
    position_deletes: Files,
    equality_deletes: Files,
    /// When the newest of its files came, and with which snapshot. None where that snapshot has expired.
    updated: Option<(i64, i64)>,
}

/// Of each partition, by its spec and its values as text.
async fn batch(state: &TableState, snapshot: &SnapshotRef) -> Result<RecordBatch> {
    let mut sums: BTreeMap<(i32, String), Sum> = BTreeMap::new();
    for manifest_file in manifests(state, snapshot).await? {
        let manifest = state.cache.manifest(&state.storage, &state.metadata, &manifest_file).await?;
        let partitions = Partitions::of(state, &manifest_file, &manifest);
        for entry in manifest.entries().iter().filter(|e| e.is_alive()) {
            let file = entry.data_file();
            let sum = sums.entry((manifest_file.partition_spec_id, partitions.text(file))).or_default();
            match file.content_type() {
                DataContentType::Data => sum.data.add(file),
                DataContentType::PositionDeletes => sum.position_deletes.add(file),
                DataContentType::EqualityDeletes => sum.equality_deletes.add(file),
            }
            let came = entry.snapshot_id().and_then(|id| state.metadata.snapshot_by_id(id));
            sum.updated = sum.updated.max(came.map(|s| (s.timestamp_ms(), s.snapshot_id())));
        }
    }
    let columns = vec![
        texts(sums.keys().map(|(_, partition)| Some(partition))),
        ints(sums.keys().map(|(spec, _)| Some(*spec))),
        counts(sums.values().map(|s| s.data.rows)),
        counts(sums.values().map(|s| s.data.count)),
        counts(sums.values().map(|s| s.data.bytes)),
        counts(sums.values().map(|s| s.position_deletes.rows)),
        counts(sums.values().map(|s| s.position_deletes.count)),
        counts(sums.values().map(|s| s.equality_deletes.rows)),
        counts(sums.values().map(|s| s.equality_deletes.count)),
        times(sums.values().map(|s| s.updated.map(|(at, _)| at))),
        longs(sums.values().map(|s| s.updated.map(|(_, id)| id))),
    ];
    Ok(RecordBatch::try_new(schema(), columns)?)
}
