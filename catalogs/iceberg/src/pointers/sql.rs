use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Executor, Row};
use tidewater_catalogs::{Error, ErrorKind, Result};

use super::{Pointed, PointerMove, Pointers, Swapped};
use crate::error;
use crate::new_table;

/// How long a statement waits for another process that writes.
const BUSY_TIMEOUT: Duration = Duration::from_secs(15);
/// How long an answer of the database is waited for. What comes later counts as lost.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(25);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

const TABLES: &str = "CREATE TABLE IF NOT EXISTS iceberg_tables (
    catalog_name VARCHAR(255) NOT NULL,
    table_namespace VARCHAR(255) NOT NULL,
    table_name VARCHAR(255) NOT NULL,
    metadata_location VARCHAR(1000),
    previous_metadata_location VARCHAR(1000),
    iceberg_type VARCHAR(5),
    PRIMARY KEY (catalog_name, table_namespace, table_name))";
const NAMESPACES: &str = "CREATE TABLE IF NOT EXISTS iceberg_namespace_properties (
    catalog_name VARCHAR(255) NOT NULL,
    namespace VARCHAR(255) NOT NULL,
    property_key VARCHAR(255) NOT NULL,
    property_value VARCHAR(1000) NOT NULL,
    PRIMARY KEY (catalog_name, namespace, property_key))";

const SWAP: &str = "UPDATE iceberg_tables SET metadata_location = $1, previous_metadata_location = $2
    WHERE catalog_name = $3 AND table_namespace = $4 AND table_name = $5 AND metadata_location = $2";

/// A SQL database.
#[derive(Clone, PartialEq, Eq)]
pub enum Database {
    /// A file; made where it is missing.
    Sqlite(PathBuf),
    /// `postgres://USER:PASSWORD@HOST:PORT/DATABASE?sslmode=…`
    Postgres(String),
}

impl Database {
    /// `sqlite:FILE` or `postgres://…`.
    pub fn parse(text: &str) -> Result<Self> {
        if let Some(path) = text.strip_prefix("sqlite:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            if !path.is_empty() {
                return Ok(Self::Sqlite(PathBuf::from(path)));
            }
        }
        if text.starts_with("postgres://") || text.starts_with("postgresql://") {
            // The text of a URL that cannot be read may hold a password, so it is not repeated.
            PgConnectOptions::from_str(text).map_err(|_| Error::invalid("the URL of the database cannot be read"))?;
            return Ok(Self::Postgres(text.to_string()));
        }
        Err(Error::invalid("the database is of no known kind")
            .with_hint("Use sqlite:FILE or postgres://USER:PASSWORD@HOST:PORT/DATABASE."))
    }
}

impl std::fmt::Debug for Database {
    /// A URL may hold a password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Sqlite(path) => write!(f, "Sqlite({})", path.display()),
            Self::Postgres(_) => f.write_str("Postgres(…)"),
        }
    }
}

/// The two tables of Iceberg's JDBC catalog, as Java (schema V1) and PyIceberg have them, so that a table of ours is
/// theirs through the same database, and the other way round.
#[derive(Debug, Clone)]
pub(crate) struct SqlPointers {
    pool: Pool,
    /// The column `catalog_name`: one database may hold more catalogs than ours.
    catalog: Arc<str>,
}

#[derive(Debug, Clone)]
enum Pool {
    Sqlite(SqlitePool),
    Postgres(PgPool),
}

impl SqlPointers {
    pub(crate) async fn open(database: &Database, catalog: &str) -> Result<Self> {
        let pool = match database {
            Database::Sqlite(path) => Pool::Sqlite(open_sqlite(path).await?),
            Database::Postgres(url) => Pool::Postgres(open_postgres(url).await?),
        };
        let this = Self { pool, catalog: catalog.into() };
        this.prepare().await?;
        Ok(this)
    }

