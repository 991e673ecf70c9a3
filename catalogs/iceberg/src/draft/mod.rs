//! Several changes of a table that become one snapshot: a transaction's private copy.
//!
//! ```text
//!   began ─► snapshot ─► snapshot ─► …       in memory: manifests are written, no metadata file, no pointer moves
//!     └────────── what differs ──────────►   one change, committed on the newest state
//! ```
//!
//! The commit must mean the same on the newest state as it did on the state that the draft began with: what holds for one
//! change of rows (see [`crate::change`]) has to hold for each of the draft's.

#[cfg(test)]
mod tests;

use std::any::Any;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use iceberg::spec::{DataContentType, DataFile, ManifestContentType, ManifestFile, Operation};
use parking_lot::Mutex;
use tidewater_catalogs::{DraftMark, Error, ErrorKind, LakeTable, Result, TableDraft};
use uuid::Uuid;

use crate::attempts::{self, Commit, Part};
use crate::change::{Isolation, check_unchanged};
use crate::commit::anchor::COMMIT_UUID;
use crate::commit::{Base, Change, Listed, Removal, Staged, current_manifests, stage, with_first_row_id};
use crate::in_flight::Entered;
use crate::lake::Lake;
use crate::lineage::Settled;
use crate::scan::{Places, TargetFile};
use crate::state::TableState;
use crate::table::{IcebergTable, no_nulls};

/// Statements of a transaction that write to one table: each is a snapshot in memory until COMMIT.
const MOST_CHANGES: usize = 1000;
/// Files that no snapshot names are garbage to others after three days.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// What a change of rows rests on.
pub(crate) struct Check {
    pub(crate) touched: Vec<Arc<TargetFile>>,
    pub(crate) places: Arc<Places>,
    pub(crate) isolation: Isolation,
}

impl Check {
    /// What was done rests on every row that was there.
    pub(crate) fn of_all() -> Self {
        let places = Places::default();
        places.read_whole();
        Self { touched: Vec::new(), places: Arc::new(places), isolation: Isolation::Serializable }
    }
}

pub(crate) struct Draft {
    lake: Arc<Lake>,
    began: Arc<TableState>,
    since: Instant,
    made: Mutex<Made>,
}

#[derive(Clone)]
struct Made {
    state: Arc<TableState>,
    manifests: Option<Arc<Vec<ManifestFile>>>,
    checks: Vec<Arc<Check>>,
    /// Whose files are named by no snapshot that others see.
    written: Vec<Arc<Entered>>,
}

impl std::fmt::Debug for Draft {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Draft").field("began", &self.began).finish_non_exhaustive()
    }
}

impl Draft {
    pub(crate) fn new(lake: Arc<Lake>, began: Arc<TableState>) -> Self {
        let made = Made { state: Arc::clone(&began), manifests: None, checks: Vec::new(), written: Vec::new() };
        Self { lake, began, since: Instant::now(), made: Mutex::new(made) }
    }

    /// What others see of the ids of its rows.
    pub(crate) fn settled(&self) -> Settled {
        Settled::until(&self.began.metadata)
    }

    /// That nothing was changed is something that the transaction may go on from.
    pub(crate) fn rest_on(&self, check: Check) {
        self.made.lock().checks.push(Arc::new(check));
    }

    /// Takes one change in. Its files are written already.
    pub(crate) async fn take(&self, what: &dyn Commit, entered: Entered, check: Option<Check>) -> Result<()> {
        let before = self.made.lock().clone();
        if before.written.len() >= MOST_CHANGES {
            return Err(Error::new(ErrorKind::ResourcesExhausted, "too many changes of one table in a transaction")
                .with_detail(format!("The limit is {MOST_CHANGES} statements."))
                .with_hint("Write more rows with each statement, or commit in between."));
        }
        let base = Base { state: before.state, manifests: before.manifests, json: None };
        let staged = what.stage(&base).await?;
        base.state.storage.write_new(staged.files).await?;
        let (name, storage) = (&base.state.name, base.state.storage.clone());
        let state = self.lake.state(name, Arc::new(staged.metadata), &staged.location, storage)?;
        let mut made = self.made.lock();
        // A statement that nobody waits for any more may end after what came behind it.
        if !Arc::ptr_eq(&made.state, &base.state) {
            return Err(Error::new(ErrorKind::Conflict, "the transaction has gone on without this statement"));
        }
        made.state = state;
        made.manifests = Some(staged.manifests);
        made.checks.extend(check.map(Arc::new));
        made.written.push(Arc::new(entered));
        Ok(())
    }
}

