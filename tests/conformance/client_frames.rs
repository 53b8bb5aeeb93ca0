//! Sections 5 to 8 against the client: a server that shakes hands well and then sends what it should not. The rows stand
//! beside this, by section.

use std::net::{SocketAddr, TcpListener};
use std::thread::JoinHandle;
use std::time::Duration;

use floodline::client::LoadMeasurement;
use floodline::ledger::Counts;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::raw::{CLOSE, PONG, Seen, TEXT, plain, read_frame, read_head, send};
use crate::support::{Asked, offer, target, twenty, within_patience};
use crate::{client_control, client_framing, client_messages};

/// The message at which the server misbehaves.
const HIT: u64 = 7;

/// How many rows run side by side: each has a client of its own, which a machine of two cores should not be late with.
const SIDE_BY_SIDE: usize = 16;

/// What the client makes of it.
#[derive(Debug, PartialEq, Clone)]
pub enum Outcome {
    /// All twenty messages are answered.
    GoesOn,
    /// The connection is dropped for a reason with these words, the frame is counted as corrupted, and the server is
    /// told this code.
    Fails(&'static str, u16),
    /// The connection is dropped or refused, in order, for this reason; the server is told this code.
    Closes(String, Option<u16>),
}
use Outcome::{Closes, Fails, GoesOn};

/// Makes what the server sends of the right answer.
pub type Misbehave = Box<dyn Fn(&[u8]) -> Vec<u8> + Send>;

pub struct Row {
    section: &'static str,
    name: String,
    sent: Misbehave,
    expected: Outcome,
    /// How many answers count.
    answered: u64,
    /// What the client's last pong says: only the latest of several pings need be answered (section 5.5.3).
    pong: Option<Vec<u8>>,
}

/// With bytes made of the right answer.
pub fn with_answer(
    section: &'static str,
    name: impl Into<String>,
    sent: impl Fn(&[u8]) -> Vec<u8> + Send + 'static,
    expected: Outcome,
) -> Row {
    Row { section, name: name.into(), sent: Box::new(sent), expected, answered: HIT, pong: None }
}

/// The same, with a ping in it that is answered.
pub fn pongs(payload: &[u8], row: Row) -> Row {
    Row { pong: Some(payload.to_vec()), ..row }
}

/// The same, with the answer in it, which counts.
pub fn counted(row: Row) -> Row {
    Row { answered: HIT + 1, ..row }
}

/// With bytes in the answer's place.
pub fn instead(section: &'static str, name: impl Into<String>, sent: Vec<u8>, expected: Outcome) -> Row {
    with_answer(section, name, move |_| sent.clone(), expected)
}

/// With bytes before the answer.
pub fn before(section: &'static str, name: impl Into<String>, sent: Vec<u8>, expected: Outcome) -> Row {
    with_answer(section, name, move |answer| [sent.clone(), plain(TEXT, answer)].concat(), expected)
}

pub fn protocol(section: &'static str, name: impl Into<String>, sent: Vec<u8>) -> Row {
    instead(section, name, sent, Fails("the server broke the protocol", 1002))
}

pub fn too_much(name: &'static str, sent: Vec<u8>) -> Row {
    instead("10.4", name, sent, Fails("the server sent too much", 1009))
}

pub fn not_utf8(section: &'static str, name: impl Into<String>, sent: Vec<u8>) -> Row {
    instead(section, name, sent, Fails("not UTF-8", 1007))
}

fn rows() -> Vec<Row> {
    [client_framing::rows(), client_messages::rows(), client_control::rows()].into_iter().flatten().collect()
}

#[test]
fn the_client_reacts_to_every_frame_as_the_rfc_says() {
    let mut rows = rows();
    assert!(rows.len() > 220, "{} rows", rows.len());
    while !rows.is_empty() {
        let tests: Vec<_> = rows
            .drain(..rows.len().min(SIDE_BY_SIDE))
            .map(|row| std::thread::spawn(move || within_patience(move || check(row))))
            .collect();
        tests.into_iter().for_each(|test| test.join().unwrap());
    }
}

fn check(row: Row) {
    let Row { section, name, sent, expected, answered, pong: row_pong, .. } = row;
    let name = format!("{section} {name}");
    let (address, peer) = serve(sent);
    let measured = offer(twenty(), &target(address));
    let said = peer.join().unwrap();
    assert!(said.iter().all(|frame| frame.mask.is_some()), "{name}: an unmasked frame from the client");
    let pong = said.iter().rev().find(|frame| frame.first == PONG).map(|frame| frame.payload.clone());
    let goodbye: Vec<_> = said.iter().filter(|frame| frame.first == CLOSE).map(Seen::close_code).collect();
    assert_eq!(pong, row_pong, "{name}");
    match expected {
        GoesOn => assert_all_answered(&name, &measured),
        Fails(reason, code) => {
            assert_dropped(&name, &measured, (answered, 1), |given| given.contains(reason));
            assert_eq!(goodbye, [Some(code)], "{name}");
        }
        Closes(reason, code) => {
            assert_dropped(&name, &measured, (answered, 0), |given| given == reason);
            assert_eq!(goodbye, [code], "{name}");
        }
    }
}

fn assert_all_answered(name: &str, measured: &LoadMeasurement) {
    let all = Counts { sent: 20, answered: 20, ..Counts::default() };
    assert_eq!(measured.messages.counts, all, "{name}: {:?}", measured.connections);
    assert_eq!(measured.connections.dropped, 0, "{name}");
}

fn assert_dropped(
    name: &str,
    measured: &LoadMeasurement,
    answered_and_corrupted: (u64, u64),
    is_reason: impl Fn(&str) -> bool,
) {
    let (counts, connections) = (&measured.messages.counts, &measured.connections);
    assert_eq!((counts.answered, counts.corrupted), answered_and_corrupted, "{name}: {connections:?}");
    assert!(counts.sent > HIT, "{name}: {counts:?}");
    assert_eq!(connections.dropped + connections.refused, 1, "{name}: {connections:?}");
    let reasons: Vec<_> = connections.reasons.iter().collect();
    assert!(matches!(&*reasons, [(reason, 1)] if is_reason(reason)), "{name}: {reasons:?}");
}

/// A server for one connection, which answers well but for one message, and hands back what else the client said.
fn serve(misbehave: Misbehave) -> (SocketAddr, JoinHandle<Vec<Seen>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let thread = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let request = read_head(&mut stream);
        send(&mut stream, crate::client_handshake::accepting(&request).as_bytes());
        let mut said = Vec::new();
        while let Some(frame) = read_frame(&mut stream) {
            if frame.first != TEXT {
                said.push(frame);
                continue;
            }
            let text = String::from_utf8(frame.payload).unwrap();
            let answer = Asked::read_answer(&text);
            let request: Value = serde_json::from_str(&text).unwrap();
            let is_hit = request["sequence_id"] == json!(HIT);
            let bytes = if is_hit { misbehave(answer.as_bytes()) } else { plain(TEXT, answer.as_bytes()) };
            send(&mut stream, &bytes);
        }
        said
    });
    (address, thread)
}

/// What makes a client's key right (section 1.3).
pub fn accept_of(request: &str) -> String {
    let key = crate::client_handshake::header(request, "Sec-WebSocket-Key").unwrap();
    derive_accept_key(key.as_bytes())
}
