//! Branches and tags: made, moved and dropped, each in one commit that brings no snapshot.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use iceberg::TableRequirement;
use iceberg::spec::{MAIN_BRANCH, SnapshotReference, SnapshotRetention, TableMetadata, TableMetadataBuilder};
use tidewater_catalogs::{
    Error, ErrorKind, Existing, FLOW_REFERENCE_PREFIX, Moved, ReferenceChange, ReferenceKind, Result, Retention,
    TableName, TableVersion,
};

use crate::commit::{Base, Staged, references};
use crate::error;
use crate::lake::{Lake, Swap};
use crate::state::TableState;
use crate::version;

/// Others may commit at the same time; each of these attempts lost to one who did.
const ATTEMPTS: u64 = 20;

/// One reference, as it is to be; none where it goes.
#[derive(Debug, Clone, PartialEq)]
struct Step {
    name: String,
    before: Option<SnapshotReference>,
    after: Option<SnapshotReference>,
}

impl Step {
    fn moved(&self) -> Moved {
        let id = |reference: &Option<SnapshotReference>| reference.as_ref().map(|r| r.snapshot_id);
        Moved { before: id(&self.before), after: id(&self.after), changed: self.before != self.after }
    }
}

/// A change that was sent and not answered may have taken place. It is the same change whenever it is made, so that it
/// is looked at anew, and made again where that is needed.
pub(crate) async fn change(lake: &Lake, table: &TableState, change: &ReferenceChange) -> Result<Moved> {
    let mut sent: Option<Step> = None;
    let mut unanswered = None;
    for attempt in 0..ATTEMPTS {
        let state = match lake.load(&table.name).await {
            Err(e) if e.kind() != ErrorKind::NotFound && unanswered.is_some() => return Err(lost(table, e)),
            other => other?,
        };
        if state.metadata.uuid() != table.metadata.uuid() {
            return Err(crate::lake::another(&table.name));
        }
        let base = lake.base(Arc::clone(&state)).await?;
        let references = references(&base)?;
        if let Some(sent) = &sent
            && references.get(&sent.name) == sent.after.as_ref()
        {
            return Ok(sent.moved());
        }
        let step = match (step(&table.name, &state.metadata, &references, change), unanswered.take()) {
            (Err(_), Some(e)) => return Err(lost(table, e)),
            (step, e) => {
                unanswered = e;
                step?
            }
        };
        if step.name == MAIN_BRANCH
            && let Some(to) = &step.after
        {
            has_no_nulls(&state.metadata, to.snapshot_id)?;
        }
        if !step.moved().changed {
            return Ok(step.moved());
        }
        // Readers, ours among them, do not open a table whose history goes back in time.
        if lake.now_ms() < state.metadata.last_updated_ms() {
            return Err(Error::unavailable(format!("the clock of this machine is behind table \"{}\"", table.name))
                .with_hint("Set the clock, or wait until it is later than the last commit of the table."));
        }
        match lake.swap(&base, staged(&base, &step)?).await {
            Swap::Done(_) => return Ok(step.moved()),
            Swap::Moved => {}
            Swap::Unknown(e) => {
                tracing::warn!(table = %table.name, error = %e, "answer to a change of references was lost");
                unanswered = Some(e);
                sent = Some(step);
            }
            Swap::Refused(e) => return Err(e.with_context("table", &table.name)),
        }
        tokio::time::sleep(Duration::from_millis(attempt.min(10) * 5)).await;
    }
    Err(match unanswered {
        Some(e) => lost(table, e),
        None => Error::new(
            ErrorKind::Conflict,
            format!("table \"{}\" is changed by others faster than this statement can commit", table.name),
        ),
    })
}

fn lost(table: &TableState, e: Error) -> Error {
    Error::new(ErrorKind::CommitUnknown, "the answer to a change of branches and tags was lost")
        .with_hint(format!("Look into \"{}$refs\" before you run the statement again.", table.name.name))
        .with_source(e)
}

fn staged(base: &Base, step: &Step) -> Result<Staged> {
    let state = &base.state;
    let metadata = state.metadata.as_ref();
    let failed = |e| error::iceberg("change a branch or a tag", e);
    let builder: TableMetadataBuilder = metadata.clone().into_builder(Some(state.metadata_location.clone()));
    let builder = match &step.after {
        Some(reference) => builder.set_ref(&step.name, reference.clone()).map_err(failed)?,
        None => builder.remove_ref(&step.name),
    };
    let built = builder.build().map_err(failed)?;
    Staged::of_references(
        base,
        built,
        vec![
            TableRequirement::UuidMatch { uuid: metadata.uuid() },
            TableRequirement::RefSnapshotIdMatch {
                r#ref: step.name.clone(),
                snapshot_id: step.before.as_ref().map(|reference| reference.snapshot_id),
            },
        ],
    )
}

