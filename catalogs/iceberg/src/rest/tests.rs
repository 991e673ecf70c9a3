#![allow(clippy::unwrap_used, clippy::expect_used)]
//! Against a server that answers what the test says.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use iceberg::TableRequirement;
use parking_lot::Mutex;
use tidewater_catalogs::{ErrorKind, TableName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::{Posted, RestCatalog, RestOptions};
use crate::new_table::new_metadata;
use crate::storage::Storage;
use crate::tests::new_table;

/// Status and body; None cuts the connection.
type Reply = Option<(u16, String)>;

#[derive(Debug, Clone)]
struct Call {
    line: String,
    authorization: Option<String>,
    delegation: bool,
    body: String,
}

#[derive(Clone)]
struct Server {
    uri: String,
    calls: Arc<Mutex<Vec<Call>>>,
}

impl Server {
    async fn start(reply: impl Fn(&Call) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Self { uri: format!("http://{}", listener.local_addr().unwrap()), calls: Arc::default() };
        let (calls, reply) = (Arc::clone(&server.calls), Arc::new(reply));
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(serve(client, Arc::clone(&calls), Arc::clone(&reply)));
            }
        });
        server
    }

    fn count(&self, piece: &str) -> usize {
        self.calls.lock().iter().filter(|c| c.line.contains(piece)).count()
    }

    fn options(&self) -> RestOptions {
        RestOptions { uri: self.uri.clone(), ..RestOptions::default() }
    }
}

async fn serve(
    mut client: TcpStream,
    calls: Arc<Mutex<Vec<Call>>>,
    reply: Arc<impl Fn(&Call) -> Reply + Send + Sync + 'static>,
) {
    let mut seen = Vec::new();
    let mut buffer = [0; 4096];
    let head = loop {
        if let Some(at) = seen.windows(4).position(|w| w == b"\r\n\r\n") {
            break at + 4;
        }
        match client.read(&mut buffer).await {
            Ok(n) if n > 0 => seen.extend_from_slice(&buffer[..n]),
            _ => return,
        }
    };
    let text = String::from_utf8_lossy(&seen[..head]).into_owned();
    let header = |name: &str| {
        let found = text.lines().find_map(|l| l.split_once(": ").filter(|(n, _)| n.eq_ignore_ascii_case(name)));
        found.map(|(_, value)| value.to_string())
    };
    let length: usize = header("content-length").map_or(0, |l| l.parse().unwrap());
    while seen.len() < head + length {
        let n = client.read(&mut buffer).await.unwrap();
        assert!(n > 0);
        seen.extend_from_slice(&buffer[..n]);
    }
    let call = Call {
        line: text.lines().next().unwrap().to_string(),
        authorization: header("authorization"),
        delegation: header("x-iceberg-access-delegation").is_some(),
        body: String::from_utf8_lossy(&seen[head..]).into_owned(),
    };
    calls.lock().push(call.clone());
    if let Some((status, body)) = reply(&call) {
        let length = body.len();
        // What a store says of each object.
        let object = "etag: \"1\"\r\nlast-modified: Thu, 01 Jan 2026 00:00:00 GMT\r\n";
        let answer =
            format!("HTTP/1.1 {status} X\r\n{object}content-length: {length}\r\nconnection: close\r\n\r\n{body}");
        client.write_all(answer.as_bytes()).await.unwrap();
    }
}

