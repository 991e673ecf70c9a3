use std::collections::HashMap;

use iceberg::spec::{
    DataContentType, DataFile, DataFileBuilder, DataFileFormat, Datum, PrimitiveType, Schema, Struct, TableMetadata,
    Type,
};
use parquet::basic::Type as Physical;
use parquet::file::metadata::ParquetMetaData;
use parquet::file::statistics::Statistics;
use tidewater_catalogs::{Error, Result};

use super::modes::{Mode, Modes};
use crate::lineage::FIRST_RESERVED;

pub(super) struct Finished<'a> {
    pub(super) schema: &'a Schema,
    pub(super) modes: &'a Modes,
    pub(super) footer: &'a ParquetMetaData,
    pub(super) location: &'a str,
    pub(super) size_bytes: u64,
    pub(super) spec_id: i32,
    /// Where all rows come in that order.
    pub(super) sort_order_id: Option<i32>,
    pub(super) partition: Struct,
    /// By field id.
    pub(super) nans: HashMap<i32, u64>,
}

/// The manifest entry of a file that was just written, from its own footer.
pub(super) fn data_file(file: Finished<'_>) -> Result<DataFile> {
    let mut columns = Columns::default();
    let descriptor = file.footer.file_metadata().schema_descr();
    for (index, column) in descriptor.columns().iter().enumerate() {
        let info = column.self_type().get_basic_info();
        if !info.has_id() {
            return Err(Error::internal(format!("column \"{}\" was written without a field id", column.path())));
        }
        if info.id() >= FIRST_RESERVED {
            continue;
        }
        columns.add(&file, index, info.id(), column.max_rep_level() > 0, true);
    }
    let nans = file.nans.iter().filter(|(id, _)| file.modes.of(**id) != Mode::None).map(|(id, n)| (*id, *n)).collect();
    let offsets = file.footer.row_groups().iter().filter_map(|g| g.file_offset()).collect();
    columns.describe(Finished { nans, ..file }, Some(offsets))
}

/// A file that somebody else wrote.
pub(crate) struct ForeignFile<'a> {
    pub(crate) metadata: &'a TableMetadata,
    pub(crate) footer: &'a ParquetMetaData,
    pub(crate) location: &'a str,
    pub(crate) size_bytes: u64,
    pub(crate) spec_id: i32,
    pub(crate) partition: Struct,
    /// Columns of Parquet that are columns of the table, with their field ids, and whether values are stored as the
    /// table's are, so that bounds can be told.
    pub(crate) columns: &'a [(usize, i32, bool)],
}

/// The manifest entry of a file that was there. It says nothing of NaN, and less of columns that are stored in another way.
pub(crate) fn foreign_file(file: ForeignFile<'_>) -> Result<DataFile> {
    let ForeignFile { metadata, footer, location, size_bytes, spec_id, partition, columns: known } = file;
    let modes = Modes::new(metadata, known.iter().map(|(_, id, _)| *id))?;
    let file = Finished {
        schema: metadata.current_schema(),
        modes: &modes,
        footer,
        location,
        size_bytes,
        spec_id,
        sort_order_id: None,
        partition,
        nans: HashMap::new(),
    };
    let mut columns = Columns::default();
    for (index, id, bounded) in known {
        columns.add(&file, *index, *id, false, *bounded);
    }
    columns.describe(file, None)
}

/// Smallest and largest value of a column, not cut short, where the footer tells.
pub(crate) fn range(footer: &ParquetMetaData, index: usize, data_type: &PrimitiveType) -> Option<(Datum, Datum)> {
    let (lower, upper) = bounds(footer, index, data_type);
    lower.known().zip(upper.known())
}

/// How many values of a column are null, where the footer tells.
pub(crate) fn nulls(footer: &ParquetMetaData, index: usize) -> Option<u64> {
    let required = footer.file_metadata().schema_descr().column(index).max_def_level() == 0;
    if required {
        return Some(0);
    }
    footer.row_groups().iter().map(|g| g.column(index).statistics().and_then(Statistics::null_count_opt)).sum()
}

fn count(n: i64) -> u64 {
    u64::try_from(n).unwrap_or(0)
}

