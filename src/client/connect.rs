//! Opening a connection: TCP, TLS where the target asks for it, and the WebSocket handshake.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::pin::Pin;
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use socket2::SockRef;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_tungstenite::tungstenite::Error as WsError;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::handshake::client::Request;

use super::access::Access;
use super::sources::Sources;
use super::tls;
use super::transport::Transport;
use crate::secrets::Secrets;
use crate::workload::Target;

/// How long the resolver may take: twice the 5 s after which glibc's asks again (resolv.conf(5), `timeout`).
const RESOLVE_WITHIN: Duration = Duration::from_secs(10);

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
    /// The target is not this machine, and nobody said that it may be loaded.
    #[error(
        "{host} is {address}, which is not this machine, and load on a stranger's server is an attack: where it is yours to \
         load, say --i-may-load {host}, or name it in target.i_may_load"
    )]
    NotPermitted {
        /// The host, as it stands in the URL.
        host: String,
        /// Its address that is not this machine's.
        address: IpAddr,
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
    /// A certificate, key or authority that was given is of no use.
    #[error("the given certificates or key cannot be used: {cause}")]
    UnusableTls {
        /// What is wrong with them.
        cause: String,
    },
    /// What the handshake is to carry cannot stand there.
    #[error("a subprotocol, a query or a token holds characters that the handshake cannot carry")]
    UnusableHandshake,
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
    /// The handshake went well, and then the server would not have what the dialect begins with.
    #[error("the server did not accept the opening of the dialect {dialect}; it said: {said}")]
    DialectRefused {
        /// Which dialect.
        dialect: &'static str,
        /// What the server said, without our secrets.
        said: String,
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
        match self {
            Self::NotPermitted { .. }
            | Self::NoRoots { .. }
            | Self::UnusableToken
            | Self::UnusableTls { .. }
            | Self::UnusableHandshake
            | Self::NoPorts { .. }
            | Self::NoFiles { .. } => true,
            Self::Resolve { .. }
            | Self::Tcp { .. }
            | Self::Tls { .. }
            | Self::Refused { .. }
            | Self::NotWebSocket { .. }
            | Self::DialectRefused { .. }
            | Self::TimedOut { .. } => false,
        }
    }

    /// What the generator lacked, in words; `None` where it [is not ours](Self::is_ours).
    pub(super) fn lacked(&self) -> Option<String> {
        match self {
            Self::NoFiles { cause, .. } => Some(format!("the generator ran out of open files ({cause})")),
            Self::NoPorts { .. } => Some("the generator ran out of local ports".to_owned()),
            ours if ours.is_ours() => Some(format!("the generator could not connect ({ours})")),
            _ => None,
        }
    }
}

impl ConnectError {
    /// What it means that there is no TCP connection.
    fn tcp(address: String, cause: io::Error) -> Self {
        #[cfg(unix)]
        if let Some(libc::EMFILE | libc::ENFILE) = cause.raw_os_error() {
            return Self::NoFiles { address, cause };
        }
        match cause.kind() {
            io::ErrorKind::AddrNotAvailable => Self::NoPorts { address },
            _ => Self::Tcp { address, cause },
        }
    }

    /// What the handshake's failure means.
    pub(crate) fn of_handshake(error: WsError) -> Self {
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

    /// How long TLS took over a stream that this has opened; `None` where there is none.
    fn tls_time(_stream: &Self::Stream) -> Option<Duration> {
        None
    }

    /// What its requests carry and nobody may see: it is hidden in whatever of the server's words is shown.
    fn secrets(&self) -> Secrets {
        Secrets::default()
    }

    /// The request of the WebSocket handshake of connection `connection` (its index over all shards).
    ///
    /// # Errors
    /// Where the request cannot be made of the settings.
    fn request(&self, connection: u32) -> Result<Request, ConnectError>;
}

/// TCP, and TLS over it for `wss://`.
#[derive(Clone)]
pub struct TcpConnect {
    target: Target,
    addresses: Arc<[SocketAddr]>,
    sources: Sources,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    access: Arc<Access>,
}

impl TcpConnect {
    /// Resolves the target once, asks whether it may be loaded, and loads whom to trust where that is needed. Nothing is
    /// sent to the target.
    ///
    /// # Errors
    /// Where the host does not resolve or may not be loaded, or `wss://` finds no authority to trust.
    pub fn new(target: Target, access: impl Into<Access>) -> Result<Self, ConnectError> {
        let host = target.host().to_owned();
        let unresolved = |cause| ConnectError::Resolve { host: host.clone(), cause };
        let addresses: Arc<[SocketAddr]> = resolve(&host, target.port()).map_err(unresolved)?.into();
        if addresses.is_empty() {
            return Err(unresolved(io::Error::other("no address")));
        }
        Self::to(addresses, target, access.into())
    }

