//! VACUUM: snapshots that are too old leave a table, and files that no snapshot names are removed.

use arrow::datatypes::DataType;
use tidewater_catalogs::VacuumRetention;

use super::change::find_table_named;
use super::show::{self, Cell};
use crate::dialect::{RetainFor, Vacuum};
use crate::error::Result;
use crate::plan::interval;
use crate::run;
use crate::session::{Outcome, ResultColumn, RowsTag, StatementContext};
use crate::{SqlError, SqlState};

pub(super) fn columns() -> Vec<ResultColumn> {
    show::columns(&["snapshots", "files", "bytes"].map(|name| (name, DataType::Int64)))
}

pub(super) async fn vacuum(ctx: &StatementContext<'_>, what: &Vacuum) -> Result<Outcome> {
    let retention = match &what.retain {
        None => VacuumRetention::default(),
        Some(RetainFor::Snapshots(0)) => {
            return Err(SqlError::new(SqlState::INVALID_PARAMETER, "a table keeps at least one snapshot"));
        }
        // Whoever reads an older snapshot now is given the time.
        Some(RetainFor::Snapshots(count)) => VacuumRetention {
            age_ms: u64::try_from(ctx.settings.vacuum_min_retention().as_millis()).ok(),
            snapshots: Some(*count),
        },
        Some(RetainFor::Age(text)) => VacuumRetention { age_ms: Some(age(ctx, text)?), ..VacuumRetention::default() },
    };
    let table = run::guard(&ctx.cancel, ctx.deadline, find_table_named(ctx, &what.name)).await?;
    let dry_run = what.dry_run;
    let work = run::abortable(ctx, async move { Ok(table.vacuum(retention, dry_run).await?) });
    let done = run::guard(&ctx.cancel, ctx.deadline, work).await?;
    let row = [done.snapshots, done.files, done.bytes].map(|n| Cell::from(i64::try_from(n).ok())).to_vec();
    show::outcome(columns(), vec![row], RowsTag::Select)
}

fn age(ctx: &StatementContext<'_>, text: &str) -> Result<u64> {
    const DAY_MS: i64 = 24 * 3_600_000;
    let parsed = interval(text).ok_or_else(|| {
        SqlError::new(SqlState::INVALID_DATETIME, format!("invalid input syntax for type interval: \"{text}\""))
    })?;
    let days = i64::from(parsed.months) * 30 + i64::from(parsed.days);
    let age = u64::try_from(days * DAY_MS + parsed.nanoseconds / 1_000_000)
        .map_err(|_| SqlError::new(SqlState::INVALID_PARAMETER, "RETAIN needs an interval that is not negative"))?;
    let least = ctx.settings.vacuum_min_retention();
    if u128::from(age) < least.as_millis() {
        return Err(SqlError::new(
            SqlState::INVALID_PARAMETER,
            format!("RETAIN '{text}' is shorter than vacuum_min_retention ({} s)", least.as_secs()),
        )
        .with_detail("Files of statements of other servers and engines that are still running would be removed.")
        .with_hint("SET vacuum_min_retention = '0', where nobody else writes to the table."));
    }
    Ok(age)
}
