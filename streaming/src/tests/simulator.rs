//! A seeded world: one or two writers of a flow that crash and come back, a topic that grows, stores and catalogs that
//! lose answers, strangers who commit, a clock that jumps, a stream that is mended and whose dead letters are replayed
//! again and again. Pauses last milliseconds, and many worlds run side by side.
//!
//! `TIDEWATER_SIM_SEEDS=200000` runs more seeds, `TIDEWATER_SIM_SEED=17` one. A seed decides what happens when; the
//! order of tasks that are ready at the same instant is the scheduler's.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::fakes::{Crash, Fault, Seeded, Wanted, World, env};
use crate::FAILPOINTS;
use crate::env::Clock;
use crate::flow::{self, RunControl};
use crate::replay::ReplayEnd;
use crate::status::StatusCell;
use crate::wrong::{self, Protocol};

/// As many as every change must pass.
const SEEDS: u64 = 2_000;
/// After so long nothing will happen any more. Only keeps a failing seed from hanging.
const LIMIT: Duration = Duration::from_secs(120);
/// Worlds side by side: they mostly wait.
const WORLDS: usize = 32;
/// A wrong protocol that survives so many seeds is not caught.
const CATCH_WITHIN: u64 = 400;

#[derive(Debug, Default)]
struct JumpyClock(AtomicI64);

impl Clock for JumpyClock {
    fn now_ms(&self) -> i64 {
        1_790_000_000_000 + self.0.load(Ordering::Relaxed)
    }
}

/// What a run of seeds has gone through, so that a simulator that does nothing is noticed.
#[derive(Debug, Default)]
struct Seen {
    crashes: AtomicUsize,
    restarts: AtomicUsize,
    fenced: AtomicUsize,
    drained: AtomicUsize,
    /// Rows that came of replayed letters, and requests that came to their end.
    replayed: AtomicUsize,
    answered: AtomicUsize,
}

struct Sim {
    seed: u64,
    world: Arc<World>,
    clock: Arc<JumpyClock>,
    /// Set when the faults are over and everything must come right.
    calm: AtomicBool,
    /// What an answer said that it must not say.
    wrong: Mutex<Option<String>>,
    seen: Arc<Seen>,
}

impl Sim {
    fn new(seed: u64, seen: Arc<Seen>) -> Arc<Self> {
        let chance = Seeded::new(seed);
        let partitions = 1 + chance.below(4) as i32;
        let world = World::new(partitions);
        {
            let mut settings = world.settings.lock();
            settings.max_trigger_bytes = 300 + chance.below(4000);
            settings.commit_interval = Duration::from_millis(1 + chance.below(10));
            settings.parallelism = 1 + chance.below(3) as usize;
        }
        Arc::new(Self {
            seed,
            world,
            clock: Arc::default(),
            calm: AtomicBool::new(false),
            wrong: Mutex::new(None),
            seen,
        })
    }

    fn chance(&self, actor: u64) -> Seeded {
        Seeded::new(self.seed.wrapping_mul(31).wrapping_add(actor))
    }

    async fn produce(&self) {
        let chance = self.chance(1);
        for _ in 0..3 + chance.below(12) {
            let mut partition = chance.below(4) as i32;
            // Partitions come one after the other, as a topic grows.
            let there = self.world.topic.partitions();
            partition = partition.min(there);
            self.world.topic.push_narrow(partition, 1 + chance.below(40) as usize);
            sleep(Duration::from_millis(chance.below(15))).await;
        }
    }

