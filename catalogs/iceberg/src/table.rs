use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::catalog::TableProvider;
use datafusion::execution::SendableRecordBatchStream;
use futures::StreamExt;
use iceberg::spec::{DataFile, MAIN_BRANCH, Operation, Snapshot, SnapshotReference, TableMetadata};
use tidewater_catalogs::{
    AddedFiles, Alteration, AnchorState, ChangeKind, Error, ErrorKind, LakeTable, MetadataTable, Moved, PartitionField,
    ReferenceChange, Result, RewrittenManifests, RowOrder, Runner, SnapshotInfo, StagedFiles, TableChange,
    TableCompaction, TableDraft, TableInfo, TableVersion, VacuumRetention, Vacuumed,
};
use uuid::Uuid;

use crate::add_files;
use crate::alter;
use crate::attempts::Commit;
use crate::change::RowChange;
use crate::cherrypick;
use crate::commit::anchor::{self, COMMIT_UUID};
use crate::commit::{Base, Change, Removal, Staged, references, stage};
use crate::compact::Compaction;
use crate::default_values;
use crate::draft::{Check, Draft};
use crate::lake::Lake;
use crate::metadata_tables::{self, Told};
use crate::ndv;
use crate::onto::Onto;
use crate::rewrite_manifests;
use crate::scan;
use crate::schema::without_ids;
use crate::sort_order::{sort_fields, transform_name};
use crate::state::TableState;
use crate::vacuum;
use crate::version::{self, Found};
use crate::writer::{ArrangedWriter, from_staged, writable};

/// One loaded state of a table, for SQL.
pub(crate) struct IcebergTable {
    lake: Arc<Lake>,
    state: Arc<TableState>,
    info: TableInfo,
    onto: Onto,
}

impl std::fmt::Debug for IcebergTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IcebergTable").field("state", &self.state).finish_non_exhaustive()
    }
}

impl IcebergTable {
    pub(crate) fn new(lake: Arc<Lake>, state: Arc<TableState>) -> Result<Self> {
        let info = table_info(&state)?;
        Ok(Self { lake, state, info, onto: Onto::Main })
    }

    /// A draft as it is now.
    pub(crate) fn of_draft(lake: Arc<Lake>, state: Arc<TableState>, draft: Arc<Draft>) -> Result<Self> {
        Ok(Self { onto: Onto::Draft(draft), ..Self::new(lake, state)? })
    }

    /// What is done to a table as a whole, and cannot be taken back.
    fn of_table(&self, what: &str) -> Result<()> {
        match &self.onto {
            Onto::Main => Ok(()),
            Onto::Branch(branch) => Err(Error::unsupported(format!("{what} through branch \"{branch}\""))),
            Onto::Draft(_) => Err(Error::unsupported(format!("{what} in a transaction"))),
        }
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

    async fn stage_rows(
        &self,
        commit: Uuid,
        mut input: SendableRecordBatchStream,
        runner: &Runner,
    ) -> Result<StagedFiles> {
        let mut writer = ArrangedWriter::open(&self.state, commit, None, runner)?;
        while let Some(batch) = input.next().await {
            writer.write(batch?).await?;
        }
        writer.finish().await
    }
}

/// Files that are appended.
struct Append<'a> {
    table: &'a IcebergTable,
    commit: Uuid,
    files: &'a StagedFiles,
}

#[async_trait]
impl Commit for Append<'_> {
    async fn stage(&self, base: &Base) -> Result<Staged> {
        let metadata = &base.state.metadata;
        let add: Vec<_> = self.files.files.iter().map(|f| from_staged(metadata, f)).collect::<Result<_>>()?;
        if metadata.current_schema_id() != self.table.state.metadata.current_schema_id() {
            no_nulls(metadata, &add)?;
        }
        if let Some(branch) = self.table.onto.branch() {
            let branch = TableVersion::Branch(branch.to_owned());
            version::find(&base.state.name, metadata, &references(base)?, &branch)?;
        }
        let change = Change {
            operation: Operation::Append,
            commit: self.commit,
            add,
            summary: BTreeMap::from([(COMMIT_UUID.to_string(), self.commit.to_string())]),
            branch: self.table.onto.branch().map(str::to_owned),
            ..Change::default()
        };
        stage(base, change, self.table.lake.now_ms()).await
    }

    fn branch(&self) -> &str {
        self.table.onto.branch().unwrap_or(MAIN_BRANCH)
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
        let branch = self.table.onto.branch();
        let (metadata, began) = (&base.state.metadata, &self.table.state.metadata);
        let seen = base.on_branch(branch)?;
        if self.here && seen.state.metadata.current_snapshot_id() != began.current_snapshot_id() {
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
            branch: branch.map(str::to_owned),
            ..Change::default()
        };
        stage(base, change, self.table.lake.now_ms()).await
    }

    fn branch(&self) -> &str {
        self.table.onto.branch().unwrap_or(MAIN_BRANCH)
    }
}

