use std::fmt;

use arrow::error::ArrowError;
use datafusion::common::SchemaError;
use datafusion::error::DataFusionError;
use sqlparser::tokenizer::Location;
use tidewater_catalogs::{Error, ErrorKind};

use crate::dialect::ParsedStatement;

pub type Result<T, E = SqlError> = std::result::Result<T, E>;

/// A five-character SQLSTATE, PostgreSQL appendix A.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SqlState(pub &'static str);

impl SqlState {
    pub const SUCCESS: Self = Self("00000");
    pub const WARNING: Self = Self("01000");
    pub const PROTOCOL_VIOLATION: Self = Self("08P01");
    pub const NOT_SUPPORTED: Self = Self("0A000");
    pub const CARDINALITY_VIOLATION: Self = Self("21000");
    pub const DATA_EXCEPTION: Self = Self("22000");
    pub const STRING_TRUNCATION: Self = Self("22001");
    pub const NUMERIC_OUT_OF_RANGE: Self = Self("22003");
    pub const INVALID_DATETIME: Self = Self("22007");
    pub const DATETIME_OVERFLOW: Self = Self("22008");
    pub const DIVISION_BY_ZERO: Self = Self("22012");
    pub const INVALID_PARAMETER: Self = Self("22023");
    pub const INVALID_TEXT: Self = Self("22P02");
    pub const INVALID_REGEX: Self = Self("2201B");
    pub const NOT_NULL_VIOLATION: Self = Self("23502");
    pub const ACTIVE_TRANSACTION: Self = Self("25001");
    pub const READ_ONLY_TRANSACTION: Self = Self("25006");
    pub const NO_ACTIVE_TRANSACTION: Self = Self("25P01");
    pub const FAILED_TRANSACTION: Self = Self("25P02");
    pub const INVALID_STATEMENT_NAME: Self = Self("26000");
    pub const DEPENDENT_OBJECTS: Self = Self("2BP01");
    pub const SAVEPOINT_EXCEPTION: Self = Self("3B001");
    pub const UNDEFINED_DATABASE: Self = Self("3D000");
    pub const UNDEFINED_SCHEMA: Self = Self("3F000");
    pub const SERIALIZATION_FAILURE: Self = Self("40001");
    pub const COMPLETION_UNKNOWN: Self = Self("40003");
    pub const INSUFFICIENT_PRIVILEGE: Self = Self("42501");
    pub const SYNTAX_ERROR: Self = Self("42601");
    pub const DUPLICATE_COLUMN: Self = Self("42701");
    pub const AMBIGUOUS_COLUMN: Self = Self("42702");
    pub const UNDEFINED_COLUMN: Self = Self("42703");
    pub const UNDEFINED_OBJECT: Self = Self("42704");
    pub const DUPLICATE_OBJECT: Self = Self("42710");
    pub const DUPLICATE_ALIAS: Self = Self("42712");
    pub const GROUPING_ERROR: Self = Self("42803");
    pub const TYPE_MISMATCH: Self = Self("42804");
    pub const WRONG_OBJECT_TYPE: Self = Self("42809");
    pub const CANNOT_COERCE: Self = Self("42846");
    pub const UNDEFINED_FUNCTION: Self = Self("42883");
    pub const RESERVED_NAME: Self = Self("42939");
    pub const UNDEFINED_TABLE: Self = Self("42P01");
    pub const UNDEFINED_PARAMETER: Self = Self("42P02");
    pub const DUPLICATE_SCHEMA: Self = Self("42P06");
    pub const DUPLICATE_TABLE: Self = Self("42P07");
    pub const INVALID_COLUMN_REFERENCE: Self = Self("42P10");
    pub const INVALID_OBJECT_DEFINITION: Self = Self("42P17");
    pub const INDETERMINATE_TYPE: Self = Self("42P18");
    pub const DISK_FULL: Self = Self("53100");
    pub const OUT_OF_MEMORY: Self = Self("53200");
    pub const PROGRAM_LIMIT_EXCEEDED: Self = Self("54000");
    pub const TOO_COMPLEX: Self = Self("54001");
    pub const NOT_IN_PREREQUISITE_STATE: Self = Self("55000");
    pub const QUERY_CANCELED: Self = Self("57014");
    pub const ADMIN_SHUTDOWN: Self = Self("57P01");
    pub const IO_ERROR: Self = Self("58030");
    pub const DATA_CORRUPTED: Self = Self("XX001");
    pub const INTERNAL: Self = Self("XX000");

    pub fn as_str(self) -> &'static str {
        self.0
    }
}

