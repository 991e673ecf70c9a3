//! Against a real broker: `TIDEWATER_TEST_KAFKA=host:port` (and `TIDEWATER_TEST_KAFKA_SASL` for the sign-in test),
//! run with `--ignored`. What a mock broker gets wrong is what these are about: isolation, control records,
//! retention, topic ids.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{AsArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Int32Type, Int64Type, TimeUnit};
use datafusion::physical_plan::displayable;
use datafusion::prelude::{SessionConfig, SessionContext};
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use tidewater_catalogs::{
    ConnectionSpec, ErrorKind, Offsets, OnError, ReadBatch, ReadRequest, StartPosition, StreamColumn, StreamConnector,
    StreamFormat, StreamReader, StreamSource, StreamSpec, TableName,
};

use crate::KafkaConnector;

fn brokers() -> String {
    std::env::var("TIDEWATER_TEST_KAFKA").expect("TIDEWATER_TEST_KAFKA=host:port")
}

fn connection(extra: &[(&str, &str)]) -> ConnectionSpec {
    let mut options = BTreeMap::from([("brokers".to_owned(), brokers())]);
    options.extend(extra.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())));
    ConnectionSpec { name: "k".into(), kind: "kafka".into(), options }
}

async fn topic(name: &str, partitions: i32) -> String {
    let nanos = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos();
    let topic = format!("{name}-{nanos}");
    KafkaConnector::new().create_topic(&connection(&[]), &topic, partitions).await.unwrap();
    topic
}

fn spec(topic: &str) -> StreamSpec {
    StreamSpec {
        name: TableName::public("s"),
        connection: connection(&[]),
        topic: topic.to_owned(),
        format: StreamFormat::Json,
        columns: vec![
            StreamColumn::Value(Field::new("id", DataType::Int64, false)),
            StreamColumn::Value(Field::new("name", DataType::Utf8, true)),
        ],
        start: StartPosition::Earliest,
        on_error: OnError::Dlq,
        read_uncommitted: false,
        key_column: None,
    }
}

fn source(spec: StreamSpec) -> Arc<dyn StreamSource> {
    KafkaConnector::new().source(spec).unwrap()
}

fn producer(transactional: Option<&str>) -> ThreadedProducer<DefaultProducerContext> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers()).set("linger.ms", "5");
    if let Some(id) = transactional {
        config.set("transactional.id", id);
    }
    config.create().unwrap()
}

fn send(producer: &ThreadedProducer<DefaultProducerContext>, topic: &str, partition: i32, value: &str) {
    send_at(producer, topic, partition, value, None);
}

