//! What a server goes through in a bad week: the broker goes away, the network stalls, the disk is full. Other flows
//! and queries live on meanwhile, and everything goes on by itself afterwards, with every row once.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use tidewater_devbroker::{DevBroker, DevBrokerConfig};
use tidewater_tests::{
    ChildServer, Client, EmbeddedServer, Kafka, LEDGER_COLUMNS, Ledger, Mode, Ports, RestCatalog, S3, connect,
    create_topic, log_path, tail, wait_for,
};

use crate::crash::failed;
use crate::e2e::parts;

const LIMIT: Duration = Duration::from_secs(120);

pub fn trials() -> Vec<Trial> {
    vec![
        Trial::test("faults/query_memory", || query_memory().map_err(failed)),
        Trial::test("faults/queries_wait", || queries_wait().map_err(failed)),
        Trial::test("e2e/faults_broker", || faults_broker().map_err(failed)).with_ignored_flag(true),
        Trial::test("e2e/faults_disk", || faults_disk().map_err(failed)).with_ignored_flag(true),
        Trial::test("e2e/faults_store", || faults_store().map_err(failed)).with_ignored_flag(true),
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
    let server = EmbeddedServer::start(&[("query_memory", "64MiB")])?;
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
    // Rows that are returned are kept until the commit is known: where there is no room, there is none.
    beside.run("CREATE TABLE wide AS SELECT v AS n, repeat('x', 1000) AS t FROM generate_series(1, 100000) AS g(v)")?;
    for sql in ["UPDATE wide SET n = n + 1 RETURNING t", "INSERT INTO wide SELECT n, t FROM wide RETURNING t"] {
        match beside.run(sql) {
            Ok(_) => anyhow::bail!("100 MB are returned from memory of 64 MiB: {sql}"),
            Err(e) => ensure!(e.to_string().contains("53200"), "{e}"),
        }
        ensure!(beside.value("SELECT sum(n) - count(*) FROM wide")? == "4999950000", "nothing is changed: {sql}");
    }
    Ok(())
}

/// Queries begin as there is memory for their scans. One that waits can be cancelled, small ones do not wait, and a client
/// that fetches nothing more is not waited for.
fn queries_wait() -> Result<()> {
    const MANY: usize = 40;
    let server = EmbeddedServer::start(&[("query_memory", "8MiB")])?;
    let client = Client::connect(server.pg_addr())?;
    client.run(
        "CREATE TABLE wide AS SELECT v AS n, md5(v::text) AS t FROM generate_series(1, 200000) AS g(v);
         CREATE TABLE small AS SELECT 1 AS n",
    )?;
    let large = "SELECT count(*) FROM wide WHERE t > '8'";
    let answer = client.value(large)?;
    let threads = (0..MANY).map(|_| Client::connect(server.pg_addr())).collect::<Result<Vec<_>>>()?;
    let threads: Vec<_> = threads.into_iter().map(|c| std::thread::spawn(move || c.value(large))).collect();
    for thread in threads {
        ensure!(thread.join().unwrap()? == answer);
    }

    let runtime = tokio::runtime::Runtime::new()?;
    let mut holder = runtime.block_on(connect(server.pg_addr()))?;
    let block = runtime.block_on(holder.transaction())?;
    let portal = runtime.block_on(block.bind("SELECT t FROM wide", &[]))?;
    ensure!(runtime.block_on(block.query_portal(&portal, 1))?.len() == 1);
    client.run("SET statement_timeout = '300ms'")?;
    match client.value(large) {
        Ok(_) => anyhow::bail!("it should wait for the portal"),
        Err(e) => ensure!(e.to_string().contains("57014"), "{e}"),
    }
    ensure!(client.value("SELECT n FROM small")? == "1", "small ones do not wait");
    client.run("SET statement_timeout = 0")?;
    ensure!(client.value(large)? == answer, "the portal's client sleeps");
    ensure!(runtime.block_on(block.query_portal(&portal, 0))?.len() == 199_999, "it goes on where it was");
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
        "CREATE SECRET bob AS 'bob-secret';
         CREATE CONNECTION k TO KAFKA WITH (brokers = '{}', security = 'sasl_plaintext',
           sasl_mechanism = 'scram-sha-256', username = 'bob', password = SECRET bob, timeout = '5 s');
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

fn faults_store() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let outcome = store_week(dir.path());
    outcome.with_context(|| format!("end of the server's log:\n{}", tail(&log_path(dir.path()), 40)))
}

const UNAVAILABLE: &str = "503 Slow Down";
const BROKEN: &str = "500 Internal Server Error";

/// The server reaches its object store and its REST catalog through proxies. One flow needs both, one only the store.
fn store_week(dir: &Path) -> Result<()> {
    let parts = parts()?;
    let mut s3 = S3::start(&parts, dir)?;
    let store = s3.behind_proxy()?;
    let mut rest = RestCatalog::start(&parts, dir, &s3)?;
    let catalog = rest.behind_proxy()?;
    let broker = DevBroker::start(DevBrokerConfig::new(dir.join("broker")))?;
    let brokers = broker.addr().to_string();
    tokio::runtime::Runtime::new()?.block_on(create_topic(&brokers, "ledger", 2))?;
    let options: Vec<String> = s3.options().iter().map(|(name, value)| format!("{name}={value}")).collect();
    let warehouse = format!("s3://{}/home", S3::BUCKET);
    let settings = ["--commit-interval", "300ms", "--warehouse", &warehouse, "--warehouse-options", &options.join(",")];
    let mut server = ChildServer::start(&dir.join("data"), Ports::free()?, &log_path(dir), &settings, &[])?;
    let client = server.client(LIMIT)?;
    client.run(&format!(
        "CREATE CATALOG team WITH ({});
         CREATE SCHEMA team.shop;
         CREATE CONNECTION k TO KAFKA WITH (brokers = '{brokers}');
         CREATE STREAM ledger ({LEDGER_COLUMNS}) WITH (connection = 'k', topic = 'ledger');
         CREATE STREAM mine ({LEDGER_COLUMNS}) WITH (connection = 'k', topic = 'ledger');
         CREATE STREAMING TABLE team.shop.shared AS
           SELECT p, n, aborted, amount, note, event_time FROM STREAM ledger;
         CREATE STREAMING TABLE own AS SELECT p, n, aborted, amount, note, event_time FROM STREAM mine;",
        rest.sql_options(&s3)
    ))?;
    let ledger = Ledger::start(&brokers, "ledger", 2, 1000, false)?;
    let committed = |flow: &str| -> Result<u64> {
        Ok(client.value(&format!("SELECT coalesce(seq, 0) FROM system.flows WHERE name LIKE '%{flow}'"))?.parse()?)
    };
    let commits = |what: &str, flow: &str| -> Result<()> {
        let now = committed(flow)?;
        wait_for(&format!("{flow} to go on {what}"), LIMIT, || Ok((committed(flow)? >= now + 3).then_some(())))
    };
    let running = |what: &str| -> Result<()> {
        wait_for(&format!("all flows to run after {what}"), LIMIT, || {
            Ok((client.value("SELECT count(*) FROM system.flows WHERE state = 'running'")? == "2").then_some(()))
        })
    };
    for flow in ["shared", "own"] {
        commits("at the start", flow)?;
    }

    // Some requests get through, so everything goes on, if slowly.
    for (what, mode) in [
        ("with a store that is busy", Mode::Refuse { one_in: 3, status: UNAVAILABLE }),
        ("with a store that has errors", Mode::Refuse { one_in: 3, status: BROKEN }),
        ("with a store whose answers are lost", Mode::LoseAnswers(10)),
    ] {
        store.set(mode);
        store.cut();
        for flow in ["shared", "own"] {
            commits(what, flow)?;
        }
    }
    store.set(Mode::Pass);
    store.cut();
    for (what, mode) in [
        ("with a catalog that is busy", Mode::Refuse { one_in: 2, status: UNAVAILABLE }),
        ("with a catalog that has errors", Mode::Refuse { one_in: 2, status: BROKEN }),
        ("with a catalog whose answers are lost", Mode::LoseAnswers(3)),
    ] {
        catalog.set(mode);
        catalog.cut();
        for flow in ["own", "shared"] {
            commits(what, flow)?;
        }
    }

    // Nothing gets through: who needs it waits and says so, and the others live on.
    catalog.set(Mode::HangUp);
    catalog.cut();
    let told = "SELECT state FROM system.flows WHERE name LIKE '%shared'";
    wait_for("the flow to notice that its catalog is gone", LIMIT, || {
        Ok((client.value(told)? != "running").then_some(()))
    })?;
    commits("without the other's catalog", "own")?;
    let refused = client.value("SELECT count(*) FROM team.shop.shared");
    ensure!(refused.is_err(), "a table was read without its catalog: {refused:?}");
    catalog.set(Mode::Pass);
    commits("when the catalog is back", "shared")?;
    running("the catalog's return")?;
    store.set(Mode::Refuse { one_in: 1, status: UNAVAILABLE });
    store.cut();
    wait_for("the flow to notice that its store is gone", LIMIT, || {
        Ok((client.value(told)? != "running").then_some(()))
    })?;
    for _ in 0..10 {
        ensure!(client.value("SELECT count(*) FROM generate_series(1, 10)")? == "10", "the store is away");
        std::thread::sleep(Duration::from_millis(200));
    }
    store.set(Mode::Pass);
    for flow in ["shared", "own"] {
        commits("when the store is back", flow)?;
    }
    running("the store's return")?;

    // Others commit to the same table as fast as they can, and each of their commits makes one of the flow's a 409.
    let stop = std::sync::atomic::AtomicBool::new(false);
    let others = [server.client(LIMIT)?, server.client(LIMIT)?];
    let foreign = std::thread::scope(|scope| -> Result<usize> {
        let stop = &stop;
        let writer = move |client: Client| -> Result<usize> {
            let mut inserted = 0;
            while !stop.load(std::sync::atomic::Ordering::SeqCst) {
                client.run("INSERT INTO team.shop.shared (p, n, aborted) VALUES (-1, 0, false)")?;
                inserted += 1;
            }
            Ok(inserted)
        };
        let writers = others.map(|client| scope.spawn(move || writer(client)));
        let went_on = commits("among others' commits", "shared").and_then(|()| commits("among more of them", "shared"));
        stop.store(true, std::sync::atomic::Ordering::SeqCst);
        let mut all = 0;
        for writer in writers {
            all += writer.join().unwrap()?;
        }
        went_on.map(|()| all)
    })?;
    let of_others = client.value("SELECT count(*) FROM \"team\".shop.\"shared$committed\" WHERE p = -1")?;
    ensure!(foreign > 4 && of_others == foreign.to_string(), "{of_others} rows of {foreign} inserted by others");

    let check = ledger.stop()?;
    check.verify(&client, "(SELECT * FROM team.shop.shared WHERE p >= 0) AS shared", "system.dlq.ledger", LIMIT)?;
    check.verify(&client, "own", "system.dlq.mine", LIMIT)?;
    server.kill()?;
    let mut server = ChildServer::start(&dir.join("data"), Ports::free()?, &log_path(dir), &settings, &[])?;
    check.verify(&server.client(LIMIT)?, "own", "system.dlq.mine", LIMIT)
}
