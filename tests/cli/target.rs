//! A target that cannot be reached, or refuses the handshake: exit code 4, and why.

use std::net::TcpListener;
use std::time::Duration;

use crate::process::{Finished, Running, Server, floodline, run, scratch};
use crate::servers::TestServer;

/// Not in any text that a test expects, nor in any id.
const TOKEN: &str = "tOkEn-5f2c91";

/// Offers a short load to `url`, which must end with 4 and name all of `parts`.
#[track_caller]
fn unreachable(url: &str, parts: &[&str]) -> Finished {
    let args = ["load", "--target", url, "--connections", "2", "--duration", "100ms", "--rate", "100"];
    let finished = run(args.into_iter().chain(["--connect-timeout", "500ms"])).expect(4).says(parts);
    assert_eq!(finished.stdout, "", "{url}");
    finished
}

#[test]
fn a_host_that_does_not_resolve_is_named() {
    // RFC 2606 keeps this name from ever resolving.
    unreachable("ws://floodline.invalid:9001/", &["floodline.invalid", "does not resolve"]);
}

#[test]
fn a_port_where_nobody_listens_is_named() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    unreachable(&format!("ws://{address}/"), &[&address, "refused"]);
}

#[test]
fn what_speaks_no_websocket_is_told_apart() {
    unreachable(&TestServer::http().url, &["HTTP 200"]);
    unreachable(&TestServer::closes().url, &["not a WebSocket server"]);
    let mute = TestServer::mute();
    unreachable(&mute.url, &["no handshake within 0.5 s"]);
    assert_eq!(mute.connections(), 2);
}

#[test]
fn a_tls_target_that_speaks_no_tls_is_unreachable() {
    let url = TestServer::http().url.replace("ws://", "wss://");
    unreachable(&url, &["TLS with 127.0.0.1"]);
}

#[test]
fn a_token_opens_the_door_and_is_never_shown() {
    let mut command = floodline(["serve", "--token-env", "WIRE_TOKEN"]);
    command.env("WIRE_TOKEN", TOKEN);
    let server = Server::of(command);
    unreachable(&server.url, &["401"]);

    let json = scratch("token.json");
    let load = |token: &str, duration: &str| {
        let mut command = floodline(["load", "--target", &server.url, "--token-env", "WIRE_TOKEN"]);
        command.args(["--connections", "2", "--rate", "100", "--duration", duration, "--json"]);
        command.arg(&json).env("WIRE_TOKEN", token);
        Running::start(command).wait()
    };
    let wrong = format!("{TOKEN}-not");
    let finished = load(&wrong, "200ms").expect(4).says(&["401"]);
    assert!(!finished.stderr.contains(TOKEN), "{}", finished.stderr);

    let finished = load(TOKEN, "200ms").expect(0);
    let written = std::fs::read_to_string(&json).unwrap();
    for text in [&finished.stdout, &finished.stderr, &written] {
        assert!(!text.is_empty() || text == &finished.stderr);
        assert!(!text.contains(TOKEN), "{text}");
    }
    let finished = load("no\ttab\nno line", "200ms").expect(2).says(&["--token-env"]);
    assert!(!finished.stderr.contains("no line"), "{}", finished.stderr);
}

#[test]
fn the_own_server_takes_the_token_too() {
    let mut command = floodline(["load", "--token-env", "WIRE_TOKEN", "--connections", "2", "--rate", "100"]);
    command.args(["--duration", "200ms", "--json", "-"]).env("WIRE_TOKEN", TOKEN);
    let finished = Running::start(command).wait().expect(0);
    assert_eq!(finished.json()["messages"]["answered"], 20);
    assert!(!finished.stdout.contains(TOKEN) && !finished.stderr.contains(TOKEN));
}

#[test]
fn a_target_that_lets_only_some_in_fails_the_check_and_is_no_error() {
    let server = Server::start(&["--max-connections", "3"]);
    let args =
        ["load", "--target", &server.url, "--connections", "5", "--rate", "100", "--duration", "500ms"];
    let finished = run(args.into_iter().chain(["--json", "-"])).expect(1);
    let run = finished.json();
    crate::contract::check(&run);
    assert_eq!(run["connections"]["requested"], 5);
    assert_eq!(run["connections"]["established"], 3);
    assert_eq!(run["connections"]["refused"], 2);
    assert!(finished.took < Duration::from_secs(20), "{:?}", finished.took);
}
