//! Rows that other engines deleted by position.

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::datasource::physical_plan::parquet::{ParquetAccessPlan, RowGroupAccess};
use iceberg::spec::{
    DataContentType, DataFile, DataFileFormat, Literal, ManifestEntryRef, PrimitiveLiteral, Struct, TableMetadata,
};
use parquet::arrow::arrow_reader::{RowSelection, RowSelector};
use parquet::file::metadata::ParquetMetaData;
use tidewater_catalogs::{Error, Result};

use super::equality::EqualityIndex;
use super::error::corrupt;
use crate::commit::Listed;

/// A file of position or equality deletes, or one deletion vector in a Puffin file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DeleteFile {
    pub(crate) location: String,
    pub(super) size_bytes: u64,
    pub(super) record_count: u64,
    /// Data sequence number.
    pub(super) sequence_number: i64,
    pub(super) vector: Option<VectorBlob>,
    /// Whether it names the one data file that it applies to.
    pub(crate) is_scoped: bool,
}

impl DeleteFile {
    pub(crate) fn listed(&self) -> Listed {
        match &self.vector {
            Some(vector) => Listed::vector(&self.location, vector.offset),
            None => Listed::file(&self.location),
        }
    }
}

/// Where a deletion vector lies in its Puffin file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct VectorBlob {
    pub(super) offset: u64,
    pub(super) length: u64,
}

/// Delete files of a snapshot, by what they apply to (Iceberg spec, "Scan Planning").
#[derive(Debug, Default)]
pub(super) struct DeleteIndex {
    vectors: HashMap<String, Arc<DeleteFile>>,
    by_path: HashMap<String, Vec<Arc<DeleteFile>>>,
    by_partition: HashMap<(i32, Struct), Vec<Arc<DeleteFile>>>,
    pub(super) equality: EqualityIndex,
}

/// Partition values to look deletes up by. A value that was written before its column grew is the same value.
pub(crate) fn widened(partition: &Struct) -> Struct {
    let widen = |value: Option<&Literal>| match value {
        Some(Literal::Primitive(PrimitiveLiteral::Int(v))) => Some(Literal::long(i64::from(*v))),
        Some(Literal::Primitive(PrimitiveLiteral::Float(v))) => Some(Literal::double(f64::from(v.0))),
        other => other.cloned(),
    };
    partition.iter().map(widen).collect()
}

impl DeleteIndex {
    /// `spec_id` is that of the manifest which lists the file.
    pub(super) fn add(&mut self, metadata: &TableMetadata, spec_id: i32, entry: &ManifestEntryRef) -> Result<()> {
        let (file, sequence_number) = (entry.data_file(), entry.sequence_number());
        let location = file.file_path();
        let compares = match file.content_type() {
            DataContentType::PositionDeletes => false,
            DataContentType::EqualityDeletes => true,
            DataContentType::Data => {
                return Err(corrupt("data file listed among deletes").with_context("file", location));
            }
        };
        if file.key_metadata().is_some_and(|k| !k.is_empty()) {
            return Err(Error::unsupported("encrypted tables cannot be read").with_context("file", location));
        }
        let sequence_number = sequence_number
            .ok_or_else(|| corrupt("delete file has no sequence number").with_context("file", location))?;
        let referenced = file.referenced_data_file();
        let vector = match file.file_format() {
            DataFileFormat::Parquet => None,
            DataFileFormat::Puffin if !compares => Some(vector_blob(file)?),
            other => {
                return Err(Error::unsupported("format of delete file cannot be read")
                    .with_context("file", location)
                    .with_context("format", other));
            }
        };
        let is_vector = vector.is_some();
        let delete = DeleteFile {
            location: location.to_owned(),
            size_bytes: file.file_size_in_bytes(),
            record_count: file.record_count(),
            sequence_number,
            vector,
            is_scoped: referenced.is_some(),
        };
        if compares {
            let spec = metadata
                .partition_spec_by_id(spec_id)
                .ok_or_else(|| corrupt("delete file has an unknown partition spec").with_context("file", location))?;
            let reach = (!spec.is_unpartitioned()).then(|| (spec_id, widened(file.partition())));
            return self.equality.add(reach, delete, entry);
        }
        let delete = Arc::new(delete);
        match referenced {
            Some(path) if is_vector => {
                if self.vectors.insert(path.clone(), delete).is_some() {
                    return Err(corrupt("data file has two deletion vectors").with_context("file", path));
                }
            }
            Some(path) => self.by_path.entry(path).or_default().push(delete),
            None if is_vector => {
                return Err(corrupt("deletion vector names no data file").with_context("file", location));
            }
            None => self.by_partition.entry((spec_id, widened(file.partition()))).or_default().push(delete),
        }
        Ok(())
    }

