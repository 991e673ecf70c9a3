//! Equality deletes in planning: which of them a data file has to be held against (Iceberg spec, "Scan Planning").

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Schema};
use iceberg::spec::{DataFile, Datum, ManifestEntryRef, Struct, TableMetadata};
use tidewater_catalogs::Result;

use super::deletes::DeleteFile;
use super::error::corrupt;
use super::keys::KeyColumn;
use super::values::scalar;

/// Pairs of data file and delete file whose bounds one planning compares. Past that every delete in reach is taken to
/// matter, which costs reading and changes nothing else.
const MAX_COMPARED: usize = 500_000;

/// Delete files that compare the same columns and have the same reach. Plain data.
#[derive(Debug, Clone)]
pub(super) struct EqualityGroup {
    /// Positions among the keys of the plan.
    pub(super) columns: Vec<usize>,
    /// Latest first.
    pub(super) files: Vec<Arc<DeleteFile>>,
}

/// The equality deletes of one scan. Plain data: files name their groups by number.
#[derive(Debug, Clone, Default)]
pub(super) struct EqualityPlan {
    pub(super) keys: Vec<KeyColumn>,
    pub(super) groups: Vec<EqualityGroup>,
}

impl EqualityPlan {
    pub(super) fn columns_of(&self, group: usize) -> Vec<&KeyColumn> {
        self.groups[group].columns.iter().map(|key| &self.keys[*key]).collect()
    }
}

/// Which data files an equality delete reaches: those of its partition, or all where its spec has no partitions.
pub(super) type Reach = Option<(i32, Struct)>;

/// The equality deletes of a snapshot.
#[derive(Debug, Default)]
pub(super) struct EqualityIndex {
    groups: Vec<Candidates>,
    by_columns: HashMap<(Reach, Vec<i32>), usize>,
    by_reach: HashMap<Reach, Vec<usize>>,
}

#[derive(Debug)]
struct Candidates {
    field_ids: Vec<i32>,
    files: Vec<(Arc<DeleteFile>, ManifestEntryRef)>,
}

impl EqualityIndex {
    pub(super) fn add(&mut self, reach: Reach, delete: DeleteFile, entry: &ManifestEntryRef) -> Result<()> {
        let mut field_ids = entry.data_file().equality_ids().unwrap_or_default();
        field_ids.sort_unstable();
        field_ids.dedup();
        if field_ids.is_empty() {
            return Err(corrupt("equality delete file names no columns").with_context("file", &delete.location));
        }
        let group = *self.by_columns.entry((reach.clone(), field_ids.clone())).or_insert_with(|| {
            self.by_reach.entry(reach).or_default().push(self.groups.len());
            self.groups.push(Candidates { field_ids, files: Vec::new() });
            self.groups.len() - 1
        });
        self.groups[group].files.push((Arc::new(delete), entry.clone()));
        Ok(())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }
}

/// Gathers what the data files of one scan need.
#[derive(Debug, Default)]
pub(super) struct EqualityPlanner {
    index: EqualityIndex,
    keys: Vec<KeyColumn>,
    /// As in the index, for those that some data file needs.
    used: Vec<Option<Used>>,
    /// In the order of their numbers.
    numbered: Vec<usize>,
    compared: usize,
}

#[derive(Debug, Clone)]
struct Used {
    number: usize,
    columns: Vec<usize>,
    /// By file of the group.
    needed: Vec<bool>,
}

impl EqualityPlanner {
    pub(super) fn new(mut index: EqualityIndex) -> Self {
        for group in &mut index.groups {
            group.files.sort_by_key(|(file, _)| Reverse(file.sequence_number));
        }
        Self { used: vec![None; index.groups.len()], index, ..Self::default() }
    }

