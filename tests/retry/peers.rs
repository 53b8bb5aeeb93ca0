//! Peers that cut the connection at a chosen message: what exactly is sent again, and what exactly is counted.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use floodline::ledger::Counts;
use floodline::retry::RetryPolicy;
use floodline::workload::Workload;
use futures::{SinkExt, StreamExt};
use serde_json::json;
use tokio::net::TcpStream;
use tokio_tungstenite::accept_async;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

use crate::support::{Act, Asked, Peer, Script, above, converse, offer, open_loop, twenty, within_patience};

fn surviving(workload: Workload) -> Workload {
    Workload { retry: Some(RetryPolicy::default()), ..workload }
}

/// Answers nothing, and cuts the connection at message `sequence`.
fn mute_until(sequence: u64) -> Script {
    Box::new(move |asked| if asked.sequence == sequence { vec![Act::Reset] } else { Vec::new() })
}

fn answering() -> Script {
    Box::new(|asked| vec![Act::Text(asked.answer())])
}

#[test]
fn what_is_unanswered_is_sent_again_in_order_with_the_same_ids_and_contents() {
    within_patience(|| {
        let seen: Arc<Mutex<Vec<(usize, Asked)>>> = Arc::default();
        let record = Arc::clone(&seen);
        let peer = Peer::start(move |stream, place| {
            let record = Arc::clone(&record);
            let script: Script = Box::new(move |asked: Asked| {
                record.lock().unwrap().push((place, asked.clone()));
                match (place, asked.sequence) {
                    (0, 9) => vec![Act::Reset],
                    // Every other one is answered before the cut.
                    (0, sequence) if sequence % 2 == 1 => vec![],
                    _ => vec![Act::Text(asked.answer())],
                }
            });
            converse(stream, script)
        });
        let measured = offer(surviving(twenty()), &peer.target());
        let seen = seen.lock().unwrap();
        let on = |place| seen.iter().filter(move |(at, _)| *at == place).map(|(_, asked)| asked);
        let before: Vec<u64> = on(0).map(|asked| asked.sequence).collect();
        assert_eq!(before, (0..10).collect::<Vec<_>>());
        let after: Vec<u64> = on(1).map(|asked| asked.sequence).collect();
        assert!(after.starts_with(&[1, 3, 5, 7, 9]), "{after:?}");
        assert!(after.is_sorted() && after.ends_with(&(10..20).collect::<Vec<_>>()), "{after:?}");
        for again in on(1).filter(|asked| asked.sequence < 10) {
            let first = on(0).find(|asked| asked.sequence == again.sequence).unwrap();
            assert_eq!((&first.id, &first.client, first.crc), (&again.id, &again.client, again.crc));
        }
        let counts = measured.messages.counts;
        assert_eq!((counts.sent, counts.answered, counts.lost, counts.duplicates), (20, 20, 0, 0));
        // Messages that had left and not arrived are sent again too, as are those whose answers the reset overtook.
        assert!(counts.resent >= 5, "{counts:?}");
    });
}

#[test]
fn a_message_has_as_many_answers_as_it_was_sent() {
    within_patience(|| {
        let twice = || -> Script {
            Box::new(|asked| vec![Act::Text(asked.answer()), Act::Text(asked.answer_with(json!({})))])
        };
        let peer = Peer::start(move |stream, place| {
            converse(stream, if place == 0 { mute_until(4) } else { twice() })
        });
        let measured = offer(surviving(twenty()), &peer.target());
        let counts = measured.messages.counts;
        let resent = counts.resent;
        assert!((5..20).contains(&resent), "{counts:?}");
        let expected = Counts {
            sent: 20,
            answered: 20,
            resent,
            repeated: resent,
            duplicates: 20 - resent,
            ..Counts::default()
        };
        assert_eq!(counts, expected);
    });
}

