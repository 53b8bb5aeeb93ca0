//! The faults of a running server: where each strikes, and what was struck so far.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rand::{RngExt, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;
use tokio::sync::watch;

use super::{ServerFault, Slip, Targets};
use crate::server::idempotency::{MemoryStore, ProcessedIds, Recording, Retention};

/// A server's faults.
#[derive(Debug)]
pub(in crate::server) struct Planted {
    faults: Vec<ServerFault>,
    counted: Vec<Counted>,
    handshakes: AtomicU64,
    /// When a connection was last lost; where a fault waits for it.
    last_loss: watch::Sender<Option<Instant>>,
    growths: Vec<Growth>,
    /// How many messages came, where a growth waits for one.
    messages: AtomicU64,
    /// Connections that have sent a request for work.
    senders: AtomicUsize,
}

/// What befalls one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::server) enum Mishap {
    /// Its sending side is shut down.
    HalfClose,
    /// Nothing is read and nothing sent any more.
    Silence,
}

/// Which slips hit one message.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::server) struct Slips {
    pub(in crate::server) ignore: bool,
    pub(in crate::server) cut: bool,
    pub(in crate::server) lose: bool,
    pub(in crate::server) repeat: bool,
    pub(in crate::server) swap: bool,
    pub(in crate::server) misname: bool,
    pub(in crate::server) cross: bool,
    pub(in crate::server) alter: bool,
}

impl Slips {
    fn set(&mut self, slip: Slip) {
        *match slip {
            Slip::IgnoreRequest => &mut self.ignore,
            Slip::CutConnection => &mut self.cut,
            Slip::LoseAnswer => &mut self.lose,
            Slip::RepeatAnswer => &mut self.repeat,
            Slip::SwapAnswers => &mut self.swap,
            Slip::MisnameAnswer => &mut self.misname,
            Slip::CrossTalk => &mut self.cross,
            Slip::AlterAnswer => &mut self.alter,
        } = true;
    }
}

impl Planted {
    pub(in crate::server) fn new(faults: &[ServerFault]) -> Self {
        let counted = faults.iter().filter_map(|fault| match *fault {
            ServerFault::Slips { slip, targets } => Some(Counted::new(slip, targets)),
            _ => None,
        });
        Self {
            faults: faults.to_vec(),
            counted: counted.collect(),
            handshakes: AtomicU64::new(0),
            last_loss: watch::Sender::new(None),
            growths: faults.iter().filter_map(Growth::of).collect(),
            messages: AtomicU64::new(0),
            senders: AtomicUsize::new(0),
        }
    }

    pub(in crate::server) fn is_empty(&self) -> bool {
        self.faults.is_empty()
    }

    /// Which slips hit the next request for work; to be asked once for each.
    pub(in crate::server) fn slips_of_request(&self) -> Slips {
        self.slips(|slip| matches!(slip, Slip::IgnoreRequest | Slip::CutConnection))
    }

    /// Which slips hit the answer to the message of this id; to be asked once for each answer to a processed request.
    pub(in crate::server) fn slips_of_answer(&self, message_id: &str, tells_of_content: bool) -> Slips {
        let mut slips = self.slips(|slip| match slip {
            Slip::IgnoreRequest | Slip::CutConnection => false,
            Slip::AlterAnswer => tells_of_content,
            Slip::LoseAnswer
            | Slip::RepeatAnswer
            | Slip::SwapAnswers
            | Slip::MisnameAnswer
            | Slip::CrossTalk => true,
        });
        let drops =
            |fault: &ServerFault| matches!(fault, ServerFault::DropAnswers { .. }) && fault.hits(message_id);
        slips.lose |= self.faults.iter().any(drops);
        slips
    }