    async fn disturb(&self) {
        use Fault::{AppliedRefused, DiskFull, Late, Lost, None as Fine, UnknownApplied, UnknownNotApplied};
        const FAULTS: [Fault; 8] =
            [Fine, Fine, Lost, UnknownNotApplied, UnknownApplied, AppliedRefused, Late, DiskFull];
        let chance = self.chance(2);
        let below = |n| chance.below(n) as usize;
        for _ in 0..4 + below(16) {
            let table = if below(3) == 0 { &self.world.letters } else { &self.world.target };
            match below(8) {
                0..=3 => table.faults.lock().extend((0..1 + below(4)).map(|_| FAULTS[below(FAULTS.len() as u64)])),
                4 => table.unreachable.store(below(4), Ordering::SeqCst),
                5 => self.world.blobs.failing.store(below(4), Ordering::SeqCst),
                6 => table.foreign_commit(),
                _ => {
                    self.world.topic.unreachable.store(below(3), Ordering::SeqCst);
                    // Hours back and forth: nothing may depend on it.
                    self.clock.0.store(chance.below(86_400_000) as i64 - 43_200_000, Ordering::Relaxed);
                }
            }
            sleep(Duration::from_millis(chance.below(25))).await;
        }
        for table in [&self.world.target, &self.world.letters] {
            table.faults.lock().clear();
            table.unreachable.store(0, Ordering::SeqCst);
        }
        self.world.blobs.failing.store(0, Ordering::SeqCst);
        self.world.topic.unreachable.store(0, Ordering::SeqCst);
    }

    /// Mends the stream at some time, and asks for replays before and after.
    async fn mend(&self) {
        let chance = self.chance(4);
        let mended_after = chance.below(5);
        for n in 0..8 {
            if n >= mended_after {
                self.world.mended.store(true, Ordering::SeqCst);
            }
            sleep(Duration::from_millis(chance.below(30))).await;
            self.world.ask(match chance.below(4) {
                0 => Wanted::EvenOffsets,
                1 => Wanted::Partition(chance.below(4) as i32),
                _ => Wanted::All,
            });
        }
    }

    /// Requests whose end is committed are answered; their letters must not come back because of that.
    fn answer(&self, status: &StatusCell) {
        self.world.replays.lock().retain(|(id, _)| {
            let Some(progress) = status.replay(*id).filter(|p| p.ended.is_some()) else { return true };
            if progress.ended != Some(ReplayEnd::Complete) || progress.replayed != progress.rows {
                *self.wrong.lock() = Some(format!("a replay did not end well: {progress:?}"));
            }
            self.seen.answered.fetch_add(1, Ordering::Relaxed);
            self.seen.replayed.fetch_add(progress.replayed as usize, Ordering::Relaxed);
            false
        });
    }

    /// Good records and narrow ones, which must be rows in the end, on one way or the other.
    fn wanted(&self) -> Vec<i64> {
        let mut wanted = self.world.topic.good_ids();
        wanted.extend(self.world.topic.narrow_ids());
        wanted.sort_unstable();
        wanted
    }

    /// All is there, or more than all, which no waiting mends.
    fn complete(&self) -> bool {
        let (rows, wanted) = (self.world.target.ids().len(), self.wanted().len());
        rows > wanted || (rows == wanted && self.bad_letters().len() >= self.world.topic.bad().len())
    }

    /// Letters of records that no mending makes readable.
    fn bad_letters(&self) -> Vec<(i32, i64)> {
        let bad = self.world.topic.bad();
        let mut letters = self.world.letters.letters();
        letters.retain(|letter| bad.contains(letter));
        letters.sort_unstable();
        letters
    }

