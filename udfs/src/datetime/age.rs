//! `age(timestamp, timestamp) → interval` (PostgreSQL, "Date/Time Functions").
//!
//! The difference in years, months, days and time, where a month has the days of the month that the earlier time is
//! in. NULL where either is NULL.

use std::sync::Arc;

use arrow::array::{AsArray, IntervalMonthDayNanoArray};
use arrow::datatypes::{DataType, IntervalMonthDayNano, IntervalUnit, TimeUnit, TimestampMicrosecondType};
use chrono::{DateTime, Datelike, NaiveDateTime, Timelike};
use datafusion::common::{Result, exec_datafusion_err, exec_err, plan_err};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};

const LOCAL: DataType = DataType::Timestamp(TimeUnit::Microsecond, None);

pub(super) fn function() -> ScalarUDF {
    ScalarUDF::from(Age { signature: Signature::user_defined(Volatility::Immutable) })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Age {
    signature: Signature,
}

impl ScalarUDFImpl for Age {
    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
    fn name(&self) -> &'static str {
        "age"
    }
    fn signature(&self) -> &Signature {
        &self.signature
    }
    fn coerce_types(&self, args: &[DataType]) -> Result<Vec<DataType>> {
        let time =
            |t: &DataType| matches!(t, DataType::Timestamp(..) | DataType::Date32 | DataType::Null | DataType::Utf8);
        if args.len() != 2 || !args.iter().all(time) {
            return plan_err!("No function matches the given name and argument types 'age'");
        }
        Ok(vec![LOCAL; 2])
    }
    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Interval(IntervalUnit::MonthDayNano))
    }
    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let [later, earlier] = arrays.as_slice() else { return exec_err!("age takes two arguments") };
        let (later, earlier) =
            (later.as_primitive::<TimestampMicrosecondType>(), earlier.as_primitive::<TimestampMicrosecondType>());
        let time = |us: i64| {
            let out = DateTime::from_timestamp_micros(us).map(|t| t.naive_utc());
            out.ok_or_else(|| exec_datafusion_err!("timestamp overflow: {us}"))
        };
        let mut out = Vec::with_capacity(later.len());
        for (later, earlier) in later.iter().zip(earlier) {
            out.push(match (later, earlier) {
                (Some(later), Some(earlier)) => Some(age(time(later)?, time(earlier)?)),
                _ => None,
            });
        }
        crate::result(&args, Arc::new(IntervalMonthDayNanoArray::from(out)))
    }
}

fn age(later: NaiveDateTime, earlier: NaiveDateTime) -> IntervalMonthDayNano {
    let negative = later < earlier;
    let (a, b) = if negative { (earlier, later) } else { (later, earlier) };
    let clock =
        |t: &NaiveDateTime| i64::from(t.num_seconds_from_midnight()) * 1_000_000_000 + i64::from(t.nanosecond());
    let mut nanoseconds = clock(&a) - clock(&b);
    let mut days = a.day() as i32 - b.day() as i32;
    let mut months = (a.year() - b.year()) * 12 + a.month() as i32 - b.month() as i32;
    if nanoseconds < 0 {
        nanoseconds += 86_400_000_000_000;
        days -= 1;
    }
    while days < 0 {
        // Of the earlier time's month, or, counted backwards, of the later one's.
        let (year, month) = (b.year(), b.month());
        days += days_in(year, month);
        months -= 1;
    }
    let sign = if negative { -1 } else { 1 };
    IntervalMonthDayNano { months: sign * months, days: sign * days, nanoseconds: i64::from(sign) * nanoseconds }
}

fn days_in(year: i32, month: u32) -> i32 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        _ => 31,
    }
}
