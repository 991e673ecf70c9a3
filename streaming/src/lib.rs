//! Flows: poll, run one trigger, stage, commit, again.
//!
//! ```text
//!   Supervisor ── starts, stops, backs off, restarts ──► Flow ── reads ──► StreamSource
//!                                                          │ FlowQuery, one lane per reader
//!                                                          ├─ stages ──► CommitTable::writer
//!                                                          └─ Committer ─► checkpoint, try_commit, RESOLVE
//! ```
//!
//! The three types to know: [`Supervisor`], [`FlowSpec`] and the pure decisions of [`commit`].
//! Nothing here opens a socket or asks a wall clock: source, tables, clock and chance are handed in ([`Env`]).

mod spec;

mod checkpoint;
pub mod commit;
mod committer;
mod flow;
mod hot;
mod lane;
mod outbox;
mod publish;
mod recovery;
mod replay;
mod replay_lane;
mod seal;
mod source;
mod supervisor;
mod trigger;
mod upkeep;

mod env;
mod failpoint;
mod failure;
mod metrics;
mod status;

pub use env::{Chance, Clock, EngineSettings, Env, Failpoints};
pub use failpoint::FAILPOINTS;
pub use hot::{HotBatch, ReadView};
pub use replay::{LetterReader, LetterSource, Letters, Replay, ReplayEnd, ReplayProgress};
pub use spec::{FlowFactory, FlowLane, FlowQuery, FlowSettings, FlowSpec};
pub use supervisor::Supervisor;

#[cfg(test)]
mod tests;
#[cfg(test)]
mod wrong;
