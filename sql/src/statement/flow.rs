//! Flows after they were made: planned again at every start, paused, changed, dropped.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use arrow::datatypes::Schema;
use async_trait::async_trait;
use parking_lot::Mutex;
use tidewater_catalogs::{
    Definition, DefinitionKind, Error, ErrorKind, NewTable, Offsets, StartPosition, TableName, dead_letter_schema,
};
use tidewater_streaming::{FlowFactory, FlowSpec, Replay};
use tokio::sync::OwnedMutexGuard;
use uuid::Uuid;

use super::connection::broken;
use super::replay;
use super::schema;
use super::secret::{skipping_drop, undefined};
use super::stream;
use crate::dialect::{
    self, AlterFlow, AlterFlowAction, CreateStreamingTable, FlowOptions, Name, ObjectKind, Options, Statement,
};
use crate::engine::Engine;
use crate::error::Result;
use crate::plan::flow::{self as plan, Bound, CompiledFlow};
use crate::plan::letters::FlowLetters;
use crate::plan::relation::{self, StreamRelation};
use crate::run::detached;
use crate::run::guard;
use crate::session::{Login, Notice, Outcome, StatementContext};
use crate::settings::Settings;
use crate::{SqlError, SqlState};

/// Properties of a flow's definition, beside its statement.
pub(super) const PAUSED: &str = "paused";
/// Full name of the stream that it reads.
pub(super) const STREAM: &str = "stream";
/// The target as it was made; another table under its name is not the flow's.
pub(super) const TABLE_UUID: &str = "table_uuid";
/// Where it begins, as JSON. A start that means another record at each look ("latest", "an hour ago") is asked once,
/// when the table is created: a kill before the first commit would lose what came in between.
pub(super) const START_OFFSETS: &str = "start_offsets";
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

    async fn current(&self, flow: &Definition) -> Result<Definition, Error> {
        let engine = self.engine.upgrade().ok_or_else(|| Error::unavailable("the server shuts down"))?;
        stored(&engine, flow.id, &flow.name).await?.ok_or_else(|| {
            Error::not_found(format!("flow \"{}\" was dropped", flow.name)).with_hint("Another server has dropped it.")
        })
    }
}

/// The definition as it is now. None where the flow is gone, also where another one has its name.
pub(super) async fn stored(engine: &Engine, id: Uuid, name: &str) -> Result<Option<Definition>, Error> {
    Ok(engine.metastore.get(DefinitionKind::Flow, name).await?.filter(|d| d.id == id))
}

/// Locks of single flows. One is held from the last look at a definition to the moment when the supervisor has it: a
/// restart with a definition that was read earlier would revive a flow that is dropped meanwhile, or bring back options
/// that are changed meanwhile. Taken before the lock of the names, several in the order of their ids.
static FLOWS: Mutex<BTreeMap<Uuid, Weak<tokio::sync::Mutex<()>>>> = Mutex::new(BTreeMap::new());

pub(crate) async fn lock(id: Uuid) -> OwnedMutexGuard<()> {
    let lock = {
        let mut all = FLOWS.lock();
        all.retain(|_, lock| lock.strong_count() > 0);
        match all.get(&id).and_then(Weak::upgrade) {
            Some(lock) => lock,
            None => {
                let lock = Arc::new(tokio::sync::Mutex::new(()));
                all.insert(id, Arc::downgrade(&lock));
                lock
            }
        }
    };
    lock.lock_owned().await
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
    let bound = stream_name(flow).map(|name| schema::full_name(&name));
    let compiled = compile_stored(engine, flow, bound.as_ref().map(Bound::To), &info.schema).await?;
    let stream = &compiled.stream;
    let options = FlowOptions::read(&create.options, &owner(&name))?;
    let dead_letters = TableName::dead_letters(&stream.name);
    ensure_dead_letters(engine, &dead_letters).await?;
    let definition = &stream.definition.spec;
    Ok(FlowSpec {
        id: flow.id,
        settings: options.settings(&engine.defaults.flow, definition.on_error),
        source: stream.source.clone(),
        start: match flow.properties.get(START_OFFSETS) {
            Some(pinned) => StartPosition::Offsets(serde_json::from_str::<Offsets>(pinned).map_err(|e| {
                Error::new(ErrorKind::DataCorrupt, format!("the start of flow \"{name}\" cannot be read"))
                    .with_source(e)
            })?),
            None => options.start.map_or_else(|| definition.start.clone(), |start| start.resolve(flow.created_at_ms)),
        },
        query: compiled.query.clone(),
        target: engine.lake.commit_table(&name).await?,
        replays: replay::requests(flow)?
            .into_iter()
            .map(|request| Replay {
                id: request.id,
                letters: Arc::new(FlowLetters {
                    engine: Arc::downgrade(engine),
                    table: dead_letters.clone(),
                    flow: flow.id,
                    request,
                }),
            })
            .collect(),
        dead_letters: engine.lake.commit_table(&dead_letters).await?,
        blobs: engine.blobs.clone(),
        name,
    })
}

