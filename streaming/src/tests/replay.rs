use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tidewater_catalogs::{AnchorState, FlowState};
use uuid::Uuid;

use super::fakes::{Crash, PassThrough, Record, Wanted, World, WorldFactory, env, id_of, until};
use crate::checkpoint::Checkpoint;
use crate::env::Env;
use crate::{EngineSettings, FAILPOINTS, ReplayEnd, ReplayProgress, Supervisor};

fn quiet_env() -> Env {
    env(Arc::new(Crash::default()), 1)
}

fn supervise(world: &Arc<World>, env: Env) -> Supervisor {
    Supervisor::new(tokio::runtime::Handle::current(), Arc::new(WorldFactory(Arc::clone(world))), env)
}

/// A flow that has read `records`, narrow ones as dead letters, and a stream that is mended since then.
async fn mended(records: &[Record], env: Env) -> (Arc<World>, Supervisor) {
    let world = World::new(1);
    world.topic.push(0, records.iter().copied());
    let supervisor = supervise(&world, env);
    supervisor.start(world.definition()).unwrap();
    let letters = world.topic.bad().len() + world.topic.narrow_ids().len();
    until("letters", || world.letters.letters().len() == letters).await;
    world.check_rows();
    world.mended.store(true, Ordering::SeqCst);
    (world, supervisor)
}

async fn replay(world: &World, supervisor: &Supervisor, wanted: Wanted) -> ReplayProgress {
    let id = world.ask(wanted);
    supervisor.restart(world.definition()).await.unwrap();
    until("the end of a replay", || supervisor.replay(world.id, id).is_some_and(|p| p.ended.is_some())).await;
    supervisor.replay(world.id, id).unwrap()
}

fn told(progress: &ReplayProgress) -> (u64, u64, u64, Option<ReplayEnd>) {
    (progress.replayed, progress.rows, progress.malformed, progress.ended.clone())
}

fn sorted(mut ids: Vec<i64>) -> Vec<i64> {
    ids.sort_unstable();
    ids
}

fn standing(world: &World) -> Checkpoint {
    let AnchorState::Valid(anchor) = world.target.anchor(&world.id.to_string()) else { panic!("no anchor") };
    let bytes = world.blobs.objects.lock()[&anchor.checkpoint].clone();
    Checkpoint::decode(&bytes, world.id, &anchor).unwrap()
}

const RECORDS: [Record; 10] = {
    use Record::{Bad, Good, Narrow};
    [Good, Narrow, Good, Narrow, Good, Bad, Narrow, Good, Narrow, Narrow]
};

