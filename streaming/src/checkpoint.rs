//! The checkpoint object: all that the next run of a flow needs to know, written before the commit that names it.
//!
//! It is `<flow>/ckpt/<seq>-<commit uuid>.json` in the blob store, which keeps it under `_streaming/` of the warehouse,
//! outside every table's location, where other engines' orphan removal does not look. It never changes; the anchor
//! carries its path and hash.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tidewater_catalogs::{
    Anchor, BlobStore, CommitUuid, Epoch, Error, ErrorKind, Offsets, Result, StagedFiles, TopicLayout,
};
use uuid::Uuid;

use crate::replay::ReplayState;

pub(crate) const VERSION: u32 = 2;
/// Without what is known of replayed letters: a program that does not know them may go on from such a checkpoint, and
/// must not from another, as it would forget them.
const WITHOUT_REPLAYS: u32 = 1;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Checkpoint {
    pub(crate) v: u32,
    pub(crate) flow: Uuid,
    pub(crate) epoch: Epoch,
    pub(crate) seq: u64,
    pub(crate) commit_uuid: CommitUuid,
    pub(crate) prev_snapshot: Option<i64>,
    /// Chains the checkpoints; empty in the first.
    pub(crate) prev_sha256: String,
    pub(crate) plan_fingerprint: String,
    pub(crate) cut_at_ms: i64,
    pub(crate) source: SourcePositions,
    pub(crate) rows: RowCounts,
    /// Dead letters not yet known to be in their table, oldest first, this trigger's included.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) outbox: Vec<OutboxEntry>,
    /// Dead letters that are rows by now, this trigger's included.
    #[serde(default, skip_serializing_if = "ReplayState::is_empty")]
    pub(crate) replay: ReplayState,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct SourcePositions {
    pub(crate) topic: String,
    pub(crate) topic_id: String,
    pub(crate) cluster_id: String,
    pub(crate) partitions: Vec<PartitionMove>,
    /// Offsets inside the moves above that the topic no longer held.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) gaps: Vec<PartitionMove>,
}

/// Offsets `[from, to)` of one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PartitionMove {
    #[serde(rename = "p")]
    pub(crate) partition: i32,
    pub(crate) from: i64,
    pub(crate) to: i64,
}

impl PartitionMove {
    pub(crate) fn len(&self) -> u64 {
        u64::try_from(self.to - self.from).unwrap_or(0)
    }
}

/// What became of the records of one trigger: `records = decoded + dead + skipped`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RowCounts {
    pub(crate) records: u64,
    /// Rows that went into the query. Filters and unnesting change how many come out.
    pub(crate) decoded: u64,
    pub(crate) out: u64,
    pub(crate) dead: u64,
    pub(crate) skipped: u64,
    /// Dead letters of earlier triggers whose rows went into the query now.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) replayed: u64,
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}

impl RowCounts {
    pub(crate) fn add(&mut self, other: &RowCounts) {
        self.records += other.records;
        self.decoded += other.decoded;
        self.out += other.out;
        self.dead += other.dead;
        self.skipped += other.skipped;
        self.replayed += other.replayed;
    }
}

/// Dead letters of one trigger: staged, pinned by the trigger's checkpoint, and committed to their table afterwards.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct OutboxEntry {
    pub(crate) seq: u64,
    pub(crate) files: StagedFiles,
}

impl SourcePositions {
    pub(crate) fn of(layout: &TopicLayout) -> Self {
        Self {
            topic: layout.topic.clone(),
            topic_id: layout.topic_id.clone(),
            cluster_id: layout.cluster_id.clone(),
            partitions: Vec::new(),
            gaps: Vec::new(),
        }
    }

    /// The next offsets to read.
    pub(crate) fn next(&self) -> Offsets {
        self.partitions.iter().map(|p| (p.partition, p.to)).collect()
    }
}

/// The version that a checkpoint is written in.
pub(crate) fn version(replay: &ReplayState) -> u32 {
    if replay.is_empty() { WITHOUT_REPLAYS } else { VERSION }
}

impl Checkpoint {
    pub(crate) fn path(&self) -> String {
        format!("{}{:020}-{}.json", prefix(self.flow), self.seq, self.commit_uuid)
    }

