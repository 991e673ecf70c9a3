//! RETURNING: a list over the rows that a statement changed.
//!
//! The list is planned as `SELECT list FROM` what the statement reads. Then the statement's own plan comes in the place
//! of FROM, in which the columns of the table have the values that are written: what is returned is what was written,
//! also where it is computed by a volatile function.

use std::ops::ControlFlow;

use datafusion::common::TableReference;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder};
use sqlparser::ast::{
    self, ExcludeSelectItem, Ident, ObjectName, Query, Select, SelectItem, SelectItemQualifiedWildcardKind, SetExpr,
    TableWithJoins, Visitor, VisitorMut, WildcardAdditionalOptions, With,
};
use tidewater_catalogs::ROW_PLACE;

use super::merge::{ACTION, FOUND};
use super::query;
use crate::dialect::{fold, walk, walk_mut};
use crate::error::Result;
use crate::plan::{UNIQUE, display_name, output_name, rewrite};
use crate::{SqlError, SqlState};

/// What a list sees.
pub(in crate::statement) struct Seen<'a> {
    pub with: Option<&'a With>,
    pub from: Vec<TableWithJoins>,
    /// What the statement calls its table.
    pub target: &'a Ident,
    /// The same of MERGE's source.
    pub source: Option<&'a Ident>,
    /// Whether the table shows the places of its rows.
    pub places: bool,
}

/// `SELECT list FROM …`, as the planner takes it.
pub(in crate::statement) fn list(items: &[SelectItem], seen: Seen<'_>) -> Result<Query> {
    refuse(items, &seen)?;
    let mut select = rewrite::empty_select();
    for item in items {
        expand(item, &seen, &mut select)?;
    }
    select.from = seen.from;
    let mut query = query(select);
    query.with = seen.with.cloned();
    Ok(query)
}

/// An item in which `merge_action()` is a column, and a wildcard leaves our own columns out.
fn expand(item: &SelectItem, seen: &Seen<'_>, select: &mut Select) -> Result<()> {
    let out = &mut select.projection;
    let of = |name: &Ident, options: &WildcardAdditionalOptions, ours: &[&str]| {
        let kind = SelectItemQualifiedWildcardKind::ObjectName(ObjectName::from(vec![name.clone()]));
        SelectItem::QualifiedWildcard(kind, without(options, ours))
    };
    let target: &[&str] = if seen.places { &[ROW_PLACE] } else { &[] };
    match (item, seen.source) {
        (SelectItem::Wildcard(options), Some(source)) => {
            out.push(of(source, options, &[FOUND, ACTION]));
            out.push(of(seen.target, options, target));
        }
        (SelectItem::Wildcard(options), None) => out.push(SelectItem::Wildcard(without(options, target))),
        (SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name), options), source) => {
            let is = |ident: &Ident| matches!(name.0.as_slice(), [one] if one.as_ident().is_some_and(|i| fold(i) == fold(ident)));
            out.push(if is(seen.target) {
                of(seen.target, options, target)
            } else if let Some(source) = source.filter(|source| is(source)) {
                of(source, options, &[FOUND, ACTION])
            } else {
                item.clone()
            });
        }
        (SelectItem::UnnamedExpr(expr), Some(source)) => {
            let mut action = expr.clone();
            out.push(if merge_action(&mut action, source) {
                SelectItem::ExprWithAlias { expr: action, alias: Ident::with_quote('"', output_name(expr)) }
            } else {
                item.clone()
            });
        }
        (SelectItem::ExprWithAlias { expr, alias }, Some(source)) => {
            let mut expr = expr.clone();
            merge_action(&mut expr, source);
            out.push(SelectItem::ExprWithAlias { expr, alias: alias.clone() });
        }
        _ => out.push(item.clone()),
    }
    Ok(())
}

fn without(options: &WildcardAdditionalOptions, ours: &[&str]) -> WildcardAdditionalOptions {
    let mut options = options.clone();
    let mut names = match options.opt_exclude.take() {
        None => Vec::new(),
        Some(ExcludeSelectItem::Single(name)) => vec![name],
        Some(ExcludeSelectItem::Multiple(names)) => names,
    };
    names.extend(ours.iter().map(|name| Ident::with_quote('"', *name)));
    options.opt_exclude = (!names.is_empty()).then_some(ExcludeSelectItem::Multiple(names));
    options
}

