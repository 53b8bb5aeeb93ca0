//! Peers that answer everything: nothing but answers may be counted.

use std::time::Duration;

use floodline::client::{HighVolumeThroughputClient, Stop, TcpConnect};
use floodline::dialect::Echo;
use floodline::ledger::Counts;
use floodline::schedule::Arrival;
use floodline::server::{HighVolumeWebSocketServer, ServerConfig, ServerHandle};
use floodline::workload::{Offered, Workload};
use futures::{SinkExt, StreamExt};

use crate::support::{Peer, assert_accounted, client, offer, open_loop, target, within_patience};

pub fn server(config: ServerConfig) -> ServerHandle {
    HighVolumeWebSocketServer::spawn(config).unwrap()
}

fn answered(count: u64) -> Counts {
    Counts { sent: count, answered: count, ..Counts::default() }
}

#[test]
fn an_open_loop_sends_each_due_message_once_and_gets_each_answer() {
    within_patience(|| {
        let server = server(ServerConfig::default());
        for arrival in [Arrival::Uniform, Arrival::Poisson] {
            // Rates × payload stay at what any machine moves over loopback in the time.
            for (payload_bytes, rate) in [(0, 2_000.0), (64, 2_000.0), (1_024, 2_000.0), (300 << 10, 100.0)] {
                for (connections, workers) in [(1, 1), (20, 2)] {
                    let workload = Workload { arrival, payload_bytes, ..open_loop(rate, connections, 0.2) };
                    let due = due_by_schedule(&workload);
                    let measured = client(workload.clone(), &target(server.address()))
                        .workers(workers)
                        .run(&Stop::default(), &mut ())
                        .unwrap();
                    assert_accounted(&measured);
                    let case = format!("{arrival} {payload_bytes} B on {connections}");
                    assert_eq!((measured.messages.due, measured.messages.unsent), (due, 0), "{case}");
                    assert_eq!(measured.messages.counts, answered(due), "{case}");
                    assert_eq!(measured.total.latency.len(), due, "{case}");
                    assert_eq!(measured.total.send_lateness.len(), due, "{case}");
                    assert_eq!(measured.offered_for, workload.duration, "{case}");
                    assert_eq!(measured.connections.established, u64::from(connections), "{case}");
                    assert!(measured.connections.reasons.is_empty(), "{case}: {:?}", measured.connections);
                }
            }
        }
    });
}

/// By the schedule alone, connection by connection. A uniform one must give rate × duration.
fn due_by_schedule(workload: &Workload) -> u64 {
    let schedule = workload.schedule().unwrap();
    let due = (0..workload.connections).map(|index| schedule.due_times(index).count() as u64).sum();
    if workload.arrival == Arrival::Uniform {
        assert_eq!(due as f64, schedule.rate.as_per_second() * workload.duration.as_secs_f64());
    }
    due
}

#[test]
fn a_closed_loop_has_nothing_due_and_gets_each_answer() {
    within_patience(|| {
        let server = server(ServerConfig::default());
        for (window, connections, workers, payload_bytes) in
            [(1, 1, 1, 0), (32, 1, 1, 64), (1, 20, 2, 1_024), (32, 20, 2, 64), (32, 1, 1, 300 << 10)]
        {
            let workload = Workload {
                offered: Offered::Max,
                window,
                connections,
                payload_bytes,
                duration: Duration::from_millis(200),
                ..Workload::default()
            };
            let measured = client(workload, &target(server.address()))
                .workers(workers)
                .run(&Stop::default(), &mut ())
                .unwrap();
            assert_accounted(&measured);
            let sent = measured.messages.counts.sent;
            assert!(sent >= window as u64 * u64::from(connections), "{sent}");
            assert_eq!((measured.messages.due, measured.messages.unsent), (sent, 0));
            assert_eq!(measured.messages.counts, answered(sent));
            assert!(measured.total.latency.is_empty() && measured.total.send_lateness.is_empty());
        }
    });
}

#[test]
fn a_closed_loop_keeps_its_window_full_and_no_fuller() {
    within_patience(|| {
        for window in [1_usize, 32] {
            // Answers nothing until a whole window is there: with less under way, nothing would ever be answered.
            let peer = Peer::scripted(move || {
                let mut held = Vec::new();
                Box::new(move |asked| {
                    held.push(crate::support::Act::Text(asked.answer()));
                    if held.len() == window { std::mem::take(&mut held) } else { Vec::new() }
                })
            });
            let workload = Workload {
                offered: Offered::Max,
                window,
                connections: 1,
                payload_bytes: 64,
                duration: Duration::from_millis(200),
                answer_timeout: Duration::from_secs(1),
                ..Workload::default()
            };
            let counts = offer(workload.clone(), &peer.target()).messages.counts;
            assert!(counts.answered >= window as u64, "{counts:?}");
            assert_eq!(counts.answered % window as u64, 0, "whole windows only: {counts:?}");
            // A peer that never answers gets the window and not a message more.
            let silent = Peer::scripted(|| Box::new(|_| Vec::new()));
            let counts = offer(workload, &silent.target()).messages.counts;
            assert_eq!((counts.sent, counts.lost), (window as u64, window as u64));
        }
    });
}

#[test]
fn an_echo_server_is_enough_for_the_echo_dialect() {
    within_patience(|| {
        let peer = Peer::start(|stream, _| async move {
            let mut ws = tokio_tungstenite::accept_async(stream).await.unwrap();
            while let Some(Ok(message)) = ws.next().await {
                if (message.is_text() || message.is_binary()) && ws.send(message).await.is_err() {
                    return;
                }
            }
        });
        for payload_bytes in [64, 1_024, 300 << 10] {
            let workload = Workload { payload_bytes, ..open_loop(100.0, 3, 0.3) };
            let connect = TcpConnect::new(peer.target(), None).unwrap();
            let dialect = Echo::new(workload.seed, payload_bytes).unwrap();
            let measured = HighVolumeThroughputClient::new(workload, connect, dialect)
                .run(&Stop::default(), &mut ())
                .unwrap();
            assert_accounted(&measured);
            assert_eq!(measured.messages.counts, answered(30));
        }
    });
}
