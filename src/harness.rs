//! Other people's servers under our cases, in their own repositories: as plain tests, and as Criterion benchmarks.
//!
//! ```no_run
//! use floodline::dialect::DialectKind;
//! use floodline::harness::Harness;
//!
//! # mod chat { pub struct Server; impl Server { pub fn start() -> Self { Self } pub fn url(&self) -> String { String::new() } } }
//! fn chat() -> Harness {
//!     Harness::in_process(|| {
//!         let server = chat::Server::start();
//!         (server.url(), server)
//!     })
//!     .dialect(DialectKind::Echo)
//! }
//!
//! #[test]
//! fn it_keeps_order() {
//!     chat().check("ordering");
//! }
//! ```
//!
//! and as `benches/chat.rs`, with `harness = false` in its `[[bench]]`: `fn main() -> ExitCode { chat().bench("chat") }`.
//!
//! A server in the process of the tests shares its CPU and its memory with the load: [`Harness::command`] measures them
//! apart, and can be killed. What a server cannot do is skipped with the reason, as
//! [`Need`](crate::scenario::Need) names it.

use std::any::Any;
use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpStream};
#[cfg(feature = "criterion")]
use std::process::ExitCode;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use thiserror::Error;

#[cfg(feature = "criterion")]
use crate::bench;
use crate::client::{Access, ConnectError, Stop, TcpConnect};
use crate::config::{ConfigError, HighVolumeConfig, Profile};
use crate::dialect::{DialectError, DialectKind, DialectSettings};
use crate::report::table;
use crate::result::{CaseResults, Verdict};
use crate::run::plan::{PlanError, Venue};
use crate::run::{GuardError, Peer, Restart};
use crate::scenario::{self, Case};
use crate::workload::{Target, TargetError};

/// How long a server's process may take until it listens.
const LISTENS_WITHIN: Duration = Duration::from_secs(30);
/// How often it is looked whether it does.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// A server that is not ours, how it is started, and how large the cases are.
#[derive(Clone)]
pub struct Harness {
    start: Start,
    dialect: DialectKind,
    access: Access,
    profile: Option<Profile>,
    settings: Vec<(String, String)>,
}

/// Starts a server: its URL, and what ends it when dropped.
type InProcess = dyn Fn() -> (String, Box<dyn Any>) + Send + Sync;

#[derive(Clone)]
enum Start {
    InProcess(Arc<InProcess>),
    Command { command: Arc<dyn Fn() -> Command + Send + Sync>, url: String },
    There(String),
}

