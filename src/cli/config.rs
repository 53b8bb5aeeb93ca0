//! `floodline config`: the effective configuration.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use floodline::config::{HighVolumeConfig, Profile, environment};

use super::exit::Failure;

/// Flags of `floodline config`.
#[derive(Debug, Args)]
pub struct ConfigArgs {
    /// Configuration file; floodline.toml in the current directory where it exists
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Sizes to use: smoke, quick or full
    #[arg(long)]
    profile: Option<Profile>,
}

/// Prints every key with its value.
pub fn run(args: &ConfigArgs) -> Result<ExitCode, Failure> {
    let config = HighVolumeConfig::load(args.config.as_deref(), environment(), args.profile)
        .map_err(Failure::usage)?;
    let text = config.to_toml().map_err(Failure::usage)?;
    std::io::stdout().write_all(text.as_bytes()).map_err(Failure::usage)?;
    Ok(ExitCode::SUCCESS)
}
