//! `floodline peak`: the search against servers of known capacity, what is said of it, and how it ends.

use std::path::PathBuf;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::process::{Running, Server, floodline, run, scratch};
use crate::{contract, schema};

/// On a machine that others use, one of so many attempts is judged.
const ATTEMPTS: usize = 4;

/// A search in which neither other processes nor a late generator excuse anything, from a low rate on: the tests that
/// run beside this one take CPU too.
fn settings(name: &str, more: &str) -> PathBuf {
    let path = scratch(name);
    let limits = "[limits]\nforeign_cpu_cores = 64.0\nlateness_ratio = 1.0\n";
    std::fs::write(&path, format!("{limits}[peak]\nstart_rate = 1000\n{more}")).unwrap();
    path
}

fn criterion<'a>(peak: &'a Value, name: &str) -> &'a Value {
    peak["criteria"].as_array().unwrap().iter().find(|criterion| criterion["name"] == name).unwrap()
}

#[test]
fn the_capacity_of_a_server_is_found_and_named_as_the_limit() {
    let server = Server::start(&["--processing-delay", "10ms", "--concurrency", "30"]);
    let config = settings("peak.toml", "");
    let out = tempfile::tempdir().unwrap();
    let pid = server.running.pid().to_string();
    let args = ["peak", "--target", &server.url, "--pid", &pid, "--profile", "smoke", "--json", "-"];
    let more = ["--config", config.to_str().unwrap(), "--out", out.path().to_str().unwrap()];
    // A generator that others kept from its work for longer than a backlog may last is right to be in doubt, and is asked again.
    let search = |_| run(args.into_iter().chain(more));
    let finished = (0..ATTEMPTS).map(search).find(|finished| finished.code != Some(3));
    let finished = finished.expect("the machine was never quiet enough for a verdict").expect(1);
    let peak = finished.json();
    assert_eq!((&peak["schema"], &peak["verdict"]), (&"floodline.peak/1".into(), &"fail".into()));
    schema::validates("peak", &peak);
    // It can do 30 ÷ 10 ms; a machine with other work lets it do somewhat less.
    let rate = peak["peak"]["achieved_rate"].as_f64().unwrap();
    assert!((2_500.0..=3_100.0).contains(&rate), "{rate}");
    assert!(peak["peak"]["not_held_rate"].as_f64().unwrap() > rate, "{}", peak["peak"]);
    assert_eq!(
        (&peak["peak"]["repeats"], &peak["peak"]["interval"]["confidence"]),
        (&3.into(), &0.75.into())
    );
    assert_eq!(peak["limiting_side"], "server");
    assert_eq!(criterion(&peak, "peak_rate")["verdict"], "fail");
    let failed = peak["criteria"].as_array().unwrap().iter().filter(|c| c["verdict"] == "fail").count();
    assert_eq!(failed, 1, "{}", peak["criteria"]);
    assert_eq!(peak["burst"]["answered"], 10_000);

    let tries = peak["tries"].as_array().unwrap();
    let confirmed = tries.iter().filter(|tried| tried["rate"] == peak["peak"]["rate"]);
    assert_eq!(confirmed.filter(|tried| tried["verdict"] == "pass").count(), 3);
    for (tried, run) in tries.iter().zip(peak["runs"].as_array().unwrap()) {
        assert_eq!(tried["phase"], run["phase"]);
        assert_eq!(tried["achieved_rate"], run["run"]["achieved_rate"]);
        assert!(tried["server_cores"].is_number() && tried["client_cores"].is_number(), "{tried}");
        assert_eq!(tried["verdict"] == "pass", tried["reasons"].as_array().unwrap().is_empty(), "{tried}");
        contract::check(&run["run"]);
        let name = format!("peak.{}.json", run["phase"].as_str().unwrap());
        assert!(out.path().join(&name).is_file(), "{name}");
    }
    let file: Value =
        serde_json::from_str(&std::fs::read_to_string(out.path().join("peak.json")).unwrap()).unwrap();
    assert_eq!((&file["tries"], &file["runs"]), (&peak["tries"], &Value::Array(Vec::new())));
    finished.says(&["search-01-1000", "not held, server", "limited by the server", "FAIL: peak 2,"]);
}

