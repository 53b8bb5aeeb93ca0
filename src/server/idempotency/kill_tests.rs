//! The durable store under SIGKILL: a child process records ids and tells what was acknowledged, the test kills it at
//! seeded points and compares what it was told with what is on the disk.

use std::collections::HashSet;
use std::env;
use std::io::{BufRead, BufReader, Write};
use std::num::NonZeroUsize;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use rand::{RngExt, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;
use rusqlite::{Connection, OpenFlags};

use super::database::DATABASE_FILE;
use super::{DurableConfig, DurableStore, Recorded, Retention, read_journal};

const KILLS: usize = 25;
const DIR: &str = "FLOODLINE_KILL_TEST_DIR";
const FIRST: &str = "FLOODLINE_KILL_TEST_FIRST";
const MAX_IDS: &str = "FLOODLINE_KILL_TEST_MAX_IDS";
const CHILD: &str = "server::idempotency::kill_tests::child_that_records_until_it_is_killed";

/// Writes under way at a time in the child, so that a kill finds commits of several.
const IN_FLIGHT: usize = 32;

#[test]
fn nothing_acknowledged_is_lost_or_doubled_by_a_kill() {
    kill_again_and_again(0x0005_EED1, usize::MAX);
}

#[test]
fn a_kill_leaves_the_bounds_intact() {
    // Fewer than most runs record, but enough for all that can be unknown to the sender at a kill.
    kill_again_and_again(0x0005_EED2, 4 * IN_FLIGHT);
}

/// The child's entry. It sends each id once, like a client that resends after a cut what was not acknowledged: what the
/// store knows, it does not process again.
#[test]
#[ignore = "the entry of a child process, which ends by being killed"]
fn child_that_records_until_it_is_killed() {
    let setting = |name| env::var(name).unwrap();
    let max_ids = NonZeroUsize::new(setting(MAX_IDS).parse().unwrap()).unwrap();
    let retention = Retention { max_ids, max_age: Duration::MAX };
    let config = DurableConfig { retention, ..DurableConfig::default() };
    let store = DurableStore::open(Path::new(&setting(DIR)), &config).unwrap();
    let mut ids = setting(FIRST).parse::<u64>().unwrap()..;
    let mut told = std::io::stdout().lock();
    writeln!(told, "\nopen").unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let mut under_way = FuturesUnordered::new();
        loop {
            while under_way.len() < IN_FLIGHT {
                let n = ids.next().unwrap();
                if store.lookup(&id(n)).is_some() {
                    writeln!(told, "known {n}").unwrap();
                    continue;
                }
                let write = store.record(&id(n), n);
                under_way.push(async move { (n, write.await) });
            }
            let (n, recorded) = under_way.next().await.unwrap();
            assert_eq!(recorded.unwrap(), Recorded::First);
            writeln!(told, "done {n}").unwrap();
        }
    });
}

fn id(n: u64) -> String {
    format!("run-0-0-{n}")
}

fn kill_again_and_again(seed: u64, max_ids: usize) {
    println!("seed {seed:#x}");
    let mut random = Xoshiro256PlusPlus::seed_from_u64(seed);
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged = HashSet::new();
    let mut first_open = 0;
    for _ in 0..KILLS {
        // One in eight is killed while it opens.
        let lines = if random.random_ratio(1, 8) { 0 } else { random.random_range(1..400) };
        let spins = random.random_range(0..200_000);
        let told = record_and_kill(dir.path(), first_open, max_ids, lines, spins);
        for n in told.done {
            assert!(acknowledged.insert(n), "{n} was processed again after it was acknowledged");
        }
        acknowledged.extend(told.known);
        while acknowledged.contains(&first_open) {
            first_open += 1;
        }
        check_disk(dir.path(), &acknowledged, max_ids);
    }
    assert!(acknowledged.len() > KILLS, "the children must get to work: {}", acknowledged.len());
}

/// What a child told before it was killed.
struct Told {
    /// Ids that it recorded.
    done: Vec<u64>,
    /// Ids that it found recorded: where an earlier child was killed between the commit and the answer, too.
    known: Vec<u64>,
}

/// Runs the child until it has told `lines` lines and the caller has spun `spins` times, kills it, and returns what
/// was acknowledged: also what it had told by then, but had not been read.
fn record_and_kill(dir: &Path, first: u64, max_ids: usize, lines: usize, spins: u32) -> Told {
    let mut child = Command::new(env::current_exe().unwrap())
        .args(["--exact", CHILD, "--ignored", "--nocapture", "--test-threads=1"])
        .env(DIR, dir)
        .env(FIRST, first.to_string())
        .env(MAX_IDS, max_ids.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut told = BufReader::new(child.stdout.take().unwrap());
    let mut text = String::new();
    for _ in 0..lines {
        assert!(told.read_line(&mut text).unwrap() > 0, "the child ended by itself: {text}");
    }
    for _ in 0..spins {
        std::hint::spin_loop();
    }
    child.kill().unwrap();
    child.wait().unwrap();
    while told.read_line(&mut text).unwrap() > 0 {}
    // Only whole lines count: the last may have been cut.
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let after =
        |word| whole.lines().filter_map(|line| line.strip_prefix(word)).map(|n| n.parse().unwrap()).collect();
    Told { done: after("done "), known: after("known ") }
}

/// Every acknowledged id was executed once, and the records are exactly the last executions of the journal.
fn check_disk(dir: &Path, acknowledged: &HashSet<u64>, max_ids: usize) {
    if !dir.join(DATABASE_FILE).exists() {
        assert!(acknowledged.is_empty());
        return;
    }
    // The judge reads what the kill left, with no server to tidy up first. Before the first opening is done, nothing.
    let judged = read_journal(dir).unwrap_or_default();
    let retention = Retention { max_ids: NonZeroUsize::new(max_ids).unwrap(), max_age: Duration::MAX };
    let store = DurableStore::open(dir, &DurableConfig { retention, ..DurableConfig::default() }).unwrap();
    let journal = read_journal(dir).unwrap();
    assert_eq!(judged, journal);

    let mut executed = HashSet::new();
    for (place, entry) in (0..).zip(&journal) {
        assert_eq!(entry.position, place);
        assert_eq!(entry.id, id(entry.processed_unix_ns));
        assert!(executed.insert(entry.processed_unix_ns), "executed twice: {entry:?}");
        assert!(entry.incarnation < store.incarnation());
    }
    assert!(journal.is_sorted_by_key(|entry| entry.incarnation));
    assert!(acknowledged.is_subset(&executed));

    let remembered = &journal[journal.len().saturating_sub(max_ids)..];
    let expected: Vec<_> =
        remembered.iter().map(|entry| (entry.position, entry.id.clone(), entry.processed_unix_ns)).collect();
    assert_eq!(records(dir), expected);
    assert_eq!(store.len(), remembered.len());
    for entry in remembered {
        assert_eq!(store.lookup(&entry.id), Some(entry.processed_unix_ns));
    }
}

/// The idempotency records as they are on the disk, found sound by SQLite's own check.
fn records(dir: &Path) -> Vec<(u64, String, u64)> {
    let database =
        Connection::open_with_flags(dir.join(DATABASE_FILE), OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    let sound: String = database.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(sound, "ok");
    let mut records =
        database.prepare("SELECT position, id, processed_unix_ns FROM processed ORDER BY position").unwrap();
    let records = records
        .query_map([], |row| {
            Ok((row.get::<_, i64>(0)?.cast_unsigned(), row.get(1)?, row.get::<_, i64>(2)?.cast_unsigned()))
        })
        .unwrap();
    records.map(Result::unwrap).collect()
}
