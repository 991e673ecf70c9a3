//! What a scan holds beside the memory pool, said before it runs.
//!
//! Pages of a file and records that were fetched ahead come and go by what the format asks for; no operator could spill
//! them. So a leaf of a plan announces how much that is at most, and who runs plans lets only as many begin as there is
//! memory for.

use std::sync::Arc;

use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::metrics::{ExecutionPlanMetricsSet, MetricBuilder};

/// A gauge among the metrics of a leaf: bytes for each of its partitions.
const NAME: &str = "scan_memory";

/// To be called once for a leaf, while it is made.
pub fn announce_scan_memory(metrics: &ExecutionPlanMetricsSet, bytes_per_partition: usize) {
    MetricBuilder::new(metrics).global_gauge(NAME).set(bytes_per_partition);
}

/// What all leaves of the plan announce, if every partition of each runs at once.
pub fn scan_memory(plan: &Arc<dyn ExecutionPlan>) -> usize {
    let children = plan.children();
    if !children.is_empty() {
        return children.into_iter().map(scan_memory).fold(0, usize::saturating_add);
    }
    let announced = plan.metrics().and_then(|m| m.sum_by_name(NAME)).map_or(0, |v| v.as_usize());
    announced.saturating_mul(plan.properties().partitioning.partition_count())
}
