//! Parts of an interval (PostgreSQL §9.9.1, `extract`). The time between two timestamps is whole days and the rest.

use std::any::Any;
use std::sync::{Arc, LazyLock};

use arrow::array::{ArrayRef, AsArray, Float64Array, Int64Array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, DurationMicrosecondType, IntervalMonthDayNanoType, IntervalUnit, TimeUnit};
use datafusion::common::exec_err;
use datafusion::error::Result;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility, lit,
};

use crate::SqlError;

const DAY_MICROS: i64 = 86_400_000_000;

static PART: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| udf("interval_part", DataType::Int64));
static EPOCH: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| udf("interval_epoch", DataType::Float64));

fn udf(name: &'static str, returns: DataType) -> Arc<ScalarUDF> {
    Arc::new(ScalarUDF::from(IntervalPart { name, returns, signature: Signature::any(2, Volatility::Immutable) }))
}

/// `date_part(part, interval)`.
pub(super) fn of(part: &str, interval: Expr) -> Result<Expr> {
    let part = part.trim().to_lowercase();
    if part == "epoch" {
        return Ok(EPOCH.call(vec![lit(part), interval]));
    }
    if value(&part, 0, 0, 0).is_none() {
        return Err(SqlError::unsupported(format!("unit \"{part}\" is not supported for type interval")).into());
    }
    Ok(PART.call(vec![lit(part), interval]))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct IntervalPart {
    name: &'static str,
    returns: DataType,
    signature: Signature,
}

impl ScalarUDFImpl for IntervalPart {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn name(&self) -> &str {
        self.name
    }
    fn signature(&self) -> &Signature {
        &self.signature
    }
    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(self.returns.clone())
    }
    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [ColumnarValue::Scalar(part), interval] = args.args.as_slice() else {
            return exec_err!("{} takes a part and an interval", self.name);
        };
        let part = part.try_as_str().flatten().unwrap_or_default();
        let rows = fields(&interval.to_array(args.number_rows)?)?;
        let out: ArrayRef = if self.returns == DataType::Float64 {
            let epoch = rows.map(|row| row.map(|(months, days, micros)| epoch(months, days, micros)));
            Arc::new(epoch.collect::<Float64Array>())
        } else {
            let parts = rows.map(|row| row.and_then(|(months, days, micros)| value(part, months, days, micros)));
            Arc::new(parts.collect::<Int64Array>())
        };
        Ok(ColumnarValue::Array(out))
    }
}

type Fields = (i64, i64, i64);

/// Months, days and microseconds.
fn fields(array: &ArrayRef) -> Result<Box<dyn Iterator<Item = Option<Fields>>>> {
    if let DataType::Duration(_) = array.data_type() {
        let array = cast(array, &DataType::Duration(TimeUnit::Microsecond))?;
        let micros: Vec<Option<i64>> = array.as_primitive::<DurationMicrosecondType>().iter().collect();
        return Ok(Box::new(micros.into_iter().map(|m| m.map(|m| (0, m / DAY_MICROS, m % DAY_MICROS)))));
    }
    let array = cast(array, &DataType::Interval(IntervalUnit::MonthDayNano))?;
    let all: Vec<_> = array.as_primitive::<IntervalMonthDayNanoType>().iter().collect();
    Ok(Box::new(all.into_iter().map(|i| i.map(|i| (i.months.into(), i.days.into(), i.nanoseconds / 1000)))))
}

/// None where there is no such part.
fn value(part: &str, months: i64, days: i64, micros: i64) -> Option<i64> {
    let (years, months) = (months / 12, months % 12);
    Some(match part.strip_suffix('s').unwrap_or(part) {
        "millennium" | "millennia" => years / 1000,
        "century" | "centurie" => years / 100,
        "decade" => years / 10,
        "year" => years,
        "quarter" => months / 3 + 1,
        "month" => months,
        "day" => days,
        "hour" => micros / 3_600_000_000,
        "minute" => micros / 60_000_000 % 60,
        // With the fraction that belongs to them.
        "microsecond" => micros % 60_000_000,
        _ => return None,
    })
}

#[allow(clippy::cast_precision_loss, reason = "a double is what it returns")]
fn epoch(months: i64, days: i64, micros: i64) -> f64 {
    let days = (months / 12) as f64 * 365.25 + (months % 12 * 30 + days) as f64;
    days * 86_400.0 + micros as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_those_of_postgres() {
        let (months, days, micros) = (14, 40, 26 * 3_600_000_000 + 5 * 60_000_000 + 1_500_000);
        let parts = ["year", "quarter", "months", "day", "hours", "minute", "microseconds"];
        let found = parts.map(|part| value(part, months, days, micros));
        assert_eq!(found, [1, 1, 2, 40, 26, 5, 1_500_000].map(Some));
        assert_eq!(value("dow", 0, 0, 0), None);
        assert_eq!(epoch(12, 0, 0), 31_557_600.0);
    }
}
