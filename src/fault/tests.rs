//! What rules say and how they are written.

use super::*;
use proptest::prelude::*;

fn rule(text: &str) -> Rule {
    text.parse().unwrap_or_else(|error| panic!("{error}"))
}

const MS: u64 = 1_000_000;

#[test]
fn rules_are_written_as_they_are_read() {
    for text in [
        "latency=20ms,jitter=5ms,share=0.1,from=10s,for=10s",
        "drop=rst,share=0.05,every=1s,times=3",
        "drop=mid-frame,direction=to-client,connections=0+3+7",
        "partition=both,share=0.15,from=10s,for=10s",
        "half-open=client,for=1500ms",
        "slow-reader=10KiB/s",
        "bandwidth=1MiB/s,direction=to-server",
        "corrupt=3,spacing=100B,seed=42",
        "silence=to-client",
    ] {
        assert_eq!(rule(text).to_string(), text);
    }
    assert_eq!(rule("silence"), rule("silence=both"));
    assert_eq!(rule("half-open"), rule("half-open=server"));
    assert_eq!(rule(" for = 60s , corrupt=1,direction=to-client "), rule("corrupt=1,for=1m"));
}

#[test]
fn rules_that_make_no_sense_are_refused_naming_the_value() {
    for (text, named) in [
        ("", "names no fault"),
        ("share=0.1", "names no fault"),
        ("latencey=20ms", "`latencey=20ms`"),
        ("latency=20", "`20` is not a duration"),
        ("latency", "`latency`"),
        ("latency=5ms,jitter=6ms", "`jitter=6ms`"),
        ("latency=200h", "`latency=200h`"),
        ("bandwidth=0B/s", "`bandwidth=0B/s`"),
        ("bandwidth=10KiB", "`bandwidth=10KiB`"),
        ("slow-reader=1.5KiB/s", "`slow-reader=1.5KiB/s`"),
        ("drop=gently", "`drop=gently`"),
        ("drop=rst,direction=both", "`direction=both`"),
        ("drop=rst,jitter=1ms", "`jitter=1ms`"),
        ("partition=sideways", "`partition=sideways`"),
        ("partition,spacing=1", "`spacing=1`"),
        ("half-open=both", "`half-open=both`"),
        ("corrupt=0", "`corrupt=0`"),
        ("corrupt=-1", "`corrupt=-1`"),
        ("corrupt=1,spacing=0", "`spacing=0`"),
        ("silence,share=0", "`share=0`"),
        ("silence,share=1.5", "`share=1.5`"),
        ("silence,share=NaN", "`share=NaN`"),
        ("silence,connections=", "`connections=`"),
        ("silence,connections=1-3", "`connections=1-3`"),
        ("silence,share=0.5,connections=1", "`connections=1`"),
        ("silence,share=0.5,share=0.6", "`share=0.6` after `share=0.5`"),
        ("silence,partition", "`partition` after `silence`"),
        ("silence,every=1s", "`every=1s`"),
        ("silence,every=1s,for=2s", "`for=2s`"),
        ("silence,times=3", "`times=3`"),
        ("drop=fin,every=1s,times=0", "`times=0`"),
        ("drop=fin,every=1us", "`every=1us`"),
        ("silence,for=0", "`for=0`"),
        ("silence,seed=lucky", "`seed=lucky`"),
        ("silence,colour=red", "`colour=red`"),
    ] {
        let error = text.parse::<Rule>().expect_err(text).to_string();
        assert!(error.contains(named) && error.contains(&format!("fault rule `{text}`")), "{text}: {error}");
    }
}

#[test]
fn a_rule_made_in_code_is_checked_alike() {
    let fault = Fault::Bandwidth { bytes_per_s: 0, direction: Direction::Both };
    let error = Rule::new(fault, Scope::All, Schedule::default(), 0).unwrap_err().to_string();
    assert!(error.contains("`bandwidth=0B/s`"), "{error}");
}

#[test]
fn a_drop_meets_the_connections_then_open() {
    let drop = rule("drop=fin,from=10ms,every=10ms,times=3");
    let verdict = drop.verdict(0, 0, None).unwrap();
    assert_eq!((verdict.occurrence, verdict.begins_ns, verdict.ends_ns), (0, 10 * MS, None));
    assert_eq!(drop.verdict(0, 10 * MS, None).unwrap().occurrence, 0);
    assert_eq!(drop.verdict(0, 10 * MS + 1, None).unwrap().occurrence, 1);
    assert_eq!(drop.verdict(0, 30 * MS + 1, None), None);
    // With a length it also meets those that come within it.
    let drop = rule("drop=fin,from=10ms,for=5ms");
    assert_eq!(drop.verdict(0, 15 * MS - 1, None).unwrap().ends_ns, Some(15 * MS));
    assert_eq!(drop.verdict(0, 15 * MS, None), None);
}

#[test]
fn seeds_decide_and_repeat() {
    let met = |seed: u64| -> Vec<u64> {
        let rule = rule(&format!("silence,share=0.1,seed={seed}"));
        (0..1_000).filter(|&connection| rule.verdict(connection, 0, None).is_some()).collect()
    };
    assert_eq!(met(1), met(1));
    assert_ne!(met(1), met(2));
    let drops = rule("drop=fin,share=0.1,every=1s,times=2");
    let met_at = |occurrence: u64| -> Vec<u64> {
        let first =
            |connection: &u64| drops.verdict(*connection, 0, occurrence.checked_sub(1)).map(|v| v.occurrence);
        (0..1_000).filter(|connection| first(connection) == Some(occurrence)).collect()
    };
    assert_ne!(met_at(0), met_at(1), "each occurrence draws anew");
}

