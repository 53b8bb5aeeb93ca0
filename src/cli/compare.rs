//! `floodline compare`: two servers measured in turn, or two results: better, worse, or no change larger than so much.

use std::io::{Read, Write};
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use clap::Args;
use floodline::calibration::cache::{generator_of, user_directory};
use floodline::client::Stop;
use floodline::clock::unix_now_ns;
use floodline::compare::judge::judge;
use floodline::compare::measure::{ComparePlan, Contender, Origin, measure};
use floodline::compare::noise::{KnownNoise, NoiseCache, noise_of};
use floodline::compare::turn::{LEAST_PAIRS, LoadKind, Measured};
use floodline::compare::{CompareError, results};
use floodline::config::Limits;
use floodline::config::TargetConfig;
use floodline::dialect::DialectKind;
use floodline::report::compare as text;
use floodline::report::json::JsonOutput;
use floodline::result::calibration::Generator;
use floodline::result::compare::{CompareResults, Noise};
use floodline::run::access;
use floodline::units::{Rate, parse_bytes, parse_duration};

use super::exit::{Failure, code_of};
use super::progress::ProgressLine;
use super::report;
use super::suite::{outputs, say};

/// Flags of `floodline compare`.
#[derive(Debug, Args)]
pub struct CompareArgs {
    /// What to compare with: an executable of floodline (whose `serve` is measured), the URL of a server, or a JSON result
    #[arg(value_name = "A")]
    a: String,
    /// What is compared, of the same kind
    #[arg(value_name = "B")]
    b: String,
    /// How often each is measured, in turn; at least 10
    #[arg(long, default_value_t = 15, value_name = "N")]
    pairs: u32,
    /// Of executables and URLs, the load: paced or closed; of results, the case [default: all]; may be repeated
    #[arg(long, value_name = "CASE")]
    case: Vec<String>,
    /// Messages per second of the paced load
    #[arg(long, default_value = "10000", value_name = "RATE")]
    rate: Rate,
    /// How long the paced load takes; each closed one takes 0.2 of it
    #[arg(long, default_value = "400ms", value_parser = parse_duration, value_name = "DURATION")]
    duration: Duration,
    /// Connections of each load
    #[arg(long, default_value = "100", value_name = "N")]
    connections: NonZeroU32,
    /// Bytes of content a message
    #[arg(long, default_value = "1024", value_parser = parse_bytes, value_name = "SIZE")]
    payload_bytes: u64,
    /// What to send to a URL; see floodline list
    #[arg(long, default_value = "floodline")]
    dialect: DialectKind,
    /// Process ids of the servers behind two URLs, whose CPU and memory are then compared too
    #[arg(long, value_name = "A,B", value_delimiter = ',', num_args = 1)]
    pids: Vec<u32>,
    /// Host of a URL, where that is not this machine: load on a stranger's server is an attack; may be repeated
    #[arg(long, value_name = "HOST")]
    i_may_load: Vec<String>,
    /// Environment variable that holds the bearer token for the handshakes
    #[arg(long, value_name = "NAME")]
    token_env: Option<String>,
    /// Let each executable offer the load to itself, so that its client is compared too
    #[arg(long)]
    own_client: bool,
    /// Measure first what two of the same (A and A) differ by on this machine, also where that is known
    #[arg(long)]
    calibrate: bool,
    /// Of two results, the change that is no change yet: 0.1 is 10 % [default: 0.1]
    #[arg(long, allow_negative_numbers = true, value_name = "SHARE")]
    threshold: Option<f64>,
    /// Compare results of different loads or machines all the same
    #[arg(long)]
    force: bool,
    /// Write the comparison to this file, or to standard output for -
    #[arg(long, value_name = "FILE|-")]
    json: Option<PathBuf>,
    /// Write it in Markdown, for a comment at a pull request
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
}

/// Two single runs a while apart differ by so much on a shared machine with nothing changed (`baselines/README.md`: CPU
/// time a message by 11 % at 10,000 msg/s, latencies by more).
const RESULTS_THRESHOLD: f64 = 0.1;
/// Of the paced load's time, that of each closed one: at capacity there are ten times as many messages in less of it.
const CLOSED_SHARE: f64 = 0.2;

