//! SQL types of casts, as PostgreSQL has them.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, TimeUnit};
use datafusion::error::Result;
use datafusion::logical_expr::planner::TypePlanner;
use sqlparser::ast::{ArrayElemTypeDef, DataType as Sql, ExactNumberInfo, TimezoneInfo};

use crate::dialect::fold;

/// `timestamptz`: microseconds, UTC. The session's TimeZone is a matter of reading and printing.
pub(crate) fn timestamptz() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some(Arc::from("+00:00")))
}

/// The type of a `numeric` without precision: every bigint fits, and more digits than a double has.
const NUMERIC: DataType = DataType::Decimal128(38, NUMERIC_SCALE);
pub(super) const NUMERIC_SCALE: i8 = 18;

#[derive(Debug)]
pub(crate) struct PostgresTypes;

impl TypePlanner for PostgresTypes {
    fn plan_type(&self, sql: &Sql) -> Result<Option<DataType>> {
        Ok(Some(match sql {
            Sql::Text
            | Sql::String(_)
            | Sql::Varchar(_)
            | Sql::CharacterVarying(_)
            | Sql::CharVarying(_)
            | Sql::JSON
            | Sql::JSONB
            | Sql::Uuid => DataType::Utf8,
            Sql::Bytea => DataType::Binary,
            Sql::Int2(_) | Sql::SmallInt(_) => DataType::Int16,
            Sql::Int4(_) | Sql::Int(_) | Sql::Integer(_) => DataType::Int32,
            Sql::Int8(_) | Sql::BigInt(_) => DataType::Int64,
            Sql::Float(ExactNumberInfo::Precision(p)) if *p <= 24 => DataType::Float32,
            // `float` alone is double precision in PostgreSQL.
            Sql::Float(_) | Sql::Double(_) | Sql::DoublePrecision | Sql::Float8 => DataType::Float64,
            Sql::Numeric(ExactNumberInfo::None)
            | Sql::Decimal(ExactNumberInfo::None)
            | Sql::Dec(ExactNumberInfo::None) => NUMERIC,
            Sql::Timestamp(None | Some(6), TimezoneInfo::Tz | TimezoneInfo::WithTimeZone) => timestamptz(),
            Sql::Timestamp(None | Some(6), _) => DataType::Timestamp(TimeUnit::Microsecond, None),
            Sql::Time(None | Some(6), TimezoneInfo::None | TimezoneInfo::WithoutTimeZone) => {
                DataType::Time64(TimeUnit::Microsecond)
            }
            Sql::Array(
                ArrayElemTypeDef::SquareBracket(inner, _)
                | ArrayElemTypeDef::AngleBracket(inner)
                | ArrayElemTypeDef::Parenthesis(inner),
            ) => match self.plan_type(inner)? {
                Some(inner) => DataType::List(Arc::new(Field::new_list_field(inner, true))),
                None => return Ok(None),
            },
            Sql::Struct(fields, _) => {
                let mut members = Vec::with_capacity(fields.len());
                for field in fields {
                    match (&field.field_name, self.plan_type(&field.field_type)?) {
                        (Some(name), Some(inner)) => members.push(Field::new(fold(name), inner, true)),
                        _ => return Ok(None),
                    }
                }
                DataType::Struct(members.into())
            }
            Sql::Boolean | Sql::Bool => DataType::Boolean,
            Sql::Date => DataType::Date32,
            Sql::Real | Sql::Float4 => DataType::Float32,
            _ => return Ok(None),
        }))
    }
}
