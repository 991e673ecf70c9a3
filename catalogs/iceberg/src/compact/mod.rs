//! Small files and files with deletes, written anew.
//!
//! ```text
//!   a planned scan chooses files ─► bins (see [`bins`]) ─► each is read without its deletes ─► sort ─► the writer
//!   commit: the old files leave, the new ones have the sequence number of the state that was read, so that equality
//!   deletes which came meanwhile hold for their rows, too
//! ```
//!
//! Rows that others deleted by position meanwhile would come back: such a commit is a conflict, and nothing is changed.

mod bins;
mod tiers;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::catalog::TableProvider;
use datafusion::prelude::SessionContext;
use futures::StreamExt;
use iceberg::spec::{Operation, SortOrder};
use tidewater_catalogs::{
    Compacted, Error, ErrorKind, Result, RowOrder, Runner, StagedFiles, TableCompaction, TargetRows,
};
use uuid::Uuid;

use crate::attempts::{self, Commit};
use crate::change::{Isolation, check_unchanged};
use crate::commit::anchor::COMMIT_UUID;
use crate::commit::{Base, Change, Listed, Removal, Staged, stage};
use crate::lake::Lake;
use crate::lineage::Settled;
use crate::properties as p;
use crate::rewrite::{remains, rewrite};
use crate::scan::{self, Places, TargetFile};
use crate::sort_order::sort_order;
use crate::state::TableState;
use crate::work::own_runner;
use crate::writer::{ArrangedWriter, CurveSample, Keys, from_staged, writable};
use bins::{Wanted, bins};
use tiers::tiers;

/// Bytes of old files that one commit replaces: what is lost where it meets a conflict.
const COMMIT_BYTES: u64 = 2 << 30;
/// Bytes of old files that are sorted together, on disk.
const SORTED_BYTES: u64 = 100 << 30;

/// A compaction of one state of a table.
pub(crate) struct Compaction {
    lake: Arc<Lake>,
    state: Arc<TableState>,
    places: Arc<Places>,
    least_files: usize,
    /// Other than the table's.
    order: Option<Order>,
}

enum Order {
    By(SortOrder),
    /// Columns of the table.
    Curve(Vec<usize>),
}

impl std::fmt::Debug for Compaction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Compaction").field("state", &self.state).finish_non_exhaustive()
    }
}

impl Compaction {
    pub(crate) fn new(
        lake: Arc<Lake>,
        state: Arc<TableState>,
        least_files: usize,
        order: Option<&RowOrder>,
    ) -> Result<Self> {
        writable(&state.metadata)?;
        let order = order.map(|order| Order::new(&state, order)).transpose()?;
        Ok(Self { lake, state, places: Arc::default(), least_files, order })
    }

    /// By what the rows of these files are sorted, where it is not the table's order.
    async fn keys(&self, files: &HashMap<String, Arc<[u64]>>, runner: &Runner) -> Result<Option<Keys>> {
        match &self.order {
            None => Ok(None),
            Some(Order::By(order)) => Keys::of_order(&self.state.metadata, order),
            Some(Order::Curve(columns)) => {
                let mut sample = CurveSample::new(columns);
                let mut rows = remains(&self.state, files.clone(), None, Some(columns), runner).await?;
                while let Some(batch) = rows.next().await {
                    sample.add(batch?.columns())?;
                }
                Ok(sample.finish().map(Keys::along))
            }
        }
    }

    async fn replace(&self, bins: &[Vec<Arc<TargetFile>>], runner: &Runner) -> Result<Compacted> {
        let commit = Uuid::now_v7();
        let _entered = self.lake.in_flight.enter(commit);
        let mut staged = StagedFiles::default();
        for bin in bins {
            // Each bin has a writer of its own, so that it becomes files of its own.
            let files = bin.iter().map(|f| (f.location.clone(), Arc::from([]))).collect();
            let keys = self.keys(&files, runner).await?;
            let mut writer = ArrangedWriter::with_lineage(&self.state, commit, keys, runner)?;
            rewrite(&self.state, files, Settled::ALL, &mut writer, runner).await?;
            staged.files.extend(writer.finish().await?.files);
        }
        let replaced: Vec<Arc<TargetFile>> = bins.iter().flatten().cloned().collect();
        let done = Compacted {
            files_added: staged.files.len() as u64,
            bytes_added: staged.files.iter().map(|f| f.size_bytes).sum(),
            ..removed(&replaced)
        };
        let what = Replacement { compaction: self, commit, replaced, files: staged };
        let committed = attempts::commit(&self.lake, &self.state, commit, &what).await;
        match committed {
            Ok(()) => Ok(done),
            // Nothing happened; the files can be chosen anew.
            Err(e) if e.kind() == ErrorKind::Conflict => {
                tracing::debug!(table = %self.state.name, error = %e, "a compaction met a change");
                Ok(Compacted { conflicts: 1, ..Compacted::default() })
            }
            Err(e) => Err(e.with_context("table", &self.state.name)),
        }
    }
}

