use std::sync::Arc;
use std::time::Instant;

use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::ExecutionPlan;
use tidewater_catalogs::{PlanRunner, Runner};
use tokio_util::sync::CancellationToken;

use crate::engine::Engine;
use crate::error::Result;
use crate::plan::{Planner, Purpose};
use crate::run;
use crate::session::StatementContext;

/// Runs what a table needs for a statement as the statement's own plans are run.
struct StatementRunner {
    engine: Arc<Engine>,
    task: Arc<TaskContext>,
    cancel: CancellationToken,
    deadline: Option<Instant>,
}

impl std::fmt::Debug for StatementRunner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StatementRunner").finish_non_exhaustive()
    }
}

pub(crate) fn runner(ctx: &StatementContext<'_>) -> Result<Runner> {
    Ok(Arc::new(StatementRunner {
        engine: Arc::clone(ctx.engine),
        task: Planner::new(ctx, Purpose::Execute).state()?.task_ctx(),
        cancel: ctx.cancel.clone(),
        deadline: ctx.deadline,
    }))
}

impl PlanRunner for StatementRunner {
    fn task(&self) -> Arc<TaskContext> {
        Arc::clone(&self.task)
    }

    fn run(&self, plan: Arc<dyn ExecutionPlan>) -> SendableRecordBatchStream {
        let schema = plan.schema();
        let limits = run::Limits { cancel: self.cancel.clone(), deadline: self.deadline };
        run::start_plan(&self.engine, limits, plan, Arc::clone(&self.task), schema)
    }
}
