//! What keeps a flow's table small while it runs: small files are written anew, and garbage goes. Beside the commits, which
//! it neither waits for nor keeps waiting; one table of the process at a time.

use std::sync::Arc;
use std::time::Duration;

use tidewater_catalogs::{CommitTable, Result};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use crate::env::EngineSettings;

/// Work on several tables at once would take what queries and flows need.
static TURN: Semaphore = Semaphore::const_new(1);

const FIRST_VACUUM: Duration = Duration::from_secs(600);

#[derive(Debug)]
pub(crate) struct Upkeep {
    task: Option<AbortOnDropHandle<()>>,
    compacted_at: Instant,
    vacuumed_at: Instant,
    vacuumed: bool,
    /// Files of dead letters may wait for their commit longer than any other, so nobody may take them for garbage.
    vacuums: bool,
}

impl Upkeep {
    pub(crate) fn new(vacuums: bool) -> Self {
        let now = Instant::now();
        Self { task: None, compacted_at: now, vacuumed_at: now, vacuumed: false, vacuums }
    }

    /// Begins what is due, unless the last is still under way. To be called after a commit.
    pub(crate) fn begin_if_due(&mut self, table: &Arc<dyn CommitTable>, settings: &EngineSettings) {
        if self.task.as_ref().is_some_and(|task| !task.is_finished()) {
            return;
        }
        let due = |since: Instant, every: Duration| !every.is_zero() && since.elapsed() >= every;
        let compact = due(self.compacted_at, settings.compact_interval);
        // Soon after the start, too: a flow that starts anew each day would never come to it.
        let every = if self.vacuumed { settings.vacuum_interval } else { settings.vacuum_interval.min(FIRST_VACUUM) };
        let vacuum = self.vacuums && due(self.vacuumed_at, every);
        if !compact && !vacuum {
            return;
        }
        let now = Instant::now();
        if compact {
            self.compacted_at = now;
        }
        if vacuum {
            (self.vacuumed_at, self.vacuumed) = (now, true);
        }
        let table = Arc::clone(table);
        self.task = Some(AbortOnDropHandle::new(tokio::spawn(async move {
            let Ok(_turn) = TURN.acquire().await else { return };
            if compact {
                report("compaction", table.compact().await.map(|done| (done.files_removed, done.files_added)));
            }
            if vacuum {
                report("removing garbage", table.vacuum().await.map(|done| (done.files, 0)));
            }
        })));
    }
}

/// Whatever happens here, the flow goes on.
fn report(what: &str, done: Result<(u64, u64)>) {
    match done {
        Ok((0, 0)) => {}
        Ok((removed, added)) => tracing::debug!(removed, added, "{what} of a flow's table"),
        Err(e) => tracing::warn!(error = %e, "{what} of a flow's table failed"),
    }
}
