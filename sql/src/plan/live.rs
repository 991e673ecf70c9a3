//! A streaming table with the rows that its flow has not committed yet.
//!
//! ```text
//!   UnionExec
//!     DataSourceExec: …, snapshot=…     what is committed
//!     HotRowsExec: rows=…               what the flow holds above that snapshot
//! ```

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use arrow::compute::cast;
use arrow::datatypes::{Schema, SchemaRef};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::stats::Precision;
use datafusion::common::{ColumnStatistics, Statistics};
use datafusion::error::{DataFusionError, Result as DfResult};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_expr::EquivalenceProperties;
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::union::UnionExec;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties};
use tidewater_streaming::HotBatch;

/// `committed` with `rows` on top. Without them where the columns of the table are no longer those of the flow.
pub(super) fn over(committed: Arc<dyn TableProvider>, rows: Vec<Arc<HotBatch>>) -> Arc<dyn TableProvider> {
    let schema = committed.schema();
    let fits = rows.iter().all(|batch| same_columns(&batch.rows().schema(), &schema));
    if fits && !rows.is_empty() { Arc::new(LiveTable { committed, rows: rows.into() }) } else { committed }
}

fn same_columns(a: &Schema, b: &Schema) -> bool {
    a.fields().len() == b.fields().len()
        && a.fields()
            .iter()
            .zip(b.fields())
            .all(|(a, b)| a.name() == b.name() && a.data_type().equals_datatype(b.data_type()))
}

#[derive(Debug)]
struct LiveTable {
    committed: Arc<dyn TableProvider>,
    rows: Arc<[Arc<HotBatch>]>,
}

#[async_trait]
impl TableProvider for LiveTable {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn schema(&self) -> SchemaRef {
        self.committed.schema()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    /// No filter is applied to hot rows here, so each one must be applied above.
    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> DfResult<Vec<TableProviderFilterPushDown>> {
        let committed = self.committed.supports_filters_pushdown(filters)?;
        Ok(committed
            .into_iter()
            .map(|support| match support {
                TableProviderFilterPushDown::Unsupported => TableProviderFilterPushDown::Unsupported,
                _ => TableProviderFilterPushDown::Inexact,
            })
            .collect())
    }

    async fn scan(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        let committed = self.committed.scan(session, projection, filters, limit).await?;
        let columns = projection.cloned().unwrap_or_else(|| (0..self.schema().fields().len()).collect());
        let hot = HotRowsExec::new(self.rows.clone(), columns, committed.schema());
        UnionExec::try_new(vec![committed, Arc::new(hot)])
    }
}

/// Yields the columns of batches that are there already.
#[derive(Debug)]
struct HotRowsExec {
    rows: Arc<[Arc<HotBatch>]>,
    columns: Vec<usize>,
    schema: SchemaRef,
    properties: Arc<PlanProperties>,
}

impl HotRowsExec {
    fn new(rows: Arc<[Arc<HotBatch>]>, columns: Vec<usize>, schema: SchemaRef) -> Self {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema.clone()),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        Self { rows, columns, schema, properties: Arc::new(properties) }
    }

    fn count(&self) -> usize {
        self.rows.iter().map(|b| b.rows().num_rows()).sum()
    }
}

/// The wanted columns, in the types of the scan: fields inside of types may carry ids there.
fn project(batch: &RecordBatch, columns: &[usize], schema: &SchemaRef) -> DfResult<RecordBatch> {
    let found = columns
        .iter()
        .zip(schema.fields())
        .map(|(column, field)| match batch.columns().get(*column) {
            Some(found) if found.data_type() == field.data_type() => Ok(found.clone()),
            Some(found) => Ok(cast(found, field.data_type())?),
            None => Err(DataFusionError::Internal("a batch of the flow lacks columns".to_owned())),
        })
        .collect::<DfResult<Vec<_>>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(schema.clone(), found, &options)?)
}

impl DisplayAs for HotRowsExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HotRowsExec: rows={}, batches={}", self.count(), self.rows.len())
    }
}

impl ExecutionPlan for HotRowsExec {
    fn name(&self) -> &str {
        "HotRowsExec"
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }
    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }
    fn with_new_children(self: Arc<Self>, _: Vec<Arc<dyn ExecutionPlan>>) -> DfResult<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }
    fn execute(&self, _: usize, _: Arc<TaskContext>) -> DfResult<SendableRecordBatchStream> {
        let (rows, columns, schema) = (self.rows.clone(), self.columns.clone(), self.schema.clone());
        let batches = (0..rows.len()).map(move |i| project(rows[i].rows(), &columns, &schema));
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema.clone(), futures::stream::iter(batches))))
    }
    /// The number of rows alone, so that a count is that of both sides, and bounds of columns are looked up.
    fn partition_statistics(&self, _: Option<usize>) -> DfResult<Statistics> {
        Ok(Statistics {
            num_rows: Precision::Exact(self.count()),
            total_byte_size: Precision::Absent,
            column_statistics: vec![ColumnStatistics::new_unknown(); self.schema.fields().len()],
        })
    }
}
