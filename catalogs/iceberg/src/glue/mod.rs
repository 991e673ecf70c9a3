//! AWS Glue as a catalog: each table is an entry that says where its metadata file is.
//!
//! ```text
//!   answer to UpdateTable                            means
//!   200, and it can be read                          committed
//!   ConcurrentModificationException, no such entry   not applied: the table has moved
//!   throttled                                        not applied: sent again
//!   other 4xx                                        not applied, and never will be as it is
//!   no connection                                    not sent
//!   all else (5xx, time-out, cut off)                unknown: whoever asked looks at the table again
//! ```
//!
//! The update names the version of the entry whose location was compared, and Glue takes it for that version alone. So
//! at most one of two updates of a version takes place, and one that is late finds another version.

mod client;
mod entry;

use async_trait::async_trait;
use serde_json::{Value, json};
use tidewater_catalogs::{Error, ErrorKind, Result};

use crate::pointers::{Pointed, Pointers, Swapped};
use crate::storage::StoreOptions;
use client::{Client, Failed};

/// Pages of a list that are read at most.
const MAX_PAGES: usize = 10_000;
const NOT_FOUND: &str = "EntityNotFoundException";
const EXISTS: &str = "AlreadyExistsException";
const MODIFIED: &str = "ConcurrentModificationException";

/// How Glue is reached.
#[derive(Clone, Default)]
pub struct GlueOptions {
    /// Region and keys, under the names they have for S3; what is left out is taken from the environment.
    pub credentials: StoreOptions,
    pub endpoint: Option<String>,
    /// The account whose catalog it is, where that is another than the one of the credentials.
    pub catalog_id: Option<String>,
    /// Where tables go whose database has no location.
    pub warehouse: Option<String>,
    pub store: StoreOptions,
}

impl std::fmt::Debug for GlueOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GlueOptions").field("catalog_id", &self.catalog_id).finish_non_exhaustive()
    }
}

#[derive(Debug)]
pub(crate) struct GluePointers {
    client: Client,
}

impl GluePointers {
    pub(crate) fn new(options: GlueOptions) -> Result<Self> {
        Ok(Self { client: Client::new(&options)? })
    }

    /// The entry of a table of any kind.
    async fn entry(&self, database: &str, table: &str) -> Result<Option<Value>> {
        if !is_folded(database) || !is_folded(table) {
            return Ok(None);
        }
        let what = format!("look up table \"{table}\"");
        match self.client.ask("GetTable", json!({"DatabaseName": database, "Name": table}), &what).await {
            Ok(mut answer) => match answer.get_mut("Table").map(Value::take) {
                Some(entry) if entry.is_object() => Ok(Some(entry)),
                _ => Err(Error::new(ErrorKind::DataCorrupt, format!("cannot {what}: Glue's answer has no table"))),
            },
            Err(e) if e.is(NOT_FOUND) => Ok(None),
            Err(e) => Err(e.error(&what)),
        }
    }

    async fn database(&self, name: &str) -> Result<Option<Value>> {
        if !is_folded(name) {
            return Ok(None);
        }
        let what = format!("look for schema \"{name}\"");
        match self.client.ask("GetDatabase", json!({"Name": name}), &what).await {
            Ok(mut answer) => Ok(Some(answer.get_mut("Database").map(Value::take).unwrap_or_default())),
            Err(e) if e.is(NOT_FOUND) => Ok(None),
            Err(e) => Err(e.error(&what)),
        }
    }

