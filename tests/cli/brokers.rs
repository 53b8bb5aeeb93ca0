//! The dialects against servers that others wrote: Mosquitto, NATS, RabbitMQ, Socket.IO, echo servers of Node and Python, and a
//! JSON service in Python.
//!
//! Where a server is not installed, its test says so and tests nothing.

use std::io::Write;
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Command;

use crate::contract::{self, count};
use crate::process::{Finished, Running, floodline, free_port, scratch, wait_until};
use crate::third_party::{node, python};

/// Not in any text that a test expects.
const PASSWORD: &str = "pAsS-5f2c91";

/// Offers a load of 400 messages to `url` with these flags.
fn load(url: &str, flags: &[&str]) -> Finished {
    let load =
        ["load", "--target", url, "--rate", "400", "--connections", "4", "--duration", "1s", "--json", "-"];
    let mut command = floodline(load.iter().chain(flags));
    command.env("SOME_PASSWORD", PASSWORD);
    Running::start(command).wait()
}

/// All is answered, and nothing else came.
#[track_caller]
fn is_answered(url: &str, flags: &[&str]) {
    let run = load(url, flags).expect(0).json();
    contract::check(&run);
    assert_eq!((count(&run, "due"), count(&run, "answered")), (400, 400), "{}", run["messages"]);
    assert_eq!(run["unmatched"], serde_json::json!([]));
}

/// The same with two subscribers a topic: every copy comes.
#[track_caller]
fn is_fanned_out(url: &str, flags: &[&str]) {
    let run = load(url, &[flags, &["--fan-out", "2"]].concat()).expect(0).json();
    contract::check(&run);
    let fan_out = &run["fan_out"];
    assert_eq!((count(&run, "answered"), count(&run, "foreign")), (400, 0), "{}", run["messages"]);
    assert_eq!((fan_out["expected"].as_u64(), fan_out["received"].as_u64()), (Some(800), Some(800)));
    assert_eq!(fan_out["reach"], 1.0, "{fan_out}");
    assert_eq!(fan_out["skew_us"]["count"], 400, "{fan_out}");
}

/// The server refuses the opening, in its own words; the password is not among ours.
#[track_caller]
fn is_refused(url: &str, flags: &[&str], said: &str) {
    let finished = load(url, flags).expect(4).says(&["did not accept the opening", said]);
    assert!(!finished.stderr.contains(PASSWORD), "{}", finished.stderr);
}

/// A program, where it is installed; said aloud where it is not.
fn installed(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // What Debian puts into the path for RabbitMQ becomes another user first, who may not write where the tests do.
    let first = [PathBuf::from("/usr/lib/rabbitmq/bin")];
    let last = [PathBuf::from("/usr/sbin"), PathBuf::from("/usr/local/sbin")];
    let places = first.into_iter().chain(std::env::split_paths(&path)).chain(last);
    let found = places.map(|place| place.join(name)).find(|file| file.is_file());
    if found.is_none() {
        // Not by `println!`, which the harness keeps to itself where a test passes.
        let _ = writeln!(std::io::stderr(), "SKIPPED, {name} is not talked to: it is not installed");
    }
    found
}

/// Starts a server with a configuration file, and waits until its port takes connections.
fn start(program: PathBuf, name: &str, port: u16, config: &str) -> Running {
    let file = scratch(name);
    std::fs::write(&file, config).unwrap();
    let mut command = Command::new(program);
    command.arg("-c").arg(&file);
    listening(command, name, port)
}

/// Starts a server, and waits until its port takes connections.
fn listening(command: Command, name: &str, port: u16) -> Running {
    let mut server = Running::start(command);
    wait_until("a server's port", || {
        assert!(!server.has_ended(), "{name} has ended");
        TcpStream::connect(("127.0.0.1", port)).ok()
    });
    server
}

fn mosquitto(name: &str, options: &str) -> Option<(Running, String)> {
    let program = installed("mosquitto")?;
    let port = free_port();
    // Version 2.0.11 ends where it finds no listener beside that of WebSockets.
    let config = format!(
        "listener {} 127.0.0.1\nlistener {port} 127.0.0.1\nprotocol websockets\nmax_queued_messages 0\n{options}\n",
        free_port()
    );
    Some((start(program, name, port, &config), format!("ws://127.0.0.1:{port}/mqtt")))
}

#[test]
fn mosquitto_is_driven() {
    let Some((_server, url)) = mosquitto("mosquitto.conf", "allow_anonymous true") else { return };
    is_answered(&url, &["--dialect", "mqtt"]);
    is_answered(&url, &["--dialect", "mqtt", "--mqtt-qos", "1", "--mqtt-topic", "a/b"]);
    is_fanned_out(&url, &["--dialect", "mqtt"]);
}

#[test]
fn mosquitto_refuses_who_may_not() {
    let Some((_server, url)) = mosquitto("mosquitto-closed.conf", "allow_anonymous false") else { return };
    is_refused(&url, &["--dialect", "mqtt"], "CONNACK 5: NotAuthorized");
    let credentials = ["--dialect", "mqtt", "--user", "me", "--password-env", "SOME_PASSWORD"];
    is_refused(&url, &credentials, "CONNACK 5: NotAuthorized");
}

fn nats(name: &str, options: &str) -> Option<(Running, String)> {
    let program = installed("nats-server")?;
    let (port, client_port) = (free_port(), free_port());
    let config = format!(
        "listen: \"127.0.0.1:{client_port}\"\nwebsocket {{ listen: \"127.0.0.1:{port}\", no_tls: true }}\n{options}\n"
    );
    Some((start(program, name, port, &config), format!("ws://127.0.0.1:{port}/")))
}

