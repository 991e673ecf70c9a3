use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use iceberg::spec::{
    DataFile, MAIN_BRANCH, ManifestContentType, ManifestFile, Operation, Snapshot, SnapshotReference,
    SnapshotRetention, Summary, TableMetadata, TableMetadataBuildResult, TableMetadataBuilder,
};
use iceberg::{TableRequirement, TableUpdate};
use tidewater_catalogs::{CommitRequest, Error, Result};
use uuid::Uuid;

use super::anchor;
use super::listed::Listed;
use super::manifests::{self, Namer, NewFile};
use super::metadata_json::MetadataJson;
use super::regroup;
use super::summary::summary;
use crate::error;
use crate::properties::{self as p, MetadataCodec};
use crate::state::TableState;
use crate::writer::from_staged;

/// The state that a commit goes on top of.
#[derive(Debug, Clone)]
pub(crate) struct Base {
    pub(crate) state: Arc<TableState>,
    /// Manifests of its current snapshot, where they are known already.
    pub(crate) manifests: Option<Arc<Vec<ManifestFile>>>,
    /// Its JSON, where the metadata file of the next state is ours to write.
    pub(crate) json: Option<Arc<MetadataJson>>,
}

/// How the next state is written down.
pub(crate) struct Next {
    /// Of its metadata file.
    pub(crate) location: String,
    /// Where the catalog does not write it by itself.
    pub(crate) file: Option<NewFile>,
    pub(crate) json: Option<Arc<MetadataJson>>,
}

impl Base {
    /// `change` is what made `metadata` of this state.
    pub(crate) fn next(
        &self,
        metadata: &TableMetadata,
        change: impl FnOnce(TableMetadataBuilder) -> Result<TableMetadataBuilder>,
    ) -> Result<Next> {
        let previous = &self.state.metadata_location;
        let Some(json) = &self.json else {
            let location = metadata_location(Some(previous), metadata, MetadataCodec::None);
            return Ok(Next { location, file: None, json: None });
        };
        let json = json.next(metadata, previous, change)?;
        let (location, file) = metadata_file(Some(previous), metadata, &json)?;
        Ok(Next { location: location.clone(), file: Some((location, file)), json: Some(Arc::new(json)) })
    }

    /// The same as a branch has it; main where none is named.
    pub(crate) fn on_branch(&self, branch: Option<&str>) -> Result<Base> {
        let Some(branch) = branch else { return Ok(self.clone()) };
        Ok(Base { state: Arc::new(self.state.on_branch(branch)?), manifests: None, json: self.json.clone() })
    }

    /// A change that brings no snapshot and lets references name what they named: `change` is what made `built`.
    pub(crate) fn without_snapshot(
        &self,
        built: TableMetadataBuildResult,
        requirements: Vec<TableRequirement>,
        change: impl FnOnce(TableMetadataBuilder) -> Result<TableMetadataBuilder>,
    ) -> Result<Staged> {
        let Next { location, file, json } = self.next(&built.metadata, change)?;
        Ok(Staged {
            files: file.into_iter().collect(),
            expired: expired(&built.metadata, built.expired_metadata_logs)?,
            metadata: built.metadata,
            location,
            manifests: Arc::default(),
            json,
            updates: built.changes,
            requirements,
        })
    }
}

impl Staged {
    /// A change of references. The JSON is written whole: parts of it hold only the snapshots that references name, and the
    /// change may name others. That is dear, and such changes are rare.
    pub(crate) fn of_references(
        base: &Base,
        built: TableMetadataBuildResult,
        requirements: Vec<TableRequirement>,
    ) -> Result<Self> {
        let previous = Some(base.state.metadata_location.as_str());
        let metadata = built.metadata;
        let json = base.json.as_ref().map(|_| MetadataJson::of(&metadata)).transpose()?;
        let (location, files) = match &json {
            Some(json) => {
                let (location, file) = metadata_file(previous, &metadata, json)?;
                (location.clone(), vec![(location, file)])
            }
            None => (metadata_location(previous, &metadata, MetadataCodec::None), Vec::new()),
        };
        Ok(Self {
            files,
            expired: expired(&metadata, built.expired_metadata_logs)?,
            metadata,
            location,
            manifests: Arc::default(),
            json: json.map(Arc::new),
            updates: built.changes,
            requirements,
        })
    }
}

/// Data and delete files that go.
pub(crate) enum Removal {
    /// Each with a manifest that may list it.
    Files(HashMap<Listed, String>),
    /// Whatever is there.
    All,
}

impl Default for Removal {
    fn default() -> Self {
        Self::Files(HashMap::new())
    }
}

