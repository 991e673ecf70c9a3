//! A topic, tables, a blob store and an environment in memory, with faults on order.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use arrow::array::{Array, ArrayRef, Int32Array, Int64Array, StringArray, TimestampMicrosecondArray, new_null_array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use bytes::Bytes;
use datafusion::catalog::TableProvider;
use parking_lot::Mutex;
use tidewater_catalogs::*;
use tokio::sync::Notify;
use uuid::Uuid;

use crate::env::{Chance, Clock, EngineSettings, Env, Failpoints};
use crate::replay::{LetterReader, LetterSource, Letters, Replay};
use crate::spec::{FlowFactory, FlowLane, FlowQuery, FlowSettings, FlowSpec};

// ---------------------------------------------------------------- environment

#[derive(Debug)]
struct FixedClock;

impl Clock for FixedClock {
    fn now_ms(&self) -> i64 {
        1_790_000_000_000
    }
}

/// Uuids are unique over all of a test's worlds; fractions repeat with the seed.
#[derive(Debug)]
pub struct Seeded(AtomicU64);

static UUIDS: AtomicU64 = AtomicU64::new(1);

impl Seeded {
    pub fn new(seed: u64) -> Self {
        Self(AtomicU64::new(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1))
    }
    pub fn below(&self, n: u64) -> u64 {
        let mut x = self.0.load(Ordering::Relaxed);
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        self.0.store(x, Ordering::Relaxed);
        (x >> 11) % n
    }
}

impl Chance for Seeded {
    fn uuid(&self, _now_ms: i64) -> Uuid {
        Uuid::from_u128(u128::from(UUIDS.fetch_add(1, Ordering::Relaxed)))
    }
    fn fraction(&self) -> f64 {
        self.below(1000) as f64 / 1000.0
    }
}

/// Stops the flow for good at the n-th visit of a place, and says that it has.
#[derive(Debug, Default)]
pub struct Crash {
    armed: Mutex<Option<(&'static str, u64)>>,
    pub crashed: Notify,
    pub visited: Mutex<BTreeSet<&'static str>>,
}

impl Crash {
    pub fn at(name: &'static str, n: u64) -> Arc<Self> {
        Arc::new(Self { armed: Mutex::new(Some((name, n))), ..Self::default() })
    }
}

#[async_trait]
impl Failpoints for Crash {
    async fn reach(&self, name: &'static str) {
        self.visited.lock().insert(name);
        let hit = match &mut *self.armed.lock() {
            Some((armed, n)) if *armed == name => {
                *n -= 1;
                *n == 0
            }
            _ => false,
        };
        if hit {
            self.crashed.notify_one();
            std::future::pending::<()>().await;
        }
    }
}

pub fn env(failpoints: Arc<dyn Failpoints>, seed: u64) -> Env {
    Env {
        clock: Arc::new(FixedClock),
        chance: Arc::new(Seeded::new(seed)),
        failpoints,
        settings: EngineSettings {
            layout_poll: Duration::from_millis(10),
            retry_min: Duration::from_millis(1),
            retry_max: Duration::from_millis(5),
            restart_min: Duration::from_millis(1),
            restart_max: Duration::from_millis(20),
            fence_watch: Duration::from_millis(10),
            checkpoints_kept: 4,
            maintain_commits: 3,
            ..EngineSettings::default()
        },
    }
}

// ---------------------------------------------------------------- blobs

#[derive(Debug, Default)]
pub struct MemBlobs {
    pub objects: Mutex<BTreeMap<String, Bytes>>,
    /// This many calls fail before one gets through.
    pub failing: AtomicUsize,
}

impl MemBlobs {
    fn fault(&self) -> Result<()> {
        let fails = self.failing.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok();
        if fails { Err(Error::unavailable("the store does not answer")) } else { Ok(()) }
    }
}

#[async_trait]
impl BlobStore for MemBlobs {
    async fn put_new(&self, path: &str, bytes: Bytes) -> Result<()> {
        self.fault()?;
        let mut objects = self.objects.lock();
        if objects.contains_key(path) {
            return Err(Error::new(ErrorKind::AlreadyExists, "taken"));
        }
        objects.insert(path.to_owned(), bytes);
        Ok(())
    }
    async fn get(&self, path: &str) -> Result<Bytes> {
        self.fault()?;
        self.objects.lock().get(path).cloned().ok_or_else(|| Error::not_found("no such object"))
    }
    async fn list(&self, prefix: &str) -> Result<Vec<String>> {
        Ok(self.objects.lock().keys().filter(|k| k.starts_with(prefix)).cloned().collect())
    }
    async fn delete(&self, path: &str) -> Result<()> {
        self.objects.lock().remove(path);
        Ok(())
    }
}

// ---------------------------------------------------------------- tables

/// What happens to one commit attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    None,
    /// Someone else's commit comes first.
    Lost,
    UnknownNotApplied,
    UnknownApplied,
    /// A proxy sends it twice and passes on the second answer.
    AppliedRefused,
    /// No answer, and it arrives after the table was looked at next.
    Late,
    /// A refusal that no other state of the table would change.
    Final,
    DiskFull,
}

