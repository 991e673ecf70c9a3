use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::execution::SendableRecordBatchStream;
use futures::StreamExt;
use iceberg::spec::Operation;
use tidewater_catalogs::{Error, Result, StagedTable, StagingWriter, TableInfo};
use uuid::Uuid;

use crate::commit::anchor::COMMIT_UUID;
use crate::commit::{Base, Change, stage};
use crate::sql_catalog::Lake;
use crate::state::TableState;
use crate::table::table_info;
use crate::writer::{FileWriter, from_staged};

/// A table whose files are there and whose name is not: the catalog hears of it when it is published.
pub(crate) struct UnseenTable {
    lake: Arc<Lake>,
    state: Arc<TableState>,
    info: TableInfo,
}

impl std::fmt::Debug for UnseenTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UnseenTable").field("state", &self.state).finish_non_exhaustive()
    }
}

impl UnseenTable {
    pub(crate) fn new(lake: Arc<Lake>, state: Arc<TableState>) -> Result<Self> {
        let info = table_info(&state)?;
        Ok(Self { lake, state, info })
    }
}

#[async_trait]
impl StagedTable for UnseenTable {
    fn info(&self) -> &TableInfo {
        &self.info
    }

    async fn fill(&mut self, mut input: SendableRecordBatchStream) -> Result<u64> {
        if self.state.metadata.current_snapshot().is_some() {
            return Err(Error::internal(format!("table \"{}\" is filled twice", self.state.name)));
        }
        let commit = Uuid::now_v7();
        let mut writer: Box<dyn StagingWriter> =
            Box::new(FileWriter::new(self.lake.storage().clone(), &self.state, commit)?);
        while let Some(batch) = input.next().await {
            writer.write(batch?).await?;
        }
        let files = writer.finish().await?;
        let rows = files.rows();
        if rows > 0 {
            let change = Change {
                operation: Operation::Append,
                commit,
                add: files.files.iter().map(|f| from_staged(&self.state.metadata, f)).collect::<Result<_>>()?,
                summary: BTreeMap::from([(COMMIT_UUID.to_string(), commit.to_string())]),
                anchor: None,
            };
            let base = Base { state: Arc::clone(&self.state), manifests: None };
            let staged = stage(&base, change, self.lake.now_ms()).await?;
            self.state = self.lake.write_unseen(&self.state.name, staged).await?;
            self.info = table_info(&self.state)?;
        }
        Ok(rows)
    }

    async fn publish(self: Box<Self>) -> Result<()> {
        match self.lake.publish(&self.state).await {
            Ok(()) => Ok(()),
            Err((e, failed)) => {
                let removed = if failed { self.lake.remove_unseen(&self.state).await } else { Ok(()) };
                if let Err(e) = removed {
                    tracing::warn!(table = %self.state.name, error = %e, "files of a new table were left behind");
                }
                Err(e)
            }
        }
    }

    async fn discard(self: Box<Self>) -> Result<()> {
        self.lake.remove_unseen(&self.state).await
    }
}
