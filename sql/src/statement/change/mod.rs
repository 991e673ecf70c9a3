//! Statements that change rows of a table: DELETE, UPDATE, MERGE. Each is a query over the table with the places of its
//! rows, whose answer says which rows go and which come; the table carries it out in one snapshot.

mod assignment;
mod clauses;
mod delete;
mod evolve;
mod kept;
mod merge;
mod returning;
mod settled;
mod subquery;
mod update;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::ScalarValue;
use datafusion::error::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::logical_expr::{LogicalPlan, LogicalPlanBuilder};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::StreamExt;
use sqlparser::ast::{
    self, Ident, ObjectName, Query, Select, SelectItem, SetExpr, TableAlias, TableFactor, TableWithJoins, With,
};
use tidewater_catalogs::{
    ChangeKind, Changed, LakeTable, ROW_PLACE, Repeated, ReturnedRows, SYSTEM_CATALOG, TableChange, TableVersion,
};
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard};

use super::cells;
use crate::dialect::Name;
use crate::error::Result;
use crate::plan::relation::{self, Past, Relation, StreamRelation, TableRelation};
use crate::plan::{Planned, Planner, Purpose, TARGET, Target, parameter_numbers, parameters, rewrite};
use crate::run;
use crate::session::{ChangeTag, Outcome, Prepared, ResultColumn, StatementContext};
use crate::work;
use crate::{SqlError, SqlState};
pub(super) use evolve::evolved;
pub(super) use kept::{KeptRows, outcome};
pub(super) use returning::{Seen, list, put, reference};

/// Held until the change is done.
#[expect(dead_code, reason = "held, not read")]
enum Turn {
    Shared(OwnedRwLockReadGuard<()>),
    Alone(OwnedRwLockWriteGuard<()>),
}

/// How often a statement is run anew because the table was changed meanwhile.
pub(super) const RUNS: u32 = 10;

/// What rows can be written to.
pub(super) enum Writable {
    /// Or a branch of it.
    Table(Arc<dyn LakeTable>),
    Stream(Arc<StreamRelation>),
}

/// The table or stream that a statement writes to, and its name as the statement has it.
pub(super) async fn find_target(ctx: &StatementContext<'_>, object: &ObjectName) -> Result<(String, Writable)> {
    let name = Name::from_object_name(object).ok_or_else(|| SqlError::syntax(format!("invalid name: {object}")))?;
    let place = object.0.first().and_then(|p| p.as_ident()).map(|ident| ident.span.start);
    find_writable(ctx, &name).await.map_err(|mut e| {
        if e.state == SqlState::UNDEFINED_TABLE {
            e.position = place.and_then(|at| ctx.statement.position(at));
        }
        e
    })
}

pub(super) async fn find_writable(ctx: &StatementContext<'_>, name: &Name) -> Result<(String, Writable)> {
    let shown = name.0.join(".");
    let denied = || {
        SqlError::new(SqlState::INSUFFICIENT_PRIVILEGE, format!("permission denied: \"{shown}\" belongs to the server"))
    };
    let found = match relation::find(&ctx.lookup(), name).await? {
        None => return Err(SqlError::undefined_table(&shown)),
        Some(Relation::System(_)) => return Err(denied()),
        Some(Relation::Table(found)) if found.table.info().name.catalog == SYSTEM_CATALOG => return Err(denied()),
        Some(Relation::Table(TableRelation {
            past: Some(Past { version: TableVersion::Branch(branch), .. }),
            table,
            ..
        })) => {
            if ctx.in_block {
                return Err(not_in_block("a branch"));
            }
            Writable::Table(table.branch(&branch).await?)
        }
        Some(Relation::Table(TableRelation { past: Some(past), .. })) => {
            return Err(SqlError::unsupported(format!("{} of a table cannot be written to", past.version))
                .with_hint("Write to the table itself."));
        }
        Some(Relation::Table(found)) => Writable::Table(match &ctx.block {
            Some(block) => block.draft(ctx.engine, &found.table.info().name).await?,
            None => found.table,
        }),
        Some(Relation::Stream(_)) if ctx.in_block => return Err(not_in_block("a stream")),
        Some(Relation::Stream(stream)) => Writable::Stream(stream),
    };
    Ok((shown, found))
}

fn not_in_block(what: &str) -> SqlError {
    SqlError::unsupported(format!("writing to {what} inside a transaction block is not supported"))
        .with_detail("It could not be rolled back.")
        .with_hint("Run the statement outside of BEGIN … COMMIT (in drivers: with autocommit on).")
}

