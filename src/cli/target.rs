//! Flags that say whom the load goes to, how it is reached, and what no load goes beyond, for every subcommand that offers
//! load.

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use clap::Args;
use floodline::config::HighVolumeConfig;
use floodline::dialect::{DialectError, DialectKind, DialectSettings};
use floodline::run::plan::Venue;
use floodline::run::{Peer, Restart, ServerCommand, access};
use floodline::units::{Rate, parse_duration};
use floodline::workload::Target;

use super::calibrate;
use super::dialect::DialectArgs;

/// Whom the load goes to.
#[derive(Debug, Args)]
pub struct TargetArgs {
    /// ws:// or wss:// URL of the server [default: a mock server of our own, started and stopped]
    #[arg(long, value_name = "URL")]
    pub target: Option<String>,
    /// Host of the target, where that is not this machine: load on a stranger's server is an attack; may be repeated
    #[arg(long, value_name = "HOST")]
    i_may_load: Vec<String>,
    /// What to send and how an answer is recognised; see floodline list [default: floodline]
    #[arg(long)]
    pub dialect: Option<DialectKind>,
    /// Process id of a server on this machine, whose CPU and memory are then measured
    #[arg(long, requires = "target", value_name = "PID")]
    pub pid: Option<u32>,
    /// Command that kills the target and starts it again, and then ends; see docs/access.md
    #[arg(long, value_name = "COMMAND")]
    restart_command: Option<String>,
    /// Configuration file [default: floodline.toml in the current directory, where it exists]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    #[command(flatten)]
    handshake: HandshakeArgs,
    #[command(flatten)]
    tls: TlsArgs,
    #[command(flatten)]
    guard: GuardArgs,
    /// What the dialect needs to be told
    #[command(flatten)]
    pub dialects: DialectArgs,
}

/// What the handshake carries.
#[derive(Debug, Args)]
#[command(next_help_heading = "Handshake")]
struct HandshakeArgs {
    /// Environment variable that holds the bearer token for the handshake
    #[arg(long, value_name = "NAME", conflicts_with = "token_file")]
    token_env: Option<String>,
    /// File of bearer tokens, one a line, dealt to the connections in turn; read again whenever one is opened again
    #[arg(long, value_name = "FILE")]
    token_file: Option<String>,
    /// Where the token stands: bearer, header=NAME or query=NAME [default: bearer]
    #[arg(long, value_name = "PLACE")]
    token_in: Option<String>,
    /// Header of the handshake, not for secrets; may be repeated
    #[arg(long, value_name = "NAME: VALUE")]
    header: Vec<String>,
    /// Subprotocol to offer, the preferred one first; may be repeated
    #[arg(long, value_name = "NAME")]
    subprotocol: Vec<String>,
    /// What to add to the query of the URL, not for secrets; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    query: Vec<String>,
    /// The Host header [default: that of the URL]
    #[arg(long, value_name = "HOST")]
    host: Option<String>,
}

/// What holds for `wss://`.
#[derive(Debug, Args)]
#[command(next_help_heading = "TLS")]
struct TlsArgs {
    /// Certificate authorities to trust, PEM [default: the system's]
    #[arg(long, value_name = "FILE")]
    ca: Option<String>,
    /// Certificate chain of the client, PEM
    #[arg(long, value_name = "FILE", requires = "client_key")]
    client_cert: Option<String>,
    /// Its private key, PEM
    #[arg(long, value_name = "FILE", requires = "client_cert")]
    client_key: Option<String>,
    /// Name to ask for (SNI) and to find in the certificate [default: the URL's host]
    #[arg(long, value_name = "NAME")]
    server_name: Option<String>,
    /// Take any certificate, whoever shows it; said in every result
    #[arg(long)]
    insecure: bool,
}

/// What no load goes beyond.
#[derive(Debug, Args)]
#[command(next_help_heading = "Guard")]
struct GuardArgs {
    /// Never offer more messages a second than that [default: 1000000]
    #[arg(long, value_name = "RATE")]
    max_rate: Option<Rate>,
    /// Never open more connections than that [default: 10000]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    max_connections: Option<u32>,
    /// End everything after that, and refuse what is planned to take longer [default: 2h]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    time_limit: Option<Duration>,
}

impl TargetArgs {
    /// Puts the flags over what the configuration says.
    pub fn overlay(&self, config: &mut HighVolumeConfig) -> anyhow::Result<()> {
        let Self { handshake, tls, guard, .. } = self;
        let target = &mut config.target;
        if handshake.token_env.is_some() || handshake.token_file.is_some() {
            (target.token_env, target.token_file) =
                (handshake.token_env.clone(), handshake.token_file.clone());
        }
        let texts = [
            (&mut target.url, &self.target),
            (&mut target.restart_command, &self.restart_command),
            (&mut target.host, &handshake.host),
            (&mut target.ca, &tls.ca),
            (&mut target.client_cert, &tls.client_cert),
            (&mut target.client_key, &tls.client_key),
            (&mut target.server_name, &tls.server_name),
        ];
        for (setting, given) in texts {
            if given.is_some() {
                setting.clone_from(given);
            }
        }
        if let Some(place) = &handshake.token_in {
            target.token_in.clone_from(place);
        }
        target.i_may_load.extend(self.i_may_load.iter().cloned());
        target.headers.extend(handshake.header.iter().cloned());
        target.subprotocols.extend(handshake.subprotocol.iter().cloned());
        target.query.extend(handshake.query.iter().cloned());
        target.insecure |= tls.insecure;
        let known = &mut config.guard;
        known.max_rate = guard.max_rate.unwrap_or(known.max_rate);
        known.max_connections = guard.max_connections.unwrap_or(known.max_connections);
        known.time_limit = guard.time_limit.unwrap_or(known.time_limit);
        if known.time_limit.is_zero() {
            bail!("--time-limit 0 s: nothing could be offered");
        }
        if config.target.insecure {
            // Standard error may be closed; the result says it too.
            let _ = writeln!(
                std::io::stderr(),
                "warning: --insecure: the server's certificate is not checked, so anybody may be the one who answers"
            );
        }
        Ok(())
    }

    /// What the own server needs so that a load with these flags gets in.
    pub fn own_server_args(&self, config: &HighVolumeConfig) -> Vec<String> {
        let env = config.target.token_env.iter().map(|name| format!("--token-env={name}"));
        let file = config.target.token_file.iter().map(|path| format!("--tokens={path}"));
        env.chain(file).collect()
    }

    /// The environment's settings, without the variable that holds the token, whatever its name.
    pub fn environment_without_token(
        &self,
        environment: impl Iterator<Item = (String, String)>,
    ) -> impl Iterator<Item = (String, String)> {
        environment.filter(|(name, _)| Some(name) != self.handshake.token_env.as_ref())
    }
}

/// The target by flag or configuration; `None` for a server of our own.
pub fn chosen(args: &TargetArgs, config: &HighVolumeConfig) -> anyhow::Result<Option<Target>> {
    let setting = if args.target.is_some() { "--target" } else { "target.url" };
    config.target.url.as_ref().map(|url| url.parse().context(setting)).transpose()
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
    let restart = config.target.restart_command.clone().map(Restart::command);
    if restart.is_some() && matches!(peer, Peer::Own(_)) {
        bail!("--restart-command: without a --target our own server is started, and killed by us");
    }
    let payload_bytes = usize::try_from(config.load.payload_bytes)?;
    let (dialect, dialect_settings) = dialect(args, config, config.load.seed, payload_bytes)?;
    let access = access(&config.target)?;
    Ok(Venue { dialect, dialect_settings, access, calibration, restart, ..Venue::new(peer) })
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
