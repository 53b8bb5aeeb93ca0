//! What the generator itself could not open: no server is to blame for it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{FanOut, LoadTestResults, MessageCounts};

/// Connections that the generator itself could not open, for want of open files or of local ports, say.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unopened {
    /// Their indexes over all shards, ascending.
    pub connections: Vec<u32>,
    /// Why, with how often.
    pub reasons: BTreeMap<String, u64>,
    /// Messages due on them: a part of the `unsent`.
    pub due: u64,
    /// Of those, the ones that were due in a ramp.
    pub untimed_due: u64,
}

impl Unopened {
    /// Whether that of `connection` is among them.
    #[must_use]
    pub fn holds(&self, connection: u32) -> bool {
        self.connections.binary_search(&connection).is_ok()
    }

    /// How many of them are in `connections`.
    fn within(&self, connections: std::ops::Range<u32>) -> u64 {
        let before = |end: u32| self.connections.partition_point(|&index| index < end);
        before(connections.end).saturating_sub(before(connections.start)) as u64
    }

    pub(super) fn absorb(&mut self, other: Self) {
        self.connections.extend(other.connections);
        self.connections.sort_unstable();
        for (reason, count) in other.reasons {
            *self.reasons.entry(reason).or_default() += count;
        }
        self.due += other.due;
        self.untimed_due += other.untimed_due;
    }
}

impl LoadTestResults {
    /// The same load as if those connections had not been asked for that the generator itself could not open: what is wrong
    /// of it too is not for want of them. They are still named in it.
    #[must_use]
    pub fn as_opened(&self) -> Self {
        let mut opened = self.clone();
        let unopened = &self.connections.unopened;
        opened.connections.requested =
            self.connections.requested.saturating_sub(unopened.connections.len() as u64);
        let messages = &mut opened.messages;
        messages.due = messages.due.saturating_sub(unopened.due);
        messages.unsent = messages.unsent.saturating_sub(unopened.due);
        messages.untimed_due = messages.untimed_due.saturating_sub(unopened.untimed_due);
        let timed = |messages: &MessageCounts| messages.due.saturating_sub(messages.untimed_due) as f64;
        let share = timed(messages) / timed(&self.messages).max(1.0);
        opened.throughput.offered_rate = self.throughput.offered_rate.map(|rate| rate * share);
        opened.per_connection.retain(|connection| !unopened.holds(connection.connection));
        opened.fan_out = self.fan_out.as_ref().map(|fan_out| self.to_the_opened(fan_out));
        opened.measure();
        opened
    }

    /// The copies without those to subscribers that were never there.
    fn to_the_opened(&self, fan_out: &FanOut) -> FanOut {
        let subscribers = fan_out.subscribers.max(1);
        let to_nobody = self.per_connection.iter().map(|sender| {
            let first = sender.connection / subscribers * subscribers;
            sender.counts.sent * self.connections.unopened.within(first..first.saturating_add(subscribers))
        });
        let expected = fan_out.expected.saturating_sub(to_nobody.sum());
        let reach = (expected > 0).then(|| fan_out.received as f64 / expected as f64);
        FanOut { expected, reach, ..fan_out.clone() }
    }
}
