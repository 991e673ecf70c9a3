//! Typed literals and casts, in forms that the planner reads as PostgreSQL does.

use sqlparser::ast::{self, CastKind, DataType, Expr, UnaryOperator, Value};

use super::literals::array_items;
use super::numeric::MAX_PRECISION;
use super::rewrite::{call, number, string};
use super::types::NUMERIC_SCALE;
use super::words::{plain_interval, without_zone};
use crate::error::Result;
use crate::{SqlError, SqlState};

pub(super) fn forms(expr: &mut Expr) -> Result<()> {
    match expr {
        Expr::TypedString(typed) if is_wall_clock(&typed.data_type) => {
            reword_value(&mut typed.value.value, without_zone);
        }
        Expr::Cast { kind: CastKind::Cast | CastKind::DoubleColon, data_type, expr: inner, .. }
            if is_wall_clock(data_type) =>
        {
            reword(inner, without_zone);
        }
        Expr::Interval(interval) if interval.leading_field.is_none() && interval.last_field.is_none() => {
            reword(&mut interval.value, plain_interval);
        }
        Expr::TypedString(typed) if matches!(typed.data_type, DataType::Interval { .. }) => {
            reword_value(&mut typed.value.value, plain_interval);
        }
        Expr::Cast {
            kind: CastKind::Cast | CastKind::DoubleColon,
            data_type: DataType::Interval { .. },
            expr: inner,
            ..
        } => {
            reword(inner, plain_interval);
        }
        Expr::Cast { kind: CastKind::Cast | CastKind::DoubleColon, data_type, expr: inner, .. }
            if is_float(data_type) =>
        {
            // Through a numeric, digits would be lost on the way.
            let number = match inner.as_ref() {
                Expr::UnaryOp { op: UnaryOperator::Minus, expr } => expr.as_ref(),
                other => other,
            };
            if matches!(number, Expr::Value(v) if matches!(v.value, Value::Number(..))) {
                **inner = string(&inner.to_string());
            }
        }
        Expr::Cast { kind: CastKind::Cast | CastKind::DoubleColon, data_type: DataType::Char(length), .. }
        | Expr::Cast { kind: CastKind::Cast | CastKind::DoubleColon, data_type: DataType::Character(length), .. }
            if length.is_some() =>
        {
            return Err(SqlError::unsupported("casts to char(n) are not supported")
                .with_detail("Its values are padded with blanks that do not count when they are compared.")
                .with_hint("Use text, or varchar(n)."));
        }
        Expr::TypedString(typed) if typed_text(&typed.data_type).is_some() => {
            if let Some(function) = typed_text(&typed.data_type) {
                *expr = call(function, vec![Expr::Value(typed.value.clone())]);
            }
        }
        Expr::TypedString(typed) if is_numeric(&typed.data_type) => {
            if let Value::SingleQuotedString(text) = &typed.value.value {
                typed.data_type = exact(text, &typed.data_type)?;
            }
        }
        Expr::Cast { kind: CastKind::Cast | CastKind::DoubleColon, data_type, expr: inner, .. }
            if is_numeric(data_type) =>
        {
            if let Some(text) = literal_text(inner) {
                *data_type = exact(&text, data_type)?;
            }
        }
        Expr::Cast { kind: CastKind::Cast | CastKind::DoubleColon, data_type, expr: inner, .. }
            if let Some(function) = item_type(data_type).and_then(typed_text) =>
        {
            if let Some(items) = written_items(inner)? {
                let elem = items.into_iter().map(|item| call(function, vec![item])).collect();
                *expr = Expr::Array(ast::Array { elem, named: true });
            }
        }
        Expr::Cast { kind: CastKind::Cast | CastKind::DoubleColon, data_type, expr: inner, .. }
            if typed_text(data_type).is_some() =>
        {
            if let Some(function) = typed_text(data_type) {
                let inner = std::mem::replace(inner.as_mut(), Expr::Value(Value::Null.into()));
                *expr = call(function, vec![inner]);
            }
        }
        Expr::Cast { kind: CastKind::Cast | CastKind::DoubleColon, data_type, .. } => {
            // PostgreSQL cuts off what is too long for the type of a cast.
            if let Some(length) = length_of(data_type) {
                let inner = std::mem::replace(expr, Expr::Value(Value::Null.into()));
                if let Expr::Cast { kind, expr: value, array, format, .. } = inner {
                    let text = Expr::Cast { kind, expr: value, data_type: DataType::Text, array, format };
                    *expr = call("left", vec![text, number(&length.to_string())]);
                }
            } else if matches!(data_type, DataType::Bytea)
                && let Expr::Cast { expr: value, .. } = expr
                && let Expr::Value(v) = value.as_ref()
                && let Value::SingleQuotedString(s) = &v.value
                && let Some(hex) = s.strip_prefix("\\x")
            {
                let hex: String = hex.chars().filter(|c| !c.is_whitespace()).collect();
                if !hex.len().is_multiple_of(2) || !hex.chars().all(|c| c.is_ascii_hexdigit()) {
                    return Err(SqlError::new(SqlState::INVALID_TEXT, "invalid hexadecimal data"));
                }
                *expr = Expr::Value(Value::HexStringLiteral(hex).into());
            }
        }
        _ => {}
    }
    Ok(())
}

