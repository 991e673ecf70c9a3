//! A catalog behind Iceberg's REST protocol.
//!
//! ```text
//!   answer to a commit          means
//!   200, and it can be read     committed
//!   409                         not applied: the table has moved
//!   other 4xx                   not applied, and never will be as it is
//!   no connection               not sent
//!   all else (5xx, time-out, cut off, unreadable)   unknown: whoever asked looks at the table again
//! ```
//!
//! The commit is sent once; nothing below sends it again.

mod api;
mod client;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use iceberg::spec::TableMetadata;
use iceberg::{TableRequirement, TableUpdate};
use parking_lot::Mutex;
use reqwest::{Method, StatusCode};
use tidewater_catalogs::{Error, ErrorKind, NewTable, Result, TableName};
use uuid::Uuid;

use crate::lake::another;
use crate::new_table::{FORMAT_VERSION, checked};
use crate::storage::{Renew, Storage, StoreOptions, Vended, is_credential, is_store_option};
use api::{
    Commit, FullName, Namespaces, NewNamespace, NewTableRequest, Registration, TableAnswer, Tables, Transaction,
    segment,
};
use client::{Answer, Client, NoAnswer, Request, parse, refusal};

/// How often a request that changes nothing is sent, where there is no answer or one of 5xx.
const ATTEMPTS: u32 = 3;
/// Pages of a list, and levels of namespaces, that are read at most.
const MAX_PAGES: usize = 10_000;
const MAX_DEPTH: usize = 5;
/// Tables whose stores are kept open.
const OPEN_TABLES: usize = 1_000;

/// How a REST catalog is reached.
#[derive(Clone, Default)]
pub struct RestOptions {
    pub uri: String,
    pub warehouse: Option<String>,
    pub token: Option<String>,
    /// `CLIENT_ID:CLIENT_SECRET`
    pub credential: Option<String>,
    pub oauth2_server_uri: Option<String>,
    pub scope: Option<String>,
    pub audience: Option<String>,
    pub resource: Option<String>,
    /// Whether the catalog is asked for credentials of the object store, table by table.
    pub vended_credentials: bool,
    pub store: StoreOptions,
}

impl std::fmt::Debug for RestOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RestOptions").field("uri", &self.uri).finish_non_exhaustive()
    }
}

#[derive(Debug)]
pub(crate) struct RestCatalog {
    client: Client,
    /// Stores of tables, so that connections outlive a look at the table.
    stores: Mutex<HashMap<TableName, TableStore>>,
}

#[derive(Debug, Clone)]
struct TableStore {
    storage: Storage,
    vended: Arc<Vended>,
}

/// A table as the catalog hands it out.
pub(crate) struct Loaded {
    pub(crate) metadata: TableMetadata,
    pub(crate) metadata_location: String,
    options: StoreOptions,
}

/// What came of a commit.
pub(crate) enum Posted<T = Box<Committed>> {
    Done(T),
    Moved,
    Refused(Error),
    Unknown(Error),
}

pub(crate) struct Committed {
    pub(crate) metadata: TableMetadata,
    pub(crate) metadata_location: String,
}

impl RestCatalog {
    pub(crate) fn new(options: RestOptions) -> Result<Self> {
        Ok(Self { client: Client::new(options)?, stores: Mutex::default() })
    }

    /// Sends a request that changes nothing, again where there is no answer.
    async fn ask(&self, request: &Request<'_>) -> Result<Answer> {
        let mut wait = Duration::from_millis(100);
        let mut attempt = 1;
        loop {
            let outcome = self.client.send(request).await.map_err(NoAnswer::error);
            let again = match &outcome {
                Ok(answer) => answer.status.is_server_error() || answer.status == StatusCode::TOO_MANY_REQUESTS,
                Err(e) => e.is_retryable(),
            };
            if !again || attempt == ATTEMPTS {
                return outcome;
            }
            attempt += 1;
            tokio::time::sleep(wait).await;
            wait *= 4;
        }
    }

    async fn table_path(&self, name: &TableName) -> Result<String> {
        let session = self.client.session().await?;
        Ok(format!("namespaces/{}/tables/{}", session.namespace(&name.namespace()), segment(&name.name)))
    }

