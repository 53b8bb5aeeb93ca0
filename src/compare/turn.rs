//! What a turn of either measured, and what becomes of all turns.

use super::order::Order;
use super::reference::Pace;
use crate::result::compare::Side;
use crate::result::{LoadTestResults, WorkloadSummary};

/// The loads of a comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoadKind {
    /// A fixed rate: latency, and the CPU time of a message where the server often waits.
    Paced,
    /// As fast as answers come: capacity, and the CPU time of a message where it never does.
    Closed,
}

impl LoadKind {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Paced, Self::Closed];

    /// How often it is offered in a pair to either of both.
    pub(super) fn rounds(self) -> usize {
        match self {
            Self::Paced => 1,
            Self::Closed => 3,
        }
    }

    /// How often it is offered at most, where the machine was slow around some of them.
    pub(super) fn most_rounds(self) -> usize {
        match self {
            Self::Paced => 2,
            Self::Closed => 9,
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Paced => "paced",
            Self::Closed => "closed",
        }
    }
}

/// The least number of pairs: with fewer, the smallest p-value that there can be is lost among the figures.
pub const LEAST_PAIRS: u32 = 10;

/// One figure of one turn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Figure {
    /// Of which load.
    pub load: LoadKind,
    /// Its name, with the unit.
    pub metric: &'static str,
    /// Its value; `None` where there is none.
    pub value: Option<f64>,
}

/// The figures of a load, how they are read, and whether more is better.
type Reader = (LoadKind, &'static str, bool, fn(&LoadTestResults) -> Option<f64>);

const METRICS: [Reader; 8] = [
    (LoadKind::Paced, "latency_p50_us", false, |run| run.latency_us.as_ref()?.p50),
    (LoadKind::Paced, "latency_p99_us", false, |run| run.latency_us.as_ref()?.p99),
    (LoadKind::Paced, "server_cpu_us_per_message", false, |run| run.cost.server_cpu_us_per_message),
    (LoadKind::Paced, "client_cpu_us_per_message", false, |run| run.cost.client_cpu_us_per_message),
    (LoadKind::Closed, "throughput_per_second", true, |run| {
        Some(run.throughput.achieved_rate).filter(|&rate| rate > 0.0)
    }),
    (LoadKind::Closed, "server_cpu_us_per_message", false, |run| run.cost.server_cpu_us_per_message),
    (LoadKind::Closed, "client_cpu_us_per_message", false, |run| run.cost.client_cpu_us_per_message),
    // Not of the run: see `memory`.
    (LoadKind::Paced, MEMORY, false, |_| None),
];
const MEMORY: &str = "server_bytes_per_connection";

/// Whether more of a figure is better.
#[must_use]
pub fn higher_is_better(metric: &str) -> bool {
    METRICS.iter().any(|(_, name, higher, _)| *name == metric && *higher)
}

/// One turn: what it measured, and what else was seen.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Turn {
    /// The figures, those without a value too.
    pub figures: Vec<Figure>,
    due: u64,
    answered: u64,
    /// Core seconds that other processes took in its loads, and the seconds that these took.
    foreign: Option<(f64, f64)>,
    /// How fast the machine was around each load.
    paces: Vec<(LoadKind, Pace)>,
    workloads: Vec<WorkloadSummary>,
}

/// A turn in which others took more than this was disturbed, in cores: the machine's counters are right to some 30 ms, which
/// is an eighth of a core over a quarter of a second.
const DISTURBED_CORES: f64 = 0.25;

impl Turn {
    /// Counts a load that was offered, whether or not its figures are used.
    pub(super) fn count(&mut self, run: &LoadTestResults) {
        self.due += run.messages.due;
        self.answered += run.messages.counts.answered;
        if let Some(cores) = run.resources.foreign_cpu_cores {
            let (cpu_s, span_s) = self.foreign.unwrap_or_default();
            self.foreign = Some((cpu_s + cores * run.offered_for_s, span_s + run.offered_for_s));
        }
    }

    /// Takes the figures of a load from its repeats, the best of each: whatever disturbs a load at capacity can only make it
    /// worse (J. Chen, J. Revels, "Robust benchmarking in noisy environments", 2016). `pace` is the slowest around them,
    /// `memory` what a connection took of the server.
    pub(super) fn take_in(
        &mut self,
        load: LoadKind,
        runs: &[&LoadTestResults],
        pace: Pace,
        memory: Option<f64>,
    ) {
        for (_, metric, higher, read) in METRICS.iter().filter(|(of, ..)| *of == load) {
            let values = runs.iter().filter_map(|run| read(run));
            let best = if *higher { values.max_by(f64::total_cmp) } else { values.min_by(f64::total_cmp) };
            let value = if *metric == MEMORY { memory } else { best };
            self.figures.push(Figure { load, metric, value });
        }
        self.paces.push((load, pace));
        self.workloads.extend(runs.first().map(|run| run.workload.clone()));
    }

    fn is_disturbed(&self) -> bool {
        self.foreign.is_some_and(|(cpu_s, span_s)| cpu_s > DISTURBED_CORES * span_s)
    }

