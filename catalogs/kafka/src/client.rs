//! The client for questions (metadata, offsets, topics), and what its errors mean.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::metadata::Metadata;
use rdkafka::producer::{DeliveryResult, ProducerContext};
use rdkafka::{Offset, TopicPartitionList};
use tidewater_catalogs::{ConnectionSpec, Error, ErrorKind, Offsets, PartitionRange, Result, TopicLayout};

use crate::ffi;
use crate::options::{Options, config_error};

/// Receives what librdkafka says on the side. Clones share what they heard.
#[derive(Clone, Default)]
pub(crate) struct Context {
    heard: Arc<Mutex<Heard>>,
    /// How many brokers the connection names.
    brokers: usize,
}

#[derive(Default)]
struct Heard {
    /// The last trouble with a broker, and its text.
    last: Option<(RDKafkaErrorCode, String)>,
    /// First of the errors that time does not heal.
    fatal: Option<(RDKafkaErrorCode, String)>,
    /// Brokers whose connections failed, by the names that librdkafka gives them.
    down: Vec<String>,
    /// Since when these are as many as the connection names. librdkafka's own event for this does not come.
    all_down: Option<Instant>,
    /// Any of these, since it was last asked for.
    any: bool,
}

impl Context {
    fn of(brokers: usize) -> Self {
        Self { heard: Arc::default(), brokers }
    }
    pub(crate) fn last(&self) -> Option<(RDKafkaErrorCode, String)> {
        let heard = self.heard.lock();
        heard.fatal.clone().or_else(|| heard.last.clone())
    }
    /// Whether waiting on is in vain: a password stays wrong and a certificate untrusted. Where no broker is left, the
    /// next address of a name with several is tried first, and TLS may have met one bad broker of many.
    fn hopeless(&self) -> bool {
        let heard = self.heard.lock();
        match &heard.fatal {
            Some((RDKafkaErrorCode::Authentication, _)) => true,
            Some(_) => heard.all_down.is_some(),
            None => heard.all_down.is_some_and(|since| since.elapsed() >= LAST_CHANCE),
        }
    }
    /// Whether a connection had trouble since the last call.
    pub(crate) fn take_trouble(&self) -> bool {
        std::mem::take(&mut self.heard.lock().any)
    }
    /// A question begins.
    fn begin(&self) {
        if let Some(since) = &mut self.heard.lock().all_down {
            *since = Instant::now() + (TO_RECONNECT - LAST_CHANCE);
        }
    }
    /// A broker has answered: what was heard before explains nothing any more.
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
            let mut heard = self.heard.lock();
            heard.last = Some((RDKafkaErrorCode::BrokerTransportFailure, message.to_owned()));
            // "[thrd:HOST:PORT/ID]: HOST:PORT/ID: what happened"
            let name = message.split("]: ").nth(1).and_then(|rest| rest.split(": ").next()).unwrap_or_default();
            if !name.is_empty() && heard.down.len() < self.brokers && !heard.down.iter().any(|n| n == name) {
                heard.down.push(name.to_owned());
                if heard.down.len() == self.brokers {
                    heard.all_down = Some(Instant::now());
                }
            }
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown);
        tracing::debug!(target: "tidewater_kafka", code = ?code, reason, "error of a broker connection");
        let mut heard = self.heard.lock();
        heard.any = true;
        match code {
            RDKafkaErrorCode::AllBrokersDown => {}
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
    /// Set when no broker answered. librdkafka waits longer and longer before it tries again; a new client does not,
    /// and hears the reason anew.
    broken: AtomicBool,
}

/// For what the first moments of a question may look like where not all addresses of a broker answer.
const LAST_CHANCE: Duration = Duration::from_secs(1);
/// The same where all connections were lost before anybody asked: brokers close those that are not used.
const TO_RECONNECT: Duration = Duration::from_secs(3);
/// How long librdkafka is left alone with a question for the topic's metadata; each time twice as long.
const FIRST_SLICE: Duration = Duration::from_millis(250);

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("connection", &self.connection).finish_non_exhaustive()
    }
}