fn send_at(
    producer: &ThreadedProducer<DefaultProducerContext>,
    topic: &str,
    partition: i32,
    value: &str,
    timestamp: Option<i64>,
) {
    loop {
        let mut record = BaseRecord::<str, str>::to(topic).partition(partition).payload(value).key("k");
        if let Some(ms) = timestamp {
            record = record.timestamp(ms);
        }
        match producer.send(record) {
            Ok(()) => return,
            Err(_) => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}

/// Reads until every partition has reached `to`, checking that offsets chain.
async fn read_to(reader: &mut Box<dyn StreamReader>, from: &Offsets, to: &Offsets) -> Vec<ReadBatch> {
    let mut at = from.clone();
    let mut batches = Vec::new();
    while !at.covers(to) {
        let batch = tokio::time::timeout(Duration::from_secs(20), reader.next()).await.expect("in time").unwrap();
        assert_eq!(at.get(batch.partition), Some(batch.from), "no gap");
        at.set(batch.partition, batch.to);
        batches.push(batch);
    }
    batches
}

fn ids(batches: &[ReadBatch]) -> Vec<i64> {
    let mut ids: Vec<i64> =
        batches.iter().flat_map(|b| b.rows.column(0).as_primitive::<Int64Type>().values().to_vec()).collect();
    ids.sort_unstable();
    ids
}

async fn open(source: &Arc<dyn StreamSource>, from: &Offsets) -> Box<dyn StreamReader> {
    let request =
        ReadRequest { from: from.clone(), projection: vec![0], on_error: OnError::Dlq, buffer_bytes: 1 << 20 };
    source.open(request).await.unwrap()
}

async fn query(source: &Arc<dyn StreamSource>, sql: &str) -> (Vec<RecordBatch>, String) {
    let ctx = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(2));
    ctx.register_table("t", source.bounded().await.unwrap()).unwrap();
    let plan = ctx.sql(sql).await.unwrap().create_physical_plan().await.unwrap();
    let shown = displayable(plan.as_ref()).indent(false).to_string();
    (datafusion::physical_plan::collect(plan, ctx.task_ctx()).await.unwrap(), shown)
}

/// Waits until partition 0 ends at `offset`.
async fn high(source: &Arc<dyn StreamSource>, offset: i64) -> tidewater_catalogs::TopicLayout {
    for _ in 0..200 {
        let layout = source.layout().await.unwrap();
        if layout.partitions[0].high >= offset {
            assert_eq!(layout.partitions[0].high, offset);
            return layout;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the topic never reached {offset}");
}

fn count(batches: &[RecordBatch]) -> usize {
    batches.iter().map(RecordBatch::num_rows).sum()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a broker"]
async fn aborted_records_never_appear_and_positions_pass_control_records() {
    let topic = topic("txn", 1).await;
    let committed = producer(Some(&format!("{topic}-a")));
    committed.init_transactions(Duration::from_secs(20)).unwrap();
    for (round, commit) in [(0, true), (1, false), (2, true), (3, false)] {
        committed.begin_transaction().unwrap();
        for i in 0..10 {
            send(&committed, &topic, 0, &format!("{{\"id\":{}}}", round * 10 + i));
        }
        committed.flush(Duration::from_secs(20)).unwrap();
        if commit {
            committed.commit_transaction(Duration::from_secs(20)).unwrap();
        } else {
            committed.abort_transaction(Duration::from_secs(20)).unwrap();
        }
    }
    let source = source(spec(&topic));
    // Markers are written behind the producer's back.
    let layout = high(&source, 44).await;
    assert_eq!(layout.partitions[0].low, 0);
    assert!(!layout.topic_id.is_empty() && !layout.cluster_id.is_empty());
    let from = layout.lows();
    let mut reader = open(&source, &from).await;
    let batches = read_to(&mut reader, &from, &layout.highs()).await;
    let wanted: Vec<i64> = (0..10).chain(20..30).collect();
    assert_eq!(ids(&batches), wanted);
    assert_eq!(batches.last().unwrap().to, 44, "behind the last marker");

    let (rows, plan) = query(&source, "SELECT id FROM t").await;
    assert_eq!(count(&rows), 20, "{plan}");
    let (rows, _) = query(&source, "SELECT id FROM t WHERE _offset >= 33").await;
    assert_eq!(count(&rows), 0, "only aborted records and markers");

    // An open transaction: the end is where it begins, for questions and for reads.
    committed.begin_transaction().unwrap();
    send(&committed, &topic, 0, "{\"id\":100}");
    committed.flush(Duration::from_secs(20)).unwrap();
    let other = producer(None);
    send(&other, &topic, 0, "{\"id\":200}");
    other.flush(Duration::from_secs(20)).unwrap();
    let layout = source.layout().await.unwrap();
    assert_eq!(layout.partitions[0].high, 44, "the last stable offset");
    assert_eq!(count(&query(&source, "SELECT id FROM t").await.0), 20);
    let mut dirty = spec(&topic);
    dirty.read_uncommitted = true;
    let dirty = self::source(dirty);
    assert_eq!(dirty.layout().await.unwrap().partitions[0].high, 46);
    assert_eq!(count(&query(&dirty, "SELECT id FROM t").await.0), 42);
    committed.commit_transaction(Duration::from_secs(20)).unwrap();
    let layout = high(&source, 47).await;
    let mut from = Offsets::default();
    from.set(0, 44);
    let more = read_to(&mut reader, &from, &layout.highs()).await;
    assert_eq!(ids(&more), vec![100, 200]);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a broker"]
async fn offsets_lost_to_retention_are_data_loss() {
    let topic = topic("retention", 2).await;
    let producer = producer(None);
    for i in 0..100 {
        send(&producer, &topic, 0, &format!("{{\"id\":{i}}}"));
    }
    producer.flush(Duration::from_secs(20)).unwrap();
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", brokers()).create().unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(&topic, 0, Offset::Offset(40)).unwrap();
    admin.delete_records(&list, &AdminOptions::new()).await.unwrap();

    let source = source(spec(&topic));
    let layout = source.layout().await.unwrap();
    assert_eq!((layout.partitions[0].low, layout.partitions[0].high), (40, 100));
    for (from, message) in
        [(10, "kafka no longer holds offsets 10 to 39"), (200, "the partition ends at offset 100, before 200")]
    {
        let mut offsets = Offsets::default();
        offsets.set(0, from);
        let mut reader = open(&source, &offsets).await;
        for _ in 0..2 {
            let e = tokio::time::timeout(Duration::from_secs(20), reader.next()).await.expect("in time").unwrap_err();
            assert_eq!((e.kind(), e.message()), (ErrorKind::DataLoss, message));
        }
    }
    assert_eq!(count(&query(&source, "SELECT id FROM t").await.0), 60);
    assert_eq!(count(&query(&source, "SELECT id FROM t WHERE _offset < 50").await.0), 10);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a broker"]
async fn seeks_limits_times_and_malformed_records() {
    let topic = topic("seek", 4).await;
    let producer = producer(None);
    // Old records would be gone at once: retention goes by these times.
    let start = (chrono::Utc::now().timestamp() - 1000) * 1000;
    let at = |ms: i64| chrono::DateTime::from_timestamp_millis(start + ms).unwrap().to_rfc3339();
    for partition in 0..4 {
        for i in 0..1000i64 {
            let value = if i % 100 == 99 { "oops".to_owned() } else { format!("{{\"id\":{i},\"name\":\"n{i}\"}}") };
            send_at(&producer, &topic, partition, &value, Some(start + i * 1000));
        }
    }
    producer.flush(Duration::from_secs(20)).unwrap();
    let source = source(spec(&topic));
    let total = |rows: &[RecordBatch]| rows[0].column(0).as_primitive::<Int64Type>().value(0);

    assert_eq!(total(&query(&source, "SELECT count(*) FROM t").await.0), 3960);
    assert_eq!(total(&query(&source, "SELECT count(name) FROM t").await.0), 3960);
    assert_eq!(count(&query(&source, "SELECT * FROM t").await.0), 3960);

    let (rows, plan) =
        query(&source, "SELECT _offset, id FROM t WHERE _partition = 3 AND _offset BETWEEN 100 AND 200").await;
    assert_eq!(count(&rows), 100);
    assert!(plan.contains("offsets=[3: 100..201]") && !plan.contains("FilterExec"), "{plan}");
    let offsets: Vec<i64> =
        rows.iter().flat_map(|b| b.column(0).as_primitive::<Int64Type>().values().to_vec()).collect();
    assert!(offsets.iter().all(|o| (100..=200).contains(o) && *o != 199));

    let (rows, plan) = query(&source, "SELECT id FROM t WHERE _partition IN (1,2) LIMIT 7").await;
    assert_eq!(count(&rows), 7);
    assert!(plan.contains("limit=7") && !plan.contains("0: 0.."), "{plan}");

    // 990 s after the first: offset 990 and later.
    let sql = format!("SELECT _partition, _offset FROM t WHERE _timestamp >= '{}'", at(990_000));
    let (rows, plan) = query(&source, &sql).await;
    assert_eq!(count(&rows), 4 * 9, "{plan}");
    assert!(plan.contains("0: 990..1000"), "{plan}");
    let (rows, plan) = query(&source, "SELECT id FROM t WHERE _timestamp > '2100-01-01T00:00:00Z'").await;
    assert_eq!(count(&rows), 0);
    assert!(plan.contains("offsets=[]"), "{plan}");

    let mut failing = spec(&topic);
    failing.on_error = OnError::Fail;
    let failing = self::source(failing);
    let ctx = SessionContext::new();
    ctx.register_table("t", failing.bounded().await.unwrap()).unwrap();
    let e = ctx.sql("SELECT count(*) FROM t").await.unwrap().collect().await.unwrap_err();
    assert_eq!(tidewater_catalogs::Error::from(e).kind(), ErrorKind::DataCorrupt);

    let starts = source.start_offsets(&StartPosition::Timestamp(start + 500_000)).await.unwrap();
    assert_eq!(starts.get(2), Some(500));
    let starts = source.start_offsets(&StartPosition::Timestamp(start + 5_000_000)).await.unwrap();
    assert_eq!(starts.get(2), Some(1000));

    let from = source.start_offsets(&StartPosition::Earliest).await.unwrap();
    let to = source.start_offsets(&StartPosition::Latest).await.unwrap();
    let mut reader = open(&source, &from).await;
    let batches = read_to(&mut reader, &from, &to).await;
    assert_eq!(ids(&batches).len(), 3960);
    let dead: usize = batches.iter().filter_map(|b| b.dead_letters.as_ref()).map(RecordBatch::num_rows).sum();
    assert_eq!(dead, 40);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a broker"]
async fn what_is_inserted_is_read_back_and_inferred() {
    let topic = topic("insert", 2).await;
    let mut spec = spec(&topic);
    spec.key_column = Some("name".into());
    let source = source(spec);
    let infer = || async { KafkaConnector::new().infer(&connection(&[]), &topic, StreamFormat::Json, 100).await };
    assert!(infer().await.unwrap_err().detail().unwrap().contains("no records yet"));
    let batch = RecordBatch::try_from_iter([
        ("id", Arc::new(Int64Array::from_iter_values(0..20_000)) as _),
        ("name", Arc::new(StringArray::from_iter_values((0..20_000).map(|i| format!("n\"{}", i % 7)))) as _),
    ])
    .unwrap();
    let mut writer = source.writer().await.unwrap();
    writer.write(&batch).await.unwrap();
    assert_eq!(writer.finish().await.unwrap(), 20_000);
    let (rows, _) =
        query(&source, "SELECT count(distinct id), count(distinct name), count(distinct _key) FROM t").await;
    let n = |i: usize| rows[0].column(i).as_primitive::<Int64Type>().value(0);
    assert_eq!((n(0), n(1), n(2)), (20_000, 7, 7));
    let (rows, _) = query(&source, "SELECT DISTINCT _partition FROM t WHERE name = 'n\"3'").await;
    assert_eq!(count(&rows), 1, "a key stays in its partition");
    assert!(
        rows.iter()
            .all(|b| b.column(0).data_type() == &DataType::Int32 && b.column(0).as_primitive::<Int32Type>().len() <= 1)
    );
    let fields = infer().await.unwrap();
    assert_eq!(fields, vec![Field::new("id", DataType::Int64, true), Field::new("name", DataType::Utf8, true)]);
    let writer = source.writer().await.unwrap();
    assert_eq!(writer.finish().await.unwrap(), 0);
}

fn threads() -> usize {
    let named = |entry: std::io::Result<std::fs::DirEntry>| {
        std::fs::read_to_string(entry.ok()?.path().join("comm")).ok().filter(|name| name.starts_with("kafka drop"))
    };
    std::fs::read_dir("/proc/self/task").unwrap().filter_map(named).count()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a broker"]
async fn a_dropped_reader_or_query_ends_its_thread() {
    let topic = topic("drop", 3).await;
    let producer = producer(None);
    for i in 0..30_000 {
        send(&producer, &topic, i % 3, &format!("{{\"id\":{i},\"name\":\"{}\"}}", "x".repeat(500)));
    }
    producer.flush(Duration::from_secs(20)).unwrap();
    let source = source(spec(&topic));
    let from = source.start_offsets(&StartPosition::Earliest).await.unwrap();
    let to = source.start_offsets(&StartPosition::Latest).await.unwrap();
    let gone = || async {
        for _ in 0..100 {
            if threads() == 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("{} threads left", threads());
    };
    // Idle at the end, blocked by a full queue, and in the middle of a query.
    let mut idle = open(&source, &from).await;
    read_to(&mut idle, &from, &to).await;
    assert_eq!(threads(), 1);
    drop(idle);
    gone().await;

    let request = ReadRequest { from: from.clone(), projection: vec![1], on_error: OnError::Dlq, buffer_bytes: 1 };
    let mut blocked = source.open(request).await.unwrap();
    blocked.next().await.unwrap();
    drop(blocked);
    gone().await;

    let ctx = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(3));
    ctx.register_table("t", source.bounded().await.unwrap()).unwrap();
    let mut rows = ctx.sql("SELECT * FROM t").await.unwrap().execute_stream().await.unwrap();
    futures::StreamExt::next(&mut rows).await.unwrap().unwrap();
    drop(rows);
    gone().await;
}

/// Slow to ask, little room, calls dropped at any time: every record still comes once.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a broker"]
async fn nothing_is_lost_under_back_pressure() {
    let topic = topic("pressure", 3).await;
    let producer = producer(None);
    for i in 0..50_000 {
        send(&producer, &topic, i % 3, &format!("{{\"id\":{i},\"name\":\"{}\"}}", "x".repeat(100)));
    }
    producer.flush(Duration::from_secs(20)).unwrap();
    let source = source(spec(&topic));
    let from = source.start_offsets(&StartPosition::Earliest).await.unwrap();
    let to = source.start_offsets(&StartPosition::Latest).await.unwrap();
    let request = ReadRequest { from: from.clone(), projection: vec![0], on_error: OnError::Dlq, buffer_bytes: 1000 };
    let mut reader = source.open(request).await.unwrap();
    let mut at = from.clone();
    let mut batches = Vec::new();
    let mut round = 0;
    while !at.covers(&to) {
        round += 1;
        let patience = Duration::from_micros(round % 7 * 300);
        let Ok(batch) = tokio::time::timeout(patience, reader.next()).await else { continue };
        let batch = batch.unwrap();
        assert_eq!(at.get(batch.partition), Some(batch.from));
        at.set(batch.partition, batch.to);
        batches.push(batch);
    }
    assert_eq!(ids(&batches), (0..50_000).collect::<Vec<i64>>());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a broker"]
async fn keys_headers_and_tombstones() {
    use rdkafka::message::{Header, OwnedHeaders};
    let topic = topic("meta", 1).await;
    let producer = producer(None);
    let headers = OwnedHeaders::new()
        .insert(Header { key: "region", value: Some("eu") })
        .insert(Header::<&str> { key: "none", value: None });
    producer
        .send(BaseRecord::<[u8], str>::to(&topic).payload("{\"id\":1}").key(&[0xff][..]).headers(headers))
        .map_err(|(e, _)| e)
        .unwrap();
    producer.send(BaseRecord::<str, str>::to(&topic).key("gone")).map_err(|(e, _)| e).unwrap();
    producer.send(BaseRecord::<str, str>::to(&topic).payload("")).map_err(|(e, _)| e).unwrap();
    producer.flush(Duration::from_secs(20)).unwrap();
    let mut spec = spec(&topic);
    let region = Field::new("region", DataType::Utf8, true);
    spec.columns.push(StreamColumn::Metadata { field: region, from: "header.region".into() });
    let source = source(spec);
    let (rows, _) = query(&source, "SELECT region, _headers, _key, _timestamp_type, _value FROM t").await;
    assert_eq!(count(&rows), 1);
    assert_eq!(rows[0].column(0).as_string::<i32>().value(0), "eu");
    assert_eq!(rows[0].column(1).as_string::<i32>().value(0), r#"{"region":"eu","none":null}"#);
    assert_eq!(rows[0].column(2).as_binary::<i32>().value(0), [0xff]);
    assert_eq!(rows[0].column(3).as_string::<i32>().value(0), "create");
    assert_eq!(rows[0].column(4).as_binary::<i32>().value(0), b"{\"id\":1}");
    let from = source.start_offsets(&StartPosition::Earliest).await.unwrap();
    let mut reader = open(&source, &from).await;
    let to = source.start_offsets(&StartPosition::Latest).await.unwrap();
    let batches = read_to(&mut reader, &from, &to).await;
    let dead: Vec<&RecordBatch> = batches.iter().filter_map(|b| b.dead_letters.as_ref()).collect();
    let errors: Vec<&str> = dead.iter().flat_map(|d| d.column(7).as_string::<i32>().iter().flatten()).collect();
    assert_eq!(errors, ["record has no value", "value is empty"]);
    assert_eq!(dead[0].column(4).as_binary::<i32>().value(0), b"gone");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a broker"]
async fn troubles_say_what_they_probably_are() {
    let probe = |options: &[(&str, &str)]| {
        let connection = connection(options);
        async move { KafkaConnector::new().probe(&connection).await }
    };
    probe(&[]).await.unwrap();
    let e = probe(&[("brokers", "127.0.0.1:1"), ("timeout", "5 s")]).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Unavailable);
    assert!(e.message().contains("nothing listens"), "{e:?}");
    let e = probe(&[("brokers", "no-such-host.invalid:9092"), ("timeout", "5 s")]).await.unwrap_err();
    assert!(e.message().contains("host name is not known"), "{e:?}");
    let e = probe(&[("security", "ssl"), ("timeout", "4 s")]).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Unavailable);
    println!("{e:?}");
    if let Ok(sasl) = std::env::var("TIDEWATER_TEST_KAFKA_SASL") {
        let signed = |password| {
            [
                ("brokers", sasl.as_str()),
                ("security", "sasl_plaintext"),
                ("sasl_mechanism", "scram-sha-256"),
                ("username", "bob"),
                ("password", password),
            ]
        };
        probe(&signed("bob-secret")).await.unwrap();
        let e = probe(&signed("wrong")).await.unwrap_err();
        assert_eq!(e.kind(), ErrorKind::PermissionDenied, "{e:?}");
        println!("{e:?}");
        // Also where nobody probed before, and where the client was kept; nobody waits for the timeout.
        let connector = KafkaConnector::new();
        let options = signed("wrong").into_iter().chain([("timeout", "10 min")]).collect::<Vec<_>>();
        for _ in 0..3 {
            let spec = StreamSpec { connection: connection(&options), ..spec("t") };
            let source = connector.source(spec).unwrap();
            let asked = tokio::time::timeout(Duration::from_secs(60), source.layout()).await;
            assert_eq!(asked.unwrap().unwrap_err().kind(), ErrorKind::PermissionDenied);
        }
        let e = probe(&[("brokers", &sasl), ("timeout", "4 s")]).await.unwrap_err();
        println!("{e:?}");
        assert_eq!(e.kind(), ErrorKind::Unavailable);
    }
    let missing = source(spec("no-such-topic-here"));
    assert_eq!(missing.layout().await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(missing.writer().await.err().unwrap().kind(), ErrorKind::NotFound);
    let request =
        ReadRequest { from: Offsets::default(), projection: vec![0], on_error: OnError::Dlq, buffer_bytes: 1 };
    assert_eq!(missing.open(request).await.err().unwrap().kind(), ErrorKind::NotFound);
}

/// Rows per CPU second of the reader, beside a bare poll loop over the same topic. Prints; judges nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
#[ignore = "needs a broker, and a quiet machine"]
async fn measure() {
    const ROWS: i64 = 300_000;
    let topic = topic("speed", 2).await;
    let producer = producer(None);
    for i in 0..ROWS {
        let value = format!(
            "{{\"event_id\":\"{i:032x}\",\"user_id\":{i},\"session\":\"s-{:08}\",\"at\":\"2024-05-01T12:{:02}:{:02}.123Z\",\
             \"url\":\"https://shop.example.com/products/{}/reviews?page={}&sort=newest\",\"price\":{}.{:02},\"qty\":{},\
             \"ok\":true,\"country\":\"DE\",\"agent\":\"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko)\",\
             \"tags\":[\"a\",\"b\",\"c\"],\"device\":{{\"os\":\"linux\",\"w\":1920,\"h\":1080}},\"note\":\"{}\"}}",
            i % 997,
            i % 60,
            i % 60,
            i % 5000,
            i % 9,
            i % 300,
            i % 100,
            i % 5,
            "lorem ipsum dolor sit amet ".repeat(20)
        );
        send(&producer, &topic, (i % 2) as i32, &value);
    }
    producer.flush(Duration::from_secs(60)).unwrap();
    let text = |n: &str| StreamColumn::Value(Field::new(n, DataType::Utf8, true));
    let mut wide = spec(&topic);
    wide.columns = vec![
        text("event_id"),
        StreamColumn::Value(Field::new("user_id", DataType::Int64, true)),
        text("session"),
        StreamColumn::Value(Field::new("at", DataType::Timestamp(TimeUnit::Microsecond, Some("+00:00".into())), true)),
        text("url"),
        StreamColumn::Value(Field::new("price", DataType::Float64, true)),
        StreamColumn::Value(Field::new("qty", DataType::Int64, true)),
        StreamColumn::Value(Field::new("ok", DataType::Boolean, true)),
        text("country"),
        text("agent"),
        StreamColumn::Value(Field::new_list("tags", Field::new("element", DataType::Utf8, true), true)),
        StreamColumn::Value(Field::new_struct(
            "device",
            vec![
                Field::new("os", DataType::Utf8, true),
                Field::new("w", DataType::Int64, true),
                Field::new("h", DataType::Int64, true),
            ],
            true,
        )),
        text("note"),
    ];
    let source = source(wide);
    let from = source.start_offsets(&StartPosition::Earliest).await.unwrap();
    let to = source.start_offsets(&StartPosition::Latest).await.unwrap();
    for (name, projection) in
        [("all 13 columns", (0..13).collect::<Vec<_>>()), ("5 columns", vec![1, 3, 5, 6, 8]), ("none", vec![])]
    {
        let request = ReadRequest { from: from.clone(), projection, on_error: OnError::Dlq, buffer_bytes: 32 << 20 };
        let (cpu, wall) = (cpu_seconds(), std::time::Instant::now());
        let mut reader = source.open(request).await.unwrap();
        let mut at = from.clone();
        let (mut rows, mut bytes) = (0, 0);
        while !at.covers(&to) {
            let batch = reader.next().await.unwrap();
            at.set(batch.partition, batch.to);
            rows += batch.rows.num_rows();
            bytes += batch.source_bytes;
        }
        let (cpu, wall) = (cpu_seconds() - cpu, wall.elapsed().as_secs_f64());
        println!(
            "reader, {name}: {rows} rows, {} MB, {wall:.2} s, {cpu:.2} CPU s, {:.0} rows/CPU s",
            bytes / 1_000_000,
            rows as f64 / cpu
        );
    }
    use rdkafka::Message;
    use rdkafka::consumer::{BaseConsumer, Consumer};
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers())
        .set("group.id", "bare")
        .set("enable.auto.commit", "false")
        .set("isolation.level", "read_committed")
        .set("check.crcs", "true")
        .set("fetch.min.bytes", "1048576")
        .set("max.partition.fetch.bytes", "8388608")
        .create()
        .unwrap();
    let mut list = TopicPartitionList::new();
    for p in 0..2 {
        list.add_partition_offset(&topic, p, Offset::Offset(0)).unwrap();
    }
    let (cpu, wall) = (cpu_seconds(), std::time::Instant::now());
    consumer.assign(&list).unwrap();
    let mut rows = 0;
    while rows < ROWS {
        if let Some(Ok(message)) = consumer.poll(Duration::from_millis(100)) {
            rows += i64::from(message.payload().is_some());
        }
    }
    let (cpu, wall) = (cpu_seconds() - cpu, wall.elapsed().as_secs_f64());
    println!("bare poll loop: {rows} rows, {wall:.2} s, {cpu:.2} CPU s, {:.0} rows/CPU s", rows as f64 / cpu);
}

/// User and system time of this process, from the scheduler's ticks.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}
