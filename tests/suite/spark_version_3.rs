//! Tables of format version 3, which Tidewater and Spark change in turns.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};
use serde_json::Value;
use tidewater_tests::{Client, EmbeddedServer, RestCatalog, S3, Spark};

use crate::e2e::{object, parts};
use crate::spark::difference;

/// Row ids and the sequence numbers of the last change, by id.
type Lineage = BTreeMap<String, (Option<String>, Option<String>)>;

pub fn spark_version_3() -> Result<()> {
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
         CREATE TABLE peer.shop.v (id BIGINT, name TEXT, n INT) TBLPROPERTIES ('format-version' = '3');
         CREATE TABLE peer.shop.old (id BIGINT, name TEXT, n INT) PARTITIONED BY (bucket(3, id));
         INSERT INTO peer.shop.old SELECT i, 'n' || i, i FROM generate_series(1, 300) AS g(i);
         DELETE FROM peer.shop.old WHERE id % 50 = 3;
         ALTER TABLE peer.shop.old SET TBLPROPERTIES ('format-version' = '3')",
        rest.sql_options(&s3)
    ))?;
    let mut tables = Tables { spark: &mut spark, client: &client, parts: &parts, catalog: object(&catalog) };
    for table in ["v", "old"] {
        tables.take_turns(table)?;
    }
    tables.defaults()
}

struct Tables<'a> {
    spark: &'a mut Spark,
    client: &'a Client,
    parts: &'a Path,
    catalog: Value,
}

