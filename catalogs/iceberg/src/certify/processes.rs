//! Two processes that add rows to one table at the same time.

use std::process::{Command, Stdio};

use tidewater_catalogs::{CatalogSpec, NewTable, TableName};

use super::catalogs::{count, ids};
use super::open;
use crate::tests::{append, rows, schema};

/// What a child is told, as JSON: kind, options, schema, first row.
const CHILD: &str = "TIDEWATER_TEST_CHILD";
const INSERTS: i64 = 10;

pub(super) async fn race(spec: &CatalogSpec, schema_name: &str) {
    let catalog = open(spec).await;
    let name = TableName::new("c", schema_name, "processes");
    let table = NewTable {
        name: name.clone(),
        schema: schema(),
        partition_by: Vec::new(),
        sort_by: Vec::new(),
        properties: Default::default(),
        defaults: Default::default(),
        location: None,
        comment: None,
    };
    catalog.create_table(table).await.unwrap();
    let children: Vec<_> = [0, 1000]
        .into_iter()
        .map(|first: i64| {
            let told = serde_json::json!([spec.kind, spec.options, schema_name, first]);
            Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "certify::processes::child", "--ignored", "--nocapture"])
                .env(CHILD, told.to_string())
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    for child in children {
        let output = tokio::task::spawn_blocking(|| child.wait_with_output()).await.unwrap().unwrap();
        let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success() && text.contains("1 passed"), "{text}");
    }
    assert_eq!(count(catalog.as_ref(), &name).await, 2 * INSERTS);
    assert_eq!(ids(catalog.as_ref(), &name).await.len() as i64, 2 * INSERTS);
}

#[tokio::test]
#[ignore = "one of the two processes"]
async fn child() {
    // Alone, among all ignored tests, it has nothing to do.
    let Ok(told) = std::env::var(CHILD) else { return };
    let (kind, options, schema, first): (String, super::Options, String, i64) = serde_json::from_str(&told).unwrap();
    let catalog = open(&CatalogSpec { name: "c".to_string(), kind, options }).await;
    let name = TableName::new("c", schema, "processes");
    for n in 0..INSERTS {
        let table = catalog.load_table(&name).await.unwrap();
        assert_eq!(append(table.as_ref(), vec![rows(first + n, first + n + 1)]).await.unwrap(), 1);
    }
}
