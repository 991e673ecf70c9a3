use std::sync::Arc;
use std::time::Instant;

use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::ScalarValue;
use datafusion::execution::SendableRecordBatchStream;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::block::{self, Block, Mark};
use crate::dialect::{self, ParsedStatement, Statement};
use crate::engine::{Engine, SessionShared, SessionVisible};
use crate::plan::relation::Lookup;
use crate::settings::Settings;
use crate::{SqlError, SqlState, run, statement};

/// Who connects, and with what.
#[derive(Debug, Clone, Default)]
pub struct Login {
    pub user: String,
    pub database: String,
    pub application_name: String,
    pub client_addr: Option<String>,
    /// Settings from the start-up message, `options=-c name=value` included.
    pub options: Vec<(String, String)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransactionStatus {
    Idle,
    InBlock,
    Failed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    Notice,
    Warning,
    Info,
}

impl Severity {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Notice => "NOTICE",
            Self::Warning => "WARNING",
            Self::Info => "INFO",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    pub severity: Severity,
    pub state: SqlState,
    pub message: String,
    pub detail: Option<String>,
    pub hint: Option<String>,
}

impl Notice {
    #[allow(clippy::self_named_constructors)]
    pub fn notice(message: impl Into<String>) -> Self {
        Self { severity: Severity::Notice, state: SqlState::SUCCESS, message: message.into(), detail: None, hint: None }
    }
    pub fn warning(state: SqlState, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, state, message: message.into(), detail: None, hint: None }
    }
}

/// One column of a result as a client sees it. The stream's batches have the same types in the same order; their
/// field names may differ where a query has two columns of one name.
#[derive(Debug, Clone)]
pub struct ResultColumn {
    /// Name for the client, type of the batches.
    pub field: FieldRef,
    /// A PostgreSQL type that the Arrow type does not tell, by oid (`name`, `oid`, `regclass` …).
    pub pg_type_hint: Option<u32>,
    /// Zero where the column is computed.
    pub table_oid: u32,
    pub attnum: i16,
}

impl ResultColumn {
    pub fn new(field: FieldRef) -> Self {
        Self { field, pg_type_hint: None, table_oid: 0, attnum: 0 }
    }
}

/// A statement with the types of its parameters and results.
#[derive(Debug, Clone)]
pub struct Prepared {
    pub statement: ParsedStatement,
    pub params: Vec<DataType>,
    /// None: the statement returns no rows.
    pub columns: Option<Vec<ResultColumn>>,
}

/// The tag of a statement that changed rows, with their number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeTag {
    Insert(u64),
    Update(u64),
    Delete(u64),
    Merge(u64),
}

impl std::fmt::Display for ChangeTag {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Insert(rows) => write!(f, "INSERT 0 {rows}"),
            Self::Update(rows) => write!(f, "UPDATE {rows}"),
            Self::Delete(rows) => write!(f, "DELETE {rows}"),
            Self::Merge(rows) => write!(f, "MERGE {rows}"),
        }
    }
}

impl Prepared {
    /// 0A000 where the client was told of other columns. A statement that writes has to ask before it does.
    pub(crate) fn announced(&self, columns: &[ResultColumn]) -> Result<(), SqlError> {
        let same = |announced: &Vec<ResultColumn>| {
            columns.len() == announced.len()
                && columns
                    .iter()
                    .zip(announced)
                    .all(|(a, b)| a.field.data_type() == b.field.data_type() && a.field.name() == b.field.name())
        };
        match self.columns.as_ref().is_none_or(same) {
            true => Ok(()),
            false => Err(SqlError::unsupported("cached plan must not change result type")),
        }
    }
}

/// First word of the tag that ends a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowsTag {
    /// `SELECT 5`: the protocol counts the rows.
    Select,
    Show,
    Explain,
    Subscribe,
    Call,
    /// Of a statement with RETURNING.
    Changed(ChangeTag),
    /// Rows leave in the format of COPY, and are counted.
    Copy,
}

pub enum Outcome {
    Rows {
        columns: Vec<ResultColumn>,
        stream: SendableRecordBatchStream,
        tag: RowsTag,
    },
    Done {
        tag: String,
    },
    /// An empty query string.
    Empty,
}

impl std::fmt::Debug for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Rows { columns, tag, .. } => {
                f.debug_struct("Rows").field("columns", columns).field("tag", tag).finish_non_exhaustive()
            }
            Self::Done { tag } => f.debug_struct("Done").field("tag", tag).finish(),
            Self::Empty => f.write_str("Empty"),
        }
    }
}

