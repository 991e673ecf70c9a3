//! The loop of one flow.
//!
//! ```text
//!   lanes ──────────► coordinator ──cut──► seal ──sealed──► publish ──committed──► drainer
//!   read, query,      when to cut,         close files      checkpoint, commit     dead letters
//!   stage             topic changes                         (strictly in order)
//! ```
//!
//! The four stages on the right run side by side: while trigger n is sealed and committed, n+1 is read. A permit per
//! cut trigger bounds how many there are; without one nothing is cut, and lanes stop when their trigger is full.
//! Dropping the future at any point is as good as kill -9: what is not committed is read again.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tidewater_catalogs::{Error, ErrorKind, FlowState, Offsets, Result, TopicLayout};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::checkpoint::PartitionMove;
use crate::committer::Committer;
use crate::env::Env;
use crate::failure::{Failure, FlowResult};
use crate::hot::HotRows;
use crate::lane::{Lane, LaneCommand, LaneSetup};
use crate::outbox::{self, Drainer, Outbox};
use crate::publish::Publisher;
use crate::recovery::{self, Outlook, Standing};
use crate::replay::{Replay, ReplayState};
use crate::replay_lane::ReplayLane;
use crate::seal::seal_all;
use crate::source::{self, Absence};
use crate::spec::FlowSpec;
use crate::status::StatusCell;
use crate::trigger::{CutFacts, CutTrigger, Memory, Meter, OpenTrigger, should_cut};

/// More lanes than this only cost memory.
const MAX_LANES: usize = 64;

/// How a run of a flow is steered from outside.
#[derive(Debug, Clone)]
pub(crate) struct RunControl {
    /// Cancelled: seal and commit what was read, drain the outbox, and end.
    pub(crate) drain: CancellationToken,
    /// The run before was fenced.
    pub(crate) after_fence: bool,
}

/// Runs until it is drained, which is `Ok`, or fails.
pub(crate) async fn run(spec: FlowSpec, env: Env, control: RunControl, status: Arc<StatusCell>) -> FlowResult<()> {
    let id = spec.id.to_string();
    let mut committer = Committer::new(Arc::clone(&spec.target), recovery::LABEL, id, env.clone(), Arc::clone(&status));
    let drainer_of = |outbox, epoch| Drainer {
        outbox,
        committer: Committer::new(
            Arc::clone(&spec.dead_letters),
            outbox::LABEL,
            outbox::anchor_id(spec.id),
            env.clone(),
            Arc::clone(&status),
        ),
        epoch,
        env: &env,
        status: &status,
    };

    let standing = recovery::standing(&spec, &env, &mut committer, &status, control.after_fence).await?;
    // Up to here nothing was read, so a flow that is told to drain owes its outbox at most.
    let owed = standing.as_ref().map(|s| (Outbox::new(s.outbox.clone()), s.epoch));
    let ready = tokio::select! {
        biased;
        () = control.drain.cancelled() => None,
        ready = prepare(&spec, &env, &mut committer, &status, standing) => Some(ready?),
    };
    let Some((mut standing, Outlook { layout, positions, gaps })) = ready else {
        return match owed {
            Some((outbox, epoch)) => drainer_of(&outbox, epoch).drain().await,
            None => Ok(()),
        };
    };
    status.layout(&layout, env.now_ms());
    standing.replay.forget_answered(&spec.replays);
    status.replays(&standing.replay.requests);
    adopt_ids(&mut standing, &layout);
    env.failpoints.reach("start.recovered").await;
    tracing::info!(
        flow = %spec.name, seq = standing.anchor.seq, epoch = standing.epoch, topic = %layout.topic,
        partitions = layout.partitions.len(), "flow goes on from its last commit"
    );

    let outbox = Outbox::new(std::mem::take(&mut standing.outbox));
    let drainer = drainer_of(&outbox, standing.epoch);
    let interval_ms = AtomicU64::new(millis(spec.settings.commit_interval));
    status.interval(spec.settings.commit_interval);
    let permits = env.settings.max_sealed_triggers + 1;
    // The permits bound both channels, so sending to them never waits.
    let (cut_tx, cut_rx) = mpsc::channel(permits);
    let (sealed_tx, sealed_rx) = mpsc::channel(permits);
    let (letters_tx, letters_rx) = mpsc::channel(env.settings.max_outbox_entries.max(1));
    let mut coordinator = Coordinator::new(&spec, &env, &status, &standing, &layout, permits, cut_tx, &interval_ms);
    let hot = coordinator.hot();
    // From here on reads see what the lanes make, until this run ends, however it does.
    let _shown = status.hot().show(&hot);
    coordinator.spawn_lanes(&positions, &gaps)?;
    coordinator.spawn_replay(&standing.replay)?;
    let publisher =
        Publisher::new(&spec, &env, &status, committer, standing, &outbox, &interval_ms, coordinator.wake(), hot);
    status.set_state(FlowState::Running, None);

    // Each stage ends when the one before it has: the end of the coordinator drains them all.
    let drain = control.drain.clone();
    tokio::try_join!(
        coordinator.run(drain),
        seal_all(cut_rx, sealed_tx, &env),
        publisher.run(sealed_rx, letters_tx),
        drainer.run(letters_rx),
    )?;
    Ok(())
}