#[tokio::test]
async fn letters_become_rows_once() {
    let (world, supervisor) = mended(&RECORDS, quiet_env()).await;
    let some = replay(&world, &supervisor, Wanted::EvenOffsets).await;
    assert_eq!(told(&some), (2, 2, 0, Some(ReplayEnd::Complete)), "6 and 8");
    let all = replay(&world, &supervisor, Wanted::All).await;
    assert_eq!(told(&all), (3, 3, 1, Some(ReplayEnd::Complete)));
    let again = replay(&world, &supervisor, Wanted::All).await;
    assert_eq!(told(&again), (0, 0, 1, Some(ReplayEnd::Complete)));
    assert_eq!(sorted(world.target.ids()), [0, 1, 2, 3, 4, 6, 7, 8, 9].map(|o| id_of(0, o)));
    // What is next to each other among the letters is one range, whatever lies between.
    let known = standing(&world).replay;
    assert_eq!(serde_json::to_string(&known.letters).unwrap(), r#"{"0":[[1,4],[6,10]]}"#);
    assert_eq!(world.letters.letters().len(), 6, "and none is doubled there");

    // Those that are answered are forgotten; the letters are not.
    world.replays.lock().clear();
    let last = replay(&world, &supervisor, Wanted::All).await;
    assert_eq!(last.replayed, 0);
    assert_eq!(standing(&world).replay.requests, [last]);
    supervisor.shutdown(Duration::from_secs(10)).await;
}

/// Each letter that is not mended stays a letter, and can be asked for again when it is.
#[tokio::test]
async fn what_cannot_be_read_yet_is_left() {
    let (world, supervisor) = mended(&RECORDS, quiet_env()).await;
    world.mended.store(false, Ordering::SeqCst);
    let early = replay(&world, &supervisor, Wanted::All).await;
    assert_eq!(told(&early), (0, 0, 6, Some(ReplayEnd::Complete)));
    world.check_rows();
    world.mended.store(true, Ordering::SeqCst);
    assert_eq!(told(&replay(&world, &supervisor, Wanted::All).await), (5, 5, 1, Some(ReplayEnd::Complete)));
    supervisor.shutdown(Duration::from_secs(10)).await;
}

/// In the topic such a record stops the flow. A replay that stopped it would do so at every start.
#[tokio::test]
async fn a_letter_that_the_query_cannot_take_ends_the_request_alone() {
    let (world, supervisor) = mended(&RECORDS, quiet_env()).await;
    *world.query.lock() = Arc::new(PassThrough { poison: Some(id_of(0, 9)), ..PassThrough::default() });
    let failed = replay(&world, &supervisor, Wanted::All).await;
    let Some(ReplayEnd::Failed(why)) = &failed.ended else { panic!("{failed:?}") };
    assert!(why.contains("division by zero") && why.contains("partition: 0"), "{why}");
    assert_eq!((failed.replayed, failed.rows), (4, 4), "the batch before the one with the bad letter");
    assert_eq!(told(&replay(&world, &supervisor, Wanted::EvenOffsets).await), (0, 0, 0, Some(ReplayEnd::Complete)));
    world.topic.push(0, [Record::Good]);
    until("the flow to go on", || world.target.ids().contains(&id_of(0, 10))).await;
    assert_eq!(supervisor.status(world.id).unwrap().state, FlowState::Running);
    assert_eq!(sorted(world.target.ids()), [0, 1, 2, 3, 4, 6, 7, 8, 10].map(|o| id_of(0, o)));
    supervisor.shutdown(Duration::from_secs(10)).await;
}

/// Nor may a bug that only one letter meets.
#[tokio::test]
async fn a_letter_that_meets_a_bug_ends_the_request_alone() {
    let (world, supervisor) = mended(&RECORDS, quiet_env()).await;
    let query = Arc::new(PassThrough::default());
    query.panic_once.store(true, Ordering::SeqCst);
    *world.query.lock() = Arc::clone(&query);
    let failed = replay(&world, &supervisor, Wanted::All).await;
    assert_eq!(failed.ended, Some(ReplayEnd::Failed("the query met a bug".to_owned())));
    assert!(!query.panic_once.load(Ordering::SeqCst));
    assert_eq!(supervisor.status(world.id).unwrap().restarts, 0);
    assert_eq!(told(&replay(&world, &supervisor, Wanted::All).await), (5, 5, 1, Some(ReplayEnd::Complete)));
    supervisor.shutdown(Duration::from_secs(10)).await;
}

/// A store that does not answer is waited for.
#[tokio::test]
async fn letters_that_cannot_be_read_now_are_read_later() {
    let (world, supervisor) = mended(&RECORDS, quiet_env()).await;
    let id = world.ask(Wanted::All);
    world.letters.unreachable.store(3, Ordering::SeqCst);
    supervisor.restart(world.definition()).await.unwrap();
    until("the end of a replay", || supervisor.replay(world.id, id).is_some_and(|p| p.ended.is_some())).await;
    assert_eq!(told(&supervisor.replay(world.id, id).unwrap()), (5, 5, 1, Some(ReplayEnd::Complete)));
    assert_eq!(world.letters.unreachable.load(Ordering::SeqCst), 0);
    supervisor.shutdown(Duration::from_secs(10)).await;
}

#[tokio::test]
async fn scattered_letters_end_at_the_limit() {
    let mut records = Vec::new();
    for _ in 0..20 {
        records.extend([Record::Bad, Record::Narrow, Record::Good]);
    }
    let env = quiet_env();
    let settings = EngineSettings { max_replayed_ranges: 7, ..env.settings.clone() };
    let (world, supervisor) = mended(&records, Env { settings, ..env }).await;
    let stopped = replay(&world, &supervisor, Wanted::All).await;
    assert_eq!(stopped.ended, Some(ReplayEnd::TooScattered));
    assert!((5..=7).contains(&stopped.replayed), "{stopped:?}");
    assert!(standing(&world).replay.letters.ranges() <= 7);
    let rows = world.topic.good_ids().len() + stopped.replayed as usize;
    assert_eq!(world.target.ids().len(), rows);
    supervisor.shutdown(Duration::from_secs(10)).await;
}

/// More letters than a trigger may hold make several, and each of them says what it holds.
#[tokio::test]
async fn many_letters_make_several_triggers() {
    let world = World::new(3);
    world.settings.lock().max_trigger_bytes = 400;
    for partition in 0..3 {
        world.topic.push_narrow(partition, 60);
    }
    let supervisor = supervise(&world, quiet_env());
    supervisor.start(world.definition()).unwrap();
    let letters = world.topic.bad().len() + world.topic.narrow_ids().len();
    until("letters", || world.letters.letters().len() == letters).await;
    world.mended.store(true, Ordering::SeqCst);
    let before = supervisor.status(world.id).unwrap().seq;
    let progress = replay(&world, &supervisor, Wanted::All).await;
    let narrow = world.topic.narrow_ids().len() as u64;
    assert_eq!(told(&progress), (narrow, narrow, world.topic.bad().len() as u64, Some(ReplayEnd::Complete)));
    let triggers = supervisor.status(world.id).unwrap().seq - before;
    assert!(triggers > 3, "{triggers}");
    let all: Vec<i64> = world.topic.good_ids().into_iter().chain(world.topic.narrow_ids()).collect();
    assert_eq!(sorted(world.target.ids()), sorted(all));
    supervisor.shutdown(Duration::from_secs(10)).await;
}

/// One life of the flow, until it crashes or the request `id` is at its end.
async fn live(world: &Arc<World>, crash: Arc<Crash>, id: Uuid) -> bool {
    use tokio_util::sync::CancellationToken;
    let status = Arc::new(crate::status::StatusCell::new(&world.definition()));
    let control = crate::flow::RunControl { drain: CancellationToken::new(), after_fence: false };
    let running = crate::flow::run(world.spec(), env(Arc::clone(&crash) as _, 1), control, Arc::clone(&status));
    tokio::select! {
        ended = running => panic!("ended: {ended:?}"),
        () = crash.crashed.notified() => false,
        () = until("the end of the request", || status.replay(id).is_some_and(|p| p.ended.is_some())) => true,
    }
}

#[tokio::test]
async fn a_crash_at_any_step_of_a_replay_loses_and_doubles_nothing() {
    for name in FAILPOINTS {
        for n in 1..=3 {
            let (world, supervisor) = mended(&RECORDS, quiet_env()).await;
            supervisor.shutdown(Duration::from_secs(10)).await;
            world.settings.lock().max_trigger_bytes = 1;
            world.topic.push_narrow(0, 20);
            let id = world.ask(Wanted::All);
            // Crashed or not, it is done by the second life.
            live(&world, Crash::at(name, n), id).await;
            assert!(live(&world, Arc::default(), id).await, "{name} {n}");
            let last = world.ask(Wanted::All);
            assert!(live(&world, Arc::default(), last).await);
            until("rows", || world.target.ids().len() >= world.topic.good_ids().len() + world.topic.narrow_ids().len())
                .await;
            let all: Vec<i64> = world.topic.good_ids().into_iter().chain(world.topic.narrow_ids()).collect();
            assert_eq!(sorted(world.target.ids()), sorted(all), "{name} {n}");
        }
    }
}
