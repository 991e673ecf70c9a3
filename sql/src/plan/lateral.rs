//! `FROM t, UNNEST(t.items) AS i`: an UNNEST that reads the tables before it.
//!
//! The planner gives UNNEST in FROM an empty row to read. So such an UNNEST is first put into a join of its own with
//! all that stands before it ([`nest`]), and that join is planned here: the left side with one more column, which is
//! unnested in place. Every name keeps its qualifier.

use std::ops::ControlFlow;

use arrow::datatypes::DataType;
use datafusion::common::{Column, RecursionUnnestOption, UnnestOptions, not_impl_err, plan_err};
use datafusion::error::Result as DfResult;
use datafusion::functions::core::expr_fn::get_field;
use datafusion::logical_expr::planner::{PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning};
use datafusion::logical_expr::{Expr as PlanExpr, ExprSchemable, LogicalPlanBuilder};
use sqlparser::ast::{
    Expr, FunctionArg, FunctionArgExpr, Join, JoinConstraint, JoinOperator, Select, TableFactor, TableWithJoins, Value,
    Visitor,
};

use crate::SqlError;
use crate::dialect::{fold, walk};
use crate::error::Result;

/// Puts every UNNEST that reads columns into a nested join with what stands before it.
pub(super) fn nest(select: &mut Select) -> Result<()> {
    for table in &mut select.from {
        as_unnest(&mut table.relation);
        table.joins.iter_mut().for_each(|j| as_unnest(&mut j.relation));
    }
    if !select.from.iter().any(|t| lateral(&t.relation) || t.joins.iter().any(|j| lateral(&j.relation))) {
        return Ok(());
    }
    let mut out: Vec<TableWithJoins> = Vec::with_capacity(select.from.len());
    for table in select.from.drain(..) {
        let mut left = if lateral(&table.relation) {
            let Some(before) = cross(std::mem::take(&mut out)) else {
                return Err(
                    SqlError::undefined_column("?").with_detail("UNNEST reads a column, and nothing stands before it.")
                );
            };
            nested(before, table.relation)
        } else {
            TableWithJoins { relation: table.relation, joins: vec![] }
        };
        for join in table.joins {
            if !lateral(&join.relation) {
                left.joins.push(join);
                continue;
            }
            let plain = match &join.join_operator {
                JoinOperator::CrossJoin(_) => true,
                JoinOperator::Join(c) | JoinOperator::Inner(c) => is_true(c),
                _ => false,
            };
            if !plain {
                return Err(SqlError::unsupported("this join with UNNEST is not supported yet")
                    .with_hint("Write FROM t CROSS JOIN UNNEST(t.items) AS i, with conditions in WHERE."));
            }
            left = nested(left, join.relation);
        }
        out.push(left);
    }
    select.from = out;
    Ok(())
}

/// `LATERAL unnest(x)` is `UNNEST(x)`.
fn as_unnest(factor: &mut TableFactor) {
    let TableFactor::Function { name, args, alias, .. } = factor else { return };
    if name.0.len() != 1 || name.0[0].as_ident().is_none_or(|i| fold(i) != "unnest") {
        return;
    }
    let exprs: Option<Vec<Expr>> = args
        .iter()
        .map(|a| match a {
            FunctionArg::Unnamed(FunctionArgExpr::Expr(e)) => Some(e.clone()),
            _ => None,
        })
        .collect();
    if let Some(array_exprs) = exprs {
        *factor = TableFactor::UNNEST {
            alias: alias.take(),
            array_exprs,
            with_offset: false,
            with_offset_alias: None,
            with_ordinality: false,
        };
    }
}

fn lateral(factor: &TableFactor) -> bool {
    matches!(factor, TableFactor::UNNEST { array_exprs, .. } if reads_columns(array_exprs))
}

pub(super) fn reads_columns(exprs: &Vec<Expr>) -> bool {
    struct Columns(bool);
    impl Visitor for Columns {
        type Break = ();
        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
            self.0 |= matches!(expr, Expr::Identifier(_) | Expr::CompoundIdentifier(_));
            if self.0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        }
    }
    let mut columns = Columns(false);
    let _ = walk(exprs, &mut columns);
    columns.0
}

fn is_true(constraint: &JoinConstraint) -> bool {
    matches!(constraint, JoinConstraint::On(Expr::Value(v)) if v.value == Value::Boolean(true))
}

