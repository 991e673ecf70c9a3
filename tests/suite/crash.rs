//! A server killed with SIGKILL again and again under load, then compared with the ledger.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use libtest_mimic::{Failed, Trial};
use rand::Rng;
use tidewater_devbroker::{DevBroker, DevBrokerConfig};
use tidewater_tests::{ChildServer, Client, LEDGER_COLUMNS, Ledger, LedgerCheck, Ports, log_path, tail};

const LIMIT: Duration = Duration::from_secs(60);

pub fn trials() -> Vec<Trial> {
    vec![
        Trial::test("crash/kill_under_load", || kill_under_load(6).map_err(failed)),
        Trial::test("crash/graceful_stop_commits", || graceful_stop_commits().map_err(failed)),
        Trial::test("crash/replay_killed_at_each_step", || replay_killed_at_each_step().map_err(failed)),
        Trial::test("crash/one_server_per_directory", || one_server_per_directory().map_err(failed)),
    ]
}

/// With every cause: the outermost context alone says little.
pub fn failed(e: anyhow::Error) -> Failed {
    Failed::from(format!("{e:#}"))
}

/// What one round of killing works on.
pub struct Scene<'a> {
    pub dir: &'a Path,
    /// More settings of the server, and where the streaming table goes.
    pub settings: Vec<String>,
    pub before: String,
    pub table: &'a str,
    pub brokers: String,
    pub partitions: usize,
    pub rate: u64,
    pub transactions: bool,
    pub kills: usize,
    /// Points of the commit path at which the process ends itself, tried one after the other between random kills.
    pub failpoints: &'a [&'a str],
}

impl Scene<'_> {
    fn start(&self, ports: Ports, env: &[(&str, &str)]) -> Result<ChildServer> {
        let settings: Vec<&str> =
            ["--commit-interval", "300ms"].into_iter().chain(self.settings.iter().map(String::as_str)).collect();
        ChildServer::start(&self.dir.join("data"), ports, &log_path(self.dir), &settings, env)
    }

    pub fn define(&self, client: &Client) -> Result<()> {
        client.run(&format!(
            "{}
             CREATE CONNECTION IF NOT EXISTS k TO KAFKA WITH (brokers = '{}');
             CREATE STREAM IF NOT EXISTS ledger ({LEDGER_COLUMNS}) WITH (connection = 'k', topic = 'ledger');
             CREATE STREAMING TABLE IF NOT EXISTS {} PARTITIONED BY (days(event_time))
               TBLPROPERTIES ('write.metadata.compression-codec' = 'gzip') AS
               SELECT p, n, aborted, amount, note, event_time, _partition AS kafka_partition, _offset AS kafka_offset
               FROM STREAM ledger;",
            self.before, self.brokers, self.table
        ))?;
        Ok(())
    }

    /// Produces, kills and restarts; returns what the table must hold, and a client to ask.
    pub fn run(&self) -> Result<(ChildServer, Client, LedgerCheck)> {
        let ports = Ports::free()?;
        let mut server = self.start(ports, &[])?;
        self.define(&server.client(LIMIT)?)?;
        let ledger = Ledger::start(&self.brokers, "ledger", self.partitions, self.rate, self.transactions)?;
        for kill in 0..self.kills {
            std::thread::sleep(Duration::from_millis(rand::rng().random_range(50..1500)));
            server.kill()?;
            server = self.start(ports, &[])?;
            if kill % 2 == 0 {
                server.client(LIMIT).with_context(|| format!("after kill {kill}"))?;
            }
        }
        for failpoint in self.failpoints {
            server.kill()?;
            server = self.start(ports, &[("TIDEWATER_FAILPOINT", failpoint)])?;
            let waited = tidewater_tests::wait_for(&format!("the server to end itself at {failpoint}"), LIMIT, || {
                anyhow::ensure!(ledger.is_alive(), "the producer ended");
                Ok(server.has_ended().then_some(()))
            });
            if let Err(e) = waited {
                let produced = ledger.produced();
                let producer = ledger.stop().map_or_else(|e| format!("{e:#}"), |_| "well".to_owned());
                return Err(e.context(format!("{produced} rows produced; the producer is {producer}")));
            }
            server = self.start(ports, &[])?;
        }
        let check = ledger.stop()?;
        let client = server.client(LIMIT)?;
        anyhow::ensure!(check.total() > 0 && check.poisoned() > 0, "the ledger is empty: {check:?}");
        Ok((server, client, check))
    }
}

