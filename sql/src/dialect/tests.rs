#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::time::Duration;

use proptest::prelude::*;
use sqlparser::ast as sql;
use tidewater_catalogs::{OnError, PartitionField, StartPosition, StreamFormat, Transform};

use super::options::{OptionEntry, parse_duration, parse_size};
use super::stream_options::StartOption;
use super::*;
use crate::SqlError;

fn one(text: &str) -> Statement {
    let mut all = parse(text).unwrap_or_else(|e| panic!("{text}: {e} {:?}", e.detail));
    assert_eq!(all.len(), 1, "{text}");
    all.pop().unwrap().statement
}

fn fails(text: &str) -> SqlError {
    parse(text).err().unwrap_or_else(|| panic!("{text} should fail"))
}

/// Streams in FROM, as PLAN finds them.
fn markers(text: &str) -> Vec<String> {
    use std::ops::ControlFlow;
    struct V(Vec<String>);
    impl sql::Visitor for V {
        type Break = ();
        fn pre_visit_table_factor(&mut self, factor: &sql::TableFactor) -> ControlFlow<()> {
            self.0.extend(stream_marker(factor).map(|n| n.to_string()));
            ControlFlow::Continue(())
        }
    }
    let mut v = V(Vec::new());
    let query = match one(text) {
        Statement::Sql(s) => *s,
        Statement::CreateStreamingTable(s) => sql::Statement::Query(s.query),
        other => panic!("{other:?}"),
    };
    let _ = walk(&query, &mut v);
    v.0
}

#[test]
fn splits_texts() {
    let all = parse("  SELECT 1 ; -- done\n\n;; SELECT 'a;b'\n").unwrap();
    assert_eq!(
        all.iter().map(|s| (s.text.as_str(), s.offset)).collect::<Vec<_>>(),
        [("SELECT 1", 2), ("SELECT 'a;b'", 25)]
    );
    assert!(parse(" -- nothing\n ; /* nor here */").unwrap().is_empty());
    assert!(parse("").unwrap().is_empty());
    let all = parse("SELECT $$ ; $$; SELECT 2").unwrap();
    assert_eq!(all.len(), 2);
}

#[test]
fn positions_count_characters_from_one() {
    let e = fails("SELECT 1;\nSELECT 'ä' FROM x y z");
    assert_eq!((e.state.0, e.message.as_str()), ("42601", "syntax error at or near \"z\""));
    assert_eq!(e.position, Some(31));

    let e = fails("CREATE STREAM s (a BIGINT,) WITH (topic = 't')");
    assert_eq!(e.message, "syntax error at or near \")\"");
    assert_eq!(e.position, Some(27));

    let e = fails("SELECT (1 + ");
    assert_eq!(e.message, "syntax error at end of input");
    assert_eq!(e.position, Some(12));

    let e = fails("SELEC 1");
    assert_eq!((e.message.as_str(), e.position), ("syntax error at or near \"SELEC\"", Some(1)));

    let e = fails("SELECT 1;\n\n SELECT 'abc");
    assert_eq!((e.message.as_str(), e.position), ("unterminated quoted string", Some(20)));
    assert_eq!(fails("SELECT \"abc").message, "unterminated quoted identifier");
    assert_eq!(fails("SELECT /* abc").message, "unterminated /* comment");

    // Spans inside a statement count from its own beginning.
    let all = parse("SELECT 1;\n  SELECT\n a").unwrap();
    let Statement::Sql(s) = &all[1].statement else { panic!() };
    let sql::Statement::Query(q) = s.as_ref() else { panic!() };
    let sql::SetExpr::Select(select) = q.body.as_ref() else { panic!() };
    let sql::SelectItem::UnnamedExpr(sql::Expr::Identifier(a)) = &select.projection[0] else { panic!() };
    assert_eq!(all[1].position(a.span.start), Some(21));
}

#[test]
fn stream_is_a_keyword_in_from() {
    assert_eq!(markers("SELECT * FROM STREAM orders"), ["orders"]);
    assert_eq!(markers("select * from stream lake.public.\"Or ders\" o where o.a > 1"), ["lake.public.\"Or ders\""]);
    assert_eq!(markers("SELECT * FROM STREAM(a.b) x"), ["a.b"]);
    assert_eq!(markers("SELECT * FROM STREAM a JOIN STREAM b ON a.x = b.x, STREAM c"), ["a", "b", "c"]);
    assert_eq!(markers("SELECT a, b FROM (SELECT * FROM STREAM t) x UNION ALL SELECT 1, 2 FROM STREAM u"), ["t", "u"]);
    assert_eq!(markers("WITH x AS (SELECT * FROM STREAM t WHERE y) SELECT * FROM x"), ["t"]);
    // Words that begin an expression, or that sqlparser alone reserves.
    for name in ["user", "date", "sample", "start", "format", "values", "current_date"] {
        assert_eq!(markers(&format!("SELECT * FROM STREAM {name} WHERE a > 1")), [name]);
    }
    assert_eq!(markers("CREATE STREAMING TABLE t AS SELECT a FROM STREAM s AS x"), ["s"]);
}

#[test]
fn stream_is_a_name_elsewhere() {
    for text in [
        "SELECT * FROM stream",
        "SELECT * FROM stream WHERE a = 1",
        "SELECT * FROM stream AS x",
        "SELECT * FROM \"stream\" x",
        "SELECT * FROM a.stream x",
        "SELECT 1, stream x FROM t",
        "SELECT stream FROM t",
        "SELECT extract(year FROM stream) FROM t",
        "SELECT a IS DISTINCT FROM stream FROM t",
        "SELECT * FROM t ORDER BY a, stream desc",
        "SELECT * FROM x JOIN stream ON x.a = stream.a",
        "SELECT secret, connection, flow, watermark, emit, topic, subscribe FROM streaming",
        "INSERT INTO stream VALUES (1, 2)",
        "DELETE FROM stream WHERE a",
    ] {
        let Statement::Sql(s) = one(text) else { panic!("{text}") };
        assert_eq!(s.to_string().to_lowercase().matches("stream(").count(), 0, "{text}");
    }
    assert!(markers("SELECT * FROM stream WHERE a = 1").is_empty());
    let create = one("CREATE STREAM stream (stream TEXT, watermark INT, connection TEXT) WITH (topic = 'x')");
    assert!(matches!(create, Statement::CreateStream(_)));
}

#[test]
fn marked_queries_print_and_parse() {
    let text = "SELECT a.x, b.y FROM STREAM s a JOIN STREAM \"T u\" b ON a.k = b.k WHERE a.x > 1";
    let Statement::Sql(first) = one(text) else { panic!() };
    let Statement::Sql(second) = one(&first.to_string()) else { panic!() };
    assert_eq!(first, second);
}

