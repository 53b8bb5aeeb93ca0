//! Exit codes: 0 pass, 1 a check failed, 2 bad usage or configuration, 3 inconclusive, 4 the target cannot be reached or
//! refuses the handshake, 130 ended by Ctrl-C.

use std::io::Write;
use std::process::ExitCode;

use floodline::client::{ClientError, ConnectError};
use floodline::dialect::DialectError;
use floodline::result::Verdict;
use floodline::run::plan::PlanError;
use floodline::run::{RunError, ServerProcessError};

/// Why a command did not get as far as a verdict.
#[derive(Debug)]
pub enum Failure {
    /// The flags, the configuration or the machine's limits do not allow it.
    Usage(anyhow::Error),
    /// The target cannot be reached.
    Unreachable(anyhow::Error),
    /// It took longer than is allowed: what was found is reported, and shows nothing of the rest.
    Ended(anyhow::Error),
    /// Ctrl-C before there was anything to report.
    Interrupted,
}

impl Failure {
    /// A failure of usage.
    pub fn usage(error: impl Into<anyhow::Error>) -> Self {
        Self::Usage(error.into())
    }

    /// Says where it happened.
    pub fn context(self, place: String) -> Self {
        match self {
            Self::Usage(error) => Self::Usage(error.context(place)),
            Self::Unreachable(error) => Self::Unreachable(error.context(place)),
            Self::Ended(error) => Self::Ended(error.context(place)),
            Self::Interrupted => Self::Interrupted,
        }
    }

    /// What went wrong, in a line; `None` where nothing did but that the user ended it.
    pub fn text(&self) -> Option<String> {
        match self {
            Self::Usage(error) | Self::Unreachable(error) | Self::Ended(error) => Some(format!("{error:#}")),
            Self::Interrupted => None,
        }
    }

    /// A case that could not take place, and which.
    pub fn of_plan(error: PlanError, case: &str) -> Self {
        match error {
            PlanError::Stopped => Self::Interrupted,
            PlanError::Run { phase, source } => Self::from(source).context(format!("{case}, phase {phase}")),
            PlanError::Search(error) => Self::usage(error),
            // The machine's, not the target's.
            error @ (PlanError::Proxy(_) | PlanError::State(_) | PlanError::Journal(_)) => {
                Self::Usage(anyhow::Error::from(error).context(case.to_owned()))
            }
            // A command of the user's.
            error @ PlanError::Server(ServerProcessError::Restart { .. }) => {
                Self::Usage(anyhow::Error::from(error).context(case.to_owned()))
            }
            PlanError::Control { phase, source } if source.is_ours() => {
                Self::usage(source).context(format!("{case}, phase {phase}"))
            }
            error @ (PlanError::Server(_) | PlanError::Control { .. }) => {
                Self::Unreachable(anyhow::Error::from(error).context(case.to_owned()))
            }
        }
    }

    /// Says what went wrong, and with which code to exit.
    pub fn report(self) -> ExitCode {
        let (error, code) = match self {
            Self::Usage(error) => (error, 2),
            Self::Unreachable(error) => (error, 4),
            Self::Ended(error) => (error, 3),
            Self::Interrupted => return ExitCode::from(130),
        };
        // Standard error may be closed; the exit code still tells.
        let _ = writeln!(std::io::stderr(), "error: {error:#}");
        ExitCode::from(code)
    }
}

impl From<RunError> for Failure {
    fn from(error: RunError) -> Self {
        match error {
            RunError::Client(ClientError::Stopped) => Self::Interrupted,
            RunError::Limit(_) => Self::Usage(anyhow::Error::from(error).context("--connections")),
            RunError::Dialect(DialectError::PayloadTooSmall { .. }) => {
                Self::Usage(anyhow::Error::from(error).context("--payload-bytes"))
            }
            RunError::Connect(cause) | RunError::Client(ClientError::Unreachable { first: cause, .. })
                if cause.is_ours() =>
            {
                let flag = flag_of(&cause);
                let error = anyhow::Error::from(cause);
                Self::Usage(match flag {
                    Some(flag) => error.context(flag),
                    None => error,
                })
            }
            RunError::Dialect(_)
            | RunError::Workload(_)
            | RunError::Sampler(_)
            | RunError::Client(ClientError::Worker(_)) => Self::usage(error),
            RunError::Connect(_)
            | RunError::Client(ClientError::Unreachable { .. })
            | RunError::Server(_) => Self::Unreachable(error.into()),
        }
    }
}

/// The flags that an error of ours is about.
fn flag_of(error: &ConnectError) -> Option<&'static str> {
    match error {
        ConnectError::NotPermitted { .. } => Some("--target"),
        ConnectError::UnusableToken => Some("--token-env, --token-file"),
        ConnectError::UnusableTls { .. } => Some("--ca, --client-cert, --client-key, --server-name"),
        ConnectError::UnusableHandshake => Some("--subprotocol, --query"),
        _ => None,
    }
}

/// The exit code of a verdict.
pub fn code_of(verdict: Verdict) -> ExitCode {
    ExitCode::from(match verdict {
        Verdict::Pass | Verdict::Skipped => 0,
        Verdict::Fail => 1,
        Verdict::Inconclusive => 3,
    })
}
