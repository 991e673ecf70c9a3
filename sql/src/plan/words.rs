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
    let i = super::interval::interval(text)?;
    let (seconds, nanos) = (i.nanoseconds / 1_000_000_000, (i.nanoseconds % 1_000_000_000).unsigned_abs());
    let sign = if i.nanoseconds < 0 { "-" } else { "" };
    Some(format!("{} months {} days {sign}{}.{nanos:09} seconds", i.months, i.days, seconds.unsigned_abs()))
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