#[test]
fn names_with_dollars() {
    let Statement::Sql(s) = one("SELECT * FROM t$committed, \"t$live\"") else { panic!() };
    assert!(s.to_string().contains("t$committed"));
}

#[test]
fn secrets() {
    let Statement::CreateSecret(s) = one("CREATE SECRET IF NOT EXISTS Kafka_PW AS 'hunter2'") else { panic!() };
    assert_eq!((s.name.last(), s.if_not_exists), ("kafka_pw", true));
    assert_eq!(s.from, SecretFrom::Literal(SecretText("hunter2".into())));
    let Statement::CreateSecret(s) = one("CREATE SECRET a FROM ENV 'A'") else { panic!() };
    assert_eq!(s.to_string(), "CREATE SECRET a FROM ENV 'A'");
    let Statement::CreateSecret(s) = one("create or replace secret a from file '/x'") else { panic!() };
    assert_eq!(s.to_string(), "CREATE OR REPLACE SECRET a FROM FILE '/x'");
    assert!(matches!(one("ALTER SECRET a AS 'b'"), Statement::AlterSecret(_)));
    assert_eq!(fails("CREATE SECRET a FROM VAULT 'x#y'").state.0, "0A000");
}

#[test]
fn secret_values_appear_nowhere() {
    for text in [
        "CREATE SECRET a AS 'hunter2'",
        "ALTER SECRET a AS 'hunter2'",
        "EXPLAIN CREATE SECRET a AS 'hunter2'",
        "CREATE SECRET a AS $$hunter2$$",
    ] {
        let all = parse(text).unwrap();
        assert!(!format!("{all:?}").contains("hunter2"), "{text}");
        assert!(!all[0].log_text().contains("hunter2"), "{text}");
    }
    for text in [
        "CREATE SECRET a 'hunter2'",
        "CREATE SECRET a AS 'x' 'hunter2'",
        "CREATE SECRET a AS 'hunter2",
        "ALTER SECRET a 'hunter2'",
        "CREATE SECRET a FROM 'hunter2'",
        "CREATE CONNECTION k TO KAFKA WITH (brokers = 'x', password = 'hunter2')",
        "CREATE CONNECTION k TO KAFKA WITH (brokers = 'x' 'hunter2')",
        "ALTER CONNECTION k SET (password = 'hunter2')",
        "CREATE CONNECTION k TO KAFKA WITH (properties = '{\"sasl.password\": \"hunter2\"}')",
    ] {
        let e = fails(text);
        assert!(!format!("{e:?}").contains("hunter2"), "{text}: {e:?}");
    }
}

#[test]
fn connections() {
    let text = "CREATE CONNECTION kafka_main TO KAFKA WITH (brokers = 'b1:9092', password = SECRET pw, \
                validate = false, timeout = 10, properties = '{\"fetch.max.bytes\": 1}')";
    let Statement::CreateConnection(c) = one(text) else { panic!() };
    assert_eq!(c.kind, "kafka");
    assert_eq!(c.options.get("password"), Some(&OptionValue::Secret(Name::bare("pw"))));
    assert_eq!(c.options.get("timeout"), Some(&OptionValue::Number("10".into())));
    assert_eq!(one(&c.to_string()), Statement::CreateConnection(c));
    assert_eq!(fails("CREATE CONNECTION sr TO SCHEMA_REGISTRY WITH (url = 'x')").state.0, "0A000");
    assert!(matches!(one("VALIDATE CONNECTION k"), Statement::ValidateConnection(_)));
    let Statement::AlterConnection(a) = one("ALTER CONNECTION k RESET (timeout, security)") else { panic!() };
    assert_eq!(a.reset, ["timeout", "security"]);
    let e = fails("CREATE CONNECTION k TO KAFKA WITH (a = 1, A = 2)");
    assert_eq!((e.state.0, e.position), ("42601", Some(43)));
}

const STREAM: &str = "CREATE STREAM orders_raw (
  order_id   BIGINT NOT NULL,
  amount     NUMERIC(12,2),
  payload    JSON,
  tags       TEXT[],
  created_at TIMESTAMPTZ,
  \"User\"   TEXT,
  ts         TIMESTAMPTZ GENERATED ALWAYS AS (coalesce(created_at, _timestamp)),
  region     TEXT METADATA FROM 'header.region'
) WITH (connection = 'kafka_main', topic = 'orders', format = 'json', start = '7 d', on_error = 'skip')";

#[test]
fn streams() {
    let Statement::CreateStream(s) = one(STREAM) else { panic!() };
    assert!(!s.infer);
    assert_eq!(s.columns.len(), 8);
    assert!(s.columns[0].not_null);
    assert_eq!(s.columns[5].name, "User");
    let ColumnSource::Generated { text, .. } = &s.columns[6].source else { panic!() };
    assert_eq!(text, "coalesce(created_at, _timestamp)");
    assert_eq!(s.columns[7].source, ColumnSource::Metadata("header.region".into()));
    assert_eq!(one(&s.to_string()), Statement::CreateStream(s.clone()));
    let o = StreamOptions::read(&s.options, "orders_raw").unwrap();
    assert_eq!((o.connection.as_str(), o.topic.as_str()), ("kafka_main", "orders"));
    assert_eq!((o.format, o.on_error, o.validate), (StreamFormat::Json, OnError::Skip, true));
    assert_eq!(o.start.resolve(8 * 86_400_000), StartPosition::Timestamp(86_400_000));

    let commented = "CREATE STREAM s (a INT GENERATED ALWAYS AS (b + 1 -- why
        ) NOT NULL)";
    let Statement::CreateStream(s) = one(commented) else { panic!() };
    assert!(matches!(&s.columns[0].source, ColumnSource::Generated { text, .. } if text == "b + 1"));

    let Statement::CreateStream(s) = one("CREATE OR REPLACE STREAM s WITH (connection = 'k', topic = 't')") else {
        panic!()
    };
    assert!(s.infer && s.or_replace && s.columns.is_empty());
    assert_eq!(one(&s.to_string()), Statement::CreateStream(s));
    let Statement::CreateStream(s) = one("CREATE STREAM s (*, d DATE GENERATED ALWAYS AS (ts::date)) WITH (a = 'b')")
    else {
        panic!()
    };
    assert!(s.infer);
    assert_eq!(one(&s.to_string()), Statement::CreateStream(s));

    assert_eq!(fails("CREATE STREAM s (a INT, A TEXT)").state.0, "42701");
    assert_eq!(fails("CREATE STREAM s (a INT, *)").state.0, "42601");
    assert_eq!(fails("CREATE OR REFRESH STREAM s").state.0, "42601");
    assert_eq!(fails("CREATE OR REPLACE STREAM IF NOT EXISTS s").state.0, "42601");
}