/// Compares, prints, and fails where B is worse.
pub fn run(args: &CompareArgs) -> Result<ExitCode, Failure> {
    let kinds = (kind(&args.a).map_err(Failure::Usage)?, kind(&args.b).map_err(Failure::Usage)?);
    let (json, stop) = outputs(args.json.as_deref())?;
    let to_stdout = json.as_ref().is_some_and(JsonOutput::is_stdout);
    let found = match kinds {
        (Kind::Result, Kind::Result) => of_results(args).map_err(Failure::Usage)?,
        (Kind::Executable | Kind::Url, Kind::Executable | Kind::Url) => in_turn(args, kinds, &stop)?,
        _ => {
            let why = "a result can be compared with a result only";
            return Err(Failure::Usage(anyhow!("{} and {}: {why}", args.a, args.b)));
        }
    };
    say(&text::summary(&found), to_stdout).map_err(Failure::usage)?;
    if let Some(json) = json {
        json.write(&found).context("--json").map_err(Failure::Usage)?;
    }
    if let Some(path) = &args.markdown {
        report::write(path, &text::markdown(&found)).map_err(Failure::Usage)?;
    }
    Ok(code_of(found.verdict))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Result,
    Executable,
    Url,
}

fn kind(what: &str) -> anyhow::Result<Kind> {
    if what.contains("://") {
        return Ok(Kind::Url);
    }
    let mut first = [0; 64];
    let read = std::fs::File::open(what).and_then(|mut file| file.read(&mut first));
    let read = read.with_context(|| format!("{what} is no URL and no file that can be read"))?;
    let begins_with = first[..read].iter().find(|byte| !byte.is_ascii_whitespace());
    Ok(if begins_with == Some(&b'{') { Kind::Result } else { Kind::Executable })
}

fn of_results(args: &CompareArgs) -> anyhow::Result<CompareResults> {
    let (a, b) = (report::read(Path::new(&args.a))?, report::read(Path::new(&args.b))?);
    let case = match &args.case[..] {
        [] => None,
        [case] => Some(&**case),
        _ => bail!("--case: of two results, all cases are compared, or one"),
    };
    let threshold = args.threshold.unwrap_or(RESULTS_THRESHOLD);
    if !(threshold >= 0.0 && threshold.is_finite()) {
        bail!("--threshold: {threshold} is not a share of 0 or more");
    }
    let settings = results::Settings { case, threshold, force: args.force };
    Ok(results::compare((&args.a, &a), (&args.b, &b), settings)?)
}

/// Measures both in turn, and before that two of the same where that is not known.
fn in_turn(args: &CompareArgs, kinds: (Kind, Kind), stop: &Stop) -> Result<CompareResults, Failure> {
    let plan = plan(args).map_err(Failure::Usage)?;
    let pid = |index: usize| args.pids.get(index).copied();
    let a = contender(&args.a, kinds.0, pid(0)).map_err(Failure::Usage)?;
    let b = contender(&args.b, kinds.1, pid(1)).map_err(Failure::Usage)?;
    let executable = std::env::current_exe().context("cannot find the floodline executable");
    let generator = executable.and_then(|path| generator_of(&path).context("cannot read the executable"));
    let generator = generator.map_err(Failure::Usage)?;
    let (noise, mut notes) = noise(args, &plan, &a, &generator, stop)?;
    let measured = together(&plan, &a, &b, stop)?;
    let found = judge(&plan, (&args.a, &args.b), &measured, Some(noise));
    let mut found = found.map_err(failure)?;
    let limit = Limits::default().foreign_cpu_cores;
    if let Some(foreign) = found.foreign_cpu_cores.filter(|&foreign| foreign > limit) {
        notes.push(format!(
            "other processes took {foreign:.2} cores: intervals are wider for it, on both sides alike"
        ));
    }
    found.notes.extend(notes);
    Ok(found)
}

