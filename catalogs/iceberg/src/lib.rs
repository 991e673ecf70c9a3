//! Iceberg tables: where they are listed, how they are read, written, committed and kept small.
//!
//! ```text
//!              IcebergLake ── pointers/ (SQLite or PostgreSQL, Iceberg's JDBC layout), glue/ (AWS Glue)
//!                    │      └─ rest/ (a server behind Iceberg's REST protocol)
//!                    │
//!          load ─────┼───────────► TableState (one metadata file, unchanging)
//!                    │                 │                  │
//!             writer/ (Parquet)     scan/ (TableProvider)  commit/ (stage, swap, anchors, expiry)
//!                    │                                          │
//!                    └── storage/ (disk, S3, GCS, Azure) ◄──────┘
//! ```
//!
//! The three types to know: [`IcebergLake`] (a catalog), [`TableState`] (what one metadata file says) and
//! [`Storage`] (the only place that writes files). A commit is files first, then one compare-and-swap of the
//! table's row; nothing is visible before, and nothing is ever half visible.

mod add_files;
mod alter;
mod attempts;
mod blobs;
mod catalog;
#[cfg(test)]
mod certify;
mod change;
mod cherrypick;
mod commit;
mod compact;
mod connector;
mod default_values;
mod defaults;
mod draft;
mod error;
mod glue;
mod http;
mod in_flight;
mod lake;
mod lineage;
mod metadata_tables;
mod ndv;
mod new_table;
mod onto;
mod pointers;
mod properties;
mod references;
mod rest;
mod rewrite;
mod rewrite_manifests;
pub mod scan;
pub mod schema;
mod sort_order;
mod state;
mod storage;
mod table;
#[cfg(test)]
mod tests;
mod unseen;
mod vacuum;
mod version;
mod work;
mod writer;

pub use blobs::WarehouseBlobs;
pub use catalog::{HOME_CATALOG, IcebergLake, SqlLakeOptions};
pub use connector::{GlueConnector, RestConnector, SqlConnector};
pub use glue::GlueOptions;
pub use pointers::Database;
pub use rest::RestOptions;
pub use scan::MetadataCache;
pub use state::TableState;
pub use storage::{STORE_OPTIONS, Storage, StoreOptions, check_store_options, is_store_option};
