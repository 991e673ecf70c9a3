//! Flows after they were made: planned again at every start, paused, changed, dropped.

use std::sync::{Arc, Weak};

use async_trait::async_trait;
use tidewater_catalogs::{Definition, DefinitionKind, Error, ErrorKind, NewTable, TableName, dead_letter_schema};
use tidewater_streaming::{FlowFactory, FlowSpec};

use super::connection::broken;
use super::schema;
use super::secret::{skipping_drop, undefined};
use super::stream;
use crate::dialect::{
    self, AlterFlow, AlterFlowAction, CreateStreamingTable, FlowOptions, Name, ObjectKind, Options, Statement,
};
use crate::engine::Engine;
use crate::error::Result;
use crate::plan::flow::{self as plan, CompiledFlow};
use crate::plan::relation;
use crate::session::{Login, Notice, Outcome, StatementContext};
use crate::settings::Settings;
use crate::{SqlError, SqlState};

/// Properties of a flow's definition, beside its statement.
pub(super) const PAUSED: &str = "paused";
/// Full name of the stream that it reads.
pub(super) const STREAM: &str = "stream";
/// The target as it was made; another table under its name is not the flow's.
pub(super) const TABLE_UUID: &str = "table_uuid";
/// Settings of the session that made it, which its names and timestamps were read with.
pub(super) const SEARCH_PATH: &str = "search_path";
pub(super) const TIME_ZONE: &str = "time_zone";

/// Options that hold for the life of a flow: where it began is in its first commit, its files have their size.
const FIXED: &[&str] = &["start", "target_file_size"];

/// Plans stored definitions into flows.
pub(crate) struct FlowPlanner {
    engine: Weak<Engine>,
}

impl std::fmt::Debug for FlowPlanner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FlowPlanner").finish_non_exhaustive()
    }
}

impl FlowPlanner {
    pub(crate) fn new(engine: Weak<Engine>) -> Self {
        Self { engine }
    }
}

#[async_trait]
impl FlowFactory for FlowPlanner {
    async fn build(&self, flow: &Definition) -> Result<FlowSpec, Error> {
        let engine = self.engine.upgrade().ok_or_else(|| Error::unavailable("the server shuts down"))?;
        spec(&engine, flow).await
    }
}

/// Kinds of errors stay what they are, as they decide whether a restart may help.
async fn spec(engine: &Arc<Engine>, flow: &Definition) -> Result<FlowSpec, Error> {
    let create = parse(flow)?;
    let name = schema::table_name(&create.name)?;
    let table = engine.lake.load_table(&name).await?;
    let info = table.info();
    if flow.properties.get(TABLE_UUID).is_some_and(|uuid| *uuid != info.uuid.to_string()) {
        return Err(Error::new(
            ErrorKind::SourceReplaced,
            format!("table \"{name}\" was dropped and created again by someone else"),
        )
        .with_hint("Drop that table, then DROP STREAMING TABLE and create it again."));
    }
    let settings = stored_settings(engine, flow)?;
    let compiled = compile(engine, &settings, &create, &flow.sql).await?;
    let stream = &compiled.stream;
    // Planning sees the columns of today; the table has those of its creation.
    let planned = compiled.query.output_schema();
    let same = planned.fields().len() == info.schema.fields().len()
        && planned
            .fields()
            .iter()
            .zip(info.schema.fields())
            .all(|(a, b)| a.name() == b.name() && a.data_type().equals_datatype(b.data_type()));
    if !same {
        return Err(Error::invalid(format!("the query of \"{name}\" no longer gives the columns of its table"))
            .with_detail("A column was added to, dropped from or changed in the stream or the table.")
            .with_hint("Create a new streaming table."));
    }
    let options = FlowOptions::read(&create.options, &owner(&name))?;
    let dead_letters = TableName::dead_letters(&stream.name);
    ensure_dead_letters(engine, &dead_letters).await?;
    let definition = &stream.definition.spec;
    Ok(FlowSpec {
        id: flow.id,
        settings: options.settings(&engine.defaults.flow, definition.on_error),
        source: stream.source.clone(),
        start: options.start.map_or_else(|| definition.start.clone(), |start| start.resolve(flow.created_at_ms)),
        query: compiled.query.clone(),
        target: engine.lake.commit_table(&name).await?,
        dead_letters: engine.lake.commit_table(&dead_letters).await?,
        blobs: engine.blobs.clone(),
        name,
    })
}