/// What a commit does to the table.
pub(crate) struct Change {
    pub(crate) operation: Operation,
    pub(crate) commit: Uuid,
    /// With the id of the partition spec: a `DataFile` does not tell.
    pub(crate) add: Vec<(i32, DataFile)>,
    /// Where the rows of `add` are older than the snapshot: what deletes by key reaches rows with smaller ones.
    pub(crate) add_sequence: Option<i64>,
    /// Manifests of all files that stay are written anew.
    pub(crate) regroup: bool,
    /// Files of position deletes, or deletion vectors.
    pub(crate) add_deletes: Vec<(i32, DataFile)>,
    pub(crate) remove: Removal,
    pub(crate) summary: BTreeMap<String, String>,
    /// The anchor to move, in the same commit.
    pub(crate) anchor: Option<CommitRequest>,
    /// The branch that moves, which has to be there; main where none is given.
    pub(crate) branch: Option<String>,
}

impl Default for Change {
    fn default() -> Self {
        Self {
            operation: Operation::Append,
            commit: Uuid::nil(),
            add: Vec::new(),
            add_sequence: None,
            regroup: false,
            add_deletes: Vec::new(),
            remove: Removal::default(),
            summary: BTreeMap::new(),
            anchor: None,
            branch: None,
        }
    }
}

/// A commit, complete but for two things: its files are in memory, and the catalog has not been asked.
pub(crate) struct Staged {
    pub(crate) files: Vec<NewFile>,
    pub(crate) metadata: TableMetadata,
    /// Of its metadata file.
    pub(crate) location: String,
    pub(crate) manifests: Arc<Vec<ManifestFile>>,
    /// The JSON of `metadata` for commits to come, where it is among the files.
    pub(crate) json: Option<Arc<MetadataJson>>,
    /// Metadata files that left the log with this commit, where the table wants them removed.
    pub(crate) expired: Vec<String>,
    /// The same change for a catalog that writes the metadata file by itself.
    pub(crate) updates: Vec<TableUpdate>,
    /// What must hold of the table for such a catalog: more of it than this may have changed, and does not matter.
    pub(crate) requirements: Vec<TableRequirement>,
}

