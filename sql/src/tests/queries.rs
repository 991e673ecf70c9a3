use arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::ScalarValue;

use super::fakes::Bench;

#[tokio::test]
async fn outputs_are_named_as_in_postgres() {
    let mut b = Bench::new().await;
    for (sql, names) in [
        ("SELECT 1", vec!["?column?"]),
        ("SELECT 1 + 1, 'x'", vec!["?column?", "?column?"]),
        ("SELECT count(*) FROM t", vec!["count"]),
        ("SELECT count(*), count(*) FROM t", vec!["count", "count"]),
        ("SELECT max(id), min(id) FROM t", vec!["max", "min"]),
        ("SELECT id::text, '1'::int, name FROM t", vec!["id", "int4", "name"]),
        ("SELECT lower(name)::varchar FROM t", vec!["lower"]),
        ("SELECT t.id, t.id FROM t", vec!["id", "id"]),
        ("SELECT 1 AS a, 2 AS a", vec!["a", "a"]),
        ("SELECT NULL, NULL", vec!["?column?", "?column?"]),
        ("SELECT coalesce(name, 'x') FROM t", vec!["coalesce"]),
        ("SELECT CASE WHEN id = 1 THEN 1 ELSE 2 END FROM t", vec!["case"]),
        ("SELECT CASE WHEN id = 1 THEN 'a' ELSE name END FROM t", vec!["name"]),
        ("SELECT (SELECT max(id) FROM t)", vec!["max"]),
        ("SELECT EXISTS (SELECT 1 FROM t)", vec!["exists"]),
        ("SELECT *, id FROM t", vec!["id", "name", "at", "id"]),
        ("SELECT *, count(*) OVER () FROM t", vec!["id", "name", "at", "count"]),
        ("SELECT x.count FROM (SELECT count(*) FROM t) x", vec!["count"]),
        ("SELECT DATE '2026-01-01', now() IS NULL", vec!["date", "?column?"]),
        ("SELECT extract(year FROM at) FROM t", vec!["extract"]),
        ("VALUES (1, 'a')", vec!["column1", "column2"]),
        ("SELECT Name FROM T", vec!["name"]),
        ("SELECT name AS \"Name\" FROM t", vec!["Name"]),
        ("SELECT g FROM generate_series(1, 2) AS g", vec!["g"]),
        ("SELECT * FROM generate_series(1, 2)", vec!["generate_series"]),
    ] {
        assert_eq!(b.columns(sql).await, names, "{sql}");
    }
}

#[tokio::test]
async fn order_and_group_see_the_names() {
    let mut b = Bench::new().await;
    assert_eq!(
        b.rows("SELECT name, count(*) FROM t GROUP BY name ORDER BY count, name").await,
        [["one", "1"], ["two", "1"]]
    );
    assert_eq!(
        b.rows("SELECT lower(name) FROM t GROUP BY lower(name) ORDER BY lower(name) DESC").await,
        [["two"], ["one"]]
    );
    assert_eq!(b.rows("SELECT upper(name) FROM t ORDER BY upper DESC").await, [["TWO"], ["ONE"]]);
    assert_eq!(b.rows("SELECT id::text FROM t ORDER BY -id").await, [["2"], ["1"]]);
    assert_eq!(b.rows("SELECT name, sum(id) FROM t GROUP BY 1 ORDER BY 2 DESC").await, [["two", "2"], ["one", "1"]]);
    assert_eq!(b.rows("SELECT name FROM t GROUP BY name HAVING sum(id) > 1").await, [["two"]]);
    assert_eq!(b.code("SELECT id AS a, name AS a FROM t ORDER BY a").await, "42702");
}

