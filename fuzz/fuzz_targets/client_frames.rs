//! The client's frame reader: any bytes of a server, cut anywhere. The first byte says how they are cut.
#![no_main]

use floodline::websocket::Sender;
use floodline::websocket::fuzzing::read;
use libfuzzer_sys::fuzz_target;

/// Small, so that the limit is in reach of a short input.
const MAX_MESSAGE_BYTES: usize = 300;

fuzz_target!(|input: &[u8]| {
    let Some((&piece, bytes)) = input.split_first() else { return };
    let whole = read(Sender::Server, bytes, bytes.len(), MAX_MESSAGE_BYTES);
    let cut = read(Sender::Server, bytes, usize::from(piece), MAX_MESSAGE_BYTES);
    assert_eq!(whole, cut);
    if let Some(code) = whole.violation {
        assert!([1002, 1007, 1009].contains(&code), "{code}");
    }
});
