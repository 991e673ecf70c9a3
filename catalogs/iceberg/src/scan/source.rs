//! The leaf of a plan over an Iceberg table: DataFusion's Parquet source, with each file's own deletes and constants.

use std::any::Any;
use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef};
use datafusion::common::config::{ConfigOptions, TableParquetOptions};
use datafusion::common::{DataFusionError, Result as DfResult, ScalarValue};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::parquet::{ParquetAccessPlan, RowGroupAccess};
use datafusion::datasource::physical_plan::{
    FileOpenFuture, FileOpener, FileScanConfig, FileScanConfigBuilder, FileSource, ParquetSource,
};
use datafusion::datasource::table_schema::TableSchema;
use datafusion::execution::memory_pool::MemoryPool;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::projection::{ProjectionExprs, Projector};
use datafusion::physical_expr::utils::{collect_columns, reassign_expr_columns};
use datafusion::physical_plan::DisplayFormatType;
use datafusion::physical_plan::filter_pushdown::{FilterPushdownPropagation, PushedDown};
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use futures::{FutureExt, StreamExt, TryStreamExt};
use object_store::ObjectStore;
use parking_lot::Mutex;
use parquet::file::metadata::ParquetMetaData;
use tidewater_catalogs::{Error, ROW_PLACE, Result};

use super::columns::ScanSchema;
use super::deletes::{DeleteFile, access_plan, merge};
use super::equality::EqualityPlan;
use super::error::{corrupt, from_parquet};
use super::fields::FieldIdAdapterFactory;
use super::filter::{EqualityFilter, Probe};
use super::key_table::{KeyTable, KeyTables, converter};
use super::places::{self, RowGroup};
use super::reader::Readers;

/// Key tables that a partition of the scan keeps from file to file.
const RECENT_TABLES: usize = 8;

/// What one data file needs beside its place and size. Plain data; deletes are read when the file is opened.
#[derive(Debug, Clone)]
pub(super) struct FileTask {
    /// As the manifest spells it, which is how position deletes name it.
    pub(super) location: String,
    /// Among the files whose rows have places.
    pub(super) number: u32,
    /// Data sequence number.
    pub(super) sequence_number: i64,
    /// By position.
    pub(super) deletes: Vec<Arc<DeleteFile>>,
    /// Positions that this scan leaves out beside those.
    pub(super) left_out: Option<Arc<[u64]>>,
    /// Groups of equality deletes, by their number in the plan.
    pub(super) equality: Vec<usize>,
    /// Identity partition values by column, for columns that the file lacks.
    pub(super) constants: Arc<[(usize, ScalarValue)]>,
}

impl FileTask {
    pub(super) fn has_deletes(&self) -> bool {
        !self.deletes.is_empty() || !self.equality.is_empty() || self.left_out.is_some()
    }
}

/// Equality deletes of a scan, and their keys while someone reads.
#[derive(Debug, Clone)]
pub(super) struct Equality {
    plan: Arc<EqualityPlan>,
    tables: Arc<KeyTables>,
}

impl Equality {
    pub(super) fn new(plan: EqualityPlan, pool: Arc<dyn MemoryPool>) -> Self {
        Self { plan: Arc::new(plan), tables: Arc::new(KeyTables::new(pool)) }
    }
}

/// What EXPLAIN shows of the planning.
#[derive(Debug, Clone, Default)]
pub(super) struct ScanSummary {
    pub(super) table: String,
    pub(super) snapshot: Option<i64>,
    pub(super) files_kept: u64,
    pub(super) files_total: u64,
    pub(super) manifests_read: usize,
    pub(super) manifests_total: usize,
    pub(super) files_with_deletes: u64,
    pub(super) equality_delete_files: usize,
}

/// A [`FileSource`] around [`ParquetSource`].
#[derive(Clone)]
pub(super) struct IcebergSource {
    parquet: Arc<dyn FileSource>,
    /// The same before any projection, the keys of equality deletes behind the table's columns.
    whole: Arc<dyn FileSource>,
    schema: Arc<ScanSchema>,
    equality: Equality,
    readers: Arc<Readers>,
    summary: Arc<ScanSummary>,
    /// Floating-point columns that may hold NaN. Parquet's statistics leave NaN out, while SQL sorts it above all
    /// numbers: pruning on such a column could lose rows.
    may_have_nan: Arc<BTreeSet<usize>>,
    /// Whether the last column is the place of a row.
    placed: bool,
}

