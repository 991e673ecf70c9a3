//! Consumer groups of the classic protocol, as far as one broker needs them: members in memory, offsets on disk.
//!
//! ```text
//! Empty ──join──► Joining ──all joined, or time is up──► Syncing ──leader's plan──► Stable
//!                    ▲────────── join, leave, silence ──────┴──────────────────────────┘
//! ```

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use bytes::Bytes;
use kafka_protocol::error::ResponseError;
use kafka_protocol::protocol::StrBytes;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::files::write_atomically;
use crate::{Error, Result};

/// The first members of a group find each other within this time.
const INITIAL_DELAY: Duration = Duration::from_millis(250);
const MIN_TIMEOUT: Duration = Duration::from_millis(100);
const MAX_TIMEOUT: Duration = Duration::from_secs(30 * 60);
const MAX_MEMBERS: usize = 200;
const MAX_METADATA_BYTES: usize = 4096;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Empty,
    Joining,
    Syncing,
    Stable,
}

#[derive(Debug)]
struct Member {
    instance: Option<StrBytes>,
    protocols: Vec<(StrBytes, Bytes)>,
    session: Duration,
    rebalance: Duration,
    seen: Instant,
    /// Has joined the round that is under way.
    joined: bool,
    assignment: Bytes,
}

#[derive(Debug)]
struct Group {
    state: State,
    generation: i32,
    protocol_type: StrBytes,
    protocol: StrBytes,
    leader: String,
    members: BTreeMap<String, Member>,
    not_before: Instant,
    deadline: Instant,
    offsets: BTreeMap<String, BTreeMap<i32, Committed>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Committed {
    pub offset: i64,
    #[serde(default)]
    pub metadata: String,
}

#[derive(Debug)]
pub struct Join {
    pub group: String,
    pub member: String,
    pub instance: Option<StrBytes>,
    pub session: Duration,
    pub rebalance: Duration,
    pub protocol_type: StrBytes,
    pub protocols: Vec<(StrBytes, Bytes)>,
}

/// What every member learns when a round of joining is over.
#[derive(Debug)]
pub struct Joined {
    pub generation: i32,
    pub protocol_type: StrBytes,
    pub protocol: StrBytes,
    pub leader: String,
    /// For the leader alone: all members with what they said of themselves.
    pub members: Vec<(String, Option<StrBytes>, Bytes)>,
}

/// `None` means: ask again when something changed.
pub type Poll<T> = Result<Option<T>, ResponseError>;

#[derive(Debug, Clone)]
pub struct GroupInfo {
    pub name: String,
    pub state: &'static str,
    pub protocol_type: StrBytes,
    pub protocol: StrBytes,
    pub members: Vec<(String, Option<StrBytes>, Bytes, Bytes)>,
}

#[derive(Debug)]
pub struct Groups {
    inner: Mutex<Inner>,
    changes: watch::Sender<u64>,
    path: PathBuf,
    max_groups: usize,
}

#[derive(Debug, Default)]
struct Inner {
    groups: BTreeMap<String, Group>,
    unsaved: bool,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct OffsetsFile {
    groups: BTreeMap<String, BTreeMap<String, BTreeMap<i32, Committed>>>,
}

impl Group {
    fn new(now: Instant) -> Self {
        Self {
            state: State::Empty,
            generation: 0,
            protocol_type: StrBytes::new(),
            protocol: StrBytes::new(),
            leader: String::new(),
            members: BTreeMap::new(),
            not_before: now,
            deadline: now,
            offsets: BTreeMap::new(),
        }
    }

    fn begin_round(&mut self, now: Instant) {
        let delay = if self.state == State::Empty { INITIAL_DELAY } else { Duration::ZERO };
        let longest = self.members.values().map(|m| m.rebalance).max().unwrap_or(MIN_TIMEOUT);
        self.state = State::Joining;
        self.not_before = now + delay;
        self.deadline = now + longest.max(delay);
        self.members.values_mut().for_each(|m| m.joined = false);
    }

    fn remove(&mut self, member: &str, now: Instant) -> bool {
        let removed = self.members.remove(member).is_some();
        if removed {
            self.after_removal(now);
        }
        removed
    }

    fn after_removal(&mut self, now: Instant) {
        if self.members.is_empty() {
            self.state = State::Empty;
        } else if matches!(self.state, State::Stable | State::Syncing) {
            self.begin_round(now);
        }
    }

