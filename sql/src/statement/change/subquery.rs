//! `SET (a, b) = (SELECT x, y …)`: the query gives one row as one value, so that it is computed once.

use arrow::datatypes::DataType;
use datafusion::functions::core::expr_fn::get_field;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, col};
use sqlparser::ast::{
    self, GroupByExpr, Ident, Query, SelectItem, SetExpr, TableAlias, TableAliasColumnDef, TableFactor, TableWithJoins,
};

use super::assignment::counts_differ;
use super::{named, query};
use crate::error::Result;
use crate::plan::rewrite;
use crate::statement::cells;

/// The query with one column, whose members are what it had.
pub(super) fn row(source: &Query, types: &[DataType]) -> Result<ast::Expr> {
    let mut source = source.clone();
    let open = source.order_by.is_none() && source.limit_clause.is_none() && source.fetch.is_none();
    if let SetExpr::Select(select) = source.body.as_mut() {
        let items = select.projection.iter_mut().map(|item| match item {
            SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } => Some(expr),
            _ => None,
        });
        if let Some(mut items) = items.collect::<Option<Vec<_>>>() {
            if items.len() != types.len() {
                return Err(counts_differ());
            }
            for (item, to) in items.iter_mut().zip(types) {
                cells::type_cell(item, to, false)?;
            }
            let grouped = !matches!(&select.group_by, GroupByExpr::Expressions(e, m) if e.is_empty() && m.is_empty());
            if open && select.distinct.is_none() && !grouped {
                let members = members(items.into_iter().map(|item| item.clone()));
                select.projection = vec![named(members, "row")];
                return Ok(ast::Expr::Subquery(Box::new(source)));
            }
        }
    }
    let alias = Ident::with_quote('"', "_tidewater_row");
    let names: Vec<Ident> = (0..types.len()).map(|i| Ident::with_quote('"', i.to_string())).collect();
    let columns = names.iter().map(|name| TableAliasColumnDef { name: name.clone(), data_type: None }).collect();
    let mut select = rewrite::empty_select();
    let of = |name: &Ident| ast::Expr::CompoundIdentifier(vec![alias.clone(), name.clone()]);
    select.projection = vec![named(members(names.iter().map(of)), "row")];
    select.from = vec![TableWithJoins {
        relation: TableFactor::Derived {
            lateral: false,
            subquery: Box::new(source),
            alias: Some(TableAlias { explicit: true, name: alias.clone(), columns }),
            sample: None,
        },
        joins: Vec::new(),
    }];
    Ok(ast::Expr::Subquery(Box::new(query(select))))
}

fn members(values: impl Iterator<Item = ast::Expr>) -> ast::Expr {
    let named = values.enumerate().flat_map(|(i, value)| [rewrite::string(&i.to_string()), value]);
    rewrite::call("named_struct", named.collect())
}

/// The plan with the rows as columns, which have the names that [`member`] looks for.
pub(super) fn with_rows(below: LogicalPlan, rows: Vec<Expr>) -> Result<LogicalPlan> {
    if rows.is_empty() {
        return Ok(below);
    }
    let carried: Vec<Expr> = below.schema().columns().into_iter().map(Expr::Column).collect();
    let rows = rows.into_iter().enumerate().map(|(i, row)| row.alias(name(i)));
    Ok(LogicalPlanBuilder::from(below).project(carried.into_iter().chain(rows))?.build()?)
}

pub(super) fn member(row: usize, member: usize) -> Expr {
    get_field(col(name(row)), member.to_string())
}

fn name(row: usize) -> String {
    format!("_tidewater_set_{row}")
}