/// True where the expression calls it.
fn merge_action(expr: &mut ast::Expr, source: &Ident) -> bool {
    struct Called<'a>(&'a Ident, bool);
    impl VisitorMut for Called<'_> {
        type Break = ();
        fn pre_visit_expr(&mut self, expr: &mut ast::Expr) -> ControlFlow<()> {
            if let ast::Expr::Function(f) = expr
                && matches!(f.name.0.as_slice(), [one] if one.as_ident().is_some_and(|i| fold(i) == "merge_action"))
                && matches!(&f.args, ast::FunctionArguments::List(list) if list.args.is_empty())
            {
                *expr = ast::Expr::CompoundIdentifier(vec![self.0.clone(), Ident::with_quote('"', ACTION)]);
                self.1 = true;
            }
            ControlFlow::Continue(())
        }
    }
    let mut called = Called(source, false);
    let _ = walk_mut(expr, &mut called);
    called.1
}

/// What a list must not hold, as in PostgreSQL; and `old` and `new`, which are not there yet.
fn refuse(items: &[SelectItem], seen: &Seen<'_>) -> Result<()> {
    struct Refused<'a> {
        depth: usize,
        seen: &'a Seen<'a>,
    }
    impl Refused<'_> {
        fn name(&self, ident: &Ident) -> Result<()> {
            let name = fold(ident);
            let known = |i: &Ident| fold(i) == name;
            if !matches!(name.as_str(), "old" | "new") || known(self.seen.target) || self.seen.source.is_some_and(known)
            {
                return Ok(());
            }
            Err(SqlError::unsupported(format!("{name} in RETURNING is not supported yet"))
                .with_hint("A column of the table is what was written; of DELETE, what was there."))
        }
        fn expr(&self, expr: &ast::Expr) -> Result<()> {
            match expr {
                ast::Expr::CompoundIdentifier(parts) if self.depth == 0 => {
                    parts.first().map_or(Ok(()), |i| self.name(i))
                }
                ast::Expr::Function(f) if self.depth == 0 && f.over.is_some() => {
                    Err(SqlError::new(SqlState("42P20"), "window functions are not allowed in RETURNING"))
                }
                _ if self.depth == 0 && rewrite::is_aggregate(expr) => {
                    Err(SqlError::new(SqlState("42803"), "aggregate functions are not allowed in RETURNING"))
                }
                ast::Expr::Function(f)
                    if self.depth == 0
                        && f.name
                            .0
                            .last()
                            .and_then(|p| p.as_ident())
                            .is_some_and(|i| matches!(fold(i).as_str(), "unnest" | "generate_series")) =>
                {
                    Err(SqlError::unsupported("set-returning functions are not allowed in RETURNING"))
                }
                _ => Ok(()),
            }
        }
    }
    impl Visitor for Refused<'_> {
        type Break = SqlError;
        fn pre_visit_query(&mut self, _: &Query) -> ControlFlow<SqlError> {
            self.depth += 1;
            ControlFlow::Continue(())
        }
        fn post_visit_query(&mut self, _: &Query) -> ControlFlow<SqlError> {
            self.depth -= 1;
            ControlFlow::Continue(())
        }
        fn pre_visit_expr(&mut self, expr: &ast::Expr) -> ControlFlow<SqlError> {
            match self.expr(expr) {
                Ok(()) => ControlFlow::Continue(()),
                Err(e) => ControlFlow::Break(e),
            }
        }
    }
    let mut visitor = Refused { depth: 0, seen };
    for item in items {
        if let SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name), _) = item {
            name.0.first().and_then(|p| p.as_ident()).map_or(Ok(()), |ident| visitor.name(ident))?;
        }
        if let ControlFlow::Break(e) = walk(item, &mut visitor) {
            return Err(e);
        }
    }
    Ok(())
}

/// The FROM of a query that is one SELECT.
pub(super) fn from_of(query: &Query) -> Vec<TableWithJoins> {
    match query.body.as_ref() {
        SetExpr::Select(select) => select.from.clone(),
        _ => Vec::new(),
    }
}

/// The plan of a [`list`] with `rows` in the place of its FROM, and behind `written`.
pub(in crate::statement) fn put(plan: LogicalPlan, rows: &LogicalPlan, written: &[Expr]) -> Result<LogicalPlan> {
    let unsupported = || {
        SqlError::unsupported("this list in RETURNING is not supported")
            .with_hint("Name columns of the table and of what the statement reads, and expressions over them.")
    };
    let LogicalPlan::Projection(projection) = plan else { return Err(unsupported()) };
    let mut out = written.to_vec();
    for (i, (expr, field)) in projection.expr.iter().zip(projection.schema.fields()).enumerate() {
        if expr.column_refs().iter().any(|column| !rows.schema().has_column(column)) {
            return Err(unsupported());
        }
        out.push(expr.clone().unalias().alias(format!("{}{UNIQUE}{i}", display_name(field.name()))));
    }
    Ok(LogicalPlanBuilder::from(rows.clone()).project(out)?.build()?)
}

/// By which plans know the columns of what a statement calls so.
pub(in crate::statement) fn reference(name: &Ident) -> TableReference {
    TableReference::bare(fold(name))
}
