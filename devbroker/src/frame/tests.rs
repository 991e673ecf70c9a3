#![allow(clippy::unwrap_used, clippy::expect_used)]

use bytes::Bytes;
use kafka_protocol::messages::*;
use kafka_protocol::protocol::{Request, StrBytes};
use uuid::Uuid;

use super::*;
use crate::api::APIS;
use crate::tests::request_frame;

fn s(text: &'static str) -> StrBytes {
    StrBytes::from_static_str(text)
}

fn t(text: &'static str) -> TopicName {
    TopicName(s(text))
}

/// Takes the requests of [`one`].
pub(crate) trait Visit {
    fn request<R: Request + std::fmt::Debug + PartialEq>(&mut self, version: i16, request: R);
}

/// The walk must need every byte of the codec's own encoding, and agree with its decoder on the start of the body.
struct Walks;

impl Visit for Walks {
    fn request<R: Request + std::fmt::Debug + PartialEq>(&mut self, version: i16, request: R) {
        agrees(version, request);
    }
}

fn agrees<R: Request + std::fmt::Debug + PartialEq>(version: i16, request: R) {
    let frame = request_frame(version, &request);
    let frame = &frame[4..];
    let key = ApiKey::try_from(R::KEY).unwrap();
    let body = check(frame, key, version).unwrap_or_else(|_| panic!("{key:?} v{version} {request:?}"));
    let mut bytes = Bytes::copy_from_slice(&frame[body..]);
    assert_eq!(R::decode(&mut bytes, version).unwrap(), request, "{key:?} v{version}");
    for cut in 0..frame.len() {
        assert!(check(&frame[..cut], key, version).is_err(), "{key:?} v{version} cut at {cut}");
    }
    // Whatever one changed byte does, the codec must not be handed an array that is not there.
    for at in 8..frame.len() {
        for value in [0x00, 0x01, 0x7f, 0x80, 0xff] {
            let mut changed = frame.to_vec();
            changed[at] = value;
            if let Ok(body) = check(&changed, key, version) {
                let _ = R::decode(&mut Bytes::from(changed).slice(body..), version);
            }
        }
    }
}

#[test]
fn walk_and_codec_agree_on_every_version_served() {
    for api in APIS {
        for version in api.min..=api.max {
            one(&mut Walks, api.key, version);
        }
    }
}

/// Requests of one kind and version, with something in every array.
pub(crate) fn one(to: &mut impl Visit, key: ApiKey, v: i16) {
    match key {
        ApiKey::ApiVersions => to.request(
            v,
            match v {
                ..3 => ApiVersionsRequest::default(),
                _ => {
                    ApiVersionsRequest::default().with_client_software_name(s("a")).with_client_software_version(s("1"))
                }
            },
        ),
        ApiKey::Produce => {
            use produce_request::*;
            let data = PartitionProduceData::default().with_index(3).with_records(Some(Bytes::from_static(b"xyz")));
            let topic = TopicProduceData::default().with_name(t("t")).with_partition_data(vec![data.clone(), data]);
            to.request(v, ProduceRequest::default().with_acks(1).with_topic_data(vec![topic.clone(), topic]));
        }
        ApiKey::Fetch => fetch(to, v),
        ApiKey::ListOffsets => {
            use list_offsets_request::*;
            let p = ListOffsetsPartition::default().with_partition_index(2).with_timestamp(9);
            let topic = ListOffsetsTopic::default().with_name(t("t")).with_partitions(vec![p.clone(), p]);
            to.request(v, ListOffsetsRequest::default().with_topics(vec![topic]));
        }
        ApiKey::Metadata => {
            use metadata_request::*;
            let topic = MetadataRequestTopic::default().with_name(Some(t("t")));
            to.request(v, MetadataRequest::default().with_topics(Some(vec![topic.clone(), topic])));
            to.request(v, MetadataRequest::default().with_topics(if v == 0 { Some(vec![]) } else { None }));
        }
        ApiKey::InitProducerId => to.request(v, InitProducerIdRequest::default().with_transaction_timeout_ms(5)),
        ApiKey::OffsetForLeaderEpoch => {
            use offset_for_leader_epoch_request::*;
            let p = OffsetForLeaderPartition::default().with_partition(1);
            let topic = OffsetForLeaderTopic::default().with_topic(t("t")).with_partitions(vec![p]);
            to.request(v, OffsetForLeaderEpochRequest::default().with_topics(vec![topic]));
        }
        ApiKey::DescribeCluster => to.request(v, DescribeClusterRequest::default()),
        ApiKey::CreateTopics | ApiKey::CreatePartitions | ApiKey::DeleteTopics | ApiKey::DeleteRecords => {
            topics(to, key, v)
        }
        ApiKey::DescribeConfigs => {
            use describe_configs_request::*;
            let r = DescribeConfigsResource::default().with_resource_name(s("t"));
            let all = r.clone().with_configuration_keys(None);
            let one = r.with_configuration_keys(Some(vec![s("a"), s("b")]));
            to.request(v, DescribeConfigsRequest::default().with_resources(vec![all, one]));
        }
        _ => group(to, key, v),
    }
}

fn fetch(to: &mut impl Visit, v: i16) {
    use fetch_request::*;
    let id = Uuid::from_u128(77);
    let p = FetchPartition::default().with_partition(4).with_fetch_offset(10);
    let (topic, forgotten) = match v {
        13.. => (FetchTopic::default().with_topic_id(id), ForgottenTopic::default().with_topic_id(id)),
        _ => (FetchTopic::default().with_topic(t("t")), ForgottenTopic::default().with_topic(t("u"))),
    };
    let topic = topic.with_partitions(vec![p.clone(), p]);
    let mut request = FetchRequest::default().with_topics(vec![topic.clone(), topic]).with_max_wait_ms(5);
    if v >= 7 {
        request = request.with_forgotten_topics_data(vec![forgotten.with_partitions(vec![1, 2])]);
    }
    if v >= 12 {
        request = request.with_cluster_id(Some(s("c")));
    }
    to.request(v, request);
}

