//! Random histories of statements that change rows: beside a PostgreSQL server, and of many sessions at once.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::Value;
use tidewater_tests::{Client, EmbeddedServer, Postgres};

use crate::crash::failed;
use crate::e2e::{object, parts};

type Rows = Vec<Vec<Option<String>>>;

const STATEMENTS: usize = 60;
/// How the same history is written: a format version, and a mode.
const TABLES: [(&str, &str, &str); 4] = [
    ("v2_mor", "2", "merge-on-read"),
    ("v2_cow", "2", "copy-on-write"),
    ("v3_mor", "3", "merge-on-read"),
    ("v3_auto", "3", "auto"),
];

pub fn trials() -> Vec<Trial> {
    vec![Trial::test("histories/sessions_at_once", || sessions_at_once().map_err(failed))]
}

/// Each statement does to our tables what it does to PostgreSQL's, and PyIceberg reads every snapshot as it was.
pub fn like_postgres() -> Result<()> {
    let (parts, postgres, server) = (parts()?, Postgres::start()?, EmbeddedServer::start(&[])?);
    let (theirs, ours) = (Client::connect_url(&postgres.url())?, Client::connect(server.pg_addr())?);
    theirs.run("CREATE TABLE t (id BIGINT, name TEXT, n INT)")?;
    let mut seen: BTreeMap<&str, BTreeMap<String, Rows>> = BTreeMap::new();
    for (table, version, mode) in TABLES {
        ours.run(&format!(
            "CREATE TABLE {table} (id BIGINT, name TEXT, n INT) TBLPROPERTIES ('format-version' = '{version}',
               'write.delete.mode' = '{mode}', 'write.update.mode' = '{mode}', 'write.merge.mode' = '{mode}',
               'history.expire.max-snapshot-age-ms' = '86400000')"
        ))?;
        seen.insert(table, BTreeMap::new());
    }
    let seed = rand::rng().random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut next = 0;
    for step in 0..STATEMENTS {
        let statements = transaction(&mut random, &mut next);
        let context = || format!("seed {seed}, step {step}: {statements:?}");
        let expected =
            statements.iter().map(|s| theirs.count(&s.replace("{t}", "t"))).collect::<Result<Vec<_>, _>>()?;
        let rows = theirs.rows("SELECT id, name, n FROM t ORDER BY id, name, n")?;
        for (table, ..) in TABLES {
            for (statement, expected) in statements.iter().zip(&expected) {
                let found = ours.count(&statement.replace("{t}", table)).with_context(context)?;
                ensure!(found == *expected, "{table}: {found} rows, {expected} in PostgreSQL; {}", context());
            }
            if random.random_bool(0.15) {
                ours.run(&format!("{} {table}", upkeep(&mut random))).with_context(context)?;
            }
            let found = ours.rows(&format!("SELECT id, name, n FROM {table} ORDER BY id, name, n"))?;
            ensure!(found == rows, "{table} has {found:?}, PostgreSQL {rows:?}; {}", context());
            let current = ours.rows(&format!("SELECT current_snapshot_id FROM ({})", current(table)))?;
            if let Some(id) = current.into_iter().flatten().next().flatten()
                && let Some(all) = seen.get_mut(table)
            {
                all.insert(id, rows.clone());
            }
        }
    }
    let catalog = [
        ("type", "sql".to_owned()),
        ("uri", format!("sqlite:///{}", server.dir().join("data/tidewater.db").display())),
    ];
    for (table, snapshots) in seen {
        ensure!(snapshots.len() > STATEMENTS / 3, "{table} has {} snapshots", snapshots.len());
        same_in_pyiceberg(&parts, &object(&catalog), table, &snapshots).with_context(|| format!("seed {seed}"))?;
    }
    Ok(())
}

fn current(table: &str) -> String {
    format!("SELECT snapshot_id AS current_snapshot_id FROM \"{table}$refs\" WHERE name = 'main'")
}

/// One statement, or a transaction of several.
fn transaction(random: &mut StdRng, next: &mut i64) -> Vec<String> {
    if random.random_bool(0.8) {
        return vec![statement(random, next)];
    }
    let mut all = vec!["BEGIN".to_owned()];
    all.extend((0..random.random_range(2..5)).map(|_| statement(random, next)));
    all.push(if random.random_bool(0.8) { "COMMIT" } else { "ROLLBACK" }.to_owned());
    all
}

