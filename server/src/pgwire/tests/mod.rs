//! The protocol loop, driven through sockets in memory with a fake engine behind it.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod client;
mod engine;
mod extended;
mod hostile;
mod interrupt;
mod parameters;
mod sign_in;
mod simple;