#[test]
fn what_came_due_without_a_connection_is_sent_late_and_not_by_the_generators_fault() {
    const AWAY: Duration = Duration::from_millis(1_300);
    within_patience(|| {
        // The load takes half a second and its grace as long again: when the peer is back, both are over.
        let peer = Peer::start(|stream: TcpStream, place| async move {
            if place == 0 {
                return converse(stream, mute_until(50)).await;
            }
            tokio::time::sleep(AWAY).await;
            converse(stream, answering()).await;
        });
        let measured = offer(surviving(open_loop(200.0, 1, 0.5)), &peer.target());
        let counts = measured.messages.counts;
        assert_eq!((measured.messages.due, counts.sent, counts.answered), (100, 100, 100));
        assert_eq!(measured.outages.len(), 1);
        let outage = &measured.outages[0];
        assert!(outage.reconnected_at_s.unwrap() - outage.lost_at_s >= AWAY.as_secs_f64(), "{outage:?}");
        // All waited for the peer, those that came due without a connection too; a tenth of these as late sends would
        // take that much of a pause of the machine.
        let limit = Duration::from_millis(500);
        assert_eq!(above(&measured.total.latency, limit), 100);
        assert!(above(&measured.total.send_lateness, limit) <= 5, "{:?}", measured.total.send_lateness);
        let blocked = measured.blocked_sends;
        assert!(
            blocked.messages > 0 && blocked.messages == 100 - outage.unanswered,
            "{blocked:?} {outage:?}"
        );
        assert!(blocked.connection_s >= AWAY.as_secs_f64(), "{blocked:?}");
    });
}

#[test]
fn a_full_server_is_tried_again_and_counts_as_one_outage() {
    within_patience(|| {
        let full = || CloseFrame { code: 1013.into(), reason: "full".into() };
        let peer = Peer::start(move |stream: TcpStream, place| async move {
            match place {
                0 => {
                    let script: Script = Box::new(|asked| match asked.sequence {
                        5 => vec![Act::Close(1013, "full")],
                        0..5 => vec![Act::Text(asked.answer())],
                        _ => vec![],
                    });
                    converse(stream, script).await;
                }
                1 | 2 => {
                    let mut ws = accept_async(stream).await.unwrap();
                    let _ = ws.send(Message::Close(Some(full()))).await;
                    while let Some(Ok(_)) = ws.next().await {}
                }
                _ => converse(stream, answering()).await,
            }
        });
        let measured = offer(surviving(twenty()), &peer.target());
        let connections = &measured.connections;
        assert_eq!(measured.messages.counts.answered, 20);
        assert_eq!((connections.established, connections.refused, connections.dropped), (1, 0, 0));
        assert_eq!((connections.reconnects, measured.outages.len()), (1, 1), "{:?}", measured.outages);
        assert_eq!(measured.outages[0].reason, "closed by the server: 1013 full");
        assert!(measured.outages[0].recovered_at_s.is_some());
    });
}

#[test]
fn a_client_gives_up_after_its_time_and_says_why() {
    within_patience(|| {
        let peer = Peer::start(|stream: TcpStream, place| async move {
            if place == 0 {
                converse(stream, mute_until(5)).await;
            }
        });
        let retry = RetryPolicy {
            initial: Duration::from_millis(5),
            cap: Duration::from_millis(20),
            give_up_after: Some(Duration::from_millis(300)),
            ..RetryPolicy::default()
        };
        // Without the end of the retries this would go on for an hour.
        let workload = Workload {
            retry: Some(retry),
            answer_timeout: Duration::from_secs(3_600),
            ..open_loop(200.0, 1, 3_600.0)
        };
        let measured = offer(workload, &peer.target());
        let counts = measured.messages.counts;
        assert_eq!((counts.answered, counts.lost), (0, counts.sent));
        assert!(counts.sent >= 6 && measured.messages.unsent > 0, "{:?}", measured.messages);
        assert_eq!((measured.connections.dropped, measured.connections.reconnects), (1, 0));
        let outage = &measured.outages[0];
        assert_eq!((outage.reconnected_at_s, outage.recovered_at_s), (None, None));
        let gave_up = |reason: &String| reason.starts_with("not connected again within 300 ms: ");
        assert!(measured.connections.reasons.keys().any(gave_up), "{:?}", measured.connections.reasons);
    });
}

#[test]
fn a_peer_that_never_comes_back_does_not_hold_up_the_end() {
    within_patience(|| {
        let peer = Peer::start(|stream: TcpStream, place| async move {
            if place == 0 {
                converse(stream, mute_until(10)).await;
            }
        });
        let workload = Workload { answer_timeout: Duration::from_secs(1), ..surviving(twenty()) };
        let measured = offer(workload, &peer.target());
        let (messages, counts) = (&measured.messages, measured.messages.counts);
        assert_eq!((counts.answered, counts.lost + messages.unsent), (0, 20), "{messages:?}");
        assert_eq!(measured.connections.dropped, 1);
        let outage = &measured.outages[0];
        assert_eq!((outage.reconnected_at_s, outage.recovered_at_s), (None, None));
    });
}