    /// How much slower than usual the machine was around a load, as a share.
    fn slowness(&self, load: LoadKind, usual: Pace) -> f64 {
        let around = self.paces.iter().filter(|(of, _)| *of == load);
        around.map(|(_, pace)| pace.beyond(usual)).fold(0.0, f64::max)
    }
}

/// Where the reference takes so much longer than usual, as a share, the machine was slow. Between two comparisons, and within
/// them, the clock of a core moves by up to a tenth; in a slow spell the same work takes 1.5 to 1.8 times as long, and next
/// to nothing lies between.
const SLOW: f64 = 0.15;

/// Whether the machine was slow.
pub(super) fn is_slow(pace: Pace, usual: Pace) -> bool {
    pace.beyond(usual) > SLOW
}

/// One figure of both, pair by pair.
#[derive(Debug, Clone, PartialEq)]
pub struct PairedFigure {
    /// Of which load.
    pub load: LoadKind,
    /// Its name, with the unit.
    pub metric: &'static str,
    /// A's value and B's.
    pub pairs: Vec<(f64, f64)>,
}

/// All turns of both.
#[derive(Debug, Clone, PartialEq)]
pub struct Measured {
    /// A's turn and B's of each pair.
    pub pairs: Vec<(Turn, Turn)>,
    /// Pairs that are left out because something else took a part of the machine.
    pub left_out: Vec<(Turn, Turn)>,
    /// How fast the machine usually was.
    usual: Pace,
    /// Which of the two came first in each pair.
    order: String,
}

/// In how many pairs the machine was slow around a load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlowPairs {
    /// Around which.
    pub load: LoadKind,
    /// In so many.
    pub slow: usize,
    /// Of so many.
    pub of: usize,
    /// Of which so many are left out, the slowest: not more than leave [`LEAST_PAIRS`].
    pub left_out: usize,
}

impl Measured {
    /// Leaves out the pairs in which others took a part of the machine; none, where too few would be left. A pair is left
    /// out for what others did, never for what it measured, and A's turn with B's.
    pub(super) fn of(pairs: Vec<(Turn, Turn)>, usual: Pace) -> Self {
        let (disturbed, calm): (Vec<_>, Vec<_>) =
            pairs.iter().cloned().partition(|(a, b)| a.is_disturbed() || b.is_disturbed());
        if calm.len() < LEAST_PAIRS as usize {
            return Self { pairs, left_out: Vec::new(), usual, order: String::new() };
        }
        Self { pairs: calm, left_out: disturbed, usual, order: String::new() }
    }

    /// The same, with which of the two came first in each pair.
    pub(super) fn in_order(self, order: &[Order]) -> Self {
        let order: Vec<&str> = order.iter().map(|order| order.as_str()).collect();
        Self { order: order.join(" "), ..self }
    }

    /// Which of the two came first in each pair.
    #[must_use]
    pub fn order(&self) -> &str {
        &self.order
    }

    /// What A or B, of this name, came to.
    #[must_use]
    pub fn side(&self, name: &str, of: impl Fn(&(Turn, Turn)) -> &Turn) -> Side {
        let all = || self.pairs.iter().chain(&self.left_out);
        let sum = |count: fn(&Turn) -> u64| all().map(|pair| count(of(pair))).sum();
        Side { name: name.to_owned(), due: sum(|turn| turn.due), answered: sum(|turn| turn.answered) }
    }

    /// What other processes took on average, in cores.
    #[must_use]
    pub fn foreign_cpu_cores(&self) -> Option<f64> {
        let turns = self.pairs.iter().flat_map(|(a, b)| [a, b]).filter_map(|turn| turn.foreign);
        let (cpu_s, span_s) = turns.fold((0.0, 0.0), |(cpu, span), turn| (cpu + turn.0, span + turn.1));
        (span_s > 0.0).then(|| cpu_s / span_s)
    }

    /// The loads, as they were offered.
    #[must_use]
    pub fn workloads(&self) -> Vec<WorkloadSummary> {
        self.pairs.first().map(|(a, _)| a.workloads.clone()).unwrap_or_default()
    }

    /// In how many pairs the machine was slow around each load, where it was in any.
    #[must_use]
    pub fn slow_pairs(&self) -> Vec<SlowPairs> {
        let of_load = |load| {
            let slow = self.slowest(load).len();
            let of = self.pairs.len();
            SlowPairs { load, slow, of, left_out: slow.min(of.saturating_sub(LEAST_PAIRS as usize)) }
        };
        LoadKind::ALL.into_iter().map(of_load).filter(|pairs| pairs.slow > 0).collect()
    }

    /// The pairs in which the machine was slow around a load, the slowest first.
    fn slowest(&self, load: LoadKind) -> Vec<usize> {
        let slowness = |(a, b): &(Turn, Turn)| a.slowness(load, self.usual).max(b.slowness(load, self.usual));
        let all = self.pairs.iter().map(slowness).enumerate();
        let mut slow: Vec<(usize, f64)> = all.filter(|(_, slowness)| *slowness > SLOW).collect();
        slow.sort_by(|a, b| b.1.total_cmp(&a.1));
        slow.into_iter().map(|(index, _)| index).collect()
    }

