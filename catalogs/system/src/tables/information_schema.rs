//! The SQL standard's views, as far as PostgreSQL fills them.

use crate::layout::{Row, Value};
use crate::snapshot::{CatalogSnapshot, RelationKind};
use crate::types::{ENTRIES, format_type, pg_type};

pub(super) fn tables(s: &CatalogSnapshot) -> Vec<Row> {
    s.relations
        .iter()
        .map(|r| -> Row {
            let kind = match r.kind {
                RelationKind::View => "VIEW",
                RelationKind::Stream => "FOREIGN",
                RelationKind::Table | RelationKind::StreamingTable => "BASE TABLE",
            };
            let insertable = matches!(r.kind, RelationKind::Table | RelationKind::Stream);
            vec![
                ("table_catalog", s.database.as_str().into()),
                ("table_schema", r.schema.as_str().into()),
                ("table_name", r.name.as_str().into()),
                ("table_type", kind.into()),
                ("is_insertable_into", yes(insertable)),
                ("is_typed", yes(false)),
            ]
        })
        .collect()
}

pub(super) fn views(s: &CatalogSnapshot) -> Vec<Row> {
    let views = s.relations.iter().filter(|r| r.kind == RelationKind::View);
    views
        .map(|r| -> Row {
            vec![
                ("table_catalog", s.database.as_str().into()),
                ("table_schema", r.schema.as_str().into()),
                ("table_name", r.name.as_str().into()),
                ("check_option", "NONE".into()),
                ("is_updatable", yes(false)),
                ("is_insertable_into", yes(false)),
            ]
        })
        .collect()
}

pub(super) fn schemata(s: &CatalogSnapshot) -> Vec<Row> {
    s.schemas
        .iter()
        .map(|n| -> Row {
            vec![
                ("catalog_name", s.database.as_str().into()),
                ("schema_name", n.name.as_str().into()),
                ("schema_owner", s.user.as_str().into()),
            ]
        })
        .collect()
}

fn yes(value: bool) -> Value {
    if value { "YES" } else { "NO" }.into()
}

pub(super) fn columns(s: &CatalogSnapshot) -> Vec<Row> {
    let mut rows = Vec::new();
    for r in &s.relations {
        for (c, number) in r.columns.iter().zip(1_i64..) {
            let t = pg_type(&c.data_type);
            let entry = ENTRIES.iter().find(|e| e.oid == t.oid);
            let is_array = entry.is_some_and(|e| e.category == "A");
            let numeric = (t.oid == 1700 && t.typmod >= 4).then(|| i64::from(t.typmod - 4));
            let (precision, radix): (Option<i64>, Option<i64>) = match t.oid {
                21 => (Some(16), Some(2)),
                23 => (Some(32), Some(2)),
                20 => (Some(64), Some(2)),
                700 => (Some(24), Some(2)),
                701 => (Some(53), Some(2)),
                1700 => (numeric.map(|m| m >> 16), Some(10)),
                _ => (None, None),
            };
            let scale: Option<i64> = match t.oid {
                20 | 21 | 23 => Some(0),
                1700 => numeric.map(|m| m & 0x7ff),
                _ => None,
            };
            let datetime = matches!(t.oid, 1083 | 1114 | 1184 | 1186).then_some(6_i64).or((t.oid == 1082).then_some(0));
            let data_type = if is_array { "ARRAY".to_owned() } else { format_type(t.oid, None) };
            rows.push(vec![
                ("table_catalog", s.database.as_str().into()),
                ("table_schema", r.schema.as_str().into()),
                ("table_name", r.name.as_str().into()),
                ("column_name", c.name.as_str().into()),
                ("ordinal_position", number.into()),
                ("column_default", c.default.clone().into()),
                ("is_nullable", yes(c.nullable)),
                ("data_type", data_type.into()),
                ("character_maximum_length", Value::Null),
                ("character_octet_length", (t.oid == 25).then_some(1_i64 << 30).into()),
                ("numeric_precision", precision.into()),
                ("numeric_precision_radix", radix.into()),
                ("numeric_scale", scale.into()),
                ("datetime_precision", datetime.into()),
                ("interval_precision", Value::Null),
                ("maximum_cardinality", Value::Null),
                ("udt_catalog", s.database.as_str().into()),
                ("udt_schema", crate::PG_CATALOG.into()),
                ("udt_name", entry.map_or("text", |e| e.name).into()),
                ("dtd_identifier", number.to_string().into()),
                ("is_self_referencing", yes(false)),
                ("is_identity", yes(false)),
                ("is_generated", if c.generated.is_some() { "ALWAYS" } else { "NEVER" }.into()),
                ("generation_expression", c.generated.clone().into()),
                ("is_updatable", yes(false)),
            ]);
        }
    }
    rows
}
