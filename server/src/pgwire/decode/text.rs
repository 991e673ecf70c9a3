//! Values in text, as PostgreSQL's input functions read them.

use arrow::array::timezone::Tz;
use arrow::compute::kernels::cast_utils::string_to_datetime;
use arrow::datatypes::{DataType, IntervalUnit, TimeUnit, i256};
use chrono::{DateTime, NaiveTime, Timelike};
use datafusion::common::ScalarValue;
use tidewater_sql::{SqlError, array_items, interval};

use super::{invalid, no_form};
use crate::pgwire::encode::{Format, SessionTz};
use crate::pgwire::types::error;

fn out_of_range(text: &str, what: &str) -> SqlError {
    error("22003", format!("value \"{text}\" is out of range for type {what}"))
}

fn integer<T: TryFrom<i128>>(text: &str, what: &str) -> Result<T, SqlError> {
    let value: i128 = text.trim().parse().map_err(|_| invalid(what, text))?;
    T::try_from(value).map_err(|_| out_of_range(text, what))
}

pub(super) fn from_text(text: &str, target: &DataType, tz: &SessionTz) -> Result<ScalarValue, SqlError> {
    use ScalarValue as V;
    Ok(match target {
        DataType::Utf8 | DataType::Null => V::Utf8(Some(text.to_owned())),
        DataType::LargeUtf8 => V::LargeUtf8(Some(text.to_owned())),
        DataType::Utf8View => V::Utf8View(Some(text.to_owned())),
        DataType::Boolean => V::Boolean(Some(boolean(text)?)),
        DataType::Int8 => V::Int8(Some(integer(text, "smallint")?)),
        DataType::Int16 => V::Int16(Some(integer(text, "smallint")?)),
        DataType::Int32 => V::Int32(Some(integer(text, "integer")?)),
        DataType::Int64 => V::Int64(Some(integer(text, "bigint")?)),
        DataType::UInt8 => V::UInt8(Some(integer(text, "smallint")?)),
        DataType::UInt16 => V::UInt16(Some(integer(text, "integer")?)),
        DataType::UInt32 => V::UInt32(Some(integer(text, "bigint")?)),
        DataType::UInt64 => V::UInt64(Some(integer(text, "numeric")?)),
        DataType::Float32 => V::Float32(Some(text.trim().parse().map_err(|_| invalid("real", text))?)),
        DataType::Float64 => V::Float64(Some(text.trim().parse().map_err(|_| invalid("double precision", text))?)),
        DataType::Decimal32(p, s) => V::Decimal32(Some(decimal(text, *p, *s, i256::to_i128)? as i32), *p, *s),
        DataType::Decimal64(p, s) => V::Decimal64(Some(decimal(text, *p, *s, i256::to_i128)? as i64), *p, *s),
        DataType::Decimal128(p, s) => V::Decimal128(Some(decimal(text, *p, *s, i256::to_i128)?), *p, *s),
        DataType::Decimal256(p, s) => V::Decimal256(Some(decimal(text, *p, *s, Some)?), *p, *s),
        DataType::Binary => V::Binary(Some(bytea(text)?)),
        DataType::LargeBinary => V::LargeBinary(Some(bytea(text)?)),
        DataType::BinaryView => V::BinaryView(Some(bytea(text)?)),
        DataType::FixedSizeBinary(16) => V::FixedSizeBinary(16, Some(uuid(text)?)),
        DataType::Date32 => {
            let at = string_to_datetime(&chrono::Utc, text.trim()).map_err(|_| invalid("date", text))?;
            V::Date32(Some(at.timestamp().div_euclid(86_400) as i32))
        }
        DataType::Time64(TimeUnit::Microsecond) => V::Time64Microsecond(Some(time(text)?)),
        DataType::Timestamp(_, zone) => {
            let us = match (zone, tz.zone()) {
                (None, _) => instant::<Tz>(without_offset(text.trim()), None),
                (Some(_), zone) => instant(text.trim(), zone),
            };
            let us = us.ok_or_else(|| invalid("timestamp", text))?;
            let scalar = V::TimestampMicrosecond(Some(us), zone.clone());
            scalar.cast_to(target).map_err(|_| error("22008", format!("timestamp out of range: \"{text}\"")))?
        }
        DataType::Interval(IntervalUnit::MonthDayNano) => {
            V::IntervalMonthDayNano(Some(interval(text).ok_or_else(|| invalid("interval", text))?))
        }
        DataType::List(element) => {
            let items = array_items(text)?;
            let items = items.into_iter().map(|item| match item {
                None => ScalarValue::try_from(element.data_type()).map_err(|_| no_form(element.data_type())),
                Some(text) => from_text(&text, element.data_type(), tz),
            });
            let items = items.collect::<Result<Vec<_>, SqlError>>()?;
            V::List(V::new_list(&items, element.data_type(), true))
        }
        DataType::Dictionary(key, value) => V::Dictionary(key.clone(), Box::new(from_text(text, value, tz)?)),
        other => return Err(no_form(other)),
    })
}

fn boolean(text: &str) -> Result<bool, SqlError> {
    let t = text.trim().to_ascii_lowercase();
    let prefix_of = |word: &str, least: usize| t.len() >= least && word.starts_with(&t);
    if t == "1" || prefix_of("true", 1) || prefix_of("yes", 1) || t == "on" {
        Ok(true)
    } else if t == "0" || prefix_of("false", 1) || prefix_of("no", 1) || prefix_of("off", 2) {
        Ok(false)
    } else {
        Err(invalid("boolean", text))
    }
}