    /// The arithmetic that must hold whatever the query does.
    ///
    /// `before` are the positions of the checkpoint that this one follows; `staged_rows` and `dead_rows` what the
    /// closed files say they hold.
    pub(crate) fn verify(&self, before: Option<&Offsets>, staged_rows: u64, dead_rows: u64) -> Result<()> {
        let wrong = |what: &str| {
            Err(Error::internal(format!("the books of a trigger do not balance: {what}"))
                .with_context("seq", self.seq)
                .with_detail(format!("{:?}", self.rows)))
        };
        if self.rows.records != self.rows.decoded + self.rows.dead + self.rows.skipped {
            return wrong("records are not decoded + dead + skipped");
        }
        if self.rows.out != staged_rows {
            return wrong("the files do not hold the rows that came out");
        }
        if self.rows.dead != dead_rows {
            return wrong("the files do not hold the dead letters that came out");
        }
        let moved: u64 = self.source.partitions.iter().map(PartitionMove::len).sum();
        let lost: u64 = self.source.gaps.iter().map(PartitionMove::len).sum();
        // Control records and compaction take up offsets without being records.
        if self.rows.records + lost > moved {
            return wrong("more records than offsets");
        }
        if self.source.partitions.iter().any(|p| p.to < p.from) {
            return wrong("a position went backwards");
        }
        if let Some(before) = before {
            let froms: Offsets = self.source.partitions.iter().map(|p| (p.partition, p.from)).collect();
            if before.iter().any(|(p, next)| froms.get(p) != Some(next)) {
                return wrong("it does not begin where the one before ended");
            }
        }
        Ok(())
    }

    pub(crate) fn encode(&self) -> Result<(Bytes, String)> {
        let bytes = serde_json::to_vec(self)
            .map_err(|e| Error::internal("a checkpoint could not be written as JSON").with_source(e))?;
        let hash = sha256_hex(&bytes);
        Ok((Bytes::from(bytes), hash))
    }

    /// Reads what `anchor` names. Refuses anything that is not exactly it.
    pub(crate) fn decode(bytes: &[u8], flow: Uuid, anchor: &Anchor) -> Result<Self> {
        let corrupt = |what: &str| {
            Error::new(ErrorKind::DataCorrupt, format!("the checkpoint of a flow {what}"))
                .with_context("path", &anchor.checkpoint)
                .with_context("seq", anchor.seq)
        };
        if sha256_hex(bytes) != anchor.checkpoint_sha256 {
            return Err(corrupt("is not the one that was written"));
        }
        let head: Head = serde_json::from_slice(bytes).map_err(|e| corrupt("cannot be read").with_source(e))?;
        if !(WITHOUT_REPLAYS..=VERSION).contains(&head.v) {
            return Err(corrupt("has a version that this program does not know").with_context("version", head.v));
        }
        let read: Self = serde_json::from_slice(bytes).map_err(|e| corrupt("cannot be read").with_source(e))?;
        if read.flow != flow || read.seq != anchor.seq || read.commit_uuid != anchor.commit_uuid {
            return Err(corrupt("belongs to another commit"));
        }
        Ok(read)
    }
}

#[derive(Deserialize)]
struct Head {
    v: u32,
}

pub(crate) fn prefix(flow: Uuid) -> String {
    format!("{flow}/ckpt/")
}

/// Number of the trigger in a checkpoint's path, whatever stands before the file name.
pub(crate) fn seq_of(path: &str) -> Option<u64> {
    let name = path.rsplit('/').next()?;
    name.split_once('-')?.0.parse().ok()
}

/// Durable when it comes back. A path that is taken by the very same bytes is our own earlier attempt.
pub(crate) async fn put(blobs: &dyn BlobStore, path: &str, bytes: &Bytes) -> Result<()> {
    match blobs.put_new(path, bytes.clone()).await {
        Err(e) if e.kind() == ErrorKind::AlreadyExists => {
            if blobs.get(path).await? == *bytes {
                Ok(())
            } else {
                Err(Error::internal("a checkpoint of another content has this name").with_context("path", path))
            }
        }
        other => other,
    }
}

/// Removes checkpoints that lie at least `kept` commits behind `anchor`. Never the one that it names, and nothing
/// newer, as another writer may be about to name it. Failures are left for the next time.
pub(crate) async fn remove_superseded(blobs: &dyn BlobStore, flow: Uuid, anchor: &Anchor, kept: u64) -> Result<u64> {
    let mut removed = 0;
    for path in blobs.list(&prefix(flow)).await? {
        let old = seq_of(&path).is_some_and(|seq| seq.saturating_add(kept) < anchor.seq);
        if old && path != anchor.checkpoint {
            blobs.delete(&path).await?;
            removed += 1;
        }
    }
    Ok(removed)
}

pub(crate) fn sha256_hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    Sha256::digest(bytes).iter().fold(String::with_capacity(64), |mut text, byte| {
        // Writing to a String does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
#[path = "tests/checkpoint.rs"]
mod tests;
