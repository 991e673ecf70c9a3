//! `tidewater_flow_…`, labelled with the flow's name. Handles are looked up once per flow.

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};

pub(crate) struct FlowMetrics {
    pub(crate) rows_in: Counter,
    pub(crate) rows_out: Counter,
    pub(crate) rows_dead: Counter,
    pub(crate) rows_skipped: Counter,
    pub(crate) rows_replayed: Counter,
    pub(crate) rows_lost: Counter,
    pub(crate) bytes: Counter,
    pub(crate) commits: Counter,
    pub(crate) rebases: Counter,
    pub(crate) unknown_outcomes: Counter,
    pub(crate) resolved_committed: Counter,
    pub(crate) resolved_not_yet: Counter,
    pub(crate) resolved_fenced: Counter,
    pub(crate) restarts: Counter,
    pub(crate) lag: Gauge,
    pub(crate) running: Gauge,
    pub(crate) memory_bytes: Gauge,
    pub(crate) outbox_entries: Gauge,
    pub(crate) commit_seconds: Histogram,
    pub(crate) freshness_seconds: Histogram,
}

impl std::fmt::Debug for FlowMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FlowMetrics").finish_non_exhaustive()
    }
}

impl FlowMetrics {
    pub(crate) fn new(flow: &str) -> Self {
        let flow = flow.to_owned();
        let c = |name: &'static str| counter!(name, "flow" => flow.clone());
        let g = |name: &'static str| gauge!(name, "flow" => flow.clone());
        let h = |name: &'static str| histogram!(name, "flow" => flow.clone());
        Self {
            rows_in: c("tidewater_flow_rows_in_total"),
            rows_out: c("tidewater_flow_rows_out_total"),
            rows_dead: c("tidewater_flow_rows_dead_total"),
            rows_replayed: c("tidewater_flow_rows_replayed_total"),
            rows_skipped: c("tidewater_flow_rows_skipped_total"),
            rows_lost: c("tidewater_flow_rows_lost_total"),
            bytes: c("tidewater_flow_bytes_total"),
            commits: c("tidewater_flow_commits_total"),
            rebases: c("tidewater_flow_rebases_total"),
            unknown_outcomes: c("tidewater_flow_unknown_outcomes_total"),
            resolved_committed: c("tidewater_flow_resolved_committed_total"),
            resolved_not_yet: c("tidewater_flow_resolved_notyet_total"),
            resolved_fenced: c("tidewater_flow_resolved_fenced_total"),
            restarts: c("tidewater_flow_restarts_total"),
            lag: g("tidewater_flow_lag_records"),
            running: g("tidewater_flow_running"),
            memory_bytes: g("tidewater_flow_memory_bytes"),
            outbox_entries: g("tidewater_flow_outbox_entries"),
            commit_seconds: h("tidewater_flow_commit_seconds"),
            freshness_seconds: h("tidewater_flow_freshness_seconds"),
        }
    }
}
