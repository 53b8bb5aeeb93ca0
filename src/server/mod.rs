//! The mock server: answers every message of the wire, at high volume, and misbehaves on request.
//!
//! A thread accepts connections and deals them to workers, each a thread with a runtime of its own, so a connection
//! never changes its thread and its messages meet no lock. Without a processing delay a request is answered as it
//! is read; with one, all workers share an engine that holds the queue.

mod answer;
mod config;
mod connection;
mod engine;
mod fault;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
mod handshake;
mod hold;
pub mod idempotency;
mod queue;
mod session;
mod shared;
mod spinner;
mod stats;
mod tls;
mod tokens;
mod worker;

use std::io;
use std::net::{SocketAddr, TcpListener as StdTcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot, watch};

pub use config::{MemoryProbe, Secret, ServerConfig, ServerConfigError};
pub use fault::{DelayLaw, ServerFault, ServerFaultError, Slip, Targets};
pub use idempotency::{
    DurableConfig, DurableStore, JournalEntry, JournalError, OpenError, ProcessedIds, RecordError, Recorded,
    Recording, Retention, read_journal,
};
pub use tls::{ServerTls, ServerTlsError};
pub use tokens::{KnownToken, TokensError};

use crate::message::PerformanceStats;
use crate::pacer::Sleeper;
use engine::Engine;
use fault::Planted;
use shared::Shared;

/// A server could not start, or not go on.
#[derive(Debug, Error)]
pub enum ServeError {
    /// A setting makes no sense.
    #[error(transparent)]
    Config(#[from] ServerConfigError),
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// A thread, its runtime or its timer failed.
    #[error("the server's {thread} thread failed: {source}")]
    Thread {
        /// Which.
        thread: &'static str,
        /// Why.
        source: io::Error,
    },
}

/// What a server did, told when it ends.
#[derive(Debug, Clone, PartialEq)]
pub struct ServerSummary {
    /// The figures at the end.
    pub stats: PerformanceStats,
    /// Connections that were cut off because the shutdown's grace was over.
    pub cut_off: usize,
}

/// The mock server.
#[derive(Debug)]
pub struct HighVolumeWebSocketServer;

impl HighVolumeWebSocketServer {
    /// Serves the connections of `listener` until `shutdown` is ready; then answers what was admitted, closes every
    /// connection with 1001, and returns.
    ///
    /// # Errors
    /// Where the configuration makes no sense, or a thread cannot be started or fails.
    pub async fn run(
        listener: TcpListener,
        config: ServerConfig,
        shutdown: impl Future<Output = ()>,
    ) -> Result<ServerSummary, ServeError> {
        config.validate()?;
        serve(listener, Arc::new(Shared::new(config)), shutdown).await
    }

    /// Starts a server on threads of its own. It listens when this returns.
    ///
    /// # Errors
    /// Where the configuration makes no sense, the address is taken, or a thread cannot be started.
    pub fn spawn(config: ServerConfig) -> Result<ServerHandle, ServeError> {
        config.validate()?;
        let listen_error = |source| ServeError::Listen { address: config.listen, source };
        let listener = listen(config.listen, config.socket_buffer_bytes).map_err(listen_error)?;
        let address = listener.local_addr().map_err(listen_error)?;
        let shared = Arc::new(Shared::new(config));
        let (stop, stopped) = oneshot::channel();
        let (result, ended) = oneshot::channel();
        let for_thread = Arc::clone(&shared);
        let thread = start("accept", move || {
            let _ = result.send(accept_on_thread(listener, for_thread, stopped));
        })?;
        Ok(ServerHandle { address, shared, stop, ended, thread })
    }
}

/// A server that runs on threads of its own. Dropping it shuts the server down without waiting.
#[derive(Debug)]
pub struct ServerHandle {
    address: SocketAddr,
    shared: Arc<Shared>,
    /// Dropping it stops the server, too.
    stop: oneshot::Sender<()>,
    ended: oneshot::Receiver<Result<ServerSummary, ServeError>>,
    thread: JoinHandle<()>,
}

impl ServerHandle {
    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where a client connects to.
    #[must_use]
    pub fn url(&self) -> String {
        let scheme = if self.shared.config.tls.is_some() { "wss" } else { "ws" };
        format!("{scheme}://{}/ws", self.address)
    }

    /// The figures as they are now.
    #[must_use]
    pub fn stats(&self) -> PerformanceStats {
        self.shared.stats()
    }

    /// Waits until an id cannot be recorded, for the first time; for ever, where none fails. The sender of each such
    /// message gets an `error`.
    pub async fn record_error(&self) -> RecordError {
        match &self.shared.engine {
            Some(engine) => engine.record_error().await,
            None => std::future::pending().await,
        }
    }

