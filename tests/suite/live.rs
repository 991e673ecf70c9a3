//! Reads of rows that are not committed yet, and SUBSCRIBE, over real sockets while records arrive.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::{StreamExt, TryStreamExt};
use libtest_mimic::Trial;
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use tidewater_tests::{Client, EmbeddedServer, connect, create_topic, wait_for};
use tokio_postgres::{NoTls, SimpleQueryMessage};

use crate::crash::failed;

const LIMIT: Duration = Duration::from_secs(60);

pub fn trials() -> Vec<Trial> {
    let trial =
        |name: &str, run: fn() -> Result<()>| Trial::test(format!("live/{name}"), move || run().map_err(failed));
    vec![
        trial("reads_are_whole_while_a_flow_commits", reads_are_whole),
        trial("subscribe_resumes_without_gap_or_double", subscribe_resumes),
        trial("subscribe_ends_when_cancelled_or_left", subscribe_ends),
        trial("subscribe_is_copied_out_as_it_comes", subscribe_is_copied),
        trial("subscribe_waits_for_a_slow_reader", subscribe_waits),
    ]
}

/// Records `{"n": 0}`, `{"n": 1}`, … in the one partition of a topic, until it is dropped.
struct Counting {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    thread: Option<std::thread::JoinHandle<Result<()>>>,
}

fn producer(brokers: &str) -> Result<ThreadedProducer<DefaultProducerContext>> {
    Ok(ClientConfig::new().set("bootstrap.servers", brokers).set("linger.ms", "5").create()?)
}

fn send(producer: &ThreadedProducer<DefaultProducerContext>, topic: &str, text: &str) -> Result<()> {
    let mut record = BaseRecord::<(), str>::to(topic).partition(0).payload(text);
    while let Err((e, back)) = producer.send(record) {
        ensure!(e.rdkafka_error_code() == Some(rdkafka::types::RDKafkaErrorCode::QueueFull), "{e}");
        std::thread::sleep(Duration::from_millis(2));
        record = back;
    }
    Ok(())
}

impl Counting {
    fn start(brokers: &str, topic: &'static str) -> Result<Self> {
        let producer = producer(brokers)?;
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, counter) = (stop.clone(), sent.clone());
        let thread = std::thread::spawn(move || {
            let mut n = 0_u64;
            while !stopped.load(Ordering::SeqCst) {
                for _ in 0..10 {
                    send(&producer, topic, &format!("{{\"n\":{n}}}"))?;
                    n += 1;
                }
                counter.store(n, Ordering::SeqCst);
                std::thread::sleep(Duration::from_millis(4));
            }
            producer.flush(LIMIT)?;
            Ok(())
        });
        Ok(Self { stop, sent, thread: Some(thread) })
    }

    /// Ends it; returns how many there are.
    fn finish(mut self) -> Result<u64> {
        self.stop.store(true, Ordering::SeqCst);
        let thread = self.thread.take().context("ended once")?;
        thread.join().map_err(|_| anyhow::anyhow!("the producer panicked"))??;
        Ok(self.sent.load(Ordering::SeqCst))
    }
}

impl Drop for Counting {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
    }
}

fn scene(topic: &'static str) -> Result<(EmbeddedServer, Client)> {
    let server = EmbeddedServer::start(&[])?;
    let broker = server.broker_addr().to_string();
    tokio::runtime::Runtime::new()?.block_on(create_topic(&broker, topic, 1))?;
    let client = Client::connect(server.pg_addr())?;
    client.run(&format!(
        "CREATE CONNECTION k TO KAFKA WITH (brokers = '{broker}');
         CREATE STREAM {topic} (n BIGINT, note TEXT) WITH (connection = 'k', topic = '{topic}');"
    ))?;
    Ok((server, client))
}

