//! Which queries may run at once.
//!
//! Operators take from a memory pool, and spill. What scans hold meanwhile nobody can spill: so a quarter of
//! `query_memory` is set apart for it, and a query begins when what its scans announce
//! ([`tidewater_catalogs::scan_memory()`]) fits beside those that run. Who comes first begins first.
//!
//! No query waits for one that waits: what it needs it takes at once, before it has begun, and gives back when it ends,
//! or when its client has not fetched a row for [`STALLED`]. Waiting counts towards `statement_timeout`, and can be
//! cancelled.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Permits of a semaphore are few; each is so many bytes.
const UNIT: usize = 64 << 10;
/// Queries that need less do not wait: look-ups of a client, tables of a few rows.
const SMALL: usize = 1 << 20;
/// A client that fetches nothing for so long keeps others waiting no more.
pub(crate) const STALLED: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(crate) struct Admission {
    free: Arc<Semaphore>,
    units: u32,
}

/// Given back when dropped.
#[derive(Debug)]
pub(crate) struct Admitted {
    _permit: Option<OwnedSemaphorePermit>,
}

impl Admission {
    pub(crate) fn new(bytes: usize) -> Self {
        let units =
            u32::try_from(bytes / UNIT).unwrap_or(u32::MAX).clamp(1, Semaphore::MAX_PERMITS.min(1 << 28) as u32);
        Self { free: Arc::new(Semaphore::new(units as usize)), units }
    }

    /// Waits until scans of so many bytes fit. A query that needs more than there is begins when it is alone.
    pub(crate) async fn enter(&self, bytes: usize) -> Admitted {
        if bytes < SMALL {
            return Admitted { _permit: None };
        }
        let units = u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX).min(self.units);
        let _waiting = Waiting::begin();
        // The semaphore is never closed.
        Admitted { _permit: Arc::clone(&self.free).acquire_many_owned(units).await.ok() }
    }
}

/// Counts a query among those that wait, however its waiting ends.
struct Waiting;

impl Waiting {
    fn begin() -> Self {
        metrics::gauge!("tidewater_queries_waiting").increment(1.0);
        Self
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        metrics::gauge!("tidewater_queries_waiting").decrement(1.0);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use futures::FutureExt;

    use super::*;

    const MIB: usize = 1 << 20;

    #[test]
    fn queries_wait_for_each_other_in_order() {
        let gate = Admission::new(8 * MIB);
        let first = gate.enter(5 * MIB).now_or_never().expect("there is room");
        let mut second = Box::pin(gate.enter(4 * MIB));
        assert!((&mut second).now_or_never().is_none(), "there is no room for it");
        let mut third = Box::pin(gate.enter(2 * MIB));
        assert!((&mut third).now_or_never().is_none(), "it came later");
        assert!(gate.enter(MIB - 1).now_or_never().is_some(), "small ones do not wait");
        drop(first);
        let second = second.now_or_never().expect("it is its turn");
        let third = third.now_or_never().expect("there is room for both");
        drop((second, third));
        assert_eq!(gate.free.available_permits(), 8 * MIB / UNIT);
    }

    #[test]
    fn who_needs_more_than_there_is_runs_alone() {
        let gate = Admission::new(8 * MIB);
        let large = gate.enter(usize::MAX).now_or_never().expect("nobody runs");
        assert!(gate.enter(2 * MIB).now_or_never().is_none());
        drop(large);
        assert!(gate.enter(2 * MIB).now_or_never().is_some());
    }

    #[test]
    fn who_gives_up_holds_nobody_back() {
        let gate = Admission::new(8 * MIB);
        let _first = gate.enter(5 * MIB).now_or_never().expect("there is room");
        let mut second = Box::pin(gate.enter(8 * MIB));
        assert!((&mut second).now_or_never().is_none());
        drop(second);
        assert!(gate.enter(3 * MIB).now_or_never().is_some());
    }
}
