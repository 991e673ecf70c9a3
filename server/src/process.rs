//! The life of one server: runtimes, listeners, engine, shutdown.
//!
//! Sockets live on one runtime and queries on another, so that a query that burns every core cannot keep a new
//! connection, a cancel request or a health check waiting. Flows have a third.

use std::future::Future;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tidewater_devbroker::DevBroker;
use tidewater_sql::Engine;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::assembly;
use crate::config::Config;
use crate::demo;
use crate::flight::{self, FlightConfig};
use crate::http::{self, Readiness};
use crate::lock::DataLock;
use crate::pgwire::{self, PgConfig};
use crate::tls::Tls;

/// A running server. Dropping it without [`Server::stop`] is like pulling the plug: nothing is lost, but flows do not
/// commit what they have read.
pub struct Server {
    config: Config,
    engine: Arc<Engine>,
    pg_addr: SocketAddr,
    flight_addr: SocketAddr,
    http_addr: SocketAddr,
    ready: Readiness,
    /// Ends the front ends.
    shutdown: CancellationToken,
    sockets: Option<Runtime>,
    query: Option<Runtime>,
    flow: Option<Runtime>,
    /// Ends when the last client has been told.
    serving: JoinHandle<()>,
    /// Let go of last.
    _lock: DataLock,
}

/// How long clients have to take in that the server ends.
const FAREWELL: Duration = Duration::from_secs(5);

impl Server {
    /// Opens the stores, loads definitions, starts flows, accepts connections. Blocks until all that is done.
    pub fn start(config: Config) -> Result<Self> {
        let lock = DataLock::take(&config.data_dir)?;
        Self::start_locked(config, lock)
    }

    /// [`Server::start`] for who holds the directory already.
    pub fn start_locked(config: Config, lock: DataLock) -> Result<Self> {
        for addr in [config.pg_listen, config.flight_listen] {
            pgwire::check_listen(addr, config.pg_password.is_some())?;
        }
        let dir = &config.data_dir;
        std::fs::create_dir_all(dir).with_context(|| format!("cannot make directory {}", dir.display()))?;
        let tls = config.tls.as_ref().map(Tls::load).transpose()?;
        ensure!(tls.is_some() || !config.tls_required, "tls_required needs tls_cert and tls_key");
        let spill_dir = fresh_spill_dir(&config.spill_dir)?;
        let sockets = runtime("sockets", 2)?;
        let query = runtime("query", config.query_threads)?;
        let flow = runtime("flow", config.flow_threads)?;
        let ready = Readiness::default();
        let shutdown = CancellationToken::new();

        let (engine, serving, pg_addr, flight_addr, http_addr) = sockets.block_on(async {
            let metrics = http::install_metrics()?;
            let http_listener = bind("http_listen", config.http_listen).await?;
            let pg_listener = bind("pg_listen", config.pg_listen).await?;
            let flight_listener = bind("flight_listen", config.flight_listen).await?;
            let (http_addr, pg_addr) = (http_listener.local_addr()?, pg_listener.local_addr()?);
            let flight_addr = flight_listener.local_addr()?;
            tokio::spawn(http::serve(http_listener, metrics, ready.clone(), shutdown.clone()));

            let engine = assembly::assemble(&config, spill_dir, query.handle().clone(), flow.handle().clone()).await?;
            engine.start().await.map_err(|e| anyhow::anyhow!("cannot load definitions: {e}"))?;
            let pg = PgConfig {
                user: config.pg_user.clone(),
                password: config.pg_password.as_ref().map(|p| p.0.clone()),
                max_connections: config.pg_max_connections,
                max_message_bytes: config.pg_max_message,
                max_prepared_statements: config.pg_max_prepared,
                startup_timeout: config.pg_startup_timeout,
                idle_timeout: (!config.pg_idle_timeout.is_zero()).then_some(config.pg_idle_timeout),
                tls: tls.as_ref().map(|t| Arc::clone(&t.pg)),
                tls_required: config.tls_required,
            };
            let flight = FlightConfig {
                user: config.pg_user.clone(),
                password: config.pg_password.as_ref().map(|p| p.0.clone()),
                max_sessions: config.flight_max_sessions,
                max_message_bytes: config.flight_max_message,
                max_statements: config.pg_max_prepared,
                session_timeout: config.flight_session_timeout,
                tls: tls.map(|t| t.flight),
            };
            let pg = pgwire::serve(pg_listener, Arc::clone(&engine), pg, shutdown.clone());
            let flight = flight::serve(flight_listener, Arc::clone(&engine), flight, shutdown.clone());
            let serving = tokio::spawn(async move {
                let (pg, flight) = tokio::join!(pg, flight);
                for (front, ended) in [("postgres", pg), ("flight", flight)] {
                    if let Err(e) = ended {
                        warn!(error = %e, front, "a front end stopped");
                    }
                }
            });
            ready.set(true);
            info!(pg = %pg_addr, flight = %flight_addr, http = %http_addr, "ready");
            anyhow::Ok((engine, serving, pg_addr, flight_addr, http_addr))
        })?;
        Ok(Self {
            config,
            engine,
            pg_addr,
            flight_addr,
            http_addr,
            ready,
            shutdown,
            sockets: Some(sockets),
            query: Some(query),
            flow: Some(flow),
            serving,
            _lock: lock,
        })
    }

