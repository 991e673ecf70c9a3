//! Tables for tests, written file by file, so that a test decides what each manifest says.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema as ArrowSchema};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::physical_plan::{ExecutionPlan, collect, displayable};
use datafusion::prelude::{SessionConfig, SessionContext};
use iceberg::arrow::schema_to_arrow_schema;
use iceberg::io::FileIO;
use iceberg::spec::{
    DataContentType, DataFile, DataFileBuilder, DataFileFormat, FormatVersion, Literal, MAIN_BRANCH, ManifestFile,
    ManifestListWriter, ManifestWriterBuilder, Operation, PartitionSpecRef, Schema, Snapshot, SortOrder, Struct,
    Summary, TableMetadata, TableMetadataBuilder, Transform, UnboundPartitionSpec,
};
use iceberg::writer::file_writer::{FileWriter, FileWriterBuilder, ParquetWriterBuilder};
use parquet::arrow::{ArrowWriter, PARQUET_FIELD_ID_META_KEY};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use tempfile::TempDir;
use tidewater_catalogs::TableName;

use super::{MetadataCache, provider};
use crate::state::TableState;
use crate::storage::Storage;

pub(super) struct Fixture {
    pub(super) directory: TempDir,
    pub(super) io: FileIO,
    pub(super) metadata: TableMetadata,
    manifests: Vec<ManifestFile>,
    pub(super) cache: Arc<MetadataCache>,
    version: FormatVersion,
    names: u64,
    pub(super) row_group_rows: usize,
}

pub(super) fn identity(source: i32, name: &str) -> (i32, String, Transform) {
    (source, name.to_owned(), Transform::Identity)
}

pub(super) fn spec(fields: &[(i32, String, Transform)]) -> UnboundPartitionSpec {
    let mut builder = UnboundPartitionSpec::builder();
    for (source, name, transform) in fields {
        builder = builder.add_partition_field(*source, name, *transform).unwrap();
    }
    builder.build()
}

pub(super) fn partition(values: impl IntoIterator<Item = Option<Literal>>) -> Struct {
    values.into_iter().collect()
}

impl Fixture {
    pub(super) fn new(schema: Schema, spec: UnboundPartitionSpec) -> Self {
        Self::with_version(schema, spec, FormatVersion::V2)
    }