    /// The number, from 1, of the next connection to have ended its handshake; to be asked once for each.
    pub(in crate::server) fn number_connection(&self) -> u64 {
        self.handshakes.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Whether the connection of this number is turned away.
    pub(in crate::server) fn refuses_connection(&self, number: u64) -> bool {
        self.has(|fault| matches!(*fault, ServerFault::RefuseConnection { nth } if nth == number))
    }

    /// What befalls the connection of this number, and when from its handshake's end on.
    pub(in crate::server) fn befalls_connection(&self, number: u64) -> Option<(Duration, Mishap)> {
        let mishaps = self.faults.iter().filter_map(|fault| match *fault {
            ServerFault::HalfClose { nth, at } if nth == number => Some((at, Mishap::HalfClose)),
            ServerFault::SilentConnection { nth, at } if nth == number => Some((at, Mishap::Silence)),
            _ => None,
        });
        mishaps.min_by_key(|(at, _)| *at)
    }

    /// A connection has ended without a close handshake.
    pub(in crate::server) fn connection_lost(&self) {
        if !self.is_empty() {
            self.last_loss.send_replace(Some(Instant::now()));
        }
    }

    /// Tells of each loss; of some that come close together, of the last.
    pub(in crate::server) fn losses(&self) -> watch::Receiver<Option<Instant>> {
        self.last_loss.subscribe()
    }

    /// Whether whoever asks is let in.
    pub(in crate::server) fn opens_door(&self) -> bool {
        self.has(|fault| matches!(fault, ServerFault::OpenDoor))
    }

    /// How long the thread stands still over a refused handshake.
    pub(in crate::server) fn ponders_refusals(&self) -> Duration {
        let spans = self.faults.iter().map(|fault| match *fault {
            ServerFault::CostlyRefusals { duration } => duration,
            _ => Duration::ZERO,
        });
        spans.max().unwrap_or_default()
    }

    /// Whether answers may go to somebody with another identity, too.
    pub(in crate::server) fn crosses_answers(&self) -> bool {
        self.has(|fault| matches!(fault, ServerFault::Slips { slip: Slip::CrossTalk, .. }))
    }

    /// Until when no connection may be served that has come.
    pub(in crate::server) fn deaf_until(&self) -> Option<Instant> {
        let spans = self.faults.iter().filter_map(|fault| match *fault {
            ServerFault::DeafAfterLoss { duration } => Some(duration),
            _ => None,
        });
        Some((*self.last_loss.borrow())? + spans.max()?)
    }

    /// How far apart the answers of the connection of this number are, where it is starved.
    pub(in crate::server) fn starves_connection(&self, number: u64) -> Option<Duration> {
        let gaps = self.faults.iter().filter_map(|fault| match *fault {
            ServerFault::StarveConnections { nth, gap } if number.is_multiple_of(nth) => Some(gap),
            _ => None,
        });
        gaps.max()
    }

    /// Whether answers may be held back.
    pub(in crate::server) fn holds_answers(&self) -> bool {
        self.has(|fault| {
            matches!(
                fault,
                ServerFault::LateAnswers { .. }
                    | ServerFault::Delay { .. }
                    | ServerFault::StarveConnections { .. }
            )
        })
    }

    /// Whether the times for which answers are held are a truth that others are held against.
    pub(in crate::server) fn releases_exactly(&self) -> bool {
        self.has(|fault| matches!(fault, ServerFault::Delay { .. }))
    }

    /// How long the answer to this message is held, where `since_read` has passed since its request was read.
    pub(in crate::server) fn holds_answer_for(&self, message_id: &str, since_read: Duration) -> Duration {
        let holds = self.faults.iter().map(|fault| match *fault {
            ServerFault::LateAnswers { by, .. } if fault.hits(message_id) => by,
            ServerFault::Delay { law, seed } => law.of(seed, message_id).saturating_sub(since_read),
            _ => Duration::ZERO,
        });
        holds.fold(Duration::ZERO, Duration::saturating_add)
    }

    /// How long after the first refusal `backpressure` is sent; `None` is never.
    pub(in crate::server) fn backpressure_after(&self) -> Option<Duration> {
        if self.has(|fault| matches!(fault, ServerFault::NoBackpressure)) {
            return None;
        }
        let late = self.faults.iter().map(|fault| match *fault {
            ServerFault::LateBackpressure { by } => by,
            _ => Duration::ZERO,
        });
        Some(late.max().unwrap_or_default())
    }

    /// By how much the processing delay grows within which time.
    pub(in crate::server) fn growing_delay(&self) -> Option<(Duration, Duration)> {
        self.faults.iter().find_map(|fault| match *fault {
            ServerFault::GrowingDelay { growth, per } => Some((growth, per)),
            _ => None,
        })
    }

    /// By how much the processing delay grows with each open connection.
    pub(in crate::server) fn slowness_per_connection(&self) -> Option<Duration> {
        self.faults.iter().find_map(|fault| match *fault {
            ServerFault::SlowPerConnection { slowness } => Some(slowness),
            _ => None,
        })
    }

    /// How many messages stay in the queue after an overflow.
    pub(in crate::server) fn keeps_queued(&self) -> usize {
        let kept = self.faults.iter().map(|fault| match *fault {
            ServerFault::KeepQueue { count } => usize::try_from(count).unwrap_or(usize::MAX),
            _ => 0,
        });
        kept.max().unwrap_or_default()
    }

    /// Whether what is admitted is remembered as processed.
    pub(in crate::server) fn marks_at_admission(&self) -> bool {
        self.has(|fault| matches!(fault, ServerFault::ProcessedAtAdmission))
    }

    pub(in crate::server) fn ignores_priority(&self) -> bool {
        self.has(|fault| matches!(fault, ServerFault::ArrivalOrder))
    }

    pub(in crate::server) fn refuses_silently(&self) -> bool {
        self.has(|fault| matches!(fault, ServerFault::SilentRefusals))
    }

    /// How much CPU time each worker wastes, as a share of what it uses.
    pub(in crate::server) fn burns_cpu(&self) -> Option<f64> {
        self.faults.iter().find_map(|fault| match *fault {
            ServerFault::BurnCpu { share } => Some(share),
            _ => None,
        })
    }

    /// How many bytes each message leaks.
    pub(in crate::server) fn leak_bytes(&self) -> usize {
        let leaks = self.faults.iter().map(|fault| match *fault {
            ServerFault::Leak { bytes } => usize::try_from(bytes).unwrap_or(usize::MAX),
            _ => 0,
        });
        leaks.max().unwrap_or_default()
    }

    /// Takes what memory is to be taken with the next message; to be called once for each.
    pub(in crate::server) fn grow(&self) {
        if self.growths.is_empty() {
            return;
        }
        let number = self.messages.fetch_add(1, Ordering::Relaxed) + 1;
        for growth in self.growths.iter().filter(|growth| growth.after == number) {
            // Not zero, else the system would give no memory before it is written to.
            *growth.taken() = vec![1; growth.bytes];
        }
    }

    /// A connection has sent its first request for work.
    pub(in crate::server) fn sender_came(&self) {
        self.senders.fetch_add(1, Ordering::Relaxed);
    }

    /// Such a connection is gone.
    pub(in crate::server) fn sender_left(&self) {
        if self.senders.fetch_sub(1, Ordering::Relaxed) == 1 {
            for growth in self.growths.iter().filter(|growth| growth.given_back) {
                *growth.taken() = Vec::new();
            }
        }
    }

    /// What the server is to use for its store.
    pub(in crate::server) fn store(
        &self,
        store: Arc<dyn ProcessedIds>,
        retention: Retention,
    ) -> Arc<dyn ProcessedIds> {
        if self.has(|fault| matches!(fault, ServerFault::ForgetOnStart)) {
            return Arc::new(Forgetful { store, known: Mutex::new(MemoryStore::new(retention)) });
        }
        store
    }

    fn has(&self, is: impl Fn(&ServerFault) -> bool) -> bool {
        self.faults.iter().any(is)
    }

    fn slips(&self, counts: impl Fn(Slip) -> bool) -> Slips {
        let mut slips = Slips::default();
        for counted in self.counted.iter().filter(|counted| counts(counted.slip)) {
            if counted.next_is_hit() {
                slips.set(counted.slip);
            }
        }
        slips
    }
}

/// A slip, the positions at which it happens, and how many were passed.
#[derive(Debug)]
struct Counted {
    slip: Slip,
    positions: BTreeSet<u64>,
    passed: AtomicU64,
}

impl Counted {
    /// Draws the positions, each set of them equally likely: R. W. Floyd's algorithm (Bentley and Floyd, "A sample of
    /// brilliance", CACM 30(9), 1987).
    fn new(slip: Slip, targets: Targets) -> Self {
        let mut random = Xoshiro256PlusPlus::seed_from_u64(targets.seed);
        let mut positions = BTreeSet::new();
        for last in targets.among.saturating_sub(targets.times)..targets.among {
            let drawn = random.random_range(0..=last);
            if !positions.insert(drawn) {
                positions.insert(last);
            }
        }
        Self { slip, positions, passed: AtomicU64::new(0) }
    }

