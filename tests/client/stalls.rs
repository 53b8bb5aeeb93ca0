//! Peers that are slow or silent: their time must show as theirs, from due to answer, and never as the generator's.

use std::sync::Arc;
use std::time::Duration;

use floodline::client::{Access, Stop};
use floodline::dialect::{DialectKind, RequestKind};
use floodline::run::{LoadPlan, Peer as RunPeer, run_load};
use floodline::server::{ServerConfig, ServerFault};
use floodline::workload::Workload;
use futures::{SinkExt, StreamExt};
use tokio_tungstenite::accept_async;
use tokio_tungstenite::tungstenite::Message;

use crate::clean::server;
use crate::support::{Asked, Peer, above, offer, open_loop, target, within_patience};

const STALL: Duration = Duration::from_millis(500);

fn stalling() -> ServerConfig {
    ServerConfig {
        faults: vec![ServerFault::StallOnce { at: Duration::from_secs(1), duration: STALL }],
        ..ServerConfig::default()
    }
}

/// A pause of the whole machine makes sends late as a stall of the server makes answers late, so no absolute bound on the
/// lateness is safe. What is safe is which of both distributions the stall is in: while the server does not read, every
/// message that comes due waits for the rest of the stall, so (stall − x) × rate of them wait longer than x; one in ten of
/// these as late sends takes a tenth of a stall on the generator's side at the very same x.
fn assert_stall_is_the_servers(measured: &floodline::client::LoadMeasurement, rate: f64) {
    let limit = Duration::from_millis(100);
    let expected = (STALL - limit).as_secs_f64() * rate;
    let (waited, late) =
        (above(&measured.total.latency, limit) as f64, above(&measured.total.send_lateness, limit) as f64);
    assert!(waited >= 0.8 * expected, "{waited} of {expected} waited");
    assert!(late <= 0.1 * expected, "{late} sends were late, {waited} answers");
}

#[test]
fn a_stall_shows_in_the_latency_of_all_that_came_due_in_it() {
    within_patience(|| {
        let server = server(stalling());
        let measured =
            offer(Workload { payload_bytes: 64, ..open_loop(1_000.0, 4, 3.0) }, &target(server.address()));
        assert_eq!(measured.messages.counts.answered, 3_000);
        assert_stall_is_the_servers(&measured, 1_000.0);
    });
}

#[test]
fn a_stall_behind_a_full_socket_shows_as_latency_and_as_blocked_sends() {
    within_patience(|| {
        let server = server(stalling());
        // 2 KiB × 20,000/s fill the buffers of a loopback connection (at most some 10 MB) before the stall is over.
        let workload = Workload { payload_bytes: 2_048, ..open_loop(20_000.0, 1, 2.0) };
        let measured = offer(workload, &target(server.address()));
        assert_eq!(measured.messages.counts.answered, 40_000);
        assert_stall_is_the_servers(&measured, 20_000.0);
        let blocked = measured.blocked_sends;
        assert!(blocked.messages > 0 && blocked.connection_s > 0.0, "{blocked:?}");
        assert_eq!(blocked.messages, measured.windows.iter().map(|window| window.blocked).sum::<u64>());
    });
}

#[test]
fn a_peer_that_never_reads_ends_with_everything_lost_or_unsent() {
    within_patience(|| {
        let peer = Peer::start(|stream, _| async move {
            let _held = accept_async(stream).await.unwrap();
            std::future::pending::<()>().await;
        });
        let workload = Workload {
            payload_bytes: 16 << 10,
            answer_timeout: Duration::from_millis(500),
            ..open_loop(2_000.0, 1, 1.5)
        };
        let measured = offer(workload, &peer.target());
        let (messages, blocked) = (&measured.messages, &measured.blocked_sends);
        assert_eq!((messages.due, messages.counts.answered), (3_000, 0));
        assert!(messages.counts.sent > 0 && messages.unsent > 0, "{messages:?}");
        // Every unsent message waited, and some that were sent may have.
        assert!(blocked.messages >= messages.unsent, "{blocked:?} {messages:?}");
        assert!(blocked.connection_s > 0.5 && blocked.max_us > 0.0, "{blocked:?}");
        // Each was attempted when it was due, once. As lateness the block would have made half of all this late.
        assert_eq!(measured.total.send_lateness.len(), 3_000);
        let late = above(&measured.total.send_lateness, Duration::from_millis(300));
        assert!(late <= 300, "{late} sends were late");
        assert_eq!(measured.connections.dropped, 0);
    });
}

