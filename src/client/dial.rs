//! Opening a connection: the byte stream, the handshake over it, and what the dialect says first, within a limit of time.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, timeout_at};
use tokio_tungstenite::client_async_with_config;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::http::header::{
    SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_PROTOCOL, UPGRADE,
};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

use super::connect::{Connect, ConnectError};
use super::opening::open_session;
use super::transport::{Tapped, Transport};
use crate::clock::Clock;
use crate::dialect::{Dialect, Identity};

/// Opens connections to the target.
#[derive(Debug, Clone)]
pub(super) struct Dialer<K, D, C> {
    pub(super) connect: K,
    pub(super) dialect: D,
    pub(super) clock: C,
    /// How long opening one may take.
    pub(super) limit: Duration,
}

/// A connection over which load may be offered.
pub(super) struct Dialed<S, D, C> {
    pub(super) socket: Socket<S, C>,
    pub(super) session: D,
    pub(super) setup: Setup,
}

/// How long opening a WebSocket took, and what of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Setup {
    pub(super) total_ns: u64,
    /// TCP alone.
    pub(super) connect_ns: u64,
    /// TLS alone; `None` without it.
    pub(super) tls_ns: Option<u64>,
    /// The handshake of the WebSocket.
    pub(super) upgrade_ns: u64,
}

/// A byte stream behind its handshake.
pub(super) struct Socket<S, C> {
    pub(super) stream: Tapped<S, C>,
    /// What came in one read with the handshake's answer.
    pub(super) early: Vec<u8>,
}

impl<K: Connect, D: Dialect, C: Clock + Unpin> Dialer<K, D, C> {
    /// Opens that of the connection with this identity.
    pub(super) fn dial(
        &self,
        identity: Identity,
    ) -> impl Future<Output = Result<Dialed<K::Stream, D::Session, C>, ConnectError>> + use<K, D, C> {
        let Self { connect, dialect, clock, limit } = self.clone();
        let subprotocol = dialect.subprotocol();
        let connection = identity.connection;
        let secrets = connect.secrets().and(dialect.secrets());
        let hidden = secrets.clone();
        let shaking = async move {
            let begun_ns = clock.now_ns();
            let mut request = connect.request(connection)?;
            if let Some(name) = subprotocol {
                let headers = request.headers_mut();
                headers.entry(SEC_WEBSOCKET_PROTOCOL).or_insert(HeaderValue::from_static(name));
            }
            let stream = connect.open().await?;
            let opened_ns = clock.now_ns();
            let tls_ns = K::tls_time(&stream).map(|time| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
            let stream = HeadFirst::new(Tapped::new(stream, clock.clone()));
            let shaken = client_async_with_config(request, stream, Some(handshake_config())).await;
            let (ws, response) = shaken.map_err(ConnectError::of_handshake)?;
            // tungstenite looks at the first alone, but several are one list, which must be that word and no more
            // (RFC 6455, section 4.1, last list, point 2; RFC 9110, section 5.3).
            if response.headers().get_all(UPGRADE).iter().nth(1).is_some() {
                let cause = "more than one Upgrade header, where `Upgrade: websocket` must be all".to_owned();
                return Err(ConnectError::NotWebSocket { cause });
            }
            // None is ever asked for, and tungstenite does not look (RFC 6455, section 4.1, last list, point 5).
            if let Some(extension) = response.headers().get(SEC_WEBSOCKET_EXTENSIONS) {
                let cause = format!("it uses an extension that was not asked for: {extension:?}");
                return Err(ConnectError::NotWebSocket { cause: hidden.excerpt(&cause) });
            }
            let HeadFirst { stream, behind, .. } = ws.into_inner();
            let open_ns = clock.now_ns();
            let setup = Setup {
                total_ns: open_ns.saturating_sub(begun_ns),
                connect_ns: opened_ns.saturating_sub(begun_ns).saturating_sub(tls_ns.unwrap_or_default()),
                tls_ns,
                upgrade_ns: open_ns.saturating_sub(opened_ns),
            };
            Ok((Socket { stream, early: behind }, clock, begun_ns, setup))
        };
        async move {
            let (deadline, seconds) = (Instant::now() + limit, limit.as_secs_f64());
            let shaken = timeout_at(deadline, Box::pin(shaking)).await;
            let (mut socket, clock, begun_ns, setup) =
                shaken.unwrap_or(Err(ConnectError::TimedOut { seconds }))?;
            let mut session = dialect.session(identity);
            let name = dialect.name();
            let opened = timeout_at(deadline, Box::pin(open_session(&mut socket, &mut session))).await;
            let said = opened.unwrap_or_else(|_| Err(format!("nothing that opens it, within {seconds} s")));
            said.map_err(|said| ConnectError::DialectRefused {
                dialect: name,
                said: secrets.excerpt(&said),
            })?;
            // What the dialect says first is part of the whole.
            let setup = Setup { total_ns: clock.now_ns().saturating_sub(begun_ns), ..setup };
            Ok(Dialed { socket, session, setup })
        }
    }
}

/// tungstenite shakes hands only, so it needs no buffers for frames.
fn handshake_config() -> WebSocketConfig {
    WebSocketConfig::default().read_buffer_size(0).write_buffer_size(0)
}

/// A stream that hands over the head of an answer, up to the blank line, and keeps what stands behind it: those are
/// frames already, which tungstenite would keep to itself.
struct HeadFirst<S> {
    stream: S,
    behind: Vec<u8>,
    /// So many bytes of the current line are not its end.
    line_bytes: usize,
}

impl<S> HeadFirst<S> {
    fn new(stream: S) -> Self {
        // The status line is not blank, whatever its server makes of it.
        Self { stream, behind: Vec::new(), line_bytes: 1 }
    }

