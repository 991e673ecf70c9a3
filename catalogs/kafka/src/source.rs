//! One topic as a table.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use datafusion::catalog::TableProvider;
use tidewater_catalogs::{
    DecodedLetters, Error, HiddenColumn, Offsets, OnError, ReadRequest, Result, StartPosition, StreamColumn,
    StreamReader, StreamSource, StreamSpec, StreamWriter, TopicLayout,
};

use crate::client::{At, Client, Clients};
use crate::lane::ReadPlan;
use crate::options::Options;
use crate::reader::{Job, Range, Reader};
use crate::table::StreamTable;
use crate::writer::Writer;

#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) spec: StreamSpec,
    pub(crate) options: Options,
    schema: SchemaRef,
    clients: Clients,
}

impl Source {
    pub(crate) fn new(spec: StreamSpec, clients: Clients) -> Result<Self> {
        let options = Options::new(&spec.connection)?;
        if spec.topic.is_empty() || spec.topic.len() > 249 || spec.topic.contains('\0') {
            return Err(Error::invalid(format!("\"{}\" is no name of a kafka topic", spec.topic)));
        }
        let mut names = std::collections::HashSet::new();
        for column in &spec.columns {
            let name = column.field().name();
            if HiddenColumn::from_name(name).is_some() {
                return Err(Error::invalid(format!(
                    "column \"{name}\" of stream \"{}\" has a reserved name",
                    spec.name.name
                ))
                .with_hint("Every stream has a hidden column of that name already."));
            }
            if !names.insert(name) {
                return Err(Error::invalid(format!("stream \"{}\" has two columns \"{name}\"", spec.name.name)));
            }
        }
        if let Some(key) = spec.key_column.as_ref().filter(|key| !names.contains(key)) {
            return Err(Error::invalid(format!("stream \"{}\" has no column \"{key}\" for the key", spec.name.name)));
        }
        let schema = spec.full_schema();
        // Refuses types, metadata and formats that cannot be read, before anybody tries.
        ReadPlan::new(&spec, &(0..schema.fields().len()).collect::<Vec<_>>(), OnError::Skip, false)?;
        Ok(Self { spec, options, schema, clients })
    }

    pub(crate) fn client(&self) -> Result<Arc<Client>> {
        self.clients.get(&self.spec.connection, &self.options, self.spec.read_uncommitted)
    }

    pub(crate) fn job(&self, plan: Arc<ReadPlan>, ranges: Vec<Range>, buffer_bytes: usize) -> Job {
        Job {
            connection: self.spec.connection.name.clone(),
            options: self.options.clone(),
            topic: self.spec.topic.clone(),
            read_uncommitted: self.spec.read_uncommitted,
            ranges,
            plan,
            buffer_bytes,
        }
    }

    /// For each partition of the layout where a reader that begins at `start` begins, never below its low-water mark
    /// unless an offset was asked for by number.
    pub(crate) async fn starts(&self, layout: TopicLayout, start: &StartPosition) -> Result<Offsets> {
        Ok(match start {
            StartPosition::Earliest => layout.lows(),
            StartPosition::Latest => layout.highs(),
            StartPosition::Offsets(given) => {
                let mut offsets = layout.lows();
                for (partition, offset) in given.iter() {
                    if offsets.get(partition).is_none() {
                        return Err(Error::invalid(format!(
                            "topic \"{}\" has no partition {partition}, which the start position names",
                            layout.topic
                        )));
                    }
                    offsets.set(partition, offset);
                }
                offsets
            }
            StartPosition::Timestamp(ms) => {
                let ms = *ms;
                let topic = self.spec.topic.clone();
                let ids: Vec<i32> = layout.partitions.iter().map(|p| p.partition).collect();
                let found = self.client()?.ask(move |c| c.offsets(&topic, &ids, At::Time(ms))).await?;
                // A partition without such a record begins at its end as it was before the question: what has come
                // since then may be newer.
                layout
                    .partitions
                    .iter()
                    .map(|p| (p.partition, found.get(p.partition).unwrap_or(p.high).max(p.low)))
                    .collect()
            }
        })
    }
}

/// A source that is shared with the tables and plans made of it.
#[derive(Debug, Clone)]
pub(crate) struct SharedSource(pub(crate) Arc<Source>);

#[async_trait]
impl StreamSource for SharedSource {
    fn spec(&self) -> &StreamSpec {
        &self.0.spec
    }

    fn schema(&self) -> SchemaRef {
        self.0.schema.clone()
    }

    async fn layout(&self) -> Result<TopicLayout> {
        let topic = self.0.spec.topic.clone();
        self.0.client()?.ask(move |c| c.layout(&topic)).await
    }

    async fn start_offsets(&self, start: &StartPosition) -> Result<Offsets> {
        let layout = self.layout().await?;
        self.0.starts(layout, start).await
    }

    async fn open(&self, request: ReadRequest) -> Result<Box<dyn StreamReader>> {
        let plan = ReadPlan::new(&self.0.spec, &request.projection, request.on_error, true)?;
        // A consumer would wait for a topic that is not there; the one who asks should hear of it.
        let topic = self.0.spec.topic.clone();
        let there = self.0.client()?.ask(move |c| c.partitions(&topic)).await?;
        if let Some((missing, _)) = request.from.iter().find(|(p, _)| !there.contains(p)) {
            return Err(Error::not_found(format!("kafka topic \"{}\" has no partition {missing}", self.0.spec.topic)));
        }
        let ranges = request
            .from
            .iter()
            .map(|(partition, from)| {
                if from < 0 {
                    return Err(Error::invalid(format!("offset {from} of partition {partition} is negative")));
                }
                Ok(Range { partition, from, until: None })
            })
            .collect::<Result<_>>()?;
        Ok(Box::new(Reader::spawn(self.0.job(Arc::new(plan), ranges, request.buffer_bytes))?))
    }

    async fn bounded(&self) -> Result<Arc<dyn TableProvider>> {
        Ok(Arc::new(StreamTable::new(self.clone())))
    }

    fn decode(&self, partition: i32, letters: &RecordBatch, projection: &[usize]) -> Result<DecodedLetters> {
        crate::letters::decode(&self.0.spec, partition, letters, projection)
    }

    async fn writer(&self) -> Result<Box<dyn StreamWriter>> {
        if let Some(StreamColumn::Metadata { .. }) =
            self.0.spec.columns.iter().find(|c| Some(c.field().name()) == self.0.spec.key_column.as_ref())
        {
            return Err(Error::unsupported("the key of a written record cannot come from a metadata column")
                .with_hint("Name a column of the value in the option key."));
        }
        // A missing topic is said now, not after the first timeout.
        let topic = self.0.spec.topic.clone();
        self.0.client()?.ask(move |c| c.partitions(&topic)).await?;
        Ok(Box::new(Writer::new(&self.0.spec, &self.0.options)?))
    }
}