fn statement(random: &mut StdRng, next: &mut i64) -> String {
    let from = random.random_range(0..(*next).max(1));
    let to = from + random.random_range(1..25);
    let k = random.random_range(2..6);
    match random.random_range(0..9) {
        0 | 1 => {
            let count = random.random_range(1..40);
            *next += count;
            let (first, last) = (*next - count, *next - 1);
            format!(
                "INSERT INTO {{t}} SELECT i, CASE WHEN i % 7 = 0 THEN NULL ELSE 'n' || i END, nullif(i % {k}, 1) FROM generate_series({first}, {last}) AS g(i)"
            )
        }
        2 => format!("DELETE FROM {{t}} WHERE id >= {from} AND id < {to} AND (n <> 0 OR n IS NULL)"),
        3 => format!("DELETE FROM {{t}} WHERE name IS NULL AND id % {k} = 0"),
        4 => format!("UPDATE {{t}} SET n = coalesce(n, 0) + {k}, name = name || '.' WHERE id BETWEEN {from} AND {to}"),
        5 => "UPDATE {t} SET name = 'max' WHERE n = (SELECT max(n) FROM {t})".to_owned(),
        6 => format!(
            "DELETE FROM {{t}} AS x USING (VALUES ({from}), ({to}), (NULL)) AS s (id) WHERE x.id = s.id AND EXISTS (SELECT 1 FROM {{t}} AS y WHERE y.id = x.id + 1)"
        ),
        _ => {
            *next += 3;
            let last = *next;
            format!(
                "MERGE INTO {{t}} AS t USING (SELECT i AS id, 's' || i AS name, i % 5 AS n FROM generate_series({from}, {to}) AS g(i) UNION ALL VALUES ({last}, NULL, 1), (NULL, 'none', 2)) AS s
                 ON t.id = s.id AND (t.n > 0 OR t.n IS NULL)
                 WHEN MATCHED AND s.n = {k} THEN DELETE
                 WHEN MATCHED THEN UPDATE SET name = s.name, n = t.n + s.n
                 WHEN NOT MATCHED AND s.id > {from} THEN INSERT (id, name, n) VALUES (s.id + 1000000, s.name, s.n)"
            )
        }
    }
}

fn upkeep(random: &mut StdRng) -> &'static str {
    ["OPTIMIZE", "OPTIMIZE", "VACUUM", "ANALYZE"][random.random_range(0..4)]
}

fn same_in_pyiceberg(parts: &Path, catalog: &Value, table: &str, expected: &BTreeMap<String, Rows>) -> Result<()> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("e2e/rows_of_snapshots.py");
    let mut child = Command::new(parts.join("python/bin/python"))
        .arg(script)
        .args([&catalog.to_string(), &format!("public.{table}")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let ids = expected.keys().map(|id| id.parse()).collect::<Result<Vec<i64>, _>>()?;
    child.stdin.take().context("no input")?.write_all(serde_json::to_string(&ids)?.as_bytes())?;
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "rows_of_snapshots.py: {}", String::from_utf8_lossy(&output.stderr));
    let mut found: BTreeMap<String, Rows> = serde_json::from_slice(&output.stdout)?;
    for (id, expected) in expected {
        let mut expected = expected.clone();
        let rows = found.get_mut(id).with_context(|| format!("{table}: snapshot {id} was not read"))?;
        for rows in [&mut *rows, &mut expected] {
            rows.sort();
        }
        ensure!(*rows == expected, "{table}, snapshot {id}: PyIceberg reads {rows:?}, it was {expected:?}");
    }
    Ok(())
}

const ACCOUNTS: i64 = 40;
const RECORDS: i64 = 3000;

