//! Opening a WebSocket: the byte stream, then the handshake over it, within a limit of time.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::client_async_with_config;
use tokio_tungstenite::tungstenite::http::header::SEC_WEBSOCKET_EXTENSIONS;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

use super::connect::{Connect, ConnectError};
use super::transport::{Tapped, Transport};
use crate::clock::Clock;

/// Opens WebSockets to the target.
#[derive(Debug, Clone)]
pub(super) struct Dialer<K, C> {
    pub(super) connect: K,
    pub(super) clock: C,
    /// How long opening one may take.
    pub(super) limit: Duration,
}

/// A WebSocket whose handshake is done.
pub(super) struct Dialed<S, C> {
    pub(super) socket: Socket<S, C>,
    pub(super) setup_ns: u64,
}

/// A byte stream behind its handshake.
pub(super) struct Socket<S, C> {
    pub(super) stream: Tapped<S, C>,
    /// What came in one read with the handshake's answer.
    pub(super) early: Vec<u8>,
}

impl<K: Connect, C: Clock + Unpin> Dialer<K, C> {
    /// Opens one.
    pub(super) fn dial(
        &self,
    ) -> impl Future<Output = Result<Dialed<K::Stream, C>, ConnectError>> + use<K, C> {
        let Self { connect, clock, limit } = self.clone();
        let opening = async move {
            let begun_ns = clock.now_ns();
            let request = connect.request()?;
            let stream = HeadFirst::new(Tapped::new(connect.open().await?, clock.clone()));
            let shaken = client_async_with_config(request, stream, Some(handshake_config())).await;
            let (ws, response) = shaken.map_err(ConnectError::of_handshake)?;
            // None is ever asked for, and tungstenite does not look (RFC 6455, section 4.1, last list, point 5).
            if let Some(extension) = response.headers().get(SEC_WEBSOCKET_EXTENSIONS) {
                let cause = format!("it uses an extension that was not asked for: {extension:?}");
                return Err(ConnectError::NotWebSocket { cause });
            }
            let HeadFirst { stream, behind, .. } = ws.into_inner();
            let socket = Socket { stream, early: behind };
            Ok(Dialed { socket, setup_ns: clock.now_ns().saturating_sub(begun_ns) })
        };
        async move {
            match tokio::time::timeout(limit, Box::pin(opening)).await {
                Ok(outcome) => outcome,
                Err(_) => Err(ConnectError::TimedOut { seconds: limit.as_secs_f64() }),
            }
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
