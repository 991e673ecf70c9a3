//! Functions on numbers.

mod pattern;
mod round;
mod to_char;

use datafusion::logical_expr::ScalarUDF;

pub(crate) const FUNCTIONS: &[fn() -> ScalarUDF] =
    &[round::round, round::trunc, round::ceil, round::floor, to_char::function];
