//! What changed, and by how much.

use std::fmt;

use crate::counts::Counts;

/// The largest change that passes, in percent. Two runs of the same build count the same to some instructions in a
/// million, so it is there for what a change elsewhere does to the layout of the code.
pub const TOLERANCE_PERCENT: u64 = 2;

/// What became of one benchmark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// No more than [`TOLERANCE_PERCENT`].
    Within,
    /// More instructions than that: worse.
    More,
    /// Fewer instructions than that: a baseline that stays too high would let them come back unseen.
    Fewer,
    /// The baseline does not know it.
    New,
    /// The baseline has it, and nothing else does.
    Gone,
}

impl Change {
    fn of(baseline: Option<u64>, now: Option<u64>) -> Self {
        let (Some(baseline), Some(now)) = (baseline, now) else {
            return if now.is_some() { Self::New } else { Self::Gone };
        };
        let beyond =
            u128::from(now.abs_diff(baseline)) * 100 > u128::from(baseline) * u128::from(TOLERANCE_PERCENT);
        match beyond {
            false => Self::Within,
            true if now > baseline => Self::More,
            true => Self::Fewer,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Within => "",
            Self::More => "MORE",
            Self::Fewer => "FEWER",
            Self::New => "NEW",
            Self::Gone => "GONE",
        }
    }
}

/// One benchmark in the baseline and now; at least one of the two counted it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// `group/function/id`.
    pub name: String,
    /// Instructions in the baseline.
    pub baseline: Option<u64>,
    /// Instructions now.
    pub now: Option<u64>,
    /// What that comes to.
    pub change: Change,
}

/// All benchmarks of either, by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Comparison {
    /// One for each.
    pub rows: Vec<Row>,
    messages: u64,
}

impl Comparison {
    /// Holds what was counted `now` over so many messages against the baseline.
    #[must_use]
    pub fn new(baseline: &Counts, now: &Counts, messages: u64) -> Self {
        let mut names: Vec<&String> = baseline.keys().chain(now.keys()).collect();
        names.sort_unstable();
        names.dedup();
        let row = |name: &String| {
            let (baseline, now) = (baseline.get(name).copied(), now.get(name).copied());
            Row { name: name.clone(), baseline, now, change: Change::of(baseline, now) }
        };
        Self { rows: names.into_iter().map(row).collect(), messages }
    }

    /// The benchmarks that became something else than they were.
    pub fn changed(&self) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter(|row| row.change != Change::Within)
    }
}

/// A table for people, in instructions a message.
impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let title = "instructions a message";
        let width = self.rows.iter().map(|row| row.name.len()).fold(title.len(), usize::max);
        let a_message = |count: u64| format!("{:.1}", count as f64 / self.messages.max(1) as f64);
        let cell = |count: Option<u64>| count.map_or_else(|| "-".to_owned(), a_message);
        writeln!(f, "{title:width$} {:>10} {:>10} {:>9}", "baseline", "now", "change")?;
        for row in &self.rows {
            let (baseline, now) = (cell(row.baseline), cell(row.now));
            let change = match (row.baseline, row.now) {
                (Some(baseline), Some(now)) if baseline > 0 => {
                    format!("{:+.2} %", (now as f64 / baseline as f64 - 1.0) * 100.0)
                }
                _ => "-".to_owned(),
            };
            let line =
                format!("{:width$} {baseline:>10} {now:>10} {change:>9}  {}", row.name, row.change.word());
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(counts: &[(&str, u64)]) -> Counts {
        counts.iter().map(|&(name, count)| (name.to_owned(), count)).collect()
    }

    /// Against the definition, for every pair of small counts.
    #[test]
    fn two_percent_pass_and_no_more() {
        for baseline in 0..=250_u64 {
            // Exact in hundredths.
            let allowed = (baseline * 98)..=(baseline * 102);
            for now in 0..=260_u64 {
                let expected = match now * 100 {
                    hundredths if allowed.contains(&hundredths) => Change::Within,
                    hundredths if hundredths > *allowed.end() => Change::More,
                    _ => Change::Fewer,
                };
                assert_eq!(Change::of(Some(baseline), Some(now)), expected, "{baseline} to {now}");
            }
        }
        assert_eq!(Change::of(Some(u64::MAX), Some(0)), Change::Fewer);
    }

    #[test]
    fn what_only_one_of_the_two_has_is_a_change() {
        let comparison =
            Comparison::new(&counts(&[("a", 10), ("b", 20)]), &counts(&[("b", 20), ("c", 30)]), 1);
        let changes: Vec<_> = comparison.rows.iter().map(|row| (row.name.as_str(), row.change)).collect();
        assert_eq!(changes, [("a", Change::Gone), ("b", Change::Within), ("c", Change::New)]);
        assert_eq!(comparison.changed().count(), 2);
    }

    #[test]
    fn the_table_is_in_instructions_a_message() {
        let before = counts(&[("codec/encode", 400_000), ("gone", 4), ("ledger/lost", 800_000), ("none", 0)]);
        let now = counts(&[("codec/encode", 412_000), ("ledger/lost", 800_400), ("new", 2_000), ("none", 0)]);
        let expected = "\
instructions a message   baseline        now    change
codec/encode                100.0      103.0   +3.00 %  MORE
gone                          0.0          -         -  GONE
ledger/lost                 200.0      200.1   +0.05 %
new                             -        0.5         -  NEW
none                          0.0        0.0         -
";
        assert_eq!(Comparison::new(&before, &now, 4_000).to_string(), expected);
    }
}
