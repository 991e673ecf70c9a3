//! What a name in FROM stands for, loaded for one statement.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::catalog::TableProvider;
use tidewater_catalogs::{
    DEFAULT_CATALOG, DLQ_SCHEMA, DefinitionKind, ErrorKind, LakeTable, MetadataTable, SYSTEM_CATALOG, StreamSource,
    StreamSpec, TableName, TableVersion,
};
use tidewater_streaming::ReadView;

use crate::block::Block;
use crate::dialect::Name;
use crate::engine::Engine;
use crate::error::Result;
use crate::settings::Settings;
use crate::{SqlError, SqlState};

/// A stored stream, as `statement::stream::definition` reads it from its CREATE statement.
#[derive(Debug, Clone)]
pub(crate) struct StreamDefinition {
    /// Without generated columns.
    pub spec: StreamSpec,
    pub generated: Vec<GeneratedColumn>,
}

/// `name type GENERATED ALWAYS AS (expr)`.
#[derive(Debug, Clone)]
pub(crate) struct GeneratedColumn {
    pub name: String,
    pub data_type: DataType,
    pub not_null: bool,
    pub expr: sqlparser::ast::Expr,
    /// Its place among all declared columns.
    pub index: usize,
}

impl StreamDefinition {
    /// Names of the declared columns in their order, generated ones included.
    pub(crate) fn visible(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.spec.columns.iter().map(|c| c.field().name().as_str()).collect();
        for generated in &self.generated {
            names.insert(generated.index.min(names.len()), &generated.name);
        }
        names
    }
}

#[derive(Debug, Clone)]
pub(crate) struct StreamRelation {
    pub name: TableName,
    pub definition: StreamDefinition,
    pub source: Arc<dyn StreamSource>,
}

/// A table as it was loaded, and what its flow held just before that.
#[derive(Debug, Clone)]
pub(crate) struct TableRelation {
    pub table: Arc<dyn LakeTable>,
    /// Taken before the table was loaded; none where its flow does not run here.
    pub hot: Option<ReadView>,
    pub read: Read,
    /// Instead of the current rows.
    pub past: Option<Past>,
}

/// Another version of a table than the current one.
#[derive(Debug, Clone)]
pub(crate) struct Past {
    pub version: TableVersion,
    pub rows: Arc<dyn TableProvider>,
}

/// Whether rows that are not committed yet belong to the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Read {
    /// As the session says.
    Session,
    /// `"t$live"`.
    Live,
    /// `"t$committed"`.
    Committed,
}

#[derive(Debug, Clone)]
pub(crate) enum Relation {
    Table(TableRelation),
    Stream(Arc<StreamRelation>),
    System(Arc<dyn TableProvider>),
}

/// Where an unqualified name of a new object goes.
pub(crate) fn new_name(settings: &Settings, name: &Name) -> Result<TableName> {
    let out = match name.0.as_slice() {
        [name] => {
            let schema =
                settings.search_path().into_iter().next().ok_or_else(|| {
                    SqlError::new(SqlState::UNDEFINED_SCHEMA, "no schema has been selected to create in")
                })?;
            TableName::new(DEFAULT_CATALOG, schema, name)
        }
        [schema, name] => TableName::new(DEFAULT_CATALOG, schema, name),
        [catalog, schema, name] => TableName::new(catalog, schema, name),
        _ => return Err(SqlError::syntax("improper qualified name (too many dotted names)")),
    };
    let own = out.catalog == DEFAULT_CATALOG && (is_system_schema(&out.schema) || out.schema == SYSTEM_CATALOG);
    if own || out.catalog == SYSTEM_CATALOG {
        return Err(SqlError::new(SqlState::INSUFFICIENT_PRIVILEGE, format!("permission denied to create \"{out}\""))
            .with_detail("The catalog \"system\" and the schemas of PostgreSQL's catalog belong to the server."));
    }
    Ok(out)
}

fn is_system_schema(schema: &str) -> bool {
    matches!(schema, "pg_catalog" | "information_schema" | "pg_toast")
}

