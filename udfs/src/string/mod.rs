//! Functions on text and bytes.

mod base64;
mod convert_from;
mod format;
mod input;

use datafusion::logical_expr::ScalarUDF;

pub use base64::base64_lines;

pub(crate) const FUNCTIONS: &[fn() -> ScalarUDF] =
    &[convert_from::function, format::function, input::json, input::uuid];
