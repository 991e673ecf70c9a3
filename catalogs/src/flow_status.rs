use crate::{Offsets, TableName};

/// What a flow is doing. `Failed` stays until someone says RESUME; `Restarting` goes on by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FlowState {
    Starting,
    Running,
    Paused,
    Restarting,
    Failed,
    Stopped,
}

impl FlowState {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Restarting => "restarting",
            Self::Failed => "failed",
            Self::Stopped => "stopped",
        }
    }
}

/// Whose an error is, so that the right person looks at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorDomain {
    User,
    External,
    Internal,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlowErrorInfo {
    pub domain: ErrorDomain,
    /// DATA_LOSS, TOPIC_REPLACED, ANCHOR_LOST, POISON, FENCED, UNAVAILABLE, INTERNAL …
    pub code: String,
    pub message: String,
    pub hint: Option<String>,
    pub at_ms: i64,
}

/// One flow as the views of `system` show it. Counts are since the flow started in this process.
#[derive(Debug, Clone)]
pub struct FlowStatus {
    pub id: uuid::Uuid,
    pub name: TableName,
    pub state: FlowState,
    pub error: Option<FlowErrorInfo>,
    pub restarts: u64,
    pub epoch: u64,
    /// Number of the last commit.
    pub seq: u64,
    pub snapshot_id: Option<i64>,
    pub committed_at_ms: Option<i64>,
    pub topic: String,
    /// Next offsets to read, as committed.
    pub committed: Offsets,
    /// Next offsets to read, as consumed.
    pub position: Offsets,
    /// High-water marks when last asked.
    pub high: Offsets,
    pub rows_in: u64,
    pub rows_out: u64,
    pub rows_dead: u64,
    pub rows_skipped: u64,
    pub bytes_in: u64,
    pub commits: u64,
    /// Duration of the last commit, from seal to visible.
    pub commit_ms: u64,
    pub commit_interval_ms: u64,
}

impl FlowStatus {
    /// The end of a partition as far as is known: marks are asked for seldom, and reading goes on meanwhile.
    pub fn end(&self, partition: i32) -> Option<i64> {
        self.high.get(partition).max(self.position.get(partition))
    }

    /// Records of a partition that the topic holds and the table does not.
    pub fn partition_lag(&self, partition: i32) -> i64 {
        (self.end(partition).unwrap_or(0) - self.committed.get(partition).unwrap_or(0)).max(0)
    }

    /// The same of all partitions.
    pub fn lag(&self) -> i64 {
        self.high.iter().map(|(partition, _)| self.partition_lag(partition)).sum()
    }
}
