use std::fmt;

use serde::{Deserialize, Serialize};

/// The catalog (in PostgreSQL's words: the database) that holds users' tables and streams.
pub const DEFAULT_CATALOG: &str = "lake";
/// The schema that unqualified names are created in.
pub const DEFAULT_SCHEMA: &str = "public";
/// The catalog of the product's own tables: flow views and dead-letter tables.
pub const SYSTEM_CATALOG: &str = "system";
/// The schema of dead-letter tables inside [`SYSTEM_CATALOG`].
pub const DLQ_SCHEMA: &str = "dlq";

/// A fully qualified name of a table or stream.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TableName {
    pub catalog: String,
    pub schema: String,
    pub name: String,
}

impl TableName {
    pub fn new(catalog: impl Into<String>, schema: impl Into<String>, name: impl Into<String>) -> Self {
        Self { catalog: catalog.into(), schema: schema.into(), name: name.into() }
    }

    /// `lake.public.NAME`.
    pub fn public(name: impl Into<String>) -> Self {
        Self::new(DEFAULT_CATALOG, DEFAULT_SCHEMA, name)
    }

    /// The dead-letter table of a stream: `system.dlq.NAME`, or `system.dlq."SCHEMA.NAME"` outside `public`.
    pub fn dead_letters(stream: &TableName) -> Self {
        let name = if stream.schema == DEFAULT_SCHEMA {
            stream.name.clone()
        } else {
            format!("{}.{}", stream.schema, stream.name)
        };
        Self::new(SYSTEM_CATALOG, DLQ_SCHEMA, name)
    }

    /// Levels of the Iceberg namespace: the schema alone in `lake`, `system` and the schema in `system`, and what the
    /// dots of the schema part in a catalog that a user defined.
    pub fn namespace(&self) -> Vec<String> {
        match self.catalog.as_str() {
            DEFAULT_CATALOG => vec![self.schema.clone()],
            SYSTEM_CATALOG => vec![self.catalog.clone(), self.schema.clone()],
            _ => self.schema.split('.').map(str::to_owned).collect(),
        }
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.catalog, self.schema, self.name)
    }
}
