//! What a message costs in instructions, part by part, under callgrind.
//!
//! The parts of `benches/hot_path.rs`, each over [`MESSAGES`] messages that are there before anything is counted. What a
//! benchmark returns is dropped after that.

#![allow(missing_docs, reason = "gungraun's macros make public modules")]
#![allow(clippy::expect_used, clippy::panic, reason = "what is not as it was planned must not be counted")]

use std::hint::black_box;
use std::time::Duration;

use bytes::BytesMut;
use floodline::dialect::{Answer, Dialect, Floodline, Frame, Identity, RequestKind, Session};
use floodline::ledger::{Lane, Ledger};
use floodline::message::{
    ErrorResponse, Request, SenderTemplate, ThroughputResponse, WallTime, decode_request_text,
    decode_response_text,
};
use floodline::record::{CoarseHistogram, Collector, LatencyHistogram, Recorder, WINDOW_NS};
use floodline::schedule::{Arrival, DueTimes, Schedule, Timeline};
use floodline::units::Rate;
use floodline::websocket::{Event, Masks, Opcode, Reader, Sender, append};
use floodline_gate::MESSAGES;
use gungraun::Callgrind;
use gungraun::prelude::*;

type Client = <Floodline as Dialect>::Session;

/// As in `docs/performance.md`.
const PAYLOAD_BYTES: usize = 64;
/// More than any frame here takes.
const FRAME_BYTES: usize = 512;
/// Messages under way on a connection.
const WINDOW: u64 = 32;
/// So many messages are handled with one look at the clock.
const BATCH: u64 = 16;
/// So many bytes are read from a socket at once.
const READ_BYTES: usize = 16 << 10;
/// So many digits as today's times have.
const NOW_NS: u64 = 1_790_000_000_123_456_789;

fn wall_time(sequence: u64) -> WallTime {
    WallTime::from_unix_ns(NOW_NS + sequence / BATCH * 1_600_000)
}

fn client(kind: RequestKind) -> Client {
    let identity = Identity { client_id: "0123abcd-0-17".to_owned(), connection: 17 };
    Floodline::new(1, PAYLOAD_BYTES, kind, None).session(identity)
}

fn room() -> BytesMut {
    BytesMut::with_capacity(MESSAGES as usize * FRAME_BYTES)
}

/// One text for each sequence.
fn texts(mut encode: impl FnMut(u64, &mut BytesMut)) -> Vec<String> {
    let text = |sequence| {
        let mut out = BytesMut::new();
        encode(sequence, &mut out);
        String::from_utf8(out.to_vec()).expect("JSON is UTF-8")
    };
    (0..MESSAGES).map(text).collect()
}

fn requests(kind: RequestKind) -> Vec<String> {
    let mut client = client(kind);
    texts(|sequence, out| client.encode(sequence, wall_time(sequence), out))
}

/// The answer to a request, as our server writes it.
fn answer(request: &Request<'_>, sequence: u64, out: &mut BytesMut) {
    let Request::ThroughputTest(test) = request else { panic!("{request:?} is answered by another message") };
    let response = ThroughputResponse {
        message_id: test.message_id.as_ref().into(),
        sequence_id: test.sequence_id,
        server_time: wall_time(sequence),
        queue_depth: 0,
        content_crc32: Some(crc32fast::hash(test.content.as_bytes())),
    };
    response.encode(out);
}

fn answers() -> Vec<String> {
    let requests = requests(RequestKind::ThroughputTest);
    texts(|sequence, out| {
        let request = decode_request_text(&requests[sequence as usize]).expect("it is a request");
        answer(&request, sequence, out);
    })
}

/// What the scanner does not know goes through `serde_json`.
fn errors() -> Vec<String> {
    texts(|sequence, out| {
        let message = format!("It does not know message {sequence}").into();
        ErrorResponse { message, timestamp: wall_time(sequence) }.encode(out);
    })
}

#[library_benchmark]
#[bench::throughput_test(client(RequestKind::ThroughputTest), room())]
#[bench::user_message(client(RequestKind::UserMessage), room())]
fn encode_request(mut client: Client, mut out: BytesMut) -> (Client, BytesMut) {
    for sequence in 0..MESSAGES {
        client.encode(sequence, wall_time(sequence), &mut out);
    }
    (client, out)
}

// As a connection of the server reads them: what the requests of one client have in common is compared.
#[library_benchmark]
#[bench::throughput_test(SenderTemplate::default(), requests(RequestKind::ThroughputTest))]
#[bench::user_message(SenderTemplate::default(), requests(RequestKind::UserMessage))]
fn read_request(mut sender: SenderTemplate, requests: Vec<String>) -> (SenderTemplate, Vec<String>) {
    for request in &requests {
        assert!(black_box(sender.decode(request)).is_ok());
    }
    (sender, requests)
}

