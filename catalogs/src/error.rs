use std::fmt;

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What the reader of an error should do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// Fix the statement or the option: a value is out of its range or not understood.
    InvalidInput,
    /// Fix the name: no such table, stream, schema, connection, topic …
    NotFound,
    /// Choose another name, or say IF NOT EXISTS.
    AlreadyExists,
    /// Write it another way: the product does not do this.
    Unsupported,
    /// Mend the rights or the password.
    PermissionDenied,
    /// Repair the data: bytes that cannot be read as what they claim to be.
    DataCorrupt,
    /// Decide what to do about the gap: the source no longer holds what was to be read next.
    DataLoss,
    /// Decide what to do about the source: the topic is not the one that was read before.
    SourceReplaced,
    /// Wait, or retry: something outside does not answer.
    Unavailable,
    /// Retry on the new state: someone else committed first, and nothing of ours was applied.
    Conflict,
    /// Fix the statement: it says two things of one row.
    Ambiguous,
    /// Re-read the table, then decide: the answer to a commit was lost.
    CommitUnknown,
    /// Raise the limit or ask for less.
    ResourcesExhausted,
    /// The statement was cancelled or timed out.
    Cancelled,
    /// Report it: a bug of ours.
    Internal,
}

/// The error of every crate below `catalogs`. It crosses crate borders as it is, kind included.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    message: String,
    detail: Option<String>,
    hint: Option<String>,
    context: Vec<(&'static str, String)>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), detail: None, hint: None, context: Vec::new(), source: None }
    }
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidInput, message)
    }
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::NotFound, message)
    }
    pub fn unsupported(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unsupported, message)
    }
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unavailable, message)
    }
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, message)
    }

    /// A full sentence with more of what happened.
    #[must_use]
    pub fn with_detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }
    /// The next step, as a full sentence.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
    #[must_use]
    pub fn with_context(mut self, key: &'static str, value: impl fmt::Display) -> Self {
        self.context.push((key, value.to_string()));
        self
    }
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    pub fn kind(&self) -> ErrorKind {
        self.kind
    }
    /// Short, lower case, no full stop; without context and source.
    pub fn message(&self) -> &str {
        &self.message
    }
    pub fn detail(&self) -> Option<&str> {
        self.detail.as_deref()
    }
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }
    pub fn context(&self) -> &[(&'static str, String)] {
        &self.context
    }
    /// The same error once more, without its source, for those who have it only by reference.
    #[must_use]
    pub fn duplicate(&self) -> Self {
        Self {
            kind: self.kind,
            message: self.message.clone(),
            detail: self.detail.clone(),
            hint: self.hint.clone(),
            context: self.context.clone(),
            source: self.source.as_ref().map(|source| source.to_string().into()),
        }
    }
    /// True where trying the same again later may work.
    pub fn is_retryable(&self) -> bool {
        matches!(self.kind, ErrorKind::Unavailable | ErrorKind::Conflict | ErrorKind::CommitUnknown)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        for (i, (key, value)) in self.context.iter().enumerate() {
            write!(f, "{}{key}: {value}", if i == 0 { " (" } else { ", " })?;
        }
        if !self.context.is_empty() {
            f.write_str(")")?;
        }
        if let Some(source) = &self.source {
            write!(f, ": {source}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|e| e as &(dyn std::error::Error + 'static))
    }
}

impl From<Error> for datafusion::error::DataFusionError {
    /// Kept whole, so that the kind can be found again by downcasting on the other side.
    fn from(e: Error) -> Self {
        datafusion::error::DataFusionError::External(Box::new(e))
    }
}

impl From<arrow::error::ArrowError> for Error {
    /// What travelled through arrow comes back as itself.
    fn from(e: arrow::error::ArrowError) -> Self {
        match e {
            arrow::error::ArrowError::ExternalError(inner) => match inner.downcast::<Error>() {
                Ok(ours) => *ours,
                Err(other) => match other.downcast::<datafusion::error::DataFusionError>() {
                    Ok(inner) => Error::from(*inner),
                    Err(other) => Error::internal("arrow computation failed").with_source(other),
                },
            },
            e => Error::internal("arrow computation failed").with_source(e),
        }
    }
}

impl From<datafusion::error::DataFusionError> for Error {
    /// An [`Error`] that travelled through DataFusion comes back as itself; what DataFusion says about memory
    /// keeps its kind; all else is internal.
    fn from(e: datafusion::error::DataFusionError) -> Self {
        use datafusion::error::DataFusionError as D;
        match e {
            D::External(inner) => match inner.downcast::<Error>() {
                Ok(ours) => *ours,
                Err(other) => Error::internal("query failed").with_source(other),
            },
            D::Context(_, inner) => Error::from(*inner),
            // Operators with several inputs or outputs hand one error to all of them.
            D::Shared(shared) => match std::sync::Arc::try_unwrap(shared) {
                Ok(inner) => Error::from(inner),
                Err(shared) => match shared.find_root() {
                    D::External(inner) => match inner.downcast_ref::<Error>() {
                        Some(ours) => ours.duplicate(),
                        None => Error::internal("query failed").with_source(shared.to_string()),
                    },
                    D::ResourcesExhausted(m) => Error::new(ErrorKind::ResourcesExhausted, m.clone()),
                    D::NotImplemented(m) => Error::unsupported(m.clone()),
                    other => Error::internal("query failed").with_source(other.to_string()),
                },
            },
            D::ArrowError(inner, _) => Error::from(*inner),
            D::ResourcesExhausted(m) => Error::new(ErrorKind::ResourcesExhausted, m),
            D::NotImplemented(m) => Error::unsupported(m),
            other => Error::internal("query failed").with_source(other),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use std::sync::Arc;

    use datafusion::error::DataFusionError;

    use super::*;

    #[test]
    fn the_kind_survives_datafusion() {
        let error = || Error::new(ErrorKind::DataLoss, "gone").with_context("partition", 3).with_hint("Look.");
        let plain = DataFusionError::from(error());
        let deep = DataFusionError::Context("here".into(), Box::new(DataFusionError::from(error())));
        let shared = Arc::new(DataFusionError::from(error()).context("there"));
        let held = DataFusionError::Shared(shared.clone());
        let alone = DataFusionError::Shared(Arc::new(DataFusionError::from(error())));
        let arrow = DataFusionError::from(arrow::error::ArrowError::from_external_error(Box::new(error())));
        for e in [plain, deep, held, alone, arrow] {
            let back = Error::from(e);
            assert_eq!((back.kind(), back.to_string().as_str()), (ErrorKind::DataLoss, "gone (partition: 3)"));
            assert_eq!(back.hint(), Some("Look."));
        }
        drop(shared);
    }
}
