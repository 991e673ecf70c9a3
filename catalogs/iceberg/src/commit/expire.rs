use std::collections::{HashMap, HashSet};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use futures::future::try_join_all;
use iceberg::TableRequirement;
use iceberg::spec::{
    MAIN_BRANCH, Operation, Snapshot, SnapshotReference, SnapshotRetention, TableMetadata, TableMetadataBuilder,
};
use tidewater_catalogs::{Error, FLOW_REFERENCE_PREFIX, Result};

use super::anchor::{self, Descent};
use super::manifests::of as manifests_of;
use super::references::references;
use crate::error;
use crate::lake::{Lake, Swap};
use crate::properties as p;
use crate::state::TableState;

/// Expiring rewrites the metadata and reads a manifest list per snapshot, so it waits until it is worth it: this
/// share of the snapshots, and at most this many.
const WORTH_SHARE: usize = 10;
const WORTH_COUNT: usize = 100;

/// A store far away takes them together for the time of one.
const LISTS_AT_ONCE: usize = 16;

/// Which snapshots are too old. By default those that the table's properties say, once there are enough of them.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Expiry {
    /// In the place of the properties.
    pub(crate) age_ms: Option<u64>,
    pub(crate) keep: Option<u64>,
    /// However few there are.
    pub(crate) all: bool,
}

/// Snapshots that would go.
pub(crate) async fn expirable(
    lake: &Lake,
    state: &Arc<TableState>,
    expiry: Expiry,
    now_ms: i64,
) -> Result<Vec<Arc<Snapshot>>> {
    let base = lake.base(Arc::clone(state)).await?;
    let mut refs = references(&base)?;
    let outdated = outdated(&state.metadata, &refs, now_ms)?;
    refs.retain(|name, _| !outdated.contains(name));
    let old = too_old(&state.metadata, &refs, expiry, now_ms)?;
    Ok(old.into_iter().cloned().collect())
}

/// Drops old snapshots from the table, then removes the metadata files that only they named. Data files are never
/// removed: those that only an expired snapshot names are left for a vacuum. Returns the snapshots that went; none
/// where someone else committed meanwhile.
pub(crate) async fn expire(lake: &Lake, state: Arc<TableState>, expiry: Expiry, now_ms: i64) -> Result<HashSet<i64>> {
    let none = HashSet::new();
    let metadata = &state.metadata;
    if !p::get(metadata.properties(), p::GC)? {
        return Ok(none);
    }
    let base = lake.base(Arc::clone(&state)).await?;
    let refs = references(&base)?;
    let outdated = outdated(metadata, &refs, now_ms)?;
    let mut kept = refs.clone();
    kept.retain(|name, _| !outdated.contains(name));
    let old = too_old(metadata, &kept, expiry, now_ms)?;
    let enough = if expiry.all { 0 } else { (metadata.snapshots().len() / WORTH_SHARE).min(WORTH_COUNT) };
    let worth = !old.is_empty() && old.len() >= enough;
    if !worth && outdated.is_empty() {
        return Ok(none);
    }
    let ids: Vec<i64> = old.iter().map(|s| s.snapshot_id()).collect();
    let notes = descents(metadata, &ids)?;
    let alter = |builder: TableMetadataBuilder| {
        let builder = outdated.iter().fold(builder, |builder, name| builder.remove_ref(name));
        let counted = |id: &&i64| metadata.statistics_for_snapshot(**id).is_some();
        let builder = ids.iter().filter(counted).fold(builder, |builder, id| builder.remove_statistics(*id));
        let builder = builder.remove_snapshots(&ids);
        if notes.is_empty() {
            return Ok(builder);
        }
        builder.set_properties(notes.clone()).map_err(|e| error::iceberg("expire snapshots", e))
    };
    let built = alter(metadata.as_ref().clone().into_builder(Some(state.metadata_location.clone())))?
        .build()
        .map_err(|e| error::iceberg("expire snapshots", e))?;

    // Read before the swap: afterwards a list that is missing would leave its manifests for ever, and a list that
    // cannot be read must stop the expiry, not the removal.
    let garbage = only_in_expired(lake, &state, &built.metadata, &old).await?;
    let kept: HashSet<i64> = built.metadata.snapshots().map(|s| s.snapshot_id()).collect();

    let staged = base.without_snapshot(built, unchanged(metadata, &refs), alter)?;
    match lake.swap(&base, staged).await {
        Swap::Done(next) => {
            let garbage = still_garbage(&next.state, &kept, garbage).await?;
            tracing::debug!(table = %state.name, snapshots = ids.len(), files = garbage.len(), "snapshots expired");
            next.state.storage.delete(garbage).await?;
            Ok(ids.into_iter().collect())
        }
        Swap::Moved => Ok(none),
        // Not known to be expired, so nothing is removed; the files are orphans if it was.
        Swap::Unknown(e) | Swap::Refused(e) => Err(e),
    }
}

