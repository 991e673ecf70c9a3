//! One function per request. The list of what is served, and in which versions, is [`APIS`].

mod fetch;
mod groups;
mod offsets;
mod produce;
mod topics;

use std::net::SocketAddr;

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::api_versions_response::ApiVersion;
use kafka_protocol::messages::{ApiKey, ApiVersionsResponse, BrokerId, ResponseHeader};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, StrBytes};

use crate::frame::{self, Malformed, RequestHead};
use crate::server::Broker;

pub const NODE_ID: BrokerId = BrokerId(1);

#[derive(Debug, Clone, Copy)]
pub struct Api {
    pub key: ApiKey,
    pub min: i16,
    pub max: i16,
}

const fn api(key: ApiKey, min: i16, max: i16) -> Api {
    Api { key, min, max }
}

/// Everything else is not there: no transactions, no SASL, no share groups, no tiered storage.
pub const APIS: &[Api] = &[
    api(ApiKey::Produce, 3, 11),
    api(ApiKey::Fetch, 4, 16),
    api(ApiKey::ListOffsets, 1, 7),
    api(ApiKey::Metadata, 0, 12),
    api(ApiKey::OffsetCommit, 2, 8),
    api(ApiKey::OffsetFetch, 1, 8),
    api(ApiKey::FindCoordinator, 0, 4),
    api(ApiKey::JoinGroup, 0, 9),
    api(ApiKey::Heartbeat, 0, 4),
    api(ApiKey::LeaveGroup, 0, 5),
    api(ApiKey::SyncGroup, 0, 5),
    api(ApiKey::DescribeGroups, 0, 5),
    api(ApiKey::ListGroups, 0, 4),
    api(ApiKey::ApiVersions, 0, 4),
    api(ApiKey::CreateTopics, 2, 7),
    api(ApiKey::DeleteTopics, 1, 6),
    api(ApiKey::DeleteRecords, 0, 2),
    api(ApiKey::InitProducerId, 0, 4),
    api(ApiKey::OffsetForLeaderEpoch, 2, 4),
    api(ApiKey::DescribeConfigs, 1, 4),
    api(ApiKey::CreatePartitions, 0, 3),
    api(ApiKey::DescribeCluster, 0, 1),
];

#[derive(Debug)]
pub enum Reply {
    /// Length, header and body.
    Send(BytesMut),
    /// A producer that wants no answer.
    Nothing,
}

/// What the functions of this folder get beside the request.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    pub broker: &'a Broker,
    /// The address that the client reached, and so the one to tell it.
    pub local: SocketAddr,
    pub version: i16,
}

