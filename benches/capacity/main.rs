//! What both sides do together, line by line as in `docs/performance.md`, beside what the machine does without the checks.
//! In closed loops that are two floors of as many bytes, in batches of the same size, through tokio: a bare TCP echo
//! (`echo`), and frames that are built once and sent again and again (`frames`). Where a rate is offered it is only the
//! wakes by the pacer's timer (`wakes`).
//!
//! `cargo bench --bench capacity` takes each line once, for a second; `-- LINE…` only those. The figures of the page are the
//! medians of five times three seconds of the release build: `cargo build --release`, then
//! `CAPACITY_SIZE=full CAPACITY_EXECUTABLE=target/release/floodline cargo bench --bench capacity`.

use std::collections::BTreeMap;
use std::io::Write;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use floodline::pacer::Sleeper;
use serde_json::Value;

mod echo;
mod frames;
mod peer;

/// One line of the page.
struct Line {
    name: &'static str,
    /// What `floodline load` is asked for, beside the payload, the duration and the output.
    arguments: &'static str,
    floor: Floor,
    figures: &'static [Figure],
}

/// What a line is held against.
#[derive(Clone, Copy)]
enum Floor {
    None,
    /// A bare echo, and prebuilt frames, of so many connections and with this window.
    Closed {
        connections: usize,
        window: usize,
    },
    /// Nothing but waking so many times a second by the pacer's timer.
    Wakes {
        per_second: u64,
    },
}

/// A figure of a result: its name, how it is read, and what it should be.
struct Figure(&'static str, fn(&Value) -> Option<f64>, &'static str);

const RATE: fn(&Value) -> Option<f64> = |run| number(run, "/achieved_rate");
const P50: fn(&Value) -> Option<f64> = |run| number(run, "/service_latency_us/p50");
const CLIENT_CORES: fn(&Value) -> Option<f64> = |run| cores(run, "client");
const SERVER_CORES: fn(&Value) -> Option<f64> = |run| cores(run, "server");
const CLIENT_MB: fn(&Value) -> Option<f64> =
    |run| Some(number(run, "/resources/client/peak_rss_bytes")? / 1e6);
const LATE_P50: fn(&Value) -> Option<f64> = |run| number(run, "/send_lateness_us/p50");
const LATE_P99: fn(&Value) -> Option<f64> = |run| number(run, "/send_lateness_us/p99");
const LATE_MAX: fn(&Value) -> Option<f64> = |run| number(run, "/send_lateness_us/max");

const HANDSHAKES: fn(&Value) -> Option<f64> =
    |run| Some(number(run, "/connections/established")? / number(run, "/connections/opening_s")?);

const CLOSED: &[Figure] = &[
    Figure("round trips/s", RATE, "3000000 (500 connections: 2500000; window 1: 300000)"),
    Figure("p50 us", P50, "1.1 x floor at window 1"),
    Figure("client cores", CLIENT_CORES, ""),
    Figure("server cores", SERVER_CORES, ""),
];
const OPEN: &[Figure] = &[
    Figure("messages/s", RATE, "as offered"),
    Figure("client cores", CLIENT_CORES, "0.30 (timer), 0.12 (coalesce), 0.36 (200,000 msg/s)"),
    Figure("lateness p50 us", LATE_P50, "40 (timer), 1 (spin)"),
    Figure("lateness p99 us", LATE_P99, "100 (timer), 20 (spin)"),
    Figure("lateness max us", LATE_MAX, "1100 (coalesce), p99.9 aside"),
    Figure("client MB", CLIENT_MB, "8"),
];
const MANY: &[Figure] = &[
    Figure("established", |run| number(run, "/connections/established"), "10000"),
    Figure("dropped", |run| number(run, "/connections/dropped"), "0"),
    Figure("handshakes/s", HANDSHAKES, "15000"),
    Figure("client bytes/connection", |run| number(run, "/cost/client_bytes_per_connection"), "4096"),
    Figure("server bytes/connection", |run| number(run, "/cost/server_bytes_per_connection"), "4096"),
    Figure("messages/s", RATE, "10000"),
];

