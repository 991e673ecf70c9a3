//! A server that speaks Glue's protocol, as far as a catalog needs it, and fails where it is told to.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tidewater_catalogs::CatalogSpec;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::catalogs::spec;
use super::options;

const REGION: &str = "eu-test-1";
const KEY: &str = "TESTKEY";
/// Items on one page of a list.
const PAGE: usize = 2;

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Fault {
    /// Served, and the connection ends without an answer.
    Lost,
    /// The connection ends, and the request is served after that.
    Late(Duration),
    /// Not served, though the answer does not say so.
    ErrorBefore,
    /// Served.
    ErrorAfter,
    Throttled,
    Conflict,
    NoRights,
}

#[derive(Default)]
struct Inside {
    databases: BTreeMap<String, Value>,
    tables: BTreeMap<(String, String), Value>,
    /// By action.
    faults: HashMap<String, VecDeque<Fault>>,
    served: HashMap<String, usize>,
}

#[derive(Clone)]
pub(super) struct GlueServer {
    uri: String,
    inside: Arc<Mutex<Inside>>,
}

type Answer = Result<Value, (&'static str, String)>;

impl GlueServer {
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Self { uri: format!("http://{}", listener.local_addr().unwrap()), inside: Arc::default() };
        let this = server.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(this.clone().serve(client));
            }
        });
        server
    }

    pub(super) fn catalog(&self, warehouse: &std::path::Path) -> CatalogSpec {
        let with = [
            ("endpoint", self.uri.as_str()),
            ("region", REGION),
            ("catalog_id", "123456789012"),
            ("access_key_id", KEY),
            ("secret_access_key", "secret"),
            ("session_token", "token"),
            ("warehouse", warehouse.to_str().unwrap()),
        ];
        spec("glue", options(&with))
    }

    /// What happens to the next request of this kind that no earlier fault happens to.
    pub(super) fn fail(&self, action: &str, fault: Fault) {
        self.inside.lock().faults.entry(action.to_string()).or_default().push_back(fault);
    }

    pub(super) fn all_failed(&self) -> bool {
        self.inside.lock().faults.values().all(VecDeque::is_empty)
    }

    pub(super) fn served(&self, action: &str) -> usize {
        self.inside.lock().served.get(action).copied().unwrap_or(0)
    }

    pub(super) fn entry(&self, database: &str, table: &str) -> Value {
        self.inside.lock().tables[&(database.to_string(), table.to_string())].clone()
    }

    /// As somebody else would change it, which makes another version of it.
    pub(super) fn change(&self, database: &str, table: &str, change: impl FnOnce(&mut Value)) {
        let mut inside = self.inside.lock();
        let entry = inside
            .tables
            .entry((database.to_string(), table.to_string()))
            .or_insert_with(|| json!({"DatabaseName": database, "Name": table, "VersionId": "0"}));
        change(entry);
        next_version(entry);
    }

    pub(super) fn locate(&self, database: &str, location: &str) {
        self.inside.lock().databases.get_mut(database).unwrap()["LocationUri"] = json!(location);
    }

    async fn serve(self, mut client: TcpStream) {
        let Some((head, body)) = read(&mut client).await else { return };
        let header = |name: &str| {
            let found = head.lines().find_map(|l| l.split_once(": ").filter(|(n, _)| n.eq_ignore_ascii_case(name)));
            found.map(|(_, value)| value.to_string()).unwrap_or_default()
        };
        let action = header("x-amz-target").strip_prefix("AWSGlue.").unwrap_or_default().to_string();
        if let Err(wrong) = signed(&header, &body) {
            return answer(&mut client, 403, &exception("InvalidSignatureException", &wrong)).await;
        }
        let request: Value = serde_json::from_slice(&body).unwrap();
        if request["CatalogId"] != "123456789012" {
            return answer(&mut client, 400, &exception("InvalidInputException", "another catalog")).await;
        }
        let fault = self.inside.lock().faults.get_mut(&action).and_then(VecDeque::pop_front);
        let internal = exception("InternalServiceException", "try again");
        match fault {
            Some(Fault::Throttled) => {
                return answer(&mut client, 400, &exception("ThrottlingException", "Rate exceeded")).await;
            }
            Some(Fault::Conflict) => {
                return answer(&mut client, 400, &exception("ConcurrentModificationException", "changed")).await;
            }
            Some(Fault::NoRights) => {
                return answer(&mut client, 400, &exception("AccessDeniedException", "no")).await;
            }
            Some(Fault::ErrorBefore) => return answer(&mut client, 500, &internal).await,
            Some(Fault::Late(wait)) => {
                drop(client);
                tokio::time::sleep(wait).await;
                let _ = self.act(&action, &request);
                return;
            }
            Some(Fault::Lost | Fault::ErrorAfter) | None => {}
        }
        let done = self.act(&action, &request);
        match (fault, done) {
            (Some(Fault::Lost), _) => {}
            (Some(Fault::ErrorAfter), _) => answer(&mut client, 500, &internal).await,
            (_, Ok(said)) => answer(&mut client, 200, &said).await,
            (_, Err((kind, message))) => answer(&mut client, 400, &exception(kind, &message)).await,
        }
    }

    fn act(&self, action: &str, request: &Value) -> Answer {
        let mut inside = self.inside.lock();
        *inside.served.entry(action.to_string()).or_default() += 1;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_lowercase();
        let missing = |what: &str| ("EntityNotFoundException", format!("{what} not found"));
        let database = text(&request["DatabaseName"]);
        match action {
            "GetDatabases" => Ok(page("DatabaseList", inside.databases.values().cloned().collect(), request)),
            "GetDatabase" => {
                let found = inside.databases.get(&text(&request["Name"])).cloned();
                found.map(|found| json!({"Database": found})).ok_or(missing("Database"))
            }
            "CreateDatabase" => {
                let input = request["DatabaseInput"].clone();
                let name = text(&input["Name"]);
                if inside.databases.contains_key(&name) {
                    return Err(("AlreadyExistsException", "Database exists".to_string()));
                }
                inside.databases.insert(name, input);
                Ok(json!({}))
            }
            "DeleteDatabase" => {
                let name = text(&request["Name"]);
                inside.databases.remove(&name).ok_or(missing("Database"))?;
                inside.tables.retain(|(database, _), _| *database != name);
                Ok(json!({}))
            }
            _ if !inside.databases.contains_key(&database) => Err(missing("Database")),
            "GetTables" => {
                let of = inside.tables.iter().filter(|((of, _), _)| *of == database);
                Ok(page("TableList", of.map(|(_, table)| table.clone()).collect(), request))
            }
            "GetTable" => {
                let found = inside.tables.get(&(database, text(&request["Name"]))).cloned();
                found.map(|found| json!({"Table": found})).ok_or(missing("Table"))
            }
            "DeleteTable" => {
                inside.tables.remove(&(database, text(&request["Name"]))).ok_or(missing("Table"))?;
                Ok(json!({}))
            }
            "CreateTable" => {
                let mut entry = input(request)?;
                let key = (database.clone(), text(&entry["Name"]));
                if inside.tables.contains_key(&key) {
                    return Err(("AlreadyExistsException", "Table already exists".to_string()));
                }
                entry["DatabaseName"] = json!(database);
                entry["VersionId"] = json!("0");
                entry["CreatedBy"] = json!("arn:aws:iam::123456789012:user/test");
                inside.tables.insert(key, entry);
                Ok(json!({}))
            }
            "UpdateTable" => {
                let mut entry = input(request)?;
                let key = (database.clone(), text(&entry["Name"]));
                let old = inside.tables.get(&key).ok_or(missing("Table"))?;
                if request["SkipArchive"] != true || request["VersionId"] != old["VersionId"] {
                    return Err(("ConcurrentModificationException", "another version".to_string()));
                }
                for kept in ["DatabaseName", "VersionId", "CreatedBy"] {
                    entry[kept] = old[kept].clone();
                }
                next_version(&mut entry);
                inside.tables.insert(key, entry);
                Ok(json!({}))
            }
            other => Err(("UnknownOperationException", other.to_string())),
        }
    }
}