    async fn prepare(&self) -> Result<()> {
        // Where everything is in place, no right to make tables is needed.
        let there = self.names("SELECT iceberg_type FROM iceberg_tables WHERE 1 = 0", &[]).await.is_ok()
            && self.names("SELECT namespace FROM iceberg_namespace_properties WHERE 1 = 0", &[]).await.is_ok();
        if there {
            return Ok(());
        }
        for statement in [TABLES, NAMESPACES] {
            // Two servers that start at once may both find nothing.
            if self.execute(statement, &[]).await.is_err() {
                self.execute(statement, &[]).await.map_err(|e| e.in_words("create tables"))?;
            }
        }
        // A database made by an older implementation (schema V0) has no such column.
        if self.names("SELECT iceberg_type FROM iceberg_tables WHERE 1 = 0", &[]).await.is_err() {
            let add = "ALTER TABLE iceberg_tables ADD COLUMN iceberg_type VARCHAR(5)";
            self.execute(add, &[]).await.map_err(|e| e.in_words("create tables"))?;
        }
        Ok(())
    }

    /// Runs a statement and counts the rows it changed. Both databases take `$1`.
    async fn execute(&self, sql: &'static str, values: &[&str]) -> Result<u64, Failed> {
        in_time(async {
            match &self.pool {
                Pool::Sqlite(pool) => {
                    let query = sqlx::query::<sqlx::Sqlite>(sql);
                    let query = values.iter().fold(query, |query, value| query.bind(*value));
                    Ok(query.execute(pool).await?.rows_affected())
                }
                Pool::Postgres(pool) => {
                    let query = sqlx::query::<sqlx::Postgres>(sql);
                    let query = values.iter().fold(query, |query, value| query.bind(*value));
                    Ok(query.execute(pool).await?.rows_affected())
                }
            }
        })
        .await
    }

    /// The same, and nothing else of its kind in the namespace at the same time: a table that is made is either seen
    /// by whoever drops the schema, or finds none. SQLite has one writer at a time anyway.
    async fn execute_alone(&self, namespace: &str, sql: &'static str, values: &[&str]) -> Result<u64, Failed> {
        let Pool::Postgres(pool) = &self.pool else { return self.execute(sql, values).await };
        in_time(async {
            let mut transaction = pool.begin().await?;
            let lock = sqlx::query::<sqlx::Postgres>("SELECT pg_advisory_xact_lock(hashtext($1))")
                .bind(format!("iceberg_namespace_properties {} {namespace}", self.catalog));
            transaction.execute(lock).await?;
            let query = sqlx::query::<sqlx::Postgres>(sql);
            let query = values.iter().fold(query, |query, value| query.bind(*value));
            let done = transaction.execute(query).await?.rows_affected();
            transaction.commit().await?;
            Ok(done)
        })
        .await
    }

    /// First column of all rows, without nulls.
    async fn names(&self, sql: &'static str, values: &[&str]) -> Result<Vec<String>, Failed> {
        in_time(async {
            let names: Result<Vec<Option<String>>, sqlx::Error> = match &self.pool {
                Pool::Sqlite(pool) => {
                    let query = sqlx::query::<sqlx::Sqlite>(sql);
                    let query = values.iter().fold(query, |query, value| query.bind(*value));
                    query.fetch_all(pool).await?.iter().map(|row| row.try_get(0)).collect()
                }
                Pool::Postgres(pool) => {
                    let query = sqlx::query::<sqlx::Postgres>(sql);
                    let query = values.iter().fold(query, |query, value| query.bind(*value));
                    query.fetch_all(pool).await?.iter().map(|row| row.try_get(0)).collect()
                }
            };
            Ok(names?.into_iter().flatten().collect())
        })
        .await
    }
}

#[async_trait]
impl Pointers for SqlPointers {
    #[cfg(test)]
    async fn close(&self) {
        match &self.pool {
            Pool::Sqlite(pool) => pool.close().await,
            Pool::Postgres(pool) => pool.close().await,
        }
    }

