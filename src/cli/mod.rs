//! The command line: one file a subcommand.

pub mod calibrate;
pub mod compare;
pub mod config;
mod dialect;
mod exit;
pub mod history;
pub mod list;
pub mod load;
pub mod merge;
pub mod peak;
mod progress;
pub mod proxy;
pub mod report;
pub mod selftest;
pub mod serve;
mod signals;
mod suite;
mod target;
pub mod test;
mod time_limit;

use clap::{Parser, Subcommand};

/// Floods a WebSocket service at a known rate, accounts for every message, and says whether the service holds.
#[derive(Debug, Parser)]
#[command(name = "floodline", version, about, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the mock server until it is told to stop
    Serve(Box<serve::ServeArgs>),
    /// Offer load to a server and account for every message
    Load(Box<load::LoadArgs>),
    /// Run the cases, each against a server of its own unless a target is given
    Test(Box<test::TestArgs>),
    /// Search for the highest rate that holds the limits, confirm it, and offer a burst
    Peak(Box<peak::PeakArgs>),
    /// Plant faults, and prove that every check fails by its own
    Selftest(selftest::SelftestArgs),
    /// Put faults between any client and any server
    Proxy(proxy::ProxyArgs),
    /// Merge the JSON results of several shards into one
    Merge(merge::MergeArgs),
    /// Show results again, as a page for a browser
    Report(report::ReportArgs),
    /// Say whether B is better or worse than A: two servers measured in turn, or two results
    Compare(Box<compare::CompareArgs>),
    /// List the runs that --history has kept, and find out where a figure changed
    History(history::HistoryArgs),
    /// Measure what the load generator itself can do on this machine, and keep that for the results to come
    Calibrate(calibrate::CalibrateArgs),
    /// Print the effective configuration as TOML
    Config(config::ConfigArgs),
    /// List the cases and the dialects
    List,
}
