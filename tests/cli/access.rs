//! Whom a load may go to, how far it may go, and what its handshake carries.

use std::path::PathBuf;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::process::{Finished, Running, Server, floodline, run, scratch};
use crate::servers::TestServer;

/// Not in any text that a test expects, nor in any id.
const TOKEN: &str = "tOkEn-5f2c91";

/// Nobody's address (RFC 5737): whatever is refused, is refused before a packet goes there.
const STRANGER: &str = "ws://192.0.2.1:9/";

/// Runs it, which must be refused with 2 at once, naming all of `parts`.
#[track_caller]
fn refused(args: &[&str], parts: &[&str]) -> Finished {
    let finished = run(args).expect(2).says(parts);
    // A connection to nobody's address would be waited for.
    assert!(finished.took < Duration::from_secs(8), "{:?}", finished.took);
    finished
}

#[test]
fn a_host_that_is_not_this_machine_is_not_loaded_unless_it_was_permitted() {
    let why = ["192.0.2.1", "not this machine", "--i-may-load 192.0.2.1", "target.i_may_load"];
    refused(&["load", "--target", STRANGER], &[&why[..], &["--target"]].concat());
    for case in ["ordering", "delivery", "backpressure", "memory"] {
        refused(&["test", case, "--profile", "smoke", "--target", STRANGER], &why);
    }
    refused(&["peak", "--profile", "smoke", "--target", STRANGER], &why);
    // Another host's permission is none.
    refused(&["load", "--target", STRANGER, "--i-may-load", "example.org"], &why);
    // A name of this machine needs none.
    let server = TestServer::echo();
    let target = server.url.replace("127.0.0.1", "localhost");
    let load = ["load", "--target", &target, "--dialect", "echo", "--rate", "100", "--connections", "2"];
    run(load.into_iter().chain(["--duration", "200ms"])).expect(0);
}

#[test]
fn what_goes_beyond_the_guard_is_refused_with_the_flag_and_the_value() {
    for (args, parts) in [
        (&["load", "--rate", "100", "--max-rate", "50"][..], ["100 msg/s", "--max-rate 50 msg/s"]),
        (&["load", "--rate", "1e9"], ["1,000,000,000 msg/s", "--max-rate 1,000,000 msg/s"]),
        (&["load", "--connections", "4000000000"], ["4000000000 connections", "--max-connections 10000"]),
        (&["load", "--rate", "max", "--max-rate", "50"], ["closed loop", "--max-rate"]),
        (&["load", "--connections", "5", "--max-connections", "4"], ["5 connections", "--max-connections 4"]),
        (&["load", "--duration", "3s", "--time-limit", "2s"], ["3.00 s", "--time-limit 2.00 s"]),
        (&["load", "--duration", "3h"], ["--time-limit", "guard.time_limit"]),
        (&["load", "--time-limit", "0"], ["--time-limit", "0"]),
        (&["load", "--max-connections", "0"], ["--max-connections", "0"]),
        (&["test", "rate_scaling", "--max-rate", "9999"], ["rate_scaling", "--max-rate 9,999 msg/s"]),
        (&["test", "backpressure", "--max-connections", "109"], ["110 connections", "--max-connections 109"]),
        (&["test", "latency", "--time-limit", "20s"], ["this test", "--time-limit 20.0 s"]),
        (&["test", "peak", "--max-rate", "5000"], ["limits.peak_rate", "--max-rate"]),
        (&["peak", "--max-rate", "5000"], ["limits.peak_rate", "--max-rate"]),
        (&["peak", "--max-connections", "9"], ["100 connections", "--max-connections 9"]),
        (&["peak", "--time-limit", "1s"], ["peak", "--time-limit 1.00 s"]),
        (&["test", "peak", "--time-limit", "1s"], ["peak", "--time-limit 1.00 s"]),
    ] {
        refused(args, &parts);
    }
}

#[test]
fn a_run_that_takes_longer_than_it_may_is_ended() {
    // It completes no handshake, so the load never begins.
    let mute = TestServer::mute();
    let args = ["load", "--target", &mute.url, "--duration", "500ms", "--time-limit", "1s"];
    let finished = run(args).expect(3).says(&["--time-limit 1.00 s", "was ended"]);
    assert!(finished.took < Duration::from_secs(9), "{:?}", finished.took);
}

