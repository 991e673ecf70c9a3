//! Text → statements.
//!
//! ```text
//!   text ──tokens──► split at ';' ──► markers: FROM STREAM x → FROM STREAM(x)
//!                                       │
//!                                       ├── ours, by its first words ──► own grammar (create, alter, look)
//!                                       └── all else ──────────────────► sqlparser, PostgreSQL dialect
//! ```
//!
//! The three types to know: [`ParsedStatement`], [`Statement`] and [`Options`]. All our words stay usable as
//! names. What the dialect defines and this version does not run is refused with 0A000 here, never as a syntax
//! error; a foreign spelling is refused with its translation in the hint.

mod alter;
mod alter_table;
mod ast;
mod call;
mod create;
mod cursor;
mod display;
mod distinct;
mod errors;
mod look;
mod maintain;
mod markers;
mod merge_star;
mod merge_words;
mod options;
mod reference;
mod refusals;
mod replay;
mod split;
mod stream_options;
mod subscribe;
mod text;
mod tree;
mod types;
mod versions;
mod with;
mod write_order;

#[cfg(test)]
mod tests;

pub use ast::*;
pub(crate) use display::{partition_field_text, sort_fields_text, write_clauses};
pub use display::{quote_ident, quote_text};
pub(crate) use distinct::regroup;
pub use markers::stream_marker;
pub use merge_star::{insert_star, leave_out, same_of, update_star};
pub use merge_words::{by_name, does_nothing, evolves};
pub use options::{OptionValue, Options};
pub(crate) use options::{known as known_option, list};
pub use split::parse;
pub(crate) use split::{parse_name, parse_stored, parse_type};
pub use stream_options::{FlowOptions, InferOptions, StreamOptions};
pub(crate) use tree::{walk, walk_mut};
pub use types::{arrow_field, arrow_type, declared_type, field_type_name, type_name};
pub(crate) use with::{behind_with, under_with};
pub use write_order::WriteOrder;
pub(crate) use write_order::own_order;

/// The parts of the grammar that expressions and queries share with PostgreSQL.
pub(crate) static DIALECT: sqlparser::dialect::PostgreSqlDialect = sqlparser::dialect::PostgreSqlDialect {};
