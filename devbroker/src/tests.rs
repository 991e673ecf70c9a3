#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::{
    ApiKey, FetchRequest, FetchResponse, InitProducerIdRequest, InitProducerIdResponse, ProduceRequest,
    ProduceResponse, RequestHeader, ResponseHeader, TopicName,
};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer, StreamConsumer};
use rdkafka::producer::{FutureProducer, FutureRecord, Producer};
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};

use crate::batch::tests::batch;
use crate::{DevBroker, DevBrokerConfig, TopicOptions};

/// Of the record with value 0; librdkafka takes a plain 0 for "now".
const FIRST_TIME: i64 = 1_000_000;
const WAIT: Duration = Duration::from_secs(20);

fn config(dir: &tempfile::TempDir) -> DevBrokerConfig {
    DevBrokerConfig { segment_bytes: 64 << 10, ..DevBrokerConfig::new(dir.path()) }
}

fn start(dir: &tempfile::TempDir) -> DevBroker {
    DevBroker::start(config(dir)).unwrap()
}

fn client(broker: &DevBroker) -> ClientConfig {
    let mut c = ClientConfig::new();
    c.set("bootstrap.servers", broker.addr().to_string());
    c
}

fn admin(broker: &DevBroker) -> AdminClient<DefaultClientContext> {
    client(broker).create().unwrap()
}

async fn create(broker: &DevBroker, name: &str, partitions: i32) {
    let topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
    let done = admin(broker).create_topics([&topic], &AdminOptions::new()).await.unwrap();
    done[0].as_ref().unwrap();
}

async fn produce(broker: &DevBroker, topic: &str, partition: i32, values: std::ops::Range<i64>) {
    let producer: FutureProducer =
        client(broker).set("enable.idempotence", "true").set("linger.ms", "5").create().unwrap();
    let sent: Vec<_> = values
        .map(|v| {
            let (key, payload) = (format!("k{v}"), format!("{v}"));
            let record =
                FutureRecord::to(topic).partition(partition).timestamp(FIRST_TIME + v * 10).key(&key).payload(&payload);
            producer.send_result(record).unwrap()
        })
        .collect();
    for delivery in sent {
        delivery.await.unwrap().unwrap();
    }
}

fn consumer(broker: &DevBroker, topic: &str, partition: i32, from: Offset) -> BaseConsumer {
    let consumer: BaseConsumer = client(broker)
        .set("group.id", "none")
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "error")
        .create()
        .unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, partition, from).unwrap();
    consumer.assign(&list).unwrap();
    consumer
}

/// Values with their offsets until the end of the partition.
fn read(broker: &DevBroker, topic: &str, partition: i32, from: Offset) -> Vec<(i64, i64)> {
    let consumer = consumer(broker, topic, partition, from);
    let (_, end) = consumer.fetch_watermarks(topic, partition, WAIT).unwrap();
    let mut got = Vec::new();
    while got.last().is_none_or(|(offset, _)| offset + 1 < end) {
        let message = consumer.poll(WAIT).expect("a record in time").unwrap();
        let value = std::str::from_utf8(message.payload().unwrap()).unwrap().parse().unwrap();
        got.push((message.offset(), value));
    }
    got
}

