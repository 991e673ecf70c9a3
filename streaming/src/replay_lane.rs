//! The lane of dead letters: it reads them from their table, and is cut with the lanes that read the topic.
//!
//! What it has is not shown to live reads before its commit: a letter that cannot be written after all is taken back
//! with all that the lane has put into the open trigger, and a row that was seen must not go away.

use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arrow::array::{Array, Int32Array, Int64Array, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::record_batch::RecordBatch;
use futures::FutureExt;
use tidewater_catalogs::{Error, Result};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout};
use uuid::Uuid;

use crate::failure::FlowResult;
use crate::lane::{LaneCommand, LaneSetup, sleep_until};
use crate::replay::{LetterReader, Letters, Replay, ReplayDelta, ReplayEnd, ReplayProgress, ReplayState, ReplayedSet};
use crate::spec::FlowLane;
use crate::trigger::{CountedWriter, LaneCut, OpenTrigger};

pub(crate) struct ReplayLane {
    setup: LaneSetup,
    query: Box<dyn FlowLane>,
    commands: mpsc::Receiver<LaneCommand>,
    open: OpenTrigger,
    /// Requests to do, one after the other.
    queue: VecDeque<Replay>,
    /// As the last cut left it.
    state: ReplayState,
    /// Since the last cut.
    pending: ReplayDelta,
    reading: Option<Reading>,
    writer: Option<CountedWriter>,
    /// A request came to its end since the last cut. The next one waits for the cut, so that all that is in the open
    /// trigger belongs to one request.
    ended: bool,
    /// A letter made the query panic; what its copy does from then on nobody knows.
    broken: bool,
    failures: u32,
    retry_at: Option<Instant>,
}

/// One pass over the letters, for the first request of the queue.
struct Reading {
    reader: Box<dyn LetterReader>,
    progress: ReplayProgress,
    malformed: u64,
    last: Option<Last>,
}

/// The letter that was read last.
#[derive(Clone, Copy)]
struct Last {
    partition: i32,
    offset: i64,
    state: LetterState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LetterState {
    /// Not asked for, or not readable.
    Left,
    /// In an earlier trigger, or earlier in this one.
    Done,
    New,
}

/// What some letters come to, before anything of it is written.
struct Step {
    letters: ReplayedSet,
    outputs: Vec<RecordBatch>,
    replayed: u64,
    malformed: u64,
    last: Option<Last>,
}

/// Why a request ends before its letters do; the flow goes on.
enum Stop {
    Request(ReplayEnd),
    /// Wait, and read again from the beginning: what is done is known.
    Wait(Error),
    /// The flow has to start again.
    Flow(Error),
}

impl ReplayLane {
    pub(crate) fn new(
        setup: LaneSetup,
        query: Box<dyn FlowLane>,
        commands: mpsc::Receiver<LaneCommand>,
        open: OpenTrigger,
        queue: Vec<Replay>,
        state: ReplayState,
    ) -> Self {
        Self {
            setup,
            query,
            commands,
            open,
            queue: queue.into(),
            state,
            pending: ReplayDelta::default(),
            reading: None,
            writer: None,
            ended: false,
            broken: false,
            failures: 0,
            retry_at: None,
        }
    }

