use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::execution::SendableRecordBatchStream;
use futures::StreamExt;
use iceberg::spec::Operation;
use tidewater_catalogs::{Error, Result, Runner, StagedTable, TableInfo};
use uuid::Uuid;

use crate::commit::anchor::COMMIT_UUID;
use crate::commit::{Change, stage};
use crate::lake::{Lake, Unseen};
use crate::table::table_info;
use crate::writer::{ArrangedWriter, from_staged};

/// A table whose files are there and whose name is not: the catalog hears of it when it is published.
pub(crate) struct UnseenTable {
    lake: Arc<Lake>,
    unseen: Unseen,
    info: TableInfo,
}

impl std::fmt::Debug for UnseenTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UnseenTable").field("state", &self.unseen.state).finish_non_exhaustive()
    }
}

impl UnseenTable {
    pub(crate) fn new(lake: Arc<Lake>, unseen: Unseen) -> Result<Self> {
        let info = table_info(&unseen.state)?;
        Ok(Self { lake, unseen, info })
    }
}

#[async_trait]
impl StagedTable for UnseenTable {
    fn info(&self) -> &TableInfo {
        &self.info
    }

    async fn fill(&mut self, mut input: SendableRecordBatchStream, runner: &Runner) -> Result<u64> {
        let state = Arc::clone(&self.unseen.state);
        if state.metadata.current_snapshot().is_some() {
            return Err(Error::internal(format!("table \"{}\" is filled twice", state.name)));
        }
        let commit = Uuid::now_v7();
        let mut writer = ArrangedWriter::open(&state, commit, None, runner)?;
        while let Some(batch) = input.next().await {
            writer.write(batch?).await?;
        }
        let files = writer.finish().await?;
        let rows = files.rows();
        if rows > 0 {
            let change = Change {
                operation: Operation::Append,
                commit,
                add: files.files.iter().map(|f| from_staged(&state.metadata, f)).collect::<Result<_>>()?,
                summary: BTreeMap::from([(COMMIT_UUID.to_string(), commit.to_string())]),
                ..Change::default()
            };
            let base = self.lake.base(state).await?;
            let staged = stage(&base, change, self.lake.now_ms()).await?;
            let data: Vec<String> = files.files.into_iter().map(|f| f.path).collect();
            self.lake.write_unseen(&mut self.unseen, &data, staged).await?;
            self.info = table_info(&self.unseen.state)?;
        }
        Ok(rows)
    }

    async fn publish(self: Box<Self>) -> Result<()> {
        match self.lake.publish(&self.unseen).await {
            Ok(()) => Ok(()),
            Err((e, failed)) => {
                let removed = if failed { self.lake.remove_unseen(&self.unseen).await } else { Ok(()) };
                if let Err(e) = removed {
                    tracing::warn!(table = %self.unseen.state.name, error = %e, "files of a new table were left behind");
                }
                Err(e)
            }
        }
    }

    async fn discard(self: Box<Self>) -> Result<()> {
        self.lake.remove_unseen(&self.unseen).await
    }
}
