//! The client for questions (metadata, offsets, topics), and what its errors mean.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{DeliveryResult, ProducerContext};
use rdkafka::{Offset, TopicPartitionList};
use tidewater_catalogs::{ConnectionSpec, Error, ErrorKind, Offsets, PartitionRange, Result, TopicLayout};

use crate::ffi;
use crate::options::{Options, config_error};

/// Receives what librdkafka says on the side. Clones share what they heard.
#[derive(Clone, Default)]
pub(crate) struct Context {
    heard: Arc<Mutex<Heard>>,
}

#[derive(Default)]
struct Heard {
    /// The last trouble with a broker, and its text.
    last: Option<(RDKafkaErrorCode, String)>,
    /// First of the errors that time does not heal.
    fatal: Option<(RDKafkaErrorCode, String)>,
    all_down: bool,
    /// Any of these, since it was last asked for.
    any: bool,
}

impl Context {
    pub(crate) fn last(&self) -> Option<(RDKafkaErrorCode, String)> {
        let heard = self.heard.lock();
        heard.fatal.clone().or_else(|| heard.last.clone())
    }
    fn take_all_down(&self) -> bool {
        std::mem::take(&mut self.heard.lock().all_down)
    }
    /// Whether a connection had trouble since the last call.
    pub(crate) fn take_trouble(&self) -> bool {
        std::mem::take(&mut self.heard.lock().any)
    }
    /// What was heard long ago explains nothing.
    fn forget(&self) {
        *self.heard.lock() = Heard::default();
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, fac: &str, message: &str) {
        match level {
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical | RDKafkaLogLevel::Error => {
                // Every one of these is also an error of a call or of `error` below.
                tracing::warn!(target: "tidewater_kafka", fac, "{message}");
            }
            RDKafkaLogLevel::Warning => tracing::info!(target: "tidewater_kafka", fac, "{message}"),
            _ => tracing::debug!(target: "tidewater_kafka", fac, "{message}"),
        }
        // Some troubles are only logged, such as a broker that hangs up on a client of the wrong security.
        if fac == "FAIL" {
            self.heard.lock().last = Some((RDKafkaErrorCode::BrokerTransportFailure, message.to_owned()));
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown);
        tracing::debug!(target: "tidewater_kafka", code = ?code, reason, "error of a broker connection");
        let mut heard = self.heard.lock();
        heard.any = true;
        match code {
            RDKafkaErrorCode::AllBrokersDown => heard.all_down = true,
            RDKafkaErrorCode::Authentication | RDKafkaErrorCode::SSL => {
                let entry = (code, reason.to_owned());
                heard.fatal.get_or_insert_with(|| entry.clone());
                heard.last = Some(entry);
            }
            _ => heard.last = Some((code, reason.to_owned())),
        }
    }
}

impl ConsumerContext for Context {}

impl ProducerContext for Context {
    type DeliveryOpaque = Arc<crate::writer::Flight>;
    fn delivery(&self, result: &DeliveryResult<'_>, flight: Self::DeliveryOpaque) {
        flight.landed(result.as_ref().err().map(|(e, _)| e.clone()));
    }
}

/// One connection for questions. Every method blocks; [`Client::ask`] runs them beside the runtime.
pub(crate) struct Client {
    consumer: BaseConsumer<Context>,
    context: Context,
    connection: String,
    timeout: Duration,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("connection", &self.connection).finish_non_exhaustive()
    }
}

impl Client {
    pub(crate) fn new(connection: &str, options: &Options, read_uncommitted: bool) -> Result<Self> {
        let context = Context::default();
        let consumer = options
            .client(read_uncommitted)
            .create_with_context(context.clone())
            .map_err(|e| config_error(connection, e))?;
        Ok(Self { consumer, context, connection: connection.to_owned(), timeout: options.timeout })
    }

