use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::array::{Array, ArrayRef, UInt32Array};
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use iceberg::spec::{PartitionSpecRef, SchemaRef as IcebergSchemaRef, Struct, TableMetadata};
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;
use tidewater_catalogs::{CommitUuid, Error, ErrorKind, Result, StagedFile, StagedFiles};

use super::columns::{count_nans, fit};
use super::follow::{Follower, Sorted};
use super::keys::exact;
use super::metrics::{Finished, data_file};
use super::modes::Modes;
use super::split::Splitter;
use super::to_staged;
use crate::default_values::is_kept;
use crate::error;
use crate::lineage::{unknown, with_columns};
use crate::properties as p;
use crate::schema::to_arrow;
use crate::state::TableState;
use crate::storage::{FileSink, Storage, finish_files};

/// Encoded bytes held in open row groups over all files; above it the largest row group is written out.
const OPEN_ROW_GROUP_BYTES: usize = 384 << 20;
/// Complete files that may wait to be made durable together.
const UNSYNCED_FILES: usize = 64;
/// Bytes that open and complete files may hold back until they make a part of an upload.
const HELD_BYTES: usize = 64 << 20;

/// Rows of a sorted run that are encoded at a time.
const RUN_BATCH_ROWS: usize = 8192;

/// What is done with rows of a partition that has no open file where no more may be open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fan {
    /// The largest file is closed for theirs.
    Close,
    /// They are given back, to come again when they lie together.
    Overflow,
    /// Rows come partition by partition, and one file is open.
    One,
}

/// Turns batches into files. Everything here blocks.
pub(super) struct Encoder {
    storage: Storage,
    metadata: Arc<TableMetadata>,
    /// Of the files.
    arrow_schema: SchemaRef,
    /// Whether files have the columns of row lineage.
    lineage: bool,
    schema: IcebergSchemaRef,
    spec: PartitionSpecRef,
    splitter: Option<Splitter>,
    properties: Arc<WriterProperties>,
    modes: Modes,
    target_bytes: u64,
    open_limit: usize,
    fan: Fan,
    /// See [`Fan::Overflow`].
    pub(super) overflow: Vec<Vec<ArrayRef>>,
    follower: Option<Follower>,
    directory: String,
    /// `<commit>-<random>`: two writers of one commit do not meet.
    prefix: String,
    next_file: u32,
    open: HashMap<Box<[u8]>, OpenFile>,
    done: Vec<StagedFile>,
    /// Complete, and perhaps not on disk yet.
    unsynced: Vec<FileSink>,
    buffered: Arc<AtomicUsize>,
}

struct OpenFile {
    writer: ArrowWriter<FileSink>,
    location: String,
    partition: Struct,
    nans: Vec<Option<u64>>,
    sorted: Sorted,
    memory: usize,
}

impl Encoder {
    pub(super) fn new(
        storage: Storage,
        state: &TableState,
        commit: CommitUuid,
        fan: Fan,
        buffered: Arc<AtomicUsize>,
        lineage: bool,
    ) -> Result<Self> {
        let metadata = Arc::clone(&state.metadata);
        let schema = Arc::clone(metadata.current_schema());
        let spec = Arc::clone(metadata.default_partition_spec());
        writable(&metadata)?;
        let splitter = if spec.is_unpartitioned() {
            None
        } else {
            Some(Splitter::new(&spec, &schema, metadata.default_partition_type())?)
        };
        let options = metadata.properties();
        let directory = match options.get("write.data.path") {
            Some(path) => path.trim_end_matches('/').to_string(),
            None => format!("{}/data", metadata.location().trim_end_matches('/')),
        };
        let arrow_schema = Arc::new(if lineage { to_arrow(&with_columns(&schema)?)? } else { to_arrow(&schema)? });
        let (properties, leaves) = super::parquet::properties(options, &schema, &arrow_schema)?;
        let modes = Modes::new(&metadata, leaves.into_iter())?;
        let random = uuid::Uuid::new_v4().simple().to_string();
        Ok(Self {
            storage,
            arrow_schema,
            lineage,
            schema,
            spec,
            splitter,
            properties: Arc::new(properties),
            modes,
            target_bytes: p::get(options, p::TARGET_FILE_BYTES)?.max(1),
            open_limit: p::get(options, p::OPEN_FILES)?.max(1) as usize,
            fan,
            overflow: Vec::new(),
            follower: Follower::new(&metadata)?,
            directory,
            prefix: format!("{commit}-{}", &random[..8]),
            next_file: 0,
            open: HashMap::new(),
            done: Vec::new(),
            unsynced: Vec::new(),
            metadata,
            buffered,
        })
    }

