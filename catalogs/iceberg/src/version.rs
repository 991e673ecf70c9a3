//! Which snapshot a version of a table is.

use std::collections::HashMap;

use iceberg::spec::{SnapshotRef, SnapshotReference, TableMetadata};
use tidewater_catalogs::{Error, Result, TableName, TableVersion};

/// A snapshot, and whether it is read with the columns that it had. Iceberg spec, "Snapshot References": a branch is
/// read with the columns of the table.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    pub(crate) snapshot: SnapshotRef,
    pub(crate) own_columns: bool,
}

pub(crate) fn find(
    name: &TableName,
    metadata: &TableMetadata,
    references: &HashMap<String, SnapshotReference>,
    version: &TableVersion,
) -> Result<Found> {
    let own = |id: i64| match metadata.snapshot_by_id(id) {
        Some(snapshot) => Ok(Found { snapshot: snapshot.clone(), own_columns: true }),
        None => Err(Error::not_found(format!("table \"{name}\" has no snapshot {id}"))
            .with_detail("It was never there, or it has expired.")
            .with_hint(format!("\"{}$snapshots\" lists those there are.", name.name))),
    };
    match version {
        TableVersion::Snapshot(id) => own(*id),
        TableVersion::Reference(reference) => match (references.get(reference), reference.parse::<i64>()) {
            (Some(found), _) => Ok(Found { own_columns: !found.is_branch(), ..own(found.snapshot_id)? }),
            (None, Ok(id)) => own(id),
            (None, Err(_)) => {
                Err(Error::not_found(format!("table \"{name}\" has no branch and no tag \"{reference}\""))
                    .with_hint(format!("\"{}$refs\" lists those there are.", name.name)))
            }
        },
        TableVersion::Branch(reference) => match references.get(reference).filter(|found| found.is_branch()) {
            Some(found) => Ok(Found { own_columns: false, ..own(found.snapshot_id)? }),
            None => Err(missing(name, version)),
        },
        TableVersion::Tag(reference) => match references.get(reference).filter(|found| !found.is_branch()) {
            Some(found) => own(found.snapshot_id),
            None => Err(missing(name, version)),
        },
        TableVersion::AsOf { timestamp_ms } => {
            let current = metadata.history().iter().rfind(|entry| entry.timestamp_ms <= *timestamp_ms);
            match current {
                Some(entry) => own(entry.snapshot_id),
                None => Err(before_the_first(name, metadata, version)),
            }
        }
    }
}

fn missing(name: &TableName, version: &TableVersion) -> Error {
    Error::not_found(format!("{version} of table \"{name}\" does not exist"))
        .with_hint(format!("\"{}$refs\" lists those there are.", name.name))
}

fn before_the_first(name: &TableName, metadata: &TableMetadata, version: &TableVersion) -> Error {
    let error = Error::invalid(format!("table \"{name}\" has no snapshot as old as {version}"));
    match metadata.history().first() {
        Some(first) => {
            let first = TableVersion::AsOf { timestamp_ms: first.timestamp_ms };
            error.with_hint(format!("What is known of it begins at {first}; \"{}$history\" shows it.", name.name))
        }
        None => error.with_hint("Nothing was written to it yet."),
    }
}