#[tokio::test]
async fn names_resolve_by_search_path() {
    let mut b = Bench::new().await;
    b.run("CREATE SCHEMA silver; CREATE TABLE silver.t (id BIGINT); INSERT INTO silver.t VALUES (7)").await.unwrap();
    assert_eq!(b.cell("SELECT count(*) FROM t").await, "2");
    assert_eq!(b.cell("SELECT id FROM silver.t").await, "7");
    assert_eq!(b.cell("SELECT id FROM lake.silver.t").await, "7");
    b.run("SET search_path = silver, public").await.unwrap();
    assert_eq!(b.cell("SELECT id FROM t").await, "7");
    assert_eq!(b.cell("SELECT t.id FROM t").await, "7");
    assert_eq!(b.cell("SELECT current_schema()").await, "silver");
    assert_eq!(b.code("SELECT * FROM other.public.t").await, "0A000");
    assert_eq!(b.code("SELECT * FROM nothing").await, "42P01");
}

#[tokio::test]
async fn suffixes_of_tables() {
    let mut b = Bench::new().await;
    assert_eq!(b.cell("SELECT count(*) FROM \"t$committed\"").await, "2");
    assert_eq!(b.rows("SELECT count(*) FROM \"t$live\"").await, b.rows("SELECT count(*) FROM t").await);
    assert_eq!(b.code("SELECT * FROM \"t$snapshots\"").await, "0A000");
    assert_eq!(b.code("SELECT * FROM \"s$committed\"").await, "42809");
    assert_eq!(b.code("SELECT * FROM \"nothing$committed\"").await, "42P01");
}

#[tokio::test]
async fn system_views_answer() {
    let mut b = Bench::new().await;
    assert_eq!(b.rows("SELECT * FROM system.flows").await.len(), 0);
    assert_eq!(b.rows("SELECT flow, lag FROM system.flow_lag").await.len(), 0);
    assert_eq!(b.cell("SELECT name FROM system.streams").await, "lake.public.s");
    assert_eq!(b.cell("SELECT name FROM system.connections").await, "k");
    assert_eq!(b.cell("SELECT count(*) FROM system.sessions WHERE state = 'active'").await, "1");
    assert_eq!(b.code("SELECT * FROM system.nothing").await, "42P01");
}

#[tokio::test]
async fn unbounded_reads_are_refused() {
    let mut b = Bench::new().await;
    let e = b.run("SELECT * FROM STREAM s").await.unwrap_err();
    assert_eq!(e.state.as_str(), "0A000");
    assert!(e.hint.is_some());
    assert_eq!(b.code("SELECT * FROM t, STREAM(s)").await, "0A000");
}

#[tokio::test]
async fn parameters_take_types_from_their_use() {
    let mut b = Bench::new().await;
    let statement = b.session.parse("SELECT name FROM t WHERE id = $2 AND name = $1 AND $3 = 'x'").unwrap().remove(0);
    let prepared = b.session.prepare(&statement, &[]).await.unwrap();
    assert_eq!(prepared.params, [DataType::Utf8, DataType::Int64, DataType::Utf8]);
    let answer = b
        .run_with(
            "SELECT name, $1 + 1 AS n FROM t WHERE id = $1",
            &[Some(DataType::Int32)],
            vec![ScalarValue::Int32(Some(2))],
        )
        .await
        .unwrap();
    assert_eq!(answer.rows, [["two", "3"]]);
    // Ten and more: their order is that of numbers.
    let sql = "SELECT id FROM t WHERE id = $10 OR id = $2 OR id = $1 OR name = $3 OR name = $4 OR name = $5 OR name = $6 \
               OR name = $7 OR name = $8 OR name = $9";
    let statement = b.session.parse(sql).unwrap().remove(0);
    let prepared = b.session.prepare(&statement, &[]).await.unwrap();
    assert_eq!(prepared.params.len(), 10);
    assert_eq!(prepared.params[9], DataType::Int64);
    assert_eq!(prepared.params[2], DataType::Utf8);
    let answer =
        b.run_with("SELECT id FROM t ORDER BY id LIMIT $1", &[], vec![ScalarValue::Int64(Some(1))]).await.unwrap();
    assert_eq!(answer.rows, [["1"]]);
    let e = b.run_with("SELECT $1::int", &[], vec![]).await.unwrap_err();
    assert_eq!(e.state.as_str(), "08P01");
}

