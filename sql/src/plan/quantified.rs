//! `x = ANY (array)` and its kin, with the truth values of PostgreSQL: unknown where a null decides.
//!
//! The rewriter puts a call of [`udf`] in the place of the operator; once types are known, [`resolve`] writes an
//! array that is a literal out (`x IN (…)`, which prunes and seeks) and brings both sides to one type otherwise.

use std::any::Any;
use std::sync::{Arc, LazyLock};

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, BooleanBuilder, UInt32Array};
use arrow::compute::kernels::cmp;
use arrow::datatypes::{DataType, Field};
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, ScalarValue, exec_err, plan_err};
use datafusion::error::Result;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::type_coercion::binary::comparison_coercion;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ExprSchemable, LogicalPlan, Operator, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility, binary_expr, cast, in_list, lit,
};

use super::literals;
use crate::{SqlError, SqlState};

pub(super) const NAME: &str = "quantified";
/// Longer lists of comparisons other than = are evaluated row by row, not written out.
pub(super) const WRITTEN_OUT: usize = 64;

static UDF: LazyLock<Arc<ScalarUDF>> =
    LazyLock::new(|| Arc::new(ScalarUDF::from(Quantified { signature: Signature::any(4, Volatility::Immutable) })));

/// `quantified(value, operator, 'any' or 'all', array)`.
pub(super) fn udf() -> Arc<ScalarUDF> {
    Arc::clone(&UDF)
}

fn operator(symbol: &str) -> Option<Operator> {
    Some(match symbol {
        "=" => Operator::Eq,
        "<>" => Operator::NotEq,
        "<" => Operator::Lt,
        "<=" => Operator::LtEq,
        ">" => Operator::Gt,
        ">=" => Operator::GtEq,
        _ => return None,
    })
}

fn word(expr: &Expr) -> Option<&str> {
    match expr {
        Expr::Literal(value, _) => value.try_as_str().flatten(),
        _ => None,
    }
}

/// The parts of a call.
fn parts(f: &ScalarFunction) -> Option<(&Expr, Operator, bool, &Expr)> {
    let [value, op, quantifier, array] = f.args.as_slice() else { return None };
    Some((value, operator(word(op)?)?, word(quantifier)? == "any", array))
}

/// The comparison in the form in which it runs. None where it has it already, or a parameter has no value yet.
pub(super) fn resolve(f: &ScalarFunction, schema: &DFSchema) -> Result<Option<Expr>> {
    let Some((value, op, any, array)) = parts(f) else { return Ok(None) };
    let left = value.get_type(schema)?;
    let items: Option<Vec<Expr>> = match array {
        Expr::Literal(ScalarValue::Utf8(Some(text)), _) => {
            Some(literals::array(text, &left)?.into_iter().map(lit).collect())
        }
        Expr::Literal(ScalarValue::Null, _) => return Ok(Some(lit(ScalarValue::Boolean(None)))),
        Expr::Literal(ScalarValue::List(list), _) if list.is_null(0) => {
            return Ok(Some(lit(ScalarValue::Boolean(None))));
        }
        Expr::Literal(ScalarValue::List(list), _) => {
            let values = list.value(0);
            let items = (0..values.len()).map(|i| ScalarValue::try_from_array(&values, i).map(lit));
            Some(items.collect::<Result<_>>()?)
        }
        Expr::ScalarFunction(f) if f.name() == "make_array" => Some(f.args.clone()),
        Expr::Placeholder(_) => return Ok(None),
        _ => None,
    };
    match items {
        Some(items) if items.is_empty() => return Ok(Some(lit(!any))),
        Some(items) if (op, any) == (Operator::Eq, true) => return Ok(Some(in_list(value.clone(), items, false))),
        Some(items) if (op, any) == (Operator::NotEq, false) => return Ok(Some(in_list(value.clone(), items, true))),
        Some(items) if items.len() <= WRITTEN_OUT => {
            let all = items.into_iter().map(|item| binary_expr(value.clone(), op, item));
            return Ok(all.reduce(|l, r| binary_expr(l, if any { Operator::Or } else { Operator::And }, r)));
        }
        _ => {}
    }
    let right = array.get_type(schema)?;
    let DataType::List(item) = &right else {
        return Err(
            SqlError::new(SqlState::WRONG_OBJECT_TYPE, "op ANY/ALL (array) requires array on right side").into()
        );
    };
    let Some(common) = comparison_coercion(&left, item.data_type()) else {
        return plan_err!(
            "Cannot infer common argument type for comparison operation {left} {op} {}",
            item.data_type()
        );
    };
    if left == common && *item.data_type() == common {
        return Ok(None);
    }
    let list = DataType::List(Arc::new(Field::new_list_field(common.clone(), true)));
    let mut args = f.args.clone();
    args[0] = cast(value.clone(), common);
    args[3] = cast(array.clone(), list);
    Ok(Some(f.func.call(args)))
}

