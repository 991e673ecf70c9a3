use std::collections::BTreeMap;
use std::sync::Arc;

use tidewater_catalogs::{Definition, DefinitionKind, Error, Metastore};
use uuid::Uuid;

use crate::dialect::{AlterSecret, CreateSecret, ObjectKind, SecretFrom};
use crate::error::Result;
use crate::session::{Notice, Outcome, StatementContext};
use crate::{SqlError, SqlState};

/// Property of a definition that holds a literal value. The statement of the definition does not.
const VALUE: &str = "value";
const ENV: &str = "env";
const FILE: &str = "file";
/// Longest secret; certificates are a few kilobytes.
const MAX_SECRET_BYTES: u64 = 1 << 20;

pub(super) async fn create_secret(ctx: &StatementContext<'_>, create: &CreateSecret) -> Result<Outcome> {
    let metastore = &ctx.engine.metastore;
    let name = create.name.last();
    let found = metastore.get(DefinitionKind::Secret, name).await?;
    if found.is_some() && create.if_not_exists {
        ctx.notice(skipping(ObjectKind::Secret, name));
        return Ok(Outcome::done("CREATE SECRET"));
    }
    let properties = properties(&create.from);
    // One that cannot be read now is a slip in its name, not something to find out at three in the morning.
    read(name, &properties).await?;
    let stored = CreateSecret { or_replace: false, if_not_exists: false, ..create.clone() };
    match found {
        Some(old) if create.or_replace => {
            metastore.update(&Definition { sql: stored.to_string(), properties, ..old }).await?;
        }
        Some(_) => return Err(duplicate(ObjectKind::Secret, name)),
        None => {
            let definition = new_definition(DefinitionKind::Secret, name, stored.to_string(), properties);
            create_definition(metastore, ObjectKind::Secret, &definition).await?;
        }
    }
    if create.or_replace {
        super::connection::restart_users_of_secret(ctx, name).await?;
    }
    Ok(Outcome::done("CREATE SECRET"))
}

pub(super) async fn alter_secret(ctx: &StatementContext<'_>, alter: &AlterSecret) -> Result<Outcome> {
    let name = alter.name.last();
    let old = require(&ctx.engine.metastore, DefinitionKind::Secret, ObjectKind::Secret, name).await?;
    let properties = properties(&alter.from);
    read(name, &properties).await?;
    let stored =
        CreateSecret { or_replace: false, if_not_exists: false, name: alter.name.clone(), from: alter.from.clone() };
    ctx.engine.metastore.update(&Definition { sql: stored.to_string(), properties, ..old }).await?;
    super::connection::restart_users_of_secret(ctx, name).await?;
    Ok(Outcome::done("ALTER SECRET"))
}

fn properties(from: &SecretFrom) -> BTreeMap<String, String> {
    let (key, value) = match from {
        SecretFrom::Literal(text) => (VALUE, &text.0),
        SecretFrom::Env(name) => (ENV, name),
        SecretFrom::File(path) => (FILE, path),
    };
    BTreeMap::from([(key.to_owned(), value.clone())])
}

/// Where a secret comes from, for SHOW SECRETS: never the value.
pub(super) fn origin(definition: &Definition) -> String {
    match (definition.properties.get(ENV), definition.properties.get(FILE)) {
        (Some(name), _) => format!("env {name}"),
        (_, Some(path)) => format!("file {path}"),
        _ => "literal".to_owned(),
    }
}

/// The value of a secret, read anew at each use. Its text is in no error.
pub(super) async fn resolve(metastore: &Arc<dyn Metastore>, name: &str) -> Result<String, Error> {
    let definition = metastore.get(DefinitionKind::Secret, name).await?.ok_or_else(|| {
        Error::not_found(format!("secret \"{name}\" does not exist"))
            .with_hint(format!("CREATE SECRET {} AS '…' makes it.", crate::dialect::quote_ident(name)))
    })?;
    read(name, &definition.properties).await
}

