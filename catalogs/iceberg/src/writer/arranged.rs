use std::sync::Arc;

use arrow::array::Array;
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use futures::StreamExt;
use tidewater_catalogs::{CommitUuid, Result, Runner, StagedFiles, StagingWriter};

use super::encoder::Fan;
use super::keys::Keys;
use super::sorter::Sorter;
use super::{Distribution, FileWriter, columns};
use crate::lineage;
use crate::schema::{to_arrow, without_ids};
use crate::state::TableState;

/// Writes what a statement gives, in the table's order or in another one, partition by partition.
pub(crate) struct ArrangedWriter {
    files: FileWriter,
    rule: Rule,
    sorter: Option<Sorter>,
    state: Arc<TableState>,
    /// Of files.
    schema: SchemaRef,
    lineage: bool,
    runner: Runner,
}

/// Which rows are sorted before they are written.
enum Rule {
    None,
    /// Those of partitions for which no file is open when they come and none may be opened.
    Overflow,
    All,
}

impl ArrangedWriter {
    /// `order` in the place of the table's own.
    pub(crate) fn open(
        state: &Arc<TableState>,
        commit: CommitUuid,
        order: Option<Keys>,
        runner: &Runner,
    ) -> Result<Box<dyn StagingWriter>> {
        Self::make(state, commit, order, false, runner)
    }

    /// Of rows that may have been there before: where rows have ids, they may come with the columns of their lineage.
    pub(crate) fn with_lineage(
        state: &Arc<TableState>,
        commit: CommitUuid,
        order: Option<Keys>,
        runner: &Runner,
    ) -> Result<Box<dyn StagingWriter>> {
        Self::make(state, commit, order, lineage::is_kept(&state.metadata), runner)
    }

    fn make(
        state: &Arc<TableState>,
        commit: CommitUuid,
        order: Option<Keys>,
        lineage: bool,
        runner: &Runner,
    ) -> Result<Box<dyn StagingWriter>> {
        let metadata = &state.metadata;
        let distribution = Distribution::of(metadata.properties())?;
        let order = match order {
            Some(order) => Some(order),
            None => Keys::of_order(metadata, metadata.default_sort_order())?,
        };
        let partitioned = !metadata.default_partition_spec().is_unpartitioned();
        let (rule, fan, keys) = match (order, distribution) {
            (Some(order), _) => (Rule::All, Fan::One, Some(Keys::of_partitions(metadata)?.then(order))),
            (None, Distribution::Range) if partitioned => (Rule::All, Fan::One, Some(Keys::of_partitions(metadata)?)),
            (None, Distribution::Hash) if partitioned => (Rule::Overflow, Fan::Overflow, None),
            (None, _) => (Rule::None, Fan::Close, None),
        };
        let files = FileWriter::fanned(state.storage.clone(), state, commit, fan, lineage)?;
        let schema = match lineage {
            true => Arc::new(to_arrow(&lineage::with_columns(metadata.current_schema())?)?),
            false => Arc::clone(&state.arrow_schema),
        };
        let mut writer =
            Self { files, rule, sorter: None, state: Arc::clone(state), schema, lineage, runner: Arc::clone(runner) };
        if let Some(keys) = keys {
            writer.sorter = Sorter::new(&without_ids(&writer.schema), keys, runner)?;
        }
        Ok(Box::new(writer))
    }

    /// Sorts what found no open file.
    async fn take_overflow(&mut self) -> Result<()> {
        for part in self.files.take_overflow() {
            let sorter = match self.sorter.as_mut() {
                Some(sorter) => sorter,
                None => {
                    let keys = Keys::of_partitions(&self.state.metadata)?;
                    let Some(new) = Sorter::new(&without_ids(&self.schema), keys, &self.runner)? else {
                        continue;
                    };
                    self.sorter.insert(new)
                }
            };
            let rows = part.first().map_or(0, |column| column.len());
            sorter.push(&part, rows).await?;
        }
        Ok(())
    }
}

#[async_trait]
impl StagingWriter for ArrangedWriter {
    async fn write(&mut self, batch: RecordBatch) -> Result<()> {
        match (&self.rule, self.sorter.as_mut()) {
            (Rule::All, Some(sorter)) => {
                let mut columns = batch.columns().to_vec();
                if self.lineage && columns.len() < self.schema.fields().len() {
                    columns.extend(lineage::unknown(batch.num_rows()));
                }
                let columns = columns::fit(&self.schema, &columns)?;
                sorter.push(&columns, batch.num_rows()).await
            }
            _ => {
                self.files.write(batch).await?;
                self.take_overflow().await
            }
        }
    }

    fn buffered_bytes(&self) -> usize {
        self.files.buffered_bytes()
    }

    async fn finish(mut self: Box<Self>) -> Result<StagedFiles> {
        if matches!(self.rule, Rule::Overflow) {
            self.files.drain(Fan::One).await?;
            self.take_overflow().await?;
        }
        if let Some(sorter) = self.sorter.take() {
            let mut sorted = sorter.finish();
            while let Some(batch) = sorted.next().await {
                self.files.write(batch?).await?;
            }
        }
        Box::new(self.files).finish().await
    }
}