impl Client {
    pub(crate) fn new(connection: &str, options: &Options, read_uncommitted: bool) -> Result<Self> {
        let context = Context::of(options.brokers);
        let consumer = options
            .client(read_uncommitted)
            .create_with_context(context.clone())
            .map_err(|e| config_error(connection, e))?;
        Ok(Self {
            consumer,
            context,
            connection: connection.to_owned(),
            timeout: options.timeout,
            broken: AtomicBool::new(false),
        })
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
            client.context.begin();
            question(&client)
        };
        tokio::task::spawn_blocking(asked)
            .await
            .unwrap_or_else(|e| Err(Error::internal("a question to kafka was cut off").with_source(e)))
    }

    /// Waits for the first answer of any broker; says what is probably wrong where none comes.
    pub(crate) fn probe(&self) -> Result<()> {
        let deadline = Instant::now() + self.timeout;
        loop {
            self.serve();
            if self.consumer.client().fetch_cluster_id(Duration::from_millis(100)).is_some() {
                self.context.forget();
                return Ok(());
            }
            self.serve();
            if Instant::now() >= deadline || self.context.hopeless() {
                return Err(self.unreachable());
            }
        }
    }

    /// As [`BaseConsumer::fetch_metadata`], which waits for the whole time also where no broker can be reached.
    fn metadata(&self, topic: &str) -> Result<Metadata, KafkaError> {
        let deadline = Instant::now() + self.timeout;
        let mut slice = FIRST_SLICE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let answer = self.consumer.fetch_metadata(Some(topic), slice.min(left));
            self.serve();
            match answer {
                Ok(metadata) => {
                    self.context.forget();
                    return Ok(metadata);
                }
                Err(e) => {
                    let silent = matches!(
                        e.rdkafka_error_code(),
                        Some(RDKafkaErrorCode::BrokerTransportFailure | RDKafkaErrorCode::OperationTimedOut)
                    );
                    if !silent || self.context.hopeless() || Instant::now() + FIRST_SLICE / 4 >= deadline {
                        return Err(e);
                    }
                }
            }
            slice *= 2;
        }
    }

    fn serve(&self) {
        // Events of the main queue: errors and log lines. Of a log line the poll says what it says of an empty queue,
        // so there is no telling the last one.
        for _ in 0..64 {
            let _ = self.consumer.poll(Duration::ZERO);
        }
    }

    fn unreachable(&self) -> Error {
        self.broken.store(true, Ordering::Relaxed);
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
            .metadata(topic)
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
        let mine = found.and_then(|at| kept.remove(at));
        let mut surplus = match mine {
            Some(mine) if !mine.client.broken.load(Ordering::Relaxed) => {
                let client = mine.client.clone();
                kept.push_back(mine);
                return Ok(client);
            }
            broken => broken,
        };
        let client = Arc::new(Client::new(&connection.name, options, read_uncommitted)?);
        kept.push_back(Kept { connection: connection.clone(), read_uncommitted, client: client.clone() });
        if kept.len() > Self::MOST {
            surplus = kept.pop_front();
        }
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
        .with_detail(refusal(code));
    match kind {
        ErrorKind::PermissionDenied => error.with_hint("Give the user the rights Describe and Read on the topic."),
        _ => error,
    }
}

/// What a broker's refusal means, in words of ours.
pub(crate) fn refusal(code: RDKafkaErrorCode) -> String {
    use RDKafkaErrorCode as C;
    let text = match code {
        C::LeaderNotAvailable => {
            "The partition has no leader at the moment: its broker is down, or one is being elected."
        }
        C::NotLeaderForPartition | C::FencedLeaderEpoch | C::UnknownLeaderEpoch => {
            "The partition's leader has just moved to another broker."
        }
        C::ReplicaNotAvailable | C::BrokerNotAvailable => "The broker that has the partition is not available.",
        C::OffsetNotAvailable => "The partition's new leader does not know the end of the partition yet.",
        C::KafkaStorageError => "The broker's disk fails.",
        C::RequestTimedOut | C::OperationTimedOut => "The broker did not answer in time.",
        C::NotEnoughReplicas | C::NotEnoughReplicasAfterAppend => {
            "Fewer replicas of the partition are in sync than the topic demands (min.insync.replicas)."
        }
        C::MessageSizeTooLarge => "A record is larger than the topic takes (max.message.bytes).",
        C::InvalidReplicationFactor => "The cluster has fewer brokers than its default replication factor.",
        C::InvalidPartitions => "The topic cannot have that many partitions.",
        C::InvalidTopic => "Names of topics have up to 249 letters, digits, dots, underscores and dashes.",
        C::PolicyViolation => "A policy of the cluster forbids it.",
        C::TopicAuthorizationFailed => "The user has no right to the topic.",
        C::GroupAuthorizationFailed => "The user has no right to the consumer group.",
        C::ClusterAuthorizationFailed => "The user has no right to the cluster.",
        C::TransactionalIdAuthorizationFailed => "The user has no right to the transactional id.",
        C::Authentication | C::SaslAuthenticationFailed => "The broker refused to sign in.",
        C::ThrottlingQuotaExceeded => "The cluster's quota for this user is used up for now.",
        C::UnsupportedVersion => "The broker is too old for the request.",
        C::UnknownTopicOrPartition | C::UnknownTopic | C::UnknownPartition => "It has no such topic or partition.",
        other => return format!("The broker's reason is {other:?} ({}).", other as i32),
    };
    text.to_owned()
}

#[cfg(test)]
mod tests;
