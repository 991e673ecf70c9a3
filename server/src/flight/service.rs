//! One method a command of Flight SQL.

use std::pin::Pin;
use std::sync::Arc;

use arrow::datatypes::Schema;
use arrow::record_batch::RecordBatch;
use arrow_flight::decode::FlightRecordBatchStream;
use arrow_flight::error::FlightError;
use arrow_flight::flight_service_server::FlightService;
use arrow_flight::sql::server::{FlightSqlService, PeekableFlightDataStream};
use arrow_flight::sql::{
    ActionCancelQueryRequest, ActionCancelQueryResult, ActionClosePreparedStatementRequest,
    ActionCreatePreparedStatementRequest, ActionCreatePreparedStatementResult, Any, CommandGetCatalogs,
    CommandGetCrossReference, CommandGetDbSchemas, CommandGetExportedKeys, CommandGetImportedKeys,
    CommandGetPrimaryKeys, CommandGetSqlInfo, CommandGetTableTypes, CommandGetTables, CommandGetXdbcTypeInfo,
    CommandPreparedStatementQuery, CommandPreparedStatementUpdate, CommandStatementQuery, CommandStatementUpdate,
    DoPutPreparedStatementResult, ProstMessageExt, SqlInfo, TicketStatementQuery,
};
use arrow_flight::{Action, FlightDescriptor, FlightEndpoint, FlightInfo, HandshakeRequest, HandshakeResponse, Ticket};
use datafusion::common::ScalarValue;
use futures::{Stream, TryStreamExt};
use prost::Message;
use prost::bytes::Bytes;
use tonic::metadata::MetadataValue;
use tonic::{Request, Response, Status, Streaming};

use super::sessions::{FlightSession, Sessions};
use super::statement::{Statement, encode_batch, refuse_transaction, schema_bytes};
use super::status::{internal, status, unsupported};
use super::{info, metadata, params};

type Reply<T> = Result<Response<T>, Status>;
type GetStream = <Service as FlightService>::DoGetStream;

#[derive(Clone)]
pub(super) struct Service {
    pub sessions: Arc<Sessions>,
}

/// `CancelQuery`'s answers, FlightSql.proto.
const CANCELLED: i32 = 1;

impl Service {
    pub fn new(sessions: Arc<Sessions>) -> Self {
        Self { sessions }
    }

    /// Runs what changes something now; keeps what returns rows for its DoGet.
    async fn announce(
        &self,
        session: &FlightSession,
        statement: Arc<Statement>,
        descriptor: FlightDescriptor,
    ) -> Reply<FlightInfo> {
        if !statement.has_rows() {
            statement.update(session).await?;
        }
        let schema = Arc::clone(statement.schema());
        let handle = session.keep_for_ticket(statement);
        let ticket = TicketStatementQuery { statement_handle: handle.into() };
        flight_info(&schema, ticket.as_any(), descriptor)
    }

    /// The plan of a statement that nobody runs: for GetSchema.
    pub async fn describe(&self, request: &Request<FlightDescriptor>) -> Result<Option<Arc<Statement>>, Status> {
        let session = self.sessions.of(request)?;
        let message = Any::decode(&*request.get_ref().cmd).map_err(malformed)?;
        if let Some(query) = message.unpack::<CommandStatementQuery>().map_err(malformed)? {
            return Statement::prepare(&session, &query.query).await.map(Some);
        }
        if let Some(query) = message.unpack::<CommandPreparedStatementQuery>().map_err(malformed)? {
            return session.statement(&query.prepared_statement_handle).map(Some);
        }
        Ok(None)
    }

    /// Cancels the runs of the statement that a ticket stands for.
    pub fn cancel<T>(&self, request: &Request<T>, info: &FlightInfo) -> Result<(), Status> {
        let session = self.sessions.of(request)?;
        for endpoint in &info.endpoint {
            let Some(ticket) = &endpoint.ticket else { continue };
            let message = Any::decode(&*ticket.ticket).map_err(malformed)?;
            if let Some(ticket) = message.unpack::<TicketStatementQuery>().map_err(malformed)? {
                session.statement(&ticket.statement_handle)?.cancel();
            }
        }
        Ok(())
    }
}

fn malformed(e: impl std::fmt::Display) -> Status {
    Status::invalid_argument(format!("the command cannot be read: {e} (SQLSTATE 08P01)"))
}

