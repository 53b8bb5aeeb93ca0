//! `floodline load`: one load, accounted for.

use std::io::Write;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, anyhow, bail};
use clap::Args;
use floodline::client::Stop;
use floodline::config::{HighVolumeConfig, environment};
use floodline::dialect::{DialectKind, RequestKind};
use floodline::message::Priority;
use floodline::pacer::PacerKind;
use floodline::report::json::JsonOutput;
use floodline::report::terminal;
use floodline::retry::{PingPolicy, RetryPolicy};
use floodline::run::{LoadPlan, Peer, ServerCommand, access, run_load};
use floodline::scenario::load::{LatencyLimit, judge};
use floodline::schedule::Arrival;
use floodline::units::{UnitError, parse_bytes, parse_duration};
use floodline::workload::{Offered, Shard, Workload, WorkloadError};

use super::calibrate;
use super::exit::{Failure, code_of};
use super::history::Keeper;
use super::progress::ProgressLine;
use super::signals::on_interrupt;
use super::target::{self, TargetArgs};
use super::time_limit::TimeLimit;

/// Connections that the own server allows beyond those of the load: the last ones may not be gone yet when a new one
/// comes in their place.
pub(super) const SPARE_CONNECTIONS: u32 = 64;

/// Flags of `floodline load`; what is not given comes from the environment, floodline.toml, or the defaults.
#[derive(Debug, Args)]
pub struct LoadArgs {
    /// Messages per second over all connections, or max for a closed loop [default: 10000]
    #[arg(long, allow_negative_numbers = true, value_name = "RATE|max")]
    rate: Option<Offered>,
    /// Connections over all shards [default: 100]
    #[arg(long, allow_negative_numbers = true, value_name = "N")]
    connections: Option<u32>,
    /// How long load is offered [default: 10s]
    #[arg(long, value_parser = parse_duration, value_name = "DURATION")]
    duration: Option<Duration>,
    /// How long the rate rises before that, and falls after it; messages due then are counted and not timed
    #[arg(long, default_value = "0", value_parser = parse_duration, value_name = "DURATION")]
    ramp: Duration,
    /// Law of arrivals: uniform or poisson [default: uniform]
    #[arg(long)]
    arrival: Option<Arrival>,
    /// Bytes of content a message [default: 1024]
    #[arg(long, value_parser = parse_bytes, value_name = "SIZE")]
    payload_bytes: Option<u64>,
    /// Unanswered messages a connection, where the rate is max [default: 32]
    #[arg(long, value_name = "N")]
    window: Option<u32>,
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
    /// Open a lost connection again, with exponential backoff, and send again what is unanswered
    #[arg(long)]
    reconnect: bool,
    /// Ping the server so often, and take it for dead when nothing has come from it for so long, such as 1s,3s
    #[arg(long, value_name = "EVERY,DEAD")]
    ping: Option<PingPolicy>,
    /// What to send in the dialect floodline: throughput_test or user_message [default: throughput_test]
    #[arg(long)]
    request: Option<RequestKind>,
    /// Priority of all messages in the dialect floodline: high or normal [default: none is named]
    #[arg(long, value_parser = parse_priority)]
    priority: Option<Priority>,
    /// Worker threads [default: half of the cores]
    #[arg(long, value_name = "N")]
    workers: Option<NonZeroUsize>,
    /// Offer only this part of the load, as one of several processes or machines
    #[arg(long, default_value = "0/1", value_name = "I/N")]
    shard: Shard,
    /// Start at this time (2026-01-31T12:00:00Z), together with other shards
    #[arg(long, value_name = "UTC", value_parser = humantime::parse_rfc3339_weak)]
    start_at: Option<SystemTime>,
    /// Write the result to this file, or to standard output for -
    #[arg(long, value_name = "FILE|-")]
    json: Option<PathBuf>,
    /// Append the result to this SQLite file; see floodline history
    #[arg(long, value_name = "FILE")]
    history: Option<PathBuf>,
    // Last: the headings in the help go on to what follows.
    #[command(flatten)]
    target: TargetArgs,
}

/// Offers the load, judges and reports it.
pub fn run(args: LoadArgs) -> Result<ExitCode, Failure> {
    let env = args.target.environment_without_token(environment());
    let mut config =
        HighVolumeConfig::load(args.target.config.as_deref(), env, None).map_err(Failure::usage)?;
    args.target.overlay(&mut config).map_err(Failure::Usage)?;
    let plan = plan(&args, &config).map_err(Failure::Usage)?;
    let json =
        args.json.as_deref().map(JsonOutput::open).transpose().context("--json").map_err(Failure::Usage)?;
    let keeper = Keeper::open(args.history.as_deref())?;
    let stop = Stop::default();
    let on_signal = stop.clone();
    on_interrupt(move || on_signal.stop()).map_err(Failure::usage)?;
    // Waiting for other shards is no part of it.
    let wait = args.start_at.and_then(|at| at.duration_since(SystemTime::now()).ok()).unwrap_or_default();
    let time_limit = TimeLimit::start(config.guard.time_limit, wait, &stop).map_err(Failure::usage)?;
    let mut display = ProgressLine::default();
    let outcome = run_load(&plan, &stop, &mut display);
    display.clear();
    let mut results = outcome.map_err(|error| time_limit.reached().unwrap_or_else(|| error.into()))?;
    judge(&mut results, &config.limits, &args.limit);
    let text = terminal::summary(&results);
    if json.as_ref().is_some_and(JsonOutput::is_stdout) {
        let _ = std::io::stderr().write_all(text.as_bytes());
    } else {
        std::io::stdout().write_all(text.as_bytes()).map_err(Failure::usage)?;
    }
    if let Some(keeper) = keeper {
        keeper.keep(|history, commit| history.append_load(&results, commit))?;
    }
    if let Some(json) = json {
        json.write(&results).context("--json").map_err(Failure::Usage)?;
    }
    match time_limit.reached() {
        Some(ended) if results.interrupted => Err(ended),
        _ if results.interrupted => Ok(ExitCode::from(130)),
        _ => Ok(code_of(results.verdict)),
    }
}

