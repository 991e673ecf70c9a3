//! Columns that do not come from the value: hidden ones, and those declared `METADATA FROM '…'`.

use arrow::array::ArrayRef;
use arrow::datatypes::{DataType, Field, TimeUnit};
use tidewater_catalogs::{Error, HiddenColumn, Result};

use crate::ffi::{Message, TimestampType};
use crate::format::{Column, Data, Malformed, no_nul};

/// One record, as far as columns need it. A trait, so that tests need no broker.
pub(crate) trait Record {
    fn offset(&self) -> i64;
    fn key(&self) -> Option<&[u8]>;
    fn value(&self) -> Option<&[u8]>;
    fn timestamp_ms(&self) -> Option<(i64, TimestampType)>;
    fn headers(&self, each: &mut dyn FnMut(&[u8], Option<&[u8]>));
}

impl Record for Message<'_> {
    fn offset(&self) -> i64 {
        Message::offset(self)
    }
    fn key(&self) -> Option<&[u8]> {
        Message::key(self)
    }
    fn value(&self) -> Option<&[u8]> {
        Message::value(self)
    }
    fn timestamp_ms(&self) -> Option<(i64, TimestampType)> {
        Message::timestamp_ms(self)
    }
    fn headers(&self, each: &mut dyn FnMut(&[u8], Option<&[u8]>)) {
        Message::headers(self, each);
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    Hidden(HiddenColumn),
    /// The last header of that name.
    Header(String),
}

impl Origin {
    /// What stands behind `METADATA FROM`.
    pub(crate) fn parse(from: &str) -> Result<Self> {
        if let Some(name) = from.strip_prefix("header.").filter(|n| !n.is_empty()) {
            return Ok(Self::Header(name.to_owned()));
        }
        let plain = from.strip_prefix('_').unwrap_or(from);
        HiddenColumn::ALL.into_iter().find(|c| &c.name()[1..] == plain).map(Self::Hidden).ok_or_else(|| {
            Error::invalid(format!("a record has no metadata \"{from}\"")).with_hint(
                "Use key, value, topic, partition, offset, timestamp, timestamp_type, headers, or header.NAME.",
            )
        })
    }
}

/// One such column, as it fills.
pub(crate) struct MetadataColumn {
    origin: Origin,
    name: String,
    column: Column,
    nullable: bool,
    keep: bool,
}