/// No branch and no tag has moved.
fn unchanged(metadata: &TableMetadata, refs: &HashMap<String, SnapshotReference>) -> Vec<TableRequirement> {
    let uuid = TableRequirement::UuidMatch { uuid: metadata.uuid() };
    let refs = refs.iter().map(|(name, reference)| TableRequirement::RefSnapshotIdMatch {
        r#ref: name.clone(),
        snapshot_id: Some(reference.snapshot_id),
    });
    std::iter::once(uuid).chain(refs).collect()
}

/// A catalog that applies the change by itself may have let others in between, whose snapshots name files too.
async fn still_garbage(state: &TableState, known: &HashSet<i64>, garbage: Vec<String>) -> Result<Vec<String>> {
    let new: Vec<_> = state.metadata.snapshots().filter(|s| !known.contains(&s.snapshot_id())).collect();
    let mut garbage = garbage;
    for snapshot in new {
        let named = manifest_paths(state, snapshot).await?;
        garbage.retain(|path| path != snapshot.manifest_list() && !named.contains(path));
    }
    Ok(garbage)
}

/// References whose time is over. Those of flows and main stay for ever (Iceberg spec, "Snapshot Retention Policy").
fn outdated(metadata: &TableMetadata, refs: &HashMap<String, SnapshotReference>, now_ms: i64) -> Result<Vec<String>> {
    let default_age = i64::try_from(p::get(metadata.properties(), p::REFERENCE_AGE_MS)?).unwrap_or(i64::MAX);
    let is_outdated = |(name, reference): &(&String, &SnapshotReference)| {
        let (SnapshotRetention::Branch { max_ref_age_ms, .. } | SnapshotRetention::Tag { max_ref_age_ms }) =
            reference.retention;
        let since = metadata.snapshot_by_id(reference.snapshot_id).map(|snapshot| snapshot.timestamp_ms());
        let age = since.map_or(0, |since| now_ms.saturating_sub(since));
        *name != MAIN_BRANCH && !name.starts_with(FLOW_REFERENCE_PREFIX) && age > max_ref_age_ms.unwrap_or(default_age)
    };
    Ok(refs.iter().filter(is_outdated).map(|(name, _)| name.clone()).collect())
}

/// Snapshots that no rule keeps: what tags name, what a branch still has to keep, and everything young stays.
fn too_old<'a>(
    metadata: &'a TableMetadata,
    refs: &HashMap<String, SnapshotReference>,
    expiry: Expiry,
    now_ms: i64,
) -> Result<Vec<&'a Arc<Snapshot>>> {
    let default_age = expiry.age_ms.map_or_else(|| p::get(metadata.properties(), p::SNAPSHOT_AGE_MS), Ok)?;
    let default_keep = expiry.keep.map_or_else(|| p::get(metadata.properties(), p::SNAPSHOTS_TO_KEEP), Ok)?.max(1);
    // No rule lets go of what is younger than all of them ask; walking along the branches is dear.
    let age = |reference: &SnapshotReference| match &reference.retention {
        SnapshotRetention::Branch { max_snapshot_age_ms, .. } => {
            max_snapshot_age_ms.and_then(|n| u64::try_from(n).ok())
        }
        SnapshotRetention::Tag { .. } => None,
    };
    let least = refs.values().filter_map(age).chain([default_age]).min().unwrap_or(default_age);
    let youngest = now_ms.saturating_sub(i64::try_from(least).unwrap_or(i64::MAX));
    if metadata.snapshots().all(|snapshot| snapshot.timestamp_ms() >= youngest) {
        return Ok(Vec::new());
    }
    let mut kept: HashSet<i64> = HashSet::new();
    for reference in refs.values() {
        kept.insert(reference.snapshot_id);
        let SnapshotRetention::Branch { min_snapshots_to_keep, max_snapshot_age_ms, .. } = &reference.retention else {
            continue;
        };
        let keep = min_snapshots_to_keep.and_then(|n| u64::try_from(n).ok()).unwrap_or(default_keep);
        let age = max_snapshot_age_ms.and_then(|n| u64::try_from(n).ok()).unwrap_or(default_age);
        let oldest = now_ms.saturating_sub(i64::try_from(age).unwrap_or(i64::MAX));
        let mut walked = HashSet::new();
        let mut next = Some(reference.snapshot_id);
        while let Some(snapshot) = next.and_then(|id| metadata.snapshot_by_id(id)) {
            if !walked.insert(snapshot.snapshot_id()) {
                break;
            }
            if walked.len() as u64 > keep && snapshot.timestamp_ms() < oldest {
                break;
            }
            kept.insert(snapshot.snapshot_id());
            next = snapshot.parent_snapshot_id();
        }
    }
    let staged_age = p::get(metadata.properties(), p::SNAPSHOT_AGE_MS)?.max(default_age);
    let oldest = now_ms.saturating_sub(i64::try_from(staged_age).unwrap_or(i64::MAX));
    let branch_ancestors = ancestors(metadata, refs);
    let mut old: Vec<_> = metadata
        .snapshots()
        .filter(|s| !kept.contains(&s.snapshot_id()))
        // Staged by someone who has not published it yet: it is given its time.
        .filter(|s| branch_ancestors.contains(&s.snapshot_id()) || s.timestamp_ms() < oldest)
        .collect();
    old.sort_by_key(|s| s.sequence_number());
    Ok(old)
}

