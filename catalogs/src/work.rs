use std::sync::Arc;

use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::ExecutionPlan;

/// Runs plans that a table makes to do what a statement asks for: within the memory of all statements, on their threads,
/// and until the statement is cancelled.
pub trait PlanRunner: Send + Sync + std::fmt::Debug {
    /// Memory, spill files and options of the statement.
    fn task(&self) -> Arc<TaskContext>;
    /// The rows of all partitions of the plan. It stops where the stream is dropped.
    fn run(&self, plan: Arc<dyn ExecutionPlan>) -> SendableRecordBatchStream;
}

/// What a table is handed to work with.
pub type Runner = Arc<dyn PlanRunner>;