/// The table of that name, for what is done to all of it, and not to one branch.
pub(super) async fn find_table_named(ctx: &StatementContext<'_>, name: &Name) -> Result<Arc<dyn LakeTable>> {
    let table = find_table_or_branch(ctx, name).await?;
    match &table.info().branch {
        None => Ok(table),
        Some(_) => Err(SqlError::new(SqlState::WRONG_OBJECT_TYPE, format!("\"{}\" is a branch", name.0.join(".")))
            .with_hint("Name the table.")),
    }
}

pub(super) async fn find_table_or_branch(ctx: &StatementContext<'_>, name: &Name) -> Result<Arc<dyn LakeTable>> {
    match find_writable(ctx, name).await? {
        (_, Writable::Table(table)) => Ok(table),
        (shown, Writable::Stream(_)) => {
            Err(SqlError::new(SqlState::WRONG_OBJECT_TYPE, format!("\"{shown}\" is not a table")))
        }
    }
}

/// A statement that changes rows.
pub(super) trait ChangesRows {
    fn kind(&self) -> ChangeKind;
    /// 0A000 for clauses that are not there yet.
    fn refuse(&self) -> Result<()>;
    fn target(&self) -> Result<&TableFactor>;
    /// The query, with what its arrangement has to know.
    fn compile(&self, ctx: &StatementContext<'_>, table: &Shape) -> Result<Compiled>;
    /// The list of its RETURNING.
    fn returning(&self) -> Result<Option<&[SelectItem]>>;
    /// What the statement says when it is done.
    fn tag(&self, changed: Changed) -> ChangeTag;
    fn repeated(&self) -> Repeated {
        Repeated::First
    }
}

/// The table to change, as the statement sees it.
pub(super) struct Shape {
    /// As the statement writes it.
    shown: String,
    schema: SchemaRef,
    /// What columns get where the statement says nothing.
    defaults: BTreeMap<String, ScalarValue>,
    /// By which the statement calls it.
    alias: TableAlias,
}

impl Shape {
    /// `FROM` the table, with the places of its rows.
    fn from(&self) -> Vec<TableWithJoins> {
        from_target(&self.alias)
    }

    fn column(&self, name: &str) -> ast::Expr {
        ast::Expr::CompoundIdentifier(vec![self.alias.name.clone(), Ident::with_quote('"', name)])
    }

