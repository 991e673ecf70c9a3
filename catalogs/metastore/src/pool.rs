//! The same statements on SQLite and PostgreSQL: both take `$1`.

use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ColumnIndex, Decode, Type};
use tidewater_catalogs::{Error, Result};

const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(25);

const SQLITE_TABLE: &str = "CREATE TABLE IF NOT EXISTS tidewater_definitions (
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    id TEXT NOT NULL UNIQUE,
    sql TEXT NOT NULL,
    properties TEXT NOT NULL,
    created_at_ms INTEGER NOT NULL,
    version INTEGER NOT NULL,
    PRIMARY KEY (kind, name))";
const POSTGRES_TABLE: &str = "CREATE TABLE IF NOT EXISTS tidewater_definitions (
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    id TEXT COLLATE \"C\" NOT NULL UNIQUE,
    sql TEXT NOT NULL,
    properties TEXT NOT NULL,
    created_at_ms BIGINT NOT NULL,
    version BIGINT NOT NULL,
    PRIMARY KEY (kind, name))";

#[derive(Debug, Clone)]
pub(crate) enum Pool {
    Sqlite(SqlitePool),
    Postgres(PgPool),
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Value<'a> {
    Text(&'a str),
    Number(i64),
}

/// One definition as it is stored.
pub(crate) struct Row {
    pub kind: String,
    pub name: String,
    pub id: String,
    pub sql: String,
    pub properties: String,
    pub created_at_ms: i64,
    pub version: i64,
}

macro_rules! query {
    ($database:ty, $sql:expr, $values:expr) => {
        $values.iter().fold(sqlx::query::<$database>($sql), |query, value| match value {
            Value::Text(text) => query.bind(*text),
            Value::Number(number) => query.bind(*number),
        })
    };
}

impl Pool {
    pub(crate) async fn sqlite(path: &Path) -> Result<Self> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(BUSY_TIMEOUT);
        let pool = SqlitePoolOptions::new()
            .max_connections(2)
            .connect_with(options)
            .await
            .map_err(|e| unavailable("open", e).with_context("file", path.display()))?;
        let this = Self::Sqlite(pool);
        this.execute(SQLITE_TABLE, &[]).await?;
        Ok(this)
    }

    pub(crate) async fn postgres(url: &str) -> Result<Self> {
        // The text of a URL that cannot be read may hold a password, so it is not repeated.
        let options = PgConnectOptions::from_str(url)
            .map_err(|_| Error::invalid("the URL of the metastore cannot be read"))?
            .application_name("tidewater")
            .options([("statement_timeout", "20000"), ("lock_timeout", "15000")]);
        let pool = PgPoolOptions::new()
            .max_connections(4)
            .acquire_timeout(CONNECT_TIMEOUT)
            .connect_with(options)
            .await
            .map_err(|e| unavailable("open", e))?;
        let this = Self::Postgres(pool);
        // Where the table is in place, no right to make tables is needed.
        if this.execute("SELECT version FROM tidewater_definitions WHERE 1 = 0", &[]).await.is_err()
            // Two servers that start at once may both find nothing.
            && this.execute(POSTGRES_TABLE, &[]).await.is_err()
        {
            this.execute(POSTGRES_TABLE, &[]).await?;
        }
        Ok(this)
    }

    /// Runs a statement and counts the rows it changed.
    pub(crate) async fn execute(&self, sql: &str, values: &[Value<'_>]) -> Result<u64> {
        in_time("write", async {
            Ok(match self {
                Self::Sqlite(pool) => query!(sqlx::Sqlite, sql, values).execute(pool).await?.rows_affected(),
                Self::Postgres(pool) => query!(sqlx::Postgres, sql, values).execute(pool).await?.rows_affected(),
            })
        })
        .await
    }

    pub(crate) async fn rows(&self, sql: &str, values: &[Value<'_>]) -> Result<Vec<Row>> {
        in_time("read", async {
            match self {
                Self::Sqlite(pool) => {
                    query!(sqlx::Sqlite, sql, values).fetch_all(pool).await?.iter().map(row).collect()
                }
                Self::Postgres(pool) => {
                    query!(sqlx::Postgres, sql, values).fetch_all(pool).await?.iter().map(row).collect()
                }
            }
        })
        .await
    }
}

fn row<'r, R: sqlx::Row>(row: &'r R) -> Result<Row, sqlx::Error>
where
    &'static str: ColumnIndex<R>,
    String: Decode<'r, R::Database> + Type<R::Database>,
    i64: Decode<'r, R::Database> + Type<R::Database>,
{
    Ok(Row {
        kind: row.try_get("kind")?,
        name: row.try_get("name")?,
        id: row.try_get("id")?,
        sql: row.try_get("sql")?,
        properties: row.try_get("properties")?,
        created_at_ms: row.try_get("created_at_ms")?,
        version: row.try_get("version")?,
    })
}

async fn in_time<T>(what: &str, work: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T> {
    match tokio::time::timeout(ANSWER_TIMEOUT, work).await {
        Ok(done) => done.map_err(|e| unavailable(what, e)),
        Err(_) => Err(Error::unavailable(format!("cannot {what} the metastore: it does not answer"))),
    }
}

fn unavailable(what: &str, e: sqlx::Error) -> Error {
    Error::unavailable(format!("cannot {what} the metastore")).with_source(e)
}
