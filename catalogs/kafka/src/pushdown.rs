//! Predicates on `_partition`, `_offset` and `_timestamp` as seeks.

use std::collections::BTreeSet;

use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use datafusion::logical_expr::expr::InList;
use datafusion::logical_expr::{Between, BinaryExpr, Expr, Operator};

/// What a conjunction of filters leaves of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seek {
    /// `None`: all of them.
    partitions: Option<BTreeSet<i64>>,
    /// `[low, high)` for partitions that have no list.
    partition_low: i64,
    partition_high: i64,
    /// `[low, high)`.
    pub(crate) offset_low: i64,
    pub(crate) offset_high: i64,
    /// Records of an earlier time, in milliseconds, need not be read. Times do not ascend with offsets, so a latest
    /// time ends nothing.
    pub(crate) since_ms: Option<i64>,
}

impl Default for Seek {
    fn default() -> Self {
        Self {
            partitions: None,
            partition_low: i64::MIN,
            partition_high: i64::MAX,
            offset_low: 0,
            offset_high: i64::MAX,
            since_ms: None,
        }
    }
}

/// How far a filter is taken care of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Taken {
    /// No row that the filter refuses will come.
    Wholly,
    /// Fewer of them will come.
    Partly,
    No,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Target {
    Partition,
    Offset,
    Timestamp,
}

impl Seek {
    /// Takes one conjunct in.
    pub(crate) fn narrow(&mut self, filter: &Expr) -> Taken {
        match filter {
            Expr::BinaryExpr(BinaryExpr { left, op: Operator::And, right }) => {
                match (self.narrow(left), self.narrow(right)) {
                    (Taken::Wholly, Taken::Wholly) => Taken::Wholly,
                    (Taken::No, Taken::No) => Taken::No,
                    _ => Taken::Partly,
                }
            }
            // The optimizer spells short IN lists like this.
            Expr::BinaryExpr(BinaryExpr { op: Operator::Or, .. }) => {
                let mut values = BTreeSet::new();
                match any_of(filter, &mut values) {
                    Some(Target::Partition) => self.only(values),
                    Some(Target::Offset) => {
                        if let (Some(first), Some(last)) = (values.first(), values.last()) {
                            self.offset_low = self.offset_low.max(*first);
                            self.offset_high = self.offset_high.min(last.saturating_add(1));
                        }
                        Taken::Partly
                    }
                    _ => Taken::No,
                }
            }
            Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
                if let (Some(target), Some(value)) = (target(left), literal(right)) {
                    self.compare(target, *op, value)
                } else if let (Some(value), Some(target)) = (literal(left), target(right)) {
                    match op.swap() {
                        Some(op) => self.compare(target, op, value),
                        None => Taken::No,
                    }
                } else {
                    Taken::No
                }
            }
            Expr::Between(Between { expr, negated: false, low, high }) => {
                match (target(expr), literal(low), literal(high)) {
                    (Some(target), Some(low), Some(high)) => {
                        match (self.compare(target, Operator::GtEq, low), self.compare(target, Operator::LtEq, high)) {
                            (Taken::Wholly, Taken::Wholly) => Taken::Wholly,
                            (Taken::No, Taken::No) => Taken::No,
                            _ => Taken::Partly,
                        }
                    }
                    _ => Taken::No,
                }
            }
            Expr::InList(InList { expr, list, negated: false }) if target(expr) == Some(Target::Partition) => {
                let wanted: Option<BTreeSet<i64>> = list.iter().map(|e| literal(e).and_then(integer)).collect();
                wanted.map_or(Taken::No, |wanted| self.only(wanted))
            }
            _ => Taken::No,
        }
    }

    fn only(&mut self, wanted: BTreeSet<i64>) -> Taken {
        self.partitions = Some(match self.partitions.take() {
            Some(before) => before.intersection(&wanted).copied().collect(),
            None => wanted,
        });
        Taken::Wholly
    }

    fn compare(&mut self, target: Target, op: Operator, value: &ScalarValue) -> Taken {
        if target == Target::Timestamp {
            return match (op, milliseconds(value)) {
                (Operator::Eq | Operator::GtEq | Operator::Gt, Some(ms)) => {
                    self.since_ms = Some(self.since_ms.map_or(ms, |since| since.max(ms)));
                    Taken::Partly
                }
                _ => Taken::No,
            };
        }
        let Some(value) = integer(value) else { return Taken::No };
        let (low, high) = if target == Target::Partition {
            (&mut self.partition_low, &mut self.partition_high)
        } else {
            (&mut self.offset_low, &mut self.offset_high)
        };
        // The ends saturate: neither partitions nor offsets reach i64::MAX.
        let after = value.saturating_add(1);
        match op {
            Operator::Eq => {
                *low = (*low).max(value);
                *high = (*high).min(after);
            }
            Operator::Gt => *low = (*low).max(after),
            Operator::GtEq => *low = (*low).max(value),
            Operator::Lt => *high = (*high).min(value),
            Operator::LtEq => *high = (*high).min(after),
            _ => return Taken::No,
        }
        Taken::Wholly
    }

    pub(crate) fn wants(&self, partition: i32) -> bool {
        let partition = i64::from(partition);
        (self.partition_low..self.partition_high).contains(&partition)
            && self.partitions.as_ref().is_none_or(|wanted| wanted.contains(&partition))
    }
}

