//! A small Kafka-protocol broker: one node, its log on disk, no cluster and no transactions. The demo and the tests
//! run on it; nothing else may rely on it.
//!
//! ```text
//! DevBroker ── listens, own threads
//!   └── connection: frame (bounded, shape checked) ─► api/ ─┬─► Store ─► Topic ─► PartitionLog ─► segments
//!                                                           └─► Groups
//! ```
//!
//! The three types to know: [`DevBroker`], [`DevBrokerConfig`] and `PartitionLog`. Record batches are kept and served
//! as the producer sent them; of a batch only the header is read, so compression passes through untouched.

mod api;
mod batch;
mod config;
mod error;
mod files;
mod frame;
mod groups;
mod log;
mod producers;
mod server;
mod store;

#[cfg(test)]
mod tests;

pub use config::DevBrokerConfig;
pub use error::{Error, Result};
pub use server::DevBroker;
pub use store::{TopicError, TopicOptions};
