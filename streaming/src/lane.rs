//! A lane: some partitions, one reader, one copy of the query, one writer. It runs in a task of its own.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, AsArray, Int64Array, StringArray};
use arrow::datatypes::{Int64Type, Schema};
use arrow::record_batch::RecordBatch;
use std::sync::atomic::Ordering;
use tidewater_catalogs::{
    CommitTable, Error, ErrorKind, Offsets, OnError, ReadBatch, ReadRequest, Result, StreamReader, StreamSource,
    TableName,
};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::{Instant, timeout};
use uuid::Uuid;

use crate::checkpoint::{PartitionMove, RowCounts, SourcePositions};
use crate::env::Env;
use crate::failure::{Failure, FlowResult};
use crate::hot::HotRows;
use crate::source;
use crate::spec::FlowLane;
use crate::status::StatusCell;
use crate::trigger::{CountedWriter, LaneCut, Memory, OpenTrigger};

/// After this many reports of lost offsets that the topic's own numbers do not bear out, the report is believed.
const MAX_UNFOUNDED_LOSSES: u32 = 5;

pub(crate) enum LaneCommand {
    /// Hand over what there is, and go on with the next trigger.
    Cut { next: OpenTrigger, reply: oneshot::Sender<LaneCut> },
    /// Read these partitions as well.
    Add(Vec<(i32, i64)>),
}

/// What a lane needs and does not change.
#[derive(Debug, Clone)]
pub(crate) struct LaneSetup {
    pub(crate) flow: TableName,
    pub(crate) flow_id: Uuid,
    pub(crate) source: Arc<dyn StreamSource>,
    pub(crate) identity: SourcePositions,
    pub(crate) target: Arc<dyn CommitTable>,
    pub(crate) dead_letters: Arc<dyn CommitTable>,
    pub(crate) projection: Vec<usize>,
    pub(crate) on_error: OnError,
    pub(crate) skip_data_loss: bool,
    pub(crate) max_trigger_bytes: u64,
    pub(crate) reader_bytes: usize,
    pub(crate) memory: Arc<Memory>,
    pub(crate) hot: Arc<HotRows>,
    pub(crate) status: Arc<StatusCell>,
    /// Tells the coordinator that a trigger is full.
    pub(crate) wake: Arc<Notify>,
    pub(crate) env: Env,
}

/// Next offsets of one partition: as the trigger before left it, and as consumed.
#[derive(Debug, Clone, Copy)]
struct Span {
    from: i64,
    to: i64,
}

pub(crate) struct Lane {
    setup: LaneSetup,
    query: Box<dyn FlowLane>,
    commands: mpsc::Receiver<LaneCommand>,
    open: OpenTrigger,
    reader: Option<Box<dyn StreamReader>>,
    spans: BTreeMap<i32, Span>,
    cut: LaneCut,
    failures: u32,
    unfounded_losses: u32,
    /// The topic was not there when last asked for.
    absent: bool,
    retry_at: Option<Instant>,
}

impl LaneSetup {
    pub(crate) fn is_full(&self, open: &OpenTrigger) -> bool {
        open.meter.source_bytes.load(Ordering::Relaxed) >= self.max_trigger_bytes || self.memory.is_full()
    }
}

impl Lane {
    /// `positions` and `gaps` must name this lane's partitions only; a gap begins at its partition's position.
    pub(crate) fn new(
        setup: LaneSetup,
        query: Box<dyn FlowLane>,
        commands: mpsc::Receiver<LaneCommand>,
        open: OpenTrigger,
        positions: &Offsets,
        gaps: &[PartitionMove],
    ) -> Self {
        let spans = positions.iter().map(|(p, next)| (p, Span { from: next, to: next })).collect();
        let mut lane = Self {
            setup,
            query,
            commands,
            open,
            reader: None,
            spans,
            cut: LaneCut::default(),
            failures: 0,
            unfounded_losses: 0,
            absent: false,
            retry_at: None,
        };
        lane.skip(gaps);
        lane
    }

