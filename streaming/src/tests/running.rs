use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tidewater_catalogs::{AnchorState, FlowState, OnError, StartPosition};

use super::fakes::{Crash, Fault, PassThrough, Record, World, WorldFactory, env, id_of, until};
use crate::Supervisor;
use crate::checkpoint::{Checkpoint, PartitionMove};

fn supervise(world: &Arc<World>) -> Supervisor {
    let env = env(Arc::new(Crash::default()), 1);
    Supervisor::new(tokio::runtime::Handle::current(), Arc::new(WorldFactory(Arc::clone(world))), env)
}

async fn failed(supervisor: &Supervisor, world: &World) -> tidewater_catalogs::FlowErrorInfo {
    until("the flow to fail", || supervisor.status(world.id).unwrap().state == FlowState::Failed).await;
    supervisor.status(world.id).unwrap().error.expect("says why")
}

fn good(n: usize) -> impl Iterator<Item = Record> {
    std::iter::repeat_n(Record::Good, n)
}

/// The checkpoint that the table's anchor names.
fn standing(world: &World) -> Checkpoint {
    let AnchorState::Valid(anchor) = world.target.anchor(&world.id.to_string()) else { panic!("no anchor") };
    let bytes = world.blobs.objects.lock()[&anchor.checkpoint].clone();
    Checkpoint::decode(&bytes, world.id, &anchor).unwrap()
}

#[tokio::test]
async fn counts_and_positions_are_told() {
    let world = World::new(2);
    world.topic.push_mixed(0, 30);
    world.topic.push(1, [Record::Good, Record::Skipped, Record::Control]);
    let supervisor = supervise(&world);
    supervisor.start(world.definition()).unwrap();
    until("rows", || world.rows_complete() && world.letters_complete()).await;
    let status = supervisor.wait_until(world.id, |s| s.committed.get(0) == Some(30)).await.unwrap();
    assert_eq!(status.state, FlowState::Running);
    assert_eq!(status.rows_out, world.topic.good_ids().len() as u64);
    assert_eq!(status.rows_dead, world.topic.bad().len() as u64);
    assert_eq!(status.rows_skipped, 1);
    assert_eq!(status.rows_in, status.rows_out + status.rows_dead + 1);
    supervisor.shutdown(Duration::from_secs(10)).await;
    world.check();
    assert_eq!(standing(&world).source.next().0, [(0, 30), (1, 3)].into());
}

#[tokio::test]
async fn latest_is_asked_once() {
    let world = World::new(1);
    *world.start.lock() = StartPosition::Latest;
    world.topic.push(0, good(10));
    let supervisor = supervise(&world);
    supervisor.start(world.definition()).unwrap();
    supervisor.wait_until(world.id, |s| s.state == FlowState::Running).await.unwrap();
    supervisor.pause(world.id).await.unwrap();
    world.topic.push(0, good(5));
    supervisor.resume(world.id).await.unwrap();
    until("the five after the start", || world.target.ids().len() >= 5).await;
    supervisor.shutdown(Duration::from_secs(10)).await;
    assert_eq!(world.target.ids(), vec![10, 11, 12, 13, 14]);
}

