//! `*` over streams leaves the hidden columns out.
//!
//! The planner knows no hidden columns, so a stream shows only those that its statement names somewhere: most
//! statements name none, and there is nothing to hide. Where one is named, each wildcard over a stream is written
//! out as `s.* EXCLUDE (…)`, factor by factor. What cannot be written so is refused.

use std::collections::HashMap;
use std::ops::ControlFlow;

use sqlparser::ast::{
    ExcludeSelectItem, Expr, Ident, JoinConstraint, JoinOperator, ObjectName, Query, Select, SelectItem,
    SelectItemQualifiedWildcardKind, SetExpr, TableAlias, TableFactor, TableWithJoins, Visitor,
    WildcardAdditionalOptions,
};
use tidewater_catalogs::HiddenColumn;

use super::relation::Relation;
use super::scope;
use crate::SqlError;
use crate::dialect::{Name, fold, walk};
use crate::error::Result;

/// Hidden columns that an expression of the query names. Too many do no harm, too few would: columns of that name
/// which mean something else are counted as well.
pub(super) fn mentioned(query: &Query) -> Vec<HiddenColumn> {
    struct V(Vec<HiddenColumn>);
    impl V {
        fn see(&mut self, ident: &Ident) {
            if let Some(column) = HiddenColumn::from_name(&fold(ident))
                && !self.0.contains(&column)
            {
                self.0.push(column);
            }
        }
        fn see_joins(&mut self, from: &[TableWithJoins]) {
            for join in from.iter().flat_map(|t| &t.joins) {
                if let Some(JoinConstraint::Using(columns)) = constraint(&join.join_operator) {
                    columns.iter().flat_map(|c| &c.0).filter_map(|p| p.as_ident()).for_each(|i| self.see(i));
                }
            }
        }
    }
    impl Visitor for V {
        type Break = ();
        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
            match expr {
                Expr::Identifier(ident) => self.see(ident),
                Expr::CompoundIdentifier(parts) => parts.iter().for_each(|i| self.see(i)),
                _ => {}
            }
            ControlFlow::Continue(())
        }
        fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
            each_select(&query.body, &mut |select| self.see_joins(&select.from));
            ControlFlow::Continue(())
        }
        fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<()> {
            if let TableFactor::NestedJoin { table_with_joins, .. } = factor {
                self.see_joins(std::slice::from_ref(table_with_joins));
            }
            ControlFlow::Continue(())
        }
    }
    let mut v = V(Vec::new());
    let _ = walk(query, &mut v);
    v.0.sort_by_key(|c| HiddenColumn::ALL.iter().position(|a| a == c));
    v.0
}

fn each_select(body: &SetExpr, f: &mut dyn FnMut(&Select)) {
    match body {
        SetExpr::Select(select) => f(select),
        SetExpr::SetOperation { left, right, .. } => {
            each_select(left, f);
            each_select(right, f);
        }
        _ => {}
    }
}

pub(super) fn each_select_mut<E>(
    body: &mut SetExpr,
    f: &mut dyn FnMut(&mut Select) -> std::result::Result<(), E>,
) -> std::result::Result<(), E> {
    match body {
        SetExpr::Select(select) => f(select),
        SetExpr::SetOperation { left, right, .. } => {
            each_select_mut(left, f)?;
            each_select_mut(right, f)
        }
        _ => Ok(()),
    }
}

fn constraint(operator: &JoinOperator) -> Option<&JoinConstraint> {
    use JoinOperator as J;
    match operator {
        J::Join(c)
        | J::Inner(c)
        | J::Left(c)
        | J::LeftOuter(c)
        | J::Right(c)
        | J::RightOuter(c)
        | J::FullOuter(c)
        | J::CrossJoin(c)
        | J::Semi(c)
        | J::LeftSemi(c)
        | J::RightSemi(c)
        | J::Anti(c)
        | J::LeftAnti(c)
        | J::RightAnti(c)
        | J::StraightJoin(c)
        | J::AsOf { constraint: c, .. } => Some(c),
        J::CrossApply | J::OuterApply => None,
    }
}

/// Writes out the wildcards of `query` over streams that show `exposed` columns.
pub(super) fn hide(query: &mut Query, relations: &HashMap<Name, Relation>, exposed: &[HiddenColumn]) -> Result<()> {
    if exposed.is_empty() || !relations.values().any(|r| matches!(r, Relation::Stream(_))) {
        return Ok(());
    }
    scope::each_query(query, &mut |query, is_cte| {
        let is_stream = |name: &ObjectName| {
            Name::from_object_name(name)
                .is_some_and(|n| !is_cte(&n) && matches!(relations.get(&n), Some(Relation::Stream(_))))
        };
        each_select_mut(&mut query.body, &mut |select| hide_in(select, &is_stream, exposed))
    })
}

/// A member of FROM, as `x.*` may name it.
struct Factor {
    /// None where nothing names it.
    name: Option<ObjectName>,
    alias: bool,
    stream: bool,
}

