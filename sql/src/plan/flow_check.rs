//! Which queries a flow can keep up: row by row ones. All else is refused with what it was and what works instead.

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::{Distinct, Expr, LogicalPlan, Volatility};

use crate::SqlError;
use crate::error::Result;

/// Whose query it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    StreamingTable,
    Subscribe,
}

impl Place {
    pub(super) fn what(self) -> &'static str {
        match self {
            Self::StreamingTable => "the query of a streaming table",
            Self::Subscribe => "SUBSCRIBE",
        }
    }

    /// The hint of a streaming table, or what holds for all that SUBSCRIBE refuses.
    fn hint(self, hint: &str) -> String {
        match self {
            Self::StreamingTable => hint.to_owned(),
            Self::Subscribe => {
                "SUBSCRIBE filters and transforms rows one by one; ask all else of the stream with a SELECT.".to_owned()
            }
        }
    }
}

const LATER: &str = "Streaming tables filter and transform rows one by one today; ask this of the table when reading.";

/// Checks the plan as the statement wrote it.
pub(super) fn check(plan: &LogicalPlan, place: Place) -> Result<()> {
    let mut refused: Option<SqlError> = None;
    plan.apply_with_subqueries(|node| {
        refused = check_node(node, place);
        if refused.is_none() {
            node.apply_expressions(|expr| {
                expr.apply(|e| {
                    refused = check_expr(e, place);
                    Ok(stop_if(refused.is_some()))
                })
            })?;
        }
        Ok(stop_if(refused.is_some()))
    })?;
    refused.map_or(Ok(()), Err)
}

fn stop_if(stop: bool) -> TreeNodeRecursion {
    if stop { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue }
}

/// Checks that nothing else came in while planning. What the optimiser makes of an accepted plan is row by row too,
/// so anything it finds is a bug, and must not run.
pub(super) fn check_optimized(plan: &LogicalPlan, place: Place) -> Result<()> {
    check(plan, place)
}

fn check_node(node: &LogicalPlan, place: Place) -> Option<SqlError> {
    use LogicalPlan as P;
    let refuse = |what: &str, hint: &str| {
        let first = node.display().to_string();
        Some(
            SqlError::unsupported(format!("{what} in {} is not supported yet", place.what()))
                .with_detail(format!("The plan has: {}", first.chars().take(200).collect::<String>()))
                .with_hint(place.hint(hint)),
        )
    };
    match node {
        P::Projection(_) | P::Filter(_) | P::TableScan(_) | P::SubqueryAlias(_) | P::Union(_) | P::Unnest(_) => None,
        // What is left of a branch that is always false.
        P::EmptyRelation(e) if !e.produce_one_row => None,
        P::EmptyRelation(_) | P::Values(_) => {
            refuse("a part without FROM STREAM", "Every branch of UNION ALL reads the stream.")
        }
        P::Aggregate(_) => refuse("an aggregate", LATER),
        P::Distinct(Distinct::All(_)) => {
            refuse("DISTINCT (or UNION without ALL)", "Use UNION ALL; take DISTINCT when reading.")
        }
        P::Distinct(Distinct::On(_)) => refuse("DISTINCT ON", LATER),
        P::Window(_) => refuse("a window function", LATER),
        P::Sort(_) => refuse("ORDER BY", "Leave it out: a table has no order. Sort when reading."),
        P::Limit(_) if place == Place::Subscribe => Some(
            SqlError::unsupported("LIMIT in SUBSCRIBE is not supported")
                .with_hint("Write UNTIL LIMIT n behind the parentheses."),
        ),
        P::Limit(_) => refuse("LIMIT", "Leave it out: a stream does not end."),
        P::Join(_) => refuse("a join", "Join when reading. One streaming table reads one stream."),
        P::Subquery(_) => refuse("a subquery", "Write it as a filter or an expression over the row."),
        P::RecursiveQuery(_) => refuse("WITH RECURSIVE", LATER),
        P::Repartition(_) => refuse("a repartitioning", LATER),
        P::Explain(_)
        | P::Analyze(_)
        | P::Extension(_)
        | P::Statement(_)
        | P::Dml(_)
        | P::Ddl(_)
        | P::Copy(_)
        | P::DescribeTable(_) => refuse("this", LATER),
    }
}

fn check_expr(expr: &Expr, place: Place) -> Option<SqlError> {
    match expr {
        Expr::ScalarFunction(f) => match f.func.signature().volatility {
            Volatility::Immutable => None,
            Volatility::Stable => Some(
                SqlError::unsupported(format!("function {}() in {} is not supported", f.name(), place.what()))
                .with_detail("Its value depends on when the row is read, so that a restart could change rows.")
                .with_hint("Use _timestamp, the time of the record, instead of the time of reading."),
            ),
            Volatility::Volatile => Some(
                SqlError::unsupported(format!("function {}() in {} is not supported", f.name(), place.what()))
                .with_detail("It is volatile: a restart would give another value for the same record.")
                .with_hint(
                    "Derive the value from the record, for example md5(_topic || ':' || _partition || ':' || _offset).",
                ),
            ),
        },
        Expr::AggregateFunction(f) => Some(
            SqlError::unsupported(format!("aggregate {}() in {} is not supported yet", f.func.name(), place.what()))
            .with_hint(place.hint(LATER)),
        ),
        Expr::WindowFunction(_) => Some(
            SqlError::unsupported(format!("a window function in {} is not supported yet", place.what()))
                .with_hint(place.hint(LATER)),
        ),
        Expr::ScalarSubquery(_)
        | Expr::Exists(_)
        | Expr::InSubquery(_)
        | Expr::SetComparison(_)
        | Expr::OuterReferenceColumn(..) => Some(
            SqlError::unsupported(format!("a subquery in {} is not supported yet", place.what()))
                .with_hint("Write it as a filter or an expression over the row."),
        ),
        Expr::Placeholder(_) | Expr::ScalarVariable(..) => {
            Some(SqlError::unsupported(format!("a parameter in {} is not supported", place.what())))
        }
        _ => None,
    }
}
