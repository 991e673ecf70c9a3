//! The session's TimeZone.
//!
//! `timestamptz` values are instants in UTC. Where one becomes a wall-clock time (or the other way round), the zone
//! of the session counts: in casts, in `date_trunc`, in `extract`. This rule runs after type coercion, so that it
//! sees the casts that coercion put in as well.

use std::sync::Arc;

use arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::error::Result;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, cast};
use datafusion::optimizer::AnalyzerRule;

use super::types::timestamptz;

#[derive(Debug)]
pub(super) struct SessionTimeZoneRule;

/// Functions that read the wall clock of a timestamptz argument.
const WALL_CLOCK: [&str; 3] = ["date_trunc", "date_part", "date_bin"];

impl AnalyzerRule for SessionTimeZoneRule {
    fn name(&self) -> &str {
        "session_time_zone"
    }

    fn analyze(&self, plan: LogicalPlan, config: &ConfigOptions) -> Result<LogicalPlan> {
        let zone: Arc<str> = match config.execution.time_zone.as_deref() {
            None | Some("+00:00" | "UTC" | "GMT" | "Zulu") => return Ok(plan),
            Some(zone) => zone.into(),
        };
        let zoned = DataType::Timestamp(TimeUnit::Microsecond, Some(zone));
        plan.transform_up_with_subqueries(|node| {
            let schema = merge_schema(&node.inputs());
            let preserver = NamePreserver::new(&node);
            node.map_expressions(|expr| {
                let name = preserver.save(&expr);
                let done = expr.transform_up(|e| in_zone(e, &schema, &zoned))?;
                Ok(done.update_data(|e| name.restore(e)))
            })?
            .map_data(LogicalPlan::recompute_schema)
        })
        .map(|t| t.data)
    }
}

fn is_instant(t: &DataType) -> bool {
    matches!(t, DataType::Timestamp(_, Some(_)))
}

fn in_zone(expr: Expr, schema: &datafusion::common::DFSchema, zoned: &DataType) -> Result<Transformed<Expr>> {
    match &expr {
        Expr::Cast(c) => {
            let from = c.expr.get_type(schema)?;
            let to = c.data_type.clone();
            // Casts that this rule wrote itself.
            if from == *zoned || to == *zoned {
                return Ok(Transformed::no(expr));
            }
            if is_instant(&from) && !is_instant(&to) {
                let inner = cast(c.expr.as_ref().clone(), zoned.clone());
                let wall = match to {
                    DataType::Date32 | DataType::Date64 | DataType::Time32(_) | DataType::Time64(_) | DataType::Timestamp(_, None) => {
                        datafusion::functions::datetime::to_local_time().call(vec![inner])
                    }
                    _ => inner,
                };
                return Ok(Transformed::yes(cast(wall, to)));
            }
            if is_instant(&to) && !is_instant(&from) && from != DataType::Null && !from.is_numeric() {
                let wall = match from {
                    DataType::Date32 | DataType::Date64 => {
                        cast(c.expr.as_ref().clone(), DataType::Timestamp(TimeUnit::Microsecond, None))
                    }
                    _ => c.expr.as_ref().clone(),
                };
                return Ok(Transformed::yes(cast(cast(wall, zoned.clone()), to)));
            }
            Ok(Transformed::no(expr))
        }
        Expr::ScalarFunction(f) if WALL_CLOCK.contains(&f.name()) => {
            let returned = expr.get_type(schema)?;
            let mut changed = false;
            let mut args = Vec::with_capacity(f.args.len());
            for arg in &f.args {
                let from = arg.get_type(schema)?;
                if is_instant(&from) && from != *zoned {
                    changed = true;
                    args.push(cast(arg.clone(), zoned.clone()));
                } else {
                    args.push(arg.clone());
                }
            }
            if !changed {
                return Ok(Transformed::no(expr));
            }
            let call = f.func.call(args);
            let out = if is_instant(&returned) { cast(call, timestamptz()) } else { call };
            Ok(Transformed::yes(out))
        }
        _ => Ok(Transformed::no(expr)),
    }
}
