//! The server's decoder of messages: the fast scanner must read what the parser reads.
#![no_main]

use floodline::message::{decode_request, decode_request_text};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let decoded = decode_request(input);
    let Ok(text) = std::str::from_utf8(input) else {
        assert!(decoded.is_err());
        return;
    };
    assert_eq!(decoded, decode_request_text(text));
    // The scanner knows no text that begins with a space, so this one goes to the parser.
    let spaced = format!(" {text}");
    let parsed = decode_request_text(&spaced);
    assert_eq!(decoded.is_ok(), parsed.is_ok(), "{text}");
    if decoded.is_ok() {
        assert_eq!(decoded, parsed, "{text}");
    }
});
