//! The record of everything that was done to connections.

use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::clock::{Clock, TokioClock};
use crate::fault::Rule;

/// One thing done to one connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Injection {
    /// The number of the rule, in the order of injection from 0.
    pub rule_id: u64,
    /// The rule, as text where serialised.
    pub rule: Rule,
    /// The number of the connection, in the order of arrival from 0.
    pub connection: u64,
    /// When it was done, in nanoseconds since the proxy's epoch.
    pub at_ns: u64,
    /// The same instant in nanoseconds since the Unix epoch, by the wall clock as it stood at the proxy's epoch.
    pub unix_ns: u64,
    /// What was done.
    pub action: Action,
    /// How many bytes it concerned; what that means is said at each action.
    pub bytes: u64,
}

/// What was done to a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// A latency, bandwidth, slow reader, partition or silence took hold. Bytes: 0.
    Began,
    /// It let go, or the connection ended under it. Bytes: those read while it held, of the flows that it
    /// meets: so for a silence those lost, for a partition 0.
    Ended,
    /// Both sides were closed in order (FIN). Bytes: 0.
    Closed,
    /// What was open was reset (RST): by a drop, or because the fault that left the connection half-open is
    /// over, as a host that came back answers with a reset. Bytes: those swallowed while half-open.
    Reset,
    /// A part of what was read was forwarded, then both sides were closed in order. Bytes: those of the part.
    Cut,
    /// One side was closed, the other not told. Bytes: 0.
    HalfOpened,
    /// One byte was altered. Bytes: 1.
    Corrupted {
        /// Its place in the flow, counted from the instant at which the fault took hold.
        offset_bytes: u64,
        /// What was read.
        before: u8,
        /// What was forwarded.
        after: u8,
    },
}

#[derive(Debug)]
pub(super) struct Journal {
    clock: TokioClock,
    epoch_unix_ns: u64,
    entries: Mutex<Entries>,
    /// Tells of each new entry.
    grown: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct Entries {
    /// Every rule that was ever injected; its number is its index.
    rules: Vec<Rule>,
    injections: Vec<Injection>,
}

impl Journal {
    pub(super) fn new(clock: TokioClock, epoch_unix_ns: u64) -> Self {
        Self { clock, epoch_unix_ns, entries: Mutex::default(), grown: watch::Sender::new(()) }
    }

    /// Enters a rule; returns its number.
    pub(super) fn enter(&self, rule: Rule) -> u64 {
        let mut entries = self.entries();
        entries.rules.push(rule);
        entries.rules.len() as u64 - 1
    }

    /// Records that rule `rule_id` just did `action` to connection `connection`.
    pub(super) fn record(&self, rule_id: u64, connection: u64, action: Action, bytes: u64) {
        let mut entries = self.entries();
        if let Some(rule) = entries.rules.get(rule_id as usize).cloned() {
            // Under the lock, so that the order of the entries is that of their times.
            let at_ns = self.clock.now_ns();
            let unix_ns = self.epoch_unix_ns.saturating_add(at_ns);
            entries.injections.push(Injection { rule_id, rule, connection, at_ns, unix_ns, action, bytes });
        }
        drop(entries);
        self.grown.send_replace(());
    }

    pub(super) fn read<T>(&self, read: impl FnOnce(&[Injection]) -> T) -> T {
        read(&self.entries().injections)
    }

    pub(super) async fn until(&self, enough: impl Fn(&[Injection]) -> bool) {
        // Subscribed before the first look, so that no entry goes unseen between look and wait.
        let mut grown = self.grown.subscribe();
        // The sender lives as long as `self`, so the wait can't fail.
        while !self.read(&enough) && grown.changed().await.is_ok() {}
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        // A panic elsewhere leaves whole entries behind.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