/// Settings as the session had them that made the flow.
fn stored_settings(engine: &Engine, flow: &Definition) -> Result<Settings> {
    let mut options = Vec::new();
    for (property, setting) in [(SEARCH_PATH, "search_path"), (TIME_ZONE, "TimeZone")] {
        if let Some(value) = flow.properties.get(property) {
            options.push((setting.to_owned(), value.clone()));
        }
    }
    Settings::for_login(&engine.defaults, &Login { options, ..Login::default() })
}

/// The query of a streaming table in the columns of its table.
pub(super) async fn compile(
    engine: &Arc<Engine>,
    settings: &Settings,
    create: &CreateStreamingTable,
    text: &str,
) -> Result<CompiledFlow> {
    plan::compile(engine, settings, create, text).await
}

pub(super) fn owner(name: &TableName) -> String {
    format!("streaming table \"{}\"", name.name)
}

/// Makes the dead-letter table where it is not there yet. True where it was made.
pub(super) async fn ensure_dead_letters(engine: &Engine, name: &TableName) -> Result<bool, Error> {
    match engine.lake.load_table(name).await {
        Ok(_) => return Ok(false),
        Err(e) if e.kind() == ErrorKind::NotFound => {}
        Err(e) => return Err(e),
    }
    match engine.lake.create_schema(&name.catalog, &name.schema).await {
        Err(e) if e.kind() != ErrorKind::AlreadyExists => return Err(e),
        _ => {}
    }
    let table = NewTable {
        name: name.clone(),
        schema: dead_letter_schema(),
        partition_by: Vec::new(),
        properties: Default::default(),
        location: None,
        comment: Some("Records that could not be read".to_owned()),
    };
    match engine.lake.create_table(table).await {
        Ok(_) => Ok(true),
        // Another flow of the stream was faster.
        Err(e) if e.kind() == ErrorKind::AlreadyExists => Ok(false),
        Err(e) => Err(e),
    }
}

pub(super) fn parse(definition: &Definition) -> Result<CreateStreamingTable> {
    match dialect::parse_stored(&definition.sql)? {
        Statement::CreateStreamingTable(create) => Ok(*create),
        _ => Err(broken(definition)),
    }
}

/// Full name of the stream that a flow reads. None for other definitions.
pub(super) fn reads(definition: &Definition) -> Option<&str> {
    if definition.kind != DefinitionKind::Flow {
        return None;
    }
    definition.properties.get(STREAM).map(String::as_str)
}

/// The table that a flow keeps.
pub(super) fn target(definition: &Definition) -> Result<TableName> {
    schema::table_name(&parse(definition)?.name)
}