/// Pins the start of a new flow, and holds the positions against the topic as it is now.
async fn prepare(
    spec: &FlowSpec,
    env: &Env,
    committer: &mut Committer,
    status: &StatusCell,
    standing: Option<Standing>,
) -> FlowResult<(Standing, Outlook)> {
    let standing = match standing {
        Some(standing) => standing,
        None => recovery::begin(spec, env, committer, status).await?,
    };
    status.recovered(&spec.source.spec().topic, &standing.anchor, standing.epoch, &standing.source.next());
    let outlook = recovery::check_source(spec, env, status, &standing.source).await?;
    Ok((standing, outlook))
}

/// Ids that an older broker did not tell are pinned as soon as one does.
fn adopt_ids(standing: &mut Standing, layout: &TopicLayout) {
    let source = &mut standing.source;
    if source.topic_id.is_empty() {
        source.topic_id.clone_from(&layout.topic_id);
    }
    if source.cluster_id.is_empty() {
        source.cluster_id.clone_from(&layout.cluster_id);
    }
}

pub(crate) fn millis(d: Duration) -> u64 {
    u64::try_from(d.as_millis()).unwrap_or(u64::MAX)
}

type Poll<'a> = Pin<Box<dyn Future<Output = (Offsets, Result<TopicLayout>)> + Send + 'a>>;

struct LaneHandle {
    commands: mpsc::Sender<LaneCommand>,
}

struct Coordinator<'a> {
    spec: &'a FlowSpec,
    env: &'a Env,
    status: &'a Arc<StatusCell>,
    setup: LaneSetup,
    lanes: Vec<LaneHandle>,
    tasks: JoinSet<FlowResult<()>>,
    open: OpenTrigger,
    permits: Arc<Semaphore>,
    cut_tx: mpsc::Sender<CutTrigger>,
    interval_ms: &'a AtomicU64,
    cut_at: Instant,
    /// Partitions that some lane reads, and where each began.
    known: Offsets,
    /// The topic looked replaced when last asked; one such look may be a lagging mark.
    doubted: bool,
    absence: Absence,
}

impl<'a> Coordinator<'a> {
    fn new(
        spec: &'a FlowSpec,
        env: &'a Env,
        status: &'a Arc<StatusCell>,
        standing: &Standing,
        layout: &TopicLayout,
        permits: usize,
        cut_tx: mpsc::Sender<CutTrigger>,
        interval_ms: &'a AtomicU64,
    ) -> Self {
        let settings = &spec.settings;
        let lanes = settings.parallelism.clamp(1, MAX_LANES);
        // A quarter for batches decoded ahead, the rest for open files.
        let ahead = settings.memory_bytes / 4;
        let mut identity = standing.source.clone();
        identity.topic.clone_from(&layout.topic);
        let memory = Memory::new((settings.memory_bytes - ahead).max(1));
        let open = open_trigger(env, standing.anchor.seq + 1);
        let hot = HotRows::new(spec.id, &standing.anchor, Arc::clone(&memory));
        hot.open(&open);
        let setup = LaneSetup {
            flow: spec.name.clone(),
            flow_id: spec.id,
            source: Arc::clone(&spec.source),
            identity,
            target: Arc::clone(&spec.target),
            dead_letters: Arc::clone(&spec.dead_letters),
            projection: spec.query.projection().to_vec(),
            on_error: settings.on_error,
            skip_data_loss: settings.skip_data_loss,
            max_trigger_bytes: settings.max_trigger_bytes.max(1),
            reader_bytes: usize::try_from(ahead / lanes as u64).unwrap_or(usize::MAX).max(1 << 16),
            memory,
            hot,
            status: Arc::clone(status),
            wake: Arc::new(Notify::new()),
            env: env.clone(),
        };
        Self {
            spec,
            env,
            status,
            setup,
            lanes: Vec::with_capacity(lanes),
            tasks: JoinSet::new(),
            open,
            permits: Arc::new(Semaphore::new(permits)),
            cut_tx,
            interval_ms,
            cut_at: Instant::now(),
            known: Offsets::default(),
            doubted: false,
            absence: Absence::default(),
        }
    }

