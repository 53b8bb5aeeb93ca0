//! A TCP proxy that applies fault rules between any client and any server.
//!
//! Without a fault in force it copies bytes both ways and nothing else. A rule injected through the
//! [`ProxyHandle`] takes hold of the connections that it meets, also of those already open, and lets go when
//! its time is over or its [`RuleGuard`] is dropped. Everything done to a connection is recorded as an
//! [`Injection`].
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
//! use floodline::proxy::FaultProxy;
//!
//! let server = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
//! let proxy = FaultProxy::bind("127.0.0.1:0".parse()?, server.local_addr()?).await?;
//! let handle = proxy.handle();
//! let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
//! let running = tokio::spawn(proxy.run(stopped));
//! let guard = handle.inject("partition=both,share=0.15,for=10s".parse()?);
//! drop(guard); // undone
//! drop(stop);
//! running.await?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod connection;
mod journal;
mod leg;
mod thread;

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use thiserror::Error;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::clock::{Clock, TokioClock, unix_now_ns};
use crate::fault::Rule;

pub use journal::{Action, Injection};
pub use thread::ProxyThread;

use connection::Connection;
use journal::Journal;

/// The proxy could not be set up.
#[derive(Debug, Error)]
pub enum ProxyError {
    /// The address can't be listened at.
    #[error("the proxy can't listen at {address}: {source}")]
    Listen {
        /// The address asked for.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// The system gave no thread or no runtime.
    #[error("the proxy can't run: {source}")]
    Thread {
        /// What the system says.
        source: io::Error,
    },
}

/// A proxy that listens, and serves once it is [run](FaultProxy::run).
#[derive(Debug)]
pub struct FaultProxy {
    listener: TcpListener,
    local_addr: SocketAddr,
    shared: Arc<Shared>,
}

impl FaultProxy {
    /// Listens at `listen` (port 0: any free one) for connections to be carried to `upstream`. The proxy's
    /// epoch, from which the times of its [`Injection`]s count, is now.
    ///
    /// # Errors
    /// Where `listen` can't be listened at.
    pub async fn bind(listen: SocketAddr, upstream: SocketAddr) -> Result<Self, ProxyError> {
        let refused = |source| ProxyError::Listen { address: listen, source };
        let listener = TcpListener::bind(listen).await.map_err(refused)?;
        let local_addr = listener.local_addr().map_err(refused)?;
        Ok(Self { listener, local_addr, shared: Arc::new(Shared::new(upstream)) })
    }

    /// The address that clients connect to.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// What steers the proxy while it runs.
    #[must_use]
    pub fn handle(&self) -> ProxyHandle {
        ProxyHandle { shared: Arc::clone(&self.shared) }
    }

    /// Serves until `shutdown` completes; then every connection is closed, without a record of what still
    /// held it.
    pub async fn run(self, shutdown: impl Future) {
        let mut connections = JoinSet::new();
        let mut shutdown = pin!(shutdown);
        loop {
            tokio::select! {
                biased;
                _ = &mut shutdown => break,
                accepted = self.listener.accept() => match accepted {
                    Ok((client, _)) => {
                        let number = self.shared.accepted.fetch_add(1, Ordering::Relaxed);
                        connections.spawn(Connection::new(number, client, &self.shared).run());
                    }
                    // The client gave up, or descriptors ran out: the next attempt may fare better, and the
                    // pause keeps the lasting case from taking a core.
                    Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
                },
                Some(_) = connections.join_next() => {}
            }
        }
        connections.shutdown().await;
    }
}

const ACCEPT_PAUSE: Duration = Duration::from_millis(10);

/// Steers a [`FaultProxy`] and tells what it did. Copies steer the same one.
#[derive(Debug, Clone)]
pub struct ProxyHandle {
    shared: Arc<Shared>,
}

impl ProxyHandle {
    /// Puts `rule` into force, its schedule counted from now, until the guard is dropped.
    pub fn inject(&self, rule: Rule) -> RuleGuard {
        self.inject_at(rule, self.now_ns())
    }

