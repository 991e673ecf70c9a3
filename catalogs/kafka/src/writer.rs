//! INSERT INTO a stream: one record per row, each once and in order, acknowledged by all in-sync replicas.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Field, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type,
    Time64MicrosecondType, TimeUnit, TimestampMicrosecondType,
};
use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use parking_lot::Mutex;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseRecord, Producer, PurgeConfig, ThreadedProducer};
use tidewater_catalogs::{Error, ErrorKind, Result, StreamColumn, StreamFormat, StreamSpec, StreamWriter};
use tokio::sync::Notify;

use crate::client::{Context, code_error, trouble};
use crate::format::{Scan, is_json, to_rfc3339};
use crate::metadata::quote;
use crate::options::{Options, config_error};

/// What became of the records of one statement. Shared with librdkafka, one count per record.
#[derive(Default)]
pub(crate) struct Flight {
    state: Mutex<Counts>,
    changed: Notify,
}

#[derive(Default)]
struct Counts {
    sent: u64,
    arrived: u64,
    failed: u64,
    first_error: Option<KafkaError>,
}

impl Flight {
    pub(crate) fn landed(&self, error: Option<KafkaError>) {
        let mut state = self.state.lock();
        match error {
            None => state.arrived += 1,
            Some(e) => {
                state.failed += 1;
                state.first_error.get_or_insert(e);
            }
        }
        let wake = state.arrived + state.failed == state.sent || state.sent.is_multiple_of(1024);
        drop(state);
        if wake {
            self.changed.notify_one();
        }
    }
}

pub(crate) struct Writer {
    /// `None` only while it is dropped.
    producer: Option<ThreadedProducer<Context>>,
    context: Context,
    flight: Arc<Flight>,
    connection: String,
    topic: String,
    format: StreamFormat,
    fields: Vec<Field>,
    key: Option<String>,
    value: Vec<u8>,
    key_text: Vec<u8>,
}

impl Writer {
    pub(crate) fn new(spec: &StreamSpec, options: &Options) -> Result<Self> {
        let context = Context::default();
        let mut config = options.producer();
        // What may be under way at once; above it a write waits.
        config.set("queue.buffering.max.kbytes", "65536");
        let producer =
            config.create_with_context(context.clone()).map_err(|e| config_error(&spec.connection.name, e))?;
        Ok(Self {
            producer: Some(producer),
            context,
            flight: Arc::default(),
            connection: spec.connection.name.clone(),
            topic: spec.topic.clone(),
            format: spec.format,
            fields: spec
                .columns
                .iter()
                .filter_map(|c| match c {
                    StreamColumn::Value(field) => Some(field.clone()),
                    StreamColumn::Metadata { .. } => None,
                })
                .collect(),
            key: spec.key_column.clone(),
            value: Vec::new(),
            key_text: Vec::new(),
        })
    }

    /// Columns of the batch as the stream declares them.
    fn columns(&self, batch: &RecordBatch) -> Result<Vec<(Field, ArrayRef)>> {
        let mut columns = Vec::with_capacity(batch.num_columns());
        for (given, array) in batch.schema_ref().fields().iter().zip(batch.columns()) {
            let Some(field) = self.fields.iter().find(|f| f.name() == given.name()) else {
                return Err(Error::invalid(format!("column \"{}\" cannot be written to the stream", given.name()))
                    .with_detail("Only columns of the record's value can be written."));
            };
            columns.push((field.clone(), cast(array, field.data_type())?));
        }
        for field in self.fields.iter().filter(|f| !f.is_nullable()) {
            let written = columns.iter().find(|(f, _)| f.name() == field.name());
            if written.is_none_or(|(_, a)| a.null_count() > 0) {
                return Err(Error::invalid(format!("column \"{}\" may not be null", field.name())));
            }
        }
        Ok(columns)
    }

    async fn send(&self, value: Option<&[u8]>, key: Option<&[u8]>) -> Result<()> {
        let Some(producer) = &self.producer else { return Err(Error::internal("writer is closed")) };
        loop {
            let changed = self.flight.changed.notified();
            let mut record = BaseRecord::with_opaque_to(&self.topic, self.flight.clone());
            if let Some(value) = value {
                record = record.payload(value);
            }
            if let Some(key) = key {
                record = record.key(key);
            }
            self.flight.state.lock().sent += 1;
            let refused = match producer.send(record) {
                Ok(()) => return Ok(()),
                Err((e, _)) => e,
            };
            self.flight.state.lock().sent -= 1;
            if refused.rdkafka_error_code() != Some(RDKafkaErrorCode::QueueFull) {
                return Err(self.failed(Some(refused)));
            }
            // Each record that lands makes room; the pause only bounds a wake-up that was missed.
            let _ = tokio::time::timeout(Duration::from_millis(20), changed).await;
            self.check()?;
        }
    }

