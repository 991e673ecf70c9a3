//! Views of the product itself: `system.flows` and its like.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int32Array, Int64Array, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{Field, Schema};
use arrow::record_batch::RecordBatch;
use datafusion::catalog::{MemTable, TableProvider};
use tidewater_catalogs::{DefinitionKind, FlowStatus};

use crate::engine::Engine;
use crate::error::Result;

/// Name, and the columns of one snapshot of it. None where there is no such view.
pub(super) async fn table(engine: &Arc<Engine>, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
    let columns = match name {
        "flows" => flows(&engine.supervisor().statuses()),
        "flow_lag" => flow_lag(&engine.supervisor().statuses()),
        "commits" => commits(&engine.supervisor().statuses()),
        "connections" => definitions(engine, DefinitionKind::Connection).await?,
        "secrets" => definitions(engine, DefinitionKind::Secret).await?,
        "streams" => definitions(engine, DefinitionKind::Stream).await?,
        "sessions" => sessions(engine),
        _ => return Ok(None),
    };
    let schema = Arc::new(Schema::new(
        columns.iter().map(|(n, a)| Field::new(*n, a.data_type().clone(), true)).collect::<Vec<_>>(),
    ));
    let batch = RecordBatch::try_new(schema.clone(), columns.into_iter().map(|(_, a)| a).collect())?;
    Ok(Some(Arc::new(MemTable::try_new(schema, vec![vec![batch]])?)))
}

/// Names of the views.
pub(crate) const NAMES: [&str; 7] = ["commits", "connections", "flow_lag", "flows", "secrets", "sessions", "streams"];

