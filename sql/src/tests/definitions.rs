//! Secrets, connections, streams, streaming tables: what is kept, shown, changed, refused and dropped.

use tidewater_catalogs::{DefinitionKind, TableName};

use super::fakes::Bench;

const TABLE: &str = "CREATE STREAMING TABLE big PARTITIONED BY (days(ts)) WITH (commit_interval = '5 s') \
                     AS SELECT id, ts FROM STREAM s WHERE amount > 1";

async fn definition(b: &Bench, kind: DefinitionKind, name: &str) -> Option<tidewater_catalogs::Definition> {
    b.engine.metastore().get(kind, name).await.unwrap()
}

#[tokio::test]
async fn secrets_are_kept_and_never_shown() {
    let mut b = Bench::new().await;
    assert_eq!(b.run("CREATE SECRET pw AS 'hunter2'").await.unwrap().tag, "CREATE SECRET");
    assert_eq!(b.rows("SHOW SECRETS").await, [["pw", "literal"]]);
    let shown = format!("{:?}{:?}", b.rows("SHOW CREATE SECRET pw").await, b.rows("DESCRIBE SECRET pw").await);
    assert!(!shown.contains("hunter2"), "{shown}");
    assert_eq!(b.code("CREATE SECRET pw AS 'x'").await, "42710");
    b.run("CREATE SECRET IF NOT EXISTS pw AS 'x'").await.unwrap();
    let stored = definition(&b, DefinitionKind::Secret, "pw").await.unwrap();
    assert_eq!(stored.properties["value"], "hunter2");
    assert!(!stored.sql.contains("hunter2"));
    b.run("ALTER SECRET pw AS 'hunter3'").await.unwrap();
    assert_eq!(definition(&b, DefinitionKind::Secret, "pw").await.unwrap().properties["value"], "hunter3");

    assert_eq!(b.code("CREATE SECRET no FROM ENV 'TIDEWATER_NO_SUCH_VARIABLE'").await, "22023");
    assert_eq!(b.code("CREATE SECRET no FROM FILE '/no/such/file'").await, "22023");
    let file = std::env::temp_dir().join(format!("tidewater-secret-{}", std::process::id()));
    std::fs::write(&file, "x\n").unwrap();
    b.run(&format!("CREATE SECRET f FROM FILE '{}'", file.display())).await.unwrap();
    std::fs::remove_file(file).unwrap();

    b.run("CREATE CONNECTION c TO KAFKA WITH (brokers = SECRET pw)").await.unwrap();
    assert_eq!(b.code("DROP SECRET pw").await, "2BP01");
    b.run("DROP CONNECTION c").await.unwrap();
    b.run("DROP SECRET pw, f").await.unwrap();
    assert_eq!(b.code("DROP SECRET pw").await, "42704");
    b.run("DROP SECRET IF EXISTS pw").await.unwrap();
}

#[tokio::test]
async fn connections_are_checked() {
    let mut b = Bench::new().await;
    assert_eq!(b.code("CREATE CONNECTION k TO KAFKA WITH (brokers = 'x')").await, "42710");
    assert_eq!(b.code("CREATE CONNECTION c TO PULSAR WITH (brokers = 'x')").await, "22023");
    let e = b.run("CREATE CONNECTION c TO KAFKA WITH (broker = 'x')").await.unwrap_err();
    assert_eq!(e.state.as_str(), "22023");
    assert!(e.hint.unwrap().contains("Perhaps you meant \"brokers\""));
    assert_eq!(b.code("CREATE CONNECTION c TO KAFKA WITH (brokers = SECRET nope)").await, "42704");
    assert_eq!(b.rows("SHOW CONNECTIONS").await, [["k", "kafka"]]);
    b.run("ALTER CONNECTION k SET (brokers = 'c:2')").await.unwrap();
    assert!(b.rows("SHOW CREATE CONNECTION k").await[0][1].contains("'c:2'"));
    b.run("VALIDATE CONNECTION k").await.unwrap();
    assert_eq!(b.code("VALIDATE CONNECTION nope").await, "42704");
    assert_eq!(b.code("DROP CONNECTION k").await, "2BP01");
    b.run("DROP CONNECTION k CASCADE").await.unwrap();
    assert!(b.rows("SHOW STREAMS").await.is_empty());
}

