use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int32Type, Int64Type, Time64MicrosecondType,
    TimeUnit, TimestampMicrosecondType,
};
use arrow::row::{RowConverter, SortField};
use iceberg::arrow::type_to_arrow_type;
use iceberg::spec::{Literal, PartitionSpec, PrimitiveLiteral, Schema, Struct, StructType, Transform};
use iceberg::transform::{BoxedTransformFunction, create_transform_function};
use tidewater_catalogs::{Error, Result};

use crate::error;

/// Splits batches by partition. A partition is known by its key: its values in a form that compares as bytes.
pub(super) struct Splitter {
    fields: Vec<PartitionColumn>,
    keys: RowConverter,
    /// Number of a key within one batch; kept to reuse its memory.
    numbers: HashMap<Box<[u8]>, u32>,
}

struct PartitionColumn {
    name: String,
    /// Which column of the table.
    source: usize,
    transform: BoxedTransformFunction,
    /// Nulls and only nulls become null; false for `void`.
    keeps_nulls: bool,
}

pub(super) struct Part {
    pub(super) key: Box<[u8]>,
    pub(super) values: Struct,
    pub(super) columns: Vec<ArrayRef>,
}

/// The partition that all these rows are in; none where they are in several.
pub(crate) fn only_part(
    spec: &PartitionSpec,
    schema: &Schema,
    partition_type: &StructType,
    columns: &[ArrayRef],
) -> Result<Option<Struct>> {
    let mut parts = Splitter::new(spec, schema, partition_type)?.split(columns)?;
    Ok(parts.pop().filter(|_| parts.is_empty()).map(|part| part.values))
}

impl Splitter {
    pub(super) fn new(spec: &PartitionSpec, schema: &Schema, partition_type: &StructType) -> Result<Self> {
        let mut fields = Vec::new();
        let mut sorts = Vec::new();
        for (field, typed) in spec.fields().iter().zip(partition_type.fields()) {
            let source = schema.as_struct().fields().iter().position(|f| f.id == field.source_id).ok_or_else(|| {
                Error::unsupported(format!("partition field \"{}\" reads a nested or dropped column", field.name))
            })?;
            let transform =
                create_transform_function(&field.transform).map_err(|e| error::iceberg("partition the rows", e))?;
            let keeps_nulls = field.transform != Transform::Void;
            fields.push(PartitionColumn { name: field.name.clone(), source, transform, keeps_nulls });
            let data_type =
                type_to_arrow_type(&typed.field_type).map_err(|e| error::iceberg("partition the rows", e))?;
            sorts.push(SortField::new(match data_type {
                DataType::LargeBinary => DataType::Binary,
                DataType::FixedSizeBinary(_) => {
                    return Err(Error::unsupported(format!(
                        "partition field \"{}\" has a fixed or uuid type",
                        field.name
                    )));
                }
                other => other,
            }));
        }
        let keys = RowConverter::new(sorts).map_err(Error::from)?;
        Ok(Self { fields, keys, numbers: HashMap::new() })
    }

    /// The rows of a batch, by partition. Rows of one partition keep their order.
    pub(super) fn split(&mut self, columns: &[ArrayRef]) -> Result<Vec<Part>> {
        let mut values = Vec::with_capacity(self.fields.len());
        for field in &self.fields {
            values.push(field.apply(&columns[field.source])?);
        }
        let rows = self.keys.convert_columns(&values)?;
        let count = rows.num_rows();

        // Which partition each row belongs to, in order of first appearance.
        self.numbers.clear();
        let mut firsts: Vec<usize> = Vec::new();
        let mut sizes: Vec<u32> = Vec::new();
        let mut numbers: Vec<u32> = Vec::with_capacity(count);
        let mut last: Option<(&[u8], u32)> = None;
        for index in 0..count {
            let key = rows.row(index).data();
            let number = match last {
                Some((same, number)) if same == key => number,
                _ => match self.numbers.get(key) {
                    Some(number) => *number,
                    None => {
                        let number = firsts.len() as u32;
                        self.numbers.insert(key.into(), number);
                        firsts.push(index);
                        sizes.push(0);
                        number
                    }
                },
            };
            last = Some((key, number));
            sizes[number as usize] += 1;
            numbers.push(number);
        }

        let order = Order::new(&sizes, &numbers);
        let mut parts = Vec::with_capacity(firsts.len());
        for (number, first) in firsts.iter().enumerate() {
            let values = self.fields.iter().zip(&values).map(|(field, array)| field.literal(array, *first));
            parts.push(Part {
                key: rows.row(*first).data().into(),
                values: values.collect::<Result<Vec<_>>>()?.into_iter().collect(),
                columns: order.pick(columns, number)?,
            });
        }
        Ok(parts)
    }
}

