use tidewater_catalogs::{DEFAULT_CATALOG, DefinitionKind, ErrorKind, TableName};

use super::schema::{self, Found};
use super::secret::{skipping_drop, undefined};
use super::{connection, flow, stream};
use crate::dialect::{Drop, Name, ObjectKind};
use crate::error::Result;
use crate::plan::relation;
use crate::session::{Outcome, StatementContext};
use crate::{SqlError, SqlState};

pub(super) async fn drop_objects(ctx: &StatementContext<'_>, drop: &Drop) -> Result<Outcome> {
    let _names = schema::NAMES.lock().await;
    for name in &drop.names {
        match drop.kind {
            ObjectKind::Secret => drop_secret(ctx, drop, name.last()).await?,
            ObjectKind::Connection => drop_connection(ctx, drop, name.last()).await?,
            ObjectKind::Schema => drop_schema(ctx, drop, name).await?,
            ObjectKind::Flow => drop_flow(ctx, drop, name).await?,
            ObjectKind::Stream | ObjectKind::StreamingTable | ObjectKind::Table => {
                drop_relation(ctx, drop, name).await?;
            }
        }
    }
    Ok(Outcome::done(format!("DROP {}", drop.kind.keyword())))
}

fn missing(ctx: &StatementContext<'_>, drop: &Drop, name: &str) -> Result<()> {
    if drop.if_exists {
        ctx.notice(skipping_drop(drop.kind, name));
        return Ok(());
    }
    Err(undefined(drop.kind, name))
}

fn no_cascade(drop: &Drop) -> SqlError {
    SqlError::unsupported(format!("DROP {} … CASCADE is not supported", drop.kind.keyword()))
        .with_hint("Drop what uses it by name.")
}

async fn drop_secret(ctx: &StatementContext<'_>, drop: &Drop, name: &str) -> Result<()> {
    let metastore = &ctx.engine.metastore;
    if metastore.get(DefinitionKind::Secret, name).await?.is_none() {
        return missing(ctx, drop, name);
    }
    let users = connection::users_of_secret(ctx.engine, name).await?;
    if !users.is_empty() {
        if drop.cascade {
            return Err(no_cascade(drop));
        }
        let users: Vec<String> = users.iter().map(|u| format!("connection \"{u}\"")).collect();
        return Err(stream::in_use(drop.kind, name, &users, "drop").with_hint("Drop the connections first."));
    }
    metastore.as_ref().drop(DefinitionKind::Secret, name).await?;
    Ok(())
}

async fn drop_connection(ctx: &StatementContext<'_>, drop: &Drop, name: &str) -> Result<()> {
    let metastore = &ctx.engine.metastore;
    if metastore.get(DefinitionKind::Connection, name).await?.is_none() {
        return missing(ctx, drop, name);
    }
    let mut users = Vec::new();
    for definition in metastore.list().await? {
        if definition.kind == DefinitionKind::Stream && stream::parse(&definition)?.1.connection == name {
            users.push(schema::table_name(&stream::parse(&definition)?.0.name)?);
        }
    }
    if !users.is_empty() {
        if !drop.cascade {
            let users: Vec<String> = users.iter().map(|u| format!("stream \"{}\"", u.name)).collect();
            return Err(stream::in_use(drop.kind, name, &users, "drop"));
        }
        for user in users {
            drop_stream(ctx, drop, &user).await?;
        }
    }
    metastore.as_ref().drop(DefinitionKind::Connection, name).await?;
    Ok(())
}

/// Streams, streaming tables and plain tables: the name decides what it is, the statement must agree.
async fn drop_relation(ctx: &StatementContext<'_>, drop: &Drop, name: &Name) -> Result<()> {
    let mut found = None;
    for candidate in relation::candidates(ctx.settings, name)? {
        if candidate.catalog == DEFAULT_CATALOG && candidate.schema == "pg_catalog" {
            continue;
        }
        if let Some(kind) = schema::find_relation(ctx.engine, &candidate).await? {
            found = Some((candidate, kind));
            break;
        }
    }
    let Some((full, kind)) = found else { return missing(ctx, drop, name.last()) };
    if kind.kind() != drop.kind {
        return Err(SqlError::new(
            SqlState::WRONG_OBJECT_TYPE,
            format!("\"{}\" is not a {}", full.name, drop.kind.noun()),
        )
        .with_hint(format!("Use DROP {} to remove a {}.", kind.kind().keyword(), kind.kind().noun())));
    }
    match kind {
        Found::Stream => drop_stream(ctx, drop, &full).await,
        Found::StreamingTable => flow::drop_streaming_table(ctx, &full, drop.keep_data).await,
        Found::Table => {
            refuse_live_dead_letters(ctx, &full).await?;
            ctx.engine.lake.drop_table(&full, true).await?;
            Ok(())
        }
    }
}

