//! How a client gets in: whom it may load, whom it trusts, what its handshake carries.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use tokio_tungstenite::tungstenite::handshake::client::Request;
use tokio_tungstenite::tungstenite::http::Uri;
use tokio_tungstenite::tungstenite::http::header::{
    AUTHORIZATION, HOST, HeaderName, HeaderValue, SEC_WEBSOCKET_PROTOCOL,
};

use super::connect::ConnectError;
use super::tls::TlsAccess;
use crate::secrets::Secrets;
use crate::units::UnitError;

/// How a client gets in. By [`Default`] it loads this machine only, trusts the system's certificate authorities, and its
/// handshake carries nothing.
#[derive(Debug, Clone, Default)]
pub struct Access {
    /// Hosts beyond this machine that may be loaded, as they stand in the URL. Load on somebody else's server is an
    /// attack, so to every other host no connection is opened.
    pub permitted: Vec<String>,
    /// What the handshake proves by who the client is.
    pub tokens: Tokens,
    /// Where the token stands.
    pub token_in: TokenPlace,
    /// Headers of the handshake beside its own.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Subprotocols that the handshake offers, the preferred one first.
    pub subprotocols: Vec<String>,
    /// What is added to the query of the URL, `KEY=VALUE` each.
    pub query: Vec<String>,
    /// The `Host` header, where it is not that of the URL.
    pub host: Option<HeaderValue>,
    /// What holds for `wss://`.
    pub tls: TlsAccess,
    /// Bytes of each of a connection's two buffers in the kernel; `None` leaves them to the system, which lets them grow to
    /// megabytes.
    pub socket_buffer_bytes: Option<usize>,
}

impl From<Option<Token>> for Access {
    /// One token for all connections, in the `Authorization` header.
    fn from(token: Option<Token>) -> Self {
        Self { tokens: Tokens::of(token), ..Self::default() }
    }
}

impl Access {
    /// Whether `host`, which is found at `addresses`, may be loaded: it is this machine, or was permitted by name.
    ///
    /// # Errors
    /// [`ConnectError::NotPermitted`] with the address that is not this machine's.
    pub fn permits(&self, host: &str, addresses: &[SocketAddr]) -> Result<(), ConnectError> {
        let named = |permitted: &String| {
            permitted.trim_start_matches('[').trim_end_matches(']').eq_ignore_ascii_case(host)
        };
        match addresses.iter().map(SocketAddr::ip).find(|&ip| !is_this_machine(ip)) {
            Some(address) if !self.permitted.iter().any(named) => {
                Err(ConnectError::NotPermitted { host: host.to_owned(), address })
            }
            _ => Ok(()),
        }
    }

    /// Puts into the handshake of connection `connection` what is to be there beside its own headers.
    pub(super) fn complete(&self, request: &mut Request, connection: u32) -> Result<(), ConnectError> {
        let headers = request.headers_mut();
        for (name, value) in &self.headers {
            headers.append(name, value.clone());
        }
        if let Some(host) = &self.host {
            headers.insert(HOST, host.clone());
        }
        if !self.subprotocols.is_empty() {
            let offered = HeaderValue::from_str(&self.subprotocols.join(", "));
            headers.insert(SEC_WEBSOCKET_PROTOCOL, offered.map_err(|_| ConnectError::UnusableHandshake)?);
        }
        let mut query = self.query.clone();
        if let Some(token) = self.tokens.of_connection(connection) {
            match &self.token_in {
                TokenPlace::Bearer => {
                    request.headers_mut().insert(AUTHORIZATION, token.header("Bearer ")?);
                }
                TokenPlace::Header(name) => {
                    request.headers_mut().insert(name, token.header("")?);
                }
                TokenPlace::Query(name) => query.push(format!("{name}={}", token.in_query()?)),
            }
        }
        if !query.is_empty() {
            *request.uri_mut() = with_query(request.uri(), &query)?;
        }
        Ok(())
    }
}

/// Whether a packet to `address` stays on this machine. The unspecified address is connected to as loopback.
fn is_this_machine(address: IpAddr) -> bool {
    let address = address.to_canonical();
    address.is_loopback() || address.is_unspecified()
}

