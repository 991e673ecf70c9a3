//! Sessions by token, or by connection where clients need no token; the statements that each holds.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use tidewater_catalogs::DEFAULT_CATALOG;
use tidewater_sql::{Engine, Login, Session, SqlError, SqlState};
use tonic::{Request, Status};

use super::FlightConfig;
use super::auth::{self, Credentials};
use super::statement::Statement;
use super::status::status;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Key {
    Token(String),
    Peer(SocketAddr),
}

pub(super) struct Sessions {
    engine: Arc<Engine>,
    config: FlightConfig,
    open: Mutex<HashMap<Key, Arc<FlightSession>>>,
}

/// Settings of one client, and what it has prepared.
pub(super) struct FlightSession {
    key: Key,
    /// Runs what changes settings; everything else runs in forks of it.
    base: tokio::sync::Mutex<Session>,
    statements: Mutex<Statements>,
    used: Mutex<Instant>,
    max_statements: usize,
}

#[derive(Default)]
struct Statements {
    by_handle: HashMap<Vec<u8>, Arc<Statement>>,
    /// Handles that no client closes, oldest first.
    tickets: VecDeque<Vec<u8>>,
}

impl Sessions {
    pub fn new(engine: Arc<Engine>, config: FlightConfig) -> Self {
        Self { engine, config, open: Mutex::default() }
    }

    /// Signs in with the request's user and password; returns the token of a new session.
    pub fn sign_in<T>(&self, request: &Request<T>) -> Result<String, Status> {
        let user = match Credentials::of(request.metadata())? {
            Credentials::Basic { user, password } => {
                if self.config.password.is_none() {
                    auth::check_trusted(&self.config, request)?;
                }
                auth::check(&self.config, &user, &password)?;
                user
            }
            Credentials::Bearer(token) => {
                self.by_token(&token)?;
                return Ok(token);
            }
            Credentials::None => {
                auth::check_trusted(&self.config, request)?;
                self.config.user.clone()
            }
        };
        let token = uuid::Uuid::new_v4().simple().to_string() + &uuid::Uuid::new_v4().simple().to_string();
        self.insert(Key::Token(token.clone()), user, request)?;
        Ok(token)
    }

    /// The session of a call.
    pub fn of<T>(&self, request: &Request<T>) -> Result<Arc<FlightSession>, Status> {
        let session = match Credentials::of(request.metadata())? {
            Credentials::Bearer(token) => self.by_token(&token)?,
            Credentials::Basic { user, password } => {
                if self.config.password.is_none() {
                    auth::check_trusted(&self.config, request)?;
                }
                auth::check(&self.config, &user, &password)?;
                self.by_peer(user, request)?
            }
            Credentials::None => {
                auth::check_trusted(&self.config, request)?;
                self.by_peer(self.config.user.clone(), request)?
            }
        };
        *session.used.lock() = Instant::now();
        Ok(session)
    }

    fn by_token(&self, token: &str) -> Result<Arc<FlightSession>, Status> {
        self.open.lock().get(&Key::Token(token.to_owned())).cloned().ok_or_else(|| {
            Status::unauthenticated("the token is unknown or has expired: sign in again (SQLSTATE 28000)")
        })
    }

    fn by_peer<T>(&self, user: String, request: &Request<T>) -> Result<Arc<FlightSession>, Status> {
        let peer = request.remote_addr().ok_or_else(|| Status::unauthenticated("sign in first (SQLSTATE 28000)"))?;
        let key = Key::Peer(peer);
        if let Some(session) = self.open.lock().get(&key) {
            return Ok(Arc::clone(session));
        }
        self.insert(key, user, request)
    }

