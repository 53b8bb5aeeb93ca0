//! The server's handshake: any request, cut anywhere, has one answer. The first byte says how it is cut.
#![no_main]

use floodline::server::fuzzing::shake_hands;
use libfuzzer_sys::fuzz_target;
use tokio::runtime::{Builder, Runtime};

thread_local! {
    static RUNTIME: Runtime = Builder::new_current_thread().enable_time().build().expect("a runtime");
}

fuzz_target!(|input: &[u8]| {
    let Some((&piece, request)) = input.split_first() else { return };
    RUNTIME.with(|runtime| {
        runtime.block_on(async {
            let (answer, is_in) = shake_hands(request, usize::from(piece)).await;
            let text = String::from_utf8(answer).expect("an answer is text");
            assert_eq!(text.starts_with("HTTP/1.1 101 "), is_in);
            assert!(text.is_empty() || text.starts_with("HTTP/1.1 "), "{text}");
            assert!(text.is_empty() || text.contains("\r\n\r\n"), "{text}");
        });
    });
});