    async fn get(&self, namespace: &str, table: &str) -> Result<Option<String>> {
        let found = self
            .names(
                "SELECT metadata_location FROM iceberg_tables WHERE catalog_name = $1 AND table_namespace = $2
             AND table_name = $3 AND (iceberg_type = 'TABLE' OR iceberg_type IS NULL)",
                &[&self.catalog, namespace, table],
            )
            .await;
        Ok(found.map_err(|e| e.in_words("look up a table"))?.into_iter().next())
    }

    async fn swap(&self, namespace: &str, table: &str, expected: &str, next: Pointed<'_>) -> Swapped {
        let done = self.execute(SWAP, &[next.location, expected, &self.catalog, namespace, table]).await;
        match done {
            Ok(1) => Swapped::Done,
            Ok(_) => Swapped::Moved,
            Err(e) => Swapped::Unknown(e.in_words("commit")),
        }
    }

    fn swaps_together(&self) -> bool {
        true
    }

    async fn swap_all(&self, mut moves: Vec<PointerMove>) -> Swapped {
        // In one order, so that two of these never wait for each other.
        moves.sort_by(|a, b| (&a.namespace, &a.table).cmp(&(&b.namespace, &b.table)));
        let done = in_time(async {
            match &self.pool {
                Pool::Sqlite(pool) => {
                    let mut transaction = pool.begin_with("BEGIN IMMEDIATE").await?;
                    for PointerMove { namespace, table, from, to } in &moves {
                        let query = sqlx::query::<sqlx::Sqlite>(SWAP);
                        let query = query.bind(to).bind(from).bind(&*self.catalog).bind(namespace).bind(table);
                        if transaction.execute(query).await?.rows_affected() != 1 {
                            transaction.rollback().await?;
                            return Ok(false);
                        }
                    }
                    transaction.commit().await?;
                }
                Pool::Postgres(pool) => {
                    let mut transaction = pool.begin().await?;
                    for PointerMove { namespace, table, from, to } in &moves {
                        let query = sqlx::query::<sqlx::Postgres>(SWAP);
                        let query = query.bind(to).bind(from).bind(&*self.catalog).bind(namespace).bind(table);
                        if transaction.execute(query).await?.rows_affected() != 1 {
                            transaction.rollback().await?;
                            return Ok(false);
                        }
                    }
                    transaction.commit().await?;
                }
            }
            Ok(true)
        });
        match done.await {
            Ok(true) => Swapped::Done,
            Ok(false) => Swapped::Moved,
            Err(e) => Swapped::Unknown(e.in_words("commit")),
        }
    }

    async fn create(&self, namespace: &str, table: &str, first: Pointed<'_>) -> Result<()> {
        let done = self
            .execute_alone(
                namespace,
                "INSERT INTO iceberg_tables
                (catalog_name, table_namespace, table_name, metadata_location, previous_metadata_location, iceberg_type)
             SELECT $1, $2, $3, $4, NULL, 'TABLE' WHERE EXISTS
                (SELECT 1 FROM iceberg_namespace_properties WHERE catalog_name = $1 AND namespace = $2)",
                &[&self.catalog, namespace, table, first.location],
            )
            .await;
        match done {
            Ok(1) => Ok(()),
            Ok(_) => Err(Error::not_found(format!("schema \"{namespace}\" does not exist"))),
            Err(Failed::Sql(sqlx::Error::Database(e))) if e.is_unique_violation() => {
                Err(Error::new(ErrorKind::AlreadyExists, format!("table \"{table}\" already exists")))
            }
            Err(e) => Err(e.in_words("create a table")),
        }
    }

    async fn remove(&self, namespace: &str, table: &str, expected: &str) -> Result<bool> {
        let done = self
            .execute(
                "DELETE FROM iceberg_tables WHERE catalog_name = $1 AND table_namespace = $2 AND table_name = $3
             AND metadata_location = $4",
                &[&self.catalog, namespace, table, expected],
            )
            .await;
        Ok(done.map_err(|e| e.in_words("drop a table"))? == 1)
    }

