//! Sections 5 to 8 against the server.

use std::net::TcpStream;
use std::time::Duration;

use floodline::server::{HighVolumeWebSocketServer, ServerConfig, ServerHandle};
use serde_json::Value;

use crate::codes::{INVALID_CODES, INVALID_UTF8, RESERVED_OPCODES, VALID_CODES, VALID_UTF8};
use crate::raw::{
    BINARY, CLOSE, FIRST, LAST, Length, MIDDLE, PING, PONG, Seen, TEXT, close_payload, head, masked,
    masked_as, plain, read_frame, read_head, send,
};

/// Far longer than any answer takes on a slow machine; a test that needs it fails.
const PATIENCE: Duration = Duration::from_secs(30);

/// The largest message of the server under test: enough for a length of 64 bits.
const MAX_MESSAGE_BYTES: usize = 70_000;

/// What the server does, after which it either goes on or has closed.
#[derive(Debug, PartialEq, Clone)]
enum Reaction {
    /// It understood a text: it sends it back inside its answer.
    Echo(Value),
    /// It read a message that is no JSON text: it answers `error`.
    Error,
    Pong(Vec<u8>),
    /// It closes with this code, and ends the stream.
    Close(u16),
}
use Reaction::{Close, Echo, Error, Pong};

struct Row {
    section: &'static str,
    name: String,
    sent: Vec<u8>,
    expected: Vec<Reaction>,
}

fn row(section: &'static str, name: impl Into<String>, sent: Vec<u8>, expected: Vec<Reaction>) -> Row {
    Row { section, name: name.into(), sent, expected }
}

fn fails(section: &'static str, name: impl Into<String>, sent: Vec<u8>, code: u16) -> Row {
    row(section, name, sent, vec![Close(code)])
}

/// A JSON text of so many bytes, and what comes back.
fn json_of(bytes: usize) -> (Vec<u8>, Reaction) {
    match bytes {
        0 => (Vec::new(), Error),
        1 => (b"7".to_vec(), Echo(7.into())),
        _ => {
            let text = "x".repeat(bytes - 2);
            (format!("\"{text}\"").into_bytes(), Echo(text.into()))
        }
    }
}

fn text(payload: &str) -> Vec<u8> {
    masked(TEXT, format!("\"{payload}\"").as_bytes())
}

fn echo(payload: &str) -> Reaction {
    Echo(payload.into())
}

/// 5.1 and 5.3: everything that a client sends is masked.
fn masking() -> Vec<Row> {
    let both =
        [masked_as(TEXT, Length::Seven, [0; 4], b"1"), masked_as(TEXT, Length::Seven, [0xff; 4], b"2")];
    vec![
        fails("5.1", "an unmasked text", plain(TEXT, b"\"x\""), 1002),
        fails("5.1", "an unmasked empty text", plain(TEXT, b""), 1002),
        fails("5.1", "an unmasked ping", plain(PING, b""), 1002),
        fails("5.1", "an unmasked close", plain(CLOSE, &close_payload(1000, b"")), 1002),
        row(
            "5.1",
            "unmasked behind masked",
            [text("a"), plain(TEXT, b"1")].concat(),
            vec![echo("a"), Close(1002)],
        ),
        fails("5.1", "an unmasked last fragment", [masked(FIRST, b"\"a"), plain(LAST, b"\"")].concat(), 1002),
        row("5.3", "a mask of zeros, then another", both.concat(), vec![Echo(1.into()), Echo(2.into())]),
        row(
            "5.7",
            "the masked hello of the RFC",
            b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58".to_vec(),
            vec![Error],
        ),
    ]
}