#[derive(Debug)]
pub struct MemTable {
    schema: SchemaRef,
    uuid: Uuid,
    state: Mutex<TableState>,
    stored: Arc<Mutex<BTreeMap<String, Vec<RecordBatch>>>>,
    pub faults: Mutex<VecDeque<Fault>>,
    pub unreachable: AtomicUsize,
    pub maintained: AtomicUsize,
    /// Open: commits go through. Shut: attempts wait.
    pub gate: tokio::sync::Semaphore,
    files: AtomicU64,
    pub open_writers: Arc<AtomicUsize>,
    pub requests: Mutex<Vec<CommitRequest>>,
}

#[derive(Debug, Default)]
struct TableState {
    main: i64,
    anchors: BTreeMap<String, AnchorState>,
    committed: Vec<String>,
    late: Vec<(i64, CommitRequest)>,
    dropped: bool,
}

impl TableState {
    fn anchor(&self, flow: &str) -> AnchorState {
        self.anchors.get(flow).cloned().unwrap_or(AnchorState::Absent)
    }

    fn swap(&mut self, main: i64, request: &CommitRequest) -> bool {
        let expected = request.expected.clone().map_or(AnchorState::Absent, AnchorState::Valid);
        if self.main != main || (crate::wrong::compares_anchor() && self.anchor(&request.flow) != expected) {
            return false;
        }
        self.main += 1;
        let anchor = Anchor {
            snapshot_id: self.main,
            seq: request.seq,
            epoch: request.epoch,
            commit_uuid: request.commit_uuid,
            checkpoint: request.checkpoint.clone(),
            checkpoint_sha256: request.checkpoint_sha256.clone(),
        };
        self.anchors.insert(request.flow.clone(), AnchorState::Valid(anchor));
        self.committed.extend(request.files.files.iter().map(|f| f.path.clone()));
        true
    }
}

impl MemTable {
    pub fn new(schema: SchemaRef) -> Arc<Self> {
        Arc::new(Self {
            schema,
            uuid: Uuid::from_u128(77),
            state: Mutex::default(),
            stored: Arc::default(),
            faults: Mutex::default(),
            unreachable: AtomicUsize::new(0),
            maintained: AtomicUsize::new(0),
            gate: tokio::sync::Semaphore::new(tokio::sync::Semaphore::MAX_PERMITS),
            files: AtomicU64::new(0),
            open_writers: Arc::default(),
            requests: Mutex::default(),
        })
    }

    fn head(&self, flow: &str) -> TableHead {
        let state = self.state.lock();
        TableHead {
            table_uuid: self.uuid,
            main_snapshot_id: (state.main > 0).then_some(state.main),
            anchor: state.anchor(flow),
            base: Arc::new(state.main),
        }
    }