/// Polls until told to stop. Returns how many reads there were.
fn poll(server: std::net::SocketAddr, stop: &AtomicBool) -> Result<u64> {
    let client = Client::connect(server)?;
    let (mut last, mut last_counted, mut reads) = (0, 0, 0);
    while !stop.load(Ordering::SeqCst) {
        // By scanning, and from statistics.
        let scanned = client.rows("SELECT count(*), count(DISTINCT n), max(n) + 1, min(n) FROM kept WHERE n >= 0")?;
        let scanned: Vec<i64> =
            scanned[0].iter().map(|v| v.as_deref().map_or(Ok(0), str::parse)).collect::<Result<_, _>>()?;
        let count = scanned[0];
        ensure!(scanned[..3] == [count, count, count] && scanned[3] == 0, "read {reads}: {scanned:?}");
        ensure!(count >= last, "read {reads} stepped back from {last} to {count}");
        let counted: i64 = client.value("SELECT count(*) FROM kept")?.parse()?;
        ensure!(counted >= count && counted >= last_counted, "read {reads} counted {counted} after {last_counted}");
        (last, last_counted) = (count, counted);
        reads += 1;
    }
    Ok(reads)
}

fn reads_are_whole() -> Result<()> {
    let (server, client) = scene("numbers")?;
    client.run(
        "CREATE STREAMING TABLE kept WITH (commit_interval = '150 ms') AS SELECT n FROM STREAM numbers WHERE n >= 0",
    )?;
    let producer = Counting::start(&server.broker_addr().to_string(), "numbers")?;
    let stop = AtomicBool::new(false);
    let addr = server.pg_addr();
    let (reads, ahead) = std::thread::scope(|scope| -> Result<(u64, u64)> {
        let polls: Vec<_> = (0..2).map(|_| scope.spawn(|| poll(addr, &stop))).collect();
        let steer = || -> Result<u64> {
            let mut ahead = 0;
            let until = Instant::now() + Duration::from_secs(6);
            while Instant::now() < until {
                for _ in 0..12 {
                    let count = |table: &str| -> Result<i64> {
                        Ok(client.value(&format!("SELECT count(*) FROM {table}"))?.parse()?)
                    };
                    // What is committed is asked last, and has had more time.
                    let live = count("\"kept$live\"")?;
                    ahead += u64::from(live > count("\"kept$committed\"")?);
                    std::thread::sleep(Duration::from_millis(40));
                }
                client.run("ALTER FLOW kept PAUSE")?;
                // Someone else commits to the table, too.
                client.run("INSERT INTO kept VALUES (NULL)")?;
                client.run("ALTER FLOW kept RESUME")?;
            }
            Ok(ahead)
        };
        let ahead = steer();
        stop.store(true, Ordering::SeqCst);
        let mut reads = 0;
        for poll in polls {
            reads += poll.join().map_err(|_| anyhow::anyhow!("a reader panicked"))??;
        }
        Ok((reads, ahead?))
    })?;
    ensure!(reads > 20, "{reads} reads only");
    ensure!(ahead > 0, "no read saw rows before they were committed");
    let sent = producer.finish()?;
    for table in ["kept", "\"kept$committed\""] {
        wait_for("all rows", LIMIT, || {
            let count: u64 = client.value(&format!("SELECT count(n) FROM {table}"))?.parse()?;
            ensure!(count <= sent, "{count} rows of {sent}");
            Ok((count == sent).then_some(()))
        })?;
    }
    Ok(())
}

