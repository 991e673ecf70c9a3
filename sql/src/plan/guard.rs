//! Shapes that the engine below would answer, but not as PostgreSQL does: refused until they are right.

use arrow::datatypes::DataType;
use datafusion::common::DFSchema;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::expr::InSubquery;
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{
    Aggregate, Distinct, Expr, ExprSchemable, Join, JoinType, LogicalPlan, Operator, RecursiveQuery, Union,
};

use super::literals::no_interval;
use super::numeric::digits;
use super::one_type::{is_untyped, texts};
use super::types::NUMERIC_SCALE;
use crate::dialect::type_name;
use crate::error::Result;
use crate::{SqlError, SqlState};

/// Functions whose patterns or results differ in silence, with what to use instead.
const FUNCTIONS: &[(&str, &str)] = &[
    ("date_format", "Use to_char(time, 'YYYY-MM-DD')."),
    ("array_dims", "Use cardinality(array)."),
    ("array_ndims", "Arrays have one dimension."),
    ("factorial", "Multiply the numbers."),
];

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
    match node {
        LogicalPlan::Union(union) => union_types(union),
        LogicalPlan::RecursiveQuery(query) => recursive_types(query),
        LogicalPlan::Join(join) => joined_types(join),
        LogicalPlan::Filter(filter) => unknown_membership(&filter.predicate, filter.input.schema()),
        LogicalPlan::Aggregate(aggregate) => ordered_twice(aggregate).or_else(|| interval_keys(aggregate)),
        LogicalPlan::Distinct(Distinct::All(input))
            if input.schema().fields().iter().any(|f| matches!(f.data_type(), DataType::Interval(_))) =>
        {
            Some(no_interval("DISTINCT"))
        }
        _ => None,
    }
}

/// The rows that follow are cast to the types of the first, and must lose no digits by it.
fn recursive_types(query: &RecursiveQuery) -> Option<SqlError> {
    let LogicalPlan::Projection(next) = query.recursive_term.as_ref() else { return None };
    next.expr.iter().enumerate().find_map(|(i, expr)| {
        let Expr::Cast(cast) = expr.clone().unalias_nested().data else { return None };
        let (from, to) = (cast.expr.get_type(next.input.schema()).ok()?, cast.data_type);
        let scale = |t: &DataType| digits(t).map(|(_, scale)| scale);
        let loses = match (scale(&from), scale(&to)) {
            // Of so many digits as a numeric without precision has, the last may be rounded.
            (Some(from), Some(to)) => from > to && to < NUMERIC_SCALE,
            (None, Some(_)) => from.is_floating(),
            _ => false,
        };
        loses.then(|| {
            let message = format!(
                "recursive query \"{}\" column {} has type {} in non-recursive term but type {} overall",
                query.name,
                i + 1,
                declared(&to),
                declared(&from)
            );
            SqlError::new(SqlState::TYPE_MISMATCH, message).with_hint("Cast both terms to one type.")
        })
    })
}

fn declared(t: &DataType) -> String {
    type_name(t).map_or_else(|| t.to_string(), |name| name.to_lowercase())
}

fn is_open(plan: &LogicalPlan, column: usize) -> bool {
    let LogicalPlan::Projection(projection) = plan else { return matches!(plan, LogicalPlan::Values(_)) };
    projection.expr.get(column).is_some_and(|e| is_untyped(&e.clone().unalias_nested().data))
}

fn union_types(union: &Union) -> Option<SqlError> {
    let (first, others) = union.inputs.split_first()?;
    for other in others {
        for (i, (a, b)) in first.schema().fields().iter().zip(other.schema().fields()).enumerate() {
            let (a, b) = (a.data_type(), b.data_type());
            if is_open(first, i) || is_open(other, i) {
                continue;
            }
            if texts(a, b) || texts(b, a) {
                let name = tidewater_catalogs_system::type_name;
                let message = format!("UNION types {} and {} cannot be matched", name(a), name(b));
                return Some(SqlError::new(SqlState::TYPE_MISMATCH, message).with_hint("Cast one to the other."));
            }
        }
    }
    None
}

