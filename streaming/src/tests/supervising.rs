use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tidewater_catalogs::{ErrorKind, FlowState};

use super::fakes::{Crash, Fault, PassThrough, Record, World, WorldFactory, env, until};
use crate::{EngineSettings, Env, Supervisor};

fn supervise(world: &Arc<World>) -> Supervisor {
    let env = env(Arc::new(Crash::default()), 1);
    Supervisor::new(tokio::runtime::Handle::current(), Arc::new(WorldFactory(Arc::clone(world))), env)
}

fn good(n: usize) -> impl Iterator<Item = Record> {
    std::iter::repeat_n(Record::Good, n)
}

#[tokio::test]
async fn a_panic_restarts_the_flow() {
    let world = World::new(1);
    let panic_once = Arc::new(AtomicBool::new(true));
    *world.query.lock() = Arc::new(PassThrough { panic_once, ..PassThrough::default() });
    world.topic.push(0, good(10));
    let supervisor = supervise(&world);
    supervisor.start(world.definition()).unwrap();
    until("rows", || world.rows_complete()).await;
    let status = supervisor.wait_until(world.id, |s| s.seq >= 1).await.unwrap();
    assert_eq!((status.restarts, status.state), (1, FlowState::Running));
    supervisor.shutdown(Duration::from_secs(10)).await;
    world.check();
}

#[tokio::test]
async fn outages_are_waited_out() {
    let world = World::new(1);
    world.unplannable.store(3, Ordering::SeqCst);
    world.topic.unreachable.store(5, Ordering::SeqCst);
    world.target.unreachable.store(3, Ordering::SeqCst);
    world.blobs.failing.store(3, Ordering::SeqCst);
    world.topic.push(0, good(10));
    let supervisor = supervise(&world);
    supervisor.start(world.definition()).unwrap();
    until("rows", || world.rows_complete()).await;
    let status = supervisor.wait_until(world.id, |s| s.seq >= 1).await.unwrap();
    assert_eq!(status.restarts, 3, "planning fails the run; what happens inside a run is waited out there");
    assert_eq!(status.error, None);
    supervisor.shutdown(Duration::from_secs(10)).await;
    world.check();
}

/// A broker that has just come back says of every topic that it is not there, until it has read its metadata. One such
/// answer ended the flow for good, with an error that only RESUME clears.
#[tokio::test]
async fn a_topic_that_is_missing_for_a_moment_is_waited_for() {
    for paused in [false, true] {
        let world = World::new(2);
        world.topic.push(0, good(10));
        let supervisor = supervise(&world);
        supervisor.start(world.definition()).unwrap();
        until("rows", || world.rows_complete()).await;
        if paused {
            supervisor.pause(world.id).await.unwrap();
        }
        world.topic.missing.store(20, Ordering::SeqCst);
        world.topic.push(0, good(10));
        world.topic.push(1, good(10));
        if paused {
            supervisor.resume(world.id).await.unwrap();
        }
        until("rows after that", || world.rows_complete()).await;
        until("the last of twenty", || world.topic.missing.load(Ordering::SeqCst) == 0).await;
        let status = supervisor.wait_until(world.id, |s| s.error.is_none()).await.unwrap();
        assert_eq!((status.restarts, status.state), (0, FlowState::Running), "paused: {paused}");
        supervisor.shutdown(Duration::from_secs(10)).await;
        world.check();
    }
}

#[tokio::test]
async fn a_topic_that_stays_missing_is_gone() {
    for paused in [false, true] {
        let world = World::new(1);
        world.topic.push(0, good(10));
        let env = env(Arc::new(Crash::default()), 1);
        let settings = EngineSettings { topic_gone_after: Duration::from_millis(30), ..env.settings.clone() };
        let factory = Arc::new(WorldFactory(Arc::clone(&world)));
        let supervisor = Supervisor::new(tokio::runtime::Handle::current(), factory, Env { settings, ..env });
        supervisor.start(world.definition()).unwrap();
        until("rows", || world.rows_complete()).await;
        if paused {
            supervisor.pause(world.id).await.unwrap();
        }
        world.topic.missing.store(usize::MAX, Ordering::SeqCst);
        if paused {
            supervisor.resume(world.id).await.unwrap();
        }
        let status = supervisor.wait_until(world.id, |s| s.state == FlowState::Failed).await.unwrap();
        assert_eq!(status.error.unwrap().code, "TOPIC_GONE");
    }
}

