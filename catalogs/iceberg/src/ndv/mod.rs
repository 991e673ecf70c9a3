//! How many distinct values columns have, told by sketches in a Puffin file that belongs to a snapshot.
//!
//! ```text
//!   a scan of the columns ─► a theta sketch each ─► one Puffin file ─► the table's metadata names it, and what it says
//!   a scan's statistics   ◄─ the newest file of the snapshot or of those before it (`ndv` of each sketch)
//! ```
//!
//! Sketches are those of Iceberg's Puffin specification (`apache-datasketches-theta-v1`), which others read and write too;
//! the planner asks for their estimates alone, which stand in the table's metadata.

mod known;
mod puffin;
mod sketch;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use datafusion::prelude::{SessionConfig, SessionContext};
use futures::StreamExt;
use iceberg::spec::{BlobMetadata, StatisticsFile};
use tidewater_catalogs::{Error, ErrorKind, Result, Runner};
use uuid::Uuid;

use crate::commit::reshape;
use crate::lake::Lake;
use crate::scan;
use crate::state::TableState;
pub(crate) use known::distinct_values;
use sketch::Sketch;

const BLOB_TYPE: &str = "apache-datasketches-theta-v1";
/// The estimate, in the properties of a blob.
const NDV: &str = "ndv";

/// Counts the distinct values of columns of the current snapshot, all that can be where none are named. Returns their names
/// and the estimates; none where the table has no snapshot.
pub(crate) async fn analyze(
    lake: &Lake,
    state: &Arc<TableState>,
    columns: Option<&[String]>,
    runner: &Runner,
) -> Result<Vec<(String, u64)>> {
    let chosen = choose(state, columns)?;
    let Some(snapshot) = state.metadata.current_snapshot() else { return Ok(Vec::new()) };
    let mut sketches = chosen.iter().map(|(_, id, _)| Sketch::new(*id)).collect::<Result<Vec<_>>>()?;
    let places: Vec<usize> = chosen.iter().map(|(place, ..)| *place).collect();
    if !places.is_empty() {
        let provider = scan::provider(Arc::clone(state), None)?;
        let config = SessionConfig::new().with_target_partitions(1);
        let session = SessionContext::new_with_config_rt(config, runner.task().runtime_env());
        let mut rows = runner.run(provider.scan(&session.state(), Some(&places), &[], None).await?);
        while let Some(batch) = rows.next().await {
            for (sketch, column) in sketches.iter_mut().zip(batch?.columns()) {
                sketch.add(column)?;
            }
        }
    }
    let commit = Uuid::now_v7();
    let _entered = lake.in_flight.enter(commit);
    let (snapshot_id, sequence_number) = (snapshot.snapshot_id(), snapshot.sequence_number());
    let blobs: Vec<BlobMetadata> = sketches
        .iter()
        .map(|sketch| BlobMetadata {
            r#type: BLOB_TYPE.to_owned(),
            snapshot_id,
            sequence_number,
            fields: vec![sketch.field_id],
            properties: HashMap::from([(NDV.to_owned(), sketch.estimate().to_string())]),
        })
        .collect();
    let (file, footer_bytes) = puffin::file(blobs.iter().zip(sketches.iter().map(Sketch::bytes)))?;
    let folder = state.metadata.location().trim_end_matches('/');
    let path = format!("{folder}/metadata/{commit}-{snapshot_id}.stats");
    let statistics = StatisticsFile {
        snapshot_id,
        statistics_path: path.clone(),
        file_size_in_bytes: file.len() as i64,
        file_footer_size_in_bytes: footer_bytes as i64,
        key_metadata: None,
        blob_metadata: blobs,
    };
    state.storage.write_new(vec![(path, Bytes::from(file))]).await?;
    reshape(lake, &state.name, state.metadata.uuid(), |metadata| {
        if metadata.snapshot_by_id(snapshot_id).is_none() {
            return Err(Error::new(ErrorKind::Conflict, "the snapshot that was counted has expired meanwhile"));
        }
        if metadata.statistics_for_snapshot(snapshot_id) == Some(&statistics) {
            return Ok(None);
        }
        let statistics = statistics.clone();
        Ok(Some((Vec::new(), move |builder: iceberg::spec::TableMetadataBuilder| {
            Ok(builder.set_statistics(statistics.clone()))
        })))
    })
    .await?;
    Ok(chosen.into_iter().zip(&sketches).map(|((_, _, name), sketch)| (name, sketch.estimate())).collect())
}

/// Place, id and name of the columns. Nested ones and `uuid` have no count.
fn choose(state: &TableState, columns: Option<&[String]>) -> Result<Vec<(usize, i32, String)>> {
    use iceberg::spec::{PrimitiveType, Type};
    let fields = state.metadata.current_schema().as_struct().fields();
    let counts = |data_type: &Type| matches!(data_type, Type::Primitive(p) if !matches!(p, PrimitiveType::Uuid));
    let all = fields.iter().enumerate().map(|(place, field)| (place, field.id, field.name.clone()));
    let Some(columns) = columns else {
        return Ok(all.filter(|(place, ..)| counts(&fields[*place].field_type)).collect());
    };
    let named = columns.iter().map(|column| {
        let found = all.clone().find(|(_, _, name)| name == column);
        let found = found.ok_or_else(|| Error::not_found(format!("column \"{column}\" does not exist")))?;
        match counts(&fields[found.0].field_type) {
            true => Ok(found),
            false => Err(Error::unsupported(format!(
                "distinct values of column \"{column}\" of type {} are not counted",
                fields[found.0].field_type
            ))),
        }
    });
    named.collect()
}