/// 5.2: the first byte.
fn first_byte() -> Vec<Row> {
    let bits = [(1, 0x40_u8), (2, 0x20), (3, 0x10)].into_iter().flat_map(|(n, bit)| {
        [TEXT, BINARY, PING, PONG, CLOSE, FIRST]
            .map(|first| fails("5.2", format!("RSV{n} on {first:#04x}"), masked(first | bit, b""), 1002))
    });
    let all_bits = fails("5.2", "all reserved bits", masked(TEXT | 0x70, b"1"), 1002);
    let inside = [masked(FIRST, b"\"a"), masked(LAST | 0x40, b"\"")].concat();
    let opcodes = RESERVED_OPCODES.into_iter().flat_map(|opcode| {
        [("", 0x80_u8), (", not final", 0)].map(|(not_final, fin)| {
            let name = format!("opcode {opcode}{not_final}");
            fails("5.2", name, masked(fin | opcode, b""), 1002)
        })
    });
    let good_first = [text("a"), masked(0x83, b"x"), text("b")].concat();
    bits.chain(opcodes)
        .chain([
            all_bits,
            fails("5.2", "RSV1 on a continuation", inside, 1002),
            row(
                "5.2",
                "what came before is answered, what came behind is not",
                good_first,
                vec![echo("a"), Close(1002)],
            ),
        ])
        .collect()
}

/// 5.2 and 10.4: lengths, their forms and their limit.
fn lengths() -> Vec<Row> {
    let sound = [0, 1, 2, 124, 125, 126, 127, 65_534, 65_535, 65_536, MAX_MESSAGE_BYTES].map(|bytes| {
        let (payload, reaction) = json_of(bytes);
        row("5.2", format!("a text of {bytes} bytes"), masked(TEXT, &payload), vec![reaction])
    });
    let longer = [
        (Length::Sixteen, 0),
        (Length::Sixteen, 2),
        (Length::Sixteen, 125),
        (Length::SixtyFour, 2),
        (Length::SixtyFour, 126),
        (Length::SixtyFour, 65_535),
    ]
    .map(|(length, bytes)| {
        let frame = masked_as(TEXT, length, [1, 2, 3, 4], &json_of(bytes).0);
        fails("5.2", format!("{length:?} bits for {bytes} bytes"), frame, 1002)
    });
    let announced = [
        ("one byte over the limit", MAX_MESSAGE_BYTES as u64 + 1, 1009),
        ("4 GiB", 1 << 32, 1009),
        ("all but the top bit", i64::MAX as u64, 1009),
        ("the top bit", 1 << 63, 1002),
        ("all bits", u64::MAX, 1002),
    ]
    .map(|(name, bytes, code)| fails("10.4", name, head(BINARY, true, Length::SixtyFour, bytes), code));
    let half = MAX_MESSAGE_BYTES / 2;
    let first = masked(FIRST, &json_of(half).0);
    let fits = [
        masked(FIRST, &[b"\"" as &[u8], &[b'x'; 999]].concat()),
        masked(LAST, &[b"x".repeat(MAX_MESSAGE_BYTES - 1_001), b"\"".to_vec()].concat()),
    ];
    let exact = fails(
        "10.4",
        "fragments of one byte more",
        [first.clone(), masked(LAST, &vec![b' '; half + 1])].concat(),
        1009,
    );
    let early = [first.clone(), masked(MIDDLE, &vec![b' '; half]), masked(MIDDLE, b" ")].concat();
    let empty = [first, masked(MIDDLE, &vec![b' '; half]), masked(MIDDLE, b""), masked(LAST, b"")].concat();
    sound
        .into_iter()
        .chain(longer)
        .chain(announced)
        .chain([
            exact,
            row(
                "10.4",
                "fragments that just fit",
                fits.concat(),
                vec![echo(&"x".repeat(MAX_MESSAGE_BYTES - 2))],
            ),
            fails("10.4", "fragments over the limit before the last", early, 1009),
            row("10.4", "empty fragments at the limit", empty, vec![echo(&"x".repeat(half - 2))]),
        ])
        .collect()
}

