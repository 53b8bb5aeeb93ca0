//! How a fault is read: `fault=value,key=value`, or the name alone where there is nothing to say.

use std::str::FromStr;
use std::time::Duration;

use thiserror::Error;

use super::law::LAWS;
use super::{ServerFault, Slip, Targets};
use crate::server::config::ServerConfigError;
use crate::units::{UnitError, parse_bytes, parse_duration};

/// A text is no fault.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum ServerFaultError {
    /// It names none.
    #[error("`{name}` is no fault; expected one of {}", FORMS.join(" "))]
    Unknown {
        /// What it names.
        name: String,
    },
    /// It is not written like the fault that it names.
    #[error("`{text}` is incomplete or too much; expected {form}")]
    Form {
        /// The text.
        text: String,
        /// How that fault is written.
        form: &'static str,
    },
    /// A whole number was expected.
    #[error("`{key}={value}` is not a whole number")]
    Number {
        /// The key.
        key: &'static str,
        /// Its value.
        value: String,
    },
    /// A share was expected.
    #[error("`{value}` is not a share from 0 to 1")]
    Share {
        /// The value.
        value: String,
    },
    /// A number was expected.
    #[error("`{key}`: `{value}` is not a number")]
    Decimal {
        /// The key.
        key: &'static str,
        /// Its value.
        value: String,
    },
    /// A law of delays was expected.
    #[error("`{text}` is no law of delays; expected one of {LAWS}")]
    Law {
        /// The text.
        text: String,
    },
    /// A duration or a size cannot be read.
    #[error("`{key}`: {cause}")]
    Unit {
        /// The key.
        key: &'static str,
        /// What is wrong with its value.
        cause: UnitError,
    },
    /// A value cannot be as it is.
    #[error(transparent)]
    Value(#[from] ServerConfigError),
}

/// How each fault is written, for the messages.
const FORMS: &[&str] = &[
    "stall=DURATION,at=DURATION",
    "pause=DURATION,every=DURATION",
    "drop-answers=SHARE,seed=N",
    "late-answers=SHARE,by=DURATION,seed=N",
    "delay=LAW,seed=N",
    "starve-connections=NTH,gap=DURATION",
    "ignore-requests=TIMES,among=N,seed=N",
    "cut-connections=TIMES,among=N,seed=N",
    "lose-answers=TIMES,among=N,seed=N",
    "repeat-answers=TIMES,among=N,seed=N",
    "swap-answers=TIMES,among=N,seed=N",
    "misname-answers=TIMES,among=N,seed=N",
    "cross-talk=TIMES,among=N,seed=N",
    "alter-answers=TIMES,among=N,seed=N",
    "growing-delay=DURATION,per=DURATION",
    "slow-per-connection=DURATION",
    "keep-queue=N",
    "processed-at-admission",
    "no-backpressure",
    "late-backpressure=DURATION",
    "silent-refusals",
    "arrival-order",
    "forget-on-start",
    "refuse-connection=NTH",
    "bad-neighbour=DURATION",
    "deaf-after-loss=DURATION",
    "half-close=NTH,at=DURATION",
    "silent-connection=NTH,at=DURATION",
    "open-door",
    "costly-refusals=DURATION",
    "burn-cpu=SHARE",
    "leak=SIZE",
    "grow=SIZE",
    "grow=SIZE,after=N",
    "swell=SIZE,after=N",
];

impl FromStr for ServerFault {
    type Err = ServerFaultError;

