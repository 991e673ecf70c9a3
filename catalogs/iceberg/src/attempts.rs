//! A commit of files that are written already, tried until it is known what came of it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use iceberg::spec::{MAIN_BRANCH, TableMetadata};
use tidewater_catalogs::{Error, ErrorKind, Result};
use uuid::Uuid;

use crate::commit::anchor::COMMIT_UUID;
use crate::commit::{Base, Staged};
use crate::lake::{Lake, Swap};
use crate::state::TableState;

/// How often a commit is tried again on a newer state. A flow may commit every second or two; losing this many
/// races in a row means that something else is wrong.
const ATTEMPTS: u32 = 20;
/// How often tables are loaded again of which only some show a commit.
const LOOKS: u32 = 5;
/// How long a commit without an answer is looked for.
const LOOK_AGAIN: Duration = if cfg!(test) { Duration::from_millis(300) } else { Duration::from_secs(30) };

/// What is to be committed, on whatever the table has become.
#[async_trait]
pub(crate) trait Commit: Send + Sync {
    /// The next state, after this one. Any error ends the attempts.
    async fn stage(&self, base: &Base) -> Result<Staged>;
    /// The branch that moves.
    fn branch(&self) -> &str {
        MAIN_BRANCH
    }
}

fn tip(metadata: &TableMetadata, branch: &str) -> Option<i64> {
    metadata.snapshot_for_ref(branch).map(|snapshot| snapshot.snapshot_id())
}

/// A table, and what is to become of it.
pub(crate) struct Part<'a> {
    /// As it was when the files were written.
    pub(crate) table: &'a TableState,
    pub(crate) what: &'a dyn Commit,
}

/// As [`commit_all`], of one table.
pub(crate) async fn commit(lake: &Lake, table: &TableState, uuid: Uuid, what: &dyn Commit) -> Result<()> {
    commit_all(lake, uuid, &[Part { table, what }]).await
}

/// Commits once, all tables or none. Each attempt swaps the states it was built on, so an attempt whose answer was lost
/// either shows in the states loaded later, or fails for ever once one of the tables has moved on. Until one of the two is
/// seen, every other end is [`ErrorKind::CommitUnknown`].
pub(crate) async fn commit_all(lake: &Lake, uuid: Uuid, parts: &[Part<'_>]) -> Result<()> {
    let (mut attempts, mut looks) = (0, 0);
    // The states on which an attempt was built whose answer was lost.
    let mut open: Option<Vec<Arc<TableState>>> = None;
    loop {
        let mut states = Vec::with_capacity(parts.len());
        for Part { table, .. } in parts {
            let state = match &open {
                None => lake.load(&table.name).await?,
                Some(_) => load_patiently(lake, table).await.map_err(|e| unknown(parts, table, uuid, e))?,
            };
            if state.metadata.uuid() != table.metadata.uuid() {
                let dropped = Error::not_found(format!("table \"{}\" was dropped", table.name));
                return Err(if open.is_some() { unknown(parts, table, uuid, dropped) } else { dropped });
            }
            states.push(state);
        }
        if let Some(bases) = &open {
            match shown(parts, bases, &states, uuid)? {
                Shown::All => return Ok(()),
                Shown::Nowhere => {}
                Shown::Partly(table) => {
                    // Loaded one after the other, they may lie on both sides of the commit, once.
                    looks += 1;
                    if looks > LOOKS {
                        let why = "the catalog has changed some of the tables, and others not";
                        return Err(lost(table, uuid, Error::new(ErrorKind::DataCorrupt, why)));
                    }
                    tokio::time::sleep(Duration::from_millis(200)).await;
                    continue;
                }
            }
            let passed = |((part, base), now): ((&Part<'_>, &Arc<TableState>), &Arc<TableState>)| {
                lake.has_passed(base, now, part.what.branch())
            };
            if parts.iter().zip(bases).zip(&states).any(passed) {
                open = None;
            }
        }
        let settled = |e: Error, table: &TableState| if open.is_some() { lost(table, uuid, e) } else { e };
        let Some(Part { table, .. }) = parts.first() else { return Ok(()) };
        if attempts == ATTEMPTS {
            let busy = format!("table \"{}\" is changed by others faster than this statement can commit", table.name);
            return Err(settled(Error::new(ErrorKind::Conflict, busy), table));
        }
        let first = *table;
        attempts += 1;
        let mut staged = Vec::with_capacity(parts.len());
        let mut bases = Vec::with_capacity(parts.len());
        let mut moved = false;
        for (Part { table, what }, state) in parts.iter().zip(states) {
            let at = state.metadata_location.clone();
            bases.push(Arc::clone(&state));
            let next = async {
                let base = lake.base(state).await?;
                let next = what.stage(&base).await?;
                Ok::<_, Error>((base, next))
            };
            match next.await {
                Ok(next) => staged.push(next),
                // The table has moved on, and somebody removed files of the state that was looked at.
                Err(e) if e.kind() == ErrorKind::NotFound && has_moved(lake, table, &at).await => {
                    moved = true;
                    break;
                }
                Err(e) => return Err(settled(e, table)),
            }
        }
        if moved {
            continue;
        }
        match lake.swap_all(staged).await {
            Swap::Done(()) => return Ok(()),
            Swap::Refused(e) => return Err(settled(e, first)),
            Swap::Moved => {}
            Swap::Unknown(e) => {
                tracing::warn!(error = %e, commit = %uuid, "answer to a commit was lost");
                open = Some(bases);
            }
        }
        // A short wait, growing, so that two statements do not keep meeting.
        tokio::time::sleep(Duration::from_millis(u64::from(attempts.min(10)) * 5)).await;
    }
}

/// Where an attempt shows.
enum Shown<'a> {
    All,
    Nowhere,
    /// Not in this table.
    Partly(&'a TableState),
}

fn shown<'a>(parts: &[Part<'a>], bases: &[Arc<TableState>], now: &[Arc<TableState>], uuid: Uuid) -> Result<Shown<'a>> {
    let mut seen = Vec::with_capacity(parts.len());
    for ((Part { table, what }, base), now) in parts.iter().zip(bases).zip(now) {
        match committed(&now.metadata, uuid, what.branch(), tip(&base.metadata, what.branch())) {
            Some(is_there) => seen.push(is_there),
            None => return Err(lost(table, uuid, Error::unavailable("the snapshots since then were removed"))),
        }
    }
    let missing = seen.iter().zip(parts).find(|(is_there, _)| !**is_there);
    Ok(match missing {
        None => Shown::All,
        Some((_, part)) if seen.contains(&true) => Shown::Partly(part.table),
        Some(_) => Shown::Nowhere,
    })
}