/// What a client sees.
#[derive(Debug, Clone)]
pub struct SqlError {
    pub state: SqlState,
    pub message: String,
    pub detail: Option<String>,
    pub hint: Option<String>,
    /// 1-based offset in characters into the text that was sent.
    pub position: Option<usize>,
}

impl SqlError {
    pub fn new(state: SqlState, message: impl Into<String>) -> Self {
        Self { state, message: message.into(), detail: None, hint: None, position: None }
    }
    pub fn unsupported(message: impl Into<String>) -> Self {
        Self::new(SqlState::NOT_SUPPORTED, message)
    }
    pub fn syntax(message: impl Into<String>) -> Self {
        Self::new(SqlState::SYNTAX_ERROR, message)
    }
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(SqlState::INTERNAL, message)
    }
    pub fn undefined_table(name: impl fmt::Display) -> Self {
        Self::new(SqlState::UNDEFINED_TABLE, format!("relation \"{name}\" does not exist"))
    }
    pub fn undefined_column(name: impl fmt::Display) -> Self {
        Self::new(SqlState::UNDEFINED_COLUMN, format!("column \"{name}\" does not exist"))
    }
    pub fn cancelled() -> Self {
        Self::new(SqlState::QUERY_CANCELED, "canceling statement due to user request")
    }
    pub fn shutting_down() -> Self {
        Self::new(SqlState::ADMIN_SHUTDOWN, "the server is shutting down").with_hint("Connect again when it is back.")
    }
    pub fn timed_out() -> Self {
        Self::new(SqlState::QUERY_CANCELED, "canceling statement due to statement timeout")
    }

    #[must_use]
    pub fn with_detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
    /// 1-based, in characters of the text that was sent.
    #[must_use]
    pub fn at(mut self, position: usize) -> Self {
        self.position = Some(position);
        self
    }
    /// The error of planning a statement, with the place in its text where the planner knows one.
    pub(crate) fn planning(e: &DataFusionError, statement: Option<&ParsedStatement>) -> Self {
        let mut error = Self::from(e);
        if error.position.is_none() {
            error.position = location(e).zip(statement).and_then(|(at, s)| s.position(at));
        }
        error
    }
}

/// Where the innermost diagnostic points.
fn location(e: &DataFusionError) -> Option<Location> {
    match e {
        DataFusionError::Diagnostic(diagnostic, inner) => location(inner)
            .or_else(|| diagnostic.span.map(|span| Location { line: span.start.line, column: span.start.column })),
        DataFusionError::Context(_, inner) => location(inner),
        DataFusionError::Shared(inner) => location(inner),
        DataFusionError::Collection(errors) => errors.first().and_then(location),
        _ => None,
    }
}

impl fmt::Display for SqlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for SqlError {}

impl From<SqlError> for DataFusionError {
    /// Kept whole, for streams; comes back as itself.
    fn from(e: SqlError) -> Self {
        Self::External(Box::new(e))
    }
}

impl From<SqlError> for Error {
    /// For flows, whose queries are planned here and run below.
    fn from(e: SqlError) -> Self {
        let kind = match e.state {
            SqlState::NOT_SUPPORTED => ErrorKind::Unsupported,
            SqlState::OUT_OF_MEMORY => ErrorKind::ResourcesExhausted,
            SqlState::QUERY_CANCELED => ErrorKind::Cancelled,
            SqlState::IO_ERROR => ErrorKind::Unavailable,
            SqlState::SERIALIZATION_FAILURE => ErrorKind::Conflict,
            SqlState::COMPLETION_UNKNOWN => ErrorKind::CommitUnknown,
            SqlState::INSUFFICIENT_PRIVILEGE => ErrorKind::PermissionDenied,
            SqlState::DATA_CORRUPTED => ErrorKind::DataCorrupt,
            SqlState::UNDEFINED_TABLE | SqlState::UNDEFINED_OBJECT | SqlState::UNDEFINED_SCHEMA => ErrorKind::NotFound,
            s if s.0.starts_with("XX") => ErrorKind::Internal,
            _ => ErrorKind::InvalidInput,
        };
        let mut out = Error::new(kind, e.message);
        if let Some(detail) = e.detail {
            out = out.with_detail(detail);
        }
        if let Some(hint) = e.hint {
            out = out.with_hint(hint);
        }
        out
    }
}

impl From<Error> for SqlError {
    fn from(e: Error) -> Self {
        Self::from(&e)
    }
}

