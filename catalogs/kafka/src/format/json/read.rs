//! Members of an object into columns.

use arrow::array::ArrayRef;
use arrow::datatypes::{Field, TimeUnit};
use base64::Engine;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use base64::{alphabet, engine::DecodePaddingMode};
use tidewater_catalogs::Result;

use super::super::column::{Column, Data};
use super::super::{Malformed, excerpt, number, time};
use super::{Scan, Str};

const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Members that have a column, in declared order.
pub(crate) struct Members {
    members: Vec<Member>,
    /// Members by the length of their name, the last slot for all long ones.
    by_len: Vec<Vec<u16>>,
    scratch: Vec<u8>,
}

struct Member {
    name: String,
    column: Column,
    nullable: bool,
    /// False where the column is only checked: it is emptied after each row.
    keep: bool,
}

const LONG: usize = 48;

impl Members {
    pub(crate) fn new<'a>(fields: impl Iterator<Item = &'a Field>, keep: Option<&[bool]>) -> Result<Self> {
        let mut members = Vec::new();
        let mut by_len = vec![Vec::new(); LONG + 1];
        for (i, field) in fields.enumerate() {
            let slot: &mut Vec<u16> = &mut by_len[field.name().len().min(LONG)];
            slot.push(u16::try_from(i).map_err(|_| tidewater_catalogs::Error::unsupported("too many columns"))?);
            members.push(Member {
                name: field.name().clone(),
                column: Column::new(field)?,
                nullable: field.is_nullable(),
                keep: keep.is_none_or(|k| k.get(i).copied().unwrap_or(false)),
            });
        }
        Ok(Self { members, by_len, scratch: Vec::new() })
    }

    /// Producers write members in the same order again and again, so the one behind the last is tried first.
    #[inline]
    fn find(&self, name: &str, guess: usize) -> Option<usize> {
        if self.members.get(guess).is_some_and(|member| member.name == name) {
            return Some(guess);
        }
        let slot = &self.by_len[name.len().min(LONG)];
        slot.iter().map(|i| usize::from(*i)).find(|i| self.members[*i].name == name)
    }

    /// Reads the object whose opening brace is behind `scan`, as row number `rows`.
    #[inline]
    pub(crate) fn read(&mut self, scan: &mut Scan<'_>, rows: usize, depth: u32) -> Result<(), Malformed> {
        scan.space();
        if !scan.eat(b'}') {
            let mut guess = 0;
            loop {
                let name = scan.member_name()?;
                let found = match name {
                    Str::Plain(name) => self.find(name, guess),
                    Str::Escaped(_) => {
                        let mut scratch = std::mem::take(&mut self.scratch);
                        let found = self.find(name.text(&mut scratch)?, guess);
                        self.scratch = scratch;
                        found
                    }
                };
                match found {
                    Some(i) => {
                        guess = i + 1;
                        let member = &mut self.members[i];
                        let base = if member.keep { rows } else { 0 };
                        if member.column.len() != base {
                            member.column.truncate(base);
                        }
                        member
                            .column
                            .read(scan, member.nullable, depth, &mut self.scratch)
                            .map_err(|e| e.within(&member.name))?;
                    }
                    None => scan.skip(depth)?,
                }
                if !scan.more(b'}')? {
                    break;
                }
            }
        }
        for member in &mut self.members {
            if member.column.len() == if member.keep { rows } else { 0 } {
                if !member.nullable {
                    return Err(Malformed::new("missing, and may not be null").within(&member.name));
                }
                member.column.push_null();
            }
        }
        Ok(())
    }

    pub(crate) fn push_nulls(&mut self) {
        self.members.iter_mut().for_each(|m| m.column.push_null());
    }

    pub(crate) fn truncate(&mut self, rows: usize) {
        self.members.iter_mut().for_each(|m| m.column.truncate(if m.keep { rows } else { 0 }));
    }

    #[inline]
    pub(crate) fn drop_unkept(&mut self) {
        self.members.iter_mut().filter(|m| !m.keep).for_each(|m| m.column.truncate(0));
    }

    pub(crate) fn finish(&mut self) -> Result<Vec<ArrayRef>> {
        self.members.iter_mut().filter(|m| m.keep).map(|m| m.column.finish()).collect()
    }
}