#[test]
fn streaming_tables() {
    let text = "CREATE OR REFRESH STREAMING TABLE lake.silver.orders (order_id BIGINT NOT NULL, ts TIMESTAMPTZ)
        PARTITIONED BY (days(ts), bucket(16, order_id), truncate(name, 4), region)
        COMMENT 'it''s' TBLPROPERTIES ('write.parquet.compression-codec' = 'zstd')
        WITH (commit_interval = '10 s', target_file_size = '64 MB', parallelism = 8, start = 'now')
        AS SELECT order_id, ts -- both
           FROM STREAM orders_raw WHERE ts > now()";
    let Statement::CreateStreamingTable(s) = one(text) else { panic!() };
    assert_eq!(s.mode, CreateMode::OrRefresh);
    assert_eq!(
        s.partition_by,
        [
            PartitionField { column: "ts".into(), transform: Transform::Day },
            PartitionField { column: "order_id".into(), transform: Transform::Bucket(16) },
            PartitionField { column: "name".into(), transform: Transform::Truncate(4) },
            PartitionField { column: "region".into(), transform: Transform::Identity },
        ]
    );
    assert_eq!(s.comment.as_deref(), Some("it's"));
    assert!(s.query_text.starts_with("SELECT order_id, ts -- both"));
    assert!(s.query_text.ends_with("ts > now()"));
    assert_eq!(one(&s.to_string()), Statement::CreateStreamingTable(s.clone()));
    let o = FlowOptions::read(&s.options, "streaming table \"orders\"").unwrap();
    assert_eq!(o.commit_interval, Some(Duration::from_secs(10)));
    assert_eq!(o.target_file_size, Some(64 << 20));
    assert_eq!(o.start, Some(StartOption::At(StartPosition::Latest)));

    let e = fails("CREATE STREAMING TABLE t PARTITIONED BY (weeks(ts)) AS SELECT 1");
    assert_eq!((e.state.0, e.position), ("22023", Some(42)));
    assert_eq!(fails("CREATE STREAMING TABLE t PARTITIONED BY (bucket(0, a)) AS SELECT 1").state.0, "22023");
    assert_eq!(fails("CREATE STREAMING TABLE t TBLPROPERTIES ('tidewater.x' = '1') AS SELECT 1").state.0, "22023");
    assert_eq!(fails("CREATE STREAMING TABLE t").message, "syntax error at end of input");
}

#[test]
fn plain_tables() {
    let text = "CREATE TABLE IF NOT EXISTS t (a INT PRIMARY KEY, b TEXT) PARTITIONED BY (days(a)) COMMENT 'x'";
    let Statement::CreateTable(t) = one(text) else { panic!() };
    assert_eq!((t.columns.len(), t.partition_by.len(), t.query.is_none()), (2, 1, true));
    let Statement::CreateTable(t) = one("CREATE TABLE t AS SELECT * FROM x WITH NO DATA") else { panic!() };
    assert!(t.no_data && t.query.is_some());
    assert!(matches!(one("CREATE TEMP TABLE t (a INT)"), Statement::Sql(_)));
    assert!(matches!(one("CREATE SCHEMA IF NOT EXISTS lake.s"), Statement::CreateSchema(_)));
}

#[test]
fn orders_of_writing() {
    let order = |text: &str| match one(&format!("CREATE TABLE t (a INT, b INT) {text}")) {
        Statement::CreateTable(t) => t.write_order.unwrap(),
        other => panic!("{other:?}"),
    };
    for (text, canonical, property) in [
        ("WRITE ORDERED BY a", "WRITE ORDERED BY (a ASC NULLS FIRST)", Some("range")),
        (
            "WRITE ORDERED BY (a DESC, days(b) NULLS LAST)",
            "WRITE ORDERED BY (a DESC NULLS LAST, days(b) ASC NULLS LAST)",
            Some("range"),
        ),
        (
            "WRITE LOCALLY ORDERED BY (bucket(4, a) ASC)",
            "WRITE LOCALLY ORDERED BY (bucket(4, a) ASC NULLS FIRST)",
            None,
        ),
        ("WRITE DISTRIBUTED BY PARTITION", "WRITE DISTRIBUTED BY PARTITION", Some("hash")),
        (
            "WRITE DISTRIBUTED BY PARTITION LOCALLY ORDERED BY b",
            "WRITE DISTRIBUTED BY PARTITION LOCALLY ORDERED BY (b ASC NULLS FIRST)",
            Some("hash"),
        ),
        ("WRITE UNORDERED", "WRITE UNORDERED", Some("none")),
    ] {
        let read = order(text);
        assert_eq!(read.to_string(), canonical);
        assert_eq!(read.property().map(|(_, mode)| mode).as_deref(), property);
        assert_eq!(order(canonical), read);
        let Statement::AlterTable(alter) = one(&format!("ALTER TABLE t {text}")) else { panic!() };
        assert_eq!(alter.alterations.last(), Some(&tidewater_catalogs::Alteration::SetSortOrder(read.sort_by.clone())));
        let streaming = one(&format!("CREATE STREAMING TABLE s {text} AS SELECT a FROM STREAM x"));
        let Statement::CreateStreamingTable(s) = &streaming else { panic!() };
        assert_eq!(s.write_order.as_ref(), Some(&read));
        assert_eq!(one(&s.to_string()), streaming);
    }
    for text in ["WRITE", "WRITE LOCALLY", "WRITE ORDERED BY ()", "WRITE DISTRIBUTED BY PARTITION LOCALLY"] {
        assert_eq!(fails(&format!("ALTER TABLE t {text}")).state.0, "42601", "{text}");
    }
    let Statement::Optimize(o) = one("OPTIMIZE t WHERE a > 1 ZORDER BY (a, b) DRY RUN") else { panic!() };
    assert_eq!(o.order, Some(tidewater_catalogs::RowOrder::Curve(vec!["a".into(), "b".into()])));
    assert!(o.filter.is_some() && o.dry_run);
    assert_eq!(fails("OPTIMIZE t ZORDER BY (a, b, c, d, e, f, g, h, i)").state.0, "42601");
}

