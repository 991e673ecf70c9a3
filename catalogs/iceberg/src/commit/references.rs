//! Branches and tags.

use std::collections::HashMap;

use iceberg::spec::{MAIN_BRANCH, SnapshotReference, SnapshotRetention};
use serde::Deserialize;
use tidewater_catalogs::{Error, ErrorKind, Result};

use super::stage::Base;

/// The crate keeps the references to itself, and they are part of the JSON.
pub(crate) fn references(base: &Base) -> Result<HashMap<String, SnapshotReference>> {
    #[derive(Deserialize)]
    struct Only {
        #[serde(default)]
        refs: HashMap<String, SnapshotReference>,
    }
    let unreadable = |e: serde_json::Error| {
        Error::new(ErrorKind::DataCorrupt, "cannot read the references of the table").with_source(e)
    };
    let metadata = base.json.as_ref().map_or(base.state.metadata.as_ref(), |json| json.frame());
    let json = serde_json::to_vec(metadata).map_err(unreadable)?;
    let mut refs = serde_json::from_slice::<Only>(&json).map_err(unreadable)?.refs;
    if let (Some(id), false) = (metadata.current_snapshot_id(), refs.contains_key(MAIN_BRANCH)) {
        refs.insert(MAIN_BRANCH.to_string(), SnapshotReference::new(id, SnapshotRetention::branch(None, None, None)));
    }
    Ok(refs)
}
