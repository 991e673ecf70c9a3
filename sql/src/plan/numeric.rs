//! Division of `numeric`: as many digits as PostgreSQL gives, rounded, where the engine cuts off after four more.

use std::any::Any;
use std::sync::{Arc, LazyLock};

use arrow::array::{Array, ArrayRef, AsArray, Decimal128Array};
use arrow::datatypes::{DataType, Decimal128Type, i256};
use arrow::error::ArrowError;
use datafusion::common::{ScalarValue, exec_err, plan_err};
use datafusion::error::Result;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use crate::{SqlError, SqlState};

pub(super) const MAX_PRECISION: u8 = 38;
/// Digits behind the point of a quotient, where the digits before it leave room for them.
const QUOTIENT_SCALE: u8 = 20;
/// PostgreSQL's `NUMERIC_MIN_SIG_DIGITS`.
const SIGNIFICANT: i32 = 16;

/// Precision and scale of what counts as a number here.
pub(super) fn digits(t: &DataType) -> Option<(u8, i8)> {
    Some(match t {
        DataType::Decimal128(p, s) => (*p, *s),
        DataType::Int8 | DataType::UInt8 => (3, 0),
        DataType::Int16 | DataType::UInt16 => (5, 0),
        DataType::Int32 | DataType::UInt32 => (10, 0),
        DataType::Int64 => (19, 0),
        DataType::UInt64 => (20, 0),
        _ => return None,
    })
}

/// True where one side is `numeric` and both are exact numbers.
pub(super) fn divides(left: &DataType, right: &DataType) -> bool {
    (matches!(left, DataType::Decimal128(..)) || matches!(right, DataType::Decimal128(..)))
        && digits(left).is_some()
        && digits(right).is_some()
}

pub(super) fn divide(left: Expr, right: Expr) -> Expr {
    let args = vec![left, right];
    match (known(&args[0]), known(&args[1])) {
        (Some(l), Some(r)) if r.0 != 0 => make(Some(known_scale(l, r))).call(args),
        _ => DIVIDE.call(args),
    }
}

static DIVIDE: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| make(None));

fn make(scale: Option<i8>) -> Arc<ScalarUDF> {
    Arc::new(ScalarUDF::from(Divide { scale, signature: Signature::any(2, Volatility::Immutable) }))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Divide {
    /// That of two literals. It is chosen once: a type that followed from what the optimiser folds would change with
    /// it.
    scale: Option<i8>,
    signature: Signature,
}

/// At most `whole` digits before the point, `least` behind it at least. What is declared seldom is what is there
/// (sums have all 38 digits), so some digits are kept behind the point in any case; what then does not fit is an error.
fn quotient(whole: i32, least: i32, wanted: i32) -> i8 {
    let max = i32::from(MAX_PRECISION);
    wanted.min((max - whole).max(SIGNIFICANT)).max(least).clamp(0, max) as i8
}

fn known_scale(left: (i128, i8), right: (i128, i8)) -> i8 {
    let before = |(v, s): (i128, i8)| v.unsigned_abs().checked_ilog10().map_or(0, |d| d as i32 + 1) - i32::from(s);
    let whole = (before(left) - before(right) + 1).max(1);
    quotient(whole, i32::from(left.1.max(right.1)), literal_scale(left, right))
}

/// PostgreSQL's `select_div_scale` for two values that are known.
fn literal_scale(left: (i128, i8), right: (i128, i8)) -> i32 {
    // Weight and value of the first digit to the base of 10,000.
    let first = |(value, scale): (i128, i8)| -> (i32, u128) {
        let value = value.unsigned_abs();
        if value == 0 {
            return (0, 0);
        }
        let exponent = value.ilog10() as i32 - i32::from(scale);
        let weight = exponent.div_euclid(4);
        let shift = weight * 4 + i32::from(scale);
        let digit = match u32::try_from(shift) {
            Ok(shift) => 10u128.checked_pow(shift).map_or(0, |d| value / d),
            Err(_) => 10u128.checked_pow(shift.unsigned_abs()).map_or(0, |m| value.saturating_mul(m)),
        };
        (weight, digit)
    };
    let ((w1, d1), (w2, d2)) = (first(left), first(right));
    let weight = w1 - w2 - i32::from(d1 <= d2);
    (SIGNIFICANT - weight * 4).max(i32::from(left.1)).max(i32::from(right.1)).max(0)
}

fn known(expr: &Expr) -> Option<(i128, i8)> {
    let value = match expr {
        Expr::Negative(inner) => return known(inner).map(|(v, s)| (-v, s)),
        Expr::Literal(value, _) => value,
        _ => return None,
    };
    Some(match value {
        ScalarValue::Decimal128(Some(v), _, s) => (*v, *s),
        ScalarValue::Int64(Some(v)) => (i128::from(*v), 0),
        ScalarValue::Int32(Some(v)) => (i128::from(*v), 0),
        _ => return None,
    })
}

impl ScalarUDFImpl for Divide {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn name(&self) -> &str {
        "numeric_div"
    }
    fn signature(&self) -> &Signature {
        &self.signature
    }
    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        plan_err!("numeric_div wants its arguments")
    }
    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<arrow::datatypes::FieldRef> {
        let [left, right] = args.arg_fields else { return plan_err!("numeric_div takes two arguments") };
        let (Some((p1, s1)), Some((_, s2))) = (digits(left.data_type()), digits(right.data_type())) else {
            return plan_err!("numeric_div takes numbers");
        };
        let (p1, s1, s2) = (i32::from(p1), i32::from(s1), i32::from(s2));
        let least = s1.max(s2);
        let scale = self.scale.unwrap_or_else(|| quotient(p1 - s1 + s2, least, i32::from(QUOTIENT_SCALE).max(least)));
        let out = DataType::Decimal128(MAX_PRECISION, scale);
        let nullable = left.is_nullable() || right.is_nullable();
        Ok(Arc::new(arrow::datatypes::Field::new(self.name(), out, nullable)))
    }
    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let DataType::Decimal128(_, scale) = args.return_field.data_type() else {
            return exec_err!("numeric_div gives a numeric");
        };
        let scalar = args.args.iter().all(|a| matches!(a, ColumnarValue::Scalar(_)));
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let [left, right] = arrays.as_slice() else { return exec_err!("numeric_div takes two arguments") };
        let (left, s1) = decimals(left)?;
        let (right, s2) = decimals(right)?;
        let shift = i32::from(*scale) - i32::from(s1) + i32::from(s2);
        let out = quotients(left.as_primitive(), right.as_primitive(), shift)?;
        let out: ArrayRef = Arc::new(out.with_precision_and_scale(MAX_PRECISION, *scale)?);
        Ok(if scalar {
            ColumnarValue::Scalar(ScalarValue::try_from_array(&out, 0)?)
        } else {
            ColumnarValue::Array(out)
        })
    }
}

