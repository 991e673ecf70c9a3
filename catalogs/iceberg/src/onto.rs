use std::sync::Arc;

use tidewater_catalogs::Result;
use uuid::Uuid;

use crate::attempts::{self, Commit};
use crate::draft::{Check, Draft};
use crate::in_flight::Entered;
use crate::lake::Lake;
use crate::state::TableState;

/// Where that goes which is written to a table.
#[derive(Clone)]
pub(crate) enum Onto {
    Main,
    Branch(String),
    Draft(Arc<Draft>),
}

impl Onto {
    /// Other than main.
    pub(crate) fn branch(&self) -> Option<&str> {
        match self {
            Self::Branch(branch) => Some(branch),
            Self::Main | Self::Draft(_) => None,
        }
    }

    pub(crate) fn draft(&self) -> Option<&Arc<Draft>> {
        match self {
            Self::Draft(draft) => Some(draft),
            Self::Main | Self::Branch(_) => None,
        }
    }

    /// Makes files part of the table that are written. `check` is what it means that others change it meanwhile.
    pub(crate) async fn commit(
        &self,
        lake: &Lake,
        state: &TableState,
        (commit, entered): (Uuid, Entered),
        what: &dyn Commit,
        check: impl FnOnce() -> Option<Check> + Send,
    ) -> Result<()> {
        let done = match self {
            Self::Draft(draft) => draft.take(what, entered, check()).await,
            Self::Main | Self::Branch(_) => attempts::commit(lake, state, commit, what).await,
        };
        done.map_err(|e| e.with_context("table", &state.name))
    }
}
