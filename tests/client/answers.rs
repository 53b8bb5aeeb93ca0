//! A server that answers as no server should, in three dialects: each time it is handled and counted as documented. What
//! breaks the framing itself is in `conformance/client_frames.rs` in every detail.

use std::time::Duration;

use floodline::client::{HighVolumeThroughputClient, LoadMeasurement, Stop, TcpConnect};
use floodline::config::{DialectConfig, JsonConfig};
use floodline::dialect::{DialectKind, DialectSettings};
use floodline::ledger::Counts;
use floodline::result::UnmatchedKind;
use floodline::workload::{Target, Workload};
use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio_tungstenite::accept_async;
use tokio_tungstenite::tungstenite::Message;

use crate::support::{Asked, Peer, assert_accounted, frame, twenty, within_patience};

/// The message at which a server misbehaves.
const HIT: u64 = 7;

/// How a dialect is spoken, by a server that knows nothing of our code.
#[derive(Clone, Copy)]
struct Tongue {
    kind: DialectKind,
    sequence: fn(&str) -> u64,
    answer: fn(&str) -> String,
    /// The same answer with its id replaced, of the form `client-n`.
    renamed: fn(&str, &str) -> String,
    /// Something that nobody asked for.
    push: &'static str,
    /// What that counts as; none where the settings say that it is none of our business.
    pushed: Option<UnmatchedKind>,
}

const TONGUES: [Tongue; 3] = [
    Tongue {
        kind: DialectKind::Floodline,
        sequence: |request| parse(request)["sequence_id"].as_u64().unwrap(),
        answer: Asked::read_answer,
        renamed: |request, id| {
            let mut answer = parse(&Asked::read_answer(request));
            answer["message_id"] = id.into();
            answer["sequence_id"] = number(id).into();
            answer.to_string()
        },
        push: r#"{"type":"news"}"#,
        pushed: Some(UnmatchedKind::Unattributed),
    },
    Tongue {
        kind: DialectKind::Echo,
        sequence: |request| number(request.split_once(' ').unwrap().0),
        answer: str::to_owned,
        renamed: |request, id| format!("{id} {}", request.split_once(' ').unwrap().1),
        push: "welcome",
        pushed: Some(UnmatchedKind::Corrupted),
    },
    Tongue {
        kind: DialectKind::Json,
        sequence: |request| number(parse(request)["ask"].as_str().unwrap()),
        answer: |request| json!({"reply": parse(request)["ask"], "text": parse(request)["text"]}).to_string(),
        renamed: |request, id| json!({"reply": id, "text": parse(request)["text"]}).to_string(),
        push: r#"{"push":{"price":1}}"#,
        pushed: None,
    },
];

fn parse(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

fn number(id: &str) -> u64 {
    id.rsplit_once('-').unwrap().1.parse().unwrap()
}

/// The server's turn: the request that it answers, and the answer that it holds back.
struct Turn<'a> {
    tongue: Tongue,
    request: &'a str,
    held: &'a mut Option<String>,
}

impl Turn<'_> {
    fn answer(&self) -> String {
        (self.tongue.answer)(self.request)
    }

    fn renamed(&self, id: &str) -> String {
        (self.tongue.renamed)(self.request, id)
    }

    /// The id of the request with another sequence.
    fn id_with(&self, sequence: u64) -> String {
        let sequence_of_request = (self.tongue.sequence)(self.request);
        let id = |text: &str| {
            text.split(['"', ' '])
                .find(|word| word.ends_with(&format!("-{sequence_of_request}")))
                .map(str::to_owned)
        };
        let id = id(self.request).unwrap();
        format!("{}-{sequence}", id.rsplit_once('-').unwrap().0)
    }
}

fn text(text: &str) -> Vec<u8> {
    frame(0x81, text.as_bytes())
}