    /// Whether something changed.
    fn tick(&mut self, now: Instant) -> bool {
        let mut changed = false;
        if self.state != State::Empty {
            let before = self.members.len();
            let joining = self.state == State::Joining;
            // Who waits for the others of this round is not asked for a sign of life.
            self.members.retain(|_, m| (joining && m.joined) || now < m.seen + m.session.max(MIN_TIMEOUT));
            if self.members.len() != before {
                changed = true;
                self.after_removal(now);
            }
        }
        if self.state == State::Joining && now >= self.not_before {
            if now >= self.deadline {
                self.members.retain(|_, m| m.joined);
            }
            if self.members.is_empty() {
                self.state = State::Empty;
                changed = true;
            } else if self.members.values().all(|m| m.joined) {
                self.end_round(now);
                changed = true;
            }
        }
        changed
    }

    fn end_round(&mut self, now: Instant) {
        self.generation = self.generation.checked_add(1).unwrap_or(1);
        self.state = State::Syncing;
        if !self.members.contains_key(&self.leader) {
            self.leader = self.members.keys().next().cloned().unwrap_or_default();
        }
        self.protocol = self.common_protocol().unwrap_or_default();
        for member in self.members.values_mut() {
            member.seen = now;
            member.assignment = Bytes::new();
        }
    }

    /// The first protocol of the leader that all members know.
    fn common_protocol(&self) -> Option<StrBytes> {
        let known = |m: &Member, name: &StrBytes| m.protocols.iter().any(|(n, _)| n == name);
        let names = self.members.get(&self.leader)?.protocols.iter().map(|(n, _)| n);
        names.into_iter().find(|n| self.members.values().all(|m| known(m, n))).cloned()
    }

    fn joined(&self, member: &str) -> Joined {
        let metadata = |m: &Member| {
            m.protocols.iter().find(|(n, _)| *n == self.protocol).map(|(_, b)| b.clone()).unwrap_or_default()
        };
        let members = if member == self.leader {
            self.members.iter().map(|(id, m)| (id.clone(), m.instance.clone(), metadata(m))).collect()
        } else {
            Vec::new()
        };
        Joined {
            generation: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            leader: self.leader.clone(),
            members,
        }
    }