    pub(super) fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        let mut columns = batch.columns().to_vec();
        if self.lineage && columns.len() == self.schema.as_struct().fields().len() {
            columns.extend(unknown(batch.num_rows()));
        }
        let columns = fit(&self.arrow_schema, &columns)?;
        match self.splitter.take() {
            None => {
                self.write_part(&[], Struct::empty(), columns)?;
            }
            Some(mut splitter) => {
                let parts = splitter.split(&columns);
                self.splitter = Some(splitter);
                let mut overflow = Vec::new();
                for part in parts? {
                    overflow.extend(self.write_part(&part.key, part.values, part.columns)?);
                }
                self.keep_overflow(&overflow)?;
            }
        }
        self.bound_memory()?;
        self.publish();
        Ok(())
    }

    /// Sorts the rows in the table's order, and ends all files behind them.
    pub(super) fn write_run(&mut self, batches: &[RecordBatch]) -> Result<()> {
        let mut fitted = Vec::with_capacity(batches.len());
        for batch in batches {
            let columns = exact(&fit(&self.arrow_schema, batch.columns())?, &self.arrow_schema)?;
            fitted.push(RecordBatch::try_new(Arc::clone(&self.arrow_schema), columns)?);
        }
        let rows = arrow::compute::concat_batches(&self.arrow_schema, &fitted)?;
        drop(fitted);
        let Some(follower) = &self.follower else { return self.write(&rows) };
        let order = follower.order(rows.columns())?;
        for some in order.chunks(RUN_BATCH_ROWS) {
            let some = UInt32Array::from(some.to_vec());
            self.write(&arrow::compute::take_record_batch(&rows, &some)?)?;
        }
        self.close_all()
    }

    pub(super) fn has_order(&self) -> bool {
        self.follower.is_some()
    }

    pub(super) fn set_fan(&mut self, fan: Fan) {
        self.fan = fan;
    }

    fn close_all(&mut self) -> Result<()> {
        std::mem::take(&mut self.open).into_values().try_for_each(|file| self.close(file))
    }

    pub(super) fn finish(mut self) -> Result<StagedFiles> {
        self.close_all()?;
        if !self.overflow.is_empty() {
            return Err(Error::internal("rows without an open file were left behind"));
        }
        self.sync()?;
        self.publish();
        Ok(StagedFiles { files: self.done })
    }

    /// Rows of many partitions as one batch again.
    fn keep_overflow(&mut self, parts: &[Vec<ArrayRef>]) -> Result<()> {
        let width = parts.first().map_or(0, Vec::len);
        let whole = (0..width).map(|column| {
            let pieces: Vec<&dyn Array> = parts.iter().map(|part| part[column].as_ref()).collect();
            arrow::compute::concat(&pieces)
        });
        let whole: Vec<ArrayRef> = whole.collect::<Result<_, _>>()?;
        if !whole.is_empty() {
            self.overflow.push(whole);
        }
        Ok(())
    }

    /// Rows of one partition; they come back where no file may be opened for them.
    fn write_part(&mut self, key: &[u8], partition: Struct, columns: Vec<ArrayRef>) -> Result<Option<Vec<ArrayRef>>> {
        if !self.open.contains_key(key) {
            if self.fan == Fan::One {
                self.close_all()?;
            } else if self.open.len() >= self.open_limit {
                if self.fan == Fan::Overflow {
                    return Ok(Some(columns));
                }
                if let Some(largest) = self.largest(|f| f.writer.bytes_written() + f.memory)
                    && let Some(file) = self.open.remove(&largest)
                {
                    self.close(file)?;
                }
            }
            let file = self.create(partition)?;
            self.open.insert(key.into(), file);
        }
        let Some(file) = self.open.get_mut(key) else {
            return Err(Error::internal("a file that was just opened is not there"));
        };
        let nans: Vec<Option<u64>> = columns.iter().map(count_nans).collect();
        if let Some(follower) = &self.follower {
            let before = std::mem::replace(&mut file.sorted, Sorted::No);
            file.sorted = follower.follow(before, &columns)?;
        }
        let batch = unchecked(columns)?;
        file.writer.write(&batch).map_err(|e| encode_error(&file.location, e))?;
        for (total, more) in file.nans.iter_mut().zip(nans) {
            *total = match (*total, more) {
                (Some(a), Some(b)) => Some(a + b),
                (a, b) => a.or(b),
            };
        }
        file.memory = file.writer.memory_size();
        let size = (file.writer.bytes_written() + file.writer.in_progress_size()) as u64;
        if size >= self.target_bytes
            && let Some(file) = self.open.remove(key)
        {
            self.close(file)?;
        }
        Ok(None)
    }

    fn create(&mut self, partition: Struct) -> Result<OpenFile> {
        let folder = partition_folder(&self.spec, &partition);
        let location = format!("{}/{folder}{}-{:05}.parquet", self.directory, self.prefix, self.next_file);
        self.next_file += 1;
        let sink = self.storage.create(&location)?;
        let writer = ArrowWriter::try_new(sink, Arc::clone(&self.arrow_schema), Some(self.properties.as_ref().clone()))
            .map_err(|e| encode_error(&location, e))?;
        let nans = vec![None; self.arrow_schema.fields().len()];
        Ok(OpenFile { writer, location, partition, nans, sorted: Sorted::Upto(None), memory: 0 })
    }

    fn close(&mut self, mut file: OpenFile) -> Result<()> {
        let footer = file.writer.finish().map_err(|e| encode_error(&file.location, e))?;
        let size_bytes = file.writer.bytes_written() as u64;
        self.unsynced.push(file.writer.inner().written()?);
        let held: usize = self.unsynced.iter().map(FileSink::held_bytes).sum();
        if self.unsynced.len() >= UNSYNCED_FILES || held >= HELD_BYTES {
            self.sync()?;
        }
        let order = self.follower.as_ref().filter(|_| matches!(file.sorted, Sorted::Upto(_))).map(|f| f.order_id);
        let ids = self.schema.as_struct().fields().iter().map(|f| f.id);
        let entry = data_file(Finished {
            schema: &self.schema,
            modes: &self.modes,
            footer: &footer,
            location: &file.location,
            size_bytes,
            spec_id: self.spec.spec_id(),
            sort_order_id: order,
            partition: file.partition,
            nans: ids.zip(file.nans).filter_map(|(id, count)| Some((id, count?))).collect(),
        })?;
        self.done.push(to_staged(&self.metadata, self.spec.spec_id(), self.schema.schema_id(), entry)?);
        Ok(())
    }

    fn sync(&mut self) -> Result<()> {
        finish_files(std::mem::take(&mut self.unsynced))
    }

    /// Many partitions at once would hold a row group each.
    fn bound_memory(&mut self) -> Result<()> {
        while self.memory() > OPEN_ROW_GROUP_BYTES {
            let Some(file) = self.largest(|f| f.memory).and_then(|key| self.open.get_mut(&key)) else { break };
            file.writer.flush().map_err(|e| encode_error(&file.location, e))?;
            if file.writer.memory_size() >= file.memory {
                break;
            }
            file.memory = file.writer.memory_size();
        }
        // What an upload holds back cannot be sent before the file ends.
        while self.held() > HELD_BYTES {
            let largest = self.largest(|f| f.writer.inner().held_bytes());
            let Some(file) = largest.and_then(|key| self.open.remove(&key)) else { break };
            self.close(file)?;
        }
        Ok(())
    }

    fn memory(&self) -> usize {
        self.open.values().map(|f| f.memory).sum()
    }

    fn held(&self) -> usize {
        self.open.values().map(|f| f.writer.inner().held_bytes()).sum()
    }

    fn largest(&self, size: impl Fn(&OpenFile) -> usize) -> Option<Box<[u8]>> {
        self.open.iter().max_by_key(|(_, file)| size(file)).map(|(key, _)| key.clone())
    }

    fn publish(&self) {
        self.buffered.store(self.memory() + self.held(), Ordering::Relaxed);
    }
}

