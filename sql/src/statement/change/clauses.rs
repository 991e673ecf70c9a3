//! Which clause of a MERGE a row falls to is settled in the plan, and the values of that clause alone are computed.

use arrow::datatypes::Field;
use datafusion::common::{Column, ScalarValue};
use datafusion::logical_expr::{Case, Expr, LogicalPlan, LogicalPlanBuilder, col, lit};

use super::assignment::Place;
use super::merge::ACTION;
use super::returning::reference;
use super::settled::{opened, settled};
use super::{Shape, subquery};
use crate::error::Result;
use crate::plan::assign;

/// The number of the clause that a row falls to.
const CLAUSE: &str = "_tidewater_clause";

/// What a clause does.
pub(super) enum Action {
    Nothing,
    Delete,
    /// Where the value of each column is; none where it is null.
    Values(Vec<Option<Place>>),
}

/// The clauses, and where in the list of the query what they need is.
pub(super) struct Clauses {
    /// Their conditions.
    pub whens: Vec<usize>,
    /// Subqueries of several columns.
    pub rows: Vec<usize>,
    pub actions: Vec<Action>,
    /// What each clause does, for `merge_action()`.
    pub words: Vec<&'static str>,
    /// Whether rows that go are returned.
    pub returned: bool,
}

impl Clauses {
    /// From `place, when0, values of clause 0 …, when1, …` to the rows that go and come.
    pub fn settle(&self, plan: LogicalPlan, table: &Shape) -> Result<LogicalPlan> {
        let Self { whens, rows, actions, words, returned } = self;
        let (given, input) = opened(plan)?;
        let input = subquery::with_rows(input, rows.iter().map(|at| given[*at].clone()).collect())?;
        let number = |i: usize| i32::try_from(i).map_or_else(|_| lit(ScalarValue::Null), lit);
        // Settled once: a condition may give another answer when it is asked again.
        let clauses = whens.iter().zip(actions).enumerate().map(|(i, (at, action))| {
            // As if it were no clause's.
            let number = if matches!(action, Action::Nothing) { lit(ScalarValue::Int32(None)) } else { number(i) };
            (Box::new(given[*at].clone()), Box::new(number))
        });
        let clause = Expr::Case(Case { expr: None, when_then_expr: clauses.collect(), else_expr: None });
        let carried: Vec<Expr> = input.schema().columns().into_iter().map(Expr::Column).collect();
        let below = LogicalPlanBuilder::from(input)
            .project(carried.into_iter().chain([clause.alias(CLAUSE)]))?
            .filter(col(CLAUSE).is_not_null())?
            .build()?;
        let schema = below.schema().clone();
        let of_clause = |values: Vec<(usize, Expr)>| {
            let when_then_expr = values.into_iter().map(|(i, value)| (Box::new(number(i)), Box::new(value))).collect();
            Expr::Case(Case { expr: Some(Box::new(col(CLAUSE))), when_then_expr, else_expr: None })
        };
        let comes = of_clause(
            actions.iter().enumerate().map(|(i, values)| (i, lit(matches!(values, Action::Values(_))))).collect(),
        );
        let action = of_clause(words.iter().enumerate().map(|(i, word)| (i, lit(*word))).collect());
        let old = |field: &Field| Expr::Column(Column::new(Some(reference(&table.alias.name)), field.name()));
        let value = |column: usize| {
            let field = table.schema.field(column);
            let mut values = Vec::new();
            for (i, action) in actions.iter().enumerate() {
                let value = match action {
                    Action::Delete if *returned => old(field),
                    Action::Delete | Action::Nothing => continue,
                    Action::Values(values) => match &values[column] {
                        Some(place) => place.of(&given),
                        None => continue,
                    },
                };
                values.push((i, assign::to_type(value, schema.as_ref(), field.data_type(), field.name())?));
            }
            let null = lit(ScalarValue::try_from(field.data_type())?);
            Ok(Some(if values.is_empty() { null } else { of_clause(values) }))
        };
        settled(below, table, given[0].clone(), comes, value, &[(ACTION, action)])
    }
}
