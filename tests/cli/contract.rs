//! The JSON contract of one run (`floodline.run/1`): every field with its type, and what must add up.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::Deserializer;
use serde_json::Value;

const INTEGER: fn(&Value) -> bool = Value::is_u64;
const NUMBER: fn(&Value) -> bool = Value::is_number;
const TEXT: fn(&Value) -> bool = Value::is_string;
const BOOL: fn(&Value) -> bool = Value::is_boolean;
const ARRAY: fn(&Value) -> bool = Value::is_array;
const NUMBER_OR_NULL: fn(&Value) -> bool = |value| value.is_number() || value.is_null();
const TEXT_OR_NULL: fn(&Value) -> bool = |value| value.is_string() || value.is_null();
const OBJECT_OR_NULL: fn(&Value) -> bool = |value| value.is_object() || value.is_null();

type Field = (&'static str, fn(&Value) -> bool);

const RUN: &[Field] = &[
    ("/schema", TEXT),
    ("/verdict", TEXT),
    ("/reasons", ARRAY),
    ("/interrupted", BOOL),
    ("/run_id", TEXT),
    ("/shard/index", INTEGER),
    ("/shard/of", INTEGER),
    ("/started_at_unix_ns", INTEGER),
    ("/last_answer_s", NUMBER_OR_NULL),
    ("/workload/target", TEXT_OR_NULL),
    ("/workload/tls", OBJECT_OR_NULL),
    ("/workload/dialect", TEXT),
    ("/workload/rate", NUMBER_OR_NULL),
    ("/workload/connections", INTEGER),
    ("/workload/duration_s", NUMBER),
    ("/workload/ramp_s", NUMBER),
    ("/workload/payload_bytes", INTEGER),
    ("/workload/arrival", TEXT),
    ("/workload/window", INTEGER),
    ("/workload/seed", INTEGER),
    ("/workload/pacer", TEXT),
    ("/offered_rate", NUMBER_OR_NULL),
    ("/achieved_rate", NUMBER),
    ("/messages/due", INTEGER),
    ("/messages/sent", INTEGER),
    ("/messages/unsent", INTEGER),
    ("/messages/untimed_due", INTEGER),
    ("/messages/untimed_answered", INTEGER),
    ("/messages/answered", INTEGER),
    ("/messages/refused", INTEGER),
    ("/messages/lost", INTEGER),
    ("/messages/late", INTEGER),
    ("/messages/resent", INTEGER),
    ("/messages/duplicates", INTEGER),
    ("/messages/reordered", INTEGER),
    ("/messages/foreign", INTEGER),
    ("/messages/corrupted", INTEGER),
    ("/messages/unattributed", INTEGER),
    ("/messages/missing_ids", ARRAY),
    ("/messages/reordered_ids", ARRAY),
    ("/messages/duplicate_ids", ARRAY),
    ("/messages/foreign_ids", ARRAY),
    ("/messages/corrupted_ids", ARRAY),
    ("/unmatched", ARRAY),
    ("/fan_out", OBJECT_OR_NULL),
    ("/latency_us", OBJECT_OR_NULL),
    ("/service_latency_us", OBJECT_OR_NULL),
    ("/send_lateness_us", OBJECT_OR_NULL),
    ("/refusal_latency_us", OBJECT_OR_NULL),
    ("/histograms/latency", TEXT),
    ("/histograms/service_latency", TEXT),
    ("/histograms/send_lateness", TEXT),
    ("/windows", ARRAY),
    ("/connections/requested", INTEGER),
    ("/connections/established", INTEGER),
    ("/connections/refused", INTEGER),
    ("/connections/dropped", INTEGER),
    ("/connections/reconnects", INTEGER),
    ("/connections/opening_s", NUMBER_OR_NULL),
    ("/cost/client_cpu_us_per_message", NUMBER_OR_NULL),
    ("/cost/server_cpu_us_per_message", NUMBER_OR_NULL),
    ("/cost/client_bytes_per_connection", NUMBER_OR_NULL),
    ("/cost/server_bytes_per_connection", NUMBER_OR_NULL),
    ("/resources/client", OBJECT_OR_NULL),
    ("/resources/server", OBJECT_OR_NULL),
    ("/resources/foreign_cpu_cores", NUMBER_OR_NULL),
    ("/calibration", OBJECT_OR_NULL),
    ("/environment/os", TEXT_OR_NULL),
    ("/environment/kernel", TEXT_OR_NULL),
    ("/environment/cpu", TEXT_OR_NULL),
    ("/environment/cores", NUMBER_OR_NULL),
    ("/environment/rustc", TEXT_OR_NULL),
    ("/environment/floodline", TEXT),
    ("/environment/tokio", TEXT_OR_NULL),
];

const LATENCY: &[Field] = &[
    ("/count", INTEGER),
    ("/censored", INTEGER),
    ("/min", NUMBER_OR_NULL),
    ("/mean", NUMBER_OR_NULL),
    ("/stddev", NUMBER_OR_NULL),
    ("/p50", NUMBER_OR_NULL),
    ("/p90", NUMBER_OR_NULL),
    ("/p95", NUMBER_OR_NULL),
    ("/p99", NUMBER_OR_NULL),
    ("/p999", NUMBER_OR_NULL),
    ("/max", NUMBER_OR_NULL),
];

const PROCESS: &[Field] = &[("/cpu_s", NUMBER_OR_NULL), ("/peak_rss_bytes", NUMBER_OR_NULL)];

const WINDOW: &[Field] = &[
    ("/t_s", INTEGER),
    ("/sent", INTEGER),
    ("/answered", INTEGER),
    ("/latency_p50_us", NUMBER_OR_NULL),
    ("/latency_p99_us", NUMBER_OR_NULL),
];

/// Checks a result: presence and type of every field, and the sums.
#[track_caller]
pub fn check(run: &Value) {
    fields(run, RUN);
    assert_eq!(run["schema"], "floodline.run/1");
    for name in ["latency_us", "service_latency_us", "send_lateness_us", "refusal_latency_us"] {
        if !run[name].is_null() {
            fields(&run[name], LATENCY);
        }
    }
    for side in ["client", "server"] {
        if !run["resources"][side].is_null() {
            fields(&run["resources"][side], PROCESS);
        }
    }
    run["windows"].as_array().unwrap().iter().for_each(|window| fields(window, WINDOW));
    accounted(run);
    latencies(run);
}

/// A count of messages.
#[track_caller]
pub fn count(run: &Value, name: &str) -> u64 {
    run["messages"][name].as_u64().unwrap_or_else(|| panic!("messages.{name} is no count"))
}

/// Nothing is unaccounted for.
#[track_caller]
pub fn accounted(run: &Value) {
    let of = |name| count(run, name);
    assert_eq!(of("due"), of("sent") + of("unsent"), "{}", run["messages"]);
    assert_eq!(of("sent"), of("answered") + of("refused") + of("lost"), "{}", run["messages"]);
    let missing = run["messages"]["missing_ids"].as_array().unwrap();
    assert_eq!(missing.len() as u64, of("lost").min(100));
    assert_eq!(in_windows(run, "answered"), of("answered") - of("untimed_answered"), "the windows' answered");
    // What of a ramp was never sent is untimed without having been sent.
    let timed = of("sent").saturating_sub(of("untimed_due"))..=of("due") - of("untimed_due");
    assert!(timed.contains(&in_windows(run, "sent")), "the windows' sent: {}", run["messages"]);
}

fn in_windows(run: &Value, name: &str) -> u64 {
    run["windows"].as_array().unwrap().iter().map(|window| window[name].as_u64().unwrap()).sum()
}

#[track_caller]
fn latencies(run: &Value) {
    let due = count(run, "due") - count(run, "untimed_due");
    let answered = count(run, "answered") - count(run, "untimed_answered");
    assert_eq!(histogram(run, "service_latency").len(), answered);
    if run["workload"]["rate"].is_null() {
        assert_eq!(histogram(run, "latency").len(), 0);
        assert!(run["latency_us"].is_null() && run["offered_rate"].is_null());
        return;
    }
    assert_eq!(histogram(run, "latency").len(), answered);
    assert_eq!(run["latency_us"]["count"], due);
    assert_eq!(run["latency_us"]["censored"], due - answered);
    assert_eq!(histogram(run, "send_lateness").len(), in_windows(run, "sent"));
    if let Some(p50_us) = run["latency_us"]["p50"].as_f64() {
        // Three digits: the histogram's own median is the same value to 1 in 1,000.
        let rank = (due as f64 * 0.5).ceil() / answered as f64;
        let median_us = histogram(run, "latency").value_at_quantile(rank.min(1.0)) as f64 / 1e3;
        assert!((median_us / p50_us - 1.0).abs() < 0.05, "{median_us} and {p50_us}");
    }
}

#[track_caller]
fn histogram(run: &Value, name: &str) -> Histogram<u64> {
    let bytes = BASE64.decode(run["histograms"][name].as_str().unwrap()).unwrap();
    Deserializer::new().deserialize(&mut bytes.as_slice()).unwrap()
}

#[track_caller]
fn fields(object: &Value, expected: &[Field]) {
    for (path, fits) in expected {
        let value = object.pointer(path).unwrap_or_else(|| panic!("no field {path}"));
        assert!(fits(value), "{path} is {value}");
    }
}
