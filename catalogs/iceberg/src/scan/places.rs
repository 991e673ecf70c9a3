//! Where rows lie, for statements that change them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arrow::array::{ArrayRef, UInt64Array};
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use datafusion::common::{DataFusionError, Result as DfResult};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::FileOpener;
use datafusion::physical_optimizer::pruning::PruningPredicate;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt, stream};
use iceberg::spec::{DataFile, Struct};
use parking_lot::Mutex;
use tidewater_catalogs::{Error, Result};

use super::columns::{ScanSchema, spec_fields};
use super::deletes::{DeleteFile, merge};
use super::filter::EqualityFilter;
use super::prune::Files;
use super::reader::Readers;
use crate::state::TableState;

/// Bits of a place that count rows; those above number files.
const POSITION_BITS: u32 = 40;

/// A data file that was read with places.
#[derive(Debug, Clone)]
pub(crate) struct TargetFile {
    /// As the manifest spells it.
    pub(crate) location: String,
    /// That lists it.
    pub(crate) manifest: String,
    pub(crate) spec_id: i32,
    pub(crate) partition: Struct,
    pub(crate) rows: u64,
    pub(crate) size_bytes: u64,
    /// Data sequence number.
    pub(crate) sequence_number: i64,
    /// Of its first row; none where rows have no ids.
    pub(crate) first_row_id: Option<i64>,
    /// What deletes rows of it by position already.
    pub(crate) deletes: Vec<Arc<DeleteFile>>,
    /// Whether others may delete rows of it by key.
    pub(crate) equality_deletes: bool,
    /// The order in which its rows lie, where it is said to have one.
    pub(crate) sort_order_id: Option<i32>,
}

impl TargetFile {
    /// At least so many, by position and in files of its own.
    pub(crate) fn deleted_rows(&self) -> u64 {
        self.deletes.iter().filter(|delete| delete.is_scoped).map(|delete| delete.record_count).sum()
    }

    pub(crate) fn has_deletes(&self) -> bool {
        !self.deletes.is_empty() || self.equality_deletes
    }
}

/// The files that scans of one change have read, and what they were looking for.
#[derive(Debug, Default)]
pub(crate) struct Places {
    files: Mutex<Vec<Arc<TargetFile>>>,
    /// One for each scan; none where it wants every row.
    predicates: Mutex<Vec<Option<PruningPredicate>>>,
    /// Whether the statement reads the table in another way as well.
    whole: AtomicBool,
}

impl Places {
    pub(super) fn add(&self, file: TargetFile) -> Result<u32> {
        let mut files = self.files.lock();
        let number = u32::try_from(files.len()).ok().filter(|n| *n < 1 << (u64::BITS - POSITION_BITS));
        let number = number.ok_or_else(|| Error::unsupported("a change of rows in so many data files"))?;
        if file.rows >> POSITION_BITS > 0 {
            return Err(Error::unsupported("a change of rows in so large a data file").with_context("rows", file.rows));
        }
        files.push(Arc::new(file));
        Ok(number)
    }

    /// All files of the scans, in their order.
    pub(crate) fn files(&self) -> Vec<Arc<TargetFile>> {
        self.files.lock().clone()
    }

    pub(super) fn add_predicate(&self, predicate: Option<PruningPredicate>) {
        self.predicates.lock().push(predicate);
    }

    pub(crate) fn read_whole(&self) {
        self.whole.store(true, Ordering::Relaxed);
    }

    pub(crate) fn was_read_whole(&self) -> bool {
        self.whole.load(Ordering::Relaxed)
    }

    /// The file that a place names, and the position in it.
    pub(crate) fn split(place: u64) -> (u32, u64) {
        let number = (place >> POSITION_BITS) as u32;
        (number, place & ((1 << POSITION_BITS) - 1))
    }

    pub(crate) fn file(&self, number: u32) -> Result<Arc<TargetFile>> {
        let file = self.files.lock().get(number as usize).cloned();
        file.ok_or_else(|| Error::internal(format!("no data file has the number {number}")))
    }

    /// Whether one of the files may hold rows that the scans were looking for. All of one partition spec.
    pub(crate) fn may_concern(&self, state: &TableState, spec_id: i32, files: &[&DataFile]) -> Result<bool> {
        let schema = ScanSchema::of(state, None)?;
        let spec = state.metadata.partition_spec_by_id(spec_id);
        let spec = spec.map(|spec| spec_fields(&schema, spec)).unwrap_or_default();
        let statistics = Files { schema: &schema, spec: &spec, files };
        Ok(self.predicates.lock().iter().any(|predicate| match predicate {
            None => true,
            Some(predicate) => predicate.prune(&statistics).map_or(true, |kept| kept.contains(&true)),
        }))
    }
}

/// Positions of rows that the delete files name, ascending.
pub(crate) async fn deleted(state: &TableState, file: &TargetFile, deletes: &[Arc<DeleteFile>]) -> Result<Arc<[u64]>> {
    Ok(merge(Readers::of(state)?.all_deleted(deletes, &file.location).await?))
}

/// A row group that is to be read by itself.
pub(super) struct RowGroup {
    pub(super) opener: Arc<dyn FileOpener>,
    pub(super) file: PartitionedFile,
    /// In the file.
    pub(super) first_position: u64,
}

/// Rows of the groups, with their places where these are wanted, then filtered and projected.
pub(super) fn numbered(
    groups: Vec<RowGroup>,
    number: u32,
    deleted: Arc<[u64]>,
    with_place: Option<SchemaRef>,
    mut filter: EqualityFilter,
) -> BoxStream<'static, DfResult<RecordBatch>> {
    let read = move |group: RowGroup| {
        let (with_place, deleted) = (with_place.clone(), deleted.clone());
        async move {
            let mut positions = Positions {
                next: group.first_position,
                passed: deleted.partition_point(|d| *d < group.first_position),
                deleted,
            };
            let batches = group.opener.open(group.file)?.await?;
            let placed = batches.map(move |batch: DfResult<RecordBatch>| {
                let batch = batch?;
                let Some(schema) = &with_place else { return Ok(batch) };
                let base = u64::from(number) << POSITION_BITS;
                let places: UInt64Array = (0..batch.num_rows()).map(|_| base | positions.take()).collect();
                let columns = batch.columns().iter().cloned().chain([Arc::new(places) as ArrayRef]);
                Ok(RecordBatch::try_new(schema.clone(), columns.collect())?)
            });
            Ok::<_, DataFusionError>(placed)
        }
    };
    let rows = stream::iter(groups).then(read).try_flatten();
    rows.map(move |batch: DfResult<RecordBatch>| filter.apply(batch?)).boxed()
}

/// Counts rows that are not deleted.
struct Positions {
    next: u64,
    deleted: Arc<[u64]>,
    /// How many of `deleted` lie before `next`.
    passed: usize,
}

impl Positions {
    fn take(&mut self) -> u64 {
        while self.deleted.get(self.passed) == Some(&self.next) {
            self.passed += 1;
            self.next += 1;
        }
        self.next += 1;
        self.next - 1
    }
}