    /// Answers what was admitted, closes every connection, and ends.
    ///
    /// # Errors
    /// Where a thread failed.
    pub async fn shutdown(self) -> Result<ServerSummary, ServeError> {
        drop(self.stop);
        let result = self.ended.await.unwrap_or_else(|_| Err(died("accept")));
        // It has nothing left to do but end.
        let _ = self.thread.join();
        result
    }
}

/// A listening socket whose backlog takes a thousand connections at once: the standard library's is 128, and whom
/// it turns away tries again only a second later. Where a size of the kernel's buffers is given, its connections have it.
///
/// # Errors
/// Where the address cannot be listened on.
pub fn listen(address: SocketAddr, buffer_bytes: Option<usize>) -> io::Result<StdTcpListener> {
    const BACKLOG: i32 = 4_096;
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    #[cfg(unix)]
    socket.set_reuse_address(true)?;
    if let Some(bytes) = buffer_bytes {
        socket.set_send_buffer_size(bytes)?;
        socket.set_recv_buffer_size(bytes)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

fn accept_on_thread(
    listener: StdTcpListener,
    shared: Arc<Shared>,
    stopped: oneshot::Receiver<()>,
) -> Result<ServerSummary, ServeError> {
    let failed = |source| ServeError::Thread { thread: "accept", source };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    runtime.block_on(async {
        let listener = TcpListener::from_std(listener).map_err(failed)?;
        let shutdown = async {
            let _ = stopped.await;
        };
        serve(listener, shared, shutdown).await
    })
}

async fn serve(
    listener: TcpListener,
    shared: Arc<Shared>,
    shutdown: impl Future<Output = ()>,
) -> Result<ServerSummary, ServeError> {
    let mut engine = shared.engine.clone().map(EngineThread::start).transpose()?;
    let (stop, stopped) = watch::channel(false);
    let mut workers = Vec::new();
    for counters in shared.worker_counters() {
        workers.push(WorkerThread::start(Arc::clone(&shared), counters, stopped.clone())?);
    }
    let mut engine_failed = None;
    tokio::select! {
        () = accept(&listener, &workers, &shared.planted) => {}
        () = shutdown => {}
        // Without it no request would ever be answered again.
        result = EngineThread::result(&mut engine) => engine_failed = result.err(),
    }
    drop(listener);
    let stopping_since = Instant::now();
    stop.send_replace(true);
    if let Some(engine) = &shared.engine {
        engine.restore_kept();
    }
    let mut cut_off = 0;
    for worker in workers {
        cut_off += worker.end().await?;
    }
    if let Some(error) = engine_failed {
        return Err(error);
    }
    if let Some(engine) = engine {
        engine.end(shared.config.shutdown_grace.saturating_sub(stopping_since.elapsed())).await?;
    }
    Ok(ServerSummary { stats: shared.stats(), cut_off })
}

/// Deals connections to the workers in turn; returns only where a worker has died.
async fn accept(listener: &TcpListener, workers: &[WorkerThread], planted: &Planted) {
    /// Where no descriptor is left for a connection, so long until it is tried again: else it would be tried
    /// without a pause.
    const PAUSE: Duration = Duration::from_millis(20);
    for worker in workers.iter().cycle() {
        let socket = loop {
            match listener.accept().await {
                Ok((socket, _)) => break socket,
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
        };
        // By a fault. It may be put off while we wait.
        while let Some(until) = planted.deaf_until()
            && until > Instant::now()
        {
            tokio::time::sleep_until(until.into()).await;
        }
        // A socket that cannot be taken out of this thread's poller is closed, and its client tries again.
        let Ok(socket) = socket.into_std() else { continue };
        if worker.sockets.send(socket).is_err() {
            return;
        }
    }
}

struct WorkerThread {
    sockets: mpsc::UnboundedSender<std::net::TcpStream>,
    ended: oneshot::Receiver<io::Result<usize>>,
}

impl WorkerThread {
    fn start(
        shared: Arc<Shared>,
        counters: Arc<stats::Counters>,
        stop: watch::Receiver<bool>,
    ) -> Result<Self, ServeError> {
        let (sockets, incoming) = mpsc::unbounded_channel();
        let (result, ended) = oneshot::channel();
        start("worker", move || {
            let _ = result.send(worker::run(shared, counters, incoming, stop));
        })?;
        Ok(Self { sockets, ended })
    }

    /// Ends the stream of sockets and waits; says how many connections were cut off.
    async fn end(self) -> Result<usize, ServeError> {
        drop(self.sockets);
        let ended = self.ended.await.map_err(|_| died("worker"))?;
        ended.map_err(|source| ServeError::Thread { thread: "worker", source })
    }
}

struct EngineThread {
    engine: Arc<Engine>,
    ended: oneshot::Receiver<io::Result<()>>,
}

impl EngineThread {
    fn start(engine: Arc<Engine>) -> Result<Self, ServeError> {
        let (result, ended) = oneshot::channel();
        let for_thread = Arc::clone(&engine);
        start("engine", move || {
            let ran = run_engine(&for_thread);
            // Before the server is told to have ended: then its store is closed, and another may open it.
            drop(for_thread);
            let _ = result.send(ran);
        })?;
        Ok(Self { engine, ended })
    }

    /// Waits until all that was admitted is processed, or the grace is over.
    async fn end(self, grace: Duration) -> Result<(), ServeError> {
        self.engine.finish();
        let engine = Arc::clone(&self.engine);
        let mut own = Some(self);
        if let Ok(result) = tokio::time::timeout(grace, Self::result(&mut own)).await {
            return result;
        }
        engine.abort();
        Self::result(&mut own).await
    }

    /// How the thread ended, when it has; never, where there is none.
    async fn result(thread: &mut Option<Self>) -> Result<(), ServeError> {
        match thread {
            Some(thread) => match (&mut thread.ended).await {
                Ok(ended) => ended.map_err(|source| ServeError::Thread { thread: "engine", source }),
                Err(_) => Err(died("engine")),
            },
            None => std::future::pending().await,
        }
    }
}

impl Drop for EngineThread {
    /// Where the server's future is dropped, or fails half-way, the thread must not wait for ever.
    fn drop(&mut self) {
        self.engine.finish();
    }
}

fn run_engine(engine: &Engine) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let sleeper = Sleeper::precise()?;
        engine.run(sleeper).await
    })
}

fn start(thread: &'static str, main: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, ServeError> {
    std::thread::Builder::new()
        .name(format!("floodline-{thread}"))
        .spawn(main)
        .map_err(|source| ServeError::Thread { thread, source })
}

fn died(thread: &'static str) -> ServeError {
    ServeError::Thread { thread, source: io::Error::other("it ended without a result") }
}
