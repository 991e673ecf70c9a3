use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use iceberg::spec::{MAIN_BRANCH, SnapshotReference, SnapshotRetention, TableMetadata};
use tidewater_catalogs::{Error, Result, TableName};

use crate::error;
use crate::scan::MetadataCache;
use crate::storage::Storage;

/// One loaded, unchanging state of a table: the metadata file that the catalog named, and what is needed to read
/// everything it names.
#[derive(Clone)]
pub struct TableState {
    pub name: TableName,
    pub metadata: Arc<TableMetadata>,
    pub metadata_location: String,
    /// Reads and writes by absolute location, with the credentials that this table needs.
    pub storage: Storage,
    pub cache: Arc<MetadataCache>,
    /// Columns of the table's current schema, with field ids under `PARQUET:field_id`.
    pub arrow_schema: SchemaRef,
}

impl std::fmt::Debug for TableState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TableState")
            .field("name", &self.name)
            .field("metadata_location", &self.metadata_location)
            .finish_non_exhaustive()
    }
}

impl TableState {
    /// The same state with another snapshot as its current one.
    pub(crate) fn at_snapshot(&self, snapshot: i64) -> Result<Self> {
        let reference = SnapshotReference::new(snapshot, SnapshotRetention::branch(None, None, None));
        let builder = self.metadata.as_ref().clone().into_builder(None).set_ref(MAIN_BRANCH, reference);
        let built = builder.and_then(|b| b.build()).map_err(|e| error::iceberg("read a snapshot", e))?;
        Ok(Self { metadata: Arc::new(built.metadata), ..self.clone() })
    }

    /// The same state as it is on a branch. `NotFound` where there is none of that name.
    pub(crate) fn on_branch(&self, branch: &str) -> Result<Self> {
        let tip = self.metadata.snapshot_for_ref(branch);
        let tip = tip.ok_or_else(|| Error::not_found(format!("branch \"{branch}\" was dropped")))?;
        self.at_snapshot(tip.snapshot_id())
    }
}
