//! The gRPC service. Commands of Flight SQL are dispatched by arrow-flight; here stand the calls that it leaves open:
//! GetSchema, CancelFlightInfo, and the session actions of newer Flight.proto.

use std::collections::HashMap;

use arrow::ipc::writer::IpcWriteOptions;
use arrow_flight::flight_service_server::FlightService;
use arrow_flight::{
    Action, ActionType, CancelFlightInfoRequest, CancelFlightInfoResult, CancelStatus, Criteria, Empty, FlightData,
    FlightDescriptor, FlightInfo, HandshakeRequest, PollInfo, SchemaAsIpc, SchemaResult, Ticket,
};
use prost::Message;
use tidewater_sql::SqlError;
use tonic::{Request, Response, Status, Streaming};

use super::service::Service;
use super::status::{internal, status};

type Reply<T> = Result<Response<T>, Status>;

pub(super) struct Front(Service);

const CANCEL_FLIGHT_INFO: &str = "CancelFlightInfo";
const SET_SESSION_OPTIONS: &str = "SetSessionOptions";
const GET_SESSION_OPTIONS: &str = "GetSessionOptions";
const CLOSE_SESSION: &str = "CloseSession";

/// What ListActions says; those that are refused are not in it.
const ACTIONS: [(&str, &str); 7] = [
    ("CreatePreparedStatement", "Plans a statement and keeps it under a handle"),
    ("ClosePreparedStatement", "Forgets a prepared statement"),
    ("CancelQuery", "Cancels the runs of a statement (deprecated by CancelFlightInfo)"),
    (CANCEL_FLIGHT_INFO, "Cancels the runs of a statement"),
    (SET_SESSION_OPTIONS, "Changes settings of the session"),
    (GET_SESSION_OPTIONS, "Settings of the session"),
    (CLOSE_SESSION, "Forgets the session and its token"),
];

impl Front {
    pub fn new(service: Service) -> Self {
        Self(service)
    }

    /// Each option is a setting of SQL; `schema` is the search path.
    async fn set_options(&self, request: &Request<Action>) -> Result<Vec<u8>, Status> {
        let session = self.0.sessions.of(request)?;
        let wanted = SetSessionOptionsRequest::decode(&*request.get_ref().body).map_err(malformed)?;
        let mut base = session.base().await;
        let mut errors = HashMap::new();
        for (name, value) in wanted.session_options {
            let Some(value) = value.option_value.as_ref().map(option_text) else { continue };
            let setting = if name == "schema" { "search_path".to_owned() } else { name.clone() };
            let sql = format!("SET \"{}\" = '{}'", setting.replace('"', "\"\""), value.replace('\'', "''"));
            let outcome = async {
                let parsed = base.parse(&sql)?.pop().ok_or_else(|| SqlError::syntax("no option"))?;
                let prepared = base.prepare(&parsed, &[]).await?;
                base.execute(&prepared, Vec::new()).await
            };
            if let Err(e) = outcome.await {
                let value = if e.state.0 == "42704" { INVALID_NAME } else { INVALID_VALUE };
                errors.insert(name, OptionError { value });
            }
        }
        Ok(SetSessionOptionsResult { errors }.encode_to_vec())
    }

    async fn options(&self, request: &Request<Action>) -> Result<Vec<u8>, Status> {
        let session = self.0.sessions.of(request)?;
        let base = session.base().await;
        let named = [("schema", "search_path"), ("TimeZone", "TimeZone"), ("statement_timeout", "statement_timeout")];
        let option = |text: String| SessionOptionValue { option_value: Some(OptionValue::Text(text)) };
        let session_options = (named.into_iter())
            .filter_map(|(name, setting)| Some((name.to_owned(), option(base.setting(setting)?))))
            .collect();
        Ok(GetSessionOptionsResult { session_options }.encode_to_vec())
    }
}

fn malformed(e: prost::DecodeError) -> Status {
    Status::invalid_argument(format!("the action's body cannot be read: {e} (SQLSTATE 08P01)"))
}

fn option_text(value: &OptionValue) -> String {
    match value {
        OptionValue::Text(text) => text.clone(),
        OptionValue::Bool(b) => b.to_string(),
        OptionValue::Int(n) => n.to_string(),
        OptionValue::Double(x) => x.to_string(),
        OptionValue::List(list) => list.values.join(", "),
    }
}

#[tonic::async_trait]
impl FlightService for Front {
    type HandshakeStream = <Service as FlightService>::HandshakeStream;
    type ListFlightsStream = <Service as FlightService>::ListFlightsStream;
    type DoGetStream = <Service as FlightService>::DoGetStream;
    type DoPutStream = <Service as FlightService>::DoPutStream;
    type DoActionStream = <Service as FlightService>::DoActionStream;
    type ListActionsStream = <Service as FlightService>::ListActionsStream;
    type DoExchangeStream = <Service as FlightService>::DoExchangeStream;

