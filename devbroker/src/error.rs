use std::fmt;
use std::path::{Path, PathBuf};

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why the broker does not start or cannot go on with a request.
#[derive(Debug)]
pub enum Error {
    /// Choose another address, or end the process that has this one.
    Listen { addr: std::net::SocketAddr, source: std::io::Error },
    /// End the other broker, or choose another data directory.
    Locked { path: PathBuf },
    /// Repair the disk, or make room on it.
    Io { path: PathBuf, source: std::io::Error },
    /// Remove the directory of the topic (its records are lost), or restore it.
    Corrupt { path: PathBuf, message: String },
    /// Change the setting.
    Config(String),
}

impl Error {
    pub(crate) fn io(path: impl AsRef<Path>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.as_ref().to_owned();
        move |source| Self::Io { path, source }
    }

    pub(crate) fn corrupt(path: impl AsRef<Path>, message: impl Into<String>) -> Self {
        Self::Corrupt { path: path.as_ref().to_owned(), message: message.into() }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listen { addr, source } => write!(f, "development broker cannot listen on {addr}: {source}"),
            Self::Locked { path } => {
                write!(f, "another development broker runs on the data directory \"{}\"", path.display())
            }
            Self::Io { path, source } => write!(f, "development broker: {} (path: {})", source, path.display()),
            Self::Corrupt { path, message } => {
                write!(f, "development broker: {message} (path: {})", path.display())
            }
            Self::Config(message) => write!(f, "development broker: {message}"),
        }
    }
}

// The cause is part of the text, so that a log line has it too; a chain would say it twice.
impl std::error::Error for Error {}
