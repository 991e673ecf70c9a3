//! What a topic holds now, as a table: `[start, high-water mark at plan time)` of every partition.
//!
//! Rows and their number do not depend on the projection: see [`crate::format`] for what makes a record malformed.
//! Malformed records are left out (and counted), or fail the query, as the stream's `on_error` says.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::stats::Precision;
use datafusion::common::{DataFusionError, Result as DfResult, Statistics};
use datafusion::execution::TaskContext;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_expr::EquivalenceProperties;
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricBuilder, MetricsSet};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties, SendableRecordBatchStream,
};
use tidewater_catalogs::{Error, Result, StreamSource, announce_scan_memory};

use crate::client::At;
use crate::lane::ReadPlan;
use crate::pushdown::{Seek, Taken};
use crate::reader::{Range, Reader};
use crate::source::SharedSource;

/// What each of a query's readers may read ahead.
const BUFFER_BYTES: usize = 24 << 20;
/// Records that few are larger than.
const RECORD_BYTES: u64 = 4 << 10;

#[derive(Debug)]
pub(crate) struct StreamTable {
    source: SharedSource,
}

impl StreamTable {
    pub(crate) fn new(source: SharedSource) -> Self {
        Self { source }
    }

    /// What the filters leave of every partition that they leave anything of.
    async fn ranges(&self, seek: &Seek) -> Result<Vec<Range>> {
        let layout = self.source.layout().await?;
        let partitions = layout.partitions.clone();
        let starts = self.source.0.starts(layout, &self.source.0.spec.start).await?;
        let mut ranges: Vec<Range> = partitions
            .iter()
            .filter(|p| seek.wants(p.partition))
            .map(|p| Range {
                partition: p.partition,
                from: starts.get(p.partition).unwrap_or(p.low).max(p.low).max(seek.offset_low),
                until: Some(p.high.min(seek.offset_high)),
            })
            .filter(|r| r.until.is_some_and(|until| r.from < until))
            .collect();
        if let Some(ms) = seek.since_ms.filter(|ms| *ms > 0 && !ranges.is_empty()) {
            let ids: Vec<i32> = ranges.iter().map(|r| r.partition).collect();
            let topic = self.source.0.spec.topic.clone();
            let found = self.source.0.client()?.ask(move |c| c.offsets(&topic, &ids, At::Time(ms))).await?;
            // Where no record is that new now, none below the high-water mark is.
            ranges.retain_mut(|r| match found.get(r.partition) {
                Some(offset) => {
                    r.from = r.from.max(offset);
                    r.until.is_some_and(|until| r.from < until)
                }
                None => false,
            });
        }
        Ok(ranges)
    }
}

#[async_trait]
impl TableProvider for StreamTable {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn schema(&self) -> SchemaRef {
        self.source.schema()
    }
    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        let mut seek = Seek::default();
        for filter in filters {
            seek.narrow(filter);
        }
        let wanted = match projection {
            Some(projection) => projection.clone(),
            None => (0..self.schema().fields().len()).collect(),
        };
        // The decoder wants ascending columns; the query may want any order.
        let mut ascending = wanted.clone();
        ascending.sort_unstable();
        ascending.dedup();
        let spec = &self.source.0.spec;
        let plan = Arc::new(ReadPlan::new(spec, &ascending, spec.on_error, false)?);
        let order: Option<Vec<usize>> = (ascending != wanted)
            .then(|| wanted.iter().filter_map(|i| ascending.iter().position(|a| a == i)).collect());
        let ranges = self.ranges(&seek).await?;
        let groups = spread(ranges, state.config().target_partitions());
        Ok(Arc::new(StreamScanExec::new(self.source.clone(), plan, order, groups, limit)?))
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> DfResult<Vec<TableProviderFilterPushDown>> {
        Ok(filters
            .iter()
            .map(|filter| match Seek::default().narrow(filter) {
                Taken::Wholly => TableProviderFilterPushDown::Exact,
                Taken::Partly => TableProviderFilterPushDown::Inexact,
                Taken::No => TableProviderFilterPushDown::Unsupported,
            })
            .collect())
    }
}

/// Ranges into at most `n` groups of about the same number of offsets: the largest first, each to the smallest group.
fn spread(mut ranges: Vec<Range>, n: usize) -> Vec<Vec<Range>> {
    let n = n.clamp(1, ranges.len().max(1));
    ranges.sort_by_key(|r| (std::cmp::Reverse(size(r)), r.partition));
    let mut groups: Vec<(u64, Vec<Range>)> = vec![(0, Vec::new()); n];
    for range in ranges {
        if let Some(group) = groups.iter_mut().min_by_key(|g| g.0) {
            group.0 += size(&range);
            group.1.push(range);
        }
    }
    groups
        .into_iter()
        .map(|(_, mut group)| {
            group.sort_by_key(|r| r.partition);
            group
        })
        .collect()
}

fn size(range: &Range) -> u64 {
    range.until.map_or(u64::MAX, |until| until.saturating_sub(range.from).max(0) as u64)
}

