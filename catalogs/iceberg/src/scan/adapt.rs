//! Bringing a value of a file into the shape that the table has now: by field id, at every level.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, FixedSizeBinaryArray, LargeListArray, ListArray, MapArray, StringArray, StringBuilder,
    StructArray, UInt32Array, new_empty_array, new_null_array,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::compute::{CastOptions, cast_with_options, take};
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, TimeUnit};
use arrow::error::ArrowError;
use datafusion::common::{DataFusionError, ScalarValue};
use iceberg::spec::{Literal, MappedField, NestedField, PrimitiveType, Type};
use parquet::arrow::PARQUET_FIELD_ID_META_KEY;
use tidewater_catalogs::{Error, Result};

use super::columns::ScanSchema;
use super::error::corrupt;
use super::values::scalar_or_null;

/// A failed cast is an error, never a null.
pub(super) const STRICT: CastOptions<'static> =
    CastOptions { safe: false, format_options: arrow::util::display::FormatOptions::new() };

/// What to do with an array of the file.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Adapt {
    Keep,
    Cast(DataType),
    /// The 16 bytes of a UUID as text.
    Uuid,
    Struct(Fields, Vec<Child>),
    List(FieldRef, Box<Adapt>),
    Map(FieldRef, Fields, Box<Adapt>, Box<Adapt>),
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Child {
    /// Position in the struct of the file.
    Read(usize, Adapt),
    Constant(ScalarValue),
}

pub(super) fn field_id(field: &Field) -> Option<i32> {
    field.metadata().get(PARQUET_FIELD_ID_META_KEY)?.parse().ok()
}

/// How a column (or nested field) of the file becomes one of the table. Refuses what Iceberg's schema evolution does
/// not allow and what is not built.
pub(super) fn plan(schema: &ScanSchema, table: &Field, file: &Field) -> Result<Adapt> {
    if table.data_type() == file.data_type() {
        return Ok(Adapt::Keep);
    }
    match (table.data_type(), file.data_type()) {
        (DataType::Struct(to), DataType::Struct(from)) => {
            let children = to.iter().map(|child| plan_child(schema, child, from)).collect::<Result<_>>()?;
            Ok(Adapt::Struct(to.clone(), children))
        }
        (DataType::List(to), DataType::List(from) | DataType::LargeList(from)) => {
            same_id(to, from)?;
            Ok(Adapt::List(to.clone(), Box::new(plan(schema, to, from)?)))
        }
        (DataType::Map(to, _), DataType::Map(from, _)) => {
            let (DataType::Struct(to_entry), DataType::Struct(from_entry)) = (to.data_type(), from.data_type()) else {
                return Err(mismatch(table, file));
            };
            let ([to_key, to_value], [from_key, from_value]) = (&to_entry[..], &from_entry[..]) else {
                return Err(mismatch(table, file));
            };
            same_id(to_key, from_key)?;
            same_id(to_value, from_value)?;
            let key = plan(schema, to_key, from_key)?;
            let value = plan(schema, to_value, from_value)?;
            Ok(Adapt::Map(to.clone(), to_entry.clone(), Box::new(key), Box::new(value)))
        }
        (DataType::Utf8, DataType::FixedSizeBinary(16)) if is_uuid(schema, table) => Ok(Adapt::Uuid),
        (to, from) if is_promotion(from, to) => Ok(Adapt::Cast(to.clone())),
        _ => Err(mismatch(table, file)),
    }
}

fn plan_child(schema: &ScanSchema, child: &Field, from: &Fields) -> Result<Child> {
    let id = field_id(child).ok_or_else(|| Error::internal("table column has no field id"))?;
    if let Some(position) = from.iter().position(|f| field_id(f) == Some(id)) {
        return Ok(Child::Read(position, plan(schema, child, &from[position])?));
    }
    Ok(Child::Constant(default_of(schema, id, child.data_type())?))
}

