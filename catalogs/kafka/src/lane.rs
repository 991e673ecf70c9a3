//! Records of one partition on their way into one batch.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, Int32Array, Int64Array, NullBufferBuilder, StringArray, TimestampMicrosecondArray, new_null_array,
};
use arrow::buffer::ScalarBuffer;
use arrow::datatypes::{Field, Schema, SchemaRef};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use tidewater_catalogs::{
    Error, ErrorKind, HiddenColumn, OnError, ReadBatch, Result, StreamColumn, StreamFormat, StreamSpec,
    dead_letter_schema,
};

use crate::format::{Bytes, Malformed, ValueDecoder};
use crate::metadata::{MetadataColumn, Origin, Record, headers_json};

/// A batch is cut at this many records or bytes of records, whatever comes first.
pub(crate) const BATCH_ROWS: u64 = 8192;
pub(crate) const BATCH_BYTES: u64 = 4 << 20;

/// What is read of each record: a stream's columns and a projection of them.
#[derive(Debug, Clone)]
pub(crate) struct ReadPlan {
    topic: Arc<str>,
    format: StreamFormat,
    on_error: OnError,
    /// False where nobody asks for dead letters: they are counted then.
    want_dead_letters: bool,
    values: Vec<Field>,
    keep_values: Vec<bool>,
    metadata: Vec<(Origin, Field, bool)>,
    output: Vec<Slot>,
    schema: SchemaRef,
}

/// Where an output column is found: index among the kept values, or among the kept metadata columns.
#[derive(Debug, Clone, Copy)]
enum Slot {
    Value(usize),
    Metadata(usize),
}

impl ReadPlan {
    /// `projection` are ascending indexes into the stream's full schema.
    pub(crate) fn new(spec: &StreamSpec, projection: &[usize], on_error: OnError, dead_letters: bool) -> Result<Self> {
        let full = spec.full_schema();
        let mut plan = Self {
            topic: Arc::from(spec.topic.as_str()),
            format: spec.format,
            on_error,
            want_dead_letters: dead_letters && on_error == OnError::Dlq,
            values: Vec::new(),
            keep_values: Vec::new(),
            metadata: Vec::new(),
            output: Vec::new(),
            schema: Arc::new(
                full.project(projection)
                    .map_err(|e| Error::internal("projection names a column that the stream lacks").with_source(e))?,
            ),
        };
        let (mut kept_values, mut kept_metadata) = (0, 0);
        for (i, column) in spec.columns.iter().enumerate() {
            let keep = projection.contains(&i);
            match column {
                StreamColumn::Value(field) => {
                    plan.values.push(field.clone());
                    plan.keep_values.push(keep);
                    if keep {
                        plan.output.push(Slot::Value(kept_values));
                        kept_values += 1;
                    }
                }
                StreamColumn::Metadata { field, from } => {
                    plan.metadata.push((Origin::parse(from)?, field.clone(), keep));
                    if keep {
                        plan.output.push(Slot::Metadata(kept_metadata));
                        kept_metadata += 1;
                    }
                }
            }
        }
        for (i, hidden) in HiddenColumn::ALL.into_iter().enumerate() {
            // Hidden columns can fail no record, so those that nobody asks for cost nothing.
            if projection.contains(&(spec.columns.len() + i)) {
                plan.metadata.push((Origin::Hidden(hidden), hidden.field(), true));
                plan.output.push(Slot::Metadata(kept_metadata));
                kept_metadata += 1;
            }
        }
        // The order of the output is that of the slots only where the projection ascends.
        if projection.windows(2).any(|pair| pair[0] >= pair[1]) {
            return Err(Error::internal("projection of a stream does not ascend"));
        }
        // Refuses columns of types that cannot be decoded.
        Lane::new(Arc::new(plan.clone()), 0, 0, None)?;
        Ok(plan)
    }

    pub(crate) fn schema(&self) -> &SchemaRef {
        &self.schema
    }
}

pub(crate) struct Lane {
    plan: Arc<ReadPlan>,
    pub(crate) partition: i32,
    /// The offset to read next; all below it is accounted for.
    pub(crate) next: i64,
    /// Where the batch that fills begins.
    from: i64,
    /// Where the read ends, if it does.
    pub(crate) until: Option<i64>,
    pub(crate) done: bool,
    values: ValueDecoder,
    metadata: Vec<MetadataColumn>,
    dead: DeadLetters,
    rows: usize,
    records: u64,
    malformed: u64,
    source_bytes: u64,
    max_timestamp_ms: i64,
}

