//! `floodline load`: one load, accounted for.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, anyhow};
use clap::Args;
use floodline::client::{LoadProgress, Observer, Stop, Token};
use floodline::config::{HighVolumeConfig, environment};
use floodline::dialect::DialectKind;
use floodline::pacer::PacerKind;
use floodline::report::json::JsonOutput;
use floodline::report::terminal;
use floodline::run::{LoadPlan, Peer, ServerCommand, run_load};
use floodline::scenario::load::{LatencyLimit, judge};
use floodline::schedule::Arrival;
use floodline::units::{parse_bytes, parse_duration};
use floodline::workload::{Offered, Shard, Target, Workload};

use super::exit::{Failure, code_of};
use super::signals::on_interrupt;

/// Flags of `floodline load`; what is not given comes from the environment, floodline.toml, or the defaults.
#[derive(Debug, Args)]
pub struct LoadArgs {
    /// ws:// or wss:// URL of the server [default: a mock server of our own, started and stopped]
    #[arg(long, value_name = "URL")]
    target: Option<String>,
    /// Messages per second over all connections, or max for a closed loop [default: 10000]
    #[arg(long, value_name = "RATE|max")]
    rate: Option<Offered>,
    /// Connections over all shards [default: 100]
    #[arg(long, value_name = "N")]
    connections: Option<u32>,
    /// How long load is offered [default: 10s]
    #[arg(long, value_parser = parse_duration, value_name = "DURATION")]
    duration: Option<Duration>,
    /// Law of arrivals: uniform or poisson [default: uniform]
    #[arg(long)]
    arrival: Option<Arrival>,
    /// Bytes of content a message [default: 1024]
    #[arg(long, value_parser = parse_bytes, value_name = "SIZE")]
    payload_bytes: Option<u64>,
    /// Unanswered messages a connection, where the rate is max [default: 32]
    #[arg(long, value_name = "N")]
    window: Option<u32>,
    /// What to send and how an answer is recognised; see floodline list [default: floodline]
    #[arg(long)]
    dialect: Option<DialectKind>,
    /// How workers wait for the next message: timer, spin or coalesce=PERIOD [default: timer]
    #[arg(long)]
    pacer: Option<PacerKind>,
    /// Limit on a latency percentile, such as p99=500ms; may be repeated
    #[arg(long, value_name = "PERCENTILE=LIMIT")]
    limit: Vec<LatencyLimit>,
    /// A message without an answer for so long after its last send is lost [default: 30s]
    #[arg(long, value_parser = parse_duration, value_name = "DURATION")]
    answer_timeout: Option<Duration>,
    /// How long opening a connection may take
    #[arg(long, default_value = "10s", value_parser = parse_duration, value_name = "DURATION")]
    connect_timeout: Duration,
    /// Over how long the connections are opened
    #[arg(long, default_value = "0", value_parser = parse_duration, value_name = "DURATION")]
    ramp_up: Duration,
    /// Seed of contents and arrivals [default: 1]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Worker threads [default: half of the cores]
    #[arg(long, value_name = "N")]
    workers: Option<usize>,
    /// Offer only this part of the load, as one of several processes or machines
    #[arg(long, default_value = "0/1", value_name = "I/N")]
    shard: Shard,
    /// Start at this time (2026-01-31T12:00:00Z), together with other shards
    #[arg(long, value_name = "UTC", value_parser = humantime::parse_rfc3339_weak)]
    start_at: Option<SystemTime>,
    /// Process id of a server on this machine, whose CPU and memory are then measured
    #[arg(long, requires = "target", value_name = "PID")]
    pid: Option<u32>,
    /// Environment variable that holds the bearer token for the handshake
    #[arg(long, value_name = "NAME")]
    token_env: Option<String>,
    /// Configuration file; floodline.toml in the current directory where it exists
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Write the result to this file, or to standard output for -
    #[arg(long, value_name = "FILE|-")]
    json: Option<PathBuf>,
}

