//! Row lineage of format version 3 (Iceberg spec, "Row Lineage"): where the ids of a file's rows begin.

use iceberg::spec::{DataFile, DataFileBuilder, ManifestContentType, ManifestEntryRef, ManifestFile};
use tidewater_catalogs::{Error, Result};

/// Gives ids to the rows of each data manifest that has none, from `next` on. Returns the id after them.
pub(super) fn assign(manifests: &mut [ManifestFile], next: u64) -> Result<u64> {
    let mut next = next;
    for manifest in manifests.iter_mut().filter(|m| m.content == ManifestContentType::Data && m.first_row_id.is_none())
    {
        let rows = manifest.added_rows_count.zip(manifest.existing_rows_count);
        let rows = rows.and_then(|(added, existing)| added.checked_add(existing)).ok_or_else(|| {
            Error::unsupported("manifest does not say how many rows its files have")
                .with_context("manifest", &manifest.manifest_path)
                .with_hint("Let Spark's rewrite_manifests write it anew.")
        })?;
        manifest.first_row_id = Some(next);
        next = next.checked_add(rows).ok_or_else(|| Error::unsupported("a table with so many row ids"))?;
    }
    Ok(next)
}

/// The id of the first row of each file that a manifest lists. None where rows have no ids yet: they come from before the
/// table had format version 3.
pub(crate) fn first_row_ids(manifest: &ManifestFile, entries: &[ManifestEntryRef]) -> Vec<Option<i64>> {
    let first = manifest.first_row_id.filter(|_| manifest.content == ManifestContentType::Data);
    let Some(mut next) = first.and_then(|id| i64::try_from(id).ok()) else { return vec![None; entries.len()] };
    let of_entry = |entry: &ManifestEntryRef| match entry.data_file().first_row_id() {
        Some(own) => Some(own),
        None if entry.is_alive() => {
            let inherited = next;
            next = next.saturating_add_unsigned(entry.record_count());
            Some(inherited)
        }
        None => None,
    };
    entries.iter().map(of_entry).collect()
}

/// The file with the id of its first row written down, as it is wherever a manifest is written anew.
pub(crate) fn with_first_row_id(file: &DataFile, spec_id: i32, id: Option<i64>) -> Result<DataFile> {
    if file.first_row_id() == id {
        return Ok(file.clone());
    }
    let mut copy = DataFileBuilder::default();
    copy.content(file.content_type())
        .file_path(file.file_path().to_owned())
        .file_format(file.file_format())
        .partition(file.partition().clone())
        .partition_spec_id(spec_id)
        .record_count(file.record_count())
        .file_size_in_bytes(file.file_size_in_bytes())
        .column_sizes(file.column_sizes().clone())
        .value_counts(file.value_counts().clone())
        .null_value_counts(file.null_value_counts().clone())
        .nan_value_counts(file.nan_value_counts().clone())
        .lower_bounds(file.lower_bounds().clone())
        .upper_bounds(file.upper_bounds().clone())
        .key_metadata(file.key_metadata().map(<[u8]>::to_vec))
        .split_offsets(file.split_offsets().map(<[i64]>::to_vec))
        .equality_ids(file.equality_ids())
        .first_row_id(id)
        .referenced_data_file(file.referenced_data_file())
        .content_offset(file.content_offset())
        .content_size_in_bytes(file.content_size_in_bytes());
    if let Some(order) = file.sort_order_id() {
        copy.sort_order_id(order);
    }
    copy.build().map_err(|e| Error::internal("cannot describe a data file").with_source(e))
}
