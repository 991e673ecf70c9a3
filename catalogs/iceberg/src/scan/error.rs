use iceberg::ErrorKind as IcebergKind;
use tidewater_catalogs::{Error, ErrorKind};

/// Reading errors of the Iceberg library, by what the reader should do. Its `Unexpected` is mostly a store that does
/// not answer.
pub(crate) fn from_iceberg(e: iceberg::Error) -> Error {
    let kind = match e.kind() {
        IcebergKind::DataInvalid => ErrorKind::DataCorrupt,
        IcebergKind::FeatureUnsupported => ErrorKind::Unsupported,
        _ => ErrorKind::Unavailable,
    };
    Error::new(kind, "iceberg metadata cannot be read").with_source(e)
}

pub(crate) fn from_parquet(e: parquet::errors::ParquetError, location: &str) -> Error {
    use parquet::errors::ParquetError as P;
    let e = match e {
        P::External(inner) => match inner.downcast::<Error>() {
            Ok(ours) => return *ours,
            Err(inner) => P::External(inner),
        },
        other => other,
    };
    let kind = match e {
        P::External(_) => ErrorKind::Unavailable,
        P::NYI(_) => ErrorKind::Unsupported,
        _ => ErrorKind::DataCorrupt,
    };
    Error::new(kind, "parquet file cannot be read").with_context("location", location).with_source(e)
}

pub(crate) fn corrupt(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::DataCorrupt, message)
}