    pub fn anchor(&self, flow: &str) -> AnchorState {
        self.state.lock().anchor(flow)
    }
    /// Anchor and rows as one loaded state shows them.
    pub fn seen(&self, flow: &str) -> (AnchorState, Vec<i64>) {
        let (anchor, paths) = {
            let state = self.state.lock();
            (state.anchor(flow), state.committed.clone())
        };
        let stored = self.stored.lock();
        let batches = paths.iter().flat_map(|path| stored.get(path).expect("a committed file is stored"));
        let ids = |b: &RecordBatch| b.column(0).as_any().downcast_ref::<Int64Array>().unwrap().values().to_vec();
        (anchor, batches.flat_map(ids).collect())
    }
    pub fn set_anchor(&self, flow: &str, anchor: AnchorState) {
        self.state.lock().anchors.insert(flow.to_owned(), anchor);
    }
    pub fn foreign_commit(&self) {
        self.state.lock().main += 1;
    }
    /// What is still under way arrives.
    pub fn deliver_late(&self) {
        let mut state = self.state.lock();
        for (main, request) in std::mem::take(&mut state.late) {
            state.swap(main, &request);
        }
    }
    pub fn committed_files(&self) -> Vec<String> {
        self.state.lock().committed.clone()
    }
    pub fn drop_table(&self) {
        self.state.lock().dropped = true;
    }

    /// All visible rows of one column; a file that is committed twice counts twice.
    pub fn column<T>(&self, name: &str, read: impl Fn(&ArrayRef, usize) -> T) -> Vec<T> {
        let stored = self.stored.lock();
        let mut values = Vec::new();
        for path in &self.state.lock().committed {
            for batch in stored.get(path).expect("a committed file is stored") {
                let column = batch.column_by_name(name).expect("column");
                values.extend((0..batch.num_rows()).map(|i| read(column, i)));
            }
        }
        values
    }

    pub fn ids(&self) -> Vec<i64> {
        self.column("id", |c, i| c.as_any().downcast_ref::<Int64Array>().unwrap().value(i))
    }

    /// Partition and offset of every dead letter, and whether flow and seq are filled in.
    pub fn letters(&self) -> Vec<(i32, i64)> {
        let flows = self.column("flow", |c, i| c.is_valid(i));
        let ids = self.column("flow_id", |c, i| c.is_valid(i));
        let seqs = self.column("seq", |c, i| c.is_valid(i));
        assert!(flows.into_iter().chain(ids).chain(seqs).all(|filled| filled), "flow and seq are known by now");
        let partitions = self.column("_partition", |c, i| c.as_any().downcast_ref::<Int32Array>().unwrap().value(i));
        let offsets = self.column("_offset", |c, i| c.as_any().downcast_ref::<Int64Array>().unwrap().value(i));
        partitions.into_iter().zip(offsets).collect()
    }
}

#[async_trait]
impl CommitTable for MemTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    async fn load_head(&self, flow: &str) -> Result<TableHead> {
        if self.unreachable.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok() {
            return Err(Error::unavailable("the catalog does not answer"));
        }
        if self.state.lock().dropped {
            return Err(Error::not_found("the table is gone"));
        }
        let head = self.head(flow);
        // What was under way arrives just after the look that did not see it.
        self.deliver_late();
        Ok(head)
    }

    fn writer(&self, commit: Uuid) -> Result<Box<dyn StagingWriter>> {
        self.open_writers.fetch_add(1, Ordering::SeqCst);
        Ok(Box::new(MemWriter {
            path: format!("{commit}-{}.mem", self.files.fetch_add(1, Ordering::Relaxed)),
            batches: Vec::new(),
            stored: Arc::clone(&self.stored),
            open: Arc::clone(&self.open_writers),
        }))
    }

    async fn forget(&self, _: &str) -> Result<()> {
        Ok(())
    }

    async fn try_commit(&self, head: &TableHead, request: &CommitRequest) -> CommitReply {
        let _pass = self.gate.acquire().await.expect("never closed");
        let main = *head.base.downcast_ref::<i64>().expect("our own head");
        self.requests.lock().push(request.clone());
        let fault = self.faults.lock().pop_front().unwrap_or(Fault::None);
        let refused = || CommitReply::Refused(Error::new(ErrorKind::Conflict, "the table moved"));
        let unknown = || CommitReply::Unknown(Error::new(ErrorKind::CommitUnknown, "connection reset"));
        match fault {
            Fault::None => {
                if !self.state.lock().swap(main, request) {
                    return refused();
                }
                CommitReply::Committed(self.head(&request.flow))
            }
            Fault::Lost => {
                self.foreign_commit();
                self.state.lock().swap(main, request);
                refused()
            }
            Fault::UnknownNotApplied => unknown(),
            Fault::UnknownApplied => {
                self.state.lock().swap(main, request);
                unknown()
            }
            Fault::AppliedRefused => {
                self.state.lock().swap(main, request);
                self.state.lock().swap(main, request);
                refused()
            }
            Fault::Late => {
                self.state.lock().late.push((main, request.clone()));
                unknown()
            }
            Fault::Final => CommitReply::Refused(Error::unsupported("no such column")),
            Fault::DiskFull => CommitReply::Refused(Error::new(ErrorKind::ResourcesExhausted, "no space left")),
        }
    }

    async fn maintain(&self) -> Result<()> {
        self.maintained.fetch_add(1, Ordering::SeqCst);
        self.foreign_commit();
        Err(Error::internal("maintenance always fails here"))
    }
}

