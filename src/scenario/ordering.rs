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
        // A ramp would add messages: the numbers are what is asked for.
        let ramp = Duration::ZERO;
        let load = Workload { offered: Offered::Rate(rate), connections, duration, ramp, ..workload(config) };
        Phase::new(name, Action::Load(load))
    };
    Plan { phases: phases.into_iter().map(phase).collect(), ..Plan::default() }
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

#[cfg(test)]
mod tests {
    use super::super::testing::{assert_fails, judged, loaded, run};
    use super::*;

    fn with(edit: impl Fn(&mut LoadTestResults)) -> Vec<CriterionOutcome> {
        let mut unpaced = run(1e6, 1);
        edit(&mut unpaced);
        // The noisiest machine excuses nothing here.
        unpaced.resources.foreign_cpu_cores = Some(2.0);
        let phases =
            vec![loaded("paced", run(1e3, 1)), loaded("unpaced", unpaced), loaded("parallel", run(1e4, 10))];
        judged(&CASE, &Evidence { phases, ..Evidence::default() })
    }

    #[test]
    fn one_message_out_of_place_fails_its_criterion_alone() {
        type Edit = fn(&mut LoadTestResults);
        let edits: [(&[&str], Edit); 7] = [
            (&[], |_| {}),
            (&["reordered"], |run| run.messages.counts.reordered = 1),
            (&["duplicates"], |run| run.messages.counts.duplicates = 1),
            (&["foreign"], |run| run.messages.counts.foreign = 1),
            (&["corrupted"], |run| run.messages.counts.corrupted = 1),
            (&["unanswered"], |run| run.messages.counts.answered -= 1),
            (&["connections"], |run| run.connections.dropped = 1),
        ];
        for (names, edit) in edits {
            assert_fails(&with(edit), names);
        }
        assert_fails(
            &with(|run| {
                run.messages.counts.answered -= 2;
                run.messages.counts.lost = 2;
            }),
            &["lost", "unanswered"],
        );
    }

    #[test]
    fn what_is_wrong_is_placed() {
        let criteria = with(|run| {
            run.messages.counts.reordered = 2;
            run.messages.reorder_distance_max = 5;
        });
        let reordered = criteria.iter().find(|criterion| criterion.name == "reordered").unwrap();
        assert_eq!(reordered.evidence, ["2 at unpaced, by up to 5 places"]);
    }
}
