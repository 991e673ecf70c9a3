//! The PostgreSQL wire protocol, version 3.0 (PostgreSQL manual, "Frontend/Backend Protocol").
//!
//! ```text
//!   serve ── one task per connection
//!     encryption ── TLS, where a certificate is set
//!     startup ── start-up message or CancelRequest, auth (SCRAM-SHA-256)
//!     connection ── the loop: frame → message → session → outbox
//!        simple protocol ──┐
//!        portal (extended) ┴─► rows ── batch by batch ─► encode ─► outbox ─► socket
//! ```
//!
//! Results are never collected: a batch is pulled when the one before it has gone to the socket. While a statement
//! runs or a client does not read, cancel requests, the end of the server and a vanished client are heard. A client
//! that sends what is no message is told so (08P01) and disconnected.

mod auth;
mod cancel;
mod connection;
mod decode;
mod encode;
mod encryption;
mod frame;
mod metrics;
mod outbox;
mod port;
mod portal;
mod rows;
mod startup;
mod types;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tidewater_catalogs::{Error, Result};
use tidewater_sql::{Engine, SqlError};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use auth::Verifier;
use cancel::Registry;
use connection::{Connection, Fail, terminated};
use encryption::Opened;
use frame::Inbox;
use outbox::Outbox;
use port::{Backend, Port};
use startup::Start;

/// Settings of the front end.
#[derive(Clone)]
pub struct PgConfig {
    /// The one user there is.
    pub user: String,
    /// Without one, clients on the same machine are trusted and all others refused.
    pub password: Option<String>,
    /// Sessions at one time; one more is refused with 53300.
    pub max_connections: usize,
    /// Bound of one message from a client, and of the texts of all its prepared statements.
    pub max_message_bytes: usize,
    /// Named statements, and portals, per session.
    pub max_prepared_statements: usize,
    /// From the first byte to the end of the sign-in.
    pub startup_timeout: Duration,
    /// How long a session outside of a transaction may send nothing. None: for ever.
    pub idle_timeout: Option<Duration>,
    /// The server's certificate. None: TLS is declined, and clients that insist on it go away.
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// Refuses clients of other machines that do not encrypt.
    pub tls_required: bool,
}

impl Default for PgConfig {
    fn default() -> Self {
        Self {
            user: "tidewater".to_owned(),
            password: None,
            max_connections: 100,
            max_message_bytes: 64 * 1024 * 1024,
            max_prepared_statements: 1000,
            startup_timeout: Duration::from_secs(30),
            idle_timeout: None,
            tls: None,
            tls_required: false,
        }
    }
}

impl std::fmt::Debug for PgConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PgConfig")
            .field("user", &self.user)
            .field("password", &self.password.as_ref().map(|_| "…"))
            .field("max_connections", &self.max_connections)
            .finish_non_exhaustive()
    }
}

/// Refuses to be reachable from other machines where anybody could sign in.
pub fn check_listen(addr: SocketAddr, password_set: bool) -> Result<()> {
    if password_set || addr.ip().to_canonical().is_loopback() {
        return Ok(());
    }
    Err(Error::invalid(format!("refusing to listen on {addr} without a password"))
        .with_detail("Anybody who can reach this address could read and change all tables.")
        .with_hint("Set a password, or listen on 127.0.0.1."))
}

/// Sockets that have not signed in yet, beside `max_connections`: cancel requests must get through when all
/// sessions are taken.
const EXTRA_SOCKETS: usize = 64;
/// How long the last words to a client may take.
const GOODBYE: Duration = Duration::from_secs(2);
/// After a failed accept (no file descriptors, say), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What all connections share.
struct Shared {
    config: Arc<PgConfig>,
    verifier: Option<Verifier>,
    registry: Registry,
    sessions: Arc<Semaphore>,
    shutdown: CancellationToken,
}

impl Shared {
    fn new(config: PgConfig, shutdown: CancellationToken) -> Self {
        Self {
            verifier: config.password.as_deref().map(|password| Verifier::new(&config.user, password)),
            registry: Registry::default(),
            sessions: Arc::new(Semaphore::new(config.max_connections)),
            config: Arc::new(config),
            shutdown,
        }
    }
}

/// The other end of a connection.
#[derive(Debug, Clone, Copy)]
struct Peer {
    addr: Option<SocketAddr>,
    encrypted: bool,
}

impl Peer {
    fn is_loopback(self) -> bool {
        self.ip().is_some_and(|ip| ip.is_loopback())
    }

    fn ip(self) -> Option<IpAddr> {
        self.addr.map(|a| a.ip().to_canonical())
    }

    fn address(self) -> Option<String> {
        self.ip().map(|ip| ip.to_string())
    }
}

/// Serves clients until `shutdown`, then tells them (57P01) and returns once all are gone. Statements that run are
/// cancelled.
pub async fn serve(
    listener: TcpListener,
    engine: Arc<Engine>,
    config: PgConfig,
    shutdown: CancellationToken,
) -> Result<()> {
    accept(listener, Arc::new(engine), config, shutdown).await
}

