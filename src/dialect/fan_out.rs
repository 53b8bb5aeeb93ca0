//! Fan-out: several connections subscribe to one topic, so each message comes to all of them. Its sender's own copy is the
//! answer; how many of all copies came, and how far apart those of one message were, is counted here.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use super::{Answer, Identity};
use crate::clock::{Clock, MonotonicClock};
use crate::message::MessageId;
use crate::record::LatencyHistogram;

/// Messages of one sender whose copies are awaited; the oldest is given up for a newer one, and has no skew then.
const AWAITED: usize = 4_096;

/// What became of the copies.
#[derive(Debug, Clone, Default)]
pub struct FanOutCounts {
    /// How many connections subscribe to a topic.
    pub subscribers: u32,
    /// Copies that came, each once.
    pub received: u64,
    /// Copies that came once more, or behind a later one of the same sender.
    pub repeated: u64,
    /// Of each message of which all copies came, the time from the first to the last.
    pub skew: LatencyHistogram,
}

/// The copies of all messages of a load.
#[derive(Clone)]
pub(super) struct FanOut {
    subscribers: u32,
    clock: MonotonicClock,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Default)]
struct Seen {
    counts: FanOutCounts,
    /// By sender: when the first copy of a message came, and how many have.
    awaited: HashMap<u32, BTreeMap<u64, (u64, u32)>>,
}

impl std::fmt::Debug for FanOut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FanOut").field("subscribers", &self.subscribers).finish_non_exhaustive()
    }
}

impl FanOut {
    pub(super) fn new(subscribers: u32) -> Self {
        Self { subscribers, clock: MonotonicClock::start(), seen: Arc::default() }
    }

    /// What a connection calls its topic: its own name, or that of its group.
    pub(super) fn topic_of(&self, identity: &Identity) -> String {
        let Identity { client_id, connection } = identity;
        match client_id.rsplit_once('-') {
            Some((run, _)) if self.subscribers > 1 => format!("{run}-g{}", connection / self.subscribers),
            _ => client_id.clone(),
        }
    }

    /// The ear of one connection.
    pub(super) fn ear(&self, identity: &Identity) -> Ear {
        Ear { fan_out: self.clone(), connection: identity.connection, next: HashMap::new() }
    }

    /// What has been counted; none where there is no fan-out.
    pub(super) fn counts(&self) -> Option<FanOutCounts> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        (self.subscribers > 1).then(|| FanOutCounts { subscribers: self.subscribers, ..seen.counts.clone() })
    }

    fn heard(&self, sender: u32, sequence: u64, fresh: bool) {
        let now_ns = self.clock.now_ns();
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let Seen { counts, awaited } = &mut *seen;
        if !fresh {
            counts.repeated += 1;
            return;
        }
        counts.received += 1;
        let awaited = awaited.entry(sender).or_default();
        let (first_ns, copies) = awaited.entry(sequence).or_insert((now_ns, 0));
        *copies += 1;
        if *copies == self.subscribers {
            counts.skew.record(now_ns.saturating_sub(*first_ns));
            awaited.remove(&sequence);
        } else if awaited.len() > AWAITED {
            awaited.pop_first();
        }
    }
}

/// What one connection has heard of its group.
#[derive(Debug)]
pub(super) struct Ear {
    fan_out: FanOut,
    connection: u32,
    /// By sender, the sequence behind the highest that has come.
    next: HashMap<u32, u64>,
}

impl Ear {
    /// What a body means, where `own` is what it means to a connection that hears only itself.
    pub(super) fn hear(&mut self, own: Answer, identity: &Identity, body: &[u8]) -> Answer {
        if self.fan_out.subscribers <= 1 {
            return own;
        }
        let sender = match own {
            Answer::Processed { sequence, .. } => Some((self.connection, sequence)),
            Answer::Foreign => self.neighbour(identity, body),
            _ => None,
        };
        let Some((sender, sequence)) = sender else { return own };
        let next = self.next.entry(sender).or_default();
        let fresh = sequence >= *next;
        *next = (*next).max(sequence.saturating_add(1));
        self.fan_out.heard(sender, sequence, fresh);
        if own == Answer::Foreign { Answer::Ignored } else { own }
    }