    pub(crate) async fn load(&self, name: &TableName) -> Result<Loaded> {
        let what = format!("load table \"{name}\"");
        let query = vec![("snapshots", "all".to_string())];
        let path = self.table_path(name).await?;
        let answer = self.ask(&Request { method: Method::GET, path, query, body: None, what: &what }).await?;
        match answer.status {
            StatusCode::OK => self.loaded(&what, answer).await,
            StatusCode::NOT_FOUND => Err(Error::not_found(format!("table \"{name}\" does not exist"))),
            _ => Err(refusal(&what, &answer)),
        }
    }

    async fn loaded(&self, what: &str, answer: Answer) -> Result<Loaded> {
        let asked = what.to_string();
        let parsed = tokio::task::spawn_blocking(move || {
            let parsed: TableAnswer =
                parse(&asked, &answer).map_err(|e| crate::defaults::unknown_type(&answer.body).unwrap_or(e))?;
            crate::defaults::check(&answer.body, &parsed.metadata).map(|()| parsed)
        });
        let answer = crate::error::joined(parsed.await)?;
        let session = self.client.session().await?;
        // What the catalog says about all tables, then about this one, then about its place.
        let mut options: StoreOptions = session.properties.clone();
        options.extend(answer.config.unwrap_or_default());
        let location = answer.metadata.location();
        let nearest = answer.storage_credentials.unwrap_or_default().into_iter();
        let nearest = nearest.filter(|c| location.starts_with(&c.prefix)).max_by_key(|c| c.prefix.len());
        options.extend(nearest.map(|c| c.config).unwrap_or_default());
        options.retain(|name, _| is_store_option(name));
        let metadata_location = answer.metadata_location.unwrap_or_default();
        Ok(Loaded { metadata: answer.metadata, metadata_location, options })
    }

    /// The stores of a table, with the credentials that came with it.
    pub(crate) fn storage(self: &Arc<Self>, base: &Storage, name: &TableName, loaded: &Loaded) -> Result<Storage> {
        let settings = |options: &StoreOptions| -> StoreOptions {
            options.iter().filter(|(name, _)| !is_credential(name)).map(|(k, v)| (k.clone(), v.clone())).collect()
        };
        let mut stores = self.stores.lock();
        if let Some(open) = stores.get(name)
            && settings(open.storage.options()) == settings(&loaded.options)
            && open.storage.options().keys().eq(loaded.options.keys())
        {
            open.vended.replace(loaded.options.clone());
            return Ok(open.storage.clone());
        }
        let renew = RenewTable { catalog: Arc::downgrade(self), name: name.clone() };
        let vended = Arc::new(Vended::new(loaded.options.clone(), Box::new(renew)));
        let storage = base.for_table(loaded.options.clone(), Some(Arc::clone(&vended)));
        if stores.len() >= OPEN_TABLES {
            stores.clear();
        }
        stores.insert(name.clone(), TableStore { storage: storage.clone(), vended });
        Ok(storage)
    }

    /// Asks for a table; `stage` makes none yet and only says what it would be.
    pub(crate) async fn create(&self, defaults: &StoreOptions, table: NewTable, stage: bool) -> Result<Loaded> {
        let name = &table.name;
        let what = format!("create table \"{name}\"");
        let made = checked(defaults, &table)?;
        let mut properties = made.properties;
        properties.insert(FORMAT_VERSION.to_string(), (made.version as u8).to_string());
        let body = NewTableRequest {
            name: &name.name,
            location: table.location.as_deref(),
            schema: &made.schema,
            partition_spec: &made.spec,
            write_order: &made.order,
            stage_create: stage,
            properties: &properties,
        };
        let session = self.client.session().await?;
        let path = format!("namespaces/{}/tables", session.namespace(&name.namespace()));
        let loaded = self.make(name, path, to_json(&body)?, !stage, &what).await?;
        let found = loaded.metadata.format_version();
        if found != made.version {
            let e = Error::unsupported(format!("the catalog makes tables of format version {found} alone"));
            return Err(if stage { e } else { e.with_detail("The table was made, and is empty.") });
        }
        Ok(loaded)
    }

