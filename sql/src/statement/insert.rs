//! INSERT INTO a table (one snapshot) or a stream (records).

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arrow::array::Array;
use arrow::datatypes::{DataType, FieldRef, Schema, SchemaRef};
use datafusion::catalog::TableProvider;
use datafusion::common::ScalarValue;
use datafusion::error::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::logical_expr::{Expr, LogicalPlanBuilder, lit};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::StreamExt;
use sqlparser::ast::{self, CastKind, Ident, Insert, Query, Select, SelectItem, SetExpr, TableObject, Value, Visitor};
use tidewater_catalogs::{StreamColumn, TargetRows};

use super::change::{RUNS, Writable, branch_refused};
use crate::dialect::{fold, parse_type, type_name, walk};
use crate::error::Result;
use crate::plan::relation::StreamRelation;
use crate::plan::{Planner, Purpose, Target, assign, rewrite};
use crate::run;
use crate::session::{Outcome, Prepared, ResultColumn, StatementContext};
use crate::work;
use crate::{SqlError, SqlState};

struct Checked {
    target: Writable,
    name: String,
    /// Columns that the statement gives values for, in its order.
    columns: Vec<FieldRef>,
    /// Columns of what is written: all of a table, the given ones of a stream.
    written: SchemaRef,
    source: Query,
}

pub(super) async fn describe(
    ctx: &StatementContext<'_>,
    insert: &Insert,
    param_types: &[Option<DataType>],
) -> Result<(Vec<DataType>, Option<Vec<ResultColumn>>)> {
    let checked = check(ctx, insert).await?;
    let types = parameter_types(&checked, param_types)?;
    let planned = Planner::new(ctx, Purpose::Describe).query(&checked.source, &types, None).await?;
    if planned.plan.schema().fields().len() > checked.columns.len() {
        return Err(too_many(true));
    }
    Ok((planned.params, None))
}

pub(super) async fn execute(ctx: &StatementContext<'_>, insert: &Insert, prepared: &Prepared) -> Result<Outcome> {
    if insert.overwrite {
        return overwrite(ctx, insert, prepared).await;
    }
    let (checked, stream) = run::guard(&ctx.cancel, ctx.deadline, async {
        let checked = check(ctx, insert).await?;
        let types: Vec<Option<DataType>> = prepared.params.iter().cloned().map(Some).collect();
        let stream = rows(ctx, &checked, &types, None).await?;
        Ok((checked, stream))
    })
    .await?;
    let (name, runner) = (checked.name.clone(), work::runner(ctx)?);
    let written = match checked.target {
        // From here on only the rows can be cancelled: whether a commit took place must be known.
        Writable::Table(table) => run::detached(ctx, async move { Ok(table.append(stream, &runner).await?) }).await?,
        Writable::Branch(table, branch) => {
            run::detached(ctx, async move { Ok(table.append_to_branch(&branch, stream, &runner).await?) }).await?
        }
        Writable::Stream(relation) => run::detached(ctx, async move { produce(&relation, stream).await }).await?,
    };
    tracing::debug!(table = %name, rows = written, "rows inserted");
    Ok(Outcome::done(format!("INSERT 0 {written}")))
}

/// INSERT OVERWRITE: the rows come in the place of all that are there. The table may be read for them.
async fn overwrite(ctx: &StatementContext<'_>, insert: &Insert, prepared: &Prepared) -> Result<Outcome> {
    let types: Vec<Option<DataType>> = prepared.params.iter().cloned().map(Some).collect();
    let mut runs = 0;
    loop {
        runs += 1;
        let (table, stream, here) = run::guard(&ctx.cancel, ctx.deadline, async {
            let checked = check(ctx, insert).await?;
            if let Writable::Branch(..) = &checked.target {
                return Err(branch_refused("INSERT OVERWRITE of a branch is not supported yet"));
            }
            let Writable::Table(table) = &checked.target else {
                return Err(SqlError::new(SqlState::WRONG_OBJECT_TYPE, format!("\"{}\" is not a table", checked.name))
                    .with_detail("The records of a topic cannot be replaced."));
            };
            let replaced = Arc::new(Replaced::default());
            let target = Target { table: Arc::clone(table), rows: replaced.clone() };
            let stream = rows(ctx, &checked, &types, Some(&target)).await?;
            Ok((target.table, stream, replaced.read.load(Ordering::Relaxed)))
        })
        .await?;
        let runner = work::runner(ctx)?;
        let done = run::detached(ctx, async move { Ok(table.overwrite(Some(stream), here, &runner).await?) }).await;
        match done {
            Ok(written) => return Ok(Outcome::done(format!("INSERT 0 {written}"))),
            Err(e) if e.state == SqlState::SERIALIZATION_FAILURE && runs < RUNS => {}
            Err(e) => return Err(e),
        }
    }
}

