//! How a table changes: stage the next state, write its files, and swap the catalog's pointer, once.
//!
//! A flow's commit moves two anchors with its snapshot (see [`anchor`]); that, and the compare-and-swap on the very
//! metadata that was checked, is what lets at most one writer be the successor of a commit.

pub(crate) mod anchor;
mod expire;
mod forget;
pub(crate) mod header;
mod listed;
mod manifests;
mod metadata_json;
mod references;
mod regroup;
mod reshape;
mod row_ids;
mod stage;
mod summary;
#[cfg(test)]
mod tests;
mod tiers;

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use iceberg::spec::Operation;
use parking_lot::{Mutex, RwLock};
use tidewater_catalogs::{
    AnchorState, CommitReply, CommitRequest, CommitTable, CommitUuid, Compacted, Error, ErrorKind, Result,
    StagingWriter, TableHead, VacuumRetention, Vacuumed,
};

use crate::in_flight::Entered;
use crate::lake::{Lake, Swap};
use crate::schema::without_ids;
use crate::state::TableState;
use crate::storage::Storage;
use crate::writer::FileWriter;
use crate::{compact, properties as p, vacuum};
pub(crate) use expire::{Expiry, expirable, expire, manifest_paths, print};
pub(crate) use listed::Listed;
pub(crate) use manifests::current as current_manifests;
pub(crate) use manifests::listed;
pub(crate) use manifests::load as load_manifest;
pub(crate) use manifests::of as manifests_of;
pub(crate) use manifests::parse as parse_manifest;
pub(crate) use metadata_json::{MetadataJson, unpacked};
pub(crate) use references::references;
pub(crate) use regroup::{MANIFESTS_CREATED, MANIFESTS_REPLACED};
pub(crate) use reshape::reshape;
pub(crate) use row_ids::{first_row_ids, with_first_row_id};
pub(crate) use stage::{Base, Change, Removal, Staged, metadata_file, stage};

/// A table that flows commit to, bound to one uuid.
pub(crate) struct LakeCommitTable {
    lake: Arc<Lake>,
    /// As it was when the handle was made: files are written with this schema and this partition spec, which later
    /// states keep, and the columns of [`CommitTable::schema`] never change under a writer.
    bound: Arc<TableState>,
    schema: SchemaRef,
    /// With the newest credentials.
    storage: RwLock<Storage>,
    /// Commits that files were written for and that have not been made, as far as this handle knows.
    writing: Mutex<HashMap<CommitUuid, Entered>>,
}

impl std::fmt::Debug for LakeCommitTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LakeCommitTable").field("table", &self.bound.name).finish_non_exhaustive()
    }
}

impl LakeCommitTable {
    pub(crate) fn new(lake: Arc<Lake>, bound: Arc<TableState>) -> Self {
        let schema = without_ids(&bound.arrow_schema);
        let storage = RwLock::new(bound.storage.clone());
        Self { lake, bound, schema, storage, writing: Mutex::default() }
    }

    async fn newest(&self) -> Result<Arc<TableState>> {
        let state = self.lake.load(&self.bound.name).await?;
        if state.metadata.uuid() != self.bound.metadata.uuid() {
            return Err(Error::not_found(format!("table \"{}\" was dropped", self.bound.name))
                .with_detail("Another table has its name now."));
        }
        *self.storage.write() = state.storage.clone();
        Ok(state)
    }
}

