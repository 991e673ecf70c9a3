//! REPLAY DLQ: dead letters once more through the flows that wrote them.
//!
//! ```text
//!   statement ──request──► definition of each flow ──► the flow starts anew, reads its letters, commits their rows
//!       ▲                                                   with the account of them, and the end of the request
//!       └────────────────── waits for that commit ◄─────────┘
//! ```
//!
//! The request is durable before the flow hears of it, and the account is part of the commit that shows the rows. So
//! whatever ends the server or the statement in between, each letter becomes rows once, or not at all.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::DataType;
use tidewater_catalogs::{Definition, DefinitionKind, Error, ErrorKind, FlowState, TableName, dead_letter_schema};
use tidewater_streaming::{ReplayEnd, ReplayProgress};
use uuid::Uuid;

use super::flow::{self, PAUSED};
use super::show::{self, Cell};
use super::stream;
use crate::dialect::{Name, ReplayDlq};
use crate::engine::Engine;
use crate::error::Result;
use crate::plan::letters::{self, ReplayRequest};
use crate::plan::relation::{self, Relation};
use crate::run::detached;
use crate::run::guard;
use crate::session::{Notice, Outcome, ResultColumn, RowsTag, StatementContext};
use crate::{SqlError, SqlState};

/// Property of a flow's definition: its requests, as JSON.
const REPLAYS: &str = "replays";
/// Requests of one flow that wait for their end.
const MAX_REQUESTS: usize = 16;
/// How often a flow is asked how far it is.
const LOOK: Duration = Duration::from_millis(20);

pub(super) fn columns() -> Vec<ResultColumn> {
    show::columns(&[
        ("flow", DataType::Utf8),
        ("replayed", DataType::Int64),
        ("rows", DataType::Int64),
        ("malformed", DataType::Int64),
    ])
}

/// Requests that a flow's definition names, oldest first.
pub(super) fn requests(flow: &Definition) -> Result<Vec<ReplayRequest>, Error> {
    let Some(text) = flow.properties.get(REPLAYS) else { return Ok(Vec::new()) };
    serde_json::from_str(text).map_err(|e| {
        Error::new(ErrorKind::DataCorrupt, format!("the replays of flow \"{}\" cannot be read", flow.name))
            .with_source(e)
    })
}

fn set_requests(flow: &mut Definition, requests: &[ReplayRequest]) -> Result<()> {
    if requests.is_empty() {
        flow.properties.remove(REPLAYS);
        return Ok(());
    }
    let text = serde_json::to_string(requests)
        .map_err(|e| SqlError::internal("a replay cannot be stored").with_detail(e.to_string()))?;
    flow.properties.insert(REPLAYS.to_owned(), text);
    Ok(())
}

pub(super) async fn replay_dlq(ctx: &StatementContext<'_>, replay: &ReplayDlq) -> Result<Outcome> {
    let engine = ctx.engine;
    let (flows, request) = guard(&ctx.cancel, ctx.deadline, prepare(ctx, replay)).await?;
    // Should the client go away, what is asked for is done all the same.
    let (engine, asked) = (engine.clone(), flows);
    let work = async move {
        let mut ids: Vec<(Uuid, String)> = Vec::new();
        for flow in &asked {
            ask(&engine, flow, &request).await.map_err(|e| and_others(e, &ids))?;
            ids.push((flow.id, flow.name.clone()));
        }
        let mut ended = Vec::new();
        for (id, name) in ids {
            let end = wait(&engine, id, &name, request.id).await;
            if end.is_ok() {
                settle(&engine, id, &name).await;
            }
            ended.push((name, end));
        }
        Ok(ended)
    };
    answer(guard(&ctx.cancel, ctx.deadline, detached(ctx, work)).await?)
}

