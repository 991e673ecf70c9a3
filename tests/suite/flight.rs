//! Arrow Flight SQL as a client meets it.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use arrow::array::{AsArray, Int32Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use arrow::util::pretty::pretty_format_batches;
use arrow_flight::FlightInfo;
use arrow_flight::error::FlightError;
use arrow_flight::sql::client::FlightSqlServiceClient;
use arrow_flight::sql::{CommandGetDbSchemas, CommandGetTables, SqlInfo};
use futures::TryStreamExt;
use libtest_mimic::Trial;
use tidewater_tests::EmbeddedServer;
use tonic::transport::{Channel, Endpoint};

use crate::crash::failed;

type Client = FlightSqlServiceClient<Channel>;

pub fn trials() -> Vec<Trial> {
    let trial = |name: &str, overrides: &'static [(&str, &str)], run: fn(SocketAddr) -> Result<()>| {
        Trial::test(format!("flight/{name}"), move || {
            let server = EmbeddedServer::start(overrides)?;
            run(server.flight_addr()).map_err(failed)
        })
    };
    vec![
        trial("statements", &[], |addr| on_runtime(statements(addr))),
        trial("prepared", &[], |addr| on_runtime(prepared(addr))),
        trial("metadata", &[], |addr| on_runtime(metadata(addr))),
        trial("errors", &[], |addr| on_runtime(errors(addr))),
        trial("sessions", &[], |addr| on_runtime(sessions(addr))),
        trial("cancel", &[], |addr| on_runtime(cancel(addr))),
        trial("password", &[("pg_password", "swordfish"), ("flight_max_sessions", "3")], |addr| {
            on_runtime(password(addr))
        }),
        Trial::test("flight/subscribe", || {
            let server = EmbeddedServer::start(&[])?;
            on_runtime(subscribe(server.flight_addr(), server.broker_addr())).map_err(failed)
        }),
    ]
}

fn on_runtime(test: impl Future<Output = Result<()>>) -> Result<()> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?.block_on(test)
}

async fn channel(addr: SocketAddr) -> Result<Channel> {
    Ok(Endpoint::new(format!("http://{addr}"))?.connect().await?)
}

async fn connect(addr: SocketAddr) -> Result<Client> {
    Ok(FlightSqlServiceClient::new(channel(addr).await?))
}

async fn fetch(client: &mut Client, info: FlightInfo) -> Result<Vec<RecordBatch>> {
    let announced = info.clone().try_decode_schema()?;
    let mut out = Vec::new();
    for endpoint in info.endpoint {
        let mut stream = client.do_get(endpoint.ticket.context("no ticket")?).await?;
        while let Some(batch) = stream.try_next().await? {
            ensure!(*batch.schema() == announced, "{:?} was announced and {:?} came", announced, batch.schema());
            out.push(batch);
        }
    }
    Ok(out)
}

async fn query(client: &mut Client, sql: &str) -> Result<Vec<RecordBatch>> {
    let info = client.execute(sql.to_owned(), None).await?;
    fetch(client, info).await
}

fn table(batches: &[RecordBatch]) -> Result<String> {
    Ok(pretty_format_batches(batches)?.to_string())
}

async fn one_number(client: &mut Client, sql: &str) -> Result<i64> {
    let batches = query(client, sql).await?;
    let column = batches.first().context("no rows")?.column(0).as_primitive_opt::<Int64Type>();
    Ok(column.context("no bigint")?.value(0))
}

/// The status that a call must fail with.
fn refused<T>(outcome: Result<T>) -> Result<tonic::Status> {
    let Err(e) = outcome else { bail!("it should have failed") };
    for cause in e.chain() {
        if let Some(FlightError::Tonic(status)) = cause.downcast_ref::<FlightError>() {
            return Ok(status.as_ref().clone());
        }
        // The client turns statuses into texts in places.
        if let Some(e) = cause.downcast_ref::<arrow::error::ArrowError>() {
            return Ok(tonic::Status::unknown(e.to_string()));
        }
    }
    bail!("not a status: {e:#}")
}

