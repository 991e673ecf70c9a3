//! What casts need: PostgreSQL's rounding of floats, and its text of floats and timestamps.

use std::any::Any;
use std::fmt::Write;
use std::str::FromStr;
use std::sync::{Arc, LazyLock};

use arrow::array::timezone::Tz;
use arrow::array::{Array, ArrayRef, AsArray, Decimal128Array, Float32Array, Float64Array, StringBuilder};
use arrow::datatypes::{
    DataType, DurationMicrosecondType, Float32Type, Float64Type, IntervalMonthDayNanoType, TimeUnit,
    TimestampMicrosecondType,
};
use chrono::{DateTime, Datelike, NaiveDateTime, Offset, TimeZone, Timelike};
use datafusion::common::{exec_datafusion_err, exec_err};
use datafusion::error::Result;
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TypeSignature, Volatility,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    /// float → float: to the nearest integer, halves to the even one.
    Rint,
    /// float → text.
    FloatText,
    /// timestamp → text.
    TimestampText,
    /// interval → text.
    IntervalText,
    /// interval → its length in nanoseconds, with months of 30 days.
    IntervalLength,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct TextFunction {
    kind: Kind,
    signature: Signature,
}

static RINT: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| make(Kind::Rint));
static FLOAT_TEXT: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| make(Kind::FloatText));
static TIMESTAMP_TEXT: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| make(Kind::TimestampText));
static INTERVAL_LENGTH: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| make(Kind::IntervalLength));
static INTERVAL_TEXT: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| make(Kind::IntervalText));

pub(super) fn rint() -> &'static Arc<ScalarUDF> {
    &RINT
}
pub(super) fn float_text() -> &'static Arc<ScalarUDF> {
    &FLOAT_TEXT
}
pub(super) fn timestamp_text() -> &'static Arc<ScalarUDF> {
    &TIMESTAMP_TEXT
}
pub(super) fn interval_text() -> &'static Arc<ScalarUDF> {
    &INTERVAL_TEXT
}
pub(super) fn interval_length() -> &'static Arc<ScalarUDF> {
    &INTERVAL_LENGTH
}

fn make(kind: Kind) -> Arc<ScalarUDF> {
    let signature = match kind {
        Kind::Rint | Kind::FloatText => Signature::one_of(
            vec![TypeSignature::Exact(vec![DataType::Float64]), TypeSignature::Exact(vec![DataType::Float32])],
            Volatility::Immutable,
        ),
        Kind::TimestampText | Kind::IntervalText | Kind::IntervalLength => Signature::any(1, Volatility::Immutable),
    };
    Arc::new(ScalarUDF::from(TextFunction { kind, signature }))
}

impl ScalarUDFImpl for TextFunction {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn name(&self) -> &str {
        match self.kind {
            Kind::Rint => "rint",
            Kind::FloatText => "float_text",
            Kind::TimestampText => "timestamp_text",
            Kind::IntervalText => "interval_text",
            Kind::IntervalLength => "interval_length",
        }
    }
    fn signature(&self) -> &Signature {
        &self.signature
    }
    fn return_type(&self, args: &[DataType]) -> Result<DataType> {
        match self.kind {
            Kind::Rint => Ok(args.first().cloned().unwrap_or(DataType::Float64)),
            Kind::FloatText | Kind::TimestampText | Kind::IntervalText => Ok(DataType::Utf8),
            Kind::IntervalLength => Ok(DataType::Decimal128(30, 0)),
        }
    }
    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let Some(arg) = args.args.into_iter().next() else { return exec_err!("{} takes one argument", self.name()) };
        let scalar = matches!(arg, ColumnarValue::Scalar(_));
        let array = arg.into_array(if scalar { 1 } else { args.number_rows })?;
        let out = match self.kind {
            Kind::Rint => round(&array)?,
            Kind::FloatText => floats(&array)?,
            Kind::TimestampText => timestamps(&array)?,
            Kind::IntervalText => intervals(&array)?,
            Kind::IntervalLength => lengths(&array)?,
        };
        Ok(if scalar {
            ColumnarValue::Scalar(datafusion::common::ScalarValue::try_from_array(&out, 0)?)
        } else {
            ColumnarValue::Array(out)
        })
    }
}