#[tokio::test]
async fn streams_are_inferred_and_shown() {
    let mut b = Bench::new().await;
    b.run("CREATE STREAM found (*, twice BIGINT GENERATED ALWAYS AS (id * 2)) WITH (connection = 'k', topic = 'x')")
        .await
        .unwrap();
    let notices = b.session.take_notices();
    assert!(notices.iter().any(|n| n.detail.as_deref() == Some("id BIGINT, name TEXT")), "{notices:?}");
    let text = &b.rows("SHOW CREATE STREAM found").await[0][1];
    assert!(
        text.starts_with("CREATE STREAM lake.public.found (\n  id BIGINT,\n  name TEXT,\n  twice BIGINT GEN"),
        "{text}"
    );
    // What is shown makes the same stream again.
    let again = text.replace("public.found", "public.again");
    b.run(&again).await.unwrap();
    assert_eq!(b.rows("SHOW CREATE STREAM again").await[0][1], again);
    assert_eq!(b.rows("DESCRIBE found").await[2], ["twice", "bigint", "YES", "generated always as (id * 2)"]);
    assert_eq!(b.rows("SHOW STREAMS LIKE 'f%'").await, [["public", "found", "k", "x"]]);
    let inferred = b.rows("DESCRIBE STREAM INFERRED FROM CONNECTION k TOPIC 'x'").await;
    assert_eq!(inferred[1], ["name", "text", "name TEXT"]);
}

#[tokio::test]
async fn streams_and_tables_share_their_names() {
    let mut b = Bench::new().await;
    assert_eq!(b.code("CREATE STREAM t WITH (connection = 'k', topic = 'x')").await, "42P07");
    assert_eq!(b.code("CREATE STREAM s WITH (connection = 'k', topic = 'x')").await, "42P07");
    assert_eq!(b.code("CREATE TABLE s (a INT)").await, "42P07");
    assert_eq!(b.code("CREATE STREAMING TABLE t AS SELECT id FROM STREAM s").await, "42P07");
    assert_eq!(b.code("CREATE STREAM nope.x WITH (connection = 'k', topic = 'x')").await, "3F000");
    assert_eq!(b.code("CREATE STREAM x WITH (connection = 'nope', topic = 'x')").await, "42704");
    assert_eq!(b.code("CREATE STREAM x (_offset BIGINT) WITH (connection = 'k', topic = 'x')").await, "42701");
    assert_eq!(
        b.code("CREATE STREAM x (a BIGINT GENERATED ALWAYS AS (b)) WITH (connection = 'k', topic = 'x')").await,
        "42703"
    );
    assert_eq!(b.code("CREATE STREAM \"a.b\" WITH (connection = 'k', topic = 'x')").await, "42602");
    assert_eq!(b.code("CREATE STREAM x (a BIGINT) WITH (connection = 'k', topic = 'x', key = 'z')").await, "42703");
    b.run("CREATE STREAM IF NOT EXISTS t WITH (connection = 'k', topic = 'x')").await.unwrap();
    assert_eq!(b.code("DROP TABLE s").await, "42809");
    assert_eq!(b.code("DROP STREAM t").await, "42809");
    assert_eq!(b.code("DROP STREAM nope").await, "42P01");
    b.run("DROP STREAM s").await.unwrap();
    assert_eq!(b.code("SELECT * FROM s").await, "42P01");
}

