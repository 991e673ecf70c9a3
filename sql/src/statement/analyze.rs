//! ANALYZE, and CALL of `compute_table_stats`: distinct values of columns are counted for the planner.

use std::sync::Arc;

use tidewater_catalogs::LakeTable;

use super::alter_table::of_column;
use super::change::find_table_named;
use crate::dialect::{Analyze, Name};
use crate::error::Result;
use crate::run;
use crate::session::{Outcome, StatementContext};
use crate::work;

pub(super) async fn analyze(ctx: &StatementContext<'_>, what: &Analyze) -> Result<Outcome> {
    count(ctx, &what.name, Some(what.columns.clone()).filter(|columns| !columns.is_empty())).await?;
    Ok(Outcome::done("ANALYZE"))
}

/// What the columns have, by the newest state.
pub(super) async fn count(
    ctx: &StatementContext<'_>,
    name: &Name,
    columns: Option<Vec<String>>,
) -> Result<Vec<(String, u64)>> {
    let table: Arc<dyn LakeTable> = run::guard(&ctx.cancel, ctx.deadline, find_table_named(ctx, name)).await?;
    let (runner, shown) = (work::runner(ctx)?, name.last().to_owned());
    let work = run::abortable(ctx, async move {
        table.analyze(columns.as_deref(), &runner).await.map_err(|e| of_column(e, &shown))
    });
    run::guard(&ctx.cancel, ctx.deadline, work).await
}
