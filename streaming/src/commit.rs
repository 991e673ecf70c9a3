//! Exactly once, as pure decisions: what was learned goes in, what to do next comes out.
//!
//! A commit is a compare-and-swap on the flow's anchor, and its answer may be lost, doubled, or late. So nothing but
//! a whole "yes" that shows our own commit is believed. Everything else is *unknown* until the table is read again:
//!
//! ```text
//!   anchor found               decision     why it is safe
//!   our commit                 Committed    the swap happened, whatever the answer was
//!   what we expected           NotYet       same commit again on the new main; an older request that is still under
//!                                           way expects the same anchor, so only one of the two can win
//!   another, or later, commit  Fenced       someone took over; ours may be in its past, so its files are left alone
//!   none, or broken            AnchorLost   the table was rolled back or the tag removed: a person must decide
//!   (cannot be read)           wait         no progress is claimed and none is denied
//! ```
//!
//! No branch deletes a file: a commit that looks lost may still arrive.

use tidewater_catalogs::{Anchor, AnchorState, CommitUuid};

/// What the anchor says about one commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resolution {
    Committed(Anchor),
    NotYet,
    Fenced(Anchor),
    AnchorLost(String),
}

/// The decision at the heart of it. `expected` is the anchor that the commit replaces.
pub fn resolve(expected: Option<&Anchor>, commit_uuid: CommitUuid, found: &AnchorState) -> Resolution {
    match (found, expected) {
        (AnchorState::Broken(why), _) => Resolution::AnchorLost(why.clone()),
        (AnchorState::Valid(anchor), _) if anchor.commit_uuid == commit_uuid => Resolution::Committed(anchor.clone()),
        (AnchorState::Valid(anchor), Some(expected)) if anchor == expected => Resolution::NotYet,
        // Same commit, other place or content: someone moved the tag by hand.
        (AnchorState::Valid(anchor), Some(expected)) if anchor.commit_uuid == expected.commit_uuid => {
            Resolution::AnchorLost(format!(
                "commit {} is at snapshot {}, and was at snapshot {}",
                anchor.commit_uuid, anchor.snapshot_id, expected.snapshot_id
            ))
        }
        // Numbers of a flow's commits only grow; a smaller one is a roll-back that took tag and property along.
        (AnchorState::Valid(anchor), Some(expected)) if anchor.seq < expected.seq => Resolution::AnchorLost(format!(
            "the table stands at commit {} of this flow, which had reached {}",
            anchor.seq, expected.seq
        )),
        (AnchorState::Valid(anchor), _) => Resolution::Fenced(anchor.clone()),
        (AnchorState::Absent, None) => Resolution::NotYet,
        (AnchorState::Absent, Some(expected)) => {
            Resolution::AnchorLost(format!("tag and property are gone; commit {} was the last", expected.seq))
        }
    }
}

/// The answer to one attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// Yes, and the anchor as the answer shows it.
    Yes(AnchorState),
    /// No. `retryable` is false where the same request will be refused again on any state.
    No { retryable: bool },
    /// No answer, half an answer, or one that is not understood.
    Unknown,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fact {
    /// The table as it is now, read past every cache.
    Loaded(AnchorState),
    /// The table is not there.
    Gone,
    /// The table could not be read.
    Unreachable,
    Replied(Reply),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Send the commit, as it is, on the head that was loaded last.
    Attempt,
    /// Pause as long as that many failures in a row ask for, then load the table.
    Load {
        failures: u32,
    },
    Finish(Finish),
}

/// How a commit ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finish {
    Committed(Anchor),
    Fenced(Anchor),
    AnchorLost(String),
    TableGone,
    /// It is not in the table, and the refusal says that it never will be.
    Rejected,
}

/// One commit on its way: feeds facts to [`resolve`] and counts failures.
#[derive(Debug)]
pub struct CommitState {
    expected: Option<Anchor>,
    commit_uuid: CommitUuid,
    failures: u32,
    rejected: bool,
}

impl CommitState {
    pub fn new(expected: Option<Anchor>, commit_uuid: CommitUuid) -> Self {
        Self { expected, commit_uuid, failures: 0, rejected: false }
    }

    /// Before anything was learned: an attempt on a head that is at hand, or a look at the table.
    pub fn begin(&self, at_hand: Option<&AnchorState>) -> Action {
        match at_hand {
            Some(found) if self.resolve(found) == Resolution::NotYet => Action::Attempt,
            _ => Action::Load { failures: 0 },
        }
    }

    pub fn learn(&mut self, fact: &Fact) -> Action {
        match fact {
            Fact::Replied(Reply::Yes(found)) => match self.resolve(found) {
                Resolution::Committed(anchor) => Action::Finish(Finish::Committed(anchor)),
                // A yes that does not show our commit is no yes.
                _ => self.look_again(),
            },
            Fact::Replied(Reply::No { retryable }) => {
                self.rejected = !retryable;
                self.look_again()
            }
            Fact::Replied(Reply::Unknown) => {
                self.rejected = false;
                self.look_again()
            }
            Fact::Unreachable => self.look_again(),
            Fact::Gone => Action::Finish(Finish::TableGone),
            Fact::Loaded(found) => match self.resolve(found) {
                Resolution::Committed(anchor) => Action::Finish(Finish::Committed(anchor)),
                Resolution::NotYet if self.rejected => Action::Finish(Finish::Rejected),
                Resolution::NotYet => Action::Attempt,
                Resolution::Fenced(anchor) => Action::Finish(Finish::Fenced(anchor)),
                Resolution::AnchorLost(why) => Action::Finish(Finish::AnchorLost(why)),
            },
        }
    }

    /// True once an attempt or a look has failed.
    pub fn failed(&self) -> bool {
        self.failures > 0
    }

    fn resolve(&self, found: &AnchorState) -> Resolution {
        resolve(self.expected.as_ref(), self.commit_uuid, found)
    }

    /// The first look follows at once, as most commits that fail lost a race and only need a new base.
    fn look_again(&mut self) -> Action {
        let action = Action::Load { failures: self.failures };
        self.failures = self.failures.saturating_add(1);
        action
    }
}

#[cfg(test)]
#[path = "tests/model.rs"]
mod model;
#[cfg(test)]
#[path = "tests/commit.rs"]
mod tests;
