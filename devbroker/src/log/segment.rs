use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::batch::{BatchHeader, HEADER_BYTES};
use crate::{Error, Result};

/// At least so many bytes lie between two entries of the index.
pub const INDEX_GAP_BYTES: u64 = 4096;

#[derive(Debug, Clone, Copy)]
pub struct IndexEntry {
    pub base_offset: i64,
    pub position: u64,
    /// Largest timestamp of the segment's batches before this one.
    pub max_timestamp_before: i64,
}

#[derive(Debug)]
pub struct Segment {
    pub base_offset: i64,
    pub path: PathBuf,
    /// Bytes of whole batches.
    pub size: u64,
    pub next_offset: i64,
    /// First batch and then one batch in every [`INDEX_GAP_BYTES`] or so.
    pub index: Vec<IndexEntry>,
    pub max_timestamp: i64,
    /// Where the batch with the largest timestamp lies.
    pub max_timestamp_position: u64,
    /// Open while batches are written here; closed segments are opened by those who read them.
    file: Option<Arc<File>>,
}

impl Segment {
    pub fn path(dir: &Path, base_offset: i64) -> PathBuf {
        dir.join(format!("{base_offset:020}.log"))
    }

    pub fn create(dir: &Path, base_offset: i64) -> Result<Self> {
        let path = Self::path(dir, base_offset);
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&path);
        let mut segment = Self::empty(path, base_offset);
        segment.file = Some(Arc::new(file.map_err(Error::io(&segment.path))?));
        Ok(segment)
    }

    fn empty(path: PathBuf, base_offset: i64) -> Self {
        Self {
            base_offset,
            path,
            size: 0,
            next_offset: base_offset,
            index: Vec::new(),
            max_timestamp: i64::MIN,
            max_timestamp_position: 0,
            file: None,
        }
    }

    /// Reads the headers of a segment that is on disk. In the open one (`last`) the first batch that is not whole
    /// ends the log, as a killed process leaves it; in a closed one it is damage.
    pub fn recover(path: PathBuf, base_offset: i64, last: bool, mut each: impl FnMut(&BatchHeader)) -> Result<Self> {
        let file = OpenOptions::new().read(true).write(last).open(&path).map_err(Error::io(&path))?;
        let length = file.metadata().map_err(Error::io(&path))?.len();
        let mut segment = Self::empty(path, base_offset);
        let mut buffer = vec![0u8; HEADER_BYTES];
        let mut problem = None;
        while segment.size < length {
            match segment.recover_batch(&file, length, last, &mut buffer)? {
                Ok(header) => {
                    each(&header);
                    segment.note(&header);
                }
                Err(message) => {
                    problem = Some(message);
                    break;
                }
            }
        }
        if let Some(message) = problem {
            if !last {
                let text = format!("closed segment is damaged at byte {}: {message}", segment.size);
                return Err(Error::corrupt(&segment.path, text));
            }
            tracing::info!(
                path = %segment.path.display(),
                removed_bytes = length - segment.size,
                end_offset = segment.next_offset,
                "unfinished batch removed from the end of the log: {message}"
            );
            file.set_len(segment.size).map_err(Error::io(&segment.path))?;
        }
        if last {
            segment.file = Some(Arc::new(file));
        }
        Ok(segment)
    }

    fn recover_batch(
        &self,
        file: &File,
        length: u64,
        check_crc: bool,
        buffer: &mut Vec<u8>,
    ) -> Result<std::result::Result<BatchHeader, &'static str>> {
        let rest = length - self.size;
        if rest < HEADER_BYTES as u64 {
            return Ok(Err("header is cut short"));
        }
        buffer.resize(HEADER_BYTES, 0);
        file.read_exact_at(buffer, self.size).map_err(Error::io(&self.path))?;
        let Ok(header) = BatchHeader::parse(buffer) else { return Ok(Err("header is not one of a batch")) };
        if header.base_offset != self.next_offset {
            return Ok(Err("offset does not follow on the one before"));
        }
        if header.size as u64 > rest {
            return Ok(Err("batch is cut short"));
        }
        if check_crc {
            buffer.resize(header.size, 0);
            file.read_exact_at(buffer, self.size).map_err(Error::io(&self.path))?;
            if BatchHeader::parse_whole(buffer).is_err() {
                return Ok(Err("checksum does not match"));
            }
        }
        Ok(Ok(header))
    }

    /// Writes one batch at the end. After an error nothing of it counts, and what was written of it is overwritten
    /// by the next.
    pub fn append(&mut self, batch: &[u8], header: &BatchHeader) -> std::io::Result<()> {
        let file = self.file.as_ref().ok_or_else(|| std::io::Error::other("segment is closed"))?;
        if let Err(e) = file.write_all_at(batch, self.size) {
            // Best effort: the checks on start cut the same bytes off.
            let _ = file.set_len(self.size);
            return Err(e);
        }
        self.note(header);
        Ok(())
    }

    fn note(&mut self, header: &BatchHeader) {
        let due = self.index.last().is_none_or(|e| self.size - e.position >= INDEX_GAP_BYTES);
        if due {
            self.index.push(IndexEntry {
                base_offset: header.base_offset,
                position: self.size,
                max_timestamp_before: self.max_timestamp,
            });
        }
        if header.max_timestamp > self.max_timestamp {
            self.max_timestamp = header.max_timestamp;
            self.max_timestamp_position = self.size;
        }
        self.size += header.size as u64;
        self.next_offset = header.next_offset();
    }

    pub fn close(&mut self) {
        self.file = None;
        self.index.shrink_to_fit();
    }

    pub fn reader(&self) -> std::io::Result<Arc<File>> {
        match &self.file {
            Some(file) => Ok(file.clone()),
            None => File::open(&self.path).map(Arc::new),
        }
    }

    /// Where to begin looking for the batch with `offset`; the batch begins less than [`INDEX_GAP_BYTES`] behind.
    pub fn floor(&self, offset: i64) -> u64 {
        let after = self.index.partition_point(|e| e.base_offset <= offset);
        after.checked_sub(1).map_or(0, |i| self.index[i].position)
    }

    /// Where to begin looking for the first batch with a timestamp at or after `timestamp`.
    pub fn floor_by_time(&self, timestamp: i64) -> u64 {
        let after = self.index.partition_point(|e| e.max_timestamp_before < timestamp);
        after.checked_sub(1).map_or(0, |i| self.index[i].position)
    }
}
