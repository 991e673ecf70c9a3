//! A quoted literal takes the type of what it is compared with, as in PostgreSQL: `price > '9'` compares numbers.
//! (The engine would compare texts, and find '10' smaller than '9'.) Runs before type coercion.

use arrow::datatypes::DataType;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, DFSchemaRef, ScalarValue};
use datafusion::error::Result;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, Operator, cast};
use datafusion::optimizer::AnalyzerRule;

#[derive(Debug)]
pub(super) struct QuotedLiterals;

impl AnalyzerRule for QuotedLiterals {
    fn name(&self) -> &str {
        "quoted_literals"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        plan.transform_up_with_subqueries(|node| {
            let mut schema = merge_schema(&node.inputs());
            if let LogicalPlan::TableScan(scan) = &node {
                schema = DFSchema::try_from_qualified_schema(scan.table_name.clone(), &scan.source.schema())?;
            }
            let schema = DFSchemaRef::new(schema);
            let preserver = NamePreserver::new(&node);
            node.map_expressions(|expr| {
                let name = preserver.save(&expr);
                let done = expr.transform_up(|e| typed(e, &schema))?;
                Ok(done.update_data(|e| name.restore(e)))
            })
        })
        .map(|t| t.data)
    }
}

fn typed(expr: Expr, schema: &DFSchemaRef) -> Result<Transformed<Expr>> {
    Ok(match expr {
        Expr::BinaryExpr(mut b) if is_comparison(&b.op) => {
            if let Some(right) = like(&b.right, &b.left, schema) {
                *b.right = right;
            } else if let Some(left) = like(&b.left, &b.right, schema) {
                *b.left = left;
            } else {
                return Ok(Transformed::no(Expr::BinaryExpr(b)));
            }
            Transformed::yes(Expr::BinaryExpr(b))
        }
        Expr::Between(mut between) => {
            let (low, high) = (like(&between.low, &between.expr, schema), like(&between.high, &between.expr, schema));
            let changed = low.is_some() || high.is_some();
            if let Some(low) = low {
                *between.low = low;
            }
            if let Some(high) = high {
                *between.high = high;
            }
            Transformed::new_transformed(Expr::Between(between), changed)
        }
        Expr::InList(mut list) => {
            let mut changed = false;
            for item in &mut list.list {
                if let Some(new) = like(item, &list.expr, schema) {
                    *item = new;
                    changed = true;
                }
            }
            Transformed::new_transformed(Expr::InList(list), changed)
        }
        other => Transformed::no(other),
    })
}

fn is_comparison(op: &Operator) -> bool {
    use Operator as O;
    matches!(op, O::Eq | O::NotEq | O::Lt | O::LtEq | O::Gt | O::GtEq | O::IsDistinctFrom | O::IsNotDistinctFrom)
}

/// The literal in the type of `other`, where it is a quoted one and `other` a number or boolean.
fn like(literal: &Expr, other: &Expr, schema: &DFSchemaRef) -> Option<Expr> {
    let Expr::Literal(ScalarValue::Utf8(Some(text)), _) = literal else { return None };
    let target = match other.get_type(schema.as_ref()).ok()? {
        // Enough digits behind the point that none of the literal's is rounded away.
        DataType::Decimal128(_, scale) => {
            let digits = text.trim().split_once('.').map_or(0, |(_, fraction)| fraction.len());
            DataType::Decimal128(38, scale.max(i8::try_from(digits).ok().filter(|d| *d <= 38)?))
        }
        t if t.is_numeric() || t == DataType::Boolean => t,
        _ => return None,
    };
    Some(cast(literal.clone(), target))
}
