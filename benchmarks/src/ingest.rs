//! Rows per CPU second from Kafka JSON to a streaming table, beside a bare loop that does the least one can do:
//! rdkafka poll, arrow-json, one zstd Parquet file. Both read the same topic on the same broker, one after the other,
//! several times; all threads of each process count.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use arrow_json::ReaderBuilder;
use clap::Args;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};
use tidewater_devbroker::{DevBroker, DevBrokerConfig};
use tidewater_tests::{ChildServer, Kafka, Ports, create_topic, log_path, tail, wait_for};

use crate::flink::{Flink, Job};
use crate::{cpu, events};

#[derive(Args)]
pub struct Options {
    /// Events in the topic
    #[arg(long, default_value_t = 1_000_000)]
    rows: u64,
    /// Size of an event: long (about 1 KB) or short (about 300 bytes)
    #[arg(long, default_value = "long")]
    size: String,
    #[arg(long, default_value_t = 4)]
    partitions: i32,
    /// Runs of each side; medians are printed
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// Time between commits
    #[arg(long, default_value = "2s")]
    commit_interval: String,
    /// A broker that runs already; else Apache Kafka from the end-to-end tests' directory, else the development broker
    #[arg(long)]
    brokers: Option<String>,
    /// Apache Flink beside it, as `cargo xtask bench ingest --flink` fetches it
    #[arg(long)]
    flink: bool,
    /// Time between Flink's checkpoints, each of which is a commit; else that between ours
    #[arg(long)]
    flink_checkpoints: Option<String>,
}

#[derive(Args)]
pub struct BareLoop {
    #[arg(long)]
    brokers: String,
    #[arg(long)]
    rows: u64,
    #[arg(long)]
    partitions: i32,
    #[arg(long)]
    long: bool,
    #[arg(long)]
    out: PathBuf,
}

const TOPIC: &str = "bench";
const LIMIT: Duration = Duration::from_secs(600);

/// What one run of one side took.
pub(crate) struct Run {
    pub(crate) cpu_seconds: f64,
    pub(crate) wall_seconds: f64,
    pub(crate) peak_rss_mib: f64,
}

pub fn run(o: &Options) -> Result<()> {
    let long = match o.size.as_str() {
        "long" => true,
        "short" => false,
        other => bail!("--size takes long or short, not {other}"),
    };
    let dir = tempfile::tempdir()?;
    let runtime = tokio::runtime::Runtime::new()?;
    let broker = Broker::start(o.brokers.clone(), dir.path())?;
    runtime.block_on(create_topic(&broker.addr(), TOPIC, o.partitions))?;
    let bytes = events::preload(&broker.addr(), TOPIC, o.partitions, o.rows, long)?;
    println!(
        "{} events of {bytes} bytes in {} partitions on {}; zstd(1) Parquet; commits every {}",
        o.rows,
        o.partitions,
        broker.name(),
        o.commit_interval
    );

    let (mut bare, mut flow) = (Vec::new(), Vec::new());
    for n in 0..o.runs {
        bare.push(bare_run(o, &broker.addr(), long, dir.path())?);
        flow.push(flow_run(o, &broker.addr(), long, &dir.path().join(format!("run{n}")))?);
    }
    println!("{:<16} {:>14} {:>12} {:>10} {:>9} {:>9}", "", "rows/CPU s", "MB/CPU s", "CPU s", "wall s", "peak MiB");
    let (a, b) = (line("bare loop", o.rows, bytes, &bare), line("streaming table", o.rows, bytes, &flow));
    println!("ratio of the medians: {:.2}", b / a);
    if o.flink {
        beside_flink(o, &broker.addr(), long, bytes, dir.path(), b)?;
    }
    Ok(())
}

