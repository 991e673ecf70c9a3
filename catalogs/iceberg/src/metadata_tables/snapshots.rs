use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use iceberg::spec::Snapshot;
use serde_json::{Map, Value};
use tidewater_catalogs::Result;

use super::columns::{LONG, TEXT, longs, schema as columns, texts, time, times};
use super::{Batches, Told, at_once};

pub(super) fn schema() -> SchemaRef {
    columns(vec![
        ("committed_at", time()),
        ("snapshot_id", LONG),
        ("parent_id", LONG),
        ("operation", TEXT),
        ("manifest_list", TEXT),
        ("summary", TEXT),
    ])
}

/// Oldest first.
pub(super) fn rows(told: &Told) -> Batches {
    let mut all: Vec<&Arc<Snapshot>> = told.state.metadata.snapshots().collect();
    all.sort_by_key(|s| (s.sequence_number(), s.timestamp_ms(), s.snapshot_id()));
    at_once(batch(&all))
}

fn batch(all: &[&Arc<Snapshot>]) -> Result<RecordBatch> {
    let columns = vec![
        times(all.iter().map(|s| Some(s.timestamp_ms()))),
        longs(all.iter().map(|s| Some(s.snapshot_id()))),
        longs(all.iter().map(|s| s.parent_snapshot_id())),
        texts(all.iter().map(|s| Some(s.summary().operation.as_str()))),
        texts(all.iter().map(|s| Some(s.manifest_list()))),
        texts(all.iter().map(|s| Some(summary(s)))),
    ];
    Ok(RecordBatch::try_new(schema(), columns)?)
}

fn summary(snapshot: &Snapshot) -> String {
    let all = &snapshot.summary().additional_properties;
    Value::Object(all.iter().map(|(k, v)| (k.clone(), Value::from(v.as_str()))).collect::<Map<_, _>>()).to_string()
}
