use crate::{Offsets, TableName};

/// What a flow is doing. `Retrying` is `Starting` or `Running` while a broker, store or catalog does not answer; it and
/// `Restarting` go on by themselves. `Failed` stays until someone says RESUME.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FlowState {
    Starting,
    Running,
    Retrying,
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
            Self::Retrying => "retrying",
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
    /// When the broker last told them. None where it has not in this run.
    pub high_at_ms: Option<i64>,
    /// Whether the broker told them when last asked.
    pub high_known: bool,
    pub rows_in: u64,
    pub rows_out: u64,
    /// Those of `rows_out` that are visible.
    pub rows_committed: u64,
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

    /// Records of a partition that the topic holds and the table does not. None while nobody knows: the flow does not
    /// run, or the broker does not answer.
    pub fn partition_lag(&self, partition: i32) -> Option<i64> {
        let known = self.high_known && matches!(self.state, FlowState::Running | FlowState::Retrying);
        known.then(|| (self.end(partition).unwrap_or(0) - self.committed.get(partition).unwrap_or(0)).max(0))
    }

    /// The same of all partitions. None also where there are none.
    pub fn lag(&self) -> Option<i64> {
        let all = self.high.iter().map(|(partition, _)| self.partition_lag(partition));
        all.reduce(|sum, lag| Some(sum?.saturating_add(lag?))).flatten()
    }
}
