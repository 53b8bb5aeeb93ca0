//! Sections 5 to 8 against the client: a server that shakes hands well and then sends what it should not. The rows stand
//! beside this, by section.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread::JoinHandle;
use std::time::Duration;

use floodline::client::LoadMeasurement;
use floodline::ledger::Counts;
use floodline::workload::Workload;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::raw::{CLOSE, PONG, Seen, TEXT, plain, read_frame, read_head, send};
use crate::support::{Asked, offer, open_loop, target, within_patience};
use crate::{client_control, client_framing, client_messages};

/// The message at which the server misbehaves.
const HIT: u64 = 7;

/// How many rows run side by side, and how many connections: each row has a client of its own, which a machine of two
/// cores should not be late with.
const ROWS_SIDE_BY_SIDE: usize = 16;
const CONNECTIONS_SIDE_BY_SIDE: usize = 48;

/// How much of a message that matches none a report shows.
const SHOWN_BYTES: usize = 200;

/// What the client makes of it.
#[derive(Debug, PartialEq, Clone)]
pub enum Outcome {
    /// All twenty messages are answered.
    GoesOn,
    /// All twenty messages are answered; besides, one came that answers none, which is counted as corrupted. The report
    /// shows it like this.
    Stray(String),
    /// The connection is dropped for a reason with these words, the frame is counted as corrupted, and the server is
    /// told this code.
    Fails(&'static str, u16),
    /// The connection is dropped or refused, in order, for this reason; the server is told this code.
    Closes(String, Option<u16>),
}
use Outcome::{Closes, Fails, GoesOn, Stray};

/// Makes what the server sends of the right answer.
pub type Misbehave = Box<dyn Fn(&[u8]) -> Vec<u8> + Send + Sync>;

pub struct Row {
    section: &'static str,
    name: String,
    /// What is sent on each connection: one for each of a row that differs from its neighbours in a place only.
    sent: Vec<Misbehave>,
    /// The same on all of them, as is what follows.
    expected: Outcome,
    /// How many answers count, where the connection ends.
    answered: u64,
    /// What the client's last pong says: only the latest of several pings need be answered (section 5.5.3).
    pong: Option<Vec<u8>>,
}

/// With bytes made of the right answer.
pub fn with_answer(
    section: &'static str,
    name: impl Into<String>,
    sent: impl Fn(&[u8]) -> Vec<u8> + Send + Sync + 'static,
    expected: Outcome,
) -> Row {
    each(section, name, vec![Box::new(sent)], expected)
}

/// With a connection for each way to misbehave.
pub fn each(section: &'static str, name: impl Into<String>, sent: Vec<Misbehave>, expected: Outcome) -> Row {
    Row { section, name: name.into(), sent, expected, answered: HIT, pong: None }
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

/// A text of so many bytes before the answer, in frames that `sent` makes of it.
pub fn stray(
    section: &'static str,
    name: impl Into<String>,
    bytes: usize,
    sent: impl Fn(&[u8]) -> Vec<u8>,
) -> Row {
    let text = "x".repeat(bytes);
    let shown = match text.get(..SHOWN_BYTES) {
        Some(shown) if bytes > SHOWN_BYTES => format!("{shown}… ({bytes} bytes)"),
        _ => text.clone(),
    };
    before(section, name, sent(text.as_bytes()), Stray(shown))
}

pub fn protocol(section: &'static str, name: impl Into<String>, sent: Vec<u8>) -> Row {
    instead(section, name, sent, Fails("the server broke the protocol", 1002))
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
    assert!(rows.len() > 500, "{} rows", rows.len());
    while !rows.is_empty() {
        let mut connections = 0;
        let fit = rows.iter().take(ROWS_SIDE_BY_SIDE).take_while(|row| {
            connections += row.sent.len();
            connections <= CONNECTIONS_SIDE_BY_SIDE
        });
        let fit = fit.count().max(1);
        let tests: Vec<_> = rows
            .drain(..fit)
            .map(|row| std::thread::spawn(move || within_patience(move || check(row))))
            .collect();
        tests.into_iter().for_each(|test| test.join().unwrap());
    }
}

fn check(row: Row) {
    let Row { section, name, sent, expected, answered, pong: row_pong } = row;
    let name = format!("{section} {name}");
    let connections = sent.len() as u32;
    let (address, peer) = serve(sent);
    let measured = offer(twenty_on(connections), &target(address));
    for (place, said) in peer.join().unwrap().iter().enumerate() {
        let name = format!("{name}, connection {place}");
        assert!(said.iter().all(|frame| frame.mask.is_some()), "{name}: an unmasked frame from the client");
        let pong = said.iter().rev().find(|frame| frame.first == PONG).map(|frame| frame.payload.clone());
        assert_eq!(pong, row_pong, "{name}");
        let goodbye: Vec<_> =
            said.iter().filter(|frame| frame.first == CLOSE).map(Seen::close_code).collect();
        let code = match &expected {
            GoesOn | Stray(_) => None,
            Fails(_, code) => Some(*code),
            Closes(_, code) => *code,
        };
        assert_eq!(goodbye, [code], "{name}");
    }
    match &expected {
        GoesOn => assert_all_answered(&name, &measured, &[]),
        Stray(text) => assert_all_answered(&name, &measured, &[text]),
        Fails(reason, _) => assert_dropped(&name, &measured, (answered, 1), |given| given.contains(reason)),
        Closes(reason, _) => assert_dropped(&name, &measured, (answered, 0), |given| given == reason),
    }
}

/// Twenty messages in a tenth of a second on each connection.
fn twenty_on(connections: u32) -> Workload {
    Workload { payload_bytes: 64, ..open_loop(200.0 * f64::from(connections), connections, 0.1) }
}

fn assert_all_answered(name: &str, measured: &LoadMeasurement, strays: &[&str]) {
    let all = Counts { sent: 20, answered: 20, corrupted: strays.len() as u64, ..Counts::default() };
    for connection in &measured.per_connection {
        let place = connection.connection;
        assert_eq!(connection.counts, all, "{name}, connection {place}: {:?}", measured.connections);
    }
    assert_eq!(measured.connections.dropped, 0, "{name}");
    let unmatched: Vec<_> = measured.unmatched.iter().map(|unmatched| &*unmatched.text).collect();
    assert_eq!(unmatched, strays, "{name}");
}

fn assert_dropped(
    name: &str,
    measured: &LoadMeasurement,
    answered_and_corrupted: (u64, u64),
    is_reason: impl Fn(&str) -> bool,
) {
    let connections = &measured.connections;
    for connection in &measured.per_connection {
        let (place, counts) = (connection.connection, &connection.counts);
        let given = (counts.answered, counts.corrupted);
        assert_eq!(given, answered_and_corrupted, "{name}, connection {place}: {connections:?}");
        assert!(counts.sent > HIT, "{name}, connection {place}: {counts:?}");
    }
    let all = connections.requested;
    assert_eq!(connections.dropped + connections.refused, all, "{name}: {connections:?}");
    let reasons: Vec<_> = connections.reasons.iter().collect();
    assert!(
        matches!(&*reasons, [(reason, count)] if **count == all && is_reason(reason)),
        "{name}: {reasons:?}"
    );
}

/// A server that answers well but for one message on each connection, and hands back what else the client said there.
fn serve(misbehave: Vec<Misbehave>) -> (SocketAddr, JoinHandle<Vec<Vec<Seen>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let thread = std::thread::spawn(move || {
        let misbehave = &misbehave;
        std::thread::scope(|scope| {
            let accept = |_| {
                let (stream, _) = listener.accept().unwrap();
                scope.spawn(move || converse(stream, misbehave))
            };
            let talks: Vec<_> = misbehave.iter().map(accept).collect();
            let mut said: Vec<_> = talks.into_iter().map(|talk| talk.join().unwrap()).collect();
            said.sort_by_key(|(place, _)| *place);
            assert!(said.iter().map(|(place, _)| *place).eq(0..misbehave.len()));
            said.into_iter().map(|(_, said)| said).collect()
        })
    });
    (address, thread)
}

/// Serves one connection; says which the client's it is, and what it said besides its messages.
fn converse(mut stream: TcpStream, misbehave: &[Misbehave]) -> (usize, Vec<Seen>) {
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let request = read_head(&mut stream);
    send(&mut stream, crate::client_handshake::accepting(&request).as_bytes());
    let mut place = usize::MAX;
    let mut said = Vec::new();
    while let Some(frame) = read_frame(&mut stream) {
        if frame.first != TEXT {
            said.push(frame);
            continue;
        }
        let text = String::from_utf8(frame.payload).unwrap();
        let answer = Asked::read_answer(&text);
        let request: Value = serde_json::from_str(&text).unwrap();
        // A client's id ends with the number of its connection.
        place = request["client_id"].as_str().unwrap().rsplit('-').next().unwrap().parse().unwrap();
        let is_hit = request["sequence_id"] == json!(HIT);
        let answer = answer.as_bytes();
        let bytes = if is_hit { misbehave[place](answer) } else { plain(TEXT, answer) };
        send(&mut stream, &bytes);
    }
    (place, said)
}

/// What makes a client's key right (section 1.3).
pub fn accept_of(request: &str) -> String {
    let key = crate::client_handshake::header(request, "Sec-WebSocket-Key").unwrap();
    derive_accept_key(key.as_bytes())
}
