//! The entry of a table, as Iceberg's implementations for Java and Python, Athena and Spark expect it.

use std::collections::HashSet;

use iceberg::spec::{NestedFieldRef, PrimitiveType, TableMetadata, Type};
use serde_json::{Map, Value, json};

use crate::pointers::Pointed;

const TABLE_TYPE: &str = "table_type";
const LOCATION: &str = "metadata_location";
const PREVIOUS_LOCATION: &str = "previous_metadata_location";
/// What an update would lose where it is not said again.
const KEPT: [&str; 4] = ["Owner", "Retention", "LastAccessTime", "LastAnalyzedTime"];
/// Longest texts that Glue takes.
const COMMENT_CHARS: usize = 255;
const DESCRIPTION_CHARS: usize = 2048;

/// Where the metadata of a table is, if it is an Iceberg table.
pub(super) fn location(table: &Value) -> Option<&str> {
    let parameters = table.get("Parameters")?;
    let is_ours = parameters.get(TABLE_TYPE)?.as_str()?.eq_ignore_ascii_case("iceberg");
    parameters.get(LOCATION)?.as_str().filter(|location| is_ours && !location.is_empty())
}

/// `TableInput` of a table that comes to be, or, with `old`, of one that moves on. What others wrote into it stays.
pub(super) fn input(name: &str, next: Pointed<'_>, old: Option<&Value>) -> Value {
    let kept = |of: &Value, key: &str| of.get(key).and_then(Value::as_object).cloned().unwrap_or_default();
    let old = old.unwrap_or(&Value::Null);
    let mut parameters = kept(old, "Parameters");
    if let Some(previous) = parameters.insert(LOCATION.to_owned(), json!(next.location)) {
        parameters.insert(PREVIOUS_LOCATION.to_owned(), previous);
    }
    parameters.insert(TABLE_TYPE.to_owned(), json!("ICEBERG"));
    let mut storage = kept(old, "StorageDescriptor");
    storage.insert("Columns".to_owned(), columns(next.metadata));
    storage.insert("Location".to_owned(), json!(next.metadata.location()));
    let mut input = Map::new();
    for key in KEPT {
        if let Some(value) = old.get(key).filter(|value| !value.is_null()) {
            input.insert(key.to_owned(), value.clone());
        }
    }
    let comment = next.metadata.properties().get("comment").map(|text| json!(cut(text, DESCRIPTION_CHARS)));
    if let Some(description) = comment.or_else(|| old.get("Description").cloned()).filter(|d| !d.is_null()) {
        input.insert("Description".to_owned(), description);
    }
    input.insert("Name".to_owned(), json!(name));
    input.insert("TableType".to_owned(), json!("EXTERNAL_TABLE"));
    input.insert("Parameters".to_owned(), Value::Object(parameters));
    input.insert("StorageDescriptor".to_owned(), Value::Object(storage));
    Value::Object(input)
}

/// Those of today, then those of older schemas, each name once. For people and for Athena's editor; engines read the
/// metadata.
fn columns(metadata: &TableMetadata) -> Value {
    let mut columns = Vec::new();
    let mut names = HashSet::new();
    let current = metadata.current_schema();
    let older = metadata.schemas_iter().filter(|schema| schema.schema_id() != current.schema_id());
    let mut older: Vec<_> = older.collect();
    older.sort_by_key(|schema| schema.schema_id());
    for schema in std::iter::once(current).chain(older) {
        let is_current = schema.schema_id() == current.schema_id();
        for field in schema.as_struct().fields() {
            let name = field.name.to_lowercase();
            if names.insert(name.clone()) {
                columns.push(column(name, field, is_current));
            }
        }
    }
    Value::Array(columns)
}

fn column(name: String, field: &NestedFieldRef, is_current: bool) -> Value {
    let mut column = json!({
        "Name": name,
        "Type": type_text(&field.field_type),
        "Parameters": {
            "iceberg.field.id": field.id.to_string(),
            "iceberg.field.optional": (!field.required).to_string(),
            "iceberg.field.current": is_current.to_string(),
        },
    });
    if let Some(comment) = &field.doc {
        column["Comment"] = json!(cut(comment, COMMENT_CHARS));
    }
    column
}