struct MemWriter {
    path: String,
    batches: Vec<RecordBatch>,
    stored: Arc<Mutex<BTreeMap<String, Vec<RecordBatch>>>>,
    open: Arc<AtomicUsize>,
}

impl Drop for MemWriter {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::SeqCst);
    }
}

#[async_trait]
impl StagingWriter for MemWriter {
    async fn write(&mut self, batch: RecordBatch) -> Result<()> {
        self.batches.push(batch);
        Ok(())
    }
    fn buffered_bytes(&self) -> usize {
        self.batches.iter().map(|b| b.num_rows() * 100).sum()
    }
    async fn finish(mut self: Box<Self>) -> Result<StagedFiles> {
        tokio::task::yield_now().await;
        let batches = std::mem::take(&mut self.batches);
        let rows = batches.iter().map(|b| b.num_rows() as u64).sum();
        let file =
            StagedFile { path: self.path.clone(), rows, size_bytes: rows * 100, metadata: serde_json::Value::Null };
        self.stored.lock().insert(self.path.clone(), batches);
        Ok(StagedFiles { files: vec![file] })
    }
}

// ---------------------------------------------------------------- topic

/// One record; its id is `partition * 1_000_000 + offset`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Record {
    Good,
    Bad,
    /// Bad until the stream is mended.
    Narrow,
    Skipped,
    /// Takes an offset and is no record.
    Control,
}

#[derive(Debug)]
pub struct Topic {
    spec: StreamSpec,
    state: Mutex<TopicState>,
    grown: Notify,
    pub batch: usize,
    /// Batches that readers have handed out.
    pub reads: AtomicUsize,
    pub unreachable: AtomicUsize,
    /// This many times it is said not to be there, by layout, open and readers alike.
    pub missing: AtomicUsize,
}

#[derive(Debug, Default)]
struct TopicState {
    id: String,
    partitions: BTreeMap<i32, (i64, Vec<Record>)>,
}

pub fn id_of(partition: i32, offset: i64) -> i64 {
    i64::from(partition) * 1_000_000 + offset
}

impl Topic {
    pub fn new(partitions: i32) -> Arc<Self> {
        let spec = StreamSpec {
            name: TableName::public("clicks"),
            connection: ConnectionSpec { name: "c".into(), kind: "fake".into(), options: BTreeMap::new() },
            topic: "clicks".into(),
            format: StreamFormat::Json,
            columns: vec![StreamColumn::Value(Field::new("id", DataType::Int64, true))],
            start: StartPosition::Earliest,
            on_error: OnError::Dlq,
            read_uncommitted: false,
            key_column: None,
        };
        let state =
            TopicState { id: "first".into(), partitions: (0..partitions).map(|p| (p, (0, Vec::new()))).collect() };
        Arc::new(Self {
            spec,
            state: Mutex::new(state),
            grown: Notify::new(),
            batch: 7,
            reads: AtomicUsize::new(0),
            unreachable: AtomicUsize::new(0),
            missing: AtomicUsize::new(0),
        })
    }

    fn there(&self) -> Result<()> {
        let missing = self.missing.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok();
        if missing { Err(Error::not_found("the topic does not exist")) } else { Ok(()) }
    }

    fn reachable(&self) -> Result<()> {
        let away = self.unreachable.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok();
        if away { Err(Error::unavailable("no broker")) } else { Ok(()) }
    }

    /// How many there are, numbered from 0.
    pub fn partitions(&self) -> i32 {
        self.state.lock().partitions.len() as i32
    }

