//! Which dead letters of a flow have become rows, and which requests to replay them have come to an end.
//!
//! The rows of replayed letters are part of an ordinary trigger, and the checkpoint of that trigger says whose rows they
//! are: both become visible in one commit, or neither does. So a letter is in the table at most once, however often it
//! is asked for and wherever the process dies; and once it is, every later checkpoint says so.
//!
//! A flow's letters lie scattered over the offsets. Two that are next to each other *among the letters* are kept as one
//! range, whatever lies between them in the topic: the flow read past those offsets, its letters reach their table in
//! the order of its triggers, and so no letter can come to stand between two that are there.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::BooleanArray;
use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tidewater_catalogs::Result;
use uuid::Uuid;

/// A request to replay dead letters, as a flow's definition keeps it.
#[derive(Debug, Clone)]
pub struct Replay {
    pub id: Uuid,
    pub letters: Arc<dyn LetterSource>,
}

/// The dead letters of one flow.
#[async_trait]
pub trait LetterSource: Send + Sync + std::fmt::Debug {
    /// Reads one state of the table from its beginning. Errors that are not retryable end the request.
    async fn open(&self) -> Result<Box<dyn LetterReader>>;
}

#[async_trait]
pub trait LetterReader: Send {
    /// The next letters of the flow, ascending by partition and offset; all of them, asked for or not. None at the end.
    /// Cancel-safe.
    async fn next(&mut self) -> Result<Option<Letters>>;
}

/// Some dead letters. They are decoded and transformed together, so a reader keeps batches small.
#[derive(Debug, Clone)]
pub struct Letters {
    /// Columns of [`tidewater_catalogs::dead_letter_schema`]. The value may be left out of those that are not wanted.
    pub rows: RecordBatch,
    /// Whether the request asks for them. Null is no.
    pub wanted: BooleanArray,
}

/// How far a request has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplayProgress {
    pub id: Uuid,
    /// Letters that were read, transformed and committed.
    pub replayed: u64,
    /// Rows that came of them.
    pub rows: u64,
    /// Letters that still cannot be read. Known at the end.
    #[serde(default)]
    pub malformed: u64,
    /// None while there is more to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<ReplayEnd>,
}

/// How a request ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReplayEnd {
    Complete,
    /// The letters lie so scattered that remembering them would take more ranges than a flow may keep.
    TooScattered,
    /// With the reason. What was replayed before stays.
    Failed(String),
}

impl ReplayProgress {
    pub(crate) fn new(id: Uuid) -> Self {
        Self { id, replayed: 0, rows: 0, malformed: 0, ended: None }
    }
}

/// What a checkpoint carries.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ReplayState {
    #[serde(default, skip_serializing_if = "ReplayedSet::is_empty")]
    pub(crate) letters: ReplayedSet,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) requests: Vec<ReplayProgress>,
}

impl ReplayState {
    pub(crate) fn is_empty(&self) -> bool {
        self.letters.is_empty() && self.requests.is_empty()
    }

    pub(crate) fn request(&self, id: Uuid) -> Option<&ReplayProgress> {
        self.requests.iter().find(|r| r.id == id)
    }

    /// Requests that the definition no longer names have been answered. That they are forgotten does no harm even where
    /// someone still has an older definition: their letters are remembered.
    pub(crate) fn forget_answered(&mut self, asked: &[Replay]) {
        self.requests.retain(|r| asked.iter().any(|a| a.id == r.id));
    }

    pub(crate) fn apply(&mut self, delta: &ReplayDelta) {
        self.letters.extend(&delta.letters);
        for progress in &delta.requests {
            match self.requests.iter_mut().find(|r| r.id == progress.id) {
                Some(known) => known.clone_from(progress),
                None => self.requests.push(progress.clone()),
            }
        }
    }
}

/// What one trigger adds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ReplayDelta {
    pub(crate) letters: ReplayedSet,
    /// As they stand after it.
    pub(crate) requests: Vec<ReplayProgress>,
    /// Letters whose rows are in the trigger.
    pub(crate) replayed: u64,
}

/// Offsets by partition, as ranges `[from, to)`: sorted, none empty, and none touching the next.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct ReplayedSet(BTreeMap<i32, Vec<(i64, i64)>>);

impl ReplayedSet {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many ranges there are.
    pub(crate) fn ranges(&self) -> usize {
        self.0.values().map(Vec::len).sum()
    }

    pub(crate) fn contains(&self, partition: i32, offset: i64) -> bool {
        let Some(ranges) = self.0.get(&partition) else { return false };
        let behind = ranges.partition_point(|(from, _)| *from <= offset);
        behind > 0 && offset < ranges[behind - 1].1
    }

    pub(crate) fn insert(&mut self, partition: i32, from: i64, to: i64) {
        if from >= to {
            return;
        }
        let ranges = self.0.entry(partition).or_default();
        // Those that overlap the new one or touch it become one with it.
        let first = ranges.partition_point(|(_, end)| *end < from);
        let last = ranges.partition_point(|(begin, _)| *begin <= to);
        let merged = match ranges.get(first..last) {
            Some([head, .., tail]) => (from.min(head.0), to.max(tail.1)),
            Some([one]) => (from.min(one.0), to.max(one.1)),
            _ => (from, to),
        };
        ranges.splice(first..last, [merged]);
    }

    pub(crate) fn extend(&mut self, other: &ReplayedSet) {
        for (partition, ranges) in &other.0 {
            for (from, to) in ranges {
                self.insert(*partition, *from, *to);
            }
        }
    }
}

#[cfg(test)]
#[path = "tests/replayed_set.rs"]
mod tests;
