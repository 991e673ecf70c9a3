use std::collections::VecDeque;
use std::fs;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;

use super::segment::Segment;
use crate::batch::{self, BadBatch, BatchHeader};
use crate::files::write_atomically;
use crate::producers::{Producers, Sequence};
use crate::{Error, Result};

/// There is one leader, for ever.
pub const LEADER_EPOCH: i32 = 0;
const START_OFFSET_FILE: &str = "start-offset";
/// Segments of one partition, whatever their size.
const MAX_SEGMENTS: usize = 10_000;
const MAX_PRODUCERS: usize = 10_000;

#[derive(Debug, Clone, Copy)]
pub struct LogLimits {
    pub segment_bytes: u64,
    pub retention_bytes: u64,
}

/// Offsets `[start, end)` that a log holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    pub start: i64,
    pub end: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    pub base_offset: i64,
    pub log_start: i64,
    /// A new segment was begun, so that the size of all logs is worth a look.
    pub rolled: bool,
}

#[derive(Debug)]
pub enum AppendError {
    Bad(BadBatch),
    Sequence(Sequence),
    Full,
    Deleted,
    Io(Error),
}

#[derive(Debug)]
pub struct PartitionLog {
    dir: PathBuf,
    limits: LogLimits,
    pub(super) inner: Mutex<Inner>,
}

#[derive(Debug)]
pub(super) struct Inner {
    /// Never empty; the last one is open.
    pub segments: VecDeque<Segment>,
    pub start: i64,
    producers: Producers,
    deleted: bool,
}

impl Inner {
    pub fn end(&self) -> i64 {
        self.segments.back().map_or(self.start, |s| s.next_offset)
    }
    pub fn span(&self) -> Span {
        Span { start: self.start, end: self.end() }
    }
    fn bytes(&self) -> u64 {
        self.segments.iter().map(|s| s.size).sum()
    }
}

impl PartitionLog {
    pub fn open(dir: PathBuf, limits: LogLimits) -> Result<Self> {
        fs::create_dir_all(&dir).map_err(Error::io(&dir))?;
        let bases = segment_bases(&dir)?;
        let mut producers = Producers::new(MAX_PRODUCERS);
        let mut segments = VecDeque::with_capacity(bases.len() + 1);
        for (i, base) in bases.iter().enumerate() {
            let path = Segment::path(&dir, *base);
            let segment = Segment::recover(path, *base, i + 1 == bases.len(), |h| producers.stored(h))?;
            let expected = segments.back().map_or(*base, |s: &Segment| s.next_offset);
            if expected != *base {
                return Err(Error::corrupt(&segment.path, format!("offsets {expected} to {base} are missing")));
            }
            segments.push_back(segment);
        }
        let asked = read_start_offset(&dir)?;
        let end = segments.back().map_or(0, |s| s.next_offset);
        if asked > end {
            // The records before `asked` were deleted by request, and an unfinished batch behind them was cut.
            remove_segments(&mut segments)?;
        }
        if segments.is_empty() {
            segments.push_back(Segment::create(&dir, asked.max(0))?);
        }
        let start = segments.front().map_or(0, |s| s.base_offset).max(asked);
        let inner = Inner { segments, start, producers, deleted: false };
        let log = Self { dir, limits, inner: Mutex::new(inner) };
        log.retain(&mut log.inner.lock());
        Ok(log)
    }

    pub fn span(&self) -> Span {
        self.inner.lock().span()
    }

    pub fn bytes(&self) -> u64 {
        self.inner.lock().bytes()
    }