fn bounds(footer: &ParquetMetaData, index: usize, data_type: &PrimitiveType) -> (Bound, Bound) {
    let floating = matches!(data_type, PrimitiveType::Float | PrimitiveType::Double);
    let mut lower = Bound::Empty;
    let mut upper = Bound::Empty;
    for chunk in footer.row_groups().iter().map(|g| g.column(index)) {
        // Old writers compared texts by signed bytes.
        let sorted = |s: &&Statistics| {
            !s.is_min_max_deprecated() || matches!(s.physical_type(), Physical::INT32 | Physical::INT64)
        };
        let statistics = chunk.statistics();
        let null_count = statistics.and_then(Statistics::null_count_opt);
        let min = statistics.filter(sorted).and_then(|s| datum(data_type, s, s.min_bytes_opt()?));
        let max = statistics.filter(sorted).and_then(|s| datum(data_type, s, s.max_bytes_opt()?));
        // Row groups of nulls, or of NaN, have no bounds and need none.
        let none_needed = null_count == Some(count(chunk.num_values())) || (floating && statistics.is_some());
        lower = lower.and(min, none_needed, |old, new| new < old);
        upper = upper.and(max, none_needed, |old, new| new > old);
    }
    (lower, upper)
}

#[derive(Default)]
struct Columns {
    sizes: HashMap<i32, u64>,
    values: HashMap<i32, u64>,
    nulls: HashMap<i32, u64>,
    lower: HashMap<i32, Datum>,
    upper: HashMap<i32, Datum>,
}

impl Columns {
    fn describe(self, file: Finished<'_>, offsets: Option<Vec<i64>>) -> Result<DataFile> {
        let rows = u64::try_from(file.footer.file_metadata().num_rows())
            .map_err(|e| Error::internal("negative row count").with_source(e))?;
        let mut builder = DataFileBuilder::default();
        if let Some(id) = file.sort_order_id {
            builder.sort_order_id(id);
        }
        builder
            .content(DataContentType::Data)
            .file_path(file.location.to_string())
            .file_format(DataFileFormat::Parquet)
            .partition(file.partition)
            .partition_spec_id(file.spec_id)
            .record_count(rows)
            .file_size_in_bytes(file.size_bytes)
            .column_sizes(self.sizes)
            .value_counts(self.values)
            .null_value_counts(self.nulls)
            .nan_value_counts(file.nans)
            .lower_bounds(self.lower)
            .upper_bounds(self.upper)
            .split_offsets(offsets)
            .build()
            .map_err(|e| Error::internal("cannot describe a data file").with_source(e))
    }

    /// Counts and bounds of repeated columns (elements of lists and maps) mean nothing to a reader of rows.
    fn add(&mut self, file: &Finished<'_>, index: usize, id: i32, repeated: bool, bounded: bool) {
        let mode = file.modes.of(id);
        if mode == Mode::None {
            return;
        }
        let chunks = || file.footer.row_groups().iter().map(move |g| g.column(index));
        let size = chunks().map(|c| count(c.compressed_size())).sum();
        self.sizes.insert(id, size);
        if repeated {
            return;
        }
        self.values.insert(id, chunks().map(|c| count(c.num_values())).sum());
        if let Some(nulls) = nulls(file.footer, index) {
            self.nulls.insert(id, nulls);
        }
        let length = match mode {
            Mode::None | Mode::Counts => return,
            Mode::Truncate(length) => length,
            Mode::Full => usize::MAX,
        };
        let field = file.schema.field_by_id(id);
        let Some(Type::Primitive(data_type)) = field.map(|f| f.field_type.as_ref()) else { return };
        if !bounded {
            return;
        }
        let (lower, upper) = bounds(file.footer, index, data_type);
        if let Some(lower) = lower.known().and_then(|bound| truncate_lower(bound, length)) {
            self.lower.insert(id, lower);
        }
        if let Some(upper) = upper.known().and_then(|bound| truncate_upper(bound, length)) {
            self.upper.insert(id, upper);
        }
    }
}

enum Bound {
    Empty,
    Known(Datum),
    /// One row group has values and no bound, so the file has none.
    Unknown,
}

impl Bound {
    fn and(self, next: Option<Datum>, none_needed: bool, better: impl Fn(&Datum, &Datum) -> bool) -> Self {
        match (self, next) {
            (Self::Unknown, _) => Self::Unknown,
            (this, None) => {
                if none_needed {
                    this
                } else {
                    Self::Unknown
                }
            }
            (Self::Empty, Some(new)) => Self::Known(new),
            (Self::Known(old), Some(new)) => Self::Known(if better(&old, &new) { new } else { old }),
        }
    }