/// A scalar as JSON spells it.
enum Scalar<'a> {
    Number(&'a str),
    String(Str<'a>),
    Bool(bool),
}

impl Column {
    /// Appends the value that is next, or leaves a begun row behind, which the caller cuts off.
    pub(crate) fn read(
        &mut self,
        scan: &mut Scan<'_>,
        nullable: bool,
        depth: u32,
        scratch: &mut Vec<u8>,
    ) -> Result<(), Malformed> {
        if scan.eat_null()? {
            if !nullable {
                return Err(Malformed::new("is null, and may not be"));
            }
            self.push_null();
            return Ok(());
        }
        match &mut self.data {
            Data::Text(bytes) => {
                if scan.peek() == Some(b'"') {
                    scan.string()?.append_to(&mut bytes.data)?;
                } else {
                    let start = scan.pos();
                    scan.skip(depth)?;
                    bytes.data.extend_from_slice(scan.since(start).as_bytes());
                }
                bytes.end()?;
            }
            Data::Json(bytes) => {
                let start = scan.pos();
                scan.skip(depth)?;
                bytes.data.extend_from_slice(scan.since(start).as_bytes());
                bytes.end()?;
            }
            Data::Struct(members) => {
                let depth = scan.deeper(depth)?;
                if !scan.eat(b'{') {
                    return Err(unexpected(scan, depth, "an object"));
                }
                let rows = self.nulls.len();
                members.read(scan, rows, depth)?;
            }
            Data::List { ends, item, item_nullable } => {
                let depth = scan.deeper(depth)?;
                if !scan.eat(b'[') {
                    return Err(unexpected(scan, depth, "an array"));
                }
                scan.space();
                if !scan.eat(b']') {
                    loop {
                        scan.space();
                        item.read(scan, *item_nullable, depth, scratch)?;
                        if !scan.more(b']')? {
                            break;
                        }
                    }
                }
                let end = i32::try_from(item.len()).map_err(|_| Malformed::new("too many elements"))?;
                ends.push(end);
            }
            data => {
                let start = scan.pos();
                let scalar = match scan.peek() {
                    Some(b'"') => Scalar::String(scan.string()?),
                    Some(b'-' | b'0'..=b'9') => Scalar::Number(scan.number()?),
                    Some(b't') => {
                        scan.word(b"true")?;
                        Scalar::Bool(true)
                    }
                    Some(b'f') => {
                        scan.word(b"false")?;
                        Scalar::Bool(false)
                    }
                    _ => {
                        let wanted = type_name(data);
                        return Err(unexpected(scan, depth, wanted));
                    }
                };
                if !push_scalar(data, scalar, scratch)? {
                    return Err(mismatch(data, scan.since(start)));
                }
            }
        }
        self.nulls.append_non_null();
        Ok(())
    }
}

/// False where the scalar does not spell a value of the type, or one that is out of its range.
#[inline]
fn push_scalar(data: &mut Data, scalar: Scalar<'_>, scratch: &mut Vec<u8>) -> Result<bool, Malformed> {
    if let (Data::Bool(values), Scalar::Bool(value)) = (&mut *data, &scalar) {
        values.append(*value);
        return Ok(true);
    }
    let (text, quoted) = match scalar {
        Scalar::Number(text) => (text, false),
        Scalar::String(string) => (string.text(scratch)?, true),
        Scalar::Bool(_) => return Ok(false),
    };
    fn put<T>(values: &mut Vec<T>, value: Option<T>) -> bool {
        match value {
            Some(value) => {
                values.push(value);
                true
            }
            None => false,
        }
    }
    Ok(match data {
        Data::Bool(values) => match (quoted, text) {
            (true, "true" | "false") => {
                values.append(text == "true");
                true
            }
            _ => false,
        },
        Data::Int8(v) => put(v, number::integer(text).and_then(|n| n.try_into().ok())),
        Data::Int16(v) => put(v, number::integer(text).and_then(|n| n.try_into().ok())),
        Data::Int32(v) => put(v, number::integer(text).and_then(|n| n.try_into().ok())),
        Data::Int64(v) => put(v, number::integer(text)),
        Data::Float32(v) => put(v, number::float(text).or_else(|| named(text, quoted).map(|n| n as f32))),
        Data::Float64(v) => put(v, number::double(text).or_else(|| named(text, quoted))),
        Data::Decimal { values, precision, scale } => {
            let limit = 10i128.checked_pow(u32::from(*precision)).unwrap_or(i128::MAX);
            put(values, number::scaled(text, i64::from(*scale), true).filter(|n| n.abs() < limit))
        }
        // Of a number nobody can tell whether it counts seconds, milliseconds or microseconds.
        Data::Date(_) | Data::Time(_) | Data::Timestamp { .. } | Data::Binary(_) if !quoted => false,
        Data::Date(v) => put(v, time::date(text)),
        Data::Time(v) => put(v, time::time_of_day(text)),
        Data::Timestamp { values, unit, zoned } => {
            let us = time::timestamp(text).map(|t| if *zoned { t.utc_us() } else { t.local_us });
            put(
                values,
                us.and_then(|us| match unit {
                    TimeUnit::Second => (us % 1_000_000 == 0).then_some(us / 1_000_000),
                    TimeUnit::Millisecond => (us % 1_000 == 0).then_some(us / 1_000),
                    TimeUnit::Microsecond => Some(us),
                    TimeUnit::Nanosecond => us.checked_mul(1_000),
                }),
            )
        }
        Data::Binary(bytes) => {
            let decoded = match text.strip_prefix("\\x") {
                Some(digits) => unhex(digits, &mut bytes.data),
                None => BASE64.decode_vec(text, &mut bytes.data).is_ok(),
            };
            if decoded {
                bytes.end()?;
            }
            decoded
        }
        Data::Text(_) | Data::Json(_) | Data::Struct(_) | Data::List { .. } => false,
    })
}

/// The doubles that JSON has no number for, as PostgreSQL and protobuf's JSON spell them.
fn named(text: &str, quoted: bool) -> Option<f64> {
    match text {
        _ if !quoted => None,
        "NaN" => Some(f64::NAN),
        "Infinity" => Some(f64::INFINITY),
        "-Infinity" => Some(f64::NEG_INFINITY),
        _ => None,
    }
}

fn unhex(digits: &str, out: &mut Vec<u8>) -> bool {
    let nibble = |b: u8| char::from(b).to_digit(16);
    if !digits.len().is_multiple_of(2) {
        return false;
    }
    for pair in digits.as_bytes().chunks_exact(2) {
        match (nibble(pair[0]), nibble(pair[1])) {
            (Some(high), Some(low)) => out.push((high * 16 + low) as u8),
            _ => return false,
        }
    }
    true
}

fn type_name(data: &Data) -> &'static str {
    match data {
        Data::Bool(_) => "a boolean",
        Data::Int8(_) => "an integer of 8 bits",
        Data::Int16(_) => "a smallint",
        Data::Int32(_) => "an integer",
        Data::Int64(_) => "a bigint",
        Data::Float32(_) => "a real",
        Data::Float64(_) => "a double precision number",
        Data::Decimal { .. } => "a numeric",
        Data::Date(_) => "a date (YYYY-MM-DD)",
        Data::Time(_) => "a time (hh:mm:ss)",
        Data::Timestamp { .. } => "a timestamp (RFC 3339 text)",
        Data::Binary(_) => "bytes (base64, or \\x and hexadecimal digits)",
        Data::Text(_) => "text",
        Data::Json(_) => "JSON",
        Data::Struct(_) => "an object",
        Data::List { .. } => "an array",
    }
}

#[cold]
fn mismatch(data: &Data, found: &str) -> Malformed {
    let wanted = type_name(data);
    match data {
        Data::Decimal { precision, scale, .. } => {
            Malformed::new(format!("expected {wanted}({precision},{scale}), found {}", excerpt(found)))
        }
        _ => Malformed::new(format!("expected {wanted}, found {}", excerpt(found))),
    }
}

#[cold]
fn unexpected(scan: &mut Scan<'_>, depth: u32, wanted: &str) -> Malformed {
    let start = scan.pos();
    match scan.skip(depth) {
        Ok(()) => Malformed::new(format!("expected {wanted}, found {}", excerpt(scan.since(start)))),
        Err(e) => e,
    }
}
