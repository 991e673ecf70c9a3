//! Values that meet: what is compared, and what comes out of one expression. PostgreSQL wants one type for both, takes
//! that of the other side for a quoted literal, and refuses a text beside a number. (The engine would make both texts.)

use std::sync::Arc;

use arrow::datatypes::{DataType, IntervalUnit};
use datafusion::common::{Column, DFSchema, DFSchemaRef, ScalarValue};
use datafusion::error::Result;
use datafusion::logical_expr::type_coercion::binary::comparison_coercion;
use datafusion::logical_expr::{BinaryExpr, Expr, ExprSchemable, LogicalPlanBuilder, Operator, Subquery, cast, lit};

use super::literals::{like, value};
use super::text_functions::interval_length;
use crate::{SqlError, SqlState};

/// `CASE of WHEN …`: what is compared, literals in the type of the other side.
pub(super) fn compared(of: &Expr, whens: &mut [(Box<Expr>, Box<Expr>)], schema: &DFSchemaRef) -> Result<bool> {
    let mut changed = false;
    for (when, _) in whens {
        if let Some(new) = like(when, of, schema)? {
            **when = new;
            changed = true;
        }
        let pair = BinaryExpr::new(Box::new(of.clone()), Operator::Eq, when.clone());
        if let Some(refused) = no_operator(&pair, schema) {
            return Err(refused.into());
        }
    }
    Ok(changed)
}

/// `value IN (SELECT …)` and its kin. True where something was changed.
pub(super) fn among_rows(value: &mut Expr, rows: &mut Subquery, op: Operator, schema: &DFSchemaRef) -> Result<bool> {
    let inner = Arc::clone(rows.subquery.schema());
    let Some((relation, field)) = inner.iter().next() else { return Ok(false) };
    let (row, item) = (Expr::Column(Column::from((relation, field))), field.data_type());
    if let Some(new) = like(value, &row, &inner)? {
        *value = new;
        return Ok(true);
    }
    let Ok(of) = value.get_type(schema.as_ref()) else { return Ok(false) };
    if (texts(&of, item) && !is_untyped(value)) || texts(item, &of) {
        return Err(undefined(&of, op, item).into());
    }
    let exact = |t: &DataType| matches!(t, DataType::Decimal128(..));
    if exact(&of) && item.is_floating() {
        *value = cast(value.clone(), DataType::Float64);
        return Ok(true);
    }
    if of.is_floating() && exact(item) {
        let float = cast(row, DataType::Float64).alias(field.name());
        let plan = LogicalPlanBuilder::from(rows.subquery.as_ref().clone()).project([float])?.build()?;
        rows.subquery = Arc::new(plan);
        return Ok(true);
    }
    Ok(false)
}

/// `lag(value, n, default)`: both in one type, the wider one.
pub(super) fn with_default(value: &mut Expr, default: &mut Expr, schema: &DFSchemaRef) -> Result<bool> {
    let (Ok(of), Ok(other)) = (value.get_type(schema.as_ref()), default.get_type(schema.as_ref())) else {
        return Ok(false);
    };
    if of == other {
        return Ok(false);
    }
    if let Some(new) = like(default, value, schema)? {
        *default = new;
        return Ok(true);
    }
    if is_untyped(default) {
        return Ok(false);
    }
    let common = if of.is_numeric() && other.is_numeric() && (of.is_floating() || other.is_floating()) {
        Some(DataType::Float64)
    } else if texts(&of, &other) || texts(&other, &of) {
        None
    } else {
        comparison_coercion(&of, &other)
    };
    let Some(common) = common else {
        let name = tidewater_catalogs_system::type_name;
        let message = format!("the default of a window function is {}, its value {}", name(&other), name(&of));
        return Err(SqlError::new(SqlState::UNDEFINED_FUNCTION, message).with_hint("Cast one to the other.").into());
    };
    for expr in [value, default] {
        *expr = cast(expr.clone(), common.clone());
    }
    Ok(true)
}

/// 42883 for a text beside a number: the engine would compare texts. Literals have their type by now.
pub(super) fn no_operator(b: &BinaryExpr, schema: &DFSchema) -> Option<SqlError> {
    let (left, right) = (b.left.get_type(schema).ok()?, b.right.get_type(schema).ok()?);
    if is_untyped(&b.left) || is_untyped(&b.right) || !(texts(&left, &right) || texts(&right, &left)) {
        return None;
    }
    Some(undefined(&left, b.op, &right))
}

fn undefined(left: &DataType, op: Operator, right: &DataType) -> SqlError {
    let name = |t: &DataType| tidewater_catalogs_system::type_name(t);
    let message = format!("operator does not exist: {} {op} {}", name(left), name(right));
    SqlError::new(SqlState::UNDEFINED_FUNCTION, message).with_hint("Cast one side to the type of the other.")
}

