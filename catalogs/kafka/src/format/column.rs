//! Columns as they fill: plain vectors that can be cut back to any earlier length.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, BooleanBufferBuilder, ListArray, NullBufferBuilder, PrimitiveArray,
    StringArray, StructArray,
};
use arrow::buffer::{Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::compute::cast;
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Date32Type, Decimal128Type, Field, FieldRef, Float32Type, Float64Type, Int8Type,
    Int16Type, Int32Type, Int64Type, Time64MicrosecondType, TimeUnit, TimestampMicrosecondType,
    TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType,
};
use tidewater_catalogs::{Error, Result};

use super::Malformed;
use super::json::Members;

/// Key of a field's metadata that tells `json` from `text`: both are UTF-8 to Arrow.
const TYPE_KEY: &str = "tidewater.type";

/// Whether a column keeps the JSON text of its member.
pub(crate) fn is_json(field: &Field) -> bool {
    field.metadata().get(TYPE_KEY).is_some_and(|t| t == "json")
}

/// A column that keeps the JSON text of its member.
pub(crate) fn json_field(name: &str) -> Field {
    Field::new(name, DataType::Utf8, true).with_metadata([(TYPE_KEY.to_owned(), "json".to_owned())].into())
}

/// Byte strings behind each other.
#[derive(Debug)]
pub(crate) struct Bytes {
    pub(crate) data: Vec<u8>,
    ends: Vec<i32>,
}

impl Bytes {
    pub(crate) fn new() -> Self {
        Self { data: Vec::new(), ends: vec![0] }
    }
    /// Ends the entry whose bytes were appended to `data`.
    #[inline]
    pub(crate) fn end(&mut self) -> std::result::Result<(), Malformed> {
        match i32::try_from(self.data.len()) {
            Ok(end) => {
                self.ends.push(end);
                Ok(())
            }
            Err(_) => Err(Malformed::new("value is larger than 2 GiB")),
        }
    }
    pub(crate) fn truncate(&mut self, len: usize) {
        self.ends.truncate(len + 1);
        self.data.truncate(self.ends.last().map_or(0, |e| *e as usize));
    }
    /// Takes the contents, and keeps room for as much again.
    pub(crate) fn take(&mut self) -> (OffsetBuffer<i32>, Buffer) {
        let data = std::mem::take(&mut self.data);
        let mut ends = Vec::with_capacity(self.ends.len());
        ends.push(0);
        let ends = std::mem::replace(&mut self.ends, ends);
        self.data.reserve(data.len());
        (OffsetBuffer::new(ScalarBuffer::from(ends)), Buffer::from_vec(data))
    }
    pub(crate) fn take_binary(&mut self, nulls: Option<NullBuffer>) -> Result<ArrayRef> {
        let (ends, data) = self.take();
        Ok(Arc::new(BinaryArray::try_new(ends, data, nulls)?))
    }
    pub(crate) fn take_text(&mut self, nulls: Option<NullBuffer>) -> Result<ArrayRef> {
        let (ends, data) = self.take();
        Ok(Arc::new(StringArray::try_new(ends, data, nulls)?))
    }
}

pub(crate) enum Data {
    Bool(BooleanBufferBuilder),
    Int8(Vec<i8>),
    Int16(Vec<i16>),
    Int32(Vec<i32>),
    Int64(Vec<i64>),
    Float32(Vec<f32>),
    Float64(Vec<f64>),
    Decimal {
        values: Vec<i128>,
        precision: u8,
        scale: i8,
    },
    Date(Vec<i32>),
    /// Microseconds since midnight.
    Time(Vec<i64>),
    Timestamp {
        values: Vec<i64>,
        unit: TimeUnit,
        zoned: bool,
    },
    Text(Bytes),
    Json(Bytes),
    Binary(Bytes),
    Struct(Box<Members>),
    List {
        ends: Vec<i32>,
        item: Box<Column>,
        item_nullable: bool,
    },
}

