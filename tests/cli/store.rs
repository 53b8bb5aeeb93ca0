//! `floodline serve --state`: what it has processed it knows again, however it ended.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use floodline::server::read_journal;
use nix::sys::signal::Signal;
use rand::{RngExt, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::{Error, Message, WebSocket, client};

use crate::process::{PATIENCE, Server, run};

const KILLS: usize = 12;
/// Messages under way at a time: enough that a kill finds some in each stage, and commits of several.
const WINDOW: usize = 32;

/// A client that keeps count of what was answered.
struct Client {
    socket: WebSocket<TcpStream>,
    under_way: BTreeSet<String>,
}

impl Client {
    fn connect(server: &Server) -> Self {
        let stream = TcpStream::connect(server.address()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { socket: client(&server.url, stream).unwrap().0, under_way: BTreeSet::new() }
    }

    fn send(&mut self, ids: impl IntoIterator<Item = String>) {
        for id in ids {
            let message = json!({"type": "user_message", "message_id": id, "content": "x"}).to_string();
            self.socket.send(Message::text(message)).unwrap();
            self.under_way.insert(id);
        }
    }

    /// The next answer; `None` where the server is gone.
    fn receive(&mut self) -> Option<Value> {
        let text = match self.socket.read() {
            Ok(Message::Text(text)) => text,
            Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => panic!("no answer"),
            Err(_) => return None,
            other => panic!("no answer but {other:?}"),
        };
        let answer: Value = serde_json::from_str(&text).unwrap();
        if let Some(id) = answer["message_id"].as_str() {
            assert!(self.under_way.remove(id), "not asked for, or twice: {answer}");
        }
        Some(answer)
    }
}

/// All that the test's client knows.
#[derive(Default)]
struct Known {
    /// How many ids were made up so far.
    made: usize,
    unanswered: BTreeSet<String>,
    /// What each id was answered.
    answered: BTreeMap<String, Value>,
}

impl Known {
    fn new_id(&mut self) -> String {
        let id = format!("run-0-0-{}", self.made);
        self.made += 1;
        self.unanswered.insert(id.clone());
        id
    }

    fn note(&mut self, answer: Value) {
        let kind = answer["type"].as_str().unwrap();
        assert!(["ai_response", "duplicate_rejected"].contains(&kind), "{answer}");
        let id = answer["message_id"].as_str().unwrap().to_owned();
        assert!(self.unanswered.remove(&id), "answered before: {answer}");
        self.answered.insert(id, answer);
    }
}

fn serve(dir: &Path) -> Server {
    Server::start(&["--state", dir.to_str().unwrap(), "--processing-delay", "5ms"])
}

/// Sends what is unanswered and then new ids, and kills the server once it has answered some.
fn flood_until_killed(dir: &Path, known: &mut Known, random: &mut Xoshiro256PlusPlus) {
    let answers_before_the_kill = random.random_range(0..200);
    let then_wait = Duration::from_micros(random.random_range(0..7_000));
    let server = serve(dir);
    let mut client = Client::connect(&server);
    client.send(known.unanswered.clone());
    for received in 0.. {
        while client.under_way.len() < WINDOW {
            client.send([known.new_id()]);
        }
        if received == answers_before_the_kill {
            break;
        }
        known.note(client.receive().unwrap());
    }
    // So that the kill falls into every stage of what is under way.
    std::thread::sleep(then_wait);
    server.running.signal(Signal::SIGKILL);
    while let Some(answer) = client.receive() {
        known.note(answer);
    }
    assert_eq!(server.running.wait().code, None);
}

/// The journal by id; fails the test where an id was executed twice.
fn executions(dir: &Path) -> BTreeMap<String, (u64, u64)> {
    let mut executions = BTreeMap::new();
    for entry in read_journal(dir).unwrap() {
        let again = executions.insert(entry.id.clone(), (entry.incarnation, entry.processed_unix_ns));
        assert_eq!(again, None, "executed again: {entry:?}");
    }
    executions
}

#[test]
fn every_message_is_processed_and_answered_once_however_often_the_server_is_killed() {
    const SEED: u64 = 0x5EED;
    println!("seed {SEED:#x}");
    let mut random = Xoshiro256PlusPlus::seed_from_u64(SEED);
    let dir = tempfile::tempdir().unwrap();
    let mut known = Known::default();
    for _ in 0..KILLS {
        flood_until_killed(dir.path(), &mut known, &mut random);
        let executed = executions(dir.path());
        for id in known.answered.keys() {
            assert!(executed.contains_key(id), "{id} was answered, but is not on the disk");
        }
    }

    let server = serve(dir.path());
    let mut client = Client::connect(&server);
    client.send(known.unanswered.clone());
    while !known.unanswered.is_empty() {
        known.note(client.receive().unwrap());
    }
    let executed = executions(dir.path());
    assert_eq!(executed.keys().collect::<Vec<_>>(), known.answered.keys().collect::<Vec<_>>());
    assert_eq!(executed.len(), known.made);
    let runs: BTreeSet<_> = executed.values().map(|&(incarnation, _)| incarnation).collect();
    assert!(runs.len() > KILLS / 2, "most runs were to process something: {runs:?}");

    // Nothing is forgotten, not even when.
    server.running.signal(Signal::SIGKILL);
    server.running.wait();
    let server = serve(dir.path());
    let mut client = Client::connect(&server);
    client.send(executed.keys().cloned());
    while !client.under_way.is_empty() {
        let answer = client.receive().unwrap();
        assert_eq!(answer["type"], "duplicate_rejected");
        let (_, processed_unix_ns) = executed[answer["message_id"].as_str().unwrap()];
        let original = answer["original_timestamp"].as_f64().unwrap();
        // The wire cuts off below the microsecond, and a double holds today's seconds to a quarter of one.
        assert!((original - processed_unix_ns as f64 / 1e9).abs() < 2e-6, "{answer}");
    }
    assert_eq!(executions(dir.path()), executed);
}

#[test]
fn a_directory_that_cannot_be_used_is_refused_by_its_flag() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_str().unwrap();
    let server = Server::start(&["--state", path]);
    run(["serve", "--state", path]).expect(2).says(&["--state", path, "in use by another server"]);
    server.running.signal(Signal::SIGTERM);
    server.running.wait().expect(0);

    let file = dir.path().join("idempotency.sqlite");
    let no_directory = file.to_str().unwrap();
    run(["serve", "--state", no_directory]).expect(2).says(&["--state", no_directory]);
    std::fs::write(&file, "no database at all").unwrap();
    run(["serve", "--state", path]).expect(2).says(&["--state", path, "not a database"]);
}

/// A server whose files cannot grow beyond 512 KiB (or 1 MiB, as the shell counts), as on a full disk.
fn serve_on_a_small_disk(dir: &Path) -> Server {
    // Ignored, the signal that comes with a write beyond the limit leaves the write's error to be seen.
    let script = "trap '' XFSZ && ulimit -f 1024 && exec \"$@\"";
    let mut command = Command::new("sh");
    command.args(["-c", script, "sh", env!("CARGO_BIN_EXE_floodline"), "serve", "--state"]).arg(dir);
    Server::of(command)
}

#[test]
fn a_disk_that_is_full_is_told_to_the_senders_and_once_on_standard_error() {
    let dir = tempfile::tempdir().unwrap();
    let server = serve_on_a_small_disk(dir.path());
    let mut client = Client::connect(&server);
    let mut failed = 0;
    let mut processed = BTreeSet::new();
    for n in 0..100_000 {
        let id = format!("{n:0>200}");
        client.send([id.clone()]);
        let answer = client.receive().unwrap();
        if answer["type"] == "error" {
            assert_eq!(answer["message"], "The message could not be recorded");
            failed += 1;
        } else {
            assert_eq!((&answer["type"], &answer["message_id"]), (&json!("ai_response"), &json!(id)));
            processed.insert(id);
        }
        if failed == 3 {
            break;
        }
    }
    assert!(failed == 3 && !processed.is_empty(), "{failed} failed, {} processed", processed.len());
    assert_eq!(executions(dir.path()).into_keys().collect::<BTreeSet<_>>(), processed);
    drop(client);
    server.running.signal(Signal::SIGTERM);
    let stderr = server.running.wait().expect(0).stderr;
    let told = format!("warning: --state {}: cannot record the execution on disk: ", dir.path().display());
    assert!(stderr.starts_with(&told) && stderr.lines().count() == 1, "{stderr}");
}
