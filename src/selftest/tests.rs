use std::collections::BTreeSet;

use super::*;
use crate::result::{CriterionOutcome, Verdict};
use crate::server::ServerFault;

/// `case`, and a criterion's family.
type Check = (&'static str, String);

/// Every criterion of every case, as the judges name them, without those that are only told.
fn judged() -> BTreeSet<Check> {
    let profiles = Profile::ALL.into_iter();
    let of_case = |case: &'static Case, profile| {
        let criteria = scenario::testing::every_criterion(case, profile).into_iter();
        let can_fail = criteria.filter(|criterion| !scenario::is_told(criterion));
        can_fail.map(|criterion| (case.name, matrix::family(&criterion.name).to_owned())).collect::<Vec<_>>()
    };
    profiles.flat_map(|profile| scenario::every().flat_map(move |case| of_case(case, profile))).collect()
}

/// Every criterion that some fault must make fail.
fn planted_for() -> BTreeSet<Check> {
    let must = |expected: &&Expected| !matches!(expected.role, Role::May(_));
    rows()
        .flat_map(|row| row.planted.expected.iter().filter(must).map(move |expected| (row, expected)))
        .map(|(row, expected)| (row.proof.case, matrix::family(expected.criterion).to_owned()))
        .collect()
}

#[test]
fn every_criterion_has_a_fault_that_it_fails_by() {
    let (judged, planted) = (judged(), planted_for());
    assert!(judged.len() > 100, "{judged:#?}");
    let without: Vec<_> = judged.difference(&planted).collect();
    assert!(without.is_empty(), "no fault is planted for {without:#?}");
    let unknown: Vec<_> = planted.difference(&judged).collect();
    assert!(unknown.is_empty(), "faults are planted for what nobody judges: {unknown:#?}");
}

/// What is told passes or is skipped, whatever the evidence.
#[test]
fn what_is_told_never_fails() {
    let mut told = 0;
    for case in scenario::every() {
        let config = HighVolumeConfig::for_profile(Profile::Smoke);
        let nothing =
            case.conclude(&config, Findings::Phases(crate::run::plan::Evidence::default())).criteria;
        for criterion in scenario::testing::every_criterion(case, Profile::Full).into_iter().chain(nothing) {
            if scenario::is_told(&criterion) {
                told += 1;
                assert!(matches!(criterion.verdict, Verdict::Pass | Verdict::Skipped), "{criterion:?}");
            }
        }
    }
    assert!(told >= 7, "{told}");
}

#[test]
fn the_tables_make_sense() {
    assert!(ALL.iter().map(|proof| proof.case).eq(scenario::every().map(|case| case.name)));
    let mut names = BTreeSet::new();
    for row in rows() {
        let place = format!("{}/{}", row.proof.case, row.planted.name);
        assert!(names.insert(place.clone()), "{place} twice");
        let config = row.config().unwrap_or_else(|error| panic!("{place}: {error}"));
        assert!(row.case().is_ok());
        let expected = row.planted.expected;
        let criteria: BTreeSet<&str> = expected.iter().map(|expected| expected.criterion).collect();
        assert_eq!(criteria.len(), expected.len(), "{place}: a criterion twice");
        match row.planted.wrong {
            Wrong::Nothing => assert!(expected.is_empty(), "{place}"),
            _ => assert!(expected.iter().any(|expected| expected.role == Role::Named), "{place}"),
        }
        if let Wrong::Server(args) = row.planted.wrong {
            let faults = args.iter().filter_map(|arg| arg.strip_prefix("--fault="));
            for fault in faults {
                fault.parse::<ServerFault>().unwrap_or_else(|error| panic!("{place}: {error}"));
            }
        }
        // No limit is touched: a check is proven to fail as it is used.
        let (ours, usual) = (config.limits, HighVolumeConfig::for_profile(Profile::Smoke).limits);
        assert_eq!(ours, usual, "{place}");
    }
}

#[test]
fn names_choose_rows_by_case_and_by_fault() {
    let chosen = |names: &[&str]| {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        selected(&names).map(|rows| rows.len())
    };
    assert_eq!(chosen(&[]), Ok(rows().count()));
    assert_eq!(chosen(&["healthy"]), Ok(ALL.len()));
    assert_eq!(chosen(&["forgets-when-restarted"]), Ok(1));
    assert_eq!(chosen(&["peak"]), Ok(1 + peak::PROOF.faults.iter().map(|group| group.len()).sum::<usize>()));
    assert_eq!(chosen(&["peak", "nothing"]), Err("nothing".to_owned()));
}

