//! Rows that a statement returns: kept until its commit is known.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::StreamExt;
use parking_lot::Mutex;
use tidewater_catalogs::ReturnedRows;

use crate::run;
use crate::session::{ChangeTag, Outcome, ResultColumn, RowsTag, StatementContext};

/// Their memory is the queries'.
pub(in crate::statement) struct KeptRows {
    columns: Vec<ResultColumn>,
    schema: SchemaRef,
    held: Mutex<(Vec<RecordBatch>, MemoryReservation)>,
}

impl KeptRows {
    pub fn new(ctx: &StatementContext<'_>, columns: Vec<ResultColumn>) -> Self {
        let memory = MemoryConsumer::new("returned rows").register(&ctx.engine.runtime_env().memory_pool);
        Self { schema: run::schema_of(&columns), columns, held: Mutex::new((Vec::new(), memory)) }
    }

    /// What the client gets once the statement is done.
    fn outcome(&self, tag: ChangeTag) -> Outcome {
        let (batches, memory) = {
            let mut held = self.held.lock();
            (std::mem::take(&mut held.0), held.1.take())
        };
        let rows = futures::stream::iter(batches).map(move |batch| {
            memory.shrink(batch.get_array_memory_size());
            Ok(batch)
        });
        let stream = Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), rows));
        Outcome::Rows { columns: self.columns.clone(), stream, tag: RowsTag::Changed(tag) }
    }
}

/// How a statement ends that has changed rows.
pub(in crate::statement) fn outcome(kept: Option<&KeptRows>, tag: ChangeTag) -> Outcome {
    kept.map_or_else(|| Outcome::done(tag.to_string()), |kept| kept.outcome(tag))
}

impl ReturnedRows for KeptRows {
    fn keep(&self, rows: RecordBatch) -> Result<(), tidewater_catalogs::Error> {
        let rows = run::conform(rows, &self.schema)?;
        let mut held = self.held.lock();
        held.1.try_grow(rows.get_array_memory_size())?;
        held.0.push(rows);
        Ok(())
    }
}
