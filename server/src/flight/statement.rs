//! One statement of a client: its types, what is bound to it, its runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, SchemaRef};
use arrow::ipc::writer::IpcWriteOptions;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::error::FlightError;
use arrow_flight::{FlightData, IpcMessage, SchemaAsIpc};
use datafusion::common::ScalarValue;
use datafusion::error::DataFusionError;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt, TryStreamExt};
use parking_lot::Mutex;
use tidewater_sql::{CancelHandle, Outcome, ParsedStatement, Prepared, ResultColumn, Session, SqlError, SqlState};
use tonic::Status;

use super::params::number_placeholders;
use super::sessions::FlightSession;
use super::status::{flight_error, internal, status, unsupported};

pub(super) struct Statement {
    prepared: Prepared,
    /// What is announced for its rows, and sent; empty where it has none.
    schema: SchemaRef,
    bound: Mutex<Arc<Vec<Vec<ScalarValue>>>>,
    /// Of the runs that may still be going on.
    cancels: Mutex<Vec<CancelHandle>>,
    /// Its ticket was handed in.
    redeemed: AtomicBool,
}

/// Runs of one statement at one time whose cancelling is remembered.
const MAX_RUNS: usize = 16;

impl Statement {
    pub async fn prepare(session: &FlightSession, sql: &str) -> Result<Arc<Self>, Status> {
        let mut fork = session.fork().await?;
        let parsed = one(&fork, sql)?;
        if parsed.is_transaction_control() {
            return Err(status(
                SqlError::unsupported("transaction blocks are not supported over Flight SQL")
                    .with_hint("Each statement commits by itself: connect with autocommit on."),
            ));
        }
        let prepared = fork.prepare(&parsed, &[]).await.map_err(status)?;
        let schema = prepared.columns.as_deref().map_or_else(|| Arc::new(Schema::empty()), wire_schema);
        Ok(Arc::new(Self {
            prepared,
            schema,
            bound: Mutex::default(),
            cancels: Mutex::default(),
            redeemed: AtomicBool::default(),
        }))
    }

    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    pub fn has_rows(&self) -> bool {
        self.prepared.columns.is_some()
    }

    pub fn param_types(&self) -> &[DataType] {
        &self.prepared.params
    }

    /// `$1` … as a client is told of them.
    pub fn param_schema(&self) -> Schema {
        let field = |(i, t): (usize, &DataType)| Field::new(format!("${}", i + 1), wire_type(t), true);
        Schema::new(self.prepared.params.iter().enumerate().map(field).collect::<Vec<_>>())
    }

    pub fn bind(&self, rows: Vec<Vec<ScalarValue>>) {
        *self.bound.lock() = Arc::new(rows);
    }

    /// The same statement with what is bound now, untouched by what is bound later.
    pub fn frozen(&self) -> Arc<Self> {
        Arc::new(Self {
            prepared: self.prepared.clone(),
            schema: Arc::clone(&self.schema),
            bound: Mutex::new(self.bound.lock().clone()),
            cancels: Mutex::default(),
            redeemed: AtomicBool::default(),
        })
    }

    /// To be asked once for each use of a ticket. 55000 where a statement that changes rows would run once more.
    pub fn redeem(&self) -> Result<(), Status> {
        let again = self.redeemed.swap(true, Ordering::Relaxed);
        if again && self.has_rows() && self.prepared.statement.changes_rows() {
            return Err(status(
                SqlError::new(SqlState("55000"), "the statement was run when its ticket was first used")
                    .with_hint("Ask for a new FlightInfo to run it again."),
            ));
        }
        Ok(())
    }

    pub fn cancel(&self) {
        self.cancels.lock().iter().for_each(CancelHandle::cancel);
    }

    /// Runs a statement without rows, once for each row of parameters. None where it counts nothing.
    pub async fn update(&self, session: &FlightSession) -> Result<Option<i64>, Status> {
        if self.has_rows() {
            return Err(status(
                SqlError::new(SqlState::WRONG_OBJECT_TYPE, "the statement returns rows")
                    .with_hint("Run it as a query."),
            ));
        }
        if self.prepared.statement.changes_session() {
            let mut base = session.base().await;
            base.execute(&self.prepared, Vec::new()).await.map_err(status)?;
            return Ok(None);
        }
        let mut total = None;
        for params in self.runs()? {
            let mut fork = session.fork().await?;
            self.remember(&fork);
            match fork.execute(&self.prepared, params).await.map_err(status)? {
                Outcome::Done { tag } => {
                    if let Some(n) = count(&tag) {
                        *total.get_or_insert(0) += n;
                    }
                }
                Outcome::Empty => {}
                Outcome::Rows { .. } => return Err(internal("a statement without columns returned rows")),
            }
        }
        Ok(total)
    }