#[test]
fn alter_and_drop() {
    for (text, action) in [
        ("ALTER FLOW f PAUSE", AlterFlowAction::Pause),
        ("ALTER STREAMING TABLE a.f SUSPEND", AlterFlowAction::Pause),
        ("ALTER FLOW IF EXISTS f RESUME", AlterFlowAction::Resume),
        ("ALTER FLOW f RESET (memory)", AlterFlowAction::Reset(vec!["memory".into()])),
    ] {
        let Statement::AlterFlow(a) = one(text) else { panic!("{text}") };
        assert_eq!(a.action, action, "{text}");
    }
    let Statement::AlterFlow(a) = one("ALTER FLOW f SET (commit_interval = '10 s')") else { panic!() };
    assert!(matches!(a.action, AlterFlowAction::Set(o) if o.get("commit_interval").is_some()));
    let Statement::Drop(d) = one("DROP STREAMING TABLE IF EXISTS a, b.c KEEP DATA") else { panic!() };
    assert_eq!((d.names.len(), d.keep_data, d.if_exists), (2, true, true));
    let Statement::Drop(d) = one("DROP TABLE t CASCADE") else { panic!() };
    assert!(d.cascade);
    assert!(matches!(one("DROP VIEW v"), Statement::Sql(_)));
    assert_eq!(fails("ALTER STREAMING TABLE t ADD COLUMN a INT").state.0, "0A000");
    assert_eq!(fails("ALTER STREAM s REFRESH SCHEMA").state.0, "0A000");
    assert_eq!(fails("DROP TABLE t KEEP DATA").state.0, "42601");
}

#[test]
fn show_describe_explain() {
    let Statement::Show(s) = one("SHOW STREAMING TABLES LIKE 'o%'") else { panic!() };
    assert_eq!((s.what, s.like.as_deref()), (ShowWhat::StreamingTables, Some("o%")));
    assert!(matches!(one("SHOW search_path"), Statement::Sql(_)));
    assert!(matches!(one("SHOW TRANSACTION ISOLATION LEVEL"), Statement::Sql(_)));
    let Statement::ShowCreate(s) = one("SHOW CREATE STREAMING TABLE a.b") else { panic!() };
    assert_eq!(s.kind, ObjectKind::StreamingTable);
    let Statement::Describe(d) = one("DESCRIBE EXTENDED orders") else { panic!() };
    assert_eq!((d.extended, d.kind, d.name), (true, None, Name::bare("orders")));
    let Statement::Describe(d) = one("DESC stream") else { panic!() };
    assert_eq!((d.extended, d.kind, d.name), (false, None, Name::bare("stream")));
    let Statement::Describe(d) = one("DESCRIBE STREAM orders") else { panic!() };
    assert_eq!(d.kind, Some(ObjectKind::Stream));
    let text = "DESCRIBE STREAM INFERRED FROM CONNECTION k TOPIC 'x' WITH (infer_rows = 10)";
    let Statement::DescribeInferred(d) = one(text) else { panic!() };
    assert_eq!(InferOptions::read(&d.options).unwrap().infer_rows, 10);

    let Statement::Explain(e) = one("EXPLAIN (ANALYZE, VERBOSE true, FORMAT json) SELECT 1") else { panic!() };
    assert!(e.analyze && e.verbose && e.format == "json");
    let Statement::Explain(e) = one("EXPLAIN (DRY RUN) CREATE STREAMING TABLE t AS SELECT 1") else { panic!() };
    assert!(e.dry_run);
    assert!(matches!(e.target, ExplainTarget::Statement(s) if matches!(*s, Statement::CreateStreamingTable(_))));
    let Statement::Explain(e) = one("EXPLAIN ANALYZE FLOW f") else { panic!() };
    assert_eq!(e.target, ExplainTarget::Flow(Name::bare("f")));
    assert!(matches!(one("EXPLAIN (SELECT 1)"), Statement::Explain(_)));
    assert!(matches!(one("EXPLAIN VERBOSE SELECT 1"), Statement::Explain(_)));
    assert_eq!(fails("EXPLAIN (FAST) SELECT 1").state.0, "42601");
}

#[test]
fn later_and_foreign_words_are_refused_with_a_hint() {
    for text in [
        "CREATE FLOW f AS INSERT INTO a SELECT * FROM STREAM b",
        "CREATE OR REPLACE FLOW f AS MERGE INTO t USING STREAM s ON a = b WHEN MATCHED THEN DELETE",
        "CREATE FLOW cdc AS AUTO CDC INTO t FROM STREAM s KEYS (id) SEQUENCE BY (ts)",
        "CREATE STREAMING TABLE t FLOW AUTO CDC FROM STREAM s KEYS (id)",
        "CREATE STREAMING TABLE t CLONE u",
        "CREATE STREAMING TABLE t (a INT, PRIMARY KEY (a)) AS SELECT 1",
        "CREATE STREAMING TABLE t (a INT PRIMARY KEY) AS SELECT 1",
        "CREATE STREAMING TABLE t (a INT, CONSTRAINT p EXPECT (a > 0) ON VIOLATION DROP ROW) AS SELECT 1",
        "CREATE STREAMING TABLE t (a INT MASK m) AS SELECT 1",
        "CREATE STREAMING TABLE t CLUSTER BY (a) AS SELECT 1",
        "CREATE STREAMING TABLE t AS SELECT 1 FROM STREAM s EMIT ON WINDOW CLOSE",
        "CREATE STREAMING TABLE t AS SELECT count(*) FROM TUMBLE(STREAM s, DESCRIPTOR(ts), INTERVAL '1 minute')",
        "SELECT * FROM HOP(STREAM s, ts, INTERVAL '1 minute', INTERVAL '1 hour')",
        "SELECT * FROM s WINDOW TUMBLING (SIZE 1 HOUR)",
        "SELECT * FROM s EMIT CHANGES",
        "SELECT * FROM a ASOF JOIN b MATCH_CONDITION (a.t >= b.t) ON a.id = b.id",
        "SELECT * FROM t FOR OFFSETS AS OF SNAPSHOT OF x",
        "CREATE STREAM s (a INT, WATERMARK FOR a AS a - INTERVAL '5 seconds')",
        "CREATE STREAM s (a INT, PRIMARY KEY (a))",
        "CREATE STREAM s (a VARIANT)",
        "CREATE SOURCE s WITH (a = 'b')",
        "CREATE SINK s FROM x",
        "CREATE MATERIALIZED VIEW v AS SELECT 1",
        "CREATE OR REPLACE MATERIALIZED VIEW v AS SELECT 1",
        "CREATE DYNAMIC TABLE v AS SELECT 1",
        "CREATE TOPIC t",
        "CREATE TASK t SCHEDULE EVERY INTERVAL '1 hour' AS SELECT 1",
        "SHOW TASKS",
        "SUBSCRIBE (SELECT * FROM STREAM s) ENVELOPE CHANGES",
        "SUBSCRIBE (SELECT * FROM STREAM s) UNTIL TIMESTAMP '2026-01-01'",
        "COPY (SUBSCRIBE (SELECT 1)) TO '/tmp/x'",
        "COPY (SELECT 1) TO STDOUT WITH (FORMAT csv)",
        "DECLARE c CURSOR FOR SUBSCRIBE (SELECT 1)",
        "REFRESH STREAMING TABLE t FULL",
        "ROLLBACK STREAMING TABLE t TO SNAPSHOT 1",
        "VERIFY STREAMING TABLE t",
        "REPLAY DLQ s WHERE _offset IN (SELECT 1)",
        "VACUUM FULL t",
        "ALTER TABLE t RENAME TO u",
        "ALTER TABLE t ADD COLUMN a INT NOT NULL, DROP COLUMN b",
        "ALTER TABLE t ADD PRIMARY KEY (a)",
        "DESCRIBE HISTORY t",
        "CANCEL QUERY 1",
    ] {
        let e = fails(text);
        assert_eq!(e.state.0, "0A000", "{text}: {e:?}");
        assert!(e.hint.as_ref().is_some_and(|h| h.ends_with(['.', '…']) || h.contains("SELECT")), "{text}: {e:?}");
        assert!(e.position.is_some(), "{text}");
    }
    assert!(fails("SELECT 1 FROM s EMIT CHANGES").hint.unwrap().contains("SUBSCRIBE"));
}

