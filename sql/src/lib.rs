//! SQL: text → statement → plan → effect.
//!
//! ```text
//!   Engine ── one per process: catalogs, metastore, connectors, supervisor, query runtime
//!     └── Session ── one per connection: settings, transaction, parse → describe → execute
//! ```
//!
//! The three types to know: [`Engine`], [`Session`] and [`SqlError`]. Every protocol goes through
//! [`Session::execute`]; none of them plans or runs anything by itself.

mod error;

pub use error::{SqlError, SqlState};
