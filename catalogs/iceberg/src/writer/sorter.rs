use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::{Field, Schema, SchemaRef};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use datafusion::error::{DataFusionError, Result as DfResult};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{LexOrdering, PhysicalSortExpr};
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use futures::StreamExt;
use parking_lot::Mutex;
use tidewater_catalogs::{Error, Result, Runner};
use tokio::sync::mpsc;

use super::keys::{KeyValue, Keys, exact};

/// Batches on their way to the sort.
const QUEUED_BATCHES: usize = 2;

/// Sorts the rows of a statement within its memory, and on disk where that is not enough.
pub(super) struct Sorter {
    keys: Keys,
    /// The table's columns.
    columns: usize,
    /// The same, and behind them the keys that are no columns.
    schema: SchemaRef,
    sender: mpsc::Sender<RecordBatch>,
    sorted: SendableRecordBatchStream,
}

impl Sorter {
    /// None where there is nothing to sort by.
    pub(super) fn new(table: &Schema, keys: Keys, runner: &Runner) -> Result<Option<Self>> {
        let mut fields: Vec<Field> = table.fields().iter().map(|f| f.as_ref().clone().with_nullable(true)).collect();
        let columns = fields.len();
        let mut sort = Vec::new();
        for (number, (source, (options, data_type))) in keys.sources().zip(keys.options()).enumerate() {
            let column = match source {
                Some(column) => column,
                None => {
                    fields.push(Field::new(format!("_tidewater_key_{number}"), data_type.clone(), true));
                    fields.len() - 1
                }
            };
            let expr = Arc::new(Column::new(fields[column].name(), column));
            sort.push(PhysicalSortExpr { expr, options });
        }
        let Some(ordering) = LexOrdering::new(sort) else { return Ok(None) };
        let schema = Arc::new(Schema::new(fields));
        let (sender, receiver) = mpsc::channel(QUEUED_BATCHES);
        let rows = Arc::new(Rows { schema: Arc::clone(&schema), receiver: Mutex::new(Some(receiver)) });
        let source = StreamingTableExec::try_new(Arc::clone(&schema), vec![rows], None, [], false, None)?;
        let sorted = runner.run(Arc::new(SortExec::new(ordering, Arc::new(source))));
        Ok(Some(Self { keys, columns, schema, sender, sorted }))
    }

    /// Rows in the columns of the table.
    pub(super) async fn push(&mut self, columns: &[ArrayRef], rows: usize) -> Result<()> {
        let mut all = exact(columns, &self.schema)?;
        for value in self.keys.values(columns)? {
            if let KeyValue::Made(array) = value {
                all.push(array);
            }
        }
        // Names of members and what else fields say of themselves need not be the same.
        let options = RecordBatchOptions::new().with_row_count(Some(rows)).with_match_field_names(false);
        let batch = RecordBatch::try_new_with_options(Arc::clone(&self.schema), all, &options)?;
        if self.sender.send(batch).await.is_ok() {
            return Ok(());
        }
        match self.sorted.next().await {
            Some(Err(e)) => Err(e.into()),
            _ => Err(Error::internal("a sort ended before its rows")),
        }
    }

    /// All rows, in the columns of the table.
    pub(super) fn finish(self) -> SendableRecordBatchStream {
        drop(self.sender);
        let own: Vec<usize> = (0..self.columns).collect();
        let shown = Arc::new(Schema::new(self.schema.fields()[..self.columns].to_vec()));
        let rows = self.sorted.map(move |batch| Ok(batch?.project(&own)?));
        Box::pin(RecordBatchStreamAdapter::new(shown, rows))
    }
}

/// What is sent, as a leaf of a plan. It is read once.
#[derive(Debug)]
struct Rows {
    schema: SchemaRef,
    receiver: Mutex<Option<mpsc::Receiver<RecordBatch>>>,
}

impl PartitionStream for Rows {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let receiver = self.receiver.lock().take();
        let rows: futures::stream::BoxStream<'static, DfResult<RecordBatch>> = match receiver {
            Some(receiver) => futures::stream::unfold(receiver, |mut receiver| async move {
                receiver.recv().await.map(|batch| (Ok(batch), receiver))
            })
            .boxed(),
            None => {
                let twice = DataFusionError::Internal("rows to be sorted are read twice".to_owned());
                futures::stream::once(async move { Err(twice) }).boxed()
            }
        };
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), rows))
    }
}