/// Values of a chain of ORs that compares one column for equality and does nothing else.
fn any_of(expr: &Expr, values: &mut BTreeSet<i64>) -> Option<Target> {
    match expr {
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Or, right }) => {
            let (left, right) = (any_of(left, values)?, any_of(right, values)?);
            (left == right).then_some(left)
        }
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) => {
            let (target, value) = match (target(left), literal(right)) {
                (Some(target), Some(value)) => (target, value),
                _ => (target(right)?, literal(left)?),
            };
            values.insert(integer(value)?);
            (target != Target::Timestamp).then_some(target)
        }
        _ => None,
    }
}

fn target(expr: &Expr) -> Option<Target> {
    match expr {
        Expr::Column(column) => match column.name.as_str() {
            "_partition" => Some(Target::Partition),
            "_offset" => Some(Target::Offset),
            "_timestamp" => Some(Target::Timestamp),
            _ => None,
        },
        // A wider integer has the same order.
        Expr::Cast(cast) if cast.data_type == DataType::Int64 => target(&cast.expr).filter(|t| *t != Target::Timestamp),
        _ => None,
    }
}

fn literal(expr: &Expr) -> Option<&ScalarValue> {
    match expr {
        Expr::Literal(value, _) if !value.is_null() => Some(value),
        _ => None,
    }
}

fn integer(value: &ScalarValue) -> Option<i64> {
    match value {
        ScalarValue::Int8(v) => v.map(i64::from),
        ScalarValue::Int16(v) => v.map(i64::from),
        ScalarValue::Int32(v) => v.map(i64::from),
        ScalarValue::Int64(v) => *v,
        ScalarValue::UInt8(v) => v.map(i64::from),
        ScalarValue::UInt16(v) => v.map(i64::from),
        ScalarValue::UInt32(v) => v.map(i64::from),
        ScalarValue::UInt64(v) => v.and_then(|v| i64::try_from(v).ok()),
        _ => None,
    }
}

