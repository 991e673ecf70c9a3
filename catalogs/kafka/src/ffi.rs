//! The few calls of librdkafka that the `rdkafka` crate does not wrap, each with the reason why it is sound.
//!
//! * [`Intake`]: consuming in batches from one queue over several partitions. The crate's own `poll` hands out one
//!   event, one `Arc` and one wrapper per message, says of an error on a partition neither the partition nor the
//!   offset, and of an end of a partition not where it is; here all of these come as plain messages. It also
//!   starts partitions one by one and so needs no consumer group (and no right to one).
//! * [`topic_id`]: the id that tells a re-created topic from the one it replaced.

#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_char};
use std::marker::PhantomData;
use std::ptr;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka_sys as sys;
use rdkafka_sys::types::{RDKafka, RDKafkaErrorCode, RDKafkaMessage, RDKafkaQueue, RDKafkaTopic};

/// Messages taken from the queue at once.
const BATCH: usize = 1024;

/// One consumer that reads some partitions of one topic, all through one queue.
pub(crate) struct Intake<C: ConsumerContext> {
    queue: *mut RDKafkaQueue,
    topic: *mut RDKafkaTopic,
    started: Vec<i32>,
    batch: Vec<*mut RDKafkaMessage>,
    // Declared last and so dropped last: queue and topic belong to it.
    consumer: BaseConsumer<C>,
}

impl<C: ConsumerContext> Intake<C> {
    /// `None` where the topic name has a NUL or librdkafka refuses it.
    pub(crate) fn new(consumer: BaseConsumer<C>, topic: &str) -> Option<Self> {
        let name = CString::new(topic).ok()?;
        let client = consumer.client().native_ptr();
        // SAFETY: `client` is alive as long as `consumer`, which `self` owns; `name` is a C string that is copied.
        // A null configuration means the client's default for topics. Both results are owned by `self`.
        let (queue, topic) = unsafe {
            (sys::rd_kafka_queue_new(client), sys::rd_kafka_topic_new(client, name.as_ptr(), ptr::null_mut()))
        };
        let intake = Self { queue, topic, started: Vec::new(), batch: Vec::with_capacity(BATCH), consumer };
        (!intake.queue.is_null() && !intake.topic.is_null()).then_some(intake)
    }

    pub(crate) fn consumer(&self) -> &BaseConsumer<C> {
        &self.consumer
    }

    /// Begins to read a partition at an absolute offset.
    pub(crate) fn start(&mut self, partition: i32, offset: i64) -> Result<(), RDKafkaErrorCode> {
        // SAFETY: topic and queue are alive, and belong to the same client.
        let code = unsafe { sys::rd_kafka_consume_start_queue(self.topic, partition, offset, self.queue) };
        if code == -1 {
            // SAFETY: reads a thread-local; the call that set it was made by this thread.
            return Err(unsafe { sys::rd_kafka_last_error() }.into());
        }
        self.started.push(partition);
        Ok(())
    }

    /// Ends reading a partition; what was fetched of it already is dropped by librdkafka.
    pub(crate) fn stop(&mut self, partition: i32) {
        if let Some(at) = self.started.iter().position(|p| *p == partition) {
            self.started.swap_remove(at);
            // SAFETY: the topic is alive, and the partition was started and not stopped since.
            unsafe { sys::rd_kafka_consume_stop(self.topic, partition) };
        }
    }

    /// Waits for one message, then takes what else is there already. The messages before are given back.
    pub(crate) fn fill(&mut self, wait: Duration) -> usize {
        self.clear();
        let wait = i32::try_from(wait.as_millis()).unwrap_or(i32::MAX);
        let room = self.batch.as_mut_ptr();
        // SAFETY: `batch` is empty and has room for BATCH pointers; the call writes at most as many as it is told
        // and says how many it wrote (or -1), and only those are taken over by `set_len`. They are owned by `self`.
        unsafe {
            let mut n = sys::rd_kafka_consume_batch_queue(self.queue, wait, room, 1).max(0) as usize;
            if n == 1 {
                n += sys::rd_kafka_consume_batch_queue(self.queue, 0, room.add(1), BATCH - 1).max(0) as usize;
            }
            self.batch.set_len(n);
        }
        self.batch.len()
    }