fn next_version(entry: &mut Value) {
    let version: u64 = entry["VersionId"].as_str().unwrap().parse().unwrap();
    entry["VersionId"] = json!((version + 1).to_string());
}

/// `TableInput`, with what it may hold and nothing else.
fn input(request: &Value) -> Answer {
    const KNOWN: [&str; 11] = [
        "Name",
        "Description",
        "Owner",
        "LastAccessTime",
        "LastAnalyzedTime",
        "Retention",
        "StorageDescriptor",
        "PartitionKeys",
        "TableType",
        "Parameters",
        "TargetTable",
    ];
    let input = request["TableInput"].clone();
    match input.as_object().unwrap().keys().find(|key| !KNOWN.contains(&key.as_str())) {
        Some(unknown) => Err(("ValidationException", format!("unknown field {unknown}"))),
        None => Ok(input),
    }
}

fn page(list: &str, all: Vec<Value>, request: &Value) -> Value {
    let from: usize = request["NextToken"].as_str().map_or(0, |token| token.parse().unwrap());
    let mut answer = json!({ list: all.iter().skip(from).take(PAGE).collect::<Vec<_>>() });
    if from + PAGE < all.len() {
        answer["NextToken"] = json!((from + PAGE).to_string());
    }
    answer
}

fn exception(kind: &str, message: &str) -> Value {
    json!({"__type": kind, "Message": message})
}

