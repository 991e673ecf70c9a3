//! End to end with real parts: Apache Kafka produces, PyIceberg, DuckDB and Spark read back; catalogs and object stores
//! are held against the same suite as the embedded ones.
//!
//! `cargo xtask e2e` fetches the parts and runs these; without it they are ignored.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use serde_json::{Value, json};
use tidewater_tests::{
    Azure, EmbeddedServer, Google, Kafka, LedgerCheck, Postgres, RestCatalog, S3, Spark, create_topic, log_path, tail,
};

use crate::crash::{Scene, failed};

const LIMIT: Duration = Duration::from_secs(120);
/// Random kills of each scene; those at every named point of the commit path come on top.
const KILLS: usize = 86;

pub fn trials() -> Vec<Trial> {
    let e2e = |name: &str, run: fn() -> Result<()>| {
        Trial::test(format!("e2e/{name}"), move || run().map_err(failed)).with_ignored_flag(true)
    };
    vec![
        e2e("killed_under_load_with_kafka", killed_under_load),
        e2e("killed_under_load_on_s3_and_rest", killed_under_load_on_s3_and_rest),
        e2e("kafka_connector", kafka_connector),
        e2e("catalogs", catalogs),
        e2e("object_stores", object_stores),
        e2e("metastore_in_postgres", metastore_in_postgres),
        e2e("spark_tables", crate::spark::spark_tables),
        e2e("spark_maintains_under_load", crate::spark::spark_maintains_under_load),
        e2e("spark_references", crate::spark::spark_references),
        e2e("spark_version_3", crate::spark_version_3::spark_version_3),
        e2e("histories_like_postgres", crate::histories::like_postgres),
        e2e("flight_python", flight_python),
        e2e("flight_jdbc", flight_jdbc),
    ]
}

/// The connector's own tests, against the real broker: isolation, control records, retention, topic ids, sign-in.
fn kafka_connector() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let kafka = Kafka::start(&parts()?.join("kafka"), dir.path())?;
    let env = [("TIDEWATER_TEST_KAFKA", kafka.brokers()), ("TIDEWATER_TEST_KAFKA_SASL", kafka.sasl_brokers())];
    crate_tests("tidewater-catalogs-kafka", "broker_tests", &["--skip", "measure"], &env, 8)
}

/// Ignored tests of a crate, told by variables where the parts are; `passed` of them must run.
fn crate_tests(package: &str, filter: &str, args: &[&str], env: &[(&str, String)], passed: usize) -> Result<()> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // As `cargo xtask` does, so that nothing is compiled again.
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|n| n.starts_with("CARGO_PKG_") || n.starts_with("CARGO_MANIFEST_")) {
            cargo.env_remove(name);
        }
    }
    let output = cargo
        .args(["test", "--release", "--package", package, "--lib", filter, "--"])
        .args(["--ignored", "--test-threads=1"])
        .args(args)
        .envs(env.iter().map(|(name, value)| (name, value)))
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    let expected = format!("test result: ok. {passed} passed");
    ensure!(text.contains(&expected), "another number of tests than expected ran:\n{text}");
    Ok(())
}

pub fn object(pairs: &[(&str, String)]) -> Value {
    Value::Object(pairs.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect())
}

/// One suite for all catalogs: Apache's REST catalog over an S3 store, and PostgreSQL.
fn catalogs() -> Result<()> {
    let (parts, dir) = (parts()?, tempfile::tempdir()?);
    let s3 = S3::start(&parts, dir.path())?;
    let rest = RestCatalog::start(&parts, dir.path(), &s3)?;
    let postgres = Postgres::start()?;
    let mut rest_options = vec![("uri", rest.uri())];
    rest_options.extend(s3.options().into_iter().filter(|(name, _)| !name.contains("key")));
    let env = [
        ("TIDEWATER_TEST_REST", object(&rest_options).to_string()),
        ("TIDEWATER_TEST_POSTGRES", object(&[("uri", postgres.url())]).to_string()),
    ];
    crate_tests("tidewater-catalogs-iceberg", "certify::catalogs", &[], &env, 2)
        .with_context(|| format!("end of the store's log:\n{}", tail(s3.log(), 20)))
}

