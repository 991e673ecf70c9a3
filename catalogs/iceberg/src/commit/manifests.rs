use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use iceberg::io::FileIO;
use iceberg::spec::{
    DataFile, FormatVersion, Manifest, ManifestContentType, ManifestEntryRef, ManifestFile, ManifestListWriter,
    ManifestWriter, ManifestWriterBuilder, PartitionSpec, SchemaRef, Snapshot, TableMetadata,
};
use tidewater_catalogs::{Error, ErrorKind, Result};

use super::header;
use super::listed::Listed;
use super::row_ids::{assign, first_row_ids, with_first_row_id};
use super::stage::Removal;
use super::tiers::choose;
use crate::error;
use crate::properties as p;
use crate::scan::parse_manifest_list;
use crate::state::TableState;
use crate::storage::Storage;

/// A manifest or manifest list that is made, and not written yet.
pub(crate) type NewFile = (String, Bytes);

pub(crate) async fn current(state: &TableState) -> Result<Vec<ManifestFile>> {
    of(state, state.metadata.current_snapshot().map(Arc::as_ref)).await
}

/// The manifests of the snapshot that a commit goes on top of.
pub(crate) async fn of(state: &TableState, snapshot: Option<&Snapshot>) -> Result<Vec<ManifestFile>> {
    let Some(snapshot) = snapshot else { return Ok(Vec::new()) };
    let bytes = state.storage.read(snapshot.manifest_list()).await?;
    let list = parse_manifest_list(&bytes, state.metadata.format_version(), snapshot.manifest_list())?;
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
        let goes = |e: &ManifestEntryRef| all || remove.contains_key(&Listed::of(e.data_file()));
        let entries = manifest.entries().iter().filter(|e| e.is_alive());
        if !entries.clone().any(goes) {
            kept.push(source);
            continue;
        }
        let (gone, stay): (Vec<_>, Vec<_>) =
            entries_to_keep(&source, &manifest)?.into_iter().partition(|e| goes(e.entry));
        let (schema, spec) = (manifest.metadata().schema().clone(), manifest.metadata().partition_spec().clone());
        let made = encode(namer, source.content, schema, spec, |writer| {
            stay.into_iter().try_for_each(|entry| entry.keep(writer, &source))?;
            gone.iter().try_for_each(|entry| entry.drop(writer, &source))
        });
        let (manifest, file) = made.await?;
        out.push(file);
        rewritten.push(manifest);
        removed.extend(gone.into_iter().map(|entry| (source.partition_spec_id, entry.file)));
    }
    if removed.len() < remove.len() {
        return Err(Error::new(ErrorKind::Conflict, "files that the statement changes were replaced by someone else"));
    }
    Ok(Without { kept, rewritten, removed })
}

/// A living entry that is written anew, its file with all that it inherits.
pub(super) struct Entry<'a> {
    pub(super) entry: &'a ManifestEntryRef,
    pub(super) file: DataFile,
}

pub(super) fn entries_to_keep<'a>(source: &ManifestFile, manifest: &'a Manifest) -> Result<Vec<Entry<'a>>> {
    let ids = first_row_ids(source, manifest.entries());
    let alive = manifest.entries().iter().zip(ids).filter(|(entry, _)| entry.is_alive());
    let whole = alive.map(|(entry, id)| {
        let file = with_first_row_id(entry.data_file(), source.partition_spec_id, id)?;
        Ok(Entry { entry, file })
    });
    whole.collect()
}

impl Entry<'_> {
    /// Data and file sequence number.
    fn sequence(&self, source: &ManifestFile) -> (i64, i64) {
        let sequence = self.entry.sequence_number().unwrap_or(source.sequence_number);
        (sequence, self.entry.file_sequence_number.unwrap_or(source.sequence_number))
    }

    /// As it was.
    pub(super) fn keep(self, writer: &mut ManifestWriter, source: &ManifestFile) -> iceberg::Result<()> {
        let (sequence, file_sequence) = self.sequence(source);
        let snapshot = self.entry.snapshot_id().unwrap_or(source.added_snapshot_id);
        writer.add_existing_file(self.file, snapshot, sequence, Some(file_sequence))
    }

    fn drop(&self, writer: &mut ManifestWriter, source: &ManifestFile) -> iceberg::Result<()> {
        let (sequence, file_sequence) = self.sequence(source);
        writer.add_delete_file(self.file.clone(), sequence, Some(file_sequence))
    }
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
            let entries = sources.iter().map(|(source, manifest)| Ok((source, entries_to_keep(source, manifest)?)));
            let entries = entries.collect::<Result<Vec<_>>>()?;
            let made = encode(namer, ManifestContentType::Data, schema, spec, |writer| {
                entries
                    .into_iter()
                    .try_for_each(|(source, all)| all.into_iter().try_for_each(|e| e.keep(writer, source)))
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
    let (snapshot_id, version) = (namer.snapshot_id, namer.metadata.format_version());
    let made = async {
        let output = memory.new_output(SCRATCH)?;
        let builder = ManifestWriterBuilder::new(output, Some(snapshot_id), schema, spec);
        let mut writer = match (version, content) {
            (FormatVersion::V3, ManifestContentType::Data) => builder.build_v3_data(),
            (FormatVersion::V3, ManifestContentType::Deletes) => builder.build_v3_deletes(),
            (_, ManifestContentType::Data) => builder.build_v2_data(),
            (_, ManifestContentType::Deletes) => builder.build_v2_deletes(),
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

/// The manifest list of a new snapshot.
pub(crate) struct List {
    /// With the sequence numbers and row ids that it gives them.
    pub(crate) manifests: Vec<ManifestFile>,
    pub(crate) file: NewFile,
    /// How many row ids it gave, from the table's next on. None before format version 3.
    pub(crate) new_rows: Option<u64>,
}

pub(crate) async fn list(
    namer: &Namer<'_>,
    parent: Option<i64>,
    sequence_number: i64,
    mut manifests: Vec<ManifestFile>,
) -> Result<List> {
    const SCRATCH: &str = "memory:///list.avro";
    let memory = FileIO::new_with_memory();
    for manifest in manifests.iter_mut().filter(|m| m.added_snapshot_id == namer.snapshot_id) {
        manifest.sequence_number = sequence_number;
        if manifest.min_sequence_number < 0 {
            manifest.min_sequence_number = sequence_number;
        }
    }
    let first_row_id = namer.metadata.next_row_id();
    let new_rows = match namer.metadata.format_version() {
        FormatVersion::V3 => Some(assign(&mut manifests, first_row_id)? - first_row_id),
        _ => None,
    };
    let made = async {
        let writer = memory.new_output(SCRATCH)?.writer().await?;
        let id = namer.snapshot_id;
        let mut list = match new_rows {
            Some(_) => ManifestListWriter::v3(writer, id, parent, sequence_number, Some(first_row_id)),
            None => ManifestListWriter::v2(writer, id, parent, sequence_number),
        };
        list.add_manifests(manifests.iter().cloned())?;
        list.close().await?;
        memory.new_input(SCRATCH)?.read().await
    };
    let bytes = made.await.map_err(|e: iceberg::Error| error::iceberg("build a manifest list", e))?;
    Ok(List { manifests, file: (namer.manifest_list(), bytes), new_rows })
}
