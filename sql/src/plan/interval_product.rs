//! Intervals times a number, as PostgreSQL computes them (§9.9, "Date/Time Operators"): what is left of a month goes to
//! its days, of 30 each, and what is left of a day to its time.

use std::any::Any;
use std::sync::{Arc, LazyLock};

use arrow::array::{Array, AsArray, IntervalMonthDayNanoArray};
use arrow::datatypes::{DataType, Float64Type, IntervalMonthDayNano, IntervalMonthDayNanoType, IntervalUnit};
use datafusion::common::exec_err;
use datafusion::error::Result;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility, cast,
};

use crate::{SqlError, SqlState};

const NAME: &str = "interval_product";
const DAYS_A_MONTH: f64 = 30.0;
const SECONDS_A_DAY: f64 = 86_400.0;

static PRODUCT: LazyLock<Arc<ScalarUDF>> =
    LazyLock::new(|| Arc::new(ScalarUDF::from(Product { signature: Signature::any(3, Volatility::Immutable) })));

/// `interval * factor`.
pub(super) fn times(interval: Expr, factor: Expr) -> Expr {
    call(interval, factor, false)
}

/// `interval / divisor`. 22012 for a divisor of zero.
pub(super) fn divided(interval: Expr, divisor: Expr) -> Expr {
    call(interval, divisor, true)
}

fn call(interval: Expr, number: Expr, divides: bool) -> Expr {
    PRODUCT.call(vec![
        cast(interval, DataType::Interval(IntervalUnit::MonthDayNano)),
        cast(number, DataType::Float64),
        datafusion::logical_expr::lit(divides),
    ])
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Product {
    signature: Signature,
}

impl ScalarUDFImpl for Product {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn name(&self) -> &str {
        NAME
    }
    fn signature(&self) -> &Signature {
        &self.signature
    }
    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Interval(IntervalUnit::MonthDayNano))
    }
    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let [intervals, numbers, divides] = arrays.as_slice() else { return exec_err!("{NAME} takes three arguments") };
        let (Some(intervals), Some(numbers), Some(divides)) = (
            intervals.as_primitive_opt::<IntervalMonthDayNanoType>(),
            numbers.as_primitive_opt::<Float64Type>(),
            divides.as_boolean_opt(),
        ) else {
            return exec_err!("{NAME} of {} and {}", intervals.data_type(), numbers.data_type());
        };
        let divides = !divides.is_empty() && divides.value(0);
        let product = |(interval, number): (Option<IntervalMonthDayNano>, Option<f64>)| {
            let (Some(interval), Some(number)) = (interval, number) else { return Ok(None) };
            if divides && number == 0.0 {
                return Err(SqlError::new(SqlState::DIVISION_BY_ZERO, "division by zero"));
            }
            let scaled = if divides { scaled(interval, |v| v / number) } else { scaled(interval, |v| v * number) };
            scaled.map(Some).ok_or_else(|| SqlError::new(SqlState::DATETIME_OVERFLOW, "interval out of range"))
        };
        let out = intervals.iter().zip(numbers.iter()).map(product);
        let out: IntervalMonthDayNanoArray = out.collect::<std::result::Result<Vec<_>, SqlError>>()?.into();
        Ok(ColumnarValue::Array(Arc::new(out)))
    }
}

/// None where a part does not fit.
fn scaled(interval: IntervalMonthDayNano, by: impl Fn(f64) -> f64) -> Option<IntervalMonthDayNano> {
    // To the microsecond, so that thirds of a month are whole days where they nearly are.
    let micros = |value: f64| (value * 1e6).round_ties_even() / 1e6;
    let (months, days) = (by(interval.months.into()), by(interval.days.into()));
    let over_months = micros((months - months.trunc()) * DAYS_A_MONTH);
    let over_days = micros((days - days.trunc() + over_months - over_months.trunc()) * SECONDS_A_DAY);
    // Fractions of both may make one more day.
    let more = (over_days / SECONDS_A_DAY).trunc();
    let seconds = over_days - more * SECONDS_A_DAY;
    let whole = |value: f64| (value.abs() <= f64::from(i32::MAX)).then_some(value as i32);
    #[allow(clippy::cast_precision_loss, reason = "as PostgreSQL computes")]
    let time = (by((interval.nanoseconds / 1000) as f64) + seconds * 1e6).round_ties_even();
    // Up to 292 years of time, as nanoseconds are kept.
    let time = (time.abs() < 9.2e15).then_some(time as i64)?;
    Some(IntervalMonthDayNano {
        months: whole(months.trunc())?,
        days: whole(days.trunc() + over_months.trunc() + more)?,
        nanoseconds: time * 1000,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of PostgreSQL 15.
    #[test]
    fn what_is_left_goes_to_the_next_unit() {
        let of = |months, days, micros: i64| IntervalMonthDayNano::new(months, days, micros * 1000);
        for (interval, factor, wanted) in [
            (of(0, 1, 0), 2.0, of(0, 2, 0)),
            (of(1, 0, 0), 0.5, of(0, 15, 0)),
            (of(0, 1, 0), 1.5, of(0, 1, 43_200_000_000)),
            (of(13, 4, 0), 0.1, of(1, 9, 34_560_000_000)),
            (of(1, 1, 3_600_000_000), -1.0, of(-1, -1, -3_600_000_000)),
            (of(0, 0, 1), 0.5, of(0, 0, 0)),
            (of(2, 0, 0), 1.0 / 3.0, of(0, 20, 0)),
        ] {
            assert_eq!(scaled(interval, |v| v * factor), Some(wanted), "{interval:?} * {factor}");
        }
        assert_eq!(scaled(of(i32::MAX, 0, 0), |v| v * 2.0), None);
        assert_eq!(scaled(of(1, 0, 0), |v| v * f64::NAN), None);
    }
}
