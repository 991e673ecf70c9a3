use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use iceberg::io::FileIO;
use iceberg::spec::{
    DataFile, Manifest, ManifestContentType, ManifestEntryRef, ManifestFile, ManifestList, ManifestListWriter,
    ManifestWriter, ManifestWriterBuilder, PartitionSpec, SchemaRef, Snapshot, TableMetadata,
};
use tidewater_catalogs::{Error, ErrorKind, Result};

use super::header;
use super::stage::Removal;
use crate::error;
use crate::properties as p;
use crate::state::TableState;
use crate::storage::Storage;

/// A manifest or manifest list that is made, and not written yet.
pub(crate) type NewFile = (String, Bytes);

/// Manifests are of one tier where none is so many times as large as another; so many of a tier above the first are
/// merged.
const TIER: u64 = 8;

pub(crate) async fn current(state: &TableState) -> Result<Vec<ManifestFile>> {
    of(state, state.metadata.current_snapshot().map(Arc::as_ref)).await
}

/// The manifests of the snapshot that a commit goes on top of.
pub(crate) async fn of(state: &TableState, snapshot: Option<&Snapshot>) -> Result<Vec<ManifestFile>> {
    let Some(snapshot) = snapshot else { return Ok(Vec::new()) };
    let bytes = state.storage.read(snapshot.manifest_list()).await?;
    let list = ManifestList::parse_with_version(&bytes, state.metadata.format_version())
        .map_err(|e| error::iceberg("read a manifest list", e).with_context("file", snapshot.manifest_list()))?;
    Ok(list.consume_entries().into_iter().collect())
}

/// Locations of all data files of a state.
pub(crate) async fn listed(state: &TableState) -> Result<HashSet<String>> {
    let mut paths = HashSet::new();
    for manifest in current(state).await?.iter().filter(|m| m.content == ManifestContentType::Data) {
        let manifest = state.cache.manifest(&state.storage, &state.metadata, manifest).await?;
        let alive = manifest.entries().iter().filter(|entry| entry.is_alive());
        paths.extend(alive.map(|entry| entry.file_path().to_string()));
    }
    Ok(paths)
}

pub(crate) async fn load(state: &TableState, manifest: &ManifestFile) -> Result<Manifest> {
    parse(&state.storage, &state.metadata, manifest)
        .await?
        .map_err(|e| error::iceberg("read a manifest", e).with_context("file", &manifest.manifest_path))
}

/// The crate fills in what entries inherit from the manifest list only where it reads the file itself, and it reads
/// through a `FileIO`: so it gets one over memory.
pub(crate) async fn parse(
    storage: &Storage,
    metadata: &TableMetadata,
    manifest: &ManifestFile,
) -> Result<iceberg::Result<Manifest>> {
    const SCRATCH: &str = "memory:///read.avro";
    let bytes = header::readable(storage.read(&manifest.manifest_path).await?, metadata);
    let memory = FileIO::new_with_memory();
    let parsed = async {
        memory.new_output(SCRATCH)?.write(bytes).await?;
        let here = ManifestFile { manifest_path: SCRATCH.to_string(), ..manifest.clone() };
        here.load_manifest(&memory).await
    };
    Ok(parsed.await)
}

/// Names the files of one attempt, none of which may meet another attempt of the same commit.
pub(crate) struct Namer<'a> {
    pub(crate) metadata: &'a TableMetadata,
    pub(crate) commit: uuid::Uuid,
    pub(crate) snapshot_id: i64,
    next: u32,
}

impl<'a> Namer<'a> {
    pub(crate) fn new(metadata: &'a TableMetadata, commit: uuid::Uuid, snapshot_id: i64) -> Self {
        Self { metadata, commit, snapshot_id, next: 0 }
    }

    fn directory(&self) -> String {
        format!("{}/metadata", self.metadata.location().trim_end_matches('/'))
    }

    fn manifest(&mut self) -> String {
        let number = self.next;
        self.next += 1;
        format!("{}/{}-{}-m{number}.avro", self.directory(), self.commit, self.snapshot_id)
    }

    pub(crate) fn manifest_list(&self) -> String {
        format!("{}/snap-{}-1-{}.avro", self.directory(), self.snapshot_id, self.commit)
    }
}

