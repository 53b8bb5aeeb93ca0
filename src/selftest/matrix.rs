//! Each kind of fault of our own server against every case that has none of its kind: what fails there that the fault does not
//! explain.

use std::collections::BTreeSet;

use super::planted::{HEALTHY, Wrong};
use super::{ALL, Row, Selftest, SelftestError, rows};
use crate::client::Stop;
use crate::result::{CriterionOutcome, Verdict};
use crate::run::plan::PlanObserver;

/// A fault of our own server, and a case that it was not planted for.
#[derive(Debug, Clone, Copy)]
pub struct Stray {
    /// What is done wrong, and what it was planted for.
    pub row: Row,
    /// The other case, with nothing else wrong.
    pub elsewhere: Row,
}

/// Those of these rows, each kind once in a case: how much of it is done wrong changes nothing of what it may touch. A case
/// with a row of that kind has told already what that comes to there, and one that sets the fault's flag itself would take it
/// back.
#[must_use]
pub fn strays(rows: &[Row]) -> Vec<Stray> {
    let of_server = |row: Row| match row.planted.wrong {
        Wrong::Server(args) => Some((args, row.proof.case)),
        _ => None,
    };
    let at_home = super::rows().filter_map(of_server).map(|(args, case)| (kinds(args), case));
    let mut seen: BTreeSet<_> = at_home.collect();
    let mut strays = Vec::new();
    for &row in rows {
        let Some((args, _)) = of_server(row) else { continue };
        for proof in ALL {
            let elsewhere = Row { proof, planted: &HEALTHY };
            if seen.insert((kinds(args), proof.case)) && !elsewhere.sets_any(args) {
                strays.push(Stray { row, elsewhere });
            }
        }
    }
    strays
}

/// What a kind of fault leads to in cases that it was not planted for: the kind, why, and the families of criteria.
type Elsewhere = (&'static str, &'static str, &'static [&'static str]);

/// Each was seen, and looked into.
pub(super) const ELSEWHERE: [Elsewhere; 16] = [
    (
        "silent-connection",
        "what it is sent is never read, nor answered: where it is of the load before, that one achieves less than the one after",
        &[
            "after_rate",
            "not_processed",
            "latency_p99_in_every_window",
            "outliers",
            "fairness",
            "lowest_share",
            "authenticated_p95",
        ],
    ),
    ("growing-delay", "the longer it takes, the more it holds that waits", &["server_leak"]),
    (
        "late-answers",
        "of the few messages of one connection more than one in twenty are late, and the last of a load are a backlog",
        &["latency_p95_of_each", "peak_rate"],
    ),
    (
        "slow-per-connection",
        "with all the connections of another case it can do less than is offered",
        &["lost", "delivery"],
    ),
    (
        "--processing-delay",
        "more is offered than it can do: what waits for longer than the answer time-out is lost",
        &["lost", "latency_p95_of_each", "delivery"],
    ),
    (
        "stall",
        "it stands still for longer than the answer time-out, and than a ping may take",
        &[
            "lost",
            "unanswered",
            "latency_p95_of_each",
            "recovery",
            "cut",
            "detected@drops",
            "untouched_rate@drops",
            "untouched_p95@drops",
            "untouched_cut@drops",
        ],
    ),
    (
        "lose-answers",
        "a refusal is an answer too, and one message without any ranks above all that a connection had",
        &["refusals_told", "latency_p95_of_each", "unfilled"],
    ),
    (
        "ignore-requests",
        "it answers nothing, not even by a refusal",
        &["unanswered_up_to_7500", "refusals_told", "unfilled"],
    ),
    (
        "swap-answers",
        "what is held for the next answer goes with a connection that is cut",
        &["lost", "unanswered"],
    ),
    ("misname-answers", "the answer went to a message that was never sent", &["unfilled", "cross_talk"]),
    (
        "cut-connections",
        "what was on its way is lost, and what was due later on a connection that is not opened again is never sent",
        &["lost", "unanswered", "delivery", "latency_p99", "after_p95", "unfilled"],
    ),
    (
        "refuse-connection",
        "a tenth of the connections is not there, and all that was due on it ranks above every answer",
        &["latency_p95", "latency_p99", "after_p95", "unanswered_up_to_7500", "delivery", "unfilled", "cut"],
    ),
    (
        "starve-connections",
        "the server takes in the requests of a connection that it does not serve, and keeps them",
        &["unfilled", "delivery", "server_leak", "burst_unanswered"],
    ),
    (
        "deaf-after-loss",
        "nobody is let in again after the first connection that ends: whoever is to send, or to ask for statistics",
        &[
            "unanswered",
            "connections",
            "not_processed",
            "recovery",
            "statistics",
            "client_growth",
            "client_given_back",
            "client_leak",
            "server_growth",
            "server_given_back",
            "server_leak",
        ],
    ),
    (
        "grow",
        "its memory is taken in front of all that waits meanwhile, for tens of milliseconds",
        &["outliers", "untouched_p95@silence", "authenticated_p95"],
    ),
    (
        "bad-neighbour",
        "one connection that is cut slows all others, in a case that cuts one after the other",
        &["lost", "unanswered", "not_processed", "recovery"],
    ),
];

