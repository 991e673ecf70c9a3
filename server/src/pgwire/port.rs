//! What the protocol needs of the engine. A trait, so that the loop can be driven by a fake in tests.

use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use datafusion::sql::sqlparser::ast;
use tidewater_sql::{
    Engine, Login, Notice, Outcome, ParsedStatement, Prepared, ResultColumn, Session, SqlError, Statement,
    TransactionStatus,
};

pub(super) trait Backend: Send + Sync + 'static {
    type Session: Port;
    fn open(&self, login: Login) -> Result<Self::Session, SqlError>;
}

/// Which prepared statements DEALLOCATE means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Deallocate {
    All,
    One(String),
}

/// One session; the methods are those of [`Session`].
pub(super) trait Port: Send + Sync + 'static {
    type Statement: Clone + Send + Sync;
    type Prepared: Clone + Send + Sync;

    fn parse(&self, sql: &str) -> Result<Vec<Self::Statement>, SqlError>;
    fn prepare(
        &mut self,
        statement: &Self::Statement,
        param_types: &[Option<DataType>],
    ) -> impl Future<Output = Result<Self::Prepared, SqlError>> + Send;
    fn execute(
        &mut self,
        prepared: &Self::Prepared,
        params: Vec<ScalarValue>,
    ) -> impl Future<Output = Result<Outcome, SqlError>> + Send;
    fn params(prepared: &Self::Prepared) -> &[DataType];
    fn columns(prepared: &Self::Prepared) -> Option<&[ResultColumn]>;
    /// Set for DEALLOCATE: the statements it names are kept by the protocol.
    fn deallocates(prepared: &Self::Prepared) -> Option<Deallocate>;
    /// Cancels what runs in the session at the time of the call.
    fn canceller(&self) -> Box<dyn Fn() + Send + Sync>;
    fn status(&self) -> TransactionStatus;
    fn idle_in_transaction(&self) -> Option<Duration>;
    fn note_error(&mut self);
    fn parameter_status(&self) -> Vec<(&'static str, String)>;
    fn take_parameter_changes(&mut self) -> Vec<(&'static str, String)>;
    fn take_notices(&mut self) -> Vec<Notice>;
    fn time_zone(&self) -> String;
    fn pid(&self) -> i32;
}

impl Backend for Arc<Engine> {
    type Session = Session;

    fn open(&self, login: Login) -> Result<Session, SqlError> {
        self.session(login)
    }
}

impl Port for Session {
    type Statement = ParsedStatement;
    type Prepared = Prepared;

    fn parse(&self, sql: &str) -> Result<Vec<ParsedStatement>, SqlError> {
        Session::parse(self, sql)
    }

    async fn prepare(
        &mut self,
        statement: &ParsedStatement,
        param_types: &[Option<DataType>],
    ) -> Result<Prepared, SqlError> {
        Session::prepare(self, statement, param_types).await
    }

    async fn execute(&mut self, prepared: &Prepared, params: Vec<ScalarValue>) -> Result<Outcome, SqlError> {
        Session::execute(self, prepared, params).await
    }

    fn params(prepared: &Prepared) -> &[DataType] {
        &prepared.params
    }

    fn columns(prepared: &Prepared) -> Option<&[ResultColumn]> {
        prepared.columns.as_deref()
    }

    fn deallocates(prepared: &Prepared) -> Option<Deallocate> {
        let Statement::Sql(statement) = &prepared.statement.statement else { return None };
        let ast::Statement::Deallocate { name, .. } = statement.as_ref() else { return None };
        Some(match name.quote_style {
            Some(_) => Deallocate::One(name.value.clone()),
            None if name.value.eq_ignore_ascii_case("all") => Deallocate::All,
            None => Deallocate::One(name.value.to_lowercase()),
        })
    }

    fn canceller(&self) -> Box<dyn Fn() + Send + Sync> {
        let handle = self.cancel_handle();
        Box::new(move || handle.cancel())
    }

    fn status(&self) -> TransactionStatus {
        self.transaction_status()
    }

    fn idle_in_transaction(&self) -> Option<Duration> {
        Session::idle_in_transaction(self)
    }

    fn note_error(&mut self) {
        Session::note_error(self);
    }

    fn parameter_status(&self) -> Vec<(&'static str, String)> {
        Session::parameter_status(self)
    }

    fn take_parameter_changes(&mut self) -> Vec<(&'static str, String)> {
        Session::take_parameter_changes(self)
    }

    fn take_notices(&mut self) -> Vec<Notice> {
        Session::take_notices(self)
    }

    fn time_zone(&self) -> String {
        Session::time_zone(self)
    }

    fn pid(&self) -> i32 {
        Session::pid(self)
    }
}