/// Builds the next state of the table. Reads manifests where some are merged; writes nothing.
/// `now_ms` may be wrong: time in a table never goes back, as readers and the `iceberg` crate count on it.
pub(crate) async fn stage(base: &Base, change: Change, now_ms: i64) -> Result<Staged> {
    let state = &base.state;
    let metadata = state.metadata.as_ref();
    crate::writer::writable(metadata)?;
    let mut listed = HashSet::new();
    if let Some((_, twice)) =
        change.add.iter().chain(&change.add_deletes).find(|(_, file)| !listed.insert(Listed::of(file)))
    {
        return Err(Error::internal("a data file is named twice in one commit").with_context("file", twice.file_path()));
    }
    let branch = change.branch.as_deref().unwrap_or(MAIN_BRANCH).to_owned();
    let parent = match &change.branch {
        None => metadata.current_snapshot(),
        Some(branch) => {
            let tip = metadata.snapshot_for_ref(branch);
            Some(tip.ok_or_else(|| Error::not_found(format!("branch \"{branch}\" was dropped")))?)
        }
    };
    let before = match &base.manifests {
        Some(manifests) if branch == MAIN_BRANCH => manifests.as_ref().clone(),
        _ => manifests::of(state, parent.map(Arc::as_ref)).await?,
    };
    let snapshot_id = new_snapshot_id(metadata);
    let sequence_number = metadata.next_sequence_number();
    let parent_id = parent.map(|s| s.snapshot_id());
    let mut files = Vec::new();
    let mut namer = Namer::new(metadata, change.commit, snapshot_id);

    let without = manifests::without(state, &mut namer, before, &change.remove, &mut files).await?;
    let mut summary = summary(parent.map(|s| s.summary()), &change, &without.removed);
    let Change { operation, add, add_sequence, add_deletes, anchor, regroup, .. } = change;
    let mut all = manifests::added(&mut namer, ManifestContentType::Data, add, add_sequence, &mut files).await?;
    all.extend(manifests::added(&mut namer, ManifestContentType::Deletes, add_deletes, None, &mut files).await?);
    all.extend(without.rewritten);
    if regroup {
        let regrouped = regroup::regrouped(state, &mut namer, without.kept, &mut files).await?;
        summary.extend(regrouped.summary());
        all.extend(regrouped.manifests);
    } else {
        all.extend(manifests::merged(state, &mut namer, without.kept, &mut files).await?);
    }
    let manifests::List { manifests: all, file: list, new_rows } =
        manifests::list(&namer, parent_id, sequence_number, all).await?;
    let list_location = list.0.clone();
    files.push(list);

    let snapshot = Snapshot::builder()
        .with_snapshot_id(snapshot_id)
        .with_parent_snapshot_id(parent_id)
        .with_sequence_number(sequence_number)
        .with_timestamp_ms(now_ms.max(metadata.last_updated_ms() + 1))
        .with_manifest_list(list_location)
        .with_summary(Summary { operation, additional_properties: summary })
        .with_schema_id(metadata.current_schema_id());
    let snapshot = match new_rows {
        Some(rows) => snapshot.with_row_range(metadata.next_row_id(), rows).build(),
        None => snapshot.build(),
    };
    let alter = |builder: TableMetadataBuilder| {
        let builder =
            builder.set_branch_snapshot(snapshot.clone(), &branch).map_err(|e| error::iceberg("add a snapshot", e))?;
        match &anchor {
            Some(request) => move_anchor(builder, metadata, request, snapshot_id),
            None => Ok(builder),
        }
    };
    let builder = alter(metadata.clone().into_builder(Some(state.metadata_location.clone())))?;
    let built = builder.build().map_err(|e| error::iceberg("build table metadata", e))?;
    let expired = expired(&built.metadata, built.expired_metadata_logs)?;
    let Next { location, file, json } = base.next(&built.metadata, alter)?;
    files.extend(file);
    let mut requirements = vec![
        TableRequirement::UuidMatch { uuid: metadata.uuid() },
        TableRequirement::RefSnapshotIdMatch { r#ref: branch.clone(), snapshot_id: parent_id },
    ];
    if anchor.is_none() {
        // Files were looked at for columns that must not be null. A flow's table keeps its columns.
        requirements.push(TableRequirement::CurrentSchemaIdMatch { current_schema_id: metadata.current_schema_id() });
    }
    if let Some(request) = &anchor {
        // The tag moves with the property in every commit of ours, so comparing it compares the anchor.
        requirements.push(TableRequirement::RefSnapshotIdMatch {
            r#ref: anchor::tag(&request.flow),
            snapshot_id: request.expected.as_ref().map(|expected| expected.snapshot_id),
        });
    }
    Ok(Staged {
        files,
        metadata: built.metadata,
        location,
        // Those of the current snapshot, where they are known.
        manifests: if branch == MAIN_BRANCH { Arc::new(all) } else { Arc::default() },
        json,
        expired,
        updates: built.changes,
        requirements,
    })
}

fn move_anchor(
    builder: TableMetadataBuilder,
    before: &TableMetadata,
    request: &CommitRequest,
    snapshot_id: i64,
) -> Result<TableMetadataBuilder> {
    let to = anchor::moved(request, snapshot_id);
    let reference = SnapshotReference::new(snapshot_id, SnapshotRetention::Tag { max_ref_age_ms: None });
    let property = HashMap::from([(anchor::head_property(&request.flow), anchor::to_property(&to)?)]);
    let descent = anchor::descent_property(&request.flow);
    builder
        .set_ref(&anchor::tag(&request.flow), reference)
        .and_then(|b| b.set_properties(property))
        .and_then(|b| if before.properties().contains_key(&descent) { b.remove_properties(&[descent]) } else { Ok(b) })
        .map_err(|e| error::iceberg("move the anchor", e))
}

/// The files of a request as manifest entries.
pub(crate) fn data_files(metadata: &TableMetadata, request: &CommitRequest) -> Result<Vec<(i32, DataFile)>> {
    request.files.files.iter().map(|file| from_staged(metadata, file)).collect()
}

pub(crate) fn expired(metadata: &TableMetadata, logs: Vec<iceberg::spec::MetadataLog>) -> Result<Vec<String>> {
    if !p::get(metadata.properties(), p::DELETE_AFTER_COMMIT)? {
        return Ok(Vec::new());
    }
    Ok(logs.into_iter().map(|log| log.metadata_file).collect())
}

/// The metadata file after `previous`, or the first.
pub(crate) fn metadata_file(previous: Option<&str>, metadata: &TableMetadata, json: &MetadataJson) -> Result<NewFile> {
    Ok((metadata_location(previous, metadata, json.codec()), json.file()?))
}

/// `<version>-<uuid>.metadata.json` beside the table's other metadata; others tell compressed files by their names.
fn metadata_location(previous: Option<&str>, metadata: &TableMetadata, codec: MetadataCodec) -> String {
    let version = previous.map_or(0, |previous| {
        let name = previous.rsplit('/').next().unwrap_or_default();
        let version = name.split(['-', '.']).next().and_then(|v| v.trim_start_matches('v').parse::<u64>().ok());
        version.map_or_else(|| metadata.metadata_log().len() as u64, |v| v + 1)
    });
    let directory = metadata.location().trim_end_matches('/');
    let packed = match codec {
        MetadataCodec::None => "",
        MetadataCodec::Gzip => ".gz",
    };
    format!("{directory}/metadata/{version:05}-{}{packed}.metadata.json", Uuid::new_v4())
}

/// Random and positive, as other implementations choose them.
fn new_snapshot_id(metadata: &TableMetadata) -> i64 {
    loop {
        let (high, low) = Uuid::new_v4().as_u64_pair();
        let id = i64::from_le_bytes((high ^ low).to_le_bytes()) & i64::MAX;
        if id > 0 && metadata.snapshot_by_id(id).is_none() {
            return id;
        }
    }
}
