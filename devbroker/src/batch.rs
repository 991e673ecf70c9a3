//! The header of a record batch (message format v2), the only part of a batch that the broker reads.
//!
//! ```text
//! 0 base offset i64 | 8 length i32 | 12 leader epoch i32 | 16 magic i8 | 17 crc u32 | 21 attributes i16
//! 23 last offset delta i32 | 27 base timestamp i64 | 35 max timestamp i64 | 43 producer id i64
//! 51 producer epoch i16 | 53 base sequence i32 | 57 record count i32 | 61 records
//! ```
//! The CRC covers everything from the attributes on, so the broker sets base offset and leader epoch without it.

use bytes::Buf;

pub const HEADER_BYTES: usize = 61;
/// Base offset and length, which `length` itself does not count.
const PREFIX_BYTES: usize = 12;
const CRC_FROM: usize = 21;

const COMPRESSION_MASK: i16 = 0x07;
const LOG_APPEND_TIME: i16 = 0x08;
const TRANSACTIONAL: i16 = 0x10;
const CONTROL: i16 = 0x20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchHeader {
    pub base_offset: i64,
    /// Bytes of the whole batch, prefix included.
    pub size: usize,
    pub crc: u32,
    pub attributes: i16,
    pub last_offset_delta: i32,
    pub base_timestamp: i64,
    pub max_timestamp: i64,
    pub producer_id: i64,
    pub producer_epoch: i16,
    pub base_sequence: i32,
    pub records: i32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadBatch {
    /// Fewer bytes than the batch says it has.
    Short,
    /// Message format v0 or v1.
    OldFormat,
    /// A number in the header contradicts another.
    Inconsistent,
    Crc,
    /// Part of a transaction, or a control batch, which only brokers write.
    Transactional,
}

impl BatchHeader {
    /// Reads the header and checks that its numbers can be. `bytes` needs no more than the header.
    pub fn parse(bytes: &[u8]) -> Result<Self, BadBatch> {
        let Some(mut b) = bytes.get(..HEADER_BYTES) else {
            // The magic byte has the same place in every format.
            return Err(match bytes.get(16) {
                Some(0 | 1) => BadBatch::OldFormat,
                _ => BadBatch::Short,
            });
        };
        let base_offset = b.get_i64();
        let length = b.get_i32();
        let _leader_epoch = b.get_i32();
        let magic = b.get_i8();
        if magic != 2 {
            return Err(if (0..2).contains(&magic) { BadBatch::OldFormat } else { BadBatch::Inconsistent });
        }
        let header = Self {
            base_offset,
            size: usize::try_from(length).map_err(|_| BadBatch::Inconsistent)? + PREFIX_BYTES,
            crc: b.get_u32(),
            attributes: b.get_i16(),
            last_offset_delta: b.get_i32(),
            base_timestamp: b.get_i64(),
            max_timestamp: b.get_i64(),
            producer_id: b.get_i64(),
            producer_epoch: b.get_i16(),
            base_sequence: b.get_i32(),
            records: b.get_i32(),
        };
        let possible = header.size >= HEADER_BYTES
            && header.base_offset >= 0
            && header.last_offset_delta >= 0
            && header.base_offset.checked_add(i64::from(header.last_offset_delta)).is_some_and(|o| o < i64::MAX);
        if possible { Ok(header) } else { Err(BadBatch::Inconsistent) }
    }

    /// Parses one whole batch, nothing before or behind it, and checks its CRC.
    pub fn parse_whole(bytes: &[u8]) -> Result<Self, BadBatch> {
        let header = Self::parse(bytes)?;
        if bytes.len() < header.size {
            return Err(BadBatch::Short);
        }
        if bytes.len() > header.size {
            return Err(BadBatch::Inconsistent);
        }
        if crc32c::crc32c(&bytes[CRC_FROM..]) != header.crc {
            return Err(BadBatch::Crc);
        }
        Ok(header)
    }

    /// As [`Self::parse_whole`], for a batch that a producer sent.
    pub fn parse_produced(bytes: &[u8]) -> Result<Self, BadBatch> {
        let header = Self::parse_whole(bytes)?;
        if header.attributes & (TRANSACTIONAL | CONTROL) != 0 {
            return Err(BadBatch::Transactional);
        }
        let idempotent = header.producer_id >= 0;
        let numbered = header.producer_epoch >= 0 && header.base_sequence >= 0;
        let consistent = header.records == header.last_offset_delta.wrapping_add(1)
            && header.records > 0
            && header.attributes & COMPRESSION_MASK <= 4
            && header.attributes & LOG_APPEND_TIME == 0
            && idempotent == numbered;
        if consistent { Ok(header) } else { Err(BadBatch::Inconsistent) }
    }

    pub fn last_offset(&self) -> i64 {
        self.base_offset + i64::from(self.last_offset_delta)
    }

    pub fn next_offset(&self) -> i64 {
        self.last_offset() + 1
    }

    /// Sequence numbers wrap from `i32::MAX` to 0.
    pub fn last_sequence(&self) -> i32 {
        let sum = i64::from(self.base_sequence) + i64::from(self.last_offset_delta);
        (sum % (i64::from(i32::MAX) + 1)) as i32
    }

    pub fn is_compressed(&self) -> bool {
        self.attributes & COMPRESSION_MASK != 0
    }
}

/// Gives the batch its place in the log.
pub fn place(batch: &mut [u8], base_offset: i64, leader_epoch: i32) {
    batch[..8].copy_from_slice(&base_offset.to_be_bytes());
    batch[12..16].copy_from_slice(&leader_epoch.to_be_bytes());
}

/// The first record of the batch at or after `timestamp`: its offset and timestamp. A compressed batch is not opened:
/// its first record stands for it, which is never too late. `None` where no record is that late.
pub fn first_at_or_after(batch: &[u8], header: &BatchHeader, timestamp: i64) -> Option<(i64, i64)> {
    if header.max_timestamp < timestamp {
        return None;
    }
    if header.is_compressed() {
        return Some((header.base_offset, header.base_timestamp));
    }
    let found = Records::new(batch, header).find(|(_, ts)| *ts >= timestamp);
    Some(found.unwrap_or((header.base_offset, header.base_timestamp)))
}

/// The record with the batch's largest timestamp. For a compressed batch its last one stands for it.
pub fn latest_record(batch: &[u8], header: &BatchHeader) -> (i64, i64) {
    let last = (header.last_offset(), header.max_timestamp);
    if header.is_compressed() {
        return last;
    }
    Records::new(batch, header).find(|(_, ts)| *ts == header.max_timestamp).unwrap_or(last)
}

/// Offsets and timestamps of the records of an uncompressed batch; ends early where they cannot be read.
struct Records<'a> {
    rest: &'a [u8],
    header: &'a BatchHeader,
}

