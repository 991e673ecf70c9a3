//! `add_files`: Parquet files that are there become files of the table, as they are.
//!
//! ```text
//!   list ─► look at each footer ─► columns fit? ─► partition proven? ─► one append of all
//! ```
//!
//! Nothing of a file is believed that its footer or its folder does not say: what cannot be proven is refused, since a
//! wrong bound or partition hides rows from queries.

mod folders;
mod names;
mod partition;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use async_trait::async_trait;
use futures::{StreamExt, TryStreamExt};
use iceberg::spec::{DEFAULT_SCHEMA_NAME_MAPPING, DataFile, Operation, Struct, Transform};
use tidewater_catalogs::{AddedFiles, Alteration, Error, ErrorKind, Result};
use uuid::Uuid;

use crate::attempts::{self, Commit};
use crate::commit::anchor::COMMIT_UUID;
use crate::commit::{Base, Change, Staged, listed, stage};
use crate::lake::Lake;
use crate::scan::{Fit, Fitter};
use crate::state::TableState;
use crate::storage::{FoundFile, check_location};
use crate::writer::{ForeignFile, foreign_file, nulls, writable};

/// Files of one statement; each is held in memory until it is committed.
const MAX_FILES: usize = 20_000;
/// Footers that are read at a time.
const CONCURRENT: usize = 8;

pub(crate) async fn add_files(lake: &Lake, state: Arc<TableState>, source: &str) -> Result<AddedFiles> {
    writable(&state.metadata)?;
    let names = names::mapping(&state)?;
    let fitter = Fitter::new(Arc::clone(&state), names.mapping.clone())?;
    let found = find(&state, &fitter, source).await?;
    let looked: Vec<Option<Looked>> = futures::stream::iter(found)
        .map(|file| look(&state, &fitter, source, file))
        .buffered(CONCURRENT)
        .try_collect()
        .await?;
    let looked: Vec<Looked> = looked.into_iter().flatten().collect();
    if looked.is_empty() {
        return Ok(AddedFiles::default());
    }
    let partitions: HashSet<&Struct> = looked.iter().map(|l| l.file.partition()).collect();
    let done = AddedFiles {
        files: looked.len() as u64,
        rows: looked.iter().map(|l| l.file.record_count()).sum(),
        partitions: partitions.len() as u64,
    };
    let what =
        Add { lake, state: &state, fitter: &fitter, commit: Uuid::now_v7(), looked: &looked, names: &names.json };
    // Before anything is changed for them.
    what.check_new(&state).await?;
    if names.is_new && looked.iter().any(|l| !l.has_ids) {
        let mapping = BTreeMap::from([(DEFAULT_SCHEMA_NAME_MAPPING.to_owned(), names.json.clone())]);
        crate::alter::alter(lake, &state, &[Alteration::SetProperties(mapping)]).await?;
    }
    attempts::commit(lake, &state, what.commit, &what).await?;
    Ok(done)
}

struct Looked {
    file: DataFile,
    has_ids: bool,
    key: String,
}

/// The file of that name, or all below the folder.
async fn find(state: &TableState, fitter: &Fitter, source: &str) -> Result<Vec<FoundFile>> {
    let plain = source.trim_end_matches('/');
    check_location(plain)?;
    let local = !plain.contains("://") || plain.starts_with("file:");
    if local && !without_scheme(plain).starts_with('/') {
        return Err(Error::invalid(format!("\"{source}\" is no absolute path")).with_hint("Begin it with a slash."));
    }
    let own = without_scheme(state.metadata.location()).trim_end_matches('/');
    if format!("{}/", without_scheme(plain)).starts_with(&format!("{own}/")) {
        return Err(Error::invalid(format!("\"{source}\" is in the table's own folder"))
            .with_detail("What no snapshot names there is garbage, and may go at any time.")
            .with_hint("Copy the files to a folder of their own."));
    }
    // One in another store is none of the table's.
    fitter.key(plain)?;
    if plain.ends_with(".parquet")
        && let Some(bytes) = fitter.size(plain).await?
    {
        let location = if local { format!("file://{}", without_scheme(plain)) } else { plain.to_owned() };
        return Ok(vec![FoundFile { location, bytes, modified_ms: 0 }]);
    }
    let mut found = state.storage.list_files(plain).await?;
    found.retain(|file| !folders::is_hidden(without_scheme(&file.location), without_scheme(plain)));
    if found.is_empty() {
        return Err(Error::not_found(format!("there are no files at \"{source}\"")));
    }
    if found.len() > MAX_FILES {
        return Err(Error::new(ErrorKind::ResourcesExhausted, format!("there are {} files", found.len()))
            .with_detail(format!("One statement adds at most {MAX_FILES}."))
            .with_hint("Add them folder by folder."));
    }
    found.sort_by(|one, other| one.location.cmp(&other.location));
    Ok(found)
}

