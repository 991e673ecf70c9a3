#![allow(clippy::unwrap_used, clippy::expect_used)]

use arrow::array::{Array, AsArray};
use arrow::datatypes::{DataType, Int32Type, Int64Type, TimestampMicrosecondType};
use proptest::prelude::*;
use tidewater_catalogs::{ConnectionSpec, StartPosition, TableName};

use super::*;
use crate::ffi::TimestampType;

#[derive(Debug, Clone, Default)]
struct Fake {
    offset: i64,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    timestamp_ms: Option<i64>,
    headers: Vec<(String, Option<Vec<u8>>)>,
}

impl Record for Fake {
    fn offset(&self) -> i64 {
        self.offset
    }
    fn key(&self) -> Option<&[u8]> {
        self.key.as_deref()
    }
    fn value(&self) -> Option<&[u8]> {
        self.value.as_deref()
    }
    fn timestamp_ms(&self) -> Option<(i64, TimestampType)> {
        self.timestamp_ms.map(|ms| (ms, TimestampType::Create))
    }
    fn headers(&self, each: &mut dyn FnMut(&[u8], Option<&[u8]>)) {
        self.headers.iter().for_each(|(name, value)| each(name.as_bytes(), value.as_deref()));
    }
}

fn value(offset: i64, value: &str) -> Fake {
    Fake { offset, value: Some(value.as_bytes().to_vec()), timestamp_ms: Some(1_000 + offset), ..Fake::default() }
}

fn spec(columns: Vec<StreamColumn>) -> StreamSpec {
    StreamSpec {
        name: TableName::public("s"),
        connection: ConnectionSpec { name: "k".into(), kind: "kafka".into(), options: Default::default() },
        topic: "orders".into(),
        format: StreamFormat::Json,
        columns,
        start: StartPosition::Earliest,
        on_error: OnError::Dlq,
        read_uncommitted: false,
        key_column: None,
    }
}

fn columns() -> Vec<StreamColumn> {
    vec![
        StreamColumn::Value(Field::new("id", DataType::Int64, false)),
        StreamColumn::Metadata { field: Field::new("region", DataType::Utf8, true), from: "header.region".into() },
        StreamColumn::Value(Field::new("name", DataType::Utf8, true)),
    ]
}

fn lane(projection: &[usize], on_error: OnError, from: i64, until: Option<i64>) -> Lane {
    let plan = ReadPlan::new(&spec(columns()), projection, on_error, true).unwrap();
    Lane::new(Arc::new(plan), 7, from, until).unwrap()
}