/// The noise of this machine: as it is known, or measured now. What was disturbed is used once and not kept.
fn noise(
    args: &CompareArgs,
    plan: &ComparePlan,
    a: &Contender,
    generator: &Generator,
    stop: &Stop,
) -> Result<(Noise, Vec<String>), Failure> {
    let directory = user_directory(|name| std::env::var_os(name).map(PathBuf::from));
    let cache = directory.map(|directory| NoiseCache::at(&directory));
    let known = match &cache {
        Some(cache) if !args.calibrate => cache.look_up(generator, &plan.signature(a), unix_now_ns()),
        _ => KnownNoise::Nothing,
    };
    let why = match known {
        KnownNoise::Valid(noise) => return Ok((*noise, Vec::new())),
        KnownNoise::Nothing => String::new(),
        KnownNoise::Outdated(why) => format!(", because what is known is not used: {why}"),
    };
    let told = format!("measuring first what A and A differ by on this machine{why}\n");
    // Standard error may be closed; the comparison does without.
    let _ = std::io::stderr().write_all(told.as_bytes());
    let same = together(plan, a, a, stop)?;
    let noise = noise_of(&same, plan.signature(a), generator.clone(), unix_now_ns());
    let limit = Limits::default().foreign_cpu_cores;
    let disturbed = noise.foreign_cpu_cores.filter(|&foreign| foreign > limit);
    let slow = same.slow_pairs().iter().any(|pairs| pairs.left_out < pairs.slow);
    let note = match (disturbed, &cache) {
        (Some(foreign), _) => format!(
            "what A and A differ by was measured while other processes took {foreign:.2} cores, and is not kept"
        ),
        (None, _) if slow => {
            "what A and A differ by was measured while the machine was slow in many pairs, and is not kept"
                .to_owned()
        }
        (None, None) => "what A and A differ by is not kept: the environment names no directory".to_owned(),
        (None, Some(cache)) => {
            cache.keep(&noise).map_err(Failure::usage)?;
            return Ok((noise, Vec::new()));
        }
    };
    Ok((noise, vec![note]))
}

fn together(plan: &ComparePlan, a: &Contender, b: &Contender, stop: &Stop) -> Result<Measured, Failure> {
    let mut progress = ProgressLine::default();
    progress.case("compare");
    let measured = measure(plan, a, b, stop, &mut progress);
    progress.clear();
    measured.map_err(failure)
}

fn plan(args: &CompareArgs) -> anyhow::Result<ComparePlan> {
    if args.pairs < LEAST_PAIRS {
        bail!("--pairs: {} are too few to tell a change from noise, at least 10 are needed", args.pairs);
    }
    if args.threshold.is_some() {
        bail!("--threshold: what is measured in turn is held against the machine's own noise");
    }
    let known = |case: &String| {
        let load = LoadKind::ALL.into_iter().find(|load| load.name() == case);
        load.ok_or_else(|| anyhow!("--case: `{case}` is no load of a comparison; there are paced and closed"))
    };
    let asked = args.case.iter().map(known).collect::<anyhow::Result<Vec<_>>>()?;
    let loads = LoadKind::ALL.into_iter().filter(|load| asked.is_empty() || asked.contains(load));
    let target = TargetConfig {
        token_env: args.token_env.clone(),
        i_may_load: args.i_may_load.clone(),
        ..TargetConfig::default()
    };
    Ok(ComparePlan {
        loads: loads.collect(),
        rate: args.rate,
        connections: args.connections.get(),
        payload_bytes: usize::try_from(args.payload_bytes)?,
        window: 32,
        paced_for: args.duration,
        closed_for: args.duration.mul_f64(CLOSED_SHARE),
        pairs: args.pairs,
        dialect: args.dialect,
        access: access(&target)?,
        own_client: args.own_client,
    })
}

fn contender(name: &str, kind: Kind, pid: Option<u32>) -> anyhow::Result<Contender> {
    let (origin, identity) = match kind {
        Kind::Url => (Origin::At { target: name.parse().context("the URL")?, pid }, name.to_owned()),
        _ if pid.is_some() => bail!("--pids: {name} is an executable, whose process is known"),
        _ => {
            let path = std::path::absolute(name)?;
            let Generator { executable_bytes, executable_crc32, .. } = generator_of(&path)?;
            (Origin::Executable(path), format!("{executable_bytes} B, CRC-32 {executable_crc32:08x}"))
        }
    };
    Ok(Contender { name: name.to_owned(), identity, origin })
}

fn failure(error: CompareError) -> Failure {
    match error {
        CompareError::Stopped => Failure::Interrupted,
        CompareError::Run { name, source } => Failure::from(*source).context(name),
        error @ CompareError::Server { .. } => Failure::Unreachable(error.into()),
        error => Failure::usage(error),
    }
}
