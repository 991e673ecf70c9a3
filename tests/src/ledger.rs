//! The oracle of exactly once: a producer that remembers every record the broker acknowledged.
//!
//! Good records of partition `p` are numbered 0, 1, 2 …; each carries its number, so that a lost or doubled row shows
//! in counts and sums. Some records are malformed on purpose; some, with transactions, are aborted.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::error::KafkaError;
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};
use rdkafka::types::RDKafkaErrorCode;

use crate::{Client, wait_for};

/// Columns that a stream over the ledger's topic declares.
pub const LEDGER_COLUMNS: &str = "p INT NOT NULL, n BIGINT NOT NULL, aborted BOOLEAN NOT NULL, amount NUMERIC(12,2), \
     note TEXT, event_time TIMESTAMPTZ";

/// One record in this many is malformed.
const POISON_EVERY: u64 = 97;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerCheck {
    /// Per partition: how many good records were acknowledged, numbered from 0.
    pub good: Vec<u64>,
    /// Per partition: how many malformed ones were.
    pub poison: Vec<u64>,
}

impl LedgerCheck {
    pub fn total(&self) -> u64 {
        self.good.iter().sum()
    }
    pub fn poisoned(&self) -> u64 {
        self.poison.iter().sum()
    }

    /// Waits until the table holds as many rows as were produced, then compares every number.
    pub fn verify(&self, client: &Client, table: &str, dead_letters: &str, limit: Duration) -> Result<()> {
        // Others read the table as well, and see what is committed.
        client.run("SET read_mode = committed")?;
        let count = |what: &str| -> Result<u64> { Ok(client.value(&format!("SELECT count(*) FROM {what}"))?.parse()?) };
        let waited = wait_for("every row to arrive", limit, || {
            let (rows, dead) = (count(table)?, count(dead_letters)?);
            ensure!(
                rows >= self.total() && dead >= self.poisoned(),
                "{rows} rows of {}, {dead} dead letters of {}",
                self.total(),
                self.poisoned()
            );
            Ok(Some(()))
        });
        let rows = client.rows(&format!(
            "SELECT p, count(*), count(DISTINCT n), min(n), max(n), sum(n) FROM {table} GROUP BY p ORDER BY p"
        ))?;
        let text: Vec<String> = rows
            .iter()
            .map(|r| r.iter().map(|v| v.as_deref().unwrap_or("NULL")).collect::<Vec<_>>().join(" "))
            .collect();
        let expected: Vec<String> = (self.good.iter().enumerate())
            .filter(|(_, n)| **n > 0)
            .map(|(p, n)| format!("{p} {n} {n} 0 {} {}", n - 1, n * (n - 1) / 2))
            .collect();
        ensure!(
            text == expected,
            "rows differ (p, count, distinct, min, max, sum)\n  table:  {text:?}\n  ledger: {expected:?}\n{}",
            waited.map_or_else(|e| e.to_string(), |()| String::new())
        );
        let dead = client.rows(&format!(
            "SELECT _partition, count(*), count(DISTINCT _offset) FROM {dead_letters} GROUP BY _partition ORDER BY _partition"
        ))?;
        let text: Vec<String> = dead
            .iter()
            .map(|r| r.iter().map(|v| v.as_deref().unwrap_or("NULL")).collect::<Vec<_>>().join(" "))
            .collect();
        let expected: Vec<String> =
            (self.poison.iter().enumerate()).filter(|(_, n)| **n > 0).map(|(p, n)| format!("{p} {n} {n}")).collect();
        ensure!(
            text == expected,
            "dead letters differ (partition, count, distinct)\n  table:  {text:?}\n  ledger: {expected:?}"
        );
        let aborted = count(&format!("{table} WHERE aborted"))?;
        ensure!(aborted == 0, "{aborted} rows of aborted transactions");
        Ok(())
    }
}

/// What must be in the table. Without transactions a record counts when the broker acknowledged it, with them when its
/// transaction is committed.
#[derive(Default)]
struct Counts {
    good: Vec<AtomicU64>,
    poison: Vec<AtomicU64>,
    failed: AtomicU64,
}