/// Everything that can be refused, before anything is asked.
async fn prepare(ctx: &StatementContext<'_>, replay: &ReplayDlq) -> Result<(Vec<Definition>, ReplayRequest)> {
    let engine = ctx.engine;
    let name = find_stream(ctx, &replay.stream).await?;
    let request = ReplayRequest {
        id: Uuid::now_v7(),
        filter: replay.filter.as_ref().map(|f| f.text.clone()),
        time_zone: ctx.settings.get("TimeZone").unwrap_or_else(|| "UTC".to_owned()),
        at_ms: chrono::Utc::now().timestamp_millis(),
    };
    if let Some(filter) = &replay.filter
        && crate::plan::parameters(&filter.expr)? > 0
    {
        return Err(SqlError::new(SqlState::UNDEFINED_PARAMETER, "there is no parameter in REPLAY DLQ"));
    }
    let flows = stream::users(engine, &name.to_string()).await?;
    if flows.is_empty() {
        return Err(SqlError::new(
            SqlState::NOT_IN_PREREQUISITE_STATE,
            format!("no streaming table reads stream \"{}\"", name.name),
        )
        .with_hint("Dead letters are replayed by the flows that wrote them; a new streaming table reads the topic."));
    }
    let table = TableName::dead_letters(&name);
    let found = engine.lake.load_table(&table).await?;
    let lacks = |field: &&Arc<arrow::datatypes::Field>| found.info().schema.field_with_name(field.name()).is_err();
    if let Some(missing) = dead_letter_schema().fields().iter().find(lacks) {
        return Err(SqlError::unsupported(format!(
            "dead letters of stream \"{}\" cannot be replayed: their table lacks column \"{}\"",
            name.name,
            missing.name()
        ))
        .with_detail("It was made by an earlier version, which did not keep all of a record.")
        .with_hint("Drop the streaming tables of the stream and the table, and create them again."));
    }
    letters::check(engine, &table, &request).await?;
    for flow in &flows {
        check_state(engine, flow.id, &flow.name, "")?;
    }
    let ids: Vec<Uuid> = flows.iter().map(|f| f.id).collect();
    let others = letters::count_others(engine, &table, &request, &ids).await?;
    if others > 0 {
        let mut notice = Notice::notice(format!(
            "{others} of the dead letters were written by flows that are gone, and are not replayed"
        ));
        notice.detail = Some(
            "The flows of today have read the topic themselves; another topic of that name has other offsets."
                .to_owned(),
        );
        ctx.notice(notice);
    }
    Ok((flows, request))
}

async fn find_stream(ctx: &StatementContext<'_>, name: &Name) -> Result<TableName> {
    for candidate in relation::candidates(ctx.settings, name)? {
        let full = candidate.to_string();
        if ctx.engine.metastore.get(DefinitionKind::Stream, &full).await?.is_some() {
            return Ok(candidate);
        }
    }
    match relation::find(&ctx.lookup(), name).await? {
        None => Err(SqlError::undefined_table(name.0.join("."))
            .with_hint("REPLAY DLQ names a stream; SHOW STREAMS lists them.")),
        Some(Relation::Stream(stream)) => Ok(stream.name.clone()),
        Some(_) => Err(SqlError::new(SqlState::WRONG_OBJECT_TYPE, format!("\"{}\" is not a stream", name.last()))
            .with_hint("Name the stream whose dead letters are to be replayed.")),
    }
}

/// A flow that rests would leave the request lying.
fn check_state(engine: &Engine, id: Uuid, name: &str, detail: &str) -> Result<()> {
    let state = engine.supervisor.status(id).map(|s| s.state);
    let (what, hint) = match state {
        Some(FlowState::Starting | FlowState::Running | FlowState::Retrying | FlowState::Restarting) => return Ok(()),
        Some(FlowState::Paused) => ("is paused", "Say ALTER FLOW … RESUME first."),
        Some(FlowState::Failed) => ("has failed", "SHOW FLOWS says why; mend it and say ALTER FLOW … RESUME first."),
        Some(FlowState::Stopped) | None => ("does not run on this server", "Replay where the flow runs."),
    };
    let e = SqlError::new(SqlState::NOT_IN_PREREQUISITE_STATE, format!("flow \"{name}\" {what}")).with_hint(hint);
    Err(if detail.is_empty() { e } else { e.with_detail(detail) })
}

