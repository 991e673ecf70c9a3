//! `to_timestamp(text, text) → timestamptz`, `to_date(text, text) → date` and `to_timestamp(double precision)`
//! (PostgreSQL, "Data Type Formatting Functions").
//!
//! Texts that do not fit the pattern are an error; NULL where an argument is NULL.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Date32Array, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Float64Type, TimeUnit};
use chrono::{NaiveDate, NaiveDateTime};
use datafusion::common::{Result, exec_datafusion_err, exec_err, not_impl_err, plan_err};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};

use super::pattern::{self, MONTHS, Piece};

const EPOCH: i32 = 719_163;

pub(super) fn to_timestamp() -> ScalarUDF {
    ScalarUDF::from(Parse { name: "to_timestamp", signature: Signature::user_defined(Volatility::Immutable) })
}

pub(super) fn to_date() -> ScalarUDF {
    ScalarUDF::from(Parse { name: "to_date", signature: Signature::user_defined(Volatility::Immutable) })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Parse {
    name: &'static str,
    signature: Signature,
}

impl ScalarUDFImpl for Parse {
    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
    fn name(&self) -> &str {
        self.name
    }
    fn signature(&self) -> &Signature {
        &self.signature
    }
    fn coerce_types(&self, args: &[DataType]) -> Result<Vec<DataType>> {
        let text =
            |t: &DataType| matches!(t, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Null);
        match args {
            [a, b] if text(a) && text(b) => Ok(vec![DataType::Utf8; 2]),
            [a] if self.name == "to_timestamp" && (a.is_numeric() || a.is_null()) => Ok(vec![DataType::Float64]),
            _ => plan_err!("No function matches the given name and argument types '{}'", self.name),
        }
    }
    fn return_type(&self, args: &[DataType]) -> Result<DataType> {
        Ok(match (self.name, args.len()) {
            ("to_date", _) => DataType::Date32,
            (_, 1) => DataType::Timestamp(TimeUnit::Microsecond, Some(Arc::from("+00:00"))),
            // A wall clock: the cast to the zone of the session is put around it.
            _ => DataType::Timestamp(TimeUnit::Microsecond, None),
        })
    }
    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let out: ArrayRef = match arrays.as_slice() {
            [seconds] => {
                let micros = seconds.as_primitive::<Float64Type>().iter().map(|s| s.map(epoch).transpose());
                let micros = micros.collect::<Result<TimestampMicrosecondArray>>()?;
                Arc::new(micros.with_timezone("+00:00"))
            }
            [texts, patterns] => {
                let both = texts.as_string::<i32>().iter().zip(patterns.as_string::<i32>());
                let times = both.map(|(text, pattern)| text.zip(pattern).map(|(t, p)| read(t, p)).transpose());
                if self.name == "to_date" {
                    let days = times.map(|t| Ok(t?.map(|t| chrono::Datelike::num_days_from_ce(&t.date()) - EPOCH)));
                    Arc::new(days.collect::<Result<Date32Array>>()?)
                } else {
                    let micros = times.map(|t| Ok(t?.map(|t| t.and_utc().timestamp_micros())));
                    Arc::new(micros.collect::<Result<TimestampMicrosecondArray>>()?)
                }
            }
            _ => return exec_err!("{} takes one or two arguments", self.name),
        };
        crate::result(&args, out)
    }
}

fn epoch(seconds: f64) -> Result<i64> {
    let micros = (seconds * 1e6).round_ties_even();
    // Beyond these the conversion would saturate.
    if micros.is_nan() || micros.abs() >= 9.2e18 {
        return exec_err!("timestamp overflow: {seconds}");
    }
    Ok(micros as i64)
}

#[derive(Default)]
struct Found {
    year: Option<i32>,
    month: Option<u32>,
    day: Option<u32>,
    of_year: Option<u32>,
    hour: u32,
    twelve: bool,
    pm: Option<bool>,
    minute: u32,
    second: u32,
    micros: u32,
}

