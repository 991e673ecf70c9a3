//! Single expressions in other words: comparisons with arrays, intervals, calls that the planner knows by another name.

use std::any::Any;
use std::sync::Arc;

use datafusion::common::{exec_err, plan_err};
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::{
    ColumnarValue, Expr as PlanExpr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use sqlparser::ast::{
    self, BinaryOperator, CastKind, DataType, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Ident,
    Value,
};

use super::rewrite::{call, string};
use crate::SqlError;
use crate::dialect::fold;
use crate::error::Result;

/// `value op ANY (array)` as a call, which gets its form once types are known.
pub(super) fn quantified(left: &Expr, op: &BinaryOperator, quantifier: &str, right: &Expr) -> Result<Expr> {
    use BinaryOperator as B;
    let symbol = match op {
        B::Eq => "=",
        B::NotEq => "<>",
        B::Lt => "<",
        B::LtEq => "<=",
        B::Gt => ">",
        B::GtEq => ">=",
        other => {
            return Err(SqlError::unsupported(format!("{other} with ANY or ALL of an array is not supported"))
                .with_hint("The operators are =, <>, <, <=, > and >=."));
        }
    };
    let right = match right {
        Expr::Nested(inner) => inner.as_ref(),
        other => other,
    };
    Ok(call(super::quantified::NAME, vec![left.clone(), string(symbol), string(quantifier), right.clone()]))
}

/// `x LIKE ANY (ARRAY[…])`: the patterns written out.
pub(super) fn like_any(expr: &Expr) -> Result<Expr> {
    let (Expr::Like { negated, expr: value, pattern, escape_char, .. }
    | Expr::ILike { negated, expr: value, pattern, escape_char, .. }) = expr
    else {
        return Ok(expr.clone());
    };
    let inner = match pattern.as_ref() {
        Expr::Nested(inner) => inner.as_ref(),
        other => other,
    };
    let patterns = match inner {
        Expr::Array(array) => array.elem.clone(),
        Expr::Tuple(patterns) => patterns.clone(),
        Expr::Value(v) => match &v.value {
            Value::SingleQuotedString(text) => super::literals::array_items(text)?
                .into_iter()
                .map(|item| item.map_or_else(|| Expr::Value(Value::Null.into()), |item| string(&item)))
                .collect(),
            _ => vec![],
        },
        _ => vec![],
    };
    let case = matches!(expr, Expr::Like { .. });
    let like = |pattern: Expr| {
        let (negated, expr, pattern, escape_char) = (*negated, value.clone(), Box::new(pattern), escape_char.clone());
        if case {
            Expr::Like { negated, any: false, expr, pattern, escape_char }
        } else {
            Expr::ILike { negated, any: false, expr, pattern, escape_char }
        }
    };
    patterns
        .into_iter()
        .map(like)
        .reduce(|l, r| Expr::BinaryOp { left: Box::new(l), op: BinaryOperator::Or, right: Box::new(r) })
        .map(|all| Expr::Nested(Box::new(all)))
        .ok_or_else(|| {
            SqlError::unsupported("LIKE ANY of an array that is not written out is not supported")
                .with_hint("Write LIKE ANY (ARRAY['a%', 'b%']).")
        })
}

/// The interval in words that the engine reads. None where the text is no interval, or one that only the engine knows.
pub(super) fn plain_interval(text: &str) -> Option<String> {
    super::interval::interval(text).map(|i| in_words(i.months.into(), i.days.into(), i.nanoseconds.into()))
}

/// `- INTERVAL '1 day 1 hour'`: the engine would turn the sign of the first field alone.
pub(super) fn minus_interval(text: &str) -> Option<String> {
    super::interval::interval(text)
        .map(|i| in_words(-i64::from(i.months), -i64::from(i.days), -i128::from(i.nanoseconds)))
}

fn in_words(months: i64, days: i64, nanoseconds: i128) -> String {
    let sign = if nanoseconds < 0 { "-" } else { "" };
    let (seconds, nanos) = (nanoseconds.unsigned_abs() / 1_000_000_000, nanoseconds.unsigned_abs() % 1_000_000_000);
    format!("{months} months {days} days {sign}{seconds}.{nanos:09} seconds")
}

/// `-a ^ b` is `(-a) ^ b`: the sign binds closer than the power.
pub(super) fn sign_before_power(power: Expr) -> Expr {
    match power {
        Expr::BinaryOp { left, op: BinaryOperator::PGExp, right } => {
            Expr::BinaryOp { left: Box::new(sign_before_power(*left)), op: BinaryOperator::PGExp, right }
        }
        base => Expr::Nested(Box::new(Expr::UnaryOp { op: ast::UnaryOperator::Minus, expr: Box::new(base) })),
    }
}

/// Rows compare element by element, and a NULL among them makes the answer unknown.
pub(super) fn rows_equal(left: &Expr, right: &Expr, equal: bool) -> Option<Expr> {
    let (left, right) = (row(left)?, row(right)?);
    if left.len() != right.len() {
        return None;
    }
    let pairs = left.into_iter().zip(right).map(|(l, r)| {
        let (l, r) = (Box::new(Expr::Nested(Box::new(l))), Box::new(Expr::Nested(Box::new(r))));
        Expr::BinaryOp { left: l, op: BinaryOperator::Eq, right: r }
    });
    let all = Expr::Nested(Box::new(conjunction(pairs)?));
    Some(if equal { all } else { Expr::UnaryOp { op: ast::UnaryOperator::Not, expr: Box::new(all) } })
}

/// `(a, b) IN ((1, 2), (3, 4))`.
pub(super) fn row_among(value: &Expr, list: &[Expr], negated: bool) -> Option<Expr> {
    let tests = list.iter().map(|item| rows_equal(value, item, true)).collect::<Option<Vec<_>>>()?;
    let any = tests.into_iter().reduce(|l, r| {
        Expr::Nested(Box::new(Expr::BinaryOp { left: Box::new(l), op: BinaryOperator::Or, right: Box::new(r) }))
    })?;
    Some(if negated { Expr::UnaryOp { op: ast::UnaryOperator::Not, expr: Box::new(any) } } else { any })
}

/// `(a, b) < (c, d)`: the first elements that differ decide; unknown where one of these is.
pub(super) fn row_order(left: &Expr, op: &BinaryOperator, right: &Expr) -> Option<Expr> {
    let strict = match op {
        BinaryOperator::Lt | BinaryOperator::LtEq => BinaryOperator::Lt,
        BinaryOperator::Gt | BinaryOperator::GtEq => BinaryOperator::Gt,
        _ => return None,
    };
    let (left, right) = (row(left)?, row(right)?);
    if left.len() != right.len() {
        return None;
    }
    let compare = |l: &Expr, op: &BinaryOperator, r: &Expr| Expr::BinaryOp {
        left: Box::new(Expr::Nested(Box::new(l.clone()))),
        op: op.clone(),
        right: Box::new(Expr::Nested(Box::new(r.clone()))),
    };
    let join = |l: Expr, op: BinaryOperator, r: Expr| {
        Expr::Nested(Box::new(Expr::BinaryOp { left: Box::new(l), op, right: Box::new(r) }))
    };
    let mut pairs = left.iter().zip(&right).rev();
    let (l, r) = pairs.next()?;
    let mut tests = compare(l, op, r);
    for (l, r) in pairs {
        let equal = join(compare(l, &BinaryOperator::Eq, r), BinaryOperator::And, tests);
        tests = join(compare(l, &strict, r), BinaryOperator::Or, equal);
    }
    Some(Expr::Nested(Box::new(tests)))
}

/// A row is NULL where all of its elements are, and NOT NULL where none is.
pub(super) fn row_is_null(of: &Expr, null: bool) -> Option<Expr> {
    let tests = row(of)?.into_iter().map(|e| {
        let e = Box::new(Expr::Nested(Box::new(e)));
        if null { Expr::IsNull(e) } else { Expr::IsNotNull(e) }
    });
    Some(Expr::Nested(Box::new(conjunction(tests)?)))
}

fn conjunction(tests: impl Iterator<Item = Expr>) -> Option<Expr> {
    tests.reduce(|l, r| Expr::BinaryOp { left: Box::new(l), op: BinaryOperator::And, right: Box::new(r) })
}

/// Elements of `(a, b)` and `ROW(a, b)`.
fn row(expr: &Expr) -> Option<Vec<Expr>> {
    match expr {
        Expr::Tuple(elements) => Some(elements.clone()),
        Expr::Function(f) if f.name.0.len() == 1 && f.name.0[0].as_ident().is_some_and(|i| fold(i) == "row") => {
            let FunctionArguments::List(list) = &f.args else { return None };
            let elements = list.args.iter().map(|a| match a {
                FunctionArg::Unnamed(FunctionArgExpr::Expr(e)) => Some(e.clone()),
                _ => None,
            });
            elements.collect()
        }
        _ => None,
    }
}

/// `extract(second FROM x)` with the fraction that belongs to it.
pub(super) fn seconds(part: &str, of: Expr) -> Option<Expr> {
    let factor = match part {
        "second" | "seconds" => "0.000001",
        "millisecond" | "milliseconds" => "0.001",
        _ => return None,
    };
    let whole = Expr::Cast {
        kind: CastKind::Cast,
        expr: Box::new(call("date_part", vec![string("microsecond"), of])),
        data_type: DataType::Numeric(ast::ExactNumberInfo::PrecisionAndScale(20, 0)),
        array: false,
        format: None,
    };
    let factor = Expr::Value(Value::Number(factor.to_owned(), false).into());
    let product = Expr::BinaryOp { left: Box::new(whole), op: BinaryOperator::Multiply, right: Box::new(factor) };
    Some(Expr::Nested(Box::new(product)))
}

/// In PostgreSQL a dot stands for a line's end too.
pub(super) fn dot_is_any(pattern: &mut Expr) {
    let old = std::mem::replace(pattern, Expr::Value(Value::Null.into()));
    *pattern = match &old {
        Expr::Value(v) => match &v.value {
            Value::SingleQuotedString(text) | Value::EscapedStringLiteral(text) => string(&format!("(?s){text}")),
            _ => old,
        },
        _ => Expr::Nested(Box::new(Expr::BinaryOp {
            left: Box::new(string("(?s)")),
            op: BinaryOperator::StringConcat,
            right: Box::new(Expr::Nested(Box::new(old))),
        })),
    };
}

/// A timestamp without time zone takes no notice of one: `2024-01-01 10:00:00+05` is ten o'clock.
pub(super) fn without_zone(text: &str) -> Option<String> {
    let text = text.trim();
    let clock = text.find([' ', 'T', 't']).filter(|at| text[*at..].contains(':'))? + 1;
    let zone = text[clock..].find(['+', '-', 'Z', 'z'])? + clock;
    Some(text[..zone].trim_end().to_owned())
}

/// Calls that are other words for what there is.
pub(super) fn renamed(function: &mut Function) -> Option<Expr> {
    let [ast::ObjectNamePart::Identifier(name)] = function.name.0.as_mut_slice() else { return None };
    let FunctionArguments::List(list) = &function.args else { return None };
    let arg = |i: usize| match list.args.get(i) {
        Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(e))) => Some(e.clone()),
        _ => None,
    };
    let nested = |e: Expr| Box::new(Expr::Nested(Box::new(e)));
    match (fold(name).as_str(), list.args.len()) {
        ("gen_random_uuid", 0) => {
            *name = Ident::new("uuid");
            None
        }
        ("sign", 1) => {
            *name = Ident::new("signum");
            None
        }
        // All of them, not the first.
        ("array_remove", 2) => {
            *name = Ident::new("array_remove_all");
            None
        }
        ("array_replace", 3) => {
            *name = Ident::new("array_replace_all");
            None
        }
        ("regexp_replace", 3..) => {
            if let FunctionArguments::List(list) = &mut function.args
                && let Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Value(v)))) = list.args.get_mut(2)
                && let Value::SingleQuotedString(text) = &mut v.value
            {
                // A dollar stands for itself, and `\&` for the whole match.
                *text = text.replace('$', "$$").replace("\\&", "${0}");
            }
            None
        }
        // Nothing is found nowhere.
        ("replace", 3) if matches!(arg(1), Some(Expr::Value(v)) if v.value == Value::SingleQuotedString(String::new())) => {
            arg(0)
        }
        // An array without elements has no dimension.
        ("array_length", 2) => Some(call(
            "nullif",
            vec![Expr::Function(function.clone()), Expr::Value(Value::Number("0".to_owned(), false).into())],
        )),
        ("date_part", 2) => {
            let part = match arg(0)? {
                Expr::Value(v) => v.value.into_string()?.to_lowercase(),
                _ => return None,
            };
            let value = match seconds(&part, arg(1)?) {
                Some(product) => product,
                None => call("date_part", vec![string(&part), arg(1)?]),
            };
            Some(Expr::Cast {
                kind: CastKind::Cast,
                expr: Box::new(value),
                data_type: DataType::DoublePrecision,
                array: false,
                format: None,
            })
        }
        ("mod", 2) => {
            let mod_op = Expr::BinaryOp { left: nested(arg(0)?), op: BinaryOperator::Modulo, right: nested(arg(1)?) };
            Some(Expr::Nested(Box::new(mod_op)))
        }
        ("age", 1) => Some(call("age", vec![call("current_date", vec![]), arg(0)?])),
        // What was read is a wall clock in the zone of the session.
        ("to_timestamp", 2) => Some(Expr::Cast {
            kind: CastKind::Cast,
            expr: Box::new(Expr::Function(function.clone())),
            data_type: DataType::Timestamp(None, ast::TimezoneInfo::Tz),
            array: false,
            format: None,
        }),
        _ => None,
    }
}

