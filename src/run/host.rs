//! The server of a plan: our own, or one that is there; whether it can be killed and started again, and who is let in.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::keys::{Bearer, Keys};
use super::plan::Venue;
use super::restart::{self, Restart};
use super::{Peer, ServerCommand, ServerProcess, ServerProcessError};
use crate::client::{Access, TcpConnect};
use crate::workload::Target;

/// Where a plan's server is.
#[derive(Debug)]
pub(super) struct Host {
    keeper: Keeper,
    place: Mutex<Place>,
    /// The id of its process where we follow it from one to the next; 0 while there is none.
    pid_now: Arc<AtomicU32>,
    /// How those get in who are let in.
    access: Access,
    /// What our own server lets in, where it asks.
    keys: Option<Keys>,
}

/// Who starts the server again.
#[derive(Debug)]
enum Keeper {
    /// We do.
    Own { command: ServerCommand, process: Mutex<Option<ServerProcess>> },
    /// Its owner does.
    Owner(Restart),
    /// Nobody.
    Nobody,
}

#[derive(Debug, Clone)]
struct Place {
    target: Target,
    pid: Option<u32>,
}

impl Host {
    /// Starts our own server with `args` beside those of the command, or takes the one that is there. `keys` are what our
    /// own was told to let in.
    pub(super) fn of(venue: &Venue, args: &[String], keys: Option<Keys>) -> Result<Self, ServerProcessError> {
        let access = match &keys {
            Some(keys) => Access { tokens: keys.known(), ..venue.access.clone() },
            None => venue.access.clone(),
        };
        let (keeper, place) = match &venue.peer {
            Peer::At { target, pid } => {
                let keeper = venue.restart.clone().map_or(Keeper::Nobody, Keeper::Owner);
                (keeper, Place { target: target.clone(), pid: *pid })
            }
            Peer::Own(ServerCommand { executable, args: first }) => {
                let args = first.iter().chain(args).cloned().collect();
                let command = ServerCommand { executable: executable.clone(), args };
                let process = ServerProcess::start(&command)?;
                let place = Place::of(&process);
                (Keeper::Own { command, process: Mutex::new(Some(process)) }, place)
            }
        };
        let pid_now = Arc::new(AtomicU32::new(place.pid.unwrap_or_default()));
        Ok(Self { keeper, place: Mutex::new(place), pid_now, access, keys })
    }

    /// Whether it is our own.
    pub(super) fn is_own(&self) -> bool {
        matches!(self.keeper, Keeper::Own { .. })
    }

    /// Whether it can be killed and started again.
    pub(super) fn can_be_killed(&self) -> bool {
        !matches!(self.keeper, Keeper::Nobody)
    }

    /// Where it listens now.
    pub(super) fn target(&self) -> Target {
        lock(&self.place).target.clone()
    }

    /// Its process, where it is known.
    pub(super) fn pid(&self) -> Option<u32> {
        lock(&self.place).pid
    }

    /// The id of its process, kept up to date for whoever measures it, where it may change.
    pub(super) fn pid_now(&self) -> Option<Arc<AtomicU32>> {
        self.can_be_killed().then(|| Arc::clone(&self.pid_now))
    }

    /// How those get in who are let in.
    pub(super) fn access(&self) -> Access {
        self.access.clone()
    }

    /// How somebody with `bearer` tries to get in.
    ///
    /// # Errors
    /// Why that cannot be tried here.
    pub(super) fn access_of(&self, bearer: Bearer) -> Result<Access, &'static str> {
        if self.access.tokens.is_empty() {
            return Err("no token is known: without --token-env or --token-file anybody may come in");
        }
        let tokens = bearer.tokens(self.keys.as_ref())?;
        Ok(Access { tokens, ..self.access.clone() })
    }

    /// How many identities come in by the tokens that are known.
    pub(super) fn identities(&self) -> usize {
        self.access.tokens.len()
    }

    /// Kills it as a crash would (SIGKILL); where its process is not known, that is left to the command that starts it
    /// again.
    pub(super) fn kill(&self) {
        match &self.keeper {
            Keeper::Own { process, .. } => {
                let process = lock(process).take();
                if let Some(process) = process {
                    self.pid_now.store(0, Ordering::Release);
                    process.kill();
                }
            }
            Keeper::Owner(_) => {
                self.pid_now.store(0, Ordering::Release);
                self.pid().into_iter().for_each(restart::kill);
            }
            Keeper::Nobody => {}
        }
    }

    /// Starts it again, the same way; our own may listen elsewhere now.
    pub(super) fn start_again(&self) -> Result<(), ServerProcessError> {
        let place = match &self.keeper {
            Keeper::Own { command, process } => {
                let started = ServerProcess::start(command)?;
                let place = Place::of(&started);
                *lock(process) = Some(started);
                place
            }
            Keeper::Owner(restart) => {
                let failed = |cause| ServerProcessError::Restart { command: restart.what.clone(), cause };
                let pid = restart.again(self.pid()).map_err(failed)?;
                let target = self.target();
                let addresses = TcpConnect::new(target.clone(), self.access());
                if let Ok(connect) = addresses
                    && !restart::await_listener(connect.addresses())
                {
                    return Err(failed(format!("nobody listens at {target} when it is over")));
                }
                Place { target, pid }
            }
            Keeper::Nobody => return Ok(()),
        };
        self.pid_now.store(place.pid.unwrap_or_default(), Ordering::Release);
        *lock(&self.place) = place;
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
