//! Each type in both formats. The expected text and bytes are what PostgreSQL prints and sends for the same value.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::sync::Arc;

use arrow::array::*;
use arrow::buffer::{NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::*;
use bytes::BytesMut;
use tidewater_sql::{ResultColumn, SqlError};

use super::{Format, RowEncoder, SessionTz};

fn column(array: &ArrayRef) -> ResultColumn {
    ResultColumn::new(Arc::new(Field::new("c", array.data_type().clone(), true)))
}

/// The values of a one-column result; `None` for NULL.
fn encode(array: ArrayRef, column: ResultColumn, format: Format, zone: &str) -> Result<Vec<Option<Vec<u8>>>, SqlError> {
    let field = Field::new("other_name", array.data_type().clone(), true);
    let batch = RecordBatch::try_new(Arc::new(Schema::new(vec![field])), vec![array]).unwrap();
    let encoder = RowEncoder::new(&batch, &[column], &[format], SessionTz::parse(zone).unwrap())?;
    (0..batch.num_rows())
        .map(|row| {
            let mut out = BytesMut::new();
            encoder.put_row(&mut out, row).inspect_err(|_| assert!(out.is_empty()))?;
            assert_eq!(out[0], b'D');
            assert_eq!(u32::from_be_bytes(out[1..5].try_into().unwrap()) as usize, out.len() - 1);
            assert_eq!(&out[5..7], &[0, 1]);
            let len = i32::from_be_bytes(out[7..11].try_into().unwrap());
            let value = out[11..].to_vec();
            assert_eq!(value.len(), len.max(0) as usize);
            Ok((len >= 0).then_some(value))
        })
        .collect()
}

fn show(bytes: Option<Vec<u8>>) -> String {
    bytes.map_or("NULL".to_owned(), |b| String::from_utf8(b).unwrap())
}

fn hex(bytes: Option<Vec<u8>>) -> String {
    bytes.map_or("NULL".to_owned(), |b| b.iter().map(|b| format!("{b:02x}")).collect())
}

fn text_in(array: impl Array + 'static, zone: &str) -> Vec<String> {
    let array: ArrayRef = Arc::new(array);
    let column = column(&array);
    encode(array, column, Format::Text, zone).unwrap().into_iter().map(show).collect()
}

fn text(array: impl Array + 'static) -> Vec<String> {
    text_in(array, "UTC")
}

fn binary(array: impl Array + 'static) -> Vec<String> {
    let array: ArrayRef = Arc::new(array);
    let column = column(&array);
    encode(array, column, Format::Binary, "UTC").unwrap().into_iter().map(hex).collect()
}

fn fails(array: impl Array + 'static, format: Format) -> &'static str {
    let array: ArrayRef = Arc::new(array);
    let column = column(&array);
    encode(array, column, format, "UTC").unwrap_err().state.0
}

#[test]
fn booleans_and_nulls() {
    let array = BooleanArray::from(vec![Some(true), Some(false), None]);
    assert_eq!(text(array.clone()), ["t", "f", "NULL"]);
    assert_eq!(binary(array), ["01", "00", "NULL"]);
    assert_eq!(text(NullArray::new(2)), ["NULL", "NULL"]);
    assert_eq!(binary(NullArray::new(1)), ["NULL"]);
}

#[test]
fn integers_are_as_wide_as_announced() {
    let array = Int64Array::from(vec![Some(i64::MIN), Some(i64::MAX), Some(0), Some(-7), None]);
    assert_eq!(text(array.clone()), ["-9223372036854775808", "9223372036854775807", "0", "-7", "NULL"]);
    assert_eq!(binary(array), ["8000000000000000", "7fffffffffffffff", "0000000000000000", "fffffffffffffff9", "NULL"]);
    assert_eq!(text(Int32Array::from(vec![i32::MIN, 100, 99])), ["-2147483648", "100", "99"]);
    assert_eq!(binary(Int32Array::from(vec![i32::MIN])), ["80000000"]);
    assert_eq!(binary(Int16Array::from(vec![-2])), ["fffe"]);
    // There is no one-byte integer and there are no unsigned ones: the next wider type takes them.
    assert_eq!(binary(Int8Array::from(vec![-128])), ["ff80"]);
    assert_eq!(binary(UInt8Array::from(vec![255])), ["00ff"]);
    assert_eq!(binary(UInt16Array::from(vec![65535])), ["0000ffff"]);
    assert_eq!(binary(UInt32Array::from(vec![u32::MAX])), ["00000000ffffffff"]);
    assert_eq!(text(UInt64Array::from(vec![u64::MAX])), ["18446744073709551615"]);
    assert_eq!(binary(UInt64Array::from(vec![100_000_000, 0])), ["00010002000000000001", "0000000000000000"]);
}

#[test]
fn floats_have_the_shortest_digits_that_read_back() {
    let cases = [
        (0.0, "0", "0000000000000000"),
        (-0.0, "-0", "8000000000000000"),
        (-1.5, "-1.5", "bff8000000000000"),
        (1e14, "100000000000000", "42d6bcc41e900000"),
        (123_456_789_012_345.0, "123456789012345", "42dc12218377de40"),
        (1e15, "1e+15", "430c6bf526340000"),
        (1.5e15, "1.5e+15", "431550f7dca70000"),
        (1e-4, "0.0001", "3f1a36e2eb1c432d"),
        (1e-5, "1e-05", "3ee4f8b588e368f1"),
        (1.25e-7, "1.25e-07", "3e80c6f7a0b5ed8d"),
        (1e100, "1e+100", "54b249ad2594c37d"),
        (5e-324, "5e-324", "0000000000000001"),
        (f64::MAX, "1.7976931348623157e+308", "7fefffffffffffff"),
        (0.1, "0.1", "3fb999999999999a"),
        (f64::NAN, "NaN", "7ff8000000000000"),
        (f64::INFINITY, "Infinity", "7ff0000000000000"),
        (f64::NEG_INFINITY, "-Infinity", "fff0000000000000"),
    ];
    for (value, expected, bytes) in cases {
        assert_eq!(text(Float64Array::from(vec![value])), [expected]);
        assert_eq!(binary(Float64Array::from(vec![value])), [bytes]);
    }
    let singles = [1e5, 123_456.0, 1e6, 1.5e6, 1e-4, 1e-5, f32::MAX, 1e-45, 0.1];
    assert_eq!(
        text(Float32Array::from(singles.to_vec())),
        ["100000", "123456", "1e+06", "1.5e+06", "0.0001", "1e-05", "3.4028235e+38", "1e-45", "0.1"]
    );
    assert_eq!(binary(Float32Array::from(vec![1.0])), ["3f800000"]);
}

fn decimal(value: i128, scale: i8) -> Decimal128Array {
    Decimal128Array::from(vec![value]).with_precision_and_scale(38, scale).unwrap()
}

#[test]
fn numerics_keep_their_scale() {
    let cases = [
        (0, 0, "0", "0000000000000000"),
        (0, 2, "0.00", "0000000000000002"),
        (1, 0, "1", "00010000000000000001"),
        (-1, 0, "-1", "00010000400000000001"),
        (10_000, 0, "10000", "00010001000000000001"),
        (99_999_999, 4, "9999.9999", "0002000000000004270f270f"),
        (12_345, 2, "123.45", "0002000000000002007b1194"),
        (-12_345, 8, "-0.00012345", "0002ffff4000000800010929"),
        (10, 2, "0.10", "0001ffff0000000203e8"),
        (100_000_000_000_000_000_000, 0, "100000000000000000000", "00010005000000000001"),
        (1, -20, "100000000000000000000", "00010005000000000001"),
        (0, -3, "0", "0000000000000000"),
        (5, -2, "500", "000100000000000001f4"),
        (
            12_345_678_901_234_567_890_123_456_789_012_345_678,
            0,
            "12345678901234567890123456789012345678",
            "000a000900000000000c0d801ed204d2162e23340d801ed204d2162e",
        ),
        (
            i128::MIN,
            0,
            "-170141183460469231731687303715884105728",
            "000a00094000000000aa0583209a01d5090d0c601c871bf620da1660",
        ),
    ];
    for (value, scale, expected, bytes) in cases {
        assert_eq!(text(decimal(value, scale)), [expected]);
        assert_eq!(binary(decimal(value, scale)), [bytes], "{expected}");
    }
    let nines = i256::from_string(&"9".repeat(76)).unwrap();
    let wide = Decimal256Array::from(vec![nines, -nines, i256::from_i128(5)]).with_precision_and_scale(76, 2).unwrap();
    let expected = format!("{}.99", "9".repeat(74));
    assert_eq!(text(wide.clone()), [expected.clone(), format!("-{expected}"), "0.05".to_owned()]);
    assert_eq!(binary(wide)[0], format!("00140012000000020063{}26ac", "270f".repeat(18)),);
    // 10^54 + 1: the parts in the middle are all zeros.
    let sparse = i256::from_string(&format!("1{}1", "0".repeat(53))).unwrap();
    let sparse = Decimal256Array::from(vec![sparse]).with_precision_and_scale(76, 0).unwrap();
    assert_eq!(text(sparse), [format!("1{}1", "0".repeat(53))]);
    let small = Decimal32Array::from(vec![-105]).with_precision_and_scale(9, 1).unwrap();
    assert_eq!(text(small), ["-10.5"]);
    let middle = Decimal64Array::from(vec![i64::MIN]).with_precision_and_scale(18, 3).unwrap();
    assert_eq!(text(middle), ["-9223372036854775.808"]);
}

#[test]
fn texts_in_all_their_arrow_forms() {
    let values = vec![Some("a"), Some(""), None, Some("é\"\\{}")];
    let expected = ["a", "", "NULL", "é\"\\{}"];
    assert_eq!(text(StringArray::from(values.clone())), expected);
    assert_eq!(text(LargeStringArray::from(values.clone())), expected);
    assert_eq!(text(StringViewArray::from(values.clone())), expected);
    assert_eq!(binary(StringArray::from(vec!["é"])), ["c3a9"]);
    let dictionary: DictionaryArray<Int8Type> = values.into_iter().collect();
    assert_eq!(text(dictionary.clone()), expected);
    assert_eq!(binary(dictionary)[3], "c3a9225c7b7d");
    // A dictionary may hold nulls among its values, or nothing but null keys.
    let holed = DictionaryArray::new(Int32Array::from(vec![0, 1]), Arc::new(StringArray::from(vec![None, Some("x")])));
    assert_eq!(text(holed), ["NULL", "x"]);
    let empty: DictionaryArray<Int32Type> = vec![None::<&str>, None].into_iter().collect();
    assert_eq!(text(empty), ["NULL", "NULL"]);
    // Clients would end the text at the zero byte.
    assert_eq!(fails(StringArray::from(vec!["a\0b"]), Format::Text), "22021");
    assert_eq!(fails(StringArray::from(vec!["a\0b"]), Format::Binary), "22021");
}

#[test]
fn bytes_and_uuids() {
    let values: Vec<Option<&[u8]>> = vec![Some(&[0, 255, 16]), Some(&[]), None];
    assert_eq!(text(BinaryArray::from(values.clone())), ["\\x00ff10", "\\x", "NULL"]);
    assert_eq!(text(BinaryViewArray::from(values.clone())), ["\\x00ff10", "\\x", "NULL"]);
    assert_eq!(binary(LargeBinaryArray::from(values)), ["00ff10", "", "NULL"]);
    let id: Vec<u8> = (0..16).collect();
    let array = FixedSizeBinaryArray::try_from_iter(std::iter::once(id)).unwrap();
    assert_eq!(text(array.clone()), ["\\x000102030405060708090a0b0c0d0e0f"]);
    let uuid = Field::new("c", DataType::FixedSizeBinary(16), false)
        .with_metadata([("ARROW:extension:name".to_owned(), "arrow.uuid".to_owned())].into());
    let column = ResultColumn::new(Arc::new(uuid));
    let array: ArrayRef = Arc::new(array);
    let shown = encode(array.clone(), column.clone(), Format::Text, "UTC").unwrap();
    assert_eq!(show(shown[0].clone()), "00010203-0405-0607-0809-0a0b0c0d0e0f");
    let sent = encode(array, column, Format::Binary, "UTC").unwrap();
    assert_eq!(hex(sent[0].clone()), "000102030405060708090a0b0c0d0e0f");
}

#[test]
fn dates_reach_from_before_christ_past_9999() {
    let cases = [
        (0, "1970-01-01", "ffffd533"),
        (10_957, "2000-01-01", "00000000"),
        (-25_509, "1900-02-28", "ffff718e"),
        (-719_162, "0001-01-01", "fff4dbf9"),
        (-719_528, "0001-01-01 BC", "fff4da8b"),
        (-735_160, "0044-03-15 BC", "fff49d7b"),
        (2_932_896, "9999-12-31", "002c95d3"),
        (2_932_897, "10000-01-01", "002c95d4"),
        (19_782, "2024-02-29", "00002279"),
    ];
    for (days, expected, bytes) in cases {
        assert_eq!(text(Date32Array::from(vec![days])), [expected]);
        assert_eq!(binary(Date32Array::from(vec![days])), [bytes], "{expected}");
    }
    assert_eq!(text(Date64Array::from(vec![-1, 86_400_000])), ["1969-12-31", "1970-01-02"]);
    assert_eq!(fails(Date32Array::from(vec![i32::MIN]), Format::Binary), "22008");
    assert_eq!(text(Date32Array::from(vec![i32::MIN, i32::MAX])).len(), 2);
}

#[test]
fn times_of_day() {
    let array = Time64MicrosecondArray::from(vec![0, 86_399_999_999, 45_296_500_000, 86_400_000_000]);
    assert_eq!(text(array.clone()), ["00:00:00", "23:59:59.999999", "12:34:56.5", "24:00:00"]);
    assert_eq!(binary(array), ["0000000000000000", "000000141dd75fff", "0000000a8be1bd20", "000000141dd76000"]);
    assert_eq!(text(Time32SecondArray::from(vec![3661])), ["01:01:01"]);
    assert_eq!(text(Time32MillisecondArray::from(vec![1])), ["00:00:00.001"]);
    assert_eq!(text(Time64NanosecondArray::from(vec![1_999])), ["00:00:00.000001"]);
    assert_eq!(fails(Time32SecondArray::from(vec![-1]), Format::Text), "22008");
}

#[test]
fn timestamps_without_a_zone() {
    let cases = [
        (0, "1970-01-01 00:00:00", "fffca2fec4c82000"),
        (-2_208_985_076_999_996, "1900-01-01 01:02:03.000004", "fff4c9ef59f3f8c4"),
        (-62_135_596_800_500_000, "0001-12-31 23:59:59.5 BC", "ff1fe2ffc594bee0"),
        (327_416_976_550_000_000, "12345-06-07 08:09:10", "0487db00297a1580"),
        (946_684_799_999_999, "1999-12-31 23:59:59.999999", "ffffffffffffffff"),
    ];
    for (us, expected, bytes) in cases {
        assert_eq!(text(TimestampMicrosecondArray::from(vec![us])), [expected]);
        assert_eq!(binary(TimestampMicrosecondArray::from(vec![us])), [bytes], "{expected}");
    }
    assert_eq!(text(TimestampSecondArray::from(vec![-1])), ["1969-12-31 23:59:59"]);
    assert_eq!(text(TimestampMillisecondArray::from(vec![1_500])), ["1970-01-01 00:00:01.5"]);
    // Nanoseconds are cut off towards the past.
    assert_eq!(
        text(TimestampNanosecondArray::from(vec![-1, 1])),
        ["1969-12-31 23:59:59.999999", "1970-01-01 00:00:00"]
    );
    assert_eq!(fails(TimestampSecondArray::from(vec![i64::MAX]), Format::Text), "22008");
    assert_eq!(fails(TimestampMicrosecondArray::from(vec![i64::MIN]), Format::Binary), "22008");
    assert_eq!(text(TimestampMicrosecondArray::from(vec![i64::MAX, i64::MIN])).len(), 2);
}

#[test]
fn timestamps_with_a_zone_are_shown_in_the_zone_of_the_session() {
    let at = |us: i64| TimestampMicrosecondArray::from(vec![us]).with_timezone("+00:00");
    let new_year = 1_704_067_200_000_000;
    let july = 1_719_792_000_000_000;
    let cases = [
        (new_year, "UTC", "2024-01-01 00:00:00+00"),
        (new_year, "Asia/Kolkata", "2024-01-01 05:30:00+05:30"),
        (new_year, "+05:30", "2024-01-01 05:30:00+05:30"),
        (-62_135_596_800_000_000, "Asia/Kolkata", "0001-01-01 05:53:28+05:53:28"),
        (-62_167_219_200_000_000, "Asia/Kolkata", "0001-01-01 05:53:28+05:53:28 BC"),
        (july, "America/St_Johns", "2024-06-30 21:30:00-02:30"),
        (-2_208_988_800_000_000, "America/St_Johns", "1899-12-31 20:29:08-03:30:52"),
        (july + 123_000, "Europe/Berlin", "2024-07-01 02:00:00.123+02"),
        (-2_524_521_600_000_000, "Europe/Berlin", "1890-01-01 00:53:28+00:53:28"),
    ];
    for (us, zone, expected) in cases {
        assert_eq!(text_in(at(us), zone), [expected], "{zone}");
    }
    // The binary form knows no zone.
    assert_eq!(binary(at(0)), ["fffca2fec4c82000"]);
    assert_eq!(text_in(at(i64::MAX), "Europe/Berlin").len(), 1);
    assert_eq!(text_in(at(i64::MIN), "Europe/Berlin").len(), 1);
    assert!(SessionTz::parse("Mars/Olympus").is_none());
}

#[test]
fn intervals_in_the_style_of_postgres() {
    let cases = [
        (0, 0, 0, "00:00:00", "00000000000000000000000000000000"),
        (14, 3, 14_706_789_000, "1 year 2 mons 3 days 04:05:06.789", "000000036c97ca88000000030000000e"),
        (-14, 3, -14_706_000_000, "-1 years -2 mons +3 days -04:05:06", "fffffffc93743f8000000003fffffff2"),
        (0, -1, 0, "-1 days", "0000000000000000ffffffff00000000"),
        (1, -1, 0, "1 mon -1 days", "0000000000000000ffffffff00000001"),
        (-1, 0, 1_000_000, "-1 mons +00:00:01", "00000000000f424000000000ffffffff"),
        (0, 0, 360_000_000_000, "100:00:00", "00000053d1ac10000000000000000000"),
        (0, 0, -500_000, "-00:00:00.5", "fffffffffff85ee00000000000000000"),
        (0, 1, 1, "1 day 00:00:00.000001", "00000000000000010000000100000000"),
    ];
    for (months, days, us, expected, bytes) in cases {
        let value = IntervalMonthDayNano::new(months, days, us * 1000);
        assert_eq!(text(IntervalMonthDayNanoArray::from(vec![value])), [expected]);
        assert_eq!(binary(IntervalMonthDayNanoArray::from(vec![value])), [bytes], "{expected}");
    }
    assert_eq!(text(IntervalYearMonthArray::from(vec![-13])), ["-1 years -1 mons"]);
    assert_eq!(text(IntervalDayTimeArray::from(vec![IntervalDayTime::new(2, -1)])), ["2 days -00:00:00.001"]);
    assert_eq!(text(DurationMicrosecondArray::from(vec![i64::MIN])), ["-106751991 days -04:00:54.775808"]);
    assert_eq!(text(DurationSecondArray::from(vec![90])), ["00:01:30"]);
    assert_eq!(fails(DurationSecondArray::from(vec![i64::MAX]), Format::Text), "22008");
}

#[test]
fn arrays_quote_what_needs_it() {
    let values = ["a", "", "null", "NULL", "a b", "a\"b", "a\\b", "{x}", "a,b", "tab\t", "é", "x'y"];
    let mut builder = ListBuilder::new(StringBuilder::new());
    values.iter().for_each(|v| builder.values().append_value(v));
    builder.values().append_null();
    builder.append(true);
    builder.append(true);
    builder.append(false);
    let array = builder.finish();
    let expected = r#"{a,"","null","NULL","a b","a\"b","a\\b","{x}","a,b","tab	",é,x'y,NULL}"#;
    assert_eq!(text(array), [expected, "{}", "NULL"]);

    let ints =
        ListArray::from_iter_primitive::<Int32Type, _, _>(vec![Some(vec![Some(1), None, Some(3)]), Some(vec![])]);
    assert_eq!(text(ints.clone()), ["{1,NULL,3}", "{}"]);
    assert_eq!(
        binary(ints.clone()),
        [
            "00000001000000010000001700000003000000010000000400000001ffffffff0000000400000003",
            "000000000000000000000017"
        ]
    );
    // A slice does not begin where its values do.
    assert_eq!(text(ints.slice(1, 1)), ["{}"]);
    let fixed = FixedSizeListArray::from_iter_primitive::<Int32Type, _, _>(
        vec![Some(vec![Some(1), Some(2)]), Some(vec![Some(3), None])],
        2,
    );
    assert_eq!(text(fixed.clone()), ["{1,2}", "{3,NULL}"]);
    assert_eq!(text(fixed.slice(1, 1)), ["{3,NULL}"]);
    let large = LargeListArray::from_iter_primitive::<Float64Type, _, _>(vec![Some(vec![Some(f64::NAN), Some(1.5)])]);
    assert_eq!(text(large), ["{NaN,1.5}"]);
    let mut times = ListBuilder::new(TimestampMicrosecondBuilder::new());
    times.values().append_value(1_704_067_200_000_000);
    times.values().append_null();
    times.append(true);
    assert_eq!(text(times.finish()), [r#"{"2024-01-01 00:00:00",NULL}"#]);
    let mut bytes = ListBuilder::new(BinaryBuilder::new());
    bytes.values().append_value([0, 255]);
    bytes.append(true);
    assert_eq!(text(bytes.finish()), [r#"{"\\x00ff"}"#]);
}

fn nested(rows: &[&[i32]]) -> ListArray {
    let mut builder = ListBuilder::new(ListBuilder::new(Int32Builder::new()));
    for row in rows {
        row.iter().for_each(|v| builder.values().values().append_value(*v));
        builder.values().append(true);
    }
    builder.append(true);
    builder.finish()
}

#[test]
fn nested_arrays_have_dimensions() {
    assert_eq!(text(nested(&[&[1, 2], &[3, 4]])), ["{{1,2},{3,4}}"]);
    assert_eq!(
        binary(nested(&[&[1, 2], &[3, 4]])),
        [concat!(
            "000000020000000000000017", // two dimensions, no nulls, int4
            "00000002000000010000000200000001",
            "00000004000000010000000400000002",
            "00000004000000030000000400000004"
        )]
    );
    // Rows of unequal length have no binary form; the text shows them as they are.
    assert_eq!(text(nested(&[&[1], &[2, 3]])), ["{{1},{2,3}}"]);
    assert_eq!(fails(nested(&[&[1], &[2, 3]]), Format::Binary), "2202E");
    assert_eq!(binary(nested(&[])), ["000000000000000000000017"]);
    assert_eq!(binary(nested(&[&[]])), ["000000000000000000000017"]);
}

#[test]
fn structs_and_maps_are_json() {
    let fields = Fields::from(vec![
        Field::new("a", DataType::Int32, true),
        Field::new("b \"q\"", DataType::Utf8, true),
        Field::new("t", DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), true),
        Field::new("f", DataType::Float64, true),
    ]);
    let array = StructArray::new(
        fields,
        vec![
            Arc::new(Int32Array::from(vec![Some(1), None])),
            Arc::new(StringArray::from(vec![Some("x\"y\\z\u{1}\n"), None])),
            Arc::new(TimestampMicrosecondArray::from(vec![Some(1_719_792_000_123_000), None]).with_timezone("UTC")),
            Arc::new(Float64Array::from(vec![Some(f64::NAN), Some(-1.5)])),
        ],
        Some(NullBuffer::from(vec![true, true])),
    );
    let expected = r#"{"a": 1, "b \"q\"": "x\"y\\z\u0001\n", "t": "2024-07-01T02:00:00.123+02:00", "f": "NaN"}"#;
    let nulls = r#"{"a": null, "b \"q\"": null, "t": null, "f": -1.5}"#;
    assert_eq!(text_in(array.clone(), "Europe/Berlin"), [expected, nulls]);
    assert!(binary(array.slice(1, 1))[0].starts_with("017b2261223a206e756c6c"));

    let mut map = MapBuilder::new(None, StringBuilder::new(), ListBuilder::new(Int32Builder::new()));
    map.keys().append_value("k");
    map.values().append_value([Some(1), None]);
    map.append(true).unwrap();
    map.append(true).unwrap();
    map.append(false).unwrap();
    assert_eq!(text(map.finish()), [r#"{"k": [1, null]}"#, "{}", "NULL"]);

    // An array of structs quotes their JSON.
    let inner = StructArray::from(vec![(
        Arc::new(Field::new("a", DataType::Int32, false)),
        Arc::new(Int32Array::from(vec![1])) as ArrayRef,
    )]);
    let field = Arc::new(Field::new_list_field(inner.data_type().clone(), true));
    let list = ListArray::new(field, OffsetBuffer::from_lengths([1]), Arc::new(inner), None);
    assert_eq!(text(list), [r#"{"{\"a\": 1}"}"#]);

    let union = UnionArray::try_new(
        [(0, Arc::new(Field::new("i", DataType::Int32, true))), (1, Arc::new(Field::new("s", DataType::Utf8, true)))]
            .into_iter()
            .collect(),
        ScalarBuffer::from(vec![0i8, 1, 1]),
        Some(ScalarBuffer::from(vec![0i32, 0, 1])),
        vec![Arc::new(Int32Array::from(vec![7])), Arc::new(StringArray::from(vec![Some("s"), None]))],
    )
    .unwrap();
    assert_eq!(text(union), ["7", "\"s\"", "NULL"]);
}

#[test]
fn hints_choose_another_type_of_the_same_form() {
    let hinted = |array: ArrayRef, oid: u32, format: Format| {
        let column = ResultColumn { pg_type_hint: Some(oid), ..column(&array) };
        encode(array, column, format, "UTC").map(|mut values| values.remove(0))
    };
    let oid: ArrayRef = Arc::new(Int64Array::from(vec![4_000_000_000i64]));
    assert_eq!(hex(hinted(oid.clone(), 26, Format::Binary).unwrap()), "ee6b2800");
    assert_eq!(show(hinted(oid, 26, Format::Text).unwrap()), "4000000000");
    let negative: ArrayRef = Arc::new(Int64Array::from(vec![-1i64]));
    assert_eq!(hinted(negative, 26, Format::Binary).unwrap_err().state.0, "22003");
    let keys: ArrayRef =
        Arc::new(ListArray::from_iter_primitive::<Int16Type, _, _>(vec![Some(vec![Some(1), Some(2), Some(3)])]));
    assert_eq!(show(hinted(keys.clone(), 22, Format::Text).unwrap()), "1 2 3");
    assert_eq!(
        hex(hinted(keys, 22, Format::Binary).unwrap()),
        "0000000100000000000000150000000300000000000000020001000000020002000000020003"
    );
    // A hint that the encoder cannot follow is left aside rather than sent wrongly.
    let text: ArrayRef = Arc::new(StringArray::from(vec!["x"]));
    assert_eq!(hex(hinted(text, 23, Format::Binary).unwrap()), "78");
}

#[test]
fn a_result_that_is_not_what_was_announced_is_refused() {
    let array: ArrayRef = Arc::new(Int64Array::from(vec![1]));
    let announced = ResultColumn::new(Arc::new(Field::new("c", DataType::Int32, true)));
    assert_eq!(encode(array, announced, Format::Binary, "UTC").unwrap_err().state.0, "XX000");
    // A view of text is as good as text.
    let array: ArrayRef = Arc::new(StringViewArray::from(vec!["x"]));
    let announced = ResultColumn::new(Arc::new(Field::new("c", DataType::Utf8, true)));
    assert_eq!(show(encode(array, announced, Format::Text, "UTC").unwrap().remove(0)), "x");
}
