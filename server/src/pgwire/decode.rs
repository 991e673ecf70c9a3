//! Values of Bind messages → scalars, from text and from binary. A value is taken exactly or refused, never rounded.

use std::sync::Arc;

use arrow::array::timezone::Tz;
use arrow::compute::kernels::cast_utils::string_to_datetime;
use arrow::datatypes::{DataType, IntervalMonthDayNano, IntervalUnit, TimeUnit, i256};
use bytes::{Buf, Bytes};
use chrono::{DateTime, NaiveTime, Timelike};
use datafusion::common::ScalarValue;
use tidewater_sql::SqlError;

use super::encode::{Format, SessionTz};
use super::types::{data_type_of_oid, element_of, error, oid};

const PG_EPOCH_DAYS: i32 = 10_957;
const PG_EPOCH_US: i64 = PG_EPOCH_DAYS as i64 * 86_400_000_000;

/// `oid` is the type that the client was told or has named, `target` what the plan takes.
pub(super) fn parameter(
    oid: u32,
    format: Format,
    value: Option<Bytes>,
    target: &DataType,
    tz: &SessionTz,
) -> Result<ScalarValue, SqlError> {
    let Some(value) = value else {
        return ScalarValue::try_from(target).map_err(|_| no_form(target));
    };
    match format {
        Format::Text => {
            let text = std::str::from_utf8(&value).ok().filter(|t| !t.contains('\0'));
            let text = text.ok_or_else(|| error("22021", "invalid byte sequence for encoding \"UTF8\""))?;
            from_text(text, target, tz)
        }
        Format::Binary => {
            let scalar = from_binary(oid, value, target)?;
            if scalar.data_type() == *target || *target == DataType::Null {
                return Ok(scalar);
            }
            scalar.cast_to(target).map_err(|_| {
                error("22003", format!("the value of a parameter does not fit the type {target} that the query takes"))
            })
        }
    }
}

fn invalid(what: &str, text: &str) -> SqlError {
    let state = if matches!(what, "date" | "time" | "timestamp" | "interval") { "22007" } else { "22P02" };
    error(state, format!("invalid input syntax for type {what}: \"{text}\""))
}

fn no_form(target: &DataType) -> SqlError {
    error("0A000", format!("parameters of type {target} are not supported"))
}

fn out_of_range(text: &str, what: &str) -> SqlError {
    error("22003", format!("value \"{text}\" is out of range for type {what}"))
}

fn integer<T: TryFrom<i128>>(text: &str, what: &str) -> Result<T, SqlError> {
    let value: i128 = text.trim().parse().map_err(|_| invalid(what, text))?;
    T::try_from(value).map_err(|_| out_of_range(text, what))
}

