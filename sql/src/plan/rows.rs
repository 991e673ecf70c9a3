//! Rows that come together: UNION and VALUES of `double precision` and `numeric` are double precision (the engine would
//! make them numeric, and cut them to 15 digits behind the point), arrays of one kind are of one type, and intervals are
//! sorted by their length. Runs before type coercion.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::Transformed;
use datafusion::common::{DFSchema, DFSchemaRef};
use datafusion::error::Result;
use datafusion::logical_expr::{Cast, Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder, Union, Values, cast};
use datafusion::optimizer::AnalyzerRule;

use super::{one_type, walk};

#[derive(Debug)]
pub(super) struct TogetherRows;

impl AnalyzerRule for TogetherRows {
    fn name(&self) -> &str {
        "together_rows"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        walk::nodes(plan, &|node| match node {
            LogicalPlan::Union(union) => union_rows(union),
            LogicalPlan::Values(values) => value_rows(values),
            LogicalPlan::Sort(mut sort) => {
                let schema = Arc::clone(sort.input.schema());
                let mut keys = false;
                for key in &mut sort.expr {
                    keys |= one_type::sort_key(&mut key.expr, &schema);
                }
                Ok(Transformed::new_transformed(LogicalPlan::Sort(sort), keys))
            }
            other => Ok(Transformed::no(other)),
        })
    }
}

fn is_decimal(t: &DataType) -> bool {
    matches!(t, DataType::Decimal128(..) | DataType::Decimal256(..))
}

fn union_rows(union: Union) -> Result<Transformed<LogicalPlan>> {
    let types = |column: usize| union.inputs.iter().map(move |input| input.schema().field(column).data_type());
    let mut wanted: Vec<Option<DataType>> = Vec::new();
    for i in 0..union.schema.fields().len() {
        let all = union.inputs.iter().all(|input| i < input.schema().fields().len());
        let Some(first) = types(i).find(|t| **t != DataType::Null).filter(|_| all) else {
            wanted.push(None);
            continue;
        };
        let float = types(i).any(DataType::is_floating) && types(i).any(is_decimal);
        // They differ in names inside.
        let nested = first.is_nested() && types(i).any(|t| t != first && t.is_nested());
        wanted.push(match (float, nested) {
            (true, _) => Some(DataType::Float64),
            (_, true) => Some(first.clone()),
            _ => None,
        });
    }
    if wanted.iter().all(Option::is_none) {
        return Ok(Transformed::no(LogicalPlan::Union(union)));
    }
    let inputs = union.inputs.iter().map(|input| {
        let columns = input.schema().columns().into_iter().enumerate().map(|(i, column)| {
            let (relation, name) = (column.relation.clone(), column.name.clone());
            let from = input.schema().field(i).data_type();
            let to = wanted.get(i).and_then(Option::as_ref).filter(|to| *to != from && !from.is_floating());
            let column = Expr::Column(column);
            match to {
                Some(to) => cast(column, to.clone()).alias_qualified(relation, name),
                None => column,
            }
        });
        let columns: Vec<Expr> = columns.collect();
        Ok(Arc::new(LogicalPlanBuilder::from(input.as_ref().clone()).project(columns)?.build()?))
    });
    let inputs = inputs.collect::<Result<Vec<_>>>()?;
    Ok(Transformed::yes(LogicalPlan::Union(Union::try_new_with_loose_types(inputs)?)))
}

fn value_rows(values: Values) -> Result<Transformed<LogicalPlan>> {
    let none = DFSchema::empty();
    // The engine has put casts around what was no numeric.
    let float = |expr: &Expr| match expr {
        Expr::Cast(Cast { expr, data_type }) => {
            is_decimal(data_type) && expr.get_type(&none).is_ok_and(|t| t.is_floating())
        }
        _ => false,
    };
    let mixed: Vec<usize> = (0..values.schema.fields().len())
        .filter(|i| values.values.iter().any(|row| row.get(*i).is_some_and(float)))
        .collect();
    if mixed.is_empty() {
        return Ok(Transformed::no(LogicalPlan::Values(values)));
    }
    let rows = values.values.into_iter().map(|row| {
        let cells = row.into_iter().enumerate().map(|(i, cell)| match cell {
            cell if !mixed.contains(&i) => cell,
            Expr::Cast(Cast { expr, .. }) => cast(*expr, DataType::Float64),
            cell => cast(cell, DataType::Float64),
        });
        cells.collect()
    });
    let fields = values.schema.iter().enumerate().map(|(i, (relation, field))| {
        let data_type = if mixed.contains(&i) { DataType::Float64 } else { field.data_type().clone() };
        (relation.cloned(), Arc::new(Field::new(field.name(), data_type, field.is_nullable())))
    });
    let schema = DFSchema::new_with_metadata(fields.collect(), values.schema.metadata().clone())?;
    let values = Values { schema: DFSchemaRef::new(schema), values: rows.collect() };
    Ok(Transformed::yes(LogicalPlan::Values(values)))
}