fn round(array: &ArrayRef) -> Result<ArrayRef> {
    Ok(match array.data_type() {
        DataType::Float64 => {
            Arc::new(array.as_primitive::<Float64Type>().unary::<_, Float64Type>(f64::round_ties_even)) as ArrayRef
        }
        DataType::Float32 => {
            Arc::new(array.as_primitive::<Float32Type>().unary::<_, Float32Type>(f32::round_ties_even))
        }
        other => return exec_err!("rint of {other}"),
    })
}

fn floats(array: &ArrayRef) -> Result<ArrayRef> {
    let mut out = StringBuilder::with_capacity(array.len(), array.len() * 8);
    let mut text = String::new();
    for i in 0..array.len() {
        if array.is_null(i) {
            out.append_null();
            continue;
        }
        text.clear();
        // Both kinds print their own shortest digits.
        if let Some(f) = array.as_any().downcast_ref::<Float64Array>() {
            write_float(&mut text, f.value(i), &format!("{:e}", f.value(i)), 15);
        } else if let Some(f) = array.as_any().downcast_ref::<Float32Array>() {
            write_float(&mut text, f64::from(f.value(i)), &format!("{:e}", f.value(i)), 6);
        } else {
            return exec_err!("float_text of {}", array.data_type());
        }
        out.append_value(&text);
    }
    Ok(Arc::new(out.finish()))
}

/// As PostgreSQL's `float8out` lays out the shortest digits: an exponent below -4, and from `wide` digits on.
fn write_float(out: &mut String, value: f64, scientific: &str, wide: i32) {
    if value.is_nan() {
        out.push_str("NaN");
        return;
    }
    if value.is_infinite() {
        out.push_str(if value > 0.0 { "Infinity" } else { "-Infinity" });
        return;
    }
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let (sign, mantissa) = mantissa.strip_prefix('-').map_or(("", mantissa), |m| ("-", m));
    out.push_str(sign);
    if exponent < -4 || exponent >= wide {
        let sign = if exponent < 0 { '-' } else { '+' };
        let _ = write!(out, "{mantissa}e{sign}{:02}", exponent.abs());
        return;
    }
    let digits: String = mantissa.chars().filter(|c| *c != '.').collect();
    if exponent < 0 {
        out.push_str("0.");
        out.extend(std::iter::repeat_n('0', (-exponent - 1) as usize));
        out.push_str(&digits);
        return;
    }
    let point = exponent as usize + 1;
    if digits.len() <= point {
        out.push_str(&digits);
        out.extend(std::iter::repeat_n('0', point - digits.len()));
    } else {
        let _ = write!(out, "{}.{}", &digits[..point], &digits[point..]);
    }
}

fn timestamps(array: &ArrayRef) -> Result<ArrayRef> {
    let DataType::Timestamp(TimeUnit::Microsecond, zone) = array.data_type() else {
        return exec_err!("timestamp_text of {}", array.data_type());
    };
    let zone = match zone {
        Some(zone) => Some(Tz::from_str(zone)?),
        None => None,
    };
    let values = array.as_primitive::<TimestampMicrosecondType>();
    let mut out = StringBuilder::with_capacity(array.len(), array.len() * 32);
    let mut text = String::new();
    for value in values.iter() {
        let Some(micros) = value else {
            out.append_null();
            continue;
        };
        text.clear();
        let utc = DateTime::from_timestamp_micros(micros)
            .ok_or_else(|| exec_datafusion_err!("timestamp overflow: {micros}"))?
            .naive_utc();
        match &zone {
            None => write_time(&mut text, utc),
            Some(zone) => {
                let local = zone.from_utc_datetime(&utc);
                write_time(&mut text, local.naive_local());
                let seconds = local.offset().fix().local_minus_utc();
                let (sign, seconds) = if seconds < 0 { ('-', -seconds) } else { ('+', seconds) };
                let _ = write!(text, "{sign}{:02}", seconds / 3600);
                if seconds % 3600 != 0 {
                    let _ = write!(text, ":{:02}", seconds % 3600 / 60);
                }
                if seconds % 60 != 0 {
                    let _ = write!(text, ":{:02}", seconds % 60);
                }
            }
        }
        if utc.year() < 1 {
            text.push_str(" BC");
        }
        out.append_value(&text);
    }
    Ok(Arc::new(out.finish()))
}

