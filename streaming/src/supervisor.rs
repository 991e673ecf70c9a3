//! Starts flows, stops them, and starts them again when they fail.
//!
//! ```text
//!             start                 drained
//!   Starting ───────► Running ───────────────► Paused | Stopped
//!      ▲   │             │                        │ resume
//!      │   └─────┬───────┘                        ▼
//!      │         ▼                             Starting
//!      │   waiting may help? ── no ──► Failed ──resume──► Starting
//!      │         │ yes
//!      └── Restarting (growing pauses)
//! ```
//!
//! One task per flow holds its fate; commands reach it through a channel and are answered when they are done.
//!
//! A flow that was **fenced** lost its table to another writer, for instance a second server that runs the same
//! definitions. It drops what it has in memory and touches no file. It then watches the table once: the other may be
//! what is left of a server that is gone, a last commit that arrived late. Where the other goes on committing, or comes
//! back after the flow took over, it is alive, and the flow fails, as two that take the table from each other for ever
//! help nobody. It stays failed until someone says RESUME, which watches again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tidewater_catalogs::{Definition, Error, ErrorKind, FlowState, FlowStatus, Result};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use uuid::Uuid;

use crate::env::Env;
use crate::failure::{FENCED, Failure, FlowResult, PAUSED_ELSEWHERE};
use crate::flow::{self, RunControl};
use crate::hot::ReadView;
use crate::replay::ReplayProgress;
use crate::spec::FlowFactory;
use crate::status::StatusCell;

/// Property of a definition: `true` where the flow must not run until it is resumed.
const PAUSED: &str = "paused";

/// A flow that was fenced more often than this does not try again by itself.
const FENCES: u32 = 1;

/// All flows of this server. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Supervisor {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    runtime: Handle,
    factory: Arc<dyn FlowFactory>,
    env: Env,
    flows: Mutex<BTreeMap<Uuid, FlowHandle>>,
}

#[derive(Debug)]
struct FlowHandle {
    name: String,
    status: Arc<StatusCell>,
    commands: mpsc::Sender<Command>,
    _keeper: AbortOnDropHandle<()>,
}

#[derive(Debug)]
enum Order {
    Pause,
    Resume,
    Restart(Box<Definition>),
    /// Ends the flow. With `settle`, one that does not run, or that did not drain, has its outbox drained first.
    Stop {
        settle: bool,
    },
}

#[derive(Debug)]
struct Command {
    order: Order,
    /// How long a run may take to seal and commit before it is cut off.
    deadline: Duration,
    done: oneshot::Sender<Answer>,
}

/// What a stopped flow still owes, as its keeper could not pay it: the reason why.
type Answer = Option<Error>;

impl Supervisor {
    /// Flows run on `runtime`.
    pub fn new(runtime: Handle, factory: Arc<dyn FlowFactory>, env: Env) -> Self {
        Self { inner: Arc::new(Inner { runtime, factory, env, flows: Mutex::new(BTreeMap::new()) }) }
    }

    /// Takes charge of a flow and returns at once; what becomes of it is in its status. A definition with the
    /// property `paused` = `true` waits for [`Self::resume`]. Fails with `AlreadyExists` where it is in charge already.
    pub fn start(&self, definition: Definition) -> Result<()> {
        let mut flows = self.inner.flows.lock();
        if flows.contains_key(&definition.id) {
            return Err(Error::new(ErrorKind::AlreadyExists, format!("flow \"{}\" is running", definition.name)));
        }
        let (commands, receiver) = mpsc::channel(8);
        let status = Arc::new(StatusCell::new(&definition));
        let (id, name) = (definition.id, definition.name.clone());
        let keeper = Keeper {
            factory: Arc::clone(&self.inner.factory),
            env: self.inner.env.clone(),
            runtime: self.inner.runtime.clone(),
            status: Arc::clone(&status),
            commands: receiver,
            definition,
            failures: 0,
            fences: 0,
        };
        let keeper = AbortOnDropHandle::new(self.inner.runtime.spawn(keeper.keep()));
        flows.insert(id, FlowHandle { name, status, commands, _keeper: keeper });
        Ok(())
    }