/// Starts it with a limit of a second, which its plan is within, and these settings.
fn limited(args: &[&str], settings: &[(&str, &str)]) -> Running {
    let mut command =
        floodline(args.iter().chain(&["--profile", "smoke", "--time-limit", "1s", "--json", "-"]));
    command.envs(settings.iter().map(|(name, value)| (format!("FLOODLINE_{name}"), value)));
    Running::start(command)
}

/// It is ended, and says why; what it wrote as JSON, if anything.
#[track_caller]
fn ended(running: Running) -> Finished {
    let finished = running.wait().expect(3).says(&["--time-limit 1.00 s", "was ended"]);
    // No handshake and no answer is waited for as long as it might be.
    assert!(finished.took < Duration::from_secs(9), "{:?}", finished.took);
    finished
}

#[test]
fn a_test_that_takes_longer_than_it_may_is_ended() {
    // It completes no handshake; it answers nothing; the second case is not begun.
    let (mute, silent) = (TestServer::mute(), TestServer::silent());
    let few = [("ORDERING_MESSAGES", "20"), ("ORDERING_MESSAGES_PER_CONNECTION", "5")];
    let settings = [&few[..], &[("LOAD_ANSWER_TIMEOUT", "3s")]].concat();
    let running = [&mute.url, &silent.url]
        .map(|url| limited(&["test", "ordering", "ordering", "--target", url], &settings));
    for test in running.map(ended) {
        let test = test.json();
        assert_eq!((&test["verdict"], &test["interrupted"]), (&"inconclusive".into(), &true.into()));
        assert!(test["error"].as_str().unwrap().contains("--time-limit"), "{test}");
        assert_eq!(test["cases"], serde_json::json!([]));
    }
    assert_eq!(silent.connections(), 1);
}

#[test]
fn a_search_that_takes_longer_than_it_may_is_ended() {
    let mute = TestServer::mute();
    let short = [("PEAK_CONFIRM", "100ms"), ("LOAD_RAMP", "0s")];
    let unreached = limited(&["peak", "--target", &mute.url], &short);
    let under_way = ended(limited(&["peak"], &short));
    // On a machine that takes a second to open a hundred connections there is nothing to report.
    if !under_way.stdout.is_empty() {
        let peak = under_way.json();
        assert_eq!((&peak["interrupted"], &peak["burst"]), (&true.into(), &serde_json::Value::Null));
    }
    ended(unreached);
}

#[test]
fn an_absurd_rate_that_is_allowed_ends_with_its_load() {
    let args = ["load", "--rate", "1e9", "--max-rate", "1e9", "--connections", "2", "--duration", "200ms"];
    let finished = run(args.into_iter().chain(["--answer-timeout", "5s", "--json", "-"]));
    assert!(matches!(finished.code, Some(1 | 3)), "{finished:?}");
    let messages = &finished.json()["messages"];
    let of = |name: &str| messages[name].as_u64().unwrap();
    assert_eq!((of("due"), of("sent") + of("unsent")), (200_000_000, 200_000_000), "{messages}");
}

/// A short load with these flags, as JSON.
fn load(server: &Server, more: &[&str]) -> Running {
    let args = ["load", "--target", &server.url, "--rate", "200", "--connections", "4", "--json", "-"];
    Running::start(floodline(args.iter().chain(&["--duration", "300ms"]).chain(more)))
}

#[test]
fn the_tokens_of_a_file_are_dealt_to_the_connections_in_turn() {
    let (known, ours) = (scratch("known-tokens"), scratch("our-tokens"));
    std::fs::write(&known, format!("{TOKEN}-a alice\n{TOKEN}-b bob\n")).unwrap();
    let server = Server::start(&["--tokens", known.to_str().unwrap()]);
    let with = |tokens: &str| {
        std::fs::write(&ours, tokens).unwrap();
        load(&server, &["--token-file", ours.to_str().unwrap()]).wait()
    };
    let all = with(&format!("{TOKEN}-a\n{TOKEN}-b\n")).expect(0);
    assert_eq!(all.json()["connections"]["established"], 4);
    // Every other connection comes with one that nobody knows.
    let half = with(&format!("{TOKEN}-a\n{TOKEN}-c\n")).expect(1);
    assert_eq!(half.json()["connections"]["established"], 2);
    assert_eq!(half.json()["connections"]["reasons"]["the handshake was refused: HTTP 401"], 2);
    let none = with(&format!("{TOKEN}-c\n")).expect(4).says(&["401"]);
    let mut config = floodline(["config"]);
    config.env("FLOODLINE_TARGET_TOKEN_FILE", &ours);
    let config = Running::start(config).wait().expect(0);
    assert!(config.stdout.contains("token_file"));
    for text in [&all, &half, &none, &config] {
        assert!(!text.stdout.contains(TOKEN) && !text.stderr.contains(TOKEN), "{text:?}");
    }
    // The command line is seen by everybody.
    let header = format!("Authorization: Bearer {TOKEN}");
    let refused = load(&server, &["--header", &header]).wait().expect(2).says(&["--header Authorization"]);
    assert!(!refused.stderr.contains(TOKEN));
    std::fs::write(&ours, "\n").unwrap();
    load(&server, &["--token-file", ours.to_str().unwrap()])
        .wait()
        .expect(2)
        .says(&["--token-file", "no token"]);
}