enum Expected {
    /// What differs from twenty answered, and as what the first unmatched message is kept.
    Counts(Counts, Option<UnmatchedKind>),
    /// A push is counted as the dialect has it.
    Pushed,
    /// The connection is lost for a reason with these words, with so many counted as corrupted.
    Lost(&'static str, u64),
}
use Expected::{Lost, Pushed};

struct Row {
    name: &'static str,
    /// What goes over the wire in place of the right answer, and whether the connection goes on.
    sent: Sent,
    expected: Expected,
}

type Sent = fn(&mut Turn<'_>) -> (Vec<u8>, bool);

fn row(name: &'static str, sent: Sent, expected: Expected) -> Row {
    Row { name, sent, expected }
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

fn rows() -> [Row; 13] {
    use UnmatchedKind::{Corrupted, Foreign};
    let counts = |counts, kind| Expected::Counts(counts, kind);
    [
        row(
            "out of order",
            |turn| {
                *turn.held = Some(turn.answer());
                (Vec::new(), true)
            },
            counts(Counts { reordered: 1, ..ALL }, None),
        ),
        row(
            "twice",
            |turn| (text(&turn.answer()).repeat(2), true),
            counts(Counts { duplicates: 1, ..ALL }, None),
        ),
        row(
            "with a push in between",
            |turn| ([text(turn.tongue.push), text(&turn.answer())].concat(), true),
            Pushed,
        ),
        row(
            "with an unknown id",
            |turn| ([text(&turn.renamed("nobody-0-0-7")), text(&turn.answer())].concat(), true),
            counts(Counts { foreign: 1, ..ALL }, Some(Foreign)),
        ),
        row(
            "with an id that was never sent",
            |turn| ([text(&turn.renamed(&turn.id_with(9_999))), text(&turn.answer())].concat(), true),
            counts(Counts { foreign: 1, ..ALL }, Some(Foreign)),
        ),
        row(
            "with what is no answer at all",
            |turn| ([text("\u{7f}?"), text(&turn.answer())].concat(), true),
            counts(Counts { corrupted: 1, ..ALL }, Some(Corrupted)),
        ),
        row(
            "in a fragmented message, a ping in it",
            |turn| {
                let answer = turn.answer().into_bytes();
                let frames = [frame(0x01, &answer[..3]), frame(0x89, b"?"), frame(0x80, &answer[3..])];
                (frames.concat(), true)
            },
            counts(ALL, None),
        ),
        row(
            "compressed",
            |turn| (frame(0xc1, turn.answer().as_bytes()), true),
            Lost("the server broke the protocol", 1),
        ),
        row(
            "masked",
            |turn| {
                let answer = turn.answer();
                let mut bytes = frame(0x81, answer.as_bytes());
                bytes[1] |= 0x80;
                let head = bytes.len() - answer.len();
                bytes.splice(head..head, [0; 4]);
                (bytes, true)
            },
            Lost("the server broke the protocol", 1),
        ),
        row(
            "with 10 MB",
            |turn| ([text(&"x".repeat(10_000_000)), text(&turn.answer())].concat(), true),
            counts(Counts { corrupted: 1, ..ALL }, Some(Corrupted)),
        ),
        row("with 17 MiB", |_| (text(&"x".repeat(17 << 20)), true), Lost("the server sent too much", 1)),
        row(
            "with invalid UTF-8",
            |_| (frame(0x81, b"\xffnot text"), true),
            Lost("text that is not UTF-8", 1),
        ),
        row("closing in mid-frame", |_| (vec![0x81, 100, b'{'], false), Lost("connection lost", 0)),
    ]
}

fn settings() -> DialectSettings {
    let json = JsonConfig {
        request: r#"{"ask":"{id}","text":"{payload}"}"#.to_owned(),
        id: "/reply".to_owned(),
        content: "/text".to_owned(),
        ignore: vec!["/push".to_owned()],
        ..JsonConfig::default()
    };
    DialectSettings::new(DialectConfig { json, ..DialectConfig::default() }, |_| None).unwrap()
}

fn offer(kind: DialectKind, settings: &DialectSettings, target: Target) -> LoadMeasurement {
    // Long enough that a pause of the machine loses nothing else.
    let workload = Workload { answer_timeout: Duration::from_secs(3), ..twenty() }.validated().unwrap();
    let dialect = settings.dialect(kind, workload.seed, workload.payload_bytes).unwrap();
    let connect = TcpConnect::new(target, None).unwrap();
    let measured =
        HighVolumeThroughputClient::new(workload, connect, dialect).run(&Stop::default(), &mut ()).unwrap();
    assert_accounted(&measured);
    measured
}

/// Serves one connection: all is answered well, but for the message at which it is not.
async fn serve(stream: tokio::net::TcpStream, tongue: Tongue, sent: Sent) {
    stream.set_nodelay(true).unwrap();
    let Ok(mut ws) = accept_async(stream).await else { return };
    let mut held = None;
    while let Some(Ok(message)) = ws.next().await {
        let Message::Text(request) = message else { continue };
        if (tongue.sequence)(&request) == HIT {
            let (bytes, goes_on) = sent(&mut Turn { tongue, request: &request, held: &mut held });
            // Where the client has gone, so be it: what it counted is what the test looks at.
            let _ = ws.get_mut().write_all(&bytes).await;
            if !goes_on {
                return;
            }
            continue;
        }
        let _ = ws.send(Message::text((tongue.answer)(&request))).await;
        if let Some(late) = held.take() {
            let _ = ws.send(Message::text(late)).await;
        }
    }
}

fn assert_handled(row: &Row, tongue: Tongue) {
    let sent = row.sent;
    let peer = Peer::start(move |stream, _| serve(stream, tongue, sent));
    let measured = offer(tongue.kind, &settings(), peer.target());
    let place = format!("{}, {}", tongue.kind, row.name);
    let (messages, connections) = (&measured.messages, &measured.connections);
    let kept: Vec<UnmatchedKind> = measured.unmatched.iter().map(|unmatched| unmatched.kind).collect();
    let (counts, kind) = match row.expected {
        Expected::Counts(counts, kind) => (counts, kind),
        Pushed => match tongue.pushed {
            Some(UnmatchedKind::Corrupted) => (Counts { corrupted: 1, ..ALL }, tongue.pushed),
            Some(_) => (Counts { unattributed: 1, ..ALL }, tongue.pushed),
            None => (ALL, None),
        },
        Lost(reason, corrupted) => {
            assert_eq!((messages.due, messages.counts.answered), (20, HIT), "{place}");
            assert!(messages.counts.lost >= 1, "{place}: {messages:?}");
            assert_eq!((messages.counts.corrupted, connections.dropped), (corrupted, 1), "{place}");
            assert!(connections.reasons.keys().any(|why| why.contains(reason)), "{place}: {connections:?}");
            return;
        }
    };
    assert_eq!(messages.counts, counts, "{place}");
    assert_eq!((connections.dropped, messages.unsent), (0, 0), "{place}");
    assert_eq!(kept, kind.into_iter().collect::<Vec<_>>(), "{place}");
    // Verbatim, and bounded.
    assert!(measured.unmatched.iter().all(|unmatched| unmatched.text.len() < 250), "{place}");
    if matches!(row.expected, Pushed) && kind.is_some() {
        assert_eq!(measured.unmatched[0].text, tongue.push, "{place}");
    }
}

/// The tongues take turns, so that no row waits for a machine that is busy with thirty others.
#[test]
fn every_answer_is_handled_as_documented_in_every_dialect() {
    for tongue in TONGUES {
        let tests: Vec<_> = rows()
            .into_iter()
            .map(|row| std::thread::spawn(move || within_patience(move || assert_handled(&row, tongue))))
            .collect();
        tests.into_iter().for_each(|test| test.join().unwrap());
    }
}

#[test]
fn only_the_first_ten_that_match_nothing_are_kept() {
    within_patience(|| {
        let peer = Peer::start(|stream, _| async move {
            let mut ws = accept_async(stream).await.unwrap();
            while let Some(Ok(Message::Text(request))) = ws.next().await {
                let n = number(request.split_once(' ').unwrap().0);
                let _ = ws.feed(Message::text(format!("push {n} {}", "é".repeat(200)))).await;
                let _ = ws.send(Message::text(request)).await;
            }
        });
        let measured = offer(DialectKind::Echo, &settings(), peer.target());
        assert_eq!(measured.messages.counts, Counts { corrupted: 20, ..ALL });
        assert_eq!(measured.unmatched.len(), 10);
        for (n, unmatched) in measured.unmatched.iter().enumerate() {
            let text = &unmatched.text;
            assert!(text.starts_with(&format!("push {n} é")) && text.ends_with("… (407 bytes)"), "{text}");
        }
    });
}
