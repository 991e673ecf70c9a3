//! Table metadata as JSON, without writing anew what a commit leaves as it was.
//!
//! The metadata file names every snapshot, and each commit writes one. Snapshots never change, so their JSON is kept
//! from commit to commit and copied, compressed where the file is; only the rest, which is small, is serialised.

mod elements;
mod gzip;
#[cfg(test)]
mod tests;

use std::collections::HashSet;

use bytes::Bytes;
use iceberg::spec::{TableMetadata, TableMetadataBuilder};
use serde_json::{Map, Value};
use tidewater_catalogs::{Error, ErrorKind, Result};

use crate::error;
use crate::properties::{self, MetadataCodec};
use elements::Elements;

const SNAPSHOTS: &str = "snapshots";
const LOG: &str = "snapshot-log";
const UPDATED: &str = "last-updated-ms";

/// The JSON of one state of a table, in parts.
#[derive(Debug)]
pub(crate) struct MetadataJson {
    /// The table without its snapshots, but for those that references name and the few of `unnamed`.
    frame: TableMetadata,
    /// Left by references since; they leave the frame with the next commit.
    unnamed: Vec<i64>,
    snapshots: Elements,
    log: Elements,
    /// All other members, and the brace at the end.
    rest: Vec<u8>,
    codec: MetadataCodec,
}

impl MetadataJson {
    pub(crate) fn of(metadata: &TableMetadata) -> Result<Self> {
        let mut json = object(metadata)?;
        let mut snapshots = take(&mut json, SNAPSHOTS);
        snapshots.sort_by_key(|s| (s.get("sequence-number").and_then(Value::as_i64), id(s)));
        let mut log = take(&mut json, LOG);
        let elements = (Elements::of(&snapshots)?, Elements::of(&log)?);
        let rest = rest(&json)?;
        let named = named(&json);
        snapshots.retain(|s| id(s).is_some_and(|id| named.contains(&id)));
        log.drain(..log.len().saturating_sub(1));
        let frame = frame(json, snapshots, log)?;
        let all = Self::new(frame, Vec::new(), elements, rest);
        if all.codec == MetadataCodec::Gzip {
            all.snapshots.pack()?;
            all.log.pack()?;
        }
        Ok(all)
    }

    fn new(frame: TableMetadata, unnamed: Vec<i64>, (snapshots, log): (Elements, Elements), rest: Vec<u8>) -> Self {
        let bytes = snapshots.bytes + log.bytes + rest.len();
        let codec = properties::metadata_codec(frame.properties(), bytes);
        Self { frame, unnamed, snapshots, log, rest, codec }
    }

    /// The JSON of `next`, which `change` makes of this state.
    pub(crate) fn next(
        &self,
        next: &TableMetadata,
        location: &str,
        change: impl FnOnce(TableMetadataBuilder) -> Result<TableMetadataBuilder>,
    ) -> Result<Self> {
        // Another format version spells snapshots in another way.
        if self.frame.format_version() == next.format_version()
            && let Some(parts) = self.in_parts(next, location, change)?
        {
            return Ok(parts);
        }
        // Dear, and right whatever the change was.
        tracing::debug!(table = %next.uuid(), "the metadata of a table is serialised whole");
        Self::of(next)
    }

