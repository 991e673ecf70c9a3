//! Runs plans away from the sockets.
//!
//! Each statement is one task on the query runtime, which feeds a channel of [`QUEUED_BATCHES`] batches: a client
//! that reads slowly holds its query back, and one that goes away drops the stream and with it the task.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use arrow::array::ArrayRef;
use arrow::datatypes::{Schema, SchemaRef};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use datafusion::error::DataFusionError;
use datafusion::execution::{RecordBatchStream, SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use futures::{Future, FutureExt, Stream, StreamExt};
use parking_lot::Mutex;
use tidewater_catalogs::scan_memory;
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tokio_util::task::AbortOnDropHandle;

use crate::admission::{Admitted, STALLED};
use crate::engine::{Engine, SessionShared};
use crate::error::Result;
use crate::session::{StatementContext, Transaction, TransactionStatus};
use crate::{SqlError, SqlState};

const QUEUED_BATCHES: usize = 2;

/// What a query's task says. `Ok(None)` is the end of the rows, and nothing else is: a channel that merely closes
/// belongs to a task that was cut off, and its rows are not all there.
pub(crate) type Fed = Result<Option<RecordBatch>, DataFusionError>;

/// Lets `work` go on until it is done, cancelled or late.
pub(crate) async fn guard<T>(
    cancel: &CancellationToken,
    deadline: Option<Instant>,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    tokio::select! {
        biased;
        () = cancel.cancelled() => Err(SqlError::cancelled()),
        () = sleep_until(deadline) => Err(SqlError::timed_out()),
        done = work => done,
    }
}

/// A panic while a statement is planned or begun is a bug of that statement, and not of its connection.
pub(crate) async fn caught<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let outcome = std::panic::AssertUnwindSafe(work).catch_unwind().await;
    outcome.unwrap_or_else(|_| Err(SqlError::internal("the statement met a bug")))
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

/// Starts the plan. `schema` names the columns of the stream; types are the plan's.
pub(crate) fn start(
    ctx: &StatementContext<'_>,
    plan: Arc<dyn ExecutionPlan>,
    task: Arc<TaskContext>,
    schema: SchemaRef,
) -> SendableRecordBatchStream {
    start_plan(ctx.engine, Limits::of(ctx), plan, task, schema)
}

/// What ends a statement before its time.
pub(crate) struct Limits {
    pub(crate) cancel: CancellationToken,
    pub(crate) deadline: Option<Instant>,
}

impl Limits {
    fn of(ctx: &StatementContext<'_>) -> Self {
        Self { cancel: ctx.cancel.clone(), deadline: ctx.deadline }
    }
}

/// As [`start`], for who has no statement at hand.
pub(crate) fn start_plan(
    engine: &Engine,
    limits: Limits,
    plan: Arc<dyn ExecutionPlan>,
    task: Arc<TaskContext>,
    schema: SchemaRef,
) -> SendableRecordBatchStream {
    let admission = Arc::clone(&engine.admission);
    feed_apart(engine, limits, schema, move |sender| async move {
        let admitted = admission.enter(scan_memory(&plan)).await;
        feed(plan, task, &sender, Some(admitted)).await;
    })
}

/// Starts what feeds a stream by itself. It must end with `Ok(None)` or an error.
pub(crate) fn start_fed<F>(
    ctx: &StatementContext<'_>,
    schema: SchemaRef,
    feed: impl FnOnce(mpsc::Sender<Fed>) -> F,
) -> SendableRecordBatchStream
where
    F: Future<Output = ()> + Send + 'static,
{
    feed_apart(ctx.engine, Limits::of(ctx), schema, feed)
}

fn feed_apart<F>(
    engine: &Engine,
    limits: Limits,
    schema: SchemaRef,
    feed: impl FnOnce(mpsc::Sender<Fed>) -> F,
) -> SendableRecordBatchStream
where
    F: Future<Output = ()> + Send + 'static,
{
    let (sender, receiver) = mpsc::channel(QUEUED_BATCHES);
    let fed = feed(sender.clone());
    let handle = engine.query_runtime.spawn(async move {
        // A panic in an operator is a bug of one query, not of the connection.
        let fed = std::panic::AssertUnwindSafe(fed).catch_unwind().await;
        if fed.is_err() {
            let _ = sender.send(Err(SqlError::internal("the query met a bug").into())).await;
        }
    });
    Box::pin(QueryStream {
        schema,
        receiver,
        task: AbortOnDrop(handle),
        cancelled: Box::pin(limits.cancel.cancelled_owned()),
        late: limits.deadline.map(|at| Box::pin(tokio::time::sleep_until(at.into()))),
        done: false,
    })
}

pub(crate) async fn feed(
    plan: Arc<dyn ExecutionPlan>,
    task: Arc<TaskContext>,
    sender: &mpsc::Sender<Fed>,
    mut admitted: Option<Admitted>,
) {
    let mut stream = match execute_stream(plan, task) {
        Ok(stream) => stream,
        Err(e) => {
            let _ = sender.send(Err(e)).await;
            return;
        }
    };
    while let Some(item) = stream.next().await {
        let failed = item.is_err();
        if matches!(&item, Ok(batch) if batch.num_rows() == 0) {
            continue;
        }
        if !hand_on(sender, item.map(Some), &mut admitted, STALLED).await || failed {
            return;
        }
    }
    drop((stream, admitted));
    let _ = sender.send(Ok(None)).await;
}

/// False where nobody listens any more. A query whose client keeps it waiting does not keep others waiting for long.
async fn hand_on(sender: &mpsc::Sender<Fed>, item: Fed, admitted: &mut Option<Admitted>, patience: Duration) -> bool {
    if admitted.is_some() {
        match tokio::time::timeout(patience, sender.reserve()).await {
            Ok(Ok(place)) => {
                place.send(item);
                return true;
            }
            Ok(Err(_)) => return false,
            Err(_) => *admitted = None,
        }
    }
    sender.send(item).await.is_ok()
}

/// Runs to its end even where the client goes away, so that nothing stays half made.
pub(crate) async fn detached<T: Send + 'static>(
    ctx: &StatementContext<'_>,
    work: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    to_end(ctx.engine, work).await
}

