//! A Z-order curve: bits of several columns, taken in turns, so that rows lie together whose values are near in each.

use std::sync::Arc;

use arrow::array::{ArrayRef, BinaryBuilder};
use arrow::row::{RowConverter, Rows, SortField};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tidewater_catalogs::Result;

use super::split::plain;

/// Rows that are looked at to learn how the values of a column are spread.
const SAMPLE_ROWS: usize = 1 << 14;
/// Of a value, as bytes that compare as it does; what is behind decides nothing.
const SAMPLE_BYTES: usize = 64;

/// Values become their rank among a sample, so that columns weigh alike whatever their types and ranges.
pub(crate) struct Curve {
    columns: Vec<Ranks>,
}

struct Ranks {
    column: usize,
    converter: RowConverter,
    /// Ascending, each once.
    bounds: Vec<Box<[u8]>>,
}

impl Curve {
    /// Sixteen bits of each column, the highest of the first column first.
    pub(super) fn keys(&self, columns: &[ArrayRef]) -> Result<ArrayRef> {
        let ranks = self.columns.iter().map(|ranks| ranks.of(&columns[ranks.column]));
        let ranks: Vec<Vec<u16>> = ranks.collect::<Result<_>>()?;
        let rows = ranks.first().map_or(0, Vec::len);
        let width = 2 * ranks.len();
        let mut keys = BinaryBuilder::with_capacity(rows, rows * width);
        let mut key = vec![0_u8; width];
        for row in 0..rows {
            key.fill(0);
            for (column, ranks) in ranks.iter().enumerate() {
                for bit in 0..16 {
                    if ranks[row] >> (15 - bit) & 1 == 1 {
                        let at = bit * self.columns.len() + column;
                        key[at / 8] |= 0x80 >> (at % 8);
                    }
                }
            }
            keys.append_value(&key);
        }
        Ok(Arc::new(keys.finish()))
    }
}

impl Ranks {
    /// Spread over all of 16 bits. Nulls come first.
    fn of(&self, column: &ArrayRef) -> Result<Vec<u16>> {
        let rows = bytes(&self.converter, column)?;
        let steps = (self.bounds.len() as u64).max(1);
        let rank = |row: &[u8]| {
            let before = self.bounds.partition_point(|bound| bound.as_ref() < cut(row)) as u64;
            u16::try_from((before << 16) / steps).unwrap_or(u16::MAX)
        };
        Ok(rows.iter().map(|row| rank(row.data())).collect())
    }
}

fn bytes(converter: &RowConverter, column: &ArrayRef) -> Result<Rows> {
    Ok(converter.convert_columns(&[plain(column)?])?)
}

fn cut(row: &[u8]) -> &[u8] {
    &row[..row.len().min(SAMPLE_BYTES)]
}

/// Takes a sample of some columns, each row as likely as any other.
pub(crate) struct CurveSample {
    columns: Vec<Sample>,
    random: StdRng,
    seen: usize,
}

struct Sample {
    column: usize,
    converter: Option<RowConverter>,
    taken: Vec<Box<[u8]>>,
}

impl CurveSample {
    /// `columns` of the table, by their places there.
    pub(crate) fn new(columns: &[usize]) -> Self {
        let sample = |column: &usize| Sample { column: *column, converter: None, taken: Vec::new() };
        // The same rows become the same files.
        Self { columns: columns.iter().map(sample).collect(), random: StdRng::seed_from_u64(0), seen: 0 }
    }

