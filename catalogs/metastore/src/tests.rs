#![allow(clippy::unwrap_used)]

use super::*;

fn stream(name: &str) -> Definition {
    Definition {
        kind: DefinitionKind::Stream,
        name: name.to_owned(),
        id: Uuid::new_v4(),
        sql: format!("CREATE STREAM {name} (a BIGINT)"),
        properties: BTreeMap::from([("k".to_owned(), "v\"'".to_owned())]),
        created_at_ms: 7,
        version: 0,
    }
}

#[tokio::test]
async fn definitions_outlive_the_process() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.db");
    let d = stream("lake.public.s");
    SqlMetastore::open(&path).await.unwrap().create(&d).await.unwrap();
    let again = SqlMetastore::open(&path).await.unwrap();
    assert_eq!(again.get(DefinitionKind::Stream, "lake.public.s").await.unwrap(), Some(d.clone()));
    assert_eq!(again.list().await.unwrap(), vec![d]);
    assert_eq!(again.get(DefinitionKind::Flow, "lake.public.s").await.unwrap(), None);
}

#[tokio::test]
async fn a_name_is_taken_once_per_kind() {
    let dir = tempfile::tempdir().unwrap();
    let store = SqlMetastore::open(&dir.path().join("m.db")).await.unwrap();
    store.create(&stream("s")).await.unwrap();
    let e = store.create(&stream("s")).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::AlreadyExists);
    let flow = Definition { kind: DefinitionKind::Flow, ..stream("s") };
    store.create(&flow).await.unwrap();
    assert!(store.drop(DefinitionKind::Stream, "s").await.unwrap());
    assert!(!store.drop(DefinitionKind::Stream, "s").await.unwrap());
}

#[tokio::test]
async fn a_stale_update_is_a_conflict() {
    let dir = tempfile::tempdir().unwrap();
    let store = SqlMetastore::open(&dir.path().join("m.db")).await.unwrap();
    let d = stream("s");
    store.create(&d).await.unwrap();
    store.update(&Definition { sql: "first".into(), ..d.clone() }).await.unwrap();
    let e = store.update(&Definition { sql: "second".into(), ..d.clone() }).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Conflict);
    let kept = store.get(DefinitionKind::Stream, "s").await.unwrap().unwrap();
    assert_eq!((kept.sql.as_str(), kept.version), ("first", 1));
    let e = store.update(&stream("gone")).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::NotFound);
}

#[cfg(unix)]
#[tokio::test]
async fn the_file_is_private() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.db");
    SqlMetastore::open(&path).await.unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
}

#[tokio::test]
#[ignore = "needs a PostgreSQL: cargo xtask e2e"]
async fn postgres_is_a_metastore() {
    let url = std::env::var("TIDEWATER_TEST_POSTGRES").unwrap();
    let (one, two) =
        (SqlMetastore::open_postgres(&url).await.unwrap(), SqlMetastore::open_postgres(&url).await.unwrap());
    let first = Definition { id: Uuid::now_v7(), ..stream("first") };
    let second = Definition { id: Uuid::now_v7(), ..stream("second") };
    one.create(&first).await.unwrap();
    two.create(&second).await.unwrap();
    assert_eq!(two.create(&first).await.unwrap_err().kind(), ErrorKind::AlreadyExists);
    assert_eq!(one.list().await.unwrap(), [first.clone(), second]);
    one.update(&Definition { sql: "CHANGED".to_owned(), ..first.clone() }).await.unwrap();
    assert_eq!(two.update(&first).await.unwrap_err().kind(), ErrorKind::Conflict);
    let found = two.get(DefinitionKind::Stream, "first").await.unwrap().unwrap();
    assert_eq!((found.sql.as_str(), found.version), ("CHANGED", 1));
    assert!(two.drop(DefinitionKind::Stream, "first").await.unwrap());
    assert!(!one.drop(DefinitionKind::Stream, "first").await.unwrap());
    assert_eq!(one.update(&found).await.unwrap_err().kind(), ErrorKind::NotFound);
}
