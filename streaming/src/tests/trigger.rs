#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::time::Duration;

use super::*;

const IDLE: CutFacts = CutFacts {
    since_cut: Duration::from_secs(1),
    interval: Duration::from_secs(2),
    heartbeat: Duration::from_secs(60),
    source_bytes: 10,
    max_trigger_bytes: 100,
    memory_full: false,
    output: false,
    moved: false,
    awaited: false,
    draining: false,
};

#[test]
fn a_trigger_with_output_is_cut_by_time_bytes_memory_or_on_the_way_out() {
    let open = CutFacts { output: true, moved: true, ..IDLE };
    assert!(!should_cut(&open));
    assert!(should_cut(&CutFacts { since_cut: Duration::from_secs(2), ..open }));
    assert!(should_cut(&CutFacts { source_bytes: 100, ..open }));
    assert!(should_cut(&CutFacts { memory_full: true, ..open }));
    assert!(should_cut(&CutFacts { awaited: true, ..open }));
    assert!(should_cut(&CutFacts { draining: true, ..open }));
}

#[test]
fn a_trigger_without_output_waits_for_the_heartbeat() {
    let open = CutFacts { moved: true, ..IDLE };
    assert!(!should_cut(&CutFacts { since_cut: Duration::from_secs(59), ..open }));
    assert!(should_cut(&CutFacts { since_cut: Duration::from_secs(60), ..open }));
    assert!(!should_cut(&CutFacts { memory_full: true, ..open }), "the memory is someone else's");
    assert!(should_cut(&CutFacts { source_bytes: 100, ..open }), "or it would stop reading for a minute");
    assert!(should_cut(&CutFacts { draining: true, ..open }));
}

#[test]
fn nothing_read_is_nothing_to_commit() {
    assert!(!should_cut(&CutFacts { since_cut: Duration::from_secs(600), draining: true, ..IDLE }));
}

#[test]
fn a_slow_catalog_stretches_the_interval() {
    let (t, max) = (Duration::from_secs(2), Duration::from_secs(60));
    assert_eq!(next_interval(t, Duration::from_secs(1), max), t);
    assert_eq!(next_interval(t, Duration::from_secs(4), max), Duration::from_secs(6));
    assert_eq!(next_interval(t, Duration::from_secs(400), max), max);
    assert_eq!(next_interval(Duration::from_secs(90), Duration::from_secs(400), max), Duration::from_secs(90));
}

#[test]
fn memory_is_given_back_with_the_writer() {
    let memory = Memory::new(100);
    let mut watch = memory.watch();
    let mut held = Held::new(Arc::clone(&memory));
    held.set(70);
    held.set(40);
    let mut other = Held::new(Arc::clone(&memory));
    other.set(60);
    assert!(memory.is_full());
    watch.borrow_and_update();
    drop(held);
    assert!(watch.has_changed().unwrap());
    assert_eq!(memory.used(), 60);
    drop(other);
    assert_eq!(memory.used(), 0);
}
