//! SELECT, VALUES, TABLE and WITH.

use arrow::datatypes::DataType;
use sqlparser::ast::Query;

use crate::error::Result;
use crate::plan::{Planner, Purpose};
use crate::run::guard;
use crate::session::{Outcome, Prepared, ResultColumn, RowsTag, StatementContext};

pub(super) async fn describe(
    ctx: &StatementContext<'_>,
    query: &Query,
    param_types: &[Option<DataType>],
) -> Result<(Vec<DataType>, Option<Vec<ResultColumn>>)> {
    let planned = Planner::new(ctx, Purpose::Describe).query(query, param_types, None).await?;
    let columns = planned.columns();
    Ok((planned.params, Some(columns)))
}

pub(super) async fn execute(ctx: &StatementContext<'_>, query: &Query, prepared: &Prepared) -> Result<Outcome> {
    guard(&ctx.cancel, ctx.deadline, async {
        let types: Vec<Option<DataType>> = prepared.params.iter().cloned().map(Some).collect();
        let planned = Planner::new(ctx, Purpose::Execute).query(query, &types, Some(ctx.params)).await?;
        let columns = planned.columns();
        let stream = planned.start(ctx, &columns).await?;
        Ok(Outcome::Rows { columns, stream, tag: RowsTag::Select })
    })
    .await
}