    /// All items of a list. None where what it is of is not there.
    async fn list(&self, action: &str, of: Value, items: &str, what: &str) -> Result<Option<Vec<Value>>> {
        let mut found = Vec::new();
        let mut request = of;
        for _ in 0..MAX_PAGES {
            let mut answer = match self.client.ask(action, request.clone(), what).await {
                Ok(answer) => answer,
                Err(e) if e.is(NOT_FOUND) => return Ok(None),
                Err(e) => return Err(e.error(what)),
            };
            if let Some(Value::Array(page)) = answer.get_mut(items).map(Value::take) {
                found.extend(page);
            }
            match answer.get("NextToken").and_then(Value::as_str).filter(|token| !token.is_empty()) {
                Some(token) => request["NextToken"] = json!(token),
                None => return Ok(Some(found)),
            }
        }
        Err(Error::new(ErrorKind::ResourcesExhausted, format!("cannot {what}: there are too many")))
    }

    /// Entries of all kinds.
    async fn entries(&self, database: &str) -> Result<Option<Vec<Value>>> {
        if !is_folded(database) {
            return Ok(None);
        }
        let what = format!("list tables of schema \"{database}\"");
        self.list("GetTables", json!({"DatabaseName": database}), "TableList", &what).await
    }
}

#[async_trait]
impl Pointers for GluePointers {
    async fn get(&self, namespace: &str, table: &str) -> Result<Option<String>> {
        let Some(entry) = self.entry(namespace, table).await? else { return Ok(None) };
        match entry::location(&entry) {
            Some(location) => Ok(Some(location.to_owned())),
            None => Err(Error::unsupported(format!("table \"{table}\" of Glue is no Iceberg table"))
                .with_detail("Its parameters table_type and metadata_location do not say so.")),
        }
    }

    async fn swap(&self, namespace: &str, table: &str, expected: &str, next: Pointed<'_>) -> Swapped {
        let what = format!("commit to table \"{table}\"");
        let entry = match self.entry(namespace, table).await {
            Ok(Some(entry)) => entry,
            Ok(None) => return Swapped::Moved,
            Err(e) => return Swapped::Refused(e),
        };
        if entry::location(&entry) != Some(expected) {
            return Swapped::Moved;
        }
        let Some(version) = entry.get("VersionId").and_then(Value::as_str) else {
            return Swapped::Refused(
                Error::unsupported(format!("cannot {what}: the catalog gives its entry no version"))
                    .with_detail("Without it two commits at the same time could both be taken."),
            );
        };
        let request = json!({
            "DatabaseName": namespace,
            "TableInput": entry::input(table, next, Some(&entry)),
            "SkipArchive": true,
            "VersionId": version,
        });
        match self.client.send("UpdateTable", request, &what).await {
            Ok(_) => Swapped::Done,
            Err(e) if e.is(MODIFIED) || e.is(NOT_FOUND) => Swapped::Moved,
            Err(Failed::Lost(e)) => Swapped::Unknown(e),
            Err(e) => Swapped::Refused(e.error(&what)),
        }
    }

    async fn create(&self, namespace: &str, table: &str, first: Pointed<'_>) -> Result<()> {
        let what = format!("create table \"{table}\"");
        let request = json!({"DatabaseName": namespace, "TableInput": entry::input(table, first, None)});
        match self.client.send("CreateTable", request, &what).await {
            Ok(_) => Ok(()),
            Err(e) if e.is(NOT_FOUND) => Err(Error::not_found(format!("schema \"{namespace}\" does not exist"))),
            Err(e) if e.is(EXISTS) => {
                Err(Error::new(ErrorKind::AlreadyExists, format!("table \"{table}\" already exists")))
            }
            Err(Failed::Lost(e)) => Err(Error::new(
                ErrorKind::CommitUnknown,
                format!("the answer to the making of table \"{table}\" was lost"),
            )
            .with_hint("Look whether it is there before you make it again.")
            .with_source(e)),
            Err(e) => Err(e.error(&what)),
        }
    }

