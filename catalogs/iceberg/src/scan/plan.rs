//! From a snapshot to the data files that a query has to read.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use datafusion::common::runtime::SpawnedTask;
use datafusion::common::{ColumnStatistics, ScalarValue, Statistics};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::physical_optimizer::pruning::PruningPredicate;
use futures::{StreamExt, TryStreamExt, stream};
use iceberg::spec::{
    DataContentType, DataFile, DataFileFormat, Manifest, ManifestContentType, ManifestEntry, ManifestFile, NestedField,
    PartitionField, Snapshot, Transform, Type,
};
use object_store::ObjectMeta;
use tidewater_catalogs::{Error, Result};

use super::cache::MetadataCache;
use super::columns::{ScanSchema, SpecField, spec_fields};
use super::deletes::{DeleteIndex, widened};
use super::equality::{EqualityPlan, EqualityPlanner};
use super::error::corrupt;
use super::location::Root;
use super::places::{Places, TargetFile};
use super::prune::{Files, Manifests, column_range};
use super::source::{FileTask, ScanSummary};
use super::statistics::{Totals, add_distinct, of_file};
use super::values::scalar_or_null;
use crate::commit::first_row_ids;
use crate::ndv;
use crate::state::TableState;

/// Manifests that one planning reads at a time.
const CONCURRENT_MANIFESTS: usize = 8;

/// Statistics of files are kept while they are at most this many (files times columns); each is a few hundred bytes.
const MAX_FILE_STATISTICS: usize = 200_000;

/// What a query asks of the planning.
pub(super) struct Request {
    /// Over the scan's columns; prunes.
    pub(super) predicate: Option<PruningPredicate>,
    /// Columns that are read or filtered on: of these, statistics are wanted.
    pub(super) columns: Vec<usize>,
    /// Rows that are enough. Only where nothing is filtered.
    pub(super) limit: Option<usize>,
    /// Takes down every file that is read.
    pub(super) places: Option<Arc<Places>>,
    /// Files that are read, with positions that are left out. None: all.
    pub(super) only: Option<Arc<HashMap<String, Arc<[u64]>>>>,
}

pub(super) struct Planned {
    pub(super) files: Vec<PartitionedFile>,
    pub(super) statistics: Statistics,
    pub(super) may_have_nan: BTreeSet<usize>,
    pub(super) summary: ScanSummary,
    pub(super) equality: EqualityPlan,
    /// Of the columns that are read, packed, in the file that has the largest.
    pub(super) row_group_bytes: u64,
}

pub(super) async fn plan(
    state: &TableState,
    schema: &Arc<ScanSchema>,
    snapshot: Option<&Snapshot>,
    request: Request,
) -> Result<Planned> {
    let mut planner = Planner::new(state, schema.clone(), request);
    planner.summary.snapshot = snapshot.map(Snapshot::snapshot_id);
    if let Some(snapshot) = snapshot {
        let list = state.cache.manifest_list(&state.storage, &state.metadata, snapshot).await?;
        let (deletes, data): (Vec<_>, Vec<_>) =
            list.entries().iter().filter(|m| is_live(m)).partition(|m| m.content == ManifestContentType::Deletes);
        planner.summary.manifests_total = data.len();
        let mut deletes = read_deletes(state, &deletes).await?;
        planner.equality = EqualityPlanner::new(std::mem::take(&mut deletes.equality));
        let kept = planner.prune_manifests(&data)?;
        planner.summary.manifests_read = kept.len();
        let mut manifests = std::pin::pin!(load(state, kept));
        while let Some((manifest_file, spec, manifest)) = manifests.try_next().await? {
            planner.add_manifest(&manifest_file, &spec, &manifest, &deletes)?;
            if planner.has_enough() {
                break;
            }
        }
    }
    if let Some(snapshot) = snapshot {
        let distinct = ndv::distinct_values(&state.metadata, snapshot).into_iter();
        planner.distinct = distinct.filter_map(|(id, n)| Some((schema.column_of(id)?, n))).collect();
    }
    if let Some(places) = &planner.request.places {
        places.add_predicate(planner.request.predicate.clone());
    }
    Ok(planner.finish())
}

fn is_live(manifest: &ManifestFile) -> bool {
    manifest.has_added_files() || manifest.has_existing_files()
}

type Loaded = (ManifestFile, Arc<[SpecField]>, Arc<Manifest>);

