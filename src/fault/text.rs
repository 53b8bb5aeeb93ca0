//! How a rule is read: `fault=value,key=value,…`; [`display`](super::display) writes it.

use std::str::FromStr;
use std::time::Duration;

use crate::fault::display::{Exact, Size, name};
use crate::fault::{Cut, Direction, Fault, Rule, RuleError, Schedule, Scope, Share, Side};
use crate::units::{parse_bytes, parse_duration};

const FAULTS: &str = "latency, bandwidth, slow-reader, drop, half-open, partition, silence, corrupt";
/// Of `corrupt`, where the rule says nothing: about one message of the default size.
pub(super) const SPACING_BYTES: u64 = 1024;
/// Up to here the text form of a duration is exact to the nanosecond (it is read as a floating-point number).
const LONGEST: Duration = Duration::from_secs(7 * 86_400);
/// The runtime's timer has a resolution of 1 ms.
const SHORTEST: Duration = Duration::from_millis(1);
const FASTEST_BYTES_PER_S: u64 = 1 << 40;

impl FromStr for Rule {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, RuleError> {
        let items = Items::split(text)?;
        let fault = items.fault()?;
        let rule = Self { fault, scope: items.scope()?, schedule: items.schedule()?, seed: items.seed()? };
        items.all_used(&rule)?;
        match contradiction(&rule) {
            None => Ok(rule),
            Some((item, expected)) => Err(RuleError::Value { rule: text.to_owned(), item, expected }),
        }
    }
}

impl TryFrom<String> for Rule {
    type Error = RuleError;
    fn try_from(text: String) -> Result<Self, RuleError> {
        text.parse()
    }
}

impl From<Rule> for String {
    fn from(rule: Rule) -> String {
        rule.to_string()
    }
}

/// What in `rule` makes no sense: the item as it would be written, and what is expected of it.
pub(super) fn contradiction(rule: &Rule) -> Option<(String, String)> {
    let wrong = |item: String, expected: &str| Some((item, expected.to_owned()));
    match rule.fault {
        Fault::Latency { delay, jitter, .. } if jitter > delay => {
            return wrong(format!("jitter={}", Exact(jitter)), "jitter is at most the latency");
        }
        Fault::Bandwidth { bytes_per_s, .. } | Fault::SlowReader { bytes_per_s, .. }
            if !(1..=FASTEST_BYTES_PER_S).contains(&bytes_per_s) =>
        {
            let item = format!("{}={}/s", name(&rule.fault), Size(bytes_per_s));
            return wrong(item, "a pace is above 0 and at most 1024GiB/s");
        }
        Fault::Corrupt { times: 0, .. } => return wrong("corrupt=0".into(), "at least 1 byte is altered"),
        Fault::Corrupt { spacing_bytes: 0, .. } => return wrong("spacing=0".into(), "at least 1 byte"),
        _ => {}
    }
    if matches!(&rule.scope, Scope::Listed(numbers) if numbers.is_empty()) {
        return wrong("connections=".into(), "at least one number");
    }
    contradiction_in_time(rule)
}

fn contradiction_in_time(rule: &Rule) -> Option<(String, String)> {
    let wrong = |item: String, expected: &str| Some((item, expected.to_owned()));
    let Schedule { from, length, every, times } = rule.schedule;
    let delay = match rule.fault {
        Fault::Latency { delay, .. } => Some(delay),
        _ => None,
    };
    let durations = [("latency", delay), ("from", Some(from)), ("for", length), ("every", every)];
    for (key, duration) in durations {
        if let Some(duration) = duration.filter(|&duration| duration > LONGEST) {
            return wrong(format!("{key}={}", Exact(duration)), "at most 7 days (168h)");
        }
    }
    for (key, duration) in [("for", length), ("every", every)] {
        if let Some(duration) = duration.filter(|&duration| duration < SHORTEST) {
            return wrong(format!("{key}={}", Exact(duration)), "at least 1ms");
        }
    }
    match (length, every, times) {
        (_, _, Some(0)) => wrong("times=0".into(), "at least 1"),
        (_, None, Some(times)) => wrong(format!("times={times}"), "needs `every`"),
        (None, Some(every), _) if rule.fault.lasts() => {
            wrong(format!("every={}", Exact(every)), "needs `for`: else the first occurrence never ends")
        }
        (Some(length), Some(every), _) if length > every => {
            wrong(format!("for={}", Exact(length)), "at most `every`: occurrences don't overlap")
        }
        _ => None,
    }
}

