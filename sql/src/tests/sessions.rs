use std::sync::Arc;

use futures::StreamExt;

use super::fakes::{Bench, SOON};
use crate::{Login, Outcome, SqlError, TransactionStatus};

#[tokio::test]
async fn settings_are_those_of_one_session() {
    let mut b = Bench::empty();
    let mut other =
        b.engine.session(Login { user: "bob".into(), database: "lake".into(), ..Login::default() }).unwrap();
    b.run("SET statement_timeout = '90s'; SET application_name = psql").await.unwrap();
    assert_eq!(b.cell("SHOW statement_timeout").await, "90s");
    assert_eq!(other.setting("statement_timeout").as_deref(), Some("0"));
    assert_eq!(b.session.take_parameter_changes(), [("application_name", "psql".to_owned())]);
    assert!(b.session.take_parameter_changes().is_empty());
    b.run("RESET statement_timeout").await.unwrap();
    assert_eq!(b.cell("SHOW statement_timeout").await, "0");
    b.run("SET TIME ZONE INTERVAL '1' HOUR").await.unwrap_err();
    b.run("SET TIME ZONE 2").await.unwrap();
    assert_eq!(b.session.time_zone(), "+02:00");
    assert_eq!(b.cell("SHOW TIME ZONE").await, "<+02>-02");
    // An offset in a string counts west, as in POSIX, where it is no plain number.
    b.run("SET timezone TO '+05:30'").await.unwrap();
    assert_eq!((b.session.time_zone().as_str(), b.cell("SHOW TIME ZONE").await.as_str()), ("-05:30", "+05:30"));
    b.run("SET timezone TO '-5'").await.unwrap();
    assert_eq!(b.session.time_zone(), "-05:00");
    b.run("SET timezone TO '+05:99'").await.unwrap_err();
    b.run("SET timezone TO 'europe/nowhere'").await.unwrap_err();
    let e = b.run("SET statement_timeot = 1").await.unwrap_err();
    assert_eq!((e.state.as_str(), e.hint.as_deref()), ("42704", Some("Perhaps you meant \"statement_timeout\".")));
    assert_eq!(b.code("SET client_encoding = 'LATIN1'").await, "0A000");
    assert_eq!(b.code("SET extra_float_digits = 9").await, "22023");
    assert_eq!(b.code("SET server_version = '17'").await, "55P02");
    b.run("SET extra_float_digits = -3; SET DateStyle = ISO; SET client_min_messages TO warning; SET app.user = 'x'")
        .await
        .unwrap();
    assert_eq!(b.cell("SHOW app.user").await, "x");
    assert!(b.rows("SHOW ALL").await.len() > 30);
    b.run("DISCARD ALL").await.unwrap();
    assert_eq!(b.cell("SHOW timezone").await, "UTC");
    assert!(other.take_notices().is_empty());
}

#[tokio::test]
async fn login_options_and_databases() {
    let b = Bench::empty();
    let login = |database: &str, options: &[(&str, &str)]| Login {
        user: "bob".into(),
        database: database.into(),
        options: options.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        ..Login::default()
    };
    assert_eq!(b.engine.session(login("nothing", &[])).unwrap_err().state.as_str(), "3D000");
    let s = b.engine.session(login("lake", &[("TimeZone", "Europe/Berlin"), ("search_path", "a,\"B c\"")])).unwrap();
    assert_eq!(s.time_zone(), "Europe/Berlin");
    assert_eq!(b.engine.session(login("lake", &[("nonsense", "1")])).unwrap_err().state.as_str(), "42704");
}

#[tokio::test]
async fn blocks_follow_postgres() {
    let mut b = Bench::new().await;
    b.run("BEGIN").await.unwrap();
    assert_eq!(b.session.transaction_status(), TransactionStatus::InBlock);
    b.run("SET LOCAL statement_timeout = '1min'; SET application_name = 'x'").await.unwrap();
    assert_eq!(b.cell("SHOW statement_timeout").await, "1min");
    assert_eq!(b.code("SELECT nothing FROM t").await, "42703");
    assert_eq!(b.session.transaction_status(), TransactionStatus::Failed);
    assert_eq!(b.code("SELECT 1").await, "25P02");
    assert_eq!(b.run("COMMIT").await.unwrap().tag, "ROLLBACK");
    assert_eq!(b.cell("SHOW statement_timeout").await, "0");
    assert_eq!(b.cell("SHOW application_name").await, "");
    b.run("BEGIN; SET application_name = 'y'; SET LOCAL extra_float_digits = 3; COMMIT").await.unwrap();
    assert_eq!(b.cell("SHOW application_name").await, "y");
    assert_eq!(b.cell("SHOW extra_float_digits").await, "1");
    assert_eq!(b.run("COMMIT").await.unwrap().tag, "COMMIT");
    assert_eq!(b.session.take_notices().last().unwrap().state.as_str(), "25P01");
    b.run("BEGIN; SAVEPOINT a").await.unwrap();
    b.run("SELECT nothing").await.unwrap_err();
    b.run("ROLLBACK TO a").await.unwrap();
    assert_eq!(b.cell("SELECT 1").await, "1");
    assert_eq!(b.code("RELEASE SAVEPOINT z").await, "3B001");
    b.run("ROLLBACK").await.unwrap();
}

#[tokio::test]
async fn an_error_of_the_rows_fails_the_block() {
    let mut b = Bench::new().await;
    b.run("BEGIN").await.unwrap();
    b.run("SELECT 1 / (id - id) FROM t").await.unwrap_err();
    assert_eq!(b.session.transaction_status(), TransactionStatus::Failed);
    b.run("ROLLBACK").await.unwrap();
}