/// 5.4: fragments.
fn fragments() -> Vec<Row> {
    let hello =
        |frames: &[Vec<u8>]| [&[masked(FIRST, b"\"hel")], frames, &[masked(LAST, b"lo\"")]].concat().concat();
    let singles: Vec<_> = b"\"hello\"".iter().map(|&byte| masked(MIDDLE, &[byte])).collect();
    let many: Vec<_> = (0..1_000).map(|_| masked(MIDDLE, b"x")).collect();
    let whole = || vec![echo("hello")];
    vec![
        row("5.4", "two fragments", hello(&[]), whole()),
        row("5.4", "an empty fragment between", hello(&[masked(MIDDLE, b"")]), whole()),
        row(
            "5.4",
            "an empty first fragment",
            [masked(FIRST, b""), masked(LAST, b"\"hello\"")].concat(),
            whole(),
        ),
        row(
            "5.4",
            "an empty last fragment",
            [masked(FIRST, b"\"hello\""), masked(LAST, b"")].concat(),
            whole(),
        ),
        row(
            "5.4",
            "only empty fragments",
            [masked(FIRST, b""), masked(MIDDLE, b""), masked(LAST, b"")].concat(),
            vec![Error],
        ),
        row(
            "5.4",
            "a byte a fragment",
            [masked(FIRST, b""), singles.concat(), masked(LAST, b"")].concat(),
            whole(),
        ),
        row(
            "5.4",
            "a thousand fragments",
            [masked(FIRST, b"\""), many.concat(), masked(LAST, b"\"")].concat(),
            vec![echo(&"x".repeat(1_000))],
        ),
        row("5.4", "a ping between", hello(&[masked(PING, b"p")]), vec![Pong(b"p".to_vec()), echo("hello")]),
        row("5.4", "a pong between", hello(&[masked(PONG, b"p")]), whole()),
        row(
            "5.4",
            "pings in every gap",
            hello(&[masked(PING, b"1"), masked(MIDDLE, b""), masked(PING, b"2")]),
            vec![Pong(b"1".to_vec()), Pong(b"2".to_vec()), echo("hello")],
        ),
        fails("5.4", "a close between", hello(&[masked(CLOSE, &close_payload(1001, b""))]), 1001),
        fails("5.4", "a text between", hello(&[text("no")]), 1002),
        fails("5.4", "a binary between", hello(&[masked(BINARY, b"no")]), 1002),
        fails("5.4", "another first fragment between", hello(&[masked(FIRST, b"no")]), 1002),
        fails("5.4", "a last fragment of nothing", masked(LAST, b"\"x\""), 1002),
        fails("5.4", "a middle fragment of nothing", masked(MIDDLE, b"\"x\""), 1002),
        row(
            "5.4",
            "a fragment behind the last",
            [hello(&[]), masked(LAST, b"more")].concat(),
            vec![echo("hello"), Close(1002)],
        ),
        row(
            "5.4",
            "a fragment behind a whole text",
            [text("a"), masked(MIDDLE, b"more")].concat(),
            vec![echo("a"), Close(1002)],
        ),
        row(
            "5.4",
            "fragments of a binary",
            [masked(0x02, b"\xff"), masked(LAST, b"\xfe")].concat(),
            vec![Error],
        ),
        row(
            "5.4",
            "two fragmented texts in turn",
            [hello(&[]), hello(&[])].concat(),
            vec![echo("hello"), echo("hello")],
        ),
    ]
}