/// Files on the disk are listed with it, whatever was asked for.
fn without_scheme(location: &str) -> &str {
    location.strip_prefix("file://").or_else(|| location.strip_prefix("file:")).unwrap_or(location)
}

/// None for a file without rows.
async fn look(state: &TableState, fitter: &Fitter, source: &str, found: FoundFile) -> Result<Option<Looked>> {
    let FoundFile { location, bytes, .. } = found;
    let looked = async {
        let fit = fitter.look(&location, bytes).await?;
        if fit.footer.file_metadata().num_rows() == 0 {
            return Ok(None);
        }
        check_required(state, fitter, &fit)?;
        let folders = folders::folders(without_scheme(&location), without_scheme(source));
        let partition = partition::partition(state, fitter, &fit, &folders)?;
        let columns = state.metadata.current_schema().as_struct().fields().iter().zip(&fit.columns);
        let columns: Vec<_> =
            columns.filter_map(|(field, stored)| stored.and_then(|s| Some((s.leaf?, field.id, s.alike)))).collect();
        let file = foreign_file(ForeignFile {
            metadata: &state.metadata,
            footer: &fit.footer,
            location: &location,
            size_bytes: bytes,
            spec_id: state.metadata.default_partition_spec_id(),
            partition,
            columns: &columns,
        })?;
        Ok(Some(Looked { file, has_ids: fit.has_ids, key: fit.key }))
    };
    looked.await.map_err(|e: Error| e.with_context("file", &location))
}

/// Columns that must not be null are there, and are not.
fn check_required(state: &TableState, fitter: &Fitter, fit: &Fit) -> Result<()> {
    let metadata = &state.metadata;
    let fields = metadata.current_schema().as_struct().fields();
    for (column, field) in fields.iter().enumerate().filter(|(_, field)| field.required) {
        let stands = |id: i32| {
            let spec = metadata.default_partition_spec();
            spec.fields().iter().any(|f| f.source_id == id && f.transform == Transform::Identity)
        };
        match fit.columns[column] {
            None if stands(field.id) => {}
            None => {
                fitter.missing(column).map_err(|_| {
                    Error::invalid(format!("the file lacks column \"{}\", which must not be null", field.name))
                })?;
            }
            Some(stored) => match stored.leaf.map(|leaf| nulls(&fit.footer, leaf)) {
                Some(Some(0)) => {}
                Some(Some(_)) => {
                    return Err(Error::invalid(format!("column \"{}\" of the file has nulls", field.name))
                        .with_detail("In the table it must not be null."));
                }
                _ => {
                    return Err(Error::unsupported(format!(
                        "column \"{}\" must not be null, and the file does not say that it is not",
                        field.name
                    )));
                }
            },
        }
    }
    Ok(())
}

struct Add<'a> {
    lake: &'a Lake,
    /// What the files were looked at for.
    state: &'a TableState,
    fitter: &'a Fitter,
    commit: Uuid,
    looked: &'a [Looked],
    names: &'a str,
}

impl Add<'_> {
    /// A file that is named twice would be read twice.
    async fn check_new(&self, state: &TableState) -> Result<()> {
        let keys: HashMap<&str, &str> = self.looked.iter().map(|l| (l.key.as_str(), l.file.file_path())).collect();
        for there in listed(state).await? {
            // One elsewhere is none of these.
            let Ok(key) = self.fitter.key(&there) else { continue };
            if let Some(file) = keys.get(key.as_str()) {
                return Err(
                    Error::new(ErrorKind::AlreadyExists, "the file is in the table already").with_context("file", file)
                );
            }
        }
        Ok(())
    }
}

#[async_trait]
impl Commit for Add<'_> {
    async fn stage(&self, base: &Base) -> Result<Staged> {
        let (now, then) = (&base.state.metadata, &self.state.metadata);
        let names = now.properties().get(DEFAULT_SCHEMA_NAME_MAPPING);
        let renamed = self.looked.iter().any(|l| !l.has_ids) && names.is_none_or(|names| names != self.names);
        if now.current_schema_id() != then.current_schema_id()
            || now.default_partition_spec_id() != then.default_partition_spec_id()
            || renamed
        {
            return Err(Error::new(ErrorKind::Conflict, "columns or partitions of the table were changed meanwhile")
                .with_hint("Run the statement again."));
        }
        self.check_new(&base.state).await?;
        let spec_id = then.default_partition_spec_id();
        let change = Change {
            operation: Operation::Append,
            commit: self.commit,
            add: self.looked.iter().map(|l| (spec_id, l.file.clone())).collect(),
            summary: BTreeMap::from([(COMMIT_UUID.to_string(), self.commit.to_string())]),
            ..Change::default()
        };
        stage(base, change, self.lake.now_ms()).await
    }
}