#[async_trait]
impl CommitTable for LakeCommitTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    async fn load_head(&self, flow: &str) -> Result<TableHead> {
        let state = self.newest().await?;
        Ok(head(self.lake.base(state).await?, flow))
    }

    fn writer(&self, commit: CommitUuid) -> Result<Box<dyn StagingWriter>> {
        let writer = FileWriter::new(self.storage.read().clone(), &self.bound, commit)?;
        self.writing.lock().entry(commit).or_insert_with(|| self.lake.in_flight.enter(commit));
        Ok(Box::new(writer))
    }

    async fn try_commit(&self, head: &TableHead, request: &CommitRequest) -> CommitReply {
        let Ok(base) = Arc::clone(&head.base).downcast::<Base>() else {
            return CommitReply::Refused(Error::internal("the head is not one of this table"));
        };
        let staged = match self.check_and_stage(&base, request).await {
            Ok(staged) => staged,
            // Nothing was asked of the catalog, so nothing can have happened.
            Err(e) => return CommitReply::Refused(e.with_context("table", &self.bound.name)),
        };
        match self.lake.swap(&base, staged).await {
            Swap::Done(next) => {
                // Dead letters are committed later than the files of their trigger, whose name they have.
                let of = |uuid: &CommitUuid, path: &str| path.contains(&uuid.to_string());
                self.writing.lock().retain(|uuid, _| {
                    *uuid != request.commit_uuid && !request.files.files.iter().any(|file| of(uuid, &file.path))
                });
                CommitReply::Committed(self::head(next, &request.flow))
            }
            Swap::Moved => CommitReply::Refused(moved(&self.bound)),
            Swap::Refused(e) => CommitReply::Refused(e.with_context("table", &self.bound.name)),
            Swap::Unknown(e) => CommitReply::Unknown(
                Error::new(ErrorKind::CommitUnknown, "the answer to a commit was lost")
                    .with_context("table", &self.bound.name)
                    .with_source(e),
            ),
        }
    }

    async fn forget(&self, flow: &str) -> Result<()> {
        forget::forget(self, flow).await
    }

    async fn compact(&self) -> Result<Compacted> {
        compact::automatic(&self.lake, self.newest().await?).await
    }

    async fn vacuum(&self) -> Result<Vacuumed> {
        let state = self.newest().await?;
        if !p::get(state.metadata.properties(), p::GC)? {
            return Ok(Vacuumed::default());
        }
        vacuum::vacuum(&self.lake, state, VacuumRetention::default(), false).await
    }

    async fn maintain(&self) -> Result<()> {
        expire(&self.lake, self.newest().await?, Expiry::default(), self.lake.now_ms()).await.map(|_| ())
    }
}

impl LakeCommitTable {
    async fn check_and_stage(&self, base: &Base, request: &CommitRequest) -> Result<Staged> {
        let metadata = &base.state.metadata;
        if metadata.uuid() != self.bound.metadata.uuid() {
            return Err(Error::not_found("the head is one of another table"));
        }
        // Read from the metadata that the swap compares, whatever the head says.
        let fits = match (anchor::state(metadata, &request.flow), &request.expected) {
            (AnchorState::Absent, None) => true,
            (AnchorState::Valid(found), Some(expected)) => found == *expected,
            (AnchorState::Broken(why), _) => {
                return Err(Error::new(
                    ErrorKind::Conflict,
                    format!("the anchor of flow \"{}\" is broken", request.flow),
                )
                .with_detail(why));
            }
            _ => false,
        };
        if !fits {
            return Err(Error::new(
                ErrorKind::Conflict,
                format!("the anchor of flow \"{}\" is not the expected one", request.flow),
            ));
        }
        let change = Change {
            operation: Operation::Append,
            commit: request.commit_uuid,
            add: stage::data_files(metadata, request)?,
            summary: anchor::summary(request),
            anchor: Some(request.clone()),
            ..Change::default()
        };
        stage(base, change, self.lake.now_ms()).await.map_err(|e| match e.kind() {
            // The table has moved on, and somebody removed files of the state that was looked at.
            ErrorKind::NotFound => {
                Error::new(ErrorKind::Conflict, "files of the table's state were removed").with_source(e)
            }
            _ => e,
        })
    }
}

fn head(base: Base, flow: &str) -> TableHead {
    let metadata = &base.state.metadata;
    TableHead {
        table_uuid: metadata.uuid(),
        main_snapshot_id: metadata.current_snapshot_id(),
        anchor: anchor::state(metadata, flow),
        base: Arc::new(base),
    }
}

fn moved(state: &TableState) -> Error {
    Error::new(ErrorKind::Conflict, format!("table \"{}\" was changed by someone else", state.name))
}
