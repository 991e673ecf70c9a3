//! The walks over a plan that rules share.

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, DFSchemaRef};
use datafusion::error::Result;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{Expr, LogicalPlan};

/// Puts every node of the plan and of its subqueries through `rule`, innermost first, one that may change types of columns:
/// what stands above has the types of what is below.
pub(super) fn nodes(
    plan: LogicalPlan,
    rule: &dyn Fn(LogicalPlan) -> Result<Transformed<LogicalPlan>>,
) -> Result<LogicalPlan> {
    let mut changed = false;
    let plan = plan.transform_up_with_subqueries(|node| {
        let node = rule(node)?;
        changed |= node.transformed;
        if changed { Ok(Transformed::yes(node.data.recompute_schema()?)) } else { Ok(node) }
    });
    plan.map(|t| t.data)
}

/// Puts every expression of the plan and of its subqueries through `rule`, innermost first, together with the schema
/// that it reads. Outputs keep their names.
pub(super) fn expressions(
    plan: LogicalPlan,
    rule: &dyn Fn(Expr, &DFSchemaRef) -> Result<Transformed<Expr>>,
) -> Result<LogicalPlan> {
    plan.transform_up_with_subqueries(|node| {
        let mut schema = merge_schema(&node.inputs());
        if let LogicalPlan::TableScan(scan) = &node {
            schema = DFSchema::try_from_qualified_schema(scan.table_name.clone(), &scan.source.schema())?;
        }
        let schema = DFSchemaRef::new(schema);
        let preserver = NamePreserver::new(&node);
        let mapped = node.map_expressions(|expr| {
            let name = preserver.save(&expr);
            let done = expr.transform_up(|e| rule(e, &schema))?;
            Ok(done.update_data(|e| name.restore(e)))
        })?;
        if mapped.transformed { mapped.map_data(LogicalPlan::recompute_schema) } else { Ok(mapped) }
    })
    .map(|t| t.data)
}
