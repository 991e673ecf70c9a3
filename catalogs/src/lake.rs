use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use bytes::Bytes;
use datafusion::catalog::TableProvider;
use datafusion::common::ScalarValue;
use datafusion::execution::SendableRecordBatchStream;
use uuid::Uuid;

use crate::{
    AddedFiles, Alteration, AnchorState, ChangeKind, CommitTable, Error, MetadataTable, Moved, ReferenceChange, Result,
    RewrittenManifests, RowOrder, Runner, TableChange, TableCompaction, TableDraft, TableName, TableVersion,
    VacuumRetention, Vacuumed,
};

/// Iceberg spec, "Partition Transforms".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transform {
    Identity,
    Bucket(u32),
    Truncate(u32),
    Year,
    Month,
    Day,
    Hour,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionField {
    pub column: String,
    pub transform: Transform,
}

/// The key of a column's comment in the metadata of its field, see [`NewTable::schema`].
pub const COLUMN_COMMENT: &str = "tidewater.comment";

/// Iceberg spec, "Sorting".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SortField {
    pub field: PartitionField,
    pub descending: bool,
    pub nulls_first: bool,
}

#[derive(Debug, Clone)]
pub struct NewTable {
    pub name: TableName,
    /// Comments of columns are under [`COLUMN_COMMENT`].
    pub schema: SchemaRef,
    pub partition_by: Vec<PartitionField>,
    /// In which its files are written.
    pub sort_by: Vec<SortField>,
    /// Iceberg table properties, passed through.
    pub properties: BTreeMap<String, String>,
    /// What is written into columns that a statement leaves out, by their names, in their types.
    pub defaults: BTreeMap<String, ScalarValue>,
    /// Default: under the warehouse.
    pub location: Option<String>,
    pub comment: Option<String>,
}

#[derive(Debug, Clone)]
pub struct TableInfo {
    pub name: TableName,
    pub uuid: Uuid,
    pub location: String,
    pub metadata_location: String,
    pub schema: SchemaRef,
    /// Of columns at the top, by their names.
    pub comments: BTreeMap<String, String>,
    /// What is written into columns at the top that a statement leaves out, by their names.
    pub defaults: BTreeMap<String, ScalarValue>,
    pub partition_by: Vec<PartitionField>,
    /// In which its files are written.
    pub sort_by: Vec<SortField>,
    pub properties: BTreeMap<String, String>,
    pub current_snapshot: Option<SnapshotInfo>,
    /// None: main.
    pub branch: Option<String>,
}

#[derive(Debug, Clone)]
pub struct SnapshotInfo {
    pub snapshot_id: i64,
    pub committed_at_ms: i64,
    pub operation: String,
    pub summary: BTreeMap<String, String>,
}

/// A catalog as a user defined it, secrets filled in.
#[derive(Clone)]
pub struct CatalogSpec {
    pub name: String,
    pub kind: String,
    pub options: BTreeMap<String, String>,
}

impl std::fmt::Debug for CatalogSpec {
    /// Options may be secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CatalogSpec").field("name", &self.name).field("kind", &self.kind).finish_non_exhaustive()
    }
}

/// Opens catalogs of one kind.
#[async_trait]
pub trait CatalogConnector: Send + Sync + std::fmt::Debug {
    /// `rest` …
    fn kind(&self) -> &str;
    /// Names of the options that are understood.
    fn options(&self) -> Vec<&'static str>;
    /// `InvalidInput` says which option is wrong. What can be known without asking the catalog is checked here.
    fn check(&self, spec: &CatalogSpec) -> Result<()>;
    async fn open(&self, spec: &CatalogSpec) -> Result<Arc<dyn LakeCatalog>>;
}

