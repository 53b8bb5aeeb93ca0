//! Sections 5.1, 5.2 and 10.4 against the client: masks, the first byte, lengths.

use crate::client_frames::Outcome::{Fails, GoesOn};
use crate::client_frames::{Row, protocol, too_much, with_answer};
use crate::codes::RESERVED_OPCODES;
use crate::raw::{BINARY, CLOSE, FIRST, LAST, Length, PING, PONG, TEXT, close_payload, head, masked, plain};

pub fn rows() -> Vec<Row> {
    [masking(), first_byte(), lengths()].into_iter().flatten().collect()
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