type Columns = Vec<(&'static str, ArrayRef)>;

fn text<T: Into<String>>(values: impl IntoIterator<Item = Option<T>>) -> ArrayRef {
    Arc::new(StringArray::from_iter(values.into_iter().map(|v| v.map(Into::into))))
}

fn int8(values: impl IntoIterator<Item = Option<i64>>) -> ArrayRef {
    Arc::new(Int64Array::from_iter(values))
}

fn time(values: impl IntoIterator<Item = Option<i64>>) -> ArrayRef {
    let micros = values.into_iter().map(|ms| ms.and_then(|ms| ms.checked_mul(1000)));
    Arc::new(TimestampMicrosecondArray::from_iter(micros).with_timezone("+00:00"))
}

fn count(n: u64) -> Option<i64> {
    i64::try_from(n).ok()
}

fn flows(flows: &[FlowStatus]) -> Columns {
    let error = |f: &FlowStatus| f.error.clone();
    vec![
        ("name", text(flows.iter().map(|f| Some(f.name.name.clone())))),
        ("schema", text(flows.iter().map(|f| Some(f.name.schema.clone())))),
        ("state", text(flows.iter().map(|f| Some(f.state.as_str())))),
        ("error_code", text(flows.iter().map(|f| error(f).map(|e| e.code)))),
        ("error", text(flows.iter().map(|f| error(f).map(|e| e.message)))),
        ("hint", text(flows.iter().map(|f| error(f).and_then(|e| e.hint)))),
        ("error_at", time(flows.iter().map(|f| error(f).map(|e| e.at_ms)))),
        ("restarts", int8(flows.iter().map(|f| count(f.restarts)))),
        ("topic", text(flows.iter().map(|f| Some(f.topic.clone())))),
        ("rows_in", int8(flows.iter().map(|f| count(f.rows_in)))),
        ("rows_out", int8(flows.iter().map(|f| count(f.rows_out)))),
        ("rows_dead", int8(flows.iter().map(|f| count(f.rows_dead)))),
        ("rows_skipped", int8(flows.iter().map(|f| count(f.rows_skipped)))),
        ("bytes_in", int8(flows.iter().map(|f| count(f.bytes_in)))),
        ("lag", int8(flows.iter().map(FlowStatus::lag))),
        ("lag_at", time(flows.iter().map(|f| f.high_at_ms))),
        ("seq", int8(flows.iter().map(|f| count(f.seq)))),
        ("epoch", int8(flows.iter().map(|f| count(f.epoch)))),
        ("snapshot_id", int8(flows.iter().map(|f| f.snapshot_id))),
        ("committed_at", time(flows.iter().map(|f| f.committed_at_ms))),
        ("commit_interval_ms", int8(flows.iter().map(|f| count(f.commit_interval_ms)))),
        ("id", text(flows.iter().map(|f| Some(f.id.to_string())))),
    ]
}

/// One row per flow and partition.
fn flow_lag(flows: &[FlowStatus]) -> Columns {
    let rows: Vec<(&FlowStatus, i32)> =
        flows.iter().flat_map(|f| f.high.iter().map(move |(partition, _)| (f, partition))).collect();
    vec![
        ("flow", text(rows.iter().map(|(f, _)| Some(f.name.name.clone())))),
        ("topic", text(rows.iter().map(|(f, _)| Some(f.topic.clone())))),
        ("partition", Arc::new(Int32Array::from_iter(rows.iter().map(|(_, p)| Some(*p))))),
        ("committed_offset", int8(rows.iter().map(|(f, p)| f.committed.get(*p)))),
        ("position", int8(rows.iter().map(|(f, p)| f.position.get(*p)))),
        ("high_offset", int8(rows.iter().map(|(f, p)| f.end(*p)))),
        ("lag", int8(rows.iter().map(|(f, p)| f.partition_lag(*p)))),
        ("lag_at", time(rows.iter().map(|(f, _)| f.high_at_ms))),
    ]
}

/// The last commit of each flow.
fn commits(flows: &[FlowStatus]) -> Columns {
    vec![
        ("flow", text(flows.iter().map(|f| Some(f.name.name.clone())))),
        ("seq", int8(flows.iter().map(|f| count(f.seq)))),
        ("epoch", int8(flows.iter().map(|f| count(f.epoch)))),
        ("snapshot_id", int8(flows.iter().map(|f| f.snapshot_id))),
        ("committed_at", time(flows.iter().map(|f| f.committed_at_ms))),
        ("commit_ms", int8(flows.iter().map(|f| count(f.commit_ms)))),
        ("commits", int8(flows.iter().map(|f| count(f.commits)))),
        ("offsets", text(flows.iter().map(|f| serde_json::to_string(&f.committed).ok()))),
    ]
}

async fn definitions(engine: &Arc<Engine>, kind: DefinitionKind) -> Result<Columns> {
    let all = engine.metastore.list().await?;
    let of: Vec<_> = all.iter().filter(|d| d.kind == kind).collect();
    let mut columns = vec![("name", text(of.iter().map(|d| Some(d.name.clone()))))];
    // The text of connections and secrets stays out: what SHOW CREATE prints of them is decided there.
    if kind == DefinitionKind::Stream {
        columns.push(("definition", text(of.iter().map(|d| Some(d.sql.clone())))));
    }
    columns.push(("created_at", time(of.iter().map(|d| Some(d.created_at_ms)))));
    columns.push(("id", text(of.iter().map(|d| Some(d.id.to_string())))));
    Ok(columns)
}

fn sessions(engine: &Arc<Engine>) -> Columns {
    let all = engine.sessions();
    vec![
        ("pid", Arc::new(Int32Array::from_iter(all.iter().map(|s| Some(s.pid))))),
        ("user", text(all.iter().map(|s| Some(s.user.clone())))),
        ("database", text(all.iter().map(|s| Some(s.database.clone())))),
        ("application_name", text(all.iter().map(|s| Some(s.application_name.clone())))),
        ("client_addr", text(all.iter().map(|s| s.client_addr.clone()))),
        ("started_at", time(all.iter().map(|s| Some(s.started_at_ms)))),
        ("state", text(all.iter().map(|s| Some(if s.active { "active" } else { "idle" })))),
        ("query", text(all.iter().map(|s| Some(s.query.clone())))),
        ("query_started_at", time(all.iter().map(|s| s.query_started_at_ms))),
    ]
}
