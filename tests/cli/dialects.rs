//! The dialects from the command line: what is said in flags, file and environment, what is refused, what is shown.

use serde_json::Value;

use crate::contract::{self, count};
use crate::process::{Finished, Running, floodline, run, scratch};
use crate::servers::TestServer;

const LOAD: [&str; 9] =
    ["load", "--rate", "200", "--connections", "2", "--duration", "500ms", "--answer-timeout", "1s"];
/// A service whose answer is the request.
const REQUEST: &str = r#"{"ask":{"id":"{id}"},"text":"{payload}","at":{now}}"#;

/// Offers a short load to `url` with these flags.
fn load(url: &str, flags: &[&str]) -> Finished {
    run(LOAD.iter().chain(&["--target", url]).chain(flags))
}

fn json(flags: &[&'static str]) -> Vec<&'static str> {
    let service = ["--dialect", "json", "--json-request", REQUEST, "--json-id", "/ask/id"];
    [&service[..], flags].concat()
}

#[track_caller]
fn all_answered(finished: Finished) -> Value {
    let run = finished.expect(0).json();
    contract::check(&run);
    assert_eq!((count(&run, "due"), count(&run, "answered")), (100, 100));
    assert_eq!(run["unmatched"], Value::Array(Vec::new()));
    run
}

#[test]
fn the_list_describes_every_dialect() {
    let listed = run(["list"]).expect(0).stdout;
    for name in ["floodline", "echo", "json", "mqtt", "nats", "stomp", "socketio"] {
        assert!(listed.contains(&format!("\n  {name:<20}")), "{listed}");
    }
}

#[test]
fn an_echo_server_takes_text_and_binary() {
    let server = TestServer::echo();
    for frames in ["text", "binary"] {
        let flags = ["--dialect", "echo", "--echo-frames", frames, "--json", "-"];
        assert_eq!(all_answered(load(&server.url, &flags))["workload"]["dialect"], "echo");
    }
}

#[test]
fn a_json_service_is_described_by_flags() {
    let server = TestServer::echo();
    let run = all_answered(load(&server.url, &json(&["--json-content", "/text", "--json", "-"])));
    assert_eq!(run["workload"]["dialect"], "json");
}

#[test]
fn a_json_service_is_described_by_file_and_environment() {
    let server = TestServer::echo();
    let file = scratch("json.toml");
    let text = format!(
        "[target]\ndialect = \"json\"\n[dialect.json]\nrequest = '{REQUEST}'\nid = \"/wrong\"\nlogin = '{{\"me\":\"{{env:WHO}}\"}}'\nlogin_ok = \"/me=you\"\n"
    );
    std::fs::write(&file, text).unwrap();
    let of = |who: Option<&str>| {
        let mut command = floodline(LOAD.iter().chain(&["--target", &server.url, "--json", "-", "--config"]));
        command.arg(&file).env("FLOODLINE_DIALECT_JSON_ID", "/ask/id");
        who.map(|who| command.env("WHO", who));
        Running::start(command).wait()
    };
    all_answered(of(Some("you")));
    of(Some("somebody")).expect(4).says(&["opening of the dialect json", r#"{"me":"[secret]"}"#]);
    of(None).expect(2).says(&["--json-login", "dialect.json.login", "WHO"]);
}

#[test]
fn a_secret_that_the_server_says_back_is_not_shown() {
    // In JSON the solidus may be escaped, and what is not ASCII.
    let secret = "s3cr/ét-5f2c91";
    let path = scratch("secret.json");
    let load = |server: &TestServer, flags: &[&str]| {
        let mut command = floodline(LOAD.iter().chain(&["--target", &server.url]).chain(flags));
        command.arg("--json").arg(&path).env("SECRET", secret);
        let finished = Running::start(command).wait();
        let written = std::fs::read_to_string(&path).unwrap_or_default();
        for text in [&finished.stdout, &finished.stderr, &written] {
            assert!(!text.contains("s3cr") && !text.contains("5f2c91"), "{text}");
        }
        (finished, written)
    };
    // In a refusal: the login comes back, or the whole CONNECT.
    let login = |ok| ["--json-login", r#"{"login":"{env:SECRET}"}"#, "--json-login-ok", ok];
    let refused = json(&login("/welcome"));
    load(&TestServer::echo(), &refused).0.expect(4).says(&[r#"it said: {"login":"[secret]"}"#]);
    let credentials = ["--user", "me", "--password-env", "SECRET"];
    let refused = [&["--dialect", "mqtt"][..], &credentials].concat();
    load(&TestServer::echo(), &refused).0.expect(4).says(&["it said: Connect", r#""[secret]""#]);
    // Among what matches nothing.
    let (finished, written) = load(&TestServer::remembers(), &json(&login("/login")));
    let run: Value = serde_json::from_str(&written).unwrap();
    assert_eq!((count(&run, "answered"), count(&run, "unattributed")), (100, 100));
    assert_eq!(run["unmatched"][9]["text"], r#"{"login":"[secret]"}"#);
    assert_eq!(finished.stdout.matches(r#"{"login":"[secret]"}"#).count(), 10, "{}", finished.stdout);
}

#[test]
fn what_matches_nothing_is_counted_and_the_first_ten_are_shown() {
    let server = TestServer::echo();
    let path = scratch("unmatched.json");
    let wrong = ["--dialect", "json", "--json-request", REQUEST, "--json-id", "/nobody", "--json"];
    let flags: Vec<&str> = wrong.into_iter().chain([path.to_str().unwrap()]).collect();
    let finished = load(&server.url, &flags).expect(1);
    let run: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    contract::check(&run);
    assert_eq!((count(&run, "unattributed"), count(&run, "lost")), (100, 100));
    let kept = run["unmatched"].as_array().unwrap();
    assert_eq!(kept.len(), 10);
    for unmatched in kept {
        assert_eq!(unmatched["kind"], "unattributed");
        let text = unmatched["text"].as_str().unwrap();
        assert!(text.starts_with(r#"{"ask":{"id":""#), "{text}");
        let shown = finished.stdout.lines().filter(|line| line.ends_with(text)).count();
        assert_eq!(shown, 1, "{}", finished.stdout);
    }
}

#[test]
fn settings_without_sense_are_refused_before_any_load() {
    let refused = |flags: &[&str], parts: &[&str]| {
        // Nobody is there, which would be exit code 4.
        load("ws://127.0.0.1:9/", flags).expect(2).says(parts);
    };
    refused(&["--dialect", "json"], &["--json-request", "dialect.json.request", "{id} or {sequence}"]);
    refused(&json(&["--json-content", "text"]), &["--json-content", "`text`", "begins with /"]);
    refused(&json(&["--json-refusal", "error=1"]), &["--json-refusal", "`error=1`"]);
    refused(&json(&["--json-ignore", "x"]), &["--json-ignore", "`x`"]);
    refused(&json(&["--json-login", "{}"]), &["--json-login-ok", "dialect.json.login_ok"]);
    refused(&["--dialect", "echo", "--echo-frames", "smoke"], &["--echo-frames", "smoke"]);
    refused(&["--dialect", "mqtt", "--mqtt-qos", "2"], &["--mqtt-qos", "dialect.mqtt.qos", "`2`"]);
    refused(&["--dialect", "mqtt", "--mqtt-topic", "a/#"], &["--mqtt-topic", "`a/#`"]);
    refused(&["--dialect", "nats", "--nats-subject", "a.*"], &["--nats-subject", "`a.*`"]);
    refused(&["--dialect", "stomp", "--stomp-host", ""], &["--stomp-host", "dialect.stomp.host"]);
    refused(&["--dialect", "socketio", "--socketio-namespace", "x"], &["--socketio-namespace", "`x`"]);
    refused(&["--dialect", "mqtt", "--password-env", "NO_SUCH"], &["--password-env", "NO_SUCH"]);
    refused(&["--dialect", "nats", "--payload-bytes", "8"], &["--payload-bytes", "dialect nats", "not 8"]);
    let shard = ["--dialect", "mqtt", "--fan-out", "2", "--shard", "0/2"];
    refused(&shard, &["--fan-out 2", "--shard"]);
    refused(&["--dialect", "mqtt", "--fan-out", "0"], &["--fan-out", "'0'"]);
    refused(&["--dialect", "smoke"], &["--dialect", "smoke", "socketio"]);
}
