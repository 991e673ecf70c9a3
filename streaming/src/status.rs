//! What others see of a flow while it runs.

use std::time::Duration;

use parking_lot::Mutex;
use tidewater_catalogs::{
    Anchor, Definition, Error, FlowErrorInfo, FlowState, FlowStatus, Offsets, ReadBatch, TableName, TopicLayout,
};

use crate::failure::trouble;
use crate::hot::HotCell;
use crate::metrics::FlowMetrics;

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
            rows_in: 0,
            rows_out: 0,
            rows_dead: 0,
            rows_skipped: 0,
            bytes_in: 0,
            commits: 0,
            commit_ms: 0,
            commit_interval_ms: 0,
        };
        let metrics = FlowMetrics::new(&definition.name);
        Self { status: Mutex::new(Inner { status, passing: false }), metrics, hot: HotCell::default() }
    }

    pub(crate) fn hot(&self) -> &HotCell {
        &self.hot
    }

    pub(crate) fn metrics(&self) -> &FlowMetrics {
        &self.metrics
    }

    pub(crate) fn get(&self) -> FlowStatus {
        self.status.lock().status.clone()
    }

    pub(crate) fn state(&self) -> FlowState {
        self.status.lock().status.state
    }

    pub(crate) fn set_state(&self, state: FlowState, error: Option<FlowErrorInfo>) {
        let mut inner = self.status.lock();
        inner.status.state = state;
        inner.status.error = error;
        inner.passing = false;
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
        }
    }

    pub(crate) fn trouble_over(&self) {
        let mut inner = self.status.lock();
        if inner.passing {
            inner.status.error = None;
            inner.passing = false;
        }
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

    pub(crate) fn moved(&self, partition: i32, next: i64) {
        self.status.lock().status.position.set(partition, next);
    }

    pub(crate) fn layout(&self, layout: &TopicLayout) {
        let status = &mut self.status.lock().status;
        status.high = layout.highs();
        self.metrics.lag.set(status.lag() as f64);
    }

    pub(crate) fn interval(&self, interval: Duration) {
        self.status.lock().status.commit_interval_ms = millis(interval);
    }

    pub(crate) fn committed(&self, anchor: &Anchor, positions: Offsets, took: Duration, now_ms: i64) {
        let status = &mut self.status.lock().status;
        status.epoch = anchor.epoch;
        status.seq = anchor.seq;
        status.snapshot_id = Some(anchor.snapshot_id);
        status.committed_at_ms = Some(now_ms);
        status.committed = positions;
        status.commits += 1;
        status.commit_ms = millis(took);
        self.metrics.lag.set(status.lag() as f64);
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
