//! `FROM t FOR … AS OF …`: tables at another version than the current one.
//!
//! One table may be read at several versions, and the planner knows tables by their names alone. So each such member of
//! FROM gets a name of its own, behind the one by which the query calls it.

use std::collections::HashMap;
use std::ops::ControlFlow;

use arrow::array::AsArray;
use arrow::datatypes::TimestampMicrosecondType;
use datafusion::physical_plan::collect;
use sqlparser::ast::{
    CastKind, DataType, Expr, Ident, ObjectName, Query, SelectItem, SetExpr, TableAlias, TableFactor,
    TableVersion as Clause, TimezoneInfo, Value, Visitor,
};
use tidewater_catalogs::TableVersion;

use super::query::{Planner, analyzed};
use super::relation::{self, Relation};
use super::{rewrite, scope};
use crate::dialect::{Name, fold, walk};
use crate::error::Result;
use crate::{SqlError, SqlState};

const PREFIX: &str = "_tidewater_version_";

/// Members of FROM with such a clause lose it, and get names under which the relations are given.
pub(super) async fn resolve(planner: &Planner<'_>, query: &mut Query) -> Result<HashMap<Name, Relation>> {
    let mut clauses = Vec::new();
    scope::each_table(query, &mut |factor, is_cte| take(factor, is_cte, &mut clauses))?;
    let mut found = HashMap::new();
    for (n, (name, clause)) in clauses.into_iter().enumerate() {
        let version = match clause {
            None => None,
            Some(Clause::VersionAsOf(expr)) => Some(version(&expr)?),
            Some(Clause::ForSystemTimeAsOf(expr) | Clause::TimestampAsOf(expr)) => {
                Some(TableVersion::AsOf { timestamp_ms: millis(planner, expr).await? })
            }
            Some(Clause::Function(function)) => {
                return Err(SqlError::unsupported(format!("{function} is not supported")));
            }
        };
        let relation = relation::find_at(&planner.lookup(), &name, version.as_ref()).await?;
        let relation = relation.ok_or_else(|| SqlError::undefined_table(name.0.join(".")))?;
        found.insert(Name::bare(format!("{PREFIX}{n}")), relation);
    }
    Ok(found)
}

type Clauses = Vec<(Name, Option<Clause>)>;

fn take(factor: &mut TableFactor, is_cte: &dyn Fn(&Name) -> bool, clauses: &mut Clauses) -> Result<()> {
    let TableFactor::Table { name, alias, version, args: None, .. } = factor else { return Ok(()) };
    let clause = version.take();
    // The planner knows names of three parts; `catalog.schema.t.branch_b` has one more.
    if clause.is_none() && name.0.len() != 4 {
        return Ok(());
    }
    let parsed = Name::from_object_name(name).ok_or_else(|| SqlError::syntax(format!("invalid name: {name}")))?;
    if is_cte(&parsed) {
        return Err(SqlError::new(SqlState::WRONG_OBJECT_TYPE, format!("\"{}\" is not a table", parsed.last()))
            .with_detail("It is a WITH query.")
            .with_hint("Say FOR … AS OF … inside of it, behind the name of the table."));
    }
    if alias.is_none() {
        let own = name.0.last().and_then(|part| part.as_ident()).cloned();
        let own = own.ok_or_else(|| SqlError::syntax(format!("invalid name: {name}")))?;
        *alias = Some(TableAlias { explicit: true, name: Ident::with_quote('"', fold(&own)), columns: Vec::new() });
    }
    *name = ObjectName::from(vec![Ident::new(format!("{PREFIX}{}", clauses.len()))]);
    clauses.push((parsed, clause));
    Ok(())
}

/// The number of a snapshot, or the name of a branch or a tag.
fn version(expr: &Expr) -> Result<TableVersion> {
    let hint = "Write the id of a snapshot, or the name of a branch or a tag as a text: FOR VERSION AS OF 'b'.";
    let invalid = |what: String| SqlError::new(SqlState::INVALID_PARAMETER, what).with_hint(hint);
    let Expr::Value(literal) = expr else { return Err(invalid(format!("invalid version of a table: {expr}"))) };
    match &literal.value {
        Value::Number(number, _) => match number.to_string().parse() {
            Ok(id) => Ok(TableVersion::Snapshot(id)),
            Err(_) => Err(invalid(format!("invalid id of a snapshot: {number}"))),
        },
        Value::SingleQuotedString(name) if !name.is_empty() => Ok(TableVersion::Reference(name.clone())),
        Value::Placeholder(_) => Err(parameter()),
        other => Err(invalid(format!("invalid version of a table: {other}"))),
    }
}