fn decimals(array: &ArrayRef) -> Result<(ArrayRef, i8)> {
    match (array.data_type(), digits(array.data_type())) {
        (DataType::Decimal128(_, s), _) => Ok((Arc::clone(array), *s)),
        (_, Some((p, s))) => Ok((arrow::compute::cast(array, &DataType::Decimal128(p, s))?, s)),
        (other, None) => exec_err!("numeric_div of {other}"),
    }
}

fn quotients(left: &Decimal128Array, right: &Decimal128Array, shift: i32) -> Result<Decimal128Array> {
    // Scales are at most 38, so the shift has at most 76 digits, and cannot be negative: the quotient keeps the
    // larger of both scales.
    let Ok(shift) = u32::try_from(shift) else { return exec_err!("numeric_div with a negative shift") };
    let small = 10i128.checked_pow(shift);
    let Some(large) = i256::from_i128(10).checked_pow(shift) else {
        return exec_err!("numeric_div with a large shift");
    };
    Ok(arrow::compute::kernels::arity::try_binary::<_, _, _, Decimal128Type>(left, right, |l, r| {
        if r == 0 {
            return Err(ArrowError::DivideByZero);
        }
        if let Some(l) = small.and_then(|s| l.checked_mul(s)) {
            return fit(rounded(l, r));
        }
        let (l, r) = (i256::from_i128(l).checked_mul(large).ok_or_else(overflow)?, i256::from_i128(r));
        let (quotient, rest) = (l.wrapping_div(r), l.wrapping_rem(r));
        let up = rest.wrapping_abs().wrapping_mul(i256::from_i128(2)) >= r.wrapping_abs();
        let sign = if (l < i256::ZERO) == (r < i256::ZERO) { i256::ONE } else { i256::MINUS_ONE };
        let quotient = if up { quotient.wrapping_add(sign) } else { quotient };
        fit(quotient.to_i128())
    })?)
}

/// The quotient, halves away from zero.
pub(super) fn rounded(l: i128, r: i128) -> Option<i128> {
    let (quotient, rest) = (l.checked_div(r)?, l.checked_rem(r)?);
    let up = rest.unsigned_abs() >= r.unsigned_abs() - rest.unsigned_abs();
    if !up || rest == 0 {
        return Some(quotient);
    }
    quotient.checked_add(if (l < 0) == (r < 0) { 1 } else { -1 })
}

fn fit(value: Option<i128>) -> std::result::Result<i128, ArrowError> {
    value.filter(|v| v.unsigned_abs() < 10u128.pow(u32::from(MAX_PRECISION))).ok_or_else(overflow)
}

fn overflow() -> ArrowError {
    ArrowError::ExternalError(Box::new(
        SqlError::new(SqlState::NUMERIC_OUT_OF_RANGE, "value overflows numeric format")
            .with_detail(format!("A numeric has at most {MAX_PRECISION} digits."))
            .with_hint("Cast one side to a numeric with fewer digits, or to double precision."),
    ))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn scales_of_known_values_are_those_of_postgres() {
        assert_eq!(literal_scale((10, 1), (3, 0)), 20);
        assert_eq!(literal_scale((100, 1), (3, 0)), 16);
        assert_eq!(literal_scale((10_000_000, 1), (3, 0)), 12);
        assert_eq!(literal_scale((1, 3), (3, 0)), 20);
        assert_eq!(literal_scale((123_456_789_123_456_789, 9), (7, 4)), 9);
    }

    #[test]
    fn halves_go_away_from_zero() {
        for (l, r, q) in [(1, 2, 1), (-1, 2, -1), (1, 3, 0), (2, 3, 1), (-2, 3, -1), (7, -2, -4), (6, 3, 2)] {
            assert_eq!(rounded(l, r), Some(q), "{l} / {r}");
        }
    }

    #[test]
    fn large_quotients_are_exact_or_refused() {
        let array = |v: i128| Decimal128Array::from(vec![v]);
        let max = 10i128.pow(38) - 1;
        assert_eq!(quotients(&array(max), &array(10i128.pow(20)), 20).unwrap().value(0), max);
        assert!(quotients(&array(max), &array(1), 1).is_err());
        assert!(quotients(&array(1), &array(0), 1).is_err());
    }
}
