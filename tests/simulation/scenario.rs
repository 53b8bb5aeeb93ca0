//! What a seed means: the load, the network, the server, and what befalls them when.

use std::ops::Range;
use std::time::Duration;

use floodline::dialect::RequestKind;
use floodline::retry::{PingPolicy, RetryPolicy};
use floodline::schedule::Arrival;
use floodline::units::Rate;
use floodline::workload::{Offered, Workload};
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{Rng, SeedableRng};

/// One simulated world.
#[derive(Debug, Clone)]
pub struct Scenario {
    pub seed: u64,
    pub workload: Workload,
    pub workers: usize,
    pub request: RequestKind,
    /// The most bytes that a read or a write moves.
    pub chop: Option<u64>,
    /// How many segments may be under way in one direction of one connection.
    pub tcp_capacity: usize,
    pub latency_ms: Range<u64>,
    pub server: ServerPlan,
    /// In order; when it begins, after the connections are open or, for a harsh start, after time 0.
    pub faults: Vec<(Duration, Fault)>,
    pub harsh_start: bool,
    /// When the load is stopped, and whether a second time at once.
    pub stop: Option<(Duration, bool)>,
    /// Whether nothing may be lost: all faults end, the client holds on, and there is time.
    pub heals: bool,
}

/// What the network does, or what befalls the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing arrives, in either direction.
    Partition(Duration),
    /// Nothing arrives at the server.
    Deaf(Duration),
    /// Nothing arrives at the client.
    Mute(Duration),
    /// All waits on its way, and arrives in the end.
    Hold(Duration),
    /// The server is gone, and comes back with what it had stored.
    Crash(Duration),
}

impl Fault {
    pub fn lasts(self) -> Duration {
        let (Self::Partition(lasts)
        | Self::Deaf(lasts)
        | Self::Mute(lasts)
        | Self::Hold(lasts)
        | Self::Crash(lasts)) = self;
        lasts
    }
}

/// How the simulated server works.
#[derive(Debug, Clone)]
pub struct ServerPlan {
    /// A normal request is refused where so many wait.
    pub capacity: usize,
    pub processing_ms: Range<u64>,
    /// From commit to answer.
    pub answering_ms: Range<u64>,
    /// One in so many requests meets with an [`Act`]; at most `acts` of them.
    pub act_every: u64,
    pub acts: u64,
    /// What it does wrong, and the first how many times; a healthy one does nothing wrong.
    pub bug: Option<(Bug, u64)>,
}

/// What an honest server may do to a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// Cut before the request is looked at.
    CutBefore,
    /// Cut after the request was processed, instead of the answer.
    CutAfter,
    /// Cut in the middle of the answer's frame.
    CutWithin,
    /// Say goodbye instead of the answer.
    Close,
    /// Neither read nor write any more, and keep the connection.
    Silence,
}

impl Act {
    pub const ALL: [Self; 5] = [Self::CutBefore, Self::CutAfter, Self::CutWithin, Self::Close, Self::Silence];
}

/// What no server may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// It comes back without what it had stored.
    ForgetsItsStore,
    /// It answers when it has taken a request, not when it has processed it.
    AnswersBeforeWork,
    /// An answer never leaves, and nobody cuts.
    DropsAnswers,
    /// An answer leaves twice.
    AnswersTwice,
    /// An answer waits for the next, and leaves after it.
    Swaps,
    /// An answer names a message of nobody.
    Misnames,
    /// An answer has another content.
    Alters,
}

/// Draws from a seed.
pub struct Dice(Xoshiro256PlusPlus);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(Xoshiro256PlusPlus::seed_from_u64(seed))
    }

    /// A number of the range, which is not empty.
    pub fn within(&mut self, range: Range<u64>) -> u64 {
        range.start + self.0.next_u64() % (range.end - range.start)
    }

    /// True once in so many times.
    pub fn once_in(&mut self, times: u64) -> bool {
        self.within(0..times) == 0
    }

    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.within(0..from.len() as u64) as usize]
    }

    pub fn ms(&mut self, range: Range<u64>) -> Duration {
        Duration::from_millis(self.within(range))
    }
}