#[tokio::test]
async fn writes_inside_blocks_are_refused() {
    let mut b = Bench::new().await;
    for sql in ["INSERT INTO t VALUES (3)", "CREATE TABLE u (id INT)", "DROP TABLE t", "CREATE SCHEMA x"] {
        b.run("BEGIN").await.unwrap();
        assert_eq!(b.code(sql).await, "0A000", "{sql}");
        b.run("ROLLBACK").await.unwrap();
    }
    b.run("SET default_transaction_read_only = on").await.unwrap();
    assert_eq!(b.code("INSERT INTO t VALUES (3)").await, "25006");
    assert_eq!(b.cell("SELECT count(*) FROM t").await, "2");
}

/// A query that would run for hours, and is busy all the time.
const LONG: &str = "SELECT count(*) FROM generate_series(1, 10000000000) a WHERE a % 7 = 8";

async fn first_error(b: &mut Bench, sql: &str) -> SqlError {
    let statement = b.session.parse(sql).unwrap().remove(0);
    let prepared = b.session.prepare(&statement, &[]).await.unwrap();
    match b.session.execute(&prepared, vec![]).await {
        Err(e) => e,
        Ok(Outcome::Rows { mut stream, .. }) => stream.next().await.unwrap().unwrap_err().into(),
        Ok(other) => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn busy_queries_can_be_cancelled() {
    let mut b = Bench::new().await;
    for sql in
        [LONG, "SELECT count(*) FROM generate_series(1, 100000) a, generate_series(1, 10000000) b WHERE a + b = 0"]
    {
        let cancel = b.session.cancel_handle();
        let canceller = tokio::spawn(async move {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            cancel.cancel();
        });
        let e = tokio::time::timeout(SOON, first_error(&mut b, sql)).await.expect("cancelled in time");
        assert_eq!((e.state.as_str(), e.message.as_str()), ("57014", "canceling statement due to user request"));
        canceller.await.unwrap();
    }
    // A cancel that comes late leaves the next statement alone.
    b.session.cancel_handle().cancel();
    assert_eq!(b.cell("SELECT 1").await, "1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn statement_timeout_covers_the_rows() {
    let mut b = Bench::new().await;
    b.run("SET statement_timeout = '50ms'").await.unwrap();
    let e = tokio::time::timeout(SOON, first_error(&mut b, LONG)).await.expect("timed out in time");
    assert_eq!((e.state.as_str(), e.message.as_str()), ("57014", "canceling statement due to statement timeout"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_stream_stops_its_task() {
    let mut b = Bench::new().await;
    let statement = b.session.parse("SELECT a FROM generate_series(1, 10000000000) a").unwrap().remove(0);
    let prepared = b.session.prepare(&statement, &[]).await.unwrap();
    let Outcome::Rows { mut stream, .. } = b.session.execute(&prepared, vec![]).await.unwrap() else { panic!() };
    stream.next().await.unwrap().unwrap();
    let pool = Arc::clone(b.engine.runtime_env());
    let before = tokio::runtime::Handle::current().metrics().num_alive_tasks();
    drop(stream);
    tokio::time::timeout(SOON, async {
        while tokio::runtime::Handle::current().metrics().num_alive_tasks() >= before {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    })
    .await
    .expect("the task ends");
    drop(pool);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_has_a_limit() {
    let mut b = Bench::new().await;
    let e =
        b.run("SELECT array_agg(repeat('x', 1000) || a::text) FROM generate_series(1, 1000000) a").await.unwrap_err();
    assert_eq!(e.state.as_str(), "53200", "{e:?}");
}

/// A query whose runtime ended under it counted as complete: its client read `SELECT n` with rows missing, and an
/// INSERT of it committed what had come so far.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_result_that_is_cut_off_is_not_complete() {
    let query = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let mut b = Bench::empty_on(query.handle().clone());
    let statement = b.session.parse("SELECT a FROM generate_series(1, 10000000000) a").unwrap().remove(0);
    let prepared = b.session.prepare(&statement, &[]).await.unwrap();
    let Outcome::Rows { mut stream, .. } = b.session.execute(&prepared, vec![]).await.unwrap() else { panic!() };
    stream.next().await.unwrap().unwrap();
    query.shutdown_background();
    let rest = tokio::time::timeout(SOON, async {
        loop {
            match stream.next().await {
                Some(Ok(_)) => {}
                other => break other,
            }
        }
    });
    let e = SqlError::from(rest.await.unwrap().expect("not an end of the rows").unwrap_err());
    assert_eq!(e.state.as_str(), "57P01");
    assert!(stream.next().await.is_none());
}

/// While flows were committing at the end of the server, statements could still begin, and were cut off later.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_begins_while_the_server_stops() {
    let mut b = Bench::new().await;
    let statement = b.session.parse("SELECT a FROM generate_series(1, 10000000000) a").unwrap().remove(0);
    let prepared = b.session.prepare(&statement, &[]).await.unwrap();
    let Outcome::Rows { mut stream, .. } = b.session.execute(&prepared, vec![]).await.unwrap() else { panic!() };
    b.engine.shutdown(SOON).await;
    assert_eq!(SqlError::from(stream.next().await.unwrap().unwrap_err()).state.as_str(), "57014");
    assert_eq!(b.session.execute(&prepared, vec![]).await.unwrap_err().state.as_str(), "57P01");
    assert_eq!(b.code("SELECT 1").await, "57P01");
    let login = Login { user: "bob".into(), database: "lake".into(), ..Login::default() };
    assert_eq!(b.engine.session(login).unwrap_err().state.as_str(), "57P01");
}
