//! Running the binary: every child has an overall time-out and does not outlive its test.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// Long enough for a machine under load; a child that needs it fails its test.
pub const PATIENCE: Duration = Duration::from_secs(180);
/// How long a poll of the system pauses.
const POLL: Duration = Duration::from_millis(5);

/// The built binary with `args`: no setting from outside, in a directory without a configuration file.
pub fn floodline<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_floodline"));
    command.args(args).current_dir(env!("CARGO_TARGET_TMPDIR"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| is_ours(name)) {
        command.env_remove(name);
    }
    command.env("FLOODLINE_CACHE", concat!(env!("CARGO_TARGET_TMPDIR"), "/not-calibrated"));
    command
}

/// The same, under a hard limit of open files.
pub fn floodline_with_files(files: u32, args: &[&str]) -> Command {
    floodline_after("sh", &format!("ulimit -n {files}"), args)
}

/// The same, where so many of the files that the limit allows are taken from the start. By `bash`, since other shells number
/// ten files at most.
pub fn floodline_with_files_taken(files: u32, taken: u32, args: &[&str]) -> Command {
    let last = 9 + taken;
    let take = format!("for n in $(seq 10 {last}); do eval \"exec $n</dev/null\"; done");
    floodline_after("bash", &format!("ulimit -n {files} && {take}"), args)
}

/// The same, behind what a shell does first.
fn floodline_after(shell: &str, first: &str, args: &[&str]) -> Command {
    let mut command = Command::new(shell);
    let script = format!("{first} && exec \"$@\"");
    command.args(["-c", &script, "sh", env!("CARGO_BIN_EXE_floodline")]).args(args);
    command.current_dir(env!("CARGO_TARGET_TMPDIR"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| is_ours(name)) {
        command.env_remove(name);
    }
    command.env("FLOODLINE_CACHE", concat!(env!("CARGO_TARGET_TMPDIR"), "/not-calibrated"));
    command
}

/// Runs it to its end with `args`.
pub fn run<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Finished {
    Running::start(floodline(args)).wait()
}

fn is_ours(name: &OsStr) -> bool {
    name.to_string_lossy().starts_with("FLOODLINE_")
}

/// A child that runs; killed when dropped.
pub struct Running {
    child: Child,
    lifeline: Option<ChildStdin>,
    lines: Receiver<String>,
    seen: String,
    errors: Receiver<String>,
    deadline: Instant,
}

/// How a child ended.
#[derive(Debug)]
pub struct Finished {
    /// Its exit code; `None` where a signal ended it.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
    /// From start to end.
    pub took: Duration,
}

impl Running {
    pub fn start(mut command: Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (line, lines) = mpsc::channel();
        let stdout = child.stdout.take().unwrap();
        std::thread::spawn(move || {
            let mut stdout = BufReader::new(stdout);
            let mut text = String::new();
            while stdout.read_line(&mut text).is_ok_and(|bytes| bytes > 0) {
                if line.send(std::mem::take(&mut text)).is_err() {
                    return;
                }
            }
        });
        let (error, errors) = mpsc::channel();
        let mut stderr = child.stderr.take().unwrap();
        std::thread::spawn(move || {
            let mut text = Vec::new();
            let _ = stderr.read_to_end(&mut text);
            let _ = error.send(String::from_utf8_lossy(&text).into_owned());
        });
        let lifeline = child.stdin.take();
        Self { child, lifeline, lines, seen: String::new(), errors, deadline: Instant::now() + PATIENCE }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The next line of its standard output.
    pub fn line(&mut self) -> String {
        let line = self.lines.recv_timeout(self.left()).expect("no line on standard output");
        self.seen.push_str(&line);
        line
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.pid()).unwrap()), signal).unwrap();
    }

    pub fn close_stdin(&mut self) {
        drop(self.lifeline.take());
    }

    /// Whether it has ended; fails the test where it should have long ago.
    #[track_caller]
    pub fn has_ended(&mut self) -> bool {
        let ended = self.child.try_wait().unwrap().is_some();
        assert!(ended || !self.left().is_zero(), "not ended after {PATIENCE:?}");
        ended
    }

    /// Waits until it ends by itself.
    pub fn wait(mut self) -> Finished {
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(!self.left().is_zero(), "not ended after {PATIENCE:?}; so far: {}", self.seen);
            std::thread::sleep(POLL);
        };
        let took = PATIENCE - self.left();
        loop {
            match self.lines.recv_timeout(self.left()) {
                Ok(line) => self.seen.push_str(&line),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => panic!("somebody still holds its standard output"),
            }
        }
        let stderr = self.errors.recv_timeout(self.left()).expect("somebody still holds its standard error");
        Finished { code: status.code(), stdout: std::mem::take(&mut self.seen), stderr, took }
    }

    fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only where it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Finished {
    /// Fails the test, showing everything, where the exit code is another.
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self:#?}");
        self
    }

    /// Fails the test where standard error lacks one of `parts`.
    #[track_caller]
    pub fn says(self, parts: &[&str]) -> Self {
        for part in parts {
            assert!(self.stderr.contains(part), "`{part}` is not in {}", self.stderr);
        }
        self
    }

    /// Standard output as one JSON object, and nothing else.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:#?}"))
    }
}

/// A `floodline serve` that listens.
pub struct Server {
    pub running: Running,
    pub url: String,
    /// The line that it printed.
    pub line: String,
}

impl Server {
    pub fn start(args: &[&str]) -> Self {
        Self::of(floodline(["serve"].iter().chain(args)))
    }

    pub fn of(command: Command) -> Self {
        let mut running = Running::start(command);
        let line = running.line();
        let listening: Value = serde_json::from_str(&line).unwrap();
        Self { running, url: listening["listening"].as_str().unwrap().to_owned(), line }
    }

    /// `host:port`.
    pub fn address(&self) -> &str {
        self.url.trim_start_matches("ws://").trim_end_matches("/ws")
    }
}

/// A path of its own in the directory for temporary files, absent at first.
pub fn scratch(name: &str) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{}-{name}", std::process::id()));
    let _ = std::fs::remove_file(&path);
    path
}

/// A port where nobody listens.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Waits for what happens on somebody else's time.
#[track_caller]
pub fn wait_until<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = condition() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        std::thread::sleep(POLL);
    }
}
