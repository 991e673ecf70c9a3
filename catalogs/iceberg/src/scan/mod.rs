//! Reading a table.
//!
//! ```text
//!   snapshot ─► manifest list ─► manifests ─► data files ─► DataSourceExec over IcebergSource
//!               prune: partition    prune: bounds and          per file: deletes, constants,
//!               summaries           partition values           columns by field id
//! ```
//!
//! Planning is done when the plan is made: the leaf holds a list of files and what applies to each. The three types to
//! know: `IcebergTable` (the table provider), `plan::Planned` (what a query reads) and `source::IcebergSource`
//! (how a file is opened).

mod adapt;
mod cache;
mod columns;
mod deletes;
mod equality;
pub(crate) mod error;
mod fields;
mod filter;
mod fit;
mod key_table;
mod keys;
mod location;
mod places;
mod plan;
mod prune;
mod reader;
mod row_ids;
mod source;
mod statistics;
mod transforms;
mod values;
mod vector;

#[cfg(test)]
mod fixture;
#[cfg(test)]
mod tests;

use std::any::Any;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::config::TableParquetOptions;
use datafusion::common::{DFSchema, Result as DfResult};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{FileGroup, FileGroupPartitioner, FileScanConfigBuilder, FileSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_expr::conjunction;
use datafusion::physical_optimizer::pruning::PruningPredicate;
use datafusion::physical_plan::ExecutionPlan;
use iceberg::spec::SnapshotRef;
use tidewater_catalogs::{Error, ROW_PLACE, Result, announce_scan_memory};

pub use self::cache::MetadataCache;
pub(crate) use self::cache::parse_manifest_list;
use self::columns::ScanSchema;
pub(crate) use self::deletes::{merge as merge_positions, widened};
pub(crate) use self::fit::{Fit, Fitter, Stored};
pub(crate) use self::places::{Places, TargetFile, deleted as deleted_positions};
use self::plan::{Request, plan};
use self::reader::Readers;
pub(crate) use self::reader::{DELETED_FILE_ID, DELETED_POSITION_ID};
pub(crate) use self::row_ids::{OwnRowIds, own_row_ids};
use self::source::{Equality, IcebergSource, unused_store};
pub(crate) use self::values::{literal, scalar};
pub(crate) use self::vector::blob as vector_blob;
use crate::state::TableState;

/// A table over one snapshot of `state`: the current one with the table's current columns, or the given one with the
/// columns that it had. `NotFound` where there is no such snapshot. A table without snapshots has no rows.
pub fn provider(state: Arc<TableState>, snapshot_id: Option<i64>) -> Result<Arc<dyn TableProvider>> {
    let snapshot = match snapshot_id {
        None => state.metadata.current_snapshot().cloned(),
        Some(id) => Some(
            state
                .metadata
                .snapshot_by_id(id)
                .cloned()
                .ok_or_else(|| Error::not_found(format!("table \"{}\" has no snapshot {id}", state.name)))?,
        ),
    };
    let past = snapshot_id.and(snapshot.as_deref());
    let schema = Arc::new(ScanSchema::of(&state, past)?);
    Ok(Arc::new(IcebergTable::new(state, snapshot, schema)?))
}

/// A table over `snapshot`, with the columns that it had or with the table's current ones.
pub(crate) fn provider_of(
    state: Arc<TableState>,
    snapshot: SnapshotRef,
    own_columns: bool,
) -> Result<Arc<dyn TableProvider>> {
    let schema = Arc::new(ScanSchema::of(&state, own_columns.then_some(snapshot.as_ref()))?);
    Ok(Arc::new(IcebergTable::new(state, Some(snapshot), schema)?))
}

/// The current snapshot, and behind the columns [`ROW_PLACE`], which `places` explains.
pub(crate) fn targets(state: Arc<TableState>, places: Arc<Places>) -> Result<Arc<dyn TableProvider>> {
    let (snapshot, schema) = (state.metadata.current_snapshot().cloned(), Arc::new(ScanSchema::of(&state, None)?));
    Ok(Arc::new(IcebergTable::new(state, snapshot, schema)?.with_places(places)))
}

/// Of the current snapshot the data files in `only`, each without the rows at the positions given (ascending). With
/// `places`, behind the columns come those of the rows' lineage, as they are in the files, and [`ROW_PLACE`].
pub(crate) fn remains(
    state: Arc<TableState>,
    only: HashMap<String, Arc<[u64]>>,
    places: Option<Arc<Places>>,
) -> Result<Arc<dyn TableProvider>> {
    let schema = match &places {
        Some(_) => ScanSchema::with_lineage(&state)?,
        None => ScanSchema::of(&state, None)?,
    };
    let snapshot = state.metadata.current_snapshot().cloned();
    let table = IcebergTable { only: Some(Arc::new(only)), ..IcebergTable::new(state, snapshot, Arc::new(schema))? };
    Ok(Arc::new(match places {
        Some(places) => table.with_places(places),
        None => table,
    }))
}

/// One snapshot of a table.
#[derive(Debug)]
struct IcebergTable {
    state: Arc<TableState>,
    snapshot: Option<SnapshotRef>,
    schema: Arc<ScanSchema>,
    /// Its columns, and the place of a row where that is asked for.
    shown: SchemaRef,
    readers: Arc<Readers>,
    places: Option<Arc<Places>>,
    /// Positions that are left out, by data file; other files are not read.
    only: Option<Arc<HashMap<String, Arc<[u64]>>>>,
}

#[async_trait]
impl TableProvider for IcebergTable {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn schema(&self) -> SchemaRef {
        self.shown.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    /// Filters leave files, row groups and pages out, but not single rows.
    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> DfResult<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        // A limit counts rows that pass the filters, which only the operator above can tell.
        let limit = limit.filter(|_| filters.is_empty());
        let predicate = self.predicate(session, filters);
        let request = Request {
            predicate,
            columns: self.columns(projection, filters),
            limit,
            places: self.places.clone(),
            only: self.only.clone(),
        };
        let planned = plan(&self.state, &self.schema, self.snapshot.as_deref(), request).await?;

        let config = session.config_options();
        let options =
            TableParquetOptions { global: config.execution.parquet.clone(), ..TableParquetOptions::default() };
        let groups =
            into_groups(planned.files, config.execution.target_partitions, config.optimizer.repartition_file_min_size);
        // Keys of equality deletes stand behind the table's columns, out of sight; the place of a row behind them.
        let (own, keys) = (self.schema.arrow.fields().len(), planned.equality.keys.len());
        let projection = match projection {
            None if keys == 0 => None,
            None => Some((0..self.shown.fields().len()).collect()),
            Some(columns) => Some(columns.clone()),
        };
        let moved = |column: usize| if column < own { column } else { column + keys };
        let projection = projection.map(|columns: Vec<usize>| columns.into_iter().map(moved).collect());
        let source = IcebergSource::new(
            self.schema.clone(),
            self.readers.clone(),
            options,
            planned.summary,
            planned.may_have_nan,
            Equality::new(planned.equality, session.runtime_env().memory_pool.clone()),
            self.places.is_some(),
        );
        announce_scan_memory(source.metrics(), held_bytes(planned.row_group_bytes));
        let config = FileScanConfigBuilder::new(unused_store(), Arc::new(source))
            .with_file_groups(groups)
            .with_statistics(planned.statistics)
            .with_projection_indices(projection)?
            .with_limit(limit)
            .build();
        Ok(DataSourceExec::from_data_source(config))
    }
}

impl IcebergTable {
    fn new(state: Arc<TableState>, snapshot: Option<SnapshotRef>, schema: Arc<ScanSchema>) -> Result<Self> {
        let readers = Arc::new(Readers::of(&state)?);
        let shown = schema.arrow.clone();
        Ok(Self { state, snapshot, schema, shown, readers, places: None, only: None })
    }

    fn with_places(self, places: Arc<Places>) -> Self {
        let place = Arc::new(Field::new(ROW_PLACE, DataType::UInt64, false));
        let shown = self.schema.arrow.fields().iter().cloned().chain([place]);
        Self { shown: Arc::new(Schema::new(shown.collect::<Vec<_>>())), places: Some(places), ..self }
    }

    /// What of the filters can prune. A filter that has no physical form is left to the operator above.
    fn predicate(&self, session: &dyn Session, filters: &[Expr]) -> Option<PruningPredicate> {
        let schema = DFSchema::try_from(self.schema.arrow.clone()).ok()?;
        let physical = filters.iter().filter_map(|f| session.create_physical_expr(f.clone(), &schema).ok());
        let physical: Vec<_> = physical.collect();
        if physical.is_empty() {
            return None;
        }
        let predicate = PruningPredicate::try_new(conjunction(physical), self.schema.arrow.clone()).ok()?;
        (!predicate.always_true()).then_some(predicate)
    }

    /// Columns that the query reads or filters on, ascending.
    fn columns(&self, projection: Option<&Vec<usize>>, filters: &[Expr]) -> Vec<usize> {
        let own = self.schema.arrow.fields().len();
        let Some(projection) = projection else { return (0..own).collect() };
        let mut columns: BTreeSet<usize> = projection.iter().copied().filter(|column| *column < own).collect();
        for filter in filters {
            let named = filter.column_refs().into_iter().filter_map(|c| self.schema.arrow.index_of(c.name()).ok());
            columns.extend(named);
        }
        columns.into_iter().collect()
    }
}

/// What a partition of a scan holds at a time: a row group of the columns that are read as it lies in the file, and
/// beside it pages and batches that are being unpacked.
fn held_bytes(row_group_bytes: u64) -> usize {
    const UNPACKED: u64 = 4 << 20;
    let unpacked = row_group_bytes.saturating_mul(8).min(UNPACKED);
    usize::try_from(row_group_bytes.saturating_add(unpacked)).unwrap_or(usize::MAX)
}

/// Files spread over `partitions` by size; large ones are cut at row groups. One empty group where there are none.
fn into_groups(files: Vec<PartitionedFile>, partitions: usize, min_split_bytes: usize) -> Vec<FileGroup> {
    let partitions = partitions.max(1);
    if files.is_empty() {
        return vec![FileGroup::new(Vec::new())];
    }
    let all = vec![FileGroup::new(files)];
    let split = FileGroupPartitioner::new()
        .with_target_partitions(partitions)
        .with_repartition_file_min_size(min_split_bytes)
        .repartition_file_groups(&all);
    split.unwrap_or_else(|| {
        // Too little to cut files: whole ones, the largest first to whoever has the least.
        let mut files: Vec<PartitionedFile> = all.into_iter().flat_map(FileGroup::into_inner).collect();
        files.sort_by_key(|f| std::cmp::Reverse(f.object_meta.size));
        let count = partitions.min(files.len());
        let mut groups: Vec<(u64, Vec<PartitionedFile>)> = vec![(0, Vec::new()); count];
        for file in files {
            if let Some(least) = groups.iter_mut().min_by_key(|(bytes, _)| *bytes) {
                least.0 += file.object_meta.size.max(1);
                least.1.push(file);
            }
        }
        groups.into_iter().map(|(_, files)| FileGroup::new(files)).collect()
    })
}