impl Row {
    /// Whether the case starts its server with a flag that is among these.
    fn sets_any(self, args: &[&str]) -> bool {
        let name = |flag: &str| flag.split('=').next().unwrap_or_default().to_owned();
        let flags: BTreeSet<String> = args.iter().map(|flag| name(flag)).collect();
        let plan = self.case().ok().zip(self.config().ok()).and_then(|(case, config)| case.plan(&config));
        plan.is_some_and(|plan| plan.server_args.iter().any(|flag| flags.contains(&name(flag))))
    }
}

impl Stray {
    /// The criteria, by their [family], that this fault explains wherever there are such: all that any case expects
    /// to fail by it, and what it leads to [`ELSEWHERE`].
    fn explained(self) -> BTreeSet<&'static str> {
        let Wrong::Server(args) = self.row.planted.wrong else { return BTreeSet::new() };
        let mine = kinds(args);
        let elsewhere = ELSEWHERE.iter().filter(|(of, ..)| mine.contains(of));
        let is_mine = |args: &[&'static str]| kinds(args).iter().any(|kind| mine.contains(kind));
        let same = |row: &Row| matches!(row.planted.wrong, Wrong::Server(other) if is_mine(other));
        rows()
            .filter(same)
            .flat_map(|row| row.planted.expected)
            .map(|expected| family(expected.criterion))
            .chain(elsewhere.flat_map(|(.., families)| *families).copied())
            .collect()
    }
}

impl Selftest {
    /// The criteria of the other case that failed by the fault, and that it does not explain.
    ///
    /// # Errors
    /// Where the case could not take place.
    pub fn run_stray(
        &self,
        stray: Stray,
        stop: &Stop,
        observer: &mut dyn PlanObserver,
    ) -> Result<Vec<CriterionOutcome>, SelftestError> {
        let Wrong::Server(args) = stray.row.planted.wrong else { return Ok(Vec::new()) };
        let (case, config) = (stray.elsewhere.case()?, stray.elsewhere.config()?);
        let explained = stray.explained();
        let found = case.run(&config, &self.venue(args), stop, observer)?;
        let failed = found.criteria.into_iter().filter(|criterion| criterion.verdict == Verdict::Fail);
        Ok(failed.filter(|criterion| !explained.contains(family(&criterion.name))).collect())
    }
}

/// What kinds of things the flags tell a server to do wrong: the names of its faults, without how much of them; of a server
/// that has none, that of its first flag.
pub(super) fn kinds(args: &[&'static str]) -> BTreeSet<&'static str> {
    let name = |text: &'static str| text.split(['=', ',']).next().unwrap_or_default();
    let faults: BTreeSet<_> =
        args.iter().filter_map(|flag| flag.strip_prefix("--fault=")).map(name).collect();
    if faults.is_empty() { args.first().copied().map(name).into_iter().collect() } else { faults }
}

/// A criterion's name without the step that it is of: `achieved_rate@5000` is the same check as `achieved_rate@100`.
pub(super) fn family(name: &str) -> &str {
    match name.split_once('@') {
        Some((family, step)) if step.starts_with(|first: char| first.is_ascii_digit()) => family,
        _ => name,
    }
}