    /// The member, if it belongs to the generation.
    fn member(&mut self, id: &str, generation: i32) -> Result<&mut Member, ResponseError> {
        let current = self.generation;
        let member = self.members.get_mut(id).ok_or(ResponseError::UnknownMemberId)?;
        if generation == current { Ok(member) } else { Err(ResponseError::IllegalGeneration) }
    }
}

impl Groups {
    pub fn open(path: PathBuf, max_groups: usize) -> Result<Self> {
        let file: OffsetsFile = match std::fs::read(&path) {
            Ok(bytes) => {
                serde_json::from_slice(&bytes).map_err(|e| Error::corrupt(&path, format!("not readable: {e}")))?
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => OffsetsFile::default(),
            Err(e) => return Err(Error::io(&path)(e)),
        };
        let now = Instant::now();
        let group = |offsets| Group { offsets, ..Group::new(now) };
        let groups = file.groups.into_iter().map(|(name, offsets)| (name, group(offsets))).collect();
        let inner = Mutex::new(Inner { groups, unsaved: false });
        Ok(Self { inner, changes: watch::Sender::new(0), path, max_groups })
    }

    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn changed(&self) {
        self.changes.send_modify(|n| *n = n.wrapping_add(1));
    }

    /// Drops silent members, ends rounds. To be called several times a second.
    pub fn tick(&self, now: Instant) {
        let mut inner = self.inner.lock();
        let mut changed = false;
        for group in inner.groups.values_mut() {
            changed |= group.tick(now);
        }
        inner.groups.retain(|_, g| !g.members.is_empty() || !g.offsets.is_empty());
        drop(inner);
        if changed {
            self.changed();
        }
    }

    /// Writes the offsets, if they changed.
    pub fn save(&self) -> Result<()> {
        let file = {
            let mut inner = self.inner.lock();
            if !inner.unsaved {
                return Ok(());
            }
            inner.unsaved = false;
            let groups = inner.groups.iter().filter(|(_, g)| !g.offsets.is_empty());
            OffsetsFile { groups: groups.map(|(name, g)| (name.clone(), g.offsets.clone())).collect() }
        };
        let saved = serde_json::to_vec(&file)
            .map_err(|e| Error::io(&self.path)(e.into()))
            .and_then(|bytes| write_atomically(&self.path, &bytes));
        if saved.is_err() {
            self.inner.lock().unsaved = true;
        }
        saved
    }

    /// Enters the round; [`Self::poll_join`] says when it is over. Returns the generation before it.
    pub fn join(&self, join: Join, now: Instant) -> Result<i32, ResponseError> {
        let mut inner = self.inner.lock();
        if !inner.groups.contains_key(&join.group) {
            if inner.groups.len() >= self.max_groups {
                return Err(ResponseError::CoordinatorNotAvailable);
            }
            inner.groups.insert(join.group.clone(), Group::new(now));
        }
        let group = inner.groups.get_mut(&join.group).ok_or(ResponseError::CoordinatorNotAvailable)?;
        if join.protocols.is_empty() || join.protocol_type.is_empty() {
            return Err(ResponseError::InconsistentGroupProtocol);
        }
        // A static member that comes back takes the place of its former self.
        if join.instance.is_some() {
            group.members.retain(|id, m| m.instance != join.instance || *id == join.member);
        }
        let others = group.members.iter().filter(|(id, _)| **id != join.member);
        let shared = join
            .protocols
            .iter()
            .any(|(name, _)| others.clone().all(|(_, m)| m.protocols.iter().any(|(known, _)| known == name)));
        let alone = others.count() == 0;
        if !shared || (!alone && group.protocol_type != join.protocol_type) {
            return Err(ResponseError::InconsistentGroupProtocol);
        }
        if group.members.len() >= MAX_MEMBERS && !group.members.contains_key(&join.member) {
            return Err(ResponseError::GroupMaxSizeReached);
        }
        group.protocol_type = join.protocol_type;
        let member = Member {
            instance: join.instance,
            protocols: join.protocols,
            session: join.session.clamp(MIN_TIMEOUT, MAX_TIMEOUT),
            rebalance: join.rebalance.clamp(MIN_TIMEOUT, MAX_TIMEOUT),
            seen: now,
            joined: false,
            assignment: Bytes::new(),
        };
        group.members.insert(join.member.clone(), member);
        if group.state != State::Joining {
            group.begin_round(now);
        }
        if let Some(member) = group.members.get_mut(&join.member) {
            member.joined = true;
        }
        let generation = group.generation;
        group.tick(now);
        drop(inner);
        self.changed();
        Ok(generation)
    }

    pub fn poll_join(&self, group: &str, member: &str, before: i32) -> Poll<Joined> {
        let inner = self.inner.lock();
        let group = inner.groups.get(group).ok_or(ResponseError::UnknownMemberId)?;
        let known = group.members.get(member).ok_or(ResponseError::UnknownMemberId)?;
        if group.generation == before {
            return Ok(None);
        }
        // Another round has begun behind the one that was waited for.
        if group.state == State::Joining && !known.joined {
            return Err(ResponseError::RebalanceInProgress);
        }
        Ok((group.state != State::Joining).then(|| group.joined(member)))
    }

    /// `plan` is the leader's; the others send an empty one.
    pub fn sync(
        &self,
        group: &str,
        member: &str,
        generation: i32,
        plan: Vec<(StrBytes, Bytes)>,
        now: Instant,
    ) -> Result<(), ResponseError> {
        let mut inner = self.inner.lock();
        let group = inner.groups.get_mut(group).ok_or(ResponseError::UnknownMemberId)?;
        group.member(member, generation)?.seen = now;
        if group.state == State::Syncing && member == group.leader {
            for (id, assignment) in plan {
                if let Some(m) = group.members.get_mut(id.as_str()) {
                    m.assignment = assignment;
                }
            }
            group.state = State::Stable;
            drop(inner);
            self.changed();
        }
        Ok(())
    }

    /// Protocol type, protocol and the member's share of the plan.
    pub fn poll_sync(&self, group: &str, member: &str, generation: i32) -> Poll<(StrBytes, StrBytes, Bytes)> {
        let mut inner = self.inner.lock();
        let group = inner.groups.get_mut(group).ok_or(ResponseError::UnknownMemberId)?;
        let assignment = group.member(member, generation)?.assignment.clone();
        match group.state {
            State::Stable => Ok(Some((group.protocol_type.clone(), group.protocol.clone(), assignment))),
            State::Syncing => Ok(None),
            State::Joining | State::Empty => Err(ResponseError::RebalanceInProgress),
        }
    }

    pub fn heartbeat(&self, group: &str, member: &str, generation: i32, now: Instant) -> Result<(), ResponseError> {
        let mut inner = self.inner.lock();
        let group = inner.groups.get_mut(group).ok_or(ResponseError::UnknownMemberId)?;
        group.member(member, generation)?.seen = now;
        if group.state == State::Joining { Err(ResponseError::RebalanceInProgress) } else { Ok(()) }
    }

    pub fn leave(&self, group: &str, member: &str, now: Instant) -> Result<(), ResponseError> {
        let mut inner = self.inner.lock();
        let left = inner.groups.get_mut(group).is_some_and(|g| g.remove(member, now));
        drop(inner);
        self.changed();
        if left { Ok(()) } else { Err(ResponseError::UnknownMemberId) }
    }

    /// The member that has this instance id.
    pub fn member_of_instance(&self, group: &str, instance: &StrBytes) -> Option<String> {
        let inner = self.inner.lock();
        let members = &inner.groups.get(group)?.members;
        members.iter().find(|(_, m)| m.instance.as_ref() == Some(instance)).map(|(id, _)| id.clone())
    }

    /// Checks that the sender may commit for the group; a negative generation is a consumer without membership.
    pub fn check_commit(&self, group: &str, member: &str, generation: i32, now: Instant) -> Result<(), ResponseError> {
        let mut inner = self.inner.lock();
        if !inner.groups.contains_key(group) {
            if generation >= 0 {
                return Err(ResponseError::UnknownMemberId);
            }
            if inner.groups.len() >= self.max_groups {
                return Err(ResponseError::CoordinatorNotAvailable);
            }
            return Ok(());
        }
        let group = inner.groups.get_mut(group).ok_or(ResponseError::UnknownMemberId)?;
        if generation < 0 && member.is_empty() {
            return if group.members.is_empty() { Ok(()) } else { Err(ResponseError::UnknownMemberId) };
        }
        group.member(member, generation)?.seen = now;
        Ok(())
    }

    /// The caller has checked the sender and that the partition exists.
    pub fn commit(&self, group: &str, topic: &str, partition: i32, committed: Committed) -> Result<(), ResponseError> {
        if committed.metadata.len() > MAX_METADATA_BYTES {
            return Err(ResponseError::OffsetMetadataTooLarge);
        }
        let mut inner = self.inner.lock();
        inner.unsaved = true;
        let group = inner.groups.entry(group.to_owned()).or_insert_with(|| Group::new(Instant::now()));
        group.offsets.entry(topic.to_owned()).or_default().insert(partition, committed);
        Ok(())
    }

    pub fn committed(&self, group: &str, topic: &str, partition: i32) -> Option<Committed> {
        self.inner.lock().groups.get(group)?.offsets.get(topic)?.get(&partition).cloned()
    }

    /// All offsets of a group: topic, partitions.
    pub fn all_committed(&self, group: &str) -> Vec<(String, Vec<i32>)> {
        let inner = self.inner.lock();
        let offsets = inner.groups.get(group).map(|g| g.offsets.iter());
        offsets.into_iter().flatten().map(|(t, p)| (t.clone(), p.keys().copied().collect())).collect()
    }

    /// The offsets of a topic that is gone mean nothing for the next one of its name.
    pub fn forget_topic(&self, topic: &str) {
        let mut inner = self.inner.lock();
        let mut removed = false;
        for group in inner.groups.values_mut() {
            removed |= group.offsets.remove(topic).is_some();
        }
        inner.unsaved |= removed;
    }

    pub fn describe(&self) -> Vec<GroupInfo> {
        let inner = self.inner.lock();
        let info = |(name, g): (&String, &Group)| GroupInfo {
            name: name.clone(),
            state: match g.state {
                State::Empty => "Empty",
                State::Joining => "PreparingRebalance",
                State::Syncing => "CompletingRebalance",
                State::Stable => "Stable",
            },
            protocol_type: g.protocol_type.clone(),
            protocol: g.protocol.clone(),
            members: g
                .joined(&g.leader)
                .members
                .into_iter()
                .map(|(id, instance, metadata)| {
                    let assignment = g.members.get(&id).map(|m| m.assignment.clone()).unwrap_or_default();
                    (id, instance, metadata, assignment)
                })
                .collect(),
        };
        inner.groups.iter().map(info).collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    fn join(member: &str, protocols: &[&'static str]) -> Join {
        Join {
            group: "g".into(),
            member: member.into(),
            instance: None,
            session: Duration::from_secs(10),
            rebalance: Duration::from_secs(60),
            protocol_type: StrBytes::from_static_str("consumer"),
            protocols: protocols
                .iter()
                .map(|p| (StrBytes::from_static_str(p), Bytes::from(format!("{member}:{p}"))))
                .collect(),
        }
    }

    fn open(dir: &tempfile::TempDir) -> Groups {
        Groups::open(dir.path().join("groups.json"), 2).unwrap()
    }

    #[test]
    fn members_find_each_other_and_share_a_plan() {
        let dir = tempfile::tempdir().unwrap();
        let groups = open(&dir);
        let t0 = Instant::now();
        assert_eq!(groups.join(join("a", &["range", "sticky"]), t0), Ok(0));
        assert_eq!(groups.join(join("b", &["sticky"]), t0), Ok(0));
        assert_eq!(groups.join(join("c", &["other"]), t0), Err(ResponseError::InconsistentGroupProtocol));
        assert!(groups.poll_join("g", "a", 0).unwrap().is_none());
        groups.tick(t0 + INITIAL_DELAY);
        let leader = groups.poll_join("g", "a", 0).unwrap().unwrap();
        assert_eq!((leader.leader.as_str(), leader.protocol.as_str(), leader.members.len()), ("a", "sticky", 2));
        assert!(groups.poll_join("g", "b", 0).unwrap().unwrap().members.is_empty());
        groups.sync("g", "b", 1, vec![], t0).unwrap();
        assert!(groups.poll_sync("g", "b", 1).unwrap().is_none());
        let plan = vec![(StrBytes::from_static_str("b"), Bytes::from_static(b"all"))];
        groups.sync("g", "a", 1, plan, t0).unwrap();
        assert_eq!(groups.poll_sync("g", "b", 1).unwrap().unwrap().2, "all");
        assert_eq!(groups.heartbeat("g", "b", 1, t0), Ok(()));
        assert_eq!(groups.heartbeat("g", "b", 0, t0), Err(ResponseError::IllegalGeneration));

        // One falls silent: the other is told to join again, alone.
        let later = t0 + Duration::from_secs(9);
        groups.heartbeat("g", "a", 1, later).unwrap();
        groups.tick(t0 + Duration::from_secs(11));
        assert_eq!(groups.heartbeat("g", "a", 1, later), Err(ResponseError::RebalanceInProgress));
        assert_eq!(groups.heartbeat("g", "b", 1, later), Err(ResponseError::UnknownMemberId));
        let later = t0 + Duration::from_secs(12);
        groups.join(join("a", &["range"]), later).unwrap();
        assert_eq!(groups.poll_join("g", "a", 1).unwrap().unwrap().generation, 2);
        groups.leave("g", "a", later).unwrap();
        assert_eq!(groups.describe()[0].state, "Empty");
    }

    #[test]
    fn offsets_outlive_a_restart_and_go_with_their_topic() {
        let dir = tempfile::tempdir().unwrap();
        let groups = open(&dir);
        groups.check_commit("g", "", -1, Instant::now()).unwrap();
        groups.commit("g", "t", 3, Committed { offset: 42, metadata: "m".into() }).unwrap();
        groups.save().unwrap();
        let groups = open(&dir);
        assert_eq!(groups.committed("g", "t", 3), Some(Committed { offset: 42, metadata: "m".into() }));
        groups.forget_topic("t");
        assert_eq!(groups.committed("g", "t", 3), None);
    }

    #[test]
    fn number_of_groups_is_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let groups = open(&dir);
        let now = Instant::now();
        for (name, expected) in [("1", Ok(0)), ("2", Ok(0)), ("3", Err(ResponseError::CoordinatorNotAvailable))] {
            let request = Join { group: name.into(), ..join("a", &["range"]) };
            assert_eq!(groups.join(request, now), expected);
        }
    }
}
