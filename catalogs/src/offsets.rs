use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Per partition of one topic, the next offset to read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Offsets(pub BTreeMap<i32, i64>);

impl Offsets {
    pub fn get(&self, partition: i32) -> Option<i64> {
        self.0.get(&partition).copied()
    }
    pub fn set(&mut self, partition: i32, next: i64) {
        self.0.insert(partition, next);
    }
    pub fn iter(&self) -> impl Iterator<Item = (i32, i64)> + '_ {
        self.0.iter().map(|(p, o)| (*p, *o))
    }
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
    /// True where no partition of `self` lies behind the same partition of `earlier`, and none is missing.
    pub fn covers(&self, earlier: &Offsets) -> bool {
        earlier.iter().all(|(p, o)| self.get(p).is_some_and(|mine| mine >= o))
    }
}

impl FromIterator<(i32, i64)> for Offsets {
    fn from_iter<I: IntoIterator<Item = (i32, i64)>>(iter: I) -> Self {
        Self(iter.into_iter().collect())
    }
}

/// What a partition holds now: offsets `[low, high)`. With `read_committed`, `high` is the last stable offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionRange {
    pub partition: i32,
    pub low: i64,
    pub high: i64,
}

/// A topic as it stands now. `topic_id` and `cluster_id` tell a re-created topic from the one that was read before;
/// either is empty where the broker does not say it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicLayout {
    pub topic: String,
    pub topic_id: String,
    pub cluster_id: String,
    pub partitions: Vec<PartitionRange>,
}

impl TopicLayout {
    pub fn lows(&self) -> Offsets {
        self.partitions.iter().map(|p| (p.partition, p.low)).collect()
    }
    pub fn highs(&self) -> Offsets {
        self.partitions.iter().map(|p| (p.partition, p.high)).collect()
    }
}