    pub fn push(&self, partition: i32, records: impl IntoIterator<Item = Record>) {
        self.state.lock().partitions.entry(partition).or_default().1.extend(records);
        self.grown.notify_waiters();
    }
    /// Every fourth record is bad, every ninth a control record.
    pub fn push_mixed(&self, partition: i32, n: usize) {
        self.push(
            partition,
            (0..n).map(|i| match i {
                i if i % 9 == 8 => Record::Control,
                i if i % 4 == 3 => Record::Bad,
                _ => Record::Good,
            }),
        );
    }
    /// As [`Self::push_mixed`], with more bad records, of which most are only narrow.
    pub fn push_narrow(&self, partition: i32, n: usize) {
        self.push(
            partition,
            (0..n).map(|i| match i {
                i if i % 9 == 8 => Record::Control,
                i if i % 7 == 3 => Record::Bad,
                i if i % 2 == 1 => Record::Narrow,
                _ => Record::Good,
            }),
        );
    }
    /// A new partition with good records, of which retention has left `[low, high)`.
    pub fn push_from(&self, partition: i32, low: i64, high: usize) {
        let log = std::iter::repeat_n(Record::Good, high).collect();
        self.state.lock().partitions.insert(partition, (low, log));
        self.grown.notify_waiters();
    }
    pub fn retain_from(&self, partition: i32, low: i64) {
        self.state.lock().partitions.get_mut(&partition).expect("partition").0 = low;
    }
    pub fn replace(&self, id: &str, partitions: i32) {
        let mut state = self.state.lock();
        state.id = id.into();
        state.partitions = (0..partitions).map(|p| (p, (0, Vec::new()))).collect();
    }
    fn offsets(&self, kind: Record) -> Vec<(i32, i64)> {
        let state = self.state.lock();
        state
            .partitions
            .iter()
            .flat_map(|(p, (_, log))| {
                log.iter().enumerate().filter(|(_, r)| **r == kind).map(|(o, _)| (*p, o as i64)).collect::<Vec<_>>()
            })
            .collect()
    }
    pub fn good_ids(&self) -> Vec<i64> {
        self.offsets(Record::Good).into_iter().map(|(p, o)| id_of(p, o)).collect()
    }
    pub fn bad(&self) -> Vec<(i32, i64)> {
        self.offsets(Record::Bad)
    }

    /// What comes of the narrow ones once the stream is mended.
    pub fn narrow_ids(&self) -> Vec<i64> {
        self.offsets(Record::Narrow).into_iter().map(|(p, o)| id_of(p, o)).collect()
    }

    fn read(&self, partition: i32, from: i64, on_error: OnError, mended: bool) -> Result<Option<ReadBatch>> {
        let state = self.state.lock();
        let (low, log) = state.partitions.get(&partition).expect("partition");
        let end = log.len() as i64;
        if from < *low || from > end {
            return Err(Error::new(ErrorKind::DataLoss, "offset out of range"));
        }
        if from == end {
            return Ok(None);
        }
        let to = end.min(from + self.batch as i64);
        let of = |kind, narrow| {
            let is = |o: &i64| log[*o as usize] == kind || (narrow && log[*o as usize] == Record::Narrow);
            (from..to).filter(is).collect::<Vec<_>>()
        };
        let (good, bad, skipped) = (of(Record::Good, mended), of(Record::Bad, !mended), of(Record::Skipped, false));
        if on_error == OnError::Fail && !bad.is_empty() {
            return Err(Error::new(ErrorKind::DataCorrupt, "not JSON")
                .with_context("partition", partition)
                .with_context("offset", bad[0]));
        }
        let ids: ArrayRef = Arc::new(good.iter().map(|o| id_of(partition, *o)).collect::<Int64Array>());
        let records = (good.len() + bad.len() + skipped.len()) as u64;
        Ok(Some(ReadBatch {
            partition,
            from,
            to,
            rows: RecordBatch::try_new(id_schema(), vec![ids])?,
            dead_letters: if bad.is_empty() { None } else { Some(letters(partition, &bad)?) },
            records,
            skipped: skipped.len() as u64,
            source_bytes: records * 100,
            max_timestamp_ms: 1_789_999_999_000,
        }))
    }
}

