use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use iceberg::spec::{SnapshotReference, SnapshotRetention};
use tidewater_catalogs::Result;

use super::columns::{INT, LONG, TEXT, ints, longs, schema as columns, texts};
use super::{Batches, Told, at_once};

pub(super) fn schema() -> SchemaRef {
    columns(vec![
        ("name", TEXT),
        ("type", TEXT),
        ("snapshot_id", LONG),
        ("max_reference_age_in_ms", LONG),
        ("min_snapshots_to_keep", INT),
        ("max_snapshot_age_in_ms", LONG),
    ])
}

/// By name.
pub(super) fn rows(told: &Told) -> Batches {
    let mut all: Vec<(&String, &SnapshotReference)> = told.references.iter().collect();
    all.sort_by_key(|(name, _)| *name);
    at_once(batch(&all))
}

fn batch(all: &[(&String, &SnapshotReference)]) -> Result<RecordBatch> {
    let ref_age = |reference: &SnapshotReference| match reference.retention {
        SnapshotRetention::Branch { max_ref_age_ms, .. } | SnapshotRetention::Tag { max_ref_age_ms } => max_ref_age_ms,
    };
    let of_branch = |reference: &SnapshotReference| match reference.retention {
        SnapshotRetention::Branch { min_snapshots_to_keep, max_snapshot_age_ms, .. } => {
            (min_snapshots_to_keep, max_snapshot_age_ms)
        }
        SnapshotRetention::Tag { .. } => (None, None),
    };
    let columns = vec![
        texts(all.iter().map(|(name, _)| Some(name))),
        texts(all.iter().map(|(_, r)| Some(if r.is_branch() { "BRANCH" } else { "TAG" }))),
        longs(all.iter().map(|(_, r)| Some(r.snapshot_id))),
        longs(all.iter().map(|(_, r)| ref_age(r))),
        ints(all.iter().map(|(_, r)| of_branch(r).0)),
        longs(all.iter().map(|(_, r)| of_branch(r).1)),
    ];
    Ok(RecordBatch::try_new(schema(), columns)?)
}
