//! What a commit costs as snapshots pile up, with retention that keeps every one of them: the worst case for the table's
//! metadata, which names them all and is written anew by each commit.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use arrow::array::{ArrayRef, Int64Array};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::record_batch::RecordBatch;
use clap::Args;
use tidewater_catalogs::{AnchorState, CommitReply, CommitRequest, CommitTable, LakeCatalog, NewTable, TableName};
use tidewater_catalogs_iceberg::{IcebergLake, SqlLakeOptions};
use uuid::Uuid;

use crate::cpu;

#[derive(Args)]
pub struct Options {
    /// Snapshots at which the cost is taken
    #[arg(long, value_delimiter = ',', default_values_t = [100, 1000, 10_000])]
    at: Vec<u64>,
    /// Commits over which it is taken
    #[arg(long, default_value_t = 100)]
    over: u64,
    /// Rows per commit
    #[arg(long, default_value_t = 2000)]
    rows: i64,
    /// Commits between two rounds of maintenance
    #[arg(long, default_value_t = 50)]
    maintain: u64,
}

/// Milliseconds per commit.
struct Cost {
    median: f64,
    mean: f64,
    cpu: f64,
    metadata_bytes: u64,
}

pub fn run(options: &Options) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(measure(options))
}

async fn measure(options: &Options) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let warehouse = dir.path().join("warehouse");
    let warehouse = warehouse.to_str().context("the temporary directory is not UTF-8")?;
    let lake = IcebergLake::open_home(SqlLakeOptions::local(dir.path().join("catalog.db"), warehouse)).await?;
    let name = TableName::public("commits");
    let schema = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, false)]));
    let keep_all = [("history.expire.max-snapshot-age-ms", i64::MAX.to_string())];
    lake.create_table(NewTable {
        name: name.clone(),
        schema: schema.clone(),
        partition_by: Vec::new(),
        sort_by: Vec::new(),
        properties: keep_all.into_iter().map(|(k, v)| (k.to_owned(), v)).collect(),
        defaults: Default::default(),
        location: None,
        comment: None,
    })
    .await?;
    let table = lake.commit_table(&name).await?;
    let flow = Uuid::now_v7().to_string();
    let mut head = table.load_head(&flow).await?;
    let end = options.at.iter().copied().max().context("--at names no number")?;
    println!("commits: cost of one commit of {} rows, every snapshot kept", options.rows);
    println!("| snapshots | median ms | mean ms | CPU ms | metadata file KiB |\n|---|---|---|---|---|");
    let mut first = None;
    let (mut times, mut cpu_before) = (Vec::new(), 0.0);
    for seq in 0..=end {
        // All that a flow does per commit but for reading: file, manifest, list, metadata, pointer; now and then it looks
        // for work to tidy.
        let values: ArrayRef = Arc::new(Int64Array::from_iter_values(0..options.rows));
        let commit = Uuid::now_v7();
        let mut writer = table.writer(commit)?;
        writer.write(RecordBatch::try_new(schema.clone(), vec![values])?).await?;
        let files = writer.finish().await?;
        let expected = match &head.anchor {
            AnchorState::Valid(anchor) => Some(anchor.clone()),
            AnchorState::Absent => None,
            AnchorState::Broken(why) => bail!("the anchor is broken: {why}"),
        };
        let offsets: Vec<String> = (0..16).map(|p| format!("\"{p}\":{}", seq * 1000 + p)).collect();
        let request = CommitRequest {
            flow: flow.clone(),
            expected,
            seq,
            epoch: 1,
            commit_uuid: commit,
            checkpoint: format!("{flow}/ckpt/{seq:020}-{commit}.json"),
            checkpoint_sha256: "0".repeat(64),
            files,
            summary: BTreeMap::from([
                ("tidewater.topic".to_owned(), "events".to_owned()),
                ("tidewater.offsets".to_owned(), format!("{{{}}}", offsets.join(","))),
            ]),
        };
        let due = options.at.iter().find(|at| (at.saturating_sub(options.over)..**at).contains(&seq));
        if due.is_some() && times.is_empty() {
            cpu_before = cpu::seconds("self")?;
        }
        let began = Instant::now();
        head = match table.try_commit(&head, &request).await {
            CommitReply::Committed(head) => head,
            other => bail!("commit {seq}: {other:?}"),
        };
        if seq % options.maintain.max(1) == 0 {
            table.maintain().await?;
            head = table.load_head(&flow).await?;
        }
        if due.is_some() {
            times.push(began.elapsed().as_secs_f64() * 1000.0);
        }
        if due.is_some_and(|at| *at == seq + 1) {
            let n = times.len() as f64;
            let cpu = (cpu::seconds("self")? - cpu_before) * 1000.0 / n;
            times.sort_by(f64::total_cmp);
            let info = lake.load_table(&name).await?.info().clone();
            let path = info.metadata_location.trim_start_matches("file://").replace("%20", " ");
            let cost = Cost {
                median: times[times.len() / 2],
                mean: times.iter().sum::<f64>() / n,
                cpu,
                metadata_bytes: std::fs::metadata(&path).map_or(0, |m| m.len()),
            };
            println!(
                "| {} | {:.2} | {:.2} | {:.2} | {} |",
                seq + 1,
                cost.median,
                cost.mean,
                cost.cpu,
                cost.metadata_bytes / 1024
            );
            times.clear();
            let base = first.get_or_insert((seq + 1, cost.mean));
            if base.0 != seq + 1 {
                println!("mean at {} snapshots / mean at {}: {:.2}", seq + 1, base.0, cost.mean / base.1);
            }
        }
    }
    check(&lake, &name, &table, &flow, end, options.rows).await
}

/// A measurement of commits that lost something would be worth nothing.
async fn check(
    lake: &IcebergLake,
    name: &TableName,
    table: &Arc<dyn CommitTable>,
    flow: &str,
    end: u64,
    rows: i64,
) -> Result<()> {
    let info = lake.load_table(name).await?.info().clone();
    let total = info.current_snapshot.and_then(|s| s.summary.get("total-records").cloned());
    let wanted = ((end as i64 + 1) * rows).to_string();
    ensure!(total.as_deref() == Some(wanted.as_str()), "the table counts {total:?} rows, not {wanted}");
    let anchor = table.load_head(flow).await?.anchor;
    ensure!(matches!(&anchor, AnchorState::Valid(a) if a.seq == end), "the anchor is {anchor:?}");
    Ok(())
}
