//! Ramps: what is due in one is accounted for like everything else, and nothing of it is timed.

use std::time::Duration;

use floodline::client::{LoadMeasurement, Stop};
use floodline::result::LoadTestResults;
use floodline::run::{LoadPlan, Peer as RunPeer, run_load};
use floodline::schedule::Arrival;
use floodline::server::{ServerConfig, ServerFault};
use floodline::workload::Workload;
use tokio_tungstenite::accept_async;

use crate::clean::server;
use crate::control::StopAfter;
use crate::support::{
    Act, Peer, above, assert_accounted, client, converse, offer, open_loop, target, within_patience,
};

/// `rate × seconds` messages between two ramps of half of `rate × ramp_s` each.
fn ramped(rate: f64, connections: u32, seconds: f64, ramp_s: f64) -> Workload {
    let ramp = Duration::from_secs_f64(ramp_s);
    Workload { ramp, payload_bytes: 64, ..open_loop(rate, connections, seconds) }
}

/// How many messages the schedule has due: in all, and in the held part.
fn due_by_schedule(workload: &Workload) -> (u64, u64) {
    let schedule = workload.schedule().unwrap();
    let all = (0..workload.connections).flat_map(|index| schedule.due_times(index));
    all.fold((0, 0), |(all, held), due_ns| (all + 1, held + u64::from(schedule.held_ns().contains(&due_ns))))
}

#[test]
fn what_is_due_in_a_ramp_is_counted_and_not_timed() {
    within_patience(|| {
        let server = server(ServerConfig::default());
        for arrival in [Arrival::Uniform, Arrival::Poisson] {
            for (connections, workers) in [(1, 1), (20, 2)] {
                let workload = Workload { arrival, ..ramped(2_000.0, connections, 0.4, 0.3) };
                let (due, held) = due_by_schedule(&workload);
                if arrival == Arrival::Uniform {
                    assert_eq!((due, held), (1_400, 800));
                }
                let measured = client(workload.clone(), &target(server.address()))
                    .workers(workers)
                    .run(&Stop::default(), &mut ())
                    .unwrap();
                assert_accounted(&measured);
                let (messages, total) = (&measured.messages, &measured.total);
                assert_eq!((messages.due, messages.counts.answered), (due, due), "{arrival}");
                assert_eq!((messages.untimed_due, messages.untimed_answered), (due - held, due - held));
                assert_eq!((total.sent, total.answered), (held, held));
                assert_eq!((total.latency.len(), total.send_lateness.len()), (held, held));
                assert_eq!(measured.offered_for, workload.duration);
            }
        }
    });
}

const STALL: Duration = Duration::from_secs(1);

/// A second and a half between ramps of two, at a server that stalls for a second, so long after the first message.
fn offer_stalled(at: Duration) -> LoadMeasurement {
    within_patience(move || {
        let faults = vec![ServerFault::StallOnce { at, duration: STALL }];
        let server = server(ServerConfig { faults, ..ServerConfig::default() });
        let measured = offer(ramped(1_000.0, 4, 1.5, 2.0), &target(server.address()));
        assert_eq!((measured.messages.due, measured.messages.counts.answered), (3_500, 3_500));
        assert_eq!(measured.total.latency.len(), 1_500);
        measured
    })
}

/// Beyond the pauses of a busy machine, and well within the stall.
const LONG: Duration = Duration::from_millis(300);

#[test]
fn a_stall_in_the_ramp_is_in_no_latency() {
    let measured = offer_stalled(Duration::ZERO);
    // 122 messages come due in the first 0.7 s of the ramp and wait for the rest of the stall: half of that is much.
    let waited = above(&measured.total.latency, LONG);
    assert!(waited < 61, "{waited} waited");
}

/// The other's control: the same stall shows where it falls among what is timed.
#[test]
fn the_same_stall_after_the_ramp_is_in_the_latency() {
    let measured = offer_stalled(Duration::from_secs(2));
    let expected = (STALL - LONG).as_secs_f64() * 1_000.0;
    let waited = above(&measured.total.latency, LONG) as f64;
    assert!(waited >= 0.8 * expected, "{waited} of {expected} waited");
}

/// 100 messages on one connection between ramps of 50, at a peer that does with each number what `act` says: answer it
/// (`Some(true)`), refuse it, or nothing.
fn results_of(act: fn(u64) -> Option<bool>) -> LoadTestResults {
    within_patience(move || {
        let peer = Peer::scripted(move || {
            Box::new(move |asked| match act(asked.sequence) {
                Some(true) => vec![Act::Text(asked.answer())],
                Some(false) => vec![Act::Text(asked.queue_full())],
                None => Vec::new(),
            })
        });
        let answer_timeout = Duration::from_secs(2);
        let plan = LoadPlan {
            workers: Some(1),
            ..LoadPlan::new(
                Workload { answer_timeout, ..ramped(200.0, 1, 0.5, 0.5) },
                RunPeer::At { target: peer.target(), pid: None },
            )
        };
        run_load(&plan, &Stop::default(), &mut ()).unwrap()
    })
}

