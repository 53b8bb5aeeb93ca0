//! Ctrl-C: what was measured is told, and a second one ends at once.

use std::time::Duration;

use nix::sys::signal::Signal;

use crate::contract::{self, count};
use crate::process::{Running, floodline};
use crate::servers::TestServer;

fn endless(target: &str, more: &[&str]) -> Running {
    let args = ["load", "--target", target, "--dialect", "echo", "--rate", "200", "--connections", "4"];
    let more = ["--duration", "1h", "--json", "-"].iter().chain(more);
    Running::start(floodline(args.iter().chain(more)))
}

/// Presses Ctrl-C until it ends: two that come together are one to the system.
fn press_until_it_ends(load: &mut Running) {
    while !load.has_ended() {
        load.signal(Signal::SIGINT);
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn one_ends_the_load_and_reports_what_was_measured() {
    let server = TestServer::echo();
    let load = endless(&server.url, &[]);
    server.await_messages(100);
    load.signal(Signal::SIGINT);
    let finished = load.wait().expect(130).says(&["ended early"]);
    let run = finished.json();
    contract::check(&run);
    assert_eq!(run["interrupted"], true);
    assert!(count(&run, "answered") >= 100);
    assert_eq!(count(&run, "answered"), count(&run, "due"), "what was not yet due is not owed");
    // Against the time that it really took, not the hour that was planned.
    assert!(run["achieved_rate"].as_f64().unwrap() > 20.0, "{}", run["achieved_rate"]);
}

#[test]
fn in_the_rise_of_a_ramp_all_is_counted_and_no_rate_is_told() {
    let server = TestServer::echo();
    let load = endless(&server.url, &["--ramp", "20s"]);
    server.await_messages(20);
    load.signal(Signal::SIGINT);
    let run = load.wait().expect(130).says(&["ended while the rate still rose"]).json();
    contract::check(&run);
    assert!(run["offered_rate"].is_null() && run["latency_us"]["p50"].is_null(), "{run}");
    assert!(count(&run, "answered") >= 20);
    for name in ["due", "untimed_due", "untimed_answered"] {
        assert_eq!(count(&run, name), count(&run, "answered"), "{name}");
    }
}

#[test]
fn two_end_it_at_once_though_answers_are_awaited() {
    let server = TestServer::silent();
    let mut load = endless(&server.url, &["--answer-timeout", "1h"]);
    server.await_messages(20);
    press_until_it_ends(&mut load);
    let run = load.wait().expect(130).json();
    contract::check(&run);
    assert_eq!(run["interrupted"], true);
    assert_eq!(count(&run, "answered"), 0);
    assert!(count(&run, "lost") >= 20, "{}", run["messages"]);
}

#[test]
fn before_the_load_there_is_nothing_to_report() {
    // While the connections are being opened …
    let server = TestServer::mute();
    let mut load = endless(&server.url, &["--connect-timeout", "1h"]);
    server.await_connections(4);
    press_until_it_ends(&mut load);
    assert_eq!(load.wait().expect(130).stdout, "");
    // … and while the start of all shards is awaited.
    let server = TestServer::echo();
    let mut load = endless(&server.url, &["--start-at", "2199-01-01T00:00:00Z"]);
    server.await_connections(4);
    press_until_it_ends(&mut load);
    let finished = load.wait().expect(130);
    assert!(finished.stdout.is_empty() || count(&finished.json(), "due") == 0, "{finished:?}");
}
