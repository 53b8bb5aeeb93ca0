//! Sections 5.4 and 8.1 against the client: fragments, and texts in them.

use crate::client_frames::Outcome::{Closes, Fails, GoesOn};
use crate::client_frames::{Misbehave, Row, counted, not_utf8, pongs, protocol, with_answer};
use crate::codes::{INVALID_UTF8, VALID_UTF8};
use crate::raw::{BINARY, CLOSE, FIRST, LAST, MIDDLE, PING, PONG, TEXT, close_payload, plain};

pub fn rows() -> Vec<Row> {
    [fragments(), utf8()].into_iter().flatten().collect()
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
        counted(with_answer(
            "5.4",
            "a fragment behind the last",
            move |answer| [around(Vec::new())(answer), plain(LAST, b"x")].concat(),
            Fails("broke the protocol", 1002),
        )),
    ]
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
