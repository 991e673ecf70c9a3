use std::time::Duration;

use iceberg::TableRequirement;
use iceberg::spec::{PartitionField, StructType, TableMetadata, TableMetadataBuilder};
use tidewater_catalogs::{Error, ErrorKind, Result, TableName};
use uuid::Uuid;

use crate::error;
use crate::lake::{Lake, Swap, another};

/// Others may commit at the same time; each of these attempts lost to one who did.
const ATTEMPTS: u64 = 20;

/// Changes a table without a new snapshot, on its newest state. `plan` looks at that and says what must hold there and
/// what is changed; none where nothing is left to do. It is asked again after each attempt that lost.
pub(crate) async fn reshape<A>(
    lake: &Lake,
    name: &TableName,
    uuid: Uuid,
    plan: impl Fn(&TableMetadata) -> Result<Option<(Vec<TableRequirement>, A)>>,
) -> Result<()>
where
    A: Fn(TableMetadataBuilder) -> Result<TableMetadataBuilder>,
{
    // What was asked for in attempts whose answers were lost.
    let mut open: Option<(Option<Shape>, Error)> = None;
    for attempt in 0..ATTEMPTS {
        // A short wait, growing, so that two statements do not keep meeting.
        tokio::time::sleep(Duration::from_millis(attempt.min(10) * 5)).await;
        let state = match lake.load(name).await {
            Err(e) if e.kind() != ErrorKind::NotFound && open.is_some() => continue,
            other => other?,
        };
        let metadata = &state.metadata;
        if metadata.uuid() != uuid {
            return Err(another(name));
        }
        if open.as_ref().is_some_and(|(wanted, _)| wanted.as_ref().is_some_and(|wanted| wanted.is(metadata))) {
            return Ok(());
        }
        let (mut requirements, alter) = match (plan(metadata), open.take()) {
            (Ok(None), _) => return Ok(()),
            (Ok(Some(planned)), lost) => {
                open = lost;
                planned
            }
            (Err(_), Some((_, lost))) => return Err(unknown(name, lost)),
            (Err(e), None) => return Err(e),
        };
        // Readers, ours among them, do not open a table whose history goes back in time.
        if lake.now_ms() < metadata.last_updated_ms() {
            return Err(Error::unavailable(format!("the clock of this machine is behind table \"{name}\""))
                .with_hint("Set the clock, or wait until it is later than the last commit of the table."));
        }
        requirements.insert(0, TableRequirement::UuidMatch { uuid });
        let built = alter(metadata.as_ref().clone().into_builder(Some(state.metadata_location.clone())))?
            .build()
            .map_err(|e| error::iceberg("change the table", e))?;
        let base = lake.base(state.clone()).await?;
        let wanted = Shape::of(&built.metadata);
        let wanted = (!wanted.is(metadata)).then_some(wanted);
        let staged = base.without_snapshot(built, requirements, &alter)?;
        match lake.swap(&base, staged).await {
            Swap::Done(_) => return Ok(()),
            Swap::Moved => {}
            Swap::Unknown(e) => open = Some((wanted, e)),
            Swap::Refused(e) => return Err(open.map_or(e, |(_, lost)| unknown(name, lost))),
        }
    }
    Err(match open {
        Some((_, lost)) => unknown(name, lost),
        None => Error::new(
            ErrorKind::Conflict,
            format!("table \"{name}\" is changed by others faster than by this statement"),
        ),
    })
}

/// Columns and partition fields, which cannot be made a second time. All else can: properties and references are asked
/// for anew where they are not there.
struct Shape {
    columns: StructType,
    partitions: Vec<PartitionField>,
}

impl Shape {
    fn of(metadata: &TableMetadata) -> Self {
        Self {
            columns: metadata.current_schema().as_struct().clone(),
            partitions: metadata.default_partition_spec().fields().to_vec(),
        }
    }

    fn is(&self, metadata: &TableMetadata) -> bool {
        self.columns == *metadata.current_schema().as_struct()
            && self.partitions == metadata.default_partition_spec().fields()
    }
}

fn unknown(name: &TableName, lost: Error) -> Error {
    Error::new(ErrorKind::CommitUnknown, "the answer to a commit was lost: the table may be changed")
        .with_hint(format!("Look at \\d {} before you run the statement again.", name.name))
        .with_source(lost)
}
