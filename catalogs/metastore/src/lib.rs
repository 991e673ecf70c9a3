//! Definitions (secrets, connections, streams, flows) in a SQL database, by default the SQLite file that also holds
//! the Iceberg catalog.
//!
//! The type to know: [`SqliteMetastore`].

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::Row;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteRow, SqliteSynchronous,
};
use tidewater_catalogs::{Definition, DefinitionKind, Error, ErrorKind, Metastore, Result};
use uuid::Uuid;

const CREATE_TABLE: &str = "CREATE TABLE IF NOT EXISTS tidewater_definitions (
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    id TEXT NOT NULL UNIQUE,
    sql TEXT NOT NULL,
    properties TEXT NOT NULL,
    created_at_ms INTEGER NOT NULL,
    version INTEGER NOT NULL,
    PRIMARY KEY (kind, name))";

/// A metastore in one SQLite file. Several processes may open it at once.
#[derive(Debug, Clone)]
pub struct SqliteMetastore {
    pool: SqlitePool,
}

impl SqliteMetastore {
    /// Opens the file, or makes it, readable by its owner alone: literal secrets live in it.
    pub async fn open(path: &Path) -> Result<Self> {
        create_private(path)?;
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(Duration::from_secs(10));
        let pool = SqlitePoolOptions::new()
            .max_connections(2)
            .connect_with(options)
            .await
            .map_err(|e| unavailable("open", e).with_context("file", path.display()))?;
        sqlx::query(CREATE_TABLE).execute(&pool).await.map_err(|e| unavailable("prepare", e))?;
        Ok(Self { pool })
    }
}

fn create_private(path: &Path) -> Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        let opened = std::fs::OpenOptions::new().create(true).append(true).mode(0o600).open(path);
        opened.map_err(|e| {
            Error::unavailable("cannot open the metastore").with_context("file", path.display()).with_source(e)
        })?;
    }
    Ok(())
}

#[async_trait]
impl Metastore for SqliteMetastore {
    async fn list(&self) -> Result<Vec<Definition>> {
        let rows = sqlx::query("SELECT * FROM tidewater_definitions ORDER BY created_at_ms, rowid")
            .fetch_all(&self.pool)
            .await
            .map_err(|e| unavailable("read", e))?;
        rows.iter().map(definition).collect()
    }

    async fn get(&self, kind: DefinitionKind, name: &str) -> Result<Option<Definition>> {
        let row = sqlx::query("SELECT * FROM tidewater_definitions WHERE kind = ? AND name = ?")
            .bind(kind.as_str())
            .bind(name)
            .fetch_optional(&self.pool)
            .await
            .map_err(|e| unavailable("read", e))?;
        row.as_ref().map(definition).transpose()
    }

    async fn create(&self, d: &Definition) -> Result<()> {
        let done = sqlx::query(
            "INSERT INTO tidewater_definitions (kind, name, id, sql, properties, created_at_ms, version)
             VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (kind, name) DO NOTHING",
        )
        .bind(d.kind.as_str())
        .bind(&d.name)
        .bind(d.id.to_string())
        .bind(&d.sql)
        .bind(json(&d.properties)?)
        .bind(d.created_at_ms)
        .bind(d.version)
        .execute(&self.pool)
        .await
        .map_err(|e| unavailable("write", e))?;
        if done.rows_affected() == 0 {
            return Err(already_exists(d));
        }
        Ok(())
    }

    async fn update(&self, d: &Definition) -> Result<()> {
        let done = sqlx::query(
            "UPDATE tidewater_definitions SET sql = ?, properties = ?, id = ?, version = version + 1
             WHERE kind = ? AND name = ? AND version = ?",
        )
        .bind(&d.sql)
        .bind(json(&d.properties)?)
        .bind(d.id.to_string())
        .bind(d.kind.as_str())
        .bind(&d.name)
        .bind(d.version)
        .execute(&self.pool)
        .await
        .map_err(|e| unavailable("write", e))?;
        if done.rows_affected() == 1 {
            return Ok(());
        }
        Err(match self.get(d.kind, &d.name).await? {
            None => Error::not_found(format!("{} \"{}\" does not exist", d.kind.as_str(), d.name)),
            Some(_) => {
                let message = format!("{} \"{}\" was changed by someone else", d.kind.as_str(), d.name);
                Error::new(ErrorKind::Conflict, message).with_hint("Run the statement again.")
            }
        })
    }

    async fn drop(&self, kind: DefinitionKind, name: &str) -> Result<bool> {
        let done = sqlx::query("DELETE FROM tidewater_definitions WHERE kind = ? AND name = ?")
            .bind(kind.as_str())
            .bind(name)
            .execute(&self.pool)
            .await
            .map_err(|e| unavailable("write", e))?;
        Ok(done.rows_affected() > 0)
    }
}

fn already_exists(d: &Definition) -> Error {
    Error::new(ErrorKind::AlreadyExists, format!("{} \"{}\" already exists", d.kind.as_str(), d.name))
}

fn definition(row: &SqliteRow) -> Result<Definition> {
    let kind = match column::<String>(row, "kind")?.as_str() {
        "secret" => DefinitionKind::Secret,
        "connection" => DefinitionKind::Connection,
        "stream" => DefinitionKind::Stream,
        "flow" => DefinitionKind::Flow,
        other => return Err(corrupt(format!("unknown kind \"{other}\""))),
    };
    let id = column::<String>(row, "id")?;
    Ok(Definition {
        kind,
        name: column(row, "name")?,
        id: Uuid::parse_str(&id).map_err(|e| corrupt(format!("bad id \"{id}\"")).with_source(e))?,
        sql: column(row, "sql")?,
        properties: serde_json::from_str(&column::<String>(row, "properties")?)
            .map_err(|e| corrupt("bad properties").with_source(e))?,
        created_at_ms: column(row, "created_at_ms")?,
        version: column(row, "version")?,
    })
}

fn column<'r, T: sqlx::Decode<'r, sqlx::Sqlite> + sqlx::Type<sqlx::Sqlite>>(
    row: &'r SqliteRow,
    name: &str,
) -> Result<T> {
    row.try_get(name).map_err(|e| corrupt(format!("bad column \"{name}\"")).with_source(e))
}

fn json(properties: &BTreeMap<String, String>) -> Result<String> {
    serde_json::to_string(properties).map_err(|e| Error::internal("cannot encode properties").with_source(e))
}

fn corrupt(message: impl Into<String>) -> Error {
    let message = format!("the metastore holds a definition that cannot be read: {}", message.into());
    Error::new(ErrorKind::DataCorrupt, message)
}

fn unavailable(what: &str, e: sqlx::Error) -> Error {
    Error::unavailable(format!("cannot {what} the metastore")).with_source(e)
}