fn hide_in(select: &mut Select, is_stream: &dyn Fn(&ObjectName) -> bool, exposed: &[HiddenColumn]) -> Result<()> {
    let mut factors = Vec::new();
    let mut merged = false;
    for table in &select.from {
        collect(table, is_stream, &mut factors, &mut merged)?;
    }
    if !factors.iter().any(|f| f.stream) {
        return Ok(());
    }
    let mut out = Vec::with_capacity(select.projection.len());
    for item in select.projection.drain(..) {
        match item {
            SelectItem::Wildcard(options) => {
                if let [only] = factors.as_slice() {
                    out.push(SelectItem::Wildcard(exclude(options, only.stream, exposed)?));
                    continue;
                }
                if merged {
                    return Err(refused("a wildcard over JOIN … USING"));
                }
                for factor in &factors {
                    let name = factor
                        .name
                        .clone()
                        .ok_or_else(|| refused("a wildcard over a member of FROM that has no alias"))?;
                    let kind = SelectItemQualifiedWildcardKind::ObjectName(name);
                    out.push(SelectItem::QualifiedWildcard(kind, exclude(options.clone(), factor.stream, exposed)?));
                }
            }
            SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name), options) => {
                let matching: Vec<&Factor> = factors.iter().filter(|f| f.is(&name)).collect();
                let stream = match matching.as_slice() {
                    [one] => one.stream,
                    [] => false,
                    many if many.iter().any(|f| f.stream) => return Err(refused("an ambiguous wildcard")),
                    _ => false,
                };
                out.push(SelectItem::QualifiedWildcard(
                    SelectItemQualifiedWildcardKind::ObjectName(name),
                    exclude(options, stream, exposed)?,
                ));
            }
            other => out.push(other),
        }
    }
    select.projection = out;
    Ok(())
}

impl Factor {
    fn is(&self, wanted: &ObjectName) -> bool {
        let (Some(name), Some(wanted)) =
            (self.name.as_ref().and_then(Name::from_object_name), Name::from_object_name(wanted))
        else {
            return false;
        };
        if self.alias {
            return name == wanted;
        }
        // `public.s.*` and `s.*` both mean `lake.public.s`, and `public.s.*` means `s`.
        let common = name.0.len().min(wanted.0.len());
        name.0[name.0.len() - common..] == wanted.0[wanted.0.len() - common..]
    }
}

fn collect(
    table: &TableWithJoins,
    is_stream: &dyn Fn(&ObjectName) -> bool,
    factors: &mut Vec<Factor>,
    merged: &mut bool,
) -> Result<()> {
    let mut streams = false;
    let before = factors.len();
    collect_factor(&table.relation, is_stream, factors, merged)?;
    for join in &table.joins {
        collect_factor(&join.relation, is_stream, factors, merged)?;
    }
    streams |= factors[before..].iter().any(|f| f.stream);
    for join in &table.joins {
        use JoinOperator as J;
        match constraint(&join.join_operator) {
            Some(JoinConstraint::Using(_)) => *merged = true,
            Some(JoinConstraint::Natural) if streams => return Err(refused("NATURAL JOIN")),
            _ => {}
        }
        let half = matches!(
            join.join_operator,
            J::Semi(_) | J::LeftSemi(_) | J::RightSemi(_) | J::Anti(_) | J::LeftAnti(_) | J::RightAnti(_)
        );
        if half && streams {
            *merged = true;
        }
    }
    Ok(())
}

fn collect_factor(
    factor: &TableFactor,
    is_stream: &dyn Fn(&ObjectName) -> bool,
    factors: &mut Vec<Factor>,
    merged: &mut bool,
) -> Result<()> {
    let by_alias = |alias: &Option<TableAlias>| alias.as_ref().map(|a| ObjectName::from(vec![a.name.clone()]));
    match factor {
        TableFactor::Table { name, alias, args, .. } => {
            let stream = args.is_none() && is_stream(name);
            if stream && alias.as_ref().is_some_and(|a| !a.columns.is_empty()) {
                return Err(refused("a list of column aliases on a stream"));
            }
            factors.push(Factor {
                name: by_alias(alias).or_else(|| args.is_none().then(|| name.clone())),
                alias: alias.is_some(),
                stream,
            });
        }
        TableFactor::NestedJoin { table_with_joins, alias: None } => {
            collect(table_with_joins, is_stream, factors, merged)?;
        }
        TableFactor::NestedJoin { table_with_joins, alias: Some(alias) } => {
            let mut inner = Vec::new();
            collect(table_with_joins, is_stream, &mut inner, merged)?;
            if inner.iter().any(|f| f.stream) {
                return Err(refused("an alias of a join"));
            }
            factors.push(Factor { name: Some(ObjectName::from(vec![alias.name.clone()])), alias: true, stream: false });
        }
        TableFactor::Derived { alias, .. }
        | TableFactor::TableFunction { alias, .. }
        | TableFactor::Function { alias, .. }
        | TableFactor::UNNEST { alias, .. } => {
            factors.push(Factor { name: by_alias(alias), alias: true, stream: false });
        }
        _ => factors.push(Factor { name: None, alias: false, stream: false }),
    }
    Ok(())
}

fn exclude(
    mut options: WildcardAdditionalOptions,
    stream: bool,
    exposed: &[HiddenColumn],
) -> Result<WildcardAdditionalOptions> {
    if !stream {
        return Ok(options);
    }
    let mut names: Vec<Ident> = exposed.iter().map(|c| Ident::with_quote('"', c.name())).collect();
    let more = match options.opt_exclude.take() {
        None => vec![],
        Some(ExcludeSelectItem::Single(name)) => vec![name],
        Some(ExcludeSelectItem::Multiple(more)) => more,
    };
    names.extend(more.into_iter().filter(|n| HiddenColumn::from_name(&fold(n)).is_none()));
    options.opt_exclude = Some(ExcludeSelectItem::Multiple(names));
    Ok(options)
}

fn refused(what: &str) -> SqlError {
    SqlError::unsupported(format!("{what} is not supported where a hidden column of a stream is named"))
        .with_hint("List the columns instead of using a wildcard, or name the hidden columns in a subquery.")
}
