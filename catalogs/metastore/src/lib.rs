//! Definitions (secrets, connections, catalogs, streams, flows) in a SQL database, by default the SQLite file that also
//! holds the Iceberg catalog, else a PostgreSQL database.
//!
//! The type to know: [`SqlMetastore`].

mod pool;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::Path;

use async_trait::async_trait;
use tidewater_catalogs::{Definition, DefinitionKind, Error, ErrorKind, Metastore, Result};
use uuid::Uuid;

use pool::{Pool, Row, Value};

/// A metastore in a SQL database. Several processes may open it at once.
#[derive(Debug, Clone)]
pub struct SqlMetastore {
    pool: Pool,
}

impl SqlMetastore {
    /// Opens the SQLite file, or makes it, readable by its owner alone: literal secrets live in it.
    pub async fn open(path: &Path) -> Result<Self> {
        create_private(path)?;
        Ok(Self { pool: Pool::sqlite(path).await? })
    }

    /// Opens the database behind `postgres://USER:PASSWORD@HOST:PORT/DATABASE`.
    pub async fn open_postgres(url: &str) -> Result<Self> {
        Ok(Self { pool: Pool::postgres(url).await? })
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

const COLUMNS: &str = "SELECT kind, name, id, sql, properties, created_at_ms, version FROM tidewater_definitions";

#[async_trait]
impl Metastore for SqlMetastore {
    async fn list(&self) -> Result<Vec<Definition>> {
        // Ids grow with time, within a millisecond too.
        let rows = self.pool.rows(&format!("{COLUMNS} ORDER BY created_at_ms, id"), &[]).await?;
        rows.into_iter().map(definition).collect()
    }

    async fn get(&self, kind: DefinitionKind, name: &str) -> Result<Option<Definition>> {
        let find = format!("{COLUMNS} WHERE kind = $1 AND name = $2");
        let rows = self.pool.rows(&find, &[Value::Text(kind.as_str()), Value::Text(name)]).await?;
        rows.into_iter().next().map(definition).transpose()
    }

    async fn create(&self, d: &Definition) -> Result<()> {
        let (id, properties) = (d.id.to_string(), json(&d.properties)?);
        let values = [
            Value::Text(d.kind.as_str()),
            Value::Text(&d.name),
            Value::Text(&id),
            Value::Text(&d.sql),
            Value::Text(&properties),
            Value::Number(d.created_at_ms),
            Value::Number(d.version),
        ];
        let done = self
            .pool
            .execute(
                "INSERT INTO tidewater_definitions (kind, name, id, sql, properties, created_at_ms, version)
                 VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (kind, name) DO NOTHING",
                &values,
            )
            .await?;
        if done == 0 {
            return Err(already_exists(d));
        }
        Ok(())
    }

    async fn update(&self, d: &Definition) -> Result<()> {
        let (id, properties) = (d.id.to_string(), json(&d.properties)?);
        let values = [
            Value::Text(&d.sql),
            Value::Text(&properties),
            Value::Text(&id),
            Value::Text(d.kind.as_str()),
            Value::Text(&d.name),
            Value::Number(d.version),
        ];
        let done = self
            .pool
            .execute(
                "UPDATE tidewater_definitions SET sql = $1, properties = $2, id = $3, version = version + 1
                 WHERE kind = $4 AND name = $5 AND version = $6",
                &values,
            )
            .await?;
        if done == 1 {
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
        let values = [Value::Text(kind.as_str()), Value::Text(name)];
        let done =
            self.pool.execute("DELETE FROM tidewater_definitions WHERE kind = $1 AND name = $2", &values).await?;
        Ok(done > 0)
    }
}

fn already_exists(d: &Definition) -> Error {
    Error::new(ErrorKind::AlreadyExists, format!("{} \"{}\" already exists", d.kind.as_str(), d.name))
}

fn definition(row: Row) -> Result<Definition> {
    let kind = match row.kind.as_str() {
        "secret" => DefinitionKind::Secret,
        "connection" => DefinitionKind::Connection,
        "catalog" => DefinitionKind::Catalog,
        "stream" => DefinitionKind::Stream,
        "flow" => DefinitionKind::Flow,
        other => return Err(corrupt(format!("unknown kind \"{other}\""))),
    };
    Ok(Definition {
        kind,
        name: row.name,
        id: Uuid::parse_str(&row.id).map_err(|e| corrupt(format!("bad id \"{}\"", row.id)).with_source(e))?,
        sql: row.sql,
        properties: serde_json::from_str(&row.properties).map_err(|e| corrupt("bad properties").with_source(e))?,
        created_at_ms: row.created_at_ms,
        version: row.version,
    })
}

fn json(properties: &BTreeMap<String, String>) -> Result<String> {
    serde_json::to_string(properties).map_err(|e| Error::internal("cannot encode properties").with_source(e))
}

fn corrupt(message: impl Into<String>) -> Error {
    let message = format!("the metastore holds a definition that cannot be read: {}", message.into());
    Error::new(ErrorKind::DataCorrupt, message)
}