/// Exact: digits that the type has no room for are refused.
fn decimal<T>(text: &str, precision: u8, scale: i8, narrow: impl Fn(i256) -> Option<T>) -> Result<T, SqlError> {
    let t = text.trim();
    let (negative, digits) = match t.as_bytes() {
        [b'-', ..] => (true, &t[1..]),
        [b'+', ..] => (false, &t[1..]),
        _ => (false, t),
    };
    let (mantissa, exponent) = match digits.split_once(['e', 'E']) {
        Some((m, e)) => (m, e.parse::<i32>().map_err(|_| invalid("numeric", text))?),
        None => (digits, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let all_digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    if (whole.is_empty() && fraction.is_empty()) || !all_digits(whole) || !all_digits(fraction) {
        return Err(invalid("numeric", text));
    }
    let too_long = || {
        let mut e = error("22003", format!("value \"{text}\" does not fit numeric({precision},{scale}) exactly"));
        e.hint = Some("Cast the parameter in the query to a numeric type that holds it.".to_owned());
        e
    };
    let all = || whole.bytes().chain(fraction.bytes()).map(|b| i32::from(b - b'0'));
    let significant = all().rev().skip_while(|d| *d == 0).count();
    let dropped = (whole.len() + fraction.len() - significant) as i64;
    // mantissa × 10^(exponent − |fraction|) without its trailing zeros, in units of 10^−scale
    let shift = i64::from(exponent) - fraction.len() as i64 + dropped + i64::from(scale);
    let mut value = i256::ZERO;
    let ten = i256::from_i128(10);
    if significant > 0 {
        if !(0..=76).contains(&shift) {
            return Err(too_long());
        }
        for digit in all().take(significant) {
            value = value
                .checked_mul(ten)
                .and_then(|v| v.checked_add(i256::from_i128(i128::from(digit))))
                .ok_or_else(too_long)?;
        }
        for _ in 0..shift {
            value = value.checked_mul(ten).ok_or_else(too_long)?;
        }
    }
    let limit = ten.checked_pow(u32::from(precision));
    if limit.is_some_and(|limit| value >= limit) {
        return Err(too_long());
    }
    narrow(if negative { value.wrapping_neg() } else { value }).ok_or_else(too_long)
}

fn bytea(text: &str) -> Result<Vec<u8>, SqlError> {
    if let Some(hex) = text.strip_prefix("\\x") {
        return hex_bytes(hex.bytes()).ok_or_else(|| invalid("bytea", text));
    }
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(b) = bytes.next() {
        if b != b'\\' {
            out.push(b);
            continue;
        }
        match bytes.next() {
            Some(b'\\') => out.push(b'\\'),
            Some(a @ b'0'..=b'3') => match (bytes.next(), bytes.next()) {
                (Some(b @ b'0'..=b'7'), Some(c @ b'0'..=b'7')) => {
                    out.push((a - b'0') * 64 + (b - b'0') * 8 + (c - b'0'));
                }
                _ => return Err(invalid("bytea", text)),
            },
            _ => return Err(invalid("bytea", text)),
        }
    }
    Ok(out)
}

fn hex_bytes(mut digits: impl Iterator<Item = u8>) -> Option<Vec<u8>> {
    let value = |b: u8| (b as char).to_digit(16);
    let mut out = Vec::new();
    while let Some(high) = digits.next() {
        out.push((value(high)? * 16 + value(digits.next()?)?) as u8);
    }
    Some(out)
}

fn uuid(text: &str) -> Result<Vec<u8>, SqlError> {
    let digits = text.bytes().filter(|b| !matches!(b, b'-' | b'{' | b'}'));
    hex_bytes(digits).filter(|bytes| bytes.len() == 16).ok_or_else(|| invalid("uuid", text))
}

fn time(text: &str) -> Result<i64, SqlError> {
    let parsed = ["%H:%M:%S%.f", "%H:%M"].iter().find_map(|f| NaiveTime::parse_from_str(text.trim(), f).ok());
    let t = parsed.ok_or_else(|| invalid("time", text))?;
    Ok(i64::from(t.num_seconds_from_midnight()) * 1_000_000 + i64::from(t.nanosecond()) / 1000)
}

/// Microseconds since 1970; texts without an offset are read in `zone`, or UTC.
fn instant<Z: chrono::TimeZone>(text: &str, zone: Option<&Z>) -> Option<i64> {
    match zone {
        Some(zone) => string_to_datetime(zone, text).ok().map(|at: DateTime<Z>| at.timestamp_micros()),
        None => string_to_datetime(&chrono::Utc, text).ok().map(|at| at.timestamp_micros()),
    }
}

/// `timestamp` takes the wall clock as it stands and ignores an offset, as PostgreSQL does.
fn without_offset(text: &str) -> &str {
    let Some(clock) = text.get(10..) else { return text };
    match clock.find(['+', '-', 'Z', 'z']) {
        Some(at) => text[..10 + at].trim_end(),
        None => text,
    }
}

/// A uuid, which is text to queries, in the form in which PostgreSQL prints it.
pub(super) fn uuid_text(value: &[u8], format: Format) -> Result<ScalarValue, SqlError> {
    let bytes = match format {
        Format::Binary => value.to_vec(),
        Format::Text => uuid(std::str::from_utf8(value).map_err(|_| error("22021", "invalid byte sequence"))?)?,
    };
    if bytes.len() != 16 {
        return Err(error("22P03", "incorrect binary data format in bind parameter"));
    }
    let mut out = String::with_capacity(36);
    for (i, byte) in bytes.iter().enumerate() {
        if matches!(i, 4 | 6 | 8 | 10) {
            out.push('-');
        }
        out.push_str(&format!("{byte:02x}"));
    }
    Ok(ScalarValue::Utf8(Some(out)))
}
