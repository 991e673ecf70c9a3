//! Peak memory of the server while a flow catches up on a large backlog, and while many clients query its table at once,
//! beside what the settings allow.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use tidewater_tests::{ChildServer, Ports, create_topic, log_path, tail, wait_for};

use crate::ingest::Broker;
use crate::{cpu, events};

#[derive(Args)]
pub struct Options {
    /// Backlog in MB of records
    #[arg(long, default_value_t = 5000)]
    backlog: u64,
    #[arg(long, default_value_t = 4)]
    partitions: i32,
    /// Queries at the same time
    #[arg(long, default_value_t = 200)]
    queries: usize,
    /// Setting flow_memory, in MiB
    #[arg(long, default_value_t = 256)]
    flow_memory: u64,
    /// Setting query_memory, in MiB
    #[arg(long, default_value_t = 512)]
    query_memory: u64,
    /// A broker that runs already
    #[arg(long)]
    brokers: Option<String>,
}

const TOPIC: &str = "backlog";
const LIMIT: Duration = Duration::from_secs(1800);
/// Each needs memory of its own: groups, a sort, distinct values.
const QUERIES: [&str; 3] = [
    "SELECT user_id, count(*) AS n FROM kept GROUP BY user_id ORDER BY n DESC LIMIT 10",
    "SELECT count(DISTINCT session_id) FROM kept",
    "SELECT event_type, count(*), max(event_time) FROM kept GROUP BY event_type ORDER BY 1",
];

pub fn run(o: &Options) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let broker = Broker::start(o.brokers.clone(), dir.path())?;
    tokio::runtime::Runtime::new()?.block_on(create_topic(&broker.addr(), TOPIC, o.partitions))?;
    let bytes = events::preload(&broker.addr(), TOPIC, o.partitions, 1000, true)?;
    let rows = o.backlog * 1_000_000 / bytes;
    events::preload(&broker.addr(), TOPIC, o.partitions, rows - 1000, true)?;
    println!("{rows} events of {bytes} bytes in {} partitions on {}", o.partitions, broker.name());

    let log = log_path(dir.path());
    let (flow_memory, query_memory) = (format!("{}MiB", o.flow_memory), format!("{}MiB", o.query_memory));
    let connections = (o.queries + 10).to_string();
    let settings = [
        ["--flow-memory", flow_memory.as_str()],
        ["--query-memory", query_memory.as_str()],
        ["--cache-memory", "64MiB"],
        ["--pg-max-connections", connections.as_str()],
    ]
    .concat();
    let mut server = ChildServer::start(&dir.path().join("data"), Ports::free()?, &log, &settings, &[])?;
    let outcome = (|| {
        let client = server.client(LIMIT)?;
        let pid = server.pid().to_string();
        let idle = cpu::peak_rss_mib(&pid)?;
        println!("{:<44} {:>9} {:>12} {:>8}", "", "peak MiB", "allowed MiB", "wall s");
        println!("{:<44} {idle:>9.0} {:>12} {:>8}", "idle", "", "");
        let begun = Instant::now();
        client.run(&format!(
            "SET read_mode = committed;
             CREATE CONNECTION k TO KAFKA WITH (brokers = '{}');
             CREATE STREAM bench ({}) WITH (connection = 'k', topic = '{TOPIC}');
             CREATE STREAMING TABLE kept AS SELECT * FROM STREAM bench",
            broker.addr(),
            events::LONG_COLUMNS
        ))?;
        let count = || -> Result<u64> { Ok(client.value("SELECT count(*) FROM kept")?.parse()?) };
        wait_for("all rows to be committed", LIMIT, || {
            std::thread::sleep(Duration::from_millis(500));
            Ok((count()? >= rows).then_some(()))
        })?;
        ensure!(count()? == rows, "{} rows of {rows} arrived: the run is void", count()?);
        let peak = cpu::peak_rss_mib(&pid)?;
        let allowed = idle + (o.flow_memory + 64) as f64;
        println!("{:<44} {peak:>9.0} {allowed:>12.0} {:>8.0}", "catching up", begun.elapsed().as_secs_f64());

        let begun = Instant::now();
        let clients = (0..o.queries).map(|_| server.client(LIMIT)).collect::<Result<Vec<_>>>()?;
        let threads: Vec<_> = clients
            .into_iter()
            .zip(QUERIES.iter().cycle())
            .map(|(client, sql)| std::thread::spawn(move || client.rows(sql).map(|rows| rows.len())))
            .collect();
        let (mut answered, mut out_of_memory) = (0, 0);
        for thread in threads {
            match thread.join() {
                Ok(Ok(_)) => answered += 1,
                Ok(Err(e)) if e.to_string().contains("53200") => out_of_memory += 1,
                Ok(Err(e)) => bail!("a query failed: {e}"),
                Err(_) => bail!("a client panicked"),
            }
        }
        let peak = cpu::peak_rss_mib(&pid)?;
        let allowed = allowed + o.query_memory as f64;
        let what = format!("{} queries: {answered} answers, {out_of_memory} 53200", o.queries);
        println!("{what:<44} {peak:>9.0} {allowed:>12.0} {:>8.0}", begun.elapsed().as_secs_f64());
        Ok(())
    })();
    outcome.with_context(|| format!("end of the server's log:\n{}", tail(&log, 30)))
}
