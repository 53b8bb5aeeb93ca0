//! The trust verdict: where the generator is the limit, a result is inconclusive and says why; where the server is, it
//! fails. Verdicts are certain whatever the machine does: a limit of a microsecond on the median fails on any.

use std::io::Write;
use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};

use crate::contract::{self, count};
use crate::process::{Finished, Running, Server, floodline, floodline_with_files_taken, run, scratch};
use crate::schema;

/// Fails on every machine, so that only whose fault it is decides the verdict.
const IMPOSSIBLE: [&str; 2] = ["--limit", "p50=1us"];
/// As much CPU of others as leaves a verdict alone.
const QUIET_CORES: f64 = 0.1;
/// On a machine that others use, one of so many attempts is judged.
const ATTEMPTS: usize = 8;

/// A child that is killed when dropped, as a panic drops it too.
struct Hog(std::process::Child);

impl Drop for Hog {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn load<'a>(rate: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let first = ["load", "--rate", rate, "--connections", "4", "--payload-bytes", "64", "--json", "-"];
    first.into_iter().chain(more.iter().copied()).collect()
}

/// Said past the test's own output, which is shown of failed tests only.
fn skipped(why: &str) {
    let _ = writeln!(std::io::stderr(), "SKIPPED: {why}");
}

/// Pinned to one core together with everything that it starts.
fn pinned(command: &Command) -> Command {
    let mut pinned = Command::new("taskset");
    pinned.args(["-c", "0"]).arg(command.get_program()).args(command.get_args());
    pinned.current_dir(env!("CARGO_TARGET_TMPDIR"));
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => pinned.env(name, value),
            None => pinned.env_remove(name),
        };
    }
    pinned
}

/// Other work on the machine makes a latency longer, never shorter: half of the messages are due while the server stands
/// still for 100 ms, evenly, so that nine tenths of all wait for 80 ms at most, and not a reported one less.
#[test]
fn a_stall_is_held_against_its_truth() {
    let args = ["calibrate", "--truth=stall 100 ms, 2000/s on 100", "--json", "-"];
    let finished = run(args);
    let truth = finished.json();
    schema::validates("truth", &truth);
    let rows = truth["rows"].as_array().unwrap();
    let p90 = rows.iter().find(|row| row["percentile"] == "p90").unwrap();
    let us = |key: &str| p90[key].as_f64().unwrap();
    assert!(us("expected_us") >= 79_000.0 && us("reported_us") >= 79_000.0, "{truth:#}");
    let agree = rows.iter().all(|row| {
        let us = |key: &str| row[key].as_f64().unwrap();
        (us("reported_us") - us("expected_us")).abs() <= us("tolerance_us")
    });
    assert_eq!((rows.len(), truth["verdict"] == "pass"), (6, agree), "{truth:#}");
    // The worst of all is no better than the median, which is among them.
    let off = |name: &str| {
        let row = rows.iter().find(|row| row["percentile"].as_str().unwrap().starts_with(name)).unwrap();
        let us = |key: &str| row[key].as_f64().unwrap();
        (us("reported_us") - us("expected_us")).abs() / us("tolerance_us")
    };
    assert!(off("worst p") >= off("p50"), "{truth:#}");
    let code = match truth["verdict"].as_str().unwrap() {
        "pass" => 0,
        "fail" => 1,
        _ => 3,
    };
    finished.expect(code).says(&["stall 100 ms", "percentiles agree"]);
}

#[test]
fn a_truth_that_there_is_not_is_answered_with_those_that_there_are() {
    run(["calibrate", "--truth=lies"]).expect(2).says(&["--truth", "`lies`", "stall 500 ms, 2000/s on 100"]);
}

#[cfg(target_os = "linux")]
#[test]
fn a_hog_on_the_generators_core_makes_it_inconclusive_and_is_named() {
    if Command::new("taskset").args(["-c", "0", "true"]).status().map_or(true, |status| !status.success()) {
        skipped("no taskset, or not the first core, so the generator has no core to share");
        return;
    }
    let mut hog = Command::new("sh");
    hog.args(["-c", "while :; do :; done"]);
    let _hog = Hog(pinned(&hog).spawn().unwrap());
    let args = load("2000", &["--duration", "2s", IMPOSSIBLE[0], IMPOSSIBLE[1]]);
    let finished = Running::start(pinned(&floodline(args))).wait().expect(3);
    let run = finished.json();
    contract::check(&run);
    assert_eq!(run["verdict"], "inconclusive");
    assert!(run["resources"]["foreign_cpu_cores"].as_f64().unwrap() > QUIET_CORES, "{}", run["resources"]);
    assert!(run["reasons"][0].as_str().unwrap().contains("other processes took"), "{}", run["reasons"]);
}