/// One suite for all object stores.
fn object_stores() -> Result<()> {
    let (parts, dir) = (parts()?, tempfile::tempdir()?);
    let s3 = S3::start(&parts, dir.path())?;
    let azure = Azure::start(&parts, dir.path())?;
    let google = Google::start(&parts, dir.path())?;
    let stores: Vec<Value> = [
        ("s3://lake/certify", s3.options()),
        ("gs://lake/certify", google.options()),
        ("abfss://lake@devstoreaccount1.dfs.core.windows.net/certify", azure.options()),
    ]
    .into_iter()
    .map(|(warehouse, mut options)| {
        options.push(("warehouse", warehouse.to_owned()));
        object(&options)
    })
    .collect();
    let env = [("TIDEWATER_TEST_STORES", json!(stores).to_string())];
    crate_tests("tidewater-catalogs-iceberg", "certify::stores", &[], &env, 1)
}

fn metastore_in_postgres() -> Result<()> {
    let postgres = Postgres::start()?;
    let env = [("TIDEWATER_TEST_POSTGRES", postgres.url())];
    crate_tests("tidewater-catalogs-metastore", "postgres", &[], &env, 1)
}

/// The Python of the README and of the guide, as it stands there, block after block against one server.
fn flight_python() -> Result<()> {
    let server = EmbeddedServer::start(&[])?;
    let mut all = Vec::new();
    for file in ["README.md", "docs/guide/flight-sql.md"] {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(file);
        let mut blocks = crate::documents::blocks(&file, "python");
        // The others open the tables of one's own directory.
        blocks.retain(|block| block.contains("flight_sql"));
        ensure!(!blocks.is_empty(), "there is no Python in {}", file.display());
        all.extend(blocks);
    }
    for block in all {
        let script = block.replace("localhost:32010", &server.flight_addr().to_string());
        let output = Command::new(parts()?.join("python/bin/python")).args(["-c", &script]).output()?;
        ensure!(output.status.success(), "{}\nin:\n{script}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

fn flight_jdbc() -> Result<()> {
    let server = EmbeddedServer::start(&[])?;
    run_flight_jdbc(&server.flight_addr().to_string(), "useEncryption=false&user=tidewater&password=any")
}

/// `addr` is host and port, `properties` the rest of the URL.
pub fn run_flight_jdbc(addr: &str, properties: &str) -> Result<()> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("e2e/FlightJdbc.java");
    let jar = parts()?.join("flight-jdbc/flight-sql-jdbc-driver.jar");
    // The driver hangs where it may not reach into java.nio, so it gets a limit.
    let output = Command::new("timeout")
        .args(["120", "java", "--add-opens=java.base/java.nio=ALL-UNNAMED", "-cp"])
        .args([&jar, &source])
        .args([addr, properties])
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
        settings: Vec::new(),
        before: String::new(),
        table: "kept",
        brokers: kafka.brokers(),
        partitions: 4,
        rate: 4000,
        transactions: true,
        kills: KILLS,
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
        let data = dir.path().join("data");
        let catalog = object(&[
            ("type", "sql".to_owned()),
            ("uri", format!("sqlite:///{}", data.join("tidewater.db").display())),
            ("warehouse", format!("file://{}", data.join("warehouse").display())),
        ]);
        read_back(&parts, (&catalog, "public"), &catalog, &check)
    });
    outcome.with_context(|| {
        let (server, broker) = (tail(&log_path(dir.path()), 40), tail(&dir.path().join("kafka/kafka.log"), 20));
        format!("end of the server's log:\n{server}\nend of the broker's log:\n{broker}\n")
    })
}

