//! Arrow schemas and Iceberg schemas, both ways. What has no equal is refused; what is only narrower (`smallint`,
//! milliseconds) becomes the next wider type, which the table then has for good.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields, Schema as ArrowSchema, SchemaRef, TimeUnit};
use iceberg::spec::{ListType, MapType, NestedField, NestedFieldRef, PrimitiveType, Schema, StructType, Type};
use parquet::arrow::PARQUET_FIELD_ID_META_KEY;
use tidewater_catalogs::{COLUMN_COMMENT, Error, Result};

use crate::error;

const LIST_ELEMENT: &str = "element";
const UTC: &str = "+00:00";

/// An Iceberg schema with ids from 1, outer columns first.
pub fn to_iceberg(schema: &ArrowSchema) -> Result<Schema> {
    let mut ids = Ids(0);
    let fields = ids.fields(schema.fields(), "")?;
    Schema::builder().with_fields(fields).build().map_err(|e| {
        // Doubled names, above all.
        Error::invalid("the columns do not make a table").with_source(error::iceberg("build the schema", e))
    })
}

/// The type of a column that comes to a table, the column itself having the id `id`; and the highest id that is taken
/// then.
pub(crate) fn new_type(data_type: &DataType, path: &str, id: i32) -> Result<(Type, i32)> {
    let mut ids = Ids(id);
    let new = ids.data_type(data_type, path)?;
    Ok((new, ids.0))
}

/// The Arrow schema of a table, with field ids under `PARQUET:field_id`.
pub fn to_arrow(schema: &Schema) -> Result<ArrowSchema> {
    let fields = schema.as_struct().fields().iter().map(|f| arrow_field(f)).collect::<Result<Vec<_>>>()?;
    Ok(ArrowSchema::new(fields))
}

/// The same columns without field ids, as SQL sees them.
pub fn without_ids(schema: &ArrowSchema) -> SchemaRef {
    Arc::new(ArrowSchema::new(schema.fields().iter().map(|f| plain_field(f)).collect::<Vec<_>>()))
}

struct Ids(i32);

impl Ids {
    fn next(&mut self) -> i32 {
        self.0 += 1;
        self.0
    }

    /// Ids of all siblings come before those of their children, as the specification's examples have it.
    fn fields(&mut self, fields: &Fields, parent: &str) -> Result<Vec<NestedFieldRef>> {
        let ids: Vec<i32> = fields.iter().map(|_| self.next()).collect();
        fields
            .iter()
            .zip(ids)
            .map(|(field, id)| {
                let path = if parent.is_empty() { field.name().clone() } else { format!("{parent}.{}", field.name()) };
                let data_type = self.data_type(field.data_type(), &path)?;
                let mut nested = NestedField::new(id, field.name(), data_type, !field.is_nullable());
                nested.doc = field.metadata().get(COLUMN_COMMENT).cloned();
                Ok(Arc::new(nested))
            })
            .collect()
    }

