//! What a message costs on its way, part by part, without the system.
//!
//! `cargo bench --bench hot_path`. `docs/performance.md` adds the parts up, beside what the whole takes
//! (`benches/capacity/`).

#![allow(missing_docs, reason = "Criterion's macros make public functions")]

use std::hint::black_box;
use std::time::Duration;

use bytes::BytesMut;
use criterion::{Criterion, criterion_group, criterion_main};
use floodline::dialect::{Dialect, Floodline, Frame, Identity, RequestKind, Session};
use floodline::ledger::{Lane, Ledger};
use floodline::message::{
    ErrorResponse, Request, ThroughputResponse, WallTime, decode_request_text, decode_response_text,
};
use floodline::record::{CoarseHistogram, LatencyHistogram};
use floodline::schedule::{Arrival, Schedule};
use floodline::units::Rate;
use floodline::websocket::{Event, Masks, Opcode, Reader, Sender, append};

/// As in `docs/performance.md`.
const PAYLOAD_BYTES: usize = 64;
/// Messages under way on a connection.
const WINDOW: u64 = 32;
/// So many digits as today's times have.
const NOW_NS: u64 = 1_790_000_000_123_456_789;

fn session() -> impl Session {
    let identity = Identity { client_id: "0123abcd-0-17".to_owned(), connection: 17 };
    Floodline::new(1, PAYLOAD_BYTES, RequestKind::ThroughputTest, None).session(identity)
}

fn request() -> String {
    let mut out = BytesMut::new();
    session().encode(123_456, WallTime::from_unix_ns(NOW_NS), &mut out);
    String::from_utf8(out.to_vec()).unwrap_or_default()
}

/// What the server answers to it.
fn answer() -> String {
    let request = request();
    let Ok(Request::ThroughputTest(test)) = decode_request_text(&request) else { return String::new() };
    let mut out = BytesMut::new();
    ThroughputResponse {
        message_id: test.message_id,
        sequence_id: test.sequence_id,
        server_time: WallTime::from_unix_ns(NOW_NS),
        queue_depth: 0,
        content_crc32: Some(crc32fast::hash(test.content.as_bytes())),
    }
    .encode(&mut out);
    String::from_utf8(out.to_vec()).unwrap_or_default()
}

fn message(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("message");
    let (request, answer, now) = (request(), answer(), WallTime::from_unix_ns(NOW_NS));
    let mut out = BytesMut::with_capacity(1 << 10);
    let (mut session, mut sequence) = (session(), 123_456);
    group.bench_function("encode_request", |bencher| {
        bencher.iter(|| {
            out.clear();
            sequence += 1;
            session.encode(sequence, now, &mut out);
            out.len()
        });
    });
    group.bench_function("decode_request", |bencher| {
        bencher.iter(|| decode_request_text(black_box(&request)).is_ok());
    });
    let Ok(Request::ThroughputTest(test)) = decode_request_text(&request) else { return };
    group.bench_function("encode_answer", |bencher| {
        bencher.iter(|| {
            out.clear();
            let response = ThroughputResponse {
                message_id: test.message_id.as_ref().into(),
                sequence_id: test.sequence_id,
                server_time: now,
                queue_depth: 0,
                content_crc32: Some(crc32fast::hash(black_box(&test.content).as_bytes())),
            };
            response.encode(&mut out);
            out.len()
        });
    });
    group.bench_function("decode_answer", |bencher| {
        bencher.iter(|| decode_response_text(black_box(&answer)).is_ok());
    });
    group.bench_function("decode_answer_and_check", |bencher| {
        bencher.iter(|| session.decode(Frame::Text(black_box(&answer))));
    });
    // What the scanner does not know goes through serde_json.
    let mut other = BytesMut::new();
    ErrorResponse { message: "It does not know this".into(), timestamp: now }.encode(&mut other);
    let other = String::from_utf8(other.to_vec()).unwrap_or_default();
    group.bench_function("decode_by_serde_json", |bencher| {
        bencher.iter(|| decode_response_text(black_box(&other)).is_ok());
    });
    group.finish();
}

fn frame(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("frame");
    let (request, answer) = (request(), answer());
    let (mut out, mut masks) = (BytesMut::with_capacity(1 << 10), Masks::seeded(1));
    group.bench_function("write_request", |bencher| {
        bencher.iter(|| {
            out.clear();
            let payload = black_box(&request).as_bytes();
            append(&mut out, Opcode::Text, Some(masks.next_key()), |out| out.extend_from_slice(payload));
            out.len()
        });
    });
    for (name, sender, text) in
        [("read_request", Sender::Client, &request), ("read_answer", Sender::Server, &answer)]
    {
        let mut bytes = BytesMut::new();
        // A mask of zeros is one like any other, and leaves the frame to be read again as it is.
        let mask = (sender == Sender::Client).then_some([0; 4]);
        append(&mut bytes, Opcode::Text, mask, |out| out.extend_from_slice(text.as_bytes()));
        let mut reader = Reader::new(sender, 1 << 20);
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let mut text_bytes = 0;
                let fed = reader.feed(black_box(&mut bytes), |event| {
                    if let Event::Text(text) = event {
                        text_bytes += text.len();
                    }
                });
                (fed.is_ok(), text_bytes)
            });
        });
    }
    group.finish();
}

fn account(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("account");
    let mut ledger = Ledger::default();
    let mut now_ns = 1_000;
    group.bench_function("ledger", |bencher| {
        // Issued, sent and answered once each, with a window between.
        bencher.iter(|| {
            now_ns += 300;
            let sequence = ledger.issue(Some(now_ns));
            ledger.sent(sequence, now_ns);
            sequence.checked_sub(WINDOW).map(|answered| ledger.answered(answered, Some(Lane::Normal)))
        });
    });
    let (mut latency, mut coarse, mut value_ns) =
        (LatencyHistogram::default(), CoarseHistogram::default(), 1);
    group.bench_function("record", |bencher| {
        // Latencies of a microsecond to two milliseconds.
        bencher.iter(|| {
            value_ns = value_ns * 5 % 2_000_003 + 1_000;
            latency.record(value_ns);
            coarse.record(value_ns);
        });
    });
    let schedule = Rate::per_second(10_000.0).map(|rate| Schedule {
        rate,
        arrival: Arrival::Uniform,
        connections: 100,
        duration: Duration::from_secs(3_600 * 24 * 365),
        ramp: Duration::ZERO,
        seed: 1,
    });
    if let Ok(schedule) = schedule {
        let mut due_times = schedule.due_times(3);
        group.bench_function("schedule", |bencher| bencher.iter(|| due_times.next()));
    }
    group.finish();
}

criterion_group! {
    name = hot_path;
    // Nanoseconds repeat well: less than a second each.
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(500))
        .sample_size(20)
        .without_plots();
    targets = message, frame, account
}
criterion_main!(hot_path);
