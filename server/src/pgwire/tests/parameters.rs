//! Values of Bind, through the loop and back: what goes in comes out, or is refused.

use super::client::{Server, bind, describe, execute, kinds, parse, sync};
use crate::pgwire::decode::parameter;
use crate::pgwire::encode::{Format, SessionTz};
use arrow::datatypes::{DataType, Field, IntervalMonthDayNano, IntervalUnit, TimeUnit};
use bytes::Bytes;
use datafusion::common::ScalarValue as V;
use std::sync::Arc;

#[tokio::test]
async fn types_are_inferred_or_as_the_client_says() {
    let server = Server::new();
    let mut client = server.connect().await;
    let replies = client.ask(&[parse("", "echo int4", &[]), describe(b'S', ""), sync()]).await;
    assert_eq!(kinds(&replies), "1tTZ");
    assert_eq!(&replies[1].body[..], b"\0\x01\0\0\0\x17");
    let replies = client.ask(&[parse("", "echo int4", &[0]), describe(b'S', ""), sync()]).await;
    assert_eq!(&replies[1].body[..], b"\0\x01\0\0\0\x17");
    let replies = client.ask(&[parse("", "echo int4", &[20]), describe(b'S', ""), sync()]).await;
    assert_eq!(&replies[1].body[..], b"\0\x01\0\0\0\x14");
}

#[tokio::test]
async fn values_come_back_as_they_went() {
    let server = Server::new();
    let mut client = server.connect().await;
    let day = 86_400_000_000i64.to_be_bytes();
    let array = [1i32, 1, 23, 3, 1, 4, 7, -1, 4, 9].map(i32::to_be_bytes).concat();
    let cases: [(&str, &[u8], &[u8]); 6] = [
        ("int4", b"-12", &[255, 255, 255, 244]),
        ("int8", b"9223372036854775807", &[127, 255, 255, 255, 255, 255, 255, 255]),
        ("text", "caf\u{e9} 'x'".as_bytes(), "caf\u{e9} 'x'".as_bytes()),
        ("numeric", b"-123.40", b"\0\x02\0\0\x40\0\0\x02\0\x7b\x0f\xa0"),
        ("timestamptz", b"2000-01-02 00:00:00+00", &day),
        ("int4s", b"{7,NULL,9}", &array),
    ];
    for (name, text, binary) in cases {
        client.ask(&[parse("s", &format!("echo {name}"), &[]), sync()]).await;
        for (format, value) in [(0i16, text), (1, binary)] {
            for (result, expected) in [(0i16, text), (1, binary)] {
                let replies =
                    client.ask(&[bind("", "s", &[format], &[Some(value)], &[result]), execute("", 0), sync()]).await;
                assert_eq!(kinds(&replies), "2DCZ", "{name}: {replies:?}");
                assert_eq!(replies[1].values()[0].as_deref(), Some(expected), "{name} {format} {result}");
            }
        }
        let replies = client.ask(&[bind("", "s", &[], &[None], &[]), execute("", 0), sync()]).await;
        assert_eq!(replies[1].texts(), ["NULL"]);
        client.ask(&[super::client::close(b'S', "s"), sync()]).await;
    }
}

fn read(oid: u32, format: Format, value: &[u8], target: &DataType) -> Result<V, &'static str> {
    let tz = SessionTz::parse("Asia/Kolkata").unwrap();
    parameter(oid, format, Some(Bytes::copy_from_slice(value)), target, &tz).map_err(|e| e.state.0)
}

fn text(value: &str, target: &DataType) -> Result<V, &'static str> {
    read(0, Format::Text, value.as_bytes(), target)
}

