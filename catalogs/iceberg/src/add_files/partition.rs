//! The partition of a file that somebody else wrote: proven, or refused.

use arrow::array::{ArrayRef, new_null_array};
use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use iceberg::spec::{PartitionField, PrimitiveType, Struct, Transform, Type};
use tidewater_catalogs::{Error, Result};

use super::folders::Folder;
use crate::scan::{Fit, Fitter, Stored, scalar};
use crate::state::TableState;
use crate::writer::{nulls, only_part, range};

/// Two values that all values of a column lie between, of which none is null or all are.
struct Between {
    least: ScalarValue,
    greatest: ScalarValue,
}

pub(super) fn partition(state: &TableState, fitter: &Fitter, fit: &Fit, folders: &[Folder]) -> Result<Struct> {
    let metadata = &state.metadata;
    let (spec, schema) = (metadata.default_partition_spec(), metadata.current_schema());
    check_folders(state, fit, folders)?;
    let types = state.arrow_schema.fields().iter();
    let mut columns: Vec<ArrayRef> = types.map(|field| new_null_array(field.data_type(), 2)).collect();
    for field in spec.fields().iter().filter(|field| field.transform != Transform::Void) {
        let column = schema.as_struct().fields().iter().position(|f| f.id == field.source_id);
        let Some(column) = column else {
            return Err(Error::unsupported(format!("partition field \"{}\" reads a nested column", field.name)));
        };
        let name = &schema.as_struct().fields()[column].name;
        let folder = folders.iter().rev().find(|f| f.key == field.name || f.key == *name);
        let data_type = state.arrow_schema.field(column).data_type();
        let Type::Primitive(primitive) = schema.as_struct().fields()[column].field_type.as_ref() else {
            return Err(unproven(field, "its column is nested"));
        };
        let between = match fit.columns[column] {
            Some(stored) => in_rows(fit, stored, field, primitive, data_type, folder)?,
            None => missing(fitter, column, field, data_type, folder)?,
        };
        if matches!(field.transform, Transform::Bucket(_)) && between.least != between.greatest {
            return Err(unproven(field, "its rows have several values"));
        }
        columns[column] = ScalarValue::iter_to_array([between.least, between.greatest])?;
    }
    if spec.is_unpartitioned() {
        return Ok(Struct::empty());
    }
    let part = only_part(spec, schema, metadata.default_partition_type(), &columns)?;
    part.ok_or_else(|| {
        Error::invalid("the rows of the file are in several partitions of the table")
            .with_hint("Insert them with INSERT INTO … SELECT.")
    })
}

/// The statistics of the file.
fn in_rows(
    fit: &Fit,
    stored: Stored,
    field: &PartitionField,
    primitive: &PrimitiveType,
    data_type: &DataType,
    folder: Option<&Folder>,
) -> Result<Between> {
    let rows = u64::try_from(fit.footer.file_metadata().num_rows()).unwrap_or(0);
    let leaf = stored.leaf.ok_or_else(|| unproven(field, "its column is nested"))?;
    let between = match nulls(&fit.footer, leaf) {
        Some(all) if all == rows => {
            let null = null(data_type)?;
            Between { least: null.clone(), greatest: null }
        }
        Some(0) if stored.alike => {
            let told = range(&fit.footer, leaf, primitive);
            let told = told.and_then(|(least, greatest)| {
                let value = |datum: iceberg::spec::Datum| scalar(datum.literal(), data_type);
                Some(Between { least: value(least)?, greatest: value(greatest)? })
            });
            told.ok_or_else(|| unproven(field, "the file has no statistics of its column"))?
        }
        Some(0) => return Err(unproven(field, "its column is stored in another type")),
        Some(_) => return Err(unproven(field, "some of its rows are null and some are not")),
        None => return Err(unproven(field, "the file has no statistics of its column")),
    };
    if let Some(folder) = folder.filter(|_| field.transform == Transform::Identity) {
        let named = value_of(folder, field, data_type)?;
        if between.least != named || between.greatest != named {
            return Err(Error::invalid(format!(
                "the folder of the file names another value of \"{}\" than its rows have",
                folder.key
            )));
        }
    }
    Ok(between)
}

/// The file has no such column: readers take its value from the partition.
fn missing(
    fitter: &Fitter,
    column: usize,
    field: &PartitionField,
    data_type: &DataType,
    folder: Option<&Folder>,
) -> Result<Between> {
    let value = match (folder, field.transform) {
        (Some(folder), Transform::Identity) => {
            let value = value_of(folder, field, data_type)?;
            if value.is_null() {
                // Where null is not allowed, nor is the folder.
                fitter.missing(column)?;
            }
            value
        }
        (Some(_), _) => {
            return Err(unproven(field, "the file lacks its column, and a folder names only what it became"));
        }
        (None, _) => fitter.missing(column)?,
    };
    Ok(Between { least: value.clone(), greatest: value })
}

fn value_of(folder: &Folder, field: &PartitionField, data_type: &DataType) -> Result<ScalarValue> {
    let Some(text) = &folder.value else { return null(data_type) };
    let plain = match data_type {
        DataType::Utf8 => return Ok(ScalarValue::Utf8(Some(text.clone()))),
        DataType::Boolean | DataType::Int32 | DataType::Int64 | DataType::Date32 | DataType::Decimal128(..) => true,
        // Hive writes times in a zone of its own choice.
        _ => false,
    };
    if !plain {
        return Err(unproven(field, "the name of a folder does not tell such values for certain"));
    }
    let wrong = || {
        Error::invalid(format!("the folder of the file names no value of \"{}\"", folder.key))
            .with_context("value", text)
    };
    let value = ScalarValue::Utf8(Some(text.clone())).cast_to(data_type).map_err(|_| wrong())?;
    if value.is_null() {
        return Err(wrong());
    }
    // A number with more digits than the column keeps would become another.
    let again = value.cast_to(&DataType::Utf8).ok();
    let digits = |text: &str| text.trim_start_matches('+').to_ascii_lowercase();
    match again {
        Some(ScalarValue::Utf8(Some(again))) if digits(&again) == digits(text) => Ok(value),
        _ => Err(unproven(field, "the name of its folder is not the plain form of a value")),
    }
}

fn null(data_type: &DataType) -> Result<ScalarValue> {
    Ok(ScalarValue::try_from(data_type)?)
}

/// A value that only a folder has would be lost.
fn check_folders(state: &TableState, fit: &Fit, folders: &[Folder]) -> Result<()> {
    let metadata = &state.metadata;
    let spec = metadata.default_partition_spec();
    for folder in folders {
        let columns = metadata.current_schema().as_struct().fields();
        let column = columns.iter().position(|f| f.name == folder.key);
        let is_kept = match column {
            Some(column) => {
                let id = columns[column].id;
                let stands = |f: &PartitionField| f.source_id == id && f.transform == Transform::Identity;
                fit.columns[column].is_some() || spec.fields().iter().any(stands)
            }
            None => !folder.inside || spec.fields().iter().any(|f| f.name == folder.key),
        };
        if !is_kept {
            return Err(Error::invalid(format!("the value of folder \"{}=…\" would be lost", folder.key))
                .with_detail("The file does not have it as a column, and the table is not partitioned by it.")
                .with_hint("Add the column and partition the table by it, or read the files and insert their rows."));
        }
    }
    Ok(())
}

fn unproven(field: &PartitionField, why: &str) -> Error {
    Error::unsupported(format!("the partition of the file cannot be told: field \"{}\"", field.name))
        .with_detail(format!("Of it, {why}."))
        .with_hint("Insert the rows with INSERT INTO … SELECT.")
}
