//! A server that does one thing wrong, and what `load` says of it.

use serde_json::Value;
use tokio_tungstenite::tungstenite::{Message, client};

use crate::contract::{self, count};
use crate::process::{PATIENCE, Server, run};

#[test]
fn dropped_answers_fail_the_check_and_take_the_percentile_with_them() {
    let server = Server::start(&["--fault", "drop-answers=0.02,seed=7"]);
    let args = ["load", "--target", &server.url, "--rate", "1500", "--duration", "2s", "--connections", "4"];
    let more = ["--answer-timeout", "1s", "--limit", "p99=10s", "--json", "-"];
    let finished = run(args.into_iter().chain(more)).expect(1);
    let run = finished.json();
    contract::check(&run);
    // Binomial: 60 expected, standard deviation 7.7; at 30 the P99 would be the last that is answered.
    let lost = count(&run, "lost");
    assert!((31..=105).contains(&lost), "{lost}");
    assert_eq!((count(&run, "due"), count(&run, "unsent"), count(&run, "refused")), (3_000, 0, 0));
    assert_eq!(run["latency_us"]["censored"], lost);
    assert!(run["latency_us"]["p99"].is_null() && run["latency_us"]["max"].is_null());
    assert!(run["latency_us"]["p90"].is_number());
    let reasons = run["reasons"].to_string();
    for part in ["lost: ", "ids: ", "latency_p99: none", &format!("{lost} messages without an answer")] {
        assert!(reasons.contains(part), "{part}: {reasons}");
    }
    assert!(finished.stderr.contains(&format!("{lost} of 3,000 have no answer")), "{}", finished.stderr);
}

#[test]
fn a_stall_is_the_servers_and_shows_in_the_latency_from_due() {
    let server = Server::start(&["--fault", "stall=1s,at=1s"]);
    let args = ["load", "--target", &server.url, "--rate", "400", "--duration", "3s", "--connections", "4"];
    let finished = run(args.into_iter().chain(["--limit", "p95=500ms", "--json", "-"]));
    // Other processes on the machine make a timing inconclusive, the generator must not.
    assert!(matches!(finished.code, Some(1 | 3)), "{finished:?}");
    let run = finished.json();
    contract::check(&run);
    assert_eq!((count(&run, "answered"), count(&run, "lost")), (1_200, 0));
    // A third of the messages is due within the stall: the P95 waited for about 0.85 s of it.
    let p95_us = run["latency_us"]["p95"].as_f64().unwrap();
    assert!(p95_us > 700_000.0, "{p95_us}");
    let late_us = run["send_lateness_us"]["p99"].as_f64().unwrap();
    assert!(late_us < 50_000.0, "the generator went on sending: {late_us}");
    let reasons = run["reasons"].to_string();
    assert!(reasons.contains("latency_p95") && !reasons.contains("generator"), "{reasons}");
}

#[test]
fn memory_that_is_lost_shows_in_the_figures() {
    for (fault, messages) in [("grow=32MiB", 1), ("leak=64KiB", 512)] {
        let server = Server::start(&["--fault", fault]);
        let stream = std::net::TcpStream::connect(server.address()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let (mut socket, _) = client(&server.url, stream).unwrap();
        let mut growth_mb = 0.0;
        for _ in 0..messages {
            socket.send(Message::text(r#"{"type":"get_performance_stats"}"#)).unwrap();
            let stats: Value = serde_json::from_str(socket.read().unwrap().to_text().unwrap()).unwrap();
            growth_mb = stats["memory_growth_mb"].as_f64().unwrap();
        }
        // 32 MiB are 33.6 MB; a server without faults grows by less than one.
        assert!((32.0..64.0).contains(&growth_mb), "{fault}: {growth_mb}");
    }
}
