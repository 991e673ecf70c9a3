use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tidewater_catalogs::{AnchorState, ErrorKind, FlowState};

use super::fakes::{Fault, World, WorldFactory, env, until};
use crate::env::Env;
use crate::{EngineSettings, Supervisor};

fn quiet_env() -> Env {
    env(Arc::new(super::fakes::Crash::default()), 1)
}

fn supervise(world: &Arc<World>, env: Env) -> Supervisor {
    Supervisor::new(tokio::runtime::Handle::current(), Arc::new(WorldFactory(Arc::clone(world))), env)
}

#[tokio::test]
async fn they_follow_their_trigger_and_carry_its_number() {
    let world = World::new(1);
    world.topic.push_mixed(0, 40);
    let supervisor = supervise(&world, quiet_env());
    supervisor.start(world.definition()).unwrap();
    until("dead letters", || world.letters_complete()).await;
    supervisor.shutdown(Duration::from_secs(10)).await;
    world.check();
    let AnchorState::Valid(anchor) = world.letters.anchor(&format!("{}.dlq", world.id)) else {
        panic!("the dead-letter table has no anchor of the flow")
    };
    let seqs =
        world.letters.column("seq", |c, i| c.as_any().downcast_ref::<arrow::array::Int64Array>().unwrap().value(i));
    assert!(seqs.iter().all(|seq| *seq >= 1 && *seq <= anchor.seq as i64), "{seqs:?} up to {}", anchor.seq);
}

#[tokio::test]
async fn other_flows_of_the_stream_only_cost_a_rebase() {
    let world = World::new(1);
    world.topic.push_mixed(0, 40);
    world.letters.faults.lock().extend([Fault::Lost, Fault::Lost, Fault::Lost]);
    let supervisor = supervise(&world, quiet_env());
    supervisor.start(world.definition()).unwrap();
    until("dead letters", || world.letters_complete()).await;
    supervisor.shutdown(Duration::from_secs(10)).await;
    world.check();
}

/// The dead-letter table does not answer while the flow runs: the letters wait in the checkpoint, and are drained
/// before the flow reports that it stopped, be it running or at rest.
#[tokio::test]
async fn what_is_owed_is_paid_before_the_flow_is_gone() {
    for pause_first in [false, true] {
        let world = World::new(1);
        world.topic.push_mixed(0, 40);
        world.letters.unreachable.store(usize::MAX, Ordering::SeqCst);
        let env = quiet_env();
        let settings = EngineSettings { drain_deadline: Duration::from_millis(50), ..env.settings.clone() };
        let supervisor = supervise(&world, Env { settings, ..env });
        supervisor.start(world.definition()).unwrap();
        until("rows", || world.rows_complete()).await;
        assert_eq!(world.letters.letters(), vec![]);
        if pause_first {
            supervisor.pause(world.id).await.unwrap();
            assert_eq!(supervisor.status(world.id).unwrap().state, FlowState::Paused);
            assert_eq!(world.letters.letters(), vec![], "cut off at the deadline");
        }
        world.letters.unreachable.store(0, Ordering::SeqCst);
        supervisor.stop(world.id).await.unwrap();
        world.check();
        assert!(supervisor.status(world.id).is_none());
    }
}

/// The target refuses the last commit, so the drain of the running flow fails; or it never answers, so the drain is cut
/// off. Either way the flow was let go with the letters of its earlier commits still waiting, and as it was being
/// dropped, with the checkpoint that names them, they were gone for good.
#[tokio::test]
async fn a_drain_that_breaks_off_still_pays_what_is_owed() {
    for refused in [true, false] {
        let world = World::new(1);
        // Batches of seven offsets make a trigger each; the five that are left over wait for the drain.
        world.settings.lock().max_trigger_bytes = 600;
        world.settings.lock().commit_interval = Duration::from_secs(3600);
        world.topic.push_mixed(0, 40);
        world.letters.unreachable.store(usize::MAX, Ordering::SeqCst);
        let env = quiet_env();
        let settings = EngineSettings { drain_deadline: Duration::from_secs(1), ..env.settings.clone() };
        let supervisor = supervise(&world, Env { settings, ..env });
        supervisor.start(world.definition()).unwrap();
        supervisor.wait_until(world.id, |s| s.committed.get(0) == Some(35)).await.unwrap();
        supervisor.wait_until(world.id, |s| s.position.get(0) == Some(40)).await.unwrap();
        let gate = world.target.gate.acquire_many(u32::MAX >> 4).await.unwrap();
        world.target.gate.forget_permits(usize::MAX >> 1);
        if refused {
            world.target.faults.lock().push_back(Fault::Final);
            world.target.gate.add_permits(1);
        }
        // The dead-letter table is back once the drain has broken off, and a second run is planned.
        let back = async {
            until("the settling", || world.builds.load(Ordering::SeqCst) == 2).await;
            world.letters.unreachable.store(0, Ordering::SeqCst);
        };
        let (owed, ()) = tokio::join!(supervisor.stop_and_settle(world.id), back);
        assert!(owed.unwrap().is_none());
        let mut letters = world.letters.letters();
        letters.sort_unstable();
        let due: Vec<_> = world.topic.bad().into_iter().filter(|(_, offset)| *offset < 35).collect();
        assert_eq!(letters, due, "refused: {refused}");
        assert!(world.target.ids().iter().all(|id| *id < 35));
        drop(gate);
    }
}

/// Where they cannot be written at all, whoever drops the flow is told.
#[tokio::test]
async fn what_cannot_be_paid_is_told() {
    for pause_first in [false, true] {
        let world = World::new(1);
        world.topic.push_mixed(0, 40);
        world.letters.unreachable.store(usize::MAX, Ordering::SeqCst);
        let env = quiet_env();
        let settings = EngineSettings { drain_deadline: Duration::from_millis(50), ..env.settings.clone() };
        let supervisor = supervise(&world, Env { settings, ..env });
        supervisor.start(world.definition()).unwrap();
        until("rows", || world.rows_complete()).await;
        if pause_first {
            supervisor.pause(world.id).await.unwrap();
        }
        let owed = supervisor.stop_and_settle(world.id).await.unwrap().expect("some are missing");
        assert_eq!(owed.kind(), ErrorKind::Unavailable);
        assert!(supervisor.status(world.id).is_none());
    }
}

#[tokio::test]
async fn commits_wait_when_letters_pile_up() {
    let world = World::new(1);
    world.settings.lock().max_trigger_bytes = 1;
    world.letters.unreachable.store(usize::MAX, Ordering::SeqCst);
    world.topic.push_mixed(0, 600);
    let env = quiet_env();
    let settings = EngineSettings { max_outbox_entries: 2, ..env.settings.clone() };
    let supervisor = supervise(&world, Env { settings, ..env });
    supervisor.start(world.definition()).unwrap();
    // One in the drainer's hand, two in the channel, one that the committer wants to add.
    until("the outbox to fill", || supervisor.status(world.id).unwrap().seq >= 4).await;
    for _ in 0..200 {
        tokio::task::yield_now().await;
    }
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(supervisor.status(world.id).unwrap().seq, 4);
    world.letters.unreachable.store(0, Ordering::SeqCst);
    until("everything", || world.rows_complete() && world.letters_complete()).await;
    supervisor.shutdown(Duration::from_secs(10)).await;
    world.check();
}
