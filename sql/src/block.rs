//! What a transaction block has read and written.
//!
//! A table is loaded once in a block, and is what it was then to every statement of it; so are the rows of its flow that
//! were not committed. Statements write to a private draft of it, which COMMIT shows to everybody.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tidewater_catalogs::{DraftMark, LakeTable, TableDraft, TableName};

use crate::engine::Engine;
use crate::error::Result;
use crate::plan::relation::TableRelation;
use crate::{SqlError, SqlState};

#[derive(Debug, Default)]
pub(crate) struct Block {
    tables: Mutex<HashMap<TableName, Pinned>>,
}

#[derive(Debug)]
struct Pinned {
    relation: TableRelation,
    draft: Option<Arc<dyn TableDraft>>,
}

/// What a block had written at a savepoint.
#[derive(Debug, Default)]
pub(crate) struct Mark(HashMap<TableName, DraftMark>);

impl Block {
    /// The table as this block sees it; none where it has not looked yet.
    pub(crate) fn find(&self, name: &TableName) -> Result<Option<TableRelation>> {
        let tables = self.tables.lock();
        let Some(pinned) = tables.get(name) else { return Ok(None) };
        let table = match &pinned.draft {
            Some(draft) => Arc::clone(draft).table()?,
            None => Arc::clone(&pinned.relation.table),
        };
        Ok(Some(TableRelation { table, ..pinned.relation.clone() }))
    }

    /// A table that was looked at for the first time.
    pub(crate) fn pin(&self, name: &TableName, relation: TableRelation) {
        self.tables.lock().entry(name.clone()).or_insert(Pinned { relation, draft: None });
    }

    /// The table of that name, for a statement that writes to it.
    pub(crate) async fn draft(&self, engine: &Engine, name: &TableName) -> Result<Arc<dyn LakeTable>> {
        let (known, other) = {
            let tables = self.tables.lock();
            let known = tables.get(name).map(|pinned| (Arc::clone(&pinned.relation.table), pinned.draft.clone()));
            let changed = |pinned: &Pinned| pinned.draft.as_ref().is_some_and(|draft| draft.is_changed());
            (known, tables.iter().find(|(at, pinned)| *at != name && changed(pinned)).map(|(at, _)| at.clone()))
        };
        let (table, draft) = known.ok_or_else(|| SqlError::internal("a table that the block has not seen"))?;
        if let Some(other) = other {
            at_once(engine, name, &other).await?;
        }
        let draft = match draft {
            Some(draft) => draft,
            None => {
                let draft = table.draft()?;
                if let Some(pinned) = self.tables.lock().get_mut(name) {
                    pinned.draft = Some(Arc::clone(&draft));
                }
                draft
            }
        };
        Ok(draft.table()?)
    }

    pub(crate) fn mark(&self) -> Mark {
        let tables = self.tables.lock();
        let drafts = tables.iter().filter_map(|(name, pinned)| Some((name.clone(), pinned.draft.as_ref()?.mark())));
        Mark(drafts.collect())
    }

    /// Takes back what was written since the mark was made.
    pub(crate) fn reset(&self, mark: &Mark) {
        for (name, pinned) in self.tables.lock().iter_mut() {
            match (mark.0.get(name), &pinned.draft) {
                (Some(mark), Some(draft)) => draft.reset(mark),
                _ => pinned.draft = None,
            }
        }
    }

    /// Drafts that differ from what others see.
    pub(crate) fn changed(&self) -> Vec<Arc<dyn TableDraft>> {
        let tables = self.tables.lock();
        tables.values().filter_map(|pinned| pinned.draft.clone()).filter(|draft| draft.is_changed()).collect()
    }
}

/// 0A000 where changes of both tables could not become visible at once.
async fn at_once(engine: &Engine, name: &TableName, other: &TableName) -> Result<()> {
    let refused = |detail: String| {
        Err(SqlError::unsupported("a transaction cannot change these tables together")
            .with_detail(detail)
            .with_hint("Change them in transactions of their own."))
    };
    if name.catalog != other.catalog {
        return refused(format!("\"{name}\" and \"{other}\" are of different catalogs."));
    }
    if !engine.lake.commits_together(&name.catalog).await? {
        return refused(format!("Catalog \"{}\" commits one table at a time.", name.catalog));
    }
    Ok(())
}

/// What COMMIT says where it is too late.
pub(crate) fn rolled_back(mut e: SqlError) -> SqlError {
    if e.state == SqlState::SERIALIZATION_FAILURE {
        e.hint = Some("Run the whole transaction again.".to_owned());
    }
    e
}
