//! Dead letters, exactly once. Trigger n stages them and names the files in checkpoint n; so they are part of the
//! flow's history as soon as commit n is, and not before. The drainer then commits the same files to the dead-letter
//! table under an anchor of its own, `<flow>.dlq`, with n as its number: what the anchor has reached is done.
//!
//! Every checkpoint carries the entries not yet known to be done, so whoever continues the flow finishes them.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use tidewater_catalogs::{AnchorState, CommitRequest, Epoch, StagedFiles};
use tokio::sync::mpsc;

use crate::checkpoint::OutboxEntry;
use crate::committer::Committer;
use crate::env::Env;
use crate::failure::{FENCED, Failure, FlowResult};
use crate::status::StatusCell;

pub(crate) const LABEL: &str = "the dead-letter table";

/// Entries of visible commits that are not known to be drained.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    entries: Mutex<BTreeMap<u64, OutboxEntry>>,
}

impl Outbox {
    pub(crate) fn new(entries: Vec<OutboxEntry>) -> Self {
        Self { entries: Mutex::new(entries.into_iter().map(|e| (e.seq, e)).collect()) }
    }

    /// Only after its commit is known to be visible.
    pub(crate) fn add(&self, entry: OutboxEntry) {
        self.entries.lock().insert(entry.seq, entry);
    }

    pub(crate) fn entries(&self) -> Vec<OutboxEntry> {
        self.entries.lock().values().cloned().collect()
    }

    fn forget(&self, drained: u64) {
        self.entries.lock().retain(|seq, _| *seq > drained);
    }

    fn len(&self) -> usize {
        self.entries.lock().len()
    }
}

/// Anchor of a flow in the dead-letter table.
pub(crate) fn anchor_id(flow: uuid::Uuid) -> String {
    format!("{flow}.dlq")
}

pub(crate) struct Drainer<'a> {
    pub(crate) outbox: &'a Outbox,
    pub(crate) committer: Committer,
    pub(crate) epoch: Epoch,
    pub(crate) env: &'a Env,
    pub(crate) status: &'a StatusCell,
}

impl Drainer<'_> {
    /// Drains what is there, then again for each word from the committer, until that ends.
    pub(crate) async fn run(mut self, mut committed: mpsc::Receiver<()>) -> FlowResult<()> {
        self.drain().await?;
        while committed.recv().await.is_some() {
            self.drain().await?;
            self.committer.maintain_if_due().await;
        }
        self.drain().await
    }

    pub(crate) async fn drain(&mut self) -> FlowResult<()> {
        loop {
            if self.outbox.len() == 0 {
                self.gauge();
                return Ok(());
            }
            // Loaded each time: the table is shared by all flows of the stream.
            let expected = match self.committer.load().await? {
                AnchorState::Absent => None,
                AnchorState::Valid(anchor) => Some(anchor),
                AnchorState::Broken(why) => return Err(Failure::anchor_lost(LABEL, why)),
            };
            if let Some(anchor) = &expected {
                self.outbox.forget(anchor.seq);
            }
            let due = self.outbox.entries();
            let Some(newest) = due.last() else { continue };
            let request = CommitRequest {
                flow: self.committer.flow().to_owned(),
                seq: newest.seq,
                epoch: self.epoch.max(expected.as_ref().map_or(0, |a| a.epoch)),
                commit_uuid: self.env.uuid(),
                checkpoint: String::new(),
                checkpoint_sha256: String::new(),
                files: StagedFiles { files: due.iter().flat_map(|e| e.files.files.iter().cloned()).collect() },
                summary: BTreeMap::new(),
                expected,
            };
            self.env.failpoints.reach("outbox.before").await;
            match self.committer.commit(&request).await {
                Ok(anchor) => {
                    self.env.failpoints.reach("outbox.sent").await;
                    self.outbox.forget(anchor.seq);
                    self.env.failpoints.reach("outbox.after").await;
                }
                // A request of an earlier run arrived late, or another server was here. The anchor says how far.
                Err(failure) if failure.code == FENCED => {}
                Err(failure) => return Err(failure),
            }
        }
    }

    fn gauge(&self) {
        self.status.metrics().outbox_entries.set(self.outbox.len() as f64);
    }
}