    /// Runs until the commands end.
    pub(crate) async fn run(mut self) -> FlowResult<()> {
        let mut released = self.setup.memory.watch();
        loop {
            // Taken before the test, so that bytes given back in between wake us.
            released.borrow_and_update();
            let full = self.setup.is_full(&self.open);
            if full {
                self.setup.wake.notify_one();
            }
            let waiting = self.retry_at;
            let wanted = !full && waiting.is_none() && !self.spans.is_empty();
            if wanted && self.reader.is_none() {
                match self.open_reader().await {
                    // That asks the broker for the topic and the partitions.
                    Ok(()) if self.absent => {
                        self.absent = false;
                        self.setup.status.topic_back();
                    }
                    Ok(()) => {}
                    Err(e) => self.on_read_error(e).await?,
                }
                continue;
            }
            let mut read = None;
            tokio::select! {
                biased;
                command = self.commands.recv() => match command {
                    Some(command) => self.obey(command),
                    None => return Ok(()),
                },
                _ = released.changed(), if full => {}
                () = sleep_until(waiting), if waiting.is_some() => self.retry_at = None,
                batch = next(self.reader.as_mut()), if wanted => read = Some(batch),
            }
            match read {
                Some(Ok(batch)) => self.take(batch).await?,
                Some(Err(e)) => self.on_read_error(e).await?,
                None => {}
            }
        }
    }

    fn positions(&self) -> Offsets {
        self.spans.iter().map(|(p, s)| (*p, s.to)).collect()
    }

    async fn open_reader(&mut self) -> Result<()> {
        let request = ReadRequest {
            from: self.positions(),
            projection: self.setup.projection.clone(),
            on_error: self.setup.on_error,
            buffer_bytes: self.setup.reader_bytes,
        };
        // Cuts wait while this does.
        let opened = timeout(self.setup.env.settings.load_timeout, self.setup.source.open(request)).await;
        self.reader = Some(opened.unwrap_or_else(|_| Err(Error::unavailable("the broker did not answer in time")))?);
        Ok(())
    }

    fn obey(&mut self, command: LaneCommand) {
        match command {
            LaneCommand::Cut { next, reply } => {
                let mut cut = std::mem::take(&mut self.cut);
                for (partition, span) in &mut self.spans {
                    cut.moves.push(PartitionMove { partition: *partition, from: span.from, to: span.to });
                    span.from = span.to;
                }
                self.open = next;
                // Nobody waits any more when the flow is on its way out.
                let _ = reply.send(cut);
            }
            LaneCommand::Add(partitions) => {
                for (partition, next) in partitions {
                    self.spans.entry(partition).or_insert(Span { from: next, to: next });
                    self.setup.status.moved(partition, next);
                }
                // What the old reader had decoded ahead is read again: only what `take` saw counts.
                self.reader = None;
            }
        }
    }

    async fn take(&mut self, batch: ReadBatch) -> FlowResult<()> {
        let Some(span) = self.spans.get(&batch.partition).copied() else {
            return Err(Error::internal("the reader returned a partition that was not asked for")
                .with_context("partition", batch.partition)
                .into());
        };
        if batch.from != span.to || batch.to < batch.from {
            return Err(Error::internal("the reader left out or repeated offsets")
                .with_context("partition", batch.partition)
                .with_context("expected", span.to)
                .with_context("from", batch.from)
                .with_context("to", batch.to)
                .into());
        }
        let decoded = batch.rows.num_rows() as u64;
        let dead = batch.dead_letters.as_ref().map_or(0, |d| d.num_rows() as u64);
        if batch.records != decoded + dead + batch.skipped {
            return Err(Error::internal("the reader's books do not balance")
                .with_context("partition", batch.partition)
                .with_context("from", batch.from)
                .with_context("records", batch.records)
                .with_context("rows", decoded)
                .with_context("dead letters", dead)
                .with_context("skipped", batch.skipped)
                .into());
        }

        let mut out = 0;
        if decoded > 0 {
            let rows = batch.rows.clone();
            let batches = match self.query.apply(rows).await {
                Ok(batches) => batches,
                Err(e) => return Err(Failure::of_record(self.culprit(e, &batch).await)),
            };
            let mut shown = Vec::with_capacity(batches.len());
            for output in batches.into_iter().filter(|b| b.num_rows() > 0) {
                out += output.num_rows() as u64;
                let writer = match &mut self.cut.writer {
                    Some(writer) => writer,
                    slot => {
                        let writer = self.setup.target.writer(self.open.commit_uuid)?;
                        slot.insert(CountedWriter::new(writer, &self.setup.memory))
                    }
                };
                shown.push(output.clone());
                writer.write(output).await.map_err(|e| Failure::of_record(blame(e, &batch)))?;
            }
            if !shown.is_empty() {
                self.setup.hot.offer(self.open.seq, shown);
            }
        }
        if let Some(letters) = batch.dead_letters.as_ref().filter(|_| dead > 0) {
            let letters = self.address(letters)?;
            let writer = match &mut self.cut.dead {
                Some(writer) => writer,
                slot => {
                    let writer = self.setup.dead_letters.writer(self.open.commit_uuid)?;
                    slot.insert(CountedWriter::new(writer, &self.setup.memory))
                }
            };
            writer.write(letters).await?;
        }

        self.cut.rows.add(&RowCounts {
            records: batch.records,
            decoded,
            out,
            dead,
            skipped: batch.skipped,
            replayed: 0,
        });
        self.cut.max_timestamp_ms = self.cut.max_timestamp_ms.max(batch.max_timestamp_ms);
        self.spans.insert(batch.partition, Span { from: span.from, to: batch.to });
        self.note(&batch, out, dead);
        Ok(())
    }

