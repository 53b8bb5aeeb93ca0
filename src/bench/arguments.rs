//! The command line of a bench, which is Criterion's.

use super::BenchError;

/// What Criterion was asked to do, as far as it decides whether a load must run.
#[derive(Debug)]
pub(super) struct Arguments {
    pub(super) mode: Mode,
    pub(super) filter: Filter,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// Measure.
    Measure,
    /// Run everything once.
    Test,
    /// Show what is known; run nothing.
    NoRun,
}

#[derive(Debug)]
pub(super) enum Filter {
    All,
    Exact(String),
    Matching(regex::Regex),
}

impl Filter {
    pub(super) fn accepts(&self, id: &str) -> bool {
        match self {
            Self::All => true,
            Self::Exact(exact) => id == exact,
            Self::Matching(regex) => regex.is_match(id),
        }
    }
}

impl Arguments {
    /// Criterion reads and checks the same arguments; this only looks for what concerns the load.
    pub(super) fn parse(args: impl Iterator<Item = String>) -> Result<Self, BenchError> {
        // As Criterion has it: what `cargo test --benches` runs is not told to measure.
        let mut mode = Mode::Test;
        let mut told = false;
        let mut exact = false;
        let mut filter = None;
        let mut args = args.peekable();
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--bench" if !told => mode = Mode::Measure,
                "--test" => (mode, told) = (Mode::Test, true),
                "--list" => (mode, told) = (Mode::NoRun, true),
                "--exact" => exact = true,
                flag if flag.starts_with("--load-baseline") => {
                    (mode, told) = (Mode::NoRun, true);
                    skip_value(flag, &mut args);
                }
                flag if takes_value(flag) => skip_value(flag, &mut args),
                flag if flag.starts_with('-') => {}
                _ => filter = Some(arg),
            }
        }
        let filter = match filter {
            None => Filter::All,
            Some(text) if exact => Filter::Exact(text),
            Some(text) => match regex::Regex::new(&text) {
                Ok(regex) => Filter::Matching(regex),
                Err(cause) => return Err(BenchError::Filter { filter: text, cause }),
            },
        };
        Ok(Self { mode, filter })
    }
}

/// Criterion's flags that are followed by a value.
fn takes_value(flag: &str) -> bool {
    const FLAGS: [&str; 17] = [
        "-c",
        "--color",
        "--colour",
        "-s",
        "--save-baseline",
        "-b",
        "--baseline",
        "--baseline-lenient",
        "--format",
        "--profile-time",
        "--sample-size",
        "--warm-up-time",
        "--measurement-time",
        "--nresamples",
        "--noise-threshold",
        "--confidence-level",
        "--significance-level",
    ];
    const MORE: [&str; 2] = ["--plotting-backend", "--output-format"];
    FLAGS.contains(&flag) || MORE.contains(&flag)
}

fn skip_value(flag: &str, args: &mut impl Iterator<Item = String>) {
    if !flag.contains('=') {
        args.next();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Arguments {
        Arguments::parse(line.split_whitespace().map(str::to_owned)).unwrap()
    }

    #[test]
    fn the_filter_is_what_no_flag_takes() {
        let arguments = parse("--bench --save-baseline main --sample-size 20 latency_p50");
        assert_eq!(arguments.mode, Mode::Measure);
        assert!(arguments.filter.accepts("rate_scaling/latency_p50/100"));
        assert!(!arguments.filter.accepts("rate_scaling/latency_p99/100"));
        assert!(parse("--bench --save-baseline main").filter.accepts("anything"));
    }

    #[test]
    fn an_exact_filter_matches_the_whole_id() {
        let arguments = parse("--exact rate_scaling/latency_p50/100 --test");
        assert_eq!(arguments.mode, Mode::Test);
        assert!(arguments.filter.accepts("rate_scaling/latency_p50/100"));
        assert!(!arguments.filter.accepts("rate_scaling/latency_p50/1000"));
    }

    #[test]
    fn nothing_is_measured_but_by_cargo_bench() {
        assert_eq!(parse("--bench").mode, Mode::Measure);
        for line in ["", "latency_p50", "--test", "--bench --test", "--test --bench"] {
            assert_eq!(parse(line).mode, Mode::Test, "{line}");
        }
    }

    #[test]
    fn nothing_runs_where_nothing_is_measured() {
        assert_eq!(parse("--bench --list").mode, Mode::NoRun);
        assert_eq!(parse("--list --bench").mode, Mode::NoRun);
        assert_eq!(parse("--list").mode, Mode::NoRun);
        assert_eq!(parse("--load-baseline main").mode, Mode::NoRun);
        assert_eq!(parse("--load-baseline=main x").mode, Mode::NoRun);
        assert!(!parse("--load-baseline main x").filter.accepts("main"));
    }

    #[test]
    fn a_broken_filter_is_named() {
        let error = Arguments::parse(["(".to_owned()].into_iter()).unwrap_err().to_string();
        assert!(error.contains("`(`"), "{error}");
    }
}
