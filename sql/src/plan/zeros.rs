//! Zero is one number, with a sign or without. The engine orders -0 before 0, and takes them for two keys.

use std::any::Any;
use std::sync::{Arc, LazyLock};

use arrow::array::{ArrayRef, AsArray};
use arrow::datatypes::{DataType, Float32Type, Float64Type};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::Transformed;
use datafusion::common::{DFSchema, DFSchemaRef, ScalarValue, exec_err};
use datafusion::error::Result;
use datafusion::logical_expr::expr::AggregateFunction;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{
    Aggregate, BinaryExpr, ColumnarValue, Distinct, Expr, ExprSchemable, GroupingSet, LogicalPlan, LogicalPlanBuilder,
    Operator, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility, lit, when,
};
use datafusion::optimizer::AnalyzerRule;

use super::walk;

/// A comparison with zero. None where it is none, or not of floats.
pub(super) fn compared(b: &BinaryExpr, schema: &DFSchemaRef) -> Option<Expr> {
    let (value, op) = match (is_zero(&b.left), is_zero(&b.right)) {
        (false, true) => (b.left.as_ref().clone(), b.op),
        (true, false) => (b.right.as_ref().clone(), b.op.swap()?),
        _ => return None,
    };
    let (low, high) = match value.get_type(schema.as_ref()).ok()? {
        DataType::Float64 => (lit(-0.0_f64), lit(0.0_f64)),
        DataType::Float32 => (lit(-0.0_f32), lit(0.0_f32)),
        _ => return None,
    };
    Some(match op {
        Operator::Eq => value.between(low, high),
        Operator::NotEq => value.not_between(low, high),
        Operator::Lt => value.lt(low),
        Operator::LtEq => value.lt_eq(high),
        Operator::Gt => value.gt(high),
        Operator::GtEq => value.gt_eq(low),
        _ => return None,
    })
}

/// Two floats that are compared, neither of them known. False where they are something else.
pub(super) fn unsigned(b: &mut BinaryExpr, schema: &DFSchema) -> bool {
    // A column of the row outside has to stand alone, or the subquery cannot be joined.
    let open = |e: &Expr| is_key(e, schema) && !e.contains_outer();
    open(&b.left) && open(&b.right) && key(&mut b.left, schema) && key(&mut b.right, schema)
}

/// What is looked for among several, one of them zero.
pub(super) fn listed<'a>(value: &mut Expr, among: impl IntoIterator<Item = &'a mut Expr>, schema: &DFSchema) -> bool {
    let mut zero = false;
    for item in among {
        zero |= is_zero(item);
        match item {
            Expr::Literal(ScalarValue::Float64(Some(v)), _) if *v == 0.0 => *v = 0.0,
            Expr::Literal(ScalarValue::Float32(Some(v)), _) if *v == 0.0 => *v = 0.0,
            _ => {}
        }
    }
    if !zero || value.contains_outer() {
        return false;
    }
    match value {
        Expr::Literal(ScalarValue::Float64(Some(v)), _) if *v == 0.0 => {
            *v = 0.0;
            true
        }
        other => key(other, schema),
    }
}

fn is_zero(expr: &Expr) -> bool {
    match expr {
        Expr::Literal(ScalarValue::Float64(Some(v)), _) => *v == 0.0,
        Expr::Literal(ScalarValue::Float32(Some(v)), _) => *v == 0.0,
        Expr::Literal(ScalarValue::Int64(Some(0)) | ScalarValue::Int32(Some(0)), _) => true,
        Expr::Literal(ScalarValue::Decimal128(Some(0), ..), _) => true,
        _ => false,
    }
}

/// A float that is a key, or compared as one.
pub(super) fn key(expr: &mut Expr, schema: &DFSchema) -> bool {
    let changes = is_key(expr, schema);
    if changes {
        *expr = plus_zero(expr);
    }
    changes
}

/// Keys of groups, joins and DISTINCT. Runs after type coercion; may run twice over one plan.
#[derive(Debug)]
pub(super) struct UnsignedKeys;

impl AnalyzerRule for UnsignedKeys {
    fn name(&self) -> &str {
        "unsigned_keys"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        let plan = plan.transform_up_with_subqueries(keys)?.data;
        walk::expressions(plan, &|expr, schema| compared_inside(expr, schema))
    }
}

