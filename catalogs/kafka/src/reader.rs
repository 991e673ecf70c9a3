//! The thread that polls and decodes, and the bounded queue that leads out of it.
//!
//! ```text
//!   librdkafka ──► Intake (1024 messages at once) ──► Lane per partition ──► queue, bounded by bytes ──► next()
//! ```
//!
//! One consumer, one queue over all its partitions and one thread per reader; more parallelism is more readers.
//! Records are decoded straight from librdkafka's memory. A partition's batch is handed on when it is full, when it
//! has waited [`LINGER`], or when the partition's end is reached; the end also moves the position past control
//! records, which never come as messages. Positions are our own: `[from, to)` of batch after batch of a partition
//! is gapless because each begins where the one before ended, whatever offsets the records have.
//!
//! | setting | value | why |
//! |---|---|---|
//! | `auto.offset.reset` | `error` | an offset that is gone is data loss, never a silent jump |
//! | `isolation.level` | `read_committed` | unless the stream says otherwise |
//! | `enable.partition.eof` | `true` | positions behind control records |
//! | `check.crcs` | `true` | broken bytes are an error |
//! | `fetch.min.bytes`, `fetch.wait.max.ms` | 1 MB, 50 ms | large fetches under load, a twentieth of a second otherwise |
//! | `queued.max.messages.kbytes`, `fetch.max.bytes` | see [`Ahead`] | bounds of what librdkafka holds for a reader |
//! | `fetch.queue.backoff.ms` | 10 ms | at the usual second, a reader that fills its queue stands still most of the time |

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use parking_lot::{Condvar, Mutex};
use rdkafka::consumer::Consumer;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::types::RDKafkaRespErr;
use tidewater_catalogs::{Error, ErrorKind, ReadBatch, Result, StreamReader};
use tokio::sync::Notify;

use crate::client::{Context, code_error, no_topic, refusal, trouble};
use crate::ffi::{Intake, Message};
use crate::lane::{Lane, ReadPlan};
use crate::options::{Ahead, Options, config_error};

const PARTITION_EOF: i32 = RDKafkaErrorCode::PartitionEOF as i32;
/// How long a record may wait for company. What a fetch brought is in the queue together, and is taken together.
const LINGER: Duration = Duration::from_millis(20);
/// How often an idle thread looks whether it is still wanted.
const IDLE: Duration = Duration::from_millis(100);
/// Brokers may be away this long before a reader says so.
const PATIENCE: Duration = Duration::from_secs(30);
/// After so much silence the topic is asked for: of one that was deleted librdkafka says nothing. A read that is to
/// end does not wait so long.
const SILENCE: Duration = Duration::from_secs(60);

/// One partition to read: `[from, until)`, or for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) partition: i32,
    pub(crate) from: i64,
    pub(crate) until: Option<i64>,
}

#[derive(Debug, Clone)]
pub(crate) struct Job {
    pub(crate) connection: String,
    pub(crate) options: Options,
    pub(crate) topic: String,
    pub(crate) read_uncommitted: bool,
    pub(crate) ranges: Vec<Range>,
    pub(crate) plan: Arc<ReadPlan>,
    /// Of all that is read ahead.
    pub(crate) buffer_bytes: usize,
}

/// Receives what the thread decodes. Dropping it ends the thread, which lets go of the connection.
pub(crate) struct Reader {
    queue: Arc<Queue>,
}

impl Reader {
    pub(crate) fn spawn(job: Job) -> Result<Self> {
        let queue = Arc::new(Queue {
            state: Mutex::default(),
            room: Condvar::new(),
            arrived: Notify::new(),
            limit: Ahead::within(job.buffer_bytes).decoded_bytes.max(1),
        });
        let guard = Producer(queue.clone());
        std::thread::Builder::new()
            // The system shows fifteen bytes of it.
            .name(format!("kafka {}", job.topic))
            .spawn(move || {
                if let Err(e) = run(&job, &guard.0) {
                    guard.0.fail(e);
                }
            })
            .map_err(|e| {
                Error::new(ErrorKind::ResourcesExhausted, "cannot start a thread for a reader").with_source(e)
            })?;
        Ok(Self { queue })
    }

