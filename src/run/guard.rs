//! What no run goes beyond: so many messages a second, so many connections, so much time.

use std::time::Duration;

use thiserror::Error;

use super::plan::{Action, Plan};
use crate::config::GuardConfig;
use crate::units::{self, Rate};
use crate::workload::{Offered, Workload};

/// A run would go beyond what is allowed.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum GuardError {
    /// It is too fast.
    #[error("{what} would offer {}, beyond --max-rate {} (guard.max_rate)", units::per_second(*rate), units::per_second(*limit))]
    Rate {
        /// Which load.
        what: String,
        /// Messages per second.
        rate: f64,
        /// What is allowed.
        limit: f64,
    },
    /// It has no rate that could be held.
    #[error("{what} is a closed loop, which nothing holds to --max-rate {} (guard.max_rate)", units::per_second(*limit))]
    NoRate {
        /// Which load.
        what: String,
        /// What is allowed.
        limit: f64,
    },
    /// It has too many connections.
    #[error(
        "{what} would open {connections} connections, beyond --max-connections {limit} (guard.max_connections)"
    )]
    Connections {
        /// Which load.
        what: String,
        /// How many.
        connections: u64,
        /// What is allowed.
        limit: u64,
    },
    /// It would take too long.
    #[error("{what} would take {} at least, beyond --time-limit {} (guard.time_limit)", units::span(*takes), units::span(*limit))]
    Time {
        /// Which loads.
        what: String,
        /// The loads alone.
        takes: Duration,
        /// What is allowed.
        limit: Duration,
    },
}

impl GuardConfig {
    /// Whether one load is within what is allowed; `what` names it.
    ///
    /// # Errors
    /// What of it goes beyond.
    pub fn check_load(&self, what: &str, load: &Workload) -> Result<(), GuardError> {
        self.check_together(what, &[load])?;
        self.check_time(what, span(load))
    }

    /// Whether the phases of a plan are each within what is allowed; how long its loads take.
    ///
    /// # Errors
    /// The first load that goes beyond.
    pub fn check_plan(&self, what: &str, plan: &Plan) -> Result<Duration, GuardError> {
        let mut takes = Duration::ZERO;
        for phase in &plan.phases {
            let what = format!("{what}, phase {}", phase.name);
            takes = takes.saturating_add(match &phase.action {
                Action::Load(load) | Action::WatchedLoad(load) => {
                    self.check_together(&what, &[load])?;
                    span(load)
                }
                Action::Scene(scene) => {
                    let loads: Vec<&Workload> = scene.loads.iter().map(|load| &load.workload).collect();
                    self.check_together(&what, &loads)?;
                    loads.into_iter().map(span).max().unwrap_or_default()
                }
                Action::Idle(idle) => *idle,
                Action::Stats | Action::Purge => Duration::ZERO,
            });
        }
        Ok(takes)
    }

    /// Whether loads that take so long together are within what is allowed.
    ///
    /// # Errors
    /// Where they are not.
    pub fn check_time(&self, what: &str, takes: Duration) -> Result<(), GuardError> {
        if takes <= self.time_limit {
            return Ok(());
        }
        Err(GuardError::Time { what: what.to_owned(), takes, limit: self.time_limit })
    }

    /// Loads that are offered at once.
    fn check_together(&self, what: &str, loads: &[&Workload]) -> Result<(), GuardError> {
        let what = || what.to_owned();
        let limit = self.max_rate.as_per_second();
        // A closed loop is as fast as the server: no more than what there is no limit to.
        let closed = loads.iter().any(|load| load.offered == Offered::Max);
        if closed && self.max_rate < Self::default().max_rate {
            return Err(GuardError::NoRate { what: what(), limit });
        }
        let rate: f64 = loads.iter().filter_map(|load| load.offered.rate()).map(Rate::as_per_second).sum();
        if rate > limit {
            return Err(GuardError::Rate { what: what(), rate, limit });
        }
        let connections: u64 = loads.iter().map(|load| u64::from(load.connections)).sum();
        let limit = u64::from(self.max_connections);
        if connections > limit {
            return Err(GuardError::Connections { what: what(), connections, limit });
        }
        Ok(())
    }
}

/// How long a load offers messages, ramps included.
fn span(load: &Workload) -> Duration {
    load.duration.saturating_add(load.ramp.saturating_mul(2)).saturating_add(load.ramp_up)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_beyond_is_named_with_the_limit() {
        let guard = GuardConfig {
            max_rate: Rate::per_second(500.0).unwrap(),
            max_connections: 10,
            time_limit: Duration::from_secs(60),
        };
        let load = |rate: f64, connections, seconds| Workload {
            offered: Offered::Rate(Rate::per_second(rate).unwrap()),
            connections,
            duration: Duration::from_secs(seconds),
            ramp: Duration::from_secs(5),
            ..Workload::default()
        };
        let check = |load: &Workload| guard.check_load("this", load).map_err(|error| error.to_string());
        assert_eq!(check(&load(500.0, 10, 50)), Ok(()));
        for (load, parts) in [
            (load(501.0, 10, 50), ["501 msg/s", "--max-rate 500 msg/s"]),
            (load(500.0, 11, 50), ["11 connections", "--max-connections 10"]),
            (load(500.0, 10, 51), ["61.0 s", "--time-limit 60.0 s"]),
            (Workload { offered: Offered::Max, ..load(1.0, 1, 1) }, ["closed loop", "--max-rate 500 msg/s"]),
        ] {
            let error = check(&load).unwrap_err();
            assert!(parts.iter().all(|part| error.contains(part)), "{error}");
        }
        let unlimited = GuardConfig::default();
        assert_eq!(
            unlimited.check_load("this", &Workload { offered: Offered::Max, ..load(1.0, 1, 1) }),
            Ok(())
        );
    }
}
