//! CREATE CATALOG, and what else is known of the catalogs that users made.

use std::collections::BTreeMap;
use std::sync::Arc;

use tidewater_catalogs::{
    CatalogConnector, CatalogSpec, DEFAULT_CATALOG, Definition, DefinitionKind, Error, LakeCatalog, Metastore,
    SYSTEM_CATALOG,
};

use super::secret::{self, create_definition, duplicate, new_definition, skipping};
use crate::catalogs::Catalogs;
use crate::dialect::{self, CreateCatalog, Drop, ObjectKind, OptionValue, Statement};
use crate::engine::Engine;
use crate::error::Result;
use crate::run::guard;
use crate::session::{Outcome, StatementContext};
use crate::{SqlError, SqlState};

const TYPE: &str = "type";
/// Whether the catalog is asked before its definition is kept.
const VALIDATE: &str = "validate";

pub(super) async fn create_catalog(ctx: &StatementContext<'_>, create: &CreateCatalog) -> Result<Outcome> {
    let done = Ok(Outcome::done("CREATE CATALOG"));
    let metastore = &ctx.engine.metastore;
    let name = create.name.last();
    let own = [DEFAULT_CATALOG, SYSTEM_CATALOG].contains(&name);
    let found = metastore.get(DefinitionKind::Catalog, name).await?;
    if own || found.is_some() {
        if create.if_not_exists {
            ctx.notice(skipping(ObjectKind::Catalog, name));
            return done;
        }
        if own || !create.or_replace {
            return Err(duplicate(ObjectKind::Catalog, name));
        }
    }
    let stored = CreateCatalog { or_replace: false, if_not_exists: false, ..create.clone() };
    guard(&ctx.cancel, ctx.deadline, check(ctx.engine, &stored)).await?;
    match found {
        Some(old) => {
            metastore.update(&Definition { sql: stored.to_string(), ..old }).await?;
            for flow in users(ctx.engine, name).await? {
                super::flow::restart(ctx, flow.id, flow.name).await?;
            }
        }
        None => {
            let definition = new_definition(DefinitionKind::Catalog, name, stored.to_string(), BTreeMap::new());
            create_definition(metastore, ObjectKind::Catalog, &definition).await?;
        }
    }
    done
}

/// Options known, values right, secrets there, and the catalog asked unless `validate = false`.
async fn check(engine: &Engine, create: &CreateCatalog) -> Result<()> {
    let name = create.name.last();
    let connector = connector(&engine.catalogs, create)?;
    let owner = format!("catalog \"{name}\"");
    let choices: Vec<&str> = connector.options().into_iter().chain([TYPE, VALIDATE]).collect();
    for entry in &create.options.0 {
        dialect::known_option(&entry.name, &owner, &choices)?;
    }
    let validate = match create.options.get(VALIDATE) {
        None | Some(OptionValue::Bool(true)) => true,
        Some(OptionValue::Bool(false)) => false,
        Some(_) => {
            return Err(SqlError::new(
                SqlState::INVALID_PARAMETER,
                format!("invalid value for option \"{VALIDATE}\" of catalog \"{name}\""),
            )
            .with_hint("Use true or false."));
        }
    };
    let spec = resolve(&engine.metastore, create).await?;
    connector.check(&spec)?;
    if validate {
        let asked = async { connector.open(&spec).await?.list_schemas(name).await };
        asked.await.map_err(|e| {
            let mut e = SqlError::from(e);
            if e.hint.is_none() {
                e = e.with_hint("WITH (…, validate = false) keeps the catalog without asking it.");
            }
            e
        })?;
    }
    Ok(())
}

fn connector(catalogs: &Catalogs, create: &CreateCatalog) -> Result<Arc<dyn CatalogConnector>> {
    let kinds = || catalogs.connectors.iter().map(|c| format!("\"{}\"", c.kind())).collect::<Vec<_>>().join(" or ");
    let name = create.name.last();
    let kind = match create.options.get(TYPE) {
        Some(OptionValue::Text(kind)) => kind,
        Some(other) => return Err(unknown_kind(name, &other.to_string(), &kinds())),
        None => {
            return Err(SqlError::new(
                SqlState::INVALID_PARAMETER,
                format!("catalog \"{name}\" needs option \"{TYPE}\""),
            )
            .with_hint(format!("Use {}.", kinds())));
        }
    };
    let found = catalogs.connectors.iter().find(|c| c.kind() == kind.to_lowercase());
    found.cloned().ok_or_else(|| unknown_kind(name, &dialect::quote_text(kind), &kinds()))
}

