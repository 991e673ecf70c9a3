//! Columns of streams that are computed: `GENERATED ALWAYS AS (expr)`.

use std::collections::HashMap;

use arrow::datatypes::Field;
use datafusion::common::DFSchema;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::execution::SessionState;
use datafusion::logical_expr::{Expr, ExprSchemable, Volatility};
use datafusion::sql::planner::{PlannerContext, SqlToRel};

use super::provider::Tables;
use super::query::parser_options;
use super::relation::{GeneratedColumn, StreamDefinition};
use super::{assign, rewrite};
use crate::engine::Engine;
use crate::error::Result;
use crate::settings::Settings;
use crate::{SqlError, SqlState};

/// Plans the expression over the columns of the source, in the column's type.
pub(super) fn plan(state: &SessionState, column: &GeneratedColumn, schema: &DFSchema) -> Result<Expr> {
    let mut ast = column.expr.clone();
    rewrite::expression(&mut ast)?;
    let tables = Tables { state, sources: HashMap::new() };
    let planner = SqlToRel::new_with_options(&tables, parser_options());
    let expr = planner.sql_to_expr(ast, schema, &mut PlannerContext::new())?;
    check_expr(column, &expr)?;
    assign::to_type(expr, schema, &column.data_type, &column.name)
}

/// Checks the generated columns of a stream, as CREATE STREAM does. Returns all declared columns as readers will see
/// them, in order.
pub(crate) async fn check(engine: &Engine, _settings: &Settings, definition: &StreamDefinition) -> Result<Vec<Field>> {
    let schema = DFSchema::try_from(definition.spec.full_schema().as_ref().clone())?;
    let mut fields: Vec<Field> = definition.spec.columns.iter().map(|c| c.field().clone()).collect();
    for column in &definition.generated {
        let expr = plan(&engine.base_state(), column, &schema)?;
        let nullable = expr.nullable(&schema)?;
        if column.not_null && nullable {
            return Err(SqlError::unsupported(format!("generated column \"{}\" cannot be NOT NULL", column.name))
                .with_detail("Its expression may be null.")
                .with_hint("Leave out NOT NULL, or wrap the expression in coalesce(…, default)."));
        }
        let field = Field::new(&column.name, column.data_type.clone(), nullable);
        fields.insert(column.index.min(fields.len()), field);
    }
    Ok(fields)
}

fn check_expr(column: &GeneratedColumn, expr: &Expr) -> Result<()> {
    let mut refused: Option<String> = None;
    expr.apply(|e| {
        refused = match e {
            Expr::ScalarFunction(f) if f.func.signature().volatility != Volatility::Immutable => {
                Some(format!("function {}() is not immutable", f.name()))
            }
            Expr::AggregateFunction(_) => {
                Some("aggregate functions are not allowed in column generation expressions".to_owned())
            }
            Expr::WindowFunction(_) => {
                Some("window functions are not allowed in column generation expressions".to_owned())
            }
            Expr::ScalarSubquery(_) | Expr::Exists(_) | Expr::InSubquery(_) => {
                Some("cannot use subquery in column generation expression".to_owned())
            }
            Expr::Unnest(_) => {
                Some("set-returning functions are not allowed in column generation expressions".to_owned())
            }
            Expr::Placeholder(_) => Some("there is no parameter in a column generation expression".to_owned()),
            _ => None,
        };
        Ok(if refused.is_some() { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    match refused {
        Some(detail) => Err(SqlError::new(
            SqlState::INVALID_OBJECT_DEFINITION,
            format!("invalid expression of generated column \"{}\"", column.name),
        )
        .with_detail(detail)),
        None => Ok(()),
    }
}