    fn next_is_hit(&self) -> bool {
        self.positions.contains(&self.passed.fetch_add(1, Ordering::Relaxed))
    }
}

/// Memory that is taken with one message.
#[derive(Debug)]
struct Growth {
    bytes: usize,
    after: u64,
    given_back: bool,
    taken: Mutex<Vec<u8>>,
}

impl Growth {
    fn of(fault: &ServerFault) -> Option<Self> {
        let (bytes, after, given_back) = match *fault {
            ServerFault::Grow { bytes, after } => (bytes, after, false),
            ServerFault::Swell { bytes, after } => (bytes, after, true),
            _ => return None,
        };
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        Some(Self { bytes, after, given_back, taken: Mutex::default() })
    }

    fn taken(&self) -> MutexGuard<'_, Vec<u8>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A store that does not know what was processed before this server started.
#[derive(Debug)]
struct Forgetful {
    store: Arc<dyn ProcessedIds>,
    /// What was processed since.
    known: Mutex<MemoryStore>,
}

impl ProcessedIds for Forgetful {
    fn lookup(&self, id: &str) -> Option<u64> {
        ProcessedIds::lookup(&self.known, id)
    }

    fn record(&self, id: &str, now_unix_ns: u64) -> Recording {
        let known = ProcessedIds::record(&self.known, id, now_unix_ns);
        if self.store.is_durable() { self.store.record(id, now_unix_ns) } else { known }
    }

