use arrow::datatypes::DataType;

/// Everything the catalog tables show, at one moment.
#[derive(Debug, Clone, Default)]
pub struct CatalogSnapshot {
    pub database: String,
    pub user: String,
    /// As in `server_version`: `15.0`.
    pub server_version: String,
    pub schemas: Vec<SchemaEntry>,
    pub relations: Vec<RelationEntry>,
    /// Schemas that unqualified names are looked up in.
    pub search_path: Vec<String>,
    pub settings: Vec<SettingEntry>,
    pub sessions: Vec<SessionEntry>,
}

#[derive(Debug, Clone)]
pub struct SchemaEntry {
    pub oid: u32,
    pub name: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RelationKind {
    Table,
    Stream,
    StreamingTable,
    View,
}

#[derive(Debug, Clone)]
pub struct RelationEntry {
    pub oid: u32,
    pub schema: String,
    pub name: String,
    pub kind: RelationKind,
    pub columns: Vec<ColumnEntry>,
    pub comment: Option<String>,
    /// Of a stream: its connection and its topic.
    pub source: Option<(String, String)>,
    /// -1 where nobody counted.
    pub rows: i64,
    pub size_bytes: i64,
}

#[derive(Debug, Clone)]
pub struct ColumnEntry {
    pub name: String,
    pub data_type: DataType,
    pub nullable: bool,
    /// Expression of a generated column.
    pub generated: Option<String>,
    /// Expression of its default.
    pub default: Option<String>,
    pub comment: Option<String>,
}

#[derive(Debug, Clone)]
pub struct SettingEntry {
    pub name: String,
    pub value: String,
    pub default: String,
    pub description: String,
}

#[derive(Debug, Clone)]
pub struct SessionEntry {
    pub pid: i32,
    pub user: String,
    pub application_name: String,
    pub client_addr: Option<String>,
    pub started_at_us: i64,
    pub query_started_at_us: Option<i64>,
    pub active: bool,
    pub query: String,
}

impl CatalogSnapshot {
    pub(crate) fn schema_oid(&self, name: &str) -> i64 {
        self.schemas.iter().find(|s| s.name == name).map_or(0, |s| i64::from(s.oid))
    }

    pub(crate) fn relation(&self, oid: i64) -> Option<&RelationEntry> {
        self.relations.iter().find(|r| i64::from(r.oid) == oid)
    }

    /// PostgreSQL's rule: visible is what an unqualified name finds.
    pub(crate) fn is_visible(&self, relation: &RelationEntry) -> bool {
        let first =
            self.search_path.iter().find(|s| self.relations.iter().any(|r| r.schema == **s && r.name == relation.name));
        first.is_some_and(|s| *s == relation.schema)
    }
}

/// An oid that is the same in every session and after a restart, derived from what never changes of an object.
/// User objects begin at 16384, as in PostgreSQL; the top bit stays clear for clients that read a signed number.
pub fn stable_oid(key: &str) -> u32 {
    // FNV-1a, 64 bit.
    let hash = key.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
    let folded = (hash ^ (hash >> 32)) as u32;
    16384 + folded % (i32::MAX as u32 - 16384)
}