fn subscribe_resumes() -> Result<()> {
    let (server, _client) = scene("numbers")?;
    let producer = Counting::start(&server.broker_addr().to_string(), "numbers")?;
    let addr = server.pg_addr();
    let runtime = tokio::runtime::Runtime::new()?;
    let seen = runtime.block_on(async {
        let mut seen: Vec<(i64, i64)> = Vec::new();
        for round in 0..6 {
            let client = connect(addr).await?;
            let from = match seen.last() {
                None => "SNAPSHOT".to_owned(),
                Some((offset, _)) => format!("OFFSETS '{{\"0\": {}}}'", offset + 1),
            };
            let sql = format!("SUBSCRIBE (SELECT _offset, n FROM STREAM numbers WHERE n % 2 = 0) FROM {from}");
            // One half over each protocol.
            if round % 2 == 0 {
                let rows = client.query_raw(&sql, Vec::<String>::new()).await?;
                let mut rows = std::pin::pin!(rows);
                for _ in 0..150 {
                    let row = rows.next().await.context("the rows ended")??;
                    seen.push((row.get(0), row.get(1)));
                }
            } else {
                let rows = client.simple_query_raw(&sql).await?;
                let mut rows = std::pin::pin!(rows);
                let mut got = 0;
                while got < 150 {
                    if let SimpleQueryMessage::Row(row) = rows.next().await.context("the rows ended")?? {
                        seen.push((row.get(0).unwrap_or("").parse()?, row.get(1).unwrap_or("").parse()?));
                        got += 1;
                    }
                }
            }
        }
        anyhow::Ok(seen)
    })?;
    let expected: Vec<(i64, i64)> = (0..900).map(|i| (2 * i, 2 * i)).collect();
    ensure!(seen == expected, "rows differ: {:?}", seen.iter().zip(&expected).find(|(a, b)| a != b));
    producer.finish()?;
    Ok(())
}

fn subscribe_ends() -> Result<()> {
    let (server, client) = scene("numbers")?;
    let broker = server.broker_addr().to_string();
    let producer = producer(&broker)?;
    send(&producer, "numbers", "{\"n\":1}")?;
    send(&producer, "numbers", "not JSON")?;
    send(&producer, "numbers", "{\"n\":2}")?;
    producer.flush(LIMIT)?;
    let addr = server.pg_addr();
    const RUNNING: &str = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE 'SUBSCRIBE%'";
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        let subscriber = connect(addr).await?;
        let cancel = subscriber.cancel_token();
        let rows = subscriber.query_raw("SUBSCRIBE (SELECT n FROM STREAM numbers) FROM SNAPSHOT", Vec::<String>::new());
        let mut rows = std::pin::pin!(rows.await?);
        let mut seen = BTreeSet::new();
        for _ in 0..2 {
            seen.insert(rows.next().await.context("the rows ended")??.get::<_, i64>(0));
        }
        ensure!(seen == BTreeSet::from([1, 2]), "{seen:?}");
        let listed: i64 = connect(addr).await?.query_one(RUNNING, &[]).await?.get(0);
        ensure!(listed == 1, "{listed} are listed");
        cancel.cancel_query(NoTls).await?;
        let error = tokio::time::timeout(LIMIT, rows.try_next()).await?.err().context("it was not cancelled")?;
        ensure!(error.code().map(|c| c.code()) == Some("57014"), "{error}");
        // The connection goes on.
        ensure!(subscriber.query_one("SELECT 1 AS one", &[]).await?.get::<_, i64>(0) == 1);
        anyhow::Ok(())
    })?;
    // A client that goes away without a word.
    runtime.block_on(async {
        let subscriber = connect(addr).await?;
        let rows = subscriber.query_raw("SUBSCRIBE (SELECT n FROM STREAM numbers)", Vec::<String>::new()).await?;
        drop(rows);
        drop(subscriber);
        anyhow::Ok(())
    })?;
    drop(runtime);
    wait_for("the subscriptions to end", LIMIT, || Ok((client.value(RUNNING)? == "0").then_some(())))
}

