use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use uuid::Uuid;

/// Commits that this process is writing files for. Their files are in no snapshot yet, and no garbage.
#[derive(Debug, Default)]
pub(crate) struct InFlight(Mutex<HashMap<Uuid, usize>>);

impl InFlight {
    pub(crate) fn enter(self: &Arc<Self>, commit: Uuid) -> Entered {
        *self.0.lock().entry(commit).or_default() += 1;
        Entered { all: Arc::clone(self), commit }
    }

    pub(crate) fn commits(&self) -> Vec<String> {
        self.0.lock().keys().map(Uuid::to_string).collect()
    }
}

/// Until it is dropped, the commit's files are being written, or wait to be committed.
#[derive(Debug)]
pub(crate) struct Entered {
    all: Arc<InFlight>,
    commit: Uuid,
}

impl Drop for Entered {
    fn drop(&mut self) {
        let mut all = self.all.0.lock();
        if let Some(count) = all.get_mut(&self.commit) {
            *count -= 1;
            if *count == 0 {
                all.remove(&self.commit);
            }
        }
    }
}
