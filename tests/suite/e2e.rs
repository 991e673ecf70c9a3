//! End to end with real parts: Apache Kafka produces, PyIceberg and DuckDB read back.
//!
//! `cargo xtask e2e` fetches the parts and runs these; without it they are ignored.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use serde_json::{Value, json};
use tidewater_tests::{EmbeddedServer, Kafka, LedgerCheck, create_topic, log_path, tail};

use crate::crash::{Scene, failed};

const LIMIT: Duration = Duration::from_secs(120);

pub fn trials() -> Vec<Trial> {
    let e2e = |name: &str, run: fn() -> Result<()>| {
        Trial::test(format!("e2e/{name}"), move || run().map_err(failed)).with_ignored_flag(true)
    };
    vec![
        e2e("killed_under_load_with_kafka", killed_under_load),
        e2e("kafka_connector", kafka_connector),
        e2e("flight_python", flight_python),
        e2e("flight_jdbc", flight_jdbc),
    ]
}

/// The connector's own tests, against the real broker: isolation, control records, retention, topic ids, sign-in.
fn kafka_connector() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let kafka = Kafka::start(&parts()?.join("kafka"), dir.path())?;
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // As `cargo xtask` does, so that nothing is compiled again.
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|n| n.starts_with("CARGO_PKG_") || n.starts_with("CARGO_MANIFEST_")) {
            cargo.env_remove(name);
        }
    }
    let output = cargo
        .args(["test", "--release", "--package", "tidewater-catalogs-kafka", "--lib", "broker_tests", "--"])
        .args(["--ignored", "--skip", "measure", "--test-threads=1"])
        .env("TIDEWATER_TEST_KAFKA", kafka.brokers())
        .env("TIDEWATER_TEST_KAFKA_SASL", kafka.sasl_brokers())
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    ensure!(text.contains("test result: ok. 8 passed"), "another number of tests than expected ran:\n{text}");
    Ok(())
}

/// The Python of the guide, as it stands there, block after block against one server.
fn flight_python() -> Result<()> {
    let server = EmbeddedServer::start(&[])?;
    let guide = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/guide/flight-sql.md");
    let blocks = crate::documents::blocks(&guide, "python");
    ensure!(!blocks.is_empty(), "there is no Python in {}", guide.display());
    for block in blocks {
        let script = block.replace("localhost:32010", &server.flight_addr().to_string());
        let output = Command::new(parts()?.join("python/bin/python")).args(["-c", &script]).output()?;
        ensure!(output.status.success(), "{}\nin:\n{script}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

fn flight_jdbc() -> Result<()> {
    let server = EmbeddedServer::start(&[])?;
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("e2e/FlightJdbc.java");
    let jar = parts()?.join("flight-jdbc/flight-sql-jdbc-driver.jar");
    // The driver hangs where it may not reach into java.nio, so it gets a limit.
    let output = Command::new("timeout")
        .args(["120", "java", "--add-opens=java.base/java.nio=ALL-UNNAMED", "-cp"])
        .args([&jar, &source])
        .arg(server.flight_addr().to_string())
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(
        output.status.success() && text.trim_end().ends_with("ok"),
        "{text}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

/// Where `cargo xtask e2e` put the parts.
pub fn parts() -> Result<PathBuf> {
    let dir = std::env::var_os("TIDEWATER_E2E_DIR").context("run these tests with `cargo xtask e2e`")?;
    Ok(PathBuf::from(dir))
}

/// The ledger on a real broker, with transactions of which some are aborted; the server is killed at random moments
/// and at every named point of the commit path; then three readers count.
fn killed_under_load() -> Result<()> {
    let parts = parts()?;
    let dir = tempfile::tempdir()?;
    let kafka = Kafka::start(&parts.join("kafka"), &dir.path().join("kafka"))?;
    tokio::runtime::Runtime::new()?.block_on(create_topic(&kafka.brokers(), "ledger", 4))?;
    let scene = Scene {
        dir: dir.path(),
        brokers: kafka.brokers(),
        partitions: 4,
        rate: 4000,
        transactions: true,
        kills: 20,
        failpoints: tidewater_streaming::FAILPOINTS,
    };
    let outcome = scene.run().and_then(|(server, client, check)| {
        check.verify(&client, "kept", "system.dlq.ledger", LIMIT)?;
        drop(server);
        println!(
            "{} rows and {} dead letters survived {} kills",
            check.total(),
            check.poisoned(),
            scene.kills + scene.failpoints.len()
        );
        read_back(&parts, &dir.path().join("data"), &check)
    });
    outcome.with_context(|| {
        let (server, broker) = (tail(&log_path(dir.path()), 40), tail(&dir.path().join("kafka/kafka.log"), 20));
        format!("end of the server's log:\n{server}\nend of the broker's log:\n{broker}\n")
    })
}

fn read_back(parts: &Path, data: &Path, check: &LedgerCheck) -> Result<()> {
    let python = |namespace: &str, table: &str, group: &str, number: &str| -> Result<Value> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("e2e/read_back.py");
        let output = Command::new(parts.join("python/bin/python"))
            .arg(script)
            .args([data.join("tidewater.db"), data.join("warehouse")])
            .args([namespace, table, group, number])
            .output()?;
        ensure!(output.status.success(), "read_back.py: {}", String::from_utf8_lossy(&output.stderr));
        Ok(serde_json::from_slice(&output.stdout)?)
    };
    let rows: Vec<Value> = (check.good.iter().enumerate()).map(|(p, n)| json!([p, n, n, n * (n - 1) / 2])).collect();
    let kept = python("public", "kept", "p", "n")?;
    for reader in ["pyiceberg", "duckdb"] {
        ensure!(kept[reader] == json!(rows), "{reader} reads {}\nthe ledger says {}", kept[reader], json!(rows));
    }
    let dead = python("system.dlq", "ledger", "_partition", "_offset")?;
    for reader in ["pyiceberg", "duckdb"] {
        let counted: Vec<Value> =
            dead[reader].as_array().into_iter().flatten().map(|r| json!([r[0], r[1], r[2]])).collect();
        let expected: Vec<Value> = (check.poison.iter().enumerate()).map(|(p, n)| json!([p, n, n])).collect();
        ensure!(
            json!(counted) == json!(expected),
            "{reader} reads dead letters {counted:?}\nthe ledger says {expected:?}"
        );
    }
    Ok(())
}