/// The full names that `name` may mean, in the order in which they are tried.
pub(crate) fn candidates(settings: &Settings, name: &Name) -> Result<Vec<TableName>> {
    Ok(match name.0.as_slice() {
        [name] => {
            let mut path = settings.search_path();
            if !path.iter().any(|s| s == "pg_catalog") {
                path.insert(0, "pg_catalog".to_owned());
            }
            path.into_iter().map(|schema| TableName::new(DEFAULT_CATALOG, schema, name)).collect()
        }
        // `system.flows`: the views of the product read like a schema.
        [schema, name] if schema == SYSTEM_CATALOG => vec![TableName::new(SYSTEM_CATALOG, SYSTEM_CATALOG, name)],
        [schema, name] => vec![TableName::new(DEFAULT_CATALOG, schema, name)],
        [catalog, schema, name] => {
            if catalog == DEFAULT_CATALOG && schema == SYSTEM_CATALOG {
                vec![TableName::new(SYSTEM_CATALOG, SYSTEM_CATALOG, name)]
            } else {
                vec![TableName::new(catalog, schema, name)]
            }
        }
        _ => return Err(SqlError::syntax("improper relation name (too many dotted names)")),
    })
}

/// Where names are looked up.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lookup<'a> {
    pub engine: &'a Arc<Engine>,
    pub settings: &'a Settings,
    /// The transaction block that asks, which has tables of its own.
    pub block: Option<&'a Block>,
}

/// Finds a relation by the search path. None where there is none of that name.
pub(crate) async fn find(at: &Lookup<'_>, name: &Name) -> Result<Option<Relation>> {
    find_at(at, name, None).await
}

/// As [`find`], at a version where one is given: 42809 for what has none.
pub(crate) async fn find_at(at: &Lookup<'_>, name: &Name, version: Option<&TableVersion>) -> Result<Option<Relation>> {
    let found = match candidates(at.settings, name) {
        Ok(tries) => by_name(at, &tries, version).await,
        Err(e) => Err(e),
    };
    if matches!(found, Ok(Some(_))) {
        return found;
    }
    // `t.branch_b`. A name of three parts may begin with a catalog that is none, and one of four with one that is.
    match reference(at, name, version).await? {
        Some(referenced) => Ok(Some(referenced)),
        None => found,
    }
}

async fn by_name(lookup: &Lookup<'_>, tries: &[TableName], version: Option<&TableVersion>) -> Result<Option<Relation>> {
    for candidate in tries {
        if let Some(found) = load(lookup, candidate).await? {
            return at(found, &candidate.name, version).await.map(Some);
        }
    }
    // `t$committed` and its like, where no table has that very name.
    for candidate in tries {
        let Some((base, suffix)) = candidate.name.rsplit_once('$') else { break };
        let base = TableName::new(&candidate.catalog, &candidate.schema, base);
        match load(lookup, &base).await? {
            None => {}
            Some(Relation::Table(table)) => return suffixed(table, suffix, version).await.map(Some),
            Some(_) if is_suffix(suffix) => {
                return Err(SqlError::new(SqlState::WRONG_OBJECT_TYPE, format!("\"{}\" is not a table", base.name))
                    .with_hint("Only tables have snapshots; a stream is read as it stands."));
            }
            Some(_) => {}
        }
    }
    Ok(None)
}

fn is_suffix(suffix: &str) -> bool {
    matches!(suffix, "committed" | "live") || MetadataTable::from_suffix(suffix).is_some()
}

/// `"t$suffix"`.
async fn suffixed(table: TableRelation, suffix: &str, version: Option<&TableVersion>) -> Result<Relation> {
    let name = &table.table.info().name.name;
    let shown = format!("{name}${suffix}");
    match suffix {
        "committed" => at(Relation::Table(TableRelation { read: Read::Committed, ..table }), &shown, version).await,
        "live" if version.is_none() => Ok(Relation::Table(TableRelation { read: Read::Live, ..table })),
        "live" => Err(SqlError::unsupported(format!("\"{shown}\" has no versions"))
            .with_detail("Rows that are not committed belong to no snapshot.")
            .with_hint(format!("Read {} at that version.", crate::dialect::quote_ident(name)))),
        _ => match MetadataTable::from_suffix(suffix) {
            Some(kind) if version.is_some() && !kind.is_of_a_snapshot() => {
                Err(SqlError::unsupported(format!("\"{shown}\" has no versions"))
                    .with_detail("It tells of all snapshots at once."))
            }
            Some(kind) => Ok(Relation::System(table.table.metadata_table(kind, version).await?)),
            None => {
                let known = ["committed", "live"].into_iter().chain(MetadataTable::ALL.map(MetadataTable::suffix));
                let known: Vec<String> = known.map(|suffix| format!("\"{name}${suffix}\"")).collect();
                Err(SqlError::undefined_table(&shown).with_hint(format!("There are {}.", known.join(", "))))
            }
        },
    }
}