/// Manifests in their order; a few are read and parsed at a time, each on its own task.
fn load(
    state: &TableState,
    manifests: Vec<(ManifestFile, Arc<[SpecField]>)>,
) -> impl futures::Stream<Item = Result<Loaded>> + use<> {
    let (cache, io): (Arc<MetadataCache>, _) = (state.cache.clone(), state.storage.clone());
    let metadata = state.metadata.clone();
    let one = move |(file, spec): (ManifestFile, Arc<[SpecField]>)| {
        let (cache, io, metadata) = (cache.clone(), io.clone(), metadata.clone());
        async move {
            let task = SpawnedTask::spawn(async move {
                let manifest = cache.manifest(&io, &metadata, &file).await;
                (file, manifest)
            });
            let (file, manifest) =
                task.join().await.map_err(|e| Error::internal("reading a manifest was interrupted").with_source(e))?;
            Ok((file, spec, manifest?))
        }
    };
    stream::iter(manifests).map(one).buffered(CONCURRENT_MANIFESTS)
}

async fn read_deletes(state: &TableState, manifests: &[&ManifestFile]) -> Result<DeleteIndex> {
    let mut index = DeleteIndex::default();
    let manifests = manifests.iter().map(|m| ((*m).clone(), Arc::from([]))).collect();
    let mut loaded = std::pin::pin!(load(state, manifests));
    while let Some((file, _, manifest)) = loaded.try_next().await? {
        for entry in manifest.entries().iter().filter(|e| e.is_alive()) {
            index.add(&state.metadata, file.partition_spec_id, entry)?;
        }
    }
    Ok(index)
}

struct Planner<'a> {
    state: &'a TableState,
    schema: Arc<ScanSchema>,
    request: Request,
    root: Root,
    specs: HashMap<i32, Arc<[SpecField]>>,
    totals: Totals,
    rows_without_deletes: u64,
    files: Vec<PartitionedFile>,
    may_have_nan: BTreeSet<usize>,
    summary: ScanSummary,
    equality: EqualityPlanner,
    row_group_bytes: u64,
    /// How many values a column had when somebody counted.
    distinct: Vec<(usize, u64)>,
}

impl<'a> Planner<'a> {
    fn new(state: &'a TableState, schema: Arc<ScanSchema>, request: Request) -> Self {
        let specs = state.metadata.partition_specs_iter();
        let specs = specs.map(|spec| (spec.spec_id(), Arc::from(spec_fields(&schema, spec)))).collect();
        Self {
            root: Root::of(&state.metadata_location),
            specs,
            totals: Totals::new(&request.columns),
            rows_without_deletes: 0,
            files: Vec::new(),
            may_have_nan: BTreeSet::new(),
            summary: ScanSummary { table: state.name.to_string(), ..ScanSummary::default() },
            equality: EqualityPlanner::default(),
            row_group_bytes: 0,
            distinct: Vec::new(),
            state,
            schema,
            request,
        }
    }

    fn has_enough(&self) -> bool {
        self.request.limit.is_some_and(|limit| self.rows_without_deletes >= limit as u64)
    }

    fn prune_manifests(&mut self, manifests: &[&ManifestFile]) -> Result<Vec<(ManifestFile, Arc<[SpecField]>)>> {
        let mut with_specs = Vec::with_capacity(manifests.len());
        for manifest in manifests {
            let spec = self.specs.get(&manifest.partition_spec_id).ok_or_else(|| {
                corrupt("manifest has an unknown partition spec").with_context("manifest", &manifest.manifest_path)
            })?;
            with_specs.push((*manifest, spec.clone()));
        }
        let keep = match &self.request.predicate {
            Some(predicate) if !with_specs.is_empty() => {
                keep(predicate, &Manifests { schema: &self.schema, manifests: &with_specs })
            }
            _ => vec![true; with_specs.len()],
        };
        let mut kept = Vec::with_capacity(with_specs.len());
        for ((manifest, spec), keep) in with_specs.into_iter().zip(keep) {
            if keep {
                kept.push((manifest.clone(), spec));
            } else {
                let count = |n: Option<u32>| u64::from(n.unwrap_or(0));
                self.summary.files_total += count(manifest.added_files_count) + count(manifest.existing_files_count);
            }
        }
        Ok(kept)
    }

