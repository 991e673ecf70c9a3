//! Table properties that the writer, the committer and maintenance obey, with what they are by default.

use std::collections::{BTreeMap, HashMap};
use std::str::FromStr;
use std::time::Duration;

use tidewater_catalogs::{Error, Result};

const MIB: u64 = 1 << 20;

pub(crate) const COMPRESSION: (&str, &str) = ("write.parquet.compression-codec", "zstd");
pub(crate) const COMPRESSION_LEVEL: &str = "write.parquet.compression-level";
pub(crate) const ROW_GROUP_BYTES: (&str, u64) = ("write.parquet.row-group-size-bytes", 128 * MIB);
pub(crate) const ROW_GROUP_ROWS: (&str, u64) = ("write.parquet.row-group-limit", 1 << 20);
pub(crate) const PAGE_BYTES: (&str, u64) = ("write.parquet.page-size-bytes", MIB);
pub(crate) const PAGE_ROWS: (&str, u64) = ("write.parquet.page-row-limit", 20_000);
pub(crate) const DICTIONARY_BYTES: (&str, u64) = ("write.parquet.dict-size-bytes", MIB);
/// Behind these stands the name of a column.
pub(crate) const BLOOM_ENABLED: &str = "write.parquet.bloom-filter-enabled.column.";
pub(crate) const BLOOM_FPP: &str = "write.parquet.bloom-filter-fpp.column.";
pub(crate) const METRICS_COLUMN: &str = "write.metadata.metrics.column.";
pub(crate) const BLOOM_BYTES: (&str, u64) = ("write.parquet.bloom-filter-max-bytes", MIB);
pub(crate) const METRICS_DEFAULT: &str = "write.metadata.metrics.default";
/// Columns that have bounds where the table does not say; a manifest with more is slower than it is worth.
pub(crate) const METRICS_INFERRED: (&str, u64) = ("write.metadata.metrics.max-inferred-column-defaults", 100);
pub(crate) const TARGET_FILE_BYTES: (&str, u64) = ("write.target-file-size-bytes", 256 * MIB);
/// none, hash or range.
pub(crate) const DISTRIBUTION: &str = "write.distribution-mode";
/// Files that one writer holds open at a time; one more closes the largest.
pub(crate) const OPEN_FILES: (&str, u64) = ("tidewater.write.open-files", 64);

pub(crate) const MANIFEST_TARGET_BYTES: (&str, u64) = ("commit.manifest.target-size-bytes", 8 * MIB);
pub(crate) const MANIFEST_MIN_MERGE: (&str, u64) = ("commit.manifest.min-count-to-merge", 50);
pub(crate) const MANIFEST_MERGE: (&str, bool) = ("commit.manifest-merge.enabled", true);

const METADATA_COMPRESSION: &str = "write.metadata.compression-codec";
/// Where the property says nothing, metadata files are compressed when their JSON is longer than this.
const PLAIN_METADATA_BYTES: usize = 1 << 20;

const PREVIOUS_VERSIONS: (&str, u64) = ("write.metadata.previous-versions-max", 50);
pub(crate) const DELETE_AFTER_COMMIT: (&str, bool) = ("write.metadata.delete-after-commit.enabled", false);

/// What the specification says where a table does not; tables of ours are created with less.
pub(crate) const SNAPSHOT_AGE_MS: (&str, u64) = ("history.expire.max-snapshot-age-ms", 5 * 24 * 3_600_000);
pub(crate) const SNAPSHOTS_TO_KEEP: (&str, u64) = ("history.expire.min-snapshots-to-keep", 1);
/// Of branches and tags but main, by the age of their snapshots.
pub(crate) const REFERENCE_AGE_MS: (&str, u64) = ("history.expire.max-ref-age-ms", i64::MAX as u64);
/// Whether small files of a table are written anew while a flow writes to it.
pub(crate) const AUTO_OPTIMIZE: (&str, bool) = ("tidewater.optimize.enabled", true);
pub(crate) const GC: (&str, bool) = ("gc.enabled", true);

