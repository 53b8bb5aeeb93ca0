//! A peer that does one thing wrong: the ledger says exactly which.

use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use floodline::ledger::Counts;
use floodline::workload::Workload;
use futures::{SinkExt, StreamExt};
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio_tungstenite::accept_async;
use tokio_tungstenite::tungstenite::Message;

use crate::support::{Act, Asked, Peer, Script, frame, offer, open_loop, twenty, within_patience};

/// The message at which a peer misbehaves.
const HIT: u64 = 7;

/// Answers all, and acts otherwise at one message.
fn at_hit(act: fn(&Asked) -> Vec<Act>) -> Script {
    Box::new(move |asked| if asked.sequence == HIT { act(&asked) } else { vec![Act::Text(asked.answer())] })
}

/// Answers all, and adds something at one message.
fn beside(act: fn(&Asked) -> String) -> Script {
    Box::new(move |asked| {
        let mut acts = vec![Act::Text(asked.answer())];
        if asked.sequence == HIT {
            acts.push(Act::Text(act(&asked)));
        }
        acts
    })
}

/// Keeps the answer to one message until that to `until` has gone.
fn held_until(until: u64) -> Script {
    let mut held = None;
    Box::new(move |asked| {
        let answer = Act::Text(asked.answer());
        if asked.sequence == HIT {
            held = Some(answer);
            return Vec::new();
        }
        let late = if asked.sequence == until { held.take() } else { None };
        [answer].into_iter().chain(late).collect()
    })
}

struct Row {
    name: &'static str,
    script: fn() -> Script,
    /// What differs from 20 sent and answered.
    expected: Counts,
    reorder_distance_max: u64,
}

fn row(name: &'static str, script: fn() -> Script, expected: Counts) -> Row {
    Row { name, script, expected, reorder_distance_max: 0 }
}

const ALL: Counts = Counts {
    sent: 20,
    answered: 20,
    refused: 0,
    lost: 0,
    late: 0,
    resent: 0,
    duplicates: 0,
    repeated: 0,
    reordered: 0,
    foreign: 0,
    corrupted: 0,
    unattributed: 0,
};
const FOREIGN: Counts = Counts { foreign: 1, ..ALL };
const UNREADABLE: Counts = Counts { answered: 19, lost: 1, corrupted: 1, ..ALL };
const UNATTRIBUTED: Counts = Counts { unattributed: 1, ..ALL };
const REFUSED: Counts = Counts { answered: 19, refused: 1, ..ALL };

fn backpressure() -> String {
    json!({"type": "backpressure", "message": "slow down", "queue_depth": 9, "max_queue": 9, "timestamp": 1.5})
        .to_string()
}

fn rows() -> Vec<Row> {
    vec![
        row("healthy", || at_hit(|asked| vec![Act::Text(asked.answer())]), ALL),
        row(
            "an id of nobody",
            || beside(|asked| asked.answer_with(json!({"message_id": "nobody-7"}))),
            FOREIGN,
        ),
        row(
            "an id of another connection",
            || beside(|a| a.answer_with(json!({"message_id": format!("{}1-{}", a.client, a.sequence)}))),
            FOREIGN,
        ),
        row(
            "a sequence that is not sent yet",
            || {
                beside(|a| {
                    a.answer_with(json!({"message_id": format!("{}-9999", a.client), "sequence_id": 9999}))
                })
            },
            FOREIGN,
        ),
        row("answers twice", || beside(Asked::answer), Counts { duplicates: 1, ..ALL }),
        Row {
            reorder_distance_max: 1,
            ..row("swaps two neighbours", || held_until(HIT + 1), Counts { reordered: 1, ..ALL })
        },
        Row {
            reorder_distance_max: 5,
            ..row("answers one five places late", || held_until(HIT + 5), Counts { reordered: 1, ..ALL })
        },
        row(
            "a wrong checksum",
            || at_hit(|a| vec![Act::Text(a.answer_with(json!({"content_crc32": a.crc ^ 1})))]),
            Counts { corrupted: 1, ..ALL },
        ),
        row(
            "contradicts itself",
            || at_hit(|a| vec![Act::Text(a.answer_with(json!({"sequence_id": a.sequence + 1})))]),
            UNREADABLE,
        ),
        row("not JSON", || at_hit(|a| vec![Act::Text(a.answer().replace('}', ""))]), UNREADABLE),
        row("a binary frame", || at_hit(|a| vec![Act::Binary(a.answer().into_bytes())]), UNREADABLE),
        row(
            "no message_id",
            || at_hit(|a| vec![Act::Text(a.answer_with(json!({"message_id": null})))]),
            UNREADABLE,
        ),
        row(
            "a sequence_id that is text",
            || at_hit(|a| vec![Act::Text(a.answer_with(json!({"sequence_id": "7"})))]),
            UNREADABLE,
        ),
        row("an empty text", || beside(|_| String::new()), Counts { corrupted: 1, ..ALL }),
        row("2 MB of garbage", || beside(|_| "garbage ".repeat(1 << 18)), Counts { corrupted: 1, ..ALL }),
        row(
            "an error without an id",
            || beside(|_| json!({"type": "error", "message": "oops", "timestamp": 1.5}).to_string()),
            UNATTRIBUTED,
        ),
        row("a type that nobody knows", || beside(|_| json!({"type": "news"}).to_string()), UNATTRIBUTED),
        row("backpressure without a refusal", || beside(|_| backpressure()), UNATTRIBUTED),
        row("a refusal", || at_hit(|asked| vec![Act::Text(asked.queue_full())]), REFUSED),
        row(
            "a refusal with its signal",
            || at_hit(|asked| vec![Act::Text(asked.queue_full()), Act::Text(backpressure())]),
            REFUSED,
        ),
        row(
            "a refusal, then an answer",
            || at_hit(|asked| vec![Act::Text(asked.queue_full()), Act::Text(asked.answer())]),
            Counts { duplicates: 1, ..REFUSED },
        ),
        row("no answer", || at_hit(|_| Vec::new()), Counts { answered: 19, lost: 1, ..ALL }),
        row(
            "an answer in fragments around a ping",
            || {
                at_hit(|asked| {
                    let answer = asked.answer().into_bytes();
                    let frames = [
                        frame(0x01, &answer[..10]),
                        frame(0x89, b"in between"),
                        frame(0x00, &answer[10..11]),
                        frame(0x80, &answer[11..]),
                    ];
                    vec![Act::Raw(frames.concat())]
                })
            },
            ALL,
        ),
        row(
            "an answer in single bytes",
            || {
                at_hit(|asked| {
                    frame(0x81, asked.answer().as_bytes())
                        .into_iter()
                        .map(|byte| Act::Raw(vec![byte]))
                        .collect()
                })
            },
            ALL,
        ),
    ]
}

