use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use tidewater_catalogs::{BlobStore, CommitTable, Definition, OnError, Result, StartPosition, StreamSource, TableName};

use crate::replay::Replay;

/// The query of a flow, compiled. Stateless: rows of the output depend on one row of the input each.
pub trait FlowQuery: Send + Sync + std::fmt::Debug {
    /// Columns of the target table, in order and with its types.
    fn output_schema(&self) -> SchemaRef;
    /// Columns of [`StreamSource::schema`] that the query reads, ascending.
    fn projection(&self) -> &[usize];
    /// Hash of the statement and of the versions that planned it, for the checkpoint.
    fn fingerprint(&self) -> &str;
    /// One independent copy that runs in one task.
    fn lane(&self) -> Result<Box<dyn FlowLane>>;
}

#[async_trait]
pub trait FlowLane: Send {
    /// Output of one input batch. `InvalidInput`-like errors name what in the data broke the query.
    async fn apply(&mut self, batch: RecordBatch) -> Result<Vec<RecordBatch>>;
}

/// Settings of one flow, from `WITH (…)` and the server's defaults.
#[derive(Debug, Clone, PartialEq)]
pub struct FlowSettings {
    /// A trigger is cut after this time …
    pub commit_interval: Duration,
    /// … or after this many bytes of source records, whichever comes first.
    pub max_trigger_bytes: u64,
    /// How many readers (and lanes) share the partitions.
    pub parallelism: usize,
    pub on_error: OnError,
    /// Decoded rows and open files may hold this much; intake pauses above it.
    pub memory_bytes: u64,
    /// Positions are committed after this time even where no row came out.
    pub heartbeat: Duration,
    /// On offsets lost to retention: false fails the flow, true goes on behind the gap.
    pub skip_data_loss: bool,
}

impl Default for FlowSettings {
    fn default() -> Self {
        Self {
            commit_interval: Duration::from_secs(2),
            max_trigger_bytes: 256 << 20,
            parallelism: 1,
            on_error: OnError::Dlq,
            memory_bytes: 1 << 30,
            heartbeat: Duration::from_secs(60),
            skip_data_loss: false,
        }
    }
}

/// All that a flow needs to run.
#[derive(Debug, Clone)]
pub struct FlowSpec {
    /// Stable over restarts; names tag, property and checkpoints.
    pub id: uuid::Uuid,
    pub name: TableName,
    pub settings: FlowSettings,
    pub source: Arc<dyn StreamSource>,
    pub start: StartPosition,
    pub query: Arc<dyn FlowQuery>,
    pub target: Arc<dyn CommitTable>,
    /// The stream's dead-letter table.
    pub dead_letters: Arc<dyn CommitTable>,
    pub blobs: Arc<dyn BlobStore>,
    /// Requests to replay dead letters that nobody knows to be answered, in the order in which they were made.
    pub replays: Vec<Replay>,
}

/// Plans a stored definition. Called at every start and restart of a flow.
#[async_trait]
pub trait FlowFactory: Send + Sync + std::fmt::Debug {
    async fn build(&self, flow: &Definition) -> Result<FlowSpec>;

    /// The definition as it is stored now, asked before each run: another server may have changed, paused or dropped
    /// the flow. `NotFound` where it is gone.
    async fn current(&self, flow: &Definition) -> Result<Definition> {
        Ok(flow.clone())
    }
}
