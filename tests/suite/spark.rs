//! Tables that Spark wrote, read by Tidewater; tables that Tidewater added to, read by Spark.
//!
//! Spark writes what Tidewater does not: deletes of every kind, schemas and partitions that changed, all types. Every
//! table is compared, and all that differs is told at the end.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::Value;
use tidewater_tests::{
    Client, EmbeddedServer, LEDGER_COLUMNS, Ledger, RestCatalog, S3, Spark, SparkAnswer, create_topic, tail, wait_for,
};

use crate::e2e::{object, parts};

const LIMIT: Duration = Duration::from_secs(120);

type Rows = Vec<Vec<Option<String>>>;

/// Rows that are added to tables with deletes or with a history, and how many rows the table has more then.
const APPENDS: &[(&str, &str, usize)] = &[
    ("position_deletes", "VALUES (7, 'ours', NULL, 1), (9007, 'ours', 'x', 2)", 2),
    ("position_deletes_by_partition", "VALUES (7, 'ours', NULL, 1), (9007, 'ours', 'x', 2)", 2),
    ("deletion_vectors", "VALUES (7, 'ours', NULL, 1), (9007, 'ours', 'x', 2)", 2),
    ("equal_plain", "VALUES (3, 'ours', 1), (9003, 'ours', 2)", 2),
    ("equal_several_keys", "VALUES (NULL, NULL, 4), (33, 'n1', NULL)", 2),
    ("equal_partitioned", "VALUES (3, 'n1', 1), (9003, 'n3', 3)", 2),
    ("equal_global", "VALUES (65, 'n1', 1), (66, 'n2', 2)", 2),
    ("equal_with_vectors", "VALUES (12, 'ours', 1)", 1),
    ("evolved_partitions", "VALUES (51, TIMESTAMPTZ '2026-03-01 10:00:00+00', 'name51', 'r1', 'e')", 1),
    ("partition_column_dropped", "VALUES (51, TIMESTAMPTZ '2026-03-01 10:00:00+00', 'name51', 'r1')", 1),
    ("version_1", "VALUES (7, 'ours', NULL, 1)", 1),
    ("name_mapped", "(id, title) VALUES (51, 'ours')", 1),
    ("odd_names", "VALUES (7, 'Ours', 1, 2, 'ß/=?', 3)", 1),
    ("never_written", "VALUES (7, 'ours', NULL, 1)", 1),
    ("emptied", "VALUES (7, 'ours', NULL, 1)", 1),
];

/// Of these, tables of version 1 are not written.
const READ_ONLY: &[&str] = &["version_1"];

pub fn spark_tables() -> Result<()> {
    let (parts, dir) = (parts()?, tempfile::tempdir()?);
    let s3 = S3::start(&parts, dir.path())?;
    let rest = RestCatalog::start(&parts, dir.path(), &s3)?;
    let mut catalog = vec![("type", "rest".to_owned()), ("uri", rest.uri())];
    catalog.extend(s3.options());
    // A part of the tables, while working on them.
    let filter = std::env::var("TIDEWATER_E2E_TABLES").unwrap_or_default();
    let (mut spark, made) = Spark::write_tables(&parts, dir.path(), &object(&catalog), &filter)?;
    println!("{}", tail(spark.log(), made.tables.len() + made.failures.len()));
    ensure!(!made.tables.is_empty(), "Spark made no table");

    let server = EmbeddedServer::start(&[])?;
    let connect = || -> Result<Client> {
        let client = Client::connect(server.pg_addr())?;
        client.run("SET timezone = 'UTC'")?;
        Ok(client)
    };
    connect()?.run(&format!("CREATE CATALOG peer WITH ({})", rest.sql_options(&s3)))?;
    let mut differences = made.failures.iter().map(|f| format!("Spark could not make {f}")).collect::<Vec<_>>();
    let mut compared = 0;
    for (_, answers) in &made.tables {
        // A connection of its own: one that is lost is the fault of this table.
        let client = connect()?;
        compared += answers.len();
        let found: Vec<String> = answers.iter().filter_map(|spark| difference(spark, &client)).collect();
        // The first tells most.
        let more = found.len().saturating_sub(3);
        differences.extend(found.into_iter().take(3));
        if more > 0 {
            differences.push(format!("    and {more} more queries of this table"));
        }
    }
    let present: BTreeSet<&str> = made.tables.iter().map(|(name, _)| name.as_str()).collect();
    for (name, rows, added) in APPENDS.iter().filter(|(name, ..)| present.contains(name)) {
        let client = connect()?;
        match client.run(&format!("INSERT INTO peer.made.{name} {rows}")) {
            Err(e) if e.state == "0A000" && READ_ONLY.contains(name) => continue,
            Err(e) => {
                differences.push(format!("INSERT INTO {name}: {e}"));
                continue;
            }
            Ok(()) => (),
        }
        let query = format!("SELECT * FROM peer.made.{name}");
        let before = made.tables.iter().find(|(n, _)| n == name).map_or(0, |(_, answers)| answers[0].rows.len());
        let after = spark.ask(&query)?;
        if after.rows.len() != before + added {
            differences.push(format!("{name}: Spark reads {} rows of {before} + {added}", after.rows.len()));
        }
        differences.extend(difference(&after, &client));
    }
    println!("{} tables, {compared} queries compared", made.tables.len());
    ensure!(differences.is_empty(), "differences:\n{}", differences.join("\n"));
    Ok(())
}

