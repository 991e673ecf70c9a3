//! Parquet files through the table's own object store, with footers from the cache.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, AsArray};
use arrow::compute::cast_with_options;
use arrow::datatypes::{DataType, Int64Type};
use arrow::row::Rows;
use bytes::Bytes;
use datafusion::common::Result as DfResult;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{ParquetFileMetrics, ParquetFileReaderFactory};
use datafusion::execution::memory_pool::MemoryReservation;
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use futures::future::BoxFuture;
use futures::{FutureExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use parquet::arrow::async_reader::{AsyncFileReader, ParquetObjectReader, ParquetRecordBatchStreamBuilder};
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaData, ParquetMetaDataReader};
use tidewater_catalogs::{Error, ErrorKind, Result};

use super::adapt::{STRICT, field_id, with_field_ids};
use super::cache::MetadataCache;
use super::columns::ScanSchema;
use super::deletes::{DeleteFile, PositionDeletes};
use super::error::{corrupt, from_parquet};
use super::key_table::converter;
use super::keys::{KeyColumn, KeySource, whole_source};
use super::location::Root;
use super::vector;
use crate::state::TableState;

/// Field ids that Iceberg reserves for the columns of position deletes.
pub(crate) const DELETED_FILE_ID: i32 = 2_147_483_546;
pub(crate) const DELETED_POSITION_ID: i32 = 2_147_483_545;

/// Bytes that the first read of a footer asks for; most footers fit.
const FOOTER_HINT: usize = 64 << 10;

/// Positions that one delete file may list.
const MAX_POSITIONS: u64 = 100_000_000;

/// Opens the files of one table.
#[derive(Debug, Clone)]
pub(super) struct Readers {
    pub(super) store: Arc<dyn ObjectStore>,
    pub(super) cache: Arc<MetadataCache>,
    pub(super) root: Root,
}

impl Readers {
    pub(super) fn of(state: &TableState) -> Result<Self> {
        let store = state.storage.object_store(&state.metadata_location)?;
        Ok(Self { store, cache: state.cache.clone(), root: Root::of(&state.metadata_location) })
    }

    /// Lists of positions in the data file, each ascending.
    pub(super) async fn all_deleted(&self, deletes: &[Arc<DeleteFile>], data_file: &str) -> Result<Vec<Arc<[u64]>>> {
        let mut lists = Vec::with_capacity(deletes.len());
        for delete in deletes {
            lists.extend(self.deleted_positions(delete, data_file).await?);
        }
        Ok(lists)
    }

    pub(super) fn open(&self, path: &Path, size_bytes: u64) -> ParquetObjectReader {
        ParquetObjectReader::new(self.store.clone(), path.clone()).with_file_size(size_bytes)
    }

    /// The footer with the page index, where the file has one.
    pub(super) async fn footer(&self, path: &Path, size_bytes: u64) -> Result<Arc<ParquetMetaData>> {
        let key = self.root.key(path);
        let load = async {
            let mut reader = self.open(path, size_bytes);
            let footer = ParquetMetaDataReader::new()
                .with_page_index_policy(PageIndexPolicy::Optional)
                .with_prefetch_hint(Some(FOOTER_HINT))
                .load_and_finish(&mut reader, size_bytes)
                .await
                .map_err(|e| from_parquet(e, &key))?;
            Ok(Arc::new(footer))
        };
        self.cache.footer(&key, load.boxed()).await
    }

    /// Positions that `delete` lists for the data file, ascending.
    pub(super) async fn deleted_positions(&self, delete: &DeleteFile, data_file: &str) -> Result<Option<Arc<[u64]>>> {
        let key = match &delete.vector {
            None => delete.location.clone(),
            Some(blob) => format!("{}#{}", delete.location, blob.offset),
        };
        let load = async {
            if delete.record_count > MAX_POSITIONS {
                return Err(Error::new(ErrorKind::ResourcesExhausted, "delete file lists too many positions")
                    .with_context("file", &delete.location)
                    .with_context("positions", delete.record_count));
            }
            Ok(Arc::new(match &delete.vector {
                None => self.read_position_deletes(delete).await?,
                Some(_) => self.read_vector(delete, data_file).await?,
            }))
        };
        Ok(self.cache.position_deletes(&key, load.boxed()).await?.of(data_file).cloned())
    }

