//! `floodline test`: whole cases at their smallest size, and what is said of them.

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::process::{Running, Server, floodline, floodline_with_files, run};
use crate::servers::TestServer;

/// The criteria of one case, by name, with their verdicts.
fn verdicts(case: &Value) -> Vec<(String, String)> {
    let criteria = case["criteria"].as_array().unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    criteria.iter().map(|criterion| (text(&criterion["name"]), text(&criterion["verdict"]))).collect()
}

#[test]
fn all_nine_cases_are_listed_in_the_order_in_which_they_run() {
    let listed = run(["list"]).expect(0).stdout;
    let names = [
        "rate_scaling",
        "ordering",
        "delivery",
        "backpressure",
        "latency",
        "connection_scaling",
        "memory",
        "recovery",
        "peak",
    ];
    let places: Vec<usize> = names.iter().map(|name| listed.find(name).expect(name)).collect();
    assert!(places.is_sorted(), "{listed}");
}

#[test]
fn a_server_that_drops_answers_fails_ordering_by_the_criterion_for_it() {
    let server = Server::start(&["--fault", "drop-answers=0.02,seed=7"]);
    let mut command =
        floodline(["test", "ordering", "--profile", "smoke", "--target", &server.url, "--json", "-"]);
    command.env("FLOODLINE_LOAD_ANSWER_TIMEOUT", "1s");
    let finished = Running::start(command).wait().expect(1);
    let test = finished.json();
    let failed: Vec<String> = verdicts(&test["cases"][0])
        .into_iter()
        .filter(|(_, verdict)| verdict == "fail")
        .map(|(name, _)| name)
        .collect();
    assert_eq!(failed, ["lost", "unanswered"]);
    let lost = test["cases"][0]["criteria"].as_array().unwrap().iter().find(|c| c["name"] == "lost").unwrap();
    assert!(lost["evidence"][0].as_str().unwrap().contains("ids: "), "{lost}");
}

/// The case `memory` at its smallest against an echo server: its criteria by their verdicts. Statistics are what this is
/// about: little load, so that the simplest of servers follows it.
fn memory_of(server: &TestServer) -> (Value, Vec<String>) {
    let args = ["test", "memory", "--profile", "smoke", "--target", &server.url, "--dialect", "echo"];
    let mut command = floodline(args.into_iter().chain(["--json", "-"]));
    command.envs([("FLOODLINE_MEMORY_RATE", "200"), ("FLOODLINE_MEMORY_CONNECTIONS", "4")]);
    // A second of filling at that rate, where the profile's number would take 50.
    command.env("FLOODLINE_MEMORY_FILL_MESSAGES", "200");
    let test = Running::start(command).wait().expect(0).json();
    let skipped = verdicts(&test["cases"][0]).into_iter().filter(|(_, verdict)| verdict == "skipped");
    (test.clone(), skipped.map(|(name, _)| name).collect())
}

/// The evidence of one criterion of the only case, its first line.
fn evidence<'a>(test: &'a Value, name: &str) -> &'a str {
    let criteria = test["cases"][0]["criteria"].as_array().unwrap();
    let criterion = criteria.iter().find(|criterion| criterion["name"] == name).unwrap();
    criterion["evidence"][0].as_str().unwrap_or_default()
}

const ON_STATISTICS: [&str; 6] =
    ["statistics", "client_given_back", "client_leak", "server_growth", "server_given_back", "server_leak"];

#[test]
fn a_target_that_tells_no_statistics_has_what_rests_on_them_skipped() {
    let (test, skipped) = memory_of(&TestServer::echo());
    assert_eq!(test["verdict"], "pass");
    assert_eq!(skipped, [&ON_STATISTICS[..], &["server_resident"]].concat());
    assert!(evidence(&test, "server_leak").contains("get_performance_stats"), "{test}");
}

#[test]
fn a_target_whose_statistics_end_in_the_middle_of_the_load_is_not_judged_by_the_first_part() {
    let (test, skipped) = memory_of(&TestServer::echo_with_statistics(3));
    assert_eq!(test["verdict"], "pass");
    assert_eq!(skipped, ON_STATISTICS);
    assert!(evidence(&test, "server_leak").starts_with("in `load`: "), "{test}");
}

#[test]
fn what_was_found_is_told_where_a_later_case_cannot_be_run() {
    let out = tempfile::tempdir().unwrap();
    let dir = out.path().to_str().unwrap();
    let cases = ["ordering", "connection_scaling"];
    let args = [&["test"], &cases[..], &["--profile", "smoke", "--out", dir, "--json", "-"]].concat();
    // Files enough for a server of 1,100 connections, as the first case starts it, but not for one of 250,000.
    let mut command = floodline_with_files(2_000, &args);
    command.envs([("FLOODLINE_CONNECTIONS", "250,250000"), ("FLOODLINE_GUARD_MAX_CONNECTIONS", "250000")]);
    // 100 msg/s on each of them.
    command.env("FLOODLINE_GUARD_MAX_RATE", "25000000");
    let finished = Running::start(command).wait().expect(4).says(&["connection_scaling"]);
    let test = finished.json();
    let names: Vec<&Value> = test["cases"].as_array().unwrap().iter().map(|case| &case["name"]).collect();
    assert_eq!(names, ["ordering"]);
    assert_eq!((&test["cases"][0]["verdict"], &test["verdict"]), (&"pass".into(), &"inconclusive".into()));
    assert!(test["error"].as_str().unwrap().starts_with("connection_scaling: "), "{}", test["error"]);
    let whole = std::fs::read_to_string(out.path().join("test.json")).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&whole).unwrap(), test);
}

#[test]
fn an_unknown_case_is_refused_with_those_that_there_are() {
    run(["test", "orderin"]).expect(2).says(&["`orderin`", "rate_scaling", "ordering", "memory"]);
    run(["test", "--profile", "huge"]).expect(2).says(&["--profile", "huge"]);
}

#[test]
fn ctrl_c_ends_a_test_with_what_was_found() {
    let running = Running::start(floodline(["test", "latency", "--profile", "full", "--json", "-"]));
    // The signal is heard from before the server starts, so it may come at any moment.
    std::thread::sleep(std::time::Duration::from_secs(1));
    running.signal(Signal::SIGINT);
    let finished = running.wait().expect(130);
    assert_eq!(finished.json()["interrupted"], true);
}