impl MetadataColumn {
    pub(crate) fn new(origin: Origin, field: &Field, keep: bool) -> Result<Self> {
        use HiddenColumn as H;
        let text = matches!(field.data_type(), DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
        let bytes = matches!(field.data_type(), DataType::Binary | DataType::LargeBinary | DataType::BinaryView);
        let (fits, wanted) = match &origin {
            Origin::Header(_) | Origin::Hidden(H::Key | H::Value) => (text || bytes, "text or bytea"),
            Origin::Hidden(H::Topic | H::TimestampType | H::Headers) => (text, "text"),
            Origin::Hidden(H::Partition) => {
                (matches!(field.data_type(), DataType::Int32 | DataType::Int64), "integer or bigint")
            }
            Origin::Hidden(H::Offset) => (matches!(field.data_type(), DataType::Int64), "bigint"),
            Origin::Hidden(H::Timestamp) => (
                matches!(
                    field.data_type(),
                    DataType::Timestamp(TimeUnit::Microsecond | TimeUnit::Millisecond, _) | DataType::Int64
                ),
                "timestamptz, or bigint for milliseconds",
            ),
        };
        if !fits {
            return Err(Error::invalid(format!(
                "metadata column \"{}\" has to be of type {wanted}, not {}",
                field.name(),
                field.data_type()
            )));
        }
        Ok(Self {
            origin,
            name: field.name().clone(),
            column: Column::new(field)?,
            nullable: field.is_nullable(),
            keep,
        })
    }

    pub(crate) fn keep(&self) -> bool {
        self.keep
    }

    /// Appends the record's value; on `Err` the caller truncates.
    #[inline]
    pub(crate) fn push(&mut self, record: &impl Record, topic: &str, partition: i32) -> Result<(), Malformed> {
        use HiddenColumn as H;
        let filled = match &self.origin {
            Origin::Hidden(H::Topic) => push_bytes(&mut self.column, Some(topic.as_bytes()))?,
            Origin::Hidden(H::Partition) => push_integer(&mut self.column, Some(i64::from(partition)))?,
            Origin::Hidden(H::Offset) => push_integer(&mut self.column, Some(record.offset()))?,
            Origin::Hidden(H::Timestamp) => push_integer(&mut self.column, record.timestamp_ms().map(|(ms, _)| ms))?,
            Origin::Hidden(H::TimestampType) => {
                let kind = record.timestamp_ms().map(|(_, kind)| kind.as_str());
                push_bytes(&mut self.column, kind.map(str::as_bytes))?
            }
            Origin::Hidden(H::Key) => push_bytes(&mut self.column, record.key())?,
            Origin::Hidden(H::Value) => push_bytes(&mut self.column, record.value())?,
            Origin::Hidden(H::Headers) => match &mut self.column.data {
                Data::Text(bytes) | Data::Json(bytes) => {
                    let any = headers_json(record, &mut bytes.data);
                    if any {
                        bytes.end()?;
                        self.column.nulls.append_non_null();
                    }
                    any
                }
                _ => false,
            },
            Origin::Header(name) => {
                let mut found = Ok(false);
                let mut seen = false;
                let column = &mut self.column;
                let len = column.len();
                record.headers(&mut |header, value| {
                    if header == name.as_bytes() {
                        // Of several headers of one name the last counts, as for Kafka's own lastHeader.
                        seen = true;
                        column.truncate(len);
                        found = push_bytes(column, value);
                    }
                });
                seen && found.map_err(|e| e.within(&self.name))?
            }
        };
        if !filled {
            if !self.nullable {
                return Err(Malformed::new("the record has none, and it may not be null").within(&self.name));
            }
            self.column.push_null();
        }
        Ok(())
    }

    pub(crate) fn truncate(&mut self, rows: usize) {
        self.column.truncate(if self.keep { rows } else { 0 });
    }

    pub(crate) fn finish(&mut self) -> Result<ArrayRef> {
        self.column.finish()
    }
}

/// False where there is nothing to append.
#[inline]
fn push_bytes(column: &mut Column, value: Option<&[u8]>) -> Result<bool, Malformed> {
    let Some(value) = value else { return Ok(false) };
    match &mut column.data {
        Data::Text(bytes) | Data::Json(bytes) => {
            if let Err(e) = std::str::from_utf8(value) {
                return Err(Malformed::new(format!("not UTF-8 at byte {}", e.valid_up_to())));
            }
            no_nul(value)?;
            bytes.data.extend_from_slice(value);
            bytes.end()?;
        }
        Data::Binary(bytes) => {
            bytes.data.extend_from_slice(value);
            bytes.end()?;
        }
        _ => return Ok(false),
    }
    column.nulls.append_non_null();
    Ok(true)
}

#[inline]
fn push_integer(column: &mut Column, value: Option<i64>) -> Result<bool, Malformed> {
    let Some(value) = value else { return Ok(false) };
    match &mut column.data {
        Data::Int64(values) => values.push(value),
        Data::Int32(values) => match i32::try_from(value) {
            Ok(value) => values.push(value),
            Err(_) => return Ok(false),
        },
        Data::Timestamp { values, unit, .. } => {
            // A producer may write any number; one that is beyond the type's range is no time.
            let value = if *unit == TimeUnit::Microsecond { value.checked_mul(1_000) } else { Some(value) };
            match value {
                Some(value) => values.push(value),
                None => return Ok(false),
            }
        }
        _ => return Ok(false),
    }
    column.nulls.append_non_null();
    Ok(true)
}

/// Appends the headers as a JSON object, in order; values that are not UTF-8 as `\x` and hexadecimal digits, as
/// PostgreSQL spells bytea. False where the record has no headers.
pub(crate) fn headers_json(record: &impl Record, out: &mut Vec<u8>) -> bool {
    let start = out.len();
    record.headers(&mut |name, value| {
        out.push(if out.len() == start { b'{' } else { b',' });
        quote(&String::from_utf8_lossy(name), out);
        out.push(b':');
        match value.map(std::str::from_utf8) {
            None => out.extend_from_slice(b"null"),
            Some(Ok(text)) => quote(text, out),
            Some(Err(_)) => {
                out.extend_from_slice(b"\"\\\\x");
                for byte in value.unwrap_or_default() {
                    const DIGITS: &[u8; 16] = b"0123456789abcdef";
                    out.push(DIGITS[usize::from(byte >> 4)]);
                    out.push(DIGITS[usize::from(byte & 15)]);
                }
                out.push(b'"');
            }
        }
    });
    if out.len() == start {
        return false;
    }
    out.push(b'}');
    true
}

/// Appends a JSON string.
pub(crate) fn quote(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    let mut rest = text.as_bytes();
    while let Some(at) = rest.iter().position(|b| matches!(b, b'"' | b'\\') || *b < 0x20) {
        out.extend_from_slice(&rest[..at]);
        match rest[at] {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            b => out.extend_from_slice(format!("\\u{b:04x}").as_bytes()),
        }
        rest = &rest[at + 1..];
    }
    out.extend_from_slice(rest);
    out.push(b'"');
}
