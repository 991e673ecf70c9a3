//! INSERT INTO a table (one snapshot) or a stream (records).

use std::collections::{BTreeMap, HashSet};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arrow::array::Array;
use arrow::datatypes::{DataType, FieldRef, Schema, SchemaRef};
use datafusion::catalog::TableProvider;
use datafusion::common::{Column, ScalarValue};
use datafusion::datasource::empty::EmptyTable;
use datafusion::error::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::logical_expr::{Expr, LogicalPlanBuilder, lit};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::StreamExt;
use sqlparser::ast::{self, Ident, Insert, Query, Select, SelectItem, SetExpr, TableAlias, TableObject, Visitor, With};
use tidewater_catalogs::{ReturnedRows, StreamColumn, TargetRows};

use super::cells::{cell_parameter, null_in, type_cell};
use super::change::{
    KeptRows, RUNS, Seen, Writable, from_target, known_types, list as returning, outcome, put, reference,
};
use super::default_value;
use crate::dialect::{by_name, fold, under_with, walk};
use crate::error::Result;
use crate::plan::relation::StreamRelation;
use crate::plan::{Planned, Planner, Purpose, Target, assign, rewrite};
use crate::run;
use crate::session::{ChangeTag, Outcome, Prepared, ResultColumn, StatementContext};
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
    /// Of columns that the statement leaves out.
    defaults: BTreeMap<String, ScalarValue>,
    /// Columns are listed, so that each must get a value.
    explicit: bool,
    /// The list of RETURNING, over the rows that are written, and what it calls the table.
    list: Option<(Query, Ident)>,
}

/// The rows that are written, and those of them that are returned.
struct Rows {
    stream: SendableRecordBatchStream,
    kept: Option<Arc<KeptRows>>,
}

pub(super) async fn describe(
    ctx: &StatementContext<'_>,
    with: Option<&With>,
    insert: &Insert,
    param_types: &[Option<DataType>],
) -> Result<(Vec<DataType>, Option<Vec<ResultColumn>>)> {
    let checked = check(ctx, with, insert).await?;
    let types = parameter_types(&checked, param_types)?;
    let (planned, columns) = plan(ctx, &checked, &types, None, Purpose::Describe, None).await?;
    Ok((planned.params, columns))
}

pub(super) async fn execute(
    ctx: &StatementContext<'_>,
    with: Option<&With>,
    insert: &Insert,
    prepared: &Prepared,
) -> Result<Outcome> {
    if insert.overwrite {
        return overwrite(ctx, with, insert, prepared).await;
    }
    let (checked, Rows { stream, kept }) = run::guard(&ctx.cancel, ctx.deadline, async {
        let checked = check(ctx, with, insert).await?;
        let rows = rows(ctx, &checked, prepared, None).await?;
        Ok((checked, rows))
    })
    .await?;
    let (name, runner) = (checked.name.clone(), work::runner(ctx)?);
    let written = match checked.target {
        // From here on only the rows can be cancelled: whether a commit took place must be known.
        Writable::Table(table) => run::detached(ctx, async move { Ok(table.append(stream, &runner).await?) }).await?,
        Writable::Stream(relation) => run::detached(ctx, async move { produce(&relation, stream).await }).await?,
    };
    tracing::debug!(table = %name, rows = written, "rows inserted");
    Ok(outcome(kept.as_deref(), ChangeTag::Insert(written)))
}

/// INSERT OVERWRITE: the rows come in the place of all that are there. The table may be read for them.
async fn overwrite(
    ctx: &StatementContext<'_>,
    with: Option<&With>,
    insert: &Insert,
    prepared: &Prepared,
) -> Result<Outcome> {
    let mut runs = 0;
    loop {
        runs += 1;
        let (table, Rows { stream, kept }, here) = run::guard(&ctx.cancel, ctx.deadline, async {
            let checked = check(ctx, with, insert).await?;
            let Writable::Table(table) = &checked.target else {
                return Err(SqlError::new(SqlState::WRONG_OBJECT_TYPE, format!("\"{}\" is not a table", checked.name))
                    .with_detail("The records of a topic cannot be replaced."));
            };
            let replaced = Arc::new(Replaced { schema: checked.written.clone(), read: AtomicBool::default() });
            let target = Target { table: Arc::clone(table), rows: replaced.clone() };
            let rows = rows(ctx, &checked, prepared, Some(&target)).await?;
            Ok((target.table, rows, replaced.read.load(Ordering::Relaxed)))
        })
        .await?;
        let runner = work::runner(ctx)?;
        let done = run::detached(ctx, async move { Ok(table.overwrite(Some(stream), here, &runner).await?) }).await;
        match done {
            Ok(written) => return Ok(outcome(kept.as_deref(), ChangeTag::Insert(written))),
            Err(e) if e.state == SqlState::SERIALIZATION_FAILURE && runs < RUNS => {}
            Err(e) => return Err(e),
        }
    }
}