#[test]
fn the_own_server_takes_the_tokens_of_the_file_too() {
    let tokens = scratch("own-tokens");
    std::fs::write(&tokens, format!("{TOKEN}-a\n{TOKEN}-b\n")).unwrap();
    let args = ["load", "--token-file", tokens.to_str().unwrap(), "--rate", "200", "--connections", "4"];
    run(args.into_iter().chain(["--duration", "300ms"])).expect(0);
}

#[test]
fn a_token_that_expires_ends_its_connections_and_they_are_named() {
    let known = scratch("expiring-tokens");
    std::fs::write(&known, format!("{TOKEN} alice 400ms\n")).unwrap();
    let server = Server::start(&["--tokens", known.to_str().unwrap()]);
    let ours = scratch("expiring-token");
    std::fs::write(&ours, TOKEN).unwrap();
    let path = ours.to_str().unwrap();
    let args = ["load", "--target", &server.url, "--rate", "200", "--connections", "4", "--json", "-"];
    let args = [&args[..], &["--token-file", path, "--duration", "1500ms"]].concat();
    let run = run(args).expect(1).json();
    assert_eq!(run["connections"]["dropped"], 4, "{run}");
    assert_eq!(run["connections"]["reasons"]["closed by the server: 1008 The token has expired"], 4);
    let messages = &run["messages"];
    let of = |name: &str| messages[name].as_u64().unwrap();
    assert!(of("answered") > 0 && of("unsent") > 0, "{messages}");
    assert_eq!(of("due"), of("sent") + of("unsent"));
}

#[test]
fn a_subprotocol_is_agreed_on_or_the_handshake_is_off() {
    let server = Server::start(&["--subprotocol", "chat.v2"]);
    load(&server, &["--subprotocol", "chat.v3", "--subprotocol", "chat.v2"]).wait().expect(0);
    load(&server, &["--subprotocol", "chat.v1"]).wait().expect(4).says(&["not a WebSocket server"]);
    load(&server, &["--header", "X-Team: blue", "--query", "room=7", "--host", "inner"]).wait().expect(0);
    load(&server, &["--query", "room"]).wait().expect(2).says(&["--query room"]);
    load(&server, &["--token-in", "cookie"]).wait().expect(2).says(&["--token-in", "cookie"]);
}

#[test]
fn those_without_a_good_token_are_kept_out_at_full_load() {
    let args = ["test", "auth", "--profile", "smoke", "--json", "-"];
    let finished = run(args);
    // A machine with other work may make a timing inconclusive; nothing may fail.
    assert!(matches!(finished.code, Some(0 | 3)), "{finished:?}");
    let case = finished.json()["cases"][0].clone();
    let verdict = |name: &str| {
        let criteria = case["criteria"].as_array().unwrap();
        criteria.iter().find(|criterion| criterion["name"] == name).unwrap()["verdict"].clone()
    };
    for name in [
        "unauthenticated_admitted",
        "wrong_token_admitted",
        "expired_admitted",
        "expired_cut",
        "refusals_told",
        "cross_talk",
        "lost",
    ] {
        assert_eq!(verdict(name), "pass", "{name}: {case:#}");
    }
}

#[test]
fn on_a_target_without_tokens_nothing_is_said_of_them() {
    let server = Server::start(&[]);
    let finished = run(["test", "auth", "--profile", "smoke", "--target", &server.url, "--json", "-"]);
    let case = finished.json()["cases"][0].clone();
    let skipped: Vec<&str> = case["criteria"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|criterion| criterion["verdict"] == "skipped")
        .map(|criterion| criterion["name"].as_str().unwrap())
        .collect();
    let of_tokens = [
        "unauthenticated_admitted",
        "wrong_token_admitted",
        "expired_admitted",
        "expired_cut",
        "refusals_told",
    ];
    assert_eq!(skipped, of_tokens, "{case:#}");
}