const LINES: &[Line] = &[
    closed("50x32", "--rate max --connections 50 --window 32", 50, 32),
    closed("1x256", "--rate max --connections 1 --window 256", 1, 256),
    closed("500x32", "--rate max --connections 500 --window 32", 500, 32),
    closed("50x1", "--rate max --connections 50 --window 1", 50, 1),
    closed("1x1", "--rate max --connections 1 --window 1", 1, 1),
    closed("1x1_spin", "--rate max --connections 1 --window 1 --pacer spin", 1, 1),
    open("10k_timer", "--rate 10000 --connections 100", Floor::Wakes { per_second: 10_000 }),
    open("10k_spin", "--rate 10000 --connections 100 --pacer spin", Floor::None),
    open(
        "10k_coalesce",
        "--rate 10000 --connections 100 --pacer coalesce=1ms",
        Floor::Wakes { per_second: 1_000 },
    ),
    open(
        "200k_coalesce",
        "--rate 200000 --connections 50 --pacer coalesce=1ms",
        Floor::Wakes { per_second: 1_000 },
    ),
    Line {
        name: "10k_connections",
        arguments: "--rate 10000 --connections 10000",
        floor: Floor::None,
        figures: MANY,
    },
];

const fn closed(name: &'static str, arguments: &'static str, connections: usize, window: usize) -> Line {
    Line { name, arguments, floor: Floor::Closed { connections, window }, figures: CLOSED }
}

const fn open(name: &'static str, arguments: &'static str, floor: Floor) -> Line {
    Line { name, arguments, floor, figures: OPEN }
}

