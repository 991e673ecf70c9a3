//! ALTER TABLE … { CREATE | REPLACE | DROP } { BRANCH | TAG } ….

use std::sync::Arc;

use tidewater_catalogs::{
    Existing, FLOW_REFERENCE_PREFIX, LakeTable, Moved, ReferenceChange, ReferenceKind, SYSTEM_CATALOG,
};

use super::secret::skipping_drop;
use crate::dialect::{AlterReference, Name, ObjectKind};
use crate::error::Result;
use crate::plan::relation::{self, Relation};
use crate::run::{detached, guard};
use crate::session::{Notice, Outcome, StatementContext};
use crate::{SqlError, SqlState};

pub(super) async fn alter_reference(ctx: &StatementContext<'_>, alter: &AlterReference) -> Result<Outcome> {
    let (ReferenceChange::Create { name, .. } | ReferenceChange::Drop { name, .. }) = &alter.change else {
        return Err(SqlError::internal("no change of a branch or a tag"));
    };
    not_of_flows(name)?;
    let Some(table) = guard(&ctx.cancel, ctx.deadline, find(ctx, &alter.table)).await? else {
        if alter.if_exists {
            ctx.notice(skipping_drop(ObjectKind::Table, alter.table.last()));
            return Ok(Outcome::done("ALTER TABLE"));
        }
        return Err(SqlError::undefined_table(alter.table.0.join(".")));
    };
    let moved = change(ctx, table, alter.change.clone()).await?;
    match &alter.change {
        ReferenceChange::Create { kind, name, existing: Existing::Kept, .. } if !moved.changed => {
            ctx.notice(skipped(*kind, name, "already exists"));
        }
        ReferenceChange::Drop { kind, name, .. } if !moved.changed => {
            ctx.notice(skipped(*kind, name, "does not exist"));
        }
        _ => {}
    }
    Ok(Outcome::done("ALTER TABLE"))
}

/// Whether it took place must be known, so it is not cancelled.
pub(super) async fn change(
    ctx: &StatementContext<'_>,
    table: Arc<dyn LakeTable>,
    change: ReferenceChange,
) -> Result<Moved> {
    detached(ctx, async move { Ok(table.change_reference(&change).await?) }).await
}

/// The table of a name, as it is now.
pub(super) async fn find(ctx: &StatementContext<'_>, name: &Name) -> Result<Option<Arc<dyn LakeTable>>> {
    let shown = name.0.join(".");
    let not_a_table = || SqlError::new(SqlState::WRONG_OBJECT_TYPE, format!("\"{shown}\" is not a table"));
    match relation::find(&ctx.lookup(), name).await? {
        None => Ok(None),
        Some(Relation::Table(found)) if found.past.is_some() => {
            Err(not_a_table().with_hint("Name the table, without a branch or a tag."))
        }
        Some(Relation::Table(found)) if found.table.info().name.catalog == SYSTEM_CATALOG => Err(SqlError::new(
            SqlState::INSUFFICIENT_PRIVILEGE,
            format!("permission denied: \"{shown}\" belongs to the server"),
        )),
        Some(Relation::Table(found)) => Ok(Some(found.table)),
        Some(_) => Err(not_a_table().with_hint("Only tables have branches and tags.")),
    }
}

/// 42939 for references that say where a flow stands.
pub(super) fn not_of_flows(name: &str) -> Result<()> {
    if !name.starts_with(FLOW_REFERENCE_PREFIX) {
        return Ok(());
    }
    Err(SqlError::new(SqlState::RESERVED_NAME, format!("name \"{name}\" is reserved"))
        .with_detail(format!("Names that begin with \"{FLOW_REFERENCE_PREFIX}\" say where flows stand."))
        .with_hint("Choose another name."))
}

fn skipped(kind: ReferenceKind, name: &str, why: &str) -> Notice {
    Notice::notice(format!("{} \"{name}\" {why}, skipping", kind.word()))
}
