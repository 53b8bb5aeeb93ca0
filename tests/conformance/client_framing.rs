//! Sections 5.1, 5.2 and 10.4 against the client: masks, the first byte, lengths.

use crate::client_frames::Outcome::{Closes, Fails, GoesOn};
use crate::client_frames::{Row, counted, instead, protocol, stray, with_answer};
use crate::codes::RESERVED_OPCODES;
use crate::raw::{
    BINARY, CLOSE, FIRST, LAST, Length, MIDDLE, PING, PONG, TEXT, close_payload, head, masked, masked_as,
    plain,
};

/// The largest answer that the client reads.
const MAX_ANSWER_BYTES: usize = 16 << 20;

/// What it says of a larger one.
const TOO_MUCH: &str = "the server sent too much";

pub fn rows() -> Vec<Row> {
    [masking(), first_byte(), lengths()].into_iter().flatten().collect()
}

/// 5.1: nothing that a server sends is masked.
fn masking() -> Vec<Row> {
    let bad = |name, sent| instead("5.1", name, sent, Fails("a masked frame", 1002));
    let with =
        |name, sent: fn(&[u8]) -> Vec<u8>| with_answer("5.1", name, sent, Fails("a masked frame", 1002));
    vec![
        bad("a masked text", masked(TEXT, b"x")),
        bad("a masked empty text", masked(TEXT, b"")),
        bad("a mask of zeros", masked_as(TEXT, Length::Seven, [0; 4], b"x")),
        bad("a masked binary", masked(BINARY, b"x")),
        bad("a masked ping", masked(PING, b"p")),
        bad("a masked pong", masked(PONG, b"p")),
        bad("a masked close", masked(CLOSE, &close_payload(1000, b""))),
        bad("a masked first fragment", masked(FIRST, b"x")),
        bad("a masked middle fragment", [plain(FIRST, b"x"), masked(MIDDLE, b"x")].concat()),
        bad("a masked last fragment", [plain(FIRST, b"x"), masked(LAST, b"x")].concat()),
        bad("a masked empty last fragment", [plain(FIRST, b"x"), masked(LAST, b"")].concat()),
        with("a masked answer", |answer| masked(TEXT, answer)),
        with("an answer whose last fragment is masked", |answer| {
            let (first, last) = answer.split_at(10);
            [plain(FIRST, first), masked(LAST, last)].concat()
        }),
        counted(with("masked behind unmasked", |answer| [plain(TEXT, answer), masked(TEXT, b"x")].concat())),
    ]
}

/// 5.2: the first byte.
fn first_byte() -> Vec<Row> {
    let bits = [(1, 0x40_u8), (2, 0x20), (3, 0x10)].into_iter().flat_map(|(n, bit)| {
        [TEXT, BINARY, PING, PONG, CLOSE, FIRST]
            .map(|first| protocol("5.2", format!("RSV{n} on {first:#04x}"), plain(first | bit, b"")))
    });
    let opcodes = RESERVED_OPCODES.into_iter().flat_map(|opcode| {
        [("", 0x80_u8), (", not final", 0)].map(|(not_final, fin)| {
            let sent = plain(fin | opcode, b"x");
            instead("5.2", format!("opcode {opcode}{not_final}"), sent, Fails("has no meaning", 1002))
        })
    });
    let inside = [plain(FIRST, b"a"), plain(LAST | 0x40, b"b")].concat();
    // What came behind is no text that is counted.
    let between = |answer: &[u8]| [plain(TEXT, answer), plain(0x83, b"x"), plain(TEXT, b"x")].concat();
    bits.chain(opcodes)
        .chain([
            instead("5.2", "all reserved bits", plain(TEXT | 0x70, b"x"), Fails("a reserved bit", 1002)),
            protocol("5.2", "RSV1 on a continuation", inside),
            counted(with_answer(
                "5.2",
                "what came before counts, what came behind does not",
                between,
                Fails("opcode 3", 1002),
            )),
        ])
        .collect()
}