fn cross(tables: Vec<TableWithJoins>) -> Option<TableWithJoins> {
    let mut tables = tables.into_iter();
    let mut all = tables.next()?;
    for table in tables {
        let relation = alone(table);
        all.joins.push(Join { relation, global: false, join_operator: JoinOperator::CrossJoin(JoinConstraint::None) });
    }
    Some(all)
}

fn alone(table: TableWithJoins) -> TableFactor {
    if table.joins.is_empty() {
        table.relation
    } else {
        TableFactor::NestedJoin { table_with_joins: Box::new(table), alias: None }
    }
}

fn nested(left: TableWithJoins, unnest: TableFactor) -> TableWithJoins {
    let join = Join { relation: unnest, global: false, join_operator: JoinOperator::CrossJoin(JoinConstraint::None) };
    let inner = TableWithJoins { relation: alone(left), joins: vec![join] };
    TableWithJoins {
        relation: TableFactor::NestedJoin { table_with_joins: Box::new(inner), alias: None },
        joins: vec![],
    }
}

/// The unnested column while it has no name yet. Nobody can write this one.
const ARRAY: &str = "\u{1}array";
/// And this is it afterwards. One name for both would have the optimizer take members out of the array.
const ELEMENT: &str = "\u{1}element";

/// Plans the joins that [`nest`] made.
#[derive(Debug)]
pub(super) struct LateralUnnest;

impl RelationPlanner for LateralUnnest {
    fn plan_relation(
        &self,
        relation: TableFactor,
        context: &mut dyn RelationPlannerContext,
    ) -> DfResult<RelationPlanning> {
        let ours = matches!(&relation, TableFactor::NestedJoin { table_with_joins, alias: None }
            if matches!(table_with_joins.joins.as_slice(), [join] if lateral(&join.relation)));
        if !ours {
            return Ok(RelationPlanning::Original(Box::new(relation)));
        }
        let TableFactor::NestedJoin { mut table_with_joins, .. } = relation else {
            return plan_err!("not a join with UNNEST");
        };
        let Some(join) = table_with_joins.joins.pop() else { return plan_err!("not a join with UNNEST") };
        let TableFactor::UNNEST { alias, array_exprs, .. } = join.relation else {
            return plan_err!("not a join with UNNEST");
        };
        let [array] = array_exprs.as_slice() else {
            return not_impl_err!("UNNEST of several arrays is not supported");
        };
        let left = context.plan(table_with_joins.relation)?;
        let expr = context.sql_to_expr(array.clone(), left.schema())?;
        let (table, renamed) = match alias {
            Some(alias) => {
                let renamed = alias.columns.into_iter().map(|c| context.normalize_ident(c.name));
                let renamed: Vec<String> = renamed.collect();
                (context.normalize_ident(alias.name), renamed)
            }
            None => ("unnest".to_owned(), vec![]),
        };
        // Rows become the columns of their members, anything else is one column.
        let members = match expr.get_type(left.schema())? {
            DataType::List(item) | DataType::LargeList(item) => match item.data_type() {
                DataType::Struct(members) => Some(members.clone()),
                _ => None,
            },
            _ => None,
        };
        let available = members.as_ref().map_or(1, |m| m.len());
        if renamed.len() > available {
            return plan_err!(
                "table \"{table}\" has {available} columns available but {} columns specified",
                renamed.len()
            );
        }
        let kept: Vec<PlanExpr> = left.schema().columns().into_iter().map(PlanExpr::Column).collect();
        let mut exprs = kept.clone();
        exprs.push(expr.alias(ARRAY));
        // What is unnested loses its qualifier, so that it gets one afterwards.
        let element = Column::new_unqualified(ELEMENT);
        let mut named = kept;
        let name = |i: usize, own: &str| renamed.get(i).map_or(own, String::as_str).to_owned();
        let value = PlanExpr::Column(element.clone());
        match members {
            Some(members) => named.extend(members.iter().enumerate().map(|(i, member)| {
                let column = name(i, member.name());
                get_field(value.clone(), member.name().as_str()).alias_qualified(Some(table.as_str()), column)
            })),
            None => named.push(value.alias_qualified(Some(table.as_str()), name(0, &table))),
        }
        // Rows whose array is empty or null have no partner, as with any inner join.
        let array = Column::new_unqualified(ARRAY);
        let options = UnnestOptions::new().with_preserve_nulls(false).with_recursions(RecursionUnnestOption {
            input_column: array.clone(),
            output_column: element,
            depth: 1,
        });
        let plan = LogicalPlanBuilder::from(left)
            .project(exprs)?
            .unnest_columns_with_options(vec![array], options)?
            .project(named)?
            .build()?;
        Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, None))))
    }
}