    fn known(self) -> Option<Datum> {
        match self {
            Self::Known(datum) => Some(datum),
            Self::Empty | Self::Unknown => None,
        }
    }
}

/// A bound of a column chunk; statistics that Parquet has cut short are bounds all the same.
fn datum(data_type: &PrimitiveType, statistics: &Statistics, bytes: &[u8]) -> Option<Datum> {
    match data_type {
        PrimitiveType::Decimal { .. } => {
            let value = match statistics.physical_type() {
                Physical::INT32 => i128::from(i32::from_le_bytes(bytes.try_into().ok()?)),
                Physical::INT64 => i128::from(i64::from_le_bytes(bytes.try_into().ok()?)),
                _ => return Datum::try_from_bytes(bytes, data_type.clone()).ok(),
            };
            Datum::try_from_bytes(&value.to_be_bytes(), data_type.clone()).ok()
        }
        PrimitiveType::Boolean if bytes.len() != 1 => None,
        other => Datum::try_from_bytes(bytes, other.clone()).ok(),
    }
}

fn truncate_lower(datum: Datum, length: usize) -> Option<Datum> {
    use iceberg::spec::PrimitiveLiteral as L;
    match (datum.data_type(), datum.literal()) {
        (PrimitiveType::String, L::String(text)) => Some(match text.char_indices().nth(length) {
            Some((end, _)) => Datum::string(&text[..end]),
            None => datum,
        }),
        (PrimitiveType::Binary, L::Binary(bytes)) if bytes.len() > length => {
            Some(Datum::binary(bytes[..length].iter().copied()))
        }
        _ => Some(datum),
    }
}

/// What is cut off makes a value larger than its prefix, so the prefix is raised; `None` where it cannot be.
fn truncate_upper(datum: Datum, length: usize) -> Option<Datum> {
    use iceberg::spec::PrimitiveLiteral as L;
    match (datum.data_type(), datum.literal()) {
        (PrimitiveType::String, L::String(text)) => match text.char_indices().nth(length) {
            Some((end, _)) => {
                let mut chars: Vec<char> = text[..end].chars().collect();
                while let Some(last) = chars.pop() {
                    if let Some(next) = successor(last) {
                        chars.push(next);
                        return Some(Datum::string(chars.into_iter().collect::<String>()));
                    }
                }
                None
            }
            None => Some(datum),
        },
        (PrimitiveType::Binary, L::Binary(bytes)) if bytes.len() > length => {
            let mut prefix = bytes[..length].to_vec();
            while let Some(last) = prefix.pop() {
                if last < u8::MAX {
                    prefix.push(last + 1);
                    return Some(Datum::binary(prefix));
                }
            }
            None
        }
        _ => Some(datum),
    }
}

fn successor(c: char) -> Option<char> {
    match c {
        // Surrogates are no characters.
        '\u{D7FF}' => Some('\u{E000}'),
        c => char::from_u32(u32::from(c) + 1),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn long_bounds_stay_bounds() {
        let long = "abcdefghijklmnopqrstuvwxyz";
        assert_eq!(truncate_lower(Datum::string(long), 16).unwrap(), Datum::string("abcdefghijklmnop"));
        assert_eq!(truncate_upper(Datum::string(long), 16).unwrap(), Datum::string("abcdefghijklmnoq"));
        assert_eq!(truncate_upper(Datum::string("short"), 16).unwrap(), Datum::string("short"));
        let high: String = std::iter::repeat_n(char::MAX, 20).collect();
        assert_eq!(truncate_upper(Datum::string(high), 16), None);
        let mixed = format!("abc{}", std::iter::repeat_n(char::MAX, 20).collect::<String>());
        assert_eq!(truncate_upper(Datum::string(mixed), 16).unwrap(), Datum::string("abd"));
        let gap = format!("{}\u{D7FF}tail", "x".repeat(15));
        assert_eq!(
            truncate_upper(Datum::string(gap), 16).unwrap(),
            Datum::string(format!("{}\u{E000}", "x".repeat(15)))
        );
        assert_eq!(truncate_upper(Datum::binary(vec![0xff; 30]), 16), None);
        let bytes = [vec![1; 15], vec![0xff; 9]].concat();
        assert_eq!(truncate_upper(Datum::binary(bytes), 16).unwrap(), Datum::binary([vec![1; 14], vec![2]].concat()));
    }
}
