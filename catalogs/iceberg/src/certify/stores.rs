use std::io::Write;
use std::sync::Arc;

use bytes::Bytes;
use tidewater_catalogs::{BlobStore, ErrorKind};
use uuid::Uuid;

use super::{Options, options};
use crate::storage::{Storage, finish_files};
use crate::{IcebergLake, SqlLakeOptions};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_disk_is_a_store() {
    let directory = tempfile::tempdir().unwrap();
    certify(directory.path().to_str().unwrap(), &Options::new()).await;
}

/// A JSON list of `{"warehouse": "s3://…", options}`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs object stores: cargo xtask e2e"]
async fn object_stores_are_stores() {
    let text = std::env::var("TIDEWATER_TEST_STORES").expect("TIDEWATER_TEST_STORES is not set: run `cargo xtask e2e`");
    let stores: Vec<Options> = serde_json::from_str(&text).unwrap();
    assert!(!stores.is_empty());
    for mut store in stores {
        let warehouse = store.remove("warehouse").unwrap();
        println!("{warehouse}");
        certify(&warehouse, &store).await;
        if warehouse.starts_with("s3:") {
            a_wrong_secret_is_told(&warehouse, &store).await;
        }
        tables_live_there(&warehouse, &store).await;
    }
}

async fn certify(warehouse: &str, options: &Options) {
    let storage = Storage::open(warehouse, options).unwrap();
    let root = format!("{}/certify-{}", storage.warehouse(), Uuid::new_v4());
    let at = |name: &str| format!("{root}/{name}");
    let bytes = |text: &'static str| Bytes::from_static(text.as_bytes());

    // Whole objects.
    storage.put_new(&at("a/one"), bytes("1")).await.unwrap();
    let taken = storage.put_new(&at("a/one"), bytes("2")).await.unwrap_err();
    assert_eq!(taken.kind(), ErrorKind::AlreadyExists);
    assert_eq!(storage.read(&at("a/one")).await.unwrap(), bytes("1"));
    assert_eq!(storage.read(&at("a/none")).await.unwrap_err().kind(), ErrorKind::NotFound);
    let two = vec![(at("a/b c=%20/two"), bytes("two")), (at("a/three"), Bytes::new())];
    storage.write_new(two).await.unwrap();
    assert_eq!(storage.read(&at("a/b c=%20/two")).await.unwrap(), bytes("two"));
    assert_eq!(storage.list(&at("a")).await.unwrap(), [at("a/b c=%20/two"), at("a/one"), at("a/three")]);
    storage.delete(vec![at("a/one"), at("a/one"), at("a/never")]).await.unwrap();
    assert_eq!(storage.list(&at("a")).await.unwrap(), [at("a/b c=%20/two"), at("a/three")]);

    // One of many writers of a name wins, and its content is what is there.
    let mut racing = Vec::new();
    for n in 0..8 {
        let (storage, at) = (storage.clone(), at("race"));
        racing.push(tokio::spawn(async move { storage.put_new(&at, Bytes::from(format!("{n}"))).await.map(|()| n) }));
    }
    let mut won = Vec::new();
    for racer in racing {
        match racer.await.unwrap() {
            Ok(n) => won.push(format!("{n}")),
            Err(e) => assert_eq!(e.kind(), ErrorKind::AlreadyExists, "{e}"),
        }
    }
    let [winner] = won.as_slice() else { panic!("{won:?} all won") };
    assert_eq!(storage.read(&at("race")).await.unwrap(), winner.as_bytes());

    // Files in pieces: empty, smaller than a part, exactly two parts, and more.
    for size in [0_usize, 1000, 16 << 20, (20 << 20) + 17] {
        let (to, name) = (storage.clone(), at(&format!("data/{size}")));
        let written = tokio::task::spawn_blocking(move || {
            let mut sink = to.create(&name).unwrap();
            let piece: Vec<u8> = (0..100_003_u32).map(|i| (i % 251) as u8).collect();
            let mut left = size;
            while left > 0 {
                let n = left.min(piece.len());
                sink.write_all(&piece[..n]).unwrap();
                left -= n;
            }
            assert!(sink.held_bytes() <= 16 << 20);
            let file = sink.written().unwrap();
            finish_files(vec![file]).unwrap();
            name
        });
        let read = storage.read(&written.await.unwrap()).await.unwrap();
        assert_eq!(read.len(), size);
        assert!(read.iter().enumerate().all(|(i, b)| usize::from(*b) == i % 100_003 % 251));
    }

    // What is given up in the middle is not there.
    if ObjectStores::hold(warehouse) {
        let (to, name) = (storage.clone(), at("given-up"));
        let dropped = tokio::task::spawn_blocking(move || {
            let mut sink = to.create(&name).unwrap();
            sink.write_all(&vec![7; 20 << 20]).unwrap();
            drop(sink);
            name
        });
        let name = dropped.await.unwrap();
        assert_eq!(storage.read(&name).await.unwrap_err().kind(), ErrorKind::NotFound);
    }

    storage.delete_tree(&root).await.unwrap();
    assert!(storage.list(&root).await.unwrap().is_empty());
    storage.delete_tree(&root).await.unwrap();
}

struct ObjectStores;

impl ObjectStores {
    fn hold(warehouse: &str) -> bool {
        warehouse.contains("://")
    }
}

async fn a_wrong_secret_is_told(warehouse: &str, with: &Options) {
    let mut wrong = with.clone();
    wrong.extend(options(&[("s3.secret-access-key", "no")]));
    let storage = Storage::open(warehouse, &wrong).unwrap();
    let e = storage.read(&format!("{warehouse}/x")).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::PermissionDenied, "{e}");
    assert!(e.hint().is_some());
}

/// The warehouse of a SQL catalog: tables, and checkpoints beside them.
async fn tables_live_there(warehouse: &str, with: &Options) {
    use crate::tests::{append, new_table, query, rows};
    use tidewater_catalogs::LakeCatalog;
    let directory = tempfile::tempdir().unwrap();
    let mut options = SqlLakeOptions::local(directory.path().join("c.db"), format!("{warehouse}/{}", Uuid::new_v4()));
    options.store = with.clone();
    let lake = Arc::new(IcebergLake::open_home(options).await.unwrap());
    let table = lake.create_table(new_table("t", vec![])).await.unwrap();
    append(table.as_ref(), vec![rows(0, 1000)]).await.unwrap();
    append(table.as_ref(), vec![rows(1000, 1500)]).await.unwrap();
    let table = lake.load_table(&table.info().name.clone()).await.unwrap();
    let counted = query(table.as_ref(), "SELECT count(*), sum(id), count(name) FROM t WHERE id >= 500").await;
    let sum: i64 = (500..1500).sum();
    let counted = arrow::util::pretty::pretty_format_batches(&counted).unwrap().to_string();
    assert!(counted.contains("1000") && counted.contains(&sum.to_string()), "{counted}");
    let blobs = lake.blobs();
    blobs.put_new("f/ckpt/1.json", Bytes::from_static(b"one")).await.unwrap();
    assert_eq!(blobs.list("f/").await.unwrap(), ["f/ckpt/1.json"]);
    lake.drop_table(&table.info().name.clone(), None, true).await.unwrap();
}