/// Types of parameters that stand for an array: what they are cast to, or that of the value beside them.
pub(super) fn parameter_types(plan: &LogicalPlan, found: &mut dyn FnMut(&str, DataType)) -> Result<()> {
    plan.apply_with_subqueries(|node| {
        let schema = merge_schema(&node.inputs());
        node.apply_expressions(|expr| {
            expr.apply(|e| {
                match e {
                    Expr::ScalarFunction(f) if f.name() == NAME => {
                        if let [value, _, _, Expr::Placeholder(p)] = f.args.as_slice()
                            && p.field.is_none()
                            && let Ok(item) = value.get_type(&schema)
                        {
                            found(&p.id, DataType::List(Arc::new(Field::new_list_field(item, true))));
                        }
                    }
                    Expr::Cast(c) if c.data_type.is_list() => {
                        if let Expr::Placeholder(p) = c.expr.as_ref()
                            && p.field.is_none()
                        {
                            found(&p.id, c.data_type.clone());
                        }
                    }
                    _ => {}
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    Ok(())
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Quantified {
    signature: Signature,
}

impl ScalarUDFImpl for Quantified {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn name(&self) -> &str {
        NAME
    }
    fn signature(&self) -> &Signature {
        &self.signature
    }
    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Boolean)
    }
    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let rows = args.number_rows;
        let scalar = |i: usize| match args.args.get(i) {
            Some(ColumnarValue::Scalar(v)) => v.try_as_str().flatten(),
            _ => None,
        };
        let (Some(op), Some(quantifier)) = (scalar(1).and_then(operator), scalar(2)) else {
            return exec_err!("quantified without an operator");
        };
        let [value, _, _, array] = args.args.as_slice() else { return exec_err!("quantified takes four arguments") };
        let (value, array) = (value.to_array(rows)?, array.to_array(rows)?);
        let out = compare(&value, &array, op, quantifier == "any")?;
        Ok(ColumnarValue::Array(Arc::new(out)))
    }
}

fn compare(value: &ArrayRef, array: &ArrayRef, op: Operator, any: bool) -> Result<BooleanArray> {
    let Some(lists) = array.as_list_opt::<i32>() else {
        return exec_err!("op ANY/ALL (array) requires array on right side");
    };
    let offsets = lists.value_offsets();
    let (Some(first), Some(last)) = (offsets.first(), offsets.last()) else {
        return exec_err!("an array without offsets");
    };
    let (first, last) = (*first as usize, *last as usize);
    // Each element beside the value of its row.
    let mut rows = Vec::with_capacity(last - first);
    for (row, pair) in offsets.windows(2).enumerate() {
        rows.resize(rows.len() + (pair[1] - pair[0]) as usize, row as u32);
    }
    let values = arrow::compute::take(value, &UInt32Array::from(rows), None)?;
    let items = lists.values().slice(first, last - first);
    let hits = match op {
        Operator::Eq => cmp::eq(&values, &items)?,
        Operator::NotEq => cmp::neq(&values, &items)?,
        Operator::Lt => cmp::lt(&values, &items)?,
        Operator::LtEq => cmp::lt_eq(&values, &items)?,
        Operator::Gt => cmp::gt(&values, &items)?,
        Operator::GtEq => cmp::gt_eq(&values, &items)?,
        other => return exec_err!("{other} with ANY or ALL"),
    };
    let mut out = BooleanBuilder::with_capacity(lists.len());
    for row in 0..lists.len() {
        if lists.is_null(row) {
            out.append_null();
            continue;
        }
        let span = (offsets[row] as usize - first)..(offsets[row + 1] as usize - first);
        let (mut decided, mut unknown) = (false, false);
        for i in span {
            unknown |= hits.is_null(i);
            decided |= hits.is_valid(i) && hits.value(i) == any;
        }
        match (decided, unknown) {
            (true, _) => out.append_value(any),
            (false, true) => out.append_null(),
            (false, false) => out.append_value(!any),
        }
    }
    Ok(out.finish())
}
