//! The self-test by the binary: one case of it here, all of it in `.ci/run`.

#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "cli/process.rs"]
#[allow(dead_code, reason = "the tests of the command line use the rest")]
mod process;

use serde_json::Value;

use crate::process::{floodline, run};

/// `ordering`, because its criteria are counts: no other work on the machine puts them in doubt.
#[test]
fn each_fault_of_ordering_is_caught_by_its_criterion_and_count() {
    let finished = run(["selftest", "ordering", "--json", "-"]).expect(0);
    let selftest = finished.json();
    assert_eq!((&selftest["schema"], &selftest["verdict"]), (&"floodline.selftest/1".into(), &"pass".into()));
    let rows = selftest["rows"].as_array().unwrap();
    assert_eq!((&rows[0]["name"], &rows[0]["outcome"]), (&"healthy".into(), &"clean".into()));
    let (clean, caught): (Vec<&Value>, Vec<&Value>) = rows.iter().partition(|row| row["outcome"] == "clean");
    assert_eq!(clean.len(), 1, "{selftest:#}");
    assert!(caught.len() > 8 && caught.iter().all(|row| row["outcome"] == "caught"), "{selftest:#}");
    let swapped = rows.iter().find(|row| row["name"] == "swaps-answers").unwrap();
    let seen = &swapped["seen"][0];
    assert_eq!(
        (&seen["name"], &seen["measured"], &seen["verdict"]),
        (&"reordered".into(), &"3".into(), &"fail".into())
    );
    // The table, on standard error because the JSON has standard output.
    finished.says(&["fault", "expected", "seen", "outcome", "swaps-answers", "reordered: 3", "PASS"]);
}

/// The full matrix: `cargo test --test selftest -- --ignored`.
#[test]
#[ignore = "half an hour, and the whole machine"]
fn no_fault_fails_in_another_case_what_it_does_not_explain() {
    let finished = floodline(["selftest", "--matrix"]).output().unwrap();
    assert!(finished.status.success(), "{}", String::from_utf8_lossy(&finished.stderr));
}

#[test]
fn an_unknown_name_is_answered_with_all_that_there_are() {
    run(["selftest", "nothing"]).expect(2).says(&[
        "`nothing`",
        "ordering",
        "healthy",
        "forgets-when-restarted",
    ]);
}