fn any_direction() -> impl Strategy<Value = Direction> {
    prop_oneof![Just(Direction::Both), Just(Direction::ToServer), Just(Direction::ToClient)]
}

fn any_fault() -> impl Strategy<Value = Fault> {
    let ns = 0u64..600_000_000_000_000;
    prop_oneof![
        (ns.clone(), ns, any_direction()).prop_map(|(a, b, direction)| Fault::Latency {
            delay: Duration::from_nanos(a.max(b)),
            jitter: Duration::from_nanos(a.min(b)),
            direction,
        }),
        (1u64..=1 << 40, any_direction())
            .prop_map(|(bytes_per_s, direction)| Fault::Bandwidth { bytes_per_s, direction }),
        (1u64..=1 << 40, any_direction())
            .prop_map(|(bytes_per_s, direction)| Fault::SlowReader { bytes_per_s, direction }),
        Just(Fault::Drop(Cut::Fin)),
        Just(Fault::Drop(Cut::Rst)),
        any_direction().prop_map(|direction| Fault::Drop(Cut::MidFrame { direction })),
        prop_oneof![Just(Side::Client), Just(Side::Server)].prop_map(|closed| Fault::HalfOpen { closed }),
        any_direction().prop_map(|direction| Fault::Partition { direction }),
        any_direction().prop_map(|direction| Fault::Silence { direction }),
        (1u32.., 1u64..1 << 62, any_direction()).prop_map(|(times, spacing_bytes, direction)| {
            Fault::Corrupt { times, spacing_bytes, direction }
        }),
    ]
}

fn any_scope() -> impl Strategy<Value = Scope> {
    prop_oneof![
        Just(Scope::All),
        (1_000u32..=1_000_000).prop_map(|millionths| Scope::Share(Share { millionths })),
        prop::collection::vec(any::<u64>(), 1..5).prop_map(Scope::Listed),
    ]
}

/// Valid schedules, in milliseconds.
fn any_schedule() -> impl Strategy<Value = Schedule> {
    let ms = |range: std::ops::Range<u64>| range.prop_map(Duration::from_millis);
    (ms(0..100), prop::option::of(ms(1..20)), prop::option::of(ms(20..50)), prop::option::of(1u32..8))
        .prop_map(|(from, length, every, times)| Schedule {
            from,
            length,
            every,
            times: times.filter(|_| every.is_some()),
        })
}

fn any_rule() -> impl Strategy<Value = Rule> {
    (any_fault(), any_scope(), any_schedule(), any::<u64>())
        .prop_filter_map("valid", |(fault, scope, schedule, seed)| {
            Rule::new(fault, scope, schedule, seed).ok()
        })
}

proptest! {
    #[test]
    fn text_and_rule_are_the_same(rule in any_rule()) {
        let text = rule.to_string();
        prop_assert_eq!(text.parse::<Rule>(), Ok(rule.clone()), "{}", text);
        let json = serde_json::to_string(&rule).unwrap();
        prop_assert_eq!(serde_json::from_str::<Rule>(&json).unwrap(), rule);
    }

    #[test]
    fn no_text_makes_the_reader_panic(text in "[a-z0-9=,.+/ -]{0,60}|(latency|drop|every|for|share)=.{0,20}") {
        if let Ok(rule) = text.parse::<Rule>() {
            prop_assert_eq!(rule.to_string().parse::<Rule>(), Ok(rule));
        }
    }

    #[test]
    fn among_the_first_connections_the_share_is_exact(
        millionths in 1_000u32..=1_000_000, seed: u64, connections in 0u64..3_000,
    ) {
        let share = Share { millionths };
        let drawn = (0..connections).filter(|&connection| share.draws(connection, seed)).count() as f64;
        let expected = connections as f64 * share.as_f64();
        prop_assert!((drawn - expected).abs() <= 1.0, "{drawn} of {connections}, expected {expected}");
    }

    /// Against a walk through every occurrence and the plain meaning of the schedule.
    #[test]
    fn verdicts_are_those_of_a_walk_through_all_occurrences(
        rule in any_rule(), connection in 0u64..100, opened_ms in 0u64..600,
    ) {
        let opened_ns = opened_ms * MS;
        let Schedule { from, length, every, times } = rule.schedule();
        let count = if every.is_none() { 1 } else { times.map_or(40, u64::from) };
        let expected: Vec<u64> = (0..count)
            .filter(|&occurrence| {
                let begins = from + every.unwrap_or_default() * occurrence as u32;
                let opened = Duration::from_nanos(opened_ns);
                let in_time = match length {
                    Some(length) => begins + length > opened,
                    None if rule.fault().lasts() => true,
                    None => begins >= opened,
                };
                let met = match rule.scope() {
                    Scope::All => true,
                    Scope::Listed(numbers) => numbers.contains(&connection),
                    Scope::Share(share) => {
                        share.draws(connection, Draws::new(&[rule.seed(), occurrence]).next())
                    }
                };
                in_time && met
            })
            .collect();
        let mut said = Vec::new();
        let mut after = None;
        while let Some(verdict) = rule.verdict(connection, opened_ns, after) {
            if verdict.occurrence >= count {
                break;
            }
            let begins = from + every.unwrap_or_default() * verdict.occurrence as u32;
            prop_assert_eq!(verdict.begins_ns, nanos(begins));
            prop_assert_eq!(verdict.ends_ns, length.map(|length| nanos(begins + length)));
            said.push(verdict.occurrence);
            after = Some(verdict.occurrence);
        }
        prop_assert_eq!(said, expected);
    }
}