fn with_query(uri: &Uri, more: &[String]) -> Result<Uri, ConnectError> {
    let mut parts = uri.clone().into_parts();
    let known = uri.query().map(|query| format!("{query}&")).unwrap_or_default();
    let path = format!("{}?{known}{}", uri.path(), more.join("&"));
    // The parser's own error would quote what may be a token.
    parts.path_and_query = Some(path.parse().map_err(|_| ConnectError::UnusableHandshake)?);
    Uri::from_parts(parts).map_err(|_| ConnectError::UnusableHandshake)
}

/// A secret that goes into a handshake and nowhere else: printing it shows nothing.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// Wraps a token.
    #[must_use]
    pub fn new(token: impl Into<String>) -> Self {
        Self(token.into())
    }

    fn header(&self, scheme: &str) -> Result<HeaderValue, ConnectError> {
        let value = HeaderValue::from_str(&format!("{scheme}{}", self.0));
        let mut value = value.map_err(|_| ConnectError::UnusableToken)?;
        value.set_sensitive(true);
        Ok(value)
    }

    /// As it may stand in a query (RFC 3986, section 2.3): what is not unreserved is percent-encoded.
    fn in_query(&self) -> Result<String, ConnectError> {
        if self.0.is_empty() {
            return Err(ConnectError::UnusableToken);
        }
        let unreserved = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
        let encode =
            |byte: u8| if unreserved(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
        Ok(self.0.bytes().map(encode).collect())
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// Tokens, dealt to the connections in turn: connection `n` brings the token `n` modulo their number.
#[derive(Debug, Clone, Default)]
pub struct Tokens {
    known: Arc<[Token]>,
    /// Where they come from: read again for every handshake, so that a client whose token has expired comes back with
    /// the one that was put there meanwhile.
    file: Option<Arc<PathBuf>>,
    /// All that were ever known, so that none of them is shown.
    secrets: Secrets,
}

impl Tokens {
    /// The same token for all, or none.
    #[must_use]
    pub fn of(token: impl IntoIterator<Item = Token>) -> Self {
        Self::known(token.into_iter().collect(), None)
    }

    /// Those of a file, one a line; empty lines are passed over.
    ///
    /// # Errors
    /// Where it cannot be read, or holds none.
    pub fn of_file(path: impl Into<PathBuf>) -> std::io::Result<Self> {
        let path = path.into();
        let known = tokens_of(&std::fs::read_to_string(&path)?);
        if known.is_empty() {
            return Err(std::io::Error::new(std::io::ErrorKind::InvalidData, "there is no token in it"));
        }
        Ok(Self::known(known, Some(Arc::new(path))))
    }

    fn known(known: Arc<[Token]>, file: Option<Arc<PathBuf>>) -> Self {
        let secrets = Secrets::of(known.iter().map(|token| &token.0));
        Self { known, file, secrets }
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// All that were known at any time: what is hidden where a server says it back.
    pub(super) fn secrets(&self) -> Secrets {
        self.secrets.clone()
    }

    fn of_connection(&self, connection: u32) -> Option<Token> {
        let read = self.file.as_deref().and_then(|path| std::fs::read_to_string(path).ok());
        // A file that is gone, or just being written, leaves those that were known.
        let read = read.map(|text| tokens_of(&text)).filter(|tokens| !tokens.is_empty());
        let tokens = read.as_ref().unwrap_or(&self.known);
        let place = (connection as usize).checked_rem(tokens.len())?;
        let token = tokens.get(place)?;
        if read.is_some() {
            self.secrets.learn(&token.0);
        }
        Some(token.clone())
    }
}

fn tokens_of(text: &str) -> Arc<[Token]> {
    text.lines().map(str::trim).filter(|line| !line.is_empty()).map(Token::new).collect()
}

/// Where a token stands in the handshake.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum TokenPlace {
    /// `Authorization: Bearer TOKEN`.
    #[default]
    Bearer,
    /// In a header of its own, by itself.
    Header(HeaderName),
    /// In the query of the URL, under this key.
    Query(String),
}

impl FromStr for TokenPlace {
    type Err = UnitError;
    fn from_str(text: &str) -> Result<Self, UnitError> {
        let place = match text.split_once('=') {
            None if text == "bearer" => Some(Self::Bearer),
            Some(("header", name)) => name.parse().ok().map(Self::Header),
            Some(("query", name)) if !name.is_empty() && is_plain(name) => Some(Self::Query(name.to_owned())),
            _ => None,
        };
        place.ok_or_else(|| UnitError::Malformed {
            value: text.to_owned(),
            expected: "a place for the token: bearer, header=NAME or query=NAME",
        })
    }
}

fn is_plain(name: &str) -> bool {
    name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio_tungstenite::tungstenite::client::IntoClientRequest;

    fn completed(access: &Access, connection: u32) -> Request {
        let mut request = "ws://localhost/ws?a=1".into_client_request().unwrap();
        access.complete(&mut request, connection).unwrap();
        request
    }

    #[test]
    fn only_this_machine_may_be_loaded_unless_the_host_was_permitted() {
        let at = |ip: &str| SocketAddr::new(ip.parse().unwrap(), 80);
        let access =
            Access { permitted: vec!["Example.org".into(), "[2001:db8::1]".into()], ..Access::default() };
        for local in ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1", "0.0.0.0", "::"] {
            assert!(access.permits("anything", &[at(local)]).is_ok(), "{local}");
        }
        for foreign in ["192.0.2.1", "10.0.0.1", "2001:db8::1", "::ffff:192.0.2.1", "169.254.0.1"] {
            // One address that is not this machine's is enough.
            let error = access.permits("stranger.org", &[at("127.0.0.1"), at(foreign)]).unwrap_err();
            let text = error.to_string();
            assert!(text.contains("stranger.org") && text.contains("--i-may-load stranger.org"), "{text}");
            assert!(access.permits("example.ORG", &[at(foreign)]).is_ok());
        }
        assert!(access.permits("2001:db8::1", &[at("2001:db8::1")]).is_ok());
        assert!(access.permits("sub.example.org", &[at("192.0.2.1")]).is_err());
    }

    #[test]
    fn the_tokens_of_a_file_are_dealt_in_turn_and_read_again() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(Tokens::of_file(file.path()).is_err());
        std::fs::write(file.path(), "t0k-1\n\n t0k-2 \n").unwrap();
        let tokens = Tokens::of_file(file.path()).unwrap();
        let access = Access { tokens: tokens.clone(), ..Access::default() };
        let sent = |n| completed(&access, n).headers()[AUTHORIZATION].to_str().unwrap().to_owned();
        assert_eq!([0, 1, 2, 3].map(sent), ["Bearer t0k-1", "Bearer t0k-2", "Bearer t0k-1", "Bearer t0k-2"]);
        std::fs::write(file.path(), "t0k-3\n").unwrap();
        assert_eq!(sent(1), "Bearer t0k-3");
        std::fs::write(file.path(), "").unwrap();
        assert_eq!(sent(1), "Bearer t0k-2");
        assert!(!format!("{access:?}{tokens:?}").contains("t0k"));
    }

    #[test]
    fn what_the_handshake_is_to_carry_is_there() {
        let access = Access {
            headers: vec![(HeaderName::from_static("x-team"), HeaderValue::from_static("blue"))],
            subprotocols: vec!["mqtt".into(), "json".into()],
            query: vec!["room=7".into()],
            host: Some(HeaderValue::from_static("inner.example")),
            tokens: Tokens::of([Token::new("a+b/c")]),
            token_in: "query=access_token".parse().unwrap(),
            ..Access::default()
        };
        let request = completed(&access, 0);
        let header = |name: HeaderName| request.headers()[name].to_str().unwrap().to_owned();
        assert_eq!(request.uri().to_string(), "ws://localhost/ws?a=1&room=7&access_token=a%2Bb%2Fc");
        assert_eq!(header(HOST), "inner.example");
        assert_eq!(header(SEC_WEBSOCKET_PROTOCOL), "mqtt, json");
        assert_eq!(header(HeaderName::from_static("x-team")), "blue");
        assert!(!request.headers().contains_key(AUTHORIZATION));
        for wrong in ["", "cookie", "header=", "header=a b", "query=", "query=a&b"] {
            assert!(wrong.parse::<TokenPlace>().is_err(), "{wrong}");
        }
        let own = Access { token_in: "header=X-Api-Key".parse().unwrap(), ..access };
        assert_eq!(completed(&own, 0).headers()["x-api-key"], "a+b/c");
    }
}
