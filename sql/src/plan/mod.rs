//! Query text → plan.
//!
//! ```text
//!   AST ── rewrite ──► names of outputs, wildcards over streams, forms the planner would read wrongly
//!       ── relation ─► tables, streams, system views, loaded fresh for each statement
//!       ── provider ─► DataFusion's planner
//!       ── rules ────► session time zone, casts in PostgreSQL's manner
//!   flow ── compile ─► the query of a streaming table, checked to be row by row
//! ```
//!
//! The three types to know: [`Planner`], [`relation::Relation`] and [`flow::CompiledFlow`].

mod among;
mod arithmetic;
pub(crate) mod assign;
mod average;
mod casts;
mod chained;
mod coop;
pub(crate) mod environment;
mod extremes;
pub(crate) mod flow;
mod flow_check;
mod flow_lane;
pub(crate) mod functions;
pub(crate) mod generated;
mod guard;
mod interval;
mod interval_part;
mod interval_product;
mod lateral;
pub(crate) mod letters;
pub(crate) mod literals;
mod live;
pub(crate) mod message;
mod naming;
mod numeric;
mod one_type;
mod operators;
mod output;
mod plain_types;
mod provider;
mod quantified;
mod query;
pub(crate) mod relation;
pub(crate) mod rewrite;
mod row_key;
mod rows;
mod scope;
mod single_value;
mod stream_scan;
mod subqueries;
mod sum;
pub(crate) mod system;
mod text_functions;
pub(crate) mod time_travel;
mod typed_forms;
pub(crate) mod types;
mod walk;
mod wildcard;
mod words;
mod zeros;
mod zones;

pub use interval::interval;
pub(crate) use naming::output_name;
pub(crate) use output::{UNIQUE, display_name};
pub(crate) use query::{Planned, Planner, Purpose, TARGET, Target, parameter_numbers, parameters};
