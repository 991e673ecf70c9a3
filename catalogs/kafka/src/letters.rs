//! Dead letters as the records that they were.

use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, BinaryArray, Int64Array, StringArray, TimestampMicrosecondArray};
use arrow::record_batch::RecordBatch;
use serde::de::{Deserializer, MapAccess, Visitor};
use tidewater_catalogs::{DecodedLetters, Error, ErrorKind, OnError, Result, StreamSpec};

use crate::ffi::TimestampType;
use crate::lane::{Lane, ReadPlan};
use crate::metadata::Record;

/// Reads letters of one partition with the stream's present definition, as the reader of the topic would.
pub(crate) fn decode(
    spec: &StreamSpec,
    partition: i32,
    letters: &RecordBatch,
    projection: &[usize],
) -> Result<DecodedLetters> {
    let plan = ReadPlan::new(spec, projection, OnError::Skip, false)?;
    let mut lane = Lane::new(Arc::new(plan), partition, 0, None)?;
    let columns = Columns::of(letters)?;
    let mut readable = Vec::with_capacity(letters.num_rows());
    for row in 0..letters.num_rows() {
        readable.push(match columns.letter(row)? {
            Some(letter) => lane.try_push(&letter)?,
            None => false,
        });
    }
    Ok(DecodedLetters { rows: lane.take_rows()?, readable })
}

struct Columns<'a> {
    offset: &'a Int64Array,
    timestamp: &'a TimestampMicrosecondArray,
    timestamp_type: &'a StringArray,
    key: &'a BinaryArray,
    value: &'a BinaryArray,
    headers: &'a StringArray,
}

impl<'a> Columns<'a> {
    fn of(letters: &'a RecordBatch) -> Result<Self> {
        Ok(Self {
            offset: column(letters, "_offset")?,
            timestamp: column(letters, "_timestamp")?,
            timestamp_type: column(letters, "_timestamp_type")?,
            key: column(letters, "_key")?,
            value: column(letters, "_value")?,
            headers: column(letters, "_headers")?,
        })
    }

    /// None where the letter does not hold all that the record was.
    fn letter(&self, row: usize) -> Result<Option<Letter<'a>>> {
        let timestamp_type = match self.timestamp_type.is_valid(row).then(|| self.timestamp_type.value(row)) {
            None => None,
            Some("create") => Some(TimestampType::Create),
            Some("append") => Some(TimestampType::Append),
            Some(_) => return Ok(None),
        };
        let timestamp = self.timestamp.is_valid(row).then(|| self.timestamp.value(row));
        let timestamp_ms = match (timestamp, timestamp_type) {
            (Some(us), Some(kind)) => Some((us.div_euclid(1_000), kind)),
            (None, None) => None,
            // A time beyond what microseconds can say is not kept.
            _ => return Ok(None),
        };
        let headers = match self.headers.is_valid(row).then(|| self.headers.value(row)) {
            Some(text) => parse_headers(text)?,
            None => Vec::new(),
        };
        Ok(Some(Letter {
            offset: self.offset.value(row),
            key: self.key.is_valid(row).then(|| self.key.value(row)),
            value: self.value.is_valid(row).then(|| self.value.value(row)),
            timestamp_ms,
            headers,
        }))
    }
}

fn column<'a, T: 'static>(letters: &'a RecordBatch, name: &str) -> Result<&'a T> {
    letters
        .column_by_name(name)
        .and_then(|c| c.as_any().downcast_ref())
        .ok_or_else(|| Error::internal(format!("dead letters lack column \"{name}\", or it has another type")))
}

struct Letter<'a> {
    offset: i64,
    key: Option<&'a [u8]>,
    value: Option<&'a [u8]>,
    timestamp_ms: Option<(i64, TimestampType)>,
    headers: Vec<(String, Option<Vec<u8>>)>,
}

impl Record for Letter<'_> {
    fn offset(&self) -> i64 {
        self.offset
    }
    fn key(&self) -> Option<&[u8]> {
        self.key
    }
    fn value(&self) -> Option<&[u8]> {
        self.value
    }
    fn timestamp_ms(&self) -> Option<(i64, TimestampType)> {
        self.timestamp_ms
    }
    fn headers(&self, each: &mut dyn FnMut(&[u8], Option<&[u8]>)) {
        self.headers.iter().for_each(|(name, value)| each(name.as_bytes(), value.as_deref()));
    }
}

/// What [`crate::metadata::headers_json`] wrote: in order, and several of one name where there were several.
fn parse_headers(text: &str) -> Result<Vec<(String, Option<Vec<u8>>)>> {
    struct Pairs;
    impl<'de> Visitor<'de> for Pairs {
        type Value = Vec<(String, Option<Vec<u8>>)>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object of texts")
        }
        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Self::Value, A::Error> {
            let mut pairs = Vec::new();
            while let Some((name, value)) = map.next_entry::<String, Option<String>>()? {
                pairs.push((name, value.map(header_bytes)));
            }
            Ok(pairs)
        }
    }
    let mut json = serde_json::Deserializer::from_str(text);
    json.deserialize_map(Pairs)
        .map_err(|e| Error::new(ErrorKind::DataCorrupt, "headers of a dead letter cannot be read").with_source(e))
}

/// Bytes that were no UTF-8 were written as `\x` and digits. Text that looks the same but is UTF-8 was text.
fn header_bytes(text: String) -> Vec<u8> {
    let digits = text.strip_prefix("\\x").filter(|d| !d.is_empty() && d.len() % 2 == 0);
    let bytes: Option<Vec<u8>> = digits.and_then(|digits| {
        let nibble = |c: u8| match c {
            b'0'..=b'9' => Some(c - b'0'),
            b'a'..=b'f' => Some(c - b'a' + 10),
            _ => None,
        };
        digits.as_bytes().chunks(2).map(|pair| Some(nibble(pair[0])? << 4 | nibble(pair[1])?)).collect()
    });
    match bytes {
        Some(bytes) if std::str::from_utf8(&bytes).is_err() => bytes,
        _ => text.into_bytes(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;
    use crate::metadata::headers_json;

    proptest! {
        /// Headers come back as they were, duplicates, nulls and bytes included.
        #[test]
        fn headers_come_back(
            headers in prop::collection::vec(("\\PC{0,6}", prop::option::of(prop::collection::vec(any::<u8>(), 0..6))), 1..6)
        ) {
            let letter = Letter { offset: 0, key: None, value: None, timestamp_ms: None, headers: headers.clone() };
            let mut json = Vec::new();
            prop_assert!(headers_json(&letter, &mut json));
            let back = parse_headers(std::str::from_utf8(&json).unwrap()).unwrap();
            prop_assert_eq!(back, headers);
        }
    }

    #[test]
    fn text_that_only_looks_like_bytes_stays_text() {
        for text in ["\\x", "\\x4", "\\x41", "\\xFF", "\\xzz", "x", ""] {
            assert_eq!(header_bytes(text.to_owned()), text.as_bytes());
        }
        assert_eq!(header_bytes("\\xff01".to_owned()), [0xff, 0x01]);
    }
}