/// The planner leaves casts out of names, so that `sum(a::int)` and `sum(a)` were one column to it. Inside of
/// aggregates a cast stands in a call that names its type, and is gone when the plan is optimised.
pub(super) const AS_IS: &str = "as_is";

pub(super) fn as_is() -> Arc<ScalarUDF> {
    Arc::new(ScalarUDF::from(AsIs { signature: Signature::any(2, Volatility::Immutable) }))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct AsIs {
    signature: Signature,
}

impl ScalarUDFImpl for AsIs {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn name(&self) -> &str {
        AS_IS
    }
    fn signature(&self) -> &Signature {
        &self.signature
    }
    fn return_type(&self, args: &[arrow::datatypes::DataType]) -> DfResult<arrow::datatypes::DataType> {
        args.first().cloned().map_or_else(|| plan_err!("as_is takes two arguments"), Ok)
    }
    fn simplify(&self, args: Vec<PlanExpr>, _: &SimplifyContext) -> DfResult<ExprSimplifyResult> {
        match args.into_iter().next() {
            Some(arg) => Ok(ExprSimplifyResult::Simplified(arg)),
            None => plan_err!("as_is takes two arguments"),
        }
    }
    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        args.args.into_iter().next().map_or_else(|| exec_err!("as_is takes two arguments"), Ok)
    }
}