/// A flow would lose the dead letters that it has not written yet.
async fn refuse_live_dead_letters(ctx: &StatementContext<'_>, table: &TableName) -> Result<()> {
    if table.catalog == DEFAULT_CATALOG {
        return Ok(());
    }
    let mut users = Vec::new();
    for definition in ctx.engine.metastore.list().await? {
        if flow::dead_letters(&definition).as_ref() == Some(table) {
            users.push(format!("streaming table \"{}\"", definition.name));
        }
    }
    if users.is_empty() {
        return Ok(());
    }
    Err(stream::in_use(ObjectKind::Table, &table.name, &users, "drop").with_hint("Drop the streaming tables first."))
}

/// The topic stays, and so do dead letters that someone may want to see.
async fn drop_stream(ctx: &StatementContext<'_>, drop: &Drop, name: &TableName) -> Result<()> {
    let users = stream::users(ctx.engine, &name.to_string()).await?;
    if !users.is_empty() {
        if !drop.cascade {
            let users: Vec<String> = users.iter().map(|u| format!("streaming table \"{u}\"")).collect();
            return Err(stream::in_use(ObjectKind::Stream, &name.name, &users, "drop"));
        }
        for user in users {
            let Some(definition) = ctx.engine.metastore.get(DefinitionKind::Flow, &user).await? else { continue };
            let table = flow::target(&definition)?;
            flow::drop_streaming_table(ctx, &table, false).await?;
        }
    }
    ctx.engine.metastore.as_ref().drop(DefinitionKind::Stream, &name.to_string()).await?;
    drop_empty_dead_letters(ctx, name).await
}

async fn drop_empty_dead_letters(ctx: &StatementContext<'_>, stream: &TableName) -> Result<()> {
    let dlq = TableName::dead_letters(stream);
    let table = match ctx.engine.lake.load_table(&dlq).await {
        Ok(table) => table,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(e.into()),
    };
    let rows = table.info().current_snapshot.as_ref().map(|s| s.summary.get("total-records").cloned());
    match rows.as_ref().map(Option::as_deref) {
        None | Some(Some("0")) => match ctx.engine.lake.drop_table(&dlq, true).await {
            Err(e) if e.kind() != ErrorKind::NotFound => Err(e.into()),
            _ => Ok(()),
        },
        Some(_) => {
            ctx.notice(crate::session::Notice::notice(format!(
                "dead letters of stream \"{}\" are kept in {}",
                stream.name,
                stream::dead_letters_text(stream)
            )));
            Ok(())
        }
    }
}

async fn drop_flow(ctx: &StatementContext<'_>, drop: &Drop, name: &Name) -> Result<()> {
    let Some(definition) = flow::find(ctx, name).await? else { return missing(ctx, drop, name.last()) };
    let table = flow::target(&definition)?;
    Err(SqlError::new(SqlState::WRONG_OBJECT_TYPE, format!("flow \"{}\" belongs to a streaming table", table.name))
        .with_hint("Use DROP STREAMING TABLE, with KEEP DATA to keep the rows as a table."))
}

async fn drop_schema(ctx: &StatementContext<'_>, drop: &Drop, name: &Name) -> Result<()> {
    let engine = ctx.engine;
    let schema = schema::schema_name(name)?;
    if schema == tidewater_catalogs::DEFAULT_SCHEMA || matches!(schema, "system" | "pg_catalog" | "information_schema")
    {
        return Err(SqlError::new(
            SqlState::DEPENDENT_OBJECTS,
            format!("cannot drop schema \"{schema}\" because it is required by the server"),
        ));
    }
    if !schema::exists(engine, schema).await? {
        return missing(ctx, drop, schema);
    }
    let mut streams = Vec::new();
    for definition in engine.metastore.list().await? {
        if definition.kind == DefinitionKind::Stream {
            let stream = schema::table_name(&stream::parse(&definition)?.0.name)?;
            if stream.schema == schema {
                streams.push(stream);
            }
        }
    }
    let tables = engine.lake.list_tables(DEFAULT_CATALOG, schema).await?;
    let empty = streams.is_empty() && tables.is_empty();
    if !drop.cascade && !empty {
        let users: Vec<String> = streams.iter().chain(&tables).take(20).map(|t| format!("\"{}\"", t.name)).collect();
        return Err(stream::in_use(ObjectKind::Schema, schema, &users, "drop"));
    }
    for table in tables {
        if engine.metastore.get(DefinitionKind::Flow, &table.to_string()).await?.is_some() {
            flow::drop_streaming_table(ctx, &table, false).await?;
        } else {
            engine.lake.drop_table(&table, true).await?;
        }
    }
    for stream in streams {
        drop_stream(ctx, drop, &stream).await?;
    }
    engine.lake.drop_schema(DEFAULT_CATALOG, schema).await?;
    Ok(())
}