#[tokio::test]
async fn types_leave_as_the_wire_knows_them() {
    let mut b = Bench::new().await;
    let answer = b.run("SELECT now(), NULL, 'x', 1.5, at, 1 FROM t LIMIT 1").await.unwrap();
    let tz = DataType::Timestamp(TimeUnit::Microsecond, Some("+00:00".into()));
    assert_eq!(
        answer.types,
        [tz.clone(), DataType::Utf8, DataType::Utf8, DataType::Decimal128(2, 1), tz, DataType::Int64]
    );
    assert_eq!(b.cell("SELECT 1.005::numeric(10,2)").await, "1.01");
    assert_eq!(b.cell("SELECT 'abc'::varchar(2)").await, "ab");
    assert_eq!(b.cell("SELECT '\\x00ff'::bytea").await, "00ff");
    assert_eq!(b.cell("SELECT version()").await.split(' ').next(), Some("PostgreSQL"));
    assert_eq!(b.cell("SELECT current_user").await, "ana");
    assert_eq!(b.cell("SELECT current_database()").await, "lake");
    assert_eq!(b.cell("SELECT current_setting('TimeZone')").await, "UTC");
}

#[tokio::test]
async fn wall_clock_follows_the_time_zone() {
    let mut b = Bench::new().await;
    let day = "SELECT date_trunc('day', '2026-01-01 23:30:00+00'::timestamptz)";
    assert_eq!(b.cell(day).await, "2026-01-01T00:00:00Z");
    assert_eq!(b.cell("SELECT extract(hour FROM '2026-01-01 23:30:00+00'::timestamptz)").await, "23");
    b.run("SET TIME ZONE 'Europe/Berlin'").await.unwrap();
    assert_eq!(b.cell(day).await, "2026-01-01T23:00:00Z");
    assert_eq!(b.cell("SELECT extract(hour FROM '2026-01-01 23:30:00+00'::timestamptz)").await, "0");
    assert_eq!(b.cell("SELECT '2026-01-01 23:30:00+00'::timestamptz::date").await, "2026-01-02");
    assert_eq!(b.cell("SELECT '2026-01-01 23:30:00+00'::timestamptz::timestamp").await, "2026-01-02T00:30:00");
    assert_eq!(b.cell("SELECT '2026-01-02 00:30'::timestamptz").await, "2026-01-01T23:30:00Z");
    assert_eq!(b.cell("SELECT TIMESTAMP '2026-01-02 00:30'::timestamptz").await, "2026-01-01T23:30:00Z");
    assert_eq!(b.cell("SELECT DATE '2026-01-02'::timestamptz").await, "2026-01-01T23:00:00Z");
    assert_eq!(b.cell("SELECT count(*) FROM s WHERE ts < '2026-01-02 01:00'").await, "1");
    b.run("SET TIME ZONE 'UTC'").await.unwrap();
    assert_eq!(
        b.cell("SELECT '2026-01-01 23:30:00+00'::timestamptz AT TIME ZONE 'Europe/Berlin'").await,
        "2026-01-02T00:30:00"
    );
    assert_eq!(
        b.cell("SELECT TIMESTAMP '2026-01-02 00:30' AT TIME ZONE 'Europe/Berlin'").await,
        "2026-01-01T23:30:00Z"
    );
}

#[tokio::test]
async fn explain_is_one_column() {
    let mut b = Bench::new().await;
    let answer = b.run("EXPLAIN SELECT id FROM s WHERE _offset < 3").await.unwrap();
    assert_eq!(answer.columns, ["QUERY PLAN"]);
    assert!(!answer.rows.is_empty());
    let answer = b.run("EXPLAIN ANALYZE SELECT count(*) FROM t").await.unwrap();
    assert_eq!(answer.rows.last().unwrap()[0], "Rows: 1");
}