/// A JVM that starts compiles what it runs; two sizes and their difference leave that out.
fn beside_flink(o: &Options, brokers: &str, long: bool, bytes: u64, dir: &Path, ours: f64) -> Result<()> {
    let flink = Flink::find(&parts().context("there is no HOME")?, dir)?;
    let partitions = u64::from(o.partitions.unsigned_abs().max(1));
    let checkpoints = o.flink_checkpoints.as_deref().unwrap_or(&o.commit_interval);
    let sizes = [o.rows / 4, o.rows].map(|rows| rows / partitions * partitions);
    let mut runs: [Vec<Run>; 2] = Default::default();
    for n in 0..o.runs {
        for (at, rows) in sizes.into_iter().enumerate() {
            let job = Job { brokers, topic: TOPIC, partitions: o.partitions, rows, long, checkpoints };
            runs[at].push(flink.run(&job, &dir.join(format!("flink{n}-{at}")))?);
        }
    }
    let [small, large] = sizes;
    println!("Flink SQL, checkpoints every {checkpoints}, both JVMs, their start included:");
    for (rows, runs) in sizes.into_iter().zip(&runs) {
        line(&format!("{rows} rows"), rows, bytes, runs);
    }
    let cpu = |runs: &[Run]| median(runs, &|r| r.cpu_seconds);
    let more = cpu(&runs[1]) - cpu(&runs[0]);
    ensure!(more > 0.0, "the larger run took no more CPU than the smaller: take more --rows");
    let rate = (large - small) as f64 / more;
    println!("{:<16} {rate:>14.0} {:>12.0} {more:>10.2}", "difference", rate * bytes as f64 / 1e6);
    println!("streaming table : Flink SQL = {:.2}", ours / rate);
    Ok(())
}

fn median(runs: &[Run], value: &dyn Fn(&Run) -> f64) -> f64 {
    let mut all: Vec<f64> = runs.iter().map(value).collect();
    all.sort_by(f64::total_cmp);
    all.get(all.len() / 2).copied().unwrap_or(f64::NAN)
}

fn line(name: &str, rows: u64, bytes: u64, runs: &[Run]) -> f64 {
    let median = |value: &dyn Fn(&Run) -> f64| median(runs, value);
    let cpu = median(&|r| r.cpu_seconds);
    let rate = rows as f64 / cpu;
    println!(
        "{name:<16} {rate:>14.0} {:>12.0} {cpu:>10.2} {:>9.2} {:>9.0}",
        rate * bytes as f64 / 1e6,
        median(&|r| r.wall_seconds),
        median(&|r| r.peak_rss_mib)
    );
    rate
}

/// Where `cargo xtask` keeps what it fetches.
fn parts() -> Option<PathBuf> {
    let told = std::env::var_os("TIDEWATER_E2E_DIR").map(PathBuf::from);
    told.or_else(|| Some(Path::new(&std::env::var_os("HOME")?).join(".cache/tidewater/e2e")))
}

pub(crate) enum Broker {
    Given(String),
    Apache(Kafka),
    Development(DevBroker),
}

impl Broker {
    pub(crate) fn start(given: Option<String>, dir: &Path) -> Result<Self> {
        if let Some(brokers) = given {
            return Ok(Self::Given(brokers));
        }
        if let Some(libs) = parts().map(|p| p.join("kafka")).filter(|p| p.exists()) {
            return Ok(Self::Apache(Kafka::start(&libs, &dir.join("kafka"))?));
        }
        let mut config = DevBrokerConfig::new(dir.join("broker"));
        config.max_bytes_per_partition = 8 << 30;
        config.max_bytes_total = 32 << 30;
        Ok(Self::Development(DevBroker::start(config)?))
    }

    pub(crate) fn addr(&self) -> String {
        match self {
            Self::Given(brokers) => brokers.clone(),
            Self::Apache(kafka) => kafka.brokers(),
            Self::Development(broker) => broker.addr().to_string(),
        }
    }

    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Given(_) => "the given broker",
            Self::Apache(_) => "Apache Kafka",
            Self::Development(_) => "the development broker",
        }
    }
}

/// The bare loop in a process of its own, which prints its own CPU seconds at the end.
fn bare_run(o: &Options, brokers: &str, long: bool, dir: &Path) -> Result<Run> {
    let begun = Instant::now();
    let mut command = Command::new(std::env::current_exe()?);
    command
        .args(["bare-loop", "--brokers", brokers, "--rows", &o.rows.to_string()])
        .args(["--partitions", &o.partitions.to_string(), "--out"])
        .arg(dir.join("bare.parquet"));
    if long {
        command.arg("--long");
    }
    let output = command.stderr(Stdio::inherit()).output()?;
    ensure!(output.status.success(), "the bare loop failed");
    let text = String::from_utf8(output.stdout)?;
    let mut numbers = text.split_whitespace().map(str::parse::<f64>);
    let mut next = || numbers.next().context("the bare loop printed too little").and_then(|n| Ok(n?));
    Ok(Run { cpu_seconds: next()?, peak_rss_mib: next()?, wall_seconds: begun.elapsed().as_secs_f64() })
}