/// The rows run side by side, so the seconds in which those with a loss wait are spent once.
#[test]
fn every_wrong_answer_is_named_and_counted_once() {
    let tests: Vec<_> = rows()
        .into_iter()
        .map(|row| {
            std::thread::spawn(move || {
                within_patience(move || {
                    let peer = Peer::scripted(row.script);
                    // Long enough that a pause of the machine loses nothing else.
                    let workload = Workload { answer_timeout: Duration::from_secs(3), ..twenty() };
                    let measured = offer(workload, &peer.target());
                    let messages = &measured.messages;
                    assert_eq!((messages.due, messages.unsent), (20, 0), "{}", row.name);
                    assert_eq!(messages.counts, row.expected, "{}", row.name);
                    assert_eq!(messages.reorder_distance_max, row.reorder_distance_max, "{}", row.name);
                    assert_eq!(measured.connections.dropped, 0, "{}", row.name);
                    let missing = messages.missing_ids.first().map(|id| id.ends_with("-0-0-7"));
                    assert_eq!(missing, (row.expected.lost == 1).then_some(true), "{}", row.name);
                });
            })
        })
        .collect();
    tests.into_iter().for_each(|test| test.join().unwrap());
}

#[test]
fn an_answer_after_the_time_out_is_late_and_its_message_stays_lost() {
    within_patience(|| {
        // The answer goes out with that of message 19, 1.5 s after its own message: half a second after the time-out.
        let peer = Peer::scripted(|| held_until(19));
        let workload = Workload { answer_timeout: Duration::from_secs(1), ..open_loop(8.0, 1, 2.5) };
        let counts = offer(workload, &peer.target()).messages.counts;
        assert_eq!(counts, Counts { answered: 19, lost: 1, late: 1, ..ALL });
    });
}

#[test]
fn a_ping_is_answered_with_its_payload() {
    within_patience(|| {
        let pongs = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&pongs);
        let peer = Peer::start(move |stream, _| {
            let seen = Arc::clone(&seen);
            async move {
                let mut ws = accept_async(stream).await.unwrap();
                ws.send(Message::Ping("before the load".into())).await.unwrap();
                while let Some(Ok(message)) = ws.next().await {
                    match message {
                        Message::Text(text) => {
                            let answer = Asked::read_answer(&text);
                            ws.feed(Message::Ping("during the load".into())).await.unwrap();
                            ws.send(Message::text(answer)).await.unwrap();
                        }
                        Message::Pong(payload) => seen.lock().unwrap().push(payload),
                        _ => {}
                    }
                }
            }
        });
        assert_eq!(offer(twenty(), &peer.target()).messages.counts, ALL);
        let pongs = pongs.lock().unwrap();
        assert_eq!(pongs.first().map(|pong| &**pong), Some(b"before the load" as &[u8]));
        assert!(pongs.iter().skip(1).all(|pong| &**pong == b"during the load"), "{pongs:?}");
        // A peer may answer only the last of several pings (RFC 6455, section 5.5.3).
        assert!((2..=21).contains(&pongs.len()), "{}", pongs.len());
    });
}