#[test]
fn tables_are_altered_and_kept_in_order() {
    use tidewater_catalogs::{Alteration as A, ColumnPlace, PartitionRef, Transform};
    let alter = |text: &str| match one(text) {
        Statement::AlterTable(a) => *a,
        other => panic!("{text}: {other:?}"),
    };
    let path = |text: &str| text.split('.').map(str::to_owned).collect::<Vec<_>>();
    let several = alter("alter table if exists s.t add column a.element.\"B\" bigint after c, drop d, rename e to f");
    assert!(several.if_exists);
    assert_eq!(several.name.0, ["s", "t"]);
    let [A::AddColumn(add), A::DropColumn { path: dropped, if_exists: false }, A::RenameColumn { path: from, to }] =
        several.alterations.as_slice()
    else {
        panic!("{several:?}")
    };
    assert_eq!((&add.path, &add.place), (&path("a.element.B"), &Some(ColumnPlace::After("c".to_owned()))));
    assert_eq!((dropped, from, to.as_str()), (&path("d"), &path("e"), "f"));
    let replace = alter("ALTER TABLE t REPLACE PARTITION FIELD days(ts) WITH hours(ts) AS h");
    let [A::ReplacePartition { old: PartitionRef::Field(old), new }] = replace.alterations.as_slice() else {
        panic!("{replace:?}")
    };
    assert_eq!((old.transform, new.field.transform, new.name.as_deref()), (Transform::Day, Transform::Hour, Some("h")));
    let comment = alter("COMMENT ON COLUMN s.t.c IS 'x'");
    assert_eq!((comment.tag, comment.name.0.as_slice()), ("COMMENT", ["s".to_owned(), "t".to_owned()].as_slice()));
    for text in [
        "ALTER TABLE t",
        "ALTER TABLE t ADD",
        "ALTER TABLE t ADD COLUMN a INT,",
        "ALTER TABLE t ALTER c",
        "OPTIMIZE",
        "VACUUM t RETAIN",
    ] {
        assert_eq!(fails(text).state.0, "42601", "{text}");
    }
    assert_eq!(fails("ALTER TABLE t UNSET TBLPROPERTIES ('tidewater.x.head')").state.0, "22023");
    assert!(matches!(one("OPTIMIZE t WHERE a > 1 DRY RUN"), Statement::Optimize(o) if o.dry_run && o.filter.is_some()));
    let retain = |text: &str| match one(text) {
        Statement::Vacuum(v) => v.retain,
        other => panic!("{text}: {other:?}"),
    };
    assert_eq!(retain("VACUUM t"), None);
    assert_eq!(retain("VACUUM t RETAIN 5 SNAPSHOTS"), Some(RetainFor::Snapshots(5)));
    assert_eq!(retain("VACUUM t RETAIN 168 HOURS DRY RUN"), Some(RetainFor::Age("168 hours".to_owned())));
}

