use std::sync::Arc;
use std::time::Duration;

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::fetch_request::FetchPartition;
use kafka_protocol::messages::fetch_response::{FetchableTopicResponse, PartitionData};
use kafka_protocol::messages::{FetchRequest, FetchResponse};
use tokio::time::Instant;

use super::Context;
use crate::log::{ReadError, Span};
use crate::store::Topic;

const MAX_WAIT: Duration = Duration::from_secs(60);

/// Waits until `min_bytes` are there, `max_wait_ms` are over, or something is wrong that the client should know.
/// Fetch sessions are never begun: the answer's session id is 0, and every request names its partitions.
pub async fn fetch(c: Context<'_>, request: FetchRequest) -> FetchResponse {
    if request.session_id != 0 {
        return FetchResponse::default().with_error_code(ResponseError::FetchSessionIdNotFound.code());
    }
    let wait = Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0)).min(MAX_WAIT);
    let deadline = Instant::now() + wait;
    let min_bytes = u64::try_from(request.min_bytes).unwrap_or(0);
    let mut changes = c.broker.store.changes();
    loop {
        changes.borrow_and_update();
        if is_ready(c, &request, min_bytes) || Instant::now() >= deadline {
            break;
        }
        tokio::select! {
            () = c.broker.stop.cancelled() => break,
            () = tokio::time::sleep_until(deadline) => break,
            changed = changes.changed() => if changed.is_err() { break },
        }
    }
    read(c, &request)
}

fn topic(c: Context<'_>, topic: &kafka_protocol::messages::fetch_request::FetchTopic) -> Option<Arc<Topic>> {
    if c.version >= 13 { c.broker.store.topic_by_id(&topic.topic_id) } else { c.broker.store.topic(&topic.topic) }
}

fn is_ready(c: Context<'_>, request: &FetchRequest, min_bytes: u64) -> bool {
    let mut available = 0;
    for wanted in &request.topics {
        let Some(topic) = topic(c, wanted) else { return true };
        for partition in &wanted.partitions {
            match topic.partition(partition.partition).map(|log| log.available(partition.fetch_offset)) {
                Some(Ok(bytes)) => available += bytes,
                _ => return true,
            }
        }
    }
    available >= min_bytes
}

fn read(c: Context<'_>, request: &FetchRequest) -> FetchResponse {
    let mut left = usize::try_from(request.max_bytes).unwrap_or(0).min(c.broker.store.config.max_fetch_bytes);
    let mut empty = true;
    let mut responses = Vec::with_capacity(request.topics.len());
    for wanted in &request.topics {
        let found = topic(c, wanted);
        let mut partitions = Vec::with_capacity(wanted.partitions.len());
        for partition in &wanted.partitions {
            let data = read_partition(c, found.as_deref(), partition, left, empty);
            let bytes = data.records.as_ref().map_or(0, |r| r.len());
            left = left.saturating_sub(bytes);
            empty &= bytes == 0;
            let aborted = (request.isolation_level == 1).then(Vec::new);
            partitions.push(data.with_aborted_transactions(aborted));
        }
        let response = FetchableTopicResponse::default().with_topic(wanted.topic.clone());
        responses.push(response.with_topic_id(wanted.topic_id).with_partitions(partitions));
    }
    FetchResponse::default().with_responses(responses)
}

fn read_partition(
    c: Context<'_>,
    topic: Option<&Topic>,
    wanted: &FetchPartition,
    left: usize,
    at_least_one: bool,
) -> PartitionData {
    let data = PartitionData::default().with_partition_index(wanted.partition).with_records(Some(Default::default()));
    let failed = |error: ResponseError| {
        let data = data.clone().with_error_code(error.code());
        data.with_high_watermark(-1).with_last_stable_offset(-1).with_log_start_offset(-1)
    };
    let Some(topic) = topic else {
        return failed(match c.version {
            13.. => ResponseError::UnknownTopicId,
            _ => ResponseError::UnknownTopicOrPartition,
        });
    };
    let Some(log) = topic.partition(wanted.partition) else {
        return failed(ResponseError::UnknownTopicOrPartition);
    };
    let spanning = |data: PartitionData, span: Span| {
        data.with_high_watermark(span.end).with_last_stable_offset(span.end).with_log_start_offset(span.start)
    };
    let max_bytes = usize::try_from(wanted.partition_max_bytes).unwrap_or(0).min(left);
    match log.read(wanted.fetch_offset, max_bytes, at_least_one) {
        Ok(records) => spanning(data, records.span).with_records(Some(records.bytes)),
        Err(ReadError::OutOfRange(span)) => {
            spanning(data.with_error_code(ResponseError::OffsetOutOfRange.code()), span)
        }
        // Retention took the segment between the look into the index and the file; the next request sees it gone.
        Err(ReadError::Io(e)) if e.kind() == std::io::ErrorKind::NotFound => spanning(data, log.span()),
        Err(ReadError::Io(error)) => {
            tracing::warn!(topic = %topic.name, partition = wanted.partition, %error, "records cannot be read");
            failed(ResponseError::KafkaStorageError)
        }
    }
}
