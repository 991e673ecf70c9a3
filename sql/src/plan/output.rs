//! How results leave: names for people, types that the protocols know.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, TimeUnit};
use datafusion::common::DFSchema;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, cast};

use super::types::timestamptz;
use crate::ResultColumn;
use crate::error::Result;

/// Behind this sign stands what makes one of several equal names unique inside the plan.
pub(crate) const UNIQUE: char = '\u{1}';

/// The name without what makes it unique.
pub(crate) fn display_name(name: &str) -> &str {
    name.split(UNIQUE).next().unwrap_or(name)
}

/// The type in which values of `found` leave, where it is another one.
pub(crate) fn wire_type(found: &DataType) -> Option<DataType> {
    Some(match found {
        DataType::Null | DataType::Utf8View | DataType::LargeUtf8 => DataType::Utf8,
        DataType::BinaryView | DataType::LargeBinary => DataType::Binary,
        DataType::Timestamp(TimeUnit::Microsecond, None) => return None,
        DataType::Timestamp(_, None) => DataType::Timestamp(TimeUnit::Microsecond, None),
        DataType::Timestamp(_, Some(_)) if *found == timestamptz() => return None,
        DataType::Timestamp(_, Some(_)) => timestamptz(),
        DataType::Time64(TimeUnit::Nanosecond) | DataType::Time32(_) => DataType::Time64(TimeUnit::Microsecond),
        DataType::Date64 => DataType::Date32,
        DataType::Dictionary(_, values) => wire_type(values).unwrap_or_else(|| values.as_ref().clone()),
        _ => return None,
    })
}

/// Names and types as the client gets them.
pub(super) fn columns(schema: &DFSchema) -> Vec<ResultColumn> {
    schema
        .fields()
        .iter()
        .map(|f| {
            let data_type = wire_type(f.data_type()).unwrap_or_else(|| f.data_type().clone());
            let field = Field::new(display_name(f.name()), data_type, f.is_nullable());
            ResultColumn::new(Arc::new(field))
        })
        .collect()
}

/// The plan with casts on top, where a result from column `first` on has a type that does not leave as it is.
pub(super) fn wire_types(plan: LogicalPlan, first: usize) -> Result<LogicalPlan> {
    if plan.schema().fields().iter().skip(first).all(|f| wire_type(f.data_type()).is_none()) {
        return Ok(plan);
    }
    let exprs: Vec<Expr> = plan
        .schema()
        .columns()
        .into_iter()
        .zip(plan.schema().fields())
        .enumerate()
        .map(|(at, (column, field))| match wire_type(field.data_type()).filter(|_| at >= first) {
            Some(to) => {
                let (relation, name) = (column.relation.clone(), column.name.clone());
                cast(Expr::Column(column), to).alias_qualified(relation, name)
            }
            None => Expr::Column(column),
        })
        .collect();
    Ok(LogicalPlanBuilder::from(plan).project(exprs)?.build()?)
}
