use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use datafusion::catalog::TableProvider;
use datafusion::execution::SendableRecordBatchStream;

use crate::{Result, Runner};

/// The column behind the table's own in [`TargetRows::provider`]: where a row lies, as `uint64`. It means something
/// to the change that gave it, and to nobody else.
pub const ROW_PLACE: &str = "_tidewater_place";

/// Which of a table's properties decide how rows are changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    Delete,
    Update,
    Merge,
}

impl ChangeKind {
    /// As in `write.<word>.mode`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Delete => "delete",
            Self::Update => "update",
            Self::Merge => "merge",
        }
    }
}

/// What it means that a row is named more than once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repeated {
    /// The first counts, and the others are passed over.
    First,
    /// [`crate::ErrorKind::Ambiguous`].
    Refused,
}

/// Rows that changed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Changed {
    /// Taken out, those included that came back with other values.
    pub taken: u64,
    /// Put in that were not there before.
    pub added: u64,
}

/// Rows of one state of a table, for a statement that does something to them.
pub trait TargetRows: Send + Sync + std::fmt::Debug {
    /// The table's columns, and [`ROW_PLACE`] behind them.
    fn provider(&self) -> Result<Arc<dyn TableProvider>>;

    /// To be said where the statement reads the table in another way, too: what it does then rests on all of it.
    fn reads_table(&self) {}
}

/// Takes what a statement returns of the rows that changed.
pub trait ReturnedRows: Send + Sync {
    /// `ResourcesExhausted` where there is no room for more; the change then ends with it, and nothing was done.
    fn keep(&self, rows: RecordBatch) -> Result<()>;
}

/// One change of a table's rows. Read the rows first, then say what becomes of them.
#[async_trait]
pub trait TableChange: TargetRows {
    /// Carries the change out in one snapshot. The first column of `input` is the place of a row that goes, or null.
    /// The second, where there is one, is true where the columns behind it (in table order) are a row that comes.
    /// Columns behind those go to `returned`, for rows that are changed indeed, before anything is committed.
    ///
    /// `Conflict`: the table was changed meanwhile so that this change would be another one now; nothing was done, and
    /// it can be made anew on a newer state.
    async fn apply(
        &self,
        input: SendableRecordBatchStream,
        repeated: Repeated,
        returned: Option<&dyn ReturnedRows>,
        runner: &Runner,
    ) -> Result<Changed>;
}
