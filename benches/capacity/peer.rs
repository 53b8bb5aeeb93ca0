//! The server of a floor, in a process of its own as the mock server is, and the connections to it.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStdout, Command, Stdio};

use anyhow::{Context, bail};
#[cfg(target_os = "linux")]
use nix::sched::{CpuSet, sched_getaffinity, sched_getcpu, sched_setaffinity};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::task::LocalSet;

/// So much is read at once at most: more than the largest window takes.
pub(super) const READ_BYTES: usize = 64 * 1024;

#[cfg(target_os = "linux")]
const THIS_THREAD: nix::unistd::Pid = nix::unistd::Pid::from_raw(0);

/// The process of the server. It ends with this.
pub(super) struct Peer {
    child: Child,
    output: BufReader<ChildStdout>,
    address: SocketAddr,
    _one_core: Option<OneCore>,
}

impl Peer {
    /// Starts this program again in that role, in which it is to [`serve`] so many connections.
    pub(super) fn start(role: &str, connections: usize) -> anyhow::Result<Self> {
        let one_core = (connections == 1).then(OneCore::enter).transpose()?;
        let mut child = Command::new(std::env::current_exe()?).arg(role).stdout(Stdio::piped()).spawn()?;
        let mut output = BufReader::new(child.stdout.take().context("no output")?);
        let mut line = String::new();
        output.read_line(&mut line)?;
        let address = line.trim().parse();
        // From here on the child ends with this, whatever its address.
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        let mut peer = Self { child, output, address: nowhere, _one_core: one_core };
        peer.address = address?;
        Ok(peer)
    }

    /// So many connections, all of them open.
    pub(super) async fn connect(&self, connections: usize) -> anyhow::Result<Vec<TcpStream>> {
        let mut streams = Vec::with_capacity(connections);
        for _ in 0..connections {
            let stream = TcpStream::connect(self.address).await?;
            stream.set_nodelay(true)?;
            streams.push(stream);
        }
        Ok(streams)
    }

    /// The next line that the server writes.
    pub(super) fn line(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        if self.output.read_line(&mut line)? == 0 {
            bail!("the server of the floor ended");
        }
        Ok(line)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // Where it has ended by itself there is nothing to kill, and waiting for it is all the same.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Keeps this thread, and what it starts, on one core.
///
/// On a single connection the two sides of a floor take turns: a second core gains nothing, and costs a wake of the other
/// core each turn. Left to itself the scheduler puts them on one core in one second and on two in the next.
struct OneCore {
    #[cfg(target_os = "linux")]
    before: CpuSet,
}

#[cfg(target_os = "linux")]
impl OneCore {
    fn enter() -> anyhow::Result<Self> {
        let before = sched_getaffinity(THIS_THREAD)?;
        let mut one = CpuSet::new();
        one.set(sched_getcpu()?)?;
        sched_setaffinity(THIS_THREAD, &one)?;
        Ok(Self { before })
    }
}

#[cfg(target_os = "linux")]
impl Drop for OneCore {
    fn drop(&mut self) {
        // What was allowed before is allowed again; were it not, only the next line's figures would show it.
        let _ = sched_setaffinity(THIS_THREAD, &self.before);
    }
}

#[cfg(not(target_os = "linux"))]
impl OneCore {
    fn enter() -> anyhow::Result<Self> {
        Ok(Self {})
    }
}

/// What either side runs on: without a timer, for which the runtime would read the clock whenever it wakes.
pub(super) fn runtime() -> std::io::Result<Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_io().build()
}

/// Writes where it listens, and has every connection served until the process is killed.
pub(super) fn serve<F>(connection: impl Fn(TcpStream) -> F) -> anyhow::Result<()>
where
    F: Future<Output = ()> + 'static,
{
    LocalSet::new().block_on(&runtime()?, async {
        let listener = TcpListener::from_std(floodline::server::listen(([127, 0, 0, 1], 0).into(), None)?)?;
        writeln!(std::io::stdout(), "{}", listener.local_addr()?)?;
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            tokio::task::spawn_local(connection(stream));
        }
    })
}
