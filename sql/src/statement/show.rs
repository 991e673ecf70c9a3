use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, StringArray};
use arrow::datatypes::{DataType, Field};
use arrow::record_batch::RecordBatch;
use tidewater_catalogs::{DEFAULT_CATALOG, DefinitionKind, SYSTEM_CATALOG, TableName};

use super::schema::{self, Found};
use super::{connection, flow, secret, stream};
use crate::dialect::{self, Name, ObjectKind, Show, ShowCreate, ShowWhat, quote_ident};
use crate::error::Result;
use crate::plan::relation;
use crate::run;
use crate::session::{Outcome, ResultColumn, RowsTag, StatementContext};
use crate::{SqlError, SqlState};

/// One cell. Columns whose name ends in a unit or counts something are numbers.
#[derive(Debug, Clone)]
pub(super) enum Cell {
    Text(Option<String>),
    Number(Option<i64>),
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::Text(Some(text.to_owned()))
    }
}
impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self::Text(Some(text))
    }
}
impl From<Option<String>> for Cell {
    fn from(text: Option<String>) -> Self {
        Self::Text(text)
    }
}
impl From<Option<i64>> for Cell {
    fn from(number: Option<i64>) -> Self {
        Self::Number(number)
    }
}

const T: DataType = DataType::Utf8;
const N: DataType = DataType::Int64;

pub(super) fn columns(list: &[(&str, DataType)]) -> Vec<ResultColumn> {
    list.iter().map(|(name, t)| ResultColumn::new(Arc::new(Field::new(*name, t.clone(), true)))).collect()
}

/// Rows of text and numbers as a result.
pub(super) fn outcome(columns: Vec<ResultColumn>, rows: Vec<Vec<Cell>>, tag: RowsTag) -> Result<Outcome> {
    let schema = run::schema_of(&columns);
    let arrays: Vec<ArrayRef> = columns
        .iter()
        .enumerate()
        .map(|(i, column)| -> ArrayRef {
            if *column.field.data_type() == N {
                let number = |row: &Vec<Cell>| match row.get(i) {
                    Some(Cell::Number(n)) => *n,
                    _ => None,
                };
                Arc::new(rows.iter().map(number).collect::<Int64Array>())
            } else {
                let text = |row: &Vec<Cell>| match row.get(i) {
                    Some(Cell::Text(t)) => t.clone(),
                    Some(Cell::Number(n)) => n.map(|n| n.to_string()),
                    None => None,
                };
                Arc::new(rows.iter().map(text).collect::<StringArray>())
            }
        })
        .collect();
    let batch = RecordBatch::try_new(schema.clone(), arrays)?;
    Ok(Outcome::Rows { columns, stream: run::rows(schema, vec![batch]), tag })
}

pub(super) fn show_columns(show: &Show) -> Vec<ResultColumn> {
    columns(match show.what {
        ShowWhat::Streams => &[("schema", T), ("name", T), ("connection", T), ("topic", T)],
        ShowWhat::StreamingTables => &[("schema", T), ("name", T), ("stream", T), ("state", T)],
        ShowWhat::Flows => &[
            ("schema", T),
            ("name", T),
            ("stream", T),
            ("state", T),
            ("seq", N),
            ("lag", N),
            ("rows_out", N),
            ("rows_dead", N),
            ("error", T),
            ("hint", T),
        ],
        ShowWhat::Connections => &[("name", T), ("kind", T)],
        ShowWhat::Secrets => &[("name", T), ("origin", T)],
        ShowWhat::Catalogs => &[("name", T), ("type", T)],
        ShowWhat::Schemas => &[("name", T)],
        ShowWhat::Tables => &[("schema", T), ("name", T), ("kind", T)],
    })
}