    /// Whose message it is, of those that share our topic.
    fn neighbour(&self, identity: &Identity, body: &[u8]) -> Option<(u32, u64)> {
        let id = std::str::from_utf8(body.split(|&byte| byte == b' ').next()?).ok()?;
        let MessageId { client_id, n } = MessageId::parse(id)?;
        let (run, connection) = client_id.rsplit_once('-')?;
        let connection: u32 = connection.parse().ok()?;
        let (our_run, _) = identity.client_id.rsplit_once('-')?;
        let group = |connection: u32| connection / self.fan_out.subscribers;
        (run == our_run && group(connection) == group(self.connection)).then_some((connection, n))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Lane;

    fn identity(connection: u32) -> Identity {
        Identity { client_id: format!("run-0-{connection}"), connection }
    }

    fn own(sequence: u64) -> Answer {
        Answer::Processed { sequence, lane: Some(Lane::Normal), intact: true, queue_depth: None }
    }

    #[test]
    fn a_group_shares_a_topic_and_its_copies_are_counted() {
        let fan_out = FanOut::new(3);
        let topics: Vec<String> = (0..7).map(|n| fan_out.topic_of(&identity(n))).collect();
        assert_eq!(
            topics,
            ["run-0-g0"; 3].into_iter().chain(["run-0-g1"; 3]).chain(["run-0-g2"]).collect::<Vec<_>>()
        );
        let mut ears: Vec<Ear> = (0..3).map(|n| fan_out.ear(&identity(n))).collect();
        let mut hear =
            |ear: usize, own, body: &str| ears[ear].hear(own, &identity(ear as u32), body.as_bytes());
        assert_eq!(hear(0, own(0), "run-0-0-0 x"), own(0));
        assert_eq!(hear(1, Answer::Foreign, "run-0-0-0 x"), Answer::Ignored);
        assert_eq!(fan_out.counts().unwrap().skew.len(), 0);
        assert_eq!(hear(2, Answer::Foreign, "run-0-0-0 x"), Answer::Ignored);
        assert_eq!(fan_out.counts().unwrap().skew.len(), 1);
        // Once more, or behind a later one.
        assert_eq!(hear(2, Answer::Foreign, "run-0-0-0 x"), Answer::Ignored);
        // Nobody's, another group's, another run's, and none at all.
        for body in ["run-0-3-0 x", "run-1-0-0 x", "x", "run-0-x-0 x"] {
            assert_eq!(hear(1, Answer::Foreign, body), Answer::Foreign, "{body}");
        }
        assert_eq!(hear(1, Answer::Corrupted, "x"), Answer::Corrupted);
        let counts = fan_out.counts().unwrap();
        assert_eq!((counts.subscribers, counts.received, counts.repeated), (3, 3, 1));
    }

    #[test]
    fn what_never_comes_to_all_takes_no_more_room_than_it_may() {
        let fan_out = FanOut::new(2);
        let mut ear = fan_out.ear(&identity(0));
        for n in 0..10_000 {
            assert_eq!(ear.hear(own(n), &identity(0), b""), own(n));
        }
        assert_eq!(fan_out.seen.lock().unwrap().awaited[&0].len(), AWAITED);
        assert_eq!(fan_out.counts().unwrap().received, 10_000);
    }

    #[test]
    fn alone_nobody_counts() {
        let fan_out = FanOut::new(1);
        assert_eq!(fan_out.topic_of(&identity(4)), "run-0-4");
        let heard = fan_out.ear(&identity(4)).hear(Answer::Foreign, &identity(4), b"run-0-4-0 x");
        assert_eq!(heard, Answer::Foreign);
        assert!(fan_out.counts().is_none());
    }
}