    /// Puts a table that is there under a name.
    pub(crate) async fn register(&self, name: &TableName, metadata_location: &str) -> Result<Loaded> {
        let what = format!("register table \"{name}\"");
        let session = self.client.session().await?;
        let path = format!("namespaces/{}/register", session.namespace(&name.namespace()));
        self.make(name, path, to_json(&Registration { name: &name.name, metadata_location })?, true, &what).await
    }

    /// `seen`: the table is there when this is answered.
    async fn make(&self, name: &TableName, path: String, body: Vec<u8>, seen: bool, what: &str) -> Result<Loaded> {
        let request = Request { method: Method::POST, path, query: Vec::new(), body: Some(body), what };
        let answer = match self.client.send(&request).await {
            Ok(answer) => answer,
            Err(NoAnswer::Lost(e)) if seen => {
                return Err(e.with_detail("The table may have been made.").with_hint("Look before you make it again."));
            }
            Err(e) => return Err(e.error()),
        };
        match answer.status {
            StatusCode::OK => self.loaded(what, answer).await,
            StatusCode::NOT_FOUND => Err(Error::not_found(format!("schema \"{}\" does not exist", name.schema))),
            StatusCode::CONFLICT => {
                Err(Error::new(ErrorKind::AlreadyExists, format!("table \"{name}\" already exists")))
            }
            _ => Err(refusal(what, &answer)),
        }
    }

    /// Sends a commit, once.
    pub(crate) async fn commit(
        &self,
        name: &TableName,
        requirements: &[TableRequirement],
        updates: &[TableUpdate],
    ) -> Posted {
        let what = format!("commit to table \"{name}\"");
        let namespace = name.namespace();
        let identifier = FullName { namespace: &namespace, name: &name.name };
        let prepared = async {
            let body = Some(to_json(&Commit { identifier, requirements, updates })?);
            let path = self.table_path(name).await?;
            Ok::<_, Error>(Request { method: Method::POST, path, query: Vec::new(), body, what: &what })
        };
        let request = match prepared.await {
            Ok(request) => request,
            Err(e) => return Posted::Refused(e),
        };
        let answer = match self.post(&request).await {
            Posted::Done(answer) => answer,
            Posted::Moved => return Posted::Moved,
            Posted::Refused(e) => return Posted::Refused(e),
            Posted::Unknown(e) => return Posted::Unknown(e),
        };
        match parse_apart::<TableAnswer>(&what, answer).await {
            Ok(answer) => match answer.metadata_location {
                Some(metadata_location) => {
                    Posted::Done(Box::new(Committed { metadata: answer.metadata, metadata_location }))
                }
                None => Posted::Unknown(Error::unavailable("the answer to a commit is not whole")),
            },
            Err(e) => Posted::Unknown(e),
        }
    }

    /// Whether the server takes changes of several tables at once.
    pub(crate) async fn commits_together(&self) -> Result<bool> {
        Ok(self.client.session().await?.commits_together)
    }

    /// Sends a commit to several tables, all or none, once.
    pub(crate) async fn commit_all(
        &self,
        changes: &[(TableName, Vec<TableRequirement>, Vec<TableUpdate>)],
    ) -> Posted<()> {
        let what = "commit to several tables";
        let namespaces: Vec<Vec<String>> = changes.iter().map(|(name, ..)| name.namespace()).collect();
        let commits = changes.iter().zip(&namespaces).map(|((name, requirements, updates), namespace)| Commit {
            identifier: FullName { namespace, name: &name.name },
            requirements,
            updates,
        });
        let body = match to_json(&Transaction { table_changes: commits.collect() }) {
            Ok(body) => Some(body),
            Err(e) => return Posted::Refused(e),
        };
        let path = "transactions/commit".to_owned();
        match self.post(&Request { method: Method::POST, path, query: Vec::new(), body, what }).await {
            Posted::Done(_) => Posted::Done(()),
            Posted::Moved => Posted::Moved,
            Posted::Refused(e) => Posted::Refused(e),
            Posted::Unknown(e) => Posted::Unknown(e),
        }
    }