/// A scenario in which nothing goes wrong: 60 messages on 2 connections.
pub fn quiet(seed: u64) -> Scenario {
    let workload = Workload {
        offered: rate(100.0),
        connections: 2,
        duration: Duration::from_millis(600),
        payload_bytes: 64,
        answer_timeout: Duration::from_secs(2),
        seed,
        ..Workload::default()
    };
    Scenario {
        seed,
        workload,
        workers: 1,
        request: RequestKind::UserMessage,
        chop: None,
        tcp_capacity: 1_024,
        latency_ms: 1..4,
        server: ServerPlan {
            capacity: 1_000,
            processing_ms: 1..3,
            answering_ms: 0..1,
            act_every: 1,
            acts: 0,
            bug: None,
        },
        faults: Vec::new(),
        harsh_start: false,
        stop: None,
        heals: true,
    }
}

/// What the seed stands for.
pub fn of(seed: u64) -> Scenario {
    let dice = &mut Dice::new(seed);
    let heals = dice.once_in(2);
    let processing_ms = 0..dice.pick(&[1, 3, 8, 20]) + 1;
    Scenario {
        seed,
        workload: workload(dice, seed, heals),
        workers: dice.within(1..4) as usize,
        request: if dice.once_in(5) { RequestKind::ThroughputTest } else { RequestKind::UserMessage },
        chop: dice.pick(&[None, Some(60), Some(400)]),
        tcp_capacity: dice.pick(&[64, 256, 1_024]),
        latency_ms: dice.pick(&[&(0..2), &(1..10), &(0..60)]).clone(),
        server: ServerPlan {
            capacity: dice.pick(&[4, 20, 1_000, 1_000]),
            processing_ms,
            answering_ms: 0..dice.pick(&[1, 2, 6]),
            act_every: dice.within(5..80),
            acts: dice.within(0..6),
            bug: None,
        },
        faults: faults(dice),
        harsh_start: !heals && dice.once_in(4),
        stop: (!heals && dice.once_in(6)).then(|| (dice.ms(0..1_500), dice.once_in(3))),
        heals,
    }
}

fn rate(per_second: f64) -> Offered {
    Offered::Rate(Rate::per_second(per_second).unwrap())
}

fn workload(dice: &mut Dice, seed: u64, heals: bool) -> Workload {
    let offered = match dice.within(0..8) {
        // A closed loop.
        0 => Offered::Max,
        _ => rate(dice.within(20..250) as f64),
    };
    let closed = offered == Offered::Max;
    let retry = RetryPolicy {
        initial: Duration::from_millis(20),
        factor: 2,
        cap: Duration::from_millis(300),
        give_up_after: (!heals && dice.once_in(3)).then(|| dice.ms(100..900)),
    };
    let ping = PingPolicy { every: Duration::from_millis(200), dead_after: dice.ms(450..900) };
    let harsh_timeout = dice.ms(150..1_500);
    Workload {
        offered,
        connections: dice.within(1..5) as u32,
        duration: if closed { dice.ms(60..200) } else { dice.ms(200..1_200) },
        ramp: if !closed && dice.once_in(6) { dice.ms(50..200) } else { Duration::ZERO },
        arrival: if dice.once_in(2) { Arrival::Poisson } else { Arrival::Uniform },
        payload_bytes: dice.pick(&[0, 40, 300, 2_000]),
        window: dice.within(1..6) as usize,
        answer_timeout: if heals { Duration::from_secs(20) } else { harsh_timeout },
        // A slow network alone leaves messages unsent, where they have to leave soon.
        send_grace: if heals { Duration::from_secs(20) } else { dice.ms(0..400) },
        connect_timeout: Duration::from_millis(400),
        retry: (heals || !dice.once_in(4)).then_some(retry),
        ping: (heals || !dice.once_in(4)).then_some(ping),
        seed,
        ..Workload::default()
    }
}

/// One after the other, as the network can only be in one state at a time.
fn faults(dice: &mut Dice) -> Vec<(Duration, Fault)> {
    let mut at = Duration::ZERO;
    let mut faults = Vec::new();
    for _ in 0..dice.within(0..4) {
        at += dice.ms(20..600);
        let lasts = dice.ms(5..900);
        let fault = match dice.within(0..6) {
            0 => Fault::Partition(lasts),
            1 => Fault::Deaf(lasts),
            2 => Fault::Mute(lasts),
            3 => Fault::Hold(lasts),
            _ => Fault::Crash(lasts),
        };
        faults.push((at, fault));
        at += lasts;
    }
    faults
}
