//! Messages that went to several connections: how many of the copies came, and how far apart.

use serde::{Deserialize, Serialize};

use super::LatencyMeasurement;
use crate::record::LatencyHistogram;

/// What became of the copies of all messages.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FanOut {
    /// Connections that subscribed to one topic.
    pub subscribers: u32,
    /// Copies that should have come: one for each message that was sent, and each connection of its group.
    pub expected: u64,
    /// Copies that came, each once, until the load was over: its last answer and a tenth of a second.
    pub received: u64,
    /// Received ÷ expected; null where nothing was sent.
    pub reach: Option<f64>,
    /// Copies that came once more, or behind a later one of the same sender.
    pub repeated: u64,
    /// From the first to the last copy of a message, of those of which all came; null where there is none.
    pub skew_us: Option<LatencyMeasurement>,
}

impl FanOut {
    /// Of `expected` copies to groups of `subscribers`, `received` came, and `repeated` beside them.
    #[must_use]
    pub fn new(
        subscribers: u32,
        expected: u64,
        received: u64,
        repeated: u64,
        skew: &LatencyHistogram,
    ) -> Self {
        let reach = (expected > 0).then(|| received as f64 / expected as f64);
        let skew_us = (!skew.is_empty()).then(|| LatencyMeasurement::of(skew, 0));
        Self { subscribers, expected, received, reach, repeated, skew_us }
    }
}
