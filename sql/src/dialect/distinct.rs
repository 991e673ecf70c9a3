//! `a IS [NOT] DISTINCT FROM b AND c`: the parser takes all that follows for the right side. Here the conditions are put
//! together as they are written, AND before OR.

use std::ops::ControlFlow;

use sqlparser::ast::{BinaryOperator, Expr, UnaryOperator, Value, VisitMut, VisitorMut};

use super::walk_mut;

/// Mends every expression in `node`.
pub(crate) fn regroup(node: &mut impl VisitMut) {
    struct V;
    impl VisitorMut for V {
        type Break = ();
        fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
            if takes_too_much(expr) {
                let whole = std::mem::replace(expr, Expr::Value(Value::Null.into()));
                let (mut operands, mut operators) = (Vec::new(), Vec::new());
                flatten(whole, &mut operands, &mut operators);
                if let Some(mended) = join(operands, operators) {
                    *expr = mended;
                }
            }
            ControlFlow::Continue(())
        }
    }
    let _ = walk_mut(node, &mut V);
}

fn is_condition(expr: &Expr) -> bool {
    matches!(expr, Expr::BinaryOp { op: BinaryOperator::And | BinaryOperator::Or, .. })
}

/// Whether a comparison at the end of the expression has taken conditions in. Parentheses are nodes of their own.
fn takes_too_much(expr: &Expr) -> bool {
    match expr {
        Expr::IsDistinctFrom(_, right) | Expr::IsNotDistinctFrom(_, right) => {
            is_condition(right) || takes_too_much(right)
        }
        Expr::BinaryOp { right, .. } if is_condition(expr) => takes_too_much(right),
        Expr::UnaryOp { op: UnaryOperator::Not, expr } => takes_too_much(expr),
        _ => false,
    }
}

/// Operands as they are written, and the operators between them.
fn flatten(expr: Expr, operands: &mut Vec<Expr>, operators: &mut Vec<BinaryOperator>) {
    let first = operands.len();
    match expr {
        Expr::BinaryOp { left, op: op @ (BinaryOperator::And | BinaryOperator::Or), right } => {
            flatten(*left, operands, operators);
            operators.push(op);
            flatten(*right, operands, operators);
        }
        Expr::IsDistinctFrom(left, right) => {
            flatten(*right, operands, operators);
            wrap(operands, first, |right| Expr::IsDistinctFrom(left, Box::new(right)));
        }
        Expr::IsNotDistinctFrom(left, right) => {
            flatten(*right, operands, operators);
            wrap(operands, first, |right| Expr::IsNotDistinctFrom(left, Box::new(right)));
        }
        Expr::UnaryOp { op: UnaryOperator::Not, expr } => {
            flatten(*expr, operands, operators);
            wrap(operands, first, |e| Expr::UnaryOp { op: UnaryOperator::Not, expr: Box::new(e) });
        }
        other => operands.push(other),
    }
}

fn wrap(operands: &mut [Expr], at: usize, f: impl FnOnce(Expr) -> Expr) {
    if let Some(slot) = operands.get_mut(at) {
        let inner = std::mem::replace(slot, Expr::Value(Value::Null.into()));
        *slot = f(inner);
    }
}

fn join(operands: Vec<Expr>, operators: Vec<BinaryOperator>) -> Option<Expr> {
    let binary = |left: Expr, op: BinaryOperator, right: Expr| Expr::BinaryOp {
        left: Box::new(left),
        op,
        right: Box::new(right),
    };
    let mut operands = operands.into_iter();
    let mut all = operands.next()?;
    // What OR has joined so far, while `all` gathers what AND joins.
    let mut before: Option<Expr> = None;
    for (op, operand) in operators.into_iter().zip(operands) {
        if op == BinaryOperator::And {
            all = binary(all, op, operand);
        } else {
            let left = std::mem::replace(&mut all, operand);
            before = Some(match before.take() {
                Some(before) => binary(before, BinaryOperator::Or, left),
                None => left,
            });
        }
    }
    Some(match before {
        Some(before) => binary(before, BinaryOperator::Or, all),
        None => all,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use sqlparser::parser::Parser;

    use super::*;
    use crate::dialect::DIALECT;

    #[test]
    fn conditions_are_joined_as_they_are_written() {
        for (written, meant) in [
            ("a IS NOT DISTINCT FROM b AND c", "(a IS NOT DISTINCT FROM b) AND c"),
            ("a IS DISTINCT FROM b OR c AND d", "(a IS DISTINCT FROM b) OR (c AND d)"),
            ("p AND a IS DISTINCT FROM b OR c", "(p AND (a IS DISTINCT FROM b)) OR c"),
            ("NOT a IS DISTINCT FROM b AND c", "(NOT (a IS DISTINCT FROM b)) AND c"),
            (
                "a IS DISTINCT FROM b AND c IS NOT DISTINCT FROM d OR e",
                "((a IS DISTINCT FROM b) AND (c IS NOT DISTINCT FROM d)) OR e",
            ),
            ("a IS DISTINCT FROM (b AND c)", "a IS DISTINCT FROM (b AND c)"),
        ] {
            let parse = |sql: &str| Parser::new(&DIALECT).try_with_sql(sql).unwrap().parse_expr().unwrap();
            let mut mended = parse(written);
            regroup(&mut mended);
            assert_eq!(shape(&mended), shape(&parse(meant)), "{written}");
        }
    }

    /// Without parentheses of the text, and with all that are meant.
    fn shape(expr: &Expr) -> String {
        match expr {
            Expr::Nested(inner) => shape(inner),
            Expr::BinaryOp { left, op, right } => format!("({} {op} {})", shape(left), shape(right)),
            Expr::IsDistinctFrom(a, b) => format!("({} <> {})", shape(a), shape(b)),
            Expr::IsNotDistinctFrom(a, b) => format!("({} == {})", shape(a), shape(b)),
            Expr::UnaryOp { op, expr } => format!("({op} {})", shape(expr)),
            other => other.to_string(),
        }
    }
}
