//! Messages to the client: put into a buffer, sent when it is full or when the client has to see them.

use std::io;

use bytes::{Buf, BufMut, BytesMut};
use tidewater_sql::{Notice, ResultColumn, SqlError, TransactionStatus};
use tokio::io::{AsyncWrite, AsyncWriteExt};

use super::encode::Format;
use super::types::PgType;

/// Rows are sent once they fill this much.
pub(super) const FLUSH_BYTES: usize = 64 * 1024;
/// A buffer that one huge row has blown up is given back after it.
const KEEP_BYTES: usize = 1024 * 1024;

#[derive(Debug)]
pub(super) struct Outbox<W> {
    writer: W,
    pub buffer: BytesMut,
}

impl<W: AsyncWrite + Unpin> Outbox<W> {
    pub fn new(writer: W) -> Self {
        Self { writer, buffer: BytesMut::with_capacity(8 * 1024) }
    }

    pub fn is_full(&self) -> bool {
        self.buffer.len() >= FLUSH_BYTES
    }

    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// Cancel-safe: what has been written has left the buffer, and the rest follows with the next call.
    pub async fn flush(&mut self) -> io::Result<()> {
        while self.buffer.has_remaining() {
            if self.writer.write_buf(&mut self.buffer).await? == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
        }
        if self.buffer.capacity() > KEEP_BYTES {
            self.buffer = BytesMut::with_capacity(FLUSH_BYTES);
        }
        self.writer.flush().await
    }

    pub async fn close(&mut self) {
        let _ = self.writer.shutdown().await;
    }

    fn message(&mut self, kind: u8, body: impl FnOnce(&mut BytesMut)) {
        self.buffer.put_u8(kind);
        let at = self.buffer.len();
        self.buffer.put_u32(0);
        body(&mut self.buffer);
        let len = (self.buffer.len() - at) as u32;
        self.buffer[at..at + 4].copy_from_slice(&len.to_be_bytes());
    }

    /// The answer to a request for encryption, which is no message.
    pub fn refuse_encryption(&mut self) {
        self.buffer.put_u8(b'N');
    }

    pub fn negotiate_version(&mut self, unknown_options: &[&str]) {
        self.message(b'v', |b| {
            b.put_i32(3 << 16);
            b.put_i32(unknown_options.len() as i32);
            for option in unknown_options {
                put_cstring(b, option);
            }
        });
    }

    pub fn authentication_ok(&mut self) {
        self.message(b'R', |b| b.put_i32(0));
    }

    pub fn authentication_sasl(&mut self, mechanism: &str) {
        self.message(b'R', |b| {
            b.put_i32(10);
            put_cstring(b, mechanism);
            b.put_u8(0);
        });
    }

    /// SASLContinue, or SASLFinal.
    pub fn authentication_step(&mut self, last: bool, data: &str) {
        self.message(b'R', |b| {
            b.put_i32(if last { 12 } else { 11 });
            b.put_slice(data.as_bytes());
        });
    }

    pub fn parameter_status(&mut self, name: &str, value: &str) {
        self.message(b'S', |b| {
            put_cstring(b, name);
            put_cstring(b, value);
        });
    }

    pub fn backend_key(&mut self, pid: i32, secret: i32) {
        self.message(b'K', |b| {
            b.put_i32(pid);
            b.put_i32(secret);
        });
    }

    pub fn ready(&mut self, status: TransactionStatus) {
        let status = match status {
            TransactionStatus::Idle => b'I',
            TransactionStatus::InBlock => b'T',
            TransactionStatus::Failed => b'E',
        };
        self.message(b'Z', |b| b.put_u8(status));
    }

    /// Messages without a body: ParseComplete and its kin.
    fn bare(&mut self, kind: u8) {
        self.message(kind, |_| {});
    }

    pub fn parse_complete(&mut self) {
        self.bare(b'1');
    }

    pub fn bind_complete(&mut self) {
        self.bare(b'2');
    }

    pub fn close_complete(&mut self) {
        self.bare(b'3');
    }

    pub fn no_data(&mut self) {
        self.bare(b'n');
    }

    pub fn portal_suspended(&mut self) {
        self.bare(b's');
    }

    pub fn empty_query(&mut self) {
        self.bare(b'I');
    }

    pub fn command_complete(&mut self, tag: &str) {
        self.message(b'C', |b| put_cstring(b, tag));
    }

    /// CopyOutResponse: text, in all columns.
    pub fn copy_out(&mut self, columns: usize) {
        self.message(b'H', |b| {
            b.put_u8(0);
            b.put_u16(columns as u16);
            (0..columns).for_each(|_| b.put_u16(0));
        });
    }

    /// A line of COPY's text format, from a DataRow message with all columns in text.
    pub fn copy_row(&mut self, row: &[u8]) {
        self.message(b'd', |b| put_copy_line(b, row));
    }

