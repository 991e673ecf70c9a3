use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tidewater_catalogs::{ErrorKind, FlowState};

use super::fakes::{Crash, PassThrough, Record, World, WorldFactory, env, until};
use crate::Supervisor;

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
