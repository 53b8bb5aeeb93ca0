//! The tokens that a server knows: whose each is, and for how long it is good.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use thiserror::Error;

use super::config::{Secret, ServerConfigError};
use crate::units::{self, UnitError};

/// A bearer token, whose it is, and for how long it is good.
#[derive(Debug, Clone)]
pub struct KnownToken {
    secret: Secret,
    /// Whose it is. Never shown to anybody but the faults that mix identities up.
    identity: String,
    /// From its first handshake on; for ever, where there is none.
    lifetime: Option<Duration>,
    first_used: OnceLock<Instant>,
}

/// A list of tokens cannot be read. No token is shown.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum TokensError {
    /// A line is not as it should be.
    #[error("line {line}: expected TOKEN [IDENTITY [LIFETIME]]{}", cause.as_ref().map(|cause| format!(": {cause}")).unwrap_or_default())]
    Line {
        /// Counted from 1.
        line: usize,
        /// What is wrong with its lifetime.
        cause: Option<UnitError>,
    },
    /// There is none.
    #[error("there is no token in it")]
    Empty,
}

impl KnownToken {
    /// One that belongs to `identity`, and is good for `lifetime` from its first handshake on.
    #[must_use]
    pub fn new(token: impl Into<String>, identity: impl Into<String>, lifetime: Option<Duration>) -> Self {
        let (secret, identity) = (Secret::new(token), identity.into());
        Self { secret, identity, lifetime, first_used: OnceLock::new() }
    }

    /// A list: a line each, `TOKEN`, `TOKEN IDENTITY` or `TOKEN IDENTITY LIFETIME`. What has no identity has one of its
    /// own. Empty lines, and those that begin with `#`, are passed over.
    ///
    /// # Errors
    /// At the first line that is something else, or where there is no token.
    pub fn list(text: &str) -> Result<Vec<Self>, TokensError> {
        let lines = (1..).zip(text.lines().map(str::trim));
        let lines = lines.filter(|(_, text)| !text.is_empty() && !text.starts_with('#'));
        let tokens: Result<Vec<Self>, _> = lines.map(|(line, text)| Self::of_line(line, text)).collect();
        match tokens {
            Ok(tokens) if tokens.is_empty() => Err(TokensError::Empty),
            tokens => tokens,
        }
    }

    fn of_line(line: usize, text: &str) -> Result<Self, TokensError> {
        let parts: Vec<&str> = text.split_whitespace().collect();
        let lifetime = |text: &str| {
            units::parse_duration(text).map_err(|cause| TokensError::Line { line, cause: Some(cause) })
        };
        match *parts.as_slice() {
            [token] => Ok(Self::new(token, format!("line {line}"), None)),
            [token, identity] => Ok(Self::new(token, identity, None)),
            [token, identity, good_for] => Ok(Self::new(token, identity, Some(lifetime(good_for)?))),
            _ => Err(TokensError::Line { line, cause: None }),
        }
    }

    pub(super) fn validate(&self) -> Result<(), ServerConfigError> {
        if self.secret.is_sendable() { Ok(()) } else { Err(ServerConfigError::Token) }
    }

    pub(super) fn identity(&self) -> &str {
        &self.identity
    }

    pub(super) fn matches(&self, given: &[u8]) -> bool {
        self.secret.matches(given)
    }

    /// When it is good no more, now that it is used.
    pub(super) fn expires_at(&self, now: Instant) -> Option<Instant> {
        let lifetime = self.lifetime?;
        self.first_used.get_or_init(|| now).checked_add(lifetime)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_read_line_by_line_and_never_shown() {
        let text = "# ours\nt0k-a alice\n\n t0k-b bob 5s \nt0k-c\n";
        let tokens = KnownToken::list(text).unwrap();
        let identities: Vec<&str> = tokens.iter().map(KnownToken::identity).collect();
        assert_eq!(identities, ["alice", "bob", "line 5"]);
        let now = Instant::now();
        assert_eq!(tokens[0].expires_at(now), None);
        assert_eq!(tokens[1].expires_at(now), Some(now + Duration::from_secs(5)));
        // It counts from the first time.
        assert_eq!(tokens[1].expires_at(now + Duration::from_secs(9)), Some(now + Duration::from_secs(5)));
        assert!(tokens[2].matches(b"t0k-c") && !tokens[2].matches(b"t0k-a"));
        assert!(!format!("{tokens:?}").contains("t0k"));
        for (text, part) in [("a b c d", "line 1"), ("\nt0k x soon", "line 2"), ("# none", "no token")] {
            let error = KnownToken::list(text).unwrap_err().to_string();
            assert!(error.contains(part) && !error.contains("t0k"), "{error}");
        }
    }
}
