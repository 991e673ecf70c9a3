use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::Field;
use tidewater_catalogs::{
    ConnectionSpec, DEFAULT_CATALOG, Definition, DefinitionKind, ErrorKind, HiddenColumn, StreamColumn,
    StreamConnector, StreamSpec, TableName,
};

use super::connection;
use super::schema::{self, Found};
use super::secret::{create_definition, new_definition};
use crate::dialect::{
    self, ColumnSource, CreateStream, ObjectKind, Statement, StreamColumnDef, StreamOptions, quote_ident,
};
use crate::engine::Engine;
use crate::error::Result;
use crate::plan::relation::{GeneratedColumn, StreamDefinition, StreamRelation, new_name};
use crate::run::guard;
use crate::session::{Notice, Outcome, StatementContext};
use crate::{SqlError, SqlState};

pub(super) async fn create_stream(ctx: &StatementContext<'_>, create: &CreateStream) -> Result<Outcome> {
    let engine = ctx.engine;
    let name = new_name(ctx.settings, &create.name)?;
    check_name(&name)?;
    if name.catalog != DEFAULT_CATALOG {
        return Err(SqlError::unsupported(format!("a stream cannot be in catalog \"{}\"", name.catalog))
            .with_detail("Streams are known to this server alone.")
            .with_hint(format!("Leave the catalog out, or write \"{DEFAULT_CATALOG}\".")));
    }
    schema::require_schema(engine, &name).await?;
    if !is_free(ctx, &name, create).await? {
        return Ok(Outcome::done("CREATE STREAM"));
    }
    // Asking a broker can take long; nothing is kept yet, so that it may be cancelled.
    let (stored, inferred, relation) = guard(&ctx.cancel, ctx.deadline, prepare(ctx, &name, create)).await?;

    let names = schema::lock_names(ctx).await?;
    if !is_free(ctx, &name, create).await? {
        return Ok(Outcome::done("CREATE STREAM"));
    }
    let sql = stored.to_string();
    let mut flows = Vec::new();
    match engine.metastore.get(DefinitionKind::Stream, &name.to_string()).await? {
        Some(old) => {
            flows = users(engine, &name.to_string()).await?;
            check_users(engine, &old, &relation, &flows).await?;
            engine.metastore.update(&Definition { sql, ..old }).await?;
        }
        None => {
            let definition = new_definition(DefinitionKind::Stream, &name.to_string(), sql, BTreeMap::new());
            create_definition(&engine.metastore, ObjectKind::Stream, &definition).await?;
        }
    }
    drop(names);
    // What they have read under the old definition is committed first.
    for flow in &flows {
        super::flow::restart(ctx, flow.id, flow.name.clone()).await?;
    }
    if !inferred.is_empty() {
        let list: Vec<String> = inferred.iter().map(ToString::to_string).collect();
        let mut notice = Notice::notice(format!("inferred {} columns of stream \"{}\"", list.len(), name.name));
        notice.detail = Some(list.join(", "));
        ctx.notice(notice);
    }
    Ok(Outcome::done("CREATE STREAM"))
}

/// Whether the stream may be made under this name. False where IF NOT EXISTS leaves it at what there is.
async fn is_free(ctx: &StatementContext<'_>, name: &TableName, create: &CreateStream) -> Result<bool> {
    match schema::find_relation(ctx.engine, name).await? {
        None => Ok(true),
        Some(_) if create.if_not_exists => {
            ctx.notice(schema::relation_skipped(name));
            Ok(false)
        }
        // Whether the flows that read it can go on is looked at when the new definition is known.
        Some(Found::Stream) if create.or_replace => Ok(true),
        Some(found) => Err(schema::relation_exists(name, found)),
    }
}

/// The statement as it is kept, the columns that were inferred for it, and the stream that it defines.
async fn prepare(
    ctx: &StatementContext<'_>,
    name: &TableName,
    create: &CreateStream,
) -> Result<(CreateStream, Vec<StreamColumnDef>, StreamRelation)> {
    let engine = ctx.engine;
    let options = StreamOptions::read(&create.options, &name.name)?;
    let spec = connection::load(engine, &options.connection).await?;
    let connector = connection::connector(engine, &spec.kind)?;
    if options.create_topic {
        connector.create_topic(&spec, &options.topic, options.partitions).await?;
    }
    let mut stored =
        CreateStream { or_replace: false, if_not_exists: false, name: schema::full_name(name), ..create.clone() };
    let mut inferred = Vec::new();
    if create.infer {
        let fields =
            connector.infer(&spec, &options.topic, options.format, options.infer_rows).await.map_err(no_topic)?;
        inferred = inferred_columns(ctx, &options, fields, &create.columns)?;
        stored.infer = false;
        stored.columns = inferred.iter().cloned().chain(create.columns.iter().cloned()).collect();
    }
    let definition = describe(name, &stored, &options, spec)?;
    crate::plan::generated::check(engine, ctx.settings, &definition).await?;
    let source = connector.source(definition.spec.clone())?;
    if options.validate {
        source.layout().await.map_err(no_topic)?;
    }
    Ok((stored, inferred, StreamRelation { name: name.clone(), definition, source }))
}

