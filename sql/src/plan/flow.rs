//! The query of a flow, compiled: SQL in, a [`FlowQuery`] out.
//!
//! A flow runs its query over each batch of the stream by itself, so the query must work row by row: one input row,
//! any number of output rows, nothing that looks at two rows at once or at the clock. [`super::flow_check`] says
//! what is refused.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::datasource::provider_as_source;
use datafusion::execution::SessionState;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, TableSource};
use datafusion::physical_plan::ExecutionPlan;
use sqlparser::ast::{Query, TableFactor, VisitorMut};
use tidewater_catalogs::Result as FlowResult;
use tidewater_streaming::{FlowLane, FlowQuery};

use super::flow_check::Place;
use super::flow_lane::{self, SlotTable};
use super::output::{display_name, wire_type};
use super::query::{Planner, Purpose, analyzed};
use super::relation::{self, Lookup, Relation, StreamRelation};
use super::{assign, flow_check, naming, rewrite, scope, stream_scan, wildcard};
use crate::dialect::{CreateStreamingTable, Name, arrow_type, stream_marker, walk_mut};
use crate::engine::Engine;
use crate::error::Result;
use crate::session::Login;
use crate::settings::Settings;
use crate::{ResultColumn, SqlError, SqlState};

/// The stream of a flow that is there already.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Bound<'a> {
    /// By its full name, as it is defined now.
    To(&'a Name),
    /// As it would be defined.
    As(&'a Arc<StreamRelation>),
}

/// A flow's query, and the stream that it reads.
#[derive(Debug, Clone)]
pub(crate) struct CompiledFlow {
    pub query: Arc<dyn FlowQuery>,
    pub stream: Arc<StreamRelation>,
    plan_text: Arc<str>,
}

impl CompiledFlow {
    /// Columns of the target table.
    pub(crate) fn output_schema(&self) -> SchemaRef {
        self.query.output_schema()
    }
}

/// Compiles the query of a streaming table into the columns that it declares, or into the query's own. `text` is the
/// statement, for the fingerprint.
pub(crate) async fn compile(
    engine: &Arc<Engine>,
    settings: &Settings,
    create: &CreateStreamingTable,
    text: &str,
) -> Result<CompiledFlow> {
    compile_bound(engine, settings, create, text, None, None).await
}

/// [`compile`] for a flow that is there already: its stream is the one that it was made on, whatever else the names
/// in its query have come to mean. A stream of the same name in an earlier schema of the search path would have its
/// records read from the positions of this one. `table` is what its table was made with: another version may give
/// a number more digits, or fewer, than the one that made the table.
pub(crate) async fn compile_bound(
    engine: &Arc<Engine>,
    settings: &Settings,
    create: &CreateStreamingTable,
    text: &str,
    bound: Option<Bound<'_>>,
    table: Option<&Schema>,
) -> Result<CompiledFlow> {
    let rows = plan_rows(engine, settings, &create.query, bound, Place::StreamingTable).await?;
    let (plan, output) = to_table(rows.plan, create, table)?;
    finish(&rows.state, plan, output, rows.relation, text, Place::StreamingTable).await
}

/// The query of SUBSCRIBE, in the types that leave.
pub(crate) async fn compile_subscription(
    engine: &Arc<Engine>,
    settings: &Settings,
    query: &Query,
) -> Result<(CompiledFlow, Vec<ResultColumn>)> {
    let rows = plan_rows(engine, settings, query, None, Place::Subscribe).await?;
    let mut columns = super::output::columns(rows.plan.schema());
    for column in &mut columns {
        // What a row of tomorrow holds is not known today.
        column.field = Arc::new(column.field.as_ref().clone().with_nullable(true));
    }
    let plan = super::output::wire_types(rows.plan, 0)?;
    let output = crate::run::schema_of(&columns);
    let compiled = finish(&rows.state, plan, output, rows.relation, "", Place::Subscribe).await?;
    Ok((compiled, columns))
}

/// A query over one stream, found to work row by row.
struct Rows {
    state: SessionState,
    plan: LogicalPlan,
    relation: Arc<StreamRelation>,
}

async fn plan_rows(
    engine: &Arc<Engine>,
    settings: &Settings,
    query: &Query,
    bound: Option<Bound<'_>>,
    place: Place,
) -> Result<Rows> {
    let login = Login::default();
    let planner = Planner {
        engine,
        settings,
        login: &login,
        pid: 0,
        statement: None,
        purpose: Purpose::Describe,
        live: false,
        target: None,
        block: None,
    };
    let mut query = Box::new(query.clone());
    let stream = take_stream(engine, settings, &mut query, bound, place).await?;
    rewrite::forms(&mut query, None)?;
    if super::query::parameters(&query)? > 0 {
        return Err(SqlError::new(SqlState::UNDEFINED_PARAMETER, format!("there is no parameter in {}", place.what())));
    }
    let relation = Arc::new(stream.relation);
    let exposed = wildcard::mentioned(&query);
    let relations: HashMap<Name, Relation> =
        stream.names.iter().map(|n| (n.clone(), Relation::Stream(relation.clone()))).collect();
    wildcard::hide(&mut query, &relations, &exposed)?;
    naming::name_outputs(&mut query)?;

    let state = lane_state(planner.state()?);
    let slot: Arc<dyn TableSource> = provider_as_source(Arc::new(SlotTable::new(relation.source.schema())));
    let view = stream_scan::over(&state, &relation, slot, &exposed)?;
    let view: Arc<dyn TableSource> = Arc::new(super::provider::PlanSource::new(view));
    let sources = stream.names.iter().map(|n| (n.0.clone(), view.clone())).collect();
    let plan = planner.to_plan(&state, &sources, &query, &[])?;
    flow_check::check(&plan, place)?;
    super::guard::check(&plan)?;
    let plan = analyzed(&state, plan).map_err(|e| SqlError::planning(&e, None))?;
    Ok(Rows { state, plan, relation })
}

async fn finish(
    state: &SessionState,
    plan: LogicalPlan,
    output: SchemaRef,
    relation: Arc<StreamRelation>,
    text: &str,
    place: Place,
) -> Result<CompiledFlow> {
    let plan = analyzed(state, plan)?;
    let optimized = state.optimizer().optimize(plan, state, |_, _| {})?;
    flow_check::check_optimized(&optimized, place)?;
    let physical = state.query_planner().create_physical_plan(&optimized, state).await?;
    let plan_text = datafusion::physical_plan::displayable(physical.as_ref()).indent(false).to_string();
    let compiled = Compiled::new(state, physical, output, fingerprint(text))?;
    Ok(CompiledFlow { query: Arc::new(compiled), stream: relation, plan_text: plan_text.trim_end().into() })
}

/// One partition, no shuffling, and batches as they come: a lane is one task, and its plan runs thousands of times.
fn lane_state(mut state: SessionState) -> SessionState {
    let options = state.config_mut().options_mut();
    options.execution.target_partitions = 1;
    options.execution.coalesce_batches = false;
    options.optimizer.enable_round_robin_repartition = false;
    options.optimizer.repartition_aggregations = false;
    options.optimizer.repartition_joins = false;
    options.optimizer.repartition_sorts = false;
    state
}

struct FlowStream {
    relation: StreamRelation,
    /// As the query writes it.
    names: Vec<Name>,
}

/// Finds the one stream behind `STREAM x`, and puts its bare name in the place of the marker.
async fn take_stream(
    engine: &Arc<Engine>,
    settings: &Settings,
    query: &mut Query,
    bound: Option<Bound<'_>>,
    place: Place,
) -> Result<FlowStream> {
    struct V(Vec<Name>);
    impl VisitorMut for V {
        type Break = SqlError;
        fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<SqlError> {
            if matches!(factor, TableFactor::Table { version: Some(_), .. }) {
                return ControlFlow::Break(
                    SqlError::unsupported("FOR … AS OF in a flow is not supported")
                        .with_hint("Join when reading the table of the flow."),
                );
            }
            let Some(marked) = stream_marker(factor) else { return ControlFlow::Continue(()) };
            let Some(parsed) = Name::from_object_name(&marked) else {
                return ControlFlow::Break(SqlError::syntax("STREAM needs the name of a stream"));
            };
            if !self.0.contains(&parsed) {
                self.0.push(parsed);
            }
            if let TableFactor::Table { name, args, .. } = factor {
                *name = marked;
                *args = None;
            }
            ControlFlow::Continue(())
        }
    }
    let mut v = V(Vec::new());
    if let ControlFlow::Break(e) = walk_mut(query, &mut v) {
        return Err(e);
    }
    let marked = v.0;
    let Some(first) = marked.first() else {
        let tables = scope::tables(query);
        let hint = match tables.first() {
            Some(t) => format!("Write FROM STREAM {}.", t.name.0.join(".")),
            None => "Write SELECT … FROM STREAM name.".to_owned(),
        };
        return Err(SqlError::unsupported(format!("{} must read a stream", place.what())).with_hint(hint));
    };
    // Tables beside the stream would be lookups, and one name must not be both.
    let mut named = scope::tables(query);
    named.retain(|t| !marked.contains(&t.name));
    if let Some(other) = named.first() {
        let name = other.name.0.join(".");
        let hint = match relation::find(&Lookup { engine, settings, block: None }, &other.name).await? {
            None => return Err(SqlError::undefined_table(name)),
            Some(Relation::Stream(_)) => format!("Write FROM STREAM {name}."),
            Some(_) => {
                "Join when reading: SELECT … FROM streaming_table JOIN …. Lookups in flows come later.".to_owned()
            }
        };
        return Err(SqlError::unsupported(format!("\"{name}\" cannot be read by a flow")).with_hint(hint));
    }
    let mut relation: Option<Arc<StreamRelation>> = None;
    for name in &marked {
        let name = match bound {
            Some(Bound::To(name)) => name,
            _ => name,
        };
        let text = name.0.join(".");
        let found = match bound {
            Some(Bound::As(stream)) => Some(Relation::Stream(stream.clone())),
            _ => relation::find(&Lookup { engine, settings, block: None }, name).await?,
        };
        let found = match found {
            Some(Relation::Stream(stream)) => stream,
            Some(_) => {
                return Err(SqlError::unsupported(format!("\"{text}\" is not a stream"))
                    .with_detail("Reading the changes of a table comes later.")
                    .with_hint("Read the stream that the table is made from."));
            }
            None => {
                return Err(SqlError::undefined_table(&text)
                    .with_hint("SHOW STREAMS lists the streams; CREATE STREAM makes one."));
            }
        };
        match &relation {
            Some(first) if first.name != found.name => {
                return Err(SqlError::unsupported("a flow reads one stream")
                    .with_detail(format!("The query reads \"{}\" and \"{}\".", first.name, found.name))
                    .with_hint("Make one streaming table per stream, and combine them when reading."));
            }
            Some(_) => {}
            None => relation = Some(found),
        }
    }
    let Some(relation) = relation else {
        return Err(SqlError::undefined_table(first.0.join(".")));
    };
    Ok(FlowStream { relation: relation.as_ref().clone(), names: marked })
}

/// The plan with casts on top that bring its columns into those of the table.
fn to_table(
    plan: LogicalPlan,
    create: &CreateStreamingTable,
    table: Option<&Schema>,
) -> Result<(LogicalPlan, SchemaRef)> {
    let schema = plan.schema().clone();
    if !create.columns.is_empty() && create.columns.len() != schema.fields().len() {
        return Err(SqlError::new(
            SqlState::SYNTAX_ERROR,
            format!(
                "the streaming table has {} columns, but its query has {}",
                create.columns.len(),
                schema.fields().len()
            ),
        ));
    }
    let mut exprs = Vec::with_capacity(schema.fields().len());
    let mut fields: Vec<Field> = Vec::with_capacity(schema.fields().len());
    for (i, column) in schema.columns().into_iter().enumerate() {
        let found = schema.field(i);
        let field = match create.columns.get(i) {
            Some(declared) => Field::new(&declared.name, arrow_type(&declared.data_type)?, !declared.not_null),
            None => {
                let (name, own) = (display_name(found.name()), stored_type(found.data_type()));
                let kept = table.and_then(|t| t.fields().get(i)).filter(|f| *f.name() == name);
                let kept = kept.map(|f| f.data_type()).filter(|kept| keeps_digits(&own, kept)).cloned();
                Field::new(name, kept.unwrap_or(own), found.is_nullable())
            }
        };
        if fields.iter().any(|f| f.name() == field.name()) {
            return Err(SqlError::new(
                SqlState::DUPLICATE_COLUMN,
                format!("column \"{}\" specified more than once", field.name()),
            )
            .with_hint("Give the outputs different names with AS."));
        }
        if field.name() == "?column?" {
            return Err(SqlError::syntax(format!("output {} of the query has no name", i + 1))
                .with_hint("Give it one with AS."));
        }
        let expr = assign::to_type(Expr::Column(column), schema.as_ref(), field.data_type(), field.name())?;
        exprs.push(expr.alias(field.name()));
        fields.push(field);
    }
    let plan = LogicalPlanBuilder::from(plan).project(exprs)?.build()?;
    Ok((plan, Arc::new(Schema::new(fields))))
}

/// True where a cast between numbers gives the same number or an error, never one that is rounded.
fn keeps_digits(from: &DataType, to: &DataType) -> bool {
    use DataType as D;
    match (from, to) {
        (D::Decimal128(_, from), D::Decimal128(_, to)) => to >= from,
        (D::Int32 | D::Int64, D::Int64 | D::Decimal128(_, 0..)) => true,
        (D::Int32 | D::Float32, D::Float64) => true,
        _ => false,
    }
}

/// The type in which a table keeps a column of the query.
pub(crate) fn stored_type(found: &DataType) -> DataType {
    match found {
        // Iceberg's smallest integer has 32 bits, and it has no unsigned ones.
        DataType::Int8 | DataType::Int16 | DataType::UInt8 | DataType::UInt16 => DataType::Int32,
        DataType::UInt32 | DataType::UInt64 => DataType::Int64,
        DataType::Float16 => DataType::Float32,
        DataType::Decimal32(p, s) | DataType::Decimal64(p, s) => DataType::Decimal128(*p, *s),
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            DataType::List(Arc::new(item.as_ref().clone().with_data_type(stored_type(item.data_type()))))
        }
        DataType::Struct(fields) => DataType::Struct(
            fields.iter().map(|f| f.as_ref().clone().with_data_type(stored_type(f.data_type()))).collect(),
        ),
        other => wire_type(other).unwrap_or_else(|| other.clone()),
    }
}