    fn wake(&self) -> Arc<Notify> {
        Arc::clone(&self.setup.wake)
    }

    fn hot(&self) -> Arc<HotRows> {
        Arc::clone(&self.setup.hot)
    }

    fn lane_of(&self, partition: i32) -> usize {
        usize::try_from(partition).unwrap_or(0) % self.spec.settings.parallelism.clamp(1, MAX_LANES)
    }

    /// Partition i goes to lane i mod lanes.
    fn spawn_lanes(&mut self, positions: &Offsets, gaps: &[PartitionMove]) -> Result<()> {
        self.known = positions.clone();
        for lane in 0..self.spec.settings.parallelism.clamp(1, MAX_LANES) {
            let mine: Offsets = self.known.iter().filter(|(p, _)| self.lane_of(*p) == lane).collect();
            let lost: Vec<_> = gaps.iter().filter(|g| self.lane_of(g.partition) == lane).copied().collect();
            let (commands, receiver) = mpsc::channel(4);
            let query = self.spec.query.lane()?;
            let task = Lane::new(self.setup.clone(), query, receiver, self.open.clone(), &mine, &lost);
            self.tasks.spawn(task.run());
            self.lanes.push(LaneHandle { commands });
        }
        Ok(())
    }

    /// One more lane, for dead letters, where some are asked for. It is cut with the others.
    fn spawn_replay(&mut self, state: &ReplayState) -> Result<()> {
        let ended = |r: &Replay| state.request(r.id).is_some_and(|known| known.ended.is_some());
        let due: Vec<Replay> = self.spec.replays.iter().filter(|r| !ended(r)).cloned().collect();
        if due.is_empty() {
            return Ok(());
        }
        let (commands, receiver) = mpsc::channel(4);
        let query = self.spec.query.lane()?;
        let lane = ReplayLane::new(self.setup.clone(), query, receiver, self.open.clone(), due, state.clone());
        self.tasks.spawn(lane.run());
        self.lanes.push(LaneHandle { commands });
        Ok(())
    }

    async fn run(mut self, drain: CancellationToken) -> FlowResult<()> {
        let mut poll = self.poll_layout();
        loop {
            let draining = drain.is_cancelled();
            if should_cut(&self.facts(draining)) {
                // Without a permit a draining flow waits for one; any other goes on reading until it is full.
                let permit = if draining {
                    Some(self.permit().await?)
                } else {
                    Arc::clone(&self.permits).try_acquire_owned().ok()
                };
                if let Some(permit) = permit {
                    self.cut(permit).await?;
                }
            }
            if draining {
                return self.end().await;
            }
            let deadline = self.next_look();
            tokio::select! {
                biased;
                () = drain.cancelled() => {}
                ended = self.tasks.join_next() => return Err(lane_ended(ended)),
                () = self.setup.wake.notified() => {}
                (before, layout) = &mut poll => {
                    self.on_layout(&before, layout).await?;
                    poll = self.poll_layout();
                }
                () = tokio::time::sleep_until(deadline) => {}
            }
        }
    }

    fn interval(&self) -> Duration {
        Duration::from_millis(self.interval_ms.load(Ordering::Relaxed).max(1))
    }

    fn facts(&self, draining: bool) -> CutFacts {
        let meter = &self.open.meter;
        CutFacts {
            since_cut: self.cut_at.elapsed(),
            interval: self.interval(),
            heartbeat: self.spec.settings.heartbeat,
            source_bytes: meter.source_bytes.load(Ordering::Relaxed),
            max_trigger_bytes: self.setup.max_trigger_bytes,
            memory_full: self.setup.memory.is_full(),
            output: meter.output.load(Ordering::Relaxed),
            moved: meter.moved.load(Ordering::Relaxed),
            awaited: meter.awaited.load(Ordering::Relaxed),
            draining,
        }
    }

    /// When the interval ends; if it has and there was nothing to cut, one interval from now.
    fn next_look(&self) -> Instant {
        let end = self.cut_at + self.interval();
        let now = Instant::now();
        if end > now { end } else { now + self.interval() }
    }

    async fn permit(&mut self) -> FlowResult<OwnedSemaphorePermit> {
        tokio::select! {
            permit = Arc::clone(&self.permits).acquire_owned() => {
                permit.map_err(|e| Error::internal("the permits of a flow are closed").with_source(e).into())
            }
            ended = self.tasks.join_next() => Err(lane_ended(ended)),
        }
    }

