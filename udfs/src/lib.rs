//! SQL functions beyond DataFusion's, one file each, by folder.
//!
//! The function to know: [`all`], the list that a session registers.

mod datetime;
mod json;
mod number;
mod string;

use std::sync::Arc;

use datafusion::logical_expr::ScalarUDF;

pub use json::{json_get, json_get_text};
pub use string::base64_lines;

/// Every function of this crate.
pub fn all() -> Vec<Arc<ScalarUDF>> {
    let lists = [datetime::FUNCTIONS, json::FUNCTIONS, number::FUNCTIONS, string::FUNCTIONS];
    lists.into_iter().flatten().map(|make| Arc::new(make())).collect()
}

/// What an argument gives for each row; one value where all arguments are constant.
pub(crate) fn rows(args: &datafusion::logical_expr::ScalarFunctionArgs) -> usize {
    let scalar = args.args.iter().all(|a| matches!(a, datafusion::logical_expr::ColumnarValue::Scalar(_)));
    if scalar { 1 } else { args.number_rows }
}

/// An array of [`rows`] values, as a value of the function.
pub(crate) fn result(
    args: &datafusion::logical_expr::ScalarFunctionArgs,
    array: arrow::array::ArrayRef,
) -> datafusion::common::Result<datafusion::logical_expr::ColumnarValue> {
    use datafusion::common::ScalarValue;
    use datafusion::logical_expr::ColumnarValue;
    let scalar = args.args.iter().all(|a| matches!(a, ColumnarValue::Scalar(_)));
    Ok(if scalar {
        ColumnarValue::Scalar(ScalarValue::try_from_array(&array, 0)?)
    } else {
        ColumnarValue::Array(array)
    })
}
