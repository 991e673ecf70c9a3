//! Rows that are taken out of a table, or come back with other values, in one snapshot.
//!
//! ```text
//!   scan with places ─► a query says which go, and what comes ─► marks by data file, new rows to the writer
//!      each touched file ─┬─ no row left ─────► leaves the table
//!                         ├─ much of it goes ─► its other rows are written anew      (copy on write)
//!                         └─ else ────────────► a file of its deleted positions, or  (merge on read)
//!                                               its deletion vector
//!   commit on the newest state, where what was read still holds there (see [`valid`])
//! ```

mod marks;
mod mode;
mod positions;
mod row_ids;
#[cfg(test)]
pub(crate) mod tests;
mod valid;
mod vectors;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::array::{Array, AsArray, BooleanArray};
use arrow::compute::filter_record_batch;
use arrow::datatypes::UInt64Type;
use async_trait::async_trait;
use datafusion::catalog::TableProvider;
use datafusion::execution::SendableRecordBatchStream;
use futures::StreamExt;
use iceberg::spec::{DataFile, FormatVersion, MAIN_BRANCH, Operation};
use tidewater_catalogs::{
    ChangeKind, Changed, Error, ErrorKind, Repeated, Result, ReturnedRows, Runner, StagedFiles, StagingWriter,
    TableChange, TargetRows,
};
use uuid::Uuid;

use crate::attempts::Commit;
use crate::commit::anchor::COMMIT_UUID;
use crate::commit::{Base, Change, Listed, Removal, Staged, stage};
use crate::draft::Check;
use crate::lake::Lake;
use crate::lineage::{self, Settled};
use crate::onto::Onto;
use crate::rewrite::rewrite;
use crate::scan::{self, Places, TargetFile};
use crate::state::TableState;
use crate::writer::{ArrangedWriter, from_staged, writable};
use marks::Marks;
use mode::Mode;
pub(crate) use mode::{Isolation, check as check_properties};
use row_ids::RowIds;
pub(crate) use valid::check as check_unchanged;
use vectors::Vectors;

/// Files of deleted positions that are in memory at a time.
const FILES_AT_ONCE: usize = 32;

/// A change of one state of a table.
pub(crate) struct RowChange {
    lake: Arc<Lake>,
    state: Arc<TableState>,
    mode: Mode,
    isolation: Isolation,
    places: Arc<Places>,
    onto: Onto,
}

impl std::fmt::Debug for RowChange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RowChange").field("state", &self.state).field("mode", &self.mode).finish_non_exhaustive()
    }
}

/// What becomes of the files that rows go from.
#[derive(Default)]
struct Outcome {
    /// Files that leave, each with a manifest that lists it.
    remove: HashMap<Listed, String>,
    /// Files of deleted positions, or deletion vectors.
    deletes: Vec<(i32, DataFile)>,
    /// Data files of which something goes.
    touched: Vec<Arc<TargetFile>>,
    /// Data files whose other rows are to be written anew, with the positions that are not.
    rewrite: HashMap<String, Arc<[u64]>>,
}

impl RowChange {
    pub(crate) fn new(lake: Arc<Lake>, state: Arc<TableState>, kind: ChangeKind, onto: Onto) -> Result<Self> {
        writable(&state.metadata)?;
        let properties = state.metadata.properties();
        let (mode, isolation) = (mode::mode(properties, kind)?, mode::isolation(properties, kind)?);
        Ok(Self { lake, state, mode, isolation, places: Arc::default(), onto })
    }

    fn check(&self, touched: Vec<Arc<TargetFile>>) -> Check {
        Check { touched, places: Arc::clone(&self.places), isolation: self.isolation }
    }

    fn settled(&self) -> Settled {
        self.onto.draft().map_or(Settled::ALL, |draft| draft.settled())
    }

    /// Takes the query's answer in: marks, and rows that come.
    async fn take(
        &self,
        mut input: SendableRecordBatchStream,
        repeated: Repeated,
        returned: Option<&dyn ReturnedRows>,
        writer: &mut Box<dyn StagingWriter>,
    ) -> Result<(Marks, Changed)> {
        // Behind the place and whether a row comes.
        let behind = 2 + self.state.arrow_schema.fields().len();
        let (mut marks, mut changed) = (Marks::default(), Changed::default());
        let mut ids =
            lineage::is_kept(&self.state.metadata).then(|| RowIds::new(&self.state, &self.places, self.settled()));
        while let Some(batch) = input.next().await {
            let batch = batch?;
            let places = batch.column(0).as_primitive::<UInt64Type>();
            let comes = (batch.num_columns() > 1).then(|| batch.column(1).as_boolean());
            let mut written = Vec::with_capacity(batch.num_rows());
            let mut counted = Vec::with_capacity(batch.num_rows());
            for row in 0..batch.num_rows() {
                let comes = comes.is_some_and(|comes| comes.is_valid(row) && comes.value(row));
                let counts = if places.is_null(row) {
                    changed.added += u64::from(comes);
                    comes
                } else {
                    let first = marks.add(places.value(row));
                    if !first && repeated == Repeated::Refused {
                        return Err(twice());
                    }
                    changed.taken += u64::from(first);
                    first
                };
                written.push(comes && counts);
                counted.push(counts);
            }
            if let Some(returned) = returned.filter(|_| counted.contains(&true)) {
                let columns: Vec<usize> = (behind..batch.num_columns()).collect();
                returned.keep(filter_record_batch(&batch.project(&columns)?, &BooleanArray::from(counted))?)?;
            }
            if written.contains(&true) {
                let columns: Vec<usize> = (2..behind.min(batch.num_columns())).collect();
                let mut rows = filter_record_batch(&batch.project(&columns)?, &BooleanArray::from(written.clone()))?;
                if let Some(ids) = &mut ids {
                    let places = places.iter().zip(written).filter_map(|(place, written)| written.then_some(place));
                    rows = lineage::changed(&rows, ids.of(&places.collect::<Vec<_>>()).await?)?;
                }
                writer.write(rows).await?;
            }
        }
        Ok((marks, changed))
    }