#[test]
fn what_is_refused_or_lost_in_a_ramp_takes_no_percentile_away() {
    let results = results_of(|sequence| match sequence {
        0..50 if sequence % 2 == 0 => None,
        50..150 => Some(true),
        _ => Some(false),
    });
    let messages = &results.messages;
    let counts = &messages.counts;
    assert_eq!((messages.due, messages.untimed_due, messages.untimed_answered), (200, 100, 0));
    assert_eq!((counts.answered, counts.refused, counts.lost), (100, 75, 25));
    assert_eq!(messages.missing_ids.len(), 25);
    let latency = results.latency_us.as_ref().unwrap();
    assert_eq!((latency.count, latency.censored), (100, 0));
    assert!(latency.p999.is_some() && latency.max.is_some(), "{latency:?}");
    assert!(results.per_connection[0].latency_p95_at_most_us.is_some());
    assert_eq!(results.refusal_latency_us, None);
    assert_eq!((results.workload.ramp_s, results.offered_for_s), (0.5, 0.5));
    assert_eq!(results.throughput.offered_rate, Some(200.0));
    assert!(results.throughput.achieved_rate <= 200.0);
    // The load's time begins after the ramp; what is sampled does before it.
    assert!(results.resources.samples[0].t_s < 0.0, "{:?}", results.resources.samples[0]);
}

#[test]
fn what_is_refused_in_the_held_part_does_though_the_ramps_are_answered() {
    let results = results_of(|sequence| Some(!(60..70).contains(&sequence)));
    let latency = results.latency_us.as_ref().unwrap();
    assert_eq!((latency.count, latency.censored), (100, 10));
    assert!(latency.p90.is_some(), "{latency:?}");
    // Of all 200 messages, these 10 would be the last 5 %.
    assert_eq!((latency.p95, latency.max), (None, None));
    assert_eq!(results.per_connection[0].latency_p95_at_most_us, None);
    assert_eq!(results.refusal_latency_us.as_ref().map(|refusals| refusals.count), Some(10));
    assert_eq!((results.messages.untimed_due, results.messages.untimed_answered), (100, 100));
    assert_eq!(results.messages.counts.answered, 190);
    assert!(results.throughput.achieved_rate <= 180.0);
}

#[test]
fn a_connection_that_was_never_open_leaves_its_ramps_untimed_too() {
    within_patience(|| {
        let peer = Peer::start(|stream, place| async move {
            if place > 0 {
                converse(stream, Box::new(|asked| vec![Act::Text(asked.answer())])).await;
            }
        });
        let measured = offer(ramped(1_000.0, 2, 0.2, 0.2), &peer.target());
        let messages = &measured.messages;
        assert_eq!((messages.due, messages.unsent, messages.counts.answered), (400, 200, 200));
        assert_eq!((messages.untimed_due, messages.untimed_answered), (200, 100));
        assert_eq!(measured.total.latency.len(), 100);
    });
}

#[test]
fn what_waits_for_a_full_socket_in_a_ramp_is_no_blocked_send() {
    within_patience(|| {
        let peer = Peer::start(|stream, _| async move {
            let _held = accept_async(stream).await.unwrap();
            std::future::pending::<()>().await;
        });
        // The ramp's 16 MB fill the buffers of a loopback connection.
        let workload = Workload {
            payload_bytes: 16 << 10,
            answer_timeout: Duration::from_millis(500),
            ..ramped(2_000.0, 1, 0.5, 1.0)
        };
        let measured = offer(workload, &peer.target());
        let (messages, blocked) = (&measured.messages, &measured.blocked_sends);
        assert_eq!((messages.due, messages.untimed_due), (3_000, 2_000));
        assert!(messages.unsent > 1_000, "{messages:?}");
        // Each that is timed was attempted when it was due, once, and waited in vain where it never left.
        assert_eq!(measured.total.send_lateness.len(), 1_000);
        assert!((1_000 - measured.total.sent..=1_000).contains(&blocked.messages), "{blocked:?}");
    });
}

#[test]
fn a_stop_in_the_rise_leaves_everything_counted_and_nothing_timed() {
    within_patience(|| {
        let server = server(ServerConfig::default());
        let stop = Stop::default();
        let mut observer = StopAfter { stop: stop.clone(), elapsed: Duration::from_secs(1), stops: 1 };
        let measured = client(ramped(20_000.0, 4, 50.0, 50.0), &target(server.address()))
            .workers(2)
            .run(&stop, &mut observer)
            .unwrap();
        assert_accounted(&measured);
        assert!(measured.stopped);
        assert_eq!((measured.offered_for, measured.achieved), (Duration::ZERO, 0));
        let messages = &measured.messages;
        assert!(messages.due > 0);
        assert_eq!((messages.counts.answered, messages.untimed_due), (messages.due, messages.due));
        assert!(measured.total.latency.is_empty() && measured.total.send_lateness.is_empty());
        assert_eq!(measured.busiest_worker_cores, None);
    });
}

#[test]
fn a_stop_in_the_fall_leaves_all_that_was_held_timed() {
    within_patience(|| {
        let server = server(ServerConfig::default());
        let stop = Stop::default();
        // Two seconds of rise, a tenth held: then the fall has two seconds in which to be stopped.
        let mut observer = StopAfter { stop: stop.clone(), elapsed: Duration::from_millis(2_200), stops: 1 };
        let measured = client(ramped(1_000.0, 4, 0.1, 2.0), &target(server.address()))
            .workers(2)
            .run(&stop, &mut observer)
            .unwrap();
        assert_accounted(&measured);
        assert!(measured.stopped);
        assert_eq!(measured.offered_for, Duration::from_millis(100));
        let messages = &measured.messages;
        assert_eq!((messages.counts.answered, measured.total.latency.len()), (messages.due, 100));
        assert_eq!(messages.untimed_due, messages.due - 100);
        // 1,000 rose, 100 were held; of the 1,000 of the fall some were left.
        assert!((1_100..2_100).contains(&messages.due), "{messages:?}");
    });
}
