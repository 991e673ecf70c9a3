//! What the front end counts.

use metrics::{counter, gauge};

/// One open session; counted down when dropped.
pub(super) struct OpenSession;

impl OpenSession {
    pub fn count() -> Self {
        counter!("tidewater_pgwire_connections_total").increment(1);
        gauge!("tidewater_pgwire_connections").increment(1.0);
        Self
    }
}

impl Drop for OpenSession {
    fn drop(&mut self) {
        gauge!("tidewater_pgwire_connections").decrement(1.0);
    }
}

pub(super) fn query(protocol: &'static str) {
    counter!("tidewater_pgwire_queries_total", "protocol" => protocol).increment(1);
}

/// By the class of the SQLSTATE, its first two characters.
pub(super) fn error(state: &'static str) {
    counter!("tidewater_pgwire_errors_total", "class" => state.get(..2).unwrap_or("XX")).increment(1);
}

pub(super) fn rows(count: u64) {
    counter!("tidewater_pgwire_rows_total").increment(count);
}