    /// The values of each figure, pair by pair: without those around whose load the machine was slow, the slowest first, while
    /// there are enough others. A pair without one of the two is left out, and so is a figure without two pairs.
    #[must_use]
    pub fn values(&self) -> Vec<PairedFigure> {
        let Some((first, _)) = self.pairs.first() else { return Vec::new() };
        let slow: Vec<(LoadKind, Vec<usize>)> = self
            .slow_pairs()
            .into_iter()
            .map(|SlowPairs { load, left_out, .. }| (load, self.slowest(load)[..left_out].to_vec()))
            .collect();
        let left_out = |load, pair| slow.iter().any(|(of, pairs)| *of == load && pairs.contains(&pair));
        let figure = |index: usize| {
            let Figure { load, metric, .. } = first.figures[index];
            let both = |(a, b): &(Turn, Turn)| a.figures[index].value.zip(b.figures[index].value);
            let used = self.pairs.iter().enumerate().filter(|(pair, _)| !left_out(load, *pair));
            PairedFigure { load, metric, pairs: used.filter_map(|(_, pair)| both(pair)).collect() }
        };
        (0..first.figures.len()).map(figure).filter(|figure| figure.pairs.len() > 1).collect()
    }
}

/// What the server has taken for each connection, before the first message. `None` where its process is not known.
pub(super) fn memory(run: &LoadTestResults, idle_bytes: Option<u64>) -> Option<f64> {
    let with_all = run.resources.server.as_ref()?.rss_start_bytes?;
    let taken = with_all.checked_sub(idle_bytes?).filter(|&bytes| bytes > 0)?;
    Some(taken as f64 / run.connections.established.max(1) as f64)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn turn(value: f64, foreign_cores: f64) -> Turn {
        let figures = vec![Figure { load: LoadKind::Paced, metric: "latency_p50_us", value: Some(value) }];
        Turn { figures, due: 10, answered: 9, foreign: Some((foreign_cores * 2.0, 2.0)), ..Turn::default() }
    }

    #[test]
    fn a_disturbed_pair_is_left_out_with_both_its_turns_and_still_accounted_for() {
        let pair = |n: u32| (turn(f64::from(n), 0.01), turn(1.0, if n < 3 { 0.9 } else { 0.01 }));
        let measured = Measured::of((0..20).map(pair).collect(), Pace::default());
        assert_eq!((measured.pairs.len(), measured.left_out.len()), (17, 3));
        assert_eq!(measured.values()[0].pairs[0], (3.0, 1.0));
        let side = measured.side("a", |pair| &pair.0);
        assert_eq!((side.due, side.answered), (200, 180));
        assert!((measured.foreign_cpu_cores().unwrap() - 0.01).abs() < 1e-9);
        // Where the machine is always busy, there is nothing else to go by.
        let busy = Measured::of((0..12).map(pair).collect(), Pace::default());
        assert_eq!((busy.pairs.len(), busy.left_out.len()), (12, 0));
    }

    #[test]
    fn pairs_around_which_the_machine_was_slow_are_left_out_of_the_figures_of_that_load_while_enough_are_left()
     {
        let usual = Pace::of(Duration::from_micros(100), Duration::from_micros(100));
        let paced = |us: u64, value: f64| {
            let pace = Pace::of(Duration::from_micros(100), Duration::from_micros(us));
            Turn { paces: vec![(LoadKind::Paced, pace), (LoadKind::Closed, usual)], ..turn(value, 0.0) }
        };
        // The slow ones come first, the slowest of them last.
        let measured = |slow: u32, of: u32| {
            let us = |n: u32| if n < slow { 116 + u64::from(n) } else { 115 };
            let pair = |n: u32| (paced(114, f64::from(n)), paced(us(n), 1.0));
            Measured::of((0..of).map(pair).collect(), usual)
        };
        let few = measured(3, 13);
        assert_eq!(few.slow_pairs(), [SlowPairs { load: LoadKind::Paced, slow: 3, of: 13, left_out: 3 }]);
        assert_eq!((few.values()[0].pairs.len(), few.values()[0].pairs[0]), (10, (3.0, 1.0)));
        assert_eq!(few.side("a", |pair| &pair.0).due, 130);
        let many = measured(4, 13);
        assert_eq!(many.slow_pairs(), [SlowPairs { load: LoadKind::Paced, slow: 4, of: 13, left_out: 3 }]);
        assert_eq!((many.values()[0].pairs.len(), many.values()[0].pairs[0]), (10, (0.0, 1.0)));
        let none = measured(4, 10);
        assert_eq!(none.slow_pairs(), [SlowPairs { load: LoadKind::Paced, slow: 4, of: 10, left_out: 0 }]);
        assert_eq!(none.values()[0].pairs.len(), 10);
        assert_eq!(measured(0, 13).slow_pairs(), []);
    }
}