/// What a new table gets where its creator did not say otherwise. Written down, so that other engines obey it too.
pub(crate) fn defaults(snapshot_retention: Duration, snapshots_kept: u64) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    let mut set = |key: &str, value: String| all.insert(key.to_string(), value);
    set(COMPRESSION.0, COMPRESSION.1.to_string());
    set(COMPRESSION_LEVEL, "1".to_string());
    set(TARGET_FILE_BYTES.0, TARGET_FILE_BYTES.1.to_string());
    set(PREVIOUS_VERSIONS.0, PREVIOUS_VERSIONS.1.to_string());
    set(DELETE_AFTER_COMMIT.0, "true".to_string());
    set(SNAPSHOT_AGE_MS.0, snapshot_retention.as_millis().to_string());
    set(SNAPSHOTS_TO_KEEP.0, snapshots_kept.max(1).to_string());
    all
}

/// The value of a property, or its default. A value that is not understood is an error, and not the default: it
/// may have been meant to keep data.
pub(crate) fn get<T: FromStr + Copy>(properties: &HashMap<String, String>, (key, default): (&str, T)) -> Result<T> {
    match properties.get(key) {
        None => Ok(default),
        Some(text) => text
            .trim()
            .parse()
            .map_err(|_| Error::invalid(format!("invalid value for table property \"{key}\": \"{text}\""))),
    }
}

/// How a metadata file is written. Either is read, whatever the property says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MetadataCodec {
    None,
    Gzip,
}

/// For a metadata file whose JSON has so many bytes. Others may have set the property to what is not known here: plain
/// files are read by all.
pub(crate) fn metadata_codec(properties: &HashMap<String, String>, bytes: usize) -> MetadataCodec {
    match properties.get(METADATA_COMPRESSION) {
        None if bytes > PLAIN_METADATA_BYTES => MetadataCodec::Gzip,
        Some(codec) if codec.trim().eq_ignore_ascii_case("gzip") => MetadataCodec::Gzip,
        _ => MetadataCodec::None,
    }
}

/// How rows are spread before they are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Distribution {
    /// As they come.
    None,
    /// Rows of a partition together.
    Hash,
    /// Sorted by partition.
    Range,
}

impl Distribution {
    /// Rows of a partition come together where the table does not say, as other engines have it.
    pub(crate) fn of(properties: &HashMap<String, String>) -> Result<Self> {
        match properties.get(DISTRIBUTION).map(|mode| mode.trim().to_ascii_lowercase()).as_deref() {
            None | Some("hash") => Ok(Self::Hash),
            Some("none") => Ok(Self::None),
            Some("range") => Ok(Self::Range),
            Some(_) => Err(Error::invalid(format!(
                "invalid value for table property \"{DISTRIBUTION}\": it must be \"none\", \"hash\" or \"range\""
            ))),
        }
    }
}

/// Checked when a table is made, so that no flow fails on it later.
pub(crate) fn check(properties: &HashMap<String, String>) -> Result<()> {
    for number in [
        ROW_GROUP_BYTES,
        ROW_GROUP_ROWS,
        PAGE_BYTES,
        PAGE_ROWS,
        BLOOM_BYTES,
        DICTIONARY_BYTES,
        TARGET_FILE_BYTES,
        OPEN_FILES,
        MANIFEST_TARGET_BYTES,
        MANIFEST_MIN_MERGE,
        PREVIOUS_VERSIONS,
        SNAPSHOTS_TO_KEEP,
    ] {
        if get(properties, number)? == 0 {
            return Err(Error::invalid(format!(
                "invalid value for table property \"{}\": it must be above 0",
                number.0
            )));
        }
    }
    get(properties, SNAPSHOT_AGE_MS)?;
    get(properties, REFERENCE_AGE_MS)?;
    for flag in [MANIFEST_MERGE, DELETE_AFTER_COMMIT, AUTO_OPTIMIZE, GC] {
        get(properties, flag)?;
    }
    Distribution::of(properties)?;
    crate::change::check_properties(properties)?;
    match properties.get(METADATA_COMPRESSION).map(|codec| codec.trim().to_ascii_lowercase()).as_deref() {
        None | Some("none" | "gzip") => Ok(()),
        Some(_) => Err(Error::invalid(format!(
            "invalid value for table property \"{METADATA_COMPRESSION}\": it must be \"none\" or \"gzip\""
        ))),
    }
}
