//! Where a flow goes on: the anchor in its table, the checkpoint that the anchor names, and the topic as it is now.

use std::collections::BTreeMap;

use bytes::Bytes;
use tidewater_catalogs::{
    Anchor, AnchorState, CommitRequest, Epoch, Error, ErrorKind, Offsets, Result, StagedFiles, TopicLayout,
};
use tokio::time::timeout;

use crate::checkpoint::{self, Checkpoint, OutboxEntry, PartitionMove, RowCounts, SourcePositions};
use crate::committer::Committer;
use crate::env::Env;
use crate::failure::{Failure, FlowResult};
use crate::replay::ReplayState;
use crate::source::{self, Absence};
use crate::spec::FlowSpec;
use crate::status::StatusCell;

pub(crate) const LABEL: &str = "the target table";
/// How often a topic that looks replaced is asked again: marks lag behind for a moment when a leader changes.
const SECOND_LOOKS: u32 = 3;

/// A flow's standing, as its last visible commit left it.
#[derive(Debug)]
pub(crate) struct Standing {
    pub(crate) anchor: Anchor,
    /// The epoch that this run's commits carry. The first of them fences whoever else still writes.
    pub(crate) epoch: Epoch,
    pub(crate) source: SourcePositions,
    pub(crate) outbox: Vec<OutboxEntry>,
    pub(crate) replay: ReplayState,
}

/// Reads the anchor and its checkpoint. `None` where this flow never committed.
pub(crate) async fn standing(
    spec: &FlowSpec,
    env: &Env,
    committer: &mut Committer,
    status: &StatusCell,
    after_fence: bool,
) -> FlowResult<Option<Standing>> {
    let mut found = committer.load().await?;
    if after_fence && let AnchorState::Valid(before) = &found {
        // Another server writes, or wrote. While it lives, taking over would only fence it in turn.
        // A pause between its commits must not be taken for its end.
        tokio::time::sleep(env.settings.fence_watch.max(spec.settings.commit_interval.saturating_mul(2))).await;
        let before = before.clone();
        found = committer.load().await?;
        match &found {
            AnchorState::Valid(now) if *now != before => return Err(Failure::fenced(LABEL, now)),
            _ => {}
        }
    }
    match found {
        AnchorState::Broken(why) => Err(Failure::anchor_lost(LABEL, why)),
        AnchorState::Valid(mut anchor) => {
            let read = loop {
                let gone = match read_checkpoint(spec, env, status, &anchor).await {
                    Err(failure) if failure.error.kind() == ErrorKind::DataCorrupt => failure,
                    other => break other?,
                };
                // Another writer may have gone on meanwhile, and have removed it as one that nobody needs.
                match committer.load().await? {
                    AnchorState::Valid(now) if now.seq > anchor.seq => anchor = now,
                    _ => return Err(gone),
                }
            };
            Ok(Some(Standing {
                epoch: anchor.epoch + 1,
                source: read.source,
                outbox: read.outbox,
                replay: read.replay,
                anchor,
            }))
        }
        AnchorState::Absent => {
            // Checkpoint 1 is written only once commit 0 is visible: then there was an anchor here.
            let prefix = checkpoint::prefix(spec.id);
            let paths = patiently(env, status, || spec.blobs.list(&prefix)).await?;
            if paths.iter().filter_map(|p| checkpoint::seq_of(p)).any(|seq| seq > 0) {
                return Err(Failure::anchor_lost(LABEL, "the flow has checkpoints, and the table no tag or property"));
            }
            Ok(None)
        }
    }
}

/// The first commit: no rows, number 0. It pins where the flow begins, so that "latest" is asked once only.
pub(crate) async fn begin(
    spec: &FlowSpec,
    env: &Env,
    committer: &mut Committer,
    status: &StatusCell,
) -> FlowResult<Standing> {
    let mut absence = Absence::default();
    let (layout, start) = loop {
        let asked = match layout(spec, env, status).await {
            Ok(layout) => {
                let start = patiently(env, status, || spec.source.start_offsets(&spec.start)).await;
                start.map(|start| (layout, start))
            }
            Err(e) => Err(e),
        };
        match asked {
            Ok(found) => break found,
            // It was there when the table was made. A broker that has just started says so of every topic.
            Err(e) if e.kind() == ErrorKind::NotFound && !absence.again(env.settings.topic_gone_after) => {
                status.trouble(&e, env.now_ms());
                let s = &env.settings;
                tokio::time::sleep(env.back_off(absence.looks, s.retry_min, s.retry_max)).await;
            }
            Err(e) => return Err(e.into()),
        }
    };
    if absence.looks > 0 {
        status.trouble_over();
    }
    let mut source = SourcePositions::of(&layout);
    source.partitions = start.iter().map(|(partition, at)| PartitionMove { partition, from: at, to: at }).collect();
    let commit_uuid = env.uuid();
    let first = Checkpoint {
        v: checkpoint::version(&ReplayState::default()),
        flow: spec.id,
        epoch: 1,
        seq: 0,
        commit_uuid,
        prev_snapshot: None,
        prev_sha256: String::new(),
        plan_fingerprint: spec.query.fingerprint().to_owned(),
        cut_at_ms: env.now_ms(),
        source,
        rows: RowCounts::default(),
        outbox: Vec::new(),
        replay: ReplayState::default(),
    };
    let request = write_checkpoint(spec, env, status, committer.flow(), &first, None, StagedFiles::default()).await?;
    env.failpoints.reach("commit.before").await;
    let anchor = committer.commit(&request).await?;
    env.failpoints.reach("commit.sent").await;
    Ok(Standing {
        epoch: anchor.epoch,
        anchor,
        source: first.source,
        outbox: Vec::new(),
        replay: ReplayState::default(),
    })
}

