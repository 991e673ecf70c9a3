use std::collections::BTreeMap;
use std::sync::Arc;

use tidewater_catalogs::{ConnectionSpec, Definition, DefinitionKind, StreamConnector};

use super::secret::{self, create_definition, duplicate, new_definition, require, skipping};
use crate::dialect::{self, AlterConnection, CreateConnection, Name, ObjectKind, OptionValue, Statement};
use crate::engine::Engine;
use crate::error::Result;
use crate::run::guard;
use crate::session::{Outcome, StatementContext};
use crate::{SqlError, SqlState};

/// Our own option beside the connector's: whether the broker is reached before the connection is kept.
const VALIDATE: &str = "validate";

pub(super) async fn create_connection(ctx: &StatementContext<'_>, create: &CreateConnection) -> Result<Outcome> {
    let metastore = &ctx.engine.metastore;
    let name = create.name.last();
    let found = metastore.get(DefinitionKind::Connection, name).await?;
    if found.is_some() {
        if create.if_not_exists {
            ctx.notice(skipping(ObjectKind::Connection, name));
            return Ok(Outcome::done("CREATE CONNECTION"));
        }
        if !create.or_replace {
            return Err(duplicate(ObjectKind::Connection, name));
        }
    }
    guard(&ctx.cancel, ctx.deadline, check(ctx.engine, create)).await?;
    let stored = CreateConnection { or_replace: false, if_not_exists: false, ..create.clone() };
    match found {
        Some(old) => {
            metastore.update(&Definition { sql: stored.to_string(), ..old }).await?;
            restart_users(ctx, &[name.to_owned()]).await?;
        }
        None => {
            let definition = new_definition(DefinitionKind::Connection, name, stored.to_string(), BTreeMap::new());
            create_definition(metastore, ObjectKind::Connection, &definition).await?;
        }
    }
    Ok(Outcome::done("CREATE CONNECTION"))
}

pub(super) async fn alter_connection(ctx: &StatementContext<'_>, alter: &AlterConnection) -> Result<Outcome> {
    let name = alter.name.last();
    let old = require(&ctx.engine.metastore, DefinitionKind::Connection, ObjectKind::Connection, name).await?;
    let mut create = parse(&old)?;
    for entry in &alter.set.0 {
        create.options.set(&entry.name, entry.value.clone());
    }
    for option in &alter.reset {
        known(connector(ctx.engine, &create.kind)?.as_ref(), name, option)?;
        create.options.remove(option);
    }
    guard(&ctx.cancel, ctx.deadline, check(ctx.engine, &create)).await?;
    ctx.engine.metastore.update(&Definition { sql: create.to_string(), ..old }).await?;
    restart_users(ctx, &[name.to_owned()]).await?;
    Ok(Outcome::done("ALTER CONNECTION"))
}

pub(super) async fn validate_connection(ctx: &StatementContext<'_>, name: &Name) -> Result<Outcome> {
    let found = require(&ctx.engine.metastore, DefinitionKind::Connection, ObjectKind::Connection, name.last()).await?;
    let create = parse(&found)?;
    let spec = resolve(ctx.engine, &create).await?;
    let connector = connector(ctx.engine, &create.kind)?;
    guard(&ctx.cancel, ctx.deadline, async { Ok(connector.probe(&spec).await?) }).await?;
    Ok(Outcome::done("VALIDATE CONNECTION"))
}

/// Options known, values right, secrets there, and the broker reached unless `validate = false`.
async fn check(engine: &Engine, create: &CreateConnection) -> Result<()> {
    let name = create.name.last();
    let connector = connector(engine, &create.kind)?;
    for entry in &create.options.0 {
        known(connector.as_ref(), name, &entry.name)?;
    }
    let validate = match create.options.get(VALIDATE) {
        None | Some(OptionValue::Bool(true)) => true,
        Some(OptionValue::Bool(false)) => false,
        Some(_) => {
            return Err(SqlError::new(
                SqlState::INVALID_PARAMETER,
                format!("invalid value for option \"{VALIDATE}\" of connection \"{name}\""),
            )
            .with_hint("Use true or false."));
        }
    };
    let spec = resolve(engine, create).await?;
    connector.check_options(&spec)?;
    if validate {
        connector.probe(&spec).await.map_err(|e| {
            let mut e = SqlError::from(e);
            if e.hint.is_none() {
                e = e.with_hint("WITH (…, validate = false) keeps the connection without reaching the broker.");
            }
            e
        })?;
    }
    Ok(())
}

