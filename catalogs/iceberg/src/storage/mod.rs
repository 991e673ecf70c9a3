//! Where files of tables lie, and the only place that writes them: the local disk, or buckets of an object store.
//!
//! ```text
//!   location ──► file:…                 local.rs    written, synced, named
//!            └─► s3://… gs://… abfss://… object.rs   put once, read, listed;  upload.rs  data files, part by part
//!                     one store a bucket, opened from options.rs, credentials of the catalog in vended.rs
//! ```

mod local;
mod location;
mod object;
mod options;
mod upload;
mod vended;

use std::collections::HashMap;
use std::io::Write;
use std::sync::Arc;

use bytes::Bytes;
use object_store::local::LocalFileSystem;
use object_store::{ObjectMeta, ObjectStore};
use parking_lot::Mutex;
use tidewater_catalogs::Result;

use location::{Kind, ObjectLocation};
pub(crate) use options::{CLIENT_REGION, S3_KEY, S3_REGION, S3_SECRET, S3_TOKEN, aws_credentials, is_credential};
pub use options::{STORE_OPTIONS, StoreOptions, check_store_options, is_store_option};
use upload::{Permits, Upload};
pub(crate) use vended::{Renew, Vended};

/// One warehouse and the stores that its tables lie in. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Storage {
    stores: Arc<Stores>,
    warehouse: Arc<str>,
}

/// Open stores with the options they share.
struct Stores {
    options: StoreOptions,
    vended: Option<Arc<Vended>>,
    /// By kind and bucket.
    open: Mutex<HashMap<(Kind, String), Arc<dyn ObjectStore>>>,
    permits: Permits,
}

impl std::fmt::Debug for Stores {
    /// Options may be keys.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stores").field("open", &self.open.lock().len()).finish_non_exhaustive()
    }
}

impl Stores {
    fn new(options: StoreOptions, vended: Option<Arc<Vended>>, permits: Permits) -> Arc<Self> {
        Arc::new(Self { options, vended, open: Mutex::default(), permits })
    }

    fn of(&self, location: &ObjectLocation<'_>) -> Result<Arc<dyn ObjectStore>> {
        let key = (location.kind, location.authority.to_string());
        if let Some(open) = self.open.lock().get(&key) {
            return Ok(Arc::clone(open));
        }
        let store = options::build(location, &self.options, self.vended.as_ref())?;
        Ok(Arc::clone(self.open.lock().entry(key).or_insert(store)))
    }
}

impl Storage {
    /// `warehouse` is a directory (made where it is missing), or the URL of one, or that of a prefix in a bucket,
    /// which is not asked yet.
    pub fn open(warehouse: &str, options: &StoreOptions) -> Result<Self> {
        let warehouse = match ObjectLocation::parse(warehouse)? {
            None => local::open(warehouse)?,
            Some(location) => {
                location.path()?;
                warehouse.trim_end_matches('/').to_string()
            }
        };
        let stores = Stores::new(options.clone(), None, Permits::default());
        Ok(Self { stores, warehouse: warehouse.into() })
    }

    /// For tables that have locations of their own, and no warehouse.
    pub(crate) fn of_tables(options: &StoreOptions) -> Self {
        let stores = Stores::new(options.clone(), None, Permits::default());
        Self { stores, warehouse: "".into() }
    }

    /// The same, with other options and credentials that are renewed: those of one table.
    pub(crate) fn for_table(&self, options: StoreOptions, vended: Option<Arc<Vended>>) -> Self {
        let stores = Stores::new(options, vended, self.stores.permits.clone());
        Self { stores, warehouse: Arc::clone(&self.warehouse) }
    }

    pub(crate) fn options(&self) -> &StoreOptions {
        &self.stores.options
    }

    /// Without a slash at the end.
    pub fn warehouse(&self) -> &str {
        &self.warehouse
    }

    /// Reads what lies in the bucket of `location`. Rooted so that the path of an object is the path of its
    /// location's URL, without the leading slash.
    pub(crate) fn object_store(&self, location: &str) -> Result<Arc<dyn ObjectStore>> {
        match ObjectLocation::parse(location)? {
            None => Ok(Arc::new(LocalFileSystem::new())),
            Some(location) => self.stores.of(&location),
        }
    }

    pub async fn read(&self, location: &str) -> Result<Bytes> {
        match ObjectLocation::parse(location)? {
            None => local::read(location).await,
            Some(at) => object::read(self.stores.of(&at)?.as_ref(), &at.path()?, location).await,
        }
    }

    /// Writes new files, all of them durable when this returns. Their names are chosen at random, so that one that is
    /// there already with the same content is one of ours whose answer was lost.
    pub async fn write_new(&self, files: Vec<(String, Bytes)>) -> Result<()> {
        let mut on_disk = Vec::new();
        let mut objects = Vec::new();
        for (location, bytes) in files {
            match ObjectLocation::parse(&location)? {
                None => on_disk.push((location, bytes)),
                Some(at) => objects.push((self.stores.of(&at)?, at.path()?, location, bytes)),
            }
        }
        if !on_disk.is_empty() {
            local::write_new(on_disk).await?;
        }
        object::put_all(objects).await
    }