/// A server that was killed before the first commit of a flow and came back while the broker was starting gave the flow
/// up for good.
#[tokio::test]
async fn a_topic_that_is_missing_before_the_first_commit_is_waited_for() {
    let world = World::new(1);
    world.topic.missing.store(20, Ordering::SeqCst);
    world.topic.push(0, good(10));
    let supervisor = supervise(&world);
    supervisor.start(world.definition()).unwrap();
    until("rows", || world.rows_complete()).await;
    let status = supervisor.wait_until(world.id, |s| s.state == FlowState::Running).await.unwrap();
    assert_eq!((status.restarts, status.error), (0, None));
    supervisor.shutdown(Duration::from_secs(10)).await;
    world.check();
}

/// One that never was there is a typing error, which waiting does not mend for ever.
#[tokio::test]
async fn a_topic_that_was_never_there_is_not_found() {
    let world = World::new(1);
    world.topic.missing.store(usize::MAX, Ordering::SeqCst);
    let env = env(Arc::new(Crash::default()), 1);
    let settings = EngineSettings { topic_gone_after: Duration::from_millis(30), ..env.settings.clone() };
    let factory = Arc::new(WorldFactory(Arc::clone(&world)));
    let supervisor = Supervisor::new(tokio::runtime::Handle::current(), factory, Env { settings, ..env });
    supervisor.start(world.definition()).unwrap();
    let status = supervisor.wait_until(world.id, |s| s.state == FlowState::Retrying).await.unwrap();
    assert_eq!(status.error.unwrap().code, "UNAVAILABLE");
    let status = supervisor.wait_until(world.id, |s| s.state == FlowState::Failed).await.unwrap();
    assert_eq!(status.error.unwrap().code, "NOT_FOUND");
}

/// A disk that is full when a file is sealed restarted the flow, and one that is full a moment later, when the commit
/// writes its metadata, ended it.
#[tokio::test]
async fn a_commit_that_finds_the_disk_full_is_made_later() {
    let world = World::new(1);
    world.topic.push(0, good(10));
    world.target.faults.lock().extend([Fault::None, Fault::DiskFull]);
    let supervisor = supervise(&world);
    supervisor.start(world.definition()).unwrap();
    until("rows", || world.rows_complete()).await;
    let status = supervisor.wait_until(world.id, |s| s.seq >= 1).await.unwrap();
    assert_eq!(status.restarts, 1);
    supervisor.shutdown(Duration::from_secs(10)).await;
    world.check();
}

#[tokio::test]
async fn an_outage_shows_while_it_lasts() {
    let world = World::new(1);
    world.topic.unreachable.store(usize::MAX, Ordering::SeqCst);
    let supervisor = supervise(&world);
    supervisor.start(world.definition()).unwrap();
    let status = supervisor.wait_until(world.id, |s| s.error.is_some()).await.unwrap();
    assert_eq!(status.error.unwrap().code, "UNAVAILABLE");
    world.topic.unreachable.store(0, Ordering::SeqCst);
    world.topic.push(0, good(3));
    supervisor.wait_until(world.id, |s| s.error.is_none() && s.state == FlowState::Running).await.unwrap();
}

#[tokio::test]
async fn paused_flows_stay_paused() {
    let world = World::new(1);
    world.topic.push(0, good(10));
    let supervisor = supervise(&world);
    let mut definition = world.definition();
    definition.properties.insert("paused".into(), "true".into());
    supervisor.start(definition.clone()).unwrap();
    supervisor.wait_until(world.id, |s| s.state == FlowState::Paused).await.unwrap();
    supervisor.restart(definition).await.unwrap();
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(supervisor.status(world.id).unwrap().state, FlowState::Paused);
    assert_eq!(world.topic.reads.load(Ordering::SeqCst), 0);
    supervisor.resume(world.id).await.unwrap();
    until("rows", || world.rows_complete()).await;
    supervisor.pause(world.id).await.unwrap();
    supervisor.pause(world.id).await.unwrap();
    supervisor.resume(world.id).await.unwrap();
    supervisor.resume(world.id).await.unwrap();
    supervisor.shutdown(Duration::from_secs(10)).await;
    world.check();
}

