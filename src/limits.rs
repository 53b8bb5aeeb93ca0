//! The operating system's limit on open files: each connection takes one.

use std::fs::File;
use std::io;

use thiserror::Error;

/// The process may not open as many files as the run needs.
#[derive(Debug, Error)]
pub enum LimitError {
    /// The hard limit, which only an administrator raises, is too low.
    #[error(
        "{needed} open files are needed, but the limit is {soft} and can be raised to {hard} at most; raise the hard \
         limit (`ulimit -Hn {needed}` as root, `LimitNOFILE=` of a systemd unit, `--ulimit nofile=` of a container) \
         or use fewer connections"
    )]
    HardLimit {
        /// Files that must be open at once.
        needed: u64,
        /// The limit in force.
        soft: u64,
        /// The limit up to which this process may raise it.
        hard: u64,
    },
    /// The hard limit would allow it, but the system refused to raise the soft one.
    #[error(
        "{needed} open files are needed, the limit is {soft} of at most {hard}, and raising it was refused: {source}; \
         set it before the start (`ulimit -n {needed}`) or use fewer connections"
    )]
    Refused {
        /// Files that must be open at once.
        needed: u64,
        /// The limit in force.
        soft: u64,
        /// The limit up to which this process may raise it.
        hard: u64,
        /// Why the system refused.
        source: io::Error,
    },
    /// The limit could not be read.
    #[error("{needed} open files are needed, but the limit cannot be read: {source}")]
    Unreadable {
        /// Files that must be open at once.
        needed: u64,
        /// Why it could not.
        source: io::Error,
    },
}

/// Sees to it that this process may have `needed` files open at once, raising the soft limit where it is lower, and
/// returns the limit then in force. It is never lowered. Where the system knows no such limit (Windows), `u64::MAX`.
///
/// # Errors
/// Where the hard limit is below `needed`, or the limit can be neither read nor raised.
#[cfg(unix)]
pub fn ensure_open_files(needed: u64) -> Result<u64, LimitError> {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};

    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)
        .map_err(|errno| LimitError::Unreadable { needed, source: errno.into() })?;
    let wanted = soft_limit_for(needed, soft, hard)?;
    if wanted > soft {
        setrlimit(Resource::RLIMIT_NOFILE, wanted, hard).map_err(|errno| LimitError::Refused {
            needed,
            soft,
            hard,
            source: errno.into(),
        })?;
    }
    Ok(wanted)
}

/// Sees to it that this process may have `needed` files open at once: always so here.
///
/// # Errors
/// None on this system.
#[cfg(not(unix))]
pub fn ensure_open_files(_needed: u64) -> Result<u64, LimitError> {
    Ok(u64::MAX)
}

/// The soft limit to have: what is needed and no more, since programs that close every possible descriptor before
/// they start a child take time in proportion to it.
#[cfg(unix)]
fn soft_limit_for(needed: u64, soft: u64, hard: u64) -> Result<u64, LimitError> {
    if needed <= hard { Ok(soft.max(needed)) } else { Err(LimitError::HardLimit { needed, soft, hard }) }
}

/// Open files that are held in hand until it is dropped, so that there are some then, whatever takes all others meanwhile.
#[derive(Debug)]
pub struct Reserve {
    _held: Vec<File>,
}

impl Reserve {
    /// Holds so many, or as many as there are.
    #[must_use]
    pub fn of(files: usize) -> Self {
        let nothing = if cfg!(windows) { "NUL" } else { "/dev/null" };
        Self { _held: (0..files).map_while(|_| File::open(nothing).ok()).collect() }
    }
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use nix::sys::resource::{Resource, getrlimit};

    use super::*;

    #[test]
    fn the_limit_is_raised_as_far_as_needed_and_never_lowered() {
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        let needed = (soft + 1).min(hard);
        // At least, since other tests of this process may raise it too.
        for asked in [needed, 1] {
            assert!(ensure_open_files(asked).unwrap() >= needed);
            let (soft_now, hard_now) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
            assert!(soft_now >= needed && hard_now == hard, "{soft_now} {hard_now}");
        }
    }

    #[test]
    fn a_limit_out_of_reach_is_refused_with_figures_and_remedy() {
        let text = soft_limit_for(2_000, 256, 1_024).unwrap_err().to_string();
        for part in
            ["2000 open files are needed", "limit is 256", "raised to 1024", "ulimit -Hn 2000", "fewer"]
        {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert_eq!(soft_limit_for(1_024, 256, 1_024).unwrap(), 1_024);
        assert_eq!(soft_limit_for(0, 256, 1_024).unwrap(), 256);
        assert!(soft_limit_for(1_025, 1_024, 1_024).is_err());
    }

    #[test]
    fn more_than_any_system_gives_is_an_error_of_the_real_call_too() {
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        // With an unlimited hard limit the kernel itself refuses (above `fs.nr_open`, setrlimit(2)).
        match ensure_open_files(u64::MAX).unwrap_err() {
            LimitError::HardLimit { hard: found, .. } => assert_eq!(found, hard),
            LimitError::Refused { hard: found, .. } => assert_eq!((found, hard), (u64::MAX, u64::MAX)),
            error @ LimitError::Unreadable { .. } => panic!("{error}"),
        }
    }
}