/// Tables of one warehouse.
#[async_trait]
pub trait LakeCatalog: Send + Sync + std::fmt::Debug {
    /// Schemas of catalog `lake`, of `system`, or of one that a user defined.
    async fn list_schemas(&self, catalog: &str) -> Result<Vec<String>>;
    async fn schema_exists(&self, catalog: &str, schema: &str) -> Result<bool> {
        Ok(self.list_schemas(catalog).await?.iter().any(|s| s == schema))
    }
    async fn create_schema(&self, catalog: &str, schema: &str) -> Result<()>;
    /// `InvalidInput` where it still holds tables.
    async fn drop_schema(&self, catalog: &str, schema: &str) -> Result<()>;
    async fn list_tables(&self, catalog: &str, schema: &str) -> Result<Vec<TableName>>;
    /// The current state, read from the catalog at each call (metadata files are immutable and cached).
    async fn load_table(&self, name: &TableName) -> Result<Arc<dyn LakeTable>>;
    async fn create_table(&self, table: NewTable) -> Result<Arc<dyn LakeTable>>;
    /// Puts a table that is there under a name, in the state of one of its metadata files. `AlreadyExists` where the name
    /// is taken.
    async fn register_table(&self, name: &TableName, metadata_location: &str) -> Result<Arc<dyn LakeTable>> {
        let _ = metadata_location;
        Err(Error::unsupported(format!("tables cannot be registered in catalog \"{}\"", name.catalog)))
    }
    /// A table that is filled before anybody sees it.
    async fn stage_table(&self, table: NewTable) -> Result<Box<dyn StagedTable>>;
    /// Forgets the table; with `purge`, its files are removed as well. With `expected`, only the table of that uuid:
    /// `NotFound` where another one stands under the name.
    async fn drop_table(&self, name: &TableName, expected: Option<Uuid>, purge: bool) -> Result<()>;
    /// A handle for flows, bound to the table's uuid: a table re-created under the same name is `NotFound`.
    async fn commit_table(&self, name: &TableName) -> Result<Arc<dyn CommitTable>>;
    /// Whether drafts of several tables of this catalog can be committed at once.
    async fn commits_together(&self, catalog: &str) -> Result<bool> {
        let _ = catalog;
        Ok(false)
    }
    /// Commits all drafts or none, each as one snapshot on the newest state of its table, retrying while that is safe. All
    /// are of one catalog. `Conflict`: a table was changed meanwhile so that the draft would be another one now.
    async fn commit_drafts(&self, drafts: &[Arc<dyn TableDraft>]) -> Result<()> {
        let _ = drafts;
        Err(Error::unsupported("transactions over tables of this catalog"))
    }
}

