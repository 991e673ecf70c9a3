use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::catalog::TableProvider;
use datafusion::execution::SendableRecordBatchStream;
use futures::StreamExt;
use iceberg::spec::{DataFile, Operation, Snapshot, TableMetadata, Transform as IcebergTransform};
use tidewater_catalogs::{
    Error, ErrorKind, LakeTable, PartitionField, Result, SnapshotInfo, StagedFiles, StagingWriter, TableInfo, Transform,
};
use uuid::Uuid;

use crate::commit::anchor::COMMIT_UUID;
use crate::commit::{Base, Change, stage};
use crate::scan;
use crate::schema::without_ids;
use crate::sql_catalog::{Lake, Swap};
use crate::state::TableState;
use crate::writer::{FileWriter, from_staged};

/// How often an INSERT is tried again on a newer state. A flow may commit every second or two; losing this many
/// races in a row means that something else is wrong.
const APPEND_ATTEMPTS: u32 = 20;

/// One loaded state of a table, for SQL.
pub(crate) struct SqlTable {
    lake: Arc<Lake>,
    state: Arc<TableState>,
    info: TableInfo,
}

impl std::fmt::Debug for SqlTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SqlTable").field("state", &self.state).finish_non_exhaustive()
    }
}

impl SqlTable {
    pub(crate) fn new(lake: Arc<Lake>, state: Arc<TableState>) -> Result<Self> {
        let info = table_info(&state)?;
        Ok(Self { lake, state, info })
    }

    async fn stage_rows(&self, commit: Uuid, mut input: SendableRecordBatchStream) -> Result<StagedFiles> {
        let mut writer: Box<dyn StagingWriter> =
            Box::new(FileWriter::new(self.lake.storage().clone(), &self.state, commit)?);
        while let Some(batch) = input.next().await {
            writer.write(batch?).await?;
        }
        writer.finish().await
    }

    /// Appends the files on whatever the table has become, once. Each attempt swaps the state it was built on, so
    /// an attempt whose answer was lost either shows in the state loaded next, or fails for ever.
    async fn commit(&self, commit: Uuid, files: &StagedFiles) -> Result<()> {
        let mut attempts = 0;
        loop {
            let state = self.lake.load(&self.state.name).await?;
            if state.metadata.uuid() != self.state.metadata.uuid() {
                return Err(Error::not_found(format!("table \"{}\" was dropped", self.state.name)));
            }
            if attempts > 0 && committed(&state.metadata, commit) {
                return Ok(());
            }
            if attempts == APPEND_ATTEMPTS {
                return Err(Error::new(
                    ErrorKind::Conflict,
                    format!("table \"{}\" is changed by others faster than rows can be added", self.state.name),
                ));
            }
            attempts += 1;
            let add = files
                .files
                .iter()
                .map(|f| from_staged(&state.metadata, f))
                .collect::<Result<Vec<(i32, DataFile)>>>()?;
            let change = Change {
                operation: Operation::Append,
                commit,
                add,
                summary: BTreeMap::from([(COMMIT_UUID.to_string(), commit.to_string())]),
                anchor: None,
            };
            let base = Base { state, manifests: None };
            let staged = stage(&base, change, self.lake.now_ms()).await?;
            match self.lake.swap(&base, staged).await {
                Swap::Done(_) => return Ok(()),
                Swap::NotAsked(e) => return Err(e),
                Swap::Moved => {}
                Swap::Unknown(e) => {
                    tracing::warn!(table = %self.state.name, error = %e, "answer to an append was lost")
                }
            }
            // A short wait, growing, so that two inserts do not keep meeting.
            tokio::time::sleep(std::time::Duration::from_millis(u64::from(attempts.min(10)) * 5)).await;
        }
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
impl LakeTable for SqlTable {
    fn info(&self) -> &TableInfo {
        &self.info
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

fn table_info(state: &TableState) -> Result<TableInfo> {
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
