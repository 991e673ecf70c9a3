//! Shapes that the engine below would answer, but not as PostgreSQL does: refused until they are right.

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::{Expr, LogicalPlan};

use crate::SqlError;
use crate::error::Result;

/// Functions whose patterns or results differ in silence, with what to use instead.
const FUNCTIONS: &[(&str, &str)] = &[("date_format", "Use to_char(time, 'YYYY-MM-DD').")];

pub(super) fn check(plan: &LogicalPlan) -> Result<()> {
    let mut refused: Option<SqlError> = None;
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            expr.apply(|e| {
                refused = check_expr(e);
                Ok(if refused.is_some() { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
            })
        })
    })?;
    refused.map_or(Ok(()), Err)
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