/// What rows have that were written before the field was added.
pub(super) fn default_of(schema: &ScanSchema, id: i32, data_type: &DataType) -> Result<ScalarValue> {
    let field =
        schema.iceberg.field_by_id(id).ok_or_else(|| Error::internal("table column has an unknown field id"))?;
    if field.required && field.initial_default.is_none() {
        return Err(corrupt("data file lacks a required column").with_context("column", &field.name));
    }
    default_value(field, field.initial_default.as_ref(), data_type)
}

/// A struct that is there by default has the defaults of its fields, but for those that it gives.
fn default_value(field: &NestedField, value: Option<&Literal>, data_type: &DataType) -> Result<ScalarValue> {
    let refused = || Error::unsupported("default value of a column cannot be read").with_context("column", &field.name);
    match (value, data_type, field.field_type.as_ref()) {
        (Some(Literal::Struct(given)), DataType::Struct(arrow), Type::Struct(children)) => {
            let mut columns = Vec::with_capacity(arrow.len());
            for (position, (child, to)) in children.fields().iter().zip(arrow).enumerate() {
                let value = given.fields().get(position).and_then(Option::as_ref).or(child.initial_default.as_ref());
                if child.required && value.is_none() {
                    return Err(corrupt("default value lacks a required field").with_context("column", &child.name));
                }
                columns.push(default_value(child, value, to.data_type())?.to_array()?);
            }
            Ok(ScalarValue::Struct(Arc::new(StructArray::try_new_with_length(arrow.clone(), columns, None, 1)?)))
        }
        (Some(Literal::List(elements)), DataType::List(element), Type::List(list)) => {
            let values = elements.iter().map(|v| default_value(&list.element_field, v.as_ref(), element.data_type()));
            let values = match values.collect::<Result<Vec<_>>>()? {
                none if none.is_empty() => new_empty_array(element.data_type()),
                some => ScalarValue::iter_to_array(some)?,
            };
            let offsets = OffsetBuffer::from_lengths([values.len()]);
            Ok(ScalarValue::List(Arc::new(ListArray::try_new(element.clone(), offsets, values, None)?)))
        }
        (Some(Literal::Map(pairs)), DataType::Map(entries, sorted), Type::Map(_)) if pairs.is_empty() => {
            let DataType::Struct(_) = entries.data_type() else { return Err(refused()) };
            let none = new_empty_array(entries.data_type());
            let offsets = OffsetBuffer::from_lengths([0]);
            let map = MapArray::try_new(entries.clone(), offsets, none.as_struct().clone(), None, *sorted)?;
            Ok(ScalarValue::Map(Arc::new(map)))
        }
        _ => scalar_or_null(value, data_type).ok_or_else(refused),
    }
}

fn is_uuid(schema: &ScanSchema, table: &Field) -> bool {
    let field = field_id(table).and_then(|id| schema.iceberg.field_by_id(id));
    field.is_some_and(|field| matches!(field.field_type.as_ref(), Type::Primitive(PrimitiveType::Uuid)))
}

fn same_id(to: &Field, from: &Field) -> Result<()> {
    if field_id(to) == field_id(from) { Ok(()) } else { Err(mismatch(to, from)) }
}

fn mismatch(table: &Field, file: &Field) -> Error {
    Error::unsupported("column of data file cannot be read as the table's type")
        .with_context("column", table.name())
        .with_context("table type", table.data_type())
        .with_context("file type", file.data_type())
}

