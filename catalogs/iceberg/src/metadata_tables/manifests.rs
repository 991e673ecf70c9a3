use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use futures::stream;
use iceberg::spec::{Datum, ManifestContentType, ManifestFile, SnapshotRef, Type};
use serde_json::{Value, json};
use tidewater_catalogs::Result;

use super::columns::{INT, LONG, TEXT, ints, longs, schema as columns, texts};
use super::{Batches, Told, text};
use crate::state::TableState;

pub(super) fn schema() -> SchemaRef {
    columns(vec![
        ("content", INT),
        ("path", TEXT),
        ("length", LONG),
        ("partition_spec_id", INT),
        ("added_snapshot_id", LONG),
        ("added_data_files_count", INT),
        ("existing_data_files_count", INT),
        ("deleted_data_files_count", INT),
        ("added_delete_files_count", INT),
        ("existing_delete_files_count", INT),
        ("deleted_delete_files_count", INT),
        ("added_rows_count", LONG),
        ("existing_rows_count", LONG),
        ("deleted_rows_count", LONG),
        ("partition_summaries", TEXT),
    ])
}

pub(super) fn rows(told: &Told) -> Batches {
    let Some(snapshot) = told.snapshot.clone() else { return Box::pin(stream::empty()) };
    let state = Arc::clone(&told.state);
    Box::pin(stream::once(async move { batch(&state, &snapshot).await }))
}

async fn batch(state: &TableState, snapshot: &SnapshotRef) -> Result<RecordBatch> {
    let list = state.cache.manifest_list(&state.storage, &state.metadata, snapshot).await?;
    let all = || list.entries().iter();
    // Counts of the other kind of files are 0, and not unknown.
    let files = |of: ManifestContentType, count: fn(&ManifestFile) -> Option<u32>| {
        ints(all().map(move |m| if m.content == of { count(m).and_then(|n| n.try_into().ok()) } else { Some(0) }))
    };
    let rows = |count: fn(&ManifestFile) -> Option<u64>| longs(all().map(move |m| count(m)?.try_into().ok()));
    use ManifestContentType::{Data, Deletes};
    let columns = vec![
        ints(all().map(|m| Some(if m.content == Data { 0 } else { 1 }))),
        texts(all().map(|m| Some(m.manifest_path.as_str()))),
        longs(all().map(|m| Some(m.manifest_length))),
        ints(all().map(|m| Some(m.partition_spec_id))),
        longs(all().map(|m| Some(m.added_snapshot_id))),
        files(Data, |m| m.added_files_count),
        files(Data, |m| m.existing_files_count),
        files(Data, |m| m.deleted_files_count),
        files(Deletes, |m| m.added_files_count),
        files(Deletes, |m| m.existing_files_count),
        files(Deletes, |m| m.deleted_files_count),
        rows(|m| m.added_rows_count),
        rows(|m| m.existing_rows_count),
        rows(|m| m.deleted_rows_count),
        texts(all().map(|m| Some(summaries(state, m)))),
    ];
    Ok(RecordBatch::try_new(schema(), columns)?)
}

/// What is known of each partition field, in order.
fn summaries(state: &TableState, manifest: &ManifestFile) -> String {
    let spec = state.metadata.partition_spec_by_id(manifest.partition_spec_id);
    // None where a source column is gone from the schema; bounds are bytes without it.
    let types = spec.and_then(|spec| spec.partition_type(state.metadata.current_schema()).ok());
    let fields = manifest.partitions.iter().flatten().enumerate().map(|(position, field)| {
        let of = types.as_ref().and_then(|t| t.fields().get(position)).map(|f| f.field_type.as_ref());
        let shown = |bytes: Option<&[u8]>| match (bytes, of) {
            (None, _) => Value::Null,
            (Some(bytes), Some(Type::Primitive(of))) => match Datum::try_from_bytes(bytes, of.clone()) {
                Ok(datum) => text::value(Some(of), datum.literal()).into(),
                Err(_) => text::bytea(bytes).into(),
            },
            (Some(bytes), _) => text::bytea(bytes).into(),
        };
        json!({
            "field": spec.and_then(|s| s.fields().get(position)).map(|f| f.name.as_str()),
            "contains_null": field.contains_null,
            "contains_nan": field.contains_nan,
            "lower_bound": shown(field.lower_bound.as_ref().map(|b| b.as_slice())),
            "upper_bound": shown(field.upper_bound.as_ref().map(|b| b.as_slice())),
        })
    });
    Value::Array(fields.collect()).to_string()
}