/// Whether the form has another name than the expression.
pub(super) fn renames(data_type: &DataType) -> bool {
    length_of(data_type).is_some() || typed_text(data_type).is_some()
}

/// Puts a quoted literal in other words. False where it is none, or stays as it is.
pub(super) fn reword(expr: &mut Expr, words: fn(&str) -> Option<String>) -> bool {
    match expr {
        Expr::Value(v) => reword_value(&mut v.value, words),
        _ => false,
    }
}

fn reword_value(value: &mut Value, words: fn(&str) -> Option<String>) -> bool {
    let Value::SingleQuotedString(text) = value else { return false };
    words(text).map(|new| *text = new).is_some()
}

/// The function that reads a type which is kept as text.
fn typed_text(data_type: &DataType) -> Option<&'static str> {
    match data_type {
        DataType::JSON | DataType::JSONB => Some("json_in"),
        DataType::Uuid => Some("uuid_in"),
        _ => None,
    }
}

fn item_type(data_type: &DataType) -> Option<&DataType> {
    match data_type {
        DataType::Array(ast::ArrayElemTypeDef::SquareBracket(item, _)) => Some(item),
        _ => None,
    }
}

/// The elements of an array that is written out. None where it is none, or empty.
fn written_items(array: &Expr) -> Result<Option<Vec<Expr>>> {
    let items = match array {
        Expr::Array(array) => array.elem.clone(),
        Expr::Value(v) => match &v.value {
            Value::SingleQuotedString(text) => array_items(text)?
                .into_iter()
                .map(|item| item.map_or_else(|| Expr::Value(Value::Null.into()), |item| string(&item)))
                .collect(),
            _ => return Ok(None),
        },
        _ => return Ok(None),
    };
    Ok((!items.is_empty()).then_some(items))
}

/// `numeric` without precision.
fn is_numeric(data_type: &DataType) -> bool {
    use ast::ExactNumberInfo::None;
    matches!(data_type, DataType::Numeric(None) | DataType::Decimal(None) | DataType::Dec(None))
}

/// The text of a number, quoted or not, with its sign.
fn literal_text(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Value(v) => match &v.value {
            Value::Number(n, _) => Some(n.clone()),
            Value::SingleQuotedString(text) => Some(text.clone()),
            _ => None,
        },
        Expr::UnaryOp { op: UnaryOperator::Minus, expr } | Expr::Nested(expr) => literal_text(expr),
        _ => None,
    }
}

/// A numeric with room for the digits that are written, so that none is lost.
fn exact(text: &str, data_type: &DataType) -> Result<DataType> {
    let Some(scale) = scale_of(text.trim()).filter(|scale| *scale > i64::from(NUMERIC_SCALE)) else {
        return Ok(data_type.clone());
    };
    if scale > i64::from(MAX_PRECISION) {
        return Err(SqlError::new(SqlState::NUMERIC_OUT_OF_RANGE, "value overflows numeric format")
            .with_detail(format!("A numeric has at most {MAX_PRECISION} digits; {text} has {scale} behind the point."))
            .with_hint("Use double precision."));
    }
    Ok(DataType::Numeric(ast::ExactNumberInfo::PrecisionAndScale(MAX_PRECISION.into(), scale)))
}

/// How many digits a number has behind its point. None where the text is no number.
fn scale_of(text: &str) -> Option<i64> {
    let (mantissa, exponent) = match text.find(['e', 'E']) {
        Some(at) => (&text[..at], text[at + 1..].parse::<i64>().ok()?),
        None => (text, 0),
    };
    let fraction = mantissa.split_once('.').map_or(0, |(_, fraction)| fraction.len());
    Some(i64::try_from(fraction).ok()?.saturating_sub(exponent).max(0))
}

fn is_wall_clock(data_type: &DataType) -> bool {
    use ast::TimezoneInfo as Z;
    matches!(data_type, DataType::Timestamp(_, Z::None | Z::WithoutTimeZone))
}

fn is_float(data_type: &DataType) -> bool {
    use DataType as D;
    matches!(data_type, D::Real | D::Float4 | D::Float(_) | D::Double(_) | D::DoublePrecision | D::Float8)
}

fn length_of(data_type: &DataType) -> Option<u64> {
    use ast::CharacterLength;
    let length = match data_type {
        DataType::Varchar(l) | DataType::CharacterVarying(l) | DataType::CharVarying(l) => l,
        _ => return None,
    };
    match length {
        Some(CharacterLength::IntegerLength { length, .. }) => Some(*length),
        _ => None,
    }
}
