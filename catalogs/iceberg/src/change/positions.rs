//! Files of position deletes (Iceberg spec, "Position Delete Files"), one for each data file.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::record_batch::RecordBatch;
use bytes::Bytes;
use iceberg::spec::{DataContentType, DataFile, DataFileBuilder, DataFileFormat, Datum};
use parquet::arrow::{ArrowWriter, PARQUET_FIELD_ID_META_KEY};
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use tidewater_catalogs::{Error, Result};
use uuid::Uuid;

use crate::scan::{DELETED_FILE_ID, DELETED_POSITION_ID, TargetFile};
use crate::state::TableState;
use crate::writer::grown;

/// Rows of one batch that is encoded.
const BATCH: usize = 64 << 10;

/// The file that deletes the rows at `positions` (ascending) of `target`: its entry, its location and bytes.
pub(super) fn file(
    state: &TableState,
    commit: Uuid,
    number: usize,
    target: &TargetFile,
    positions: &[u64],
) -> Result<(DataFile, (String, Bytes))> {
    let directory = state.metadata.location().trim_end_matches('/');
    let location = format!("{directory}/data/{commit}-{number:05}-deletes.parquet");
    let failed = |e| Error::internal("position deletes cannot be written").with_source(e);
    let with_id = |name: &str, data_type: DataType, id: i32| {
        let id = HashMap::from([(PARQUET_FIELD_ID_META_KEY.to_string(), id.to_string())]);
        Field::new(name, data_type, false).with_metadata(id)
    };
    let schema = Arc::new(Schema::new(vec![
        with_id("file_path", DataType::Utf8, DELETED_FILE_ID),
        with_id("pos", DataType::Int64, DELETED_POSITION_ID),
    ]));
    let properties = WriterProperties::builder().set_compression(Compression::ZSTD(ZstdLevel::default())).build();
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, schema.clone(), Some(properties)).map_err(failed)?;
    for some in positions.chunks(BATCH) {
        let paths: ArrayRef = Arc::new(StringArray::from_iter_values(some.iter().map(|_| &target.location)));
        let places: ArrayRef = Arc::new(some.iter().map(|p| p.cast_signed()).collect::<Int64Array>());
        writer.write(&RecordBatch::try_new(schema.clone(), vec![paths, places])?).map_err(failed)?;
    }
    writer.close().map_err(failed)?;
    let bounds = |position: Option<&u64>| {
        let position = Datum::long(position.copied().unwrap_or(0).cast_signed());
        HashMap::from([(DELETED_FILE_ID, Datum::string(&target.location)), (DELETED_POSITION_ID, position)])
    };
    let entry = DataFileBuilder::default()
        .content(DataContentType::PositionDeletes)
        .file_path(location.clone())
        .file_format(DataFileFormat::Parquet)
        .partition(grown(&state.metadata, target.spec_id, &target.partition))
        .partition_spec_id(target.spec_id)
        .record_count(positions.len() as u64)
        .file_size_in_bytes(bytes.len() as u64)
        .lower_bounds(bounds(positions.first()))
        .upper_bounds(bounds(positions.last()))
        .referenced_data_file(Some(target.location.clone()))
        .build()
        .map_err(|e| Error::internal("position deletes cannot be described").with_source(e))?;
    Ok((entry, (location, Bytes::from(bytes))))
}
