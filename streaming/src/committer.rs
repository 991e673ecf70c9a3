//! Carries out what [`crate::commit`] decides, for one flow in one table.

use std::sync::Arc;
use std::time::Duration;

use tidewater_catalogs::{
    Anchor, AnchorState, CommitReply, CommitRequest, CommitTable, Error, ErrorKind, Result, TableHead,
};
use tokio::time::timeout;

use crate::commit::{Action, CommitState, Fact, Finish, Reply};
use crate::env::Env;
use crate::failure::{Failure, FlowResult};
use crate::recovery;
use crate::status::StatusCell;
use crate::upkeep::Upkeep;

/// Failures in a row after which a commit that does not get through is reported at warning level.
const ALARM_AFTER: u32 = 5;

#[derive(Debug)]
pub(crate) struct Committer {
    table: Arc<dyn CommitTable>,
    /// For messages: `the target table`, `the dead-letter table`.
    label: &'static str,
    /// Names the anchor in this table.
    flow: String,
    env: Env,
    status: Arc<StatusCell>,
    /// The state that the next attempt builds on, if one is at hand.
    head: Option<TableHead>,
    since_maintenance: u64,
    maintained_at: tokio::time::Instant,
    upkeep: Upkeep,
}

impl Committer {
    pub(crate) fn new(
        table: Arc<dyn CommitTable>,
        label: &'static str,
        flow: String,
        env: Env,
        status: Arc<StatusCell>,
    ) -> Self {
        let maintained_at = tokio::time::Instant::now();
        let upkeep = Upkeep::new(label == recovery::LABEL);
        Self { table, label, flow, env, status, head: None, since_maintenance: 0, maintained_at, upkeep }
    }

    pub(crate) fn flow(&self) -> &str {
        &self.flow
    }

    /// The anchor as the table has it now; waits while the catalog does not answer.
    pub(crate) async fn load(&mut self) -> FlowResult<AnchorState> {
        let mut failures = 0;
        loop {
            match self.load_once().await {
                Ok(head) => {
                    let anchor = head.anchor.clone();
                    self.head = Some(head);
                    return Ok(anchor);
                }
                Err(e) if e.kind() == ErrorKind::NotFound => return Err(Failure::table_gone(self.label)),
                Err(e) if e.is_retryable() => {
                    failures += 1;
                    self.status.trouble(&e, self.env.now_ms());
                    tokio::time::sleep(self.pause(failures)).await;
                }
                Err(e) => return Err(e.into()),
            }
        }
    }

    /// Makes `request` visible, however often that takes. Comes back with the anchor it made, or with the reason why
    /// it never will.
    pub(crate) async fn commit(&mut self, request: &CommitRequest) -> FlowResult<Anchor> {
        let mut state = CommitState::new(request.expected.clone(), request.commit_uuid);
        let mut refusal = None;
        let mut attempts: u32 = 0;
        let mut action = state.begin(self.head.as_ref().map(|h| &h.anchor));
        loop {
            let fact = match action {
                Action::Attempt => {
                    attempts += 1;
                    let (reply, error) = self.attempt(request).await;
                    if error.is_some() {
                        refusal = error;
                    }
                    Fact::Replied(reply)
                }
                Action::Load { failures } => {
                    if failures == ALARM_AFTER {
                        tracing::warn!(flow = %self.flow, seq = request.seq, attempts, "commit does not get through");
                    }
                    tokio::time::sleep(self.pause(failures)).await;
                    self.look(request).await?
                }
                Action::Finish(finish) => return self.finish(finish, request, attempts, refusal),
            };
            #[cfg(test)]
            if let Fact::Replied(reply) = &fact
                && crate::wrong::deletes_on_reply(reply, request)
            {
                return Err(Error::unavailable("a test deleted the files").into());
            }
            self.count(&fact, &state, request);
            action = state.learn(&fact);
        }
    }

    /// One attempt, never more. Without a base there is nothing to swap, so that counts as a refusal.
    async fn attempt(&mut self, request: &CommitRequest) -> (Reply, Option<Error>) {
        let Some(head) = self.head.take() else {
            return (Reply::No { retryable: true }, None);
        };
        // Dropping the call on timeout is no cancel: the request may be under way. Hence `Unknown`.
        match timeout(self.env.settings.commit_timeout, self.table.try_commit(&head, request)).await {
            Ok(CommitReply::Committed(head)) => {
                let anchor = head.anchor.clone();
                self.head = Some(head);
                (Reply::Yes(anchor), None)
            }
            Ok(CommitReply::Refused(e)) => {
                tracing::debug!(flow = %self.flow, seq = request.seq, error = %e, "commit refused");
                (Reply::No { retryable: e.is_retryable() }, Some(e))
            }
            Ok(CommitReply::Unknown(e)) => {
                tracing::warn!(flow = %self.flow, seq = request.seq, error = %e, "commit outcome unknown");
                self.status.trouble(&e, self.env.now_ms());
                (Reply::Unknown, Some(e))
            }
            Err(_) => {
                let e = Error::new(ErrorKind::CommitUnknown, "the catalog did not answer a commit in time");
                tracing::warn!(flow = %self.flow, seq = request.seq, "commit timed out, outcome unknown");
                self.status.trouble(&e, self.env.now_ms());
                (Reply::Unknown, Some(e))
            }
        }
    }

