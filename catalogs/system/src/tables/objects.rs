use std::collections::BTreeSet;

use crate::layout::{Row, Value};
use crate::snapshot::{CatalogSnapshot, ColumnEntry, RelationEntry, RelationKind};
use crate::types::{ENTRIES, pg_type as type_of};

/// The only role there is.
pub(super) const OWNER: i64 = 10;
/// Oids of the catalogs themselves, as `pg_description.classoid` names them.
const PG_CLASS: i64 = 1259;
const HEAP: i64 = 2;

fn relkind(kind: RelationKind) -> &'static str {
    match kind {
        RelationKind::Table | RelationKind::StreamingTable => "r",
        // Its rows live in a topic, as those of a foreign table live elsewhere.
        RelationKind::Stream => "f",
        RelationKind::View => "v",
    }
}

pub(super) fn pg_class(s: &CatalogSnapshot) -> Vec<Row> {
    let row = |r: &RelationEntry| -> Row {
        vec![
            ("oid", r.oid.into()),
            ("relname", r.name.as_str().into()),
            ("relnamespace", s.schema_oid(&r.schema).into()),
            ("relowner", OWNER.into()),
            (
                "relam",
                if matches!(r.kind, RelationKind::View | RelationKind::Stream) { Value::Int(0) } else { HEAP.into() },
            ),
            ("relpages", (r.size_bytes / 8192).min(i64::from(i32::MAX)).into()),
            ("reltuples", Value::Float(r.rows as f64)),
            ("relpersistence", "p".into()),
            ("relkind", relkind(r.kind).into()),
            ("relnatts", (r.columns.len() as i64).into()),
            ("relispopulated", true.into()),
            ("relreplident", "d".into()),
        ]
    };
    s.relations.iter().map(row).collect()
}

fn server_oid(connection: &str) -> u32 {
    crate::stable_oid(&format!("server {connection}"))
}

/// Connections that streams read.
pub(super) fn pg_foreign_server(s: &CatalogSnapshot) -> Vec<Row> {
    let names: BTreeSet<&str> = s.relations.iter().filter_map(|r| Some(r.source.as_ref()?.0.as_str())).collect();
    let row = |name: &str| -> Row {
        vec![
            ("oid", server_oid(name).into()),
            ("srvname", name.into()),
            ("srvowner", OWNER.into()),
            ("srvfdw", super::server::WRAPPER.into()),
        ]
    };
    names.into_iter().map(row).collect()
}

pub(super) fn pg_foreign_table(s: &CatalogSnapshot) -> Vec<Row> {
    let row = |r: &RelationEntry| -> Option<Row> {
        let (connection, topic) = r.source.as_ref()?;
        let options = Value::TextList(vec![format!("topic={topic}")]);
        Some(vec![("ftrelid", r.oid.into()), ("ftserver", server_oid(connection).into()), ("ftoptions", options)])
    };
    s.relations.iter().filter_map(row).collect()
}

/// Columns with their numbers, from 1.
fn columns(s: &CatalogSnapshot) -> impl Iterator<Item = (&RelationEntry, i64, &ColumnEntry)> {
    s.relations.iter().flat_map(|r| r.columns.iter().zip(1..).map(move |(c, n)| (r, n, c)))
}

pub(super) fn pg_attribute(s: &CatalogSnapshot) -> Vec<Row> {
    let row = |(r, number, c): (&RelationEntry, i64, &ColumnEntry)| -> Row {
        let t = type_of(&c.data_type);
        let entry = ENTRIES.iter().find(|e| e.oid == t.oid);
        vec![
            ("attrelid", r.oid.into()),
            ("attname", c.name.as_str().into()),
            ("atttypid", t.oid.into()),
            ("attstattarget", (-1_i64).into()),
            ("attlen", entry.map_or(-1, |e| e.len).into()),
            ("attnum", number.into()),
            ("attcacheoff", (-1_i64).into()),
            ("atttypmod", i64::from(t.typmod).into()),
            ("attbyval", entry.is_some_and(|e| e.by_value).into()),
            ("attalign", "i".into()),
            ("attstorage", if entry.is_some_and(|e| e.len < 0) { "x" } else { "p" }.into()),
            ("attnotnull", (!c.nullable).into()),
            ("atthasdef", c.generated.as_ref().or(c.default.as_ref()).is_some().into()),
            ("attgenerated", if c.generated.is_some() { "s" } else { "" }.into()),
            ("attislocal", true.into()),
            ("attcollation", entry.map_or(0, |e| e.collation).into()),
        ]
    };
    columns(s).map(row).collect()
}