impl Tables<'_> {
    fn ours(&mut self, statement: &str, table: &str) -> Result<()> {
        self.client.run(&statement.replace("{t}", &format!("peer.shop.{table}")))?;
        self.same(statement, table)
    }

    fn theirs(&mut self, statement: &str, table: &str) -> Result<()> {
        self.spark.ask(&statement.replace("{t}", &format!("peer.shop.{table}")))?;
        self.same(statement, table)
    }

    fn same(&mut self, after: &str, table: &str) -> Result<()> {
        let theirs = self.spark.ask(&format!("SELECT * FROM peer.shop.{table}"))?;
        let found = difference(&theirs, self.client);
        ensure!(found.is_none(), "{table} after {after}: {}", found.unwrap_or_default());
        Ok(())
    }

    fn lineage(&mut self, table: &str) -> Result<Lineage> {
        let sql = format!("SELECT id, _row_id, _last_updated_sequence_number FROM peer.shop.{table}");
        let rows = self.spark.ask(&sql)?.rows;
        let count = rows.len();
        let all: Lineage = rows
            .into_iter()
            .map(|mut row| {
                let (updated, row_id) = (row.pop().flatten(), row.pop().flatten());
                (row.pop().flatten().unwrap_or_default(), (row_id, updated))
            })
            .collect();
        let distinct: std::collections::BTreeSet<_> = all.values().map(|(row_id, _)| row_id).collect();
        ensure!(count == all.len() && count == distinct.len(), "{table}: row ids repeat: {all:?}");
        ensure!(all.values().all(|(id, updated)| id.is_some() && updated.is_some()), "{table}: ids are null: {all:?}");
        Ok(all)
    }

    /// Rows keep their ids, and those that `statement` does not change say so, whoever runs it.
    fn keeps(&mut self, ours: bool, statement: &str, changed: impl Fn(i64) -> bool, table: &str) -> Result<()> {
        let before = self.lineage(table)?;
        if ours {
            self.ours(statement, table)?
        } else {
            self.theirs(statement, table)?
        }
        let after = self.lineage(table)?;
        for (id, lineage) in &before {
            let number: i64 = id.parse()?;
            let same = |now: &(Option<String>, Option<String>)| match changed(number) {
                // Spark may take rows that it changes for new ones.
                true => (!ours || now.0 == lineage.0) && now.1 != lineage.1,
                false => now == lineage,
            };
            let kept = after.get(id).is_none_or(same);
            ensure!(kept, "{table}, {statement}: row {id} was {lineage:?}, is {:?}", after.get(id));
        }
        Ok(())
    }

    fn take_turns(&mut self, table: &str) -> Result<()> {
        let none = |_: i64| false;
        let mode = |mode: &str| {
            let all = ["delete", "update", "merge"].map(|kind| format!("'write.{kind}.mode' = '{mode}'"));
            format!("ALTER TABLE {{t}} SET TBLPROPERTIES ({})", all.join(", "))
        };
        self.ours(&mode("merge-on-read"), table)?;
        self.ours("INSERT INTO {t} SELECT i, 'n' || i, i FROM generate_series(1001, 1200) AS g(i)", table)?;
        self.theirs("INSERT INTO {t} SELECT id, concat('s', id), 1 FROM range(2001, 2200)", table)?;
        self.keeps(true, "DELETE FROM {t} WHERE id % 10 = 3", none, table)?;
        self.keeps(false, "DELETE FROM {t} WHERE id % 10 = 4", none, table)?;
        self.keeps(true, "DELETE FROM {t} WHERE id % 20 = 5", none, table)?;
        self.keeps(true, "UPDATE {t} SET name = 'ours' WHERE id % 30 = 7", |id| id % 30 == 7, table)?;
        self.keeps(false, "UPDATE {t} SET name = 'theirs' WHERE id % 30 = 8", |id| id % 30 == 8, table)?;
        self.ours(&mode("copy-on-write"), table)?;
        self.keeps(true, "UPDATE {t} SET n = 0 WHERE id % 40 = 9", |id| id % 40 == 9, table)?;
        self.keeps(false, "UPDATE {t} SET n = -1 WHERE id % 40 = 11", |id| id % 40 == 11, table)?;
        self.keeps(true, "DELETE FROM {t} WHERE id % 40 = 12", none, table)?;
        self.keeps(true, "OPTIMIZE {t}", none, table)?;
        self.ours(&mode("merge-on-read"), table)?;
        self.keeps(true, "DELETE FROM {t} WHERE id % 60 = 1", none, table)?;
        self.theirs("INSERT INTO {t} VALUES (9000, 'last', 1)", table)?;
        self.keeps(false, "DELETE FROM {t} WHERE id % 60 = 2", none, table)?;
        self.keeps(true, "DELETE FROM {t} WHERE id % 60 = 16", none, table)?;
        let call = format!(
            "CALL peer.system.rewrite_data_files(table => 'shop.{table}', options => map('rewrite-all', 'true'))"
        );
        self.keeps(false, &call, none, table)?;
        self.keeps(true, "DELETE FROM {t} WHERE id % 60 = 17", none, table)?;
        self.keeps(true, "OPTIMIZE {t}", none, table)?;
        self.keeps(false, &format!("CALL peer.system.rewrite_manifests(table => 'shop.{table}')"), none, table)?;
        self.keeps(true, "DELETE FROM {t} WHERE id % 60 = 18", none, table)?;
        self.keeps(true, "VACUUM {t}", none, table)?;
        self.by_pyiceberg(table)
    }

    fn by_pyiceberg(&self, table: &str) -> Result<()> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("e2e/sum_of_column.py");
        let output = Command::new(self.parts.join("python/bin/python"))
            .arg(script)
            .args([&self.catalog.to_string(), &format!("shop.{table}"), "id"])
            .output()?;
        ensure!(output.status.success(), "sum_of_column.py: {}", String::from_utf8_lossy(&output.stderr));
        let theirs = String::from_utf8(output.stdout)?;
        let ours = self.client.table(&format!("SELECT count(*), sum(id) FROM peer.shop.{table}"))?.1;
        let ours: Vec<String> = ours.into_iter().flatten().flatten().collect();
        ensure!(theirs.trim() == ours.join(" "), "{table}: PyIceberg reads {theirs}, we read {ours:?}");
        Ok(())
    }

    /// Without a `NUMERIC`: the vectorized reader of Iceberg 1.11 fails on files that have a column of it with a default.
    fn defaults(&mut self) -> Result<()> {
        self.client.run(
            "CREATE TABLE peer.shop.d (id BIGINT) TBLPROPERTIES ('format-version' = '3');
             INSERT INTO peer.shop.d VALUES (1), (2);
             ALTER TABLE peer.shop.d ADD COLUMN i INT DEFAULT 7, ADD COLUMN s TEXT DEFAULT 'it''s',
               ADD COLUMN d DATE DEFAULT '1969-12-31',
               ADD COLUMN ts TIMESTAMP DEFAULT '2026-01-31 12:00:00.25', ADD COLUMN tz TIMESTAMPTZ DEFAULT '2026-01-31 12:00:00+02',
               ADD COLUMN b BOOLEAN DEFAULT true, ADD COLUMN f DOUBLE PRECISION DEFAULT 0.1, ADD COLUMN r REAL DEFAULT 0.1,
               ADD COLUMN raw BYTEA DEFAULT '\\x00ff', ADD COLUMN l BIGINT DEFAULT -5;
             ALTER TABLE peer.shop.d ALTER COLUMN i SET DEFAULT 8;
             INSERT INTO peer.shop.d (id) VALUES (3)",
        )?;
        self.same("columns with defaults", "d")?;
        self.theirs("DELETE FROM {t} WHERE id = 2", "d")?;
        self.ours("UPDATE {t} SET i = DEFAULT WHERE id = 1", "d")
    }
}
