//! Several subqueries that read the row outside, in one node of a plan.
//!
//! The engine joins each of them and gives the marker of all joins one name, which is then ambiguous. So they are put
//! into nodes of their own, one upon the other.

use datafusion::common::Column;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, Filter, LogicalPlan, LogicalPlanBuilder, Projection};

pub(super) fn one_by_one(plan: LogicalPlan) -> Result<LogicalPlan> {
    plan.transform_up_with_subqueries(|node| match node {
        LogicalPlan::Projection(Projection { expr, input, .. }) if several(&expr)? => {
            let mut below = LogicalPlanBuilder::from(input.as_ref().clone());
            let mut count = 0;
            let mut columns = Vec::with_capacity(expr.len());
            for e in expr {
                let (relation, name) = e.qualified_name();
                let (e, next) = lift(e, below, &mut count)?;
                below = next;
                columns.push(match e {
                    Expr::Column(_) if count == 0 => e,
                    other => other.unalias().alias_qualified(relation, name),
                });
            }
            Ok(Transformed::yes(below.project(columns)?.build()?))
        }
        LogicalPlan::Filter(Filter { predicate, input, .. }) if several(std::slice::from_ref(&predicate))? => {
            let columns: Vec<Expr> = input.schema().columns().into_iter().map(Expr::Column).collect();
            let below = LogicalPlanBuilder::from(input.as_ref().clone());
            let (predicate, below) = lift(predicate, below, &mut 0)?;
            Ok(Transformed::yes(below.filter(predicate)?.project(columns)?.build()?))
        }
        other => Ok(Transformed::no(other)),
    })
    .map(|t| t.data)
}

fn reads_outside(expr: &Expr) -> bool {
    matches!(expr, Expr::ScalarSubquery(subquery) if !subquery.outer_ref_columns.is_empty())
}

fn several(exprs: &[Expr]) -> Result<bool> {
    let mut count = 0;
    for expr in exprs {
        expr.apply(|e| {
            count += usize::from(reads_outside(e));
            Ok(TreeNodeRecursion::Continue)
        })?;
    }
    Ok(count > 1)
}

/// The expression over columns that the nodes below give instead of its subqueries.
fn lift(expr: Expr, below: LogicalPlanBuilder, count: &mut usize) -> Result<(Expr, LogicalPlanBuilder)> {
    let mut below = Some(below);
    let lifted = expr.transform_up(|e| {
        let Some(input) = below.take_if(|_| reads_outside(&e)) else { return Ok(Transformed::no(e)) };
        *count += 1;
        let name = format!("__subquery_{count}");
        let mut columns: Vec<Expr> = input.schema().columns().into_iter().map(Expr::Column).collect();
        columns.push(e.alias(&name));
        below = Some(input.project(columns)?);
        Ok(Transformed::yes(Expr::Column(Column::new_unqualified(name))))
    })?;
    match below {
        Some(below) => Ok((lifted.data, below)),
        None => datafusion::common::internal_err!("a plan was lost"),
    }
}