/// 5.5: control frames.
fn control() -> Vec<Row> {
    let fragmented = [("close", 0x08), ("ping", 0x09), ("pong", 0x0a)]
        .map(|(name, first)| fails("5.5", format!("a fragmented {name}"), masked(first, b""), 1002));
    let long = [("close", CLOSE), ("ping", PING), ("pong", PONG)].into_iter().flat_map(|(name, first)| {
        [126, 65_536].map(|bytes| {
            fails("5.5", format!("a {name} of {bytes} bytes"), masked(first, &vec![3; bytes]), 1002)
        })
    });
    let fill: Vec<u8> = (0..125).map(|n| n * 2 + 1).collect();
    let many = (0..500_u16).map(|n| masked(PING, &n.to_be_bytes())).collect::<Vec<_>>().concat();
    let pongs = (0..500_u16).map(|n| Pong(n.to_be_bytes().to_vec())).collect();
    let between = [masked(PING, b"1"), text("a"), masked(PING, b"2"), text("b"), masked(PING, b"3")].concat();
    let in_turn = vec![Pong(b"1".to_vec()), echo("a"), Pong(b"2".to_vec()), echo("b"), Pong(b"3".to_vec())];
    let binary = masked(BINARY, b"");
    fragmented
        .into_iter()
        .chain(long)
        .chain([
            row("5.5.2", "an empty ping", masked(PING, b""), vec![Pong(Vec::new())]),
            row("5.5.2", "a ping of 125 bytes, not UTF-8", masked(PING, &fill), vec![Pong(fill.clone())]),
            row("5.5.2", "500 pings at once", many, pongs),
            row("5.5.2", "pings between texts", between, in_turn),
            row("5.5.3", "a pong that nobody asked for", masked(PONG, b"hello"), vec![]),
            row("5.5.3", "a pong of 125 bytes", masked(PONG, &fill), vec![]),
            row("5.6", "a binary", masked(BINARY, b"\x00\xff"), vec![Error]),
            row("5.6", "an empty binary", binary, vec![Error]),
        ])
        .collect()
}

/// 5.5.1 and 7: the close handshake.
fn closing() -> Vec<Row> {
    let close = |code, reason: &[u8]| masked(CLOSE, &close_payload(code, reason));
    let valid = VALID_CODES.map(|code| fails("7.4", format!("close {code}"), close(code, b""), code));
    let invalid = INVALID_CODES.map(|code| fails("7.4", format!("close {code}"), close(code, b""), 1002));
    let reasons = INVALID_UTF8
        .map(|(name, bytes)| fails("5.5.1", format!("a reason with {name}"), close(1000, bytes), 1007));
    let longest = "x".repeat(123);
    let cut = [&[b'x'; 122][..], b"\xc3"].concat();
    valid
        .into_iter()
        .chain(invalid)
        .chain(reasons)
        .chain([
            fails("5.5.1", "an empty close", masked(CLOSE, b""), 1000),
            fails("5.5.1", "a close of one byte", masked(CLOSE, b"\x03"), 1002),
            fails("5.5.1", "a reason", close(1000, "tschüß".as_bytes()), 1000),
            fails("5.5.1", "the longest reason", close(1000, longest.as_bytes()), 1000),
            fails("5.5.1", "a reason that ends within a character", close(1000, &cut), 1007),
            row(
                "5.5.1",
                "a text, then a close",
                [text("a"), close(1000, b"")].concat(),
                vec![echo("a"), Close(1000)],
            ),
            fails("5.5.1", "a text behind the close", [close(1000, b""), text("a")].concat(), 1000),
            fails("5.5.1", "a ping behind the close", [close(1000, b""), masked(PING, b"p")].concat(), 1000),
            fails("5.5.1", "two closes", [close(1000, b""), close(1001, b"")].concat(), 1000),
            fails("5.5.1", "rubbish behind the close", [close(1000, b""), vec![0xff; 100]].concat(), 1000),
            fails(
                "7.1.7",
                "a close behind a violation",
                [masked(0x83, b""), close(1000, b"")].concat(),
                1002,
            ),
        ])
        .collect()
}

