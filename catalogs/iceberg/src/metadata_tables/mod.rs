//! What a table tells of itself: snapshots, references, files, manifests, partitions. Columns are called as in the
//! metadata tables of Spark and Trino; maps and structs are JSON, by the names of columns.
//!
//! Rows are made as they are read: of files, one manifest's at a time.

mod columns;
mod files;
mod history;
mod manifests;
mod partitions;
mod refs;
mod snapshots;
mod text;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use datafusion::catalog::TableProvider;
use datafusion::catalog::streaming::StreamingTable;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use futures::TryStreamExt;
use futures::stream::BoxStream;
use iceberg::spec::{SnapshotRef, SnapshotReference};
use tidewater_catalogs::{MetadataTable, Result};

use crate::state::TableState;

/// What all of these tables are made from.
pub(crate) struct Told {
    pub(crate) state: Arc<TableState>,
    /// Where they are told.
    pub(crate) references: HashMap<String, SnapshotReference>,
    /// Whose files, manifests and partitions are told.
    pub(crate) snapshot: Option<SnapshotRef>,
}

type Batches = BoxStream<'static, Result<RecordBatch>>;

pub(crate) fn provider(kind: MetadataTable, told: Told) -> Result<Arc<dyn TableProvider>> {
    let (schema, rows): (fn() -> SchemaRef, fn(&Told) -> Batches) = match kind {
        MetadataTable::Snapshots => (snapshots::schema, snapshots::rows),
        MetadataTable::History => (history::schema, history::rows),
        MetadataTable::Refs => (refs::schema, refs::rows),
        MetadataTable::Files => (files::schema, files::rows),
        MetadataTable::Manifests => (manifests::schema, manifests::rows),
        MetadataTable::Partitions => (partitions::schema, partitions::rows),
    };
    let schema = schema();
    let rows = Rows { kind, schema: schema.clone(), rows, told };
    Ok(Arc::new(StreamingTable::try_new(schema, vec![Arc::new(rows)])?))
}

/// Rows that are known at once.
fn at_once(batch: Result<RecordBatch>) -> Batches {
    Box::pin(futures::stream::iter([batch]))
}

struct Rows {
    kind: MetadataTable,
    schema: SchemaRef,
    rows: fn(&Told) -> Batches,
    told: Told,
}

impl fmt::Debug for Rows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}${}", self.told.state.name, self.kind.suffix())
    }
}

impl PartitionStream for Rows {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let batches = (self.rows)(&self.told).map_err(Into::into);
        Box::pin(RecordBatchStreamAdapter::new(self.schema.clone(), batches))
    }
}
