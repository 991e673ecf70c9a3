use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::delete_records_response::{DeleteRecordsPartitionResult, DeleteRecordsTopicResult};
use kafka_protocol::messages::list_offsets_response::{ListOffsetsPartitionResponse, ListOffsetsTopicResponse};
use kafka_protocol::messages::offset_for_leader_epoch_response::{EpochEndOffset, OffsetForLeaderTopicResult};
use kafka_protocol::messages::{
    DeleteRecordsRequest, DeleteRecordsResponse, ListOffsetsRequest, ListOffsetsResponse, OffsetForLeaderEpochRequest,
    OffsetForLeaderEpochResponse,
};

use super::{Context, code};
use crate::log::{PartitionLog, ReadError};

const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const MAX_TIMESTAMP: i64 = -3;
const LEADER_EPOCH: i32 = 0;

pub fn list(c: Context<'_>, request: ListOffsetsRequest) -> ListOffsetsResponse {
    let topics = request.topics.into_iter().map(|wanted| {
        let topic = c.broker.store.topic(&wanted.name);
        let partitions = wanted.partitions.iter().map(|p| {
            let log = topic.as_ref().and_then(|t| t.partition(p.partition_index));
            let found = match log {
                Some(log) => find(log, p.timestamp),
                None => Err(ResponseError::UnknownTopicOrPartition),
            };
            let response = ListOffsetsPartitionResponse::default()
                .with_partition_index(p.partition_index)
                .with_error_code(code(&found));
            let (offset, timestamp) = found.unwrap_or((-1, -1));
            let response = response.with_offset(offset).with_timestamp(timestamp);
            // Older answers have no place for it, and the codec refuses what has none.
            if c.version >= 4 { response.with_leader_epoch(LEADER_EPOCH) } else { response }
        });
        let partitions = partitions.collect();
        ListOffsetsTopicResponse::default().with_name(wanted.name).with_partitions(partitions)
    });
    ListOffsetsResponse::default().with_topics(topics.collect())
}

/// Offset and timestamp; both -1 where no record is that late.
fn find(log: &PartitionLog, timestamp: i64) -> Result<(i64, i64), ResponseError> {
    let span = log.span();
    let found = match timestamp {
        LATEST => return Ok((span.end, -1)),
        EARLIEST => return Ok((span.start, -1)),
        MAX_TIMESTAMP => log.find_latest(),
        ..MAX_TIMESTAMP => return Err(ResponseError::UnsupportedVersion),
        _ => log.find_time(timestamp),
    };
    match found {
        Ok(found) => Ok(found.unwrap_or((-1, -1))),
        Err(ReadError::OutOfRange(_)) => Err(ResponseError::OffsetOutOfRange),
        Err(ReadError::Io(error)) => {
            tracing::warn!(%error, "offset cannot be looked up");
            Err(ResponseError::KafkaStorageError)
        }
    }
}

/// There is one epoch, which ends at the end of the log.
pub fn for_leader_epoch(c: Context<'_>, request: OffsetForLeaderEpochRequest) -> OffsetForLeaderEpochResponse {
    let topics = request.topics.into_iter().map(|wanted| {
        let topic = c.broker.store.topic(&wanted.topic);
        let partitions = wanted.partitions.iter().map(|p| {
            let response = EpochEndOffset::default().with_partition(p.partition);
            match topic.as_ref().and_then(|t| t.partition(p.partition)) {
                Some(log) if p.leader_epoch == LEADER_EPOCH => {
                    response.with_leader_epoch(LEADER_EPOCH).with_end_offset(log.span().end)
                }
                Some(_) => response.with_leader_epoch(-1).with_end_offset(-1),
                None => response.with_error_code(ResponseError::UnknownTopicOrPartition.code()),
            }
        });
        let partitions = partitions.collect();
        OffsetForLeaderTopicResult::default().with_topic(wanted.topic).with_partitions(partitions)
    });
    OffsetForLeaderEpochResponse::default().with_topics(topics.collect())
}

pub fn delete_records(c: Context<'_>, request: DeleteRecordsRequest) -> DeleteRecordsResponse {
    let topics = request.topics.into_iter().map(|wanted| {
        let topic = c.broker.store.topic(&wanted.name);
        let partitions = wanted.partitions.iter().map(|p| {
            let moved = match topic.as_ref().and_then(|t| t.partition(p.partition_index)) {
                None => Err(ResponseError::UnknownTopicOrPartition),
                Some(log) => match log.delete_records(p.offset) {
                    Ok(Some(start)) => Ok(start),
                    Ok(None) => Err(ResponseError::OffsetOutOfRange),
                    Err(error) => {
                        tracing::warn!(topic = %wanted.name.as_str(), %error, "records were not deleted");
                        Err(ResponseError::KafkaStorageError)
                    }
                },
            };
            DeleteRecordsPartitionResult::default()
                .with_partition_index(p.partition_index)
                .with_error_code(code(&moved))
                .with_low_watermark(moved.unwrap_or(-1))
        });
        let partitions: Vec<_> = partitions.collect();
        DeleteRecordsTopicResult::default().with_name(wanted.name.clone()).with_partitions(partitions)
    });
    let response = DeleteRecordsResponse::default().with_topics(topics.collect());
    c.broker.store.changed();
    response
}
