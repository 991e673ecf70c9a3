//! Single values as people read them, in PostgreSQL's spelling.

use std::collections::HashMap;
use std::fmt::Write;

use chrono::{DateTime, NaiveTime, TimeDelta};
use iceberg::spec::{Datum, Literal, PartitionSpec, PrimitiveLiteral, PrimitiveType, Schema, Struct, StructType, Type};
use serde_json::{Map, Value};

/// Type and value may not belong together where the table's columns changed; then the value is shown as it is stored.
pub(super) fn value(of: Option<&PrimitiveType>, literal: &PrimitiveLiteral) -> String {
    use {PrimitiveLiteral as L, PrimitiveType as T};
    let known = match (of, literal) {
        (Some(T::Date), L::Int(days)) => DateTime::UNIX_EPOCH
            .checked_add_signed(TimeDelta::days(i64::from(*days)))
            .map(|d| d.date_naive().to_string()),
        (Some(T::Time), L::Long(micros)) => time(*micros),
        (Some(T::Timestamp), L::Long(micros)) => instant(*micros, ""),
        (Some(T::Timestamptz), L::Long(micros)) => instant(*micros, "+00"),
        (Some(T::TimestampNs), L::Long(nanos)) => Some(nano_instant(*nanos, "")),
        (Some(T::TimestamptzNs), L::Long(nanos)) => Some(nano_instant(*nanos, "+00")),
        (Some(T::Decimal { scale, .. }), L::Int128(digits)) => Some(decimal(*digits, *scale)),
        (Some(T::Uuid), L::UInt128(bits)) => Some(uuid::Uuid::from_u128(*bits).hyphenated().to_string()),
        _ => None,
    };
    known.unwrap_or_else(|| match literal {
        L::Boolean(v) => v.to_string(),
        L::Int(v) => v.to_string(),
        L::Long(v) => v.to_string(),
        L::Float(v) => v.to_string(),
        L::Double(v) => v.to_string(),
        L::String(v) => v.clone(),
        L::Binary(bytes) => bytea(bytes),
        L::Int128(v) => v.to_string(),
        L::UInt128(v) => v.to_string(),
        L::AboveMax => "above max".to_owned(),
        L::BelowMin => "below min".to_owned(),
    })
}

fn time(micros: i64) -> Option<String> {
    let (seconds, rest) = (micros.div_euclid(1_000_000), micros.rem_euclid(1_000_000));
    let time =
        NaiveTime::from_num_seconds_from_midnight_opt(seconds.try_into().ok()?, u32::try_from(rest).ok()? * 1000);
    time.map(|t| t.format("%H:%M:%S%.f").to_string())
}

fn instant(micros: i64, zone: &str) -> Option<String> {
    DateTime::from_timestamp_micros(micros).map(|at| format!("{}{zone}", at.format("%Y-%m-%d %H:%M:%S%.f")))
}

fn nano_instant(nanos: i64, zone: &str) -> String {
    format!("{}{zone}", DateTime::from_timestamp_nanos(nanos).format("%Y-%m-%d %H:%M:%S%.f"))
}

fn decimal(digits: i128, scale: u32) -> String {
    let scale = scale as usize;
    if scale == 0 {
        return digits.to_string();
    }
    let text = format!("{:0>width$}", digits.unsigned_abs(), width = scale + 1);
    let (whole, fraction) = text.split_at(text.len() - scale);
    format!("{}{whole}.{fraction}", if digits < 0 { "-" } else { "" })
}

pub(super) fn bytea(bytes: &[u8]) -> String {
    bytes.iter().fold("\\x".to_owned(), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

/// Values of a partition by the names of its fields.
pub(super) fn partition(spec: Option<&PartitionSpec>, types: Option<&StructType>, values: &Struct) -> String {
    let mut out = Map::new();
    for (position, literal) in values.iter().enumerate() {
        let name = spec.and_then(|s| s.fields().get(position)).map_or_else(|| position.to_string(), |f| f.name.clone());
        let of = types.and_then(|t| t.fields().get(position)).map(|f| f.field_type.as_ref());
        let shown = match (of, literal) {
            (_, None) => Value::Null,
            (Some(Type::Primitive(of)), Some(Literal::Primitive(literal))) => value(Some(of), literal).into(),
            (_, Some(Literal::Primitive(literal))) => value(None, literal).into(),
            (_, Some(_)) => Value::Null,
        };
        out.insert(name, shown);
    }
    Value::Object(out).to_string()
}

/// Counts of columns by their names.
pub(super) fn counts(schema: &Schema, counts: &HashMap<i32, u64>) -> Option<String> {
    by_name(schema, counts, |n| Value::from(*n))
}

/// Bounds of columns by their names.
pub(super) fn bounds(schema: &Schema, bounds: &HashMap<i32, Datum>) -> Option<String> {
    by_name(schema, bounds, |bound| value(Some(bound.data_type()), bound.literal()).into())
}

fn by_name<T>(schema: &Schema, all: &HashMap<i32, T>, show: impl Fn(&T) -> Value) -> Option<String> {
    let name = |id: i32| schema.name_by_field_id(id).map_or_else(|| id.to_string(), str::to_owned);
    let shown: Map<_, _> = all.iter().map(|(id, value)| (name(*id), show(value))).collect();
    (!shown.is_empty()).then(|| Value::Object(shown).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_spelled_as_postgres_does() {
        use {PrimitiveLiteral as L, PrimitiveType as T};
        let decimal = T::Decimal { precision: 10, scale: 2 };
        for (of, literal, shown) in [
            (Some(&T::Long), L::Long(-7), "-7"),
            (Some(&T::String), L::String("it's".to_owned()), "it's"),
            (Some(&T::Date), L::Int(-1), "1969-12-31"),
            (Some(&T::Time), L::Long(3_723_000_500), "01:02:03.000500"),
            (Some(&T::Timestamptz), L::Long(1_500_000), "1970-01-01 00:00:01.500+00"),
            (Some(&T::Timestamp), L::Long(0), "1970-01-01 00:00:00"),
            (Some(&decimal), L::Int128(-5), "-0.05"),
            (Some(&decimal), L::Int128(12345), "123.45"),
            (Some(&T::Binary), L::Binary(vec![0, 255]), "\\x00ff"),
            (Some(&T::Uuid), L::UInt128(1), "00000000-0000-0000-0000-000000000001"),
            (Some(&T::Time), L::Long(-1), "-1"),
            (None, L::Int(3), "3"),
            (Some(&T::String), L::Int(3), "3"),
        ] {
            assert_eq!(value(of, &literal), shown);
        }
    }
}