    /// Runs a query, once for each row of parameters; the rows follow each other.
    pub async fn query(
        self: Arc<Self>,
        session: Arc<FlightSession>,
    ) -> Result<BoxStream<'static, Result<FlightData, Status>>, Status> {
        if !self.has_rows() {
            // It ran when its FlightInfo was asked for.
            return Ok(encode(Arc::clone(&self.schema), futures::stream::empty()));
        }
        let mut runs = self.runs()?.into_iter();
        // The first one begins here, so that its errors are the call's.
        let first = match runs.next() {
            Some(params) => self.run(&session, params).await?,
            None => return Ok(encode(Arc::clone(&self.schema), futures::stream::empty())),
        };
        let schema = Arc::clone(&self.schema);
        let rest = futures::stream::iter(runs).then(move |params| {
            let (statement, session) = (Arc::clone(&self), Arc::clone(&session));
            async move { statement.run(&session, params).await.map_err(|e| FlightError::Tonic(Box::new(e))) }
        });
        Ok(encode(schema, first.chain(rest.try_flatten())))
    }

    async fn run(
        &self,
        session: &FlightSession,
        params: Vec<ScalarValue>,
    ) -> Result<BoxStream<'static, Result<RecordBatch, FlightError>>, Status> {
        let mut fork = session.fork().await?;
        self.remember(&fork);
        match fork.execute(&self.prepared, params).await.map_err(status)? {
            Outcome::Rows { stream, .. } => {
                let schema = Arc::clone(&self.schema);
                // The fork lives as long as its rows: it is what the list of sessions shows.
                let rows = stream.map(move |batch| {
                    let _alive = &fork;
                    batch.and_then(|b| conform(&b, &schema)).map_err(flight_error)
                });
                Ok(rows.boxed())
            }
            Outcome::Done { .. } | Outcome::Empty => Err(internal("a query returned no rows")),
        }
    }

    fn runs(&self) -> Result<Vec<Vec<ScalarValue>>, Status> {
        let bound = self.bound.lock().clone();
        if self.prepared.params.is_empty() {
            return Ok(vec![Vec::new()]);
        }
        if bound.is_empty() {
            return Err(status(SqlError::new(
                SqlState::UNDEFINED_PARAMETER,
                format!("the statement has {} parameters and nothing is bound to them", self.prepared.params.len()),
            )));
        }
        Ok(bound.as_ref().clone())
    }

    fn remember(&self, fork: &Session) {
        let mut cancels = self.cancels.lock();
        if cancels.len() >= MAX_RUNS {
            cancels.remove(0);
        }
        cancels.push(fork.cancel_handle());
    }
}

/// The one statement of a text.
fn one(session: &Session, sql: &str) -> Result<ParsedStatement, Status> {
    let mut statements = session.parse(&number_placeholders(sql)).map_err(status)?;
    match (statements.pop(), statements.is_empty()) {
        (Some(statement), true) => Ok(statement),
        (None, _) => Err(status(SqlError::syntax("the statement is empty"))),
        (Some(_), false) => {
            Err(status(SqlError::syntax("cannot run several statements at once").with_hint("Send them one by one.")))
        }
    }
}

/// `INSERT 0 5` and `UPDATE 5` count 5.
fn count(tag: &str) -> Option<i64> {
    let mut words = tag.split(' ');
    matches!(words.next()?, "INSERT" | "UPDATE" | "DELETE" | "MERGE").then(|| words.next_back()?.parse().ok()).flatten()
}

fn encode(
    schema: SchemaRef,
    rows: impl Stream<Item = Result<RecordBatch, FlightError>> + Send + 'static,
) -> BoxStream<'static, Result<FlightData, Status>> {
    FlightDataEncoderBuilder::new().with_schema(schema).build(rows).map_err(Status::from).boxed()
}

/// A batch that is all there, as a stream of its own.
pub(super) fn encode_batch(batch: RecordBatch) -> BoxStream<'static, Result<FlightData, Status>> {
    encode(batch.schema(), futures::stream::iter([Ok(batch)]))
}

/// The bytes of a schema, as FlightInfo and the results of actions carry them.
pub(super) fn schema_bytes(schema: &Schema) -> Result<bytes::Bytes, Status> {
    let IpcMessage(bytes) = SchemaAsIpc::new(schema, &IpcWriteOptions::default()).try_into().map_err(internal)?;
    Ok(bytes)
}

/// What clients are sent: types that every Arrow implementation reads.
pub(super) fn wire_schema(columns: &[ResultColumn]) -> SchemaRef {
    Arc::new(Schema::new(columns.iter().map(|c| wire_field(&c.field)).collect::<Vec<_>>()))
}

fn wire_field(field: &FieldRef) -> FieldRef {
    // Metadata of our own (field ids and the like) means nothing to clients.
    Arc::new(Field::new(field.name(), wire_type(field.data_type()), field.is_nullable()))
}

fn wire_type(data_type: &DataType) -> DataType {
    match data_type {
        DataType::Utf8View => DataType::Utf8,
        DataType::BinaryView => DataType::Binary,
        DataType::Dictionary(_, value) => wire_type(value),
        DataType::List(item) | DataType::ListView(item) => DataType::List(wire_field(item)),
        DataType::LargeList(item) | DataType::LargeListView(item) => DataType::LargeList(wire_field(item)),
        DataType::FixedSizeList(item, n) => DataType::FixedSizeList(wire_field(item), *n),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(wire_field).collect::<Fields>()),
        DataType::Map(entries, sorted) => DataType::Map(wire_field(entries), *sorted),
        other => other.clone(),
    }
}

fn conform(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, DataFusionError> {
    let columns = (batch.columns().iter().zip(schema.fields()))
        .map(|(column, field)| {
            if column.data_type() == field.data_type() {
                Ok(Arc::clone(column))
            } else {
                arrow::compute::cast(column, field.data_type())
            }
        })
        .collect::<Result<Vec<_>, _>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)?)
}

/// Substrait, transactions and the like, which no statement here has.
pub(super) fn refuse_transaction(id: Option<&bytes::Bytes>) -> Result<(), Status> {
    if id.is_some_and(|id| !id.is_empty()) { Err(unsupported("a transaction")) } else { Ok(()) }
}