/// psql shows the rows of a COPY at once, and those of anything else when it has them all.
fn subscribe_is_copied() -> Result<()> {
    let (server, _client) = scene("numbers")?;
    let producer = producer(&server.broker_addr().to_string())?;
    send(&producer, "numbers", r#"{"n":1,"note":"tab\t and \\ and\nline"}"#)?;
    send(&producer, "numbers", r#"{"n":2}"#)?;
    producer.flush(LIMIT)?;
    let addr = server.pg_addr();
    tokio::runtime::Runtime::new()?.block_on(async {
        let client = connect(addr).await?;
        let cancel = client.cancel_token();
        let copied = client.copy_out("COPY (SUBSCRIBE (SELECT n, note FROM STREAM numbers) FROM SNAPSHOT) TO STDOUT");
        let mut copied = std::pin::pin!(copied.await?);
        let mut text = String::new();
        while text.matches('\n').count() < 2 {
            text.push_str(std::str::from_utf8(&copied.next().await.context("the copy ended")??)?);
        }
        ensure!(text == "1\ttab\\t and \\\\ and\\nline\n2\t\\N\n", "{text:?}");
        // It goes on with what comes.
        send(&producer, "numbers", r#"{"n":3,"note":""}"#)?;
        let line = copied.next().await.context("the copy ended")??;
        ensure!(&line[..] == b"3\t\n", "{line:?}");
        cancel.cancel_query(NoTls).await?;
        let error = tokio::time::timeout(LIMIT, copied.try_next()).await?.err().context("it was not cancelled")?;
        ensure!(error.code().map(|c| c.code()) == Some("57014"), "{error}");
        let copied = client.copy_out("COPY (SELECT 1 AS a, 'x' AS b) TO STDOUT").await?;
        let whole: Vec<_> = copied.try_collect().await?;
        ensure!(whole.concat() == b"1\tx\n", "{whole:?}");
        ensure!(client.query_one("SELECT 1 AS one", &[]).await?.get::<_, i64>(0) == 1);
        anyhow::Ok(())
    })
}

/// What the connector has read of a topic so far.
fn records_read(http: std::net::SocketAddr, topic: &str) -> Result<u64> {
    let mut socket = std::net::TcpStream::connect(http)?;
    socket.write_all(b"GET /metrics HTTP/1.0\r\n\r\n")?;
    let mut text = String::new();
    socket.read_to_string(&mut text)?;
    let name = format!("tidewater_kafka_records_total{{topic=\"{topic}\"}} ");
    let line = text.lines().find_map(|l| l.strip_prefix(&name)).unwrap_or("0");
    Ok(line.trim().parse::<f64>()? as u64)
}

fn subscribe_waits() -> Result<()> {
    const ROWS: u64 = 60_000;
    let (server, _client) = scene("large")?;
    let producer = producer(&server.broker_addr().to_string())?;
    let note = "x".repeat(1000);
    for n in 0..ROWS {
        send(&producer, "large", &format!("{{\"n\":{n},\"note\":\"{note}\"}}"))?;
    }
    producer.flush(LIMIT)?;
    let (addr, http) = (server.pg_addr(), server.http_addr());
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        let client = connect(addr).await?;
        let sql =
            format!("SUBSCRIBE (SELECT n, note FROM STREAM large) FROM SNAPSHOT UNTIL OFFSETS '{{\"0\": {ROWS}}}'");
        let rows = client.query_raw(&sql, Vec::<String>::new()).await?;
        let mut rows = std::pin::pin!(rows);
        let first: i64 = rows.next().await.context("no rows")??.get(0);
        ensure!(first == 0);
        // Nobody reads: the reader fills its buffers, and stops.
        let mut before = u64::MAX;
        let stopped = wait_for("the reader to stop", LIMIT, || {
            std::thread::sleep(Duration::from_millis(300));
            let now = records_read(http, "large")?;
            Ok((std::mem::replace(&mut before, now) == now).then_some(now))
        })?;
        ensure!(stopped < ROWS * 9 / 10, "{stopped} records were read ahead of a client that does not read");
        let mut expected = 1;
        while let Some(row) = rows.next().await {
            let n: i64 = row?.get(0);
            ensure!(n == expected, "row {n} came instead of {expected}");
            expected += 1;
        }
        ensure!(expected == ROWS as i64, "the rows ended at {expected}");
        anyhow::Ok(())
    })
}