/// The items of a rule's text, each key once.
struct Items<'a> {
    rule: &'a str,
    items: Vec<Item<'a>>,
}

#[derive(Clone, Copy)]
struct Item<'a> {
    text: &'a str,
    key: &'a str,
    value: Option<&'a str>,
}

impl<'a> Items<'a> {
    fn split(rule: &'a str) -> Result<Self, RuleError> {
        let mut items: Vec<Item<'a>> = Vec::new();
        for text in rule.split(',').map(str::trim).filter(|text| !text.is_empty()) {
            let (key, value) = match text.split_once('=') {
                Some((key, value)) => (key.trim(), Some(value.trim())),
                None => (text, None),
            };
            if let Some(earlier) = items.iter().find(|earlier| earlier.key == key) {
                let (earlier, item) = (earlier.text.to_owned(), text.to_owned());
                return Err(RuleError::Repeated { rule: rule.to_owned(), earlier, item });
            }
            items.push(Item { text, key, value });
        }
        Ok(Self { rule, items })
    }

    fn fault(&self) -> Result<Fault, RuleError> {
        let mut faults = self.items.iter().filter(|item| is_fault(item.key));
        let Some(item) = faults.next() else {
            // A misspelt fault is what the user wants to hear of, rather than that there is none.
            self.known_keys()?;
            return Err(RuleError::NoFault { rule: self.rule.to_owned(), known: FAULTS });
        };
        if let Some(second) = faults.next() {
            let (earlier, item) = (item.text.to_owned(), second.text.to_owned());
            return Err(RuleError::Repeated { rule: self.rule.to_owned(), earlier, item });
        }
        match item.key {
            "latency" => Ok(Fault::Latency {
                delay: self.read(item, duration)?,
                jitter: self.optional("jitter", duration)?.unwrap_or_default(),
                direction: self.direction(Direction::Both)?,
            }),
            "bandwidth" => Ok(Fault::Bandwidth {
                bytes_per_s: self.read(item, pace)?,
                direction: self.direction(Direction::Both)?,
            }),
            "slow-reader" => Ok(Fault::SlowReader {
                bytes_per_s: self.read(item, pace)?,
                direction: self.direction(Direction::ToClient)?,
            }),
            "drop" => Ok(Fault::Drop(
                self.read(item, cut)?
                    .unwrap_or(Cut::MidFrame { direction: self.direction(Direction::Both)? }),
            )),
            "half-open" => Ok(Fault::HalfOpen { closed: self.read_or(item, Side::Server, side)? }),
            "partition" => {
                Ok(Fault::Partition { direction: self.read_or(item, Direction::Both, direction)? })
            }
            "silence" => Ok(Fault::Silence { direction: self.read_or(item, Direction::Both, direction)? }),
            _ => Ok(Fault::Corrupt {
                times: self.read(item, whole)?,
                spacing_bytes: self.optional("spacing", size)?.unwrap_or(SPACING_BYTES),
                direction: self.direction(Direction::ToClient)?,
            }),
        }
    }

    fn scope(&self) -> Result<Scope, RuleError> {
        let share = self.optional("share", share)?;
        let listed = self.optional("connections", numbers)?;
        match (share, listed) {
            (None, None) => Ok(Scope::All),
            (Some(share), None) => Ok(Scope::Share(share)),
            (None, Some(numbers)) => Ok(Scope::Listed(numbers)),
            (Some(_), Some(_)) => Err(self.misplaced("connections", "stands for `share`, not beside it")),
        }
    }

    fn schedule(&self) -> Result<Schedule, RuleError> {
        Ok(Schedule {
            from: self.optional("from", duration)?.unwrap_or_default(),
            length: self.optional("for", duration)?,
            every: self.optional("every", duration)?,
            times: self.optional("times", whole)?,
        })
    }

    fn seed(&self) -> Result<u64, RuleError> {
        Ok(self.optional("seed", whole)?.unwrap_or(0))
    }

    fn direction(&self, default: Direction) -> Result<Direction, RuleError> {
        Ok(self.optional("direction", direction)?.unwrap_or(default))
    }

