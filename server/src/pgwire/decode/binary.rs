//! Values in binary, as PostgreSQL's receive functions read them.

use std::sync::Arc;

use arrow::datatypes::{DataType, IntervalMonthDayNano};
use bytes::{Buf, Bytes};
use datafusion::common::ScalarValue;
use tidewater_sql::SqlError;

use super::parameter;
use super::text::from_text;
use crate::pgwire::encode::{Format, SessionTz};
use crate::pgwire::types::{data_type_of_oid, element_of, error, oid};

const PG_EPOCH_DAYS: i32 = 10_957;
const PG_EPOCH_US: i64 = PG_EPOCH_DAYS as i64 * 86_400_000_000;

fn bad_binary() -> SqlError {
    error("22P03", "incorrect binary data format in bind parameter")
}

fn fixed<const N: usize>(value: &[u8]) -> Result<[u8; N], SqlError> {
    value.try_into().map_err(|_| bad_binary())
}

pub(super) fn from_binary(oid: u32, value: Bytes, target: &DataType) -> Result<ScalarValue, SqlError> {
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
