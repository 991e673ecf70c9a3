//! SQL functions beyond DataFusion's, one file each, by folder.
//!
//! The function to know: [`all`], the list that a session registers.

mod string;

use std::sync::Arc;

use datafusion::logical_expr::ScalarUDF;

/// Every function of this crate.
pub fn all() -> Vec<Arc<ScalarUDF>> {
    string::FUNCTIONS.iter().map(|make| Arc::new(make())).collect()
}