fn parameter() -> SqlError {
    SqlError::unsupported("parameters in FOR … AS OF are not supported yet")
        .with_detail("The columns of the result may depend on the version.")
        .with_hint("Write the value into the statement.")
}

/// The instant of an expression that stands alone, in milliseconds since 1970.
pub(crate) async fn instant_ms(planner: &Planner<'_>, expr: &Expr) -> Result<i64> {
    let mut expr = cast_to_instant(expr.clone());
    rewrite::expression(&mut expr)?;
    millis(planner, expr).await
}

/// The instant that an expression means now, in the zone of the session.
async fn millis(planner: &Planner<'_>, expr: Expr) -> Result<i64> {
    constant(&expr)?;
    let mut select = rewrite::empty_select();
    select.projection = vec![SelectItem::UnnamedExpr(expr.clone())];
    let query = rewrite::query(SetExpr::Select(Box::new(select)));
    let state = planner.state()?;
    let plan = planner.to_plan(&state, &HashMap::new(), &query, &[])?;
    let plan = analyzed(&state, plan).map_err(|e| SqlError::planning(&e, planner.statement))?;
    let plan = state.optimizer().optimize(plan, &state, |_, _| {})?;
    let plan = state.query_planner().create_physical_plan(&plan, &state).await?;
    let rows = collect(plan, state.task_ctx()).await?;
    let micros = rows.iter().find(|rows| rows.num_rows() == 1).and_then(|rows| {
        let column = rows.column(0).as_primitive_opt::<TimestampMicrosecondType>()?;
        arrow::array::Array::is_valid(column, 0).then(|| column.value(0))
    });
    match micros {
        Some(micros) => Ok(micros.div_euclid(1000)),
        None => Err(SqlError::new(SqlState::INVALID_PARAMETER, "the time of a version is null")),
    }
}

/// Neither columns nor queries: it is known before any row is read.
fn constant(expr: &Expr) -> Result<()> {
    struct V;
    impl Visitor for V {
        type Break = SqlError;
        fn pre_visit_query(&mut self, _: &Query) -> ControlFlow<SqlError> {
            ControlFlow::Break(varies("a subquery"))
        }
        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<SqlError> {
            match expr {
                Expr::Identifier(_) | Expr::CompoundIdentifier(_) => ControlFlow::Break(varies("a column")),
                Expr::Value(literal) if matches!(literal.value, Value::Placeholder(_)) => {
                    ControlFlow::Break(parameter())
                }
                Expr::Function(f) if f.over.is_some() || rewrite::is_aggregate(expr) => {
                    ControlFlow::Break(varies("an aggregate"))
                }
                _ => ControlFlow::Continue(()),
            }
        }
    }
    match walk(expr, &mut V) {
        ControlFlow::Break(e) => Err(e),
        ControlFlow::Continue(()) => Ok(()),
    }
}

fn varies(what: &str) -> SqlError {
    SqlError::unsupported(format!("{what} in FOR … AS OF is not supported")).with_hint(
        "Write a constant: FOR SYSTEM_TIME AS OF TIMESTAMP '2026-01-31 12:00:00', or now() - interval '1 hour'.",
    )
}

/// Times are instants: a text or a wall clock is read in the zone of the session.
pub(super) fn as_instant(clause: &mut Clause) {
    let (Clause::ForSystemTimeAsOf(expr) | Clause::TimestampAsOf(expr)) = clause else { return };
    *expr = cast_to_instant(std::mem::replace(expr, Expr::Value(Value::Null.into())));
}

fn cast_to_instant(time: Expr) -> Expr {
    Expr::Cast {
        kind: CastKind::Cast,
        expr: Box::new(time),
        data_type: DataType::Timestamp(None, TimezoneInfo::Tz),
        array: false,
        format: None,
    }
}
