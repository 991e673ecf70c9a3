//! Catalogs, schemas, tables and keys. They come from `information_schema`, by the path of every other statement.

use std::sync::{Arc, LazyLock};

use arrow::array::{Array, AsArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use arrow_flight::sql::{CommandGetCatalogs, CommandGetDbSchemas, CommandGetTableTypes, CommandGetTables};
use futures::TryStreamExt;
use tidewater_sql::{Outcome, SqlError};
use tonic::Status;

use super::sessions::FlightSession;
use super::statement::{Statement, wire_schema};
use super::status::{internal, status};

/// What a table may be called in GetTables.
const TABLE_TYPES: [&str; 4] = ["TABLE", "VIEW", "STREAM", "SYSTEM TABLE"];
const SYSTEM_SCHEMAS: [&str; 2] = ["pg_catalog", "information_schema"];

pub(super) async fn catalogs(session: &FlightSession, query: CommandGetCatalogs) -> Result<RecordBatch, Status> {
    let mut builder = query.into_builder();
    for [name] in rows(session, "SELECT DISTINCT catalog_name FROM information_schema.schemata").await? {
        builder.append(name);
    }
    builder.build().map_err(internal)
}

pub(super) async fn schemas(session: &FlightSession, query: CommandGetDbSchemas) -> Result<RecordBatch, Status> {
    let mut builder = query.into_builder();
    let sql = "SELECT DISTINCT catalog_name, schema_name FROM information_schema.schemata";
    for [catalog, schema] in rows(session, sql).await? {
        builder.append(catalog, schema);
    }
    builder.build().map_err(internal)
}

pub(super) fn table_types(query: CommandGetTableTypes) -> Result<RecordBatch, Status> {
    let mut builder = query.into_builder();
    TABLE_TYPES.iter().for_each(|t| builder.append(t));
    builder.build().map_err(internal)
}

pub(super) async fn tables(session: &FlightSession, query: CommandGetTables) -> Result<RecordBatch, Status> {
    let include_schema = query.include_schema;
    let mut wanted = CommandGetTables { include_schema: false, ..query.clone() }.into_builder();
    let nothing = Schema::empty();
    let sql = "SELECT table_catalog, table_schema, table_name, table_type FROM information_schema.tables";
    for [catalog, schema, table, kind] in rows(session, sql).await? {
        let kind = table_type(&schema, &kind);
        wanted.append(catalog, schema, table, kind, &nothing).map_err(internal)?;
    }
    let wanted = wanted.build().map_err(internal)?;
    if !include_schema {
        return Ok(wanted);
    }
    let mut builder = query.into_builder();
    for [catalog, schema, table, kind] in texts(&wanted)? {
        let columns = columns(session, &catalog, &schema, &table).await;
        builder.append(catalog, schema, table, kind, columns.as_ref().map_or(&nothing, |s| s)).map_err(internal)?;
    }
    builder.build().map_err(internal)
}

fn table_type(schema: &str, kind: &str) -> &'static str {
    match kind {
        _ if SYSTEM_SCHEMAS.contains(&schema) => "SYSTEM TABLE",
        "VIEW" => "VIEW",
        "FOREIGN" | "STREAM" => "STREAM",
        _ => "TABLE",
    }
}

/// The columns that `SELECT *` would return. None where the table cannot be read now: it is listed all the same.
async fn columns(session: &FlightSession, catalog: &str, schema: &str, table: &str) -> Option<SchemaRef> {
    let quote = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
    let sql = format!("SELECT * FROM {}.{}.{}", quote(catalog), quote(schema), quote(table));
    let statement = Statement::prepare(session, &sql).await.ok()?;
    Some(Arc::clone(statement.schema()))
}

/// The rows of a query over text columns.
async fn rows<const N: usize>(session: &FlightSession, sql: &str) -> Result<Vec<[String; N]>, Status> {
    let mut fork = session.fork().await?;
    let parsed = fork.parse(sql).map_err(status)?.pop().ok_or_else(|| internal("no statement"))?;
    let prepared = fork.prepare(&parsed, &[]).await.map_err(status)?;
    let Outcome::Rows { stream, columns, .. } = fork.execute(&prepared, Vec::new()).await.map_err(status)? else {
        return Err(internal("a query returned no rows"));
    };
    let schema = wire_schema(&columns);
    let batches: Vec<RecordBatch> = stream.try_collect().await.map_err(|e| status(SqlError::from(e)))?;
    let mut out = Vec::new();
    for batch in batches {
        let columns = (batch.columns().iter().zip(schema.fields()))
            .map(|(c, f)| arrow::compute::cast(c, f.data_type()))
            .collect::<Result<Vec<_>, _>>()
            .map_err(internal)?;
        out.extend(texts(&RecordBatch::try_new(Arc::clone(&schema), columns).map_err(internal)?)?);
    }
    Ok(out)
}

fn texts<const N: usize>(batch: &RecordBatch) -> Result<Vec<[String; N]>, Status> {
    let mut columns = Vec::with_capacity(N);
    for column in batch.columns().iter().take(N) {
        columns.push(column.as_string_opt::<i32>().ok_or_else(|| internal("a name is not text"))?);
    }
    if columns.len() != N {
        return Err(internal("a column is missing"));
    }
    Ok((0..batch.num_rows())
        .map(|row| {
            std::array::from_fn(
                |i| if columns[i].is_null(row) { String::new() } else { columns[i].value(row).to_owned() },
            )
        })
        .collect())
}

fn text(name: &str, nullable: bool) -> Field {
    Field::new(name, DataType::Utf8, nullable)
}

/// CommandGetPrimaryKeys; no table has one that is declared.
pub(super) static PRIMARY_KEYS: LazyLock<SchemaRef> = LazyLock::new(|| {
    Arc::new(Schema::new(vec![
        text("catalog_name", true),
        text("db_schema_name", true),
        text("table_name", false),
        text("column_name", false),
        Field::new("key_sequence", DataType::Int32, false),
        text("key_name", true),
    ]))
});

/// CommandGetExportedKeys, CommandGetImportedKeys and CommandGetCrossReference; there are no foreign keys.
pub(super) static FOREIGN_KEYS: LazyLock<SchemaRef> = LazyLock::new(|| {
    Arc::new(Schema::new(vec![
        text("pk_catalog_name", true),
        text("pk_db_schema_name", true),
        text("pk_table_name", false),
        text("pk_column_name", false),
        text("fk_catalog_name", true),
        text("fk_db_schema_name", true),
        text("fk_table_name", false),
        text("fk_column_name", false),
        Field::new("key_sequence", DataType::Int32, false),
        text("fk_key_name", true),
        text("pk_key_name", true),
        Field::new("update_rule", DataType::UInt8, false),
        Field::new("delete_rule", DataType::UInt8, false),
    ]))
});