/// The limit allows for every connection, so that nothing can be said in advance; most of it is taken.
#[cfg(unix)]
#[test]
fn open_files_that_run_out_as_connections_are_opened_make_it_inconclusive_and_are_named() {
    if Command::new("bash").args(["-c", "true"]).status().map_or(true, |status| !status.success()) {
        skipped("no bash, so nothing takes the generator's open files");
        return;
    }
    let server = Server::start(&[]);
    let args = ["load", "--target", &server.url, "--rate", "400", "--connections", "40", "--workers", "1"];
    let more = ["--payload-bytes", "64", "--duration", "500ms", "--limit", "p50=10s", "--limit", "p99=10s"];
    let args: Vec<&str> = args.into_iter().chain(more).chain(["--json", "-"]).collect();
    let finished = Running::start(floodline_with_files_taken(104, 60, &args)).wait().expect(3);
    let run = finished.json();
    contract::check(&run);
    let connections = &run["connections"];
    let unopened = &connections["unopened"];
    let missing = unopened["connections"].as_array().unwrap().len() as u64;
    let established = connections["established"].as_u64().unwrap();
    assert!(missing > 0 && established > 0, "{connections}");
    assert_eq!((missing + established, &connections["refused"]), (40, &json!(0)), "{connections}");
    // Every message had its answer that there was a connection for.
    assert_eq!(Some(count(&run, "unsent")), unopened["due"].as_u64());
    assert_eq!(count(&run, "sent"), count(&run, "answered"));

    let why = "the generator ran out of open files (Too many open files";
    let doubted: Vec<&Value> = run["criteria"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|criterion| criterion["verdict"] != "pass")
        .collect();
    for criterion in &doubted {
        assert_eq!(criterion["verdict"], "inconclusive", "{criterion}");
        assert!(criterion["evidence"][0].as_str().unwrap().starts_with(why), "{criterion}");
    }
    for name in ["connections", "achieved_rate", "latency_p99"] {
        assert!(doubted.iter().any(|criterion| criterion["name"] == name), "{name}: {doubted:?}");
    }
    assert_eq!(run["verdict"], "inconclusive");
    let reasons = run["reasons"].as_array().unwrap();
    assert!(
        reasons.len() == doubted.len() && reasons.iter().all(|reason| reason.as_str().unwrap().contains(why))
    );
    let told = format!("{missing} not opened by the generator");
    finished.says(&["INCONCLUSIVE", why, &told, "raise the limit (ulimit -n, fs.file-max)"]);
}

#[test]
fn a_rate_beyond_all_ceilings_ends_on_time_and_is_inconclusive() {
    for arrival in ["uniform", "poisson"] {
        let rate = if arrival == "uniform" { "1e9" } else { "1e7" };
        let args = load(
            rate,
            &["--duration", "1s", "--arrival", arrival, "--answer-timeout", "10s", "--max-rate", "1e9"],
        );
        let finished = run(args).expect(3);
        let run = finished.json();
        contract::accounted(&run);
        // Poisson: ten million expected, standard deviation 3,162.
        let due = count(&run, "due") as f64;
        assert!((due / rate.parse::<f64>().unwrap() - 1.0).abs() < 0.01, "{due}");
        assert!(count(&run, "unsent") as f64 > 0.5 * due, "{}", run["messages"]);
        assert_eq!((count(&run, "lost"), count(&run, "refused")), (0, 0));
        // Nothing else is in doubt, and it is the generator that is named, whatever others did to it.
        let reasons = run["reasons"].as_array().unwrap();
        assert!(
            reasons.len() == 1 && reasons[0].as_str().unwrap().starts_with("achieved_rate: "),
            "{reasons:?}"
        );
        let criteria = run["criteria"].as_array().unwrap();
        let achieved = criteria.iter().find(|criterion| criterion["name"] == "achieved_rate").unwrap();
        // Late, or without any CPU left.
        let named = |why: &Value| why.as_str().unwrap().starts_with("the generator");
        assert!(achieved["evidence"].as_array().unwrap().iter().any(named), "{achieved}");
        // A second of load, half a second of grace, the answers: a minute allows for any machine. One by one, a thousand
        // million instants take longer.
        assert!(finished.took.as_secs() < 60, "{:?}", finished.took);
    }
}

#[test]
fn poisson_arrivals_faster_than_can_be_drawn_are_refused() {
    run(load("1e9", &["--arrival", "poisson"])).expect(2).says(&["--rate", "10,000,000 msg/s", "uniform"]);
}

