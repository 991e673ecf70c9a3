//! `rewrite_manifests`: what is listed stays the same, and how it is listed changes.

use std::collections::BTreeMap;

use async_trait::async_trait;
use iceberg::spec::Operation;
use parking_lot::Mutex;
use tidewater_catalogs::{Result, RewrittenManifests};
use uuid::Uuid;

use crate::attempts::{self, Commit};
use crate::commit::anchor::COMMIT_UUID;
use crate::commit::{Base, Change, MANIFESTS_CREATED, MANIFESTS_REPLACED, Staged, stage};
use crate::lake::Lake;
use crate::state::TableState;

pub(crate) async fn rewrite_manifests(lake: &Lake, state: &TableState) -> Result<RewrittenManifests> {
    let now = lake.load(&state.name).await?;
    let before = crate::commit::current_manifests(&now).await?;
    if before.len() < 2 && before.iter().all(|m| fits(&now, m.manifest_length)) {
        return Ok(RewrittenManifests::default());
    }
    let what = Rewrite { lake, commit: Uuid::now_v7(), done: Mutex::default() };
    attempts::commit(lake, state, what.commit, &what).await.map_err(|e| e.with_context("table", &state.name))?;
    Ok(what.done.into_inner())
}

fn fits(state: &TableState, bytes: i64) -> bool {
    use crate::properties as p;
    let target = p::get(state.metadata.properties(), p::MANIFEST_TARGET_BYTES).unwrap_or(p::MANIFEST_TARGET_BYTES.1);
    u64::try_from(bytes).is_ok_and(|bytes| bytes <= target)
}

struct Rewrite<'a> {
    lake: &'a Lake,
    commit: Uuid,
    /// By the last attempt.
    done: Mutex<RewrittenManifests>,
}

#[async_trait]
impl Commit for Rewrite<'_> {
    async fn stage(&self, base: &Base) -> Result<Staged> {
        let change = Change {
            operation: Operation::Replace,
            commit: self.commit,
            regroup: true,
            summary: BTreeMap::from([(COMMIT_UUID.to_string(), self.commit.to_string())]),
            ..Change::default()
        };
        let staged = stage(base, change, self.lake.now_ms()).await?;
        let summary = staged.metadata.current_snapshot().map(|s| &s.summary().additional_properties);
        let count = |key| summary.and_then(|s| s.get(key)?.parse().ok()).unwrap_or(0);
        *self.done.lock() =
            RewrittenManifests { rewritten: count(MANIFESTS_REPLACED), added: count(MANIFESTS_CREATED) };
        Ok(staged)
    }
}