fn known(connector: &dyn StreamConnector, name: &str, option: &str) -> Result<()> {
    let choices: Vec<&str> = connector.connection_options().iter().copied().chain([VALIDATE]).collect();
    dialect::known_option(option, &format!("connection \"{name}\""), &choices)
}

pub(super) fn connector(engine: &Engine, kind: &str) -> Result<Arc<dyn StreamConnector>> {
    engine.connectors.iter().find(|c| c.kind() == kind).cloned().ok_or_else(|| {
        let kinds = engine.connectors.iter().map(|c| c.kind().to_uppercase()).collect::<Vec<_>>().join(", ");
        SqlError::new(SqlState::INVALID_PARAMETER, format!("there are no connections of kind \"{kind}\""))
            .with_hint(format!("Use {kinds}."))
    })
}

pub(super) fn parse(definition: &Definition) -> Result<CreateConnection> {
    match dialect::parse_stored(&definition.sql)? {
        Statement::CreateConnection(create) => Ok(create),
        _ => Err(broken(definition)),
    }
}

pub(super) fn broken(definition: &Definition) -> SqlError {
    SqlError::internal(format!("the definition of {} \"{}\" cannot be read", definition.kind.as_str(), definition.name))
}

/// The connection as the connector takes it, with its secrets filled in.
async fn resolve(engine: &Engine, create: &CreateConnection) -> Result<ConnectionSpec> {
    let mut options = BTreeMap::new();
    for entry in &create.options.0 {
        if entry.name == VALIDATE {
            continue;
        }
        let value = match &entry.value {
            OptionValue::Text(text) | OptionValue::Number(text) => text.clone(),
            OptionValue::Bool(value) => value.to_string(),
            OptionValue::Secret(name) => secret::resolve(&engine.metastore, name.last()).await?,
        };
        options.insert(entry.name.clone(), value);
    }
    Ok(ConnectionSpec { name: create.name.last().to_owned(), kind: create.kind.clone(), options })
}

/// A stored connection by name, resolved.
pub(super) async fn load(engine: &Engine, name: &str) -> Result<ConnectionSpec> {
    let found = engine.metastore.get(DefinitionKind::Connection, name).await?.ok_or_else(|| {
        SqlError::new(SqlState::UNDEFINED_OBJECT, format!("connection \"{name}\" does not exist"))
            .with_hint("SHOW CONNECTIONS lists those there are; CREATE CONNECTION makes one.")
    })?;
    resolve(engine, &parse(&found)?).await
}

/// Connections that use a secret.
pub(super) async fn users_of_secret(engine: &Engine, secret: &str) -> Result<Vec<String>> {
    let mut users = Vec::new();
    for definition in engine.metastore.list().await? {
        if definition.kind == DefinitionKind::Connection
            && parse(&definition)?
                .options
                .0
                .iter()
                .any(|e| matches!(&e.value, OptionValue::Secret(name) if name.last() == secret))
        {
            users.push(definition.name);
        }
    }
    Ok(users)
}

pub(super) async fn restart_users_of_secret(ctx: &StatementContext<'_>, secret: &str) -> Result<()> {
    let connections = users_of_secret(ctx.engine, secret).await?;
    restart_users(ctx, &connections).await
}

/// Flows go on with the new options; what they have read so far is committed first.
async fn restart_users(ctx: &StatementContext<'_>, connections: &[String]) -> Result<()> {
    let definitions = ctx.engine.metastore.list().await?;
    let mut streams = Vec::new();
    for definition in &definitions {
        if definition.kind == DefinitionKind::Stream
            && connections.contains(&super::stream::parse(definition)?.1.connection)
        {
            streams.push(definition.name.clone());
        }
    }
    for flow in definitions {
        if flow.kind == DefinitionKind::Flow
            && super::flow::reads(&flow).is_some_and(|s| streams.iter().any(|x| x == s))
        {
            super::flow::restart(ctx, flow.id, flow.name).await?;
        }
    }
    Ok(())
}