    /// What the last [`Self::fill`] took.
    pub(crate) fn get(&self, i: usize) -> Option<Message<'_>> {
        // SAFETY: every pointer in `batch` is a message that is destroyed by `clear` alone, which needs `&mut self`;
        // the borrow of `self` in the result keeps it away.
        self.batch.get(i).map(|raw| Message { raw: *raw, owner: PhantomData })
    }

    fn clear(&mut self) {
        for message in self.batch.drain(..) {
            // SAFETY: the message came from librdkafka, is destroyed once, and nothing borrows it (`&mut self`).
            unsafe { sys::rd_kafka_message_destroy(message) };
        }
    }
}

impl<C: ConsumerContext> Drop for Intake<C> {
    fn drop(&mut self) {
        self.clear();
        for partition in std::mem::take(&mut self.started) {
            // SAFETY: as in `stop`.
            unsafe { sys::rd_kafka_consume_stop(self.topic, partition) };
        }
        // SAFETY: both are owned by `self`, not used after this, and their client is dropped after this function.
        unsafe {
            if !self.topic.is_null() {
                sys::rd_kafka_topic_destroy(self.topic);
            }
            if !self.queue.is_null() {
                sys::rd_kafka_queue_destroy(self.queue);
            }
        }
    }
}

/// A record, or something to know about a partition.
#[derive(Clone, Copy)]
pub(crate) struct Message<'a> {
    raw: *mut RDKafkaMessage,
    owner: PhantomData<&'a ()>,
}

/// `create` or `append`, as `_timestamp_type` spells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TimestampType {
    Create,
    Append,
}

impl TimestampType {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Append => "append",
        }
    }
}

impl<'a> Message<'a> {
    /// Nought for a record; else a number of [`RDKafkaErrorCode`], or one that a newer broker has and it lacks,
    /// which is why it stays a number here.
    pub(crate) fn code(&self) -> i32 {
        // SAFETY: see `Intake::get`: the message lives as long as 'a. The field is a C int.
        unsafe { (&raw const (*self.raw).err).cast::<i32>().read() }
    }
    pub(crate) fn partition(&self) -> i32 {
        // SAFETY: as above.
        unsafe { (*self.raw).partition }
    }
    /// Of a record its own; of the end of a partition the next to come; of an error the one that was asked for.
    pub(crate) fn offset(&self) -> i64 {
        // SAFETY: as above.
        unsafe { (*self.raw).offset }
    }
    pub(crate) fn key(&self) -> Option<&'a [u8]> {
        // SAFETY: as above; pointer and length are of one field.
        unsafe { slice((*self.raw).key.cast(), (*self.raw).key_len) }
    }
    /// Of an error its text.
    pub(crate) fn value(&self) -> Option<&'a [u8]> {
        // SAFETY: as above; pointer and length are of one field.
        unsafe { slice((*self.raw).payload.cast(), (*self.raw).len) }
    }

    /// Milliseconds since 1970-01-01.
    pub(crate) fn timestamp_ms(&self) -> Option<(i64, TimestampType)> {
        let mut kind = sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
        // SAFETY: the message is alive; the kind is written to a local.
        let ms = unsafe { sys::rd_kafka_message_timestamp(self.raw, &mut kind) };
        let kind = match kind {
            sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_CREATE_TIME => TimestampType::Create,
            sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_LOG_APPEND_TIME => TimestampType::Append,
            sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE => return None,
        };
        (ms != -1).then_some((ms, kind))
    }

    /// Calls back with every header, in order.
    pub(crate) fn headers(&self, mut each: impl FnMut(&'a [u8], Option<&'a [u8]>)) {
        let mut headers = ptr::null_mut();
        // SAFETY: the message is alive. The list is parsed on first use and then belongs to the message, by this
        // thread alone: neither `Intake` nor `Message` is `Sync`.
        let code = unsafe { sys::rd_kafka_message_headers(self.raw, &mut headers) };
        if RDKafkaErrorCode::from(code) != RDKafkaErrorCode::NoError {
            return;
        }
        for i in 0.. {
            let (mut name, mut value, mut len) = (ptr::null(), ptr::null(), 0);
            // SAFETY: the list belongs to the message, and so do name and value, which live as long as it; the name
            // ends in NUL. Past the last header the call says so and writes nothing.
            unsafe {
                let code = sys::rd_kafka_header_get_all(headers, i, &mut name, &mut value, &mut len);
                if RDKafkaErrorCode::from(code) != RDKafkaErrorCode::NoError || name.is_null() {
                    return;
                }
                each(CStr::from_ptr::<'a>(name).to_bytes(), slice::<'a>(value.cast(), len));
            }
        }
    }
}