    /// Seals and commits what was read, drains dead letters, and rests. Returns when it rests.
    pub async fn pause(&self, id: Uuid) -> Result<()> {
        self.order(id, Order::Pause, self.inner.env.settings.drain_deadline).await.map(drop)
    }

    /// Starts a paused or failed flow again, from its last commit.
    pub async fn resume(&self, id: Uuid) -> Result<()> {
        self.order(id, Order::Resume, self.inner.env.settings.drain_deadline).await.map(drop)
    }

    /// Drains the flow and starts it with a changed definition of the same id. One that is paused stays so.
    pub async fn restart(&self, definition: Definition) -> Result<()> {
        let id = definition.id;
        self.order(id, Order::Restart(Box::new(definition)), self.inner.env.settings.drain_deadline).await.map(drop)
    }

    /// [`Self::stop_and_settle`] for those who have no one to tell; what could not be settled is logged.
    pub async fn stop(&self, id: Uuid) -> Result<()> {
        self.stop_and_settle(id).await.map(drop)
    }

    /// Drains the flow and lets go of it. Call it before its table is dropped. Its dead letters are in their table
    /// when this returns `None`; else the flow has stopped all the same, and this is why some may be missing.
    pub async fn stop_and_settle(&self, id: Uuid) -> Result<Option<Error>> {
        let done = self.order(id, Order::Stop { settle: true }, self.inner.env.settings.drain_deadline).await;
        // Answered or not, its keeper has ended.
        self.inner.flows.lock().remove(&id);
        done
    }

    /// Drains all flows at once; those that do not make it in time are cut off, which loses nothing.
    pub async fn shutdown(&self, deadline: Duration) {
        let ids: Vec<Uuid> = self.inner.flows.lock().keys().copied().collect();
        let stops = ids.into_iter().map(|id| self.order(id, Order::Stop { settle: false }, deadline));
        futures::future::join_all(stops).await;
        self.inner.flows.lock().clear();
    }