impl From<&Error> for SqlError {
    fn from(e: &Error) -> Self {
        // The error of a query that ran below is better described by its source.
        if e.kind() == ErrorKind::Internal
            && let Some(inner) = std::error::Error::source(e).and_then(known)
        {
            return inner;
        }
        let state = match e.kind() {
            ErrorKind::InvalidInput => SqlState::INVALID_PARAMETER,
            ErrorKind::NotFound => SqlState::UNDEFINED_OBJECT,
            ErrorKind::AlreadyExists => SqlState::DUPLICATE_OBJECT,
            ErrorKind::Unsupported => SqlState::NOT_SUPPORTED,
            ErrorKind::PermissionDenied => SqlState::INSUFFICIENT_PRIVILEGE,
            ErrorKind::DataCorrupt => SqlState::DATA_CORRUPTED,
            ErrorKind::DataLoss | ErrorKind::SourceReplaced => SqlState::NOT_IN_PREREQUISITE_STATE,
            ErrorKind::Unavailable => SqlState::IO_ERROR,
            ErrorKind::Conflict => SqlState::SERIALIZATION_FAILURE,
            ErrorKind::Ambiguous => SqlState::CARDINALITY_VIOLATION,
            ErrorKind::CommitUnknown => SqlState::COMPLETION_UNKNOWN,
            ErrorKind::ResourcesExhausted => SqlState::OUT_OF_MEMORY,
            ErrorKind::Cancelled => SqlState::QUERY_CANCELED,
            ErrorKind::Internal => SqlState::INTERNAL,
        };
        let mut message = e.message().to_owned();
        for (i, (key, value)) in e.context().iter().enumerate() {
            message.push_str(if i == 0 { " (" } else { ", " });
            message.push_str(key);
            message.push_str(": ");
            message.push_str(value);
        }
        if !e.context().is_empty() {
            message.push(')');
        }
        let mut detail = e.detail().map(str::to_owned);
        if let (None, Some(source)) = (&detail, std::error::Error::source(e)) {
            detail = Some(source.to_string());
        }
        Self { state, message, detail, hint: e.hint().map(str::to_owned), position: None }
    }
}

