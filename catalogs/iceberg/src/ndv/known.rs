use std::collections::HashMap;

use iceberg::spec::{Snapshot, TableMetadata};

use super::{BLOB_TYPE, NDV};

/// Snapshots that are looked at, from the newest on.
const LOOKED_AT: usize = 1000;

/// By field id. Rows may have come since they were counted.
pub(crate) fn distinct_values(metadata: &TableMetadata, snapshot: &Snapshot) -> HashMap<i32, u64> {
    if metadata.statistics_iter().len() == 0 {
        return HashMap::new();
    }
    let mut next = metadata.snapshot_by_id(snapshot.snapshot_id());
    for _ in 0..LOOKED_AT {
        let Some(snapshot) = next else { break };
        if let Some(statistics) = metadata.statistics_for_snapshot(snapshot.snapshot_id()) {
            let blobs = statistics.blob_metadata.iter().filter(|blob| blob.r#type == BLOB_TYPE);
            let counts = blobs.filter_map(|blob| match blob.fields.as_slice() {
                [field] => Some((*field, blob.properties.get(NDV)?.parse().ok()?)),
                _ => None,
            });
            return counts.collect();
        }
        next = snapshot.parent_snapshot_id().and_then(|id| metadata.snapshot_by_id(id));
    }
    HashMap::new()
}
