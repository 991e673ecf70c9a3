//! The line that shows the demo at work: one that is written over on a terminal, a plain one every few seconds
//! elsewhere.

use std::collections::VecDeque;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use tidewater_catalogs::{FlowState, FlowStatus};

const ON_TERMINAL: Duration = Duration::from_millis(500);
const ELSEWHERE: Duration = Duration::from_secs(5);
/// Over how long the shown rate is taken.
const RATE_OVER: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub struct Progress {
    terminal: bool,
    /// Events in the topics when this run began. Flows count from then on as well.
    before: u64,
    /// Events in the topics at some moments, oldest first.
    seen: VecDeque<(Instant, u64)>,
}

impl Progress {
    /// `events` are in the topics now.
    pub fn new(now: Instant, events: u64) -> Self {
        Self { terminal: std::io::stdout().is_terminal(), before: events, seen: VecDeque::from([(now, events)]) }
    }

    pub fn interval(&self) -> Duration {
        if self.terminal { ON_TERMINAL } else { ELSEWHERE }
    }

    pub fn show(&mut self, now: Instant, now_ms: i64, events: u64, failed: u64, flows: &[FlowStatus]) {
        self.seen.push_back((now, events));
        while self.seen.len() > 2 && self.seen.get(1).is_some_and(|(at, _)| now - *at >= RATE_OVER) {
            self.seen.pop_front();
        }
        let rate = self.seen.front().map_or(0.0, |(at, before)| {
            let seconds = (now - *at).as_secs_f64();
            if seconds > 0.0 { events.saturating_sub(*before) as f64 / seconds } else { 0.0 }
        });
        let line = line(now_ms, events.saturating_sub(self.before), rate, failed, flows);
        let mut out = std::io::stdout().lock();
        // Who closed our output does not want the line.
        let _ = if self.terminal {
            // Without wrapping: a line that is broken in two could not be written over.
            write!(out, "\r\x1b[?7l{line}\x1b[K\x1b[?7h").and_then(|()| out.flush())
        } else {
            writeln!(out, "{line}")
        };
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.terminal {
            println!();
        }
    }
}

fn line(now_ms: i64, events: u64, rate: f64, failed: u64, flows: &[FlowStatus]) -> String {
    let rows: u64 = flows.iter().map(|f| f.rows_committed).sum();
    let lag: Option<i64> = flows.iter().map(FlowStatus::lag).sum();
    let mut line = format!(
        "since this start: events in {} ({rate:.0}/s), rows committed {} | lag {}",
        grouped(events),
        grouped(rows),
        lag.map_or_else(|| "unknown".to_owned(), |lag| grouped(lag.unsigned_abs())),
    );
    let last = flows.iter().filter_map(|f| Some((f.committed_at_ms?, f.snapshot_id?, f))).max_by_key(|l| l.0);
    if let Some((at, snapshot, flow)) = last {
        let age = (now_ms - at).max(0) as f64 / 1000.0;
        line.push_str(&format!(" | last snapshot {snapshot} of {}, {age:.1} s ago", flow.name.name));
    }
    for flow in
        flows.iter().filter(|f| matches!(f.state, FlowState::Failed | FlowState::Restarting | FlowState::Retrying))
    {
        let why = flow.error.as_ref().map_or("", |e| e.code.as_str());
        line.push_str(&format!(" | {} is {} {why}", flow.name.name, flow.state.as_str()));
    }
    if failed > 0 {
        line.push_str(&format!(" | {} events not taken by the broker", grouped(failed)));
    }
    line
}

/// 1234567 as 1,234,567.
fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use tidewater_catalogs::{ErrorDomain, FlowErrorInfo, Offsets, TableName};

    use super::*;

    fn status(name: &str) -> FlowStatus {
        FlowStatus {
            id: uuid::Uuid::nil(),
            name: TableName::public(name),
            state: FlowState::Running,
            error: None,
            restarts: 0,
            epoch: 1,
            seq: 4,
            snapshot_id: Some(88),
            committed_at_ms: Some(9_000),
            topic: "t".into(),
            committed: Offsets::from_iter([(0, 1_000)]),
            position: Offsets::default(),
            high: Offsets::from_iter([(0, 3_500)]),
            high_at_ms: Some(9_000),
            high_known: true,
            rows_in: 0,
            rows_out: 1_300_000,
            rows_committed: 1_234_567,
            rows_dead: 0,
            rows_skipped: 0,
            bytes_in: 0,
            commits: 4,
            commit_ms: 5,
            commit_interval_ms: 2_000,
        }
    }

    #[test]
    fn the_line_says_what_matters() {
        assert_eq!(
            line(10_500, 1_000, 999.6, 0, &[status("a")]),
            "since this start: events in 1,000 (1000/s), rows committed 1,234,567 | lag 2,500 | \
             last snapshot 88 of a, 1.5 s ago"
        );
        let error = FlowErrorInfo {
            domain: ErrorDomain::External,
            code: "UNAVAILABLE".into(),
            message: String::new(),
            hint: None,
            at_ms: 0,
        };
        let broken = FlowStatus { state: FlowState::Restarting, error: Some(error), snapshot_id: None, ..status("b") };
        assert!(line(0, 0, 0.0, 0, &[status("a"), broken.clone()]).contains(" | lag unknown | "));
        assert!(
            line(0, 0, 0.0, 3, &[broken]).ends_with("| b is restarting UNAVAILABLE | 3 events not taken by the broker")
        );
    }
}
