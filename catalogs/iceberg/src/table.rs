use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::catalog::TableProvider;
use datafusion::execution::SendableRecordBatchStream;
use futures::StreamExt;
use iceberg::spec::{
    DataFile, MAIN_BRANCH, Operation, Snapshot, SnapshotReference, TableMetadata, Transform as IcebergTransform,
};
use tidewater_catalogs::{
    AddedFiles, Alteration, AnchorState, ChangeKind, Error, ErrorKind, LakeTable, MetadataTable, Moved, PartitionField,
    ReferenceChange, Result, RewrittenManifests, SnapshotInfo, StagedFiles, StagingWriter, TableChange,
    TableCompaction, TableInfo, TableVersion, Transform, VacuumRetention, Vacuumed,
};
use uuid::Uuid;

use crate::add_files;
use crate::alter;
use crate::attempts::{self, Commit};
use crate::change::RowChange;
use crate::cherrypick;
use crate::commit::anchor::{self, COMMIT_UUID};
use crate::commit::{Base, Change, Removal, Staged, references, stage};
use crate::compact::Compaction;
use crate::lake::Lake;
use crate::metadata_tables::{self, Told};
use crate::rewrite_manifests;
use crate::scan;
use crate::schema::without_ids;
use crate::state::TableState;
use crate::vacuum;
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
        let _entered = self.lake.in_flight.enter(commit);
        let files = self.stage_rows(commit, input).await?;
        let rows = files.rows();
        if rows > 0 {
            let schema_id = self.state.metadata.current_schema_id();
            let append = Append { lake: &self.lake, commit, files: &files, schema_id, branch };
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
    /// With which they were written.
    schema_id: i32,
    /// Main where none is given.
    branch: Option<&'a str>,
}

#[async_trait]
impl Commit for Append<'_> {
    async fn stage(&self, base: &Base) -> Result<Staged> {
        let metadata = &base.state.metadata;
        let add: Vec<_> = self.files.files.iter().map(|f| from_staged(metadata, f)).collect::<Result<_>>()?;
        if metadata.current_schema_id() != self.schema_id {
            no_nulls(metadata, &add)?;
        }
        if let Some(branch) = self.branch {
            let branch = TableVersion::Branch(branch.to_owned());
            version::find(&base.state.name, metadata, &references(base)?, &branch)?;
        }
        let change = Change {
            operation: Operation::Append,
            commit: self.commit,
            add,
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

/// Files that come in the place of all that is there.
struct Overwrite<'a> {
    table: &'a IcebergTable,
    commit: Uuid,
    files: StagedFiles,
    /// Where the new rows were made of the old ones.
    here: bool,
}

#[async_trait]
impl Commit for Overwrite<'_> {
    async fn stage(&self, base: &Base) -> Result<Staged> {
        let (metadata, began) = (&base.state.metadata, &self.table.state.metadata);
        if self.here && metadata.current_snapshot_id() != began.current_snapshot_id() {
            return Err(Error::new(
                ErrorKind::Conflict,
                "could not serialize access due to a concurrent change of the table",
            )
            .with_hint("Run the statement again."));
        }
        let add: Vec<_> = self.files.files.iter().map(|f| from_staged(metadata, f)).collect::<Result<_>>()?;
        if metadata.current_schema_id() != began.current_schema_id() {
            no_nulls(metadata, &add)?;
        }
        let change = Change {
            operation: if add.is_empty() { Operation::Delete } else { Operation::Overwrite },
            commit: self.commit,
            add,
            remove: Removal::All,
            summary: BTreeMap::from([(COMMIT_UUID.to_string(), self.commit.to_string())]),
            ..Change::default()
        };
        stage(base, change, self.table.lake.now_ms()).await
    }
}

/// A column may have become NOT NULL since the rows were written.
pub(crate) fn no_nulls(metadata: &TableMetadata, add: &[(i32, DataFile)]) -> Result<()> {
    let required = metadata.current_schema().as_struct().fields().iter();
    for field in required.filter(|f| f.required && f.field_type.is_primitive()) {
        if add.iter().any(|(_, file)| file.null_value_counts().get(&field.id) != Some(&0)) {
            return Err(Error::new(
                ErrorKind::Conflict,
                format!("column \"{}\" became NOT NULL meanwhile", field.name),
            ));
        }
    }
    Ok(())
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

    async fn alter(&self, alterations: &[Alteration]) -> Result<()> {
        let required = alterations.iter().any(|a| matches!(a, Alteration::ChangeNull { nullable: false, .. }));
        if required && self.references().await?.iter().any(|(name, r)| r.is_branch() && name != MAIN_BRANCH) {
            return Err(Error::unsupported("SET NOT NULL of a table that has other branches than main")
                .with_detail("A branch has the columns of the table, and its rows may have nulls.")
                .with_hint("Drop the branches, or move main forward to them."));
        }
        alter::alter(&self.lake, &self.state, alterations).await.map_err(|e| e.with_context("table", &self.state.name))
    }

    async fn overwrite(&self, input: Option<SendableRecordBatchStream>, here: bool) -> Result<u64> {
        let commit = Uuid::now_v7();
        let _entered = self.lake.in_flight.enter(commit);
        let files = match input {
            Some(input) => self.stage_rows(commit, input).await?,
            None => StagedFiles::default(),
        };
        let rows = files.rows();
        let overwrite = Overwrite { table: self, commit, files, here };
        let done = attempts::commit(&self.lake, &self.state, commit, &overwrite).await;
        done.map_err(|e| e.with_context("table", &self.state.name))?;
        Ok(rows)
    }

    fn compaction(&self, least_files: usize) -> Result<Arc<dyn TableCompaction>> {
        Ok(Arc::new(Compaction::new(Arc::clone(&self.lake), Arc::clone(&self.state), least_files)?))
    }

    async fn vacuum(&self, retention: VacuumRetention, dry_run: bool) -> Result<Vacuumed> {
        vacuum::vacuum(&self.lake, Arc::clone(&self.state), retention, dry_run).await
    }

    async fn add_files(&self, source: &str) -> Result<AddedFiles> {
        add_files::add_files(&self.lake, Arc::clone(&self.state), source)
            .await
            .map_err(|e| e.with_context("table", &self.state.name))
    }

    async fn rewrite_manifests(&self) -> Result<RewrittenManifests> {
        rewrite_manifests::rewrite_manifests(&self.lake, &self.state).await
    }

    async fn cherrypick(&self, snapshot_id: i64) -> Result<i64> {
        cherrypick::cherrypick(&self.lake, &self.state, snapshot_id).await
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
        comments: metadata
            .current_schema()
            .as_struct()
            .fields()
            .iter()
            .filter_map(|field| Some((field.name.clone(), field.doc.clone()?)))
            .collect(),
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