#[tokio::test]
async fn names_and_ids() {
    let world = World::new(1);
    let supervisor = supervise(&world);
    supervisor.start(world.definition()).unwrap();
    assert_eq!(supervisor.start(world.definition()).unwrap_err().kind(), ErrorKind::AlreadyExists);
    assert_eq!(supervisor.find("lake.public.visits"), Some(world.id));
    assert_eq!(supervisor.statuses()[0].name.to_string(), "lake.public.visits");
    supervisor.stop(world.id).await.unwrap();
    assert_eq!(supervisor.find("lake.public.visits"), None);
    assert_eq!(supervisor.pause(world.id).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert!(supervisor.statuses().is_empty());
}

#[tokio::test]
async fn two_servers_on_one_table() {
    let world = World::new(2);
    let (a, b) = (supervise(&world), supervise(&world));
    a.start(world.definition()).unwrap();
    b.start(world.definition()).unwrap();
    for _ in 0..30 {
        world.topic.push_mixed(0, 10);
        world.topic.push_mixed(1, 10);
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    until("rows", || world.rows_complete() && world.letters_complete()).await;
    a.shutdown(Duration::from_secs(10)).await;
    b.shutdown(Duration::from_secs(10)).await;
    world.check();
}

/// Two that both go on used to take the table from each other again and again, each "starting" most of the time.
#[tokio::test]
async fn of_two_servers_one_stops_until_resumed() {
    let world = World::new(1);
    let (a, b) = (supervise(&world), supervise(&world));
    a.start(world.definition()).unwrap();
    b.start(world.definition()).unwrap();
    let failed = |s: &Supervisor| s.status(world.id).is_some_and(|s| s.state == FlowState::Failed);
    let feeding = async {
        loop {
            world.topic.push(0, good(1));
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::select! {
        () = feeding => {}
        () = until("one of them to stop", || failed(&a) || failed(&b)) => {}
    }
    let (stopped, alive) = if failed(&a) { (&a, &b) } else { (&b, &a) };
    assert_eq!(stopped.status(world.id).unwrap().error.unwrap().code, "FENCED");
    assert_eq!(stopped.status(world.id).unwrap().lag(), None);
    // The other needs nobody's help.
    world.topic.push(0, good(10));
    until("rows", || world.rows_complete()).await;
    assert!(failed(stopped) && !failed(alive));
    // Alone, the one that stopped goes on where the other ended.
    alive.shutdown(Duration::from_secs(10)).await;
    stopped.resume(world.id).await.unwrap();
    world.topic.push(0, good(10));
    until("rows after that", || world.rows_complete()).await;
    stopped.wait_until(world.id, |s| s.state == FlowState::Running).await.unwrap();
    stopped.shutdown(Duration::from_secs(10)).await;
    world.check();
}

/// Said running with lag 0, whatever the topic had taken in meanwhile.
#[tokio::test]
async fn a_broker_that_is_away_shows() {
    let world = World::new(1);
    world.topic.push(0, good(10));
    let supervisor = supervise(&world);
    supervisor.start(world.definition()).unwrap();
    until("rows", || world.rows_complete()).await;
    let status = supervisor.wait_until(world.id, |s| s.lag() == Some(0)).await.unwrap();
    assert_eq!((status.state, status.rows_committed), (FlowState::Running, 10));
    world.topic.unreachable.store(usize::MAX, Ordering::SeqCst);
    let status = supervisor.wait_until(world.id, |s| s.state == FlowState::Retrying).await.unwrap();
    assert_eq!((status.lag(), status.partition_lag(0), status.high.get(0)), (None, None, Some(10)));
    assert_eq!(status.error.unwrap().code, "UNAVAILABLE");
    assert!(status.high_at_ms.is_some());
    world.topic.unreachable.store(0, Ordering::SeqCst);
    let status = supervisor.wait_until(world.id, |s| s.state == FlowState::Running).await.unwrap();
    assert_eq!(status.error, None);
    supervisor.wait_until(world.id, |s| s.lag() == Some(0)).await.unwrap();
    supervisor.pause(world.id).await.unwrap();
    assert_eq!(supervisor.status(world.id).unwrap().lag(), None);
}