// By the scanner alone.
#[library_benchmark]
#[bench::throughput_test(requests(RequestKind::ThroughputTest))]
#[bench::user_message(requests(RequestKind::UserMessage))]
fn decode_request(requests: Vec<String>) -> Vec<String> {
    for request in &requests {
        assert!(black_box(decode_request_text(request)).is_ok());
    }
    requests
}

// With the request's decoding and checksum, without which there is nothing to answer.
#[library_benchmark]
#[bench::throughput_test(SenderTemplate::default(), requests(RequestKind::ThroughputTest), room())]
fn answer_request(
    mut sender: SenderTemplate,
    requests: Vec<String>,
    mut out: BytesMut,
) -> (SenderTemplate, Vec<String>, BytesMut) {
    for (sequence, request) in (0..).zip(&requests) {
        let request = sender.decode(request).expect("it is a request");
        answer(&request, sequence, &mut out);
    }
    (sender, requests, out)
}

// As the client reads and checks them.
#[library_benchmark]
#[bench::throughput_test(client(RequestKind::ThroughputTest), answers())]
fn read_answer(mut client: Client, answers: Vec<String>) -> (Client, Vec<String>) {
    for answer in &answers {
        assert!(matches!(client.decode(Frame::Text(answer)), Answer::Processed { intact: true, .. }));
    }
    (client, answers)
}

// By the scanner alone, and by `serde_json`.
#[library_benchmark]
#[bench::throughput_response(answers())]
#[bench::error(errors())]
fn decode_answer(answers: Vec<String>) -> Vec<String> {
    for answer in &answers {
        assert!(black_box(decode_response_text(answer)).is_ok());
    }
    answers
}

library_benchmark_group!(
    name = codec,
    benchmarks = [encode_request, read_request, decode_request, answer_request, read_answer, decode_answer]
);

/// All texts in frames, one behind the other, as `sender` sends them.
fn frames(sender: Sender, texts: &[String]) -> BytesMut {
    let (mut out, mut masks) = (room(), Masks::seeded(1));
    for text in texts {
        let mask = (sender == Sender::Client).then(|| masks.next_key());
        append(&mut out, Opcode::Text, mask, |out| out.extend_from_slice(text.as_bytes()));
    }
    out
}

#[library_benchmark]
#[bench::request(Some(Masks::seeded(1)), requests(RequestKind::ThroughputTest), room())]
#[bench::answer(None, answers(), room())]
fn write(mut masks: Option<Masks>, texts: Vec<String>, mut out: BytesMut) -> (Vec<String>, BytesMut) {
    for text in &texts {
        let mask = masks.as_mut().map(Masks::next_key);
        append(&mut out, Opcode::Text, mask, |out| out.extend_from_slice(text.as_bytes()));
    }
    (texts, out)
}

// In pieces as they come from a socket, so that frames are cut.
#[library_benchmark]
#[bench::request(
    Reader::new(Sender::Client, READ_BYTES),
    frames(Sender::Client, &requests(RequestKind::ThroughputTest))
)]
#[bench::answer(Reader::new(Sender::Server, READ_BYTES), frames(Sender::Server, &answers()))]
fn read(mut reader: Reader, mut bytes: BytesMut) -> (Reader, BytesMut) {
    let mut texts = 0;
    for piece in bytes.chunks_mut(READ_BYTES) {
        let fed = reader.feed(piece, |event| {
            if let Event::Text(text) = event {
                black_box(text);
                texts += 1;
            }
        });
        assert!(fed.is_ok());
    }
    assert_eq!(texts, MESSAGES);
    (reader, bytes)
}

library_benchmark_group!(name = websocket, benchmarks = [write, read]);

/// The order in which a window's answers come.
#[derive(Clone, Copy)]
enum Order {
    Kept,
    Reversed,
}

// Issued, sent and answered once each, with a window between.
#[library_benchmark]
#[bench::in_order(Ledger::default(), Order::Kept)]
#[bench::reversed(Ledger::default(), Order::Reversed)]
fn answered(mut ledger: Ledger, order: Order) -> Ledger {
    for window in 0..MESSAGES / WINDOW {
        for place in 0..WINDOW {
            let now_ns = (window * WINDOW + place) * 300;
            let sequence = ledger.issue(Some(now_ns));
            ledger.sent(sequence, now_ns);
        }
        for place in 0..WINDOW {
            let place = match order {
                Order::Kept => place,
                Order::Reversed => WINDOW - 1 - place,
            };
            black_box(ledger.answered(window * WINDOW + place, Some(Lane::Normal)));
        }
    }
    assert_eq!(ledger.counts().answered, MESSAGES / WINDOW * WINDOW);
    ledger
}