fn topics(to: &mut impl Visit, key: ApiKey, v: i16) {
    match key {
        ApiKey::CreateTopics => {
            use create_topics_request::*;
            let config = CreatableTopicConfig::default().with_name(s("k")).with_value(None);
            let assignment = CreatableReplicaAssignment::default().with_broker_ids(vec![1.into(), 2.into()]);
            let topic = CreatableTopic::default().with_name(t("t")).with_num_partitions(3);
            let topic = topic.with_configs(vec![config.clone(), config]).with_assignments(vec![assignment]);
            to.request(v, CreateTopicsRequest::default().with_topics(vec![topic]));
        }
        ApiKey::CreatePartitions => {
            use create_partitions_request::*;
            let assignment = CreatePartitionsAssignment::default().with_broker_ids(vec![1.into()]);
            let topic = CreatePartitionsTopic::default().with_name(t("t")).with_count(3);
            let other = topic.clone().with_assignments(Some(vec![assignment]));
            to.request(v, CreatePartitionsRequest::default().with_topics(vec![topic.with_assignments(None), other]));
        }
        ApiKey::DeleteTopics if v >= 6 => {
            use delete_topics_request::*;
            let by_name = DeleteTopicState::default().with_name(Some(t("t")));
            let by_id = DeleteTopicState::default().with_name(None).with_topic_id(Uuid::from_u128(5));
            to.request(v, DeleteTopicsRequest::default().with_topics(vec![by_name, by_id]));
        }
        ApiKey::DeleteTopics => to.request(v, DeleteTopicsRequest::default().with_topic_names(vec![t("a"), t("b")])),
        _ => {
            use delete_records_request::*;
            let p = DeleteRecordsPartition::default().with_offset(8);
            let topic = DeleteRecordsTopic::default().with_name(t("t")).with_partitions(vec![p]);
            to.request(v, DeleteRecordsRequest::default().with_topics(vec![topic]));
        }
    }
}

fn group(to: &mut impl Visit, key: ApiKey, v: i16) {
    let g = GroupId(s("g"));
    match key {
        ApiKey::FindCoordinator if v >= 4 => {
            to.request(v, FindCoordinatorRequest::default().with_coordinator_keys(vec![s("a"), s("b")]));
        }
        ApiKey::FindCoordinator => to.request(v, FindCoordinatorRequest::default().with_key(s("g"))),
        ApiKey::OffsetCommit => {
            use offset_commit_request::*;
            let p = OffsetCommitRequestPartition::default().with_committed_metadata(Some(s("m")));
            let topic = OffsetCommitRequestTopic::default().with_name(t("t")).with_partitions(vec![p.clone(), p]);
            to.request(v, OffsetCommitRequest::default().with_group_id(g).with_topics(vec![topic]));
        }
        ApiKey::OffsetFetch if v >= 8 => {
            use offset_fetch_request::*;
            let topic = OffsetFetchRequestTopics::default().with_name(t("t")).with_partition_indexes(vec![1, 2]);
            let group = OffsetFetchRequestGroup::default().with_group_id(g);
            let (some, all) = (group.clone().with_topics(Some(vec![topic])), group.with_topics(None));
            to.request(v, OffsetFetchRequest::default().with_groups(vec![some, all]));
        }
        ApiKey::OffsetFetch => {
            use offset_fetch_request::*;
            let topic = OffsetFetchRequestTopic::default().with_name(t("t")).with_partition_indexes(vec![1, 2]);
            to.request(v, OffsetFetchRequest::default().with_group_id(g).with_topics(Some(vec![topic])));
        }
        ApiKey::JoinGroup => {
            use join_group_request::*;
            let p = JoinGroupRequestProtocol::default().with_name(s("r")).with_metadata(Bytes::from_static(b"md"));
            let mut request = JoinGroupRequest::default().with_group_id(g).with_protocols(vec![p.clone(), p]);
            if v >= 1 {
                request = request.with_rebalance_timeout_ms(9);
            }
            if v >= 5 {
                request = request.with_group_instance_id(Some(s("i")));
            }
            to.request(v, request);
        }
        ApiKey::SyncGroup => {
            use sync_group_request::*;
            let a = SyncGroupRequestAssignment::default().with_assignment(Bytes::from_static(b"as"));
            let mut request = SyncGroupRequest::default().with_group_id(g).with_assignments(vec![a.clone(), a]);
            if v >= 5 {
                request = request.with_protocol_name(Some(s("r"))).with_protocol_type(Some(s("c")));
            }
            to.request(v, request);
        }
        ApiKey::Heartbeat => to.request(v, HeartbeatRequest::default().with_group_id(g).with_member_id(s("m"))),
        ApiKey::LeaveGroup => {
            use leave_group_request::*;
            let member = MemberIdentity::default().with_member_id(s("m"));
            let request = LeaveGroupRequest::default().with_group_id(g);
            to.request(
                v,
                match v {
                    ..=2 => request.with_member_id(s("m")),
                    _ => request.with_members(vec![member.clone(), member]),
                },
            );
        }
        ApiKey::DescribeGroups => to.request(v, DescribeGroupsRequest::default().with_groups(vec![g.clone(), g])),
        ApiKey::ListGroups => to.request(
            v,
            match v {
                ..4 => ListGroupsRequest::default(),
                _ => ListGroupsRequest::default().with_states_filter(vec![s("Stable")]),
            },
        ),
        other => panic!("{other:?} is served and not tested"),
    }
}