    /// Like `write_new` for one file, and `AlreadyExists` where the name is taken by another content. Nobody ever
    /// sees half a file.
    pub async fn put_new(&self, location: &str, bytes: Bytes) -> Result<()> {
        match ObjectLocation::parse(location)? {
            None => local::put_new(location, bytes).await,
            Some(at) => object::put_new(self.stores.of(&at)?.as_ref(), &at.path()?, location, bytes).await,
        }
    }

    /// A new file to write piece by piece. Blocks: call it on a thread of a runtime where blocking is allowed.
    pub(crate) fn create(&self, location: &str) -> Result<FileSink> {
        match ObjectLocation::parse(location)? {
            None => local::create(location).map(FileSink::Local),
            Some(at) => {
                let upload = Upload::new(self.stores.of(&at)?, at.path()?, location, self.stores.permits.clone())?;
                Ok(FileSink::Object(Arc::new(Mutex::new(upload))))
            }
        }
    }

    /// Removes files; those that are gone already are no error.
    pub async fn delete(&self, locations: Vec<String>) -> Result<()> {
        let mut on_disk = Vec::new();
        let mut by_bucket: HashMap<(Kind, String), (Arc<dyn ObjectStore>, Vec<object_store::path::Path>)> =
            HashMap::new();
        for location in locations {
            match ObjectLocation::parse(&location)? {
                None => on_disk.push(location),
                Some(at) => {
                    let store = self.stores.of(&at)?;
                    let bucket = by_bucket.entry((at.kind, at.authority.to_string()));
                    bucket.or_insert_with(|| (store, Vec::new())).1.push(at.path()?);
                }
            }
        }
        if !on_disk.is_empty() {
            local::delete(on_disk).await?;
        }
        for (store, paths) in by_bucket.into_values() {
            object::delete(store.as_ref(), paths).await?;
        }
        Ok(())
    }

    /// Removes a directory, or a prefix, with all that is in it.
    pub async fn delete_tree(&self, location: &str) -> Result<()> {
        match ObjectLocation::parse(location)? {
            None => local::delete_tree(location).await,
            Some(at) => object::delete_tree(self.stores.of(&at)?.as_ref(), &at.path()?, location).await,
        }
    }

    /// Locations of all files below `location`, sorted; temporary ones left out.
    pub async fn list(&self, location: &str) -> Result<Vec<String>> {
        let mut found: Vec<String> = self.list_files(location).await?.into_iter().map(|file| file.location).collect();
        found.sort();
        Ok(found)
    }

    /// All files below `location`, temporary ones left out.
    pub(crate) async fn list_files(&self, location: &str) -> Result<Vec<FoundFile>> {
        match ObjectLocation::parse(location)? {
            None => local::list(location).await,
            Some(at) => {
                let found = object::list(self.stores.of(&at)?.as_ref(), &at.path()?, location).await?;
                let file = |meta: &ObjectMeta| FoundFile {
                    location: at.sibling(&meta.location),
                    bytes: meta.size,
                    modified_ms: meta.last_modified.timestamp_millis(),
                };
                Ok(found.iter().map(file).collect())
            }
        }
    }
}

#[derive(Debug)]
pub(crate) struct FoundFile {
    pub(crate) location: String,
    pub(crate) bytes: u64,
    /// By the clock of whoever keeps the file.
    pub(crate) modified_ms: i64,
}

/// Whether a location can be written to at all; nothing is asked.
pub(crate) fn check_location(location: &str) -> Result<()> {
    match ObjectLocation::parse(location)? {
        None => local::local_path(location).map(|_| ()),
        Some(at) => at.path().map(|_| ()),
    }
}

/// A file that is being written. Garbage until [`finish_files`] returns.
pub(crate) enum FileSink {
    Local(local::LocalFile),
    Object(Arc<Mutex<Upload>>),
}

impl FileSink {
    /// The same file, to be made durable later by [`finish_files`].
    pub(crate) fn written(&self) -> Result<FileSink> {
        match self {
            Self::Local(file) => file.written().map(Self::Local),
            Self::Object(upload) => Ok(Self::Object(Arc::clone(upload))),
        }
    }

    /// Bytes that are held in memory until there are enough of them for a part.
    pub(crate) fn held_bytes(&self) -> usize {
        match self {
            Self::Local(_) => 0,
            Self::Object(upload) => upload.lock().held_bytes(),
        }
    }
}

impl Write for FileSink {
    fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
        match self {
            Self::Local(file) => file.write(buf),
            Self::Object(upload) => upload.lock().write(buf),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        match self {
            Self::Local(file) => file.flush(),
            Self::Object(_) => Ok(()),
        }
    }
}

/// Makes complete files durable, names included. Blocks. Several at a time, as a disk and a network take them
/// together for the price of one.
pub(crate) fn finish_files(files: Vec<FileSink>) -> Result<()> {
    let mut on_disk = Vec::new();
    let mut uploads = Vec::new();
    for file in files {
        match file {
            FileSink::Local(file) => on_disk.push(file),
            FileSink::Object(upload) => uploads.push(upload),
        }
    }
    if !on_disk.is_empty() {
        local::sync_files(&on_disk)?;
    }
    upload::finish_all(&uploads)
}
