#![allow(clippy::unwrap_used, clippy::expect_used)]

use arrow::array::{
    BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float64Array, Int64Array, ListArray, StringArray,
    StructArray, Time64MicrosecondArray, TimestampMicrosecondArray,
};
use arrow::datatypes::Fields;

use super::*;
use crate::format::{ValueDecoder, json_field};

/// What INSERT writes, the decoder reads back.
#[test]
fn rows_survive_the_way_out_and_in() {
    let item: Arc<Field> = Field::new("element", DataType::Int64, true).into();
    let inner: Fields = vec![Field::new("x", DataType::Utf8, true)].into();
    let columns: Vec<(Field, ArrayRef)> = vec![
        (Field::new("b", DataType::Boolean, true), Arc::new(BooleanArray::from(vec![Some(true), None, Some(false)]))),
        (
            Field::new("i", DataType::Int64, true),
            Arc::new(Int64Array::from(vec![Some(i64::MIN), Some(i64::MAX), None])),
        ),
        (
            Field::new("d", DataType::Float64, true),
            Arc::new(Float64Array::from(vec![0.1, f64::NEG_INFINITY, f64::MAX])),
        ),
        (
            Field::new("n", DataType::Decimal128(38, 3), true),
            Arc::new(Decimal128Array::from(vec![10i128.pow(38) - 1, -1, 0]).with_precision_and_scale(38, 3).unwrap()),
        ),
        (Field::new("t", DataType::Utf8, true), Arc::new(StringArray::from(vec!["a\"\\\n\u{1}é😀", "", "null"]))),
        (json_field("j"), Arc::new(StringArray::from(vec![Some(r#"{"a": [1,2]}"#), None, Some("\"x\"")]))),
        (Field::new("y", DataType::Binary, true), Arc::new(BinaryArray::from(vec![&b"\x00\xff"[..], b"", b"abc"]))),
        (Field::new("dt", DataType::Date32, true), Arc::new(Date32Array::from(vec![0, -719_162, 2_932_896]))),
        (
            Field::new("tm", DataType::Time64(TimeUnit::Microsecond), true),
            Arc::new(Time64MicrosecondArray::from(vec![0, 86_399_999_999, 1])),
        ),
        (
            Field::new("ts", DataType::Timestamp(TimeUnit::Microsecond, Some("+00:00".into())), true),
            Arc::new(TimestampMicrosecondArray::from(vec![0, -1, 1_700_000_000_123_456]).with_timezone("+00:00")),
        ),
        (
            Field::new("w", DataType::Timestamp(TimeUnit::Microsecond, None), true),
            Arc::new(TimestampMicrosecondArray::from(vec![0, -1, 1_700_000_000_123_456])),
        ),
        (
            Field::new("l", DataType::List(item.clone()), true),
            Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>(vec![
                Some(vec![Some(1), None]),
                None,
                Some(vec![]),
            ]))
            .with_field(item),
        ),
        (
            Field::new("s", DataType::Struct(inner.clone()), true),
            Arc::new(StructArray::new(inner, vec![Arc::new(StringArray::from(vec![Some("q"), None, Some("")]))], None)),
        ),
    ];
    let fields: Vec<Field> = columns.iter().map(|(f, _)| f.clone()).collect();
    let mut decoder = ValueDecoder::new(StreamFormat::Json, &fields, &vec![true; fields.len()]).unwrap();
    let mut out = Vec::new();
    for row in 0..3 {
        assert!(encode_row(StreamFormat::Json, &columns, row, &mut out).unwrap());
        serde_json::from_slice::<serde_json::Value>(&out).expect("any reader takes it");
        decoder.push(Some(&out)).unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&out)));
    }
    for ((field, written), read) in columns.iter().zip(decoder.finish().unwrap()) {
        assert_eq!(written.as_ref(), read.as_ref(), "column {}", field.name());
    }
}

trait WithField {
    fn with_field(self, field: Arc<Field>) -> ArrayRef;
}

impl WithField for Arc<ListArray> {
    fn with_field(self, field: Arc<Field>) -> ArrayRef {
        let (_, offsets, values, nulls) = self.as_ref().clone().into_parts();
        Arc::new(ListArray::new(field, offsets, values, nulls))
    }
}

#[test]
fn keys_are_plain_text() {
    let key = |field: DataType, array: ArrayRef| {
        let mut out = Vec::new();
        encode_key(&Field::new("k", field, true), &array, 0, &mut out).unwrap().then_some(out)
    };
    assert_eq!(key(DataType::Utf8, Arc::new(StringArray::from(vec!["a\"b"]))), Some(b"a\"b".to_vec()));
    assert_eq!(key(DataType::Int64, Arc::new(Int64Array::from(vec![-7]))), Some(b"-7".to_vec()));
    assert_eq!(key(DataType::Date32, Arc::new(Date32Array::from(vec![1]))), Some(b"1970-01-02".to_vec()));
    assert_eq!(key(DataType::Int64, Arc::new(Int64Array::from(vec![None]))), None);
}

#[test]
fn text_that_is_not_json_is_refused_in_a_json_column() {
    let mut out = Vec::new();
    for bad in ["{", "1 2", "", "a"] {
        let columns: Vec<(Field, ArrayRef)> = vec![(json_field("j"), Arc::new(StringArray::from(vec![bad])))];
        assert!(encode_row(StreamFormat::Json, &columns, 0, &mut out).is_err(), "{bad}");
    }
}
