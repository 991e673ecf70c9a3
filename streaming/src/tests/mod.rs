//! The engine against a world in memory that loses answers, delays requests and crashes on order.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod crashes;
mod dead_letters;
pub(crate) mod fakes;
mod replay;
mod running;
mod simulator;
mod stored;
mod supervising;