fn flight_info(schema: &Schema, ticket: Any, descriptor: FlightDescriptor) -> Reply<FlightInfo> {
    let endpoint = FlightEndpoint::new().with_ticket(Ticket::new(ticket.encode_to_vec()));
    let info = FlightInfo::new().with_endpoint(endpoint).with_descriptor(descriptor);
    Ok(Response::new(info.try_with_schema(schema).map_err(internal)?))
}

/// The command is its own ticket.
fn metadata_info(
    schema: &Schema,
    command: &impl ProstMessageExt,
    request: Request<FlightDescriptor>,
) -> Reply<FlightInfo> {
    flight_info(schema, command.as_any(), request.into_inner())
}

fn batch(batch: Result<RecordBatch, Status>) -> Reply<GetStream> {
    Ok(Response::new(encode_batch(batch?)))
}

/// What a client binds, converted to the types of the statement.
async fn bound(
    statement: &Statement,
    request: Request<PeekableFlightDataStream>,
) -> Result<Vec<Vec<ScalarValue>>, Status> {
    let data = request
        .into_inner()
        // A message that carries the command alone: nothing is bound by it.
        .try_filter(|data| std::future::ready(!data.data_header.is_empty()))
        .map_err(|e| FlightError::Tonic(Box::new(e)));
    let mut batches = FlightRecordBatchStream::new_from_flight_data(data);
    let mut rows = Vec::new();
    while let Some(batch) = batches.try_next().await.map_err(Status::from)? {
        if batch.num_columns() == 0 {
            continue;
        }
        rows.extend(params::rows(&batch, statement.param_types()).map_err(status)?);
        if rows.len() > params::MAX_ROWS {
            return Err(Status::resource_exhausted(format!(
                "more than {} rows of parameters: send them in several calls (SQLSTATE 54000)",
                params::MAX_ROWS
            )));
        }
    }
    Ok(rows)
}

#[tonic::async_trait]
impl FlightSqlService for Service {
    type FlightService = Self;

    async fn do_handshake(
        &self,
        request: Request<Streaming<HandshakeRequest>>,
    ) -> Reply<Pin<Box<dyn Stream<Item = Result<HandshakeResponse, Status>> + Send>>> {
        let token = self.sessions.sign_in(&request)?;
        let answer = HandshakeResponse { protocol_version: 0, payload: token.clone().into() };
        let answers: Pin<Box<dyn Stream<Item = _> + Send>> = Box::pin(futures::stream::iter([Ok(answer)]));
        let mut response = Response::new(answers);
        let bearer = MetadataValue::try_from(format!("Bearer {token}")).map_err(internal)?;
        response.metadata_mut().insert("authorization", bearer);
        Ok(response)
    }

    async fn get_flight_info_statement(
        &self,
        query: CommandStatementQuery,
        request: Request<FlightDescriptor>,
    ) -> Reply<FlightInfo> {
        refuse_transaction(query.transaction_id.as_ref())?;
        let session = self.sessions.of(&request)?;
        let statement = Statement::prepare(&session, &query.query).await?;
        self.announce(&session, statement, request.into_inner()).await
    }

    async fn get_flight_info_prepared_statement(
        &self,
        query: CommandPreparedStatementQuery,
        request: Request<FlightDescriptor>,
    ) -> Reply<FlightInfo> {
        let session = self.sessions.of(&request)?;
        let statement = session.statement(&query.prepared_statement_handle)?.frozen();
        self.announce(&session, statement, request.into_inner()).await
    }

    async fn do_get_statement(&self, ticket: TicketStatementQuery, request: Request<Ticket>) -> Reply<GetStream> {
        let session = self.sessions.of(&request)?;
        let statement = session.statement(&ticket.statement_handle)?;
        statement.redeem()?;
        Ok(Response::new(statement.query(session).await?))
    }

    async fn do_get_prepared_statement(
        &self,
        query: CommandPreparedStatementQuery,
        request: Request<Ticket>,
    ) -> Reply<GetStream> {
        let session = self.sessions.of(&request)?;
        let statement = session.statement(&query.prepared_statement_handle)?;
        if !statement.has_rows() {
            return Err(unsupported("DoGet of a statement without rows that was not announced by GetFlightInfo"));
        }
        Ok(Response::new(statement.query(session).await?))
    }

