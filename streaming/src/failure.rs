//! Why a flow stopped, and what the supervisor does about it.

use tidewater_catalogs::{Error, ErrorDomain, ErrorKind, FlowErrorInfo};

pub(crate) type FlowResult<T> = Result<T, Failure>;

/// An error that ends one run of a flow. It restarts by itself where waiting may help.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) code: &'static str,
    pub(crate) domain: ErrorDomain,
    pub(crate) restarts: bool,
    pub(crate) error: Box<Error>,
}

pub(crate) const FENCED: &str = "FENCED";
/// Not a failure: the stored definition says that the flow rests.
pub(crate) const PAUSED_ELSEWHERE: &str = "PAUSED";

impl Failure {
    /// Another writer of this flow committed. It waits and watches before it tries again, once.
    pub(crate) fn fenced(table: &str, by: &tidewater_catalogs::Anchor) -> Self {
        let error = Error::new(ErrorKind::Conflict, format!("another writer keeps {table}"))
            .with_context("seq", by.seq)
            .with_context("epoch", by.epoch)
            .with_hint("Run this flow in one server only: stop the other, then say ALTER FLOW … RESUME here.");
        Self { code: FENCED, domain: ErrorDomain::External, restarts: true, error: Box::new(error) }
    }

    pub(crate) fn paused() -> Self {
        let error = Error::new(ErrorKind::Cancelled, "the flow is paused");
        Self { code: PAUSED_ELSEWHERE, domain: ErrorDomain::User, restarts: false, error: Box::new(error) }
    }

    pub(crate) fn anchor_lost(table: &str, why: impl Into<String>) -> Self {
        let error = Error::new(ErrorKind::Conflict, format!("the position kept in {table} is lost"))
            .with_detail(why)
            .with_hint("Restore the table to the state the flow left it in, or drop and create the streaming table.");
        Self { code: "ANCHOR_LOST", domain: ErrorDomain::User, restarts: false, error: Box::new(error) }
    }

    pub(crate) fn table_gone(table: &str) -> Self {
        let error = Error::not_found(format!("{table} was dropped"))
            .with_hint("Drop the flow, or create the table again and resume it.");
        Self { code: "TABLE_GONE", domain: ErrorDomain::User, restarts: false, error: Box::new(error) }
    }

    /// A record that cannot be read, or that the query or the table cannot take. Trying again gives the same, so a
    /// person must look.
    pub(crate) fn of_record(error: Error) -> Self {
        match error.kind() {
            ErrorKind::InvalidInput | ErrorKind::DataCorrupt => {
                Self { code: "POISON", domain: ErrorDomain::User, restarts: false, error: Box::new(error) }
            }
            _ => error.into(),
        }
    }

    /// The topic was read before, and is not there however often one looks.
    pub(crate) fn topic_gone(error: Error) -> Self {
        let error = error.with_hint(
            "Resume the flow when the topic is back; for a topic made anew, create the streaming table anew.",
        );
        Self { code: "TOPIC_GONE", domain: ErrorDomain::External, restarts: false, error: Box::new(error) }
    }

    /// The catalog or the table refuses the commit, and would refuse it again. Only a full disk may have room later,
    /// and a bug may not show twice.
    pub(crate) fn refused(error: Error) -> Self {
        let restarts = matches!(error.kind(), ErrorKind::Internal | ErrorKind::ResourcesExhausted);
        Self { code: "COMMIT_REFUSED", domain: ErrorDomain::External, restarts, error: Box::new(error) }
    }

    pub(crate) fn checkpoint(error: Error) -> Self {
        Self { code: "CHECKPOINT_LOST", domain: ErrorDomain::External, restarts: false, error: Box::new(error) }
    }

    pub(crate) fn info(&self, at_ms: i64) -> FlowErrorInfo {
        info(self.code, self.domain, &self.error, at_ms)
    }
}

fn info(code: &str, domain: ErrorDomain, error: &Error, at_ms: i64) -> FlowErrorInfo {
    let mut message = error.to_string();
    if let Some(detail) = error.detail() {
        message.push_str(": ");
        message.push_str(detail);
    }
    FlowErrorInfo { domain, code: code.to_owned(), message, hint: error.hint().map(str::to_owned), at_ms }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        use ErrorDomain::{External, Internal, User};
        let (code, domain, restarts) = match error.kind() {
            ErrorKind::DataLoss => ("DATA_LOSS", External, false),
            ErrorKind::SourceReplaced => ("TOPIC_REPLACED", External, false),
            ErrorKind::DataCorrupt => ("DATA_CORRUPT", External, false),
            ErrorKind::InvalidInput | ErrorKind::Ambiguous => ("INVALID_INPUT", User, false),
            ErrorKind::NotFound => ("NOT_FOUND", User, false),
            ErrorKind::AlreadyExists => ("ALREADY_EXISTS", User, false),
            ErrorKind::Unsupported => ("UNSUPPORTED", User, false),
            ErrorKind::PermissionDenied => ("PERMISSION_DENIED", User, false),
            ErrorKind::Unavailable => ("UNAVAILABLE", External, true),
            ErrorKind::Conflict => ("CONFLICT", External, true),
            ErrorKind::CommitUnknown => ("COMMIT_UNKNOWN", External, true),
            ErrorKind::ResourcesExhausted => ("RESOURCES_EXHAUSTED", User, true),
            ErrorKind::Cancelled => ("CANCELLED", Internal, true),
            ErrorKind::Internal => ("INTERNAL", Internal, true),
        };
        Self { code, domain, restarts, error: Box::new(error) }
    }
}

/// Trouble that a step waits out by itself, for the status of a flow that goes on.
pub(crate) fn trouble(error: &Error, at_ms: i64) -> FlowErrorInfo {
    info("UNAVAILABLE", ErrorDomain::External, error, at_ms)
}
