//! The order in which rows lie within a file. (Iceberg spec, "Sorting".)

use iceberg::spec::{
    NullOrder, PrimitiveType, Schema, SortDirection, SortField as IcebergSortField, SortOrder, TableMetadata,
    Transform as IcebergTransform, Type,
};
use tidewater_catalogs::{Error, PartitionField, Result, SortField, Transform};

use crate::error;
use crate::new_table::transform_of;

/// The order, as the table has it or gives it a number.
pub(crate) fn sort_order(schema: &Schema, fields: &[SortField]) -> Result<SortOrder> {
    let mut order = SortOrder::builder();
    let mut seen: Vec<(i32, IcebergTransform)> = Vec::new();
    for field in fields {
        let column = &field.field.column;
        let source = schema
            .as_struct()
            .field_by_name(column)
            .ok_or_else(|| Error::not_found(format!("column \"{column}\" does not exist")))?;
        let transform = transform_of(field.field.transform);
        if matches!(field.field.transform, Transform::Bucket(0) | Transform::Truncate(0)) {
            return Err(Error::invalid(format!("the number of sort column \"{column}\" is 0")));
        }
        let fits = source.field_type.is_primitive()
            && transform.result_type(&source.field_type).is_ok()
            && !(transform == IcebergTransform::Hour
                && matches!(source.field_type.as_ref(), Type::Primitive(PrimitiveType::Date)));
        if !fits {
            return Err(Error::invalid(match transform {
                IcebergTransform::Identity => {
                    format!("rows cannot be sorted by column \"{column}\" of type {}", source.field_type)
                }
                _ => format!(
                    "transform {transform} cannot be applied to column \"{column}\" of type {}",
                    source.field_type
                ),
            }));
        }
        if seen.contains(&(source.id, transform)) {
            return Err(Error::invalid(format!("rows are sorted by column \"{column}\" twice")));
        }
        seen.push((source.id, transform));
        order.with_sort_field(
            IcebergSortField::builder()
                .source_id(source.id)
                .transform(transform)
                .direction(if field.descending { SortDirection::Descending } else { SortDirection::Ascending })
                .null_order(if field.nulls_first { NullOrder::First } else { NullOrder::Last })
                .build(),
        );
    }
    order.build(schema).map_err(|e| error::iceberg("make the sort order", e))
}

/// As SQL says it; empty where SQL has no words for some of it (nested columns, transforms that are not known).
pub(crate) fn sort_fields(metadata: &TableMetadata) -> Vec<SortField> {
    let schema = metadata.current_schema();
    let fields = metadata.default_sort_order().fields.iter().map(|field| {
        let transform = transform_name(field.transform)?;
        let column = schema.as_struct().fields().iter().find(|f| f.id == field.source_id)?.name.clone();
        Some(SortField {
            field: PartitionField { column, transform },
            descending: field.direction == SortDirection::Descending,
            nulls_first: field.null_order == NullOrder::First,
        })
    });
    fields.collect::<Option<_>>().unwrap_or_default()
}

/// As SQL says it; none where it has no word for it.
pub(crate) fn transform_name(transform: IcebergTransform) -> Option<Transform> {
    Some(match transform {
        IcebergTransform::Identity => Transform::Identity,
        IcebergTransform::Bucket(n) => Transform::Bucket(n),
        IcebergTransform::Truncate(n) => Transform::Truncate(n),
        IcebergTransform::Year => Transform::Year,
        IcebergTransform::Month => Transform::Month,
        IcebergTransform::Day => Transform::Day,
        IcebergTransform::Hour => Transform::Hour,
        IcebergTransform::Void | IcebergTransform::Unknown => return None,
    })
}