#[tokio::test]
async fn draining_commits_what_was_read() {
    let world = World::new(1);
    world.settings.lock().commit_interval = Duration::from_secs(3600);
    world.topic.push(0, good(20));
    let supervisor = supervise(&world);
    supervisor.start(world.definition()).unwrap();
    supervisor.wait_until(world.id, |s| s.position.get(0) == Some(20)).await.unwrap();
    assert_eq!(world.target.ids(), Vec::<i64>::new());
    supervisor.pause(world.id).await.unwrap();
    assert_eq!(supervisor.status(world.id).unwrap().state, FlowState::Paused);
    world.check();
    assert_eq!(world.target.open_writers.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn positions_are_committed_on_a_heartbeat_only() {
    let world = World::new(1);
    *world.query.lock() = Arc::new(PassThrough { drop_all: true, ..PassThrough::default() });
    world.topic.push(0, good(20));
    let supervisor = supervise(&world);
    supervisor.start(world.definition()).unwrap();
    supervisor.wait_until(world.id, |s| s.position.get(0) == Some(20)).await.unwrap();
    tokio::time::sleep(Duration::from_millis(30)).await;
    assert_eq!(supervisor.status(world.id).unwrap().seq, 0, "nothing to show, so nothing is committed");

    world.settings.lock().heartbeat = Duration::from_millis(5);
    supervisor.restart(world.definition()).await.unwrap();
    // Draining has committed the first twenty; from here it is the heartbeat.
    assert_eq!(standing(&world).source.next().get(0), Some(20));
    world.topic.push(0, good(10));
    supervisor.wait_until(world.id, |s| s.committed.get(0) == Some(30)).await.unwrap();
    let seq = supervisor.status(world.id).unwrap().seq;
    tokio::time::sleep(Duration::from_millis(30)).await;
    assert_eq!(supervisor.status(world.id).unwrap().seq, seq, "nothing moved, so nothing is committed");
    supervisor.shutdown(Duration::from_secs(10)).await;
    assert_eq!(world.target.ids(), Vec::<i64>::new());
}

#[tokio::test]
async fn reading_stops_while_commits_do_not_get_through() {
    let world = World::new(1);
    {
        let mut settings = world.settings.lock();
        settings.max_trigger_bytes = 700;
        settings.parallelism = 1;
    }
    world.topic.push(0, good(7 * 100));
    let supervisor = supervise(&world);
    supervisor.start(world.definition()).unwrap();
    supervisor.wait_until(world.id, |s| s.seq >= 1).await.unwrap();
    let closed = world.target.gate.acquire_many(u32::MAX >> 4).await.unwrap();
    let _rest = world.target.gate.forget_permits(usize::MAX >> 1);
    let seq = supervisor.status(world.id).unwrap().seq;
    tokio::time::sleep(Duration::from_millis(50)).await;
    let status = supervisor.status(world.id).unwrap();
    let ahead = (status.position.get(0).unwrap() - status.committed.get(0).unwrap()) / 7;
    assert!(status.seq <= seq + 1);
    // One being committed, two waiting, one open; each holds one batch.
    assert!(ahead <= 4, "{ahead} triggers were read ahead");
    assert!(ahead >= 2, "nothing was read while a commit was under way");
    world.target.gate.add_permits(1 << 20);
    drop(closed);
    until("rows", || world.rows_complete()).await;
    supervisor.shutdown(Duration::from_secs(10)).await;
    world.check();
}

#[tokio::test]
async fn a_small_memory_budget_slows_and_does_not_stop() {
    let world = World::new(4);
    {
        let mut settings = world.settings.lock();
        settings.memory_bytes = 1000;
        settings.commit_interval = Duration::from_secs(3600);
    }
    for partition in 0..4 {
        world.topic.push_mixed(partition, 200);
    }
    let supervisor = supervise(&world);
    supervisor.start(world.definition()).unwrap();
    // The last rows stay below the budget until the flow is drained.
    supervisor.wait_until(world.id, |s| s.position.iter().filter(|(_, at)| *at == 200).count() == 4).await.unwrap();
    supervisor.shutdown(Duration::from_secs(10)).await;
    world.check();
    assert!(world.target.requests.lock().len() > 20, "the budget cut triggers early");
}

#[tokio::test]
async fn new_partitions_are_read_from_their_beginning() {
    let world = World::new(1);
    world.topic.push(0, good(5));
    let supervisor = supervise(&world);
    supervisor.start(world.definition()).unwrap();
    until("rows", || world.rows_complete()).await;
    world.topic.push(1, good(9));
    world.topic.push(2, good(4));
    until("rows of new partitions", || world.rows_complete()).await;
    world.topic.push(0, good(3));
    world.topic.push(2, good(3));
    until("rows after that", || world.rows_complete()).await;
    supervisor.shutdown(Duration::from_secs(10)).await;
    world.check();
    // And while nobody looks.
    world.topic.push(3, good(6));
    supervisor.start(world.definition()).unwrap();
    until("rows of a partition that came meanwhile", || world.rows_complete()).await;
    supervisor.shutdown(Duration::from_secs(10)).await;
    world.check();
}

#[tokio::test]
async fn a_replaced_topic_fails_the_flow() {
    for (running, id) in [(true, "second"), (false, "second"), (true, ""), (false, "")] {
        let world = World::new(1);
        world.topic.push(0, good(5));
        let supervisor = supervise(&world);
        supervisor.start(world.definition()).unwrap();
        until("rows", || world.rows_complete()).await;
        supervisor.wait_until(world.id, |s| s.committed.get(0) == Some(5)).await.unwrap();
        if !running {
            supervisor.pause(world.id).await.unwrap();
        }
        // Without an id only the end of the partition gives it away.
        world.topic.replace(id, 1);
        if !running {
            supervisor.resume(world.id).await.unwrap();
        }
        let error = failed(&supervisor, &world).await;
        assert_eq!(error.code, "TOPIC_REPLACED", "{error:?}");
        assert_eq!(world.target.ids(), vec![0, 1, 2, 3, 4]);
    }
}

#[tokio::test]
async fn lost_offsets_fail_the_flow_or_are_skipped_and_recorded() {
    let world = World::new(2);
    world.topic.push(0, good(5));
    let supervisor = supervise(&world);
    supervisor.start(world.definition()).unwrap();
    until("rows", || world.rows_complete()).await;
    supervisor.pause(world.id).await.unwrap();
    world.topic.push(0, good(20));
    world.topic.retain_from(0, 17);
    supervisor.resume(world.id).await.unwrap();
    let error = failed(&supervisor, &world).await;
    assert_eq!(error.code, "DATA_LOSS");
    assert!(error.message.contains("partition 0 offsets [5, 17)"), "{}", error.message);

    // Failed flows wait for someone to decide.
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(supervisor.status(world.id).unwrap().restarts, 0);

    world.settings.lock().skip_data_loss = true;
    world.settings.lock().commit_interval = Duration::from_secs(3600);
    supervisor.restart(world.definition()).await.unwrap();
    supervisor.wait_until(world.id, |s| s.position.get(0) == Some(25)).await.unwrap();
    supervisor.pause(world.id).await.unwrap();
    assert_eq!(world.target.ids(), (0..5).chain(17..25).collect::<Vec<i64>>());
    let checkpoint = standing(&world);
    assert_eq!(checkpoint.source.gaps, vec![PartitionMove { partition: 0, from: 5, to: 17 }]);
}

#[tokio::test]
async fn offsets_lost_while_reading_are_found_by_the_lane() {
    for skip in [false, true] {
        let world = World::new(1);
        world.settings.lock().skip_data_loss = skip;
        world.topic.push(0, good(5));
        let supervisor = supervise(&world);
        supervisor.start(world.definition()).unwrap();
        until("rows", || world.rows_complete()).await;
        world.topic.retain_from(0, 12);
        world.topic.push(0, good(20));
        if skip {
            until("rows behind the gap", || world.target.ids().len() >= 5 + 13).await;
            supervisor.shutdown(Duration::from_secs(10)).await;
            assert_eq!(world.target.ids(), (0..5).chain(12..25).collect::<Vec<i64>>());
        } else {
            let error = failed(&supervisor, &world).await;
            assert_eq!(error.code, "DATA_LOSS");
            assert!(error.message.contains("partition 0 offsets [5, 12)"), "{}", error.message);
        }
    }
}

/// A partition that was added while nobody looked, and that retention had cut before the flow came back, used to begin
/// at its low mark as if nothing had ever been below it: records were lost and no one was told.
#[tokio::test]
async fn a_new_partition_that_lost_its_beginning_is_a_gap() {
    for running in [false, true] {
        let world = World::new(1);
        world.topic.push(0, good(5));
        let supervisor = supervise(&world);
        supervisor.start(world.definition()).unwrap();
        until("rows", || world.rows_complete()).await;
        supervisor.wait_until(world.id, |s| s.committed.get(0) == Some(5)).await.unwrap();
        if !running {
            supervisor.pause(world.id).await.unwrap();
        }
        world.topic.push_from(1, 6, 10);
        if !running {
            supervisor.resume(world.id).await.unwrap();
        }
        let error = failed(&supervisor, &world).await;
        assert_eq!(error.code, "DATA_LOSS");
        assert!(error.message.contains("partition 1 offsets [0, 6)"), "{}", error.message);
        assert!(error.hint.unwrap().contains("skip_data_loss = true"));

        world.settings.lock().skip_data_loss = true;
        world.settings.lock().commit_interval = Duration::from_secs(3600);
        supervisor.restart(world.definition()).await.unwrap();
        supervisor.wait_until(world.id, |s| s.position.get(1) == Some(10)).await.unwrap();
        supervisor.pause(world.id).await.unwrap();
        assert_eq!(world.target.ids(), (0..5).chain((6..10).map(|o| id_of(1, o))).collect::<Vec<i64>>());
        let source = standing(&world).source;
        assert_eq!(source.gaps, vec![PartitionMove { partition: 1, from: 0, to: 6 }]);
        assert_eq!(source.next().0, [(0, 5), (1, 10)].into());
    }
}

#[tokio::test]
async fn poison_is_named() {
    let world = World::new(1);
    world.settings.lock().on_error = OnError::Fail;
    world.topic.push(0, [Record::Good, Record::Good, Record::Bad]);
    let supervisor = supervise(&world);
    supervisor.start(world.definition()).unwrap();
    let error = failed(&supervisor, &world).await;
    assert_eq!(error.code, "POISON");
    assert!(error.message.contains("partition: 0, offset: 2"), "{}", error.message);

    let world = World::new(1);
    *world.query.lock() = Arc::new(PassThrough { poison: Some(2), ..PassThrough::default() });
    world.topic.push(0, good(5));
    let supervisor = supervise(&world);
    supervisor.start(world.definition()).unwrap();
    let error = failed(&supervisor, &world).await;
    assert_eq!(error.code, "POISON");
    assert!(error.message.contains("partition: 0, offset: 2"), "{}", error.message);
}

#[tokio::test]
async fn an_anchor_that_is_lost_stops_the_flow() {
    let world = World::new(1);
    world.topic.push(0, good(5));
    let supervisor = supervise(&world);
    supervisor.start(world.definition()).unwrap();
    until("rows", || world.rows_complete()).await;
    supervisor.pause(world.id).await.unwrap();
    let id = world.id.to_string();
    let before = world.target.anchor(&id);
    // Gone as if it had never been: without the checkpoints it would begin again and double every row.
    for lost in [AnchorState::Absent, AnchorState::Broken("the tag is gone".into())] {
        world.target.set_anchor(&id, lost);
        supervisor.resume(world.id).await.unwrap();
        assert_eq!(failed(&supervisor, &world).await.code, "ANCHOR_LOST");
        assert_eq!(world.target.ids().len(), 5);
    }
    world.target.set_anchor(&id, before);
    world.topic.push(0, good(5));
    supervisor.resume(world.id).await.unwrap();
    until("rows", || world.rows_complete()).await;
    supervisor.shutdown(Duration::from_secs(10)).await;
    world.check();
}

#[tokio::test]
async fn a_checkpoint_that_is_gone_or_changed_is_never_guessed() {
    for change in [true, false] {
        let world = World::new(1);
        world.topic.push(0, good(5));
        let supervisor = supervise(&world);
        supervisor.start(world.definition()).unwrap();
        until("rows", || world.rows_complete()).await;
        supervisor.pause(world.id).await.unwrap();
        let path = standing(&world).path();
        if change {
            world.blobs.objects.lock().insert(path, bytes::Bytes::from_static(b"{}"));
        } else {
            world.blobs.objects.lock().remove(&path);
        }
        supervisor.resume(world.id).await.unwrap();
        assert_eq!(failed(&supervisor, &world).await.code, "CHECKPOINT_LOST");
    }
}

#[tokio::test]
async fn a_final_refusal_and_a_dropped_table_are_told() {
    let world = World::new(1);
    world.topic.push(0, good(5));
    world.target.faults.lock().extend([Fault::None, Fault::Final]);
    let supervisor = supervise(&world);
    supervisor.start(world.definition()).unwrap();
    assert_eq!(failed(&supervisor, &world).await.code, "COMMIT_REFUSED");
    supervisor.resume(world.id).await.unwrap();
    until("rows", || world.rows_complete()).await;
    world.check();
    supervisor.pause(world.id).await.unwrap();
    world.target.drop_table();
    supervisor.resume(world.id).await.unwrap();
    assert_eq!(failed(&supervisor, &world).await.code, "TABLE_GONE");
}

#[tokio::test]
async fn maintenance_never_fails_a_flow_and_old_checkpoints_go() {
    let world = World::new(1);
    world.settings.lock().max_trigger_bytes = 1;
    world.topic.push(0, good(7 * 30));
    let supervisor = supervise(&world);
    supervisor.start(world.definition()).unwrap();
    until("rows", || world.rows_complete()).await;
    supervisor.shutdown(Duration::from_secs(10)).await;
    world.check();
    assert!(world.target.maintained.load(Ordering::SeqCst) >= 5);
    let left = world.blobs.objects.lock().len();
    assert!((4..=12).contains(&left), "{left} checkpoints are left of more than thirty");
    standing(&world);
}
