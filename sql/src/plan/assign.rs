//! Assignment casts: what INSERT, generated columns and streaming tables do to fit a value into a column.

use arrow::datatypes::DataType;
use datafusion::common::ExprSchema;
use datafusion::logical_expr::{Expr, ExprSchemable, cast};

use crate::dialect::type_name;
use crate::error::Result;
use crate::{SqlError, SqlState};

/// `expr` in the type of the column. 42804 where PostgreSQL would ask for an explicit cast.
pub(crate) fn to_type(expr: Expr, schema: &dyn ExprSchema, to: &DataType, column: &str) -> Result<Expr> {
    let from = expr.get_type(schema)?;
    if from == *to {
        return Ok(expr);
    }
    let literal =
        matches!(&expr, Expr::Literal(..)) || matches!(&expr, Expr::Alias(a) if matches!(*a.expr, Expr::Literal(..)));
    if !assignable(&from, to, literal) {
        let name = |t: &DataType| type_name(t).map_or_else(|| t.to_string(), |n| n.to_lowercase());
        return Err(SqlError::new(
            SqlState::TYPE_MISMATCH,
            format!("column \"{column}\" is of type {} but expression is of type {}", name(to), name(&from)),
        )
        .with_hint("You will need to rewrite or cast the expression."));
    }
    Ok(cast(expr, to.clone()))
}

/// PostgreSQL's assignment casts (pg_cast, castcontext a or i), in Arrow's types.
pub(crate) fn assignable(from: &DataType, to: &DataType, literal: bool) -> bool {
    use DataType as D;
    let text = |t: &D| matches!(t, D::Utf8 | D::LargeUtf8 | D::Utf8View);
    let binary = |t: &D| matches!(t, D::Binary | D::LargeBinary | D::BinaryView);
    if from.equals_datatype(to) {
        return true;
    }
    match (from, to) {
        (D::Null, _) => true,
        (D::Dictionary(_, values), _) => assignable(values, to, literal),
        // A literal has no type of its own yet.
        (f, _) if text(f) && literal => !to.is_nested(),
        (f, t) if text(f) && text(t) => true,
        (f, t) if binary(f) && binary(t) => true,
        (f, t) if f.is_numeric() && t.is_numeric() => true,
        // Everything can be assigned to text.
        (f, t) if text(t) && !f.is_nested() && !binary(f) => true,
        (D::Date32 | D::Date64, D::Date32 | D::Date64 | D::Timestamp(..)) => true,
        (D::Timestamp(..), D::Timestamp(..) | D::Date32 | D::Time64(_)) => true,
        (D::Time32(_) | D::Time64(_), D::Time32(_) | D::Time64(_)) => true,
        (D::Interval(_) | D::Duration(_), D::Interval(_)) => true,
        (
            D::List(f) | D::LargeList(f) | D::FixedSizeList(f, _),
            D::List(t) | D::LargeList(t) | D::FixedSizeList(t, _),
        ) => assignable(f.data_type(), t.data_type(), literal),
        (D::Struct(f), D::Struct(t)) => {
            f.len() == t.len()
                && f.iter()
                    .zip(t.iter())
                    .all(|(f, t)| f.name() == t.name() && assignable(f.data_type(), t.data_type(), false))
        }
        (D::Map(f, _), D::Map(t, _)) => assignable(f.data_type(), t.data_type(), false),
        _ => false,
    }
}
