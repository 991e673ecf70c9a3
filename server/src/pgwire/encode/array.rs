//! Lists as PostgreSQL arrays, one dimension per level of lists.

use arrow::array::ArrayRef;
use arrow::datatypes::Field;
use bytes::{BufMut, BytesMut};
use tidewater_sql::SqlError;

use super::column::{Column, Kind};
use super::datetime::SessionTz;
use super::number::put_i64;
use crate::pgwire::types::{element_of, error, oid};

/// Where the values of a row lie in the child array.
pub(super) enum Spans<'a> {
    Small(&'a [i32]),
    Large(&'a [i64]),
    Fixed(usize),
}

impl Spans<'_> {
    pub fn of(&self, row: usize) -> std::ops::Range<usize> {
        match self {
            Self::Small(o) => o[row] as usize..o[row + 1] as usize,
            Self::Large(o) => o[row] as usize..o[row + 1] as usize,
            Self::Fixed(n) => row * n..(row + 1) * n,
        }
    }
}

pub(super) struct List<'a> {
    spans: Spans<'a>,
    values: Column<'a>,
    /// Type of the innermost elements.
    element: u32,
    /// Index of the first element: 1, and 0 in int2vector and oidvector.
    lower_bound: i32,
}

/// As many as PostgreSQL has.
const MAX_DIMENSIONS: usize = 6;

impl<'a> List<'a> {
    /// `oid` is the array type that the client was told.
    pub fn new(spans: Spans<'a>, values: &'a ArrayRef, field: &Field, oid: u32) -> Result<Self, SqlError> {
        use arrow::datatypes::DataType as D;
        let element = match oid {
            oid::INT2VECTOR => oid::INT2,
            oid::OIDVECTOR => oid::OID,
            other => element_of(other).ok_or_else(|| super::column::no_form(field.data_type()))?,
        };
        let nested = matches!(field.data_type(), D::List(_) | D::LargeList(_) | D::FixedSizeList(_, _));
        let values = Column::new(values.as_ref(), if nested { oid } else { element })?;
        let lower_bound = i32::from(!matches!(oid, oid::INT2VECTOR | oid::OIDVECTOR));
        Ok(Self { spans, values, element, lower_bound })
    }

    pub fn items(&self, row: usize) -> (std::ops::Range<usize>, &Column<'a>) {
        (self.spans.of(row), &self.values)
    }

    /// `{1,NULL,"a,b"}`. Inner lists of unequal length are written as they are.
    pub fn put_text(&self, out: &mut BytesMut, row: usize, tz: &SessionTz) -> Result<(), SqlError> {
        out.put_u8(b'{');
        for (n, item) in self.spans.of(row).enumerate() {
            if n > 0 {
                out.put_u8(b',');
            }
            if self.values.is_null(item) {
                out.put_slice(b"NULL");
            } else if let Kind::List(inner) = &self.values.kind {
                inner.put_text(out, item, tz)?;
            } else {
                let start = out.len();
                self.values.put_text(out, item, tz)?;
                quote_tail(out, start);
            }
        }
        out.put_u8(b'}');
        Ok(())
    }

    /// `1 2 3`, the text of int2vector and oidvector.
    pub fn put_vector(&self, out: &mut BytesMut, row: usize) -> Result<(), SqlError> {
        for (n, item) in self.spans.of(row).enumerate() {
            if n > 0 {
                out.put_u8(b' ');
            }
            put_i64(out, self.values.int(item).unwrap_or(0));
        }
        Ok(())
    }

    /// PostgreSQL's `array_send`. 2202E where inner lists differ in length or are null: the form has no room for
    /// that.
    pub fn put_binary(&self, out: &mut BytesMut, row: usize, tz: &SessionTz) -> Result<(), SqlError> {
        let mut dimensions = [usize::MAX; MAX_DIMENSIONS];
        let depth = self.measure(row, 0, &mut dimensions)?;
        let dimensions = &dimensions[..depth];
        let empty = dimensions.iter().any(|d| *d == 0 || *d == usize::MAX);
        out.put_i32(if empty { 0 } else { depth as i32 });
        let flags_at = out.len();
        out.put_i32(0);
        out.put_u32(self.element);
        if empty {
            return Ok(());
        }
        for d in dimensions {
            out.put_i32(i32::try_from(*d).map_err(|_| error("54000", "array size exceeds the protocol's limit"))?);
            out.put_i32(self.lower_bound);
        }
        if self.put_items(out, row, tz)? {
            out[flags_at..flags_at + 4].copy_from_slice(&1u32.to_be_bytes());
        }
        Ok(())
    }

    /// Fills in the length of each level, the first row met deciding; returns the number of levels.
    fn measure(&self, row: usize, level: usize, dimensions: &mut [usize; MAX_DIMENSIONS]) -> Result<usize, SqlError> {
        let Some(known) = dimensions.get_mut(level) else {
            return Err(error("54000", format!("number of array dimensions exceeds the maximum of {MAX_DIMENSIONS}")));
        };
        let items = self.spans.of(row);
        if *known == usize::MAX {
            *known = items.len();
        } else if *known != items.len() {
            return Err(ragged());
        }
        let Kind::List(inner) = &self.values.kind else { return Ok(level + 1) };
        let mut depth = level + 1;
        for item in items {
            if self.values.is_null(item) {
                return Err(ragged());
            }
            depth = depth.max(inner.measure(item, level + 1, dimensions)?);
        }
        Ok(depth)
    }

    /// Returns whether there was a null among them.
    fn put_items(&self, out: &mut BytesMut, row: usize, tz: &SessionTz) -> Result<bool, SqlError> {
        let mut has_null = false;
        for item in self.spans.of(row) {
            if let Kind::List(inner) = &self.values.kind {
                has_null |= inner.put_items(out, item, tz)?;
            } else if self.values.is_null(item) {
                has_null = true;
                out.put_i32(-1);
            } else {
                let at = out.len();
                out.put_u32(0);
                self.values.put_binary(out, item, tz)?;
                super::patch_len(out, at, out.len() - at - 4);
            }
        }
        Ok(has_null)
    }
}

fn ragged() -> SqlError {
    let mut e = error("2202E", "multidimensional arrays must have sub-arrays with matching dimensions");
    e.hint = Some("Read the column as text, or cast it to text in the query.".to_owned());
    e
}

/// Puts quotes around the text from `start` on, where PostgreSQL's array input would need them. In place, so that
/// no element costs an allocation.
fn quote_tail(out: &mut BytesMut, start: usize) {
    let text = &out[start..];
    let mut escapes = 0;
    let mut quote = text.is_empty() || text.eq_ignore_ascii_case(b"null");
    for b in text {
        match b {
            b'"' | b'\\' => escapes += 1,
            b'{' | b'}' | b',' | b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c => quote = true,
            _ => {}
        }
    }
    if !quote && escapes == 0 {
        return;
    }
    let mut from = out.len();
    let mut to = from + escapes + 2;
    out.resize(to, 0);
    to -= 1;
    out[to] = b'"';
    while from > start {
        from -= 1;
        let b = out[from];
        to -= 1;
        out[to] = b;
        if matches!(b, b'"' | b'\\') {
            to -= 1;
            out[to] = b'\\';
        }
    }
    out[start] = b'"';
}
