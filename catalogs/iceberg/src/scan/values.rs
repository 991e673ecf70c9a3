//! Iceberg's single values as DataFusion's.

use arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::ScalarValue;
use iceberg::spec::{Literal, PrimitiveLiteral};

/// `literal` as a value of the Arrow type `to`, widened where the Iceberg type was promoted since it was written
/// (int to long, float to double, decimal to more digits). `None` where the two do not belong together.
pub(crate) fn scalar(literal: &PrimitiveLiteral, to: &DataType) -> Option<ScalarValue> {
    use PrimitiveLiteral as P;
    Some(match (literal, to) {
        (P::Boolean(v), DataType::Boolean) => ScalarValue::Boolean(Some(*v)),
        (P::Int(v), DataType::Int32) => ScalarValue::Int32(Some(*v)),
        (P::Int(v), DataType::Int64) => ScalarValue::Int64(Some(i64::from(*v))),
        (P::Long(v), DataType::Int64) => ScalarValue::Int64(Some(*v)),
        (P::Float(v), DataType::Float32) => ScalarValue::Float32(Some(v.0)),
        (P::Float(v), DataType::Float64) => ScalarValue::Float64(Some(f64::from(v.0))),
        (P::Double(v), DataType::Float64) => ScalarValue::Float64(Some(v.0)),
        (P::Int(v), DataType::Date32) => ScalarValue::Date32(Some(*v)),
        (P::Long(v), DataType::Time64(TimeUnit::Microsecond)) => ScalarValue::Time64Microsecond(Some(*v)),
        (P::Long(v), DataType::Timestamp(TimeUnit::Microsecond, tz)) => {
            ScalarValue::TimestampMicrosecond(Some(*v), tz.clone())
        }
        (P::Long(v), DataType::Timestamp(TimeUnit::Nanosecond, tz)) => {
            ScalarValue::TimestampNanosecond(Some(*v), tz.clone())
        }
        (P::Int128(v), DataType::Decimal128(precision, scale)) => ScalarValue::Decimal128(Some(*v), *precision, *scale),
        (P::String(v), DataType::Utf8) => ScalarValue::Utf8(Some(v.clone())),
        (P::String(v), DataType::LargeUtf8) => ScalarValue::LargeUtf8(Some(v.clone())),
        (P::String(v), DataType::Utf8View) => ScalarValue::Utf8View(Some(v.clone())),
        (P::Binary(v), DataType::Binary) => ScalarValue::Binary(Some(v.clone())),
        (P::Binary(v), DataType::LargeBinary) => ScalarValue::LargeBinary(Some(v.clone())),
        (P::Binary(v), DataType::BinaryView) => ScalarValue::BinaryView(Some(v.clone())),
        (P::Binary(v), DataType::FixedSizeBinary(n)) if usize::try_from(*n) == Ok(v.len()) => {
            ScalarValue::FixedSizeBinary(*n, Some(v.clone()))
        }
        (P::UInt128(v), DataType::FixedSizeBinary(16)) => {
            ScalarValue::FixedSizeBinary(16, Some(v.to_be_bytes().to_vec()))
        }
        (P::UInt128(v), DataType::Utf8) => ScalarValue::Utf8(Some(uuid::Uuid::from_u128(*v).hyphenated().to_string())),
        _ => return None,
    })
}

/// As [`scalar`], for values that may be absent: an absent one is null. `None` for nested values.
pub(super) fn scalar_or_null(literal: Option<&Literal>, to: &DataType) -> Option<ScalarValue> {
    match literal {
        None => ScalarValue::try_new_null(to).ok(),
        Some(Literal::Primitive(p)) => scalar(p, to),
        Some(_) => None,
    }
}
