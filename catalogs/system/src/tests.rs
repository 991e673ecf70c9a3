#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use arrow::datatypes::DataType;
use arrow::util::pretty::pretty_format_batches;
use datafusion::prelude::SessionContext;

use super::*;

fn snapshot() -> Arc<CatalogSnapshot> {
    let column = |name: &str, data_type, generated: Option<&str>| ColumnEntry {
        name: name.to_owned(),
        data_type,
        nullable: generated.is_some(),
        generated: generated.map(str::to_owned),
        default: (name == "id").then(|| "7".to_owned()),
        comment: None,
    };
    let relation = |schema: &str, name: &str, kind| RelationEntry {
        oid: stable_oid(&format!("{schema}.{name}")),
        schema: schema.to_owned(),
        name: name.to_owned(),
        kind,
        columns: vec![
            column("id", DataType::Int64, None),
            column("price", DataType::Decimal128(12, 2), Some("id * 2")),
        ],
        comment: Some(format!("about {name}")),
        source: None,
        rows: 3,
        size_bytes: 20_000,
    };
    Arc::new(CatalogSnapshot {
        database: "lake".into(),
        user: "tidewater".into(),
        server_version: "15.0".into(),
        schemas: ["public", "other", PG_CATALOG]
            .map(|name| SchemaEntry { oid: stable_oid(name), name: name.into() })
            .into(),
        relations: vec![
            relation("public", "clicks", RelationKind::Stream),
            relation("other", "clicks", RelationKind::Table),
            relation("other", "Odd", RelationKind::Table),
        ],
        search_path: vec!["public".into()],
        ..CatalogSnapshot::default()
    })
}

async fn rows(sql: &str) -> String {
    try_rows(sql).await.unwrap()
}

async fn try_rows(sql: &str) -> datafusion::common::Result<String> {
    let ctx = SessionContext::new();
    let s = snapshot();
    for name in relation_names().filter(|n| !n.contains('.')) {
        ctx.register_table(name, table(&s, PG_CATALOG, name).unwrap().unwrap()).unwrap();
    }
    for f in functions(&s) {
        ctx.register_udf(f.as_ref().clone());
    }
    let batches = ctx.sql(sql).await?.collect().await?;
    Ok(pretty_format_batches(&batches)?.to_string())
}

#[tokio::test]
async fn visible_is_what_the_search_path_finds() {
    let text = rows(
        "SELECT n.nspname, c.relname, pg_get_userbyid(c.relowner) AS owner
         FROM pg_class c LEFT JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE c.relkind IN ('r', 'f', '') AND pg_table_is_visible(c.oid)",
    )
    .await;
    assert!(text.contains("| public  | clicks  | tidewater |"), "{text}");
    assert_eq!(text.lines().count(), 5, "{text}");
}

#[tokio::test]
async fn columns_have_their_postgres_types() {
    let oid = stable_oid("other.Odd");
    let text = rows(&format!(
        "SELECT attname, format_type(atttypid, atttypmod) AS t, attnotnull, attgenerated FROM pg_attribute
         WHERE attrelid = '{oid}' AND attnum > 0 AND NOT attisdropped ORDER BY attnum"
    ))
    .await;
    assert!(text.contains("| id      | bigint        | true       |"), "{text}");
    assert!(text.contains("| price   | numeric(12,2) | false      | s"), "{text}");
}

#[tokio::test]
async fn names_and_oids_convert_both_ways() {
    let text = rows(
        "SELECT tidewater_regclass(tidewater_relation_oid('clicks')) AS a,
                tidewater_regclass(tidewater_relation_oid('other.\"Odd\"')) AS b,
                tidewater_regtype(tidewater_type_oid('bigint')) AS d,
                obj_description(tidewater_relation_oid('clicks'), 'pg_class') AS e,
                pg_size_pretty(pg_table_size(tidewater_relation_oid('clicks'))) AS f",
    )
    .await;
    assert!(text.contains("| clicks | other.\"Odd\" | bigint | about clicks | 20 kB |"), "{text}");
    let e = try_rows("SELECT tidewater_relation_oid('other.odd')").await.unwrap_err();
    assert!(e.to_string().contains("relation \"other.odd\" does not exist"), "{e}");
}

#[test]
fn every_table_of_the_layout_can_be_built() {
    let s = snapshot();
    let mut seen = 0;
    for name in relation_names() {
        let (schema, table_name) = name.split_once('.').unwrap_or((PG_CATALOG, name));
        assert!(table(&s, schema, table_name).unwrap().is_some(), "{name}");
        seen += 1;
    }
    assert!(seen > 50);
    assert!(table(&s, PG_CATALOG, "no_such_table").unwrap().is_none());
    assert!(is_always_empty(PG_CATALOG, "pg_policy") && !is_always_empty(PG_CATALOG, "pg_class"));
}

#[test]
fn oids_are_stable_and_positive() {
    assert_eq!(stable_oid("a"), stable_oid("a"));
    assert_ne!(stable_oid("a"), stable_oid("b"));
    assert!((0..1000).all(|n| (16384..=i32::MAX as u32).contains(&stable_oid(&n.to_string()))));
}
