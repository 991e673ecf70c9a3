//! Makes sealed triggers visible, one after the other: checkpoint, commit, and word to all who wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tidewater_catalogs::{Anchor, Error, Offsets};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::timeout;

use crate::checkpoint::{self, Checkpoint, OutboxEntry, SourcePositions};
use crate::committer::Committer;
use crate::env::Env;
use crate::failure::FlowResult;
use crate::flow::millis;
use crate::hot::HotRows;
use crate::outbox::Outbox;
use crate::recovery::{self, Standing};
use crate::replay::ReplayState;
use crate::spec::FlowSpec;
use crate::status::StatusCell;
use crate::trigger::{SealedTrigger, next_interval};

pub(crate) struct Publisher<'a> {
    spec: &'a FlowSpec,
    env: &'a Env,
    status: &'a StatusCell,
    committer: Committer,
    anchor: Anchor,
    epoch: u64,
    /// Topic and ids; the moves are those of the last commit.
    source: SourcePositions,
    positions: Offsets,
    outbox: &'a Outbox,
    replay: ReplayState,
    interval_ms: &'a AtomicU64,
    /// Tells the coordinator that a permit is free.
    wake: Arc<Notify>,
    hot: Arc<HotRows>,
}

impl<'a> Publisher<'a> {
    pub(crate) fn new(
        spec: &'a FlowSpec,
        env: &'a Env,
        status: &'a StatusCell,
        committer: Committer,
        standing: Standing,
        outbox: &'a Outbox,
        interval_ms: &'a AtomicU64,
        wake: Arc<Notify>,
        hot: Arc<HotRows>,
    ) -> Self {
        Self {
            spec,
            env,
            status,
            committer,
            epoch: standing.epoch,
            positions: standing.source.next(),
            source: standing.source,
            anchor: standing.anchor,
            replay: standing.replay,
            outbox,
            interval_ms,
            wake,
            hot,
        }
    }

    pub(crate) async fn run(self, sealed: mpsc::Receiver<SealedTrigger>, letters: mpsc::Sender<()>) -> FlowResult<()> {
        let (newest, seen) = watch::channel(self.anchor.clone());
        let (spec, env) = (self.spec, self.env);
        // A failure must not wait for the tidying: the other stages would notice the silence and blame it on that.
        tokio::try_join!(self.publish_all(sealed, letters, newest), async {
            tidy(spec, env, seen).await;
            Ok(())
        })?;
        Ok(())
    }

    async fn publish_all(
        mut self,
        mut sealed: mpsc::Receiver<SealedTrigger>,
        letters: mpsc::Sender<()>,
        newest: watch::Sender<Anchor>,
    ) -> FlowResult<()> {
        while let Some(trigger) = sealed.recv().await {
            let has_letters = self.publish(trigger).await?;
            newest.send_replace(self.anchor.clone());
            // Waits while the drainer is far behind, so that checkpoints stay small.
            if has_letters && letters.send(()).await.is_err() {
                return Err(Error::internal("the drainer of a flow ended early").into());
            }
            self.committer.maintain_if_due().await;
        }
        Ok(())
    }

    /// True where the trigger had dead letters.
    async fn publish(&mut self, trigger: SealedTrigger) -> FlowResult<bool> {
        let SealedTrigger { open, files, dead, moves, gaps, rows, replay, max_timestamp_ms, cut_at_ms, began, permit } =
            trigger;
        if open.seq != self.anchor.seq + 1 {
            return Err(Error::internal("a trigger came out of order").with_context("seq", open.seq).into());
        }
        let (staged_rows, dead_rows) = (files.rows(), dead.rows());
        let entry = (!dead.files.is_empty()).then_some(OutboxEntry { seq: open.seq, files: dead });
        let mut outbox = self.outbox.entries();
        outbox.extend(entry.clone());
        let mut replayed = self.replay.clone();
        if let Some(delta) = &replay {
            replayed.apply(delta);
        }
        #[cfg(test)]
        crate::wrong::forgets_replayed(&mut replayed);
        let checkpoint = Checkpoint {
            v: checkpoint::version(&replayed),
            flow: self.spec.id,
            epoch: self.epoch,
            seq: open.seq,
            commit_uuid: open.commit_uuid,
            prev_snapshot: Some(self.anchor.snapshot_id),
            prev_sha256: self.anchor.checkpoint_sha256.clone(),
            plan_fingerprint: self.spec.query.fingerprint().to_owned(),
            cut_at_ms,
            source: SourcePositions { partitions: moves, gaps, ..self.source.clone() },
            rows,
            outbox,
            replay: replayed,
        };
        checkpoint.verify(Some(&self.positions), staged_rows, dead_rows)?;
        let request = recovery::write_checkpoint(
            self.spec,
            self.env,
            self.status,
            self.committer.flow(),
            &checkpoint,
            Some(self.anchor.clone()),
            files,
        )
        .await?;
        self.env.failpoints.reach("commit.before").await;
        let anchor = self.committer.commit(&request).await?;
        self.env.failpoints.reach("commit.sent").await;

        // From here on trigger n is history.
        self.anchor = anchor;
        self.hot.committed(&self.anchor);
        self.positions = checkpoint.source.next();
        self.replay = checkpoint.replay;
        let has_letters = entry.is_some();
        if let Some(entry) = entry {
            self.outbox.add(entry);
        }
        self.env.failpoints.reach("commit.after").await;
        drop(permit);
        let took = began.elapsed();
        let now_ms = self.env.now_ms();
        if replay.is_some() {
            self.status.replays(&self.replay.requests);
        }
        self.status.committed(&self.anchor, self.positions.clone(), rows.out, took, now_ms);
        if max_timestamp_ms > 0 {
            let age_ms = now_ms.saturating_sub(max_timestamp_ms).max(0);
            self.status.metrics().freshness_seconds.record(age_ms as f64 / 1000.0);
        }
        let interval = next_interval(self.spec.settings.commit_interval, took, self.env.settings.max_commit_interval);
        self.interval_ms.store(millis(interval), Ordering::Relaxed);
        self.status.interval(interval);
        self.wake.notify_one();
        tracing::debug!(
            flow = %self.spec.name, seq = self.anchor.seq, rows = rows.out, dead = rows.dead,
            took_ms = millis(took), "trigger committed"
        );
        self.env.failpoints.reach("publish.after").await;
        Ok(has_letters)
    }
}

/// Removes checkpoints that are long superseded, beside the commits and never in their way.
async fn tidy(spec: &FlowSpec, env: &Env, mut newest: watch::Receiver<Anchor>) {
    let kept = env.settings.checkpoints_kept.max(1);
    let mut tidied = newest.borrow_and_update().seq;
    while newest.changed().await.is_ok() {
        let anchor = newest.borrow_and_update().clone();
        if anchor.seq < tidied + kept {
            continue;
        }
        tidied = anchor.seq;
        let removing = checkpoint::remove_superseded(spec.blobs.as_ref(), spec.id, &anchor, kept);
        match timeout(env.settings.load_timeout, removing).await {
            Ok(Ok(_)) => {}
            Ok(Err(e)) => tracing::warn!(flow = %spec.name, error = %e, "old checkpoints not removed"),
            Err(_) => tracing::warn!(flow = %spec.name, "removing old checkpoints takes too long"),
        }
    }
}
