//! `EXPLAIN [ANALYZE] [VERBOSE]`, as one column `QUERY PLAN`.

use std::sync::Arc;

use arrow::array::StringArray;
use arrow::datatypes::{DataType, Field};
use arrow::record_batch::RecordBatch;
use datafusion::physical_plan::display::DisplayableExecutionPlan;
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use futures::StreamExt;
use sqlparser::ast;

use super::{change, dry_run};
use crate::dialect::{Explain, ExplainTarget, Statement, behind_with, under_with};
use crate::error::Result;
use crate::plan::{Planner, Purpose, flow, rewrite};
use crate::run::{self, guard};
use crate::session::{Outcome, ResultColumn, RowsTag, StatementContext};
use crate::{SqlError, SqlState};

pub(super) fn columns(explain: &Explain) -> Vec<ResultColumn> {
    if explain.dry_run {
        return dry_run::columns();
    }
    vec![ResultColumn::new(Arc::new(Field::new("QUERY PLAN", DataType::Utf8, false)))]
}

pub(super) async fn explain(ctx: &StatementContext<'_>, explain: &Explain) -> Result<Outcome> {
    if explain.dry_run {
        return guard(&ctx.cancel, ctx.deadline, dry_run::run(ctx, explain)).await;
    }
    if explain.format != "text" {
        return Err(SqlError::unsupported(format!("EXPLAIN format \"{}\" is not supported", explain.format))
            .with_hint("Use FORMAT TEXT."));
    }
    let text = guard(&ctx.cancel, ctx.deadline, plan_text(ctx, explain)).await?;
    let columns = columns(explain);
    let schema = run::schema_of(&columns);
    let batch = RecordBatch::try_new(
        schema.clone(),
        vec![Arc::new(StringArray::from_iter_values(text.lines().collect::<Vec<_>>()))],
    )?;
    Ok(Outcome::Rows { columns, stream: run::rows(schema, vec![batch]), tag: RowsTag::Explain })
}

async fn plan_text(ctx: &StatementContext<'_>, explain: &Explain) -> Result<String> {
    match &explain.target {
        ExplainTarget::Flow(_) => Err(SqlError::unsupported("EXPLAIN FLOW is not supported yet")
            .with_hint("SELECT * FROM system.flows shows what a flow does; SHOW CREATE shows its query.")),
        ExplainTarget::Statement(statement) => match statement.as_ref() {
            Statement::Sql(sql) => match behind_with(sql) {
                (_, ast::Statement::Query(query)) => query_text(ctx, explain, query, Written::No).await,
                (with, ast::Statement::Insert(ast::Insert { source: Some(source), .. })) if !explain.analyze => {
                    let source = under_with(with, source.as_ref().clone(), rewrite::query);
                    Ok(format!("Insert\n{}", indent(&query_text(ctx, explain, &source, Written::Yes).await?)))
                }
                (with, ast::Statement::Delete(delete)) if !explain.analyze => {
                    Ok(change_text("Delete", explain, change::explain(ctx, with, delete).await?.as_ref()))
                }
                (with, ast::Statement::Update(update)) if !explain.analyze => {
                    Ok(change_text("Update", explain, change::explain(ctx, with, update).await?.as_ref()))
                }
                (with, ast::Statement::Merge(merge)) if !explain.analyze => {
                    let merge = change::evolved(ctx, with, merge, false).await?;
                    Ok(change_text("Merge", explain, change::explain(ctx, with, merge.as_ref()).await?.as_ref()))
                }
                _ => Err(cannot()),
            },
            Statement::CreateTable(create) if !explain.analyze => match &create.query {
                Some(query) => {
                    Ok(format!("Create table\n{}", indent(&query_text(ctx, explain, query, Written::Yes).await?)))
                }
                None => Err(cannot()),
            },
            Statement::CreateStreamingTable(create) if !explain.analyze => {
                let compiled = flow::compile(ctx.engine, ctx.settings, create, &ctx.statement.text).await?;
                let columns: Vec<String> = compiled
                    .output_schema()
                    .fields()
                    .iter()
                    .map(|f| format!("{} {}", f.name(), f.data_type()))
                    .collect();
                Ok(format!(
                    "Streaming table: append\n  Stream: {}\n  Columns: {}\n{}",
                    compiled.stream.name,
                    columns.join(", "),
                    indent(&flow::plan_text(&compiled))
                ))
            }
            _ => Err(cannot()),
        },
    }
}

fn cannot() -> SqlError {
    SqlError::new(SqlState::NOT_SUPPORTED, "EXPLAIN of this statement is not supported")
        .with_hint("EXPLAIN takes SELECT, INSERT, DELETE, UPDATE, MERGE, CREATE TABLE AS and CREATE STREAMING TABLE; ANALYZE only SELECT.")
}

fn change_text(what: &str, explain: &Explain, plan: &dyn ExecutionPlan) -> String {
    let plan = DisplayableExecutionPlan::new(plan).indent(explain.verbose).to_string();
    format!("{what}\n{}", indent(plan.trim_end()))
}

fn indent(text: &str) -> String {
    text.lines().map(|l| format!("  {l}")).collect::<Vec<_>>().join("\n")
}

/// Whether the rows are written somewhere: such a query reads what is committed alone.
#[derive(PartialEq, Eq)]
enum Written {
    Yes,
    No,
}

async fn query_text(
    ctx: &StatementContext<'_>,
    explain: &Explain,
    query: &ast::Query,
    written: Written,
) -> Result<String> {
    let planner = Planner::new(ctx, Purpose::Execute);
    let planner = if written == Written::Yes { planner.committed() } else { planner };
    let planned = planner.query(query, &[], None).await?;
    let optimized = planned.optimized()?;
    let physical = planned.physical(&optimized).await?;
    if explain.analyze {
        let (plan, task) = (physical.clone(), planned.state.task_ctx());
        let work = ctx.engine.query_runtime.spawn(async move {
            let mut stream = execute_stream(plan, task)?;
            let mut rows = 0_usize;
            while let Some(batch) = stream.next().await {
                rows += batch?.num_rows();
            }
            Ok::<usize, datafusion::error::DataFusionError>(rows)
        });
        let work = tokio_util::task::AbortOnDropHandle::new(work);
        let rows = work.await.map_err(|e| SqlError::internal(format!("the query broke off: {e}")))??;
        let plan = DisplayableExecutionPlan::with_metrics(physical.as_ref()).indent(explain.verbose).to_string();
        return Ok(format!("{}\nRows: {rows}", plan.trim_end()));
    }
    let physical = DisplayableExecutionPlan::new(physical.as_ref()).indent(explain.verbose).to_string();
    if explain.verbose {
        let logical = optimized.display_indent().to_string();
        return Ok(format!("Logical plan\n{}\nPhysical plan\n{}", indent(&logical), indent(physical.trim_end())));
    }
    Ok(physical.trim_end().to_owned())
}
