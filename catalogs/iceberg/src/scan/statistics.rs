//! What a scan can tell of its rows before it reads any.

use std::sync::Arc;

use datafusion::common::stats::Precision;
use datafusion::common::{ColumnStatistics, ScalarValue, Statistics};

use super::prune::ColumnRange;

/// Statistics of one file, as it lies there: deletes do not count. They bound the values, which is what pruning and
/// constant folding ask for; that a bound is attained is not said by `Exact` here.
pub(super) fn of_file(columns: usize, ranges: &[(usize, ColumnRange)], rows: u64, size_bytes: u64) -> Arc<Statistics> {
    let mut column_statistics = vec![ColumnStatistics::new_unknown(); columns];
    for (column, range) in ranges {
        let exact = |v: &Option<ScalarValue>| v.clone().map_or(Precision::Absent, Precision::Exact);
        column_statistics[*column].min_value = exact(&range.min);
        column_statistics[*column].max_value = exact(&range.max);
        leave_out_full_range(&mut column_statistics[*column]);
        column_statistics[*column].null_count = count(range.nulls);
    }
    let num_rows = count(Some(rows));
    let total_byte_size = usize::try_from(size_bytes).map_or(Precision::Absent, Precision::Inexact);
    Arc::new(Statistics { num_rows, total_byte_size, column_statistics })
}

/// DataFusion 53.1 counts the values of an interval in 64 bits, which those of all of `bigint` overflow.
fn leave_out_full_range(column: &mut ColumnStatistics) {
    let is = |bound: &Precision<ScalarValue>, value: i64| bound.get_value() == Some(&ScalarValue::Int64(Some(value)));
    if is(&column.min_value, i64::MIN) && is(&column.max_value, i64::MAX) {
        column.max_value = Precision::Absent;
    }
}

fn count(value: Option<u64>) -> Precision<usize> {
    value.and_then(|v| usize::try_from(v).ok()).map_or(Precision::Absent, Precision::Exact)
}

/// Distinct values of columns, as they were counted for another state of the table or for more of it: never more than rows.
pub(super) fn add_distinct(statistics: &mut Statistics, counts: &[(usize, u64)]) {
    let rows = statistics.num_rows.get_value().copied().unwrap_or(usize::MAX);
    for (column, count) in counts {
        if let Some(column) = statistics.column_statistics.get_mut(*column) {
            let count = usize::try_from(*count).unwrap_or(usize::MAX).min(rows);
            column.distinct_count = Precision::Inexact(count);
        }
    }
}

/// Statistics of all kept files together.
#[derive(Debug)]
pub(super) struct Totals {
    rows: u64,
    size_bytes: u64,
    has_deletes: bool,
    columns: Vec<(usize, ColumnTotal)>,
}

#[derive(Debug, Default)]
struct ColumnTotal {
    nulls: Option<u64>,
    min: Extreme,
    max: Extreme,
}

#[derive(Debug, Default)]
enum Extreme {
    /// No file has values yet.
    #[default]
    Empty,
    Known(ScalarValue, bool),
    Unknown,
}

impl Extreme {
    fn add(&mut self, value: Option<&ScalarValue>, tight: bool, replaces: impl Fn(&ScalarValue, &ScalarValue) -> bool) {
        let Some(value) = value else {
            *self = Extreme::Unknown;
            return;
        };
        match self {
            Extreme::Unknown => {}
            Extreme::Empty => *self = Extreme::Known(value.clone(), tight),
            Extreme::Known(old, old_tight) => {
                if replaces(value, old) {
                    *self = Extreme::Known(value.clone(), tight && *old_tight);
                } else {
                    *old_tight &= tight;
                }
            }
        }
    }

    fn into_precision(self) -> Precision<ScalarValue> {
        match self {
            Extreme::Known(value, true) => Precision::Exact(value),
            Extreme::Known(value, false) => Precision::Inexact(value),
            Extreme::Empty | Extreme::Unknown => Precision::Absent,
        }
    }
}

impl Totals {
    /// Over the given columns; of others nothing is said.
    pub(super) fn new(columns: &[usize]) -> Self {
        let empty = |column: &usize| (*column, ColumnTotal { nulls: Some(0), ..ColumnTotal::default() });
        Self { rows: 0, size_bytes: 0, has_deletes: false, columns: columns.iter().map(empty).collect() }
    }

    /// `ranges` are those of the columns given to `new`, in that order.
    pub(super) fn add(&mut self, ranges: &[(usize, ColumnRange)], rows: u64, size_bytes: u64, has_deletes: bool) {
        self.rows = self.rows.saturating_add(rows);
        self.size_bytes = self.size_bytes.saturating_add(size_bytes);
        self.has_deletes |= has_deletes;
        if rows == 0 {
            return;
        }
        for ((_, total), (_, range)) in self.columns.iter_mut().zip(ranges) {
            total.nulls = total.nulls.zip(range.nulls).map(|(a, b)| a.saturating_add(b));
            if range.nulls == Some(rows) {
                continue;
            }
            total.min.add(range.min.as_ref(), range.min_tight, |new, old| new < old);
            total.max.add(range.max.as_ref(), range.max_tight, |new, old| new > old);
        }
    }

    pub(super) fn finish(self, columns: usize) -> Statistics {
        let mut column_statistics = vec![ColumnStatistics::new_unknown(); columns];
        for (column, total) in self.columns {
            column_statistics[column].null_count = count(total.nulls);
            column_statistics[column].min_value = total.min.into_precision();
            column_statistics[column].max_value = total.max.into_precision();
            leave_out_full_range(&mut column_statistics[column]);
        }
        let total_byte_size = usize::try_from(self.size_bytes).map_or(Precision::Absent, Precision::Inexact);
        let statistics = Statistics { num_rows: count(Some(self.rows)), total_byte_size, column_statistics };
        if self.has_deletes { statistics.to_inexact() } else { statistics }
    }
}