/// A column may have become NOT NULL since the rows were written.
pub(crate) fn no_nulls(metadata: &TableMetadata, add: &[(i32, DataFile)]) -> Result<()> {
    let required = metadata.current_schema().as_struct().fields().iter();
    for field in required.filter(|f| f.required && f.field_type.is_primitive()) {
        // A column that came since has its default in files that lack it.
        let may_lack = field.initial_default.is_some();
        let has_values = |file: &DataFile| match file.null_value_counts().get(&field.id) {
            Some(nulls) => *nulls == 0,
            None => may_lack && !file.value_counts().contains_key(&field.id),
        };
        if !add.iter().all(|(_, file)| has_values(file)) {
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

    async fn append(&self, input: SendableRecordBatchStream, runner: &Runner) -> Result<u64> {
        let commit = Uuid::now_v7();
        let entered = self.lake.in_flight.enter(commit);
        let files = self.stage_rows(commit, input, runner).await?;
        let rows = files.rows();
        if rows > 0 {
            let append = Append { table: self, commit, files: &files };
            self.onto.commit(&self.lake, &self.state, (commit, entered), &append, || None).await?;
        }
        Ok(rows)
    }

    async fn branch(&self, branch: &str) -> Result<Arc<dyn LakeTable>> {
        self.of_table("another branch")?;
        self.find(&TableVersion::Branch(branch.to_owned())).await?;
        if branch == MAIN_BRANCH {
            return Ok(Arc::new(Self::new(Arc::clone(&self.lake), Arc::clone(&self.state))?));
        }
        let mut table = Self::new(Arc::clone(&self.lake), Arc::new(self.state.on_branch(branch)?))?;
        table.info.branch = Some(branch.to_owned());
        table.onto = Onto::Branch(branch.to_owned());
        Ok(Arc::new(table))
    }

    async fn change_reference(&self, change: &ReferenceChange) -> Result<Moved> {
        self.of_table("changing references")?;
        crate::references::change(&self.lake, &self.state, change).await
    }

    async fn alter(&self, alterations: &[Alteration]) -> Result<()> {
        self.of_table("altering a table")?;
        let required = alterations.iter().any(|a| matches!(a, Alteration::ChangeNull { nullable: false, .. }));
        if required && self.references().await?.iter().any(|(name, r)| r.is_branch() && name != MAIN_BRANCH) {
            return Err(Error::unsupported("SET NOT NULL of a table that has other branches than main")
                .with_detail("A branch has the columns of the table, and its rows may have nulls.")
                .with_hint("Drop the branches, or move main forward to them."));
        }
        alter::alter(&self.lake, &self.state, alterations).await.map_err(|e| e.with_context("table", &self.state.name))
    }

    async fn overwrite(&self, input: Option<SendableRecordBatchStream>, here: bool, runner: &Runner) -> Result<u64> {
        let commit = Uuid::now_v7();
        let entered = self.lake.in_flight.enter(commit);
        let files = match input {
            Some(input) => self.stage_rows(commit, input, runner).await?,
            None => StagedFiles::default(),
        };
        let rows = files.rows();
        let overwrite = Overwrite { table: self, commit, files, here };
        let all = || Some(Check::of_all());
        self.onto.commit(&self.lake, &self.state, (commit, entered), &overwrite, all).await?;
        Ok(rows)
    }

    async fn analyze(&self, columns: Option<&[String]>, runner: &Runner) -> Result<Vec<(String, u64)>> {
        self.of_table("counting distinct values")?;
        ndv::analyze(&self.lake, &self.state, columns, runner)
            .await
            .map_err(|e| e.with_context("table", &self.state.name))
    }

    fn compaction(&self, least_files: usize, order: Option<&RowOrder>) -> Result<Arc<dyn TableCompaction>> {
        self.of_table("writing files anew")?;
        Ok(Arc::new(Compaction::new(Arc::clone(&self.lake), Arc::clone(&self.state), least_files, order)?))
    }

    async fn vacuum(&self, retention: VacuumRetention, dry_run: bool) -> Result<Vacuumed> {
        self.of_table("removing files")?;
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
        Ok(Arc::new(RowChange::new(Arc::clone(&self.lake), Arc::clone(&self.state), kind, self.onto.clone())?))
    }

    fn draft(&self) -> Result<Arc<dyn TableDraft>> {
        self.of_table("a transaction")?;
        writable(&self.state.metadata)?;
        Ok(Arc::new(Draft::new(Arc::clone(&self.lake), Arc::clone(&self.state))))
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
        defaults: default_values::of(state),
        partition_by: partition_fields(metadata),
        sort_by: sort_fields(metadata),
        properties: metadata.properties().iter().map(|(k, v)| (k.clone(), v.clone())).collect(),
        current_snapshot: metadata.current_snapshot().map(|s| snapshot_info(s)),
        branch: None,
    })
}

/// Fields that SQL has no word for (`void`, transforms of nested columns) are left out.
fn partition_fields(metadata: &TableMetadata) -> Vec<PartitionField> {
    let schema = metadata.current_schema();
    let known = metadata.default_partition_spec().fields().iter().filter_map(|field| {
        let transform = transform_name(field.transform)?;
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