impl Order {
    fn new(state: &TableState, order: &RowOrder) -> Result<Self> {
        let schema = state.metadata.current_schema();
        Ok(match order {
            RowOrder::By(fields) => Self::By(sort_order(schema, fields)?),
            RowOrder::Curve(columns) => {
                let fields = schema.as_struct().fields();
                let places = columns.iter().map(|column| {
                    let found = fields.iter().position(|f| f.name == *column);
                    let place = found.ok_or_else(|| Error::not_found(format!("column \"{column}\" does not exist")))?;
                    match fields[place].field_type.is_primitive() {
                        true => Ok(place),
                        false => Err(Error::invalid(format!(
                            "rows cannot be sorted by column \"{column}\" of type {}",
                            fields[place].field_type
                        ))),
                    }
                });
                Self::Curve(places.collect::<Result<_>>()?)
            }
        })
    }
}

fn removed(files: &[Arc<TargetFile>]) -> Compacted {
    Compacted {
        files_removed: files.len() as u64,
        bytes_removed: files.iter().map(|f| f.size_bytes).sum(),
        delete_files_removed: files.iter().map(|f| f.deletes.iter().filter(|d| d.is_scoped).count() as u64).sum(),
        ..Compacted::default()
    }
}

impl TargetRows for Compaction {
    fn provider(&self) -> Result<Arc<dyn TableProvider>> {
        scan::targets(Arc::clone(&self.state), Arc::clone(&self.places))
    }
}

#[async_trait]
impl TableCompaction for Compaction {
    async fn run(&self, dry_run: bool, runner: &Runner) -> Result<Compacted> {
        let metadata = &self.state.metadata;
        let target_bytes = p::get(metadata.properties(), p::TARGET_FILE_BYTES)?;
        let own = metadata.default_sort_order();
        let sorted = Keys::of_order(metadata, own)?.is_some();
        let order_id = i32::try_from(own.order_id).ok().filter(|_| sorted && self.order.is_none());
        let wanted = Wanted {
            target_bytes,
            order_id,
            all: self.order.is_some(),
            bin_bytes: if sorted || self.order.is_some() { SORTED_BYTES } else { target_bytes },
            spec_id: metadata.default_partition_spec_id(),
            least_files: self.least_files,
        };
        let bins = bins(&self.places.files(), wanted);
        if dry_run {
            let mut would = Compacted::default();
            bins.iter().for_each(|bin| would += removed(bin));
            return Ok(would);
        }
        self.replace_in_parts(bins, runner).await
    }
}

/// Writes small files of a table anew that a flow keeps writing to, where there are enough of them, and those of whose rows
/// many are deleted.
pub(crate) async fn automatic(lake: &Arc<Lake>, state: Arc<TableState>) -> Result<Compacted> {
    let properties = state.metadata.properties();
    if !p::get(properties, p::AUTO_OPTIMIZE)? {
        return Ok(Compacted::default());
    }
    let target_bytes = p::get(properties, p::TARGET_FILE_BYTES)?;
    let compaction = Compaction::new(Arc::clone(lake), state, 0, None)?;
    // Planning alone finds the files.
    compaction.provider()?.scan(&SessionContext::new().state(), None, &[], None).await?;
    compaction.replace_in_parts(tiers(&compaction.places.files(), target_bytes), &own_runner()?).await
}

impl Compaction {
    /// So many at a time that not too much is lost where others change the same files.
    async fn replace_in_parts(&self, bins: Vec<Vec<Arc<TargetFile>>>, runner: &Runner) -> Result<Compacted> {
        let mut done = Compacted::default();
        let mut group: Vec<Vec<Arc<TargetFile>>> = Vec::new();
        let mut bytes = 0;
        for bin in bins {
            let size: u64 = bin.iter().map(|f| f.size_bytes).sum();
            if bytes + size > COMMIT_BYTES && !group.is_empty() {
                done += self.replace(&std::mem::take(&mut group), runner).await?;
                bytes = 0;
            }
            bytes += size;
            group.push(bin);
        }
        if !group.is_empty() {
            done += self.replace(&group, runner).await?;
        }
        Ok(done)
    }
}

/// New files in the place of old ones, all written.
struct Replacement<'a> {
    compaction: &'a Compaction,
    commit: Uuid,
    replaced: Vec<Arc<TargetFile>>,
    files: StagedFiles,
}

#[async_trait]
impl Commit for Replacement<'_> {
    async fn stage(&self, base: &Base) -> Result<Staged> {
        let Compaction { lake, state, places, .. } = self.compaction;
        // Rows that came are of no matter: they are in other files.
        let base = check_unchanged(state, base, &self.replaced, places, Isolation::Snapshot).await?;
        let metadata = &base.state.metadata;
        let mut remove = HashMap::new();
        for file in &self.replaced {
            remove.insert(Listed::file(&file.location), file.manifest.clone());
            remove.extend(file.deletes.iter().filter(|d| d.is_scoped).map(|d| (d.listed(), String::new())));
        }
        let change = Change {
            operation: Operation::Replace,
            commit: self.commit,
            add: self.files.files.iter().map(|f| from_staged(metadata, f)).collect::<Result<_>>()?,
            add_sequence: state.metadata.current_snapshot().map(|s| s.sequence_number()),
            remove: Removal::Files(remove),
            summary: BTreeMap::from([(COMMIT_UUID.to_string(), self.commit.to_string())]),
            ..Change::default()
        };
        stage(&base, change, lake.now_ms()).await
    }
}
