//! An engine without a disk or a socket: definitions, tables and topics in memory.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::any::Any;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{
    ArrayRef, BinaryArray, Float64Array, Int32Array, Int64Array, ListArray, StringArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field, Int64Type, SchemaRef};
use arrow::record_batch::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use async_trait::async_trait;
use bytes::Bytes;
use datafusion::catalog::{MemTable, Session as DfSession, TableProvider};
use datafusion::common::ScalarValue;
use datafusion::error::Result as DfResult;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;
use futures::StreamExt;
use parking_lot::Mutex;
use tidewater_catalogs::{
    BlobStore, CommitTable, ConnectionSpec, Definition, DefinitionKind, Error, ErrorKind, LakeCatalog, LakeTable,
    Metastore, NewTable, Offsets, PartitionRange, ReadRequest, Result, Runner, StagedTable, StartPosition,
    StreamConnector, StreamFormat, StreamReader, StreamSource, StreamSpec, StreamWriter, TableInfo, TableName,
    TopicLayout,
};
use uuid::Uuid;

use crate::{Engine, EngineDefaults, EngineParts, Login, Outcome, Session, SqlError};

#[derive(Debug, Default)]
struct Definitions(Mutex<Vec<Definition>>);

#[async_trait]
impl Metastore for Definitions {
    async fn list(&self) -> Result<Vec<Definition>> {
        Ok(self.0.lock().clone())
    }
    async fn get(&self, kind: DefinitionKind, name: &str) -> Result<Option<Definition>> {
        Ok(self.0.lock().iter().find(|d| d.kind == kind && d.name == name).cloned())
    }
    async fn create(&self, definition: &Definition) -> Result<()> {
        self.0.lock().push(definition.clone());
        Ok(())
    }
    async fn update(&self, definition: &Definition) -> Result<()> {
        let mut all = self.0.lock();
        let stored = all.iter_mut().find(|d| d.id == definition.id).ok_or_else(|| Error::not_found("gone"))?;
        *stored = Definition { version: stored.version + 1, ..definition.clone() };
        Ok(())
    }
    async fn drop(&self, kind: DefinitionKind, name: &str) -> Result<bool> {
        let mut all = self.0.lock();
        let before = all.len();
        all.retain(|d| d.kind != kind || d.name != name);
        Ok(all.len() < before)
    }
}

#[derive(Debug, Default)]
struct Lake {
    schemas: Mutex<Vec<String>>,
    tables: Arc<Mutex<BTreeMap<TableName, Arc<Table>>>>,
}

#[derive(Debug)]
struct Table {
    info: TableInfo,
    rows: Arc<Mutex<Vec<RecordBatch>>>,
}

#[async_trait]
impl LakeCatalog for Lake {
    async fn list_schemas(&self, _: &str) -> Result<Vec<String>> {
        Ok(self.schemas.lock().clone())
    }
    async fn create_schema(&self, _: &str, schema: &str) -> Result<()> {
        self.schemas.lock().push(schema.to_owned());
        Ok(())
    }
    async fn drop_schema(&self, _: &str, schema: &str) -> Result<()> {
        self.schemas.lock().retain(|s| s != schema);
        Ok(())
    }
    async fn list_tables(&self, catalog: &str, schema: &str) -> Result<Vec<TableName>> {
        Ok(self.tables.lock().keys().filter(|t| t.catalog == catalog && t.schema == schema).cloned().collect())
    }
    async fn load_table(&self, name: &TableName) -> Result<Arc<dyn LakeTable>> {
        match self.tables.lock().get(name) {
            Some(table) => Ok(table.clone()),
            None => Err(Error::not_found(format!("table \"{name}\" does not exist"))),
        }
    }
    async fn create_table(&self, table: NewTable) -> Result<Arc<dyn LakeTable>> {
        let made = Arc::new(Table::new(&table));
        self.tables.lock().insert(table.name, made.clone());
        Ok(made)
    }
    async fn stage_table(&self, table: NewTable) -> Result<Box<dyn StagedTable>> {
        Ok(Box::new(Unseen { made: Arc::new(Table::new(&table)), tables: self.tables.clone() }))
    }
    async fn drop_table(&self, name: &TableName, expected: Option<Uuid>, _: bool) -> Result<()> {
        let mut tables = self.tables.lock();
        if expected.is_some_and(|uuid| tables.get(name).is_some_and(|t| t.info.uuid != uuid)) {
            return Err(Error::not_found("another table"));
        }
        tables.remove(name).map(|_| ()).ok_or_else(|| Error::not_found("no such table"))
    }
    async fn commit_table(&self, _: &TableName) -> Result<Arc<dyn CommitTable>> {
        Err(Error::unsupported("no flows here"))
    }
}