/// A quoted literal or parameter, which has no type of its own.
pub(super) fn is_untyped(expr: &Expr) -> bool {
    match expr {
        Expr::Placeholder(_) => true,
        Expr::Literal(value, _) => value.is_null() || value.try_as_str().is_some(),
        _ => false,
    }
}

/// Whether one is text and the other a number or boolean.
pub(super) fn texts(text: &DataType, other: &DataType) -> bool {
    matches!(text, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
        && (other.is_numeric() || *other == DataType::Boolean)
}

/// Quoted literals beside numbers are read as such; other texts are refused. True where something was changed.
pub(super) fn matched(what: &str, exprs: &mut [&mut Expr], schema: &DFSchemaRef) -> Result<bool> {
    let types: Vec<Option<DataType>> = exprs.iter().map(|e| e.get_type(schema.as_ref()).ok()).collect();
    let Some(number) = types.iter().flatten().find(|t| t.is_numeric() || **t == DataType::Boolean) else {
        return Ok(false);
    };
    let mut changed = false;
    for (expr, from) in exprs.iter_mut().zip(&types) {
        if !from.as_ref().is_some_and(|from| texts(from, number)) {
            continue;
        }
        match &**expr {
            Expr::Literal(ScalarValue::Utf8(Some(text)), _) => {
                if let Some(value) = value(text, number)? {
                    **expr = lit(value);
                    changed = true;
                }
            }
            Expr::Literal(..) => {}
            Expr::Placeholder(_) => {
                **expr = cast(expr.clone(), number.clone());
                changed = true;
            }
            _ => {
                let name = tidewater_catalogs_system::type_name(number);
                let message = format!("{what} types text and {name} cannot be matched");
                return Err(SqlError::new(SqlState::TYPE_MISMATCH, message).with_hint("Cast one to the other.").into());
            }
        }
    }
    Ok(changed)
}

pub(super) fn conditions(when: &[(Box<Expr>, Box<Expr>)], schema: &DFSchemaRef) -> Result<()> {
    for (condition, _) in when {
        let Ok(found) = condition.get_type(schema.as_ref()) else { continue };
        if found.is_numeric() {
            let name = tidewater_catalogs_system::type_name(&found);
            let message = format!("argument of CASE/WHEN must be type boolean, not type {name}");
            return Err(SqlError::new(SqlState::TYPE_MISMATCH, message).into());
        }
    }
    Ok(())
}

/// Beside a double precision a numeric is one as well, as in PostgreSQL. (The engine would make the double a numeric,
/// and cut it to 15 digits behind the point.) True where something was changed.
pub(super) fn floats(exprs: &mut [&mut Expr], schema: &DFSchemaRef) -> bool {
    let types: Vec<Option<DataType>> = exprs.iter().map(|e| e.get_type(schema.as_ref()).ok()).collect();
    let decimal = |t: &Option<DataType>| matches!(t, Some(DataType::Decimal128(..)));
    if !types.iter().flatten().any(DataType::is_floating) || !types.iter().any(decimal) {
        return false;
    }
    for (expr, _) in exprs.iter_mut().zip(&types).filter(|(_, t)| decimal(t)) {
        let exact = match expr {
            // Arrow divides, and may be off by the last digit.
            Expr::Literal(ScalarValue::Decimal128(Some(v), _, scale), _) => format!("{v}e-{scale}").parse::<f64>().ok(),
            _ => None,
        };
        **expr = match exact {
            Some(float) => lit(float),
            None => cast(expr.clone(), DataType::Float64),
        };
    }
    true
}

/// Intervals compare by their length, 24 hours being a day. (The engine compares months, then days, then the rest; the
/// time between two timestamps has neither months nor days to it.) True where something was changed.
pub(super) fn lengths(exprs: &mut [&mut Expr], schema: &DFSchemaRef) -> bool {
    let types: Vec<Option<DataType>> = exprs.iter().map(|e| e.get_type(schema.as_ref()).ok()).collect();
    let time = |t: &Option<DataType>| matches!(t, Some(DataType::Interval(_) | DataType::Duration(_)));
    if !types.iter().all(time) || !types.iter().flatten().any(|t| matches!(t, DataType::Interval(_))) {
        return false;
    }
    for expr in exprs {
        **expr = length(expr);
    }
    true
}

/// An interval that is sorted by.
pub(super) fn sort_key(expr: &mut Expr, schema: &DFSchema) -> bool {
    let interval = matches!(expr.get_type(schema), Ok(DataType::Interval(_)));
    if interval {
        *expr = length(expr);
    }
    interval
}

fn length(interval: &Expr) -> Expr {
    interval_length().call(vec![cast(interval.clone(), DataType::Interval(IntervalUnit::MonthDayNano))])
}
