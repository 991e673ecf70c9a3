//! Columns of a query rewritten to columns of one file, by field id.

use std::any::Any;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::datatypes::{DataType, FieldRef, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{Result as DfResult, ScalarValue};
use datafusion::logical_expr::ColumnarValue;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{CastExpr, Column, Literal};
use datafusion::physical_expr_adapter::{PhysicalExprAdapter, PhysicalExprAdapterFactory};
use tidewater_catalogs::Error;

use super::adapt::{Adapt, STRICT, default_of, field_id, plan, with_field_ids};
use super::columns::ScanSchema;
use super::equality::EqualityPlan;
use super::keys::KeyExpr;

/// Makes the adapters of files. `constants` are the identity partition values of one file, by table column: they
/// stand in for columns that the file does not have.
#[derive(Debug)]
pub(super) struct FieldIdAdapterFactory {
    pub(super) schema: Arc<ScanSchema>,
    pub(super) constants: Arc<[(usize, ScalarValue)]>,
    /// Behind the table's columns.
    pub(super) keys: Arc<EqualityPlan>,
}

impl PhysicalExprAdapterFactory for FieldIdAdapterFactory {
    fn create(&self, _logical: SchemaRef, physical: SchemaRef) -> DfResult<Arc<dyn PhysicalExprAdapter>> {
        let file = with_field_ids(&self.schema, &physical)?;
        let (schema, constants, keys) = (self.schema.clone(), self.constants.clone(), self.keys.clone());
        Ok(Arc::new(FieldIdAdapter { schema, constants, keys, file }))
    }
}

#[derive(Debug)]
struct FieldIdAdapter {
    schema: Arc<ScanSchema>,
    constants: Arc<[(usize, ScalarValue)]>,
    keys: Arc<EqualityPlan>,
    /// As the reader gives it, with ids.
    file: SchemaRef,
}

impl PhysicalExprAdapter for FieldIdAdapter {
    fn rewrite(&self, expr: Arc<dyn PhysicalExpr>) -> DfResult<Arc<dyn PhysicalExpr>> {
        expr.transform_up(|node| match node.as_any().downcast_ref::<Column>() {
            Some(column) => Ok(Transformed::yes(self.column(column)?)),
            None => Ok(Transformed::no(node)),
        })
        .data()
    }
}

impl FieldIdAdapter {
    fn column(&self, column: &Column) -> Result<Arc<dyn PhysicalExpr>, Error> {
        if let Some(key) = self.keys.keys.iter().position(|key| key.name == column.name()) {
            return self.key(key);
        }
        let index = self.schema.arrow.index_of(column.name())?;
        let table = self.schema.arrow.field(index);
        let id = self.schema.field(index).id;
        let Some(position) = self.file.fields().iter().position(|f| field_id(f) == Some(id)) else {
            let value = match self.constant(index) {
                Some(value) => value,
                None => default_of(&self.schema, id, table.data_type())?,
            };
            return Ok(Arc::new(Literal::new(value)));
        };
        let file = self.file.field(position);
        let read: Arc<dyn PhysicalExpr> = Arc::new(Column::new(file.name(), position));
        Ok(match plan(&self.schema, table, file)? {
            Adapt::Keep => read,
            // The cast that DataFusion knows, so that it can prune through it.
            Adapt::Cast(to) => Arc::new(CastExpr::new(read, to, Some(STRICT))),
            adapt => Arc::new(AdaptExpr { input: read, adapt: Arc::new(adapt), table: Arc::new(table.clone()) }),
        })
    }
}

impl FieldIdAdapter {
    fn constant(&self, column: usize) -> Option<ScalarValue> {
        self.constants.iter().find(|(of, _)| *of == column).map(|(_, value)| value.clone())
    }

    fn key(&self, key: usize) -> Result<Arc<dyn PhysicalExpr>, Error> {
        let column = &self.keys.keys[key];
        Ok(match column.source(&self.file)? {
            Some(source) => {
                let read = Column::new(self.file.field(source.root).name(), source.root);
                Arc::new(KeyExpr::new(Arc::new(read), source, column))
            }
            None => {
                let value = self.constant(self.schema.arrow.fields().len() + key);
                Arc::new(Literal::new(value.unwrap_or_else(|| column.missing())))
            }
        })
    }
}

/// A nested column, brought into the table's shape.
#[derive(Debug, Clone, Eq)]
struct AdaptExpr {
    input: Arc<dyn PhysicalExpr>,
    adapt: Arc<Adapt>,
    table: FieldRef,
}

impl PartialEq for AdaptExpr {
    fn eq(&self, other: &Self) -> bool {
        self.input.eq(&other.input) && self.adapt == other.adapt && self.table == other.table
    }
}

impl Hash for AdaptExpr {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.input.hash(state);
        self.table.hash(state);
    }
}

impl fmt::Display for AdaptExpr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "by_field_id({} as {})", self.input, self.table.name())
    }
}

impl PhysicalExpr for AdaptExpr {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn data_type(&self, _input: &Schema) -> DfResult<DataType> {
        Ok(self.table.data_type().clone())
    }

    fn nullable(&self, _input: &Schema) -> DfResult<bool> {
        Ok(self.table.is_nullable())
    }

    fn return_field(&self, _input: &Schema) -> DfResult<FieldRef> {
        Ok(self.table.clone())
    }

    fn evaluate(&self, batch: &RecordBatch) -> DfResult<ColumnarValue> {
        let array = self.input.evaluate(batch)?.into_array(batch.num_rows())?;
        Ok(ColumnarValue::Array(self.adapt.apply(&array)?))
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        vec![&self.input]
    }

    fn with_new_children(self: Arc<Self>, mut children: Vec<Arc<dyn PhysicalExpr>>) -> DfResult<Arc<dyn PhysicalExpr>> {
        match (children.pop(), children.is_empty()) {
            (Some(input), true) => {
                Ok(Arc::new(AdaptExpr { input, adapt: self.adapt.clone(), table: self.table.clone() }))
            }
            _ => Err(Error::internal("expression needs one child").into()),
        }
    }

    fn fmt_sql(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
