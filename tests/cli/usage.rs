//! What makes no sense is refused with exit code 2, naming the flag, variable or key, and the value.

use std::net::TcpListener;
use std::time::Duration;

use crate::process::{Finished, PATIENCE, Running, floodline, floodline_with_files, run, scratch};
use crate::servers::TestServer;

/// Runs `load` with these flags, which it must refuse, naming all of `parts`.
#[track_caller]
fn refused(flags: &[&str], parts: &[&str]) -> Finished {
    let finished = run(["load"].iter().chain(flags)).expect(2).says(parts);
    assert_eq!(finished.stdout, "", "{flags:?}");
    finished
}

#[test]
fn a_flag_that_is_not_there_is_named() {
    refused(&["--rats", "5"], &["--rats"]);
    run(["flood"]).expect(2).says(&["flood"]);
    run(["serve", "--workers", "many"]).expect(2).says(&["--workers", "many"]);
    run(["merge"]).expect(2).says(&["RESULT.json"]);
}

#[test]
fn help_and_version_are_no_errors() {
    for args in [&["--help"][..], &["--version"], &["load", "--help"], &["list"]] {
        let finished = run(args).expect(0);
        assert!(!finished.stdout.is_empty() && finished.stderr.is_empty(), "{args:?}");
    }
}

#[test]
fn a_rate_that_is_none_is_named_with_its_value() {
    for rate in ["0", "-1", "NaN", "1e309", "inf", "abc", "1e10", ""] {
        refused(&["--rate", rate], &["--rate", &format!("'{rate}'")]);
    }
}

#[test]
fn a_load_that_sends_nothing_is_refused() {
    refused(&["--connections", "0"], &["--connections", "0 connections"]);
    refused(&["--connections", "-1"], &["--connections", "-1"]);
    refused(&["--duration", "0"], &["--duration", "0 s"]);
    refused(&["--duration", "10"], &["--duration", "'10'"]);
    refused(&["--ramp", "1s", "--rate", "max"], &["--ramp", "closed loop"]);
    refused(&["--window", "0"], &["--window", "window of 0"]);
    refused(&["--answer-timeout", "0"], &["--answer-timeout", "0 s"]);
    refused(&["--workers", "0"], &["--workers", "0"]);
    refused(&["--shard", "3/4", "--connections", "3"], &["--shard", "4 shards of 3"]);
}

#[test]
fn values_out_of_their_range_are_named() {
    refused(&["--payload-bytes", "2MiB"], &["--payload-bytes", "2097152"]);
    refused(&["--payload-bytes", "1.5KiB"], &["--payload-bytes", "1.5KiB"]);
    let echo = ["--dialect", "echo", "--target", "ws://127.0.0.1:9/", "--payload-bytes", "8"];
    refused(&echo, &["--payload-bytes", "at least", "not 8"]);
    for limit in ["p99", "p98=1s", "p99=fast", "p99=0", "p99=-1s", "=1s"] {
        refused(&["--limit", limit], &["--limit", limit]);
    }
    for shard in ["2/2", "1", "-1/2", "0/0", "a/b"] {
        refused(&[&format!("--shard={shard}")], &["--shard", shard]);
    }
    for at in ["tomorrow", "2026-13-01T00:00:00Z", "12:00"] {
        refused(&["--start-at", at], &["--start-at", at]);
    }
    refused(&["--arrival", "bursty"], &["--arrival", "bursty"]);
    refused(&["--pacer", "sundial"], &["--pacer", "sundial"]);
    refused(&["--dialect", "klingon"], &["--dialect", "klingon"]);
    refused(&["--pid", "1"], &["--target"]);
}

#[test]
fn an_echo_load_on_the_own_server_is_refused() {
    // It would wait for echoes that the own server never sends.
    refused(&["--dialect", "echo"], &["--dialect echo", "--target"]);
}

#[test]
fn a_target_that_is_no_websocket_url_is_named() {
    for target in ["http://localhost/", "localhost:9001", "ws://", "ws://host:99999/", "", "nonsense"] {
        refused(&["--target", target], &["--target", &format!("`{target}`")]);
    }
    let finished = refused(&["--target", "ws://me:hunter2@localhost/"], &["--target", "credentials"]);
    assert!(!finished.stderr.contains("hunter2"), "{}", finished.stderr);
}

#[test]
fn a_serve_that_makes_no_sense_is_refused() {
    for (flags, parts) in [
        (["--listen", "everywhere"], ["--listen", "everywhere"]),
        (["--workers", "0"], ["--workers", "0"]),
        (["--queue-capacity", "0"], ["--queue-capacity", "0"]),
        (["--concurrency", "0"], ["--concurrency", "0"]),
        (["--max-connections", "0"], ["--max-connections", "0"]),
        (["--processing-delay", "soon"], ["--processing-delay", "soon"]),
        (["--fault", "explode"], ["--fault", "explode"]),
        (["--fault", "drop-answers=2,seed=1"], ["--fault", "2"]),
        (["--fault", "stall=1s,at=never"], ["--fault", "never"]),
    ] {
        let finished = run(["serve"].iter().chain(&flags)).expect(2).says(&parts);
        assert_eq!(finished.stdout, "", "{flags:?}");
    }
}

#[test]
fn a_port_in_use_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let finished = run(["serve", "--listen", &address]).expect(2).says(&["--listen", &address, "in use"]);
    assert_eq!(finished.stdout, "");
}

