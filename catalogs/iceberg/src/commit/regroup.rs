//! All manifests of a state written anew, entries of one partition beside each other.

use std::collections::BTreeMap;

use iceberg::spec::{DataFile, ManifestContentType, ManifestFile};
use tidewater_catalogs::{Error, ErrorKind, Result};

use super::manifests::{Entry, Namer, NewFile, encode, entries_to_keep, load};
use crate::properties as p;
use crate::state::TableState;

pub(crate) const MANIFESTS_CREATED: &str = "manifests-created";
pub(crate) const MANIFESTS_REPLACED: &str = "manifests-replaced";
/// Manifests whose entries are sorted together, in bytes of their files; in memory they are some ten times as large.
const SORTED_BYTES: u64 = 32 << 20;
/// What is written is held until it is complete.
const LARGEST_BYTES: u64 = 512 << 20;

#[derive(Debug, Default)]
pub(super) struct Regrouped {
    pub(super) manifests: Vec<ManifestFile>,
    created: usize,
    kept: usize,
    replaced: usize,
    entries: usize,
}

impl Regrouped {
    /// As Iceberg's Java implementation names them.
    pub(super) fn summary(&self) -> [(String, String); 4] {
        [
            (MANIFESTS_CREATED, self.created),
            ("manifests-kept", self.kept),
            (MANIFESTS_REPLACED, self.replaced),
            ("entries-processed", self.entries),
        ]
        .map(|(key, count)| (key.to_owned(), count.to_string()))
    }
}

/// Entries keep their snapshots and sequence numbers; tombstones are dropped. A manifest that is alone and not too large
/// stays.
pub(super) async fn regrouped(
    state: &TableState,
    namer: &mut Namer<'_>,
    manifests: Vec<ManifestFile>,
    out: &mut Vec<NewFile>,
) -> Result<Regrouped> {
    let size = |m: &ManifestFile| u64::try_from(m.manifest_length).unwrap_or(0).max(1);
    let all: u64 = manifests.iter().map(size).sum();
    if all > LARGEST_BYTES {
        return Err(Error::new(
            ErrorKind::ResourcesExhausted,
            "the manifests are too large to be written anew at once",
        )
        .with_detail(format!("They have {} MiB; the limit is {}.", all >> 20, LARGEST_BYTES >> 20)));
    }
    let target = p::get(namer.metadata.properties(), p::MANIFEST_TARGET_BYTES)?.max(1);
    let mut groups: BTreeMap<(bool, i32), Vec<ManifestFile>> = BTreeMap::new();
    for manifest in manifests {
        let deletes = manifest.content == ManifestContentType::Deletes;
        groups.entry((deletes, manifest.partition_spec_id)).or_default().push(manifest);
    }
    let mut done = Regrouped::default();
    for group in groups.into_values() {
        if group.len() == 1 && group.iter().all(|m| size(m) <= target) {
            done.kept += 1;
            done.manifests.extend(group);
            continue;
        }
        let mut bin = Vec::new();
        let mut bytes = 0;
        for manifest in group {
            if bytes + size(&manifest) > SORTED_BYTES && !bin.is_empty() {
                rewrite(state, namer, std::mem::take(&mut bin), target, &mut done, out).await?;
                bytes = 0;
            }
            bytes += size(&manifest);
            bin.push(manifest);
        }
        rewrite(state, namer, bin, target, &mut done, out).await?;
    }
    Ok(done)
}

async fn rewrite(
    state: &TableState,
    namer: &mut Namer<'_>,
    sources: Vec<ManifestFile>,
    target: u64,
    done: &mut Regrouped,
    out: &mut Vec<NewFile>,
) -> Result<()> {
    // Bounds are read by the schema that a manifest carries, so each schema keeps manifests of its own.
    let mut by_schema = BTreeMap::new();
    for source in &sources {
        let manifest = load(state, source).await?;
        by_schema.entry(manifest.metadata().schema_id()).or_insert_with(Vec::new).push((source, manifest));
    }
    done.replaced += sources.len();
    for group in by_schema.into_values() {
        let Some((first, manifest)) = group.first() else { continue };
        let (content, header) = (first.content, manifest.metadata().clone());
        let bytes: u64 = group.iter().map(|(m, _)| u64::try_from(m.manifest_length).unwrap_or(0)).sum();
        let mut entries: Vec<(String, &ManifestFile, Entry<'_>)> = Vec::new();
        for (source, manifest) in &group {
            let alive = entries_to_keep(source, manifest)?;
            entries.extend(alive.into_iter().map(|entry| (place(&entry.file), *source, entry)));
        }
        // Stable: files of a partition stay in the order in which they came.
        entries.sort_by(|(one, ..), (other, ..)| one.cmp(other));
        let count = bytes.div_ceil(target).max(1);
        let each = entries.len().div_ceil(usize::try_from(count).unwrap_or(1)).max(1);
        let mut entries = entries.into_iter().peekable();
        while entries.peek().is_some() {
            let part: Vec<_> = entries.by_ref().take(each).collect();
            done.entries += part.len();
            let (schema, spec) = (header.schema().clone(), header.partition_spec().clone());
            let made = encode(namer, content, schema, spec, |writer| {
                part.into_iter().try_for_each(|(_, source, entry)| entry.keep(writer, source))
            });
            let (manifest, file) = made.await?;
            out.push(file);
            done.manifests.push(manifest);
            done.created += 1;
        }
    }
    Ok(())
}

/// Files of one partition have one.
fn place(file: &DataFile) -> String {
    format!("{:?}", file.partition())
}
