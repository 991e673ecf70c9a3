//! Columns that equality deletes compare, found by field id in delete files and data files alike.

use std::cmp::Reverse;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray};
use arrow::buffer::NullBuffer;
use arrow::compute::{cast_with_options, nullif};
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Float32Type, Float64Type, Schema};
use arrow::record_batch::RecordBatch;
use datafusion::common::{Result as DfResult, ScalarValue};
use datafusion::logical_expr::ColumnarValue;
use datafusion::physical_expr::PhysicalExpr;
use iceberg::arrow::type_to_arrow_type;
use iceberg::spec::{Literal, NestedFieldRef, SchemaRef, TableMetadata, Type};
use tidewater_catalogs::{Error, Result};

use super::adapt::{STRICT, field_id, is_promotion};
use super::error::{corrupt, from_iceberg};
use super::values::scalar_or_null;

/// One column that rows are compared by: what the table says of it. Plain data.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct KeyColumn {
    pub(super) id: i32,
    /// Its name among the columns of the scan, where it stands behind those of the table.
    pub(super) name: String,
    /// The widest type that it ever had.
    pub(super) data_type: DataType,
    /// From the top-level column down to the key itself: the field, and what rows have as key where a file does not
    /// have that field.
    path: Vec<(i32, ScalarValue)>,
}

impl KeyColumn {
    /// `id` may be of a column that the table no longer has: it still counts. `scan` is what the table shows.
    pub(super) fn of(metadata: &TableMetadata, scan: &Schema, id: i32) -> Result<KeyColumn> {
        let mut schemas: Vec<&SchemaRef> = metadata.schemas_iter().collect();
        schemas.sort_by_key(|s| Reverse((s.schema_id() == metadata.current_schema_id(), s.schema_id())));
        let mut newest = None;
        let mut data_type: Option<DataType> = None;
        for schema in schemas {
            if schema.field_by_id(id).is_none() {
                continue;
            }
            let mut path = Vec::new();
            let found = find(schema.as_struct().fields(), id, &mut path);
            let Some(leaf) = path.last().filter(|leaf| found && leaf.field_type.is_primitive()) else {
                return Err(refused(id, "equality deletes compare a column that is no single value"));
            };
            let here = type_to_arrow_type(&leaf.field_type).map_err(from_iceberg)?;
            data_type = Some(match data_type {
                Some(wider) if !is_promotion(&wider, &here) => wider,
                _ => here,
            });
            newest.get_or_insert(path);
        }
        let (Some(path), Some(data_type)) = (newest, data_type) else {
            return Err(refused(id, "equality deletes compare a column that no schema of the table has"));
        };
        let mut levels = Vec::with_capacity(path.len());
        let mut missing = ScalarValue::try_new_null(&data_type)?;
        for (depth, field) in path.iter().enumerate().rev() {
            missing = match &field.initial_default {
                default if depth + 1 == path.len() => scalar_or_null(default.as_ref(), &data_type)
                    .ok_or_else(|| refused(id, "default value of a column cannot be read"))?,
                // A struct that is there by default has the defaults of its fields.
                Some(Literal::Struct(_)) => missing,
                _ => ScalarValue::try_new_null(&data_type)?,
            };
            levels.push((field.id, missing.clone()));
        }
        levels.reverse();
        let mut name = format!("equality key {id}");
        while scan.index_of(&name).is_ok() {
            name.push('\'');
        }
        Ok(KeyColumn { id, name, data_type, path: levels })
    }

    pub(super) fn field(&self) -> Field {
        Field::new(&self.name, self.data_type.clone(), true)
    }

    pub(super) fn is_top_level(&self) -> bool {
        self.path.len() == 1
    }

    /// The key of rows in a file that has nothing of the column.
    pub(super) fn missing(&self) -> ScalarValue {
        match self.path.first() {
            Some((_, value)) => value.clone(),
            None => ScalarValue::Null,
        }
    }

    /// Where the key is in a file whose fields carry ids. `None` where not even the struct is there that would hold it.
    pub(super) fn source(&self, file: &Schema) -> Result<Option<KeySource>> {
        if let Some((root, below, leaf)) = find_in_file(file.fields(), self.id) {
            let from = leaf.data_type();
            if *from != self.data_type && !is_promotion(from, &self.data_type) {
                return Err(Error::unsupported("column that equality deletes compare has another type in a file")
                    .with_context("column", leaf.name())
                    .with_context("table type", &self.data_type)
                    .with_context("file type", from));
            }
            return Ok(Some(KeySource { root, below, value: None, data_type: self.data_type.clone() }));
        }
        for pair in self.path.windows(2).rev() {
            let ([(parent, _), (_, missing)], data_type) = (pair, self.data_type.clone()) else { continue };
            if let Some((root, below, _)) = find_in_file(file.fields(), *parent) {
                return Ok(Some(KeySource { root, below, value: Some(missing.clone()), data_type }));
            }
        }
        Ok(None)
    }
}

fn refused(id: i32, message: &str) -> Error {
    Error::unsupported(message)
        .with_hint("Rewrite the table's data files with the engine that wrote the deletes.")
        .with_context("field id", id)
}

