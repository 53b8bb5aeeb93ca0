//! A server in a process of its own, so that CPU and memory are attributed to the right side and killing it is a real
//! kill.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::workload::{Target, TargetError};

/// How long a server may take until it says where it listens.
const READY_WITHIN: Duration = Duration::from_secs(10);
/// How long it gets to end by itself.
const STOP_WITHIN: Duration = Duration::from_secs(35);

/// What a server prints, as one line of JSON, when it listens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listening {
    /// The URL to connect to.
    pub listening: String,
    /// The process.
    pub pid: u32,
}

/// How to start a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerCommand {
    /// The `floodline` executable. Never taken from the running process by itself: in a bench that would start the bench.
    pub executable: PathBuf,
    /// What follows `serve`.
    pub args: Vec<String>,
}

/// A server could not be started.
#[derive(Debug, Error)]
pub enum ServerProcessError {
    /// The executable cannot be run.
    #[error("cannot start the server {executable}: {cause}", executable = executable.display())]
    Spawn {
        /// What was to be run.
        executable: PathBuf,
        /// What the system says.
        cause: std::io::Error,
    },
    /// It never said where it listens.
    #[error("the server did not say where it listens: {cause}")]
    NotReady {
        /// What it did instead.
        cause: String,
    },
    /// The command of the server's owner did not start it again.
    #[error("--restart-command `{command}`: {cause}")]
    Restart {
        /// The command.
        command: String,
        /// What it did instead.
        cause: String,
    },
    /// What it said is no target.
    #[error("the server names no usable address: {0}")]
    Address(#[from] TargetError),
}

/// A running server; stopped when dropped.
#[derive(Debug)]
pub struct ServerProcess {
    child: Child,
    target: Target,
    /// The server ends when this closes, so it cannot outlive us, however we end.
    lifeline: Option<ChildStdin>,
}

impl ServerProcess {
    /// Starts `command` and waits until it listens.
    ///
    /// # Errors
    /// Where it does not start, or does not say where it listens within ten seconds.
    pub fn start(command: &ServerCommand) -> Result<Self, ServerProcessError> {
        let mut child = Command::new(&command.executable)
            .arg("serve")
            .args(["--listen", "127.0.0.1:0", "--until-stdin-closes"])
            .args(&command.args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|cause| ServerProcessError::Spawn { executable: command.executable.clone(), cause })?;
        let lifeline = child.stdin.take();
        let ready = child.stdout.take().map_or_else(|| Err("it has no output".to_owned()), first_line);
        let listening = ready.and_then(|line| {
            serde_json::from_str::<Listening>(&line).map_err(|_| format!("it printed `{}`", line.trim_end()))
        });
        match listening.map(|listening| listening.listening.parse()) {
            Ok(Ok(target)) => Ok(Self { child, target, lifeline }),
            Ok(Err(error)) => Err(give_up(child, error.into())),
            Err(cause) => Err(give_up(child, ServerProcessError::NotReady { cause })),
        }
    }

    /// Where it listens.
    #[must_use]
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends it at once, as a crash would (SIGKILL), and waits until it is gone.
    pub fn kill(mut self) {
        end(&mut self.child);
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        drop(self.lifeline.take());
        let patience = std::time::Instant::now() + STOP_WITHIN;
        while std::time::Instant::now() < patience {
            match self.child.try_wait() {
                Ok(Some(_)) | Err(_) => return,
                Ok(None) => std::thread::sleep(Duration::from_millis(2)),
            }
        }
        end(&mut self.child);
    }
}

fn give_up(mut child: Child, error: ServerProcessError) -> ServerProcessError {
    end(&mut child);
    error
}

fn end(child: &mut Child) {
    // Both fail only where it has ended already.
    let _ = child.kill();
    let _ = child.wait();
}

/// The first line of a server's output; the rest is read and dropped, so that the server never blocks on a full pipe.
fn first_line(output: std::process::ChildStdout) -> Result<String, String> {
    let (sender, line) = mpsc::channel();
    let reader = std::thread::Builder::new().name("server-output".to_owned()).spawn(move || {
        let mut output = BufReader::new(output);
        let mut first = String::new();
        let read = output.read_line(&mut first);
        let _ = sender.send(read.map(|bytes| (bytes, first)));
        let _ = std::io::copy(&mut output, &mut std::io::sink());
    });
    reader.map_err(|error| error.to_string())?;
    match line.recv_timeout(READY_WITHIN) {
        Ok(Ok((0, _))) => Err("it ended at once".to_owned()),
        Ok(Ok((_, line))) => Ok(line),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("nothing within {} s", READY_WITHIN.as_secs())),
    }
}