pub(crate) struct Column {
    pub(crate) data: Data,
    pub(crate) nulls: NullBufferBuilder,
    data_type: DataType,
}

impl Column {
    pub(crate) fn new(field: &Field) -> Result<Self> {
        let data = match field.data_type() {
            DataType::Boolean => Data::Bool(BooleanBufferBuilder::new(0)),
            DataType::Int8 => Data::Int8(Vec::new()),
            DataType::Int16 => Data::Int16(Vec::new()),
            DataType::Int32 => Data::Int32(Vec::new()),
            DataType::Int64 => Data::Int64(Vec::new()),
            DataType::Float32 => Data::Float32(Vec::new()),
            DataType::Float64 => Data::Float64(Vec::new()),
            DataType::Decimal128(precision, scale) => {
                Data::Decimal { values: Vec::new(), precision: *precision, scale: *scale }
            }
            DataType::Date32 => Data::Date(Vec::new()),
            DataType::Time64(TimeUnit::Microsecond) => Data::Time(Vec::new()),
            DataType::Timestamp(unit, zone) => {
                Data::Timestamp { values: Vec::new(), unit: *unit, zoned: zone.is_some() }
            }
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View if is_json(field) => Data::Json(Bytes::new()),
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Data::Text(Bytes::new()),
            DataType::Binary | DataType::LargeBinary | DataType::BinaryView => Data::Binary(Bytes::new()),
            DataType::Struct(fields) if !fields.is_empty() => {
                Data::Struct(Box::new(Members::new(fields.iter().map(AsRef::as_ref), None)?))
            }
            DataType::List(item) => {
                Data::List { ends: vec![0], item: Box::new(Column::new(item)?), item_nullable: item.is_nullable() }
            }
            other => {
                return Err(Error::unsupported(format!(
                    "column \"{}\" of a stream cannot have the type {other}",
                    field.name()
                ))
                .with_hint("Declare it as json or text and convert it in the query."));
            }
        };
        Ok(Self { data, nulls: NullBufferBuilder::new(0), data_type: field.data_type().clone() })
    }

    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.nulls.len()
    }

    pub(crate) fn push_null(&mut self) {
        match &mut self.data {
            Data::Bool(v) => v.append(false),
            Data::Int8(v) => v.push(0),
            Data::Int16(v) => v.push(0),
            Data::Int32(v) | Data::Date(v) => v.push(0),
            Data::Int64(v) | Data::Time(v) | Data::Timestamp { values: v, .. } => v.push(0),
            Data::Float32(v) => v.push(0.0),
            Data::Float64(v) => v.push(0.0),
            Data::Decimal { values, .. } => values.push(0),
            Data::Text(b) | Data::Json(b) | Data::Binary(b) => b.ends.push(b.ends.last().copied().unwrap_or(0)),
            Data::Struct(members) => members.push_nulls(),
            Data::List { ends, .. } => ends.push(ends.last().copied().unwrap_or(0)),
        }
        self.nulls.append_null();
    }

    /// Cuts back to `len` rows, also where a row was begun and not ended.
    pub(crate) fn truncate(&mut self, len: usize) {
        match &mut self.data {
            Data::Bool(v) => v.truncate(len),
            Data::Int8(v) => v.truncate(len),
            Data::Int16(v) => v.truncate(len),
            Data::Int32(v) | Data::Date(v) => v.truncate(len),
            Data::Int64(v) | Data::Time(v) | Data::Timestamp { values: v, .. } => v.truncate(len),
            Data::Float32(v) => v.truncate(len),
            Data::Float64(v) => v.truncate(len),
            Data::Decimal { values, .. } => values.truncate(len),
            Data::Text(b) | Data::Json(b) | Data::Binary(b) => b.truncate(len),
            Data::Struct(members) => members.truncate(len),
            Data::List { ends, item, .. } => {
                ends.truncate(len + 1);
                item.truncate(ends.last().map_or(0, |e| *e as usize));
            }
        }
        if self.nulls.len() > len {
            self.nulls.truncate(len);
        }
    }

    /// The rows as an array of the declared type; the column is empty again.
    pub(crate) fn finish(&mut self) -> Result<ArrayRef> {
        let nulls = self.nulls.finish();
        // Offset and name of the zone are the type's: values are always UTC.
        let array: ArrayRef = match &mut self.data {
            Data::Bool(v) => Arc::new(BooleanArray::new(v.finish(), nulls)),
            Data::Int8(v) => primitive::<Int8Type>(v, nulls)?,
            Data::Int16(v) => primitive::<Int16Type>(v, nulls)?,
            Data::Int32(v) => primitive::<Int32Type>(v, nulls)?,
            Data::Int64(v) => primitive::<Int64Type>(v, nulls)?,
            Data::Float32(v) => primitive::<Float32Type>(v, nulls)?,
            Data::Float64(v) => primitive::<Float64Type>(v, nulls)?,
            Data::Decimal { values, .. } => {
                Arc::new(take::<Decimal128Type>(values, nulls)?.with_data_type(self.data_type.clone()))
            }
            Data::Date(v) => primitive::<Date32Type>(v, nulls)?,
            Data::Time(v) => primitive::<Time64MicrosecondType>(v, nulls)?,
            Data::Timestamp { values, unit, .. } => {
                let zoned = self.data_type.clone();
                match unit {
                    TimeUnit::Second => Arc::new(take::<TimestampSecondType>(values, nulls)?.with_data_type(zoned)),
                    TimeUnit::Millisecond => {
                        Arc::new(take::<TimestampMillisecondType>(values, nulls)?.with_data_type(zoned))
                    }
                    TimeUnit::Microsecond => {
                        Arc::new(take::<TimestampMicrosecondType>(values, nulls)?.with_data_type(zoned))
                    }
                    TimeUnit::Nanosecond => {
                        Arc::new(take::<TimestampNanosecondType>(values, nulls)?.with_data_type(zoned))
                    }
                }
            }
            Data::Text(b) | Data::Json(b) => widen(b.take_text(nulls)?, &self.data_type)?,
            Data::Binary(b) => widen(b.take_binary(nulls)?, &self.data_type)?,
            Data::Struct(members) => {
                let children = members.finish()?;
                let DataType::Struct(fields) = &self.data_type else {
                    return Err(Error::internal("struct column without a struct type"));
                };
                Arc::new(StructArray::try_new(fields.clone(), children, nulls)?)
            }
            Data::List { ends, item, .. } => {
                let mut fresh = Vec::with_capacity(ends.len());
                fresh.push(0);
                let ends = std::mem::replace(ends, fresh);
                let DataType::List(field) = &self.data_type else {
                    return Err(Error::internal("list column without a list type"));
                };
                let field: FieldRef = field.clone();
                let offsets = OffsetBuffer::new(ScalarBuffer::from(ends));
                Arc::new(ListArray::try_new(field, offsets, item.finish()?, nulls)?)
            }
        };
        Ok(array)
    }
}

fn take<T: ArrowPrimitiveType>(values: &mut Vec<T::Native>, nulls: Option<NullBuffer>) -> Result<PrimitiveArray<T>> {
    let fresh = Vec::with_capacity(values.len());
    let values = std::mem::replace(values, fresh);
    Ok(PrimitiveArray::try_new(ScalarBuffer::from(values), nulls)?)
}

fn primitive<T: ArrowPrimitiveType>(values: &mut Vec<T::Native>, nulls: Option<NullBuffer>) -> Result<ArrayRef> {
    Ok(Arc::new(take::<T>(values, nulls)?))
}

/// To the view and large forms of strings, where those were declared.
pub(crate) fn widen(array: ArrayRef, data_type: &DataType) -> Result<ArrayRef> {
    if array.data_type() == data_type { Ok(array) } else { Ok(cast(&array, data_type)?) }
}
