//! SQL errors as gRPC statuses. The SQLSTATE stands in the message, where every driver shows it, and in the trailer
//! `x-sqlstate`, where a program finds it.

use arrow_flight::error::FlightError;
use tidewater_sql::{SqlError, SqlState};
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code, Status};

pub(super) const SQLSTATE_TRAILER: &str = "x-sqlstate";

pub(super) fn status(e: SqlError) -> Status {
    let mut message = format!("{} (SQLSTATE {}", e.message, e.state.0);
    if let Some(position) = e.position {
        message.push_str(&format!(", at character {position}"));
    }
    message.push(')');
    for (label, text) in [("DETAIL", &e.detail), ("HINT", &e.hint)] {
        if let Some(text) = text {
            message.push_str(&format!("\n{label}: {text}"));
        }
    }
    let mut trailers = MetadataMap::new();
    trailers.insert(SQLSTATE_TRAILER, MetadataValue::from_static(e.state.0));
    Status::with_metadata(code(&e), message, trailers)
}

fn code(e: &SqlError) -> Code {
    if e.state == SqlState::QUERY_CANCELED {
        return if e.message == SqlError::timed_out().message { Code::DeadlineExceeded } else { Code::Cancelled };
    }
    match e.state.0 {
        "42501" => Code::PermissionDenied,
        "42P01" | "42704" | "42883" | "3D000" | "3F000" | "26000" => Code::NotFound,
        "42P06" | "42P07" | "42710" => Code::AlreadyExists,
        "40003" => Code::Unknown,
        "57P01" | "57P03" => Code::Unavailable,
        state => match &state[..2] {
            "28" => Code::Unauthenticated,
            "0A" => Code::Unimplemented,
            "40" => Code::Aborted,
            "53" | "54" => Code::ResourceExhausted,
            "55" | "25" | "23" | "2B" => Code::FailedPrecondition,
            "08" => Code::Unavailable,
            "42" | "22" | "21" | "3B" => Code::InvalidArgument,
            _ => Code::Internal,
        },
    }
}

/// As an error of a stream of batches.
pub(super) fn flight_error(e: datafusion::error::DataFusionError) -> FlightError {
    FlightError::Tonic(Box::new(status(SqlError::from(e))))
}

pub(super) fn internal(e: impl std::fmt::Display) -> Status {
    status(SqlError::internal(e.to_string()))
}

pub(super) fn unsupported(what: &str) -> Status {
    status(SqlError::unsupported(format!("{what} is not supported over Flight SQL")))
}
