use std::any::Any;
use std::fmt::Debug;
use std::sync::Arc;

use crate::{LakeTable, Result};

/// A private copy of one state of a table: what a transaction makes of it, until
/// [`commit_drafts`](crate::LakeCatalog::commit_drafts) shows it to everybody or the draft is dropped.
pub trait TableDraft: Send + Sync + Debug {
    /// The table as the transaction has it now. What is written to it goes to the draft.
    fn table(self: Arc<Self>) -> Result<Arc<dyn LakeTable>>;
    fn is_changed(&self) -> bool;
    /// What the draft is now, for [`Self::reset`].
    fn mark(&self) -> DraftMark;
    /// Forgets what was written since the mark was made.
    fn reset(&self, mark: &DraftMark);
    /// The catalog knows its own kind again.
    fn as_any(&self) -> &(dyn Any + Send + Sync);
}

/// A state of a draft. It means something to the draft that gave it, and to no other.
#[derive(Clone)]
pub struct DraftMark(pub Arc<dyn Any + Send + Sync>);

impl Debug for DraftMark {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DraftMark")
    }
}
