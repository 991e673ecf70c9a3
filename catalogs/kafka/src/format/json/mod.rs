//! One JSON object per record: [`scan`](Scan) reads text, [`read`] puts members into columns.
//!
//! The parser is our own, and strict (RFC 8259, UTF-8, 128 levels, no lone surrogates), because a streaming table must
//! not depend on what a lenient one happens to let through: arrow-json 58 takes `{"a":1 "b":2}`, `{"n":1-2}` and two
//! objects in one record, turns `1.9` into the bigint 1, and cannot keep the text of a nested value.
//! What a value means for a column follows PostgreSQL's `json_populate_record`: text as it is for strings and as
//! JSON for everything else, other types from a JSON number or from a string that spells one. Of a member that
//! occurs twice the last counts.

mod read;
mod scan;

pub(crate) use read::Members;

pub(crate) use scan::{Scan, Str};

use arrow::array::ArrayRef;
use arrow::datatypes::Field;
use tidewater_catalogs::Result;

use super::Malformed;

pub(crate) struct JsonDecoder {
    members: Members,
    rows: usize,
}

impl JsonDecoder {
    pub(crate) fn new(fields: &[Field], keep: &[bool]) -> Result<Self> {
        Ok(Self { members: Members::new(fields.iter(), Some(keep))?, rows: 0 })
    }

    #[inline]
    pub(crate) fn push(&mut self, value: Option<&[u8]>) -> Result<(), Malformed> {
        let Some(value) = value else {
            return Err(Malformed::new("record has no value"));
        };
        match self.read(value) {
            Ok(()) => {
                self.members.drop_unkept();
                self.rows += 1;
                Ok(())
            }
            Err(e) => {
                self.members.truncate(self.rows);
                Err(e)
            }
        }
    }

    #[inline]
    fn read(&mut self, value: &[u8]) -> Result<(), Malformed> {
        let text = std::str::from_utf8(value)
            .map_err(|e| Malformed::new(format!("value is not UTF-8 at byte {}", e.valid_up_to())))?;
        let mut scan = Scan::new(text);
        scan.space();
        if !scan.eat(b'{') {
            return Err(match scan.peek() {
                None => Malformed::new("value is empty"),
                Some(_) => scan.value_that_is_no_object(),
            });
        }
        self.members.read(&mut scan, self.rows, 1)?;
        scan.space();
        match scan.peek() {
            None => Ok(()),
            Some(_) => Err(scan.error("expected nothing behind the object")),
        }
    }

    pub(crate) fn pop(&mut self) {
        self.rows = self.rows.saturating_sub(1);
        self.members.truncate(self.rows);
    }

    pub(crate) fn finish(&mut self) -> Result<Vec<ArrayRef>> {
        self.rows = 0;
        self.members.finish()
    }
}