/// Spark rewrites, expires and alters a streaming table while its flow commits to it: no row is lost or doubled.
pub fn spark_maintains_under_load() -> Result<()> {
    let (parts, dir) = (parts()?, tempfile::tempdir()?);
    let s3 = S3::start(&parts, dir.path())?;
    let rest = RestCatalog::start(&parts, dir.path(), &s3)?;
    let mut catalog = vec![("type", "rest".to_owned()), ("uri", rest.uri())];
    catalog.extend(s3.options());
    let (mut spark, _) = Spark::write_tables(&parts, dir.path(), &object(&catalog), "no table")?;

    let server = EmbeddedServer::start(&[("commit_interval", "1s")])?;
    let brokers = server.broker_addr().to_string();
    tokio::runtime::Runtime::new()?.block_on(create_topic(&brokers, "ledger", 3))?;
    let client = Client::connect(server.pg_addr())?;
    client.run(&format!(
        "CREATE CATALOG peer WITH ({});
         CREATE SCHEMA peer.shop;
         CREATE CONNECTION k TO KAFKA WITH (brokers = '{brokers}');
         CREATE STREAM ledger ({LEDGER_COLUMNS}) WITH (connection = 'k', topic = 'ledger');
         CREATE STREAMING TABLE peer.shop.kept PARTITIONED BY (days(event_time)) AS
           SELECT p, n, aborted, amount, event_time FROM STREAM ledger;",
        rest.sql_options(&s3)
    ))?;
    let ledger = Ledger::start(&brokers, "ledger", 3, 1500, false)?;
    let committed = |least: u64| {
        wait_for("rows to be committed", LIMIT, || {
            let rows: u64 = client.value("SELECT count(*) FROM peer.shop.\"kept$committed\"")?.parse()?;
            Ok((rows > least).then_some(rows))
        })
    };
    let mut rows = committed(0)?;
    for round in 0..3 {
        for statement in [
            "CALL peer.system.rewrite_data_files(table => 'shop.kept', options => map('rewrite-all', 'true'))",
            "CALL peer.system.rewrite_manifests(table => 'shop.kept')",
            // Snapshots that the flow's own next commit does not build upon may go.
            "CALL peer.system.expire_snapshots(table => 'shop.kept', older_than => TIMESTAMP '2100-01-01 00:00:00')",
            &format!("ALTER TABLE peer.shop.kept SET TBLPROPERTIES ('round' = '{round}')"),
            // Rows that are not of the ledger come and go.
            "INSERT INTO peer.shop.kept (p, n, aborted, amount, event_time) VALUES (99, 1, true, 1, TIMESTAMP '2026-01-02 00:00:00')",
            "DELETE FROM peer.shop.kept WHERE p = 99",
        ] {
            yielding(&mut spark, statement)?;
            // The flow goes on after each.
            rows = committed(rows)?;
        }
    }
    let check = ledger.stop()?;
    check.verify(&client, "peer.shop.kept", "system.dlq.ledger", LIMIT)?;
    let read = spark.ask("SELECT p, count(*), sum(n) FROM peer.shop.kept GROUP BY p")?;
    let expected: Rows = (check.good.iter().enumerate())
        .map(|(p, n)| [p as u64, *n, n * (n - 1) / 2].map(|v| Some(v.to_string())).to_vec())
        .collect();
    ensure!(read.rows == expected, "Spark reads {:?}\nthe ledger says {expected:?}", read.rows);

    // Rows that we change, Spark reads as we do: deleted by position, written anew, and files that are gone.
    for mode in ["merge-on-read", "copy-on-write"] {
        for kind in ["delete", "update", "merge"] {
            spark.ask(&format!("ALTER TABLE peer.shop.kept SET TBLPROPERTIES ('write.{kind}.mode' = '{mode}')"))?;
        }
        client.run(
            "DELETE FROM peer.shop.kept WHERE p = 0 AND n % 100 = 7;
             UPDATE peer.shop.kept SET n = -n WHERE p = 1 AND n % 90 = 3;
             MERGE INTO peer.shop.kept AS t USING (SELECT 2 AS p, i * 50 AS n FROM generate_series(-5, 100) AS g(i)) AS s
               ON t.p = s.p AND t.n = s.n
               WHEN MATCHED AND t.n % 100 = 0 THEN DELETE
               WHEN MATCHED THEN UPDATE SET p = 3
               WHEN NOT MATCHED THEN INSERT (p, n, aborted, amount, event_time) VALUES (4, s.n, true, 1, '2026-01-02');",
        )?;
        let sql = "SELECT p, count(*), sum(n) FROM peer.shop.kept GROUP BY p ORDER BY p";
        let (theirs, ours) = (spark.ask(sql)?.rows, client.table(sql)?.1);
        ensure!(theirs == ours && theirs.len() == 5, "{mode}: Spark reads {theirs:?}\nwe read {ours:?}");
    }
    println!("{} rows", check.total());
    Ok(())
}