    pub(super) fn with_version(schema: Schema, spec: UnboundPartitionSpec, version: FormatVersion) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let location = format!("file://{}/t", directory.path().canonicalize().unwrap().display());
        let metadata =
            TableMetadataBuilder::new(schema, spec, SortOrder::unsorted_order(), location, version, HashMap::new())
                .unwrap()
                .build()
                .unwrap()
                .metadata;
        Self {
            directory,
            io: FileIO::new_with_fs(),
            metadata,
            manifests: Vec::new(),
            cache: Arc::new(MetadataCache::new(64 << 20)),
            version,
            names: 0,
            row_group_rows: 1 << 20,
        }
    }

    fn name(&mut self, kind: &str) -> String {
        self.names += 1;
        let (directory, extension) = match kind {
            "data" | "delete" => ("data", "parquet"),
            "vector" => ("data", "puffin"),
            _ => ("metadata", "avro"),
        };
        format!("{}/{directory}/{kind}-{:05}.{extension}", self.metadata.location(), self.names)
    }

    /// The table's current columns with field ids.
    pub(super) fn arrow(&self) -> Arc<ArrowSchema> {
        Arc::new(schema_to_arrow_schema(self.metadata.current_schema()).unwrap())
    }

    pub(super) fn batch(&self, columns: Vec<ArrayRef>) -> RecordBatch {
        RecordBatch::try_new(self.arrow(), columns).unwrap()
    }

    fn spec(&self) -> PartitionSpecRef {
        self.metadata.default_partition_spec().clone()
    }

    fn properties(&self) -> WriterProperties {
        WriterProperties::builder()
            .set_max_row_group_row_count(Some(self.row_group_rows))
            .set_data_page_row_count_limit(64)
            .set_write_batch_size(64)
            .set_statistics_enabled(EnabledStatistics::Page)
            .build()
    }

    /// A data file with the metrics that the Iceberg library writes.
    pub(super) async fn data_file(&mut self, batch: RecordBatch, partition: Struct) -> DataFile {
        let location = self.name("data");
        let builder = ParquetWriterBuilder::new(self.properties(), self.metadata.current_schema().clone());
        let mut writer = builder.build(self.io.new_output(&location).unwrap()).await.unwrap();
        writer.write(&batch).await.unwrap();
        let mut file = writer.close().await.unwrap().remove(0);
        file.content(DataContentType::Data)
            .partition(partition)
            .partition_spec_id(self.spec().spec_id())
            .build()
            .unwrap()
    }

    /// A data file as another program would leave it: its own Arrow schema, no metrics.
    pub(super) async fn foreign_file(&mut self, batch: RecordBatch, partition: Struct) -> DataFile {
        let location = self.name("data");
        let size = self.write_parquet(&location, &batch).await;
        self.data_builder(&location, size, batch.num_rows() as u64, partition).build().unwrap()
    }

    fn data_builder(&self, location: &str, size: u64, rows: u64, partition: Struct) -> DataFileBuilder {
        let mut builder = DataFileBuilder::default();
        builder
            .content(DataContentType::Data)
            .file_path(location.to_owned())
            .file_format(DataFileFormat::Parquet)
            .partition(partition)
            .partition_spec_id(self.spec().spec_id())
            .record_count(rows)
            .file_size_in_bytes(size);
        builder
    }

    async fn write_parquet(&self, location: &str, batch: &RecordBatch) -> u64 {
        let mut bytes = Vec::new();
        let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), Some(self.properties())).unwrap();
        writer.write(batch).unwrap();
        writer.close().unwrap();
        self.write(location, bytes).await
    }

    async fn write(&self, location: &str, bytes: Vec<u8>) -> u64 {
        let size = bytes.len() as u64;
        self.io.new_output(location).unwrap().write(bytes.into()).await.unwrap();
        size
    }

    pub(super) async fn position_deletes(
        &mut self,
        deleted: &[(&str, i64)],
        partition: Struct,
        referenced: Option<&str>,
    ) -> DataFile {
        let field = |name: &str, data_type: DataType, id: i32| {
            let metadata = HashMap::from([(PARQUET_FIELD_ID_META_KEY.to_owned(), id.to_string())]);
            Field::new(name, data_type, false).with_metadata(metadata)
        };
        let schema = ArrowSchema::new(vec![
            field("file_path", DataType::Utf8, 2_147_483_546),
            field("pos", DataType::Int64, 2_147_483_545),
        ]);
        let files: StringArray = deleted.iter().map(|(f, _)| Some(*f)).collect();
        let positions: Int64Array = deleted.iter().map(|(_, p)| Some(*p)).collect();
        let batch = RecordBatch::try_new(Arc::new(schema), vec![Arc::new(files), Arc::new(positions)]).unwrap();
        let location = self.name("delete");
        let size = self.write_parquet(&location, &batch).await;
        self.data_builder(&location, size, deleted.len() as u64, partition)
            .content(DataContentType::PositionDeletes)
            .referenced_data_file(referenced.map(str::to_owned))
            .build()
            .unwrap()
    }

    /// The named top-level columns of the current schema.
    pub(super) fn select(&self, names: &[&str]) -> Schema {
        let schema = self.metadata.current_schema();
        let fields = names.iter().map(|name| schema.field_by_name(name).unwrap().clone());
        Schema::builder().with_fields(fields.collect::<Vec<_>>()).build().unwrap()
    }

    /// Rows equal to `columns` in the fields `ids`; with the metrics that the Iceberg library writes. The file has the
    /// columns of `schema`.
    pub(super) async fn equality_deletes(
        &mut self,
        schema: Schema,
        ids: &[i32],
        columns: Vec<ArrayRef>,
        partition: Struct,
    ) -> DataFile {
        let location = self.name("delete");
        let batch = RecordBatch::try_new(Arc::new(schema_to_arrow_schema(&schema).unwrap()), columns).unwrap();
        let builder = ParquetWriterBuilder::new(self.properties(), Arc::new(schema));
        let mut writer = builder.build(self.io.new_output(&location).unwrap()).await.unwrap();
        writer.write(&batch).await.unwrap();
        let mut file = writer.close().await.unwrap().remove(0);
        file.content(DataContentType::EqualityDeletes)
            .equality_ids(Some(ids.to_vec()))
            .partition(partition)
            .partition_spec_id(self.spec().spec_id())
            .build()
            .unwrap()
    }

    /// Deletes rows by values of one column of the current schema, everywhere or in the one partition that is named.
    pub(super) async fn delete_where(&mut self, column: &str, values: ArrayRef, partition: Struct) -> DataFile {
        let schema = self.select(&[column]);
        let id = schema.as_struct().fields()[0].id;
        self.equality_deletes(schema, &[id], vec![values], partition).await
    }

    /// `blob` lies in the Puffin file behind some other bytes.
    pub(super) async fn deletion_vector(&mut self, blob: &[u8], rows: u64, referenced: &str) -> DataFile {
        let location = self.name("vector");
        let mut bytes = b"PFA1".to_vec();
        bytes.extend(blob);
        bytes.extend(b"the footer");
        let size = self.write(&location, bytes).await;
        self.data_builder(&location, size, rows, Struct::empty())
            .content(DataContentType::PositionDeletes)
            .file_format(DataFileFormat::Puffin)
            .referenced_data_file(Some(referenced.to_owned()))
            .content_offset(Some(4))
            .content_size_in_bytes(Some(blob.len() as i64))
            .build()
            .unwrap()
    }

    /// One snapshot that adds the files, data and deletes in a manifest each.
    pub(super) async fn commit(&mut self, files: Vec<DataFile>) -> i64 {
        let snapshot_id = 1000 + self.metadata.snapshots().len() as i64;
        let sequence_number = self.metadata.next_sequence_number();
        let (data, deletes): (Vec<_>, Vec<_>) =
            files.into_iter().partition(|f| f.content_type() == DataContentType::Data);
        for (files, of_data) in [(data, true), (deletes, false)] {
            if files.is_empty() {
                continue;
            }
            let location = self.name("manifest");
            let schema = self.metadata.current_schema().clone();
            let spec = self.spec().as_ref().clone();
            let output = self.io.new_output(&location).unwrap();
            let builder = ManifestWriterBuilder::new(output, Some(snapshot_id), schema, spec);
            let mut writer = match (self.version, of_data) {
                (FormatVersion::V1, _) => builder.build_v1(),
                (FormatVersion::V2, true) => builder.build_v2_data(),
                (FormatVersion::V2, false) => builder.build_v2_deletes(),
                (FormatVersion::V3, true) => builder.build_v3_data(),
                (FormatVersion::V3, false) => builder.build_v3_deletes(),
            };
            for file in files {
                writer.add_file(file, -1).unwrap();
            }
            self.manifests.push(writer.write_manifest_file().await.unwrap());
        }
        let list = self.name("list");
        let output = self.io.new_output(&list).unwrap().writer().await.unwrap();
        let parent = self.metadata.current_snapshot_id();
        let first_row_id = self.metadata.next_row_id();
        let mut writer = match self.version {
            FormatVersion::V1 => ManifestListWriter::v1(output, snapshot_id, parent),
            FormatVersion::V2 => ManifestListWriter::v2(output, snapshot_id, parent, sequence_number),
            FormatVersion::V3 => {
                ManifestListWriter::v3(output, snapshot_id, parent, sequence_number, Some(first_row_id))
            }
        };
        for manifest in &mut self.manifests {
            if manifest.sequence_number < 0 {
                manifest.added_snapshot_id = snapshot_id;
            }
        }
        writer.add_manifests(self.manifests.iter().cloned()).unwrap();
        let next_row_id = writer.next_row_id();
        writer.close().await.unwrap();
        for manifest in &mut self.manifests {
            if manifest.sequence_number < 0 {
                manifest.sequence_number = sequence_number;
                manifest.min_sequence_number = sequence_number;
            }
        }
        let builder = Snapshot::builder()
            .with_snapshot_id(snapshot_id)
            .with_parent_snapshot_id(parent)
            .with_sequence_number(if self.version == FormatVersion::V1 { 0 } else { sequence_number })
            .with_timestamp_ms(self.metadata.last_updated_ms() + 1)
            .with_manifest_list(list)
            .with_summary(Summary { operation: Operation::Append, additional_properties: HashMap::new() })
            .with_schema_id(self.metadata.current_schema_id());
        let snapshot = match next_row_id {
            Some(next) => builder.with_row_range(first_row_id, next - first_row_id).build(),
            None => builder.build(),
        };
        self.change(|b| b.set_branch_snapshot(snapshot, MAIN_BRANCH).unwrap());
        snapshot_id
    }

    pub(super) fn change(&mut self, change: impl FnOnce(TableMetadataBuilder) -> TableMetadataBuilder) {
        let location = format!("{}/metadata/{}.json", self.metadata.location(), self.names);
        self.metadata = change(self.metadata.clone().into_builder(Some(location))).build().unwrap().metadata;
    }

    pub(super) fn evolve(&mut self, schema: Schema) {
        self.change(|b| b.add_current_schema(schema).unwrap());
    }

    fn storage(&self) -> Storage {
        Storage::open(self.directory.path().to_str().unwrap(), &Default::default()).unwrap()
    }

    pub(super) fn state(&self) -> Arc<TableState> {
        Arc::new(TableState {
            name: TableName::public("t"),
            metadata: Arc::new(self.metadata.clone()),
            metadata_location: format!("{}/metadata/1.json", self.metadata.location()),
            storage: self.storage(),
            cache: self.cache.clone(),
            arrow_schema: Arc::new(crate::schema::to_arrow(self.metadata.current_schema()).unwrap()),
        })
    }

    pub(super) fn context(&self, partitions: usize) -> SessionContext {
        self.context_at(partitions, None)
    }

    pub(super) fn context_at(&self, partitions: usize, snapshot: Option<i64>) -> SessionContext {
        let mut config = SessionConfig::new().with_target_partitions(partitions).with_batch_size(100);
        config.options_mut().optimizer.repartition_file_min_size = 1024;
        let context = SessionContext::new_with_config(config);
        context.register_table("t", provider(self.state(), snapshot).unwrap()).unwrap();
        context
    }

    pub(super) async fn query(&self, sql: &str) -> Vec<String> {
        rows(&self.context(2), sql).await.unwrap()
    }

    pub(super) async fn plan(&self, sql: &str) -> (Arc<dyn ExecutionPlan>, String) {
        let plan = self.context(2).sql(sql).await.unwrap().create_physical_plan().await.unwrap();
        let text = displayable(plan.as_ref()).indent(false).to_string();
        (plan, text)
    }

    /// `kept/total` of the scan in the plan.
    pub(super) async fn files(&self, sql: &str) -> String {
        let (_, text) = self.plan(sql).await;
        let start = text.find(", files=").unwrap_or_else(|| panic!("no scan in {text}")) + ", files=".len();
        text[start..].split([',', '\n']).next().unwrap().to_owned()
    }
}

/// One line per row, values parted by a bar.
pub(super) async fn rows(context: &SessionContext, sql: &str) -> datafusion::common::Result<Vec<String>> {
    let plan = context.sql(sql).await?.create_physical_plan().await?;
    let batches = collect(plan, context.task_ctx()).await?;
    let options = FormatOptions::default().with_null("null");
    let mut out = Vec::new();
    for batch in &batches {
        let columns: Vec<_> =
            batch.columns().iter().map(|c| ArrayFormatter::try_new(c.as_ref(), &options).unwrap()).collect();
        for row in 0..batch.num_rows() {
            out.push(columns.iter().map(|c| c.value(row).to_string()).collect::<Vec<_>>().join("|"));
        }
    }
    Ok(out)
}
