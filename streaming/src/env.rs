//! What the engine takes from the world: the time of day, chance, and the settings that are not a flow's own.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use uuid::Uuid;

use crate::failpoint::AbortOnEnv;

/// The time of day. Nothing that keeps a promise depends on it; it appears in statuses, checkpoints and metrics.
pub trait Clock: Send + Sync + Debug {
    /// Milliseconds since 1970-01-01 UTC.
    fn now_ms(&self) -> i64;
}

pub trait Chance: Send + Sync + Debug {
    /// Unique for ever; sorts by `now_ms`.
    fn uuid(&self, now_ms: i64) -> Uuid;
    /// Evenly spread over `[0, 1)`.
    fn fraction(&self) -> f64;
}

/// Named places between the steps of a trigger, where tests stop or end the process.
#[async_trait]
pub trait Failpoints: Send + Sync + Debug {
    async fn reach(&self, name: &'static str);
}

#[derive(Debug, Clone)]
pub struct Env {
    pub clock: Arc<dyn Clock>,
    pub chance: Arc<dyn Chance>,
    pub failpoints: Arc<dyn Failpoints>,
    pub settings: EngineSettings,
}

impl Env {
    /// The real clock and real chance; fail-points as `TIDEWATER_FAILPOINT` says.
    pub fn system(settings: EngineSettings) -> Self {
        Self {
            clock: Arc::new(SystemClock),
            chance: Arc::new(SystemChance),
            failpoints: Arc::new(AbortOnEnv::from_env()),
            settings,
        }
    }

    pub(crate) fn now_ms(&self) -> i64 {
        self.clock.now_ms()
    }

    pub(crate) fn uuid(&self) -> Uuid {
        self.chance.uuid(self.clock.now_ms())
    }

    /// Between half and the whole of `base · 2^failures`, at most `max`; nothing before the first failure.
    pub(crate) fn back_off(&self, failures: u32, base: Duration, max: Duration) -> Duration {
        if failures == 0 {
            return Duration::ZERO;
        }
        let whole = base.saturating_mul(1 << (failures - 1).min(20)).min(max);
        whole.mul_f64(0.5 + self.chance.fraction() / 2.0)
    }
}

/// Bounds of the engine that hold for every flow.
#[derive(Debug, Clone, PartialEq)]
pub struct EngineSettings {
    /// The adaptive commit interval does not grow beyond this.
    pub max_commit_interval: Duration,
    /// Cut triggers that may wait for the one being committed; above it no trigger is cut, and intake pauses.
    pub max_sealed_triggers: usize,
    /// How often the topic is asked for new partitions and high-water marks.
    pub layout_poll: Duration,
    /// A topic that was read before is believed to be gone when the broker has said so for this long. One that has
    /// just started, or has old metadata, says so of topics that it will know in a moment.
    pub topic_gone_after: Duration,
    /// A commit attempt without an answer counts as unknown after this time.
    pub commit_timeout: Duration,
    /// The same for loading a table and for asking for a topic's layout.
    pub load_timeout: Duration,
    /// First and longest pause between attempts of one step (commit, resolve, checkpoint, read).
    pub retry_min: Duration,
    pub retry_max: Duration,
    /// First and longest pause before a failed flow starts again.
    pub restart_min: Duration,
    pub restart_max: Duration,
    /// A flow that ran this long begins again with the shortest pause.
    pub stable_after: Duration,
    /// A fenced flow watches the table for this long, or two of its commit intervals where that is longer; it takes
    /// over only if no one commits meanwhile.
    pub fence_watch: Duration,
    /// Superseded checkpoints that are kept behind the newest.
    pub checkpoints_kept: u64,
    /// Triggers whose dead letters may wait for their table; above it commits wait.
    pub max_outbox_entries: usize,
    /// Ranges of replayed dead letters that a checkpoint of a flow may carry; beyond it a replay ends.
    pub max_replayed_ranges: usize,
    /// A table is maintained after this many commits or this time, whichever comes first.
    pub maintain_commits: u64,
    pub maintain_interval: Duration,
    /// Small files of a table are written anew at most this often; zero is never.
    pub compact_interval: Duration,
    /// Files that nobody names are looked for at most this often; zero is never.
    pub vacuum_interval: Duration,
    /// Pausing, dropping and altering wait this long for a flow to seal and commit; then it is cut off.
    pub drain_deadline: Duration,
}

impl Default for EngineSettings {
    fn default() -> Self {
        Self {
            max_commit_interval: Duration::from_secs(60),
            max_sealed_triggers: 2,
            layout_poll: Duration::from_secs(5),
            topic_gone_after: Duration::from_secs(60),
            commit_timeout: Duration::from_secs(60),
            load_timeout: Duration::from_secs(30),
            retry_min: Duration::from_millis(100),
            retry_max: Duration::from_secs(15),
            restart_min: Duration::from_secs(1),
            restart_max: Duration::from_secs(60),
            stable_after: Duration::from_secs(120),
            fence_watch: Duration::from_secs(10),
            checkpoints_kept: 16,
            max_outbox_entries: 64,
            max_replayed_ranges: 10_000,
            maintain_commits: 50,
            maintain_interval: Duration::from_secs(300),
            compact_interval: Duration::from_secs(60),
            vacuum_interval: Duration::from_secs(24 * 3600),
            drain_deadline: Duration::from_secs(30),
        }
    }
}

/// The one place of this crate that asks for the time of day.
#[derive(Debug)]
struct SystemClock;

impl Clock for SystemClock {
    fn now_ms(&self) -> i64 {
        chrono::Utc::now().timestamp_millis()
    }
}

#[derive(Debug)]
struct SystemChance;

impl Chance for SystemChance {
    fn uuid(&self, _now_ms: i64) -> Uuid {
        Uuid::now_v7()
    }
    fn fraction(&self) -> f64 {
        rand::random::<f64>()
    }
}
