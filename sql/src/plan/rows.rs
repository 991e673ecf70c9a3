//! UNION and VALUES of `double precision` and `numeric` are double precision. (The engine would make them numeric, and
//! cut them to 15 digits behind the point.) Runs before type coercion.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::Transformed;
use datafusion::common::{DFSchema, DFSchemaRef};
use datafusion::error::Result;
use datafusion::logical_expr::{Cast, Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder, Union, Values, cast};
use datafusion::optimizer::AnalyzerRule;

#[derive(Debug)]
pub(super) struct FloatRows;

impl AnalyzerRule for FloatRows {
    fn name(&self) -> &str {
        "float_rows"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        let mut changed = false;
        let plan = plan.transform_up_with_subqueries(|node| {
            let node = match node {
                LogicalPlan::Union(union) => union_rows(union)?,
                LogicalPlan::Values(values) => value_rows(values)?,
                other => Transformed::no(other),
            };
            changed |= node.transformed;
            // What stands above has the types of what is below.
            if changed { Ok(Transformed::yes(node.data.recompute_schema()?)) } else { Ok(node) }
        });
        plan.map(|t| t.data)
    }
}

fn is_decimal(t: &DataType) -> bool {
    matches!(t, DataType::Decimal128(..) | DataType::Decimal256(..))
}

fn union_rows(union: Union) -> Result<Transformed<LogicalPlan>> {
    let types = |column: usize| union.inputs.iter().map(move |input| input.schema().field(column).data_type());
    let mixed: Vec<usize> = (0..union.schema.fields().len())
        .filter(|i| union.inputs.iter().all(|input| *i < input.schema().fields().len()))
        .filter(|i| types(*i).any(DataType::is_floating) && types(*i).any(is_decimal))
        .collect();
    if mixed.is_empty() {
        return Ok(Transformed::no(LogicalPlan::Union(union)));
    }
    let inputs = union.inputs.iter().map(|input| {
        let columns = input.schema().columns().into_iter().enumerate().map(|(i, column)| {
            let (relation, name) = (column.relation.clone(), column.name.clone());
            let decimal = mixed.contains(&i) && is_decimal(input.schema().field(i).data_type());
            let column = Expr::Column(column);
            if decimal { cast(column, DataType::Float64).alias_qualified(relation, name) } else { column }
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
