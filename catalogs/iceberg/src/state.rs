use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use iceberg::spec::TableMetadata;
use tidewater_catalogs::TableName;

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
