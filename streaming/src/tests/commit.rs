#![allow(clippy::unwrap_used, clippy::expect_used)]

use tidewater_catalogs::{Anchor, AnchorState};
use uuid::Uuid;

use super::{Action, CommitState, Fact, Finish, Reply, Resolution, resolve};

fn anchor(seq: u64, uuid: u128) -> Anchor {
    Anchor {
        snapshot_id: 100 + i64::try_from(seq).unwrap(),
        seq,
        epoch: 1,
        commit_uuid: Uuid::from_u128(uuid),
        checkpoint: format!("ckpt/{seq}"),
        checkpoint_sha256: format!("sha-{seq}"),
    }
}

fn valid(seq: u64, uuid: u128) -> AnchorState {
    AnchorState::Valid(anchor(seq, uuid))
}

const MINE: Uuid = Uuid::from_u128(8);

#[test]
fn every_row_of_the_decision_table() {
    let before = anchor(7, 7);
    let expected = Some(&before);
    let moved = AnchorState::Valid(Anchor { snapshot_id: 999, ..before.clone() });
    let rewritten = AnchorState::Valid(Anchor { checkpoint_sha256: "else".into(), ..before.clone() });
    let broken = AnchorState::Broken("tag is gone".into());

    assert_eq!(resolve(expected, MINE, &valid(8, 8)), Resolution::Committed(anchor(8, 8)));
    assert_eq!(resolve(expected, MINE, &valid(7, 7)), Resolution::NotYet);
    assert_eq!(resolve(expected, MINE, &valid(8, 9)), Resolution::Fenced(anchor(8, 9)));
    assert_eq!(resolve(expected, MINE, &valid(12, 9)), Resolution::Fenced(anchor(12, 9)));
    assert!(matches!(resolve(expected, MINE, &valid(6, 6)), Resolution::AnchorLost(_)), "rolled back");
    assert!(matches!(resolve(expected, MINE, &moved), Resolution::AnchorLost(_)), "tag moved by hand");
    assert!(matches!(resolve(expected, MINE, &rewritten), Resolution::AnchorLost(_)), "property edited");
    assert!(matches!(resolve(expected, MINE, &AnchorState::Absent), Resolution::AnchorLost(_)));
    assert_eq!(resolve(expected, MINE, &broken), Resolution::AnchorLost("tag is gone".into()));

    assert_eq!(resolve(None, MINE, &AnchorState::Absent), Resolution::NotYet);
    assert_eq!(resolve(None, MINE, &valid(0, 8)), Resolution::Committed(anchor(0, 8)));
    assert_eq!(resolve(None, MINE, &valid(0, 9)), Resolution::Fenced(anchor(0, 9)));
    assert!(matches!(resolve(None, MINE, &broken), Resolution::AnchorLost(_)));
}

fn fresh() -> CommitState {
    CommitState::new(Some(anchor(7, 7)), MINE)
}

#[test]
fn a_head_at_hand_saves_the_look() {
    assert_eq!(fresh().begin(Some(&valid(7, 7))), Action::Attempt);
    assert_eq!(fresh().begin(None), Action::Load { failures: 0 });
    assert_eq!(fresh().begin(Some(&valid(6, 6))), Action::Load { failures: 0 }, "a stale head decides nothing");
}

#[test]
fn only_a_yes_that_shows_the_commit_is_believed() {
    let done = Action::Finish(Finish::Committed(anchor(8, 8)));
    assert_eq!(fresh().learn(&Fact::Replied(Reply::Yes(valid(8, 8)))), done);
    for doubtful in [valid(7, 7), valid(8, 9), AnchorState::Absent, AnchorState::Broken("x".into())] {
        assert_eq!(fresh().learn(&Fact::Replied(Reply::Yes(doubtful))), Action::Load { failures: 0 });
    }
}

#[test]
fn a_lost_reply_is_resolved_by_looking() {
    // Reply lost, commit applied.
    let mut state = fresh();
    assert_eq!(state.learn(&Fact::Replied(Reply::Unknown)), Action::Load { failures: 0 });
    assert_eq!(state.learn(&Fact::Loaded(valid(8, 8))), Action::Finish(Finish::Committed(anchor(8, 8))));

    // A proxy sent it twice and passes on the second answer.
    let mut state = fresh();
    assert_eq!(state.learn(&Fact::Replied(Reply::No { retryable: true })), Action::Load { failures: 0 });
    assert_eq!(state.learn(&Fact::Loaded(valid(8, 8))), Action::Finish(Finish::Committed(anchor(8, 8))));

    // The same, with an answer that would otherwise be final.
    let mut state = fresh();
    state.learn(&Fact::Replied(Reply::No { retryable: false }));
    assert_eq!(state.learn(&Fact::Loaded(valid(8, 8))), Action::Finish(Finish::Committed(anchor(8, 8))));
}

#[test]
fn a_moved_table_gets_the_same_commit_again_without_end() {
    let mut state = fresh();
    for failures in 0..100 {
        assert_eq!(state.learn(&Fact::Replied(Reply::No { retryable: true })), Action::Load { failures });
        assert_eq!(state.learn(&Fact::Loaded(valid(7, 7))), Action::Attempt);
    }
}

#[test]
fn an_unreachable_catalog_decides_nothing() {
    let mut state = fresh();
    state.learn(&Fact::Replied(Reply::Unknown));
    for failures in 1..50 {
        assert_eq!(state.learn(&Fact::Unreachable), Action::Load { failures });
    }
    assert_eq!(state.learn(&Fact::Loaded(valid(7, 7))), Action::Attempt);
}

#[test]
fn others_end_it() {
    let mut state = fresh();
    state.learn(&Fact::Replied(Reply::Unknown));
    assert_eq!(state.learn(&Fact::Loaded(valid(9, 9))), Action::Finish(Finish::Fenced(anchor(9, 9))));
    assert!(matches!(fresh().learn(&Fact::Loaded(AnchorState::Absent)), Action::Finish(Finish::AnchorLost(_))));
    assert_eq!(fresh().learn(&Fact::Gone), Action::Finish(Finish::TableGone));
}

#[test]
fn a_final_refusal_counts_only_while_it_is_the_last_word() {
    let mut state = fresh();
    state.learn(&Fact::Replied(Reply::No { retryable: false }));
    assert_eq!(state.learn(&Fact::Unreachable), Action::Load { failures: 1 });
    assert_eq!(state.learn(&Fact::Loaded(valid(7, 7))), Action::Finish(Finish::Rejected));

    let mut state = fresh();
    state.learn(&Fact::Replied(Reply::No { retryable: false }));
    state.learn(&Fact::Replied(Reply::Unknown));
    assert_eq!(state.learn(&Fact::Loaded(valid(7, 7))), Action::Attempt);
}
