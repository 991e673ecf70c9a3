use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use iceberg::spec::{
    FormatVersion, PartitionSpec, PrimitiveType, SortOrder, TableMetadata, TableMetadataBuilder,
    Transform as IcebergTransform, Type, UnboundPartitionSpec,
};
use moka::future::Cache;
use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use tidewater_catalogs::{
    CommitTable, DEFAULT_CATALOG, DEFAULT_SCHEMA, DLQ_SCHEMA, Error, ErrorKind, LakeCatalog, LakeTable, NewTable,
    PartitionField, Result, SYSTEM_CATALOG, StagedTable, TableName, Transform,
};

use crate::blobs::WarehouseBlobs;
use crate::commit::{Base, LakeCommitTable, Staged, current_manifests, load_manifest};
use crate::error;
use crate::pointers::Pointers;
use crate::properties;
use crate::scan::MetadataCache;
use crate::schema::{to_arrow, to_iceberg};
use crate::state::TableState;
use crate::storage::Storage;
use crate::table::SqlTable;
use crate::unseen::UnseenTable;
use crate::writer::check_properties;

/// Parsed metadata files that are kept, in bytes of their JSON.
const PARSED_METADATA_BYTES: u64 = 64 << 20;

/// Where a lake is.
#[derive(Debug, Clone)]
pub struct SqlLakeOptions {
    /// The SQLite database; made where it is missing.
    pub database_path: PathBuf,
    /// A directory, or a `file://` URL; made where it is missing.
    pub warehouse: String,
    /// Reads the files of the warehouse. Rooted at `/`: paths are those of the locations' URLs.
    pub object_store: Arc<dyn ObjectStore>,
    /// Bound of what is kept of manifests and Parquet footers.
    pub metadata_cache_bytes: u64,
    /// How long and how many snapshots new tables keep, where their properties do not say.
    pub snapshot_retention: Duration,
    pub snapshots_kept: u64,
}

impl SqlLakeOptions {
    /// On local disk, with the usual bounds.
    pub fn local(database_path: impl Into<PathBuf>, warehouse: impl Into<String>) -> Self {
        Self {
            database_path: database_path.into(),
            warehouse: warehouse.into(),
            object_store: Arc::new(LocalFileSystem::new()),
            metadata_cache_bytes: 256 << 20,
            snapshot_retention: Duration::from_secs(3600),
            snapshots_kept: 1,
        }
    }
}

/// Tables listed in a SQL database, files in one warehouse. Several processes may use one lake at the same time.
#[derive(Debug, Clone)]
pub struct SqlLake {
    lake: Arc<Lake>,
}

impl SqlLake {
    /// Opens or makes the lake, with the schemas `public` and `system.dlq` in it.
    pub async fn open(options: SqlLakeOptions) -> Result<Self> {
        let storage = Storage::open(&options.warehouse, Arc::clone(&options.object_store))?;
        let pointers = Pointers::open(&options.database_path).await?;
        for namespace in
            [DEFAULT_SCHEMA.to_string(), SYSTEM_CATALOG.to_string(), format!("{SYSTEM_CATALOG}.{DLQ_SCHEMA}")]
        {
            pointers.create_namespace(&namespace).await?;
        }
        let parsed = Cache::builder()
            .max_capacity(PARSED_METADATA_BYTES)
            .weigher(|_, parsed: &Parsed| u32::try_from(parsed.bytes).unwrap_or(u32::MAX))
            .build();
        let cache = Arc::new(MetadataCache::new(options.metadata_cache_bytes));
        Ok(Self {
            lake: Arc::new(Lake {
                pointers,
                storage,
                cache,
                parsed,
                defaults: properties::defaults(options.snapshot_retention, options.snapshots_kept),
                #[cfg(test)]
                lost_answers: 0.into(),
                #[cfg(test)]
                blind_after_loss: 0.into(),
                #[cfg(test)]
                blind: 0.into(),
            }),
        })
    }