/// Who asks, and that the signature is over this body, its action and its token.
fn signed(header: &dyn Fn(&str) -> String, body: &[u8]) -> Result<(), String> {
    let authorization = header("authorization");
    let day = header("x-amz-date").get(..8).unwrap_or_default().to_string();
    let scope = format!("AWS4-HMAC-SHA256 Credential={KEY}/{day}/{REGION}/glue/aws4_request");
    let hash: String = Sha256::digest(body).iter().map(|byte| format!("{byte:02x}")).collect();
    let covered =
        ["content-type", "host", "x-amz-content-sha256", "x-amz-date", "x-amz-security-token", "x-amz-target"];
    let right = authorization.starts_with(&scope)
        && authorization.contains(&format!("SignedHeaders={},", covered.join(";")))
        && authorization.contains("Signature=")
        && header("x-amz-content-sha256") == hash
        && header("x-amz-security-token") == "token";
    if right { Ok(()) } else { Err(format!("not signed as it should be: {authorization}")) }
}

async fn read(client: &mut TcpStream) -> Option<(String, Vec<u8>)> {
    let mut seen = Vec::new();
    let mut buffer = [0; 4096];
    let head = loop {
        if let Some(at) = seen.windows(4).position(|w| w == b"\r\n\r\n") {
            break at + 4;
        }
        match client.read(&mut buffer).await {
            Ok(n) if n > 0 => seen.extend_from_slice(&buffer[..n]),
            _ => return None,
        }
    };
    let text = String::from_utf8_lossy(&seen[..head]).into_owned();
    let length = text.lines().find_map(|l| l.to_lowercase().strip_prefix("content-length: ").map(str::to_owned));
    let length: usize = length.map_or(0, |l| l.parse().unwrap());
    while seen.len() < head + length {
        match client.read(&mut buffer).await {
            Ok(n) if n > 0 => seen.extend_from_slice(&buffer[..n]),
            _ => return None,
        }
    }
    Some((text, seen.split_off(head)))
}

async fn answer(client: &mut TcpStream, status: u16, body: &Value) {
    let body = body.to_string();
    let length = body.len();
    let answer = format!("HTTP/1.1 {status} X\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}");
    // Whoever asked may have gone.
    let _ = client.write_all(answer.as_bytes()).await;
}