#[test]
fn subscribe_says_where_it_begins_and_ends() {
    let subscribe = |text: &str| match one(text) {
        Statement::Subscribe(s) => *s,
        other => panic!("{text}: {other:?}"),
    };
    let offsets = |o: &[(i32, i64)]| o.iter().copied().collect::<tidewater_catalogs::Offsets>();
    let plain = subscribe("SUBSCRIBE (SELECT a FROM STREAM s WHERE a > 1)");
    assert_eq!((plain.from, plain.until), (SubscribeFrom::Now, None));
    assert_eq!(plain.query.to_string(), "SELECT a FROM STREAM(s) WHERE a > 1");
    let bounded = subscribe("subscribe (SELECT * FROM STREAM s) from snapshot until limit 10");
    assert_eq!((bounded.from, bounded.until), (SubscribeFrom::Snapshot, Some(SubscribeUntil::Limit(10))));
    let ranged =
        subscribe(r#"SUBSCRIBE (SELECT * FROM STREAM s) FROM OFFSETS '{"0": 17, "1": 4}' UNTIL OFFSETS '{"0": 20}'"#);
    assert_eq!(ranged.from, SubscribeFrom::Offsets(offsets(&[(0, 17), (1, 4)])));
    assert_eq!(ranged.until, Some(SubscribeUntil::Offsets(offsets(&[(0, 20)]))));
    for text in ["COPY (SUBSCRIBE (SELECT 1 FROM STREAM s) FROM NOW) TO STDOUT", "COPY (SELECT 1) TO STDOUT"] {
        assert!(matches!(one(text), Statement::CopyOut(_)), "{text}");
    }
    for (text, code) in [
        ("SUBSCRIBE SELECT 1", "42601"),
        ("SUBSCRIBE (SELECT 1", "42601"),
        ("SUBSCRIBE (SELECT 1) FROM 3", "42601"),
        ("SUBSCRIBE (SELECT 1) UNTIL LIMIT -1", "42601"),
        ("SUBSCRIBE (SELECT 1) UNTIL LIMIT 1.5", "42601"),
        ("SUBSCRIBE (SELECT 1) FROM OFFSETS '{}'", "22023"),
        ("SUBSCRIBE (SELECT 1) FROM OFFSETS '{\"x\": 1}'", "22023"),
        ("SUBSCRIBE (SELECT 1) FROM OFFSETS '{\"0\": -1}'", "22023"),
        ("SUBSCRIBE (SELECT 1) UNTIL LIMIT 1 FROM NOW", "42601"),
    ] {
        let e = fails(text);
        assert_eq!(e.state.0, code, "{text}: {e:?}");
    }
}

#[test]
fn options_are_checked() {
    let stream = |with: &str| {
        let Statement::CreateStream(s) = one(&format!("CREATE STREAM s WITH ({with})")) else { panic!() };
        StreamOptions::read(&s.options, "s")
    };
    let e = stream("connection = 'k', topic = 't', on_eror = 'dlq'").unwrap_err();
    assert_eq!(e.state.0, "22023");
    assert!(e.hint.as_ref().unwrap().contains("Perhaps you meant \"on_error\""), "{e:?}");
    let e = stream("connection = 'k', topic = 't', start = 'first'").unwrap_err();
    assert_eq!(e.message, "invalid value for option \"start\" of stream \"s\": \"first\"");
    assert!(e.hint.is_some());
    let e = stream("connection = 'k', topic = 't', on_error = 'drop'").unwrap_err();
    assert_eq!(e.hint.as_deref(), Some("Use \"dlq\", \"fail\" or \"skip\"."));
    assert_eq!(stream("connection = 'k'").unwrap_err().state.0, "22023");
    for later in
        ["format = 'avro'", "envelope = 'upsert'", "registry = 'sr'", "topic_pattern = 'x'", "on_error = 'null'"]
    {
        assert_eq!(stream(&format!("connection = 'k', topic = 't', {later}")).unwrap_err().state.0, "0A000", "{later}");
    }
    for (start, position) in [
        ("earliest", StartPosition::Earliest),
        ("latest", StartPosition::Latest),
        ("1970-01-01 00:00:10Z", StartPosition::Timestamp(10_000)),
        ("{\"0\": 10, \"1\": 42}", StartPosition::Offsets([(0, 10), (1, 42)].into_iter().collect())),
    ] {
        let o = stream(&format!("connection = 'k', topic = 't', start = '{start}'")).unwrap();
        assert_eq!(o.start, StartOption::At(position), "{start}");
    }
    for bad in ["{}", "{\"x\": 1}", "{\"0\": -1}", "", "7 x", "1960-01-01"] {
        assert!(stream(&format!("connection = 'k', topic = 't', start = '{bad}'")).is_err(), "{bad}");
    }
    assert!(stream("connection = 'k', topic = 't', partitions = 3").is_err());
    assert_eq!(stream("connection = 'k', topic = 't', partitions = 3, create_topic = true").unwrap().partitions, 3);

    let flow = |with: &str| {
        let text = format!("CREATE STREAMING TABLE t WITH ({with}) AS SELECT 1");
        let Statement::CreateStreamingTable(s) = one(&text) else { panic!() };
        FlowOptions::read(&s.options, "streaming table \"t\"")
    };
    assert_eq!(flow("commit_interval = 5").unwrap_err().state.0, "22023");
    assert_eq!(flow("commit_interval = '1 ms'").unwrap_err().state.0, "22023");
    assert_eq!(flow("parallelism = 0").unwrap_err().state.0, "22023");
    assert_eq!(flow("write_mode = 'mor'").unwrap_err().state.0, "0A000");
    assert_eq!(flow("state_ttl = '1 day'").unwrap_err().state.0, "0A000");
    assert_eq!(flow("nothing_like_it = 1").unwrap_err().state.0, "22023");
}

#[test]
fn durations_and_sizes() {
    for (text, ms) in [
        ("5 s", Some(5000)),
        ("250ms", Some(250)),
        ("1 h 30 min", Some(5_400_000)),
        ("1.5 s", Some(1500)),
        ("7 days", Some(604_800_000)),
        ("5", None),
        ("s", None),
        ("5 parsecs", None),
        ("-5 s", None),
        ("", None),
        ("99999999999999999999 d", None),
    ] {
        assert_eq!(parse_duration(text), ms.map(Duration::from_millis), "{text}");
    }
    for (text, bytes) in [
        ("256 MB", Some(256 << 20)),
        ("1024", Some(1024)),
        ("1.5 kB", Some(1536)),
        ("2GB", Some(2 << 30)),
        ("MB", None),
        ("2 XB", None),
        ("9999999999999 TB", None),
    ] {
        assert_eq!(parse_size(text), bytes, "{text}");
    }
}

#[test]
fn types() {
    use arrow::datatypes::DataType as A;
    let arrow = |text: &str| arrow_type(&super::parse_type(text).unwrap());
    assert_eq!(arrow("BIGINT").unwrap(), A::Int64);
    assert_eq!(arrow("smallint").unwrap(), A::Int32);
    assert_eq!(arrow("double precision").unwrap(), A::Float64);
    assert_eq!(arrow("NUMERIC(12,2)").unwrap(), A::Decimal128(12, 2));
    for refused in ["NUMERIC", "NUMERIC(39, 0)", "NUMERIC(4, 8)", "UUID", "INTERVAL", "CHAR(3)", "money", "TIME(3)"] {
        assert_eq!(arrow(refused).unwrap_err().state.0, "0A000", "{refused}");
    }
    // What inference writes is read back as the same type.
    for t in [
        A::Boolean,
        A::Int32,
        A::Int64,
        A::Float32,
        A::Float64,
        A::Decimal128(38, 9),
        A::Utf8,
        A::Binary,
        A::Date32,
        A::Time64(arrow::datatypes::TimeUnit::Microsecond),
        A::Timestamp(arrow::datatypes::TimeUnit::Microsecond, None),
        A::Timestamp(arrow::datatypes::TimeUnit::Microsecond, Some("+00:00".into())),
    ] {
        assert_eq!(arrow(&type_name(&t).unwrap()).unwrap(), t);
        let list = A::List(std::sync::Arc::new(arrow::datatypes::Field::new("element", t, true)));
        assert_eq!(arrow(&type_name(&list).unwrap()).unwrap(), list);
    }
}

#[test]
fn bounds() {
    let deep = format!("SELECT {}1{}", "(".repeat(500), ")".repeat(500));
    assert_eq!(fails(&deep).state.0, "54001");
    assert_eq!(fails("SELECT 'a\0b'").state.0, "22021");
    assert_eq!(fails(&"SELECT 1;".repeat(10_001)).state.0, "54000");
}

fn ident() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z_][a-z0-9_$]{0,10}",
        "[A-Za-z \"'.éß]{1,8}",
        proptest::sample::select(vec!["select", "stream", "watermark", "primary", "as", "end", "user", "where", "for"])
            .prop_map(str::to_string),
    ]
}