    /// One request that changes something, and what its answer says of that.
    async fn post(&self, request: &Request<'_>) -> Posted<Answer> {
        let answer = match self.client.send(request).await {
            Ok(answer) => answer,
            Err(NoAnswer::NotSent(e)) => return Posted::Refused(e),
            Err(NoAnswer::Lost(e)) => return Posted::Unknown(e),
        };
        match answer.status.as_u16() {
            200 | 204 => Posted::Done(answer),
            409 => Posted::Moved,
            408 => Posted::Unknown(refusal(request.what, &answer)),
            400..=499 => Posted::Refused(refusal(request.what, &answer)),
            _ => Posted::Unknown(refusal(request.what, &answer)),
        }
    }

    /// The protocol cannot compare and drop at once: another table that takes the name between the look and the drop
    /// is dropped.
    pub(crate) async fn drop_table(&self, name: &TableName, expected: Option<Uuid>, purge: bool) -> Result<()> {
        if let Some(expected) = expected
            && self.load(name).await?.metadata.uuid() != expected
        {
            return Err(another(name));
        }
        let what = format!("drop table \"{name}\"");
        let path = self.table_path(name).await?;
        let query = vec![("purgeRequested", purge.to_string())];
        let request = Request { method: Method::DELETE, path, query, body: None, what: &what };
        let answer = match self.client.send(&request).await {
            Ok(answer) => answer,
            Err(NoAnswer::NotSent(e)) => return Err(e),
            Err(NoAnswer::Lost(e)) => {
                return match self.load(name).await {
                    Err(gone) if gone.kind() == ErrorKind::NotFound => Ok(()),
                    _ => Err(e),
                };
            }
        };
        self.stores.lock().remove(name);
        match answer.status {
            s if s.is_success() => Ok(()),
            StatusCode::NOT_FOUND => Err(Error::not_found(format!("table \"{name}\" does not exist"))),
            _ => Err(refusal(&what, &answer)),
        }
    }

    /// All namespaces, sorted, levels joined by dots. Those with a dot in a level have no name in SQL.
    pub(crate) async fn namespaces(&self) -> Result<Vec<String>> {
        let mut found = Vec::new();
        let mut waiting: Vec<Vec<String>> = vec![Vec::new()];
        while let Some(parent) = waiting.pop() {
            for levels in self.children(&parent).await? {
                if levels.iter().any(|level| level.contains('.')) {
                    continue;
                }
                found.push(levels.join("."));
                if levels.len() < MAX_DEPTH && levels.len() > parent.len() {
                    waiting.push(levels);
                }
            }
        }
        found.sort();
        found.dedup();
        Ok(found)
    }

    async fn children(&self, parent: &[String]) -> Result<Vec<Vec<String>>> {
        let what = "list schemas of the catalog";
        let separator = url_decoded(&self.client.session().await?.namespace(&["".into(), "".into()]));
        let mut all = Vec::new();
        let mut page = None;
        for _ in 0..MAX_PAGES {
            let mut query = page_query(page.take());
            if !parent.is_empty() {
                query.push(("parent", parent.join(&separator)));
            }
            let path = "namespaces".to_string();
            let answer = self.ask(&Request { method: Method::GET, path, query, body: None, what }).await?;
            match answer.status {
                StatusCode::OK => {}
                // Dropped meanwhile.
                StatusCode::NOT_FOUND if !parent.is_empty() => return Ok(all),
                _ => return Err(refusal(what, &answer)),
            }
            let part: Namespaces = parse(what, &answer)?;
            all.extend(part.namespaces);
            page = part.next_page_token.filter(|t| !t.is_empty());
            if page.is_none() {
                return Ok(all);
            }
        }
        Err(Error::new(ErrorKind::ResourcesExhausted, "the catalog has too many schemas"))
    }

