use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field, Float32Type, Float64Type, SchemaRef, TimeUnit};
use tidewater_catalogs::{Error, Result};

/// The columns of a batch as the table has them: same order, types that Parquet stores alike, no null where none may
/// be. Views, large strings and dictionaries are stored as they are, without a copy.
pub(super) fn fit(schema: &SchemaRef, columns: &[ArrayRef]) -> Result<Vec<ArrayRef>> {
    if columns.len() != schema.fields().len() {
        return Err(Error::invalid(format!(
            "the rows have {} columns, the table has {}",
            columns.len(),
            schema.fields().len()
        )));
    }
    schema.fields().iter().zip(columns).map(|(field, column)| fit_column(field, column)).collect()
}

fn fit_column(field: &Field, column: &ArrayRef) -> Result<ArrayRef> {
    if !field.is_nullable() && column.logical_null_count() > 0 {
        return Err(Error::invalid(format!("null value in column \"{}\", which does not allow it", field.name())));
    }
    let (to, from) = (field.data_type(), column.data_type());
    if to.equals_datatype(from) || stored_alike(to, from) {
        return Ok(Arc::clone(column));
    }
    if !widens(to, from) {
        return Err(Error::invalid(format!(
            "column \"{}\" of the table has type {to}, the rows have {from}",
            field.name()
        )));
    }
    let strict = CastOptions { safe: false, ..CastOptions::default() };
    cast_with_options(column, to, &strict).map_err(|e| {
        Error::invalid(format!("a value does not fit column \"{}\" of type {to}", field.name())).with_source(e)
    })
}

fn stored_alike(to: &DataType, from: &DataType) -> bool {
    let from = match from {
        DataType::Dictionary(_, values) => values.as_ref(),
        other => other,
    };
    match to {
        DataType::Utf8 => matches!(from, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View),
        DataType::Binary => matches!(from, DataType::Binary | DataType::LargeBinary | DataType::BinaryView),
        _ => false,
    }
}

/// Casts that keep every value. All others are for SQL to decide.
fn widens(to: &DataType, from: &DataType) -> bool {
    use DataType as D;
    match (to, from) {
        (D::Int32, D::Int8 | D::Int16 | D::UInt8 | D::UInt16) => true,
        (D::Int64, D::Int8 | D::Int16 | D::Int32 | D::UInt8 | D::UInt16 | D::UInt32) => true,
        (D::Float32, D::Float16) | (D::Float64, D::Float16 | D::Float32) => true,
        (D::Timestamp(TimeUnit::Microsecond, a), D::Timestamp(unit, b)) => {
            *unit != TimeUnit::Nanosecond && a.is_some() == b.is_some()
        }
        (D::Time64(TimeUnit::Microsecond), D::Time32(_)) => true,
        (to, D::Dictionary(_, values)) => to == values.as_ref() || widens(to, values),
        (D::List(to), D::List(from) | D::LargeList(from)) => same_or_wider(to, from),
        (D::Decimal128(p, s), D::Decimal256(q, t)) => p == q && s == t,
        (D::Map(to, sorted), D::Map(from, same)) => sorted == same && same_or_wider(to, from),
        (D::Struct(to), D::Struct(from)) => {
            to.len() == from.len() && to.iter().zip(from).all(|(to, from)| same_or_wider(to, from))
        }
        _ => false,
    }
}

fn same_or_wider(to: &Field, from: &Field) -> bool {
    let (to, from) = (to.data_type(), from.data_type());
    to.equals_datatype(from) || stored_alike(to, from) || widens(to, from)
}

/// How many values of an outer column are NaN. Bounds leave NaN out, so a reader has to know.
pub(super) fn count_nans(column: &ArrayRef) -> Option<u64> {
    let count = match column.data_type() {
        DataType::Float32 => {
            let array = column.as_primitive::<Float32Type>();
            if array.null_count() > 0 {
                array.iter().flatten().filter(|v| v.is_nan()).count()
            } else {
                array.values().iter().filter(|v| v.is_nan()).count()
            }
        }
        DataType::Float64 => {
            let array = column.as_primitive::<Float64Type>();
            if array.null_count() > 0 {
                array.iter().flatten().filter(|v| v.is_nan()).count()
            } else {
                array.values().iter().filter(|v| v.is_nan()).count()
            }
        }
        _ => return None,
    };
    Some(count as u64)
}
