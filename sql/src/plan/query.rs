//! One query, from its AST to a plan and a running stream.

use std::collections::{BTreeSet, HashMap};
use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field};
use datafusion::catalog::TableProvider;
use datafusion::common::{ParamValues, ScalarValue};
use datafusion::datasource::provider_as_source;
use datafusion::error::DataFusionError;
use datafusion::execution::{FunctionRegistry, SessionState};
use datafusion::logical_expr::{LogicalPlan, TableSource};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::sql::planner::{NullOrdering, ParserOptions, PlannerContext, SqlToRel};
use sqlparser::ast::{self, Query, Value, Visit, Visitor};
use tidewater_catalogs::{LakeTable, TableVersion, TargetRows};
use tidewater_catalogs_system::CatalogSnapshot;

use super::provider::Tables;
use super::relation::{self, Lookup, Past, Read, Relation, TableRelation};
use super::{
    among, chained, functions, guard, live, output, quantified, rewrite, scope, single_value, stream_scan, time_travel,
    wildcard,
};
use crate::block::Block;
use crate::dialect::{Name, ParsedStatement, walk};
use crate::engine::Engine;
use crate::error::Result;
use crate::pg;
use crate::session::{Login, StatementContext};
use crate::settings::Settings;
use crate::{ResultColumn, SqlError, SqlState, run};

/// What a plan is wanted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Types alone: no topic is asked for its end.
    Describe,
    Execute,
}

/// Plans queries for one statement.
pub(crate) struct Planner<'a> {
    pub engine: &'a Arc<Engine>,
    pub settings: &'a Settings,
    pub login: &'a Login,
    pub pid: i32,
    /// For positions in errors; none for stored text.
    pub statement: Option<&'a ParsedStatement>,
    pub purpose: Purpose,
    /// Rows that are not committed yet are part of streaming tables where the session wants them.
    pub live: bool,
    /// The table that the statement does something to.
    pub target: Option<&'a Target>,
    /// The transaction block that the statement runs in.
    pub block: Option<&'a Block>,
}

/// A table that the statement does something to. The query names it [`TARGET`]; where it reads the same table under its own name, it
/// reads the same state.
pub(crate) struct Target {
    pub table: Arc<dyn LakeTable>,
    pub rows: Arc<dyn TargetRows>,
}

const MAIN: &str = "main";

/// No user's table has this name: it would need no quotes, and names of ours begin so.
pub(crate) const TARGET: &str = "_tidewater_target";

/// A plan with all that is needed to run it.
#[derive(Debug)]
pub(crate) struct Planned {
    pub state: SessionState,
    /// Analysed, not yet optimised; parameters filled in where values were given.
    pub plan: LogicalPlan,
    pub params: Vec<DataType>,
}

impl<'a> Planner<'a> {
    pub(crate) fn new(ctx: &'a StatementContext<'_>, purpose: Purpose) -> Self {
        Self {
            engine: ctx.engine,
            settings: ctx.settings,
            login: ctx.login,
            pid: ctx.pid,
            statement: Some(ctx.statement),
            purpose,
            live: ctx.settings.reads_live(),
            target: None,
            block: ctx.block.as_deref(),
        }
    }

