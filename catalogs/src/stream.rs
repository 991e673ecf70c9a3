use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use datafusion::catalog::TableProvider;

use crate::{Error, Offsets, Result, TableName, TopicLayout};

/// A connection with its secrets filled in. Never logged, never shown: `Debug` prints the option names alone.
#[derive(Clone, PartialEq, Eq)]
pub struct ConnectionSpec {
    pub name: String,
    /// `kafka` …
    pub kind: String,
    pub options: BTreeMap<String, String>,
}

impl std::fmt::Debug for ConnectionSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ConnectionSpec")
            .field("name", &self.name)
            .field("kind", &self.kind)
            .field("options", &self.options.keys().collect::<Vec<_>>())
            .finish()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StreamFormat {
    /// One JSON object per record.
    #[default]
    Json,
    /// One column of type `bytea`: the value as it is.
    Raw,
    /// One column of type `text`: the value as UTF-8.
    Text,
}

/// What becomes of a record that cannot be decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnError {
    /// It goes to `system.dlq.<stream>`, in step with the commit.
    #[default]
    Dlq,
    /// The flow or query fails, naming the record.
    Fail,
    /// It is counted and left out.
    Skip,
}

/// Where a new flow begins, and the lower bound of bounded reads.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum StartPosition {
    #[default]
    Earliest,
    Latest,
    /// The first record at or after this time, milliseconds since 1970-01-01 UTC.
    Timestamp(i64),
    /// As given; partitions that are not named begin at their earliest record.
    Offsets(Offsets),
}

/// One column as the decoder produces it. Generated columns are computed above the source and do not appear here.
#[derive(Debug, Clone, PartialEq)]
pub enum StreamColumn {
    /// The JSON member (or the whole value, for `raw` and `text`) of the field's name.
    Value(Field),
    /// `METADATA FROM 'header.region'`, `'key'`, `'timestamp'`, `'partition'`, `'offset'`, `'topic'`.
    Metadata { field: Field, from: String },
}

impl StreamColumn {
    pub fn field(&self) -> &Field {
        match self {
            Self::Value(field) | Self::Metadata { field, .. } => field,
        }
    }
}

/// Columns that every stream has and `*` leaves out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HiddenColumn {
    Topic,
    Partition,
    Offset,
    Timestamp,
    TimestampType,
    Key,
    Headers,
    Value,
}

impl HiddenColumn {
    pub const ALL: [HiddenColumn; 8] = [
        Self::Topic,
        Self::Partition,
        Self::Offset,
        Self::Timestamp,
        Self::TimestampType,
        Self::Key,
        Self::Headers,
        Self::Value,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Topic => "_topic",
            Self::Partition => "_partition",
            Self::Offset => "_offset",
            Self::Timestamp => "_timestamp",
            Self::TimestampType => "_timestamp_type",
            Self::Key => "_key",
            Self::Headers => "_headers",
            Self::Value => "_value",
        }
    }

    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|c| c.name() == name)
    }

    /// `_timestamp` is in microseconds, UTC; `_headers` is a JSON object as text (null where there are none);
    /// `_timestamp_type` is `create` or `append`.
    pub fn field(self) -> Field {
        let (data_type, nullable) = match self {
            Self::Topic => (DataType::Utf8, false),
            Self::Partition => (DataType::Int32, false),
            Self::Offset => (DataType::Int64, false),
            Self::Timestamp => (timestamptz(), true),
            Self::TimestampType => (DataType::Utf8, true),
            Self::Key => (DataType::Binary, true),
            Self::Headers => (DataType::Utf8, true),
            Self::Value => (DataType::Binary, true),
        };
        Field::new(self.name(), data_type, nullable)
    }
}

fn timestamptz() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some(Arc::from("+00:00")))
}

/// Columns of a dead-letter table, in order. `flow` is the name of the flow that could not read the record, `flow_id` its
/// id: a flow that is dropped and created again has another. The record is there whole, so that it can be read again.
pub fn dead_letter_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("_topic", DataType::Utf8, false),
        Field::new("_partition", DataType::Int32, false),
        Field::new("_offset", DataType::Int64, false),
        Field::new("_timestamp", timestamptz(), true),
        Field::new("_key", DataType::Binary, true),
        Field::new("_value", DataType::Binary, true),
        Field::new("_headers", DataType::Utf8, true),
        Field::new("error", DataType::Utf8, false),
        Field::new("flow", DataType::Utf8, true),
        Field::new("seq", DataType::Int64, true),
        Field::new("failed_at", timestamptz(), false),
        Field::new("_timestamp_type", DataType::Utf8, true),
        Field::new("flow_id", DataType::Utf8, true),
    ]))
}

/// A stream, resolved: all that a connector needs to read or write the topic.
#[derive(Debug, Clone, PartialEq)]
pub struct StreamSpec {
    pub name: TableName,
    pub connection: ConnectionSpec,
    pub topic: String,
    pub format: StreamFormat,
    pub columns: Vec<StreamColumn>,
    pub start: StartPosition,
    pub on_error: OnError,
    /// Read uncommitted records of open and aborted transactions too. Default false.
    pub read_uncommitted: bool,
    /// Column whose text becomes the record key on INSERT.
    pub key_column: Option<String>,
}

