//! Runs `.slt` files: SQL in, rows or SQLSTATE out, through the Postgres protocol.
//!
//! With `control substitution on` a file may say `${BROKER}`, the address of its development broker.
//! `TIDEWATER_SLT_UPDATE=1` (or `cargo xtask slt --update`) rewrites the expected results.

use std::path::{Path, PathBuf};
use std::time::Duration;

use libtest_mimic::{Failed, Trial};
use sqllogictest::{AsyncDB, DBOutput, DefaultColumnType, Runner};
use tidewater_tests::{EmbeddedServer, SqlFailure, connect};
use tokio_postgres::SimpleQueryMessage;

pub fn trials() -> Vec<Trial> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("slt");
    let mut files = Vec::new();
    collect(&root, &mut files);
    files.sort();
    files
        .into_iter()
        .map(|file| {
            let name = file.strip_prefix(&root).unwrap_or(&file).with_extension("");
            Trial::test(format!("slt/{}", name.display()), move || run(&file))
        })
        .collect()
}

fn collect(dir: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|e| e == "slt") {
            files.push(path);
        }
    }
}

fn run(file: &Path) -> Result<(), Failed> {
    let server = EmbeddedServer::start(&[])?;
    let addr = server.pg_addr();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(async {
        let mut runner = Runner::new(move || async move { connect(addr).await.map(Connection) });
        runner.set_var("BROKER".to_owned(), server.broker_addr().to_string());
        runner.set_var("DIR".to_owned(), server.dir().display().to_string());
        if std::env::var_os("TIDEWATER_SLT_UPDATE").is_some() {
            let validator = sqllogictest::default_validator;
            let columns = sqllogictest::default_column_validator;
            let update = runner.update_test_file(file, " ", validator, sqllogictest::default_normalizer, columns);
            return update.await.map_err(|e| Failed::from(e.to_string()));
        }
        runner.run_file_async(file).await.map_err(|e| Failed::from(e.display(false).to_string()))
    })
}

struct Connection(tokio_postgres::Client);

#[async_trait::async_trait]
impl AsyncDB for Connection {
    type Error = SqlFailure;
    type ColumnType = DefaultColumnType;

    async fn run(&mut self, sql: &str) -> Result<DBOutput<Self::ColumnType>, SqlFailure> {
        let messages = self.0.simple_query(sql).await?;
        let mut rows = Vec::new();
        let mut columns = None;
        let mut complete = 0;
        for message in &messages {
            match message {
                SimpleQueryMessage::RowDescription(described) => columns = Some(described.len()),
                SimpleQueryMessage::Row(row) => {
                    let text = |i| match row.get(i) {
                        None => "NULL".to_owned(),
                        Some("") => "(empty)".to_owned(),
                        // A row is a line.
                        Some(value) => value.replace('\n', "\\n"),
                    };
                    rows.push((0..row.len()).map(text).collect());
                }
                SimpleQueryMessage::CommandComplete(n) => complete = *n,
                _ => (),
            }
        }
        Ok(match columns {
            Some(n) => DBOutput::Rows { types: vec![DefaultColumnType::Any; n], rows },
            None => DBOutput::StatementComplete(complete),
        })
    }

    async fn shutdown(&mut self) {}

    fn engine_name(&self) -> &str {
        "tidewater"
    }

    async fn sleep(duration: Duration) {
        tokio::time::sleep(duration).await;
    }

    fn error_sql_state(e: &SqlFailure) -> Option<String> {
        Some(e.state.clone())
    }
}
