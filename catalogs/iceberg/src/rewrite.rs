use std::collections::HashMap;
use std::sync::Arc;

use datafusion::physical_plan::execute_stream;
use datafusion::prelude::{SessionConfig, SessionContext};
use futures::StreamExt;
use tidewater_catalogs::{Result, StagingWriter};

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
) -> Result<()> {
    if files.is_empty() {
        return Ok(());
    }
    let places = is_kept(&state.metadata).then(Arc::<Places>::default);
    let provider = scan::remains(Arc::clone(state), files, places.clone())?;
    let session = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(1));
    let plan = provider.scan(&session.state(), None, &[], None).await?;
    let mut rows = execute_stream(plan, session.task_ctx())?;
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