    /// Runs until the commands end; without anything to do it only answers them.
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
            let wanted = !full && waiting.is_none() && !self.ended && !self.queue.is_empty();
            if wanted && self.reading.is_none() {
                if let Err(stop) = self.begin().await {
                    self.stop(stop)?;
                }
                continue;
            }
            let mut read = None;
            tokio::select! {
                biased;
                command = self.commands.recv() => match command {
                    Some(LaneCommand::Cut { next, reply }) => self.cut(next, reply),
                    Some(LaneCommand::Add(_)) => {}
                    None => return Ok(()),
                },
                _ = released.changed(), if full => {}
                () = sleep_until(waiting), if waiting.is_some() => self.retry_at = None,
                letters = next(self.reading.as_mut()), if wanted => read = Some(letters),
            }
            let taken = match read {
                None => Ok(()),
                Some(Ok(Some(letters))) => self.take(letters).await,
                Some(Ok(None)) => {
                    self.end(ReplayEnd::Complete);
                    Ok(())
                }
                Some(Err(e)) => Err(of_letters(e)),
            };
            if let Err(stop) = taken {
                self.stop(stop)?;
            }
        }
    }

    async fn begin(&mut self) -> Result<(), Stop> {
        let Some(replay) = self.queue.front() else { return Ok(()) };
        if self.broken {
            let why = "the query met a bug in an earlier replay, and the flow has not started again since".to_owned();
            return Err(Stop::Request(ReplayEnd::Failed(why)));
        }
        // Cuts wait while this does.
        let opened = timeout(self.setup.env.settings.load_timeout, replay.letters.open()).await;
        let reader = opened
            .unwrap_or_else(|_| Err(Error::unavailable("the dead letters were not found in time")))
            .map_err(of_letters)?;
        let progress = self.progress(replay.id);
        self.reading = Some(Reading { reader, progress, malformed: 0, last: None });
        Ok(())
    }

    fn progress(&self, id: Uuid) -> ReplayProgress {
        let pending = self.pending.requests.iter().find(|p| p.id == id);
        pending.or_else(|| self.state.request(id)).cloned().unwrap_or_else(|| ReplayProgress::new(id))
    }

    fn cut(&mut self, next: OpenTrigger, reply: oneshot::Sender<LaneCut>) {
        let delta = std::mem::take(&mut self.pending);
        self.state.apply(&delta);
        self.ended = false;
        let mut cut = LaneCut { writer: self.writer.take(), ..LaneCut::default() };
        cut.rows.replayed = delta.replayed;
        cut.rows.out = cut.writer.as_ref().map_or(0, CountedWriter::rows);
        cut.replay = (delta != ReplayDelta::default()).then_some(delta);
        self.open = next;
        // Nobody waits any more when the flow is on its way out.
        let _ = reply.send(cut);
    }

    async fn take(&mut self, letters: Letters) -> Result<(), Stop> {
        let Some(mut reading) = self.reading.take() else { return Ok(()) };
        let step = AssertUnwindSafe(self.step(reading.last, &letters)).catch_unwind().await.unwrap_or_else(|_| {
            self.broken = true;
            Err(Stop::Request(ReplayEnd::Failed("the query met a bug".to_owned())))
        })?;
        if self.too_many(&step.letters) {
            self.reading = Some(reading);
            return Err(Stop::Request(ReplayEnd::TooScattered));
        }
        let mut rows = 0;
        for output in step.outputs {
            rows += output.num_rows() as u64;
            self.write(output).await?;
        }
        self.pending.letters.extend(&step.letters);
        self.pending.replayed += step.replayed;
        reading.progress.replayed += step.replayed;
        reading.progress.rows += rows;
        reading.malformed += step.malformed;
        reading.last = step.last;
        self.failures = 0;
        if !step.letters.is_empty() {
            note(&mut self.pending.requests, &reading.progress);
            let bytes = letters.rows.get_array_memory_size() as u64;
            self.open.meter.source_bytes.fetch_add(bytes, Ordering::Relaxed);
            self.open.meter.output.store(true, Ordering::Relaxed);
            self.setup.status.replayed(step.replayed, rows);
        }
        self.reading = Some(reading);
        Ok(())
    }

    /// Decodes and transforms. Nothing is changed by it.
    async fn step(&mut self, last: Option<Last>, letters: &Letters) -> Result<Step, Stop> {
        let rows = &letters.rows;
        let partitions = column::<Int32Array>(rows, "_partition")?;
        let offsets = column::<Int64Array>(rows, "_offset")?;
        let mut states = vec![LetterState::Left; rows.num_rows()];
        let mut asked: Vec<u32> = Vec::new();
        let mut before = last.map(|l| (l.partition, l.offset));
        for (row, state) in states.iter_mut().enumerate() {
            let at = (partitions.value(row), offsets.value(row));
            if before.is_some_and(|before| at <= before) {
                let what = format!("the dead letter at partition {}, offset {} is there twice", at.0, at.1);
                return Err(Stop::Request(ReplayEnd::Failed(what)));
            }
            before = Some(at);
            if self.is_done(at.0, at.1) {
                *state = LetterState::Done;
            } else if letters.wanted.is_valid(row) && letters.wanted.value(row) {
                asked.push(u32::try_from(row).unwrap_or(u32::MAX));
            }
        }
        let mut step =
            Step { letters: ReplayedSet::default(), outputs: Vec::new(), replayed: 0, malformed: 0, last: None };
        for same in asked.chunk_by(|a, b| partitions.value(*a as usize) == partitions.value(*b as usize)) {
            let partition = partitions.value(same[0] as usize);
            let chosen =
                take_record_batch(rows, &UInt32Array::from(same.to_vec())).map_err(|e| Stop::Flow(e.into()))?;
            let decoded = self.setup.source.decode(partition, &chosen, &self.setup.projection).map_err(of_letters)?;
            let good = decoded.readable.iter().filter(|good| **good).count();
            if decoded.readable.len() != same.len() || decoded.rows.num_rows() != good {
                return Err(Stop::Flow(Error::internal("the books of decoded dead letters do not balance")));
            }
            step.replayed += good as u64;
            step.malformed += (same.len() - good) as u64;
            for (row, good) in same.iter().zip(decoded.readable) {
                if good {
                    states[*row as usize] = LetterState::New;
                }
            }
            if good > 0 {
                let outputs = self.query.apply(decoded.rows).await.map_err(|e| {
                    let range = (offsets.value(same[0] as usize), offsets.value(same[same.len() - 1] as usize));
                    of_record(e.with_context("partition", partition).with_context("dead letters", format!("{range:?}")))
                })?;
                step.outputs.extend(outputs.into_iter().filter(|b| b.num_rows() > 0));
            }
        }
        step.last = last;
        for (row, state) in states.into_iter().enumerate() {
            let now = Last { partition: partitions.value(row), offset: offsets.value(row), state };
            if let Some(from) = joined(step.last, now) {
                step.letters.insert(now.partition, from, now.offset + 1);
            }
            step.last = Some(now);
        }
        Ok(step)
    }

    fn is_done(&self, partition: i32, offset: i64) -> bool {
        self.state.letters.contains(partition, offset) || self.pending.letters.contains(partition, offset)
    }

    fn too_many(&self, more: &ReplayedSet) -> bool {
        let limit = self.setup.env.settings.max_replayed_ranges;
        let (done, pending) = (&self.state.letters, &self.pending.letters);
        if more.is_empty() || done.ranges() + pending.ranges() + more.ranges() <= limit {
            return false;
        }
        let mut all = done.clone();
        all.extend(pending);
        let before = all.ranges();
        all.extend(more);
        // Ranges that only grow together are welcome even where there are too many.
        all.ranges() > limit.max(before)
    }

    /// What a writer holds after an error nobody knows, so all that the lane has in the open trigger is taken back.
    async fn write(&mut self, output: RecordBatch) -> Result<(), Stop> {
        let writer = match &mut self.writer {
            Some(writer) => writer,
            slot => {
                let writer = self.setup.target.writer(self.open.commit_uuid).map_err(Stop::Flow)?;
                slot.insert(CountedWriter::new(writer, &self.setup.memory))
            }
        };
        let written = writer.write(output).await.map_err(of_record);
        if matches!(written, Err(Stop::Request(_))) {
            self.writer = None;
            self.pending = ReplayDelta::default();
        }
        written
    }

    /// The first request of the queue has come to its end.
    fn end(&mut self, end: ReplayEnd) {
        let Some(replay) = self.queue.pop_front() else { return };
        let malformed = self.reading.take().map_or(0, |r| r.malformed);
        let mut progress = self.progress(replay.id);
        tracing::info!(
            flow = %self.setup.flow, request = %replay.id, replayed = progress.replayed, rows = progress.rows,
            malformed, ?end, "replay of dead letters ended"
        );
        progress.malformed = malformed;
        progress.ended = Some(end);
        note(&mut self.pending.requests, &progress);
        self.ended = true;
        self.failures = 0;
        // The end is to be committed, be there rows or not, and before an interval of an hour is over.
        self.open.meter.output.store(true, Ordering::Relaxed);
        self.open.meter.awaited.store(true, Ordering::Relaxed);
        self.setup.wake.notify_one();
    }

    fn stop(&mut self, stop: Stop) -> FlowResult<()> {
        match stop {
            Stop::Request(end) => {
                self.end(end);
                Ok(())
            }
            Stop::Wait(e) => {
                self.reading = None;
                self.failures = self.failures.saturating_add(1);
                tracing::warn!(flow = %self.setup.flow, error = %e, "dead letters cannot be read now");
                let s = &self.setup.env.settings;
                let pause = self.setup.env.back_off(self.failures, s.retry_min, s.retry_max);
                self.retry_at = Some(Instant::now() + pause.max(Duration::from_millis(1)));
                Ok(())
            }
            Stop::Flow(e) => Err(e.into()),
        }
    }
}