// Every second message is given up, and all their answers come late.
#[library_benchmark]
#[bench::every_second(Ledger::default())]
fn lost(mut ledger: Ledger) -> Ledger {
    for now_ns in (0..MESSAGES).map(|sequence| sequence * 300) {
        let sequence = ledger.issue(Some(now_ns));
        ledger.sent(sequence, now_ns);
        if sequence.is_multiple_of(2) {
            black_box(ledger.answered(sequence, Some(Lane::Normal)));
        } else {
            ledger.expire(now_ns);
        }
    }
    for sequence in (1..MESSAGES).step_by(2) {
        black_box(ledger.answered(sequence, Some(Lane::Normal)));
    }
    assert_eq!((ledger.counts().lost, ledger.counts().late), (MESSAGES / 2, MESSAGES / 2));
    ledger
}

library_benchmark_group!(name = ledger, benchmarks = [answered, lost]);

/// Latencies of a microsecond to two milliseconds, as in `benches/hot_path.rs`.
fn latencies_ns() -> Vec<u64> {
    let next = |value_ns: &u64| Some(value_ns * 5 % 2_000_003 + 1_000);
    std::iter::successors(Some(1), next).take(MESSAGES as usize).collect()
}

#[library_benchmark]
#[bench::latency(LatencyHistogram::default(), CoarseHistogram::default(), latencies_ns())]
fn count(
    mut latency: LatencyHistogram,
    mut coarse: CoarseHistogram,
    values_ns: Vec<u64>,
) -> (LatencyHistogram, CoarseHistogram, Vec<u64>) {
    for &value_ns in &values_ns {
        latency.record(value_ns);
        coarse.record(value_ns);
    }
    (latency, coarse, values_ns)
}

// Two workers, and a second for every hundred of their messages: recorded, handed over, merged and summed up.
#[library_benchmark]
#[bench::of_two_workers(Collector::new(2, 0), latencies_ns())]
fn seconds(
    (mut collector, mut recorders): (Collector, Vec<Recorder>),
    values_ns: Vec<u64>,
) -> (Collector, Vec<Recorder>, Vec<u64>) {
    for (second, values_ns) in (0..).zip(values_ns.chunks(100)) {
        for recorder in &mut recorders {
            let window = recorder.window_at(second * WINDOW_NS);
            for &value_ns in values_ns {
                window.sent += 1;
                window.answered += 1;
                window.latency.record(value_ns);
                window.service_latency.record(value_ns / 2);
            }
        }
        collector.collect(second);
    }
    (collector, recorders, values_ns)
}

library_benchmark_group!(name = recorder, benchmarks = [count, seconds]);

/// 10,000 messages a second over 100 connections.
fn plan(arrival: Arrival, ramp: Duration) -> Schedule {
    let rate = Rate::per_second(10_000.0).expect("it is a rate");
    Schedule { rate, arrival, connections: 100, duration: Duration::from_secs(3_600), ramp, seed: 1 }
}

#[library_benchmark]
#[bench::uniform(plan(Arrival::Uniform, Duration::ZERO).due_times(3))]
#[bench::poisson(plan(Arrival::Poisson, Duration::ZERO).due_times(3))]
#[bench::uniform_ramp(plan(Arrival::Uniform, Duration::from_secs(60)).due_times(3))]
fn due(mut due_times: DueTimes) -> DueTimes {
    for _ in 0..MESSAGES {
        black_box(due_times.next());
    }
    due_times
}

fn timeline(arrival: Arrival) -> Timeline {
    let plan = plan(arrival, Duration::ZERO);
    Timeline::new((0..plan.connections).map(|connection| plan.due_times(connection)).collect())
}

// Every connection in turn, at the instant that it is due.
#[library_benchmark]
#[bench::uniform(timeline(Arrival::Uniform))]
#[bench::poisson(timeline(Arrival::Poisson))]
fn wake(mut timeline: Timeline) -> Timeline {
    for _ in 0..MESSAGES {
        let due_ns = timeline.next_due().expect("an hour is longer");
        timeline.advance(due_ns, |connection| {
            black_box(connection);
        });
    }
    timeline
}

library_benchmark_group!(name = schedule, benchmarks = [due, wake]);

main!(
    // Instructions alone: what caches would do is judged by nobody.
    config = LibraryBenchmarkConfig::default().tool(Callgrind::with_args(["--cache-sim=no"])),
    library_benchmark_groups = [codec, websocket, ledger, recorder, schedule]
);
