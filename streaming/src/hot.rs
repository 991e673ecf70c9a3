//! Rows that a running flow has made and not committed yet, for those who want to read them.
//!
//! ```text
//!   lane ──offer──► HotRows (one run) ──view──► ReadView ──above(anchor of a loaded table)──► batches
//!   publisher ──committed──┘
//! ```
//!
//! A read takes the view first and loads the table after it. The anchor in the loaded metadata then says which
//! triggers that very state holds already; [`ReadView::above`] gives the batches of those that it lacks. So the pair of
//! snapshot and hot rows is whole however the commit of a trigger ends, and whoever learns of it first: a trigger is
//! among the hot rows, or in the snapshot, and never in both or in neither. Where the anchor is not one that this run
//! knows, the snapshot stands alone.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::record_batch::RecordBatch;
use parking_lot::Mutex;
use tidewater_catalogs::{Anchor, AnchorState, CommitUuid};
use uuid::Uuid;

use crate::trigger::{Memory, OpenTrigger};

/// More is not kept, whatever the flow's budget. Rows that stay touch new pages where others would use the old ones
/// again, which costs a flow that catches up a fifth of its pace; and so far behind, the newest second is not missed.
const MAX_HOT_BYTES: usize = 64 << 20;

/// One batch of the flow's output, in the columns of its table. Its bytes count against the flow's memory until the
/// last reader has let go of it.
#[derive(Debug)]
pub struct HotBatch {
    rows: RecordBatch,
    bytes: usize,
    used: Arc<AtomicUsize>,
}

impl HotBatch {
    pub fn rows(&self) -> &RecordBatch {
        &self.rows
    }
}

impl Drop for HotBatch {
    fn drop(&mut self) {
        self.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[derive(Debug, Clone)]
struct HotTrigger {
    commit_uuid: CommitUuid,
    batches: Vec<Arc<HotBatch>>,
    /// Some of its rows are not here for want of memory. Later triggers wait until it is committed: with them, but
    /// without it, rows would be missing in the middle.
    truncated: bool,
}

/// What a flow held at one moment.
#[derive(Debug, Clone)]
pub struct ReadView {
    flow: Uuid,
    /// Number and uuid of the last commit that the run knew of.
    base: (u64, CommitUuid),
    /// All triggers since then, without a gap in their numbers, the open one included.
    triggers: BTreeMap<u64, HotTrigger>,
}

impl ReadView {
    /// Names the anchor to ask a table for.
    pub fn flow(&self) -> Uuid {
        self.flow
    }

    /// The batches that a table lacks whose anchor of this flow is `found`, in the order of their triggers. None
    /// where the anchor is not of this run's line: then what the run holds is not what comes next in that table.
    pub fn above(&self, found: &AnchorState) -> Option<Vec<Arc<HotBatch>>> {
        let AnchorState::Valid(anchor) = found else { return None };
        let known = if anchor.seq == self.base.0 {
            Some(self.base.1)
        } else {
            self.triggers.get(&anchor.seq).map(|t| t.commit_uuid)
        };
        if known != Some(anchor.commit_uuid) {
            return None;
        }
        let mut rows = Vec::new();
        for trigger in self.triggers.range(anchor.seq + 1..).map(|(_, t)| t) {
            rows.extend(trigger.batches.iter().cloned());
            if trigger.truncated {
                break;
            }
        }
        Some(rows)
    }
}

/// The hot rows of one run.
#[derive(Debug)]
pub(crate) struct HotRows {
    flow: Uuid,
    /// Of the writers, which come first: hot rows take what they leave.
    memory: Arc<Memory>,
    used: Arc<AtomicUsize>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    base: (u64, CommitUuid),
    triggers: BTreeMap<u64, HotTrigger>,
}

impl HotRows {
    pub(crate) fn new(flow: Uuid, anchor: &Anchor, memory: Arc<Memory>) -> Arc<Self> {
        let state = State { base: (anchor.seq, anchor.commit_uuid), triggers: BTreeMap::new() };
        Arc::new(Self { flow, memory, used: Arc::default(), state: Mutex::new(state) })
    }

    /// A trigger is open. To be told before any lane writes to it.
    pub(crate) fn open(&self, trigger: &OpenTrigger) {
        let new = HotTrigger { commit_uuid: trigger.commit_uuid, batches: Vec::new(), truncated: false };
        self.state.lock().triggers.insert(trigger.seq, new);
    }

    /// Shows the output of one batch of records, all of it at once. Where memory is short it is left out, and with it
    /// what follows: the flow does not wait for readers.
    pub(crate) fn offer(&self, seq: u64, output: Vec<RecordBatch>) {
        let bytes: usize = output.iter().map(RecordBatch::get_array_memory_size).sum();
        let (writing, limit) = (self.memory.used(), self.memory.limit());
        let mut freed = Vec::new();
        let mut state = self.state.lock();
        let held = self.used.load(Ordering::Relaxed);
        if writing.saturating_add(held) > limit {
            // The writers have grown into what is held here.
            for trigger in state.triggers.values_mut() {
                trigger.truncated |= !trigger.batches.is_empty();
                freed.append(&mut trigger.batches);
            }
        }
        let Some(trigger) = state.triggers.get_mut(&seq) else { return };
        let held = if freed.is_empty() { held } else { limit };
        let fits = bytes.saturating_add(held) <= (limit / 2).min(MAX_HOT_BYTES)
            && bytes.saturating_add(held).saturating_add(writing) <= limit
            && !trigger.truncated;
        if !fits {
            trigger.truncated = true;
        } else {
            trigger.batches.extend(output.into_iter().map(|rows| {
                let bytes = rows.get_array_memory_size();
                self.used.fetch_add(bytes, Ordering::Relaxed);
                Arc::new(HotBatch { rows, bytes, used: Arc::clone(&self.used) })
            }));
        }
        drop(state);
        drop(freed);
    }

    /// A trigger is committed: its rows are the table's now.
    pub(crate) fn committed(&self, anchor: &Anchor) {
        let mut state = self.state.lock();
        state.base = (anchor.seq, anchor.commit_uuid);
        let later = state.triggers.split_off(&(anchor.seq + 1));
        let gone = std::mem::replace(&mut state.triggers, later);
        drop(state);
        drop(gone);
    }

    fn view(&self) -> ReadView {
        let state = self.state.lock();
        ReadView { flow: self.flow, base: state.base, triggers: state.triggers.clone() }
    }
}

/// Where readers find the hot rows of a flow, over all its runs.
#[derive(Debug, Default)]
pub(crate) struct HotCell {
    run: Mutex<Option<Arc<HotRows>>>,
}

impl HotCell {
    /// Shows the rows of a run until the guard is dropped.
    pub(crate) fn show(&self, rows: &Arc<HotRows>) -> Shown<'_> {
        *self.run.lock() = Some(Arc::clone(rows));
        Shown { cell: self, rows: Arc::clone(rows) }
    }

    /// None where no run reads.
    pub(crate) fn view(&self) -> Option<ReadView> {
        let run = self.run.lock().clone();
        run.map(|rows| rows.view())
    }
}

/// Takes the rows of a run away when it ends, however it ends. A later run may have taken its place already.
pub(crate) struct Shown<'a> {
    cell: &'a HotCell,
    rows: Arc<HotRows>,
}

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        let mut run = self.cell.run.lock();
        if run.as_ref().is_some_and(|now| Arc::ptr_eq(now, &self.rows)) {
            *run = None;
        }
    }
}

#[cfg(test)]
#[path = "tests/hot.rs"]
mod tests;
