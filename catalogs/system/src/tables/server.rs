use super::objects::OWNER;
use crate::layout::{Row, Value};
use crate::snapshot::CatalogSnapshot;

pub(super) fn pg_am() -> Vec<Row> {
    vec![vec![("oid", 2_i64.into()), ("amname", "iceberg".into()), ("amhandler", "-".into()), ("amtype", "t".into())]]
}

pub(super) fn pg_collation() -> Vec<Row> {
    let row = |oid: i64, name: &'static str| -> Row {
        vec![
            ("oid", oid.into()),
            ("collname", name.into()),
            ("collowner", OWNER.into()),
            ("collprovider", "c".into()),
            ("collencoding", (-1_i64).into()),
        ]
    };
    vec![row(100, "default"), row(950, "C")]
}

pub(super) fn pg_database(s: &CatalogSnapshot) -> Vec<Row> {
    vec![vec![
        ("oid", 16384_i64.into()),
        ("datname", s.database.as_str().into()),
        ("datdba", OWNER.into()),
        ("encoding", 6_i64.into()),
        ("datlocprovider", "c".into()),
        ("datallowconn", true.into()),
        ("datconnlimit", (-1_i64).into()),
        ("dattablespace", 1663_i64.into()),
        ("datcollate", "C".into()),
        ("datctype", "C".into()),
    ]]
}

pub(super) fn pg_roles(s: &CatalogSnapshot) -> Vec<Row> {
    vec![vec![
        ("oid", OWNER.into()),
        ("rolname", s.user.as_str().into()),
        ("rolsuper", true.into()),
        ("rolinherit", true.into()),
        ("rolcreaterole", true.into()),
        ("rolcreatedb", true.into()),
        ("rolcanlogin", true.into()),
        ("rolconnlimit", (-1_i64).into()),
    ]]
}

pub(super) fn pg_user(s: &CatalogSnapshot) -> Vec<Row> {
    vec![vec![
        ("usename", s.user.as_str().into()),
        ("usesysid", OWNER.into()),
        ("usecreatedb", true.into()),
        ("usesuper", true.into()),
    ]]
}

pub(super) fn pg_settings(s: &CatalogSnapshot) -> Vec<Row> {
    let row = |e: &crate::SettingEntry| -> Row {
        vec![
            ("name", e.name.as_str().into()),
            ("setting", e.value.as_str().into()),
            ("short_desc", e.description.as_str().into()),
            ("context", "user".into()),
            ("vartype", "string".into()),
            ("source", if e.value == e.default { "default" } else { "session" }.into()),
            ("boot_val", e.default.as_str().into()),
            ("reset_val", e.default.as_str().into()),
        ]
    };
    s.settings.iter().map(row).collect()
}

pub(super) fn pg_stat_activity(s: &CatalogSnapshot) -> Vec<Row> {
    let row = |e: &crate::SessionEntry| -> Row {
        vec![
            ("datid", 16384_i64.into()),
            ("datname", s.database.as_str().into()),
            ("pid", i64::from(e.pid).into()),
            ("usesysid", OWNER.into()),
            ("usename", e.user.as_str().into()),
            ("application_name", e.application_name.as_str().into()),
            ("client_addr", e.client_addr.clone().into()),
            ("backend_start", e.started_at_us.into()),
            ("query_start", e.query_started_at_us.into()),
            ("state_change", e.query_started_at_us.into()),
            ("state", if e.active { "active" } else { "idle" }.into()),
            ("query", e.query.as_str().into()),
            ("backend_type", "client backend".into()),
            ("leader_pid", Value::Null),
            ("client_port", Value::Null),
        ]
    };
    s.sessions.iter().map(row).collect()
}

pub(super) fn pg_tablespace() -> Vec<Row> {
    vec![vec![("oid", 1663_i64.into()), ("spcname", "pg_default".into()), ("spcowner", OWNER.into())]]
}

/// What connections are made of: connectors, as one foreign-data wrapper.
pub(super) const WRAPPER: i64 = 16385;

pub(super) fn pg_foreign_data_wrapper() -> Vec<Row> {
    vec![vec![("oid", WRAPPER.into()), ("fdwname", "stream".into()), ("fdwowner", OWNER.into())]]
}
