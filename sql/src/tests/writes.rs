use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;

use super::fakes::Bench;

#[tokio::test]
async fn insert_values_and_select() {
    let mut b = Bench::new().await;
    assert_eq!(b.run("INSERT INTO t (name, id) VALUES ('three', 3), (NULL, 4)").await.unwrap().tag, "INSERT 0 2");
    assert_eq!(
        b.rows("SELECT id, name, at FROM t WHERE id > 2 ORDER BY id").await,
        [["3", "three", "∅"], ["4", "∅", "∅"]]
    );
    assert_eq!(b.run("INSERT INTO t SELECT id + 10, name FROM t").await.unwrap().tag, "INSERT 0 4");
    assert_eq!(b.cell("SELECT count(*) FROM t").await, "8");
    b.run("INSERT INTO t VALUES (20, 'x', DEFAULT), (21, 5, now()), (22, NULL, '2026-02-03')").await.unwrap();
    assert_eq!(b.cell("SELECT at FROM t WHERE id = 22").await, "2026-02-03T00:00:00Z");
    assert_eq!(b.cell("SELECT name FROM t WHERE id = 21").await, "5");
    // Numbers are rounded, not cut, when they go into an integer.
    b.run("INSERT INTO t VALUES (30.5, 'half')").await.unwrap();
    assert_eq!(b.cell("SELECT id FROM t WHERE name = 'half'").await, "31");
}

#[tokio::test]
async fn inserts_that_do_not_fit_write_nothing() {
    let mut b = Bench::new().await;
    for (sql, code) in [
        ("INSERT INTO t (name) VALUES ('x')", "23502"),
        ("INSERT INTO t VALUES (3), (NULL)", "23502"),
        ("INSERT INTO t SELECT NULL, 'x'", "23502"),
        ("INSERT INTO t (id, id) VALUES (1, 2)", "42701"),
        ("INSERT INTO t (nothing) VALUES (1)", "42703"),
        ("INSERT INTO t (id, name) VALUES (1)", "42601"),
        ("INSERT INTO t VALUES (1, 'x', NULL, 4)", "42601"),
        ("INSERT INTO t VALUES ('x')", "22P02"),
        ("INSERT INTO t SELECT name FROM t", "42804"),
        ("INSERT INTO t SELECT 1 / (id - 1) FROM t", "22012"),
        ("INSERT INTO nothing VALUES (1)", "42P01"),
        ("INSERT INTO system.flows VALUES (1)", "42501"),
        ("INSERT INTO t VALUES (9) ON CONFLICT DO NOTHING", "0A000"),
        ("INSERT INTO s (id) VALUES (9) RETURNING id", "0A000"),
    ] {
        assert_eq!(b.code(sql).await, code, "{sql}");
    }
    assert_eq!(b.cell("SELECT count(*) FROM t").await, "2");
}

#[tokio::test]
async fn insert_takes_parameters_in_the_types_of_the_columns() {
    let mut b = Bench::new().await;
    let sql = "INSERT INTO t VALUES ($1, $2)";
    let statement = b.session.parse(sql).unwrap().remove(0);
    let prepared = b.session.prepare(&statement, &[]).await.unwrap();
    assert_eq!(prepared.params, [DataType::Int64, DataType::Utf8]);
    b.run_with(sql, &[], vec![ScalarValue::Int64(Some(9)), ScalarValue::Utf8(None)]).await.unwrap();
    assert_eq!(b.rows("SELECT id, name FROM t WHERE id = 9").await, [["9", "∅"]]);
}

#[tokio::test]
async fn what_is_returned_is_what_was_written() {
    let mut b = Bench::new().await;
    let returned = b.rows("INSERT INTO t SELECT 50, random()::text RETURNING name").await;
    assert_eq!(returned, b.rows("SELECT name FROM t WHERE id = 50").await);
    assert_eq!(returned.len(), 1);
}