/// All rows of a table that is overwritten.
#[derive(Debug, Default)]
struct Replaced {
    /// Whether what comes is made of them.
    read: AtomicBool,
}

impl TargetRows for Replaced {
    fn provider(&self) -> Result<Arc<dyn TableProvider>, tidewater_catalogs::Error> {
        Err(tidewater_catalogs::Error::internal("rows that are overwritten have no places"))
    }
    fn reads_table(&self) {
        self.read.store(true, Ordering::Relaxed);
    }
}

async fn produce(relation: &StreamRelation, mut rows: SendableRecordBatchStream) -> Result<u64> {
    let mut writer = relation.source.writer().await?;
    while let Some(batch) = rows.next().await {
        writer.write(&batch?).await.map_err(partly)?;
    }
    writer.finish().await.map_err(partly)
}

fn partly(e: tidewater_catalogs::Error) -> SqlError {
    let e = SqlError::from(e);
    let detail = "Records that were written before the error stay in the topic.";
    let detail = e.detail.as_deref().map_or_else(|| detail.to_owned(), |d| format!("{d} {detail}"));
    e.with_detail(detail)
}

async fn check(ctx: &StatementContext<'_>, insert: &Insert) -> Result<Checked> {
    refuse_clauses(insert)?;
    let TableObject::TableName(object) = &insert.table else {
        return Err(SqlError::unsupported("INSERT INTO a function is not supported"));
    };
    let (shown, target) = super::change::find_target(ctx, object).await?;
    let all: Vec<FieldRef> = match &target {
        Writable::Table(table) | Writable::Branch(table, _) => table.info().schema.fields().iter().cloned().collect(),
        Writable::Stream(stream) => stream
            .definition
            .spec
            .columns
            .iter()
            .filter_map(|c| match c {
                StreamColumn::Value(field) => Some(Arc::new(field.clone())),
                StreamColumn::Metadata { .. } => None,
            })
            .collect(),
    };
    let mut columns = Vec::new();
    if insert.columns.is_empty() {
        columns.clone_from(&all);
    } else {
        let mut seen = HashSet::new();
        for ident in &insert.columns {
            let column = fold(ident);
            if !seen.insert(column.clone()) {
                return Err(SqlError::new(
                    SqlState::DUPLICATE_COLUMN,
                    format!("column \"{column}\" specified more than once"),
                ));
            }
            match all.iter().find(|f| *f.name() == column) {
                Some(field) => columns.push(field.clone()),
                None => return Err(no_such_column(ctx, &target, &shown, &column, ident)),
            }
        }
    }
    for field in &all {
        if !field.is_nullable() && !columns.iter().any(|c| c.name() == field.name()) {
            return Err(null_in(field.name(), &shown));
        }
    }
    let source = match &insert.source {
        Some(source) => prepare_source(source, &columns)?,
        None => {
            return Err(SqlError::unsupported("INSERT … DEFAULT VALUES is not supported")
                .with_hint("There are no defaults; give the values."));
        }
    };
    let written = match &target {
        Writable::Table(table) | Writable::Branch(table, _) => table.info().schema.clone(),
        Writable::Stream(_) => Arc::new(Schema::new(columns.clone())),
    };
    Ok(Checked { target, name: shown, columns, written, source })
}