struct Ending {
    name: &'static str,
    act: fn(&Asked) -> Vec<Act>,
    refused: bool,
    /// What the reason says, in part.
    reason: &'static str,
}

fn ending(name: &'static str, act: fn(&Asked) -> Vec<Act>, reason: &'static str) -> Ending {
    Ending { name, act, refused: false, reason }
}

/// Those that break the protocol are in `conformance/client_frames.rs`.
fn endings() -> Vec<Ending> {
    let lost = "connection lost";
    vec![
        ending("close 1000", |_| vec![Act::Close(1000, "bye")], "1000 bye"),
        ending("close 1001", |_| vec![Act::Close(1001, "")], "1001"),
        ending("close 1011", |_| vec![Act::Close(1011, "broken")], "1011 broken"),
        ending("1013 in the text only", |_| vec![Act::Close(1011, "line 1013")], "1011 line 1013"),
        Ending { refused: true, ..ending("close 1013", |_| vec![Act::Close(1013, "full")], "1013 full") },
        ending("close without a code", |_| vec![Act::Raw(frame(0x88, b""))], "without a code"),
        ending("FIN", |_| vec![Act::Cut], lost),
        ending("half-close", |_| vec![Act::HalfClose], lost),
        ending("RST", |_| vec![Act::Reset], lost),
        ending("FIN in mid-frame", |_| vec![Act::Raw(vec![0x81, 100, b'{']), Act::Cut], lost),
    ]
}

#[test]
fn every_end_of_a_connection_is_named_and_leaves_nothing_uncounted() {
    let tests: Vec<_> = endings()
        .into_iter()
        .map(|ending| std::thread::spawn(move || within_patience(move || assert_ends(&ending))))
        .collect();
    tests.into_iter().for_each(|test| test.join().unwrap());
}

fn assert_ends(ending: &Ending) {
    let (name, act) = (ending.name, ending.act);
    let peer = Peer::scripted(move || at_hit(act));
    let measured = offer(twenty(), &peer.target());
    let (messages, connections) = (&measured.messages, &measured.connections);
    assert_eq!((messages.due, messages.counts.answered), (20, HIT), "{name}");
    // How many more left before the end came is a race that no test can decide.
    assert!(messages.counts.lost >= 1, "{name}: {messages:?}");
    assert_eq!(messages.counts.corrupted, 0, "{name}");
    let (refused, dropped) = (u64::from(ending.refused), u64::from(!ending.refused));
    assert_eq!((connections.refused, connections.dropped), (refused, dropped), "{name}");
    let reasons: Vec<_> = connections.reasons.iter().collect();
    assert!(
        matches!(&*reasons, [(reason, 1)] if reason.contains(ending.reason)),
        "{name}: {reasons:?}, not {}",
        ending.reason
    );
}

#[test]
fn a_connection_that_ends_before_the_load_sends_nothing_of_its_share() {
    within_patience(|| {
        // Every second connection is closed in the same write as the handshake's answer.
        let peer = Peer::start(|stream, place| async move {
            if place % 2 == 0 {
                return crate::support::converse(stream, at_hit(|a| vec![Act::Text(a.answer())])).await;
            }
            let mut ws = accept_async(stream).await.unwrap();
            ws.get_mut().write_all(&frame(0x88, &1013_u16.to_be_bytes())).await.unwrap();
            while let Some(Ok(_)) = ws.next().await {}
        });
        let measured = offer(open_loop(400.0, 10, 0.5), &peer.target());
        let connections = &measured.connections;
        assert_eq!((connections.requested, connections.established), (10, 5));
        assert_eq!((connections.refused, connections.dropped), (5, 0));
        let shares = measured.per_connection.iter().map(|connection| connection.due);
        assert_eq!(shares.collect::<Vec<_>>(), [20; 10]);
        assert_eq!((measured.messages.due, measured.messages.counts.answered), (200, 100));
    });
}

#[test]
fn a_close_frame_is_answered_with_one() {
    within_patience(|| {
        let (sender, reply) = mpsc::channel();
        let peer = Peer::start(move |stream, _| {
            let sender = sender.clone();
            async move {
                let mut ws = accept_async(stream).await.unwrap();
                let first = ws.next().await;
                assert!(matches!(first, Some(Ok(Message::Text(_)))), "{first:?}");
                ws.close(None).await.unwrap();
                let mut replied = false;
                while let Some(Ok(message)) = ws.next().await {
                    replied |= message.is_close();
                }
                sender.send(replied).unwrap();
            }
        });
        let measured = offer(twenty(), &peer.target());
        assert_eq!(measured.connections.dropped, 1);
        assert!(reply.recv().unwrap());
    });
}
