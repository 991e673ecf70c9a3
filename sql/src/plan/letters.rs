//! The dead letters of one flow, as a query over the table that holds those of its stream.

use std::sync::{Arc, Weak};

use arrow::array::AsArray;
use arrow::datatypes::DataType;
use async_trait::async_trait;
use datafusion::physical_plan::ExecutionPlan;
use serde::{Deserialize, Serialize};
use tidewater_catalogs::{Error, TableName, dead_letter_schema};
use tidewater_streaming::{LetterReader, LetterSource, Letters};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;
use uuid::Uuid;

use super::query::{Planned, Planner, Purpose};
use crate::dialect::{Statement, parse_stored, quote_ident, quote_text};
use crate::engine::Engine;
use crate::error::Result;
use crate::run::{self, Fed};
use crate::session::Login;
use crate::settings::Settings;
use crate::{SqlError, SqlState};

/// Letters that are decoded and transformed together. They can be as large as records.
const BATCH_ROWS: usize = 256;
/// Batches that wait for the flow.
const QUEUED_BATCHES: usize = 1;

/// A request as the definitions of flows keep it: with all that decides which letters are meant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ReplayRequest {
    pub id: Uuid,
    /// The WHERE as it was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter: Option<String>,
    /// Of the session, for timestamps without one.
    pub time_zone: String,
    /// When it was asked, for `now()`.
    pub at_ms: i64,
}

impl ReplayRequest {
    /// The condition in parentheses, on lines of its own: it may end with a comment.
    fn condition(&self) -> String {
        self.filter.as_ref().map_or_else(|| "(true)".to_owned(), |filter| format!("(\n{filter}\n)"))
    }
}

/// The letters that a flow has written itself. Others of the same stream may have been rows for it.
#[derive(Debug)]
pub(crate) struct FlowLetters {
    pub engine: Weak<Engine>,
    pub table: TableName,
    pub flow: Uuid,
    pub request: ReplayRequest,
}

#[async_trait]
impl LetterSource for FlowLetters {
    async fn open(&self) -> Result<Box<dyn LetterReader>, Error> {
        let engine = self.engine.upgrade().ok_or_else(|| Error::unavailable("the server shuts down"))?;
        let (plan, planned) = self.plan(&engine).await?;
        let (sender, receiver) = mpsc::channel(QUEUED_BATCHES);
        let task = planned.state.task_ctx();
        let feed = engine.query_runtime.spawn(async move { run::feed(plan, task, &sender, None).await });
        Ok(Box::new(Reader { receiver, _feed: AbortOnDropHandle::new(feed), ended: false }))
    }
}

impl FlowLetters {
    async fn plan(&self, engine: &Arc<Engine>) -> Result<(Arc<dyn ExecutionPlan>, Planned)> {
        let condition = self.request.condition();
        let columns: Vec<String> = dead_letter_schema()
            .fields()
            .iter()
            .map(|field| match field.name().as_str() {
                // Those that nobody asked for are only counted.
                "_value" => format!("CASE WHEN {condition} THEN _value END AS _value"),
                name => quote_ident(name),
            })
            .collect();
        let text = format!(
            "SELECT {}, {condition} AS wanted FROM {} WHERE flow_id = {} ORDER BY _partition, _offset",
            columns.join(", "),
            full_name(&self.table),
            quote_text(&self.flow.to_string()),
        );
        let mut planned = query(engine, &self.request, &text, Purpose::Execute).await?;
        planned.state.config_mut().options_mut().execution.batch_size = BATCH_ROWS;
        let optimized = planned.optimized()?;
        let plan = planned.physical(&optimized).await?;
        Ok((plan, planned))
    }
}

struct Reader {
    receiver: mpsc::Receiver<Fed>,
    _feed: AbortOnDropHandle<()>,
    ended: bool,
}

