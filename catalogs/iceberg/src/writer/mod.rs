//! Files of one commit: rows are split by partition, encoded as Parquet beside the async runtime, and described by
//! the manifest entry they will become.
//!
//! ```text
//!   write(batch) ─► pending (bounded) ─► one blocking task: split ─► encode ─► disk
//!   finish()     ─► close, sync, StagedFile { path, rows, DataFile as JSON }
//! ```

mod columns;
mod encoder;
mod metrics;
mod split;
mod staged;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::array::Array;
use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use tidewater_catalogs::{CommitUuid, Error, Result, StagedFiles, StagingWriter};
use tokio::task::JoinHandle;

use crate::error;
use crate::state::TableState;
use crate::storage::Storage;
use encoder::Encoder;
pub(crate) use encoder::{check_properties, writable};
pub(crate) use metrics::{ForeignFile, foreign_file, nulls, range};
pub(crate) use split::only_part;
pub(crate) use staged::{from_staged, grown, to_staged};

/// Decoded bytes that may wait while the task before is still encoding. Above it, `write` waits for that task.
const PENDING_BYTES: usize = 16 << 20;

/// A [`StagingWriter`]. The caller's next batch is made while this one is being encoded; small batches that arrive
/// meanwhile go into one task together.
pub(crate) struct FileWriter {
    encoder: Stage,
    pending: Vec<RecordBatch>,
    pending_bytes: usize,
    encoding_bytes: usize,
    buffered: Arc<AtomicUsize>,
}

enum Stage {
    Idle(Box<Encoder>),
    Busy(JoinHandle<Result<Box<Encoder>>>),
    /// After an error: what was written before is lost, so nothing may be finished any more.
    Failed,
}

impl FileWriter {
    pub(crate) fn new(storage: Storage, state: &TableState, commit: CommitUuid) -> Result<Self> {
        let buffered = Arc::new(AtomicUsize::new(0));
        let encoder = Encoder::new(storage, state, commit, Arc::clone(&buffered))?;
        Ok(Self {
            encoder: Stage::Idle(Box::new(encoder)),
            pending: Vec::new(),
            pending_bytes: 0,
            encoding_bytes: 0,
            buffered,
        })
    }

    /// Waits for the task that is encoding, and leaves its encoder idle.
    async fn settle(&mut self) -> Result<()> {
        if let Stage::Busy(task) = &mut self.encoder {
            let result = error::joined(task.await);
            self.encoding_bytes = 0;
            self.encoder = match result {
                Ok(encoder) => Stage::Idle(encoder),
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
                self.encoder = Stage::Busy(tokio::task::spawn_blocking(move || {
                    for batch in batches {
                        encoder.write(&batch)?;
                    }
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
}

#[async_trait]
impl StagingWriter for FileWriter {
    async fn write(&mut self, batch: RecordBatch) -> Result<()> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        self.pending_bytes += slice_bytes(&batch);
        self.pending.push(batch);
        if let Stage::Busy(task) = &self.encoder
            && !task.is_finished()
            && self.pending_bytes < PENDING_BYTES
        {
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
                let task = tokio::task::spawn_blocking(move || {
                    for batch in batches {
                        encoder.write(&batch)?;
                    }
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
