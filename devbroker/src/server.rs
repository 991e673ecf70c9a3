use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Buf, BytesMut};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::api::{self, Reply};
use crate::groups::Groups;
use crate::store::{Store, TopicError, TopicOptions};
use crate::{DevBrokerConfig, Error, Result, frame};

const OFFSETS_FILE: &str = "groups.json";
const IDLE_LIMIT: Duration = Duration::from_secs(600);
/// A request that has begun must be whole by then, an answer taken.
const TRANSFER_LIMIT: Duration = Duration::from_secs(60);
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(5);
const GROUP_TICK: Duration = Duration::from_millis(50);
const OFFSETS_EVERY: Duration = Duration::from_secs(1);

/// What every connection shares.
#[derive(Debug)]
pub struct Broker {
    pub store: Store,
    pub groups: Groups,
    pub stop: CancellationToken,
    request_bytes: Arc<Semaphore>,
    connections: Arc<Semaphore>,
}

/// A running broker. It has threads of its own, so that its reads and writes of files hold up nobody else.
/// Dropping it ends it as a kill would; [`DevBroker::shutdown`] says goodbye.
#[derive(Debug)]
pub struct DevBroker {
    addr: SocketAddr,
    broker: Arc<Broker>,
    tasks: TaskTracker,
    runtime: Mutex<Option<Runtime>>,
}

impl DevBroker {
    /// Reads the logs (which may take seconds where they are large) and listens. Blocks meanwhile.
    pub fn start(config: DevBrokerConfig) -> Result<Self> {
        config.check()?;
        let listen = config.listen;
        let broker = Arc::new(Broker {
            request_bytes: Arc::new(Semaphore::new(config.max_inflight_bytes)),
            connections: Arc::new(Semaphore::new(config.max_connections)),
            groups: Groups::open(config.data_dir.join(OFFSETS_FILE), config.max_groups)?,
            stop: CancellationToken::new(),
            store: Store::open(config)?,
        });
        let cannot = |source| Error::Listen { addr: listen, source };
        let socket = std::net::TcpListener::bind(listen).map_err(cannot)?;
        socket.set_nonblocking(true).map_err(cannot)?;
        let addr = socket.local_addr().map_err(cannot)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .max_blocking_threads(2)
            .thread_name("devbroker")
            .enable_all()
            .build()
            .map_err(cannot)?;
        let listener = {
            let _inside = runtime.enter();
            TcpListener::from_std(socket).map_err(cannot)?
        };
        let tasks = TaskTracker::new();
        runtime.spawn(tasks.track_future(accept(listener, broker.clone(), tasks.clone())));
        runtime.spawn(tasks.track_future(keep_groups(broker.clone())));
        tasks.close();
        tracing::info!(%addr, "development broker is listening");
        Ok(Self { addr, broker, tasks, runtime: Mutex::new(Some(runtime)) })
    }

    /// Where clients connect; the port is the real one.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub fn cluster_id(&self) -> &str {
        &self.broker.store.cluster_id
    }

    /// As a client's request would. Writes files.
    pub fn create_topic(&self, name: &str, partitions: u32, options: TopicOptions) -> Result<(), TopicError> {
        self.broker.store.create_topic(name, partitions, options, false).map(|_| ())
    }

    pub fn has_topic(&self, name: &str) -> bool {
        self.broker.store.topic(name).is_some()
    }

    /// Sum of the next offsets of all partitions of a topic; 0 where there is none.
    pub fn next_offsets(&self, topic: &str) -> i64 {
        let topic = self.broker.store.topic(topic);
        topic.map_or(0, |t| t.partitions.iter().map(|p| p.span().end).sum())
    }

    /// Answers what is under way, within a few seconds, and ends. The data directory is free once `self` is dropped.
    pub async fn shutdown(&self) {
        self.broker.stop.cancel();
        if tokio::time::timeout(SHUTDOWN_LIMIT, self.tasks.wait()).await.is_err() {
            tracing::warn!("development broker ends with connections open");
        }
        if let Err(error) = self.broker.groups.save() {
            tracing::warn!(%error, "offsets of consumer groups were not written");
        }
        self.end_runtime();
    }

    /// A runtime that is dropped inside another one panics; this way it does not.
    fn end_runtime(&self) {
        if let Some(runtime) = self.runtime.lock().take() {
            runtime.shutdown_background();
        }
    }
}