    /// Refuses keys that don't exist, or that don't belong to the fault of `rule`.
    fn all_used(&self, rule: &Rule) -> Result<(), RuleError> {
        self.known_keys()?;
        let latency = matches!(rule.fault, Fault::Latency { .. });
        let corrupt = matches!(rule.fault, Fault::Corrupt { .. });
        let directed = latency
            || corrupt
            || matches!(
                rule.fault,
                Fault::Bandwidth { .. } | Fault::SlowReader { .. } | Fault::Drop(Cut::MidFrame { .. })
            );
        for (key, belongs, reason) in [
            ("jitter", latency, "belongs to `latency`"),
            ("spacing", corrupt, "belongs to `corrupt`"),
            ("direction", directed, "this fault takes no direction, or takes it as its own value"),
        ] {
            if !belongs && self.find(key).is_some() {
                return Err(self.misplaced(key, reason));
            }
        }
        Ok(())
    }

    fn known_keys(&self) -> Result<(), RuleError> {
        const KEYS: [&str; 10] = [
            "jitter",
            "spacing",
            "direction",
            "share",
            "connections",
            "from",
            "for",
            "every",
            "times",
            "seed",
        ];
        match self.items.iter().find(|item| !is_fault(item.key) && !KEYS.contains(&item.key)) {
            None => Ok(()),
            Some(item) => Err(self.misplaced(
                item.key,
                "no such key: a fault (latency, bandwidth, slow-reader, drop, half-open, partition, silence, \
                 corrupt) or one of jitter, spacing, direction, share, connections, from, for, every, times, seed",
            )),
        }
    }

    fn find(&self, key: &str) -> Option<&Item<'a>> {
        self.items.iter().find(|item| item.key == key)
    }

    fn optional<T>(&self, key: &str, read: Reader<T>) -> Result<Option<T>, RuleError> {
        self.find(key).map(|item| self.read(item, read)).transpose()
    }

    fn read_or<T>(&self, item: &Item<'_>, default: T, read: Reader<T>) -> Result<T, RuleError> {
        if item.value.is_none() { Ok(default) } else { self.read(item, read) }
    }

    fn read<T>(&self, item: &Item<'_>, read: Reader<T>) -> Result<T, RuleError> {
        read(item.value.unwrap_or_default()).map_err(|expected| RuleError::Value {
            rule: self.rule.to_owned(),
            item: item.text.to_owned(),
            expected,
        })
    }

    fn misplaced(&self, key: &str, reason: &'static str) -> RuleError {
        let item = self.find(key).map_or(key, |item| item.text).to_owned();
        RuleError::Misplaced { rule: self.rule.to_owned(), item, reason }
    }
}

/// Reads a value, or says what was expected.
type Reader<T> = fn(&str) -> Result<T, String>;

fn is_fault(key: &str) -> bool {
    FAULTS.split(", ").any(|fault| fault == key)
}

fn duration(value: &str) -> Result<Duration, String> {
    parse_duration(value).map_err(|error| error.to_string())
}

fn size(value: &str) -> Result<u64, String> {
    parse_bytes(value).map_err(|error| error.to_string())
}

fn pace(value: &str) -> Result<u64, String> {
    let per_second = value.strip_suffix("/s").ok_or("expected a pace such as 10KiB/s")?;
    size(per_second)
}

fn whole<T: FromStr>(value: &str) -> Result<T, String> {
    value.parse().map_err(|_| "expected a whole number".to_owned())
}

fn share(value: &str) -> Result<Share, String> {
    value.parse().ok().and_then(Share::new).ok_or("a share is a number from 0.001 to 1".to_owned())
}

fn numbers(value: &str) -> Result<Vec<u64>, String> {
    let numbers: Result<Vec<u64>, _> = value.split('+').map(|number| number.trim().parse()).collect();
    numbers.map_err(|_| "expected connection numbers such as 0+3+7".to_owned())
}

fn direction(value: &str) -> Result<Direction, String> {
    match value {
        "both" => Ok(Direction::Both),
        "to-server" => Ok(Direction::ToServer),
        "to-client" => Ok(Direction::ToClient),
        _ => Err("expected both, to-server or to-client".to_owned()),
    }
}

fn side(value: &str) -> Result<Side, String> {
    match value {
        "client" => Ok(Side::Client),
        "server" => Ok(Side::Server),
        _ => Err("expected client or server: the side that is closed".to_owned()),
    }
}

/// `None` for `mid-frame`, whose direction is a key of its own.
fn cut(value: &str) -> Result<Option<Cut>, String> {
    match value {
        "fin" => Ok(Some(Cut::Fin)),
        "rst" => Ok(Some(Cut::Rst)),
        "mid-frame" => Ok(None),
        _ => Err("expected fin, rst or mid-frame".to_owned()),
    }
}
