//! What others see of a flow while it runs.

use std::time::Duration;

use parking_lot::Mutex;
use tidewater_catalogs::{
    Anchor, Definition, Error, FlowErrorInfo, FlowState, FlowStatus, Offsets, ReadBatch, TableName, TopicLayout,
};

use crate::failure::trouble;
use crate::hot::HotCell;
use crate::metrics::FlowMetrics;
use crate::replay::ReplayProgress;

#[derive(Debug)]
pub(crate) struct StatusCell {
    status: Mutex<Inner>,
    metrics: FlowMetrics,
    hot: HotCell,
}

#[derive(Debug)]
struct Inner {
    status: FlowStatus,
    /// The error shown is one that a step waits out, and goes with the next success.
    passing: bool,
    /// Why the topic could not be read, or asked for its marks, when last tried. Apart from `passing`: a topic that answers says
    /// nothing about a catalog that does not.
    topic_away: Option<FlowErrorInfo>,
    /// Requests to replay dead letters, as the last commit left them.
    replays: Vec<ReplayProgress>,
}

impl Inner {
    /// As it is shown.
    fn shown(&self) -> FlowStatus {
        let mut status = self.status.clone();
        if status.error.is_none() {
            status.error.clone_from(&self.topic_away);
        }
        status.high_known &= self.topic_away.is_none();
        let at_work = matches!(status.state, FlowState::Running | FlowState::Starting);
        if at_work && (self.passing || self.topic_away.is_some()) {
            status.state = FlowState::Retrying;
        }
        status
    }

    /// The gauges say what the views say.
    fn gauge(&self, metrics: &FlowMetrics) {
        let shown = self.shown();
        metrics.lag.set(shown.lag().map_or(f64::NAN, |lag| lag as f64));
        metrics.running.set(if shown.state == FlowState::Running { 1.0 } else { 0.0 });
    }
}

impl StatusCell {
    pub(crate) fn new(definition: &Definition) -> Self {
        let status = FlowStatus {
            id: definition.id,
            name: table_name(&definition.name),
            state: FlowState::Starting,
            error: None,
            restarts: 0,
            epoch: 0,
            seq: 0,
            snapshot_id: None,
            committed_at_ms: None,
            topic: String::new(),
            committed: Offsets::default(),
            position: Offsets::default(),
            high: Offsets::default(),
            high_at_ms: None,
            high_known: false,
            rows_in: 0,
            rows_out: 0,
            rows_committed: 0,
            rows_dead: 0,
            rows_skipped: 0,
            bytes_in: 0,
            commits: 0,
            commit_ms: 0,
            commit_interval_ms: 0,
        };
        let metrics = FlowMetrics::new(&definition.name);
        let inner = Inner { status, passing: false, topic_away: None, replays: Vec::new() };
        inner.gauge(&metrics);
        Self { status: Mutex::new(inner), metrics, hot: HotCell::default() }
    }

    pub(crate) fn hot(&self) -> &HotCell {
        &self.hot
    }

    pub(crate) fn metrics(&self) -> &FlowMetrics {
        &self.metrics
    }

    pub(crate) fn get(&self) -> FlowStatus {
        self.status.lock().shown()
    }

    pub(crate) fn state(&self) -> FlowState {
        self.status.lock().status.state
    }

    pub(crate) fn set_state(&self, state: FlowState, error: Option<FlowErrorInfo>) {
        let mut inner = self.status.lock();
        inner.status.state = state;
        inner.status.error = error;
        inner.passing = false;
        if state != FlowState::Running {
            // What a later run knows it asks for itself.
            inner.topic_away = None;
            inner.status.high_known = false;
        }
        inner.gauge(&self.metrics);
    }

    pub(crate) fn restarted(&self) {
        self.status.lock().status.restarts += 1;
        self.metrics.restarts.increment(1);
    }

    /// Trouble of a step that goes on trying.
    pub(crate) fn trouble(&self, error: &Error, at_ms: i64) {
        let mut inner = self.status.lock();
        if inner.status.error.is_none() || inner.passing {
            inner.status.error = Some(trouble(error, at_ms));
            inner.passing = true;
            inner.gauge(&self.metrics);
        }
    }

