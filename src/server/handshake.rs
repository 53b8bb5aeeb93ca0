//! The opening handshake: whom the server lets in.

use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::accept_hdr_async_with_config;
use tokio_tungstenite::tungstenite::Error;
use tokio_tungstenite::tungstenite::handshake::server::{Callback, ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use tokio_tungstenite::tungstenite::http::{HeaderValue, StatusCode};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

use super::config::Secret;

/// Answers the handshake on any path, with 401 where a token is wanted and not brought.
///
/// # Errors
/// Where the peer is gone, does not speak WebSocket, or was not let in.
pub(super) async fn accept<S>(stream: S, token: Option<&Secret>) -> Result<S, Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    // Only the stream is kept, so the buffers need not be there. A client may send nothing before the answer
    // (tungstenite refuses one that does), so no byte is lost with them.
    let config = WebSocketConfig::default().read_buffer_size(0).write_buffer_size(0);
    let accepted = accept_hdr_async_with_config(stream, Gate { token }, Some(config)).await?;
    Ok(accepted.into_inner())
}

struct Gate<'a> {
    token: Option<&'a Secret>,
}

impl Callback for Gate<'_> {
    fn on_request(self, request: &Request, response: Response) -> Result<Response, ErrorResponse> {
        let Some(token) = self.token else { return Ok(response) };
        let given = request.headers().get(AUTHORIZATION).and_then(|value| bearer(value.as_bytes()));
        if given.is_some_and(|given| token.matches(given)) {
            return Ok(response);
        }
        let mut refusal = ErrorResponse::new(Some("A bearer token is needed.\n".to_owned()));
        *refusal.status_mut() = StatusCode::UNAUTHORIZED;
        refusal.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        Err(refusal)
    }
}

/// The token of a `Bearer` header; the scheme's case does not matter (RFC 9110, section 11.1).
fn bearer(header: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = header.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then(|| token.trim_ascii())
}