fn table_answer(extra: &str) -> String {
    let mut table = new_table("t", vec![]);
    table.location = Some("s3://b/w/t".to_string());
    let metadata = new_metadata(&Storage::of_tables(&Default::default()), None, &Default::default(), table).unwrap();
    let metadata = serde_json::to_string(&metadata).unwrap();
    format!(r#"{{"metadata-location":"s3://b/w/t/metadata/1.json","metadata":{metadata}{extra}}}"#)
}

fn config(call: &Call, config: &str) -> Reply {
    call.line.contains("/v1/config").then(|| (200, config.to_string()))
}

const PLAIN: &str = r#"{"defaults":{},"overrides":{}}"#;

fn name() -> TableName {
    TableName::new("c", "a.b", "t 1")
}

async fn commit(server: &Server) -> Posted {
    let catalog = RestCatalog::new(server.options()).unwrap();
    catalog.commit(&name(), &[TableRequirement::NotExist], &[]).await
}

#[tokio::test]
async fn a_commit_is_sent_once_and_its_answer_taken_for_what_it_is() {
    let whole = table_answer("");
    let cut = whole[..whole.len() / 2].to_string();
    for (reply, expected) in [
        (Some((200, whole)), "done"),
        (Some((409, "{}".to_string())), "moved"),
        (Some((400, r#"{"error":{"message":"no","code":400}}"#.to_string())), "refused InvalidInput"),
        (Some((401, String::new())), "refused PermissionDenied"),
        (Some((403, String::new())), "refused PermissionDenied"),
        (Some((404, String::new())), "refused NotFound"),
        (Some((419, String::new())), "refused PermissionDenied"),
        (Some((429, String::new())), "refused Unavailable"),
        (Some((408, String::new())), "unknown"),
        (Some((500, String::new())), "unknown"),
        (Some((502, String::new())), "unknown"),
        (Some((503, String::new())), "unknown"),
        (Some((504, String::new())), "unknown"),
        (Some((307, String::new())), "unknown"),
        (Some((204, String::new())), "unknown"),
        (Some((200, cut)), "unknown"),
        (Some((200, "{}".to_string())), "unknown"),
        (None, "unknown"),
    ] {
        let shown = format!("{:?}", reply.as_ref().map(|(status, _)| *status));
        let server = Server::start(move |call| config(call, PLAIN).or_else(|| reply.clone())).await;
        let found = match commit(&server).await {
            Posted::Done(_) => "done".to_string(),
            Posted::Moved => "moved".to_string(),
            Posted::Refused(e) => format!("refused {:?}", e.kind()),
            Posted::Unknown(_) => "unknown".to_string(),
        };
        assert_eq!(found, expected, "{shown}");
        assert_eq!(server.count("POST /v1/namespaces/a%1Fb/tables/t%201"), 1, "{shown}");
    }
}

#[tokio::test]
async fn a_commit_that_never_left_is_refused() {
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri = format!("http://{}", gone.local_addr().unwrap());
    drop(gone);
    let catalog = RestCatalog::new(RestOptions { uri, ..RestOptions::default() }).unwrap();
    match catalog.commit(&name(), &[], &[]).await {
        Posted::Refused(e) => assert_eq!(e.kind(), ErrorKind::Unavailable),
        _ => panic!("something was sent"),
    }
}

#[tokio::test]
async fn the_catalog_says_where_and_how() {
    let extra = r#","config":{"s3.region":"of the table","s3.access-key-id":"k"},
        "storage-credentials":[{"prefix":"s3://b","config":{"s3.secret-access-key":"of the bucket"}},
            {"prefix":"s3://b/w/t","config":{"s3.secret-access-key":"of the table"}},
            {"prefix":"s3://other/bucket/that/is/longer","config":{"s3.secret-access-key":"of another"}}]"#;
    let table = table_answer(extra);
    let answer = r#"{"defaults":{"s3.endpoint":"default","s3.region":"default"},
        "overrides":{"prefix":"ws/one","namespace-separator":"%2E","s3.path-style-access":"true"}}"#;
    let server = Server::start(move |call| config(call, answer).or_else(|| Some((200, table.clone())))).await;
    let mut options = server.options();
    options.warehouse = Some("w 1".to_string());
    options.vended_credentials = true;
    options.store.insert("s3.endpoint".to_string(), "ours".to_string());
    let catalog = RestCatalog::new(options).unwrap();
    let loaded = catalog.load(&name()).await.unwrap();
    assert_eq!(server.count("GET /v1/config?warehouse=w+1 "), 1);
    assert_eq!(server.count("GET /v1/ws/one/namespaces/a%2Eb/tables/t%201?snapshots=all "), 1);
    assert!(server.calls.lock().iter().all(|call| call.delegation));
    let expected = [
        ("s3.access-key-id", "k"),
        ("s3.endpoint", "ours"),
        ("s3.path-style-access", "true"),
        ("s3.region", "of the table"),
        ("s3.secret-access-key", "of the table"),
    ];
    let found: Vec<_> = loaded.options.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    assert_eq!(found, expected);
    // Asked once.
    catalog.load(&name()).await.unwrap();
    assert_eq!(server.count("/v1/config"), 1);
}

/// A scan or a writer keeps the stores that it began with, for longer than credentials last.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn open_stores_go_on_with_renewed_credentials() {
    let store =
        Server::start(|call| Some((200, if call.line.starts_with("GET") { "data" } else { "" }.to_string()))).await;
    let keys = |store: &Server| -> Vec<String> {
        let key = |call: &Call| {
            let signed = call.authorization.clone().unwrap();
            signed.split("Credential=").nth(1).unwrap().split('/').next().unwrap().to_string()
        };
        store.calls.lock().drain(..).map(|call| key(&call)).collect()
    };
    let (loads, endpoint) = (Arc::new(AtomicUsize::new(0)), store.uri.clone());
    let counted = Arc::clone(&loads);
    let server = Server::start(move |call| {
        config(call, PLAIN).or_else(|| {
            let n = counted.fetch_add(1, Ordering::SeqCst) + 1;
            // Renewed two minutes before their end: the first and the second in two seconds.
            let life_ms = if n < 3 { 122_000 } else { 3_600_000 };
            let end = chrono::Utc::now().timestamp_millis() + life_ms;
            let with = format!(
                r#","config":{{"s3.endpoint":"{endpoint}","s3.region":"r","s3.access-key-id":"key{n}",
                "s3.secret-access-key":"s","s3.session-token-expires-at-ms":"{end}"}}"#
            );
            Some((200, table_answer(&with)))
        })
    })
    .await;
    let mut options = server.options();
    options.vended_credentials = true;
    let catalog = Arc::new(RestCatalog::new(options).unwrap());
    let loaded = catalog.load(&name()).await.unwrap();
    let storage = catalog.storage(&Storage::of_tables(&Default::default()), &name(), &loaded).unwrap();
    let at = |n: usize| format!("s3://b/w/t/{n}");

    assert_eq!(storage.read(&at(0)).await.unwrap().as_ref(), b"data");
    storage.put_new(&at(1), "new".into()).await.unwrap();
    assert_eq!((keys(&store), loads.load(Ordering::SeqCst)), (vec!["key1".to_string(); 2], 1));
    for (round, key) in [(2, "key2"), (3, "key3")] {
        tokio::time::sleep(std::time::Duration::from_millis(2_100)).await;
        // All at once, as the parts of a scan and of a writer ask; one of them has the credentials renewed.
        let reads = futures::future::join_all((0..8).map(|n| {
            let (storage, at) = (storage.clone(), at(n));
            async move { storage.read(&at).await }
        }));
        let writes = storage.write_new((10..14).map(|n| (at(n), "new".into())).collect());
        let (read, written) = tokio::join!(reads, writes);
        written.unwrap();
        assert!(read.iter().all(Result::is_ok));
        assert_eq!(keys(&store), vec![key.to_string(); 12]);
        assert_eq!(loads.load(Ordering::SeqCst), round);
    }
    // Good for an hour.
    tokio::time::sleep(std::time::Duration::from_millis(2_100)).await;
    storage.read(&at(0)).await.unwrap();
    assert_eq!((keys(&store), loads.load(Ordering::SeqCst)), (vec!["key3".to_string()], 3));
}

