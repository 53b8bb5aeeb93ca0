//! `floodline load` where all goes well.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use crate::contract::{self, count};
use crate::process::{Running, Server, floodline, run, scratch};
use crate::servers::TestServer;

/// Flags of a load that takes a second: 300 messages.
const SMALL: [&str; 6] = ["--rate", "300", "--connections", "5", "--duration", "1s"];

fn small_load(more: &[&str]) -> crate::process::Finished {
    run(["load"].iter().chain(&SMALL).chain(more))
}

#[test]
fn the_own_server_passes_and_a_person_is_told() {
    let finished = small_load(&[]).expect(0);
    let shown =
        ["PASS", "own server", "due 300 = sent 300 + unsent 0", "answered 300", "p99", "client", "server"];
    let costs = ["a message", "a connection"].into_iter().filter(|_| cfg!(target_os = "linux"));
    for part in shown.into_iter().chain(costs) {
        assert!(finished.stdout.contains(part), "{part}: {}", finished.stdout);
    }
    assert_eq!(finished.stderr, "");
}

#[test]
fn json_on_standard_output_is_one_object_with_every_field() {
    let finished = small_load(&["--json", "-"]).expect(0).says(&["PASS", "answered 300"]);
    let run = finished.json();
    contract::check(&run);
    assert_eq!((&run["verdict"], &run["interrupted"]), (&"pass".into(), &false.into()));
    assert_eq!(run["reasons"], Value::Array(Vec::new()));
    for (name, expected) in [("due", 300), ("sent", 300), ("answered", 300), ("refused", 0), ("late", 0)] {
        assert_eq!(count(&run, name), expected, "{name}");
    }
    let workload = &run["workload"];
    assert!(workload["target"].is_null(), "of the own server only its port would be new");
    assert_eq!((&workload["rate"], &workload["connections"]), (&300.0.into(), &5.into()));
    assert_eq!((&workload["arrival"], &workload["dialect"]), (&"uniform".into(), &"floodline".into()));
    assert_eq!(run["offered_rate"], 300.0);
    assert!(run["achieved_rate"].as_f64().unwrap() >= 297.0);
    assert_eq!(run["connections"]["established"], 5);
    assert_eq!(run["connections"]["dropped"], 0);
    assert!(run["refusal_latency_us"].is_null());
    assert!(run["connections"]["opening_s"].as_f64().unwrap() > 0.0);
    if cfg!(target_os = "linux") {
        for side in ["client", "server"] {
            assert!(run["cost"][format!("{side}_cpu_us_per_message")].as_f64().unwrap() > 0.0, "{side}");
            assert!(run["cost"][format!("{side}_bytes_per_connection")].as_f64().unwrap() > 0.0, "{side}");
        }
        assert!(run["resources"]["server"]["peak_rss_bytes"].as_u64().unwrap() > 0);
        assert!(run["resources"]["client"]["cpu_s"].as_f64().unwrap() > 0.0);
    }
}

#[test]
fn a_ramp_is_accounted_for_and_said() {
    let finished = small_load(&["--ramp", "400ms", "--json", "-"]).expect(0);
    let finished =
        finished.says(&["between ramps of 400 ms", "due 420 = sent 420", "120 of the due in ramps"]);
    let run = finished.json();
    contract::check(&run);
    assert_eq!((&run["workload"]["ramp_s"], &run["workload"]["duration_s"]), (&0.4.into(), &1.0.into()));
    assert_eq!((count(&run, "answered"), count(&run, "untimed_answered")), (420, 120));
    assert_eq!((&run["offered_rate"], &run["latency_us"]["count"]), (&300.0.into(), &300.into()));
}

#[test]
fn json_in_a_file_replaces_what_was_there() {
    let file = scratch("result.json");
    std::fs::write(&file, "x".repeat(1 << 20)).unwrap();
    let finished = small_load(&["--json", file.to_str().unwrap(), "--arrival", "poisson"]).expect(0);
    assert!(finished.stdout.starts_with("PASS"), "{}", finished.stdout);
    let run: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    contract::check(&run);
    assert_eq!(run["workload"]["arrival"], "poisson");
    // Seven standard deviations of a Poisson law with a mean of 300.
    assert!((180..420).contains(&count(&run, "due")), "{}", count(&run, "due"));
}

#[test]
fn json_goes_into_a_pipe_by_name_too() {
    // As a shell's process substitution gives it.
    let finished = small_load(&["--json", "/dev/stderr"]).expect(0);
    contract::check(&serde_json::from_str(&finished.stderr).unwrap());
}

#[test]
fn a_closed_loop_has_no_due_times() {
    let finished =
        run(["load", "--rate", "max", "--connections", "2", "--window", "4", "--duration", "300ms"]
            .iter()
            .chain(&["--json", "-", "--limit", "p99=10s"]))
        .expect(0)
        .says(&["closed loop, 4 unanswered"]);
    let run = finished.json();
    contract::check(&run);
    for path in ["/workload/rate", "/latency_us", "/offered_rate", "/send_lateness_us"] {
        assert!(run.pointer(path).unwrap().is_null(), "{path}");
    }
    assert!(run["service_latency_us"]["p99"].is_number());
    assert!(count(&run, "answered") > 0 && run["achieved_rate"].as_f64().unwrap() > 0.0);
}