    fn remember(&self, id: &str, now_unix_ns: u64) -> Recording {
        let known = ProcessedIds::remember(&self.known, id, now_unix_ns);
        if self.store.is_durable() { self.store.remember(id, now_unix_ns) } else { known }
    }

    fn is_durable(&self) -> bool {
        self.store.is_durable()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_slip_happens_exactly_as_often_as_told(times in 1..50_u64, more in 0..200_u64, seed: u64) {
            let targets = Targets { times, among: times + more, seed };
            let hits = |targets: Targets| -> Vec<u64> {
                let planted = Planted::new(&[ServerFault::Slips { slip: Slip::RepeatAnswer, targets }]);
                (0..targets.among + 100).filter(|_| planted.slips_of_answer("", true).repeat).collect()
            };
            let first = hits(targets);
            prop_assert_eq!(first.len() as u64, times);
            prop_assert!(first.iter().all(|&position| position < targets.among));
            prop_assert_eq!(first, hits(targets));
        }
    }

    #[test]
    fn memory_is_taken_with_its_message_and_given_back_with_the_last_sender() {
        let planted = Planted::new(&[
            ServerFault::Grow { bytes: 5, after: 1 },
            ServerFault::Swell { bytes: 7, after: 3 },
        ]);
        let taken = || [0, 1].map(|nth| planted.growths[nth].taken().len());
        let grown: Vec<_> = (0..4).map(|_| (planted.grow(), taken()).1).collect();
        assert_eq!(grown, [[5, 0], [5, 0], [5, 7], [5, 7]]);
        planted.sender_came();
        planted.sender_came();
        planted.sender_left();
        assert_eq!(taken(), [5, 7]);
        planted.sender_left();
        assert_eq!(taken(), [5, 0]);
    }

    #[test]
    fn each_slip_counts_what_it_concerns() {
        let all = |slip| ServerFault::Slips { slip, targets: Targets { times: 1, among: 1, seed: 0 } };
        let planted = Planted::new(&Slip::ALL.map(all));
        let without_content = planted.slips_of_answer("", false);
        let all_but_contents =
            Slips { lose: true, repeat: true, swap: true, misname: true, cross: true, ..Slips::default() };
        assert_eq!(without_content, all_but_contents);
        assert_eq!(planted.slips_of_answer("", true), Slips { alter: true, ..Slips::default() });
        assert_eq!(planted.slips_of_request(), Slips { ignore: true, cut: true, ..Slips::default() });
        assert_eq!(planted.slips_of_request(), Slips::default());
    }
}