/// An error that another one carries, where it is of a kind that is known here.
fn known(inner: &(dyn std::error::Error + 'static)) -> Option<SqlError> {
    if let Some(ours) = inner.downcast_ref::<SqlError>() {
        return Some(ours.clone());
    }
    inner
        .downcast_ref::<Error>()
        .map(SqlError::from)
        .or_else(|| inner.downcast_ref::<DataFusionError>().map(SqlError::from))
        .or_else(|| inner.downcast_ref::<ArrowError>().map(SqlError::from))
}

fn boxed(inner: &(dyn std::error::Error + Send + Sync + 'static)) -> SqlError {
    known(inner).unwrap_or_else(|| unknown(&inner.to_string()))
}

fn unknown(text: &str) -> SqlError {
    match text.find("regex parse error") {
        Some(at) => SqlError::new(SqlState::INVALID_REGEX, "invalid regular expression")
            .with_detail(text[at..].lines().last().unwrap_or_default().trim())
            .with_hint("Look-around, back references, and the escapes \\m, \\M and \\y are not supported."),
        None => SqlError::internal(text),
    }
}

impl From<DataFusionError> for SqlError {
    fn from(e: DataFusionError) -> Self {
        Self::from(&e)
    }
}

impl From<&DataFusionError> for SqlError {
    fn from(e: &DataFusionError) -> Self {
        use DataFusionError as D;
        if let D::NotImplemented(text) | D::Internal(text) | D::Plan(text) | D::Execution(text) = e
            && let Some(unsupported) = crate::plan::message::unknown_form(text)
        {
            return unsupported;
        }
        match e {
            D::ArrowError(inner, _) => Self::from(inner.as_ref()),
            D::ParquetError(inner) => {
                Self::new(SqlState::DATA_CORRUPTED, "a data file cannot be read").with_detail(inner.to_string())
            }
            D::ObjectStore(inner) => {
                Self::new(SqlState::IO_ERROR, "storage cannot be read").with_detail(inner.to_string())
            }
            D::IoError(inner) if inner.kind() == std::io::ErrorKind::StorageFull => {
                Self::new(SqlState::DISK_FULL, inner.to_string())
            }
            D::IoError(inner) => Self::new(SqlState::IO_ERROR, inner.to_string()),
            D::SQL(inner, _) => parser_error(inner),
            D::NotImplemented(message) => crate::plan::message::not_implemented(message),
            D::Internal(message) if message.contains("regex parse error") => unknown(message),
            D::Internal(message) => Self::internal(first_line(message)),
            D::Plan(message) => crate::plan::message::plan_error(message),
            D::Configuration(message) => Self::new(SqlState::INVALID_PARAMETER, first_line(message)),
            D::SchemaError(inner, _) => schema_error(inner),
            D::Execution(message) => crate::plan::message::execution_error(message),
            D::ExecutionJoin(inner) if inner.is_cancelled() => Self::cancelled(),
            D::ExecutionJoin(inner) => Self::internal("a task of the query broke off").with_detail(inner.to_string()),
            D::ResourcesExhausted(message) => Self::new(SqlState::OUT_OF_MEMORY, "out of memory")
                .with_detail(first_line(message))
                .with_hint("Ask for less at once, or raise the memory limit of queries."),
            D::External(inner) => boxed(inner.as_ref()),
            D::Context(_, inner) => Self::from(inner.as_ref()),
            D::Substrait(message) => Self::internal(first_line(message)),
            D::Diagnostic(_, inner) => Self::from(inner.as_ref()),
            D::Collection(errors) => match errors.first() {
                Some(first) => Self::from(first),
                None => Self::internal("query failed"),
            },
            D::Shared(inner) => Self::from(inner.as_ref()),
            D::Ffi(message) => Self::internal(first_line(message)),
        }
    }
}

impl From<ArrowError> for SqlError {
    fn from(e: ArrowError) -> Self {
        Self::from(&e)
    }
}

impl From<&ArrowError> for SqlError {
    fn from(e: &ArrowError) -> Self {
        use ArrowError as A;
        match e {
            A::NotYetImplemented(message) => Self::unsupported(first_line(message)),
            A::ExternalError(inner) => boxed(inner.as_ref()),
            A::DivideByZero => Self::new(SqlState::DIVISION_BY_ZERO, "division by zero"),
            A::ArithmeticOverflow(message) => {
                Self::new(SqlState::NUMERIC_OUT_OF_RANGE, "value out of range").with_detail(first_line(message))
            }
            A::CastError(message) | A::ParseError(message) => crate::plan::message::cast_error(message),
            A::ComputeError(message) | A::InvalidArgumentError(message) => {
                crate::plan::message::execution_error(message)
            }
            A::OffsetOverflowError(_) | A::DictionaryKeyOverflowError | A::RunEndIndexOverflowError => {
                Self::new(SqlState::TOO_COMPLEX, "a batch of the query is too large").with_detail(e.to_string())
            }
            A::IoError(message, _) => Self::new(SqlState::IO_ERROR, first_line(message)),
            A::MemoryError(message) => Self::new(SqlState::OUT_OF_MEMORY, first_line(message)),
            A::SchemaError(_)
            | A::CsvError(_)
            | A::JsonError(_)
            | A::AvroError(_)
            | A::IpcError(_)
            | A::ParquetError(_)
            | A::CDataInterface(_) => Self::internal(e.to_string()),
        }
    }
}

fn parser_error(e: &sqlparser::parser::ParserError) -> SqlError {
    use sqlparser::parser::ParserError as P;
    match e {
        P::TokenizerError(message) | P::ParserError(message) => SqlError::syntax(first_line(message)),
        P::RecursionLimitExceeded => SqlError::new(SqlState::TOO_COMPLEX, "statement is nested too deeply"),
    }
}

fn schema_error(e: &SchemaError) -> SqlError {
    match e {
        SchemaError::AmbiguousReference { field } => {
            let name = match &field.relation {
                Some(_) => field.flat_name(),
                None => field.name.clone(),
            };
            SqlError::new(SqlState::AMBIGUOUS_COLUMN, format!("column reference \"{name}\" is ambiguous"))
        }
        SchemaError::DuplicateQualifiedField { name, .. } | SchemaError::DuplicateUnqualifiedField { name } => {
            SqlError::new(SqlState::DUPLICATE_COLUMN, format!("column \"{name}\" specified more than once"))
        }
        SchemaError::FieldNotFound { field, .. } => match &field.relation {
            Some(relation) => SqlError::new(
                SqlState::UNDEFINED_COLUMN,
                format!("column {}.{} does not exist", relation.table(), field.name),
            ),
            None => SqlError::undefined_column(&field.name),
        },
    }
}

/// Messages of the libraries carry back traces and advice to report bugs after the first line.
pub(crate) fn first_line(message: &str) -> String {
    message.lines().next().unwrap_or_default().trim_end_matches('.').to_owned()
}