    async fn tables(&self, namespace: &str) -> Result<Vec<String>> {
        let names = self
            .names(
                "SELECT table_name FROM iceberg_tables WHERE catalog_name = $1 AND table_namespace = $2
             AND (iceberg_type = 'TABLE' OR iceberg_type IS NULL)",
                &[&self.catalog, namespace],
            )
            .await;
        sorted(names.map_err(|e| e.in_words("list tables"))?)
    }

    /// Those too that only a table of another implementation implies.
    async fn namespaces(&self) -> Result<Vec<String>> {
        let names = self
            .names(
                "SELECT namespace FROM iceberg_namespace_properties WHERE catalog_name = $1
             UNION SELECT table_namespace FROM iceberg_tables WHERE catalog_name = $1",
                &[&self.catalog],
            )
            .await;
        sorted(names.map_err(|e| e.in_words("list schemas"))?)
    }

    async fn create_namespace(&self, namespace: &str) -> Result<bool> {
        let done = self
            .execute(
                "INSERT INTO iceberg_namespace_properties (catalog_name, namespace, property_key, property_value)
             VALUES ($1, $2, 'exists', 'true') ON CONFLICT DO NOTHING",
                &[&self.catalog, namespace],
            )
            .await;
        Ok(done.map_err(|e| e.in_words("create a schema"))? == 1)
    }

    async fn drop_namespace(&self, namespace: &str) -> Result<()> {
        let done = self
            .execute_alone(
                namespace,
                "DELETE FROM iceberg_namespace_properties WHERE catalog_name = $1 AND namespace = $2 AND NOT EXISTS
                (SELECT 1 FROM iceberg_tables WHERE catalog_name = $1 AND table_namespace = $2)",
                &[&self.catalog, namespace],
            )
            .await;
        if done.map_err(|e| e.in_words("drop a schema"))? > 0 {
            Ok(())
        } else if self.tables(namespace).await?.is_empty() {
            Err(Error::not_found(format!("schema \"{namespace}\" does not exist")))
        } else {
            Err(Error::invalid(format!("schema \"{namespace}\" still holds tables"))
                .with_hint("Drop the tables first."))
        }
    }

    async fn namespace_exists(&self, namespace: &str) -> Result<bool> {
        Ok(self.namespaces().await?.iter().any(|n| n == namespace))
    }

    fn check_name(&self, kind: &str, name: &str) -> Result<()> {
        new_table::check_name(kind, name)
    }

    async fn folder(&self, _: &str) -> Result<Option<String>> {
        Ok(None)
    }
}

enum Failed {
    Sql(sqlx::Error),
    Late,
}

impl Failed {
    fn in_words(self, what: &str) -> Error {
        match self {
            Self::Sql(e) => error::sql(what, e),
            Self::Late => Error::unavailable(format!("cannot {what}: the catalog database does not answer")),
        }
    }
}

async fn in_time<T>(work: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, Failed> {
    match tokio::time::timeout(ANSWER_TIMEOUT, work).await {
        Ok(done) => done.map_err(Failed::Sql),
        Err(_) => Err(Failed::Late),
    }
}

fn sorted(mut names: Vec<String>) -> Result<Vec<String>> {
    names.sort();
    Ok(names)
}

async fn open_sqlite(path: &Path) -> Result<SqlitePool> {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        // A commit that was answered must survive a power cut; NORMAL would lose it in WAL mode.
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(BUSY_TIMEOUT);
    SqlitePoolOptions::new()
        .max_connections(4)
        .connect_with(options)
        .await
        .map_err(|e| error::sql("open tables", e).with_context("path", path.display()))
}

async fn open_postgres(url: &str) -> Result<PgPool> {
    // The text of a URL that cannot be read may hold a password, so it is not repeated.
    let options = PgConnectOptions::from_str(url)
        .map_err(|_| Error::invalid("the URL of the catalog database cannot be read"))?
        .application_name("tidewater")
        .options([("statement_timeout", "20000"), ("lock_timeout", "15000")]);
    PgPoolOptions::new()
        .max_connections(8)
        .acquire_timeout(CONNECT_TIMEOUT)
        .connect_with(options)
        .await
        .map_err(|e| error::sql("open tables", e))
}