async fn has_moved(lake: &Lake, table: &TableState, from: &str) -> bool {
    lake.load(&table.name).await.is_ok_and(|now| now.metadata_location != from)
}

/// The current state, asked for until it comes or [`LOOK_AGAIN`] is over: giving up leaves the client without an
/// answer.
async fn load_patiently(lake: &Lake, table: &TableState) -> Result<Arc<TableState>> {
    let deadline = Instant::now() + LOOK_AGAIN;
    let mut wait = Duration::from_millis(20);
    loop {
        match lake.load(&table.name).await {
            Err(e) if e.kind() != ErrorKind::NotFound && Instant::now() + wait < deadline => {
                tracing::warn!(table = %table.name, error = %e, "cannot look for a commit yet");
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(Duration::from_secs(2));
            }
            other => return other,
        }
    }
}

/// The change may be there or not. `NotFound` is no doubt where it is the only table: with it its rows are gone.
fn unknown(parts: &[Part<'_>], table: &TableState, commit: Uuid, e: Error) -> Error {
    if e.kind() == ErrorKind::NotFound && parts.len() == 1 { e } else { lost(table, commit, e) }
}

fn lost(table: &TableState, commit: Uuid, e: Error) -> Error {
    Error::new(ErrorKind::CommitUnknown, "the answer to a commit was lost: its rows may be in the table")
        .with_context("commit", commit)
        .with_hint(format!(
            "Before you run the statement again, look whether a snapshot of table \"{}\" has {COMMIT_UUID} {commit} in its summary.",
            table.name
        ))
        .with_source(e)
}

/// Whether a snapshot of this commit is an ancestor of the branch's. None where the line breaks off before it comes to `base`.
fn committed(metadata: &TableMetadata, commit: Uuid, branch: &str, base: Option<i64>) -> Option<bool> {
    let commit = commit.to_string();
    let mut next = tip(metadata, branch);
    // Bound of the walk: a line cannot be longer than the number of snapshots.
    for _ in 0..=metadata.snapshots().len() {
        if next == base {
            return Some(false);
        }
        let snapshot = metadata.snapshot_by_id(next?)?;
        if snapshot.summary().additional_properties.get(COMMIT_UUID) == Some(&commit) {
            return Some(true);
        }
        next = snapshot.parent_snapshot_id();
    }
    Some(false)
}
