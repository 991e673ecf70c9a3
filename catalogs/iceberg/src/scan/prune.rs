//! What manifests and their entries say about column values, in the form that DataFusion's pruning asks for.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, UInt64Array};
use arrow::datatypes::DataType;
use datafusion::common::pruning::PruningStatistics;
use datafusion::common::{Column, ScalarValue};
use iceberg::spec::{DataFile, Datum, Literal, ManifestFile, Transform, Type};

use super::columns::{ScanSchema, SpecField};
use super::transforms::{buckets, lower_bound, source_max, source_min, upper_bound};
use super::values::scalar;

/// What is known about the values of one column in one file.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct ColumnRange {
    pub(super) min: Option<ScalarValue>,
    pub(super) max: Option<ScalarValue>,
    pub(super) nulls: Option<u64>,
    /// True where `min` occurs in the file, and is not only a bound of what does.
    pub(super) min_tight: bool,
    pub(super) max_tight: bool,
}

/// Bounds, counts and partition values of one data file, put together.
pub(super) fn column_range(schema: &ScanSchema, spec: &[SpecField], file: &DataFile, column: usize) -> ColumnRange {
    let to = schema.data_type(column);
    let mut range = ColumnRange::default();
    if !schema.field(column).field_type.is_primitive() {
        return range;
    }
    let id = schema.field(column).id;
    range.nulls = file.null_value_counts().get(&id).copied();
    if bounds_are_ordered(to)
        && !schema.is_uuid(column)
        && (!to.is_floating() || file.nan_value_counts().get(&id) == Some(&0))
    {
        let read = |datum: Option<&Datum>| datum.and_then(|d| scalar(d.literal(), to));
        range.min = read(file.lower_bounds().get(&id)).and_then(lower_bound);
        range.max = read(file.upper_bounds().get(&id)).and_then(upper_bound);
        range.min_tight = bounds_are_tight(to);
        range.max_tight = range.min_tight;
    }
    for field in spec.iter().filter(|f| f.column == column) {
        match file.partition().fields().get(field.position) {
            None => {}
            Some(None) => {
                // Every transform maps null, and nothing else, to null.
                return ColumnRange { nulls: Some(file.record_count()), ..ColumnRange::default() };
            }
            Some(Some(Literal::Primitive(value))) => {
                range.nulls = Some(0);
                let attained = field.transform == Transform::Identity && !to.is_floating();
                let (low, high) = (source_min(field.transform, value, to), source_max(field.transform, value, to));
                narrow(&mut range.min, &mut range.min_tight, low, attained, |new, old| new > old);
                narrow(&mut range.max, &mut range.max_tight, high, attained, |new, old| new < old);
            }
            Some(Some(_)) => {}
        }
    }
    range
}

fn narrow(
    bound: &mut Option<ScalarValue>,
    tight: &mut bool,
    candidate: Option<ScalarValue>,
    attained: bool,
    better: impl Fn(&ScalarValue, &ScalarValue) -> bool,
) {
    let Some(candidate) = candidate else { return };
    match bound {
        Some(old) if *old == candidate => *tight |= attained,
        Some(old) if !better(&candidate, old) => {}
        _ => {
            *bound = Some(candidate);
            *tight = attained;
        }
    }
}

/// Fixed-size bytes are left out: writers disagree on the order of UUIDs.
fn bounds_are_ordered(data_type: &DataType) -> bool {
    !matches!(data_type, DataType::FixedSizeBinary(_))
}

/// Bounds of texts and bytes may be cut short; those of floating-point numbers leave the sign of zero open.
fn bounds_are_tight(data_type: &DataType) -> bool {
    use DataType as D;
    matches!(
        data_type,
        D::Boolean | D::Int32 | D::Int64 | D::Date32 | D::Time64(_) | D::Timestamp(_, _) | D::Decimal128(_, _)
    )
}

/// Data files of one manifest, which share a partition spec.
pub(super) struct Files<'a> {
    pub(super) schema: &'a ScanSchema,
    pub(super) spec: &'a [SpecField],
    pub(super) files: &'a [&'a DataFile],
}

impl Files<'_> {
    fn collect(&self, column: &Column, of: impl Fn(ColumnRange) -> Option<ScalarValue>) -> Option<ArrayRef> {
        let column = self.schema.arrow.index_of(column.name()).ok()?;
        let ranges = self.files.iter().map(|file| of(column_range(self.schema, self.spec, file, column)));
        to_array(ranges, self.schema.data_type(column))
    }
}

fn to_array(values: impl Iterator<Item = Option<ScalarValue>>, data_type: &DataType) -> Option<ArrayRef> {
    let null = ScalarValue::try_new_null(data_type).ok()?;
    let mut known = false;
    let values: Vec<ScalarValue> = values
        .map(|v| {
            known |= v.is_some();
            v.unwrap_or_else(|| null.clone())
        })
        .collect();
    if known { ScalarValue::iter_to_array(values).ok() } else { None }
}