    /// The next batch; `None` when all ranges are read to their end. Cancel-safe.
    pub(crate) async fn next(&self) -> Result<Option<ReadBatch>> {
        loop {
            // Registered before the look, so that nothing that comes in between is missed.
            let arrived = self.queue.arrived.notified();
            if let Some(item) = self.queue.pop() {
                return item;
            }
            arrived.await;
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.queue.state.lock().closed = true;
        self.queue.room.notify_all();
    }
}

#[async_trait]
impl StreamReader for Reader {
    async fn next(&mut self) -> Result<ReadBatch> {
        match Reader::next(self).await? {
            Some(batch) => Ok(batch),
            None => Err(Error::internal("a reader without end has ended")),
        }
    }
}

#[derive(Default)]
struct State {
    items: VecDeque<(Result<ReadBatch>, usize)>,
    bytes: usize,
    /// The reader is gone.
    closed: bool,
    /// The thread is gone; what it said last, again and again.
    ended: Option<End>,
}

enum End {
    Complete,
    Failed(Error),
}

struct Queue {
    state: Mutex<State>,
    room: Condvar,
    arrived: Notify,
    limit: usize,
}

impl Queue {
    fn pop(&self) -> Option<Result<Option<ReadBatch>>> {
        let mut state = self.state.lock();
        if let Some((item, bytes)) = state.items.pop_front() {
            state.bytes -= bytes;
            drop(state);
            self.room.notify_one();
            return Some(item.map(Some));
        }
        match &state.ended {
            None => None,
            Some(End::Complete) => Some(Ok(None)),
            Some(End::Failed(e)) => Some(Err(e.duplicate())),
        }
    }

    /// Waits for room. False where nobody listens any more.
    fn push(&self, item: Result<ReadBatch>) -> bool {
        let bytes = item.as_ref().map_or(0, |b| {
            b.rows.get_array_memory_size()
                + b.dead_letters.as_ref().map_or(0, arrow::array::RecordBatch::get_array_memory_size)
        });
        let mut state = self.state.lock();
        // One batch always fits, however large it is.
        while !state.closed && !state.items.is_empty() && state.bytes + bytes > self.limit {
            self.room.wait(&mut state);
        }
        if state.closed {
            return false;
        }
        // One error says it: a broker that refuses again and again must not fill the queue.
        if item.is_err() && matches!(state.items.back(), Some((Err(_), _))) {
            return true;
        }
        state.bytes += bytes;
        state.items.push_back((item, bytes));
        drop(state);
        self.arrived.notify_one();
        true
    }

    fn closed(&self) -> bool {
        self.state.lock().closed
    }

    fn end(&self, end: End) {
        self.state.lock().ended.get_or_insert(end);
        self.arrived.notify_one();
    }

    fn fail(&self, e: Error) {
        self.end(End::Failed(e));
    }
}

/// Held by the thread: however it ends, a waiting reader hears of it.
struct Producer(Arc<Queue>);

impl Drop for Producer {
    fn drop(&mut self) {
        let end = if std::thread::panicking() {
            End::Failed(Error::internal("the thread of a kafka reader panicked"))
        } else {
            End::Complete
        };
        self.0.end(end);
    }
}

struct Work<'a> {
    job: &'a Job,
    queue: &'a Queue,
    lanes: Vec<Lane>,
    /// Partition to lane.
    index: HashMap<i32, usize>,
    /// When the oldest record of a lane that is not handed on yet came in.
    waiting_since: Option<Instant>,
}