/// Comparisons that an expression makes without an operator.
fn compared_inside(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    Ok(match expr {
        Expr::InSubquery(mut found)
            if is_float(&found.expr, schema) && !is_call(&found.expr) && !found.expr.contains_outer() =>
        {
            *found.expr = plus_zero(&found.expr);
            found.subquery.subquery = unsigned_columns(&found.subquery.subquery)?;
            Transformed::yes(Expr::InSubquery(found))
        }
        Expr::SetComparison(mut found)
            if is_float(&found.expr, schema) && !is_call(&found.expr) && !found.expr.contains_outer() =>
        {
            *found.expr = plus_zero(&found.expr);
            found.subquery.subquery = unsigned_columns(&found.subquery.subquery)?;
            Transformed::yes(Expr::SetComparison(found))
        }
        Expr::Case(mut case) if case.expr.as_deref().is_some_and(|e| is_float(e, schema) && !is_call(e)) => {
            let whens = case.when_then_expr.iter_mut().map(|(when, _)| when.as_mut());
            for e in whens.chain(case.expr.as_deref_mut()) {
                *e = plus_zero(e);
            }
            Transformed::yes(Expr::Case(case))
        }
        Expr::ScalarFunction(mut f) if f.name() == "nullif" && f.args.iter().any(|a| is_key(a, schema)) => {
            let [value, other] = f.args.as_mut_slice() else { return Ok(Transformed::no(Expr::ScalarFunction(f))) };
            if value.is_volatile() {
                *value = plus_zero(value);
                *other = plus_zero(other);
                return Ok(Transformed::yes(Expr::ScalarFunction(f)));
            }
            // The value itself comes out, sign and all.
            let null = lit(ScalarValue::try_from(&value.get_type(schema)?)?);
            let same = plus_zero(value).eq(plus_zero(other));
            Transformed::yes(when(same, null).otherwise(value.clone())?)
        }
        other => Transformed::no(other),
    })
}

/// The same rows, without signs of zeros.
fn unsigned_columns(plan: &Arc<LogicalPlan>) -> Result<Arc<LogicalPlan>> {
    if !plan.schema().fields().iter().any(|f| f.data_type().is_floating()) {
        return Ok(Arc::clone(plan));
    }
    let columns = plan.schema().columns().into_iter().map(Expr::Column);
    let columns: Vec<Expr> = columns.map(|e| if is_key(&e, plan.schema()) { named(e) } else { e }).collect();
    Ok(Arc::new(LogicalPlanBuilder::from(plan.as_ref().clone()).project(columns)?.build()?))
}

fn keys(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    let schema = merge_schema(&plan.inputs());
    match plan {
        LogicalPlan::Aggregate(Aggregate { input, group_expr, aggr_expr, .. })
            if group_expr.iter().any(|e| is_group_key(e, &schema))
                || aggr_expr.iter().any(|e| has_distinct(e, &schema)) =>
        {
            let group = group_expr.into_iter().map(|e| group_key(e, &schema)).collect();
            let aggregates = aggr_expr
                .into_iter()
                .map(|e| if has_distinct(&e, &schema) { distinct(e, &schema) } else { Ok(e) })
                .collect::<Result<_>>()?;
            Ok(Transformed::yes(LogicalPlan::Aggregate(Aggregate::try_new(input, group, aggregates)?)))
        }
        LogicalPlan::Distinct(Distinct::All(input))
            if input.schema().fields().iter().any(|f| f.data_type().is_floating()) =>
        {
            Ok(Transformed::yes(LogicalPlan::Distinct(Distinct::All(unsigned_columns(&input)?))))
        }
        LogicalPlan::Distinct(Distinct::On(mut distinct)) if distinct.on_expr.iter().any(|e| is_key(e, &schema)) => {
            let sorts = distinct.sort_expr.iter_mut().flatten().map(|sort| &mut sort.expr);
            // What is sorted by begins with the keys.
            for e in sorts.take(distinct.on_expr.len()).chain(&mut distinct.on_expr) {
                key(e, &schema);
            }
            Ok(Transformed::yes(LogicalPlan::Distinct(Distinct::On(distinct))))
        }
        LogicalPlan::RecursiveQuery(mut query)
            if query.is_distinct && query.static_term.schema().fields().iter().any(|f| f.data_type().is_floating()) =>
        {
            query.static_term = unsigned_columns(&query.static_term)?;
            query.recursive_term = unsigned_columns(&query.recursive_term)?;
            Ok(Transformed::yes(LogicalPlan::RecursiveQuery(query)))
        }
        LogicalPlan::Join(mut join) if join.on.iter().any(|(l, r)| is_key(l, &schema) && is_key(r, &schema)) => {
            for (left, right) in &mut join.on {
                if is_key(left, &schema) && is_key(right, &schema) {
                    *left = plus_zero(left);
                    *right = plus_zero(right);
                }
            }
            Ok(Transformed::yes(LogicalPlan::Join(join)))
        }
        other => Ok(Transformed::no(other)),
    }
}

fn is_float(expr: &Expr, schema: &DFSchema) -> bool {
    expr.get_type(schema).is_ok_and(|t| t.is_floating())
}