    pub(crate) fn trouble_over(&self) {
        let mut inner = self.status.lock();
        if inner.passing {
            inner.status.error = None;
            inner.passing = false;
            inner.gauge(&self.metrics);
        }
    }

    pub(crate) fn topic_back(&self) {
        let mut inner = self.status.lock();
        inner.topic_away = None;
        inner.gauge(&self.metrics);
    }

    /// The topic could not be read, or asked for its marks.
    pub(crate) fn topic_away(&self, error: &Error, at_ms: i64) {
        let mut inner = self.status.lock();
        inner.topic_away = Some(trouble(error, at_ms));
        inner.gauge(&self.metrics);
    }

    pub(crate) fn recovered(&self, topic: &str, anchor: &Anchor, epoch: u64, positions: &Offsets) {
        let status = &mut self.status.lock().status;
        topic.clone_into(&mut status.topic);
        status.epoch = epoch;
        status.seq = anchor.seq;
        status.snapshot_id = Some(anchor.snapshot_id);
        status.committed = positions.clone();
        status.position = positions.clone();
    }

    pub(crate) fn consumed(&self, batch: &ReadBatch, rows_out: u64, dead: u64) {
        let status = &mut self.status.lock().status;
        status.position.set(batch.partition, batch.to);
        status.rows_in += batch.records;
        status.rows_out += rows_out;
        status.rows_dead += dead;
        status.rows_skipped += batch.skipped;
        status.bytes_in += batch.source_bytes;
    }

    pub(crate) fn replayed(&self, letters: u64, rows: u64) {
        self.status.lock().status.rows_out += rows;
        self.metrics.rows_replayed.increment(letters);
        self.metrics.rows_out.increment(rows);
    }

    pub(crate) fn replays(&self, requests: &[ReplayProgress]) {
        self.status.lock().replays = requests.to_vec();
    }

    pub(crate) fn replay(&self, id: uuid::Uuid) -> Option<ReplayProgress> {
        self.status.lock().replays.iter().find(|r| r.id == id).cloned()
    }

    pub(crate) fn moved(&self, partition: i32, next: i64) {
        self.status.lock().status.position.set(partition, next);
    }

    pub(crate) fn layout(&self, layout: &TopicLayout, now_ms: i64) {
        let mut inner = self.status.lock();
        inner.topic_away = None;
        inner.status.high = layout.highs();
        inner.status.high_at_ms = Some(now_ms);
        inner.status.high_known = true;
        inner.gauge(&self.metrics);
    }

    pub(crate) fn interval(&self, interval: Duration) {
        self.status.lock().status.commit_interval_ms = millis(interval);
    }

    pub(crate) fn committed(&self, anchor: &Anchor, positions: Offsets, rows: u64, took: Duration, now_ms: i64) {
        let mut inner = self.status.lock();
        let status = &mut inner.status;
        status.epoch = anchor.epoch;
        status.seq = anchor.seq;
        status.snapshot_id = Some(anchor.snapshot_id);
        status.committed_at_ms = Some(now_ms);
        status.committed = positions;
        status.commits += 1;
        status.rows_committed += rows;
        status.commit_ms = millis(took);
        inner.gauge(&self.metrics);
        self.metrics.commits.increment(1);
        self.metrics.commit_seconds.record(took.as_secs_f64());
    }
}

fn millis(d: Duration) -> u64 {
    u64::try_from(d.as_millis()).unwrap_or(u64::MAX)
}

/// `CATALOG.SCHEMA.NAME`, as definitions are named. The name itself may hold dots.
fn table_name(text: &str) -> TableName {
    let mut parts = text.splitn(3, '.');
    match (parts.next(), parts.next(), parts.next()) {
        (Some(catalog), Some(schema), Some(name)) => TableName::new(catalog, schema, name),
        _ => TableName::public(text),
    }
}
