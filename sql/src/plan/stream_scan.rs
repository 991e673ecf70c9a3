//! A stream as a table: its columns, the generated ones, and of the hidden ones those that the statement names.

use std::sync::Arc;

use datafusion::catalog::TableProvider;
use datafusion::common::Column;
use datafusion::datasource::empty::EmptyTable;
use datafusion::datasource::provider_as_source;
use datafusion::execution::SessionState;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, TableSource};
use tidewater_catalogs::HiddenColumn;

use super::generated;
use super::provider::PlanSource;
use super::relation::StreamRelation;
use crate::error::Result;

/// The relation as the planner puts it in the place of the name.
pub(super) async fn source(
    state: &SessionState,
    stream: &StreamRelation,
    exposed: &[HiddenColumn],
    execute: bool,
) -> Result<Arc<dyn TableSource>> {
    let provider: Arc<dyn TableProvider> =
        if execute { stream.source.bounded().await? } else { Arc::new(EmptyTable::new(stream.source.schema())) };
    let plan = over(state, stream, provider_as_source(provider), exposed)?;
    Ok(Arc::new(PlanSource::new(plan)))
}

/// Declared columns in their order, then the exposed hidden ones, over a scan of the source. Filters on the source's
/// own columns pass through: they are plain column references here.
pub(super) fn over(
    state: &SessionState,
    stream: &StreamRelation,
    scan: Arc<dyn TableSource>,
    exposed: &[HiddenColumn],
) -> Result<LogicalPlan> {
    let scan = LogicalPlanBuilder::scan(stream.name.name.as_str(), scan, None)?;
    let definition = &stream.definition;
    let mut exprs: Vec<Expr> = Vec::new();
    for name in definition.visible() {
        let expr = match definition.generated.iter().find(|g| g.name == name) {
            Some(column) => generated::plan(state, column, scan.schema())?.alias(name),
            None => Expr::Column(Column::new(Some(stream.name.name.as_str()), name)).alias(name),
        };
        exprs.push(expr);
    }
    for hidden in exposed {
        let column = Column::new(Some(stream.name.name.as_str()), hidden.name());
        exprs.push(Expr::Column(column).alias(hidden.name()));
    }
    Ok(scan.project(exprs)?.build()?)
}
