//! OPTIMIZE: small files of a table, and files with deletes, are written anew; in an order that is given, all of them.

use std::sync::Arc;

use arrow::datatypes::DataType;
use sqlparser::ast::{Ident, SelectItem, SetExpr, TableAlias};
use tidewater_catalogs::{Compacted, TableCompaction};

use super::alter_table::of_column;
use super::change::{find_table_named, from_target};
use super::show::{self, Cell};
use crate::dialect::Optimize;
use crate::error::Result;
use crate::plan::{Planner, Purpose, Target, rewrite};
use crate::run;
use crate::session::{Notice, Outcome, ResultColumn, RowsTag, StatementContext};
use crate::work;

/// How often files are chosen anew because others changed some of them meanwhile.
const RUNS: u32 = 5;
/// So many small files are worth being made one, where somebody asks for it.
const LEAST_FILES: usize = 2;

pub(super) fn columns() -> Vec<ResultColumn> {
    let names = ["files_removed", "files_added", "bytes_removed", "bytes_added", "delete_files_removed"];
    show::columns(&names.map(|name| (name, DataType::Int64)))
}

pub(super) async fn optimize(ctx: &StatementContext<'_>, what: &Optimize) -> Result<Outcome> {
    let (mut all, mut missed) = (Compacted::default(), false);
    for _ in 0..RUNS {
        let compaction = run::guard(&ctx.cancel, ctx.deadline, choose(ctx, what)).await?;
        let (dry_run, runner) = (what.dry_run, work::runner(ctx)?);
        // What is committed stays; a statement that is cancelled stops at the files that it is writing.
        let work = run::abortable(ctx, async move { Ok(compaction.run(dry_run, &runner).await?) });
        let done = run::guard(&ctx.cancel, ctx.deadline, work).await?;
        missed = done.conflicts > 0;
        all += done;
        if !missed {
            break;
        }
    }
    if missed {
        ctx.notice(Notice::notice("others kept changing rows of the same files, so that some stay as they are"));
    }
    let numbers = [all.files_removed, all.files_added, all.bytes_removed, all.bytes_added, all.delete_files_removed];
    let row = numbers.map(|n| Cell::from(i64::try_from(n).ok())).to_vec();
    show::outcome(columns(), vec![row], RowsTag::Select)
}

/// The files that may hold rows for which the condition is true.
async fn choose(ctx: &StatementContext<'_>, what: &Optimize) -> Result<Arc<dyn TableCompaction>> {
    let table = find_table_named(ctx, &what.name).await?;
    let compaction = table.compaction(LEAST_FILES, what.order.as_ref()).map_err(|e| of_column(e, what.name.last()))?;
    let target = Target { rows: compaction.clone(), table };
    let mut select = rewrite::empty_select();
    let own = Ident::with_quote('"', what.name.last());
    select.from = from_target(&TableAlias { explicit: true, name: own, columns: Vec::new() });
    select.projection = vec![SelectItem::UnnamedExpr(rewrite::number("1"))];
    select.selection.clone_from(&what.filter);
    let chosen = rewrite::query(SetExpr::Select(Box::new(select)));
    let planner = Planner { target: Some(&target), ..Planner::new(ctx, Purpose::Execute).committed() };
    let planned = planner.query(&chosen, &[], None).await?;
    // Planning alone chooses them.
    planned.physical(&planned.assigned()?).await?;
    Ok(compaction)
}