/// Where the range begins that a letter belongs to, if one is to be noted: at the letter before it, where that is done
/// as well, and at least one of the two only now.
fn joined(before: Option<Last>, now: Last) -> Option<i64> {
    use LetterState::{Done, Left, New};
    let before = before.filter(|b| b.partition == now.partition && b.state != Left);
    match (before, now.state) {
        (_, Left) | (None, Done) => None,
        (None, New) => Some(now.offset),
        (Some(b), Done) if b.state == Done => None,
        (Some(b), _) => Some(b.offset),
    }
}

fn note(requests: &mut Vec<ReplayProgress>, progress: &ReplayProgress) {
    match requests.iter_mut().find(|p| p.id == progress.id) {
        Some(known) => known.clone_from(progress),
        None => requests.push(progress.clone()),
    }
}

async fn next(reading: Option<&mut Reading>) -> Result<Option<Letters>> {
    match reading {
        Some(reading) => reading.reader.next().await,
        None => std::future::pending().await,
    }
}

fn column<'a, T: 'static>(rows: &'a RecordBatch, name: &str) -> Result<&'a T, Stop> {
    let found = rows.column_by_name(name).and_then(|c| c.as_any().downcast_ref());
    found.ok_or_else(|| Stop::Flow(Error::internal(format!("dead letters lack column \"{name}\""))))
}

/// The table of the letters, or their format, is in the way.
fn of_letters(e: Error) -> Stop {
    if e.is_retryable() { Stop::Wait(e) } else { Stop::Request(ReplayEnd::Failed(told(&e))) }
}

/// A letter that the query or the table cannot take ends its request: in the topic such a record stops the flow, but
/// nobody can step over a request that stops it at every start. Only what waiting may mend starts the flow again.
fn of_record(e: Error) -> Stop {
    if e.is_retryable() { Stop::Flow(e) } else { Stop::Request(ReplayEnd::Failed(told(&e))) }
}

fn told(e: &Error) -> String {
    match e.detail() {
        Some(detail) => format!("{e}: {detail}"),
        None => e.to_string(),
    }
}
