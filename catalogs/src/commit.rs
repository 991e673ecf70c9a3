use std::any::Any;
use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{Compacted, Error, Result, Vacuumed};

/// Names one commit. The same commit, sent again after a lost answer, keeps its uuid.
pub type CommitUuid = Uuid;

/// The generation of a flow's writer. A new writer takes a higher one with its first commit, which fences the old.
pub type Epoch = u64;

/// Where a flow stands in one table, as written by its last commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Anchor {
    pub snapshot_id: i64,
    /// Number of the trigger. The commit that creates the anchor has 0.
    pub seq: u64,
    pub epoch: Epoch,
    pub commit_uuid: CommitUuid,
    /// Path of the checkpoint object and its sha256 in hex. Empty where the commit had none.
    pub checkpoint: String,
    pub checkpoint_sha256: String,
}

/// The two places where an anchor is kept, and whether they agree: the tag `tidewater.<flow>` (with the summary of
/// the snapshot it names) and the table property `tidewater.<flow>.head`. Both move in one commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AnchorState {
    /// No flow of this id has written here.
    Absent,
    /// Tag and property agree, and the tagged snapshot is an ancestor of main.
    Valid(Anchor),
    /// The tag is gone, or the table was rolled back behind it, or tag and property differ. Says which.
    Broken(String),
}

/// One state of a table, loaded past every cache.
#[derive(Clone)]
pub struct TableHead {
    pub table_uuid: Uuid,
    pub main_snapshot_id: Option<i64>,
    pub anchor: AnchorState,
    /// What the back-end needs to commit on this very state; opaque to the committer.
    pub base: Arc<dyn Any + Send + Sync>,
}

impl std::fmt::Debug for TableHead {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TableHead")
            .field("table_uuid", &self.table_uuid)
            .field("main_snapshot_id", &self.main_snapshot_id)
            .field("anchor", &self.anchor)
            .finish_non_exhaustive()
    }
}

/// A data file that is written and not yet part of the table. `metadata` is the back-end's own description
/// (for Iceberg: a DataFile in JSON), so that a checkpoint can carry it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StagedFile {
    pub path: String,
    pub rows: u64,
    pub size_bytes: u64,
    pub metadata: serde_json::Value,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct StagedFiles {
    pub files: Vec<StagedFile>,
}

impl StagedFiles {
    pub fn rows(&self) -> u64 {
        self.files.iter().map(|f| f.rows).sum()
    }
    pub fn size_bytes(&self) -> u64 {
        self.files.iter().map(|f| f.size_bytes).sum()
    }
}

/// One attempt to make a trigger visible.
#[derive(Debug, Clone)]
pub struct CommitRequest {
    /// Id of the flow; names the tag and the property.
    pub flow: String,
    /// What the anchor must be on the metadata that is swapped: the compare of the compare-and-swap.
    pub expected: Option<Anchor>,
    pub seq: u64,
    pub epoch: Epoch,
    pub commit_uuid: CommitUuid,
    pub checkpoint: String,
    pub checkpoint_sha256: String,
    pub files: StagedFiles,
    /// More keys of the snapshot summary, written as they are: `tidewater.offsets` …
    pub summary: BTreeMap<String, String>,
}

#[derive(Debug)]
pub enum CommitReply {
    /// The catalog said yes, parsed and whole.
    Committed(TableHead),
    /// The catalog said no: the table moved. Still resolved by loading, as a proxy may have sent the request twice.
    Refused(Error),
    /// Anything else: the commit may or may not have happened.
    Unknown(Error),
}

/// Writes the files of one trigger. Partition values are computed here.
#[async_trait]
pub trait StagingWriter: Send {
    async fn write(&mut self, batch: RecordBatch) -> Result<()>;
    /// Bytes held in memory now.
    fn buffered_bytes(&self) -> usize;
    /// Closes the files; every byte is stored when this returns. The files are garbage until a commit names them.
    async fn finish(self: Box<Self>) -> Result<StagedFiles>;
}

/// A table that flows commit to. No method that flows call retries, and none
/// ever deletes a data file.
#[async_trait]
pub trait CommitTable: Send + Sync + std::fmt::Debug {
    /// Columns in table order.
    fn schema(&self) -> SchemaRef;
    /// Never cached. `NotFound` where the table was dropped.
    async fn load_head(&self, flow: &str) -> Result<TableHead>;
    /// A writer for files of one commit; their names contain `commit`.
    fn writer(&self, commit: CommitUuid) -> Result<Box<dyn StagingWriter>>;
    /// Exactly one attempt on exactly the state `head`: adds the files, moves tag and property, all or nothing.
    /// Refused without asking the catalog where the anchor in `head` is not `request.expected`.
    async fn try_commit(&self, head: &TableHead, request: &CommitRequest) -> CommitReply;
    /// Removes the anchor of a flow that will not come back; its rows stay. For a flow that does, the anchor is lost
    /// from then on, and it says so.
    async fn forget(&self, flow: &str) -> Result<()>;
    /// What keeps metadata small: merges manifests, expires snapshots (never a tagged one). Called between commits
    /// by the table's committer; a lost race is no error.
    async fn maintain(&self) -> Result<()>;
    /// Writes small files anew, where there are enough of them. Runs beside commits, which it makes no more than begin anew.
    async fn compact(&self) -> Result<Compacted> {
        Ok(Compacted::default())
    }
    /// Removes files that nobody names and that are too old to be about to be named.
    async fn vacuum(&self) -> Result<Vacuumed> {
        Ok(Vacuumed::default())
    }
}