#[test]
fn texts_of_numbers() {
    assert_eq!(text(" 7 ", &DataType::Int16), Ok(V::Int16(Some(7))));
    assert_eq!(text("32768", &DataType::Int16), Err("22003"));
    assert_eq!(text("1.5", &DataType::Int32), Err("22P02"));
    assert_eq!(text("", &DataType::Int64), Err("22P02"));
    assert_eq!(text("-1", &DataType::UInt64), Err("22003"));
    assert_eq!(text("-Infinity", &DataType::Float64), Ok(V::Float64(Some(f64::NEG_INFINITY))));
    assert_eq!(text("1e-3", &DataType::Float32), Ok(V::Float32(Some(0.001))));
    for (value, expected) in [
        ("t", true),
        ("TRUE", true),
        ("yes", true),
        ("on", true),
        ("1", true),
        ("f", false),
        ("no", false),
        ("off", false),
        ("0", false),
    ] {
        assert_eq!(text(value, &DataType::Boolean), Ok(V::Boolean(Some(expected))), "{value}");
    }
    assert_eq!(text("o", &DataType::Boolean), Err("22P02"));
}

#[test]
fn numerics_are_exact_or_refused() {
    let target = DataType::Decimal128(10, 2);
    let is = |mantissa| Ok(V::Decimal128(Some(mantissa), 10, 2));
    for (value, mantissa) in [
        ("0", 0),
        ("-0.00", 0),
        ("1", 100),
        ("+1.5", 150),
        (".5", 50),
        ("5.", 500),
        ("1.10000", 110),
        ("1e3", 100_000),
        ("12.5e-1", 125),
        ("99999999.99", 9_999_999_999),
        ("-99999999.99", -9_999_999_999),
        ("000000000000012", 1200),
    ] {
        assert_eq!(text(value, &target), is(mantissa), "{value}");
    }
    for (value, state) in [
        ("1.005", "22003"),
        ("100000000", "22003"),
        ("1e-3", "22003"),
        ("1e400", "22003"),
        ("NaN", "22P02"),
        ("", "22P02"),
        (".", "22P02"),
        ("1.2.3", "22P02"),
        ("--1", "22P02"),
        ("1e", "22P02"),
        ("1e99999999999", "22P02"),
    ] {
        assert_eq!(text(value, &target), Err(state), "{value}");
    }
    let wide = "-".to_owned() + &"9".repeat(76);
    assert_eq!(text(&wide, &DataType::Decimal256(76, 0)).unwrap().to_string(), format!("Some({wide}),76,0"));
    // numeric_send of 12345.678, NaN, and things that are none
    let numeric = |bytes: &[u8]| read(1700, Format::Binary, bytes, &DataType::Decimal128(10, 3));
    let sent = [0, 3, 0, 1, 0, 0, 0, 3, 0, 1, 0x09, 0x29, 0x1a, 0x7c];
    assert_eq!(numeric(&sent), Ok(V::Decimal128(Some(12_345_678), 10, 3)));
    assert_eq!(numeric(&[0, 0, 0, 0, 0xc0, 0, 0, 0]), Err("22P02"));
    assert_eq!(numeric(&[0, 1, 0, 0, 0, 0, 0, 0, 0x27, 0x10]), Err("22P03"));
    assert_eq!(numeric(&[0xff, 0xff, 0, 0, 0, 0, 0, 0]), Err("22P03"));
    assert_eq!(numeric(&[0, 1]), Err("22P03"));
    assert_eq!(numeric(&[0, 1, 0x7f, 0xff, 0, 0, 0, 0, 0, 1]), Err("22003"));
}

