//! Subqueries in the place of a value.
//!
//! The engine joins a scalar subquery without counting its rows, which would multiply rows where PostgreSQL reports
//! an error (21000). So each one that may return several rows is put under an aggregate that takes one row at most.

use std::any::Any;
use std::sync::{Arc, LazyLock};

use arrow::array::{ArrayRef, AsArray};
use arrow::datatypes::{DataType, Field, FieldRef, Int64Type};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, ScalarValue, exec_err};
use datafusion::error::Result;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, Expr, LogicalPlan, LogicalPlanBuilder, Signature, Subquery, Volatility,
};

/// Puts the check into every scalar subquery that needs it.
pub(super) fn check_subqueries(plan: LogicalPlan) -> Result<LogicalPlan> {
    plan.transform_up_with_subqueries(|node| {
        node.map_expressions(|expr| {
            expr.transform_up(|e| match e {
                Expr::ScalarSubquery(subquery) if !at_most_one(&subquery.subquery) => {
                    Ok(Transformed::yes(Expr::ScalarSubquery(wrap(subquery)?)))
                }
                other => Ok(Transformed::no(other)),
            })
        })
    })
    .map(|t| t.data)
}

fn at_most_one(plan: &LogicalPlan) -> bool {
    plan.max_rows().is_some_and(|n| n <= 1)
}

fn wrap(subquery: Subquery) -> Result<Subquery> {
    let columns = subquery.subquery.schema().columns();
    let [column] = columns.as_slice() else { return Ok(subquery) };
    let Column { relation, name, .. } = column.clone();
    let value = SINGLE_VALUE.call(vec![Expr::Column(column.clone())]);
    let plan = LogicalPlanBuilder::from(subquery.subquery.as_ref().clone())
        .aggregate(Vec::<Expr>::new(), vec![value.alias_qualified(relation, name)])?
        .build()?;
    Ok(Subquery { subquery: Arc::new(plan), ..subquery })
}

static SINGLE_VALUE: LazyLock<Arc<AggregateUDF>> =
    LazyLock::new(|| Arc::new(AggregateUDF::from(SingleValue { signature: Signature::any(1, Volatility::Immutable) })));

/// The value of the only row; null where there is none; an error where there are more.
#[derive(Debug, PartialEq, Eq, Hash)]
struct SingleValue {
    signature: Signature,
}

impl AggregateUDFImpl for SingleValue {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn name(&self) -> &str {
        "single_value"
    }
    fn signature(&self) -> &Signature {
        &self.signature
    }
    fn return_type(&self, args: &[DataType]) -> Result<DataType> {
        Ok(args.first().cloned().unwrap_or(DataType::Null))
    }
    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        Ok(vec![
            Arc::new(Field::new("value", args.return_field.data_type().clone(), true)),
            Arc::new(Field::new("rows", DataType::Int64, false)),
        ])
    }
    fn accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(Single { value: ScalarValue::try_from(args.return_field.data_type())?, rows: 0 }))
    }
}

#[derive(Debug)]
struct Single {
    value: ScalarValue,
    rows: i64,
}

impl Single {
    fn add(&mut self, value: &ArrayRef, at: usize, rows: i64) -> Result<()> {
        if rows == 0 {
            return Ok(());
        }
        if self.rows + rows > 1 {
            return exec_err!("more than one row returned by a subquery used as an expression");
        }
        self.value = ScalarValue::try_from_array(value, at)?;
        self.rows = rows;
        Ok(())
    }
}

impl Accumulator for Single {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        match values.first() {
            Some(values) => self.add(values, 0, values.len() as i64),
            None => Ok(()),
        }
    }
    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let [values, rows] = states else { return exec_err!("state of single_value") };
        let rows = rows.as_primitive::<Int64Type>();
        for i in 0..rows.len() {
            self.add(values, i, rows.value(i))?;
        }
        Ok(())
    }
    fn evaluate(&mut self) -> Result<ScalarValue> {
        Ok(self.value.clone())
    }
    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![self.value.clone(), ScalarValue::Int64(Some(self.rows))])
    }
    fn size(&self) -> usize {
        size_of::<Self>() + self.value.size()
    }
}
