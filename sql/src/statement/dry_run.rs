//! `EXPLAIN (DRY RUN) CREATE STREAMING TABLE …`: what it would make, and what of the topic it would read. Nothing is
//! made, and no position moves.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::StringArray;
use arrow::datatypes::{DataType, Field};
use arrow::record_batch::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use tidewater_catalogs::{Offsets, OnError, ReadRequest, StartPosition, TopicLayout};
use tidewater_streaming::FlowSettings;
use tokio::time::{Instant, timeout_at};

use super::{flow, schema, stream, streaming_table};
use crate::SqlError;
use crate::dialect::{
    CreateStreamingTable, Explain, ExplainTarget, FlowOptions, Statement, field_type_name, partition_field_text,
};
use crate::error::Result;
use crate::plan::flow::CompiledFlow;
use crate::plan::relation::new_name;
use crate::run;
use crate::session::{Outcome, ResultColumn, RowsTag, StatementContext};

/// Records that are read for the sample, and how long they are waited for.
const SAMPLE_RECORDS: u64 = 1000;
const SAMPLE_TIME: Duration = Duration::from_secs(5);
/// Rows of the sample that are shown.
const SHOWN_ROWS: usize = 5;
const SAMPLE_BUFFER: usize = 1 << 20;
/// A value is shown up to here.
const MAX_SHOWN: usize = 1000;

pub(super) fn columns() -> Vec<ResultColumn> {
    ["section", "item", "value"].map(|n| ResultColumn::new(Arc::new(Field::new(n, DataType::Utf8, true)))).to_vec()
}

#[derive(Default)]
struct Report(Vec<[String; 3]>);

impl Report {
    fn add(&mut self, section: &str, item: impl Into<String>, value: impl ToString) {
        self.0.push([section.to_owned(), item.into(), value.to_string()]);
    }
}

pub(super) async fn run(ctx: &StatementContext<'_>, explain: &Explain) -> Result<Outcome> {
    let ExplainTarget::Statement(statement) = &explain.target else { return Err(only_streaming_tables()) };
    let Statement::CreateStreamingTable(create) = statement.as_ref() else { return Err(only_streaming_tables()) };
    let mut report = Report::default();
    fill(ctx, create, &mut report).await?;
    let columns = columns();
    let out = run::schema_of(&columns);
    let column = |i: usize| Arc::new(StringArray::from_iter_values(report.0.iter().map(|row| &row[i]))) as _;
    let batch = RecordBatch::try_new(out.clone(), vec![column(0), column(1), column(2)])?;
    Ok(Outcome::Rows { columns, stream: run::rows(out, vec![batch]), tag: RowsTag::Explain })
}

fn only_streaming_tables() -> SqlError {
    SqlError::unsupported("EXPLAIN (DRY RUN) of this statement is not supported yet")
        .with_hint("It takes CREATE STREAMING TABLE; for a query, use EXPLAIN.")
}

async fn fill(ctx: &StatementContext<'_>, create: &CreateStreamingTable, report: &mut Report) -> Result<()> {
    let engine = ctx.engine;
    let name = new_name(ctx.settings, &create.name)?;
    stream::check_name(&name)?;
    schema::require_schema(engine, &name).await?;
    let options = FlowOptions::read(&create.options, &flow::owner(&name))?;
    let compiled = flow::compile(engine, ctx.settings, create, &ctx.statement.text).await?;
    let output = compiled.query.output_schema();
    streaming_table::check_partitions(create, &output)?;
    let source = &compiled.stream.source;
    let definition = &compiled.stream.definition.spec;
    let settings = options.settings(&engine.defaults.flow, definition.on_error);

    report.add("table", "name", &name);
    match schema::find_relation(engine, &name).await? {
        None => {}
        Some(found) => {
            report.add("table", "warning", format!("a {} of that name is there already", found.kind().noun()))
        }
    }
    report.add("table", "output mode", "append");
    for field in output.fields() {
        let null = if field.is_nullable() { "" } else { " NOT NULL" };
        report.add("columns", field.name(), format!("{}{null}", field_type_name(field)));
    }

    let layout = source.layout().await?;
    let position = match &options.start {
        Some(start) => start.resolve(chrono::Utc::now().timestamp_millis()),
        None => definition.start.clone(),
    };
    let start = source.start_offsets(&position).await?;
    report.add("source", "stream", &compiled.stream.name);
    report.add("source", "topic", &layout.topic);
    report.add("source", "partitions", layout.partitions.len());
    report.add("source", "start", start_text(&position));
    report.add("source", "start offsets", shortened(serde_json::to_string(&start).unwrap_or_default()));
    report.add("source", "offsets to catch up", behind(&start, &layout));
    report.add(
        "source",
        "malformed records",
        match settings.on_error {
            OnError::Dlq => format!("go to {}", stream::dead_letters_text(&compiled.stream.name)),
            OnError::Fail => "fail the flow".to_owned(),
            OnError::Skip => "are skipped and counted".to_owned(),
        },
    );

    files(create, &settings, &layout, report);
    sample(&compiled, &settings, &start, &layout, report).await
}