impl Table {
    fn new(table: &NewTable) -> Self {
        Self {
            info: TableInfo {
                name: table.name.clone(),
                uuid: Uuid::new_v4(),
                location: String::new(),
                metadata_location: String::new(),
                schema: table.schema.clone(),
                comments: Default::default(),
                defaults: table.defaults.clone(),
                partition_by: table.partition_by.clone(),
                sort_by: table.sort_by.clone(),
                properties: table.properties.clone(),
                current_snapshot: None,
                branch: None,
            },
            rows: Arc::default(),
        }
    }
}

#[derive(Debug)]
struct Unseen {
    made: Arc<Table>,
    tables: Arc<Mutex<BTreeMap<TableName, Arc<Table>>>>,
}

#[async_trait]
impl StagedTable for Unseen {
    fn info(&self) -> &TableInfo {
        &self.made.info
    }
    async fn fill(&mut self, input: SendableRecordBatchStream, runner: &Runner) -> Result<u64> {
        self.made.append(input, runner).await
    }
    async fn publish(self: Box<Self>) -> Result<()> {
        match self.tables.lock().entry(self.made.info.name.clone()) {
            Entry::Occupied(_) => Err(Error::new(ErrorKind::AlreadyExists, "taken")),
            Entry::Vacant(free) => {
                free.insert(self.made.clone());
                Ok(())
            }
        }
    }
    async fn discard(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}

#[async_trait]
impl LakeTable for Table {
    fn info(&self) -> &TableInfo {
        &self.info
    }
    fn provider(&self) -> Result<Arc<dyn TableProvider>> {
        let rows = self.rows.lock().clone();
        Ok(Arc::new(MemTable::try_new(self.info.schema.clone(), vec![rows])?))
    }
    async fn append(&self, mut input: SendableRecordBatchStream, _: &Runner) -> Result<u64> {
        let mut staged = Vec::new();
        while let Some(batch) = input.next().await {
            staged.push(batch?);
        }
        let rows = staged.iter().map(|b| b.num_rows() as u64).sum();
        self.rows.lock().extend(staged);
        Ok(rows)
    }
}

#[derive(Debug)]
struct NoBlobs;

#[async_trait]
impl BlobStore for NoBlobs {
    async fn put_new(&self, _: &str, _: Bytes) -> Result<()> {
        Err(Error::unsupported("no blobs here"))
    }
    async fn get(&self, _: &str) -> Result<Bytes> {
        Err(Error::unsupported("no blobs here"))
    }
    async fn list(&self, _: &str) -> Result<Vec<String>> {
        Ok(Vec::new())
    }
    async fn delete(&self, _: &str) -> Result<()> {
        Ok(())
    }
}

/// What scans of topics were asked for, and what was produced.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub filters: Mutex<Vec<String>>,
    pub columns: Mutex<Vec<String>>,
    pub limits: Mutex<Vec<Option<usize>>>,
    pub bounded: Mutex<usize>,
    pub produced: Mutex<Vec<RecordBatch>>,
}

#[derive(Debug)]
struct Connector(Arc<Seen>);