/// `Err` closes the connection: the bytes mean nothing, so there is nothing to answer.
pub async fn answer(broker: &Broker, local: SocketAddr, head: RequestHead, request: Bytes) -> Result<Reply, Malformed> {
    let served = APIS.iter().find(|a| a.key as i16 == head.key).ok_or(Malformed)?;
    if head.version < served.min || head.version > served.max {
        // A client may ask for a version of ApiVersions that is not known yet; it is told which are, in version 0.
        return match served.key {
            ApiKey::ApiVersions => encode(head, 0, &api_versions(ResponseError::UnsupportedVersion.code())),
            _ => Err(Malformed),
        };
    }
    let from = frame::check(&request, served.key, head.version)?;
    let body = request.slice(from..);
    let c = Context { broker, local, version: head.version };
    match served.key {
        ApiKey::ApiVersions => encode(head, c.version, &api_versions(0)),
        ApiKey::Produce => match produce::produce(c, decode(body, c)?) {
            Some(response) => encode(head, c.version, &response),
            None => Ok(Reply::Nothing),
        },
        ApiKey::Fetch => encode(head, c.version, &fetch::fetch(c, decode(body, c)?).await),
        ApiKey::ListOffsets => encode(head, c.version, &offsets::list(c, decode(body, c)?)),
        ApiKey::OffsetForLeaderEpoch => encode(head, c.version, &offsets::for_leader_epoch(c, decode(body, c)?)),
        ApiKey::DeleteRecords => encode(head, c.version, &offsets::delete_records(c, decode(body, c)?)),
        ApiKey::InitProducerId => encode(head, c.version, &produce::init_producer_id(c, decode(body, c)?)),
        ApiKey::Metadata => encode(head, c.version, &topics::metadata(c, decode(body, c)?)),
        ApiKey::DescribeCluster => encode(head, c.version, &topics::describe_cluster(c)),
        ApiKey::CreateTopics => encode(head, c.version, &topics::create(c, decode(body, c)?)),
        ApiKey::CreatePartitions => encode(head, c.version, &topics::create_partitions(c, decode(body, c)?)),
        ApiKey::DeleteTopics => encode(head, c.version, &topics::delete(c, decode(body, c)?)),
        ApiKey::DescribeConfigs => encode(head, c.version, &topics::describe_configs(c, decode(body, c)?)),
        ApiKey::FindCoordinator => encode(head, c.version, &groups::find_coordinator(c, decode(body, c)?)),
        ApiKey::JoinGroup => encode(head, c.version, &groups::join(c, decode(body, c)?).await),
        ApiKey::SyncGroup => encode(head, c.version, &groups::sync(c, decode(body, c)?).await),
        ApiKey::Heartbeat => encode(head, c.version, &groups::heartbeat(c, decode(body, c)?)),
        ApiKey::LeaveGroup => encode(head, c.version, &groups::leave(c, decode(body, c)?)),
        ApiKey::OffsetCommit => encode(head, c.version, &groups::offset_commit(c, decode(body, c)?)),
        ApiKey::OffsetFetch => encode(head, c.version, &groups::offset_fetch(c, decode(body, c)?)),
        ApiKey::DescribeGroups => encode(head, c.version, &groups::describe(c, decode(body, c)?)),
        ApiKey::ListGroups => encode(head, c.version, &groups::list(c)),
        _ => Err(Malformed),
    }
}

fn decode<T: Decodable>(mut body: Bytes, c: Context<'_>) -> Result<T, Malformed> {
    T::decode(&mut body, c.version).map_err(|_| Malformed)
}

fn encode<T: Encodable + HeaderVersion>(head: RequestHead, version: i16, response: &T) -> Result<Reply, Malformed> {
    let fill = |out: &mut BytesMut| {
        out.put_i32(0);
        let header = ResponseHeader::default().with_correlation_id(head.correlation_id);
        header.encode(out, T::header_version(version))?;
        response.encode(out, version)
    };
    let size = response.compute_size(version).unwrap_or(0);
    let mut out = BytesMut::with_capacity(size + 16);
    if let Err(error) = fill(&mut out) {
        tracing::warn!(key = head.key, version, %error, "answer cannot be encoded");
        return Err(Malformed);
    }
    let length = i32::try_from(out.len() - 4).map_err(|_| Malformed)?;
    out[..4].copy_from_slice(&length.to_be_bytes());
    Ok(Reply::Send(out))
}

fn api_versions(error: i16) -> ApiVersionsResponse {
    let api_keys = APIS.iter().map(|a| {
        // librdkafka takes a broker without Produce v0 for one that cannot compress; Apache Kafka 4 says 0 as well.
        let min = if a.key == ApiKey::Produce { 0 } else { a.min };
        ApiVersion::default().with_api_key(a.key as i16).with_min_version(min).with_max_version(a.max)
    });
    ApiVersionsResponse::default().with_error_code(error).with_api_keys(api_keys.collect())
}

/// 0, or the code of the error.
pub fn code<T>(result: &Result<T, ResponseError>) -> i16 {
    result.as_ref().err().map_or(0, ResponseError::code)
}

pub fn text(s: impl Into<String>) -> StrBytes {
    StrBytes::from_string(s.into())
}