/// What the change means on this state.
fn step(
    table: &TableName,
    metadata: &TableMetadata,
    references: &HashMap<String, SnapshotReference>,
    change: &ReferenceChange,
) -> Result<Step> {
    let step = |name: &str, after: Option<SnapshotReference>| Step {
        name: name.to_owned(),
        before: references.get(name).cloned(),
        after,
    };
    let main_at = |snapshot_id: i64| {
        let retention = references.get(MAIN_BRANCH).map(|main| main.retention.clone());
        let retention = retention.unwrap_or_else(|| SnapshotRetention::branch(None, None, None));
        step(MAIN_BRANCH, Some(SnapshotReference::new(snapshot_id, retention)))
    };
    match change {
        ReferenceChange::Create { kind, name, snapshot, retention, existing } => {
            owned_by_users(name)?;
            let found = references.get(name);
            match (found, existing) {
                (Some(_), Existing::Refused) => {
                    return Err(Error::new(ErrorKind::AlreadyExists, format!("{} already exists", shown(name, found))));
                }
                (Some(_), Existing::Kept) => return Ok(step(name, found.cloned())),
                (Some(found), _) if found.is_branch() != (*kind == ReferenceKind::Branch) => {
                    return Err(Error::invalid(format!("{} is not a {}", shown(name, Some(found)), kind.word()))
                        .with_hint("Drop it, or take another name."));
                }
                (None, Existing::Required) => return Err(missing(table, *kind, name)),
                _ => {}
            }
            let snapshot = match snapshot.or_else(|| metadata.current_snapshot_id()) {
                Some(id) => version::find(table, metadata, references, &TableVersion::Snapshot(id))?.snapshot,
                None => {
                    return Err(Error::invalid(format!("table \"{table}\" has no snapshot yet"))
                        .with_hint("Write to it first."));
                }
            };
            let reference = SnapshotReference::new(snapshot.snapshot_id(), kept(*kind, *retention));
            Ok(step(name, Some(reference)))
        }
        ReferenceChange::Drop { kind, name, if_exists } => {
            owned_by_users(name)?;
            match references.get(name) {
                None if *if_exists => Ok(step(name, None)),
                None => Err(missing(table, *kind, name)),
                Some(found) if found.is_branch() != (*kind == ReferenceKind::Branch) => {
                    Err(Error::invalid(format!("{} is not a {}", shown(name, Some(found)), kind.word())))
                }
                Some(_) => Ok(step(name, None)),
            }
        }
        ReferenceChange::FastForward { branch, to } => {
            owned_by_flows(branch)?;
            let found = |name: &str| {
                let found = references.get(name);
                found.ok_or_else(|| missing(table, ReferenceKind::Branch, name))
            };
            let (from, to_reference) = (found(branch)?, found(to)?);
            if !from.is_branch() {
                return Err(Error::invalid(format!("tag \"{branch}\" cannot be moved forward")));
            }
            if from.snapshot_id != to_reference.snapshot_id
                && !descends(metadata, to_reference.snapshot_id, from.snapshot_id)
            {
                return Err(Error::invalid(format!("branch \"{branch}\" cannot be moved forward to \"{to}\""))
                    .with_detail(format!(
                        "Snapshot {} of \"{to}\" does not descend from snapshot {} of \"{branch}\".",
                        to_reference.snapshot_id, from.snapshot_id
                    )));
            }
            Ok(step(branch, Some(SnapshotReference::new(to_reference.snapshot_id, from.retention.clone()))))
        }
        ReferenceChange::SetCurrent(to) => {
            Ok(main_at(version::find(table, metadata, references, to)?.snapshot.snapshot_id()))
        }
        ReferenceChange::Advance(to) => {
            let snapshot = version::find(table, metadata, references, to)?.snapshot;
            if snapshot.parent_snapshot_id() != metadata.current_snapshot_id() {
                return Err(Error::new(
                    ErrorKind::Conflict,
                    format!("snapshot {} was not made of the current one", snapshot.snapshot_id()),
                ));
            }
            Ok(main_at(snapshot.snapshot_id()))
        }
        ReferenceChange::Rollback(to) => Ok(main_at(rolled_back(table, metadata, references, to)?)),
    }
}

