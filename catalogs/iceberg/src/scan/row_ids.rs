use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use futures::TryStreamExt;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use parquet::arrow::async_reader::ParquetRecordBatchStreamBuilder;
use tidewater_catalogs::Result;

use super::adapt::field_id;
use super::error::{corrupt, from_parquet};
use super::places::TargetFile;
use super::reader::Readers;
use crate::lineage::ROW_ID;
use crate::state::TableState;

/// What a data file says of its rows' ids.
pub(crate) enum OwnRowIds {
    /// Nothing: they follow from the first.
    None,
    /// By position, null where a row inherits its own.
    Listed(Vec<Option<i64>>),
    /// More than were asked for.
    TooMany,
}

pub(crate) async fn own_row_ids(state: &TableState, file: &TargetFile, most: usize) -> Result<OwnRowIds> {
    let readers = Readers::of(state)?;
    let path = readers.root.path(&file.location)?;
    let failed = |e| from_parquet(e, &file.location);
    let footer = readers.footer(&path, file.size_bytes).await?;
    let metadata = ArrowReaderMetadata::try_new(footer, ArrowReaderOptions::new()).map_err(failed)?;
    let Some(at) = metadata.schema().fields().iter().position(|field| field_id(field) == Some(ROW_ID)) else {
        return Ok(OwnRowIds::None);
    };
    if usize::try_from(file.rows).map_or(true, |rows| rows > most) {
        return Ok(OwnRowIds::TooMany);
    }
    let mask = ProjectionMask::roots(metadata.parquet_schema(), [at]);
    let reader = ParquetRecordBatchStreamBuilder::new_with_metadata(readers.open(&path, file.size_bytes), metadata);
    let mut batches = reader.with_projection(mask).build().map_err(failed)?;
    let mut ids = Vec::new();
    while let Some(batch) = batches.try_next().await.map_err(failed)? {
        let column = batch.column(0).as_primitive_opt::<Int64Type>();
        let column = column.ok_or_else(|| corrupt("row ids have another type").with_context("file", &file.location))?;
        ids.extend(column.iter());
    }
    Ok(OwnRowIds::Listed(ids))
}
