//! Functions on JSON, which is text.

mod get;

use std::sync::{Arc, LazyLock};

use datafusion::logical_expr::ScalarUDF;

static GET: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| Arc::new(get::json()));
static GET_TEXT: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| Arc::new(get::text()));

/// `json -> key`.
pub fn json_get() -> &'static Arc<ScalarUDF> {
    &GET
}

/// `json ->> key`.
pub fn json_get_text() -> &'static Arc<ScalarUDF> {
    &GET_TEXT
}

pub(crate) const FUNCTIONS: &[fn() -> ScalarUDF] = &[get::json, get::text];
