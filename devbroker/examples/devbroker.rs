//! The broker alone, to try clients against it: `cargo run --example devbroker -- DIRECTORY [ADDRESS [TOPIC:PARTITIONS …]]`.

use std::io::Read;

use tidewater_devbroker::{DevBroker, DevBrokerConfig, TopicOptions};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::fmt().with_env_filter(tracing_subscriber::EnvFilter::from_default_env()).init();
    let mut args = std::env::args().skip(1);
    let mut config = DevBrokerConfig::new(args.next().ok_or("which directory?")?);
    config.listen = args.next().unwrap_or("127.0.0.1:9092".into()).parse()?;
    let broker = DevBroker::start(config)?;
    for arg in args {
        let (name, partitions) = arg.split_once(':').unwrap_or((&arg, "1"));
        if !broker.has_topic(name) {
            broker.create_topic(name, partitions.parse()?, TopicOptions::default())?;
        }
    }
    println!("listening on {}; ends with its standard input", broker.addr());
    std::io::stdin().read_to_end(&mut Vec::new())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(broker.shutdown());
    Ok(())
}
