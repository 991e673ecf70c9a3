use std::fs::File;
use std::os::unix::fs::FileExt;

use bytes::Bytes;

use super::partition::{Inner, PartitionLog, Span};
use super::segment::{INDEX_GAP_BYTES, Segment};
use crate::batch::{self, BatchHeader, HEADER_BYTES};

/// Whole batches, the first of which holds the offset that was asked for (and maybe some before it).
#[derive(Debug, Clone)]
pub struct Records {
    pub bytes: Bytes,
    pub span: Span,
}

#[derive(Debug)]
pub enum ReadError {
    OutOfRange(Span),
    Io(std::io::Error),
}

impl PartitionLog {
    /// About how many bytes a reader at `offset` would find; 0 only where there is nothing. `Err` where the offset
    /// is none of this log.
    pub fn available(&self, offset: i64) -> Result<u64, Span> {
        let inner = self.inner.lock();
        let span = inner.span();
        if offset < span.start || offset > span.end {
            return Err(span);
        }
        let at = inner.segments.partition_point(|s| s.next_offset <= offset);
        Ok(inner.segments.range(at..).enumerate().map(|(i, s)| s.size - if i == 0 { s.floor(offset) } else { 0 }).sum())
    }

    /// Batches from `offset` on, at most `max_bytes` of them; with `at_least_one` the first comes even if it is
    /// larger. Ends at the end of a segment.
    pub fn read(&self, offset: i64, max_bytes: usize, at_least_one: bool) -> Result<Records, ReadError> {
        let (file, floor, size, span) = {
            let inner = self.inner.lock();
            let span = inner.span();
            if offset < span.start || offset > span.end {
                return Err(ReadError::OutOfRange(span));
            }
            let at = inner.segments.partition_point(|s| s.next_offset <= offset);
            let Some(segment) = inner.segments.get(at) else {
                return Ok(Records { bytes: Bytes::new(), span });
            };
            (segment.reader().map_err(ReadError::Io)?, segment.floor(offset), segment.size, span)
        };
        // Batches in front of the wanted one, from its index entry on, are shorter than the gap.
        let wanted = max_bytes as u64 + INDEX_GAP_BYTES + HEADER_BYTES as u64;
        let mut buffer = vec![0u8; (size - floor).min(wanted) as usize];
        file.read_exact_at(&mut buffer, floor).map_err(ReadError::Io)?;
        let mut from = 0;
        let first = loop {
            let header = header_at(&buffer, from)?;
            if header.last_offset() >= offset {
                break header;
            }
            from += header.size;
        };
        if first.size > max_bytes || from + first.size > buffer.len() {
            if !at_least_one {
                return Ok(Records { bytes: Bytes::new(), span });
            }
            let mut whole = vec![0u8; first.size];
            file.read_exact_at(&mut whole, floor + from as u64).map_err(ReadError::Io)?;
            return Ok(Records { bytes: whole.into(), span });
        }
        let mut to = from + first.size;
        while let Some(bytes) = buffer.get(to..to + HEADER_BYTES) {
            let Ok(header) = BatchHeader::parse(bytes) else { break };
            let next = to + header.size;
            if next > buffer.len() || next - from > max_bytes {
                break;
            }
            to = next;
        }
        Ok(Records { bytes: Bytes::from(buffer).slice(from..to), span })
    }

    /// Offset and timestamp of the first record at or after `timestamp`.
    pub fn find_time(&self, timestamp: i64) -> Result<Option<(i64, i64)>, ReadError> {
        let inner = self.inner.lock();
        let candidates = inner.segments.iter().filter(|s| s.max_timestamp >= timestamp && s.next_offset > inner.start);
        for segment in candidates {
            let file = segment.reader().map_err(ReadError::Io)?;
            let mut position = segment.floor_by_time(timestamp);
            while position < segment.size {
                let header = read_header(&file, position)?;
                if header.max_timestamp >= timestamp && header.last_offset() >= inner.start {
                    let bytes = read_batch(&file, position, &header)?;
                    let found = batch::first_at_or_after(&bytes, &header, timestamp);
                    return Ok(found.map(|(offset, ts)| (offset.max(inner.start), ts)));
                }
                position += header.size as u64;
            }
        }
        Ok(None)
    }

    /// Offset and timestamp of the record with the largest timestamp.
    pub fn find_latest(&self) -> Result<Option<(i64, i64)>, ReadError> {
        let inner = self.inner.lock();
        let Some(segment) = latest_segment(&inner) else { return Ok(None) };
        let file = segment.reader().map_err(ReadError::Io)?;
        let header = read_header(&file, segment.max_timestamp_position)?;
        let bytes = read_batch(&file, segment.max_timestamp_position, &header)?;
        let (offset, timestamp) = batch::latest_record(&bytes, &header);
        Ok(Some((offset.max(inner.start), timestamp)))
    }
}

fn latest_segment(inner: &Inner) -> Option<&Segment> {
    let kept = inner.segments.iter().filter(|s| s.size > 0 && s.next_offset > inner.start);
    // The first one with the largest, as `max_by_key` alone would give the last.
    kept.rev().max_by_key(|s| s.max_timestamp)
}

fn header_at(buffer: &[u8], at: usize) -> Result<BatchHeader, ReadError> {
    buffer.get(at..).and_then(|b| BatchHeader::parse(b).ok()).ok_or_else(damaged)
}

fn read_header(file: &File, position: u64) -> Result<BatchHeader, ReadError> {
    let mut bytes = [0u8; HEADER_BYTES];
    file.read_exact_at(&mut bytes, position).map_err(ReadError::Io)?;
    BatchHeader::parse(&bytes).map_err(|_| damaged())
}

fn read_batch(file: &File, position: u64, header: &BatchHeader) -> Result<Vec<u8>, ReadError> {
    let mut bytes = vec![0u8; header.size];
    file.read_exact_at(&mut bytes, position).map_err(ReadError::Io)?;
    Ok(bytes)
}

fn damaged() -> ReadError {
    ReadError::Io(std::io::Error::new(std::io::ErrorKind::InvalidData, "segment is damaged"))
}