    /// Glue cannot compare and drop at once: another table that takes the name between the look and the drop is dropped.
    async fn remove(&self, namespace: &str, table: &str, expected: &str) -> Result<bool> {
        let what = format!("drop table \"{table}\"");
        let found = self.entry(namespace, table).await?;
        if found.as_ref().and_then(entry::location) != Some(expected) {
            return Ok(false);
        }
        match self.client.send("DeleteTable", json!({"DatabaseName": namespace, "Name": table}), &what).await {
            Ok(_) => Ok(true),
            Err(e) if e.is(NOT_FOUND) => Ok(false),
            Err(Failed::Lost(e)) => match self.entry(namespace, table).await {
                Ok(None) => Ok(true),
                _ => Err(e),
            },
            Err(e) => Err(e.error(&what)),
        }
    }

    async fn tables(&self, namespace: &str) -> Result<Vec<String>> {
        let entries = self.entries(namespace).await?.unwrap_or_default();
        let ours = entries.iter().filter(|entry| entry::location(entry).is_some());
        Ok(names(ours))
    }

    async fn namespaces(&self) -> Result<Vec<String>> {
        let what = "list schemas of the catalog";
        let databases = self.list("GetDatabases", json!({}), "DatabaseList", what).await?.unwrap_or_default();
        // A dot parts levels, which Glue does not have.
        let flat = databases.iter().filter(|d| d["Name"].as_str().is_some_and(|name| !name.contains('.')));
        Ok(names(flat))
    }

    async fn namespace_exists(&self, namespace: &str) -> Result<bool> {
        Ok(self.database(namespace).await?.is_some())
    }

    async fn create_namespace(&self, namespace: &str) -> Result<bool> {
        let what = format!("create schema \"{namespace}\"");
        match self.client.send("CreateDatabase", json!({"DatabaseInput": {"Name": namespace}}), &what).await {
            Ok(_) => Ok(true),
            Err(e) if e.is(EXISTS) => Ok(false),
            Err(e) => Err(e.error(&what)),
        }
    }

    /// Glue drops a database with all that is in it, so it is looked at first. A table that is made between the look and
    /// the drop goes with it.
    async fn drop_namespace(&self, namespace: &str) -> Result<()> {
        let what = format!("drop schema \"{namespace}\"");
        let missing = || Error::not_found(format!("schema \"{namespace}\" does not exist"));
        let entries = self.entries(namespace).await?;
        if !entries.ok_or_else(missing)?.is_empty() {
            return Err(Error::invalid(format!("schema \"{namespace}\" still holds tables"))
                .with_hint("Drop the tables first, those of other kinds too."));
        }
        match self.client.send("DeleteDatabase", json!({"Name": namespace}), &what).await {
            Ok(_) => Ok(()),
            Err(e) if e.is(NOT_FOUND) => Err(missing()),
            Err(e) => Err(e.error(&what)),
        }
    }

    /// As Iceberg's Java implementation takes them.
    fn check_name(&self, kind: &str, name: &str) -> Result<()> {
        let longest = if kind == "schema" { 252 } else { 255 };
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
        if (1..=longest).contains(&name.len()) && name.bytes().all(plain) {
            return Ok(());
        }
        Err(Error::invalid(format!("invalid name of a {kind} in Glue: \"{name}\""))
            .with_hint(format!("Use 1 to {longest} lower-case letters, digits and underscores.")))
    }

    async fn folder(&self, namespace: &str) -> Result<Option<String>> {
        let database = self.database(namespace).await?;
        let database = database.ok_or_else(|| Error::not_found(format!("schema \"{namespace}\" does not exist")))?;
        let location = database.get("LocationUri").and_then(Value::as_str).map(str::trim);
        Ok(location.filter(|location| !location.is_empty()).map(str::to_owned))
    }
}

/// Glue keeps names in lower case and finds them whatever case is asked for; SQL tells the cases apart.
fn is_folded(name: &str) -> bool {
    !name.is_empty() && !name.chars().any(char::is_uppercase)
}

fn names<'a>(entries: impl Iterator<Item = &'a Value>) -> Vec<String> {
    let mut names: Vec<String> = entries.filter_map(|entry| entry.get("Name")?.as_str()).map(str::to_owned).collect();
    names.sort();
    names
}