    /// One server that owns the flow: killed, stopped and started until the faults are over, then left in peace.
    async fn write(&self, actor: u64, stays: bool) -> Result<(), String> {
        let chance = self.chance(10 + actor);
        let mut after_fence = false;
        loop {
            let calm = self.calm.load(Ordering::SeqCst);
            if calm && (!stays || self.complete()) {
                return Ok(());
            }
            let crash = match chance.below(3) {
                0 if !calm => {
                    Crash::at(FAILPOINTS[chance.below(FAILPOINTS.len() as u64) as usize], 1 + chance.below(5))
                }
                _ => Arc::default(),
            };
            let mut env = env(Arc::clone(&crash) as _, chance.below(u64::MAX));
            env.clock = Arc::clone(&self.clock) as _;
            let drain = CancellationToken::new();
            let control = RunControl { drain: drain.clone(), after_fence };
            let status = Arc::new(StatusCell::new(&self.world.definition()));
            let spec = self.world.spec();
            let asked = spec.replays.last().map(|r| r.id);
            let running = flow::run(spec, env, control, Arc::clone(&status));
            tokio::pin!(running);
            let life = Duration::from_millis(5 + chance.below(200));
            let graceful = chance.below(2) == 0;
            let ended = tokio::select! {
                ended = &mut running => Some(ended),
                () = crash.crashed.notified() => None,
                () = self.until_over(stays) => None,
                // A changed definition is handed over as the supervisor does it.
                () = self.until_asked(asked, &status), if calm => {
                    drain.cancel();
                    Some((&mut running).await)
                }
                () = sleep(life), if !calm => {
                    if graceful {
                        self.seen.drained.fetch_add(1, Ordering::Relaxed);
                        drain.cancel();
                        tokio::select! {
                            ended = &mut running => Some(ended),
                            () = crash.crashed.notified() => None,
                        }
                    } else {
                        None
                    }
                }
            };
            self.answer(&status);
            if let Some(wrong) = self.wrong.lock().take() {
                return Err(wrong);
            }
            after_fence = false;
            match ended {
                None => drop(self.seen.crashes.fetch_add(1, Ordering::Relaxed)),
                Some(Ok(())) => {}
                Some(Err(failure)) if failure.code == "FENCED" => {
                    self.seen.fenced.fetch_add(1, Ordering::Relaxed);
                    after_fence = true;
                }
                Some(Err(failure)) if failure.restarts => drop(self.seen.restarts.fetch_add(1, Ordering::Relaxed)),
                Some(Err(failure)) => return Err(format!("writer {actor} gave up: {failure:?}")),
            }
            sleep(Duration::from_millis(1 + chance.below(10))).await;
        }
    }

    /// In calm: asks for all that is left once the requests before are answered, until nothing is left; comes back
    /// when the run does not know of the last one.
    async fn until_asked(&self, known: Option<uuid::Uuid>, status: &StatusCell) {
        loop {
            self.answer(status);
            if self.wrong.lock().is_some() {
                return;
            }
            let last = self.world.replays.lock().last().map(|(id, _)| *id);
            match last {
                Some(last) if known != Some(last) => return,
                None if !self.complete() => drop(self.world.ask(Wanted::All)),
                _ => {}
            }
            sleep(Duration::from_millis(2)).await;
        }
    }

    /// The end of a run in calm: for the writer that stays when all is there, for the other at once.
    async fn until_over(&self, stays: bool) {
        while !(self.calm.load(Ordering::SeqCst) && (!stays || self.complete())) {
            sleep(Duration::from_millis(1)).await;
        }
    }

    async fn run(self: Arc<Self>) -> Result<(), String> {
        let two = self.chance(3).below(2) == 0;
        let world = async {
            tokio::join!(self.produce(), self.disturb(), self.mend());
            self.calm.store(true, Ordering::SeqCst);
            Ok(())
        };
        let second = async { if two { self.write(2, false).await } else { Ok(()) } };
        let all = async { tokio::try_join!(world, self.write(1, true), second) };
        match tokio::time::timeout(LIMIT, all).await {
            Ok(ended) => ended.map(drop)?,
            Err(_) => return Err(format!("nothing more happens; {}", self.difference().unwrap_or_default())),
        }
        // Requests that are under way may still arrive.
        for table in [&self.world.target, &self.world.letters] {
            table.deliver_late();
        }
        self.difference().map_or(Ok(()), Err)
    }

