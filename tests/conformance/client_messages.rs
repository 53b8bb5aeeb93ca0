//! Sections 5.4 and 8.1 against the client: fragments, and texts in them.

use crate::client_frames::Outcome::{Closes, Fails, GoesOn, Stray};
use crate::client_frames::{
    Misbehave, Row, before, counted, each, not_utf8, pongs, protocol, stray, with_answer,
};
use crate::codes::{VALID_UTF8, invalid_texts};
use crate::raw::{BINARY, CLOSE, FIRST, LAST, MIDDLE, PING, PONG, TEXT, byte_by_byte, close_payload, plain};

pub fn rows() -> Vec<Row> {
    [fragments(), interrupted(), data(), utf8()].into_iter().flatten().collect()
}

/// An answer in two fragments, with frames between them.
fn around(answer: &[u8], between: &[Vec<u8>]) -> Vec<u8> {
    let (first, last) = answer.split_at(10);
    [plain(FIRST, first), between.concat(), plain(LAST, last)].concat()
}

/// 5.4: fragments of an answer, and control frames between them.
fn fragments() -> Vec<Row> {
    let good = |name, sent: fn(&[u8]) -> Vec<u8>| with_answer("5.4", name, sent, GoesOn);
    vec![
        good("two fragments", |answer| around(answer, &[])),
        good("an empty fragment between", |answer| around(answer, &[plain(MIDDLE, b"")])),
        good("an empty first fragment", |answer| [plain(FIRST, b""), plain(LAST, answer)].concat()),
        good("an empty last fragment", |answer| [plain(FIRST, answer), plain(LAST, b"")].concat()),
        good("a byte a fragment", |answer| byte_by_byte(plain, answer)),
        stray("5.4", "only empty fragments", 0, |_| {
            [plain(FIRST, b""), plain(MIDDLE, b""), plain(LAST, b"")].concat()
        }),
        stray("5.4", "a thousand fragments", 1_000, |text| byte_by_byte(plain, text)),
        pongs(b"p", good("a ping between", |answer| around(answer, &[plain(PING, b"p")]))),
        good("a pong between", |answer| around(answer, &[plain(PONG, b"p")])),
        pongs(
            b"2",
            good("pings in every gap", |answer| {
                around(answer, &[plain(PING, b"1"), plain(MIDDLE, b""), plain(PING, b"2")])
            }),
        ),
        with_answer(
            "5.4",
            "two fragmented texts in turn",
            |answer| [plain(FIRST, b"hel"), plain(LAST, b"lo"), around(answer, &[])].concat(),
            Stray("hello".into()),
        ),
        with_answer(
            "5.4",
            "a close between",
            |answer| around(answer, &[plain(CLOSE, &close_payload(1001, b""))]),
            Closes("closed by the server: 1001".into(), Some(1001)),
        ),
    ]
}

/// 5.4: fragments where there should be none, and others where they should be.
fn interrupted() -> Vec<Row> {
    let between = |name, frame: Vec<u8>| {
        let sent = move |answer: &[u8]| around(answer, std::slice::from_ref(&frame));
        with_answer("5.4", name, sent, Fails("within the fragments of another", 1002))
    };
    let behind = |name, sent: fn(&[u8]) -> Vec<u8>| {
        counted(with_answer("5.4", name, sent, Fails("a continuation of nothing", 1002)))
    };
    vec![
        between("a text between", plain(TEXT, b"no")),
        between("a binary between", plain(BINARY, b"no")),
        between("another first fragment between", plain(FIRST, b"no")),
        protocol("5.4", "a last fragment of nothing", plain(LAST, b"x")),
        protocol("5.4", "a middle fragment of nothing", plain(MIDDLE, b"x")),
        behind("a fragment behind the last", |answer| [around(answer, &[]), plain(LAST, b"x")].concat()),
        behind("a fragment behind a whole text", |answer| {
            [plain(TEXT, answer), plain(MIDDLE, b"x")].concat()
        }),
    ]
}

/// 5.6: binary messages. No answer is one, so they are counted; that they are not UTF-8 is no violation.
fn data() -> Vec<Row> {
    let fragments = [plain(0x02, b"\xff"), plain(LAST, b"\xfe")].concat();
    let around_ping = [plain(0x02, b"\xff"), plain(PING, b"p"), plain(LAST, b"\xfe")].concat();
    vec![
        before("5.6", "a binary", plain(BINARY, b"\x00\xff"), Stray(r"\x00\xff".into())),
        before("5.6", "an empty binary", plain(BINARY, b""), Stray(String::new())),
        before("5.6", "fragments of a binary", fragments, Stray(r"\xff\xfe".into())),
        pongs(b"p", before("5.6", "a ping in a binary", around_ping, Stray(r"\xff\xfe".into()))),
    ]
}

/// 8.1: a text is UTF-8, however it is cut.
fn utf8() -> Vec<Row> {
    let valid = VALID_UTF8.into_iter().flat_map(|characters| {
        let whole = move |answer: &[u8]| {
            let (before, behind) = with_field(answer, characters);
            plain(TEXT, &[before, behind].concat())
        };
        let singles = move |answer: &[u8]| {
            let (before, behind) = with_field(answer, characters);
            byte_by_byte(plain, &[before, behind].concat())
        };
        let cuts = (0..=characters.len()).map(|at| -> Misbehave {
            Box::new(move |answer| {
                let (mut first, mut last) = with_field(answer, characters);
                first.extend(last.drain(..at));
                [plain(FIRST, &first), plain(PING, b""), plain(LAST, &last)].concat()
            })
        });
        let cuts = each("8.1", format!("{characters:?}, cut at every place"), cuts.collect(), GoesOn);
        [
            with_answer("8.1", format!("{characters:?}"), whole, GoesOn),
            with_answer("8.1", format!("{characters:?}, a byte a fragment"), singles, GoesOn),
            pongs(b"", cuts),
        ]
    });
    let invalid = invalid_texts().flat_map(|(name, payload)| {
        let cuts = (0..=payload.len()).map(|at| -> Misbehave {
            let (first, last) = payload.split_at(at);
            let frames = [plain(FIRST, first), plain(LAST, last)].concat();
            Box::new(move |_| frames.clone())
        });
        let cut = format!("{name}, cut at every place");
        [
            not_utf8("8.1", name.clone(), plain(TEXT, &payload)),
            not_utf8("8.1", format!("{name}, a byte a fragment"), byte_by_byte(plain, &payload)),
            each("8.1", cut, cuts.collect(), Fails("not UTF-8", 1007)),
        ]
    });
    let late = [plain(FIRST, b"\xff"), plain(TEXT, b"x")].concat();
    // Of the two faults it is the first that counts: the fragments are checked as they come.
    let early = not_utf8("8.1", "an invalid byte in a first fragment, a text behind", late);
    valid.chain(invalid).chain([early]).collect()
}

/// An answer with one more field, of this value: what stands before the value, and the rest from there.
fn with_field(answer: &[u8], value: &str) -> (Vec<u8>, Vec<u8>) {
    let before = [&answer[..answer.len() - 1], b",\"extra\":\""].concat();
    (before, [value.as_bytes(), b"\"}"].concat())
}