impl TableDraft for Draft {
    fn table(self: Arc<Self>) -> Result<Arc<dyn LakeTable>> {
        let state = Arc::clone(&self.made.lock().state);
        Ok(Arc::new(IcebergTable::of_draft(Arc::clone(&self.lake), state, Arc::clone(&self))?))
    }

    fn is_changed(&self) -> bool {
        let made = self.made.lock();
        made.state.metadata.current_snapshot_id() != self.began.metadata.current_snapshot_id()
    }

    fn mark(&self) -> DraftMark {
        DraftMark(Arc::new(self.made.lock().clone()))
    }

    fn reset(&self, mark: &DraftMark) {
        if let Some(made) = mark.0.downcast_ref::<Made>() {
            *self.made.lock() = made.clone();
        }
    }

    fn as_any(&self) -> &(dyn Any + Send + Sync) {
        self
    }
}

/// Commits all drafts, or none.
pub(crate) async fn commit(lake: &Lake, drafts: &[Arc<dyn TableDraft>]) -> Result<()> {
    let commit = Uuid::now_v7();
    let _entered = lake.in_flight.enter(commit);
    let mut whole = Vec::with_capacity(drafts.len());
    for draft in drafts {
        let draft = draft.as_any().downcast_ref::<Draft>();
        let draft = draft.ok_or_else(|| Error::internal("the draft is of another catalog"))?;
        whole.extend(Whole::of(draft, commit).await.map_err(|e| e.with_context("table", &draft.began.name))?);
    }
    let parts: Vec<Part<'_>> = whole.iter().map(|w| Part { table: &w.draft.began, what: w }).collect();
    let done = attempts::commit_all(lake, commit, &parts).await;
    done.map_err(|e| match whole.as_slice() {
        [one] => e.with_context("table", &one.draft.began.name),
        _ => e,
    })
}

/// All that a draft has done, as one change.
struct Whole<'a> {
    draft: &'a Draft,
    commit: Uuid,
    checks: Vec<Check>,
    add: Vec<(i32, DataFile)>,
    add_deletes: Vec<(i32, DataFile)>,
    remove: HashMap<Listed, String>,
}

/// A file that lives in a state.
struct Living {
    spec_id: i32,
    content: ManifestContentType,
    manifest: String,
    file: DataFile,
}

