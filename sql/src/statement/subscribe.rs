//! SUBSCRIBE: rows of a stream as they come; and COPY (…) TO STDOUT, in which psql shows them at once.
//!
//! One task reads, applies the query and feeds a channel of two batches: a client that reads slowly stops the task, and
//! the task the reader, whose buffer is bounded. Dropping the stream ends all of it.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Array, Int64Array};
use arrow::datatypes::DataType;
use arrow::record_batch::RecordBatch;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use parking_lot::Mutex;
use tidewater_catalogs::{
    ErrorKind, HiddenColumn, Offsets, OnError, ReadBatch, ReadRequest, StartPosition, StreamReader, StreamSource,
    TopicLayout,
};
use tidewater_streaming::FlowLane;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::dialect::{Statement, Subscribe, SubscribeFrom, SubscribeUntil, list};
use crate::error::Result;
use crate::plan::flow;
use crate::run::{self, Fed, guard};
use crate::session::{Notice, Outcome, Prepared, ResultColumn, RowsTag, StatementContext};
use crate::{SqlError, SqlState};

/// Decoded rows that wait for the query. The broker's client holds as much once more.
const BUFFER_BYTES: usize = 8 << 20;
/// Charged to the memory of queries: both buffers, and the batches on their way.
const CHARGED_BYTES: usize = 3 * BUFFER_BYTES;
/// How often the topic is asked for new partitions, and whether it is still the same.
const LAYOUT_POLL: Duration = Duration::from_secs(5);
/// A broker that does not answer for this long ends the statement.
const PATIENCE: Duration = Duration::from_secs(60);
const RETRY: Duration = Duration::from_millis(250);

pub(super) async fn describe(
    ctx: &StatementContext<'_>,
    subscribe: &Subscribe,
) -> Result<(Vec<DataType>, Option<Vec<ResultColumn>>)> {
    let (_, columns) = flow::compile_subscription(ctx.engine, ctx.settings, &subscribe.query).await?;
    Ok((Vec::new(), Some(columns)))
}

/// COPY (…) TO STDOUT.
pub(super) async fn copy_out(ctx: &StatementContext<'_>, inner: &Statement, prepared: &Prepared) -> Result<Outcome> {
    let outcome = match inner {
        Statement::Subscribe(subscribe) => execute(ctx, subscribe).await?,
        Statement::Sql(sql) => match sql.as_ref() {
            sqlparser::ast::Statement::Query(query) => super::select::execute(ctx, query, prepared).await?,
            _ => return Err(SqlError::internal("COPY of no query")),
        },
        _ => return Err(SqlError::internal("COPY of no query")),
    };
    Ok(match outcome {
        Outcome::Rows { columns, stream, .. } => Outcome::Rows { columns, stream, tag: RowsTag::Copy },
        other => other,
    })
}

pub(super) async fn execute(ctx: &StatementContext<'_>, subscribe: &Subscribe) -> Result<Outcome> {
    guard(&ctx.cancel, ctx.deadline, async {
        let (compiled, columns) = flow::compile_subscription(ctx.engine, ctx.settings, &subscribe.query).await?;
        let source = compiled.stream.source.clone();
        let layout = source.layout().await?;
        let positions = source
            .start_offsets(&match &subscribe.from {
                SubscribeFrom::Now => StartPosition::Latest,
                SubscribeFrom::Snapshot => StartPosition::Earliest,
                SubscribeFrom::Offsets(offsets) => StartPosition::Offsets(offsets.clone()),
            })
            .await?;
        let (until, limit) = match &subscribe.until {
            None => (None, u64::MAX),
            Some(SubscribeUntil::Limit(rows)) => (None, *rows),
            Some(SubscribeUntil::Offsets(until)) => {
                check_until(until, &positions)?;
                (Some(until.clone()), u64::MAX)
            }
        };
        let memory = MemoryConsumer::new("SUBSCRIBE").register(&ctx.engine.runtime_env().memory_pool);
        memory.try_grow(CHARGED_BYTES)?;
        let wanted = compiled.query.projection().to_vec();
        let mut projection = wanted.clone();
        let offset = source.schema().index_of(HiddenColumn::Offset.name())?;
        if until.is_some() && !projection.contains(&offset) {
            projection.push(offset);
            projection.sort_unstable();
        }
        let at = |column: &usize| projection.binary_search(column).ok();
        let reading = Subscription {
            lane: compiled.query.lane()?,
            input: wanted.iter().filter_map(at).collect(),
            offset: at(&offset),
            projection,
            on_error: match compiled.stream.definition.spec.on_error {
                OnError::Fail => OnError::Fail,
                // The dead-letter table is filled by flows; here such records are counted.
                OnError::Dlq | OnError::Skip => OnError::Skip,
            },
            source,
            layout,
            positions,
            until,
            left: limit,
            skipped: 0,
            told: 0,
            stream: compiled.stream.name.name.clone(),
            notices: ctx.notices.clone(),
            _memory: memory,
        };
        let schema = run::schema_of(&columns);
        let stream = run::start_fed(ctx, schema, |sender| reading.run(sender));
        Ok(Outcome::Rows { columns, stream, tag: RowsTag::Subscribe })
    })
    .await
}

