//! What the procedures of a table did.

/// Files that were there became files of the table.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AddedFiles {
    pub files: u64,
    pub rows: u64,
    /// Partitions that they are in.
    pub partitions: u64,
}

/// Manifests that were written anew, and those that came in their place.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RewrittenManifests {
    pub rewritten: u64,
    pub added: u64,
}
