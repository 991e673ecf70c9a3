use std::path::Path;
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};
use tidewater_catalogs::{Error, ErrorKind, Result};

use crate::error;

/// The column `catalog_name`: one database may hold more catalogs than ours.
const CATALOG: &str = "lake";
/// How long a statement waits for another process that writes.
const BUSY_TIMEOUT: Duration = Duration::from_secs(15);

/// The two tables of Iceberg's JDBC catalog, as Java (schema V1) and PyIceberg have them, so that a table of ours is
/// theirs through the same database, and the other way round.
#[derive(Debug, Clone)]
pub(crate) struct Pointers {
    pool: SqlitePool,
}

impl Pointers {
    pub(crate) async fn open(path: &Path) -> Result<Self> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            // A commit that was answered must survive a power cut; NORMAL would lose it in WAL mode.
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(BUSY_TIMEOUT);
        let pool = SqlitePoolOptions::new()
            .max_connections(4)
            .connect_with(options)
            .await
            .map_err(|e| error::sql("open tables", e).with_context("path", path.display()))?;
        let this = Self { pool };
        this.prepare().await.map_err(|e| error::sql("create tables", e).with_context("path", path.display()))?;
        Ok(this)
    }

    async fn prepare(&self) -> Result<(), sqlx::Error> {
        sqlx::query(
            "CREATE TABLE IF NOT EXISTS iceberg_tables (
                catalog_name VARCHAR(255) NOT NULL,
                table_namespace VARCHAR(255) NOT NULL,
                table_name VARCHAR(255) NOT NULL,
                metadata_location VARCHAR(1000),
                previous_metadata_location VARCHAR(1000),
                iceberg_type VARCHAR(5),
                PRIMARY KEY (catalog_name, table_namespace, table_name))",
        )
        .execute(&self.pool)
        .await?;
        sqlx::query(
            "CREATE TABLE IF NOT EXISTS iceberg_namespace_properties (
                catalog_name VARCHAR(255) NOT NULL,
                namespace VARCHAR(255) NOT NULL,
                property_key VARCHAR(255) NOT NULL,
                property_value VARCHAR(1000) NOT NULL,
                PRIMARY KEY (catalog_name, namespace, property_key))",
        )
        .execute(&self.pool)
        .await?;
        // A database made by an older implementation (schema V0) has no such column.
        let columns: Vec<String> =
            sqlx::query_scalar("SELECT name FROM pragma_table_info('iceberg_tables')").fetch_all(&self.pool).await?;
        if !columns.iter().any(|name| name == "iceberg_type") {
            sqlx::query("ALTER TABLE iceberg_tables ADD COLUMN iceberg_type VARCHAR(5)").execute(&self.pool).await?;
        }
        Ok(())
    }

    #[cfg(test)]
    pub(crate) async fn close(&self) {
        self.pool.close().await;
    }

    /// Where the metadata of a table is now; `None` where there is no such table.
    pub(crate) async fn get(&self, namespace: &str, table: &str) -> Result<Option<String>> {
        let location: Option<Option<String>> = sqlx::query_scalar(
            "SELECT metadata_location FROM iceberg_tables WHERE catalog_name = ? AND table_namespace = ?
             AND table_name = ? AND (iceberg_type = 'TABLE' OR iceberg_type IS NULL)",
        )
        .bind(CATALOG)
        .bind(namespace)
        .bind(table)
        .fetch_optional(&self.pool)
        .await
        .map_err(|e| error::sql("look up a table", e))?;
        Ok(location.flatten())
    }

    /// The compare-and-swap behind every commit. False where the table is no longer at `expected`. An error leaves
    /// open whether the swap took place.
    pub(crate) async fn swap(&self, namespace: &str, table: &str, expected: &str, new: &str) -> Result<bool> {
        let done = sqlx::query(
            "UPDATE iceberg_tables SET metadata_location = ?, previous_metadata_location = ?
             WHERE catalog_name = ? AND table_namespace = ? AND table_name = ? AND metadata_location = ?",
        )
        .bind(new)
        .bind(expected)
        .bind(CATALOG)
        .bind(namespace)
        .bind(table)
        .bind(expected)
        .execute(&self.pool)
        .await
        .map_err(|e| error::sql("commit", e))?;
        Ok(done.rows_affected() == 1)
    }

    /// `NotFound` without the namespace, `AlreadyExists` where the name is taken.
    pub(crate) async fn create(&self, namespace: &str, table: &str, location: &str) -> Result<()> {
        let done = sqlx::query(
            "INSERT INTO iceberg_tables
                (catalog_name, table_namespace, table_name, metadata_location, previous_metadata_location, iceberg_type)
             SELECT ?, ?, ?, ?, NULL, 'TABLE' WHERE EXISTS
                (SELECT 1 FROM iceberg_namespace_properties WHERE catalog_name = ? AND namespace = ?)",
        )
        .bind(CATALOG)
        .bind(namespace)
        .bind(table)
        .bind(location)
        .bind(CATALOG)
        .bind(namespace)
        .execute(&self.pool)
        .await;
        match done {
            Ok(done) if done.rows_affected() == 1 => Ok(()),
            Ok(_) => Err(Error::not_found(format!("schema \"{namespace}\" does not exist"))),
            Err(sqlx::Error::Database(e)) if e.is_unique_violation() => {
                Err(Error::new(ErrorKind::AlreadyExists, format!("table \"{table}\" already exists")))
            }
            Err(e) => Err(error::sql("create a table", e)),
        }
    }

    /// Forgets the table if it still is at `expected`.
    pub(crate) async fn remove(&self, namespace: &str, table: &str, expected: &str) -> Result<bool> {
        let done = sqlx::query(
            "DELETE FROM iceberg_tables WHERE catalog_name = ? AND table_namespace = ? AND table_name = ?
             AND metadata_location = ?",
        )
        .bind(CATALOG)
        .bind(namespace)
        .bind(table)
        .bind(expected)
        .execute(&self.pool)
        .await
        .map_err(|e| error::sql("drop a table", e))?;
        Ok(done.rows_affected() == 1)
    }

    /// Names of the tables of one namespace, sorted.
    pub(crate) async fn tables(&self, namespace: &str) -> Result<Vec<String>> {
        sqlx::query_scalar(
            "SELECT table_name FROM iceberg_tables WHERE catalog_name = ? AND table_namespace = ?
             AND (iceberg_type = 'TABLE' OR iceberg_type IS NULL) ORDER BY table_name",
        )
        .bind(CATALOG)
        .bind(namespace)
        .fetch_all(&self.pool)
        .await
        .map_err(|e| error::sql("list tables", e))
    }

    /// All namespaces, sorted; those too that only a table of another implementation implies.
    pub(crate) async fn namespaces(&self) -> Result<Vec<String>> {
        sqlx::query_scalar(
            "SELECT namespace FROM iceberg_namespace_properties WHERE catalog_name = ?1
             UNION SELECT table_namespace FROM iceberg_tables WHERE catalog_name = ?1 ORDER BY 1",
        )
        .bind(CATALOG)
        .fetch_all(&self.pool)
        .await
        .map_err(|e| error::sql("list schemas", e))
    }

    /// False where it was there already.
    pub(crate) async fn create_namespace(&self, namespace: &str) -> Result<bool> {
        let done = sqlx::query(
            "INSERT OR IGNORE INTO iceberg_namespace_properties (catalog_name, namespace, property_key, property_value)
             VALUES (?, ?, 'exists', 'true')",
        )
        .bind(CATALOG)
        .bind(namespace)
        .execute(&self.pool)
        .await
        .map_err(|e| error::sql("create a schema", e))?;
        Ok(done.rows_affected() == 1)
    }

    /// Fails with `InvalidInput` where it holds tables, `NotFound` where it is not there.
    pub(crate) async fn drop_namespace(&self, namespace: &str) -> Result<()> {
        // One statement, so that a table made at the same time is either seen here or finds no schema.
        let done = sqlx::query(
            "DELETE FROM iceberg_namespace_properties WHERE catalog_name = ?1 AND namespace = ?2 AND NOT EXISTS
                (SELECT 1 FROM iceberg_tables WHERE catalog_name = ?1 AND table_namespace = ?2)",
        )
        .bind(CATALOG)
        .bind(namespace)
        .execute(&self.pool)
        .await
        .map_err(|e| error::sql("drop a schema", e))?;
        if done.rows_affected() > 0 {
            Ok(())
        } else if self.tables(namespace).await?.is_empty() {
            Err(Error::not_found(format!("schema \"{namespace}\" does not exist")))
        } else {
            Err(Error::invalid(format!("schema \"{namespace}\" still holds tables"))
                .with_hint("Drop the tables first."))
        }
    }
}
