#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::io::Write;

use super::*;
use crate::batch::BatchHeader;
use crate::batch::tests::batch;

const LIMITS: LogLimits = LogLimits { segment_bytes: 10_000, retention_bytes: 1 << 30 };

fn offsets(bytes: &[u8]) -> Vec<i64> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let h = BatchHeader::parse(&bytes[at..]).unwrap();
        found.extend(h.base_offset..=h.last_offset());
        at += h.size;
    }
    assert_eq!(at, bytes.len(), "whole batches only");
    found
}

fn read_all(log: &PartitionLog) -> Vec<i64> {
    let Span { start, end } = log.span();
    let mut all = Vec::new();
    let mut next = start;
    while next < end {
        let mut got = offsets(&log.read(next, 3_000, true).unwrap().bytes);
        got.retain(|o| *o >= next);
        next = got.last().unwrap() + 1;
        all.extend(got);
    }
    all
}

#[test]
fn every_offset_is_found_again_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let log = PartitionLog::open(dir.path().into(), LIMITS).unwrap();
    for i in 0..200 {
        log.append(&mut batch(&vec![i; 1 + i as usize % 5], None, 40 + i as usize * 3)).unwrap();
    }
    let Span { start, end } = log.span();
    assert_eq!((start, end), (0, 600));
    for log in [log, PartitionLog::open(dir.path().into(), LIMITS).unwrap()] {
        assert_eq!(log.span(), Span { start, end });
        assert_eq!(read_all(&log), (0..600).collect::<Vec<_>>());
        for offset in 0..end {
            for max in [1, 500, 5_000] {
                let got = offsets(&log.read(offset, max, true).unwrap().bytes);
                assert!(got.contains(&offset), "{offset} with {max}");
            }
            assert!(log.available(offset).unwrap() > 0);
        }
        assert_eq!(log.available(end), Ok(0));
        assert!(log.read(0, 1, false).unwrap().bytes.is_empty());
        assert!(matches!(log.read(end + 1, 1, true), Err(ReadError::OutOfRange(_))));
        assert!(matches!(log.read(-1, 1, true), Err(ReadError::OutOfRange(_))));
    }
}

/// A process killed while it writes leaves the front of a batch behind, of any length.
#[test]
fn torn_tail_is_cut_wherever_it_tore() {
    let torn = batch(&[9, 9], None, 50);
    for cut in 1..torn.len() {
        let dir = tempfile::tempdir().unwrap();
        let log = PartitionLog::open(dir.path().into(), LIMITS).unwrap();
        log.append(&mut batch(&[1, 2, 3], None, 10)).unwrap();
        drop(log);
        let path = dir.path().join(format!("{:020}.log", 0));
        let size = fs::metadata(&path).unwrap().len();
        let mut tail = torn.clone();
        crate::batch::place(&mut tail, 3, 0);
        fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(&tail[..cut]).unwrap();
        let log = PartitionLog::open(dir.path().into(), LIMITS).unwrap();
        assert_eq!(log.span(), Span { start: 0, end: 3 });
        assert_eq!(fs::metadata(&path).unwrap().len(), size);
        assert_eq!(log.append(&mut batch(&[4], None, 1)).unwrap().base_offset, 3);
        assert_eq!(read_all(&log), [0, 1, 2, 3]);
    }
}

#[test]
fn damage_in_a_closed_segment_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let log = PartitionLog::open(dir.path().into(), LIMITS).unwrap();
    for i in 0..10 {
        log.append(&mut batch(&[i], None, 4_000)).unwrap();
    }
    drop(log);
    let path = dir.path().join(format!("{:020}.log", 0));
    let size = fs::metadata(&path).unwrap().len();
    fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(size - 1).unwrap();
    let error = PartitionLog::open(dir.path().into(), LIMITS).unwrap_err();
    assert!(matches!(error, crate::Error::Corrupt { .. }), "{error}");
}

#[test]
fn retention_drops_old_segments_and_moves_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let limits = LogLimits { segment_bytes: 10_000, retention_bytes: 25_000 };
    let log = PartitionLog::open(dir.path().into(), limits).unwrap();
    for i in 0..50 {
        log.append(&mut batch(&[i], None, 2_000)).unwrap();
    }
    let span = log.span();
    assert!(span.start > 30 && span.start < 45, "{span:?}");
    assert!(log.bytes() <= 25_000 + 2_200);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3);
    assert!(matches!(log.read(span.start - 1, 100, true), Err(ReadError::OutOfRange(s)) if s == span));
    drop(log);
    assert_eq!(PartitionLog::open(dir.path().into(), limits).unwrap().span(), span);
}

#[test]
fn deleted_records_stay_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let log = PartitionLog::open(dir.path().into(), LIMITS).unwrap();
    for i in 0..20 {
        log.append(&mut batch(&[i, i], None, 1_500)).unwrap();
    }
    assert_eq!(log.delete_records(41).unwrap(), None);
    assert_eq!(log.delete_records(11).unwrap(), Some(11));
    assert_eq!(log.delete_records(5).unwrap(), Some(11));
    assert_eq!(read_all(&log), (11..40).collect::<Vec<_>>());
    assert_eq!(log.delete_records(-1).unwrap(), Some(40));
    drop(log);
    let log = PartitionLog::open(dir.path().into(), LIMITS).unwrap();
    assert_eq!(log.span(), Span { start: 40, end: 40 });
    // The open segment is lost whole: offsets must not be given twice all the same.
    drop(log);
    for entry in fs::read_dir(dir.path()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "log") {
            fs::remove_file(path).unwrap();
        }
    }
    let log = PartitionLog::open(dir.path().into(), LIMITS).unwrap();
    assert_eq!(log.append(&mut batch(&[1], None, 1)).unwrap().base_offset, 40);
}

#[test]
fn batches_sent_again_are_stored_once_across_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let log = PartitionLog::open(dir.path().into(), LIMITS).unwrap();
    for i in 0..3 {
        log.append(&mut batch(&[1, 1], Some((5, 0, i * 2)), 10)).unwrap();
    }
    for log in [log, PartitionLog::open(dir.path().into(), LIMITS).unwrap()] {
        assert_eq!(log.append(&mut batch(&[1, 1], Some((5, 0, 2)), 10)).unwrap().base_offset, 2);
        assert_eq!(log.span().end, 6);
        assert!(matches!(
            log.append(&mut batch(&[1], Some((5, 0, 7)), 10)),
            Err(AppendError::Sequence(crate::producers::Sequence::OutOfOrder))
        ));
    }
}

#[test]
fn offsets_by_time_agree_with_a_plain_search() {
    let dir = tempfile::tempdir().unwrap();
    let log = PartitionLog::open(dir.path().into(), LIMITS).unwrap();
    let mut stamps: Vec<i64> = Vec::new();
    let mut state = 7u64;
    for i in 0..300i64 {
        let batch_stamps: Vec<i64> = (0..4)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                i * 10 + ((state >> 33) % 60) as i64
            })
            .collect();
        log.append(&mut batch(&batch_stamps, None, 100)).unwrap();
        stamps.extend(batch_stamps);
    }
    for t in -5..3_100 {
        // The batch is the first whose largest timestamp is late enough, and so is the record in it.
        let expected = stamps.iter().position(|s| *s >= t).map(|i| i as i64);
        assert_eq!(log.find_time(t).unwrap().map(|f| f.0), expected, "{t}");
    }
    let max = *stamps.iter().max().unwrap();
    let at = stamps.iter().position(|s| *s == max).unwrap() as i64;
    assert_eq!(log.find_latest().unwrap(), Some((at, max)));
}