    /// By name.
    pub fn statuses(&self) -> Vec<FlowStatus> {
        let mut all: Vec<_> = self.inner.flows.lock().values().map(|f| f.status.get()).collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    pub fn status(&self, id: Uuid) -> Option<FlowStatus> {
        self.inner.flows.lock().get(&id).map(|f| f.status.get())
    }

    /// How far a request to replay dead letters has come. None where nothing of it is committed, or nobody knows it any
    /// more; what an earlier run has committed is known once the flow has found its last commit.
    pub fn replay(&self, flow: Uuid, request: Uuid) -> Option<ReplayProgress> {
        let status = self.inner.flows.lock().get(&flow).map(|f| Arc::clone(&f.status))?;
        status.replay(request)
    }

    /// What the flow of this name holds and has not committed yet. None where it does not run here. To be taken
    /// before its table is loaded, see [`ReadView::above`].
    pub fn read_view(&self, name: &str) -> Option<ReadView> {
        let status = self.inner.flows.lock().values().find(|f| f.name == name).map(|f| Arc::clone(&f.status))?;
        status.hot().view()
    }

    /// Id of the flow with the name that its definition has.
    pub fn find(&self, name: &str) -> Option<Uuid> {
        self.inner.flows.lock().iter().find(|(_, f)| f.name == name).map(|(id, _)| *id)
    }

    /// The first status that `wanted` accepts; asks every few milliseconds, for ever.
    pub async fn wait_until(&self, id: Uuid, wanted: impl Fn(&FlowStatus) -> bool) -> Result<FlowStatus> {
        loop {
            let status = self.status(id).ok_or_else(|| not_found(id))?;
            if wanted(&status) {
                return Ok(status);
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn order(&self, id: Uuid, order: Order, deadline: Duration) -> Result<Answer> {
        let commands = {
            let flows = self.inner.flows.lock();
            flows.get(&id).ok_or_else(|| not_found(id))?.commands.clone()
        };
        let (done, answer) = oneshot::channel();
        let gone = |_| Error::not_found("the flow was stopped");
        commands.send(Command { order, deadline, done }).await.map_err(|_| not_found(id))?;
        answer.await.map_err(gone)
    }
}

fn not_found(id: Uuid) -> Error {
    Error::not_found("no such flow").with_context("id", id)
}

/// The task that keeps one flow.
struct Keeper {
    factory: Arc<dyn FlowFactory>,
    env: Env,
    runtime: Handle,
    status: Arc<StatusCell>,
    commands: mpsc::Receiver<Command>,
    definition: Definition,
    /// Failed runs since the last one that lasted.
    failures: u32,
    /// Fenced runs since the last one that lasted.
    fences: u32,
}

/// What the keeper does next.
enum Next {
    Run,
    Wait(Duration),
    Rest,
    End,
}

impl Keeper {
    async fn keep(mut self) {
        let mut next = if paused(&self.definition) {
            self.status.set_state(FlowState::Paused, None);
            Next::Rest
        } else {
            Next::Run
        };
        loop {
            next = match next {
                Next::Run => self.run_once().await,
                Next::Wait(pause) => tokio::select! {
                    () = tokio::time::sleep(pause) => Next::Run,
                    command = self.commands.recv() => self.obey_at_rest(command).await,
                },
                Next::Rest => {
                    let command = self.commands.recv().await;
                    self.obey_at_rest(command).await
                }
                Next::End => return,
            };
        }
    }

    /// One run, from planning to its end, whoever ends it.
    async fn run_once(&mut self) -> Next {
        self.status.set_state(FlowState::Starting, self.status.get().error);
        let drain = CancellationToken::new();
        let mut run = self.spawn(drain.clone());
        let began = Instant::now();
        loop {
            let command = tokio::select! {
                ended = &mut run => return self.after_run(flatten(ended), began),
                command = self.commands.recv() => command,
            };
            let Some(command) = command else { return Next::End };
            if matches!(command.order, Order::Resume) {
                // It runs already.
                let _ = command.done.send(None);
                continue;
            }
            drain.cancel();
            let (failure, drained) = match tokio::time::timeout(command.deadline, &mut run).await {
                Ok(ended) => {
                    let failure = flatten(ended).err();
                    let drained = failure.is_none();
                    (failure, drained)
                }
                Err(_) => {
                    run.abort();
                    tracing::warn!(flow = %self.definition.name, "flow was cut off before it had drained");
                    (None, false)
                }
            };
            if let Some(failure) = &failure {
                tracing::warn!(flow = %self.definition.name, error = %failure.error, "flow failed while draining");
            }
            // Whatever broke the drain off, be it a commit to the target or a record that cannot be read, need not
            // keep the dead letters of earlier commits from their table. After this nobody knows of them any more.
            let owed = match command.order {
                Order::Stop { settle: true } if !drained => self.settle(command.deadline).await,
                _ => None,
            };
            return self.obey(command, failure, owed);
        }
    }

    fn spawn(&self, drain: CancellationToken) -> AbortOnDropHandle<FlowResult<()>> {
        let (factory, env, status) = (Arc::clone(&self.factory), self.env.clone(), Arc::clone(&self.status));
        let definition = self.definition.clone();
        // A flow that only settles its debts takes nothing over.
        let control = RunControl { after_fence: self.fences > 0 && !drain.is_cancelled(), drain };
        AbortOnDropHandle::new(self.runtime.spawn(async move {
            let definition = match factory.current(&definition).await {
                // Debts are paid also where the flow is paused or gone.
                Err(_) if control.drain.is_cancelled() => definition,
                Ok(stored) if paused(&stored) && !control.drain.is_cancelled() => return Err(Failure::paused()),
                other => other?,
            };
            let spec = factory.build(&definition).await?;
            flow::run(spec, env, control, status).await
        }))
    }

    fn after_run(&mut self, ended: FlowResult<()>, began: Instant) -> Next {
        let Err(failure) = ended else {
            // Runs end well only when asked to.
            return self.after_run(Err(Error::internal("the flow ended by itself").into()), began);
        };
        if failure.code == PAUSED_ELSEWHERE {
            self.status.set_state(FlowState::Paused, None);
            return Next::Rest;
        }
        if began.elapsed() >= self.env.settings.stable_after {
            self.failures = 0;
            self.fences = 0;
        }
        let mut restarts = failure.restarts;
        if failure.code == FENCED {
            self.fences = self.fences.saturating_add(1);
            restarts &= self.fences <= FENCES;
        }
        let info = failure.info(self.env.now_ms());
        if !restarts {
            tracing::error!(flow = %self.definition.name, code = failure.code, error = %failure.error, "flow failed");
            self.status.set_state(FlowState::Failed, Some(info));
            return Next::Rest;
        }
        self.failures = self.failures.saturating_add(1);
        let s = &self.env.settings;
        let pause = self.env.back_off(self.failures, s.restart_min, s.restart_max);
        tracing::warn!(
            flow = %self.definition.name, code = failure.code, error = %failure.error,
            pause_ms = flow::millis(pause), "flow restarts"
        );
        self.status.set_state(FlowState::Restarting, Some(info));
        self.status.restarted();
        Next::Wait(pause)
    }

    /// A command for a flow that does not run.
    async fn obey_at_rest(&mut self, command: Option<Command>) -> Next {
        let Some(command) = command else { return Next::End };
        let owed = match command.order {
            Order::Stop { settle: true } => self.settle(command.deadline).await,
            _ => None,
        };
        let failed = self.status.state() == FlowState::Failed;
        match (&command.order, failed) {
            // It stays failed, and its error stays to be seen.
            (Order::Pause, true) => {
                let _ = command.done.send(None);
                Next::Rest
            }
            _ => self.obey(command, None, owed),
        }
    }

    fn obey(&mut self, command: Command, failure: Option<Failure>, owed: Answer) -> Next {
        let info = failure.map(|f| f.info(self.env.now_ms()));
        let next = match command.order {
            Order::Pause => {
                self.status.set_state(FlowState::Paused, info);
                Next::Rest
            }
            Order::Resume => {
                self.failures = 0;
                // It may be fenced once more, and looks on before it takes over.
                self.fences = self.fences.min(FENCES);
                self.definition.properties.remove(PAUSED);
                self.status.set_state(FlowState::Starting, None);
                Next::Run
            }
            Order::Restart(definition) => {
                self.definition = *definition;
                self.failures = 0;
                if self.status.state() == FlowState::Paused {
                    Next::Rest
                } else {
                    self.status.set_state(FlowState::Starting, None);
                    Next::Run
                }
            }
            Order::Stop { .. } => {
                self.status.set_state(FlowState::Stopped, info);
                Next::End
            }
        };
        // Who asked may have gone away.
        let _ = command.done.send(owed);
        next
    }

    /// Pays what a flow at rest still owes: a run that is told to drain before it begins only empties the outbox.
    async fn settle(&self, deadline: Duration) -> Answer {
        let drain = CancellationToken::new();
        drain.cancel();
        let error = match tokio::time::timeout(deadline, self.spawn(drain)).await {
            Ok(ended) => *flatten(ended).err()?.error,
            Err(_) => Error::unavailable("the dead letters of the flow were not written in time"),
        };
        tracing::warn!(flow = %self.definition.name, %error, "dead letters of a stopped flow not drained");
        Some(error)
    }
}

fn paused(definition: &Definition) -> bool {
    definition.properties.get(PAUSED).is_some_and(|v| v == "true")
}

/// A panic is a bug of ours; the flow restarts from its last commit like after any other error.
fn flatten(ended: Result<FlowResult<()>, tokio::task::JoinError>) -> FlowResult<()> {
    match ended {
        Ok(result) => result,
        Err(e) => Err(Error::internal("the flow panicked").with_source(e).into()),
    }
}