    pub(super) fn lookup(&self) -> Lookup<'_> {
        Lookup { engine: self.engine, settings: self.settings, block: self.block }
    }

    /// For what is written elsewhere: rows that are not committed yet may still be taken back, and their copies not.
    pub(crate) fn committed(self) -> Self {
        Self { live: false, ..self }
    }

    fn table(&self, relation: &TableRelation) -> Result<Arc<dyn TableProvider>> {
        if let Some(past) = &relation.past {
            return Ok(Arc::clone(&past.rows));
        }
        let committed = relation.table.provider()?;
        let wanted = match relation.read {
            Read::Live => true,
            Read::Committed => false,
            Read::Session => self.live,
        };
        let hot = relation.hot.as_ref().filter(|_| wanted);
        let rows = hot.and_then(|view| view.above(&relation.table.anchor(&view.flow().to_string())));
        Ok(match rows {
            Some(rows) => live::over(committed, rows),
            None => committed,
        })
    }

    /// The state of this statement: the session's time zone and functions.
    pub(crate) fn state(&self) -> Result<SessionState> {
        let mut state = self.engine.base_state();
        let zone = self.settings.time_zone();
        state.config_mut().options_mut().execution.time_zone =
            Some(if zone == "UTC" { "+00:00".to_owned() } else { zone });
        functions::register_session(&mut state, self.engine, self.settings, self.login, self.pid)?;
        state.mark_start_execution();
        Ok(state)
    }

    /// Plans `query`. Types that the client did not name are taken from their use; text where that tells nothing.
    pub(crate) async fn query(
        &self,
        query: &Query,
        param_types: &[Option<DataType>],
        values: Option<&[ScalarValue]>,
    ) -> Result<Planned> {
        self.changed(query, param_types, values, &Ok).await
    }

    /// [`Self::query`] with a plan that `change` makes another one of, before it is analysed.
    pub(crate) async fn changed(
        &self,
        query: &Query,
        param_types: &[Option<DataType>],
        values: Option<&[ScalarValue]>,
        change: &(dyn Fn(LogicalPlan) -> Result<LogicalPlan> + Sync),
    ) -> Result<Planned> {
        let mut query = Box::new(query.clone());
        rewrite::forms(&mut query, self.statement)?;
        let catalog = match pg::needs(&query) {
            pg::Needs::Nothing => None,
            needs => Some(pg::snapshot(self.engine, self.settings, self.login, needs).await?),
        };
        let past = time_travel::resolve(self, &mut query).await?;
        let relations = self.relations(&query, catalog.as_deref(), past).await?;
        let exposed = wildcard::mentioned(&query);
        wildcard::hide(&mut query, &relations, &exposed)?;
        super::naming::name_outputs(&mut query)?;
        pg::rewrite(&mut query);

        let mut state = self.state()?;
        for function in catalog.iter().flat_map(tidewater_catalogs_system::functions) {
            state.register_udf(function)?;
        }
        let mut sources: HashMap<Vec<String>, Arc<dyn TableSource>> = HashMap::with_capacity(relations.len());
        for (name, relation) in &relations {
            let source = match relation {
                Relation::Table(table) => provider_as_source(self.table(table)?),
                Relation::System(provider) => provider_as_source(provider.clone()),
                Relation::Stream(stream) => {
                    stream_scan::source(&state, stream, &exposed, self.purpose == Purpose::Execute).await?
                }
            };
            sources.insert(name.0.clone(), source);
        }

        let wanted = parameters(&query)?;
        let mut params: Vec<Option<DataType>> = param_types.to_vec();
        params.resize(wanted.max(param_types.len()), None);
        limit_parameters(&query, &mut params);
        if params.iter().any(Option::is_none) {
            let first = self.to_plan(&state, &sources, &query, &[])?;
            let mut inferred = first.get_parameter_types().map_err(|e| SqlError::planning(&e, self.statement))?;
            quantified::parameter_types(&first, &mut |name, data_type| {
                inferred.insert(name.to_owned(), Some(data_type));
            })?;
            for (i, param) in params.iter_mut().enumerate() {
                if param.is_none() {
                    *param = inferred.get(&format!("${}", i + 1)).cloned().flatten().map(parameter_type);
                }
            }
        }
        let params: Vec<DataType> = params.into_iter().map(|p| p.unwrap_or(DataType::Utf8)).collect();
        let mut plan = self.to_plan(&state, &sources, &query, &params)?;
        guard::check(&plan)?;
        if let Some(values) = values.filter(|v| !v.is_empty()) {
            let values = values
                .iter()
                .zip(&params)
                .map(|(v, t)| if v.data_type() == *t { Ok(v.clone()) } else { v.cast_to(t) })
                .collect::<Result<Vec<_>, DataFusionError>>()?;
            plan = plan.with_param_values(ParamValues::from(values))?;
        }
        let plan = change(plan)?;
        let plan = among::write_out(plan).map_err(|e| SqlError::planning(&e, self.statement))?;
        let plan = chained::one_by_one(single_value::check_subqueries(plan)?)?;
        let plan = analyzed(&state, plan).map_err(|e| SqlError::planning(&e, self.statement))?;
        Ok(Planned { state, plan, params })
    }

    pub(super) fn to_plan(
        &self,
        state: &SessionState,
        sources: &HashMap<Vec<String>, Arc<dyn TableSource>>,
        query: &Query,
        params: &[DataType],
    ) -> Result<LogicalPlan> {
        let tables = Tables { state, sources: sources.clone() };
        let planner = SqlToRel::new_with_options(&tables, parser_options());
        let mut context = PlannerContext::new().with_prepare_param_data_types(
            params.iter().map(|t| Arc::new(Field::new("param", t.clone(), true))).collect(),
        );
        let statement = ast::Statement::Query(Box::new(query.clone()));
        planner
            .sql_statement_to_plan_with_context(statement, &mut context)
            .map_err(|e| SqlError::planning(&e, self.statement))
    }

    fn is_target(&self, relation: &TableRelation) -> bool {
        let branch = match &relation.past {
            None => MAIN,
            Some(Past { version: TableVersion::Branch(name) | TableVersion::Reference(name), .. }) => name,
            Some(_) => return false,
        };
        self.target.is_some_and(|target| {
            let (info, read) = (target.table.info(), relation.table.info());
            // One that is registered twice is two tables.
            info.uuid == read.uuid && info.name == read.name && info.branch.as_deref().unwrap_or(MAIN) == branch
        })
    }

    /// Every relation of the query under the name that the query gives it, those of `past` as they are.
    async fn relations(
        &self,
        query: &Query,
        catalog: Option<&CatalogSnapshot>,
        past: HashMap<Name, Relation>,
    ) -> Result<HashMap<Name, Relation>> {
        let mut found = past;
        for table in scope::tables(query) {
            if found.contains_key(&table.name) {
                continue;
            }
            if let Some(target) = self.target
                && table.name.0 == [TARGET]
            {
                found.insert(table.name, Relation::System(target.rows.provider()?));
                continue;
            }
            if let Some((catalog, (schema, name))) = catalog.zip(pg::system_relation(&table.name.0))
                && let Some(provider) = tidewater_catalogs_system::table(catalog, schema, &name)?
            {
                found.insert(table.name, Relation::System(provider));
                continue;
            }
            match relation::find(&self.lookup(), &table.name).await? {
                Some(Relation::Table(relation)) if self.is_target(&relation) => {
                    let same = self.target.map_or(relation.table, |target| {
                        target.rows.reads_table();
                        Arc::clone(&target.table)
                    });
                    let relation = TableRelation { table: same, hot: None, read: Read::Committed, past: None };
                    found.insert(table.name, Relation::Table(relation));
                }
                Some(relation) => {
                    found.insert(table.name, relation);
                }
                None => {
                    let mut error = SqlError::undefined_table(table.name.0.join("."));
                    if table.at.line > 0 {
                        error.position = self.statement.and_then(|s| s.position(table.at));
                    }
                    return Err(error);
                }
            }
        }
        Ok(found)
    }
}

