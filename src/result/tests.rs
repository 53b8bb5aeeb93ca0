use super::*;

fn shard(index: u32, edit: impl FnOnce(&mut LoadTestResults)) -> LoadTestResults {
    let mut results = example::clean();
    results.shard = Shard { index, of: 2 };
    edit(&mut results);
    results
}

#[test]
fn shards_add_up_and_percentiles_are_taken_anew() {
    let slow = shard(1, |results| {
        results.histograms.latency = LatencyHistogram::default();
        (0..9_000).for_each(|_| results.histograms.latency.record(50_000_000));
        results.messages.counts = Counts { sent: 10_000, answered: 9_000, lost: 1_000, ..Counts::default() };
        results.messages.missing_ids = vec!["b-1-1-7".to_owned()];
        results.messages.reordered_ids = vec!["b-1-1-8".to_owned()];
        results.messages.duplicate_ids = vec!["b-1-1-9".to_owned()];
        results.messages.foreign_ids = vec!["b-1-1-10".to_owned()];
        results.messages.corrupted_ids = vec!["b-1-1-11".to_owned()];
        results.throughput.achieved_rate = 900.0;
        results.moments.last_answer_s = Some(11.5);
    });
    let many = |of: &str| (0..99).map(|n| format!("b-0-{of}-{n}")).collect::<Vec<_>>();
    let other = shard(0, |results| {
        results.messages.missing_ids = many("0");
        results.messages.reordered_ids = many("1");
        results.messages.duplicate_ids = many("2");
        results.messages.foreign_ids = many("3");
        results.messages.corrupted_ids = vec!["b-0-0-0".to_owned(); 100];
    });
    let merged = LoadTestResults::merge(vec![other, slow]).unwrap();
    let MessageCounts { missing_ids, reordered_ids, duplicate_ids, foreign_ids, corrupted_ids, .. } =
        &merged.messages;
    for (ids, last) in [
        (missing_ids, "b-1-1-7"),
        (reordered_ids, "b-1-1-8"),
        (duplicate_ids, "b-1-1-9"),
        (foreign_ids, "b-1-1-10"),
        (corrupted_ids, "b-0-0-0"),
    ] {
        assert_eq!((ids.len(), ids.last().map(String::as_str)), (100, Some(last)));
    }
    assert_eq!((merged.messages.due, merged.messages.counts.lost), (20_000, 1_000));
    assert_eq!(merged.throughput.achieved_rate, 1_900.0);
    assert_eq!(merged.moments.last_answer_s, Some(11.5));
    assert_eq!(merged.throughput.offered_rate, Some(2_000.0));
    let latency = merged.latency_us.unwrap();
    assert_eq!((latency.count, latency.censored), (20_000, 1_000));
    assert!((latency.p50.unwrap() / 1_000.0 - 1.0).abs() < 0.001, "{latency:?}");
    assert!((latency.p90.unwrap() / 50_000.0 - 1.0).abs() < 0.001, "{latency:?}");
    assert_eq!((latency.p99, latency.max), (None, None));
}

#[test]
fn the_first_outages_of_all_shards_are_listed_and_the_rest_is_counted() {
    let cut = |at: usize| Outage {
        connection: 0,
        lost_at_s: at as f64,
        reconnected_at_s: None,
        recovered_at_s: None,
        reason: "reset".to_owned(),
        unanswered: 0,
        resent: 0,
    };
    let even = shard(0, |results| results.outages = (0..OUTAGES_KEPT).map(|n| cut(2 * n)).collect());
    let odd = shard(1, |results| {
        results.outages = (0..OUTAGES_KEPT).map(|n| cut(2 * n + 1)).collect();
        results.outages_not_listed = 5;
    });
    let merged = LoadTestResults::merge(vec![even, odd]).unwrap();
    assert_eq!(merged.outages, (0..OUTAGES_KEPT).map(cut).collect::<Vec<_>>());
    assert_eq!(merged.outages_not_listed, 5 + OUTAGES_KEPT as u64);
}

#[test]
fn the_worst_part_decides_and_nothing_checked_is_no_pass() {
    use Verdict::{Fail, Inconclusive, Pass, Skipped};
    assert_eq!(Verdict::of_all([Pass, Fail, Inconclusive]), Fail);
    assert_eq!(Verdict::of_all([Pass, Inconclusive, Skipped]), Inconclusive);
    assert_eq!(Verdict::of_all([Skipped, Pass]), Pass);
    assert_eq!(Verdict::of_all([]), Skipped);
}

#[test]
fn what_does_not_belong_together_is_not_merged() {
    assert_eq!(LoadTestResults::merge(Vec::new()), Err(MergeError::Empty));
    let twice = vec![shard(0, |_| {}), shard(0, |_| {})];
    assert!(matches!(LoadTestResults::merge(twice), Err(MergeError::ShardTwice { .. })));
    let other = shard(1, |results| results.workload.payload_bytes = 65);
    let error = LoadTestResults::merge(vec![shard(0, |_| {}), other]).unwrap_err();
    assert_eq!(error, MergeError::DifferentWorkload { field: "payload_bytes" });
}