    /// Decides for each touched file, and writes the files of deleted positions.
    async fn settle(&self, commit: Uuid, marks: Marks) -> Result<Outcome> {
        let mut outcome = Outcome::default();
        let mut files = Vec::new();
        let mut vectors =
            (self.state.metadata.format_version() >= FormatVersion::V3).then(|| Vectors::new(&self.state, commit));
        for (file, marked) in marks.by_file(&self.places)? {
            let (scoped, shared): (Vec<_>, Vec<_>) = file.deletes.iter().cloned().partition(|d| d.is_scoped);
            // What named this file alone is replaced by what comes of it here.
            outcome.remove.extend(scoped.iter().map(|d| (d.listed(), String::new())));
            outcome.touched.push(Arc::clone(&file));
            if marked.len() >= file.rows {
                outcome.remove.insert(Listed::file(&file.location), file.manifest.clone());
                continue;
            }
            let marked: Arc<[u64]> = marked.iter().collect();
            let ours = scan::deleted_positions(&self.state, &file, &scoped).await?;
            let theirs = scan::deleted_positions(&self.state, &file, &shared).await?;
            let gone = scan::merge_positions(vec![ours, marked.clone()]);
            let all_gone = scan::merge_positions(vec![theirs, gone.clone()]);
            let leaves = all_gone.len() as u64 >= file.rows;
            if leaves || self.mode.rewrites(all_gone.len() as u64, file.rows) {
                outcome.remove.insert(Listed::file(&file.location), file.manifest.clone());
                if !leaves {
                    outcome.rewrite.insert(file.location.clone(), marked);
                }
            } else if let Some(vectors) = &mut vectors {
                // Readers look at nothing but the vector of a file that has one.
                vectors.push(Arc::clone(&file), &all_gone)?;
                if vectors.is_full() {
                    self.write_vectors(vectors, &mut outcome).await?;
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
        if let Some(vectors) = &mut vectors {
            self.write_vectors(vectors, &mut outcome).await?;
        }
        Ok(outcome)
    }

    async fn write_vectors(&self, vectors: &mut Vectors<'_>, outcome: &mut Outcome) -> Result<()> {
        if let Some((entries, file)) = vectors.take().await? {
            outcome.deletes.extend(entries);
            self.state.storage.write_new(vec![file]).await?;
        }
        Ok(())
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
    async fn apply(
        &self,
        input: SendableRecordBatchStream,
        repeated: Repeated,
        returned: Option<&dyn ReturnedRows>,
        runner: &Runner,
    ) -> Result<Changed> {
        let commit = Uuid::now_v7();
        let entered = self.lake.in_flight.enter(commit);
        let mut writer = ArrangedWriter::with_lineage(&self.state, commit, None, runner)?;
        let (marks, changed) = self.take(input, repeated, returned, &mut writer).await?;
        if changed == Changed::default() {
            if let Some(draft) = self.onto.draft() {
                draft.rest_on(self.check(Vec::new()));
            }
            return Ok(changed);
        }
        let mut outcome = self.settle(commit, marks).await?;
        rewrite(&self.state, std::mem::take(&mut outcome.rewrite), self.settled(), &mut writer, runner).await?;
        let files = writer.finish().await?;
        let what = Rows { change: self, commit, outcome, files };
        let check = || Some(self.check(what.outcome.touched.clone()));
        self.onto.commit(&self.lake, &self.state, (commit, entered), &what, check).await?;
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
        let RowChange { lake, state, places, isolation, onto, .. } = self.change;
        let seen = base.on_branch(onto.branch())?;
        let seen = valid::check(state, &seen, &self.outcome.touched, places, *isolation).await?;
        let manifests = if onto.branch().is_none() { seen.manifests } else { None };
        let base = Base { manifests, ..base.clone() };
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
            branch: onto.branch().map(str::to_owned),
            ..Change::default()
        };
        stage(&base, change, lake.now_ms()).await
    }

    fn branch(&self) -> &str {
        self.change.onto.branch().unwrap_or(MAIN_BRANCH)
    }
}

fn twice() -> Error {
    Error::new(ErrorKind::Ambiguous, "MERGE command cannot affect row a second time")
        .with_hint("Ensure that not more than one source row matches any one target row.")
}
