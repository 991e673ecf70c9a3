//! Functions on text and bytes.

mod convert_from;
mod format;
mod input;

use datafusion::logical_expr::ScalarUDF;

pub(crate) const FUNCTIONS: &[fn() -> ScalarUDF] =
    &[convert_from::function, format::function, input::json, input::uuid];
