//! Exactly once, whatever happens when.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::fakes::{Crash, Fault, Seeded, World, env, until};
use crate::FAILPOINTS;
use crate::failure::FlowResult;
use crate::flow::{self, RunControl};
use crate::status::StatusCell;

/// One run, until it crashes where told, ends by itself, or everything is committed and drained.
async fn run(world: &Arc<World>, crash: Arc<Crash>, seed: u64) -> Option<FlowResult<()>> {
    let status = Arc::new(StatusCell::new(&world.definition()));
    let control = RunControl { drain: CancellationToken::new(), after_fence: false };
    let running = flow::run(world.spec(), env(Arc::clone(&crash) as _, seed), control, status);
    tokio::select! {
        ended = running => Some(ended),
        () = crash.crashed.notified() => None,
        () = until("all rows and dead letters", || world.rows_complete() && world.letters_complete()) => None,
    }
}

/// Runs until nothing is left to do, restarting where the engine asks for it.
async fn finish(world: &Arc<World>, seed: u64) {
    for _ in 0..100 {
        match run(world, Arc::default(), seed).await {
            None => return,
            Some(Err(failure)) if failure.restarts => {}
            Some(ended) => panic!("ended: {ended:?}"),
        }
    }
    panic!("restarts without end");
}

fn busy_world() -> Arc<World> {
    let world = World::new(3);
    for partition in 0..3 {
        world.topic.push_mixed(partition, 50);
    }
    // Small triggers, so that there are several.
    world.settings.lock().max_trigger_bytes = 1500;
    world
}

#[tokio::test]
async fn a_crash_at_any_step_loses_and_doubles_nothing() {
    for name in FAILPOINTS {
        for n in 1..=3 {
            let world = busy_world();
            let crash = Crash::at(name, n);
            run(&world, Arc::clone(&crash), n).await;
            world.topic.push_mixed(0, 20);
            finish(&world, n).await;
            world.check();
            assert!(crash.visited.lock().contains(name), "never came to {name}");
        }
    }
}

#[tokio::test]
async fn each_fault_of_the_catalog_at_each_commit() {
    use Fault::{AppliedRefused, Late, Lost, None as Fine, UnknownApplied, UnknownNotApplied};
    for fault in [Lost, UnknownNotApplied, UnknownApplied, AppliedRefused, Late] {
        for at in 0..4 {
            let world = busy_world();
            let mut plan = vec![Fine; at];
            plan.extend([fault, fault]);
            world.target.faults.lock().extend(plan.iter().copied());
            world.letters.faults.lock().extend(plan);
            finish(&world, at as u64).await;
            world.check();
        }
    }
}

#[tokio::test]
async fn crashes_and_faults_at_random() {
    use Fault::{AppliedRefused, Late, Lost, None as Fine, UnknownApplied, UnknownNotApplied};
    let faults = [Fine, Fine, Fine, Lost, UnknownNotApplied, UnknownApplied, AppliedRefused, Late];
    for seed in 1..=120 {
        let chance = Seeded::new(seed);
        let world = busy_world();
        for _ in 0..6 {
            for table in [&world.target, &world.letters] {
                let fault = || faults[chance.below(faults.len() as u64) as usize];
                table.faults.lock().extend((0..5).map(|_| fault()));
                table.unreachable.store(chance.below(3) as usize, std::sync::atomic::Ordering::SeqCst);
            }
            world.blobs.failing.store(chance.below(3) as usize, std::sync::atomic::Ordering::SeqCst);
            let name = FAILPOINTS[chance.below(FAILPOINTS.len() as u64) as usize];
            if let Some(ended) = run(&world, Crash::at(name, 1 + chance.below(4)), seed).await {
                let failure = ended.expect_err("nobody asked it to end");
                assert!(failure.restarts, "seed {seed}: {failure:?}");
            }
            world.topic.push_mixed(chance.below(4) as i32, 10);
        }
        finish(&world, seed).await;
        world.check();
    }
}

#[tokio::test]
async fn two_writers_of_one_flow_share_the_work_and_never_double_it() {
    for seed in 1..=20 {
        let world = busy_world();
        let both = [seed, seed + 1000].map(|seed| {
            let world = Arc::clone(&world);
            async move {
                let mut fenced = 0;
                loop {
                    match run(&world, Arc::default(), seed).await {
                        None => return fenced,
                        Some(Err(failure)) if failure.code == "FENCED" => fenced += 1,
                        Some(ended) => panic!("ended: {ended:?}"),
                    }
                }
            }
        });
        let fenced: u64 = futures::future::join_all(both).await.into_iter().sum();
        world.check();
        assert!(fenced > 0, "both went for the first commit, so one must have lost");
    }
}