impl Outcome {
    pub fn done(tag: impl Into<String>) -> Self {
        Self::Done { tag: tag.into() }
    }
}

/// Cancels the statement that runs now; without effect where none runs.
#[derive(Debug, Clone, Default)]
pub struct CancelHandle {
    /// Replaced at each statement, so that a late cancel does not hit the next one.
    current: Arc<Mutex<CancellationToken>>,
}

impl CancelHandle {
    pub fn cancel(&self) {
        self.current.lock().cancel();
    }

    fn renew(&self) -> CancellationToken {
        let token = CancellationToken::new();
        *self.current.lock() = token.clone();
        token
    }
}

/// What an executor of a statement works with.
pub struct StatementContext<'a> {
    pub engine: &'a Arc<Engine>,
    pub settings: &'a Settings,
    pub login: &'a Login,
    pub pid: i32,
    /// Verbatim text of the statement, and its place in the whole text.
    pub statement: &'a ParsedStatement,
    /// Values of `$1` … .
    pub params: &'a [ScalarValue],
    pub cancel: CancellationToken,
    pub deadline: Option<Instant>,
    pub(crate) notices: &'a Arc<Mutex<Vec<Notice>>>,
    pub in_block: bool,
    pub(crate) block: Option<Arc<Block>>,
}

impl StatementContext<'_> {
    pub(crate) fn lookup(&self) -> Lookup<'_> {
        Lookup { engine: self.engine, settings: self.settings, block: self.block.as_deref() }
    }

    pub fn notice(&self, notice: Notice) {
        let mut notices = self.notices.lock();
        // A statement that has so much to say is not read anyway.
        if notices.len() < MAX_NOTICES {
            notices.push(notice);
        }
    }
}

const MAX_NOTICES: usize = 1000;
const MAX_SHOWN_QUERY: usize = 1024;

/// The transaction block, shared with the streams of its results, whose errors fail it.
#[derive(Debug)]
pub(crate) struct Transaction {
    pub status: TransactionStatus,
    /// Grows with every BEGIN, so that a stream of an earlier block leaves this one alone.
    pub generation: u64,
    pub savepoints: Vec<(String, Mark)>,
    /// A new one for each block.
    pub block: Arc<Block>,
}

impl Transaction {
    /// What was of the block before is over.
    pub(crate) fn turn(&mut self, status: TransactionStatus) {
        self.status = status;
        self.generation += 1;
        self.forget();
    }

    /// Nothing that the block wrote or marked can be come back to.
    fn forget(&mut self) {
        self.savepoints.clear();
        self.block = Arc::default();
    }
}

impl Default for Transaction {
    fn default() -> Self {
        Self { status: TransactionStatus::Idle, generation: 0, savepoints: Vec::new(), block: Arc::default() }
    }
}

/// What SET, BEGIN and their like change.
pub(crate) struct SessionState<'a> {
    pub settings: &'a mut Settings,
    pub transaction: &'a Mutex<Transaction>,
    pub notices: &'a Mutex<Vec<Notice>>,
}

/// One connection.
pub struct Session {
    engine: Arc<Engine>,
    login: Login,
    settings: Settings,
    transaction: Arc<Mutex<Transaction>>,
    cancel: CancelHandle,
    /// Shared with streams, which find out what is worth a notice while they run.
    notices: Arc<Mutex<Vec<Notice>>>,
    reported: Vec<(&'static str, String)>,
    shared: Arc<SessionShared>,
    pid: i32,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("pid", &self.pid).finish_non_exhaustive()
    }
}

impl Session {
    pub(crate) fn new(engine: Arc<Engine>, login: Login, settings: Settings, pid: i32) -> Self {
        let cancel = CancelHandle::default();
        let shared = Arc::new(SessionShared {
            pid,
            user: login.user.clone(),
            database: login.database.clone(),
            client_addr: login.client_addr.clone(),
            started_at_ms: chrono::Utc::now().timestamp_millis(),
            visible: Mutex::new(SessionVisible {
                application_name: settings.get("application_name").unwrap_or_default(),
                ..SessionVisible::default()
            }),
            cancel: cancel.clone(),
        });
        let reported = settings.reported();
        Self {
            engine,
            login,
            settings,
            transaction: Arc::new(Mutex::new(Transaction::default())),
            cancel,
            notices: Arc::default(),
            reported,
            shared,
            pid,
        }
    }