    /// The error of the record that broke the query, found by halves; a query looks at each row by itself.
    async fn culprit(&mut self, e: Error, batch: &ReadBatch) -> Error {
        let (mut from, mut to, mut error) = (0, batch.rows.num_rows(), e);
        while to - from > 1 {
            let middle = from + (to - from) / 2;
            match self.query.apply(batch.rows.slice(from, middle - from)).await {
                Ok(_) => from = middle,
                Err(e) => (to, error) = (middle, e),
            }
        }
        // The second half was not tried by itself, and its rows may do alone what they do not together.
        if let Err(e) = self.query.apply(batch.rows.slice(from, to - from)).await
            && let Some(offset) = offset_of(from, batch)
        {
            return e.with_context("partition", batch.partition).with_context("offset", offset);
        }
        blame(error, batch)
    }

    /// Fills in what a reader cannot know: whose dead letters these are, and of which trigger. A table that an earlier
    /// version made lacks some of the columns.
    fn address(&self, letters: &RecordBatch) -> Result<RecordBatch> {
        let rows = letters.num_rows();
        let text = |text: String| Arc::new(StringArray::from_iter_values(std::iter::repeat_n(text, rows))) as ArrayRef;
        let schema = self.setup.dead_letters.schema();
        let mut fields = Vec::with_capacity(schema.fields().len());
        let mut columns = Vec::with_capacity(schema.fields().len());
        for field in schema.fields() {
            let (index, found) = letters.schema_ref().column_with_name(field.name()).ok_or_else(|| {
                Error::internal("the dead-letter table has a column that no one fills")
                    .with_context("column", field.name())
            })?;
            columns.push(match field.name().as_str() {
                "flow" => text(self.setup.flow.to_string()),
                "flow_id" => text(self.setup.flow_id.to_string()),
                "seq" => Arc::new(Int64Array::from_value(i64::try_from(self.open.seq).unwrap_or(i64::MAX), rows)),
                _ => Arc::clone(letters.column(index)),
            });
            fields.push(found.clone());
        }
        Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
    }

    fn note(&mut self, batch: &ReadBatch, out: u64, dead: u64) {
        let meter = &self.open.meter;
        meter.source_bytes.fetch_add(batch.source_bytes, Ordering::Relaxed);
        meter.moved.store(true, Ordering::Relaxed);
        if out + dead > 0 {
            meter.output.store(true, Ordering::Relaxed);
        }
        if self.failures > 0 || self.unfounded_losses > 0 {
            self.failures = 0;
            self.unfounded_losses = 0;
            self.setup.status.topic_back();
        }
        let status = &self.setup.status;
        status.consumed(batch, out, dead);
        let metrics = status.metrics();
        metrics.rows_in.increment(batch.records);
        metrics.rows_out.increment(out);
        metrics.rows_dead.increment(dead);
        metrics.rows_skipped.increment(batch.skipped);
        metrics.bytes.increment(batch.source_bytes);
    }