pub(super) async fn show(ctx: &StatementContext<'_>, show: &Show) -> Result<Outcome> {
    let mut rows = match show.what {
        ShowWhat::Streams => streams(ctx).await?,
        ShowWhat::StreamingTables | ShowWhat::Flows => flows(ctx, show.what).await?,
        ShowWhat::Connections => {
            let mut rows = Vec::new();
            for d in named(ctx, DefinitionKind::Connection).await? {
                let create = connection::parse(&d)?;
                rows.push((d.name.clone(), vec![d.name.into(), create.kind.into()]));
            }
            rows
        }
        ShowWhat::Secrets => named(ctx, DefinitionKind::Secret)
            .await?
            .into_iter()
            .map(|d| (d.name.clone(), vec![Cell::from(d.name.as_str()), secret::origin(&d).into()]))
            .collect(),
        ShowWhat::Catalogs => {
            let own = [(DEFAULT_CATALOG, "sql"), (SYSTEM_CATALOG, "system")];
            let mut rows: Rows = own.map(|(c, kind)| (c.to_owned(), vec![Cell::from(c), kind.into()])).to_vec();
            for d in named(ctx, DefinitionKind::Catalog).await? {
                let kind = super::catalog::kind(&d)?;
                rows.push((d.name.clone(), vec![d.name.into(), kind.into()]));
            }
            rows
        }
        ShowWhat::Schemas => {
            let mut schemas = ctx.engine.lake.list_schemas(DEFAULT_CATALOG).await?;
            schemas.sort();
            schemas.into_iter().map(|s| (s.clone(), vec![Cell::from(s)])).collect()
        }
        ShowWhat::Tables => tables(ctx).await?,
    };
    if let Some(pattern) = &show.like {
        rows.retain(|(name, _)| like(pattern, name));
    }
    outcome(show_columns(show), rows.into_iter().map(|(_, row)| row).collect(), RowsTag::Show)
}

/// Rows with the name that LIKE compares.
type Rows = Vec<(String, Vec<Cell>)>;

async fn named(ctx: &StatementContext<'_>, kind: DefinitionKind) -> Result<Vec<tidewater_catalogs::Definition>> {
    let mut all = ctx.engine.metastore.list().await?;
    all.retain(|d| d.kind == kind);
    all.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(all)
}

async fn streams(ctx: &StatementContext<'_>) -> Result<Rows> {
    let mut rows = Vec::new();
    for definition in named(ctx, DefinitionKind::Stream).await? {
        let (create, options) = stream::parse(&definition)?;
        let name = schema::table_name(&create.name)?;
        let row = vec![name.schema.into(), name.name.clone().into(), options.connection.into(), options.topic.into()];
        rows.push((name.name, row));
    }
    Ok(rows)
}

async fn flows(ctx: &StatementContext<'_>, what: ShowWhat) -> Result<Rows> {
    let mut rows = Vec::new();
    for definition in named(ctx, DefinitionKind::Flow).await? {
        let name = flow::target(&definition)?;
        let status = ctx.engine.supervisor.status(definition.id);
        let status = status.as_ref();
        let state = status.map_or("stopped", |s| s.state.as_str());
        let mut row: Vec<Cell> = vec![
            name.schema.into(),
            name.name.clone().into(),
            flow::reads(&definition).map(str::to_owned).into(),
            state.into(),
        ];
        if what == ShowWhat::Flows {
            let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
            let error = status.and_then(|s| s.error.as_ref());
            row.extend([
                Cell::from(status.map(|s| number(s.seq))),
                status.and_then(tidewater_catalogs::FlowStatus::lag).into(),
                status.map(|s| number(s.rows_out)).into(),
                status.map(|s| number(s.rows_dead)).into(),
                error.map(|e| format!("{}: {}", e.code, e.message)).into(),
                error.and_then(|e| e.hint.clone()).into(),
            ]);
        }
        rows.push((name.name, row));
    }
    Ok(rows)
}

async fn tables(ctx: &StatementContext<'_>) -> Result<Rows> {
    let mut rows = Vec::new();
    let flows = named(ctx, DefinitionKind::Flow).await?;
    let mut schemas = ctx.engine.lake.list_schemas(DEFAULT_CATALOG).await?;
    schemas.sort();
    for schema in schemas {
        let mut tables = ctx.engine.lake.list_tables(DEFAULT_CATALOG, &schema).await?;
        tables.sort();
        for table in tables {
            let full = table.to_string();
            let kind = if flows.iter().any(|f| f.name == full) { Found::StreamingTable } else { Found::Table };
            let row = vec![table.schema.into(), table.name.clone().into(), kind.kind().noun().into()];
            rows.push((table.name, row));
        }
    }
    Ok(rows)
}

pub(super) fn show_create_columns() -> Vec<ResultColumn> {
    columns(&[("name", T), ("statement", T)])
}

