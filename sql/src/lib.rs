//! SQL: text → statement → plan → effect.
//!
//! ```text
//!   Engine ── one per process: catalogs, metastore, connectors, supervisor, query runtime
//!     └── Session ── one per connection: settings, transaction, parse → prepare → execute
//!           dialect/    text → Statement
//!           statement/  one file per statement; `mod.rs` is the table of contents
//!           plan/       names → tables, rewrites, plans, flow queries
//!           pg/         what psql and drivers ask of a PostgreSQL
//! ```
//!
//! The three types to know: [`Engine`], [`Session`] and [`SqlError`]. Every protocol goes through
//! [`Session::execute`]; none of them plans or runs anything by itself.

mod admission;
mod block;
mod catalogs;
mod dialect;
mod engine;
mod error;
mod pg;
mod plan;
mod run;
mod session;
mod settings;
mod statement;
#[cfg(test)]
mod tests;
mod work;

pub use dialect::{ParsedStatement, Statement};
pub use engine::{Engine, EngineDefaults, EngineParts, SessionInfo};
pub use error::{SqlError, SqlState};
pub use plan::{interval, literals::array_items};
pub use session::{
    CancelHandle, ChangeTag, Login, Notice, Outcome, Prepared, ResultColumn, RowsTag, Session, Severity,
    StatementContext, TransactionStatus,
};
