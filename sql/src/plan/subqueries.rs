//! Subqueries in forms that the planner knows: EXISTS in a select list, names of the columns of WITH RECURSIVE.

use std::ops::ControlFlow;

use sqlparser::ast::{
    BinaryOperator, Cte, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, GroupByExpr, Ident,
    ObjectName, Query, Select, SelectItem, SetExpr, TableAlias, TableFactor, Value, Values, Visitor, VisitorMut,
};

use super::rewrite::{call, is_aggregate, number, query, select_all};
use crate::SqlError;
use crate::dialect::{walk, walk_mut};
use crate::error::Result;

/// EXISTS in a select list, which the engine has no operator for: `(SELECT count(*) > 0 FROM …)`.
pub(super) fn count_instead_of_exists(expr: &mut Expr) {
    let _ = walk_mut(expr, &mut ExistsRewriter { depth: 0 });
}

struct ExistsRewriter {
    depth: usize,
}

impl VisitorMut for ExistsRewriter {
    type Break = ();

    fn pre_visit_query(&mut self, _: &mut Query) -> ControlFlow<()> {
        self.depth += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &mut Query) -> ControlFlow<()> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        // EXISTS in the WHERE clause of an inner query stays: it is a semi-join there.
        if self.depth == 0
            && let Expr::Exists { .. } = expr
            && let Expr::Exists { subquery, negated } = std::mem::replace(expr, Expr::Value(Value::Null.into()))
        {
            *expr = match always(&subquery) {
                Ok(Some(found)) => Expr::Value(Value::Boolean(found != negated).into()),
                _ => Expr::Subquery(Box::new(counted(*subquery, negated))),
            };
        }
        ControlFlow::Continue(())
    }
}

fn counted(mut subquery: Query, negated: bool) -> Query {
    let op = if negated { BinaryOperator::Eq } else { BinaryOperator::Gt };
    let mut count = call("count", vec![]);
    if let Expr::Function(Function { args: FunctionArguments::List(list), .. }) = &mut count {
        list.args.push(FunctionArg::Unnamed(FunctionArgExpr::Wildcard));
    }
    let found = SelectItem::UnnamedExpr(Expr::BinaryOp { left: Box::new(count), op, right: Box::new(number("0")) });
    // The rows of a plain SELECT are counted where they are, so that they may depend on the row outside.
    if let SetExpr::Select(select) = subquery.body.as_mut()
        && subquery.limit_clause.is_none()
        && subquery.fetch.is_none()
        && is_plain(select)
    {
        select.projection = vec![found];
        select.distinct = None;
        subquery.order_by = None;
        return subquery;
    }
    let mut select = select_all(ObjectName::from(vec![Ident::new("t")]));
    select.projection = vec![found];
    select.from[0].relation = TableFactor::Derived {
        lateral: false,
        subquery: Box::new(subquery),
        alias: Some(TableAlias { explicit: true, name: Ident::new("found"), columns: vec![] }),
        sample: None,
    };
    query(SetExpr::Select(Box::new(select)))
}

/// One row out for each that WHERE lets through, whatever is in it.
fn is_plain(select: &Select) -> bool {
    struct Calls(bool);
    impl Visitor for Calls {
        type Break = ();
        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
            self.0 |= matches!(expr, Expr::Function(_) | Expr::Subquery(_));
            ControlFlow::Continue(())
        }
    }
    let mut calls = Calls(false);
    let _ = walk(&select.projection, &mut calls);
    !calls.0 && select.having.is_none() && !is_grouped(select)
}

fn is_grouped(select: &Select) -> bool {
    !matches!(&select.group_by, GroupByExpr::Expressions(e, m) if e.is_empty() && m.is_empty())
}

/// Whether EXISTS is known by the form of its subquery: an aggregate over all rows is one row, also of none. The engine
/// would look whether there are rows below.
pub(super) fn always(subquery: &Query) -> Result<Option<bool>> {
    let SetExpr::Select(select) = subquery.body.as_ref() else { return Ok(None) };
    let aggregate = |item: &SelectItem| match item {
        SelectItem::UnnamedExpr(e) | SelectItem::ExprWithAlias { expr: e, .. } => {
            is_aggregate(e) && matches!(e, Expr::Function(f) if f.over.is_none())
        }
        _ => false,
    };
    let one_row = !is_grouped(select) && (select.having.is_some() || select.projection.iter().any(aggregate));
    let limited = subquery.limit_clause.is_some() || subquery.fetch.is_some();
    match (one_row, select.having.is_some() || limited) {
        (true, false) => Ok(Some(true)),
        (true, true) => {
            Err(SqlError::unsupported("EXISTS over an aggregate with HAVING, LIMIT or OFFSET is not supported")
                .with_hint("Compare the aggregate itself: (SELECT count(*) …) > 0."))
        }
        (false, _) => Ok(None),
    }
}

/// `WITH RECURSIVE t (n) AS (first UNION ALL …)`: the names go to the rows that it begins with, where the planner looks
/// for them. Those become a subquery, also where there are no names: the engine would leave out columns that the query
/// outside does not read, though the next rows are made of them.
pub(super) fn name_recursive(cte: &mut Cte) {
    let SetExpr::SetOperation { left, .. } = cte.query.body.as_mut() else { return };
    let mut first = select_all(ObjectName(vec![]));
    let rows = std::mem::replace(
        left.as_mut(),
        SetExpr::Values(Values { explicit_row: false, value_keyword: false, rows: vec![] }),
    );
    first.from[0].relation = TableFactor::Derived {
        lateral: false,
        subquery: Box::new(Query { with: cte.query.with.clone(), ..query(rows) }),
        alias: Some(TableAlias {
            explicit: true,
            name: Ident::with_quote('"', "first rows"),
            columns: std::mem::take(&mut cte.alias.columns),
        }),
        sample: None,
    };
    **left = SetExpr::Select(Box::new(first));
}
