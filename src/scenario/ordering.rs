//! Case 2: does each connection keep its order, and is nothing missing, doubled, foreign or altered?

use std::time::Duration;

use super::criteria::none_of;
use super::load::{connections_over, counting_over, unanswered_over};
use super::{Body, Case, workload};
use crate::config::HighVolumeConfig;
use crate::result::{CriterionOutcome, LoadTestResults};
use crate::run::plan::{Action, Evidence, Phase, Plan};
use crate::schedule::Schedule;
use crate::units::{self, Rate};
use crate::workload::{Offered, Workload};

pub(super) const CASE: Case = Case {
    name: "ordering",
    question: "does each connection keep its order, and is nothing missing, doubled, foreign or altered?",
    needs: &[],
    body: Body::Planned { plan, judge },
};

/// "Unpaced" is a schedule that is over before the first answer: everything is due within some milliseconds.
const UNPACED_PER_SECOND: f64 = 1e6;

fn plan(config: &HighVolumeConfig) -> Plan {
    let case = &config.ordering;
    // Slowed to what is allowed, where that is less.
    let unpaced = UNPACED_PER_SECOND.min(config.guard.max_rate.as_per_second());
    let unpaced = Rate::per_second(unpaced).unwrap_or(case.rate);
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

fn judge(config: &HighVolumeConfig, evidence: &Evidence) -> Vec<CriterionOutcome> {
    let runs: Vec<_> = evidence.runs().collect();
    let mut criteria = counting_over(&runs);
    criteria.push(unanswered_over("unanswered", &runs));
    criteria.push(all_due(config, &runs));
    criteria.push(connections_over(&runs));
    criteria
}

/// Every phase offered what the plan offers, and not a message more or less: a load that was cut short proves little.
fn all_due(config: &HighVolumeConfig, runs: &[(&str, &LoadTestResults)]) -> CriterionOutcome {
    let plan = plan(config);
    let planned = |name: &str| {
        plan.phases.iter().find(|phase| phase.name == name).map_or(0, |phase| match &phase.action {
            Action::Load(load) => offers(load),
            _ => 0,
        })
    };
    let each = runs.iter().map(|(name, run)| (name, planned(name), run.messages.due));
    let wrong: Vec<(u64, String)> = each
        .filter(|(_, planned, due)| planned != due)
        .map(|(name, planned, due)| {
            let text = format!("{} of {} at {name}", units::count(due), units::count(planned));
            (planned.abs_diff(due), text)
        })
        .collect();
    none_of(
        "not_offered",
        wrong.iter().map(|(count, _)| count).sum(),
        wrong.into_iter().map(|(_, text)| text),
    )
}

/// How many messages a load offers, by its schedule.
fn offers(load: &Workload) -> u64 {
    let due = |schedule: Schedule| {
        (0..load.connections).map(|connection| schedule.due_times(connection).count() as u64).sum()
    };
    load.schedule().map_or(0, due)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{assert_fails, judged, loaded, run, seen};
    use super::*;
    use crate::config::Profile;
    use crate::ledger::Counts;
    use crate::result::ConnectionSummary;

    fn with(edit: impl Fn(&mut LoadTestResults)) -> Vec<CriterionOutcome> {
        let mut unpaced = run(1e6, 1);
        edit(&mut unpaced);
        // The noisiest machine excuses nothing here.
        unpaced.resources.foreign_cpu_cores = Some(2.0);
        let phases =
            vec![loaded("paced", run(1e3, 1)), loaded("unpaced", unpaced), loaded("parallel", run(1e4, 10))];
        judged(&CASE, &seen(phases))
    }

    #[test]
    fn each_phase_is_to_offer_what_is_planned_for_it() {
        // Four messages where the plan wants as many, but of other phases.
        let mut config = HighVolumeConfig::default();
        config.ordering.messages = 40;
        config.ordering.messages_per_connection = 30;
        config.ordering.parallel_connections = 2;
        let due = |messages| {
            let mut run = run(1e3, 1);
            run.messages.due = messages;
            run
        };
        let offered = [("paced", due(60)), ("unpaced", due(40)), ("parallel", due(40))];
        let runs: Vec<_> = offered.iter().map(|(name, run)| (*name, run)).collect();
        let found = all_due(&config, &runs);
        assert_eq!((&*found.name, &*found.measured), ("not_offered", "40"));
        assert_eq!(found.evidence, ["60 of 40 at paced", "40 of 60 at parallel"]);
    }

    #[test]
    fn one_message_out_of_place_fails_its_criterion_alone() {
        type Edit = fn(&mut LoadTestResults);
        let edits: [(&[&str], Edit); 11] = [
            (&[], |_| {}),
            (&["reordered"], |run| run.messages.counts.reordered = 1),
            (&["duplicates"], |run| run.messages.counts.duplicates = 1),
            (&["foreign"], |run| run.messages.counts.foreign = 1),
            (&["corrupted"], |run| run.messages.counts.corrupted = 1),
            (&["unanswered"], |run| run.messages.counts.answered -= 1),
            (&["connections"], |run| run.connections.dropped = 1),
            (&["unanswered", "not_offered"], |run| run.messages.due += 1),
            (&["not_offered"], |run| (run.messages.due, run.messages.counts.answered) = (9_999, 9_999)),
            // More answers than messages, which nothing may ever count, are no debt.
            (&["not_offered"], |run| run.messages.due -= 1),
            (&["not_offered"], |run| (run.messages.due, run.messages.counts.answered) = (0, 0)),
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
        let connection = |connection, answered| ConnectionSummary {
            connection,
            due: 10,
            counts: Counts { sent: 10, answered, ..Counts::default() },
            achieved: answered,
            latency_p95_at_most_us: None,
        };
        let criteria = with(|run| {
            run.messages.counts.answered -= 3;
            run.messages.counts.refused = 2;
            run.messages.unsent = 1;
            run.messages.missing_ids = Vec::new();
            run.per_connection = vec![connection(4, 10), connection(5, 7)];
        });
        assert_fails(&criteria, &["unanswered"]);
        let unanswered = criteria.iter().find(|criterion| criterion.name == "unanswered").unwrap();
        assert_eq!(unanswered.evidence, ["3 at unpaced, unsent 1, refused 2, lost 0, on connection 5"]);
        let short = with(|run| (run.messages.due, run.messages.counts.answered) = (9_990, 9_990));
        let not_offered = short.iter().find(|criterion| criterion.name == "not_offered").unwrap();
        assert_eq!((&*not_offered.measured, &*not_offered.evidence[0]), ("10", "9,990 of 10,000 at unpaced"));
    }

    #[test]
    fn the_plan_offers_the_messages_of_the_configuration() {
        for profile in Profile::ALL {
            let config = HighVolumeConfig::for_profile(profile);
            let case = &config.ordering;
            let parallel = case.messages_per_connection * u64::from(case.parallel_connections);
            let offered = plan(&config).phases.into_iter().map(|phase| match phase.action {
                Action::Load(load) => (phase.name, offers(&load)),
                other => panic!("{other:?}"),
            });
            let expected = [("paced", case.messages), ("unpaced", case.messages), ("parallel", parallel)];
            assert_eq!(offered.collect::<Vec<_>>(), expected.map(|(name, count)| (name.to_owned(), count)));
        }
    }
}
