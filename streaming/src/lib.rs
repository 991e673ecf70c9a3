//! Flows: poll, run one trigger, stage, commit, again.
//!
//! ```text
//!   Supervisor ── starts, stops, backs off, restarts ──► Flow ── reads ──► StreamSource
//!                                                          │ FlowQuery, one lane per reader
//!                                                          ├─ stages ──► CommitTable::writer
//!                                                          └─ Committer ─► checkpoint, try_commit, RESOLVE
//! ```
//!
//! The three types to know: [`Supervisor`], [`FlowSpec`] and the pure decisions of `commit.rs`.

mod spec;

pub use spec::{FlowFactory, FlowLane, FlowQuery, FlowSettings, FlowSpec};