/// A case could not take place.
#[derive(Debug, Error)]
pub enum HarnessError {
    /// There is no such case.
    #[error("no case is named `{name}`; there are {}", known())]
    Case {
        /// What was asked for.
        name: String,
    },
    /// The settings do not fit each other.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// They go beyond what `guard` allows.
    #[error(transparent)]
    Guard(#[from] GuardError),
    /// The dialect lacks something.
    #[error(transparent)]
    Dialect(#[from] DialectError),
    /// The URL is none.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// The server's host cannot be found, or may not be loaded.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The server's process does not start.
    #[error("the server does not start: {0}")]
    Start(#[from] io::Error),
    /// A phase could not take place.
    #[error(transparent)]
    Plan(#[from] PlanError),
}

impl Harness {
    /// A server in this process: the closure starts it, and gives its URL and what ends it when dropped. Each case has
    /// one of its own.
    pub fn in_process<G: 'static>(start: impl Fn() -> (String, G) + Send + Sync + 'static) -> Self {
        let start = move || {
            let (url, guard) = start();
            (url, Box::new(guard) as Box<dyn Any>)
        };
        Self::of(Start::InProcess(Arc::new(start)))
    }

    /// A server in a process of its own, which listens at `url` some time after its start. Its CPU and memory are
    /// measured, and where a case kills it, it is started again the same way. Each case has one of its own.
    pub fn command(url: impl Into<String>, command: impl Fn() -> Command + Send + Sync + 'static) -> Self {
        Self::of(Start::Command { command: Arc::new(command), url: url.into() })
    }

    /// A server that is there.
    pub fn at(url: impl Into<String>) -> Self {
        Self::of(Start::There(url.into()))
    }

    fn of(start: Start) -> Self {
        let (dialect, access) = (DialectKind::default(), Access::default());
        Self { start, dialect, access, profile: None, settings: Vec::new() }
    }

    /// What the server speaks; our own wire, where nothing is said.
    #[must_use]
    pub fn dialect(self, dialect: DialectKind) -> Self {
        Self { dialect, ..self }
    }

    /// How it is reached: tokens, TLS, which hosts may be loaded.
    #[must_use]
    pub fn access(self, access: Access) -> Self {
        Self { access, ..self }
    }

    /// How large the cases are; `smoke` as tests and `quick` as benchmarks, where nothing is said.
    #[must_use]
    pub fn profile(self, profile: Profile) -> Self {
        Self { profile: Some(profile), ..self }
    }

    /// One setting, as `floodline.toml` has it: `set("latency.rate", "500")`; what a dialect needs to be told too:
    /// `set("dialect.json.id", "/id")`. Whom it is for and how it is reached is said by the others, not by `target`.
    #[must_use]
    pub fn set(mut self, key: &str, value: &str) -> Self {
        self.settings.push((key.to_owned(), value.to_owned()));
        self
    }

    /// Runs a case, and gives what was found, whatever that is.
    ///
    /// # Errors
    /// Where it cannot take place.
    pub fn run(&self, case: &str) -> Result<CaseResults, HarnessError> {
        let found = scenario::by_name(case).ok_or_else(|| HarnessError::Case { name: case.to_owned() })?;
        let config = self.config(self.profile.unwrap_or(Profile::Smoke))?;
        found.within_guard(&config)?;
        let told = DialectSettings::new(config.dialect.clone(), |name| std::env::var(name).ok())?;
        let started = self.start()?;
        Ok(found.run(&config, &self.venue(&started, told), &Stop::default(), &mut ())?)
    }

    /// Runs a case as a test. What is in doubt because of the machine, and what the server cannot do, is told and no
    /// failure.
    ///
    /// # Panics
    /// Where the case fails or cannot take place: with its table.
    #[allow(
        clippy::panic,
        clippy::print_stdout,
        reason = "this is an assertion of a test, which captures the output"
    )]
    pub fn check(&self, case: &str) -> CaseResults {
        match self.run(case) {
            Ok(found) if found.verdict == Verdict::Fail => panic!("\n{}", table::case(&found)),
            Ok(found) => {
                println!("{}", table::case(&found));
                found
            }
            Err(error) => panic!("{case}: {error}"),
        }
    }

    /// Measures the server with Criterion, under `name`: each rate of `rates`, each of the largest counts of
    /// `connections`, and a burst; the arguments are those of the process, Criterion's. What does not hold is not
    /// measured, and the exit code is 1.
    #[cfg(feature = "criterion")]
    #[must_use]
    pub fn bench(&self, name: &'static str) -> ExitCode {
        let started = match self.start() {
            Ok(started) => started,
            Err(error) => return bench::refused(&error),
        };
        let settings = bench::Settings::of(&self.venue(&started, DialectSettings::default()), |profile| {
            self.config(profile.or(self.profile).unwrap_or_default())
        });
        match settings {
            Ok(settings) => bench::run_all(name, settings),
            Err(error) => bench::refused(&error),
        }
    }

    fn config(&self, profile: Profile) -> Result<HighVolumeConfig, ConfigError> {
        let settings: Vec<(&str, &str)> =
            self.settings.iter().map(|(key, value)| (&**key, &**value)).collect();
        HighVolumeConfig::with(profile, &settings)
    }

    fn start(&self) -> Result<Started, HarnessError> {
        match &self.start {
            Start::InProcess(start) => {
                let (url, guard) = start();
                Ok(Started { target: url.parse()?, process: None, _guard: Some(guard) })
            }
            Start::There(url) => Ok(Started { target: url.parse()?, process: None, _guard: None }),
            Start::Command { command, url } => {
                let target: Target = url.parse()?;
                let addresses = TcpConnect::new(target.clone(), self.access.clone())?.addresses().to_vec();
                let process = Process { command: Arc::clone(command), addresses, child: Mutex::new(None) };
                process.start()?;
                Ok(Started { target, process: Some(Arc::new(process)), _guard: None })
            }
        }
    }

    fn venue(&self, started: &Started, told: DialectSettings) -> Venue {
        let pid = started.process.as_ref().and_then(|process| process.pid());
        let restart = started.process.clone().map(|process| {
            let again = move |_| process.start().map(Some).map_err(|error| error.to_string());
            Restart::with("the server's command", again)
        });
        let peer = Peer::At { target: started.target.clone(), pid };
        let dialect_settings = Arc::new(told);
        let (dialect, access) = (self.dialect, self.access.clone());
        Venue { dialect, dialect_settings, access, restart, ..Venue::new(peer) }
    }
}

impl fmt::Debug for Harness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Harness")
            .field("dialect", &self.dialect)
            .field("profile", &self.profile)
            .finish_non_exhaustive()
    }
}

fn known() -> String {
    scenario::every().map(|case: &Case| case.name).collect::<Vec<_>>().join(", ")
}

/// A server that runs; it ends when dropped.
struct Started {
    target: Target,
    process: Option<Arc<Process>>,
    _guard: Option<Box<dyn Any>>,
}

/// A server's process, and the next, where that is killed.
struct Process {
    command: Arc<dyn Fn() -> Command + Send + Sync>,
    addresses: Vec<SocketAddr>,
    child: Mutex<Option<Child>>,
}

impl Process {
    /// Ends the last one and starts the next, and waits until it listens.
    fn start(&self) -> io::Result<u32> {
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        child.take().into_iter().for_each(end);
        let mut started = (self.command)().stdin(Stdio::null()).stdout(Stdio::null()).spawn()?;
        let pid = started.id();
        let deadline = Instant::now() + LISTENS_WITHIN;
        loop {
            if self
                .addresses
                .iter()
                .any(|address| TcpStream::connect_timeout(address, LISTENS_WITHIN).is_ok())
            {
                *child = Some(started);
                return Ok(pid);
            }
            let ended = started.try_wait()?;
            if ended.is_some() || Instant::now() >= deadline {
                end(started);
                let cause = match ended {
                    Some(status) => format!("it ended with {status}"),
                    None => format!("it did not listen within {} s", LISTENS_WITHIN.as_secs()),
                };
                return Err(io::Error::other(cause));
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    fn pid(&self) -> Option<u32> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(Child::id)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.child.get_mut().unwrap_or_else(PoisonError::into_inner).take().into_iter().for_each(end);
    }
}

fn end(mut child: Child) {
    // Both fail only where it has ended already.
    let _ = child.kill();
    let _ = child.wait();
}