#[test]
fn an_echo_server_is_driven_in_its_dialect() {
    let server = TestServer::echo();
    let finished = small_load(&["--dialect", "echo", "--target", &server.url, "--json", "-"]).expect(0);
    let run = finished.json();
    contract::check(&run);
    assert_eq!(count(&run, "answered"), 300);
    assert_eq!(run["workload"]["target"], server.url);
    assert!(run["resources"]["server"].is_null(), "nobody said which process it is");
    assert_eq!(server.connections(), 5);
}

#[test]
fn a_named_process_is_measured() {
    let server = Server::start(&[]);
    let pid = server.running.pid().to_string();
    let run = small_load(&["--target", &server.url, "--pid", &pid, "--json", "-"]).expect(0).json();
    assert!(run["resources"]["server"].is_object());
}

#[test]
fn a_limit_that_is_broken_fails_and_says_so() {
    let finished = small_load(&["--limit", "p50=1ns", "--limit", "p99=1h", "--json", "-"]);
    // Where the machine is busy with something else, no timing can fail.
    assert!(matches!(finished.code, Some(1 | 3)), "{finished:?}");
    let run = finished.json();
    let reasons = run["reasons"].to_string();
    assert!(reasons.contains("latency_p50") && !reasons.contains("latency_p99"), "{reasons}");
    assert_eq!(finished.code == Some(3), run["verdict"] == "inconclusive");
}

#[test]
fn two_shards_make_one_whole() {
    let server = Server::start(&[]);
    // Time enough to start two processes and open five connections; a shard that comes later starts later.
    let at_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() + 3;
    let at = humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(at_s)).to_string();
    let files = [scratch("shard-0.json"), scratch("shard-1.json")];
    let shards = [("0/2", &files[0]), ("1/2", &files[1])].map(|(shard, file)| {
        let mut command = floodline(["load", "--target", &server.url, "--shard", shard, "--start-at", &at]);
        command.args(SMALL).arg("--json").arg(file);
        Running::start(command)
    });
    for shard in shards {
        shard.wait().expect(0);
    }
    let parts = files.each_ref().map(|file| -> Value {
        let run = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
        contract::check(&run);
        run
    });
    // Five connections: three of one shard and two of the other.
    assert_eq!(parts.each_ref().map(|part| count(part, "answered")), [180, 120]);
    let started = parts.each_ref().map(|part| part["started_at_unix_ns"].as_u64().unwrap());
    assert_eq!(started, [at_s * 1_000_000_000; 2], "both start when they were told to");

    let [first, second] = files.each_ref().map(|file| file.to_str().unwrap());
    let merged = run(["merge", first, second, "--json", "-"]).expect(0).says(&["PASS"]).json();
    contract::check(&merged);
    assert_eq!((count(&merged, "due"), count(&merged, "answered")), (300, 300));
    assert_eq!(merged["connections"]["established"], 5);
    assert_eq!(merged["offered_rate"], 300.0);
    assert_eq!(merged["shard"], serde_json::json!({"index": 0, "of": 1}));

    run(["merge", first, first]).expect(2).says(&["shard 0/2"]);
    run(["merge", first]).expect(2).says(&["shard 1/2"]);
}

/// The process tables of Linux.
#[cfg(target_os = "linux")]
mod children {
    use nix::sys::signal::Signal;

    use super::*;
    use crate::process::wait_until;

    /// State and parent of a process.
    fn state(pid: u32) -> Option<(char, u32)> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name in brackets may hold anything.
        let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
        Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
    }

    /// Ended, though perhaps nobody has asked for its exit code yet.
    fn is_gone(pid: u32) -> bool {
        state(pid).is_none_or(|(state, _)| matches!(state, 'Z' | 'X'))
    }

    fn child_of(parent: u32) -> Option<u32> {
        let pids = std::fs::read_dir("/proc").unwrap().flatten();
        pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .find(|&pid| state(pid).is_some_and(|(_, of)| of == parent))
    }

    #[test]
    fn the_own_server_ends_with_the_load() {
        let load = Running::start(floodline(["load"].iter().chain(&SMALL)));
        let server = wait_until("a server of its own", || child_of(load.pid()));
        load.wait().expect(0);
        assert!(is_gone(server), "{:?}", state(server));
    }

    #[test]
    fn the_own_server_ends_when_the_load_is_killed() {
        let load = Running::start(floodline(["load", "--rate", "100", "--duration", "1h"]));
        let server = wait_until("a server of its own", || child_of(load.pid()));
        load.signal(Signal::SIGKILL);
        assert_eq!(load.wait().code, None);
        wait_until("the end of the server", || is_gone(server).then_some(()));
    }
}