/// Stores the checkpoint and words the commit that names it.
pub(crate) async fn write_checkpoint(
    spec: &FlowSpec,
    env: &Env,
    status: &StatusCell,
    flow: &str,
    checkpoint: &Checkpoint,
    expected: Option<Anchor>,
    files: StagedFiles,
) -> FlowResult<CommitRequest> {
    let (bytes, sha256) = checkpoint.encode()?;
    let path = checkpoint.path();
    env.failpoints.reach("checkpoint.before").await;
    patiently(env, status, || checkpoint::put(spec.blobs.as_ref(), &path, &bytes)).await?;
    env.failpoints.reach("checkpoint.after").await;
    Ok(CommitRequest {
        flow: flow.to_owned(),
        expected,
        seq: checkpoint.seq,
        epoch: checkpoint.epoch,
        commit_uuid: checkpoint.commit_uuid,
        checkpoint: path,
        checkpoint_sha256: sha256,
        files,
        summary: summary(checkpoint),
    })
}

/// For people who look at snapshots; recovery reads the checkpoint.
fn summary(checkpoint: &Checkpoint) -> BTreeMap<String, String> {
    const MAX_OFFSETS_BYTES: usize = 2048;
    let mut keys = BTreeMap::from([("tidewater.topic".to_owned(), checkpoint.source.topic.clone())]);
    if let Ok(text) = serde_json::to_string(&checkpoint.source.next())
        && text.len() <= MAX_OFFSETS_BYTES
    {
        keys.insert("tidewater.offsets".to_owned(), text);
    }
    keys
}

async fn read_checkpoint(spec: &FlowSpec, env: &Env, status: &StatusCell, anchor: &Anchor) -> FlowResult<Checkpoint> {
    let read = patiently(env, status, || spec.blobs.get(&anchor.checkpoint)).await;
    let bytes: Bytes = match read {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == ErrorKind::NotFound => {
            return Err(Failure::checkpoint(
                Error::new(ErrorKind::DataCorrupt, "the checkpoint of a flow is gone")
                    .with_context("path", &anchor.checkpoint)
                    .with_source(e),
            ));
        }
        Err(e) => return Err(e.into()),
    };
    Checkpoint::decode(&bytes, spec.id, anchor).map_err(Failure::checkpoint)
}

pub(crate) async fn layout(spec: &FlowSpec, env: &Env, status: &StatusCell) -> Result<TopicLayout> {
    patiently(env, status, || spec.source.layout()).await
}

/// The topic as it is now, where its partitions are to be read from, and what of that was lost to retention.
#[derive(Debug)]
pub(crate) struct Outlook {
    pub(crate) layout: TopicLayout,
    /// Those of the checkpoint, and the beginnings of partitions that came since.
    pub(crate) positions: Offsets,
    pub(crate) gaps: Vec<PartitionMove>,
}

/// The topic against the positions of the checkpoint: refuses a replaced topic, and lost offsets unless they may be
/// skipped. A topic that is not there is looked for again for a while.
pub(crate) async fn check_source(
    spec: &FlowSpec,
    env: &Env,
    status: &StatusCell,
    known: &SourcePositions,
) -> FlowResult<Outlook> {
    let s = &env.settings;
    let mut absence = Absence::default();
    let mut looks = 0;
    loop {
        let layout = match layout(spec, env, status).await {
            Ok(layout) => layout,
            Err(e) if e.kind() == ErrorKind::NotFound => {
                if absence.again(s.topic_gone_after) {
                    return Err(Failure::topic_gone(e));
                }
                status.trouble(&e, env.now_ms());
                tokio::time::sleep(env.back_off(absence.looks, s.retry_min, s.retry_max)).await;
                continue;
            }
            Err(e) => return Err(e.into()),
        };
        if absence.looks > 0 {
            absence = Absence::default();
            status.trouble_over();
        }
        source::check_identity(known, &layout)?;
        let positions = source::with_new_partitions(known.next(), &layout);
        match source::gaps(&positions, &layout) {
            Ok(gaps) if gaps.is_empty() || spec.settings.skip_data_loss => {
                return Ok(Outlook { layout, positions, gaps });
            }
            Ok(gaps) => return Err(source::data_loss(&layout.topic, &gaps).into()),
            Err(e) => {
                looks += 1;
                if looks > SECOND_LOOKS {
                    return Err(e.into());
                }
                tokio::time::sleep(env.back_off(looks, s.retry_min, s.retry_max)).await;
            }
        }
    }
}

/// Again and again while the other side does not answer, with growing pauses; other errors come back at once.
pub(crate) async fn patiently<T, F>(env: &Env, status: &StatusCell, mut call: impl FnMut() -> F) -> Result<T>
where
    F: Future<Output = Result<T>>,
{
    let s = &env.settings;
    let mut failures = 0;
    loop {
        let e = match timeout(s.load_timeout, call()).await {
            Ok(Ok(value)) => {
                if failures > 0 {
                    status.trouble_over();
                }
                return Ok(value);
            }
            Ok(Err(e)) if e.is_retryable() => e,
            Ok(Err(e)) => return Err(e),
            Err(_) => Error::unavailable("no answer in time"),
        };
        failures += 1;
        status.trouble(&e, env.now_ms());
        tokio::time::sleep(env.back_off(failures, s.retry_min, s.retry_max)).await;
    }
}
