use std::sync::Arc;

use iceberg::TableRequirement;
use iceberg::spec::TableMetadataBuilder;
use tidewater_catalogs::{Error, ErrorKind, Result};

use super::LakeCommitTable;
use super::anchor::{descent_property, head_property, tag};
use super::stage::{Next, Staged, expired};
use crate::error;
use crate::lake::Swap;

/// Others may commit at the same time; each of these attempts lost to one who did.
const ATTEMPTS: usize = 20;

/// Removes the anchor of a flow that is gone: its tag keeps a snapshot from expiring. Rows and snapshots stay. Nothing
/// to do where there is none; a lost answer is looked for like any other.
pub(super) async fn forget(table: &LakeCommitTable, flow: &str) -> Result<()> {
    let (tag, properties) = (tag(flow), [head_property(flow), descent_property(flow)]);
    let mut last = None;
    for _ in 0..ATTEMPTS {
        let state = table.newest().await?;
        let metadata = &state.metadata;
        let tagged = metadata.snapshot_for_ref(&tag).is_some();
        if !tagged && !properties.iter().any(|p| metadata.properties().contains_key(p)) {
            return Ok(());
        }
        let mut requirements = vec![TableRequirement::UuidMatch { uuid: metadata.uuid() }];
        requirements.extend(metadata.snapshot_for_ref(&tag).map(|snapshot| TableRequirement::RefSnapshotIdMatch {
            r#ref: tag.clone(),
            snapshot_id: Some(snapshot.snapshot_id()),
        }));
        let alter = |builder: TableMetadataBuilder| {
            let builder = builder.remove_ref(&tag).remove_properties(&properties);
            builder.map_err(|e| error::iceberg("remove an anchor", e))
        };
        let built = alter(metadata.as_ref().clone().into_builder(Some(state.metadata_location.clone())))?
            .build()
            .map_err(|e| error::iceberg("remove an anchor", e))?;
        let logs = expired(&built.metadata, built.expired_metadata_logs)?;
        let base = table.lake.base(Arc::clone(&state)).await?;
        let Next { location, file, json } = base.next(&built.metadata, alter)?;
        let staged = Staged {
            files: file.into_iter().collect(),
            metadata: built.metadata,
            location,
            manifests: Default::default(),
            json,
            expired: logs,
            updates: built.changes,
            requirements,
        };
        match table.lake.swap(&base, staged).await {
            Swap::Done(_) => return Ok(()),
            Swap::Moved => {}
            Swap::Unknown(e) => last = Some(e),
            Swap::Refused(e) => return Err(e),
        }
    }
    Err(last
        .unwrap_or_else(|| Error::new(ErrorKind::Conflict, "the table changes faster than its anchor can be removed")))
}
