//! Structs, maps and unions as JSON, spaced as PostgreSQL prints jsonb.

use bytes::{BufMut, BytesMut};
use tidewater_sql::SqlError;

use super::column::{Column, Kind};
use super::datetime::SessionTz;
use crate::pgwire::types::{error, oid};

/// A value, `null` included. Numbers stand as they are, floats that JSON does not know and all else as strings,
/// as PostgreSQL's `to_jsonb` does.
pub(super) fn put(out: &mut BytesMut, column: &Column<'_>, row: usize, tz: &SessionTz) -> Result<(), SqlError> {
    use Kind as K;
    if column.is_null(row) {
        out.put_slice(b"null");
        return Ok(());
    }
    match &column.kind {
        K::Bool(a) => out.put_slice(if a.value(row) { b"true" } else { b"false" }),
        K::Int8(_)
        | K::Int16(_)
        | K::Int32(_)
        | K::Int64(_)
        | K::UInt8(_)
        | K::UInt16(_)
        | K::UInt32(_)
        | K::UInt64(_)
        | K::Decimal32(..)
        | K::Decimal64(..)
        | K::Decimal128(..)
        | K::Decimal256(..) => {
            column.put_text(out, row, tz)?;
        }
        K::Float16(_) | K::Float32(_) | K::Float64(_) => {
            let start = out.len();
            column.put_text(out, row, tz)?;
            if matches!(out[start..].last(), Some(b'N' | b'y')) {
                quote_tail(out, start);
            }
        }
        K::Utf8(_) | K::LargeUtf8(_) | K::Utf8View(_) if column.is_json() => {
            out.put_slice(column.str(row).as_bytes());
        }
        K::List(list) => {
            let (items, values) = list.items(row);
            out.put_u8(b'[');
            for (n, item) in items.enumerate() {
                if n > 0 {
                    out.put_slice(b", ");
                }
                put(out, values, item, tz)?;
            }
            out.put_u8(b']');
        }
        K::Struct(fields) => {
            out.put_u8(b'{');
            for (n, (name, field)) in fields.iter().enumerate() {
                if n > 0 {
                    out.put_slice(b", ");
                }
                let start = out.len();
                out.put_slice(name.as_bytes());
                quote_tail(out, start);
                out.put_slice(b": ");
                put(out, field, row, tz)?;
            }
            out.put_u8(b'}');
        }
        K::Map { entries, keys, values } => {
            out.put_u8(b'{');
            for (n, entry) in entries.of(row).enumerate() {
                if n > 0 {
                    out.put_slice(b", ");
                }
                if keys.is_null(entry) {
                    return Err(error("22023", "a map has a null key, which JSON cannot show"));
                }
                let start = out.len();
                keys.put_text(out, entry, tz)?;
                quote_tail(out, start);
                out.put_slice(b": ");
                put(out, values, entry, tz)?;
            }
            out.put_u8(b'}');
        }
        K::Union(..) | K::Dictionary(..) => {
            if let Some((selected, row)) = column.selected(row) {
                put(out, selected, row, tz)?;
            }
        }
        _ => {
            let start = out.len();
            if !column.put_json_timestamp(out, row, tz)? {
                column.put_text(out, row, tz)?;
            }
            quote_tail(out, start);
        }
    }
    Ok(())
}

impl Column<'_> {
    fn is_json(&self) -> bool {
        matches!(self.oid(), oid::JSON | oid::JSONB)
    }
}

/// Turns the text from `start` on into a JSON string, in place.
fn quote_tail(out: &mut BytesMut, start: usize) {
    let extra: usize = out[start..].iter().map(|b| escaped_len(*b) - 1).sum();
    let mut from = out.len();
    let mut to = from + extra + 2;
    out.resize(to, 0);
    to -= 1;
    out[to] = b'"';
    while from > start {
        from -= 1;
        let b = out[from];
        let len = escaped_len(b);
        to -= len;
        match (len, b) {
            (1, _) => out[to] = b,
            (2, _) => {
                let letter = match b {
                    b'\n' => b'n',
                    b'\r' => b'r',
                    b'\t' => b't',
                    0x08 => b'b',
                    0x0c => b'f',
                    other => other,
                };
                out[to..to + 2].copy_from_slice(&[b'\\', letter]);
            }
            _ => {
                const HEX: &[u8; 16] = b"0123456789abcdef";
                let code = [b'\\', b'u', b'0', b'0', HEX[usize::from(b >> 4)], HEX[usize::from(b & 15)]];
                out[to..to + 6].copy_from_slice(&code);
            }
        }
    }
    out[start] = b'"';
}

fn escaped_len(b: u8) -> usize {
    match b {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' | 0x08 | 0x0c => 2,
        0..0x20 => 6,
        _ => 1,
    }
}
