//! Sections 5.5 and 7 against the client: control frames, and the close handshake.

use crate::client_frames::Outcome::{Closes, Fails, GoesOn};
use crate::client_frames::{Row, before, counted, instead, not_utf8, pongs, protocol, with_answer};
use crate::codes::{INVALID_CODES, INVALID_UTF8, VALID_CODES};
use crate::raw::{CLOSE, Length, PING, PONG, TEXT, close_payload, head, plain};

pub fn rows() -> Vec<Row> {
    [control(), closing()].into_iter().flatten().collect()
}

/// 5.5: control frames.
fn control() -> Vec<Row> {
    let bad = |name, sent, reason| instead("5.5", name, sent, Fails(reason, 1002));
    let fragmented = [("close", 0x08), ("ping", 0x09), ("pong", 0x0a)]
        .map(|(name, first)| bad(format!("a fragmented {name}"), plain(first, b""), "in fragments"));
    // As close frames they would be sound, but for their length.
    let long = [126, 65_536].into_iter().flat_map(|bytes| {
        let payload = close_payload(1000, &vec![b'x'; bytes - 2]);
        [("close", CLOSE), ("ping", PING), ("pong", PONG)].map(|(name, first)| {
            bad(format!("a {name} of {bytes} bytes"), plain(first, &payload), "more than 125 bytes")
        })
    });
    let longer = [Length::Sixteen, Length::SixtyFour].map(|length| {
        let ping = [head(PING, false, length, 1), b"p".to_vec()].concat();
        protocol("5.5", format!("{length:?} bits for a ping of one byte"), ping)
    });
    let between = |answer: &[u8]| [plain(PING, b"1"), plain(TEXT, answer), plain(PING, b"2")].concat();
    let fill: Vec<u8> = (0..125).map(|n| n * 2 + 1).collect();
    let many = (0..500_u16).flat_map(|n| plain(PING, &n.to_be_bytes())).collect();
    fragmented
        .into_iter()
        .chain(long)
        .chain(longer)
        .chain([
            pongs(b"", before("5.5.2", "an empty ping", plain(PING, b""), GoesOn)),
            pongs(&fill, before("5.5.2", "a ping of 125 bytes, not UTF-8", plain(PING, &fill), GoesOn)),
            pongs(&499_u16.to_be_bytes(), before("5.5.2", "500 pings at once", many, GoesOn)),
            pongs(b"2", with_answer("5.5.2", "pings around an answer", between, GoesOn)),
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
    let cut = [&[b'x'; 122][..], b"\xc3"].concat();
    let violated = |name, more: Vec<u8>| {
        instead("7.1.7", name, [plain(0x83, b""), more].concat(), Fails("opcode 3", 1002))
    };
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
            not_utf8("5.5.1", "a reason that ends within a character", close(1000, &cut)),
            counted(with_answer(
                "5.5.1",
                "an answer, then a close",
                move |answer| [plain(TEXT, answer), close(1000, b"")].concat(),
                closes(1000, ""),
            )),
            behind("a text behind the close", plain(TEXT, b"x")),
            behind("a ping behind the close", plain(PING, b"p")),
            behind("a second close", close(1001, b"")),
            behind("rubbish behind the close", vec![0xff; 100]),
            with_answer(
                "5.5.1",
                "an answer behind the close",
                move |answer| [close(1000, b""), plain(TEXT, answer)].concat(),
                closes(1000, ""),
            ),
            violated("a close behind a violation", close(1000, b"")),
            violated("a ping behind a violation", plain(PING, b"p")),
            violated("a text that is not UTF-8 behind a violation", plain(TEXT, b"\xff")),
            with_answer(
                "7.1.7",
                "an answer behind a violation",
                |answer| [plain(0x83, b""), plain(TEXT, answer)].concat(),
                Fails("opcode 3", 1002),
            ),
        ])
        .collect()
}
