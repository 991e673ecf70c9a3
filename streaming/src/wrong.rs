//! Commit protocols that lose or double rows, for tests to put in the place of the right one: a simulator that does not
//! catch them proves nothing.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;

use tidewater_catalogs::{AnchorState, CommitRequest, TableHead};

use crate::commit::{Finish, Reply};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    Right,
    /// No answer: sends the commit again on the new base, whatever the anchor says.
    BlindRetry,
    /// Looks for its commit in the table's current snapshot, where others may have committed since.
    CurrentSnapshot,
    /// No answer: deletes the staged files and begins anew.
    DeleteWhenUnknown,
    /// Someone else committed: deletes the staged files.
    DeleteWhenFenced,
    /// Replays dead letters, and keeps no account of which.
    ForgetReplayed,
}

thread_local! {
    static CHOSEN: Cell<Protocol> = const { Cell::new(Protocol::Right) };
    static DELETED: RefCell<BTreeSet<String>> = const { RefCell::new(BTreeSet::new()) };
}

/// For this thread, and with it for a current-thread runtime. Forgets what was deleted.
pub(crate) fn choose(protocol: Protocol) {
    CHOSEN.set(protocol);
    DELETED.with_borrow_mut(BTreeSet::clear);
}

pub(crate) fn was_deleted(path: &str) -> bool {
    DELETED.with_borrow(|deleted| deleted.contains(path))
}

/// Whether the catalog compares the anchor when it swaps.
pub(crate) fn compares_anchor() -> bool {
    !matches!(CHOSEN.get(), Protocol::BlindRetry | Protocol::CurrentSnapshot)
}

/// What the committer believes to find.
pub(crate) fn found(head: &TableHead, request: &CommitRequest) -> AnchorState {
    let expected = || request.expected.clone().map_or(AnchorState::Absent, AnchorState::Valid);
    match (CHOSEN.get(), &head.anchor) {
        (Protocol::BlindRetry, _) => expected(),
        (Protocol::CurrentSnapshot, AnchorState::Valid(anchor))
            if Some(anchor.snapshot_id) != head.main_snapshot_id =>
        {
            expected()
        }
        (_, found) => found.clone(),
    }
}

/// True where the flow must begin anew because its files are gone.
pub(crate) fn deletes_on_reply(reply: &Reply, request: &CommitRequest) -> bool {
    let deletes = CHOSEN.get() == Protocol::DeleteWhenUnknown && *reply == Reply::Unknown;
    if deletes {
        delete(request);
    }
    deletes
}

pub(crate) fn deletes_on_finish(finish: &Finish, request: &CommitRequest) {
    if CHOSEN.get() == Protocol::DeleteWhenFenced && matches!(finish, Finish::Fenced(_)) {
        delete(request);
    }
}

fn delete(request: &CommitRequest) {
    DELETED.with_borrow_mut(|deleted| deleted.extend(request.files.files.iter().map(|f| f.path.clone())));
}

/// What a checkpoint says of replayed letters.
pub(crate) fn forgets_replayed(state: &mut crate::replay::ReplayState) {
    if CHOSEN.get() == Protocol::ForgetReplayed {
        state.letters = Default::default();
    }
}