/// The same, with the table in a REST catalog and all files in an S3 store.
fn killed_under_load_on_s3_and_rest() -> Result<()> {
    let parts = parts()?;
    let dir = tempfile::tempdir()?;
    let s3 = S3::start(&parts, dir.path())?;
    let rest = RestCatalog::start(&parts, dir.path(), &s3)?;
    let kafka = Kafka::start(&parts.join("kafka"), &dir.path().join("kafka"))?;
    tokio::runtime::Runtime::new()?.block_on(create_topic(&kafka.brokers(), "ledger", 4))?;
    let options: Vec<String> = s3.options().iter().map(|(name, value)| format!("{name}={value}")).collect();
    let warehouse = format!("s3://{}/home", S3::BUCKET);
    let scene = Scene {
        dir: dir.path(),
        settings: ["--warehouse", &warehouse, "--warehouse-options", &options.join(",")].map(str::to_owned).to_vec(),
        before: format!(
            "CREATE CATALOG IF NOT EXISTS team WITH ({});
             CREATE SCHEMA IF NOT EXISTS team.shop;",
            rest.sql_options(&s3)
        ),
        table: "team.shop.kept",
        brokers: kafka.brokers(),
        partitions: 4,
        rate: 2000,
        transactions: true,
        kills: KILLS,
        failpoints: tidewater_streaming::FAILPOINTS,
    };
    let outcome = scene.run().and_then(|(server, client, check)| {
        check.verify(&client, scene.table, "system.dlq.ledger", LIMIT)?;
        drop(server);
        println!(
            "{} rows and {} dead letters survived {} kills",
            check.total(),
            check.poisoned(),
            scene.kills + scene.failpoints.len()
        );
        let mut team = vec![("type", "rest".to_owned()), ("uri", rest.uri())];
        team.extend(s3.options());
        let mut home = vec![
            ("type", "sql".to_owned()),
            ("uri", format!("sqlite:///{}", dir.path().join("data/tidewater.db").display())),
            ("warehouse", warehouse.clone()),
        ];
        home.extend(s3.options());
        read_back(&parts, (&object(&team), "shop"), &object(&home), &check)
    });
    outcome.with_context(|| {
        let (server, store) = (tail(&log_path(dir.path()), 40), tail(s3.log(), 20));
        format!("end of the server's log:\n{server}\nend of the store's log:\n{store}\n")
    })
}

/// `table` is the catalog and the schema of the streaming table; dead letters are in the server's own catalog.
fn read_back(parts: &Path, table: (&Value, &str), home: &Value, check: &LedgerCheck) -> Result<()> {
    let python = |catalog: &Value, namespace: &str, table: &str, group: &str, number: &str| -> Result<Value> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("e2e/read_back.py");
        let output = Command::new(parts.join("python/bin/python"))
            .arg(script)
            .args([catalog.to_string().as_str(), namespace, table, group, number])
            .output()?;
        ensure!(output.status.success(), "read_back.py: {}", String::from_utf8_lossy(&output.stderr));
        Ok(serde_json::from_slice(&output.stdout)?)
    };
    let rows: Vec<Value> = (check.good.iter().enumerate()).map(|(p, n)| json!([p, n, n, n * (n - 1) / 2])).collect();
    let dead: Vec<Value> = (check.poison.iter().enumerate()).map(|(p, n)| json!([p, n, n])).collect();
    let kept = python(table.0, table.1, "kept", "p", "n")?;
    let set_aside = python(home, "system.dlq", "ledger", "_partition", "_offset")?;
    for reader in ["pyiceberg", "duckdb"] {
        ensure!(kept[reader] == json!(rows), "{reader} reads {}\nthe ledger says {}", kept[reader], json!(rows));
        let counted: Vec<Value> =
            set_aside[reader].as_array().into_iter().flatten().map(|r| json!([r[0], r[1], r[2]])).collect();
        ensure!(counted == dead, "{reader} reads dead letters {counted:?}\nthe ledger says {dead:?}");
    }
    let begun = Instant::now();
    // Spark has a column `_partition` of its own, which hides that of dead letters.
    let spark = Spark::read_back(
        parts,
        &json!([
            {"catalog": table.0, "namespace": table.1, "table": "kept", "group": "p", "number": "n"},
            {"catalog": home, "namespace": "system.dlq", "table": "ledger", "group": "0", "number": "_offset"},
        ]),
    )?;
    println!("Spark took {:.0} s", begun.elapsed().as_secs_f64());
    ensure!(spark[0] == json!(rows), "Spark reads {}\nthe ledger says {}", spark[0], json!(rows));
    let offsets: u64 = set_aside["pyiceberg"].as_array().into_iter().flatten().filter_map(|r| r[3].as_u64()).sum();
    ensure!(
        spark[1][0][1] == check.poisoned() && spark[1][0][3] == offsets,
        "Spark reads dead letters {}\nthe ledger says {}, with offsets of {offsets} in all",
        spark[1],
        check.poisoned()
    );
    Ok(())
}