fn letters(partition: i32, offsets: &[i64]) -> Result<RecordBatch> {
    let schema = dead_letter_schema();
    let n = offsets.len();
    let columns = schema
        .fields()
        .iter()
        .map(|f| -> ArrayRef {
            match f.name().as_str() {
                "_topic" | "error" => Arc::new(StringArray::from(vec!["x"; n])),
                "_partition" => Arc::new(Int32Array::from(vec![partition; n])),
                "_offset" => Arc::new(Int64Array::from(offsets.to_vec())),
                "failed_at" => Arc::new(TimestampMicrosecondArray::from(vec![0; n]).with_timezone("+00:00")),
                _ => new_null_array(f.data_type(), n),
            }
        })
        .collect();
    Ok(RecordBatch::try_new(schema, columns)?)
}

pub fn id_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("id", DataType::Int64, true)]))
}

/// The topic as a source; a wrapper, so that readers can share it. With it, whether the stream is mended.
#[derive(Debug)]
pub struct TopicSource(pub Arc<Topic>, pub bool);

#[async_trait]
impl StreamSource for TopicSource {
    fn spec(&self) -> &StreamSpec {
        &self.0.spec
    }
    fn schema(&self) -> SchemaRef {
        self.0.spec.full_schema()
    }
    async fn layout(&self) -> Result<TopicLayout> {
        self.0.there()?;
        self.0.reachable()?;
        let state = self.0.state.lock();
        Ok(TopicLayout {
            topic: "clicks".into(),
            topic_id: state.id.clone(),
            cluster_id: "cluster".into(),
            partitions: state
                .partitions
                .iter()
                .map(|(p, (low, log))| PartitionRange { partition: *p, low: *low, high: log.len() as i64 })
                .collect(),
        })
    }
    async fn start_offsets(&self, start: &StartPosition) -> Result<Offsets> {
        let layout = self.layout().await?;
        Ok(match start {
            StartPosition::Latest => layout.highs(),
            _ => layout.lows(),
        })
    }
    async fn open(&self, request: ReadRequest) -> Result<Box<dyn StreamReader>> {
        self.0.there()?;
        Ok(Box::new(TopicReader {
            topic: Arc::clone(&self.0),
            broken: false,
            at: request.from.0,
            on_error: request.on_error,
            mended: self.1,
            last: -1,
        }))
    }
    fn decode(&self, partition: i32, letters: &RecordBatch, projection: &[usize]) -> Result<DecodedLetters> {
        assert_eq!(projection, [0]);
        let offsets = letters.column_by_name("_offset").unwrap().as_any().downcast_ref::<Int64Array>().unwrap();
        let state = self.0.state.lock();
        let log = &state.partitions[&partition].1;
        let readable: Vec<bool> =
            offsets.values().iter().map(|o| self.1 && log[*o as usize] == Record::Narrow).collect();
        let good = offsets.values().iter().zip(&readable).filter(|(_, good)| **good);
        let ids: ArrayRef = Arc::new(good.map(|(o, _)| id_of(partition, *o)).collect::<Int64Array>());
        Ok(DecodedLetters { rows: RecordBatch::try_new(id_schema(), vec![ids])?, readable })
    }
    async fn bounded(&self) -> Result<Arc<dyn TableProvider>> {
        Err(Error::unsupported("not here"))
    }
    async fn writer(&self) -> Result<Box<dyn StreamWriter>> {
        Err(Error::unsupported("not here"))
    }
}

struct TopicReader {
    topic: Arc<Topic>,
    /// Once it has failed it says nothing else.
    broken: bool,
    at: BTreeMap<i32, i64>,
    on_error: OnError,
    mended: bool,
    /// Partitions take turns.
    last: i32,
}

#[async_trait]
impl StreamReader for TopicReader {
    async fn next(&mut self) -> Result<ReadBatch> {
        self.topic.there()?;
        if self.broken {
            return Err(Error::unavailable("no broker"));
        }
        if let Err(e) = self.topic.reachable() {
            self.broken = true;
            return Err(e);
        }
        loop {
            let grown = self.topic.grown.notified();
            let turns: Vec<i32> = self
                .at
                .keys()
                .filter(|p| **p > self.last)
                .chain(self.at.keys().filter(|p| **p <= self.last))
                .copied()
                .collect();
            for partition in turns {
                if let Some(batch) = self.topic.read(partition, self.at[&partition], self.on_error, self.mended)? {
                    self.last = partition;
                    self.at.insert(partition, batch.to);
                    self.topic.reads.fetch_add(1, Ordering::SeqCst);
                    return Ok(batch);
                }
            }
            grown.await;
        }
    }
}

