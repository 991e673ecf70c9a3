//! Snapshots that are too old, and files that no snapshot names.
//!
//! What is looked at in which order is what keeps live files: first the files that are there, then the commits that are
//! under way, then the table. A file of a commit that ended in between is in the table by then; one that came later was
//! not among the files.

use std::collections::HashSet;
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};
use iceberg::spec::{ManifestFile, Snapshot};
use percent_encoding::percent_decode_str;
use tidewater_catalogs::{Error, Result, VacuumRetention, Vacuumed};

use crate::commit::{Expiry, expirable, expire, load_manifest, manifests_of, print};
use crate::lake::Lake;
use crate::properties as p;
use crate::state::TableState;

/// Manifests that are read at a time.
const MANIFESTS_AT_ONCE: usize = 8;
/// Others may commit while snapshots are dropped.
const ATTEMPTS: usize = 10;
/// Files that one request removes.
const FILES_AT_ONCE: usize = 1000;
/// For files that nobody names, where the statement says nothing: a commit elsewhere may be about to name them.
const ORPHAN_AGE_MS: u64 = 3 * 24 * 3_600_000;

/// Files of metadata have names of their own, and a commit points to them as soon as they are written: nobody takes longer.
const METADATA_AGE_MS: i64 = 600_000;

pub(crate) async fn vacuum(
    lake: &Lake,
    state: Arc<TableState>,
    retention: VacuumRetention,
    dry_run: bool,
) -> Result<Vacuumed> {
    if !p::get(state.metadata.properties(), p::GC)? {
        return Err(Error::unsupported(format!("files of table \"{}\" must not be removed", state.name))
            .with_detail("Its property \"gc.enabled\" is false: other tables may share its files."));
    }
    let now_ms = lake.now_ms();
    let expiry = Expiry { age_ms: retention.age_ms, keep: retention.snapshots, all: true };
    let old: Vec<Arc<Snapshot>> = expirable(lake, &state, expiry, now_ms).await?;
    let old_ids: HashSet<i64> = old.iter().map(|s| s.snapshot_id()).collect();
    let mut named_by_old = names(&state, &old).await?;
    let counted = old.iter().filter_map(|s| state.metadata.statistics_for_snapshot(s.snapshot_id()));
    named_by_old.extend(counted.flat_map(|s| prints(&s.statistics_path)));

    let own = lake.owns_folder(&state);
    let found = state.storage.list_files(state.metadata.location()).await?;
    let writing: HashSet<String> = lake.in_flight.commits().into_iter().collect();
    let (newest, expired) = if dry_run {
        (Arc::clone(&state), old_ids.clone())
    } else {
        let mut expired = HashSet::new();
        for _ in 0..ATTEMPTS {
            if old.is_empty() || !expired.is_empty() {
                break;
            }
            expired = expire(lake, lake.load(&state.name).await?, expiry, now_ms).await?;
        }
        (lake.load(&state.name).await?, expired)
    };
    if newest.metadata.uuid() != state.metadata.uuid() {
        return Err(crate::lake::another(&state.name));
    }
    let kept: Vec<Arc<Snapshot>> =
        newest.metadata.snapshots().filter(|s| !dry_run || !old_ids.contains(&s.snapshot_id())).cloned().collect();
    let mut live = names(&newest, &kept).await?;
    live.extend(newest.metadata.metadata_log().iter().flat_map(|log| prints(&log.metadata_file)));
    let told = newest.metadata.statistics_iter().filter(|s| !dry_run || !old_ids.contains(&s.snapshot_id));
    live.extend(told.flat_map(|s| prints(&s.statistics_path)));
    live.extend(newest.metadata.partition_statistics_iter().flat_map(|s| prints(&s.statistics_path)));
    live.extend(prints(&newest.metadata_location));

    let before = now_ms.saturating_sub(i64::try_from(retention.age_ms.unwrap_or(ORPHAN_AGE_MS)).unwrap_or(i64::MAX));
    let recent = now_ms.saturating_sub(METADATA_AGE_MS);
    let mut garbage = Vec::new();
    let mut done = Vacuumed { snapshots: expired.len() as u64, ..Vacuumed::default() };
    for file in found {
        let name = name_of(&file.location);
        let prints = prints(&file.location);
        let unnamed = prints.iter().all(|print| !live.contains(print));
        // Files of expired snapshots were named until now: no commit is about to.
        let was_named = prints.iter().any(|print| named_by_old.contains(print));
        // What never was in a snapshot may belong to another table that shares the folder, or be about to be named.
        let is_orphan = own && file.modified_ms < if is_metadata(name) { before.min(recent) } else { before };
        let in_flight = commit_of(name).is_some_and(|commit| writing.contains(commit));
        if unnamed && (was_named || is_orphan) && !in_flight {
            done.files += 1;
            done.bytes += file.bytes;
            garbage.push(file.location);
        }
    }
    if !dry_run {
        for some in garbage.chunks(FILES_AT_ONCE) {
            newest.storage.delete(some.to_vec()).await?;
        }
    }
    Ok(done)
}

/// Prints of the names of all files that the snapshots name, manifests included.
async fn names(state: &TableState, snapshots: &[Arc<Snapshot>]) -> Result<HashSet<u64>> {
    let mut all = HashSet::new();
    let mut seen = HashSet::new();
    for snapshot in snapshots {
        all.extend(prints(snapshot.manifest_list()));
        let manifests = manifests_of(state, Some(snapshot)).await?;
        let new: Vec<ManifestFile> = manifests.into_iter().filter(|m| seen.insert(print(&m.manifest_path))).collect();
        all.extend(new.iter().flat_map(|m| prints(&m.manifest_path)));
        let read = stream::iter(new).map(|manifest| async move { load_manifest(state, &manifest).await });
        let mut read = std::pin::pin!(read.buffer_unordered(MANIFESTS_AT_ONCE));
        while let Some(manifest) = read.try_next().await? {
            let alive = manifest.entries().iter().filter(|entry| entry.is_alive());
            all.extend(alive.flat_map(|entry| prints(entry.file_path())));
        }
    }
    Ok(all)
}

fn name_of(location: &str) -> &str {
    location.rsplit('/').next().unwrap_or(location)
}

fn is_metadata(name: &str) -> bool {
    name.ends_with(".json") || name.ends_with(".avro") || name.starts_with("version-hint")
}

/// The commit that a file was written for, where it is one of ours: `<commit>-…`, `snap-…-<commit>.avro`.
fn commit_of(name: &str) -> Option<&str> {
    const LENGTH: usize = 36;
    let stem = name.split('.').next().unwrap_or(name);
    if name.starts_with("snap-") { stem.get(stem.len().checked_sub(LENGTH)?..) } else { stem.get(..LENGTH) }
}

/// The same file may be spelled in several ways (`s3a:`, `%20`), so its bare name stands for it: a file stays where
/// another of its name is live.
fn prints(location: &str) -> [u64; 2] {
    let name = name_of(location);
    [print(name), print(&percent_decode_str(name).decode_utf8_lossy())]
}