fn same(range: std::ops::Range<i64>) -> Vec<(i64, i64)> {
    range.map(|v| (v, v)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_topics_and_ids_outlive_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(&dir);
    let cluster = broker.cluster_id().to_owned();
    create(&broker, "t", 2).await;
    produce(&broker, "t", 0, 0..1_000).await;
    assert_eq!(read(&broker, "t", 0, Offset::Beginning), same(0..1_000));
    assert_eq!(read(&broker, "t", 0, Offset::Offset(997)), same(997..1_000));
    drop(broker);

    // A kill in the middle of a write.
    let open = last_segment(dir.path());
    std::fs::OpenOptions::new()
        .append(true)
        .open(open)
        .unwrap()
        .write_all(&[0, 0, 0, 0, 0, 0, 3, 232, 0, 0, 9])
        .unwrap();
    let broker = restart(&dir).await;
    assert_eq!(broker.cluster_id(), cluster);
    assert_eq!(broker.next_offsets("t"), 1_000);
    produce(&broker, "t", 0, 1_000..1_100).await;
    produce(&broker, "t", 1, 0..5).await;
    assert_eq!(read(&broker, "t", 0, Offset::Beginning), same(0..1_100));
    assert_eq!(read(&broker, "t", 1, Offset::Beginning), same(0..5));
    broker.shutdown().await;
}

/// The lock goes when the last thread of the former broker has let go of it.
async fn restart(dir: &tempfile::TempDir) -> DevBroker {
    loop {
        match DevBroker::start(config(dir)) {
            Err(crate::Error::Locked { .. }) => tokio::time::sleep(Duration::from_millis(20)).await,
            started => return started.unwrap(),
        }
    }
}

fn last_segment(dir: &std::path::Path) -> std::path::PathBuf {
    let topic = std::fs::read_dir(dir.join("topics")).unwrap().next().unwrap().unwrap().path();
    let mut segments: Vec<_> = std::fs::read_dir(topic.join("0")).unwrap().map(|e| e.unwrap().path()).collect();
    segments.sort();
    segments.pop().unwrap()
}

#[test]
fn a_data_directory_has_one_broker() {
    let dir = tempfile::tempdir().unwrap();
    let _broker = start(&dir);
    assert!(matches!(DevBroker::start(config(&dir)), Err(crate::Error::Locked { .. })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn offsets_for_times_are_exact() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(&dir);
    create(&broker, "t", 1).await;
    produce(&broker, "t", 0, 0..500).await;
    let consumer = consumer(&broker, "t", 0, Offset::Beginning);
    for (time, expected) in [(0, Offset::Offset(0)), (1, Offset::Offset(1)), (2_005, Offset::Offset(201))] {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset("t", 0, Offset::Offset(FIRST_TIME + time)).unwrap();
        let found = consumer.offsets_for_times(list, WAIT).unwrap();
        assert_eq!(found.elements()[0].offset(), expected, "{time}");
    }
    let mut list = TopicPartitionList::new();
    list.add_partition_offset("t", 0, Offset::Offset(FIRST_TIME + 4_991)).unwrap();
    assert_eq!(consumer.offsets_for_times(list, WAIT).unwrap().elements()[0].offset(), Offset::End);
    assert_eq!(consumer.fetch_watermarks("t", 0, WAIT).unwrap(), (0, 500));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retention_moves_the_start_and_reading_below_it_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(&dir);
    let options = TopicOptions { retention_bytes: Some(2 << 10), segment_bytes: Some(1 << 10) };
    broker.create_topic("t", 1, options).unwrap();
    for i in 0..12 {
        produce(&broker, "t", 0, i * 25..(i + 1) * 25).await;
    }
    let low = {
        let consumer = consumer(&broker, "t", 0, Offset::Beginning);
        let (low, high) = consumer.fetch_watermarks("t", 0, WAIT).unwrap();
        assert_eq!(high, 300);
        assert!(low > 0 && low < 300, "{low}");
        low
    };
    let kept = read(&broker, "t", 0, Offset::Beginning);
    assert_eq!(kept, same(low..300));
    let consumer = consumer(&broker, "t", 0, Offset::Offset(low - 1));
    let error = consumer.poll(WAIT).expect("an answer in time").expect_err("an error").to_string();
    assert!(error.contains("out of range") || error.contains("OutOfRange") || error.contains("Offset"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topics_are_created_grown_deleted_and_created_anew_with_another_id() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(&dir);
    let admin = admin(&broker);
    let options = AdminOptions::new();
    create(&broker, "t", 1).await;
    let again = admin.create_topics([&NewTopic::new("t", 1, TopicReplication::Fixed(1))], &options).await.unwrap();
    assert_eq!(again[0].as_ref().unwrap_err().1, rdkafka::types::RDKafkaErrorCode::TopicAlreadyExists);
    let odd = NewTopic::new("u", 1, TopicReplication::Fixed(1)).set("cleanup.policy", "compact");
    let refused = admin.create_topics([&odd], &options).await.unwrap();
    assert_eq!(refused[0].as_ref().unwrap_err().1, rdkafka::types::RDKafkaErrorCode::InvalidConfig);
    let wide = NewTopic::new("w", 1, TopicReplication::Fixed(3));
    let refused = admin.create_topics([&wide], &options).await.unwrap();
    assert_eq!(refused[0].as_ref().unwrap_err().1, rdkafka::types::RDKafkaErrorCode::InvalidReplicationFactor);

    admin.create_partitions([&NewPartitions::new("t", 3)], &options).await.unwrap()[0].as_ref().unwrap();
    produce(&broker, "t", 2, 0..3).await;
    let metadata = admin.inner().fetch_metadata(None, WAIT).unwrap();
    assert_eq!(metadata.topics().len(), 1);
    assert_eq!(metadata.topics()[0].partitions().len(), 3);

    admin.delete_topics(&["t"], &options).await.unwrap()[0].as_ref().unwrap();
    let missing = admin.inner().fetch_metadata(Some("t"), WAIT).unwrap();
    assert!(missing.topics()[0].error().is_some(), "topics are not created by asking for them");
    create(&broker, "t", 1).await;
    assert_eq!(broker.next_offsets("t"), 0);
    drop((admin, broker));
    let broker = restart(&dir).await;
    assert!(broker.has_topic("t"));
    assert_eq!(std::fs::read_dir(dir.path().join("topics")).unwrap().count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_are_deleted_by_request() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(&dir);
    create(&broker, "t", 1).await;
    produce(&broker, "t", 0, 0..100).await;
    let mut list = TopicPartitionList::new();
    list.add_partition_offset("t", 0, Offset::Offset(40)).unwrap();
    admin(&broker).delete_records(&list, &AdminOptions::new()).await.unwrap();
    assert_eq!(read(&broker, "t", 0, Offset::Beginning), same(40..100));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_shares_partitions_and_goes_on_where_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(&dir);
    create(&broker, "t", 4).await;
    for p in 0..4 {
        produce(&broker, "t", p, 0..50).await;
    }
    let seen = Arc::new(Mutex::new(Vec::new()));
    let done = Arc::new(AtomicBool::new(false));
    let members: Vec<_> = (0..2)
        .map(|_| {
            let consumer: StreamConsumer = client(&broker)
                .set("group.id", "g")
                .set("auto.offset.reset", "earliest")
                .set("enable.auto.commit", "false")
                .create()
                .unwrap();
            consumer.subscribe(&["t"]).unwrap();
            let (seen, done) = (seen.clone(), done.clone());
            tokio::spawn(async move {
                while !done.load(Ordering::Relaxed) {
                    let Ok(message) = tokio::time::timeout(Duration::from_millis(100), consumer.recv()).await else {
                        continue;
                    };
                    let message = message.unwrap();
                    consumer.commit_message(&message, rdkafka::consumer::CommitMode::Sync).ok();
                    seen.lock().unwrap().push((message.partition(), message.offset()));
                }
            })
        })
        .collect();
    let distinct = || {
        let mut all = seen.lock().unwrap().clone();
        all.sort_unstable();
        all.dedup();
        all.len()
    };
    tokio::time::timeout(Duration::from_secs(60), async {
        while distinct() < 200 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .expect("every record reaches the group");
    done.store(true, Ordering::Relaxed);
    for member in members {
        member.await.unwrap();
    }
    broker.shutdown().await;
    drop(broker);

    let broker = restart(&dir).await;
    let consumer: BaseConsumer = client(&broker).set("group.id", "g").create().unwrap();
    let mut list = TopicPartitionList::new();
    for p in 0..4 {
        list.add_partition("t", p);
    }
    let committed = consumer.committed_offsets(list, WAIT).unwrap();
    for element in committed.elements() {
        assert_eq!(element.offset(), Offset::Offset(50), "partition {}", element.partition());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compressed_batches_pass_through() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(&dir);
    create(&broker, "t", 1).await;
    for codec in ["gzip", "zstd", "lz4", "snappy"] {
        let created = client(&broker).set("compression.type", codec).set("linger.ms", "20").create();
        let Ok(producer) = created else { continue };
        let producer: FutureProducer = producer;
        let payload = "7".repeat(18);
        let sent: Vec<_> =
            (0..50).map(|_| producer.send_result(FutureRecord::<(), _>::to("t").payload(&payload)).unwrap()).collect();
        for delivery in sent {
            delivery.await.unwrap().unwrap();
        }
    }
    let got = read(&broker, "t", 0, Offset::Beginning);
    assert!(got.len() >= 100);
    assert!(got.iter().all(|(_, v)| *v == 777_777_777_777_777_777));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transactions_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(&dir);
    let producer: FutureProducer = client(&broker).set("transactional.id", "x").create().unwrap();
    let refused = tokio::task::spawn_blocking(move || producer.init_transactions(Duration::from_secs(15))).await;
    let error = refused.unwrap().unwrap_err().to_string();
    assert!(!error.to_lowercase().contains("timed out"), "{error}");
}

/// Speaks the protocol directly, for what a good client never does.
struct Raw(TcpStream);

impl Raw {
    fn connect(broker: &DevBroker) -> Self {
        let socket = TcpStream::connect(broker.addr()).unwrap();
        socket.set_read_timeout(Some(WAIT)).unwrap();
        Self(socket)
    }

    fn call<R: Request>(&mut self, version: i16, request: &R) -> R::Response {
        self.0.write_all(&request_frame(version, request)).unwrap();
        let mut length = [0u8; 4];
        self.0.read_exact(&mut length).unwrap();
        let mut bytes = vec![0u8; u32::from_be_bytes(length) as usize];
        self.0.read_exact(&mut bytes).unwrap();
        let mut bytes = Bytes::from(bytes);
        ResponseHeader::decode(&mut bytes, R::Response::header_version(version)).unwrap();
        let response = R::Response::decode(&mut bytes, version).unwrap();
        assert!(bytes.is_empty());
        response
    }

    /// True where the broker closed the connection without an answer.
    fn closed_after(mut self, bytes: &[u8]) -> bool {
        let _ = self.0.write_all(bytes);
        let _ = self.0.shutdown(Shutdown::Write);
        let mut rest = Vec::new();
        self.0.read_to_end(&mut rest).is_err() || rest.is_empty()
    }
}

pub(crate) fn request_frame<R: Request>(version: i16, request: &R) -> BytesMut {
    let mut out = BytesMut::new();
    out.put_i32(0);
    let header = RequestHeader::default()
        .with_request_api_key(R::KEY)
        .with_request_api_version(version)
        .with_correlation_id(7)
        .with_client_id(Some(StrBytes::from_static_str("tests")));
    header.encode(&mut out, R::header_version(version)).unwrap();
    request.encode(&mut out, version).unwrap();
    let length = out.len() as i32 - 4;
    out[..4].copy_from_slice(&length.to_be_bytes());
    out
}

fn produce_request(records: Vec<u8>) -> ProduceRequest {
    use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
    let data = PartitionProduceData::default().with_records(Some(records.into()));
    let topic = TopicProduceData::default().with_name(TopicName(StrBytes::from_static_str("t")));
    ProduceRequest::default().with_acks(-1).with_topic_data(vec![topic.with_partition_data(vec![data])])
}

fn produced(response: &ProduceResponse) -> (i16, i64) {
    let partition = &response.responses[0].partition_responses[0];
    (partition.error_code, partition.base_offset)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_sent_again_after_a_restart_is_stored_once() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(&dir);
    broker.create_topic("t", 1, TopicOptions::default()).unwrap();
    let mut raw = Raw::connect(&broker);
    let id: InitProducerIdResponse = raw.call(4, &InitProducerIdRequest::default().with_transactional_id(None));
    let of = |sequence| produce_request(batch(&[1, 2, 3], Some((id.producer_id.0, 0, sequence)), 10));
    assert_eq!(produced(&raw.call(9, &of(0))), (0, 0));
    assert_eq!(produced(&raw.call(9, &of(3))), (0, 3));
    drop((raw, broker));
    let broker = restart(&dir).await;
    let mut raw = Raw::connect(&broker);
    assert_eq!(produced(&raw.call(3, &of(3))), (0, 3));
    assert_eq!(produced(&raw.call(11, &of(9))), (45, -1));
    assert_eq!(broker.next_offsets("t"), 6);
    let next: InitProducerIdResponse = raw.call(4, &InitProducerIdRequest::default().with_transactional_id(None));
    assert!(next.producer_id.0 > id.producer_id.0);
}

#[test]
fn damaged_batches_are_refused_and_the_connection_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(&dir);
    broker.create_topic("t", 1, TopicOptions::default()).unwrap();
    let mut raw = Raw::connect(&broker);
    let good = batch(&[1], None, 10);
    let mut bad = good.clone();
    *bad.last_mut().unwrap() ^= 1;
    assert_eq!(produced(&raw.call(9, &produce_request(bad))).0, 2);
    assert_eq!(produced(&raw.call(9, &produce_request(good[..40].to_vec()))).0, 2);
    assert_eq!(produced(&raw.call(9, &produce_request([good.clone(), good.clone()].concat()))).0, 87);
    assert_eq!(produced(&raw.call(9, &produce_request(Vec::new()))).0, 2);
    assert_eq!(produced(&raw.call(9, &produce_request(good))), (0, 0));
}

fn fetch_request(offset: i64, wait_ms: i32) -> FetchRequest {
    let partition = FetchPartition::default().with_fetch_offset(offset).with_partition_max_bytes(1 << 20);
    let topic = FetchTopic::default().with_topic(TopicName(StrBytes::from_static_str("t")));
    FetchRequest::default()
        .with_max_wait_ms(wait_ms)
        .with_min_bytes(1)
        .with_max_bytes(1 << 20)
        .with_topics(vec![topic.with_partitions(vec![partition])])
}

#[test]
fn a_waiting_fetch_is_answered_when_records_come() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(&dir);
    broker.create_topic("t", 1, TopicOptions::default()).unwrap();
    let waiting = {
        let mut raw = Raw::connect(&broker);
        std::thread::spawn(move || -> FetchResponse { raw.call(12, &fetch_request(0, 60_000)) })
    };
    let mut raw = Raw::connect(&broker);
    let empty: FetchResponse = raw.call(4, &fetch_request(0, 10));
    assert_eq!(empty.responses[0].partitions[0].records.as_ref().unwrap().len(), 0);
    raw.call(9, &produce_request(batch(&[1, 2], None, 10)));
    let response = waiting.join().unwrap();
    let partition = &response.responses[0].partitions[0];
    assert_eq!((partition.error_code, partition.high_watermark), (0, 2));
    assert!(!partition.records.as_ref().unwrap().is_empty());
    let beyond: FetchResponse = raw.call(12, &fetch_request(3, 60_000));
    assert_eq!(beyond.responses[0].partitions[0].error_code, 1);
}

#[test]
fn hostile_frames_close_the_connection_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(&dir);
    broker.create_topic("t", 1, TopicOptions::default()).unwrap();
    // Longer than allowed, negative, too short.
    for length in [i32::MAX, -1, 0, 7, 200 << 20] {
        assert!(Raw::connect(&broker).closed_after(&length.to_be_bytes()), "{length}");
    }
    // Arrays that claim 2^31 elements: taken at their word they would need all memory.
    let mut bomb = BytesMut::new();
    bomb.put_i32(0);
    bomb.put_i16(ApiKey::Metadata as i16);
    bomb.put_i16(1);
    bomb.put_i32(1);
    bomb.put_i16(-1);
    bomb.put_i32(i32::MAX);
    let length = bomb.len() as i32 - 4;
    bomb[..4].copy_from_slice(&length.to_be_bytes());
    assert!(Raw::connect(&broker).closed_after(&bomb));
    // Every cut of a good request, with its length made to fit.
    for version in [9, 3] {
        let whole = request_frame(version, &produce_request(batch(&[1], None, 20)));
        for cut in 8..whole.len() - 4 {
            let mut frame = BytesMut::new();
            frame.put_i32(cut as i32);
            frame.extend_from_slice(&whole[4..4 + cut]);
            assert!(Raw::connect(&broker).closed_after(&frame), "{cut}");
        }
    }
    assert_eq!(broker.next_offsets("t"), 0);
    let mut raw = Raw::connect(&broker);
    assert_eq!(produced(&raw.call(9, &produce_request(batch(&[1], None, 20)))), (0, 0));
}

/// Every version of every request that the broker says it knows has an answer that the codec can read: an answer with
/// a field that its version lacks would close the connection instead.
#[test]
fn every_version_served_is_answered() {
    struct Answered(Raw);
    impl crate::frame::tests::Visit for Answered {
        fn request<R: Request + std::fmt::Debug + PartialEq>(&mut self, version: i16, request: R) {
            self.0.call(version, &request);
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let broker = start(&dir);
    let mut to = Answered(Raw::connect(&broker));
    for api in crate::api::APIS {
        for version in api.min..=api.max {
            if broker.has_topic("t") {
                crate::frame::tests::one(&mut to, api.key, version);
            }
            let _ = broker.create_topic("t", 5, TopicOptions::default());
            crate::frame::tests::one(&mut to, api.key, version);
        }
    }
}

#[test]
fn a_group_of_one_is_served_in_every_version() {
    use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
    use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
    use kafka_protocol::messages::{DescribeGroupsRequest, GroupId, JoinGroupRequest, SyncGroupRequest};
    let dir = tempfile::tempdir().unwrap();
    let broker = start(&dir);
    let mut raw = Raw::connect(&broker);
    for version in 0..=9 {
        let group = GroupId(StrBytes::from_string(format!("g{version}")));
        let protocol = JoinGroupRequestProtocol::default().with_name(StrBytes::from_static_str("range"));
        let mut join = JoinGroupRequest::default()
            .with_group_id(group.clone())
            .with_session_timeout_ms(10_000)
            .with_protocol_type(StrBytes::from_static_str("consumer"))
            .with_protocols(vec![protocol.with_metadata(Bytes::from_static(b"me"))]);
        if version >= 1 {
            join = join.with_rebalance_timeout_ms(10_000);
        }
        let mut joined = raw.call(version, &join);
        if version >= 4 {
            assert_eq!(joined.error_code, 79, "the id comes first");
            joined = raw.call(version, &join.with_member_id(joined.member_id));
        }
        assert_eq!((joined.error_code, joined.generation_id, joined.members.len()), (0, 1, 1), "v{version}");
        assert_eq!(joined.leader, joined.member_id);
        let plan = SyncGroupRequestAssignment::default().with_member_id(joined.member_id.clone());
        let mut sync = SyncGroupRequest::default()
            .with_group_id(group.clone())
            .with_generation_id(1)
            .with_member_id(joined.member_id)
            .with_assignments(vec![plan.with_assignment(Bytes::from_static(b"all"))]);
        if version >= 5 {
            sync = sync.with_protocol_name(joined.protocol_name).with_protocol_type(joined.protocol_type);
        }
        let synced = raw.call(version.min(5), &sync);
        assert_eq!((synced.error_code, &synced.assignment[..]), (0, &b"all"[..]), "v{version}");
        let described = raw.call(version.min(5), &DescribeGroupsRequest::default().with_groups(vec![group]));
        assert_eq!(&*described.groups[0].group_state, "Stable");
        assert_eq!(&described.groups[0].members[0].member_metadata[..], b"me");
    }
}

#[test]
fn connections_are_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let broker = DevBroker::start(DevBrokerConfig { max_connections: 2, ..config(&dir) }).unwrap();
    broker.create_topic("t", 1, TopicOptions::default()).unwrap();
    let mut kept: Vec<Raw> = (0..2).map(|_| Raw::connect(&broker)).collect();
    for raw in &mut kept {
        raw.call(12, &fetch_request(0, 0));
    }
    assert!(Raw::connect(&broker).closed_after(&request_frame(12, &fetch_request(0, 0))));
}

/// `cargo test --release … -- --ignored --nocapture` prints how fast it is; it decides nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn throughput() {
    let dir = tempfile::tempdir().unwrap();
    let broker = DevBroker::start(DevBrokerConfig::new(dir.path())).unwrap();
    broker.create_topic("t", 1, TopicOptions::default()).unwrap();
    const COUNT: usize = 300_000;
    let producer: rdkafka::producer::ThreadedProducer<_> = client(&broker)
        .set("linger.ms", "20")
        .set("queue.buffering.max.messages", "400000")
        .create_with_context(rdkafka::producer::DefaultProducerContext)
        .unwrap();
    let payload = vec![b'x'; 1_000];
    let begun = std::time::Instant::now();
    for _ in 0..COUNT {
        producer.send(rdkafka::producer::BaseRecord::<(), _>::to("t").payload(&payload)).map_err(|e| e.0).unwrap();
    }
    producer.flush(Duration::from_secs(60)).unwrap();
    println!("produced {:.0} records of 1 kB a second", COUNT as f64 / begun.elapsed().as_secs_f64());
    let consumer = consumer(&broker, "t", 0, Offset::Beginning);
    let begun = std::time::Instant::now();
    for _ in 0..COUNT {
        consumer.poll(WAIT).unwrap().unwrap();
    }
    println!("consumed {:.0} records of 1 kB a second", COUNT as f64 / begun.elapsed().as_secs_f64());
}
