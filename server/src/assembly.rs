//! The one list of concrete parts: which metastore, which lake, which connectors.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use tidewater_catalogs::{CatalogConnector, StreamConnector};
use tidewater_catalogs_iceberg::{
    Database, GlueConnector, HOME_CATALOG, IcebergLake, RestConnector, SqlConnector, SqlLakeOptions,
};
use tidewater_catalogs_kafka::KafkaConnector;
use tidewater_catalogs_metastore::SqlMetastore;
use tidewater_sql::{Engine, EngineDefaults, EngineParts};
use tidewater_streaming::FlowSettings;
use tokio::runtime::Handle;

use crate::config::Config;

/// Kinds of connections that `CREATE CONNECTION … TO` knows.
fn connectors() -> Vec<Arc<dyn StreamConnector>> {
    vec![Arc::new(KafkaConnector::new())]
}

/// Types of catalogs that `CREATE CATALOG` knows.
fn catalogs() -> Vec<Arc<dyn CatalogConnector>> {
    vec![Arc::new(RestConnector), Arc::new(SqlConnector), Arc::new(GlueConnector)]
}

/// Opens the stores and hands them to an engine. Nothing runs yet.
pub async fn assemble(config: &Config, spill_dir: PathBuf, query: Handle, flow: Handle) -> Result<Arc<Engine>> {
    let metastore = match &config.metastore {
        Database::Sqlite(path) => SqlMetastore::open(path).await,
        Database::Postgres(url) => SqlMetastore::open_postgres(url).await,
    };
    let metastore = metastore.context("the metastore cannot be opened")?;
    let options = SqlLakeOptions {
        database: config.metastore.clone(),
        catalog_name: HOME_CATALOG.to_owned(),
        warehouse: config.warehouse.clone(),
        store: config.warehouse_options.0.clone(),
        snapshot_retention: config.snapshot_retention,
        snapshots_kept: config.snapshots_kept,
        metadata_cache_bytes: config.cache_memory as u64,
    };
    let lake = IcebergLake::open_home(options).await.context("the warehouse cannot be opened")?;
    let blobs = lake.blobs();
    let flow_settings = FlowSettings {
        commit_interval: config.commit_interval,
        max_trigger_bytes: config.max_trigger_size,
        memory_bytes: config.flow_memory as u64,
        ..FlowSettings::default()
    };
    let defaults = EngineDefaults {
        statement_timeout: config.statement_timeout,
        query_parallelism: config.query_threads,
        flow: flow_settings,
        engine: config.engine.clone(),
        ..EngineDefaults::default()
    };
    Engine::new(EngineParts {
        metastore: Arc::new(metastore),
        lake: Arc::new(lake),
        blobs: Arc::new(blobs),
        connectors: connectors(),
        catalogs: catalogs(),
        query_runtime: query,
        flow_runtime: flow,
        query_memory_bytes: config.query_memory,
        spill_dir,
        defaults,
    })
    .map_err(|e| anyhow::anyhow!("the engine cannot be built: {e}"))
}
