//! `SET a = …, (b, c) = (…, …)`.

use std::ops::ControlFlow;

use arrow::datatypes::SchemaRef;
use datafusion::logical_expr::Expr;
use sqlparser::ast::{self, Assignment, AssignmentTarget, ObjectName, Select, Visitor};

use super::{Shape, named, subquery};
use crate::dialect::{fold, walk};
use crate::error::Result;
use crate::plan::rewrite;
use crate::session::StatementContext;
use crate::statement::{cells, default_value};
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

/// What an assignment gives a column.
#[derive(Clone)]
pub(super) enum Value {
    Expr(ast::Expr),
    /// A member of one of [`Assigned::rows`].
    Member {
        row: usize,
        member: usize,
    },
}

/// What is assigned.
pub(super) struct Assigned {
    /// The new value of each column, and none where it stays.
    pub values: Vec<Option<Value>>,
    /// Subqueries of several columns, each computed once, as rows.
    pub rows: Vec<ast::Expr>,
}

pub(super) fn values(ctx: &StatementContext<'_>, table: &Shape, assignments: &[Assignment]) -> Result<Assigned> {
    let mut all = vec![None; table.schema.fields().len()];
    let mut rows = Vec::new();
    let mut assign = |name: &ObjectName, value: Value| {
        let at = column(ctx, table, name)?;
        let field = table.schema.field(at);
        let value = match value {
            Value::Expr(mut value) => {
                refuse_windows(&value)?;
                default_value::fill(&mut value, &table.defaults, field.name())?;
                cells::type_cell(&mut value, field.data_type(), false)?;
                Value::Expr(value)
            }
            member => member,
        };
        if all[at].replace(value).is_some() {
            return Err(SqlError::syntax(format!("multiple assignments to same column \"{}\"", field.name())));
        }
        Ok(())
    };
    for assignment in assignments {
        let names = match &assignment.target {
            AssignmentTarget::ColumnName(name) => {
                assign(name, Value::Expr(assignment.value.clone()))?;
                continue;
            }
            AssignmentTarget::Tuple(names) => names,
        };
        let mut value = assignment.value.clone();
        if let ast::Expr::Subquery(query) = &value {
            let types = names.iter().map(|name| Ok(table.schema.field(column(ctx, table, name)?).data_type().clone()));
            let types = types.collect::<Result<Vec<_>>>()?;
            for (member, name) in names.iter().enumerate() {
                assign(name, Value::Member { row: rows.len(), member })?;
            }
            rows.push(subquery::row(query, &types)?);
            continue;
        }
        let values = match (cells::row_values(&mut value), value) {
            (Some(values), _) => values,
            (None, ast::Expr::Nested(value)) => vec![*value],
            (None, _) => {
                return Err(SqlError::unsupported("this source of several columns is not supported")
                    .with_hint("Write SET (a, b) = (x, y), or = (SELECT x, y …)."));
            }
        };
        if values.len() != names.len() {
            return Err(counts_differ());
        }
        for (name, value) in names.iter().zip(values) {
            assign(name, Value::Expr(value))?;
        }
    }
    Ok(Assigned { values: all, rows })
}

pub(super) fn counts_differ() -> SqlError {
    SqlError::syntax("number of columns does not match number of values")
}

/// Where a value is found in the plan of the statement.
pub(super) enum Place {
    /// In the list, here.
    At(usize),
    Member {
        row: usize,
        member: usize,
    },
}

impl Place {
    pub fn of(&self, list: &[Expr]) -> Expr {
        match self {
            Self::At(at) => list[*at].clone(),
            Self::Member { row, member } => subquery::member(*row, *member),
        }
    }
}

/// Puts the values into the list.
pub(super) fn listed(values: Vec<Option<Value>>, select: &mut Select, prefix: &str) -> Vec<Option<Place>> {
    let place = |(i, value): (usize, Option<Value>)| {
        Some(match value? {
            Value::Expr(value) => {
                select.projection.push(named(value, format!("{prefix}{i}")));
                Place::At(select.projection.len() - 1)
            }
            Value::Member { row, member } => Place::Member { row, member },
        })
    };
    values.into_iter().enumerate().map(place).collect()
}

/// Expressions with the types of their columns, for parameters among them.
pub(super) fn cells(schema: &SchemaRef, values: &[Option<Value>]) -> Vec<(ast::Expr, arrow::datatypes::DataType)> {
    let assigned = values.iter().zip(schema.fields());
    let cell = |(value, field): (&Option<Value>, &arrow::datatypes::FieldRef)| match value {
        Some(Value::Expr(value)) => Some((value.clone(), field.data_type().clone())),
        _ => None,
    };
    assigned.filter_map(cell).collect()
}

/// 42P20 and 42803, as in PostgreSQL.
pub(super) fn refuse_windows(expr: &ast::Expr) -> Result<()> {
    struct Found {
        depth: usize,
        window: bool,
        aggregate: bool,
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
            let window = matches!(expr, ast::Expr::Function(f) if f.over.is_some());
            self.window |= self.depth == 0 && window;
            self.aggregate |= self.depth == 0 && !window && rewrite::is_aggregate(expr);
            ControlFlow::Continue(())
        }
    }
    let mut found = Found { depth: 0, window: false, aggregate: false };
    let _ = walk(expr, &mut found);
    if found.window {
        return Err(SqlError::new(
            SqlState("42P20"),
            "window functions are not allowed in what is assigned to a column",
        )
        .with_hint("Compute them in a query after FROM or USING."));
    }
    if found.aggregate {
        return Err(SqlError::new(
            SqlState("42803"),
            "aggregate functions are not allowed in what is assigned to a column",
        )
        .with_hint("Write a subquery: (SELECT max(x) FROM …)."));
    }
    Ok(())
}