pub(crate) async fn to_end<T: Send + 'static>(
    engine: &crate::Engine,
    work: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    joined(engine.query_runtime.spawn(work).await)
}

/// Work on the query runtime that may stop anywhere, and does where nobody waits for it any more.
pub(crate) async fn abortable<T: Send + 'static>(
    ctx: &StatementContext<'_>,
    work: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    joined(AbortOnDropHandle::new(ctx.engine.query_runtime.spawn(work)).await)
}

fn joined<T>(done: Result<Result<T>, tokio::task::JoinError>) -> Result<T> {
    match done {
        Ok(done) => done,
        // The end of the query runtime: nobody knows how far it came.
        Err(e) if e.is_cancelled() => Err(SqlError::new(
            SqlState::COMPLETION_UNKNOWN,
            "the server stopped before the statement had ended: it may have taken effect",
        )
        .with_hint("Look at the table before you run the statement again.")),
        Err(e) => Err(SqlError::internal("a task of the statement broke off").with_detail(e.to_string())),
    }
}

struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

struct QueryStream {
    schema: SchemaRef,
    receiver: mpsc::Receiver<Fed>,
    task: AbortOnDrop,
    cancelled: Pin<Box<WaitForCancellationFutureOwned>>,
    late: Option<Pin<Box<tokio::time::Sleep>>>,
    done: bool,
}

impl QueryStream {
    fn stop(&mut self, error: SqlError) -> Poll<Option<Result<RecordBatch, DataFusionError>>> {
        self.done = true;
        self.task.0.abort();
        Poll::Ready(Some(Err(error.into())))
    }
}