/// The thread's life. `Ok` when all is read or nobody listens any more.
fn run(job: &Job, queue: &Queue) -> Result<()> {
    let lanes = job
        .ranges
        .iter()
        .map(|r| Lane::new(job.plan.clone(), r.partition, r.from, r.until))
        .collect::<Result<Vec<_>>>()?;
    if lanes.is_empty() && job.ranges.is_empty() {
        // Nothing is asked for: an endless reader of nothing waits until it is dropped.
        return idle(queue);
    }
    let endless = job.ranges.iter().any(|r| r.until.is_none());
    let index = lanes.iter().enumerate().map(|(i, lane)| (lane.partition, i)).collect();
    let mut work = Work { job, queue, lanes, index, waiting_since: None };
    if work.complete() {
        return Ok(());
    }

    let context = Context::default();
    let settings = job.options.consumer(job.read_uncommitted, endless, &Ahead::within(job.buffer_bytes));
    let consumer = settings.create_with_context(context.clone()).map_err(|e| config_error(&job.connection, e))?;
    let mut intake = Intake::new(consumer, &job.topic)
        .ok_or_else(|| Error::invalid(format!("\"{}\" is no name of a kafka topic", job.topic)))?;
    for lane in work.lanes.iter().filter(|l| !l.done) {
        intake.start(lane.partition, lane.next).map_err(|code| {
            code_error(&job.connection, code, "read a partition").with_context("partition", lane.partition)
        })?;
    }

    let mut down_since: Option<Instant> = None;
    let mut heard = Instant::now();
    while !queue.closed() {
        // Errors that concern no partition, and log lines.
        for _ in 0..64 {
            if intake.consumer().poll(Duration::ZERO).is_none() {
                break;
            }
        }
        if context.take_trouble() {
            down_since.get_or_insert_with(Instant::now);
        }

        let wait = work.waiting_since.map_or(IDLE, |since| LINGER.saturating_sub(since.elapsed()));
        let n = intake.fill(wait);
        if n > 0 {
            down_since = None;
            heard = Instant::now();
        }
        for i in 0..n {
            let Some(message) = intake.get(i) else { break };
            if !work.take(&intake, message)? {
                return Ok(());
            }
        }
        if !work.hand_on()? {
            return Ok(());
        }
        for lane in &work.lanes {
            if lane.done {
                intake.stop(lane.partition);
            }
        }
        if work.complete() {
            return Ok(());
        }

        let silence = if endless { SILENCE } else { PATIENCE };
        if down_since.is_some_and(|since| since.elapsed() >= PATIENCE) || heard.elapsed() >= silence {
            // Brokers may have come back to a quiet topic, so ask before saying that they are away.
            heard = Instant::now();
            down_since = match intake.consumer().client().fetch_metadata(Some(&job.topic), Duration::from_secs(1)) {
                Ok(metadata) => {
                    let gone = metadata.topics().iter().any(|t| {
                        t.error().map(RDKafkaErrorCode::from) == Some(RDKafkaErrorCode::UnknownTopicOrPartition)
                    });
                    if gone {
                        return Err(no_topic(&job.topic));
                    }
                    work.still_there(&intake)?;
                    None
                }
                Err(_) => {
                    let error = trouble(&job.connection, context.last(), PATIENCE).with_context("topic", &job.topic);
                    if !queue.push(Err(error)) {
                        return Ok(());
                    }
                    Some(Instant::now())
                }
            };
        }
    }
    Ok(())
}

fn idle(queue: &Queue) -> Result<()> {
    let mut state = queue.state.lock();
    while !state.closed {
        queue.room.wait(&mut state);
    }
    Ok(())
}