/// Row numbers, grouped by partition.
struct Order {
    rows: Vec<u32>,
    ranges: Vec<Range<usize>>,
}

impl Order {
    fn new(sizes: &[u32], numbers: &[u32]) -> Self {
        let mut start = 0;
        let mut ranges = Vec::with_capacity(sizes.len());
        for size in sizes {
            ranges.push(start..start + *size as usize);
            start += *size as usize;
        }
        let mut rows = vec![0; numbers.len()];
        let mut next: Vec<usize> = ranges.iter().map(|r| r.start).collect();
        for (row, number) in numbers.iter().enumerate() {
            let slot = &mut next[*number as usize];
            rows[*slot] = row as u32;
            *slot += 1;
        }
        Self { rows, ranges }
    }

    fn pick(&self, columns: &[ArrayRef], number: usize) -> Result<Vec<ArrayRef>> {
        let rows = &self.rows[self.ranges[number].clone()];
        let (first, last) = match (rows.first(), rows.last()) {
            (Some(first), Some(last)) => (*first as usize, *last as usize),
            _ => return Ok(columns.iter().map(|c| c.slice(0, 0)).collect()),
        };
        if last - first + 1 == rows.len() {
            return Ok(columns.iter().map(|c| c.slice(first, rows.len())).collect());
        }
        let indices = UInt32Array::from(rows.to_vec());
        columns.iter().map(|c| take(c, &indices, None).map_err(Error::from)).collect()
    }
}

impl PartitionColumn {
    fn apply(&self, source: &ArrayRef) -> Result<ArrayRef> {
        let source = plain(source)?;
        let nulls = source.null_count();
        let value = self.transform.transform(source).map_err(|e| error::iceberg("partition the rows", e))?;
        // A value that became null would hide in the partition of nulls, where no filter looks for it.
        if self.keeps_nulls && value.null_count() != nulls {
            return Err(Error::invalid(format!("a value is out of the range of partition field \"{}\"", self.name)));
        }
        Ok(value)
    }

    fn literal(&self, array: &ArrayRef, row: usize) -> Result<Option<Literal>> {
        if array.is_null(row) {
            return Ok(None);
        }
        let value = match array.data_type() {
            DataType::Boolean => PrimitiveLiteral::Boolean(array.as_boolean().value(row)),
            DataType::Int32 => PrimitiveLiteral::Int(array.as_primitive::<Int32Type>().value(row)),
            DataType::Date32 => PrimitiveLiteral::Int(array.as_primitive::<Date32Type>().value(row)),
            DataType::Int64 => PrimitiveLiteral::Long(array.as_primitive::<Int64Type>().value(row)),
            DataType::Time64(TimeUnit::Microsecond) => {
                PrimitiveLiteral::Long(array.as_primitive::<Time64MicrosecondType>().value(row))
            }
            DataType::Timestamp(TimeUnit::Microsecond, _) => {
                PrimitiveLiteral::Long(array.as_primitive::<TimestampMicrosecondType>().value(row))
            }
            DataType::Float32 => {
                return Ok(Some(Literal::float(array.as_primitive::<Float32Type>().value(row))));
            }
            DataType::Float64 => {
                return Ok(Some(Literal::double(array.as_primitive::<Float64Type>().value(row))));
            }
            DataType::Decimal128(_, _) => PrimitiveLiteral::Int128(array.as_primitive::<Decimal128Type>().value(row)),
            DataType::Utf8 => PrimitiveLiteral::String(array.as_string::<i32>().value(row).to_string()),
            DataType::Binary => PrimitiveLiteral::Binary(array.as_binary::<i32>().value(row).to_vec()),
            other => {
                return Err(Error::unsupported(format!("partition field \"{}\" has type {other}", self.name)));
            }
        };
        Ok(Some(Literal::Primitive(value)))
    }
}

/// The transforms know neither views nor dictionaries.
pub(crate) fn plain(array: &ArrayRef) -> Result<ArrayRef> {
    let to = match array.data_type() {
        DataType::Utf8View | DataType::LargeUtf8 => DataType::Utf8,
        DataType::BinaryView | DataType::LargeBinary => DataType::Binary,
        DataType::Dictionary(_, values) => match values.as_ref() {
            DataType::Utf8View | DataType::LargeUtf8 => DataType::Utf8,
            DataType::BinaryView | DataType::LargeBinary => DataType::Binary,
            other => other.clone(),
        },
        _ => return Ok(Arc::clone(array)),
    };
    Ok(arrow::compute::cast(array, &to)?)
}
