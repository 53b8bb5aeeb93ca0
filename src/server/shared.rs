//! What all threads of a server share.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use tokio::sync::watch;

use super::config::ServerConfig;
use super::engine::Engine;
use super::fault::Planted;
use super::handshake::Door;
use super::idempotency::{MemoryStore, ProcessedIds};
use super::stats::{Count, Counters};
use crate::clock::unix_now_ns;
use crate::message::{PerformanceStats, WallTime};

/// A server's state beside its connections.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) config: ServerConfig,
    /// Processes requests, where that takes time.
    pub(super) engine: Option<Arc<Engine>>,
    /// Knows which messages were processed.
    pub(super) store: Arc<dyn ProcessedIds>,
    /// What is to go wrong.
    pub(super) planted: Planted,
    /// The last answer to each identity, where a fault mixes them up.
    pub(super) overheard: Mutex<BTreeMap<String, BytesMut>>,
    /// Turns true with the first message, where a fault waits for it.
    pub(super) first_message: watch::Sender<bool>,
    /// One set a worker, and the engine's.
    counters: Vec<Arc<Counters>>,
    /// Connections whose handshake is done.
    open: Arc<AtomicUsize>,
    started: Instant,
    resident_bytes_at_start: Option<u64>,
}

impl Shared {
    /// `config` is valid.
    pub(super) fn new(config: ServerConfig) -> Self {
        let store =
            config.store.clone().unwrap_or_else(|| Arc::new(Mutex::new(MemoryStore::new(config.retention))));
        let planted = Planted::new(&config.faults);
        let store = planted.store(store, config.retention);
        let mut counters: Vec<Arc<Counters>> = (0..config.workers).map(|_| Arc::default()).collect();
        let takes_time = config.processing_delay > Duration::ZERO
            || store.is_durable()
            || planted.growing_delay().is_some()
            || planted.slowness_per_connection().is_some();
        let open = Arc::<AtomicUsize>::default();
        let engine = takes_time.then(|| {
            let own = Arc::<Counters>::default();
            counters.push(Arc::clone(&own));
            Arc::new(Engine::new(&config, &planted, Arc::clone(&store), own, Arc::clone(&open)))
        });
        Self {
            engine,
            store,
            planted,
            overheard: Mutex::default(),
            first_message: watch::Sender::new(false),
            counters,
            open,
            started: Instant::now(),
            resident_bytes_at_start: config.memory.and_then(|memory| (memory.resident_bytes)()),
            config,
        }
    }

    /// The counters of each worker.
    pub(super) fn worker_counters(&self) -> impl Iterator<Item = Arc<Counters>> {
        self.counters.iter().take(self.config.workers).cloned()
    }

    /// Whom a handshake lets in.
    pub(super) fn door(&self) -> Door<'_> {
        Door {
            token: self.config.token.as_ref(),
            tokens: &self.config.tokens,
            subprotocols: &self.config.subprotocols,
            open: self.planted.opens_door(),
            pondering: self.planted.ponders_refusals(),
        }
    }

    /// Gives free memory back to the system.
    pub(super) fn purge(&self) {
        if let Some(memory) = self.config.memory {
            (memory.purge)();
        }
    }

    /// All figures as they are now.
    pub(super) fn stats(&self) -> PerformanceStats {
        const BYTES_PER_MB: f64 = 1e6;
        let sum =
            |count: fn(&Counters) -> &Count| self.counters.iter().map(|set| count(set).load()).sum::<u64>();
        let uptime_s = self.started.elapsed().as_secs_f64();
        let message_count = sum(|set| &set.messages);
        let resident_bytes = self.config.memory.and_then(|memory| (memory.resident_bytes)());
        let growth = resident_bytes.zip(self.resident_bytes_at_start);
        PerformanceStats {
            uptime_s,
            message_count,
            connection_count: self.open.load(Ordering::Relaxed) as u64,
            queue_depth: self.engine.as_ref().map_or(0, |engine| engine.depth()),
            error_count: sum(|set| &set.errors),
            memory_usage_mb: resident_bytes.map(|bytes| bytes as f64 / BYTES_PER_MB),
            memory_growth_mb: growth.map(|(now, start)| (now as f64 - start as f64) / BYTES_PER_MB),
            messages_per_second: message_count as f64 / uptime_s.max(1e-9),
            timestamp: WallTime::from_unix_ns(unix_now_ns()),
            received: Some(sum(|set| &set.received)),
            admitted: Some(sum(|set| &set.admitted)),
            processed: Some(sum(|set| &set.processed)),
            refused: Some(sum(|set| &set.refused)),
            answered: Some(sum(|set| &set.answered)),
            live_bytes: self.config.memory.and_then(|memory| (memory.live_bytes)()),
            resident_bytes,
        }
    }
}

/// A place among the connections, given back on drop.
#[derive(Debug)]
pub(super) struct OpenConnection<'a>(&'a Shared);

impl<'a> OpenConnection<'a> {
    /// Takes a place; `None` where there is none.
    pub(super) fn count(shared: &'a Shared) -> Option<Self> {
        let max = shared.config.max_connections;
        let taken = shared
            .open
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |open| (open < max).then_some(open + 1));
        // Lazily: what is made and not used would give back a place that was never taken.
        taken.is_ok().then(|| Self(shared))
    }
}

impl Drop for OpenConnection<'_> {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}