    fn has_no_positions(&self) -> bool {
        self.vectors.is_empty() && self.by_path.is_empty() && self.by_partition.is_empty()
    }

    /// What deletes rows of a data file by position: its deletion vector alone where it has one, else every position delete of its
    /// partition, or naming it, that is not older than the file.
    pub(super) fn of(&self, spec_id: i32, sequence_number: i64, file: &DataFile) -> Vec<Arc<DeleteFile>> {
        if self.has_no_positions() {
            return Vec::new();
        }
        let applies = |d: &&Arc<DeleteFile>| d.sequence_number >= sequence_number;
        if let Some(vector) = self.vectors.get(file.file_path()).filter(applies) {
            return vec![vector.clone()];
        }
        let named = self.by_path.get(file.file_path()).into_iter().flatten();
        let shared = self.by_partition.get(&(spec_id, widened(file.partition()))).into_iter().flatten();
        named.chain(shared).filter(applies).cloned().collect()
    }
}

fn vector_blob(file: &DataFile) -> Result<VectorBlob> {
    let offset = file.content_offset().and_then(|v| u64::try_from(v).ok());
    let length = file.content_size_in_bytes().and_then(|v| u64::try_from(v).ok());
    match (offset, length) {
        (Some(offset), Some(length)) => Ok(VectorBlob { offset, length }),
        _ => Err(corrupt("deletion vector has no place in its file").with_context("file", file.file_path())),
    }
}

/// Positions of deleted rows, ascending and without repetition, by the location of the data file.
#[derive(Debug, Default)]
pub(super) struct PositionDeletes {
    by_file: HashMap<Box<str>, Arc<[u64]>>,
}

impl PositionDeletes {
    pub(super) fn new(collected: HashMap<Box<str>, Vec<u64>>) -> Self {
        let by_file = collected.into_iter().map(|(file, mut positions)| {
            positions.sort_unstable();
            positions.dedup();
            (file, Arc::from(positions))
        });
        Self { by_file: by_file.collect() }
    }

    pub(super) fn of(&self, data_file: &str) -> Option<&Arc<[u64]>> {
        self.by_file.get(data_file)
    }

    pub(super) fn memory_size(&self) -> usize {
        self.by_file.iter().map(|(file, positions)| 100 + file.len() + positions.len() * 8).sum()
    }
}

/// Union of ascending lists.
pub(crate) fn merge(mut lists: Vec<Arc<[u64]>>) -> Arc<[u64]> {
    if lists.len() == 1
        && let Some(only) = lists.pop()
    {
        return only;
    }
    let mut all: Vec<u64> = lists.iter().flat_map(|list| list.iter().copied()).collect();
    all.sort_unstable();
    all.dedup();
    Arc::from(all)
}

/// Everything in the file but the rows at `deleted` (ascending).
pub(super) fn access_plan(footer: &ParquetMetaData, deleted: &[u64]) -> Result<ParquetAccessPlan> {
    let mut plan = Vec::with_capacity(footer.num_row_groups());
    let mut start = 0u64;
    let mut rest = deleted;
    for group in footer.row_groups() {
        let rows =
            u64::try_from(group.num_rows()).map_err(|_| corrupt("parquet row group has a negative row count"))?;
        let end = start.checked_add(rows).ok_or_else(|| corrupt("parquet row counts overflow"))?;
        let (here, later) = rest.split_at(rest.partition_point(|p| *p < end));
        rest = later;
        plan.push(if here.is_empty() {
            RowGroupAccess::Scan
        } else if here.len() as u64 == rows {
            RowGroupAccess::Skip
        } else {
            RowGroupAccess::Selection(all_but(start, end, here)?)
        });
        start = end;
    }
    Ok(ParquetAccessPlan::new(plan))
}

fn all_but(start: u64, end: u64, deleted: &[u64]) -> Result<RowSelection> {
    let count = |n: u64| usize::try_from(n).map_err(|_| corrupt("parquet row count is out of range"));
    let mut selectors = Vec::with_capacity(deleted.len() * 2 + 1);
    let mut at = start;
    for position in deleted {
        if *position > at {
            selectors.push(RowSelector::select(count(position - at)?));
        }
        selectors.push(RowSelector::skip(1));
        at = position + 1;
    }
    if end > at {
        selectors.push(RowSelector::select(count(end - at)?));
    }
    // Merges neighbouring skips.
    Ok(RowSelection::from(selectors))
}