#[tokio::test]
async fn a_look_is_repeated_where_the_server_stumbles() {
    let table = table_answer("");
    let calls = AtomicUsize::new(0);
    let server = Server::start(move |call| {
        config(call, PLAIN).or_else(|| match calls.fetch_add(1, Ordering::SeqCst) {
            0 => Some((503, String::new())),
            1 => None,
            _ => Some((200, table.clone())),
        })
    })
    .await;
    let catalog = RestCatalog::new(server.options()).unwrap();
    catalog.load(&name()).await.unwrap();
    assert_eq!(server.count("GET /v1/namespaces"), 3);
}

#[tokio::test]
async fn tokens_are_fetched_renewed_and_replaced() {
    let table = table_answer("");
    let given = Arc::new(AtomicUsize::new(0));
    let revoked = Arc::new(AtomicUsize::new(0));
    let (give, revoke) = (Arc::clone(&given), Arc::clone(&revoked));
    let server = Server::start(move |call| {
        if call.line.contains("/v1/oauth/tokens") {
            let n = give.fetch_add(1, Ordering::SeqCst) + 1;
            return Some((200, format!(r#"{{"access_token":"token{n}","token_type":"bearer","expires_in":3600}}"#)));
        }
        let refused = format!("Bearer token{}", revoke.load(Ordering::SeqCst));
        match call.authorization.as_deref() {
            None => Some((401, String::new())),
            Some(token) if token == refused => Some((419, String::new())),
            Some(_) => config(call, PLAIN).or_else(|| Some((200, table.clone()))),
        }
    })
    .await;
    let mut options = server.options();
    options.credential = Some("id:se:cret&".to_string());
    options.scope = Some("PRINCIPAL_ROLE:ALL".to_string());
    let catalog = RestCatalog::new(options).unwrap();
    catalog.load(&name()).await.unwrap();
    catalog.load(&name()).await.unwrap();
    assert_eq!(given.load(Ordering::SeqCst), 1);
    let asked = server.calls.lock()[0].body.clone();
    let expected = "grant_type=client_credentials&scope=PRINCIPAL_ROLE%3AALL&client_id=id&client_secret=se%3Acret%26";
    assert_eq!(asked, expected);
    // It runs out: a new one, and the request again, a commit too, as nothing was done.
    revoked.store(1, Ordering::SeqCst);
    let before = server.count("POST /v1/namespaces");
    assert!(matches!(catalog.commit(&name(), &[], &[]).await, Posted::Done(_)));
    assert_eq!(server.count("POST /v1/namespaces") - before, 2);
    assert_eq!(given.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_wrong_secret_is_told_without_it() {
    let server = Server::start(|_| Some((401, String::new()))).await;
    let mut options = server.options();
    options.credential = Some("id:hush".to_string());
    let catalog = RestCatalog::new(options.clone()).unwrap();
    let e = catalog.load(&name()).await.err().unwrap();
    assert_eq!(e.kind(), ErrorKind::PermissionDenied);
    assert!(e.hint().unwrap().contains("credential") && !format!("{e:?}{e}{options:?}").contains("hush"));
}