async fn accept<B: Backend>(
    listener: TcpListener,
    backend: Arc<B>,
    config: PgConfig,
    shutdown: CancellationToken,
) -> Result<()> {
    let addr =
        listener.local_addr().map_err(|e| Error::unavailable("cannot read the listening address").with_source(e))?;
    check_listen(addr, config.password.is_some())?;
    let sockets = Arc::new(Semaphore::new(config.max_connections + EXTRA_SOCKETS));
    let shared = Arc::new(Shared::new(config, shutdown.clone()));
    let tasks = TaskTracker::new();
    loop {
        // Clients beyond the bound wait in the listener's queue.
        let permit = tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            permit = sockets.clone().acquire_owned() => permit,
        };
        let accepted = tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(e) => {
                tracing::warn!(error = %e, "accept failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        // Answers are sent whole; waiting to fill packets only delays them.
        let _ = stream.set_nodelay(true);
        let (shared, backend) = (shared.clone(), backend.clone());
        tasks.spawn(async move {
            let peer = Peer { addr: Some(peer), encrypted: false };
            match open(stream, &shared).await {
                Some(Opened::Plain(stream)) => {
                    let (reader, writer) = stream.into_split();
                    converse(reader, writer, backend.as_ref(), &shared, peer).await;
                }
                Some(Opened::Encrypted(stream)) => {
                    let (reader, writer) = tokio::io::split(stream);
                    converse(reader, writer, backend.as_ref(), &shared, Peer { encrypted: true, ..peer }).await;
                }
                None => {}
            }
            drop(permit);
        });
    }
    drop(listener);
    tasks.close();
    tasks.wait().await;
    Ok(())
}

/// None: the client is gone, or the two could not agree on TLS.
async fn open(stream: TcpStream, shared: &Shared) -> Option<Opened> {
    let Some(tls) = &shared.config.tls else { return Some(Opened::Plain(stream)) };
    let opening = tokio::time::timeout(shared.config.startup_timeout, encryption::open(stream, tls));
    tokio::select! {
        biased;
        () = shared.shutdown.cancelled() => None,
        opened = opening => match opened {
            Ok(Ok(opened)) => Some(opened),
            Ok(Err(e)) => {
                tracing::debug!(error = %e, "no TLS connection came about");
                None
            }
            Err(_) => None,
        },
    }
}

/// One connection from the first byte to the last.
async fn converse<B, R, W>(reader: R, writer: W, backend: &B, shared: &Shared, peer: Peer)
where
    B: Backend,
    R: AsyncRead + Unpin + Send,
    W: AsyncWrite + Unpin + Send,
{
    let mut inbox = Inbox::new(reader, startup::MAX_UNAUTHENTICATED_BYTES);
    let mut out = Outbox::new(writer);
    let signing_in = tokio::time::timeout(shared.config.startup_timeout, async {
        tokio::select! {
            biased;
            () = shared.shutdown.cancelled() => Err(Fail::Fatal(terminated())),
            signed_in = sign_in(&mut inbox, &mut out, backend, shared, peer) => signed_in,
        }
    });
    let end = match signing_in.await {
        // PostgreSQL says nothing either to a client that says nothing.
        Err(_) => Fail::Gone,
        Ok(Err(end)) => end,
        Ok(Ok(None)) => Fail::Gone,
        Ok(Ok(Some((session, _slot)))) => {
            let _open = metrics::OpenSession::count();
            let registered = shared.registry.register(session.pid(), session.canceller());
            for (name, value) in session.parameter_status() {
                out.parameter_status(name, &value);
            }
            let (pid, secret) = registered.key();
            out.backend_key(pid, secret);
            inbox.set_max_message_bytes(shared.config.max_message_bytes);
            let mut connection = Connection {
                session,
                inbox,
                out,
                signal: registered.signal().clone(),
                shutdown: shared.shutdown.clone(),
                config: shared.config.clone(),
                statements: HashMap::new(),
                portals: HashMap::new(),
                skip_to_sync: false,
            };
            let end = match connection.ready().await {
                Ok(()) => connection.run().await,
                Err(end) => end,
            };
            out = connection.out;
            end
        }
    };
    if let Fail::Fatal(e) | Fail::Statement(e) = &end {
        metrics::error(e.state.0);
        tracing::debug!(state = e.state.0, message = %e.message, peer = ?peer.address(), "connection ended");
        out.error("FATAL", e);
        let _ = tokio::time::timeout(GOODBYE, out.flush()).await;
    }
    let _ = tokio::time::timeout(GOODBYE, out.close()).await;
}

type SignedIn<S> = Option<(S, tokio::sync::OwnedSemaphorePermit)>;

async fn sign_in<B, R, W>(
    inbox: &mut Inbox<R>,
    out: &mut Outbox<W>,
    backend: &B,
    shared: &Shared,
    peer: Peer,
) -> std::result::Result<SignedIn<B::Session>, Fail>
where
    B: Backend,
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let login = match startup::begin(inbox, out, shared, peer).await? {
        Start::Session(login) => login,
        Start::Cancelled => return Ok(None),
    };
    let slot = shared.sessions.clone().try_acquire_owned().map_err(|_| Fail::Fatal(too_many()))?;
    startup::authenticate(inbox, out, shared, &login, peer).await?;
    let session = backend.open(login).map_err(Fail::Fatal)?;
    out.authentication_ok();
    Ok(Some((session, slot)))
}

fn too_many() -> SqlError {
    types::error("53300", "sorry, too many clients already")
}
