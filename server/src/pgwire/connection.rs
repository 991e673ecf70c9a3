//! One connection that has signed in: read a message, act, answer.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tidewater_sql::{Outcome, RowsTag, SqlError, TransactionStatus};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

use super::cancel::Signal;
use super::encode::{Format, SessionTz};
use super::frame::{Inbox, Message};
use super::outbox::Outbox;
use super::port::{Deallocate, Port};
use super::portal::{Portal, Statement, no_statement};
use super::rows::Cursor;
use super::types::error;
use super::{PgConfig, metrics};

/// Why something came to an end.
#[derive(Debug)]
pub(super) enum Fail {
    /// The statement failed; the connection goes on.
    Statement(SqlError),
    /// The client is told, and the connection closed.
    Fatal(SqlError),
    /// Nobody is there to be told.
    Gone,
}

impl From<SqlError> for Fail {
    fn from(e: SqlError) -> Self {
        Self::Statement(e)
    }
}

/// How long a statement may take to notice that it was cancelled. After that it is dropped where it stands.
const CANCEL_GRACE: Duration = Duration::from_secs(30);
/// How often it is reminded: a cancel may come just before the engine begins to listen.
const CANCEL_REMINDER: Duration = Duration::from_millis(50);

pub(super) fn cancelled() -> SqlError {
    error("57014", "canceling statement due to user request")
}

pub(super) fn terminated() -> SqlError {
    error("57P01", "terminating connection due to administrator command")
}

pub(super) struct Connection<S: Port, R, W> {
    pub session: S,
    pub inbox: Inbox<R>,
    pub out: Outbox<W>,
    pub signal: Arc<Signal>,
    pub shutdown: CancellationToken,
    pub config: Arc<PgConfig>,
    pub statements: HashMap<String, Statement<S>>,
    pub portals: HashMap<String, Portal<S>>,
    /// After an error in the extended protocol nothing is done until Sync.
    pub skip_to_sync: bool,
}