impl IcebergSource {
    pub(super) fn new(
        schema: Arc<ScanSchema>,
        readers: Arc<Readers>,
        mut options: TableParquetOptions,
        summary: ScanSummary,
        may_have_nan: BTreeSet<usize>,
        equality: Equality,
        placed: bool,
    ) -> Self {
        // A pushed-down filter together with a limit makes DataFusion 53.1 forget row selections, and with them the
        // deletes (see `try_pushdown_filters`).
        options.global.pushdown_filters = false;
        options.global.coerce_int96 = Some("us".to_owned());
        // Places are counted by row groups, which are read whole or not at all.
        options.global.enable_page_index &= !placed;
        let shown = match equality.plan.keys.is_empty() && !placed {
            true => schema.arrow.clone(),
            false => {
                let keys = equality.plan.keys.iter().map(|key| Arc::new(key.field()));
                let place = placed.then(|| Arc::new(Field::new(ROW_PLACE, DataType::UInt64, false)));
                let fields = schema.arrow.fields().iter().cloned().chain(keys).chain(place);
                Arc::new(Schema::new(fields.collect::<Fields>()))
            }
        };
        let parquet = ParquetSource::new(TableSchema::from_file_schema(shown))
            .with_table_parquet_options(options)
            .with_parquet_file_reader_factory(readers.clone());
        let summary = Arc::new(summary);
        let parquet: Arc<dyn FileSource> = Arc::new(parquet);
        let may_have_nan = Arc::new(may_have_nan);
        Self { whole: parquet.clone(), parquet, schema, equality, readers, summary, may_have_nan, placed }
    }

    fn with_parquet(&self, parquet: Arc<dyn FileSource>) -> Arc<dyn FileSource> {
        Arc::new(Self { parquet, ..self.clone() })
    }

    fn is_safe_to_prune(&self, filter: &Arc<dyn PhysicalExpr>) -> bool {
        let unsafe_column = |c: &Column| self.may_have_nan.contains(&c.index()) || self.placed && c.name() == ROW_PLACE;
        (self.may_have_nan.is_empty() && !self.placed) || !collect_columns(filter).iter().any(unsafe_column)
    }
}

impl FileSource for IcebergSource {
    fn create_file_opener(
        &self,
        object_store: Arc<dyn ObjectStore>,
        config: &FileScanConfig,
        partition: usize,
    ) -> DfResult<Arc<dyn FileOpener>> {
        let opener = IcebergOpener {
            plain: None,
            parquet: self.parquet.clone(),
            whole: self.whole.clone(),
            equality: self.equality.clone(),
            recent: Arc::default(),
            schema: self.schema.clone(),
            readers: self.readers.clone(),
            object_store,
            limit: config.limit,
            preserve_order: config.preserve_order,
            partition,
            placed: self.placed,
        };
        if self.placed {
            return Ok(Arc::new(opener));
        }
        let plain = opener.parquet_opener(&self.parquet, &Arc::from([]), config.limit)?;
        Ok(Arc::new(IcebergOpener { plain: Some(plain), ..opener }))
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn table_schema(&self) -> &TableSchema {
        self.parquet.table_schema()
    }

    fn with_batch_size(&self, batch_size: usize) -> Arc<dyn FileSource> {
        let whole = self.whole.with_batch_size(batch_size);
        Arc::new(Self { parquet: self.parquet.with_batch_size(batch_size), whole, ..self.clone() })
    }

    fn filter(&self) -> Option<Arc<dyn PhysicalExpr>> {
        self.parquet.filter()
    }

    fn projection(&self) -> Option<&ProjectionExprs> {
        self.parquet.projection()
    }

    fn metrics(&self) -> &ExecutionPlanMetricsSet {
        self.parquet.metrics()
    }

    fn file_type(&self) -> &str {
        "iceberg"
    }

    fn fmt_extra(&self, t: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let s = &self.summary;
        let snapshot = s.snapshot.map_or_else(|| "none".to_owned(), |id| id.to_string());
        if let DisplayFormatType::TreeRender = t {
            writeln!(f, "table={}", s.table)?;
            writeln!(f, "kept={}/{} files", s.files_kept, s.files_total)?;
        } else {
            write!(
                f,
                ", table={}, snapshot={snapshot}, files={}/{}, manifests={}/{}",
                s.table, s.files_kept, s.files_total, s.manifests_read, s.manifests_total
            )?;
            if s.files_with_deletes > 0 {
                write!(f, ", files_with_deletes={}", s.files_with_deletes)?;
            }
            if s.equality_delete_files > 0 {
                write!(f, ", equality_delete_files={}", s.equality_delete_files)?;
            }
        }
        self.parquet.fmt_extra(t, f)
    }

    fn try_pushdown_filters(
        &self,
        filters: Vec<Arc<dyn PhysicalExpr>>,
        config: &ConfigOptions,
    ) -> DfResult<FilterPushdownPropagation<Arc<dyn FileSource>>> {
        let count = filters.len();
        let safe: Vec<_> = filters.into_iter().filter(|filter| self.is_safe_to_prune(filter)).collect();
        let mut config = config.clone();
        config.execution.parquet.pushdown_filters = false;
        let whole = self.whole.try_pushdown_filters(safe.clone(), &config)?.updated_node;
        let inner = self.parquet.try_pushdown_filters(safe, &config)?;
        // Filters prune; whoever pushed them still applies them.
        let answer = FilterPushdownPropagation::with_parent_pushdown_result(vec![PushedDown::No; count]);
        Ok(match inner.updated_node {
            Some(parquet) => {
                let whole = whole.unwrap_or_else(|| self.whole.clone());
                answer.with_updated_node(Arc::new(Self { parquet, whole, ..self.clone() }))
            }
            None => answer,
        })
    }

    fn try_pushdown_projection(&self, projection: &ProjectionExprs) -> DfResult<Option<Arc<dyn FileSource>>> {
        Ok(self.parquet.try_pushdown_projection(projection)?.map(|parquet| self.with_parquet(parquet)))
    }
}

struct IcebergOpener {
    /// For files without constants and deletes, made once.
    plain: Option<Arc<dyn FileOpener>>,
    parquet: Arc<dyn FileSource>,
    whole: Arc<dyn FileSource>,
    schema: Arc<ScanSchema>,
    equality: Equality,
    /// Key tables of the files before: the next files mostly need the same.
    recent: Arc<Mutex<VecDeque<Arc<KeyTable>>>>,
    readers: Arc<Readers>,
    object_store: Arc<dyn ObjectStore>,
    limit: Option<usize>,
    preserve_order: bool,
    partition: usize,
    placed: bool,
}

impl IcebergOpener {
    fn parquet_opener(
        &self,
        source: &Arc<dyn FileSource>,
        constants: &Arc<[(usize, ScalarValue)]>,
        limit: Option<usize>,
    ) -> DfResult<Arc<dyn FileOpener>> {
        let keys = self.equality.plan.clone();
        let adapter = FieldIdAdapterFactory { schema: self.schema.clone(), constants: constants.clone(), keys };
        let config = FileScanConfigBuilder::new(unused_store(), source.clone())
            .with_limit(limit)
            .with_preserve_order(self.preserve_order)
            .with_expr_adapter(Some(Arc::new(adapter)))
            .build();
        source.create_file_opener(self.object_store.clone(), &config, self.partition)
    }

