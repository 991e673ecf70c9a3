//! Which statement a CancelRequest means: process id and secret, as BackendKeyData told them.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

/// Cancels the statement of one connection.
pub(super) struct Signal {
    pid: i32,
    secret: i32,
    canceller: Box<dyn Fn() + Send + Sync>,
    /// Replaced at each statement, so that a late cancel does not hit the next one.
    statement: Mutex<CancellationToken>,
}

impl Signal {
    /// For the statement that begins now.
    pub fn renew(&self) -> CancellationToken {
        let token = CancellationToken::new();
        *self.statement.lock() = token.clone();
        token
    }

    /// The engine alone; harmless when repeated.
    pub fn cancel_engine(&self) {
        (self.canceller)();
    }

    fn cancel(&self) {
        self.statement.lock().cancel();
        self.cancel_engine();
    }
}

/// All connections that have signed in.
#[derive(Default, Clone)]
pub(super) struct Registry(Arc<Mutex<HashMap<i32, Arc<Signal>>>>);

impl Registry {
    /// The entry goes when the guard is dropped.
    pub fn register(&self, pid: i32, canceller: Box<dyn Fn() + Send + Sync>) -> Registered {
        let signal = Arc::new(Signal {
            pid,
            secret: rand::random(),
            canceller,
            statement: Mutex::new(CancellationToken::new()),
        });
        self.0.lock().insert(pid, signal.clone());
        Registered { registry: self.clone(), signal }
    }

    /// Nothing happens, and nothing is said, where the secret is wrong.
    pub fn cancel(&self, pid: i32, secret: i32) -> bool {
        let signal = self.0.lock().get(&pid).filter(|s| s.secret == secret).cloned();
        if let Some(signal) = &signal {
            signal.cancel();
        }
        signal.is_some()
    }
}

pub(super) struct Registered {
    registry: Registry,
    signal: Arc<Signal>,
}

impl Registered {
    pub fn signal(&self) -> &Arc<Signal> {
        &self.signal
    }

    pub fn key(&self) -> (i32, i32) {
        (self.signal.pid, self.signal.secret)
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        let mut entries = self.registry.0.lock();
        if entries.get(&self.signal.pid).is_some_and(|s| Arc::ptr_eq(s, &self.signal)) {
            entries.remove(&self.signal.pid);
        }
    }
}