/// One manifest per partition spec of the added files. Without a sequence number their rows are as new as the snapshot.
pub(crate) async fn added(
    namer: &mut Namer<'_>,
    content: ManifestContentType,
    files: Vec<(i32, DataFile)>,
    sequence: Option<i64>,
    out: &mut Vec<NewFile>,
) -> Result<Vec<ManifestFile>> {
    let mut by_spec: BTreeMap<i32, Vec<DataFile>> = BTreeMap::new();
    for (spec_id, file) in files {
        by_spec.entry(spec_id).or_default().push(file);
    }
    let mut manifests = Vec::with_capacity(by_spec.len());
    for (spec_id, files) in by_spec {
        let spec = namer
            .metadata
            .partition_spec_by_id(spec_id)
            .ok_or_else(|| Error::internal(format!("the table has no partition spec {spec_id}")))?;
        let schema = schema_of(namer.metadata, spec)?;
        let made = encode(namer, content, schema, spec.as_ref().clone(), |writer| {
            // One below zero is inherited from the snapshot, whatever that becomes.
            files.into_iter().try_for_each(|file| writer.add_file(file, sequence.unwrap_or(-1)))
        });
        manifests.push(made.await.map(|(manifest, file)| {
            out.push(file);
            manifest
        })?);
    }
    Ok(manifests)
}

/// The current schema, or, for a spec over a dropped column, the newest that still has it.
fn schema_of(metadata: &TableMetadata, spec: &PartitionSpec) -> Result<SchemaRef> {
    let fits = |schema: &SchemaRef| spec.fields().iter().all(|f| schema.field_by_id(f.source_id).is_some());
    let mut all: Vec<&SchemaRef> = metadata.schemas_iter().collect();
    all.sort_by_key(|s| (s.schema_id() == metadata.current_schema_id(), s.schema_id()));
    all.into_iter()
        .rev()
        .find(|s| fits(s))
        .cloned()
        .ok_or_else(|| Error::internal(format!("no schema of the table fits partition spec {}", spec.spec_id())))
}

/// The manifests of a state without some of its files.
pub(crate) struct Without {
    /// Untouched.
    pub(crate) kept: Vec<ManifestFile>,
    /// With what is left, and a tombstone for each file that went.
    pub(crate) rewritten: Vec<ManifestFile>,
    pub(crate) removed: Vec<(i32, DataFile)>,
}

/// Takes the files of `removal` out; the manifest beside each is looked at first. `Conflict` where one is not listed any
/// more. Manifests that list no living file are left out, too.
pub(crate) async fn without(
    state: &TableState,
    namer: &mut Namer<'_>,
    manifests: Vec<ManifestFile>,
    removal: &Removal,
    out: &mut Vec<NewFile>,
) -> Result<Without> {
    let nothing = HashMap::new();
    let (all, remove) = match removal {
        Removal::All => (true, &nothing),
        Removal::Files(files) => (false, files),
    };
    let lives = |m: &ManifestFile| m.has_added_files() || m.has_existing_files();
    let (mut kept, mut rewritten, mut removed) = (Vec::new(), Vec::new(), Vec::new());
    let likely: HashSet<&String> = remove.values().collect();
    let (first, later): (Vec<_>, Vec<_>) =
        manifests.into_iter().filter(lives).partition(|m| likely.contains(&m.manifest_path));
    for source in first.into_iter().chain(later) {
        if !all && removed.len() == remove.len() {
            kept.push(source);
            continue;
        }
        let manifest = state.cache.manifest(&state.storage, &state.metadata, &source).await?;
        let goes = |e: &ManifestEntryRef| all || remove.contains_key(e.data_file().file_path());
        let (gone, stay): (Vec<_>, Vec<_>) = manifest.entries().iter().filter(|e| e.is_alive()).partition(|e| goes(e));
        if gone.is_empty() {
            kept.push(source);
            continue;
        }
        let (schema, spec) = (manifest.metadata().schema().clone(), manifest.metadata().partition_spec().clone());
        let made = encode(namer, source.content, schema, spec, |writer| {
            stay.iter().try_for_each(|entry| keep(writer, &source, entry))?;
            gone.iter().try_for_each(|entry| {
                let sequence = entry.sequence_number().unwrap_or(source.sequence_number);
                let file_sequence = entry.file_sequence_number.unwrap_or(source.sequence_number);
                writer.add_delete_file(entry.data_file().clone(), sequence, Some(file_sequence))
            })
        });
        let (manifest, file) = made.await?;
        out.push(file);
        rewritten.push(manifest);
        removed.extend(gone.iter().map(|entry| (source.partition_spec_id, entry.data_file().clone())));
    }
    if removed.len() < remove.len() {
        return Err(Error::new(ErrorKind::Conflict, "files that the statement changes were replaced by someone else"));
    }
    Ok(Without { kept, rewritten, removed })
}

/// An entry as it was.
pub(super) fn keep(
    writer: &mut ManifestWriter,
    source: &ManifestFile,
    entry: &ManifestEntryRef,
) -> iceberg::Result<()> {
    let sequence = entry.sequence_number().unwrap_or(source.sequence_number);
    let file_sequence = entry.file_sequence_number.unwrap_or(source.sequence_number);
    let snapshot = entry.snapshot_id().unwrap_or(source.added_snapshot_id);
    writer.add_existing_file(entry.data_file().clone(), snapshot, sequence, Some(file_sequence))
}

