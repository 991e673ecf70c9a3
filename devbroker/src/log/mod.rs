//! The log of one partition: segments of record batches as the producer sent them, on disk.
//!
//! ```text
//! <topic id>/<partition>/00000000000000000000.log   closed
//!                        00000000000000041200.log   open: batches are written at its end
//!                        start-offset               only where records were deleted by request
//! ```
//! A segment is named by its first offset. Nothing else is stored: the index, the end of the log and the state of
//! idempotent producers are rebuilt from batch headers on start, where a batch that was cut short is removed.

mod partition;
mod read;
mod segment;

pub use partition::{AppendError, Appended, LogLimits, PartitionLog, Span};
pub use read::ReadError;

#[cfg(test)]
mod tests;