    fn from_str(text: &str) -> Result<Self, ServerFaultError> {
        let items: Vec<(&str, Option<&str>)> = text
            .split(',')
            .map(|item| item.split_once('=').map_or((item, None), |(key, value)| (key, Some(value))))
            .collect();
        let name = items.first().map_or("", |(name, _)| *name);
        let mut forms = FORMS.iter().copied().filter(|&form| keys(form).next() == Some(name)).peekable();
        let form = *forms.peek().ok_or_else(|| ServerFaultError::Unknown { name: name.to_owned() })?;
        let misformed = || ServerFaultError::Form { text: text.to_owned(), form };
        if !forms.any(|form| keys(form).eq(items.iter().map(|(key, _)| *key))) {
            return Err(misformed());
        }
        let values: Vec<&str> = items.iter().filter_map(|(_, value)| *value).collect();
        let fault = match (name, values.as_slice()) {
            ("stall", &[duration, at]) => {
                Self::StallOnce { at: time("at", at)?, duration: time("stall", duration)? }
            }
            ("pause", &[duration, every]) => {
                Self::Pause { every: time("every", every)?, duration: time("pause", duration)? }
            }
            ("drop-answers", &[value, seed]) => {
                Self::DropAnswers { share: share(value)?, seed: number("seed", seed)? }
            }
            ("late-answers", &[value, by, seed]) => {
                Self::LateAnswers { share: share(value)?, by: time("by", by)?, seed: number("seed", seed)? }
            }
            ("delay", &[law, seed]) => Self::Delay { law: law.parse()?, seed: number("seed", seed)? },
            ("starve-connections", &[nth, gap]) => {
                Self::StarveConnections { nth: number("starve-connections", nth)?, gap: time("gap", gap)? }
            }
            ("growing-delay", &[growth, per]) => {
                Self::GrowingDelay { growth: time("growing-delay", growth)?, per: time("per", per)? }
            }
            ("slow-per-connection", &[slowness]) => {
                Self::SlowPerConnection { slowness: time("slow-per-connection", slowness)? }
            }
            ("keep-queue", &[count]) => Self::KeepQueue { count: number("keep-queue", count)? },
            ("processed-at-admission", []) => Self::ProcessedAtAdmission,
            ("no-backpressure", []) => Self::NoBackpressure,
            ("late-backpressure", &[by]) => Self::LateBackpressure { by: time("late-backpressure", by)? },
            ("silent-refusals", []) => Self::SilentRefusals,
            ("arrival-order", []) => Self::ArrivalOrder,
            ("forget-on-start", []) => Self::ForgetOnStart,
            ("refuse-connection", &[nth]) => {
                Self::RefuseConnection { nth: number("refuse-connection", nth)? }
            }
            ("bad-neighbour", &[duration]) => {
                Self::BadNeighbour { duration: time("bad-neighbour", duration)? }
            }
            ("deaf-after-loss", &[duration]) => {
                Self::DeafAfterLoss { duration: time("deaf-after-loss", duration)? }
            }
            ("half-close", &[nth, at]) => {
                Self::HalfClose { nth: number("half-close", nth)?, at: time("at", at)? }
            }
            ("silent-connection", &[nth, at]) => {
                Self::SilentConnection { nth: number("silent-connection", nth)?, at: time("at", at)? }
            }
            ("open-door", []) => Self::OpenDoor,
            ("costly-refusals", &[duration]) => {
                Self::CostlyRefusals { duration: time("costly-refusals", duration)? }
            }
            ("burn-cpu", &[share]) => Self::BurnCpu { share: decimal("burn-cpu", share)? },
            ("leak", &[bytes]) => Self::Leak { bytes: size("leak", bytes)? },
            ("grow", &[bytes]) => Self::Grow { bytes: size("grow", bytes)?, after: 1 },
            ("grow", &[bytes, after]) => {
                Self::Grow { bytes: size("grow", bytes)?, after: number("after", after)? }
            }
            ("swell", &[bytes, after]) => {
                Self::Swell { bytes: size("swell", bytes)?, after: number("after", after)? }
            }
            (name, &[times, among, seed]) => {
                let slip = Slip::ALL.into_iter().find(|slip| slip.name() == name).ok_or_else(misformed)?;
                let (times, among) = (number(slip.name(), times)?, number("among", among)?);
                Self::Slips { slip, targets: Targets { times, among, seed: number("seed", seed)? } }
            }
            _ => return Err(misformed()),
        };
        fault.validate()?;
        Ok(fault)
    }
}

