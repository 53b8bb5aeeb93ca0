//! The wire between us and other people's WebSocket implementations, on either side: Python's `websockets`, Python's
//! `wsproto`, which does no I/O and takes no liberties, and Node's `ws`.
//!
//! Where there is no Python or no Node, or no package and no way to install it, these tests say so and test nothing.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use crate::contract::{self, count};
use crate::process::{Running, Server, run};

/// The longest that making an environment and fetching the packages may take.
const INSTALL_WITHIN: Duration = Duration::from_secs(40);

#[test]
fn a_server_in_python_is_driven() {
    is_driven(python("websockets_server.py"));
}

#[test]
fn a_strict_server_in_python_is_driven() {
    is_driven(python("wsproto_server.py"));
}

#[test]
fn a_server_in_javascript_is_driven() {
    is_driven(node("ws_server.js"));
}

#[test]
fn a_client_in_python_is_served() {
    is_served(python("websockets_client.py"), |url| url);
}

#[test]
fn a_strict_client_in_python_is_served() {
    is_served(python("wsproto_client.py"), |url| url.trim_start_matches("ws://").trim_end_matches("/ws"));
}

#[test]
fn a_client_in_javascript_is_served() {
    is_served(node("ws_client.js"), |url| url);
}

/// Offers a load to a server of somebody else's, which must answer all of it and find nothing wrong with us.
#[track_caller]
fn is_driven(server: Option<Command>) {
    let Some(command) = server else { return };
    let mut server = Running::start(command);
    let url = format!("ws://127.0.0.1:{}/", server.line().trim());
    let load = ["load", "--target", &url, "--rate", "200", "--connections", "5", "--duration", "2s"];
    let finished = run(load.into_iter().chain(["--json", "-"])).expect(0);
    let run = finished.json();
    contract::check(&run);
    assert_eq!((count(&run, "due"), count(&run, "answered")), (400, 400));
    server.close_stdin();
    server.wait().expect(0);
}

/// Lets a client of somebody else's talk to our server and say whether all was well; it is given the `address` of the
/// server's URL.
#[track_caller]
fn is_served(client: Option<Command>, address: fn(&str) -> &str) {
    let Some(mut command) = client else { return };
    let server = Server::start(&[]);
    command.arg(address(&server.url));
    let finished = Running::start(command).wait().expect(0);
    assert!(finished.stdout.ends_with("ok\n"), "{finished:#?}");
}

/// Runs a file of `tests/peers` in Python, where that is possible.
pub fn python(file: &str) -> Option<Command> {
    static PYTHON: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let python = or_skip(PYTHON.get_or_init(find_python), file)?;
    let mut command = Command::new(python);
    command.arg(peers().join(file)).env("PYTHONUNBUFFERED", "1");
    Some(command)
}

/// Runs a file of `tests/peers` in Node, where that is possible.
pub fn node(file: &str) -> Option<Command> {
    static MODULES: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let modules = or_skip(MODULES.get_or_init(find_modules), file)?;
    let mut command = Command::new("node");
    command.arg(peers().join(file)).env("NODE_PATH", modules);
    Some(command)
}

fn or_skip<'a>(found: &'a Result<PathBuf, String>, file: &str) -> Option<&'a PathBuf> {
    // Not by `println!`, which the harness keeps to itself where a test passes.
    let say = |reason| writeln!(std::io::stderr(), "SKIPPED, {file} is not talked to: {reason}");
    found.as_ref().map_err(say).ok()
}

/// A Python with the packages: the system's, else one of an environment under the target directory.
fn find_python() -> Result<PathBuf, String> {
    let has_packages =
        |python: &Path| succeeds(Command::new(python).args(["-c", "import websockets, wsproto"])).is_ok();
    let system = PathBuf::from("python3");
    succeeds(Command::new(&system).arg("--version"))?;
    if has_packages(&system) {
        return Ok(system);
    }
    let environment = Path::new(env!("CARGO_TARGET_TMPDIR")).join("python");
    let own = environment.join("bin/python3");
    if has_packages(&own) {
        return Ok(own);
    }
    install("python", &environment)?;
    if has_packages(&own) { Ok(own) } else { Err("what was installed cannot be imported".into()) }
}

/// Where Node finds the packages: under the target directory.
fn find_modules() -> Result<PathBuf, String> {
    succeeds(Command::new("node").arg("--version"))?;
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("node");
    let modules = directory.join("node_modules");
    if !(modules.join("ws").is_dir() && modules.join("socket.io").is_dir()) {
        install("node", &directory)?;
    }
    Ok(modules)
}

fn install(language: &str, directory: &Path) -> Result<(), String> {
    succeeds(Command::new("sh").arg(peers().join("install.sh")).arg(language).arg(directory))
}

fn peers() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers")
}

fn succeeds(command: &mut Command) -> Result<(), String> {
    let failed = |cause: &dyn std::fmt::Display| format!("{command:?}: {cause}");
    let started = Command::new(command.get_program())
        .args(command.get_args())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let mut child = started.map_err(|error| failed(&error))?;
    let deadline = Instant::now() + INSTALL_WITHIN;
    let ended = loop {
        match child.try_wait() {
            Ok(Some(status)) if status.success() => break Ok(()),
            Ok(Some(status)) => break Err(failed(&status)),
            Ok(None) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(20)),
            Ok(None) => break Err(failed(&"took too long")),
            Err(error) => break Err(failed(&error)),
        }
    };
    // Both fail only where it has ended already.
    let _ = child.kill();
    let _ = child.wait();
    ended
}