/// Definitions are kept under `CATALOG.SCHEMA.NAME`, where a dot inside a name would be taken for another name.
pub(super) fn check_name(name: &TableName) -> Result<()> {
    if name.name.contains('.') || name.schema.contains('.') || name.name.contains('$') {
        return Err(SqlError::new(
            SqlState("42602"),
            format!("\"{}\" is no name for a stream or streaming table", name.name),
        )
        .with_hint("Leave out \".\" and \"$\"."));
    }
    Ok(())
}

fn no_topic(e: tidewater_catalogs::Error) -> SqlError {
    let missing = e.kind() == ErrorKind::NotFound && e.hint().is_none();
    let e = SqlError::from(e);
    if missing { e.with_hint("WITH (…, create_topic = true, partitions = 1) makes the topic.") } else { e }
}

/// Flows keep their positions, which are offsets of one topic, and their tables, whose columns do not change.
async fn check_users(engine: &Arc<Engine>, old: &Definition, new: &StreamRelation, flows: &[Definition]) -> Result<()> {
    let Some(first) = flows.first() else { return Ok(()) };
    let (_, options) = parse(old)?;
    let cannot = |why: String| SqlError::new(SqlState::DEPENDENT_OBJECTS, why);
    let name = &new.name.name;
    let spec = &new.definition.spec;
    if options.connection != spec.connection.name || options.topic != spec.topic {
        return Err(cannot(format!(
            "cannot change the topic of stream \"{name}\" because streaming table \"{}\" reads it",
            first.name
        ))
        .with_detail(format!(
            "Its position is in topic \"{}\" of connection \"{}\".",
            options.topic, options.connection
        ))
        .with_hint("Create another stream over the other topic."));
    }
    let new = Arc::new(new.clone());
    for flow in flows {
        if let Err(e) = super::flow::check_with(engine, flow, &new).await {
            let why = match &e.detail {
                Some(detail) => format!("{}: {detail}", e.message),
                None => e.message,
            };
            return Err(cannot(format!(
                "cannot replace stream \"{name}\" because streaming table \"{}\" could not go on with it",
                flow.name
            ))
            .with_detail(why)
            .with_hint(
                "Keep the columns that its query reads, in types that fit the columns of its table; or drop it first: \
                 DROP STREAMING TABLE … KEEP DATA leaves the rows.",
            ));
        }
    }
    Ok(())
}

/// 2BP01, naming who uses it.
pub(super) fn in_use(kind: ObjectKind, name: &str, users: &[String], verb: &str) -> SqlError {
    let e = SqlError::new(
        SqlState::DEPENDENT_OBJECTS,
        format!("cannot {verb} {} \"{name}\" because other objects depend on it", kind.noun()),
    )
    .with_detail(format!("Used by {}.", users.join(", ")));
    if verb == "drop" {
        e.with_hint("Use DROP … CASCADE to drop them too.")
    } else {
        e.with_hint("Drop them first; DROP STREAMING TABLE … KEEP DATA leaves the rows.")
    }
}

/// The flows that read the stream.
pub(super) async fn users(engine: &Engine, stream: &str) -> Result<Vec<Definition>> {
    let all = engine.metastore.list().await?;
    Ok(all.into_iter().filter(|d| super::flow::reads(d) == Some(stream)).collect())
}

/// Columns found in a sample, without those that the statement declares itself.
fn inferred_columns(
    ctx: &StatementContext<'_>,
    options: &StreamOptions,
    fields: Vec<Field>,
    declared: &[StreamColumnDef],
) -> Result<Vec<StreamColumnDef>> {
    let mut columns = Vec::new();
    let mut left_out = Vec::new();
    for field in fields {
        if declared.iter().any(|c| c.name == *field.name()) {
            continue;
        }
        if field.name().is_empty() || HiddenColumn::from_name(field.name()).is_some() {
            left_out.push(format!("\"{}\"", field.name()));
            continue;
        }
        columns.push(StreamColumnDef {
            name: field.name().clone(),
            data_type: inferred_type(&field)?,
            // A sample does not show what every record has.
            not_null: false,
            source: ColumnSource::Value,
        });
    }
    if columns.is_empty() && declared.is_empty() {
        return Err(SqlError::new(
            SqlState::INVALID_PARAMETER,
            format!("no columns can be inferred from topic \"{}\"", options.topic),
        )
        .with_detail("The topic is empty, or none of its records could be read in the format.")
        .with_hint("Declare the columns: CREATE STREAM name (column type, …) WITH (…)."));
    }
    if !left_out.is_empty() {
        ctx.notice(Notice::warning(
            SqlState::WARNING,
            format!("members left out, because hidden columns have their names: {}", left_out.join(", ")),
        ));
    }
    Ok(columns)
}