impl Planned {
    /// What the client is told about the rows.
    pub(crate) fn columns(&self) -> Vec<ResultColumn> {
        output::columns(self.plan.schema())
    }

    /// Brings the columns from `first` on into the types of the wire.
    pub(crate) fn leave_from(&mut self, first: usize) -> Result<()> {
        self.plan = output::wire_types(self.plan.clone(), first)?;
        Ok(())
    }

    /// Brings the results into the types of the wire, and optimises.
    pub(crate) fn optimized(&self) -> Result<LogicalPlan> {
        let plan = output::wire_types(self.plan.clone(), 0)?;
        Ok(self.state.optimizer().optimize(plan, &self.state, |_, _| {})?)
    }

    /// Optimises a plan on which assignment casts were put.
    pub(crate) fn assigned(&self) -> Result<LogicalPlan> {
        let plan = analyzed(&self.state, self.plan.clone())?;
        Ok(self.state.optimizer().optimize(plan, &self.state, |_, _| {})?)
    }

    pub(crate) async fn physical(&self, plan: &LogicalPlan) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self.state.query_planner().create_physical_plan(plan, &self.state).await?)
    }

    /// Starts the query on the query runtime.
    pub(crate) async fn start(
        &self,
        ctx: &StatementContext<'_>,
        columns: &[ResultColumn],
    ) -> Result<datafusion::execution::SendableRecordBatchStream> {
        let optimized = self.optimized()?;
        let physical = self.physical(&optimized).await?;
        Ok(run::start(ctx, physical, self.state.task_ctx(), run::schema_of(columns)))
    }
}