/// Stores the request and has the flow start with it.
async fn ask(engine: &Engine, flow: &Definition, request: &ReplayRequest) -> Result<()> {
    let _lock = flow::lock(flow.id).await;
    let gone = || SqlError::undefined_table(&flow.name);
    let mut stored = flow::stored(engine, flow.id, &flow.name).await?.ok_or_else(gone)?;
    if stored.properties.contains_key(PAUSED) {
        return Err(SqlError::new(SqlState::NOT_IN_PREREQUISITE_STATE, format!("flow \"{}\" is paused", flow.name))
            .with_hint("Say ALTER FLOW … RESUME first."));
    }
    let mut requests = requests(&stored)?;
    requests.retain(|r| !is_ended(engine, flow.id, r.id));
    if requests.len() >= MAX_REQUESTS {
        return Err(SqlError::new(
            SqlState::PROGRAM_LIMIT_EXCEEDED,
            format!("flow \"{}\" has {MAX_REQUESTS} replays to do already", flow.name),
        )
        .with_hint("Wait for them to end."));
    }
    requests.push(request.clone());
    set_requests(&mut stored, &requests)?;
    engine.metastore.update(&stored).await?;
    let stored = flow::stored(engine, flow.id, &flow.name).await?.unwrap_or(stored);
    flow::hand_over(engine, stored).await
}

/// Some flows were asked before one refused.
fn and_others(e: SqlError, asked: &[(Uuid, String)]) -> SqlError {
    if asked.is_empty() {
        return e;
    }
    let names: Vec<String> = asked.iter().map(|(_, name)| format!("\"{name}\"")).collect();
    e.with_detail(format!("The replay was asked of {} before, and goes on there.", names.join(", ")))
}

fn is_ended(engine: &Engine, flow: Uuid, request: Uuid) -> bool {
    engine.supervisor.replay(flow, request).is_some_and(|p| p.ended.is_some())
}

async fn wait(engine: &Engine, id: Uuid, name: &str, request: Uuid) -> Result<ReplayProgress> {
    loop {
        match engine.supervisor.replay(id, request) {
            Some(progress) if progress.ended.is_some() => return Ok(progress),
            _ => check_state(engine, id, name, "The replay goes on when the flow does, each letter once.")?,
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Takes requests that have ended out of the definition. Where that fails the next replay does it.
async fn settle(engine: &Engine, id: Uuid, name: &str) {
    let _lock = flow::lock(id).await;
    let settled = async {
        let Some(mut stored) = flow::stored(engine, id, name).await? else { return Ok(()) };
        let all = requests(&stored)?;
        let left: Vec<ReplayRequest> = all.iter().filter(|r| !is_ended(engine, id, r.id)).cloned().collect();
        if left.len() < all.len() {
            set_requests(&mut stored, &left)?;
            engine.metastore.update(&stored).await?;
        }
        Ok::<(), SqlError>(())
    };
    if let Err(e) = settled.await {
        tracing::debug!(flow = %name, error = %e, "an ended replay stays in the definition for now");
    }
}

fn answer(ended: Vec<(String, Result<ReplayProgress>)>) -> Result<Outcome> {
    let mut rows = BTreeMap::new();
    let mut failed = None;
    let number = |n: u64| Cell::from(i64::try_from(n).ok());
    for (name, end) in ended {
        match end {
            Ok(progress) => {
                if let Some(e) = failure(&name, &progress) {
                    failed.get_or_insert(e);
                }
                let cells = [number(progress.replayed), number(progress.rows), number(progress.malformed)];
                rows.insert(name.clone(), [vec![Cell::from(name)], cells.to_vec()].concat());
            }
            Err(e) => {
                failed.get_or_insert(e);
            }
        }
    }
    match failed {
        Some(e) => Err(e),
        None => show::outcome(columns(), rows.into_values().collect(), RowsTag::Select),
    }
}

fn failure(name: &str, progress: &ReplayProgress) -> Option<SqlError> {
    let before = format!("{} dead letters were replayed before that, and stay so.", progress.replayed);
    match progress.ended.as_ref()? {
        ReplayEnd::Complete => None,
        ReplayEnd::TooScattered => Some(
            SqlError::new(
                SqlState::PROGRAM_LIMIT_EXCEEDED,
                format!("flow \"{name}\" cannot remember more ranges of replayed dead letters"),
            )
            .with_detail(format!("{before} Letters that are next to each other are one range."))
            .with_hint(
                "Choose letters that lie together, for example WHERE _offset < …, or raise max_replayed_ranges.",
            ),
        ),
        ReplayEnd::Failed(why) => Some(
            SqlError::new(SqlState::DATA_EXCEPTION, format!("replay of flow \"{name}\" ended early: {why}"))
                .with_detail(before)
                .with_hint("Leave the letter out with WHERE, or mend the stream so that the query can take it."),
        ),
    }
}