async fn read(name: &str, properties: &BTreeMap<String, String>) -> Result<String, Error> {
    if let Some(value) = properties.get(VALUE) {
        return Ok(value.clone());
    }
    if let Some(variable) = properties.get(ENV) {
        return std::env::var(variable).map_err(|_| {
            Error::invalid(format!("secret \"{name}\": the server has no environment variable \"{variable}\""))
        });
    }
    let Some(path) = properties.get(FILE) else {
        return Err(Error::internal(format!("secret \"{name}\" has no value")));
    };
    let unreadable = |e: std::io::Error| {
        Error::invalid(format!("secret \"{name}\": the server cannot read file \"{path}\"")).with_source(e)
    };
    let size = tokio::fs::metadata(path).await.map_err(unreadable)?.len();
    if size > MAX_SECRET_BYTES {
        return Err(Error::invalid(format!(
            "secret \"{name}\": file \"{path}\" has {size} bytes, more than the limit of {MAX_SECRET_BYTES}"
        )));
    }
    let text = tokio::fs::read_to_string(path).await.map_err(unreadable)?;
    // Editors end a file with a line break that belongs to no password.
    let text = text.strip_suffix('\n').unwrap_or(&text);
    Ok(text.strip_suffix('\r').unwrap_or(text).to_owned())
}

/// What follows is shared by the statements that make named objects.
pub(super) fn new_definition(
    kind: DefinitionKind,
    name: &str,
    sql: String,
    properties: BTreeMap<String, String>,
) -> Definition {
    Definition {
        kind,
        name: name.to_owned(),
        id: Uuid::now_v7(),
        sql,
        properties,
        created_at_ms: chrono::Utc::now().timestamp_millis(),
        version: 0,
    }
}

pub(super) async fn create_definition(
    metastore: &Arc<dyn Metastore>,
    kind: ObjectKind,
    definition: &Definition,
) -> Result<()> {
    metastore.create(definition).await.map_err(|e| match e.kind() {
        // Someone else was faster.
        tidewater_catalogs::ErrorKind::AlreadyExists => duplicate(kind, &definition.name),
        _ => e.into(),
    })
}

pub(super) async fn require(
    metastore: &Arc<dyn Metastore>,
    kind: DefinitionKind,
    object: ObjectKind,
    name: &str,
) -> Result<Definition> {
    metastore.get(kind, name).await?.ok_or_else(|| undefined(object, name))
}

pub(super) fn undefined(kind: ObjectKind, name: &str) -> SqlError {
    let state = match kind {
        ObjectKind::Secret | ObjectKind::Connection | ObjectKind::Catalog | ObjectKind::Flow => {
            SqlState::UNDEFINED_OBJECT
        }
        ObjectKind::Stream | ObjectKind::StreamingTable | ObjectKind::Table => SqlState::UNDEFINED_TABLE,
        ObjectKind::Schema => SqlState::UNDEFINED_SCHEMA,
    };
    SqlError::new(state, format!("{} \"{name}\" does not exist", kind.noun()))
}

pub(super) fn duplicate(kind: ObjectKind, name: &str) -> SqlError {
    let state = match kind {
        ObjectKind::Secret | ObjectKind::Connection | ObjectKind::Catalog | ObjectKind::Flow => {
            SqlState::DUPLICATE_OBJECT
        }
        ObjectKind::Stream | ObjectKind::StreamingTable | ObjectKind::Table => SqlState::DUPLICATE_TABLE,
        ObjectKind::Schema => SqlState::DUPLICATE_SCHEMA,
    };
    SqlError::new(state, format!("{} \"{name}\" already exists", kind.noun()))
}

pub(super) fn skipping(kind: ObjectKind, name: &str) -> Notice {
    let mut notice = Notice::notice(format!("{} \"{name}\" already exists, skipping", kind.noun()));
    notice.state = duplicate(kind, name).state;
    notice
}

pub(super) fn skipping_drop(kind: ObjectKind, name: &str) -> Notice {
    Notice::notice(format!("{} \"{name}\" does not exist, skipping", kind.noun()))
}