impl Lane {
    pub(crate) fn new(plan: Arc<ReadPlan>, partition: i32, from: i64, until: Option<i64>) -> Result<Self> {
        let metadata = plan
            .metadata
            .iter()
            .map(|(origin, field, keep)| MetadataColumn::new(origin.clone(), field, *keep))
            .collect::<Result<_>>()?;
        Ok(Self {
            values: ValueDecoder::new(plan.format, &plan.values, &plan.keep_values)?,
            metadata,
            plan,
            partition,
            next: from,
            from,
            until,
            done: until.is_some_and(|until| from >= until),
            dead: DeadLetters::default(),
            rows: 0,
            records: 0,
            malformed: 0,
            source_bytes: 0,
            max_timestamp_ms: 0,
        })
    }

    /// Takes the record in. `Err` where it cannot be read and that is to be the end; all before it stays in the batch.
    #[inline]
    pub(crate) fn push(&mut self, record: &impl Record) -> Result<()> {
        let offset = record.offset();
        if let Err(malformed) = self.append(record) {
            self.undo();
            if self.plan.on_error == OnError::Fail {
                self.done = true;
                return Err(self.poison(offset, &malformed));
            }
            self.malformed += 1;
            if self.plan.want_dead_letters {
                self.dead.push(record, &malformed)?;
            }
        }
        self.next = offset + 1;
        self.records += 1;
        self.source_bytes += (record.key().map_or(0, <[u8]>::len) + record.value().map_or(0, <[u8]>::len)) as u64;
        if let Some((ms, _)) = record.timestamp_ms() {
            self.max_timestamp_ms = self.max_timestamp_ms.max(ms);
        }
        self.done |= self.until.is_some_and(|until| self.next >= until);
        Ok(())
    }

    #[inline]
    fn append(&mut self, record: &impl Record) -> std::result::Result<(), Malformed> {
        self.values.push(record.value())?;
        self.rows += 1;
        for column in &mut self.metadata {
            column.push(record, &self.plan.topic, self.partition)?;
            if !column.keep() {
                column.truncate(0);
            }
        }
        Ok(())
    }

    /// After a failed [`Self::append`]: a value that could not be read has left nothing behind; behind one that could
    /// the metadata failed.
    #[cold]
    fn undo(&mut self) {
        let good = self.metadata_rows();
        if self.rows > good {
            self.values.pop();
            self.rows = good;
        }
        self.metadata.iter_mut().for_each(|m| m.truncate(good));
    }

    /// Rows that are whole: all records so far that were not malformed.
    fn metadata_rows(&self) -> usize {
        (self.records - self.malformed) as usize
    }

    fn poison(&self, offset: i64, malformed: &Malformed) -> Error {
        Error::new(ErrorKind::DataCorrupt, format!("record cannot be read: {malformed}"))
            .with_context("topic", &self.plan.topic)
            .with_context("partition", self.partition)
            .with_context("offset", offset)
            .with_hint("Use on_error = 'dlq' or 'skip' to go on without such records.")
    }

    /// The partition ends at `end` for now: what lies between is control records, or was compacted away.
    pub(crate) fn reach(&mut self, end: i64) {
        self.next = self.next.max(end);
        self.done |= self.until.is_some_and(|until| self.next >= until);
    }

    pub(crate) fn is_full(&self) -> bool {
        self.records >= BATCH_ROWS || self.source_bytes >= BATCH_BYTES
    }

    /// Whether there is anything to tell.
    pub(crate) fn has_news(&self) -> bool {
        self.next > self.from
    }

    /// Whether the last record was taken in as a row. For records that come from elsewhere than the topic, in a lane
    /// that skips what cannot be read.
    pub(crate) fn try_push(&mut self, record: &impl Record) -> Result<bool> {
        let before = self.malformed;
        self.push(record)?;
        Ok(self.malformed == before)
    }

    /// The rows that were taken in; the columns are empty again.
    pub(crate) fn take_rows(&mut self) -> Result<RecordBatch> {
        let mut values = self.values.finish()?;
        let mut metadata = Vec::new();
        for column in self.metadata.iter_mut().filter(|c| c.keep()) {
            metadata.push(column.finish()?);
        }
        let rows = std::mem::take(&mut self.rows);
        let columns: Vec<ArrayRef> = self
            .plan
            .output
            .iter()
            .map(|slot| match slot {
                Slot::Value(i) => std::mem::replace(&mut values[*i], empty()),
                Slot::Metadata(i) => std::mem::replace(&mut metadata[*i], empty()),
            })
            .collect();
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        Ok(RecordBatch::try_new_with_options(self.plan.schema.clone(), columns, &options)?)
    }

