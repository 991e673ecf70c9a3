use std::sync::Arc;

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::create_partitions_response::CreatePartitionsTopicResult;
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::create_topics_response::CreatableTopicResult;
use kafka_protocol::messages::delete_topics_response::DeletableTopicResult;
use kafka_protocol::messages::describe_cluster_response::DescribeClusterBroker;
use kafka_protocol::messages::describe_configs_response::{DescribeConfigsResourceResult, DescribeConfigsResult};
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::{
    CreatePartitionsRequest, CreatePartitionsResponse, CreateTopicsRequest, CreateTopicsResponse, DeleteTopicsRequest,
    DeleteTopicsResponse, DescribeClusterResponse, DescribeConfigsRequest, DescribeConfigsResponse, MetadataRequest,
    MetadataResponse, TopicName,
};
use kafka_protocol::protocol::StrBytes;

use super::{Context, NODE_ID, text};
use crate::store::{Topic, TopicError, TopicOptions, is_topic_name};

/// "Operations are not told", in the protocol's words.
const OPERATIONS_UNKNOWN: i32 = i32::MIN;
const MIN_SEGMENT_BYTES: u64 = 1024;
const MAX_SEGMENT_BYTES: u64 = 1 << 30;

pub fn metadata(c: Context<'_>, request: MetadataRequest) -> MetadataResponse {
    let all = request.topics.as_ref().is_none_or(|t| t.is_empty() && c.version == 0);
    let topics = if all {
        c.broker.store.topics().iter().map(known_topic).collect()
    } else {
        let wanted = request.topics.unwrap_or_default().into_iter();
        wanted
            .map(|w| match w.name {
                Some(name) => match c.broker.store.topic(&name) {
                    Some(topic) => known_topic(&topic),
                    None if is_topic_name(&name) => {
                        missing_topic(ResponseError::UnknownTopicOrPartition).with_name(Some(name))
                    }
                    None => missing_topic(ResponseError::InvalidTopicException).with_name(Some(name)),
                },
                None => match c.broker.store.topic_by_id(&w.topic_id) {
                    Some(topic) => known_topic(&topic),
                    // Before version 12 the answer's name cannot be null.
                    None => missing_topic(ResponseError::UnknownTopicId)
                        .with_topic_id(w.topic_id)
                        .with_name((c.version < 12).then(TopicName::default)),
                },
            })
            .collect()
    };
    let broker = MetadataResponseBroker::default()
        .with_node_id(NODE_ID)
        .with_host(text(c.local.ip().to_string()))
        .with_port(i32::from(c.local.port()));
    MetadataResponse::default()
        .with_brokers(vec![broker])
        .with_cluster_id(Some(text(c.broker.store.cluster_id.clone())))
        .with_controller_id(NODE_ID)
        .with_topics(topics)
        .with_cluster_authorized_operations(OPERATIONS_UNKNOWN)
}

fn known_topic(topic: &Arc<Topic>) -> MetadataResponseTopic {
    let partition = |index: usize| {
        MetadataResponsePartition::default()
            .with_partition_index(index as i32)
            .with_leader_id(NODE_ID)
            .with_leader_epoch(0)
            .with_replica_nodes(vec![NODE_ID])
            .with_isr_nodes(vec![NODE_ID])
    };
    MetadataResponseTopic::default()
        .with_name(Some(TopicName(text(topic.name.clone()))))
        .with_topic_id(topic.id)
        .with_partitions((0..topic.partitions.len()).map(partition).collect())
        .with_topic_authorized_operations(OPERATIONS_UNKNOWN)
}

fn missing_topic(error: ResponseError) -> MetadataResponseTopic {
    MetadataResponseTopic::default().with_error_code(error.code()).with_topic_authorized_operations(OPERATIONS_UNKNOWN)
}

pub fn describe_cluster(c: Context<'_>) -> DescribeClusterResponse {
    let broker = DescribeClusterBroker::default()
        .with_broker_id(NODE_ID)
        .with_host(text(c.local.ip().to_string()))
        .with_port(i32::from(c.local.port()));
    DescribeClusterResponse::default()
        .with_cluster_id(text(c.broker.store.cluster_id.clone()))
        .with_controller_id(NODE_ID)
        .with_brokers(vec![broker])
        .with_cluster_authorized_operations(OPERATIONS_UNKNOWN)
}