    pub fn copy_done(&mut self) {
        self.bare(b'c');
    }

    pub fn parameter_description(&mut self, oids: &[u32]) {
        self.message(b't', |b| {
            b.put_u16(oids.len() as u16);
            oids.iter().for_each(|oid| b.put_u32(*oid));
        });
    }

    /// Nothing is put where a column has no form on the wire.
    pub fn row_description(&mut self, columns: &[ResultColumn], formats: &[Format]) -> Result<(), SqlError> {
        let types = columns
            .iter()
            .map(|c| PgType::of_column(&c.field, c.pg_type_hint))
            .collect::<Result<Vec<PgType>, SqlError>>()?;
        self.message(b'T', |b| {
            b.put_u16(columns.len() as u16);
            for ((column, pg_type), format) in columns.iter().zip(types).zip(formats) {
                put_cstring(b, column.field.name());
                b.put_u32(column.table_oid);
                b.put_i16(column.attnum);
                b.put_u32(pg_type.oid);
                b.put_i16(pg_type.len);
                b.put_i32(pg_type.typmod);
                b.put_i16(format.code());
            }
        });
        Ok(())
    }

    pub fn error(&mut self, severity: &str, e: &SqlError) {
        self.report(b'E', severity, e.state.0, &e.message, e.detail.as_deref(), e.hint.as_deref(), e.position);
    }

    pub fn notice(&mut self, n: &Notice) {
        let (detail, hint) = (n.detail.as_deref(), n.hint.as_deref());
        self.report(b'N', n.severity.as_str(), n.state.0, &n.message, detail, hint, None);
    }

    fn report(
        &mut self,
        kind: u8,
        severity: &str,
        state: &str,
        message: &str,
        detail: Option<&str>,
        hint: Option<&str>,
        position: Option<usize>,
    ) {
        let position = position.map(|p| p.to_string());
        self.message(kind, |b| {
            let fields = [
                (b'S', Some(severity)),
                (b'V', Some(severity)),
                (b'C', Some(state)),
                (b'M', Some(message)),
                (b'D', detail),
                (b'H', hint),
                (b'P', position.as_deref()),
            ];
            for (field, value) in fields {
                if let Some(value) = value {
                    b.put_u8(field);
                    put_cstring(b, shortened(value));
                }
            }
            b.put_u8(0);
        });
    }
}

/// Columns are parted by tabs; a NULL is `\N`; what would part columns or lines is escaped (PostgreSQL, COPY, "Text
/// Format").
fn put_copy_line(out: &mut BytesMut, row: &[u8]) {
    // Kind, length of the message, number of columns.
    let mut rest = row.get(7..).unwrap_or_default();
    let mut first = true;
    while let Some((len, tail)) = rest.split_first_chunk::<4>() {
        if !std::mem::take(&mut first) {
            out.put_u8(b'\t');
        }
        let Ok(len) = usize::try_from(i32::from_be_bytes(*len)) else {
            out.put_slice(b"\\N");
            rest = tail;
            continue;
        };
        let (value, tail) = tail.split_at_checked(len).unwrap_or((tail, &[]));
        for byte in value {
            match byte {
                b'\\' => out.put_slice(b"\\\\"),
                b'\t' => out.put_slice(b"\\t"),
                b'\n' => out.put_slice(b"\\n"),
                b'\r' => out.put_slice(b"\\r"),
                0x08 => out.put_slice(b"\\b"),
                0x0b => out.put_slice(b"\\v"),
                0x0c => out.put_slice(b"\\f"),
                byte => out.put_u8(*byte),
            }
        }
        rest = tail;
    }
    out.put_u8(b'\n');
}

/// libpq gives up on a report of more than 30,000 bytes before the sign-in; no reader misses the rest.
fn shortened(text: &str) -> &str {
    const MAX: usize = 8000;
    if text.len() <= MAX {
        return text;
    }
    let end = (0..=MAX).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0);
    &text[..end]
}

/// A zero byte inside would end the string early and break the message: it is left out.
fn put_cstring(out: &mut BytesMut, text: &str) {
    for part in text.as_bytes().split(|b| *b == 0) {
        out.put_slice(part);
    }
    out.put_u8(0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_copy_escapes_what_parts_columns_and_lines() {
        let mut row = BytesMut::new();
        row.put_u8(b'D');
        row.put_u32(0);
        row.put_u16(4);
        for value in [Some(&b"a\tb\\"[..]), None, Some(b""), Some("z\u{e9}\r\n\u{8}\u{b}\u{c}".as_bytes())] {
            row.put_i32(value.map_or(-1, |v| v.len() as i32));
            row.put_slice(value.unwrap_or_default());
        }
        let mut line = BytesMut::new();
        put_copy_line(&mut line, &row);
        assert_eq!(std::str::from_utf8(&line), Ok("a\\tb\\\\\t\\N\t\tz\u{e9}\\r\\n\\b\\v\\f\n"));
    }
}