    /// None where the parts do not make up the state.
    fn in_parts(
        &self,
        next: &TableMetadata,
        location: &str,
        change: impl FnOnce(TableMetadataBuilder) -> Result<TableMetadataBuilder>,
    ) -> Result<Option<Self>> {
        let builder = self.frame.clone().into_builder(Some(location.to_owned())).remove_snapshots(&self.unnamed);
        let built = change(builder)?.build().map_err(|e| error::iceberg("build table metadata", e))?;
        let mut changed = built.metadata;
        let mut json = object(&changed)?;
        let (framed, framed_log) = (take(&mut json, SNAPSHOTS), take(&mut json, LOG));

        let mut snapshots = self.snapshots.clone();
        for added in framed.iter().filter(|s| id(s).is_none_or(|id| self.frame.snapshot_by_id(id).is_none())) {
            snapshots.push(added)?;
        }
        if snapshots.count > next.snapshots().len() {
            snapshots = snapshots.retain(|_, id| id.is_some_and(|id| next.snapshot_by_id(id).is_some()));
        }
        let mut log = self.log.clone();
        let before = match self.frame.history().last() {
            None => 0,
            Some(last) => match changed.history().iter().rposition(|entry| entry == last) {
                Some(at) => at + 1,
                None => return Ok(None),
            },
        };
        for added in framed_log.iter().skip(before) {
            log.push(added)?;
        }
        // What a snapshot that is gone leaves of the log is its end.
        let wanted = next.history().len();
        if log.count > wanted {
            let gone = log.count - wanted;
            log = log.retain(|n, _| n >= gone);
        }
        if (snapshots.count, log.count) != (next.snapshots().len(), wanted) {
            return Ok(None);
        }

        let named = named(&json);
        let unnamed = framed.iter().filter_map(id).filter(|id| !named.contains(id)).collect();
        if changed.last_updated_ms() != next.last_updated_ms() {
            // Taken from the clock, twice.
            json.insert(UPDATED.to_owned(), Value::from(next.last_updated_ms()));
            changed = frame(json.clone(), framed, framed_log)?;
        }
        let rest = rest(&json)?;
        Ok(Some(Self::new(changed, unnamed, (snapshots, log), rest)))
    }

    /// The table with the same references and the snapshots that they name, and hardly any other.
    pub(crate) fn frame(&self) -> &TableMetadata {
        &self.frame
    }

    pub(crate) fn codec(&self) -> MetadataCodec {
        self.codec
    }

    /// Of the JSON, uncompressed.
    pub(crate) fn bytes(&self) -> usize {
        self.snapshots.bytes + self.log.bytes + self.rest.len()
    }

    /// The metadata file.
    pub(crate) fn file(&self) -> Result<Bytes> {
        const BETWEEN: usize = 64;
        let members = [(SNAPSHOTS, &self.snapshots), (LOG, &self.log)];
        // There are other members always, so a comma follows each.
        let file = match self.codec {
            MetadataCodec::None => {
                let mut file = Vec::with_capacity(self.bytes() + BETWEEN);
                file.push(b'{');
                for (name, elements) in members {
                    file.extend_from_slice(format!("\"{name}\":[").as_bytes());
                    elements.write(&mut file);
                    file.extend_from_slice(b"],");
                }
                file.extend_from_slice(&self.rest);
                file
            }
            MetadataCodec::Gzip => {
                let mut file = gzip::Writer::new();
                file.plain(b"{");
                for (name, elements) in members {
                    file.plain(format!("\"{name}\":[").as_bytes());
                    elements.write_packed(&mut file)?;
                    file.plain(b"],");
                }
                file.plain(&self.rest);
                file.finish()?
            }
        };
        Ok(Bytes::from(file))
    }
}

/// The JSON in a metadata file, compressed or not.
pub(crate) fn unpacked(file: Bytes) -> Result<Bytes> {
    if !gzip::is_packed(&file) {
        return Ok(file);
    }
    let plain = gzip::unpack(&file);
    plain
        .map(Bytes::from)
        .map_err(|e| Error::new(ErrorKind::DataCorrupt, "cannot unpack table metadata").with_source(e))
}

fn frame(mut json: Map<String, Value>, snapshots: Vec<Value>, log: Vec<Value>) -> Result<TableMetadata> {
    json.insert(SNAPSHOTS.to_owned(), Value::Array(snapshots));
    json.insert(LOG.to_owned(), Value::Array(log));
    serde_json::from_value(Value::Object(json)).map_err(unwritable)
}

fn rest(json: &Map<String, Value>) -> Result<Vec<u8>> {
    let mut rest = serde_json::to_vec(json).map_err(unwritable)?;
    rest.remove(0);
    Ok(rest)
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