    fn add_manifest(
        &mut self,
        file: &ManifestFile,
        spec: &[SpecField],
        manifest: &Manifest,
        deletes: &DeleteIndex,
    ) -> Result<()> {
        let ids = first_row_ids(file, manifest.entries());
        let entries = manifest.entries().iter().map(Arc::as_ref).zip(ids);
        let live: Vec<(&ManifestEntry, Option<i64>)> = entries.filter(|(entry, _)| entry.is_alive()).collect();
        self.summary.files_total += live.len() as u64;
        let files: Vec<&DataFile> = live.iter().map(|(entry, _)| entry.data_file()).collect();
        let keep = match &self.request.predicate {
            Some(predicate) if !files.is_empty() => {
                keep(predicate, &Files { schema: &self.schema, spec, files: &files })
            }
            _ => vec![true; files.len()],
        };
        for ((entry, first_row_id), _) in live.into_iter().zip(keep).filter(|(_, keep)| *keep) {
            if self.has_enough() {
                break;
            }
            self.add_file(file, spec, (entry, first_row_id), deletes)?;
        }
        Ok(())
    }

    fn add_file(
        &mut self,
        manifest: &ManifestFile,
        spec: &[SpecField],
        (entry, first_row_id): (&ManifestEntry, Option<i64>),
        deletes: &DeleteIndex,
    ) -> Result<()> {
        let (file, spec_id) = (entry.data_file(), manifest.partition_spec_id);
        let location = file.file_path();
        check(file)?;
        let left_out = match &self.request.only {
            None => None,
            Some(only) => match only.get(location) {
                None => return Ok(()),
                Some(positions) => Some(positions.clone()),
            },
        };
        let sequence_number = entry
            .sequence_number()
            .ok_or_else(|| corrupt("data file has no sequence number").with_context("file", location))?;
        let reach = (spec_id, widened(file.partition()));
        let equality = self.equality.of(&self.state.metadata, &self.schema.arrow, reach, sequence_number, file)?;
        let position_deletes = deletes.of(spec_id, sequence_number, file);
        let number = self.request.places.as_ref().map_or(Ok(0), |places| {
            places.add(TargetFile {
                location: location.to_owned(),
                manifest: manifest.manifest_path.clone(),
                spec_id,
                partition: file.partition().clone(),
                rows: file.record_count(),
                size_bytes: file.file_size_in_bytes(),
                sequence_number,
                first_row_id,
                deletes: position_deletes.clone(),
                equality_deletes: !equality.is_empty(),
                sort_order_id: file.sort_order_id(),
            })
        })?;
        let task = FileTask {
            location: location.to_owned(),
            number,
            sequence_number,
            deletes: position_deletes,
            left_out,
            constants: self.constants(spec_id, spec, file, &equality)?,
            equality,
        };
        let has_deletes = task.has_deletes();
        let range = |column: &usize| (*column, column_range(&self.schema, spec, file, *column));
        let ranges: Vec<_> = self.request.columns.iter().map(range).collect();
        let (rows, size_bytes) = (file.record_count(), file.file_size_in_bytes());
        self.totals.add(&ranges, rows, size_bytes, has_deletes);
        self.row_group_bytes = self.row_group_bytes.max(self.row_group_bytes(file));
        if has_deletes {
            self.summary.files_with_deletes += 1;
        } else {
            self.rows_without_deletes = self.rows_without_deletes.saturating_add(rows);
        }
        for column in 0..self.schema.arrow.fields().len() {
            let floating = self.schema.data_type(column).is_floating();
            if floating && file.nan_value_counts().get(&self.schema.field(column).id) != Some(&0) {
                self.may_have_nan.insert(column);
            }
        }
        let meta = ObjectMeta {
            location: self.root.path(location)?,
            last_modified: chrono::DateTime::UNIX_EPOCH,
            size: size_bytes,
            e_tag: None,
            version: None,
        };
        let mut planned = PartitionedFile::new_from_meta(meta).with_extensions(Arc::new(task));
        let columns = self.schema.arrow.fields().len();
        if self.files.len().saturating_mul(columns) < MAX_FILE_STATISTICS && !ranges.is_empty() {
            planned = planned.with_statistics(of_file(columns, &ranges, rows, size_bytes));
        }
        self.files.push(planned);
        Ok(())
    }

    /// A row group of the columns that are read, if all of the file's are alike. Where the manifest says nothing of a
    /// column it has an even share of the file.
    fn row_group_bytes(&self, file: &DataFile) -> u64 {
        let (size, columns) = (file.file_size_in_bytes(), self.schema.arrow.fields().len().max(1) as u64);
        let of_column = |column: &usize| {
            let mut bytes = None;
            each_leaf(self.schema.field(*column), &mut |id| {
                bytes = file.column_sizes().get(&id).map(|more| bytes.unwrap_or(0) + more).or(bytes);
            });
            bytes.unwrap_or(size / columns)
        };
        let read: u64 = self.request.columns.iter().map(of_column).fold(0, u64::saturating_add);
        read.min(size) / file.split_offsets().map_or(1, |offsets| offsets.len().max(1) as u64)
    }