/// 5.2 and 10.4: lengths, their forms and their limit.
fn lengths() -> Vec<Row> {
    let texts = [0, 1, 2, 124, 125, 126, 127, 65_534, 65_535, 65_536]
        .map(|bytes| stray("5.2", format!("a text of {bytes} bytes"), bytes, |text| plain(TEXT, text)));
    let sound = [300, 65_535, 65_536, 1 << 20].map(|bytes| {
        let sent = move |answer: &[u8]| plain(TEXT, &padded(answer, bytes));
        with_answer("5.2", format!("an answer of {bytes} bytes"), sent, GoesOn)
    });
    let longer = [
        (Length::Sixteen, 0),
        (Length::Sixteen, 2),
        (Length::Sixteen, 125),
        (Length::SixtyFour, 2),
        (Length::SixtyFour, 126),
    ]
    .map(|(length, bytes)| {
        let frame = [head(TEXT, false, length, bytes), vec![b'x'; bytes as usize]].concat();
        instead("5.2", format!("{length:?} bits for {bytes} bytes"), frame, Fails("shortest form", 1002))
    });
    let longer_answers = [300, 65_535].map(|bytes| {
        let sent = move |answer: &[u8]| {
            let payload = padded(answer, bytes);
            [head(TEXT, false, Length::SixtyFour, payload.len() as u64), payload].concat()
        };
        let name = format!("SixtyFour bits for an answer of {bytes} bytes");
        with_answer("5.2", name, sent, Fails("shortest form", 1002))
    });
    let announced = |bytes| head(TEXT, false, Length::SixtyFour, bytes);
    let too_much = |name, bytes| instead("10.4", name, announced(bytes), Fails(TOO_MUCH, 1009));
    texts
        .into_iter()
        .chain(sound)
        .chain(longer)
        .chain(longer_answers)
        .chain([
            too_much("one byte over the limit", MAX_ANSWER_BYTES as u64 + 1),
            too_much("4 GiB", 1 << 32),
            too_much("all but the top bit", i64::MAX as u64),
            protocol("5.2", "the top bit", announced(1 << 63)),
            protocol("5.2", "all bits", announced(u64::MAX)),
        ])
        .chain(limit())
        .collect()
}

/// 10.4: messages at the limit. Behind those that fit there is a close: how long the client takes over them is not what
/// is looked at, so no other message is to wait for that.
fn limit() -> Vec<Row> {
    let fits = |name, sent: fn(&[u8]) -> Vec<u8>| {
        let sent = move |answer: &[u8]| {
            [sent(&padded(answer, MAX_ANSWER_BYTES)), plain(CLOSE, b"\x03\xe8")].concat()
        };
        counted(with_answer("10.4", name, sent, Closes("closed by the server: 1000".into(), Some(1000))))
    };
    let over = |name, sent: fn(&[u8]) -> Vec<u8>| {
        let sent = move |answer: &[u8]| sent(&padded(answer, MAX_ANSWER_BYTES));
        with_answer("10.4", name, sent, Fails(TOO_MUCH, 1009))
    };
    vec![
        fits("an answer that just fits", |answer| plain(TEXT, answer)),
        fits("fragments that just fit", |answer| {
            let (first, last) = answer.split_at(999);
            [plain(FIRST, first), plain(LAST, last)].concat()
        }),
        fits("empty fragments at the limit", |answer| {
            let (first, middle) = answer.split_at(MAX_ANSWER_BYTES / 2);
            [plain(FIRST, first), plain(MIDDLE, middle), plain(MIDDLE, b""), plain(LAST, b"")].concat()
        }),
        over("fragments of one byte more", |answer| {
            let (first, last) = answer.split_at(MAX_ANSWER_BYTES / 2);
            [plain(FIRST, first), plain(LAST, &[last, b" "].concat())].concat()
        }),
        over("fragments over the limit before the last", |answer| {
            let (first, middle) = answer.split_at(MAX_ANSWER_BYTES / 2);
            [plain(FIRST, first), plain(MIDDLE, middle), plain(MIDDLE, b" ")].concat()
        }),
    ]
}

/// An answer with so much white space behind it that it has so many bytes, where it has not more.
fn padded(answer: &[u8], bytes: usize) -> Vec<u8> {
    let mut payload = answer.to_vec();
    payload.resize(bytes.max(answer.len()), b' ');
    payload
}
