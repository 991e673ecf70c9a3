//! TRUNCATE of a table.

use sqlparser::ast;

use super::change::find_table_or_branch;
use crate::SqlError;
use crate::dialect::Name;
use crate::error::Result;
use crate::run;
use crate::session::{Outcome, StatementContext};
use crate::work;

pub(super) async fn truncate(ctx: &StatementContext<'_>, what: &ast::Truncate) -> Result<Outcome> {
    if what.partitions.is_some() || what.on_cluster.is_some() {
        return Err(SqlError::unsupported("this form of TRUNCATE is not supported")
            .with_hint("DELETE FROM table WHERE … takes some of the rows out."));
    }
    let [target] = what.table_names.as_slice() else {
        return Err(SqlError::unsupported("TRUNCATE of several tables in one statement is not supported")
            .with_detail("They would not be emptied at once.")
            .with_hint("Truncate one after the other."));
    };
    let name = Name::from_object_name(&target.name)
        .ok_or_else(|| SqlError::syntax(format!("invalid name: {}", target.name)))?;
    let table = run::guard(&ctx.cancel, ctx.deadline, find_table_or_branch(ctx, &name)).await?;
    // Whether a commit took place must be known.
    let runner = work::runner(ctx)?;
    run::detached(ctx, async move { Ok(table.overwrite(None, false, &runner).await?) }).await?;
    Ok(Outcome::done("TRUNCATE TABLE"))
}