/// Judged without a look at other processes: it is between generator and server that these loads decide.
fn run_among_others<'a>(args: impl IntoIterator<Item = &'a str>) -> Finished {
    let mut command = floodline(args);
    command.env("FLOODLINE_LIMITS_FOREIGN_CPU_CORES", "64");
    Running::start(command).wait()
}

/// A server that is slow must fail. A generator that others kept from its work may have been late, and is asked again; one
/// that had the machine to itself, or none that was ever judged, is a failure of this test.
fn assert_is_the_servers(what: &str, attempt: impl Fn() -> Finished) {
    let mut doubts = Vec::new();
    for _ in 0..ATTEMPTS {
        let finished = attempt();
        let run = finished.json();
        contract::accounted(&run);
        let (verdict, reasons) = (run["verdict"].as_str().unwrap(), run["reasons"].to_string());
        let foreign = run["resources"]["foreign_cpu_cores"].as_f64();
        match verdict {
            "fail" => return assert_eq!(finished.code, Some(1), "{what}: {reasons}"),
            "inconclusive" if foreign.is_none_or(|cores| cores > QUIET_CORES) => {
                assert_eq!(finished.code, Some(3), "{what}: {reasons}");
                doubts.push(format!("{foreign:?} cores taken by others, {reasons}"));
            }
            other => panic!("{what}: {other}, {foreign:?} cores taken by others, {reasons}"),
        }
    }
    panic!("{what}: the machine was never quiet enough for a verdict: {doubts:#?}");
}

#[test]
fn a_server_at_its_capacity_fails_and_is_not_excused() {
    let server = Server::start(&["--processing-delay", "10ms", "--concurrency", "5"]);
    let pid = server.running.pid().to_string();
    // 2,000/s for a server that can do 500/s: it works off a second's backlog for three more.
    let args = ["--target", &server.url, "--pid", &pid, "--duration", "1s"];
    assert_is_the_servers("capacity", || run_among_others(load("2000", &args)));
}

#[test]
fn a_server_that_stalls_fails_and_is_not_excused() {
    assert_is_the_servers("stall", || {
        let server = Server::start(&["--fault", "stall=1s,at=500ms"]);
        let pid = server.running.pid().to_string();
        let args = ["--target", &server.url, "--pid", &pid, "--duration", "2s", "--limit", "p95=500ms"];
        run_among_others(load("1000", &args))
    });
}

#[test]
fn a_server_that_reads_slowly_fails_and_is_not_excused() {
    let server = Server::start(&[]);
    let to = server.address().to_owned();
    let rule = ["proxy", "--to", &to, "--rule", "slow-reader=1MiB/s,direction=to-server"];
    let mut proxy = Running::start(floodline(rule));
    let listening: Value = serde_json::from_str(&proxy.line()).unwrap();
    let url = format!("ws://{}/ws", listening["listening"].as_str().unwrap());
    let pid = server.running.pid().to_string();
    // 16 MB/s on each of two connections for what reads 1 MiB/s: all buffers are soon full.
    let args =
        ["load", "--target", &url, "--pid", &pid, "--rate", "500", "--connections", "2", "--payload-bytes"];
    let more = ["65536", "--duration", "2s", "--answer-timeout", "2s", "--json", "-"];
    assert_is_the_servers("slow reader", || {
        let finished = run_among_others(args.into_iter().chain(more));
        assert!(count(&finished.json(), "unsent") > 0);
        finished
    });
}

/// A cache of its own for calibrations.
struct Cache(PathBuf);

impl Cache {
    fn new(name: &str) -> Self {
        let directory = scratch(name);
        let _ = std::fs::remove_dir_all(&directory);
        Self(directory)
    }

    fn file(&self) -> PathBuf {
        self.0.join("calibrations.json")
    }

    fn run(&self, args: &[&str]) -> Finished {
        let mut command = floodline(args);
        command.env("FLOODLINE_CACHE", &self.0);
        Running::start(command).wait()
    }

    /// Keeps these calibrations, as `floodline calibrate` would have.
    fn write(&self, calibrations: &[&Value]) {
        std::fs::create_dir_all(&self.0).unwrap();
        let kept = json!({"schema": "floodline.calibrations/1", "calibrations": calibrations});
        std::fs::write(self.file(), kept.to_string()).unwrap();
    }
}