/// Promotions of the Iceberg spec, and other spellings of the same type that Parquet writers leave behind.
pub(super) fn is_promotion(from: &DataType, to: &DataType) -> bool {
    use DataType as D;
    let text = |t: &D| matches!(t, D::Utf8 | D::LargeUtf8 | D::Utf8View);
    let bytes = |t: &D| matches!(t, D::Binary | D::LargeBinary | D::BinaryView);
    match (from, to) {
        (D::Int8 | D::Int16 | D::UInt8 | D::UInt16, D::Int32 | D::Int64) => true,
        (D::Int32 | D::UInt32, D::Int64) => true,
        (D::Float16, D::Float32 | D::Float64) | (D::Float32, D::Float64) => true,
        (D::Decimal32(p, s) | D::Decimal64(p, s) | D::Decimal128(p, s), D::Decimal128(to_p, to_s)) => {
            s == to_s && p <= to_p
        }
        (D::Time32(TimeUnit::Millisecond), D::Time64(TimeUnit::Microsecond)) => true,
        // Of version 3; midnight, without a zone.
        (D::Date32, D::Timestamp(TimeUnit::Microsecond | TimeUnit::Nanosecond, None)) => true,
        // A column that had nothing but nulls.
        (D::Null, _) => true,
        // Where only one of the two has a zone, it is UTC: both count from 1970-01-01 UTC.
        (
            D::Timestamp(TimeUnit::Second | TimeUnit::Millisecond | TimeUnit::Microsecond, _),
            D::Timestamp(TimeUnit::Microsecond, None),
        ) => true,
        (
            D::Timestamp(TimeUnit::Second | TimeUnit::Millisecond | TimeUnit::Microsecond, _),
            D::Timestamp(TimeUnit::Microsecond, Some(tz)),
        ) => {
            matches!(&**tz, "UTC" | "+00:00")
        }
        (D::Timestamp(TimeUnit::Nanosecond, _), D::Timestamp(TimeUnit::Nanosecond, None)) => true,
        (D::Timestamp(TimeUnit::Nanosecond, _), D::Timestamp(TimeUnit::Nanosecond, Some(tz))) => {
            matches!(&**tz, "UTC" | "+00:00")
        }
        (D::Dictionary(_, value), to) => value.as_ref() == to || is_promotion(value, to),
        (from, to) => (text(from) || bytes(from)) && text(to) || bytes(from) && bytes(to),
    }
}

impl Adapt {
    pub(super) fn apply(&self, array: &ArrayRef) -> arrow::error::Result<ArrayRef> {
        match self {
            Adapt::Keep => Ok(array.clone()),
            Adapt::Cast(to) => cast_with_options(array, to, &STRICT),
            Adapt::Uuid => Ok(Arc::new(uuid_texts(array.as_fixed_size_binary()))),
            Adapt::Struct(fields, children) => {
                let from = array.as_struct();
                let columns = children
                    .iter()
                    .map(|child| match child {
                        Child::Read(position, adapt) => adapt.apply(from.column(*position)),
                        Child::Constant(value) => constant(value, from.len(), from.nulls()),
                    })
                    .collect::<arrow::error::Result<_>>()?;
                let out = StructArray::try_new_with_length(fields.clone(), columns, from.nulls().cloned(), from.len())?;
                Ok(Arc::new(out))
            }
            Adapt::List(field, adapt) => {
                let from = narrow(array)?;
                let values = adapt.apply(from.values())?;
                let out = ListArray::try_new(field.clone(), from.offsets().clone(), values, from.nulls().cloned())?;
                Ok(Arc::new(out))
            }
            Adapt::Map(entries, fields, key, value) => {
                let from = array.as_map();
                let columns = vec![key.apply(from.keys())?, value.apply(from.values())?];
                let entry = StructArray::try_new(fields.clone(), columns, None)?;
                let out =
                    MapArray::try_new(entries.clone(), from.offsets().clone(), entry, from.nulls().cloned(), false)?;
                Ok(Arc::new(out))
            }
        }
    }
}

fn uuid_texts(from: &FixedSizeBinaryArray) -> StringArray {
    let length = uuid::fmt::Hyphenated::LENGTH;
    let mut texts = StringBuilder::with_capacity(from.len(), from.len() * length);
    let mut buffer = [0u8; uuid::fmt::Hyphenated::LENGTH];
    for value in from {
        let id = value.and_then(|bytes| uuid::Uuid::from_slice(bytes).ok());
        texts.append_option(id.map(|id| &*id.hyphenated().encode_lower(&mut buffer)));
    }
    texts.finish()
}