    pub(crate) async fn tables(&self, schema: &str) -> Result<Vec<String>> {
        let what = format!("list tables of schema \"{schema}\"");
        let session = self.client.session().await?;
        let mut names = Vec::new();
        let mut page = None;
        for _ in 0..MAX_PAGES {
            let path = format!("namespaces/{}/tables", session.namespace(&levels(schema)));
            let query = page_query(page.take());
            let answer = self.ask(&Request { method: Method::GET, path, query, body: None, what: &what }).await?;
            match answer.status {
                StatusCode::OK => {}
                StatusCode::NOT_FOUND => return Ok(names),
                _ => return Err(refusal(&what, &answer)),
            }
            let part: Tables = parse(&what, &answer)?;
            names.extend(part.identifiers.into_iter().map(|i| i.name));
            page = part.next_page_token.filter(|t| !t.is_empty());
            if page.is_none() {
                names.sort();
                return Ok(names);
            }
        }
        Err(Error::new(ErrorKind::ResourcesExhausted, format!("schema \"{schema}\" has too many tables")))
    }

    pub(crate) async fn namespace_exists(&self, schema: &str) -> Result<bool> {
        let what = format!("look for schema \"{schema}\"");
        let path = self.namespace_path(schema).await?;
        let request = Request { method: Method::GET, path, query: Vec::new(), body: None, what: &what };
        let answer = self.ask(&request).await?;
        match answer.status {
            s if s.is_success() => Ok(true),
            StatusCode::NOT_FOUND => Ok(false),
            _ => Err(refusal(&what, &answer)),
        }
    }

    /// False where it was there already.
    pub(crate) async fn create_namespace(&self, schema: &str) -> Result<bool> {
        let what = format!("create schema \"{schema}\"");
        let levels = levels(schema);
        let body = Some(to_json(&NewNamespace { namespace: &levels, properties: Default::default() })?);
        let path = "namespaces".to_string();
        let request = Request { method: Method::POST, path, query: Vec::new(), body, what: &what };
        let answer = self.client.send(&request).await.map_err(NoAnswer::error)?;
        match answer.status {
            s if s.is_success() => Ok(true),
            StatusCode::CONFLICT => Ok(false),
            _ => Err(refusal(&what, &answer)),
        }
    }

    pub(crate) async fn drop_namespace(&self, schema: &str) -> Result<()> {
        let what = format!("drop schema \"{schema}\"");
        let path = self.namespace_path(schema).await?;
        let request = Request { method: Method::DELETE, path, query: Vec::new(), body: None, what: &what };
        let answer = self.client.send(&request).await.map_err(NoAnswer::error)?;
        match answer.status {
            s if s.is_success() => Ok(()),
            StatusCode::NOT_FOUND => Err(Error::not_found(format!("schema \"{schema}\" does not exist"))),
            StatusCode::CONFLICT => {
                Err(Error::invalid(format!("schema \"{schema}\" still holds tables"))
                    .with_hint("Drop the tables first."))
            }
            _ => Err(refusal(&what, &answer)),
        }
    }

    async fn namespace_path(&self, schema: &str) -> Result<String> {
        let session = self.client.session().await?;
        Ok(format!("namespaces/{}", session.namespace(&levels(schema))))
    }
}

fn levels(schema: &str) -> Vec<String> {
    schema.split('.').map(str::to_string).collect()
}

fn page_query(page: Option<String>) -> Vec<(&'static str, String)> {
    page.into_iter().map(|page| ("pageToken", page)).collect()
}

fn url_decoded(text: &str) -> String {
    url::form_urlencoded::parse(format!("x={text}").as_bytes()).map(|(_, v)| v.into_owned()).collect()
}

fn to_json(body: &impl serde::Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(body).map_err(|e| Error::internal("cannot write a request to the catalog").with_source(e))
}

/// Off the async threads: metadata may be megabytes.
async fn parse_apart<T: serde::de::DeserializeOwned + Send + 'static>(what: &str, answer: Answer) -> Result<T> {
    let what = what.to_string();
    crate::error::joined(tokio::task::spawn_blocking(move || parse(&what, &answer)).await)
}

#[derive(Debug)]
struct RenewTable {
    catalog: std::sync::Weak<RestCatalog>,
    name: TableName,
}

#[async_trait]
impl Renew for RenewTable {
    async fn renew(&self) -> Result<StoreOptions> {
        let catalog = self.catalog.upgrade().ok_or_else(|| Error::unavailable("the catalog was closed"))?;
        Ok(catalog.load(&self.name).await?.options)
    }
}
