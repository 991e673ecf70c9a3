//! Partition values turned back into what they say about the source column.
//!
//! Predicates are not projected through transforms. Instead, the value of a transform becomes a range of source values
//! (a day is a range of timestamps), so that one pruning predicate over columns serves manifests and files alike,
//! whatever the partition specs were.

use arrow::array::{Array, Int32Array};
use arrow::datatypes::{DataType, TimeUnit};
use chrono::NaiveDate;
use datafusion::common::ScalarValue;
use iceberg::spec::{PrimitiveLiteral, Transform};
use iceberg::transform::create_transform_function;

use super::values::scalar;

const MICROS_PER_DAY: i128 = 86_400_000_000;
const MICROS_PER_HOUR: i128 = 3_600_000_000;

/// A lower bound of the source values (of type `to`) that the transform maps to `value` or above. `None` where there
/// is none to be told.
pub(super) fn source_min(transform: Transform, value: &PrimitiveLiteral, to: &DataType) -> Option<ScalarValue> {
    match transform {
        Transform::Identity => scalar(value, to).and_then(lower_bound),
        Transform::Truncate(_) => scalar(value, to),
        Transform::Year | Transform::Month | Transform::Day | Transform::Hour => {
            let PrimitiveLiteral::Int(unit) = value else { return None };
            // Old writers rounded times before 1970 towards zero: such a unit also holds values of the one before.
            let unit = i64::from(*unit);
            instant(unit_start_micros(transform, if unit <= 0 { unit - 1 } else { unit })?, to)
        }
        _ => None,
    }
}

/// An upper bound of the source values that the transform maps to `value` or below.
pub(super) fn source_max(transform: Transform, value: &PrimitiveLiteral, to: &DataType) -> Option<ScalarValue> {
    match transform {
        Transform::Identity => scalar(value, to).and_then(upper_bound),
        Transform::Truncate(width) => truncated_max(scalar(value, to)?, width),
        Transform::Year | Transform::Month | Transform::Day | Transform::Hour => {
            let PrimitiveLiteral::Int(unit) = value else { return None };
            let next = unit_start_micros(transform, i64::from(*unit) + 1)?;
            match to {
                DataType::Date32 => instant(next - MICROS_PER_DAY, to),
                DataType::Timestamp(TimeUnit::Nanosecond, _) => {
                    // The last nanosecond of the unit is beyond its last microsecond; one microsecond more is safe.
                    instant(next, to)
                }
                _ => instant(next - 1, to),
            }
        }
        _ => None,
    }
}

/// The bucket of each value. `None` where one of them has no bucket, or the type is not hashed in a known way.
pub(super) fn buckets(count: u32, values: &[ScalarValue], column: &DataType) -> Option<Vec<i32>> {
    if matches!(column, DataType::Timestamp(TimeUnit::Nanosecond, _)) {
        return None;
    }
    let function = create_transform_function(&Transform::Bucket(count)).ok()?;
    values
        .iter()
        .map(|value| {
            if value.is_null() || value.data_type() != *column {
                return None;
            }
            let hashed = function.transform(value.to_array().ok()?).ok()?;
            let hashed = hashed.as_any().downcast_ref::<Int32Array>()?;
            (hashed.len() == 1 && hashed.is_valid(0)).then(|| hashed.value(0))
        })
        .collect()
}

/// A value that is at or below `value` in the order of Arrow's kernels, where -0.0 is below 0.0 and NaN above all.
pub(super) fn lower_bound(value: ScalarValue) -> Option<ScalarValue> {
    match value {
        ScalarValue::Float32(Some(v)) if v.is_nan() => None,
        ScalarValue::Float64(Some(v)) if v.is_nan() => None,
        ScalarValue::Float32(Some(0.0)) => Some(ScalarValue::Float32(Some(-0.0))),
        ScalarValue::Float64(Some(0.0)) => Some(ScalarValue::Float64(Some(-0.0))),
        other => Some(other),
    }
}

