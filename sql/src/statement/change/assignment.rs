//! `SET a = …, (b, c) = (…, …)`.

use std::ops::ControlFlow;

use arrow::datatypes::SchemaRef;
use sqlparser::ast::{self, Assignment, AssignmentTarget, ObjectName, Visitor};

use super::Shape;
use crate::dialect::{fold, walk};
use crate::error::Result;
use crate::session::StatementContext;
use crate::statement::{default_value, insert};
use crate::{SqlError, SqlState};

/// Where the named column stands. `alias.column` is taken, too.
pub(super) fn column(ctx: &StatementContext<'_>, table: &Shape, name: &ObjectName) -> Result<usize> {
    let parts: Vec<&ast::Ident> = name.0.iter().filter_map(|part| part.as_ident()).collect();
    let ident = match parts.as_slice() {
        [column] => *column,
        [qualifier, column] if fold(qualifier) == fold(&table.alias.name) => *column,
        _ => {
            return Err(SqlError::unsupported(format!("assignment to {name} is not supported"))
                .with_hint("Name a column of the table."));
        }
    };
    let wanted = fold(ident);
    table.schema.index_of(&wanted).map_err(|_| {
        let text = format!("column \"{wanted}\" of relation \"{}\" does not exist", table.shown);
        let mut error = SqlError::new(SqlState::UNDEFINED_COLUMN, text);
        error.position = ctx.statement.position(ident.span.start);
        error
    })
}

/// The new value of each column, and none where it stays.
pub(super) fn values(
    ctx: &StatementContext<'_>,
    table: &Shape,
    assignments: &[Assignment],
) -> Result<Vec<Option<ast::Expr>>> {
    let mut all = vec![None; table.schema.fields().len()];
    for assignment in assignments {
        let pairs: Vec<(&ObjectName, ast::Expr)> = match (&assignment.target, &assignment.value) {
            (AssignmentTarget::ColumnName(name), value) => vec![(name, value.clone())],
            (AssignmentTarget::Tuple(names), ast::Expr::Tuple(values)) if names.len() == values.len() => {
                names.iter().zip(values.iter().cloned()).collect()
            }
            (AssignmentTarget::Tuple(names), ast::Expr::Nested(value)) if names.len() == 1 => {
                vec![(&names[0], value.as_ref().clone())]
            }
            (AssignmentTarget::Tuple(_), ast::Expr::Tuple(_)) => {
                return Err(SqlError::syntax("number of columns does not match number of values"));
            }
            (AssignmentTarget::Tuple(_), _) => {
                return Err(SqlError::unsupported("SET (…) = (SELECT …) is not supported yet")
                    .with_hint("Assign each column its own subquery, or put the query into FROM."));
            }
        };
        for (name, mut value) in pairs {
            refuse_windows(&value)?;
            let at = column(ctx, table, name)?;
            let field = table.schema.field(at);
            default_value::fill(&mut value, &table.defaults, field.name())?;
            insert::type_cell(&mut value, field.data_type(), false)?;
            if all[at].replace(value).is_some() {
                return Err(SqlError::syntax(format!("multiple assignments to same column \"{}\"", field.name())));
            }
        }
    }
    Ok(all)
}

/// Expressions with the types of their columns, for parameters among them.
pub(super) fn cells(schema: &SchemaRef, values: &[Option<ast::Expr>]) -> Vec<(ast::Expr, arrow::datatypes::DataType)> {
    let assigned = values.iter().zip(schema.fields());
    assigned.filter_map(|(value, field)| Some((value.clone()?, field.data_type().clone()))).collect()
}

/// 42P20, as in PostgreSQL.
pub(super) fn refuse_windows(expr: &ast::Expr) -> Result<()> {
    struct Found {
        depth: usize,
        window: bool,
    }
    impl Visitor for Found {
        type Break = ();
        fn pre_visit_query(&mut self, _: &ast::Query) -> ControlFlow<()> {
            self.depth += 1;
            ControlFlow::Continue(())
        }
        fn post_visit_query(&mut self, _: &ast::Query) -> ControlFlow<()> {
            self.depth -= 1;
            ControlFlow::Continue(())
        }
        fn pre_visit_expr(&mut self, expr: &ast::Expr) -> ControlFlow<()> {
            self.window |= self.depth == 0 && matches!(expr, ast::Expr::Function(f) if f.over.is_some());
            ControlFlow::Continue(())
        }
    }
    let mut found = Found { depth: 0, window: false };
    let _ = walk(expr, &mut found);
    if found.window {
        return Err(SqlError::new(
            SqlState("42P20"),
            "window functions are not allowed in what is assigned to a column",
        )
        .with_hint("Compute them in a query after FROM or USING."));
    }
    Ok(())
}
