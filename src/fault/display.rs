//! How a rule is written; [`text`](super::text) reads it back.

use std::fmt;
use std::time::Duration;

use crate::fault::text::SPACING_BYTES;
use crate::fault::{Cut, Direction, Fault, Rule, Schedule, Scope, Side};

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.fault, self.scope)?;
        let Schedule { from, length, every, times } = self.schedule;
        if !from.is_zero() {
            write!(f, ",from={}", Exact(from))?;
        }
        if let Some(length) = length {
            write!(f, ",for={}", Exact(length))?;
        }
        if let Some(every) = every {
            write!(f, ",every={}", Exact(every))?;
        }
        if let Some(times) = times {
            write!(f, ",times={times}")?;
        }
        if self.seed != 0 {
            write!(f, ",seed={}", self.seed)?;
        }
        Ok(())
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = name(self);
        let unless = |default: Direction, direction: Direction| {
            if direction == default { String::new() } else { format!(",direction={direction}") }
        };
        match *self {
            Self::Latency { delay, jitter, direction } => {
                write!(f, "{name}={}", Exact(delay))?;
                if !jitter.is_zero() {
                    write!(f, ",jitter={}", Exact(jitter))?;
                }
                f.write_str(&unless(Direction::Both, direction))
            }
            Self::Bandwidth { bytes_per_s, direction } => {
                write!(f, "{name}={}/s{}", Size(bytes_per_s), unless(Direction::Both, direction))
            }
            Self::SlowReader { bytes_per_s, direction } => {
                write!(f, "{name}={}/s{}", Size(bytes_per_s), unless(Direction::ToClient, direction))
            }
            Self::Drop(Cut::Fin) => write!(f, "{name}=fin"),
            Self::Drop(Cut::Rst) => write!(f, "{name}=rst"),
            Self::Drop(Cut::MidFrame { direction }) => {
                write!(f, "{name}=mid-frame{}", unless(Direction::Both, direction))
            }
            Self::HalfOpen { closed: Side::Client } => write!(f, "{name}=client"),
            Self::HalfOpen { closed: Side::Server } => write!(f, "{name}=server"),
            Self::Partition { direction } | Self::Silence { direction } => write!(f, "{name}={direction}"),
            Self::Corrupt { times, spacing_bytes, direction } => {
                write!(f, "{name}={times}")?;
                if spacing_bytes != SPACING_BYTES {
                    write!(f, ",spacing={}", Size(spacing_bytes))?;
                }
                f.write_str(&unless(Direction::ToClient, direction))
            }
        }
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Both => "both",
            Self::ToServer => "to-server",
            Self::ToClient => "to-client",
        })
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => Ok(()),
            Self::Share(share) => write!(f, ",share={}", share.as_f64()),
            Self::Listed(numbers) => {
                let numbers: Vec<String> = numbers.iter().map(u64::to_string).collect();
                write!(f, ",connections={}", numbers.join("+"))
            }
        }
    }
}

/// A duration in the largest unit that gives a whole number: what is written is read back unchanged.
pub(super) struct Exact(pub(super) Duration);

impl fmt::Display for Exact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ns = self.0.as_nanos();
        let units =
            [("h", 3_600_000_000_000), ("m", 60_000_000_000), ("s", 1_000_000_000), ("ms", 1_000_000)];
        let smaller = [("us", 1_000), ("ns", 1)];
        for (unit, unit_ns) in units.into_iter().chain(smaller) {
            if ns >= unit_ns && ns.is_multiple_of(unit_ns) {
                return write!(f, "{}{unit}", ns / unit_ns);
            }
        }
        f.write_str("0")
    }
}

/// A size in the largest unit that gives a whole number.
pub(super) struct Size(pub(super) u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (unit, unit_bytes) in [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)] {
            if self.0 >= unit_bytes && self.0.is_multiple_of(unit_bytes) {
                return write!(f, "{}{unit}", self.0 / unit_bytes);
            }
        }
        write!(f, "{}B", self.0)
    }
}

/// The key that a fault is written with.
pub(super) fn name(fault: &Fault) -> &'static str {
    match fault {
        Fault::Latency { .. } => "latency",
        Fault::Bandwidth { .. } => "bandwidth",
        Fault::SlowReader { .. } => "slow-reader",
        Fault::Drop(_) => "drop",
        Fault::HalfOpen { .. } => "half-open",
        Fault::Partition { .. } => "partition",
        Fault::Silence { .. } => "silence",
        Fault::Corrupt { .. } => "corrupt",
    }
}
