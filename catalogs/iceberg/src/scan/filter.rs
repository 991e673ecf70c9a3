//! Rows of one data file without those that equality deletes name.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray};
use arrow::compute::filter_record_batch;
use arrow::record_batch::RecordBatch;
use arrow::row::{RowConverter, Rows};
use datafusion::common::Result as DfResult;
use datafusion::physical_expr::projection::Projector;

use super::key_table::KeyTable;

/// One key table, and where its keys are in the batches.
pub(super) struct Probe {
    table: Arc<KeyTable>,
    columns: Vec<usize>,
    converter: RowConverter,
    /// Kept from batch to batch, for its memory.
    rows: Rows,
}

impl Probe {
    pub(super) fn new(table: Arc<KeyTable>, columns: Vec<usize>, converter: RowConverter) -> Self {
        Self { table, columns, rows: converter.empty_rows(0, 0), converter }
    }
}

/// Takes batches with the keys beside the columns, and gives what the scan gives.
pub(super) struct EqualityFilter {
    pub(super) probes: Vec<Probe>,
    /// Data sequence number of the file.
    pub(super) sequence_number: i64,
    /// Runs on rows that are there: an expression in it may fail on one that was deleted.
    pub(super) projector: Projector,
}

impl EqualityFilter {
    pub(super) fn apply(&mut self, batch: RecordBatch) -> DfResult<RecordBatch> {
        let mut kept = vec![true; batch.num_rows()];
        let mut any_deleted = false;
        for probe in &mut self.probes {
            let columns: Vec<ArrayRef> = probe.columns.iter().map(|column| batch.column(*column).clone()).collect();
            probe.rows.clear();
            probe.converter.append(&mut probe.rows, &columns)?;
            for (kept, row) in kept.iter_mut().zip(probe.rows.iter()) {
                if *kept && probe.table.deletes(row.as_ref(), self.sequence_number) {
                    *kept = false;
                    any_deleted = true;
                }
            }
        }
        if !any_deleted {
            return self.projector.project_batch(&batch);
        }
        self.projector.project_batch(&filter_record_batch(&batch, &BooleanArray::from(kept))?)
    }
}
