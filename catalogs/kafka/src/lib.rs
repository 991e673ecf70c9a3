//! Kafka topics as tables.
//!
//! ```text
//!   CREATE CONNECTION ──► options ──► client    questions: metadata, offsets, topics
//!                            │
//!        flow ── open() ─────┤                                          ┌─► rows
//!        SELECT ─ bounded() ─┴──► reader: ffi::Intake ──► lane::Lane ───┼─► dead letters
//!                                 (a thread of its own)   (format)      └─► [from, to) of the partition
//!        INSERT ─ writer() ─────► writer
//! ```
//!
//! The three types to know: [`KafkaConnector`] (the way in), `Reader` (the thread that polls and decodes, and the
//! bounded queue out of it) and `ValueDecoder` (which decides what a malformed record is).

mod client;
mod ffi;
mod format;
mod infer;
mod lane;
mod letters;
mod metadata;
mod options;
mod pushdown;
mod reader;
mod source;
mod table;
mod writer;

mod connector;

pub use connector::KafkaConnector;

#[cfg(test)]
mod broker_tests;