pub(super) fn upper_bound(value: ScalarValue) -> Option<ScalarValue> {
    match value {
        ScalarValue::Float32(Some(v)) if v.is_nan() => None,
        ScalarValue::Float64(Some(v)) if v.is_nan() => None,
        ScalarValue::Float32(Some(0.0)) => Some(ScalarValue::Float32(Some(0.0))),
        ScalarValue::Float64(Some(0.0)) => Some(ScalarValue::Float64(Some(0.0))),
        other => Some(other),
    }
}

/// Microseconds since 1970 at which the `unit`-th year, month, day or hour since 1970 begins.
fn unit_start_micros(transform: Transform, unit: i64) -> Option<i128> {
    match transform {
        Transform::Year => first_of_month(unit.checked_mul(12)?),
        Transform::Month => first_of_month(unit),
        Transform::Day => Some(i128::from(unit) * MICROS_PER_DAY),
        Transform::Hour => Some(i128::from(unit) * MICROS_PER_HOUR),
        _ => None,
    }
}

fn first_of_month(months_since_1970: i64) -> Option<i128> {
    let year = i32::try_from(1970 + months_since_1970.div_euclid(12)).ok()?;
    let month = u32::try_from(months_since_1970.rem_euclid(12)).ok()? + 1;
    let days = NaiveDate::from_ymd_opt(year, month, 1)?.signed_duration_since(NaiveDate::default()).num_days();
    Some(i128::from(days) * MICROS_PER_DAY)
}

fn instant(micros: i128, to: &DataType) -> Option<ScalarValue> {
    Some(match to {
        DataType::Date32 => ScalarValue::Date32(Some(i32::try_from(micros.div_euclid(MICROS_PER_DAY)).ok()?)),
        DataType::Timestamp(TimeUnit::Microsecond, tz) => {
            ScalarValue::TimestampMicrosecond(Some(i64::try_from(micros).ok()?), tz.clone())
        }
        DataType::Timestamp(TimeUnit::Nanosecond, tz) => {
            ScalarValue::TimestampNanosecond(Some(i64::try_from(micros.checked_mul(1000)?).ok()?), tz.clone())
        }
        _ => return None,
    })
}

fn truncated_max(value: ScalarValue, width: u32) -> Option<ScalarValue> {
    let more = width.checked_sub(1)?;
    Some(match value {
        ScalarValue::Int32(Some(v)) => ScalarValue::Int32(Some(v.saturating_add_unsigned(more))),
        ScalarValue::Int64(Some(v)) => ScalarValue::Int64(Some(v.saturating_add(i64::from(more)))),
        ScalarValue::Decimal128(Some(v), p, s) => {
            ScalarValue::Decimal128(Some(v.saturating_add(i128::from(more))), p, s)
        }
        ScalarValue::Utf8(Some(v)) => ScalarValue::Utf8(Some(after_prefix(&v)?)),
        ScalarValue::LargeUtf8(Some(v)) => ScalarValue::LargeUtf8(Some(after_prefix(&v)?)),
        ScalarValue::Utf8View(Some(v)) => ScalarValue::Utf8View(Some(after_prefix(&v)?)),
        ScalarValue::Binary(Some(v)) => ScalarValue::Binary(Some(after_prefix_bytes(v)?)),
        ScalarValue::LargeBinary(Some(v)) => ScalarValue::LargeBinary(Some(after_prefix_bytes(v)?)),
        _ => return None,
    })
}

/// A text above every text that begins with `prefix`.
fn after_prefix(prefix: &str) -> Option<String> {
    let mut chars: Vec<char> = prefix.chars().collect();
    while let Some(last) = chars.pop() {
        let next = match last {
            '\u{D7FF}' => Some('\u{E000}'),
            char::MAX => None,
            other => char::from_u32(u32::from(other) + 1),
        };
        if let Some(next) = next {
            chars.push(next);
            return Some(chars.into_iter().collect());
        }
    }
    None
}

