//! `REPLAY DLQ stream [WHERE …]`.

use std::ops::ControlFlow;

use sqlparser::ast::{Expr, Query, Visitor};

use super::ast::{ReplayDlq, ReplayFilter, Statement};
use super::cursor::{Cursor, Parsed};
use super::errors::{At, refused};
use super::tree::walk;

pub(super) fn parse(c: &mut Cursor<'_>) -> Parsed<Option<Statement>> {
    if !c.eat(&["REPLAY", "DLQ"]) {
        return Ok(None);
    }
    let stream = c.name()?;
    let mut filter = None;
    if c.eat(&["WHERE"]) {
        let location = c.location();
        let (expr, text) = c.expr_with_text()?;
        check(&expr).map_err(|e| At::new(e, location))?;
        filter = Some(ReplayFilter { expr, text });
    }
    Ok(Some(Statement::ReplayDlq(Box::new(ReplayDlq { stream, filter }))))
}

/// Each letter is chosen by what it is alone: a request that a crash interrupts chooses again, and must choose the same.
fn check(expr: &Expr) -> Result<(), crate::SqlError> {
    struct V;
    impl Visitor for V {
        type Break = crate::SqlError;
        fn pre_visit_query(&mut self, _: &Query) -> ControlFlow<Self::Break> {
            ControlFlow::Break(refused(
                "a subquery in REPLAY DLQ … WHERE is not supported yet",
                "Name the letters by their columns: WHERE _partition = 0 AND _offset IN (5, 17).",
            ))
        }
        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<Self::Break> {
            if matches!(expr, Expr::Function(f) if f.over.is_some()) {
                return ControlFlow::Break(crate::SqlError::new(
                    crate::SqlState("42P20"),
                    "window functions are not allowed in WHERE",
                ));
            }
            ControlFlow::Continue(())
        }
    }
    match walk(expr, &mut V) {
        ControlFlow::Break(e) => Err(e),
        ControlFlow::Continue(()) => Ok(()),
    }
}
