use std::sync::Arc;
use std::time::Duration;

use arrow::array::AsArray;
use arrow::datatypes::{DataType, Field};
use async_trait::async_trait;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::error::RDKafkaErrorCode;
use tidewater_catalogs::{
    ConnectionSpec, Error, OnError, Result, StartPosition, StreamColumn, StreamConnector, StreamFormat, StreamSource,
    StreamSpec, TableName,
};

use crate::client::{Client, Clients, Context, code_error, trouble};
use crate::infer::Sample;
use crate::lane::ReadPlan;
use crate::options::{OPTIONS, Options, config_error};
use crate::reader::{Range, Reader};
use crate::source::{SharedSource, Source};

/// Connections of kind `kafka`. Clones share their clients.
#[derive(Debug, Clone, Default)]
pub struct KafkaConnector {
    clients: Clients,
}

impl KafkaConnector {
    pub fn new() -> Self {
        Self::default()
    }
}

#[async_trait]
impl StreamConnector for KafkaConnector {
    fn kind(&self) -> &'static str {
        "kafka"
    }

    fn connection_options(&self) -> &'static [&'static str] {
        OPTIONS
    }

    fn check_options(&self, connection: &ConnectionSpec) -> Result<()> {
        Options::new(connection).map(|_| ())
    }

    async fn probe(&self, connection: &ConnectionSpec) -> Result<()> {
        let options = Options::new(connection)?;
        let client = Arc::new(Client::new(&connection.name, &options, false)?);
        client.ask(Client::probe).await
    }

    async fn create_topic(&self, connection: &ConnectionSpec, topic: &str, partitions: i32) -> Result<()> {
        if !(1..=100_000).contains(&partitions) {
            return Err(Error::invalid(format!("a topic cannot have {partitions} partitions")));
        }
        let options = Options::new(connection)?;
        // The admin client waits for the whole timeout where no broker answers.
        let client = self.clients.get(connection, &options, false)?;
        client.ask(Client::probe).await?;
        let context = Context::default();
        let admin: AdminClient<Context> = options
            .client(false)
            .create_with_context(context.clone())
            .map_err(|e| config_error(&connection.name, e))?;
        // -1: as many replicas as the cluster makes by default.
        let new = NewTopic::new(topic, partitions, TopicReplication::Fixed(-1));
        let limits =
            AdminOptions::new().request_timeout(Some(options.timeout)).operation_timeout(Some(options.timeout));
        let answer = admin.create_topics([&new], &limits).await;
        let failed = |code| match code {
            RDKafkaErrorCode::OperationTimedOut
            | RDKafkaErrorCode::BrokerTransportFailure
            | RDKafkaErrorCode::AllBrokersDown => trouble(&connection.name, context.last(), options.timeout),
            code => code_error(&connection.name, code, "make a topic"),
        };
        match answer {
            Ok(results) => match results.into_iter().next() {
                Some(Ok(_)) => Ok(()),
                Some(Err((_, RDKafkaErrorCode::TopicAlreadyExists))) => Ok(()),
                Some(Err((_, code))) => Err(failed(code).with_context("topic", topic)),
                None => {
                    Err(Error::unavailable("kafka did not say whether it made the topic").with_context("topic", topic))
                }
            },
            Err(e) => Err(match e.rdkafka_error_code() {
                Some(code) => failed(code),
                None => Error::unavailable("cannot make the topic").with_source(e),
            }
            .with_context("topic", topic)),
        }
    }

    async fn infer(
        &self,
        connection: &ConnectionSpec,
        topic: &str,
        format: StreamFormat,
        rows: usize,
    ) -> Result<Vec<Field>> {
        match format {
            StreamFormat::Raw => return Ok(vec![Field::new("value", DataType::Binary, true)]),
            StreamFormat::Text => return Ok(vec![Field::new("value", DataType::Utf8, true)]),
            StreamFormat::Json => {}
        }
        let rows = rows.clamp(1, 100_000);
        let spec = StreamSpec {
            name: TableName::public("sample"),
            connection: connection.clone(),
            topic: topic.to_owned(),
            format: StreamFormat::Raw,
            columns: vec![StreamColumn::Value(Field::new("value", DataType::Binary, true))],
            start: StartPosition::Earliest,
            on_error: OnError::Skip,
            read_uncommitted: false,
            key_column: None,
        };
        let source = SharedSource(Arc::new(Source::new(spec, self.clients.clone())?));
        let sample = sample(&source, rows).await?;
        if sample.records == 0 {
            let error = Error::invalid(format!("cannot infer columns from topic \"{topic}\""))
                .with_hint("Declare the columns: CREATE STREAM name (column type, …) WITH (…).");
            return Err(match &sample.malformed {
                Some(e) => error.with_detail(format!("No record of the sample is a JSON object: {e}.")),
                None => error.with_detail("The topic holds no records yet."),
            });
        }
        let fields = sample.fields();
        if fields.is_empty() {
            return Err(Error::invalid(format!("cannot infer columns from topic \"{topic}\""))
                .with_detail("The sampled objects have no members.")
                .with_hint("Declare the columns: CREATE STREAM name (column type, …) WITH (…)."));
        }
        Ok(fields)
    }

    fn source(&self, spec: StreamSpec) -> Result<Arc<dyn StreamSource>> {
        Ok(Arc::new(SharedSource(Arc::new(Source::new(spec, self.clients.clone())?))))
    }
}

/// The newest records of each partition; where they hold no data (control records, or compacted away), all from the
/// beginning until there are enough.
async fn sample(source: &SharedSource, rows: usize) -> Result<Sample> {
    const LIMIT: Duration = Duration::from_secs(60);
    let layout = source.layout().await?;
    let each = (rows / layout.partitions.len().max(1)).max(1) as i64;
    for newest in [true, false] {
        let ranges: Vec<Range> = layout
            .partitions
            .iter()
            .map(|p| Range {
                partition: p.partition,
                from: if newest { p.low.max(p.high.saturating_sub(each)) } else { p.low },
                until: Some(p.high),
            })
            .filter(|r| r.until.is_some_and(|until| r.from < until))
            .collect();
        if ranges.is_empty() {
            break;
        }
        let mut sample = Sample::default();
        let mut seen = 0;
        let plan = Arc::new(ReadPlan::new(&source.0.spec, &[0], OnError::Skip, false)?);
        let reader = Reader::spawn(source.0.job(plan, ranges, 16 << 20))?;
        let read = async {
            // By partition, so that the order of columns does not depend on which one answers first.
            let mut batches = Vec::new();
            while seen < rows {
                let Some(batch) = reader.next().await? else { break };
                seen += batch.rows.num_rows();
                batches.push(batch);
            }
            batches.sort_by_key(|b| (b.partition, b.from));
            Ok::<_, Error>(batches)
        };
        let batches = tokio::time::timeout(LIMIT, read)
            .await
            .map_err(|_| Error::unavailable("reading a sample of the topic took too long"))??;
        let values = batches.iter().flat_map(|b| b.rows.column(0).as_binary::<i32>().iter().flatten());
        for value in values.take(rows) {
            sample.add(value);
        }
        if sample.records > 0 || sample.malformed.is_some() {
            return Ok(sample);
        }
    }
    Ok(Sample::default())
}