#[async_trait]
impl StreamConnector for Connector {
    fn kind(&self) -> &'static str {
        "kafka"
    }
    fn connection_options(&self) -> &'static [&'static str] {
        &["brokers"]
    }
    fn check_options(&self, _: &ConnectionSpec) -> Result<()> {
        Ok(())
    }
    async fn probe(&self, _: &ConnectionSpec) -> Result<()> {
        Ok(())
    }
    async fn create_topic(&self, _: &ConnectionSpec, _: &str, _: i32) -> Result<()> {
        Ok(())
    }
    async fn infer(&self, _: &ConnectionSpec, _: &str, _: StreamFormat, _: usize) -> Result<Vec<Field>> {
        Ok(vec![Field::new("id", DataType::Int64, true), Field::new("name", DataType::Utf8, true)])
    }
    fn source(&self, spec: StreamSpec) -> Result<Arc<dyn StreamSource>> {
        Ok(Arc::new(Source { schema: spec.full_schema(), spec, seen: self.0.clone() }))
    }
}

#[derive(Debug, Clone)]
struct Source {
    spec: StreamSpec,
    schema: SchemaRef,
    seen: Arc<Seen>,
}

/// Rows 0, 1, 2 …: numbers count up, texts are the name and the number, offsets go on per partition.
pub(crate) fn topic_rows(schema: &SchemaRef, rows: usize) -> RecordBatch {
    let n = 0..rows as i64;
    let columns = schema
        .fields()
        .iter()
        .map(|field| -> ArrayRef {
            let text = |i: i64| format!("{}{i}", field.name());
            match (field.name().as_str(), field.data_type()) {
                ("_topic", _) => Arc::new(StringArray::from_iter_values(n.clone().map(|_| "topic"))),
                ("_partition", _) => Arc::new(Int32Array::from_iter_values(n.clone().map(|i| (i % 2) as i32))),
                ("_offset", _) => Arc::new(Int64Array::from_iter_values(n.clone().map(|i| i / 2))),
                (_, DataType::Int64) => Arc::new(Int64Array::from_iter_values(n.clone())),
                (_, DataType::Int32) => Arc::new(Int32Array::from_iter_values(n.clone().map(|i| i as i32))),
                (_, DataType::Float64) => Arc::new(Float64Array::from_iter_values(n.clone().map(|i| i as f64 + 0.5))),
                (_, DataType::Utf8) => Arc::new(StringArray::from_iter_values(n.clone().map(text))),
                (_, DataType::Binary) => {
                    Arc::new(BinaryArray::from_iter_values(n.clone().map(|i| text(i).into_bytes())))
                }
                // 2026-01-01 23:30 UTC and each hour after it.
                (_, DataType::Timestamp(_, zone)) => {
                    let first = 1_767_310_200_000_000_i64;
                    let values = n.clone().map(|i| first + i * 3_600_000_000);
                    Arc::new(TimestampMicrosecondArray::from_iter_values(values).with_timezone_opt(zone.clone()))
                }
                (_, DataType::List(item)) => {
                    let lists = n.clone().map(|i| Some((0..i % 3).map(|k| Some(10 * i + k)).collect::<Vec<_>>()));
                    let list = ListArray::from_iter_primitive::<Int64Type, _, _>(lists);
                    arrow::compute::cast(&list, &DataType::List(item.clone())).unwrap()
                }
                (name, other) => panic!("no values for {name} {other}"),
            }
        })
        .collect();
    RecordBatch::try_new(schema.clone(), columns).unwrap()
}