pub fn create(c: Context<'_>, request: CreateTopicsRequest) -> CreateTopicsResponse {
    let topics = request.topics.into_iter().map(|wanted| {
        let result = CreatableTopicResult::default().with_name(wanted.name.clone());
        match create_one(c, &wanted, request.validate_only) {
            Ok((topic, partitions)) => result
                .with_topic_id(topic.id)
                .with_num_partitions(partitions as i32)
                .with_replication_factor(1)
                .with_configs(Some(Vec::new())),
            Err((error, message)) => result
                .with_error_code(error.code())
                .with_error_message(Some(text(message)))
                .with_num_partitions(-1)
                .with_replication_factor(-1)
                .with_configs(Some(Vec::new())),
        }
    });
    CreateTopicsResponse::default().with_topics(topics.collect())
}

fn create_one(c: Context<'_>, wanted: &CreatableTopic, dry_run: bool) -> Result<(Arc<Topic>, u32), Refusal> {
    // -1 is "the broker's default" for both numbers.
    if !matches!(wanted.replication_factor, -1 | 1) {
        let message = format!("replication factor {} on a broker that stands alone", wanted.replication_factor);
        return Err((ResponseError::InvalidReplicationFactor, message));
    }
    let partitions = match wanted.num_partitions {
        -1 if wanted.assignments.is_empty() => 1,
        -1 => wanted.assignments.len() as u32,
        n => u32::try_from(n).unwrap_or(0),
    };
    let options = topic_options(wanted)?;
    let created = c.broker.store.create_topic(&wanted.name, partitions, options, dry_run);
    created.map(|topic| (topic, partitions)).map_err(refusal)
}

type Refusal = (ResponseError, String);

/// Refuses what would not be done.
fn topic_options(wanted: &CreatableTopic) -> Result<TopicOptions, Refusal> {
    let mut options = TopicOptions::default();
    for config in &wanted.configs {
        let value = config.value.as_ref().map_or("", |v| v.as_str());
        let number = || value.parse::<i64>().ok();
        let understood = match config.name.as_str() {
            "retention.bytes" => match number() {
                Some(-1) => true,
                Some(bytes) => {
                    options.retention_bytes = u64::try_from(bytes).ok();
                    options.retention_bytes.is_some()
                }
                None => false,
            },
            "segment.bytes" => {
                options.segment_bytes =
                    value.parse().ok().filter(|b| (MIN_SEGMENT_BYTES..=MAX_SEGMENT_BYTES).contains(b));
                options.segment_bytes.is_some()
            }
            "retention.ms" => number() == Some(-1),
            "cleanup.policy" => value == "delete",
            "compression.type" => value == "producer",
            "message.timestamp.type" => value == "CreateTime",
            "min.insync.replicas" => value == "1",
            _ => false,
        };
        if !understood {
            let message = format!("the development broker does not do {} = {value}", config.name.as_str());
            return Err((ResponseError::InvalidConfig, message));
        }
    }
    Ok(options)
}

fn refusal(error: TopicError) -> Refusal {
    let code = match &error {
        TopicError::InvalidName => ResponseError::InvalidTopicException,
        TopicError::InvalidPartitions => ResponseError::InvalidPartitions,
        TopicError::Exists => ResponseError::TopicAlreadyExists,
        TopicError::Unknown => ResponseError::UnknownTopicOrPartition,
        TopicError::TooMany => ResponseError::PolicyViolation,
        TopicError::Storage(cause) => {
            tracing::warn!(error = %cause, "topics were not changed");
            ResponseError::KafkaStorageError
        }
    };
    (code, error.to_string())
}