/// All rows of a table that is written to. As the target of a list of RETURNING it has the columns alone.
#[derive(Debug)]
struct Replaced {
    schema: SchemaRef,
    /// Whether what comes is made of them.
    read: AtomicBool,
}

impl TargetRows for Replaced {
    fn provider(&self) -> Result<Arc<dyn TableProvider>, tidewater_catalogs::Error> {
        Ok(Arc::new(EmptyTable::new(self.schema.clone())))
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

async fn check(ctx: &StatementContext<'_>, with: Option<&With>, insert: &Insert) -> Result<Checked> {
    refuse_clauses(insert)?;
    let TableObject::TableName(object) = &insert.table else {
        return Err(SqlError::unsupported("INSERT INTO a function is not supported"));
    };
    let (shown, target) = super::change::find_target(ctx, object).await?;
    let all: Vec<FieldRef> = match &target {
        Writable::Table(table) => table.info().schema.fields().iter().cloned().collect(),
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
    let named = if by_name(insert) { named_by(ctx, with, insert).await? } else { insert.columns.clone() };
    let mut columns = Vec::new();
    if insert.columns.is_empty() {
        columns.clone_from(&all);
    } else {
        let mut seen = HashSet::new();
        for ident in &named {
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
    let defaults = match &target {
        Writable::Table(table) => table.info().defaults.clone(),
        Writable::Stream(_) => BTreeMap::new(),
    };
    for field in &all {
        if !field.is_nullable()
            && !defaults.contains_key(field.name())
            && !columns.iter().any(|c| c.name() == field.name())
        {
            return Err(null_in(field.name(), &shown));
        }
    }
    let source = match &insert.source {
        Some(source) => under_with(with, prepare_source(source, &columns, &defaults)?, rewrite::query),
        // DEFAULT VALUES
        None => {
            let row = columns.iter().map(|_| ast::Expr::Identifier(Ident::new("default"))).collect();
            let values = ast::Values { explicit_row: false, value_keyword: false, rows: vec![row] };
            prepare_source(&rewrite::query(SetExpr::Values(values)), &columns, &defaults)?
        }
    };
    let written = match &target {
        Writable::Table(table) => table.info().schema.clone(),
        Writable::Stream(_) => Arc::new(Schema::new(columns.clone())),
    };
    let list = match &insert.returning {
        None => None,
        Some(_) if matches!(target, Writable::Stream(_)) => {
            return Err(SqlError::unsupported("RETURNING of records is not supported")
                .with_hint("Leave it out; the topic can be read once they are written."));
        }
        Some(items) => {
            let own = || object.0.last().and_then(|part| part.as_ident()).cloned();
            let called = insert.table_alias.clone().or_else(own);
            let called = called.ok_or_else(|| SqlError::syntax(format!("invalid name: {object}")))?;
            let alias = TableAlias { explicit: true, name: called.clone(), columns: Vec::new() };
            let seen = Seen { with, from: from_target(&alias), target: &called, source: None, places: false };
            Some((returning(items, seen)?, called))
        }
    };
    let explicit = !insert.columns.is_empty();
    Ok(Checked { target, name: shown, columns, written, source, defaults, explicit, list })
}

/// BY NAME: the columns that the query has.
async fn named_by(ctx: &StatementContext<'_>, with: Option<&With>, insert: &Insert) -> Result<Vec<Ident>> {
    let Some(source) = &insert.source else {
        return Err(SqlError::syntax("BY NAME takes a query").with_hint("Leave BY NAME out."));
    };
    let source = under_with(with, source.as_ref().clone(), rewrite::query);
    let planned = Planner::new(ctx, Purpose::Describe).committed().query(&source, &[], None).await?;
    Ok(planned.columns().iter().map(|column| Ident::with_quote('"', column.field.name())).collect())
}

fn refuse_clauses(insert: &Insert) -> Result<()> {
    let clause = if insert.on.is_some() {
        "ON CONFLICT"
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

fn too_many(expressions: bool) -> SqlError {
    SqlError::syntax(if expressions {
        "INSERT has more expressions than target columns"
    } else {
        "INSERT has more target columns than expressions"
    })
}

/// The source with untyped literals in the types of their columns: a literal of VALUES takes the type of the column
/// it goes to, not one that it would have to share with the other rows.
fn prepare_source(source: &Query, columns: &[FieldRef], defaults: &BTreeMap<String, ScalarValue>) -> Result<Query> {
    let mut source = source.clone();
    if let SetExpr::Query(inner) = source.body.as_mut() {
        **inner = prepare_source(inner, columns, defaults)?;
        return Ok(source);
    }
    let width = match source.body.as_ref() {
        SetExpr::Values(values) => values.rows.first().map(Vec::len),
        SetExpr::Select(select) => select_width(select),
        _ => None,
    };
    // Without a column list, columns that are not reached get their defaults, as in PostgreSQL.
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
                    default_value::fill(cell, defaults, column.name())?;
                    type_cell(cell, column.data_type(), true)?;
                }
            }
            if let Some(rows) = selected(&values.rows)? {
                *source.body = rows;
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

/// VALUES with subqueries among the cells, as a union of queries: the planner has no subqueries in VALUES.
fn selected(rows: &[Vec<ast::Expr>]) -> Result<Option<SetExpr>> {
    const MOST: usize = 100;
    struct Found(bool);
    impl Visitor for Found {
        type Break = ();
        fn pre_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
            self.0 = true;
            ControlFlow::Break(())
        }
    }
    let asks = rows.iter().flatten().any(|cell| {
        let mut found = Found(false);
        let _ = walk(cell, &mut found);
        found.0
    });
    if !asks {
        return Ok(None);
    }
    if rows.len() > MOST {
        return Err(SqlError::unsupported(format!("subqueries in more than {MOST} rows of VALUES are not supported"))
            .with_hint("Give such rows in a statement of their own."));
    }
    let queries = rows.iter().map(|row| {
        let mut select = rewrite::empty_select();
        select.projection = row.iter().cloned().map(SelectItem::UnnamedExpr).collect();
        SetExpr::Select(Box::new(select))
    });
    Ok(queries.reduce(|left, right| SetExpr::SetOperation {
        op: ast::SetOperator::Union,
        set_quantifier: ast::SetQuantifier::All,
        left: Box::new(left),
        right: Box::new(right),
    }))
}

/// None where there is a wildcard.
fn select_width(select: &Select) -> Option<usize> {
    let plain = |i: &SelectItem| matches!(i, SelectItem::UnnamedExpr(_) | SelectItem::ExprWithAlias { .. });
    select.projection.iter().all(plain).then_some(select.projection.len())
}

/// Parameters that are cells take the types of their columns.
fn parameter_types(checked: &Checked, given: &[Option<DataType>]) -> Result<Vec<Option<DataType>>> {
    let mut types = given.to_vec();
    types.resize(crate::plan::parameters(&checked.source)?.max(given.len()), None);
    let mut see = |cell: &ast::Expr, to: &DataType| cell_parameter(cell, to, &mut types);
    let mut body = checked.source.body.as_ref();
    while let SetExpr::Query(inner) = body {
        body = inner.body.as_ref();
    }
    match body {
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

/// The plan of the rows, in the columns and types that are written, and of what is returned of them.
async fn plan(
    ctx: &StatementContext<'_>,
    checked: &Checked,
    types: &[Option<DataType>],
    values: Option<&[ScalarValue]>,
    purpose: Purpose,
    target: Option<&Target>,
) -> Result<(Planned, Option<Vec<ResultColumn>>)> {
    let planner = Planner { target, ..Planner::new(ctx, purpose).committed() };
    let mut planned = planner.query(&checked.source, types, values).await?;
    let schema = planned.plan.schema().clone();
    let given = schema.fields().len();
    if given > checked.columns.len() {
        return Err(too_many(true));
    }
    // A column list must be filled; without one the first columns are meant.
    if given < checked.columns.len() && checked.explicit {
        return Err(too_many(false));
    }
    let literals = is_values(&checked.source);
    let mut exprs = Vec::with_capacity(checked.written.fields().len());
    for field in checked.written.fields() {
        let at = checked.columns.iter().position(|c| c.name() == field.name()).filter(|at| *at < given);
        exprs.push(match at {
            Some(at) => {
                let column = Expr::Column(schema.columns()[at].clone());
                let literal = literals && matches!(schema.field(at).data_type(), DataType::Null);
                if literal {
                    lit(ScalarValue::try_from(field.data_type())?)
                } else {
                    assign::to_type(column, schema.as_ref(), field.data_type(), field.name())?
                }
            }
            None => match checked.defaults.get(field.name()) {
                Some(default) => lit(default.clone()),
                None if field.is_nullable() => lit(ScalarValue::try_from(field.data_type())?),
                None => return Err(null_in(field.name(), &checked.name)),
            },
        });
    }
    let names = checked.written.fields().iter().map(|field| field.name().clone());
    let Some((list, called)) = &checked.list else {
        let exprs = exprs.into_iter().zip(names).map(|(expr, name)| expr.alias(name));
        planned.plan = LogicalPlanBuilder::from(planned.plan).project(exprs)?.build()?;
        return Ok((planned, None));
    };
    let table = reference(called);
    let exprs = exprs.into_iter().zip(names.clone()).map(|(e, name)| e.alias_qualified(Some(table.clone()), name));
    let rows = LogicalPlanBuilder::from(planned.plan).project(exprs)?.build()?;
    let written: Vec<Expr> = names
        .enumerate()
        .map(|(i, name)| Expr::Column(Column::new(Some(table.clone()), name)).alias(format!("_tidewater_{i}")))
        .collect();
    let known = known_types(&checked.source, &planned.params, types)?;
    let put = |plan| put(plan, &rows, &written);
    let own = match (&checked.target, target) {
        (_, Some(_)) | (Writable::Stream(_), None) => None,
        (Writable::Table(table), None) => Some(Target {
            table: Arc::clone(table),
            rows: Arc::new(Replaced { schema: checked.written.clone(), read: AtomicBool::default() }),
        }),
    };
    let planner = Planner { target: target.or(own.as_ref()), ..planner };
    let mut planned = planner.changed(list, &known, values, &put).await?;
    planned.leave_from(written.len())?;
    let columns = planned.columns().split_off(written.len());
    Ok((planned, Some(columns)))
}

/// Starts the query.
async fn rows(
    ctx: &StatementContext<'_>,
    checked: &Checked,
    prepared: &Prepared,
    target: Option<&Target>,
) -> Result<Rows> {
    let types: Vec<Option<DataType>> = prepared.params.iter().cloned().map(Some).collect();
    let (planned, columns) = plan(ctx, checked, &types, Some(ctx.params), Purpose::Execute, target).await?;
    if let Some(columns) = &columns {
        prepared.announced(columns)?;
    }
    let physical = planned.physical(&planned.assigned()?).await?;
    let schema = with_returned(&checked.written, columns.as_deref().unwrap_or_default());
    let mut stream = run::start(ctx, physical, planned.state.task_ctx(), schema);
    let kept = columns.map(|columns| Arc::new(KeptRows::new(ctx, columns)));
    if let Some(kept) = &kept {
        stream = keep(stream, checked.written.fields().len(), Arc::clone(kept));
    }
    Ok(Rows { stream: fit(stream, checked.written.clone(), checked.name.clone()), kept })
}

/// The first columns of the rows; the others are kept for the client.
fn keep(rows: SendableRecordBatchStream, first: usize, kept: Arc<KeptRows>) -> SendableRecordBatchStream {
    let columns: Vec<usize> = (0..first).collect();
    let schema = Arc::new(Schema::new(rows.schema().fields().iter().take(first).cloned().collect::<Vec<_>>()));
    let stream = rows.map(move |batch| {
        let batch = batch?;
        kept.keep(batch.project(&(first..batch.num_columns()).collect::<Vec<_>>())?)?;
        Ok(batch.project(&columns)?)
    });
    Box::pin(RecordBatchStreamAdapter::new(schema, stream))
}

/// Columns that are written, which may hold nulls until they are looked at, and those that are returned.
fn with_returned(written: &SchemaRef, returned: &[ResultColumn]) -> SchemaRef {
    let fields = written.fields().iter().chain(returned.iter().map(|c| &c.field));
    Arc::new(Schema::new(fields.map(|f| f.as_ref().clone().with_nullable(true)).collect::<Vec<_>>()))
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
