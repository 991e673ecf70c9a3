//! Functions on dates and times.

mod age;
mod parse;
mod pattern;
mod sleep;

use datafusion::logical_expr::ScalarUDF;

pub(crate) use pattern::write as write_time;

pub(crate) const FUNCTIONS: &[fn() -> ScalarUDF] =
    &[age::function, parse::to_timestamp, parse::to_date, sleep::function];