    /// Checkpoints and the like, in the same warehouse.
    pub fn blobs(&self) -> WarehouseBlobs {
        WarehouseBlobs::new(self.lake.storage.clone())
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

/// What all handles of one lake share.
#[derive(Debug)]
pub(crate) struct Lake {
    pointers: Pointers,
    storage: Storage,
    cache: Arc<MetadataCache>,
    /// By location: a metadata file never changes. Which one is current is asked each time.
    parsed: Cache<String, Parsed>,
    /// Properties of new tables.
    defaults: BTreeMap<String, String>,
    /// How many answers to swaps are lost from now on.
    #[cfg(test)]
    pub(crate) lost_answers: std::sync::atomic::AtomicUsize,
    /// How many loads fail after an answer was lost, and how many of them are left.
    #[cfg(test)]
    pub(crate) blind_after_loss: std::sync::atomic::AtomicUsize,
    #[cfg(test)]
    blind: std::sync::atomic::AtomicUsize,
}

#[derive(Debug, Clone)]
struct Parsed {
    metadata: Arc<TableMetadata>,
    bytes: usize,
}

/// What came of one attempt to replace a table's state.
pub(crate) enum Swap {
    Done(Base),
    /// The catalog said no.
    Moved,
    /// Files could not be written, so the catalog was not asked.
    NotAsked(Error),
    /// The catalog was asked and did not answer.
    Unknown(Error),
}

impl Lake {
    pub(crate) fn storage(&self) -> &Storage {
        &self.storage
    }

    /// What a database that is gone looks like.
    #[cfg(test)]
    pub(crate) async fn close_database(&self) {
        self.pointers.close().await;
    }

    #[cfg(test)]
    fn lose_answer(&self) -> bool {
        use std::sync::atomic::Ordering::SeqCst;
        let lost = self.lost_answers.fetch_update(SeqCst, SeqCst, |n| n.checked_sub(1)).is_ok();
        if lost {
            self.blind.store(self.blind_after_loss.load(SeqCst), SeqCst);
        }
        lost
    }

    #[cfg(test)]
    fn is_blind(&self) -> bool {
        use std::sync::atomic::Ordering::SeqCst;
        self.blind.fetch_update(SeqCst, SeqCst, |n| n.checked_sub(1)).is_ok()
    }

    pub(crate) fn now_ms(&self) -> i64 {
        chrono::Utc::now().timestamp_millis()
    }

    /// The current state. The catalog is asked each time.
    pub(crate) async fn load(&self, name: &TableName) -> Result<Arc<TableState>> {
        #[cfg(test)]
        if self.is_blind() {
            return Err(Error::unavailable("the catalog cannot be read"));
        }
        let namespace = name.namespace().join(".");
        let mut last = None;
        // The metadata file may be removed between the two reads where the table moves on very fast.
        for _ in 0..3 {
            let location = self
                .pointers
                .get(&namespace, &name.name)
                .await?
                .ok_or_else(|| Error::not_found(format!("table \"{name}\" does not exist")))?;
            match self.state_at(name, &location).await {
                Err(e) if e.kind() == ErrorKind::NotFound => last = Some(e),
                other => return other,
            }
        }
        // The table is there and its file is not; `NotFound` would say that the table was dropped.
        Err(Error::new(ErrorKind::DataCorrupt, format!("the metadata file of table \"{name}\" is missing"))
            .with_source(last.unwrap_or_else(|| Error::internal("not read"))))
    }

    async fn state_at(&self, name: &TableName, location: &str) -> Result<Arc<TableState>> {
        let parsed = match self.parsed.get(location).await {
            Some(parsed) => parsed,
            None => {
                let parsed = self.parse(location).await.map_err(|e| e.with_context("table", name))?;
                self.parsed.insert(location.to_string(), parsed.clone()).await;
                parsed
            }
        };
        self.state(name, parsed.metadata, location)
    }

    fn state(&self, name: &TableName, metadata: Arc<TableMetadata>, location: &str) -> Result<Arc<TableState>> {
        let arrow_schema = Arc::new(to_arrow(metadata.current_schema())?);
        Ok(Arc::new(TableState {
            name: name.clone(),
            metadata,
            metadata_location: location.to_string(),
            file_io: self.storage.file_io().clone(),
            object_store: Arc::clone(self.storage.object_store()),
            cache: Arc::clone(&self.cache),
            arrow_schema,
        }))
    }

    async fn parse(&self, location: &str) -> Result<Parsed> {
        const GZIP: [u8; 2] = [0x1f, 0x8b];
        let content = self.storage.read(location).await?;
        let bytes = content.len();
        let metadata = if content.starts_with(&GZIP) {
            TableMetadata::read_from(self.storage.file_io(), location)
                .await
                .map_err(|e| error::iceberg("read table metadata", e).with_context("file", location))?
        } else {
            let parsed = tokio::task::spawn_blocking(move || serde_json::from_slice::<TableMetadata>(&content));
            error::joined(parsed.await.map(|r| {
                r.map_err(|e| {
                    Error::new(ErrorKind::DataCorrupt, "cannot read table metadata")
                        .with_context("file", location)
                        .with_source(e)
                })
            }))?
        };
        Ok(Parsed { metadata: Arc::new(metadata), bytes })
    }

    /// Writes what was staged, then asks the catalog, once.
    pub(crate) async fn swap(&self, base: &Base, staged: Staged) -> Swap {
        let name = &base.state.name;
        let namespace = name.namespace().join(".");
        let bytes = staged.files.iter().find(|(at, _)| *at == staged.location).map_or(0, |(_, json)| json.len());
        if let Err(e) = self.storage.write_new(staged.files).await {
            return Swap::NotAsked(e);
        }
        let metadata = Arc::new(staged.metadata);
        let next = match self.state(name, Arc::clone(&metadata), &staged.location) {
            Ok(next) => next,
            Err(e) => return Swap::NotAsked(e),
        };
        match self.pointers.swap(&namespace, &name.name, &base.state.metadata_location, &staged.location).await {
            Ok(true) => {}
            Ok(false) => return Swap::Moved,
            Err(e) => return Swap::Unknown(e),
        }
        #[cfg(test)]
        if self.lose_answer() {
            return Swap::Unknown(Error::unavailable("the answer was lost"));
        }
        self.parsed.insert(staged.location, Parsed { metadata, bytes }).await;
        // They left the log with this commit, so nothing names them. A file that stays is only a file too many.
        if let Err(e) = self.storage.delete(staged.expired).await {
            tracing::warn!(table = %name, error = %e, "old metadata files were not removed");
        }
        let known = !staged.manifests.is_empty();
        Swap::Done(Base { state: next, manifests: known.then_some(staged.manifests) })
    }

    /// The first state of a new table, written and not yet under its name.
    async fn new_state(&self, table: NewTable) -> Result<Arc<TableState>> {
        let name = table.name.clone();
        check_name("table", &name.name)?;
        if self.pointers.get(&name.namespace().join("."), &name.name).await?.is_some() {
            return Err(Error::new(ErrorKind::AlreadyExists, format!("table \"{name}\" already exists")));
        }
        let metadata = new_metadata(&self.storage, &self.defaults, table)?;
        let location = format!("{}/metadata/00000-{}.metadata.json", metadata.location(), uuid::Uuid::new_v4());
        let json =
            serde_json::to_vec(&metadata).map_err(|e| Error::internal("cannot write table metadata").with_source(e))?;
        self.storage.write_new(vec![(location.clone(), json.into())]).await?;
        self.state(&name, Arc::new(metadata), &location)
    }

    /// Writes the next state of a table that has no name yet.
    pub(crate) async fn write_unseen(&self, name: &TableName, staged: Staged) -> Result<Arc<TableState>> {
        self.storage.write_new(staged.files).await?;
        self.state(name, Arc::new(staged.metadata), &staged.location)
    }

    /// Puts a new table under its name. The error comes with `true` where that is certain to have failed, so that the
    /// files may go.
    pub(crate) async fn publish(&self, state: &TableState) -> Result<(), (Error, bool)> {
        let (name, location) = (&state.name, &state.metadata_location);
        let namespace = name.namespace().join(".");
        let Err(e) = self.pointers.create(&namespace, &name.name, location).await else { return Ok(()) };
        if matches!(e.kind(), ErrorKind::AlreadyExists | ErrorKind::NotFound) {
            return Err((e, true));
        }
        // The answer may be lost, and the table there.
        match self.pointers.get(&namespace, &name.name).await {
            Ok(Some(found)) if found == *location => Ok(()),
            Ok(_) => Err((e, true)),
            Err(_) => Err((e, false)),
        }
    }

    /// Removes the folder of a table that this catalog made and that has no name.
    pub(crate) async fn remove_unseen(&self, state: &TableState) -> Result<()> {
        self.storage.delete_tree(state.metadata.location()).await
    }

    async fn purge(&self, state: &TableState) -> Result<()> {
        let location = state.metadata.location();
        let own = format!("{}/", self.storage.warehouse());
        if location.starts_with(&own) && location.ends_with(&ours(state.metadata.uuid())) {
            return self.storage.delete_tree(location).await;
        }
        // The folder may hold other things: what the table names is removed, and nothing else.
        let mut files: BTreeSet<String> = BTreeSet::new();
        let mut manifests = HashSet::new();
        for snapshot in state.metadata.snapshots() {
            let at = TableState {
                metadata: Arc::new(at_snapshot(&state.metadata, snapshot.snapshot_id())?),
                ..state.clone()
            };
            for manifest in current_manifests(&at).await? {
                if manifests.insert(manifest.manifest_path.clone()) {
                    let entries = load_manifest(state, &manifest).await?;
                    files.extend(entries.entries().iter().map(|e| e.file_path().to_string()));
                }
            }
            files.insert(snapshot.manifest_list().to_string());
        }
        files.extend(manifests);
        files.extend(state.metadata.metadata_log().iter().map(|log| log.metadata_file.clone()));
        files.insert(state.metadata_location.clone());
        self.storage.delete(files.into_iter().collect()).await
    }
}

fn at_snapshot(metadata: &TableMetadata, snapshot: i64) -> Result<TableMetadata> {
    let reference =
        iceberg::spec::SnapshotReference::new(snapshot, iceberg::spec::SnapshotRetention::branch(None, None, None));
    let built =
        metadata.clone().into_builder(None).set_ref(iceberg::spec::MAIN_BRANCH, reference).and_then(|b| b.build());
    Ok(built.map_err(|e| error::iceberg("read a snapshot", e))?.metadata)
}

/// The end of every location that this catalog chose: a name that is used again gets another folder.
fn ours(uuid: uuid::Uuid) -> String {
    format!("-{}", &uuid.simple().to_string()[16..])
}

#[async_trait]
impl LakeCatalog for SqlLake {
    async fn list_schemas(&self, catalog: &str) -> Result<Vec<String>> {
        let all = self.lake.pointers.namespaces().await?;
        Ok(if catalog == DEFAULT_CATALOG {
            all.into_iter().filter(|n| !n.contains('.') && n != SYSTEM_CATALOG).collect()
        } else {
            let prefix = format!("{catalog}.");
            all.iter()
                .filter_map(|n| n.strip_prefix(&prefix))
                .filter(|n| !n.contains('.'))
                .map(str::to_string)
                .collect()
        })
    }

    async fn create_schema(&self, catalog: &str, schema: &str) -> Result<()> {
        check_name("schema", schema)?;
        if schema.contains('.') {
            return Err(Error::invalid(format!("the name of schema \"{schema}\" contains a dot")));
        }
        if catalog == DEFAULT_CATALOG && schema == SYSTEM_CATALOG {
            return Err(Error::invalid(format!("schema \"{schema}\" is reserved")));
        }
        if self.lake.pointers.create_namespace(&namespace(catalog, schema)).await? {
            Ok(())
        } else {
            Err(Error::new(ErrorKind::AlreadyExists, format!("schema \"{schema}\" already exists")))
        }
    }

    async fn drop_schema(&self, catalog: &str, schema: &str) -> Result<()> {
        self.lake.pointers.drop_namespace(&namespace(catalog, schema)).await
    }

    async fn list_tables(&self, catalog: &str, schema: &str) -> Result<Vec<TableName>> {
        let names = self.lake.pointers.tables(&namespace(catalog, schema)).await?;
        Ok(names.into_iter().map(|name| TableName::new(catalog, schema, name)).collect())
    }

    async fn load_table(&self, name: &TableName) -> Result<Arc<dyn LakeTable>> {
        let state = self.lake.load(name).await?;
        Ok(Arc::new(SqlTable::new(Arc::clone(&self.lake), state)?))
    }

    async fn create_table(&self, table: NewTable) -> Result<Arc<dyn LakeTable>> {
        let state = self.lake.new_state(table).await?;
        let name = &state.name;
        self.lake.pointers.create(&name.namespace().join("."), &name.name, &state.metadata_location).await?;
        Ok(Arc::new(SqlTable::new(Arc::clone(&self.lake), state)?))
    }

    async fn stage_table(&self, table: NewTable) -> Result<Box<dyn StagedTable>> {
        if table.location.is_some() {
            return Err(Error::unsupported("a table that is filled before it is seen chooses its own location"));
        }
        let state = self.lake.new_state(table).await?;
        Ok(Box::new(UnseenTable::new(Arc::clone(&self.lake), state)?))
    }

    async fn drop_table(&self, name: &TableName, expected: Option<uuid::Uuid>, purge: bool) -> Result<()> {
        let namespace = name.namespace().join(".");
        loop {
            let pointer = self.lake.pointers.get(&namespace, &name.name).await?;
            let Some(location) = pointer else {
                return Err(Error::not_found(format!("table \"{name}\" does not exist")));
            };
            // What is removed is what the dropped state names, so it is read first. A table whose metadata is lost
            // can still be dropped.
            let state = self.lake.state_at(name, &location).await;
            if let Some(expected) = expected {
                match &state {
                    Ok(state) if state.metadata.uuid() == expected => {}
                    Ok(_) => {
                        return Err(Error::not_found(format!("table \"{name}\" was dropped"))
                            .with_detail("Another table has its name now."));
                    }
                    // Files are removed after the pointer: the table may have been dropped between the two reads.
                    Err(e)
                        if e.kind() == ErrorKind::NotFound
                            && self.lake.pointers.get(&namespace, &name.name).await?.as_ref() != Some(&location) =>
                    {
                        continue;
                    }
                    // Whose table it is cannot be told, so it stays.
                    Err(_) => return state.map(|_| ()),
                }
            }
            // The catalog compares the location again, which no other table ever has.
            if !self.lake.pointers.remove(&namespace, &name.name, &location).await? {
                continue;
            }
            if purge {
                match state {
                    Ok(state) => self.lake.purge(&state).await?,
                    Err(e) => tracing::warn!(table = %name, error = %e, "files of the dropped table were not removed"),
                }
            }
            return Ok(());
        }
    }

    async fn commit_table(&self, name: &TableName) -> Result<Arc<dyn CommitTable>> {
        let state = self.lake.load(name).await?;
        Ok(Arc::new(LakeCommitTable::new(Arc::clone(&self.lake), state)))
    }
}

fn namespace(catalog: &str, schema: &str) -> String {
    TableName::new(catalog, schema, "").namespace().join(".")
}

fn check_name(kind: &str, name: &str) -> Result<()> {
    /// The catalog's columns are that wide in the databases that mind.
    const LONGEST: usize = 255;
    if name.is_empty() || name.len() > LONGEST || name.contains('\0') {
        return Err(Error::invalid(format!("the name of a {kind} has 1 to {LONGEST} bytes and no zero byte")));
    }
    Ok(())
}

fn new_metadata(storage: &Storage, defaults: &BTreeMap<String, String>, table: NewTable) -> Result<TableMetadata> {
    let uuid = uuid::Uuid::now_v7();
    if table.schema.fields().is_empty() {
        return Err(Error::invalid(format!("table \"{}\" has no columns", table.name)));
    }
    let schema = Arc::new(to_iceberg(&table.schema)?);
    let spec = partition_spec(&schema, &table.partition_by)?;
    let mut all: HashMap<String, String> = defaults.clone().into_iter().collect();
    all.extend(table.properties);
    if let Some(comment) = table.comment {
        all.insert("comment".to_string(), comment);
    }
    if let Some(version) = all.remove("format-version")
        && version.trim() != "2"
    {
        return Err(Error::unsupported(format!("tables of format version {version} cannot be made"))
            .with_hint("Leave \"format-version\" out, or set it to \"2\"."));
    }
    check_properties(&all)?;
    let location = match table.location {
        Some(location) => {
            crate::storage::local_path(&location)?;
            let plain = !location.contains("://") && !location.starts_with("file:");
            if plain { format!("file://{location}") } else { location }
        }
        None => {
            let folders: Vec<String> = table.name.namespace().iter().map(|n| folder(n)).collect();
            format!("{}/{}/{}{}", storage.warehouse(), folders.join("/"), folder(&table.name.name), ours(uuid))
        }
    };
    let builder = TableMetadataBuilder::new(
        schema.as_ref().clone(),
        spec,
        SortOrder::unsorted_order(),
        location,
        FormatVersion::V2,
        all,
    )
    .map_err(|e| Error::invalid("the table cannot be made").with_source(e))?
    .assign_uuid(uuid);
    Ok(builder.build().map_err(|e| error::iceberg("build table metadata", e))?.metadata)
}

/// What any file system takes, for people who look.
fn folder(name: &str) -> String {
    const LONGEST: usize = 64;
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '-' || c == '_' { c } else { '_' };
    name.chars().take(LONGEST).map(plain).collect()
}

/// Partition values are stored in Avro records, whose names take letters, digits and underscores alone. Other
/// characters become `_x` and their code, as Iceberg writes them elsewhere.
fn avro_name(column: &str) -> String {
    let mut name = String::with_capacity(column.len());
    for (i, c) in column.chars().enumerate() {
        match c {
            'a'..='z' | 'A'..='Z' | '_' => name.push(c),
            '0'..='9' if i > 0 => name.push(c),
            '0'..='9' => name.extend(['_', c]),
            other => name.push_str(&format!("_x{:X}", u32::from(other))),
        }
    }
    name
}

/// Field names as Spark gives them: `day` of `ts` is `ts_day`.
fn partition_spec(schema: &Arc<iceberg::spec::Schema>, fields: &[PartitionField]) -> Result<UnboundPartitionSpec> {
    let mut builder = PartitionSpec::builder(Arc::clone(schema)).with_spec_id(0);
    for field in fields {
        let source = schema
            .as_struct()
            .field_by_name(&field.column)
            .ok_or_else(|| Error::not_found(format!("partition column \"{}\" does not exist", field.column)))?;
        let (transform, suffix) = match field.transform {
            Transform::Identity => (IcebergTransform::Identity, ""),
            Transform::Bucket(0) | Transform::Truncate(0) => {
                return Err(Error::invalid(format!("the number of partition column \"{}\" is 0", field.column)));
            }
            Transform::Bucket(n) if i32::try_from(n).is_err() => {
                return Err(Error::invalid(format!("partition column \"{}\" has too many buckets", field.column)));
            }
            Transform::Truncate(n) if i32::try_from(n).is_err() => {
                return Err(Error::invalid(format!("partition column \"{}\" has too large a width", field.column)));
            }
            Transform::Bucket(n) => (IcebergTransform::Bucket(n), "_bucket"),
            Transform::Truncate(n) => (IcebergTransform::Truncate(n), "_trunc"),
            Transform::Year => (IcebergTransform::Year, "_year"),
            Transform::Month => (IcebergTransform::Month, "_month"),
            Transform::Day => (IcebergTransform::Day, "_day"),
            Transform::Hour => (IcebergTransform::Hour, "_hour"),
        };
        let fits = transform.result_type(&source.field_type).is_ok()
            && !(transform == IcebergTransform::Hour
                && matches!(source.field_type.as_ref(), Type::Primitive(PrimitiveType::Date)));
        if !fits {
            return Err(Error::invalid(format!(
                "partition transform {transform} cannot be applied to column \"{}\" of type {}",
                field.column, source.field_type
            )));
        }
        // NaN and the two zeros are told apart by some engines and not by others.
        if matches!(
            (transform, source.field_type.as_ref()),
            (_, Type::Primitive(PrimitiveType::Float | PrimitiveType::Double | PrimitiveType::Fixed(_)))
        ) {
            return Err(Error::unsupported(format!(
                "column \"{}\" of type {} cannot be partitioned by",
                field.column, source.field_type
            )));
        }
        builder = builder
            .add_partition_field(&field.column, format!("{}{suffix}", avro_name(&field.column)), transform)
            .map_err(|e| Error::invalid(format!("cannot partition by column \"{}\"", field.column)).with_source(e))?;
    }
    Ok(builder.build().map_err(|e| Error::invalid("the partition fields do not fit").with_source(e))?.into_unbound())
}