/// A list as the table has it; some writers leave lists with wide offsets.
fn narrow(array: &ArrayRef) -> arrow::error::Result<ListArray> {
    let Some(wide) = array.as_any().downcast_ref::<LargeListArray>() else { return Ok(array.as_list::<i32>().clone()) };
    let DataType::LargeList(field) = wide.data_type() else { return Ok(array.as_list::<i32>().clone()) };
    let offsets = wide.offsets().iter().map(|offset| i32::try_from(*offset)).collect::<Result<Vec<_>, _>>();
    let offsets = offsets.map_err(|_| ArrowError::ComputeError("too many list elements in one batch".to_owned()))?;
    ListArray::try_new(field.clone(), OffsetBuffer::new(offsets.into()), wide.values().clone(), wide.nulls().cloned())
}

/// Null where the struct around it is: whoever takes a field out of a struct does not look at the struct's nulls again.
fn constant(value: &ScalarValue, rows: usize, around: Option<&NullBuffer>) -> arrow::error::Result<ArrayRef> {
    if value.is_null() {
        return Ok(new_null_array(&value.data_type(), rows));
    }
    let failed = |e: DataFusionError| ArrowError::ComputeError(e.to_string());
    match around.filter(|nulls| nulls.null_count() > 0) {
        None => value.to_array_of_size(rows).map_err(failed),
        Some(nulls) => {
            let first = UInt32Array::new(vec![0; rows].into(), Some(nulls.clone()));
            take(&value.to_array().map_err(failed)?, &first, None)
        }
    }
}

/// The schema of a file, with field ids from the table's name mapping where the file has none of its own.
pub(super) fn with_field_ids(schema: &ScanSchema, file: &Arc<Schema>) -> Result<Arc<Schema>> {
    if file.fields().is_empty() || file.fields().iter().any(|f| has_ids(f)) {
        return Ok(file.clone());
    }
    let Some(names) = &schema.names else {
        return Err(Error::unsupported("data file has no field ids, and the table has no name mapping")
            .with_hint("Set the table property \"schema.name-mapping.default\"."));
    };
    let fields = file.fields().iter().map(|f| named(f, names.fields())).collect::<Vec<_>>();
    Ok(Arc::new(Schema::new_with_metadata(fields, file.metadata().clone())))
}

fn has_ids(field: &Field) -> bool {
    field_id(field).is_some()
        || match field.data_type() {
            DataType::Struct(children) => children.iter().any(|f| has_ids(f)),
            DataType::List(child) | DataType::LargeList(child) | DataType::Map(child, _) => has_ids(child),
            _ => false,
        }
}

fn named<M: Borrow<MappedField>>(field: &FieldRef, mapping: &[M]) -> FieldRef {
    match mapping.iter().map(Borrow::borrow).find(|m| m.names().iter().any(|n| n == field.name())) {
        Some(found) => identified(field, found),
        None => field.clone(),
    }
}

fn identified(field: &FieldRef, mapping: &MappedField) -> FieldRef {
    let child =
        |name: &str, field: &FieldRef| match mapping.fields().iter().find(|m| m.names().iter().any(|n| n == name)) {
            Some(found) => identified(field, found),
            None => field.clone(),
        };
    let data_type = match field.data_type() {
        DataType::Struct(children) => DataType::Struct(children.iter().map(|f| named(f, mapping.fields())).collect()),
        DataType::List(element) => DataType::List(child("element", element)),
        DataType::LargeList(element) => DataType::LargeList(child("element", element)),
        DataType::Map(entries, sorted) => match entries.data_type() {
            DataType::Struct(pair) if pair.len() == 2 => {
                let pair = Fields::from(vec![child("key", &pair[0]), child("value", &pair[1])]);
                let entries = entries.as_ref().clone().with_data_type(DataType::Struct(pair));
                DataType::Map(Arc::new(entries), *sorted)
            }
            _ => field.data_type().clone(),
        },
        other => other.clone(),
    };
    let mut metadata: HashMap<String, String> = field.metadata().clone();
    if let Some(id) = mapping.field_id() {
        metadata.insert(PARQUET_FIELD_ID_META_KEY.to_owned(), id.to_string());
    }
    Arc::new(field.as_ref().clone().with_data_type(data_type).with_metadata(metadata))
}
