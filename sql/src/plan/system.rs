//! Tables that are not stored: views of the product.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::catalog::TableProvider;

use crate::engine::Engine;
use crate::error::Result;

mod views;

/// A view of catalog `system`. None where there is no such view. (`pg_catalog` and `information_schema` are not asked
/// for here: one snapshot serves all of their tables in a statement, see [`crate::pg`].)
pub(crate) async fn table(engine: &Arc<Engine>, schema: &str, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
    match schema {
        "system" => views::table(engine, name).await,
        _ => Ok(None),
    }
}

/// Names and columns of all views.
pub(crate) async fn views(engine: &Arc<Engine>) -> Result<Vec<(&'static str, SchemaRef)>> {
    let mut all = Vec::with_capacity(views::NAMES.len());
    for name in views::NAMES {
        if let Some(view) = views::table(engine, name).await? {
            all.push((name, view.schema()));
        }
    }
    Ok(all)
}