#[async_trait]
impl LetterReader for Reader {
    async fn next(&mut self) -> Result<Option<Letters>, Error> {
        if self.ended {
            return Ok(None);
        }
        match self.receiver.recv().await {
            Some(Ok(Some(batch))) => {
                let schema = dead_letter_schema();
                let wanted = batch.column(schema.fields().len());
                let wanted = wanted.as_boolean_opt().cloned();
                let wanted = wanted.ok_or_else(|| Error::internal("a condition on dead letters is not boolean"))?;
                let columns: Vec<usize> = (0..schema.fields().len()).collect();
                let rows = batch.project(&columns)?;
                let rows = run::conform(rows, &schema).map_err(SqlError::from)?;
                Ok(Some(Letters { rows, wanted }))
            }
            Some(Ok(None)) => {
                self.ended = true;
                Ok(None)
            }
            Some(Err(e)) => Err(SqlError::from(e).into()),
            // The end of the query runtime, or a bug in an operator.
            None => Err(Error::unavailable("the reading of dead letters broke off")),
        }
    }
}

/// Refuses a condition that is none, before anything is asked of a flow.
pub(crate) async fn check(engine: &Arc<Engine>, table: &TableName, request: &ReplayRequest) -> Result<()> {
    let text = format!("SELECT {} AS wanted FROM {}", request.condition(), full_name(table));
    let planned = query(engine, request, &text, Purpose::Describe).await?;
    let found = planned.plan.schema().field(0).data_type();
    if *found == DataType::Boolean {
        return Ok(());
    }
    let found = crate::dialect::type_name(found).unwrap_or_else(|| found.to_string());
    Err(SqlError::new(SqlState::TYPE_MISMATCH, format!("argument of WHERE must be type boolean, not type {found}")))
}

/// How many of the letters that the request means were written by none of these flows.
pub(crate) async fn count_others(
    engine: &Arc<Engine>,
    table: &TableName,
    request: &ReplayRequest,
    flows: &[Uuid],
) -> Result<i64> {
    let flows: Vec<String> = flows.iter().map(|id| quote_text(&id.to_string())).collect();
    let text = format!(
        "SELECT count(*) FROM {} WHERE {} AND (flow_id IS NULL OR flow_id NOT IN ({}))",
        full_name(table),
        request.condition(),
        flows.join(", "),
    );
    let planned = query(engine, request, &text, Purpose::Execute).await?;
    let optimized = planned.optimized()?;
    let plan = planned.physical(&optimized).await?;
    let task = planned.state.task_ctx();
    let counting = engine.query_runtime.spawn(datafusion::physical_plan::collect(plan, task));
    let batches = AbortOnDropHandle::new(counting)
        .await
        .map_err(|e| SqlError::internal(format!("counting dead letters broke off: {e}")))??;
    let counts = batches.iter().filter(|b| b.num_rows() > 0).map(|b| b.column(0));
    Ok(counts.filter_map(|c| c.as_primitive_opt::<arrow::datatypes::Int64Type>().map(|c| c.value(0))).sum())
}

async fn query(engine: &Arc<Engine>, request: &ReplayRequest, text: &str, purpose: Purpose) -> Result<Planned> {
    let Statement::Sql(sql) = parse_stored(text)? else { return Err(SqlError::internal("no query over dead letters")) };
    let sqlparser::ast::Statement::Query(query) = *sql else {
        return Err(SqlError::internal("no query over dead letters"));
    };
    let options = vec![("TimeZone".to_owned(), request.time_zone.clone())];
    let settings = Settings::for_login(&engine.defaults, &Login { options, ..Login::default() })?;
    let login = Login::default();
    let planner = Planner {
        engine,
        settings: &settings,
        login: &login,
        pid: 0,
        statement: None,
        purpose,
        live: false,
        target: None,
        block: None,
    };
    let mut planned = planner.query(&query, &[], None).await?;
    // A request that is taken up again after a crash must not mean other letters than before.
    let at = chrono::DateTime::from_timestamp_millis(request.at_ms);
    planned.state.execution_props_mut().query_execution_start_time = at;
    Ok(planned)
}

fn full_name(table: &TableName) -> String {
    format!("{}.{}.{}", quote_ident(&table.catalog), quote_ident(&table.schema), quote_ident(&table.name))
}
