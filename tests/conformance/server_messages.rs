//! Sections 5.4 and 8.1 against the server: fragments, and texts in them.

use crate::codes::{VALID_UTF8, invalid_texts};
use crate::raw::{BINARY, CLOSE, FIRST, LAST, MIDDLE, PING, PONG, TEXT, byte_by_byte, close_payload, masked};
use crate::server_frames::Reaction::{Close, Error, Pong};
use crate::server_frames::{Row, echo, fails, row, text};

pub fn rows() -> Vec<Row> {
    [fragments(), utf8()].into_iter().flatten().collect()
}

/// 5.4: fragments.
fn fragments() -> Vec<Row> {
    let hello =
        |frames: &[Vec<u8>]| [&[masked(FIRST, b"\"hel")], frames, &[masked(LAST, b"lo\"")]].concat().concat();
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
        row("5.4", "a byte a fragment", byte_by_byte(masked, b"\"hello\""), whole()),
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
    let invalid = invalid_texts().flat_map(|(name, payload)| {
        let whole = fails("8.1", name.clone(), masked(TEXT, &payload), 1007);
        let singles = byte_by_byte(masked, &payload);
        let singles = fails("8.1", format!("{name}, a byte a fragment"), singles, 1007);
        let cuts = (0..=payload.len()).map(move |at| {
            let (first, last) = payload.split_at(at);
            let frames = [masked(FIRST, first), masked(LAST, last)].concat();
            fails("8.1", format!("{name}, cut at {at}"), frames, 1007)
        });
        [whole, singles].into_iter().chain(cuts)
    });
    // The rest of the message need not come.
    let early = fails("8.1", "an invalid byte in a first fragment", masked(FIRST, b"\"\xff"), 1007);
    valid.chain(invalid).chain([early]).collect()
}
