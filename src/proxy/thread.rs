//! A proxy on a thread of its own, for those who have no runtime.

use std::net::SocketAddr;
use std::sync::mpsc;
use std::thread::JoinHandle;

use tokio::sync::oneshot;

use super::{FaultProxy, ProxyError, ProxyHandle};

/// A running proxy; it ends when this is dropped.
#[derive(Debug)]
pub struct ProxyThread {
    address: SocketAddr,
    handle: ProxyHandle,
    alive: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl ProxyThread {
    /// Starts a proxy as [`FaultProxy::bind`] describes it.
    ///
    /// # Errors
    /// Where `listen` can't be listened at, or the system gives no thread or runtime.
    pub fn start(listen: SocketAddr, upstream: SocketAddr) -> Result<Self, ProxyError> {
        let no_thread = |source| ProxyError::Thread { source };
        let (ready, started) = mpsc::channel();
        let (alive, dropped) = oneshot::channel();
        let serve = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            // The receiver outlives this, unless the thread that waits for us panicked.
            let runtime = match runtime {
                Ok(runtime) => runtime,
                Err(source) => return drop(ready.send(Err(no_thread(source)))),
            };
            runtime.block_on(async {
                match FaultProxy::bind(listen, upstream).await {
                    Ok(proxy) => {
                        let _ = ready.send(Ok((proxy.local_addr(), proxy.handle())));
                        proxy.run(dropped).await;
                    }
                    Err(error) => drop(ready.send(Err(error))),
                }
            });
        };
        let thread =
            std::thread::Builder::new().name("fault-proxy".to_owned()).spawn(serve).map_err(no_thread)?;
        let ended = || no_thread(std::io::Error::other("it ended at once"));
        let (address, handle) = started.recv().map_err(|_| ended())??;
        Ok(Self { address, handle, alive: Some(alive), thread: Some(thread) })
    }

    /// The address that clients connect to.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What steers it.
    #[must_use]
    pub fn handle(&self) -> &ProxyHandle {
        &self.handle
    }
}

impl Drop for ProxyThread {
    fn drop(&mut self) {
        drop(self.alive.take());
        if let Some(thread) = self.thread.take() {
            // It fails only where the thread panicked; its connections are closed all the same.
            let _ = thread.join();
        }
    }
}
