//! Functions on text and bytes.

mod convert_from;
mod format;

use datafusion::logical_expr::ScalarUDF;

pub(crate) const FUNCTIONS: &[fn() -> ScalarUDF] = &[convert_from::function, format::function];
