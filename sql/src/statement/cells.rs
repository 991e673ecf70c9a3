//! Values that statements give columns: untyped literals, rows and parameters take the types of their columns.

use arrow::datatypes::DataType;
use sqlparser::ast::{self, CastKind, Value};

use crate::dialect::{fold, parse_type, type_name};
use crate::error::Result;
use crate::plan::rewrite;
use crate::{SqlError, SqlState};

/// Casts an untyped literal to the column's type. In VALUES every cell is cast: the rows would have to agree on one
/// type otherwise, which may be another one than the column's.
pub(super) fn type_cell(cell: &mut ast::Expr, to: &DataType, values: bool) -> Result<()> {
    if row_cell(cell, to)? {
        return Ok(());
    }
    let literal = match cell {
        ast::Expr::Value(v) => matches!(v.value, Value::SingleQuotedString(_) | Value::Null | Value::Placeholder(_)),
        // DEFAULT of a column that has none.
        ast::Expr::Identifier(i) if i.quote_style.is_none() && i.value.eq_ignore_ascii_case("default") => {
            *cell = ast::Expr::Value(Value::Null.into());
            true
        }
        _ => false,
    };
    if !literal && !values {
        return Ok(());
    }
    if holds_rows(to) {
        if matches!(cell, ast::Expr::Value(v) if matches!(v.value, Value::SingleQuotedString(_))) {
            return Err(SqlError::unsupported(format!("text is not read as {}", to_name(to)))
                .with_hint("Write ROW(value, …), and ARRAY[ROW(…), …] for several."));
        }
        if !literal {
            return Ok(());
        }
    }
    if let Some(name) = type_name(to) {
        let data_type = parse_type(&name)?;
        let value = std::mem::replace(cell, ast::Expr::Value(Value::Null.into()));
        *cell = ast::Expr::Cast { kind: CastKind::Cast, expr: Box::new(value), data_type, array: false, format: None };
    }
    Ok(())
}

/// `ROW(…)` takes the names and types of the members of its column; so do the rows of `ARRAY[ROW(…), …]`. True where
/// the cell was such a one.
fn row_cell(cell: &mut ast::Expr, to: &DataType) -> Result<bool> {
    match to {
        DataType::Struct(members) => {
            let Some(values) = row_values(cell) else { return Ok(false) };
            if values.len() != members.len() {
                return Err(SqlError::new(
                    SqlState::CANNOT_COERCE,
                    format!("cannot cast a row of {} values to {}", values.len(), to_name(to)),
                )
                .with_hint("Give a value for each member; NULL where there is none."));
            }
            let mut args = Vec::with_capacity(2 * members.len());
            for (mut value, member) in values.into_iter().zip(members) {
                type_cell(&mut value, member.data_type(), true)?;
                args.push(ast::Expr::Value(Value::SingleQuotedString(member.name().clone()).into()));
                args.push(value);
            }
            *cell = rewrite::call("named_struct", args);
            Ok(true)
        }
        DataType::List(item) if holds_rows(item.data_type()) => {
            let ast::Expr::Array(array) = cell else { return Ok(false) };
            if array.elem.is_empty() {
                return Ok(false);
            }
            for element in &mut array.elem {
                type_cell(element, item.data_type(), true)?;
            }
            Ok(true)
        }
        _ => Ok(false),
    }
}

/// The values of `ROW(a, b)` and `(a, b)`.
pub(super) fn row_values(cell: &mut ast::Expr) -> Option<Vec<ast::Expr>> {
    match cell {
        ast::Expr::Tuple(values) => Some(std::mem::take(values)),
        ast::Expr::Function(f) if f.name.0.len() == 1 && f.name.0[0].as_ident().is_some_and(|i| fold(i) == "row") => {
            let ast::FunctionArguments::List(list) = &mut f.args else { return None };
            let values = std::mem::take(&mut list.args).into_iter().map(|arg| match arg {
                ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Expr(value)) => Some(value),
                _ => None,
            });
            values.collect()
        }
        _ => None,
    }
}

fn holds_rows(to: &DataType) -> bool {
    match to {
        DataType::Struct(_) => true,
        DataType::List(item) => holds_rows(item.data_type()),
        _ => false,
    }
}

fn to_name(to: &DataType) -> String {
    type_name(to).map_or_else(|| to.to_string(), |n| n.to_lowercase())
}

/// A parameter that is a cell takes the type of its column.
pub(super) fn cell_parameter(cell: &ast::Expr, to: &DataType, types: &mut [Option<DataType>]) {
    let inner = match cell {
        ast::Expr::Cast { expr, .. } => expr.as_ref(),
        other => other,
    };
    if let ast::Expr::Value(v) = inner
        && let Value::Placeholder(name) = &v.value
        && let Some(n) = name.strip_prefix('$').and_then(|n| n.parse::<usize>().ok())
        && let Some(slot) = n.checked_sub(1).and_then(|i| types.get_mut(i))
        && slot.is_none()
    {
        *slot = Some(to.clone());
    }
}

pub(super) fn null_in(column: &str, table: &str) -> SqlError {
    SqlError::new(
        SqlState::NOT_NULL_VIOLATION,
        format!("null value in column \"{column}\" of relation \"{table}\" violates not-null constraint"),
    )
}
