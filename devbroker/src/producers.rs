//! What one partition remembers of idempotent producers, so that a batch sent again is not stored again. All of it
//! is in the batch headers of the log, from which it is rebuilt on start.

use std::collections::{HashMap, VecDeque};

use crate::batch::BatchHeader;

/// A producer has at most this many batches in flight, so a repeated one is among the last so many.
const REMEMBERED_BATCHES: usize = 5;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sequence {
    /// Store it.
    Next,
    /// It is stored already, at this offset.
    Duplicate { base_offset: i64 },
    /// It is stored already, so long ago that its offset is forgotten.
    Forgotten,
    /// A batch before it is missing.
    OutOfOrder,
    /// A newer generation of this producer has written.
    Fenced,
}

#[derive(Debug)]
struct Producer {
    epoch: i16,
    batches: VecDeque<(i32, i32, i64)>,
    last_offset: i64,
}

#[derive(Debug)]
pub struct Producers {
    by_id: HashMap<i64, Producer>,
    max: usize,
}

impl Producers {
    pub fn new(max: usize) -> Self {
        Self { by_id: HashMap::new(), max: max.max(2) }
    }

    /// What is to be done with a batch of these numbers. A producer that is not known may begin anywhere, as its
    /// earlier batches may have been dropped by retention.
    pub fn check(&self, batch: &BatchHeader) -> Sequence {
        if batch.producer_id < 0 {
            return Sequence::Next;
        }
        let Some(producer) = self.by_id.get(&batch.producer_id) else { return Sequence::Next };
        if batch.producer_epoch < producer.epoch {
            return Sequence::Fenced;
        }
        if batch.producer_epoch > producer.epoch {
            return if batch.base_sequence == 0 { Sequence::Next } else { Sequence::OutOfOrder };
        }
        let wanted = (batch.base_sequence, batch.last_sequence());
        if let Some(found) = producer.batches.iter().find(|(first, last, _)| (*first, *last) == wanted) {
            return Sequence::Duplicate { base_offset: found.2 };
        }
        let Some(&(_, last, _)) = producer.batches.back() else { return Sequence::Next };
        let expected = if last == i32::MAX { 0 } else { last + 1 };
        if batch.base_sequence == expected {
            Sequence::Next
        } else if batch.base_sequence < expected && batch.last_sequence() <= last {
            Sequence::Forgotten
        } else {
            Sequence::OutOfOrder
        }
    }

    /// Notes a batch that is in the log.
    pub fn stored(&mut self, batch: &BatchHeader) {
        if batch.producer_id < 0 {
            return;
        }
        if self.by_id.len() >= self.max && !self.by_id.contains_key(&batch.producer_id) {
            self.forget_older_half();
        }
        let producer = self.by_id.entry(batch.producer_id).or_insert_with(|| Producer {
            epoch: batch.producer_epoch,
            batches: VecDeque::with_capacity(REMEMBERED_BATCHES),
            last_offset: 0,
        });
        if producer.epoch != batch.producer_epoch {
            producer.epoch = batch.producer_epoch;
            producer.batches.clear();
        }
        if producer.batches.len() == REMEMBERED_BATCHES {
            producer.batches.pop_front();
        }
        producer.batches.push_back((batch.base_sequence, batch.last_sequence(), batch.base_offset));
        producer.last_offset = batch.base_offset;
    }

    fn forget_older_half(&mut self) {
        let mut offsets: Vec<i64> = self.by_id.values().map(|p| p.last_offset).collect();
        let middle = offsets.len() / 2;
        let (_, &mut median, _) = offsets.select_nth_unstable(middle);
        self.by_id.retain(|_, p| p.last_offset >= median);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use crate::batch::tests::batch;

    fn header(epoch: i16, sequence: i32, records: usize, offset: i64) -> BatchHeader {
        let mut h = BatchHeader::parse(&batch(&vec![1; records], Some((7, epoch, sequence)), 1)).unwrap();
        h.base_offset = offset;
        h
    }

    #[test]
    fn repeats_gaps_and_old_generations_are_told_apart() {
        let mut p = Producers::new(10);
        for i in 0..7 {
            let h = header(1, i * 3, 3, i64::from(i) * 3);
            assert_eq!(p.check(&h), Sequence::Next);
            p.stored(&h);
        }
        assert_eq!(p.check(&header(1, 18, 3, 0)), Sequence::Duplicate { base_offset: 18 });
        assert_eq!(p.check(&header(1, 6, 3, 0)), Sequence::Duplicate { base_offset: 6 });
        assert_eq!(p.check(&header(1, 3, 3, 0)), Sequence::Forgotten);
        assert_eq!(p.check(&header(1, 24, 3, 0)), Sequence::OutOfOrder);
        assert_eq!(p.check(&header(1, 20, 3, 0)), Sequence::OutOfOrder);
        assert_eq!(p.check(&header(0, 21, 3, 0)), Sequence::Fenced);
        assert_eq!(p.check(&header(2, 21, 3, 0)), Sequence::OutOfOrder);
        assert_eq!(p.check(&header(2, 0, 3, 0)), Sequence::Next);
    }

    #[test]
    fn sequence_goes_on_after_the_wrap() {
        let mut p = Producers::new(10);
        let h = header(0, i32::MAX - 1, 2, 0);
        p.stored(&h);
        assert_eq!(p.check(&header(0, 0, 1, 0)), Sequence::Next);
    }

    #[test]
    fn number_of_producers_is_bounded() {
        let mut p = Producers::new(8);
        for id in 0..100 {
            let mut h = header(0, 0, 1, id);
            h.producer_id = id;
            p.stored(&h);
        }
        assert!(p.by_id.len() <= 8);
        assert!(p.by_id.contains_key(&99));
    }
}
