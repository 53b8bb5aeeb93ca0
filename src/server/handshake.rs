//! The opening handshake (RFC 6455, section 4.2): whom the server lets in, and what the others are told.
//!
//! tungstenite parses the request, but its acceptor is not used: it drops who asks wrongly without the HTTP answer that
//! section 4.2.2 wants (426 with the version that is spoken, above all), reads only the first of several `Connection`
//! headers, and takes a request that comes in many small pieces for an attack.

use std::io;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_tungstenite::tungstenite::Error as WsError;
use tokio_tungstenite::tungstenite::error::{CapacityError, ProtocolError};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::handshake::machine::TryParse;
use tokio_tungstenite::tungstenite::handshake::server::Request;
use tokio_tungstenite::tungstenite::http::header::{
    AUTHORIZATION, CONNECTION, HOST, HeaderMap, HeaderName, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use tokio_tungstenite::tungstenite::http::{HeaderValue, StatusCode};

use super::config::Secret;
use super::tokens::KnownToken;

/// The longest request head: several times what a browser sends with its cookies.
const MAX_HEAD_BYTES: usize = 64 << 10;

/// How long a peer that was refused may take to close after us.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a handshake came to nothing.
#[derive(Debug, Error)]
pub(super) enum HandshakeError {
    /// The peer went away.
    #[error("the peer is gone: {0}")]
    Gone(#[from] io::Error),
    /// The peer was not let in, and told so.
    #[error("the peer was refused: {0}")]
    Refused(StatusCode),
}

/// Whom a server lets in. By [`Default`] everybody.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Door<'a> {
    /// One token, of nobody in particular.
    pub(super) token: Option<&'a Secret>,
    /// Tokens of which each is somebody's.
    pub(super) tokens: &'a [KnownToken],
    /// Subprotocols to choose from.
    pub(super) subprotocols: &'a [String],
    /// Whether a fault lets in whoever asks.
    pub(super) open: bool,
    /// How long a fault makes the thread stand still over a refusal.
    pub(super) pondering: Duration,
}

/// Who was let in.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Guest<'a> {
    /// By whose token; `None` where nobody's was asked for.
    pub(super) token: Option<&'a KnownToken>,
    /// When that is good no more.
    pub(super) expires_at: Option<Instant>,
}

/// Answers the handshake on any path: 101, or why not.
///
/// # Errors
/// Where the peer is gone, does not speak WebSocket, or was not let in.
pub(super) async fn accept<S>(mut stream: S, door: Door<'_>) -> Result<(S, Guest<'_>), HandshakeError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let request = read_request(&mut stream).await?;
    match request.and_then(|request| accepted(&request, door)) {
        Ok((response, guest)) => {
            stream.write_all(response.as_bytes()).await?;
            stream.flush().await?;
            Ok((stream, guest))
        }
        Err(refusal) => {
            if !door.pondering.is_zero() {
                std::thread::sleep(door.pondering);
            }
            // It is refused whether or not it stays to hear it.
            let _ = tokio::time::timeout(REFUSAL_TIMEOUT, refuse(stream, &refusal)).await;
            Err(HandshakeError::Refused(refusal.status))
        }
    }
}

/// What a peer is told that is not let in.
#[derive(Debug)]
struct Refusal {
    status: StatusCode,
    /// Header lines beside those that every refusal has.
    headers: &'static str,
    text: &'static str,
}

impl Refusal {
    fn new(status: StatusCode, text: &'static str) -> Self {
        Self { status, headers: "Connection: close\r\n", text }
    }

    fn bad_request(text: &'static str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, text)
    }

    /// RFC 6455, section 4.4, names the version; RFC 9110, section 15.5.22, the protocol.
    fn upgrade_required(text: &'static str) -> Self {
        let headers = "Connection: close, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n";
        Self { headers, ..Self::new(StatusCode::UPGRADE_REQUIRED, text) }
    }

    fn unauthorized() -> Self {
        let headers = "Connection: close\r\nWWW-Authenticate: Bearer\r\n";
        Self { headers, ..Self::new(StatusCode::UNAUTHORIZED, "A bearer token is needed.") }
    }

