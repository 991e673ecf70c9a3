//! The process: protocols outside, engine inside.
//!
//! ```text
//!   cli ─► config ─► process ─┬─ assembly: the concrete catalogs, connectors and stores
//!                             ├─ pgwire    sockets runtime ──► sql::Session on the query runtime
//!                             ├─ flight    the same, for Arrow Flight SQL
//!                             ├─ http      /healthz /readyz /metrics
//!                             └─ demo      development broker, generator, demo.sql
//! ```
//!
//! The three types to know: [`config::Config`], [`process::Server`] and [`assembly::assemble`], the one place where
//! concrete parts are named.

pub mod assembly;
pub mod cli;
pub mod config;
pub mod demo;
pub mod flight;
mod heap;
pub mod http;
pub mod lock;
pub mod pgwire;
pub mod process;
pub mod tls;