    fn place(&self) -> ast::Expr {
        self.column(ROW_PLACE)
    }
}

/// `FROM` the table that the statement does something to, under the name that it has for it.
pub(super) fn from_target(name: &TableAlias) -> Vec<TableWithJoins> {
    let mut from = rewrite::select_all(ObjectName::from(vec![Ident::new(TARGET)])).from;
    for table in &mut from {
        if let TableFactor::Table { alias, .. } = &mut table.relation {
            *alias = Some(name.clone());
        }
    }
    from
}

/// What a statement has become.
pub(super) struct Compiled {
    query: Query,
    /// Expressions that are assigned to columns, for the types of their parameters.
    cells: Vec<(ast::Expr, DataType)>,
    /// See [`settled::settled`].
    settle: Settle,
    /// Whether rows come.
    brings: bool,
    /// What MERGE calls its source.
    source: Option<Ident>,
}

type Settle = Box<dyn Fn(LogicalPlan, &Shape) -> Result<LogicalPlan> + Send + Sync>;

fn query(select: Select) -> Query {
    rewrite::query(SetExpr::Select(Box::new(select)))
}

fn named(expr: ast::Expr, alias: impl Into<String>) -> SelectItem {
    SelectItem::ExprWithAlias { expr, alias: Ident::with_quote('"', alias) }
}

struct Begun {
    change: Arc<dyn TableChange>,
    target: Target,
    shape: Shape,
    compiled: Compiled,
    /// The list of RETURNING, over what the statement reads.
    list: Option<Query>,
    given: Vec<Option<DataType>>,
    params: Vec<Option<DataType>>,
}

/// The table that the statement names, as the statement has it, and what it calls it.
async fn find_table(
    ctx: &StatementContext<'_>,
    statement: &(impl ChangesRows + Sync),
) -> Result<(Arc<dyn LakeTable>, String, TableAlias)> {
    let TableFactor::Table { name, alias, args: None, version, .. } = statement.target()? else {
        return Err(SqlError::unsupported("the target of the statement must be a table"));
    };
    if version.is_some() {
        return Err(SqlError::unsupported("rows of an old version of a table cannot be changed")
            .with_hint("Leave FOR … AS OF out to change the current rows."));
    }
    let (shown, found) = find_target(ctx, name).await?;
    let Writable::Table(table) = found else {
        return Err(SqlError::new(SqlState::WRONG_OBJECT_TYPE, format!("\"{shown}\" is not a table"))
            .with_detail("The records of a topic cannot be changed.")
            .with_hint("Keep a table of it with CREATE STREAMING TABLE … AS SELECT … FROM STREAM …."));
    };
    let alias = match alias {
        Some(alias) if !alias.columns.is_empty() => {
            return Err(SqlError::unsupported("names of columns after the name of the table are not supported here"));
        }
        Some(alias) => alias.clone(),
        None => {
            let own = name.0.last().and_then(|part| part.as_ident()).cloned();
            let own = own.ok_or_else(|| SqlError::syntax(format!("invalid name: {name}")))?;
            TableAlias { explicit: true, name: own, columns: Vec::new() }
        }
    };
    Ok((table, shown, alias))
}

async fn begin(
    ctx: &StatementContext<'_>,
    with: Option<&With>,
    statement: &(impl ChangesRows + Sync),
    given: &[Option<DataType>],
) -> Result<Begun> {
    statement.refuse()?;
    let items = statement.returning()?;
    let (table, shown, alias) = find_table(ctx, statement).await?;
    let change = table.change(statement.kind())?;
    let target = Target { rows: change.clone(), table };
    let info = target.table.info();
    let shape = Shape { shown, schema: info.schema.clone(), defaults: info.defaults.clone(), alias };
    let mut compiled = statement.compile(ctx, &shape)?;
    compiled.query.with = with.cloned();
    let list = items.map(|items| {
        let (from, source) = (returning::from_of(&compiled.query), compiled.source.as_ref());
        returning::list(items, Seen { with, from, target: &shape.alias.name, source, places: true })
    });
    let list = list.transpose()?;
    let mut params = given.to_vec();
    params.resize(parameters(&compiled.query)?.max(given.len()), None);
    for (cell, to) in &compiled.cells {
        cells::cell_parameter(cell, to, &mut params);
    }
    Ok(Begun { change, target, shape, compiled, list, given: given.to_vec(), params })
}

pub(super) async fn describe(
    ctx: &StatementContext<'_>,
    with: Option<&With>,
    statement: &(impl ChangesRows + Sync),
    param_types: &[Option<DataType>],
) -> Result<(Vec<DataType>, Option<Vec<ResultColumn>>)> {
    let begun = begin(ctx, with, statement, param_types).await?;
    let (planned, columns) = plan(ctx, &begun, None, Purpose::Describe).await?;
    Ok((planned.params, columns))
}

/// The plan of what the table is handed, and what the client gets of it.
async fn plan(
    ctx: &StatementContext<'_>,
    begun: &Begun,
    values: Option<&[ScalarValue]>,
    purpose: Purpose,
) -> Result<(Planned, Option<Vec<ResultColumn>>)> {
    let Begun { target, shape, compiled, list, given, params, .. } = begun;
    let planner = Planner { target: Some(target), ..Planner::new(ctx, purpose).committed() };
    let mut planned = planner.query(&compiled.query, params, values).await?;
    let rows = (compiled.settle)(planned.plan, shape)?;
    let written = settled::written(shape, compiled.brings, compiled.brings || list.is_some())?;
    let Some(list) = list else {
        planned.plan = LogicalPlanBuilder::from(rows).project(written)?.build()?;
        return Ok((planned, None));
    };
    let known = known_types(&compiled.query, &planned.params, given)?;
    let put = |plan| returning::put(plan, &rows, &written);
    let mut planned = planner.changed(list, &known, values, &put).await?;
    planned.leave_from(written.len())?;
    let columns = planned.columns().split_off(written.len());
    Ok((planned, Some(columns)))
}

/// Types of parameters for a list of RETURNING: of those that `query` has, as they were found there.
pub(super) fn known_types(
    query: &Query,
    found: &[DataType],
    given: &[Option<DataType>],
) -> Result<Vec<Option<DataType>>> {
    let numbers = parameter_numbers(query)?;
    let known = (0..found.len().max(given.len())).map(|i| {
        let of_query = numbers.contains(&(i + 1)).then(|| found.get(i).cloned()).flatten();
        of_query.or_else(|| given.get(i).cloned().flatten())
    });
    Ok(known.collect())
}

/// How the rows are found that the statement changes.
pub(super) async fn explain(
    ctx: &StatementContext<'_>,
    with: Option<&With>,
    statement: &(impl ChangesRows + Sync),
) -> Result<Arc<dyn ExecutionPlan>> {
    let begun = begin(ctx, with, statement, &[]).await?;
    let (planned, _) = plan(ctx, &begun, None, Purpose::Execute).await?;
    planned.physical(&planned.assigned()?).await
}

pub(super) async fn execute(
    ctx: &StatementContext<'_>,
    with: Option<&With>,
    statement: &(impl ChangesRows + Sync),
    prepared: &Prepared,
) -> Result<Outcome> {
    let types: Vec<Option<DataType>> = prepared.params.iter().cloned().map(Some).collect();
    let mut runs = 0;
    loop {
        runs += 1;
        let (change, rows, kept, turn) = run::guard(&ctx.cancel, ctx.deadline, async {
            let (table, ..) = find_table(ctx, statement).await?;
            let lock = ctx.engine.lock_of(table.info().uuid);
            // Once it was overtaken, the others of this server wait for it.
            let turn =
                if runs == 1 { Turn::Shared(lock.read_owned().await) } else { Turn::Alone(lock.write_owned().await) };
            let begun = begin(ctx, with, statement, &types).await?;
            let (planned, columns) = plan(ctx, &begun, Some(ctx.params), Purpose::Execute).await?;
            if let Some(columns) = &columns {
                prepared.announced(columns)?;
            }
            let physical = planned.physical(&planned.assigned()?).await?;
            let wide = physical.schema().fields().len() > 1;
            let schema = answer(&begun.shape.schema, wide, columns.as_deref().unwrap_or_default());
            let stream = run::start(ctx, physical, planned.state.task_ctx(), schema.clone());
            let rows = without_nulls(stream, begun.shape.schema.clone(), begun.shape.shown.clone());
            let kept = columns.map(|columns| Arc::new(KeptRows::new(ctx, columns)));
            Ok((begun.change, rows, kept, turn))
        })
        .await?;
        let (repeated, runner) = (statement.repeated(), work::runner(ctx)?);
        // From here on only the rows can be cancelled: whether a commit took place must be known.
        let keeper = kept.clone();
        let done = run::detached(ctx, async move {
            let returned = keeper.as_deref().map(|kept| kept as &dyn ReturnedRows);
            let done = change.apply(rows, repeated, returned, &runner).await;
            drop(turn);
            Ok(done?)
        })
        .await;
        match done {
            Ok(changed) => return Ok(outcome(kept.as_deref(), statement.tag(changed))),
            // Nothing was done, so the statement may as well have begun now.
            Err(e) if e.state == SqlState::SERIALIZATION_FAILURE && runs < RUNS => {
                tracing::debug!(error = %e, runs, "a change of rows begins anew");
            }
            Err(e) => return Err(e),
        }
    }
}

/// The columns that a table is handed: which row goes, whether one comes, that one, and what is returned.
fn answer(schema: &Schema, wide: bool, returned: &[ResultColumn]) -> SchemaRef {
    let mut fields = vec![Field::new(ROW_PLACE, DataType::UInt64, true)];
    if wide {
        fields.push(Field::new("comes", DataType::Boolean, true));
        fields.extend(schema.fields().iter().map(|f| f.as_ref().clone().with_nullable(true)));
        fields.extend(returned.iter().map(|c| c.field.as_ref().clone().with_nullable(true)));
    }
    Arc::new(Schema::new(fields))
}

/// 23502 for a row that comes with a null where there must be none.
fn without_nulls(rows: SendableRecordBatchStream, schema: SchemaRef, table: String) -> SendableRecordBatchStream {
    let shown = rows.schema();
    let checked = rows.map(move |batch| {
        let batch = batch?;
        for (column, field) in batch.columns().iter().skip(2).zip(schema.fields()) {
            if field.is_nullable() || column.logical_null_count() == 0 {
                continue;
            }
            let (comes, nulls) = (batch.column(1).as_boolean(), column.logical_nulls());
            let null = |row: usize| nulls.as_ref().is_some_and(|nulls| nulls.is_null(row));
            if (0..batch.num_rows()).any(|row| comes.is_valid(row) && comes.value(row) && null(row)) {
                return Err(DataFusionError::from(cells::null_in(field.name(), &table)));
            }
        }
        Ok(batch)
    });
    Box::pin(RecordBatchStreamAdapter::new(shown, checked))
}
