use async_trait::async_trait;

use crate::{Result, Runner, SortField, TargetRows};

/// Data files of one state of a table that are to be written anew, fewer and without what was deleted. A scan of its
/// rows chooses the files by its filters when it is planned; it need not be run.
#[async_trait]
pub trait TableCompaction: TargetRows {
    /// Writes anew what is worth it among the chosen files; with `dry_run`, only tells. In one snapshot or several: an
    /// error leaves those that are made.
    async fn run(&self, dry_run: bool, runner: &Runner) -> Result<Compacted>;
}

/// In which rows are written anew, within each partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RowOrder {
    By(Vec<SortField>),
    /// Along a curve that keeps rows together whose values are near in each of these columns.
    Curve(Vec<String>),
}

/// What a compaction did, or would do: then nothing is added yet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Compacted {
    pub files_removed: u64,
    pub files_added: u64,
    pub bytes_removed: u64,
    pub bytes_added: u64,
    /// Files of deleted positions that named a removed file alone.
    pub delete_files_removed: u64,
    /// Snapshots that were not made, because others changed the same files meanwhile.
    pub conflicts: u64,
}

impl std::ops::AddAssign for Compacted {
    fn add_assign(&mut self, other: Self) {
        self.files_removed += other.files_removed;
        self.files_added += other.files_added;
        self.bytes_removed += other.bytes_removed;
        self.bytes_added += other.bytes_added;
        self.delete_files_removed += other.delete_files_removed;
        self.conflicts += other.conflicts;
    }
}

/// What a table need not keep.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct VacuumRetention {
    /// Snapshots and files that are younger stay. None: as the table's properties say.
    pub age_ms: Option<u64>,
    /// The newest snapshots, which stay however old they are.
    pub snapshots: Option<u64>,
}

/// What a vacuum removed, or would remove.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Vacuumed {
    pub snapshots: u64,
    pub files: u64,
    pub bytes: u64,
}
