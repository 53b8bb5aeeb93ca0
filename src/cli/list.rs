//! `floodline list`.

use std::io::Write;
use std::process::ExitCode;

use floodline::dialect::DialectKind;

use super::exit::Failure;

/// Lists what can be named on the command line.
pub fn run() -> Result<ExitCode, Failure> {
    let mut out = std::io::stdout().lock();
    let mut list = || {
        writeln!(out, "cases (floodline test CASE)")?;
        for case in floodline::scenario::ALL {
            writeln!(out, "  {:<20}{}", case.name, case.question)?;
        }
        writeln!(out, "\ncases that run only where they are named")?;
        for case in floodline::scenario::BY_NAME_ONLY {
            writeln!(out, "  {:<20}{}", case.name, case.question)?;
        }
        writeln!(
            out,
            "\nwhat a server that is not our own needs for all of a case (else that part is skipped)"
        )?;
        for case in floodline::scenario::every().filter(|case| !case.needs.is_empty()) {
            let needs: Vec<&str> = case.needs.iter().map(|need| need.text()).collect();
            writeln!(out, "  {:<20}{}", case.name, needs.join(", "))?;
        }
        writeln!(out, "\ndialects (--dialect)")?;
        DialectKind::ALL
            .iter()
            .try_for_each(|kind| writeln!(out, "  {:<20}{}", kind.name(), kind.description()))
    };
    list().map_err(Failure::usage)?;
    Ok(ExitCode::SUCCESS)
}
