use std::collections::HashSet;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use iceberg::spec::TableMetadata;
use tidewater_catalogs::Result;

use super::columns::{FLAG, LONG, flags, longs, schema as columns, time, times};
use super::{Batches, Told, at_once};

pub(super) fn schema() -> SchemaRef {
    columns(vec![
        ("made_current_at", time()),
        ("snapshot_id", LONG),
        ("parent_id", LONG),
        ("is_current_ancestor", FLAG),
    ])
}

pub(super) fn rows(told: &Told) -> Batches {
    at_once(batch(&told.state.metadata))
}

fn batch(metadata: &TableMetadata) -> Result<RecordBatch> {
    let (log, line) = (metadata.history(), current_line(metadata));
    let columns = vec![
        times(log.iter().map(|entry| Some(entry.timestamp_ms))),
        longs(log.iter().map(|entry| Some(entry.snapshot_id))),
        longs(log.iter().map(|entry| metadata.snapshot_by_id(entry.snapshot_id)?.parent_snapshot_id())),
        flags(log.iter().map(|entry| Some(line.contains(&entry.snapshot_id)))),
    ];
    Ok(RecordBatch::try_new(schema(), columns)?)
}

/// The current snapshot and those that it descends from.
fn current_line(metadata: &TableMetadata) -> HashSet<i64> {
    let mut line = HashSet::new();
    let mut next = metadata.current_snapshot_id();
    while let Some(id) = next.filter(|id| line.insert(*id)) {
        next = metadata.snapshot_by_id(id).and_then(|snapshot| snapshot.parent_snapshot_id());
    }
    line
}