impl<'a> Records<'a> {
    fn new(batch: &'a [u8], header: &'a BatchHeader) -> Self {
        Self { rest: batch.get(HEADER_BYTES..header.size).unwrap_or_default(), header }
    }
}

impl Iterator for Records<'_> {
    type Item = (i64, i64);

    fn next(&mut self) -> Option<Self::Item> {
        let length = usize::try_from(varint(&mut self.rest)?).ok()?;
        let mut record = self.rest.get(..length)?;
        self.rest = self.rest.get(length..)?;
        record = record.get(1..)?;
        let timestamp_delta = varint(&mut record)?;
        let offset_delta = varint(&mut record)?;
        Some((
            self.header.base_offset.checked_add(offset_delta)?,
            self.header.base_timestamp.checked_add(timestamp_delta)?,
        ))
    }
}

/// A zigzag varint of at most 64 bits.
fn varint(bytes: &mut &[u8]) -> Option<i64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some((value >> 1) as i64 ^ -((value & 1) as i64));
        }
    }
    None
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    /// One uncompressed batch with the given record timestamps, as a producer would send it.
    pub(crate) fn batch(timestamps: &[i64], producer: Option<(i64, i16, i32)>, payload: usize) -> Vec<u8> {
        let (id, epoch, sequence) = producer.unwrap_or((-1, -1, -1));
        let base = timestamps[0];
        let mut records = Vec::new();
        for (i, ts) in timestamps.iter().enumerate() {
            let mut record = vec![0u8];
            put_varint(&mut record, ts - base);
            put_varint(&mut record, i as i64);
            put_varint(&mut record, -1);
            put_varint(&mut record, payload as i64);
            record.extend(std::iter::repeat_n(b'x', payload));
            put_varint(&mut record, 0);
            put_varint(&mut records, record.len() as i64);
            records.extend(record);
        }
        let mut out = Vec::new();
        out.extend(0i64.to_be_bytes());
        out.extend(((HEADER_BYTES - PREFIX_BYTES + records.len()) as i32).to_be_bytes());
        out.extend((-1i32).to_be_bytes());
        out.push(2);
        out.extend(0u32.to_be_bytes());
        out.extend(0i16.to_be_bytes());
        out.extend((timestamps.len() as i32 - 1).to_be_bytes());
        out.extend(base.to_be_bytes());
        out.extend(timestamps.iter().max().unwrap().to_be_bytes());
        out.extend(id.to_be_bytes());
        out.extend(epoch.to_be_bytes());
        out.extend(sequence.to_be_bytes());
        out.extend((timestamps.len() as i32).to_be_bytes());
        out.extend(records);
        let crc = crc32c::crc32c(&out[CRC_FROM..]);
        out[17..21].copy_from_slice(&crc.to_be_bytes());
        out
    }

    fn put_varint(out: &mut Vec<u8>, value: i64) {
        let mut v = ((value << 1) ^ (value >> 63)) as u64;
        while v >= 0x80 {
            out.push(v as u8 | 0x80);
            v >>= 7;
        }
        out.push(v as u8);
    }

    #[test]
    fn placing_a_batch_keeps_its_crc() {
        let mut bytes = batch(&[5, 9, 7], Some((3, 0, 10)), 4);
        place(&mut bytes, 1_000, 0);
        let header = BatchHeader::parse_produced(&bytes).unwrap();
        assert_eq!((header.base_offset, header.last_offset(), header.max_timestamp), (1_000, 1_002, 9));
        assert_eq!(header.last_sequence(), 12);
    }

    #[test]
    fn damage_is_seen() {
        let good = batch(&[1, 2], None, 8);
        for at in CRC_FROM..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0x40;
            assert!(BatchHeader::parse_whole(&bad).is_err(), "byte {at}");
        }
        for to in 0..good.len() {
            assert!(BatchHeader::parse_whole(&good[..to]).is_err(), "cut at {to}");
        }
    }

    #[test]
    fn records_are_found_by_time() {
        let mut bytes = batch(&[10, 30, 20, 40], None, 3);
        place(&mut bytes, 100, 0);
        let header = BatchHeader::parse(&bytes).unwrap();
        assert_eq!(first_at_or_after(&bytes, &header, 0), Some((100, 10)));
        assert_eq!(first_at_or_after(&bytes, &header, 20), Some((101, 30)));
        assert_eq!(first_at_or_after(&bytes, &header, 31), Some((103, 40)));
        assert_eq!(first_at_or_after(&bytes, &header, 41), None);
        assert_eq!(latest_record(&bytes, &header), (103, 40));
    }

    #[test]
    fn sequence_numbers_wrap() {
        let bytes = batch(&[1, 1, 1], Some((1, 0, i32::MAX - 1)), 1);
        assert_eq!(BatchHeader::parse_produced(&bytes).unwrap().last_sequence(), 0);
    }
}