/// An end must be given for each partition: one without would keep the statement from ending, or be left out unsaid.
fn check_until(until: &Offsets, positions: &Offsets) -> Result<()> {
    if let Some((partition, _)) = until.iter().find(|(p, _)| positions.get(*p).is_none()) {
        return Err(SqlError::new(
            SqlState::INVALID_PARAMETER,
            format!("the topic has no partition {partition}, which UNTIL OFFSETS names"),
        ));
    }
    let missing: Vec<String> =
        positions.iter().filter(|(p, _)| until.get(*p).is_none()).map(|(p, _)| p.to_string()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(SqlError::new(SqlState::INVALID_PARAMETER, "UNTIL OFFSETS must name every partition of the topic")
        .with_detail(format!("Not named: {}.", list(missing.iter().map(String::as_str), "and")))
        .with_hint("Give a partition that is not wanted the offset at which it begins, or 0."))
}

struct Subscription {
    source: Arc<dyn StreamSource>,
    lane: Box<dyn FlowLane>,
    /// Columns of what is read, as indexes into the stream's schema.
    projection: Vec<usize>,
    /// Of these, those that the query takes; and where the offset is, if it is there.
    input: Vec<usize>,
    offset: Option<usize>,
    on_error: OnError,
    layout: TopicLayout,
    positions: Offsets,
    until: Option<Offsets>,
    /// Rows that may still go out.
    left: u64,
    skipped: u64,
    told: u64,
    stream: String,
    notices: Arc<Mutex<Vec<Notice>>>,
    _memory: MemoryReservation,
}

impl Subscription {
    async fn run(mut self, sender: mpsc::Sender<Fed>) {
        let ended = self.read(&sender).await;
        self.tell();
        // Whoever is gone needs no end.
        let _ = sender.send(ended.map(|()| None).map_err(Into::into)).await;
    }

    /// Until the end that was asked for; without one, for as long as someone listens.
    async fn read(&mut self, sender: &mpsc::Sender<Fed>) -> Result<()> {
        let mut reader: Option<Box<dyn StreamReader>> = None;
        let mut failing_since: Option<Instant> = None;
        let mut look = poll_layout(&self.source);
        while !self.is_done() {
            let step = match &mut reader {
                None => {
                    let (source, request) = (self.source.clone(), self.request());
                    source.open(request).await.map(|opened| {
                        reader = Some(opened);
                        None
                    })
                }
                Some(open) => tokio::select! {
                    batch = open.next() => batch.map(Some),
                    layout = &mut look => {
                        look = poll_layout(&self.source);
                        if self.on_layout(layout)? {
                            reader = None;
                        }
                        continue;
                    }
                    () = sender.closed() => return Ok(()),
                },
            };
            match step {
                Ok(batch) => {
                    failing_since = None;
                    if let Some(batch) = batch
                        && !self.pass_on(batch, sender).await?
                    {
                        return Ok(());
                    }
                }
                Err(e) if e.is_retryable() => {
                    reader = None;
                    if failing_since.get_or_insert_with(Instant::now).elapsed() > PATIENCE {
                        return Err(self.resumable(e.into()));
                    }
                    tokio::time::sleep(RETRY).await;
                }
                Err(e) => return Err(self.resumable(e.into())),
            }
        }
        Ok(())
    }

    fn is_done(&self) -> bool {
        let reached = |until: &Offsets| until.iter().all(|(p, end)| self.positions.get(p).is_some_and(|at| at >= end));
        self.left == 0 || self.until.as_ref().is_some_and(reached)
    }

    fn request(&self) -> ReadRequest {
        // Partitions that are at their end would only be read for nothing.
        let wanted = |p: i32, at: i64| self.until.as_ref().is_none_or(|until| until.get(p).is_some_and(|end| at < end));
        ReadRequest {
            from: self.positions.iter().filter(|(p, at)| wanted(*p, *at)).collect(),
            projection: self.projection.clone(),
            on_error: self.on_error,
            buffer_bytes: BUFFER_BYTES,
        }
    }

    /// False where nobody listens any more.
    async fn pass_on(&mut self, batch: ReadBatch, sender: &mpsc::Sender<Fed>) -> Result<bool> {
        let ReadBatch { partition, from, to, mut rows, skipped, .. } = batch;
        if self.positions.get(partition) != Some(from) {
            return Err(SqlError::internal("the reader left out or repeated offsets"));
        }
        if let Some(end) = self.until.as_ref().and_then(|until| until.get(partition))
            && to > end
        {
            rows = self.before(&rows, end)?;
        }
        self.skipped += skipped;
        self.tell_now_and_then();
        let output = match rows.num_rows() {
            0 => Vec::new(),
            _ => {
                let rows = rows.project(&self.input)?;
                self.lane.apply(rows).await.map_err(|e| {
                    let e = e.with_context("partition", partition).with_context("offsets", format!("[{from}, {to})"));
                    let e = SqlError::from(e).with_hint(
                        "The query failed on a record. Make it accept the value (CASE, try_cast, nullif), and go on \
                         FROM OFFSETS.",
                    );
                    self.resumable(e)
                })?
            }
        };
        for batch in output {
            let rows = usize::try_from(self.left).map_or(batch.num_rows(), |left| left.min(batch.num_rows()));
            if rows == 0 {
                break;
            }
            self.left -= rows as u64;
            if sender.send(Ok(Some(batch.slice(0, rows)))).await.is_err() {
                return Ok(false);
            }
        }
        self.positions.set(partition, to);
        Ok(true)
    }

    /// The rows below offset `end`.
    fn before(&self, rows: &RecordBatch, end: i64) -> Result<RecordBatch> {
        let offsets = self.offset.and_then(|i| rows.columns().get(i)).and_then(|c| c.as_any().downcast_ref());
        let offsets: &Int64Array = offsets.ok_or_else(|| SqlError::internal("a batch of the stream lacks offsets"))?;
        debug_assert_eq!(offsets.null_count(), 0);
        Ok(rows.slice(0, offsets.values().partition_point(|offset| *offset < end)))
    }

    /// True where a new reader is needed. Without an answer of the broker nothing changes: the reader finds out.
    fn on_layout(&mut self, layout: Result<TopicLayout, tidewater_catalogs::Error>) -> Result<bool> {
        let layout = match layout {
            Ok(layout) => layout,
            Err(e) if e.is_retryable() => return Ok(false),
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(false),
            Err(e) => return Err(e.into()),
        };
        let other = |known: &str, now: &str| !known.is_empty() && !now.is_empty() && known != now;
        if other(&self.layout.topic_id, &layout.topic_id) || other(&self.layout.cluster_id, &layout.cluster_id) {
            return Err(SqlError::new(
                SqlState::NOT_IN_PREREQUISITE_STATE,
                format!("the topic of stream \"{}\" was deleted and created again", self.stream),
            )
            .with_hint("Offsets of the old topic mean nothing in the new one: subscribe again FROM SNAPSHOT."));
        }
        self.layout = layout;
        if self.until.is_some() {
            return Ok(false);
        }
        let mut new = false;
        for (partition, low) in self.layout.lows().iter() {
            if self.positions.get(partition).is_none() {
                self.positions.set(partition, low);
                new = true;
            }
        }
        Ok(new)
    }

    fn tell_now_and_then(&mut self) {
        // At the first one, and each time that it has doubled.
        if self.skipped > 0 && self.skipped >= 2 * self.told {
            self.tell();
        }
    }

    fn tell(&mut self) {
        if self.skipped > self.told {
            self.told = self.skipped;
            let records = if self.skipped == 1 { "record" } else { "records" };
            self.notices.lock().push(Notice::notice(format!(
                "{} malformed {records} of stream \"{}\" skipped so far",
                self.skipped, self.stream
            )));
        }
    }

    /// Says where a client that has lost count can go on.
    fn resumable(&self, mut e: SqlError) -> SqlError {
        if e.detail.is_none()
            && let Ok(offsets) = serde_json::to_string(&self.positions)
        {
            e.detail = Some(format!("All rows below these offsets were sent: {offsets}."));
        }
        e
    }
}

type Look = std::pin::Pin<Box<dyn Future<Output = Result<TopicLayout, tidewater_catalogs::Error>> + Send>>;

fn poll_layout(source: &Arc<dyn StreamSource>) -> Look {
    let source = source.clone();
    Box::pin(async move {
        tokio::time::sleep(LAYOUT_POLL).await;
        source.layout().await
    })
}
