#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use arrow::array::Int64Array;
use arrow::record_batch::RecordBatch;
use tidewater_catalogs::{Anchor, AnchorState};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{HotRows, ReadView};
use crate::FAILPOINTS;
use crate::flow::{self, RunControl};
use crate::status::StatusCell;
use crate::tests::fakes::{Crash, Fault, Seeded, World, env, id_schema, until};
use crate::trigger::{Memory, Meter, OpenTrigger};

fn uuid(n: u64) -> Uuid {
    Uuid::from_u128(u128::from(n))
}

/// The commit of trigger `seq` under the uuid that these tests give it, or by someone else.
fn anchor(seq: u64, ours: bool) -> Anchor {
    Anchor {
        snapshot_id: i64::try_from(seq).unwrap(),
        seq,
        epoch: 1,
        commit_uuid: uuid(if ours { seq } else { 1000 + seq }),
        checkpoint: String::new(),
        checkpoint_sha256: String::new(),
    }
}

fn batch(ids: &[i64]) -> RecordBatch {
    RecordBatch::try_new(id_schema(), vec![Arc::new(Int64Array::from(ids.to_vec()))]).unwrap()
}

fn open(hot: &HotRows, seq: u64) {
    hot.open(&OpenTrigger { seq, commit_uuid: uuid(seq), meter: Arc::new(Meter::default()) });
}

fn ids(view: &ReadView, found: &AnchorState) -> Option<Vec<i64>> {
    let of = |b: &RecordBatch| b.column(0).as_any().downcast_ref::<Int64Array>().unwrap().values().to_vec();
    Some(view.above(found)?.iter().flat_map(|b| of(b.rows())).collect())
}

/// Commit 4 was the last that is known; 5 is being committed, 6 is sealed, 7 is open.
fn four_to_seven(limit: u64) -> Arc<HotRows> {
    let hot = HotRows::new(uuid(99), &anchor(4, true), Memory::new(limit));
    for seq in 5..=7 {
        open(&hot, seq);
        let first = i64::try_from(seq).unwrap() * 10;
        hot.offer(seq, vec![batch(&[first]), batch(&[first + 1])]);
    }
    hot
}

#[test]
fn each_end_of_a_commit_pairs_with_what_the_table_shows() {
    let view = four_to_seven(1 << 20).view();
    let at = |seq, ours| ids(&view, &AnchorState::Valid(anchor(seq, ours)));
    // Not there yet: under way, refused, or lost on its way.
    assert_eq!(at(4, true), Some(vec![50, 51, 60, 61, 70, 71]));
    // It has arrived, whoever knows of it: an answer may be lost, or not read yet.
    assert_eq!(at(5, true), Some(vec![60, 61, 70, 71]));
    assert_eq!(at(6, true), Some(vec![70, 71]));
    assert_eq!(at(7, true), Some(vec![]));
    // Fenced: what this run holds does not follow what the other one committed.
    for seq in 4..=8 {
        assert_eq!(at(seq, false), None, "commit {seq} of another writer");
    }
    // Newer than the view: all of it is in the table, or it is another run's.
    assert_eq!(at(8, true), None);
    // Rolled back behind what the run began from.
    assert_eq!(at(3, true), None);
    assert_eq!(ids(&view, &AnchorState::Absent), None);
    assert_eq!(ids(&view, &AnchorState::Broken("the tag is gone".into())), None);
}

#[test]
fn a_commit_takes_its_rows_out_of_later_views() {
    let hot = four_to_seven(1 << 20);
    let before = hot.view();
    hot.committed(&anchor(5, true));
    let after = hot.view();
    let five = AnchorState::Valid(anchor(5, true));
    assert_eq!(ids(&after, &five), Some(vec![60, 61, 70, 71]));
    assert_eq!(ids(&before, &five), ids(&after, &five));
    // The older table with the newer view would lack trigger 5.
    assert_eq!(ids(&after, &AnchorState::Valid(anchor(4, true))), None);
}

#[test]
fn rows_of_a_run_are_charged_until_the_last_reader_is_done() {
    let hot = four_to_seven(1 << 20);
    let used = || hot.used.load(Ordering::Relaxed);
    let all = used();
    assert!(all >= 6 * size_of::<i64>());
    let view = hot.view();
    hot.committed(&anchor(7, true));
    assert_eq!(used(), all, "a reader still has them");
    drop(view);
    assert_eq!(used(), 0);
}

#[test]
fn without_memory_the_tail_is_missing_and_never_the_middle() {
    let size = batch(&[1]).get_array_memory_size() as u64;
    let hot = HotRows::new(uuid(99), &anchor(4, true), Memory::new(4 * size));
    open(&hot, 5);
    hot.offer(5, vec![batch(&[50])]);
    open(&hot, 6);
    hot.offer(6, vec![batch(&[60])]);
    // Half of the memory is held.
    hot.offer(6, vec![batch(&[61])]);
    hot.offer(6, vec![batch(&[62])]);
    open(&hot, 7);
    let at = |seq| ids(&hot.view(), &AnchorState::Valid(anchor(seq, true)));
    assert_eq!(at(4), Some(vec![50, 60]));
    hot.committed(&anchor(5, true));
    hot.offer(7, vec![batch(&[70])]);
    assert_eq!(at(5), Some(vec![60]), "trigger 7 has room and waits for the rest of 6");
    hot.offer(6, vec![batch(&[63])]);
    assert_eq!(at(5), Some(vec![60]), "62 is missing, so 63 is no use");
    hot.committed(&anchor(6, true));
    assert_eq!(at(6), Some(vec![70]));
}

