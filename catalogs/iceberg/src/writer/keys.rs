use std::sync::Arc;

use arrow::array::{Array, ArrayRef};
use arrow::compute::SortOptions;
use arrow::datatypes::DataType;
use arrow::row::{RowConverter, SortField};
use iceberg::arrow::type_to_arrow_type;
use iceberg::spec::{NullOrder, SortDirection, SortOrder, TableMetadata, Transform};
use iceberg::transform::{BoxedTransformFunction, create_transform_function};
use tidewater_catalogs::{Error, Result};

use super::curve::Curve;
use super::split::plain;
use crate::error;

/// By what rows are sorted, the most significant first.
#[derive(Default)]
pub(crate) struct Keys(Vec<Key>);

struct Key {
    value: Value,
    options: SortOptions,
    data_type: DataType,
}

enum Value {
    /// A column of the table, as it is.
    Column(usize),
    Transformed(usize, BoxedTransformFunction),
    Curve(Curve),
}

impl Keys {
    /// Rows of a partition lie together.
    pub(super) fn of_partitions(metadata: &TableMetadata) -> Result<Self> {
        let options = SortOptions { descending: false, nulls_first: true };
        // What is void has one value.
        let fields = metadata.default_partition_spec().fields().iter().filter(|f| f.transform != Transform::Void);
        let keys = fields.map(|field| {
            Key::new(metadata, field.source_id, field.transform, options)?.ok_or_else(|| {
                Error::unsupported(format!("partition field \"{}\" reads a nested or dropped column", field.name))
            })
        });
        keys.collect::<Result<_>>().map(Self)
    }

    /// None where nothing is sorted by it, or what it sorts by is not known here: an order is no promise that all rows
    /// of a table keep.
    pub(crate) fn of_order(metadata: &TableMetadata, order: &SortOrder) -> Result<Option<Self>> {
        if order.is_unsorted() {
            return Ok(None);
        }
        let mut keys = Vec::with_capacity(order.fields.len());
        for field in &order.fields {
            let options = SortOptions {
                descending: field.direction == SortDirection::Descending,
                nulls_first: field.null_order == NullOrder::First,
            };
            match Key::new(metadata, field.source_id, field.transform, options)? {
                Some(key) => keys.push(key),
                None => return Ok(None),
            }
        }
        Ok(Some(Self(keys)))
    }

    pub(crate) fn along(curve: Curve) -> Self {
        let options = SortOptions { descending: false, nulls_first: true };
        Self(vec![Key { value: Value::Curve(curve), options, data_type: DataType::Binary }])
    }

    pub(super) fn then(mut self, others: Self) -> Self {
        self.0.extend(others.0);
        self
    }

    /// For each key: the column of the table that it is, or its values.
    pub(super) fn values(&self, columns: &[ArrayRef]) -> Result<Vec<KeyValue>> {
        self.0.iter().map(|key| key.value(columns)).collect()
    }

    /// Which of the keys are columns of the table.
    pub(super) fn sources(&self) -> impl Iterator<Item = Option<usize>> {
        self.0.iter().map(|key| match key.value {
            Value::Column(column) => Some(column),
            _ => None,
        })
    }

    pub(super) fn options(&self) -> impl Iterator<Item = (SortOptions, &DataType)> {
        self.0.iter().map(|key| (key.options, &key.data_type))
    }

    /// Rows as bytes that compare as the keys do.
    pub(super) fn converter(&self) -> Result<RowConverter> {
        let fields = self.options().map(|(options, to)| SortField::new_with_options(to.clone(), options));
        Ok(RowConverter::new(fields.collect())?)
    }

    /// What [`Self::converter`] takes.
    pub(super) fn arrays(&self, columns: &[ArrayRef]) -> Result<Vec<ArrayRef>> {
        let mut arrays = Vec::with_capacity(self.0.len());
        for (key, value) in self.0.iter().zip(self.values(columns)?) {
            let array = match value {
                KeyValue::Column(column) => plain(&columns[column])?,
                KeyValue::Made(array) => array,
            };
            arrays.push(to_type(array, &key.data_type)?);
        }
        Ok(arrays)
    }
}

pub(super) enum KeyValue {
    Column(usize),
    Made(ArrayRef),
}

impl Key {
    /// None where the source is nested or gone, or the transform has no values that could be compared.
    fn new(
        metadata: &TableMetadata,
        source_id: i32,
        transform: Transform,
        options: SortOptions,
    ) -> Result<Option<Self>> {
        let fields = metadata.current_schema().as_struct().fields();
        let Some(source) = fields.iter().position(|f| f.id == source_id) else { return Ok(None) };
        let made = match transform.result_type(&fields[source].field_type) {
            Ok(made) if made.is_primitive() && !matches!(transform, Transform::Void | Transform::Unknown) => made,
            _ => return Ok(None),
        };
        let data_type = match type_to_arrow_type(&made).map_err(|e| error::iceberg("sort the rows", e))? {
            DataType::LargeBinary => DataType::Binary,
            other => other,
        };
        let value = match transform {
            Transform::Identity => Value::Column(source),
            _ => {
                let function = create_transform_function(&transform).map_err(|e| error::iceberg("sort the rows", e))?;
                Value::Transformed(source, function)
            }
        };
        Ok(Some(Self { value, options, data_type }))
    }

    fn value(&self, columns: &[ArrayRef]) -> Result<KeyValue> {
        Ok(match &self.value {
            Value::Column(column) => KeyValue::Column(*column),
            Value::Transformed(source, function) => {
                let source = plain(&columns[*source])?;
                let made = function.transform(source).map_err(|e| error::iceberg("sort the rows", e))?;
                KeyValue::Made(to_type(made, &self.data_type)?)
            }
            Value::Curve(curve) => KeyValue::Made(curve.keys(columns)?),
        })
    }
}

fn to_type(array: ArrayRef, to: &DataType) -> Result<ArrayRef> {
    if array.data_type() == to { Ok(array) } else { Ok(arrow::compute::cast(&array, to)?) }
}

/// The columns in exactly the types that are given, views, dictionaries and widths of strings made alike.
pub(super) fn exact(columns: &[ArrayRef], schema: &arrow::datatypes::Schema) -> Result<Vec<ArrayRef>> {
    let pairs = columns.iter().zip(schema.fields());
    pairs.map(|(column, field)| to_type(Arc::clone(column), field.data_type())).collect()
}
