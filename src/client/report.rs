//! What a client found, and why it ended.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use crate::ledger::Ledger;
use crate::record::CoarseHistogram;
use crate::schedule::DueTimes;
use crate::units;
use crate::websocket::{CloseCode, Violation};

/// Why a connection ended before the load did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct End {
    /// The server would not have it, rather than lost it.
    pub(super) refused: bool,
    /// In words.
    pub(super) reason: String,
}

/// More different reasons than this are summed up, so that a peer's texts cannot fill the memory.
const REASONS_KEPT: usize = 20;

/// What a client found.
#[derive(Debug)]
pub(super) struct ConnectionReport {
    pub(super) index: u32,
    /// What came due until it ended, without the rest.
    pub(super) due: u64,
    /// What its schedule still held then. How much of that came due is known only when the load is over, which an
    /// interruption may move up.
    pub(super) rest: Option<DueTimes>,
    pub(super) untimed: Untimed,
    pub(super) ledger: Ledger,
    pub(super) client_id: String,
    pub(super) achieved: u64,
    pub(super) coarse: CoarseHistogram,
    pub(super) blocked: Blocked,
    pub(super) reconnects: u64,
    pub(super) end: Option<End>,
}

/// What was due in a ramp.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Untimed {
    pub(super) due: u64,
    pub(super) answered: u64,
}

/// How long, and for how many messages, the socket was full or the connection was not there.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Blocked {
    pub(super) messages: u64,
    pub(super) max_ns: u64,
    pub(super) total_ns: u64,
    /// Since when that is so now.
    pub(super) since_ns: Option<u64>,
}

impl End {
    pub(super) fn dropped(reason: impl Into<String>) -> Self {
        Self { refused: false, reason: reason.into() }
    }

    /// Nothing came from the peer for so long.
    pub(super) fn silent(dead_after: Duration) -> Self {
        Self::dropped(format!("no sign of life for {}", units::span(dead_after)))
    }

    /// The byte stream failed.
    pub(super) fn lost(cause: &io::Error) -> Self {
        Self::dropped(format!("connection lost: {cause}"))
    }

    /// The peer sent something that is no WebSocket message.
    pub(super) fn violated(violation: Violation) -> Self {
        Self::dropped(match violation.code() {
            CloseCode::InvalidData => "the server sent text that is not UTF-8".to_owned(),
            CloseCode::TooBig => format!("the server sent too much: {violation}"),
            _ => format!("the server broke the protocol: {violation}"),
        })
    }

    /// The peer said goodbye. By the code alone it is known why: the text beside it is whatever the peer likes.
    pub(super) fn closed(code: Option<u16>, reason: &str) -> Self {
        let text = match code {
            Some(code) => format!("closed by the server: {code} {reason}"),
            None => "closed by the server without a code".to_owned(),
        };
        let refused = code == Some(CloseCode::TryAgainLater.number());
        Self { refused, reason: text.trim_end().to_owned() }
    }
}

/// Counts how often something happened for a reason.
pub(super) fn count_reason(reasons: &mut BTreeMap<String, u64>, reason: String, count: u64) {
    let full = reasons.len() >= REASONS_KEPT && !reasons.contains_key(&reason);
    let key = if full { "other reasons".to_owned() } else { reason };
    *reasons.entry(key).or_default() += count;
}