    /// Stores one batch, which gets the next offsets. It is with the operating system when this returns, so that it
    /// outlives the process, and not more: a power cut may take it.
    pub fn append(&self, batch: &mut [u8]) -> Result<Appended, AppendError> {
        let mut header = BatchHeader::parse_produced(batch).map_err(AppendError::Bad)?;
        let mut inner = self.inner.lock();
        if inner.deleted {
            return Err(AppendError::Deleted);
        }
        match inner.producers.check(&header) {
            Sequence::Next => {}
            Sequence::Duplicate { base_offset } => {
                return Ok(Appended { base_offset, log_start: inner.start, rolled: false });
            }
            other => return Err(AppendError::Sequence(other)),
        }
        let end = inner.end();
        if end.checked_add(i64::from(header.last_offset_delta) + 1).is_none() {
            return Err(AppendError::Full);
        }
        let rolled = self.roll_if_full(&mut inner, header.size as u64).map_err(AppendError::Io)?;
        header.base_offset = end;
        batch::place(batch, end, LEADER_EPOCH);
        let Some(open) = inner.segments.back_mut() else {
            return Err(AppendError::Io(Error::corrupt(&self.dir, "log has no segment")));
        };
        let path = open.path.clone();
        open.append(batch, &header).map_err(|e| AppendError::Io(Error::io(path)(e)))?;
        inner.producers.stored(&header);
        if rolled {
            self.retain(&mut inner);
        }
        Ok(Appended { base_offset: end, log_start: inner.start, rolled })
    }

    fn roll_if_full(&self, inner: &mut Inner, more: u64) -> Result<bool> {
        let full = inner.segments.back().is_none_or(|s| s.size > 0 && s.size + more > self.limits.segment_bytes);
        if full {
            let next = Segment::create(&self.dir, inner.end())?;
            if let Some(open) = inner.segments.back_mut() {
                open.close();
            }
            inner.segments.push_back(next);
        }
        Ok(full)
    }

    fn retain(&self, inner: &mut Inner) {
        let mut bytes = inner.bytes();
        while bytes > self.limits.retention_bytes || inner.segments.len() > MAX_SEGMENTS {
            match drop_oldest(inner) {
                Some(freed) => bytes -= freed,
                None => break,
            }
        }
    }

    /// Gives back the oldest closed segment; how many bytes, or `None` where there is none.
    pub fn drop_oldest_segment(&self) -> Option<u64> {
        drop_oldest(&mut self.inner.lock())
    }

    /// Moves the start of the log to `before` (-1: to its end), for ever. Returns the new start, or `None` where
    /// `before` lies behind the end.
    pub fn delete_records(&self, before: i64) -> Result<Option<i64>> {
        let mut inner = self.inner.lock();
        let end = inner.end();
        let before = if before == -1 { end } else { before };
        if before < 0 || before > end {
            return Ok(None);
        }
        if before > inner.start {
            write_atomically(&self.dir.join(START_OFFSET_FILE), before.to_string().as_bytes())?;
            inner.start = before;
            while inner.segments.front().is_some_and(|s| s.next_offset <= before) {
                if drop_oldest(&mut inner).is_none() {
                    break;
                }
            }
        }
        Ok(Some(inner.start))
    }

    /// Refuses what comes later; the files are the caller's to remove.
    pub fn mark_deleted(&self) {
        self.inner.lock().deleted = true;
    }
}

fn drop_oldest(inner: &mut Inner) -> Option<u64> {
    if inner.segments.len() < 2 {
        return None;
    }
    let oldest = inner.segments.pop_front()?;
    inner.start = inner.start.max(oldest.next_offset);
    if let Err(error) = fs::remove_file(&oldest.path) {
        // It comes back on the next start, and goes again then.
        tracing::warn!(path = %oldest.path.display(), %error, "old segment was not removed");
    }
    Some(oldest.size)
}

fn remove_segments(segments: &mut VecDeque<Segment>) -> Result<()> {
    while let Some(segment) = segments.pop_front() {
        fs::remove_file(&segment.path).map_err(Error::io(&segment.path))?;
    }
    Ok(())
}

fn segment_bases(dir: &Path) -> Result<Vec<i64>> {
    let mut bases = Vec::new();
    for entry in fs::read_dir(dir).map_err(Error::io(dir))? {
        let name = entry.map_err(Error::io(dir))?.file_name();
        let base = name.to_str().and_then(|n| n.strip_suffix(".log")).and_then(|n| n.parse::<i64>().ok());
        bases.extend(base.filter(|b| *b >= 0));
    }
    bases.sort_unstable();
    Ok(bases)
}

fn read_start_offset(dir: &Path) -> Result<i64> {
    let path = dir.join(START_OFFSET_FILE);
    match fs::read_to_string(&path) {
        Ok(text) => text.trim().parse().map_err(|_| Error::corrupt(&path, "not an offset")),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(0),
        Err(e) => Err(Error::io(&path)(e)),
    }
}