impl StreamSpec {
    /// Decoded columns, then the hidden ones of [`HiddenColumn::ALL`].
    pub fn full_schema(&self) -> SchemaRef {
        let declared = self.columns.iter().map(|c| c.field().clone());
        Arc::new(Schema::new(declared.chain(HiddenColumn::ALL.map(HiddenColumn::field)).collect::<Vec<_>>()))
    }
}

/// The factory of one connection kind.
#[async_trait]
pub trait StreamConnector: Send + Sync + std::fmt::Debug {
    /// `kafka` …: the word after `TO` in CREATE CONNECTION.
    fn kind(&self) -> &'static str;
    /// Names of the options that CREATE CONNECTION takes, for errors that name the nearest match.
    fn connection_options(&self) -> &'static [&'static str];
    /// Refuses wrong values without opening a socket.
    fn check_options(&self, connection: &ConnectionSpec) -> Result<()>;
    /// Reaches the broker and signs in. `Unavailable` or `PermissionDenied`, saying what was tried.
    async fn probe(&self, connection: &ConnectionSpec) -> Result<()>;
    /// Makes the topic where it is not there yet.
    async fn create_topic(&self, connection: &ConnectionSpec, topic: &str, partitions: i32) -> Result<()>;
    /// Columns found in up to `rows` records of the topic, in order of first appearance.
    async fn infer(
        &self,
        connection: &ConnectionSpec,
        topic: &str,
        format: StreamFormat,
        rows: usize,
    ) -> Result<Vec<Field>>;
    /// Opens nothing yet.
    fn source(&self, spec: StreamSpec) -> Result<Arc<dyn StreamSource>>;
}

/// One topic, seen as a table.
#[async_trait]
pub trait StreamSource: Send + Sync + std::fmt::Debug {
    fn spec(&self) -> &StreamSpec;
    /// [`StreamSpec::full_schema`].
    fn schema(&self) -> SchemaRef;
    /// Asks the broker. `NotFound` where the topic is not there.
    async fn layout(&self) -> Result<TopicLayout>;
    /// Where a reader that begins at `start` begins, for every partition there is.
    async fn start_offsets(&self, start: &StartPosition) -> Result<Offsets>;
    /// A reader that goes on for ever. It reads only the partitions named in the request.
    async fn open(&self, request: ReadRequest) -> Result<Box<dyn StreamReader>>;
    /// A table over what is there now: `[start, high-water mark at plan time)`. Predicates on `_partition`,
    /// `_offset` and `_timestamp` become seeks; `fetch` stops early. Its schema is [`Self::schema`].
    async fn bounded(&self) -> Result<Arc<dyn TableProvider>>;
    /// Dead letters of one partition once more, with the stream as it is defined now. `letters` has the columns of
    /// [`dead_letter_schema`], `projection` are ascending indexes into [`Self::schema`].
    fn decode(&self, partition: i32, letters: &RecordBatch, projection: &[usize]) -> Result<DecodedLetters> {
        let _ = (partition, letters, projection);
        Err(Error::unsupported("dead letters of this kind of stream cannot be read again"))
    }
    /// For INSERT INTO the stream.
    async fn writer(&self) -> Result<Box<dyn StreamWriter>>;
}

#[derive(Debug, Clone)]
pub struct ReadRequest {
    pub from: Offsets,
    /// Indexes into [`StreamSource::schema`], ascending. Members of the value that are not asked for are not decoded.
    pub projection: Vec<usize>,
    /// What becomes of undecodable records here; the flow's setting, which may differ from the stream's.
    pub on_error: OnError,
    /// Bound of decoded bytes that wait for [`StreamReader::next`].
    pub buffer_bytes: usize,
}

/// Records of one partition, decoded: every offset in `[from, to)` is accounted for, be it a row, a dead letter,
/// a skipped record, or a control record of a transaction.
#[derive(Debug, Clone)]
pub struct ReadBatch {
    pub partition: i32,
    pub from: i64,
    pub to: i64,
    /// Columns of the request's projection. May hold no rows.
    pub rows: RecordBatch,
    /// Columns of [`dead_letter_schema`], with `flow`, `flow_id` and `seq` null.
    pub dead_letters: Option<RecordBatch>,
    /// Records that carried data, dead letters and skipped ones included.
    pub records: u64,
    pub skipped: u64,
    /// Bytes of keys and values as they came from the broker.
    pub source_bytes: u64,
    /// Largest record timestamp, milliseconds; 0 where there is none.
    pub max_timestamp_ms: i64,
}

/// Dead letters that were looked at again.
#[derive(Debug, Clone)]
pub struct DecodedLetters {
    /// The rows of those that can be read by now, in their order.
    pub rows: RecordBatch,
    /// For each letter whether its row is there.
    pub readable: Vec<bool>,
}

/// Dropping it closes its connection.
#[async_trait]
pub trait StreamReader: Send {
    /// The next batch, in offset order per partition. Cancel-safe: a dropped call loses nothing.
    /// `DataLoss` where the next offset is below the partition's low-water mark, or above its end;
    /// `Unavailable` where the broker cannot be reached (the reader may be asked again).
    async fn next(&mut self) -> Result<ReadBatch>;
}

#[async_trait]
pub trait StreamWriter: Send {
    /// `batch` has the stream's value columns, by name; absent ones are left out of the record.
    async fn write(&mut self, batch: &RecordBatch) -> Result<()>;
    /// Waits until the broker has all of it; returns how many records were written.
    async fn finish(self: Box<Self>) -> Result<u64>;
}