fn value() -> impl Strategy<Value = OptionValue> {
    prop_oneof![
        "[ -~é\n]{0,20}".prop_map(OptionValue::Text),
        any::<i32>().prop_map(|n| OptionValue::Number(n.to_string())),
        any::<bool>().prop_map(OptionValue::Bool),
        ident().prop_map(|n| OptionValue::Secret(Name::bare(n))),
    ]
}

fn options() -> impl Strategy<Value = Options> {
    proptest::collection::btree_map("[a-z][a-z_]{0,12}", value(), 0..5)
        .prop_map(|m| Options(m.into_iter().map(|(name, value)| OptionEntry { name, value }).collect()))
}

fn name() -> impl Strategy<Value = Name> {
    proptest::collection::vec(ident(), 1..4).prop_map(Name)
}

fn sql_type() -> impl Strategy<Value = sql::DataType> {
    proptest::sample::select(vec![
        "BIGINT",
        "TEXT",
        "TIMESTAMPTZ",
        "TIMESTAMP",
        "NUMERIC(12,2)",
        "DOUBLE PRECISION",
        "JSON",
        "BYTEA",
        "INT[]",
        "VARCHAR(3)",
        "DATE",
        "BOOLEAN",
    ])
    .prop_map(|t| parse_type(t).unwrap())
}

fn column() -> impl Strategy<Value = StreamColumnDef> {
    let source = prop_oneof![
        Just(ColumnSource::Value),
        "[ -~]{0,10}".prop_map(ColumnSource::Metadata),
        Just({
            let Statement::CreateStream(s) = one("CREATE STREAM s (a INT GENERATED ALWAYS AS (b -> 'x' + 1))") else {
                panic!()
            };
            s.columns[0].source.clone()
        }),
    ];
    (ident(), sql_type(), any::<bool>(), source).prop_map(|(name, data_type, not_null, source)| StreamColumnDef {
        name,
        data_type,
        not_null,
        source,
    })
}

fn unique<T>(items: Vec<T>, name: impl Fn(&T) -> &str) -> Vec<T> {
    let mut seen = std::collections::BTreeSet::new();
    items.into_iter().filter(|i| seen.insert(name(i).to_string())).collect()
}

proptest! {
    #[test]
    fn streams_round_trip(
        name in name(),
        or_replace in any::<bool>(),
        infer in any::<bool>(),
        columns in proptest::collection::vec(column(), 0..5),
        options in options(),
    ) {
        let columns = unique(columns, |c| c.name.as_str());
        let infer = infer || columns.is_empty();
        let stream = CreateStream { or_replace, if_not_exists: !or_replace, name, infer, columns, options };
        prop_assert_eq!(one(&stream.to_string()), Statement::CreateStream(stream));
    }

    #[test]
    fn connections_round_trip(name in ident(), options in options()) {
        let secretive = |e: &OptionEntry| {
            ["password", "credential", "token", "secret", "private_key", "properties"].iter().any(|w| e.name.ends_with(w))
        };
        prop_assume!(!options.0.iter().any(secretive));
        let c = CreateConnection {
            or_replace: false,
            if_not_exists: false,
            name: Name::bare(name),
            kind: "kafka".into(),
            options,
        };
        prop_assert_eq!(one(&c.to_string()), Statement::CreateConnection(c));
    }

    #[test]
    fn streaming_tables_round_trip(
        name in name(),
        columns in proptest::collection::vec((ident(), sql_type(), any::<bool>()), 0..4),
        fields in proptest::collection::vec((ident(), 0..7usize, 1..1000u32), 0..4),
        comment in proptest::option::of("[ -~]{0,12}"),
        properties in proptest::collection::btree_map("[a-z.-]{1,12}", "[ -~]{0,8}", 0..3),
        options in options(),
    ) {
        let Statement::CreateStreamingTable(mut s) =
            one("CREATE STREAMING TABLE t AS SELECT a, b AS c FROM STREAM x WHERE a > 'y' UNION ALL SELECT 1, 2 FROM STREAM z")
        else {
            panic!()
        };
        s.name = name;
        let columns = columns
            .into_iter()
            .map(|(name, data_type, not_null)| TargetColumnDef { name, data_type, not_null })
            .collect();
        s.columns = unique(columns, |c| c.name.as_str());
        s.partition_by = fields
            .into_iter()
            .map(|(column, kind, n)| PartitionField {
                column,
                transform: [
                    Transform::Identity,
                    Transform::Bucket(n),
                    Transform::Truncate(n),
                    Transform::Year,
                    Transform::Month,
                    Transform::Day,
                    Transform::Hour,
                ][kind],
            })
            .collect();
        s.comment = comment;
        s.properties = properties.into_iter().filter(|(k, _)| !k.starts_with("tidewater.")).collect();
        s.options = options;
        prop_assert_eq!(one(&s.to_string()), Statement::CreateStreamingTable(s));
    }

    #[test]
    fn no_text_panics(text in "[ -~\n'\"é;$(),.]{0,80}") {
        let _ = parse(&text);
    }

    #[test]
    fn no_words_panic(words in proptest::collection::vec(proptest::sample::select(vec![
        "CREATE", "OR", "REPLACE", "STREAM", "STREAMING", "TABLE", "SECRET", "FROM", "ENV", "'x'", "(", ")", ",", ".",
        "WITH", "AS", "SELECT", "*", "a", "\"b\"", "=", "1", "-", "JOIN", "EXPLAIN", "DRY", "RUN", "FLOW", "SHOW",
        "DESCRIBE", "ALTER", "SET", "DROP", "IF", "NOT", "EXISTS", "PARTITIONED", "BY", "bucket", "EMIT", "CHANGES",
        "COPY", "STDIN", ";", "INSERT", "INTO", "WHERE", "UNION",
    ]), 0..25)) {
        let text = words.join(" ");
        if let Err(e) = parse(&text) {
            prop_assert!(e.position.is_none_or(|p| p >= 1 && p <= text.chars().count() + 1), "{text}: {e:?}");
        }
    }
}

#[test]
fn replay_names_a_stream_and_letters() {
    let Statement::ReplayDlq(all) = one("REPLAY DLQ shop.orders") else { panic!() };
    assert_eq!((all.stream.0, all.filter), (vec!["shop".to_owned(), "orders".to_owned()], None));
    let Statement::ReplayDlq(some) = one("replay dlq s where _offset < 5 /* five */ and error like 'x'") else {
        panic!()
    };
    assert_eq!(some.filter.unwrap().text, "_offset < 5 /* five */ and error like 'x'");
    assert_eq!(fails("REPLAY DLQ s WHERE count(*) OVER () = 1").state.0, "42P20");
    assert_eq!(fails("REPLAY DLQ s LIMIT 5").state.0, "42601");
    assert_eq!(fails("REPLAY DLQ").state.0, "42601");
    // The words stay names.
    one("SELECT replay.dlq FROM replay");
}

