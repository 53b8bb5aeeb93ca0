//! Opening a connection: TCP, TLS where the target asks for it, and the WebSocket handshake.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::pin::Pin;
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll};
use std::time::Duration;

use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, pki_types::ServerName};
use tokio_tungstenite::tungstenite::Error as WsError;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::handshake::client::Request;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::http::header::AUTHORIZATION;

use super::sources::Sources;
use super::transport::Transport;
use crate::workload::Target;

/// How long the resolver may take: twice the 5 s after which glibc's asks again (resolv.conf(5), `timeout`).
const RESOLVE_WITHIN: Duration = Duration::from_secs(10);

/// A secret that goes into a handshake and nowhere else: printing it shows nothing.
#[derive(Clone)]
pub struct Token(String);

impl Token {
    /// Wraps a token.
    #[must_use]
    pub fn new(token: impl Into<String>) -> Self {
        Self(token.into())
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// A connection could not be opened.
#[derive(Debug, Error)]
pub enum ConnectError {
    /// The host has no address.
    #[error("{host} does not resolve: {cause}")]
    Resolve {
        /// The host.
        host: String,
        /// What the resolver says.
        cause: io::Error,
    },
    /// No TCP connection.
    #[error("{address}: {cause}")]
    Tcp {
        /// Where to.
        address: String,
        /// What the system says.
        cause: io::Error,
    },
    /// This machine has no port left towards the target.
    #[error(
        "{address}: every local port towards it is taken; widen net.ipv4.ip_local_port_range, or offer a part of the load \
         from another machine (--shard)"
    )]
    NoPorts {
        /// Where to.
        address: String,
    },
    /// This process, or this machine, may open no more files.
    #[error(
        "{address}: no more open files ({cause}); raise the limit (ulimit -n, fs.file-max), or open fewer connections"
    )]
    NoFiles {
        /// Where to.
        address: String,
        /// What the system says.
        cause: io::Error,
    },
    /// No TLS session.
    #[error("TLS with {host}: {cause}")]
    Tls {
        /// With whom.
        host: String,
        /// What went wrong.
        cause: io::Error,
    },
    /// No certificate authority to trust.
    #[error("no CA certificates found on this system, so no wss:// server can be trusted: {cause}")]
    NoRoots {
        /// What the loader says.
        cause: String,
    },
    /// A token that no HTTP header can carry.
    #[error("the token holds characters that a header cannot carry")]
    UnusableToken,
    /// The server answered the handshake with another status than 101.
    #[error("the handshake was refused: HTTP {status}")]
    Refused {
        /// The HTTP status.
        status: u16,
    },
    /// Something answered, but no WebSocket server.
    #[error("not a WebSocket server: {cause}")]
    NotWebSocket {
        /// What was wrong with its answer.
        cause: String,
    },
    /// Nothing answered in time.
    #[error("no handshake within {seconds} s")]
    TimedOut {
        /// How long was waited.
        seconds: f64,
    },
}

impl ConnectError {
    /// Whether it is we who cannot connect, whatever the target would answer.
    #[must_use]
    pub fn is_ours(&self) -> bool {
        matches!(
            self,
            Self::NoRoots { .. } | Self::UnusableToken | Self::NoPorts { .. } | Self::NoFiles { .. }
        )
    }
}

impl ConnectError {
    /// What it means that there is no TCP connection.
    fn tcp(address: String, cause: io::Error) -> Self {
        #[cfg(unix)]
        match cause.raw_os_error() {
            Some(libc::EADDRNOTAVAIL) => return Self::NoPorts { address },
            Some(libc::EMFILE | libc::ENFILE) => return Self::NoFiles { address, cause },
            _ => {}
        }
        Self::Tcp { address, cause }
    }

    /// What the handshake's failure means.
    pub(super) fn of_handshake(error: WsError) -> Self {
        match error {
            WsError::Http(response) => Self::Refused { status: response.status().as_u16() },
            WsError::Io(cause) => Self::NotWebSocket { cause: format!("it closed the connection ({cause})") },
            other => Self::NotWebSocket { cause: other.to_string() },
        }
    }
}

/// Opens byte streams to a target. The client is generic over it, so that a test can put a simulated network there.
pub trait Connect: Clone + Send + 'static {
    /// The stream that it opens.
    type Stream: Transport;

    /// Opens a byte stream.
    fn open(&self) -> impl Future<Output = Result<Self::Stream, ConnectError>>;

    /// The request of the WebSocket handshake.
    ///
    /// # Errors
    /// Where the request cannot be made of the settings.
    fn request(&self) -> Result<Request, ConnectError>;
}