fn start_text(position: &StartPosition) -> String {
    match position {
        StartPosition::Earliest => "earliest".to_owned(),
        StartPosition::Latest => "latest".to_owned(),
        StartPosition::Timestamp(ms) => chrono::DateTime::from_timestamp_millis(*ms)
            .map_or_else(|| ms.to_string(), |at| at.format("%Y-%m-%d %H:%M:%S%.3f+00").to_string()),
        StartPosition::Offsets(_) => "offsets".to_owned(),
    }
}

fn behind(start: &Offsets, layout: &TopicLayout) -> i64 {
    layout.partitions.iter().map(|p| (p.high - start.get(p.partition).unwrap_or(p.low)).max(0)).sum()
}

/// Each lane closes one file per commit, and per partition value that it has rows for.
fn files(create: &CreateStreamingTable, settings: &FlowSettings, layout: &TopicLayout, report: &mut Report) {
    let lanes = settings.parallelism.min(layout.partitions.len()).max(1) as u64;
    let seconds = settings.commit_interval.as_secs_f64().max(0.001);
    let commits = (86_400.0 / seconds).ceil() as u64;
    report.add("files", "commit interval", format!("{} ms", settings.commit_interval.as_millis()));
    report.add("files", "commits per day", format!("{commits} at most"));
    if create.partition_by.is_empty() {
        report.add("files", "partitioned by", "nothing");
        report.add("files", "files per commit", format!("{lanes} at most"));
        report.add("files", "files per day", format!("{} at most", commits.saturating_mul(lanes)));
    } else {
        let fields: Vec<String> = create.partition_by.iter().map(partition_field_text).collect();
        let each = "for each partition that a commit has rows for";
        report.add("files", "partitioned by", fields.join(", "));
        report.add("files", "files per commit", format!("{lanes} at most {each}"));
        report.add("files", "files per day", format!("{} at most {each}", commits.saturating_mul(lanes)));
    }
}

/// Reads the first records as the flow would, and shows what becomes of them.
async fn sample(
    compiled: &CompiledFlow,
    settings: &FlowSettings,
    start: &Offsets,
    layout: &TopicLayout,
    report: &mut Report,
) -> Result<()> {
    let ends = layout.highs();
    let mut positions: Offsets = start.iter().filter(|(p, at)| ends.get(*p).is_some_and(|end| *at < end)).collect();
    if positions.is_empty() {
        report.add("sample", "records", "0: the topic has none at or behind the start");
        return Ok(());
    }
    let request = ReadRequest {
        from: positions.clone(),
        projection: compiled.query.projection().to_vec(),
        on_error: if settings.on_error == OnError::Fail { OnError::Fail } else { OnError::Skip },
        buffer_bytes: SAMPLE_BUFFER,
    };
    let mut reader = compiled.stream.source.open(request).await?;
    let mut lane = compiled.query.lane()?;
    let deadline = Instant::now() + SAMPLE_TIME;
    let (mut records, mut rejected, mut rows) = (0, 0, 0);
    let mut shown = Vec::new();
    while records < SAMPLE_RECORDS && positions.iter().any(|(p, at)| ends.get(p).is_some_and(|end| at < end)) {
        let Ok(batch) = timeout_at(deadline, reader.next()).await else { break };
        let batch = match batch {
            Ok(batch) => batch,
            Err(e) => {
                report.add("sample", "error", shortened(e.to_string()));
                break;
            }
        };
        positions.set(batch.partition, batch.to);
        records += batch.records;
        rejected += batch.skipped;
        match lane.apply(batch.rows).await {
            Ok(output) => {
                for batch in output {
                    rows += batch.num_rows();
                    show(&batch, &mut shown)?;
                }
            }
            Err(e) => {
                report.add("sample", "error", shortened(e.to_string()));
                break;
            }
        }
    }
    report.add("sample", "records", records);
    report.add("sample", "malformed records", rejected);
    report.add("sample", "rows", rows);
    for (n, row) in shown.into_iter().enumerate() {
        report.add("sample", format!("row {}", n + 1), shortened(row));
    }
    Ok(())
}

fn show(batch: &RecordBatch, shown: &mut Vec<String>) -> Result<()> {
    let options = FormatOptions::default().with_null("NULL").with_timestamp_tz_format(Some("%Y-%m-%d %H:%M:%S%.f%:z"));
    let wanted = SHOWN_ROWS.saturating_sub(shown.len()).min(batch.num_rows());
    let columns =
        batch.columns().iter().map(|c| ArrayFormatter::try_new(c, &options)).collect::<Result<Vec<_>, _>>()?;
    let schema = batch.schema();
    for row in 0..wanted {
        let cells = columns.iter().zip(schema.fields()).map(|(c, f)| format!("{}={}", f.name(), c.value(row)));
        shown.push(cells.collect::<Vec<_>>().join(", "));
    }
    Ok(())
}

fn shortened(text: String) -> String {
    if text.chars().count() <= MAX_SHOWN {
        return text;
    }
    text.chars().take(MAX_SHOWN).chain(std::iter::once('…')).collect()
}