    /// Fails as soon as one record has failed: what comes after it would stand behind a gap.
    fn check(&self) -> Result<()> {
        let error = self.flight.state.lock().first_error.clone();
        match error {
            Some(e) => Err(self.failed(Some(e))),
            None => Ok(()),
        }
    }

    fn failed(&self, error: Option<KafkaError>) -> Error {
        let arrived = self.flight.state.lock().arrived;
        let code = error.as_ref().and_then(KafkaError::rdkafka_error_code);
        let error = match code {
            Some(RDKafkaErrorCode::MessageTimedOut | RDKafkaErrorCode::BrokerTransportFailure) | None => {
                trouble(&self.connection, self.context.last(), Duration::from_secs(30))
            }
            Some(RDKafkaErrorCode::MessageSizeTooLarge) => {
                Error::new(ErrorKind::ResourcesExhausted, "record is larger than kafka takes")
                    .with_hint("Raise message.max.bytes in the connection's properties and at the topic.")
            }
            Some(code) => code_error(&self.connection, code, "write to the topic"),
        };
        error.with_context("topic", &self.topic).with_context("rows_written", arrived)
    }
}

#[async_trait]
impl StreamWriter for Writer {
    async fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        let columns = self.columns(batch)?;
        let key = match &self.key {
            None => None,
            Some(name) => Some(
                columns
                    .iter()
                    .position(|(f, _)| f.name() == name)
                    .ok_or_else(|| Error::invalid(format!("column \"{name}\" is the key and has to be written")))?,
            ),
        };
        for row in 0..batch.num_rows() {
            let mut value = std::mem::take(&mut self.value);
            let mut key_text = std::mem::take(&mut self.key_text);
            let has_value = encode_row(self.format, &columns, row, &mut value)?;
            let has_key = match key.and_then(|i| columns.get(i)) {
                Some((field, array)) => encode_key(field, array, row, &mut key_text)?,
                None => false,
            };
            let sent = self.send(has_value.then_some(value.as_slice()), has_key.then_some(key_text.as_slice())).await;
            self.value = value;
            self.key_text = key_text;
            sent?;
        }
        self.check()
    }

    async fn finish(self: Box<Self>) -> Result<u64> {
        loop {
            let changed = self.flight.changed.notified();
            {
                let state = self.flight.state.lock();
                if state.arrived + state.failed == state.sent {
                    break;
                }
            }
            // Bounded by librdkafka's message.timeout.ms; the pause only bounds a wake-up that was missed.
            let _ = tokio::time::timeout(Duration::from_millis(100), changed).await;
        }
        self.check()?;
        let arrived = self.flight.state.lock().arrived;
        metrics::counter!("tidewater_kafka_written_records_total", "topic" => self.topic.clone()).increment(arrived);
        Ok(arrived)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if let Some(producer) = self.producer.take() {
            // Closing waits for the connection's threads, which nobody on the runtime should.
            // Of a statement that was cancelled nothing more should go out than has gone already.
            producer.purge(PurgeConfig::default().queue().inflight());
            let _ = std::thread::Builder::new().name("tidewater-kafka-close".into()).spawn(move || drop(producer));
        }
    }
}

/// The record's value into `out`; false for none, which `raw` and `text` write for a null.
fn encode_row(format: StreamFormat, columns: &[(Field, ArrayRef)], row: usize, out: &mut Vec<u8>) -> Result<bool> {
    out.clear();
    if format == StreamFormat::Json {
        out.push(b'{');
        for (i, (field, array)) in columns.iter().enumerate() {
            if i > 0 {
                out.push(b',');
            }
            quote(field.name(), out);
            out.push(b':');
            encode(field, array, row, out)?;
        }
        out.push(b'}');
        return Ok(true);
    }
    match columns.first() {
        Some((_, array)) if array.is_valid(row) => {
            out.extend_from_slice(bytes_of(array, row)?);
            Ok(true)
        }
        _ => Ok(false),
    }
}

fn bytes_of(array: &ArrayRef, row: usize) -> Result<&[u8]> {
    Ok(match array.data_type() {
        DataType::Utf8 => array.as_string::<i32>().value(row).as_bytes(),
        DataType::LargeUtf8 => array.as_string::<i64>().value(row).as_bytes(),
        DataType::Utf8View => array.as_string_view().value(row).as_bytes(),
        DataType::Binary => array.as_binary::<i32>().value(row),
        DataType::LargeBinary => array.as_binary::<i64>().value(row),
        DataType::BinaryView => array.as_binary_view().value(row),
        other => return Err(Error::unsupported(format!("cannot write bytes of type {other}"))),
    })
}

