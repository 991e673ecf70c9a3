//! CREATE TABLE and CREATE TABLE … AS.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{Field, Schema};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::{Expr, LogicalPlanBuilder};
use sqlparser::ast::ColumnOption;
use tidewater_catalogs::{COLUMN_COMMENT, ErrorKind, NewTable, StagedTable, TableName};

use super::{default_value, schema};
use crate::dialect::{CreateTable, WriteOrder, arrow_type, fold};
use crate::error::Result;
use crate::plan::relation::new_name;
use crate::plan::{Planner, Purpose, assign, display_name, flow::stored_type, parameters};
use crate::run;
use crate::session::{Outcome, StatementContext};
use crate::work;
use crate::{SqlError, SqlState};

pub(super) async fn create_table(ctx: &StatementContext<'_>, create: &CreateTable) -> Result<Outcome> {
    let name = new_name(ctx.settings, &create.name)?;
    schema::require_schema(ctx.engine, &name).await?;
    let tag = if create.query.is_some() { "CREATE TABLE AS" } else { "CREATE TABLE" };
    if !is_free(ctx, &name, create).await? {
        return Ok(Outcome::done(tag));
    }
    if create.or_replace {
        return Err(SqlError::unsupported("CREATE OR REPLACE TABLE is not supported yet")
            .with_hint("DROP TABLE first, then CREATE TABLE."));
    }
    if let Some(option) = create.options.0.first() {
        return Err(SqlError::new(SqlState::INVALID_PARAMETER, format!("unrecognized parameter \"{}\"", option.name))
            .with_hint("Iceberg's properties go into TBLPROPERTIES ('name' = 'value')."));
    }
    if !create.constraints.is_empty() {
        return Err(constraint());
    }
    match &create.query {
        None => {
            let fields = declared(create)?;
            check_partitions(create, &fields)?;
            let defaults = run::guard(&ctx.cancel, ctx.deadline, defaults(ctx, create, &fields)).await?;
            let table = NewTable { defaults, ..new_table(create, &name, Schema::new(fields)) };
            // A stream that took the name since the first look would stand beside a table of the same name.
            let _names = schema::lock_names(ctx).await?;
            if is_free(ctx, &name, create).await? {
                ctx.engine.lake.create_table(table).await.map_err(|e| taken(&name, e))?;
            }
            Ok(Outcome::done(tag))
        }
        Some(query) => as_query(ctx, create, &name, query).await,
    }
}

fn constraint() -> SqlError {
    SqlError::unsupported("constraints other than NOT NULL are not supported yet")
        .with_detail("Iceberg tables do not enforce keys, so a declared one would promise what is not kept.")
        .with_hint("Leave the constraint out.")
}

fn declared(create: &CreateTable) -> Result<Vec<Field>> {
    let mut fields: Vec<Field> = Vec::with_capacity(create.columns.len());
    for column in &create.columns {
        let name = fold(&column.name);
        if fields.iter().any(|f| *f.name() == name) {
            return Err(SqlError::new(
                SqlState::DUPLICATE_COLUMN,
                format!("column \"{name}\" specified more than once"),
            ));
        }
        if column.data_type == sqlparser::ast::DataType::Unspecified {
            return Err(SqlError::syntax(format!("column \"{name}\" has no type")));
        }
        let mut nullable = true;
        let mut comment = None;
        for option in &column.options {
            match &option.option {
                ColumnOption::Null => {}
                ColumnOption::NotNull => nullable = false,
                ColumnOption::Comment(text) => comment = Some((COLUMN_COMMENT.to_owned(), text.clone())),
                // Computed once all columns are known.
                ColumnOption::Default(_) => {}
                ColumnOption::Generated { .. } | ColumnOption::Identity(_) => {
                    return Err(SqlError::unsupported(format!(
                        "generated column \"{name}\" of a table is not supported yet"
                    ))
                    .with_hint("Streams have generated columns; in a table, compute the value in the INSERT."));
                }
                _ => return Err(constraint()),
            }
        }
        let field = Field::new(name, arrow_type(&column.data_type)?, nullable);
        fields.push(field.with_metadata(comment.into_iter().collect()));
    }
    Ok(fields)
}

async fn defaults(
    ctx: &StatementContext<'_>,
    create: &CreateTable,
    fields: &[Field],
) -> Result<BTreeMap<String, ScalarValue>> {
    let mut all = BTreeMap::new();
    for (column, field) in create.columns.iter().zip(fields) {
        let mut given = column.options.iter().filter_map(|option| match &option.option {
            ColumnOption::Default(value) => Some(value),
            _ => None,
        });
        let Some(value) = given.next() else { continue };
        if given.next().is_some() {
            let text = format!("multiple default values specified for column \"{}\"", field.name());
            return Err(SqlError::syntax(text));
        }
        if let Some(value) = default_value::constant(ctx, value, field.data_type(), field.name()).await? {
            all.insert(field.name().clone(), value);
        }
    }
    Ok(all)
}

fn check_partitions(create: &CreateTable, fields: &[Field]) -> Result<()> {
    for partition in &create.partition_by {
        if !fields.iter().any(|f| *f.name() == partition.column) {
            return Err(SqlError::undefined_column(&partition.column)
                .with_detail("PARTITIONED BY names a column that the table does not have."));
        }
    }
    for sort in create.write_order.iter().flat_map(|order| &order.sort_by) {
        if !fields.iter().any(|f| *f.name() == sort.field.column) {
            return Err(SqlError::undefined_column(&sort.field.column)
                .with_detail("WRITE ORDERED BY names a column that the table does not have."));
        }
    }
    Ok(())
}