fn refuse_clauses(insert: &Insert) -> Result<()> {
    let clause = if insert.on.is_some() {
        "ON CONFLICT"
    } else if insert.returning.is_some() {
        "RETURNING"
    } else if insert.partitioned.is_some()
        || insert.or.is_some()
        || insert.ignore
        || insert.replace_into
        || insert.priority.is_some()
        || insert.insert_alias.is_some()
        || insert.settings.is_some()
        || insert.format_clause.is_some()
        || !insert.assignments.is_empty()
        || !insert.after_columns.is_empty()
    {
        "this form of INSERT"
    } else {
        return Ok(());
    };
    Err(SqlError::unsupported(format!("{clause} is not supported yet"))
        .with_hint("Write INSERT INTO table (columns) VALUES … or SELECT …."))
}

fn no_such_column(ctx: &StatementContext<'_>, target: &Writable, table: &str, column: &str, ident: &Ident) -> SqlError {
    let mut error = match target {
        Writable::Stream(s) if s.definition.visible().contains(&column) => {
            SqlError::new(SqlState("428C9"), format!("cannot insert a non-DEFAULT value into column \"{column}\""))
                .with_detail(format!(
                    "Column \"{column}\" is computed or comes with the record; it is not part of the value."
                ))
        }
        _ => SqlError::new(
            SqlState::UNDEFINED_COLUMN,
            format!("column \"{column}\" of relation \"{table}\" does not exist"),
        ),
    };
    error.position = ctx.statement.position(ident.span.start);
    error
}

pub(super) fn null_in(column: &str, table: &str) -> SqlError {
    SqlError::new(
        SqlState::NOT_NULL_VIOLATION,
        format!("null value in column \"{column}\" of relation \"{table}\" violates not-null constraint"),
    )
}

fn too_many(expressions: bool) -> SqlError {
    SqlError::syntax(if expressions {
        "INSERT has more expressions than target columns"
    } else {
        "INSERT has more target columns than expressions"
    })
}

/// The source with untyped literals in the types of their columns: a literal of VALUES takes the type of the column
/// it goes to, not one that it would have to share with the other rows.
fn prepare_source(source: &Query, columns: &[FieldRef]) -> Result<Query> {
    let mut source = source.clone();
    let width = match source.body.as_ref() {
        SetExpr::Values(values) => values.rows.first().map(Vec::len),
        SetExpr::Select(select) => select_width(select),
        _ => None,
    };
    // Without a column list, columns that are not reached stay null, as in PostgreSQL.
    if width.is_some_and(|w| w > columns.len()) {
        return Err(too_many(true));
    }
    match source.body.as_mut() {
        SetExpr::Values(values) => {
            let width = values.rows.first().map_or(0, Vec::len);
            for row in &mut values.rows {
                if row.len() != width {
                    return Err(SqlError::syntax("VALUES lists must all be the same length"));
                }
                for (cell, column) in row.iter_mut().zip(columns.iter()) {
                    type_cell(cell, column.data_type(), true)?;
                }
            }
        }
        SetExpr::Select(select) if select_width(select).is_some() => {
            for (item, column) in select.projection.iter_mut().zip(columns.iter()) {
                if let SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } = item {
                    type_cell(expr, column.data_type(), false)?;
                }
            }
        }
        _ => {}
    }
    Ok(source)
}

/// None where there is a wildcard.
fn select_width(select: &Select) -> Option<usize> {
    let plain = |i: &SelectItem| matches!(i, SelectItem::UnnamedExpr(_) | SelectItem::ExprWithAlias { .. });
    select.projection.iter().all(plain).then_some(select.projection.len())
}

