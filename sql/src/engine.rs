use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use datafusion::execution::SessionState;
use datafusion::execution::runtime_env::RuntimeEnv;
use parking_lot::Mutex;
use tidewater_catalogs::{
    BlobStore, CatalogConnector, DEFAULT_CATALOG, DefinitionKind, LakeCatalog, Metastore, StreamConnector,
};
use tidewater_streaming::{EngineSettings, Env, FlowSettings, Supervisor};
use uuid::Uuid;

use crate::admission::Admission;
use crate::catalogs::Catalogs;
use crate::plan::environment;
use crate::session::{Login, Session};
use crate::settings::Settings;
use crate::statement::FlowPlanner;
use crate::{SqlError, SqlState};

/// All that an engine is made of. Parts are built by the process and handed in.
#[derive(Debug)]
pub struct EngineParts {
    pub metastore: Arc<dyn Metastore>,
    pub lake: Arc<dyn LakeCatalog>,
    pub blobs: Arc<dyn BlobStore>,
    pub connectors: Vec<Arc<dyn StreamConnector>>,
    /// Kinds of catalogs that CREATE CATALOG knows.
    pub catalogs: Vec<Arc<dyn CatalogConnector>>,
    /// Where queries run. Never the runtime of the sockets: a busy query must not keep `SELECT 1` waiting.
    pub query_runtime: tokio::runtime::Handle,
    pub flow_runtime: tokio::runtime::Handle,
    /// Bound of all queries together: a quarter for what their scans hold, for which they wait, and the rest for
    /// operators. A query that needs more of that spills, or fails with 53200.
    pub query_memory_bytes: usize,
    pub spill_dir: PathBuf,
    pub defaults: EngineDefaults,
}

/// What holds where neither a session nor a statement says otherwise.
#[derive(Debug, Clone)]
pub struct EngineDefaults {
    /// Zero: no limit.
    pub statement_timeout: Duration,
    pub time_zone: String,
    /// Rows per batch of a query.
    pub batch_rows: usize,
    /// How many partitions of a query run side by side.
    pub query_parallelism: usize,
    pub flow: FlowSettings,
    pub engine: EngineSettings,
}

impl Default for EngineDefaults {
    fn default() -> Self {
        Self {
            statement_timeout: Duration::ZERO,
            time_zone: "UTC".to_owned(),
            batch_rows: 8192,
            query_parallelism: std::thread::available_parallelism().map_or(1, usize::from),
            flow: FlowSettings::default(),
            engine: EngineSettings::default(),
        }
    }
}

/// Behind an object: the compiler would else look through DataFusion's state wherever it has to know that an engine may
/// be sent, and that was most of what the server's crate took.
struct BaseState(Box<dyn Fn() -> SessionState + Send + Sync>);

impl std::fmt::Debug for BaseState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BaseState").finish_non_exhaustive()
    }
}

/// One per process.
#[derive(Debug)]
pub struct Engine {
    pub(crate) metastore: Arc<dyn Metastore>,
    /// All catalogs, by the name of the table.
    pub(crate) lake: Arc<dyn LakeCatalog>,
    pub(crate) catalogs: Arc<Catalogs>,
    pub(crate) blobs: Arc<dyn BlobStore>,
    pub(crate) connectors: Vec<Arc<dyn StreamConnector>>,
    pub(crate) query_runtime: tokio::runtime::Handle,
    pub(crate) defaults: EngineDefaults,
    pub(crate) supervisor: Arc<Supervisor>,
    /// See [`Engine::base_state`].
    base_state: BaseState,
    runtime_env: Arc<RuntimeEnv>,
    /// Lets queries begin as there is memory for their scans.
    pub(crate) admission: Arc<Admission>,
    /// By the uuid of a table: statements that change its rows share it, and one that was overtaken takes it alone.
    changing: Mutex<HashMap<Uuid, Weak<tokio::sync::RwLock<()>>>>,
    next_pid: AtomicI32,
    sessions: Mutex<Vec<Weak<SessionShared>>>,
    /// Set for good by [`Engine::shutdown`]; nothing begins after that.
    stopping: AtomicBool,
}

/// What others may see of a session while it runs.
#[derive(Debug)]
pub(crate) struct SessionShared {
    pub pid: i32,
    pub user: String,
    pub database: String,
    pub client_addr: Option<String>,
    pub started_at_ms: i64,
    pub visible: Mutex<SessionVisible>,
    pub cancel: crate::session::CancelHandle,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct SessionVisible {
    pub application_name: String,
    /// Text of the statement that runs, or ran last.
    pub query: String,
    pub active: bool,
    pub query_started_at_ms: Option<i64>,
}

/// One row of the list of sessions.
#[derive(Debug, Clone)]
pub struct SessionInfo {
    pub pid: i32,
    pub user: String,
    pub database: String,
    pub application_name: String,
    pub client_addr: Option<String>,
    pub started_at_ms: i64,
    pub query: String,
    pub active: bool,
    pub query_started_at_ms: Option<i64>,
}

impl Engine {
    pub fn new(parts: EngineParts) -> Result<Arc<Self>, SqlError> {
        let scans = parts.query_memory_bytes / 4;
        let runtime_env = environment::runtime_env(parts.query_memory_bytes - scans, &parts.spill_dir)?;
        let base_state = environment::base_state(runtime_env, &parts.defaults)?;
        let catalogs = Arc::new(Catalogs::new(parts.lake, parts.metastore.clone(), parts.catalogs));
        Ok(Arc::new_cyclic(|engine: &Weak<Self>| Self {
            supervisor: Arc::new(Supervisor::new(
                parts.flow_runtime,
                Arc::new(FlowPlanner::new(engine.clone())),
                Env::system(parts.defaults.engine.clone()),
            )),
            metastore: parts.metastore,
            lake: catalogs.clone(),
            catalogs,
            blobs: parts.blobs,
            connectors: parts.connectors,
            query_runtime: parts.query_runtime,
            defaults: parts.defaults,
            runtime_env: Arc::clone(base_state.runtime_env()),
            base_state: BaseState(Box::new(move || base_state.clone())),
            admission: Arc::new(Admission::new(scans)),
            changing: Mutex::default(),
            next_pid: AtomicI32::new(1),
            sessions: Mutex::new(Vec::new()),
            stopping: AtomicBool::new(false),
        }))
    }

