//! `floodline compare` and `floodline history`: what is the same is not accused, what is planted is found, what cannot be
//! compared is refused.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::process::{Finished, Running, Server, floodline, run, scratch};
use crate::schema;

/// An executable that is ours, but for what its `serve` is told besides.
fn build_with(fault: &str, name: &str) -> PathBuf {
    let path = scratch(name);
    let ours = env!("CARGO_BIN_EXE_floodline");
    std::fs::write(&path, format!("#!/bin/sh\nexec '{ours}' \"$@\" --fault '{fault}'\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// A comparison that is as short as can be, with what is known of the machine in a directory of its own. Under a paced load
/// it takes a third of the time that it takes under closed ones, of which there are three to nine a pair.
fn compare(cache: &Path, case: &str, a: &str, b: &str, more: &[&str]) -> Finished {
    let small = ["--pairs", "10", "--case", case, "--duration", "200ms", "--connections", "4"];
    let mut command = floodline(["compare", a, b].into_iter().chain(small).chain(more.iter().copied()));
    command.env("FLOODLINE_CACHE", cache);
    Running::start(command).wait()
}

fn metric<'a>(results: &'a Value, name: &str) -> &'a Value {
    let all = results["metrics"].as_array().unwrap();
    all.iter().find(|metric| metric["metric"] == name).unwrap_or_else(|| panic!("{name}: {results}"))
}

#[test]
fn a_build_that_takes_six_times_the_cpu_is_worse_and_what_is_known_of_the_noise_is_used_again() {
    let cache = scratch("compare-cache");
    let ours = env!("CARGO_BIN_EXE_floodline");
    // A server that wastes time answers together what came meanwhile, and so saves some of it, the more the busier the
    // machine is: far less than six times is seen.
    let slow = build_with("burn-cpu=5", "slow-build");
    let markdown = scratch("compare.md");
    let more = ["--json", "-", "--markdown", markdown.to_str().unwrap()];
    let finished = compare(&cache, "paced", ours, slow.to_str().unwrap(), &more).expect(1);
    assert!(finished.stderr.contains("measuring first what A and A differ by"), "{}", finished.stderr);
    let found = finished.json();
    assert_eq!((&found["schema"], &found["verdict"]), (&json!("floodline.compare/1"), &json!("fail")));
    assert_eq!((&found["pairs"], &found["method"]), (&json!(10), &json!("interleaved")));
    schema::validates("compare", &found);
    let cpu = metric(&found, "server_cpu_us_per_message");
    assert_eq!(cpu["verdict"], "worse", "{cpu}");
    assert!(cpu["ratio"].as_f64().unwrap() > 1.5 && cpu["p_adjusted"].as_f64().unwrap() < 0.05, "{cpu}");
    assert_eq!(cpu["pairs"].as_array().unwrap().len(), 10);
    assert_eq!(found["a"]["due"], found["a"]["answered"]);
    let written = std::fs::read_to_string(markdown).unwrap();
    assert!(
        written.contains("| server\\_cpu\\_us\\_per\\_message |") && written.contains("**worse"),
        "{written}"
    );
    assert!(finished.stderr.contains("server_cpu_us_per_message"), "{}", finished.stderr);

    // On a quiet machine it is known now; on a busy one nothing is kept, and it is said.
    let known = cache.join("comparisons.json");
    let kept = known.exists();
    let noted = found["notes"].to_string();
    assert!(kept || noted.contains("is not kept"), "{noted}");
    if kept {
        let again = compare(&cache, "paced", ours, slow.to_str().unwrap(), &[]).expect(1);
        assert!(again.stdout.contains("WORSE"), "{}", again.stdout);
        assert!(!again.stderr.contains("measuring first"), "{}", again.stderr);
        // Another build of the one that measures, and another way to, have another noise.
        let mut outdated: Value = serde_json::from_str(&std::fs::read_to_string(&known).unwrap()).unwrap();
        outdated["comparisons"][0]["generator"]["executable_crc32"] = json!(1);
        std::fs::write(&known, outdated.to_string()).unwrap();
        let stale = compare(&cache, "paced", ours, slow.to_str().unwrap(), &["--own-client"]);
        assert!(stale.stderr.contains("measuring first"), "{}", stale.stderr);
        assert_eq!(stale.code, Some(1), "{stale:?}");
    }
    let _ = std::fs::remove_dir_all(cache);
}

#[test]
fn two_servers_are_compared_by_their_urls() {
    let cache = scratch("urls-cache");
    let servers = [Server::start(&[]), Server::start(&[])];
    let pids = format!("{},{}", servers[0].running.pid(), servers[1].running.pid());
    let finished =
        compare(&cache, "closed", &servers[0].url, &servers[1].url, &["--pids", &pids, "--json", "-"]);
    let found = finished.json();
    // Two of the same: the chance of a false alarm is small, and is no matter of this test.
    assert!(finished.code == Some(0) || finished.code == Some(1), "{finished:?}");
    assert!(metric(&found, "throughput_per_second")["a"].as_f64().unwrap() > 0.0);
    assert!(metric(&found, "server_cpu_us_per_message")["b"].as_f64().unwrap() > 0.0);
    let _ = std::fs::remove_dir_all(cache);
}

/// A short load, its JSON in a file; passed, whatever a busy machine made of it: its verdict is no matter here.
fn load(name: &str, more: &[&str]) -> String {
    let path = scratch(name).to_str().unwrap().to_owned();
    let args =
        ["load", "--rate", "500", "--duration", "300ms", "--connections", "4", "--payload-bytes", "64"];
    run(args.into_iter().chain(["--json", &path]).chain(more.iter().copied()));
    edit(&path, |result| result["verdict"] = json!("pass"));
    path
}

fn edit(path: &str, change: impl FnOnce(&mut Value)) {
    let mut result: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    change(&mut result);
    std::fs::write(path, result.to_string()).unwrap();
}

#[test]
fn results_are_compared_where_load_and_machine_are_the_same() {
    let (a, b) = (load("a.json", &[]), load("b.json", &[]));
    let finished = run(["compare", &a, &b, "--json", "-"]);
    let found = finished.json();
    assert_eq!((&found["method"], &found["pairs"]), (&json!("results"), &json!(0)));
    schema::validates("compare", &found);
    assert!(metric(&found, "latency_p99_us")["ratio"].as_f64().unwrap() > 0.0);
    // Not a second long: there are ratios, and nothing to judge them by.
    finished.expect(3).says(&["unknown"]);

    let other = load("other.json", &[]);
    edit(&other, |result| result["workload"]["rate"] = json!(400.0));
    run(["compare", &a, &other]).expect(2).says(&["`rate` differs", "--force"]);
    run(["compare", &a, &other, "--force"]).expect(3);
    edit(&b, |result| result["environment"]["cpu"] = json!("another one"));
    run(["compare", &a, &b]).expect(2).says(&["different machines"]);
}

#[test]
fn what_cannot_be_compared_is_named() {
    let ours = env!("CARGO_BIN_EXE_floodline");
    let result = load("one.json", &[]);
    for (args, parts) in [
        (vec![ours, "/nowhere/at/all"], vec!["/nowhere/at/all"]),
        (vec![ours, &result], vec!["a result can be compared with a result only"]),
        (vec![ours, ours, "--pairs", "9"], vec!["--pairs", "at least 10"]),
        (vec![ours, ours, "--case", "quick"], vec!["--case", "paced and closed"]),
        (vec![ours, ours, "--threshold", "0.1"], vec!["--threshold"]),
        (vec![ours, ours, "--pids", "1,2"], vec!["--pids"]),
        (vec![&result, &result, "--threshold", "-1"], vec!["--threshold", "-1"]),
        (vec![&result, &result, "--case", "none"], vec!["none"]),
    ] {
        run(["compare"].into_iter().chain(args)).expect(2).says(&parts);
    }
    let dead = run(["compare", "/bin/false", ours]);
    dead.expect(4).says(&["/bin/false"]);
}

#[test]
fn what_is_appended_is_listed_and_drawn() {
    let file = scratch("history.db");
    let name = file.to_str().unwrap();
    load("kept-1.json", &["--history", name]);
    load("kept-2.json", &["--history", name]);
    let json = run(["history", name, "--json", "-"]).expect(0).json();
    schema::validates("history", &json);
    let runs = json["runs"].as_array().unwrap();
    assert_eq!(runs.len(), 2);
    assert!(runs.iter().all(|run| run["command"] == "load" && run["loads"] == 1), "{runs:?}");
    let latency = json["series"]
        .as_array()
        .unwrap()
        .iter()
        .find(|series| series["metric"] == "latency_us.p50")
        .unwrap();
    let of_load: Value =
        serde_json::from_str(&std::fs::read_to_string(scratch_of("kept-1.json")).unwrap()).unwrap();
    assert_eq!(latency["points"][0]["value"], of_load["latency_us"]["p50"]);
    assert_eq!(latency["changes"], json!([]));

    let page = scratch("history.html");
    let listed =
        run(["history", name, "--metric", "messages.due", "--html", page.to_str().unwrap()]).expect(0);
    assert!(listed.stdout.contains("1 series, 2 values") && listed.stdout.contains("no change of level"));
    let page = std::fs::read_to_string(page).unwrap();
    assert!(page.contains("<h3>load messages.due</h3>") && page.contains("<svg"), "{page:.500}");

    run(["history", "/nowhere/history.db"]).expect(2).says(&["/nowhere/history.db"]);
    run(["load", "--history", "/nowhere/history.db", "--duration", "1s"]).expect(2).says(&["--history"]);
    let _ = std::fs::remove_file(file);
}

/// The path that [`scratch`] gave, with what is there.
fn scratch_of(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{}-{name}", std::process::id()))
}
