//! Rows that are taken out of a table, or come back with other values, in one snapshot.
//!
//! ```text
//!   scan with places ─► a query says which go, and what comes ─► marks by data file, new rows to the writer
//!      each touched file ─┬─ no row left ─────► leaves the table
//!                         ├─ much of it goes ─► its other rows are written anew      (copy on write)
//!                         └─ else ────────────► a file of its deleted positions      (merge on read)
//!   commit on the newest state, where what was read still holds there (see [`valid`])
//! ```

mod marks;
mod mode;
mod positions;
#[cfg(test)]
mod tests;
mod valid;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::array::{Array, AsArray, BooleanArray};
use arrow::compute::filter_record_batch;
use arrow::datatypes::UInt64Type;
use async_trait::async_trait;
use datafusion::catalog::TableProvider;
use datafusion::execution::SendableRecordBatchStream;
use futures::StreamExt;
use iceberg::spec::{DataFile, Operation};
use tidewater_catalogs::{
    ChangeKind, Changed, Error, ErrorKind, Repeated, Result, StagedFiles, StagingWriter, TableChange, TargetRows,
};
use uuid::Uuid;

use crate::attempts::{self, Commit};
use crate::commit::anchor::COMMIT_UUID;
use crate::commit::{Base, Change, Removal, Staged, stage};
use crate::lake::Lake;
use crate::rewrite::rewrite;
use crate::scan::{self, Places, TargetFile};
use crate::state::TableState;
use crate::writer::{FileWriter, from_staged, writable};
use marks::Marks;
use mode::Mode;
pub(crate) use mode::{Isolation, check as check_properties};
pub(crate) use valid::check as check_unchanged;

/// Files of deleted positions that are in memory at a time.
const FILES_AT_ONCE: usize = 32;

/// A change of one state of a table.
pub(crate) struct RowChange {
    lake: Arc<Lake>,
    state: Arc<TableState>,
    mode: Mode,
    isolation: Isolation,
    places: Arc<Places>,
}

impl std::fmt::Debug for RowChange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RowChange").field("state", &self.state).field("mode", &self.mode).finish_non_exhaustive()
    }
}

/// What becomes of the files that rows go from.
#[derive(Default)]
struct Outcome {
    /// Locations of files that leave, each with a manifest that lists it.
    remove: HashMap<String, String>,
    /// Files of deleted positions.
    deletes: Vec<(i32, DataFile)>,
    /// Data files of which something goes.
    touched: Vec<Arc<TargetFile>>,
    /// Data files whose other rows are to be written anew, with the positions that are not.
    rewrite: HashMap<String, Arc<[u64]>>,
}

impl RowChange {
    pub(crate) fn new(lake: Arc<Lake>, state: Arc<TableState>, kind: ChangeKind) -> Result<Self> {
        writable(&state.metadata)?;
        let properties = state.metadata.properties();
        let (mode, isolation) = (mode::mode(properties, kind)?, mode::isolation(properties, kind)?);
        Ok(Self { lake, state, mode, isolation, places: Arc::default() })
    }

    /// Takes the query's answer in: marks, and rows that come.
    async fn take(
        &self,
        mut input: SendableRecordBatchStream,
        repeated: Repeated,
        writer: &mut Box<dyn StagingWriter>,
    ) -> Result<(Marks, Changed)> {
        let (mut marks, mut changed) = (Marks::default(), Changed::default());
        while let Some(batch) = input.next().await {
            let batch = batch?;
            let places = batch.column(0).as_primitive::<UInt64Type>();
            let comes = (batch.num_columns() > 1).then(|| batch.column(1).as_boolean());
            let mut written = Vec::with_capacity(batch.num_rows());
            for row in 0..batch.num_rows() {
                let comes = comes.is_some_and(|comes| comes.is_valid(row) && comes.value(row));
                let counts = if places.is_null(row) {
                    changed.added += u64::from(comes);
                    true
                } else {
                    let first = marks.add(places.value(row));
                    if !first && repeated == Repeated::Refused {
                        return Err(twice());
                    }
                    changed.taken += u64::from(first);
                    first
                };
                written.push(comes && counts);
            }
            if written.contains(&true) {
                let columns: Vec<usize> = (2..batch.num_columns()).collect();
                let rows = filter_record_batch(&batch.project(&columns)?, &BooleanArray::from(written))?;
                writer.write(rows).await?;
            }
        }
        Ok((marks, changed))
    }