fn ancestors(metadata: &TableMetadata, refs: &HashMap<String, SnapshotReference>) -> HashSet<i64> {
    let mut all = HashSet::new();
    for reference in refs.values().filter(|r| r.is_branch()) {
        let mut next = Some(reference.snapshot_id);
        while let Some(snapshot) = next.and_then(|id| metadata.snapshot_by_id(id)) {
            if !all.insert(snapshot.snapshot_id()) {
                break;
            }
            next = snapshot.parent_snapshot_id();
        }
    }
    all
}

/// Notes for the flows whose line from tag to main is about to lose a link.
fn descents(metadata: &TableMetadata, removed: &[i64]) -> Result<HashMap<String, String>> {
    let removed: HashSet<i64> = removed.iter().copied().collect();
    let mut notes = HashMap::new();
    for flow in anchor::flows(metadata) {
        let Some(tagged) = metadata.snapshot_for_ref(&anchor::tag(flow)).map(|s| s.snapshot_id()) else { continue };
        if anchor::reaches(metadata, flow, tagged).is_err() {
            continue;
        }
        // The oldest ancestor of main above the tag whose line to main stays whole.
        let (mut next, mut descendant, mut broken) = (metadata.current_snapshot_id(), None, false);
        while let Some(snapshot) = next.filter(|id| *id != tagged).and_then(|id| metadata.snapshot_by_id(id)) {
            if removed.contains(&snapshot.snapshot_id()) {
                broken = true;
                break;
            }
            descendant = Some(snapshot.snapshot_id());
            next = snapshot.parent_snapshot_id();
        }
        if let (true, Some(descendant)) = (broken, descendant) {
            let note = serde_json::to_string(&Descent { snapshot_id: tagged, descendant })
                .map_err(|e| Error::internal("cannot write a descent").with_source(e))?;
            notes.insert(anchor::descent_property(flow), note);
        }
    }
    Ok(notes)
}

/// Manifest lists and manifests that no snapshot of `after` names.
async fn only_in_expired(
    lake: &Lake,
    state: &TableState,
    after: &TableMetadata,
    old: &[&Arc<Snapshot>],
) -> Result<Vec<String>> {
    for snapshot in old.iter().filter(|s| !matches!(s.summary().operation, Operation::Append)) {
        tracing::debug!(table = %state.name, snapshot = snapshot.snapshot_id(), "expired snapshot removed data");
    }
    let mut lists: HashSet<&str> = old.iter().map(|snapshot| snapshot.manifest_list()).collect();
    let mut manifests: HashSet<String> = HashSet::new();
    for some in old.chunks(LISTS_AT_ONCE) {
        let paths = try_join_all(some.iter().map(|snapshot| manifest_paths(state, snapshot))).await?;
        manifests.extend(paths.into_iter().flatten());
    }
    // Of what is kept, prints are enough: where two are alike by chance, a file stays.
    let mut kept: HashSet<u64> = HashSet::new();
    let after: Vec<&Arc<Snapshot>> = after.snapshots().collect();
    for some in after.chunks(LISTS_AT_ONCE) {
        for snapshot in some {
            lists.remove(snapshot.manifest_list());
        }
        let prints = try_join_all(some.iter().map(|snapshot| lake.named(state, snapshot))).await?;
        kept.extend(prints.iter().flat_map(|prints| prints.iter()));
    }
    manifests.retain(|path| !kept.contains(&print(path)));
    let mut garbage: Vec<String> = lists.into_iter().map(str::to_owned).chain(manifests).collect();
    garbage.sort();
    Ok(garbage)
}

pub(crate) fn print(path: &str) -> u64 {
    let mut hasher = std::hash::DefaultHasher::new();
    path.hash(&mut hasher);
    hasher.finish()
}

pub(crate) async fn manifest_paths(state: &TableState, snapshot: &Snapshot) -> Result<Vec<String>> {
    Ok(manifests_of(state, Some(snapshot)).await?.into_iter().map(|m| m.manifest_path).collect())
}