impl Drop for DevBroker {
    fn drop(&mut self) {
        self.broker.stop.cancel();
        self.end_runtime();
    }
}

async fn accept(listener: TcpListener, broker: Arc<Broker>, tasks: TaskTracker) {
    loop {
        let accepted = tokio::select! {
            () = broker.stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let (socket, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, mostly: the next one will not do better at once.
                tracing::warn!(%error, "connection was not accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Ok(permit) = broker.connections.clone().try_acquire_owned() else {
            tracing::warn!(%peer, "connection refused: max_connections are open");
            continue;
        };
        let broker = broker.clone();
        tasks.spawn(async move {
            match serve(socket, &broker).await {
                Ok(()) => {}
                Err(reason) => tracing::debug!(%peer, reason, "connection closed"),
            }
            drop(permit);
        });
    }
}

async fn keep_groups(broker: Arc<Broker>) {
    let mut saved = Instant::now();
    while !broker.stop.is_cancelled() {
        tokio::select! {
            () = broker.stop.cancelled() => return,
            () = tokio::time::sleep(GROUP_TICK) => {}
        }
        let now = Instant::now();
        broker.groups.tick(now);
        if now - saved >= OFFSETS_EVERY {
            saved = now;
            if let Err(error) = broker.groups.save() {
                tracing::warn!(%error, "offsets of consumer groups were not written");
            }
        }
    }
}

/// Answers requests one after the other until the peer or the broker ends.
async fn serve(mut socket: TcpStream, broker: &Broker) -> Result<(), &'static str> {
    let _ = socket.set_nodelay(true);
    let local = socket.local_addr().map_err(|_| "socket has no address")?;
    let mut input = BytesMut::new();
    loop {
        let length = tokio::select! {
            () = broker.stop.cancelled() => return Ok(()),
            length = read_length(&mut socket, &mut input) => match length? {
                Some(length) => length,
                None => return Ok(()),
            },
        };
        if length < 8 || length > broker.store.config.max_request_bytes {
            return Err("length of the request is out of bounds");
        }
        let permits = u32::try_from(length).map_err(|_| "length of the request is out of bounds")?;
        let held = tokio::select! {
            () = broker.stop.cancelled() => return Ok(()),
            held = broker.request_bytes.clone().acquire_many_owned(permits) => held.map_err(|_| "broker ends")?,
        };
        let whole = read_whole(&mut socket, &mut input, length);
        tokio::time::timeout(TRANSFER_LIMIT, whole).await.map_err(|_| "request came too slowly")??;
        let request = input.split_to(length).freeze();
        let reply = {
            let head = frame::head(&request).map_err(|_| "malformed request")?;
            api::answer(broker, local, head, request).await.map_err(|_| {
                tracing::debug!(key = head.key, version = head.version, length, "request is malformed or not served");
                "malformed request"
            })?
        };
        drop(held);
        if let Reply::Send(bytes) = reply {
            let written = tokio::time::timeout(TRANSFER_LIMIT, socket.write_all(&bytes)).await;
            written.map_err(|_| "answer was not taken in time")?.map_err(|_| "connection lost")?;
        }
        if input.is_empty() && input.capacity() > (1 << 20) {
            input = BytesMut::new();
        }
    }
}

/// `None` where the peer is gone between two requests.
async fn read_length(socket: &mut TcpStream, input: &mut BytesMut) -> Result<Option<usize>, &'static str> {
    while input.len() < 4 {
        input.reserve(4096);
        let read = tokio::time::timeout(IDLE_LIMIT, socket.read_buf(input));
        match read.await {
            Err(_) => return Ok(None),
            Ok(Ok(0)) if input.is_empty() => return Ok(None),
            Ok(Ok(0)) => return Err("connection ended inside a request"),
            Ok(Ok(_)) => {}
            Ok(Err(_)) => return Err("connection lost"),
        }
    }
    usize::try_from(input.get_i32()).map(Some).map_err(|_| "length of the request is out of bounds")
}

/// Takes memory as the bytes come, not as the peer says they will.
async fn read_whole(socket: &mut TcpStream, input: &mut BytesMut, length: usize) -> Result<(), &'static str> {
    while input.len() < length {
        input.reserve((length - input.len()).min(256 << 10));
        match socket.read_buf(input).await {
            Ok(0) => return Err("connection ended inside a request"),
            Ok(_) => {}
            Err(_) => return Err("connection lost"),
        }
    }
    Ok(())
}