    async fn do_put_statement_update(
        &self,
        command: CommandStatementUpdate,
        request: Request<PeekableFlightDataStream>,
    ) -> Result<i64, Status> {
        refuse_transaction(command.transaction_id.as_ref())?;
        let session = self.sessions.of(&request)?;
        let statement = Statement::prepare(&session, &command.query).await?;
        // Not -1 where the statement counts nothing: the JDBC driver takes that for a query and runs it once more.
        Ok(statement.update(&session).await?.unwrap_or(0))
    }

    async fn do_put_prepared_statement_query(
        &self,
        query: CommandPreparedStatementQuery,
        request: Request<PeekableFlightDataStream>,
    ) -> Result<DoPutPreparedStatementResult, Status> {
        let session = self.sessions.of(&request)?;
        let statement = session.statement(&query.prepared_statement_handle)?;
        statement.bind(bound(&statement, request).await?);
        Ok(DoPutPreparedStatementResult { prepared_statement_handle: Some(query.prepared_statement_handle) })
    }

    async fn do_put_prepared_statement_update(
        &self,
        query: CommandPreparedStatementUpdate,
        request: Request<PeekableFlightDataStream>,
    ) -> Result<i64, Status> {
        let session = self.sessions.of(&request)?;
        let statement = session.statement(&query.prepared_statement_handle)?.frozen();
        let rows = bound(&statement, request).await?;
        if !rows.is_empty() {
            statement.bind(rows);
        }
        Ok(statement.update(&session).await?.unwrap_or(0))
    }

    async fn do_action_create_prepared_statement(
        &self,
        query: ActionCreatePreparedStatementRequest,
        request: Request<Action>,
    ) -> Result<ActionCreatePreparedStatementResult, Status> {
        refuse_transaction(query.transaction_id.as_ref())?;
        let session = self.sessions.of(&request)?;
        let statement = Statement::prepare(&session, &query.query).await?;
        let (dataset_schema, parameter_schema) =
            (schema_bytes(statement.schema())?, schema_bytes(&statement.param_schema())?);
        let handle: Bytes = session.keep(statement)?.into();
        Ok(ActionCreatePreparedStatementResult { prepared_statement_handle: handle, dataset_schema, parameter_schema })
    }

    async fn do_action_close_prepared_statement(
        &self,
        query: ActionClosePreparedStatementRequest,
        request: Request<Action>,
    ) -> Result<(), Status> {
        self.sessions.of(&request)?.close_statement(&query.prepared_statement_handle);
        Ok(())
    }

    async fn do_action_cancel_query(
        &self,
        query: ActionCancelQueryRequest,
        request: Request<Action>,
    ) -> Result<ActionCancelQueryResult, Status> {
        let info = FlightInfo::decode(&*query.info).map_err(malformed)?;
        self.cancel(&request, &info)?;
        Ok(ActionCancelQueryResult { result: CANCELLED })
    }

    async fn get_flight_info_catalogs(
        &self,
        query: CommandGetCatalogs,
        request: Request<FlightDescriptor>,
    ) -> Reply<FlightInfo> {
        self.sessions.of(&request)?;
        metadata_info(&query.into_builder().schema(), &query, request)
    }

    async fn do_get_catalogs(&self, query: CommandGetCatalogs, request: Request<Ticket>) -> Reply<GetStream> {
        batch(metadata::catalogs(&*self.sessions.of(&request)?, query).await)
    }

    async fn get_flight_info_schemas(
        &self,
        query: CommandGetDbSchemas,
        request: Request<FlightDescriptor>,
    ) -> Reply<FlightInfo> {
        self.sessions.of(&request)?;
        metadata_info(&query.clone().into_builder().schema(), &query, request)
    }

    async fn do_get_schemas(&self, query: CommandGetDbSchemas, request: Request<Ticket>) -> Reply<GetStream> {
        batch(metadata::schemas(&*self.sessions.of(&request)?, query).await)
    }

    async fn get_flight_info_tables(
        &self,
        query: CommandGetTables,
        request: Request<FlightDescriptor>,
    ) -> Reply<FlightInfo> {
        self.sessions.of(&request)?;
        metadata_info(&query.clone().into_builder().schema(), &query, request)
    }

