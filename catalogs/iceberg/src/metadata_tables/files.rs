use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use futures::{StreamExt, TryStreamExt, stream};
use iceberg::spec::{DataContentType, DataFile, Manifest, ManifestFile, Schema, SnapshotRef};
use tidewater_catalogs::Result;

use super::columns::{INT, LONG, TEXT, counts, int_lists, ints, list, long_lists, longs, schema as columns, texts};
use super::{Batches, Told, text};
use crate::error;
use crate::state::TableState;

pub(super) fn schema() -> SchemaRef {
    columns(vec![
        ("content", INT),
        ("file_path", TEXT),
        ("file_format", TEXT),
        ("spec_id", INT),
        ("partition", TEXT),
        ("record_count", LONG),
        ("file_size_in_bytes", LONG),
        ("column_sizes", TEXT),
        ("value_counts", TEXT),
        ("null_value_counts", TEXT),
        ("nan_value_counts", TEXT),
        ("lower_bounds", TEXT),
        ("upper_bounds", TEXT),
        ("key_metadata", TEXT),
        ("split_offsets", list(LONG)),
        ("equality_ids", list(INT)),
        ("sort_order_id", INT),
        ("referenced_data_file", TEXT),
        ("content_offset", LONG),
        ("content_size_in_bytes", LONG),
    ])
}

pub(super) fn rows(told: &Told) -> Batches {
    let Some(snapshot) = told.snapshot.clone() else { return Box::pin(stream::empty()) };
    let state = Arc::clone(&told.state);
    let batches = stream::once(async move {
        let shown = snapshot.schema(&state.metadata).map_err(|e| error::iceberg("read the schema of a snapshot", e))?;
        let all = manifests(&state, &snapshot).await?;
        let batches = stream::iter(all).then(move |manifest| {
            let (state, shown) = (Arc::clone(&state), Arc::clone(&shown));
            async move { batch(&state, &shown, &manifest).await }
        });
        Ok::<_, tidewater_catalogs::Error>(batches)
    });
    Box::pin(batches.try_flatten())
}

/// Manifests of a snapshot that list a file which is there.
pub(super) async fn manifests(state: &TableState, snapshot: &SnapshotRef) -> Result<Vec<ManifestFile>> {
    let list = state.cache.manifest_list(&state.storage, &state.metadata, snapshot).await?;
    Ok(list.entries().iter().filter(|m| m.has_added_files() || m.has_existing_files()).cloned().collect())
}

/// The partition of a file, as text.
pub(super) struct Partitions<'a> {
    spec: Option<&'a iceberg::spec::PartitionSpec>,
    types: Option<iceberg::spec::StructType>,
}

impl<'a> Partitions<'a> {
    pub(super) fn of(state: &'a TableState, file: &ManifestFile, manifest: &Manifest) -> Self {
        // Names as the table has them; those in the manifest are spelled for Avro.
        let spec = state.metadata.partition_spec_by_id(file.partition_spec_id).map(Arc::as_ref);
        let types = manifest.metadata().partition_spec().partition_type(manifest.metadata().schema()).ok();
        Self { spec, types }
    }

    pub(super) fn text(&self, file: &DataFile) -> String {
        text::partition(self.spec, self.types.as_ref(), file.partition())
    }
}

async fn batch(state: &TableState, shown: &Schema, manifest_file: &ManifestFile) -> Result<RecordBatch> {
    let manifest = state.cache.manifest(&state.storage, &state.metadata, manifest_file).await?;
    let partitions = Partitions::of(state, manifest_file, &manifest);
    let files: Vec<&DataFile> = manifest.entries().iter().filter(|e| e.is_alive()).map(|e| e.data_file()).collect();
    let files = || files.iter().copied();
    let columns = vec![
        ints(files().map(|f| Some(content(f)))),
        texts(files().map(|f| Some(f.file_path()))),
        texts(files().map(|f| Some(f.file_format().to_string().to_uppercase()))),
        ints(files().map(|_| Some(manifest_file.partition_spec_id))),
        texts(files().map(|f| Some(partitions.text(f)))),
        counts(files().map(DataFile::record_count)),
        counts(files().map(DataFile::file_size_in_bytes)),
        texts(files().map(|f| text::counts(shown, f.column_sizes()))),
        texts(files().map(|f| text::counts(shown, f.value_counts()))),
        texts(files().map(|f| text::counts(shown, f.null_value_counts()))),
        texts(files().map(|f| text::counts(shown, f.nan_value_counts()))),
        texts(files().map(|f| text::bounds(shown, f.lower_bounds()))),
        texts(files().map(|f| text::bounds(shown, f.upper_bounds()))),
        texts(files().map(|f| f.key_metadata().map(text::bytea))),
        long_lists(files().map(|f| f.split_offsets().map(<[i64]>::to_vec))),
        int_lists(files().map(DataFile::equality_ids)),
        ints(files().map(DataFile::sort_order_id)),
        texts(files().map(DataFile::referenced_data_file)),
        longs(files().map(DataFile::content_offset)),
        longs(files().map(DataFile::content_size_in_bytes)),
    ];
    Ok(RecordBatch::try_new(schema(), columns)?)
}

/// Iceberg spec, "Manifests": 0 data, 1 position deletes, 2 equality deletes.
fn content(file: &DataFile) -> i32 {
    match file.content_type() {
        DataContentType::Data => 0,
        DataContentType::PositionDeletes => 1,
        DataContentType::EqualityDeletes => 2,
    }
}
