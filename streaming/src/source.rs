//! Is the topic still the one that was read, and does it still hold what is to be read next?

use std::time::Duration;

use tidewater_catalogs::{Error, ErrorKind, Offsets, Result, TopicLayout};
use tokio::time::Instant;

use crate::checkpoint::{PartitionMove, SourcePositions};

/// Refuses a topic that is not the one of the checkpoint. Ids count only where both sides have them.
pub(crate) fn check_identity(known: &SourcePositions, layout: &TopicLayout) -> Result<()> {
    let replaced = |what: &str, was: &str, is: &str| {
        Err(Error::new(ErrorKind::SourceReplaced, format!("topic \"{}\" was replaced", layout.topic))
            .with_detail(format!("its {what} was {was} and is {is}"))
            .with_hint("Drop the streaming table and create it again to read the new topic from its start."))
    };
    if known.topic != layout.topic {
        return replaced("name", &known.topic, &layout.topic);
    }
    for (what, was, is) in
        [("id", &known.topic_id, &layout.topic_id), ("cluster", &known.cluster_id, &layout.cluster_id)]
    {
        if !was.is_empty() && !is.is_empty() && was != is {
            return replaced(what, was, is);
        }
    }
    Ok(())
}

/// Ranges between `positions` and what the topic still holds; empty where nothing is lost. Fails where a position
/// lies behind the topic's end or its partition is gone: then it is not the topic that was read.
pub(crate) fn gaps(positions: &Offsets, layout: &TopicLayout) -> Result<Vec<PartitionMove>> {
    let mut found = Vec::new();
    for (partition, next) in positions.iter() {
        let Some(range) = layout.partitions.iter().find(|r| r.partition == partition) else {
            return Err(Error::new(ErrorKind::SourceReplaced, format!("topic \"{}\" was replaced", layout.topic))
                .with_detail(format!("partition {partition} was read to offset {next} and is gone")));
        };
        if next > range.high {
            return Err(Error::new(
                ErrorKind::SourceReplaced,
                format!("topic \"{}\" was replaced or truncated", layout.topic),
            )
            .with_detail(format!("partition {partition} was read to offset {next} and ends at offset {}", range.high))
            .with_hint("Drop the streaming table and create it again to read the new topic from its start."));
        }
        if next < range.low {
            found.push(PartitionMove { partition, from: next, to: range.low });
        }
    }
    Ok(found)
}

pub(crate) fn data_loss(topic: &str, gaps: &[PartitionMove]) -> Error {
    let ranges: Vec<String> =
        gaps.iter().map(|g| format!("partition {} offsets [{}, {})", g.partition, g.from, g.to)).collect();
    Error::new(ErrorKind::DataLoss, format!("topic \"{topic}\" no longer holds what was to be read next"))
        .with_detail(ranges.join(", "))
        .with_hint("Say ALTER FLOW … SET (skip_data_loss = true), and resume the flow, to go on behind the gap.")
}

/// Partitions that no lane reads yet, with the offset to begin at. They are younger than the flow's first commit, which
/// knows every partition of its time, so all that they ever held is owed: they begin at 0, not at their low mark. What
/// retention took of them before anyone looked is a gap like any other.
pub(crate) fn new_partitions(known: &Offsets, layout: &TopicLayout) -> Vec<(i32, i64)> {
    layout.partitions.iter().filter(|r| known.get(r.partition).is_none()).map(|r| (r.partition, 0)).collect()
}

/// `known` and the beginnings of partitions that it does not know.
pub(crate) fn with_new_partitions(mut known: Offsets, layout: &TopicLayout) -> Offsets {
    for (partition, begin) in new_partitions(&known, layout) {
        tracing::info!(topic = %layout.topic, partition, "new partition");
        known.set(partition, begin);
    }
    known
}

/// Looks in a row at a topic that is said not to be there.
#[derive(Debug, Default)]
pub(crate) struct Absence {
    first: Option<Instant>,
    pub(crate) looks: u32,
}

impl Absence {
    /// However long ago the first one was: an outage may lie between two looks.
    const MIN_LOOKS: u32 = 5;

    /// Once more. True where it is gone for good.
    pub(crate) fn again(&mut self, gone_after: Duration) -> bool {
        let first = *self.first.get_or_insert_with(Instant::now);
        self.looks = self.looks.saturating_add(1);
        self.looks >= Self::MIN_LOOKS && first.elapsed() >= gone_after
    }
}

#[cfg(test)]
#[path = "tests/source.rs"]
mod tests;
