use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::Result;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DefinitionKind {
    Secret,
    Connection,
    Stream,
    Flow,
    Catalog,
}

impl DefinitionKind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Secret => "secret",
            Self::Connection => "connection",
            Self::Stream => "stream",
            Self::Flow => "flow",
            Self::Catalog => "catalog",
        }
    }
}

/// One named object that a user made with a statement. The statement is what is kept; it is planned again on start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Definition {
    pub kind: DefinitionKind,
    /// `NAME` for secrets, connections and catalogs, `CATALOG.SCHEMA.NAME` for streams and flows.
    pub name: String,
    pub id: Uuid,
    /// The CREATE statement, complete: inferred columns are written into it, secret values are not.
    pub sql: String,
    /// What is not in the statement: a secret's value (`value`), whether a flow is paused (`paused`) …
    pub properties: std::collections::BTreeMap<String, String>,
    pub created_at_ms: i64,
    /// Raised by one at each change; the compare-and-swap of [`Metastore::update`].
    pub version: i64,
}

/// Where definitions live. Every call is one transaction.
#[async_trait]
pub trait Metastore: Send + Sync + std::fmt::Debug {
    /// All definitions, oldest first.
    async fn list(&self) -> Result<Vec<Definition>>;
    async fn get(&self, kind: DefinitionKind, name: &str) -> Result<Option<Definition>>;
    /// Fails with `AlreadyExists` where the kind has that name.
    async fn create(&self, definition: &Definition) -> Result<()>;
    /// Stores `definition` if the stored version still is `definition.version`; the stored version grows by one.
    /// Fails with `Conflict` where someone else was first, `NotFound` where it is gone.
    async fn update(&self, definition: &Definition) -> Result<()>;
    /// True where something was dropped.
    async fn drop(&self, kind: DefinitionKind, name: &str) -> Result<bool>;
}
