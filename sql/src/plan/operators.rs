//! Operators as PostgreSQL reads them: the type of a quoted literal comes from the other side, `numeric` divides
//! with digits enough, `^` is a power, dates are days apart.

use arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::error::Result;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::{BinaryExpr, Expr, ExprSchemable, Operator, cast, lit};
use sqlparser::ast::BinaryOperator as Op;

use super::{interval_product, literals, numeric};

#[derive(Debug)]
pub(super) struct PostgresOperators;

impl ExprPlanner for PostgresOperators {
    fn plan_binary_op(&self, mut raw: RawBinaryExpr, schema: &DFSchema) -> Result<PlannerResult<RawBinaryExpr>> {
        if let Op::Arrow | Op::LongArrow = raw.op {
            let get = if raw.op == Op::Arrow { tidewater_udfs::json_get() } else { tidewater_udfs::json_get_text() };
            return Ok(PlannerResult::Planned(get.call(vec![raw.left, raw.right])));
        }
        if !matches!(raw.op, Op::Plus | Op::Minus | Op::Multiply | Op::Divide | Op::Modulo | Op::PGExp) {
            return Ok(PlannerResult::Original(raw));
        }
        // Types that are not known yet (outer columns of some subqueries) are left to coercion.
        let (Ok(left), Ok(right)) = (raw.left.get_type(schema), raw.right.get_type(schema)) else {
            return Ok(PlannerResult::Original(raw));
        };
        if let Some(typed) = quoted(&raw.right, &left, &raw.op)? {
            raw.right = typed;
        } else if let Some(typed) = quoted(&raw.left, &right, &raw.op)? {
            raw.left = typed;
        }
        let (left, right) = (raw.left.get_type(schema)?, raw.right.get_type(schema)?);
        // Beside another kind of number a real is computed as a double.
        let real = |one: &DataType, other: &DataType| {
            *one == DataType::Float32 && (other.is_integer() || matches!(other, DataType::Decimal128(..)))
        };
        let (left, right) = if real(&left, &right) || real(&right, &left) {
            raw.left = cast(raw.left, DataType::Float64);
            raw.right = cast(raw.right, DataType::Float64);
            (DataType::Float64, DataType::Float64)
        } else {
            (left, right)
        };
        match raw.op {
            Op::Divide if numeric::divides(&left, &right) => {
                Ok(PlannerResult::Planned(numeric::divide(raw.left, raw.right)))
            }
            // A time of day goes round at midnight; the engine would count on.
            Op::Plus | Op::Minus
                if matches!((&left, &right), (DataType::Time64(_), DataType::Interval(_)))
                    || matches!((&left, &right), (DataType::Interval(_), DataType::Time64(_))) =>
            {
                let error = crate::SqlError::unsupported("time of day with an interval added is not supported yet")
                    .with_hint("Add the interval to a timestamp, and cast the sum to time.");
                Err(error.into())
            }
            Op::Multiply if is_interval(&left) && right.is_numeric() => {
                Ok(PlannerResult::Planned(interval_product::times(raw.left, raw.right)))
            }
            Op::Multiply if left.is_numeric() && is_interval(&right) => {
                Ok(PlannerResult::Planned(interval_product::times(raw.right, raw.left)))
            }
            Op::Divide if is_interval(&left) && right.is_numeric() => {
                Ok(PlannerResult::Planned(interval_product::divided(raw.left, raw.right)))
            }
            Op::Minus if left == DataType::Date32 && right == DataType::Date32 => {
                let days = BinaryExpr::new(Box::new(raw.left), Operator::Minus, Box::new(raw.right));
                Ok(PlannerResult::Planned(cast(Expr::BinaryExpr(days), DataType::Int32)))
            }
            Op::PGExp if numeric::divides(&left, &right) => Err(literals::no_power().into()),
            Op::PGExp if left.is_numeric() && right.is_numeric() => {
                let float = |e: Expr| cast(e, DataType::Float64);
                let power = datafusion::functions::math::power();
                Ok(PlannerResult::Planned(power.call(vec![float(raw.left), float(raw.right)])))
            }
            _ => Ok(PlannerResult::Original(raw)),
        }
    }
}

fn is_interval(t: &DataType) -> bool {
    matches!(t, DataType::Interval(_))
}

/// A quoted literal in the type that the operator wants beside `other`. None where it is none, or none is known.
fn quoted(literal: &Expr, other: &DataType, op: &Op) -> Result<Option<Expr>> {
    let Expr::Literal(ScalarValue::Utf8(Some(text)), _) = literal else { return Ok(None) };
    if other.is_numeric() {
        // With the digits that it has itself.
        let to = if matches!(other, DataType::Decimal128(..)) { &DataType::Decimal128(38, 0) } else { other };
        return literals::value(text, to).map(|v| v.map(lit));
    }
    let target = match (other, op) {
        (DataType::Date32, Op::Minus) => DataType::Date32,
        (DataType::Timestamp(_, zone), Op::Minus) => DataType::Timestamp(TimeUnit::Microsecond, zone.clone()),
        (DataType::Timestamp(..), Op::Plus) | (DataType::Interval(_), Op::Plus | Op::Minus) => {
            return Ok(Some(lit(super::interval::literal(text)?)));
        }
        _ => return Ok(None),
    };
    Ok(Some(cast(literal.clone(), target)))
}
