//! From the plan of a statement's query to one of the rows that it changes.

use datafusion::common::ScalarValue;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, col, lit};

use super::Shape;
use super::returning::reference;
use crate::SqlError;
use crate::error::Result;

/// Which row goes; null where one comes only.
const PLACE: &str = "_tidewater_row";
/// Whether one comes.
const COMES: &str = "_tidewater_comes";

/// The expressions of a plan that is a list, and the plan that they are computed over.
pub(super) fn opened(plan: LogicalPlan) -> Result<(Vec<Expr>, LogicalPlan)> {
    let LogicalPlan::Projection(projection) = plan else {
        return Err(SqlError::internal("the query of a statement that changes rows is no list"));
    };
    let exprs = projection.expr.into_iter().map(Expr::unalias).collect();
    Ok((exprs, std::sync::Arc::unwrap_or_clone(projection.input)))
}

/// The rows of `below`, in which columns of the table have the values that the statement leaves in them.
/// `value` says which, by the number of the column; none where it stays. `more` are other columns that change.
pub(super) fn settled(
    below: LogicalPlan,
    table: &Shape,
    place: Expr,
    comes: Expr,
    mut value: impl FnMut(usize) -> Result<Option<Expr>>,
    more: &[(&str, Expr)],
) -> Result<LogicalPlan> {
    let target = reference(&table.alias.name);
    let mut out = vec![place.alias(PLACE), comes.alias(COMES)];
    for column in below.schema().columns() {
        // What else has no qualifier is a helper of ours, used up by now.
        let Some(relation) = column.relation.clone() else { continue };
        let other = more.iter().find(|(name, _)| *name == column.name).map(|(_, value)| value.clone());
        let new = match table.schema.index_of(&column.name) {
            Ok(at) if relation == target => value(at)?,
            _ => other,
        };
        out.push(match new {
            Some(value) => value.alias_qualified(Some(relation), column.name),
            None => Expr::Column(column),
        });
    }
    Ok(LogicalPlanBuilder::from(below).project(out)?.build()?)
}

/// What the table is handed of [`settled`] rows. `brings`: rows come. `wide`: also where none does, there are columns
/// for them.
pub(super) fn written(table: &Shape, brings: bool, wide: bool) -> Result<Vec<Expr>> {
    let mut out = vec![col(PLACE)];
    if !wide {
        return Ok(out);
    }
    out.push(if brings { col(COMES) } else { lit(false).alias(COMES) });
    let target = reference(&table.alias.name);
    for (i, field) in table.schema.fields().iter().enumerate() {
        let value = if brings {
            Expr::Column(datafusion::common::Column::new(Some(target.clone()), field.name()))
        } else {
            lit(ScalarValue::try_from(field.data_type())?)
        };
        out.push(value.alias(format!("_tidewater_{i}")));
    }
    Ok(out)
}
