use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use crate::{Error, Result};

/// Settings and bounds. `new` has the defaults.
#[derive(Debug, Clone)]
pub struct DevBrokerConfig {
    /// Port 0 takes a free one; see [`crate::DevBroker::addr`].
    pub listen: SocketAddr,
    /// Belongs to one broker at a time; a lock file keeps others out.
    pub data_dir: PathBuf,
    /// A partition that is larger drops its oldest segments. Topic option `retention.bytes` goes before it.
    pub max_bytes_per_partition: u64,
    /// When all partitions together are larger, the largest of them drop their oldest segments.
    pub max_bytes_total: u64,
    /// A segment of this size is closed and a new one begun. Topic option `segment.bytes` goes before it.
    pub segment_bytes: u64,
    /// Longer requests close the connection.
    pub max_request_bytes: usize,
    /// Bound of request bytes held at once, over all connections.
    pub max_inflight_bytes: usize,
    /// Larger record batches are refused with MESSAGE_TOO_LARGE.
    pub max_batch_bytes: usize,
    /// Upper bound of the records in one fetch response; one batch always fits.
    pub max_fetch_bytes: usize,
    /// Further connections are closed at once.
    pub max_connections: usize,
    pub max_topics: usize,
    /// Over all topics.
    pub max_partitions: usize,
    pub max_groups: usize,
}

impl DevBrokerConfig {
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            data_dir: data_dir.into(),
            max_bytes_per_partition: 512 << 20,
            max_bytes_total: 2 << 30,
            segment_bytes: 16 << 20,
            max_request_bytes: 16 << 20,
            max_inflight_bytes: 128 << 20,
            max_batch_bytes: 8 << 20,
            max_fetch_bytes: 16 << 20,
            max_connections: 256,
            max_topics: 1_000,
            max_partitions: 4_000,
            max_groups: 1_000,
        }
    }

    pub(crate) fn check(&self) -> Result<()> {
        let positive = [
            ("max_bytes_per_partition", self.max_bytes_per_partition),
            ("max_bytes_total", self.max_bytes_total),
            ("segment_bytes", self.segment_bytes),
            ("max_connections", self.max_connections as u64),
        ];
        if let Some((name, _)) = positive.iter().find(|(_, value)| *value == 0) {
            return Err(Error::Config(format!("{name} must be larger than 0")));
        }
        if self.max_batch_bytes >= self.max_request_bytes || self.max_request_bytes > self.max_inflight_bytes {
            return Err(Error::Config(
                "max_batch_bytes < max_request_bytes <= max_inflight_bytes does not hold".into(),
            ));
        }
        // Positions inside a segment are 32 bits in the protocol's own limits, and a batch may overshoot the size.
        if self.segment_bytes > (1 << 30) {
            return Err(Error::Config("segment_bytes must be at most 1 GiB".into()));
        }
        Ok(())
    }
}