/// TCP, and TLS over it for `wss://`.
#[derive(Clone)]
pub struct TcpConnect {
    target: Target,
    addresses: Arc<[SocketAddr]>,
    sources: Sources,
    tls: Option<TlsConnector>,
    token: Option<Token>,
}

impl TcpConnect {
    /// Resolves the target once and loads the system's certificate authorities where they are needed.
    ///
    /// # Errors
    /// Where the host does not resolve, or `wss://` finds no authority to trust.
    pub fn new(target: Target, token: Option<Token>) -> Result<Self, ConnectError> {
        let host = target.host().to_owned();
        let unresolved = |cause| ConnectError::Resolve { host: host.clone(), cause };
        let addresses: Arc<[SocketAddr]> = resolve(&host, target.port()).map_err(unresolved)?.into();
        if addresses.is_empty() {
            return Err(unresolved(io::Error::other("no address")));
        }
        Self::to(addresses, target, token)
    }

    /// Connects to `address` and goes on as if that were the target: for a proxy in front of it, which the target's
    /// certificate and `Host` know nothing of.
    ///
    /// # Errors
    /// Where `wss://` finds no authority to trust.
    pub fn via(address: SocketAddr, target: Target, token: Option<Token>) -> Result<Self, ConnectError> {
        Self::to(Arc::new([address]), target, token)
    }

    fn to(addresses: Arc<[SocketAddr]>, target: Target, token: Option<Token>) -> Result<Self, ConnectError> {
        let tls = if target.tls() { Some(tls_connector()?) } else { None };
        Ok(Self { target, addresses, sources: Sources::default(), tls, token })
    }

    /// Where it connects to, in the order in which it tries.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }
}

impl fmt::Debug for TcpConnect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TcpConnect")
            .field("target", &self.target)
            .field("addresses", &self.addresses)
            .finish()
    }
}

impl Connect for TcpConnect {
    type Stream = NetStream;

    async fn open(&self) -> Result<NetStream, ConnectError> {
        let tcp_error = |cause| {
            let address = format!("{}:{}", self.target.host(), self.target.port());
            ConnectError::tcp(address, cause)
        };
        let tcp = self.sources.connect(&self.addresses).await.map_err(tcp_error)?;
        // A small message must not wait for the acknowledgement of the one before.
        tcp.set_nodelay(true).map_err(tcp_error)?;
        let Some(connector) = &self.tls else {
            return Ok(NetStream::Tcp(tcp));
        };
        let host = self.target.host().to_owned();
        let tls_error = |cause| ConnectError::Tls { host: self.target.host().to_owned(), cause };
        let name = ServerName::try_from(host).map_err(|error| tls_error(io::Error::other(error)))?;
        let tls = connector.connect(name, tcp).await.map_err(tls_error)?;
        Ok(NetStream::Tls(Box::new(tls)))
    }

    fn request(&self) -> Result<Request, ConnectError> {
        let not_websocket = |error: WsError| ConnectError::NotWebSocket { cause: error.to_string() };
        let mut request = self.target.uri().clone().into_client_request().map_err(not_websocket)?;
        if let Some(Token(token)) = &self.token {
            let mut value =
                HeaderValue::from_str(&format!("Bearer {token}")).map_err(|_| ConnectError::UnusableToken)?;
            value.set_sensitive(true);
            request.headers_mut().insert(AUTHORIZATION, value);
        }
        Ok(request)
    }
}

/// The addresses of a host, within [`RESOLVE_WITHIN`]: the system's resolver takes no time-out, so where it has no
/// answer, it is left behind on its thread.
fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    let (sender, resolved) = mpsc::channel();
    let query = (host.to_owned(), port);
    std::thread::Builder::new().name("resolver".to_owned()).spawn(move || {
        // The receiver is gone where it took too long.
        let _ = sender.send(query.to_socket_addrs().map(Vec::from_iter));
    })?;
    resolved.recv_timeout(RESOLVE_WITHIN).unwrap_or_else(|_| {
        let cause = format!("no answer within {} s", RESOLVE_WITHIN.as_secs());
        Err(io::Error::new(io::ErrorKind::TimedOut, cause))
    })
}

fn tls_connector() -> Result<TlsConnector, ConnectError> {
    let loaded = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(loaded.certs);
    if roots.is_empty() {
        let cause = loaded.errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        return Err(ConnectError::NoRoots { cause });
    }
    // The provider is named, not left to a process-wide default that nobody has installed.
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let no_roots = |error: tokio_rustls::rustls::Error| ConnectError::NoRoots { cause: error.to_string() };
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(no_roots)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// A TCP stream, encrypted or not.
#[derive(Debug)]
pub enum NetStream {
    /// `ws://`.
    Tcp(TcpStream),
    /// `wss://`.
    Tls(Box<TlsStream<TcpStream>>),
}

impl AsyncRead for NetStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for NetStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