/// Through structs only: what is in a list or map has no one value per row.
fn find<'a>(fields: &'a [NestedFieldRef], id: i32, path: &mut Vec<&'a NestedFieldRef>) -> bool {
    for field in fields {
        path.push(field);
        let below = match field.field_type.as_ref() {
            Type::Struct(inner) => find(inner.fields(), id, path),
            _ => false,
        };
        if field.id == id || below {
            return true;
        }
        path.pop();
    }
    false
}

fn find_in_file(fields: &Fields, id: i32) -> Option<(usize, Vec<usize>, &Field)> {
    fields.iter().enumerate().find_map(|(position, field)| {
        if field_id(field) == Some(id) {
            return Some((position, Vec::new(), field.as_ref()));
        }
        let DataType::Struct(inner) = field.data_type() else { return None };
        let (next, mut below, found) = find_in_file(inner, id)?;
        below.insert(0, next);
        Some((position, below, found))
    })
}

/// How keys come from a top-level column of a file.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct KeySource {
    pub(super) root: usize,
    /// Positions of the fields below it, one a level.
    below: Vec<usize>,
    /// Given where the file has the struct around the key, and not the key.
    value: Option<ScalarValue>,
    data_type: DataType,
}

impl KeySource {
    /// True where the file has the key itself.
    pub(super) fn is_whole(&self) -> bool {
        self.value.is_none()
    }

    /// Keys in the form that is compared: of the key's type, null where a struct around it is, all NaN alike.
    pub(super) fn apply(&self, root: &ArrayRef) -> arrow::error::Result<ArrayRef> {
        let mut nulls: Option<NullBuffer> = None;
        let mut array = root.clone();
        for position in &self.below {
            let parent = array.as_struct_opt().ok_or_else(|| {
                arrow::error::ArrowError::SchemaError("column of a file is no struct, against its schema".to_owned())
            })?;
            nulls = NullBuffer::union(nulls.as_ref(), parent.nulls());
            array = parent.column(*position).clone();
        }
        if let Some(value) = &self.value {
            nulls = NullBuffer::union(nulls.as_ref(), array.nulls());
            array = value
                .to_array_of_size(root.len())
                .map_err(|e| arrow::error::ArrowError::ComputeError(e.to_string()))?;
        }
        if array.data_type() != &self.data_type {
            array = cast_with_options(&array, &self.data_type, &STRICT)?;
        }
        if let Some(nulls) = nulls.filter(|n| n.null_count() > 0) {
            array = nullif(&array, &BooleanArray::new(!nulls.inner(), None))?;
        }
        Ok(match &self.data_type {
            DataType::Float32 => Arc::new(
                array.as_primitive::<Float32Type>().unary::<_, Float32Type>(|v| if v.is_nan() { f32::NAN } else { v }),
            ),
            DataType::Float64 => Arc::new(
                array.as_primitive::<Float64Type>().unary::<_, Float64Type>(|v| if v.is_nan() { f64::NAN } else { v }),
            ),
            _ => array,
        })
    }
}

/// Keys of one data file, beside its columns.
#[derive(Debug, Clone, Eq)]
pub(super) struct KeyExpr {
    input: Arc<dyn PhysicalExpr>,
    source: Arc<KeySource>,
    field: FieldRef,
}

impl KeyExpr {
    /// `input` is the column at the source's `root`.
    pub(super) fn new(input: Arc<dyn PhysicalExpr>, source: KeySource, key: &KeyColumn) -> Self {
        Self { input, source: Arc::new(source), field: Arc::new(key.field()) }
    }
}

impl PartialEq for KeyExpr {
    fn eq(&self, other: &Self) -> bool {
        self.input.eq(&other.input) && self.source == other.source && self.field == other.field
    }
}

impl Hash for KeyExpr {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.input.hash(state);
        self.source.hash(state);
    }
}

impl fmt::Display for KeyExpr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "equality_key({})", self.input)
    }
}

impl PhysicalExpr for KeyExpr {
    fn as_any(&self) -> &dyn std::any::Any {
        self
    }

    fn data_type(&self, _input: &Schema) -> DfResult<DataType> {
        Ok(self.field.data_type().clone())
    }

    fn nullable(&self, _input: &Schema) -> DfResult<bool> {
        Ok(true)
    }

    fn return_field(&self, _input: &Schema) -> DfResult<FieldRef> {
        Ok(self.field.clone())
    }

    fn evaluate(&self, batch: &RecordBatch) -> DfResult<ColumnarValue> {
        let root = self.input.evaluate(batch)?.into_array(batch.num_rows())?;
        Ok(ColumnarValue::Array(self.source.apply(&root)?))
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        vec![&self.input]
    }

    fn with_new_children(self: Arc<Self>, mut children: Vec<Arc<dyn PhysicalExpr>>) -> DfResult<Arc<dyn PhysicalExpr>> {
        match (children.pop(), children.is_empty()) {
            (Some(input), true) => {
                Ok(Arc::new(KeyExpr { input, source: self.source.clone(), field: self.field.clone() }))
            }
            _ => Err(Error::internal("expression needs one child").into()),
        }
    }

    fn fmt_sql(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A delete file has all columns that it compares.
pub(super) fn whole_source(key: &KeyColumn, file: &Schema, location: &str) -> Result<KeySource> {
    key.source(file)?.filter(KeySource::is_whole).ok_or_else(|| {
        corrupt("delete file lacks a column that it compares")
            .with_context("file", location)
            .with_context("field id", key.id)
    })
}