/// 8.1: a text is UTF-8, however it is cut.
fn utf8() -> Vec<Row> {
    let valid = VALID_UTF8.into_iter().flat_map(|characters| {
        let whole = row("8.1", format!("{characters:?}"), text(characters), vec![echo(characters)]);
        let payload = format!("\"{characters}\"").into_bytes();
        let cuts = (0..=payload.len()).map(move |at| {
            let (first, last) = payload.split_at(at);
            let frames = [masked(FIRST, first), masked(PING, b""), masked(LAST, last)].concat();
            row(
                "8.1",
                format!("{characters:?} cut at {at}"),
                frames,
                vec![Pong(Vec::new()), echo(characters)],
            )
        });
        std::iter::once(whole).chain(cuts)
    });
    let invalid = INVALID_UTF8.into_iter().flat_map(|(name, bytes)| {
        let good = "\"aé€𝄞z\"";
        let places = good.char_indices().map(|(at, _)| at).chain([good.len()]);
        places.flat_map(move |at| {
            let payload = [&good.as_bytes()[..at], bytes, &good.as_bytes()[at..]].concat();
            let (first, last) = payload.split_at(at + 1);
            [
                fails("8.1", format!("{name} at {at}"), masked(TEXT, &payload), 1007),
                fails(
                    "8.1",
                    format!("{name} at {at}, cut behind its first byte"),
                    [masked(FIRST, first), masked(LAST, last)].concat(),
                    1007,
                ),
            ]
        })
    });
    // The rest of the message need not come.
    let early = fails("8.1", "an invalid byte in a first fragment", masked(FIRST, b"\"\xff"), 1007);
    valid.chain(invalid).chain([early]).collect()
}

fn rows() -> Vec<Row> {
    [masking(), first_byte(), lengths(), fragments(), control(), closing(), utf8()]
        .into_iter()
        .flatten()
        .collect()
}

#[test]
fn the_server_reacts_to_every_frame_as_the_rfc_says() {
    let config = ServerConfig { max_message_bytes: MAX_MESSAGE_BYTES, ..ServerConfig::default() };
    let server = HighVolumeWebSocketServer::spawn(config).unwrap();
    let rows = rows();
    let failures: Vec<_> = rows.iter().filter_map(|row| check(&server, row).err()).collect();
    assert!(failures.is_empty(), "{} of {} rows:\n{}", failures.len(), rows.len(), failures.join("\n"));
    assert!(rows.len() > 500, "{} rows", rows.len());
}

fn check(server: &ServerHandle, row: &Row) -> Result<(), String> {
    let mut stream = connect(server);
    send(&mut stream, &row.sent);
    let ends = matches!(row.expected.last(), Some(Close(_)));
    let mut expected = row.expected.clone();
    if !ends {
        // That it goes on shows in an answer to what comes next, in order behind all others.
        send(&mut stream, &masked(PING, b"still there?"));
        expected.push(Pong(b"still there?".to_vec()));
    }
    let mut seen = Vec::new();
    while seen.len() < expected.len() || ends {
        let Some(frame) = read_frame(&mut stream) else { break };
        seen.push(reaction(&frame)?);
    }
    if seen == expected {
        return Ok(());
    }
    let (section, name) = (row.section, &row.name);
    Err(format!("{section} {name}: {}, not {}", shortened(&seen), shortened(&expected)))
}

fn reaction(frame: &Seen) -> Result<Reaction, String> {
    if frame.mask.is_some() {
        return Err(format!("a masked frame from the server: {frame:?}"));
    }
    match frame.first {
        PONG => Ok(Pong(frame.payload.clone())),
        CLOSE => frame.close_code().map(Close).ok_or_else(|| "a close without a code".to_owned()),
        TEXT => {
            let answer: Value = serde_json::from_slice(&frame.payload).map_err(|error| error.to_string())?;
            match answer["type"].as_str() {
                Some("generic_response") => Ok(Echo(answer["echo"].clone())),
                Some("error") => Ok(Error),
                _ => Err(format!("an answer of another type: {frame:?}")),
            }
        }
        _ => Err(format!("a frame of another kind: {frame:?}")),
    }
}

fn shortened(reactions: &[Reaction]) -> String {
    let mut text = format!("{reactions:?}");
    if let Some((end, _)) = text.char_indices().nth(200) {
        text.replace_range(end.., "…");
    }
    text
}

/// A connection whose handshake is done.
pub fn connect(server: &ServerHandle) -> TcpStream {
    let mut stream = TcpStream::connect(server.address()).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    send(&mut stream, crate::server_handshake::REQUEST.as_bytes());
    let head = read_head(&mut stream);
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    stream
}
