//! Case 2: does each connection keep its order, and is nothing missing, doubled, foreign or altered?

use std::time::Duration;

use super::load::{connections_over, counting_over, none_over};
use super::{Case, workload};
use crate::config::HighVolumeConfig;
use crate::result::{CriterionOutcome, LoadTestResults};
use crate::run::plan::{Action, Evidence, Phase, Plan};
use crate::units::Rate;
use crate::workload::{Offered, Workload};

pub(super) const CASE: Case = Case {
    name: "ordering",
    question: "does each connection keep its order, and is nothing missing, doubled, foreign or altered?",
    plan,
    judge,
};

/// "Unpaced" is a schedule that is over before the first answer: everything is due within some milliseconds.
const UNPACED_PER_SECOND: f64 = 1e6;

fn plan(config: &HighVolumeConfig) -> Plan {
    let case = &config.ordering;
    let unpaced = Rate::per_second(UNPACED_PER_SECOND).unwrap_or(case.rate);
    let parallel_messages = case.messages_per_connection * u64::from(case.parallel_connections);
    let parallel_rate = case.rate.as_per_second() * f64::from(case.parallel_connections);
    let phases = [
        ("paced", 1, case.messages, case.rate),
        ("unpaced", 1, case.messages, unpaced),
        (
            "parallel",
            case.parallel_connections,
            parallel_messages,
            Rate::per_second(parallel_rate).unwrap_or(case.rate),
        ),
    ];
    let phase = |(name, connections, messages, rate): (&str, u32, u64, Rate)| {
        let duration = Duration::from_secs_f64(messages as f64 / rate.as_per_second());
        let load = Workload { offered: Offered::Rate(rate), connections, duration, ..workload(config) };
        Phase::new(name, Action::Load(load))
    };
    Plan { server_args: Vec::new(), phases: phases.into_iter().map(phase).collect() }
}

fn judge(_config: &HighVolumeConfig, evidence: &Evidence) -> Vec<CriterionOutcome> {
    let runs: Vec<_> = evidence.runs().collect();
    let mut criteria = counting_over(&runs);
    let unanswered = |run: &LoadTestResults| run.messages.due - run.messages.counts.answered;
    let counts = |run: &LoadTestResults| {
        let counts = &run.messages.counts;
        Some(format!("unsent {}, refused {}, lost {}", run.messages.unsent, counts.refused, counts.lost))
    };
    criteria.push(none_over("unanswered", &runs, unanswered, counts));
    criteria.push(connections_over(&runs));
    criteria
}
