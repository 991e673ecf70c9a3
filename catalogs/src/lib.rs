//! The vocabulary that the rest of Tidewater speaks about tables and streams.
//!
//! ```text
//!   sql ───────────┐                      ┌── kafka      StreamConnector, StreamSource, StreamReader
//!   streaming ─────┼──►  this crate  ◄────┼── iceberg    LakeCatalog, LakeTable, CommitTable
//!   server ────────┘                      └── metastore  Metastore
//! ```
//!
//! The three types to know: [`StreamSource`] (a topic seen as a table), [`CommitTable`] (a table that a flow
//! writes, one numbered commit at a time) and [`Offsets`] (how far a flow has read).
//! Nothing here opens a socket or a file.

mod alteration;
mod change;
mod commit;
mod definition;
mod draft;
mod error;
mod flow_status;
mod lake;
mod maintenance;
mod names;
mod offsets;
mod procedure;
mod reference;
mod scan_memory;
mod stream;
mod version;
mod work;

pub use alteration::{AddColumn, Alteration, ColumnPlace, NamedPartition, PartitionRef};
pub use change::{ChangeKind, Changed, ROW_PLACE, Repeated, ReturnedRows, TableChange, TargetRows};
pub use commit::{
    Anchor, AnchorState, CommitReply, CommitRequest, CommitTable, CommitUuid, Epoch, StagedFile, StagedFiles,
    StagingWriter, TableHead,
};
pub use definition::{Definition, DefinitionKind, Metastore};
pub use draft::{DraftMark, TableDraft};
pub use error::{Error, ErrorKind, Result};
pub use flow_status::{ErrorDomain, FlowErrorInfo, FlowState, FlowStatus};
pub use lake::{
    BlobStore, COLUMN_COMMENT, CatalogConnector, CatalogSpec, LakeCatalog, LakeTable, NewTable, PartitionField,
    SnapshotInfo, SortField, StagedTable, TableInfo, Transform,
};
pub use maintenance::{Compacted, RowOrder, TableCompaction, VacuumRetention, Vacuumed};
pub use names::{DEFAULT_CATALOG, DEFAULT_SCHEMA, DLQ_SCHEMA, SYSTEM_CATALOG, TableName};
pub use offsets::{Offsets, PartitionRange, TopicLayout};
pub use procedure::{AddedFiles, RewrittenManifests};
pub use reference::{Existing, FLOW_REFERENCE_PREFIX, Moved, ReferenceChange, ReferenceKind, Retention};
pub use scan_memory::{announce_scan_memory, scan_memory};
pub use stream::{
    ConnectionSpec, DecodedLetters, HiddenColumn, OnError, ReadBatch, ReadRequest, StartPosition, StreamColumn,
    StreamConnector, StreamFormat, StreamReader, StreamSource, StreamSpec, StreamWriter, dead_letter_schema,
};
pub use version::{MetadataTable, TableVersion};
pub use work::{PlanRunner, Runner};
