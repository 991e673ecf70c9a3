use std::sync::Arc;

use tidewater_catalogs::{DEFAULT_CATALOG, Definition, DefinitionKind, ErrorKind, SYSTEM_CATALOG, TableName};

use super::flow::Stopped;
use super::schema::{self, Found};
use super::secret::{skipping_drop, undefined};
use super::{connection, flow, stream};
use crate::dialect::{Drop, Name, ObjectKind};
use crate::error::Result;
use crate::plan::relation;
use crate::session::{Outcome, StatementContext};
use crate::{SqlError, SqlState};

/// How often the flows to stop are counted again, where new ones come in between.
const ATTEMPTS: usize = 10;

pub(super) async fn drop_objects(ctx: &StatementContext<'_>, drop: &Drop) -> Result<Outcome> {
    for _ in 0..ATTEMPTS {
        let stopped = flow::stop_all(ctx, doomed(ctx, drop).await?).await?;
        let _names = schema::lock_names(ctx).await?;
        // One that was made while the others drained has to drain first, with the names free for all.
        if doomed(ctx, drop).await?.iter().any(|flow| !stopped.has(flow.id)) {
            continue;
        }
        for name in &drop.names {
            match drop.kind {
                ObjectKind::Secret => drop_secret(ctx, drop, name.last()).await?,
                ObjectKind::Connection => drop_connection(ctx, drop, name.last(), &stopped).await?,
                ObjectKind::Catalog => {
                    if !super::catalog::drop_catalog(ctx, drop, name.last()).await? {
                        missing(ctx, drop, name.last())?;
                    }
                }
                ObjectKind::Schema => drop_schema(ctx, drop, name, &stopped).await?,
                ObjectKind::Flow => drop_flow(ctx, drop, name).await?,
                ObjectKind::Stream | ObjectKind::StreamingTable | ObjectKind::Table => {
                    drop_relation(ctx, drop, name, &stopped).await?;
                }
            }
        }
        return Ok(Outcome::done(format!("DROP {}", drop.kind.keyword())));
    }
    let text = "streaming tables are made faster than they can be dropped";
    Err(tidewater_catalogs::Error::new(ErrorKind::Conflict, text).into())
}

/// Flows that the statement ends if nothing is in its way; whether it may is looked at later.
async fn doomed(ctx: &StatementContext<'_>, drop: &Drop) -> Result<Vec<Definition>> {
    let (mut tables, mut streams) = (Vec::new(), Vec::new());
    for name in &drop.names {
        match drop.kind {
            ObjectKind::StreamingTable => {
                if let Some((full, Found::StreamingTable)) = find(ctx, name).await? {
                    tables.push(full);
                }
            }
            ObjectKind::Stream if drop.cascade => {
                if let Some((full, Found::Stream)) = find(ctx, name).await? {
                    streams.push(full);
                }
            }
            ObjectKind::Connection if drop.cascade => streams.extend(streams_of(ctx, name.last()).await?),
            ObjectKind::Schema if drop.cascade => {
                let (catalog, schema) = schema::schema_name(name)?;
                // It is refused below, or has nothing in it.
                let kept = catalog == DEFAULT_CATALOG && schema == tidewater_catalogs::DEFAULT_SCHEMA;
                if !kept && schema::exists(ctx.engine, catalog, schema).await? {
                    tables.extend(ctx.engine.lake.list_tables(catalog, schema).await?);
                    streams.extend(streams_in(ctx, catalog, schema).await?);
                }
            }
            _ => {}
        }
    }
    if tables.is_empty() && streams.is_empty() {
        return Ok(Vec::new());
    }
    let tables: Vec<String> = tables.iter().map(ToString::to_string).collect();
    let streams: Vec<String> = streams.iter().map(ToString::to_string).collect();
    let mut flows = ctx.engine.metastore.list().await?;
    flows.retain(|d| {
        d.kind == DefinitionKind::Flow
            && (tables.contains(&d.name) || flow::reads(d).is_some_and(|s| streams.iter().any(|x| x == s)))
    });
    Ok(flows)
}

/// Streams over a connection.
async fn streams_of(ctx: &StatementContext<'_>, connection: &str) -> Result<Vec<TableName>> {
    let mut streams = Vec::new();
    for definition in ctx.engine.metastore.list().await? {
        if definition.kind == DefinitionKind::Stream {
            let (create, options) = stream::parse(&definition)?;
            if options.connection == connection {
                streams.push(schema::table_name(&create.name)?);
            }
        }
    }
    Ok(streams)
}

async fn streams_in(ctx: &StatementContext<'_>, catalog: &str, schema: &str) -> Result<Vec<TableName>> {
    let mut streams = Vec::new();
    for definition in ctx.engine.metastore.list().await? {
        if definition.kind == DefinitionKind::Stream {
            let stream = schema::table_name(&stream::parse(&definition)?.0.name)?;
            if stream.catalog == catalog && stream.schema == schema {
                streams.push(stream);
            }
        }
    }
    Ok(streams)
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
    let users = super::catalog::users_of_secret(ctx.engine, name).await?;
    if !users.is_empty() {
        let users: Vec<String> = users.iter().map(|u| format!("catalog \"{u}\"")).collect();
        return Err(stream::in_use(drop.kind, name, &users, "drop").with_hint("Drop the catalogs first."));
    }
    metastore.as_ref().drop(DefinitionKind::Secret, name).await?;
    Ok(())
}

