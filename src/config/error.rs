//! What can be wrong with a configuration, and what of it may be shown.

use std::fmt;
use std::io;
use std::path::PathBuf;

use thiserror::Error;
use toml::Value;

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Nobody set it.
    Default,
    /// This file.
    File(PathBuf),
    /// This environment variable.
    Environment(String),
    /// The caller of [`validate`](super::HighVolumeConfig::validate), by a flag or in code.
    Given,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Environment(variable) => write!(f, "environment, {variable}"),
            Self::Given => f.write_str("as given"),
        }
    }
}

/// The configuration cannot be used. Values of keys that lead to a secret are withheld.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file is not there or not readable as text.
    #[error("file {}: {cause}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// The file is not TOML.
    #[error("file {}, line {line}: {cause}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What the parser expected.
        cause: String,
    },
    /// No such key: a misspelt limit must not leave the default in force.
    #[error("{origin}: unknown key `{key}`{}{}", given(value.as_deref()), suggestion(nearest.as_deref()))]
    UnknownKey {
        /// Where it was set.
        origin: Origin,
        /// Its path in the file, or the variable.
        key: String,
        /// What it was set to; absent for sections, variables and what may be secret.
        value: Option<String>,
        /// The known key with the most similar name.
        nearest: Option<String>,
    },
    /// A value of the wrong type or outside its range.
    #[error("{origin}: `{key}` = {value}: {cause}")]
    Invalid {
        /// Where it was set.
        origin: Origin,
        /// Its path.
        key: String,
        /// The value as TOML.
        value: String,
        /// What is wrong with it.
        cause: String,
    },
    /// Values that cannot all hold.
    #[error("{0}")]
    Contradiction(Contradiction),
    /// TOML cannot hold a number (integers have 63 bits).
    #[error("the configuration cannot be written as TOML: {cause}")]
    NotToml {
        /// What TOML says.
        cause: String,
    },
}

/// Keys that cannot all hold as they are.
#[derive(Debug)]
pub struct Contradiction {
    /// The keys with their values and origins, the one to look at first in front; at least two.
    pub settings: Vec<Setting>,
    /// Why not all of them.
    pub cause: &'static str,
}

/// A key, what it is set to and by whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// Its path.
    pub key: String,
    /// Its value as TOML.
    pub value: String,
    /// Where it was set.
    pub origin: Origin,
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` = {} ({})", self.key, self.value, self.origin)
    }
}

impl fmt::Display for Contradiction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, setting) in self.settings.iter().enumerate() {
            let between = ["", " contradicts ", ", "][place.min(2)];
            write!(f, "{between}{setting}")?;
        }
        write!(f, ": {}", self.cause)
    }
}

fn given(value: Option<&str>) -> String {
    value.map(|value| format!(" = {value}")).unwrap_or_default()
}

fn suggestion(nearest: Option<&str>) -> String {
    nearest.map(|nearest| format!(" (did you mean `{nearest}`?)")).unwrap_or_default()
}

pub(super) const WITHHELD: &str = "(not shown, it may be secret)";

/// The value for a message, withheld where someone may have put a secret.
pub(super) fn shown(key: &str, value: &Value) -> String {
    if is_secret(key, value) { WITHHELD.to_owned() } else { value.to_string() }
}

/// Keys that lead to a token, addresses with credentials or a query, and unknown keys of such a name.
pub(super) fn is_secret(key: &str, value: &Value) -> bool {
    if key == "target.url" {
        return value.as_str().is_none_or(|url| url.contains(['@', '?']));
    }
    // Anything may stand in a header or a query.
    if ["target.headers", "target.query"].contains(&key) {
        return true;
    }
    // The settings of the case of that name are none.
    let key = key.strip_prefix("auth.").unwrap_or(key);
    ["token", "secret", "password", "auth", "key", "login"]
        .iter()
        .any(|word| key.to_lowercase().contains(word))
        && value.as_str() != Some("")
}

/// serde's "invalid type: string \"…\", expected …" without what it quotes.
pub(super) fn withhold(cause: &str) -> String {
    match cause.rsplit_once(", expected ") {
        Some((_, expected)) => format!("expected {expected}"),
        None => cause.to_owned(),
    }
}
