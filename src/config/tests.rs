//! The layers, the refusals with their messages, and the round trip.

use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::{Table, Value};

use super::load::{leaves, variable};
use super::*;

/// Loads with `text` as the file, so that `floodline.toml` of the current directory plays no part.
fn load(text: &str, env: &[(&str, &str)], profile: Option<Profile>) -> Result<HighVolumeConfig, ConfigError> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("some.toml");
    std::fs::write(&path, text).unwrap();
    let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    HighVolumeConfig::load(Some(&path), env, profile)
}

fn refusal(text: &str, env: &[(&str, &str)]) -> String {
    load(text, env, None).unwrap_err().to_string()
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[test]
fn the_later_layer_wins() {
    let file = "profile = \"smoke\"\n[load]\nrate = 7\n[latency]\nduration = \"9s\"\n";
    let config = load(file, &[], None).unwrap();
    assert_eq!((config.profile, config.latency.duration), (Profile::Smoke, Duration::from_secs(9)));
    assert_eq!(config.load.rate.as_per_second(), 7.0);
    assert_eq!(config.memory.idle, HighVolumeConfig::for_profile(Profile::Smoke).memory.idle);

    let env = [("FLOODLINE_PROFILE", "full"), ("FLOODLINE_LOAD_RATE", "8"), ("HOME", "x")];
    let config = load(file, &env, None).unwrap();
    assert_eq!((config.profile, config.memory.idle), (Profile::Full, Duration::from_secs(120)));
    assert_eq!(config.load.rate.as_per_second(), 8.0);

    let config = load(file, &env, Some(Profile::Quick)).unwrap();
    assert_eq!(config.profile, Profile::Quick);
    assert_eq!(config.latency.duration, Duration::from_secs(9));
    assert_eq!(load("", &[], None).unwrap(), HighVolumeConfig::default());
}

#[test]
fn the_effective_configuration_reads_back_unchanged() {
    for profile in Profile::ALL {
        let mut config = HighVolumeConfig::for_profile(profile);
        config.target.url = Some("wss://example.org/ws".to_owned());
        config.target.token_file = Some("/run/secrets/it \"quoted\"".to_owned());
        config.load.answer_timeout = Duration::from_nanos(1_500_000_001);
        config.latency.limits.variation = 0.1 + 0.2;
        config.rates = [0.5, 7.25, 1e9].map(|rate| Rate::per_second(rate).unwrap()).to_vec();
        assert_eq!(load(&config.to_toml().unwrap(), &[], None).unwrap(), config);
    }
}

#[test]
fn each_key_is_set_by_its_variable_and_no_two_share_one() {
    let default = HighVolumeConfig::default();
    let keys = leaves(&Table::try_from(&default).unwrap());
    assert!(keys.len() > 110, "{}", keys.len());
    let mut names: Vec<_> = keys.iter().map(|(key, _)| variable(key)).collect();
    for short in ["FLOODLINE_TARGET", "FLOODLINE_DIALECT", "FLOODLINE_TOKEN_ENV"] {
        assert!(!names.contains(&short.to_owned()));
    }
    names.sort();
    names.dedup();
    assert_eq!(names.len(), keys.len());
    for (key, value) in &keys {
        let same = load("", &[(&variable(key), &plain(value))], None).unwrap();
        assert_eq!(same, default, "{key} set to its own value {value}");
        let misspelt = format!("{}X", variable(key));
        let error = refusal("", &[(&misspelt, "1")]);
        assert!(error.contains(&format!("`{misspelt}`")), "{error}");
        assert!(error.contains(&format!("did you mean `{}`", variable(key))), "{error}");
    }
}

/// A value other than the default arrives in the field of that key and in no other.
#[test]
fn each_variable_reaches_its_own_key_only() {
    let default = Table::try_from(HighVolumeConfig::default()).unwrap();
    let mut reached = 0;
    for (key, value) in leaves(&default) {
        let Some(other) = another(&key, &value) else { continue };
        // Some neighbours are contradicted by the change: then the message must name this very variable.
        match load("", &[(&variable(&key), &other)], None) {
            Err(ConfigError::Contradiction(conflict)) => {
                let origin = Origin::Environment(variable(&key));
                assert!(
                    conflict.settings.iter().any(|setting| setting.origin == origin),
                    "{key}: {conflict}"
                );
            }
            Err(error) => panic!("{key} = {other}: {error}"),
            Ok(config) => {
                let changed = leaves(&Table::try_from(&config).unwrap());
                let differing: Vec<_> = changed
                    .into_iter()
                    .zip(leaves(&default))
                    .filter(|(now, before)| now != before)
                    .map(|(now, _)| now.0)
                    .collect();
                assert_eq!(differing, [key.as_str()]);
                reached += 1;
            }
        }
    }
    assert!(reached > 90, "only {reached} keys were changed without a contradiction");
}

fn another(key: &str, value: &Value) -> Option<String> {
    Some(match value {
        Value::Integer(number) => (number + 1).to_string(),
        Value::Float(number) => (number * 0.999).to_string(),
        Value::String(text) => match text.parse::<Profile>() {
            Ok(_) => return None,
            Err(_) if crate::units::parse_duration(text).is_ok() => {
                let longer = crate::units::parse_duration(text).unwrap() + Duration::from_millis(1);
                text::exact_duration(longer)
            }
            Err(_) if key == "dialect.echo.frames" => "binary".to_owned(),
            Err(_) if key == "load.arrival" => "poisson".to_owned(),
            Err(_) if key == "load.pacer" => "coalesce=1ms".to_owned(),
            Err(_) if key == "target.url" => "ws://localhost:1".to_owned(),
            Err(_) => "OTHER".to_owned(),
        },
        Value::Boolean(yes) => (!yes).to_string(),
        Value::Array(_) => "1,250".to_owned(),
        other => panic!("{key} has no test value for {other}"),
    })
}

#[test]
fn a_value_that_makes_no_sense_is_refused_with_file_key_and_value() {
    for (key, value, cause) in [
        ("limits.p50", "\"-1s\"", "between 0 and a year"),
        ("limits.p50", "5", "a duration in quotes"),
        ("limits.p50", "\"0s\"", "above 0"),
        ("limits.p50", "\"10 parsecs\"", "is not a duration"),
        ("limits.delivery_ratio", "1.1", "between 0 and 1"),
        ("limits.delivery_ratio", "nan", "between 0 and 1"),
        ("limits.duplicate_ratio", "-0.1", "between 0 and 1"),
        ("limits.foreign_cpu_cores", "inf", "finite"),
        ("memory.limits.leak_bytes_per_message", "nan", "finite"),
        ("limits.memory_growth_bytes", "-1", "a size above 0"),
        ("limits.memory_growth_bytes", "0", "above 0"),
        ("load.payload_bytes", "\"1 parsec\"", "is not a size"),
        ("load.connections", "\"many\"", "expected u32"),
        ("load.connections", "-1", "expected u32"),
        ("load.connections", "0", "above 0"),
        ("load.rate", "nan", "above 0 and at most 1e9"),
        ("load.rate", "true", "expected f64"),
        ("load.arrival", "\"often\"", "`uniform` or `poisson`"),
        ("load.pacer", "\"nap\"", "`timer`, `spin`"),
        ("load.pacer", "\"coalesce=0ms\"", "above 0"),
        ("latency.duration", "\"0s\"", "above 0"),
        ("rates", "[]", "must not be empty"),
        ("rates", "[5, 5]", "must ascend"),
        ("rates", "[5, 1]", "must ascend"),
        ("rates", "{ a = 1 }", "expected a sequence"),
        ("connections", "[]", "must not be empty"),
        ("connections", "[0, 1]", "above 0"),
        ("connections", "[10, 1]", "must ascend"),
        ("profile", "\"huge\"", "`smoke`, `quick` or `full`"),
        ("profile", "3", "`smoke`, `quick` or `full`"),
        ("target.dialect", "\"\"", "must not be empty"),
        ("dialect.echo.frames", "\"smoke\"", "`text` or `binary`"),
        ("dialect.fan_out", "0", "above 0"),
        ("dialect.mqtt.qos", "-1", "expected u8"),
        ("target.url", "\"http://localhost\"", "ws:// or wss://"),
        ("target.url", "\"ws:///ws\"", "no host"),
        ("load", "5", "expected the section [load]"),
    ] {
        let error = refusal(&format!("{key} = {value}\n"), &[]);
        let named = error.contains("some.toml") && error.contains(&format!("`{key}` = "));
        let shown = value.starts_with('[') || value.starts_with('{') || error.contains(value);
        assert!(named && shown && error.contains(cause), "{key} = {value}: {error}");
    }
}

#[test]
fn a_variable_that_makes_no_sense_is_refused_by_name() {
    for (variable, value, key, cause) in [
        ("FLOODLINE_LIMITS_P95", "soon", "limits.p95", "is not a duration"),
        ("FLOODLINE_LOAD_CONNECTIONS", "1e3", "load.connections", "expected u32"),
        ("FLOODLINE_RATES", "", "rates", "must not be empty"),
        ("FLOODLINE_RATES", "1,x", "rates", "expected f64"),
        ("FLOODLINE_PROFILE", "", "profile", "`smoke`, `quick` or `full`"),
        ("FLOODLINE_LIMITS_DELIVERY_RATIO", "2", "limits.delivery_ratio", "between 0 and 1"),
    ] {
        let error = refusal("", &[(variable, value)]);
        assert!(error.starts_with(&format!("environment, {variable}: `{key}` = ")), "{error}");
        assert!(error.contains(cause), "{error}");
    }
    assert_eq!(load("", &[("FLOODLINE_RATES", "[1, 2.5]")], None).unwrap().rates.len(), 2);
    assert_eq!(
        load("", &[("FLOODLINE_LOAD_PAYLOAD_BYTES", "2KiB")], None).unwrap().load.payload_bytes,
        2_048
    );
}

#[test]
fn short_forms_set_their_keys_and_must_agree_with_the_long_form() {
    let env = [
        ("FLOODLINE_TARGET", "ws://localhost:9/ws"),
        ("FLOODLINE_TARGET_URL", "ws://localhost:9/ws"),
        ("FLOODLINE_DIALECT", "echo"),
        ("FLOODLINE_TOKEN_ENV", "FLOODLINE_TOKEN"),
        ("FLOODLINE_TOKEN", "eyJ"),
    ];
    let target = load("", &env, None).unwrap().target;
    assert_eq!(target.url.as_deref(), Some("ws://localhost:9/ws"));
    assert_eq!((target.dialect.as_str(), target.token_env.as_deref()), ("echo", Some("FLOODLINE_TOKEN")));
    let error = refusal("", &[("FLOODLINE_DIALECT", "echo"), ("FLOODLINE_TARGET_DIALECT", "floodline")]);
    assert!(error.contains("FLOODLINE_DIALECT sets it to something else"), "{error}");
}

#[test]
fn unknown_keys_are_refused_with_the_nearest() {
    for (text, key, nearest) in [
        ("[limits]\np96 = \"1s\"\n", "limits.p96", Some("limits.p9")),
        ("[limit]\np95 = \"1s\"\n", "limit", Some("limits")),
        ("p99 = \"1s\"\n", "p99", Some("limits.p99")),
        ("[latency.limits]\ntrends = \"1s\"\n", "latency.limits.trends", Some("latency.limits.trend")),
        ("zzzzzzzzzzz = 1\n", "zzzzzzzzzzz", None),
    ] {
        let error = refusal(text, &[]);
        assert!(error.contains("some.toml") && error.contains(&format!("unknown key `{key}`")), "{error}");
        match nearest {
            Some(nearest) => assert!(error.contains(&format!("did you mean `{nearest}")), "{error}"),
            None => assert!(!error.contains("did you mean") && error.contains("= 1"), "{error}"),
        }
    }
}

#[test]
fn secrets_appear_in_no_message() {
    const SECRET: &str = "s3cr3t-v4lue";
    let quoted = format!("\"{SECRET}\"");
    let messages = [
        refusal(&format!("[target]\ntoken = {quoted}\n"), &[]),
        refusal(&format!("[target]\ntoken_env = {quoted}\n"), &[]),
        refusal(&format!("[target]\nurl = \"ws://me:{SECRET}@host/\"\n"), &[]),
        refusal(&format!("[target]\nurl = [{quoted}]\n"), &[]),
        refusal(&format!("[target]\ntoken_env = {quoted} {quoted}\n"), &[]),
        refusal("", &[("FLOODLINE_TOKEN_ENV", SECRET)]),
        refusal("", &[("FLOODLINE_TOKEN", SECRET)]),
        refusal(&format!("[target]\ntoken_file = {quoted}\ntoken_env = \"NAME\"\n"), &[]),
    ];
    for message in messages {
        assert!(!message.contains(SECRET), "{message}");
    }
}

#[test]
fn contradictions_name_both_keys_with_their_values_and_origins() {
    let error = refusal("limits.p50 = \"300ms\"\n", &[]);
    assert!(error.starts_with("`limits.p50` = \"300ms\" (file "), "{error}");
    assert!(
        error.ends_with("contradicts `limits.p95` = \"200ms\" (default): no P50 is above its P95"),
        "{error}"
    );
    let error = refusal("", &[("FLOODLINE_LIMITS_P99", "100ms")]);
    assert!(error.contains("`limits.p99` = \"100ms\" (environment, FLOODLINE_LIMITS_P99)"), "{error}");
}

/// One setting for every check in `check.rs`.
#[test]
fn every_contradiction_is_found() {
    let cases = [
        ("target.token_env = \"A\"\ntarget.token_file = \"b\"", "target.token_env"),
        ("target.client_cert = \"a.pem\"", "target.client_cert"),
        ("limits.p50 = \"300ms\"", "limits.p50"),
        ("limits.p95 = \"600ms\"", "limits.p95"),
        ("rate_scaling.limits.linear_up_to = 8000", "rate_scaling.limits.linear_up_to"),
        ("rates = [100, 6000]", "rate_scaling.limits.linear_up_to"),
        ("rate_scaling.limits.timed_up_to = 50", "rate_scaling.limits.timed_up_to"),
        ("delivery.kill_period = \"20s\"", "delivery.kill_period"),
        ("delivery.connections = 5", "delivery.cut_ratio"),
        ("backpressure.rate = 500", "backpressure.rate"),
        ("backpressure.messages = 6000", "backpressure.messages"),
        ("backpressure.baseline_rate = 500", "backpressure.baseline_rate"),
        ("backpressure.answer_timeout = \"9s\"", "backpressure.answer_timeout"),
        ("limits.queue_recovery_within = \"9s\"", "limits.queue_recovery_within"),
        ("backpressure.limits.overflow_within = \"6s\"", "backpressure.limits.overflow_within"),
        ("latency.rate = 999", "latency.rate"),
        ("latency.duration = \"2s\"", "latency.duration"),
        ("connections = [1, 10]", "connection_scaling.limits.p95_at_connections"),
        ("connections = [250]", "connections"),
        ("memory.warm_up = \"30s\"", "memory.warm_up"),
        ("peak.start_rate = 2000000", "peak.start_rate"),
        ("peak.start_rate = 1\npeak.ceiling_rate = 9000", "limits.peak_rate"),
        ("peak.resolution_ratio = 0", "peak.resolution_ratio"),
        ("recovery.ping_every = \"3s\"", "recovery.ping_every"),
        ("recovery.fault = \"3s\"", "recovery.peer_dead_after"),
        ("recovery.drop_ratio = 0.01", "recovery.drop_ratio"),
        ("recovery.partition_ratio = 0.01", "recovery.partition_ratio"),
        ("recovery.silence_ratio = 0.01", "recovery.silence_ratio"),
        ("recovery.drop_ratio = 1.0", "recovery.drop_ratio"),
        ("recovery.partition_ratio = 1.0", "recovery.partition_ratio"),
        ("recovery.silence_ratio = 1.0", "recovery.silence_ratio"),
        ("recovery.concurrency = 1", "recovery.rate"),
        ("recovery.overload_factor = 1.0", "recovery.overload_factor"),
        ("recovery.overload_time_ratio = 0.0", "recovery.overload_time_ratio"),
        ("recovery.overload_factor = 100.0", "recovery.overload_factor"),
        ("memory.rate = 0.001", "memory.fill_messages"),
        ("delivery.processing = \"5s\"", "delivery.processing"),
        ("delivery.rate = 0.001", "delivery.messages"),
    ];
    for (text, key) in cases {
        match load(text, &[], None) {
            Err(ConfigError::Contradiction(conflict)) => {
                assert_eq!(conflict.settings[0].key, key, "{text}: {conflict}")
            }
            other => panic!("{text}: {other:?}"),
        }
    }
    assert_eq!(cases.len(), check::count(), "a check without a case here");
}

#[test]
fn fields_set_in_code_are_checked_like_the_rest() {
    let mut config = HighVolumeConfig::default();
    config.limits.delivery_ratio = f64::NAN;
    let error = config.validate().unwrap_err().to_string();
    assert_eq!(error, "as given: `limits.delivery_ratio` = nan: a ratio is between 0 and 1");
    config.limits.delivery_ratio = 1.0;
    config.load.connections = 0;
    assert!(config.validate().unwrap_err().to_string().contains("`load.connections` = 0"));
    config.load.connections = 1;
    config.limits.p50 = Duration::from_secs(1);
    assert!(config.validate().unwrap_err().to_string().contains("`limits.p50` = \"1s\" (as given)"));
    config.limits.p50 = Duration::from_millis(1);
    config.validate().unwrap();
    config.load.seed = u64::MAX;
    assert!(matches!(config.validate(), Err(ConfigError::NotToml { .. })));
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let missing = Path::new("/no/such/floodline.toml");
    let error = HighVolumeConfig::load(Some(missing), std::iter::empty(), None).unwrap_err();
    assert!(matches!(&error, ConfigError::Unreadable { path, .. } if path == missing), "{error}");
    let error = refusal("[limits]\np50 = = 1\n", &[]);
    assert!(error.contains("some.toml, line 2: "), "{error}");
}

#[test]
fn the_file_of_the_current_directory_may_be_absent_but_not_broken() {
    let dir = tempfile::tempdir().unwrap();
    let path: PathBuf = dir.path().join("floodline.toml");
    assert!(load::read_if_exists(&path).unwrap().is_none());
    std::fs::write(&path, "[load]\nrate = 5\n").unwrap();
    let (found, table) = load::read_if_exists(&path).unwrap().unwrap();
    assert_eq!((found, table.contains_key("load")), (path.clone(), true));
    std::fs::write(&path, "[load").unwrap();
    assert!(matches!(load::read_if_exists(&path), Err(ConfigError::Syntax { .. })));
}
