//! What a fault is, and what must come of it, as data.

use crate::result::LoadTestResults;
use crate::result::peak::PeakResults;
use crate::run::plan::Evidence;

/// The faults of one case.
#[derive(Debug)]
pub struct Proof {
    /// The case, by its name.
    pub case: &'static str,
    /// Keys of the configuration and their values, on top of the smallest profile: to take as little time as shows as much.
    pub settings: &'static [(&'static str, &'static str)],
    /// What is done wrong, one thing at a time, in groups.
    pub faults: &'static [&'static [Planted]],
}

/// One thing that is done wrong, and what must come of it.
#[derive(Debug)]
pub struct Planted {
    /// Its name; unique within its case.
    pub name: &'static str,
    /// What is done wrong, and how.
    pub wrong: Wrong,
    /// Keys of the configuration and their values, on top of those of the case.
    pub settings: &'static [(&'static str, &'static str)],
    /// The criteria that fail by it: exactly these.
    pub expected: &'static [Expected],
}

/// Where something is done wrong.
#[derive(Debug, Clone, Copy)]
pub enum Wrong {
    /// Nowhere.
    Nothing,
    /// By our own server, which is told so by these flags.
    Server(&'static [&'static str]),
    /// In the evidence of a case whose phases are known beforehand.
    Phases(fn(&mut Evidence)),
    /// In the result of the case's last load.
    LastRun(fn(&mut LoadTestResults)),
    /// In what the search for the peak found.
    Search(fn(&mut PeakResults)),
}

/// One criterion that must fail.
#[derive(Debug)]
pub struct Expected {
    /// Its name.
    pub criterion: &'static str,
    /// Whether it is the one that the fault is planted for.
    pub role: Role,
    /// Exactly what it measures; `None` where that depends on time.
    pub measured: Option<&'static str>,
    /// What its evidence names: ids, connections, phases.
    pub names: &'static [&'static str],
}

/// Why a criterion fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The fault is planted for it.
    Named,
    /// It must fail as well, for this reason.
    Follows(&'static str),
    /// It may fail as well, for this reason.
    May(&'static str),
}

/// Nothing is done wrong, and nothing fails.
pub(super) const HEALTHY: Planted = Planted::new("healthy", Wrong::Nothing);

/// What is counted wrong, for the cases whose counts are those of `ordering`: that a server's fault leads to them is shown
/// there, so that it is enough to show here that they are judged.
pub(super) const MISCOUNTED: [Planted; 6] = [
    Planted::last_run("a-message-lost", |run| run.messages.counts.lost += 1)
        .fails(&[by("lost").measuring("1")]),
    Planted::last_run("an-answer-reordered", |run| run.messages.counts.reordered += 1)
        .fails(&[by("reordered").measuring("1")]),
    Planted::last_run("an-answer-repeated", |run| run.messages.counts.duplicates += 1)
        .fails(&[by("duplicates").measuring("1")]),
    Planted::last_run("an-answer-misnamed", |run| run.messages.counts.foreign += 1)
        .fails(&[by("foreign").measuring("1")]),
    Planted::last_run("an-answer-altered", |run| run.messages.counts.corrupted += 1)
        .fails(&[by("corrupted").measuring("1")]),
    Planted::last_run("a-connection-dropped", |run| run.connections.dropped += 1).fails(&[by("connections")]),
];

impl Planted {
    const fn new(name: &'static str, wrong: Wrong) -> Self {
        Self { name, wrong, settings: &[], expected: &[] }
    }

    /// A fault of our own server.
    pub(super) const fn server(name: &'static str, args: &'static [&'static str]) -> Self {
        Self::new(name, Wrong::Server(args))
    }

    /// A fault of the evidence.
    pub(super) const fn evidence(name: &'static str, edit: fn(&mut Evidence)) -> Self {
        Self::new(name, Wrong::Phases(edit))
    }

    /// A fault of the last load's result.
    pub(super) const fn last_run(name: &'static str, edit: fn(&mut LoadTestResults)) -> Self {
        Self::new(name, Wrong::LastRun(edit))
    }

    /// A fault of what a search found.
    pub(super) const fn search(name: &'static str, edit: fn(&mut PeakResults)) -> Self {
        Self::new(name, Wrong::Search(edit))
    }

    /// With these keys of the configuration.
    pub(super) const fn with(self, settings: &'static [(&'static str, &'static str)]) -> Self {
        Self { settings, ..self }
    }

    /// By these criteria.
    pub(super) const fn fails(self, expected: &'static [Expected]) -> Self {
        Self { expected, ..self }
    }
}

impl Expected {
    const fn new(criterion: &'static str, role: Role) -> Self {
        Self { criterion, role, measured: None, names: &[] }
    }

    /// Exactly what it measures.
    pub(super) const fn measuring(self, measured: &'static str) -> Self {
        Self { measured: Some(measured), ..self }
    }

    /// What its evidence names.
    pub(super) const fn naming(self, names: &'static [&'static str]) -> Self {
        Self { names, ..self }
    }
}

/// How long an answer may take where none is lost: longer than a machine may stand still.
pub(super) const PATIENT: (&str, &str) = ("load.answer_timeout", "5s");

/// How long one is waited for that never comes, in each phase of a case.
pub(super) const IN_VAIN: &[(&str, &str)] = &[("load.answer_timeout", "600ms")];

/// The criterion that the fault is planted for.
pub(super) const fn by(criterion: &'static str) -> Expected {
    Expected::new(criterion, Role::Named)
}

/// One that fails as well, because of `why`.
pub(super) const fn follows(criterion: &'static str, why: &'static str) -> Expected {
    Expected::new(criterion, Role::Follows(why))
}

/// One that may fail as well, because of `why`.
pub(super) const fn may(criterion: &'static str, why: &'static str) -> Expected {
    Expected::new(criterion, Role::May(why))
}