impl<'a> Whole<'a> {
    /// None where nothing is left to do.
    async fn of(draft: &'a Draft, commit: Uuid) -> Result<Option<Self>> {
        let made = draft.made.lock().clone();
        let conflict = |why: &str| Error::new(ErrorKind::Conflict, why.to_owned());
        if draft.since.elapsed() > LONGEST {
            return Err(conflict("the transaction was open for more than a day"));
        }
        let before = current_manifests(&draft.began).await.map_err(|e| match e.kind() {
            ErrorKind::NotFound => conflict("the snapshot that the transaction began with was removed").with_source(e),
            _ => e,
        })?;
        let after = match made.manifests {
            Some(manifests) => manifests,
            None => Arc::new(current_manifests(&made.state).await?),
        };
        let old = living(&draft.began, &before, &after).await?;
        let new = living(&made.state, &after, &before).await?;
        let gone = old.iter().filter(|(key, _)| !new.contains_key(*key));
        let remove: HashMap<Listed, String> = gone.map(|(key, l)| (key.clone(), l.manifest.clone())).collect();
        let (mut add, mut add_deletes) = (Vec::new(), Vec::new());
        for (_, living) in new.into_iter().filter(|(key, _)| !old.contains_key(key)) {
            if living.content == ManifestContentType::Data {
                // Ids of rows are given when the snapshot is made.
                add.push((living.spec_id, with_first_row_id(&living.file, living.spec_id, None)?));
            } else if living.file.content_type() == DataContentType::EqualityDeletes {
                return Err(Error::internal("a draft does not delete rows by key"));
            } else {
                add_deletes.push((living.spec_id, living.file));
            }
        }
        if add.is_empty() && add_deletes.is_empty() && remove.is_empty() {
            return Ok(None);
        }
        let manifest_of: HashMap<&str, &str> =
            old.values().map(|l| (l.file.file_path(), l.manifest.as_str())).collect();
        let listed: HashSet<&str> = before.iter().map(|m| m.manifest_path.as_str()).collect();
        let checks = made.checks.iter().map(|check| Check {
            touched: check.touched.iter().filter_map(|file| as_began(file, &manifest_of, &listed)).collect(),
            places: Arc::clone(&check.places),
            isolation: check.isolation,
        });
        Ok(Some(Self { draft, commit, checks: checks.collect(), add, add_deletes, remove }))
    }
}

/// A touched file as the state that the draft began with has it. None where it is one of the draft's own.
fn as_began(
    file: &Arc<TargetFile>,
    manifest_of: &HashMap<&str, &str>,
    listed: &HashSet<&str>,
) -> Option<Arc<TargetFile>> {
    if listed.contains(file.manifest.as_str()) {
        return Some(Arc::clone(file));
    }
    let manifest = (*manifest_of.get(file.location.as_str())?).to_owned();
    Some(Arc::new(TargetFile { manifest, ..file.as_ref().clone() }))
}

/// Files that live in those of the manifests which the other state does not have.
async fn living(
    state: &TableState,
    manifests: &[ManifestFile],
    other: &[ManifestFile],
) -> Result<HashMap<Listed, Living>> {
    let shared: HashSet<&str> = other.iter().map(|m| m.manifest_path.as_str()).collect();
    let mut all = HashMap::new();
    for manifest in manifests.iter().filter(|m| !shared.contains(m.manifest_path.as_str())) {
        let entries = state.cache.manifest(&state.storage, &state.metadata, manifest).await?;
        for entry in entries.entries().iter().filter(|e| e.is_alive()) {
            let file = entry.data_file().clone();
            let key = Listed::of(&file);
            let living = Living {
                spec_id: manifest.partition_spec_id,
                content: manifest.content,
                manifest: manifest.manifest_path.clone(),
                file,
            };
            all.insert(key, living);
        }
    }
    Ok(all)
}

#[async_trait]
impl Commit for Whole<'_> {
    async fn stage(&self, base: &Base) -> Result<Staged> {
        let began = &self.draft.began;
        let mut base = base.clone();
        for check in &self.checks {
            base = check_unchanged(began, &base, &check.touched, &check.places, check.isolation).await?;
        }
        let metadata = &base.state.metadata;
        if metadata.current_schema_id() != began.metadata.current_schema_id() {
            no_nulls(metadata, &self.add)?;
        }
        let takes = !self.remove.is_empty() || !self.add_deletes.is_empty();
        let change = Change {
            operation: match (takes, self.add.is_empty()) {
                (false, _) => Operation::Append,
                (true, true) => Operation::Delete,
                (true, false) => Operation::Overwrite,
            },
            commit: self.commit,
            add: self.add.clone(),
            add_deletes: self.add_deletes.clone(),
            remove: Removal::Files(self.remove.clone()),
            summary: BTreeMap::from([(COMMIT_UUID.to_string(), self.commit.to_string())]),
            ..Change::default()
        };
        stage(&base, change, self.draft.lake.now_ms()).await
    }
}
