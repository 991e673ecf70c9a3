//! Walks over the syntax tree.
//!
//! The parser's own walk is generic, and the whole tree's code would be compiled once for each visitor. Here it is
//! compiled for one, which hands on what it sees.

use std::ops::ControlFlow;

use sqlparser::ast::{Expr, ObjectName, Query, Statement, TableFactor, Value, Visit, VisitMut, Visitor, VisitorMut};

/// Shows the visitor all that is in `node`, until it breaks off.
pub(crate) fn walk<B>(node: &impl Visit, visitor: &mut dyn Visitor<Break = B>) -> ControlFlow<B> {
    let mut kept = Kept { visitor, broken: None };
    let _ = node.visit(&mut Handed(&mut kept));
    kept.broken.map_or(ControlFlow::Continue(()), ControlFlow::Break)
}

/// [`walk`] for visitors that change what they see.
pub(crate) fn walk_mut<B>(node: &mut impl VisitMut, visitor: &mut dyn VisitorMut<Break = B>) -> ControlFlow<B> {
    let mut kept = KeptMut { visitor, broken: None };
    let _ = node.visit(&mut HandedMut(&mut kept));
    kept.broken.map_or(ControlFlow::Continue(()), ControlFlow::Break)
}

struct Handed<'a>(&'a mut dyn Visitor<Break = ()>);
struct HandedMut<'a>(&'a mut dyn VisitorMut<Break = ()>);

/// Keeps what a visitor broke off with, which may be of any type.
struct Kept<'a, B> {
    visitor: &'a mut dyn Visitor<Break = B>,
    broken: Option<B>,
}
struct KeptMut<'a, B> {
    visitor: &'a mut dyn VisitorMut<Break = B>,
    broken: Option<B>,
}

fn keep<B>(step: ControlFlow<B>, broken: &mut Option<B>) -> ControlFlow<()> {
    match step {
        ControlFlow::Continue(()) => ControlFlow::Continue(()),
        ControlFlow::Break(b) => {
            *broken = Some(b);
            ControlFlow::Break(())
        }
    }
}

macro_rules! hand_on {
    ($visitor:ident, $handed:ident, $kept:ident, $($method:ident: $node:ty,)*) => {
        impl $visitor for $handed<'_> {
            type Break = ();
            $(fn $method(&mut self, node: $node) -> ControlFlow<()> {
                self.0.$method(node)
            })*
        }
        impl<B> $visitor for $kept<'_, B> {
            type Break = ();
            $(fn $method(&mut self, node: $node) -> ControlFlow<()> {
                keep(self.visitor.$method(node), &mut self.broken)
            })*
        }
    };
}

hand_on!(
    Visitor,
    Handed,
    Kept,
    pre_visit_query: &Query,
    post_visit_query: &Query,
    pre_visit_relation: &ObjectName,
    post_visit_relation: &ObjectName,
    pre_visit_table_factor: &TableFactor,
    post_visit_table_factor: &TableFactor,
    pre_visit_expr: &Expr,
    post_visit_expr: &Expr,
    pre_visit_statement: &Statement,
    post_visit_statement: &Statement,
    pre_visit_value: &Value,
    post_visit_value: &Value,
);

hand_on!(
    VisitorMut,
    HandedMut,
    KeptMut,
    pre_visit_query: &mut Query,
    post_visit_query: &mut Query,
    pre_visit_relation: &mut ObjectName,
    post_visit_relation: &mut ObjectName,
    pre_visit_table_factor: &mut TableFactor,
    post_visit_table_factor: &mut TableFactor,
    pre_visit_expr: &mut Expr,
    post_visit_expr: &mut Expr,
    pre_visit_statement: &mut Statement,
    post_visit_statement: &mut Statement,
    pre_visit_value: &mut Value,
    post_visit_value: &mut Value,
);
