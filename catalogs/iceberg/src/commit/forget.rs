use iceberg::TableRequirement;
use iceberg::spec::{TableMetadata, TableMetadataBuilder};
use tidewater_catalogs::Result;

use super::anchor::{descent_property, head_property, tag};
use super::{LakeCommitTable, reshape};
use crate::error;

/// Removes the anchor of a flow that is gone: its tag keeps a snapshot from expiring. Rows and snapshots stay. Nothing
/// to do where there is none; a lost answer is looked for like any other.
pub(super) async fn forget(table: &LakeCommitTable, flow: &str) -> Result<()> {
    let (tag, properties) = (&tag(flow), &[head_property(flow), descent_property(flow)]);
    reshape(&table.lake, &table.bound.name, table.bound.metadata.uuid(), |metadata: &TableMetadata| {
        let tagged = metadata.snapshot_for_ref(tag).map(|snapshot| snapshot.snapshot_id());
        if tagged.is_none() && !properties.iter().any(|p| metadata.properties().contains_key(p)) {
            return Ok(None);
        }
        let reference = |id| TableRequirement::RefSnapshotIdMatch { r#ref: tag.clone(), snapshot_id: Some(id) };
        let requirements = tagged.map(reference).into_iter().collect();
        Ok(Some((requirements, move |builder: TableMetadataBuilder| {
            let builder = builder.remove_ref(tag).remove_properties(properties);
            builder.map_err(|e| error::iceberg("remove an anchor", e))
        })))
    })
    .await
}