fn is_key(expr: &Expr, schema: &DFSchema) -> bool {
    is_float(expr, schema) && !is_call(expr) && !matches!(bare(expr), Expr::GroupingSet(_) | Expr::Literal(..))
}

/// Whether the sign is gone already.
fn is_call(expr: &Expr) -> bool {
    matches!(bare(expr), Expr::ScalarFunction(f) if f.name() == NAME)
}

fn bare(expr: &Expr) -> &Expr {
    match expr {
        Expr::Alias(alias) => &alias.expr,
        other => other,
    }
}

fn is_group_key(expr: &Expr, schema: &DFSchema) -> bool {
    match expr {
        Expr::GroupingSet(sets) => sets.distinct_expr().into_iter().any(|e| is_key(e, schema)),
        other => is_key(other, schema),
    }
}

fn group_key(expr: Expr, schema: &DFSchema) -> Expr {
    let all = |exprs: Vec<Expr>| exprs.into_iter().map(|e| group_key(e, schema)).collect();
    match expr {
        Expr::GroupingSet(GroupingSet::Rollup(exprs)) => Expr::GroupingSet(GroupingSet::Rollup(all(exprs))),
        Expr::GroupingSet(GroupingSet::Cube(exprs)) => Expr::GroupingSet(GroupingSet::Cube(all(exprs))),
        Expr::GroupingSet(GroupingSet::GroupingSets(sets)) => {
            Expr::GroupingSet(GroupingSet::GroupingSets(sets.into_iter().map(all).collect()))
        }
        other if is_key(&other, schema) => named(other),
        other => other,
    }
}

fn named(expr: Expr) -> Expr {
    let (relation, name) = expr.qualified_name();
    plus_zero(&expr.unalias()).alias_qualified(relation, name)
}

/// `count(DISTINCT x)` and its kin over floats.
fn has_distinct(expr: &Expr, schema: &DFSchema) -> bool {
    match expr {
        Expr::Alias(alias) => has_distinct(&alias.expr, schema),
        Expr::AggregateFunction(f) => f.params.distinct && f.params.args.iter().any(|a| is_key(a, schema)),
        _ => false,
    }
}

fn distinct(expr: Expr, schema: &DFSchema) -> Result<Expr> {
    let (relation, name) = expr.qualified_name();
    let Expr::AggregateFunction(AggregateFunction { func, mut params }) = expr.unalias() else {
        return exec_err!("an aggregate was expected");
    };
    let sorted = params.order_by.iter_mut().map(|sort| &mut sort.expr);
    for arg in params.args.iter_mut().chain(sorted).filter(|a| is_key(a, schema)) {
        *arg = plus_zero(arg);
    }
    Ok(Expr::AggregateFunction(AggregateFunction { func, params }).alias_qualified(relation, name))
}

const NAME: &str = "unsigned_zero";

static UNSIGNED_ZERO: LazyLock<Arc<ScalarUDF>> =
    LazyLock::new(|| Arc::new(ScalarUDF::from(UnsignedZero { signature: Signature::any(1, Volatility::Immutable) })));

fn plus_zero(expr: &Expr) -> Expr {
    UNSIGNED_ZERO.call(vec![expr.clone()])
}

/// The float itself, and 0 for -0.
#[derive(Debug, PartialEq, Eq, Hash)]
struct UnsignedZero {
    signature: Signature,
}

impl ScalarUDFImpl for UnsignedZero {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn name(&self) -> &str {
        NAME
    }
    fn signature(&self) -> &Signature {
        &self.signature
    }
    fn return_type(&self, args: &[DataType]) -> Result<DataType> {
        Ok(args.first().cloned().unwrap_or(DataType::Null))
    }
    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let Some(arg) = args.args.into_iter().next() else { return exec_err!("{NAME} takes one argument") };
        // The sum of -0 and 0 is 0.
        Ok(match arg {
            ColumnarValue::Array(a) => ColumnarValue::Array(match a.data_type() {
                DataType::Float64 => {
                    Arc::new(a.as_primitive::<Float64Type>().unary::<_, Float64Type>(|v| v + 0.0)) as ArrayRef
                }
                DataType::Float32 => Arc::new(a.as_primitive::<Float32Type>().unary::<_, Float32Type>(|v| v + 0.0)),
                _ => a,
            }),
            ColumnarValue::Scalar(ScalarValue::Float64(v)) => {
                ColumnarValue::Scalar(ScalarValue::Float64(v.map(|v| v + 0.0)))
            }
            ColumnarValue::Scalar(ScalarValue::Float32(v)) => {
                ColumnarValue::Scalar(ScalarValue::Float32(v.map(|v| v + 0.0)))
            }
            other => other,
        })
    }
}
