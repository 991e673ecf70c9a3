use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use datafusion::catalog::TableProvider;
use datafusion::execution::SendableRecordBatchStream;
use futures::StreamExt;
use iceberg::spec::{DataFile, Operation, Snapshot, TableMetadata, Transform as IcebergTransform};
use tidewater_catalogs::{
    AnchorState, Error, ErrorKind, LakeTable, PartitionField, Result, SnapshotInfo, StagedFiles, StagingWriter,
    TableInfo, Transform,
};
use uuid::Uuid;

use crate::commit::anchor::{self, COMMIT_UUID};
use crate::commit::{Base, Change, Staged, stage};
use crate::lake::{Lake, Swap};
use crate::scan;
use crate::schema::without_ids;
use crate::state::TableState;
use crate::writer::{FileWriter, from_staged};

/// How often an INSERT is tried again on a newer state. A flow may commit every second or two; losing this many
/// races in a row means that something else is wrong.
const APPEND_ATTEMPTS: u32 = 20;
/// How long a commit without an answer is looked for.
const LOOK_AGAIN: Duration = if cfg!(test) { Duration::from_millis(300) } else { Duration::from_secs(30) };

/// One loaded state of a table, for SQL.
pub(crate) struct IcebergTable {
    lake: Arc<Lake>,
    state: Arc<TableState>,
    info: TableInfo,
}

impl std::fmt::Debug for IcebergTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IcebergTable").field("state", &self.state).finish_non_exhaustive()
    }
}

impl IcebergTable {
    pub(crate) fn new(lake: Arc<Lake>, state: Arc<TableState>) -> Result<Self> {
        let info = table_info(&state)?;
        Ok(Self { lake, state, info })
    }

    async fn stage_rows(&self, commit: Uuid, mut input: SendableRecordBatchStream) -> Result<StagedFiles> {
        let mut writer: Box<dyn StagingWriter> =
            Box::new(FileWriter::new(self.state.storage.clone(), &self.state, commit)?);
        while let Some(batch) = input.next().await {
            writer.write(batch?).await?;
        }
        writer.finish().await
    }

    /// Appends the files on whatever the table has become, once. Each attempt swaps the state it was built on, so
    /// an attempt whose answer was lost either shows in a state loaded later, or fails for ever once the table has
    /// moved on. Until one of the two is seen, every other end is [`ErrorKind::CommitUnknown`].
    async fn commit(&self, commit: Uuid, files: &StagedFiles) -> Result<()> {
        let mut attempts = 0;
        // The state on which an attempt was built whose answer was lost.
        let mut open: Option<String> = None;
        loop {
            let state = match &open {
                None => self.lake.load(&self.state.name).await?,
                Some(_) => self.load_patiently().await.map_err(|e| self.unknown(commit, e))?,
            };
            if state.metadata.uuid() != self.state.metadata.uuid() {
                return Err(Error::not_found(format!("table \"{}\" was dropped", self.state.name)));
            }
            if attempts > 0 && committed(&state.metadata, commit) {
                return Ok(());
            }
            if open.as_ref().is_some_and(|base| *base != state.metadata_location) {
                open = None;
            }
            let settled = |e: Error| if open.is_some() { self.unknown(commit, e) } else { e };
            if attempts == APPEND_ATTEMPTS {
                return Err(settled(Error::new(
                    ErrorKind::Conflict,
                    format!("table \"{}\" is changed by others faster than rows can be added", self.state.name),
                )));
            }
            attempts += 1;
            let (base, staged) = self.stage_commit(state, commit, files).await.map_err(settled)?;
            match self.lake.swap(&base, staged).await {
                Swap::Done(_) => return Ok(()),
                Swap::Refused(e) => return Err(settled(e)),
                Swap::Moved => {}
                Swap::Unknown(e) => {
                    tracing::warn!(table = %self.state.name, error = %e, "answer to an append was lost");
                    open = Some(base.state.metadata_location.clone());
                }
            }
            // A short wait, growing, so that two inserts do not keep meeting.
            tokio::time::sleep(Duration::from_millis(u64::from(attempts.min(10)) * 5)).await;
        }
    }

    async fn stage_commit(&self, state: Arc<TableState>, commit: Uuid, files: &StagedFiles) -> Result<(Base, Staged)> {
        let add =
            files.files.iter().map(|f| from_staged(&state.metadata, f)).collect::<Result<Vec<(i32, DataFile)>>>()?;
        let change = Change {
            operation: Operation::Append,
            commit,
            add,
            summary: BTreeMap::from([(COMMIT_UUID.to_string(), commit.to_string())]),
            anchor: None,
        };
        let base = self.lake.base(state).await?;
        let staged = stage(&base, change, self.lake.now_ms()).await?;
        Ok((base, staged))
    }

