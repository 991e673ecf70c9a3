//! The seam to tables that are not stored: views of the product, `pg_catalog`, `information_schema`.

use std::sync::Arc;

use datafusion::catalog::TableProvider;

use crate::engine::Engine;
use crate::error::Result;

mod views;

/// A table of the server's own. `schema` is `system`, `pg_catalog` or `information_schema`. None where there is no
/// such table.
pub(crate) async fn table(engine: &Arc<Engine>, schema: &str, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
    match schema {
        "system" => views::table(engine, name).await,
        // pg_catalog and information_schema are filled in here.
        _ => Ok(None),
    }
}