    /// Numbers of the groups that may delete rows of the file: those that are newer than the file, never equally old.
    pub(super) fn of(
        &mut self,
        metadata: &TableMetadata,
        scan: &Schema,
        reach: (i32, Struct),
        sequence_number: i64,
        file: &DataFile,
    ) -> Result<Vec<usize>> {
        if self.index.is_empty() {
            return Ok(Vec::new());
        }
        let in_reach = [None, Some(reach)];
        let groups: Vec<usize> =
            in_reach.iter().filter_map(|reach| self.index.by_reach.get(reach)).flatten().copied().collect();
        let mut numbers = Vec::new();
        for group in groups {
            let files = &self.index.groups[group].files;
            let newer = files.partition_point(|(delete, _)| delete.sequence_number > sequence_number);
            if newer == 0 {
                continue;
            }
            let columns = match &self.used[group] {
                Some(used) => used.columns.clone(),
                None => self.columns(metadata, scan, group)?,
            };
            let files = &self.index.groups[group].files;
            self.compared = self.compared.saturating_add(newer);
            let compare = self.compared <= MAX_COMPARED;
            let matters = |delete: &DataFile| {
                !compare || columns.iter().all(|key| may_have_equal(&self.keys[*key], file, delete))
            };
            let needed: Vec<usize> = (0..newer).filter(|i| matters(files[*i].1.data_file())).collect();
            if needed.is_empty() {
                continue;
            }
            let (count, numbered) = (files.len(), &mut self.numbered);
            let used = self.used[group].get_or_insert_with(|| {
                numbered.push(group);
                Used { number: numbered.len() - 1, columns, needed: vec![false; count] }
            });
            needed.into_iter().for_each(|i| used.needed[i] = true);
            numbers.push(used.number);
        }
        Ok(numbers)
    }

    fn columns(&mut self, metadata: &TableMetadata, scan: &Schema, group: usize) -> Result<Vec<usize>> {
        let mut columns = Vec::with_capacity(self.index.groups[group].field_ids.len());
        for id in &self.index.groups[group].field_ids {
            let known = self.keys.iter().position(|key| key.id == *id);
            columns.push(match known {
                Some(known) => known,
                None => {
                    self.keys.push(KeyColumn::of(metadata, scan, *id)?);
                    self.keys.len() - 1
                }
            });
        }
        Ok(columns)
    }

    /// The keys that the given groups compare, with their positions.
    pub(super) fn keys_of(&self, numbers: &[usize]) -> Vec<(usize, &KeyColumn)> {
        let used = numbers.iter().filter_map(|number| self.used[self.numbered[*number]].as_ref());
        let mut positions: Vec<usize> = used.flat_map(|used| used.columns.iter().copied()).collect();
        positions.sort_unstable();
        positions.dedup();
        positions.into_iter().map(|position| (position, &self.keys[position])).collect()
    }

    pub(super) fn finish(self) -> EqualityPlan {
        let group = |group: &usize| {
            let used = self.used[*group].as_ref()?;
            let files = self.index.groups[*group].files.iter().zip(&used.needed);
            let files = files.filter(|(_, needed)| **needed).map(|((file, _), _)| file.clone()).collect();
            Some(EqualityGroup { columns: used.columns.clone(), files })
        };
        EqualityPlan { groups: self.numbered.iter().filter_map(group).collect(), keys: self.keys }
    }
}

/// False where the metrics of both files show that no value of the column is in both.
fn may_have_equal(key: &KeyColumn, data: &DataFile, delete: &DataFile) -> bool {
    let nulls = |file: &DataFile| file.null_value_counts().get(&key.id).copied();
    let values = |file: &DataFile| file.value_counts().get(&key.id).copied();
    let some_nulls = |file: &DataFile| nulls(file) != Some(0);
    let only_nulls = |file: &DataFile| nulls(file).is_some() && nulls(file) == values(file);
    if some_nulls(data) && some_nulls(delete) {
        return true;
    }
    if only_nulls(data) || only_nulls(delete) {
        return false;
    }
    // NaN is beyond all bounds, and writers do not agree on the order of UUIDs.
    if key.data_type.is_floating() || matches!(key.data_type, DataType::FixedSizeBinary(_)) {
        return true;
    }
    let read = |bound: Option<&Datum>| bound.and_then(|datum| scalar(datum.literal(), &key.data_type));
    let apart = |upper: Option<&Datum>, lower: Option<&Datum>| match (read(upper), read(lower)) {
        (Some(upper), Some(lower)) => upper < lower,
        _ => false,
    };
    !apart(data.upper_bounds().get(&key.id), delete.lower_bounds().get(&key.id))
        && !apart(delete.upper_bounds().get(&key.id), data.lower_bounds().get(&key.id))
}
