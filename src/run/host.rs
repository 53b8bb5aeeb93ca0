//! The server of a plan: our own, which can be killed and started again, or one that is there.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Peer, ServerCommand, ServerProcess, ServerProcessError};
use crate::workload::Target;

/// Where a plan's server is.
#[derive(Debug)]
pub(super) struct Host {
    own: Option<Own>,
    place: Mutex<Place>,
    /// Where the process is our own: its id, 0 while there is none.
    pid_now: Arc<AtomicU32>,
}

#[derive(Debug)]
struct Own {
    command: ServerCommand,
    process: Mutex<Option<ServerProcess>>,
}

#[derive(Debug, Clone)]
struct Place {
    target: Target,
    pid: Option<u32>,
}

impl Host {
    /// Starts our own server with `args` beside those of the command, or takes the one that is there.
    pub(super) fn of(peer: &Peer, args: &[String]) -> Result<Self, ServerProcessError> {
        match peer {
            Peer::At { target, pid } => {
                let place = Mutex::new(Place { target: target.clone(), pid: *pid });
                Ok(Self { own: None, place, pid_now: Arc::default() })
            }
            Peer::Own(ServerCommand { executable, args: first }) => {
                let args = first.iter().chain(args).cloned().collect();
                let command = ServerCommand { executable: executable.clone(), args };
                let process = ServerProcess::start(&command)?;
                let place = Mutex::new(Place::of(&process));
                let pid_now = Arc::new(AtomicU32::new(process.pid()));
                Ok(Self { own: Some(Own { command, process: Mutex::new(Some(process)) }), place, pid_now })
            }
        }
    }

    /// Whether it is our own.
    pub(super) fn is_own(&self) -> bool {
        self.own.is_some()
    }

    /// Where it listens now.
    pub(super) fn target(&self) -> Target {
        lock(&self.place).target.clone()
    }

    /// Its process, where it is known.
    pub(super) fn pid(&self) -> Option<u32> {
        lock(&self.place).pid
    }

    /// The id of our own server's process, kept up to date for whoever measures it.
    pub(super) fn pid_now(&self) -> Option<Arc<AtomicU32>> {
        self.own.as_ref().map(|_| Arc::clone(&self.pid_now))
    }

    /// Kills our own server as a crash would (SIGKILL).
    pub(super) fn kill(&self) {
        let process = self.own.as_ref().and_then(|own| lock(&own.process).take());
        if let Some(process) = process {
            self.pid_now.store(0, Ordering::Release);
            process.kill();
        }
    }

    /// Starts it again, the same way; it may listen elsewhere now.
    pub(super) fn start_again(&self) -> Result<(), ServerProcessError> {
        if let Some(own) = &self.own {
            let process = ServerProcess::start(&own.command)?;
            *lock(&self.place) = Place::of(&process);
            self.pid_now.store(process.pid(), Ordering::Release);
            *lock(&own.process) = Some(process);
        }
        Ok(())
    }
}

impl Place {
    fn of(process: &ServerProcess) -> Self {
        Self { target: process.target().clone(), pid: Some(process.pid()) }
    }
}

/// What is under the lock is replaced whole, so after a panic elsewhere it is still good.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