/// Writers move amounts between accounts, in statements and in transactions over two tables, while a flow appends,
/// files are written anew and old ones removed. No amount is lost or made, and each record of the flow is there once.
fn sessions_at_once() -> Result<()> {
    let server = EmbeddedServer::start(&[("compact_interval", "1s"), ("snapshot_retention", "1s")])?;
    let client = Client::connect(server.pg_addr())?;
    let topic = "ledger";
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(tidewater_tests::create_topic(&server.broker_addr().to_string(), topic, 2))?;
    client.run(&format!(
        "CREATE CONNECTION k TO KAFKA WITH (brokers = '{}');
         CREATE STREAM s (id BIGINT, v BIGINT) WITH (connection = 'k', topic = '{topic}', format = 'json');
         CREATE STREAMING TABLE f (id BIGINT, v BIGINT) TBLPROPERTIES ('write.delete.isolation-level' = 'snapshot',
           'write.update.isolation-level' = 'snapshot') AS SELECT id, v FROM STREAM s;
         CREATE TABLE a (id BIGINT, v BIGINT);
         CREATE TABLE b (id BIGINT, v BIGINT) TBLPROPERTIES ('format-version' = '3');
         INSERT INTO a SELECT i, 1000 FROM generate_series(1, {ACCOUNTS}) AS g(i);
         INSERT INTO b SELECT i, 1000 FROM generate_series(1, {ACCOUNTS}) AS g(i)",
        server.broker_addr()
    ))?;
    let (stop, done, conflicts) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    let addr = server.pg_addr();
    std::thread::scope(|scope| -> Result<()> {
        let writers: Vec<_> = (0..3)
            .map(|seed| {
                let (stop, done, conflicts) = (&stop, &done, &conflicts);
                scope.spawn(move || -> Result<()> {
                    let client = Client::connect(addr)?;
                    let mut random = StdRng::seed_from_u64(seed);
                    while !stop.load(Ordering::Relaxed) {
                        match transfer(&client, &mut random) {
                            Ok(()) => done.fetch_add(1, Ordering::Relaxed),
                            Err(e) if e.state == "40001" => {
                                conflicts.fetch_add(1, Ordering::Relaxed);
                                client.run("ROLLBACK").map(|()| 0)?
                            }
                            Err(e) => return Err(e.into()),
                        };
                    }
                    Ok(())
                })
            })
            .collect();
        let keeper = scope.spawn(|| -> Result<()> {
            let client = Client::connect(addr)?;
            while !stop.load(Ordering::Relaxed) {
                for table in ["a", "b", "f"] {
                    client.run(&format!("OPTIMIZE {table}"))?;
                    client.run(&format!("VACUUM {table}"))?;
                }
            }
            Ok(())
        });
        let producer = scope.spawn(|| -> Result<()> {
            let client = Client::connect(addr)?;
            for from in (0..RECORDS).step_by(100) {
                let to = from + 99;
                client.run(&format!("INSERT INTO s SELECT i, i FROM generate_series({from}, {to}) AS g(i)"))?;
                std::thread::sleep(Duration::from_millis(100));
            }
            Ok(())
        });
        let changer = scope.spawn(|| -> Result<()> {
            let client = Client::connect(addr)?;
            // Rows of the flow are changed, never their number.
            while !stop.load(Ordering::Relaxed) {
                match client.run("UPDATE f SET v = v + 1000000 WHERE id % 3 = 0 AND v < 1000000") {
                    Err(e) if e.state != "40001" => return Err(e.into()),
                    _ => std::thread::sleep(Duration::from_millis(50)),
                }
            }
            Ok(())
        });
        let deadline = Instant::now() + Duration::from_secs(60);
        let produced = producer.join();
        while done.load(Ordering::Relaxed) < 30 && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(100));
        }
        stop.store(true, Ordering::Relaxed);
        let ends = writers.into_iter().chain([keeper, changer]).map(|thread| thread.join());
        for end in ends.chain([produced]) {
            end.map_err(|_| anyhow::anyhow!("a thread panicked"))??;
        }
        Ok(())
    })?;
    let (done, conflicts) = (done.load(Ordering::Relaxed), conflicts.load(Ordering::Relaxed));
    ensure!(done >= 30, "{done} transfers, {conflicts} conflicts");
    let sum = client.rows(
        "SELECT (SELECT sum(v) FROM a) + (SELECT sum(v) FROM b), (SELECT count(*) FROM a), (SELECT count(*) FROM b)",
    )?;
    let expected = [2 * 1000 * ACCOUNTS, ACCOUNTS, ACCOUNTS].map(|n| Some(n.to_string()));
    ensure!(sum == [expected.to_vec()], "amounts and accounts are {sum:?} after {done} transfers");
    let deadline = Instant::now() + Duration::from_secs(30);
    let flow = "SELECT count(*), count(DISTINCT id), sum(v % 1000000) FROM f";
    let expected = [RECORDS, RECORDS, RECORDS * (RECORDS - 1) / 2].map(|n| Some(n.to_string()));
    while client.rows(flow)? != [expected.to_vec()] {
        ensure!(Instant::now() < deadline, "the flow's table has {:?}", client.rows(flow)?);
        std::thread::sleep(Duration::from_millis(200));
    }
    Ok(())
}

/// Moves an amount: inside of one table, or from one to the other.
fn transfer(client: &Client, random: &mut StdRng) -> Result<(), tidewater_tests::SqlFailure> {
    let mut account = || random.random_range(1..=ACCOUNTS);
    let (from, to) = (account(), account());
    let amount = from + to;
    if from % 2 == 0 {
        let table = if to % 2 == 0 { "a" } else { "b" };
        return client.run(&format!(
            "MERGE INTO {table} AS t USING (SELECT id, sum(v) AS v FROM (VALUES ({from}, -{amount}), ({to}, {amount})) AS x (id, v) GROUP BY id) AS s
             ON t.id = s.id WHEN MATCHED THEN UPDATE SET v = t.v + s.v"
        ));
    }
    client.run("BEGIN")?;
    client.run(&format!("UPDATE a SET v = v - {amount} WHERE id = {from}"))?;
    client.run(&format!("UPDATE b SET v = v + {amount} WHERE id = {to}"))?;
    client.run("COMMIT")
}
