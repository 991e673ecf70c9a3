//! SQL types ↔ Arrow types.

use std::sync::Arc;

use arrow::datatypes::{DataType as Arrow, Field, TimeUnit};
use sqlparser::ast::{ArrayElemTypeDef, DataType, ExactNumberInfo, StructField, TimezoneInfo};

use super::ast::fold;
use super::errors::refused;
use super::quote_ident;
use crate::SqlError;

/// The zone of every `timestamptz` column.
const UTC: &str = "+00:00";

/// Key of a field's metadata that tells `json` from `text`: both are UTF-8 to Arrow.
const TYPE_KEY: &str = "tidewater.type";

/// A declared column.
pub fn arrow_field(name: &str, declared: &DataType, nullable: bool) -> Result<Field, SqlError> {
    let field = Field::new(name, arrow_type(declared)?, nullable);
    Ok(if matches!(declared, DataType::JSON | DataType::JSONB) {
        field.with_metadata([(TYPE_KEY.to_owned(), "json".to_owned())].into())
    } else {
        field
    })
}

/// Whether a column of text holds JSON.
fn is_json(field: &Field) -> bool {
    field.metadata().get(TYPE_KEY).is_some_and(|t| t == "json")
}

/// How a found column is declared. What no declaration can say is kept as JSON.
pub fn declared_type(field: &Field) -> String {
    if is_json(field) {
        return "JSON".to_owned();
    }
    type_name(field.data_type()).unwrap_or_else(|| "JSON".to_owned())
}

/// The Arrow type of a declared column. What neither Iceberg nor the decoders can keep exactly is refused.
pub fn arrow_type(declared: &DataType) -> Result<Arrow, SqlError> {
    Ok(match declared {
        DataType::Boolean | DataType::Bool => Arrow::Boolean,
        // Iceberg's smallest integer has 32 bits.
        DataType::SmallInt(_) | DataType::Int2(_) | DataType::Int(_) | DataType::Int4(_) | DataType::Integer(_) => {
            Arrow::Int32
        }
        DataType::BigInt(_) | DataType::Int8(_) => Arrow::Int64,
        DataType::Real | DataType::Float4 => Arrow::Float32,
        DataType::Float(ExactNumberInfo::Precision(p)) if *p <= 24 => Arrow::Float32,
        DataType::Float(_) | DataType::Double(_) | DataType::DoublePrecision | DataType::Float8 => Arrow::Float64,
        DataType::Numeric(info) | DataType::Decimal(info) | DataType::Dec(info) => decimal(declared, *info)?,
        DataType::Text
        | DataType::String(_)
        | DataType::Varchar(_)
        | DataType::CharacterVarying(_)
        | DataType::CharVarying(_)
        | DataType::JSON
        | DataType::JSONB => Arrow::Utf8,
        DataType::Bytea => Arrow::Binary,
        DataType::Date => Arrow::Date32,
        DataType::Time(None | Some(6), TimezoneInfo::None | TimezoneInfo::WithoutTimeZone) => {
            Arrow::Time64(TimeUnit::Microsecond)
        }
        DataType::Timestamp(precision, zone) => {
            if precision.is_some_and(|p| p != 6) {
                return Err(unsupported(declared, "Use TIMESTAMP or TIMESTAMPTZ, which keep microseconds."));
            }
            match zone {
                TimezoneInfo::None | TimezoneInfo::WithoutTimeZone => Arrow::Timestamp(TimeUnit::Microsecond, None),
                TimezoneInfo::Tz | TimezoneInfo::WithTimeZone => {
                    Arrow::Timestamp(TimeUnit::Microsecond, Some(Arc::from(UTC)))
                }
            }
        }
        DataType::Array(ArrayElemTypeDef::SquareBracket(inner, _))
        | DataType::Array(ArrayElemTypeDef::AngleBracket(inner))
        | DataType::Array(ArrayElemTypeDef::Parenthesis(inner)) => {
            Arrow::List(Arc::new(Field::new("element", arrow_type(inner)?, true)))
        }
        DataType::Struct(fields, _) => {
            let field = |f: &StructField| match (&f.field_name, &f.field_type) {
                (_, DataType::JSON | DataType::JSONB) => Err(unsupported(
                    declared,
                    "A member of a STRUCT cannot be JSON: use TEXT, or declare the whole as JSON.",
                )),
                (Some(name), inner) => Ok(Field::new(fold(name), arrow_type(inner)?, true)),
                (None, _) => Err(unsupported(declared, "Name the members: STRUCT<sku TEXT, quantity INT>.")),
            };
            Arrow::Struct(fields.iter().map(field).collect::<Result<_, _>>()?)
        }
        DataType::Char(_) | DataType::Character(_) | DataType::Uuid => {
            return Err(unsupported(declared, "Use TEXT."));
        }
        DataType::Interval { .. } => {
            return Err(unsupported(declared, "Keep the two times, or seconds as DOUBLE PRECISION."));
        }
        _ => {
            return Err(unsupported(
                declared,
                "The types are BOOLEAN, INT, BIGINT, REAL, DOUBLE PRECISION, NUMERIC(p, s), TEXT, BYTEA, DATE, \
                 TIME, TIMESTAMP, TIMESTAMPTZ, JSON, STRUCT<name type, …> and arrays of these.",
            ));
        }
    })
}

