use arrow::array::ArrayRef;
use arrow::row::{OwnedRow, RowConverter};
use iceberg::spec::TableMetadata;
use tidewater_catalogs::{Error, Result};

use super::keys::Keys;

/// Sees whether the rows of a file come in the table's order. A file is said to be sorted where its rows were seen to be,
/// whoever sorted them.
pub(super) struct Follower {
    pub(super) order_id: i32,
    keys: Keys,
    converter: RowConverter,
}

/// How far a file is sorted.
pub(super) enum Sorted {
    /// All rows so far; the last of them.
    Upto(Option<OwnedRow>),
    No,
}

impl Follower {
    /// None where the table has no order.
    pub(super) fn new(metadata: &TableMetadata) -> Result<Option<Self>> {
        let order = metadata.default_sort_order();
        let Ok(order_id) = i32::try_from(order.order_id) else { return Ok(None) };
        let Some(keys) = Keys::of_order(metadata, order)? else { return Ok(None) };
        let converter = keys.converter()?;
        Ok(Some(Self { order_id, keys, converter }))
    }

    /// The numbers of the rows in their order; equal ones stay as they are.
    pub(super) fn order(&self, columns: &[ArrayRef]) -> Result<Vec<u32>> {
        let rows = self.converter.convert_columns(&self.keys.arrays(columns)?)?;
        let count =
            u32::try_from(rows.num_rows()).map_err(|_| Error::internal("too many rows to be sorted at once"))?;
        let mut order: Vec<u32> = (0..count).collect();
        order.sort_by(|a, b| rows.row(*a as usize).cmp(&rows.row(*b as usize)));
        Ok(order)
    }

    pub(super) fn follow(&self, before: Sorted, columns: &[ArrayRef]) -> Result<Sorted> {
        let Sorted::Upto(last) = before else { return Ok(Sorted::No) };
        let rows = self.converter.convert_columns(&self.keys.arrays(columns)?)?;
        let count = rows.num_rows();
        let Some(end) = count.checked_sub(1) else { return Ok(Sorted::Upto(last)) };
        let begins = last.is_none_or(|last| last.row() <= rows.row(0));
        let goes_on = begins && (0..end).all(|row| rows.row(row) <= rows.row(row + 1));
        Ok(if goes_on { Sorted::Upto(Some(rows.row(end).owned())) } else { Sorted::No })
    }
}
