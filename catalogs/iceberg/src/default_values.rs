//! Default values of columns (Iceberg spec, "Default values"), which tables of format version 3 have.

use std::collections::BTreeMap;

use datafusion::common::ScalarValue;
use iceberg::spec::{FormatVersion, Literal, NestedField, PrimitiveLiteral, PrimitiveType, Schema, Type};
use tidewater_catalogs::{Error, Result};

use crate::error;
use crate::scan::{literal as literal_of, scalar};
use crate::schema::arrow_type;
use crate::state::TableState;

/// What is written into each column that a statement leaves out.
pub(crate) fn of(state: &TableState) -> BTreeMap<String, ScalarValue> {
    let columns = state.metadata.current_schema().as_struct().fields().iter().zip(state.arrow_schema.fields());
    let default = |(column, field): (&std::sync::Arc<NestedField>, &std::sync::Arc<arrow::datatypes::Field>)| {
        let Some(Literal::Primitive(value)) = &column.write_default else { return None };
        Some((column.name.clone(), scalar(value, field.data_type())?))
    };
    columns.filter_map(default).collect()
}

/// 0A000 where tables of the version have none.
pub(crate) fn check_version(version: FormatVersion) -> Result<()> {
    if version >= FormatVersion::V3 {
        return Ok(());
    }
    Err(Error::unsupported(format!("tables of format version {version} have no default values of columns"))
        .with_hint("They need version 3: TBLPROPERTIES ('format-version' = '3'), which ALTER TABLE … SET takes, too."))
}

/// The columns of a new table.
pub(crate) fn with_defaults(
    schema: Schema,
    defaults: &BTreeMap<String, ScalarValue>,
    version: FormatVersion,
) -> Result<Schema> {
    if defaults.is_empty() {
        return Ok(schema);
    }
    check_version(version)?;
    let mut fields = Vec::new();
    for field in schema.as_struct().fields() {
        let mut field = field.as_ref().clone();
        if let Some(value) = defaults.get(&field.name) {
            field.write_default = Some(literal(value, &field.field_type, &field.name)?);
        }
        fields.push(std::sync::Arc::new(field));
    }
    Schema::builder().with_fields(fields).build().map_err(|e| error::iceberg("set default values", e))
}

/// A default as the table keeps it.
pub(crate) fn literal(value: &ScalarValue, data_type: &Type, column: &str) -> Result<Literal> {
    let refused = || {
        Error::unsupported(format!("column \"{column}\" of type {data_type} cannot have the default {value}"))
            .with_hint("Give the value in each INSERT.")
    };
    let value = value.cast_to(&arrow_type(data_type, column)?).map_err(|_| refused())?;
    literal_of(&value).filter(|literal| is_kept(literal, data_type)).ok_or_else(refused)
}

/// Whether the default comes back from the table's metadata as it was. The `iceberg` crate ends the process over some.
pub(crate) fn is_kept(literal: &Literal, data_type: &Type) -> bool {
    const MOST_DAYS: i32 = 90_000_000;
    const MOST_MICROS: i64 = 86_400_000_000 * MOST_DAYS as i64;
    let fits = match (literal, data_type) {
        (Literal::Primitive(PrimitiveLiteral::Int(days)), Type::Primitive(PrimitiveType::Date)) => {
            days.abs() <= MOST_DAYS
        }
        (Literal::Primitive(PrimitiveLiteral::Long(micros)), Type::Primitive(PrimitiveType::Timestamp)) => {
            micros.abs() <= MOST_MICROS
        }
        (Literal::Primitive(PrimitiveLiteral::Long(micros)), Type::Primitive(PrimitiveType::Timestamptz)) => {
            micros.abs() <= MOST_MICROS && (*micros >= 0 || micros % 1_000_000 == 0)
        }
        (Literal::Primitive(_), Type::Primitive(_)) => true,
        _ => false,
    };
    let json = fits.then(|| literal.clone().try_into_json(data_type).ok()).flatten();
    json.and_then(|json| Literal::try_from_json(json, data_type).ok().flatten()).as_ref() == Some(literal)
}

/// The default in the wider type that its column gets.
pub(crate) fn widened(literal: Option<Literal>, to: &PrimitiveType) -> Option<Literal> {
    match (literal, to) {
        (Some(Literal::Primitive(PrimitiveLiteral::Int(v))), PrimitiveType::Long) => Some(Literal::long(v)),
        (Some(Literal::Primitive(PrimitiveLiteral::Float(v))), PrimitiveType::Double) => {
            Some(Literal::double(f64::from(v.0)))
        }
        (other, _) => other,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn what_the_metadata_would_not_keep_is_refused() {
        let zone = || Some("+00:00".into());
        let primitive = Type::Primitive;
        for (value, of, kept) in [
            (ScalarValue::Int64(Some(7)), primitive(PrimitiveType::Int), true),
            (ScalarValue::from("x"), primitive(PrimitiveType::String), true),
            (ScalarValue::Float64(Some(0.1)), primitive(PrimitiveType::Float), true),
            (ScalarValue::Float64(Some(f64::NAN)), primitive(PrimitiveType::Double), false),
            (ScalarValue::Date32(Some(-10)), primitive(PrimitiveType::Date), true),
            (ScalarValue::Date32(Some(i32::MAX)), primitive(PrimitiveType::Date), false),
            (ScalarValue::TimestampMicrosecond(Some(-1), None), primitive(PrimitiveType::Timestamp), true),
            (ScalarValue::TimestampMicrosecond(Some(1), zone()), primitive(PrimitiveType::Timestamptz), true),
            (ScalarValue::TimestampMicrosecond(Some(-1), zone()), primitive(PrimitiveType::Timestamptz), false),
            (
                ScalarValue::Decimal128(Some(150), 9, 2),
                primitive(PrimitiveType::Decimal { precision: 9, scale: 2 }),
                true,
            ),
            (ScalarValue::Binary(Some(vec![0, 255])), primitive(PrimitiveType::Binary), true),
        ] {
            assert_eq!(literal(&value, &of, "c").is_ok(), kept, "{value} of {of}");
        }
    }
}