    /// Iceberg spec, "Column Projection": a column that the file lacks has its identity partition value.
    /// So has a key of the given equality deletes, and it may be of a column that the table no longer shows.
    fn constants(
        &self,
        spec_id: i32,
        spec: &[SpecField],
        file: &DataFile,
        equality: &[usize],
    ) -> Result<Arc<[(usize, ScalarValue)]>> {
        let columns = spec.iter().filter(|f| f.transform == Transform::Identity);
        let columns = columns.map(|f| (f.position, f.column, self.schema.data_type(f.column)));
        let whole = self.state.metadata.partition_spec_by_id(spec_id).map_or(&[][..], |s| s.fields());
        let first_key = self.schema.arrow.fields().len();
        let keys = self.equality.keys_of(equality).into_iter().filter(|(_, key)| key.is_top_level());
        let keys = keys.filter_map(|(at, key)| {
            let of_key = |f: &PartitionField| f.source_id == key.id && f.transform == Transform::Identity;
            Some((whole.iter().position(of_key)?, first_key + at, &key.data_type))
        });
        columns
            .chain(keys)
            .filter_map(|(position, column, to)| file.partition().fields().get(position).map(|v| (v, column, to)))
            .map(|(value, column, to)| {
                let value = scalar_or_null(value.as_ref(), to).ok_or_else(|| {
                    corrupt("partition value has another type than its column")
                        .with_context("file", file.file_path())
                        .with_context("type", to)
                })?;
                Ok((column, value))
            })
            .collect()
    }

    fn finish(mut self) -> Planned {
        self.summary.files_kept = self.files.len() as u64;
        let equality = self.equality.finish();
        self.summary.equality_delete_files = equality.groups.iter().map(|group| group.files.len()).sum();
        let own = self.schema.arrow.fields().len();
        let columns = own + equality.keys.len() + usize::from(self.request.places.is_some());
        if columns > own {
            for statistics in self.files.iter_mut().filter_map(|file| file.statistics.as_mut()) {
                Arc::make_mut(statistics).column_statistics.resize_with(columns, ColumnStatistics::new_unknown);
            }
        }
        let mut statistics = self.totals.finish(columns);
        add_distinct(&mut statistics, &self.distinct);
        Planned {
            statistics,
            equality,
            files: self.files,
            may_have_nan: self.may_have_nan,
            summary: self.summary,
            row_group_bytes: self.row_group_bytes,
        }
    }
}

impl std::fmt::Debug for Planner<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Planner").field("state", self.state).field("summary", &self.summary).finish_non_exhaustive()
    }
}

fn check(file: &DataFile) -> Result<()> {
    let refused = |error: Error| Err(error.with_context("file", file.file_path()));
    if file.content_type() != DataContentType::Data {
        return refused(corrupt("delete file listed among data"));
    }
    if file.file_format() != DataFileFormat::Parquet {
        return refused(
            Error::unsupported("format of data file cannot be read").with_context("format", file.file_format()),
        );
    }
    if file.key_metadata().is_some_and(|k| !k.is_empty()) {
        return refused(Error::unsupported("encrypted tables cannot be read"));
    }
    Ok(())
}

/// Ids of the columns in a file that make up a column of the table.
fn each_leaf(field: &NestedField, found: &mut impl FnMut(i32)) {
    match field.field_type.as_ref() {
        Type::Primitive(_) => found(field.id),
        Type::Struct(fields) => fields.fields().iter().for_each(|f| each_leaf(f, found)),
        Type::List(list) => each_leaf(&list.element_field, found),
        Type::Map(map) => {
            each_leaf(&map.key_field, found);
            each_leaf(&map.value_field, found);
        }
    }
}

/// Which containers may hold matching rows. Where the predicate cannot be evaluated, all of them.
fn keep<S: datafusion::common::pruning::PruningStatistics>(predicate: &PruningPredicate, statistics: &S) -> Vec<bool> {
    predicate.prune(statistics).unwrap_or_else(|error| {
        tracing::debug!(%error, "pruning failed; all files are kept");
        vec![true; statistics.num_containers()]
    })
}