/// FNV-1a of the statement, with the versions that planned it. It names a plan; nobody is kept out by it.
fn fingerprint(text: &str) -> String {
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
    format!("{hash:016x}-{}-df{}", env!("CARGO_PKG_VERSION"), datafusion::DATAFUSION_VERSION)
}

#[derive(Debug)]
struct Compiled {
    plan: Arc<dyn ExecutionPlan>,
    context: Arc<datafusion::execution::TaskContext>,
    output: SchemaRef,
    projection: Vec<usize>,
    fingerprint: String,
}

impl Compiled {
    fn new(state: &SessionState, plan: Arc<dyn ExecutionPlan>, output: SchemaRef, fingerprint: String) -> Result<Self> {
        let projection = flow_lane::projection(&plan)?;
        let out = Self { plan, context: state.task_ctx(), output, projection, fingerprint };
        // What cannot run is told when the table is created.
        out.lane()?;
        Ok(out)
    }
}

impl FlowQuery for Compiled {
    fn output_schema(&self) -> SchemaRef {
        self.output.clone()
    }

    fn projection(&self) -> &[usize] {
        &self.projection
    }

    fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    fn lane(&self) -> FlowResult<Box<dyn FlowLane>> {
        flow_lane::lane(&self.plan, self.context.clone(), self.output.clone(), &self.projection)
    }
}

/// The plan of one batch, for EXPLAIN.
pub(crate) fn plan_text(flow: &CompiledFlow) -> String {
    flow.plan_text.to_string()
}
