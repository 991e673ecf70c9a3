//! How Parquet files are written, by Iceberg's names for it (`write.parquet.*`).

use std::collections::HashMap;

use arrow::datatypes::Schema as ArrowSchema;
use iceberg::spec::Schema;
use parquet::arrow::ArrowSchemaConverter;
use parquet::basic::{Compression, GzipLevel, ZstdLevel};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use tidewater_catalogs::{Error, Result};

use crate::properties as p;

/// Bounds in page and column index; longer ones cost more than they prune.
const PARQUET_BOUND_LENGTH: usize = 64;

/// Properties of a file, and the ids of its columns in their order.
pub(super) fn properties(
    options: &HashMap<String, String>,
    schema: &Schema,
    arrow: &ArrowSchema,
) -> Result<(WriterProperties, Vec<i32>)> {
    let size =
        |property: (&str, u64)| p::get(options, property).map(|n| usize::try_from(n).unwrap_or(usize::MAX).max(1));
    let mut builder = WriterProperties::builder()
        .set_compression(compression(options)?)
        .set_max_row_group_row_count(Some(size(p::ROW_GROUP_ROWS)?))
        .set_max_row_group_bytes(Some(size(p::ROW_GROUP_BYTES)?))
        .set_data_page_size_limit(size(p::PAGE_BYTES)?)
        .set_data_page_row_count_limit(size(p::PAGE_ROWS)?)
        .set_dictionary_page_size_limit(size(p::DICTIONARY_BYTES)?)
        .set_statistics_enabled(EnabledStatistics::Page)
        .set_statistics_truncate_length(Some(PARQUET_BOUND_LENGTH))
        .set_column_index_truncate_length(Some(PARQUET_BOUND_LENGTH))
        .set_created_by(concat!("tidewater ", env!("CARGO_PKG_VERSION")).to_string());
    let described = ArrowSchemaConverter::new()
        .convert(arrow)
        .map_err(|e| Error::internal("the columns do not make a Parquet file").with_source(e))?;
    let mut ids = Vec::with_capacity(described.num_columns());
    for column in described.columns() {
        let info = column.self_type().get_basic_info();
        if !info.has_id() {
            return Err(Error::internal(format!("column \"{}\" has no field id", column.path())));
        }
        ids.push(info.id());
        let name = schema.name_by_field_id(info.id()).unwrap_or_default();
        if p::get(options, (&format!("{}{name}", p::BLOOM_ENABLED), false))? {
            let fpp = probability(options, name)?;
            builder = builder
                .set_column_bloom_filter_enabled(column.path().clone(), true)
                .set_column_bloom_filter_fpp(column.path().clone(), fpp)
                .set_column_bloom_filter_ndv(column.path().clone(), most_values(size(p::BLOOM_BYTES)?, fpp));
        }
    }
    Ok((builder.build(), ids))
}

fn probability(options: &HashMap<String, String>, column: &str) -> Result<f64> {
    let key = format!("{}{column}", p::BLOOM_FPP);
    let fpp = p::get(options, (&key, 0.01))?;
    if fpp > 0.0 && fpp < 1.0 {
        return Ok(fpp);
    }
    Err(Error::invalid(format!("invalid value for table property \"{key}\": it must be between 0 and 1")))
}

/// Distinct values for which a filter of so many bytes keeps what it promises. It is made that large, and folded to what
/// its values need. (Parquet spec, "Split block Bloom filters".)
fn most_values(bytes: usize, fpp: f64) -> u64 {
    // The size is rounded up to a power of two.
    let bytes = if bytes.is_power_of_two() { bytes } else { bytes.next_power_of_two() / 2 };
    let bits = bytes.clamp(32, 128 << 20) as f64 * 8.0;
    let values = -bits * (1.0 - fpp.powf(1.0 / 8.0)).ln() / 8.0;
    (values.floor() as u64).max(1)
}

fn compression(options: &HashMap<String, String>) -> Result<Compression> {
    let codec = options.get(p::COMPRESSION.0).map_or(p::COMPRESSION.1, String::as_str);
    let level = options.get(p::COMPRESSION_LEVEL).map(String::as_str);
    let invalid = |e: &dyn std::fmt::Display| {
        Error::invalid(format!("invalid value for table property \"{}\": {e}", p::COMPRESSION_LEVEL))
    };
    let number = |default: i32| level.map_or(Ok(default), |l| l.trim().parse::<i32>().map_err(|e| invalid(&e)));
    Ok(match codec.to_ascii_lowercase().as_str() {
        "zstd" => Compression::ZSTD(ZstdLevel::try_new(number(1)?).map_err(|e| invalid(&e))?),
        "gzip" => {
            let level = u32::try_from(number(6)?).map_err(|e| invalid(&e))?;
            Compression::GZIP(GzipLevel::try_new(level).map_err(|e| invalid(&e))?)
        }
        "snappy" => Compression::SNAPPY,
        "lz4" => Compression::LZ4_RAW,
        "uncompressed" | "none" => Compression::UNCOMPRESSED,
        _ => {
            return Err(Error::invalid(format!(
                "invalid value for table property \"{}\": \"{codec}\"",
                p::COMPRESSION.0
            ))
            .with_hint("Use \"zstd\", \"snappy\", \"gzip\", \"lz4\" or \"uncompressed\"."));
        }
    })
}

/// Checks the options of a table that is being made or changed.
pub(crate) fn check_properties(options: &HashMap<String, String>) -> Result<()> {
    p::check(options)?;
    super::modes::check(options)?;
    for key in options.keys() {
        if key.starts_with(p::BLOOM_ENABLED) {
            p::get(options, (key.as_str(), false))?;
        } else if let Some(column) = key.strip_prefix(p::BLOOM_FPP) {
            probability(options, column)?;
        }
    }
    compression(options).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_no_larger_than_it_may_be() {
        // 0.01 needs about 9.68 bits a value in blocks of eight words.
        assert!((800_000..900_000).contains(&most_values(1 << 20, 0.01)), "{}", most_values(1 << 20, 0.01));
        assert_eq!(most_values((1 << 20) + 5, 0.01), most_values(1 << 20, 0.01));
        assert!(most_values(1, 0.5) >= 1);
    }
}
