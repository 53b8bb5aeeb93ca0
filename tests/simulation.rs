//! The client, its retries and its ledger in a simulated world: the load runs whole, from the schedule to the report, over
//! a network and beside a server that a seed lets fail in all the ways that they can. Each seed is one world, and is the
//! same world each time.
//!
//! `FLOODLINE_SIM_SEED=17 cargo test --test simulation -- --nocapture every_world` replays one seed and tells its story.
//! `FLOODLINE_SIM_SEEDS=100000` tries more of them than CI does.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(clippy::print_stdout, reason = "a replayed seed tells its story")]

#[path = "simulation/bugs.rs"]
mod bugs;
#[path = "simulation/judge.rs"]
mod judge;
#[path = "simulation/network.rs"]
mod network;
#[path = "simulation/scenario.rs"]
mod scenario;
#[path = "simulation/server.rs"]
mod server;
#[path = "client/support.rs"]
#[allow(dead_code, reason = "the tests of the client use the rest")]
mod support;
#[path = "simulation/tally.rs"]
mod tally;
#[path = "simulation/witness.rs"]
mod witness;
#[path = "simulation/world.rs"]
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use floodline::schedule::Arrival;
use tally::Tally;

/// How many worlds are tried.
const SEEDS: u64 = 2_000;

fn setting(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{name}={value} is no number")))
}

/// Runs one world; what is wrong with it, in words.
fn explore(seed: u64, trace: bool, tally: &mut Tally) -> Vec<String> {
    let explored = catch_unwind(AssertUnwindSafe(|| {
        let outcome = world::run(scenario::of(seed), trace)?;
        Ok::<_, String>((judge::violations(&outcome), Tally::of(&outcome)))
    }));
    match explored {
        Ok(Ok((violations, seen))) => {
            tally.add(&seen);
            violations
        }
        Ok(Err(error)) => vec![error],
        Err(_) => vec!["it panicked, as printed above".to_owned()],
    }
}

#[test]
fn every_world_adds_up() {
    if let Some(seed) = setting("FLOODLINE_SIM_SEED") {
        println!("{:#?}", scenario::of(seed));
        let mut tally = Tally::default();
        let wrong = explore(seed, true, &mut tally);
        println!("{tally}");
        assert!(wrong.is_empty(), "seed {seed}:\n{}", wrong.join("\n"));
        return;
    }
    let seeds = setting("FLOODLINE_SIM_SEEDS").unwrap_or(SEEDS);
    let (next, begun) = (AtomicU64::new(0), Instant::now());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let worker = || {
        let (mut tally, mut failures) = (Tally::default(), Vec::new());
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds {
                return (tally, failures);
            }
            let wrong = explore(seed, false, &mut tally);
            if !wrong.is_empty() {
                println!("seed {seed} fails: {}", wrong.join("; "));
                failures.push((seed, wrong));
            }
        }
    };
    let (mut tally, mut failures) = (Tally::default(), Vec::new());
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(worker)).collect();
        for worker in workers {
            let (seen, failed) = worker.join().unwrap();
            tally.add(&seen);
            failures.extend(failed);
        }
    });
    let rate = seeds as f64 / begun.elapsed().as_secs_f64();
    println!("{seeds} worlds, {rate:.0} a second on {threads} threads\n{tally}");
    failures.sort();
    if let Some((seed, wrong)) = failures.first() {
        panic!(
            "{} of {seeds} seeds fail, the first is {seed}:\n{}\nreplay it with\n  FLOODLINE_SIM_SEED={seed} cargo test --test simulation -- --nocapture every_world",
            failures.len(),
            wrong.join("\n")
        );
    }
    if seeds >= SEEDS {
        tally.assert_everything_happened();
    }
}

/// In virtual time nothing but the client itself can make a message leave at another instant than its own. Its timer there
/// goes by whole milliseconds, which is what the uniform ones are due at.
#[test]
fn each_message_leaves_when_the_schedule_says() {
    for arrival in [Arrival::Uniform, Arrival::Poisson] {
        let mut scenario = scenario::quiet(7);
        scenario.workload.duration = Duration::from_secs(20);
        scenario.workload.arrival = arrival;
        let schedule = scenario.workload.schedule().unwrap();
        let outcome = world::run(scenario, false).unwrap();
        let mut since_due_ns = Vec::new();
        for (&connection, transcript) in &outcome.transcripts {
            let due_ns: Vec<u64> = schedule.due_times(connection).collect();
            assert_eq!(transcript.encoded, (0..due_ns.len() as u64).collect::<Vec<_>>(), "{arrival:?}");
            let left_ns = transcript.encoded_at.iter().map(|at| at.as_unix_ns());
            since_due_ns.extend(left_ns.zip(due_ns).map(|(left_ns, due_ns)| left_ns - due_ns));
        }
        assert!(since_due_ns.len() > 1_800, "{arrival:?}: {}", since_due_ns.len());
        let started_ns = since_due_ns.iter().min().unwrap();
        let latest_ns = since_due_ns.iter().max().unwrap() - started_ns;
        let allowed_ns = if arrival == Arrival::Uniform { 0 } else { 1_999_999 };
        assert!(latest_ns <= allowed_ns, "{arrival:?}: one left {latest_ns} ns later than another");
    }
}

#[test]
fn a_seed_is_the_same_world_each_time() {
    for seed in 0..20 {
        let again: Vec<_> = (0..2)
            .map(|_| {
                let outcome = world::run(scenario::of(seed), false).unwrap();
                let measured = outcome.measured.as_ref().map_err(ToString::to_string);
                let measured = measured.map(|m| (m.messages.clone(), m.windows.clone(), m.outages.clone()));
                (outcome.truth.digest(), measured, outcome.transcripts.clone())
            })
            .collect();
        assert_eq!(again[0], again[1], "seed {seed}");
    }
    let digest = |seed| world::run(scenario::of(seed), false).unwrap().truth.digest();
    assert_ne!(digest(1), digest(2));
}