#[test]
fn variables_are_checked_like_flags() {
    for (name, value, parts) in [
        ("FLOODLINE_LAOD_RATE", "5", &["FLOODLINE_LAOD_RATE", "FLOODLINE_LOAD_RATE"][..]),
        ("FLOODLINE_LOAD_RATE", "-1", &["FLOODLINE_LOAD_RATE", "load.rate", "-1"]),
        ("FLOODLINE_LOAD_CONNECTIONS", "0", &["FLOODLINE_LOAD_CONNECTIONS", "load.connections", "0"]),
        ("FLOODLINE_LOAD_DURATION", "fast", &["FLOODLINE_LOAD_DURATION", "load.duration", "fast"]),
        ("FLOODLINE_LIMITS_P99", "1ms", &["limits.p99", "1ms"]),
        ("FLOODLINE_PROFILE", "huge", &["FLOODLINE_PROFILE", "huge"]),
        ("FLOODLINE_LOAD_PACER", "sundial", &["FLOODLINE_LOAD_PACER", "load.pacer", "sundial"]),
        ("FLOODLINE_LOAD_ARRIVAL", "bursty", &["FLOODLINE_LOAD_ARRIVAL", "load.arrival", "bursty"]),
        ("FLOODLINE_DIALECT", "klingon", &["target.dialect", "klingon"]),
        ("FLOODLINE_TARGET", "http://localhost/", &["http://localhost/"]),
    ] {
        let mut command = floodline(["load", "--duration", "100ms"]);
        command.env(name, value);
        Running::start(command).wait().expect(2).says(parts);
    }
}

#[test]
fn the_configuration_prints_as_a_file_that_loads_again() {
    let first = run(["config", "--profile", "smoke"]).expect(0).stdout;
    let file = scratch("effective.toml");
    std::fs::write(&file, &first).unwrap();
    let second = run(["config", "--config", file.to_str().unwrap()]).expect(0).stdout;
    assert_eq!(first, second);
    let parsed: toml::Table = first.parse().unwrap();
    assert_eq!(parsed["profile"].as_str(), Some("smoke"));
    // A setting shows: it is the effective configuration, not a template.
    let mut command = floodline(["config"]);
    command.env("FLOODLINE_LOAD_RATE", "1234");
    let changed: toml::Table = Running::start(command).wait().expect(0).stdout.parse().unwrap();
    assert_eq!(changed["load"]["rate"].as_float(), Some(1_234.0));
}

#[test]
fn the_file_in_the_working_directory_is_read_and_checked() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("floodline.toml");
    let load = |text: &str| {
        std::fs::write(&file, text).unwrap();
        let mut command = floodline(["load", "--duration", "100ms"]);
        command.current_dir(directory.path());
        Running::start(command).wait()
    };
    load("[load]\nconections = 5\n").expect(2).says(&["floodline.toml", "load.conections", "5"]);
    load("[load]\nrate = -3\n").expect(2).says(&["floodline.toml", "load.rate", "-3"]);
    load("[load\n").expect(2).says(&["floodline.toml", "line 1"]);
    refused(&["--config", "/nowhere/floodline.toml"], &["/nowhere/floodline.toml"]);
}

#[test]
fn a_missing_token_variable_is_named() {
    for command in ["load", "serve"] {
        run([command, "--token-env", "NO_SUCH_TOKEN"]).expect(2).says(&["--token-env", "NO_SUCH_TOKEN"]);
    }
}

#[test]
fn more_connections_than_open_files_are_refused_with_the_remedy() {
    let args = ["load", "--connections", "100", "--target", "ws://127.0.0.1:9/"];
    Running::start(floodline_with_files(64, &args)).wait().expect(2).says(&[
        "164 open files are needed",
        "64 at most",
        "ulimit -Hn 164",
        "fewer connections",
    ]);
    let args = ["serve", "--max-connections", "1000"];
    Running::start(floodline_with_files(64, &args)).wait().expect(2).says(&["--max-connections", "1064"]);
}

#[test]
fn a_few_connections_need_few_open_files_of_the_own_server_too() {
    let args = ["load", "--connections", "4", "--rate", "100", "--duration", "300ms"];
    Running::start(floodline_with_files(256, &args)).wait().expect(0);
}

#[test]
fn a_result_that_cannot_be_written_is_found_before_the_load() {
    let server = TestServer::echo();
    for path in ["/nowhere/result.json", "/"] {
        let args = ["load", "--target", &server.url, "--dialect", "echo", "--duration", "1h", "--json", path];
        let finished = run(args).expect(2).says(&["--json", path]);
        assert!(finished.took < PATIENCE / 2);
    }
    assert_eq!(server.connections(), 0);
}

#[test]
#[cfg(target_os = "linux")]
fn a_full_disk_is_told() {
    let args = ["load", "--rate", "100", "--connections", "2", "--duration", "200ms", "--json", "/dev/full"];
    let finished = run(args).expect(2).says(&["/dev/full", "No space left"]);
    assert!(finished.stdout.contains("sent 20"), "the summary is there all the same: {finished:?}");
    assert!(finished.took > Duration::from_millis(200));
}

#[test]
fn what_is_no_result_cannot_be_merged() {
    run(["merge", "/nowhere/a.json"]).expect(2).says(&["/nowhere/a.json"]);
    let file = scratch("no-result.json");
    std::fs::write(&file, "{\"schema\": \"other/1\"}").unwrap();
    run(["merge", file.to_str().unwrap()]).expect(2).says(&["no-result.json", "not a result"]);
}
