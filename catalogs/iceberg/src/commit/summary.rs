use std::collections::{HashMap, HashSet};

use iceberg::spec::{DataContentType, DataFile, DataFileFormat, Summary};

use super::stage::Change;

fn is_vector(file: &DataFile) -> bool {
    file.file_format() == DataFileFormat::Puffin
}

/// Counts of this commit and running totals, spelled as the specification's appendix has them.
pub(super) fn summary(
    parent: Option<&Summary>,
    change: &Change,
    removed: &[(i32, DataFile)],
) -> HashMap<String, String> {
    let count = |files: &[(i32, DataFile)], content: DataContentType| {
        let of_content = files.iter().map(|(_, file)| file).filter(|file| file.content_type() == content);
        of_content.fold((0, 0), |(files, rows), file| (files + 1, rows + file.record_count()))
    };
    let vectors = |files: &[(i32, DataFile)]| files.iter().filter(|(_, file)| is_vector(file)).count() as u64;
    // Of a file with several vectors each has its own share.
    let bytes = |file: &DataFile| match file.content_size_in_bytes() {
        Some(bytes) if is_vector(file) => u64::try_from(bytes).unwrap_or(0),
        _ => file.file_size_in_bytes(),
    };
    let size = |files: &[(i32, DataFile)]| files.iter().map(|(_, file)| bytes(file)).sum::<u64>();
    use DataContentType::{Data, EqualityDeletes, PositionDeletes};
    let (files, records) = count(&change.add, Data);
    let (gone_files, gone_records) = count(removed, Data);
    let (delete_files, positions) = count(&change.add_deletes, PositionDeletes);
    let (gone_delete_files, gone_positions) = count(removed, PositionDeletes);
    let (gone_equality_files, gone_keys) = count(removed, EqualityDeletes);
    let (bytes, gone_bytes) = (size(&change.add) + size(&change.add_deletes), size(removed));
    let (new_vectors, gone_vectors) = (vectors(&change.add_deletes), vectors(removed));
    let touched = change.add.iter().chain(&change.add_deletes).chain(removed);
    let partitions: HashSet<_> = touched.map(|(spec, f)| (*spec, f.partition())).collect();
    let mut all: HashMap<String, String> = change.summary.clone().into_iter().collect();
    for (key, count) in [
        ("added-data-files", files),
        ("added-records", records),
        ("added-files-size", bytes),
        ("added-delete-files", delete_files),
        ("added-position-delete-files", delete_files - new_vectors),
        ("added-dvs", new_vectors),
        ("added-position-deletes", positions),
        ("deleted-data-files", gone_files),
        ("deleted-records", gone_records),
        ("removed-files-size", gone_bytes),
        ("removed-delete-files", gone_delete_files + gone_equality_files),
        ("removed-position-delete-files", gone_delete_files - gone_vectors),
        ("removed-dvs", gone_vectors),
        ("removed-position-deletes", gone_positions),
        ("removed-equality-delete-files", gone_equality_files),
        ("removed-equality-deletes", gone_keys),
        ("changed-partition-count", partitions.len() as u64),
    ] {
        if count > 0 {
            all.insert(key.to_string(), count.to_string());
        }
    }
    for (key, more, less) in [
        ("total-data-files", files, gone_files),
        ("total-records", records, gone_records),
        ("total-files-size", bytes, gone_bytes),
        ("total-delete-files", delete_files, gone_delete_files + gone_equality_files),
        ("total-position-deletes", positions, gone_positions),
        ("total-equality-deletes", 0, gone_keys),
    ] {
        // A parent that does not give its total leaves ours unknown, and no total is better than a wrong one.
        let known = match parent {
            None => Some(0),
            Some(parent) => parent.additional_properties.get(key).and_then(|v| v.parse::<u64>().ok()),
        };
        if let Some(total) = known.and_then(|k| k.checked_add(more)).and_then(|k| k.checked_sub(less)) {
            all.insert(key.to_string(), total.to_string());
        }
    }
    all
}
