//! Arrow Flight SQL (Flight.proto and FlightSql.proto of Apache Arrow, "Arrow Flight SQL" in its documentation).
//!
//! ```text
//!   front ── FlightService: GetSchema, session actions; the rest by arrow-flight's dispatch
//!     service ── one method a command
//!       auth + sessions ── who asks, and the session that keeps their settings and statements
//!       statement ── prepare, bind, run; rows as Arrow batches
//!       metadata, info ── catalogs, schemas, tables, types, what the server can do
//! ```
//!
//! A token, or where no password is set a connection, stands for one session. Each run of a statement has a fork of
//! that session, so that calls may go side by side. A statement that changes something runs once, when the client asks
//! for its FlightInfo or puts it; rows are produced by DoGet and as fast as the client reads.

mod auth;
mod front;
mod info;
mod metadata;
mod params;
mod service;
mod sessions;
mod statement;
mod status;

use std::sync::Arc;
use std::time::Duration;

use arrow_flight::flight_service_server::FlightServiceServer;
use tidewater_catalogs::{Error, Result};
use tidewater_sql::Engine;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Server, ServerTlsConfig};

use crate::pgwire::check_listen;
use front::Front;
use service::Service;
use sessions::Sessions;

/// Settings of the front end.
#[derive(Clone)]
pub struct FlightConfig {
    /// The one user there is.
    pub user: String,
    /// Without one, clients on the same machine are trusted and all others refused.
    pub password: Option<String>,
    /// Sessions at one time; one more is refused.
    pub max_sessions: usize,
    /// Bound of one message from a client.
    pub max_message_bytes: usize,
    /// Statements that a session may hold, prepared or with rows not fetched yet.
    pub max_statements: usize,
    /// A session that is not used for so long is forgotten, and its token with it.
    pub session_timeout: Duration,
    /// The server's certificate; with it only encrypted connections are taken.
    pub tls: Option<ServerTlsConfig>,
}

impl std::fmt::Debug for FlightConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FlightConfig")
            .field("user", &self.user)
            .field("password", &self.password.as_ref().map(|_| "…"))
            .field("max_sessions", &self.max_sessions)
            .finish_non_exhaustive()
    }
}

/// How often sessions that nobody uses are looked for.
const SWEEP: Duration = Duration::from_secs(10);
/// A peer that does not answer for so long is gone.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// Serves clients until `shutdown`, and returns when the calls that run have ended.
pub async fn serve(
    listener: TcpListener,
    engine: Arc<Engine>,
    config: FlightConfig,
    shutdown: CancellationToken,
) -> Result<()> {
    let addr =
        listener.local_addr().map_err(|e| Error::unavailable("cannot read the listening address").with_source(e))?;
    check_listen(addr, config.password.is_some())?;
    let max_message_bytes = config.max_message_bytes;
    let tls = config.tls.clone();
    let sessions = Arc::new(Sessions::new(engine, config));
    let sweeper = {
        let (sessions, shutdown) = (Arc::clone(&sessions), shutdown.clone());
        tokio::spawn(async move {
            while tokio::time::timeout(SWEEP, shutdown.cancelled()).await.is_err() {
                sessions.forget_idle();
            }
        })
    };
    let service = FlightServiceServer::new(Front::new(Service::new(Arc::clone(&sessions))))
        .max_decoding_message_size(max_message_bytes)
        .max_encoding_message_size(usize::MAX);
    let mut server = Server::builder();
    if let Some(tls) = tls {
        server = server
            .tls_config(tls)
            .map_err(|e| Error::invalid("Flight SQL cannot use the certificate").with_source(e))?;
    }
    let served = server
        .tcp_nodelay(true)
        .http2_keepalive_interval(Some(KEEPALIVE))
        .add_service(service)
        .serve_with_incoming_shutdown(TcpListenerStream::new(listener), shutdown.cancelled_owned())
        .await;
    sweeper.abort();
    sessions.clear();
    served.map_err(|e| Error::unavailable("the Flight SQL front end failed").with_source(e))
}
