//! One consistent picture of everything that has a name, for the catalog tables.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use tidewater_catalogs::{DEFAULT_CATALOG, Definition, DefinitionKind, ErrorKind, LakeTable, SYSTEM_CATALOG};
use tidewater_catalogs_system::{
    CatalogSnapshot, ColumnEntry, INFORMATION_SCHEMA, PG_CATALOG, RelationEntry, RelationKind, SchemaEntry,
    SessionEntry, SettingEntry, stable_oid,
};

use super::Needs;
use crate::engine::Engine;
use crate::error::Result;
use crate::plan::system;
use crate::session::Login;
use crate::settings::{SERVER_VERSION, Settings};

pub(crate) async fn snapshot(
    engine: &Arc<Engine>,
    settings: &Settings,
    login: &Login,
    needs: Needs,
) -> Result<Arc<CatalogSnapshot>> {
    let lake_schemas = engine.lake.list_schemas(DEFAULT_CATALOG).await?;
    // Loading every table is what a snapshot costs.
    let relations = match needs {
        Needs::Relations => relations(engine, &lake_schemas).await?,
        Needs::Server | Needs::Nothing => vec![],
    };
    let own = [PG_CATALOG, INFORMATION_SCHEMA, SYSTEM_CATALOG].map(str::to_owned);
    let schemas = lake_schemas
        .into_iter()
        .chain(own)
        .map(|name| SchemaEntry {
            // PostgreSQL's own numbers for the schemas that have one.
            oid: match name.as_str() {
                PG_CATALOG => 11,
                "public" => 2200,
                other => stable_oid(&format!("schema {other}")),
            },
            name,
        })
        .collect();
    Ok(Arc::new(CatalogSnapshot {
        database: DEFAULT_CATALOG.to_owned(),
        user: login.user.clone(),
        server_version: SERVER_VERSION.to_owned(),
        schemas,
        relations,
        search_path: settings.search_path(),
        settings: settings
            .all()
            .map(|(name, value, description)| SettingEntry {
                name: name.to_owned(),
                default: settings.default_of(name).unwrap_or_default(),
                value,
                description: description.to_owned(),
            })
            .collect(),
        sessions: sessions(engine),
    }))
}

async fn relations(engine: &Arc<Engine>, schemas: &[String]) -> Result<Vec<RelationEntry>> {
    let definitions = engine.metastore.list().await?;
    let flows: HashSet<&str> =
        definitions.iter().filter(|d| d.kind == DefinitionKind::Flow).map(|d| d.name.as_str()).collect();
    let mut relations = Vec::new();
    for schema in schemas {
        for name in engine.lake.list_tables(DEFAULT_CATALOG, schema).await? {
            match engine.lake.load_table(&name).await {
                Ok(table) => relations.push(table_entry(table.as_ref(), flows.contains(name.to_string().as_str()))),
                // Dropped since it was listed.
                Err(e) if e.kind() == ErrorKind::NotFound => (),
                Err(e) => return Err(e.into()),
            }
        }
    }
    for definition in definitions.iter().filter(|d| d.kind == DefinitionKind::Stream) {
        relations.extend(stream_entry(engine, definition).await);
    }
    for (name, schema) in system::views(engine).await? {
        relations.push(RelationEntry {
            oid: stable_oid(&format!("view {name}")),
            schema: SYSTEM_CATALOG.to_owned(),
            name: name.to_owned(),
            kind: RelationKind::View,
            columns: columns(&schema),
            comment: None,
            source: None,
            rows: -1,
            size_bytes: 0,
        });
    }
    make_unique(&mut relations);
    Ok(relations)
}

fn sessions(engine: &Engine) -> Vec<SessionEntry> {
    engine
        .sessions()
        .into_iter()
        .map(|s| SessionEntry {
            pid: s.pid,
            user: s.user,
            application_name: s.application_name,
            client_addr: s.client_addr,
            started_at_us: s.started_at_ms * 1000,
            query_started_at_us: s.query_started_at_ms.map(|ms| ms * 1000),
            active: s.active,
            query: s.query,
        })
        .collect()
}

fn table_entry(table: &dyn LakeTable, streaming: bool) -> RelationEntry {
    let info = table.info();
    let mut columns = columns(&info.schema);
    for column in &mut columns {
        column.comment = info.comments.get(&column.name).cloned();
        column.default = info.defaults.get(&column.name).and_then(crate::statement::shown_default);
    }
    let total = |key: &str| -> Option<i64> { info.current_snapshot.as_ref()?.summary.get(key)?.parse().ok() };
    RelationEntry {
        oid: stable_oid(&info.uuid.to_string()),
        schema: info.name.schema.clone(),
        name: info.name.name.clone(),
        kind: if streaming { RelationKind::StreamingTable } else { RelationKind::Table },
        columns,
        comment: info.properties.get("comment").cloned(),
        source: None,
        rows: if info.current_snapshot.is_some() { total("total-records").unwrap_or(-1) } else { 0 },
        size_bytes: total("total-files-size").unwrap_or(0),
    }
}

/// A stream whose definition cannot be resolved now (a secret's file is gone) is listed without columns.
async fn stream_entry(engine: &Engine, definition: &Definition) -> Option<RelationEntry> {
    let mut parts = definition.name.splitn(3, '.').skip(1).map(str::to_owned);
    let (schema, name) = (parts.next()?, parts.next()?);
    let resolved = crate::statement::stream_definition(engine, definition).await.ok();
    let source = resolved.as_ref().map(|d| (d.spec.connection.name.clone(), d.spec.topic.clone()));
    let columns = resolved.map_or_else(Vec::new, |d| {
        let mut columns: Vec<ColumnEntry> = d.spec.columns.iter().map(|c| column(c.field())).collect();
        for g in &d.generated {
            let generated = ColumnEntry {
                name: g.name.clone(),
                data_type: g.data_type.clone(),
                nullable: !g.not_null,
                generated: Some(g.expr.to_string()),
                default: None,
                comment: None,
            };
            columns.insert(g.index.min(columns.len()), generated);
        }
        columns
    });
    Some(RelationEntry {
        oid: stable_oid(&definition.id.to_string()),
        schema,
        name,
        kind: RelationKind::Stream,
        columns,
        comment: None,
        source: Some(source.unwrap_or_default()),
        rows: -1,
        size_bytes: 0,
    })
}

fn columns(schema: &SchemaRef) -> Vec<ColumnEntry> {
    schema.fields().iter().map(|f| column(f)).collect()
}

fn column(field: &arrow::datatypes::Field) -> ColumnEntry {
    ColumnEntry {
        name: field.name().clone(),
        data_type: field.data_type().clone(),
        nullable: field.is_nullable(),
        generated: None,
        default: None,
        comment: None,
    }
}

/// Two objects may hash to one oid: the later one moves on, the same way each time.
fn make_unique(relations: &mut [RelationEntry]) {
    let mut taken = HashSet::with_capacity(relations.len());
    relations.sort_by(|a, b| (&a.schema, &a.name).cmp(&(&b.schema, &b.name)));
    for relation in relations {
        while !taken.insert(relation.oid) {
            relation.oid = stable_oid(&format!("again {}", relation.oid));
        }
    }
}
