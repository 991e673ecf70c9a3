//! Whether a change that was made on one state means the same on a newer one.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use iceberg::spec::{DataContentType, DataFile, ManifestContentType, Operation, TableMetadata};
use tidewater_catalogs::{Error, ErrorKind, Result};

use super::mode::Isolation;
use crate::commit::{Base, current_manifests};
use crate::scan::{Places, TargetFile, widened};
use crate::state::TableState;

/// `Conflict` where a touched file is gone, somebody else deleted rows of it, or (serializable) rows came that the
/// change would have had to look at. Gives the base back with its manifests, which were read for this.
pub(crate) async fn check(
    began: &TableState,
    base: &Base,
    touched: &[Arc<TargetFile>],
    places: &Places,
    isolation: Isolation,
) -> Result<Base> {
    let state = &base.state;
    same_shape(&began.metadata, &state.metadata)?;
    if state.metadata.current_snapshot_id() == began.metadata.current_snapshot_id() {
        return Ok(base.clone());
    }
    let Some(only_replaced) = descent(&state.metadata, began.metadata.current_snapshot_id()) else {
        return Err(conflict("the table was set back to another snapshot"));
    };
    if isolation == Isolation::Serializable && !only_replaced && places.was_read_whole() {
        return Err(conflict("the table was changed, and the statement reads all of it"));
    }
    let before = current_manifests(began).await.map_err(|e| match e.kind() {
        ErrorKind::NotFound => conflict("the snapshot that the statement began with was removed").with_source(e),
        _ => e,
    })?;
    let before: HashSet<String> = before.into_iter().map(|m| m.manifest_path).collect();
    let now = match &base.manifests {
        Some(manifests) => Arc::clone(manifests),
        None => Arc::new(current_manifests(state).await?),
    };
    // Of main alone: other branches count on, too, and may have become main since.
    let since = began.metadata.current_snapshot().map_or(0, |s| s.sequence_number());
    let paths: HashSet<&str> = touched.iter().map(|file| file.location.as_str()).collect();
    // Files that the untouched manifests list are listed still.
    let listed: HashSet<&str> = now.iter().map(|m| m.manifest_path.as_str()).collect();
    let mut missing: HashSet<&str> = touched
        .iter()
        .filter(|file| !listed.contains(file.manifest.as_str()))
        .map(|file| file.location.as_str())
        .collect();
    let mut came: HashMap<i32, Vec<DataFile>> = HashMap::new();
    for manifest in now.iter().filter(|m| !before.contains(&m.manifest_path)) {
        let entries = state.cache.manifest(&state.storage, &state.metadata, manifest).await?;
        for entry in entries.entries().iter().filter(|e| e.is_alive()) {
            let file = entry.data_file();
            let is_new = entry.sequence_number().is_none_or(|n| n > since);
            if manifest.content == ManifestContentType::Data {
                missing.remove(file.file_path());
                // What was only written anew brings no rows; what was appended and then written anew does.
                if is_new && !only_replaced {
                    came.entry(manifest.partition_spec_id).or_default().push(file.clone());
                }
            } else if is_new && may_touch(file, manifest.partition_spec_id, touched, &paths) {
                return Err(conflict("rows of the same data files were deleted by someone else"));
            }
        }
    }
    if !missing.is_empty() {
        return Err(conflict("data files that the statement changes were replaced by someone else"));
    }
    if isolation == Isolation::Serializable {
        for (spec_id, files) in came {
            let files: Vec<&DataFile> = files.iter().collect();
            if places.may_concern(state, spec_id, &files)? {
                return Err(conflict("rows were added that the statement might have to change"));
            }
        }
    }
    Ok(Base { manifests: Some(now), ..base.clone() })
}

/// Columns and partitions are those that the files were written with.
fn same_shape(before: &TableMetadata, now: &TableMetadata) -> Result<()> {
    let same = before.current_schema_id() == now.current_schema_id()
        && before.default_partition_spec_id() == now.default_partition_spec_id()
        && before.format_version() == now.format_version();
    if same { Ok(()) } else { Err(conflict("the columns or partitions of the table were changed")) }
}

/// Whether all that came since only wrote anew what was there. None where the line from main does not lead to `from`.
fn descent(metadata: &TableMetadata, from: Option<i64>) -> Option<bool> {
    let (mut next, mut only_replaced) = (metadata.current_snapshot_id(), true);
    for _ in 0..=metadata.snapshots().len() {
        if next == from {
            return Some(only_replaced);
        }
        let snapshot = metadata.snapshot_by_id(next?)?;
        only_replaced &= snapshot.summary().operation == Operation::Replace;
        next = snapshot.parent_snapshot_id();
    }
    None
}

/// Whether a delete file may delete rows of a touched file.
fn may_touch(delete: &DataFile, spec_id: i32, touched: &[Arc<TargetFile>], paths: &HashSet<&str>) -> bool {
    match delete.referenced_data_file() {
        Some(path) => paths.contains(path.as_str()),
        None if delete.content_type() == DataContentType::EqualityDeletes => !touched.is_empty(),
        None => {
            let partition = widened(delete.partition());
            touched.iter().any(|file| file.spec_id == spec_id && widened(&file.partition) == partition)
        }
    }
}

fn conflict(why: &str) -> Error {
    Error::new(ErrorKind::Conflict, "could not serialize access due to a concurrent change of the table")
        .with_detail(format!("Meanwhile {why}."))
        .with_hint("Run the statement again. With write.<statement>.isolation-level = snapshot, rows that are added meanwhile do not count.")
}