    /// Everything since the last batch; the next one begins where this ends.
    pub(crate) fn flush(&mut self) -> Result<ReadBatch> {
        let rows = self.take_rows()?;
        let malformed = std::mem::take(&mut self.malformed);
        let dead_letters = self.dead.finish(&self.plan.topic, self.partition)?;
        let batch = ReadBatch {
            partition: self.partition,
            from: self.from,
            to: self.next,
            rows,
            skipped: if dead_letters.is_some() { 0 } else { malformed },
            dead_letters,
            records: std::mem::take(&mut self.records),
            source_bytes: std::mem::take(&mut self.source_bytes),
            max_timestamp_ms: std::mem::take(&mut self.max_timestamp_ms),
        };
        self.from = self.next;
        metrics::counter!("tidewater_kafka_records_total", "topic" => self.plan.topic.to_string())
            .increment(batch.records);
        metrics::counter!("tidewater_kafka_bytes_total", "topic" => self.plan.topic.to_string())
            .increment(batch.source_bytes);
        if malformed > 0 {
            metrics::counter!("tidewater_kafka_malformed_records_total", "topic" => self.plan.topic.to_string())
                .increment(malformed);
        }
        Ok(batch)
    }
}

fn empty() -> ArrayRef {
    Arc::new(Int32Array::from(Vec::<i32>::new()))
}

/// Rows of [`dead_letter_schema`].
struct DeadLetters {
    offsets: Vec<i64>,
    timestamps: Vec<i64>,
    timestamp_nulls: NullBufferBuilder,
    timestamp_types: Vec<Option<&'static str>>,
    keys: Bytes,
    key_nulls: NullBufferBuilder,
    values: Bytes,
    value_nulls: NullBufferBuilder,
    headers: Bytes,
    header_nulls: NullBufferBuilder,
    errors: Bytes,
}

impl Default for DeadLetters {
    fn default() -> Self {
        Self {
            offsets: Vec::new(),
            timestamps: Vec::new(),
            timestamp_nulls: NullBufferBuilder::new(0),
            timestamp_types: Vec::new(),
            keys: Bytes::new(),
            key_nulls: NullBufferBuilder::new(0),
            values: Bytes::new(),
            value_nulls: NullBufferBuilder::new(0),
            headers: Bytes::new(),
            header_nulls: NullBufferBuilder::new(0),
            errors: Bytes::new(),
        }
    }
}

impl DeadLetters {
    fn push(&mut self, record: &impl Record, malformed: &Malformed) -> Result<()> {
        let too_large = |e: Malformed| Error::new(ErrorKind::ResourcesExhausted, e.to_string());
        let us = record.timestamp_ms().and_then(|(ms, _)| ms.checked_mul(1_000));
        self.offsets.push(record.offset());
        self.timestamps.push(us.unwrap_or(0));
        self.timestamp_nulls.append(us.is_some());
        self.timestamp_types.push(record.timestamp_ms().map(|(_, kind)| kind.as_str()));
        self.keys.data.extend_from_slice(record.key().unwrap_or_default());
        self.keys.end().map_err(too_large)?;
        self.key_nulls.append(record.key().is_some());
        self.values.data.extend_from_slice(record.value().unwrap_or_default());
        self.values.end().map_err(too_large)?;
        self.value_nulls.append(record.value().is_some());
        self.header_nulls.append(headers_json(record, &mut self.headers.data));
        self.headers.end().map_err(too_large)?;
        self.errors.data.extend_from_slice(malformed.0.as_bytes());
        self.errors.end().map_err(too_large)
    }

    fn finish(&mut self, topic: &str, partition: i32) -> Result<Option<RecordBatch>> {
        let rows = self.offsets.len();
        if rows == 0 {
            return Ok(None);
        }
        let mut all = std::mem::take(self);
        let schema = dead_letter_schema();
        let utc = |values: Vec<i64>, nulls| -> Result<ArrayRef> {
            Ok(Arc::new(TimestampMicrosecondArray::try_new(ScalarBuffer::from(values), nulls)?.with_timezone("+00:00")))
        };
        let now = chrono::Utc::now().timestamp_micros();
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from_iter_values(std::iter::repeat_n(topic, rows))),
            Arc::new(Int32Array::from_value(partition, rows)),
            Arc::new(Int64Array::from(all.offsets)),
            utc(all.timestamps, all.timestamp_nulls.finish())?,
            all.keys.take_binary(all.key_nulls.finish())?,
            all.values.take_binary(all.value_nulls.finish())?,
            all.headers.take_text(all.header_nulls.finish())?,
            all.errors.take_text(None)?,
            new_null_array(type_of(&schema, "flow")?, rows),
            new_null_array(type_of(&schema, "seq")?, rows),
            utc(vec![now; rows], None)?,
            Arc::new(StringArray::from(all.timestamp_types)),
            new_null_array(type_of(&schema, "flow_id")?, rows),
        ];
        Ok(Some(RecordBatch::try_new(schema, columns)?))
    }
}

fn type_of<'a>(schema: &'a Schema, name: &str) -> Result<&'a arrow::datatypes::DataType> {
    Ok(schema.field_with_name(name)?.data_type())
}

#[cfg(test)]
mod tests;
