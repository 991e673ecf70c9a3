use bytes::Bytes;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::produce_request::PartitionProduceData;
use kafka_protocol::messages::produce_response::{PartitionProduceResponse, TopicProduceResponse};
use kafka_protocol::messages::{
    InitProducerIdRequest, InitProducerIdResponse, ProduceRequest, ProduceResponse, ProducerId,
};

use super::{Context, text};
use crate::batch::BadBatch;
use crate::log::{AppendError, Appended};
use crate::producers::Sequence;
use crate::store::Topic;

type Refusal = (ResponseError, Option<&'static str>);

/// `None` where the producer wants no answer (acks = 0).
pub fn produce(c: Context<'_>, request: ProduceRequest) -> Option<ProduceResponse> {
    let refusal = match request.acks {
        _ if request.transactional_id.is_some() => Some(NO_TRANSACTIONS),
        -1..=1 => None,
        _ => Some((ResponseError::InvalidRequiredAcks, None)),
    };
    let mut stored = false;
    let mut rolled = false;
    let mut responses = Vec::with_capacity(request.topic_data.len());
    for topic_data in request.topic_data {
        let topic = c.broker.store.topic(&topic_data.name);
        let mut partitions = Vec::with_capacity(topic_data.partition_data.len());
        for data in topic_data.partition_data {
            let index = data.index;
            let done = match refusal {
                Some(refusal) => Err(refusal),
                None => append(c, topic.as_deref(), data),
            };
            if let Ok(appended) = &done {
                stored = true;
                rolled |= appended.rolled;
            }
            partitions.push(partition_response(index, done));
        }
        let response = TopicProduceResponse::default().with_name(topic_data.name);
        responses.push(response.with_partition_responses(partitions));
    }
    if stored {
        c.broker.store.changed();
    }
    if rolled {
        c.broker.store.enforce_total();
    }
    (request.acks != 0).then(|| ProduceResponse::default().with_responses(responses))
}

const NO_TRANSACTIONS: Refusal = (
    ResponseError::TransactionalIdAuthorizationFailed,
    Some("the development broker has no transactions; use an Apache Kafka broker"),
);

fn append(c: Context<'_>, topic: Option<&Topic>, data: PartitionProduceData) -> Result<Appended, Refusal> {
    let log = topic.and_then(|t| t.partition(data.index)).ok_or((ResponseError::UnknownTopicOrPartition, None))?;
    let records = data.records.unwrap_or_default();
    if records.len() > c.broker.store.config.max_batch_bytes {
        return Err((ResponseError::MessageTooLarge, Some("the batch is larger than max_batch_bytes")));
    }
    log.append(&mut owned(records)).map_err(|error| match error {
        AppendError::Bad(BadBatch::OldFormat) => (ResponseError::UnsupportedForMessageFormat, None),
        AppendError::Bad(BadBatch::Transactional) => NO_TRANSACTIONS,
        AppendError::Bad(BadBatch::Crc | BadBatch::Short) => (ResponseError::CorruptMessage, None),
        AppendError::Bad(BadBatch::Inconsistent) => {
            (ResponseError::InvalidRecord, Some("not exactly one well-formed record batch"))
        }
        AppendError::Sequence(Sequence::Fenced) => (ResponseError::InvalidProducerEpoch, None),
        AppendError::Sequence(Sequence::Forgotten) => (ResponseError::DuplicateSequenceNumber, None),
        AppendError::Sequence(_) => (ResponseError::OutOfOrderSequenceNumber, None),
        AppendError::Deleted => (ResponseError::UnknownTopicOrPartition, None),
        AppendError::Full => (ResponseError::InvalidRecord, Some("the offsets of the partition are used up")),
        AppendError::Io(error) => {
            tracing::warn!(%error, "records were not stored");
            (ResponseError::KafkaStorageError, None)
        }
    })
}

/// The request's bytes, to write base offset and leader epoch into.
fn owned(records: Bytes) -> Vec<u8> {
    records.to_vec()
}

fn partition_response(index: i32, done: Result<Appended, Refusal>) -> PartitionProduceResponse {
    let response = PartitionProduceResponse::default().with_index(index).with_log_append_time_ms(-1);
    match done {
        Ok(appended) => response.with_base_offset(appended.base_offset).with_log_start_offset(appended.log_start),
        Err((error, message)) => response
            .with_error_code(error.code())
            .with_base_offset(-1)
            .with_log_start_offset(-1)
            .with_error_message(message.map(text)),
    }
}

pub fn init_producer_id(c: Context<'_>, request: InitProducerIdRequest) -> InitProducerIdResponse {
    let refused = |error: ResponseError| {
        let response = InitProducerIdResponse::default().with_error_code(error.code());
        response.with_producer_id(ProducerId(-1)).with_producer_epoch(-1)
    };
    if request.transactional_id.is_some() {
        return refused(NO_TRANSACTIONS.0);
    }
    match c.broker.store.next_producer_id() {
        Ok(id) => InitProducerIdResponse::default().with_producer_id(ProducerId(id)).with_producer_epoch(0),
        Err(error) => {
            tracing::warn!(%error, "producer id was not given");
            refused(ResponseError::CoordinatorNotAvailable)
        }
    }
}