    async fn do_get_tables(&self, query: CommandGetTables, request: Request<Ticket>) -> Reply<GetStream> {
        batch(metadata::tables(&*self.sessions.of(&request)?, query).await)
    }

    async fn get_flight_info_table_types(
        &self,
        query: CommandGetTableTypes,
        request: Request<FlightDescriptor>,
    ) -> Reply<FlightInfo> {
        self.sessions.of(&request)?;
        metadata_info(&query.into_builder().schema(), &query, request)
    }

    async fn do_get_table_types(&self, query: CommandGetTableTypes, request: Request<Ticket>) -> Reply<GetStream> {
        self.sessions.of(&request)?;
        batch(metadata::table_types(query))
    }

    async fn get_flight_info_sql_info(
        &self,
        query: CommandGetSqlInfo,
        request: Request<FlightDescriptor>,
    ) -> Reply<FlightInfo> {
        self.sessions.of(&request)?;
        metadata_info(&info::sql_info()?.schema(), &query, request)
    }

    async fn do_get_sql_info(&self, query: CommandGetSqlInfo, request: Request<Ticket>) -> Reply<GetStream> {
        self.sessions.of(&request)?;
        batch(query.into_builder(info::sql_info()?).build().map_err(internal))
    }

    async fn get_flight_info_primary_keys(
        &self,
        query: CommandGetPrimaryKeys,
        request: Request<FlightDescriptor>,
    ) -> Reply<FlightInfo> {
        self.sessions.of(&request)?;
        metadata_info(&metadata::PRIMARY_KEYS, &query, request)
    }

    async fn do_get_primary_keys(&self, _: CommandGetPrimaryKeys, request: Request<Ticket>) -> Reply<GetStream> {
        self.sessions.of(&request)?;
        batch(Ok(RecordBatch::new_empty(Arc::clone(&metadata::PRIMARY_KEYS))))
    }

    async fn get_flight_info_exported_keys(
        &self,
        query: CommandGetExportedKeys,
        request: Request<FlightDescriptor>,
    ) -> Reply<FlightInfo> {
        self.sessions.of(&request)?;
        metadata_info(&metadata::FOREIGN_KEYS, &query, request)
    }

    async fn do_get_exported_keys(&self, _: CommandGetExportedKeys, request: Request<Ticket>) -> Reply<GetStream> {
        self.sessions.of(&request)?;
        batch(Ok(RecordBatch::new_empty(Arc::clone(&metadata::FOREIGN_KEYS))))
    }

    async fn get_flight_info_imported_keys(
        &self,
        query: CommandGetImportedKeys,
        request: Request<FlightDescriptor>,
    ) -> Reply<FlightInfo> {
        self.sessions.of(&request)?;
        metadata_info(&metadata::FOREIGN_KEYS, &query, request)
    }

    async fn do_get_imported_keys(&self, _: CommandGetImportedKeys, request: Request<Ticket>) -> Reply<GetStream> {
        self.sessions.of(&request)?;
        batch(Ok(RecordBatch::new_empty(Arc::clone(&metadata::FOREIGN_KEYS))))
    }

    async fn get_flight_info_cross_reference(
        &self,
        query: CommandGetCrossReference,
        request: Request<FlightDescriptor>,
    ) -> Reply<FlightInfo> {
        self.sessions.of(&request)?;
        metadata_info(&metadata::FOREIGN_KEYS, &query, request)
    }

    async fn do_get_cross_reference(&self, _: CommandGetCrossReference, request: Request<Ticket>) -> Reply<GetStream> {
        self.sessions.of(&request)?;
        batch(Ok(RecordBatch::new_empty(Arc::clone(&metadata::FOREIGN_KEYS))))
    }

    async fn get_flight_info_xdbc_type_info(
        &self,
        query: CommandGetXdbcTypeInfo,
        request: Request<FlightDescriptor>,
    ) -> Reply<FlightInfo> {
        self.sessions.of(&request)?;
        metadata_info(&info::types()?.schema(), &query, request)
    }

    async fn do_get_xdbc_type_info(&self, query: CommandGetXdbcTypeInfo, request: Request<Ticket>) -> Reply<GetStream> {
        self.sessions.of(&request)?;
        batch(info::types()?.record_batch(query.data_type).map_err(internal))
    }

    async fn register_sql_info(&self, _: i32, _: &SqlInfo) {}
}
