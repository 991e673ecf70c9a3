//! The columns that a scan shows, and where they stand in partition specs.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Schema, SchemaRef};
use iceberg::spec::{
    DEFAULT_SCHEMA_NAME_MAPPING, NameMapping, NestedFieldRef, PartitionSpec, PrimitiveType,
    SchemaRef as IcebergSchemaRef, Snapshot, TableMetadata, Transform, Type,
};
use parquet::arrow::PARQUET_FIELD_ID_META_KEY;
use tidewater_catalogs::Result;

use super::error::{corrupt, from_iceberg};
use crate::lineage;
use crate::schema::to_arrow;
use crate::state::TableState;

/// Top-level columns, in order; position in `arrow` and in `fields` is the same.
#[derive(Debug)]
pub(super) struct ScanSchema {
    /// Every field, nested ones too, carries its id.
    pub(super) arrow: SchemaRef,
    pub(super) iceberg: IcebergSchemaRef,
    by_id: HashMap<i32, usize>,
    /// For files that were written without field ids.
    pub(super) names: Option<NameMapping>,
}

impl ScanSchema {
    /// The table's current columns, or for time travel the columns at that snapshot.
    pub(super) fn of(state: &TableState, past: Option<&Snapshot>) -> Result<ScanSchema> {
        let metadata: &TableMetadata = &state.metadata;
        let (iceberg, arrow) = match past {
            Some(snapshot) => {
                let schema = snapshot.schema(metadata).map_err(from_iceberg)?;
                let arrow = Arc::new(to_arrow(&schema)?);
                (schema, arrow)
            }
            None => {
                let schema = metadata.current_schema().clone();
                let arrow = if ids_agree(&state.arrow_schema, schema.as_struct().fields()) {
                    state.arrow_schema.clone()
                } else {
                    Arc::new(to_arrow(&schema)?)
                };
                (schema, arrow)
            }
        };
        Self::new(metadata, iceberg, arrow)
    }

    /// The table's current columns, and behind them those of the rows' lineage.
    pub(super) fn with_lineage(state: &TableState) -> Result<ScanSchema> {
        let iceberg = Arc::new(lineage::with_columns(state.metadata.current_schema())?);
        let arrow = Arc::new(to_arrow(&iceberg)?);
        Self::new(&state.metadata, iceberg, arrow)
    }

    fn new(metadata: &TableMetadata, iceberg: IcebergSchemaRef, arrow: SchemaRef) -> Result<ScanSchema> {
        let by_id = iceberg.as_struct().fields().iter().enumerate().map(|(i, f)| (f.id, i)).collect();
        let names = match metadata.properties().get(DEFAULT_SCHEMA_NAME_MAPPING) {
            Some(json) => Some(serde_json::from_str(json).map_err(|e| {
                corrupt("name mapping of the table cannot be read")
                    .with_context("property", DEFAULT_SCHEMA_NAME_MAPPING)
                    .with_source(e)
            })?),
            None => None,
        };
        Ok(ScanSchema { arrow, iceberg, by_id, names })
    }

    pub(super) fn field(&self, column: usize) -> &NestedFieldRef {
        &self.iceberg.as_struct().fields()[column]
    }

    pub(super) fn data_type(&self, column: usize) -> &DataType {
        self.arrow.field(column).data_type()
    }

    /// Such a column shows texts. Of its values in files, bounds and buckets say nothing about those.
    pub(super) fn is_uuid(&self, column: usize) -> bool {
        matches!(self.field(column).field_type.as_ref(), Type::Primitive(PrimitiveType::Uuid))
    }

    pub(super) fn column_of(&self, field_id: i32) -> Option<usize> {
        self.by_id.get(&field_id).copied()
    }
}

fn ids_agree(arrow: &Schema, fields: &[NestedFieldRef]) -> bool {
    arrow.fields().len() == fields.len()
        && arrow.fields().iter().zip(fields).all(|(a, f)| {
            a.metadata().get(PARQUET_FIELD_ID_META_KEY).is_some_and(|id| *id == f.id.to_string()) && a.name() == &f.name
        })
}

/// A partition field whose source column the scan shows.
#[derive(Debug, Clone)]
pub(super) struct SpecField {
    /// Position in the partition tuple.
    pub(super) position: usize,
    pub(super) column: usize,
    pub(super) transform: Transform,
    /// Type of the partition value.
    pub(super) result: Type,
}

/// What is known of one partition spec. Fields over dropped or nested columns say nothing about the scan's columns.
pub(super) fn spec_fields(schema: &ScanSchema, spec: &PartitionSpec) -> Vec<SpecField> {
    let usable = |(position, field): (usize, &iceberg::spec::PartitionField)| {
        if matches!(field.transform, Transform::Void | Transform::Unknown) {
            return None;
        }
        let column = schema.column_of(field.source_id)?;
        if schema.is_uuid(column) && field.transform != Transform::Identity {
            return None;
        }
        let result = field.transform.result_type(&schema.field(column).field_type).ok()?;
        Some(SpecField { position, column, transform: field.transform, result })
    };
    spec.fields().iter().enumerate().filter_map(usable).collect()
}
