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
    DurableConfig, DurableStore, HighVolumeWebSocketServer, KnownToken, MemoryProbe, ProcessedIds, Retention,
    Secret, ServeError, ServerConfig, ServerConfigError, ServerFault, ServerTls,
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
    /// Size of each of a connection's two buffers in the kernel [default: as the system likes]
    #[arg(long, value_parser = parse_bytes, value_name = "SIZE")]
    socket_buffer: Option<u64>,
    /// Environment variable that holds the bearer token which handshakes must bring
    #[arg(long, value_name = "NAME")]
    token_env: Option<String>,
    /// File of bearer tokens of which handshakes must bring one: a line each, TOKEN [IDENTITY [LIFETIME]], the lifetime
    /// counted from a token's first handshake
    #[arg(long, value_name = "FILE")]
    tokens: Option<PathBuf>,
    /// Subprotocol that is spoken where a handshake offers it; may be repeated
    #[arg(long, value_name = "NAME")]
    subprotocol: Vec<String>,
    /// Certificate chain, PEM: TLS alone is spoken
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// Its private key, PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Make a certificate for localhost and its key, write them to cert.pem and key.pem in this directory, and speak TLS
    #[arg(long, value_name = "DIR", conflicts_with = "tls_cert")]
    tls_self_signed: Option<PathBuf>,
    /// Certificate authorities, PEM: a client must show a certificate of theirs
    #[arg(long, value_name = "FILE")]
    tls_client_ca: Option<PathBuf>,
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
        ServeError::Config(ServerConfigError::Token) => "--token-env, --tokens".to_owned(),
        ServeError::Config(ServerConfigError::OutOfRange { setting, .. }) => match *setting {
            "max_message_bytes" => "--max-message".to_owned(),
            "socket_buffer_bytes" => "--socket-buffer".to_owned(),
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
    let tokens = args.tokens.as_deref().map(read_tokens).transpose()?.unwrap_or_default();
    let tls = tls(&args)?;
    let max_message_bytes = usize::try_from(args.max_message)
        .with_context(|| format!("--max-message {}", units::bytes(args.max_message)))?;
    let socket_buffer_bytes = args.socket_buffer.map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
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
        tokens,
        subprotocols: args.subprotocol,
        tls,
        store,
        retention,
        max_message_bytes,
        socket_buffer_bytes,
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

fn read_tokens(path: &Path) -> anyhow::Result<Vec<KnownToken>> {
    let flag = || format!("--tokens {}", path.display());
    KnownToken::list(&std::fs::read_to_string(path).with_context(flag)?).with_context(flag)
}

/// What is shown of the server, where it is to speak TLS.
fn tls(args: &ServeArgs) -> anyhow::Result<Option<ServerTls>> {
    let (cert, key) = match (&args.tls_cert, &args.tls_key, &args.tls_self_signed) {
        (Some(cert), Some(key), _) => (cert.clone(), key.clone()),
        (_, _, Some(dir)) => {
            self_signed(dir).with_context(|| format!("--tls-self-signed {}", dir.display()))?
        }
        _ if args.tls_client_ca.is_some() => bail!("--tls-client-ca: without --tls-cert no TLS is spoken"),
        _ => return Ok(None),
    };
    let read =
        |flag: &str, path: &Path| std::fs::read(path).with_context(|| format!("{flag} {}", path.display()));
    let client_ca = args.tls_client_ca.as_deref().map(|path| read("--tls-client-ca", path)).transpose()?;
    let (chain, secret) = (read("--tls-cert", &cert)?, read("--tls-key", &key)?);
    let tls = ServerTls::of_pem(&chain, &secret, client_ca.as_deref());
    Ok(Some(tls.context("--tls-cert, --tls-key, --tls-client-ca")?))
}

/// A certificate for this machine's own names, for tests: where it was written, and its key, which only we may read.
fn self_signed(dir: &Path) -> anyhow::Result<(PathBuf, PathBuf)> {
    let names = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
    let made = rcgen::generate_simple_self_signed(names)?;
    std::fs::create_dir_all(dir)?;
    let (cert, key) = (dir.join("cert.pem"), dir.join("key.pem"));
    std::fs::write(&cert, made.cert.pem())?;
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(&key)?.write_all(made.signing_key.serialize_pem().as_bytes())?;
    Ok((cert, key))
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