#[async_trait]
impl StreamSource for Source {
    fn spec(&self) -> &StreamSpec {
        &self.spec
    }
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }
    async fn layout(&self) -> Result<TopicLayout> {
        let partitions = (0..2).map(|partition| PartitionRange { partition, low: 0, high: 3 }).collect();
        Ok(TopicLayout { topic: self.spec.topic.clone(), partitions, ..TopicLayout::default() })
    }
    async fn start_offsets(&self, start: &StartPosition) -> Result<Offsets> {
        let at = if *start == StartPosition::Latest { 3 } else { 0 };
        Ok([(0, at), (1, at)].into_iter().collect())
    }
    async fn open(&self, _: ReadRequest) -> Result<Box<dyn StreamReader>> {
        Err(Error::new(ErrorKind::Unsupported, "no readers here"))
    }
    async fn bounded(&self) -> Result<Arc<dyn TableProvider>> {
        *self.seen.bounded.lock() += 1;
        let rows = topic_rows(&self.schema, 6);
        let table = MemTable::try_new(self.schema.clone(), vec![vec![rows]])?;
        Ok(Arc::new(Bounded { table, seen: self.seen.clone() }))
    }
    async fn writer(&self) -> Result<Box<dyn StreamWriter>> {
        Ok(Box::new(Writer { seen: self.seen.clone(), rows: 0 }))
    }
}

#[derive(Debug)]
struct Bounded {
    table: MemTable,
    seen: Arc<Seen>,
}

#[async_trait]
impl TableProvider for Bounded {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn schema(&self) -> SchemaRef {
        self.table.schema()
    }
    fn table_type(&self) -> TableType {
        TableType::Base
    }
    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> DfResult<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }
    async fn scan(
        &self,
        state: &dyn DfSession,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        self.seen.filters.lock().extend(filters.iter().map(ToString::to_string));
        self.seen.limits.lock().push(limit);
        let schema = self.schema();
        let columns = projection.cloned().unwrap_or_else(|| (0..schema.fields().len()).collect());
        self.seen.columns.lock().extend(columns.iter().map(|c| schema.field(*c).name().clone()));
        self.table.scan(state, projection, &[], limit).await
    }
}

struct Writer {
    seen: Arc<Seen>,
    rows: u64,
}

#[async_trait]
impl StreamWriter for Writer {
    async fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        self.rows += batch.num_rows() as u64;
        self.seen.produced.lock().push(batch.clone());
        Ok(())
    }
    async fn finish(self: Box<Self>) -> Result<u64> {
        Ok(self.rows)
    }
}

/// An engine with one session.
pub(crate) struct Bench {
    pub engine: Arc<Engine>,
    pub session: Session,
    pub seen: Arc<Seen>,
}

/// A result in the texts of its cells; `∅` is null.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub columns: Vec<String>,
    pub types: Vec<DataType>,
    pub rows: Vec<Vec<String>>,
    pub tag: String,
}

fn engine_on(seen: &Arc<Seen>, query_runtime: tokio::runtime::Handle) -> Arc<Engine> {
    let lake = Lake::default();
    lake.schemas.lock().push("public".to_owned());
    Engine::new(EngineParts {
        metastore: Arc::new(Definitions::default()),
        lake: Arc::new(lake),
        blobs: Arc::new(NoBlobs),
        connectors: vec![Arc::new(Connector(seen.clone()))],
        catalogs: Vec::new(),
        query_runtime,
        flow_runtime: tokio::runtime::Handle::current(),
        query_memory_bytes: 64 << 20,
        spill_dir: std::env::temp_dir().join(format!("tidewater-sql-tests-{}", std::process::id())),
        defaults: EngineDefaults { query_parallelism: 2, ..EngineDefaults::default() },
    })
    .unwrap()
}

impl Bench {
    pub(crate) fn empty() -> Self {
        Self::empty_on(tokio::runtime::Handle::current())
    }

    pub(crate) fn empty_on(query_runtime: tokio::runtime::Handle) -> Self {
        let seen = Arc::new(Seen::default());
        let engine = engine_on(&seen, query_runtime);
        let login = Login { user: "ana".to_owned(), database: "lake".to_owned(), ..Login::default() };
        Self { session: engine.session(login).unwrap(), engine, seen }
    }

