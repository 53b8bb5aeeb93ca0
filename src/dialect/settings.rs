//! What the dialects need to be told, and the dialect that follows from it.

use std::fmt;

use super::{
    AnyDialect, DialectError, DialectKind, Echo, Floodline, FrameKind, Json, Mqtt, Nats, RequestKind,
    Socketio, Stomp,
};
use crate::config::{DialectConfig, EchoFrames};
use crate::secrets::Secrets;

/// What the dialects need to be told, by configuration and flags, secrets included: printing it shows none of it.
#[derive(Clone, Default)]
pub struct DialectSettings {
    config: DialectConfig,
    credentials: Credentials,
    /// What came from the environment.
    secrets: Secrets,
}

/// Who we are to a server that asks: printing it shows no password.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Credentials {
    /// The user's name.
    pub user: Option<String>,
    /// The password, or a token where there is no user.
    pub password: Option<String>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("user", &self.user).finish_non_exhaustive()
    }
}

impl fmt::Debug for DialectSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DialectSettings(…)")
    }
}

impl DialectSettings {
    /// What `config` says, with the secrets of the environment that it names; `variable` gives those.
    ///
    /// # Errors
    /// Where it names a variable that is not there.
    pub fn new(
        mut config: DialectConfig,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, DialectError> {
        let secrets = Secrets::default();
        let secret = |name: &str| variable(name).inspect(|value| learn(&secrets, value));
        config.json.login = with_variables(&config.json.login, secret)
            .map_err(|name| DialectError::NoVariable { key: "json.login", flag: "--json-login", name })?;
        let missing = |name| DialectError::NoVariable { key: "password_env", flag: "--password-env", name };
        let password = config.password_env.clone().map(|name| secret(&name).ok_or_else(|| missing(name)));
        let password = password.transpose()?;
        // A STOMP header is a line, and no other protocol knows such a password either.
        if password.as_ref().is_some_and(|password| password.contains(char::is_control)) {
            let (flag, key) = ("--password-env".to_owned(), "password_env".to_owned());
            let value = config.password_env.unwrap_or_default();
            return Err(DialectError::Setting { flag, key, value, cause: "it holds control characters" });
        }
        let credentials = Credentials { user: config.user.clone(), password };
        Ok(Self { config, credentials, secrets })
    }

    /// How many connections subscribe to one topic.
    #[must_use]
    pub fn fan_out(&self) -> u32 {
        self.config.fan_out
    }

    /// The dialect of that kind, for payloads of `payload_bytes` bytes.
    ///
    /// # Errors
    /// Where the settings make no sense, or the payload is too small.
    pub fn dialect(
        &self,
        kind: DialectKind,
        seed: u64,
        payload_bytes: usize,
    ) -> Result<AnyDialect, DialectError> {
        let config = &self.config;
        let (credentials, subscribers) = (self.credentials.clone(), config.fan_out);
        let dialect = match kind {
            DialectKind::Floodline => {
                AnyDialect::new(Floodline::new(seed, payload_bytes, RequestKind::default(), None))
            }
            DialectKind::Echo => {
                let frames = match config.echo.frames {
                    EchoFrames::Text => FrameKind::Text,
                    EchoFrames::Binary => FrameKind::Binary,
                };
                AnyDialect::new(Echo::new(seed, payload_bytes)?.frames(frames))
            }
            DialectKind::Json => AnyDialect::new(Json::new(seed, payload_bytes, &config.json)?),
            DialectKind::Mqtt => {
                AnyDialect::new(Mqtt::new(seed, payload_bytes, &config.mqtt, credentials, subscribers)?)
            }
            DialectKind::Nats => {
                AnyDialect::new(Nats::new(seed, payload_bytes, &config.nats, credentials, subscribers)?)
            }
            DialectKind::Stomp => {
                AnyDialect::new(Stomp::new(seed, payload_bytes, &config.stomp, credentials, subscribers)?)
            }
            DialectKind::Socketio => AnyDialect::new(Socketio::new(seed, payload_bytes, &config.socketio)?),
        };
        Ok(dialect.hiding(self.secrets.clone()))
    }
}

/// A variable's value is not to be shown, nor what it stands for where it was put into JSON escaped already.
fn learn(secrets: &Secrets, value: &str) {
    secrets.learn(value);
    if let Ok(text) = serde_json::from_str::<String>(&format!("\"{value}\"")) {
        secrets.learn(&text);
    }
}

/// A text with each `{env:NAME}` replaced; the name of the first variable that is not there.
fn with_variables(text: &str, variable: impl Fn(&str) -> Option<String>) -> Result<String, String> {
    let mut parts = text.split("{env:");
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (name, rest) = part.split_once('}').unwrap_or((part, ""));
        out += &variable(name).ok_or_else(|| name.to_owned())?;
        out += rest;
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::JsonConfig;

    #[test]
    fn a_secret_comes_from_the_environment_and_is_not_shown() {
        let variable = |name: &str| (name == "TOKEN").then(|| "s3cret".to_owned());
        let of = |login: &str| {
            let json = JsonConfig { login: login.to_owned(), ..JsonConfig::default() };
            DialectSettings::new(DialectConfig { json, ..DialectConfig::default() }, variable)
        };
        let settings = of(r#"{"a":"{env:TOKEN}","b":"{env:TOKEN}"}"#).unwrap();
        assert_eq!(settings.config.json.login, r#"{"a":"s3cret","b":"s3cret"}"#);
        assert!(!format!("{settings:?}").contains("s3cret"));
        let error = of("{env:TOKEN} {env:OTHER}").unwrap_err().to_string();
        assert!(error.contains("--json-login") && error.contains("OTHER"), "{error}");
        assert_eq!(of("{plain}").unwrap().config.json.login, "{plain}");
        let password = |name: &str| {
            let password_env = Some(name.to_owned());
            let config = DialectConfig { password_env, ..DialectConfig::default() };
            DialectSettings::new(config, |name| (name == "PASS").then(|| "a\nb".to_owned()))
        };
        for (name, cause) in [("PASS", "control characters"), ("NONE", "no environment variable")] {
            let error = password(name).unwrap_err().to_string();
            assert!(error.contains("--password-env") && error.contains(cause), "{error}");
        }
    }
}
