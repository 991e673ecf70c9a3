use std::collections::HashMap;
use std::sync::Arc;

use datafusion::physical_plan::execute_stream;
use datafusion::prelude::{SessionConfig, SessionContext};
use futures::StreamExt;
use tidewater_catalogs::{Result, StagingWriter};

use crate::scan;
use crate::state::TableState;

/// Hands the writer what is left of data files, in the order in which it lies: without rows that are deleted, and without
/// those at the positions given (ascending).
pub(crate) async fn rewrite(
    state: &Arc<TableState>,
    files: HashMap<String, Arc<[u64]>>,
    writer: &mut Box<dyn StagingWriter>,
) -> Result<()> {
    if files.is_empty() {
        return Ok(());
    }
    let provider = scan::remains(Arc::clone(state), files)?;
    let session = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(1));
    let plan = provider.scan(&session.state(), None, &[], None).await?;
    let mut rows = execute_stream(plan, session.task_ctx())?;
    while let Some(batch) = rows.next().await {
        writer.write(batch?).await?;
    }
    Ok(())
}