    fn too_large() -> Self {
        Self::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "The request's head is too long.")
    }

    /// What a request that cannot be read is told.
    fn unreadable(error: &WsError) -> Self {
        match error {
            WsError::Protocol(ProtocolError::WrongHttpMethod) => {
                let headers = "Connection: close\r\nAllow: GET\r\n";
                Self { headers, ..Self::new(StatusCode::METHOD_NOT_ALLOWED, "The method must be GET.") }
            }
            WsError::Protocol(ProtocolError::WrongHttpVersion) => {
                Self::bad_request("HTTP must be of version 1.1.")
            }
            WsError::Capacity(CapacityError::TooManyHeaders) => Self::too_large(),
            _ => Self::bad_request("This is no HTTP request."),
        }
    }

    fn response(&self) -> String {
        let Self { status, headers, text } = self;
        let bytes = text.len() + 1;
        format!(
            "HTTP/1.1 {status}\r\n{headers}Content-Type: text/plain\r\nContent-Length: {bytes}\r\n\r\n{text}\n"
        )
    }
}

/// Reads a request's head, of which nothing may come behind: a client waits for the answer (section 4.1).
async fn read_request<S>(stream: &mut S) -> io::Result<Result<Request, Refusal>>
where
    S: AsyncRead + Unpin,
{
    let mut head = Vec::with_capacity(1024);
    loop {
        let known = head.len();
        if stream.read_buf(&mut head).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if head.len() > MAX_HEAD_BYTES {
            return Ok(Err(Refusal::too_large()));
        }
        // A head ends with a line, so in the middle of one it need not be parsed: a peer that sends single bytes costs
        // no more than another.
        if head.get(known..).is_some_and(|new| new.contains(&b'\n')) {
            match Request::try_parse(&head) {
                Ok(Some((bytes, request))) if bytes == head.len() => return Ok(Ok(request)),
                Ok(Some(_)) => return Ok(Err(Refusal::bad_request("A client must wait for the answer."))),
                Ok(None) => {}
                Err(error) => return Ok(Err(Refusal::unreadable(&error))),
            }
        }
    }
}

/// The answer to a good request (section 4.2.1). No extension is used, whatever is offered.
fn accepted<'a>(request: &Request, door: Door<'a>) -> Result<(String, Guest<'a>), Refusal> {
    let headers = request.headers();
    if single(headers, HOST).is_none() {
        return Err(Refusal::bad_request("One Host header is needed."));
    }
    if !lists(headers, UPGRADE, b"websocket") {
        return Err(Refusal::upgrade_required("This is a WebSocket server."));
    }
    if !lists(headers, CONNECTION, b"upgrade") {
        return Err(Refusal::bad_request("The Connection header must say Upgrade."));
    }
    if single(headers, SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        return Err(Refusal::upgrade_required("The WebSocket version must be 13."));
    }
    let key = single(headers, SEC_WEBSOCKET_KEY).map(HeaderValue::as_bytes).unwrap_or_default();
    if !STANDARD.decode(key).is_ok_and(|nonce| nonce.len() == 16) {
        return Err(Refusal::bad_request("One Sec-WebSocket-Key of 16 bytes is needed."));
    }
    let given = headers.get(AUTHORIZATION).and_then(|value| bearer(value.as_bytes()));
    let guest = door.admit(given.unwrap_or_default(), Instant::now()).ok_or_else(Refusal::unauthorized)?;
    let accept = derive_accept_key(key);
    let protocol = door.chosen(headers);
    let protocol = protocol.map(|name| format!("Sec-WebSocket-Protocol: {name}\r\n")).unwrap_or_default();
    let response = format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Accept: {accept}\r\n{protocol}\r\n"
    );
    Ok((response, guest))
}

impl<'a> Door<'a> {
    /// Who comes with this token; `None` is not let in.
    fn admit(self, given: &[u8], now: Instant) -> Option<Guest<'a>> {
        if self.open || self.token.is_none() && self.tokens.is_empty() {
            return Some(Guest::default());
        }
        if self.token.is_some_and(|token| token.matches(given)) {
            return Some(Guest::default());
        }
        let token = self.tokens.iter().find(|token| token.matches(given))?;
        let expires_at = token.expires_at(now);
        expires_at.is_none_or(|at| now < at).then_some(Guest { token: Some(token), expires_at })
    }

    /// The first of the offered subprotocols that is spoken; none, where none is (RFC 6455, section 4.2.2, point 5).
    fn chosen(self, headers: &HeaderMap) -> Option<&'a str> {
        let offered = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter();
        let offered = offered.flat_map(|value| value.as_bytes().split(|&byte| byte == b','));
        let spoken = |name: &[u8]| {
            self.subprotocols.iter().find(|spoken| spoken.as_bytes() == name.trim_ascii()).map(String::as_str)
        };
        offered.filter_map(spoken).next()
    }
}

/// The value of a header that may come only once.
fn single(headers: &HeaderMap, name: HeaderName) -> Option<&HeaderValue> {
    let mut values = headers.get_all(name).iter();
    values.next().filter(|_| values.next().is_none())
}