    /// See `changing`.
    pub(crate) fn lock_of(&self, table: Uuid) -> Arc<tokio::sync::RwLock<()>> {
        let mut all = self.changing.lock();
        if let Some(lock) = all.get(&table).and_then(Weak::upgrade) {
            return lock;
        }
        all.retain(|_, lock| lock.strong_count() > 0);
        let lock = Arc::default();
        all.insert(table, Arc::downgrade(&lock));
        lock
    }

    /// Functions, rules and memory that all statements share; set up further by each.
    pub(crate) fn base_state(&self) -> SessionState {
        (self.base_state.0)()
    }

    /// Starts the stored flows. One that cannot be planned is reported as failed and does not keep others back.
    pub async fn start(self: &Arc<Self>) -> Result<(), SqlError> {
        for definition in self.metastore.list().await? {
            if definition.kind == DefinitionKind::Flow {
                self.supervisor.start(definition)?;
            }
        }
        Ok(())
    }

    /// Cancels running statements, refuses new ones, and has flows seal and commit what they hold, within the
    /// deadline.
    pub async fn shutdown(&self, deadline: Duration) {
        self.stopping.store(true, Ordering::SeqCst);
        for session in self.live_sessions() {
            session.cancel.cancel();
        }
        self.supervisor.shutdown(deadline).await;
    }

    /// 57P01 once the server is stopping. To be asked after the statement's cancel token is in place: a statement
    /// that passes is then one that [`Engine::shutdown`] cancels.
    pub(crate) fn refuse_while_stopping(&self) -> Result<(), SqlError> {
        if self.stopping.load(Ordering::SeqCst) { Err(SqlError::shutting_down()) } else { Ok(()) }
    }

    /// 3D000 where there is no such database.
    pub fn session(self: &Arc<Self>, login: Login) -> Result<Session, SqlError> {
        if login.database != DEFAULT_CATALOG {
            return Err(SqlError::new(
                SqlState::UNDEFINED_DATABASE,
                format!("database \"{}\" does not exist", login.database),
            )
            .with_hint(format!("The database is called \"{DEFAULT_CATALOG}\".")));
        }
        let settings = Settings::for_login(&self.defaults, &login)?;
        self.session_with(login, settings)
    }

    pub(crate) fn session_with(self: &Arc<Self>, login: Login, settings: Settings) -> Result<Session, SqlError> {
        self.refuse_while_stopping()?;
        let pid = self.next_pid.fetch_add(1, Ordering::Relaxed) & i32::MAX;
        let session = Session::new(self.clone(), login, settings, pid);
        let mut sessions = self.sessions.lock();
        sessions.retain(|s| s.strong_count() > 0);
        sessions.push(Arc::downgrade(session.shared()));
        Ok(session)
    }

    pub fn supervisor(&self) -> &Arc<Supervisor> {
        &self.supervisor
    }

    pub fn metastore(&self) -> &Arc<dyn Metastore> {
        &self.metastore
    }

    pub fn lake(&self) -> &Arc<dyn LakeCatalog> {
        &self.lake
    }

    /// Memory pool and disk manager of all queries, for metrics.
    pub fn runtime_env(&self) -> &Arc<RuntimeEnv> {
        &self.runtime_env
    }

    pub fn sessions(&self) -> Vec<SessionInfo> {
        self.live_sessions()
            .into_iter()
            .map(|s| {
                let v = s.visible.lock().clone();
                SessionInfo {
                    pid: s.pid,
                    user: s.user.clone(),
                    database: s.database.clone(),
                    application_name: v.application_name,
                    client_addr: s.client_addr.clone(),
                    started_at_ms: s.started_at_ms,
                    query: v.query,
                    active: v.active,
                    query_started_at_ms: v.query_started_at_ms,
                }
            })
            .collect()
    }

    /// Cancels what the session runs now. False where there is no such session.
    pub(crate) fn cancel_session(&self, pid: i32) -> bool {
        let found = self.live_sessions().into_iter().find(|s| s.pid == pid);
        found.inspect(|s| s.cancel.cancel()).is_some()
    }

    fn live_sessions(&self) -> Vec<Arc<SessionShared>> {
        self.sessions.lock().iter().filter_map(Weak::upgrade).collect()
    }
}
