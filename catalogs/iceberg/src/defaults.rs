//! What the `iceberg` crate does not read in a table's metadata: some default values, and types of version 3.

use iceberg::spec::{FormatVersion, NestedFieldRef, TableMetadata};
use serde::Deserialize;
use serde_json::Value;
use tidewater_catalogs::{Error, Result};

const INITIAL: &str = "initial-default";
const WRITE: &str = "write-default";

/// The schemas in a table's metadata, which may be alone or the `metadata` of an object.
#[derive(Deserialize)]
struct Schemas {
    #[serde(default)]
    schemas: Vec<Value>,
    metadata: Option<Box<Schemas>>,
}

impl Schemas {
    fn of(json: &[u8]) -> Option<Vec<Value>> {
        let outer: Schemas = serde_json::from_slice(json).ok()?;
        Some(outer.metadata.map_or(outer.schemas, |inner| inner.schemas))
    }
}

/// Why metadata could not be read, where that is a column's type.
pub(crate) fn unknown_type(json: &[u8]) -> Option<Error> {
    fn find(json: &Value) -> Option<&str> {
        const UNKNOWN: [&str; 4] = ["variant", "geometry", "geography", "unknown"];
        match json {
            Value::Object(object) => object.iter().find_map(|(key, value)| match value.as_str() {
                Some(name) if matches!(key.as_str(), "type" | "element" | "key" | "value") => {
                    UNKNOWN.iter().any(|unknown| name.starts_with(unknown)).then_some(name)
                }
                _ => find(value),
            }),
            Value::Array(all) => all.iter().find_map(find),
            _ => None,
        }
    }
    let schemas = Schemas::of(json)?;
    let found = schemas.iter().find_map(find)?;
    Some(Error::unsupported("table has a column of a type that cannot be read").with_context("type", found))
}

/// The crate drops a default that it cannot read, and rows would show null instead. `json` is what `metadata` was read
/// from, alone or as `metadata` of an object.
pub(crate) fn check(json: &[u8], metadata: &TableMetadata) -> Result<()> {
    let named = |key: &str| json.windows(key.len()).any(|w| w == key.as_bytes());
    if metadata.format_version() < FormatVersion::V3 || !(named(INITIAL) || named(WRITE)) {
        return Ok(());
    }
    for json in &Schemas::of(json).unwrap_or_default() {
        let id = json.get("schema-id").and_then(Value::as_i64).and_then(|id| i32::try_from(id).ok());
        let Some(schema) = metadata.schema_by_id(id.unwrap_or(0)) else { continue };
        let mut fields = Vec::new();
        with_default(json, &mut fields);
        for (id, name, key) in fields {
            let known = i32::try_from(id).ok().and_then(|id| schema.field_by_id(id));
            let read = |field: &NestedFieldRef| match key {
                INITIAL => field.initial_default.is_some(),
                _ => field.write_default.is_some(),
            };
            if known.is_some_and(|field| !read(field)) {
                return Err(Error::unsupported("default value of a column cannot be read").with_context("column", name));
            }
        }
    }
    Ok(())
}

/// Ids and names of all fields, nested ones too, that have a default, and of which kind.
fn with_default<'a>(json: &'a Value, out: &mut Vec<(i64, &'a str, &'static str)>) {
    match json {
        Value::Object(object) => {
            for key in [INITIAL, WRITE] {
                if let (Some(id), Some(default)) = (object.get("id").and_then(Value::as_i64), object.get(key))
                    && !default.is_null()
                {
                    out.push((id, object.get("name").and_then(Value::as_str).unwrap_or_default(), key));
                }
            }
            // What a default looks like inside is no schema.
            object.iter().filter(|(key, _)| *key != INITIAL && *key != WRITE).for_each(|(_, v)| with_default(v, out));
        }
        Value::Array(all) => all.iter().for_each(|v| with_default(v, out)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use std::collections::HashMap;

    use iceberg::spec::{
        Literal, NestedField, PrimitiveType, Schema, SortOrder, StructType, TableMetadataBuilder, Type,
        UnboundPartitionSpec,
    };
    use tidewater_catalogs::ErrorKind;

    use super::*;

    #[test]
    fn unknown_types_are_told() {
        let schemas = |data_type: &str| {
            format!(
                r#"{{"metadata":{{"schemas":[{{"type":"struct","fields":[{{"id":1,"name":"unknown","type":{data_type}}}]}}]}}}}"#
            )
        };
        for known in [r#""long""#, r#"{"type":"list","element-id":2,"element":"string"}"#] {
            assert!(unknown_type(schemas(known).as_bytes()).is_none(), "{known}");
        }
        for unknown in [r#""variant""#, r#"{"type":"list","element-id":2,"element":"geometry(srid:3857)"}"#] {
            let error = unknown_type(schemas(unknown).as_bytes());
            assert_eq!(error.map(|e| e.kind()), Some(ErrorKind::Unsupported), "{unknown}");
        }
        assert!(unknown_type(b"no json").is_none());
    }

    #[test]
    fn a_default_is_read_or_refused() {
        let leaf = NestedField::optional(3, "at", Type::Primitive(PrimitiveType::TimestampNs))
            .with_initial_default(Literal::long(0));
        let long =
            NestedField::optional(1, "n", Type::Primitive(PrimitiveType::Long)).with_initial_default(Literal::long(7));
        let outer = NestedField::optional(2, "s", Type::Struct(StructType::new(vec![leaf.into()])));
        let schema = Schema::builder().with_fields(vec![long.into(), outer.into()]).build().unwrap();
        let spec = UnboundPartitionSpec::default();
        let order = SortOrder::unsorted_order();
        let location = "file:///t".to_owned();
        let built = TableMetadataBuilder::new(schema, spec, order, location, FormatVersion::V3, HashMap::new());
        let metadata = built.unwrap().build().unwrap().metadata;
        let mut json = serde_json::to_string(&metadata).unwrap();
        let parsed = |json: &str| serde_json::from_str::<TableMetadata>(json).unwrap();
        // The crate writes what it does not read.
        assert!(check(json.as_bytes(), &parsed(&json)).is_err_and(|e| e.kind() == ErrorKind::Unsupported));
        json = json.replace("timestamp_ns", "date");
        assert!(check(json.as_bytes(), &parsed(&json)).is_err());
        let start = json.find("1970-01-01T").unwrap();
        let end = start + json[start..].find('"').unwrap();
        json.replace_range(start..end, "1970-01-01");
        check(json.as_bytes(), &parsed(&json)).unwrap();
        check(format!("{{\"metadata\":{json}}}").as_bytes(), &parsed(&json)).unwrap();
        let wrong = json.replace("1970-01-01", "never");
        assert!(check(format!("{{\"metadata\":{wrong}}}").as_bytes(), &parsed(&wrong)).is_err());
    }
}
