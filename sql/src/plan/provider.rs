//! What the planner of DataFusion asks for: tables by name, functions, types.

use std::any::Any;
use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, SchemaRef, TimeUnit};
use datafusion::common::config::ConfigOptions;
use datafusion::common::{DFSchema, ScalarValue, plan_datafusion_err};
use datafusion::datasource::cte_worktable::CteWorkTable;
use datafusion::datasource::provider_as_source;
use datafusion::error::Result;
use datafusion::execution::SessionState;
use datafusion::logical_expr::planner::{ContextProvider, ExprPlanner, RelationPlanner, TypePlanner};
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::{
    AggregateUDF, Expr, LogicalPlan, LogicalPlanBuilder, ScalarUDF, TableSource, WindowUDF, cast, lit,
};
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use datafusion::sql::TableReference;

use super::types::{PostgresTypes, timestamptz};
use crate::{SqlError, SqlState};

/// Tables of one statement, by the parts of their names as the statement writes them.
pub(crate) struct Tables<'a> {
    pub state: &'a SessionState,
    pub sources: HashMap<Vec<String>, Arc<dyn TableSource>>,
}

impl Tables<'_> {
    fn parts(name: &TableReference) -> Vec<String> {
        [name.catalog(), name.schema(), Some(name.table())].into_iter().flatten().map(str::to_owned).collect()
    }
}

impl ContextProvider for Tables<'_> {
    fn get_expr_planners(&self) -> &[Arc<dyn ExprPlanner>] {
        self.state.expr_planners()
    }

    fn get_relation_planners(&self) -> &[Arc<dyn RelationPlanner>] {
        self.state.relation_planners()
    }

    fn get_type_planner(&self) -> Option<Arc<dyn TypePlanner>> {
        Some(Arc::new(PostgresTypes))
    }

    fn get_table_source(&self, name: TableReference) -> Result<Arc<dyn TableSource>> {
        self.sources.get(&Self::parts(&name)).cloned().ok_or_else(|| plan_datafusion_err!("table '{name}' not found"))
    }

    fn get_table_function_source(&self, name: &str, args: Vec<Expr>) -> Result<Arc<dyn TableSource>> {
        let function = self
            .state
            .table_functions()
            .get(name)
            .cloned()
            .ok_or_else(|| plan_datafusion_err!("table function '{name}' not found"))?;
        let context = SimplifyContext::default()
            .with_config_options(Arc::clone(self.state.config_options()))
            .with_query_execution_start_time(self.state.execution_props().query_execution_start_time);
        let simplifier = ExprSimplifier::new(context);
        let schema = DFSchema::empty();
        let mut args = args
            .into_iter()
            .map(|arg| simplifier.coerce(arg, &schema).and_then(|e| simplifier.simplify(e)))
            .collect::<Result<Vec<_>>>()?;
        let zone = self.state.config_options().execution.time_zone.as_deref().map(Arc::from);
        let to = if matches!(name, "generate_series" | "range") { series_of_times(&mut args, zone)? } else { None };
        let source = provider_as_source(function.create_table_provider(&args)?);
        let Some(to) = to else { return Ok(source) };
        let series = LogicalPlanBuilder::scan(name, source, None)?;
        let columns = series.schema().columns();
        let times = columns.into_iter().map(|c| cast(Expr::Column(c.clone()), to.clone()).alias(c.name));
        Ok(Arc::new(PlanSource::new(series.project(times)?.build()?)))
    }

    fn create_cte_work_table(&self, name: &str, schema: SchemaRef) -> Result<Arc<dyn TableSource>> {
        Ok(provider_as_source(Arc::new(CteWorkTable::new(name, schema))))
    }

    fn get_function_meta(&self, name: &str) -> Option<Arc<ScalarUDF>> {
        self.state.scalar_functions().get(name).cloned()
    }

    fn get_aggregate_meta(&self, name: &str) -> Option<Arc<AggregateUDF>> {
        self.state.aggregate_functions().get(name).cloned()
    }

    fn get_window_meta(&self, name: &str) -> Option<Arc<WindowUDF>> {
        self.state.window_functions().get(name).cloned()
    }

    fn get_variable_type(&self, _: &[String]) -> Option<DataType> {
        None
    }

    fn options(&self) -> &ConfigOptions {
        self.state.config_options()
    }

    fn udf_names(&self) -> Vec<String> {
        self.state.scalar_functions().keys().cloned().collect()
    }

    fn udaf_names(&self) -> Vec<String> {
        self.state.aggregate_functions().keys().cloned().collect()
    }

    fn udwf_names(&self) -> Vec<String> {
        self.state.window_functions().keys().cloned().collect()
    }
}

/// The engine's series of times are in nanoseconds; here they are brought to that, and the type is told that they have
/// to come back in. Dates count as `timestamptz`, and a quoted step is an interval, as in PostgreSQL.
fn series_of_times(args: &mut [Expr], zone: Option<Arc<str>>) -> Result<Option<DataType>> {
    let out_of_range = || SqlError::new(SqlState::DATETIME_OVERFLOW, "timestamp out of range");
    let mut to = None;
    for (i, arg) in args.iter_mut().enumerate() {
        let Expr::Literal(value, _) = &*arg else { continue };
        let value = match (value, &to) {
            (ScalarValue::Utf8(Some(text)), Some(to)) if i < 2 => {
                super::literals::value(text, to)?.map_or(Ok(value.clone()), |v| v.cast_to(to))?
            }
            _ => value.clone(),
        };
        let (micros, zoned) = match &value {
            ScalarValue::Date32(Some(days)) => (i64::from(*days) * 86_400_000_000, true),
            ScalarValue::TimestampMicrosecond(Some(micros), z) => (*micros, z.is_some()),
            ScalarValue::Utf8(Some(text)) if to.is_some() => {
                *arg = lit(super::interval::literal(text)?);
                continue;
            }
            _ => continue,
        };
        if zoned && zone.as_deref().is_some_and(|zone| zone != "+00:00") {
            let error = SqlError::unsupported("a series of timestamptz in this time zone is not supported yet")
                .with_hint("Cast its bounds to timestamp, or SET timezone = 'UTC'.");
            return Err(error.into());
        }
        let nanos = micros.checked_mul(1000).ok_or_else(out_of_range)?;
        *arg = lit(ScalarValue::TimestampNanosecond(Some(nanos), zone.clone().filter(|_| zoned)));
        to = Some(if zoned { timestamptz() } else { DataType::Timestamp(TimeUnit::Microsecond, None) });
    }
    Ok(to)
}

/// A plan that stands for a table, as a view does: the planner puts it in the place of the name.
#[derive(Debug)]
pub(crate) struct PlanSource {
    schema: SchemaRef,
    plan: LogicalPlan,
}

impl PlanSource {
    pub(crate) fn new(plan: LogicalPlan) -> Self {
        Self { schema: Arc::clone(plan.schema().inner()), plan }
    }
}

impl TableSource for PlanSource {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn get_logical_plan(&self) -> Option<Cow<'_, LogicalPlan>> {
        Some(Cow::Borrowed(&self.plan))
    }
}