#[test]
fn a_peer_that_reads_in_bursts_blocks_without_making_sends_late() {
    within_patience(|| {
        let peer = Peer::start(|stream, _| async move {
            let mut ws = accept_async(stream).await.unwrap();
            let mut read = 0_u32;
            while let Some(Ok(message)) = ws.next().await {
                let Message::Text(text) = message else { continue };
                read += 1;
                if read.is_multiple_of(250) {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                if ws.send(Message::text(Asked::read_answer(&text))).await.is_err() {
                    return;
                }
            }
        });
        // 2,500/s at most come out of 5,000/s: the backlog is blocked, let through in parts, and blocked again.
        let workload = Workload { payload_bytes: 16 << 10, ..open_loop(5_000.0, 1, 1.5) };
        let measured = offer(workload, &peer.target());
        let (messages, blocked) = (&measured.messages, &measured.blocked_sends);
        assert_eq!((messages.due, messages.counts.lost), (7_500, 0));
        assert!(blocked.messages > 0, "{blocked:?}");
        assert_eq!(measured.total.send_lateness.len(), 7_500);
        let limit = Duration::from_millis(300);
        let (late, waited) =
            (above(&measured.total.send_lateness, limit), above(&measured.total.latency, limit));
        assert!(late * 10 <= waited, "{late} sends were late, {waited} answers");
    });
}

#[test]
fn dropped_answers_take_the_percentiles_above_them_away() {
    within_patience(|| {
        let server = server(ServerConfig {
            faults: vec![ServerFault::DropAnswers { share: 0.02, seed: 1 }],
            ..ServerConfig::default()
        });
        let plan = LoadPlan {
            workload: Workload {
                payload_bytes: 64,
                answer_timeout: Duration::from_secs(2),
                ..open_loop(5_000.0, 10, 1.0)
            },
            peer: RunPeer::At { target: target(server.address()), pid: None },
            dialect: DialectKind::Floodline,
            dialect_settings: Arc::default(),
            request: RequestKind::default(),
            priority: None,
            access: Access::default(),
            workers: Some(1),
            start_at_unix_ns: None,
            together: None,
            via: None,
            in_flight: None,
            server_pid_now: None,
            calibration: None,
        };
        let results = run_load(&plan, &Stop::default(), &mut ()).unwrap();
        let counts = &results.messages.counts;
        assert_eq!((results.messages.due, results.messages.unsent), (5_000, 0));
        assert_eq!((counts.sent, counts.answered + counts.lost), (5_000, 5_000));
        // Binomial: 100 expected, standard deviation 9.9; ids are new in each run.
        assert!((51..150).contains(&counts.lost), "{counts:?}");
        let latency = results.latency_us.unwrap();
        assert_eq!((latency.count, latency.censored), (5_000, counts.lost));
        assert_eq!((latency.p99, latency.p999, latency.max), (None, None, None));
        assert!(latency.p50.is_some() && latency.p95.is_some());
        let service = results.service_latency_us.unwrap();
        assert_eq!((service.count, service.censored), (counts.answered, 0));
        assert!(service.p99.is_some() && results.refusal_latency_us.is_none());
        assert_eq!(results.messages.missing_ids.len() as u64, counts.lost.min(100));
    });
}

#[test]
fn an_answer_that_comes_after_the_grace_is_answered_but_not_achieved() {
    within_patience(|| {
        // The second connection is answered more than a second after the grace of half a second has ended.
        let peer = Peer::start(|stream, place| async move {
            let mut ws = accept_async(stream).await.unwrap();
            let mut late = place == 1;
            while let Some(Ok(message)) = ws.next().await {
                let Message::Text(text) = message else { continue };
                if std::mem::take(&mut late) {
                    tokio::time::sleep(Duration::from_secs(2)).await;
                }
                if ws.send(Message::text(Asked::read_answer(&text))).await.is_err() {
                    return;
                }
            }
        });
        let measured = offer(open_loop(100.0, 2, 0.2), &peer.target());
        let late: Vec<_> = measured.per_connection.iter().filter(|c| c.achieved == 0).collect();
        assert!(late.iter().any(|c| c.counts.answered == 10), "{:?}", measured.per_connection);
        assert_eq!(measured.messages.counts.answered, 20);
    });
}

#[test]
fn the_last_answer_is_timed_from_the_start_of_the_load() {
    within_patience(|| {
        let delay = Duration::from_millis(300);
        let server = server(ServerConfig { processing_delay: delay, ..ServerConfig::default() });
        // Twenty messages in 400 ms: the last is due at 380 ms.
        let measured = offer(open_loop(50.0, 4, 0.4), &target(server.address()));
        assert_eq!(measured.messages.counts.answered, 20);
        let last_s = measured.moments.last_answer_s.unwrap();
        assert!(last_s >= 0.38 + delay.as_secs_f64(), "{last_s}");
        // A machine under load may add to it; the answers were all there when the client ended, 30 s at most.
        assert!(last_s < 30.0, "{last_s}");
    });
}

#[test]
fn what_came_due_is_sent_for_as_long_as_the_workload_says() {
    // 16 MB for a peer that reads nothing for a second: more than the buffers of a loopback connection take.
    let unsent = |send_grace: Duration| {
        within_patience(move || {
            let peer = Peer::start(|stream, _| async move {
                let mut ws = accept_async(stream).await.unwrap();
                tokio::time::sleep(Duration::from_secs(1)).await;
                while let Some(Ok(_)) = ws.next().await {}
            });
            let workload = Workload {
                payload_bytes: 16 << 10,
                answer_timeout: Duration::from_millis(100),
                send_grace,
                ..open_loop(10_000.0, 1, 0.1)
            };
            let measured = offer(workload, &peer.target());
            assert_eq!((measured.messages.due, measured.moments.last_answer_s), (1_000, None));
            measured.messages.unsent
        })
    };
    assert!(unsent(Duration::from_millis(100)) > 0);
    assert_eq!(unsent(Duration::from_secs(30)), 0);
}
