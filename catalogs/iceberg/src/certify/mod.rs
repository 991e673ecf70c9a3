#![allow(clippy::unwrap_used, clippy::expect_used)]
//! What every catalog and every object store must do, whatever is behind it: one suite each.
//!
//! The embedded ones run with all tests. The others are ignored unless `cargo xtask e2e` starts what they need and
//! says where it is: `TIDEWATER_TEST_REST`, `TIDEWATER_TEST_POSTGRES`, `TIDEWATER_TEST_STORES` (JSON).

mod catalogs;
mod glue;
mod glue_server;
mod processes;
mod proxy;
mod stores;

use std::collections::BTreeMap;
use std::sync::Arc;

use tidewater_catalogs::{CatalogConnector, CatalogSpec, LakeCatalog};

use crate::{GlueConnector, RestConnector, SqlConnector};

pub(crate) type Options = BTreeMap<String, String>;

pub(crate) fn options(pairs: &[(&str, &str)]) -> Options {
    pairs.iter().map(|(k, v)| ((*k).to_string(), (*v).to_string())).collect()
}

/// What e2e says about a part, as `{"uri": "…", …}`.
fn part(variable: &str) -> Options {
    let text = std::env::var(variable).unwrap_or_else(|_| panic!("{variable} is not set: run `cargo xtask e2e`"));
    serde_json::from_str(&text).unwrap()
}

/// Opened as CREATE CATALOG opens it; each call is another handle that shares nothing with the others.
pub(crate) async fn open(spec: &CatalogSpec) -> Arc<dyn LakeCatalog> {
    match spec.kind.as_str() {
        "glue" => GlueConnector.open(spec).await.unwrap(),
        "rest" => RestConnector.open(spec).await.unwrap(),
        "sql" => SqlConnector.open(spec).await.unwrap(),
        other => panic!("no catalogs of type {other}"),
    }
}
