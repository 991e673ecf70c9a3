//! From the bytes of record values to Arrow columns, one file per format.
//!
//! A decoder takes one record at a time and appends exactly one row or, on a record that it cannot read, nothing at
//! all: columns are plain vectors, and a half-read row is cut off again. So one bad record costs its neighbours
//! nothing, and no chunk is ever read twice.
//!
//! **Malformed does not depend on the projection.** A record is malformed where its value is not what the format
//! says (for JSON: exactly one object in valid UTF-8), or where the value of *any declared column* does not fit the
//! column's type or leaves a NOT NULL column empty, asked for or not. Otherwise `count(*)` and `SELECT *` would see
//! different rows, and a flow's dead letters would change with its select list. A declared column that is not asked
//! for is therefore still checked, but not kept; members that no column names are checked as JSON and skipped.

mod column;
mod json;
mod number;
mod text;
mod time;

pub(crate) use column::{Bytes, Column, Data, is_json, json_field};
pub(crate) use json::{Scan, Str};
pub(crate) use time::{is_timestamp, to_rfc3339};

use std::borrow::Cow;
use std::fmt;

use arrow::array::ArrayRef;
use arrow::datatypes::Field;
use tidewater_catalogs::{Error, Result, StreamFormat};

use json::JsonDecoder;
use text::WholeDecoder;

/// Why a record cannot be read: a short lower-case sentence, as it appears in the dead-letter table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Malformed(pub(crate) Cow<'static, str>);

impl Malformed {
    pub(crate) fn new(message: impl Into<Cow<'static, str>>) -> Self {
        Self(message.into())
    }
    /// Names the column or member on the way out of it.
    #[cold]
    pub(crate) fn within(self, name: &str) -> Self {
        Self(Cow::Owned(format!("column \"{name}\": {}", self.0)))
    }
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The value columns of one stream, as they fill.
pub(crate) enum ValueDecoder {
    Json(JsonDecoder),
    Whole(WholeDecoder),
}

impl ValueDecoder {
    /// `keep[i]` says whether column `i` is wanted. `Unsupported` where a column has a type that the format lacks.
    pub(crate) fn new(format: StreamFormat, fields: &[Field], keep: &[bool]) -> Result<Self> {
        match format {
            StreamFormat::Json => Ok(Self::Json(JsonDecoder::new(fields, keep)?)),
            StreamFormat::Raw | StreamFormat::Text => {
                let [field] = fields else {
                    return Err(Error::invalid(format!(
                        "a stream of this format has exactly one column of the value, not {}",
                        fields.len()
                    ))
                    .with_hint("Declare one column, or use format 'json'."));
                };
                Ok(Self::Whole(WholeDecoder::new(format, field, keep.first().copied().unwrap_or(false))?))
            }
        }
    }

    /// Appends one row; on `Err` no column has changed.
    #[inline]
    pub(crate) fn push(&mut self, value: Option<&[u8]>) -> std::result::Result<(), Malformed> {
        match self {
            Self::Json(d) => d.push(value),
            Self::Whole(d) => d.push(value),
        }
    }

    /// Takes back the last row.
    pub(crate) fn pop(&mut self) {
        match self {
            Self::Json(d) => d.pop(),
            Self::Whole(d) => d.pop(),
        }
    }

    /// The columns that are kept, in order; the decoder is empty again.
    pub(crate) fn finish(&mut self) -> Result<Vec<ArrayRef>> {
        match self {
            Self::Json(d) => d.finish(),
            Self::Whole(d) => d.finish(),
        }
    }
}

/// Text with a NUL is malformed: PostgreSQL has no such text, and its clients end a value there.
#[inline]
pub(crate) fn no_nul(text: &[u8]) -> std::result::Result<(), Malformed> {
    match text.contains(&0) {
        false => Ok(()),
        true => {
            Err(Malformed::new(r"text holds a NUL character (\u0000), which PostgreSQL's text cannot; a bytea can"))
        }
    }
}

/// Up to 48 characters of a value, for messages.
pub(crate) fn excerpt(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(48) {
        None => Cow::Borrowed(text),
        Some((end, _)) => Cow::Owned(format!("{}…", &text[..end])),
    }
}

#[cfg(test)]
mod tests;