    /// Every lane stops between two batches and goes on with the next trigger; what they had is this one.
    async fn cut(&mut self, permit: OwnedSemaphorePermit) -> FlowResult<()> {
        self.env.failpoints.reach("cut.before").await;
        let next = open_trigger(self.env, self.open.seq + 1);
        self.setup.hot.open(&next);
        let mut replies = Vec::with_capacity(self.lanes.len());
        for lane in &self.lanes {
            let (reply, answer) = oneshot::channel();
            if lane.commands.send(LaneCommand::Cut { next: next.clone(), reply }).await.is_err() {
                return Err(lane_ended(self.tasks.join_next().await));
            }
            replies.push(answer);
        }
        let mut lanes = Vec::with_capacity(replies.len());
        for answer in replies {
            match answer.await {
                Ok(cut) => lanes.push(cut),
                Err(_) => return Err(lane_ended(self.tasks.join_next().await)),
            }
        }
        let open = std::mem::replace(&mut self.open, next);
        self.cut_at = Instant::now();
        let cut = CutTrigger { open, lanes, cut_at_ms: self.env.now_ms(), began: self.cut_at, permit };
        self.env.failpoints.reach("cut.after").await;
        self.status.metrics().memory_bytes.set(self.setup.memory.used() as f64);
        self.cut_tx.send(cut).await.map_err(|_| Error::internal("the sealing stage of a flow ended early").into())
    }

    async fn end(mut self) -> FlowResult<()> {
        self.lanes.clear();
        self.tasks.shutdown().await;
        Ok(())
    }

    fn poll_layout(&self) -> Poll<'a> {
        let (spec, env, status) = (self.spec, self.env, self.status);
        Box::pin(async move {
            tokio::time::sleep(env.settings.layout_poll).await;
            // Taken before asking: marks only grow, so a mark that comes later must not be behind these.
            let before = status.get().position;
            let layout = match tokio::time::timeout(env.settings.load_timeout, spec.source.layout()).await {
                Ok(layout) => layout,
                Err(_) => Err(Error::unavailable("the broker did not answer in time")),
            };
            (before, layout)
        })
    }

    async fn on_layout(&mut self, before: &Offsets, layout: Result<TopicLayout>) -> FlowResult<()> {
        let layout = match layout {
            Ok(layout) => layout,
            Err(e) if e.kind() == ErrorKind::NotFound => {
                if self.absence.again(self.env.settings.topic_gone_after) {
                    return Err(Failure::topic_gone(e));
                }
                tracing::warn!(flow = %self.spec.name, error = %e, "topic looks gone, asking again");
                self.status.topic_away(&e, self.env.now_ms());
                return Ok(());
            }
            // Readers find out by themselves whether that matters; until they do nothing is known of the topic's end.
            Err(e) if e.is_retryable() => {
                tracing::debug!(flow = %self.spec.name, error = %e, "topic layout not available");
                self.status.topic_away(&e, self.env.now_ms());
                return Ok(());
            }
            Err(e) => return Err(e.into()),
        };
        self.absence = Absence::default();
        source::check_identity(&self.setup.identity, &layout)?;
        match source::gaps(before, &layout) {
            // Gaps are for the lanes to find: they know what they have in hand.
            Ok(_) => self.doubted = false,
            Err(e) if self.doubted => return Err(e.into()),
            Err(e) => {
                tracing::warn!(flow = %self.spec.name, error = %e, "topic looks replaced, asking again");
                self.doubted = true;
                return Ok(());
            }
        }
        self.status.layout(&layout, self.env.now_ms());
        let new = source::new_partitions(&self.known, &layout);
        // What such a partition has lost already its lane finds out, as with any other gap.
        self.known = source::with_new_partitions(std::mem::take(&mut self.known), &layout);
        for lane in 0..self.lanes.len() {
            let mine: Vec<_> = new.iter().filter(|(p, _)| self.lane_of(*p) == lane).copied().collect();
            if !mine.is_empty() && self.lanes[lane].commands.send(LaneCommand::Add(mine)).await.is_err() {
                return Err(lane_ended(self.tasks.join_next().await));
            }
        }
        Ok(())
    }
}

fn open_trigger(env: &Env, seq: u64) -> OpenTrigger {
    OpenTrigger { seq, commit_uuid: env.uuid(), meter: Arc::new(Meter::default()) }
}

/// Lanes end only when their flow does; one that ended before says why.
fn lane_ended(ended: Option<Result<FlowResult<()>, tokio::task::JoinError>>) -> Failure {
    match ended {
        Some(Ok(Err(failure))) => failure,
        Some(Err(e)) if e.is_panic() => Error::internal("a lane of the flow panicked").with_source(e).into(),
        _ => Error::internal("a lane of the flow ended early").into(),
    }
}