    /// How many of the next bytes belong to the head.
    fn head_bytes(&mut self, bytes: &[u8]) -> usize {
        for (place, byte) in bytes.iter().enumerate() {
            match byte {
                b'\n' if self.line_bytes == 0 => return place + 1,
                b'\n' => self.line_bytes = 0,
                b'\r' => {}
                _ => self.line_bytes += 1,
            }
        }
        bytes.len()
    }
}

impl<S: Transport> AsyncRead for HeadFirst<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        if this.behind.is_empty() {
            ready!(Pin::new(&mut this.stream).poll_read(cx, buf))?;
        } else {
            // It was no head yet.
            let some = buf.remaining().min(this.behind.len());
            buf.put_slice(&this.behind[..some]);
            this.behind.drain(..some);
        }
        let new = buf.filled().get(before..).unwrap_or_default();
        let head_bytes = this.head_bytes(new);
        this.behind.splice(..0, new.get(head_bytes..).unwrap_or_default().iter().copied());
        buf.set_filled(before + head_bytes);
        Poll::Ready(Ok(()))
    }
}

impl<S: Transport> AsyncWrite for HeadFirst<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// However a head and what follows it are cut, all of the head is handed over, and nothing behind it.
    #[tokio::test]
    async fn a_head_is_handed_over_and_nothing_behind_it() {
        for end in ["\r\n", "\n"] {
            let head = format!("HTTP/1.1 101 Sure{end}A: b{end}{end}");
            let all = [head.as_bytes(), b"\x81\x02\n\n"].concat();
            for cut in 1..all.len() {
                let (mut server, client) = tokio::io::duplex(1 << 10);
                let mut stream = HeadFirst::new(client);
                let mut given = Vec::new();
                for piece in [&all[..cut], &all[cut..]] {
                    server.write_all(piece).await.unwrap();
                    while given.len() < head.len() && given.len() < cut.max(given.len() + 1).min(all.len()) {
                        if stream.read_buf(&mut given).await.unwrap() > 0
                            && given.len() >= cut.min(head.len())
                        {
                            break;
                        }
                    }
                }
                assert_eq!(given, head.as_bytes(), "{cut}");
                let mut rest = std::mem::take(&mut stream.behind);
                drop(server);
                stream.stream.read_to_end(&mut rest).await.unwrap();
                assert_eq!(rest, b"\x81\x02\n\n", "{cut}");
            }
        }
    }
}
