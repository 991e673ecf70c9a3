//! What a server goes through in a bad week: the broker goes away, the network stalls, the disk is full. Other flows
//! and queries live on meanwhile, and everything goes on by itself afterwards, with every row once.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use tidewater_devbroker::{DevBroker, DevBrokerConfig};
use tidewater_tests::{
    ChildServer, Client, EmbeddedServer, Kafka, LEDGER_COLUMNS, Ledger, Mode, Ports, create_topic, log_path, tail,
    wait_for,
};

use crate::crash::failed;
use crate::e2e::parts;

const LIMIT: Duration = Duration::from_secs(120);

pub fn trials() -> Vec<Trial> {
    vec![
        Trial::test("faults/query_memory", || query_memory().map_err(failed)),
        Trial::test("e2e/faults_broker", || faults_broker().map_err(failed)).with_ignored_flag(true),
        Trial::test("e2e/faults_disk", || faults_disk().map_err(failed)).with_ignored_flag(true),
    ]
}

fn state(client: &Client) -> Result<String> {
    client.value("SELECT state FROM system.flows WHERE name LIKE '%kept'")
}

fn rows(client: &Client) -> Result<u64> {
    Ok(client.value("SELECT count(*) FROM \"kept$committed\"")?.parse()?)
}

/// The flow commits again: it has `more` rows than now before long.
fn goes_on(client: &Client, what: &str, more: u64) -> Result<()> {
    let now = rows(client)?;
    wait_for(&format!("the flow to go on after {what}"), LIMIT, || Ok((rows(client)? >= now + more).then_some(())))?;
    let state = wait_for("the flow to say that it runs", LIMIT, || Ok(Some(state(client)?).filter(|s| s == "running")));
    state.with_context(|| format!("after {what}")).map(drop)
}

/// A query beyond the limit spills or fails with 53200; others, and flows, do not notice.
fn query_memory() -> Result<()> {
    let server = EmbeddedServer::start(&[("query_memory", "32MiB")])?;
    let client = Client::connect(server.pg_addr())?;
    let distinct = "SELECT count(*) FROM (SELECT DISTINCT a * 2000 + b AS v \
                    FROM generate_series(1, 2000) a, generate_series(1, 1500) b) d";
    ensure!(client.value(distinct)? == "3000000", "it should spill");
    let arrays = "SELECT length(string_agg(repeat('x', 1000), '')) FROM generate_series(1, 200000)";
    match client.value(arrays) {
        Ok(n) => ensure!(n == "200000000", "{n}"),
        Err(e) => ensure!(e.to_string().contains("53200"), "{e}"),
    }
    let beside = Client::connect(server.pg_addr())?;
    let busy = std::thread::spawn(move || client.value(distinct));
    for _ in 0..20 {
        ensure!(beside.value("SELECT count(*) FROM generate_series(1, 1000)")? == "1000");
    }
    ensure!(busy.join().unwrap()? == "3000000");
    Ok(())
}

fn faults_broker() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let outcome = broker_week(dir.path());
    outcome.with_context(|| format!("end of the server's log:\n{}", tail(&log_path(dir.path()), 40)))
}