async fn statements(addr: SocketAddr) -> Result<()> {
    let mut client = connect(addr).await?;
    client.execute_update("CREATE TABLE t (a INT, b TEXT, c NUMERIC(10,2))".to_owned(), None).await?;
    let n = client.execute_update("INSERT INTO t VALUES (1, 'x', 1.5), (2, NULL, 2.5)".to_owned(), None).await?;
    ensure!(n == 2, "{n} rows were counted");
    let rows = query(&mut client, "SELECT a, b, c, count(*) OVER () AS n, a AS a FROM t ORDER BY a").await?;
    let text = table(&rows)?;
    let expected = "\
+---+---+------+---+---+
| a | b | c    | n | a |
+---+---+------+---+---+
| 1 | x | 1.50 | 2 | 1 |
| 2 |   | 2.50 | 2 | 2 |
+---+---+------+---+---+";
    ensure!(text == expected, "{text}");
    ensure!(*rows[0].schema().field(1).data_type() == DataType::Utf8, "text is {:?}", rows[0].schema().field(1));
    // A statement without rows runs when it is announced, once, whether or not its rows are fetched.
    let info = client.execute("INSERT INTO t VALUES (3, 'y', 0)".to_owned(), None).await?;
    ensure!(one_number(&mut client, "SELECT count(*) FROM t").await? == 3);
    ensure!(fetch(&mut client, info).await?.iter().all(|b| b.num_rows() == 0));
    ensure!(one_number(&mut client, "SELECT count(*) FROM t").await? == 3);
    // One with RETURNING runs when its rows are fetched, and once.
    let info = client.execute("UPDATE t SET b = upper(b) WHERE a = 3 RETURNING b, a".to_owned(), None).await?;
    ensure!(one_number(&mut client, "SELECT count(*) FROM t WHERE b = 'Y'").await? == 0);
    let text = table(&fetch(&mut client, info.clone()).await?)?;
    ensure!(text.contains("| Y | 3 |"), "{text}");
    ensure!(one_number(&mut client, "SELECT count(*) FROM t WHERE b = 'Y'").await? == 1);
    let again = refused(fetch(&mut client, info).await)?;
    ensure!(again.message().contains("55000"), "{again}");
    let n = client.execute_update("UPDATE t SET b = lower(b) WHERE a = 3".to_owned(), None).await?;
    ensure!(n == 1, "{n} rows were counted");
    ensure!(query(&mut client, "SELECT a FROM t WHERE a > 100").await?.iter().all(|b| b.num_rows() == 0));
    ensure!(one_number(&mut client, "SELECT count(*) FROM generate_series(1, 300000)").await? == 300_000);
    let many: usize =
        query(&mut client, "SELECT * FROM generate_series(1, 300000)").await?.iter().map(RecordBatch::num_rows).sum();
    ensure!(many == 300_000, "{many}");
    Ok(())
}

/// Rows come while the call is open; who goes away takes up again where it was by the offsets that it saw.
async fn subscribe(addr: SocketAddr, broker: SocketAddr) -> Result<()> {
    let mut client = connect(addr).await?;
    let definitions = [
        format!("CREATE CONNECTION k TO KAFKA WITH (brokers = '{broker}')"),
        "CREATE STREAM s (id BIGINT) WITH (connection = 'k', topic = 's', create_topic = true, partitions = 1)"
            .to_owned(),
        "INSERT INTO s (id) VALUES (10), (11)".to_owned(),
    ];
    for sql in definitions {
        client.execute_update(sql, None).await?;
    }
    let ended = "SUBSCRIBE (SELECT id FROM STREAM s) FROM SNAPSHOT UNTIL LIMIT 2";
    let rows: usize = query(&mut client, ended).await?.iter().map(RecordBatch::num_rows).sum();
    ensure!(rows == 2, "{rows}");

    let endless = |from: &str| format!("SUBSCRIBE (SELECT _offset, id FROM STREAM s) FROM {from}");
    let (first, next) = seen(&mut client, &endless("SNAPSHOT"), 2).await?;
    ensure!((first, next) == (vec![10, 11], 2), "{next}");
    client.execute_update("INSERT INTO s (id) VALUES (12)".to_owned(), None).await?;
    let info = client.execute(endless(&format!("OFFSETS '{{\"0\": {next}}}'")), None).await?;
    let mut stream = client.do_get(info.endpoint[0].ticket.clone().context("no ticket")?).await?;
    let mut ids: Vec<i64> = Vec::new();
    let mut other = connect(addr).await?;
    while ids.len() < 2 {
        let batch = stream.try_next().await?.context("the subscription ended")?;
        ids.extend(batch.column(1).as_primitive::<Int64Type>().values());
        if ids.len() == 1 {
            // Produced while the call is open.
            other.execute_update("INSERT INTO s (id) VALUES (13)".to_owned(), None).await?;
        }
    }
    ensure!(ids == [12, 13], "{ids:?}");
    Ok(())
}

