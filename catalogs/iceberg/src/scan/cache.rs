use std::sync::Arc;

use arrow::row::Rows;
use futures::FutureExt;
use futures::future::BoxFuture;
use iceberg::spec::{DataFile, FormatVersion, Manifest, ManifestFile, ManifestList, Snapshot, TableMetadata};
use moka::future::Cache;
use parquet::file::metadata::ParquetMetaData;
use tidewater_catalogs::{Error, ErrorKind, Result};

use super::deletes::PositionDeletes;
use crate::commit::parse_manifest;
use crate::scan::error::from_iceberg;
use crate::storage::Storage;

/// What has been read of files that never change: manifest lists, manifests, Parquet footers, deletes.
/// One cache serves all tables of a catalog. It holds at most the given number of bytes (as estimated); entries are
/// keyed by location, which is right because Iceberg never writes one location twice.
#[derive(Clone)]
pub struct MetadataCache {
    entries: Cache<Key, Entry>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    ManifestList,
    Manifest,
    Footer,
    PositionDeletes,
    EqualityKeys,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    kind: Kind,
    location: Arc<str>,
}

#[derive(Clone)]
enum Entry {
    ManifestList(Arc<ManifestList>),
    Manifest(Arc<Manifest>),
    Footer(Arc<ParquetMetaData>),
    PositionDeletes(Arc<PositionDeletes>),
    EqualityKeys(Arc<Rows>),
}

impl Entry {
    fn weight(&self) -> usize {
        match self {
            Self::ManifestList(list) => {
                let one =
                    |m: &ManifestFile| 400 + m.manifest_path.len() + m.partitions.as_ref().map_or(0, |p| p.len() * 120);
                list.entries().iter().map(one).sum()
            }
            Self::Manifest(manifest) => {
                2_000 + manifest.entries().iter().map(|e| weight_of_file(e.data_file())).sum::<usize>()
            }
            Self::Footer(footer) => footer.memory_size(),
            Self::PositionDeletes(deletes) => deletes.memory_size(),
            Self::EqualityKeys(keys) => keys.size(),
        }
    }
}

/// Hash maps hold about twice what their entries need.
fn weight_of_file(file: &DataFile) -> usize {
    let counts = file.column_sizes().len()
        + file.value_counts().len()
        + file.null_value_counts().len()
        + file.nan_value_counts().len();
    let bounds = file.lower_bounds().len() + file.upper_bounds().len();
    600 + file.file_path().len() + counts * 32 + bounds * 160 + file.partition().fields().len() * 64
}

impl MetadataCache {
    /// 256 MiB.
    pub const DEFAULT_CAPACITY_BYTES: u64 = 256 << 20;

    pub fn new(capacity_bytes: u64) -> Self {
        let weigher =
            |key: &Key, entry: &Entry| u32::try_from(entry.weight() + key.location.len() + 200).unwrap_or(u32::MAX);
        Self {
            entries: Cache::builder().name("iceberg metadata").max_capacity(capacity_bytes).weigher(weigher).build(),
        }
    }

    /// The manifests of a snapshot.
    pub async fn manifest_list(
        &self,
        storage: &Storage,
        metadata: &TableMetadata,
        snapshot: &Snapshot,
    ) -> Result<Arc<ManifestList>> {
        if snapshot.encryption_key_id().is_some() {
            return Err(Error::unsupported("encrypted tables cannot be read"));
        }
        let location = snapshot.manifest_list();
        let load = async {
            let bytes = storage.read(location).await?;
            Ok(Entry::ManifestList(Arc::new(parse_manifest_list(&bytes, metadata.format_version(), location)?)))
        };
        match self.get(Kind::ManifestList, location, load.boxed()).await? {
            Entry::ManifestList(list) => Ok(list),
            _ => Err(wrong_entry(location)),
        }
    }