#[test]
fn dates_and_times() {
    let us = TimeUnit::Microsecond;
    let wall = DataType::Timestamp(us, None);
    let instant = DataType::Timestamp(us, Some("+00:00".into()));
    let at = |us| Ok(V::TimestampMicrosecond(Some(us), None));
    assert_eq!(text("2000-01-01", &DataType::Date32), Ok(V::Date32(Some(10_957))));
    assert_eq!(text("1969-12-31", &DataType::Date32), Ok(V::Date32(Some(-1))));
    assert_eq!(text("2000-13-01", &DataType::Date32), Err("22007"));
    assert_eq!(text("12:34:56.5", &DataType::Time64(us)), Ok(V::Time64Microsecond(Some(45_296_500_000))));
    assert_eq!(text("25:00", &DataType::Time64(us)), Err("22007"));
    assert_eq!(text("1970-01-01 00:00:01.000002", &wall), at(1_000_002));
    // The wall clock as it stands; an offset does not move it.
    for value in ["1970-01-01T10:00:00", "1970-01-01 10:00:00+05", "1970-01-01 10:00:00Z", "1970-01-01 10:00:00 -03:30"]
    {
        assert_eq!(text(value, &wall), at(36_000_000_000), "{value}");
    }
    let zoned = |value: &str| match text(value, &instant) {
        Ok(V::TimestampMicrosecond(us, Some(_))) => us.ok_or("null"),
        Ok(_) => Err("other type"),
        Err(e) => Err(e),
    };
    assert_eq!(zoned("1970-01-01 00:00:00+00"), Ok(0));
    assert_eq!(zoned("1970-01-01T05:30:00+05:30"), Ok(0));
    // Without an offset it is the session's zone that counts.
    assert_eq!(zoned("1970-01-01 05:30:00"), Ok(0));
    assert_eq!(zoned("yesterday"), Err("22007"));
    let seconds = DataType::Timestamp(TimeUnit::Second, None);
    assert_eq!(text("1970-01-01 00:01:00", &seconds), Ok(V::TimestampSecond(Some(60), None)));
    let hour = 3_600_000_000_000i64;
    let span = DataType::Interval(IntervalUnit::MonthDayNano);
    for (value, (months, days, ns)) in [
        ("1 month 2 days 03:00:00", (1, 2, 3 * hour)),
        ("-1 years -2 mons +3 days -04:05:06.5", (-14, 3, -(4 * hour + 306_500_000_000))),
        ("1 week", (0, 7, 0)),
        ("90 minutes", (0, 0, hour + hour / 2)),
        ("-0.25 seconds", (0, 0, -250_000_000)),
        ("00:00:00", (0, 0, 0)),
        ("100:00", (0, 0, 100 * hour)),
        ("P1DT2H", (0, 1, 2 * hour)),
    ] {
        let expected = IntervalMonthDayNano::new(months, days, ns);
        assert_eq!(text(value, &span), Ok(V::IntervalMonthDayNano(Some(expected))), "{value}");
    }
    for wrong in
        ["", "1", "day", "1.5 days", "1 parsec", "1:60", "1:-1", "1:2:3:4", "9999999999 years", "1 day 2", "P1X"]
    {
        assert_eq!(text(wrong, &span), Err("22007"), "{wrong}");
    }
    let binary = |oid, bytes: &[u8], target: &DataType| read(oid, Format::Binary, bytes, target);
    assert_eq!(binary(1082, &(-1i32).to_be_bytes(), &DataType::Date32), Ok(V::Date32(Some(10_956))));
    assert_eq!(binary(1114, &0i64.to_be_bytes(), &wall), at(946_684_800_000_000));
    // PostgreSQL's infinity has no place in the engine's timestamps.
    assert_eq!(binary(1114, &i64::MAX.to_be_bytes(), &wall), Err("22008"));
}