/// The first rows of a subscription, and the offset to go on with.
async fn seen(client: &mut Client, sql: &str, rows: usize) -> Result<(Vec<i64>, i64)> {
    let info = client.execute(sql.to_owned(), None).await?;
    let mut stream = client.do_get(info.endpoint[0].ticket.clone().context("no ticket")?).await?;
    let (mut ids, mut next) = (Vec::new(), 0);
    while ids.len() < rows {
        let batch = stream.try_next().await?.context("the subscription ended")?;
        ids.extend(batch.column(1).as_primitive::<Int64Type>().values());
        next = batch.column(0).as_primitive::<Int64Type>().values().last().map_or(next, |o| o + 1);
    }
    Ok((ids, next))
}

async fn prepared(addr: SocketAddr) -> Result<()> {
    let mut client = connect(addr).await?;
    client.execute_update("CREATE TABLE p (a INT, b TEXT)".to_owned(), None).await?;
    let mut insert = client.prepare("INSERT INTO p VALUES (?, ?)".to_owned(), None).await?;
    ensure!(insert.dataset_schema()?.fields().is_empty() && insert.parameter_schema()?.fields().len() == 2);
    let schema =
        Arc::new(Schema::new(vec![Field::new("a", DataType::Int32, true), Field::new("b", DataType::Utf8, true)]));
    let values = |numbers: Vec<i32>, texts: Vec<Option<&str>>| {
        RecordBatch::try_new(
            Arc::clone(&schema),
            vec![Arc::new(Int32Array::from(numbers)), Arc::new(StringArray::from(texts))],
        )
    };
    insert.set_parameters(values(vec![1, 2, 3], vec![Some("one"), None, Some("?")])?)?;
    let n = insert.execute_update().await?;
    ensure!(n == 3, "{n} rows were counted");
    insert.close().await?;

    let mut select = client.prepare("SELECT b FROM p WHERE a = $1::int".to_owned(), None).await?;
    let one = Arc::new(Schema::new(vec![Field::new("1", DataType::Utf8, true)]));
    // A parameter of another type is converted.
    select
        .set_parameters(RecordBatch::try_new(Arc::clone(&one), vec![Arc::new(StringArray::from(vec!["1", "3"]))])?)?;
    let info = select.execute().await?;
    let text = table(&fetch(&mut client, info).await?)?;
    ensure!(text.contains("one") && text.contains('?') && text.lines().count() == 6, "{text}");
    select.set_parameters(RecordBatch::try_new(one, vec![Arc::new(StringArray::from(vec!["many"]))])?)?;
    let outcome = match select.execute().await {
        Ok(info) => fetch(&mut client, info).await,
        Err(e) => Err(e.into()),
    };
    let status = refused(outcome)?;
    ensure!(status.message().contains("22P02"), "{status:?}");
    select.close().await?;
    Ok(())
}

async fn metadata(addr: SocketAddr) -> Result<()> {
    let mut client = connect(addr).await?;
    client.execute_update("CREATE TABLE shown (a INT NOT NULL, b TEXT)".to_owned(), None).await?;
    let info = client.get_catalogs().await?;
    let text = table(&fetch(&mut client, info).await?)?;
    ensure!(text.contains("lake"), "{text}");
    let info = client
        .get_db_schemas(CommandGetDbSchemas { catalog: None, db_schema_filter_pattern: Some("pub%".to_owned()) })
        .await?;
    let text = table(&fetch(&mut client, info).await?)?;
    ensure!(text.contains("public") && !text.contains("pg_catalog"), "{text}");
    let wanted = CommandGetTables {
        catalog: Some("lake".to_owned()),
        db_schema_filter_pattern: Some("public".to_owned()),
        table_name_filter_pattern: Some("sho_n".to_owned()),
        table_types: vec!["TABLE".to_owned()],
        include_schema: true,
    };
    let info = client.get_tables(wanted).await?;
    let batches = fetch(&mut client, info).await?;
    ensure!(batches.iter().map(RecordBatch::num_rows).sum::<usize>() == 1, "{}", table(&batches)?);
    let bytes = batches[0].column(4).as_binary::<i32>().value(0).to_vec();
    let schema = Schema::try_from(arrow_flight::IpcMessage(bytes.into()))?;
    ensure!(schema.fields().iter().map(|f| f.name().as_str()).eq(["a", "b"]), "{schema:?}");
    let info = client.get_table_types().await?;
    ensure!(table(&fetch(&mut client, info).await?)?.contains("STREAM"));
    let info = client.get_sql_info(vec![SqlInfo::FlightSqlServerName, SqlInfo::FlightSqlServerTransaction]).await?;
    let batches = fetch(&mut client, info).await?;
    ensure!(batches.iter().map(RecordBatch::num_rows).sum::<usize>() == 2, "{} rows", batches[0].num_rows());
    Ok(())
}

