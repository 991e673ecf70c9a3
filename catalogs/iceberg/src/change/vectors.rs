//! Deletion vectors (Iceberg spec, "Deletion Vectors"; Puffin spec, "deletion-vector-v1"): one for each data file, many of
//! them in one file.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use iceberg::io::FileIO;
use iceberg::puffin::{Blob, CREATED_BY_PROPERTY, CompressionCodec, DELETION_VECTOR_V1, PuffinWriter};
use iceberg::spec::{DataContentType, DataFile, DataFileBuilder, DataFileFormat};
use tidewater_catalogs::{Error, Result};
use uuid::Uuid;

use crate::error;
use crate::scan::{TargetFile, vector_blob};
use crate::state::TableState;
use crate::writer::grown;

/// Field id of a row's position, which is what a vector is about.
const POSITION: i32 = 2_147_483_645;
/// Bytes of vectors that are in memory at a time; beyond, a commit has several files of them.
const FILE_BYTES: usize = 64 << 20;

/// Vectors of one commit that are not written yet.
pub(super) struct Vectors<'a> {
    state: &'a TableState,
    commit: Uuid,
    files: usize,
    waiting: Vec<Waiting>,
    bytes: usize,
}

struct Waiting {
    target: Arc<TargetFile>,
    deleted: u64,
    blob: Vec<u8>,
}

impl<'a> Vectors<'a> {
    pub(super) fn new(state: &'a TableState, commit: Uuid) -> Self {
        Self { state, commit, files: 0, waiting: Vec::new(), bytes: 0 }
    }

    /// `positions` (ascending) are all that are deleted of `target`.
    pub(super) fn push(&mut self, target: Arc<TargetFile>, positions: &[u64]) -> Result<()> {
        let blob = vector_blob(positions)?;
        self.bytes += blob.len();
        self.waiting.push(Waiting { target, deleted: positions.len() as u64, blob });
        Ok(())
    }

    pub(super) fn is_full(&self) -> bool {
        self.bytes >= FILE_BYTES
    }

    /// The file of those that wait, and its entries. None where there are none.
    pub(super) async fn take(&mut self) -> Result<Option<(Vec<(i32, DataFile)>, (String, Bytes))>> {
        if self.waiting.is_empty() {
            return Ok(None);
        }
        self.bytes = 0;
        let waiting = std::mem::take(&mut self.waiting);
        let directory = self.state.metadata.location().trim_end_matches('/');
        let location = format!("{directory}/data/{}-{:05}-deletes.puffin", self.commit, self.files);
        self.files += 1;
        let bytes = puffin(&waiting).await.map_err(|e| error::iceberg("write deletion vectors", e))?;
        let mut entries = Vec::with_capacity(waiting.len());
        // Behind the magic number.
        let mut offset = 4;
        for vector in waiting {
            entries.push((vector.target.spec_id, self.entry(&location, bytes.len(), &vector, offset)?));
            offset += vector.blob.len();
        }
        Ok(Some((entries, (location, bytes))))
    }

    fn entry(&self, location: &str, file_bytes: usize, vector: &Waiting, offset: usize) -> Result<DataFile> {
        let target = &vector.target;
        DataFileBuilder::default()
            .content(DataContentType::PositionDeletes)
            .file_path(location.to_owned())
            .file_format(DataFileFormat::Puffin)
            .partition(grown(&self.state.metadata, target.spec_id, &target.partition))
            .partition_spec_id(target.spec_id)
            .record_count(vector.deleted)
            .file_size_in_bytes(file_bytes as u64)
            .referenced_data_file(Some(target.location.clone()))
            .content_offset(Some(offset as i64))
            .content_size_in_bytes(Some(vector.blob.len() as i64))
            .build()
            .map_err(|e| Error::internal("a deletion vector cannot be described").with_source(e))
    }
}

/// Snapshot and sequence number are inherited from the commit.
fn blob(waiting: &Waiting) -> Blob {
    let properties = HashMap::from([
        ("referenced-data-file".to_owned(), waiting.target.location.clone()),
        ("cardinality".to_owned(), waiting.deleted.to_string()),
    ]);
    Blob::builder()
        .r#type(DELETION_VECTOR_V1.to_owned())
        .fields(vec![POSITION])
        .snapshot_id(-1)
        .sequence_number(-1)
        .data(waiting.blob.clone())
        .properties(properties)
        .build()
}

async fn puffin(vectors: &[Waiting]) -> iceberg::Result<Bytes> {
    const SCRATCH: &str = "memory:///vectors.puffin";
    let memory = FileIO::new_with_memory();
    let by = concat!("tidewater ", env!("CARGO_PKG_VERSION")).to_owned();
    let properties = HashMap::from([(CREATED_BY_PROPERTY.to_owned(), by)]);
    let mut writer = PuffinWriter::new(&memory.new_output(SCRATCH)?, properties, false).await?;
    for vector in vectors {
        writer.add(blob(vector), CompressionCodec::None).await?;
    }
    writer.close().await?;
    memory.new_input(SCRATCH)?.read().await
}
