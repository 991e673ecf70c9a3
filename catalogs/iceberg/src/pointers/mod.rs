//! Where the metadata of each table is now, and the compare-and-swap behind every commit.

mod sql;

use async_trait::async_trait;
use iceberg::spec::TableMetadata;
use tidewater_catalogs::{Error, Result};

pub use sql::Database;
pub(crate) use sql::SqlPointers;

/// A metadata file that is written, and what it says.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pointed<'a> {
    pub(crate) location: &'a str,
    pub(crate) metadata: &'a TableMetadata,
}

/// One table on its way from one metadata file to the next.
pub(crate) struct PointerMove {
    pub(crate) namespace: String,
    pub(crate) table: String,
    pub(crate) from: String,
    pub(crate) to: String,
}

/// What came of one swap.
#[derive(Debug)]
pub(crate) enum Swapped {
    Done,
    /// The table is no longer where it was expected to be, or not there.
    Moved,
    /// Nothing happened, for another reason.
    Refused(Error),
    /// Whether it took place is open.
    Unknown(Error),
}

/// Who keeps the locations of tables. Namespaces come with their levels joined by dots.
#[async_trait]
pub(crate) trait Pointers: Send + Sync + std::fmt::Debug {
    /// `None` where there is no such table.
    async fn get(&self, namespace: &str, table: &str) -> Result<Option<String>>;
    /// Moves the table from `expected` to `next`, or does nothing.
    async fn swap(&self, namespace: &str, table: &str, expected: &str, next: Pointed<'_>) -> Swapped;
    /// Whether [`Self::swap_all`] can be.
    fn swaps_together(&self) -> bool {
        false
    }
    /// Moves all of these tables, or none.
    async fn swap_all(&self, moves: Vec<PointerMove>) -> Swapped {
        drop(moves);
        Swapped::Refused(Error::unsupported("a commit to several tables of this catalog at once"))
    }
    /// `NotFound` without the namespace, `AlreadyExists` where the name is taken, `CommitUnknown` where the table may
    /// come to be later.
    async fn create(&self, namespace: &str, table: &str, first: Pointed<'_>) -> Result<()>;
    /// Forgets the table if it still is at `expected`.
    async fn remove(&self, namespace: &str, table: &str, expected: &str) -> Result<bool>;
    /// Names of the tables of one namespace, sorted.
    async fn tables(&self, namespace: &str) -> Result<Vec<String>>;
    /// All namespaces, sorted.
    async fn namespaces(&self) -> Result<Vec<String>>;
    async fn namespace_exists(&self, namespace: &str) -> Result<bool>;
    /// False where it was there already.
    async fn create_namespace(&self, namespace: &str) -> Result<bool>;
    /// Fails with `InvalidInput` where it holds tables, `NotFound` where it is not there.
    async fn drop_namespace(&self, namespace: &str) -> Result<()>;
    /// Fails where the catalog does not take such a name.
    fn check_name(&self, kind: &str, name: &str) -> Result<()>;
    /// The folder that new tables of the namespace go to, where the catalog says.
    async fn folder(&self, namespace: &str) -> Result<Option<String>>;
    #[cfg(test)]
    async fn close(&self) {}
}