/// Null is no value; a length of nought with a pointer is an empty one.
///
/// # Safety
/// `data` is null, or points to `len` bytes that nobody changes during 'a.
unsafe fn slice<'a>(data: *const u8, len: usize) -> Option<&'a [u8]> {
    // SAFETY: the caller's promise.
    (!data.is_null()).then(|| unsafe { std::slice::from_raw_parts(data, len) })
}

/// The topic's id in base64, as Kafka's own tools print it; `None` where the broker does not say in time.
pub(crate) fn topic_id(client: *mut RDKafka, topic: &str, timeout: Duration) -> Option<String> {
    let name = CString::new(topic).ok()?;
    let timeout_ms = i32::try_from(timeout.as_millis()).ok()?;
    // SAFETY: the caller's client outlives this function. All that is made here is destroyed here, in reverse order,
    // and what points into the event is copied before that. `names` and `name` live through the call that reads them.
    unsafe {
        let queue = sys::rd_kafka_queue_new(client);
        let mut names: [*const c_char; 1] = [name.as_ptr()];
        let topics = sys::rd_kafka_TopicCollection_of_topic_names(names.as_mut_ptr(), 1);
        let options =
            sys::rd_kafka_AdminOptions_new(client, sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS);
        let mut message: [c_char; 256] = [0; 256];
        sys::rd_kafka_AdminOptions_set_request_timeout(options, timeout_ms, message.as_mut_ptr(), message.len());
        sys::rd_kafka_DescribeTopics(client, topics, options, queue);
        let event = sys::rd_kafka_queue_poll(queue, timeout_ms);
        let mut id = None;
        if !event.is_null() {
            let result = sys::rd_kafka_event_DescribeTopics_result(event);
            if !result.is_null() {
                let mut count = 0;
                let described = sys::rd_kafka_DescribeTopics_result_topics(result, &mut count);
                if count == 1 && !described.is_null() && !(*described).is_null() {
                    let error = sys::rd_kafka_TopicDescription_error(*described);
                    let code = if error.is_null() { None } else { Some(sys::rd_kafka_error_code(error)) };
                    if code.is_none_or(|c| RDKafkaErrorCode::from(c) == RDKafkaErrorCode::NoError) {
                        let uuid = sys::rd_kafka_TopicDescription_topic_id(*described);
                        let text = if uuid.is_null() { ptr::null() } else { sys::rd_kafka_Uuid_base64str(uuid) };
                        if !text.is_null() {
                            id = CStr::from_ptr(text).to_str().ok().map(str::to_owned);
                        }
                    }
                }
            }
            sys::rd_kafka_event_destroy(event);
        }
        sys::rd_kafka_AdminOptions_destroy(options);
        sys::rd_kafka_TopicCollection_destroy(topics);
        sys::rd_kafka_queue_destroy(queue);
        id.filter(|id| !id.is_empty() && id != "AAAAAAAAAAAAAAAAAAAAAA")
    }
}
