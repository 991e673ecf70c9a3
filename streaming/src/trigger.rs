//! One trigger on its way: open in the lanes, cut, sealed. And the question when to cut.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tidewater_catalogs::{CommitUuid, Result, StagedFiles, StagingWriter};
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::Instant;

use crate::checkpoint::{PartitionMove, RowCounts};
use crate::replay::ReplayDelta;

/// What the open trigger holds so far, over all lanes.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    pub(crate) source_bytes: AtomicU64,
    /// A row, a dead letter or a gap has come out.
    pub(crate) output: AtomicBool,
    /// Positions moved.
    pub(crate) moved: AtomicBool,
    /// Someone waits for what is in it.
    pub(crate) awaited: AtomicBool,
}

/// Number and identity of the trigger that lanes write to.
#[derive(Debug, Clone)]
pub(crate) struct OpenTrigger {
    pub(crate) seq: u64,
    pub(crate) commit_uuid: CommitUuid,
    pub(crate) meter: Arc<Meter>,
}

/// Bytes in the writers of one flow: open ones, and cut ones until they are closed.
#[derive(Debug)]
pub(crate) struct Memory {
    used: AtomicUsize,
    limit: usize,
    /// Changes whenever bytes are given back.
    released: watch::Sender<u64>,
}

impl Memory {
    pub(crate) fn new(limit: u64) -> Arc<Self> {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        Arc::new(Self { used: AtomicUsize::new(0), limit, released: watch::Sender::new(0) })
    }
    pub(crate) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }
    pub(crate) fn limit(&self) -> usize {
        self.limit
    }
    pub(crate) fn is_full(&self) -> bool {
        self.used() >= self.limit
    }
    #[cfg(test)]
    pub(crate) fn hold(self: &Arc<Self>, bytes: usize) -> Held {
        let mut held = Held::new(Arc::clone(self));
        held.set(bytes);
        held
    }
    pub(crate) fn watch(&self) -> watch::Receiver<u64> {
        self.released.subscribe()
    }
}

/// One writer's share of the memory; given back when dropped.
#[derive(Debug)]
pub(crate) struct Held {
    memory: Arc<Memory>,
    bytes: usize,
}

impl Held {
    fn new(memory: Arc<Memory>) -> Self {
        Self { memory, bytes: 0 }
    }
    fn set(&mut self, bytes: usize) {
        if bytes >= self.bytes {
            self.memory.used.fetch_add(bytes - self.bytes, Ordering::Relaxed);
        } else {
            self.memory.used.fetch_sub(self.bytes - bytes, Ordering::Relaxed);
        }
        self.bytes = bytes;
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.memory.used.fetch_sub(self.bytes, Ordering::Relaxed);
        self.memory.released.send_modify(|n| *n += 1);
    }
}

/// A staging writer that counts its memory and its rows.
pub(crate) struct CountedWriter {
    writer: Box<dyn StagingWriter>,
    held: Held,
    rows: u64,
}

impl CountedWriter {
    pub(crate) fn new(writer: Box<dyn StagingWriter>, memory: &Arc<Memory>) -> Self {
        Self { writer, held: Held::new(Arc::clone(memory)), rows: 0 }
    }

    pub(crate) async fn write(&mut self, batch: arrow::record_batch::RecordBatch) -> Result<()> {
        self.rows += batch.num_rows() as u64;
        self.writer.write(batch).await?;
        self.held.set(self.writer.buffered_bytes());
        Ok(())
    }

    pub(crate) fn rows(&self) -> u64 {
        self.rows
    }

    pub(crate) async fn finish(self) -> Result<StagedFiles> {
        let files = self.writer.finish().await;
        drop(self.held);
        files
    }
}

/// What one lane hands over at a cut.
#[derive(Default)]
pub(crate) struct LaneCut {
    pub(crate) writer: Option<CountedWriter>,
    pub(crate) dead: Option<CountedWriter>,
    pub(crate) moves: Vec<PartitionMove>,
    pub(crate) gaps: Vec<PartitionMove>,
    pub(crate) rows: RowCounts,
    /// From the lane of dead letters alone.
    pub(crate) replay: Option<ReplayDelta>,
    pub(crate) max_timestamp_ms: i64,
}

/// A trigger whose offsets are settled. The permit bounds how many there are.
pub(crate) struct CutTrigger {
    pub(crate) open: OpenTrigger,
    pub(crate) lanes: Vec<LaneCut>,
    pub(crate) cut_at_ms: i64,
    pub(crate) began: Instant,
    pub(crate) permit: OwnedSemaphorePermit,
}

/// A trigger whose files are closed and stored.
pub(crate) struct SealedTrigger {
    pub(crate) open: OpenTrigger,
    pub(crate) files: StagedFiles,
    pub(crate) dead: StagedFiles,
    pub(crate) moves: Vec<PartitionMove>,
    pub(crate) gaps: Vec<PartitionMove>,
    pub(crate) rows: RowCounts,
    pub(crate) replay: Option<ReplayDelta>,
    pub(crate) max_timestamp_ms: i64,
    pub(crate) cut_at_ms: i64,
    pub(crate) began: Instant,
    pub(crate) permit: OwnedSemaphorePermit,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct CutFacts {
    pub(crate) since_cut: Duration,
    pub(crate) interval: Duration,
    pub(crate) heartbeat: Duration,
    pub(crate) source_bytes: u64,
    pub(crate) max_trigger_bytes: u64,
    pub(crate) memory_full: bool,
    pub(crate) output: bool,
    pub(crate) moved: bool,
    pub(crate) awaited: bool,
    pub(crate) draining: bool,
}

/// A trigger without output is cut for its positions alone: on a heartbeat, on the way out, or when so much was read
/// that reading it again would cost more than a commit.
pub(crate) fn should_cut(f: &CutFacts) -> bool {
    if !f.moved && !f.output {
        return false;
    }
    f.draining
        || f.awaited
        || f.source_bytes >= f.max_trigger_bytes
        || (f.output && (f.since_cut >= f.interval || f.memory_full))
        || f.since_cut >= f.heartbeat
}

/// The pace that the catalog can keep: commits that take longer than the interval stretch it, quick ones give it back.
pub(crate) fn next_interval(wanted: Duration, commit_took: Duration, max: Duration) -> Duration {
    if commit_took > wanted { commit_took.mul_f64(1.5).min(max.max(wanted)) } else { wanted }
}

#[cfg(test)]
#[path = "tests/trigger.rs"]
mod tests;