fn cut(text: &str, chars: usize) -> &str {
    text.char_indices().nth(chars).map_or(text, |(end, _)| &text[..end])
}

/// In Hive's words.
fn type_text(of: &Type) -> String {
    match of {
        Type::Primitive(primitive) => match primitive {
            PrimitiveType::Boolean => "boolean".to_owned(),
            PrimitiveType::Int => "int".to_owned(),
            PrimitiveType::Long => "bigint".to_owned(),
            PrimitiveType::Float => "float".to_owned(),
            PrimitiveType::Double => "double".to_owned(),
            PrimitiveType::Decimal { precision, scale } => format!("decimal({precision},{scale})"),
            PrimitiveType::Date => "date".to_owned(),
            PrimitiveType::Timestamp
            | PrimitiveType::Timestamptz
            | PrimitiveType::TimestampNs
            | PrimitiveType::TimestamptzNs => "timestamp".to_owned(),
            PrimitiveType::Time | PrimitiveType::String | PrimitiveType::Uuid => "string".to_owned(),
            PrimitiveType::Fixed(_) | PrimitiveType::Binary => "binary".to_owned(),
        },
        Type::Struct(fields) => {
            let fields = fields.fields().iter().map(|f| format!("{}:{}", f.name, type_text(&f.field_type)));
            format!("struct<{}>", fields.collect::<Vec<_>>().join(","))
        }
        Type::List(list) => format!("array<{}>", type_text(&list.element_field.field_type)),
        Type::Map(map) => {
            format!("map<{},{}>", type_text(&map.key_field.field_type), type_text(&map.value_field.field_type))
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use crate::new_table::new_metadata;
    use crate::storage::Storage;
    use crate::tests::new_table;

    #[test]
    fn what_others_wrote_stays() {
        let mut table = new_table("t", vec![]);
        table.location = Some("s3://b/w/t".to_string());
        table.comment = Some("ours".to_string());
        let metadata =
            new_metadata(&Storage::of_tables(&Default::default()), None, &Default::default(), table).unwrap();
        let first = input("t", Pointed { location: "s3://b/1.json", metadata: &metadata }, None);
        assert_eq!(first["Parameters"], json!({"table_type": "ICEBERG", "metadata_location": "s3://b/1.json"}));
        assert_eq!((&first["TableType"], &first["Description"]), (&json!("EXTERNAL_TABLE"), &json!("ours")));
        assert_eq!(first["StorageDescriptor"]["Location"], "s3://b/w/t");
        let id = &first["StorageDescriptor"]["Columns"][0];
        assert_eq!((&id["Name"], &id["Type"]), (&json!("id"), &json!("bigint")));
        let of_id =
            json!({"iceberg.field.id": "1", "iceberg.field.optional": "false", "iceberg.field.current": "true"});
        assert_eq!(id["Parameters"], of_id);

        let mut old = first;
        old["Parameters"]["crawler"] = json!("keep");
        old["Parameters"]["table_type"] = json!("iceberg");
        old["StorageDescriptor"]["AdditionalLocations"] = json!(["s3://b/more"]);
        old["Owner"] = json!("anna");
        old["CreatedBy"] = json!("not part of an input");
        assert_eq!(location(&old), Some("s3://b/1.json"));
        let second = input("t", Pointed { location: "s3://b/2.json", metadata: &metadata }, Some(&old));
        let parameters = json!({
            "table_type": "ICEBERG",
            "metadata_location": "s3://b/2.json",
            "previous_metadata_location": "s3://b/1.json",
            "crawler": "keep",
        });
        assert_eq!(second["Parameters"], parameters);
        assert_eq!(second["StorageDescriptor"]["AdditionalLocations"], json!(["s3://b/more"]));
        assert_eq!(second["Owner"], "anna");
        assert!(second.get("CreatedBy").is_none());

        old["Parameters"]["table_type"] = json!("HUDI");
        assert_eq!(location(&old), None);
        assert_eq!(cut("äöü", 2), "äö");
    }
}
