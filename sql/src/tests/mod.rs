//! Statements against an engine in memory.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod definitions;
mod errors;
mod fakes;
mod flows;
mod guards;
mod hidden;
mod queries;
mod sessions;
mod writes;