    /// Reads the columns that the projection needs, and the keys behind them; and what makes the projection of these.
    fn keyed_opener(&self, task: &FileTask) -> DfResult<(Arc<dyn FileOpener>, SchemaRef, Projector)> {
        let whole = self.whole.table_schema().table_schema();
        let projection = self.parquet.projection().cloned();
        let projection =
            projection.ok_or_else(|| Error::internal("scan of an iceberg table has lost its projection"))?;
        let mut columns = projection.column_indices();
        let place = self.placed.then(|| whole.fields().len() - 1);
        let wanted = columns.len();
        columns.retain(|column| Some(*column) != place);
        let place = place.filter(|_| columns.len() < wanted);
        let first_key = self.schema.arrow.fields().len();
        let groups = task.equality.iter().map(|group| &self.equality.plan.groups[*group]);
        let keys: BTreeSet<usize> = groups.flat_map(|group| group.columns.iter().copied()).collect();
        columns.extend(keys.into_iter().map(|key| first_key + key));
        let given: Vec<usize> = columns.iter().copied().chain(place).collect();
        let schema = Arc::new(whole.project(&given)?);
        let projector = projection.try_map_exprs(|e| reassign_expr_columns(e, &schema))?.make_projector(&schema)?;
        let source = self.whole.try_pushdown_projection(&ProjectionExprs::from_indices(&columns, whole))?;
        let source = source.ok_or_else(|| Error::internal("parquet source takes no projection"))?;
        Ok((self.parquet_opener(&source, &task.constants, None)?, schema, projector))
    }
}

impl FileOpener for IcebergOpener {
    fn open(&self, mut file: PartitionedFile) -> DfResult<FileOpenFuture> {
        let task = file.extensions.take().and_then(|task| task.downcast::<FileTask>().ok());
        // Without its task a file would be read without its deletes.
        let task = task.ok_or_else(|| Error::internal("scan of an iceberg table has lost a file's task"))?;
        if !task.has_deletes() && !self.placed {
            let opened = match &self.plain {
                Some(plain) if task.constants.is_empty() => plain.open(file)?,
                _ => self.parquet_opener(&self.parquet, &task.constants, self.limit)?.open(file)?,
            };
            return Ok(with_kinds(opened, task));
        }
        // The stream above applies the limit. Here it would meet DataFusion's pruning by limit, which drops the
        // selection of rows that are not deleted.
        let (opener, keyed) = match task.equality.is_empty() && !self.placed {
            true => (self.parquet_opener(&self.parquet, &task.constants, None)?, None),
            false => {
                let (opener, schema, projector) = self.keyed_opener(&task)?;
                (opener, Some((schema, projector)))
            }
        };
        let readers = self.readers.clone();
        let located = task.clone();
        let (equality, recent, schema) = (self.equality.clone(), self.recent.clone(), self.schema.clone());
        let placed = self.placed;
        let opened = async move {
            let filter = match keyed {
                None => None,
                Some((keyed, projector)) => {
                    let place = keyed.fields().last().is_some_and(|f| f.name() == ROW_PLACE).then(|| keyed.clone());
                    let mut probes = Vec::with_capacity(task.equality.len());
                    for group in &task.equality {
                        let table = equality.tables.get(&equality.plan, *group, &readers, &schema).await?;
                        remember(&recent, &table);
                        let columns = equality.plan.columns_of(*group);
                        let positions = columns.iter().map(|key| keyed.index_of(&key.name));
                        let positions = positions.collect::<Result<Vec<_>, _>>()?;
                        probes.push(Probe::new(table, positions, converter(&columns)?));
                    }
                    Some((EqualityFilter { probes, sequence_number: task.sequence_number, projector }, place))
                }
            };
            let deleted = deleted_positions(&readers, &task).await?;
            if placed && let Some((filter, place)) = filter {
                let footer = readers.footer(&file.object_meta.location, file.object_meta.size).await?;
                let groups = one_by_one(opener, &footer, &file, &deleted)?;
                return Ok(places::numbered(groups, task.number, deleted, place, filter));
            }
            if !deleted.is_empty() {
                let footer = readers.footer(&file.object_meta.location, file.object_meta.size).await?;
                file.extensions = Some(Arc::new(access_plan(&footer, &deleted)?));
            }
            let batches = opener.open(file)?.await?;
            Ok(match filter {
                None => batches,
                Some((mut filter, _)) => batches.map(move |batch| filter.apply(batch?)).boxed(),
            })
        };
        Ok(with_kinds(opened.boxed(), located))
    }
}

/// Keeps the key tables that were used last.
fn remember(recent: &Mutex<VecDeque<Arc<KeyTable>>>, table: &Arc<KeyTable>) {
    let mut recent = recent.lock();
    recent.retain(|other| !Arc::ptr_eq(other, table));
    recent.push_front(table.clone());
    recent.truncate(RECENT_TABLES);
}

/// What the Parquet reader reports, as an error with a kind and the name of the file.
fn with_kinds(opened: FileOpenFuture, task: Arc<FileTask>) -> FileOpenFuture {
    let name = move |e: DataFusionError| match e {
        DataFusionError::ParquetError(e) => from_parquet(*e, &task.location).into(),
        other => other,
    };
    async move {
        match opened.await {
            Ok(batches) => Ok(batches.map_err(name).boxed()),
            Err(e) => Err(name(e)),
        }
    }
    .boxed()
}

async fn deleted_positions(readers: &Readers, task: &FileTask) -> Result<Arc<[u64]>> {
    let mut lists = readers.all_deleted(&task.deletes, &task.location).await?;
    lists.extend(task.left_out.clone());
    Ok(merge(lists))
}

/// Row groups that are to be read, each by itself: what the reader leaves out of one by its statistics, it leaves out
/// whole, so that the positions of the others are known.
fn one_by_one(
    opener: Arc<dyn FileOpener>,
    footer: &ParquetMetaData,
    file: &PartitionedFile,
    deleted: &[u64],
) -> Result<Vec<RowGroup>> {
    let all = access_plan(footer, deleted)?;
    let mut groups = Vec::with_capacity(all.len());
    let mut first = 0;
    for (index, (access, group)) in all.inner().iter().zip(footer.row_groups()).enumerate() {
        if !matches!(access, RowGroupAccess::Skip) {
            let mut only = ParquetAccessPlan::new_none(all.len());
            only.set(index, access.clone());
            let file = file.clone().with_extensions(Arc::new(only));
            groups.push(RowGroup { opener: opener.clone(), file, first_position: first });
        }
        first += u64::try_from(group.num_rows()).map_err(|_| corrupt("parquet row group has a negative row count"))?;
    }
    Ok(groups)
}

/// DataFusion asks its registry for a store before it opens files. The local one is always there; it is not used.
pub(super) fn unused_store() -> ObjectStoreUrl {
    ObjectStoreUrl::local_filesystem()
}
