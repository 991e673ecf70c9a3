use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::catalog::TableProvider;
use datafusion::execution::SendableRecordBatchStream;
use futures::StreamExt;
use iceberg::spec::{
    MAIN_BRANCH, Operation, Snapshot, SnapshotReference, TableMetadata, Transform as IcebergTransform,
};
use tidewater_catalogs::{
    AnchorState, ChangeKind, LakeTable, MetadataTable, Moved, PartitionField, ReferenceChange, Result, SnapshotInfo,
    StagedFiles, StagingWriter, TableChange, TableInfo, TableVersion, Transform,
};
use uuid::Uuid;

use crate::attempts::{self, Commit};
use crate::change::RowChange;
use crate::commit::anchor::{self, COMMIT_UUID};
use crate::commit::{Base, Change, Staged, references, stage};
use crate::lake::Lake;
use crate::metadata_tables::{self, Told};
use crate::scan;
use crate::schema::without_ids;
use crate::state::TableState;
use crate::version::{self, Found};
use crate::writer::{FileWriter, from_staged};

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

    async fn references(&self) -> Result<HashMap<String, SnapshotReference>> {
        references(&self.lake.base(Arc::clone(&self.state)).await?)
    }

    async fn find(&self, version: &TableVersion) -> Result<Found> {
        let references = match version {
            // Named without them, which have to be looked for in all of the metadata.
            TableVersion::Snapshot(_) | TableVersion::AsOf { .. } => HashMap::new(),
            _ => self.references().await?,
        };
        version::find(&self.state.name, &self.state.metadata, &references, version)
    }

    async fn append_rows(&self, branch: Option<&str>, input: SendableRecordBatchStream) -> Result<u64> {
        let commit = Uuid::now_v7();
        let files = self.stage_rows(commit, input).await?;
        let rows = files.rows();
        if rows > 0 {
            let append = Append { lake: &self.lake, commit, files: &files, branch };
            let done = attempts::commit(&self.lake, &self.state, commit, &append).await;
            done.map_err(|e| e.with_context("table", &self.state.name))?;
        }
        Ok(rows)
    }

    async fn stage_rows(&self, commit: Uuid, mut input: SendableRecordBatchStream) -> Result<StagedFiles> {
        let mut writer: Box<dyn StagingWriter> =
            Box::new(FileWriter::new(self.state.storage.clone(), &self.state, commit)?);
        while let Some(batch) = input.next().await {
            writer.write(batch?).await?;
        }
        writer.finish().await
    }
}

/// Files that are appended.
struct Append<'a> {
    lake: &'a Lake,
    commit: Uuid,
    files: &'a StagedFiles,
    /// Main where none is given.
    branch: Option<&'a str>,
}

#[async_trait]
impl Commit for Append<'_> {
    async fn stage(&self, base: &Base) -> Result<Staged> {
        let metadata = &base.state.metadata;
        if let Some(branch) = self.branch {
            let branch = TableVersion::Branch(branch.to_owned());
            version::find(&base.state.name, metadata, &references(base)?, &branch)?;
        }
        let change = Change {
            operation: Operation::Append,
            commit: self.commit,
            add: self.files.files.iter().map(|f| from_staged(metadata, f)).collect::<Result<_>>()?,
            summary: BTreeMap::from([(COMMIT_UUID.to_string(), self.commit.to_string())]),
            branch: self.branch.map(str::to_owned),
            ..Change::default()
        };
        stage(base, change, self.lake.now_ms()).await
    }

    fn branch(&self) -> &str {
        self.branch.unwrap_or(MAIN_BRANCH)
    }
}

#[async_trait]
impl LakeTable for IcebergTable {
    fn info(&self) -> &TableInfo {
        &self.info
    }

    fn anchor(&self, flow: &str) -> AnchorState {
        anchor::state(&self.state.metadata, flow)
    }

    fn flows(&self) -> Vec<String> {
        anchor::flows(&self.state.metadata).map(str::to_owned).collect()
    }

    fn provider(&self) -> Result<Arc<dyn TableProvider>> {
        scan::provider(Arc::clone(&self.state), None)
    }

    async fn provider_at(&self, version: &TableVersion) -> Result<Arc<dyn TableProvider>> {
        let found = self.find(version).await?;
        scan::provider_of(Arc::clone(&self.state), found.snapshot, found.own_columns)
    }

    async fn metadata_table(
        &self,
        kind: MetadataTable,
        version: Option<&TableVersion>,
    ) -> Result<Arc<dyn TableProvider>> {
        let snapshot = match version {
            Some(version) => Some(self.find(version).await?.snapshot),
            None => self.state.metadata.current_snapshot().cloned(),
        };
        let references = match kind {
            MetadataTable::Refs => self.references().await?,
            _ => HashMap::new(),
        };
        metadata_tables::provider(kind, Told { state: Arc::clone(&self.state), references, snapshot })
    }

    async fn append(&self, input: SendableRecordBatchStream) -> Result<u64> {
        self.append_rows(None, input).await
    }

    async fn append_to_branch(&self, branch: &str, input: SendableRecordBatchStream) -> Result<u64> {
        self.append_rows(Some(branch).filter(|branch| *branch != MAIN_BRANCH), input).await
    }

    async fn change_reference(&self, change: &ReferenceChange) -> Result<Moved> {
        crate::references::change(&self.lake, &self.state, change).await
    }

    fn change(&self, kind: ChangeKind) -> Result<Arc<dyn TableChange>> {
        Ok(Arc::new(RowChange::new(Arc::clone(&self.lake), Arc::clone(&self.state), kind)?))
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