// ---------------------------------------------------------------- letters

/// Which letters a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    All,
    EvenOffsets,
    Partition(i32),
}

#[derive(Debug)]
struct MemLetters {
    table: Arc<MemTable>,
    flow: Uuid,
    wanted: Wanted,
}

struct MemLetterReader(VecDeque<Letters>);

#[async_trait]
impl LetterSource for MemLetters {
    async fn open(&self) -> Result<Box<dyn LetterReader>> {
        let failing = &self.table.unreachable;
        if failing.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok() {
            return Err(Error::unavailable("the catalog does not answer"));
        }
        let text = |c: &ArrayRef, i| c.as_any().downcast_ref::<StringArray>().unwrap().value(i).to_owned();
        let flows = self.table.column("flow_id", text);
        let of_flow = |(_, flow): &(_, String)| *flow == self.flow.to_string();
        let mut all: Vec<_> = self.table.letters().into_iter().zip(flows).filter(of_flow).map(|(at, _)| at).collect();
        all.sort_unstable();
        // Batches of five letters, whatever their partitions.
        let batches = all.chunks(5).map(|chunk| {
            let wanted = chunk.iter().map(|(p, o)| match self.wanted {
                Wanted::All => Some(true),
                Wanted::EvenOffsets => Some(o % 2 == 0),
                Wanted::Partition(partition) => (*p == partition).then_some(true),
            });
            let wanted = wanted.collect();
            let parts = chunk.chunk_by(|a, b| a.0 == b.0);
            let rows: Vec<_> = parts
                .map(|same| letters(same[0].0, &same.iter().map(|(_, o)| *o).collect::<Vec<_>>()).unwrap())
                .collect();
            let rows = arrow::compute::concat_batches(&dead_letter_schema(), &rows).unwrap();
            Letters { rows, wanted }
        });
        Ok(Box::new(MemLetterReader(batches.collect())))
    }
}

#[async_trait]
impl LetterReader for MemLetterReader {
    async fn next(&mut self) -> Result<Option<Letters>> {
        tokio::task::yield_now().await;
        Ok(self.0.pop_front())
    }
}

// ---------------------------------------------------------------- query and world

/// Passes rows on: all of them, or none; fails or panics on one id.
#[derive(Debug, Default)]
pub struct PassThrough {
    pub drop_all: bool,
    pub poison: Option<i64>,
    pub panic_once: Arc<AtomicBool>,
}

impl FlowQuery for PassThrough {
    fn output_schema(&self) -> SchemaRef {
        id_schema()
    }
    fn projection(&self) -> &[usize] {
        &[0]
    }
    fn fingerprint(&self) -> &str {
        "pass"
    }
    fn lane(&self) -> Result<Box<dyn FlowLane>> {
        Ok(Box::new(PassLane {
            drop_all: self.drop_all,
            poison: self.poison,
            panic_once: Arc::clone(&self.panic_once),
        }))
    }
}

struct PassLane {
    drop_all: bool,
    poison: Option<i64>,
    panic_once: Arc<AtomicBool>,
}

#[async_trait]
impl FlowLane for PassLane {
    async fn apply(&mut self, batch: RecordBatch) -> Result<Vec<RecordBatch>> {
        assert!(!self.panic_once.swap(false, Ordering::SeqCst), "a bug on order");
        let ids = batch.column(0).as_any().downcast_ref::<Int64Array>().expect("ids");
        if self.poison.is_some_and(|poison| ids.values().contains(&poison)) {
            return Err(Error::invalid("division by zero"));
        }
        Ok(if self.drop_all { Vec::new() } else { vec![batch] })
    }
}