/// Offers the load, judges and reports it.
pub fn run(args: LoadArgs) -> Result<ExitCode, Failure> {
    let env = environment().filter(|(name, _)| Some(name) != args.token_env.as_ref());
    let config = HighVolumeConfig::load(args.config.as_deref(), env, None).map_err(Failure::usage)?;
    let plan = plan(&args, &config).map_err(Failure::Usage)?;
    let json = args.json.as_deref().map(JsonOutput::open).transpose().map_err(Failure::usage)?;
    let stop = Stop::default();
    let on_signal = stop.clone();
    on_interrupt(move || on_signal.stop()).map_err(Failure::usage)?;
    let mut display = ProgressLine::default();
    let outcome = run_load(&plan, &stop, &mut display);
    display.clear();
    let mut results = outcome?;
    judge(&mut results, &config.limits, &args.limit);
    let text = terminal::summary(&results);
    if json.as_ref().is_some_and(JsonOutput::is_stdout) {
        let _ = std::io::stderr().write_all(text.as_bytes());
    } else {
        std::io::stdout().write_all(text.as_bytes()).map_err(Failure::usage)?;
    }
    if let Some(json) = json {
        json.write(&results).map_err(Failure::usage)?;
    }
    Ok(if results.interrupted { ExitCode::from(130) } else { code_of(results.verdict) })
}

fn plan(args: &LoadArgs, config: &HighVolumeConfig) -> anyhow::Result<LoadPlan> {
    let load = &config.load;
    let workload = Workload {
        offered: args.rate.unwrap_or(Offered::Rate(load.rate)),
        connections: args.connections.unwrap_or(load.connections),
        duration: args.duration.unwrap_or(load.duration),
        arrival: args.arrival.map_or_else(|| load.arrival.parse(), Ok)?,
        payload_bytes: usize::try_from(args.payload_bytes.unwrap_or(load.payload_bytes))?,
        window: args.window.unwrap_or(load.window) as usize,
        answer_timeout: args.answer_timeout.unwrap_or(load.answer_timeout),
        seed: args.seed.unwrap_or(load.seed),
        pacer: args.pacer.map_or_else(|| load.pacer.parse(), Ok)?,
        shard: args.shard,
        ramp_up: args.ramp_up,
        connect_timeout: args.connect_timeout,
    }
    .validated()?;
    let peer = match args.target.as_ref().or(config.target.url.as_ref()) {
        Some(url) => {
            let target: Target = url.parse().context("--target")?;
            Peer::At { target, pid: args.pid }
        }
        None => Peer::Own(own_server(args, &workload)?),
    };
    let start_at_unix_ns = args
        .start_at
        .map(|at| at.duration_since(UNIX_EPOCH).map(|since| since.as_nanos() as u64))
        .transpose()
        .context("--start-at")?;
    Ok(LoadPlan {
        workload,
        peer,
        dialect: args.dialect.map_or_else(|| config.target.dialect.parse(), Ok)?,
        token: token(args, config)?,
        workers: args.workers,
        start_at_unix_ns,
    })
}

fn own_server(args: &LoadArgs, workload: &Workload) -> anyhow::Result<ServerCommand> {
    let executable = std::env::current_exe().context("cannot find the floodline executable")?;
    let mut serve = vec![format!("--max-connections={}", workload.connections.max(1_100))];
    if let Some(name) = &args.token_env {
        serve.push(format!("--token-env={name}"));
    }
    Ok(ServerCommand { executable, args: serve })
}

fn token(args: &LoadArgs, config: &HighVolumeConfig) -> anyhow::Result<Option<Token>> {
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

/// The progress line: on a terminal only, and on standard error.
struct ProgressLine {
    shown: bool,
    terminal: bool,
}

impl Default for ProgressLine {
    fn default() -> Self {
        Self { shown: false, terminal: std::io::stderr().is_terminal() }
    }
}

impl ProgressLine {
    fn clear(&self) {
        if self.shown {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

impl Observer for ProgressLine {
    fn progress(&mut self, progress: &LoadProgress) {
        if self.terminal {
            let _ = write!(std::io::stderr(), "\r\x1b[K{}", terminal::progress(progress));
            self.shown = true;
        }
    }
}
