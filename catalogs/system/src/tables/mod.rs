//! One function a table that has rows; the match below is the table of contents.

mod information_schema;
mod objects;
mod server;

use std::sync::Arc;

use datafusion::catalog::TableProvider;
use datafusion::datasource::MemTable;
use datafusion::error::Result;

use crate::layout::{Row, batch, layout};
use crate::{CatalogSnapshot, INFORMATION_SCHEMA, PG_CATALOG};

/// The catalog table of that name, filled from `snapshot`; `None` where there is no such table.
pub fn table(snapshot: &CatalogSnapshot, schema: &str, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
    let Some(key) = key(schema, name) else { return Ok(None) };
    let Some(columns) = layout(&key) else { return Ok(None) };
    let rows = rows(snapshot, &key).unwrap_or_default();
    let batch = batch(&columns, &rows)?;
    Ok(Some(Arc::new(MemTable::try_new(columns, vec![vec![batch]])?)))
}

/// True for catalog tables whose rows do not depend on tables, streams and views.
pub fn is_without_relations(schema: &str, name: &str) -> bool {
    let own = matches!(
        key(schema, name).as_deref(),
        Some(
            "pg_namespace"
                | "pg_type"
                | "pg_am"
                | "pg_collation"
                | "pg_database"
                | "pg_roles"
                | "pg_authid"
                | "pg_user"
                | "pg_settings"
                | "pg_stat_activity"
                | "pg_tablespace"
                | "information_schema.schemata"
        )
    );
    own || is_always_empty(schema, name)
}

/// True for catalog tables that hold no row in any Tidewater: policies, publications, inheritance …
pub fn is_always_empty(schema: &str, name: &str) -> bool {
    let empty = CatalogSnapshot::default();
    key(schema, name).is_some_and(|key| layout(&key).is_some() && rows(&empty, &key).is_none())
}

fn key(schema: &str, name: &str) -> Option<String> {
    match schema {
        PG_CATALOG => Some(name.to_owned()),
        INFORMATION_SCHEMA => Some(format!("{INFORMATION_SCHEMA}.{name}")),
        _ => None,
    }
}

/// `None` where nothing fills the table.
fn rows(s: &CatalogSnapshot, key: &str) -> Option<Vec<Row>> {
    Some(match key {
        "pg_class" => objects::pg_class(s),
        "pg_attribute" => objects::pg_attribute(s),
        "pg_attrdef" => objects::pg_attrdef(s),
        "pg_description" => objects::pg_description(s),
        "pg_namespace" => objects::pg_namespace(s),
        "pg_tables" => objects::pg_tables(s),
        "pg_views" => objects::pg_views(s),
        "pg_foreign_server" => objects::pg_foreign_server(s),
        "pg_foreign_data_wrapper" => server::pg_foreign_data_wrapper(),
        "pg_foreign_table" => objects::pg_foreign_table(s),
        "pg_type" => objects::pg_type(s),
        "pg_am" => server::pg_am(),
        "pg_collation" => server::pg_collation(),
        "pg_database" => server::pg_database(s),
        "pg_roles" | "pg_authid" => server::pg_roles(s),
        "pg_user" => server::pg_user(s),
        "pg_settings" => server::pg_settings(s),
        "pg_stat_activity" => server::pg_stat_activity(s),
        "pg_tablespace" => server::pg_tablespace(),
        "information_schema.tables" => information_schema::tables(s),
        "information_schema.columns" => information_schema::columns(s),
        "information_schema.schemata" => information_schema::schemata(s),
        "information_schema.views" => information_schema::views(s),
        _ => return None,
    })
}