    /// The entries of a manifest, with sequence numbers inherited from the manifest list.
    pub async fn manifest(
        &self,
        storage: &Storage,
        metadata: &TableMetadata,
        file: &ManifestFile,
    ) -> Result<Arc<Manifest>> {
        let location = file.manifest_path.as_str();
        if file.key_metadata.as_ref().is_some_and(|k| !k.is_empty()) {
            return Err(Error::unsupported("encrypted tables cannot be read").with_context("manifest", location));
        }
        let load = async {
            let parsed = parse_manifest(storage, metadata, file).await?;
            let manifest = parsed.map_err(|e| from_iceberg(e).with_context("manifest", location))?;
            Ok(Entry::Manifest(Arc::new(manifest)))
        };
        match self.get(Kind::Manifest, location, load.boxed()).await? {
            Entry::Manifest(manifest) => Ok(manifest),
            _ => Err(wrong_entry(location)),
        }
    }

    pub(super) async fn footer(
        &self,
        location: &str,
        load: BoxFuture<'_, Result<Arc<ParquetMetaData>>>,
    ) -> Result<Arc<ParquetMetaData>> {
        match self.get(Kind::Footer, location, load.map(|r| r.map(Entry::Footer)).boxed()).await? {
            Entry::Footer(footer) => Ok(footer),
            _ => Err(wrong_entry(location)),
        }
    }

    pub(super) async fn position_deletes(
        &self,
        location: &str,
        load: BoxFuture<'_, Result<Arc<PositionDeletes>>>,
    ) -> Result<Arc<PositionDeletes>> {
        match self.get(Kind::PositionDeletes, location, load.map(|r| r.map(Entry::PositionDeletes)).boxed()).await? {
            Entry::PositionDeletes(deletes) => Ok(deletes),
            _ => Err(wrong_entry(location)),
        }
    }

    /// `key` tells the delete file and the columns that are compared.
    pub(super) async fn equality_keys(&self, key: &str, load: BoxFuture<'_, Result<Arc<Rows>>>) -> Result<Arc<Rows>> {
        match self.get(Kind::EqualityKeys, key, load.map(|r| r.map(Entry::EqualityKeys)).boxed()).await? {
            Entry::EqualityKeys(keys) => Ok(keys),
            _ => Err(wrong_entry(key)),
        }
    }

    /// Callers that ask for the same entry at once share one load.
    async fn get(&self, kind: Kind, location: &str, load: BoxFuture<'_, Result<Entry>>) -> Result<Entry> {
        let key = Key { kind, location: Arc::from(location) };
        self.entries.try_get_with(key, load).await.map_err(|shared: Arc<Error>| copy_error(&shared))
    }
}

impl std::fmt::Debug for MetadataCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MetadataCache")
            .field("entries", &self.entries.entry_count())
            .field("bytes", &self.entries.weighted_size())
            .finish()
    }
}

/// A list may be older than the table's format version: upgrading a table rewrites nothing. A list is read as version 1
/// only where its own schema has no sequence numbers, for version 1 would take delete manifests for data.
pub(crate) fn parse_manifest_list(bytes: &[u8], version: FormatVersion, location: &str) -> Result<ManifestList> {
    const MARK: &[u8] = b"min_sequence_number";
    let has_sequence_numbers = bytes.windows(MARK.len()).any(|w| w == MARK);
    let versions: &[FormatVersion] = match version {
        _ if !has_sequence_numbers => &[FormatVersion::V1],
        FormatVersion::V1 | FormatVersion::V2 => &[FormatVersion::V2],
        FormatVersion::V3 => &[FormatVersion::V3, FormatVersion::V2],
    };
    let mut first = None;
    for version in versions {
        match ManifestList::parse_with_version(bytes, *version) {
            Ok(list) => return Ok(list),
            Err(e) => first = first.or(Some(e)),
        }
    }
    let error = Error::new(ErrorKind::DataCorrupt, "manifest list cannot be read").with_context("location", location);
    Err(match first {
        Some(e) => error.with_source(e),
        None => error,
    })
}

fn wrong_entry(location: &str) -> Error {
    Error::internal("cache entry of another kind").with_context("location", location)
}

/// The error of a shared load reaches every waiter; the source stays with the text.
fn copy_error(error: &Error) -> Error {
    let copy = Error::new(error.kind(), error.to_string());
    match error.hint() {
        Some(hint) => copy.with_hint(hint),
        None => copy,
    }
}