    async fn on_read_error(&mut self, e: Error) -> FlowResult<()> {
        match e.kind() {
            ErrorKind::DataLoss => self.on_data_loss(e).await,
            // The topic, or a partition. The reader is done for; whether it is gone for good, the coordinator finds
            // out when it looks at the topic.
            ErrorKind::NotFound => {
                self.reader = None;
                self.absent = true;
                self.wait_out(&e);
                Ok(())
            }
            _ if e.is_retryable() => {
                self.wait_out(&e);
                Ok(())
            }
            _ => Err(Failure::of_record(e)),
        }
    }

    /// The reader is asked once more; after that a new one is opened, as the old one may be done for.
    fn wait_out(&mut self, e: &Error) {
        self.failures = self.failures.saturating_add(1);
        tracing::warn!(flow = %self.setup.flow, error = %e, failures = self.failures, "topic does not answer");
        // Over when the topic can be asked for its marks again: no record may come for long.
        self.setup.status.topic_away(e, self.setup.env.now_ms());
        if self.failures > 1 {
            self.reader = None;
        }
        let s = &self.setup.env.settings;
        let pause = self.setup.env.back_off(self.failures, s.retry_min, s.retry_max);
        self.retry_at = Some(Instant::now() + pause.max(Duration::from_millis(1)));
    }

    async fn on_data_loss(&mut self, e: Error) -> FlowResult<()> {
        self.reader = None;
        let settings = &self.setup.env.settings;
        let layout = match timeout(settings.load_timeout, self.setup.source.layout()).await {
            Ok(Ok(layout)) => layout,
            Ok(Err(e)) if e.is_retryable() || e.kind() == ErrorKind::NotFound => {
                self.wait_out(&e);
                return Ok(());
            }
            Ok(Err(e)) => return Err(e.into()),
            Err(_) => {
                self.wait_out(&Error::unavailable("the broker did not answer in time"));
                return Ok(());
            }
        };
        source::check_identity(&self.setup.identity, &layout)?;
        let gaps = source::gaps(&self.positions(), &layout)?;
        if gaps.is_empty() {
            // Low-water marks travel slower than refusals; ask again, a few times.
            self.unfounded_losses += 1;
            if self.unfounded_losses > MAX_UNFOUNDED_LOSSES {
                return Err(e.into());
            }
            self.wait_out(&e);
            return Ok(());
        }
        if !self.setup.skip_data_loss {
            return Err(source::data_loss(&layout.topic, &gaps).into());
        }
        self.skip(&gaps);
        Ok(())
    }

    /// Goes on behind gaps, which the next checkpoint records.
    fn skip(&mut self, gaps: &[PartitionMove]) {
        for gap in gaps {
            let Some(span) = self.spans.get_mut(&gap.partition) else { continue };
            span.to = gap.to;
            self.cut.gaps.push(*gap);
            self.open.meter.output.store(true, Ordering::Relaxed);
            self.setup.status.moved(gap.partition, gap.to);
            self.setup.status.metrics().rows_lost.increment(gap.len());
            tracing::warn!(
                flow = %self.setup.flow, partition = gap.partition, from = gap.from, to = gap.to,
                "offsets lost to retention, going on behind them"
            );
        }
    }
}

/// The offset of a row, where each offset of the batch is a row or a dead letter.
fn offset_of(row: usize, batch: &ReadBatch) -> Option<i64> {
    if batch.skipped > 0 || i64::try_from(batch.records) != Ok(batch.to - batch.from) {
        return None;
    }
    let dead: HashSet<i64> = match &batch.dead_letters {
        Some(letters) => letters.column_by_name("_offset")?.as_primitive_opt::<Int64Type>()?.iter().flatten().collect(),
        None => HashSet::new(),
    };
    (batch.from..batch.to).filter(|offset| !dead.contains(offset)).nth(row)
}

/// Says which records an error of the query came from.
fn blame(e: Error, batch: &ReadBatch) -> Error {
    e.with_context("partition", batch.partition).with_context("offsets", format!("[{}, {})", batch.from, batch.to))
}

async fn next(reader: Option<&mut Box<dyn StreamReader>>) -> Result<ReadBatch> {
    match reader {
        Some(reader) => reader.next().await,
        None => std::future::pending().await,
    }
}

pub(crate) async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