impl Stream for QueryStream {
    type Item = Result<RecordBatch, DataFusionError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.done {
            return Poll::Ready(None);
        }
        // Asked before each batch: a query that is always ready must be stoppable as well.
        if self.cancelled.as_mut().poll(cx).is_ready() {
            return self.stop(SqlError::cancelled());
        }
        if let Some(late) = &mut self.late
            && late.as_mut().poll(cx).is_ready()
        {
            return self.stop(SqlError::timed_out());
        }
        match self.receiver.poll_recv(cx) {
            Poll::Ready(Some(Ok(Some(batch)))) => {
                let schema = self.schema.clone();
                Poll::Ready(Some(conform(batch, &schema)))
            }
            Poll::Ready(Some(Ok(None))) => {
                self.done = true;
                Poll::Ready(None)
            }
            Poll::Ready(Some(Err(e))) => {
                self.done = true;
                Poll::Ready(Some(Err(e)))
            }
            // Only the end of the query runtime drops a task whose stream is still read.
            Poll::Ready(None) => self.stop(SqlError::shutting_down()),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl RecordBatchStream for QueryStream {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }
}

/// The batch under the names (and types, where they differ) that were announced.
pub(crate) fn conform(batch: RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, DataFusionError> {
    let mut columns: Vec<ArrayRef> = Vec::with_capacity(batch.num_columns());
    for (column, field) in batch.columns().iter().zip(schema.fields()) {
        columns.push(if column.data_type() == field.data_type() {
            column.clone()
        } else {
            arrow::compute::cast(column, field.data_type())?
        });
    }
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(schema.clone(), columns, &options)?)
}

/// A stream whose errors fail the block that it was begun in.
pub(crate) fn watch(
    inner: SendableRecordBatchStream,
    transaction: Arc<Mutex<Transaction>>,
    shared: Arc<SessionShared>,
) -> SendableRecordBatchStream {
    let generation = transaction.lock().generation;
    Box::pin(WatchedStream { inner, transaction, generation, shared })
}

struct WatchedStream {
    inner: SendableRecordBatchStream,
    transaction: Arc<Mutex<Transaction>>,
    generation: u64,
    shared: Arc<SessionShared>,
}

impl Stream for WatchedStream {
    type Item = Result<RecordBatch, DataFusionError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let item = self.inner.poll_next_unpin(cx);
        if let Poll::Ready(Some(Err(_))) = &item {
            let mut transaction = self.transaction.lock();
            if transaction.generation == self.generation && transaction.status == TransactionStatus::InBlock {
                transaction.status = TransactionStatus::Failed;
            }
        }
        item
    }
}

impl RecordBatchStream for WatchedStream {
    fn schema(&self) -> SchemaRef {
        self.inner.schema()
    }
}

impl Drop for WatchedStream {
    fn drop(&mut self) {
        self.shared.visible.lock().active = false;
    }
}

/// A stream over rows that are there already.
pub(crate) fn rows(schema: SchemaRef, batches: Vec<RecordBatch>) -> SendableRecordBatchStream {
    let stream = futures::stream::iter(batches.into_iter().map(Ok));
    Box::pin(datafusion::physical_plan::stream::RecordBatchStreamAdapter::new(schema, stream))
}

/// The schema that result columns announce.
pub(crate) fn schema_of(columns: &[crate::ResultColumn]) -> SchemaRef {
    Arc::new(Schema::new(columns.iter().map(|c| c.field.clone()).collect::<Vec<_>>()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use crate::admission::Admission;

    #[tokio::test]
    async fn a_client_that_does_not_read_keeps_nobody_waiting() {
        let gate = Admission::new(8 << 20);
        let mut admitted = Some(gate.enter(8 << 20).await);
        let batch = || Ok(Some(RecordBatch::new_empty(Arc::new(Schema::empty()))));
        let (sender, mut receiver) = mpsc::channel(1);
        let patience = Duration::from_millis(20);
        assert!(hand_on(&sender, batch(), &mut admitted, patience).await);
        assert!(gate.enter(2 << 20).now_or_never().is_none(), "the first runs still");
        // The channel is full, and stays so until another query has begun.
        let reader = async {
            let other = gate.enter(2 << 20).await;
            while receiver.recv().await.is_some_and(|fed| fed.is_ok()) {}
            drop(other);
        };
        let query = async {
            assert!(hand_on(&sender, batch(), &mut admitted, patience).await, "its client reads again");
            assert!(admitted.is_none());
            drop(sender);
        };
        tokio::join!(reader, query);
    }
}