const EXPECTED: &[Expected] = &[
    planted::by("lost").measuring("3").naming(&["-0-0-17"]),
    planted::follows("unanswered", "what is lost has no answer"),
    planted::may("latency_p99", "what is lost ranks above all answers"),
];
static PLANTED: Planted = Planted::server("loses-answers", &[]).fails(EXPECTED);
static LATE: Planted = Planted::server("answers-late", &[]).fails(&[planted::by("latency_p99")]);

fn criterion(&(name, measured, verdict): &(&str, &str, Verdict)) -> CriterionOutcome {
    CriterionOutcome {
        name: name.to_owned(),
        limit: "0".to_owned(),
        measured: measured.to_owned(),
        verdict,
        evidence: vec!["ids: r-0-0-17".to_owned()],
    }
}

/// What becomes of a row of these outcomes: criterion, measured, verdict.
fn compared(criteria: &[(&str, &str, Verdict)]) -> (Outcome, Vec<String>) {
    let criteria: Vec<CriterionOutcome> = criteria.iter().map(criterion).collect();
    let row = Row { proof: &ordering::PROOF, planted: &PLANTED };
    let result = compare::judged(row, &criteria, &Doubted::default());
    (result.outcome, result.complaints)
}

#[test]
fn a_row_is_caught_by_exactly_its_criteria_and_counts() {
    use Verdict::{Fail, Inconclusive, Pass};
    let [lost, unanswered, p99] =
        [("lost", "3", Fail), ("unanswered", "3", Fail), ("latency_p99", "none", Fail)];
    let outcome = |criteria: &[_]| compared(criteria).0;
    assert_eq!(outcome(&[lost, unanswered, p99]), Outcome::Caught);
    let quick = ("latency_p99", "1 ms", Pass);
    assert_eq!(outcome(&[lost, unanswered, quick]), Outcome::Caught);
    // What follows may be in doubt, a timing that is planted for leaves the row in doubt, and a count may not be.
    assert_eq!(outcome(&[lost, ("unanswered", "3", Inconclusive), quick]), Outcome::Caught);
    let late = compare::judged(
        Row { proof: &ordering::PROOF, planted: &LATE },
        &[criterion(&("latency_p99", "1 s", Inconclusive))],
        &Doubted::default(),
    );
    assert_eq!(late.outcome, Outcome::Inconclusive);
    let (doubted, complaints) = compared(&[("lost", "3", Inconclusive), unanswered, quick]);
    assert_eq!((doubted, &*complaints[0]), (Outcome::FalseAlarm, "lost should not be in doubt: 3"));
    for (missed, why) in [
        (("lost", "3", Pass), "lost should fail: pass, 3"),
        (("lost", "2", Fail), "lost should measure 3: 2"),
        (("found", "3", Pass), "lost was not judged"),
    ] {
        let (outcome, complaints) = compared(&[missed, unanswered, quick]);
        assert_eq!((outcome, &*complaints[0]), (Outcome::Missed, why));
    }
    assert_eq!(outcome(&[lost, ("unanswered", "0", Pass), quick]), Outcome::Missed);
    let stranger = ("reordered", "1", Fail);
    assert_eq!(outcome(&[lost, unanswered, quick, stranger]), Outcome::FalseAlarm);
    assert_eq!(outcome(&[lost, unanswered, quick, ("reordered", "1", Inconclusive)]), Outcome::FalseAlarm);
    let timing = ("latency_p50", "1 s", Inconclusive);
    assert_eq!(outcome(&[lost, unanswered, quick, timing]), Outcome::Caught);
}

/// The machine's noise is taken out of evidence before it is edited, and what that noise did is still in it.
#[test]
fn what_was_in_doubt_with_nothing_wrong_is_no_false_alarm_and_no_proof() {
    use Verdict::Fail;
    let outcome = |planted, criteria: &[_], doubted: &str| {
        let criteria: Vec<CriterionOutcome> = criteria.iter().map(criterion).collect();
        let row = Row { proof: &ordering::PROOF, planted };
        compare::judged(row, &criteria, &Doubted::from([doubted.to_owned()])).outcome
    };
    let [lost, unanswered] = [("lost", "3", Fail), ("unanswered", "3", Fail)];
    let late = ("latency_p99", "1 s", Fail);
    let stranger = ("latency_p95", "1 s", Fail);
    let quick = ("latency_p99", "1 ms", Verdict::Pass);
    assert_eq!(outcome(&PLANTED, &[lost, unanswered, late, stranger], "latency_p95"), Outcome::Caught);
    assert_eq!(outcome(&PLANTED, &[lost, unanswered, late, stranger], "latency_p50"), Outcome::FalseAlarm);
    assert_eq!(outcome(&LATE, &[late], "latency_p99"), Outcome::Inconclusive);
    assert_eq!(outcome(&LATE, &[late], "latency_p50"), Outcome::Caught);
    // A count says the same in whatever noise.
    assert_eq!(outcome(&PLANTED, &[lost, unanswered, quick], "lost"), Outcome::Caught);
}