#[tokio::test]
async fn parameters_of_returning() {
    let mut b = Bench::new().await;
    let sql = "INSERT INTO t (id) VALUES ($2) RETURNING id + $3, id - $1 AS less";
    let statement = b.session.parse(sql).unwrap().remove(0);
    let prepared = b.session.prepare(&statement, &[]).await.unwrap();
    assert_eq!(prepared.params, [DataType::Int64, DataType::Int64, DataType::Int64]);
    let names: Vec<_> = prepared.columns.unwrap().iter().map(|c| c.field.name().clone()).collect();
    assert_eq!(names, ["?column?", "less"]);
    let values = vec![ScalarValue::Int64(Some(7)), ScalarValue::Int64(Some(60)), ScalarValue::Int64(Some(1))];
    let answer = b.run_with(sql, &[], values).await.unwrap();
    assert_eq!(
        (answer.rows, answer.tag.as_str()),
        (vec![vec!["61".to_owned(), "53".to_owned()]], "Changed(Insert(1))")
    );
}

#[tokio::test]
async fn insert_into_a_stream_produces() {
    let mut b = Bench::new().await;
    assert_eq!(b.run("INSERT INTO s (id, name) VALUES (1, 'a'), (2, NULL)").await.unwrap().tag, "INSERT 0 2");
    {
        let produced = b.seen.produced.lock();
        assert_eq!(produced[0].schema().fields().iter().map(|f| f.name().as_str()).collect::<Vec<_>>(), ["id", "name"]);
        assert_eq!(produced.iter().map(|p| p.num_rows()).sum::<usize>(), 2);
    }
    assert_eq!(b.code("INSERT INTO s (day) VALUES ('2026-01-01')").await, "428C9");
    assert_eq!(b.code("INSERT INTO s (_offset) VALUES (1)").await, "42703");
    assert_eq!(b.run("INSERT INTO s SELECT id, name FROM t").await.unwrap().tag, "INSERT 0 2");
}

#[tokio::test]
async fn create_table_and_create_table_as() {
    let mut b = Bench::new().await;
    assert_eq!(
        b.run("CREATE TABLE u (a INT NOT NULL, b NUMERIC(12,2)) PARTITIONED BY (bucket(4, a))").await.unwrap().tag,
        "CREATE TABLE"
    );
    b.run("INSERT INTO u VALUES (1, 2.345)").await.unwrap();
    assert_eq!(b.rows("SELECT * FROM u").await, [["1", "2.35"]]);
    assert_eq!(b.code("CREATE TABLE u (a INT)").await, "42P07");
    b.run("CREATE TABLE IF NOT EXISTS u (a INT)").await.unwrap();
    assert_eq!(b.session.take_notices().len(), 1);
    assert_eq!(b.run("CREATE TABLE c AS SELECT count(*), max(name) AS m FROM t").await.unwrap().tag, "SELECT 1");
    assert_eq!(b.columns("SELECT * FROM c").await, ["count", "m"]);
    assert_eq!(b.run("CREATE TABLE d AS SELECT * FROM s WHERE _offset < 2").await.unwrap().tag, "SELECT 4");
    assert_eq!(b.columns("SELECT * FROM d").await.len(), 6);
    // A failing query leaves no table behind.
    assert_eq!(b.code("CREATE TABLE e AS SELECT 1 / (id - 1) AS x FROM t").await, "22012");
    assert_eq!(b.code("SELECT * FROM e").await, "42P01");
    for (sql, code) in [
        ("CREATE TABLE f (a INT, a INT)", "42701"),
        ("CREATE TABLE f (a INT PRIMARY KEY)", "0A000"),
        ("CREATE TABLE f (a INT) PARTITIONED BY (days(b))", "42703"),
        ("CREATE TABLE f AS SELECT 1 AS a, 2 AS a", "42701"),
        ("CREATE TABLE s (a INT)", "42P07"),
        ("CREATE TABLE nothing.f (a INT)", "3F000"),
        ("CREATE TEMP TABLE f (a INT)", "0A000"),
    ] {
        assert_eq!(b.code(sql).await, code, "{sql}");
    }
}
