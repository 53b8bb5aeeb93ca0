//! What a row led to, against what it should.

use std::collections::BTreeSet;

use super::Row;
use super::planted::{Expected, Role, Wrong};
use crate::result::selftest::{ExpectedResult, Outcome, RowResult};
use crate::result::{CriterionOutcome, Verdict};

/// No machine is so slow that it loses a message, or has one processed twice: these hold or fail, and are never in doubt.
const NEVER_IN_DOUBT: [&str; 7] =
    ["lost", "reordered", "duplicates", "foreign", "corrupted", "processed_twice", "not_processed"];

/// Says whether what a case does to a server took place: where that is in doubt, nothing had a chance to fail.
const INJECTED: &str = "faults_injected";

/// The criteria that were in doubt with nothing wrong, by name: of evidence that is edited afterwards, they say nothing.
pub(super) type Doubted = BTreeSet<String>;

/// Compares the criteria that a row led to with those that it should have.
pub(super) fn judged(row: Row, criteria: &[CriterionOutcome], doubted: &Doubted) -> RowResult {
    let expected = row.planted.expected;
    let (mut missed, mut doubtful) = (Vec::new(), Vec::new());
    let untried = criteria.iter().any(|seen| seen.name == INJECTED && seen.verdict == Verdict::Inconclusive);
    for expected in expected {
        match compared(expected, criteria, doubted) {
            Compared::AsExpected => {}
            Compared::InDoubt(why) => doubtful.push(why),
            // Nothing was done to what should fail.
            Compared::Passed(why) if untried => doubtful.push(why),
            Compared::Passed(why) | Compared::Not(why) => missed.push(why),
        }
    }
    let known = |name: &str| expected.iter().any(|expected| expected.criterion == name);
    let wrong = |criterion: &&CriterionOutcome| match criterion.verdict {
        Verdict::Fail => !known(&criterion.name) && !doubted.contains(&criterion.name),
        Verdict::Inconclusive => is_never_in_doubt(criterion),
        Verdict::Pass | Verdict::Skipped => false,
    };
    let unexpected: Vec<String> = criteria
        .iter()
        .filter(wrong)
        .map(|seen| format!("{} should not {}: {}", seen.name, verb(seen.verdict), seen.measured))
        .collect();
    let outcome = match (missed.is_empty(), unexpected.is_empty(), doubtful.is_empty()) {
        (false, ..) => Outcome::Missed,
        (true, false, _) => Outcome::FalseAlarm,
        (true, true, false) => Outcome::Inconclusive,
        (true, true, true) if expected.is_empty() => Outcome::Clean,
        (true, true, true) => Outcome::Caught,
    };
    let owned = |&(key, value): &(&str, &str)| (key.to_owned(), value.to_owned());
    let not_held =
        |criterion: &&CriterionOutcome| matches!(criterion.verdict, Verdict::Fail | Verdict::Inconclusive);
    RowResult {
        case: row.proof.case.to_owned(),
        name: row.planted.name.to_owned(),
        wrong: match row.planted.wrong {
            Wrong::Server(args) => args.iter().map(|&arg| arg.to_owned()).collect(),
            _ => Vec::new(),
        },
        settings: row.proof.settings.iter().chain(row.planted.settings).map(owned).collect(),
        outcome,
        expected: expected.iter().map(described).collect(),
        seen: criteria.iter().filter(not_held).cloned().collect(),
        complaints: missed.into_iter().chain(unexpected).chain(doubtful).collect(),
        took_s: 0.0,
    }
}

fn is_never_in_doubt(criterion: &CriterionOutcome) -> bool {
    NEVER_IN_DOUBT.contains(&&*criterion.name)
}

fn verb(verdict: Verdict) -> &'static str {
    if verdict == Verdict::Inconclusive { "be in doubt" } else { "fail" }
}

fn described(expected: &Expected) -> ExpectedResult {
    let (role, why) = match expected.role {
        Role::Named => ("named", None),
        Role::Follows(why) => ("follows", Some(why)),
        Role::May(why) => ("may", Some(why)),
    };
    ExpectedResult {
        criterion: expected.criterion.to_owned(),
        measured: expected.measured.map(str::to_owned),
        names: expected.names.iter().map(|&name| name.to_owned()).collect(),
        role: role.to_owned(),
        why: why.map(str::to_owned),
    }
}

/// How one criterion ended, against how it should.
enum Compared {
    AsExpected,
    InDoubt(String),
    /// It did not fail.
    Passed(String),
    /// It was not judged, or failed by something else.
    Not(String),
}

fn compared(expected: &Expected, criteria: &[CriterionOutcome], doubted: &Doubted) -> Compared {
    let name = expected.criterion;
    if expected.role == Role::Named && expected.measured.is_none() && doubted.contains(name) {
        return Compared::InDoubt(format!("{name} is in doubt with nothing wrong, too"));
    }
    let Some(seen) = criteria.iter().find(|criterion| criterion.name == name) else {
        return Compared::Not(format!("{name} was not judged"));
    };
    match (seen.verdict, expected.role) {
        (Verdict::Fail, _) => {}
        (_, Role::May(_)) | (Verdict::Inconclusive, Role::Follows(_)) => return Compared::AsExpected,
        (Verdict::Inconclusive, Role::Named) => {
            let why = seen.evidence.first().map(|why| format!(": {why}")).unwrap_or_default();
            return Compared::InDoubt(format!("{name} is in doubt{why}"));
        }
        (verdict @ (Verdict::Pass | Verdict::Skipped), Role::Named | Role::Follows(_)) => {
            return Compared::Passed(format!("{name} should fail: {}, {}", verdict.as_str(), seen.measured));
        }
    }
    if let Some(measured) = expected.measured.filter(|&measured| measured != seen.measured) {
        return Compared::Not(format!("{name} should measure {measured}: {}", seen.measured));
    }
    let unnamed = expected.names.iter().find(|&&part| !seen.evidence.iter().any(|line| line.contains(part)));
    match unnamed {
        Some(part) => Compared::Not(format!("{name} should name `{part}`: {}", seen.evidence.join("; "))),
        None => Compared::AsExpected,
    }
}