#[test]
fn writers_that_grow_get_their_memory_back() {
    let size = batch(&[1]).get_array_memory_size();
    let memory = Memory::new(4 * size as u64);
    let hot = HotRows::new(uuid(99), &anchor(4, true), Arc::clone(&memory));
    open(&hot, 5);
    hot.offer(5, vec![batch(&[50])]);
    hot.offer(5, vec![batch(&[51])]);
    let held = memory.hold(3 * size);
    hot.offer(5, vec![batch(&[52])]);
    assert_eq!(hot.used.load(Ordering::Relaxed), 0);
    assert_eq!(ids(&hot.view(), &AnchorState::Valid(anchor(4, true))), Some(vec![]));
    drop(held);
    open(&hot, 6);
    hot.offer(6, vec![batch(&[60])]);
    assert_eq!(ids(&hot.view(), &AnchorState::Valid(anchor(5, true))), Some(vec![60]));
}

/// Reads without end while runs come and go; every read must be the beginning of each partition, once, and hold at
/// least what the one before it held, unless a run ended in between.
async fn read_on(world: &World, status: &StatusCell, chance: &Seeded, runs: &AtomicUsize, stop: &AtomicBool) -> usize {
    let flow = world.id.to_string();
    let (mut last, mut last_run, mut hot_reads) = (0, 0, 0);
    while !stop.load(Ordering::SeqCst) {
        let run = runs.load(Ordering::SeqCst);
        let view = status.hot().view();
        // The table may move on before it is loaded.
        for _ in 0..chance.below(12) {
            tokio::task::yield_now().await;
        }
        let (found, mut seen) = world.target.seen(&flow);
        let hot = view.as_ref().and_then(|v| ids(v, &found)).unwrap_or_default();
        hot_reads += usize::from(!hot.is_empty());
        seen.extend(hot);
        let unique: BTreeSet<i64> = seen.iter().copied().collect();
        assert_eq!(unique.len(), seen.len(), "a row came twice");
        let mut ends: BTreeMap<i64, usize> = BTreeMap::new();
        for id in &unique {
            *ends.entry(id / 1_000_000).or_default() += 1;
        }
        for (partition, rows) in ends {
            let good: Vec<i64> =
                world.topic.good_ids().into_iter().filter(|id| id / 1_000_000 == partition).take(rows).collect();
            let mine: Vec<i64> = unique.iter().copied().filter(|id| id / 1_000_000 == partition).collect();
            assert_eq!(mine, good, "partition {partition} has a hole");
        }
        if run == last_run && runs.load(Ordering::SeqCst) == run {
            assert!(seen.len() >= last, "a read stepped back from {last} to {} rows", seen.len());
        }
        (last, last_run) = (seen.len(), run);
        tokio::task::yield_now().await;
    }
    hot_reads
}

#[tokio::test]
async fn every_read_is_whole_whatever_becomes_of_commits() {
    use Fault::{AppliedRefused, Late, Lost, None as Fine, UnknownApplied, UnknownNotApplied};
    let faults = [Fine, Fine, Lost, UnknownNotApplied, UnknownApplied, AppliedRefused, Late];
    let mut hot_reads = 0;
    for seed in 1..=60 {
        let world = World::new(3);
        for partition in 0..3 {
            world.topic.push_mixed(partition, 60);
        }
        world.settings.lock().max_trigger_bytes = 1500;
        let chance = Seeded::new(seed);
        let status = Arc::new(StatusCell::new(&world.definition()));
        let (stop, runs) = (AtomicBool::new(false), AtomicUsize::new(0));
        let work = async {
            for round in 0..30 {
                runs.fetch_add(1, Ordering::SeqCst);
                let fault = || faults[chance.below(faults.len() as u64) as usize];
                world.target.faults.lock().extend((0..4).map(|_| fault()));
                let crash = match round {
                    0..6 => Crash::at(FAILPOINTS[chance.below(FAILPOINTS.len() as u64) as usize], 1 + chance.below(4)),
                    _ => Arc::default(),
                };
                let control = RunControl { drain: CancellationToken::new(), after_fence: false };
                let running = flow::run(world.spec(), env(Arc::clone(&crash) as _, seed), control, Arc::clone(&status));
                tokio::select! {
                    ended = running => assert!(ended.expect_err("nobody asked it to end").restarts),
                    () = crash.crashed.notified() => {}
                    () = until("all rows", || world.rows_complete()) => break,
                }
                // Its hot rows are gone.
                runs.fetch_add(1, Ordering::SeqCst);
                // Now and then another server commits in between.
                if chance.below(3) == 0 {
                    world.topic.push_mixed(0, 10);
                    let elsewhere = Arc::new(StatusCell::new(&world.definition()));
                    let control = RunControl { drain: CancellationToken::new(), after_fence: false };
                    let other =
                        flow::run(world.spec(), env(Arc::new(Crash::default()), seed + 500), control, elsewhere);
                    tokio::select! {
                        _ = other => {}
                        () = tokio::time::sleep(std::time::Duration::from_millis(5)) => {}
                    }
                }
            }
            stop.store(true, Ordering::SeqCst);
        };
        let ((), hot) = tokio::join!(work, read_on(&world, &status, &chance, &runs, &stop));
        hot_reads += hot;
        assert!(status.hot().view().is_none(), "a run that has ended shows nothing");
        world.check_rows();
    }
    assert!(hot_reads > 100, "hot rows were seen {hot_reads} times only");
}