pub(super) fn analyzed(state: &SessionState, plan: LogicalPlan) -> Result<LogicalPlan, DataFusionError> {
    state.analyzer().execute_and_check(plan, state.config_options(), |_, _| {})
}

pub(crate) fn parser_options() -> ParserOptions {
    ParserOptions {
        parse_float_as_decimal: true,
        enable_ident_normalization: true,
        support_varchar_with_length: true,
        enable_options_value_normalization: false,
        collect_spans: true,
        map_string_types_to_utf8view: false,
        default_null_ordering: NullOrdering::NullsMax,
    }
}

/// A type that was found from the use of a parameter, made wide enough for any value of its kind.
fn parameter_type(found: DataType) -> DataType {
    match found {
        DataType::Decimal32(..) | DataType::Decimal64(..) | DataType::Decimal128(..) | DataType::Decimal256(..) => {
            DataType::Decimal128(38, 18)
        }
        DataType::Null | DataType::Utf8View | DataType::LargeUtf8 => DataType::Utf8,
        DataType::LargeBinary | DataType::BinaryView => DataType::Binary,
        other => output::wire_type(&other).unwrap_or(other),
    }
}

const MAX_PARAMETERS: usize = 65_535;

/// The highest number of a parameter in the query.
pub(crate) fn parameters(node: &impl Visit) -> Result<usize> {
    Ok(parameter_numbers(node)?.last().copied().unwrap_or(0))
}

/// Numbers of the parameters in the query.
pub(crate) fn parameter_numbers(node: &impl Visit) -> Result<BTreeSet<usize>> {
    struct V(BTreeSet<usize>, Option<SqlError>);
    impl Visitor for V {
        type Break = ();
        fn pre_visit_value(&mut self, value: &Value) -> ControlFlow<()> {
            if let Value::Placeholder(name) = value {
                match name.strip_prefix('$').and_then(|n| n.parse::<usize>().ok()) {
                    Some(n) if (1..=MAX_PARAMETERS).contains(&n) => {
                        self.0.insert(n);
                    }
                    _ => {
                        self.1 =
                            Some(SqlError::new(SqlState::UNDEFINED_PARAMETER, format!("there is no parameter {name}")));
                        return ControlFlow::Break(());
                    }
                }
            }
            ControlFlow::Continue(())
        }
    }
    let mut v = V(BTreeSet::new(), None);
    let _ = walk(node, &mut v);
    match v.1 {
        Some(e) => Err(e),
        None => Ok(v.0),
    }
}

/// Parameters of LIMIT and OFFSET are bigint, as in PostgreSQL.
fn limit_parameters(query: &Query, params: &mut [Option<DataType>]) {
    struct V<'a>(&'a mut [Option<DataType>]);
    impl V<'_> {
        fn see(&mut self, expr: &ast::Expr) {
            if let ast::Expr::Value(value) = expr
                && let Value::Placeholder(name) = &value.value
                && let Some(n) = name.strip_prefix('$').and_then(|n| n.parse::<usize>().ok())
                && let Some(slot) = n.checked_sub(1).and_then(|i| self.0.get_mut(i))
                && slot.is_none()
            {
                *slot = Some(DataType::Int64);
            }
        }
    }
    impl Visitor for V<'_> {
        type Break = ();
        fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
            if let Some(ast::LimitClause::LimitOffset { limit, offset, .. }) = &query.limit_clause {
                limit.iter().for_each(|e| self.see(e));
                offset.iter().for_each(|o| self.see(&o.value));
            }
            ControlFlow::Continue(())
        }
    }
    let _ = walk(query, &mut V(params));
}