    /// Runs a blocking question on a thread of its own. It ends by the connection's timeout even where nobody waits
    /// for it any more.
    pub(crate) async fn ask<T: Send + 'static>(
        self: &Arc<Self>,
        question: impl FnOnce(&Self) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let client = self.clone();
        let asked = move || {
            client.serve();
            client.context.forget();
            question(&client)
        };
        tokio::task::spawn_blocking(asked)
            .await
            .unwrap_or_else(|e| Err(Error::internal("a question to kafka was cut off").with_source(e)))
    }

    /// Waits for the first answer of any broker; says what is probably wrong where none comes.
    pub(crate) fn probe(&self) -> Result<()> {
        let deadline = Instant::now() + self.timeout;
        let grace = Instant::now() + Duration::from_secs(2).min(self.timeout);
        let mut all_down = false;
        loop {
            self.serve();
            if self.consumer.client().fetch_cluster_id(Duration::from_millis(100)).is_some() {
                return Ok(());
            }
            self.serve();
            all_down |= self.context.take_all_down();
            let fatal = self.context.heard.lock().fatal.is_some();
            if Instant::now() >= deadline || ((fatal || all_down) && Instant::now() >= grace) || self.refused() {
                return Err(self.unreachable());
            }
        }
    }

    /// A wrong password stays wrong: no need to wait for the deadline.
    fn refused(&self) -> bool {
        matches!(self.context.heard.lock().fatal, Some((RDKafkaErrorCode::Authentication, _)))
    }

    fn serve(&self) {
        // Events of the main queue: errors and log lines. Bounded, as each poll takes one.
        for _ in 0..64 {
            if self.consumer.poll(Duration::ZERO).is_none() {
                break;
            }
        }
    }

    fn unreachable(&self) -> Error {
        trouble(&self.connection, self.context.last(), self.timeout)
    }

    /// The error of a call that the broker did not answer, or answered with a refusal.
    fn failed(&self, what: &str, e: KafkaError) -> Error {
        self.serve();
        match e.rdkafka_error_code() {
            Some(
                RDKafkaErrorCode::BrokerTransportFailure
                | RDKafkaErrorCode::AllBrokersDown
                | RDKafkaErrorCode::OperationTimedOut
                | RDKafkaErrorCode::Resolve
                | RDKafkaErrorCode::SSL
                | RDKafkaErrorCode::Authentication,
            ) => self.unreachable().with_context("while", what),
            Some(code) => code_error(&self.connection, code, what),
            None => Error::internal(format!("cannot {what}")).with_source(e),
        }
    }

    /// Ids of the topic's partitions, ascending.
    pub(crate) fn partitions(&self, topic: &str) -> Result<Vec<i32>> {
        let metadata = self
            .consumer
            .fetch_metadata(Some(topic), self.timeout)
            .map_err(|e| self.failed("read the topic's metadata", e).with_context("topic", topic))?;
        let Some(found) = metadata.topics().iter().find(|t| t.name() == topic) else {
            return Err(no_topic(topic));
        };
        if let Some(code) = found.error() {
            let code = RDKafkaErrorCode::from(code);
            return Err(match code {
                RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic => no_topic(topic),
                RDKafkaErrorCode::InvalidTopic => Error::invalid(format!("\"{topic}\" is no name of a kafka topic"))
                    .with_hint("Names have up to 249 letters, digits, dots, underscores and dashes."),
                code => code_error(&self.connection, code, "read the topic's metadata").with_context("topic", topic),
            });
        }
        let mut ids: Vec<i32> = found.partitions().iter().map(rdkafka::metadata::MetadataPartition::id).collect();
        ids.sort_unstable();
        Ok(ids)
    }

    /// One offset for each partition: the first, the end (with `read_committed` the last stable offset), or that of
    /// the first record at or after a time, where a partition without such a record is left out. One request a broker.
    pub(crate) fn offsets(&self, topic: &str, partitions: &[i32], at: At) -> Result<Offsets> {
        if partitions.is_empty() {
            return Ok(Offsets::default());
        }
        let position = match at {
            At::First => Offset::Beginning,
            At::End => Offset::End,
            // Negative times would be read as those two.
            At::Time(ms) => Offset::Offset(ms.max(0)),
        };
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        for partition in partitions {
            list.add_partition_offset(topic, *partition, position)
                .map_err(|e| Error::internal("cannot name an offset").with_source(e))?;
        }
        let answer = self
            .consumer
            .offsets_for_times(list, self.timeout)
            .map_err(|e| self.failed("read the topic's offsets", e).with_context("topic", topic))?;
        let mut offsets = Offsets::default();
        for element in answer.elements() {
            element.error().map_err(|e| {
                self.failed("read the topic's offsets", e)
                    .with_context("topic", topic)
                    .with_context("partition", element.partition())
            })?;
            match (element.offset(), at) {
                (Offset::Offset(offset), _) if offset >= 0 => offsets.set(element.partition(), offset),
                (Offset::End, At::Time(_)) => {}
                (other, _) => {
                    return Err(Error::unavailable(format!("kafka did not say where the partition stands: {other:?}"))
                        .with_context("topic", topic)
                        .with_context("partition", element.partition()));
                }
            }
        }
        Ok(offsets)
    }

    pub(crate) fn layout(&self, topic: &str) -> Result<TopicLayout> {
        let ids = self.partitions(topic)?;
        // The end first: whatever is deleted between the two questions, low never passes a high that was true.
        let highs = self.offsets(topic, &ids, At::End)?;
        let lows = self.offsets(topic, &ids, At::First)?;
        let mut partitions = Vec::with_capacity(ids.len());
        for partition in ids {
            let (Some(low), Some(high)) = (lows.get(partition), highs.get(partition)) else {
                return Err(Error::unavailable("kafka did not say where a partition stands")
                    .with_context("topic", topic)
                    .with_context("partition", partition));
            };
            partitions.push(PartitionRange { partition, low, high: high.max(low) });
        }
        Ok(TopicLayout {
            topic: topic.to_owned(),
            topic_id: ffi::topic_id(self.consumer.client().native_ptr(), topic, self.timeout).unwrap_or_default(),
            cluster_id: self.consumer.client().fetch_cluster_id(self.timeout).unwrap_or_default(),
            partitions,
        })
    }
}