#[derive(Debug)]
pub(crate) struct StreamScanExec {
    source: SharedSource,
    plan: Arc<ReadPlan>,
    /// Columns of the plan in the order of the query, where that differs.
    order: Option<Vec<usize>>,
    groups: Vec<Vec<Range>>,
    limit: Option<usize>,
    schema: SchemaRef,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl StreamScanExec {
    fn new(
        source: SharedSource,
        plan: Arc<ReadPlan>,
        order: Option<Vec<usize>>,
        groups: Vec<Vec<Range>>,
        limit: Option<usize>,
    ) -> DfResult<Self> {
        let schema = match &order {
            Some(order) => Arc::new(plan.schema().project(order)?),
            None => plan.schema().clone(),
        };
        let properties = Arc::new(PlanProperties::new(
            EquivalenceProperties::new(schema.clone()),
            Partitioning::UnknownPartitioning(groups.len()),
            EmissionType::Incremental,
            Boundedness::Bounded,
        ));
        let metrics = ExecutionPlanMetricsSet::new();
        // Who looks for a few records at the end reads no further ahead than that.
        let most = groups.iter().map(|g| g.iter().map(size).fold(0, u64::saturating_add)).max().unwrap_or(0);
        let held = usize::try_from(most.saturating_mul(RECORD_BYTES)).unwrap_or(usize::MAX).min(BUFFER_BYTES);
        announce_scan_memory(&metrics, held);
        Ok(Self { source, plan, order, groups, limit, schema, properties, metrics })
    }
}

impl DisplayAs for StreamScanExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.schema.fields().iter().map(|f| f.name().as_str()).collect();
        write!(f, "StreamScanExec: topic={}, projection=[{}], offsets=[", self.source.0.spec.topic, names.join(", "))?;
        const SHOWN: usize = 8;
        let mut ranges: Vec<&Range> = self.groups.iter().flatten().collect();
        ranges.sort_by_key(|r| r.partition);
        for (i, r) in ranges.iter().take(SHOWN).enumerate() {
            let until = r.until.unwrap_or(i64::MAX);
            write!(f, "{}{}: {}..{until}", if i == 0 { "" } else { ", " }, r.partition, r.from)?;
        }
        if ranges.len() > SHOWN {
            write!(f, ", and {} partitions more", ranges.len() - SHOWN)?;
        }
        f.write_str("]")?;
        match self.limit {
            Some(limit) => write!(f, ", limit={limit}"),
            None => Ok(()),
        }
    }
}

impl ExecutionPlan for StreamScanExec {
    fn name(&self) -> &str {
        "StreamScanExec"
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }
    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }
    fn with_new_children(self: Arc<Self>, _: Vec<Arc<dyn ExecutionPlan>>) -> DfResult<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }
    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }
    fn fetch(&self) -> Option<usize> {
        self.limit
    }
    fn with_fetch(&self, limit: Option<usize>) -> Option<Arc<dyn ExecutionPlan>> {
        let plan = Self::new(self.source.clone(), self.plan.clone(), self.order.clone(), self.groups.clone(), limit);
        plan.ok().map(|p| Arc::new(p) as Arc<dyn ExecutionPlan>)
    }
    fn supports_limit_pushdown(&self) -> bool {
        false
    }

    /// Offsets are no rows: some belong to control records, some were compacted away.
    fn partition_statistics(&self, partition: Option<usize>) -> DfResult<Statistics> {
        let mut statistics = Statistics::new_unknown(&self.schema);
        let offsets: u64 = match partition {
            Some(i) => self.groups.get(i).into_iter().flatten().map(size).sum(),
            None => self.groups.iter().flatten().map(size).sum(),
        };
        statistics.num_rows = Precision::Inexact(offsets as usize);
        Ok(statistics)
    }

    fn execute(&self, partition: usize, _: Arc<TaskContext>) -> DfResult<SendableRecordBatchStream> {
        let ranges = self
            .groups
            .get(partition)
            .ok_or_else(|| DataFusionError::from(Error::internal("scan has no such partition")))?
            .clone();
        let metrics = BaselineMetrics::new(&self.metrics, partition);
        let malformed = MetricBuilder::new(&self.metrics).counter("malformed_records", partition);
        let source_bytes = MetricBuilder::new(&self.metrics).counter("source_bytes", partition);
        let order = self.order.clone();
        // Opened at the first poll: a plan that is only looked at connects to nothing.
        let job = self.source.0.job(self.plan.clone(), ranges, BUFFER_BYTES);
        let start = (None::<Reader>, Some(job), self.limit.unwrap_or(usize::MAX));
        let stream = futures::stream::try_unfold(start, move |(reader, job, left)| {
            let (metrics, malformed, source_bytes, order) =
                (metrics.clone(), malformed.clone(), source_bytes.clone(), order.clone());
            async move {
                let reader = match (reader, job) {
                    (Some(reader), _) => reader,
                    (None, Some(job)) if !job.ranges.is_empty() && left > 0 => Reader::spawn(job)?,
                    _ => return Ok(None),
                };
                let mut left = left;
                loop {
                    let Some(batch) = reader.next().await? else { return Ok(None) };
                    malformed.add(batch.skipped as usize);
                    source_bytes.add(batch.source_bytes as usize);
                    let mut rows = batch.rows;
                    if rows.num_rows() == 0 {
                        continue;
                    }
                    if rows.num_rows() > left {
                        rows = rows.slice(0, left);
                    }
                    left -= rows.num_rows();
                    if let Some(order) = &order {
                        rows = rows.project(order)?;
                    }
                    metrics.record_output(rows.num_rows());
                    // With the limit reached the reader is dropped, and its connection with it.
                    let reader = (left > 0).then_some(reader);
                    return Ok::<_, DataFusionError>(Some((rows, (reader, None, left))));
                }
            }
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema.clone(), stream)))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn ranges_are_spread_by_size() {
        let range = |partition: i32, n: i64| Range { partition, from: 5, until: Some(5 + n) };
        let groups = spread(vec![range(0, 10), range(1, 100), range(2, 60), range(3, 50)], 2);
        let ids: Vec<Vec<i32>> = groups.iter().map(|g| g.iter().map(|r| r.partition).collect()).collect();
        assert_eq!(ids, vec![vec![0, 1], vec![2, 3]]);
        assert_eq!(spread(vec![], 4), vec![Vec::<Range>::new()]);
        assert_eq!(spread(vec![range(0, 1)], 4).len(), 1);
    }
}
