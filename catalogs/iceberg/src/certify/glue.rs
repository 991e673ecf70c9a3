//! Glue, against a server that fails in all the ways it may.

use std::time::Duration;

use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use serde_json::json;
use tidewater_catalogs::{CatalogConnector, CommitReply, ErrorKind, TableName};

use super::catalogs::{FLOW, Scene, begin, certify, request, staged, valid};
use super::glue_server::{Fault, GlueServer};
use crate::GlueConnector;
use crate::tests::{append, rows, schema};

const LATE: Fault = Fault::Late(Duration::from_millis(150));

async fn scene() -> (GlueServer, tempfile::TempDir, Scene) {
    let (server, directory) = (GlueServer::start().await, tempfile::tempdir().unwrap());
    let scene = Scene::new(&server.catalog(directory.path())).await;
    (server, directory, scene)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn glue_is_a_catalog() {
    let (server, directory) = (GlueServer::start().await, tempfile::tempdir().unwrap());
    certify(&server.catalog(directory.path())).await;
}

/// Moto, or a catalog in AWS: `TIDEWATER_TEST_GLUE` holds the options, as JSON.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a Glue of one's own"]
async fn another_glue_is_a_catalog() {
    let directory = tempfile::tempdir().unwrap();
    let mut with = super::part("TIDEWATER_TEST_GLUE");
    with.entry("warehouse".to_string()).or_insert_with(|| directory.path().to_str().unwrap().to_string());
    let spec = super::catalogs::spec("glue", with);
    let scene = Scene::new(&spec).await;
    let table = scene.one.create_table(scene.new_table("t", vec![])).await.unwrap();
    append(table.as_ref(), vec![rows(0, 10)]).await.unwrap();
    append(table.as_ref(), vec![rows(10, 15)]).await.unwrap();
    assert_eq!(scene.count("t").await, 15);
    assert_eq!(scene.two.list_tables("c", &scene.schema).await.unwrap(), [scene.name("t")]);
    scene.two.drop_table(&scene.name("t"), None, true).await.unwrap();
    scene.two.drop_schema("c", &scene.schema).await.unwrap();
}

/// Whatever became of an answer, the anchor tells; what was not done is sent again, and a request that is late loses.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_is_made_once_whatever_glue_answers() {
    let (server, _directory, scene) = scene().await;
    let table = scene.make("flow").await;
    let mut head = begin(table.as_ref()).await;
    let mut expected = 0;
    for (fault, unknown, done) in [
        (Fault::Lost, true, true),
        (Fault::ErrorAfter, true, true),
        (Fault::ErrorBefore, true, false),
        (LATE, true, false),
        (Fault::Throttled, false, true),
        (Fault::Conflict, false, false),
        (Fault::NoRights, false, false),
    ] {
        let before = valid(&head);
        let request = request(Some(&before), staged(table.as_ref(), expected, expected + 10).await);
        server.fail("UpdateTable", fault);
        match table.try_commit(&head, &request).await {
            CommitReply::Unknown(_) => assert!(unknown, "{fault:?}"),
            CommitReply::Committed(_) => assert!(!unknown && done, "{fault:?}"),
            CommitReply::Refused(e) => {
                assert!(!unknown && !done, "{fault:?}: {e}");
                let kind = if fault == Fault::Conflict { ErrorKind::Conflict } else { ErrorKind::PermissionDenied };
                assert_eq!(e.kind(), kind, "{e}");
            }
        }
        assert!(server.all_failed());
        head = table.load_head(FLOW).await.unwrap();
        if done {
            assert_eq!(valid(&head).commit_uuid, request.commit_uuid, "{fault:?}");
        } else {
            assert_eq!(valid(&head), before, "{fault:?}");
            match table.try_commit(&head, &request).await {
                CommitReply::Committed(next) => head = next,
                other => panic!("{fault:?}: {other:?}"),
            }
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
        expected += 10;
        assert_eq!(scene.count("flow").await, expected, "{fault:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_insert_arrives_once_whatever_glue_answers() {
    let (server, _directory, scene) = scene().await;
    let table = scene.one.create_table(scene.new_table("t", vec![])).await.unwrap();
    let mut expected = 0;
    for fault in [Fault::Lost, Fault::ErrorAfter, Fault::ErrorBefore, LATE, Fault::Throttled, Fault::Conflict] {
        server.fail("UpdateTable", fault);
        // Looks that fail are made again.
        server.fail("GetTable", Fault::ErrorBefore);
        server.fail("GetTable", Fault::Throttled);
        server.fail("GetTable", Fault::Lost);
        assert_eq!(append(table.as_ref(), vec![rows(expected, expected + 10)]).await.unwrap(), 10, "{fault:?}");
        assert!(server.all_failed());
        tokio::time::sleep(Duration::from_millis(200)).await;
        expected += 10;
        assert_eq!(scene.count("t").await, expected, "{fault:?}");
    }
    // Somebody else's change of the entry is no change of the rows.
    let updates = server.served("UpdateTable");
    server.change(&scene.schema, "t", |entry| entry["Parameters"]["crawler"] = json!("was here"));
    append(table.as_ref(), vec![rows(expected, expected + 1)]).await.unwrap();
    assert_eq!(server.served("UpdateTable"), updates + 1);
    let entry = server.entry(&scene.schema, "t");
    assert_eq!(entry["Parameters"]["crawler"], "was here");
    assert_eq!(entry["TableType"], "EXTERNAL_TABLE");
    assert_eq!(entry["Description"], "kept");
    let state = scene.two.load_table(&scene.name("t")).await.unwrap();
    assert_eq!(entry["Parameters"]["metadata_location"], state.info().metadata_location);
    assert!(entry["Parameters"]["previous_metadata_location"].as_str().unwrap().ends_with(".metadata.json"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_are_made_and_dropped_though_answers_are_lost() {
    let (server, _directory, scene) = scene().await;
    for fault in [Fault::Lost, Fault::ErrorAfter] {
        let name = format!("made_{}", u8::from(fault == Fault::Lost));
        server.fail("CreateTable", fault);
        scene.one.create_table(scene.new_table(&name, vec![])).await.unwrap();
        assert_eq!(scene.count(&name).await, 0);
        server.fail("DeleteTable", fault);
        scene.two.drop_table(&scene.name(&name), None, true).await.unwrap();
        let gone = scene.one.load_table(&scene.name(&name)).await.unwrap_err();
        assert_eq!(gone.kind(), ErrorKind::NotFound);
    }
    // One that may come to be later keeps its files.
    let mut filled = scene.one.stage_table(scene.new_table("late", vec![])).await.unwrap();
    let batches = futures::stream::iter([Ok(rows(0, 50))]);
    filled.fill(Box::pin(RecordBatchStreamAdapter::new(schema(), batches)), &crate::tests::runner()).await.unwrap();
    server.fail("CreateTable", LATE);
    assert_eq!(filled.publish().await.unwrap_err().kind(), ErrorKind::CommitUnknown);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(scene.count("late").await, 50);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_places_and_tables_of_others() {
    let (server, directory, scene) = scene().await;
    for n in 0..5 {
        scene.make(&format!("t{n}")).await;
    }
    server.change(&scene.schema, "hive", |entry| entry["Parameters"] = json!({"classification": "csv"}));
    let listed = scene.two.list_tables("c", &scene.schema).await.unwrap();
    assert_eq!(listed, (0..5).map(|n| scene.name(&format!("t{n}"))).collect::<Vec<_>>());
    assert_eq!(scene.one.load_table(&scene.name("hive")).await.unwrap_err().kind(), ErrorKind::Unsupported);
    // Glue would find it.
    assert_eq!(scene.one.load_table(&scene.name("T1")).await.unwrap_err().kind(), ErrorKind::NotFound);
    for name in ["T", "a b", "a-b", ""] {
        let refused = scene.one.create_table(scene.new_table(name, vec![])).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::InvalidInput, "{name}");
    }
    assert_eq!(scene.one.create_schema("c", "a.b").await.unwrap_err().kind(), ErrorKind::InvalidInput);

    let elsewhere = directory.path().join("elsewhere");
    std::fs::create_dir(&elsewhere).unwrap();
    server.locate(&scene.schema, &format!("file://{}/", elsewhere.display()));
    let table = scene.one.create_table(scene.new_table("placed", vec![])).await.unwrap();
    assert!(table.info().location.starts_with(&format!("file://{}/placed-", elsewhere.display())));
    let table = scene.two.load_table(&scene.name("placed")).await.unwrap();
    append(table.as_ref(), vec![rows(0, 5)]).await.unwrap();
    assert_eq!(scene.count("placed").await, 5);

    let mut nowhere = server.catalog(directory.path());
    nowhere.options.remove("warehouse");
    let nowhere = GlueConnector.open(&nowhere).await.unwrap();
    nowhere.create_schema("c", "bare").await.unwrap();
    let mut table = scene.new_table("t", vec![]);
    table.name = TableName::new("c", "bare", "t");
    let e = nowhere.create_table(table).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::InvalidInput);
    assert!(e.hint().unwrap().contains("warehouse"), "{e}");
    nowhere.drop_schema("c", "bare").await.unwrap();

    let mut wrong = server.catalog(directory.path());
    wrong.options.insert("access_key_id".to_string(), "OTHER".to_string());
    let wrong = GlueConnector.open(&wrong).await.unwrap();
    let e = wrong.list_schemas("c").await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::PermissionDenied);
    assert!(e.hint().is_some());
}

/// No region is read from the environment of a test.
#[tokio::test]
async fn options_are_checked() {
    let server = GlueServer::start().await;
    let good = server.catalog(std::path::Path::new("/tmp"));
    GlueConnector.check(&good).unwrap();
    for (name, value) in
        [("endpoint", Some("glue")), ("secret_access_key", None), ("s3.path-style-access", Some("maybe"))]
    {
        let mut bad = good.clone();
        match value {
            Some(value) => bad.options.insert(name.to_string(), value.to_string()),
            None => bad.options.remove(name),
        };
        assert_eq!(GlueConnector.check(&bad).unwrap_err().kind(), ErrorKind::InvalidInput, "{name}");
    }
}
