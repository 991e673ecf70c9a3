//! Shapes that the engine below would answer, but not as PostgreSQL does: refused until they are right.

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::{Expr, LogicalPlan};

use super::literals::texts;
use crate::error::Result;
use crate::{SqlError, SqlState};

/// Functions whose patterns or results differ in silence, with what to use instead.
const FUNCTIONS: &[(&str, &str)] = &[("date_format", "Use to_char(time, 'YYYY-MM-DD').")];

pub(super) fn check(plan: &LogicalPlan) -> Result<()> {
    let mut refused: Option<SqlError> = None;
    plan.apply_with_subqueries(|node| {
        refused = check_node(node);
        if refused.is_some() {
            return Ok(TreeNodeRecursion::Stop);
        }
        node.apply_expressions(|expr| {
            expr.apply(|e| {
                refused = check_expr(e);
                Ok(if refused.is_some() { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
            })
        })
    })?;
    refused.map_or(Ok(()), Err)
}

fn check_node(node: &LogicalPlan) -> Option<SqlError> {
    let LogicalPlan::Union(union) = node else { return None };
    let (first, others) = union.inputs.split_first()?;
    for other in others {
        for (a, b) in first.schema().fields().iter().zip(other.schema().fields()) {
            let (a, b) = (a.data_type(), b.data_type());
            if texts(a, b) || texts(b, a) {
                let name = tidewater_catalogs_system::type_name;
                let message = format!("UNION types {} and {} cannot be matched", name(a), name(b));
                return Some(SqlError::new(SqlState::TYPE_MISMATCH, message).with_hint("Cast one to the other."));
            }
        }
    }
    None
}

fn check_expr(expr: &Expr) -> Option<SqlError> {
    match expr {
        Expr::SimilarTo(_) => Some(
            SqlError::unsupported("SIMILAR TO is not supported").with_hint("Use LIKE, or ~ with a regular expression."),
        ),
        Expr::ScalarFunction(f) => {
            let name = f.name();
            if let Some((_, hint)) = FUNCTIONS.iter().find(|(n, _)| *n == name) {
                return Some(SqlError::unsupported(format!("function {name}() is not supported yet")).with_hint(*hint));
            }
            if matches!(name, "generate_series" | "range") {
                return Some(
                    SqlError::unsupported(format!("{name}() in a select list is not supported"))
                        .with_hint(format!("Put it into FROM: SELECT … FROM {name}(1, 10) AS n.")),
                );
            }
            if name == "date_part"
                && matches!(f.args.first(), Some(Expr::Literal(v, _)) if v.try_as_str().flatten().is_some_and(|s| s.eq_ignore_ascii_case("isodow")))
            {
                return Some(
                    SqlError::unsupported("extract(isodow) is not supported yet")
                        .with_hint("Use extract(dow): 0 is Sunday."),
                );
            }
            None
        }
        _ => None,
    }
}
