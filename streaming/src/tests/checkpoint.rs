#![allow(clippy::unwrap_used, clippy::expect_used)]

use bytes::Bytes;
use tidewater_catalogs::{Anchor, BlobStore, ErrorKind, Offsets, StagedFile, StagedFiles};
use uuid::Uuid;

use super::*;
use crate::tests::fakes::MemBlobs;

fn replayed() -> ReplayState {
    let mut state = ReplayState::default();
    state.letters.insert(1, 2, 9);
    state
}

fn sample() -> Checkpoint {
    Checkpoint {
        v: VERSION,
        flow: Uuid::from_u128(1),
        epoch: 3,
        seq: 41,
        commit_uuid: Uuid::from_u128(2),
        prev_snapshot: Some(17),
        prev_sha256: "abc".into(),
        plan_fingerprint: "plan".into(),
        cut_at_ms: 1,
        source: SourcePositions {
            topic: "clicks".into(),
            topic_id: "t".into(),
            cluster_id: "c".into(),
            partitions: vec![
                PartitionMove { partition: 0, from: 10, to: 20 },
                PartitionMove { partition: 1, from: 5, to: 5 },
            ],
            gaps: vec![PartitionMove { partition: 0, from: 10, to: 12 }],
        },
        rows: RowCounts { records: 8, decoded: 6, out: 4, dead: 1, skipped: 1, replayed: 0 },
        outbox: vec![OutboxEntry {
            seq: 41,
            files: StagedFiles {
                files: vec![StagedFile {
                    path: "f".into(),
                    rows: 1,
                    size_bytes: 9,
                    metadata: serde_json::json!({"k": 1}),
                }],
            },
        }],
        replay: replayed(),
    }
}

fn anchor_of(c: &Checkpoint, sha256: String) -> Anchor {
    Anchor {
        snapshot_id: 18,
        seq: c.seq,
        epoch: c.epoch,
        commit_uuid: c.commit_uuid,
        checkpoint: c.path(),
        checkpoint_sha256: sha256,
    }
}

#[test]
fn comes_back_as_it_was_written() {
    let written = sample();
    let (bytes, sha256) = written.encode().unwrap();
    let anchor = anchor_of(&written, sha256);
    assert_eq!(Checkpoint::decode(&bytes, written.flow, &anchor).unwrap(), written);
    assert_eq!(seq_of(&written.path()), Some(41));
}

#[test]
fn anything_else_is_refused() {
    let written = sample();
    let (bytes, sha256) = written.encode().unwrap();
    let anchor = anchor_of(&written, sha256);
    let refused = |bytes: &[u8], flow, anchor: &Anchor| {
        Checkpoint::decode(bytes, flow, anchor).expect_err("must be refused").kind()
    };

    let mut flipped = bytes.to_vec();
    flipped[40] ^= 1;
    assert_eq!(refused(&flipped, written.flow, &anchor), ErrorKind::DataCorrupt);
    assert_eq!(refused(&bytes[..bytes.len() - 1], written.flow, &anchor), ErrorKind::DataCorrupt);
    assert_eq!(refused(&bytes, Uuid::from_u128(9), &anchor), ErrorKind::DataCorrupt);
    assert_eq!(refused(&bytes, written.flow, &Anchor { seq: 42, ..anchor.clone() }), ErrorKind::DataCorrupt);

    // A program that knows nothing of replayed letters must not go on from this one, and may from one without any.
    assert_eq!((version(&replayed()), version(&ReplayState::default())), (2, 1));

    let newer = Checkpoint { v: VERSION + 1, ..sample() };
    let (bytes, sha256) = newer.encode().unwrap();
    assert_eq!(refused(&bytes, newer.flow, &anchor_of(&newer, sha256)), ErrorKind::DataCorrupt);
}

#[test]
fn the_books_must_balance() {
    let before: Offsets = [(0, 10), (1, 5)].into_iter().collect();
    sample().verify(Some(&before), 4, 1).unwrap();

    assert!(sample().verify(Some(&before), 5, 1).is_err(), "a file holds a row too many");
    assert!(sample().verify(Some(&before), 4, 0).is_err(), "a dead letter is missing");
    let mut c = sample();
    c.rows.skipped = 0;
    assert!(c.verify(Some(&before), 4, 1).is_err(), "a record vanished");
    let mut c = sample();
    c.source.partitions[0].to = 19;
    assert!(c.verify(Some(&before), 4, 1).is_err(), "more records than offsets");
    for wrong in [[(0, 9), (1, 5)], [(0, 11), (1, 5)], [(0, 10), (2, 5)]] {
        let before: Offsets = wrong.into_iter().collect();
        assert!(sample().verify(Some(&before), 4, 1).is_err(), "{before:?} is not where it begins");
    }
}

#[tokio::test]
async fn writing_twice_is_writing_once_and_never_overwriting() {
    let blobs = MemBlobs::default();
    put(&blobs, "a", &Bytes::from_static(b"x")).await.unwrap();
    put(&blobs, "a", &Bytes::from_static(b"x")).await.unwrap();
    assert!(put(&blobs, "a", &Bytes::from_static(b"y")).await.is_err());
    assert_eq!(blobs.get("a").await.unwrap(), Bytes::from_static(b"x"));
}

#[tokio::test]
async fn only_long_superseded_checkpoints_are_removed() {
    let blobs = MemBlobs::default();
    let mut c = sample();
    let mut paths = Vec::new();
    for seq in 0..=20 {
        c.seq = seq;
        c.commit_uuid = Uuid::from_u128(u128::from(seq) + 100);
        paths.push(c.path());
        blobs.put_new(&c.path(), Bytes::from_static(b"x")).await.unwrap();
    }
    // Two writers went for 15; the anchor names the first, and commits 16 to 20 are the other's attempts.
    let anchor = Anchor { seq: 15, checkpoint: paths[15].clone(), ..anchor_of(&c, String::new()) };
    assert_eq!(remove_superseded(&blobs, c.flow, &anchor, 5).await.unwrap(), 10);
    assert_eq!(blobs.list(&prefix(c.flow)).await.unwrap(), paths[10..].to_vec());
}