/// Manifests after merging. Data manifests alone are merged, each with others of its spec; entries keep their
/// snapshot and sequence numbers, tombstones are dropped. Where nothing is to be done the list comes back as it is.
pub(crate) async fn merged(
    state: &TableState,
    namer: &mut Namer<'_>,
    manifests: Vec<ManifestFile>,
    out: &mut Vec<NewFile>,
) -> Result<Vec<ManifestFile>> {
    let options = namer.metadata.properties();
    if !p::get(options, p::MANIFEST_MERGE)? {
        return Ok(manifests);
    }
    let target = p::get(options, p::MANIFEST_TARGET_BYTES)?.max(1);
    let enough = p::get(options, p::MANIFEST_MIN_MERGE)?.max(2) as usize;
    let bins = choose(&manifests, target, enough);
    if bins.is_empty() {
        return Ok(manifests);
    }
    let mut replaced = vec![false; manifests.len()];
    let mut merged = Vec::new();
    for bin in bins {
        // Manifests of one spec may have been written under several schemas; bounds are read by the schema that
        // the manifest carries, so each schema keeps a manifest of its own.
        let mut by_schema: BTreeMap<i32, Vec<(&ManifestFile, Manifest)>> = BTreeMap::new();
        for index in &bin {
            let manifest = load(state, &manifests[*index]).await?;
            by_schema.entry(manifest.metadata().schema_id()).or_default().push((&manifests[*index], manifest));
        }
        for index in bin {
            replaced[index] = true;
        }
        for sources in by_schema.into_values() {
            let Some((_, first)) = sources.first() else { continue };
            let (schema, spec) = (first.metadata().schema().clone(), first.metadata().partition_spec().clone());
            let made = encode(namer, ManifestContentType::Data, schema, spec, |writer| {
                for (source, manifest) in &sources {
                    manifest.entries().iter().filter(|e| e.is_alive()).try_for_each(|e| keep(writer, source, e))?;
                }
                Ok(())
            });
            let (manifest, file) = made.await?;
            if manifest.existing_files_count != Some(0) {
                out.push(file);
                merged.push(manifest);
            }
        }
    }
    let kept = manifests.into_iter().zip(replaced).filter(|(_, replaced)| !replaced).map(|(manifest, _)| manifest);
    Ok(merged.into_iter().chain(kept).collect())
}

/// Groups of indexes to merge, of one spec and at most the target size each. Manifests of about one size are merged with
/// each other, so that an entry is written anew a few times only, however many there are.
fn choose(manifests: &[ManifestFile], target: u64, enough: usize) -> Vec<Vec<usize>> {
    let size = |index: &usize| u64::try_from(manifests[*index].manifest_length).unwrap_or(0).max(1);
    let mut by_spec: BTreeMap<i32, Vec<usize>> = BTreeMap::new();
    for (index, manifest) in manifests.iter().enumerate() {
        let data = manifest.content == ManifestContentType::Data && manifest.key_metadata.is_none();
        if data && size(&index) < target {
            by_spec.entry(manifest.partition_spec_id).or_default().push(index);
        }
    }
    let mut bins = Vec::new();
    for indexes in by_spec.into_values() {
        let least = indexes.iter().map(size).min().unwrap_or(1);
        let mut tiers: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
        for index in indexes {
            tiers.entry((size(&index) / least).ilog(TIER)).or_default().push(index);
        }
        let due = tiers.into_iter().filter(|(tier, i)| i.len() >= if *tier == 0 { enough } else { TIER as usize });
        for (_, indexes) in due {
            let (mut bin, mut bytes) = (Vec::new(), 0);
            for index in indexes {
                let more = size(&index);
                if bytes + more > target && !bin.is_empty() {
                    bins.push(std::mem::take(&mut bin));
                    bytes = 0;
                }
                bin.push(index);
                bytes += more;
            }
            bins.push(bin);
        }
    }
    bins.retain(|bin| bin.len() > 1);
    bins
}

/// Partition values are stored under the names of the spec's fields, and Avro does not allow every name. Readers find
/// the values by id.
fn with_avro_names(schema: &SchemaRef, spec: PartitionSpec) -> Result<PartitionSpec> {
    if spec.fields().iter().all(|field| header::avro_name(&field.name) == field.name) {
        return Ok(spec);
    }
    let spec_id = spec.spec_id();
    let fields = spec.into_unbound().fields().to_vec().into_iter().map(|mut field| {
        field.name = header::avro_name(&field.name);
        field
    });
    let spec = PartitionSpec::builder(schema.clone()).with_spec_id(spec_id).add_unbound_fields(fields);
    spec.and_then(|spec| spec.build()).map_err(|e| error::iceberg("build a manifest", e))
}