/// The declared type of an inferred column.
pub(super) fn inferred_type(field: &Field) -> Result<sqlparser::ast::DataType> {
    dialect::parse_type(&dialect::declared_type(field))
}

/// A stream as its columns and options say.
fn describe(
    name: &TableName,
    create: &CreateStream,
    options: &StreamOptions,
    connection: ConnectionSpec,
) -> Result<StreamDefinition> {
    let mut columns = Vec::new();
    let mut generated = Vec::new();
    for (index, column) in create.columns.iter().enumerate() {
        if HiddenColumn::from_name(&column.name).is_some() {
            return Err(SqlError::new(
                SqlState::DUPLICATE_COLUMN,
                format!("column \"{}\" conflicts with a hidden column", column.name),
            )
            .with_hint("Every stream has it; leave it out of the list, or choose another name."));
        }
        let field = dialect::arrow_field(&column.name, &column.data_type, !column.not_null)?;
        match &column.source {
            ColumnSource::Value => columns.push(StreamColumn::Value(field)),
            ColumnSource::Metadata(from) => {
                columns.push(StreamColumn::Metadata { field, from: metadata(from)? });
            }
            ColumnSource::Generated { expr, .. } => generated.push(GeneratedColumn {
                name: column.name.clone(),
                data_type: field.data_type().clone(),
                not_null: column.not_null,
                expr: expr.clone(),
                index,
            }),
        }
    }
    if let Some(key) = &options.key_column
        && !create.columns.iter().any(|c| c.name == *key && c.source == ColumnSource::Value)
    {
        return Err(SqlError::undefined_column(key)
            .with_hint("The option \"key\" of a stream names one of the columns of its value."));
    }
    let spec = StreamSpec {
        name: name.clone(),
        connection,
        topic: options.topic.clone(),
        format: options.format,
        columns,
        start: options.start.resolve(chrono::Utc::now().timestamp_millis()),
        on_error: options.on_error,
        read_uncommitted: options.read_uncommitted,
        key_column: options.key_column.clone(),
    };
    Ok(StreamDefinition { spec, generated })
}

/// What there is, and in which types, the connector knows.
fn metadata(from: &str) -> Result<String> {
    if from == "rest" {
        return Err(SqlError::unsupported("METADATA FROM 'rest' is not supported yet")
            .with_hint("Take the whole record: column _value, or a stream with format = 'text'."));
    }
    Ok(from.to_owned())
}

/// The statement of a stored stream, and its options.
pub(super) fn parse(definition: &Definition) -> Result<(CreateStream, StreamOptions)> {
    match dialect::parse_stored(&definition.sql)? {
        Statement::CreateStream(create) => {
            let options = StreamOptions::read(&create.options, create.name.last())?;
            Ok((create, options))
        }
        _ => Err(connection::broken(definition)),
    }
}

/// A stored stream, with its connection and the values of its secrets as they are now.
pub(crate) async fn stream_definition(engine: &Engine, definition: &Definition) -> Result<StreamDefinition> {
    let (create, options) = parse(definition)?;
    let name = schema::table_name(&create.name)?;
    let connection = connection::load(engine, &options.connection).await?;
    describe(&name, &create, &options, connection)
}

/// Columns of a topic by a sample.
pub(super) async fn infer(
    engine: &Engine,
    connection: &str,
    topic: &str,
    options: &dialect::InferOptions,
) -> Result<Vec<Field>> {
    let spec = connection::load(engine, connection).await?;
    let connector: Arc<dyn StreamConnector> = connection::connector(engine, &spec.kind)?;
    Ok(connector.infer(&spec, topic, options.format, options.infer_rows).await?)
}

/// `"name" type` as DESCRIBE and notices show a column that is not declared.
pub(super) fn shown_type(declared: &sqlparser::ast::DataType) -> String {
    declared.to_string().to_lowercase()
}

/// A column for people.
pub(super) fn shown_source(column: &StreamColumnDef) -> Option<String> {
    match &column.source {
        ColumnSource::Value => None,
        ColumnSource::Metadata(from) => Some(format!("metadata from '{from}'")),
        ColumnSource::Generated { text, .. } => Some(format!("generated always as ({text})")),
    }
}

/// The dead-letter table's name as statements write it.
pub(super) fn dead_letters_text(name: &TableName) -> String {
    let dlq = TableName::dead_letters(name);
    format!("{}.{}.{}", dlq.catalog, dlq.schema, quote_ident(&dlq.name))
}
