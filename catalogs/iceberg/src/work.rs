//! Work on a table that no statement asks for.

use std::sync::{Arc, OnceLock};

use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::stream::RecordBatchReceiverStream;
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use futures::StreamExt;
use tidewater_catalogs::{PlanRunner, Result, Runner};

/// For what flows do to their tables beside their commits, one table at a time; sorts go to disk beyond it.
const MEMORY_BYTES: usize = 128 << 20;

#[derive(Debug)]
struct OwnRunner(Arc<TaskContext>);

impl PlanRunner for OwnRunner {
    fn task(&self) -> Arc<TaskContext> {
        Arc::clone(&self.0)
    }

    fn run(&self, plan: Arc<dyn ExecutionPlan>) -> SendableRecordBatchStream {
        let mut builder = RecordBatchReceiverStream::builder(plan.schema(), 2);
        let (sender, task) = (builder.tx(), self.task());
        builder.spawn(async move {
            let mut rows = execute_stream(plan, task)?;
            while let Some(batch) = rows.next().await {
                if sender.send(batch).await.is_err() {
                    break;
                }
            }
            Ok(())
        });
        builder.build()
    }
}

pub(crate) fn own_runner() -> Result<Runner> {
    static MEMORY: OnceLock<Arc<RuntimeEnv>> = OnceLock::new();
    let memory = match MEMORY.get() {
        Some(memory) => Arc::clone(memory),
        None => {
            let new = RuntimeEnvBuilder::new().with_memory_limit(MEMORY_BYTES, 1.0).build_arc()?;
            Arc::clone(MEMORY.get_or_init(|| new))
        }
    };
    Ok(Arc::new(OwnRunner(Arc::new(TaskContext::default().with_runtime(memory)))))
}