#[test]
fn bytes_uuids_and_texts() {
    assert_eq!(text("\\x00fF", &DataType::Binary), Ok(V::Binary(Some(vec![0, 255]))));
    assert_eq!(text("a\\\\b\\000", &DataType::Binary), Ok(V::Binary(Some(b"a\\b\0".to_vec()))));
    for wrong in ["\\x0", "\\xzz", "\\9", "\\"] {
        assert_eq!(text(wrong, &DataType::Binary), Err("22P02"), "{wrong}");
    }
    let id = DataType::FixedSizeBinary(16);
    let bytes: Vec<u8> = (0..16).collect();
    assert_eq!(text("00010203-0405-0607-0809-0a0b0c0d0e0f", &id), Ok(V::FixedSizeBinary(16, Some(bytes.clone()))));
    assert_eq!(text("00010203", &id), Err("22P02"));
    assert_eq!(read(2950, Format::Binary, &bytes, &id), Ok(V::FixedSizeBinary(16, Some(bytes.clone()))));
    assert_eq!(read(2950, Format::Binary, &bytes[1..], &id), Err("22P03"));
    // To queries a uuid is text, in one form whatever the client wrote.
    let shown = Ok(V::Utf8(Some("00010203-0405-0607-0809-0a0b0c0d0e0f".to_owned())));
    assert_eq!(read(2950, Format::Binary, &bytes, &DataType::Utf8), shown);
    assert_eq!(read(2950, Format::Text, b"{000102030405060708090A0B0C0D0E0F}", &DataType::Utf8), shown);
    assert_eq!(read(2950, Format::Text, b"0001", &DataType::Utf8), Err("22P02"));
    assert_eq!(read(2950, Format::Binary, &bytes[1..], &DataType::Utf8), Err("22P03"));
    assert_eq!(text("a\0b", &DataType::Utf8), Err("22021"));
    assert_eq!(read(25, Format::Binary, b"\xff", &DataType::Utf8), Err("22021"));
    assert_eq!(read(25, Format::Binary, b"x", &DataType::Utf8View), Ok(V::Utf8View(Some("x".to_owned()))));
    assert_eq!(read(3802, Format::Binary, b"\x01{}", &DataType::Utf8), Ok(V::Utf8(Some("{}".to_owned()))));
    assert_eq!(read(3802, Format::Binary, b"{}", &DataType::Utf8), Err("22P03"));
    assert_eq!(read(869, Format::Binary, b"x", &DataType::Utf8), Err("0A000"));
    // A wider integer than the query takes is checked, not cut.
    assert_eq!(read(20, Format::Binary, &7i64.to_be_bytes(), &DataType::Int32), Ok(V::Int32(Some(7))));
    assert_eq!(read(20, Format::Binary, &i64::MAX.to_be_bytes(), &DataType::Int32), Err("22003"));
}

#[test]
fn array_literals() {
    let list = DataType::List(Arc::new(Field::new_list_field(DataType::Utf8, true)));
    let items = |value: &str| {
        text(value, &list).map(|v| {
            let V::List(array) = v else { panic!() };
            let values = array.value(0);
            let values = arrow::array::AsArray::as_string::<i32>(&values).clone();
            values.iter().map(|v| v.unwrap_or("NULL!").to_owned()).collect::<Vec<_>>()
        })
    };
    assert_eq!(items("{}").unwrap(), Vec::<String>::new());
    assert_eq!(items("{a, b c ,NULL,\"NULL\"}").unwrap(), ["a", "b c", "NULL!", "NULL"]);
    assert_eq!(items(r#"{"a\"b\\c","{x,y}",""}"#).unwrap(), ["a\"b\\c", "{x,y}", ""]);
    for wrong in ["", "a", "{a", "{a,}", "{,a}", "{\"a}", "{\"a\"b}", "{a}}"] {
        assert!(matches!(items(wrong), Err("22P02" | "0A000")), "{wrong}");
    }
    assert_eq!(items("{{a},{b}}"), Err("0A000"));
    let ints = DataType::List(Arc::new(Field::new_list_field(DataType::Int32, true)));
    let binary = |parts: &[i32]| {
        read(1007, Format::Binary, &parts.iter().flat_map(|p| p.to_be_bytes()).collect::<Vec<_>>(), &ints)
    };
    assert!(binary(&[0, 0, 23]).is_ok());
    assert_eq!(binary(&[1, 0, 20, 1, 1, 4, 7]), Err("42804"));
    assert_eq!(binary(&[2, 0, 23, 1, 1, 1, 1, 4, 7]), Err("0A000"));
    for wrong in [
        &[][..],
        &[1],
        &[1, 0, 23],
        &[1, 0, 23, 2, 1, 4, 7],
        &[1, 0, 23, 1, 1, 4],
        &[1, 0, 23, 1, 1, 4, 7, 7],
        &[1, 0, 23, -1, 1],
        &[1, 0, 23, i32::MAX, 1],
    ] {
        assert_eq!(binary(wrong), Err("22P03"), "{wrong:?}");
    }
}