/// Builds a manifest in memory: where and when it is written is the caller's business.
pub(super) async fn encode(
    namer: &mut Namer<'_>,
    content: ManifestContentType,
    schema: SchemaRef,
    spec: PartitionSpec,
    fill: impl FnOnce(&mut ManifestWriter) -> iceberg::Result<()>,
) -> Result<(ManifestFile, NewFile)> {
    const SCRATCH: &str = "memory:///manifest.avro";
    let memory = FileIO::new_with_memory();
    let location = namer.manifest();
    let spec = with_avro_names(&schema, spec)?;
    let snapshot_id = namer.snapshot_id;
    let made = async {
        let output = memory.new_output(SCRATCH)?;
        let builder = ManifestWriterBuilder::new(output, Some(snapshot_id), schema, spec);
        let mut writer = match content {
            ManifestContentType::Data => builder.build_v2_data(),
            ManifestContentType::Deletes => builder.build_v2_deletes(),
        };
        fill(&mut writer)?;
        let manifest = writer.write_manifest_file().await?;
        let bytes = memory.new_input(SCRATCH)?.read().await?;
        Ok((manifest, bytes))
    };
    let (mut manifest, bytes) = made.await.map_err(|e: iceberg::Error| error::iceberg("build a manifest", e))?;
    manifest.manifest_path.clone_from(&location);
    Ok((manifest, (location, bytes)))
}

/// The manifest list of a new snapshot, and the manifests with the sequence numbers that it gives them.
pub(crate) async fn list(
    namer: &Namer<'_>,
    parent: Option<i64>,
    sequence_number: i64,
    mut manifests: Vec<ManifestFile>,
) -> Result<(Vec<ManifestFile>, NewFile)> {
    const SCRATCH: &str = "memory:///list.avro";
    let memory = FileIO::new_with_memory();
    for manifest in manifests.iter_mut().filter(|m| m.added_snapshot_id == namer.snapshot_id) {
        manifest.sequence_number = sequence_number;
        if manifest.min_sequence_number < 0 {
            manifest.min_sequence_number = sequence_number;
        }
    }
    let made = async {
        let writer = memory.new_output(SCRATCH)?.writer().await?;
        let mut list = ManifestListWriter::v2(writer, namer.snapshot_id, parent, sequence_number);
        list.add_manifests(manifests.iter().cloned())?;
        list.close().await?;
        memory.new_input(SCRATCH)?.read().await
    };
    let bytes = made.await.map_err(|e: iceberg::Error| error::iceberg("build a manifest list", e))?;
    Ok((manifests, (namer.manifest_list(), bytes)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    fn manifest(bytes: i64) -> ManifestFile {
        ManifestFile {
            manifest_path: String::new(),
            manifest_length: bytes,
            partition_spec_id: 0,
            content: ManifestContentType::Data,
            sequence_number: 1,
            min_sequence_number: 1,
            added_snapshot_id: 1,
            added_files_count: None,
            existing_files_count: None,
            deleted_files_count: None,
            added_rows_count: None,
            existing_rows_count: None,
            deleted_rows_count: None,
            partitions: None,
            key_metadata: None,
            first_row_id: None,
        }
    }

    #[test]
    fn manifests_stay_few_and_entries_are_seldom_written_anew() {
        const HEADER: i64 = 6000;
        const ENTRY: i64 = 150;
        const TARGET: u64 = 8 << 20;
        let (mut all, mut most, mut copied) = (Vec::<ManifestFile>::new(), 0, 0);
        let commits = 100_000;
        for _ in 0..commits {
            let bins = choose(&all, TARGET, 50);
            let merged = bins.iter().flatten().copied().collect::<std::collections::HashSet<usize>>();
            assert_eq!(merged.len(), bins.iter().map(Vec::len).sum::<usize>());
            let made: Vec<ManifestFile> = bins
                .iter()
                .map(|bin| {
                    let entries: i64 = bin.iter().map(|i| all[*i].manifest_length - HEADER).sum();
                    assert!(entries as u64 <= TARGET);
                    copied += entries / ENTRY;
                    manifest(HEADER + entries)
                })
                .collect();
            let kept = all.iter().enumerate().filter(|(n, _)| !merged.contains(n)).map(|(_, m)| m.clone());
            all = made.into_iter().chain(kept).chain([manifest(HEADER + ENTRY)]).collect();
            most = most.max(all.len());
        }
        assert_eq!(all.iter().map(|m| (m.manifest_length - HEADER) / ENTRY).sum::<i64>(), commits);
        assert!(most < 90, "{most} manifests");
        assert!(copied < 12 * commits, "{copied} entries written anew");
    }
}