#[tokio::test]
async fn shapes_that_would_answer_wrongly_are_refused() {
    let mut b = Bench::new().await;
    for sql in [
        "SELECT to_char(at, 'J') FROM t",
        "SELECT name FROM t WHERE name SIMILAR TO 'o%'",
        "SELECT * FROM t TABLESAMPLE BERNOULLI (0)",
        "SELECT generate_series(1, 3)",
        "SELECT * FROM t FOR UPDATE",
    ] {
        assert_eq!(b.code(sql).await, "0A000", "{sql}");
    }
    assert_eq!(b.rows("SELECT id FROM t ORDER BY id FETCH FIRST 1 ROW ONLY").await, [["1"]]);
}

/// A scalar subquery of several rows used to multiply the rows around it.
#[tokio::test]
async fn scalar_subqueries_give_one_value() {
    let mut b = Bench::new().await;
    assert_eq!(b.code("SELECT (SELECT id FROM t)").await, "21000");
    assert_eq!(b.code("SELECT id FROM t WHERE id = (SELECT id FROM t)").await, "21000");
    assert_eq!(b.cell("SELECT (SELECT id FROM t WHERE id = 2)").await, "2");
    assert_eq!(b.cell("SELECT (SELECT id FROM t WHERE id = 3)").await, "∅");
    assert_eq!(
        b.rows("SELECT t.id, (SELECT u.name FROM t u WHERE u.id = t.id) FROM t ORDER BY 1").await,
        [["1", "one"], ["2", "two"]]
    );
    assert_eq!(
        b.rows("SELECT t.id, (SELECT count(*) FROM s WHERE s._offset = t.id) AS n FROM t ORDER BY 1").await,
        [["1", "2"], ["2", "2"]]
    );
    assert_eq!(b.code("SELECT (SELECT s.name FROM s WHERE s._offset = t.id) FROM t").await, "21000");
    // Not supported, which is no wrong answer.
    assert_eq!(b.code("SELECT (SELECT u.name FROM t u WHERE u.id >= t.id) FROM t").await, "0A000");
    assert_eq!(
        b.rows("SELECT EXISTS (SELECT 1 FROM t), NOT EXISTS (SELECT 1 FROM t WHERE id = 9)").await,
        [["true", "true"]]
    );
}

#[tokio::test]
async fn nulls_in_not_in() {
    let mut b = Bench::new().await;
    assert_eq!(b.rows("SELECT id FROM t WHERE id NOT IN (SELECT NULL::bigint)").await.len(), 0);
    assert_eq!(
        b.rows("SELECT id FROM t WHERE id NOT IN (SELECT id FROM t WHERE id = 1 UNION ALL SELECT NULL)").await.len(),
        0
    );
    assert_eq!(b.rows("SELECT id FROM t WHERE id NOT IN (3, NULL)").await.len(), 0);
    assert_eq!(b.rows("SELECT id FROM t WHERE id NOT IN (SELECT id FROM t WHERE id = 1)").await, [["2"]]);
}