#[test]
fn the_own_server_holds_up_to_a_ceiling() {
    let mut command = floodline(["peak", "--profile", "smoke", "--json", "-"]);
    let short = [("PEAK_CEILING_RATE", "2000"), ("PEAK_START_RATE", "1000"), ("LIMITS_PEAK_RATE", "2000")];
    command.envs(short.map(|(name, value)| (format!("FLOODLINE_{name}"), value)));
    let finished = Running::start(command).wait();
    // A machine with other work may keep even this rate from holding; that is no fault of the server.
    assert!(matches!(finished.code, Some(0 | 3)), "{finished:?}");
    let peak = finished.json();
    if finished.code == Some(0) {
        assert_eq!((&peak["limiting_side"], &peak["peak"]["rate"]), (&"ceiling".into(), &2_000.0.into()));
        assert!(peak["peak"]["not_held_rate"].is_null());
    }
    assert_eq!(peak["burst"]["due"], 10_000);
    assert_eq!(criterion(&peak, "burst_unanswered")["verdict"], "pass");
}

#[test]
fn a_burst_that_is_not_answered_fails_by_that_criterion() {
    // About ten of the burst's answers.
    let server = Server::start(&["--fault", "drop-answers=0.001,seed=7"]);
    let config = settings("burst.toml", "ceiling_rate = 1000\nconfirm = \"300ms\"\n");
    let mut command = floodline(["peak", "--target", &server.url, "--profile", "smoke", "--json", "-"]);
    command.arg("--config").arg(config).env("FLOODLINE_LOAD_ANSWER_TIMEOUT", "1s");
    command.env("FLOODLINE_LIMITS_PEAK_RATE", "1000");
    let peak = Running::start(command).wait().expect(1).json();
    let unanswered = criterion(&peak, "burst_unanswered");
    assert_eq!(unanswered["verdict"], "fail", "{unanswered}");
    let lost = peak["burst"]["lost"].as_u64().unwrap();
    assert!(lost > 0 && peak["burst"]["unsent"] == 0, "{}", peak["burst"]);
    assert_eq!(unanswered["measured"], lost.to_string());
}

#[test]
fn what_cannot_be_searched_or_reached_is_said() {
    let config = scratch("above.toml");
    std::fs::write(&config, "[peak]\nstart_rate = 2000000\n").unwrap();
    run(["peak", "--config", config.to_str().unwrap()]).expect(2).says(&["peak.start_rate"]);
    run(["peak", "--profile", "huge"]).expect(2).says(&["--profile", "huge"]);
    run(["peak", "--target", "ws://127.0.0.1:1/"]).expect(4).says(&["phase search-01", "127.0.0.1:1"]);
}

#[test]
fn ctrl_c_ends_a_search_with_what_was_measured() {
    let server = Server::start(&[]);
    let running =
        Running::start(floodline(["peak", "--target", &server.url, "--profile", "full", "--json", "-"]));
    // The signal is heard from before the first load, so it may come at any moment; a second is within the first.
    std::thread::sleep(std::time::Duration::from_secs(1));
    running.signal(Signal::SIGINT);
    let finished = running.wait().expect(130);
    let peak = finished.json();
    assert_eq!(
        (&peak["interrupted"], &peak["peak"], &peak["limiting_side"]),
        (&true.into(), &Value::Null, &Value::Null)
    );
    assert_eq!(criterion(&peak, "peak_rate")["verdict"], "skipped");
    assert!(
        peak["tries"].as_array().unwrap().iter().all(|tried| tried["verdict"] == "skipped"),
        "{}",
        peak["tries"]
    );
    assert!(peak["burst"].is_null());
    finished.says(&["ended before a peak was confirmed"]);
}
