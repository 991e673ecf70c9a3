//! Columns of the types that the tables of metadata have.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Int32Array, Int64Array, ListArray, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Int32Type, Int64Type, Schema, SchemaRef, TimeUnit};

const UTC: &str = "+00:00";

pub(super) const LONG: DataType = DataType::Int64;
pub(super) const INT: DataType = DataType::Int32;
pub(super) const TEXT: DataType = DataType::Utf8;
pub(super) const FLAG: DataType = DataType::Boolean;

pub(super) fn time() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some(UTC.into()))
}

pub(super) fn list(of: DataType) -> DataType {
    DataType::List(Arc::new(Field::new_list_field(of, true)))
}

pub(super) fn schema(columns: Vec<(&str, DataType)>) -> SchemaRef {
    Arc::new(Schema::new(columns.into_iter().map(|(name, of)| Field::new(name, of, true)).collect::<Vec<_>>()))
}

pub(super) fn longs(values: impl IntoIterator<Item = Option<i64>>) -> ArrayRef {
    Arc::new(values.into_iter().collect::<Int64Array>())
}

/// Counts; one beyond `bigint` is none that a table has.
pub(super) fn counts(values: impl IntoIterator<Item = u64>) -> ArrayRef {
    longs(values.into_iter().map(|n| i64::try_from(n).ok()))
}

pub(super) fn ints(values: impl IntoIterator<Item = Option<i32>>) -> ArrayRef {
    Arc::new(values.into_iter().collect::<Int32Array>())
}

pub(super) fn flags(values: impl IntoIterator<Item = Option<bool>>) -> ArrayRef {
    Arc::new(values.into_iter().collect::<BooleanArray>())
}

pub(super) fn texts<T: AsRef<str>>(values: impl IntoIterator<Item = Option<T>>) -> ArrayRef {
    Arc::new(values.into_iter().collect::<StringArray>())
}

/// From milliseconds.
pub(super) fn times(values: impl IntoIterator<Item = Option<i64>>) -> ArrayRef {
    let micros = values.into_iter().map(|ms| ms.and_then(|ms| ms.checked_mul(1000)));
    Arc::new(micros.collect::<TimestampMicrosecondArray>().with_timezone(UTC))
}

pub(super) fn long_lists(values: impl IntoIterator<Item = Option<Vec<i64>>>) -> ArrayRef {
    let values = values.into_iter().map(|list| list.map(|list| list.into_iter().map(Some).collect::<Vec<_>>()));
    Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>(values))
}

pub(super) fn int_lists(values: impl IntoIterator<Item = Option<Vec<i32>>>) -> ArrayRef {
    let values = values.into_iter().map(|list| list.map(|list| list.into_iter().map(Some).collect::<Vec<_>>()));
    Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>(values))
}