    fn insert<T>(&self, key: Key, user: String, request: &Request<T>) -> Result<Arc<FlightSession>, Status> {
        let agent = request.metadata().get("user-agent").and_then(|v| v.to_str().ok()).unwrap_or_default();
        let login = Login {
            user,
            database: DEFAULT_CATALOG.to_owned(),
            application_name: agent.chars().take(63).collect(),
            client_addr: request.remote_addr().map(|a| a.ip().to_canonical().to_string()),
            // Programs that compute with results want them to stay: what is committed is also what other engines see.
            options: vec![("read_mode".to_owned(), "committed".to_owned())],
        };
        let base = self.engine.session(login).map_err(status)?;
        let session = Arc::new(FlightSession {
            key: key.clone(),
            base: tokio::sync::Mutex::new(base),
            statements: Mutex::default(),
            used: Mutex::new(Instant::now()),
            max_statements: self.config.max_statements,
        });
        let mut open = self.open.lock();
        // Another call of the same connection may have been quicker.
        if let Some(other) = open.get(&key) {
            return Ok(Arc::clone(other));
        }
        if open.len() >= self.config.max_sessions {
            let limit = self.config.max_sessions;
            return Err(status(
                SqlError::new(
                    SqlState("53300"),
                    format!("{limit} Flight SQL sessions are open, the most there may be"),
                )
                .with_hint("Close sessions that are no longer needed, or raise flight_max_sessions."),
            ));
        }
        open.insert(key, Arc::clone(&session));
        Ok(session)
    }

    pub fn close(&self, session: &FlightSession) {
        self.open.lock().remove(&session.key);
    }

    /// Forgets sessions that were not used for too long and that no call uses now.
    pub fn forget_idle(&self) {
        let limit = self.config.session_timeout;
        self.open.lock().retain(|_, s| Arc::strong_count(s) > 1 || s.used.lock().elapsed() < limit);
    }

    pub fn clear(&self) {
        self.open.lock().clear();
    }
}

impl FlightSession {
    /// A session with the settings of this one, to run one statement in.
    pub async fn fork(&self) -> Result<Session, Status> {
        self.base.lock().await.fork().map_err(status)
    }

    /// For statements that change settings.
    pub async fn base(&self) -> tokio::sync::MutexGuard<'_, Session> {
        self.base.lock().await
    }

    /// Keeps a statement until the client closes it.
    pub fn keep(&self, statement: Arc<Statement>) -> Result<Vec<u8>, Status> {
        let mut statements = self.statements.lock();
        if statements.by_handle.len() - statements.tickets.len() >= self.max_statements {
            let limit = self.max_statements;
            return Err(status(
                SqlError::new(
                    SqlState("53400"),
                    format!("this session has {limit} prepared statements, the most it may have"),
                )
                .with_hint("Close statements that are no longer needed."),
            ));
        }
        let handle = new_handle();
        statements.by_handle.insert(handle.clone(), statement);
        Ok(handle)
    }

    /// Keeps a statement whose rows have yet to be fetched. Nobody closes it: the oldest makes room.
    pub fn keep_for_ticket(&self, statement: Arc<Statement>) -> Vec<u8> {
        let mut statements = self.statements.lock();
        while statements.tickets.len() >= self.max_statements {
            if let Some(oldest) = statements.tickets.pop_front() {
                statements.by_handle.remove(&oldest);
            }
        }
        let handle = new_handle();
        statements.by_handle.insert(handle.clone(), statement);
        statements.tickets.push_back(handle.clone());
        handle
    }

    pub fn statement(&self, handle: &[u8]) -> Result<Arc<Statement>, Status> {
        self.statements.lock().by_handle.get(handle).cloned().ok_or_else(|| {
            status(
                SqlError::new(SqlState("26000"), "the statement is not known in this session")
                    .with_hint("It was closed, or its session expired: prepare it again."),
            )
        })
    }

    /// Closing what is not there is no error: the client wants it gone.
    pub fn close_statement(&self, handle: &[u8]) {
        self.statements.lock().by_handle.remove(handle);
    }
}

fn new_handle() -> Vec<u8> {
    uuid::Uuid::new_v4().as_bytes().to_vec()
}