fn unknown_kind(name: &str, shown: &str, kinds: &str) -> SqlError {
    let message = format!("invalid value for option \"{TYPE}\" of catalog \"{name}\": {shown}");
    SqlError::new(SqlState::INVALID_PARAMETER, message).with_hint(format!("Use {kinds}."))
}

async fn resolve(metastore: &Arc<dyn Metastore>, create: &CreateCatalog) -> Result<CatalogSpec, Error> {
    let mut options = BTreeMap::new();
    let mut kind = String::new();
    for entry in &create.options.0 {
        let value = match &entry.value {
            OptionValue::Text(text) | OptionValue::Number(text) => text.clone(),
            OptionValue::Bool(value) => value.to_string(),
            OptionValue::Secret(name) => secret::resolve(metastore, name.last()).await?,
        };
        match entry.name.as_str() {
            TYPE => kind = value.to_lowercase(),
            VALIDATE => {}
            _ => drop(options.insert(entry.name.clone(), value)),
        }
    }
    Ok(CatalogSpec { name: create.name.last().to_owned(), kind, options })
}

fn parse(definition: &Definition) -> Result<CreateCatalog, Error> {
    match dialect::parse_stored(&definition.sql) {
        Ok(Statement::CreateCatalog(create)) => Ok(create),
        _ => Err(Error::internal(format!("the definition of catalog \"{}\" cannot be read", definition.name))),
    }
}

/// Opens a stored catalog.
pub(crate) async fn open_catalog(
    catalogs: &Catalogs,
    metastore: &Arc<dyn Metastore>,
    definition: &Definition,
) -> Result<Arc<dyn LakeCatalog>, Error> {
    let spec = resolve(metastore, &parse(definition)?).await?;
    let connector = catalogs.connectors.iter().find(|c| c.kind() == spec.kind).ok_or_else(|| {
        Error::unsupported(format!("catalogs of type \"{}\" are not supported by this server", spec.kind))
    })?;
    connector.open(&spec).await
}

/// Names of the secrets that a catalog takes.
pub(crate) fn secrets_of_catalog(definition: &Definition) -> Result<Vec<String>, Error> {
    let secret = |value: &OptionValue| match value {
        OptionValue::Secret(name) => Some(name.last().to_owned()),
        _ => None,
    };
    Ok(parse(definition)?.options.0.iter().filter_map(|e| secret(&e.value)).collect())
}

/// `rest` …, for SHOW CATALOGS.
pub(super) fn kind(definition: &Definition) -> Result<String> {
    match parse(definition)?.options.get(TYPE) {
        Some(OptionValue::Text(kind)) => Ok(kind.to_lowercase()),
        _ => Ok(String::new()),
    }
}

/// Catalogs that use a secret.
pub(super) async fn users_of_secret(engine: &Engine, secret: &str) -> Result<Vec<String>> {
    let mut users = Vec::new();
    for definition in engine.metastore.list().await? {
        if definition.kind == DefinitionKind::Catalog
            && secrets_of_catalog(&definition)?.iter().any(|name| name == secret)
        {
            users.push(definition.name);
        }
    }
    Ok(users)
}

/// Flows that write into a catalog.
async fn users(engine: &Engine, catalog: &str) -> Result<Vec<Definition>> {
    let mut users = Vec::new();
    for definition in engine.metastore.list().await? {
        if definition.kind == DefinitionKind::Flow && super::flow::target(&definition)?.catalog == catalog {
            users.push(definition);
        }
    }
    Ok(users)
}

/// Forgets the catalog; its tables stay where they are.
pub(super) async fn drop_catalog(ctx: &StatementContext<'_>, drop: &Drop, name: &str) -> Result<bool> {
    let metastore = &ctx.engine.metastore;
    if [DEFAULT_CATALOG, SYSTEM_CATALOG].contains(&name) {
        return Err(SqlError::new(
            SqlState::DEPENDENT_OBJECTS,
            format!("cannot drop catalog \"{name}\" because it is required by the server"),
        ));
    }
    let users = users(ctx.engine, name).await?;
    if !users.is_empty() {
        let users: Vec<String> = users.iter().map(|u| format!("streaming table \"{}\"", u.name)).collect();
        return Err(super::stream::in_use(drop.kind, name, &users, "drop")
            .with_hint("Drop the streaming tables first; KEEP DATA leaves their rows."));
    }
    Ok(metastore.as_ref().drop(DefinitionKind::Catalog, name).await?)
}
