//! The progress line: on a terminal only, and on standard error.

use std::io::{IsTerminal, Write};

use floodline::client::{LoadProgress, Observer};
use floodline::report::terminal;
use floodline::run::plan::PlanObserver;

/// Shows how a load goes, in one line that is written over.
pub struct ProgressLine {
    /// What the line begins with: the case and phase.
    prefix: String,
    shown: bool,
    terminal: bool,
}

impl Default for ProgressLine {
    fn default() -> Self {
        Self { prefix: String::new(), shown: false, terminal: std::io::stderr().is_terminal() }
    }
}

impl ProgressLine {
    /// Names the case that follows.
    pub fn case(&mut self, name: &str) {
        self.prefix = name.to_owned();
        self.show("");
    }

    /// Leaves the line empty for what comes next.
    pub fn clear(&mut self) {
        if std::mem::take(&mut self.shown) {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }

    fn show(&mut self, text: &str) {
        if self.terminal {
            let _ = write!(std::io::stderr(), "\r\x1b[K{}{text}", self.prefix);
            let _ = std::io::stderr().flush();
            self.shown = true;
        }
    }
}

impl Observer for ProgressLine {
    fn progress(&mut self, progress: &LoadProgress) {
        self.show(&terminal::progress(progress));
    }
}

impl PlanObserver for ProgressLine {
    fn phase(&mut self, name: &str) {
        let case = self.prefix.split(' ').next().unwrap_or_default().to_owned();
        self.prefix = format!("{case} {name} ");
        self.show("");
    }
}
