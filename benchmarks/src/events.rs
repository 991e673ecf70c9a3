//! The events that are measured: a click of a shop with 20 members and a nested object, about 1 KB; or a short one
//! with 8 members, about 300 bytes.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use rdkafka::types::RDKafkaErrorCode;

/// Columns of the stream, for both sizes.
pub const LONG_COLUMNS: &str = "event_id TEXT, user_id BIGINT, session_id TEXT, event_type TEXT, page TEXT, referrer TEXT, \
    user_agent TEXT, ip TEXT, country TEXT, city TEXT, device TEXT, os TEXT, browser TEXT, screen_width INT, \
    screen_height INT, price DOUBLE PRECISION, quantity INT, logged_in BOOLEAN, event_time TIMESTAMPTZ, note TEXT, \
    context STRUCT<campaign TEXT, medium TEXT, score DOUBLE PRECISION>";

pub const SHORT_COLUMNS: &str = "event_id TEXT, user_id BIGINT, event_type TEXT, page TEXT, country TEXT, \
    price DOUBLE PRECISION, event_time TIMESTAMPTZ, note TEXT";

/// The same columns for the bare loop.
pub fn schema(long: bool) -> arrow::datatypes::SchemaRef {
    use arrow::datatypes::{DataType as D, Field, Schema, TimeUnit};
    let text = |name: &str| Field::new(name, D::Utf8, true);
    let time = Field::new("event_time", D::Timestamp(TimeUnit::Microsecond, Some("+00:00".into())), true);
    let fields = if long {
        let context = vec![text("campaign"), text("medium"), Field::new("score", D::Float64, true)];
        vec![
            text("event_id"),
            Field::new("user_id", D::Int64, true),
            text("session_id"),
            text("event_type"),
            text("page"),
            text("referrer"),
            text("user_agent"),
            text("ip"),
            text("country"),
            text("city"),
            text("device"),
            text("os"),
            text("browser"),
            Field::new("screen_width", D::Int32, true),
            Field::new("screen_height", D::Int32, true),
            Field::new("price", D::Float64, true),
            Field::new("quantity", D::Int32, true),
            Field::new("logged_in", D::Boolean, true),
            time,
            text("note"),
            Field::new("context", D::Struct(context.into()), true),
        ]
    } else {
        vec![
            text("event_id"),
            Field::new("user_id", D::Int64, true),
            text("event_type"),
            text("page"),
            text("country"),
            Field::new("price", D::Float64, true),
            time,
            text("note"),
        ]
    };
    std::sync::Arc::new(Schema::new(fields))
}

/// A generator without state: event `n` is always the same.
fn event(n: u64, long: bool, out: &mut String) {
    out.clear();
    let r = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let pick = |shift: u32, of: u64| (r >> shift) % of;
    let (kind, page) = (["view", "click", "cart", "buy"][pick(3, 4) as usize], pick(7, 5000));
    let country = ["DE", "FR", "US", "JP", "BR", "IN"][pick(11, 6) as usize];
    let (minute, second) = (n / 60 % 60, n % 60);
    let price = pick(13, 100_000) as f64 / 100.0;
    let time = format!("2026-01-01T12:{minute:02}:{second:02}.{:03}Z", n % 1000);
    let id = format!("{r:016x}-{n:016x}");
    if long {
        let _ = write!(
            out,
            "{{\"event_id\":\"{id}\",\"user_id\":{},\"session_id\":\"s-{:016x}\",\"event_type\":\"{kind}\",\
             \"page\":\"https://shop.example.com/products/{page}/details?variant={}\",\
             \"referrer\":\"https://search.example.com/?q=product+{page}\",\
             \"user_agent\":\"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.{}.0 Safari/537.36\",\
             \"ip\":\"10.{}.{}.{}\",\"country\":\"{country}\",\"city\":\"City {}\",\"device\":\"{}\",\"os\":\"Linux\",\
             \"browser\":\"Chrome\",\"screen_width\":{},\"screen_height\":1080,\"price\":{price},\"quantity\":{},\
             \"logged_in\":{},\"event_time\":\"{time}\",\"note\":\"{}\",\
             \"context\":{{\"campaign\":\"spring-{}\",\"medium\":\"email\",\"score\":{}}}}}",
            pick(17, 1_000_000),
            r.rotate_left(17),
            pick(5, 12),
            pick(9, 9999),
            pick(2, 256),
            pick(4, 256),
            pick(6, 256),
            pick(8, 800),
            if pick(1, 2) == 0 { "desktop" } else { "mobile" },
            1280 + pick(10, 3) * 320,
            1 + pick(12, 5),
            pick(14, 2) == 0,
            "the quick brown fox jumps over the lazy dog ".repeat(4),
            pick(15, 40),
            pick(16, 1000) as f64 / 1000.0,
        );
    } else {
        let _ = write!(
            out,
            "{{\"event_id\":\"{id}\",\"user_id\":{},\"event_type\":\"{kind}\",\"page\":\"/products/{page}/details\",\
             \"country\":\"{country}\",\"price\":{price},\"event_time\":\"{time}\",\"note\":\"{}\"}}",
            pick(17, 1_000_000),
            "short note of the event ".repeat(3),
        );
    }
}

/// Fills a topic with `rows` events, spread over its partitions. Returns the mean size of a record.
pub fn preload(brokers: &str, topic: &str, partitions: i32, rows: u64, long: bool) -> Result<u64> {
    let producer: ThreadedProducer<DefaultProducerContext> = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("compression.type", "lz4")
        .set("linger.ms", "20")
        .set("queue.buffering.max.kbytes", "262144")
        .create()?;
    let (mut text, mut bytes) = (String::new(), 0_u64);
    for n in 0..rows {
        event(n, long, &mut text);
        bytes += text.len() as u64;
        let mut record =
            BaseRecord::<(), str>::to(topic).partition((n % partitions as u64) as i32).payload(text.as_str());
        while let Err((e, back)) = producer.send(record) {
            if e.rdkafka_error_code() != Some(RDKafkaErrorCode::QueueFull) {
                return Err(e.into());
            }
            std::thread::sleep(Duration::from_millis(2));
            record = back;
        }
    }
    producer.flush(Duration::from_secs(120))?;
    Ok(bytes / rows.max(1))
}

/// Long events at a steady rate, in small portions, for as long as it is let.
pub struct Steady {
    producer: ThreadedProducer<DefaultProducerContext>,
    topic: String,
    partitions: u64,
    rate: u64,
}

impl Steady {
    pub fn new(brokers: &str, topic: &str, partitions: i32, rate: u64) -> Result<Self> {
        let producer = ClientConfig::new().set("bootstrap.servers", brokers).set("linger.ms", "0").create()?;
        Ok(Self { producer, topic: topic.to_owned(), partitions: partitions.max(1) as u64, rate: rate.max(1) })
    }

    /// `sent` hears of each event just before it is handed to the producer.
    pub fn run(&self, stop: &AtomicBool, mut sent: impl FnMut(Instant)) -> Result<()> {
        let (mut text, begun, mut n) = (String::new(), Instant::now(), 0_u64);
        while !stop.load(Ordering::SeqCst) {
            let due = (begun.elapsed().as_secs_f64() * self.rate as f64) as u64;
            while n < due {
                event(n, true, &mut text);
                sent(Instant::now());
                let partition = (n % self.partitions) as i32;
                let record = BaseRecord::<(), str>::to(&self.topic).partition(partition).payload(text.as_str());
                self.producer.send(record).map_err(|(e, _)| e)?;
                n += 1;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        self.producer.flush(Duration::from_secs(30))?;
        Ok(())
    }
}