impl<S, R, W> Connection<S, R, W>
where
    S: Port,
    R: AsyncRead + Unpin + Send,
    W: AsyncWrite + Unpin + Send,
{
    /// Returns when the connection is over; the caller says goodbye.
    pub async fn run(&mut self) -> Fail {
        loop {
            let message = match self.next_message().await {
                Ok(message) => message,
                Err(end) => return end,
            };
            let extended = matches!(
                message,
                Message::Parse { .. }
                    | Message::Bind(_)
                    | Message::Describe { .. }
                    | Message::Execute { .. }
                    | Message::Close { .. }
                    | Message::Flush
            );
            let simple = matches!(message, Message::Query(_) | Message::FunctionCall);
            let step = match self.handle(message).await {
                Err(Fail::Statement(e)) => {
                    self.session.note_error();
                    self.put_error(&e);
                    self.skip_to_sync = extended;
                    if simple { self.ready().await } else { Ok(()) }
                }
                other => other,
            };
            let step = match step {
                Ok(()) if self.out.is_full() => self.send(None).await,
                other => other,
            };
            match step {
                Ok(()) => {}
                Err(Fail::Statement(e)) => return Fail::Fatal(e),
                Err(end) => return end,
            }
        }
    }

    /// Waits for the client, for as long as it may be idle.
    async fn next_message(&mut self) -> Result<Message, Fail> {
        if !self.inbox.has_frame() && !self.out.is_empty() {
            self.send(None).await?;
        }
        let (limit, expired) = match self.session.status() {
            TransactionStatus::Idle => {
                (self.config.idle_timeout, ("57P05", "terminating connection due to idle-session timeout"))
            }
            TransactionStatus::InBlock | TransactionStatus::Failed => (
                self.session.idle_in_transaction(),
                ("25P03", "terminating connection due to idle-in-transaction timeout"),
            ),
        };
        let idle = limit.unwrap_or(Duration::MAX);
        let (kind, body) = tokio::select! {
            biased;
            () = self.shutdown.cancelled() => return Err(Fail::Fatal(terminated())),
            frame = tokio::time::timeout(idle, self.inbox.frame()) => match frame {
                Ok(frame) => frame?,
                Err(_) => {
                    return Err(Fail::Fatal(error(expired.0, expired.1)));
                }
            },
        };
        // Text that is not UTF-8 is the statement's fault; all else means that both sides have lost each other.
        match Message::decode(kind, body) {
            Ok(message) => Ok(message),
            Err(e) if e.state.0 == "22021" && !self.skip_to_sync => {
                self.session.note_error();
                self.put_error(&e);
                if kind == b'Q' {
                    self.ready().await?;
                } else {
                    self.skip_to_sync = true;
                }
                Ok(Message::CopyRest)
            }
            Err(e) if e.state.0 == "22021" => Ok(Message::CopyRest),
            Err(e) => Err(Fail::Fatal(e)),
        }
    }

    async fn handle(&mut self, message: Message) -> Result<(), Fail> {
        if self.skip_to_sync && !matches!(message, Message::Sync | Message::Terminate) {
            return Ok(());
        }
        match message {
            Message::Query(sql) => self.simple_query(&sql).await,
            Message::Parse { name, sql, oids } => self.parse(name, &sql, oids).await,
            Message::Bind(bind) => self.bind(bind),
            Message::Describe { target, name } => self.describe(target, &name),
            Message::Execute { portal, max_rows } => self.execute(&portal, max_rows).await,
            Message::Close { target, name } => {
                self.close(target, &name);
                Ok(())
            }
            Message::Flush => self.send(None).await,
            Message::Sync => {
                self.skip_to_sync = false;
                self.ready().await
            }
            Message::Terminate => Err(Fail::Gone),
            Message::CopyRest => Ok(()),
            Message::FunctionCall => Err(error("0A000", "function calls by the protocol are not supported").into()),
        }
    }

    /// The end of a round: what has changed, then ReadyForQuery.
    pub async fn ready(&mut self) -> Result<(), Fail> {
        self.put_notices();
        if self.session.status() == TransactionStatus::Idle {
            // Outside of a block the transaction is over now, and with it the portals.
            self.portals.clear();
        }
        for (name, value) in self.session.take_parameter_changes() {
            self.out.parameter_status(name, &value);
        }
        self.out.ready(self.session.status());
        // A client that has sent more already reads the answers together.
        if self.inbox.has_frame() && !self.out.is_full() { Ok(()) } else { self.send(None).await }
    }

    pub fn put_notices(&mut self) {
        for notice in self.session.take_notices() {
            self.out.notice(&notice);
        }
    }

    pub fn put_error(&mut self, e: &SqlError) {
        self.put_notices();
        metrics::error(e.state.0);
        tracing::debug!(state = e.state.0, message = %e.message, "statement failed");
        self.out.error("ERROR", e);
    }

    pub fn time_zone(&self) -> SessionTz {
        SessionTz::parse(&self.session.time_zone()).unwrap_or(SessionTz::Utc)
    }

    /// Sends what is in the buffer. While the client does not read, a cancel, the end of the server and the end of
    /// the connection are heard.
    pub async fn send(&mut self, statement: Option<&CancellationToken>) -> Result<(), Fail> {
        let Self { inbox, out, shutdown, .. } = self;
        tokio::select! {
            biased;
            sent = out.flush() => sent.map_err(|_| Fail::Gone),
            () = requested(statement) => Err(Fail::Statement(cancelled())),
            () = shutdown.cancelled() => Err(Fail::Fatal(terminated())),
            () = inbox.closed() => Err(Fail::Gone),
        }
    }

    async fn simple_query(&mut self, sql: &str) -> Result<(), Fail> {
        metrics::query("simple");
        // The unnamed ones end here, as in PostgreSQL.
        self.statements.remove("");
        self.portals.remove("");
        let statements = self.session.parse(sql)?;
        if statements.is_empty() {
            self.out.empty_query();
        }
        for statement in &statements {
            self.simple_statement(statement).await?;
            if self.out.is_full() {
                self.send(None).await?;
            }
        }
        self.ready().await
    }

    async fn simple_statement(&mut self, statement: &S::Statement) -> Result<(), Fail> {
        let token = self.signal.renew();
        let Self { session, inbox, signal, shutdown, .. } = self;
        let prepared = watched(inbox, signal, &token, shutdown, session.prepare(statement, &[])).await??;
        if !S::params(&prepared).is_empty() {
            return Err(error("42P02", "there is no parameter $1").into());
        }
        let outcome = watched(inbox, signal, &token, shutdown, session.execute(&prepared, Vec::new())).await??;
        match outcome {
            Outcome::Rows { columns, stream, tag } => {
                let formats = vec![Format::Text; columns.len()];
                if tag != RowsTag::Copy {
                    self.out.row_description(&columns, &formats)?;
                }
                let mut cursor = Cursor::new(columns, formats, stream, tag);
                self.pump(&mut cursor, usize::MAX, &token).await?;
            }
            Outcome::Done { tag } => self.done(&prepared, tag)?,
            Outcome::Empty => self.out.empty_query(),
        }
        Ok(())
    }

    /// The end of a statement without rows, and what it means for the statements and portals that are kept here.
    pub fn done(&mut self, prepared: &S::Prepared, mut tag: String) -> Result<(), SqlError> {
        match S::deallocates(prepared) {
            Some(Deallocate::All) => {
                self.statements.clear();
                "DEALLOCATE ALL".clone_into(&mut tag);
            }
            Some(Deallocate::One(name)) => {
                self.statements.remove(&name).ok_or_else(|| no_statement(&name))?;
            }
            None if tag == "DISCARD ALL" => {
                self.statements.clear();
                self.portals.clear();
            }
            None => {}
        }
        self.put_notices();
        self.out.command_complete(&tag);
        Ok(())
    }
}

async fn requested(token: Option<&CancellationToken>) {
    match token {
        Some(token) => token.cancelled().await,
        None => std::future::pending().await,
    }
}

/// Runs a part of a statement, and listens to the outside meanwhile. Where something comes up the engine is asked to
/// stop and given time to do so in order: a statement that writes is not cut off in the middle.
pub(super) async fn watched<R, F>(
    inbox: &mut Inbox<R>,
    signal: &Signal,
    token: &CancellationToken,
    shutdown: &CancellationToken,
    work: F,
) -> Result<F::Output, Fail>
where
    R: AsyncRead + Unpin,
    F: Future,
{
    tokio::pin!(work);
    let end = tokio::select! {
        biased;
        output = &mut work => return Ok(output),
        () = token.cancelled() => None,
        () = shutdown.cancelled() => Some(Fail::Fatal(terminated())),
        () = inbox.closed() => Some(Fail::Gone),
    };
    let asked = tokio::time::timeout(CANCEL_GRACE, async {
        loop {
            signal.cancel_engine();
            if let Ok(output) = tokio::time::timeout(CANCEL_REMINDER, &mut work).await {
                return output;
            }
        }
    });
    match (asked.await, end) {
        (Ok(output), None) => Ok(output),
        (Err(_), None) => Err(Fail::Statement(cancelled())),
        (_, Some(end)) => Err(end),
    }
}
