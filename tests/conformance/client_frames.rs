//! Sections 5 to 8 against the client: a server that shakes hands well and then sends what it should not.

use std::net::{SocketAddr, TcpListener};
use std::thread::JoinHandle;
use std::time::Duration;

use floodline::client::LoadMeasurement;
use floodline::ledger::Counts;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::codes::{INVALID_CODES, INVALID_UTF8, RESERVED_OPCODES, VALID_CODES, VALID_UTF8};
use crate::raw::{
    BINARY, CLOSE, FIRST, LAST, Length, MIDDLE, PING, PONG, Seen, TEXT, close_payload, head, masked, plain,
    read_frame, read_head, send,
};
use crate::support::{Asked, offer, target, twenty, within_patience};

/// The message at which the server misbehaves.
const HIT: u64 = 7;

/// How many rows run side by side: each has a client of its own, which a machine of two cores should not be late with.
const SIDE_BY_SIDE: usize = 16;

/// What the client makes of it.
#[derive(Debug, PartialEq, Clone)]
enum Outcome {
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
type Misbehave = Box<dyn Fn(&[u8]) -> Vec<u8> + Send>;

struct Row {
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
fn with_answer(
    section: &'static str,
    name: impl Into<String>,
    sent: impl Fn(&[u8]) -> Vec<u8> + Send + 'static,
    expected: Outcome,
) -> Row {
    Row { section, name: name.into(), sent: Box::new(sent), expected, answered: HIT, pong: None }
}

/// The same, with a ping in it that is answered.
fn pongs(payload: &[u8], row: Row) -> Row {
    Row { pong: Some(payload.to_vec()), ..row }
}

/// With bytes in the answer's place.
fn instead(section: &'static str, name: impl Into<String>, sent: Vec<u8>, expected: Outcome) -> Row {
    with_answer(section, name, move |_| sent.clone(), expected)
}

/// With bytes before the answer.
fn before(section: &'static str, name: impl Into<String>, sent: Vec<u8>, expected: Outcome) -> Row {
    with_answer(section, name, move |answer| [sent.clone(), plain(TEXT, answer)].concat(), expected)
}

fn protocol(section: &'static str, name: impl Into<String>, sent: Vec<u8>) -> Row {
    instead(section, name, sent, Fails("the server broke the protocol", 1002))
}

fn too_much(name: &'static str, sent: Vec<u8>) -> Row {
    instead("10.4", name, sent, Fails("the server sent too much", 1009))
}

fn not_utf8(section: &'static str, name: impl Into<String>, sent: Vec<u8>) -> Row {
    instead(section, name, sent, Fails("not UTF-8", 1007))
}

/// 5.1: nothing that a server sends is masked.
fn masking() -> Vec<Row> {
    let close = masked(CLOSE, &close_payload(1000, b""));
    vec![
        protocol("5.1", "a masked text", masked(TEXT, b"x")),
        protocol("5.1", "a masked empty text", masked(TEXT, b"")),
        protocol("5.1", "a masked ping", masked(PING, b"p")),
        protocol("5.1", "a masked close", close),
        with_answer("5.1", "a masked answer", |answer| masked(TEXT, answer), Fails("masked frame", 1002)),
    ]
}

/// 5.2: the first byte.
fn first_byte() -> Vec<Row> {
    let bits = [(1, 0x40_u8), (2, 0x20), (3, 0x10)].into_iter().flat_map(|(n, bit)| {
        [TEXT, BINARY, PING, PONG, CLOSE, FIRST]
            .map(|first| protocol("5.2", format!("RSV{n} on {first:#04x}"), plain(first | bit, b"")))
    });
    let opcodes = RESERVED_OPCODES
        .map(|opcode| protocol("5.2", format!("opcode {opcode}"), plain(0x80 | opcode, b"x")));
    let inside = [plain(FIRST, b"a"), plain(LAST | 0x40, b"b")].concat();
    bits.chain(opcodes).chain([protocol("5.2", "RSV1 on a continuation", inside)]).collect()
}

/// 5.2 and 10.4: lengths, their forms and their limit of 16 MiB.
fn lengths() -> Vec<Row> {
    let padded = |bytes: usize| {
        move |answer: &[u8]| {
            let mut payload = answer.to_vec();
            payload.resize(bytes.max(answer.len()), b' ');
            payload
        }
    };
    let sound = [126, 300, 65_535, 65_536, 1 << 20].map(|bytes| {
        let padded = padded(bytes);
        with_answer(
            "5.2",
            format!("an answer of {bytes} bytes"),
            move |answer| plain(TEXT, &padded(answer)),
            GoesOn,
        )
    });
    let form = |length, bytes| {
        let padded = padded(bytes);
        let sent = move |answer: &[u8]| {
            let payload = padded(answer);
            [head(TEXT, false, length, payload.len() as u64), payload].concat()
        };
        let name = format!("{length:?} bits for an answer of {bytes} bytes");
        with_answer("5.2", name, sent, Fails("shortest form", 1002))
    };
    let announced = |bytes| head(TEXT, false, Length::SixtyFour, bytes);
    let ping_16 = [head(PING, false, Length::Sixteen, 1), b"p".to_vec()].concat();
    sound
        .into_iter()
        .chain([
            form(Length::SixtyFour, 300),
            form(Length::SixtyFour, 65_535),
            protocol("5.5", "sixteen bits for a ping of one byte", ping_16),
            too_much("one byte over the limit", announced((16 << 20) + 1)),
            too_much("all but the top bit", announced(i64::MAX as u64)),
            protocol("5.2", "the top bit", announced(1 << 63)),
            protocol("5.2", "all bits", announced(u64::MAX)),
        ])
        .collect()
}

/// 5.4: fragments of an answer.
fn fragments() -> Vec<Row> {
    let around = |between: Vec<u8>| {
        move |answer: &[u8]| {
            let (first, last) = answer.split_at(10);
            [plain(FIRST, first), between.clone(), plain(LAST, last)].concat()
        }
    };
    let singles = |answer: &[u8]| {
        let middle: Vec<u8> = answer.iter().flat_map(|&byte| plain(MIDDLE, &[byte])).collect();
        [plain(FIRST, b""), middle, plain(LAST, b"")].concat()
    };
    let good = |name, sent: Misbehave, expected| with_answer("5.4", name, sent, expected);
    let bad = |name, between| with_answer("5.4", name, around(between), Fails("broke the protocol", 1002));
    let close = plain(CLOSE, &close_payload(1001, b""));
    vec![
        good("two fragments", Box::new(around(Vec::new())), GoesOn),
        good("an empty fragment between", Box::new(around(plain(MIDDLE, b""))), GoesOn),
        good("a byte a fragment, with empty ones at the ends", Box::new(singles), GoesOn),
        pongs(b"p", good("a ping between", Box::new(around(plain(PING, b"p"))), GoesOn)),
        good("a pong between", Box::new(around(plain(PONG, b"p"))), GoesOn),
        good(
            "a close between",
            Box::new(around(close)),
            Closes("closed by the server: 1001".into(), Some(1001)),
        ),
        bad("a text between", plain(TEXT, b"no")),
        bad("a binary between", plain(BINARY, b"no")),
        bad("another first fragment between", plain(FIRST, b"no")),
        protocol("5.4", "a last fragment of nothing", plain(LAST, b"x")),
        protocol("5.4", "a middle fragment of nothing", plain(MIDDLE, b"x")),
        Row {
            answered: HIT + 1,
            ..with_answer(
                "5.4",
                "a fragment behind the last",
                move |answer| [around(Vec::new())(answer), plain(LAST, b"x")].concat(),
                Fails("broke the protocol", 1002),
            )
        },
    ]
}

/// 5.5: control frames.
fn control() -> Vec<Row> {
    let fragmented = [("close", 0x08), ("ping", 0x09), ("pong", 0x0a)]
        .map(|(name, first)| protocol("5.5", format!("a fragmented {name}"), plain(first, b"")));
    let long = [("close", CLOSE), ("ping", PING), ("pong", PONG)]
        .map(|(name, first)| protocol("5.5", format!("a {name} of 126 bytes"), plain(first, &[3; 126])));
    let fill: Vec<u8> = (0..125).map(|n| n * 2 + 1).collect();
    let many = (0..500_u16).flat_map(|n| plain(PING, &n.to_be_bytes())).collect();
    fragmented
        .into_iter()
        .chain(long)
        .chain([
            pongs(b"", before("5.5.2", "an empty ping", plain(PING, b""), GoesOn)),
            pongs(&fill, before("5.5.2", "a ping of 125 bytes, not UTF-8", plain(PING, &fill), GoesOn)),
            pongs(&499_u16.to_be_bytes(), before("5.5.2", "500 pings at once", many, GoesOn)),
            before("5.5.3", "a pong that nobody asked for", plain(PONG, b"hello"), GoesOn),
            before("5.5.3", "a pong of 125 bytes", plain(PONG, &fill), GoesOn),
        ])
        .collect()
}

/// 5.5.1 and 7: the close handshake.
fn closing() -> Vec<Row> {
    let close = |code, reason: &[u8]| plain(CLOSE, &close_payload(code, reason));
    let closes = |code: u16, reason: &str| {
        Closes(format!("closed by the server: {code} {reason}").trim_end().to_owned(), Some(code))
    };
    let valid =
        VALID_CODES.map(|code| instead("7.4", format!("close {code}"), close(code, b""), closes(code, "")));
    let invalid = INVALID_CODES.map(|code| protocol("7.4", format!("close {code}"), close(code, b"")));
    let reasons = INVALID_UTF8
        .map(|(name, bytes)| not_utf8("5.5.1", format!("a reason with {name}"), close(1000, bytes)));
    let longest = "x".repeat(123);
    let behind =
        |name, more: Vec<u8>| instead("5.5.1", name, [close(1000, b""), more].concat(), closes(1000, ""));
    valid
        .into_iter()
        .chain(invalid)
        .chain(reasons)
        .chain([
            instead(
                "5.5.1",
                "an empty close",
                plain(CLOSE, b""),
                Closes("closed by the server without a code".into(), None),
            ),
            protocol("5.5.1", "a close of one byte", plain(CLOSE, b"\x03")),
            instead("5.5.1", "a reason", close(1000, "tschüß".as_bytes()), closes(1000, "tschüß")),
            instead("5.5.1", "the longest reason", close(1000, longest.as_bytes()), closes(1000, &longest)),
            behind("a text behind the close", plain(TEXT, b"x")),
            behind("a ping behind the close", plain(PING, b"p")),
            behind("a second close", close(1001, b"")),
            behind("rubbish behind the close", vec![0xff; 100]),
        ])
        .collect()
}

/// 8.1: a text is UTF-8, however it is cut.
fn utf8() -> Vec<Row> {
    // Behind the answer's last field, where a JSON text may have one more.
    let with_field =
        |answer: &[u8], value: &[u8]| [&answer[..answer.len() - 1], b",\"extra\":\"", value, b"\"}"].concat();
    let valid = VALID_UTF8.map(|characters| {
        let sent = move |answer: &[u8]| {
            let payload = with_field(answer, characters.as_bytes());
            let bytes: Vec<u8> = payload.iter().flat_map(|&byte| plain(MIDDLE, &[byte])).collect();
            [plain(FIRST, b""), bytes, plain(LAST, b"")].concat()
        };
        with_answer("8.1", format!("{characters:?}, a byte a fragment"), sent, GoesOn)
    });
    let invalid = INVALID_UTF8.into_iter().flat_map(|(name, bytes)| {
        let good = "{é€𝄞}";
        good.char_indices().map(|(at, _)| at).chain([good.len()]).map(move |at| {
            let payload = [&good.as_bytes()[..at], bytes, &good.as_bytes()[at..]].concat();
            not_utf8("8.1", format!("{name} at {at}"), plain(TEXT, &payload))
        })
    });
    let cut = [plain(FIRST, b"\xf0\x9d"), plain(LAST, b"\x84\xff")].concat();
    let late = [plain(FIRST, b"\xff"), plain(TEXT, b"x")].concat();
    // Of the two faults it is the first that counts: the fragments are checked as they come.
    let early = not_utf8("8.1", "an invalid byte in a first fragment, a text behind", late);
    valid.into_iter().chain(invalid).chain([not_utf8("8.1", "cut within a character", cut), early]).collect()
}

fn rows() -> Vec<Row> {
    [masking(), first_byte(), lengths(), fragments(), control(), closing(), utf8()]
        .into_iter()
        .flatten()
        .collect()
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