    async fn handshake(&self, request: Request<Streaming<HandshakeRequest>>) -> Reply<Self::HandshakeStream> {
        self.0.handshake(request).await
    }

    async fn list_flights(&self, request: Request<Criteria>) -> Reply<Self::ListFlightsStream> {
        self.0.list_flights(request).await
    }

    async fn get_flight_info(&self, request: Request<FlightDescriptor>) -> Reply<FlightInfo> {
        self.0.get_flight_info(request).await
    }

    async fn poll_flight_info(&self, request: Request<FlightDescriptor>) -> Reply<PollInfo> {
        self.0.poll_flight_info(request).await
    }

    /// Plans and does not run. For metadata commands it is the schema of their FlightInfo.
    async fn get_schema(&self, request: Request<FlightDescriptor>) -> Reply<SchemaResult> {
        let options = IpcWriteOptions::default();
        let schema = match self.0.describe(&request).await? {
            Some(statement) => statement.schema().as_ref().clone(),
            None => self.0.get_flight_info(request).await?.into_inner().try_decode_schema().map_err(internal)?,
        };
        Ok(Response::new(SchemaAsIpc::new(&schema, &options).try_into().map_err(internal)?))
    }

    async fn do_get(&self, request: Request<Ticket>) -> Reply<Self::DoGetStream> {
        self.0.do_get(request).await
    }

    async fn do_put(&self, request: Request<Streaming<FlightData>>) -> Reply<Self::DoPutStream> {
        self.0.do_put(request).await
    }

    async fn do_action(&self, request: Request<Action>) -> Reply<Self::DoActionStream> {
        let body = match request.get_ref().r#type.as_str() {
            CANCEL_FLIGHT_INFO => {
                let wanted = CancelFlightInfoRequest::decode(&*request.get_ref().body).map_err(malformed)?;
                self.0.cancel(&request, &wanted.info.unwrap_or_default())?;
                CancelFlightInfoResult { status: CancelStatus::Cancelled as i32 }.encode_to_vec()
            }
            SET_SESSION_OPTIONS => self.set_options(&request).await?,
            GET_SESSION_OPTIONS => self.options(&request).await?,
            CLOSE_SESSION => {
                let session = self.0.sessions.of(&request)?;
                self.0.sessions.close(&session);
                CloseSessionResult { status: CLOSED }.encode_to_vec()
            }
            _ => return self.0.do_action(request).await,
        };
        Ok(Response::new(Box::pin(futures::stream::iter([Ok(arrow_flight::Result { body: body.into() })]))))
    }

    async fn list_actions(&self, _: Request<Empty>) -> Reply<Self::ListActionsStream> {
        let action = |(name, description): &(&str, &str)| {
            Ok(ActionType { r#type: (*name).to_owned(), description: (*description).to_owned() })
        };
        Ok(Response::new(Box::pin(futures::stream::iter(ACTIONS.iter().map(action)))))
    }

    async fn do_exchange(&self, _: Request<Streaming<FlightData>>) -> Reply<Self::DoExchangeStream> {
        Err(status(SqlError::unsupported("DoExchange is not supported")))
    }
}

// Flight.proto, "Session Management". arrow-flight does not have these messages yet.

#[derive(Clone, PartialEq, prost::Message)]
struct SetSessionOptionsRequest {
    #[prost(map = "string, message", tag = "1")]
    session_options: HashMap<String, SessionOptionValue>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct SetSessionOptionsResult {
    #[prost(map = "string, message", tag = "1")]
    errors: HashMap<String, OptionError>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct OptionError {
    #[prost(int32, tag = "1")]
    value: i32,
}

const INVALID_NAME: i32 = 1;
const INVALID_VALUE: i32 = 2;

#[derive(Clone, PartialEq, prost::Message)]
struct GetSessionOptionsResult {
    #[prost(map = "string, message", tag = "1")]
    session_options: HashMap<String, SessionOptionValue>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct CloseSessionResult {
    #[prost(int32, tag = "1")]
    status: i32,
}

const CLOSED: i32 = 1;

#[derive(Clone, PartialEq, prost::Message)]
struct SessionOptionValue {
    #[prost(oneof = "OptionValue", tags = "1, 2, 3, 4, 5")]
    option_value: Option<OptionValue>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum OptionValue {
    #[prost(string, tag = "1")]
    Text(String),
    #[prost(bool, tag = "2")]
    Bool(bool),
    #[prost(sfixed64, tag = "3")]
    Int(i64),
    #[prost(double, tag = "4")]
    Double(f64),
    #[prost(message, tag = "5")]
    List(StringList),
}

#[derive(Clone, PartialEq, prost::Message)]
struct StringList {
    #[prost(string, repeated, tag = "1")]
    values: Vec<String>,
}