fn plan(args: &LoadArgs, config: &HighVolumeConfig) -> anyhow::Result<LoadPlan> {
    let load = &config.load;
    let workload = Workload {
        offered: args.rate.unwrap_or(Offered::Rate(load.rate)),
        connections: args.connections.unwrap_or(load.connections),
        duration: args.duration.unwrap_or(load.duration),
        ramp: args.ramp,
        arrival: args.arrival.map_or_else(|| load.arrival.parse(), Ok).context("load.arrival")?,
        payload_bytes: usize::try_from(args.payload_bytes.unwrap_or(load.payload_bytes))?,
        window: args.window.unwrap_or(load.window) as usize,
        answer_timeout: args.answer_timeout.unwrap_or(load.answer_timeout),
        seed: args.seed.unwrap_or(load.seed),
        pacer: args.pacer.map_or_else(|| load.pacer.parse(), Ok).context("load.pacer")?,
        shard: args.shard,
        ramp_up: args.ramp_up,
        connect_timeout: args.connect_timeout,
        retry: args.reconnect.then(RetryPolicy::default),
        ping: args.ping,
        ..Workload::default()
    }
    .validated()
    .map_err(|error| {
        let flag = flag_of(&error);
        anyhow!(error).context(flag)
    })?;
    config.guard.check_load("this load", &workload)?;
    let (dialect, dialect_settings) =
        target::dialect(&args.target, config, workload.seed, workload.payload_bytes)?;
    if dialect != DialectKind::Floodline && (args.request.is_some() || args.priority.is_some()) {
        let flag = if args.request.is_some() { "--request" } else { "--priority" };
        bail!("{flag}: the dialect {dialect} has no such choice");
    }
    if dialect_settings.fan_out() > 1 && workload.shard.of > 1 {
        bail!(
            "--fan-out {}: those who share a topic are in one process, so not with --shard",
            dialect_settings.fan_out()
        );
    }
    let peer = match target::chosen(&args.target, config)? {
        Some(target) => Peer::At { target, pid: args.target.pid },
        None if dialect != DialectKind::Floodline => {
            bail!("--dialect {dialect}: the own server does not speak it, so a --target is needed")
        }
        None => Peer::Own(own_server(args, config, &workload)?),
    };
    // Another number of workers is another generator.
    let calibration = calibrate::known(workload.payload_bytes, workload.shard_connections().count() as u32)
        .filter(|known| args.workers.is_none_or(|workers| workers.get() == known.workers));
    let start_at_unix_ns = args
        .start_at
        .map(|at| at.duration_since(UNIX_EPOCH).map(|since| since.as_nanos() as u64))
        .transpose()
        .context("--start-at")?;
    Ok(LoadPlan {
        workload,
        peer,
        dialect,
        dialect_settings,
        request: args.request.unwrap_or_default(),
        priority: args.priority,
        access: access(&config.target)?,
        workers: args.workers.map(NonZeroUsize::get),
        start_at_unix_ns,
        together: None,
        via: None,
        in_flight: None,
        server_pid_now: None,
        calibration,
    })
}

fn parse_priority(text: &str) -> Result<Priority, UnitError> {
    [Priority::High, Priority::Normal].into_iter().find(|priority| priority.as_str() == text).ok_or_else(
        || UnitError::Malformed { value: text.to_owned(), expected: "a priority: high or normal" },
    )
}

/// The flag that an error is about.
fn flag_of(error: &WorkloadError) -> &'static str {
    match error {
        WorkloadError::NoConnections => "--connections",
        WorkloadError::EmptyShard { .. } => "--shard",
        WorkloadError::NoDuration => "--duration",
        WorkloadError::RampWithoutRate { .. } => "--ramp",
        WorkloadError::PoissonTooFast { .. } => "--rate",
        WorkloadError::NoWindow => "--window",
        WorkloadError::PayloadTooLarge { .. } => "--payload-bytes",
        WorkloadError::NoAnswerTimeout => "--answer-timeout",
        WorkloadError::NoBackoff => "--reconnect",
        WorkloadError::UselessPings { .. } => "--ping",
    }
}

fn own_server(
    args: &LoadArgs,
    config: &HighVolumeConfig,
    workload: &Workload,
) -> anyhow::Result<ServerCommand> {
    let executable = std::env::current_exe().context("cannot find the floodline executable")?;
    // No more than it needs: it checks the limit of open files against this.
    let connections = workload.connections.saturating_add(SPARE_CONNECTIONS);
    let mut serve = vec![format!("--max-connections={connections}")];
    serve.extend(args.target.own_server_args(config));
    Ok(ServerCommand { executable, args: serve })
}
