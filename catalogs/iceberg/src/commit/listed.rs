use iceberg::spec::DataFile;

/// What an entry of a manifest stands for: a file, or one of the deletion vectors that lie in a file.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Listed {
    location: String,
    /// Of the vector.
    offset: Option<i64>,
}

impl Listed {
    pub(crate) fn of(file: &DataFile) -> Self {
        Self { location: file.file_path().to_owned(), offset: file.content_offset() }
    }

    pub(crate) fn file(location: &str) -> Self {
        Self { location: location.to_owned(), offset: None }
    }

    pub(crate) fn vector(location: &str, offset: u64) -> Self {
        Self { location: location.to_owned(), offset: i64::try_from(offset).ok() }
    }
}