fn kill_under_load(kills: usize) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let broker = start_broker(dir.path(), 3)?;
    let scene = Scene {
        dir: dir.path(),
        settings: Vec::new(),
        before: String::new(),
        table: "kept",
        brokers: broker.addr().to_string(),
        partitions: 3,
        rate: 3000,
        transactions: false,
        kills,
        failpoints: &[],
    };
    let outcome =
        scene.run().and_then(|(_server, client, check)| check.verify(&client, "kept", "system.dlq.ledger", LIMIT));
    outcome.with_context(|| format!("end of the server's log:\n{}", tail(&log_path(dir.path()), 40)))
}

/// SIGTERM seals and commits: nothing that was read is read again.
fn graceful_stop_commits() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let broker = start_broker(dir.path(), 2)?;
    let scene = Scene {
        dir: dir.path(),
        settings: Vec::new(),
        before: String::new(),
        table: "kept",
        brokers: broker.addr().to_string(),
        partitions: 2,
        rate: 2000,
        transactions: false,
        kills: 0,
        failpoints: &[],
    };
    let outcome = (|| {
        let ports = Ports::free()?;
        let mut server = scene.start(ports, &[])?;
        scene.define(&server.client(LIMIT)?)?;
        let ledger = Ledger::start(&scene.brokers, "ledger", 2, 2000, false)?;
        std::thread::sleep(Duration::from_secs(1));
        server.terminate(LIMIT)?;
        let check = ledger.stop()?;
        let mut server = scene.start(ports, &[])?;
        let client = server.client(LIMIT)?;
        check.verify(&client, "kept", "system.dlq.ledger", LIMIT)
    })();
    outcome.with_context(|| format!("end of the server's log:\n{}", tail(&log_path(dir.path()), 40)))
}