fn after_prefix_bytes(mut prefix: Vec<u8>) -> Option<Vec<u8>> {
    while let Some(last) = prefix.pop() {
        if last < u8::MAX {
            prefix.push(last + 1);
            return Some(prefix);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use std::sync::Arc;

    use arrow::array::{ArrayRef, AsArray, Int64Array, StringArray, TimestampMicrosecondArray};
    use iceberg::spec::Datum;
    use proptest::prelude::*;

    use super::*;

    fn partition_value(transform: Transform, column: ArrayRef, row: usize) -> PrimitiveLiteral {
        let out = create_transform_function(&transform).unwrap().transform(column).unwrap();
        match ScalarValue::try_from_array(&out, row).unwrap() {
            ScalarValue::Int32(Some(v)) | ScalarValue::Date32(Some(v)) => Datum::int(v).literal().clone(),
            ScalarValue::Int64(Some(v)) => Datum::long(v).literal().clone(),
            ScalarValue::Utf8(Some(v)) => Datum::string(v).literal().clone(),
            other => panic!("{other:?}"),
        }
    }

    fn check(transform: Transform, column: ArrayRef) {
        for row in 0..column.len() {
            let value = ScalarValue::try_from_array(&column, row).unwrap();
            let p = partition_value(transform, column.clone(), row);
            if let Some(min) = source_min(transform, &p, column.data_type()) {
                assert!(min <= value, "{transform}: {min} > {value}");
            }
            if let Some(max) = source_max(transform, &p, column.data_type()) {
                assert!(max >= value, "{transform}: {max} < {value}");
            }
        }
    }

    proptest! {
        #[test]
        fn times_lie_within_the_range_of_their_unit(v in -4_000_000_000_000_000i64..4_000_000_000_000_000) {
            let column: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![v]));
            for transform in [Transform::Year, Transform::Month, Transform::Day, Transform::Hour] {
                check(transform, column.clone());
            }
        }

        #[test]
        fn numbers_lie_within_the_range_of_their_truncation(v: i64, width in 1u32..1000) {
            check(Transform::Truncate(width), Arc::new(Int64Array::from(vec![v.clamp(i64::MIN + 2000, i64::MAX)])));
        }

        #[test]
        fn texts_lie_within_the_range_of_their_truncation(v in "\\PC{0,6}", width in 1u32..5) {
            check(Transform::Truncate(width), Arc::new(StringArray::from(vec![v])));
        }
    }

    #[test]
    fn a_day_is_one_day_long() {
        let column = DataType::Timestamp(TimeUnit::Microsecond, None);
        let day = Datum::int(20_000).literal().clone();
        let start = 20_000 * 86_400_000_000i64;
        assert_eq!(
            source_min(Transform::Day, &day, &column),
            Some(ScalarValue::TimestampMicrosecond(Some(start), None))
        );
        assert_eq!(
            source_max(Transform::Day, &day, &column),
            Some(ScalarValue::TimestampMicrosecond(Some(start + 86_400_000_000 - 1), None))
        );
    }

    #[test]
    fn hostile_values_have_no_range() {
        let column = DataType::Timestamp(TimeUnit::Microsecond, None);
        let value = Datum::int(i32::MAX).literal().clone();
        assert_eq!(source_min(Transform::Year, &value, &column), None);
        assert_eq!(source_max(Transform::Truncate(0), &value, &DataType::Int32), None);
        assert_eq!(
            source_max(Transform::Truncate(9), &value, &DataType::Int32),
            Some(ScalarValue::Int32(Some(i32::MAX)))
        );
    }

    #[test]
    fn buckets_are_those_of_the_writer() {
        let column: ArrayRef = Arc::new(StringArray::from(vec!["a", "b"]));
        let written = create_transform_function(&Transform::Bucket(16)).unwrap().transform(column).unwrap();
        let written: Vec<i32> = written.as_primitive::<arrow::datatypes::Int32Type>().values().to_vec();
        let asked = buckets(16, &[ScalarValue::from("a"), ScalarValue::from("b")], &DataType::Utf8).unwrap();
        assert_eq!(asked, written);
        assert_eq!(buckets(16, &[ScalarValue::Utf8(None)], &DataType::Utf8), None);
        assert_eq!(buckets(16, &[ScalarValue::Int32(Some(1))], &DataType::Int64), None);
    }
}
