//! `pg_catalog` and `information_schema` as ordinary tables over one snapshot of our catalog.
//!
//! ```text
//!   CatalogSnapshot ──► tables/*.rs (rows by column name) ──► layout (columns and types) ──► MemTable
//!                  └──► functions (pg_get_userbyid, format_type …)
//! ```
//!
//! The three types to know: [`CatalogSnapshot`], [`table`] and [`functions()`]. A statement takes one snapshot, so all
//! catalog tables that it joins agree with each other. A table that the layout lists and nothing fills is empty, as it
//! is in a PostgreSQL without such objects.

mod functions;
mod layout;
mod snapshot;
mod tables;
mod types;

#[cfg(test)]
mod tests;

pub use functions::functions;
pub use layout::{Value, relation_names};
pub use snapshot::{
    CatalogSnapshot, ColumnEntry, RelationEntry, RelationKind, SchemaEntry, SessionEntry, SettingEntry, stable_oid,
};
pub use tables::{is_always_empty, is_without_relations, table};
pub use types::{PgType, pg_type, type_name};

pub const PG_CATALOG: &str = "pg_catalog";
pub const INFORMATION_SCHEMA: &str = "information_schema";