/// What this writer can write right, and nothing else.
pub(crate) fn writable(metadata: &TableMetadata) -> Result<()> {
    use iceberg::spec::{FormatVersion, PrimitiveType, Type};
    if metadata.format_version() == FormatVersion::V1 {
        return Err(Error::unsupported("tables of format version 1 can be read only")
            .with_hint("ALTER TABLE … SET TBLPROPERTIES ('format-version' = '2') makes it one that can be written."));
    }
    if metadata.encryption_keys_iter().len() > 0 || metadata.properties().contains_key("encryption.key-id") {
        return Err(Error::unsupported("encrypted tables can be read only"));
    }
    for field in metadata.current_schema().field_id_to_fields().values() {
        if matches!(
            field.field_type.as_ref(),
            Type::Primitive(PrimitiveType::Uuid | PrimitiveType::TimestampNs | PrimitiveType::TimestamptzNs)
        ) {
            return Err(Error::unsupported(format!(
                "column \"{}\" has type {}, which can be read only",
                field.name, field.field_type
            )));
        }
        let mut defaults = field.initial_default.iter().chain(&field.write_default);
        if defaults.any(|default| !is_kept(default, &field.field_type)) {
            return Err(Error::unsupported(format!("the default of column \"{}\" can be read only", field.name)));
        }
    }
    Ok(())
}

