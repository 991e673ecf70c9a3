use tidewater_catalogs::{Error, ErrorKind};

/// What the `iceberg` crate says, in our kinds. `what` is a lower-case fragment: "read manifest list".
pub(crate) fn iceberg(what: &str, e: iceberg::Error) -> Error {
    use iceberg::ErrorKind as K;
    let kind = match e.kind() {
        K::DataInvalid => ErrorKind::DataCorrupt,
        K::FeatureUnsupported => ErrorKind::Unsupported,
        K::TableNotFound | K::NamespaceNotFound => ErrorKind::NotFound,
        K::TableAlreadyExists | K::NamespaceAlreadyExists => ErrorKind::AlreadyExists,
        K::CatalogCommitConflicts => ErrorKind::Conflict,
        _ => ErrorKind::Internal,
    };
    Error::new(kind, format!("cannot {what}")).with_source(e)
}

pub(crate) fn io(what: &str, path: &std::path::Path, e: std::io::Error) -> Error {
    use std::io::ErrorKind as K;
    let kind = match e.kind() {
        K::NotFound => ErrorKind::NotFound,
        K::AlreadyExists => ErrorKind::AlreadyExists,
        K::PermissionDenied => ErrorKind::PermissionDenied,
        K::StorageFull | K::QuotaExceeded | K::OutOfMemory => ErrorKind::ResourcesExhausted,
        K::InvalidData | K::UnexpectedEof => ErrorKind::DataCorrupt,
        _ => ErrorKind::Unavailable,
    };
    Error::new(kind, format!("cannot {what}")).with_context("path", path.display()).with_source(e)
}

pub(crate) fn sql(what: &str, e: sqlx::Error) -> Error {
    let kind = match &e {
        sqlx::Error::Database(_) | sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut => ErrorKind::Unavailable,
        _ => ErrorKind::Internal,
    };
    Error::new(kind, format!("cannot {what} in the catalog database")).with_source(e)
}

pub(crate) fn joined<T>(
    result: Result<tidewater_catalogs::Result<T>, tokio::task::JoinError>,
) -> tidewater_catalogs::Result<T> {
    match result {
        Ok(inner) => inner,
        Err(e) => Err(Error::internal("a file task did not finish").with_source(e)),
    }
}

/// What an object store says. `what` is a lower-case fragment: "read file".
pub(crate) fn store(what: &str, location: &str, e: object_store::Error) -> Error {
    use object_store::Error as E;
    let (kind, hint) = match &e {
        E::NotFound { .. } => (ErrorKind::NotFound, None),
        E::AlreadyExists { .. } | E::Precondition { .. } => (ErrorKind::AlreadyExists, None),
        E::PermissionDenied { .. } | E::Unauthenticated { .. } => (
            ErrorKind::PermissionDenied,
            Some(
                "Look at the credentials of the object store: they are taken from the catalog's options, else from the server's environment.",
            ),
        ),
        E::NotImplemented { .. } | E::NotSupported { .. } => (ErrorKind::Unsupported, None),
        E::InvalidPath { .. } | E::UnknownConfigurationKey { .. } => (ErrorKind::InvalidInput, None),
        _ => (ErrorKind::Unavailable, None),
    };
    let error = Error::new(kind, format!("cannot {what}")).with_context("location", location).with_source(e);
    match hint {
        Some(hint) => error.with_hint(hint),
        None => error,
    }
}