    /// Another session of the same client with the settings of this one, to run something beside it.
    pub fn fork(&self) -> Result<Self, SqlError> {
        self.engine.session_with(self.login.clone(), self.settings.clone())
    }

    /// All statements of a text, or the first syntax error in it.
    pub fn parse(&self, sql: &str) -> Result<Vec<ParsedStatement>, SqlError> {
        dialect::parse(sql)
    }

    /// Finds the types of parameters and results. `param_types` are those that the client named.
    ///
    /// Boxed, as is what [`Session::execute`] gives: whoever awaits it would else have the compiler prove of every
    /// statement's future that it may be sent, which takes a minute.
    pub fn prepare<'a>(
        &'a mut self,
        statement: &'a ParsedStatement,
        param_types: &'a [Option<DataType>],
    ) -> BoxFuture<'a, Result<Prepared, SqlError>> {
        Box::pin(self.describe(statement, param_types))
    }

    async fn describe(
        &mut self,
        statement: &ParsedStatement,
        param_types: &[Option<DataType>],
    ) -> Result<Prepared, SqlError> {
        self.refuse_in_failed_block(statement)?;
        let cancel = self.cancel.renew();
        self.engine.refuse_while_stopping()?;
        let deadline = self.settings.statement_timeout().map(|t| Instant::now() + t);
        let ctx = self.context(statement, &[], cancel.clone(), deadline);
        let described = run::guard(&cancel, deadline, run::caught(statement::describe(&ctx, param_types))).await;
        match described {
            Ok((params, columns)) => Ok(Prepared { statement: statement.clone(), params, columns }),
            Err(e) => Err(self.failed(e)),
        }
    }

    /// Runs a statement. Errors of the rows come with the stream.
    pub fn execute<'a>(
        &'a mut self,
        prepared: &'a Prepared,
        params: Vec<ScalarValue>,
    ) -> BoxFuture<'a, Result<Outcome, SqlError>> {
        Box::pin(self.run(prepared, params))
    }

    async fn run(&mut self, prepared: &Prepared, params: Vec<ScalarValue>) -> Result<Outcome, SqlError> {
        let statement = &prepared.statement;
        self.refuse_in_failed_block(statement)?;
        let cancel = self.cancel.renew();
        self.engine.refuse_while_stopping()?;
        let deadline = self.settings.statement_timeout().map(|t| Instant::now() + t);
        self.show_running(statement);
        let result = self.dispatch(prepared, &params, cancel, deadline).await;
        match result {
            Ok(Outcome::Rows { columns, stream, tag }) => {
                let stream = run::watch(stream, self.transaction.clone(), self.shared.clone());
                Ok(Outcome::Rows { columns, stream, tag })
            }
            Ok(other) => {
                self.shared.visible.lock().active = false;
                Ok(other)
            }
            Err(e) => {
                self.shared.visible.lock().active = false;
                Err(self.failed(e))
            }
        }
    }

    async fn dispatch(
        &mut self,
        prepared: &Prepared,
        params: &[ScalarValue],
        cancel: CancellationToken,
        deadline: Option<Instant>,
    ) -> Result<Outcome, SqlError> {
        let statement = &prepared.statement;
        if let Statement::Sql(sql) = &statement.statement {
            if statement::commits(sql)
                && let Err(e) = self.commit_drafts().await
            {
                let mut state = SessionState {
                    settings: &mut self.settings,
                    transaction: &self.transaction,
                    notices: &self.notices,
                };
                statement::abandon(&mut state);
                return Err(block::rolled_back(e));
            }
            let mut state =
                SessionState { settings: &mut self.settings, transaction: &self.transaction, notices: &self.notices };
            if let Some(outcome) = statement::session_statement(&mut state, sql)? {
                self.shared.visible.lock().application_name = self.settings.get("application_name").unwrap_or_default();
                return Ok(outcome);
            }
        }
        if params.len() != prepared.params.len() {
            return Err(SqlError::new(
                SqlState::PROTOCOL_VIOLATION,
                format!(
                    "bind message supplies {} parameters, but prepared statement requires {}",
                    params.len(),
                    prepared.params.len()
                ),
            ));
        }
        let ctx = self.context(statement, params, cancel, deadline);
        let outcome = run::caught(statement::execute(&ctx, prepared)).await?;
        if let Outcome::Rows { columns, .. } = &outcome {
            prepared.announced(columns)?;
        }
        Ok(outcome)
    }

    /// Shows to everybody what an open block has written. All of it, or nothing.
    async fn commit_drafts(&self) -> Result<(), SqlError> {
        let drafts = {
            let mut transaction = self.transaction.lock();
            let drafts = match transaction.status {
                TransactionStatus::InBlock => transaction.block.changed(),
                TransactionStatus::Idle | TransactionStatus::Failed => Vec::new(),
            };
            if drafts.is_empty() {
                return Ok(());
            }
            // Whoever does not wait for the end of this must not come back to the block and commit it once more.
            transaction.forget();
            drafts
        };
        let engine = Arc::clone(&self.engine);
        // Whether the commit took place must be known.
        run::to_end(&self.engine, async move { Ok(engine.lake.commit_drafts(&drafts).await?) }).await
    }

    fn context<'a>(
        &'a self,
        statement: &'a ParsedStatement,
        params: &'a [ScalarValue],
        cancel: CancellationToken,
        deadline: Option<Instant>,
    ) -> StatementContext<'a> {
        let (in_block, block) = {
            let transaction = self.transaction.lock();
            (transaction.status != TransactionStatus::Idle, Arc::clone(&transaction.block))
        };
        StatementContext {
            engine: &self.engine,
            settings: &self.settings,
            login: &self.login,
            pid: self.pid,
            statement,
            params,
            cancel,
            deadline,
            notices: &self.notices,
            in_block,
            block: in_block.then_some(block),
        }
    }

    fn refuse_in_failed_block(&self, statement: &ParsedStatement) -> Result<(), SqlError> {
        if self.transaction.lock().status == TransactionStatus::Failed && !statement::ends_block(&statement.statement) {
            return Err(SqlError::new(
                SqlState::FAILED_TRANSACTION,
                "current transaction is aborted, commands ignored until end of transaction block",
            ));
        }
        Ok(())
    }

    fn failed(&self, error: SqlError) -> SqlError {
        let mut transaction = self.transaction.lock();
        if transaction.status == TransactionStatus::InBlock {
            transaction.status = TransactionStatus::Failed;
        }
        error
    }

    fn show_running(&self, statement: &ParsedStatement) {
        let mut visible = self.shared.visible.lock();
        let text = statement.log_text();
        visible.query = text.chars().take(MAX_SHOWN_QUERY).collect();
        visible.active = true;
        visible.query_started_at_ms = Some(chrono::Utc::now().timestamp_millis());
    }

    /// Reports an error that the protocol met by itself (a parameter that cannot be read, say), so that an open
    /// block fails with it.
    pub fn note_error(&mut self) {
        let mut transaction = self.transaction.lock();
        if transaction.status == TransactionStatus::InBlock {
            transaction.status = TransactionStatus::Failed;
        }
    }

    pub fn cancel_handle(&self) -> CancelHandle {
        self.cancel.clone()
    }

    pub fn transaction_status(&self) -> TransactionStatus {
        self.transaction.lock().status
    }

    /// How long the client may leave an open transaction alone.
    pub fn idle_in_transaction(&self) -> Option<std::time::Duration> {
        self.settings.idle_in_transaction()
    }

    /// The settings of which a client is told when it connects.
    pub fn parameter_status(&self) -> Vec<(&'static str, String)> {
        self.settings.reported()
    }

    /// Those that changed since the client was told last.
    pub fn take_parameter_changes(&mut self) -> Vec<(&'static str, String)> {
        let now = self.settings.reported();
        let changes = now.iter().filter(|entry| !self.reported.contains(entry)).cloned().collect();
        self.reported = now;
        changes
    }

    pub fn take_notices(&mut self) -> Vec<Notice> {
        std::mem::take(&mut *self.notices.lock())
    }

    /// As SHOW prints it.
    pub fn setting(&self, name: &str) -> Option<String> {
        self.settings.get(name)
    }

    /// Zone in which timestamptz is printed: a name of the tz database, or `+hh:mm`.
    pub fn time_zone(&self) -> String {
        self.settings.time_zone()
    }

    /// Number of this connection, unique in the process: the `pid` of the wire protocol.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    pub fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    pub fn user(&self) -> &str {
        &self.login.user
    }

    pub(crate) fn shared(&self) -> &Arc<SessionShared> {
        &self.shared
    }
}