fn lengths(array: &ArrayRef) -> Result<ArrayRef> {
    const DAY: i128 = 86_400_000_000_000;
    let Some(intervals) = array.as_primitive_opt::<IntervalMonthDayNanoType>() else {
        return exec_err!("interval_length of {}", array.data_type());
    };
    let lengths: Decimal128Array = intervals
        .iter()
        .map(|v| Some((i128::from(v?.months) * 30 + i128::from(v?.days)) * DAY + i128::from(v?.nanoseconds)))
        .collect();
    Ok(Arc::new(lengths.with_precision_and_scale(30, 0)?))
}

fn intervals(array: &ArrayRef) -> Result<ArrayRef> {
    const DAY: i64 = 86_400_000_000;
    let mut out = StringBuilder::with_capacity(array.len(), array.len() * 16);
    let mut text = String::new();
    for i in 0..array.len() {
        if array.is_null(i) {
            out.append_null();
            continue;
        }
        text.clear();
        if let Some(a) = array.as_primitive_opt::<IntervalMonthDayNanoType>() {
            let v = a.value(i);
            write_interval(&mut text, v.months, v.days.into(), v.nanoseconds / 1000);
        } else if let Some(a) = array.as_primitive_opt::<DurationMicrosecondType>() {
            write_interval(&mut text, 0, a.value(i) / DAY, a.value(i) % DAY);
        } else {
            return exec_err!("interval_text of {}", array.data_type());
        }
        out.append_value(&text);
    }
    Ok(Arc::new(out.finish()))
}

/// As PostgreSQL prints it: what follows a negative part carries its plus sign.
fn write_interval(out: &mut String, months: i32, days: i64, micros: i64) {
    let mut negative = false;
    for (value, unit) in [(i64::from(months / 12), "year"), (i64::from(months % 12), "mon"), (days, "day")] {
        if value != 0 {
            let (blank, plus) = (if out.is_empty() { "" } else { " " }, if negative && value > 0 { "+" } else { "" });
            let _ = write!(out, "{blank}{plus}{value} {unit}{}", if value == 1 { "" } else { "s" });
            negative = value < 0;
        }
    }
    if micros == 0 && !out.is_empty() {
        return;
    }
    let blank = if out.is_empty() { "" } else { " " };
    let sign = if micros < 0 {
        "-"
    } else if negative {
        "+"
    } else {
        ""
    };
    let seconds = micros.unsigned_abs() / 1_000_000;
    let _ = write!(out, "{blank}{sign}{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
    let fraction = micros.unsigned_abs() % 1_000_000;
    if fraction != 0 {
        let fraction = format!("{fraction:06}");
        let _ = write!(out, ".{}", fraction.trim_end_matches('0'));
    }
}

fn write_time(out: &mut String, time: NaiveDateTime) {
    let year = if time.year() < 1 { 1 - time.year() } else { time.year() };
    let _ = write!(
        out,
        "{year:04}-{:02}-{:02} {:02}:{:02}:{:02}",
        time.month(),
        time.day(),
        time.hour(),
        time.minute(),
        time.second()
    );
    let micros = time.nanosecond() / 1000;
    if micros != 0 {
        let fraction = format!("{micros:06}");
        let _ = write!(out, ".{}", fraction.trim_end_matches('0'));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn floats_print_as_in_postgres() {
        for (value, text) in [
            (0.0, "0"),
            (-0.0, "-0"),
            (1.0, "1"),
            (-2.5, "-2.5"),
            (0.1, "0.1"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (123_456.789, "123456.789"),
            (1e14, "100000000000000"),
            (1e15, "1e+15"),
            (1.5e300, "1.5e+300"),
            (f64::NAN, "NaN"),
            (f64::NEG_INFINITY, "-Infinity"),
        ] {
            let mut out = String::new();
            write_float(&mut out, value, &format!("{value:e}"), 15);
            assert_eq!(out, text);
        }
    }
}
