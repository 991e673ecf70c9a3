use crate::TableVersion;

/// Names of references that belong to flows begin so: they say where a flow stands.
pub const FLOW_REFERENCE_PREFIX: &str = "tidewater.";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReferenceKind {
    Branch,
    Tag,
}

impl ReferenceKind {
    pub fn word(self) -> &'static str {
        match self {
            Self::Branch => "branch",
            Self::Tag => "tag",
        }
    }
}

/// How long a reference and what it names are kept (Iceberg spec, "Snapshot Retention Policy"); as the table says
/// where nothing is said.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Retention {
    /// Of the reference itself, by the age of its snapshot.
    pub max_age_ms: Option<i64>,
    /// Of a branch's snapshots.
    pub max_snapshot_age_ms: Option<i64>,
    pub min_snapshots_to_keep: Option<i32>,
}

/// What becomes of a reference that is there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// `AlreadyExists`.
    Refused,
    Kept,
    Replaced,
    /// `NotFound` where there is none.
    Required,
}

/// A change of branches and tags. Rows are not touched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReferenceChange {
    /// At the given snapshot, or at the current one.
    Create {
        kind: ReferenceKind,
        name: String,
        snapshot: Option<i64>,
        retention: Retention,
        existing: Existing,
    },
    Drop {
        kind: ReferenceKind,
        name: String,
        if_exists: bool,
    },
    /// Moves a branch to another reference's snapshot, which must descend from its own.
    FastForward {
        branch: String,
        to: String,
    },
    /// Makes a snapshot the current one.
    SetCurrent(TableVersion),
    /// Makes a snapshot the current one that was made of the current one; `Conflict` where it was not.
    Advance(TableVersion),
    /// Makes a snapshot the current one that the current one descends from: the given one, or the newest that is
    /// older than the given time.
    Rollback(TableVersion),
}

/// Where the reference was, and where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moved {
    pub before: Option<i64>,
    pub after: Option<i64>,
    /// False where nothing was to be done.
    pub changed: bool,
}