fn decimal(declared: &DataType, info: ExactNumberInfo) -> Result<Arrow, SqlError> {
    let (p, s) = match info {
        ExactNumberInfo::None => {
            return Err(unsupported(declared, "Say how many digits it has, for example NUMERIC(18, 2)."));
        }
        ExactNumberInfo::Precision(p) => (p, 0),
        ExactNumberInfo::PrecisionAndScale(p, s) => (p, s),
    };
    match (u8::try_from(p), i8::try_from(s)) {
        (Ok(precision @ 1..=38), Ok(scale)) if scale >= 0 && s as u64 <= p => Ok(Arrow::Decimal128(precision, scale)),
        _ => Err(unsupported(declared, "NUMERIC has 1 to 38 digits, and at most as many behind the point.")),
    }
}

fn unsupported(declared: &DataType, hint: &str) -> SqlError {
    refused(format!("type {} is not supported", declared.to_string().to_lowercase()), hint)
}

/// How a column of this type is declared, and how DESCRIBE calls it. None where no declaration would give the type.
pub fn type_name(arrow: &Arrow) -> Option<String> {
    Some(match arrow {
        Arrow::Boolean => "BOOLEAN".into(),
        Arrow::Int8 | Arrow::Int16 | Arrow::Int32 | Arrow::UInt8 | Arrow::UInt16 => "INTEGER".into(),
        Arrow::Int64 | Arrow::UInt32 => "BIGINT".into(),
        Arrow::Float16 | Arrow::Float32 => "REAL".into(),
        Arrow::Float64 => "DOUBLE PRECISION".into(),
        Arrow::Decimal128(p, s) => format!("NUMERIC({p},{s})"),
        Arrow::Utf8 | Arrow::LargeUtf8 | Arrow::Utf8View => "TEXT".into(),
        Arrow::Binary | Arrow::LargeBinary | Arrow::BinaryView => "BYTEA".into(),
        Arrow::Date32 => "DATE".into(),
        Arrow::Time64(_) | Arrow::Time32(_) => "TIME".into(),
        Arrow::Timestamp(_, None) => "TIMESTAMP".into(),
        Arrow::Timestamp(_, Some(_)) => "TIMESTAMPTZ".into(),
        Arrow::List(item) | Arrow::LargeList(item) => format!("{}[]", type_name(item.data_type())?),
        Arrow::Struct(fields) if !fields.is_empty() => {
            let member = |f: &Arc<Field>| Some(format!("{} {}", quote_ident(f.name()), type_name(f.data_type())?));
            format!("STRUCT<{}>", fields.iter().map(member).collect::<Option<Vec<_>>>()?.join(", "))
        }
        _ => return None,
    })
}

/// [`type_name`] for people: types without a declaration are named as Arrow names them.
pub fn field_type_name(field: &Field) -> String {
    if is_json(field) {
        return "json".to_owned();
    }
    type_name(field.data_type()).map_or_else(|| field.data_type().to_string(), |n| n.to_lowercase())
}