async fn drop_connection(ctx: &StatementContext<'_>, drop: &Drop, name: &str, stopped: &Arc<Stopped>) -> Result<()> {
    let metastore = &ctx.engine.metastore;
    if metastore.get(DefinitionKind::Connection, name).await?.is_none() {
        return missing(ctx, drop, name);
    }
    let users = streams_of(ctx, name).await?;
    if !users.is_empty() {
        if !drop.cascade {
            let users: Vec<String> = users.iter().map(|u| format!("stream \"{}\"", u.name)).collect();
            return Err(stream::in_use(drop.kind, name, &users, "drop"));
        }
        for user in users {
            drop_stream(ctx, drop, &user, stopped).await?;
        }
    }
    metastore.as_ref().drop(DefinitionKind::Connection, name).await?;
    Ok(())
}

/// What stands under a name by the search path.
async fn find(ctx: &StatementContext<'_>, name: &Name) -> Result<Option<(TableName, Found)>> {
    for candidate in relation::candidates(ctx.settings, name)? {
        if candidate.catalog == DEFAULT_CATALOG && candidate.schema == "pg_catalog" {
            continue;
        }
        if let Some(kind) = schema::find_relation(ctx.engine, &candidate).await? {
            return Ok(Some((candidate, kind)));
        }
    }
    Ok(None)
}

/// Streams, streaming tables and plain tables: the name decides what it is, the statement must agree.
async fn drop_relation(ctx: &StatementContext<'_>, drop: &Drop, name: &Name, stopped: &Arc<Stopped>) -> Result<()> {
    let Some((full, kind)) = find(ctx, name).await? else { return missing(ctx, drop, name.last()) };
    if kind.kind() != drop.kind {
        return Err(SqlError::new(
            SqlState::WRONG_OBJECT_TYPE,
            format!("\"{}\" is not a {}", full.name, drop.kind.noun()),
        )
        .with_hint(format!("Use DROP {} to remove a {}.", kind.kind().keyword(), kind.kind().noun())));
    }
    match kind {
        Found::Stream => drop_stream(ctx, drop, &full, stopped).await,
        Found::StreamingTable => flow::drop_streaming_table(ctx, &full, drop.keep_data, stopped).await,
        Found::Table => {
            refuse_live_dead_letters(ctx, &full).await?;
            ctx.engine.lake.drop_table(&full, None, true).await?;
            Ok(())
        }
    }
}

/// A flow would lose the dead letters that it has not written yet.
async fn refuse_live_dead_letters(ctx: &StatementContext<'_>, table: &TableName) -> Result<()> {
    if table.catalog != SYSTEM_CATALOG {
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
async fn drop_stream(ctx: &StatementContext<'_>, drop: &Drop, name: &TableName, stopped: &Arc<Stopped>) -> Result<()> {
    let users = stream::users(ctx.engine, &name.to_string()).await?;
    if !users.is_empty() {
        if !drop.cascade {
            let users: Vec<String> = users.iter().map(|u| format!("streaming table \"{}\"", u.name)).collect();
            return Err(stream::in_use(ObjectKind::Stream, &name.name, &users, "drop"));
        }
        for user in users {
            let table = flow::target(&user)?;
            flow::drop_streaming_table(ctx, &table, false, stopped).await?;
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
        None | Some(Some("0")) => match ctx.engine.lake.drop_table(&dlq, Some(table.info().uuid), true).await {
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

async fn drop_schema(ctx: &StatementContext<'_>, drop: &Drop, name: &Name, stopped: &Arc<Stopped>) -> Result<()> {
    let engine = ctx.engine;
    let (catalog, schema) = schema::schema_name(name)?;
    let own = [tidewater_catalogs::DEFAULT_SCHEMA, "system", "pg_catalog", "information_schema"];
    if catalog == DEFAULT_CATALOG && own.contains(&schema) {
        return Err(SqlError::new(
            SqlState::DEPENDENT_OBJECTS,
            format!("cannot drop schema \"{schema}\" because it is required by the server"),
        ));
    }
    if !schema::exists(engine, catalog, schema).await? {
        return missing(ctx, drop, schema);
    }
    let streams = streams_in(ctx, catalog, schema).await?;
    let tables = engine.lake.list_tables(catalog, schema).await?;
    let empty = streams.is_empty() && tables.is_empty();
    if !drop.cascade && !empty {
        let users: Vec<String> = streams.iter().chain(&tables).take(20).map(|t| format!("\"{}\"", t.name)).collect();
        return Err(stream::in_use(ObjectKind::Schema, schema, &users, "drop"));
    }
    for table in tables {
        if engine.metastore.get(DefinitionKind::Flow, &table.to_string()).await?.is_some() {
            flow::drop_streaming_table(ctx, &table, false, stopped).await?;
        } else {
            engine.lake.drop_table(&table, None, true).await?;
        }
    }
    for stream in streams {
        drop_stream(ctx, drop, &stream, stopped).await?;
    }
    engine.lake.drop_schema(catalog, schema).await?;
    Ok(())
}