/// A flow by the search path.
pub(super) async fn find(ctx: &StatementContext<'_>, name: &Name) -> Result<Option<Definition>> {
    for candidate in relation::candidates(ctx.settings, name)? {
        if let Some(found) = ctx.engine.metastore.get(DefinitionKind::Flow, &candidate.to_string()).await? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// Hands a changed definition to the supervisor, which commits what was read under the old one first.
pub(super) async fn restart(engine: &Engine, flow: Definition) -> Result<()> {
    match engine.supervisor.restart(flow.clone()).await {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(engine.supervisor.start(flow)?),
        other => Ok(other?),
    }
}

pub(super) async fn alter_flow(ctx: &StatementContext<'_>, alter: &AlterFlow) -> Result<Outcome> {
    let tag = format!("ALTER {}", alter.kind.keyword());
    let engine = ctx.engine;
    let Some(mut flow) = find(ctx, &alter.name).await? else {
        if alter.if_exists {
            ctx.notice(skipping_drop(alter.kind, alter.name.last()));
            return Ok(Outcome::done(tag));
        }
        return Err(missing(ctx, alter).await?);
    };
    match &alter.action {
        AlterFlowAction::Pause | AlterFlowAction::Resume => {
            let pause = alter.action == AlterFlowAction::Pause;
            let changed = if pause {
                flow.properties.insert(PAUSED.to_owned(), "true".to_owned()).is_none()
            } else {
                flow.properties.remove(PAUSED).is_some()
            };
            // Kept first: after a crash in between, the flow does what was asked last.
            if changed {
                engine.metastore.update(&flow).await?;
            }
            let done =
                if pause { engine.supervisor.pause(flow.id).await } else { engine.supervisor.resume(flow.id).await };
            match done {
                Err(e) if e.kind() == ErrorKind::NotFound => engine.supervisor.start(flow)?,
                other => other?,
            }
        }
        AlterFlowAction::Set(options) => change(ctx, flow, alter, options, &[]).await?,
        AlterFlowAction::Reset(names) => change(ctx, flow, alter, &Options::default(), names).await?,
    }
    Ok(Outcome::done(tag))
}

/// The table may be there without a flow.
async fn missing(ctx: &StatementContext<'_>, alter: &AlterFlow) -> Result<SqlError> {
    for candidate in relation::candidates(ctx.settings, &alter.name)? {
        if candidate.schema == "pg_catalog" {
            continue;
        }
        if let Some(found) = schema::find_relation(ctx.engine, &candidate).await? {
            return Ok(SqlError::new(
                SqlState::WRONG_OBJECT_TYPE,
                format!("\"{}\" is not a {}", candidate.name, ObjectKind::StreamingTable.noun()),
            )
            .with_detail(format!("It is a {}, which no flow keeps.", found.kind().noun())));
        }
    }
    Ok(undefined(alter.kind, alter.name.last()))
}

async fn change(
    ctx: &StatementContext<'_>,
    flow: Definition,
    alter: &AlterFlow,
    set: &Options,
    reset: &[String],
) -> Result<()> {
    let mut create = parse(&flow)?;
    let owner = format!("{} \"{}\"", alter.kind.noun(), alter.name.last());
    let mut names = set.0.iter().map(|e| &e.name).chain(reset);
    if let Some(fixed) = names.find(|n| FIXED.contains(&n.as_str())) {
        return Err(SqlError::unsupported(format!("option \"{fixed}\" of {owner} cannot be changed"))
            .with_detail("It is read when the streaming table is created."));
    }
    // Typing errors in SET and RESET are told as such, before the whole is read.
    FlowOptions::read(set, &owner)?;
    for name in reset {
        FlowOptions::check_name(name, &owner)?;
        create.options.remove(name);
    }
    for entry in &set.0 {
        create.options.set(&entry.name, entry.value.clone());
    }
    FlowOptions::read(&create.options, &owner)?;
    let changed = Definition { sql: create.to_string(), ..flow };
    if changed.sql
        == ctx.engine.metastore.get(DefinitionKind::Flow, &changed.name).await?.map_or_else(String::new, |d| d.sql)
    {
        return Ok(());
    }
    ctx.engine.metastore.update(&changed).await?;
    // The supervisor's copy must have the version that is stored now.
    let stored = ctx.engine.metastore.get(DefinitionKind::Flow, &changed.name).await?.unwrap_or(changed);
    restart(ctx.engine, stored).await
}

/// Ends the flow, then forgets it, then drops the table: whatever breaks off in between leaves a table that no flow
/// writes, which can be dropped again.
pub(super) async fn drop_streaming_table(ctx: &StatementContext<'_>, name: &TableName, keep_data: bool) -> Result<()> {
    let engine = ctx.engine;
    let Some(flow) = engine.metastore.get(DefinitionKind::Flow, &name.to_string()).await? else {
        return Err(undefined(ObjectKind::StreamingTable, &name.name));
    };
    // Should the client go away, the drop goes on.
    let (engine, name) = (engine.clone(), name.clone());
    let work = async move {
        match engine.supervisor.stop(flow.id).await {
            Err(e) if e.kind() != ErrorKind::NotFound => return Err(SqlError::from(e)),
            _ => {}
        }
        engine.metastore.as_ref().drop(DefinitionKind::Flow, &flow.name).await?;
        if !keep_data {
            match engine.lake.drop_table(&name, true).await {
                Err(e) if e.kind() != ErrorKind::NotFound => return Err(e.into()),
                _ => {}
            }
        }
        Ok(())
    };
    super::streaming_table::detached(ctx, work).await?;
    if keep_data {
        ctx.notice(Notice::notice("the table is kept, without its flow"));
    }
    Ok(())
}

/// The dead-letter table of the stream that a flow reads. Names of streams have no dots.
pub(super) fn dead_letters(definition: &Definition) -> Option<TableName> {
    stream_name(definition).map(|name| TableName::dead_letters(&name))
}

fn stream_name(definition: &Definition) -> Option<TableName> {
    let mut parts = reads(definition)?.splitn(3, '.');
    Some(TableName::new(parts.next()?, parts.next()?, parts.next()?))
}

/// [`dead_letters`] for messages.
pub(super) fn dead_letters_of(definition: &Definition) -> Option<String> {
    stream_name(definition).map(|name| stream::dead_letters_text(&name))
}