#[test]
fn rows_and_dead_letters_keep_their_order() {
    let all: Vec<usize> = (0..11).collect();
    let mut lane = lane(&all, OnError::Dlq, 10, None);
    lane.push(&Fake {
        key: Some(b"k".to_vec()),
        headers: vec![
            ("region".into(), Some(b"eu".to_vec())),
            ("region".into(), Some(b"us".to_vec())),
            ("n".into(), None),
            ("raw".into(), Some(vec![0xff, 0x01])),
        ],
        ..value(10, r#"{"id":1,"name":"a"}"#)
    })
    .unwrap();
    lane.push(&value(12, r#"{"id":"x"}"#)).unwrap();
    lane.push(&Fake { headers: vec![("region".into(), Some(vec![0xff]))], ..value(13, r#"{"id":2}"#) }).unwrap();
    lane.push(&Fake { offset: 14, ..Fake::default() }).unwrap();
    lane.push(&value(15, r#"{"id":3}"#)).unwrap();
    lane.reach(18);
    let batch = lane.flush().unwrap();

    assert_eq!((batch.partition, batch.from, batch.to, batch.records, batch.skipped), (7, 10, 18, 5, 0));
    assert_eq!(batch.max_timestamp_ms, 1_015);
    let rows = &batch.rows;
    assert_eq!(rows.column(0).as_primitive::<Int64Type>().values(), &[1, 3]);
    assert_eq!(rows.column(1).as_string::<i32>().iter().collect::<Vec<_>>(), [Some("us"), None]);
    assert_eq!(rows.column(3).as_string::<i32>().value(1), "orders");
    assert_eq!(rows.column(4).as_primitive::<Int32Type>().values(), &[7, 7]);
    assert_eq!(rows.column(5).as_primitive::<Int64Type>().values(), &[10, 15]);
    assert_eq!(rows.column(6).as_primitive::<TimestampMicrosecondType>().values(), &[1_010_000, 1_015_000]);
    assert_eq!(rows.column(7).as_string::<i32>().value(0), "create");
    assert_eq!(rows.column(8).as_binary::<i32>().iter().collect::<Vec<_>>(), [Some(&b"k"[..]), None]);
    assert_eq!(
        rows.column(9).as_string::<i32>().iter().collect::<Vec<_>>(),
        [Some(r#"{"region":"eu","region":"us","n":null,"raw":"\\xff01"}"#), None]
    );
    assert_eq!(rows.column(10).as_binary::<i32>().value(1), br#"{"id":3}"#);

    let dead = batch.dead_letters.unwrap();
    assert_eq!(dead.column(2).as_primitive::<Int64Type>().values(), &[12, 13, 14]);
    let errors: Vec<_> = dead.column(7).as_string::<i32>().iter().flatten().collect();
    assert_eq!(
        errors,
        [
            "column \"id\": expected a bigint, found \"x\"",
            "column \"region\": not UTF-8 at byte 0",
            "record has no value",
        ]
    );
    assert!(dead.column(5).is_null(2), "a tombstone has no value");
    assert!(dead.column(3).is_null(2), "nor a time");
    assert!(dead.column(8).is_null(0) && dead.column(9).is_null(0));

    assert_eq!(
        dead.column_by_name("_timestamp_type").unwrap().as_string::<i32>().iter().collect::<Vec<_>>(),
        [Some("create"), Some("create"), None]
    );

    assert!(!lane.has_news());
    assert_eq!(lane.next, 18);
}

/// A letter that is read again with a definition that takes it gives the row that the record would have given, every
/// column of it; one that still cannot be read gives none.
#[test]
fn dead_letters_read_again_are_the_records_they_were() {
    let all: Vec<usize> = (0..11).collect();
    let records = [
        Fake {
            key: Some(b"k".to_vec()),
            headers: vec![("region".into(), Some(b"eu".to_vec())), ("raw".into(), Some(vec![0xff, 0x01]))],
            ..value(12, r#"{"id":"x","name":"a"}"#)
        },
        value(13, "{}"),
        Fake { offset: 14, ..Fake::default() },
        value(15, r#"{"id":"","name":null}"#),
    ];
    let mut strict = lane(&all, OnError::Dlq, 10, None);
    let mut mended = columns();
    mended[0] = StreamColumn::Value(Field::new("id", DataType::Utf8, false));
    let plan = ReadPlan::new(&spec(mended.clone()), &all, OnError::Skip, false).unwrap();
    let mut direct = Lane::new(Arc::new(plan), 7, 10, None).unwrap();
    for record in &records {
        strict.push(record).unwrap();
        direct.push(record).unwrap();
    }
    let letters = strict.flush().unwrap().dead_letters.unwrap();
    assert_eq!(letters.num_rows(), 4);
    let decoded = crate::letters::decode(&spec(mended), 7, &letters, &all).unwrap();
    assert_eq!(decoded.readable, [true, false, false, true]);
    assert_eq!(decoded.rows, direct.flush().unwrap().rows);
    assert_eq!(decoded.rows.num_rows(), 2);

    let again = crate::letters::decode(&spec(columns()), 7, &letters, &[0]).unwrap();
    assert_eq!((again.readable, again.rows.num_rows()), (vec![false; 4], 0));
}

#[test]
fn skip_counts_and_fail_names_the_record() {
    let mut skipping = lane(&[0], OnError::Skip, 0, None);
    skipping.push(&value(0, "{}")).unwrap();
    skipping.push(&value(1, r#"{"id":1}"#)).unwrap();
    let batch = skipping.flush().unwrap();
    assert_eq!((batch.records, batch.skipped, batch.rows.num_rows(), batch.dead_letters.is_none()), (2, 1, 1, true));

    let mut failing = lane(&[0], OnError::Fail, 0, None);
    failing.push(&value(0, r#"{"id":1}"#)).unwrap();
    let e = failing.push(&value(1, "{}")).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::DataCorrupt);
    assert!(e.to_string().contains("(topic: orders, partition: 7, offset: 1)"), "{e}");
    let batch = failing.flush().unwrap();
    assert_eq!((batch.from, batch.to, batch.rows.num_rows()), (0, 1, 1));
}

#[test]
fn no_column_still_counts_rows() {
    let mut lane = lane(&[], OnError::Dlq, 0, Some(3));
    lane.push(&value(0, r#"{"id":1}"#)).unwrap();
    lane.push(&value(1, r#"{"id":null}"#)).unwrap();
    assert!(!lane.done);
    lane.push(&value(2, r#"{"id":2}"#)).unwrap();
    assert!(lane.done);
    let batch = lane.flush().unwrap();
    assert_eq!((batch.rows.num_rows(), batch.rows.num_columns()), (2, 0));
}

#[test]
fn control_records_end_a_bounded_read() {
    let mut reading = lane(&[0], OnError::Dlq, 0, Some(5));
    reading.push(&value(2, r#"{"id":1}"#)).unwrap();
    reading.reach(4);
    assert!(!reading.done);
    reading.reach(5);
    assert!(reading.done);
    assert!(lane(&[0], OnError::Dlq, 5, Some(5)).done, "an empty range has nothing to read");
}

#[test]
fn metadata_is_checked_when_the_stream_is_made() {
    let with = |from: &str, data_type| {
        let column = StreamColumn::Metadata { field: Field::new("m", data_type, true), from: from.into() };
        let mut columns = columns();
        columns.push(column);
        ReadPlan::new(&spec(columns), &[], OnError::Dlq, true).map(|_| ())
    };
    with("key", DataType::Utf8).unwrap();
    with("_key", DataType::Binary).unwrap();
    with("timestamp", DataType::Int64).unwrap();
    for (from, data_type) in
        [("colour", DataType::Utf8), ("header.", DataType::Utf8), ("offset", DataType::Utf8), ("key", DataType::Int64)]
    {
        assert_eq!(with(from, data_type).unwrap_err().kind(), ErrorKind::InvalidInput, "{from}");
    }
}

proptest! {
    /// Whatever offsets come, and wherever batches are cut: `[from, to)` of one batch after the other has no gap, and
    /// every record is a row or a dead letter of the batch that covers its offset.
    #[test]
    fn offsets_chain(
        steps in prop::collection::vec((0i64..4, 0u8..4, any::<bool>()), 0..60),
        start in 0i64..1000,
    ) {
        let mut lane = lane(&[0, 5], OnError::Dlq, start, None);
        let (mut next, mut expected) = (start, start);
        let check = |lane: &mut Lane, expected: &mut i64| -> std::result::Result<(), TestCaseError> {
            let before = lane.next;
            let batch = lane.flush().unwrap();
            prop_assert_eq!(batch.from, *expected);
            prop_assert_eq!(batch.to, before);
            let dead = batch.dead_letters.as_ref().map_or(0, RecordBatch::num_rows);
            prop_assert_eq!(batch.records as usize, batch.rows.num_rows() + dead);
            let offsets = batch.rows.column(1).as_primitive::<Int64Type>();
            prop_assert!(offsets.values().iter().all(|o| (batch.from..batch.to).contains(o)));
            prop_assert!(offsets.values().is_sorted());
            *expected = batch.to;
            Ok(())
        };
        for (gap, kind, cut) in steps {
            next += gap;
            match kind {
                0 => lane.reach(next),
                1 => {
                    lane.push(&value(next, "{\"id\":")).unwrap();
                    next += 1;
                }
                _ => {
                    lane.push(&value(next, r#"{"id":1}"#)).unwrap();
                    next += 1;
                }
            }
            prop_assert!(lane.next >= next.min(lane.next));
            next = lane.next.max(next);
            if cut {
                check(&mut lane, &mut expected)?;
            }
        }
        check(&mut lane, &mut expected)?;
        prop_assert_eq!(expected, lane.next);
    }
}