/// Casts an untyped literal to the column's type. In VALUES every cell is cast: the rows would have to agree on one
/// type otherwise, which may be another one than the column's.
pub(super) fn type_cell(cell: &mut ast::Expr, to: &DataType, values: bool) -> Result<()> {
    if row_cell(cell, to)? {
        return Ok(());
    }
    let literal = match cell {
        ast::Expr::Value(v) => matches!(v.value, Value::SingleQuotedString(_) | Value::Null | Value::Placeholder(_)),
        // DEFAULT: there are none, so it is null.
        ast::Expr::Identifier(i) if i.quote_style.is_none() && i.value.eq_ignore_ascii_case("default") => {
            *cell = ast::Expr::Value(Value::Null.into());
            true
        }
        _ => false,
    };
    if !literal && !values {
        return Ok(());
    }
    if holds_rows(to) {
        if matches!(cell, ast::Expr::Value(v) if matches!(v.value, Value::SingleQuotedString(_))) {
            return Err(SqlError::unsupported(format!("text is not read as {}", to_name(to)))
                .with_hint("Write ROW(value, …), and ARRAY[ROW(…), …] for several."));
        }
        if !literal {
            return Ok(());
        }
    }
    if let Some(name) = type_name(to) {
        let data_type = parse_type(&name)?;
        let value = std::mem::replace(cell, ast::Expr::Value(Value::Null.into()));
        *cell = ast::Expr::Cast { kind: CastKind::Cast, expr: Box::new(value), data_type, array: false, format: None };
    }
    Ok(())
}

/// `ROW(…)` takes the names and types of the members of its column; so do the rows of `ARRAY[ROW(…), …]`. True where
/// the cell was such a one.
fn row_cell(cell: &mut ast::Expr, to: &DataType) -> Result<bool> {
    match to {
        DataType::Struct(members) => {
            let Some(values) = row_values(cell) else { return Ok(false) };
            if values.len() != members.len() {
                return Err(SqlError::new(
                    SqlState::CANNOT_COERCE,
                    format!("cannot cast a row of {} values to {}", values.len(), to_name(to)),
                )
                .with_hint("Give a value for each member; NULL where there is none."));
            }
            let mut args = Vec::with_capacity(2 * members.len());
            for (mut value, member) in values.into_iter().zip(members) {
                type_cell(&mut value, member.data_type(), true)?;
                args.push(ast::Expr::Value(Value::SingleQuotedString(member.name().clone()).into()));
                args.push(value);
            }
            *cell = rewrite::call("named_struct", args);
            Ok(true)
        }
        DataType::List(item) if holds_rows(item.data_type()) => {
            let ast::Expr::Array(array) = cell else { return Ok(false) };
            if array.elem.is_empty() {
                return Ok(false);
            }
            for element in &mut array.elem {
                type_cell(element, item.data_type(), true)?;
            }
            Ok(true)
        }
        _ => Ok(false),
    }
}

/// The values of `ROW(a, b)` and `(a, b)`.
fn row_values(cell: &mut ast::Expr) -> Option<Vec<ast::Expr>> {
    match cell {
        ast::Expr::Tuple(values) => Some(std::mem::take(values)),
        ast::Expr::Function(f) if f.name.0.len() == 1 && f.name.0[0].as_ident().is_some_and(|i| fold(i) == "row") => {
            let ast::FunctionArguments::List(list) = &mut f.args else { return None };
            let values = std::mem::take(&mut list.args).into_iter().map(|arg| match arg {
                ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Expr(value)) => Some(value),
                _ => None,
            });
            values.collect()
        }
        _ => None,
    }
}

fn holds_rows(to: &DataType) -> bool {
    match to {
        DataType::Struct(_) => true,
        DataType::List(item) => holds_rows(item.data_type()),
        _ => false,
    }
}

fn to_name(to: &DataType) -> String {
    type_name(to).map_or_else(|| to.to_string(), |n| n.to_lowercase())
}

/// Parameters that are cells take the types of their columns.
fn parameter_types(checked: &Checked, given: &[Option<DataType>]) -> Result<Vec<Option<DataType>>> {
    let mut types = given.to_vec();
    types.resize(crate::plan::parameters(&checked.source)?.max(given.len()), None);
    let mut see = |cell: &ast::Expr, to: &DataType| cell_parameter(cell, to, &mut types);
    match checked.source.body.as_ref() {
        SetExpr::Values(values) => {
            for row in &values.rows {
                row.iter().zip(&checked.columns).for_each(|(cell, c)| see(cell, c.data_type()));
            }
        }
        SetExpr::Select(select) if select_width(select).is_some() => {
            for (item, column) in select.projection.iter().zip(&checked.columns) {
                if let SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } = item {
                    see(expr, column.data_type());
                }
            }
        }
        _ => {}
    }
    Ok(types)
}

