//! What holds for every case: the target, the load of `floodline load`, and the shared limits.

use std::time::Duration;

use serde::de::{self, Deserialize, Deserializer};

use super::section::{rate, section};
use super::text;
use crate::units::{self, Rate};

section! {
    /// `[target]`: the service under test. Secrets are never held here, only the name of where they are.
    TargetConfig {
        /// The `ws://` or `wss://` address; absent (`""`), the own server is started. No user or
        /// password in it.
        #[serde(serialize_with = "text::optional::serialize", deserialize_with = "url")]
        url: Option<String> = None,
        /// What to send and how an answer is recognised; the names are those of the dialects.
        #[serde(deserialize_with = "word")]
        dialect: String = "floodline".to_owned(),
        /// The environment variable that holds the bearer token; absent (`""`), none is sent.
        #[serde(serialize_with = "text::optional::serialize", deserialize_with = "variable_name")]
        token_env: Option<String> = None,
        /// The file that holds the bearer tokens, one a line, dealt to the connections in turn; absent (`""`), none is
        /// read.
        #[serde(with = "text::optional")]
        token_file: Option<String> = None,
        /// Where the token goes: `bearer` (the `Authorization` header), `header=NAME` or `query=NAME`.
        #[serde(deserialize_with = "word")]
        token_in: String = "bearer".to_owned(),
        /// Headers of the handshake, each `NAME: VALUE`. No place for a secret.
        headers: Vec<String> = Vec::new(),
        /// Subprotocols that the handshake offers.
        subprotocols: Vec<String> = Vec::new(),
        /// What is added to the query of the URL, each `KEY=VALUE`. No place for a secret.
        query: Vec<String> = Vec::new(),
        /// The `Host` header; absent (`""`), that of the URL.
        #[serde(with = "text::optional")]
        host: Option<String> = None,
        /// The file of the certificate authorities (PEM) that a `wss://` server is trusted by; absent (`""`), the system's.
        #[serde(with = "text::optional")]
        ca: Option<String> = None,
        /// The file of the client's certificate chain (PEM); absent (`""`), none is shown.
        #[serde(with = "text::optional")]
        client_cert: Option<String> = None,
        /// The file of its private key (PEM).
        #[serde(with = "text::optional")]
        client_key: Option<String> = None,
        /// The name that is asked for (SNI) and must stand in the server's certificate; absent (`""`), the URL's host.
        #[serde(with = "text::optional")]
        server_name: Option<String> = None,
        /// Whether any certificate is taken, whoever shows it. Said in every result.
        insecure: bool = false,
        /// The command that kills the target and starts it again; absent (`""`), it is left alone.
        #[serde(with = "text::optional")]
        restart_command: Option<String> = None,
        /// Hosts beyond this machine that may be loaded, as they stand in the URL.
        i_may_load: Vec<String> = Vec::new(),
    }
}

section! {
    /// `[guard]`: what no `load`, `test` or `peak` goes beyond. The defaults leave room for all cases at every size.
    GuardConfig {
        /// Messages per second over all connections. Bursts are slowed to it, the search for the peak ends there, and a
        /// load that is to be faster is refused.
        max_rate: Rate = rate(1_000_000),
        /// Connections at once; a load that wants more is refused.
        #[serde(with = "text::count")]
        max_connections: u32 = 10_000,
        /// How long all loads of a run may take together. One that is planned to take longer is refused, and one that does
        /// is ended.
        #[serde(with = "text::duration")]
        time_limit: Duration = Duration::from_secs(2 * 3_600),
    }
}

section! {
    /// `[load]`: what `floodline load` offers where no flag says otherwise, and what all cases have in common.
    LoadConfig {
        /// Messages per second over all connections.
        rate: Rate = rate(10_000),
        /// Connections that share the rate.
        #[serde(with = "text::count")]
        connections: u32 = 100,
        /// How long the load is offered.
        #[serde(with = "text::duration")]
        duration: Duration = Duration::from_secs(10),
        /// Length of a message's content.
        #[serde(with = "text::size")]
        payload_bytes: u64 = 1_024,
        /// Messages in flight per connection where the rate is `max`.
        #[serde(with = "text::count")]
        window: u32 = 32,
        /// A message without an answer for so long after its last send is lost.
        #[serde(with = "text::duration")]
        answer_timeout: Duration = Duration::from_secs(30),
        /// The law of the due instants: `uniform` or `poisson`.
        #[serde(deserialize_with = "arrival")]
        arrival: String = "uniform".to_owned(),
        /// From it come contents, arrivals and fault positions; the same seed gives the same run.
        seed: u64 = 1,
        /// What wakes a worker at the due instant: `timer`, `spin` or `coalesce=DURATION`.
        #[serde(deserialize_with = "pacer")]
        pacer: String = "timer".to_owned(),
        /// The load of a case rises and falls for so long, in which messages are accounted for but not timed.
        /// Scaled by the profile.
        #[serde(with = "text::duration_or_zero")]
        ramp: Duration = Duration::from_secs(10),
    }
}