/// Branches, tags, versions and what a table tells of itself are the same to Spark.
pub fn spark_references() -> Result<()> {
    let (parts, dir) = (parts()?, tempfile::tempdir()?);
    let s3 = S3::start(&parts, dir.path())?;
    let rest = RestCatalog::start(&parts, dir.path(), &s3)?;
    let mut catalog = vec![("type", "rest".to_owned()), ("uri", rest.uri())];
    catalog.extend(s3.options());
    let (mut spark, _) = Spark::write_tables(&parts, dir.path(), &object(&catalog), "no table")?;
    let server = EmbeddedServer::start(&[])?;
    let client = Client::connect(server.pg_addr())?;
    client.run(&format!(
        "CREATE CATALOG peer WITH ({});
         CREATE SCHEMA peer.shop;
         CREATE TABLE peer.shop.r (id BIGINT, name TEXT) PARTITIONED BY (bucket(3, id))
           TBLPROPERTIES ('write.delete.mode' = 'merge-on-read');
         INSERT INTO peer.shop.r SELECT i, 'n' || i FROM generate_series(1, 100) AS g(i);
         ALTER TABLE peer.shop.r CREATE TAG v1 RETAIN 30 DAYS;
         DELETE FROM peer.shop.r WHERE id % 10 = 0;
         ALTER TABLE peer.shop.r CREATE BRANCH b RETAIN 7 DAYS WITH SNAPSHOT RETENTION 3 SNAPSHOTS 2 HOURS;
         INSERT INTO peer.shop.r.branch_b VALUES (1000, 'b');
         INSERT INTO peer.shop.r VALUES (2000, 'main');",
        rest.sql_options(&s3)
    ))?;
    let versions = |spark: &mut Spark| {
        let all = ["", " VERSION AS OF 'v1'", " VERSION AS OF 'b'", ".branch_b", ".tag_v1", ".branch_sb", ".tag_sv"];
        for version in &all[..if client.table("SELECT * FROM peer.shop.r.tag_sv").is_ok() { 7 } else { 5 }] {
            let sql = format!("SELECT count(*), sum(id) FROM peer.shop.r{version}");
            let (theirs, ours) = (spark.ask(&sql)?.rows, client.table(&sql)?.1);
            ensure!(theirs == ours && theirs.len() == 1, "{sql}: Spark reads {theirs:?}\nwe read {ours:?}");
        }
        Ok(())
    };
    let told = |spark: &mut Spark| {
        for (table, columns) in [
            ("snapshots", "snapshot_id, parent_id, operation, manifest_list"),
            ("history", "snapshot_id, parent_id, is_current_ancestor"),
            ("refs", "name, type, snapshot_id, max_reference_age_in_ms, min_snapshots_to_keep, max_snapshot_age_in_ms"),
            (
                "files",
                "content, file_path, file_format, spec_id, record_count, file_size_in_bytes, split_offsets, equality_ids",
            ),
            (
                "manifests",
                "content, path, length, partition_spec_id, added_snapshot_id, added_data_files_count, \
                 existing_data_files_count, deleted_data_files_count, added_delete_files_count, \
                 existing_delete_files_count, deleted_delete_files_count",
            ),
            (
                "partitions",
                "spec_id, record_count, file_count, total_data_file_size_in_bytes, position_delete_record_count, \
                 position_delete_file_count, equality_delete_record_count, equality_delete_file_count, \
                 last_updated_snapshot_id",
            ),
        ] {
            let theirs = canonical(spark.ask(&format!("SELECT {columns} FROM peer.shop.r.{table}"))?.rows);
            let ours = canonical(client.table(&format!("SELECT {columns} FROM peer.shop.\"r${table}\""))?.1);
            ensure!(theirs == ours && !ours.is_empty(), "{table}: Spark reads {theirs:?}\nwe read {ours:?}");
        }
        Ok(())
    };
    versions(&mut spark)?;
    told(&mut spark)?;
    for statement in [
        "ALTER TABLE peer.shop.r CREATE BRANCH sb RETAIN 2 DAYS",
        "INSERT INTO peer.shop.r.branch_sb VALUES (3000, 'spark')",
        "ALTER TABLE peer.shop.r CREATE TAG sv",
        "DELETE FROM peer.shop.r WHERE id = 1",
    ] {
        spark.ask(statement)?;
    }
    versions(&mut spark)?;
    told(&mut spark)?;
    // Neither takes what the other has moved for its own.
    client.run(
        "CALL peer.system.set_current_snapshot('shop.r', ref => 'sv');
         CALL peer.system.fast_forward('shop.r', 'main', 'sb');
         INSERT INTO peer.shop.r VALUES (4000, 'on top');
         ALTER TABLE peer.shop.r REPLACE TAG v1;
         ALTER TABLE peer.shop.r DROP BRANCH b;
         ALTER TABLE peer.shop.r CREATE BRANCH b",
    )?;
    spark.ask("INSERT INTO peer.shop.r VALUES (5000, 'and above')")?;
    versions(&mut spark)?;
    told(&mut spark)
}

