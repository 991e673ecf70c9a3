#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

fn invariants(set: &ReplayedSet) {
    for ranges in set.0.values() {
        assert!(!ranges.is_empty());
        assert!(ranges.iter().all(|(from, to)| from < to), "{ranges:?}");
        assert!(ranges.windows(2).all(|pair| pair[0].1 < pair[1].0), "{ranges:?}");
    }
}

proptest! {
    /// Against a set of single offsets: whatever ranges come in whatever order, and in how many parts.
    #[test]
    fn holds_what_was_put_in_and_nothing_else(
        inserts in prop::collection::vec((0i32..3, 0i64..40, 0i64..6, any::<bool>()), 0..60),
    ) {
        let (mut set, mut part) = (ReplayedSet::default(), ReplayedSet::default());
        let mut single = BTreeSet::new();
        for (partition, from, len, merge) in inserts {
            part.insert(partition, from, from + len);
            single.extend((from..from + len).map(|offset| (partition, offset)));
            invariants(&part);
            if merge {
                set.extend(&std::mem::take(&mut part));
                invariants(&set);
            }
        }
        set.extend(&part);
        invariants(&set);
        for partition in 0..4 {
            for offset in -1..50 {
                prop_assert_eq!(set.contains(partition, offset), single.contains(&(partition, offset)));
            }
        }
        let gaps = single.iter().filter(|(p, o)| !single.contains(&(*p, o - 1))).count();
        prop_assert_eq!(set.ranges(), gaps, "as few ranges as there can be");
        let json = serde_json::to_string(&set).unwrap();
        prop_assert_eq!(serde_json::from_str::<ReplayedSet>(&json).unwrap(), set);
    }
}

#[test]
fn a_request_is_forgotten_only_when_nobody_names_it() {
    let ids = [Uuid::from_u128(1), Uuid::from_u128(2)];
    let mut state = ReplayState::default();
    let ended = |id| ReplayProgress { ended: Some(ReplayEnd::Complete), ..ReplayProgress::new(id) };
    let mut letters = ReplayedSet::default();
    letters.insert(0, 3, 9);
    state.apply(&ReplayDelta { letters: letters.clone(), requests: vec![ReplayProgress::new(ids[0])], replayed: 2 });
    state.apply(&ReplayDelta { requests: vec![ended(ids[0]), ended(ids[1])], ..ReplayDelta::default() });
    assert_eq!(state.requests, [ended(ids[0]), ended(ids[1])]);
    state.forget_answered(&[Replay { id: ids[1], letters: Arc::new(NoLetters) }]);
    assert_eq!(state.requests, [ended(ids[1])]);
    state.forget_answered(&[]);
    assert_eq!((state.requests.len(), state.letters == letters, state.is_empty()), (0, true, false));
}

#[derive(Debug)]
struct NoLetters;

#[async_trait]
impl LetterSource for NoLetters {
    async fn open(&self) -> Result<Box<dyn LetterReader>> {
        Err(tidewater_catalogs::Error::not_found("none"))
    }
}