/// The millisecond that holds the time, or the one before.
fn milliseconds(value: &ScalarValue) -> Option<i64> {
    match value {
        // Without a zone the session's zone would count, which nobody knows here.
        ScalarValue::TimestampSecond(Some(v), Some(_)) => v.checked_mul(1_000),
        ScalarValue::TimestampMillisecond(Some(v), Some(_)) => Some(*v),
        ScalarValue::TimestampMicrosecond(Some(v), Some(_)) => Some(v.div_euclid(1_000)),
        ScalarValue::TimestampNanosecond(Some(v), Some(_)) => Some(v.div_euclid(1_000_000)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use datafusion::prelude::{cast, col, lit};
    use proptest::prelude::*;

    fn seek(filter: &Expr) -> (Seek, Taken) {
        let mut seek = Seek::default();
        let taken = seek.narrow(filter);
        (seek, taken)
    }

    #[test]
    fn partitions_and_offsets_are_taken_wholly() {
        let (s, taken) = seek(&col("_partition").eq(lit(3)).and(col("_offset").between(lit(100i64), lit(200i64))));
        assert_eq!(taken, Taken::Wholly);
        assert!(s.wants(3) && !s.wants(2) && !s.wants(4));
        assert_eq!((s.offset_low, s.offset_high), (100, 201));

        let (s, taken) = seek(&lit(10i64).gt(col("_offset")));
        assert_eq!((taken, s.offset_high), (Taken::Wholly, 10));

        let (s, taken) = seek(&col("_partition").in_list(vec![lit(1), lit(5)], false));
        assert_eq!(taken, Taken::Wholly);
        assert!(s.wants(1) && s.wants(5) && !s.wants(2));

        let (s, taken) = seek(&col("_partition").eq(lit(1)).or(lit(5).eq(col("_partition"))));
        assert_eq!(taken, Taken::Wholly);
        assert!(s.wants(1) && s.wants(5) && !s.wants(2));
        let (s, taken) = seek(&col("_offset").eq(lit(9)).or(col("_offset").eq(lit(4))));
        assert_eq!((s.offset_low, s.offset_high, taken), (4, 10, Taken::Partly));

        let (s, taken) = seek(&cast(col("_partition"), DataType::Int64).lt(lit(2i64)));
        assert_eq!(taken, Taken::Wholly);
        assert!(s.wants(1) && !s.wants(2));

        let (s, _) = seek(&col("_offset").gt(lit(i64::MAX)));
        assert_eq!(s.offset_low, i64::MAX);
    }

    #[test]
    fn times_bound_from_below_only() {
        let at = |us| lit(ScalarValue::TimestampMicrosecond(Some(us), Some("+00:00".into())));
        let (s, taken) = seek(&col("_timestamp").gt(at(-1)));
        assert_eq!((s.since_ms, taken), (Some(-1), Taken::Partly));
        let (s, taken) = seek(&col("_timestamp").lt(at(1_000)));
        assert_eq!((s, taken), (Seek::default(), Taken::No));
    }

    #[test]
    fn the_rest_is_left_alone() {
        for filter in [
            col("_partition").not_eq(lit(1)),
            col("_partition").eq(lit(1)).or(col("_offset").eq(lit(1))),
            col("_partition").eq(lit(1)).or(col("_partition").gt(lit(1))),
            col("_partition").eq(lit(1)).or(col("a").eq(lit(1))),
            col("_partition").in_list(vec![lit(1)], true),
            col("_partition").eq(lit(1.5)),
            col("_offset").eq(lit(ScalarValue::Int64(None))),
            col("_offset").eq(col("a")),
            col("a").eq(lit(1)),
            cast(col("_offset"), DataType::Int32).eq(lit(1)),
        ] {
            assert_eq!(seek(&filter), (Seek::default(), Taken::No), "{filter}");
        }
        assert_eq!(seek(&col("_offset").gt(lit(1)).and(col("a").eq(lit(1)))).1, Taken::Partly);
    }

    proptest! {
        /// What is left of a partition is what the filter lets through, no more and no less.
        #[test]
        fn equals_the_filter(a in -3i64..12, b in -3i64..12, op in 0usize..5, offset in 0i64..10) {
            let op = [Operator::Eq, Operator::Lt, Operator::LtEq, Operator::Gt, Operator::GtEq][op];
            let one = Expr::BinaryExpr(BinaryExpr::new(Box::new(col("_offset")), op, Box::new(lit(a))));
            let (s, taken) = seek(&one.and(col("_offset").gt_eq(lit(b))));
            prop_assert_eq!(taken, Taken::Wholly);
            let first = match op {
                Operator::Eq => offset == a,
                Operator::Lt => offset < a,
                Operator::LtEq => offset <= a,
                Operator::Gt => offset > a,
                _ => offset >= a,
            };
            prop_assert_eq!((s.offset_low..s.offset_high).contains(&offset), first && offset >= b);
        }
    }
}
