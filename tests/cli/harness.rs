//! `floodline::harness`: a server that is started by a command, under the cases and under Criterion, as in a repository of
//! somebody else's.

use std::net::TcpStream;
use std::process::{Command, ExitCode};

use floodline::dialect::DialectKind;
use floodline::harness::{Harness, HarnessError};
use floodline::result::{CaseResults, Verdict};

use crate::process::{Running, floodline, free_port};
use crate::servers::TestServer;

/// Set for the process that is a bench, to the server's fault, if any.
const BENCHED: &str = "HARNESS_BENCHED";

/// Our mock server in the place of somebody else's, on a port of its own, with these flags; and its address.
fn server(flags: &[&str]) -> (Harness, String) {
    let address = format!("127.0.0.1:{}", free_port());
    let args: Vec<String> =
        ["serve", "--listen", &address].iter().chain(flags).map(ToString::to_string).collect();
    (Harness::command(format!("ws://{address}/ws"), move || floodline(&args)), address)
}

fn verdict(found: &CaseResults, name: &str) -> Verdict {
    let criterion = found.criteria.iter().find(|criterion| criterion.name == name);
    criterion.unwrap_or_else(|| panic!("no {name} in {:?}", found.criteria)).verdict
}

#[test]
fn a_server_that_a_command_starts_is_measured_killed_and_started_again() {
    let (harness, address) = server(&[]);
    let short = [("delivery.messages", "100"), ("delivery.kill_period", "1s"), ("delivery.kills", "1")];
    let harness = short.into_iter().fold(harness, |harness, (key, value)| harness.set(key, value));
    let found = harness.check("delivery");
    let kills = found.incidents.iter().filter(|incident| incident.what.contains("server killed")).count();
    assert_eq!((kills, verdict(&found, "lost")), (1, Verdict::Pass), "{:?}", found.incidents);
    // Only our own server keeps a journal, and this one is not known to be it.
    assert_eq!(verdict(&found, "processed_twice"), Verdict::Skipped);
    for run in &found.runs {
        assert!(run.run.resources.server.is_some(), "{}", run.phase);
    }
    // It does not outlive its case, nor does the one after the kill.
    assert!(TcpStream::connect(&address).is_err());
}

#[test]
fn a_server_that_fails_a_case_fails_the_test_with_its_table() {
    let (harness, address) = server(&["--fault", "drop-answers=0.2,seed=1"]);
    let short = [
        ("ordering.messages", "50"),
        ("ordering.messages_per_connection", "5"),
        ("load.answer_timeout", "500ms"),
    ];
    let harness = short.into_iter().fold(harness, |harness, (key, value)| harness.set(key, value));
    let failed = std::thread::spawn(move || harness.check("ordering")).join().unwrap_err();
    let table = failed.downcast_ref::<String>().unwrap();
    assert!(table.contains("ordering: FAIL") && table.contains("lost"), "{table}");
    assert!(TcpStream::connect(&address).is_err());
}

#[test]
fn a_command_that_starts_no_server_and_settings_without_sense_are_named() {
    let error = |harness: &Harness, case: &str| harness.run(case).unwrap_err();
    let nobody = Harness::command(format!("ws://127.0.0.1:{}/", free_port()), || Command::new("false"));
    let ended = error(&nobody, "ordering");
    assert!(
        matches!(ended, HarnessError::Start(_)) && ended.to_string().contains("exit status: 1"),
        "{ended}"
    );
    let unknown = error(&nobody, "ordnung").to_string();
    assert!(unknown.contains("`ordnung`") && unknown.contains("ordering"), "{unknown}");
    let stranger = error(&Harness::command("ws://192.0.2.1:9/", || panic!("it was started")), "ordering");
    assert!(matches!(stranger, HarnessError::Connect(_)), "{stranger}");
    let beyond = error(&nobody.clone().set("guard.max_connections", "9"), "ordering").to_string();
    assert!(beyond.contains("10 connections") && beyond.contains("guard.max_connections"), "{beyond}");
    let dialect = error(&nobody.clone().set("dialect.password_env", "NO_SUCH"), "ordering").to_string();
    assert!(dialect.contains("dialect.password_env") && dialect.contains("NO_SUCH"), "{dialect}");
}

#[test]
fn a_dialect_is_told_what_the_settings_say() {
    let server = TestServer::echo();
    let settings = [
        ("dialect.json.request", r#"{"ask":"{id}","text":"{payload}"}"#),
        ("dialect.json.id", "/ask"),
        ("dialect.json.content", "/text"),
        ("ordering.messages", "50"),
        ("ordering.messages_per_connection", "5"),
    ];
    let harness = Harness::at(&server.url).dialect(DialectKind::Json);
    let harness = settings.into_iter().fold(harness, |harness, (key, value)| harness.set(key, value));
    assert_eq!(verdict(&harness.check("ordering"), "unanswered"), Verdict::Pass);
}

/// What `cargo bench` would start. Only as a process of its own, whose command line is both Criterion's and that of the test
/// harness, which takes the same word as a filter.
#[test]
fn benched() {
    let Some(fault) = std::env::var_os(BENCHED) else { return };
    let fault = fault.into_string().unwrap();
    let flags = if fault.is_empty() { vec![] } else { vec!["--fault", &*fault] };
    let small = [
        ("rates", "100,200"),
        ("connections", "2,4"),
        ("connection_scaling.limits.p95_at_connections", "4"),
        ("ordering.messages", "100"),
        ("ordering.messages_per_connection", "10"),
        ("load.answer_timeout", "1s"),
    ];
    let (harness, _) = server(&flags);
    let harness = small.into_iter().fold(harness, |harness, (key, value)| harness.set(key, value));
    let expected = if fault.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    assert_eq!(harness.bench("benched"), expected);
}

#[test]
fn a_server_is_a_criterion_bench_with_a_group_for_each_case_that_holds() {
    let bench = |fault: &str| {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--test", "--nocapture", "benched"]).env(BENCHED, fault);
        command.current_dir(env!("CARGO_TARGET_TMPDIR"));
        Running::start(command)
    };
    let (good, bad) = (bench(""), bench("drop-answers=0.5,seed=1"));
    let good = good.wait().expect(0);
    for id in [
        "drain/ordering/unpaced",
        "latency_p50/rate_scaling/100",
        "service_latency_p50/rate_scaling/200",
        // The process is known, as that of a server elsewhere is not.
        "server_cpu_per_message/rate_scaling/200",
        "latency_p50/connection_scaling/4",
    ] {
        assert!(good.stdout.contains(&format!("Testing benched/{id}\nSuccess")), "{id}: {good:#?}");
    }
    assert!(!good.stderr.contains("NOT MEASURED"), "{}", good.stderr);
    let bad = bad.wait().expect(0).says(&[
        "benched/ordering: NOT MEASURED",
        "benched/rate_scaling: NOT MEASURED",
        "benched/connection_scaling: NOT MEASURED",
        "3 of the cells did not hold",
    ]);
    assert!(!bad.stdout.contains("Testing benched/"), "{}", bad.stdout);
}
