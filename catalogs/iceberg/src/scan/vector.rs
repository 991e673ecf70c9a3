//! Deletion vectors: the blob `deletion-vector-v1` of the Puffin specification, a 64-bit Roaring bitmap in portable
//! form.

use roaring::RoaringTreemap;
use tidewater_catalogs::{Error, ErrorKind, Result};

use super::error::corrupt;

const MAGIC: [u8; 4] = [0xD1, 0xD3, 0x39, 0x64];
const COOKIE_WITH_RUNS: u32 = 12_347;
const COOKIE_WITHOUT_RUNS: u32 = 12_346;
/// Below this many containers, a bitmap with runs has no offsets.
const OFFSETS_FROM: usize = 4;
const ARRAY_MAX: usize = 4096;

/// Positions in the blob, ascending. Refuses more than `limit`.
pub(super) fn parse(blob: &[u8], limit: u64) -> Result<Vec<u64>> {
    let mut input = Input(blob);
    let length = u32::from_be_bytes(input.take()?) as usize;
    let body = input.bytes(length)?;
    let checksum = u32::from_be_bytes(input.take()?);
    if crc32(body) != checksum {
        return Err(corrupt("deletion vector has a wrong checksum"));
    }
    let mut body = Input(body);
    if body.take::<4>()? != MAGIC {
        return Err(corrupt("deletion vector has a wrong magic number"));
    }
    let mut positions = Vec::new();
    let bitmaps = u64::from_le_bytes(body.take()?);
    let mut last_key = None;
    for _ in 0..bitmaps {
        let key = u32::from_le_bytes(body.take()?);
        if last_key.is_some_and(|last| last >= key) {
            return Err(corrupt("deletion vector is not in order"));
        }
        last_key = Some(key);
        parse_bitmap(&mut body, u64::from(key) << 32, limit, &mut positions)?;
    }
    if positions.windows(2).any(|w| w[0] >= w[1]) {
        return Err(corrupt("deletion vector is not in order"));
    }
    Ok(positions)
}

/// The blob of the positions, which are ascending.
pub(crate) fn blob(positions: &[u64]) -> Result<Vec<u8>> {
    let failed = |e: std::io::Error| Error::internal("deletion vector cannot be written").with_source(e);
    let bitmap: RoaringTreemap = positions.iter().collect();
    let mut body = MAGIC.to_vec();
    bitmap.serialize_into(&mut body).map_err(failed)?;
    let length = u32::try_from(body.len()).map_err(|_| Error::unsupported("so long a deletion vector"))?;
    let mut blob = length.to_be_bytes().to_vec();
    blob.extend_from_slice(&body);
    blob.extend(crc32(&body).to_be_bytes());
    Ok(blob)
}

fn parse_bitmap(input: &mut Input<'_>, base: u64, limit: u64, out: &mut Vec<u64>) -> Result<()> {
    let cookie = u32::from_le_bytes(input.take()?);
    let (containers, run_flags) = if cookie & 0xFFFF == COOKIE_WITH_RUNS {
        let containers = (cookie >> 16) as usize + 1;
        (containers, Some(input.bytes(containers.div_ceil(8))?))
    } else if cookie == COOKIE_WITHOUT_RUNS {
        (u32::from_le_bytes(input.take()?) as usize, None)
    } else {
        return Err(corrupt("deletion vector has an unknown cookie"));
    };
    if containers > 1 << 16 {
        return Err(corrupt("deletion vector has too many containers"));
    }
    let descriptions = input.bytes(containers * 4)?;
    if run_flags.is_none() || containers >= OFFSETS_FROM {
        input.bytes(containers * 4)?;
    }
    for (index, description) in descriptions.chunks_exact(4).enumerate() {
        let start = base | u64::from(u16::from_le_bytes([description[0], description[1]])) << 16;
        let cardinality = usize::from(u16::from_le_bytes([description[2], description[3]])) + 1;
        let expected = out.len() + cardinality;
        if expected as u64 > limit {
            return Err(Error::new(ErrorKind::ResourcesExhausted, "deletion vector lists too many positions"));
        }
        if run_flags.is_some_and(|flags| flags[index / 8] & (1 << (index % 8)) != 0) {
            let runs = u16::from_le_bytes(input.take()?);
            for _ in 0..runs {
                let first = u16::from_le_bytes(input.take()?);
                let more = u16::from_le_bytes(input.take()?);
                let last = first.checked_add(more).ok_or_else(|| corrupt("deletion vector has a run past its end"))?;
                if out.len() + usize::from(more) + 1 > expected {
                    return Err(corrupt("deletion vector has a wrong cardinality"));
                }
                out.extend((first..=last).map(|low| start | u64::from(low)));
            }
        } else if cardinality <= ARRAY_MAX {
            let values = input.bytes(cardinality * 2)?;
            out.extend(values.chunks_exact(2).map(|v| start | u64::from(u16::from_le_bytes([v[0], v[1]]))));
        } else {
            let words = input.bytes(8192)?;
            for (byte, bits) in words.iter().enumerate() {
                out.extend((0..8u64).filter(|bit| bits & (1 << bit) != 0).map(|bit| start | (byte as u64 * 8 + bit)));
            }
        }
        if out.len() != expected {
            return Err(corrupt("deletion vector has a wrong cardinality"));
        }
    }
    Ok(())
}

struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn bytes(&mut self, count: usize) -> Result<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(count).ok_or_else(|| corrupt("deletion vector ends too early"))?;
        self.0 = rest;
        Ok(head)
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N]> {
        <[u8; N]>::try_from(self.bytes(N)?).map_err(|_| corrupt("deletion vector ends too early"))
    }
}

/// CRC-32 as in gzip.
fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = !0u32;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0xEDB8_8320 & (crc & 1).wrapping_neg());
        }
    }
    !crc
}

#[cfg(test)]
pub(super) mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let far = (0..5).map(|n| (1 << 33) | (n * 70_000));
        for positions in [vec![0], vec![3, 4, 5, u64::from(u32::MAX)], (0..9000).map(|n| n * 3).chain(far).collect()] {
            let blob = super::blob(&positions).unwrap();
            assert_eq!(parse(&blob, 1 << 20).unwrap(), positions);
        }
    }

    /// A blob around serialised 32-bit bitmaps.
    pub(in crate::scan) fn blob(bitmaps: &[(u32, Vec<u8>)]) -> Vec<u8> {
        let mut body = MAGIC.to_vec();
        body.extend((bitmaps.len() as u64).to_le_bytes());
        for (key, bitmap) in bitmaps {
            body.extend(key.to_le_bytes());
            body.extend(bitmap);
        }
        let mut out = (body.len() as u32).to_be_bytes().to_vec();
        out.extend(&body);
        out.extend(crc32(&body).to_be_bytes());
        out
    }

    /// One array container.
    pub(in crate::scan) fn array(values: &[u16]) -> Vec<u8> {
        let mut out = COOKIE_WITHOUT_RUNS.to_le_bytes().to_vec();
        out.extend(1u32.to_le_bytes());
        out.extend(0u16.to_le_bytes());
        out.extend((values.len() as u16 - 1).to_le_bytes());
        out.extend(16u32.to_le_bytes());
        values.iter().for_each(|v| out.extend(v.to_le_bytes()));
        out
    }

    #[test]
    fn arrays_runs_and_bitmaps_are_read() {
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
        assert_eq!(parse(&blob(&[(0, array(&[1, 5, 9]))]), 100).unwrap(), [1, 5, 9]);
        assert_eq!(parse(&blob(&[(0, array(&[7])), (2, array(&[3]))]), 100).unwrap(), [7, (2 << 32) | 3]);

        let mut runs = COOKIE_WITH_RUNS.to_le_bytes().to_vec();
        runs.push(1);
        runs.extend(1u16.to_le_bytes());
        runs.extend(4u16.to_le_bytes());
        for v in [2u16, 10, 2, 65_534, 1] {
            runs.extend(v.to_le_bytes());
        }
        let high = 1 << 16;
        assert_eq!(
            parse(&blob(&[(0, runs)]), 100).unwrap(),
            [high | 10, high | 11, high | 12, high | 65_534, high | 65_535]
        );

        let mut bitmap = COOKIE_WITHOUT_RUNS.to_le_bytes().to_vec();
        bitmap.extend(1u32.to_le_bytes());
        bitmap.extend(0u16.to_le_bytes());
        bitmap.extend(4999u16.to_le_bytes());
        bitmap.extend(16u32.to_le_bytes());
        let mut words = vec![0u8; 8192];
        (0..5000usize).for_each(|v| words[v * 2 / 8] |= 1 << (v * 2 % 8));
        bitmap.extend(words);
        let expected: Vec<u64> = (0..5000).map(|v| v * 2).collect();
        assert_eq!(parse(&blob(&[(0, bitmap.clone())]), 5000).unwrap(), expected);
        assert_eq!(parse(&blob(&[(0, bitmap)]), 4999).unwrap_err().kind(), ErrorKind::ResourcesExhausted);
    }

    #[test]
    fn damaged_blobs_are_refused() {
        let good = blob(&[(0, array(&[1, 5, 9]))]);
        for cut in 0..good.len() {
            assert!(parse(&good[..cut], 100).is_err());
        }
        for at in 4..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            assert!(parse(&bad, 100).is_err(), "byte {at}");
        }
        assert!(parse(&blob(&[(0, array(&[5, 1]))]), 100).is_err());
    }
}
