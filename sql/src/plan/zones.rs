//! Instants and wall clocks in a time zone, PostgreSQL §8.5.3 and §9.9: what a wall clock shows twice or never is one
//! instant all the same, and days and months are added to the wall clock, hours to the instant.

use std::any::Any;
use std::str::FromStr;
use std::sync::Arc;

use arrow::array::timezone::Tz;
use arrow::array::{Array, ArrayRef, AsArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, IntervalMonthDayNano, IntervalMonthDayNanoType, TimestampMicrosecondType};
use chrono::{DateTime, Days, LocalResult, Months, NaiveDateTime, Offset, TimeDelta, TimeZone};
use datafusion::common::{ScalarValue, exec_err};
use datafusion::error::Result;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use super::types::timestamptz;
use crate::{SqlError, SqlState};

/// The instant at which the clocks of a zone show a `timestamp`.
pub(super) fn instant(wall: Expr, zone: &Arc<str>) -> Expr {
    make(Kind::Instant, zone).call(vec![wall])
}

/// A `timestamptz` and an interval, in the zone of the session.
pub(super) fn later(instant: Expr, interval: Expr, minus: bool, zone: &Arc<str>) -> Expr {
    make(if minus { Kind::Earlier } else { Kind::Later }, zone).call(vec![instant, interval])
}

fn make(kind: Kind, zone: &Arc<str>) -> ScalarUDF {
    let arguments = if kind == Kind::Instant { 1 } else { 2 };
    let signature = Signature::any(arguments, Volatility::Immutable);
    ScalarUDF::from(InZone { kind, zone: Arc::clone(zone), signature })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    Instant,
    Later,
    Earlier,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct InZone {
    kind: Kind,
    zone: Arc<str>,
    signature: Signature,
}

impl ScalarUDFImpl for InZone {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn name(&self) -> &str {
        match self.kind {
            Kind::Instant => "instant_in_zone",
            Kind::Later => "later_in_zone",
            Kind::Earlier => "earlier_in_zone",
        }
    }
    fn signature(&self) -> &Signature {
        &self.signature
    }
    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(timestamptz())
    }
    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let zone = Tz::from_str(&self.zone)?;
        let scalar = args.args.iter().all(|a| matches!(a, ColumnarValue::Scalar(_)));
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let out = match (self.kind, arrays.as_slice()) {
            (Kind::Instant, [walls]) => times(walls)?
                .iter()
                .map(|wall| wall.map(|wall| micros(from_wall(zone, naive(wall)?)?)).transpose())
                .collect::<Result<TimestampMicrosecondArray, SqlError>>()?,
            (kind, [instants, intervals]) => {
                let Some(intervals) = intervals.as_primitive_opt::<IntervalMonthDayNanoType>() else {
                    return exec_err!("{} of {}", self.name(), intervals.data_type());
                };
                let pairs = times(instants)?.iter().zip(intervals);
                pairs
                    .map(|pair| match pair {
                        (Some(instant), Some(interval)) => {
                            moved(zone, instant, interval, kind == Kind::Earlier).map(Some)
                        }
                        _ => Ok(None),
                    })
                    .collect::<Result<TimestampMicrosecondArray, SqlError>>()?
            }
            _ => return exec_err!("wrong number of arguments of {}", self.name()),
        };
        let out: ArrayRef = Arc::new(out.with_timezone("+00:00"));
        Ok(if scalar {
            ColumnarValue::Scalar(ScalarValue::try_from_array(&out, 0)?)
        } else {
            ColumnarValue::Array(out)
        })
    }
}

fn times(array: &ArrayRef) -> Result<&TimestampMicrosecondArray> {
    match array.as_primitive_opt::<TimestampMicrosecondType>() {
        Some(times) => Ok(times),
        None => exec_err!("a time in microseconds is expected, not {}", array.data_type()),
    }
}

fn overflow() -> SqlError {
    SqlError::new(SqlState::DATETIME_OVERFLOW, "timestamp out of range")
}

fn naive(micros: i64) -> Result<NaiveDateTime, SqlError> {
    DateTime::from_timestamp_micros(micros).map(|t| t.naive_utc()).ok_or_else(overflow)
}

/// A range of microseconds that chrono counts to is one that it can count.
fn micros(utc: NaiveDateTime) -> Result<i64, SqlError> {
    Ok(utc.and_utc().timestamp_micros())
}

