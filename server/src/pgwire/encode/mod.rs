//! Arrow arrays → the values of DataRow messages, in text and in binary.
//!
//! ```text
//!   RecordBatch ──► RowEncoder ── one Column per array, types resolved once per batch
//!                       └── put_row(row): values go straight into the connection's buffer
//! ```
//!
//! Nothing here allocates per value. `number` and `datetime` know PostgreSQL's spelling, `array` its arrays and
//! `json` what structs and maps become.

mod array;
mod column;
mod datetime;
mod json;
mod number;

#[cfg(test)]
mod tests;

use arrow::array::Array;
use arrow::record_batch::RecordBatch;
use bytes::{BufMut, BytesMut};
use tidewater_sql::{ResultColumn, SqlError};

pub(crate) use datetime::SessionTz;

use super::types::{PgType, error};
use column::Column;

/// What a client asked for a column in Bind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Text,
    Binary,
}

impl Format {
    pub fn code(self) -> i16 {
        match self {
            Self::Text => 0,
            Self::Binary => 1,
        }
    }

    pub fn of_code(code: i16) -> Result<Self, SqlError> {
        match code {
            0 => Ok(Self::Text),
            1 => Ok(Self::Binary),
            other => Err(error("22023", format!("unsupported format code: {other}"))),
        }
    }
}

/// PostgreSQL's own bound of one value and, here, of one row.
const MAX_ROW_BYTES: usize = 0x3fff_ffff;

/// Writes rows of one batch. `formats` has one entry per column.
pub(crate) struct RowEncoder<'a> {
    columns: Vec<(Column<'a>, Format)>,
    tz: SessionTz,
}

impl<'a> RowEncoder<'a> {
    /// 0A000 where a column has a type that has no form on the wire; XX000 where the batch is not what was
    /// announced to the client.
    pub fn new(
        batch: &'a RecordBatch,
        announced: &[ResultColumn],
        formats: &[Format],
        tz: SessionTz,
    ) -> Result<Self, SqlError> {
        if batch.num_columns() != announced.len() || formats.len() != announced.len() {
            return Err(error("XX000", "the result has another number of columns than was announced"));
        }
        let mut columns = Vec::with_capacity(announced.len());
        for ((array, column), format) in batch.columns().iter().zip(announced).zip(formats) {
            let pg_type = PgType::of_column(&column.field, column.pg_type_hint)?;
            if array.data_type() != column.field.data_type()
                && PgType::of_data_type(array.data_type())?.oid != PgType::of_data_type(column.field.data_type())?.oid
            {
                return Err(error(
                    "XX000",
                    format!(
                        "column \"{}\" was announced as {} and came as {}",
                        column.field.name(),
                        column.field.data_type(),
                        array.data_type()
                    ),
                ));
            }
            columns.push((Column::new(array.as_ref(), pg_type.oid)?, *format));
        }
        Ok(Self { columns, tz })
    }

    /// Appends one DataRow message. On an error nothing of the row is left in `out`.
    pub fn put_row(&self, out: &mut BytesMut, row: usize) -> Result<(), SqlError> {
        let start = out.len();
        self.try_put_row(out, row).inspect_err(|_| out.truncate(start))
    }

    fn try_put_row(&self, out: &mut BytesMut, row: usize) -> Result<(), SqlError> {
        let start = out.len();
        out.put_u8(b'D');
        out.put_u32(0);
        out.put_u16(self.columns.len() as u16);
        for (column, format) in &self.columns {
            if column.is_null(row) {
                out.put_i32(-1);
                continue;
            }
            let at = out.len();
            out.put_u32(0);
            match format {
                Format::Text => column.put_text(out, row, &self.tz)?,
                Format::Binary => column.put_binary(out, row, &self.tz)?,
            }
            patch_len(out, at, out.len() - at - 4);
        }
        let len = out.len() - start - 1;
        if len > MAX_ROW_BYTES {
            return Err(error("54000", format!("a row of {len} bytes is too large for the protocol")));
        }
        patch_len(out, start + 1, len);
        Ok(())
    }
}

/// Values are below 2^30 bytes by the check on the row, so the length fits.
fn patch_len(out: &mut BytesMut, at: usize, len: usize) {
    out[at..at + 4].copy_from_slice(&(len as u32).to_be_bytes());
}