#[tokio::test]
async fn casts_are_those_of_postgres() {
    let mut b = Bench::new().await;
    for (expr, value) in [
        ("2.5::int", "3"),
        ("(-2.5)::int", "-3"),
        ("2.5::float8::int", "2"),
        ("3.5::float8::int", "4"),
        ("1.4::bigint", "1"),
        ("1.0::float8::text", "1"),
        ("0.1::float8::text", "0.1"),
        ("1e20::float8::text", "1e+20"),
        ("0.5::real::text", "0.5"),
        ("'2026-01-02 03:04:05.600+00'::timestamptz::text", "2026-01-02 03:04:05.6+00"),
        ("'2026-01-02 03:04'::timestamp::text", "2026-01-02 03:04:00"),
        ("'epoch'::timestamptz::text", "1970-01-01 00:00:00+00"),
        ("'at ' || TIMESTAMP '2026-01-02 03:04:05'", "at 2026-01-02 03:04:05"),
        ("true::text", "true"),
        ("12.50::numeric(10,2)::text", "12.50"),
        ("5 / 2", "2"),
        ("-5 / 2", "-2"),
        ("5 % -3", "2"),
        ("0.1 + 0.2 = 0.3", "true"),
        ("DATE '2026-03-31' + INTERVAL '1 month'", "2026-04-30T00:00:00"),
        ("DATE '2026-03-05' - DATE '2026-03-01'", "4"),
        ("substring('hello' FROM 2 FOR 3)", "ell"),
        ("position('l' IN 'hello')", "3"),
        ("'a' < 'B'", "false"),
        ("NULL = NULL", "∅"),
        ("length('é')", "1"),
    ] {
        assert_eq!(b.cell(&format!("SELECT {expr}")).await, value, "{expr}");
    }
    for (expr, code) in [
        ("9223372036854775807 + 1", "22003"),
        ("-9223372036854775807 - 2", "22003"),
        ("sum(id::int) * 9223372036854775807 FROM t", "22003"),
        ("1.5::float8 / 0", "22012"),
        ("id::float8 / (id - 1) FROM t", "22012"),
        ("1.5 / 0", "22012"),
        ("5 / 0", "22012"),
        ("5 % 0", "22012"),
    ] {
        assert_eq!(b.code(&format!("SELECT {expr}")).await, code, "{expr}");
    }
    assert_eq!(
        b.rows("SELECT id + 1, 2 * id, id - 5, id::float8 / 2 FROM t ORDER BY id + 1").await,
        [["2", "2", "-4", "0.5"], ["3", "4", "-3", "1.0"]]
    );
    assert_eq!(
        b.rows("SELECT id + 1 AS n, count(*) FROM t GROUP BY id + 1 ORDER BY 1").await,
        [["2", "1"], ["3", "1"]]
    );
    b.run("SET TIME ZONE 'Asia/Kolkata'").await.unwrap();
    assert_eq!(b.cell("SELECT '2026-01-02 03:04:05+00'::timestamptz::text").await, "2026-01-02 08:34:05+05:30");
}

#[tokio::test]
async fn unnest_reads_the_tables_before_it() {
    let mut b = Bench::new().await;
    assert_eq!(
        b.rows("SELECT s.id, i.i, t.name FROM s, UNNEST(s.tags) AS i, t WHERE t.id = s.id ORDER BY 1, 2").await,
        [["1", "10", "one"], ["2", "20", "two"], ["2", "21", "two"]]
    );
    assert_eq!(b.columns("SELECT * FROM t, UNNEST(ARRAY[t.id, 5]) AS n").await, ["id", "name", "at", "n"]);
    assert_eq!(b.columns("SELECT t.* FROM t, UNNEST(ARRAY[t.id, 5]) AS n").await, ["id", "name", "at"]);
    assert_eq!(b.columns("SELECT * FROM s, UNNEST(tags) AS i WHERE _offset = 1").await.len(), 7);
    assert_eq!(b.rows("SELECT unnest FROM UNNEST(ARRAY[1, 2])").await, [["1"], ["2"]]);
    assert_eq!(b.code("SELECT * FROM t LEFT JOIN UNNEST(ARRAY[t.id]) AS n ON true").await, "0A000");
}