    /// Keys that an equality delete lists, in the form that [`converter`] gives them. `memory` is asked while they are
    /// read; it does not keep them.
    pub(super) async fn equality_keys(
        &self,
        delete: &DeleteFile,
        columns: &[&KeyColumn],
        schema: &ScanSchema,
        memory: &MemoryReservation,
    ) -> Result<Arc<Rows>> {
        let compared: Vec<String> = columns.iter().map(|key| format!("{}:{}", key.id, key.data_type)).collect();
        let key = format!("{}#{}", delete.location, compared.join(","));
        let load = async { Ok(Arc::new(self.read_equality_deletes(delete, columns, schema, memory).await?)) };
        self.cache.equality_keys(&key, load.boxed()).await
    }

    async fn read_equality_deletes(
        &self,
        delete: &DeleteFile,
        columns: &[&KeyColumn],
        schema: &ScanSchema,
        memory: &MemoryReservation,
    ) -> Result<Rows> {
        let path = self.root.path(&delete.location)?;
        let failed = |e| from_parquet(e, &delete.location);
        let footer = self.footer(&path, delete.size_bytes).await?;
        let metadata = ArrowReaderMetadata::try_new(footer, ArrowReaderOptions::new()).map_err(failed)?;
        let file = with_field_ids(schema, metadata.schema())?;
        let sources: Vec<_> =
            columns.iter().map(|key| whole_source(key, &file, &delete.location)).collect::<Result<_>>()?;
        let mut roots: Vec<usize> = sources.iter().map(|source| source.root).collect();
        roots.sort_unstable();
        roots.dedup();
        let mask = ProjectionMask::roots(metadata.parquet_schema(), roots.iter().copied());
        let mut batches =
            ParquetRecordBatchStreamBuilder::new_with_metadata(self.open(&path, delete.size_bytes), metadata)
                .with_projection(mask)
                .build()
                .map_err(failed)?;
        let converter = converter(columns)?;
        let mut keys = converter.empty_rows(0, 0);
        let reading = memory.new_empty();
        while let Some(batch) = batches.try_next().await.map_err(failed)? {
            let column = |source: &KeySource| {
                // The mask keeps the order of the file.
                let at = roots.partition_point(|root| *root < source.root);
                source.apply(batch.column(at))
            };
            let values = sources.iter().map(column).collect::<arrow::error::Result<Vec<_>>>()?;
            converter.append(&mut keys, &values)?;
            reading.try_resize(keys.size() + batch.get_array_memory_size())?;
        }
        Ok(keys)
    }

    async fn read_vector(&self, delete: &DeleteFile, data_file: &str) -> Result<PositionDeletes> {
        let Some(blob) = &delete.vector else { return Err(Error::internal("delete file is no deletion vector")) };
        let path = self.root.path(&delete.location)?;
        let end = blob.offset.checked_add(blob.length).filter(|end| *end <= delete.size_bytes);
        let end =
            end.ok_or_else(|| corrupt("deletion vector ends behind its file").with_context("file", &delete.location))?;
        let bytes = self.store.get_range(&path, blob.offset..end).await.map_err(|e| {
            Error::unavailable("deletion vector cannot be read").with_context("file", &delete.location).with_source(e)
        })?;
        let positions = vector::parse(&bytes, MAX_POSITIONS).map_err(|e| e.with_context("file", &delete.location))?;
        Ok(PositionDeletes::new(HashMap::from([(Box::from(data_file), positions)])))
    }

