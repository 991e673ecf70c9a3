use std::fmt;

/// Which state of a table's rows is read, other than the current one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum TableVersion {
    Snapshot(i64),
    /// A branch or a tag. Where there is none of the name and it is a number, the snapshot of that id.
    Reference(String),
    Branch(String),
    Tag(String),
    /// What was current then, in milliseconds since 1970.
    AsOf {
        timestamp_ms: i64,
    },
}

impl fmt::Display for TableVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Snapshot(id) => write!(f, "snapshot {id}"),
            Self::Reference(name) => write!(f, "reference \"{name}\""),
            Self::Branch(name) => write!(f, "branch \"{name}\""),
            Self::Tag(name) => write!(f, "tag \"{name}\""),
            Self::AsOf { timestamp_ms } => match chrono::DateTime::from_timestamp_millis(*timestamp_ms) {
                Some(at) => write!(f, "{}", at.format("%Y-%m-%d %H:%M:%S%.3f+00")),
                None => write!(f, "{timestamp_ms} ms since 1970"),
            },
        }
    }
}

/// What a table tells of itself, as a table beside it: `"t$files"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetadataTable {
    Snapshots,
    /// Which snapshot was current since when.
    History,
    Refs,
    /// Data and delete files of one snapshot.
    Files,
    /// Manifests of one snapshot.
    Manifests,
    /// Partitions of one snapshot, summed up.
    Partitions,
}

impl MetadataTable {
    pub const ALL: [Self; 6] =
        [Self::Snapshots, Self::History, Self::Refs, Self::Files, Self::Manifests, Self::Partitions];

    /// The part of the name behind the `$`.
    pub fn suffix(self) -> &'static str {
        match self {
            Self::Snapshots => "snapshots",
            Self::History => "history",
            Self::Refs => "refs",
            Self::Files => "files",
            Self::Manifests => "manifests",
            Self::Partitions => "partitions",
        }
    }

    pub fn from_suffix(suffix: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.suffix() == suffix)
    }

    /// Whether it is of one snapshot, so that it can be read at any.
    pub fn is_of_a_snapshot(self) -> bool {
        matches!(self, Self::Files | Self::Manifests | Self::Partitions)
    }
}
