use std::collections::HashMap;
use std::sync::Arc;

use datafusion::execution::SendableRecordBatchStream;
use datafusion::prelude::{SessionConfig, SessionContext};
use futures::StreamExt;
use tidewater_catalogs::{Result, Runner, StagingWriter};

use crate::lineage::{Settled, inherited, is_kept};
use crate::scan::{self, Places};
use crate::state::TableState;

/// Hands the writer what is left of data files, in the order in which it lies: without rows that are deleted, and without
/// those at the positions given (ascending). Rows that have ids keep them, as far as these are settled, if
/// the writer keeps lineage.
pub(crate) async fn rewrite(
    state: &Arc<TableState>,
    files: HashMap<String, Arc<[u64]>>,
    settled: Settled,
    writer: &mut Box<dyn StagingWriter>,
    runner: &Runner,
) -> Result<()> {
    if files.is_empty() {
        return Ok(());
    }
    let places = is_kept(&state.metadata).then(Arc::<Places>::default);
    let mut rows = remains(state, files, places.clone(), None, runner).await?;
    while let Some(batch) = rows.next().await {
        let batch = batch?;
        writer
            .write(match &places {
                Some(places) => inherited(&batch, places, settled)?,
                None => batch,
            })
            .await?;
    }
    Ok(())
}

/// What is left of data files, in some of the table's columns or all.
pub(crate) async fn remains(
    state: &Arc<TableState>,
    files: HashMap<String, Arc<[u64]>>,
    places: Option<Arc<Places>>,
    columns: Option<&Vec<usize>>,
    runner: &Runner,
) -> Result<SendableRecordBatchStream> {
    let provider = scan::remains(Arc::clone(state), files, places)?;
    let config = SessionConfig::new().with_target_partitions(1);
    let session = SessionContext::new_with_config_rt(config, runner.task().runtime_env());
    let plan = provider.scan(&session.state(), columns, &[], None).await?;
    Ok(runner.run(plan))
}