impl Work<'_> {
    /// False where nobody listens any more.
    #[inline]
    fn take(&mut self, intake: &Intake<Context>, message: Message<'_>) -> Result<bool> {
        let Some(at) = self.index.get(&message.partition()).copied() else { return Ok(true) };
        let lane = &mut self.lanes[at];
        if lane.done {
            return Ok(true);
        }
        match message.code() {
            0 => {
                let offset = message.offset();
                // A compressed batch begins below the offset that was asked for.
                if offset < lane.next {
                    return Ok(true);
                }
                if let Some(until) = lane.until.filter(|until| offset >= *until) {
                    lane.reach(until);
                    return self.emit(at);
                }
                if let Err(e) = lane.push(&message) {
                    // What was read before the bad record is handed on first.
                    if !self.emit(at)? {
                        return Ok(false);
                    }
                    return Err(e);
                }
                if lane.is_full() || lane.done {
                    return self.emit(at);
                }
                self.waiting_since.get_or_insert_with(Instant::now);
                Ok(true)
            }
            PARTITION_EOF => {
                lane.reach(message.offset());
                self.emit(at)
            }
            code => {
                let (fatal, error) = self.explain(intake, at, code, message);
                if fatal {
                    for at in 0..self.lanes.len() {
                        if !self.emit(at)? {
                            return Ok(false);
                        }
                    }
                    return Err(error);
                }
                Ok(self.queue.push(Err(error)))
            }
        }
    }

    /// Hands on what has waited long enough.
    fn hand_on(&mut self) -> Result<bool> {
        if self.waiting_since.is_some_and(|since| since.elapsed() >= LINGER) {
            self.waiting_since = None;
            for at in 0..self.lanes.len() {
                if !self.emit(at)? {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    fn emit(&mut self, at: usize) -> Result<bool> {
        let lane = &mut self.lanes[at];
        if !lane.has_news() {
            return Ok(true);
        }
        let batch = lane.flush()?;
        Ok(self.queue.push(Ok(batch)))
    }

    fn complete(&self) -> bool {
        self.lanes.iter().all(|l| l.done)
    }

    /// A partition that ends before its read does, and stays there, was cut short or made anew.
    #[cold]
    fn still_there(&self, intake: &Intake<Context>) -> Result<()> {
        for lane in self.lanes.iter().filter(|l| !l.done) {
            let Some(until) = lane.until else { continue };
            let marks =
                intake.consumer().client().fetch_watermarks(&self.job.topic, lane.partition, Duration::from_secs(1));
            if marks.as_ref().is_ok_and(|(_, high)| *high < until) {
                return Err(lost(until, marks.ok())
                    .with_context("topic", &self.job.topic)
                    .with_context("partition", lane.partition));
            }
        }
        Ok(())
    }

    /// What an error on a partition means, and whether it ends the reader.
    #[cold]
    fn explain(&self, intake: &Intake<Context>, at: usize, code: i32, message: Message<'_>) -> (bool, Error) {
        use RDKafkaErrorCode as C;
        let lane = &self.lanes[at];
        let topic = &self.job.topic;
        let text = String::from_utf8_lossy(message.value().unwrap_or_default()).into_owned();
        let is = |codes: &[C]| codes.iter().any(|c| *c as i32 == code);
        let (fatal, error) = if is(&[C::AutoOffsetReset, C::OffsetOutOfRange, C::LogTruncation]) {
            // The offsets of the moment, for the message alone: the error stands without them.
            let marks = intake.consumer().client().fetch_watermarks(topic, lane.partition, Duration::from_secs(5));
            (true, lost(lane.next, marks.ok()))
        } else if is(&[C::UnknownTopicOrPartition, C::UnknownTopic, C::UnknownPartition, C::UnknownTopicId]) {
            (true, no_topic(topic))
        } else if is(&[C::TopicAuthorizationFailed]) {
            (false, code_error(&self.job.connection, C::TopicAuthorizationFailed, "read the topic"))
        } else if code > 0 {
            // Brokers refuse by positive numbers, and the position stays where it is.
            let e = Error::unavailable("the broker does not let us read the partition for now");
            (false, e.with_detail(refusal(known(code))))
        } else {
            // Negative ones are librdkafka's own, for bytes that it could not read and has passed over. Going on
            // would lose them.
            let e = Error::new(ErrorKind::DataCorrupt, "records cannot be read as the broker sends them");
            let why = if is(&[C::BadCompression]) {
                "A batch cannot be decompressed.".to_owned()
            } else if is(&[C::BadMessage]) {
                "The checksum of a batch is wrong, or it is cut off.".to_owned()
            } else {
                text
            };
            (true, e.with_context("offset", message.offset()).with_detail(why))
        };
        (fatal, error.with_context("topic", topic).with_context("partition", lane.partition))
    }
}

fn known(code: i32) -> RDKafkaErrorCode {
    RDKafkaRespErr::try_from(code).map_or(RDKafkaErrorCode::Unknown, RDKafkaErrorCode::from)
}

fn lost(next: i64, marks: Option<(i64, i64)>) -> Error {
    match marks {
        Some((low, _)) if next < low => {
            Error::new(ErrorKind::DataLoss, format!("kafka no longer holds offsets {next} to {}", low - 1))
                .with_context("from", next)
                .with_context("to", low)
                .with_hint("Raise the topic's retention, or go on behind the gap.")
        }
        Some((_, high)) if next > high => {
            Error::new(ErrorKind::DataLoss, format!("the partition ends at offset {high}, before {next}"))
                .with_context("from", high)
                .with_context("to", next)
                .with_hint("The topic was cut short or made anew; decide from where to read it.")
        }
        _ => Error::new(ErrorKind::DataLoss, format!("kafka does not hold offset {next}")).with_context("from", next),
    }
}

#[cfg(test)]
mod tests;
