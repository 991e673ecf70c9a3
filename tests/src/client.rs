//! A blocking SQL client over a real socket.

use std::net::SocketAddr;

use anyhow::Result;
use tokio::runtime::Runtime;
use tokio_postgres::{NoTls, SimpleQueryMessage};

/// An error as the server sent it.
#[derive(Debug)]
pub struct SqlFailure {
    pub state: String,
    pub message: String,
}

impl std::fmt::Display for SqlFailure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.message, self.state)
    }
}

impl std::error::Error for SqlFailure {}

impl From<tokio_postgres::Error> for SqlFailure {
    fn from(e: tokio_postgres::Error) -> Self {
        match e.as_db_error() {
            Some(db) => {
                let mut message = db.message().to_owned();
                if let Some(detail) = db.detail() {
                    message.push_str(&format!("; DETAIL: {detail}"));
                }
                if let Some(hint) = db.hint() {
                    message.push_str(&format!("; HINT: {hint}"));
                }
                Self { state: db.code().code().to_owned(), message }
            }
            None => Self { state: "08006".to_owned(), message: format!("{e}: {:?}", std::error::Error::source(&e)) },
        }
    }
}

/// One connection with a runtime of its own.
pub struct Client {
    runtime: Runtime,
    client: tokio_postgres::Client,
}

impl Client {
    pub fn connect(addr: SocketAddr) -> Result<Self> {
        Self::with(addr, "")
    }

    pub fn connect_with_password(addr: SocketAddr, password: &str) -> Result<Self> {
        Self::with(addr, &format!("password={password}"))
    }

    fn with(addr: SocketAddr, more: &str) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let client = runtime.block_on(open(addr, more))?;
        Ok(Self { runtime, client })
    }

    /// Of another server: `postgres://user@host:port/database`.
    pub fn connect_url(url: &str) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let (client, connection) = runtime.block_on(tokio_postgres::connect(url, NoTls))?;
        runtime.spawn(connection);
        Ok(Self { runtime, client })
    }

    /// Runs statements, and says how many rows the last of them changed or gave.
    pub fn count(&self, sql: &str) -> Result<u64, SqlFailure> {
        let messages = self.runtime.block_on(self.client.simple_query(sql))?;
        let counts = messages.iter().filter_map(|m| match m {
            SimpleQueryMessage::CommandComplete(count) => Some(*count),
            _ => None,
        });
        Ok(counts.last().unwrap_or(0))
    }

    /// Runs one or several statements; rows of all of them as text, NULL as `None`.
    pub fn rows(&self, sql: &str) -> Result<Vec<Vec<Option<String>>>, SqlFailure> {
        let messages = self.runtime.block_on(self.client.simple_query(sql))?;
        Ok(messages
            .iter()
            .filter_map(|m| match m {
                SimpleQueryMessage::Row(row) => Some((0..row.len()).map(|i| row.get(i).map(str::to_owned)).collect()),
                _ => None,
            })
            .collect())
    }

    /// The names of a query's columns, and its rows.
    pub fn table(&self, sql: &str) -> Result<(Vec<String>, Vec<Vec<Option<String>>>), SqlFailure> {
        let (mut names, mut rows) = (Vec::new(), Vec::new());
        for message in self.runtime.block_on(self.client.simple_query(sql))? {
            match message {
                SimpleQueryMessage::RowDescription(columns) => {
                    names = columns.iter().map(|c| c.name().to_owned()).collect();
                }
                SimpleQueryMessage::Row(row) => {
                    rows.push((0..row.len()).map(|i| row.get(i).map(str::to_owned)).collect());
                }
                _ => (),
            }
        }
        Ok((names, rows))
    }

    /// The single value of a query.
    pub fn value(&self, sql: &str) -> Result<String> {
        let rows = self.rows(sql)?;
        let first = rows.first().and_then(|r| r.first()).cloned().flatten();
        first.ok_or_else(|| anyhow::anyhow!("no value from {sql}"))
    }

    pub fn run(&self, sql: &str) -> Result<(), SqlFailure> {
        self.rows(sql).map(|_| ())
    }
}

/// An async connection, driven by a task of the current runtime.
pub async fn connect(addr: SocketAddr) -> Result<tokio_postgres::Client, SqlFailure> {
    open(addr, "").await
}

async fn open(addr: SocketAddr, more: &str) -> Result<tokio_postgres::Client, SqlFailure> {
    let config = format!("host={} port={} user=tidewater dbname=lake {more}", addr.ip(), addr.port());
    let (client, connection) = tokio_postgres::connect(&config, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}
