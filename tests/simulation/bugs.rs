//! The simulation is able to fail: a server that does one thing wrong is found out, and what it did is counted exactly.

use floodline::ledger::Counts;
use floodline::workload::Offered;

use crate::judge::violations;
use crate::scenario::{Bug, Fault, Scenario, of, quiet};
use crate::world::{Outcome, run};

/// How often a bug strikes where the count is compared.
const TIMES: u64 = 3;

fn with(bug: Bug, times: u64, mut scenario: Scenario) -> Outcome {
    scenario.server.bug = Some((bug, times));
    run(scenario, false).unwrap()
}

/// What the client counts of a bug that strikes three times in a world in which nothing else happens.
fn counted(bug: Bug) -> Counts {
    let outcome = with(bug, TIMES, quiet(5));
    assert_eq!(outcome.truth.bugs_struck(), TIMES);
    assert!(!violations(&outcome).is_empty(), "{bug:?} is not noticed");
    let messages = outcome.measured.unwrap().messages;
    assert_eq!((messages.due, messages.unsent), (60, 0));
    messages.counts
}

#[test]
fn a_healthy_server_in_a_quiet_world_answers_all() {
    let outcome = run(quiet(5), false).unwrap();
    assert_eq!(violations(&outcome), Vec::<String>::new());
    let expected = Counts { sent: 60, answered: 60, ..Counts::default() };
    assert_eq!(outcome.measured.unwrap().messages.counts, expected);
}

#[test]
fn what_a_server_does_wrong_is_counted_exactly() {
    let clean = Counts { sent: 60, answered: 60, ..Counts::default() };
    let without = Counts { answered: 60 - TIMES, lost: TIMES, ..clean };
    assert_eq!(counted(Bug::DropsAnswers), without);
    assert_eq!(counted(Bug::AnswersTwice), Counts { duplicates: TIMES, ..clean });
    assert_eq!(counted(Bug::Swaps), Counts { reordered: TIMES, ..clean });
    assert_eq!(counted(Bug::Misnames), Counts { foreign: TIMES, ..without });
    assert_eq!(counted(Bug::Alters), Counts { corrupted: TIMES, ..clean });
}

/// A socket that is full when the server says goodbye, or the load ends, holds messages that were handed over and have not
/// left. What the report calls unsent must not leave with the client's own goodbye.
#[test]
fn nothing_that_was_never_sent_leaves_with_a_goodbye() {
    let mut after_goodbye = 0;
    for seed in 0..150 {
        let mut scenario = Scenario { chop: Some(60), tcp_capacity: 64, latency_ms: 5..40, ..quiet(seed) };
        scenario.workload.offered = Offered::Rate("400".parse().unwrap());
        scenario.workload.payload_bytes = 2_000;
        scenario.workload.retry = (seed % 2 == 0).then(Default::default);
        (scenario.server.act_every, scenario.server.acts, scenario.heals) = (8, 3, false);
        let outcome = run(scenario, false).unwrap();
        assert_eq!(violations(&outcome), Vec::<String>::new(), "seed {seed}");
        after_goodbye += outcome.truth.happened("received after goodbye");
    }
    assert!(after_goodbye > 0);
}

/// Whether one of the first worlds in which the server crashes gives the bug away by these words.
fn gives_away(bug: Bug, words: &str) -> bool {
    let crashes =
        |scenario: &Scenario| scenario.faults.iter().any(|(_, fault)| matches!(fault, Fault::Crash(_)));
    let worlds = (0..200).map(of).filter(crashes);
    worlds
        .take(60)
        .any(|scenario| violations(&with(bug, u64::MAX, scenario)).iter().any(|wrong| wrong.contains(words)))
}

#[test]
fn a_server_that_forgets_its_store_processes_twice() {
    assert!(gives_away(Bug::ForgetsItsStore, "processed twice"));
}

#[test]
fn a_server_that_answers_before_its_work_has_answered_what_it_never_did() {
    assert!(gives_away(Bug::AnswersBeforeWork, "answered and not processed"));
}
