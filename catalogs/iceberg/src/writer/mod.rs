//! Files of one commit: rows are split by partition, encoded as Parquet beside the async runtime, and described by
//! the manifest entry they will become.
//!
//! ```text
//!   write(batch) ─► pending (bounded) ─► one blocking task: split ─► encode ─► disk
//!   finish()     ─► close, sync, StagedFile { path, rows, DataFile as JSON }
//! ```
//!
//! Rows of a statement are put in order before that ([`ArrangedWriter`]), with as much disk as it takes. A flow sorts
//! what it holds in memory. Which files are sorted is seen where they are encoded ([`follow`]).

mod arranged;
mod columns;
mod curve;
mod encoder;
mod follow;
mod keys;
mod metrics;
mod modes;
mod parquet;
mod sorter;
mod split;
mod staged;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::array::{Array, ArrayRef};
use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use tidewater_catalogs::{CommitUuid, Error, Result, StagedFiles, StagingWriter};
use tokio::task::JoinHandle;

use crate::error;
use crate::properties::Distribution;
use crate::state::TableState;
use crate::storage::Storage;
pub(crate) use arranged::ArrangedWriter;
pub(crate) use curve::CurveSample;
pub(crate) use encoder::writable;
use encoder::{Encoder, Fan};
pub(crate) use keys::Keys;
pub(crate) use metrics::{ForeignFile, foreign_file, nulls, range};
pub(crate) use modes::check_columns;
pub(crate) use parquet::check_properties;
pub(crate) use split::{only_part, plain};
pub(crate) use staged::{from_staged, grown, to_staged};

/// Decoded bytes that may wait while the task before is still encoding. Above it, `write` waits for that task.
const PENDING_BYTES: usize = 16 << 20;
/// Decoded bytes that a flow sorts at a time; they become files of their own.
const RUN_BYTES: usize = 16 << 20;

/// A [`StagingWriter`]. The caller's next batch is made while this one is being encoded; small batches that arrive
/// meanwhile go into one task together.
pub(crate) struct FileWriter {
    encoder: Stage,
    pending: Vec<RecordBatch>,
    pending_bytes: usize,
    encoding_bytes: usize,
    buffered: Arc<AtomicUsize>,
    /// Rows are sorted in memory.
    in_runs: bool,
    overflow: Vec<Vec<ArrayRef>>,
}

enum Stage {
    Idle(Box<Encoder>),
    Busy(JoinHandle<Result<Box<Encoder>>>),
    /// After an error: what was written before is lost, so nothing may be finished any more.
    Failed,
}

impl FileWriter {
    /// For a flow.
    pub(crate) fn new(storage: Storage, state: &TableState, commit: CommitUuid) -> Result<Self> {
        let mut writer = Self::fanned(storage, state, commit, Fan::Close, false)?;
        if let Stage::Idle(encoder) = &writer.encoder {
            writer.in_runs = encoder.has_order();
        }
        Ok(writer)
    }

    /// For rows that were put in order before. With `lineage` they may come with the columns of their lineage.
    fn fanned(storage: Storage, state: &TableState, commit: CommitUuid, fan: Fan, lineage: bool) -> Result<Self> {
        let buffered = Arc::new(AtomicUsize::new(0));
        let encoder = Encoder::new(storage, state, commit, fan, Arc::clone(&buffered), lineage)?;
        Ok(Self {
            encoder: Stage::Idle(Box::new(encoder)),
            pending: Vec::new(),
            pending_bytes: 0,
            encoding_bytes: 0,
            buffered,
            in_runs: false,
            overflow: Vec::new(),
        })
    }

    /// Waits for the task that is encoding, and leaves its encoder idle.
    async fn settle(&mut self) -> Result<()> {
        if let Stage::Busy(task) = &mut self.encoder {
            let result = error::joined(task.await);
            self.encoding_bytes = 0;
            self.encoder = match result {
                Ok(mut encoder) => {
                    self.overflow.append(&mut encoder.overflow);
                    Stage::Idle(encoder)
                }
                Err(e) => {
                    self.encoder = Stage::Failed;
                    return Err(e);
                }
            };
        }
        Ok(())
    }

    /// Starts encoding what is pending. The encoder must be idle.
    fn start(&mut self) -> Result<()> {
        match std::mem::replace(&mut self.encoder, Stage::Failed) {
            Stage::Idle(mut encoder) => {
                let batches = std::mem::take(&mut self.pending);
                self.encoding_bytes = std::mem::take(&mut self.pending_bytes);
                let in_runs = self.in_runs;
                self.encoder = Stage::Busy(tokio::task::spawn_blocking(move || {
                    encode(&mut encoder, batches, in_runs)?;
                    Ok(encoder)
                }));
                Ok(())
            }
            Stage::Busy(task) => {
                self.encoder = Stage::Busy(task);
                Ok(())
            }
            Stage::Failed => Err(Error::internal("the file writer was used after an error")),
        }
    }

    /// Encodes all that was given; `fan` is what holds from then on.
    async fn drain(&mut self, fan: Fan) -> Result<()> {
        self.settle().await?;
        if !self.pending.is_empty() {
            self.start()?;
            self.settle().await?;
        }
        if let Stage::Idle(encoder) = &mut self.encoder {
            encoder.set_fan(fan);
        }
        Ok(())
    }

    /// Rows that found no open file.
    fn take_overflow(&mut self) -> Vec<Vec<ArrayRef>> {
        std::mem::take(&mut self.overflow)
    }
}

fn encode(encoder: &mut Encoder, batches: Vec<RecordBatch>, in_runs: bool) -> Result<()> {
    if in_runs {
        return encoder.write_run(&batches);
    }
    batches.iter().try_for_each(|batch| encoder.write(batch))
}

#[async_trait]
impl StagingWriter for FileWriter {
    async fn write(&mut self, batch: RecordBatch) -> Result<()> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        self.pending_bytes += slice_bytes(&batch);
        self.pending.push(batch);
        let waits = match &self.encoder {
            _ if self.in_runs => self.pending_bytes < RUN_BYTES,
            Stage::Busy(task) => !task.is_finished() && self.pending_bytes < PENDING_BYTES,
            _ => false,
        };
        if waits {
            return Ok(());
        }
        self.settle().await?;
        self.start()
    }

    fn buffered_bytes(&self) -> usize {
        self.pending_bytes + self.encoding_bytes + self.buffered.load(Ordering::Relaxed)
    }

    async fn finish(mut self: Box<Self>) -> Result<StagedFiles> {
        self.settle().await?;
        match std::mem::replace(&mut self.encoder, Stage::Failed) {
            Stage::Idle(mut encoder) => {
                let batches = std::mem::take(&mut self.pending);
                let in_runs = self.in_runs;
                let task = tokio::task::spawn_blocking(move || {
                    encode(&mut encoder, batches, in_runs)?;
                    encoder.finish()
                });
                error::joined(task.await)
            }
            _ => Err(Error::internal("the file writer was used after an error")),
        }
    }
}

/// Bytes that the rows of the batch take; a slice of a large batch does not count the rest of it.
fn slice_bytes(batch: &RecordBatch) -> usize {
    let bytes = |column: &Arc<dyn Array>| {
        column.to_data().get_slice_memory_size().unwrap_or_else(|_| column.get_array_memory_size())
    };
    batch.columns().iter().map(bytes).sum()
}
