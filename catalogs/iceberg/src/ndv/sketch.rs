use std::hash::{Hash, Hasher};

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int32Type, Int64Type,
    Time64MicrosecondType, TimeUnit, TimestampMicrosecondType, TimestampNanosecondType,
};
use datasketches::theta::{ThetaSketch, ThetaSketchBuilder};
use tidewater_catalogs::{Error, Result};

/// Hashes that are kept, as a power of two: what others keep, and an error of some 1.5 %.
const LG_K: u8 = 12;

/// The distinct values of a column.
pub(super) struct Sketch {
    pub(super) field_id: i32,
    sketch: ThetaSketch,
}

/// Bytes as they are hashed elsewhere: without their length.
struct Plain<'a>(&'a [u8]);

impl Hash for Plain<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write(self.0);
    }
}

impl Sketch {
    pub(super) fn new(field_id: i32) -> Result<Self> {
        let sketch = ThetaSketchBuilder::default().lg_k(LG_K).build();
        let sketch = sketch.map_err(|e| Error::internal("cannot count distinct values").with_source(e))?;
        Ok(Self { field_id, sketch })
    }

    /// Values in the bytes of Iceberg's "Single-value serialization"; nulls do not count.
    pub(super) fn add(&mut self, column: &ArrayRef) -> Result<()> {
        let column = crate::writer::plain(column)?;
        match column.data_type() {
            DataType::Boolean => {
                column.as_boolean().iter().flatten().for_each(|v| self.value(&[u8::from(v)]));
            }
            DataType::Int32 => self.numbers::<Int32Type, 4>(&column, i32::to_le_bytes),
            DataType::Date32 => self.numbers::<Date32Type, 4>(&column, i32::to_le_bytes),
            DataType::Int64 => self.numbers::<Int64Type, 8>(&column, i64::to_le_bytes),
            DataType::Time64(TimeUnit::Microsecond) => {
                self.numbers::<Time64MicrosecondType, 8>(&column, i64::to_le_bytes);
            }
            DataType::Timestamp(TimeUnit::Microsecond, _) => {
                self.numbers::<TimestampMicrosecondType, 8>(&column, i64::to_le_bytes);
            }
            DataType::Timestamp(TimeUnit::Nanosecond, _) => {
                self.numbers::<TimestampNanosecondType, 8>(&column, i64::to_le_bytes);
            }
            DataType::Float32 => self.numbers::<Float32Type, 4>(&column, f32::to_le_bytes),
            DataType::Float64 => self.numbers::<Float64Type, 8>(&column, f64::to_le_bytes),
            DataType::Decimal128(..) => {
                for value in column.as_primitive::<Decimal128Type>().iter().flatten() {
                    let bytes = value.to_be_bytes();
                    self.value(shortest(&bytes));
                }
            }
            DataType::Utf8 => column.as_string::<i32>().iter().flatten().for_each(|v| self.value(v.as_bytes())),
            DataType::Binary => column.as_binary::<i32>().iter().flatten().for_each(|v| self.value(v)),
            DataType::FixedSizeBinary(_) => {
                column.as_fixed_size_binary().iter().flatten().for_each(|v| self.value(v));
            }
            other => return Err(Error::unsupported(format!("distinct values of type {other} are not counted"))),
        }
        Ok(())
    }

    fn numbers<T: ArrowPrimitiveType, const N: usize>(&mut self, column: &ArrayRef, bytes: fn(T::Native) -> [u8; N]) {
        column.as_primitive::<T>().iter().flatten().for_each(|value| self.value(&bytes(value)));
    }

    fn value(&mut self, bytes: &[u8]) {
        // Others pass empty ones over.
        if !bytes.is_empty() {
            self.sketch.update(Plain(bytes));
        }
    }

    pub(super) fn estimate(&self) -> u64 {
        self.sketch.estimate().round() as u64
    }

    /// The compact, ordered form.
    pub(super) fn bytes(&self) -> Vec<u8> {
        self.sketch.compact(true).serialize()
    }
}

/// The fewest bytes that are the same number in two's complement.
fn shortest(bytes: &[u8; 16]) -> &[u8] {
    let negative = bytes[0] & 0x80 != 0;
    let filler = if negative { 0xff } else { 0 };
    let needless = |i: usize| bytes[i] == filler && (bytes[i + 1] & 0x80 != 0) == negative;
    let begin = (0..15).find(|i| !needless(*i)).unwrap_or(15);
    &bytes[begin..]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use std::sync::Arc;

    use arrow::array::{Int64Array, StringViewArray};

    use super::*;

    #[test]
    fn distinct_values_are_counted() {
        let mut sketch = Sketch::new(1).unwrap();
        for _ in 0..3 {
            let column: ArrayRef = Arc::new(Int64Array::from_iter((0..2000).map(|i| (i % 10 != 0).then_some(i))));
            sketch.add(&column).unwrap();
        }
        assert_eq!(sketch.estimate(), 1800);
        let many: ArrayRef = Arc::new(Int64Array::from_iter_values(0..1_000_000));
        sketch.add(&many).unwrap();
        assert!(sketch.estimate().abs_diff(1_000_000) < 50_000, "{}", sketch.estimate());
        let mut texts = Sketch::new(2).unwrap();
        let column: ArrayRef = Arc::new(StringViewArray::from(vec![Some("a"), Some(""), None, Some("b"), Some("a")]));
        texts.add(&column).unwrap();
        assert_eq!(texts.estimate(), 2);
    }

    #[test]
    fn decimals_are_as_short_as_they_can_be() {
        for (value, expected) in [
            (0, vec![0]),
            (127, vec![127]),
            (128, vec![0, 128]),
            (-1, vec![255]),
            (-128, vec![128]),
            (-129, vec![255, 127]),
        ] {
            assert_eq!(shortest(&i128::to_be_bytes(value)), expected, "{value}");
        }
        assert_eq!(shortest(&i128::MIN.to_be_bytes()).len(), 16);
    }

    #[test]
    fn hashes_are_those_of_other_libraries() {
        // MurmurHash3 of eight bytes with seed 9001, shifted by one, as Java's sketches have it.
        let mut sketch = Sketch::new(1).unwrap();
        sketch.value(&1_i64.to_le_bytes());
        let mut typed = ThetaSketchBuilder::default().lg_k(LG_K).build().unwrap();
        typed.update(1_i64);
        let hashes = |sketch: &ThetaSketch| sketch.compact(true).serialize();
        assert_eq!(hashes(&sketch.sketch), hashes(&typed));
    }
}