    /// Rows of those columns alone, in the order that was given.
    pub(crate) fn add(&mut self, columns: &[ArrayRef]) -> Result<()> {
        let rows = columns.first().map_or(0, |column| column.len());
        let mut picked: Vec<(usize, usize)> = Vec::new();
        for row in 0..rows {
            let place = if self.seen < SAMPLE_ROWS { self.seen } else { self.random.random_range(0..=self.seen) };
            self.seen += 1;
            if place < SAMPLE_ROWS {
                picked.push((row, place));
            }
        }
        if picked.is_empty() {
            return Ok(());
        }
        for (sample, column) in self.columns.iter_mut().zip(columns) {
            let converter = match sample.converter.take() {
                Some(converter) => converter,
                None => RowConverter::new(vec![SortField::new(plain(column)?.data_type().clone())])?,
            };
            let rows = bytes(&converter, column)?;
            for (row, place) in &picked {
                let value: Box<[u8]> = cut(rows.row(*row).data()).into();
                match sample.taken.get_mut(*place) {
                    Some(old) => *old = value,
                    None => sample.taken.push(value),
                }
            }
            sample.converter = Some(converter);
        }
        Ok(())
    }

    /// None where there were no rows.
    pub(crate) fn finish(self) -> Option<Curve> {
        let ranks = self.columns.into_iter().map(|sample| {
            let mut bounds = sample.taken;
            bounds.sort_unstable();
            bounds.dedup();
            Some(Ranks { column: sample.column, converter: sample.converter?, bounds })
        });
        Some(Curve { columns: ranks.collect::<Option<_>>()? })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use arrow::array::{Array, AsArray, Int64Array, StringArray};

    use super::*;

    #[test]
    fn near_values_have_near_keys() {
        // A square of 64 by 64, one side in text.
        let (xs, ys): (Vec<i64>, Vec<i64>) = (0..4096).map(|i| (i / 64, i % 64)).unzip();
        let x: ArrayRef = Arc::new(Int64Array::from_iter_values(xs.iter().map(|x| x * 1_000_000)));
        let y: ArrayRef = Arc::new(StringArray::from_iter_values(ys.iter().map(|y| format!("{y:04}"))));
        let mut sample = CurveSample::new(&[0, 1]);
        sample.add(&[Arc::clone(&x), Arc::clone(&y)]).unwrap();
        let keys = sample.finish().unwrap().keys(&[x, y]).unwrap();
        let keys = keys.as_binary::<i32>();
        let mut order: Vec<usize> = (0..4096).collect();
        order.sort_by_key(|i| keys.value(*i));
        // Sixteen pieces of the curve: each is a square, and not a stripe.
        for piece in order.chunks(256) {
            let span = |of: &[i64]| {
                let of = piece.iter().map(|i| of[*i]);
                of.clone().max().unwrap() - of.min().unwrap()
            };
            assert_eq!((span(&xs), span(&ys)), (15, 15));
        }
    }

    #[test]
    fn nulls_come_first_and_long_texts_are_cut() {
        let long = "x".repeat(5000);
        let texts: ArrayRef = Arc::new(StringArray::from(vec![Some("a"), None, Some(&long)]));
        let mut sample = CurveSample::new(&[0]);
        sample.add(&[Arc::clone(&texts)]).unwrap();
        let curve = sample.finish().unwrap();
        assert!(curve.columns[0].bounds.iter().all(|bound| bound.len() <= SAMPLE_BYTES));
        let keys = curve.keys(&[texts]).unwrap();
        let keys = keys.as_binary::<i32>();
        assert!(keys.value(1) < keys.value(0) && keys.value(0) < keys.value(2), "{keys:?}");
        assert_eq!(keys.null_count(), 0);
    }

    #[test]
    fn a_sample_is_of_all_rows() {
        let mut sample = CurveSample::new(&[0]);
        for part in 0..20_i64 {
            let column: ArrayRef = Arc::new(Int64Array::from_iter_values(part * 8192..(part + 1) * 8192));
            sample.add(&[column]).unwrap();
        }
        let curve = sample.finish().unwrap();
        assert_eq!(curve.columns[0].bounds.len(), SAMPLE_ROWS);
        let ends: ArrayRef = Arc::new(Int64Array::from(vec![0, 81_920, 163_839]));
        let ranks = curve.columns[0].of(&ends).unwrap();
        assert!(ranks[0] < 100 && ranks[1].abs_diff(1 << 15) < 1500 && ranks[2] > 65_000, "{ranks:?}");
    }
}