    async fn read_position_deletes(&self, delete: &DeleteFile) -> Result<PositionDeletes> {
        let path = self.root.path(&delete.location)?;
        let failed = |e| from_parquet(e, &delete.location);
        let footer = self.footer(&path, delete.size_bytes).await?;
        let metadata = ArrowReaderMetadata::try_new(footer, ArrowReaderOptions::new()).map_err(failed)?;
        let column = |id: i32, name: &str| {
            let fields = metadata.schema().fields();
            fields
                .iter()
                .position(|f| field_id(f) == Some(id))
                .or_else(|| fields.iter().position(|f| field_id(f).is_none() && f.name() == name))
                .ok_or_else(|| corrupt("delete file lacks a column").with_context("file", &delete.location))
        };
        let (file, position) = (column(DELETED_FILE_ID, "file_path")?, column(DELETED_POSITION_ID, "pos")?);
        let mask = ProjectionMask::roots(metadata.parquet_schema(), [file, position]);
        let mut batches =
            ParquetRecordBatchStreamBuilder::new_with_metadata(self.open(&path, delete.size_bytes), metadata)
                .with_projection(mask)
                .build()
                .map_err(failed)?;
        // The mask keeps the order of the file.
        let (file, position) = if file < position { (0, 1) } else { (1, 0) };
        let mut collected: HashMap<Box<str>, Vec<u64>> = HashMap::new();
        while let Some(batch) = batches.try_next().await.map_err(failed)? {
            let files = cast_with_options(batch.column(file), &DataType::Utf8, &STRICT)?;
            let positions = cast_with_options(batch.column(position), &DataType::Int64, &STRICT)?;
            let (files, positions) = (files.as_string::<i32>(), positions.as_primitive::<Int64Type>());
            if files.null_count() > 0 || positions.null_count() > 0 || positions.values().iter().any(|p| *p < 0) {
                return Err(
                    corrupt("delete file has an entry without file or position").with_context("file", &delete.location)
                );
            }
            collect_runs(files, positions.values(), &mut collected);
        }
        Ok(PositionDeletes::new(collected))
    }
}

/// Delete files are sorted by data file: one look-up per run of equal names.
fn collect_runs(files: &arrow::array::StringArray, positions: &[i64], collected: &mut HashMap<Box<str>, Vec<u64>>) {
    let mut start = 0;
    while start < positions.len() {
        let name = files.value(start);
        let mut end = start + 1;
        while end < positions.len() && files.value(end) == name {
            end += 1;
        }
        let run = positions[start..end].iter().map(|p| p.unsigned_abs());
        match collected.get_mut(name) {
            Some(list) => list.extend(run),
            None => {
                collected.insert(Box::from(name), run.collect());
            }
        }
        start = end;
    }
}

impl ParquetFileReaderFactory for Readers {
    fn create_reader(
        &self,
        partition_index: usize,
        file: PartitionedFile,
        _metadata_size_hint: Option<usize>,
        metrics: &ExecutionPlanMetricsSet,
    ) -> DfResult<Box<dyn AsyncFileReader + Send>> {
        let path = file.object_meta.location;
        let metrics = ParquetFileMetrics::new(partition_index, path.as_ref(), metrics);
        let inner = self.open(&path, file.object_meta.size);
        Ok(Box::new(CountingReader { readers: self.clone(), path, size_bytes: file.object_meta.size, inner, metrics }))
    }
}

/// Counts what is read, and takes footers from the cache.
struct CountingReader {
    readers: Readers,
    path: Path,
    size_bytes: u64,
    inner: ParquetObjectReader,
    metrics: ParquetFileMetrics,
}

impl CountingReader {
    fn count(&self, bytes: u64) {
        self.metrics.bytes_scanned.add(usize::try_from(bytes).unwrap_or(usize::MAX));
    }
}

impl AsyncFileReader for CountingReader {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, parquet::errors::Result<Bytes>> {
        self.count(range.end.saturating_sub(range.start));
        self.inner.get_bytes(range)
    }

    fn get_byte_ranges(&mut self, ranges: Vec<Range<u64>>) -> BoxFuture<'_, parquet::errors::Result<Vec<Bytes>>> {
        self.count(ranges.iter().map(|r| r.end.saturating_sub(r.start)).sum());
        self.inner.get_byte_ranges(ranges)
    }

    fn get_metadata<'a>(
        &'a mut self,
        _options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, parquet::errors::Result<Arc<ParquetMetaData>>> {
        async move {
            self.readers
                .footer(&self.path, self.size_bytes)
                .await
                .map_err(|e| parquet::errors::ParquetError::External(Box::new(e)))
        }
        .boxed()
    }
}

impl Drop for CountingReader {
    fn drop(&mut self) {
        self.metrics.scan_efficiency_ratio.add_part(self.metrics.bytes_scanned.value());
        self.metrics.scan_efficiency_ratio.set_total(usize::try_from(self.size_bytes).unwrap_or(usize::MAX));
    }
}