/// Clients of the connections that were used last: signing in costs more than asking, and a query makes its source
/// anew each time. Clones share them.
#[derive(Clone, Default)]
pub(crate) struct Clients(Arc<Mutex<VecDeque<Kept>>>);

struct Kept {
    connection: ConnectionSpec,
    read_uncommitted: bool,
    client: Arc<Client>,
}

impl Clients {
    const MOST: usize = 16;

    pub(crate) fn get(
        &self,
        connection: &ConnectionSpec,
        options: &Options,
        read_uncommitted: bool,
    ) -> Result<Arc<Client>> {
        let mut kept = self.0.lock();
        let found = kept.iter().position(|k| k.read_uncommitted == read_uncommitted && k.connection == *connection);
        if let Some(mine) = found.and_then(|at| kept.remove(at)) {
            let client = mine.client.clone();
            kept.push_back(mine);
            return Ok(client);
        }
        let client = Arc::new(Client::new(&connection.name, options, read_uncommitted)?);
        kept.push_back(Kept { connection: connection.clone(), read_uncommitted, client: client.clone() });
        let surplus = if kept.len() > Self::MOST { kept.pop_front() } else { None };
        drop(kept);
        if let Some(surplus) = surplus {
            // Closing joins the client's threads.
            let _ = std::thread::Builder::new().name("kafka close".to_owned()).spawn(move || drop(surplus));
        }
        Ok(client)
    }
}

impl std::fmt::Debug for Clients {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Clients({})", self.0.lock().len())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum At {
    First,
    End,
    /// Milliseconds since 1970-01-01.
    Time(i64),
}

pub(crate) fn no_topic(topic: &str) -> Error {
    Error::not_found(format!("kafka topic \"{topic}\" does not exist"))
        .with_hint("Create it, or add create_topic = true to CREATE STREAM.")
}

/// What it probably is, where no broker answers. The texts are librdkafka's own.
pub(crate) fn trouble(connection: &str, last: Option<(RDKafkaErrorCode, String)>, waited: Duration) -> Error {
    let Some((code, text)) = last else {
        return Error::unavailable(format!("no broker of connection \"{connection}\" answers"))
            .with_detail(format!("Nothing came back within {} ms.", waited.as_millis()))
            .with_hint("Check host, port, firewall and the option security.");
    };
    let lower = text.to_ascii_lowercase();
    let (kind, message, hint) = match code {
        RDKafkaErrorCode::Authentication => (
            ErrorKind::PermissionDenied,
            "kafka refused to sign in for connection",
            "Check username, password and sasl_mechanism.",
        ),
        RDKafkaErrorCode::Resolve => (
            ErrorKind::Unavailable,
            "a broker's host name is not known, connection",
            "Check the option brokers, and the listeners that the brokers advertise.",
        ),
        _ if lower.contains("certificate verify failed") || lower.contains("unknown ca") => (
            ErrorKind::Unavailable,
            "a broker's TLS certificate is not trusted, connection",
            "Give the certificate authority in ssl_ca, and use the name that the certificate was made for.",
        ),
        _ if ["ssl listener", "broker listener", "security.protocol", "disconnected"]
            .iter()
            .any(|part| lower.contains(part)) =>
        {
            (
                ErrorKind::Unavailable,
                "a broker hangs up at once, connection",
                "The port probably has another kind of listener: check the option security.",
            )
        }
        RDKafkaErrorCode::SSL => (
            ErrorKind::Unavailable,
            "no TLS with a broker of connection",
            "Check that the port is a TLS listener, and ssl_ca, ssl_certificate and ssl_key.",
        ),
        _ if lower.contains("connection refused") => (
            ErrorKind::Unavailable,
            "nothing listens at a broker's address, connection",
            "Check host and port in the option brokers, and that the broker is running.",
        ),
        _ => (
            ErrorKind::Unavailable,
            "no broker answers, connection",
            "Check host, port, firewall and the option security.",
        ),
    };
    Error::new(kind, format!("{message} \"{connection}\"")).with_detail(text).with_hint(hint)
}

/// A broker's own refusal.
pub(crate) fn code_error(connection: &str, code: RDKafkaErrorCode, what: &str) -> Error {
    let kind = match code {
        RDKafkaErrorCode::TopicAuthorizationFailed
        | RDKafkaErrorCode::ClusterAuthorizationFailed
        | RDKafkaErrorCode::GroupAuthorizationFailed
        | RDKafkaErrorCode::TransactionalIdAuthorizationFailed
        | RDKafkaErrorCode::Authentication
        | RDKafkaErrorCode::SaslAuthenticationFailed => ErrorKind::PermissionDenied,
        RDKafkaErrorCode::UnknownTopicOrPartition
        | RDKafkaErrorCode::UnknownTopic
        | RDKafkaErrorCode::UnknownPartition => ErrorKind::NotFound,
        _ => ErrorKind::Unavailable,
    };
    let error = Error::new(kind, format!("kafka does not let us {what} over connection \"{connection}\""))
        .with_detail(format!("The broker says: {code}."));
    match kind {
        ErrorKind::PermissionDenied => error.with_hint("Give the user the rights Describe and Read on the topic."),
        _ => error,
    }
}
