//! Flags that say whom the load goes to, for every subcommand that offers load.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, anyhow};
use clap::Args;
use floodline::client::Token;
use floodline::config::HighVolumeConfig;
use floodline::dialect::{DialectError, DialectKind, DialectSettings};
use floodline::run::plan::Venue;
use floodline::run::{Peer, ServerCommand};
use floodline::workload::Target;

use super::calibrate;
use super::dialect::DialectArgs;

/// Whom the load goes to.
#[derive(Debug, Args)]
pub struct TargetArgs {
    /// ws:// or wss:// URL of the server [default: a mock server of our own, started and stopped]
    #[arg(long, value_name = "URL")]
    pub target: Option<String>,
    /// What to send and how an answer is recognised; see floodline list [default: floodline]
    #[arg(long)]
    pub dialect: Option<DialectKind>,
    /// Process id of a server on this machine, whose CPU and memory are then measured
    #[arg(long, requires = "target", value_name = "PID")]
    pub pid: Option<u32>,
    /// Environment variable that holds the bearer token for the handshake
    #[arg(long, value_name = "NAME")]
    pub token_env: Option<String>,
    /// Configuration file [default: floodline.toml in the current directory, where it exists]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// What the dialect needs to be told
    #[command(flatten)]
    pub dialects: DialectArgs,
}

/// The target by flag or configuration; `None` for a server of our own.
pub fn chosen(args: &TargetArgs, config: &HighVolumeConfig) -> anyhow::Result<Option<Target>> {
    match (&args.target, &config.target.url) {
        (Some(url), _) => Ok(Some(url.parse().context("--target")?)),
        (None, Some(url)) => Ok(Some(url.parse().context("target.url")?)),
        (None, None) => Ok(None),
    }
}

/// Where cases take place: the target, or a server of our own.
pub fn venue(args: &TargetArgs, config: &HighVolumeConfig) -> anyhow::Result<Venue> {
    let peer = match chosen(args, config)? {
        Some(target) => Peer::At { target, pid: args.pid },
        None => {
            let executable = std::env::current_exe().context("cannot find the floodline executable")?;
            Peer::Own(ServerCommand { executable, args: Vec::new() })
        }
    };
    let calibration = usize::try_from(config.load.payload_bytes)
        .ok()
        .and_then(|payload_bytes| calibrate::known(payload_bytes, config.load.connections));
    let payload_bytes = usize::try_from(config.load.payload_bytes)?;
    let (dialect, dialect_settings) = dialect(args, config, config.load.seed, payload_bytes)?;
    Ok(Venue { peer, dialect, dialect_settings, token: token(args, config)?, calibration })
}

/// The dialect by flag or configuration, with what it is told: known to make sense before any load.
pub fn dialect(
    args: &TargetArgs,
    config: &HighVolumeConfig,
    seed: u64,
    payload_bytes: usize,
) -> anyhow::Result<(DialectKind, Arc<DialectSettings>)> {
    let kind = args.dialect.map_or_else(|| config.target.dialect.parse(), Ok).context("target.dialect")?;
    let told = args.dialects.over(&config.dialect);
    let settings = DialectSettings::new(told, |name| std::env::var(name).ok())?;
    match settings.dialect(kind, seed, payload_bytes) {
        Err(error @ DialectError::PayloadTooSmall { .. }) => Err(anyhow!(error).context("--payload-bytes")),
        other => {
            other?;
            Ok((kind, Arc::new(settings)))
        }
    }
}

/// The bearer token, from wherever the flag or the configuration says.
pub fn token(args: &TargetArgs, config: &HighVolumeConfig) -> anyhow::Result<Option<Token>> {
    if let Some(name) = args.token_env.as_ref().or(config.target.token_env.as_ref()) {
        let token = std::env::var(name).map_err(|_| anyhow!("--token-env {name}: no such variable"))?;
        return Ok(Some(Token::new(token)));
    }
    let Some(path) = &config.target.token_file else {
        return Ok(None);
    };
    let token = std::fs::read_to_string(path).with_context(|| format!("token_file {path}"))?;
    Ok(Some(Token::new(token.trim())))
}

/// The environment's settings, without the variable that holds the token, whatever its name.
pub fn environment_without_token(
    args: &TargetArgs,
    environment: impl Iterator<Item = (String, String)>,
) -> impl Iterator<Item = (String, String)> {
    environment.filter(|(name, _)| Some(name) != args.token_env.as_ref())
}