/// `a IN (SELECT …)` that is not unknown where it should be: the engine knows true and false alone, unless the whole
/// condition is one membership, or several joined by AND.
fn unknown_membership(predicate: &Expr, schema: &DFSchema) -> Option<SqlError> {
    fn wrong(expr: &Expr, schema: &DFSchema) -> bool {
        match expr {
            Expr::BinaryExpr(b) if matches!(b.op, Operator::And | Operator::Or) => {
                wrong(&b.left, schema) || wrong(&b.right, schema)
            }
            // Where unknown counts as false, false will do.
            Expr::InSubquery(found) if !found.negated => false,
            other => other
                .exists(|e| Ok(matches!(e, Expr::InSubquery(found) if may_be_unknown(found, schema))))
                .unwrap_or(true),
        }
    }
    fn may_be_unknown(found: &InSubquery, schema: &DFSchema) -> bool {
        let rows = found.subquery.subquery.schema();
        found.expr.nullable(schema).unwrap_or(true) || rows.fields().iter().any(|f| f.is_nullable())
    }
    let parts = split_conjunction(predicate);
    parts.into_iter().any(|part| !matches!(part, Expr::InSubquery(_)) && wrong(part, schema)).then(|| {
        SqlError::unsupported("NOT IN (SELECT …) inside of a larger condition is not supported")
            .with_detail("Where a NULL is among the values the result is unknown, which is not told from false there.")
            .with_hint("Write NOT EXISTS (SELECT … WHERE …), or NOT IN as a condition of its own, joined by AND.")
    })
}

/// The engine sorts the rows of a group once.
fn ordered_twice(aggregate: &Aggregate) -> Option<SqlError> {
    if aggregate.group_expr.is_empty() {
        return None;
    }
    let mut orders = aggregate.aggr_expr.iter().filter_map(|expr| match bare(expr) {
        Expr::AggregateFunction(f) if !f.params.order_by.is_empty() && !f.params.distinct => Some(&f.params.order_by),
        _ => None,
    });
    let first = orders.next()?;
    orders.any(|order| order != first).then(|| {
        SqlError::unsupported("aggregates with several orders of rows in one SELECT are not supported")
            .with_hint("Compute them in subqueries, one for each ORDER BY, and join these.")
    })
}

fn interval_keys(aggregate: &Aggregate) -> Option<SqlError> {
    let schema = aggregate.input.schema();
    let interval = |e: &Expr| matches!(e.get_type(schema.as_ref()), Ok(DataType::Interval(_)));
    if aggregate.group_expr.iter().any(interval) {
        return Some(no_interval("GROUP BY"));
    }
    aggregate.aggr_expr.iter().find_map(|expr| match bare(expr) {
        Expr::AggregateFunction(f) if f.params.args.iter().any(interval) => {
            let ordered = f.params.distinct || matches!(f.func.name(), "min" | "max");
            ordered.then(|| no_interval(&format!("{}()", f.func.name())))
        }
        _ => None,
    })
}

fn bare(expr: &Expr) -> &Expr {
    match expr {
        Expr::Alias(alias) => bare(&alias.expr),
        other => other,
    }
}

/// Keys that are compared by name (USING) or by place (INTERSECT, EXCEPT). Those of ON are conditions still.
fn joined_types(join: &Join) -> Option<SqlError> {
    let what = match join.join_type {
        JoinType::LeftSemi => "INTERSECT",
        JoinType::LeftAnti => "EXCEPT",
        _ => "JOIN/USING",
    };
    join.on.iter().find_map(|(left, right)| {
        let (a, b) = (left.get_type(join.left.schema()).ok()?, right.get_type(join.right.schema()).ok()?);
        let name = tidewater_catalogs_system::type_name;
        if texts(&a, &b) || texts(&b, &a) {
            let message = format!("{what} types {} and {} cannot be matched", name(&a), name(&b));
            return Some(SqlError::new(SqlState::TYPE_MISMATCH, message).with_hint("Cast one to the other."));
        }
        let exact = |t: &DataType| matches!(t, DataType::Decimal128(..));
        (exact(&a) && b.is_floating() || a.is_floating() && exact(&b)).then(|| {
            SqlError::unsupported(format!("{what} of {} and {} is not supported", name(&a), name(&b)))
                .with_hint("Cast the numeric to double precision.")
        })
    })
}

fn check_expr(expr: &Expr) -> Option<SqlError> {
    match expr {
        Expr::SetComparison(c) if !c.subquery.outer_ref_columns.is_empty() => Some(
            SqlError::unsupported(format!(
                "{} {} over a subquery that depends on the row outside is not supported",
                c.op, c.quantifier
            ))
            .with_hint("Write EXISTS (SELECT … WHERE …), or compare with its min() or max()."),
        ),
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