/// Whether the table may be made under this name. False where IF NOT EXISTS leaves it at what there is.
async fn is_free(ctx: &StatementContext<'_>, name: &TableName, create: &CreateTable) -> Result<bool> {
    match schema::find_relation(ctx.engine, name).await? {
        None => Ok(true),
        Some(_) if create.if_not_exists => {
            ctx.notice(schema::relation_skipped(name));
            Ok(false)
        }
        Some(found) => Err(schema::relation_exists(name, found)),
    }
}

fn new_table(create: &CreateTable, name: &TableName, schema: Schema) -> NewTable {
    // What the properties say goes before what the clause means.
    let distribution = create.write_order.as_ref().and_then(WriteOrder::property);
    NewTable {
        name: name.clone(),
        schema: Arc::new(schema),
        partition_by: create.partition_by.clone(),
        sort_by: create.write_order.as_ref().map(|order| order.sort_by.clone()).unwrap_or_default(),
        properties: distribution.into_iter().chain(create.properties.iter().cloned()).collect::<BTreeMap<_, _>>(),
        defaults: BTreeMap::new(),
        location: None,
        comment: create.comment.clone(),
    }
}

/// Another server was faster.
fn taken(name: &TableName, e: tidewater_catalogs::Error) -> SqlError {
    match e.kind() {
        ErrorKind::AlreadyExists => {
            SqlError::new(SqlState::DUPLICATE_TABLE, format!("relation \"{}\" already exists", name.name))
        }
        _ => e.into(),
    }
}

async fn as_query(
    ctx: &StatementContext<'_>,
    create: &CreateTable,
    name: &TableName,
    query: &sqlparser::ast::Query,
) -> Result<Outcome> {
    if parameters(query)? > 0 {
        return Err(SqlError::unsupported("parameters in CREATE TABLE AS are not supported yet")
            .with_hint("Create the table first, then INSERT … SELECT with parameters."));
    }
    let (planned, target) = run::guard(&ctx.cancel, ctx.deadline, async {
        let mut planned = Planner::new(ctx, Purpose::Execute).committed().query(query, &[], None).await?;
        let schema = planned.plan.schema().clone();
        if !create.columns.is_empty() && create.columns.len() > schema.fields().len() {
            return Err(SqlError::syntax("too many column names were specified"));
        }
        let mut fields: Vec<Field> = Vec::new();
        let mut exprs = Vec::new();
        for (i, column) in schema.columns().into_iter().enumerate() {
            let found = schema.field(i);
            let shown = create.columns.get(i).map_or_else(|| display_name(found.name()).to_owned(), |c| fold(&c.name));
            if fields.iter().any(|f| *f.name() == shown) {
                return Err(SqlError::new(
                    SqlState::DUPLICATE_COLUMN,
                    format!("column \"{shown}\" specified more than once"),
                ));
            }
            let to = stored_type(found.data_type());
            exprs.push(assign::to_type(Expr::Column(column), schema.as_ref(), &to, &shown)?.alias(&shown));
            fields.push(Field::new(shown, to, true));
        }
        check_partitions(create, &fields)?;
        planned.plan = LogicalPlanBuilder::from(planned.plan.clone()).project(exprs)?.build()?;
        Ok((planned, Arc::new(Schema::new(fields))))
    })
    .await?;
    let table = new_table(create, name, target.as_ref().clone());
    let filled = if create.no_data {
        None
    } else {
        let optimized = planned.assigned()?;
        let physical = planned.physical(&optimized).await?;
        Some(run::start(ctx, physical, planned.state.task_ctx(), target.clone()))
    };
    // Nobody sees the table before its rows are in it: what fails takes back files that have no name yet, and never
    // a table that others may have changed, or dropped and made again. Goes on where the client goes away.
    let (lake, relation, runner) = (ctx.engine.lake.clone(), name.clone(), work::runner(ctx)?);
    let (staged, rows) = run::detached(ctx, async move {
        let mut staged = lake.stage_table(table).await.map_err(|e| taken(&relation, e))?;
        let Some(rows) = filled else { return Ok((Unpublished(Some(staged)), None)) };
        let rows = super::insert::fit(rows, staged.info().schema.clone(), relation.name.clone());
        let done = staged.fill(rows, &runner).await;
        let staged = Unpublished(Some(staged));
        Ok((staged, Some(done?)))
    })
    .await?;
    let names = schema::lock_names(ctx).await?;
    let tag = rows.map_or_else(|| "CREATE TABLE AS".to_owned(), |rows| format!("SELECT {rows}"));
    if !is_free(ctx, name, create).await? {
        return Ok(Outcome::done("CREATE TABLE AS"));
    }
    let relation = name.clone();
    run::detached(ctx, async move {
        let _names = names;
        staged.publish().await.map_err(|e| taken(&relation, e))
    })
    .await?;
    Ok(Outcome::done(tag))
}

/// Takes its files back where the statement ends before it is published.
struct Unpublished(Option<Box<dyn StagedTable>>);

impl Unpublished {
    async fn publish(mut self) -> Result<(), tidewater_catalogs::Error> {
        match self.0.take() {
            Some(staged) => staged.publish().await,
            None => Ok(()),
        }
    }
}

impl Drop for Unpublished {
    fn drop(&mut self) {
        let Some(staged) = self.0.take() else { return };
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        runtime.spawn(async move {
            let name = staged.info().name.clone();
            if let Err(e) = staged.discard().await {
                tracing::warn!(table = %name, error = %e, "files of a table that was not made were left behind");
            }
        });
    }
}
