//! `floodline serve`: the mock server as a process of its own.

use std::io::Write;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use clap::Args;
use floodline::limits::ensure_open_files;
use floodline::run::Listening;
use floodline::sampler::ProcessProbe;
use floodline::server::{
    DurableConfig, DurableStore, HighVolumeWebSocketServer, MemoryProbe, ProcessedIds, Retention, Secret,
    ServeError, ServerConfig, ServerConfigError, ServerFault,
};
use floodline::units::{parse_bytes, parse_duration};
use floodline::{allocator, units};

use super::exit::Failure;
use super::signals::Interrupts;

/// File descriptors beside those of the connections.
const SPARE_FILES: u64 = 64;

/// Flags of `floodline serve`.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// Address to listen on; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:0", value_name = "ADDRESS:PORT")]
    listen: SocketAddr,
    /// Threads that serve connections [default: half of the cores]
    #[arg(long, value_name = "N")]
    workers: Option<usize>,
    /// How long processing a message takes
    #[arg(long, default_value = "0", value_parser = parse_duration, value_name = "DURATION")]
    processing_delay: Duration,
    /// How many messages are processed at once [default: no limit]
    #[arg(long, value_name = "N")]
    concurrency: Option<usize>,
    /// How many messages may wait; beyond it normal ones are refused
    #[arg(long, default_value_t = ServerConfig::default().queue_capacity, value_name = "N")]
    queue_capacity: usize,
    /// Connections beyond this are closed with 1013
    #[arg(long, default_value_t = ServerConfig::default().max_connections, value_name = "N")]
    max_connections: usize,
    /// Longest message; a longer one closes its connection with 1009
    #[arg(long, default_value = "1MiB", value_parser = parse_bytes, value_name = "SIZE")]
    max_message: u64,
    /// Environment variable that holds the bearer token which handshakes must bring
    #[arg(long, value_name = "NAME")]
    token_env: Option<String>,
    /// How many ids of processed user messages are remembered
    #[arg(long, default_value_t = Retention::DEFAULT_MAX_IDS, value_name = "N")]
    idempotency_ids: NonZeroUsize,
    /// How long the id of a processed user message is remembered
    #[arg(long, default_value = "1h", value_parser = parse_duration, value_name = "DURATION")]
    idempotency_age: Duration,
    /// Keep the ids of processed user messages in this directory, so that a server that is killed and started again
    /// knows them; beside them the journal of all executions, which grows without bound
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// Do something wrong on purpose, such as stall=DURATION,at=DURATION or drop-answers=SHARE,seed=N, or hold answers
    /// for a known time: delay=lognormal:5ms:0.5,seed=N (a wrong name lists all); may be repeated
    #[arg(long, value_name = "FAULT")]
    fault: Vec<ServerFault>,
    /// Stop when standard input closes, and not at Ctrl-C: for a server that belongs to another process
    #[arg(long, hide = true)]
    until_stdin_closes: bool,
}

/// Serves until told to stop.
pub fn run(args: ServeArgs) -> Result<ExitCode, Failure> {
    serve(args).map_err(Failure::Usage)?;
    Ok(ExitCode::SUCCESS)
}

fn serve(args: ServeArgs) -> anyhow::Result<()> {
    let until_stdin_closes = args.until_stdin_closes;
    let state = args.state.clone().unwrap_or_default();
    ensure_open_files(args.max_connections as u64 + SPARE_FILES).context("--max-connections")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        // Before the line that says we are ready: whoever reads it may stop us at once.
        let mut interrupts = Interrupts::listen()?;
        let server = HighVolumeWebSocketServer::spawn(config(args)?).map_err(named)?;
        let listening = Listening { listening: server.url(), pid: std::process::id() };
        let mut out = std::io::stdout();
        writeln!(out, "{}", serde_json::to_string(&listening)?)?;
        out.flush()?;
        let told_to_stop = async {
            if until_stdin_closes {
                // Ctrl-C reaches the whole process group; the process that we belong to decides when we stop.
                tokio::select! {
                    () = stdin_closed() => {}
                    () = interrupts.terminated() => {}
                }
            } else {
                interrupts.next().await;
            }
        };
        let reported = async {
            warn(&anyhow::Error::from(server.record_error().await).context(flag_of_state(&state)));
            std::future::pending().await
        };
        tokio::select! {
            () = told_to_stop => {}
            () = reported => {}
        }
        let summary = server.shutdown().await?;
        if summary.cut_off > 0 {
            bail!("{} connections were cut off before they had all their answers", summary.cut_off);
        }
        Ok(())
    })
}

/// Says once what goes wrong while the server serves; each sender whom it concerns is told by an `error` answer.
fn warn(error: &anyhow::Error) {
    // Standard error may be closed; the answers still tell.
    let _ = writeln!(std::io::stderr(), "warning: {error:#}");
}

/// Puts the flag in front of what is wrong with its value.
fn named(error: ServeError) -> anyhow::Error {
    let flag = match &error {
        ServeError::Listen { .. } => "--listen".to_owned(),
        ServeError::Config(ServerConfigError::Token) => "--token-env".to_owned(),
        ServeError::Config(ServerConfigError::OutOfRange { setting, .. }) => match *setting {
            "max_message_bytes" => "--max-message".to_owned(),
            setting => format!("--{}", setting.replace('_', "-")),
        },
        ServeError::Thread { .. } => return error.into(),
    };
    anyhow::Error::from(error).context(flag)
}

fn config(args: ServeArgs) -> anyhow::Result<ServerConfig> {
    let defaults = ServerConfig::default();
    let token = match &args.token_env {
        Some(name) => Some(Secret::new(
            std::env::var(name).map_err(|_| anyhow!("--token-env {name}: no such variable"))?,
        )),
        None => None,
    };
    let max_message_bytes = usize::try_from(args.max_message)
        .with_context(|| format!("--max-message {}", units::bytes(args.max_message)))?;
    let retention = Retention { max_ids: args.idempotency_ids, max_age: args.idempotency_age };
    let store = args.state.as_deref().map(|dir| open_state(dir, retention)).transpose()?;
    Ok(ServerConfig {
        listen: args.listen,
        workers: args.workers.unwrap_or(defaults.workers),
        processing_delay: args.processing_delay,
        concurrency: args.concurrency,
        queue_capacity: args.queue_capacity,
        max_connections: args.max_connections,
        token,
        store,
        retention,
        max_message_bytes,
        memory: Some(MemoryProbe {
            live_bytes: allocator::live_bytes,
            resident_bytes,
            purge: || {
                allocator::purge();
            },
        }),
        faults: args.fault,
        ..defaults
    })
}

/// Opens the state directory, or says by its flag what is wrong with it.
fn open_state(dir: &Path, retention: Retention) -> anyhow::Result<Arc<dyn ProcessedIds>> {
    let config = DurableConfig { retention, ..DurableConfig::default() };
    let store = DurableStore::open(dir, &config).with_context(|| flag_of_state(dir))?;
    Ok(Arc::new(store))
}

fn flag_of_state(dir: &Path) -> String {
    format!("--state {}", dir.display())
}

fn resident_bytes() -> Option<u64> {
    ProcessProbe::of_this_process()?.read()?.rss_bytes
}

/// Reads standard input to its end.
async fn stdin_closed() {
    let (closed, wait) = tokio::sync::oneshot::channel();
    // tokio's own standard input would keep the runtime from ending.
    let reader = std::thread::Builder::new().name("stdin".to_owned()).spawn(move || {
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        let _ = closed.send(());
    });
    if reader.is_ok() {
        let _ = wait.await;
    }
}