pub(super) fn pg_attrdef(s: &CatalogSnapshot) -> Vec<Row> {
    let row = |(r, number, c): (&RelationEntry, i64, &ColumnEntry)| -> Option<Row> {
        let expression = c.generated.as_ref().or(c.default.as_ref())?;
        Some(vec![
            ("oid", crate::stable_oid(&format!("attrdef {} {number}", r.oid)).into()),
            ("adrelid", r.oid.into()),
            ("adnum", number.into()),
            ("adbin", expression.as_str().into()),
        ])
    };
    columns(s).filter_map(row).collect()
}

pub(super) fn pg_description(s: &CatalogSnapshot) -> Vec<Row> {
    let row = |oid: u32, number: i64, text: &str| -> Row {
        vec![
            ("objoid", oid.into()),
            ("classoid", PG_CLASS.into()),
            ("objsubid", number.into()),
            ("description", text.into()),
        ]
    };
    let relations = s.relations.iter().filter_map(|r| Some(row(r.oid, 0, r.comment.as_deref()?)));
    relations.chain(columns(s).filter_map(|(r, n, c)| Some(row(r.oid, n, c.comment.as_deref()?)))).collect()
}

pub(super) fn pg_namespace(s: &CatalogSnapshot) -> Vec<Row> {
    let row = |oid: i64, name: &str| -> Row {
        vec![("oid", oid.into()), ("nspname", name.into()), ("nspowner", OWNER.into())]
    };
    s.schemas.iter().map(|n| row(i64::from(n.oid), &n.name)).collect()
}

pub(super) fn pg_tables(s: &CatalogSnapshot) -> Vec<Row> {
    let tables = s.relations.iter().filter(|r| !matches!(r.kind, RelationKind::View | RelationKind::Stream));
    tables
        .map(|r| -> Row {
            vec![
                ("schemaname", r.schema.as_str().into()),
                ("tablename", r.name.as_str().into()),
                ("tableowner", s.user.as_str().into()),
            ]
        })
        .collect()
}

pub(super) fn pg_views(s: &CatalogSnapshot) -> Vec<Row> {
    let views = s.relations.iter().filter(|r| r.kind == RelationKind::View);
    views
        .map(|r| -> Row {
            vec![
                ("schemaname", r.schema.as_str().into()),
                ("viewname", r.name.as_str().into()),
                ("viewowner", s.user.as_str().into()),
            ]
        })
        .collect()
}

pub(super) fn pg_type(s: &CatalogSnapshot) -> Vec<Row> {
    let namespace = s.schema_oid(crate::PG_CATALOG);
    let row = |t: &crate::types::TypeEntry| -> Row {
        vec![
            ("oid", t.oid.into()),
            ("typname", t.name.into()),
            ("typnamespace", namespace.into()),
            ("typowner", OWNER.into()),
            ("typlen", t.len.into()),
            ("typbyval", t.by_value.into()),
            ("typtype", if t.category == "P" { "p" } else { "b" }.into()),
            ("typcategory", t.category.into()),
            ("typispreferred", t.preferred.into()),
            ("typisdefined", true.into()),
            ("typdelim", ",".into()),
            ("typelem", t.element.into()),
            ("typarray", t.array.into()),
            ("typinput", t.input.into()),
            ("typoutput", t.output.into()),
            ("typtypmod", (-1_i64).into()),
            ("typcollation", t.collation.into()),
        ]
    };
    ENTRIES.iter().map(row).collect()
}