/// One loaded, unchanging state of a table.
#[async_trait]
pub trait LakeTable: Send + Sync + std::fmt::Debug {
    fn info(&self) -> &TableInfo;
    /// Where a flow stands in this state. [`AnchorState::Absent`] where it never wrote here.
    fn anchor(&self, flow: &str) -> AnchorState {
        let _ = flow;
        AnchorState::Absent
    }
    /// Flows that stand somewhere in this state, running or not.
    fn flows(&self) -> Vec<String> {
        Vec::new()
    }
    /// Reads the current snapshot of this state.
    fn provider(&self) -> Result<Arc<dyn TableProvider>>;
    /// Reads another version of the table: a branch with the table's columns, all else with the columns of its
    /// snapshot (Iceberg spec, "Snapshot References"). `NotFound` where there is no such snapshot or reference,
    /// `InvalidInput` for a time before the first one.
    async fn provider_at(&self, version: &TableVersion) -> Result<Arc<dyn TableProvider>> {
        Err(Error::unsupported(format!("table \"{}\" has one version", self.info().name))
            .with_context("version", version))
    }
    /// What this state tells of the table, or of a version of it.
    async fn metadata_table(
        &self,
        kind: MetadataTable,
        version: Option<&TableVersion>,
    ) -> Result<Arc<dyn TableProvider>> {
        let _ = version;
        Err(Error::unsupported(format!("table \"{}\" has no table of its {}", self.info().name, kind.suffix())))
    }
    /// Appends all rows of `input` (columns in table order) in one snapshot, on the newest state, retrying while
    /// that is safe. Returns the number of rows. All or nothing.
    async fn append(&self, input: SendableRecordBatchStream, runner: &Runner) -> Result<u64>;
    /// Takes all rows out and puts those of `input` in, in one snapshot, on the newest state. `here`: `Conflict` where that
    /// is another one than this.
    async fn overwrite(&self, input: Option<SendableRecordBatchStream>, here: bool, runner: &Runner) -> Result<u64> {
        let _ = (input, here, runner);
        Err(Error::unsupported(format!("table \"{}\" cannot be overwritten", self.info().name)))
    }
    /// Carries out all alterations in one commit, or none, on the newest state. `Conflict`: rows came that must be looked
    /// at first.
    async fn alter(&self, alterations: &[Alteration]) -> Result<()> {
        let _ = alterations;
        Err(Error::unsupported(format!("table \"{}\" cannot be altered", self.info().name)))
    }
    /// Counts distinct values of columns, all that can be where none are named, and keeps the estimates with the current
    /// snapshot, for planners. Returns them; none where there is no snapshot.
    async fn analyze(&self, columns: Option<&[String]>, runner: &Runner) -> Result<Vec<(String, u64)>> {
        let _ = (columns, runner);
        Err(Error::unsupported(format!("columns of \"{}\" cannot be counted", self.info().name)))
    }
    /// Writes files of this state anew: where at least `least_files` small ones become one, or all of them in the order
    /// that is given.
    fn compaction(&self, least_files: usize, order: Option<&RowOrder>) -> Result<Arc<dyn TableCompaction>> {
        let _ = (least_files, order);
        Err(Error::unsupported(format!("files of \"{}\" cannot be written anew", self.info().name)))
    }
    /// Drops old snapshots, and removes files that none names; with `dry_run`, only tells.
    async fn vacuum(&self, retention: VacuumRetention, dry_run: bool) -> Result<Vacuumed> {
        let _ = (retention, dry_run);
        Err(Error::unsupported(format!("files of \"{}\" cannot be removed", self.info().name)))
    }
    /// A branch of this state, other than main: what is read and written is its own.
    async fn branch(&self, branch: &str) -> Result<Arc<dyn LakeTable>> {
        Err(Error::unsupported(format!("branch \"{branch}\" of \"{}\" cannot be written to", self.info().name)))
    }
    /// Changes branches and tags of the newest state, retrying while that is safe. `NotFound`, `AlreadyExists` and
    /// `InvalidInput` say what is wrong with the references or snapshots that are named.
    async fn change_reference(&self, change: &ReferenceChange) -> Result<Moved> {
        let _ = change;
        Err(Error::unsupported(format!("table \"{}\" has no branches and tags", self.info().name)))
    }
    /// A private copy of this state.
    fn draft(&self) -> Result<Arc<dyn TableDraft>> {
        Err(Error::unsupported(format!("table \"{}\" cannot be changed in a transaction", self.info().name)))
    }
    /// Appends Parquet files that are there already, all or none: one file, or all below a folder. `InvalidInput` and
    /// `Unsupported` say which does not fit, `AlreadyExists` which is in the table.
    async fn add_files(&self, source: &str) -> Result<AddedFiles> {
        let _ = source;
        Err(Error::unsupported(format!("files cannot be added to \"{}\"", self.info().name)))
    }
    /// Writes the manifests of the newest state anew, entries of one partition beside each other. Rows are not touched.
    async fn rewrite_manifests(&self) -> Result<RewrittenManifests> {
        Err(Error::unsupported(format!("manifests of \"{}\" cannot be written anew", self.info().name)))
    }
    /// Brings what a snapshot appended, and the current one does not descend from, to the newest state. Returns the
    /// current snapshot after it.
    async fn cherrypick(&self, snapshot_id: i64) -> Result<i64> {
        let _ = snapshot_id;
        Err(Error::unsupported(format!("snapshots of \"{}\" cannot be picked", self.info().name)))
    }
    /// A change of rows of this state. It is committed on the newest state where it means the same there.
    fn change(&self, kind: ChangeKind) -> Result<Arc<dyn TableChange>> {
        Err(Error::unsupported(format!("rows of \"{}\" cannot be changed", self.info().name))
            .with_context("change", kind.word()))
    }
}

/// A new table without a name yet. Nobody can read, change or drop it, so that whoever makes it may take it back
/// without asking whose rows are in it.
#[async_trait]
pub trait StagedTable: Send + std::fmt::Debug {
    fn info(&self) -> &TableInfo;
    /// Writes the first rows (columns in table order) and returns their number. At most once.
    async fn fill(&mut self, input: SendableRecordBatchStream, runner: &Runner) -> Result<u64>;
    /// Puts the table under its name, rows and all. `AlreadyExists` where the name was taken meanwhile, `NotFound`
    /// where the schema is gone; then nothing is left of it.
    async fn publish(self: Box<Self>) -> Result<()>;
    /// Removes its files.
    async fn discard(self: Box<Self>) -> Result<()>;
}

/// Small immutable objects beside the tables (checkpoints), under the warehouse.
#[async_trait]
pub trait BlobStore: Send + Sync + std::fmt::Debug {
    /// Fails with `AlreadyExists` where the path is taken. Durable when it returns.
    async fn put_new(&self, path: &str, bytes: Bytes) -> Result<()>;
    async fn get(&self, path: &str) -> Result<Bytes>;
    async fn list(&self, prefix: &str) -> Result<Vec<String>>;
    async fn delete(&self, path: &str) -> Result<()>;
}
