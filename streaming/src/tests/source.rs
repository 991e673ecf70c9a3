#![allow(clippy::unwrap_used, clippy::expect_used)]

use tidewater_catalogs::{ErrorKind, PartitionRange};

use super::*;

fn layout(ranges: &[(i32, i64, i64)]) -> TopicLayout {
    TopicLayout {
        topic: "clicks".into(),
        topic_id: "t1".into(),
        cluster_id: "c1".into(),
        partitions: ranges
            .iter()
            .map(|(partition, low, high)| PartitionRange { partition: *partition, low: *low, high: *high })
            .collect(),
    }
}

fn at(positions: &[(i32, i64)]) -> Offsets {
    positions.iter().copied().collect()
}

#[test]
fn another_topic_of_the_same_name_is_noticed() {
    let now = layout(&[(0, 0, 10)]);
    let known = SourcePositions::of(&now);
    check_identity(&known, &now).unwrap();
    for other in [
        TopicLayout { topic_id: "t2".into(), ..now.clone() },
        TopicLayout { cluster_id: "c2".into(), ..now.clone() },
        TopicLayout { topic: "orders".into(), ..now.clone() },
    ] {
        assert_eq!(check_identity(&known, &other).unwrap_err().kind(), ErrorKind::SourceReplaced);
    }
    // An old broker does not tell ids.
    check_identity(&known, &TopicLayout { topic_id: String::new(), ..now.clone() }).unwrap();
    check_identity(&SourcePositions { topic_id: String::new(), ..known }, &now).unwrap();
}

#[test]
fn gaps_are_exact() {
    let topic = layout(&[(0, 5, 10), (1, 0, 3), (2, 7, 7)]);
    assert_eq!(gaps(&at(&[(0, 5), (1, 3), (2, 7)]), &topic).unwrap(), vec![]);
    assert_eq!(
        gaps(&at(&[(0, 2), (1, 0), (2, 1)]), &topic).unwrap(),
        vec![PartitionMove { partition: 0, from: 2, to: 5 }, PartitionMove { partition: 2, from: 1, to: 7 }]
    );
    let text = data_loss("clicks", &[PartitionMove { partition: 0, from: 2, to: 5 }]);
    assert_eq!(text.detail(), Some("partition 0 offsets [2, 5)"));
}

#[test]
fn a_position_past_the_end_means_another_topic() {
    for positions in [at(&[(0, 11)]), at(&[(9, 0)])] {
        assert_eq!(gaps(&positions, &layout(&[(0, 0, 10)])).unwrap_err().kind(), ErrorKind::SourceReplaced);
    }
    gaps(&at(&[(0, 10)]), &layout(&[(0, 0, 10)])).unwrap();
    gaps(&at(&[(0, 10)]), &layout(&[(0, 10, 10)])).unwrap();
}

#[test]
fn new_partitions_begin_at_zero_whatever_is_left_of_them() {
    let topic = layout(&[(0, 0, 9), (1, 3, 9), (2, 0, 0)]);
    assert_eq!(new_partitions(&at(&[(0, 4)]), &topic), vec![(1, 0), (2, 0)]);
    let positions = with_new_partitions(at(&[(0, 4)]), &topic);
    assert_eq!(positions, at(&[(0, 4), (1, 0), (2, 0)]));
    assert_eq!(gaps(&positions, &topic).unwrap(), vec![PartitionMove { partition: 1, from: 0, to: 3 }]);
}