    fn data_type(&mut self, data_type: &DataType, path: &str) -> Result<Type> {
        use PrimitiveType as P;
        let primitive = match data_type {
            DataType::Boolean => P::Boolean,
            DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::UInt8 | DataType::UInt16 => P::Int,
            DataType::Int64 | DataType::UInt32 => P::Long,
            DataType::Float16 | DataType::Float32 => P::Float,
            DataType::Float64 => P::Double,
            DataType::Decimal128(precision, scale) | DataType::Decimal256(precision, scale)
                if *precision <= 38 && *scale >= 0 =>
            {
                P::Decimal { precision: u32::from(*precision), scale: u32::from(scale.unsigned_abs()) }
            }
            DataType::Date32 => P::Date,
            DataType::Time32(_) | DataType::Time64(TimeUnit::Microsecond) => P::Time,
            DataType::Timestamp(TimeUnit::Nanosecond, _) => {
                return Err(unsupported(data_type, path).with_hint("Cast to a timestamp of microseconds."));
            }
            DataType::Timestamp(_, None) => P::Timestamp,
            DataType::Timestamp(_, Some(_)) => P::Timestamptz,
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => P::String,
            DataType::Binary | DataType::LargeBinary | DataType::BinaryView => P::Binary,
            DataType::FixedSizeBinary(width) if *width > 0 => P::Fixed(u64::from(width.unsigned_abs())),
            DataType::Dictionary(_, values) => return self.data_type(values, path),
            DataType::List(item) | DataType::LargeList(item) | DataType::ListView(item) => {
                let id = self.next();
                let element = self.data_type(item.data_type(), &format!("{path}.{LIST_ELEMENT}"))?;
                let element = NestedField::list_element(id, element, !item.is_nullable());
                return Ok(Type::List(ListType::new(Arc::new(element))));
            }
            DataType::Map(entries, _) => {
                let DataType::Struct(pair) = entries.data_type() else { return Err(unsupported(data_type, path)) };
                let [key, value] = &pair[..] else { return Err(unsupported(data_type, path)) };
                let (key_id, value_id) = (self.next(), self.next());
                let key_type = self.data_type(key.data_type(), &format!("{path}.key"))?;
                let value_type = self.data_type(value.data_type(), &format!("{path}.value"))?;
                return Ok(Type::Map(MapType::new(
                    Arc::new(NestedField::map_key_element(key_id, key_type)),
                    Arc::new(NestedField::map_value_element(value_id, value_type, !value.is_nullable())),
                )));
            }
            DataType::Struct(fields) if !fields.is_empty() => {
                return Ok(Type::Struct(StructType::new(self.fields(fields, path)?)));
            }
            DataType::UInt64 => {
                return Err(unsupported(data_type, path).with_hint("Cast to bigint, or to decimal(20, 0)."));
            }
            DataType::Null => {
                return Err(unsupported(data_type, path).with_hint("Give the null a type: NULL::text."));
            }
            _ => return Err(unsupported(data_type, path)),
        };
        Ok(Type::Primitive(primitive))
    }
}

fn unsupported(data_type: &DataType, path: &str) -> Error {
    Error::unsupported(format!("column \"{path}\" has type {data_type}, which an Iceberg table cannot hold"))
}

fn arrow_field(field: &NestedField) -> Result<Field> {
    named_field(&field.name, field)
}

fn named_field(name: &str, field: &NestedField) -> Result<Field> {
    let data_type = arrow_type(&field.field_type, &field.name)?;
    let id = HashMap::from([(PARQUET_FIELD_ID_META_KEY.to_string(), field.id.to_string())]);
    Ok(Field::new(name, data_type, !field.required).with_metadata(id))
}

pub(crate) fn arrow_type(data_type: &Type, path: &str) -> Result<DataType> {
    use PrimitiveType as P;
    Ok(match data_type {
        Type::Struct(fields) => {
            DataType::Struct(fields.fields().iter().map(|f| arrow_field(f)).collect::<Result<Fields>>()?)
        }
        Type::List(list) => DataType::List(Arc::new(named_field(LIST_ELEMENT, &list.element_field)?)),
        Type::Map(map) => {
            let pair = Fields::from(vec![named_field("key", &map.key_field)?, named_field("value", &map.value_field)?]);
            DataType::Map(Arc::new(Field::new("key_value", DataType::Struct(pair), false)), false)
        }
        Type::Primitive(primitive) => match primitive {
            P::Boolean => DataType::Boolean,
            P::Int => DataType::Int32,
            P::Long => DataType::Int64,
            P::Float => DataType::Float32,
            P::Double => DataType::Float64,
            P::Decimal { precision, scale } => match (u8::try_from(*precision), i8::try_from(*scale)) {
                (Ok(precision @ 1..=38), Ok(scale)) => DataType::Decimal128(precision, scale),
                _ => return Err(Error::unsupported(format!("column \"{path}\" has type {primitive}"))),
            },
            P::Date => DataType::Date32,
            P::Time => DataType::Time64(TimeUnit::Microsecond),
            P::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, None),
            P::Timestamptz => DataType::Timestamp(TimeUnit::Microsecond, Some(UTC.into())),
            P::TimestampNs => DataType::Timestamp(TimeUnit::Nanosecond, None),
            P::TimestamptzNs => DataType::Timestamp(TimeUnit::Nanosecond, Some(UTC.into())),
            P::String => DataType::Utf8,
            // Read only: a table with such a column is not written.
            P::Uuid => DataType::Utf8,
            P::Fixed(width) => match i32::try_from(*width) {
                Ok(width) => DataType::FixedSizeBinary(width),
                Err(_) => return Err(Error::unsupported(format!("column \"{path}\" has type {primitive}"))),
            },
            P::Binary => DataType::Binary,
        },
    })
}

