use tidewater_catalogs::{DEFAULT_CATALOG, DefinitionKind, ErrorKind, SYSTEM_CATALOG, TableName};
use tokio::sync::MutexGuard;

use super::secret::{duplicate, skipping};
use crate::dialect::{CreateSchema, Name, ObjectKind};
use crate::engine::Engine;
use crate::error::Result;
use crate::run::guard;
use crate::session::{Outcome, StatementContext};
use crate::{SqlError, SqlState};

pub(super) async fn create_schema(ctx: &StatementContext<'_>, create: &CreateSchema) -> Result<Outcome> {
    let (catalog, schema) = schema_name(&create.name)?;
    if catalog == DEFAULT_CATALOG && (schema.starts_with("pg_") || matches!(schema, "information_schema" | "system")) {
        return Err(SqlError::new(SqlState::RESERVED_NAME, format!("unacceptable schema name \"{schema}\""))
            .with_detail("Schemas of this name belong to the server."));
    }
    if exists(ctx.engine, catalog, schema).await? {
        if create.if_not_exists {
            ctx.notice(skipping(ObjectKind::Schema, schema));
            return Ok(Outcome::done("CREATE SCHEMA"));
        }
        return Err(duplicate(ObjectKind::Schema, schema));
    }
    match ctx.engine.lake.create_schema(catalog, schema).await {
        Ok(()) => Ok(Outcome::done("CREATE SCHEMA")),
        Err(e) if e.kind() == ErrorKind::AlreadyExists && create.if_not_exists => {
            ctx.notice(skipping(ObjectKind::Schema, schema));
            Ok(Outcome::done("CREATE SCHEMA"))
        }
        Err(e) if e.kind() == ErrorKind::AlreadyExists => Err(duplicate(ObjectKind::Schema, schema)),
        Err(e) => Err(e.into()),
    }
}

/// `s` or `catalog.s`, with its catalog.
pub(super) fn schema_name(name: &Name) -> Result<(&str, &str)> {
    match name.0.as_slice() {
        [schema] => Ok((DEFAULT_CATALOG, schema)),
        [catalog, _] if catalog == SYSTEM_CATALOG => Err(SqlError::new(
            SqlState::INSUFFICIENT_PRIVILEGE,
            format!("permission denied: catalog \"{catalog}\" belongs to the server"),
        )),
        [catalog, schema] => Ok((catalog, schema)),
        _ => Err(SqlError::syntax("improper schema name (too many dotted names)")),
    }
}

pub(super) async fn exists(engine: &Engine, catalog: &str, schema: &str) -> Result<bool> {
    Ok(engine.lake.schema_exists(catalog, schema).await?)
}

/// Held from the last look at a name to the moment it is taken or given up, so that a stream and a table cannot both
/// get it and nothing is dropped under something new that uses it. Never while a broker is asked or a flow drains.
pub(crate) static NAMES: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// Waits for [`NAMES`], as long as the statement may.
pub(super) async fn lock_names(ctx: &StatementContext<'_>) -> Result<MutexGuard<'static, ()>> {
    guard(&ctx.cancel, ctx.deadline, async { Ok(NAMES.lock().await) }).await
}

/// What stands under a name. Streams and tables share the names of a schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    Stream,
    StreamingTable,
    Table,
}

impl Found {
    pub fn kind(self) -> ObjectKind {
        match self {
            Self::Stream => ObjectKind::Stream,
            Self::StreamingTable => ObjectKind::StreamingTable,
            Self::Table => ObjectKind::Table,
        }
    }
}

pub(super) async fn find_relation(engine: &Engine, name: &TableName) -> Result<Option<Found>> {
    let full = name.to_string();
    if engine.metastore.get(DefinitionKind::Stream, &full).await?.is_some() {
        return Ok(Some(Found::Stream));
    }
    if engine.metastore.get(DefinitionKind::Flow, &full).await?.is_some() {
        return Ok(Some(Found::StreamingTable));
    }
    match engine.lake.load_table(name).await {
        Ok(_) => Ok(Some(Found::Table)),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e.into()),
    }
}

/// 3F000 where the schema of a new relation is not there.
pub(super) async fn require_schema(engine: &Engine, name: &TableName) -> Result<()> {
    if exists(engine, &name.catalog, &name.schema).await? {
        return Ok(());
    }
    Err(SqlError::new(SqlState::UNDEFINED_SCHEMA, format!("schema \"{}\" does not exist", name.schema)).with_hint(
        match name.catalog.as_str() {
            DEFAULT_CATALOG => format!("CREATE SCHEMA {} makes it.", crate::dialect::quote_ident(&name.schema)),
            catalog => {
                let schema = Name(vec![catalog.to_owned(), name.schema.clone()]);
                format!("CREATE SCHEMA {schema} makes it.")
            }
        },
    ))
}

/// 42P07, as PostgreSQL words it.
pub(super) fn relation_exists(name: &TableName, found: Found) -> SqlError {
    let e = SqlError::new(SqlState::DUPLICATE_TABLE, format!("relation \"{}\" already exists", name.name));
    e.with_detail(format!("It is a {}.", found.kind().noun()))
}

pub(super) fn relation_skipped(name: &TableName) -> crate::session::Notice {
    let mut notice = crate::session::Notice::notice(format!("relation \"{}\" already exists, skipping", name.name));
    notice.state = SqlState::DUPLICATE_TABLE;
    notice
}

/// The full name as statements write it.
pub(super) fn full_name(name: &TableName) -> Name {
    Name(vec![name.catalog.clone(), name.schema.clone(), name.name.clone()])
}

/// `CATALOG.SCHEMA.NAME` of a definition. Names with dots inside cannot be told apart in the text, so the
/// statement's own name is what counts.
pub(super) fn table_name(name: &Name) -> Result<TableName> {
    match name.0.as_slice() {
        [catalog, schema, table] => Ok(TableName::new(catalog, schema, table)),
        _ => Err(SqlError::internal(format!("name \"{name}\" of a definition is not complete"))),
    }
}