#[test]
fn nats_is_driven() {
    let Some((_server, url)) = nats("nats.conf", "") else { return };
    is_answered(&url, &["--dialect", "nats"]);
    is_answered(&url, &["--dialect", "nats", "--nats-subject", "a.b"]);
    is_fanned_out(&url, &["--dialect", "nats"]);
}

#[test]
fn nats_lets_in_by_password_and_refuses_without() {
    let authorization = format!("authorization {{ user: me, password: \"{PASSWORD}\" }}");
    let Some((_server, url)) = nats("nats-closed.conf", &authorization) else { return };
    is_refused(&url, &["--dialect", "nats"], "Authorization Violation");
    is_answered(&url, &["--dialect", "nats", "--user", "me", "--password-env", "SOME_PASSWORD"]);
}

/// RabbitMQ with its web-stomp, for a user `me`; all that it writes is in a directory of its own. It finds itself by a name
/// server, which would go on when it has ended: so it is given one that ends with the test.
fn rabbitmq() -> Option<([Running; 2], String)> {
    let (program, epmd) = installed("rabbitmq-server").zip(installed("epmd"))?;
    let (names, port) = (free_port().to_string(), free_port());
    let mut name_server = Command::new(epmd);
    name_server.args(["-address", "127.0.0.1", "-port", &names]);
    let name_server = listening(name_server, "epmd", names.parse().unwrap());

    let home = scratch("rabbitmq");
    let _ = std::fs::remove_dir_all(&home);
    std::fs::create_dir(&home).unwrap();
    let config = format!(
        "listeners.tcp.1 = 127.0.0.1:{}\nstomp.listeners.tcp = none\nweb_stomp.tcp.ip = 127.0.0.1\n\
         web_stomp.tcp.port = {port}\ndefault_user = me\ndefault_pass = {PASSWORD}\nlog.console = true\n",
        free_port()
    );
    std::fs::write(home.join("rabbitmq.conf"), config).unwrap();
    std::fs::write(home.join("plugins"), "[rabbitmq_web_stomp].").unwrap();
    let mut command = Command::new(program);
    command.env("HOME", &home).env("ERL_EPMD_PORT", names).env("RABBITMQ_DIST_PORT", free_port().to_string());
    // Else a shell stays between us and the server, which would outlive it.
    command.envs([("RABBITMQ_ALLOW_INPUT", "1"), ("RABBITMQ_SERVER_START_ARGS", "-noinput")]);
    command.env("RABBITMQ_NODENAME", "floodline@localhost");
    for (name, file) in [
        ("CONFIG_FILE", "rabbitmq.conf"),
        ("ENABLED_PLUGINS_FILE", "plugins"),
        ("MNESIA_BASE", "data"),
        ("LOG_BASE", "log"),
        ("GENERATED_CONFIG_DIR", "generated"),
        ("PID_FILE", "pid"),
    ] {
        command.env(format!("RABBITMQ_{name}"), home.join(file));
    }
    let server = listening(command, "rabbitmq-server", port);
    Some(([server, name_server], format!("ws://127.0.0.1:{port}/ws")))
}

#[test]
fn rabbitmq_is_driven_and_refuses_who_may_not() {
    let Some((_servers, url)) = rabbitmq() else { return };
    let user = |name| ["--dialect", "stomp", "--user", name, "--password-env", "SOME_PASSWORD"];
    is_answered(&url, &user("me"));
    is_answered(&url, &[&user("me")[..], &["--stomp-destination", "/exchange/amq.topic/a"]].concat());
    is_fanned_out(&url, &user("me"));
    is_refused(&url, &user("nobody"), "Access refused for user 'nobody'");
}

/// A server of `tests/peers`, which prints its port; it ends with its standard input.
fn peer(command: Option<Command>) -> Option<(Running, String)> {
    let mut server = Running::start(command?);
    let url = format!("ws://127.0.0.1:{}/", server.line().trim());
    Some((server, url))
}

#[test]
fn socketio_is_driven() {
    let Some((_server, url)) = peer(node("socketio_server.js")) else { return };
    is_answered(&url, &["--dialect", "socketio"]);
    let closed = ["--dialect", "socketio", "--socketio-namespace", "/closed"];
    is_refused(&url, &closed, "nobody comes in here");
}

#[test]
fn echo_servers_are_driven() {
    for command in [node("ws_echo.js"), python("websockets_echo.py")] {
        let Some((_server, url)) = peer(command) else { continue };
        is_answered(&url, &["--dialect", "echo"]);
        is_answered(&url, &["--dialect", "echo", "--echo-frames", "binary"]);
    }
}

#[test]
fn a_json_service_is_driven() {
    let Some((_server, url)) = peer(python("json_service.py")) else { return };
    let request = r#"{"ask":"{id}","text":"{payload}"}"#;
    let service = ["--dialect", "json", "--json-request", request, "--json-id", "/reply/id"];
    let pushes = ["--json-content", "/reply/text", "--json-ignore", "/push", "--json-login-ok", "/welcome"];
    let of = |login| [&service[..], &pushes, &["--json-login", login]].concat();
    is_answered(&url, &of(r#"{"login":"s3same"}"#));
    is_refused(&url, &of(r#"{"login":"open"}"#), "wrong password");
}
