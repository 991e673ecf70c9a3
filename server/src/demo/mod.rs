//! The demo: a development broker, a stream of shop events, and the statements of `demo.sql`.
//!
//! ```text
//!   shop ─► generator ─► development broker ─► flows of demo.sql ─► Iceberg tables
//!                              └──── progress: one live line ────┘
//! ```

mod generator;
mod progress;
mod script;
mod shop;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result};
use tidewater_devbroker::{DevBroker, DevBrokerConfig, TopicOptions};
use tidewater_sql::Engine;
use tokio_util::sync::CancellationToken;

use generator::Generator;
use progress::Progress;
use shop::{Shop, Topic};

/// What the command line says.
#[derive(Debug, Clone)]
pub struct DemoOptions {
    /// Events per second.
    pub rate: u64,
    pub broker_listen: SocketAddr,
}

/// What the process hands in.
pub struct DemoContext {
    pub data_dir: PathBuf,
    pub engine: Arc<Engine>,
    pub pg_addr: SocketAddr,
    /// Outlives the server's flows, which read it until they have committed.
    pub broker: Arc<DevBroker>,
    pub rate: u64,
    pub shutdown: CancellationToken,
}

/// Runs until `shutdown`, or until something fails. Dropping it ends the events and the line.
pub async fn run(context: DemoContext) -> Result<()> {
    let broker = Arc::clone(&context.broker);
    let before = events(&broker);
    let generator = Generator::start(&broker.addr().to_string(), context.rate, go_on(&broker))?;
    let script = script::copy(&context.data_dir, broker.addr())?;
    script::run(&context.engine, &script, broker.addr()).await?;
    welcome(&context, broker.addr(), &script);

    let mut progress = Progress::new(Instant::now(), before);
    loop {
        tokio::select! {
            () = context.shutdown.cancelled() => return Ok(()),
            () = tokio::time::sleep(progress.interval()) => {}
        }
        let flows = context.engine.supervisor().statuses();
        let now_ms = chrono::Utc::now().timestamp_millis();
        progress.show(Instant::now(), now_ms, events(&broker), generator.failed(), &flows);
    }
}

/// The broker with the demo's topics. It runs before the server does, so that flows of an earlier run find it.
pub fn start_broker(data_dir: &Path, options: &DemoOptions) -> Result<Arc<DevBroker>> {
    let mut config = DevBrokerConfig::new(data_dir.join("broker"));
    config.listen = options.broker_listen;
    let broker = DevBroker::start(config).context("choose another address with --broker-listen if it is taken")?;
    for topic in Topic::ALL.into_iter().filter(|t| !broker.has_topic(t.name())) {
        broker
            .create_topic(topic.name(), topic.partitions(), TopicOptions::default())
            .with_context(|| format!("topic \"{}\" cannot be made", topic.name()))?;
    }
    Ok(Arc::new(broker))
}

/// Every record in a topic was one event, so that the ends of the topics say where the shop stands.
fn go_on(broker: &DevBroker) -> Shop {
    let count = |topic: Topic| broker.next_offsets(topic.name()).unsigned_abs();
    Shop { customers: count(Topic::Customers), orders: count(Topic::Orders), clicks: count(Topic::Clicks) }
}

fn events(broker: &DevBroker) -> u64 {
    Topic::ALL.into_iter().map(|t| broker.next_offsets(t.name()).unsigned_abs()).sum()
}

fn welcome(context: &DemoContext, broker: SocketAddr, script: &Path) {
    let (host, port) = (context.pg_addr.ip(), context.pg_addr.port());
    println!(
        "\
The demo runs. Ctrl-C ends it; started again it goes on where it was.

  data        {data}
  statements  {script}
  broker      {broker}   kcat -b {broker} -C -t orders -o -3 -e

Connect with

  psql -h {host} -p {port} -U tidewater lake

and try

  SELECT section, count(*), avg(duration_ms)::int AS ms FROM clicks_clean GROUP BY section ORDER BY 2 DESC;
  SELECT sku, sum(quantity) AS sold, sum(amount) AS revenue FROM order_items GROUP BY sku ORDER BY revenue DESC LIMIT 5;
  SELECT flow, _partition, _offset, error FROM system.dlq.clicks ORDER BY _timestamp DESC LIMIT 5;
",
        data = context.data_dir.display(),
        script = script.display(),
    );
}