impl Counts {
    fn add(&self, kind: Kind, partition: usize) {
        match kind {
            Kind::Good => self.good[partition].fetch_add(1, Ordering::Relaxed),
            Kind::Poison => self.poison[partition].fetch_add(1, Ordering::Relaxed),
            Kind::Aborted | Kind::InTransaction => 0,
        };
    }
}

struct Acks(Arc<Counts>);

impl ClientContext for Acks {}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Good,
    Poison,
    Aborted,
    /// Counted when the transaction ends, not when it is delivered.
    InTransaction,
}

impl ProducerContext for Acks {
    type DeliveryOpaque = Box<(usize, Kind)>;

    fn delivery(&self, result: &DeliveryResult<'_>, opaque: Self::DeliveryOpaque) {
        let (partition, kind) = *opaque;
        match (result, kind) {
            (_, Kind::InTransaction) => (),
            (Err(_), _) => drop(self.0.failed.fetch_add(1, Ordering::Relaxed)),
            (Ok(_), kind) => self.0.add(kind, partition),
        }
    }
}

/// A producer that runs until it is stopped.
pub struct Ledger {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<()>>,
    counts: Arc<Counts>,
}

impl Ledger {
    /// About `rate` records a second over all partitions. With `transactions`, one transaction in five is aborted.
    pub fn start(brokers: &str, topic: &str, partitions: usize, rate: u64, transactions: bool) -> Result<Self> {
        let counts = Arc::new(Counts {
            good: (0..partitions).map(|_| AtomicU64::new(0)).collect(),
            poison: (0..partitions).map(|_| AtomicU64::new(0)).collect(),
            failed: AtomicU64::new(0),
        });
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", brokers).set("enable.idempotence", "true").set("linger.ms", "5");
        if transactions {
            config.set("transactional.id", format!("ledger-{topic}"));
        }
        let stop = Arc::new(AtomicBool::new(false));
        let thread = {
            let (topic, stop, counts) = (topic.to_owned(), Arc::clone(&stop), Arc::clone(&counts));
            std::thread::spawn(move || {
                let producer = config.create_with_context(Acks(Arc::clone(&counts)))?;
                let mut run = Run { config, producer, topic, counts, stop };
                run.produce(partitions, rate, transactions)
            })
        };
        Ok(Self { stop, thread, counts })
    }

    /// Acknowledged good records so far.
    pub fn produced(&self) -> u64 {
        self.counts.good.iter().map(|n| n.load(Ordering::Relaxed)).sum()
    }

    /// A producer that died leaves the test waiting for records that never come.
    pub fn is_alive(&self) -> bool {
        !self.thread.is_finished()
    }

    /// Stops, waits for every acknowledgement and says what must be in the table.
    pub fn stop(self) -> Result<LedgerCheck> {
        self.stop.store(true, Ordering::Relaxed);
        match self.thread.join() {
            Ok(outcome) => outcome?,
            Err(_) => bail!("the producer panicked"),
        }
        let failed = self.counts.failed.load(Ordering::Relaxed);
        ensure!(failed == 0, "{failed} records were not acknowledged: the ledger is void");
        let read = |v: &[AtomicU64]| v.iter().map(|n| n.load(Ordering::Relaxed)).collect();
        Ok(LedgerCheck { good: read(&self.counts.good), poison: read(&self.counts.poison) })
    }
}

const TIMEOUT: Duration = Duration::from_secs(60);

struct Run {
    config: ClientConfig,
    producer: ThreadedProducer<Acks>,
    topic: String,
    counts: Arc<Counts>,
    stop: Arc<AtomicBool>,
}