section! {
    /// `[limits]`: the limits that cases share. No profile changes one.
    Limits {
        /// The rate that `peak` must reach, at least.
        peak_rate: Rate = rate(10_000),
        /// The median latency from the due instant must stay under it.
        #[serde(with = "text::duration")]
        p50: Duration = Duration::from_millis(50),
        /// The 95th percentile must stay under it.
        #[serde(with = "text::duration")]
        p95: Duration = Duration::from_millis(200),
        /// The 99th percentile must stay under it.
        #[serde(with = "text::duration")]
        p99: Duration = Duration::from_millis(500),
        /// Answered ÷ due must reach it.
        #[serde(with = "text::ratio")]
        delivery_ratio: f64 = 0.999,
        /// Duplicates ÷ messages must not exceed it (1 per 1,000).
        #[serde(with = "text::ratio")]
        duplicate_ratio: f64 = 0.001,
        /// Achieved ÷ offered rate must reach it, in `rate_scaling` at each step and in `floodline load`.
        #[serde(with = "text::ratio")]
        achieved_ratio: f64 = 0.99,
        /// A process's memory must not grow by more (200 MB, powers of 1000).
        #[serde(with = "text::size")]
        memory_growth_bytes: u64 = 200_000_000,
        /// From the instant at which the queue must be full to the `backpressure` signal: the most that any service
        /// may take.
        #[serde(with = "text::duration")]
        backpressure_within: Duration = Duration::from_secs(5),
        /// The queue must be empty so long after the load stops.
        #[serde(with = "text::duration")]
        queue_recovery_within: Duration = Duration::from_secs(30),
        /// A timing criterion that fails is inconclusive where other processes took more than so many cores.
        #[serde(with = "text::positive")]
        foreign_cpu_cores: f64 = 0.1,
        /// … or where the send lateness's P99 is above this share of the limit.
        #[serde(with = "text::ratio")]
        lateness_ratio: f64 = 0.1,
    }
}

/// Refuses an address that carries credentials: it is printed in reports.
fn url<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    let Some(url) = text::optional::deserialize(from)? else { return Ok(None) };
    let Some(rest) = url.strip_prefix("ws://").or_else(|| url.strip_prefix("wss://")) else {
        return Err(de::Error::custom("the address must begin with ws:// or wss://"));
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if authority.contains('@') {
        return Err(de::Error::custom(
            "credentials do not belong in the address: use token_env or token_file",
        ));
    }
    if authority.is_empty() {
        return Err(de::Error::custom("the address has no host"));
    }
    Ok(Some(url))
}

/// Takes the name of a variable, so that a token pasted by mistake is refused in most forms (and is
/// shown in no message).
fn variable_name<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    let Some(name) = text::optional::deserialize(from)? else { return Ok(None) };
    let mut letters = name.chars();
    let starts = letters.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_');
    if starts && letters.all(|c| c.is_ascii_alphanumeric() || c == '_') {
        Ok(Some(name))
    } else {
        Err(de::Error::custom("expected the name of an environment variable, not the token itself"))
    }
}

fn word<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    let word = String::deserialize(from)?;
    if word.is_empty() { Err(de::Error::custom("must not be empty")) } else { Ok(word) }
}

fn arrival<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    let name = String::deserialize(from)?;
    if matches!(name.as_str(), "uniform" | "poisson") {
        Ok(name)
    } else {
        Err(de::Error::custom("expected `uniform` or `poisson`"))
    }
}

fn pacer<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    let name = String::deserialize(from)?;
    match name.strip_prefix("coalesce=") {
        Some(step) => match units::parse_duration(step) {
            Ok(step) if !step.is_zero() => Ok(name),
            Ok(_) => Err(de::Error::custom("the step of coalesce must be above 0")),
            Err(error) => Err(de::Error::custom(error)),
        },
        None if matches!(name.as_str(), "timer" | "spin") => Ok(name),
        None => Err(de::Error::custom("expected `timer`, `spin` or `coalesce=DURATION`")),
    }
}
