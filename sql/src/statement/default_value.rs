//! DEFAULT of a column: a constant, which the table keeps.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, Volatility};
use datafusion::physical_plan::collect;
use sqlparser::ast::{self, Query, SelectItem, SetExpr, Value, Visitor};

use super::cells;
use crate::dialect::{quote_text, type_name, walk};
use crate::error::Result;
use crate::plan::{Planner, Purpose, assign, rewrite};
use crate::session::StatementContext;
use crate::{SqlError, SqlState};

/// What `expr` is worth in a column of type `to`. None for null. 0A000 where it would not be the same at all times.
pub(super) async fn constant(
    ctx: &StatementContext<'_>,
    expr: &ast::Expr,
    to: &DataType,
    column: &str,
) -> Result<Option<ScalarValue>> {
    refuse(expr)?;
    let mut expr = expr.clone();
    cells::type_cell(&mut expr, to, false)?;
    let mut select = rewrite::empty_select();
    select.projection = vec![SelectItem::UnnamedExpr(expr)];
    let query = rewrite::query(SetExpr::Select(Box::new(select)));
    let mut planned = Planner::new(ctx, Purpose::Execute).query(&query, &[], None).await?;
    if varies(&planned.plan)? {
        return Err(not_constant("a function whose value changes in DEFAULT is not supported"));
    }
    let schema = planned.plan.schema().clone();
    let value = schema.columns().into_iter().next().map(Expr::Column);
    let value = value.ok_or_else(|| SqlError::syntax("DEFAULT has no value"))?;
    let value = assign::to_type(value, schema.as_ref(), to, column)?;
    planned.plan = LogicalPlanBuilder::from(planned.plan).project([value])?.build()?;
    let physical = planned.physical(&planned.assigned()?).await?;
    let rows = collect(physical, planned.state.task_ctx()).await?;
    let rows = rows.iter().find(|rows| rows.num_rows() == 1);
    let rows = rows.ok_or_else(|| not_constant("DEFAULT of several rows is not supported"))?;
    Ok(Some(ScalarValue::try_from_array(rows.column(0), 0)?).filter(|value| !value.is_null()))
}

fn not_constant(message: &str) -> SqlError {
    SqlError::unsupported(message)
        .with_detail("An Iceberg table keeps the value itself, and not how to compute it.")
        .with_hint("Write a constant, or give the value in each INSERT.")
}

fn refuse(expr: &ast::Expr) -> Result<()> {
    struct V;
    impl Visitor for V {
        type Break = SqlError;
        fn pre_visit_query(&mut self, _: &Query) -> ControlFlow<SqlError> {
            ControlFlow::Break(not_constant("cannot use subquery in DEFAULT expression"))
        }
        fn pre_visit_expr(&mut self, expr: &ast::Expr) -> ControlFlow<SqlError> {
            match expr {
                ast::Expr::Identifier(_) | ast::Expr::CompoundIdentifier(_) => {
                    ControlFlow::Break(not_constant("cannot use column reference in DEFAULT expression"))
                }
                ast::Expr::Value(v) if matches!(v.value, Value::Placeholder(_)) => {
                    ControlFlow::Break(not_constant("parameters in DEFAULT are not supported"))
                }
                ast::Expr::Function(f) if f.over.is_some() || rewrite::is_aggregate(expr) => {
                    let text = "aggregate and window functions are not allowed in DEFAULT expressions";
                    ControlFlow::Break(SqlError::new(SqlState("42803"), text))
                }
                _ => ControlFlow::Continue(()),
            }
        }
    }
    match walk(expr, &mut V) {
        ControlFlow::Break(e) => Err(e),
        ControlFlow::Continue(()) => Ok(()),
    }
}

fn varies(plan: &LogicalPlan) -> Result<bool> {
    let mut varies = false;
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            expr.apply(|expr| {
                if let Expr::ScalarFunction(call) = expr {
                    varies |= call.func.signature().volatility != Volatility::Immutable;
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    Ok(varies)
}

/// A cell that says DEFAULT, with what that is in its column; null where the column has none.
pub(super) fn fill(cell: &mut ast::Expr, defaults: &BTreeMap<String, ScalarValue>, column: &str) -> Result<()> {
    let says_default = matches!(cell, ast::Expr::Identifier(word)
        if word.quote_style.is_none() && word.value.eq_ignore_ascii_case("default"));
    if says_default && let Some(value) = defaults.get(column) {
        *cell = literal(value)?;
    }
    Ok(())
}

/// Without a type of its own, as a user would write it.
pub(super) fn literal(value: &ScalarValue) -> Result<ast::Expr> {
    Ok(ast::Expr::Value(Value::SingleQuotedString(text(value)?).into()))
}

fn text(value: &ScalarValue) -> Result<String> {
    if let ScalarValue::Binary(Some(bytes)) = value {
        return Ok(bytes.iter().fold("\\x".to_owned(), |text, byte| format!("{text}{byte:02x}")));
    }
    match value.cast_to(&DataType::Utf8)? {
        ScalarValue::Utf8(Some(text)) => Ok(match value.data_type() {
            DataType::Timestamp(..) => text.replace('T', " ").replace('Z', "+00"),
            _ => text,
        }),
        other => Err(SqlError::internal(format!("a default value has no text: {other}"))),
    }
}

/// As PostgreSQL shows the default of a column.
pub(crate) fn shown(value: &ScalarValue) -> Option<String> {
    let (text, data_type) = (text(value).ok()?, value.data_type());
    let plain = data_type == DataType::Boolean || data_type.is_numeric() && !text.starts_with('-');
    if plain {
        return Some(text);
    }
    Some(format!("{}::{}", quote_text(&text), type_name(&data_type)?.to_lowercase()))
}
