//! `floodline proxy`: a fault between a client and a server, by rule, and the account of it.

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::process::{Running, Server, floodline, run};

/// A proxy in front of `server`, and the URL through it.
fn proxy(server: &Server, more: &[&str]) -> (Running, String) {
    let to = server.url.trim_start_matches("ws://").trim_end_matches("/ws").to_owned();
    let mut proxy =
        Running::start(floodline(["proxy", "--to", &to].iter().copied().chain(more.iter().copied())));
    let listening: Value = serde_json::from_str(&proxy.line()).unwrap();
    assert_eq!(listening["pid"], proxy.pid());
    let url = format!("ws://{}/ws", listening["listening"].as_str().unwrap());
    (proxy, url)
}

/// What the proxy printed behind the line that says where it listens.
fn injections(stdout: &str) -> Vec<&str> {
    stdout.lines().skip(1).collect()
}

#[test]
fn without_a_rule_everything_passes_through() {
    let server = Server::start(&[]);
    let (proxy, url) = proxy(&server, &[]);
    let load = run([
        "load",
        "--target",
        &url,
        "--rate",
        "500",
        "--duration",
        "1s",
        "--connections",
        "4",
        "--json",
        "-",
    ]);
    assert_eq!(load.expect(0).json()["messages"]["answered"], 500);
    proxy.signal(Signal::SIGTERM);
    assert_eq!(injections(&proxy.wait().expect(0).stdout), [""; 0]);
}

#[test]
fn every_connection_that_a_rule_resets_is_missed_by_the_client_and_named_by_the_proxy() {
    let server = Server::start(&[]);
    let (proxy, url) = proxy(&server, &["--rule", "drop=rst,connections=0+2,from=1s", "--json"]);
    let load = run([
        "load",
        "--target",
        &url,
        "--rate",
        "200",
        "--duration",
        "3s",
        "--connections",
        "4",
        "--json",
        "-",
    ]);
    let result = load.expect(1).json();
    assert_eq!(result["connections"]["dropped"], 2, "{}", result["connections"]);
    proxy.signal(Signal::SIGINT);
    let finished = proxy.wait().expect(0);
    let injections: Vec<Value> =
        injections(&finished.stdout).into_iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let mut hit: Vec<u64> =
        injections.iter().map(|injection| injection["connection"].as_u64().unwrap()).collect();
    hit.sort_unstable();
    assert_eq!(hit, [0, 2], "{}", finished.stdout);
    assert!(
        injections.iter().all(|injection| injection["action"].to_string().contains("reset")),
        "{injections:?}"
    );
}

#[test]
fn what_makes_no_sense_is_refused_with_the_flag_and_the_value() {
    run(["proxy"]).expect(2).says(&["--to"]);
    run(["proxy", "--to", "nowhere"]).expect(2).says(&["--to", "nowhere"]);
    run(["proxy", "--to", "127.0.0.1:9", "--rule", "latency=soon"])
        .expect(2)
        .says(&["--rule", "latency=soon"]);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    run(["proxy", "--to", "127.0.0.1:9", "--listen", &address]).expect(2).says(&["--listen", &address]);
}
