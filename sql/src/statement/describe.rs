use arrow::datatypes::DataType;
use tidewater_catalogs::{DefinitionKind, HiddenColumn, TableName};

use super::schema;
use super::show::{Cell, columns, outcome};
use super::{connection, flow, secret, stream};
use crate::dialect::{
    Describe, DescribeInferred, InferOptions, ObjectKind, field_type_name, partition_field_text, quote_ident,
    sort_fields_text,
};
use crate::error::Result;
use crate::plan::relation::{self, Relation};
use crate::run::guard;
use crate::session::{Outcome, ResultColumn, RowsTag, StatementContext};
use crate::{SqlError, SqlState};

const T: DataType = DataType::Utf8;

pub(super) fn describe_columns(_: &Describe) -> Vec<ResultColumn> {
    columns(&[("column", T), ("type", T), ("nullable", T), ("comment", T)])
}

pub(super) fn describe_inferred_columns() -> Vec<ResultColumn> {
    columns(&[("column", T), ("type", T), ("declaration", T)])
}

fn row(column: &str, data_type: &str, nullable: Option<bool>, comment: Option<String>) -> Vec<Cell> {
    let nullable = nullable.map(|n| if n { "YES" } else { "NO" }.to_owned());
    vec![column.into(), data_type.into(), nullable.into(), comment.into()]
}

/// A line of DESCRIBE EXTENDED behind the columns.
fn line(name: &str, value: impl Into<String>) -> Vec<Cell> {
    vec![format!("# {name}").into(), value.into().into(), Cell::Text(None), Cell::Text(None)]
}

pub(super) async fn describe(ctx: &StatementContext<'_>, describe: &Describe) -> Result<Outcome> {
    let rows = match describe.kind {
        Some(ObjectKind::Connection) => {
            let name = describe.name.last();
            let found =
                secret::require(&ctx.engine.metastore, DefinitionKind::Connection, ObjectKind::Connection, name)
                    .await?;
            let create = connection::parse(&found)?;
            let mut rows = vec![row("kind", &create.kind, None, None)];
            rows.extend(create.options.0.iter().map(|e| row(&e.name, &e.value.to_string(), None, None)));
            rows
        }
        Some(ObjectKind::Secret) => {
            let name = describe.name.last();
            let found =
                secret::require(&ctx.engine.metastore, DefinitionKind::Secret, ObjectKind::Secret, name).await?;
            vec![row("origin", &secret::origin(&found), None, None)]
        }
        Some(ObjectKind::Catalog) => {
            return Err(SqlError::unsupported("DESCRIBE CATALOG is not supported")
                .with_hint("SHOW CREATE CATALOG shows its options."));
        }
        Some(ObjectKind::Schema) => {
            return Err(SqlError::unsupported("DESCRIBE SCHEMA is not supported")
                .with_hint("SHOW TABLES and SHOW STREAMS list what is in it."));
        }
        _ => relation_rows(ctx, describe).await?,
    };
    outcome(describe_columns(describe), rows, RowsTag::Show)
}