fn rolled_back(
    table: &TableName,
    metadata: &TableMetadata,
    references: &HashMap<String, SnapshotReference>,
    to: &TableVersion,
) -> Result<i64> {
    if let TableVersion::AsOf { timestamp_ms } = to {
        let older = |id: &i64| metadata.snapshot_by_id(*id).is_some_and(|s| s.timestamp_ms() < *timestamp_ms);
        return line(metadata, metadata.current_snapshot_id()).find(older).ok_or_else(|| {
            Error::invalid(format!("no snapshot that table \"{table}\" descends from is older than {to}"))
                .with_hint(format!("\"{}$history\" shows those there are.", table.name))
        });
    }
    let id = version::find(table, metadata, references, to)?.snapshot.snapshot_id();
    if line(metadata, metadata.current_snapshot_id()).any(|ancestor| ancestor == id) {
        return Ok(id);
    }
    Err(Error::invalid(format!("table \"{table}\" does not descend from snapshot {id}"))
        .with_hint("set_current_snapshot takes any snapshot of the table."))
}

/// The table is read with the columns that it has by now: where one must not be null, it must not have been then.
fn has_no_nulls(metadata: &TableMetadata, snapshot_id: i64) -> Result<()> {
    let then = metadata.snapshot_by_id(snapshot_id).and_then(|s| s.schema(metadata).ok());
    let Some(then) = then.filter(|then| then.schema_id() != metadata.current_schema_id()) else { return Ok(()) };
    for field in metadata.current_schema().as_struct().fields().iter().filter(|field| field.required) {
        // A column that came later has its default in the rows of before.
        let has_values = then.field_by_id(field.id).map_or(field.initial_default.is_some(), |before| before.required);
        if !has_values {
            return Err(Error::invalid(format!("column \"{}\" may be null in snapshot {snapshot_id}", field.name))
                .with_hint(format!("ALTER TABLE … ALTER COLUMN {} DROP NOT NULL first.", field.name)));
        }
    }
    Ok(())
}

/// A snapshot and those that it descends from, newest first.
pub(crate) fn line(metadata: &TableMetadata, from: Option<i64>) -> impl Iterator<Item = i64> {
    let mut seen = HashSet::new();
    let parent = |id: &i64| metadata.snapshot_by_id(*id).and_then(|s| s.parent_snapshot_id());
    std::iter::successors(from, parent).take_while(move |id| seen.insert(*id))
}

fn descends(metadata: &TableMetadata, from: i64, ancestor: i64) -> bool {
    line(metadata, Some(from)).any(|id| id == ancestor)
}

fn kept(kind: ReferenceKind, retention: Retention) -> SnapshotRetention {
    let Retention { max_age_ms, max_snapshot_age_ms, min_snapshots_to_keep } = retention;
    match kind {
        ReferenceKind::Branch => SnapshotRetention::branch(min_snapshots_to_keep, max_snapshot_age_ms, max_age_ms),
        ReferenceKind::Tag => SnapshotRetention::Tag { max_ref_age_ms: max_age_ms },
    }
}

fn owned_by_flows(name: &str) -> Result<()> {
    if name.starts_with(FLOW_REFERENCE_PREFIX) {
        return Err(Error::new(ErrorKind::PermissionDenied, format!("\"{name}\" belongs to a flow"))
            .with_detail("It says where the flow stands."));
    }
    Ok(())
}

fn owned_by_users(name: &str) -> Result<()> {
    if name == MAIN_BRANCH {
        return Err(Error::invalid("branch \"main\" is the table itself")
            .with_hint("set_current_snapshot and rollback_to_snapshot move it."));
    }
    owned_by_flows(name)
}

fn shown(name: &str, reference: Option<&SnapshotReference>) -> String {
    let kind =
        if reference.is_none_or(SnapshotReference::is_branch) { ReferenceKind::Branch } else { ReferenceKind::Tag };
    format!("{} \"{name}\"", kind.word())
}

fn missing(table: &TableName, kind: ReferenceKind, name: &str) -> Error {
    Error::not_found(format!("{} \"{name}\" of table \"{table}\" does not exist", kind.word()))
        .with_hint(format!("\"{}$refs\" lists those there are.", table.name))
}