/// `day=2026-01-31/`: for people who look, as readers go by the manifest alone. So what a path cannot hold is
/// replaced, and long values are cut.
fn partition_folder(spec: &PartitionSpecRef, partition: &Struct) -> String {
    const LONGEST: usize = 48;
    let mut folder = String::new();
    for (field, value) in spec.fields().iter().zip(partition.iter()) {
        let value = match value {
            None => "null".to_string(),
            Some(iceberg::spec::Literal::Primitive(value)) => human(field.transform, value),
            Some(_) => "value".to_string(),
        };
        for part in [field.name.as_str(), "=", value.as_str()] {
            folder.extend(part.chars().take(LONGEST).map(|c| match c {
                'a'..='z' | 'A'..='Z' | '0'..='9' | '-' | '_' | '=' => c,
                _ => '_',
            }));
        }
        folder.push('/');
    }
    folder
}

fn human(transform: iceberg::spec::Transform, value: &iceberg::spec::PrimitiveLiteral) -> String {
    use iceberg::spec::{PrimitiveLiteral as L, Transform as T};
    match (transform, value) {
        (T::Day, L::Int(days)) => chrono::DateTime::from_timestamp(i64::from(*days) * 86_400, 0)
            .map_or_else(|| days.to_string(), |d| d.format("%Y-%m-%d").to_string()),
        (T::Hour, L::Int(hours)) => chrono::DateTime::from_timestamp(i64::from(*hours) * 3_600, 0)
            .map_or_else(|| hours.to_string(), |d| d.format("%Y-%m-%d-%H").to_string()),
        (T::Month, L::Int(months)) => format!("{:04}-{:02}", 1970 + months.div_euclid(12), months.rem_euclid(12) + 1),
        (T::Year, L::Int(years)) => (1970 + years).to_string(),
        (_, L::Boolean(v)) => v.to_string(),
        (_, L::Int(v)) => v.to_string(),
        (_, L::Long(v)) => v.to_string(),
        (_, L::Int128(v)) => v.to_string(),
        (_, L::Float(v)) => v.to_string(),
        (_, L::Double(v)) => v.to_string(),
        (_, L::String(v)) => v.clone(),
        (_, L::Binary(v)) => v.iter().take(16).map(|b| format!("{b:02x}")).collect(),
        _ => "value".to_string(),
    }
}

/// The batch that the Parquet writer reads columns from; it goes by position and by its own schema.
fn unchecked(columns: Vec<ArrayRef>) -> Result<RecordBatch> {
    let fields: Vec<_> =
        columns.iter().map(|c| arrow::datatypes::Field::new("", c.data_type().clone(), true)).collect();
    Ok(RecordBatch::try_new(Arc::new(arrow::datatypes::Schema::new(fields)), columns)?)
}

fn encode_error(location: &str, e: parquet::errors::ParquetError) -> Error {
    let error = match e {
        parquet::errors::ParquetError::External(inner) => match inner.downcast::<std::io::Error>() {
            Ok(e) => error::io("write data file", std::path::Path::new(location), *e),
            Err(other) => Error::new(ErrorKind::Unavailable, "cannot write data file").with_source(other),
        },
        other => Error::internal("cannot encode a data file").with_source(other),
    };
    error.with_context("file", location)
}