    pub fn pg_addr(&self) -> SocketAddr {
        self.pg_addr
    }
    pub fn flight_addr(&self) -> SocketAddr {
        self.flight_addr
    }
    pub fn http_addr(&self) -> SocketAddr {
        self.http_addr
    }
    pub fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    pub fn block_on<F: Future>(&self, future: F) -> F::Output {
        match &self.sockets {
            Some(runtime) => runtime.block_on(future),
            None => unreachable!("only stop takes the runtime, and it consumes the server"),
        }
    }

    /// Runs the demo beside the server until it fails or is dropped.
    pub async fn demo(&self, broker: Arc<DevBroker>, rate: u64) -> Result<()> {
        demo::run(demo::DemoContext {
            data_dir: self.config.data_dir.clone(),
            engine: Arc::clone(&self.engine),
            pg_addr: self.pg_addr,
            broker,
            rate,
            shutdown: self.shutdown.clone(),
        })
        .await
    }

    /// Cancels running statements, has every flow seal and commit what it has read, then closes everything: clients
    /// first, so that each is told before the threads of its query are gone.
    pub fn stop(mut self) {
        self.ready.set(false);
        let deadline = self.config.shutdown_timeout;
        info!("stopping");
        self.block_on(self.engine.shutdown(deadline));
        self.shutdown.cancel();
        if let Some(sockets) = &self.sockets {
            let _ = sockets.block_on(async { tokio::time::timeout(FAREWELL, &mut self.serving).await });
        }
        for runtime in [self.query.take(), self.flow.take(), self.sockets.take()].into_iter().flatten() {
            runtime.shutdown_timeout(Duration::from_millis(500));
        }
        info!("stopped");
    }
}

async fn bind(name: &str, addr: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(addr)
        .await
        .with_context(|| format!("cannot listen on {addr}: choose another address with --{}", name.replace('_', "-")))
}

fn runtime(name: &'static str, threads: usize) -> Result<Runtime> {
    Builder::new_multi_thread()
        .worker_threads(threads)
        .thread_name(format!("tw-{name}"))
        .enable_all()
        .build()
        .with_context(|| format!("cannot start the {name} threads"))
}

/// A directory of this process alone; those of processes that no longer run are removed.
fn fresh_spill_dir(base: &Path) -> Result<std::path::PathBuf> {
    const PREFIX: &str = "tidewater-spill-";
    std::fs::create_dir_all(base).with_context(|| format!("cannot make directory {}", base.display()))?;
    for entry in std::fs::read_dir(base)?.flatten() {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|n| n.strip_prefix(PREFIX)).and_then(|p| p.split('-').next());
        if let Some(pid) = pid
            && !Path::new("/proc").join(pid).exists()
        {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
    let mine = base.join(format!("{PREFIX}{}-{}", std::process::id(), uuid::Uuid::new_v4().simple()));
    std::fs::create_dir_all(&mine).with_context(|| format!("cannot make directory {}", mine.display()))?;
    Ok(mine)
}