/// The server reaches the broker through a proxy, the producer does not.
fn broker_week(dir: &Path) -> Result<()> {
    let (mut kafka, proxy) = Kafka::start_behind_proxy(&parts()?.join("kafka"), &dir.join("kafka"))?;
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(create_topic(&kafka.brokers(), "ledger", 3))?;
    let settings = ["--commit-interval", "300ms"];
    let mut server = ChildServer::start(&dir.join("data"), Ports::free()?, &log_path(dir), &settings, &[])?;
    let client = server.client(LIMIT)?;
    client.run("CREATE TABLE beside (a INT); INSERT INTO beside VALUES (1), (2)")?;
    client.run(&format!(
        "CREATE CONNECTION k TO KAFKA WITH (brokers = '{}', security = 'sasl_plaintext',
           sasl_mechanism = 'scram-sha-256', username = 'bob', password = 'bob-secret', timeout = '5 s');
         CREATE STREAM ledger ({LEDGER_COLUMNS}) WITH (connection = 'k', topic = 'ledger');
         CREATE STREAMING TABLE kept AS SELECT p, n, aborted, amount, note, event_time FROM STREAM ledger;",
        proxy.addr()
    ))?;
    let ledger = Ledger::start(&kafka.brokers(), "ledger", 3, 1500, false)?;
    goes_on(&client, "the start", 100)?;

    for (what, mode) in [
        ("a network that loses everything", Mode::Silent),
        ("a broker that hangs up", Mode::HangUp),
        ("a slow broker", Mode::Slow(Duration::from_millis(300))),
    ] {
        proxy.set(mode);
        if mode == Mode::HangUp {
            proxy.cut();
        }
        for _ in 0..16 {
            // Queries that need no broker answer.
            ensure!(client.value("SELECT count(*) FROM beside")? == "2", "{what}");
            rows(&client).with_context(|| format!("with {what}"))?;
            std::thread::sleep(Duration::from_millis(500));
        }
        let told = state(&client)?;
        ensure!(["running", "retrying", "restarting"].contains(&told.as_str()), "with {what} the flow is {told}");
        proxy.set(Mode::Pass);
        goes_on(&client, what, 500)?;
    }
    for _ in 0..10 {
        proxy.cut();
        std::thread::sleep(Duration::from_millis(300));
    }
    goes_on(&client, "cut connections", 500)?;

    kafka.stop();
    wait_for("the flow to notice that its broker is gone", LIMIT, || Ok((state(&client)? != "running").then_some(())))?;
    ensure!(client.value("SELECT count(*) FROM beside")? == "2", "the broker is down");
    kafka.resume()?;
    goes_on(&client, "a restart of the broker", 500)?;

    let check = ledger.stop()?;
    check.verify(&client, "kept", "system.dlq.ledger", LIMIT)
}

fn faults_disk() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let small = dir.path().join("small");
    std::fs::create_dir(&small)?;
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=64m", "tmpfs"]).arg(&small).status()?;
    ensure!(mounted.success(), "this test mounts a small file system: run it as root");
    let outcome = disk_week(dir.path(), &small)
        .with_context(|| format!("end of the server's log:\n{}", tail(&log_path(dir.path()), 40)));
    let _ = Command::new("umount").arg("--lazy").arg(&small).status();
    outcome
}

/// Data directory and warehouse on a disk that fills up, and is then given room.
fn disk_week(dir: &Path, small: &Path) -> Result<()> {
    let ballast = small.join("ballast");
    std::fs::write(&ballast, vec![1; 40 << 20])?;
    let broker = DevBroker::start(DevBrokerConfig::new(dir.join("broker")))?;
    let brokers = broker.addr().to_string();
    tokio::runtime::Runtime::new()?.block_on(create_topic(&brokers, "ledger", 2))?;
    let settings = ["--commit-interval", "300ms"];
    let mut server = ChildServer::start(&small.join("data"), Ports::free()?, &log_path(dir), &settings, &[])?;
    let client = server.client(LIMIT)?;
    client.run(&format!(
        "CREATE CONNECTION k TO KAFKA WITH (brokers = '{brokers}');
         CREATE STREAM ledger ({LEDGER_COLUMNS}) WITH (connection = 'k', topic = 'ledger');
         CREATE STREAMING TABLE kept AS SELECT p, n, aborted, amount, note, event_time FROM STREAM ledger;"
    ))?;
    let ledger = Ledger::start(&brokers, "ledger", 2, 3000, false)?;
    goes_on(&client, "the start", 100)?;
    // The rest of the disk, to the last block.
    let filler = small.join("filler");
    let mut file = std::fs::File::create(&filler)?;
    while std::io::Write::write_all(&mut file, &[2; 4096]).is_ok() {}
    drop(file);
    wait_for("the flow to notice that the disk is full", LIMIT, || Ok((state(&client)? != "running").then_some(())))?;
    for _ in 0..10 {
        ensure!(client.value("SELECT count(*) FROM generate_series(1, 10)")? == "10", "the disk is full");
        rows(&client).context("the disk is full")?;
        std::thread::sleep(Duration::from_millis(500));
    }
    let refused =
        client.run("CREATE TABLE more AS SELECT value, repeat('x', 1000) AS x FROM generate_series(1, 100000)");
    ensure!(refused.is_err(), "a table was written to a full disk");
    std::fs::remove_file(&filler)?;
    std::fs::remove_file(&ballast)?;
    goes_on(&client, "a full disk", 500)?;
    let check = ledger.stop()?;
    check.verify(&client, "kept", "system.dlq.ledger", LIMIT)?;
    // And after a restart, as what is on the disk is what counts.
    server.kill()?;
    let mut server = ChildServer::start(&small.join("data"), Ports::free()?, &log_path(dir), &settings, &[])?;
    check.verify(&server.client(LIMIT)?, "kept", "system.dlq.ledger", LIMIT)
}