#[tokio::test]
async fn a_streaming_table_is_made_changed_and_dropped() {
    let mut b = Bench::new().await;
    assert_eq!(b.run(TABLE).await.unwrap().tag, "CREATE STREAMING TABLE");
    let flow = definition(&b, DefinitionKind::Flow, "lake.public.big").await.unwrap();
    assert_eq!(flow.properties["stream"], "lake.public.s");
    assert!(b.engine.supervisor().status(flow.id).is_some());
    assert!(b.engine.lake().load_table(&TableName::new("system", "dlq", "s")).await.is_ok());
    assert_eq!(b.rows("SHOW TABLES LIKE 'big'").await, [["public", "big", "streaming table"]]);
    assert_eq!(b.rows("SHOW STREAMING TABLES").await[0][..3], ["public", "big", "lake.public.s"]);
    assert_eq!(b.rows("SELECT * FROM big").await.len(), 0);

    b.run(&TABLE.replace("TABLE big", "TABLE IF NOT EXISTS big")).await.unwrap();
    b.run(&TABLE.replace("STREAMING", "OR REFRESH STREAMING")).await.unwrap();
    assert_eq!(b.code(&TABLE.replace("STREAMING", "OR REFRESH STREAMING").replace("> 1", "> 2")).await, "0A000");
    assert_eq!(b.code(&TABLE.replace("STREAMING", "OR REPLACE STREAMING")).await, "0A000");
    assert_eq!(b.code(TABLE).await, "42P07");

    b.run("ALTER FLOW big PAUSE").await.unwrap();
    assert_eq!(definition(&b, DefinitionKind::Flow, &flow.name).await.unwrap().properties["paused"], "true");
    b.run("ALTER STREAMING TABLE big SET (commit_interval = '7 s', memory = '64 MB')").await.unwrap();
    let text = definition(&b, DefinitionKind::Flow, &flow.name).await.unwrap().sql;
    assert!(text.contains("commit_interval = '7 s'") && text.contains("memory = '64 MB'"), "{text}");
    b.run("ALTER FLOW big RESET (memory)").await.unwrap();
    let changed = definition(&b, DefinitionKind::Flow, &flow.name).await.unwrap();
    assert!(!changed.sql.contains("memory") && changed.id == flow.id, "{}", changed.sql);
    assert_eq!(b.code("ALTER FLOW big SET (commit_intervall = '7 s')").await, "22023");
    assert_eq!(b.code("ALTER FLOW big SET (start = 'now')").await, "0A000");
    assert_eq!(b.code("ALTER FLOW t PAUSE").await, "42809");
    assert_eq!(b.code("ALTER FLOW nope PAUSE").await, "42704");
    b.run("ALTER FLOW big RESUME").await.unwrap();
    assert!(!definition(&b, DefinitionKind::Flow, &flow.name).await.unwrap().properties.contains_key("paused"));

    assert_eq!(b.code("DROP STREAM s").await, "2BP01");
    assert_eq!(b.code("CREATE OR REPLACE STREAM s WITH (connection = 'k', topic = 'x')").await, "2BP01");
    assert_eq!(b.code("DROP TABLE big").await, "42809");
    assert_eq!(b.code("DROP FLOW big").await, "42809");
    assert_eq!(b.code("DROP TABLE system.dlq.s").await, "2BP01");
    b.run("DROP STREAMING TABLE big").await.unwrap();
    assert!(definition(&b, DefinitionKind::Flow, &flow.name).await.is_none());
    assert!(b.engine.supervisor().status(flow.id).is_none());
    assert_eq!(b.code("SELECT * FROM big").await, "42P01");

    b.run(TABLE).await.unwrap();
    b.run("DROP STREAMING TABLE big KEEP DATA").await.unwrap();
    assert_eq!(b.rows("SHOW TABLES LIKE 'big'").await, [["public", "big", "table"]]);
    b.run("DROP TABLE big").await.unwrap();
    b.run(TABLE).await.unwrap();
    b.run("DROP STREAM s CASCADE").await.unwrap();
    assert!(b.rows("SHOW FLOWS").await.is_empty());
    // Without rows there is nothing to keep.
    assert!(b.engine.lake().load_table(&TableName::new("system", "dlq", "s")).await.is_err());
}

#[tokio::test]
async fn what_fails_leaves_nothing_behind() {
    let mut b = Bench::new().await;
    for (text, code) in [
        ("CREATE STREAMING TABLE x PARTITIONED BY (days(nope)) AS SELECT ts FROM STREAM s", "42703"),
        ("CREATE STREAMING TABLE x AS SELECT nope FROM STREAM s", "42703"),
        ("CREATE STREAMING TABLE x AS SELECT count(*) AS n FROM STREAM s", "0A000"),
        ("CREATE STREAMING TABLE x WITH (commit_intervall = '1 s') AS SELECT ts FROM STREAM s", "22023"),
        ("CREATE STREAMING TABLE x AS SELECT ts FROM STREAM nope", "42P01"),
        ("CREATE STREAMING TABLE nope.x AS SELECT ts FROM STREAM s", "3F000"),
    ] {
        assert_eq!(b.code(text).await, code, "{text}");
    }
    assert!(b.rows("SHOW FLOWS").await.is_empty());
    assert_eq!(b.rows("SHOW TABLES").await, [["public", "t", "table"]]);
    assert!(b.engine.lake().load_table(&TableName::new("system", "dlq", "s")).await.is_err());
}

#[tokio::test]
async fn schemas() {
    let mut b = Bench::new().await;
    b.run("CREATE SCHEMA silver").await.unwrap();
    assert_eq!(b.code("CREATE SCHEMA silver").await, "42P06");
    b.run("CREATE SCHEMA IF NOT EXISTS silver").await.unwrap();
    assert_eq!(b.code("CREATE SCHEMA pg_x").await, "42939");
    b.run(&TABLE.replace("TABLE big", "TABLE silver.big")).await.unwrap();
    b.run("CREATE STREAM silver.s2 WITH (connection = 'k', topic = 'x')").await.unwrap();
    assert_eq!(b.code("DROP SCHEMA silver").await, "2BP01");
    b.run("DROP SCHEMA silver CASCADE").await.unwrap();
    assert_eq!(b.code("DROP SCHEMA silver").await, "3F000");
    b.run("DROP SCHEMA IF EXISTS silver").await.unwrap();
    assert_eq!(b.code("DROP SCHEMA public").await, "2BP01");
    assert!(b.rows("SHOW FLOWS").await.is_empty());
}