async fn errors(addr: SocketAddr) -> Result<()> {
    let mut client = connect(addr).await?;
    for (sql, state) in [
        ("SELECT * FROM nowhere", "42P01"),
        ("SELEC 1", "42601"),
        ("SELECT 1; SELECT 2", "42601"),
        ("", "42601"),
        ("BEGIN", "0A000"),
        ("SELECT 'a'::int", "22P02"),
        ("SELECT $1", "42P02"),
    ] {
        let status = refused(query(&mut client, sql).await)?;
        ensure!(status.message().contains(&format!("SQLSTATE {state}")), "{sql}: {status:?}");
    }
    // The session goes on.
    ensure!(one_number(&mut client, "SELECT count(*) FROM generate_series(1, 3)").await? == 3);
    Ok(())
}

async fn sessions(addr: SocketAddr) -> Result<()> {
    let mut first = connect(addr).await?;
    let mut second = connect(addr).await?;
    first.handshake("tidewater", "").await?;
    first.execute_update("SET TimeZone = 'Asia/Tokyo'".to_owned(), None).await?;
    let shown = |batches: Vec<RecordBatch>| batches[0].column(0).as_string::<i32>().value(0).to_owned();
    ensure!(shown(query(&mut first, "SHOW TimeZone").await?) == "Asia/Tokyo");
    ensure!(shown(query(&mut second, "SHOW TimeZone").await?) == "UTC");
    // A ticket is good in its own session alone.
    let info = first.execute("SELECT 1".to_owned(), None).await?;
    let status = refused(fetch(&mut second, info.clone()).await)?;
    ensure!(status.message().contains("26000"), "{status:?}");
    ensure!(fetch(&mut first, info).await?.len() == 1);
    first.set_token("wrong".to_owned());
    let status = refused(query(&mut first, "SELECT 1").await)?;
    ensure!(status.message().contains("28000"), "{status:?}");
    Ok(())
}

/// A client that goes away in the middle of its rows ends its query.
async fn cancel(addr: SocketAddr) -> Result<()> {
    let mut client = connect(addr).await?;
    let info = client
        .execute("SELECT a FROM generate_series(1, 1000000) a, generate_series(1, 1000000) b".to_owned(), None)
        .await?;
    let ticket = info.endpoint[0].ticket.clone().context("no ticket")?;
    let mut stream = client.do_get(ticket).await?;
    ensure!(stream.try_next().await?.is_some());
    drop(stream);
    let begun = std::time::Instant::now();
    let running = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%1000000%' AND query NOT LIKE '%pg_stat%'";
    while one_number(&mut client, running).await? > 0 {
        ensure!(begun.elapsed().as_secs() < 30, "the query still runs");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    client.execute_update("SET statement_timeout = '200ms'".to_owned(), None).await?;
    let late =
        query(&mut client, "SELECT sum(a * b) FROM generate_series(1, 1000000) a, generate_series(1, 1000000) b").await;
    let status = refused(late)?;
    ensure!(status.message().contains("57014"), "{status:?}");
    Ok(())
}

async fn password(addr: SocketAddr) -> Result<()> {
    let mut client = connect(addr).await?;
    ensure!(refused(query(&mut client, "SELECT 1").await)?.message().contains("28000"));
    ensure!(client.handshake("tidewater", "wrong").await.is_err());
    ensure!(client.handshake("nobody", "swordfish").await.is_err());
    client.handshake("tidewater", "swordfish").await?;
    ensure!(query(&mut client, "SELECT 1").await?.len() == 1);
    let mut others = Vec::new();
    for _ in 0..2 {
        let mut other = connect(addr).await?;
        other.handshake("tidewater", "swordfish").await?;
        others.push(other);
    }
    let mut one_more = connect(addr).await?;
    let Err(e) = one_more.handshake("tidewater", "swordfish").await else { bail!("a fourth session was opened") };
    ensure!(e.to_string().contains("53300"), "{e}");
    Ok(())
}