/// Whether a header that is a list, over however many lines (RFC 9110, section 5.3), has `token`, of whatever case.
fn lists(headers: &HeaderMap, name: HeaderName, token: &[u8]) -> bool {
    let values = headers.get_all(name).iter();
    values
        .flat_map(|value| value.as_bytes().split(|&byte| byte == b','))
        .any(|item| item.trim_ascii().eq_ignore_ascii_case(token))
}

/// The token of a `Bearer` header; the scheme's case does not matter (RFC 9110, section 11.1).
fn bearer(header: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = header.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then(|| token.trim_ascii())
}

/// Says why, and waits until the peer closes: closing a socket with bytes unread would reset it, and the answer with it.
async fn refuse<S>(mut stream: S, refusal: &Refusal) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    stream.write_all(refusal.response().as_bytes()).await?;
    stream.shutdown().await?;
    let mut rest = vec![0; 4096];
    while stream.read(&mut rest).await? > 0 {}
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The request of RFC 6455, section 1.3.
    const REQUEST: &str = "GET /chat HTTP/1.1\r\nHost: server.example.com\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

    /// What a peer is answered whose bytes come in pieces of `piece`, and whether it was let in.
    async fn answer(request: &[u8], piece: usize) -> (String, bool) {
        let (mut client, server) = tokio::io::duplex(piece);
        let asking = async {
            client.write_all(request).await.unwrap();
            let mut answer = Vec::new();
            while !answer.ends_with(b"\r\n\r\n") && client.read_buf(&mut answer).await.unwrap() > 0 {}
            drop(client);
            String::from_utf8(answer).unwrap()
        };
        let (accepted, answer) = tokio::join!(accept(server, Door::default()), asking);
        (answer, accepted.is_ok())
    }

    #[tokio::test]
    async fn a_request_may_come_in_any_pieces() {
        for piece in 1..=REQUEST.len() {
            let (answer, is_in) = answer(REQUEST.as_bytes(), piece).await;
            assert!(is_in && answer.starts_with("HTTP/1.1 101 "), "{piece}: {answer}");
            assert!(
                answer.contains("\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"),
                "{answer}"
            );
        }
    }

    #[test]
    fn a_token_is_good_until_its_time_is_over() {
        let soon = KnownToken::new("soon", "a", Some(Duration::from_secs(5)));
        let tokens =
            [soon, KnownToken::new("ever", "b", None), KnownToken::new("never", "c", Some(Duration::ZERO))];
        let (one, now) = (Secret::new("one"), Instant::now());
        let door = Door { token: Some(&one), tokens: &tokens, ..Door::default() };
        let whose = |given: &str, at: Instant| {
            let guest = door.admit(given.as_bytes(), at)?;
            Some(guest.token.map(|token| token.identity().to_owned()))
        };
        assert_eq!(whose("one", now), Some(None));
        assert_eq!((whose("", now), whose("oneone", now), whose("never", now)), (None, None, None));
        assert_eq!(whose("ever", now), Some(Some("b".to_owned())));
        let in_time = now + Duration::from_millis(4_999);
        assert_eq!(
            [now, in_time].map(|at| whose("soon", at)),
            [Some(Some("a".to_owned())), Some(Some("a".to_owned()))]
        );
        assert_eq!(whose("soon", now + Duration::from_secs(5)), None);
        let open = Door { open: true, ..door };
        assert!(open.admit(b"", now).is_some() && Door::default().admit(b"x", now).is_some());
    }

    #[test]
    fn the_first_subprotocol_that_is_spoken_is_chosen() {
        let spoken = ["json".to_owned(), "mqtt".to_owned()];
        let door = Door { subprotocols: &spoken, ..Door::default() };
        let chosen = |lines: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(line));
            }
            door.chosen(&headers)
        };
        assert_eq!(chosen(&["stomp, mqtt ,json"]), Some("mqtt"));
        assert_eq!(chosen(&["stomp", "json"]), Some("json"));
        assert_eq!((chosen(&[]), chosen(&["JSON"])), (None, None));
    }

    #[tokio::test]
    async fn a_head_without_an_end_is_refused_at_its_limit() {
        let line = format!("X: {}", "x".repeat(2 * MAX_HEAD_BYTES));
        let (answer, is_in) = answer(REQUEST.replace("Host", &line).as_bytes(), 1 << 20).await;
        assert!(!is_in && answer.starts_with("HTTP/1.1 431 "), "{answer}");
    }

    #[tokio::test]
    async fn a_peer_that_goes_is_not_waited_for() {
        let (client, server) = tokio::io::duplex(64);
        drop(client);
        assert!(matches!(accept(server, Door::default()).await, Err(HandshakeError::Gone(_))));
    }
}