#[test]
fn json_brings_everything_back() {
    let results = example::clean();
    let text = serde_json::to_string(&results).unwrap();
    assert_eq!(serde_json::from_str::<LoadTestResults>(&text).unwrap(), results);
    assert!(text.contains(r#""schema":"floodline.run/1""#));
    assert!(text.contains(r#""refusal_latency_us":null"#));
}

#[test]
fn results_from_before_a_field_was_added_are_read() {
    let mut json = serde_json::to_value(example::clean()).unwrap();
    for name in ["outages", "outages_not_listed", "last_answer_s", "first_refusal_s"] {
        assert!(json.as_object_mut().unwrap().remove(name).is_some());
    }
    for name in ["repeated", "untimed_due", "untimed_answered"] {
        assert!(json["messages"].as_object_mut().unwrap().remove(name).is_some());
    }
    assert!(json["workload"].as_object_mut().unwrap().remove("ramp_s").is_some());
    assert!(json["connections"].as_object_mut().unwrap().remove("unopened").is_some());
    let read = serde_json::from_value::<LoadTestResults>(json).unwrap();
    assert_eq!(read, LoadTestResults { moments: Moments::default(), ..example::clean() });
}

/// Lost in one shard's ramp, refused in the other's held part: only that ranks, and it alone.
#[test]
fn what_was_due_in_a_ramp_ranks_nowhere() {
    let ramp = |index, untimed_answered: u64, refused: u64| {
        shard(index, |results| {
            results.workload.ramp_s = 1.0;
            let messages = &mut results.messages;
            (messages.due, messages.untimed_due) = (11_000 + refused, 1_000);
            messages.untimed_answered = untimed_answered;
            messages.counts.answered = 10_000 + untimed_answered;
        })
    };
    let (mut first, mut second) = (ramp(0, 600, 0), ramp(1, 1_000, 300));
    for (results, censored) in [(&mut first, 0), (&mut second, 300)] {
        results.measure();
        let latency = results.latency_us.as_ref().unwrap();
        assert_eq!((latency.count, latency.censored), (10_000 + censored, censored));
    }
    let merged = LoadTestResults::merge(vec![first, second]).unwrap();
    let latency = merged.latency_us.unwrap();
    assert_eq!((latency.count, latency.censored), (20_300, 300));
    assert_eq!((latency.p99, latency.p95.is_some()), (None, true));
    assert_eq!((merged.messages.untimed_due, merged.messages.untimed_answered), (2_000, 1_600));
    let other = shard(1, |_| {});
    let error = LoadTestResults::merge(vec![ramp(0, 0, 0), other]).unwrap_err();
    assert_eq!(error, MergeError::DifferentWorkload { field: "ramp_s" });
}

#[test]
fn a_load_as_it_was_opened_is_the_load_without_what_the_generator_did_not_open() {
    let clean = example::clean();
    let mut starved = example::clean();
    let sender = |connection| ConnectionSummary {
        connection,
        due: 1_000,
        counts: Counts { sent: 1_000, answered: 1_000, ..Counts::default() },
        achieved: 1_000,
        latency_p95_at_most_us: Some(1_000.0),
    };
    starved.per_connection = (0..10).map(sender).collect();
    // Two groups of five: three of the last four are of the second, which loses so many copies of each message.
    starved.fan_out = Some(FanOut::new(5, 2_000 * 5 + 5_000 * 5, 30_000, 0, &LatencyHistogram::default()));
    example::starve(&mut starved, 3);
    let latency = starved.latency_us.as_ref().unwrap();
    assert_eq!((latency.count, latency.censored, latency.p90), (10_000, 3_000, None));

    let opened = starved.as_opened();
    assert_eq!((opened.connections.requested, opened.connections.established), (7, 7));
    assert_eq!((opened.messages.due, opened.messages.unsent), (7_000, 0));
    assert_eq!(opened.throughput.offered_rate, Some(700.0));
    assert_eq!(opened.per_connection, (0..7).map(sender).collect::<Vec<_>>());
    let latency = opened.latency_us.as_ref().unwrap();
    assert_eq!((latency.count, latency.censored), (7_000, 0));
    assert_eq!(latency.max, clean.latency_us.as_ref().unwrap().max);
    // 5 and 6 have sent 1,000 each to 7, 8 and 9.
    assert_eq!(opened.fan_out.as_ref().unwrap().expected, 35_000 - 6_000);
    assert_eq!(opened.connections.unopened.connections, [7, 8, 9]);
    // Where nothing is missing, nothing changes.
    assert_eq!(clean.as_opened(), clean);
}

#[test]
fn what_no_shard_opened_adds_up() {
    let starved = |index, missing| shard(index, |results| example::starve(results, missing));
    let merged = LoadTestResults::merge(vec![starved(0, 1), starved(1, 2)]).unwrap();
    let unopened = &merged.connections.unopened;
    assert_eq!((&*unopened.connections, unopened.due), (&[8, 9, 9][..], 3_000));
    assert_eq!(unopened.reasons.values().copied().collect::<Vec<_>>(), [3]);
}

#[test]
fn a_refused_or_lost_message_ranks_above_every_answer() {
    let mut results = example::clean();
    results.messages.counts.answered = 9_900;
    results.messages.counts.refused = 100;
    results.histograms.latency = LatencyHistogram::default();
    (0..9_900).for_each(|_| results.histograms.latency.record(1_000));
    results.measure();
    let latency = results.latency_us.unwrap();
    assert_eq!((latency.count, latency.censored), (10_000, 100));
    assert!(latency.p99.is_some());
    assert_eq!((latency.p999, latency.max), (None, None));
}