/// How long and how often each line is measured.
struct Size {
    repeats: usize,
    duration: Duration,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let done = match arguments.first().map(String::as_str) {
        Some(echo::SERVER) => echo::serve(),
        Some(frames::SERVER) => frames::serve(),
        _ => measure(&arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "capacity: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn measure(arguments: &[String]) -> anyhow::Result<()> {
    let full = std::env::var("CAPACITY_SIZE").is_ok_and(|size| size == "full");
    let size = match (arguments.iter().any(|argument| argument == "--test"), full) {
        (true, _) => Size { repeats: 1, duration: Duration::from_millis(100) },
        (false, false) => Size { repeats: 1, duration: Duration::from_secs(1) },
        (false, true) => Size { repeats: 5, duration: Duration::from_secs(3) },
    };
    let wanted = wanted(arguments);
    let mut out = std::io::stdout();
    for line in LINES {
        if wanted.is_empty() || wanted.contains(&line.name) {
            let text = measure_line(line, &size).with_context(|| line.name)?;
            out.write_all(text.as_bytes())?;
        }
    }
    Ok(())
}

/// The lines named by the arguments. Whatever else Criterion's benches take is no line.
fn wanted(arguments: &[String]) -> Vec<&str> {
    let is_line = |name: &&str| LINES.iter().any(|line| line.name == *name);
    arguments.iter().map(String::as_str).filter(is_line).collect()
}

fn measure_line(line: &Line, size: &Size) -> anyhow::Result<String> {
    let mut values: BTreeMap<usize, Vec<f64>> = BTreeMap::new();
    let mut floors: BTreeMap<(&str, &str), Vec<f64>> = BTreeMap::new();
    for _ in 0..size.repeats {
        let run = load(line, size.duration)?;
        for (place, Figure(_, read, _)) in line.figures.iter().enumerate() {
            values.entry(place).or_default().extend(read(&run));
        }
        match line.floor {
            Floor::None => {}
            Floor::Closed { connections, window } => {
                let (rate, p50_us) = echo::measure(connections, window, size.duration)?;
                floors.entry(("round trips/s", "echo")).or_default().push(rate);
                floors.entry(("p50 us", "echo")).or_default().push(p50_us);
                let rate = frames::measure(connections, window, size.duration)?;
                floors.entry(("round trips/s", "frames")).or_default().push(rate);
            }
            Floor::Wakes { per_second } => {
                let cores = wake(per_second, size.duration)?;
                floors.entry(("client cores", "wakes")).or_default().extend(cores);
            }
        }
    }
    let mut text = format!("{}  (floodline {})\n", line.name, command(line, size.duration).join(" "));
    for (place, Figure(name, _, target)) in line.figures.iter().enumerate() {
        let Some((low, median, high)) = values.get_mut(&place).and_then(|values| spread(values)) else {
            text += &format!("  {name:<26} no data\n");
            continue;
        };
        text += &format!("  {name:<26} {:>12}  [{} to {}]", shown(median), shown(low), shown(high));
        for ((_, floor), values) in floors.iter_mut().filter(|((figure, _), _)| figure == name) {
            if let Some((_, value, _)) = spread(values) {
                text += &format!("  floor {floor} {}, ratio {:.2}", shown(value), median / value);
            }
        }
        if !target.is_empty() {
            text += &format!("  target {target}");
        }
        text.push('\n');
    }
    Ok(text)
}

fn shown(value: f64) -> String {
    if value.abs() >= 1_000.0 { format!("{value:.0}") } else { format!("{value:.3}") }
}

/// The lowest, the median and the highest.
fn spread(values: &mut [f64]) -> Option<(f64, f64, f64)> {
    values.sort_by(f64::total_cmp);
    let median = values.get(values.len() / 2)?;
    Some((*values.first()?, *median, *values.last()?))
}

fn command(line: &Line, duration: Duration) -> Vec<String> {
    let duration = format!("{}ms", duration.as_millis());
    ["load", "--payload-bytes", "64", "--duration", &duration, "--json", "-"]
        .into_iter()
        .chain(line.arguments.split(' '))
        .map(str::to_owned)
        .collect()
}

/// One load of the command, whose messages must all be accounted for.
fn load(line: &Line, duration: Duration) -> anyhow::Result<Value> {
    let given = std::env::var("CAPACITY_EXECUTABLE");
    let executable = given.as_deref().unwrap_or(env!("CARGO_BIN_EXE_floodline"));
    let output = Command::new(executable)
        .args(command(line, duration))
        .output()
        .with_context(|| format!("CAPACITY_EXECUTABLE={executable}"))?;
    let run: Value = serde_json::from_slice(&output.stdout)
        .with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
    for class in ["lost", "duplicates", "reordered", "foreign", "corrupted", "unattributed"] {
        let count = number(&run, &format!("/messages/{class}"));
        if count != Some(0.0) {
            bail!("{class}: {count:?}");
        }
    }
    Ok(run)
}

fn number(run: &Value, place: &str) -> Option<f64> {
    run.pointer(place)?.as_f64()
}

fn cores(run: &Value, side: &str) -> Option<f64> {
    Some(number(run, &format!("/resources/{side}/cpu_s"))? / number(run, "/offered_for_s")?)
}

/// What share of a core it takes to wake so often, and do nothing else; `None` where the system cannot tell.
fn wake(per_second: u64, duration: Duration) -> anyhow::Result<Option<f64>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (begun, before) = (Instant::now(), thread_cpu());
    runtime.block_on(async {
        let mut sleeper = Sleeper::precise()?;
        let period = Duration::from_nanos(1_000_000_000 / per_second.max(1));
        let mut due = begun;
        while due < begun + duration {
            due += period;
            let span = due.saturating_duration_since(Instant::now());
            sleeper.sleep(span.as_nanos() as u64).await?;
        }
        anyhow::Ok(())
    })?;
    let cpu = thread_cpu().zip(before).map(|(after, before)| after - before);
    Ok(cpu.map(|cpu| cpu.as_secs_f64() / begun.elapsed().as_secs_f64()))
}

#[cfg(target_os = "linux")]
fn thread_cpu() -> Option<Duration> {
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID).ok().map(Duration::from)
}

#[cfg(not(target_os = "linux"))]
fn thread_cpu() -> Option<Duration> {
    None
}