pub fn bare_loop(o: &BareLoop) -> Result<()> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", &o.brokers)
        .set("group.id", "bare")
        .set("enable.auto.commit", "false")
        .set("fetch.wait.max.ms", "100")
        .set("queued.min.messages", "100000")
        .set("queued.max.messages.kbytes", "65536")
        .create()?;
    let mut assignment = TopicPartitionList::new();
    for partition in 0..o.partitions {
        assignment.add_partition_offset(TOPIC, partition, Offset::Beginning)?;
    }
    consumer.assign(&assignment)?;
    let schema = events::schema(o.long);
    let mut decoder = ReaderBuilder::new(Arc::clone(&schema)).with_batch_size(8192).build_decoder()?;
    let properties = WriterProperties::builder().set_compression(Compression::ZSTD(ZstdLevel::try_new(1)?)).build();
    let mut writer = ArrowWriter::try_new(std::fs::File::create(&o.out)?, schema, Some(properties))?;
    let (mut rows, mut in_batch) = (0, 0);
    while rows < o.rows {
        let Some(message) = consumer.poll(Duration::from_secs(30)) else { bail!("no message for 30 s") };
        let message = message?;
        let payload = message.payload().context("a record has no value")?;
        ensure!(decoder.decode(payload)? == payload.len(), "a record was not decoded whole");
        rows += 1;
        in_batch += 1;
        if in_batch == 8192 {
            in_batch = 0;
            if let Some(batch) = decoder.flush()? {
                writer.write(&batch)?;
            }
        }
    }
    if let Some(batch) = decoder.flush()? {
        writer.write(&batch)?;
    }
    writer.close()?;
    println!("{} {}", cpu::seconds("self")?, cpu::peak_rss_mib("self")?);
    Ok(())
}

/// A fresh server takes the whole topic into a streaming table; its idle start is not counted.
fn flow_run(o: &Options, brokers: &str, long: bool, dir: &Path) -> Result<Run> {
    std::fs::create_dir_all(dir)?;
    let log = log_path(dir);
    let settings = ["--commit-interval", o.commit_interval.as_str(), "--log", "warn"];
    let mut server = ChildServer::start(&dir.join("data"), Ports::free()?, &log, &settings, &[])?;
    let outcome = (|| {
        let client = server.client(LIMIT)?;
        let columns = if long { events::LONG_COLUMNS } else { events::SHORT_COLUMNS };
        client.run(&format!(
            "SET read_mode = committed;
             CREATE CONNECTION k TO KAFKA WITH (brokers = '{brokers}');
             CREATE STREAM bench ({columns}) WITH (connection = 'k', topic = '{TOPIC}');"
        ))?;
        let pid = server.pid().to_string();
        let (cpu, begun) = (cpu::seconds(&pid)?, Instant::now());
        client.run("CREATE STREAMING TABLE kept AS SELECT * FROM STREAM bench")?;
        wait_for("all rows to be committed", LIMIT, || {
            // Asked seldom: the questions are not what is measured.
            std::thread::sleep(Duration::from_millis(300));
            let rows: u64 = client.value("SELECT count(*) FROM kept")?.parse()?;
            Ok((rows >= o.rows).then_some(()))
        })?;
        let run = Run {
            cpu_seconds: cpu::seconds(&pid)? - cpu,
            wall_seconds: begun.elapsed().as_secs_f64(),
            peak_rss_mib: cpu::peak_rss_mib(&pid)?,
        };
        let rows: u64 = client.value("SELECT count(*) FROM kept")?.parse()?;
        ensure!(rows == o.rows, "{rows} rows of {} arrived: the run is void", o.rows);
        Ok(run)
    })();
    outcome.with_context(|| format!("end of the server's log:\n{}", tail(&log, 30)))
}