    async fn look(&mut self, request: &CommitRequest) -> FlowResult<Fact> {
        match self.load_once().await {
            Ok(head) => {
                let found = found(&head, request);
                self.head = Some(head);
                Ok(Fact::Loaded(found))
            }
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(Fact::Gone),
            Err(e) if e.is_retryable() => {
                self.status.trouble(&e, self.env.now_ms());
                Ok(Fact::Unreachable)
            }
            // Metadata that cannot be read is no fact about the commit; the next run starts from the anchor.
            Err(e) => Err(e.into()),
        }
    }

    async fn load_once(&self) -> Result<TableHead> {
        match timeout(self.env.settings.load_timeout, self.table.load_head(&self.flow)).await {
            Ok(loaded) => loaded,
            Err(_) => Err(Error::unavailable("the catalog did not answer in time")),
        }
    }

    fn finish(
        &mut self,
        finish: Finish,
        request: &CommitRequest,
        attempts: u32,
        refusal: Option<Error>,
    ) -> FlowResult<Anchor> {
        #[cfg(test)]
        crate::wrong::deletes_on_finish(&finish, request);
        match finish {
            Finish::Committed(anchor) => {
                if attempts > 1 {
                    self.status.metrics().rebases.increment(u64::from(attempts - 1));
                }
                self.since_maintenance += 1;
                self.status.trouble_over();
                Ok(anchor)
            }
            Finish::Fenced(by) => Err(Failure::fenced(self.label, &by)),
            Finish::AnchorLost(why) => Err(Failure::anchor_lost(self.label, why)),
            Finish::TableGone => Err(Failure::table_gone(self.label)),
            Finish::Rejected => {
                let e = refusal.unwrap_or_else(|| Error::internal("a commit was refused without a reason"));
                Err(Failure::refused(e.with_context("seq", request.seq)))
            }
        }
    }

    fn count(&self, fact: &Fact, state: &CommitState, request: &CommitRequest) {
        let metrics = self.status.metrics();
        match fact {
            Fact::Replied(Reply::Unknown) => metrics.unknown_outcomes.increment(1),
            Fact::Loaded(found) if state.failed() => {
                match crate::commit::resolve(request.expected.as_ref(), request.commit_uuid, found) {
                    crate::commit::Resolution::Committed(_) => metrics.resolved_committed.increment(1),
                    crate::commit::Resolution::NotYet => metrics.resolved_not_yet.increment(1),
                    crate::commit::Resolution::Fenced(_) => metrics.resolved_fenced.increment(1),
                    crate::commit::Resolution::AnchorLost(_) => {}
                }
            }
            _ => {}
        }
    }

    fn pause(&self, failures: u32) -> Duration {
        let s = &self.env.settings;
        self.env.back_off(failures, s.retry_min, s.retry_max)
    }

    /// Between commits: keeps metadata small. Whatever happens here, the flow goes on.
    pub(crate) async fn maintain_if_due(&mut self) {
        let s = &self.env.settings;
        if self.since_maintenance > 0 {
            self.upkeep.begin_if_due(&self.table, s);
        }
        let due = self.since_maintenance >= s.maintain_commits
            || (self.since_maintenance > 0 && self.maintained_at.elapsed() >= s.maintain_interval);
        if !due {
            return;
        }
        self.since_maintenance = 0;
        match timeout(s.commit_timeout, self.table.maintain()).await {
            Ok(Ok(())) => {}
            Ok(Err(e)) => tracing::warn!(flow = %self.flow, error = %e, "maintenance of {} failed", self.label),
            Err(_) => tracing::warn!(flow = %self.flow, "maintenance of {} took too long", self.label),
        }
        self.maintained_at = tokio::time::Instant::now();
        // It may have moved the table; an attempt on the old head would lose for certain.
        self.head = None;
    }
}

#[cfg(not(test))]
fn found(head: &TableHead, _: &CommitRequest) -> AnchorState {
    head.anchor.clone()
}
#[cfg(test)]
use crate::wrong::found;
