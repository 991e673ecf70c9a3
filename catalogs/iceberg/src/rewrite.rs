use std::collections::HashMap;
use std::sync::Arc;

use datafusion::execution::SendableRecordBatchStream;
use datafusion::prelude::{SessionConfig, SessionContext};
use futures::StreamExt;
use tidewater_catalogs::{Result, Runner, StagingWriter};

use crate::scan;
use crate::state::TableState;

/// Hands the writer what is left of data files, in the order in which it lies: without rows that are deleted, and without
/// those at the positions given (ascending).
pub(crate) async fn rewrite(
    state: &Arc<TableState>,
    files: HashMap<String, Arc<[u64]>>,
    writer: &mut Box<dyn StagingWriter>,
    runner: &Runner,
) -> Result<()> {
    if files.is_empty() {
        return Ok(());
    }
    let mut rows = remains(state, files, None, runner).await?;
    while let Some(batch) = rows.next().await {
        writer.write(batch?).await?;
    }
    Ok(())
}

/// What is left of data files, in some of the table's columns or all.
pub(crate) async fn remains(
    state: &Arc<TableState>,
    files: HashMap<String, Arc<[u64]>>,
    columns: Option<&Vec<usize>>,
    runner: &Runner,
) -> Result<SendableRecordBatchStream> {
    let provider = scan::remains(Arc::clone(state), files)?;
    let config = SessionConfig::new().with_target_partitions(1);
    let session = SessionContext::new_with_config_rt(config, runner.task().runtime_env());
    let plan = provider.scan(&session.state(), columns, &[], None).await?;
    Ok(runner.run(plan))
}
