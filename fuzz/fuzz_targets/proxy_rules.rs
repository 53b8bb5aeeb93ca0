//! The proxy's rules: any text, then what a rule that was read does to a flow of bytes.
#![no_main]

use floodline::fault::effect::Effects;
use floodline::fault::{Flow, Rule};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    // Behind a line break stand the flow's bytes.
    let at = input.iter().position(|&byte| byte == b'\n').unwrap_or(input.len());
    let (text, bytes) = input.split_at(at);
    let Ok(text) = std::str::from_utf8(text) else { return };
    let Ok(rule) = text.parse::<Rule>() else { return };
    let written = rule.to_string();
    assert_eq!(
        written.parse::<Rule>().expect("what was written can be read"),
        rule,
        "{text:?} is {written:?}"
    );
    for connection in [0, 1, 7, u64::MAX] {
        let mut after = None;
        for _ in 0..3 {
            let Some(verdict) = rule.verdict(connection, 1_000_000_000, after) else { break };
            assert!(after.is_none_or(|after| verdict.occurrence > after), "{written}");
            assert!(verdict.ends_ns.is_none_or(|ends_ns| ends_ns >= verdict.begins_ns), "{written}");
            after = Some(verdict.occurrence);
            for flow in [Flow::ToServer, Flow::ToClient] {
                pass(&rule, flow, verdict.seed, bytes);
            }
        }
    }
});

/// Whatever the fault, no byte is invented.
fn pass(rule: &Rule, flow: Flow, seed: u64, bytes: &[u8]) {
    let mut effects = Effects::default();
    effects.begin(1, rule.fault(), flow, seed, 0);
    for (turn, chunk) in bytes.chunks(7).enumerate() {
        let now_ns = turn as u64 * 1_000_000_000;
        let Ok(allowed) = effects.may_read(chunk.len(), now_ns) else { continue };
        assert!(allowed <= chunk.len());
        let mut chunk = chunk[..allowed].to_vec();
        let fate = effects.read(&mut chunk, now_ns);
        assert!(fate.kept_bytes <= chunk.len());
        if let Ok(allowed) = effects.may_write(fate.kept_bytes, now_ns) {
            assert!(allowed <= fate.kept_bytes);
            effects.wrote(allowed);
        }
    }
    effects.end(1);
    assert!(effects.is_clear());
}