/// What the clocks show twice is the later instant; what they leave out is read by the clock before it was put forward.
fn from_wall(zone: Tz, wall: NaiveDateTime) -> Result<NaiveDateTime, SqlError> {
    let offset = match zone.offset_from_local_datetime(&wall) {
        LocalResult::Single(offset) => offset,
        LocalResult::Ambiguous(first, second) => {
            // The later instant is that of the clock which is less far ahead.
            if first.fix().local_minus_utc() < second.fix().local_minus_utc() { first } else { second }
        }
        // Clocks were put forward by a day at most.
        LocalResult::None => (1..=26)
            .find_map(|hours| {
                let before = wall.checked_sub_signed(TimeDelta::hours(hours))?;
                zone.offset_from_local_datetime(&before).latest()
            })
            .ok_or_else(overflow)?,
    };
    wall.checked_sub_offset(offset.fix()).ok_or_else(overflow)
}

fn moved(zone: Tz, instant: i64, interval: IntervalMonthDayNano, minus: bool) -> Result<i64, SqlError> {
    let sign = if minus { -1 } else { 1 };
    let mut utc = naive(instant)?;
    let wall = |utc: NaiveDateTime| zone.from_utc_datetime(&utc).naive_local();
    if interval.months != 0 {
        let months = i64::from(interval.months) * sign;
        let by = Months::new(u32::try_from(months.unsigned_abs()).map_err(|_| overflow())?);
        let local = wall(utc);
        let moved = if months < 0 { local.checked_sub_months(by) } else { local.checked_add_months(by) };
        utc = from_wall(zone, moved.ok_or_else(overflow)?)?;
    }
    if interval.days != 0 {
        let days = i64::from(interval.days) * sign;
        let by = Days::new(days.unsigned_abs());
        let local = wall(utc);
        let moved = if days < 0 { local.checked_sub_days(by) } else { local.checked_add_days(by) };
        utc = from_wall(zone, moved.ok_or_else(overflow)?)?;
    }
    let rest = TimeDelta::microseconds(interval.nanoseconds / 1000 * sign);
    micros(utc.checked_add_signed(rest).ok_or_else(overflow)?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn time(text: &str) -> NaiveDateTime {
        NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M").unwrap()
    }

    #[test]
    fn wall_clocks_are_read_as_postgres_reads_them() {
        for (zone, wall, utc) in [
            ("Europe/Berlin", "2024-03-31 01:59", "2024-03-31 00:59"),
            // Left out, and shown twice.
            ("Europe/Berlin", "2024-03-31 02:30", "2024-03-31 01:30"),
            ("Europe/Berlin", "2024-10-27 02:30", "2024-10-27 01:30"),
            ("America/New_York", "2024-03-10 02:30", "2024-03-10 07:30"),
            ("America/New_York", "2024-11-03 01:30", "2024-11-03 06:30"),
            // The day that Samoa left out.
            ("Pacific/Apia", "2011-12-30 12:00", "2011-12-30 22:00"),
            ("+02:00", "2024-03-31 02:30", "2024-03-31 00:30"),
        ] {
            assert_eq!(from_wall(Tz::from_str(zone).unwrap(), time(wall)).unwrap(), time(utc), "{wall} in {zone}");
        }
    }

    #[test]
    fn days_are_those_of_the_wall_clock_and_hours_are_not() {
        let zone = Tz::from_str("Europe/Berlin").unwrap();
        let hour = 3_600_000_000_000;
        let cases = [
            ("2024-03-30 11:00", (0, 1, 0), "2024-03-31 10:00"),
            ("2024-03-30 11:00", (0, 0, 24 * hour), "2024-03-31 11:00"),
            ("2024-02-29 11:00", (1, 2, hour), "2024-03-31 11:00"),
            ("2024-01-31 11:00", (1, 0, 0), "2024-02-29 11:00"),
        ];
        for (from, (months, days, nanos), to) in cases {
            let interval = IntervalMonthDayNano::new(months, days, nanos);
            let from = time(from).and_utc().timestamp_micros();
            let done = moved(zone, from, interval, false).unwrap();
            assert_eq!(naive(done).unwrap(), time(to));
        }
        let interval = IntervalMonthDayNano::new(0, 1, 0);
        let from = time("2024-03-31 10:00").and_utc().timestamp_micros();
        assert_eq!(naive(moved(zone, from, interval, true).unwrap()).unwrap(), time("2024-03-30 11:00"));
        assert!(moved(zone, i64::MAX / 2, IntervalMonthDayNano::new(i32::MAX, 0, 0), false).is_err());
    }
}