/// All that outlives a crash, and the settings of the next run.
#[derive(Debug)]
pub struct World {
    pub id: Uuid,
    pub topic: Arc<Topic>,
    pub target: Arc<MemTable>,
    pub letters: Arc<MemTable>,
    pub blobs: Arc<MemBlobs>,
    pub settings: Mutex<FlowSettings>,
    pub start: Mutex<StartPosition>,
    pub query: Mutex<Arc<PassThrough>>,
    /// The stream has the definition that narrow records fit.
    pub mended: AtomicBool,
    /// Requests to replay dead letters, as the flow's definition has them.
    pub replays: Mutex<Vec<(Uuid, Wanted)>>,
    /// Builds that fail before one succeeds.
    pub unplannable: AtomicUsize,
    pub builds: AtomicUsize,
}

impl World {
    pub fn new(partitions: i32) -> Arc<Self> {
        Arc::new(Self {
            id: Uuid::from_u128(0xF10),
            topic: Topic::new(partitions),
            target: MemTable::new(id_schema()),
            letters: MemTable::new(dead_letter_schema()),
            blobs: Arc::default(),
            settings: Mutex::new(FlowSettings {
                commit_interval: Duration::from_millis(3),
                parallelism: 2,
                heartbeat: Duration::from_secs(3600),
                ..FlowSettings::default()
            }),
            start: Mutex::default(),
            query: Mutex::default(),
            mended: AtomicBool::new(false),
            replays: Mutex::default(),
            unplannable: AtomicUsize::new(0),
            builds: AtomicUsize::new(0),
        })
    }

    pub fn spec(&self) -> FlowSpec {
        FlowSpec {
            id: self.id,
            name: TableName::public("visits"),
            settings: self.settings.lock().clone(),
            source: Arc::new(TopicSource(Arc::clone(&self.topic), self.mended.load(Ordering::SeqCst))),
            start: self.start.lock().clone(),
            query: self.query.lock().clone(),
            target: Arc::clone(&self.target) as Arc<dyn CommitTable>,
            dead_letters: Arc::clone(&self.letters) as Arc<dyn CommitTable>,
            blobs: Arc::clone(&self.blobs) as Arc<dyn BlobStore>,
            replays: self.replays.lock().iter().map(|(id, wanted)| self.replay(*id, *wanted)).collect(),
        }
    }

    fn replay(&self, id: Uuid, wanted: Wanted) -> Replay {
        Replay { id, letters: Arc::new(MemLetters { table: Arc::clone(&self.letters), flow: self.id, wanted }) }
    }

    /// Asks for a replay; runs that begin after this know of it.
    pub fn ask(&self, wanted: Wanted) -> Uuid {
        let id = Uuid::from_u128(u128::from(UUIDS.fetch_add(1, Ordering::Relaxed)));
        self.replays.lock().push((id, wanted));
        id
    }

    pub fn definition(&self) -> Definition {
        Definition {
            kind: DefinitionKind::Flow,
            name: "lake.public.visits".into(),
            id: self.id,
            sql: String::new(),
            properties: BTreeMap::new(),
            created_at_ms: 0,
            version: 1,
        }
    }

    pub fn rows_complete(&self) -> bool {
        self.target.ids().len() >= self.topic.good_ids().len()
    }
    pub fn letters_complete(&self) -> bool {
        self.letters.letters().len() >= self.topic.bad().len()
    }

    /// Every good record once in the table.
    pub fn check_rows(&self) {
        let sorted = |mut v: Vec<i64>| {
            v.sort_unstable();
            v
        };
        assert_eq!(sorted(self.target.ids()), sorted(self.topic.good_ids()), "rows");
    }

    /// And every bad one once in the dead-letter table.
    pub fn check(&self) {
        self.check_rows();
        let mut letters = self.letters.letters();
        letters.sort_unstable();
        assert_eq!(letters, self.topic.bad(), "dead letters");
    }
}

#[derive(Debug)]
pub struct WorldFactory(pub Arc<World>);

#[async_trait]
impl FlowFactory for WorldFactory {
    async fn build(&self, _flow: &Definition) -> Result<FlowSpec> {
        let world = &self.0;
        world.builds.fetch_add(1, Ordering::SeqCst);
        if world.unplannable.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok() {
            return Err(Error::unavailable("no metastore"));
        }
        Ok(world.spec())
    }
}

/// Waits for something that must come about. The limit only keeps a failing test from hanging.
pub async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let waited = async {
        while !done() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    if tokio::time::timeout(Duration::from_secs(60), waited).await.is_err() {
        panic!("waited in vain: {what}");
    }
}
