//! Iceberg tables: where they are listed, how they are read, written, committed and kept small.
//!
//! ```text
//!                 SqlLake ── pointers (SQLite, Iceberg's JDBC layout)
//!                    │
//!          load ─────┼───────────► TableState (one metadata file, unchanging)
//!                    │                 │                  │
//!             writer/ (Parquet)     scan/ (TableProvider)  commit/ (stage, swap, anchors, expiry)
//!                    │                                          │
//!                    └────── storage (durable files) ◄──────────┘
//! ```
//!
//! The three types to know: [`SqlLake`] (the catalog), [`TableState`] (what one metadata file says) and
//! [`Storage`] (the only place that writes files). A commit is files first, then one compare-and-swap of the
//! table's row; nothing is visible before, and nothing is ever half visible.

mod blobs;
mod commit;
mod error;
mod pointers;
mod properties;
pub mod scan;
pub mod schema;
mod sql_catalog;
mod state;
mod storage;
mod table;
#[cfg(test)]
mod tests;
mod unseen;
mod writer;

pub use blobs::WarehouseBlobs;
pub use scan::MetadataCache;
pub use sql_catalog::{SqlLake, SqlLakeOptions};
pub use state::TableState;
pub use storage::Storage;
