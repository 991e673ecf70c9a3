//! ALTER TABLE of Iceberg tables, and COMMENT ON.

use std::sync::Arc;

use datafusion::datasource::provider_as_source;
use datafusion::logical_expr::{Expr, LogicalPlanBuilder, lit};
use futures::StreamExt;
use tidewater_catalogs::{Alteration, DefinitionKind, Error, ErrorKind, LakeTable};

use super::change::{RUNS, Writable, find_writable};
use super::default_value;
use crate::dialect::AlterTable;
use crate::error::Result;
use crate::plan::{Planned, Planner, Purpose};
use crate::run::{self, detached};
use crate::session::{Notice, Outcome, StatementContext};
use crate::{SqlError, SqlState};

pub(super) async fn alter_table(ctx: &StatementContext<'_>, alter: &AlterTable) -> Result<Outcome> {
    let mut runs = 0;
    loop {
        runs += 1;
        let found = match find_writable(ctx, &alter.name).await {
            Err(e) if e.state == SqlState::UNDEFINED_TABLE && alter.if_exists => {
                let name = alter.name.last();
                ctx.notice(Notice::notice(format!("relation \"{name}\" does not exist, skipping")));
                return Ok(Outcome::done(alter.tag));
            }
            other => other?,
        };
        if let (_, Writable::Table(table)) = &found
            && table.info().branch.is_some()
        {
            return Err(SqlError::unsupported("a branch has no columns and properties of its own")
                .with_hint("Name the table alone: they are the same in all of its branches."));
        }
        let (shown, Writable::Table(table)) = found else {
            return Err(SqlError::new(
                SqlState::WRONG_OBJECT_TYPE,
                format!("\"{}\" is not a table", alter.name.last()),
            )
            .with_hint("CREATE OR REPLACE STREAM changes a stream; the topic is not touched by it."));
        };
        refuse_flow(ctx, table.as_ref(), &alter.alterations).await?;
        for alteration in &alter.alterations {
            if let Alteration::ChangeNull { path, nullable: false } = alteration {
                run::guard(&ctx.cancel, ctx.deadline, no_nulls(ctx, &table, path, &shown)).await?;
            }
        }
        let with_defaults = with_defaults(ctx, alter, table.as_ref());
        let alterations = run::guard(&ctx.cancel, ctx.deadline, with_defaults).await?;
        let done =
            detached(ctx, async move { table.alter(&alterations).await.map_err(|e| of_column(e, &shown)) }).await;
        match done {
            Ok(()) => return Ok(Outcome::done(alter.tag)),
            Err(e) if e.state == SqlState::SERIALIZATION_FAILURE && runs < RUNS => {}
            Err(e) => return Err(e),
        }
    }
}

/// The alterations with the values of their defaults.
async fn with_defaults(
    ctx: &StatementContext<'_>,
    alter: &AlterTable,
    table: &dyn LakeTable,
) -> Result<Vec<Alteration>> {
    let mut alterations = alter.alterations.clone();
    for (at, value) in &alter.defaults {
        match alterations.get_mut(*at) {
            Some(Alteration::AddColumn(add)) => {
                add.default = default_value::constant(ctx, value, &add.data_type, &add.path.join(".")).await?;
            }
            Some(Alteration::ChangeDefault { path, default }) => {
                let [column] = path.as_slice() else {
                    return Err(SqlError::unsupported("a default of a part of a column is not supported"));
                };
                // Whether it is there is found out with the change.
                if let Ok(field) = table.info().schema.field_with_name(column) {
                    *default = default_value::constant(ctx, value, field.data_type(), column).await?;
                }
            }
            _ => return Err(SqlError::internal("a default belongs to no alteration")),
        }
    }
    Ok(alterations)
}

/// Files of a flow are written with the columns that its query has.
pub(super) async fn refuse_flow(
    ctx: &StatementContext<'_>,
    table: &dyn LakeTable,
    alterations: &[Alteration],
) -> Result<()> {
    let harmless = |a: &Alteration| {
        matches!(
            a,
            Alteration::SetProperties(_)
                | Alteration::ResetProperties(_)
                | Alteration::CommentColumn { .. }
                | Alteration::SetSortOrder(_)
        )
    };
    if alterations.iter().all(harmless) {
        return Ok(());
    }
    let name = table.info().name.to_string();
    if table.flows().is_empty() && ctx.engine.metastore.get(DefinitionKind::Flow, &name).await?.is_none() {
        return Ok(());
    }
    Err(SqlError::unsupported("changing the columns or partitions of a streaming table is not supported yet")
        .with_hint("Create a new streaming table with the changed query. Properties and comments can be changed."))
}

/// PostgreSQL's code for a column that is not there, or there already.
pub(super) fn of_column(e: Error, table: &str) -> SqlError {
    let state = match e.kind() {
        ErrorKind::NotFound if ["column ", "partition column "].iter().any(|w| e.message().starts_with(w)) => {
            SqlState::UNDEFINED_COLUMN
        }
        ErrorKind::AlreadyExists if e.message().starts_with("column ") => SqlState::DUPLICATE_COLUMN,
        _ => return e.into(),
    };
    let message = e.message().replacen("\" ", &format!("\" of relation \"{table}\" "), 1);
    SqlError::new(state, message)
}

/// 23502 where a row has a null in the column.
async fn no_nulls(ctx: &StatementContext<'_>, table: &Arc<dyn LakeTable>, path: &[String], shown: &str) -> Result<()> {
    let [column] = path else { return Ok(()) };
    let schema = &table.info().schema;
    if schema.field_with_name(column).is_ok_and(|field| field.is_nullable()) {
        let column = datafusion::common::Column::new_unqualified(column);
        let found = Expr::Column(column).is_null();
        let plan = LogicalPlanBuilder::scan(shown, provider_as_source(table.provider()?), None)?
            .filter(found)?
            .project([lit(1_i32)])?
            .limit(0, Some(1))?
            .build()?;
        let planner = Planner::new(ctx, Purpose::Execute);
        let planned = Planned { state: planner.state()?, plan, params: Vec::new() };
        let mut rows = planned.start(ctx, &planned.columns()).await?;
        while let Some(batch) = rows.next().await {
            if batch?.num_rows() > 0 {
                return Err(SqlError::new(
                    SqlState::NOT_NULL_VIOLATION,
                    format!("column \"{}\" of relation \"{shown}\" contains null values", path.join(".")),
                ));
            }
        }
    }
    Ok(())
}
