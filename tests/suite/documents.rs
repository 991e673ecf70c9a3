//! Every SQL block of the README and of `docs/` runs: one server and one broker per file, blocks from top to bottom.
//!
//! `localhost:9092` in a block is the development broker. The topics `orders` and `clicks` hold a few records.

use std::path::{Path, PathBuf};

use libtest_mimic::{Failed, Trial};
use tidewater_tests::{Client, EmbeddedServer};

pub fn trials() -> Vec<Trial> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut files = vec![root.join("README.md")];
    collect(&root.join("docs"), &mut files);
    files.sort();
    files
        .into_iter()
        .filter(|file| !blocks(file, "sql").is_empty())
        .map(|file| {
            let name = file.strip_prefix(&root).unwrap_or(&file).display().to_string();
            Trial::test(format!("documents/{name}"), move || run(&file))
        })
        .collect()
}

fn collect(dir: &Path, files: &mut Vec<PathBuf>) {
    for path in std::fs::read_dir(dir).into_iter().flatten().flatten().map(|e| e.path()) {
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|e| e == "md") {
            files.push(path);
        }
    }
}

/// The text of each block fenced as `language`.
pub fn blocks(file: &Path, language: &str) -> Vec<String> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    text.split(&format!("```{language}\n"))
        .skip(1)
        .filter_map(|rest| rest.split("```").next())
        .map(str::to_owned)
        .collect()
}

const RECORDS: &str = r#"
CREATE CONNECTION documents TO KAFKA WITH (brokers = 'localhost:9092');
CREATE STREAM documents_orders (value TEXT)
  WITH (connection = 'documents', topic = 'orders', format = 'text', create_topic = true);
INSERT INTO documents_orders VALUES
  ('{"id":1,"customer":"ann","total":120.5,"items":[{"sku":"a","quantity":2}],"ordered_at":"2026-01-01T10:00:00Z"}'),
  ('{"id":2,"customer":"bob","total":3,"items":[],"ordered_at":"2026-01-02T10:00:00Z"}'),
  ('{"id":');
CREATE STREAM documents_clicks (value TEXT)
  WITH (connection = 'documents', topic = 'clicks', format = 'text', create_topic = true);
INSERT INTO documents_clicks VALUES
  ('{"click_id":"c1","user_id":7,"url":"/a","clicked_at":"2026-01-01T10:00:00Z"}'),
  ('{"click_id":"c2","user_id":8,"url":"/b","clicked_at":"2026-01-01T10:00:01Z"}');
DROP STREAM documents_orders;
DROP STREAM documents_clicks;
DROP CONNECTION documents;
"#;

fn run(file: &Path) -> Result<(), Failed> {
    let server = EmbeddedServer::start(&[])?;
    let broker = server.broker_addr().to_string();
    let client = Client::connect(server.pg_addr())?;
    let run = |sql: &str| client.run(&sql.replace("localhost:9092", &broker)).map_err(|e| format!("{e}\nin:\n{sql}"));
    run(RECORDS)?;
    for block in blocks(file, "sql") {
        run(&block)?;
    }
    Ok(())
}