impl PruningStatistics for Files<'_> {
    fn min_values(&self, column: &Column) -> Option<ArrayRef> {
        self.collect(column, |range| range.min)
    }

    fn max_values(&self, column: &Column) -> Option<ArrayRef> {
        self.collect(column, |range| range.max)
    }

    fn num_containers(&self) -> usize {
        self.files.len()
    }

    fn null_counts(&self, column: &Column) -> Option<ArrayRef> {
        let column = self.schema.arrow.index_of(column.name()).ok()?;
        let nulls = self.files.iter().map(|file| column_range(self.schema, self.spec, file, column).nulls);
        Some(Arc::new(nulls.collect::<UInt64Array>()))
    }

    fn row_counts(&self, _column: &Column) -> Option<ArrayRef> {
        Some(Arc::new(self.files.iter().map(|file| Some(file.record_count())).collect::<UInt64Array>()))
    }

    /// False where none of the values can be in the file, going by its bucket.
    fn contained(&self, column: &Column, values: &HashSet<ScalarValue>) -> Option<BooleanArray> {
        let column = self.schema.arrow.index_of(column.name()).ok()?;
        let values: Vec<ScalarValue> = values.iter().cloned().collect();
        let mut known = false;
        let mut absent = vec![false; self.files.len()];
        for field in self.spec.iter().filter(|f| f.column == column) {
            let Transform::Bucket(count) = field.transform else { continue };
            let Some(wanted) = buckets(count, &values, self.schema.data_type(column)) else { continue };
            for (absent, file) in absent.iter_mut().zip(self.files) {
                if let Some(Some(Literal::Primitive(iceberg::spec::PrimitiveLiteral::Int(bucket)))) =
                    file.partition().fields().get(field.position)
                {
                    known = true;
                    *absent |= !wanted.contains(bucket);
                }
            }
        }
        known.then(|| absent.into_iter().map(|absent| if absent { Some(false) } else { None }).collect())
    }
}

/// Manifests, by the partition summaries in the manifest list. `specs` has the spec of each.
pub(super) struct Manifests<'a> {
    pub(super) schema: &'a ScanSchema,
    pub(super) manifests: &'a [(&'a ManifestFile, Arc<[SpecField]>)],
}

impl Manifests<'_> {
    fn range(&self, index: usize, column: usize) -> ColumnRange {
        let mut range = ColumnRange::default();
        let (manifest, spec) = &self.manifests[index];
        let to = self.schema.data_type(column);
        // A summary does not tell which rows are NaN, only that some partition is.
        if to.is_floating() || !bounds_are_ordered(to) || self.schema.is_uuid(column) {
            return range;
        }
        let Some(summaries) = &manifest.partitions else { return range };
        for field in spec.iter().filter(|f| f.column == column) {
            let Some(summary) = summaries.get(field.position) else { continue };
            let Type::Primitive(result) = &field.result else { continue };
            let read =
                |bytes: &Option<iceberg::spec::ByteBuf>| Datum::try_from_bytes(bytes.as_ref()?, result.clone()).ok();
            if !summary.contains_null {
                range.nulls = Some(0);
            }
            let mut unused = false;
            if let Some(lower) = read(&summary.lower_bound) {
                let candidate = source_min(field.transform, lower.literal(), to);
                narrow(&mut range.min, &mut unused, candidate, false, |new, old| new > old);
            }
            if let Some(upper) = read(&summary.upper_bound) {
                let candidate = source_max(field.transform, upper.literal(), to);
                narrow(&mut range.max, &mut unused, candidate, false, |new, old| new < old);
            }
        }
        range
    }

    fn collect(&self, column: &Column, of: impl Fn(ColumnRange) -> Option<ScalarValue>) -> Option<ArrayRef> {
        let column = self.schema.arrow.index_of(column.name()).ok()?;
        to_array((0..self.manifests.len()).map(|i| of(self.range(i, column))), self.schema.data_type(column))
    }
}

impl PruningStatistics for Manifests<'_> {
    fn min_values(&self, column: &Column) -> Option<ArrayRef> {
        self.collect(column, |range| range.min)
    }

    fn max_values(&self, column: &Column) -> Option<ArrayRef> {
        self.collect(column, |range| range.max)
    }

    fn num_containers(&self) -> usize {
        self.manifests.len()
    }

    fn null_counts(&self, column: &Column) -> Option<ArrayRef> {
        let column = self.schema.arrow.index_of(column.name()).ok()?;
        Some(Arc::new((0..self.manifests.len()).map(|i| self.range(i, column).nulls).collect::<UInt64Array>()))
    }

    fn row_counts(&self, _column: &Column) -> Option<ArrayRef> {
        None
    }

    fn contained(&self, column: &Column, values: &HashSet<ScalarValue>) -> Option<BooleanArray> {
        let column = self.schema.arrow.index_of(column.name()).ok()?;
        let values: Vec<ScalarValue> = values.iter().cloned().collect();
        let mut out: Vec<Option<bool>> = vec![None; self.manifests.len()];
        for (out, (manifest, spec)) in out.iter_mut().zip(self.manifests) {
            for field in spec.iter().filter(|f| f.column == column) {
                let Transform::Bucket(count) = field.transform else { continue };
                let Some(summary) = manifest.partitions.as_ref().and_then(|s| s.get(field.position)) else { continue };
                let read = |bytes: &Option<iceberg::spec::ByteBuf>| {
                    <[u8; 4]>::try_from(bytes.as_ref()?.as_slice()).ok().map(i32::from_le_bytes)
                };
                let (Some(low), Some(high)) = (read(&summary.lower_bound), read(&summary.upper_bound)) else {
                    continue;
                };
                let Some(wanted) = buckets(count, &values, self.schema.data_type(column)) else { continue };
                if !wanted.iter().any(|bucket| (low..=high).contains(bucket)) {
                    *out = Some(false);
                }
            }
        }
        out.iter().any(Option::is_some).then(|| out.into_iter().collect())
    }
}