/// Sums wrapped around in silence: `sum(bigint)` beyond 64 bits, `sum(numeric)` beyond 128.
#[tokio::test]
async fn sums_are_exact_or_fail() {
    let mut b = Bench::new().await;
    let big = "(SELECT 9223372036854775807::bigint AS v, a % 3 AS g FROM generate_series(1, 9) a) x";
    let sum = "83010348331692982263";
    assert_eq!(b.cell(&format!("SELECT sum(v) FROM {big}")).await, sum);
    assert_eq!(b.cell(&format!("SELECT max(s) FROM (SELECT sum(v) OVER () AS s FROM {big}) y")).await, sum);
    for (what, value) in [("sum(v)", "27670116110564327421"), ("sum(v - g)", "27670116110564327421")] {
        let rows = b.rows(&format!("SELECT g, {what} FROM {big} GROUP BY g ORDER BY g")).await;
        assert_eq!(rows[0], ["0", value], "{what}");
    }
    // A window that moves on takes back what it leaves.
    let moving = "sum(v) OVER (ORDER BY a ROWS BETWEEN 1 PRECEDING AND CURRENT ROW)";
    let rows = b
        .rows(&format!(
            "SELECT {moving} FROM (SELECT a, CASE WHEN a < 3 THEN 9223372036854775807 END AS v \
             FROM generate_series(1, 4) a) x ORDER BY a"
        ))
        .await;
    assert_eq!(rows.concat(), ["9223372036854775807", "18446744073709551614", "9223372036854775807", "∅"]);
    // Types as in PostgreSQL.
    let int = DataType::Int64;
    for (expr, value, data_type) in [
        ("sum(a::int)", "10", int.clone()),
        ("sum(a::smallint)", "10", int.clone()),
        ("sum(DISTINCT (a % 2)::int)", "1", int.clone()),
        ("sum(a)", "10", DataType::Decimal128(38, 0)),
        ("sum(DISTINCT a % 2)", "1", DataType::Decimal128(38, 0)),
        ("sum(a::numeric(10,2))", "10.00", DataType::Decimal128(38, 2)),
        ("sum(a::float8)", "10.0", DataType::Float64),
        ("sum(a) FILTER (WHERE a > 2)", "7", DataType::Decimal128(38, 0)),
        ("sum(a) FILTER (WHERE a > 9)", "∅", DataType::Decimal128(38, 0)),
    ] {
        let answer = b.run(&format!("SELECT {expr} FROM generate_series(1, 4) a")).await.unwrap();
        assert_eq!((answer.rows[0][0].as_str(), &answer.types[0]), (value, &data_type), "{expr}");
    }
    // Sums beside a DISTINCT, which the optimizer makes sums of sums of.
    let beside = "sum(a::int), sum(a + 0), sum(a::numeric(10,2) + 1), count(DISTINCT a % 2)";
    assert_eq!(b.rows(&format!("SELECT {beside} FROM generate_series(1, 4) a")).await, [["10", "10", "14.00", "2"]]);
    assert_eq!(
        b.rows(&format!("SELECT a > 2, {beside} FROM generate_series(1, 4) a GROUP BY 1 ORDER BY 1")).await,
        [["false", "3", "3", "5.00", "2"], ["true", "7", "7", "9.00", "2"]]
    );
    // More than 38 digits cannot be told.
    let digits = "9".repeat(38);
    for tail in ["", " GROUP BY a % 2", " GROUP BY a"] {
        let from = "FROM generate_series(1, 8) a, generate_series(1, 4) c";
        let e = b.run(&format!("SELECT sum('{digits}'::numeric(38,0)) {from}{tail}")).await.unwrap_err();
        assert_eq!((e.state.as_str(), e.message.as_str()), ("22003", "value overflows numeric format"), "{tail}");
    }
    let e = b.run(&format!("SELECT sum('{digits}'::numeric(38,0)) OVER () FROM t")).await.unwrap_err();
    assert_eq!(e.state.as_str(), "22003");
}

/// `TABLE t` was a syntax error, and a parameter of a table function one about a "Placeholder".
#[tokio::test]
async fn table_is_a_query() {
    let mut b = Bench::new().await;
    assert_eq!(b.rows("TABLE t ORDER BY id DESC LIMIT 1").await, [["2", "two", "∅"]]);
    assert_eq!(b.rows("table \"t\"").await.len(), 2);
    assert_eq!(b.rows("TABLE public.t UNION ALL TABLE t").await.len(), 4);
    assert_eq!(b.code("TABLE").await, "42601");
    assert_eq!(b.code("TABLE nothing").await, "42P01");
    assert_eq!(b.code("SELECT * FROM generate_series(1, $1)").await, "0A000");
}

/// Prints what a small statement costs; run it with `--nocapture --ignored`.
#[tokio::test]
#[ignore = "a measurement"]
async fn cost_per_statement() {
    let mut b = Bench::new().await;
    for sql in ["SELECT 1", "SELECT id, name FROM t WHERE id = 1", "SELECT * FROM s WHERE _offset < 2 ORDER BY id"] {
        let start = std::time::Instant::now();
        for _ in 0..200 {
            b.run(sql).await.unwrap();
        }
        println!("{sql}: {:?} per statement", start.elapsed() / 200);
    }
}