#[test]
fn what_did_not_take_place_was_not_missed() {
    use Verdict::{Fail, Inconclusive, Pass};
    let unanswered = ("unanswered", "3", Fail);
    let quick = ("latency_p99", "1 ms", Pass);
    let none = ("lost", "0", Pass);
    let injected = |verdict| ("faults_injected", "0 kills", verdict);
    assert_eq!(compared(&[none, unanswered, quick, injected(Pass)]).0, Outcome::Missed);
    assert_eq!(compared(&[none, unanswered, quick, injected(Inconclusive)]).0, Outcome::Inconclusive);
    // What did fail was struck, and must have been struck as planted.
    let other = ("lost", "2", Fail);
    assert_eq!(compared(&[other, unanswered, quick, injected(Inconclusive)]).0, Outcome::Missed);
}

#[test]
fn a_row_without_a_fault_is_clean_where_nothing_fails() {
    let healthy = |verdict| {
        let criteria = [criterion(&("latency_p99", "1 s", verdict))];
        compare::judged(rows().next().unwrap(), &criteria, &Doubted::default()).outcome
    };
    assert_eq!(healthy(Verdict::Pass), Outcome::Clean);
    assert_eq!(healthy(Verdict::Inconclusive), Outcome::Clean);
    assert_eq!(healthy(Verdict::Fail), Outcome::FalseAlarm);
}

#[test]
fn each_kind_of_fault_of_the_server_meets_every_case_at_home_or_as_a_stranger() {
    let args = |row: &Row| match row.planted.wrong {
        Wrong::Server(args) => Some(args),
        _ => None,
    };
    // By its flag, or its faults, as a reader would name it.
    let kind = |args: &'static [&str]| {
        let faults: Vec<&str> = args.iter().filter_map(|flag| flag.strip_prefix("--fault=")).collect();
        let names = if faults.is_empty() { &args[..1] } else { &faults };
        let names: BTreeSet<&str> = names.iter().map(|name| name.split('=').next().unwrap()).collect();
        names.into_iter().collect::<Vec<_>>().join("+")
    };
    let all: Vec<Row> = rows().collect();
    let strangers: Vec<(String, &str)> = strays(&all)
        .iter()
        .map(|stray| (kind(args(&stray.row).unwrap()), stray.elsewhere.proof.case))
        .collect();
    let at_home: BTreeSet<(String, &str)> =
        all.iter().filter_map(|row| Some((kind(args(row)?), row.proof.case))).collect();
    let kinds: BTreeSet<&str> = at_home.iter().map(|(kind, _)| &**kind).collect();
    assert!(kinds.contains("cut-connections+half-close+silent-connection"), "{kinds:?}");
    assert!(kinds.len() > 25, "{kinds:?}");
    for kind in kinds {
        for case in ALL.map(|proof| proof.case) {
            let met = strangers.iter().filter(|(of, at)| (&**of, *at) == (kind, case)).count();
            // These start their server with a delay, or with places, of their own.
            let taken_back = match kind {
                "--processing-delay" | "growing-delay" => {
                    ["delivery", "backpressure", "recovery"].contains(&case)
                }
                "slow-per-connection" => ["backpressure", "recovery"].contains(&case),
                _ => false,
            };
            assert_eq!(
                met,
                usize::from(!at_home.contains(&(kind.to_owned(), case)) && !taken_back),
                "{kind} in {case}"
            );
        }
    }
    let ordering = selected(&["ordering".to_owned()]).unwrap();
    assert!(strays(&ordering).iter().all(|stray| stray.row.proof.case == "ordering"));
    let healthy: Vec<Row> = all.iter().copied().filter(|row| row.planted.name == "healthy").collect();
    assert!(strays(&healthy).is_empty());
}

#[test]
fn what_is_explained_elsewhere_is_of_a_fault_and_a_criterion_that_there_are() {
    let servers = |row: Row| match row.planted.wrong {
        Wrong::Server(args) => Some(matrix::kinds(args)),
        _ => None,
    };
    let kinds: BTreeSet<&str> = rows().filter_map(servers).flatten().collect();
    let criteria: BTreeSet<&str> = rows()
        .flat_map(|row| row.planted.expected)
        .map(|expected| matrix::family(expected.criterion))
        .collect();
    for (kind, _, families) in matrix::ELSEWHERE {
        assert!(kinds.contains(kind), "{kind}");
        for family in families {
            assert!(criteria.contains(family), "{family}");
        }
    }
}
