//! All states of a small world: two writers of one flow, a catalog, a network that delays requests for as long as it
//! likes, lost replies, crashes, and someone who compacts. Every commit must be in the table once and in order, and
//! no file of a commit that is in the table may be deleted.
//!
//! The policy `Tag` asks the product's own decision. The four others are what one would write first; each breaks, and
//! the checker must see it, or it proves nothing about the first.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::{BTreeSet, HashSet, VecDeque};

use tidewater_catalogs::{Anchor, AnchorState};
use uuid::Uuid;

use super::{Resolution, resolve};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Policy {
    /// The anchor decides; the same commit again while it has not moved; nothing is ever deleted.
    Tag,
    /// As `Tag`, but a fenced writer deletes its files.
    TagAndDelete,
    /// Looks only at the newest snapshot for its own commit.
    HeadCheck,
    /// Sends again on whatever the table is now.
    Retry,
    /// Takes no answer for a failure and cleans up.
    CleanUp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Tag {
    version: u8,
    next: u8,
    uuid: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Writer {
    Idle,
    Ready { main: u8, tag: Option<Tag>, next: u8 },
    Sent { tag: Option<Tag>, next: u8, uuid: u8 },
    Unknown { tag: Option<Tag>, next: u8, uuid: u8 },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Request {
    main: u8,
    tag: Option<Tag>,
    range: u8,
    uuid: u8,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct World {
    main: u8,
    /// The commit that made the newest snapshot; none where a compaction did.
    newest: Option<u8>,
    tag: Option<Tag>,
    table: Vec<(u8, u8)>,
    writers: Vec<Writer>,
    network: BTreeSet<Request>,
    deleted: BTreeSet<u8>,
    uuids: u8,
    compactions: u8,
    crashes: u8,
    lost: u8,
}

#[derive(Debug, Clone, Copy)]
struct Bounds {
    writers: usize,
    ranges: u8,
    uuids: u8,
    compactions: u8,
    crashes: u8,
    lost: u8,
}

fn anchor(tag: Tag) -> Anchor {
    Anchor {
        snapshot_id: i64::from(tag.version),
        seq: u64::from(tag.next),
        epoch: 0,
        commit_uuid: Uuid::from_u128(u128::from(tag.uuid)),
        checkpoint: String::new(),
        checkpoint_sha256: String::new(),
    }
}

fn holds(world: &World) -> bool {
    let in_order = world.table.iter().enumerate().all(|(i, (range, _))| i == usize::from(*range));
    in_order && world.table.iter().all(|(_, uuid)| !world.deleted.contains(uuid))
}

fn start(bounds: Bounds) -> World {
    World {
        main: 0,
        newest: None,
        tag: None,
        table: Vec::new(),
        writers: vec![Writer::Idle; bounds.writers],
        network: BTreeSet::new(),
        deleted: BTreeSet::new(),
        uuids: 0,
        compactions: 0,
        crashes: 0,
        lost: 0,
    }
}

/// The world after a writer that does not know what became of its commit has looked at the table.
fn resolved(world: &World, i: usize, policy: Policy, tag: Option<Tag>, next: u8, uuid: u8) -> World {
    let mut after = world.clone();
    let again = |after: &mut World| {
        after.network.insert(Request { main: world.main, tag, range: next, uuid });
        after.writers[i] = Writer::Sent { tag, next, uuid };
    };
    match policy {
        Policy::Tag | Policy::TagAndDelete => {
            let expected = tag.map(anchor);
            let found = world.tag.map_or(AnchorState::Absent, |t| AnchorState::Valid(anchor(t)));
            match resolve(expected.as_ref(), Uuid::from_u128(u128::from(uuid)), &found) {
                Resolution::Committed(_) => after.writers[i] = Writer::Idle,
                Resolution::NotYet => again(&mut after),
                Resolution::Fenced(_) => {
                    after.writers[i] = Writer::Idle;
                    if policy == Policy::TagAndDelete {
                        after.deleted.insert(uuid);
                    }
                }
                Resolution::AnchorLost(why) => panic!("nobody rolls this world back: {why}"),
            }
        }
        Policy::HeadCheck if world.newest == Some(uuid) => after.writers[i] = Writer::Idle,
        Policy::HeadCheck | Policy::Retry => again(&mut after),
        Policy::CleanUp => {
            after.deleted.insert(uuid);
            after.writers[i] = Writer::Idle;
        }
    }
    after
}

fn successors(world: &World, policy: Policy, bounds: Bounds) -> Vec<World> {
    let mut all = Vec::new();
    for (i, writer) in world.writers.iter().enumerate() {
        let mut after = world.clone();
        match *writer {
            Writer::Idle => {
                let next = world.tag.map_or(0, |t| t.next);
                after.writers[i] = Writer::Ready { main: world.main, tag: world.tag, next };
                all.push(after);
            }
            Writer::Ready { main, tag, next } => {
                if next < bounds.ranges && world.uuids < bounds.uuids {
                    after.uuids += 1;
                    let uuid = after.uuids;
                    after.network.insert(Request { main, tag, range: next, uuid });
                    after.writers[i] = Writer::Sent { tag, next, uuid };
                    all.push(after);
                }
            }
            Writer::Sent { tag, next, uuid } => {
                if world.lost < bounds.lost {
                    after.lost += 1;
                    after.writers[i] = Writer::Unknown { tag, next, uuid };
                    all.push(after);
                }
            }
            Writer::Unknown { tag, next, uuid } => all.push(resolved(world, i, policy, tag, next, uuid)),
        }
        if *writer != Writer::Idle && world.crashes < bounds.crashes {
            let mut after = world.clone();
            after.crashes += 1;
            after.writers[i] = Writer::Idle;
            all.push(after);
        }
    }
    for request in &world.network {
        let mut after = world.clone();
        after.network.remove(request);
        let fenced = matches!(policy, Policy::Tag | Policy::TagAndDelete) && world.tag != request.tag;
        let applied = world.main == request.main && !fenced;
        if applied {
            after.main += 1;
            after.newest = Some(request.uuid);
            after.tag = Some(Tag { version: after.main, next: request.range + 1, uuid: request.uuid });
            after.table.push((request.range, request.uuid));
        }
        // The answer reaches its writer only where that still waits for it.
        for writer in &mut after.writers {
            if let Writer::Sent { tag, next, uuid } = *writer
                && uuid == request.uuid
            {
                *writer = if applied { Writer::Idle } else { Writer::Unknown { tag, next, uuid } };
            }
        }
        all.push(after);
    }
    if world.compactions < bounds.compactions {
        let mut after = world.clone();
        after.compactions += 1;
        after.main += 1;
        after.newest = None;
        all.push(after);
    }
    all
}

/// How many states there are, and the first one found that breaks a promise.
fn search(policy: Policy, bounds: Bounds) -> (usize, Option<World>) {
    let first = start(bounds);
    let mut seen = HashSet::from([first.clone()]);
    let mut queue = VecDeque::from([first]);
    while let Some(world) = queue.pop_front() {
        for after in successors(&world, policy, bounds) {
            if !holds(&after) {
                return (seen.len(), Some(after));
            }
            if !seen.contains(&after) {
                seen.insert(after.clone());
                queue.push_back(after);
            }
        }
    }
    (seen.len(), None)
}

const SMALL: Bounds = Bounds { writers: 2, ranges: 2, uuids: 4, compactions: 1, crashes: 1, lost: 2 };

#[test]
fn the_tag_keeps_every_commit_once_and_in_order() {
    let (states, broken) = search(Policy::Tag, SMALL);
    assert_eq!(broken, None);
    assert!(states > 10_000, "the world was too small to mean anything: {states} states");
}

#[test]
fn longer_histories_hold_as_well() {
    let (states, broken) = search(Policy::Tag, Bounds { ranges: 3, uuids: 5, crashes: 1, lost: 1, ..SMALL });
    assert_eq!(broken, None);
    assert!(states > 10_000, "{states} states");
}

#[test]
fn the_checker_catches_each_tempting_policy() {
    for (policy, lost_data) in
        [(Policy::HeadCheck, false), (Policy::Retry, false), (Policy::CleanUp, true), (Policy::TagAndDelete, true)]
    {
        let (_, broken) = search(policy, SMALL);
        let broken = broken.unwrap_or_else(|| panic!("{policy:?} got through"));
        let deleted = broken.table.iter().any(|(_, uuid)| broken.deleted.contains(uuid));
        assert_eq!(deleted, lost_data, "{policy:?} breaks in another way than known: {broken:?}");
    }
}