/// Maintenance that the flow was quicker than is tried again, as its users do.
fn yielding(spark: &mut Spark, statement: &str) -> Result<()> {
    let mut refused = 0;
    while let Err(e) = spark.ask(statement) {
        refused += 1;
        let said = e.to_string();
        let conflict = said.contains("CommitFailedException") || said.contains("in the latest snapshot");
        if !conflict || refused == 20 {
            return Err(e);
        }
    }
    Ok(())
}

pub(crate) fn difference(spark: &SparkAnswer, client: &Client) -> Option<String> {
    let (columns, rows) = match client.table(&spark.query) {
        Ok(answer) => answer,
        Err(e) if e.state == "0A000" && spark.may_be_refused => return None,
        Err(e) => return Some(format!("{}\n    {e}", spark.query)),
    };
    let (ours, theirs) = (canonical(rows), canonical(spark.rows.clone()));
    // Spark names unnamed columns in another way.
    if spark.query.starts_with("SELECT * ") && columns != spark.columns {
        return Some(format!("{}\n    columns {columns:?}\n    Spark has {:?}", spark.query, spark.columns));
    }
    if ours == theirs {
        return None;
    }
    let (mut more, mut less) = (Vec::new(), Vec::new());
    let (mut a, mut b) = (ours.iter().peekable(), theirs.iter().peekable());
    loop {
        match (a.peek(), b.peek()) {
            (Some(x), Some(y)) if x == y => drop((a.next(), b.next())),
            (Some(x), y) if y.is_none_or(|y| *x < *y) => more.extend(a.next()),
            (_, Some(_)) => less.extend(b.next()),
            (Some(_), None) => more.extend(a.next()),
            (None, None) => break,
        }
    }
    let show = |rows: &[&Vec<Option<String>>]| {
        let mut out = format!("{} rows", rows.len());
        for row in rows.iter().take(3) {
            let cells = row.iter().map(|v| v.as_deref().unwrap_or("NULL")).collect::<Vec<_>>().join(" | ");
            out.push_str(&format!("\n        {cells}"));
        }
        out
    };
    let counts = format!("{} rows, of Spark {}", ours.len(), theirs.len());
    Some(format!("{}\n    {counts}\n    too much: {}\n    missing: {}", spark.query, show(&more), show(&less)))
}

/// In one order; the keys of JSON objects as well, since a map has none.
fn canonical(rows: Rows) -> Rows {
    let value = |text: String| match serde_json::from_str::<Value>(&text) {
        Ok(Value::Object(object)) => Value::Object(object).to_string(),
        _ => text,
    };
    let mut rows: Rows = rows.into_iter().map(|row| row.into_iter().map(|v| v.map(value)).collect()).collect();
    rows.sort();
    rows
}