    /// With stream `s` (id, name, amount, ts, tags, day generated) and table `t` (id, name, at) of two rows.
    pub(crate) async fn new() -> Self {
        let mut bench = Self::empty();
        for sql in [
            "CREATE CONNECTION k TO KAFKA WITH (brokers = 'b:1')",
            "CREATE STREAM s (id BIGINT, name TEXT, amount DOUBLE PRECISION, ts TIMESTAMPTZ, tags BIGINT[], \
             day DATE GENERATED ALWAYS AS (_timestamp::date)) WITH (connection = 'k', topic = 'topic')",
            "CREATE TABLE t (id BIGINT NOT NULL, name TEXT, at TIMESTAMPTZ)",
            "INSERT INTO t VALUES (1, 'one', '2026-01-01 00:00:00+00'), (2, 'two', NULL)",
        ] {
            bench.run(sql).await.unwrap_or_else(|e| panic!("{sql}: {e:?}"));
        }
        bench
    }

    pub(crate) async fn run(&mut self, sql: &str) -> Result<Answer, SqlError> {
        self.run_with(sql, &[], vec![]).await
    }

    pub(crate) async fn run_with(
        &mut self,
        sql: &str,
        types: &[Option<DataType>],
        params: Vec<ScalarValue>,
    ) -> Result<Answer, SqlError> {
        let mut last = Answer { columns: vec![], types: vec![], rows: vec![], tag: String::new() };
        for statement in self.session.parse(sql)? {
            let prepared = self.session.prepare(&statement, types).await?;
            last = match self.session.execute(&prepared, params.clone()).await? {
                Outcome::Done { tag } => Answer { columns: vec![], types: vec![], rows: vec![], tag },
                Outcome::Empty => Answer { columns: vec![], types: vec![], rows: vec![], tag: String::new() },
                Outcome::Rows { columns, mut stream, tag } => {
                    let announced: Vec<_> = prepared.columns.clone().expect("rows were announced");
                    let mut rows = Vec::new();
                    while let Some(batch) = stream.next().await {
                        let batch = batch?;
                        for (a, c) in announced.iter().zip(batch.columns()) {
                            assert_eq!(a.field.data_type(), c.data_type(), "type of {} in {sql}", a.field.name());
                        }
                        let options = FormatOptions::default().with_null("∅");
                        let cells: Vec<_> =
                            batch.columns().iter().map(|c| ArrayFormatter::try_new(c, &options).unwrap()).collect();
                        for i in 0..batch.num_rows() {
                            rows.push(cells.iter().map(|c| c.value(i).to_string()).collect());
                        }
                    }
                    Answer {
                        columns: columns.iter().map(|c| c.field.name().clone()).collect(),
                        types: columns.iter().map(|c| c.field.data_type().clone()).collect(),
                        rows,
                        tag: format!("{tag:?}"),
                    }
                }
            };
        }
        Ok(last)
    }

    pub(crate) async fn rows(&mut self, sql: &str) -> Vec<Vec<String>> {
        self.run(sql).await.unwrap_or_else(|e| panic!("{sql}: {e:?}")).rows
    }

    pub(crate) async fn cell(&mut self, sql: &str) -> String {
        let rows = self.rows(sql).await;
        assert_eq!(rows.len(), 1, "{sql}");
        rows[0][0].clone()
    }

    pub(crate) async fn columns(&mut self, sql: &str) -> Vec<String> {
        self.run(sql).await.unwrap_or_else(|e| panic!("{sql}: {e:?}")).columns
    }

    /// Code and message of the error.
    pub(crate) async fn error(&mut self, sql: &str) -> (String, String) {
        match self.run(sql).await {
            Ok(answer) => panic!("{sql} gave {answer:?}"),
            Err(e) => (e.state.as_str().to_owned(), e.message),
        }
    }

    pub(crate) async fn code(&mut self, sql: &str) -> String {
        self.error(sql).await.0
    }
}

pub(crate) const SOON: Duration = Duration::from_secs(20);
