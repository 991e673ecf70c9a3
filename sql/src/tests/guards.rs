//! Definitions that are changed by two at a time, and what a kill in between must not lose.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema};
use tidewater_catalogs::{Definition, DefinitionKind, ErrorKind};
use tidewater_streaming::FlowFactory;
use uuid::Uuid;

use super::fakes::Bench;
use crate::dialect::{Name, Statement};
use crate::plan::flow::{Bound, compile_bound};
use crate::settings::Settings;
use crate::statement::{FlowPlanner, NAMES, lock_flow};
use crate::{Engine, Login};

const TABLE: &str = "CREATE STREAMING TABLE big AS SELECT id FROM STREAM s";

async fn flow(engine: &Arc<Engine>) -> Option<Definition> {
    engine.metastore().get(DefinitionKind::Flow, "lake.public.big").await.unwrap()
}

/// Waits for something that must come about; a test that fails here hangs until its runner ends it.
async fn until(mut done: impl AsyncFnMut() -> bool) {
    while !done().await {
        tokio::task::yield_now().await;
    }
}

/// A flow that was to begin at the end of the topic and was killed before its first commit asked again where the end
/// is, and left out all that had come in between.
#[tokio::test]
async fn a_start_that_moves_is_pinned_when_the_table_is_created() {
    let mut b = Bench::new().await;
    for (start, pinned) in
        [("'latest'", Some(r#"{"0":3,"1":3}"#)), ("'1 hour'", Some(r#"{"0":0,"1":0}"#)), ("'earliest'", None)]
    {
        b.run(&TABLE.replace("big", &format!("big WITH (start = {start})"))).await.unwrap();
        let flow = flow(&b.engine).await.unwrap();
        assert_eq!(flow.properties.get("start_offsets").map(String::as_str), pinned, "{start}");
        b.run("DROP STREAMING TABLE big").await.unwrap();
    }
    // The stream's own start as well.
    b.run("CREATE STREAM l (id BIGINT) WITH (connection = 'k', topic = 'topic', start = 'latest')").await.unwrap();
    b.run(&TABLE.replace("STREAM s", "STREAM l")).await.unwrap();
    assert_eq!(flow(&b.engine).await.unwrap().properties["start_offsets"], r#"{"0":3,"1":3}"#);
}

/// ALTER CONNECTION listed the flows, one of them was dropped with KEEP DATA, and then the list was started: the flow
/// that was gone wrote on for ever.
#[tokio::test]
async fn a_flow_that_is_dropped_meanwhile_is_not_started_again() {
    let mut b = Bench::new().await;
    b.run(TABLE).await.unwrap();
    let engine = b.engine.clone();
    let id = flow(&engine).await.unwrap().id;
    // As a drop holds it.
    let lock = lock_flow(id).await;
    let before = engine.metastore().get(DefinitionKind::Connection, "k").await.unwrap();
    let dropping = async {
        until(async || engine.metastore().get(DefinitionKind::Connection, "k").await.unwrap() != before).await;
        engine.supervisor().stop(id).await.unwrap();
        assert!(engine.metastore().as_ref().drop(DefinitionKind::Flow, "lake.public.big").await.unwrap());
        drop(lock);
    };
    let (altered, ()) = tokio::join!(b.run("ALTER CONNECTION k SET (brokers = 'c:2')"), dropping);
    altered.unwrap();
    assert!(engine.supervisor().status(id).is_none());
}

/// The definition was stored, the statement broke off before the flow heard of it, and repeating it did nothing: the
/// flow ran with the old options until the server was started again.
#[tokio::test]
async fn repeating_a_change_reaches_the_flow() {
    let mut b = Bench::new().await;
    b.run(TABLE).await.unwrap();
    b.run("ALTER FLOW big SET (commit_interval = '7 s')").await.unwrap();
    let id = flow(&b.engine).await.unwrap().id;
    b.engine.supervisor().stop(id).await.unwrap();
    b.run("ALTER FLOW big SET (commit_interval = '7 s')").await.unwrap();
    assert!(b.engine.supervisor().status(id).is_some());
}

/// Two servers on one metastore: the flow of the one went on with what it had in memory, dropped or not.
#[tokio::test]
async fn a_flow_looks_at_its_definition_before_each_run() {
    let mut b = Bench::new().await;
    b.run(TABLE).await.unwrap();
    let first = flow(&b.engine).await.unwrap();
    let planner = FlowPlanner::new(Arc::downgrade(&b.engine));
    b.run("ALTER FLOW big PAUSE").await.unwrap();
    assert_eq!(planner.current(&first).await.unwrap().properties["paused"], "true");
    let other = Definition { id: Uuid::new_v4(), ..first.clone() };
    assert_eq!(planner.current(&other).await.unwrap_err().kind(), ErrorKind::NotFound);
    b.run("DROP STREAMING TABLE big").await.unwrap();
    assert_eq!(planner.current(&first).await.unwrap_err().kind(), ErrorKind::NotFound);
}

/// Planned again by its search path alone, a flow read from whichever stream had the name by then.
#[tokio::test]
async fn a_flow_keeps_to_its_stream_whatever_its_name_comes_to_mean() {
    let mut b = Bench::new().await;
    b.run("CREATE SCHEMA other").await.unwrap();
    b.run("CREATE STREAM other.s (id BIGINT) WITH (connection = 'k', topic = 'elsewhere')").await.unwrap();
    let statement = b.session.parse(TABLE).unwrap().remove(0);
    let Statement::CreateStreamingTable(create) = &statement.statement else { panic!("{TABLE}") };
    let settings = Settings::for_login(&b.engine.defaults, &Login::default()).unwrap();
    let bound = Name(vec!["lake".to_owned(), "other".to_owned(), "s".to_owned()]);
    for (bound, stream) in [(Some(Bound::To(&bound)), "lake.other.s"), (None, "lake.public.s")] {
        let flow = compile_bound(&b.engine, &settings, create, &statement.text, bound, None).await.unwrap();
        assert_eq!(flow.stream.name.to_string(), stream);
    }
}

/// Planned again by another version, a number may have fewer digits than in the table, or more: it is brought into the
/// type of the table where that loses none, and the flow does not start where it may.
#[tokio::test]
async fn a_flow_writes_the_types_of_its_table() {
    let b = Bench::new().await;
    let statement = b
        .session
        .parse("CREATE STREAMING TABLE big AS SELECT id, id * 1.50 AS n, id AS k FROM STREAM s")
        .unwrap()
        .remove(0);
    let Statement::CreateStreamingTable(create) = &statement.statement else { panic!() };
    let settings = Settings::for_login(&b.engine.defaults, &Login::default()).unwrap();
    let name = Name(vec!["lake".to_owned(), "public".to_owned(), "s".to_owned()]);
    let table = |n: DataType, k: DataType| {
        Schema::new(vec![Field::new("id", DataType::Int64, true), Field::new("n", n, true), Field::new("k", k, true)])
    };
    let wide = (DataType::Decimal128(38, 6), DataType::Decimal128(20, 0));
    for ((n, k), kept) in [(wide, true), ((DataType::Decimal128(38, 1), DataType::Int32), false)] {
        let table = table(n, k);
        let flow = compile_bound(&b.engine, &settings, create, &statement.text, Some(Bound::To(&name)), Some(&table))
            .await
            .unwrap();
        let output = flow.output_schema();
        assert_eq!(output.field(0).data_type(), &DataType::Int64);
        for i in [1, 2] {
            assert_eq!(output.field(i).data_type() == table.field(i).data_type(), kept, "{:?}", output.field(i));
        }
    }
}

/// The first look at the name and the making had nothing between them that held others off: a stream and a table both
/// got it.
#[tokio::test]
async fn a_table_looks_at_its_name_again() {
    for sql in ["CREATE TABLE x (a INT)", "CREATE TABLE x AS SELECT 1 AS a"] {
        let mut b = Bench::new().await;
        let engine = b.engine.clone();
        let names = NAMES.lock().await;
        let stream = engine.metastore().get(DefinitionKind::Stream, "lake.public.s").await.unwrap().unwrap();
        let mut create = Box::pin(b.run(sql));
        // Until it waits.
        for _ in 0..1000 {
            assert!(futures::poll!(&mut create).is_pending());
            tokio::task::yield_now().await;
        }
        let taken = Definition { id: Uuid::new_v4(), name: "lake.public.x".to_owned(), ..stream };
        engine.metastore().create(&taken).await.unwrap();
        drop(names);
        assert_eq!(create.await.unwrap_err().state.as_str(), "42P07", "{sql}");
    }
}

/// A drop that waits its turn can be given up, and the flows that it has stopped by then run again.
#[tokio::test]
async fn a_drop_that_is_given_up_starts_its_flows_again() {
    let mut b = Bench::new().await;
    b.run(TABLE).await.unwrap();
    let engine = b.engine.clone();
    let id = flow(&engine).await.unwrap().id;
    b.run("SET statement_timeout = '300ms'").await.unwrap();
    let names = NAMES.lock().await;
    let waiting = async {
        until(async || engine.supervisor().status(id).is_none()).await;
    };
    let (given_up, ()) = tokio::join!(b.run("DROP STREAMING TABLE big"), waiting);
    assert_eq!(given_up.unwrap_err().state.as_str(), "57014");
    until(async || engine.supervisor().status(id).is_some()).await;
    assert!(flow(&engine).await.is_some());
    drop(names);
    b.run("RESET statement_timeout").await.unwrap();
    b.run("DROP STREAMING TABLE big").await.unwrap();
    assert!(engine.supervisor().status(id).is_none());
}
