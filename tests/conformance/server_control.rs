//! Sections 5.5, 5.6 and 7 against the server: control frames, and the close handshake.

use crate::codes::{INVALID_CODES, INVALID_UTF8, VALID_CODES};
use crate::raw::{BINARY, CLOSE, Length, PING, PONG, TEXT, close_payload, masked, masked_as};
use crate::server_frames::Reaction::{Close, Error, Pong};
use crate::server_frames::{Row, echo, fails, row, text};

pub fn rows() -> Vec<Row> {
    [control(), closing()].into_iter().flatten().collect()
}

/// 5.5: control frames.
fn control() -> Vec<Row> {
    let fragmented = [("close", 0x08), ("ping", 0x09), ("pong", 0x0a)]
        .map(|(name, first)| fails("5.5", format!("a fragmented {name}"), masked(first, b""), 1002));
    // As close frames they would be sound, but for their length.
    let long = [126, 65_536].into_iter().flat_map(|bytes| {
        let payload = close_payload(1000, &vec![b'x'; bytes - 2]);
        [("close", CLOSE), ("ping", PING), ("pong", PONG)].map(|(name, first)| {
            fails("5.5", format!("a {name} of {bytes} bytes"), masked(first, &payload), 1002)
        })
    });
    let longer = [Length::Sixteen, Length::SixtyFour].map(|length| {
        let ping = masked_as(PING, length, [1, 2, 3, 4], b"p");
        fails("5.5", format!("{length:?} bits for a ping of one byte"), ping, 1002)
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
        .chain(longer)
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
    let behind = |name, more: Vec<u8>| fails("7.1.7", name, [masked(0x83, b""), more].concat(), 1002);
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
            behind("a close behind a violation", close(1000, b"")),
            behind("a text behind a violation", text("a")),
            behind("a ping behind a violation", masked(PING, b"p")),
            behind("a text that is not UTF-8 behind a violation", masked(TEXT, b"\xff")),
            row(
                "7.1.7",
                "a violation behind a text, a close behind both",
                [text("a"), masked(0x83, b""), close(1000, b"")].concat(),
                vec![echo("a"), Close(1002)],
            ),
        ])
        .collect()
}
