//! Apache Spark with Iceberg, in a process of its own.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::tail;

/// Seconds after which a Spark that hangs is ended.
const READ_LIMIT: &str = "300";
const WRITE_LIMIT: &str = "1800";

/// A Spark that wrote tables and answers queries of them. Stopped when dropped.
pub struct Spark {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    log: PathBuf,
}

/// Rows are text as PostgreSQL's protocol sends it.
#[derive(Debug)]
pub struct SparkAnswer {
    pub query: String,
    pub columns: Vec<String>,
    pub rows: Vec<Vec<Option<String>>>,
    /// Tidewater need not be able to answer it.
    pub may_be_refused: bool,
}

/// What [`Spark::write_tables`] made.
pub struct SparkTables {
    pub tables: Vec<(String, Vec<SparkAnswer>)>,
    /// Tables that could not be made, and why.
    pub failures: Vec<String>,
}

fn program(parts: &Path, limit: &str, script: &str) -> Command {
    let mut command = Command::new("timeout");
    command
        .arg(limit)
        .arg(parts.join("spark-python/bin/python"))
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("e2e/spark").join(script))
        .arg(parts.join("spark"))
        .env("PYTHONDONTWRITEBYTECODE", "1");
    command
}

impl Spark {
    /// Counts of the ledger's tables, see `tests/e2e/spark/read_back.py`; one session for all of them.
    pub fn read_back(parts: &Path, tables: &Value) -> Result<Value> {
        let output = program(parts, READ_LIMIT, "read_back.py").arg(tables.to_string()).output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        match output.status.code() {
            Some(0) => serde_json::from_slice(&output.stdout).with_context(|| format!("Spark said:\n{said}")),
            Some(124) => bail!("Spark did not answer within {READ_LIMIT} s:\n{said}"),
            _ => bail!("Spark failed ({}):\n{said}", output.status),
        }
    }

    /// Makes the tables of `tests/e2e/spark/` in a REST catalog.
    pub fn write_tables(parts: &Path, dir: &Path, catalog: &Value, filter: &str) -> Result<(Self, SparkTables)> {
        let log = dir.join("spark.log");
        let mut child = program(parts, WRITE_LIMIT, "write_tables.py")
            .arg(catalog.to_string())
            .arg(dir.join("classes"))
            .arg(filter)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(&log)?)
            .spawn()?;
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().context("Spark has no output")?);
        let mut spark = Self { child, input, output, log };
        let mut said = spark.line()?;
        let tables = said["tables"].take();
        let tables = tables.as_array().into_iter().flatten().map(|table| {
            let queries = table[1].as_array().into_iter().flatten();
            let answers = queries.map(|q| answer(text(&q[0]), &q[1], &q[2], q[3] == true)).collect();
            (text(&table[0]), answers)
        });
        let failures = said["failures"].as_array().into_iter().flatten().map(text).collect();
        let made = SparkTables { tables: tables.collect(), failures };
        Ok((spark, made))
    }

    /// Rows of a query; names are quoted as in PostgreSQL.
    pub fn ask(&mut self, query: &str) -> Result<SparkAnswer> {
        let input = self.input.as_mut().context("Spark is stopped")?;
        writeln!(input, "{}", query.replace('\n', " "))?;
        input.flush()?;
        let said = self.line()?;
        if let Some(error) = said.get("error") {
            let lines: Vec<String> = error.as_array().into_iter().flatten().map(text).collect();
            bail!("Spark refuses {query}:\n{}", lines.join("\n"));
        }
        Ok(answer(query.to_owned(), &said[0], &said[1], false))
    }

    /// How long each table took.
    pub fn log(&self) -> &Path {
        &self.log
    }

    fn line(&mut self) -> Result<Value> {
        let mut line = String::new();
        if self.output.read_line(&mut line)? == 0 {
            let status = self.child.wait()?;
            let why = if status.code() == Some(124) { " for taking too long" } else { "" };
            bail!("Spark ended{why} ({status}); end of its log:\n{}", tail(&self.log, 60));
        }
        serde_json::from_str(&line).with_context(|| format!("Spark said: {line}"))
    }
}

impl Drop for Spark {
    fn drop(&mut self) {
        // The end of its input is the end of the script, and with it of the JVM.
        drop(self.input.take());
        let _ = self.child.wait();
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn answer(query: String, columns: &Value, rows: &Value, may_be_refused: bool) -> SparkAnswer {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let row = |row: &Value| list(row).iter().map(|v| v.as_str().map(str::to_owned)).collect();
    let (columns, rows) = (list(columns).iter().map(text).collect(), list(rows).iter().map(row).collect());
    SparkAnswer { query, columns, rows, may_be_refused }
}
