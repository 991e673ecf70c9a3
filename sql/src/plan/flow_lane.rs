//! Runs a flow's plan over one batch after the other.
//!
//! The common shapes (projections, filters, UNION ALL of these) are evaluated straight on the batch: no stream, no
//! task, no metrics. Any other plan is executed, with its leaf reading the batch from a slot.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, BooleanArray};
use arrow::compute::filter_record_batch;
use arrow::datatypes::SchemaRef;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::error::{DataFusionError, Result as DfResult};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{Expr, TableType};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType, reset_plan_states};
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::union::UnionExec;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties};
use futures::StreamExt;
use parking_lot::Mutex;
use tidewater_catalogs::{Error, Result};
use tidewater_streaming::FlowLane;

use crate::SqlError;

/// The stream, as plans of flows see it.
#[derive(Debug)]
pub(super) struct SlotTable {
    schema: SchemaRef,
}

impl SlotTable {
    pub(super) fn new(schema: SchemaRef) -> Self {
        Self { schema }
    }
}

#[async_trait]
impl TableProvider for SlotTable {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }
    fn table_type(&self) -> TableType {
        TableType::Base
    }
    async fn scan(
        &self,
        _: &dyn Session,
        projection: Option<&Vec<usize>>,
        _: &[Expr],
        _: Option<usize>,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        let columns = projection.cloned().unwrap_or_else(|| (0..self.schema.fields().len()).collect());
        let schema = Arc::new(self.schema.project(&columns)?);
        Ok(Arc::new(SlotExec::new(columns, schema, Slot::default())))
    }
}

type Slot = Arc<Mutex<Option<RecordBatch>>>;

/// Yields the batch that lies in the slot. `columns` index the stream's schema, and in a lane the lane's input.
#[derive(Debug)]
struct SlotExec {
    columns: Vec<usize>,
    schema: SchemaRef,
    slot: Slot,
    properties: Arc<PlanProperties>,
}

impl SlotExec {
    fn new(columns: Vec<usize>, schema: SchemaRef, slot: Slot) -> Self {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema.clone()),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        Self { columns, schema, slot, properties: Arc::new(properties) }
    }

    fn take(&self, batch: &RecordBatch) -> DfResult<RecordBatch> {
        let columns = self
            .columns
            .iter()
            .map(|i| batch.columns().get(*i).cloned())
            .collect::<Option<Vec<_>>>()
            .ok_or_else(|| DataFusionError::Internal("a batch of the stream lacks columns".to_owned()))?;
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        Ok(RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)?)
    }
}

impl DisplayAs for SlotExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.schema.fields().iter().map(|f| f.name().as_str()).collect();
        write!(f, "StreamBatch: columns=[{}]", names.join(", "))
    }
}

impl ExecutionPlan for SlotExec {
    fn name(&self) -> &str {
        "StreamBatch"
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
        let batch = match self.slot.lock().as_ref() {
            Some(batch) => self.take(batch)?,
            None => return Err(DataFusionError::Internal("a flow's plan ran without a batch".to_owned())),
        };
        let stream = futures::stream::once(std::future::ready(Ok(batch)));
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema.clone(), stream)))
    }
}