async fn relation_rows(ctx: &StatementContext<'_>, describe: &Describe) -> Result<Vec<Vec<Cell>>> {
    let wrong = |is: ObjectKind| {
        Err(SqlError::new(SqlState::WRONG_OBJECT_TYPE, format!("\"{}\" is a {}", describe.name.last(), is.noun())))
    };
    match relation::find(&ctx.lookup(), &describe.name).await? {
        None => Err(SqlError::undefined_table(describe.name.last())),
        Some(Relation::Stream(found)) => {
            if describe.kind.is_some_and(|k| k != ObjectKind::Stream) {
                return wrong(ObjectKind::Stream);
            }
            stream_rows(ctx, &found.name, describe.extended).await
        }
        Some(Relation::Table(found)) => {
            let info = found.table.info();
            let flow = ctx.engine.metastore.get(DefinitionKind::Flow, &info.name.to_string()).await?;
            let is = if flow.is_some() { ObjectKind::StreamingTable } else { ObjectKind::Table };
            let as_flow = describe.kind == Some(ObjectKind::Flow) && flow.is_some();
            if describe.kind.is_some_and(|k| k != is) && !as_flow {
                return wrong(is);
            }
            let schema = found.past.as_ref().map_or_else(|| info.schema.clone(), |past| past.rows.schema());
            let mut rows: Vec<Vec<Cell>> = schema
                .fields()
                .iter()
                .map(|f| {
                    let comment = info.comments.get(f.name()).cloned();
                    row(f.name(), &field_type_name(f), Some(f.is_nullable()), comment)
                })
                .collect();
            if describe.extended {
                rows.push(line("Kind", is.noun()));
                rows.push(line("Name", info.name.to_string()));
                rows.push(line("Table uuid", info.uuid.to_string()));
                rows.push(line("Location", &info.location));
                rows.push(line("Metadata", &info.metadata_location));
                let fields: Vec<String> = info.partition_by.iter().map(partition_field_text).collect();
                if !fields.is_empty() {
                    rows.push(line("Partitioned by", fields.join(", ")));
                }
                if !info.sort_by.is_empty() {
                    rows.push(line("Written in the order", sort_fields_text(&info.sort_by)));
                }
                if let Some(snapshot) = &info.current_snapshot {
                    rows.push(line("Snapshot", snapshot.snapshot_id.to_string()));
                }
                for (column, default) in &info.defaults {
                    if let Some(default) = super::default_value::shown(default) {
                        rows.push(line("Default", format!("{column} = {default}")));
                    }
                }
                for (key, value) in info.properties.iter().filter(|(k, _)| !k.starts_with("tidewater.")) {
                    rows.push(line("Property", format!("{key} = {value}")));
                }
                if let Some(flow) = &flow {
                    let state = ctx.engine.supervisor.status(flow.id).map_or("stopped", |s| s.state.as_str());
                    rows.push(line("Flow id", flow.id.to_string()));
                    rows.push(line("Flow state", state));
                    rows.push(line("Stream", flow::reads(flow).unwrap_or("")));
                    if let Some(dead) = flow::dead_letters_of(flow) {
                        rows.push(line("Dead letters", dead));
                    }
                }
            }
            Ok(rows)
        }
        Some(Relation::System(provider)) => {
            if describe.kind.is_some_and(|k| k != ObjectKind::Table) {
                return wrong(ObjectKind::Table);
            }
            let schema = provider.schema();
            Ok(schema
                .fields()
                .iter()
                .map(|f| row(f.name(), &field_type_name(f), Some(f.is_nullable()), None))
                .collect())
        }
    }
}

async fn stream_rows(ctx: &StatementContext<'_>, name: &TableName, extended: bool) -> Result<Vec<Vec<Cell>>> {
    let found = ctx.engine.metastore.get(DefinitionKind::Stream, &name.to_string()).await?;
    let definition = found.ok_or_else(|| secret::undefined(ObjectKind::Stream, &name.name))?;
    let (create, options) = stream::parse(&definition)?;
    let mut rows: Vec<Vec<Cell>> = create
        .columns
        .iter()
        .map(|c| row(&c.name, &stream::shown_type(&c.data_type), Some(!c.not_null), stream::shown_source(c)))
        .collect();
    if extended {
        for hidden in HiddenColumn::ALL {
            let field = hidden.field();
            rows.push(row(
                field.name(),
                &field_type_name(&field),
                Some(field.is_nullable()),
                Some("hidden".to_owned()),
            ));
        }
        rows.push(line("Kind", ObjectKind::Stream.noun()));
        rows.push(line("Name", schema::full_name(name).to_string()));
        rows.push(line("Connection", &options.connection));
        rows.push(line("Topic", &options.topic));
        rows.push(line("Dead letters", stream::dead_letters_text(name)));
        for entry in &create.options.0 {
            rows.push(line("Option", entry.to_string()));
        }
    }
    Ok(rows)
}

pub(super) async fn describe_inferred(ctx: &StatementContext<'_>, what: &DescribeInferred) -> Result<Outcome> {
    let options = InferOptions::read(&what.options)?;
    let sample = stream::infer(ctx.engine, what.connection.last(), &what.topic, &options);
    let fields = guard(&ctx.cancel, ctx.deadline, sample).await?;
    let mut rows = Vec::new();
    for field in fields {
        let declared = stream::inferred_type(&field)?.to_string();
        let declaration = format!("{} {declared}", quote_ident(field.name()));
        rows.push(vec![field.name().as_str().into(), declared.to_lowercase().into(), declaration.into()]);
    }
    outcome(describe_inferred_columns(), rows, RowsTag::Show)
}
