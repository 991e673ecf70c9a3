//! What makes us a PostgreSQL to psql and to drivers: catalog tables and functions over one snapshot of our catalog,
//! and statements put into words that the planner knows.

mod rewrite;
mod snapshot;

pub(crate) use rewrite::{rewrite, system_relation};
pub(crate) use snapshot::snapshot;

use sqlparser::ast::Query;

/// True where a query may need catalog tables or functions. Wrong in the safe direction only: the snapshot is then
/// built for nothing.
pub(crate) fn needs_catalog(query: &Query) -> bool {
    const WORDS: [&str; 7] =
        ["pg_", "information_schema", "regclass", "regtype", "regnamespace", "format_type", "_description"];
    let text = query.to_string().to_lowercase();
    WORDS.iter().any(|word| text.contains(word)) || text.contains("has_")
}
