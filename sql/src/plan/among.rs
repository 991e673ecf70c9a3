//! `x IN (SELECT …)` as a value.
//!
//! The engine joins for IN in a WHERE clause, and has nothing for it in a list. There it is written out:
//!
//! ```text
//!   CASE WHEN rows that equal x > 0   THEN true
//!        WHEN x IS NULL AND rows > 0  THEN NULL
//!        WHEN rows that are NULL > 0  THEN NULL ELSE false END
//! ```

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, ScalarValue, Spans, plan_err};
use datafusion::error::Result as DfResult;
use datafusion::functions_aggregate::expr_fn::count;
use datafusion::logical_expr::expr::InSubquery;
use datafusion::logical_expr::{
    Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder, Projection, Subquery, lit, not, when,
};

use crate::SqlError;

/// What the rows of the query are called. Columns of `x` keep their names, which the query may have, too.
const ROWS: &str = "_tidewater_among";

/// Writes out IN (SELECT …) in the lists of the plan.
pub(super) fn write_out(plan: LogicalPlan) -> DfResult<LogicalPlan> {
    let mut counts = 0;
    let written = plan.transform_up_with_subqueries(|node| match node {
        LogicalPlan::Projection(Projection { expr, input, .. }) if holds(&expr)? => {
            let mut out = Vec::with_capacity(expr.len());
            for e in expr {
                let (relation, name) = e.qualified_name();
                let one = e.transform_up(|e| match e {
                    Expr::InSubquery(among) => Ok(Transformed::yes(counted(among, input.schema(), &mut counts)?)),
                    other => Ok(Transformed::no(other)),
                })?;
                out.push(if one.transformed { one.data.unalias().alias_qualified(relation, name) } else { one.data });
            }
            Ok(Transformed::yes(LogicalPlanBuilder::from(Arc::unwrap_or_clone(input)).project(out)?.build()?))
        }
        other => Ok(Transformed::no(other)),
    })?;
    Ok(written.data)
}

fn holds(exprs: &[Expr]) -> DfResult<bool> {
    for expr in exprs {
        if expr.exists(|e| Ok(matches!(e, Expr::InSubquery(_))))? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn counted(among: InSubquery, schema: &DFSchema, counts: &mut usize) -> DfResult<Expr> {
    let InSubquery { expr: x, subquery, negated } = among;
    // Each count reads the rows anew, and they must be the same.
    if moves(&x)? || unstable(&subquery.subquery)? {
        let refused = SqlError::unsupported("this IN (SELECT …) is not supported as a value")
            .with_detail("It has a subquery, a LIMIT or a function that gives another answer each time.")
            .with_hint("Use it in WHERE, or join with the query.");
        return Err(refused.into());
    }
    let rows = LogicalPlanBuilder::from(Arc::unwrap_or_clone(subquery.subquery)).alias(ROWS)?.build()?;
    let columns = rows.schema().columns();
    let [column] = columns.as_slice() else { return plan_err!("subquery has too many columns") };
    let column = Expr::Column(column.clone());
    let outside = x.as_ref().clone().transform_up(|e| match e {
        Expr::Column(column) => {
            let (_, field) = schema.qualified_field_from_column(&column)?;
            Ok(Transformed::yes(Expr::OuterReferenceColumn(Arc::clone(field), column)))
        }
        other => Ok(Transformed::no(other)),
    })?;
    let mut some = |condition| {
        *counts += 1;
        some(&rows, condition, *counts)
    };
    let unknown = || lit(ScalarValue::Boolean(None));
    let mut value = when(some(Some(column.clone().eq(outside.data)))?, lit(true));
    if x.nullable(schema)? {
        value.when(x.as_ref().clone().is_null().and(some(None)?), unknown());
    }
    if column.nullable(rows.schema().as_ref())? {
        value.when(some(Some(column.is_null()))?, unknown());
    }
    let value = value.otherwise(lit(false))?;
    Ok(if negated { not(value) } else { value })
}

/// Whether there are rows that meet the condition. The engine names the answer without a qualifier, so that it needs a name
/// of its own.
fn some(rows: &LogicalPlan, condition: Option<Expr>, number: usize) -> DfResult<Expr> {
    let mut plan = LogicalPlanBuilder::from(rows.clone());
    if let Some(condition) = condition {
        plan = plan.filter(condition)?;
    }
    let plan = plan.aggregate(Vec::<Expr>::new(), vec![count(lit(1_i64)).alias("rows")])?;
    let plan = plan.project(vec![
        Expr::Column(Column::new_unqualified("rows")).gt(lit(0_i64)).alias(format!("_tidewater_found_{number}")),
    ])?;
    let plan = plan.build()?;
    let outer_ref_columns = plan.all_out_ref_exprs();
    Ok(Expr::ScalarSubquery(Subquery { subquery: Arc::new(plan), outer_ref_columns, spans: Spans::new() }))
}

/// Whether the value may be another one when it is computed again, or cannot be handed into a subquery.
fn moves(expr: &Expr) -> DfResult<bool> {
    expr.exists(|e| {
        Ok(e.is_volatile_node()
            || matches!(
                e,
                Expr::ScalarSubquery(_) | Expr::Exists(_) | Expr::InSubquery(_) | Expr::OuterReferenceColumn(..)
            ))
    })
}

fn unstable(plan: &LogicalPlan) -> DfResult<bool> {
    let mut found = false;
    plan.apply_with_subqueries(|node| {
        found |= matches!(node, LogicalPlan::Limit(_));
        node.apply_expressions(|e| {
            found |= e.is_volatile();
            Ok(TreeNodeRecursion::Continue)
        })?;
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(found)
}
