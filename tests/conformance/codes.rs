//! Values that both directions are tested with.

/// Close codes that a peer may send (sections 7.4.1 and 7.4.2, and IANA's registry of them).
pub const VALID_CODES: [u16; 16] =
    [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999];

/// Close codes that must not be on the wire: out of range, reserved, or for local use only.
pub const INVALID_CODES: [u16; 14] =
    [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 10_000, 65_535];

/// Opcodes that no RFC has given a meaning (section 5.2).
pub const RESERVED_OPCODES: [u8; 10] = [3, 4, 5, 6, 7, 11, 12, 13, 14, 15];

/// Byte sequences that are no UTF-8 (RFC 3629), each with a name.
pub const INVALID_UTF8: [(&str, &[u8]); 16] = [
    ("a lone continuation byte", b"\x80"),
    ("two continuation bytes", b"\xbf\x80"),
    ("a lead byte of two alone", b"\xc3"),
    ("a lead byte of three with one", b"\xe2\x82"),
    ("a lead byte of four with two", b"\xf0\x9d\x84"),
    ("overlong of one in two", b"\xc0\x80"),
    ("overlong of one in two, the highest", b"\xc1\xbf"),
    ("overlong in three", b"\xe0\x80\x80"),
    ("overlong in three, the highest", b"\xe0\x9f\xbf"),
    ("overlong in four", b"\xf0\x8f\xbf\xbf"),
    ("the first surrogate", b"\xed\xa0\x80"),
    ("the last surrogate", b"\xed\xbf\xbf"),
    ("one above U+10FFFF", b"\xf4\x90\x80\x80"),
    ("a lead byte of five", b"\xf8\x88\x80\x80\x80"),
    ("0xfe", b"\xfe"),
    ("0xff", b"\xff"),
];

/// Texts with each of [`INVALID_UTF8`] before, between and behind characters of every length, each with a name.
pub fn invalid_texts() -> impl Iterator<Item = (String, Vec<u8>)> {
    let good = "aé€𝄞z";
    INVALID_UTF8.into_iter().flat_map(move |(name, bytes)| {
        let places = good.char_indices().map(|(at, _)| at).chain([good.len()]);
        places.map(move |at| {
            let (before, behind) = good.as_bytes().split_at(at);
            (format!("{name} at {at}"), [before, bytes, behind].concat())
        })
    })
}

/// Valid UTF-8 at the edges: the first and last character of each length, around the surrogates, non-characters.
pub const VALID_UTF8: [&str; 12] = [
    "\u{7f}",
    "\u{80}",
    "\u{7ff}",
    "\u{800}",
    "\u{d7ff}",
    "\u{e000}",
    "\u{fffd}",
    "\u{fffe}",
    "\u{ffff}",
    "\u{10000}",
    "\u{10ffff}",
    "κόσμε𝄞",
];