/// The keys of a form, in order.
fn keys(form: &'static str) -> impl Iterator<Item = &'static str> {
    form.split(',').map(|item| item.split_once('=').map_or(item, |(key, _)| key))
}

pub(super) fn time(key: &'static str, value: &str) -> Result<Duration, ServerFaultError> {
    parse_duration(value).map_err(|cause| ServerFaultError::Unit { key, cause })
}

fn size(key: &'static str, value: &str) -> Result<u64, ServerFaultError> {
    parse_bytes(value).map_err(|cause| ServerFaultError::Unit { key, cause })
}

fn share(value: &str) -> Result<f64, ServerFaultError> {
    value.parse().map_err(|_| ServerFaultError::Share { value: value.to_owned() })
}

pub(super) fn decimal(key: &'static str, value: &str) -> Result<f64, ServerFaultError> {
    value.parse().map_err(|_| ServerFaultError::Decimal { key, value: value.to_owned() })
}

fn number(key: &'static str, value: &str) -> Result<u64, ServerFaultError> {
    value.parse().map_err(|_| ServerFaultError::Number { key, value: value.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::super::DelayLaw;
    use super::*;

    #[test]
    fn every_fault_can_be_written() {
        let second = Duration::from_secs(1);
        let ms = Duration::from_millis;
        for (text, fault) in [
            ("stall=1s,at=20ms", ServerFault::StallOnce { at: ms(20), duration: second }),
            ("pause=60ms,every=1s", ServerFault::Pause { every: second, duration: ms(60) }),
            ("drop-answers=0.5,seed=7", ServerFault::DropAnswers { share: 0.5, seed: 7 }),
            (
                "late-answers=0.02,by=300ms,seed=7",
                ServerFault::LateAnswers { share: 0.02, by: ms(300), seed: 7 },
            ),
            ("delay=constant:5ms,seed=7", ServerFault::Delay { law: DelayLaw::Constant(ms(5)), seed: 7 }),
            (
                "delay=uniform:1ms:9ms,seed=7",
                ServerFault::Delay { law: DelayLaw::Uniform(ms(1), ms(9)), seed: 7 },
            ),
            (
                "delay=lognormal:5ms:0.5,seed=7",
                ServerFault::Delay { law: DelayLaw::Lognormal { median: ms(5), sigma: 0.5 }, seed: 7 },
            ),
            (
                "delay=bimodal:1ms:100ms:0.001,seed=7",
                ServerFault::Delay {
                    law: DelayLaw::Bimodal { usual: ms(1), other: ms(100), share: 0.001 },
                    seed: 7,
                },
            ),
            ("starve-connections=50,gap=20ms", ServerFault::StarveConnections { nth: 50, gap: ms(20) }),
            ("growing-delay=5ms,per=1s", ServerFault::GrowingDelay { growth: ms(5), per: second }),
            ("slow-per-connection=5ms", ServerFault::SlowPerConnection { slowness: ms(5) }),
            ("keep-queue=100", ServerFault::KeepQueue { count: 100 }),
            ("processed-at-admission", ServerFault::ProcessedAtAdmission),
            ("no-backpressure", ServerFault::NoBackpressure),
            ("late-backpressure=1s", ServerFault::LateBackpressure { by: second }),
            ("silent-refusals", ServerFault::SilentRefusals),
            ("arrival-order", ServerFault::ArrivalOrder),
            ("forget-on-start", ServerFault::ForgetOnStart),
            ("refuse-connection=50", ServerFault::RefuseConnection { nth: 50 }),
            ("bad-neighbour=1s", ServerFault::BadNeighbour { duration: second }),
            ("deaf-after-loss=1s", ServerFault::DeafAfterLoss { duration: second }),
            ("half-close=3,at=1s", ServerFault::HalfClose { nth: 3, at: second }),
            ("silent-connection=3,at=1s", ServerFault::SilentConnection { nth: 3, at: second }),
            ("open-door", ServerFault::OpenDoor),
            ("costly-refusals=20ms", ServerFault::CostlyRefusals { duration: ms(20) }),
            ("burn-cpu=0.05", ServerFault::BurnCpu { share: 0.05 }),
            ("leak=100B", ServerFault::Leak { bytes: 100 }),
            ("grow=2KiB", ServerFault::Grow { bytes: 2_048, after: 1 }),
            ("grow=2KiB,after=9", ServerFault::Grow { bytes: 2_048, after: 9 }),
            ("swell=2KiB,after=9", ServerFault::Swell { bytes: 2_048, after: 9 }),
        ] {
            assert_eq!(text.parse(), Ok(fault), "{text}");
        }
        for slip in Slip::ALL {
            let targets = Targets { times: 2, among: 9, seed: 5 };
            assert_eq!(format!("{slip}=2,among=9,seed=5").parse(), Ok(ServerFault::Slips { slip, targets }));
        }
    }

    #[test]
    fn what_is_no_fault_is_told_with_what_was_expected() {
        for (text, parts) in [
            ("", &["``", "stall=DURATION"] as &[&str]),
            ("explode", &["`explode`", "swap-answers=TIMES,among=N,seed=N"]),
            ("stall=1s", &["`stall=1s`", "expected stall=DURATION,at=DURATION"]),
            ("stall=1s,at", &["`stall=1s,at`", "expected stall=DURATION,at=DURATION"]),
            ("stall=1s,seed=1", &["expected stall=DURATION,at=DURATION"]),
            ("no-backpressure=1", &["`no-backpressure=1`"]),
            ("stall=1s,at=never", &["`at`", "never"]),
            ("drop-answers=all,seed=1", &["`all`", "share"]),
            ("late-answers=2,by=1s,seed=1", &["`share` is 2", "0 to 1"]),
            ("delay=gamma:1ms,seed=1", &["`gamma:1ms`", "constant:DURATION"]),
            ("delay=uniform:1ms,seed=1", &["`uniform:1ms`", "uniform:DURATION:DURATION"]),
            ("delay=lognormal:5ms:wide,seed=1", &["`lognormal`", "`wide`"]),
            ("delay=bimodal:1ms:2ms:2,seed=1", &["`share` is 2"]),
            ("drop-answers=2,seed=1", &["`share` is 2", "0 to 1"]),
            ("lose-answers=x,among=9,seed=1", &["`lose-answers=x`", "whole number"]),
            ("lose-answers=10,among=9,seed=1", &["`times` is 10", "1 to 9"]),
            ("grow=1KiB,at=9", &["`grow=1KiB,at=9`", "expected grow=SIZE"]),
            ("leak=1,5", &["`leak=1,5`"]),
        ] {
            let message = text.parse::<ServerFault>().unwrap_err().to_string();
            for part in parts {
                assert!(message.contains(part), "{part}: {message}");
            }
        }
    }
}
