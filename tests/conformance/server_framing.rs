//! Sections 5.1 to 5.3 and 10.4 against the server: masks, the first byte, lengths.

use crate::codes::RESERVED_OPCODES;
use crate::raw::{
    BINARY, CLOSE, FIRST, LAST, Length, MIDDLE, PING, PONG, TEXT, close_payload, head, masked, masked_as,
    plain,
};
use crate::server_frames::Reaction::{self, Close, Echo, Error};
use crate::server_frames::{MAX_MESSAGE_BYTES, Row, echo, fails, row, text};

pub fn rows() -> Vec<Row> {
    [masking(), first_byte(), lengths()].into_iter().flatten().collect()
}

/// 5.1 and 5.3: everything that a client sends is masked.
fn masking() -> Vec<Row> {
    let both =
        [masked_as(TEXT, Length::Seven, [0; 4], b"1"), masked_as(TEXT, Length::Seven, [0xff; 4], b"2")];
    vec![
        fails("5.1", "an unmasked text", plain(TEXT, b"\"x\""), 1002),
        fails("5.1", "an unmasked empty text", plain(TEXT, b""), 1002),
        fails("5.1", "an unmasked ping", plain(PING, b""), 1002),
        fails("5.1", "an unmasked pong", plain(PONG, b""), 1002),
        fails("5.1", "an unmasked close", plain(CLOSE, &close_payload(1000, b"")), 1002),
        row(
            "5.1",
            "unmasked behind masked",
            [text("a"), plain(TEXT, b"1")].concat(),
            vec![echo("a"), Close(1002)],
        ),
        fails(
            "5.1",
            "an unmasked middle fragment",
            [masked(FIRST, b"\"a"), plain(MIDDLE, b"b")].concat(),
            1002,
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
