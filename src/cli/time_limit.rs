//! The end of a run that takes longer than is allowed.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::anyhow;
use floodline::client::Stop;
use floodline::units;

use super::exit::Failure;

/// After the end of the load, answers are awaited for so long; then everything ends.
const GRACE: Duration = Duration::from_secs(10);

/// Ends a run when its time is over.
#[derive(Debug)]
pub struct TimeLimit {
    limit: Duration,
    reached: Arc<AtomicBool>,
}

impl TimeLimit {
    /// From when `wait` is over on. The thread that waits ends with the process.
    ///
    /// # Errors
    /// Where the system gives no thread.
    pub fn start(limit: Duration, wait: Duration, stop: &Stop) -> io::Result<Self> {
        let reached = Arc::new(AtomicBool::new(false));
        let (noted, stop) = (Arc::clone(&reached), stop.clone());
        std::thread::Builder::new().name("time-limit".to_owned()).spawn(move || {
            std::thread::sleep(limit.saturating_add(wait));
            noted.store(true, Ordering::SeqCst);
            stop.stop();
            std::thread::sleep(GRACE);
            // A second call gives up waiting.
            stop.stop();
        })?;
        Ok(Self { limit, reached })
    }

    /// Why a run ended early, where its time was over.
    pub fn reached(&self) -> Option<Failure> {
        let reached = self.reached.load(Ordering::SeqCst);
        reached.then(|| {
            let limit = units::span(self.limit);
            Failure::Ended(anyhow!(
                "--time-limit {limit} (guard.time_limit): the run took longer and was ended"
            ))
        })
    }
}