/// The server ends itself in the middle of REPLAY DLQ, at one step of its commit after the other. Letters of each round
/// are rows once, whether the client asks again or not.
fn replay_killed_at_each_step() -> Result<()> {
    const STEPS: [&str; 6] =
        ["cut.before", "seal.after", "checkpoint.after", "commit.before", "commit.sent", "commit.after"];
    const LETTERS: usize = 120;
    let dir = tempfile::tempdir()?;
    let broker = start_broker(dir.path(), 1)?;
    let ports = Ports::free()?;
    let start = |env: &[(&str, &str)]| {
        ChildServer::start(&dir.path().join("data"), ports, &log_path(dir.path()), &["--commit-interval", "200ms"], env)
    };
    let outcome = (|| {
        let mut server = start(&[])?;
        let client = server.client(LIMIT)?;
        let stream = |tag: &str| {
            format!(
                "CREATE OR REPLACE STREAM narrow (n BIGINT NOT NULL, tag {tag}) WITH (connection = 'k', topic = 'ledger')"
            )
        };
        client.run(&format!(
            "CREATE CONNECTION k TO KAFKA WITH (brokers = '{}');
             CREATE STREAM raw (value TEXT) WITH (connection = 'k', topic = 'ledger', format = 'text');
             INSERT INTO raw SELECT '{{\"n\":' || n || ',\"tag\":\"x\"}}' FROM generate_series(0, {}) AS t(n);
             {};
             CREATE STREAMING TABLE kept AS SELECT n FROM STREAM narrow;",
            broker.addr(),
            LETTERS - 1,
            stream("INT")
        ))?;
        let count =
            |client: &Client, what: &str| -> Result<usize> { Ok(client.value(&format!("SELECT {what}"))?.parse()?) };
        tidewater_tests::wait_for("dead letters", LIMIT, || {
            Ok((count(&client, "count(*) FROM system.dlq.narrow")? == LETTERS).then_some(()))
        })?;
        client.run(&stream("TEXT"))?;
        for (round, step) in STEPS.iter().enumerate() {
            server.kill()?;
            server = start(&[("TIDEWATER_FAILPOINT", step)])?;
            let replay = format!("REPLAY DLQ narrow WHERE _offset % {} = {round}", STEPS.len());
            let answer = server.client(LIMIT)?.run(&replay);
            anyhow::ensure!(answer.is_err(), "the server was to end at {step}");
            tidewater_tests::wait_for("the server to end itself", LIMIT, || Ok(server.has_ended().then_some(())))?;
            server = start(&[])?;
            let client = server.client(LIMIT)?;
            client.run("SET read_mode = committed")?;
            let expected = LETTERS / STEPS.len() * (round + 1);
            if round % 2 == 0 {
                // Nobody asks again: what was asked is done all the same.
                tidewater_tests::wait_for(&format!("rows after {step}"), LIMIT, || {
                    Ok((count(&client, "count(*) FROM kept")? >= expected).then_some(()))
                })?;
            }
            client.run(&replay)?;
            let (rows, distinct) =
                (count(&client, "count(*) FROM kept")?, count(&client, "count(DISTINCT n) FROM kept")?);
            anyhow::ensure!(
                (rows, distinct) == (expected, expected),
                "{rows} rows, {distinct} of {expected}, after {step}"
            );
        }
        let letters = count(&server.client(LIMIT)?, "count(*) FROM system.dlq.narrow")?;
        anyhow::ensure!(letters == LETTERS, "{letters} dead letters of {LETTERS}");
        Ok(())
    })();
    outcome.with_context(|| format!("end of the server's log:\n{}", tail(&log_path(dir.path()), 40)))
}

/// A second server on the same directory ends at once and says why; the lock of one that was killed is free.
fn one_server_per_directory() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let data = dir.path().join("data");
    let (first_log, second_log) = (dir.path().join("first.log"), dir.path().join("second.log"));
    let mut first = ChildServer::start(&data, Ports::free()?, &first_log, &[], &[])?;
    first.client(LIMIT)?.run("CREATE TABLE t (a BIGINT)")?;
    let mut second = ChildServer::start(&data, Ports::free()?, &second_log, &[], &[])?;
    tidewater_tests::wait_for("the second server to end", LIMIT, || Ok(second.has_ended().then_some(())))?;
    let said = tail(&second_log, 5);
    let names_it = said.contains("uses the data directory") && said.contains(data.to_str().context("not UTF-8")?);
    anyhow::ensure!(names_it, "it said: {said}");
    first.client(LIMIT)?.run("SELECT * FROM t")?;
    first.kill()?;
    let mut third = ChildServer::start(&data, Ports::free()?, &first_log, &[], &[])?;
    third.client(LIMIT)?.run("SELECT * FROM t")?;
    // What would be ignored is refused.
    let env = [("TIDEWATER_COMMIT_INTERVALL", "1s")];
    let mut wrong = ChildServer::start(&dir.path().join("other"), Ports::free()?, &second_log, &[], &env)?;
    tidewater_tests::wait_for("the misconfigured server to end", LIMIT, || Ok(wrong.has_ended().then_some(())))?;
    let said = tail(&second_log, 5);
    anyhow::ensure!(said.contains("did you mean TIDEWATER_COMMIT_INTERVAL?"), "it said: {said}");
    Ok(())
}

fn start_broker(dir: &Path, partitions: i32) -> Result<DevBroker> {
    let broker = DevBroker::start(DevBrokerConfig::new(dir.join("broker")))?;
    let brokers = broker.addr().to_string();
    tokio::runtime::Runtime::new()?.block_on(tidewater_tests::create_topic(&brokers, "ledger", partitions))?;
    Ok(broker)
}