    /// Decides for each touched file, and writes the files of deleted positions.
    async fn settle(&self, commit: Uuid, marks: Marks) -> Result<Outcome> {
        let mut outcome = Outcome::default();
        let mut files = Vec::new();
        for (file, marked) in marks.by_file(&self.places)? {
            let (scoped, shared): (Vec<_>, Vec<_>) = file.deletes.iter().cloned().partition(|d| d.is_scoped);
            // What named this file alone is replaced by what comes of it here.
            outcome.remove.extend(scoped.iter().map(|d| (d.location.clone(), String::new())));
            outcome.touched.push(Arc::clone(&file));
            if marked.len() >= file.rows {
                outcome.remove.insert(file.location.clone(), file.manifest.clone());
                continue;
            }
            let marked: Arc<[u64]> = marked.iter().collect();
            let ours = scan::deleted_positions(&self.state, &file, &scoped).await?;
            let theirs = scan::deleted_positions(&self.state, &file, &shared).await?;
            let gone = scan::merge_positions(vec![ours, marked.clone()]);
            let all_gone = scan::merge_positions(vec![theirs, gone.clone()]);
            let leaves = all_gone.len() as u64 >= file.rows;
            if leaves || self.mode.rewrites(all_gone.len() as u64, file.rows) {
                outcome.remove.insert(file.location.clone(), file.manifest.clone());
                if !leaves {
                    outcome.rewrite.insert(file.location.clone(), marked);
                }
            } else {
                let (entry, bytes) = positions::file(&self.state, commit, outcome.deletes.len(), &file, &gone)?;
                outcome.deletes.push((file.spec_id, entry));
                files.push(bytes);
                if files.len() == FILES_AT_ONCE {
                    self.state.storage.write_new(std::mem::take(&mut files)).await?;
                }
            }
        }
        self.state.storage.write_new(files).await?;
        Ok(outcome)
    }
}

impl TargetRows for RowChange {
    fn provider(&self) -> Result<Arc<dyn TableProvider>> {
        scan::targets(Arc::clone(&self.state), Arc::clone(&self.places))
    }

    fn reads_table(&self) {
        self.places.read_whole();
    }
}

#[async_trait]
impl TableChange for RowChange {
    async fn apply(&self, input: SendableRecordBatchStream, repeated: Repeated) -> Result<Changed> {
        let commit = Uuid::now_v7();
        let _entered = self.lake.in_flight.enter(commit);
        let mut writer: Box<dyn StagingWriter> =
            Box::new(FileWriter::new(self.state.storage.clone(), &self.state, commit)?);
        let (marks, changed) = self.take(input, repeated, &mut writer).await?;
        if changed == Changed::default() {
            return Ok(changed);
        }
        let mut outcome = self.settle(commit, marks).await?;
        rewrite(&self.state, std::mem::take(&mut outcome.rewrite), &mut writer).await?;
        let files = writer.finish().await?;
        let what = Rows { change: self, commit, outcome, files };
        let done = attempts::commit(&self.lake, &self.state, commit, &what).await;
        done.map_err(|e| e.with_context("table", &self.state.name))?;
        Ok(changed)
    }
}

/// A change whose files are written.
struct Rows<'a> {
    change: &'a RowChange,
    commit: Uuid,
    outcome: Outcome,
    files: StagedFiles,
}

#[async_trait]
impl Commit for Rows<'_> {
    async fn stage(&self, base: &Base) -> Result<Staged> {
        let RowChange { lake, state, places, isolation, .. } = self.change;
        let base = valid::check(state, base, &self.outcome.touched, places, *isolation).await?;
        let metadata = &base.state.metadata;
        let add = self.files.files.iter().map(|f| from_staged(metadata, f)).collect::<Result<Vec<_>>>()?;
        let takes = !self.outcome.remove.is_empty() || !self.outcome.deletes.is_empty();
        let change = Change {
            operation: match (takes, add.is_empty()) {
                (false, _) => Operation::Append,
                (true, true) => Operation::Delete,
                (true, false) => Operation::Overwrite,
            },
            commit: self.commit,
            add,
            add_deletes: self.outcome.deletes.clone(),
            remove: Removal::Files(self.outcome.remove.clone()),
            summary: BTreeMap::from([(COMMIT_UUID.to_string(), self.commit.to_string())]),
            ..Change::default()
        };
        stage(&base, change, lake.now_ms()).await
    }
}

fn twice() -> Error {
    Error::new(ErrorKind::Ambiguous, "MERGE command cannot affect row a second time")
        .with_hint("Ensure that not more than one source row matches any one target row.")
}