pub fn create_partitions(c: Context<'_>, request: CreatePartitionsRequest) -> CreatePartitionsResponse {
    let results = request.topics.into_iter().map(|wanted| {
        let count = u32::try_from(wanted.count).unwrap_or(0);
        let done = c.broker.store.grow_topic(&wanted.name, count, request.validate_only).map_err(refusal);
        let result = CreatePartitionsTopicResult::default().with_name(wanted.name);
        match done {
            Ok(()) => result,
            Err((error, message)) => result.with_error_code(error.code()).with_error_message(Some(text(message))),
        }
    });
    CreatePartitionsResponse::default().with_results(results.collect())
}

pub fn delete(c: Context<'_>, request: DeleteTopicsRequest) -> DeleteTopicsResponse {
    let by_name = request.topic_names.into_iter().map(|name| (Some(name), uuid::Uuid::nil()));
    let by_either = request.topics.into_iter().map(|t| (t.name, t.topic_id));
    let responses = by_name.chain(by_either).map(|(name, id)| {
        let result = DeletableTopicResult::default();
        let (name, unknown) = match name {
            Some(name) => (Some(name), ResponseError::UnknownTopicOrPartition),
            None => {
                let found = c.broker.store.topic_by_id(&id).map(|t| TopicName(text(t.name.clone())));
                (found, ResponseError::UnknownTopicId)
            }
        };
        let Some(name) = name else {
            return result.with_name(None).with_topic_id(id).with_error_code(unknown.code());
        };
        let deleted = c.broker.store.delete_topic(&name).map_err(refusal);
        match deleted {
            Ok(topic) => {
                c.broker.groups.forget_topic(&topic.name);
                result.with_name(Some(name)).with_topic_id(topic.id)
            }
            Err((error, message)) => {
                let result = result.with_name(Some(name)).with_topic_id(id);
                result.with_error_code(error.code()).with_error_message(Some(text(message)))
            }
        }
    });
    DeleteTopicsResponse::default().with_responses(responses.collect())
}

/// Topics alone have something to tell.
pub fn describe_configs(c: Context<'_>, request: DescribeConfigsRequest) -> DescribeConfigsResponse {
    const TOPIC: i8 = 2;
    const BROKER: i8 = 4;
    let results = request.resources.into_iter().map(|resource| {
        let result = DescribeConfigsResult::default()
            .with_resource_type(resource.resource_type)
            .with_resource_name(resource.resource_name.clone());
        let topic = c.broker.store.topic(&resource.resource_name);
        match (resource.resource_type, topic) {
            (TOPIC, Some(topic)) => {
                let wanted = |name: &str| {
                    let keys = resource.configuration_keys.as_ref();
                    keys.is_none_or(|keys| keys.iter().any(|k| k.as_str() == name))
                };
                result.with_configs(topic_configs(c, &topic).into_iter().filter(|r| wanted(&r.name)).collect())
            }
            (TOPIC, None) => result.with_error_code(ResponseError::UnknownTopicOrPartition.code()),
            (BROKER, _) => result,
            _ => result.with_error_code(ResponseError::InvalidRequest.code()),
        }
    });
    DescribeConfigsResponse::default().with_results(results.collect())
}

fn topic_configs(c: Context<'_>, topic: &Topic) -> Vec<DescribeConfigsResourceResult> {
    const OF_TOPIC: i8 = 1;
    const DEFAULT: i8 = 5;
    let config = &c.broker.store.config;
    let entry = |name: &'static str, value: String, own: bool| {
        DescribeConfigsResourceResult::default()
            .with_name(StrBytes::from_static_str(name))
            .with_value(Some(text(value)))
            .with_config_source(if own { OF_TOPIC } else { DEFAULT })
            .with_read_only(true)
    };
    let (retention, segment) = (topic.options.retention_bytes, topic.options.segment_bytes);
    let retained = retention.unwrap_or(config.max_bytes_per_partition);
    vec![
        entry("cleanup.policy", "delete".into(), false),
        entry("retention.bytes", retained.to_string(), retention.is_some()),
        entry("retention.ms", "-1".into(), false),
        entry("segment.bytes", segment.unwrap_or(config.segment_bytes).to_string(), segment.is_some()),
        entry("message.timestamp.type", "CreateTime".into(), false),
        entry("max.message.bytes", config.max_batch_bytes.to_string(), false),
    ]
}