#[test]
fn versions_stand_behind_the_name_of_a_table() {
    let shown = |text: &str| match one(text) {
        Statement::Sql(sql) => sql.to_string(),
        other => panic!("{text}: {other:?}"),
    };
    for (text, canonical) in [
        ("SELECT * FROM t FOR SYSTEM_VERSION AS OF 5", "SELECT * FROM t VERSION AS OF 5"),
        (
            "select * from a.\"t$files\" for version as of 'b' as x",
            "SELECT * FROM a.\"t$files\" AS x VERSION AS OF 'b'",
        ),
        ("SELECT * FROM t VERSION AS OF 5 x JOIN u ON true", "SELECT * FROM t x VERSION AS OF 5 JOIN u ON true"),
        (
            "SELECT * FROM t /* then */ FOR TIMESTAMP AS OF now() - interval '1 hour' WHERE a",
            "SELECT * FROM t TIMESTAMP AS OF now() - INTERVAL '1 hour' WHERE a",
        ),
        (
            "SELECT (SELECT 1 FROM t FOR SYSTEM_TIME AS OF DATE '2026-01-01'), b FROM s, t TIMESTAMP AS OF 'x'",
            "SELECT (SELECT 1 FROM t TIMESTAMP AS OF DATE '2026-01-01'), b FROM s, t TIMESTAMP AS OF 'x'",
        ),
        ("SELECT version AS of, timestamp AS of FROM t", "SELECT version AS of, timestamp AS of FROM t"),
    ] {
        assert_eq!(shown(text), canonical, "{text}");
    }
    for (text, code) in [
        ("SELECT * FROM t x FOR VERSION AS OF 1", "42601"),
        ("SELECT * FROM (SELECT 1) FOR VERSION AS OF 1", "42601"),
        ("SELECT * FROM t FOR VERSION AS OF", "42601"),
        ("SELECT 1 FOR VERSION AS OF 1", "42601"),
        ("SELECT * FROM STREAM s FOR VERSION AS OF 1", "0A000"),
    ] {
        let e = fails(text);
        assert_eq!(e.state.0, code, "{text}: {e:?}");
        assert!(e.position.is_some(), "{text}");
    }
}

#[test]
fn branches_and_tags_are_altered() {
    use tidewater_catalogs::{Existing, ReferenceChange, ReferenceKind, Retention};
    let change = |text: &str| match one(text) {
        Statement::AlterReference(alter) => (alter.if_exists, alter.table.to_string(), alter.change),
        other => panic!("{text}: {other:?}"),
    };
    let create = |kind, name: &str, snapshot, retention, existing| ReferenceChange::Create {
        kind,
        name: name.to_string(),
        snapshot,
        retention,
        existing,
    };
    let (branch, tag, none) = (ReferenceKind::Branch, ReferenceKind::Tag, Retention::default());
    let week = Retention { max_age_ms: Some(7 * 86_400_000), ..none };
    let kept = Retention { min_snapshots_to_keep: Some(2), max_snapshot_age_ms: Some(3_600_000), ..week };
    for (text, expected) in [
        ("ALTER TABLE t CREATE TAG v1", create(tag, "v1", None, none, Existing::Refused)),
        (
            "alter table t create or replace tag \"V 1\" as of version 5 retain 7 days",
            create(tag, "V 1", Some(5), week, Existing::Replaced),
        ),
        (
            "ALTER TABLE t CREATE BRANCH IF NOT EXISTS b RETAIN 7 DAYS WITH SNAPSHOT RETENTION 2 SNAPSHOTS 1 HOUR",
            create(branch, "b", None, kept, Existing::Kept),
        ),
        ("ALTER TABLE t REPLACE BRANCH b AS OF VERSION 5", create(branch, "b", Some(5), none, Existing::Required)),
        (
            "ALTER TABLE t DROP BRANCH IF EXISTS b",
            ReferenceChange::Drop { kind: branch, name: "b".to_string(), if_exists: true },
        ),
    ] {
        assert_eq!(change(text), (false, "t".to_owned(), expected), "{text}");
    }
    assert_eq!(change("ALTER TABLE IF EXISTS lake.s.t DROP TAG b").1, "lake.s.t");
    // Columns of these names.
    for text in ["ALTER TABLE t DROP branch", "ALTER TABLE t DROP tag CASCADE", "ALTER TABLE t DROP COLUMN tag"] {
        assert!(matches!(parse(text).map(|s| s[0].statement.clone()), Ok(Statement::AlterTable(_))), "{text}");
    }
    for text in [
        "ALTER TABLE t CREATE BRANCH b.c",
        "ALTER TABLE t CREATE TAG v RETAIN 7 WEEKS",
        "ALTER TABLE t CREATE TAG v RETAIN 99999999999999 DAYS",
        "ALTER TABLE t CREATE TAG v AS OF VERSION 1.5",
        "ALTER TABLE t CREATE BRANCH b WITH SNAPSHOT RETENTION 0 SNAPSHOTS",
        "ALTER TABLE t CREATE TAG v nonsense",
        "ALTER TABLE t CREATE TAG \"\"",
    ] {
        assert_eq!(fails(text).state.0, "42601", "{text}");
    }
}

#[test]
fn procedures_take_arguments_by_place_and_by_name() {
    let Statement::Call(call) = one("CALL lake.system.f('t', snapshot_id => -1 + 2)") else { panic!() };
    assert_eq!(call.procedure.to_string(), "lake.system.f");
    let arguments: Vec<_> = call.arguments.iter().map(|a| (a.name.as_deref(), a.value.to_string())).collect();
    assert_eq!(arguments, [(None, "'t'".to_owned()), (Some("snapshot_id"), "-1 + 2".to_owned())]);
    assert!(matches!(one("CALL f()"), Statement::Call(_)));
    for text in ["CALL f", "CALL f(1", "CALL f(1,)", "CALL f(a =>)", "CALL f(1) x"] {
        assert_eq!(fails(text).state.0, "42601", "{text}");
    }
    assert_eq!(super::parse_name("s.\"T x\"").unwrap().0, ["s", "T x"]);
    for text in ["", "s.", "a b", "a.b.c.d", "'t'"] {
        assert_eq!(super::parse_name(text).unwrap_err().state.0, "42602", "{text}");
    }
}
