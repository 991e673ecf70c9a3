//! Gzip files put together from parts that were compressed before.
//!
//! Each part ends on a byte and looks back at nothing before it, so that parts may follow each other in any order and
//! make up one ordinary gzip file of one member, which every reader takes.

use std::io::Read;

use flate2::{Compress, Compression, Crc, FlushCompress};
use tidewater_catalogs::{Error, Result};

const MAGIC: [u8; 2] = [0x1f, 0x8b];
/// Deflate, no name, no time, any system.
const HEADER: [u8; 10] = [MAGIC[0], MAGIC[1], 8, 0, 0, 0, 0, 0, 0, 0xff];
/// A last block with nothing in it.
const LAST: [u8; 2] = [3, 0];
/// What unpacks to more is no table's metadata.
const LARGEST: u64 = 1 << 30;

const BETWEEN: usize = 64 << 10;

/// Kept and copied many times.
const THOROUGH: u32 = 6;
/// Written once.
const QUICK: u32 = 1;

#[derive(Debug)]
pub(super) struct Part {
    packed: Vec<u8>,
    crc: Crc,
}

impl Part {
    pub(super) fn of(plain: &[u8]) -> Result<Self> {
        let mut packed = Vec::new();
        pack(plain, THOROUGH, &mut packed)?;
        packed.shrink_to_fit();
        Ok(Self { packed, crc: crc(plain) })
    }

    pub(super) fn len(&self) -> usize {
        self.packed.len()
    }
}

/// Takes a file in order, as parts and as plain bytes between them.
#[derive(Debug)]
pub(super) struct Writer {
    file: Vec<u8>,
    crc: Crc,
    /// Not yet compressed.
    plain: Vec<u8>,
}

impl Writer {
    pub(super) fn new() -> Self {
        Self { file: HEADER.to_vec(), crc: Crc::new(), plain: Vec::new() }
    }

    /// Room for so much, and for what comes between.
    pub(super) fn reserve(&mut self, packed: usize) {
        self.file.reserve(packed + BETWEEN);
    }

    pub(super) fn plain(&mut self, bytes: &[u8]) {
        self.plain.extend_from_slice(bytes);
    }

    pub(super) fn part(&mut self, part: &Part) -> Result<()> {
        self.catch_up()?;
        self.file.extend_from_slice(&part.packed);
        self.crc.combine(&part.crc);
        Ok(())
    }

    pub(super) fn finish(mut self) -> Result<Vec<u8>> {
        self.catch_up()?;
        self.file.extend_from_slice(&LAST);
        self.file.extend_from_slice(&self.crc.sum().to_le_bytes());
        self.file.extend_from_slice(&self.crc.amount().to_le_bytes());
        Ok(self.file)
    }

    fn catch_up(&mut self) -> Result<()> {
        if !self.plain.is_empty() {
            pack(&self.plain, QUICK, &mut self.file)?;
            self.crc.combine(&crc(&self.plain));
            self.plain.clear();
        }
        Ok(())
    }
}

fn crc(bytes: &[u8]) -> Crc {
    let mut crc = Crc::new();
    crc.update(bytes);
    crc
}

fn pack(plain: &[u8], level: u32, out: &mut Vec<u8>) -> Result<()> {
    let mut compress = Compress::new(Compression::new(level), false);
    loop {
        let read = usize::try_from(compress.total_in()).unwrap_or(usize::MAX);
        let rest = plain.get(read..).unwrap_or_default();
        // More than bytes that cannot be compressed take, so that once is enough.
        out.reserve(rest.len() + rest.len() / 8 + 128);
        compress
            .compress_vec(rest, out, FlushCompress::Full)
            .map_err(|e| Error::internal("cannot compress table metadata").with_source(e))?;
        if compress.total_in() == plain.len() as u64 && out.len() < out.capacity() {
            return Ok(());
        }
    }
}

pub(super) fn is_packed(file: &[u8]) -> bool {
    file.starts_with(&MAGIC)
}

pub(super) fn unpack(file: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut plain = Vec::new();
    flate2::read::MultiGzDecoder::new(file).take(LARGEST + 1).read_to_end(&mut plain)?;
    if plain.len() as u64 > LARGEST {
        return Err(std::io::Error::other(format!("it unpacks to more than {LARGEST} bytes")));
    }
    Ok(plain)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use proptest::prelude::*;

    use super::*;

    /// One member, to its last byte.
    pub(crate) fn unpack_one(file: &[u8]) -> Vec<u8> {
        let mut plain = Vec::new();
        let mut decoder = flate2::bufread::GzDecoder::new(file);
        decoder.read_to_end(&mut plain).unwrap();
        assert!(decoder.into_inner().is_empty(), "something follows the member");
        plain
    }

    proptest! {
        /// Parts in any order, twice, empty, compressible or not, with bytes between them.
        #[test]
        fn files_unpack_to_what_went_in(
            pieces in prop::collection::vec((any::<bool>(), 0..3usize, 0..200_000usize, any::<u64>()), 0..12)
        ) {
            let (mut writer, mut expected) = (Writer::new(), Vec::new());
            for (as_part, kind, len, seed) in pieces {
                let mut state = seed | 1;
                let bytes: Vec<u8> = (0..len).map(|n| {
                    state ^= state << 13;
                    state ^= state >> 7;
                    state ^= state << 17;
                    match kind { 0 => state as u8, 1 => b"{\"a\":1},"[n % 8], _ => (state % 11) as u8 + b'0' }
                }).collect();
                expected.extend_from_slice(&bytes);
                if as_part { writer.part(&Part::of(&bytes).unwrap()).unwrap() } else { writer.plain(&bytes) }
            }
            let file = writer.finish().unwrap();
            prop_assert!(is_packed(&file));
            prop_assert!(unpack_one(&file) == expected);
            prop_assert!(unpack(&file).unwrap() == expected);
        }
    }

    #[test]
    fn what_is_cut_or_changed_is_told() {
        let mut writer = Writer::new();
        writer.part(&Part::of(&b"snapshots,".repeat(50)).unwrap()).unwrap();
        writer.plain(b"the rest");
        let file = writer.finish().unwrap();
        for cut in 1..file.len() {
            assert!(unpack(&file[..cut]).is_err(), "{cut}");
        }
        let mut other = file.clone();
        other[file.len() - 6] ^= 1;
        assert!(unpack(&other).is_err());
    }
}