/// The query of a flow that is there, into the columns that its table has.
async fn compile_stored(
    engine: &Arc<Engine>,
    flow: &Definition,
    bound: Option<Bound<'_>>,
    table: &Schema,
) -> Result<CompiledFlow, Error> {
    let create = parse(flow)?;
    let settings = stored_settings(engine, flow)?;
    let compiled = plan::compile_bound(engine, &settings, &create, &flow.sql, bound, Some(table)).await?;
    // Planning sees the columns of today; the table has those of its creation.
    let planned = compiled.query.output_schema();
    let same = planned.fields().len() == table.fields().len()
        && planned
            .fields()
            .iter()
            .zip(table.fields())
            .all(|(a, b)| a.name() == b.name() && a.data_type().equals_datatype(b.data_type()));
    if same {
        return Ok(compiled);
    }
    Err(Error::invalid(format!("the query of \"{}\" no longer gives the columns of its table", create.name.last()))
        .with_detail("A column was added to, dropped from or changed in the stream or the table.")
        .with_hint("Create a new streaming table."))
}

/// Whether a flow could go on with its stream defined as `stream`: the error says why not.
pub(super) async fn check_with(engine: &Arc<Engine>, flow: &Definition, stream: &Arc<StreamRelation>) -> Result<()> {
    let table = engine.lake.load_table(&target(flow)?).await?;
    compile_stored(engine, flow, Some(Bound::As(stream)), &table.info().schema).await?;
    Ok(())
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

/// Makes the dead-letter table where it is not there yet; then its uuid.
pub(super) async fn ensure_dead_letters(engine: &Engine, name: &TableName) -> Result<Option<Uuid>, Error> {
    match engine.lake.load_table(name).await {
        Ok(_) => return Ok(None),
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
        sort_by: Vec::new(),
        properties: Default::default(),
        defaults: Default::default(),
        location: None,
        comment: Some("Records that could not be read".to_owned()),
    };
    match engine.lake.create_table(table).await {
        Ok(made) => Ok(Some(made.info().uuid)),
        // Another flow of the stream was faster.
        Err(e) if e.kind() == ErrorKind::AlreadyExists => Ok(None),
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

/// Starts the flow anew with its definition as it is now, after what was read under the old one is committed.
pub(super) async fn restart(ctx: &StatementContext<'_>, id: Uuid, name: String) -> Result<()> {
    let engine = ctx.engine.clone();
    let work = async move {
        let _lock = lock(id).await;
        match stored(&engine, id, &name).await? {
            Some(flow) => hand_over(&engine, flow).await,
            None => Ok(()),
        }
    };
    guard(&ctx.cancel, ctx.deadline, detached(ctx, work)).await
}

/// The caller holds the flow's lock.
pub(super) async fn hand_over(engine: &Engine, flow: Definition) -> Result<()> {
    match engine.supervisor.restart(flow.clone()).await {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(engine.supervisor.start(flow)?),
        other => Ok(other?),
    }
}

pub(super) async fn alter_flow(ctx: &StatementContext<'_>, alter: &AlterFlow) -> Result<Outcome> {
    let tag = format!("ALTER {}", alter.kind.keyword());
    let Some(flow) = find(ctx, &alter.name).await? else {
        if alter.if_exists {
            ctx.notice(skipping_drop(alter.kind, alter.name.last()));
            return Ok(Outcome::done(tag));
        }
        return Err(missing(ctx, alter).await?);
    };
    // Should the client go away, the change is still told to the flow that runs.
    let (engine, alter) = (ctx.engine.clone(), alter.clone());
    let work = async move {
        let _lock = lock(flow.id).await;
        let Some(flow) = stored(&engine, flow.id, &flow.name).await? else {
            return Err(undefined(alter.kind, alter.name.last()));
        };
        match &alter.action {
            AlterFlowAction::Pause => pause(&engine, flow, true).await,
            AlterFlowAction::Resume => pause(&engine, flow, false).await,
            AlterFlowAction::Set(options) => change(&engine, flow, &alter, options, &[]).await,
            AlterFlowAction::Reset(names) => change(&engine, flow, &alter, &Options::default(), names).await,
        }
    };
    guard(&ctx.cancel, ctx.deadline, detached(ctx, work)).await?;
    Ok(Outcome::done(tag))
}

/// The caller holds the flow's lock.
async fn pause(engine: &Engine, mut flow: Definition, pause: bool) -> Result<()> {
    let changed = if pause {
        flow.properties.insert(PAUSED.to_owned(), "true".to_owned()).is_none()
    } else {
        flow.properties.remove(PAUSED).is_some()
    };
    // Kept first: after a crash in between, the flow does what was asked last.
    if changed {
        engine.metastore.update(&flow).await?;
    }
    let done = if pause { engine.supervisor.pause(flow.id).await } else { engine.supervisor.resume(flow.id).await };
    match done {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(engine.supervisor.start(flow)?),
        other => Ok(other?),
    }
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

/// The caller holds the flow's lock.
async fn change(engine: &Engine, flow: Definition, alter: &AlterFlow, set: &Options, reset: &[String]) -> Result<()> {
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
    let sql = create.to_string();
    if sql == flow.sql {
        // Stored before, perhaps by a statement that broke off before the flow heard of it.
        return hand_over(engine, flow).await;
    }
    let changed = Definition { sql, ..flow };
    engine.metastore.update(&changed).await?;
    // The supervisor's copy must have the version that is stored now.
    let stored = stored(engine, changed.id, &changed.name).await?.unwrap_or(changed);
    hand_over(engine, stored).await
}

/// Flows that a DROP ends: drained, and locked until their definitions are gone. Those whose definitions are still
/// there in the end, because the DROP failed or was cancelled, run again.
#[derive(Debug)]
pub(super) struct Stopped {
    engine: Arc<Engine>,
    flows: Vec<(Definition, OwnedMutexGuard<()>)>,
}

impl Stopped {
    pub(super) fn has(&self, id: Uuid) -> bool {
        self.flows.iter().any(|(flow, _)| flow.id == id)
    }
}

impl std::ops::Drop for Stopped {
    fn drop(&mut self) {
        let (engine, flows) = (self.engine.clone(), std::mem::take(&mut self.flows));
        if flows.is_empty() {
            return;
        }
        self.engine.query_runtime.spawn(async move {
            for (flow, _lock) in flows {
                if engine.supervisor.status(flow.id).is_some() {
                    continue;
                }
                let there = match stored(&engine, flow.id, &flow.name).await {
                    Ok(None) => continue,
                    Ok(Some(there)) => there,
                    // It looks again itself, before each run.
                    Err(_) => flow,
                };
                if let Err(e) = engine.supervisor.start(there) {
                    tracing::warn!(error = %e, "a flow that was to be dropped could not be started again");
                }
            }
        });
    }
}

/// Drains flows, all at once. No lock of names is held meanwhile: it can take as long as the broker and the lake like.
pub(super) async fn stop_all(ctx: &StatementContext<'_>, mut flows: Vec<Definition>) -> Result<Arc<Stopped>> {
    flows.sort_by_key(|f| f.id);
    flows.dedup_by_key(|f| f.id);
    let mut stopped = Stopped { engine: ctx.engine.clone(), flows: Vec::new() };
    let work = async move {
        for flow in flows {
            let lock = lock(flow.id).await;
            stopped.flows.push((flow, lock));
        }
        let supervisor = &stopped.engine.supervisor;
        let stops = stopped.flows.iter().map(|(flow, _)| supervisor.stop_and_settle(flow.id));
        let mut unsettled = Vec::new();
        for ((flow, _), done) in stopped.flows.iter().zip(futures::future::join_all(stops).await) {
            match done {
                Ok(Some(why)) => unsettled.push((flow.name.clone(), why)),
                Err(e) if e.kind() != ErrorKind::NotFound => return Err(SqlError::from(e)),
                _ => {}
            }
        }
        Ok((Arc::new(stopped), unsettled))
    };
    let (stopped, unsettled) = guard(&ctx.cancel, ctx.deadline, detached(ctx, work)).await?;
    // That must not keep anyone from dropping a flow whose tables are gone.
    for (flow, why) in unsettled {
        let mut notice = Notice::warning(
            SqlState::WARNING,
            format!("dead letters of flow \"{flow}\" that were not written yet are lost when it is dropped"),
        );
        notice.detail = Some(why.to_string());
        ctx.notice(notice);
    }
    Ok(stopped)
}

/// Forgets a flow that was stopped, then drops the table: whatever breaks off in between leaves a table that no flow
/// writes, which can be dropped again.
pub(super) async fn drop_streaming_table(
    ctx: &StatementContext<'_>,
    name: &TableName,
    keep_data: bool,
    stopped: &Arc<Stopped>,
) -> Result<()> {
    let engine = ctx.engine;
    let Some(flow) = engine.metastore.get(DefinitionKind::Flow, &name.to_string()).await? else {
        return Err(undefined(ObjectKind::StreamingTable, &name.name));
    };
    // Should the client go away, the drop goes on.
    let (engine, name, stopped) = (engine.clone(), name.clone(), stopped.clone());
    let work = async move {
        let _stopped = stopped;
        engine.metastore.as_ref().drop(DefinitionKind::Flow, &flow.name).await?;
        if keep_data {
            // Only what nobody needs any more stays behind where this fails, and the flow is gone already.
            let forgotten = match engine.lake.commit_table(&name).await {
                Ok(table) => table.forget(&flow.id.to_string()).await,
                Err(e) => Err(e),
            };
            if let Err(e) = forgotten {
                tracing::warn!(table = %name, error = %e, "the anchor of a dropped flow stays in its table");
            }
        } else {
            // Another table that was made under the name since then is not the flow's.
            let uuid = flow.properties.get(TABLE_UUID).and_then(|uuid| Uuid::parse_str(uuid).ok());
            match engine.lake.drop_table(&name, uuid, true).await {
                Err(e) if e.kind() != ErrorKind::NotFound => return Err(e.into()),
                _ => {}
            }
        }
        Ok(())
    };
    detached(ctx, work).await?;
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
