//! Where a flow stands, kept twice in the table: the tag `tidewater.<flow>` and the property `tidewater.<flow>.head`.

use std::collections::{BTreeMap, HashSet};

use iceberg::spec::{Snapshot, TableMetadata};
use serde::{Deserialize, Serialize};
use tidewater_catalogs::{Anchor, AnchorState, CommitRequest, Error, Result};

pub(crate) const FLOW: &str = "tidewater.flow";
pub(crate) const EPOCH: &str = "tidewater.epoch";
pub(crate) const SEQ: &str = "tidewater.seq";
pub(crate) const COMMIT_UUID: &str = "tidewater.commit-uuid";
const PREVIOUS_SNAPSHOT: &str = "tidewater.prev-snapshot-id";
const CHECKPOINT: &str = "tidewater.ckpt";
const CHECKPOINT_SHA256: &str = "tidewater.ckpt-sha256";

const PREFIX: &str = "tidewater.";
const HEAD: &str = ".head";
const DESCENT: &str = ".descent";

pub(crate) fn tag(flow: &str) -> String {
    format!("{PREFIX}{flow}")
}

pub(crate) fn head_property(flow: &str) -> String {
    format!("{PREFIX}{flow}{HEAD}")
}

pub(crate) fn descent_property(flow: &str) -> String {
    format!("{PREFIX}{flow}{DESCENT}")
}

/// Flows that have written here, by their properties.
pub(crate) fn flows(metadata: &TableMetadata) -> impl Iterator<Item = &str> {
    metadata.properties().keys().filter_map(|key| key.strip_prefix(PREFIX)?.strip_suffix(HEAD))
}

/// Snapshots between tag and main may expire (another flow writes on while this one is paused). Before they go,
/// maintenance notes that `descendant` was seen to descend from `snapshot_id`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Descent {
    pub(crate) snapshot_id: i64,
    pub(crate) descendant: i64,
}

pub(crate) fn state(metadata: &TableMetadata, flow: &str) -> AnchorState {
    let tagged = metadata.snapshot_for_ref(&tag(flow));
    let property = metadata.properties().get(&head_property(flow));
    let (snapshot, text) = match (tagged, property) {
        (None, None) => return AnchorState::Absent,
        (Some(_), None) => return AnchorState::Broken(format!("property \"{}\" is gone", head_property(flow))),
        (None, Some(_)) => return AnchorState::Broken(format!("tag \"{}\" is gone", tag(flow))),
        (Some(snapshot), Some(text)) => (snapshot, text),
    };
    let anchor: Anchor = match serde_json::from_str(text) {
        Ok(anchor) => anchor,
        Err(e) => return AnchorState::Broken(format!("property \"{}\" cannot be read: {e}", head_property(flow))),
    };
    if let Err(why) = agree(snapshot, flow, &anchor) {
        return AnchorState::Broken(why);
    }
    match reaches(metadata, flow, snapshot.snapshot_id()) {
        Ok(()) => AnchorState::Valid(anchor),
        Err(why) => AnchorState::Broken(why),
    }
}

/// Property, tag and the summary of the tagged snapshot say the same.
fn agree(snapshot: &Snapshot, flow: &str, anchor: &Anchor) -> Result<(), String> {
    if snapshot.snapshot_id() != anchor.snapshot_id {
        return Err(format!(
            "tag names snapshot {}, property names snapshot {}",
            snapshot.snapshot_id(),
            anchor.snapshot_id
        ));
    }
    let summary = &snapshot.summary().additional_properties;
    for (key, expected) in [
        (FLOW, flow.to_string()),
        (SEQ, anchor.seq.to_string()),
        (EPOCH, anchor.epoch.to_string()),
        (COMMIT_UUID, anchor.commit_uuid.to_string()),
        (CHECKPOINT, anchor.checkpoint.clone()),
        (CHECKPOINT_SHA256, anchor.checkpoint_sha256.clone()),
    ] {
        let found = summary.get(key).map_or("", String::as_str);
        if found != expected {
            return Err(format!(
                "summary of snapshot {} has {key} \"{found}\", property has \"{expected}\"",
                snapshot.snapshot_id()
            ));
        }
    }
    Ok(())
}

/// Whether main descends from `target`; otherwise says why not.
pub(crate) fn reaches(metadata: &TableMetadata, flow: &str, target: i64) -> Result<(), String> {
    let noted = metadata
        .properties()
        .get(&descent_property(flow))
        .and_then(|text| serde_json::from_str::<Descent>(text).ok())
        .filter(|descent| descent.snapshot_id == target)
        .map(|descent| descent.descendant);
    let mut seen = HashSet::new();
    let mut next = metadata.current_snapshot_id();
    while let Some(id) = next {
        if id == target || Some(id) == noted {
            return Ok(());
        }
        if !seen.insert(id) {
            return Err(format!("snapshot {id} is its own ancestor"));
        }
        match metadata.snapshot_by_id(id) {
            Some(snapshot) => next = snapshot.parent_snapshot_id(),
            None => {
                return Err(format!(
                    "snapshot {id} was expired by another engine, so nobody can tell whether main descends from \
                     snapshot {target}"
                ));
            }
        }
    }
    Err(format!("main does not descend from snapshot {target}; the table was rolled back"))
}

/// Keys of the summary of a flow's commit.
pub(crate) fn summary(request: &CommitRequest) -> BTreeMap<String, String> {
    let mut all = request.summary.clone();
    let mut set = |key: &str, value: String| all.insert(key.to_string(), value);
    set(FLOW, request.flow.clone());
    set(EPOCH, request.epoch.to_string());
    set(SEQ, request.seq.to_string());
    set(COMMIT_UUID, request.commit_uuid.to_string());
    if let Some(previous) = &request.expected {
        set(PREVIOUS_SNAPSHOT, previous.snapshot_id.to_string());
    }
    if !request.checkpoint.is_empty() {
        set(CHECKPOINT, request.checkpoint.clone());
        set(CHECKPOINT_SHA256, request.checkpoint_sha256.clone());
    }
    all
}

pub(crate) fn moved(request: &CommitRequest, snapshot_id: i64) -> Anchor {
    Anchor {
        snapshot_id,
        seq: request.seq,
        epoch: request.epoch,
        commit_uuid: request.commit_uuid,
        checkpoint: request.checkpoint.clone(),
        checkpoint_sha256: if request.checkpoint.is_empty() {
            String::new()
        } else {
            request.checkpoint_sha256.clone()
        },
    }
}

pub(crate) fn to_property(anchor: &Anchor) -> Result<String> {
    serde_json::to_string(anchor).map_err(|e| Error::internal("cannot write an anchor").with_source(e))
}