pub(super) async fn show_create(ctx: &StatementContext<'_>, show: &ShowCreate) -> Result<Outcome> {
    let engine = ctx.engine;
    let kind = match show.kind {
        ObjectKind::Secret => DefinitionKind::Secret,
        ObjectKind::Connection => DefinitionKind::Connection,
        ObjectKind::Catalog => DefinitionKind::Catalog,
        ObjectKind::Stream => DefinitionKind::Stream,
        ObjectKind::StreamingTable | ObjectKind::Flow => DefinitionKind::Flow,
        ObjectKind::Table | ObjectKind::Schema => return show_create_table(ctx, &show.name).await,
    };
    let definition = if matches!(kind, DefinitionKind::Secret | DefinitionKind::Connection | DefinitionKind::Catalog) {
        engine.metastore.get(kind, show.name.last()).await?
    } else {
        let mut found = None;
        for candidate in relation::candidates(ctx.settings, &show.name)? {
            found = engine.metastore.get(kind, &candidate.to_string()).await?;
            if found.is_some() {
                break;
            }
        }
        found
    };
    let definition = definition.ok_or_else(|| secret::undefined(show.kind, show.name.last()))?;
    one_statement(&definition.name, &definition.sql)
}

fn one_statement(name: &str, sql: &str) -> Result<Outcome> {
    outcome(show_create_columns(), vec![vec![name.into(), sql.into()]], RowsTag::Show)
}

async fn show_create_table(ctx: &StatementContext<'_>, name: &Name) -> Result<Outcome> {
    for candidate in relation::candidates(ctx.settings, name)? {
        if candidate.schema == "pg_catalog" || candidate.schema == "information_schema" {
            continue;
        }
        match schema::find_relation(ctx.engine, &candidate).await? {
            None => {}
            Some(Found::Table) => return one_statement(&candidate.to_string(), &table_text(ctx, &candidate).await?),
            Some(found) => {
                return Err(SqlError::new(
                    SqlState::WRONG_OBJECT_TYPE,
                    format!("\"{}\" is a {}", candidate.name, found.kind().noun()),
                )
                .with_hint(format!("Use SHOW CREATE {}.", found.kind().keyword())));
            }
        }
    }
    Err(secret::undefined(ObjectKind::Table, name.last()))
}

async fn table_text(ctx: &StatementContext<'_>, name: &TableName) -> Result<String> {
    let table = ctx.engine.lake.load_table(name).await?;
    let info = table.info();
    let columns: Vec<String> = info
        .schema
        .fields()
        .iter()
        .map(|f| {
            let data_type =
                dialect::type_name(f.data_type()).unwrap_or_else(|| dialect::field_type_name(f).to_uppercase());
            format!("\n  {} {data_type}{}", quote_ident(f.name()), if f.is_nullable() { "" } else { " NOT NULL" })
        })
        .collect();
    let mut text = format!("CREATE TABLE {} ({}\n)\n", schema::full_name(name), columns.join(","));
    let shown: Vec<(String, String)> = info
        .properties
        .iter()
        .filter(|(k, _)| !k.starts_with("tidewater.") && *k != "comment")
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect();
    let comment = info.properties.get("comment").map(String::as_str);
    // Writing into a String does not fail.
    let _ = dialect::write_clauses(
        &mut text,
        &info.partition_by,
        dialect::own_order(&info.sort_by).as_ref(),
        comment,
        &shown,
    );
    Ok(text.trim_end().to_owned())
}

/// LIKE of PostgreSQL: `%` any text, `_` any character, a backslash takes the next character as it is.
pub(super) fn like(pattern: &str, text: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let text: Vec<char> = text.chars().collect();
    let (mut p, mut t) = (0, 0);
    // Where to go on when what follows the last % does not fit.
    let mut back: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some('%') => {
                back = Some((p + 1, t));
                p += 1;
                continue;
            }
            Some('_') => {
                p += 1;
                t += 1;
                continue;
            }
            Some('\\') if pattern.get(p + 1) == Some(&text[t]) => {
                p += 2;
                t += 1;
                continue;
            }
            Some(c) if *c != '\\' && *c == text[t] => {
                p += 1;
                t += 1;
                continue;
            }
            _ => {}
        }
        match back {
            Some((bp, bt)) => {
                back = Some((bp, bt + 1));
                p = bp;
                t = bt + 1;
            }
            None => return false,
        }
    }
    pattern[p..].iter().all(|c| *c == '%')
}

#[cfg(test)]
mod tests {
    use super::like;

    #[test]
    fn like_is_postgres_like() {
        for (pattern, text, fits) in [
            ("", "", true),
            ("%", "", true),
            ("a%", "abc", true),
            ("%c", "abc", true),
            ("%b%", "abc", true),
            ("%b", "abc", false),
            ("a_c", "abc", true),
            ("a_", "abc", false),
            ("%a%b%", "xxaxxbxx", true),
            ("a\\%", "a%", true),
            ("a\\%", "ab", false),
            ("orders", "Orders", false),
            ("%aab", "aaaab", true),
        ] {
            assert_eq!(like(pattern, text), fits, "{pattern} {text}");
        }
    }
}