/// A parameter that is a cell takes the type of its column.
pub(super) fn cell_parameter(cell: &ast::Expr, to: &DataType, types: &mut [Option<DataType>]) {
    let inner = match cell {
        ast::Expr::Cast { expr, .. } => expr.as_ref(),
        other => other,
    };
    if let ast::Expr::Value(v) = inner
        && let Value::Placeholder(name) = &v.value
        && let Some(n) = name.strip_prefix('$').and_then(|n| n.parse::<usize>().ok())
        && let Some(slot) = n.checked_sub(1).and_then(|i| types.get_mut(i))
        && slot.is_none()
    {
        *slot = Some(to.clone());
    }
}

/// True where the source is VALUES, whose literals have no type of their own.
fn is_values(source: &Query) -> bool {
    struct Found(bool);
    impl Visitor for Found {
        type Break = ();
        fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
            self.0 = matches!(query.body.as_ref(), SetExpr::Values(_));
            ControlFlow::Break(())
        }
    }
    let mut found = Found(false);
    let _ = walk(source, &mut found);
    found.0
}

/// The rows, in the columns and types that are written.
async fn rows(
    ctx: &StatementContext<'_>,
    checked: &Checked,
    types: &[Option<DataType>],
    target: Option<&Target>,
) -> Result<SendableRecordBatchStream> {
    let planner = Planner { target, ..Planner::new(ctx, Purpose::Execute).committed() };
    let mut planned = planner.query(&checked.source, types, Some(ctx.params)).await?;
    let schema = planned.plan.schema().clone();
    let given = schema.fields().len();
    if given > checked.columns.len() {
        return Err(too_many(true));
    }
    // A column list must be filled; without one the first columns are meant.
    if given < checked.columns.len() && checked.explicit(ctx) {
        return Err(too_many(false));
    }
    let values = is_values(&checked.source);
    let mut exprs = Vec::with_capacity(checked.written.fields().len());
    for field in checked.written.fields() {
        let at = checked.columns.iter().position(|c| c.name() == field.name()).filter(|at| *at < given);
        let expr = match at {
            Some(at) => {
                let column = Expr::Column(schema.columns()[at].clone());
                let literal = values && matches!(schema.field(at).data_type(), DataType::Null);
                if literal {
                    lit(ScalarValue::try_from(field.data_type())?)
                } else {
                    assign::to_type(column, schema.as_ref(), field.data_type(), field.name())?
                }
            }
            None if field.is_nullable() => lit(ScalarValue::try_from(field.data_type())?),
            None => return Err(null_in(field.name(), &checked.name)),
        };
        exprs.push(expr.alias(field.name()));
    }
    planned.plan = LogicalPlanBuilder::from(planned.plan).project(exprs)?.build()?;
    let optimized = planned.assigned()?;
    let physical = planned.physical(&optimized).await?;
    let stream = run::start(ctx, physical, planned.state.task_ctx(), nullable(&checked.written));
    Ok(fit(stream, checked.written.clone(), checked.name.clone()))
}

impl Checked {
    fn explicit(&self, ctx: &StatementContext<'_>) -> bool {
        matches!(&ctx.statement.statement, crate::Statement::Sql(sql)
            if matches!(sql.as_ref(), ast::Statement::Insert(i) if !i.columns.is_empty()))
    }
}

fn nullable(schema: &SchemaRef) -> SchemaRef {
    Arc::new(Schema::new(schema.fields().iter().map(|f| f.as_ref().clone().with_nullable(true)).collect::<Vec<_>>()))
}

/// Batches under the schema that is written; a null where there must be none ends the statement, before anything is
/// committed.
pub(super) fn fit(rows: SendableRecordBatchStream, schema: SchemaRef, table: String) -> SendableRecordBatchStream {
    let to = schema.clone();
    let stream = rows.map(move |batch| {
        let batch = batch?;
        for (column, field) in batch.columns().iter().zip(to.fields()) {
            if !field.is_nullable() && column.logical_null_count() > 0 {
                return Err(DataFusionError::from(null_in(field.name(), &table)));
            }
        }
        run::conform(batch, &to)
    });
    Box::pin(RecordBatchStreamAdapter::new(schema, stream))
}
