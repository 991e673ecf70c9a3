//! One array, ready to be written value by value.

use arrow::array::types::{IntervalDayTime, IntervalMonthDayNano};
use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, BinaryArray, BinaryViewArray, BooleanArray, FixedSizeBinaryArray,
    LargeBinaryArray, LargeStringArray, StringArray, StringViewArray, UnionArray,
};
use arrow::buffer::NullBuffer;
use arrow::datatypes::*;
use bytes::{BufMut, BytesMut};
use tidewater_sql::SqlError;

use super::array::{List, Spans};
use super::datetime::{self, PG_EPOCH_DAYS, SessionTz, Style, US_PER_DAY, US_PER_SECOND};
use super::json;
use super::number::{Digits, put_f32, put_f64, put_i64, put_u64};
use crate::pgwire::types::{PgType, error, oid};

type F16 = <Float16Type as ArrowPrimitiveType>::Native;

pub(super) struct Column<'a> {
    nulls: Option<NullBuffer>,
    oid: u32,
    pub(super) kind: Kind<'a>,
}

pub(super) enum Kind<'a> {
    Null,
    Bool(&'a BooleanArray),
    Int8(&'a [i8]),
    Int16(&'a [i16]),
    Int32(&'a [i32]),
    Int64(&'a [i64]),
    UInt8(&'a [u8]),
    UInt16(&'a [u16]),
    UInt32(&'a [u32]),
    UInt64(&'a [u64]),
    Float16(&'a [F16]),
    Float32(&'a [f32]),
    Float64(&'a [f64]),
    Decimal32(&'a [i32], i8),
    Decimal64(&'a [i64], i8),
    Decimal128(&'a [i128], i8),
    Decimal256(&'a [i256], i8),
    Utf8(&'a StringArray),
    LargeUtf8(&'a LargeStringArray),
    Utf8View(&'a StringViewArray),
    Binary(&'a BinaryArray),
    LargeBinary(&'a LargeBinaryArray),
    BinaryView(&'a BinaryViewArray),
    FixedBinary(&'a FixedSizeBinaryArray),
    Date32(&'a [i32]),
    Date64(&'a [i64]),
    Time32(&'a [i32], TimeUnit),
    Time64(&'a [i64], TimeUnit),
    Timestamp(&'a [i64], TimeUnit, bool),
    Duration(&'a [i64], TimeUnit),
    YearMonth(&'a [i32]),
    DayTime(&'a [IntervalDayTime]),
    MonthDayNano(&'a [IntervalMonthDayNano]),
    List(Box<List<'a>>),
    Struct(Vec<(&'a str, Column<'a>)>),
    Map { entries: Spans<'a>, keys: Box<Column<'a>>, values: Box<Column<'a>> },
    Union(&'a UnionArray, Vec<(i8, Column<'a>)>),
    Dictionary(Vec<usize>, Box<Column<'a>>),
}

fn values<T: ArrowPrimitiveType>(array: &dyn Array) -> &[T::Native] {
    array.as_primitive::<T>().values()
}

impl<'a> Column<'a> {
    /// `oid` is what the client was told; see [`PgType`].
    pub fn new(array: &'a dyn Array, oid: u32) -> Result<Self, SqlError> {
        use Kind as K;
        let kind = match array.data_type() {
            DataType::Null => K::Null,
            DataType::Boolean => K::Bool(array.as_boolean()),
            DataType::Int8 => K::Int8(values::<Int8Type>(array)),
            DataType::Int16 => K::Int16(values::<Int16Type>(array)),
            DataType::Int32 => K::Int32(values::<Int32Type>(array)),
            DataType::Int64 => K::Int64(values::<Int64Type>(array)),
            DataType::UInt8 => K::UInt8(values::<UInt8Type>(array)),
            DataType::UInt16 => K::UInt16(values::<UInt16Type>(array)),
            DataType::UInt32 => K::UInt32(values::<UInt32Type>(array)),
            DataType::UInt64 => K::UInt64(values::<UInt64Type>(array)),
            DataType::Float16 => K::Float16(values::<Float16Type>(array)),
            DataType::Float32 => K::Float32(values::<Float32Type>(array)),
            DataType::Float64 => K::Float64(values::<Float64Type>(array)),
            DataType::Decimal32(_, s) => K::Decimal32(values::<Decimal32Type>(array), *s),
            DataType::Decimal64(_, s) => K::Decimal64(values::<Decimal64Type>(array), *s),
            DataType::Decimal128(_, s) => K::Decimal128(values::<Decimal128Type>(array), *s),
            DataType::Decimal256(_, s) => K::Decimal256(values::<Decimal256Type>(array), *s),
            DataType::Utf8 => K::Utf8(array.as_string()),
            DataType::LargeUtf8 => K::LargeUtf8(array.as_string()),
            DataType::Utf8View => K::Utf8View(array.as_string_view()),
            DataType::Binary => K::Binary(array.as_binary()),
            DataType::LargeBinary => K::LargeBinary(array.as_binary()),
            DataType::BinaryView => K::BinaryView(array.as_binary_view()),
            DataType::FixedSizeBinary(_) => K::FixedBinary(array.as_fixed_size_binary()),
            DataType::Date32 => K::Date32(values::<Date32Type>(array)),
            DataType::Date64 => K::Date64(values::<Date64Type>(array)),
            DataType::Time32(unit @ TimeUnit::Second) => K::Time32(values::<Time32SecondType>(array), *unit),
            DataType::Time32(unit) => K::Time32(values::<Time32MillisecondType>(array), *unit),
            DataType::Time64(unit @ TimeUnit::Microsecond) => K::Time64(values::<Time64MicrosecondType>(array), *unit),
            DataType::Time64(unit) => K::Time64(values::<Time64NanosecondType>(array), *unit),
            DataType::Timestamp(unit, zone) => {
                let values = match unit {
                    TimeUnit::Second => values::<TimestampSecondType>(array),
                    TimeUnit::Millisecond => values::<TimestampMillisecondType>(array),
                    TimeUnit::Microsecond => values::<TimestampMicrosecondType>(array),
                    TimeUnit::Nanosecond => values::<TimestampNanosecondType>(array),
                };
                K::Timestamp(values, *unit, zone.is_some())
            }
            DataType::Duration(unit) => {
                let values = match unit {
                    TimeUnit::Second => values::<DurationSecondType>(array),
                    TimeUnit::Millisecond => values::<DurationMillisecondType>(array),
                    TimeUnit::Microsecond => values::<DurationMicrosecondType>(array),
                    TimeUnit::Nanosecond => values::<DurationNanosecondType>(array),
                };
                K::Duration(values, *unit)
            }
            DataType::Interval(IntervalUnit::YearMonth) => K::YearMonth(values::<IntervalYearMonthType>(array)),
            DataType::Interval(IntervalUnit::DayTime) => K::DayTime(values::<IntervalDayTimeType>(array)),
            DataType::Interval(IntervalUnit::MonthDayNano) => {
                K::MonthDayNano(values::<IntervalMonthDayNanoType>(array))
            }
            DataType::List(f) => {
                let list = array.as_list::<i32>();
                K::List(Box::new(List::new(Spans::Small(list.value_offsets()), list.values(), f, oid)?))
            }
            DataType::LargeList(f) => {
                let list = array.as_list::<i64>();
                K::List(Box::new(List::new(Spans::Large(list.value_offsets()), list.values(), f, oid)?))
            }
            DataType::FixedSizeList(f, size) => {
                let list = array.as_fixed_size_list();
                K::List(Box::new(List::new(Spans::Fixed(*size as usize), list.values(), f, oid)?))
            }
            DataType::Struct(fields) => {
                let columns = array.as_struct().columns();
                let named = fields.iter().zip(columns).map(|(f, c)| Ok((f.name().as_str(), Column::of_field(c, f)?)));
                K::Struct(named.collect::<Result<_, SqlError>>()?)
            }
            DataType::Map(entry, _) => {
                let map = array.as_map();
                let DataType::Struct(fields) = entry.data_type() else { return Err(no_form(array.data_type())) };
                let [key, value] = fields.as_ref() else { return Err(no_form(array.data_type())) };
                K::Map {
                    entries: Spans::Small(map.value_offsets()),
                    keys: Box::new(Column::of_field(map.keys(), key)?),
                    values: Box::new(Column::of_field(map.values(), value)?),
                }
            }
            DataType::Union(fields, _) => {
                let union = array.as_union();
                let children = fields.iter().map(|(id, f)| Ok((id, Column::of_field(union.child(id), f)?)));
                K::Union(union, children.collect::<Result<_, SqlError>>()?)
            }
            DataType::Dictionary(_, _) => {
                let dictionary = array.as_any_dictionary();
                if dictionary.values().is_empty() {
                    K::Null
                } else {
                    let values = Column::new(dictionary.values().as_ref(), oid)?;
                    K::Dictionary(dictionary.normalized_keys(), Box::new(values))
                }
            }
            other @ (DataType::ListView(_) | DataType::LargeListView(_) | DataType::RunEndEncoded(_, _)) => {
                return Err(no_form(other));
            }
        };
        // The logical nulls of a union are those of the child that each row selects; they are asked for below.
        Ok(Self { nulls: array.nulls().cloned(), oid, kind })
    }

    pub fn oid(&self) -> u32 {
        self.oid
    }

    pub fn of_field(array: &'a ArrayRef, field: &Field) -> Result<Self, SqlError> {
        Self::new(array.as_ref(), PgType::of_field(field)?.oid)
    }

    pub fn is_null(&self, row: usize) -> bool {
        if self.nulls.as_ref().is_some_and(|n| n.is_null(row)) {
            return true;
        }
        match &self.kind {
            Kind::Null => true,
            Kind::Dictionary(keys, values) => values.is_null(keys[row]),
            Kind::Union(union, children) => child(union, children, row).is_none_or(|(column, row)| column.is_null(row)),
            _ => false,
        }
    }

    /// A value that is not null, as text.
    pub fn put_text(&self, out: &mut BytesMut, row: usize, tz: &SessionTz) -> Result<(), SqlError> {
        use Kind as K;
        match &self.kind {
            K::Null => {}
            K::Bool(a) => out.put_u8(if a.value(row) { b't' } else { b'f' }),
            K::Int8(v) => put_i64(out, i64::from(v[row])),
            K::Int16(v) => put_i64(out, i64::from(v[row])),
            K::Int32(v) => put_i64(out, i64::from(v[row])),
            K::Int64(v) => put_i64(out, v[row]),
            K::UInt8(v) => put_u64(out, u64::from(v[row])),
            K::UInt16(v) => put_u64(out, u64::from(v[row])),
            K::UInt32(v) => put_u64(out, u64::from(v[row])),
            K::UInt64(v) => put_u64(out, v[row]),
            K::Float16(v) => put_f32(out, v[row].to_f32()),
            K::Float32(v) => put_f32(out, v[row]),
            K::Float64(v) => put_f64(out, v[row]),
            K::Decimal32(..) | K::Decimal64(..) | K::Decimal128(..) | K::Decimal256(..) => {
                let (digits, scale) = self.decimal(row)?;
                digits.put_text(out, scale);
            }
            K::Utf8(_) | K::LargeUtf8(_) | K::Utf8View(_) => out.put_slice(checked_text(self.str(row))?.as_bytes()),
            K::Binary(_) | K::LargeBinary(_) | K::BinaryView(_) | K::FixedBinary(_) => {
                let bytes = self.bytes(row);
                if self.oid == oid::UUID { put_uuid(out, bytes) } else { put_hex(out, bytes) }
            }
            K::Date32(_) | K::Date64(_) => datetime::put_date(out, self.days(row)),
            K::Time32(..) | K::Time64(..) => datetime::put_time(out, self.time_us(row)?.unsigned_abs()),
            K::Timestamp(v, unit, zoned) => {
                let us = timestamp_us(v[row], *unit)?;
                if *zoned {
                    datetime::put_timestamptz(out, us, tz, Style::Sql);
                } else {
                    datetime::put_timestamp(out, us, Style::Sql);
                }
            }
            K::Duration(..) | K::YearMonth(_) | K::DayTime(_) | K::MonthDayNano(_) => {
                let (months, days, us) = self.interval(row)?;
                datetime::put_interval(out, months, days, us);
            }
            K::List(list) if matches!(self.oid, oid::INT2VECTOR | oid::OIDVECTOR) => list.put_vector(out, row)?,
            K::List(list) => list.put_text(out, row, tz)?,
            K::Struct(_) | K::Map { .. } | K::Union(..) => json::put(out, self, row, tz)?,
            K::Dictionary(keys, values) => values.put_text(out, keys[row], tz)?,
        }
        Ok(())
    }

    /// A value that is not null, in PostgreSQL's binary form of the announced type.
    pub fn put_binary(&self, out: &mut BytesMut, row: usize, tz: &SessionTz) -> Result<(), SqlError> {
        use Kind as K;
        match &self.kind {
            K::Null => {}
            K::Bool(a) => out.put_u8(u8::from(a.value(row))),
            K::Int8(v) => self.put_int(out, i64::from(v[row]))?,
            K::Int16(v) => self.put_int(out, i64::from(v[row]))?,
            K::Int32(v) => self.put_int(out, i64::from(v[row]))?,
            K::Int64(v) => self.put_int(out, v[row])?,
            K::UInt8(v) => self.put_int(out, i64::from(v[row]))?,
            K::UInt16(v) => self.put_int(out, i64::from(v[row]))?,
            K::UInt32(v) => self.put_int(out, i64::from(v[row]))?,
            K::UInt64(v) if self.oid == oid::NUMERIC => Digits::of_u64(v[row]).put_binary(out, 0),
            K::UInt64(v) => self.put_int(out, i64::try_from(v[row]).map_err(|_| out_of_range("integer"))?)?,
            K::Float16(v) => out.put_f32(v[row].to_f32()),
            K::Float32(v) => out.put_f32(v[row]),
            K::Float64(v) => out.put_f64(v[row]),
            K::Decimal32(..) | K::Decimal64(..) | K::Decimal128(..) | K::Decimal256(..) => {
                let (digits, scale) = self.decimal(row)?;
                digits.put_binary(out, scale);
            }
            K::Utf8(_) | K::LargeUtf8(_) | K::Utf8View(_) => {
                if self.oid == oid::JSONB {
                    out.put_u8(1);
                }
                out.put_slice(checked_text(self.str(row))?.as_bytes());
            }
            K::Binary(_) | K::LargeBinary(_) | K::BinaryView(_) | K::FixedBinary(_) => out.put_slice(self.bytes(row)),
            K::Date32(_) | K::Date64(_) => {
                let days = i32::try_from(self.days(row) - PG_EPOCH_DAYS).map_err(|_| out_of_range("date"))?;
                out.put_i32(days);
            }
            K::Time32(..) | K::Time64(..) => out.put_i64(self.time_us(row)?),
            K::Timestamp(v, unit, _) => {
                let us = timestamp_us(v[row], *unit)?;
                out.put_i64(us.checked_sub(PG_EPOCH_DAYS * US_PER_DAY).ok_or_else(|| out_of_range("timestamp"))?);
            }
            K::Duration(..) | K::YearMonth(_) | K::DayTime(_) | K::MonthDayNano(_) => {
                let (months, days, us) = self.interval(row)?;
                out.put_i64(us);
                out.put_i32(days);
                out.put_i32(months);
            }
            K::List(list) => list.put_binary(out, row, tz)?,
            K::Struct(_) | K::Map { .. } | K::Union(..) => {
                out.put_u8(1);
                json::put(out, self, row, tz)?;
            }
            K::Dictionary(keys, values) => values.put_binary(out, keys[row], tz)?,
        }
        Ok(())
    }

    /// As wide as the announced type, which is wider or narrower than the array's own.
    fn put_int(&self, out: &mut BytesMut, value: i64) -> Result<(), SqlError> {
        match self.oid {
            oid::INT2 => out.put_i16(i16::try_from(value).map_err(|_| out_of_range("smallint"))?),
            oid::INT4 => out.put_i32(i32::try_from(value).map_err(|_| out_of_range("integer"))?),
            oid::OID | oid::XID | oid::REGPROC | oid::REGCLASS | oid::REGTYPE | oid::REGNAMESPACE => {
                out.put_u32(u32::try_from(value).map_err(|_| out_of_range("oid"))?);
            }
            _ => out.put_i64(value),
        }
        Ok(())
    }

    pub(super) fn int(&self, row: usize) -> Option<i64> {
        use Kind as K;
        Some(match &self.kind {
            K::Int8(v) => i64::from(v[row]),
            K::Int16(v) => i64::from(v[row]),
            K::Int32(v) => i64::from(v[row]),
            K::Int64(v) => v[row],
            K::UInt8(v) => i64::from(v[row]),
            K::UInt16(v) => i64::from(v[row]),
            K::UInt32(v) => i64::from(v[row]),
            _ => return None,
        })
    }

    pub(super) fn str(&self, row: usize) -> &str {
        match &self.kind {
            Kind::Utf8(a) => a.value(row),
            Kind::LargeUtf8(a) => a.value(row),
            Kind::Utf8View(a) => a.value(row),
            _ => "",
        }
    }

    fn bytes(&self, row: usize) -> &[u8] {
        match &self.kind {
            Kind::Binary(a) => a.value(row),
            Kind::LargeBinary(a) => a.value(row),
            Kind::BinaryView(a) => a.value(row),
            Kind::FixedBinary(a) => a.value(row),
            _ => b"",
        }
    }

    fn decimal(&self, row: usize) -> Result<(Digits, i8), SqlError> {
        Ok(match &self.kind {
            Kind::Decimal32(v, s) => (Digits::of_i64(i64::from(v[row])), *s),
            Kind::Decimal64(v, s) => (Digits::of_i64(v[row]), *s),
            Kind::Decimal128(v, s) => (Digits::of_i128(v[row]), *s),
            Kind::Decimal256(v, s) => (Digits::of_i256(v[row]).ok_or_else(|| out_of_range("numeric"))?, *s),
            _ => (Digits::of_u64(0), 0),
        })
    }

    fn days(&self, row: usize) -> i64 {
        match &self.kind {
            Kind::Date32(v) => i64::from(v[row]),
            Kind::Date64(v) => v[row].div_euclid(86_400_000),
            _ => 0,
        }
    }

    /// Between 0 and 24:00:00, both included; 22008 for what no clock shows.
    fn time_us(&self, row: usize) -> Result<i64, SqlError> {
        let us = match &self.kind {
            Kind::Time32(v, TimeUnit::Second) => i64::from(v[row]) * US_PER_SECOND,
            Kind::Time32(v, _) => i64::from(v[row]) * 1000,
            Kind::Time64(v, TimeUnit::Nanosecond) => v[row].div_euclid(1000),
            Kind::Time64(v, _) => v[row],
            _ => 0,
        };
        if (0..=US_PER_DAY).contains(&us) { Ok(us) } else { Err(out_of_range("time")) }
    }

    /// Months, days and microseconds; nanoseconds are cut off.
    fn interval(&self, row: usize) -> Result<(i32, i32, i64), SqlError> {
        Ok(match &self.kind {
            Kind::Duration(v, unit) => {
                let us = match unit {
                    TimeUnit::Second => v[row].checked_mul(US_PER_SECOND),
                    TimeUnit::Millisecond => v[row].checked_mul(1000),
                    TimeUnit::Microsecond => Some(v[row]),
                    TimeUnit::Nanosecond => Some(v[row] / 1000),
                };
                let us = us.ok_or_else(|| out_of_range("interval"))?;
                // The difference of two timestamps has days, as PostgreSQL's has.
                let days = i32::try_from(us / US_PER_DAY).map_err(|_| out_of_range("interval"))?;
                (0, days, us % US_PER_DAY)
            }
            Kind::YearMonth(v) => (v[row], 0, 0),
            Kind::DayTime(v) => (0, v[row].days, i64::from(v[row].milliseconds) * 1000),
            Kind::MonthDayNano(v) => (v[row].months, v[row].days, v[row].nanoseconds / 1000),
            _ => (0, 0, 0),
        })
    }

    /// Timestamps inside JSON; false where the value is none.
    pub(super) fn put_json_timestamp(&self, out: &mut BytesMut, row: usize, tz: &SessionTz) -> Result<bool, SqlError> {
        let Kind::Timestamp(v, unit, zoned) = &self.kind else { return Ok(false) };
        let us = timestamp_us(v[row], *unit)?;
        if *zoned {
            datetime::put_timestamptz(out, us, tz, Style::Json);
        } else {
            datetime::put_timestamp(out, us, Style::Json);
        }
        Ok(true)
    }

    /// The child of a union that a row selects, with its place there.
    pub(super) fn selected(&self, row: usize) -> Option<(&Column<'a>, usize)> {
        match &self.kind {
            Kind::Union(union, children) => child(union, children, row),
            Kind::Dictionary(keys, values) => Some((values, keys[row])),
            _ => None,
        }
    }
}

fn child<'c, 'a>(union: &UnionArray, children: &'c [(i8, Column<'a>)], row: usize) -> Option<(&'c Column<'a>, usize)> {
    let id = union.type_id(row);
    children.iter().find(|(i, _)| *i == id).map(|(_, column)| (column, union.value_offset(row)))
}

/// Nanoseconds are cut off, towards the past, as everywhere in the product.
fn timestamp_us(value: i64, unit: TimeUnit) -> Result<i64, SqlError> {
    match unit {
        TimeUnit::Second => value.checked_mul(US_PER_SECOND),
        TimeUnit::Millisecond => value.checked_mul(1000),
        TimeUnit::Microsecond => Some(value),
        TimeUnit::Nanosecond => Some(value.div_euclid(1000)),
    }
    .ok_or_else(|| out_of_range("timestamp"))
}

/// A zero byte would end the text early in most clients: a wrong value instead of an error.
fn checked_text(text: &str) -> Result<&str, SqlError> {
    if text.as_bytes().contains(&0) {
        return Err(error("22021", "invalid byte sequence for encoding \"UTF8\": 0x00"));
    }
    Ok(text)
}

const HEX: &[u8; 16] = b"0123456789abcdef";

fn put_hex(out: &mut BytesMut, bytes: &[u8]) {
    out.reserve(2 + bytes.len() * 2);
    out.put_slice(b"\\x");
    for b in bytes {
        out.put_slice(&[HEX[usize::from(b >> 4)], HEX[usize::from(b & 15)]]);
    }
}

fn put_uuid(out: &mut BytesMut, bytes: &[u8]) {
    for (i, b) in bytes.iter().enumerate() {
        if matches!(i, 4 | 6 | 8 | 10) {
            out.put_u8(b'-');
        }
        out.put_slice(&[HEX[usize::from(b >> 4)], HEX[usize::from(b & 15)]]);
    }
}

fn out_of_range(what: &str) -> SqlError {
    let state = if matches!(what, "date" | "time" | "timestamp" | "interval") { "22008" } else { "22003" };
    error(state, format!("{what} out of range"))
}

pub(super) fn no_form(data_type: &DataType) -> SqlError {
    error("0A000", format!("a column of type {data_type} cannot be sent to the client"))
}
