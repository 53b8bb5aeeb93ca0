//! From which address a connection comes: towards one target each has only so many ports.
//!
//! Linux hands out some 28,000 ports an address (`net.ipv4.ip_local_port_range`). Every address of 127.0.0.0/8 is this
//! machine's, so towards a target there the next address takes over when one has no port left.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use tokio::net::{TcpSocket, TcpStream};

/// With ports enough for seven million connections.
const LAST_SOURCE: u8 = 254;

/// Where connections come from; copies share where they are.
#[derive(Debug, Clone, Default)]
pub(super) struct Sources {
    /// The last byte of the loopback address that has ports left; 0, as long as the system chooses.
    current: Arc<AtomicU8>,
}

impl Sources {
    /// Connects to the first of `addresses` that takes it.
    pub(super) async fn connect(&self, addresses: &[SocketAddr]) -> io::Result<TcpStream> {
        let Some(target) = loopback(addresses) else {
            return TcpStream::connect(addresses).await;
        };
        loop {
            let current = self.current.load(Ordering::Relaxed);
            match connect_from(current, target).await {
                Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable && current < LAST_SOURCE => {
                    // 127.0.0.1 is what the system chooses, so the next is 2. Another may have moved on meanwhile.
                    let next = (current + 1).max(2);
                    let _ =
                        self.current.compare_exchange(current, next, Ordering::Relaxed, Ordering::Relaxed);
                }
                outcome => return outcome,
            }
        }
    }
}

/// The one target, where it is in 127.0.0.0/8, and all of that is this machine's.
fn loopback(addresses: &[SocketAddr]) -> Option<SocketAddr> {
    match addresses {
        &[target] if cfg!(target_os = "linux") => match target.ip() {
            IpAddr::V4(ip) if ip.is_loopback() => Some(target),
            _ => None,
        },
        _ => None,
    }
}

async fn connect_from(source: u8, target: SocketAddr) -> io::Result<TcpStream> {
    if source == 0 {
        return TcpStream::connect(target).await;
    }
    let socket = TcpSocket::new_v4()?;
    // A port of this address is taken here, whatever it connects to: "in use" means that there is none.
    let no_port = |error: io::Error| match error.kind() {
        io::ErrorKind::AddrInUse => io::ErrorKind::AddrNotAvailable.into(),
        _ => error,
    };
    socket.bind((Ipv4Addr::new(127, 0, 0, source), 0).into()).map_err(no_port)?;
    socket.connect(target).await
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_loopback_target_is_reached_from_whatever_source_has_ports() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = listener.local_addr().unwrap();
        for (source, expected) in [(0, 1), (2, 2), (LAST_SOURCE, LAST_SOURCE)] {
            let sources = Sources::default();
            sources.current.store(source, Ordering::Relaxed);
            let _client = sources.connect(&[target]).await.unwrap();
            let (_server, peer) = listener.accept().await.unwrap();
            assert_eq!(peer.ip(), IpAddr::V4(Ipv4Addr::new(127, 0, 0, expected)));
        }
    }

    #[test]
    fn only_a_loopback_target_has_more_than_one_source() {
        let address = |text: &str| text.parse::<SocketAddr>().unwrap();
        let (here, there) = (address("127.3.2.1:80"), address("10.0.0.1:80"));
        assert_eq!(loopback(&[here]), Some(here));
        for others in [vec![there], vec![address("[::1]:80")], vec![here, there]] {
            assert_eq!(loopback(&others), None);
        }
    }
}