fn read(text: &str, pattern: &str) -> Result<NaiveDateTime> {
    let wrong = || exec_datafusion_err!("invalid value \"{text}\" for pattern \"{pattern}\"");
    let (mut rest, mut left) = (text.trim_start(), pattern);
    let mut found = Found::default();
    while !left.is_empty() && !rest.is_empty() {
        if left.get(..2).is_some_and(|h| h.eq_ignore_ascii_case("FM")) {
            left = &left[2..];
            continue;
        }
        let (piece, tail) = pattern::next(left)?;
        left = tail;
        match piece {
            Piece::Text(skipped) => {
                // A separator of the pattern stands for any one in the text.
                for c in skipped.chars() {
                    let same =
                        rest.chars().next().filter(|r| *r == c || (!c.is_alphanumeric() && !r.is_alphanumeric()));
                    match same {
                        Some(r) => rest = &rest[r.len_utf8()..],
                        None if c.is_alphanumeric() => return Err(wrong()),
                        None => {}
                    }
                }
            }
            Piece::Pattern(pattern, _) => {
                rest = rest.trim_start();
                // A number ends at its width where another pattern follows directly. Elsewhere more digits would be
                // left out.
                rest = take(&mut found, pattern, rest).ok_or_else(wrong)??;
                let more = rest.starts_with(|c: char| c.is_ascii_digit());
                if more && (left.is_empty() || matches!(pattern::next(left)?.0, Piece::Text(_))) {
                    return Err(wrong());
                }
            }
        }
    }
    // 1 BC, as in PostgreSQL.
    let year = found.year.unwrap_or(0);
    let date = match (found.of_year, found.month) {
        (Some(day), None) => NaiveDate::from_yo_opt(year, day),
        _ => NaiveDate::from_ymd_opt(year, found.month.unwrap_or(1), found.day.unwrap_or(1)),
    };
    let hour = match (found.twelve, found.pm) {
        (true, _) | (_, Some(_)) if !(1..=12).contains(&found.hour) => return Err(wrong()),
        (_, Some(pm)) => found.hour % 12 + if pm { 12 } else { 0 },
        (true, None) => found.hour % 12,
        (false, None) => found.hour,
    };
    let time = date.and_then(|d| d.and_hms_micro_opt(hour, found.minute, found.second, found.micros));
    time.ok_or_else(|| exec_datafusion_err!("date/time field value out of range: \"{text}\""))
}

/// What is left of `text` behind the value of the pattern. None where the value is not there.
fn take<'a>(found: &mut Found, pattern: &str, text: &'a str) -> Option<Result<&'a str>> {
    let number = |width: usize| {
        let end = text.bytes().take(width).take_while(u8::is_ascii_digit).count();
        Some((text.get(..end)?.parse::<u32>().ok()?, end, &text[end..]))
    };
    let fraction = |width: usize| {
        let (value, digits, rest) = number(width)?;
        Some((value * 10u32.pow(6 - digits as u32), rest))
    };
    Some(Ok(match pattern {
        "YYYY" => {
            let end = text.bytes().take_while(u8::is_ascii_digit).count().min(4);
            found.year = Some(text.get(..end)?.parse().ok()?);
            &text[end..]
        }
        "YY" => {
            let (value, _, rest) = number(2)?;
            found.year = Some(value as i32 + if value < 70 { 2000 } else { 1900 });
            rest
        }
        "MM" => {
            let (value, _, rest) = number(2)?;
            found.month = Some(value);
            rest
        }
        "MONTH" | "MON" => {
            let matches = |name: &str| text.get(..name.len()).is_some_and(|t| t.eq_ignore_ascii_case(name));
            let found_at = MONTHS.iter().position(|m| matches(if pattern == "MON" { &m[..3] } else { m }))?;
            found.month = Some(found_at as u32 + 1);
            &text[if pattern == "MON" { 3 } else { MONTHS[found_at].len() }..]
        }
        "DD" => {
            let (value, _, rest) = number(2)?;
            found.day = Some(value);
            rest
        }
        "DDD" => {
            let (value, _, rest) = number(3)?;
            found.of_year = Some(value);
            rest
        }
        "HH24" | "HH12" | "HH" => {
            let (value, _, rest) = number(2)?;
            (found.hour, found.twelve) = (value, pattern != "HH24");
            rest
        }
        "MI" => {
            let (value, _, rest) = number(2)?;
            found.minute = value;
            rest
        }
        "SS" => {
            let (value, _, rest) = number(2)?;
            found.second = value;
            rest
        }
        "MS" => {
            let (value, rest) = fraction(3)?;
            found.micros = value;
            rest
        }
        "US" => {
            let (value, rest) = fraction(6)?;
            found.micros = value;
            rest
        }
        "AM" | "PM" => {
            let head = text.get(..2)?;
            found.pm = Some(match head.to_ascii_lowercase().as_str() {
                "am" => false,
                "pm" => true,
                _ => return None,
            });
            &text[2..]
        }
        other => return Some(not_impl_err!("pattern \"{other}\" is not supported for reading times")),
    }))
}
