//! The one list of concrete parts: which metastore, which lake, which connectors.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use tidewater_catalogs::StreamConnector;
use tidewater_catalogs_iceberg::{SqlLake, SqlLakeOptions};
use tidewater_catalogs_kafka::KafkaConnector;
use tidewater_catalogs_metastore::SqliteMetastore;
use tidewater_sql::{Engine, EngineDefaults, EngineParts};
use tidewater_streaming::FlowSettings;
use tokio::runtime::Handle;

use crate::config::Config;

/// Kinds of connections that `CREATE CONNECTION … TO` knows.
fn connectors() -> Vec<Arc<dyn StreamConnector>> {
    vec![Arc::new(KafkaConnector::new())]
}

/// Opens the stores and hands them to an engine. Nothing runs yet.
pub async fn assemble(config: &Config, spill_dir: PathBuf, query: Handle, flow: Handle) -> Result<Arc<Engine>> {
    let metastore = SqliteMetastore::open(&config.metastore).await.context("the metastore cannot be opened")?;
    let mut options = SqlLakeOptions::local(absolute(&config.metastore)?, warehouse_url(&config.warehouse)?);
    options.snapshot_retention = config.snapshot_retention;
    options.snapshots_kept = config.snapshots_kept;
    options.metadata_cache_bytes = config.cache_memory as u64;
    let lake = SqlLake::open(options).await.context("the warehouse cannot be opened")?;
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
        query_runtime: query,
        flow_runtime: flow,
        query_memory_bytes: config.query_memory,
        spill_dir,
        defaults,
    })
    .map_err(|e| anyhow::anyhow!("the engine cannot be built: {e}"))
}

fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).with_context(|| format!("{} is no usable path", path.display()))
}

fn warehouse_url(path: &Path) -> Result<String> {
    let path = absolute(path)?;
    Ok(path.to_str().context("the path of the warehouse must be UTF-8")?.to_owned())
}
