//! The whole value as one column: `raw` as bytes, `text` as UTF-8. A record without a value is a null.

use arrow::array::{ArrayRef, NullBufferBuilder};
use arrow::datatypes::{DataType, Field};
use tidewater_catalogs::{Error, Result, StreamFormat};

use super::column::{Bytes, widen};
use super::{Malformed, no_nul};

pub(crate) struct WholeDecoder {
    bytes: Bytes,
    nulls: NullBufferBuilder,
    data_type: DataType,
    name: String,
    nullable: bool,
    utf8: bool,
    keep: bool,
}

impl WholeDecoder {
    pub(crate) fn new(format: StreamFormat, field: &Field, keep: bool) -> Result<Self> {
        let (utf8, fits, wanted) = match (format, field.data_type()) {
            (StreamFormat::Text, t) => {
                (true, matches!(t, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View), "text")
            }
            (_, t) => (false, matches!(t, DataType::Binary | DataType::LargeBinary | DataType::BinaryView), "bytea"),
        };
        if !fits {
            return Err(Error::invalid(format!(
                "column \"{}\" holds the whole value and has to be of type {wanted}, not {}",
                field.name(),
                field.data_type()
            )));
        }
        Ok(Self {
            bytes: Bytes::new(),
            nulls: NullBufferBuilder::new(0),
            data_type: field.data_type().clone(),
            name: field.name().clone(),
            nullable: field.is_nullable(),
            utf8,
            keep,
        })
    }

    pub(crate) fn push(&mut self, value: Option<&[u8]>) -> std::result::Result<(), Malformed> {
        match value {
            None if !self.nullable => {
                return Err(Malformed::new("record has no value, and the column may not be null").within(&self.name));
            }
            Some(value) if self.utf8 => {
                if let Err(e) = std::str::from_utf8(value) {
                    return Err(Malformed::new(format!("value is not UTF-8 at byte {}", e.valid_up_to())));
                }
                no_nul(value)?;
            }
            _ => {}
        }
        if self.keep {
            let len = self.nulls.len();
            self.bytes.data.extend_from_slice(value.unwrap_or_default());
            if let Err(e) = self.bytes.end() {
                self.bytes.truncate(len);
                return Err(e);
            }
            self.nulls.append(value.is_some());
        }
        Ok(())
    }

    pub(crate) fn pop(&mut self) {
        if self.keep {
            let len = self.nulls.len().saturating_sub(1);
            self.bytes.truncate(len);
            self.nulls.truncate(len);
        }
    }

    pub(crate) fn finish(&mut self) -> Result<Vec<ArrayRef>> {
        if !self.keep {
            return Ok(Vec::new());
        }
        let nulls = self.nulls.finish();
        let array = if self.utf8 { self.bytes.take_text(nulls)? } else { self.bytes.take_binary(nulls)? };
        Ok(vec![widen(array, &self.data_type)?])
    }
}
