//! From a producer's hand to an answer over the Postgres protocol: how long a record takes until a query counts it, live
//! and committed, at a steady rate; and what share of a core the server takes at that rate while nobody asks.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;
use parking_lot::Mutex;
use tidewater_tests::{ChildServer, Client, Ports, create_topic, log_path, tail, wait_for};

use crate::cpu;
use crate::events::Steady;
use crate::ingest::Broker;

#[derive(Args)]
pub struct Options {
    /// Events per second, of about 1 KB
    #[arg(long, default_value_t = 1000)]
    rate: u64,
    /// Length of each phase
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    #[arg(long, default_value_t = 4)]
    partitions: i32,
    /// Times between commits, each measured by itself
    #[arg(long, value_delimiter = ',', default_value = "2s,1s")]
    commit_intervals: Vec<String>,
    /// Pause between two questions
    #[arg(long, default_value_t = 10)]
    poll_ms: u64,
    /// A broker that runs already; else Apache Kafka from the end-to-end tests' directory, else the development broker
    #[arg(long)]
    brokers: Option<String>,
}

const TOPIC: &str = "latency";
const LIMIT: Duration = Duration::from_secs(60);

pub fn run(o: &Options) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let runtime = tokio::runtime::Runtime::new()?;
    let broker = Broker::start(o.brokers.clone(), dir.path())?;
    println!("{} events/s in {} partitions on {}", o.rate, o.partitions, broker.name());
    println!(
        "{:<10} {:<10} {:>8} {:>8} {:>8} {:>8} {:>10}",
        "commits", "read", "p50 ms", "p90 ms", "p99 ms", "max ms", "of a core"
    );
    for (n, interval) in o.commit_intervals.iter().enumerate() {
        let topic = format!("{TOPIC}{n}");
        runtime.block_on(create_topic(&broker.addr(), &topic, o.partitions))?;
        let at = dir.path().join(format!("run{n}"));
        std::fs::create_dir_all(&at)?;
        let log = log_path(&at);
        let settings = ["--commit-interval", interval.as_str(), "--log", "warn"];
        let mut server = ChildServer::start(&at.join("data"), Ports::free()?, &log, &settings, &[])?;
        measure(o, &mut server, &broker.addr(), &topic, interval)
            .with_context(|| format!("end of the server's log:\n{}", tail(&log, 30)))?;
    }
    Ok(())
}

fn measure(o: &Options, server: &mut ChildServer, brokers: &str, topic: &str, interval: &str) -> Result<()> {
    let client = server.client(LIMIT)?;
    client.run(&format!(
        "CREATE CONNECTION k TO KAFKA WITH (brokers = '{brokers}');
         CREATE STREAM s ({}) WITH (connection = 'k', topic = '{topic}');
         CREATE STREAMING TABLE kept AS SELECT * FROM STREAM s;",
        crate::events::LONG_COLUMNS
    ))?;
    let pid = server.pid().to_string();
    let stop = Arc::new(AtomicBool::new(false));
    let sent: Arc<Mutex<Vec<Instant>>> = Arc::default();
    let producing = {
        let (stop, sent) = (stop.clone(), sent.clone());
        let steady = Steady::new(brokers, topic, o.partitions, o.rate)?;
        std::thread::spawn(move || steady.run(&stop, |at| sent.lock().push(at)))
    };
    let outcome = (|| {
        wait_for("the first commit", LIMIT, || {
            let rows: u64 = client.value("SELECT count(*) FROM \"kept$committed\"")?.parse()?;
            Ok((rows > 0).then_some(()))
        })?;
        let phase = Duration::from_secs(o.seconds);
        let (cpu, begun) = (cpu::seconds(&pid)?, Instant::now());
        std::thread::sleep(phase);
        let share = (cpu::seconds(&pid)? - cpu) / begun.elapsed().as_secs_f64();
        println!("{interval:<10} {:<10} {:>8} {:>8} {:>8} {:>8} {share:>10.2}", "(nobody)", "", "", "", "");
        for mode in ["live", "committed"] {
            let (cpu, begun) = (cpu::seconds(&pid)?, Instant::now());
            let mut took = poll(o, &client, mode, phase, &sent)?;
            let share = (cpu::seconds(&pid)? - cpu) / begun.elapsed().as_secs_f64();
            took.sort_unstable();
            let at = |q: f64| took[((took.len() - 1) as f64 * q) as usize].as_secs_f64() * 1000.0;
            println!(
                "{interval:<10} {mode:<10} {:>8.0} {:>8.0} {:>8.0} {:>8.0} {share:>10.2}",
                at(0.5),
                at(0.9),
                at(0.99),
                at(1.0)
            );
        }
        Ok(())
    })();
    stop.store(true, Ordering::SeqCst);
    producing.join().map_err(|_| anyhow::anyhow!("the producer panicked"))??;
    outcome
}

/// Asks for the count again and again. A row is visible when the count says that as many rows are there as had been
/// sent with it: with several partitions that is never too early.
fn poll(
    o: &Options,
    client: &Client,
    mode: &str,
    phase: Duration,
    sent: &Mutex<Vec<Instant>>,
) -> Result<Vec<Duration>> {
    let question = format!("SELECT count(*) FROM \"kept${mode}\"");
    let ask = || -> Result<usize> { Ok(client.value(&question)?.parse()?) };
    // What was there before says nothing.
    let mut seen = ask()?;
    let until = Instant::now() + phase;
    let mut took = Vec::new();
    while Instant::now() < until {
        let now_seen = ask()?;
        let now = Instant::now();
        let sent = sent.lock();
        ensure!(now_seen >= seen && now_seen <= sent.len(), "{now_seen} rows after {seen}, {} sent", sent.len());
        took.extend(sent[seen..now_seen].iter().map(|at| now - *at));
        seen = now_seen;
        drop(sent);
        std::thread::sleep(Duration::from_millis(o.poll_ms));
    }
    ensure!(!took.is_empty(), "no row arrived");
    Ok(took)
}
