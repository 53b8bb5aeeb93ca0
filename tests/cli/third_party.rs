//! The wire between us and another language: Python's `websockets` package, on either side.
//!
//! Where there is no Python, or no package and no way to install it, these tests say so and test nothing.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use crate::contract::{self, count};
use crate::process::{Running, Server, run};

/// The longest that making an environment and fetching the package may take.
const INSTALL_WITHIN: Duration = Duration::from_secs(40);

#[test]
fn a_server_in_python_is_driven() {
    let Some(mut command) = script("server.py") else { return };
    let mut server = Running::start({
        command.env("PYTHONUNBUFFERED", "1");
        command
    });
    let url = format!("ws://127.0.0.1:{}/", server.line().trim());
    let load = ["load", "--target", &url, "--rate", "200", "--connections", "5", "--duration", "2s"];
    let finished = run(load.into_iter().chain(["--json", "-"])).expect(0);
    let run = finished.json();
    contract::check(&run);
    assert_eq!((count(&run, "due"), count(&run, "answered")), (400, 400));
    server.close_stdin();
    server.wait().expect(0);
}

#[test]
fn a_client_in_python_is_served() {
    let Some(mut command) = script("client.py") else { return };
    let server = Server::start(&[]);
    command.arg(&server.url);
    let finished = Running::start(command).wait().expect(0);
    assert!(finished.stdout.ends_with("ok\n"), "{finished:#?}");
}

/// Runs a file of `tests/python`, where that is possible.
fn script(name: &str) -> Option<Command> {
    static PYTHON: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    match PYTHON.get_or_init(python) {
        Ok(python) => {
            let mut command = Command::new(python);
            command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python").join(name));
            Some(command)
        }
        Err(reason) => {
            // Not by `println!`, which the harness keeps to itself where a test passes.
            let _ =
                writeln!(std::io::stderr(), "SKIPPED, the wire to and from Python is not tested: {reason}");
            None
        }
    }
}

/// A Python with the package: the system's, else one of an environment under the target directory.
fn python() -> Result<PathBuf, String> {
    let system = PathBuf::from("python3");
    succeeds(Command::new(&system).arg("--version"))?;
    if has_package(&system) {
        return Ok(system);
    }
    let environment = Path::new(env!("CARGO_TARGET_TMPDIR")).join("python");
    let own = environment.join("bin/python3");
    if has_package(&own) {
        return Ok(own);
    }
    succeeds(Command::new(&system).args(["-m", "venv"]).arg(&environment))?;
    succeeds(Command::new(&own).args(["-m", "pip", "install", "--quiet", "--retries", "1", "websockets"]))?;
    if has_package(&own) { Ok(own) } else { Err("websockets was installed, but cannot be imported".into()) }
}

fn has_package(python: &Path) -> bool {
    succeeds(Command::new(python).args(["-c", "import websockets"])).is_ok()
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