    /// Every good record once in the table and every narrow one, be it read after the mending or replayed; every bad one
    /// once among the dead letters; every file there.
    fn difference(&self) -> Option<String> {
        for path in [&self.world.target, &self.world.letters].into_iter().flat_map(|t| t.committed_files()) {
            if wrong::was_deleted(&path) {
                return Some(format!("file {path} is in the table and was deleted"));
            }
        }
        let (mut rows, good) = (self.world.target.ids(), self.wanted());
        rows.sort_unstable();
        if rows != good {
            return Some(format!("{} rows of {} records: {}", rows.len(), good.len(), first_difference(&rows, &good)));
        }
        let (letters, bad) = (self.bad_letters(), self.world.topic.bad());
        if letters != bad {
            return Some(format!("{} dead letters of {}", letters.len(), bad.len()));
        }
        let mut all = self.world.letters.letters();
        all.sort_unstable();
        all.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| format!("dead letter {:?} is there twice", pair[0]))
    }
}

fn first_difference(rows: &[i64], good: &[i64]) -> String {
    match rows.iter().zip(good).find(|(a, b)| a != b) {
        Some((row, record)) if row < record => format!("{row} is there twice or was never produced"),
        Some((_, record)) => format!("{record} is lost"),
        None => "one ends early".to_owned(),
    }
}

fn simulate(seed: u64, protocol: Protocol, seen: &Arc<Seen>) -> Result<(), String> {
    wrong::choose(protocol);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let outcome = runtime.block_on(Sim::new(seed, Arc::clone(seen)).run());
    wrong::choose(Protocol::Right);
    outcome
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|v| v.parse().unwrap())
}

/// The first seed that goes wrong, if one does. Later ones are not begun.
fn search(seeds: std::ops::RangeInclusive<u64>, protocol: Protocol, seen: &Arc<Seen>) -> Option<(u64, String)> {
    let next = AtomicU64::new(*seeds.start());
    let worker = || {
        loop {
            let seed = next.fetch_add(1, Ordering::SeqCst);
            if seed > *seeds.end() {
                return None;
            }
            if let Err(what) = simulate(seed, protocol, seen) {
                next.store(u64::MAX / 2, Ordering::SeqCst);
                return Some((seed, what));
            }
        }
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..WORLDS).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().filter_map(|w| w.join().unwrap()).min()
    })
}

#[test]
fn every_record_is_there_once_whatever_the_seed() {
    let seeds = match number("TIDEWATER_SIM_SEED") {
        Some(seed) => seed..=seed,
        None => 1..=number("TIDEWATER_SIM_SEEDS").unwrap_or(SEEDS),
    };
    let seen = Arc::<Seen>::default();
    if let Some((seed, what)) = search(seeds.clone(), Protocol::Right, &seen) {
        panic!("seed {seed}: {what}\nTIDEWATER_SIM_SEED={seed} runs it alone");
    }
    if seeds.count() as u64 >= SEEDS {
        for (what, n) in [
            ("crashes", &seen.crashes),
            ("restarts", &seen.restarts),
            ("fenced", &seen.fenced),
            ("drained", &seen.drained),
            ("replayed", &seen.replayed),
            ("answered", &seen.answered),
        ] {
            assert!(n.load(Ordering::Relaxed) > 100, "too few {what}: {seen:?}");
        }
    }
}

/// Each of the protocols that one would write first is caught, or the simulator proves nothing about ours.
#[test]
fn each_wrong_protocol_is_caught() {
    let seen = Arc::default();
    for protocol in [
        Protocol::BlindRetry,
        Protocol::CurrentSnapshot,
        Protocol::DeleteWhenUnknown,
        Protocol::DeleteWhenFenced,
        Protocol::ForgetReplayed,
    ] {
        let caught = search(1..=CATCH_WITHIN, protocol, &seen);
        let (seed, why) = caught.unwrap_or_else(|| panic!("{protocol:?} survives {CATCH_WITHIN} seeds"));
        println!("{protocol:?} is caught by seed {seed}: {why}");
    }
}