/// The key is the column's text: of strings and bytes themselves, of others what JSON writes. False for a null.
fn encode_key(field: &Field, array: &ArrayRef, row: usize, out: &mut Vec<u8>) -> Result<bool> {
    out.clear();
    if array.is_null(row) {
        return Ok(false);
    }
    if let Ok(bytes) = bytes_of(array, row) {
        out.extend_from_slice(bytes);
        return Ok(true);
    }
    encode(field, array, row, out)?;
    if out.len() >= 2 && out.first() == Some(&b'"') {
        out.pop();
        out.remove(0);
    }
    Ok(true)
}

fn encode(field: &Field, array: &ArrayRef, row: usize, out: &mut Vec<u8>) -> Result<()> {
    use std::io::Write;
    if array.is_null(row) {
        out.extend_from_slice(b"null");
        return Ok(());
    }
    let written = match array.data_type() {
        DataType::Null => out.write_all(b"null"),
        DataType::Boolean => write!(out, "{}", array.as_boolean().value(row)),
        DataType::Int8 => write!(out, "{}", array.as_primitive::<Int8Type>().value(row)),
        DataType::Int16 => write!(out, "{}", array.as_primitive::<Int16Type>().value(row)),
        DataType::Int32 => write!(out, "{}", array.as_primitive::<Int32Type>().value(row)),
        DataType::Int64 => write!(out, "{}", array.as_primitive::<Int64Type>().value(row)),
        DataType::Float32 => {
            let v = array.as_primitive::<Float32Type>().value(row);
            if v.is_finite() { write!(out, "{v:?}") } else { write_special(f64::from(v), out) }
        }
        DataType::Float64 => {
            let v = array.as_primitive::<Float64Type>().value(row);
            if v.is_finite() { write!(out, "{v:?}") } else { write_special(v, out) }
        }
        DataType::Decimal128(_, _) => write!(out, "{}", array.as_primitive::<Decimal128Type>().value_as_string(row)),
        DataType::Date32 => {
            let days = array.as_primitive::<Date32Type>().value(row);
            let text = to_rfc3339(i64::from(days) * 86_400_000_000, false)
                .ok_or_else(|| Error::invalid(format!("date in column \"{}\" is out of range", field.name())))?;
            write!(out, "\"{}\"", &text[..10])
        }
        DataType::Time64(TimeUnit::Microsecond) => {
            let us = array.as_primitive::<Time64MicrosecondType>().value(row);
            let text = to_rfc3339(us, false).unwrap_or_default();
            write!(out, "\"{}\"", text.get(11..).unwrap_or_default())
        }
        DataType::Timestamp(_, zone) => {
            let micros = cast(&array.slice(row, 1), &DataType::Timestamp(TimeUnit::Microsecond, zone.clone()))?;
            let us = micros.as_primitive::<TimestampMicrosecondType>().value(0);
            let text = to_rfc3339(us, zone.is_some())
                .ok_or_else(|| Error::invalid(format!("timestamp in column \"{}\" is out of range", field.name())))?;
            write!(out, "\"{text}\"")
        }
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {
            let text = std::str::from_utf8(bytes_of(array, row)?).unwrap_or_default();
            if is_json(field) {
                let mut scan = Scan::new(text);
                scan.space();
                let whole = scan.skip(1).map(|()| {
                    scan.space();
                    scan.peek().is_none()
                });
                if whole != Ok(true) {
                    return Err(Error::invalid(format!("value of column \"{}\" is not JSON", field.name())));
                }
                out.extend_from_slice(text.as_bytes());
            } else {
                quote(text, out);
            }
            Ok(())
        }
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => {
            write!(out, "\"{}\"", STANDARD.encode(bytes_of(array, row)?))
        }
        DataType::Struct(fields) => {
            out.push(b'{');
            for (i, (child, column)) in fields.iter().zip(array.as_struct().columns()).enumerate() {
                if i > 0 {
                    out.push(b',');
                }
                quote(child.name(), out);
                out.push(b':');
                encode(child, column, row, out)?;
            }
            out.push(b'}');
            Ok(())
        }
        DataType::List(item) => {
            let list = array.as_list::<i32>().value(row);
            out.push(b'[');
            for i in 0..list.len() {
                if i > 0 {
                    out.push(b',');
                }
                encode(item, &list, i, out)?;
            }
            out.push(b']');
            Ok(())
        }
        other => return Err(Error::unsupported(format!("cannot write column \"{}\" of type {other}", field.name()))),
    };
    written.map_err(|e| Error::internal("cannot encode a row").with_source(e))
}

/// JSON has no such numbers; the reader takes these names.
fn write_special(v: f64, out: &mut Vec<u8>) -> std::io::Result<()> {
    use std::io::Write;
    write!(
        out,
        "\"{}\"",
        if v.is_nan() {
            "NaN"
        } else if v > 0.0 {
            "Infinity"
        } else {
            "-Infinity"
        }
    )
}

#[cfg(test)]
mod tests;