/// The process whose id stands in a file; killed when dropped.
struct Started(PathBuf);

impl Drop for Started {
    fn drop(&mut self) {
        let Ok(pid) = std::fs::read_to_string(&self.0) else { return };
        if let Ok(pid) = pid.trim().parse() {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}

#[test]
fn a_target_is_killed_and_started_again_by_the_command_of_its_owner() {
    let mut server = Server::start(&[]);
    let started = Started(scratch("started-again"));
    // The new one must not hold what the command's own caller waits for.
    let command = format!(
        "{} serve --listen {} >/dev/null 2>&1 </dev/null & echo $! | tee '{}' > \"$FLOODLINE_PID_FILE\"",
        env!("CARGO_BIN_EXE_floodline"),
        server.address(),
        started.0.display()
    );
    let pid = server.running.pid().to_string();
    let args = ["test", "delivery", "--profile", "smoke", "--json", "-", "--target", &server.url];
    let mut test = floodline(args.iter().chain(&["--pid", &pid, "--restart-command", &command]));
    test.envs([("FLOODLINE_DELIVERY_MESSAGES", "200"), ("FLOODLINE_DELIVERY_KILL_PERIOD", "2s")]);
    let finished = Running::start(test).wait();
    assert!(server.running.has_ended() && started.0.exists(), "{finished:?}");
    let case = finished.json()["cases"][0].clone();
    let criterion = |name: &str| {
        let criteria = case["criteria"].as_array().unwrap();
        criteria.iter().find(|criterion| criterion["name"] == name).unwrap().clone()
    };
    assert_eq!(criterion("faults_injected")["verdict"], "pass", "{case:#}");
    assert!(criterion("faults_injected")["measured"].as_str().unwrap().contains("1 kills"));
    for name in ["unanswered", "lost"] {
        assert_eq!(criterion(name)["verdict"], "pass", "{case:#}");
    }
    assert_eq!(criterion("processed_twice")["verdict"], "skipped");
}

#[test]
fn a_restart_command_that_does_not_start_it_again_is_named() {
    let server = Server::start(&[]);
    let args = ["test", "delivery", "--profile", "smoke", "--target", &server.url];
    let mut test = floodline(args.iter().chain(&["--restart-command", "exit 7"]));
    test.envs([("FLOODLINE_DELIVERY_MESSAGES", "200"), ("FLOODLINE_DELIVERY_KILL_PERIOD", "500ms")]);
    // The answers that the silence before the kill swallowed never come.
    test.envs([("FLOODLINE_DELIVERY_KILLS", "1"), ("FLOODLINE_LOAD_ANSWER_TIMEOUT", "1s")]);
    Running::start(test).wait().expect(2).says(&["--restart-command `exit 7`", "7"]);
    run(["test", "delivery", "--restart-command", "true"]).expect(2).says(&["--restart-command", "--target"]);
}

#[test]
fn what_an_echo_server_cannot_do_is_skipped_with_the_reason() {
    let server = TestServer::echo();
    let args = ["test", "backpressure", "--profile", "smoke", "--json", "-", "--target", &server.url];
    let mut test = floodline(args.iter().chain(&["--dialect", "echo"]));
    test.env("FLOODLINE_BACKPRESSURE_BASELINE", "500ms");
    let finished = Running::start(test).wait();
    assert!(matches!(finished.code, Some(0 | 3)), "{finished:?}");
    let case = finished.json()["cases"][0].clone();
    let skipped: Vec<(&str, &str)> = case["criteria"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|criterion| criterion["verdict"] == "skipped")
        .map(|criterion| {
            (criterion["name"].as_str().unwrap(), criterion["evidence"][0].as_str().unwrap_or_default())
        })
        .collect();
    let quiet = "without a refusal or a signal";
    let none = "the dialect echo has no priorities";
    let expected = [
        ("overflow", quiet),
        ("signal", quiet),
        ("threshold_to_signal", quiet),
        ("refusals_told", quiet),
        ("high_priority_served", none),
        ("high_priority_first", none),
    ];
    assert_eq!(skipped.len(), expected.len(), "{skipped:?}");
    for ((name, why), (expected_name, part)) in skipped.iter().zip(expected) {
        assert!(*name == expected_name && why.contains(part), "{name}: {why}");
    }
}
