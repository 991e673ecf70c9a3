//! Table metadata as JSON, without writing anew what a commit leaves as it was.
//!
//! The metadata file names every snapshot, and each commit writes one. Snapshots never change, so their JSON is kept
//! from commit to commit and copied; only the rest, which is small, is serialised.

use std::collections::HashSet;

use bytes::Bytes;
use iceberg::spec::{TableMetadata, TableMetadataBuilder};
use serde_json::{Map, Value};
use tidewater_catalogs::{Error, Result};

use crate::error;

const SNAPSHOTS: &str = "snapshots";
const LOG: &str = "snapshot-log";

/// The JSON of one state of a table, in parts.
#[derive(Debug)]
pub(crate) struct MetadataJson {
    /// The table without its snapshots, but for those that references name and the few of `unnamed`.
    frame: TableMetadata,
    /// Left by references since; they leave the frame with the next commit.
    unnamed: Vec<i64>,
    snapshots: Elements,
    log: Elements,
}

impl MetadataJson {
    pub(crate) fn of(metadata: &TableMetadata) -> Result<Self> {
        let mut json = object(metadata)?;
        let mut snapshots = take(&mut json, SNAPSHOTS);
        snapshots.sort_by_key(|s| (s.get("sequence-number").and_then(Value::as_i64), id(s)));
        let log = take(&mut json, LOG);
        let parts = (Elements::of(&snapshots)?, Elements::of(&log)?);
        let named = named(&json);
        snapshots.retain(|s| id(s).is_some_and(|id| named.contains(&id)));
        json.insert(SNAPSHOTS.to_owned(), Value::Array(snapshots));
        json.insert(LOG.to_owned(), Value::Array(log.into_iter().next_back().into_iter().collect()));
        let frame = serde_json::from_value(Value::Object(json)).map_err(unwritable)?;
        Ok(Self { frame, unnamed: Vec::new(), snapshots: parts.0, log: parts.1 })
    }

    /// The JSON of `next`, which `change` makes of this state by adding one snapshot.
    pub(crate) fn next(
        &self,
        next: &TableMetadata,
        location: &str,
        change: impl FnOnce(TableMetadataBuilder) -> Result<TableMetadataBuilder>,
    ) -> Result<(Self, Bytes)> {
        if let Some(parts) = self.in_parts(next, location, change)? {
            return Ok(parts);
        }
        // Dear, and right whatever the change was.
        tracing::debug!(table = %next.uuid(), "the metadata of a table is serialised whole");
        let file = serde_json::to_vec(next).map_err(unwritable)?;
        Ok((Self::of(next)?, Bytes::from(file)))
    }

    /// None where the parts do not make up the state.
    fn in_parts(
        &self,
        next: &TableMetadata,
        location: &str,
        change: impl FnOnce(TableMetadataBuilder) -> Result<TableMetadataBuilder>,
    ) -> Result<Option<(Self, Bytes)>> {
        let builder = self.frame.clone().into_builder(Some(location.to_owned())).remove_snapshots(&self.unnamed);
        let built = change(builder)?.build().map_err(|e| error::iceberg("build table metadata", e))?;
        let frame = built.metadata;
        let mut json = object(&frame)?;
        let (framed, log) = (take(&mut json, SNAPSHOTS), take(&mut json, LOG));
        let newest = framed.iter().find(|s| id(s).is_some() && id(s) == next.current_snapshot_id());
        let (Some(newest), Some(logged)) = (newest, log.last()) else { return Ok(None) };
        let snapshots = self.snapshots.with(newest)?;
        let log = self.log.with(logged)?;
        if (snapshots.count, log.count) != (next.snapshots().len(), next.history().len()) {
            return Ok(None);
        }
        let named = named(&json);
        let unnamed = framed.iter().filter_map(id).filter(|id| !named.contains(id)).collect();
        let file = write(&json, &snapshots, &log)?;
        Ok(Some((Self { frame, unnamed, snapshots, log }, file)))
    }
}

fn write(rest: &Map<String, Value>, snapshots: &Elements, log: &Elements) -> Result<Bytes> {
    let rest = serde_json::to_vec(rest).map_err(unwritable)?;
    let mut file = Vec::with_capacity(rest.len() + snapshots.bytes + log.bytes + 64);
    // There are other members always, so a comma follows.
    file.push(b'{');
    for (name, elements) in [(SNAPSHOTS, snapshots), (LOG, log)] {
        file.extend_from_slice(format!("\"{name}\":[").as_bytes());
        elements.copy_to(&mut file);
        file.extend_from_slice(b"],");
    }
    file.extend_from_slice(rest.get(1..).unwrap_or_default());
    Ok(Bytes::from(file))
}

fn object(metadata: &TableMetadata) -> Result<Map<String, Value>> {
    match serde_json::to_value(metadata).map_err(unwritable)? {
        Value::Object(object) => Ok(object),
        _ => Err(Error::internal("table metadata is no JSON object")),
    }
}

fn take(json: &mut Map<String, Value>, name: &str) -> Vec<Value> {
    match json.remove(name) {
        Some(Value::Array(elements)) => elements,
        _ => Vec::new(),
    }
}

fn id(snapshot: &Value) -> Option<i64> {
    snapshot.get("snapshot-id").and_then(Value::as_i64)
}

/// Snapshots that references name.
fn named(json: &Map<String, Value>) -> HashSet<i64> {
    let refs = json.get("refs").and_then(Value::as_object);
    let current = json.get("current-snapshot-id").and_then(Value::as_i64);
    refs.into_iter().flat_map(|refs| refs.values()).filter_map(id).chain(current).collect()
}

fn unwritable(e: serde_json::Error) -> Error {
    Error::internal("cannot write table metadata").with_source(e)
}

/// Elements of a JSON array, with commas between them. States that follow each other share all but the end.
#[derive(Debug, Clone, Default)]
struct Elements {
    count: usize,
    bytes: usize,
    whole: Vec<Bytes>,
    end: Vec<u8>,
}

impl Elements {
    /// Beyond this many bytes the end is closed and shared.
    const PIECE: usize = 64 << 10;

    fn of(values: &[Value]) -> Result<Self> {
        let mut all = Self::default();
        for value in values {
            all.push(value)?;
        }
        Ok(all)
    }

    fn with(&self, value: &Value) -> Result<Self> {
        let mut all = self.clone();
        all.push(value)?;
        Ok(all)
    }

    fn push(&mut self, value: &Value) -> Result<()> {
        let before = self.end.len();
        if self.count > 0 {
            self.end.push(b',');
        }
        serde_json::to_writer(&mut self.end, value).map_err(unwritable)?;
        self.count += 1;
        self.bytes += self.end.len() - before;
        if self.end.len() > Self::PIECE {
            self.whole.push(Bytes::from(std::mem::take(&mut self.end)));
        }
        Ok(())
    }

    fn copy_to(&self, file: &mut Vec<u8>) {
        self.whole.iter().for_each(|piece| file.extend_from_slice(piece));
        file.extend_from_slice(&self.end);
    }
}