impl Drop for Cache {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

const CALIBRATE: [&str; 9] =
    ["calibrate", "--stage", "300ms", "--connections", "4", "--payload-bytes", "64", "--json", "-"];

#[test]
fn a_calibration_tells_what_the_generator_can_do_and_is_kept_where_the_machine_was_quiet() {
    let cache = Cache::new("calibrate");
    let finished = cache.run(&CALIBRATE);
    let calibration = finished.json();
    assert_eq!(calibration["schema"], "floodline.calibration/1");
    let positive = [
        "/ceiling_per_second",
        "/client_cpu_us_per_message",
        "/timer/p50_us",
        "/timer/p99_us",
        "/timer/max_us",
        "/latency_floor_us/p50",
        "/latency_floor_us/p99",
        "/generator/executable_bytes",
    ];
    for path in positive {
        let value = calibration.pointer(path).and_then(Value::as_f64);
        assert!(value.is_some_and(|value| value > 0.0), "{path}: {calibration}");
    }
    assert_eq!(
        (&calibration["timer"]["rate"], &calibration["timer"]["pacer"]),
        (&json!(10_000.0), &json!("timer"))
    );
    let foreign = calibration["foreign_cpu_cores"].as_f64();
    let quiet = foreign.is_none_or(|cores| cores <= QUIET_CORES);
    assert_eq!(finished.code, Some(if quiet { 0 } else { 3 }), "{}", finished.stderr);
    assert_eq!(cache.file().exists(), quiet);
    assert!(finished.stderr.contains(if quiet { "kept for a week" } else { "other processes took" }));
}

#[test]
fn a_calibration_stands_beside_a_result_and_excuses_what_is_beyond_the_ceiling() {
    let cache = Cache::new("beside");
    let mut calibration = cache.run(&CALIBRATE).json();
    calibration["ceiling_per_second"] = json!(1_000.0);
    cache.write(&[&calibration]);
    let args = load("901", &["--duration", "500ms", IMPOSSIBLE[0], IMPOSSIBLE[1]]);
    let finished = cache.run(&args).expect(3);
    let run = finished.json();
    assert_eq!(run["calibration"], calibration);
    let reason = run["reasons"][0].as_str().unwrap();
    assert!(reason.contains("901 msg/s is more than 90.00 % of the generator's own ceiling"), "{reason}");
    assert!(finished.stderr.contains("generator   ceiling"), "{}", finished.stderr);

    // Another load's ceiling says nothing of this one, and is shown for what it is.
    let other =
        ["load", "--rate", "901", "--connections", "5", "--payload-bytes", "64", "--duration", "500ms"];
    let finished = cache.run(&other);
    assert!(finished.stdout.contains("ceiling") && finished.stdout.contains("(4 connections, 64 B)"));
    assert!(!finished.stdout.contains("own ceiling"), "{}", finished.stdout);
    // Nor does that of another number of workers.
    let more = ["--duration", "500ms", "--workers", "7"];
    assert_eq!(cache.run(&load("100", &more)).json()["calibration"], Value::Null);
}

#[test]
fn a_calibration_that_holds_no_more_is_not_used_and_said_so() {
    let cache = Cache::new("outdated");
    let calibration = cache.run(&CALIBRATE).json();
    type Edit = fn(&mut Value);
    let edits: [(Edit, &str); 5] = [
        (|known| known["measured_at_unix_ns"] = json!(1_700_000_000_000_000_000_u64), "days ago"),
        (|known| known["generator"]["executable_crc32"] = json!(1), "another build"),
        (|known| known["generator"]["cores"] = json!(1_000), "number of cores"),
        (|known| known["generator"]["machine"] = json!("0123456789abcdef"), "on another machine"),
        // As it was kept before machines were told apart.
        (|known| drop(known["generator"].as_object_mut().unwrap().remove("machine")), "on which machine"),
    ];
    for (edit, why) in edits {
        let mut outdated = calibration.clone();
        edit(&mut outdated);
        cache.write(&[&outdated]);
        let finished = cache.run(&load("100", &["--duration", "200ms"]));
        assert_eq!(finished.json()["calibration"], Value::Null);
        for part in ["the calibration is not used", why, "floodline calibrate"] {
            assert!(finished.stderr.contains(part), "{part}: {}", finished.stderr);
        }
    }
    // Another load's holds, and is shown in its place: that is said.
    let (mut outdated, mut other) = (calibration.clone(), calibration.clone());
    outdated["generator"]["executable_crc32"] = json!(1);
    other["connections"] = json!(5);
    cache.write(&[&outdated, &other]);
    let finished = cache.run(&load("100", &["--duration", "200ms"]));
    assert_eq!(finished.json()["calibration"]["connections"], 5);
    for part in ["the calibration of this load is not used", "another build", "of another load"] {
        assert!(finished.stderr.contains(part), "{part}: {}", finished.stderr);
    }
    run(load("100", &["--duration", "200ms"])).expect(0);
}