    /// Puts `rule` into force with its schedule counted from `epoch_ns` on the [proxy's clock](Self::now_ns),
    /// until the guard is dropped.
    pub fn inject_at(&self, rule: Rule, epoch_ns: u64) -> RuleGuard {
        let mut id = 0;
        self.shared.rules.send_modify(|rules| {
            id = self.shared.journal.enter(rule.clone());
            rules.push(Arc::new(Injected { id, rule, epoch_ns }));
        });
        RuleGuard { id, shared: Arc::clone(&self.shared) }
    }

    /// Carries connections that are opened from now on to `upstream`.
    pub fn set_upstream(&self, upstream: SocketAddr) {
        *self.shared.upstream.lock().unwrap_or_else(PoisonError::into_inner) = upstream;
    }

    /// Nanoseconds since the proxy's epoch.
    #[must_use]
    pub fn now_ns(&self) -> u64 {
        self.shared.clock.now_ns()
    }

    /// All that was done to connections so far, in the order of its doing.
    #[must_use]
    pub fn events(&self) -> Vec<Injection> {
        self.shared.journal.read(<[Injection]>::to_vec)
    }

    /// Waits until what was done so far satisfies `enough`. A rule takes hold of an open connection within
    /// moments, but not at once: who wants to act under a fault waits for its record.
    pub async fn until(&self, enough: impl Fn(&[Injection]) -> bool) {
        self.shared.journal.until(enough).await;
    }

    /// Connections accepted so far; the last one's number is one less.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.shared.accepted.load(Ordering::Relaxed)
    }

    /// Connections that were reset because the upstream could not be reached.
    #[must_use]
    pub fn upstream_failures(&self) -> u64 {
        self.shared.upstream_failures.load(Ordering::Relaxed)
    }
}

/// Keeps a rule in force; dropped, the rule lets go of every connection.
#[derive(Debug)]
#[must_use = "the rule is undone when the guard is dropped"]
pub struct RuleGuard {
    id: u64,
    shared: Arc<Shared>,
}

impl RuleGuard {
    /// The number by which [`Injection`]s name the rule.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Leaves the rule in force for as long as the proxy runs.
    pub fn keep(self) {
        // A guard owns nothing but its reference, and the proxy's state is gone with the proxy anyway.
        std::mem::forget(self);
    }
}

impl Drop for RuleGuard {
    fn drop(&mut self) {
        self.shared.rules.send_modify(|rules| rules.retain(|injected| injected.id != self.id));
    }
}

/// What the proxy, its connections and its handles have in common.
#[derive(Debug)]
struct Shared {
    clock: TokioClock,
    /// Where new connections go; set by the handles.
    upstream: Mutex<SocketAddr>,
    /// The rules in force, by ascending number; set by handles and guards, watched by every connection.
    rules: watch::Sender<Vec<Arc<Injected>>>,
    journal: Journal,
    accepted: AtomicU64,
    upstream_failures: AtomicU64,
}

impl Shared {
    fn new(upstream: SocketAddr) -> Self {
        let clock = TokioClock::start();
        Self {
            clock,
            upstream: Mutex::new(upstream),
            rules: watch::Sender::new(Vec::new()),
            journal: Journal::new(clock, unix_now_ns()),
            accepted: AtomicU64::new(0),
            upstream_failures: AtomicU64::new(0),
        }
    }

    fn upstream(&self) -> SocketAddr {
        *self.upstream.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A rule in force.
#[derive(Debug)]
struct Injected {
    /// Its number, from 0 in the order of injection.
    id: u64,
    rule: Rule,
    /// The instant on the proxy's clock from which its schedule counts.
    epoch_ns: u64,
}

/// Waits for the instant `at_ns` on `clock`; without one, for ever.
async fn sleep_until(clock: TokioClock, at_ns: Option<u64>) {
    match at_ns {
        Some(at_ns) => tokio::time::sleep(Duration::from_nanos(at_ns.saturating_sub(clock.now_ns()))).await,
        None => std::future::pending().await,
    }
}
