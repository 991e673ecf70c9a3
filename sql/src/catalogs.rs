//! One catalog out of many: `lake` and `system` are the server's own; those that users made are opened when they are
//! first asked for, so that one that is down keeps nothing else waiting.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use tidewater_catalogs::{
    CatalogConnector, CommitTable, DEFAULT_CATALOG, Definition, DefinitionKind, Error, LakeCatalog, LakeTable,
    Metastore, NewTable, Result, SYSTEM_CATALOG, StagedTable, TableDraft, TableName,
};
use uuid::Uuid;

/// Everything that tells one opened catalog from the next of its name: ids and versions of its definition and of the
/// secrets that it takes.
type Fingerprint = Vec<(Uuid, i64)>;

#[derive(Debug)]
pub(crate) struct Catalogs {
    home: Arc<dyn LakeCatalog>,
    metastore: Arc<dyn Metastore>,
    pub(crate) connectors: Vec<Arc<dyn CatalogConnector>>,
    open: Mutex<HashMap<String, (Fingerprint, Arc<dyn LakeCatalog>)>>,
}

impl Catalogs {
    pub(crate) fn new(
        home: Arc<dyn LakeCatalog>,
        metastore: Arc<dyn Metastore>,
        connectors: Vec<Arc<dyn CatalogConnector>>,
    ) -> Self {
        Self { home, metastore, connectors, open: Mutex::default() }
    }

    /// The catalog of that name. `Unsupported` where there is none, as PostgreSQL says of other databases.
    async fn of(&self, catalog: &str) -> Result<Arc<dyn LakeCatalog>> {
        if catalog == DEFAULT_CATALOG || catalog == SYSTEM_CATALOG {
            return Ok(Arc::clone(&self.home));
        }
        let Some(definition) = self.metastore.get(DefinitionKind::Catalog, catalog).await? else {
            return Err(Error::unsupported(format!(
                "cross-database references are not implemented: there is no catalog \"{catalog}\""
            ))
            .with_hint("SHOW CATALOGS lists those there are; CREATE CATALOG makes one."));
        };
        let fingerprint = self.fingerprint(&definition).await?;
        if let Some((known, open)) = self.open.lock().get(catalog)
            && *known == fingerprint
        {
            return Ok(Arc::clone(open));
        }
        let opened = crate::statement::open_catalog(self, &self.metastore, &definition)
            .await
            .map_err(|e| e.with_context("catalog", catalog))?;
        self.open.lock().insert(catalog.to_owned(), (fingerprint, Arc::clone(&opened)));
        Ok(opened)
    }

    async fn fingerprint(&self, definition: &Definition) -> Result<Fingerprint> {
        let mut all = vec![(definition.id, definition.version)];
        for secret in crate::statement::secrets_of_catalog(definition)? {
            let secret = self.metastore.get(DefinitionKind::Secret, &secret).await?;
            all.push(secret.map_or((Uuid::nil(), 0), |s| (s.id, s.version)));
        }
        Ok(all)
    }
}

#[async_trait]
impl LakeCatalog for Catalogs {
    async fn list_schemas(&self, catalog: &str) -> Result<Vec<String>> {
        self.of(catalog).await?.list_schemas(catalog).await
    }

    async fn schema_exists(&self, catalog: &str, schema: &str) -> Result<bool> {
        self.of(catalog).await?.schema_exists(catalog, schema).await
    }

    async fn create_schema(&self, catalog: &str, schema: &str) -> Result<()> {
        self.of(catalog).await?.create_schema(catalog, schema).await
    }

    async fn drop_schema(&self, catalog: &str, schema: &str) -> Result<()> {
        self.of(catalog).await?.drop_schema(catalog, schema).await
    }

    async fn list_tables(&self, catalog: &str, schema: &str) -> Result<Vec<TableName>> {
        self.of(catalog).await?.list_tables(catalog, schema).await
    }

    async fn load_table(&self, name: &TableName) -> Result<Arc<dyn LakeTable>> {
        self.of(&name.catalog).await?.load_table(name).await
    }

    async fn create_table(&self, table: NewTable) -> Result<Arc<dyn LakeTable>> {
        self.of(&table.name.catalog).await?.create_table(table).await
    }

    async fn register_table(&self, name: &TableName, metadata_location: &str) -> Result<Arc<dyn LakeTable>> {
        self.of(&name.catalog).await?.register_table(name, metadata_location).await
    }

    async fn stage_table(&self, table: NewTable) -> Result<Box<dyn StagedTable>> {
        self.of(&table.name.catalog).await?.stage_table(table).await
    }

    async fn drop_table(&self, name: &TableName, expected: Option<Uuid>, purge: bool) -> Result<()> {
        self.of(&name.catalog).await?.drop_table(name, expected, purge).await
    }

    async fn commit_table(&self, name: &TableName) -> Result<Arc<dyn CommitTable>> {
        self.of(&name.catalog).await?.commit_table(name).await
    }

    async fn commits_together(&self, catalog: &str) -> Result<bool> {
        self.of(catalog).await?.commits_together(catalog).await
    }

    async fn commit_drafts(&self, drafts: &[Arc<dyn TableDraft>]) -> Result<()> {
        let Some(first) = drafts.first() else { return Ok(()) };
        let catalog = Arc::clone(first).table()?.info().name.catalog.clone();
        self.of(&catalog).await?.commit_drafts(drafts).await
    }
}