/// `found` at a version.
async fn at(found: Relation, name: &str, version: Option<&TableVersion>) -> Result<Relation> {
    let Some(version) = version else { return Ok(found) };
    let Relation::Table(table) = found else {
        return Err(SqlError::new(SqlState::WRONG_OBJECT_TYPE, format!("\"{name}\" is not a table"))
            .with_hint("Only tables have versions; a stream is read by _partition, _offset and _timestamp."));
    };
    let past = Past { version: version.clone(), rows: table.table.provider_at(version).await? };
    Ok(Relation::Table(TableRelation { hot: None, past: Some(past), ..table }))
}

/// `t.branch_b` and `t.tag_b`, as Spark writes them.
async fn reference(lookup: &Lookup<'_>, name: &Name, version: Option<&TableVersion>) -> Result<Option<Relation>> {
    let Some((last, base @ ([_] | [_, _] | [_, _, _]))) = name.0.split_last() else { return Ok(None) };
    let referenced = match (last.strip_prefix("branch_"), last.strip_prefix("tag_")) {
        (Some(branch), _) => TableVersion::Branch(branch.to_owned()),
        (None, Some(tag)) => TableVersion::Tag(tag.to_owned()),
        (None, None) => return Ok(None),
    };
    for candidate in candidates(lookup.settings, &Name(base.to_vec()))? {
        let Some(found @ Relation::Table(_)) = load(lookup, &candidate).await? else { continue };
        if version.is_some() {
            return Err(SqlError::unsupported(format!("\"{last}\" is a version already"))
                .with_hint("Name the table alone, or leave the clause out."));
        }
        return at(found, &candidate.name, Some(&referenced)).await.map(Some);
    }
    Ok(None)
}

/// Loads exactly this name.
async fn load(lookup: &Lookup<'_>, name: &TableName) -> Result<Option<Relation>> {
    let Lookup { engine, block, .. } = lookup;
    if let Some(block) = block
        && let Some(pinned) = block.find(name)?
    {
        return Ok(Some(Relation::Table(pinned)));
    }
    if (name.catalog == DEFAULT_CATALOG && is_system_schema(&name.schema))
        || (name.catalog == SYSTEM_CATALOG && name.schema != DLQ_SCHEMA)
    {
        let provider = super::system::table(engine, &name.schema, &name.name).await?;
        return Ok(provider.map(Relation::System));
    }
    if name.catalog == DEFAULT_CATALOG
        && let Some(definition) = engine.metastore.get(DefinitionKind::Stream, &name.to_string()).await?
    {
        let definition = crate::statement::stream_definition(engine, &definition).await?;
        return stream(engine, name, definition).map(|s| Some(Relation::Stream(Arc::new(s))));
    }
    // Before the table: what is committed in between is then among these rows and in the table, which can be told, and
    // not missing in both.
    let hot = engine.supervisor.read_view(&name.to_string());
    match engine.lake.load_table(name).await {
        Ok(table) => {
            let relation = TableRelation { table, hot, read: Read::Session, past: None };
            if let Some(block) = block {
                block.pin(name, relation.clone());
            }
            Ok(Some(Relation::Table(relation)))
        }
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e.into()),
    }
}

/// A stream that is described, opened by its connector.
pub(crate) fn stream(engine: &Engine, name: &TableName, definition: StreamDefinition) -> Result<StreamRelation> {
    let kind = &definition.spec.connection.kind;
    let connector = engine.connectors.iter().find(|c| c.kind() == kind).ok_or_else(|| {
        SqlError::unsupported(format!("connections of kind \"{kind}\" are not supported by this server"))
    })?;
    let source = connector.source(definition.spec.clone())?;
    Ok(StreamRelation { name: name.clone(), definition, source })
}
