//! A thread that sends the shop's events to the broker, at an even pace.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use chrono::Utc;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer};
use rdkafka::{ClientConfig, ClientContext};

use super::shop::{Record, Shop};

const TICK: Duration = Duration::from_millis(20);
const FLUSH_LIMIT: Duration = Duration::from_secs(2);

/// Stops when dropped, without waiting for the thread.
#[derive(Debug)]
pub struct Generator {
    stop: Arc<AtomicBool>,
    failed: Arc<AtomicU64>,
}

/// Counts what the broker did not take.
struct Deliveries(Arc<AtomicU64>);

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): Self::DeliveryOpaque) {
        if result.is_err() {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Generator {
    /// `rate` in events per second; `shop` is where to go on.
    pub fn start(brokers: &str, rate: u64, shop: Shop) -> Result<Self> {
        let (stop, failed) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let producer: ThreadedProducer<Deliveries> = ClientConfig::new()
            .set("bootstrap.servers", brokers)
            .set("client.id", "tidewater-demo")
            .set("enable.idempotence", "true")
            .set("linger.ms", "20")
            // An event that is given up would leave a number unused, and the next start would use it again.
            .set("message.timeout.ms", "0")
            .set("queue.buffering.max.messages", "200000")
            .create_with_context(Deliveries(failed.clone()))
            .context("the demo's producer cannot be made")?;
        let stopped = stop.clone();
        std::thread::Builder::new()
            .name("demo-generator".to_owned())
            .spawn(move || generate(&producer, rate, shop, &stopped))
            .context("the demo's generator cannot be started")?;
        Ok(Self { stop, failed })
    }

    /// Events that did not reach the broker.
    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }
}

impl Drop for Generator {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn generate(producer: &ThreadedProducer<Deliveries>, rate: u64, mut shop: Shop, stop: &AtomicBool) {
    let mut record = Record::default();
    let mut due = 0.0;
    let mut last = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        let now = Instant::now();
        // What a pause held back is made up for, but for no more than a second of it.
        due = (due + (now - last).as_secs_f64() * rate as f64).min(rate as f64);
        last = now;
        let at = Utc::now();
        while due >= 1.0 && !stop.load(Ordering::Relaxed) {
            let before = shop;
            let topic = shop.next(at, &mut record);
            let message = BaseRecord::to(topic.name())
                .key(record.key.as_str())
                .payload(record.value.as_str())
                .timestamp(at.timestamp_millis());
            match producer.send(message) {
                Ok(()) => due -= 1.0,
                Err((error, _)) => {
                    // Not sent: its number is the next one's still.
                    shop = before;
                    if !matches!(error, KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull)) {
                        tracing::warn!(%error, "the demo cannot send an event");
                    }
                    break;
                }
            }
        }
        std::thread::sleep(TICK);
    }
    if let Err(error) = producer.flush(FLUSH_LIMIT) {
        tracing::debug!(%error, "the demo's last events were not sent");
    }
}