impl Run {
    fn produce(&mut self, partitions: usize, rate: u64, transactions: bool) -> Result<()> {
        if transactions {
            self.producer.init_transactions(TIMEOUT).context("cannot begin with transactions")?;
        }
        let begun = Instant::now();
        let mut next = vec![0_u64; partitions];
        let (mut sent, mut transaction) = (0_u64, 0_u64);
        while !self.stop.load(Ordering::Relaxed) {
            let due = (begun.elapsed().as_secs_f64() * rate as f64) as u64;
            if due <= sent {
                std::thread::sleep(Duration::from_millis(2));
                continue;
            }
            let abort = transactions && transaction % 5 == 4;
            let before = next.clone();
            let mut batch = Vec::new();
            if transactions {
                self.producer.begin_transaction().context("cannot begin a transaction")?;
            }
            while sent < due {
                let partition = (sent % partitions as u64) as usize;
                sent += 1;
                let kind = match (abort, sent % POISON_EVERY) {
                    (true, _) => Kind::Aborted,
                    (false, 0) => Kind::Poison,
                    (false, _) => Kind::Good,
                };
                let n = next[partition];
                if kind == Kind::Good {
                    next[partition] += 1;
                }
                let counted = if transactions { Kind::InTransaction } else { kind };
                batch.push((kind, partition));
                self.send(partition, counted, &payload(kind, partition, n, sent))?;
            }
            if transactions {
                transaction += 1;
                if self.end(abort)? {
                    batch.into_iter().for_each(|(kind, partition)| self.counts.add(kind, partition));
                } else {
                    next = before;
                }
            }
        }
        self.producer.flush(TIMEOUT).context("the broker did not acknowledge everything")
    }

    /// Whether the transaction was committed. A broker may make it impossible; then it is aborted.
    fn end(&mut self, mut abort: bool) -> Result<bool> {
        if abort {
            // So that there is something on the topic that readers must not see.
            self.producer.flush(TIMEOUT).context("the broker did not acknowledge what will be aborted")?;
        }
        let begun = Instant::now();
        loop {
            let outcome = if abort {
                self.producer.abort_transaction(TIMEOUT)
            } else {
                self.producer.commit_transaction(TIMEOUT)
            };
            match outcome {
                Ok(()) => return Ok(!abort),
                Err(KafkaError::Transaction(e)) if e.is_retriable() && begun.elapsed() < TIMEOUT => (),
                Err(KafkaError::Transaction(e)) if !abort && e.txn_requires_abort() => abort = true,
                // The broker lost track of the transaction, which it does now and then when one follows another at
                // once. A producer of the same name has it aborted, whatever is left of it.
                Err(_) if abort => {
                    self.producer = self.config.create_with_context(Acks(Arc::clone(&self.counts)))?;
                    self.producer.init_transactions(TIMEOUT).context("cannot begin with transactions again")?;
                    return Ok(false);
                }
                Err(e) => return Err(e).context("cannot commit"),
            }
        }
    }

    fn send(&self, partition: usize, kind: Kind, payload: &str) -> Result<()> {
        let mut record = BaseRecord::with_opaque_to(&self.topic, Box::new((partition, kind)))
            .partition(partition as i32)
            .payload(payload)
            .key("k");
        loop {
            match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err((e, back)) if e.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull) => {
                    std::thread::sleep(Duration::from_millis(5));
                    record = back;
                }
                Err((e, _)) => return Err(e).context("cannot produce"),
            }
        }
    }
}

fn payload(kind: Kind, p: usize, n: u64, sent: u64) -> String {
    match (kind, sent % 3) {
        (Kind::Poison, 0) => format!("{{\"p\":{p},\"n\":{n},\"aborted\":fal"),
        (Kind::Poison, 1) => format!("{{\"p\":{p},\"n\":\"many\",\"aborted\":false}}"),
        (Kind::Poison, _) => "not json".to_owned(),
        _ => format!(
            "{{\"p\":{p},\"n\":{n},\"aborted\":{},\"amount\":{}.{:02},\"note\":\"n {n}\",\"event_time\":\"2026-01-{:02}T12:00:00Z\"}}",
            kind == Kind::Aborted,
            n % 1000,
            n % 100,
            1 + n % 4,
        ),
    }
}

/// Makes a topic with one replica.
pub async fn create_topic(brokers: &str, topic: &str, partitions: i32) -> Result<()> {
    use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
    let admin: AdminClient<rdkafka::client::DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", brokers).create()?;
    let new = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
    for outcome in admin.create_topics([&new], &AdminOptions::new().operation_timeout(Some(TIMEOUT))).await? {
        outcome.map_err(|(topic, code)| anyhow::anyhow!("cannot create topic {topic}: {code}"))?;
    }
    Ok(())
}