    /// The current state, asked for until it comes or [`LOOK_AGAIN`] is over: giving up leaves the client without
    /// an answer.
    async fn load_patiently(&self) -> Result<Arc<TableState>> {
        let deadline = Instant::now() + LOOK_AGAIN;
        let mut wait = Duration::from_millis(20);
        loop {
            match self.lake.load(&self.state.name).await {
                Err(e) if e.kind() != ErrorKind::NotFound && Instant::now() + wait < deadline => {
                    tracing::warn!(table = %self.state.name, error = %e, "cannot look for an append yet");
                    tokio::time::sleep(wait).await;
                    wait = (wait * 2).min(Duration::from_secs(2));
                }
                other => return other,
            }
        }
    }

    /// The rows may be there or not. `NotFound` is no doubt: with the table its rows are gone.
    fn unknown(&self, commit: Uuid, e: Error) -> Error {
        if e.kind() == ErrorKind::NotFound {
            return e;
        }
        Error::new(ErrorKind::CommitUnknown, "the answer to a commit was lost: its rows may be in the table")
            .with_context("commit", commit)
            .with_hint(format!(
                "Before you add the rows again, look whether a snapshot of table \"{}\" has {COMMIT_UUID} {commit} in its summary.",
                self.state.name
            ))
            .with_source(e)
    }
}

/// Whether a snapshot of this commit is an ancestor of main.
fn committed(metadata: &TableMetadata, commit: Uuid) -> bool {
    let commit = commit.to_string();
    let mut next = metadata.current_snapshot_id();
    // Bound of the walk: a line cannot be longer than the number of snapshots.
    for _ in 0..metadata.snapshots().len() {
        let Some(snapshot) = next.and_then(|id| metadata.snapshot_by_id(id)) else { return false };
        if snapshot.summary().additional_properties.get(COMMIT_UUID) == Some(&commit) {
            return true;
        }
        next = snapshot.parent_snapshot_id();
    }
    false
}

#[async_trait]
impl LakeTable for IcebergTable {
    fn info(&self) -> &TableInfo {
        &self.info
    }

    fn anchor(&self, flow: &str) -> AnchorState {
        anchor::state(&self.state.metadata, flow)
    }

    fn provider(&self) -> Result<Arc<dyn TableProvider>> {
        scan::provider(Arc::clone(&self.state), None)
    }

    async fn append(&self, input: SendableRecordBatchStream) -> Result<u64> {
        let commit = Uuid::now_v7();
        let files = self.stage_rows(commit, input).await?;
        let rows = files.rows();
        if rows > 0 {
            self.commit(commit, &files).await.map_err(|e| e.with_context("table", &self.state.name))?;
        }
        Ok(rows)
    }
}

pub(crate) fn table_info(state: &TableState) -> Result<TableInfo> {
    let metadata = &state.metadata;
    Ok(TableInfo {
        name: state.name.clone(),
        uuid: metadata.uuid(),
        location: metadata.location().to_string(),
        metadata_location: state.metadata_location.clone(),
        schema: without_ids(&state.arrow_schema),
        partition_by: partition_fields(metadata),
        properties: metadata.properties().iter().map(|(k, v)| (k.clone(), v.clone())).collect(),
        current_snapshot: metadata.current_snapshot().map(|s| snapshot_info(s)),
    })
}

/// Fields that SQL has no word for (`void`, transforms of nested columns) are left out.
fn partition_fields(metadata: &TableMetadata) -> Vec<PartitionField> {
    let schema = metadata.current_schema();
    let known = metadata.default_partition_spec().fields().iter().filter_map(|field| {
        let transform = match field.transform {
            IcebergTransform::Identity => Transform::Identity,
            IcebergTransform::Bucket(n) => Transform::Bucket(n),
            IcebergTransform::Truncate(n) => Transform::Truncate(n),
            IcebergTransform::Year => Transform::Year,
            IcebergTransform::Month => Transform::Month,
            IcebergTransform::Day => Transform::Day,
            IcebergTransform::Hour => Transform::Hour,
            IcebergTransform::Void | IcebergTransform::Unknown => return None,
        };
        let column = schema.name_by_field_id(field.source_id)?.to_string();
        Some(PartitionField { column, transform })
    });
    known.collect()
}

fn snapshot_info(snapshot: &Snapshot) -> SnapshotInfo {
    let summary = snapshot.summary();
    SnapshotInfo {
        snapshot_id: snapshot.snapshot_id(),
        committed_at_ms: snapshot.timestamp_ms(),
        operation: summary.operation.as_str().to_string(),
        summary: summary.additional_properties.iter().map(|(k, v)| (k.clone(), v.clone())).collect(),
    }
}