fn plain_field(field: &Field) -> Field {
    Field::new(field.name(), plain_type(field.data_type()), field.is_nullable())
}

fn plain_type(data_type: &DataType) -> DataType {
    match data_type {
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(|f| plain_field(f)).collect()),
        DataType::List(item) => DataType::List(Arc::new(plain_field(item))),
        DataType::Map(entries, sorted) => DataType::Map(Arc::new(plain_field(entries)), *sorted),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use tidewater_catalogs::ErrorKind;

    fn all_types() -> ArrowSchema {
        let us = TimeUnit::Microsecond;
        let point = Fields::from(vec![
            Field::new("x", DataType::Float64, false),
            Field::new("tags", DataType::List(Arc::new(Field::new("element", DataType::Utf8, true))), true),
        ]);
        let pair =
            Fields::from(vec![Field::new("key", DataType::Utf8, false), Field::new("value", DataType::Int64, true)]);
        ArrowSchema::new(vec![
            Field::new("b", DataType::Boolean, true),
            Field::new("i", DataType::Int32, false),
            Field::new("l", DataType::Int64, true),
            Field::new("f", DataType::Float32, true),
            Field::new("d", DataType::Float64, true),
            Field::new("dec", DataType::Decimal128(20, 4), true),
            Field::new("day", DataType::Date32, true),
            Field::new("time", DataType::Time64(us), true),
            Field::new("ts", DataType::Timestamp(us, None), true),
            Field::new("tstz", DataType::Timestamp(us, Some(UTC.into())), true),
            Field::new("s", DataType::Utf8, true),
            Field::new("raw", DataType::Binary, true),
            Field::new("fixed", DataType::FixedSizeBinary(7), true),
            Field::new("point", DataType::Struct(point), true),
            Field::new(
                "map",
                DataType::Map(Arc::new(Field::new("key_value", DataType::Struct(pair), false)), false),
                true,
            ),
        ])
    }

    #[test]
    fn every_type_comes_back_as_itself() {
        let schema = all_types();
        let there = to_iceberg(&schema).unwrap();
        let back = to_arrow(&there).unwrap();
        assert_eq!(without_ids(&back).as_ref(), &schema);
        assert_eq!(back.field(0).metadata()[PARQUET_FIELD_ID_META_KEY], "1");
    }

    #[test]
    fn narrow_types_widen() {
        let schema = ArrowSchema::new(vec![
            Field::new("a", DataType::Int16, true),
            Field::new("b", DataType::UInt32, true),
            Field::new("c", DataType::Utf8View, true),
            Field::new("d", DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into())), true),
        ]);
        let back = without_ids(&to_arrow(&to_iceberg(&schema).unwrap()).unwrap());
        let types: Vec<_> = back.fields().iter().map(|f| f.data_type().clone()).collect();
        let tstz = DataType::Timestamp(TimeUnit::Microsecond, Some(UTC.into()));
        assert_eq!(types, [DataType::Int32, DataType::Int64, DataType::Utf8, tstz]);
    }

    #[test]
    fn what_cannot_be_held_is_refused_by_name() {
        for data_type in [
            DataType::UInt64,
            DataType::Null,
            DataType::Timestamp(TimeUnit::Nanosecond, None),
            DataType::Interval(arrow::datatypes::IntervalUnit::MonthDayNano),
            DataType::Decimal256(50, 2),
        ] {
            let inner = Fields::from(vec![Field::new("inner", data_type, true)]);
            let schema = ArrowSchema::new(vec![Field::new("outer", DataType::Struct(inner), true)]);
            let e = to_iceberg(&schema).unwrap_err();
            assert_eq!(e.kind(), ErrorKind::Unsupported);
            assert!(e.message().contains("outer.inner"), "{e}");
        }
    }

    #[test]
    fn doubled_names_are_refused() {
        let schema =
            ArrowSchema::new(vec![Field::new("a", DataType::Int32, true), Field::new("a", DataType::Int64, true)]);
        assert_eq!(to_iceberg(&schema).unwrap_err().kind(), ErrorKind::InvalidInput);
    }
}
