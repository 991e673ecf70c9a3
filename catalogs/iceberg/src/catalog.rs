use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tidewater_catalogs::{
    CommitTable, DEFAULT_CATALOG, DEFAULT_SCHEMA, DLQ_SCHEMA, Error, ErrorKind, LakeCatalog, LakeTable, NewTable,
    Result, SYSTEM_CATALOG, StagedTable, TableDraft, TableName,
};

use crate::blobs::WarehouseBlobs;
use crate::commit::LakeCommitTable;
use crate::draft;
use crate::glue::{GlueOptions, GluePointers};
use crate::lake::{Backend, Lake};
use crate::new_table::check_name;
use crate::pointers::{Database, SqlPointers};
use crate::properties;
use crate::rest::{RestCatalog, RestOptions};
use crate::scan::MetadataCache;
use crate::state::TableState;
use crate::storage::{Storage, StoreOptions};
use crate::table::IcebergTable;
use crate::unseen::UnseenTable;

/// What a server of ours calls itself in the column `catalog_name`.
pub const HOME_CATALOG: &str = "lake";

/// What new tables keep of their past, where nothing else is said.
pub(crate) const SNAPSHOT_RETENTION: Duration = Duration::from_secs(3600);
pub(crate) const SNAPSHOTS_KEPT: u64 = 1;

/// Where a catalog in a SQL database is.
#[derive(Clone)]
pub struct SqlLakeOptions {
    pub database: Database,
    /// The column `catalog_name` of its tables.
    pub catalog_name: String,
    /// A directory, a `file://` URL, or the URL of a prefix in a bucket.
    pub warehouse: String,
    /// How the bucket is reached.
    pub store: StoreOptions,
    /// Bound of what is kept of manifests and Parquet footers.
    pub metadata_cache_bytes: u64,
    /// How long and how many snapshots new tables keep, where their properties do not say.
    pub snapshot_retention: Duration,
    pub snapshots_kept: u64,
}

impl std::fmt::Debug for SqlLakeOptions {
    /// Options of the store may be keys.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SqlLakeOptions").field("warehouse", &self.warehouse).finish_non_exhaustive()
    }
}

impl SqlLakeOptions {
    /// A SQLite file, with the usual bounds.
    pub fn local(database_path: impl Into<PathBuf>, warehouse: impl Into<String>) -> Self {
        Self {
            database: Database::Sqlite(database_path.into()),
            catalog_name: HOME_CATALOG.to_string(),
            warehouse: warehouse.into(),
            store: StoreOptions::new(),
            metadata_cache_bytes: MetadataCache::DEFAULT_CAPACITY_BYTES,
            snapshot_retention: SNAPSHOT_RETENTION,
            snapshots_kept: SNAPSHOTS_KEPT,
        }
    }
}

/// An Iceberg catalog. Several processes may use one at the same time.
#[derive(Debug, Clone)]
pub struct IcebergLake {
    lake: Arc<Lake>,
}

impl IcebergLake {
    /// Opens or makes a catalog in a SQL database.
    pub async fn open_sql(options: SqlLakeOptions) -> Result<Self> {
        let storage = Storage::open(&options.warehouse, &options.store)?;
        let pointers = SqlPointers::open(&options.database, &options.catalog_name).await?;
        let cache = Arc::new(MetadataCache::new(options.metadata_cache_bytes));
        let defaults = properties::defaults(options.snapshot_retention, options.snapshots_kept);
        Ok(Self { lake: Arc::new(Lake::new(Backend::Pointers(Box::new(pointers)), storage, cache, defaults)) })
    }

    /// AWS Glue, or what speaks its protocol. Nothing is asked of it yet.
    pub fn open_glue(options: GlueOptions, metadata_cache_bytes: u64) -> Result<Self> {
        let storage = match &options.warehouse {
            Some(warehouse) => Storage::open(warehouse, &options.store)?,
            None => Storage::of_tables(&options.store),
        };
        let pointers = GluePointers::new(options)?;
        let cache = Arc::new(MetadataCache::new(metadata_cache_bytes));
        let defaults = properties::defaults(SNAPSHOT_RETENTION, SNAPSHOTS_KEPT);
        Ok(Self { lake: Arc::new(Lake::new(Backend::Pointers(Box::new(pointers)), storage, cache, defaults)) })
    }

    /// The same, with the schemas `public` and `system.dlq` in it: the catalog that a server keeps its own tables in.
    pub async fn open_home(options: SqlLakeOptions) -> Result<Self> {
        let this = Self::open_sql(options).await?;
        if let Backend::Pointers(pointers) = &this.lake.backend {
            for namespace in
                [DEFAULT_SCHEMA.to_string(), SYSTEM_CATALOG.to_string(), format!("{SYSTEM_CATALOG}.{DLQ_SCHEMA}")]
            {
                pointers.create_namespace(&namespace).await?;
            }
        }
        Ok(this)
    }

    /// A catalog behind Iceberg's REST protocol. Nothing is asked of it yet.
    pub fn open_rest(options: RestOptions, metadata_cache_bytes: u64) -> Result<Self> {
        // Locations of tables are the server's to choose; this one names no place of ours.
        let storage = Storage::of_tables(&options.store);
        let cache = Arc::new(MetadataCache::new(metadata_cache_bytes));
        let rest = Arc::new(RestCatalog::new(options)?);
        let defaults = properties::defaults(SNAPSHOT_RETENTION, SNAPSHOTS_KEPT);
        Ok(Self { lake: Arc::new(Lake::new(Backend::Rest(rest), storage, cache, defaults)) })
    }