    /// Connects to `address` and goes on as if that were the target: for a proxy in front of it, which the target's
    /// certificate and `Host` know nothing of.
    ///
    /// # Errors
    /// Where `address` is not this machine's and the target may not be loaded, or `wss://` finds no authority to trust.
    pub fn via(address: SocketAddr, target: Target, access: impl Into<Access>) -> Result<Self, ConnectError> {
        Self::to(Arc::new([address]), target, access.into())
    }

    fn to(addresses: Arc<[SocketAddr]>, target: Target, access: Access) -> Result<Self, ConnectError> {
        access.permits(target.host(), &addresses)?;
        let tls = if target.tls() {
            let name = access.tls.server_name.as_deref().unwrap_or(target.host()).to_owned();
            let unusable =
                |_| ConnectError::UnusableTls { cause: format!("`{name}` is no name of a server") };
            let name = ServerName::try_from(name.clone()).map_err(unusable)?;
            Some((tls::connector(&access.tls)?, name))
        } else {
            None
        };
        Ok(Self { target, addresses, sources: Sources::default(), tls, access: Arc::new(access) })
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
        if let Some(bytes) = self.access.socket_buffer_bytes {
            let socket = SockRef::from(&tcp);
            socket.set_send_buffer_size(bytes).map_err(tcp_error)?;
            socket.set_recv_buffer_size(bytes).map_err(tcp_error)?;
        }
        let Some((connector, name)) = &self.tls else {
            return Ok(NetStream::Tcp(tcp));
        };
        let begun = Instant::now();
        let tls_error = |cause| ConnectError::Tls { host: self.target.host().to_owned(), cause };
        let stream = connector.connect(name.clone(), tcp).await.map_err(tls_error)?;
        Ok(NetStream::Tls(Box::new(Encrypted { stream, handshake: begun.elapsed() })))
    }

    fn tls_time(stream: &NetStream) -> Option<Duration> {
        match stream {
            NetStream::Tcp(_) => None,
            NetStream::Tls(encrypted) => Some(encrypted.handshake),
        }
    }

    fn secrets(&self) -> Secrets {
        self.access.tokens.secrets()
    }

    fn request(&self, connection: u32) -> Result<Request, ConnectError> {
        let not_websocket = |error: WsError| ConnectError::NotWebSocket { cause: error.to_string() };
        let mut request = self.target.uri().clone().into_client_request().map_err(not_websocket)?;
        self.access.complete(&mut request, connection)?;
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

/// A TCP stream, encrypted or not.
#[derive(Debug)]
pub enum NetStream {
    /// `ws://`.
    Tcp(TcpStream),
    /// `wss://`.
    Tls(Box<Encrypted>),
}

/// A TLS session over TCP.
#[derive(Debug)]
pub struct Encrypted {
    stream: TlsStream<TcpStream>,
    /// How long it took to agree on it.
    handshake: Duration,
}

impl AsyncRead for NetStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(tls) => Pin::new(&mut tls.stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for NetStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(tls) => Pin::new(&mut tls.stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(tls) => Pin::new(&mut tls.stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(tls) => Pin::new(&mut tls.stream).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use super::*;

    #[test]
    fn what_the_generator_lacks_is_told_from_what_the_target_does() {
        let of = |cause: io::Error| ConnectError::tcp("host:1".to_owned(), cause);
        let lacked = |code| of(io::Error::from_raw_os_error(code)).lacked();
        for code in [libc::EMFILE, libc::ENFILE] {
            let why = lacked(code).unwrap();
            assert!(why.starts_with("the generator ran out of open files ("), "{why}");
        }
        let ports = Some("the generator ran out of local ports".to_owned());
        assert_eq!(lacked(libc::EADDRNOTAVAIL), ports);
        // As it is where every address of the loopback has been tried.
        assert_eq!(of(io::ErrorKind::AddrNotAvailable.into()).lacked(), ports);
        for code in [libc::ECONNREFUSED, libc::ECONNRESET, libc::EHOSTUNREACH, libc::ETIMEDOUT] {
            assert_eq!(lacked(code), None);
        }
        assert_eq!(ConnectError::Refused { status: 503 }.lacked(), None);
        assert!(ConnectError::UnusableToken.lacked().is_some_and(|why| why.contains("the token holds")));
    }
}
