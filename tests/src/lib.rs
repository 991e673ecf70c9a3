//! What integration tests and benchmarks share: servers, clients, producers.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod child;
mod client;
mod embedded;
mod kafka;
mod ledger;
mod parts;
mod proxy;
mod spark;

pub use child::{ChildServer, Ports, SERVE_CHILD, log_path, tail};
pub use client::{Client, SqlFailure, connect};
pub use embedded::EmbeddedServer;
pub use kafka::Kafka;
pub use ledger::{LEDGER_COLUMNS, Ledger, LedgerCheck, create_topic};
pub use parts::{Azure, Google, Postgres, RestCatalog, S3};
pub use proxy::{Mode, Proxy};
pub use spark::{Spark, SparkAnswer, SparkTables};

use std::time::{Duration, Instant};

/// Asks `probe` until it says `Ok(Some(_))`, or fails with its last answer after `limit`.
pub fn wait_for<T>(
    what: &str,
    limit: Duration,
    mut probe: impl FnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<T> {
    let begun = Instant::now();
    loop {
        let answer = probe();
        if let Ok(Some(value)) = answer {
            return Ok(value);
        }
        if begun.elapsed() > limit {
            let last = answer.err().map_or_else(String::new, |e| format!(": {e:#}"));
            anyhow::bail!("waited {limit:?} in vain for {what}{last}");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}