fn from_text(text: &str, target: &DataType, tz: &SessionTz) -> Result<ScalarValue, SqlError> {
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

/// `1 year -2 mons +3 days -04:05:06.789`, as PostgreSQL prints it, with the usual spellings of the units. Other
/// notations are refused; so are fractions of anything but seconds, whose meaning depends on the calendar.
fn interval(text: &str) -> Option<IntervalMonthDayNano> {
    let (mut months, mut days, mut nanoseconds) = (0i32, 0i32, 0i64);
    let mut words = text.split_ascii_whitespace();
    let mut empty = true;
    while let Some(word) = words.next() {
        empty = false;
        if word.contains(':') {
            nanoseconds = nanoseconds.checked_add(clock_nanoseconds(word)?)?;
            continue;
        }
        let unit = words.next()?.to_ascii_lowercase();
        let unit = unit.strip_suffix('s').filter(|u| !u.is_empty()).unwrap_or(&unit);
        if matches!(unit, "second" | "sec" | "s") {
            nanoseconds = nanoseconds.checked_add(seconds_nanoseconds(word)?)?;
            continue;
        }
        let count: i64 = word.parse().ok()?;
        let small = i32::try_from(count).ok();
        match unit {
            "year" | "yr" | "y" => months = months.checked_add(small?.checked_mul(12)?)?,
            "month" | "mon" => months = months.checked_add(small?)?,
            "week" | "w" => days = days.checked_add(small?.checked_mul(7)?)?,
            "day" | "d" => days = days.checked_add(small?)?,
            "hour" | "hr" | "h" => nanoseconds = nanoseconds.checked_add(count.checked_mul(3_600_000_000_000)?)?,
            "minute" | "min" | "m" => nanoseconds = nanoseconds.checked_add(count.checked_mul(60_000_000_000)?)?,
            "millisecond" | "msec" => nanoseconds = nanoseconds.checked_add(count.checked_mul(1_000_000)?)?,
            "microsecond" | "usec" => nanoseconds = nanoseconds.checked_add(count.checked_mul(1000)?)?,
            _ => return None,
        }
    }
    (!empty).then_some(IntervalMonthDayNano { months, days, nanoseconds })
}

/// `[±]HH:MM[:SS[.f]]`; hours may pass 24.
fn clock_nanoseconds(word: &str) -> Option<i64> {
    let clock = word.strip_prefix(['-', '+']).unwrap_or(word);
    let mut parts = clock.splitn(3, ':');
    let whole = |part: Option<&str>| part.filter(|p| p.bytes().all(|b| b.is_ascii_digit()))?.parse::<i64>().ok();
    let (hours, minutes) = (whole(parts.next())?, whole(parts.next())?);
    let seconds = match parts.next() {
        Some(s) if s.starts_with(['-', '+']) => return None,
        Some(s) => seconds_nanoseconds(s)?,
        None => 0,
    };
    if minutes >= 60 || seconds >= 60_000_000_000 {
        return None;
    }
    let total = hours.checked_mul(3600)?.checked_add(minutes * 60)?.checked_mul(1_000_000_000)?.checked_add(seconds)?;
    Some(if word.starts_with('-') { -total } else { total })
}

fn seconds_nanoseconds(word: &str) -> Option<i64> {
    let digits = word.strip_prefix(['-', '+']).unwrap_or(word);
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if fraction.len() > 9 || !whole.bytes().chain(fraction.bytes()).all(|b| b.is_ascii_digit()) {
        return None;
    }
    let nanos: i64 = format!("{fraction:0<9}").parse().ok()?;
    let total = whole.parse::<i64>().ok()?.checked_mul(1_000_000_000)?.checked_add(nanos)?;
    Some(if word.starts_with('-') { -total } else { total })
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

/// Elements of `{1,NULL,"a\"b"}`. Nested arrays and explicit bounds are refused.
fn array_items(text: &str) -> Result<Vec<Option<String>>, SqlError> {
    let malformed = || error("22P02", format!("malformed array literal: \"{text}\""));
    let inner = text.trim().strip_prefix('{').and_then(|t| t.strip_suffix('}')).ok_or_else(malformed)?;
    let mut items = Vec::new();
    if inner.trim().is_empty() {
        return Ok(items);
    }
    let mut chars = inner.chars().peekable();
    loop {
        while chars.next_if(|c| c.is_ascii_whitespace()).is_some() {}
        let mut item = String::new();
        if chars.next_if_eq(&'"').is_some() {
            loop {
                match chars.next().ok_or_else(malformed)? {
                    '"' => break,
                    '\\' => item.push(chars.next().ok_or_else(malformed)?),
                    c => item.push(c),
                }
            }
            while chars.next_if(|c| c.is_ascii_whitespace()).is_some() {}
            items.push(Some(item));
        } else {
            while let Some(c) = chars.next_if(|c| *c != ',') {
                match c {
                    '{' | '}' => {
                        return Err(error("0A000", "array parameters of more than one dimension are not supported"));
                    }
                    '"' => return Err(malformed()),
                    '\\' => item.push(chars.next().ok_or_else(malformed)?),
                    c => item.push(c),
                }
            }
            let item = item.trim_end();
            if item.is_empty() {
                return Err(malformed());
            }
            items.push((!item.eq_ignore_ascii_case("null")).then(|| item.to_owned()));
        }
        match chars.next() {
            None => return Ok(items),
            Some(',') => {}
            Some(_) => return Err(malformed()),
        }
    }
}

fn bad_binary() -> SqlError {
    error("22P03", "incorrect binary data format in bind parameter")
}

fn fixed<const N: usize>(value: &[u8]) -> Result<[u8; N], SqlError> {
    value.try_into().map_err(|_| bad_binary())
}

fn from_binary(oid: u32, value: Bytes, target: &DataType) -> Result<ScalarValue, SqlError> {
    use ScalarValue as V;
    if let Some(element) = element_of(oid) {
        return array_from_binary(element, value, target);
    }
    let moved = |us: i64| us.checked_add(PG_EPOCH_US).ok_or_else(|| error("22008", "timestamp out of range"));
    Ok(match oid {
        oid::BOOL => V::Boolean(Some(fixed::<1>(&value)?[0] != 0)),
        oid::INT2 => V::Int16(Some(i16::from_be_bytes(fixed(&value)?))),
        oid::INT4 => V::Int32(Some(i32::from_be_bytes(fixed(&value)?))),
        oid::INT8 => V::Int64(Some(i64::from_be_bytes(fixed(&value)?))),
        oid::OID | oid::XID => V::Int64(Some(i64::from(u32::from_be_bytes(fixed(&value)?)))),
        oid::FLOAT4 => V::Float32(Some(f32::from_be_bytes(fixed(&value)?))),
        oid::FLOAT8 => V::Float64(Some(f64::from_be_bytes(fixed(&value)?))),
        oid::TEXT | oid::VARCHAR | oid::BPCHAR | oid::NAME | oid::CHAR | oid::JSON | oid::UNKNOWN => text(&value)?,
        oid::JSONB => match value.first() {
            Some(1) => text(&value[1..])?,
            _ => return Err(bad_binary()),
        },
        oid::BYTEA => V::Binary(Some(value.to_vec())),
        oid::UUID => V::FixedSizeBinary(16, Some(fixed::<16>(&value)?.to_vec())),
        oid::DATE => {
            let days = i32::from_be_bytes(fixed(&value)?).checked_add(PG_EPOCH_DAYS);
            V::Date32(Some(days.ok_or_else(|| error("22008", "date out of range"))?))
        }
        oid::TIME => V::Time64Microsecond(Some(i64::from_be_bytes(fixed(&value)?))),
        oid::TIMESTAMP => V::TimestampMicrosecond(Some(moved(i64::from_be_bytes(fixed(&value)?))?), None),
        oid::TIMESTAMPTZ => {
            let us = moved(i64::from_be_bytes(fixed(&value)?))?;
            V::TimestampMicrosecond(Some(us), Some(Arc::from("+00:00")))
        }
        oid::INTERVAL => {
            let mut b = &fixed::<16>(&value)?[..];
            let (us, days, months) = (b.get_i64(), b.get_i32(), b.get_i32());
            let nanoseconds = us.checked_mul(1000).ok_or_else(|| error("22008", "interval out of range"))?;
            V::IntervalMonthDayNano(Some(IntervalMonthDayNano { months, days, nanoseconds }))
        }
        oid::NUMERIC => {
            let numeric = if target.is_numeric() { target.clone() } else { DataType::Decimal128(38, 18) };
            from_text(&numeric_text(value)?, &numeric, &SessionTz::Utc)?
        }
        other => {
            let mut e = error("0A000", format!("binary parameters of the type with oid {other} are not supported"));
            e.hint = Some("Send the parameter as text.".to_owned());
            return Err(e);
        }
    })
}

fn text(value: &[u8]) -> Result<ScalarValue, SqlError> {
    let text = std::str::from_utf8(value).ok().filter(|t| !t.contains('\0'));
    let text = text.ok_or_else(|| error("22021", "invalid byte sequence for encoding \"UTF8\""))?;
    Ok(ScalarValue::Utf8(Some(text.to_owned())))
}

/// `numeric_recv`, as text in scientific form.
fn numeric_text(mut value: Bytes) -> Result<String, SqlError> {
    if value.len() < 8 {
        return Err(bad_binary());
    }
    let (count, weight) = (usize::from(value.get_u16()), i32::from(value.get_i16()));
    let (sign, _dscale) = (value.get_u16(), value.get_u16());
    if value.len() != count * 2 {
        return Err(bad_binary());
    }
    let mut out = String::with_capacity(count * 4 + 8);
    match sign {
        0 => {}
        0x4000 => out.push('-'),
        0xC000 => return Ok("NaN".to_owned()),
        0xD000 => return Ok("Infinity".to_owned()),
        0xF000 => return Ok("-Infinity".to_owned()),
        _ => return Err(bad_binary()),
    }
    for _ in 0..count {
        let group = value.get_u16();
        if group > 9999 {
            return Err(bad_binary());
        }
        out.push_str(&format!("{group:04}"));
    }
    if count == 0 {
        out.push('0');
    }
    out.push_str(&format!("e{}", 4 * (weight + 1 - count as i32)));
    Ok(out)
}

fn array_from_binary(element: u32, mut value: Bytes, target: &DataType) -> Result<ScalarValue, SqlError> {
    let element_type = match target {
        DataType::List(f) => f.data_type().clone(),
        _ => data_type_of_oid(element).ok_or_else(bad_binary)?,
    };
    if value.len() < 12 {
        return Err(bad_binary());
    }
    let (dimensions, _flags, sent) = (value.get_i32(), value.get_i32(), value.get_u32());
    if sent != element {
        return Err(error("42804", "the element type of an array parameter is not the one that was announced"));
    }
    let count = match dimensions {
        0 => 0,
        1 if value.len() >= 8 => {
            let count = value.get_i32();
            value.advance(4);
            usize::try_from(count).map_err(|_| bad_binary())?
        }
        1 => return Err(bad_binary()),
        _ => return Err(error("0A000", "array parameters of more than one dimension are not supported")),
    };
    let mut items = Vec::with_capacity(count.min(value.len() / 4));
    for _ in 0..count {
        if value.len() < 4 {
            return Err(bad_binary());
        }
        let item = match value.get_i32() {
            -1 => None,
            len => match usize::try_from(len) {
                Ok(len) if len <= value.len() => Some(value.split_to(len)),
                _ => return Err(bad_binary()),
            },
        };
        items.push(parameter(element, Format::Binary, item, &element_type, &SessionTz::Utc)?);
    }
    if !value.is_empty() {
        return Err(bad_binary());
    }
    Ok(ScalarValue::List(ScalarValue::new_list(&items, &element_type, true)))
}
