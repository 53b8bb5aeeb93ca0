//! Killing a server that is not our own, and starting it again, as its owner says.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long the command may take.
const RESTARTED_WITHIN: Duration = Duration::from_secs(30);
/// How long the server may take to listen when the command is over.
const LISTENS_WITHIN: Duration = Duration::from_secs(10);
/// How often it is looked whether it does.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// The variable that names the file to which the command may write the id of the new process.
const PID_FILE: &str = "FLOODLINE_PID_FILE";
/// The variable that holds the id of the process that is to be killed, where that is known.
const PID: &str = "FLOODLINE_PID";

/// Starts a server again that is dead, or is to be killed first; the new process, where it is known.
type Again = dyn Fn(Option<u32>) -> Result<Option<u32>, String> + Send + Sync;

/// How a server that is not our own is started again.
#[derive(Clone)]
pub struct Restart {
    /// For messages.
    pub(super) what: String,
    again: Arc<Again>,
}

impl Restart {
    /// By a command of `sh`, which must end when the server runs. `FLOODLINE_PID` is the process, where it is known, and
    /// then it is dead already; else the command has to kill it. To the file that `FLOODLINE_PID_FILE` names it may write
    /// the id of the new one.
    #[must_use]
    pub fn command(command: impl Into<String>) -> Self {
        let what = command.into();
        let command = what.clone();
        Self { what, again: Arc::new(move |pid| run(&command, pid)) }
    }

    /// By a function, which is given the process where it is known, and then it is dead already; it gives the new one.
    pub fn with(
        what: impl Into<String>,
        again: impl Fn(Option<u32>) -> Result<Option<u32>, String> + Send + Sync + 'static,
    ) -> Self {
        Self { what: what.into(), again: Arc::new(again) }
    }

    pub(super) fn again(&self, pid: Option<u32>) -> Result<Option<u32>, String> {
        (self.again)(pid)
    }
}

impl fmt::Debug for Restart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Restart").field(&self.what).finish()
    }
}

/// Kills the process at once, as a crash would. One that has ended already is as good.
pub(super) fn kill(pid: u32) {
    #[cfg(unix)]
    if let Ok(pid) = i32::try_from(pid) {
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
    }
    #[cfg(not(unix))]
    let _ = pid;
}

/// Runs the command and waits for its end: then the server was killed, where its process is not known to us, and is
/// started again. The new process, where the command says it.
fn run(command: &str, pid: Option<u32>) -> Result<Option<u32>, String> {
    let io_failed = |error: io::Error| error.to_string();
    let pid_file = tempfile::NamedTempFile::new().map_err(io_failed)?;
    let mut shell = shell(command);
    shell.env(PID_FILE, pid_file.path()).stdin(Stdio::null()).stdout(Stdio::null());
    if let Some(pid) = pid {
        shell.env(PID, pid.to_string());
    }
    let mut child = shell.spawn().map_err(io_failed)?;
    match ended(&mut child).map_err(io_failed)? {
        Some(status) if status.success() => {}
        Some(status) => return Err(format!("it ended with {status}")),
        None => {
            // Both fail only where it has ended already.
            let _ = child.kill();
            let _ = child.wait();
            let seconds = RESTARTED_WITHIN.as_secs();
            return Err(format!("it did not end within {seconds} s; the server must go on without it"));
        }
    }
    let said = std::fs::read_to_string(pid_file.path()).map_err(io_failed)?;
    match said.trim() {
        "" => Ok(None),
        text => text.parse().map(Some).map_err(|_| format!("`{text}` in {PID_FILE} is no process")),
    }
}

/// Waits until somebody listens at one of the addresses.
pub(super) fn await_listener(addresses: &[SocketAddr]) -> bool {
    let deadline = Instant::now() + LISTENS_WITHIN;
    loop {
        if addresses.iter().any(|address| TcpStream::connect_timeout(address, LISTENS_WITHIN).is_ok()) {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

fn shell(command: &str) -> Command {
    #[cfg(unix)]
    {
        let mut shell = Command::new("sh");
        shell.args(["-c", command]);
        // Ctrl-C is for the load: the server goes on as it did before.
        std::os::unix::process::CommandExt::process_group(&mut shell, 0);
        shell
    }
    #[cfg(not(unix))]
    {
        let mut shell = Command::new("cmd");
        shell.args(["/C", command]);
        shell
    }
}

fn ended(child: &mut Child) -> io::Result<Option<ExitStatus>> {
    let deadline = Instant::now() + RESTARTED_WITHIN;
    while Instant::now() < deadline {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        std::thread::sleep(LOOK_EVERY);
    }
    Ok(None)
}
