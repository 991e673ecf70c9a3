//! `cherrypick_snapshot`: what a snapshot appended, once more on top of the newest state (Iceberg's write-audit-publish).

use std::collections::BTreeMap;

use async_trait::async_trait;
use iceberg::spec::{DataContentType, DataFile, ManifestStatus, Operation, Snapshot, TableMetadata};
use tidewater_catalogs::{Error, ErrorKind, ReferenceChange, Result, TableVersion};
use uuid::Uuid;

use crate::attempts::{self, Commit};
use crate::commit::anchor::COMMIT_UUID;
use crate::commit::{Base, Change, Staged, listed, manifests_of, stage};
use crate::lake::Lake;
use crate::references;
use crate::state::TableState;
use crate::table::no_nulls;

const SOURCE: &str = "source-snapshot-id";
const STAGED_WAP: &str = "wap.id";
const PUBLISHED_WAP: &str = "published-wap-id";

/// Returns the current snapshot after it.
pub(crate) async fn cherrypick(lake: &Lake, table: &TableState, id: i64) -> Result<i64> {
    let now = lake.load(&table.name).await?;
    let picked = pickable(&now.metadata, id)?;
    if picked.parent_snapshot_id() == now.metadata.current_snapshot_id() {
        // Nobody was in between: it is what would be made.
        let forward = ReferenceChange::Advance(TableVersion::Snapshot(id));
        match references::change(lake, table, &forward).await {
            Ok(_) => return Ok(id),
            Err(e) if e.kind() == ErrorKind::Conflict && picked.summary().operation == Operation::Append => {}
            Err(e) => return Err(e),
        }
    } else if picked.summary().operation != Operation::Append {
        return Err(Error::unsupported(format!("snapshot {id} cannot be picked"))
            .with_detail("It is no append, and the current snapshot is not the one that it was made of.")
            .with_hint("Run its statement again."));
    }
    let pick = Pick { lake, commit: Uuid::now_v7(), id };
    attempts::commit(lake, table, pick.commit, &pick).await.map_err(|e| e.with_context("table", &table.name))?;
    let after = lake.load(&table.name).await?;
    let ours = pick.commit.to_string();
    let is_ours = |s: &&std::sync::Arc<Snapshot>| s.summary().additional_properties.get(COMMIT_UUID) == Some(&ours);
    after.metadata.snapshots().find(is_ours).map(|s| s.snapshot_id()).ok_or_else(|| {
        Error::new(ErrorKind::NotFound, "the snapshot was made, and removed since").with_context("source", id)
    })
}

/// The snapshot, where it has not been published in one way or another.
fn pickable(metadata: &TableMetadata, id: i64) -> Result<&Snapshot> {
    let picked = metadata.snapshot_by_id(id).ok_or_else(|| {
        Error::not_found(format!("snapshot {id} does not exist")).with_hint("\"…$snapshots\" lists them.")
    })?;
    let text = |snapshot: &Snapshot, key: &str| snapshot.summary().additional_properties.get(key).cloned();
    let wap = text(picked, STAGED_WAP).filter(|wap| !wap.is_empty());
    for ancestor in references::line(metadata, metadata.current_snapshot_id()) {
        let Some(snapshot) = metadata.snapshot_by_id(ancestor) else { continue };
        if ancestor == id || text(snapshot, SOURCE).is_some_and(|source| source == id.to_string()) {
            return Err(Error::invalid(format!("snapshot {id} is part of the table already"))
                .with_detail(format!("The current snapshot descends from snapshot {ancestor}.")));
        }
        if wap.is_some() && [STAGED_WAP, PUBLISHED_WAP].iter().any(|key| text(snapshot, key) == wap) {
            return Err(Error::invalid(format!("snapshot {id} was published already"))
                .with_detail(format!("Snapshot {ancestor} has the same {STAGED_WAP}.")));
        }
    }
    Ok(picked)
}

struct Pick<'a> {
    lake: &'a Lake,
    commit: Uuid,
    id: i64,
}

#[async_trait]
impl Commit for Pick<'_> {
    async fn stage(&self, base: &Base) -> Result<Staged> {
        let metadata = &base.state.metadata;
        let picked = pickable(metadata, self.id)?;
        let add = appended(&base.state, picked).await?;
        let there = listed(&base.state).await?;
        if let Some((_, file)) = add.iter().find(|(_, file)| there.contains(file.file_path())) {
            return Err(Error::invalid(format!("snapshot {} is part of the table already", self.id))
                .with_context("file", file.file_path()));
        }
        if picked.schema_id() != Some(metadata.current_schema_id()) {
            no_nulls(metadata, &add)?;
        }
        let mut summary = BTreeMap::from([
            (COMMIT_UUID.to_string(), self.commit.to_string()),
            (SOURCE.to_string(), self.id.to_string()),
        ]);
        if let Some(wap) = picked.summary().additional_properties.get(STAGED_WAP) {
            summary.insert(PUBLISHED_WAP.to_string(), wap.clone());
        }
        let change = Change { operation: Operation::Append, commit: self.commit, add, summary, ..Change::default() };
        stage(base, change, self.lake.now_ms()).await
    }
}

/// The files that a snapshot brought.
async fn appended(state: &TableState, snapshot: &Snapshot) -> Result<Vec<(i32, DataFile)>> {
    let id = snapshot.snapshot_id();
    let mut add = Vec::new();
    for manifest in manifests_of(state, Some(snapshot)).await?.iter().filter(|m| m.added_snapshot_id == id) {
        let entries = state.cache.manifest(&state.storage, &state.metadata, manifest).await?;
        for entry in entries.entries().iter().filter(|e| e.snapshot_id().unwrap_or(id) == id) {
            match (entry.status(), entry.content_type()) {
                (ManifestStatus::Added, DataContentType::Data) => {
                    add.push((manifest.partition_spec_id, entry.data_file().clone()));
                }
                (ManifestStatus::Existing, _) => {}
                _ => {
                    return Err(Error::unsupported(format!("snapshot {id} cannot be picked"))
                        .with_detail("It removes or deletes rows, though it says that it appends."));
                }
            }
        }
    }
    Ok(add)
}