    /// Checkpoints and the like, in the same warehouse.
    pub fn blobs(&self) -> WarehouseBlobs {
        WarehouseBlobs::new(self.lake.storage().clone())
    }

    #[cfg(test)]
    pub(crate) fn shared(&self) -> &Lake {
        &self.lake
    }

    /// The state that a table is in now.
    pub async fn table_state(&self, name: &TableName) -> Result<Arc<TableState>> {
        self.lake.load(name).await
    }
}

#[async_trait]
impl LakeCatalog for IcebergLake {
    async fn list_schemas(&self, catalog: &str) -> Result<Vec<String>> {
        let all = match &self.lake.backend {
            Backend::Pointers(pointers) => pointers.namespaces().await?,
            Backend::Rest(rest) => return rest.namespaces().await,
        };
        Ok(match catalog {
            DEFAULT_CATALOG => all.into_iter().filter(|n| !n.contains('.') && n != SYSTEM_CATALOG).collect(),
            SYSTEM_CATALOG => {
                let prefix = format!("{catalog}.");
                let below = all.iter().filter_map(|n| n.strip_prefix(&prefix));
                below.filter(|n| !n.contains('.')).map(str::to_string).collect()
            }
            _ => all,
        })
    }

    async fn schema_exists(&self, catalog: &str, schema: &str) -> Result<bool> {
        match &self.lake.backend {
            Backend::Pointers(_) if matches!(catalog, DEFAULT_CATALOG | SYSTEM_CATALOG) => {
                Ok(self.list_schemas(catalog).await?.iter().any(|s| s == schema))
            }
            Backend::Pointers(pointers) => pointers.namespace_exists(schema).await,
            Backend::Rest(rest) => rest.namespace_exists(schema).await,
        }
    }

    async fn create_schema(&self, catalog: &str, schema: &str) -> Result<()> {
        match &self.lake.backend {
            Backend::Pointers(pointers) => pointers.check_name("schema", schema)?,
            Backend::Rest(_) => check_name("schema", schema)?,
        }
        if schema.contains('.') && matches!(catalog, DEFAULT_CATALOG | SYSTEM_CATALOG) {
            return Err(Error::invalid(format!("the name of schema \"{schema}\" contains a dot")));
        }
        if catalog == DEFAULT_CATALOG && schema == SYSTEM_CATALOG {
            return Err(Error::invalid(format!("schema \"{schema}\" is reserved")));
        }
        let made = match &self.lake.backend {
            Backend::Pointers(pointers) => pointers.create_namespace(&namespace(catalog, schema)).await?,
            Backend::Rest(rest) => rest.create_namespace(schema).await?,
        };
        if made {
            Ok(())
        } else {
            Err(Error::new(ErrorKind::AlreadyExists, format!("schema \"{schema}\" already exists")))
        }
    }

    async fn drop_schema(&self, catalog: &str, schema: &str) -> Result<()> {
        match &self.lake.backend {
            Backend::Pointers(pointers) => pointers.drop_namespace(&namespace(catalog, schema)).await,
            Backend::Rest(rest) => rest.drop_namespace(schema).await,
        }
    }

    async fn list_tables(&self, catalog: &str, schema: &str) -> Result<Vec<TableName>> {
        let names = match &self.lake.backend {
            Backend::Pointers(pointers) => pointers.tables(&namespace(catalog, schema)).await?,
            Backend::Rest(rest) => rest.tables(schema).await?,
        };
        Ok(names.into_iter().map(|name| TableName::new(catalog, schema, name)).collect())
    }

    async fn load_table(&self, name: &TableName) -> Result<Arc<dyn LakeTable>> {
        let state = self.lake.load(name).await?;
        Ok(Arc::new(IcebergTable::new(Arc::clone(&self.lake), state)?))
    }

    async fn create_table(&self, table: NewTable) -> Result<Arc<dyn LakeTable>> {
        let state = self.lake.create(table).await?;
        Ok(Arc::new(IcebergTable::new(Arc::clone(&self.lake), state)?))
    }

    async fn register_table(&self, name: &TableName, metadata_location: &str) -> Result<Arc<dyn LakeTable>> {
        let state = self.lake.register(name, metadata_location).await?;
        Ok(Arc::new(IcebergTable::new(Arc::clone(&self.lake), state)?))
    }

    async fn stage_table(&self, table: NewTable) -> Result<Box<dyn StagedTable>> {
        if table.location.is_some() {
            return Err(Error::unsupported("a table that is filled before it is seen chooses its own location"));
        }
        let unseen = self.lake.new_unseen(table).await?;
        Ok(Box::new(UnseenTable::new(Arc::clone(&self.lake), unseen)?))
    }

    async fn drop_table(&self, name: &TableName, expected: Option<uuid::Uuid>, purge: bool) -> Result<()> {
        self.lake.drop_table(name, expected, purge).await
    }

    async fn commit_table(&self, name: &TableName) -> Result<Arc<dyn CommitTable>> {
        let state = self.lake.load(name).await?;
        Ok(Arc::new(LakeCommitTable::new(Arc::clone(&self.lake), state)))
    }

    async fn commits_together(&self, _: &str) -> Result<bool> {
        match &self.lake.backend {
            Backend::Pointers(pointers) => Ok(pointers.swaps_together()),
            Backend::Rest(rest) => rest.commits_together().await,
        }
    }

    async fn commit_drafts(&self, drafts: &[Arc<dyn TableDraft>]) -> Result<()> {
        draft::commit(&self.lake, drafts).await
    }
}

fn namespace(catalog: &str, schema: &str) -> String {
    TableName::new(catalog, schema, "").namespace().join(".")
}