/// Columns of the stream that the plan reads, ascending. Never empty: a batch must have a length.
pub(super) fn projection(plan: &Arc<dyn ExecutionPlan>) -> crate::error::Result<Vec<usize>> {
    let mut columns = Vec::new();
    plan.apply(|node| {
        if let Some(slot) = node.as_any().downcast_ref::<SlotExec>() {
            columns.extend_from_slice(&slot.columns);
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    columns.sort_unstable();
    columns.dedup();
    if columns.is_empty() {
        columns.push(0);
    }
    Ok(columns)
}

/// A copy of the plan for one task. `projection` are the columns of its input.
pub(super) fn lane(
    plan: &Arc<dyn ExecutionPlan>,
    context: Arc<TaskContext>,
    output: SchemaRef,
    projection: &[usize],
) -> Result<Box<dyn FlowLane>> {
    let slot = Slot::default();
    let plan = Arc::clone(plan)
        .transform_up(|node| {
            let Some(leaf) = node.as_any().downcast_ref::<SlotExec>() else {
                return Ok(datafusion::common::tree_node::Transformed::no(node));
            };
            let columns = leaf
                .columns
                .iter()
                .map(|c| projection.binary_search(c).map_err(|_| DataFusionError::Internal("projection".to_owned())))
                .collect::<DfResult<Vec<_>>>()?;
            let leaf = SlotExec::new(columns, leaf.schema.clone(), slot.clone());
            Ok(datafusion::common::tree_node::Transformed::yes(Arc::new(leaf) as _))
        })
        .map_err(Error::from)?
        .data;
    let run = match Step::of(&plan) {
        Some(step) => Run::Direct(step),
        None => Run::Plan { plan, slot, context },
    };
    Ok(Box::new(Lane { run, output }))
}

struct Lane {
    run: Run,
    output: SchemaRef,
}

enum Run {
    Direct(Step),
    Plan { plan: Arc<dyn ExecutionPlan>, slot: Slot, context: Arc<TaskContext> },
}

#[async_trait]
impl FlowLane for Lane {
    async fn apply(&mut self, batch: RecordBatch) -> Result<Vec<RecordBatch>> {
        if batch.num_rows() == 0 {
            return Ok(Vec::new());
        }
        let mut found = Vec::new();
        match &self.run {
            Run::Direct(step) => step.run(&batch, &mut found).map_err(data_error)?,
            Run::Plan { plan, slot, context } => {
                *slot.lock() = Some(batch);
                let done = execute(plan, context, &mut found).await;
                *slot.lock() = None;
                done.map_err(data_error)?;
            }
        }
        found.retain(|b| b.num_rows() > 0);
        found.into_iter().map(|b| self.fit(b)).collect()
    }
}

impl Lane {
    /// The batch under the table's schema. A null where the table has none is an error of the data, which the
    /// table could not hold either.
    fn fit(&self, batch: RecordBatch) -> Result<RecordBatch> {
        for (column, field) in batch.columns().iter().zip(self.output.fields()) {
            if !field.is_nullable() && column.logical_null_count() > 0 {
                return Err(Error::invalid(format!(
                    "null value in column \"{}\" violates not-null constraint",
                    field.name()
                ))
                .with_hint("Filter such rows out with WHERE … IS NOT NULL, or fill them with coalesce(…)."));
            }
        }
        crate::run::conform(batch, &self.output)
            .map_err(|e| Error::internal("the query of the flow gave columns of other types").with_source(e))
    }
}

/// An error of the rows fails the flow: nothing of the trigger is committed, and nothing is left out in silence.
fn data_error(e: DataFusionError) -> Error {
    let e = SqlError::from(e);
    let data = e.state.as_str().starts_with("22");
    let error = Error::from(e);
    if data {
        error.with_hint(
            "The query failed on a record. Make it accept the value (CASE, try_cast, nullif) and create the table again.",
        )
    } else {
        error
    }
}

async fn execute(
    plan: &Arc<dyn ExecutionPlan>,
    context: &Arc<TaskContext>,
    out: &mut Vec<RecordBatch>,
) -> DfResult<()> {
    // A fresh copy per batch: nodes collect metrics for each execution, which would grow for ever.
    let plan = reset_plan_states(Arc::clone(plan))?;
    for partition in 0..plan.properties().partitioning.partition_count() {
        let mut stream = plan.execute(partition, context.clone())?;
        while let Some(batch) = stream.next().await {
            out.push(batch?);
        }
    }
    Ok(())
}

/// A plan that is evaluated on the batch itself.
enum Step {
    Slot(Arc<dyn ExecutionPlan>),
    Project { exprs: Vec<Arc<dyn PhysicalExpr>>, schema: SchemaRef, input: Box<Step> },
    Filter { predicate: Arc<dyn PhysicalExpr>, projection: Option<Vec<usize>>, input: Box<Step> },
    Union { schema: SchemaRef, inputs: Vec<Step> },
    Empty,
}

impl Step {
    /// None where the plan has a node that must be executed.
    fn of(plan: &Arc<dyn ExecutionPlan>) -> Option<Self> {
        let node = plan.as_any();
        if node.is::<SlotExec>() {
            return Some(Self::Slot(plan.clone()));
        }
        if node.is::<EmptyExec>() {
            return Some(Self::Empty);
        }
        if let Some(coop) = node.downcast_ref::<CooperativeExec>() {
            return Self::of(coop.input());
        }
        if let Some(project) = node.downcast_ref::<ProjectionExec>() {
            return Some(Self::Project {
                exprs: project.expr().iter().map(|e| e.expr.clone()).collect(),
                schema: project.schema(),
                input: Box::new(Self::of(project.input())?),
            });
        }
        if let Some(filter) = node.downcast_ref::<FilterExec>() {
            if filter.fetch().is_some() {
                return None;
            }
            return Some(Self::Filter {
                predicate: filter.predicate().clone(),
                projection: filter.projection().as_ref().map(|p| p.to_vec()),
                input: Box::new(Self::of(filter.input())?),
            });
        }
        if let Some(union) = node.downcast_ref::<UnionExec>() {
            return Some(Self::Union {
                schema: union.schema(),
                inputs: union.inputs().iter().map(Self::of).collect::<Option<Vec<_>>>()?,
            });
        }
        None
    }

    fn run(&self, batch: &RecordBatch, out: &mut Vec<RecordBatch>) -> DfResult<()> {
        let first = out.len();
        match self {
            Self::Slot(leaf) => match leaf.as_any().downcast_ref::<SlotExec>() {
                Some(slot) => out.push(slot.take(batch)?),
                None => return Err(DataFusionError::Internal("leaf of a flow's plan".to_owned())),
            },
            Self::Empty => {}
            Self::Project { exprs, schema, input } => {
                input.run(batch, out)?;
                for b in &mut out[first..] {
                    let rows = b.num_rows();
                    let columns =
                        exprs.iter().map(|e| e.evaluate(b)?.into_array(rows)).collect::<DfResult<Vec<_>>>()?;
                    let options = RecordBatchOptions::new().with_row_count(Some(rows));
                    *b = RecordBatch::try_new_with_options(schema.clone(), columns, &options)?;
                }
            }
            Self::Filter { predicate, projection, input } => {
                input.run(batch, out)?;
                for b in &mut out[first..] {
                    let keep = predicate.evaluate(b)?.into_array(b.num_rows())?;
                    let keep = keep
                        .as_any()
                        .downcast_ref::<BooleanArray>()
                        .ok_or_else(|| DataFusionError::Internal("predicate is not boolean".to_owned()))?;
                    let projected = match projection {
                        Some(columns) => b.project(columns)?,
                        None => b.clone(),
                    };
                    let all = keep.null_count() == 0 && keep.true_count() == keep.len();
                    *b = if all { projected } else { filter_record_batch(&projected, keep)? };
                }
                let tail = out.split_off(first);
                out.extend(tail.into_iter().filter(|b| b.num_rows() > 0));
            }
            Self::Union { schema, inputs } => {
                for input in inputs {
                    input.run(batch, out)?;
                }
                for b in &mut out[first..] {
                    let options = RecordBatchOptions::new().with_row_count(Some(b.num_rows()));
                    *b = RecordBatch::try_new_with_options(schema.clone(), b.columns().to_vec(), &options)?;
                }
            }
        }
        Ok(())
    }
}
